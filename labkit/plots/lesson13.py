"""Lesson 13's figures: what a test's answer is worth, and what kinds of folds do to networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from labkit.evaluation.audit import SPLITS
from labkit.evaluation.statistics import Interval
from labkit.plots import style
from labkit.plots.style import Drawn


@style.figure
def predictive_value_figure(
    value: Callable[[float, float], float], places: Mapping[str, float]
) -> Drawn:
    """Draw the share of positive answers that are right against prevalence, a line an AUC.

    `value`: (prevalence, AUC) -> positive predictive value, all from 0 to 1; `places`: where ->
    prevalence there, marked by a dotted line.
    """
    aucs = {0.90: style.SKY, 0.95: style.BLUE, 0.99: style.BLACK}
    figure, ax = style.subplots(size=(7.2, 4.0))
    grid = np.geomspace(0.003, 0.6, 100)
    for auc, colour in aucs.items():
        ax.plot(grid, [value(p, auc) for p in grid], color=colour, label=f"AUC {auc:.2f}")
    for name, prevalence in places.items():
        ax.axvline(prevalence, color=style.GREY, ls=":", lw=1)
        ax.text(prevalence, 1.02, name, ha="center", fontsize=9)
    ax.set(xscale="log", xlabel="share of nodules that are malignant (prevalence)", ylim=(0, 1))
    ax.set_ylabel("right among those called malignant")
    style.name_ticks(ax, (0.003, 0.01, 0.03, 0.1, 0.3), ["0.3 %", "1 %", "3 %", "10 %", "30 %"])
    ax.legend(loc="center left")
    return figure, {n: {f"AUC {auc:.2f}": value(p, auc) for auc in aucs} for n, p in places.items()}


@style.figure
def splits_figure(auc: Mapping[str, Mapping[str, Any]]) -> Drawn:
    """Draw the AUC within folds of other people's networks, by how folds are made.

    `auc`: cohort -> network -> method -> `within_folds`, of `audit.judge_networks`; the diameter
    alone is a line in its band.
    """
    figure, axes = style.subplots(1, len(auc), (9.2, 3.8), sharex=True, sharey=True)
    colours = dict(zip(SPLITS.values(), (style.BLUE, style.GREEN, style.VERMILION), strict=True))
    drawn: dict[str, Any] = {}
    for ax, (cohort, networks) in zip(axes, auc.items(), strict=True):
        found = {
            method: {n: Interval(**of[method]["within_folds"]) for n, of in networks.items()}
            for method in ("diameter alone", *SPLITS.values())
            if method in next(iter(networks.values()))
        }
        ruler = next(iter(found.pop("diameter alone").values()))
        ax.axvspan(ruler.low, ruler.high, color=style.SIZE_ONLY, alpha=0.12, lw=0)
        ax.axvline(ruler.value, color=style.SIZE_ONLY, lw=1.2, ls="--", label="diameter alone")
        style.interval_rows(ax, found, colours)
        style.mark_kind(ax, False)
        ax.set(title=f"{cohort} a nodule", xlabel="AUC within folds, 95 % interval")
        drawn |= {f"{cohort}, {m}": of for m, of in {"diameter alone": ruler, **found}.items()}
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure, drawn
