"""FROC curves: sensitivity against false positives a scan, on the challenge's axis."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from labkit.errors import InputError
from labkit.evaluation import froc
from labkit.evaluation.froc import RATES, Froc
from labkit.plots import style
from labkit.plots.style import Drawn, Look

_LOOKS = {
    froc.FOUND: (style.GREEN, "o"), froc.AGAIN: (style.GREEN, "x"),
    froc.EXCLUDED: (style.ORANGE, "s"), froc.FALSE: (style.SKY, "D"),
}  # fmt: skip
# A curve is straight between its points on a linear axis, and so bent on this one.
_FINE = np.union1d(np.geomspace(RATES[0], RATES[-1], 4000), RATES)


def froc_axes(ax: Axes) -> None:
    """Make axes those of the challenge: seven rates from 1/8 to 8, each twice the one before."""
    ax.set_xscale("log", base=2)
    style.name_ticks(ax, RATES, [str(Fraction(rate)) for rate in RATES])
    ax.set(xlabel="false positives a scan", ylabel="sensitivity", ylim=(-0.01, 1.02))
    ax.set_xlim(RATES[0] * 0.92, RATES[-1] * 1.08)


@style.figure
def froc_figure(results: Mapping[str, Froc], *, simulated: bool = False) -> Drawn:
    """Draw FROC curves of several methods by name, CPM and 95 % interval.

    Dots stand at the seven rates whose mean is the CPM. Bands come from the bootstrap over scans of
    `froc.evaluate`, and hold at each rate by itself; results without one are drawn without.
    """
    if not results:
        raise InputError("there is no result to draw a FROC curve of")
    figure, ax = style.subplots(size=(6.0, 4.6))
    colours = style.method_colours(results)
    for name, of in results.items():
        label = f"{name}: {of.band.cpm if of.band else format(of.cpm, '.3f')}"
        band = (of.band.rates, of.band.low, of.band.high) if of.band else None
        style.banded(ax, _FINE, of.at(_FINE), band, colours[name], label=label)
        ax.plot(RATES, of.sensitivity, "o", color=colours[name], ms=4.5)
    froc_axes(ax)
    style.titles(ax, "", simulated)
    banded = any(of.band is not None for of in results.values())
    ax.legend(loc="best", title="CPM" + " (95 % interval over scans)" * banded)
    return figure


@style.figure
def steps_figure(steps: pd.DataFrame, result: Froc) -> Drawn:
    """Draw the walk of a handful of marks (`froc.steps`), and their curve (`froc.evaluate`)."""
    x, y = steps["false_positives_per_scan"].to_numpy(), steps["sensitivity"].to_numpy()
    figure, (left, right) = style.subplots(1, 2, (9.6, 4.0), sharey=True)
    left.plot([0, *x], [0, *y], color=style.GREY, lw=1.2, zorder=1)
    # Marks that move nothing would lie on top of each other.
    lifted = y + 0.065 * pd.Series(range(len(steps))).groupby([x, y]).cumcount().to_numpy()
    reach = max(x.max(), 1e-9)
    for kind, (colour, marker) in _LOOKS.items():
        of = (steps["counts_as"] == kind).to_numpy()
        look = Look(color=colour, mfc=colour if marker == "o" else "white", ms=8, mew=1.8)
        left.plot(x[of], lifted[of], marker, label=kind, **look)
    for p, *at in zip(steps["probability"], x + 0.025 * reach, lifted - 0.012, strict=True):
        left.annotate(f"{p:g}", at, va="top", fontsize=8)
    right.plot(_FINE, result.at(_FINE), color=style.GREY, lw=1.2)
    right.plot(RATES, result.sensitivity, "o", color=style.BLACK)
    right.axhline(result.cpm, color=style.VERMILION, lw=1.2, ls="--")
    right.text(RATES[0], result.cpm + 0.015, f"CPM {result.cpm:.3f}", color=style.VERMILION)
    froc_axes(right)
    right.set(ylabel="", title="the challenge's axis: seven rates, and their mean")
    left.set(xlabel="false positives a scan", ylabel="sensitivity")
    left.set(xlim=(-0.05 * reach, 1.16 * reach), ylim=(-0.03, 1.05))
    left.legend(loc="upper left", ncols=2)
    return figure, steps.set_index("probability")["counts_as"]


@style.figure
def transferred_figure(splits: pd.DataFrame, wanted: float, *, simulated: bool = False) -> Drawn:
    """Draw what thresholds chosen for a sensitivity gave there, and on the other half of the scans.

    `splits`: of `evaluation.froc.transferred`.
    """
    figure, ax = style.subplots(size=(6.4, 4.2))
    for end, name, colour, face in (
        ("chosen", "where it was chosen", style.GREY, "white"),
        ("elsewhere", "on the other scans", style.MT, style.MT),
    ):
        x, y = splits[f"false_positives_{end}"], splits[f"sensitivity_{end}"]
        label = f"{name}: mean {y.mean():.3f} at {x.mean():.2f} a scan"
        ax.plot(x, y, "o", ms=4, color=colour, mfc=face, alpha=0.55, mew=0.8, label=label)
    ax.axhline(wanted, color=style.VERMILION, lw=1.2, ls="--", label=f"wanted: {wanted:.3f}")
    ax.set(xlabel="false positives a scan", ylabel="sensitivity", ylim=(-0.02, 1.02))
    ax.set_xlim(left=0)
    style.titles(ax, f"{len(splits)} thresholds", simulated)
    ax.legend(loc="lower right")
    return figure
