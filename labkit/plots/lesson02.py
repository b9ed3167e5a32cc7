"""Lesson 02's figures: HU and windows, spacing, slice thickness, kernels, and lung segmentation.

On every figure of images, `pixel_mm` is the width of a pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from labkit.errors import InputError
from labkit.imaging.lungs import Steps
from labkit.imaging.volume import Volume
from labkit.plots import style
from labkit.plots.style import SIMULATED, Arrays, Drawn, scale_bar, show_ct

Mask = NDArray[np.bool_]
Masks = Mapping[str, Mask]

LANDMARKS = {"air": -1000.0, "fat": -100.0, "water": 0.0, "bone": 300.0}
_PARTS = (style.SKY, style.ORANGE, style.GREEN, style.PURPLE)
_MASKS = (style.VERMILION, style.SKY, style.YELLOW, style.GREEN)
_PAIR = (style.BLUE, style.VERMILION)
# World axis that a plane cuts across, and those down the image and across it, of (z, y, x).
_PLANES = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}


# HU, spacing, thickness and kernels


@style.figure
def histogram(parts: Arrays) -> Drawn:
    """Draw how the HU of a scan's parts (four at most) are distributed, with landmarks."""
    edges = np.arange(-1100.0, 1001.0, 10.0)
    figure, ax = style.subplots(size=(7.4, 3.2))
    words = []
    for (name, hu), color in zip(parts.items(), _PARTS, strict=False):
        share = 100 * np.histogram(hu, edges)[0] / np.size(hu)
        ax.stairs(share, edges, color=color, fill=True, alpha=0.35)
        ax.stairs(share, edges, color=color, label=name, linewidth=1.4)
        words.append(f"{name} {np.median(np.asarray(hu)):.0f}")
    ax.set(xlim=edges[[0, -1]], xlabel="HU", ylabel="share of the part in 10 HU, %", yscale="log")
    above = {"transform": ax.get_xaxis_transform(), "ha": "center", "va": "bottom", "fontsize": 8}
    for name, at in LANDMARKS.items():
        ax.axvline(at, color=style.GREY, linewidth=0.8, linestyle=":")
        ax.text(at, 1.0, name, color=style.GREY, **above)
    ax.legend(loc="upper right")
    style.mark_simulated(ax)
    return figure, f"Histograms of HU in a chest CT. Medians in HU: {', '.join(words)}."


@style.figure
def windows(image: ArrayLike, limits: Mapping[str, tuple[float, float]], pixel_mm: float) -> Drawn:
    """Draw one slice of HU in several windows (name -> HU drawn black, white), with a ruler."""
    tall = np.shape(image)[0] / np.shape(image)[1]
    figure, axes = style.panels(len(limits), min(2, len(limits)), 7.4, 3.7 * tall + 0.3)
    said = [f"{name}: {low:g} to {high:g} HU" for name, (low, high) in limits.items()]
    for ax, title, ends in zip(axes, said, limits.values(), strict=True):
        show_ct(ax, image, *ends, pixel_mm=(pixel_mm, pixel_mm), mark=SIMULATED, title=title)
    scale_bar(axes[0], 100.0)
    return figure, f"The same simulated slice in {len(limits)} windows: {'; '.join(said)}."


@style.figure
def spacings(scans: pd.DataFrame) -> Drawn:
    """Draw pixel spacing, slice spacing and slice thickness of all scans, as of `lidc.scans`."""
    pixel = scans["pixel_spacing_mm"]
    counts = {
        f"slice {of}": scans[f"slice_{of}_mm"].round(3).value_counts()
        for of in ("spacing", "thickness")
    }
    values = sorted(set().union(*(c.index for c in counts.values())))
    figure, (left, right) = style.subplots(1, 2, (7.4, 3.2), width_ratios=(2, 3))
    left.hist(pixel, bins=np.arange(0.44, 1.0, 0.02), color=style.GREEN)
    left.axvline(1.0, color="black", linewidth=1.2, linestyle="--")
    left.set(xlabel="pixel spacing, mm", ylabel="scans", xlim=(0.4, 1.05))
    words = [f"Pixel spacing from {pixel.min():.2f} to {pixel.max():.2f} mm"]
    words += [f"median {pixel.median():.2f}"]
    for k, (name, c) in enumerate(counts.items()):
        at = np.arange(len(values)) + 0.42 * (k - 0.5)
        tall = c.reindex(values, fill_value=0)
        right.bar(at, tall, width=0.42, color=(style.BLUE, style.ORANGE)[k], label=name)
        words.append(f"{name} from {min(c.index):g} to {max(c.index):g} mm")
        words.append(f"most often {c.index[0]:g} mm ({c.iloc[0]} scans)")
    right.set_xticks(range(len(values)), [f"{v:g}" for v in values], rotation=60, fontsize=8)
    right.set(xlabel="mm", ylabel="scans")
    right.grid(visible=False, axis="x")
    right.legend(loc="upper left")
    return figure, f"{len(scans)} scans. {', '.join(words)}."


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
        show_ct(below, axial, pixel_mm=(pixel_mm, pixel_mm), mark=SIMULATED)
        above.set_ylim(half_mm, -half_mm)
    scale_bar(axes[1, 0], 5.0)
    axes[0, 0].set_ylabel("coronal")
    axes[1, 0].set_ylabel("axial")
    spoken = ", ".join(f"{t:g}" for t in images)
    return figure, (
        f"One nodule in slices {spoken} mm thick. From the front (above) thick slices turn it into "
        "a few steps; in the axial slice (below) it loses contrast and edge."
    )


@style.figure
def peaks(thickness_mm: ArrayLike, measured: Arrays, formula: Arrays, surround_hu: float) -> Drawn:
    """Draw the brightest HU of a nodule against slice thickness: measured, and by the formula.

    `measured` and `formula`: name -> (n,) HU; `surround_hu`: of the lung around it, a line.
    """
    t = np.asarray(thickness_mm, dtype=float)
    figure, ax = style.subplots(size=(6.4, 3.4))
    words = []
    for (name, hu), color in zip(measured.items(), _PAIR, strict=False):
        first, *_, last = np.asarray(hu)
        ax.plot(t, formula[name], color=color, linestyle="--", linewidth=1.2)
        ax.plot(t, hu, "o", color=color, label=name)
        words.append(f"{name}: {first:.0f} HU at {t[0]:g} mm, {last:.0f} at {t[-1]:g}")
    ax.plot([], [], color=style.GREY, linestyle="--", linewidth=1.2, label="formula")
    ax.axhline(surround_hu, color=style.GREY, linewidth=1.0)
    ax.text(t[-1], surround_hu + 15, "lung", color=style.GREY, fontsize=9, ha="right")
    ax.set(xlabel="slice thickness, mm", ylabel="HU of the brightest slice")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 0.15))
    return figure, f"HU of a nodule's brightest slice by thickness. {'; '.join(words)}."


@style.figure
def kernels(images: Arrays, lines: Arrays, pixel_mm: float) -> Drawn:
    """Draw the same slice through several kernels, and a line of HU across it without noise.

    `images`: name -> (rows, columns) HU; `lines`: name -> (columns,) HU of the middle row.
    """
    ratios = [1] * len(images) + [1.3]
    figure, (*panels, right) = style.subplots(1, len(ratios), (7.4, 2.8), width_ratios=ratios)
    for ax, (name, image) in zip(panels, images.items(), strict=True):
        show_ct(ax, image, pixel_mm=(pixel_mm, pixel_mm), mark=SIMULATED, title=name)
    scale_bar(panels[0], 10.0)
    for (name, hu), color in zip(lines.items(), _PAIR, strict=False):
        at = (np.arange(np.size(hu)) - (np.size(hu) - 1) / 2) * pixel_mm
        right.plot(at, hu, ".-", color=color, label=name, linewidth=1.2)
    right.set(xlabel="mm", ylabel="HU without noise")
    right.legend(loc="upper right", fontsize=8)
    return figure, (
        f"One slice through {len(images)} kernels ({', '.join(images)}), and HU along its middle "
        "row without noise: the sharper the kernel, the steeper the edge."
    )


# Lungs. Slices are counted from the feet (axial), the front (coronal) or the patient's right
# (sagittal), and shown as in radiology: the patient's right on the reader's left, the head up.


@style.figure
def steps(volume: Volume, found: Steps, at: int | None = None, plane: str = "axial") -> Drawn:
    """Draw what each step of the segmentation (`lungs.steps`) finds on one slice, in their order.

    `at`: number of the slice; by default the one with most of the airways below the neck.
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
        tubes = _area(volume, found.airways if found.airways.any() else found.closed, plane)
        lungs = _area(volume, found.closed, plane)
        at = int(np.argmax(tubes * (lungs > 0.3 * lungs.max())))
    image, aspect = _slice(volume, volume.voxels, plane, at), _aspect(volume, plane)
    figure, axes = style.panels(6, 3, 7.4, 7.4 / 3 * aspect * len(image) / image.shape[1] + 0.25)
    for number, (ax, title) in enumerate(zip(axes, layers, strict=True), start=1):
        show_ct(ax, image, aspect=aspect, title=f"{number}  {title}", mark=SIMULATED)
        for mask, color in layers[title]:
            _tint(ax, _slice(volume, mask, plane, at), color)
    return figure, (
        f"One {plane} slice of a simulated chest CT six times, coloured by what each step finds: "
        f"{', '.join(layers)}. Right lung blue, left lung orange."
    )


@style.figure
def over_slices(
    volume: Volume, masks: Masks, plane: str = "axial", *, at: Sequence[int], mark: str = SIMULATED
) -> Drawn:
    """Draw outlines of at most four masks (Z, Y, X), the first on top, over slices of a scan."""
    for name, mask in masks.items():
        if mask.shape != volume.shape:
            raise InputError(f"{name}: of shape {mask.shape}, the scan has {volume.shape}")
    columns = min(len(at), 4)
    rows = -(-len(at) // columns)
    images, aspect = [_slice(volume, volume.voxels, plane, n) for n in at], _aspect(volume, plane)
    tall = 7.4 / columns * aspect * images[0].shape[0] / images[0].shape[1]
    figure, axes = style.panels(len(at), columns, 7.4, 0.45 / rows + tall + 0.25)
    for ax, number, image in zip(axes, at, images, strict=True):
        show_ct(ax, image, aspect=aspect, title=f"slice {number}", mark=mark)
        for mask, color in reversed([*zip(masks.values(), _MASKS, strict=False)]):
            _outline(ax, _slice(volume, mask, plane, number), color)
    lines = [Line2D([], [], color=color) for _, color in zip(masks, _MASKS, strict=False)]
    figure.legend(lines, list(masks), loc="outside upper left", ncols=len(masks), fontsize=8)
    return figure, (
        f"{len(at)} {plane} slices of a {mark} chest CT with the outlines of {', '.join(masks)}."
    )


@style.figure
def kept(volume: Volume, nodules: Masks, masks: Masks, half_width_mm: float = 26.0) -> Drawn:
    """Draw what lung masks (a column each) keep of nodules (a row each), all (Z, Y, X).

    Each nodule is shown in the slice in which it is largest, up to `half_width_mm` around it.
    """
    pixel = volume.spacing_zyx_mm[1:]
    reach = [round(half_width_mm / p) for p in pixel]
    size = (7.4, (7.4 / len(masks) + 0.3) * len(nodules))
    figure, axes = style.subplots(len(nodules), len(masks), size, squeeze=False)
    spoken = []
    for row, (name, nodule) in zip(axes, nodules.items(), strict=True):
        z = int(nodule.sum(axis=(1, 2)).argmax())
        middle = [int(np.median(at)) for at in np.nonzero(nodule[z])]
        at = tuple(slice(max(m - r, 0), m + r + 1) for m, r in zip(middle, reach, strict=True))
        row[0].set_ylabel(name, fontsize=9)
        for ax, (title, mask) in zip(row, masks.items(), strict=True):
            said = f"{title}: {100 * mask[nodule].mean():.0f} %"
            show_ct(ax, volume.voxels[z][at], pixel_mm=pixel, mark=SIMULATED, title=said)
            extent = ax.images[0].get_extent()
            _tint(ax, mask[z][at], style.SKY, extent)
            _outline(ax, nodule[z][at], style.VERMILION, extent)
            spoken.append(f"{name}, {said}")
    scale_bar(axes[0, 0], 10.0)
    return figure, f"Share of nodules that lung masks keep. {'; '.join(spoken)}."


def _outline(ax: Axes, mask: Mask, color: str, extent: Any = None) -> None:
    if mask.any() and not mask.all():
        place = {} if extent is None else {"extent": extent, "origin": "upper"}
        ax.contour(mask, [0.5], colors=[color], linewidths=0.9, **place)


def _tint(ax: Axes, mask: Mask, color: str, extent: Any = None) -> None:
    layer = np.zeros((*mask.shape, 4))
    layer[mask] = to_rgba(color, 0.45)
    ax.imshow(layer, extent=extent, aspect=ax.get_aspect())
    _outline(ax, mask, color, extent)


def _upright(volume: Volume, array: NDArray) -> NDArray:
    """An array of the scan with its axes towards head, back and left, as near as they come."""
    nearest = np.argmax(np.abs(volume.direction), axis=1)
    turned = np.transpose(array, [2 - int(nearest[world]) for world in (2, 1, 0)])
    signs = [volume.direction[world, nearest[world]] for world in (2, 1, 0)]
    return turned[tuple(slice(None, None, 1 if sign > 0 else -1) for sign in signs)]


def _area(volume: Volume, mask: Mask, plane: str) -> NDArray[np.int64]:
    """How many voxels of a mask each slice of a plane has."""
    return _upright(volume, mask).sum(axis=_plane(plane)[1:])


def _plane(plane: str) -> tuple[int, int, int]:
    if plane not in _PLANES:
        raise InputError(f"no plane {plane!r}; choose axial, coronal or sagittal")
    return _PLANES[plane]


def _slice(volume: Volume, array: NDArray, plane: str, at: int) -> NDArray:
    """One slice as it is looked at: head or front up, the patient's right or front at the left."""
    across, down, _ = _plane(plane)
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


@style.figure
def twins_figure(
    real: Sequence[ArrayLike], simulated: Sequence[ArrayLike], titles: Sequence[str] = ()
) -> Drawn:
    """Draw the same nodules, real and simulated, side by side: axial slices, HU, titles one a pair.

    Real CT is not ours to publish: what this draws stays with the reader who has the images.
    """
    if not len(real) or len(real) != len(simulated):
        raise InputError(f"{len(real)} real and {len(simulated)} simulated slices; give pairs")
    across = min(3, len(real))
    height = 1.4 + 0.2 / -(-len(real) // across)
    figure, axes = style.panels(2 * len(real), 2 * across, 2.5 * across, height)
    for left, right, one, two in zip(axes[::2], axes[1::2], real, simulated, strict=True):
        show_ct(left, one, mark="real")
        show_ct(right, two, mark=SIMULATED)
    for ax, title in zip(axes[::2], titles, strict=False):
        ax.set_title(title, fontsize=8, loc="left")
    return figure, f"{len(real)} nodules, each as real CT on the left and simulated on the right."
