"""Figures of a measured roofline: what limits each stage of a training step, and where time goes.

`python -m benchmarks.roofline` measures; everything here starts from the JSON that it writes. The
roofline model is Williams, Waterman and Patterson's (2009): a stage that does `intensity` FLOP for
every byte it moves cannot be faster than the lower of peak FLOP/s and intensity times bytes/s.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from labkit import paths
from labkit.errors import InputError
from labkit.files import read_json
from labkit.plots import style
from labkit.plots._beside import Point, name_points

ARITHMETIC, MEMORY = "arithmetic", "memory"
_COLOURS = {ARITHMETIC: style.BLUE, MEMORY: style.VERMILION}
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
                1.01, peak / 1e9, f"{precision_of}\n{_rate(peak)}", va="center", fontsize=9,
                fontweight="bold" if precision_of == name else "normal",
                transform=ax.get_yaxis_transform(),
            )  # fmt: skip
        for bound, colour in _COLOURS.items():
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
        f"{', '.join(f'{n} {_rate(p)}' for n, p in peaks.items())}, {bandwidth / 1e9:.3g} GB/s. "
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
            ax.barh(place, stages["ms"], color=[_COLOURS[b] for b in stages["limit"]], height=0.7)
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


def _rate(flop_per_s: float) -> str:
    if flop_per_s >= 1e12:
        return f"{flop_per_s / 1e12:.3g} TFLOP/s"
    return f"{flop_per_s / 1e9:.3g} GFLOP/s"


def _legend(ax: Axes, where: str, marker: str) -> None:
    """What the colours mean, and the ticks of bars."""
    handles = [
        Line2D([], [], color=colour, marker=marker, ls="", ms=8, label=f"limit: {limit}")
        for limit, colour in _COLOURS.items()
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
