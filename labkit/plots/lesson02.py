"""Lesson 02's figures: HU and windows, spacing, slice thickness and kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from labkit.errors import InputError
from labkit.imaging.lungs import Steps
from labkit.imaging.volume import Volume
from labkit.plots import style
from labkit.plots.style import draw_image, draw_outline, draw_ruler, draw_tint, draw_title

# Lesson 02's figures: the steps of lung segmentation, and masks over the slices of a scan.


Mask = NDArray[np.bool_]

RIGHT, LEFT = style.SKY, style.ORANGE
_lungs_COLORS = (style.VERMILION, style.SKY, style.YELLOW, style.GREEN)
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
    if not 1 <= len(masks) <= len(_lungs_COLORS):
        raise InputError(f"{len(masks)} masks to draw; give 1 to {len(_lungs_COLORS)}")
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
            for mask, color in reversed(list(zip(masks.values(), _lungs_COLORS, strict=False))):
                outline = _slice(volume, mask, plane, number)
                if outline.any() and not outline.all():
                    ax.contour(outline, [0.5], colors=[color], linewidths=0.9)
            ax.set_title(f"slice {number}", fontsize=8, fontweight="normal")
            if mark:
                style.mark_simulated(ax, mark)
        for ax in list(panels)[len(at) :]:
            ax.set_axis_off()
        lines = [
            Line2D([], [], color=color) for _, color in zip(masks, _lungs_COLORS, strict=False)
        ]
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


LANDMARKS = {"air": -1000.0, "fat": -100.0, "water": 0.0, "bone": 300.0}
_COLORS = (style.SKY, style.ORANGE, style.GREEN, style.PURPLE)


def histogram(
    parts: Mapping[str, ArrayLike], step_hu: float = 10.0, mark: str = style.SIMULATED
) -> Figure:
    """How the HU of a scan's parts are distributed, with what stands where on the scale.

    Args:
        parts: name -> HU of its voxels, any shape.
        step_hu: width of a bin.
        mark: said of the scan in the corner; "" for real CT.
    """
    edges = np.arange(-1100.0, 1000.0 + step_hu, step_hu)
    voxels = {name: np.asarray(hu).ravel() for name, hu in parts.items()}
    with style.house_style():
        figure = Figure(figsize=(7.4, 3.2), layout="constrained")
        ax = figure.subplots()
        for (name, hu), color in zip(voxels.items(), _colors(voxels), strict=True):
            share = 100 * np.histogram(hu, edges)[0] / hu.size
            ax.stairs(share, edges, color=color, fill=True, alpha=0.35)
            ax.stairs(share, edges, color=color, label=name, linewidth=1.4)
        ax.set_yscale("log")
        ax.set(xlim=edges[[0, -1]], xlabel="HU", ylabel=f"share of the part in {step_hu:g} HU, %")
        for name, at in LANDMARKS.items():
            ax.axvline(at, color=style.GREY, linewidth=0.8, linestyle=":")
            ax.text(at, 1.0, name, transform=ax.get_xaxis_transform(), ha="center", va="bottom",
                    fontsize=8, color=style.GREY)  # fmt: skip
        ax.legend(loc="upper right")
        if mark:
            style.mark_simulated(ax, mark)
    spoken = ", ".join(f"{name} {np.median(hu):.0f}" for name, hu in voxels.items())
    return style.describe(figure, f"Histograms of HU in a chest CT. Medians in HU: {spoken}.")


def windows(
    image: ArrayLike,
    limits: Mapping[str, tuple[float, float]],
    pixel_mm: float,
    mark: str = style.SIMULATED,
) -> Figure:
    """One slice in several windows, with a ruler.

    Args:
        image: (rows, columns) HU.
        limits: name -> HU drawn black, HU drawn white.
        pixel_mm: width of a pixel.
        mark: written on every image; "" for real CT.
    """
    hu = np.asarray(image)
    across = 2 if len(limits) > 1 else 1
    down = -(-len(limits) // across)
    tall = hu.shape[0] / hu.shape[1]
    with style.house_style():
        figure = Figure(figsize=(7.4, 3.7 * tall * down + 0.3 * down), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False).ravel()
        for ax in axes[len(limits) :]:
            ax.set_axis_off()
        for ax, (name, (low, high)) in zip(axes, limits.items(), strict=False):
            draw_image(ax, hu, (pixel_mm, pixel_mm), mark, low, high)
            draw_title(ax, f"{name}: {low:g} to {high:g} HU")
        draw_ruler(axes[0], 100.0)
    kind = f"{mark} " if mark else ""
    spoken = "; ".join(f"{name}, {a:g} to {b:g} HU" for name, (a, b) in limits.items())
    return style.describe(figure, f"The same {kind}slice in {len(limits)} windows: {spoken}.")


def spacings(scans: pd.DataFrame) -> Figure:
    """Pixel spacing, slice spacing and slice thickness of all scans.

    Args:
        scans: as `labkit.annotations.lidc.scans` gives it.
    """
    pixel = scans["pixel_spacing_mm"]
    counts = {
        name: scans[column].round(3).value_counts()
        for name, column in (
            ("slice spacing", "slice_spacing_mm"), ("slice thickness", "slice_thickness_mm")
        )
    }  # fmt: skip
    values = sorted(set().union(*(c.index for c in counts.values())))
    with style.house_style():
        figure = Figure(figsize=(7.4, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(2, 3))
        left.hist(pixel, bins=np.arange(0.44, 1.0, 0.02), color=style.GREEN)
        left.axvline(1.0, color="black", linewidth=1.2, linestyle="--")
        left.set(xlabel="pixel spacing, mm", ylabel="scans", xlim=(0.4, 1.05))
        for k, (name, count) in enumerate(counts.items()):
            tall = [int(count.get(v, 0)) for v in values]
            at = np.arange(len(values)) + 0.42 * (k - 0.5)
            right.bar(at, tall, width=0.42, color=(style.BLUE, style.ORANGE)[k], label=name)
        right.set_xticks(range(len(values)), [f"{v:g}" for v in values], rotation=60, fontsize=8)
        right.set(xlabel="mm", ylabel="scans")
        right.grid(visible=False, axis="x")
        right.legend(loc="upper left")
    spoken = "; ".join(
        f"{name} most often {c.index[0]:g} mm ({c.iloc[0]} scans), from {min(c.index):g} to "
        f"{max(c.index):g} mm"
        for name, c in counts.items()
    )
    return style.describe(
        figure,
        f"{len(scans)} scans. Pixel spacing from {pixel.min():.2f} to {pixel.max():.2f} mm, "
        f"median {pixel.median():.2f}; {spoken}.",
    )


def slabs(
    images: Mapping[float, tuple[ArrayLike, ArrayLike]],
    pixel_mm: float,
    mark: str = style.SIMULATED,
) -> Figure:
    """The same nodule in slices of several thicknesses: from the front, and in one slice.

    Args:
        images: thickness in mm -> coronal (slices, columns) HU with the head up, and axial
            (rows, columns) HU.
        pixel_mm: width of a pixel within a slice.
        mark: written on every image; "" for real CT.
    """
    half_mm = min(np.shape(coronal)[0] * t / 2 for t, (coronal, _) in images.items())
    with style.house_style():
        figure = Figure(figsize=(7.4, 4.0), layout="constrained")
        axes = figure.subplots(2, len(images), squeeze=False)
        for column, (thickness, (coronal, axial)) in enumerate(images.items()):
            draw_image(axes[0, column], coronal, (thickness, pixel_mm), mark)
            draw_image(axes[1, column], axial, (pixel_mm, pixel_mm), mark)
            axes[0, column].set_ylim(half_mm, -half_mm)
            draw_title(axes[0, column], f"{thickness:g} mm slices")
        draw_ruler(axes[1, 0], 5.0)
        for ax, name in zip(axes[:, 0], ("coronal", "axial"), strict=True):
            ax.set_ylabel(name)
    spoken = ", ".join(f"{t:g}" for t in images)
    return style.describe(
        figure,
        f"One nodule in slices {spoken} mm thick. From the front (above) thick slices turn it into "
        "a few steps; in the axial slice (below) it loses contrast and edge.",
    )


def peaks(
    thickness_mm: ArrayLike,
    measured: Mapping[str, ArrayLike],
    formula: Mapping[str, ArrayLike],
    surround_hu: float,
) -> Figure:
    """Brightest HU of a nodule against slice thickness: measured, and by the formula.

    Args:
        thickness_mm: (n,) slice thicknesses.
        measured: name -> (n,) HU.
        formula: the same names -> (n,) HU.
        surround_hu: of the lung around it, drawn as a line.
    """
    t = np.asarray(thickness_mm, dtype=float)
    with style.house_style():
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        ax = figure.subplots()
        for (name, hu), color in zip(measured.items(), (style.BLUE, style.VERMILION), strict=False):
            ax.plot(t, np.asarray(formula[name]), color=color, linestyle="--", linewidth=1.2)
            ax.plot(t, np.asarray(hu), "o", color=color, label=name)
        ax.plot([], [], color=style.GREY, linestyle="--", linewidth=1.2, label="formula")
        ax.axhline(surround_hu, color=style.GREY, linewidth=1.0)
        ax.text(t[-1], surround_hu + 15, "lung", color=style.GREY, fontsize=9, ha="right")
        ax.set(xlabel="slice thickness, mm", ylabel="HU of the brightest slice")
        ax.legend(loc="lower left", bbox_to_anchor=(0.0, 0.15))
    spoken = "; ".join(
        f"{name}: {np.asarray(hu)[0]:.0f} HU at {t[0]:g} mm, {np.asarray(hu)[-1]:.0f} at {t[-1]:g}"
        for name, hu in measured.items()
    )
    return style.describe(figure, f"HU of a nodule's brightest slice by thickness. {spoken}.")


def kernels(
    images: Mapping[str, ArrayLike],
    lines: Mapping[str, ArrayLike],
    pixel_mm: float,
    mark: str = style.SIMULATED,
) -> Figure:
    """The same slice through several kernels, and a line of HU across it without noise.

    Args:
        images: name -> (rows, columns) HU.
        lines: name -> (columns,) HU of the middle row, without noise.
        pixel_mm: width of a pixel.
        mark: written on every image; "" for real CT.
    """
    with style.house_style():
        figure = Figure(figsize=(7.4, 2.8), layout="constrained")
        *panels, right = figure.subplots(1, len(images) + 1, width_ratios=[1] * len(images) + [1.3])
        for ax, (name, image) in zip(panels, images.items(), strict=True):
            draw_image(ax, image, (pixel_mm, pixel_mm), mark)
            draw_title(ax, name)
        draw_ruler(panels[0], 10.0)
        for (name, line), color in zip(lines.items(), (style.BLUE, style.VERMILION), strict=False):
            hu = np.asarray(line)
            at = (np.arange(len(hu)) - (len(hu) - 1) / 2) * pixel_mm
            right.plot(at, hu, ".-", color=color, label=name, linewidth=1.2)
        right.set(xlabel="mm", ylabel="HU without noise")
        right.legend(loc="upper right", fontsize=8)
    return style.describe(
        figure,
        f"One slice through {len(images)} kernels ({', '.join(images)}), and HU along its middle "
        "row without noise: the sharper the kernel, the steeper the edge.",
    )


def kept(
    volume: Volume,
    nodules: Mapping[str, NDArray[np.bool_]],
    masks: Mapping[str, NDArray[np.bool_]],
    half_width_mm: float = 26.0,
    mark: str = style.SIMULATED,
) -> Figure:
    """What several lung masks keep of nodules: the slice in which each nodule is largest.

    Args:
        volume: the scan.
        nodules: name -> (Z, Y, X) bool, the nodule's voxels; a row each.
        masks: title -> (Z, Y, X) bool, lung; a column each.
        half_width_mm: how far a panel reaches from the nodule's middle.
        mark: written on every image; "" for real CT.
    """
    pixel = volume.spacing_zyx_mm[1:]
    reach = [round(half_width_mm / p) for p in pixel]
    spoken = []
    with style.house_style():
        size = (7.4, 7.4 / len(masks) * len(nodules) + 0.3 * len(nodules))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(nodules), len(masks), squeeze=False)
        for row, (name, nodule) in enumerate(nodules.items()):
            z = int(nodule.sum(axis=(1, 2)).argmax())
            middle = [int(np.median(at)) for at in np.nonzero(nodule[z])]
            at = tuple(slice(max(m - r, 0), m + r + 1) for m, r in zip(middle, reach, strict=True))
            axes[row, 0].set_ylabel(name, fontsize=9)
            for ax, (title, mask) in zip(axes[row], masks.items(), strict=True):
                share = 100 * mask[nodule].mean()
                draw_image(ax, volume.voxels[z][at], pixel, mark)
                draw_tint(ax, mask[z][at], style.SKY, pixel)
                draw_outline(ax, nodule[z][at], style.VERMILION, pixel)
                draw_title(ax, f"{title}: {share:.0f} %")
                spoken.append(f"{name}, {title}: {share:.0f} %")
        draw_ruler(axes[0, 0], 10.0)
    return style.describe(figure, f"Share of nodules that lung masks keep. {'; '.join(spoken)}.")


def _colors(parts: Mapping[str, object]) -> tuple[str, ...]:
    if len(parts) > len(_COLORS):
        raise InputError(f"{len(parts)} parts; a histogram shows {len(_COLORS)} at most")
    return _COLORS[: len(parts)]
