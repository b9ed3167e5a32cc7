"""Figures of measured speed: the engine against the textbook loop, and networks side by side.

Everything is read from the committed benchmarks in `results/`; a file
`benchmark_layouts_*.json` of another machine, such as a GPU, becomes another panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit import paths
from labkit.errors import InputError
from labkit.files import read_json
from labkit.plots import style

_TRAINING = "benchmark_training.json"
_LAYOUTS = "benchmark_layouts*.json"


def committed(folder: Path | None = None) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """The benchmarks of training and of layouts, as far as they are there.

    Args:
        folder: None takes `results/`.

    Returns:
        the comparison with the textbook loop, or None; and one comparison of layouts a machine,
        that of the CPU first.

    Raises:
        InputError: neither is there, or a file is not such a benchmark.
    """
    place = paths.results() if folder is None else folder
    training = None
    if (place / _TRAINING).is_file():
        training = read_json(place / _TRAINING, "a benchmark")
        _check_training(training, str(place / _TRAINING))
    layouts = []
    for file in sorted(place.glob(_LAYOUTS), key=lambda f: (len(f.name), f.name)):
        layouts.append(read_json(file, "a benchmark"))
        _check_layouts(layouts[-1], str(file))
    if training is None and not layouts:
        raise InputError(
            f"{place}: no benchmark of training there; make one by python -m benchmarks.training "
            f"--out {place / _TRAINING}"
        )
    return training, layouts


def speed_figure(
    training: Mapping[str, Any] | None = None, layouts: Sequence[Mapping[str, Any]] = ()
) -> Figure:
    """Bars of updates against the textbook loop, then a panel of layouts for every machine.

    Args:
        training: what `benchmarks.training` wrote, or None.
        layouts: what `benchmarks.layouts` wrote, one a machine.

    Raises:
        InputError: nothing to draw, or not such benchmarks.
    """
    if training is None and not layouts:
        raise InputError("there is no benchmark to draw")
    if training is not None:
        _check_training(training, "the benchmark of training")
    for one in layouts:
        _check_layouts(one, "the benchmark of layouts")
    bars = ([len(training["ratio"])] if training else []) + [len(one["ways"]) for one in layouts]
    words = []
    with style.house_style():
        figure = Figure(figsize=(7.6, sum(0.95 + 0.3 * n for n in bars)), layout="constrained")
        axes = figure.subplots(len(bars), 1, squeeze=False, height_ratios=[n + 1.2 for n in bars])
        panels = list(axes[:, 0])
        if training is not None:
            words.append(_draw_training(panels.pop(0), training))
        for ax, one in zip(panels, layouts, strict=True):
            words.append(_draw_layouts(ax, one))
    return style.describe(figure, " ".join(words))


def _draw_training(ax: Axes, training: Mapping[str, Any]) -> str:
    ratio = training["ratio"]
    slowest = next(iter(ratio))
    ends = [f"{value:.1f} × as fast" if name != slowest else "1" for name, value in ratio.items()]
    _bars(ax, ratio, ends, [style.GREY] + [style.GREEN] * (len(ratio) - 1))
    ax.set_xlabel("updates in the same time, the textbook loop's as one")
    ax.set_title(f"Nine networks, all cores: {_machine(training)}")
    said = ", ".join(f"{name} {value:.2f}" for name, value in ratio.items())
    return f"Speed of training nine networks, textbook loop as one: {said}."


def _draw_layouts(ax: Axes, one: Mapping[str, Any]) -> str:
    ms = {name: way["ms_per_round"] for name, way in one["ways"].items()}
    first = next(iter(ms.values()))
    digits = 0 if min(ms.values()) >= 100 else 1
    ends = []
    for name, value in ms.items():
        rate = one["ways"][name].get("tflops")
        flop = "" if rate is None else f", {_rate(rate)}"
        ends.append(f"{value:,.{digits}f} ms, {first / value:.2g} × as fast{flop}")
    best = min(ms, key=lambda name: ms[name])
    colours = [style.GREEN if name == best else style.SKY for name in ms]
    _bars(ax, ms, ends, colours)
    ax.set_xlabel(f"ms a step of {one['networks']} networks together (shorter is faster)")
    ax.set_title(f"Side by side, {one['precision']}, batch {one['batch_size']}: {_machine(one)}")
    said = ", ".join(f"{name} {value:,.{digits}f}" for name, value in ms.items())
    return f"Milliseconds of a step of {one['networks']} networks on {_machine(one)}: {said}."


def _bars(ax: Axes, values: Mapping[str, float], ends: list[str], colours: list[str]) -> None:
    place = range(len(values))
    ax.barh(place, list(values.values()), color=colours, height=0.66)
    for y, value, end in zip(place, values.values(), ends, strict=True):
        ax.annotate(end, (value, y), (4, 0), textcoords="offset points", va="center", fontsize=9)
    ax.set_yticks(place, list(values))
    ax.set_xlim(0, 1.85 * max(values.values()))  # room for the words
    ax.grid(visible=False, axis="y")
    ax.invert_yaxis()


def _machine(one: Mapping[str, Any]) -> str:
    hardware, date = one["hardware"], str(one.get("date", ""))[:10]
    cuda = one.get("device", "cpu") == "cuda"
    name = hardware["gpu"] if cuda else f"{hardware['processor']} (CPU)"
    return f"{name}, {date}" if date else str(name)


def _rate(tflops: float) -> str:
    return f"{tflops:.3g} TFLOP/s" if tflops >= 1 else f"{1e3 * tflops:.3g} GFLOP/s"


def _check_training(one: Any, place: str) -> None:
    cure = "make it by python -m benchmarks.training --out FILE.json"
    try:
        positive = len(one["ratio"]) > 0 and min(one["ratio"].values()) > 0
        _machine(one)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{place}: not a benchmark of training ({error!r}); {cure}") from None
    if not positive:
        raise InputError(f"{place}: no ratio above 0 in it; {cure}")


def _check_layouts(one: Any, place: str) -> None:
    cure = "make it by python -m benchmarks.layouts --out FILE.json"
    try:
        times = [way["ms_per_round"] for way in one["ways"].values()]
        positive = len(times) > 0 and min(times) > 0
        _ = (one["networks"], one["batch_size"], one["precision"], _machine(one))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{place}: not a benchmark of layouts ({error!r}); {cure}") from None
    if not positive:
        raise InputError(f"{place}: no time above 0 in it; {cure}")
