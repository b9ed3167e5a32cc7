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
from labkit.plots.style import SIMULATED, Arrays, Drawn

_COLUMNS = 5
# The highest value of each scale; the others end at 5.
_SCALE_ENDS = {"internal_structure": 4, "calcification": 6}
_SHADES = LinearSegmentedColormap.from_list("shades", ["#FFFFFF", style.SKY])
_MEDIAN = "malignancy, median over the readers"


# What readers drew and rated


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
    readers = list(dict.fromkeys(contour.annotation_id for contour in contours))
    looks = dict(
        zip(readers, zip(_readers(len(readers)), cycle(style.READERS), strict=False), strict=True)
    )
    middle = nodule[["center_row_px", "center_col_px"]].to_numpy(dtype=float)
    pixel = float(nodule["pixel_spacing_mm"])
    vertices = np.concatenate([contour.vertices_row_col_px for contour in contours])
    (top, left), (bottom, right) = (
        (end - middle) * pixel for end in (vertices.min(axis=0) - 4, vertices.max(axis=0) + 4)
    )
    rows = -(-len(levels) // _COLUMNS)
    height = 0.6 + rows * (0.3 + 1.45 * (bottom - top) / (right - left))
    shared = {"sharex": True, "sharey": True, "squeeze": False}
    figure, panels = style.subplots(rows, _COLUMNS, (7.6, height), **shared)
    for ax, z_mm in zip(panels.flat, levels, strict=False):
        if volume is not None:
            _draw_slice(ax, volume, np.asarray(center_xyz_mm, dtype=float), z_mm)
        for contour in contours:
            if contour.z_mm == z_mm:
                closed = contour.vertices_row_col_px[[*range(len(contour.vertices_row_col_px)), 0]]
                row, col = ((closed - middle) * pixel).T
                line = "-" if contour.inclusion else ":"
                ax.plot(col, row, color=looks[contour.annotation_id][1], lw=1.3, ls=line)
        ax.set_title(f"z = {z_mm:.1f} mm", fontsize=9, fontweight="normal")
        ax.set_aspect("equal")
    panels[0, 0].set(xlim=(left, right), ylim=(bottom, top))
    for ax in panels.flat[len(levels) :]:
        ax.set_axis_off()
    figure.supxlabel("to the patient's left, mm", fontsize=9)
    figure.supylabel("to the back, mm", fontsize=9)
    handles = [Line2D([], [], color=color, label=name) for name, color in looks.values()]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(readers))
    slices = {r: len({c.z_mm for c in contours if c.annotation_id == r}) for r in readers}
    drawn = ", ".join(f"{looks[r][0]} on {slices[r]}" for r in readers)
    over = "" if volume is None else " over simulated CT"
    return figure, (
        f"Outlines{over} that {len(readers)} readers drew of one nodule, one panel for each of "
        f"{len(levels)} slices. Slices outlined: {drawn}."
    )


def _readers(n: int) -> list[str]:
    return [f"reader {letter}" for letter in "ABCDEFGH"[:n]]


def _draw_slice(ax: Axes, volume: Volume, center: NDArray[Any], z_mm: float) -> None:
    index, row, col = volume.index_from_world([*center[:2], z_mm])
    _, rows, cols = volume.shape
    spacing_x, spacing_y, _ = volume.spacing_xyz_mm
    # imshow's extent runs along the outer edges of the pixels, half a pixel beyond their centres.
    x = (np.array([0, cols]) - 0.5 - col) * spacing_x
    y = (np.array([rows, 0]) - 0.5 - row) * spacing_y
    style.show_ct(ax, volume.voxels[round(index)], extent=(*x, *y), ticks=True, mark=SIMULATED)


@style.figure
def ratings(table: pd.DataFrame) -> Drawn:
    """Draw the nine ratings of one nodule (`lidc.RATINGS`), a row a reader, as a table."""
    values = table[list(RATINGS)].to_numpy()
    ends = np.array([_SCALE_ENDS.get(name, 5) for name in RATINGS])
    figure, ax = style.subplots(size=(7.6, 0.42 * len(values) + 1.5))
    _matrix(ax, (values - 1) / (ends - 1), [f"{v:g}" for v in values.flat], vmax=1, aspect="auto")
    names = [name.replace("_", " ") for name in RATINGS]
    ticks = [f"{name}\n1 to {end}" for name, end in zip(names, ends, strict=True)]
    ax.set_xticks(range(len(RATINGS)), ticks, rotation=35, ha="right")
    ax.set_yticks(range(len(values)), _readers(len(values)))
    columns = zip(names, values.T, strict=True)
    spoken = "; ".join(f"{name} {', '.join(f'{v:g}' for v in of)}" for name, of in columns)
    return figure, f"Table of the readers' ratings: {spoken}."


@style.figure
def agreement(pairs: ArrayLike) -> Drawn:
    """Draw how often one reader gives a score when another reader gave a certain one.

    `pairs`: (k, k) counts; row: one reader's score from 1, column: the other's.
    """
    counts = np.asarray(pairs, dtype=float)
    percent = 100 * counts / counts.sum(axis=1, keepdims=True)
    scores = [str(s + 1) for s in range(len(counts))]
    figure, ax = style.subplots(size=(4.8, 4.2))
    _matrix(ax, percent, [f"{value:.0f} %" for value in percent.flat])
    for text in ax.texts[:: len(counts) + 1]:
        text.set_fontweight("bold")
    ax.set_xticks(range(len(counts)), scores)
    ax.set_yticks(range(len(counts)), scores)
    ax.set(xlabel="malignancy by another reader", ylabel="malignancy by one reader")
    ax.set_title("Each row adds up to 100 %")
    same = 100 * np.trace(counts) / counts.sum()
    spoken = ", ".join(f"{s}: {p:.0f} %" for s, p in zip(scores, np.diag(percent), strict=True))
    return figure, (
        f"Matrix of two readers' malignancy scores. They give the same score in {same:.0f} % of "
        f"pairs; by the first reader's score, {spoken}."
    )


def _matrix(ax: Axes, shades: NDArray[Any], texts: Sequence[str], **look: Any) -> None:
    ax.imshow(shades, cmap=_SHADES, vmin=0, **look)
    for (row, column), text in zip(np.ndindex(shades.shape), texts, strict=True):
        ax.text(column, row, text, ha="center", va="center")
    ax.grid(visible=False)
    ax.tick_params(length=0)


@style.figure
def rating_agreement(shares: Mapping[str, float]) -> Drawn:
    """Draw intraclass correlations of the readers, a bar a quantity; "diameter" stands out."""
    found = pd.Series(shares).sort_values(kind="stable")
    colors = [style.SIZE_ONLY if name == "diameter" else style.SKY for name in found.index]
    names = [name.replace("_", " ") for name in found.index]
    figure, ax = style.subplots(size=(6.4, 0.3 * len(found) + 0.9))
    ax.bar_label(ax.barh(names, found, color=colors), fmt="%.2f", padding=3, fontsize=9)
    ax.set(xlim=(0, 1.05), xlabel="intraclass correlation (1: readers always agree)")
    ax.grid(visible=False, axis="y")
    spoken = [f"{name} {value:.2f}" for name, value in zip(names, found, strict=True)]
    return figure, f"Bars of the intraclass correlation of readers: {', '.join(spoken[::-1])}."


# Labels under the printed rule, and under others


@style.figure
def malignancy_scores(nodules: pd.DataFrame) -> Drawn:
    """Draw the paper's Fig. 1: how many of `lidc.nodules()` have which malignancy score."""
    found = nodules["malignancy_median"].value_counts().sort_index()
    counts = dict(zip(found.index.tolist(), found.tolist(), strict=True))
    figure, ax = style.subplots(size=(6.4, 3.6))
    style.score_bars(ax, counts, totals=True)
    ax.set_xlabel(f"{_MEDIAN} (1: highly unlikely, 5: highly suspicious)")
    spoken = ", ".join(f"{score:g}: {count}" for score, count in counts.items())
    return figure, f"Bars of nodules by median malignancy. {spoken}."


def class_counts(rules: style.Tables) -> pd.DataFrame:
    """Count the nodules of each class under each of several rules (name -> table with `label`).

    Returns a row a rule; columns `benign`, `uncertain` and `malignant`.
    """
    rows = {
        name: [(t["label"] == 0).sum(), t["label"].isna().sum(), (t["label"] == 1).sum()]
        for name, t in rules.items()
    }
    return pd.DataFrame.from_dict(rows, "index", dtype=int, columns=list(style.CLASS_COLUMNS))


@style.figure
def counts_by_rule(table: pd.DataFrame, emphasis: Sequence[str] = ()) -> Drawn:
    """Draw the three classes' sizes by rule (`class_counts`); rules of emphasis in bold."""
    figure, ax = style.subplots(size=(7.6, 0.36 * len(table) + 1.1))
    style.class_bars(ax, table)
    for tick in ax.get_yticklabels():
        tick.set_fontweight("bold" if tick.get_text() in emphasis else "normal")
    ax.set_xlabel("nodules")
    figure.legend(loc="outside upper right", ncols=3)
    return figure, f"Bars of nodules by class for each rule. {style.spoken_counts(table)}."


# What the labels already know: size, calcium and the patient


@style.figure
def calcification(counts: pd.DataFrame) -> Drawn:
    """Draw what share of each kind of nodules (`class_counts`) is benign, uncertain, malignant."""
    figure, ax = style.subplots(size=(6.4, 0.45 * len(counts) + 1.0))
    style.class_bars(ax, counts, percent=True)
    ax.set_xlabel("share of the nodules, % (numbers: nodules)")
    figure.legend(loc="outside upper right", ncols=3)
    return figure, f"Bars of shares. {style.spoken_counts(counts)}."


@style.figure
def size_by_score(nodules: pd.DataFrame) -> Drawn:
    """Draw diameters of the nodules of every malignancy score, as boxes."""
    grouped = nodules.groupby("malignancy_median")["diameter_mm"]
    groups = {float(str(score)): mm for score, mm in grouped}
    figure, ax = style.subplots(size=(6.4, 3.4))
    boxes = ax.boxplot(
        list(groups.values()), positions=list(groups), widths=0.3, patch_artist=True,
        medianprops={"color": "black", "linewidth": 1.6}, manage_ticks=False,
        flierprops={"markersize": 2.5, "markeredgecolor": style.GREY},
    )  # fmt: skip
    for box, s in zip(boxes["boxes"], groups, strict=True):
        box.set(facecolor=style.CLASS_COLUMNS[style.class_of(s)], alpha=0.75)
    ax.set(xlabel=_MEDIAN, ylabel="mean diameter, mm", xticks=np.arange(1, 5.5, 0.5), yscale="log")
    _in_mm(ax.yaxis)
    ax.grid(visible=False, axis="x")
    spoken = ", ".join(f"{s:g}: {mm.median():.1f} mm" for s, mm in groups.items())
    return figure, f"Boxes of diameters by malignancy score. Medians {spoken}."


@style.figure
def size_by_class(nodules: pd.DataFrame) -> Drawn:
    """Draw diameters of benign and of malignant nodules, as two histograms on one axis."""
    mm = nodules["diameter_mm"]
    edges = np.geomspace(mm.min(), mm.max(), 31)
    figure, ax = style.subplots(size=(6.4, 3.2))
    medians = []
    for label, name in enumerate(("benign", "malignant")):
        kept, color = mm[nodules["label"] == label], style.CLASSES[label]
        ax.hist(kept, edges, color=color, alpha=0.55, label=f"{name}: {len(kept)}")
        ax.axvline(kept.median(), color=color, linestyle="--", linewidth=1.2)
        medians.append(f"{kept.median():.1f} mm for {name} nodules")
    ax.set(xscale="log", xlabel="mean diameter, mm", ylabel="nodules")
    _in_mm(ax.xaxis)
    ax.legend()
    return figure, f"Histograms of diameters; medians (dashed) {' and '.join(medians)}."


def _in_mm(axis: Any) -> None:
    """Put round numbers on a logarithmic axis in mm."""
    axis.set_major_locator(ticker.FixedLocator((4, 6, 10, 20, 40)))
    axis.set_major_formatter(ticker.ScalarFormatter())
    axis.set_minor_formatter(ticker.NullFormatter())


@style.figure
def rocs(
    labels: ArrayLike, scores: Arrays, *, groups: ArrayLike | None = None, resamples: int = 0,
    seed: int = 0,
) -> Drawn:  # fmt: skip
    """Draw ROC curves of a few scores of the same nodules, with bands if resamples are asked for.

    Args:
        labels: (n,) 1 malignant, 0 benign.
        scores: name -> (n,) scores. Those whose names start with "diameter" are black.
        groups: (n,) patients, for the bootstrap of the bands.
    """
    others, dashes = cycle((style.VERMILION, style.SKY, style.PURPLE)), cycle(("-", "--", ":"))
    figure, ax = style.subplots(size=(4.6, 4.9))
    words, drawn = [], {"groups": groups, "resamples": resamples, "seed": seed}
    for name, score in scores.items():
        by_size = name.startswith("diameter")
        color, line = (style.SIZE_ONLY, next(dashes)) if by_size else (next(others), "-")
        auc = f"{statistics.roc_auc(labels, score):.3f}"
        ax.plot(*statistics.roc(labels, score), color=color, ls=line, label=f"{name}: AUC {auc}")
        words.append(f"{name} {auc}")
        if resamples:
            grid, _, low, high = statistics.roc_band(labels, score, **drawn)  # type: ignore[arg-type]
            ax.fill_between(grid, low, high, color=color, alpha=0.15, linewidth=0)
    ax.plot([0, 1], [0, 1], color=style.GREY, linewidth=1, linestyle=":")
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    ax.set_xlabel("1 - specificity (benign called malignant)")
    ax.set_ylabel("sensitivity (malignant found)")
    figure.legend(loc="outside upper left")
    return figure, f"ROC curves with areas: {', '.join(words)}."


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
    several = per_patient[per_patient.index > 1].sum()
    shares = ", ".join(f"{name}: {value:.0f} %" for name, value in share.items())
    return figure, (
        f"Left, bars of patients by their number of nodules: {several} of {per_patient.sum()} have "
        f"two or more. Right, test nodules with a sibling in training: {shares}."
    )


def with_sibling(nodules: pd.DataFrame, folds: ArrayLike) -> NDArray[np.bool_]:
    """Return (n,) whether another nodule of the same patient is in another fold, so in training.

    >>> table = pd.DataFrame({"patient_id": ["a", "a", "b", "b"]})
    >>> with_sibling(table, [0, 1, 1, 1]).tolist()
    [True, True, False, False]
    """
    fold = pd.Series(np.asarray(folds), index=nodules.index)
    different = fold.groupby(nodules["patient_id"]).transform("nunique")
    return (different > 1).to_numpy()
