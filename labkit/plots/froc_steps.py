"""FROC drawn mark by mark, for a handful of marks."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from labkit.errors import InputError
from labkit.evaluation import froc_steps
from labkit.evaluation.froc import RATES, Froc
from labkit.plots import style

_LOOKS = {
    froc_steps.FOUND: (style.GREEN, "o"),
    froc_steps.AGAIN: (style.GREEN, "x"),
    froc_steps.EXCLUDED: (style.ORANGE, "s"),
    froc_steps.FALSE: (style.SKY, "D"),
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
