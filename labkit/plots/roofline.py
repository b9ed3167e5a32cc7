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
    place = paths.results() / "roofline_cpu.json" if file is None else file
    return _benchmark(place, "roofline", ("roof", "steps", "hardware", "device", "batch_size"))


def committed(folder: Path | None = None) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Load the benchmarks of training and of layouts in a folder (None: `results/`).

    Returns the comparison with the textbook loop, or None, and one comparison of layouts a machine,
    that of the CPU first. An InputError if neither is there, or a file is not such a benchmark.
    """
    place = paths.results() if folder is None else folder
    files = sorted(place.glob("benchmark_layouts*.json"), key=lambda f: (len(f.name), f.name))
    keys = ("ways", "networks", "batch_size", "precision", "hardware")
    layouts = [_benchmark(f, "layouts", keys) for f in files]
    file = place / "benchmark_training.json"
    if layouts and not file.is_file():
        return None, layouts
    return _benchmark(file, "training", ("ratio", "hardware")), layouts


def _benchmark(file: Path, name: str, keys: Sequence[str]) -> dict[str, Any]:
    cure = f"make it by python -m benchmarks.speed.{name} --out {file}"
    if not file.is_file():
        raise InputError(f"{file}: missing; {cure}")
    found = read_json(file, f"a benchmark of {name}")
    if not all(isinstance(found, dict) and found.get(key) for key in keys):
        raise InputError(f"{file}: not a benchmark of {name}, which has {', '.join(keys)}; {cure}")
    return dict(found)


def table(found: Values, precision: str | None = None) -> pd.DataFrame:
    """Compute from what `read` gives every stage's cost, its time and what limits it.

    Columns: stage, MFLOP (by the layer's definition), executed (of them, MFLOP; all that follows is
    about these), MB, FLOP/byte, ms, GFLOP/s, share (of the stages' time), limit ("arithmetic" or
    "memory", by the roof), least ms (what the roof allows). `precision`: "fp32" or "bf16"; None
    takes bf16 where it was measured.
    """
    name = precision or ("bf16" if "bf16" in found["steps"] else "fp32")
    if name not in found["steps"]:
        raise InputError(f"{name} was not measured; there is {', '.join(found['steps'])}")
    stages = pd.DataFrame(found["steps"][name]["stages"])
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
def speed_figure(training: Values | None = None, layouts: Sequence[Values] = ()) -> Drawn:
    """Draw how much faster training is than the textbook loop, and layouts of every machine.

    From what `benchmarks.speed.training` and `benchmarks.speed.layouts` wrote.
    """
    if training is None and not layouts:
        raise InputError("there is no benchmark to draw")
    parts = []
    if training is not None:
        ratio, title = (
            pd.Series(training["ratio"]),
            f"Nine networks, all cores: {_machine(training)}",
        )
        xlabel = "updates in the same time, the textbook loop's as one"
        parts.append((title, xlabel, ratio, [f"{value:.1f} × as fast" for value in ratio]))
    for one in layouts:
        ways = pd.DataFrame(one["ways"]).T.astype(float).reindex(columns=["ms_per_round", "tflops"])
        ms, digits = ways["ms_per_round"], 1 if ways["ms_per_round"].min() < 100 else 0
        ends = [
            f"{value:,.{digits}f} ms, {ms.iloc[0] / value:.2g} × as fast"
            + (f", {_rate(1e12 * tflops)}" if tflops > 0 else "")
            for value, tflops in ways.itertuples(index=False)
        ]
        how = f"{one['precision']}, batch {one['batch_size']}: {_machine(one)}"
        xlabel = f"ms a step of {one['networks']} networks together (shorter is faster)"
        parts.append((f"Side by side, {how}", xlabel, ms, ends))
    ratios = [len(values) + 1.2 for _, _, values, _ in parts]
    size = (7.6, 0.65 * len(parts) + 0.3 * sum(ratios))
    figure, axes = style.subplots(len(parts), 1, size, squeeze=False, height_ratios=ratios)
    for ax, (title, xlabel, values, ends) in zip(axes[:, 0], parts, strict=True):
        best = values.min() if xlabel.startswith("ms") else values.max()
        colours = [style.GREEN if value == best else style.SKY for value in values]
        style.named_bars(ax, values, colours, ends, height=0.66)
        ax.set(xlim=(0, 1.85 * values.max()), xlabel=xlabel, title=title)
    return figure, *(pd.Series(ends, of.index) for _, _, of, ends in parts)


def _machine(one: Values) -> str:
    hardware, date = one["hardware"], str(one.get("date", ""))[:10]
    cuda = one.get("device", "cpu") == "cuda"
    name = hardware["gpu"] if cuda else f"{hardware['processor']} (CPU)"
    return ", ".join(filter(None, [name, date]))
