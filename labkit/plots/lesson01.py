"""Lesson 01's figures: what readers drew and rated, and the labels that come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter
from numpy.typing import ArrayLike, NDArray

from labkit.annotations.lidc import RATINGS, UNCERTAIN, Contour
from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.imaging.volume import Volume
from labkit.plots import style

# Lesson 01's figures on what the labels already know: size, calcium and the patient.


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
            label = f"{name}: AUC {statistics.roc_auc(labels, score):.3f}"
            ax.plot(*statistics.roc(labels, score), color=color, linestyle=line, label=label)
            if resamples:
                grid, _, low, high = statistics.roc_band(
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
    spoken = ", ".join(f"{n} {statistics.roc_auc(labels, s):.3f}" for n, s in scores.items())
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


_COLUMNS = 5
# The highest value of each scale; the others end at 5.
_SCALE_ENDS = {"internal_structure": 4, "calcification": 6}
_SHADES = LinearSegmentedColormap.from_list("shades", ["#FFFFFF", style.SKY])


def outlines(
    contours: Sequence[Contour],
    nodule: pd.Series,
    volume: Volume | None = None,
    center_xyz_mm: ArrayLike | None = None,
    mark: str = style.SIMULATED,
) -> Figure:
    """Every reader's outlines of one nodule, slice by slice, on white or over its CT.

    Args:
        contours: of all the readers, as `lidc.contours(nodule_id)` gives them.
        nodule: its row of `lidc.nodules()`: `center_row_px`, `center_col_px`, `pixel_spacing_mm`.
        volume: CT around the nodule, or None; its axes along the world's.
        center_xyz_mm: the nodule's centre in the volume's world, mm.
        mark: written on every image of the volume; "" for real CT.

    Returns:
        A panel for every slice that anybody outlined, from the feet to the head, in mm from the
        nodule's centre; outlines of holes are dotted.

    Raises:
        InputError: a volume without the nodule's centre in it.
    """
    if volume is not None and center_xyz_mm is None:
        raise InputError("outlines over CT need center_xyz_mm, the nodule's centre in that volume")
    levels = sorted({contour.z_mm for contour in contours})
    readers = list(dict.fromkeys(contour.annotation_id for contour in contours))
    pixel_mm = float(nodule["pixel_spacing_mm"])
    middle = nodule[["center_row_px", "center_col_px"]].to_numpy(dtype=float)
    vertices = np.concatenate([contour.vertices_row_col_px for contour in contours])
    (top, left), (bottom, right) = (
        np.stack([vertices.min(axis=0) - 4, vertices.max(axis=0) + 4]) - middle
    ) * pixel_mm
    rows = -(-len(levels) // _COLUMNS)
    height = 0.6 + rows * (0.3 + 1.45 * (bottom - top) / (right - left))
    with style.house_style():
        figure = Figure(figsize=(7.6, height), layout="constrained")
        panels = figure.subplots(rows, _COLUMNS, sharex=True, sharey=True, squeeze=False)
        for ax, z_mm in zip(panels.flat, levels, strict=False):
            if volume is not None:
                _draw_slice(ax, volume, np.asarray(center_xyz_mm, dtype=float), z_mm, mark)
            for contour in contours:
                if contour.z_mm == z_mm:
                    _draw_outline(ax, contour, readers, middle, pixel_mm)
            ax.set_title(f"z = {z_mm:.1f} mm", fontsize=9, fontweight="normal")
            ax.set_aspect("equal")
        panels[0, 0].set(xlim=(left, right), ylim=(bottom, top))
        for ax in panels.flat[len(levels) :]:
            ax.set_axis_off()
        figure.supxlabel("to the patient's left, mm", fontsize=9)
        figure.supylabel("to the back, mm", fontsize=9)
        handles = [
            Line2D([], [], color=_reader_color(i), label=_reader(i)) for i in range(len(readers))
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=len(readers))
    over = "" if volume is None else f" over {mark} CT"
    alt = (
        f"Outlines{over} that {len(readers)} readers drew of one nodule, one panel for each of "
        f"{len(levels)} slices. {_slices_alt(contours, readers)}"
    )
    return style.describe(figure, alt)


def ratings(table: pd.DataFrame) -> Figure:
    """The nine ratings of one nodule by each of its readers.

    Args:
        table: one row a reader, with the columns `lidc.RATINGS`.
    """
    values = table[list(RATINGS)].to_numpy()
    ends = np.array([_SCALE_ENDS.get(name, 5) for name in RATINGS])
    with style.house_style():
        figure = Figure(figsize=(7.6, 0.42 * len(values) + 1.5), layout="constrained")
        ax = figure.subplots()
        ax.imshow((values - 1) / (ends - 1), cmap=_SHADES, vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            ax.text(column, row, f"{value:g}", ha="center", va="center")
        names = [
            f"{name.replace('_', ' ')}\n1 to {end}" for name, end in zip(RATINGS, ends, strict=True)
        ]
        ax.set_xticks(range(len(RATINGS)), names, rotation=35, ha="right")
        ax.set_yticks(range(len(values)), [_reader(i) for i in range(len(values))])
        ax.grid(visible=False)
        ax.tick_params(length=0)
    spoken = "; ".join(
        f"{name.replace('_', ' ')} {', '.join(f'{v:g}' for v in column)}"
        for name, column in zip(RATINGS, values.T, strict=True)
    )
    return style.describe(figure, f"Table of the readers' ratings: {spoken}.")


def agreement(pairs: ArrayLike, name: str = "malignancy") -> Figure:
    """How often one reader gives a score when another reader gave a certain one.

    Args:
        pairs: (k, k) counts; row: one reader's score from 1, column: the other's.
        name: of the rating.
    """
    counts = np.asarray(pairs, dtype=float)
    percent = 100 * counts / counts.sum(axis=1, keepdims=True)
    scores = range(1, len(counts) + 1)
    with style.house_style():
        figure = Figure(figsize=(4.8, 4.2), layout="constrained")
        ax = figure.subplots()
        ax.imshow(percent, cmap=_SHADES, vmin=0)
        for (row, column), value in np.ndenumerate(percent):
            weight = "bold" if row == column else "normal"
            ax.text(column, row, f"{value:.0f} %", ha="center", va="center", fontweight=weight)
        ax.set_xticks(range(len(counts)), [str(s) for s in scores])
        ax.set_yticks(range(len(counts)), [str(s) for s in scores])
        ax.set(xlabel=f"{name} by another reader", ylabel=f"{name} by one reader")
        ax.grid(visible=False)
        ax.tick_params(length=0)
        ax.set_title("Each row adds up to 100 %")
    same = 100 * np.trace(counts) / counts.sum()
    spoken = ", ".join(f"{s}: {percent[s - 1, s - 1]:.0f} %" for s in scores)
    return style.describe(
        figure,
        f"Matrix of two readers' scores for {name}. They give the same score in {same:.0f} % of "
        f"pairs; by the first reader's score, {spoken}.",
    )


def rating_agreement(shares: Mapping[str, float]) -> Figure:
    """How much of what two readers say of a nodule is the nodule, one bar for each quantity.

    Args:
        shares: name -> intraclass correlation, at most 1. "diameter" stands out.
    """
    order = sorted(shares, key=lambda name: shares[name])
    colors = [style.SIZE_ONLY if name == "diameter" else style.SKY for name in order]
    with style.house_style():
        figure = Figure(figsize=(6.4, 0.3 * len(order) + 0.9), layout="constrained")
        ax = figure.subplots()
        names = [name.replace("_", " ") for name in order]
        bars = ax.barh(names, [shares[name] for name in order], color=colors)
        ax.bar_label(bars, fmt="%.2f", padding=3, fontsize=9)
        ax.set(xlim=(0, 1.05), xlabel="intraclass correlation (1: readers always agree)")
        ax.grid(visible=False, axis="y")
    spoken = ", ".join(f"{n.replace('_', ' ')} {shares[n]:.2f}" for n in order[::-1])
    return style.describe(figure, f"Bars of the intraclass correlation of readers: {spoken}.")


def malignancy_scores(nodules: pd.DataFrame) -> Figure:
    """The paper's Fig. 1: how many nodules have which malignancy score.

    Args:
        nodules: with `malignancy_median`, as `lidc.nodules()` gives them.

    Returns:
        One bar for each score that occurs, coloured by the class that it falls into.
    """
    counts = nodules["malignancy_median"].value_counts().sort_index()
    classes = {
        "benign": counts[counts.index < UNCERTAIN],
        "uncertain": counts[counts.index == UNCERTAIN],
        "malignant": counts[counts.index > UNCERTAIN],
    }
    with style.house_style():
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        ax = figure.subplots()
        for name, part in classes.items():
            label = f"{name}: {part.sum()}"
            bars = ax.bar(part.index, part, 0.4, color=style.CLASS_COLUMNS[name], label=label)
            ax.bar_label(bars, padding=2, fontsize=9)
        ax.set(
            xlabel="malignancy, median over the readers (1: highly unlikely, 5: highly suspicious)",
            ylabel="nodules",
        )
        ax.set_xticks(np.arange(1, 5.5, 0.5))
        ax.grid(visible=False, axis="x")
        ax.legend(loc="upper right")
    spoken = ", ".join(f"{score:g}: {count}" for score, count in counts.items())
    return style.describe(figure, f"Bars of nodules by median malignancy. {spoken}.")


def class_counts(rules: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """How many nodules of each class there are under each of several rules.

    Args:
        rules: name -> nodule table with `label`.

    Returns:
        One row a rule; columns `benign`, `uncertain` and `malignant`.
    """
    rows = {
        name: [(t["label"] == 0).sum(), t["label"].isna().sum(), (t["label"] == 1).sum()]
        for name, t in rules.items()
    }
    return pd.DataFrame.from_dict(rows, "index", dtype=int, columns=list(style.CLASS_COLUMNS))


def counts_by_rule(table: pd.DataFrame, emphasis: Sequence[str] = ()) -> Figure:
    """How the three classes' sizes move with the rule that makes them.

    Args:
        table: of `class_counts`, or of that form; its index names the rules.
        emphasis: rules whose names are printed in bold.
    """
    with style.house_style():
        figure = Figure(figsize=(7.6, 0.36 * len(table) + 1.1), layout="constrained")
        ax = figure.subplots()
        left = np.zeros(len(table))
        for name, color in style.CLASS_COLUMNS.items():
            bars = ax.barh(list(table.index), table[name], left=left, color=color, label=name)
            ax.bar_label(bars, label_type="center", color="white", fontsize=8)
            left += table[name].to_numpy(dtype=float)
        for y, total in enumerate(left):
            ax.text(total, y, f" {total:.0f}", va="center", fontsize=9)
        for tick in ax.get_yticklabels():
            tick.set_fontweight("bold" if tick.get_text() in emphasis else "normal")
        ax.invert_yaxis()
        ax.set(xlabel="nodules", xlim=(0, 1.08 * left.max()))
        ax.grid(visible=False, axis="y")
        figure.legend(loc="outside upper right", ncols=3)
    return style.describe(
        figure, f"Bars of nodules by class for each rule. {style.spoken_counts(table)}."
    )


def _reader(number: int) -> str:
    return f"reader {'ABCDEFGH'[number]}"


def _reader_color(number: int) -> str:
    return style.READERS[number % len(style.READERS)]


def _draw_outline(
    ax: Axes,
    contour: Contour,
    readers: Sequence[int],
    middle_row_col_px: NDArray[np.float64],
    pixel_spacing_mm: float,
) -> None:
    vertices = contour.vertices_row_col_px
    closed = np.vstack([vertices, vertices[:1]])
    row, col = ((closed - middle_row_col_px) * pixel_spacing_mm).T
    color = _reader_color(readers.index(contour.annotation_id))
    ax.plot(col, row, color=color, linewidth=1.3, linestyle="-" if contour.inclusion else ":")


def _draw_slice(
    ax: Axes, volume: Volume, center_xyz_mm: NDArray[np.float64], z_mm: float, mark: str
) -> None:
    index, row, col = volume.index_from_world([*center_xyz_mm[:2], z_mm])
    _, rows, cols = volume.shape
    spacing_x, spacing_y, _ = volume.spacing_xyz_mm
    # imshow's extent runs along the outer edges of the pixels, half a pixel beyond their centres.
    x = (np.array([0, cols]) - 0.5 - col) * spacing_x
    y = (np.array([rows, 0]) - 0.5 - row) * spacing_y
    style.show_ct(ax, volume.voxels[round(index)], extent=(*x, *y), ticks=True)
    if mark:
        style.mark_simulated(ax, mark)


def _slices_alt(contours: Sequence[Contour], readers: Sequence[int]) -> str:
    slices = {r: len({c.z_mm for c in contours if c.annotation_id == r}) for r in readers}
    drawn = ", ".join(f"{_reader(i)} on {slices[r]}" for i, r in enumerate(readers))
    return f"Slices outlined: {drawn}."
