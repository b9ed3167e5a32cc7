"""Lesson 02's figures: the steps of lung segmentation, and masks over the slices of a scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from labkit.errors import InputError
from labkit.imaging.lungs import Steps
from labkit.imaging.volume import Volume
from labkit.plots import style

Mask = NDArray[np.bool_]

RIGHT, LEFT = style.SKY, style.ORANGE
_COLORS = (style.VERMILION, style.SKY, style.YELLOW, style.GREEN)
# World axis that a plane cuts across, and those down the image and across it, of (z, y, x).
_PLANES = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}


def steps(
    volume: Volume,
    found: Steps,
    at: int | None = None,
    plane: str = "axial",
    mark: str = style.SIMULATED,
) -> Figure:
    """What each step of the segmentation finds, on one slice, in the order of the steps.

    Args:
        volume: the scan.
        found: `lungs.steps` of it.
        at: number of the slice, counted from the feet (axial), the front (coronal) or the patient's
            right (sagittal); by default the one with most of the airways below the neck.
        plane: axial, coronal or sagittal.
        mark: written on every image; "" for real CT.
    """
    layers: list[tuple[str, list[tuple[Mask, str]]]] = [
        ("below -400 HU", [(found.threshold, style.GREEN)]),
        ("the body", [(found.body, style.GREEN)]),
        ("airways", [(found.airways, style.VERMILION)]),
        ("air in the lungs", [(found.without_airways, style.GREEN)]),
        ("right and left", [(found.right, RIGHT), (found.left, LEFT)]),
        ("closed", [(found.closed, style.GREEN)]),
    ]
    axis = _axis(plane)
    lungs = _upright(volume, found.closed)
    if at is None:
        tubes = _upright(volume, found.airways) if found.airways.any() else lungs
        area = lungs.sum(axis=_others(axis)) > 0.3 * lungs.sum(axis=_others(axis)).max()
        at = int(np.argmax(tubes.sum(axis=_others(axis)) * area))
    image = _slice(volume, volume.voxels, plane, at)
    with style.house_style():
        ratio = image.shape[0] / image.shape[1] * _aspect(volume, plane)
        figure = Figure(figsize=(7.4, 2 * (7.4 / 3 * ratio + 0.25)), layout="constrained")
        for number, (ax, (title, parts)) in enumerate(
            zip(figure.subplots(2, 3).flat, layers, strict=True), start=1
        ):
            style.show_ct(ax, image, aspect=_aspect(volume, plane))
            for mask, color in parts:
                _tint(ax, _slice(volume, mask, plane, at), color, _aspect(volume, plane))
            ax.set_title(f"{number}  {title}", fontsize=9, fontweight="normal")
            if mark:
                style.mark_simulated(ax, mark)
    kind = f"{mark} " if mark else ""
    return style.describe(
        figure,
        f"One {plane} slice of a {kind}chest CT six times, coloured by what each step finds: "
        + ", ".join(title for title, _ in layers)
        + ". Right lung blue, left lung orange.",
    )


def over_slices(
    volume: Volume,
    masks: Mapping[str, Mask],
    plane: str = "axial",
    at: Sequence[int] | None = None,
    count: int = 8,
    mark: str = style.SIMULATED,
) -> Figure:
    """Outlines of masks over some slices of a scan.

    The patient's right is on the reader's left, as in radiology, the head is up.

    Args:
        volume: the scan.
        masks: name -> (Z, Y, X) bool, at most four; the first is drawn on top.
        plane: axial, coronal or sagittal.
        at: numbers of the slices, counted as in `steps`; by default evenly spread over the masks.
        count: how many when `at` is not given.
        mark: written on every image; "" for real CT.

    Raises:
        InputError: no mask, more than four, one of another shape, or masks that are empty.
    """
    if not 1 <= len(masks) <= len(_COLORS):
        raise InputError(f"{len(masks)} masks to draw; give 1 to {len(_COLORS)}")
    for name, mask in masks.items():
        if mask.shape != volume.shape:
            raise InputError(f"{name}: of shape {mask.shape}, the scan has {volume.shape}")
    axis = _axis(plane)
    if at is None:
        used = np.zeros(volume.shape, bool)
        for mask in masks.values():
            used |= mask
        where = np.flatnonzero(_upright(volume, used).any(axis=_others(axis)))
        if not len(where):
            raise InputError("the masks are empty: no slice to draw; give slices by at=")
        at = np.linspace(where[0], where[-1], count + 2)[1:-1].round().astype(int).tolist()
    columns = min(len(at), 4)
    rows = -(-len(at) // columns)
    shape = _slice(volume, volume.voxels, plane, 0).shape
    ratio = shape[0] / shape[1] * _aspect(volume, plane)
    with style.house_style():
        figure = Figure(
            figsize=(7.4, 0.45 + rows * (7.4 / columns * ratio + 0.25)), layout="constrained"
        )
        panels = figure.subplots(rows, columns, squeeze=False).flat
        for ax, number in zip(panels, at, strict=False):
            image = _slice(volume, volume.voxels, plane, number)
            style.show_ct(ax, image, aspect=_aspect(volume, plane))
            for mask, color in reversed(list(zip(masks.values(), _COLORS, strict=False))):
                outline = _slice(volume, mask, plane, number)
                if outline.any() and not outline.all():
                    ax.contour(outline, [0.5], colors=[color], linewidths=0.9)
            ax.set_title(f"slice {number}", fontsize=8, fontweight="normal")
            if mark:
                style.mark_simulated(ax, mark)
        for ax in list(panels)[len(at) :]:
            ax.set_axis_off()
        lines = [Line2D([], [], color=color) for _, color in zip(masks, _COLORS, strict=False)]
        figure.legend(lines, list(masks), loc="outside upper left", ncols=len(masks), fontsize=8)
    kind = f"{mark} " if mark else ""
    return style.describe(
        figure,
        f"{len(at)} {plane} slices of a {kind}chest CT with the outlines of {', '.join(masks)}.",
    )


def _axis(plane: str) -> int:
    if plane not in _PLANES:
        raise InputError(f"no plane {plane!r}; choose axial, coronal or sagittal")
    return _PLANES[plane][0]


def _others(axis: int) -> tuple[int, ...]:
    return tuple(a for a in range(3) if a != axis)


def _upright(volume: Volume, array: NDArray) -> NDArray:
    """An array of the scan with its axes towards head, back and left, as near as they come."""
    nearest = np.argmax(np.abs(volume.direction), axis=1)
    turned = np.transpose(array, [2 - int(nearest[world]) for world in (2, 1, 0)])
    signs = [volume.direction[world, nearest[world]] for world in (2, 1, 0)]
    return turned[tuple(slice(None, None, 1 if sign > 0 else -1) for sign in signs)]


def _slice(volume: Volume, array: NDArray, plane: str, at: int) -> NDArray:
    """One slice as it is looked at: head or front up, the patient's right or front at the left."""
    across, down, _ = _PLANES[plane]
    upright = _upright(volume, array)
    if not 0 <= at < upright.shape[across]:
        raise InputError(f"no {plane} slice {at}; the scan has {upright.shape[across]}")
    image = np.take(upright, at, axis=across)
    return image[::-1] if down == 0 else image


def _aspect(volume: Volume, plane: str) -> float:
    """Height of a pixel over its width."""
    nearest = np.argmax(np.abs(volume.direction), axis=1)
    spacing = [volume.spacing_xyz_mm[int(nearest[world])] for world in (2, 1, 0)]
    _, down, right = _PLANES[plane]
    return spacing[down] / spacing[right]


def _tint(ax: Axes, mask: Mask, color: str, aspect: float) -> None:
    layer = np.zeros((*mask.shape, 4))
    layer[mask] = to_rgba(color, 0.45)
    ax.imshow(layer, aspect=aspect)
    if mask.any() and not mask.all():
        ax.contour(mask, [0.5], colors=[color], linewidths=0.6)
