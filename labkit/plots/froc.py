"""FROC curves: sensitivity against false positives a scan, on the challenge's axis."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.errors import InputError
from labkit.evaluation import froc
from labkit.evaluation.froc import RATES, Froc
from labkit.plots import style
from labkit.plots.roc import method_colours, titles

# Operating points where they were chosen, and what becomes of them on other scans.


def transferred_figure(splits: pd.DataFrame, wanted: float, *, simulated: bool = False) -> Figure:
    """What thresholds gave where they were chosen, and on the other half of the scans.

    Args:
        splits: of `evaluation.operating.transferred`.
        wanted: the sensitivity that they were chosen for.
        simulated: say that the images were simulated.

    Raises:
        InputError: no split.
    """
    if not len(splits):
        raise InputError("there is no split of the scans to draw")
    looks = {
        "chosen": ("where it was chosen", style.GREY, "white"),
        "elsewhere": ("on the other scans", style.MT, style.MT),
    }
    words = []
    with style.house_style():
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        ax = figure.subplots()
        for end, (name, colour, face) in looks.items():
            x, y = splits[f"false_positives_{end}"], splits[f"sensitivity_{end}"]
            ax.plot(
                x, y, "o", ms=4, color=colour, mfc=face, alpha=0.55, mew=0.8, ls="",
                label=f"{name}: mean {y.mean():.3f} at {x.mean():.2f} a scan",
            )  # fmt: skip
            words.append(f"{name}, {y.mean():.3f} from {y.min():.3f} to {y.max():.3f}")
        ax.axhline(wanted, color=style.VERMILION, lw=1.2, ls="--", label=f"wanted: {wanted:.3f}")
        ax.set(xlabel="false positives a scan", ylabel="sensitivity", ylim=(-0.02, 1.02))
        ax.set_xlim(left=0)
        titles(ax, f"{len(splits)} thresholds", simulated)
        ax.legend(loc="lower right")
    return style.describe(
        figure,
        f"Sensitivity against false positives a scan of {len(splits)} thresholds, chosen for "
        f"{wanted:.3f}: {'; '.join(words)}.",
    )


# FROC drawn mark by mark, for a handful of marks.


_LOOKS = {
    froc.FOUND: (style.GREEN, "o"),
    froc.AGAIN: (style.GREEN, "x"),
    froc.EXCLUDED: (style.ORANGE, "s"),
    froc.FALSE: (style.SKY, "D"),
}


def steps_figure(steps: pd.DataFrame, result: Froc) -> Figure:
    """The walk of a few marks, and the curve that they make on the challenge's axis.

    Args:
        steps: of `froc_steps.steps`.
        result: what `froc.evaluate` says of the same marks.

    Raises:
        InputError: no mark.
    """
    if not len(steps):
        raise InputError("there is no mark to draw")
    x, y = steps["false_positives_per_scan"].to_numpy(), steps["sensitivity"].to_numpy()
    with style.house_style():
        figure = Figure(figsize=(9.6, 4.0), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        left.plot([0, *x], [0, *y], color=style.GREY, lw=1.2, zorder=1)
        # Marks that move nothing would lie on top of each other.
        stands = pd.Series(range(len(steps))).groupby([x, y]).cumcount().to_numpy()
        reach = max(x.max(), 1e-9)
        for kind, (colour, marker) in _LOOKS.items():
            of = (steps["counts_as"] == kind).to_numpy()
            left.plot(
                x[of], y[of] + 0.065 * stands[of], marker, ls="", color=colour, ms=8, mew=1.8,
                mfc=colour if marker == "o" else "white", label=kind,
            )  # fmt: skip
        for at, p in enumerate(steps["probability"]):
            place = (x[at] + 0.025 * reach, y[at] + 0.065 * stands[at] - 0.012)
            left.annotate(f"{p:g}", place, va="top", fontsize=8)
        left.set(xlabel="false positives a scan", ylabel="sensitivity")
        left.set(xlim=(-0.05 * reach, 1.16 * reach), ylim=(-0.03, 1.05))
        left.legend(loc="upper left", ncols=2)
        fine = np.union1d(np.geomspace(RATES[0], RATES[-1], 400), RATES)
        right.plot(fine, result.at(fine), color=style.GREY, lw=1.2)
        right.plot(RATES, result.sensitivity, "o", color=style.BLACK)
        right.axhline(result.cpm, color=style.VERMILION, lw=1.2, ls="--")
        right.text(RATES[0], result.cpm + 0.015, f"CPM {result.cpm:.3f}", color=style.VERMILION)
        right.set_xscale("log", base=2)
        right.set_xticks(RATES, [str(Fraction(rate)) for rate in RATES])
        right.minorticks_off()
        right.set(xlabel="false positives a scan")
        right.set_title("the challenge's axis: seven rates, and their mean")
    walk = ", ".join(f"{p:g} {k}" for p, k in zip(steps["probability"], steps["counts_as"],
                                                  strict=True))  # fmt: skip
    seven = ", ".join(f"{s:.3f}" for s in result.sensitivity)
    return style.describe(
        figure, f"A FROC curve step by step: {walk}. Sensitivities at the seven rates: {seven}; "
        f"CPM {result.cpm:.3f}.",
    )  # fmt: skip


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
