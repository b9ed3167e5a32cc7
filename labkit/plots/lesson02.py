"""Lesson 02's figures: HU and windows, spacing, slice thickness, kernels, and lung segmentation.

On every figure of images, `pixel_mm` is the width of a pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import SimpleITK as sitk
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from labkit.errors import InputError
from labkit.imaging.lungs import Steps
from labkit.imaging.views import window
from labkit.imaging.volume import Volume
from labkit.plots import style
from labkit.plots.style import SIMULATED, Arrays, Drawn, scale_bar, show_ct

Mask = NDArray[np.bool_]
Masks = Mapping[str, Mask]

LANDMARKS = {"air": -1000.0, "fat": -100.0, "water": 0.0, "bone": 300.0}
_PARTS = (style.SKY, style.ORANGE, style.GREEN, style.PURPLE)
_MASKS = (style.VERMILION, style.SKY, style.YELLOW, style.GREEN)
Plane = Literal["axial", "coronal", "sagittal"]


@style.figure
def histogram(parts: Arrays) -> Drawn:
    """Draw how the HU of a scan's parts (four at most) are distributed, with landmarks."""
    edges = np.arange(-1100.0, 1001.0, 10.0)
    figure, ax = style.subplots(size=(7.4, 3.2))
    for (name, hu), color in zip(parts.items(), _PARTS, strict=False):
        share = 100 * np.histogram(hu, edges)[0] / np.size(hu)
        ax.stairs(share, edges, color=color, fill=True, alpha=0.35)
        ax.stairs(share, edges, color=color, label=name, linewidth=1.4)
    ax.set(xlim=edges[[0, -1]], xlabel="HU", ylabel="share of the part in 10 HU, %", yscale="log")
    for name, at in LANDMARKS.items():
        ax.axvline(at, color=style.GREY, linewidth=0.8, linestyle=":")
        style.above(ax, at, name, style.GREY)
    ax.legend(loc="upper right")
    style.mark_simulated(ax)
    return figure, {f"median of {name}, HU:": np.median(hu) for name, hu in parts.items()}


@style.figure
def windows(
    image: ArrayLike, limits: Mapping[str, tuple[float, float]], pixel_mm: float = 1.0
) -> Drawn:
    """Draw the same simulated slice in several windows, with a ruler, and its histogram of HU.

    `limits`: name -> HU that are drawn black and white.
    """
    hu = np.asarray(image, dtype=float)
    columns = 2 if len(limits) == 4 else len(limits)
    plan = [*np.arange(len(limits)).reshape(-1, columns).tolist(), ["hu"] * columns]
    tall = 7.4 / columns * len(hu) / hu.shape[1] + 0.3
    heights = [*[tall] * (len(plan) - 1), 1.8]
    figure, axes = style.mosaic(plan, (7.4, sum(heights)), height_ratios=heights)
    below = axes["hu"]
    below.hist(hu.ravel(), np.arange(-1200, 1401, 25).tolist(), color=style.GREY)
    below.set(xlabel="HU", ylabel="pixels")
    top = below.get_ylim()[1]
    of_each = zip(limits.items(), style.COLOURS, strict=False)
    for k, ((name, (low, high)), color) in enumerate(of_each):
        show_ct(axes[k], window(hu, low, high), 0, 1, pixel_mm=pixel_mm, mark=SIMULATED)
        axes[k].set_title(f"{name}: {low:g} to {high:g} HU", fontsize=9, color=color)
        below.plot([low, high], [top * (1.1 + 0.1 * k)] * 2, color=color, linewidth=4)
    scale_bar(axes[0], 100.0 if hu.shape[1] * pixel_mm > 200 else 10.0)
    return figure


@style.figure
def spacings(scans: pd.DataFrame) -> Drawn:
    """Draw pixel spacing, slice spacing and slice thickness of all scans, as of `lidc.scans`."""
    pixel = scans["pixel_spacing_mm"]
    slices = scans[["slice_spacing_mm", "slice_thickness_mm"]].round(3)
    counts = slices.apply(pd.Series.value_counts).fillna(0).astype(int)
    figure, (left, right) = style.subplots(1, 2, (7.4, 3.2), width_ratios=(2, 3))
    left.hist(pixel, bins=np.arange(0.44, 1.0, 0.02), color=style.GREEN)
    left.axvline(1.0, color="black", linewidth=1.2, linestyle="--")
    left.set(xlabel="pixel spacing, mm", ylabel="scans", xlim=(0.4, 1.05))
    counts.index = [f"{mm:g}" for mm in counts.index]
    counts.columns = ["slice spacing", "slice thickness"]
    counts.plot.bar(ax=right, color=[style.BLUE, style.ORANGE], width=0.84, rot=60, fontsize=8)
    right.set(xlabel="mm", ylabel="scans")
    right.grid(visible=False, axis="x")
    right.legend(loc="upper left")
    ends = {"pixel spacing, mm:": f"{pixel.min():.2f} to {pixel.max():.2f}"}
    return figure, ends | {f"most often, {c}, mm:": counts[c].idxmax() for c in counts}


@style.figure
def slabs(images: Mapping[float, tuple[ArrayLike, ArrayLike]], pixel_mm: float) -> Drawn:
    """Draw the same nodule in slices of several thicknesses: from the front, and in one slice.

    `images`: thickness in mm -> coronal (slices, columns) HU with the head up, and axial HU.
    """
    half_mm = min(np.shape(coronal)[0] * t / 2 for t, (coronal, _) in images.items())
    figure, axes = style.subplots(2, len(images), (7.4, 4.0), squeeze=False)
    for (above, below), (thickness, (coronal, axial)) in zip(axes.T, images.items(), strict=True):
        title = f"{thickness:g} mm slices"
        show_ct(above, coronal, pixel_mm=(thickness, pixel_mm), mark=SIMULATED, title=title)
        show_ct(below, axial, pixel_mm=pixel_mm, mark=SIMULATED)
        above.set_ylim(half_mm, -half_mm)
    scale_bar(axes[1, 0], 5.0)
    axes[0, 0].set_ylabel("coronal")
    axes[1, 0].set_ylabel("axial")
    return figure, "Thick slices turn it into a few steps, and take its contrast and its edge"


@style.figure
def peaks(thickness_mm: ArrayLike, measured: Arrays, formula: Arrays, surround_hu: float) -> Drawn:
    """Draw the brightest HU of a nodule against slice thickness: measured, and by the formula.

    `measured` and `formula`: name -> (n,) HU; `surround_hu`: of the lung around it, a line.
    """
    table = pd.DataFrame(dict(measured), np.asarray(thickness_mm, dtype=float))
    figure, ax = style.subplots(size=(6.4, 3.4))
    pd.DataFrame(dict(formula), table.index).plot(ax=ax, style="--", color=style.COLOURS, lw=1.2)
    table.plot(ax=ax, style="o", color=style.COLOURS)
    ax.plot([], [], color=style.GREY, linestyle="--", linewidth=1.2, label="formula")
    ax.axhline(surround_hu, color=style.GREY, linewidth=1.0)
    ax.text(table.index[-1], surround_hu + 15, "lung", color=style.GREY, fontsize=9, ha="right")
    ax.set(xlabel="slice thickness, mm", ylabel="HU of the brightest slice")
    named = (of[len(table.columns) :] for of in ax.get_legend_handles_labels())
    ax.legend(*named, loc="lower left", bbox_to_anchor=(0.0, 0.15))
    return figure, table.T


@style.figure
def kernels(images: Arrays, lines: Arrays, pixel_mm: float) -> Drawn:
    """Draw the same slice through several kernels, and a line of HU across it without noise.

    `images`: name -> (rows, columns) HU; `lines`: name -> (columns,) HU of the middle row.
    """
    ratios = [1] * len(images) + [1.3]
    figure, (*panels, right) = style.subplots(1, len(ratios), (7.4, 2.8), width_ratios=ratios)
    for ax, (name, image) in zip(panels, images.items(), strict=True):
        show_ct(ax, image, pixel_mm=pixel_mm, mark=SIMULATED, title=name)
    scale_bar(panels[0], 10.0)
    across = pd.DataFrame(dict(lines))
    across.index = (across.index - (len(across) - 1) / 2) * pixel_mm
    across.plot(
        ax=right, style=".-", color=style.COLOURS, lw=1.2, xlabel="mm", ylabel="HU without noise"
    )
    right.legend(loc="upper right", fontsize=8)
    return figure, "The sharper the kernel, the steeper the edge"


# Lungs. Slices are counted from the feet (axial), the front (coronal) or the patient's right
# (sagittal), and shown as in radiology: the patient's right on the reader's left, the head up.


@style.figure
def steps(volume: Volume, found: Steps, at: int | None = None, plane: Plane = "axial") -> Drawn:
    """Draw what each step of the segmentation finds on one slice of a simulated CT, in their order.

    `found`: of `lungs.steps`; `at`: number of the slice, by default the one with most of the
    airways below the neck.
    """
    layers = {
        "below -400 HU": [(found.threshold, style.GREEN)],
        "the body": [(found.body, style.GREEN)],
        "airways": [(found.airways, style.VERMILION)],
        "air in the lungs": [(found.without_airways, style.GREEN)],
        "right and left": [(found.right, style.SKY), (found.left, style.ORANGE)],
        "closed": [(found.closed, style.GREEN)],
    }
    if at is None:
        tubes = found.airways if found.airways.any() else found.closed
        masks = (_slices(volume, mask, plane)[0] for mask in (tubes, found.closed))
        tube, lung = (mask.sum(axis=(1, 2)) for mask in masks)
        at = int(np.argmax(tube * (lung > 0.3 * lung.max())))
    slices, aspect = _slices(volume, volume.voxels, plane)
    images = {f"{number}  {title}": slices[at] for number, title in enumerate(layers, start=1)}
    figure, axes = style.image_panels(images, 3, words=0.25, aspect=aspect, mark=SIMULATED)
    for ax, layer in zip(axes, layers.values(), strict=True):
        for mask, color in layer:
            _tint(ax, _slices(volume, mask, plane)[0][at], color)
    return figure


@style.figure
def over_slices(
    volume: Volume, masks: Masks, plane: Plane = "axial", *, at: Sequence[int],
    mark: str = SIMULATED,
) -> Drawn:  # fmt: skip
    """Draw outlines of at most four masks (Z, Y, X), the first on top, over slices of a scan."""
    for name, mask in masks.items():
        if mask.shape != volume.shape:
            raise InputError(f"{name}: of shape {mask.shape}, the scan has {volume.shape}")
    slices, aspect = _slices(volume, volume.voxels, plane)
    images = {f"slice {number}": slices[number] for number in at}
    columns = min(len(at), 4)
    figure, axes = style.image_panels(images, columns, words=0.4, aspect=aspect, mark=mark)
    colours = dict(zip(masks, _MASKS, strict=False))
    for name in reversed(colours):
        seen = _slices(volume, masks[name], plane)[0]
        for ax, number in zip(axes, at, strict=True):
            _outline(ax, seen[number], colours[name])
    lines = [Line2D([], [], color=color) for color in colours.values()]
    figure.legend(lines, list(colours), loc="outside upper left", ncols=len(lines), fontsize=8)
    return figure, f"{plane} slices of a {mark} chest CT"


@style.figure
def kept(volume: Volume, nodules: Masks, masks: Masks) -> Drawn:
    """Draw what lung masks (a column each) keep of nodules (a row each), all (Z, Y, X).

    Each nodule is shown in the slice in which it is largest, up to 26 mm around it.
    """
    pixel = volume.spacing_zyx_mm[1:]
    reach = [round(26 / p) for p in pixel]
    size = (7.4, (7.4 / len(masks) + 0.3) * len(nodules))
    figure, axes = style.subplots(len(nodules), len(masks), size, squeeze=False)
    for row, (name, nodule) in zip(axes, nodules.items(), strict=True):
        z = int(nodule.sum(axis=(1, 2)).argmax())
        middle = [int(np.median(at)) for at in np.nonzero(nodule[z])]
        at = tuple(slice(max(m - r, 0), m + r + 1) for m, r in zip(middle, reach, strict=True))
        row[0].set_ylabel(name, fontsize=9)
        for ax, (title, mask) in zip(row, masks.items(), strict=True):
            share = f"{title}: {100 * mask[nodule].mean():.0f} %"
            show_ct(ax, volume.voxels[z][at], pixel_mm=pixel, mark=SIMULATED, title=share)
            extent = ax.images[0].get_extent()
            _tint(ax, mask[z][at], style.SKY, extent)
            _outline(ax, nodule[z][at], style.VERMILION, extent)
    scale_bar(axes[0, 0], 10.0)
    return figure, f"Rows: {', '.join(nodules)}"


def _outline(ax: Axes, mask: Mask, color: str, extent: Any = None) -> None:
    if mask.any() and not mask.all():
        place = {} if extent is None else {"extent": extent, "origin": "upper"}
        ax.contour(mask, [0.5], colors=[color], linewidths=0.9, **place)


def _tint(ax: Axes, mask: Mask, color: str, extent: Any = None) -> None:
    ax.imshow(mask[..., None] * to_rgba(color, 0.45), extent=extent, aspect=ax.get_aspect())
    _outline(ax, mask, color, extent)


def _slices(volume: Volume, array: NDArray, plane: Plane) -> tuple[NDArray, float]:
    """Slices as they are looked at, and the height of a pixel over its width."""
    image = sitk.GetImageFromArray(array * 1)  # masks as numbers
    image.SetSpacing(volume.spacing_xyz_mm)
    image.SetDirection(volume.direction.ravel().tolist())
    upright = sitk.DICOMOrient(image, "LPS")
    axis = get_args(Plane).index(plane)
    down, right = np.delete(upright.GetSpacing()[::-1], axis)
    slices = np.moveaxis(sitk.GetArrayFromImage(upright), axis, 0)
    return slices if plane == "axial" else slices[:, ::-1], down / right
