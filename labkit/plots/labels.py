"""Lesson 01's figures: what readers drew and rated, and the labels that come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from labkit.data.lidc import RATINGS, UNCERTAIN, Contour
from labkit.errors import InputError
from labkit.imaging.volume import Volume
from labkit.plots import style

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
