"""Lesson 01's figures: what readers drew and rated, and the labels that come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from labkit.annotations.lidc import RATINGS, Contour
from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.imaging.volume import Volume
from labkit.plots import style
from labkit.plots.roc import roc_axes
from labkit.plots.style import SIMULATED, Arrays, Drawn, Look

_SCALE_ENDS = {"internal_structure": 4, "calcification": 6}  # the others end at 5
_SHADES = LinearSegmentedColormap.from_list("shades", ["#FFFFFF", style.SKY])
_READERS = [f"reader {letter}" for letter in "ABCDEFGH"]
_MEDIAN = "malignancy, median over the readers"


@style.figure
def outlines(
    contours: Sequence[Contour], nodule: pd.Series, volume: Volume | None = None,
    center_xyz_mm: ArrayLike | None = None,
) -> Drawn:  # fmt: skip
    """Draw every reader's outlines of one nodule, slice by slice, on white or over its CT.

    A panel for every slice that anybody outlined, from the feet to the head, in mm from the
    nodule's centre; outlines of holes are dotted.

    Args:
        contours: of all the readers, as `lidc.contours(nodule_id)` gives them.
        nodule: its row of `lidc.nodules()`.
        volume: CT around the nodule, its axes along the world's, with the nodule's centre in it.
    """
    if volume is not None and center_xyz_mm is None:
        raise InputError("outlines over CT need center_xyz_mm, the nodule's centre in that volume")
    levels = sorted({contour.z_mm for contour in contours})
    readers = dict.fromkeys(contour.annotation_id for contour in contours)
    colours = dict(zip(readers, cycle(style.READERS), strict=False))
    middle = nodule[["center_row_px", "center_col_px"]].to_numpy(dtype=float)
    pixel = float(nodule["pixel_spacing_mm"])
    vertices = np.concatenate([contour.vertices_row_col_px for contour in contours])
    top, left = (vertices.min(axis=0) - 4 - middle) * pixel
    bottom, right = (vertices.max(axis=0) + 4 - middle) * pixel
    height, shared = 0.5 + 1.45 * (bottom - top) / (right - left), {"sharex": True, "sharey": True}
    figure, axes = style.panels(len(levels), 5, 7.6, height, **shared)
    for ax, z_mm in zip(axes, levels, strict=True):
        if volume is not None and center_xyz_mm is not None:
            _draw_slice(ax, volume, [*np.ravel(center_xyz_mm)[:2], z_mm])
        for contour in contours:
            if contour.z_mm == z_mm:
                closed = np.vstack([contour.vertices_row_col_px, contour.vertices_row_col_px[:1]])
                row, col = ((closed - middle) * pixel).T
                look = Look(lw=1.3, ls="-" if contour.inclusion else ":")
                ax.plot(col, row, color=colours[contour.annotation_id], **look)
        ax.set_title(f"z = {z_mm:.1f} mm", **style.PLAIN)
        ax.set(aspect="equal", xlim=(left, right), ylim=(bottom, top))
    figure.supxlabel("to the patient's left, mm", fontsize=9)
    figure.supylabel("to the back, mm", fontsize=9)
    lines = [Line2D([], [], color=colour) for colour in colours.values()]
    figure.legend(lines, _READERS, loc="outside upper left", ncols=len(lines))
    return figure


def _draw_slice(ax: Axes, volume: Volume, at_xyz_mm: ArrayLike) -> None:
    z, *middle = volume.index_from_world(at_xyz_mm)
    # imshow's extent runs along the outer edges of the pixels, half a pixel beyond their centres.
    edges = [np.array([-0.5, n - 0.5]) for n in volume.shape[1:]]
    y, x = (np.array(edges).T - middle).T * np.c_[volume.spacing_zyx_mm[1:]]
    style.show_ct(ax, volume.voxels[round(z)], extent=(*x, *y[::-1]), ticks=True, mark=SIMULATED)


@style.figure
def ratings(table: pd.DataFrame) -> Drawn:
    """Draw the nine ratings of one nodule (`lidc.RATINGS`), a row a reader, as a table."""
    values = table[list(RATINGS)].to_numpy()
    ends = np.array([_SCALE_ENDS.get(name, 5) for name in RATINGS])
    figure, ax = style.subplots(size=(7.6, 0.42 * len(values) + 1.5))
    words, readers = [f"{v:g}" for v in values.flat], _READERS[: len(values)]
    names = [f"{n}\n1 to {end}".replace("_", " ") for n, end in zip(RATINGS, ends, strict=True)]
    _matrix(ax, (values - 1) / (ends - 1), words, names, readers, vmax=1, aspect="auto")
    ax.set_xticks(ax.get_xticks(), names, rotation=35, ha="right")
    return figure, {name: ", ".join(f"{v:g}" for v in table[name]) for name in RATINGS}


@style.figure
def agreement(pairs: ArrayLike) -> Drawn:
    """Draw how often one reader gives a score when another reader gave a certain one.

    `pairs`: (k, k) counts; row: one reader's score from 1, column: the other's.
    """
    counts = np.asarray(pairs, dtype=float)
    percent = 100 * counts / counts.sum(axis=1, keepdims=True)
    scores = [str(s + 1) for s in range(len(counts))]
    figure, ax = style.subplots(size=(4.8, 4.2))
    _matrix(ax, percent, [f"{value:.0f} %" for value in percent.flat], scores, scores)
    for text in ax.texts[:: len(counts) + 1]:
        text.set_fontweight("bold")
    ax.set(xlabel="malignancy by another reader", ylabel="malignancy by one reader")
    ax.set_title("Each row adds up to 100 %")
    same = 100 * np.trace(counts) / counts.sum()
    return figure, {"the same, %": same} | dict(zip(scores, np.diag(percent), strict=True))


def _matrix(
    ax: Axes, shades: NDArray[Any], texts: Sequence[str], columns: Sequence[str],
    rows: Sequence[str], **look: Any,
) -> None:  # fmt: skip
    ax.imshow(shades, cmap=_SHADES, vmin=0, **look)
    for (row, column), text in zip(np.ndindex(shades.shape), texts, strict=True):
        ax.text(column, row, text, ha="center", va="center")
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.grid(visible=False)
    ax.tick_params(length=0)


@style.figure
def rating_agreement(shares: Mapping[str, float]) -> Drawn:
    """Draw intraclass correlations of the readers, a bar a quantity; "diameter" stands out."""
    found = pd.Series(shares).rename(lambda name: name.replace("_", " "))
    found = found.sort_values(kind="stable", ascending=False)
    colors = [style.SIZE_ONLY if name == "diameter" else style.SKY for name in found.index]
    figure, ax = style.subplots(size=(6.4, 0.3 * len(found) + 0.9))
    style.named_bars(ax, found, colors, [f"{share:.2f}" for share in found])
    ax.set(xlim=(0, 1.05), xlabel="intraclass correlation (1: readers always agree)")
    return figure, found


@style.figure
def malignancy_scores(nodules: pd.DataFrame) -> Drawn:
    """Draw the paper's Fig. 1: how many of `lidc.nodules()` have which malignancy score."""
    counts = nodules["malignancy_median"].value_counts().sort_index()
    figure, ax = style.subplots(size=(6.4, 3.6))
    style.score_bars(ax, counts, totals=True)
    ax.set_xlabel(f"{_MEDIAN} (1: highly unlikely, 5: highly suspicious)")
    return figure, counts


def class_counts(rules: style.Tables) -> pd.DataFrame:
    """Count the nodules of each class under each of several rules (name -> table with `label`).

    Returns a row a rule; columns `benign`, `uncertain` and `malignant`.
    """
    label = {name: table["label"].to_numpy(float, na_value=0.5) for name, table in rules.items()}
    counts = {name: [(of == at).sum() for at in (0, 0.5, 1)] for name, of in label.items()}
    return pd.DataFrame.from_dict(counts, "index", dtype=int, columns=list(style.CLASS_COLUMNS))


@style.figure
def classes(counts: pd.DataFrame, emphasis: Sequence[str] = (), percent: bool = False) -> Drawn:
    """Draw how many nodules are benign, uncertain and malignant, or what share of them.

    `counts`: of `class_counts`; rows of `emphasis` are named in bold.
    """
    figure, ax = style.subplots(size=(7.6, 0.36 * len(counts) + 1.1))
    style.class_bars(ax, counts, percent)
    for tick in ax.get_yticklabels():
        tick.set_fontweight("bold" if tick.get_text() in emphasis else "normal")
    ax.set_xlabel("share of the nodules, % (numbers: nodules)" if percent else "nodules")
    figure.legend(loc="outside upper right", ncols=3)
    return figure, counts


@style.figure
def size_by_score(nodules: pd.DataFrame) -> Drawn:
    """Draw diameters of the nodules of every malignancy score, as boxes."""
    groups: dict[Any, pd.Series] = dict(list(nodules.groupby("malignancy_median")["diameter_mm"]))
    figure, ax = style.subplots(size=(6.4, 3.4))
    boxes = ax.boxplot(
        list(groups.values()), positions=list(groups), widths=0.3, patch_artist=True,
        medianprops={"color": "black", "linewidth": 1.6}, manage_ticks=False,
        flierprops={"markersize": 2.5, "markeredgecolor": style.GREY},
    )  # fmt: skip
    for box, score in zip(boxes["boxes"], groups, strict=True):
        box.set(facecolor=style.CLASS_COLUMNS[style.class_of(score)], alpha=0.75)
    ax.set(xlabel=_MEDIAN, ylabel="mean diameter, mm", xticks=np.arange(1, 5.5, 0.5), yscale="log")
    _in_mm(ax.yaxis)
    ax.grid(visible=False, axis="x")
    return figure, {f"median at {score:g}, mm:": mm.median() for score, mm in groups.items()}


@style.figure
def size_by_class(nodules: pd.DataFrame) -> Drawn:
    """Draw diameters of benign and of malignant nodules, as two histograms on one axis."""
    mm = nodules["diameter_mm"]
    edges = np.geomspace(mm.min(), mm.max(), 31)
    figure, ax = style.subplots(size=(6.4, 3.2))
    medians = {}
    for label, name in enumerate(("benign", "malignant")):
        kept, color = mm[nodules["label"] == label], style.CLASSES[label]
        ax.hist(kept, edges, color=color, alpha=0.55, label=f"{name}: {len(kept)}")
        ax.axvline(kept.median(), color=color, linestyle="--", linewidth=1.2)
        medians[f"median of {name}, mm:"] = kept.median()
    ax.set(xscale="log", xlabel="mean diameter, mm", ylabel="nodules")
    _in_mm(ax.xaxis)
    ax.legend()
    return figure, medians


def _in_mm(axis: Any) -> None:
    """Put round numbers on a logarithmic axis in mm."""
    axis.set_major_locator(ticker.FixedLocator((4, 6, 10, 20, 40)))
    axis.set_major_formatter(ticker.ScalarFormatter())
    axis.set_minor_formatter(ticker.NullFormatter())


@style.figure
def rocs(
    labels: ArrayLike, scores: Arrays, *, groups: ArrayLike | None = None, resamples: int = 0
) -> Drawn:  # fmt: skip
    """Draw ROC curves of a few scores of the same nodules, with bands if resamples are asked for.

    Args:
        labels: (n,) 1 malignant, 0 benign.
        scores: name -> (n,) scores. Those whose names start with "diameter" are black.
        groups: (n,) patients, for the bootstrap of the bands.
    """
    others, dashes = cycle((style.VERMILION, style.SKY, style.PURPLE)), cycle(("-", "--", ":"))
    figure, ax = style.subplots(size=(4.6, 4.9))
    for name, score in scores.items():
        by_size = name.startswith("diameter")
        color, line = (style.SIZE_ONLY, next(dashes)) if by_size else (next(others), "-")
        band = None
        if resamples:
            x, _, *ends = statistics.roc_band(labels, score, groups=groups, resamples=resamples)
            band = (x, *ends)
        label = f"{name}: AUC {statistics.roc_auc(labels, score):.3f}"
        style.banded(ax, *statistics.roc(labels, score), band, color, label=label, ls=line)
    roc_axes(ax)
    ax.set_xlabel("1 - specificity (benign called malignant)")
    ax.set_ylabel("sensitivity (malignant found)")
    figure.legend(loc="outside upper left")
    return figure


@style.figure
def siblings(nodules: pd.DataFrame, folds: Arrays) -> Drawn:
    """Draw how many nodules patients have, and how many test nodules' siblings are in training.

    `folds`: how they were split -> (n,) fold number of every nodule.
    """
    per_patient = nodules.groupby("patient_id").size().value_counts().sort_index()
    share = {name: 100 * with_sibling(nodules, fold).mean() for name, fold in folds.items()}
    figure, (left, right) = style.subplots(1, 2, (7.2, 3.0), width_ratios=(3, 2))
    left.bar_label(left.bar(per_patient.index, per_patient, color=style.SKY), padding=2, fontsize=8)
    left.set(xlabel="nodules of one patient", ylabel="patients")
    left.set_xticks(range(1, int(per_patient.index.max()) + 1))
    bars = right.bar(list(share), list(share.values()), 0.6, color=style.PURPLE)
    right.bar_label(bars, fmt="%.0f %%", padding=2)
    right.set(ylabel="test nodules with a\nsibling in training, %", ylim=(0, 100))
    for ax in (left, right):
        ax.grid(visible=False, axis="x")
    return figure, {"patients by nodules": per_patient.to_dict(), "with a sibling, %": share}


def with_sibling(nodules: pd.DataFrame, folds: ArrayLike) -> NDArray[np.bool_]:
    """Return (n,) whether another nodule of the same patient is in another fold, so in training.

    >>> table = pd.DataFrame({"patient_id": ["a", "a", "b", "b"]})
    >>> with_sibling(table, [0, 1, 1, 1]).tolist()
    [True, True, False, False]
    """
    fold = pd.Series(np.asarray(folds), index=nodules.index)
    return (fold.groupby(nodules["patient_id"]).transform("nunique") > 1).to_numpy()
