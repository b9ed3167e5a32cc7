"""Fig. 3 drawn from the modules: the network's own table of shapes and parameters.

Computed from the modules themselves, so that table and drawing cannot say anything else than what
is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlog1py, xlogy
from torch import nn

from labkit import paths
from labkit.cohorts.cohort import VIEW_SIZE, Cohort
from labkit.errors import InputError
from labkit.imaging.views import window
from labkit.io import read_json
from labkit.models.mtcnn import IMAGE_SIZE, MTCNN, STCNN
from labkit.plots import style
from labkit.plots.style import Point, name_points

# Figures of a measured roofline: what limits each stage of a training step, and where time goes.
#
# `python -m benchmarks.roofline` measures; everything here starts from the JSON that it writes. The
# roofline model is Williams, Waterman and Patterson's (2009): a stage that does `intensity` FLOP
# for
# every byte it moves cannot be faster than the lower of peak FLOP/s and intensity times bytes/s.


ARITHMETIC, MEMORY = "arithmetic", "memory"
_roofline_COLOURS = {ARITHMETIC: style.BLUE, MEMORY: style.VERMILION}
_AREA, _AREA_ALL = 12.0, 900.0  # of a point that takes no time, and of one that takes all
_CURE = "make it by python -m benchmarks.roofline --out FILE.json"
_STAGE = ("stage", "flop", "flop_executed", "bytes", "seconds")


def read(file: Path | None = None) -> dict[str, Any]:
    """A measurement of `benchmarks.roofline`, checked.

    Args:
        file: None reads the committed one of a CPU.

    Raises:
        InputError: missing, or not such a measurement.
    """
    place = paths.results() / "roofline_cpu.json" if file is None else file
    if not place.is_file():
        raise InputError(f"{place}: missing; {_CURE}")
    return _checked(read_json(place, "a measured roofline"), str(place))


def table(found: Mapping[str, Any], precision: str | None = None) -> pd.DataFrame:
    """Every stage with its cost, its time and what limits it.

    Args:
        found: as `read` gives it.
        precision: "fp32" or "bf16"; None takes bf16 where it was measured.

    Returns:
        Columns: stage, MFLOP (by the layer's definition), executed (of them, MFLOP; all that
        follows is about these), MB, FLOP/byte, ms, GFLOP/s, share (of the stages' time), limit
        ("arithmetic" or "memory", by the roof), least ms (what the roof allows).
    """
    name = _precision(found, precision)
    peak, bandwidth = _roof(found, name)
    rows = []
    for s in found["steps"][name]["stages"]:
        # On a GPU the kernels alone; what lies between them is not the stage's.
        seconds = s.get("kernel_seconds", s["seconds"])
        flop = s["flop_executed"]
        by_flop, by_bytes = flop / peak, s["bytes"] / bandwidth
        rows.append(
            {
                "stage": s["stage"],
                "MFLOP": s["flop"] / 1e6,
                "executed": flop / 1e6,
                "MB": s["bytes"] / 1e6,
                "FLOP/byte": flop / s["bytes"],
                "ms": 1e3 * seconds,
                "GFLOP/s": flop / seconds / 1e9,
                "limit": ARITHMETIC if by_flop > by_bytes else MEMORY,
                "least ms": 1e3 * max(by_flop, by_bytes),
            }
        )
    stages = pd.DataFrame(rows)
    stages.insert(7, "share", stages["ms"] / stages["ms"].sum())
    return stages


def roofline_figure(found: Mapping[str, Any], precision: str | None = None) -> Figure:
    """Stages of a step below the measured roof: FLOP/s against FLOP a byte, both logarithmic.

    A point's area is its share of the stages' time.

    Args:
        found: as `read` gives it.
        precision: of the points; None takes bf16 where it was measured. All roofs are drawn.

    Raises:
        InputError: not a measurement, or not at this precision.
    """
    found = _checked(found, "the measurement")
    name = _precision(found, precision)
    stages = table(found, name)
    bandwidth = _roof(found, name)[1]
    peaks = found["roof"]["flop_per_s"]
    ridge = max(peaks.values()) / bandwidth
    low = 0.5 * stages["FLOP/byte"].min()
    high = 2.5 * max(stages["FLOP/byte"].max(), ridge)
    with style.house_style():
        figure = Figure(figsize=(7.8, 5.2), layout="constrained")
        ax = figure.subplots()
        for precision_of, peak in peaks.items():
            x = np.array([low, peak / bandwidth, high])
            line = 1.8 if precision_of == name else 0.9
            ax.plot(x, np.minimum(peak, x * bandwidth) / 1e9, color=style.BLACK, lw=line, zorder=1)
            ax.text(
                1.01, peak / 1e9, f"{precision_of}\n{_roofline_rate(peak)}", va="center",
                fontsize=9,
                fontweight="bold" if precision_of == name else "normal",
                transform=ax.get_yaxis_transform(),
            )  # fmt: skip
        for bound, colour in _roofline_COLOURS.items():
            of = stages[stages["limit"] == bound]
            area = _AREA + _AREA_ALL * of["share"].to_numpy()
            ax.scatter(
                of["FLOP/byte"], of["GFLOP/s"], s=area, color=colour, alpha=0.75, lw=0, zorder=3
            )
        ax.set(
            xscale="log", yscale="log", xlim=(low, high),
            ylim=(0.5 * stages["GFLOP/s"].min(), 2.2 * max(peaks.values()) / 1e9),
            xlabel="arithmetic intensity, FLOP a byte", ylabel="GFLOP/s",
        )  # fmt: skip
        ax.set_title(_place(found, name))
        _legend(ax, "upper left", "o")
        figure.draw_without_rendering()  # from here on, places in pixels are known
        _name_slope(ax, 0.75 * min(peaks.values()) / bandwidth, bandwidth)
        points = [
            Point(s["stage"], s["FLOP/byte"], s["GFLOP/s"], _AREA + _AREA_ALL * s["share"])
            for s in stages.to_dict("records")
        ]
        name_points(ax, points)
    said = "; ".join(
        f"{s['stage']} {s['FLOP/byte']:.2g} FLOP a byte, {s['GFLOP/s']:.3g} GFLOP/s"
        for s in stages.to_dict("records")
    )
    return style.describe(
        figure,
        f"Roofline of {_place(found, name)}. Roofs: "
        f"{', '.join(f'{n} {_roofline_rate(p)}' for n, p in peaks.items())}, "
        f"{bandwidth / 1e9:.3g} GB/s. "
        f"Stages: {said}.",
    )


def time_figure(found: Mapping[str, Any]) -> Figure:
    """Where a step's time goes, one panel a precision; a tick is the least that the roof allows.

    Raises:
        InputError: not a measurement.
    """
    found = _checked(found, "the measurement")
    tables = {name: table(found, name) for name in found["steps"]}
    order = next(iter(tables.values()))["stage"].tolist()
    with style.house_style():
        height = 1.3 + 0.23 * len(order)
        figure = Figure(figsize=(1.6 + 3.4 * len(tables), height), layout="constrained")
        axes = figure.subplots(1, len(tables), sharey=True, sharex=True, squeeze=False)[0]
        for ax, (name, stages) in zip(axes, tables.items(), strict=True):
            place = np.arange(len(stages))
            ax.barh(
                place,
                stages["ms"],
                color=[_roofline_COLOURS[b] for b in stages["limit"]],
                height=0.7,
            )
            for y, least in zip(place, stages["least ms"], strict=True):
                ax.plot([least, least], [y - 0.42, y + 0.42], color=style.BLACK, lw=1.8)
            ax.set_yticks(place, order)
            ax.grid(visible=False, axis="y")
            whole = 1e3 * found["steps"][name]["seconds"]
            ax.set_title(f"{name}: {whole:.3g} ms a step")
            ax.set_xlabel("ms, forward and backward")
        axes[0].invert_yaxis()
        _legend(axes[-1], "lower right", "s")
    words = [
        f"{name}: " + ", ".join(f"{s['stage']} {s['ms']:.2g}" for s in stages.to_dict("records"))
        for name, stages in tables.items()
    ]
    return style.describe(
        figure, f"Milliseconds by stage of a training step of one MT-CNN. {'; '.join(words)}."
    )


def _checked(found: Any, place: str) -> dict[str, Any]:
    """The measurement, once every key that is drawn is known to be there."""
    try:
        steps, roof = found["steps"], found["roof"]
        whole = bool(steps) and all(
            step["stages"]
            and step["seconds"] > 0
            and name in roof["flop_per_s"]
            and all(s[key] is not None for s in step["stages"] for key in _STAGE)
            and all(min(s[key] for key in _STAGE[1:]) > 0 for s in step["stages"])
            for name, step in steps.items()
        )
        values = [*roof["flop_per_s"].values(), *roof["bytes_per_s"].values()]
        whole = whole and len(roof["bytes_per_s"]) > 0 and min(values) > 0
        _ = (found["hardware"]["processor"], found["hardware"]["gpu"], found["device"])
        _ = (found["date"], found["batch_size"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{place}: not a measured roofline ({error!r}); {_CURE}") from None
    if not whole:
        raise InputError(f"{place}: a roofline without stages, or with values of 0; {_CURE}")
    return dict(found)


def _precision(found: Mapping[str, Any], precision: str | None) -> str:
    name = precision or ("bf16" if "bf16" in found["steps"] else "fp32")
    if name not in found["steps"]:
        there = ", ".join(found["steps"])
        raise InputError(f"{name} was not measured; there is {there}")
    return name


def _roof(found: Mapping[str, Any], precision: str) -> tuple[float, float]:
    """FLOP/s of this precision, bytes/s."""
    roof = found["roof"]
    return roof["flop_per_s"][precision], max(roof["bytes_per_s"].values())


def _place(found: Mapping[str, Any], precision: str) -> str:
    cuda = found["device"] == "cuda"
    where = found["hardware"]["gpu" if cuda else "processor"]
    threads = "" if cuda else ", one core"
    return f"{where}{threads}, {precision}, batch {found['batch_size']}, {found['date'][:10]}"


def _roofline_rate(flop_per_s: float) -> str:
    if flop_per_s >= 1e12:
        return f"{flop_per_s / 1e12:.3g} TFLOP/s"
    return f"{flop_per_s / 1e9:.3g} GFLOP/s"


def _legend(ax: Axes, where: str, marker: str) -> None:
    """What the colours mean, and the ticks of bars."""
    handles = [
        Line2D([], [], color=colour, marker=marker, ls="", ms=8, label=f"limit: {limit}")
        for limit, colour in _roofline_COLOURS.items()
    ]
    if marker == "s":
        tick = Line2D([], [], color=style.BLACK, marker="|", ls="", ms=10, mew=1.8)
        tick.set_label("least, by the roof")
        handles.append(tick)
    ax.legend(handles=handles, loc=where)


def _name_slope(ax: Axes, x: float, bandwidth: float) -> None:
    """The memory's roof, named along its line up to x."""
    ends = ax.transData.transform([(at, at * bandwidth / 1e9) for at in (x / 10, x)])
    across, up = ends[1] - ends[0]
    ax.text(
        x, 1.15 * x * bandwidth / 1e9, f"memory: {bandwidth / 1e9:.3g} GB/s", fontsize=9,
        rotation=float(np.degrees(np.arctan2(up, across))), rotation_mode="anchor",
        ha="right", va="bottom",
    )  # fmt: skip


# Figures of measured speed: the engine against the textbook loop, and networks side by side.
#
# Everything is read from the committed benchmarks in `results/`; a file
# `benchmark_layouts_*.json` of another machine, such as a GPU, becomes another panel.


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


# Figures of the losses in Eq. 1 to 3: the lost minus sign, and the floor of the reconstruction.


_MIDDLE = slice((VIEW_SIZE - IMAGE_SIZE) // 2, (VIEW_SIZE + IMAGE_SIZE) // 2)


def pixel_entropy(values: ArrayLike) -> NDArray[np.float64]:
    """Binary entropy of grey values in [0, 1], in nats: what their cross-entropy cannot go below.

    >>> pixel_entropy([0.0, 0.5, 1.0]).round(3).tolist()
    [0.0, 0.693, 0.0]
    """
    z = np.asarray(values, dtype=float)
    return np.abs(xlogy(z, z) + xlog1py(1 - z, -z))


def minus_sign_figure() -> Figure:
    """Eq. 2 of a malignant nodule as printed and with its minus, and where descending leads."""
    p = np.linspace(0.01, 0.99, 197)
    with style.house_style():
        figure = Figure(figsize=(8.4, 3.3), layout="constrained")
        for ax, sign, title in zip(
            figure.subplots(1, 2), (1, -1), ("Eq. 2 as printed", "with the minus"), strict=True
        ):
            ax.plot(p, sign * np.log(p), color=style.MALIGNANT)
            ax.set(xlabel="predicted probability of malignant", xlim=(0, 1), title=title)
            _downhill(ax, 0.55, 0.25 if sign == 1 else 0.85, sign)
            ax.set_ylabel("loss of a malignant nodule")
    return style.describe(
        figure,
        "The loss of a malignant nodule against its predicted probability. As printed it is lowest "
        "where the network is surely wrong; with the minus where it is surely right.",
    )


def floor_figure(cohort: Cohort, row: int, view: int = 0) -> Figure:
    """Where the reconstruction loss has its floor: an image, and each of its pixels' entropy.

    Args:
        cohort: where the views are.
        row: of the nodule.
        view: of the nodule.
    """
    image = window(cohort.views[row, view][_MIDDLE, _MIDDLE])
    entropy = pixel_entropy(image)
    with style.house_style():
        figure = Figure(figsize=(8.8, 3.1), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        style.show_ct(left, image, low=0.0, high=1.0)
        left.set_title("image, 0 to 1")
        style.show_ct(middle, entropy, low=0.0, high=float(np.log(2)), cmap="viridis")
        middle.set_title(f"entropy of each pixel, mean {entropy.mean():.3f}")
        figure.colorbar(middle.images[0], ax=middle, label="nats", shrink=0.8)
        grey = np.linspace(0, 1, 201)
        right.plot(grey, pixel_entropy(grey), color=style.BLUE)
        right.set(xlabel="grey value of a pixel", ylabel="lowest possible loss, nats")
        right.set_title("0 for black and white only")
        if cohort.simulated:
            style.mark_simulated(left)
            style.mark_simulated(middle)
    return style.describe(
        figure,
        "An image of a nodule; a map of its pixels' entropy, high where the image is mid-grey and "
        f"on average {entropy.mean():.3f} nats; and the entropy against grey value, an arch from 0 "
        "over 0.693 at one half back to 0.",
    )


def _downhill(ax: Axes, start: float, end: float, sign: int) -> None:
    """A ball on the curve and an arrow to where the optimiser moves it."""
    at, to = (start, sign * np.log(start)), (end, sign * np.log(end))
    ax.plot(*at, "o", color=style.BLACK, ms=7)
    ax.annotate("", to, at, arrowprops={"arrowstyle": "-|>", "lw": 1.6, "color": style.BLACK})
    words = "learns to be surely wrong" if sign == 1 else "learns to be surely right"
    ax.text(0.96, 0.08 if sign == 1 else 0.85, words, transform=ax.transAxes, ha="right")


_BRANCHES = {"share": "ShareNet", "classify": "ClsNet", "reconstruct": "ImgNet"}
_COLOURS = {"ShareNet": style.SKY, "ClsNet": style.ORANGE, "ImgNet": style.GREEN}
_KINDS = {
    "Conv2d": "convolution", "MaxPool2d": "max pooling", "Linear": "fully connected",
    "UpsampledDeconv": "upsampling + deconvolution", "Dropout": "dropout",
}  # fmt: skip
_ARROW = {"arrowstyle": "->", "lw": 0.9}


def network_table(network: MTCNN | STCNN) -> pd.DataFrame:
    """The table behind Fig. 3: every layer with its output's shape and its parameters.

    Shapes come from sending an empty image through; layers that only bend (ReLU, flatten) are
    left out.

    Returns:
        Columns: branch, layer, output (channels x height x width, or neurons), parameters.

    >>> table = network_table(STCNN())
    >>> table["layer"][0], table["output"][0], int(table["parameters"][0])
    ('convolution 5 x 5', '24 x 64 x 64', 624)
    """
    rows: list[dict[str, Any]] = []

    def note(branch: str, layer: nn.Module, output: torch.Tensor) -> None:
        name = _KINDS[type(layer).__name__]
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            name += " {} x {}".format(*layer.kernel_size)
        rows.append(
            {
                "branch": branch,
                "layer": name,
                "output": " x ".join(map(str, output.shape[1:])),
                "parameters": sum(p.numel() for p in layer.parameters()),
            }
        )

    hooks = []
    for attribute, branch in _BRANCHES.items():
        for layer in getattr(network, attribute, ()):
            skipped = isinstance(layer, nn.Dropout) and layer.p == 0
            if type(layer).__name__ in _KINDS and not skipped:
                hooks.append(
                    layer.register_forward_hook(
                        lambda layer, _, output, branch=branch: note(branch, layer, output)
                    )
                )
    try:
        weight = next(network.parameters())
        with torch.inference_mode():
            network(torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE, device=weight.device))
    finally:
        for hook in hooks:
            hook.remove()
    return pd.DataFrame(rows)


def network_figure(network: MTCNN | STCNN) -> Figure:
    """Fig. 3, drawn from the modules: ShareNet and ClsNet to the right, ImgNet back to the left.

    A square's side is the map's side, its stack the number of channels; every map of ImgNet stands
    below the map of ShareNet that it mirrors. Below each: channels x height x width.
    """
    table = network_table(network)
    table = table[table["layer"] != "dropout"]
    rows: dict[str, list[tuple[int, ...]]] = {"ShareNet": [(1, IMAGE_SIZE, IMAGE_SIZE)]}
    for branch, output in zip(table["branch"], table["output"], strict=True):
        rows.setdefault(branch, []).append(tuple(map(int, output.split(" x "))))
    last = len(rows["ShareNet"]) - 1
    places = {
        "ShareNet": [(float(k), 0.0) for k in range(last + 1)],
        "ClsNet": [(last + 0.95 + 0.85 * k, 0.0) for k in range(3)],
        "ImgNet": [(float(k), -1.25) for k in range(last - 2, -1, -2)],
    }
    depth = -1.88 if "ImgNet" in rows else -0.65
    width = last + 3.8
    with style.house_style():
        figure = Figure(figsize=(0.92 * width, 0.92 * (0.75 - depth)), layout="constrained")
        ax = figure.subplots()
        for branch, shapes in rows.items():
            spots = places[branch]
            for (x, y), shape in zip(spots, shapes, strict=True):
                _draw_block(ax, x, y, shape, _COLOURS[branch])
            # Each branch goes on where ShareNet ends.
            path = spots if branch == "ShareNet" else [(float(last), spots[0][1]), *spots]
            for (x0, y0), (x1, _) in pairwise(path):
                middle, half = (x0 + x1) / 2, 0.08 * (x1 - x0)
                ax.annotate("", (middle + half, y0), (middle - half, y0), arrowprops=_ARROW)
            above = 0.46 if branch != "ImgNet" else 0.4
            left = min(x for x, _ in spots) - 0.32
            ax.text(left, spots[0][1] + above, branch, weight="bold", fontsize=11)
        if "ImgNet" in rows:
            ax.plot([last, last, last - 0.92], [-0.68, -1.25, -1.25], color=style.BLACK, lw=0.8)
        ax.set(xlim=(-0.5, width - 0.5), ylim=(depth, 0.75), aspect="equal")
        ax.axis("off")
    words = "; ".join(
        f"{branch}: " + ", ".join(" x ".join(map(str, shape)) for shape in shapes)
        for branch, shapes in rows.items()
    )
    return style.describe(figure, f"The network as boxes whose size is the output's size. {words}.")


def _draw_block(ax: Axes, x: float, y: float, shape: tuple[int, ...], colour: str) -> None:
    """A stack of squares for feature maps, a column for neurons, centred on (x, y)."""
    if len(shape) == 1:
        height = 0.12 + 0.68 * shape[0] / 256
        box = Rectangle((x - 0.05, y - height / 2), 0.1, height, fc=colour, ec=style.BLACK, lw=0.6)
        ax.add_patch(box)
        text = f"{shape[0]}"
    else:
        channels, side = shape[0], 0.1 + 0.52 * shape[1] / IMAGE_SIZE
        sheets = 1 if channels == 1 else 2 + channels // 16
        for k in reversed(range(sheets)):
            left = x - side / 2 + 0.025 * (k - (sheets - 1) / 2)
            low = y - side / 2 + 0.025 * (k - (sheets - 1) / 2)
            box = Rectangle((left, low), side, side, fc=colour, ec=style.BLACK, lw=0.6)
            ax.add_patch(box)
        text = " × ".join(map(str, shape))
    ax.text(x, y - 0.45, text, ha="center", va="top", fontsize=7.5)
