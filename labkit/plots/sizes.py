"""Lesson 01's figures on what the labels already know: size, calcium and the patient."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter
from numpy.typing import ArrayLike, NDArray

from labkit.data.lidc import UNCERTAIN
from labkit.evaluation import intervals, metrics
from labkit.plots import style

_TICKS_MM = (4, 6, 10, 20, 40)


def size_by_score(nodules: pd.DataFrame) -> Figure:
    """Diameters of the nodules of every malignancy score, as boxes.

    Args:
        nodules: with `malignancy_median` and `diameter_mm`.
    """
    by_score = nodules.set_index("malignancy_median")["diameter_mm"]
    groups = {float(s): by_score[[s]].to_numpy() for s in np.unique(by_score.index.to_numpy())}
    with style.house_style():
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        ax = figure.subplots()
        boxes = ax.boxplot(
            list(groups.values()),
            positions=list(groups),
            widths=0.3,
            patch_artist=True,
            medianprops={"color": "black", "linewidth": 1.6},
            flierprops={"markersize": 2.5, "markeredgecolor": style.GREY},
            manage_ticks=False,
        )
        for box, score in zip(boxes["boxes"], groups, strict=True):
            box.set(facecolor=_class_color(score), alpha=0.75)
        ax.set_xticks(np.arange(1, 5.5, 0.5))
        ax.set(xlabel="malignancy, median over the readers", ylabel="mean diameter, mm")
        _log_mm(ax, "y")
        ax.grid(visible=False, axis="x")
    spoken = ", ".join(f"{s:g}: {np.median(d):.1f} mm" for s, d in groups.items())
    return style.describe(figure, f"Boxes of diameters by malignancy score. Medians {spoken}.")


def size_by_class(nodules: pd.DataFrame, bins: int = 30) -> Figure:
    """Diameters of benign and of malignant nodules, as two histograms on one axis.

    Args:
        nodules: labelled ones, with `label` and `diameter_mm`.
        bins: of equal width on a logarithmic axis.
    """
    diameters = nodules["diameter_mm"].to_numpy()
    edges = np.geomspace(diameters.min(), diameters.max(), bins + 1)
    with style.house_style():
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        ax = figure.subplots()
        for label, name in enumerate(("benign", "malignant")):
            kept = diameters[nodules["label"].to_numpy(dtype=int) == label]
            color = style.CLASSES[label]
            ax.hist(kept, edges.tolist(), color=color, alpha=0.55, label=f"{name}: {len(kept)}")
            ax.axvline(float(np.median(kept)), color=color, linestyle="--", linewidth=1.2)
        _log_mm(ax, "x")
        ax.set(xlabel="mean diameter, mm", ylabel="nodules")
        ax.legend()
    medians = nodules.groupby("label")["diameter_mm"].median()
    return style.describe(
        figure,
        f"Two overlapping histograms of diameters; medians (dashed) are {medians[0]:.1f} mm for "
        f"benign and {medians[1]:.1f} mm for malignant nodules.",
    )


def rocs(
    labels: ArrayLike,
    scores: Mapping[str, ArrayLike],
    *,
    groups: ArrayLike | None = None,
    resamples: int = 0,
    seed: int = 0,
) -> Figure:
    """ROC curves of a few scores of the same nodules, with bands if asked for.

    Args:
        labels: (n,) 1 malignant, 0 benign.
        scores: name -> (n,) scores. Those whose names start with "diameter"
            are black.
        groups: (n,) patients, for the bands.
        resamples: of the bootstrap; 0 draws no band.
        seed: of the bootstrap.
    """
    others = cycle((style.VERMILION, style.SKY, style.PURPLE))
    dashes = cycle(("-", "--", ":"))
    with style.house_style():
        figure = Figure(figsize=(4.6, 4.9), layout="constrained")
        ax = figure.subplots()
        for name, score in scores.items():
            by_size = name.startswith("diameter")
            color = style.SIZE_ONLY if by_size else next(others)
            line = next(dashes) if by_size else "-"
            label = f"{name}: AUC {metrics.roc_auc(labels, score):.3f}"
            ax.plot(*metrics.roc(labels, score), color=color, linestyle=line, label=label)
            if resamples:
                grid, _, low, high = intervals.roc_band(
                    labels, score, groups=groups, resamples=resamples, seed=seed
                )
                ax.fill_between(grid, low, high, color=color, alpha=0.15, linewidth=0)
        ax.plot([0, 1], [0, 1], color=style.GREY, linewidth=1, linestyle=":")
        ax.set(
            xlabel="1 - specificity (benign called malignant)",
            ylabel="sensitivity (malignant found)",
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.01),
            aspect="equal",
        )
        figure.legend(loc="outside upper left")
    spoken = ", ".join(f"{n} {metrics.roc_auc(labels, s):.3f}" for n, s in scores.items())
    return style.describe(figure, f"ROC curves with areas: {spoken}.")


def calcification(counts: pd.DataFrame) -> Figure:
    """What share of the nodules of each kind is benign, uncertain or malignant.

    Args:
        counts: `labels.class_counts` of, for example, calcified nodules and the others.
    """
    percent = counts.mul(100 / counts.sum(axis=1), axis=0)
    with style.house_style():
        figure = Figure(figsize=(6.4, 0.45 * len(counts) + 1.0), layout="constrained")
        ax = figure.subplots()
        left = np.zeros(len(counts))
        for name, color in style.CLASS_COLUMNS.items():
            bars = ax.barh(list(counts.index), percent[name], left=left, color=color, label=name)
            wide = percent[name] > 3
            texts = [str(c) if w else "" for c, w in zip(counts[name], wide, strict=True)]
            ax.bar_label(bars, texts, label_type="center", color="white", fontsize=9)
            left += percent[name].to_numpy()
        ax.invert_yaxis()
        ax.set(xlabel="share of the nodules, % (numbers: nodules)", xlim=(0, 100))
        ax.grid(visible=False, axis="y")
        figure.legend(loc="outside upper right", ncols=3)
    return style.describe(figure, f"Bars of shares. {style.spoken_counts(counts)}.")


def siblings(nodules: pd.DataFrame, folds: Mapping[str, ArrayLike]) -> Figure:
    """How many nodules patients have, and how many test nodules have a sibling in training.

    Args:
        nodules: with `patient_id`.
        folds: how they were split -> (n,) fold number of every nodule.
    """
    per_patient = nodules.groupby("patient_id").size().value_counts().sort_index()
    share = {name: 100 * with_sibling(nodules, fold).mean() for name, fold in folds.items()}
    with style.house_style():
        figure = Figure(figsize=(7.2, 3.0), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        bars = left.bar(per_patient.index, per_patient, color=style.SKY)
        left.bar_label(bars, padding=2, fontsize=8)
        left.set(xlabel="nodules of one patient", ylabel="patients")
        left.set_xticks(range(1, int(per_patient.index.max()) + 1))
        left.grid(visible=False, axis="x")
        bars = right.bar(list(share), list(share.values()), 0.6, color=style.PURPLE)
        right.bar_label(bars, fmt="%.0f %%", padding=2)
        right.set(ylabel="test nodules with a\nsibling in training, %", ylim=(0, 100))
        right.grid(visible=False, axis="x")
    several = per_patient[per_patient.index > 1].sum()
    shares = ", ".join(f"{name}: {value:.0f} %" for name, value in share.items())
    return style.describe(
        figure,
        f"Left, bars of patients by their number of nodules: {several} of {per_patient.sum()} have "
        f"two or more. Right, test nodules with a sibling in training: {shares}.",
    )


def with_sibling(nodules: pd.DataFrame, folds: ArrayLike) -> NDArray[np.bool_]:
    """(n,) whether another nodule of the same patient is in another fold, so in training.

    >>> table = pd.DataFrame({"patient_id": ["a", "a", "b", "b"]})
    >>> with_sibling(table, [0, 1, 1, 1]).tolist()
    [True, True, False, False]
    """
    fold = pd.Series(np.asarray(folds), index=nodules.index)
    different = fold.groupby(nodules["patient_id"]).transform("nunique")
    return (different > 1).to_numpy()


def _log_mm(ax: Axes, axis: Literal["x", "y"]) -> None:
    """A logarithmic axis in mm with round numbers."""
    if axis == "x":
        ax.set_xscale("log")
    else:
        ax.set_yscale("log")
    target = ax.xaxis if axis == "x" else ax.yaxis
    target.set_major_locator(FixedLocator(_TICKS_MM))
    target.set_major_formatter(ScalarFormatter())
    target.set_minor_formatter(NullFormatter())


def _class_color(score: float) -> str:
    if score == UNCERTAIN:
        return style.UNCERTAIN
    return style.MALIGNANT if score > UNCERTAIN else style.BENIGN
