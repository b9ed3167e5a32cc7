"""Lesson 11's figures: candidates in a scan, what they look like, and what they lie on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from labkit.errors import InputError
from labkit.imaging.volume import Volume
from labkit.plots import style
from labkit.plots._slices import draw_image, draw_ruler, draw_title

if TYPE_CHECKING:
    from labkit.data.cohort import Cohort

NODULE, EXCLUDED, FALSE_POSITIVE = "nodule", "excluded", "false positive"
_LOOKS = {
    NODULE: (style.GREEN, "o"),
    EXCLUDED: (style.ORANGE, "s"),
    FALSE_POSITIVE: (style.SKY, "D"),
}
_AXIAL = 0
_SHOWN_MM = 40


def kind(table: pd.DataFrame) -> NDArray[np.str_]:
    """What each candidate of a cohort's table is: nodule, excluded, or false positive."""
    excluded = table["excluded"].to_numpy() == 1
    label = table["label"].to_numpy(int)
    return np.where(label == 1, NODULE, np.where(excluded, EXCLUDED, FALSE_POSITIVE))


def on_slice(
    volume: Volume,
    table: pd.DataFrame,
    z_mm: float,
    within_mm: float = 5.0,
    mark: str = style.SIMULATED,
) -> Figure:
    """An axial slice of a scan, with the candidates near it.

    Args:
        volume: the scan, HU; its axes along the world's.
        table: candidates, as a LUNA-16 cohort has them; those of other series are left out.
        z_mm: height of the slice; the nearest is drawn.
        within_mm: how far above or below the slice a candidate may lie.
        mark: written on the image; "" for real CT.

    Raises:
        InputError: an oblique scan, or no slice at that height.
    """
    if not np.allclose(volume.direction, np.eye(3)):
        raise InputError("only scans whose axes run along the world's can be drawn with marks")
    row = round((z_mm - volume.origin_xyz_mm[2]) / volume.spacing_xyz_mm[2])
    if not 0 <= row < volume.shape[0]:
        raise InputError(f"z = {z_mm:g} mm lies outside the scan; take a candidate's z_mm")
    own = table[(table["series_uid"] == volume.series_uid)]
    own = own[(own["z_mm"] - z_mm).abs() <= within_mm]
    px, py, _ = volume.spacing_xyz_mm
    # Marks go to the image's own axes, whose origin is its middle.
    corner = volume.world_from_index((row, -0.5, -0.5))
    extent = np.array([volume.shape[2] * px, volume.shape[1] * py])
    middle = corner[:2] + extent / 2
    kinds = kind(own)
    counts = {name: int((kinds == name).sum()) for name in _LOOKS}
    with style.house_style():
        figure = Figure(figsize=(6.2, 6.2 * extent[1] / extent[0]), layout="constrained")
        ax = figure.subplots()
        draw_image(ax, volume.voxels[row], (py, px), mark)
        handles = []
        for name, (color, shape) in _LOOKS.items():
            x, y = (own[["x_mm", "y_mm"]].to_numpy(float)[kinds == name] - middle).T
            handles += ax.plot(
                x, y, linestyle="", marker=shape, markersize=9.5, markeredgewidth=1.6,
                markerfacecolor="none", markeredgecolor=color, label=f"{name}: {counts[name]}",
            )  # fmt: skip
        draw_ruler(ax, 50.0)
        ax.legend(
            handles=handles,
            loc="upper right",
            labelcolor="white",
            facecolor="black",
            framealpha=0.6,
        )
    spoken = ", ".join(f"{n} {name}" for name, n in counts.items())
    return style.describe(
        figure, f"An axial CT slice; candidates within {within_mm:g} mm of it are marked: {spoken}."
    )


def gallery(cohort: Cohort, n: int = 9, rows: Mapping[str, ArrayLike] | None = None) -> Figure:
    """The strongest false positives beside nodules, each in its axial view.

    Args:
        cohort: of LUNA-16's kind, with the detector's `score`.
        n: how many of each.
        rows: title -> row numbers of the cohort to show instead.

    Raises:
        InputError: a cohort without scores and no rows, or without one of the two kinds.
    """
    shown = dict(rows) if rows is not None else strongest(cohort.nodules, n)
    table = cohort.nodules
    across = int(np.ceil(np.sqrt(max(len(np.asarray(r)) for r in shown.values()))))
    down = across
    middle = cohort.views.shape[-1] / 2
    part = slice(int(middle - _SHOWN_MM / 2), int(middle + _SHOWN_MM / 2))
    with style.house_style():
        figure = Figure(figsize=(3.7 * len(shown), 4.3), layout="constrained")
        for block, (title, numbers) in zip(
            figure.subfigures(1, len(shown), squeeze=False)[0], shown.items(), strict=True
        ):
            block.suptitle(title, fontsize=10)
            axes = block.subplots(down, across, squeeze=False).ravel()
            for ax in axes[len(np.asarray(numbers)) :]:
                ax.set_axis_off()
            for ax, row in zip(axes, np.asarray(numbers, int), strict=False):
                grey = cohort.views[row, _AXIAL][part, part]
                hu = grey.astype(float) * (1400 / 255) - 1000
                draw_image(ax, hu, (1.0, 1.0), style.SIMULATED if cohort.simulated else "")
                draw_title(ax, _caption(table.iloc[row]))
    spoken = " and ".join(f"{len(np.asarray(r))} {t}" for t, r in shown.items())
    return style.describe(figure, f"Axial images of {_SHOWN_MM} mm: {spoken}.")


def strongest(table: pd.DataFrame, n: int = 9) -> dict[str, NDArray[np.int64]]:
    """Rows of the n strongest false positives, and of n nodules spread evenly over their scores.

    A nodule is shown once, by its strongest candidate.

    Raises:
        InputError: no `score`, or none of one kind.
    """
    if "score" not in table:
        raise InputError("the cohort has no scores of a detector; name the rows to show")
    kinds = kind(table)
    order = np.argsort(-table["score"].to_numpy(float), kind="stable")
    false = order[kinds[order] == FALSE_POSITIVE][:n]
    hits = order[kinds[order] == NODULE]
    own = table[["series_uid", "hit"]].iloc[hits].reset_index(drop=True).drop_duplicates()
    hits = hits[own.index.to_numpy()]
    if not len(false) or not len(hits):
        raise InputError("the cohort lacks nodules or false positives; take more scans")
    spread = np.unique(np.linspace(0, len(hits) - 1, min(n, len(hits))).round().astype(int))
    return {"strongest false positives": false, "nodules": hits[spread]}


def whereabouts(table: pd.DataFrame, chance: Mapping[str, float] | None = None) -> Figure:
    """What the false positives of a simulated cohort lie on.

    Args:
        table: candidates with `lies_on`.
        chance: the same shares for points drawn at random in the lungs.

    Raises:
        InputError: no `lies_on`, or no false positive.
    """
    shares = shares_on(table)
    names = list(shares.index)
    at = np.arange(len(names))
    with style.house_style():
        figure = Figure(figsize=(6.2, 2.8), layout="constrained")
        ax = figure.subplots()
        ax.barh(at, 100 * shares.to_numpy(), height=0.6, color=style.SKY, label="false positives")
        if chance is not None:
            ax.scatter([100 * chance.get(name, 0.0) for name in names], at, marker="|", s=160,
                       color=style.BLACK, label="any point in the lungs", zorder=3)  # fmt: skip
            ax.legend(loc="lower right")
        ax.set_yticks(at, names)
        ax.invert_yaxis()
        ax.set_xlabel("share, %")
    spoken = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
    return style.describe(figure, f"What false positives lie on, as bars: {spoken}.")


def shares_on(table: pd.DataFrame) -> pd.Series:
    """Share of the false positives that lies on each part of the anatomy, largest first.

    Raises:
        InputError: no `lies_on`, or no false positive.
    """
    if "lies_on" not in table:
        raise InputError("only simulated candidates say what they lie on")
    false = table.loc[kind(table) == FALSE_POSITIVE, "lies_on"]
    if false.empty:
        raise InputError("no false positive in the table")
    return false.value_counts(normalize=True)


def _caption(row: pd.Series) -> str:
    if row["label"] == 1:
        return f"{row['diameter_mm']:.0f} mm"
    return str(row.get("lies_on", ""))
