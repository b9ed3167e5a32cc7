"""How fast training is: the roofline of a step, the textbook loop, and networks side by side.

Speed is read from the benchmarks' files in `results/`. The roofline model is Williams, Waterman and
Patterson's (2009): a stage that does `intensity` FLOP for every byte it moves cannot be faster than
the lower of peak FLOP/s and intensity times bytes/s.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from labkit import paths
from labkit.errors import InputError
from labkit.io import read_json
from labkit.plots import style
from labkit.plots.style import Drawn, Look, Values

_LIMITS = {"arithmetic": style.BLUE, "memory": style.VERMILION}


def read(file: Path | None = None) -> dict[str, Any]:
    """Load a measurement of `benchmarks.speed.roofline`; None loads the committed one of a CPU."""
    return _benchmark(file or paths.results() / "roofline_cpu.json", "roofline", "roof")


def committed() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Load the committed comparison with the textbook loop, and those of layouts, a machine each.

    That of the CPU comes first.
    """
    files = paths.results().glob("benchmark_layouts*.json")
    ordered = sorted(files, key=lambda file: (len(file.name), file.name))
    training = _benchmark(paths.results() / "benchmark_training.json", "training", "ratio")
    return training, [_benchmark(file, "layouts", "ways") for file in ordered]


def _benchmark(file: Path, name: str, key: str) -> dict[str, Any]:
    found = read_json(file, f"a benchmark of {name}")
    if not (isinstance(found, dict) and found.get(key)):
        cure = f"make it by python -m benchmarks.speed.{name} --out {file}"
        raise InputError(f"{file}: not a benchmark of {name}, which has {key}; {cure}")
    return found


def table(found: Values, precision: str | None = None) -> pd.DataFrame:
    """Compute from what `read` gives every stage's cost, its time and what limits it.

    Columns: stage, MFLOP (by the layer's definition), executed (of them, MFLOP; all that follows is
    about these), MB, FLOP/byte, ms, GFLOP/s, share (of the stages' time), limit ("arithmetic" or
    "memory", by the roof), least ms (what the roof allows). `precision`: "fp32" or "bf16"; None
    takes bf16 where it was measured.
    """
    steps = found["steps"]
    name = precision or ("bf16" if "bf16" in steps else "fp32")
    if name not in steps:
        raise InputError(f"{name} was not measured; there is {', '.join(steps)}")
    stages = pd.DataFrame(steps[name]["stages"])
    # On a GPU the kernels alone; what lies between them is not the stage's.
    seconds = stages.get("kernel_seconds", stages["seconds"]).fillna(stages["seconds"])
    flop, size = stages["flop_executed"], stages["bytes"]
    by_flop, by_bytes = flop / found["roof"]["flop_per_s"][name], size / _bandwidth(found)
    return pd.DataFrame({
        "stage": stages["stage"], "MFLOP": stages["flop"] / 1e6, "executed": flop / 1e6,
        "MB": size / 1e6, "FLOP/byte": flop / size, "ms": 1e3 * seconds,
        "GFLOP/s": flop / seconds / 1e9, "share": seconds / seconds.sum(),
        "limit": np.where(by_flop > by_bytes, "arithmetic", "memory"),
        "least ms": 1e3 * np.maximum(by_flop, by_bytes),
    }).rename_axis(name)  # fmt: skip


def _bandwidth(found: Values) -> float:
    return float(max(found["roof"]["bytes_per_s"].values()))


@style.figure
def roofline_figure(found: Values, precision: str | None = None) -> Drawn:
    """Draw stages of a step below the measured roof: FLOP/s against FLOP a byte, both logarithmic.

    A point's area is its share of the stages' time. All roofs are drawn, and the points of one
    precision; None takes bf16 where it was measured.
    """
    stages, bandwidth = table(found, precision), _bandwidth(found)
    name, peaks = stages.index.name, found["roof"]["flop_per_s"]
    low = 0.5 * stages["FLOP/byte"].min()
    high = 2.5 * max(stages["FLOP/byte"].max(), max(peaks.values()) / bandwidth)
    figure, ax = style.subplots(size=(7.8, 5.2))
    for of, peak in peaks.items():
        x, roof = np.array([low, peak / bandwidth, high]), f"roof of {of}: {_rate(peak)}"
        look = Look(color=style.BLACK, lw=1.8 if of == name else 0.9, zorder=1)
        ax.plot(x, np.minimum(peak, x * bandwidth) / 1e9, label=roof, **look)
    ax.plot([], [], " ", label=f"memory, on the left: {bandwidth / 1e9:.3g} GB/s")
    stages["area"] = 12 + 900 * stages["share"]
    for limit, colour in _LIMITS.items():
        of_limit = stages[stages["limit"] == limit]
        scatter = Look(s=of_limit["area"], color=colour, alpha=0.75, lw=0)
        ax.scatter(of_limit["FLOP/byte"], of_limit["GFLOP/s"], zorder=3, **scatter)
        ax.plot([], [], "o", color=colour, ms=8, label=f"limit: {limit}")
    top = 2.2 * max(peaks.values()) / 1e9
    ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(stages["GFLOP/s"].min() / 2, top))
    ax.set(xlabel="arithmetic intensity, FLOP a byte", ylabel="GFLOP/s")
    cuda = found["device"] == "cuda"
    where = found["hardware"]["gpu" if cuda else "processor"] + ", one core" * (not cuda)
    ax.set_title(f"{where}, {name}, batch {found['batch_size']}, {found['date'][:10]}")
    figure.legend(loc="outside lower center", ncols=3)
    radii = np.sqrt(stages["area"] / np.pi)
    style.name_points(ax, stages["stage"], stages["FLOP/byte"], stages["GFLOP/s"], radii)
    return figure, stages.set_index("stage")[["FLOP/byte", "GFLOP/s"]]


def _rate(flop_per_s: float) -> str:
    tera = flop_per_s >= 1e12
    return f"{flop_per_s / (1e12 if tera else 1e9):.3g} {'T' if tera else 'G'}FLOP/s"


@style.figure
def time_figure(found: Values) -> Drawn:
    """Draw where a step's time goes, a panel a precision; a tick is the least by the roof."""
    tables = {name: table(found, name).set_index("stage") for name in found["steps"]}
    size = (1.6 + 3.4 * len(tables), 1.3 + 0.23 * len(next(iter(tables.values()))))
    figure, axes = style.subplots(1, len(tables), size, sharex=True, sharey=True, squeeze=False)
    for ax, (name, stages) in zip(axes[0], tables.items(), strict=True):
        style.named_bars(ax, stages["ms"], [_LIMITS[of] for of in stages["limit"]], height=0.7)
        look = Look(color=style.BLACK, ms=12, mew=1.8, label="least, by the roof")
        ax.plot(stages["least ms"], range(len(stages)), "|", **look)
        ax.set_title(f"{name}: {1e3 * found['steps'][name]['seconds']:.3g} ms a step")
        ax.set_xlabel("ms, forward and backward")
    for limit, colour in _LIMITS.items():
        ax.plot([], [], "s", color=colour, ms=8, label=f"limit: {limit}")
    ax.legend(loc="lower right")
    return figure, {name: stages["ms"].to_dict() for name, stages in tables.items()}


@style.figure
def speed_figure(training: Values, layouts: Sequence[Values]) -> Drawn:
    """Draw how much faster training is than the textbook loop, and layouts of every machine.

    From what `benchmarks.speed.training` and `benchmarks.speed.layouts` wrote.
    """
    ratio = pd.Series(training["ratio"])
    title = f"Nine networks, all cores: {_machine(training)}"
    xlabel = "updates in the same time, the textbook loop's as one"
    parts = [(title, xlabel, ratio, ratio.max(), ratio.map("{:.1f} × as fast".format))]
    for one in layouts:
        ways = pd.DataFrame(one["ways"]).T.astype(float)
        ms, rates = ways["ms_per_round"], ways["tflops"].mul(1e12).map(_rate)
        digits, faster = int(ms.min() < 100), (ms.iloc[0] / ms).map("{:.2g} × as fast".format)
        ends = ms.map(f"{{:,.{digits}f}} ms".format) + ", " + faster + ", " + rates
        title = f"Side by side, {one['precision']}, batch {one['batch_size']}: {_machine(one)}"
        xlabel = f"ms a step of {one['networks']} networks together (shorter is faster)"
        parts.append((title, xlabel, ms, ms.min(), ends))
    ratios = [len(values) + 1.2 for _, _, values, *_ in parts]
    size = (7.6, 0.65 * len(parts) + 0.3 * sum(ratios))
    figure, axes = style.subplots(len(parts), 1, size, squeeze=False, height_ratios=ratios)
    for ax, (title, xlabel, values, best, ends) in zip(axes[:, 0], parts, strict=True):
        colours = [style.GREEN if value == best else style.SKY for value in values]
        style.named_bars(ax, values, colours, list(ends), height=0.66)
        ax.set(xlim=(0, 1.85 * values.max()), xlabel=xlabel, title=title)
    return figure, *(ends for *_, ends in parts)


def _machine(one: Values) -> str:
    cuda, hardware = one.get("device") == "cuda", one["hardware"]
    name = hardware["gpu"] if cuda else f"{hardware['processor']} (CPU)"
    return f"{name}, {one['date'][:10]}"
