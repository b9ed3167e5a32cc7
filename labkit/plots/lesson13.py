"""Lesson 13's figure: what a test's answer is worth, by how common the disease is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from labkit.plots import style
from labkit.plots.style import Drawn


@style.figure
def predictive_value_figure(
    value: Callable[[float, float], float], places: Mapping[str, float],
    aucs: Sequence[float] = (0.90, 0.95, 0.99),
) -> Drawn:  # fmt: skip
    """Draw the share of positive answers that are right against prevalence, a line an AUC.

    Args:
        value: (prevalence, AUC) -> positive predictive value, both from 0 to 1.
        places: where -> prevalence there, marked by a dotted line.
    """
    figure, ax = style.subplots(size=(7.2, 4.0))
    grid = np.geomspace(0.003, 0.6, 100)
    for auc, colour in zip(aucs, (style.SKY, style.BLUE, style.BLACK), strict=False):
        ax.plot(grid, [value(p, auc) for p in grid], color=colour, label=f"AUC {auc:.2f}")
    for name, prevalence in places.items():
        ax.axvline(prevalence, color=style.GREY, ls=":", lw=1)
        ax.text(prevalence, 1.02, name, ha="center", fontsize=9)
    ax.set(xscale="log", xlabel="share of nodules that are malignant (prevalence)", ylim=(0, 1))
    ax.set_ylabel("right among those called malignant")
    style.name_ticks(ax, (0.003, 0.01, 0.03, 0.1, 0.3), ["0.3 %", "1 %", "3 %", "10 %", "30 %"])
    ax.legend(loc="center left")
    return figure, {n: {f"AUC {auc:.2f}": value(p, auc) for auc in aucs} for n, p in places.items()}
