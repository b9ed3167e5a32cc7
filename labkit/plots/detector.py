"""What a candidate detector finds: the ceiling of all that is learnt from its candidates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from labkit.evaluation import intervals
from labkit.plots import style

Found = tuple[float, int, int]
"""Candidates a scan, nodules hit, nodules."""


def detector_figure(values: Mapping[str, Any], here: Found, where: str) -> Figure:
    """Nodules hit against candidates a scan: the tuning scans, other scans, and LUNA-16 itself.

    Args:
        values: of results/luna16_detector.json.
        here: what the detector did on scans that it was not tuned on.
        where: what these are, for the legend.
    """
    curve, luna = values["curve"], values["luna16"]
    entries = {
        f"at work, same scans: {values['hit']:.0f} of {values['nodules']}": (
            (values["candidates_a_scan"], int(values["hit"]), values["nodules"]),
            style.BLUE, "o",
        ),
        f"{where}: {here[1]} of {here[2]}": (here, style.VERMILION, "s"),
        f"LUNA-16, as published: {luna['hit']:,} of {luna['nodules']:,}": (
            (luna["candidates_a_scan"], luna["hit"], luna["nodules"]), style.BLACK, "D",
        ),
    }  # fmt: skip
    words = []
    with style.house_style():
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        ax = figure.subplots()
        ax.plot(
            curve["candidates_a_scan"], curve["sensitivity"], color=style.BLUE, lw=1.2,
            label=f"{values['settings']['scans']} scans of the tuning, threshold moved",
        )  # fmt: skip
        for name, ((a_scan, hit, nodules), colour, marker) in entries.items():
            low, high = intervals.wilson(np.array([hit / nodules]), np.array([float(nodules)]))
            ax.vlines(a_scan, low, high, color=colour, lw=1.4)
            ax.plot(a_scan, hit / nodules, marker, color=colour, label=name, ls="")
            words.append(f"{name}, {hit / nodules:.3f} at {a_scan:.0f} candidates a scan")
        ax.axhline(1, color=style.GREY, lw=0.8, ls=":")
        ax.set(
            xscale="log",
            xlabel="candidates a scan",
            ylabel="share of nodules hit",
            ylim=(0.3, 1.03),
        )
        ax.set_xlim(right=1_100)
        ticks = [2, 5, 10, 20, 50, 100, 200, 500, 1000]
        ax.set_xticks(ticks, [str(t) for t in ticks])
        ax.minorticks_off()
        ax.legend(loc="lower right")
        ax.set_title("simulated CT", loc="right", fontweight="normal", color=style.GREY, fontsize=9)
    return style.describe(
        figure, "Share of nodules hit against candidates a scan. " + "; ".join(words) + "."
    )
