"""FROC curves: sensitivity against false positives a scan, on the challenge's axis."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.errors import InputError
from labkit.evaluation.froc import RATES, Froc
from labkit.plots import style
from labkit.plots.roc import method_colours, titles

_DRAWN_POINTS = 400


def froc_figure(
    results: Mapping[str, Froc],
    *,
    band: bool = True,
    simulated: bool = False,
    title: str = "",
) -> Figure:
    """FROC curves of several methods on one set of axes, CPM and 95 % interval in the legend.

    Dots stand at the seven rates whose mean is the CPM. Bands come from the bootstrap over scans of
    `froc.evaluate`, and hold at each rate by itself; results without one are drawn without.

    Args:
        results: name -> what `froc.evaluate` found.
        band: shade the bands.
        simulated: say that the images were simulated.
        title: above the axes.

    Raises:
        InputError: no results.
    """
    if not results:
        raise InputError("there is no result to draw a FROC curve of")
    with style.house_style():
        figure = Figure(figsize=(6.0, 4.6), layout="constrained")
        ax = figure.subplots()
        colours = method_colours(list(results))
        for name, result in results.items():
            _draw(ax, name, result, colours[name], band)
        ax.set_xscale("log", base=2)
        ax.set_xticks(RATES, [str(Fraction(rate)) for rate in RATES])
        ax.minorticks_off()
        ax.set(
            xlabel="false positives a scan", ylabel="sensitivity",
            xlim=(RATES[0] * 0.95, RATES[-1] * 1.05), ylim=(0, 1.02),
        )  # fmt: skip
        titles(ax, title, simulated)
        banded = any(result.band is not None for result in results.values())
        heading = "CPM (95 % interval over scans)" if banded else "CPM"
        ax.legend(loc="best", title=heading, title_fontsize=9)
    spoken = "; ".join(
        f"{_named(name, result)}, from {result.sensitivity[0]:.3f} at 1/8 to "
        f"{result.sensitivity[-1]:.3f} at 8 false positives a scan"
        for name, result in results.items()
    )
    return style.describe(
        figure,
        "FROC curves, sensitivity against false positives a scan from 1/8 to 8 on a logarithmic "
        f"axis. CPM with interval: {spoken}.",
    )


def _draw(ax: Axes, name: str, result: Froc, colour: str, band: bool) -> None:
    # Straight between the curve's points on a linear axis, and so bent on this one.
    even = np.geomspace(RATES[0], RATES[-1], _DRAWN_POINTS)
    x = np.union1d(np.union1d(even, RATES), _within(result.false_positives_per_scan))
    ax.plot(x, result.at(x), color=colour, label=_named(name, result))
    ax.plot(RATES, result.sensitivity, "o", color=colour, ms=4.5)
    if band and result.band is not None:
        b = result.band
        ax.fill_between(b.rates, b.low, b.high, color=colour, alpha=0.15, lw=0)


def _within(rates: np.ndarray) -> np.ndarray:
    return rates[(rates >= RATES[0]) & (rates <= RATES[-1])]


def _named(name: str, result: Froc) -> str:
    return f"{name}: {result.cpm:.3f}" if result.band is None else f"{name}: {result.band.cpm}"
