"""Lesson 03's figures: the cube, the nine planes in it, and the nine views that come of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mpl_toolkits.mplot3d import Axes3D
from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import make_interp_spline

from labkit.errors import InputError
from labkit.imaging.views import PLANES, Plane, window
from labkit.plots import style

Floats = NDArray[np.float64]

PLANE_COLORS = (
    style.BLUE,
    style.VERMILION,
    style.GREEN,
    style.PURPLE,
    style.ORANGE,
    style.SKY,
    style.YELLOW,
    style.BLACK,
    style.GREY,
)
_WORDS = (("right", "left"), ("front", "back"), ("feet", "head"))
_PAINTED = 32


def in_space(
    views: ArrayLike | None = None, size_mm: float = 64.0, mark: str = style.SIMULATED
) -> Figure:
    """The nine planes in the cube, one small drawing each, with their images painted on them.

    Args:
        views: (9, size, size) HU, or None for plain planes.
        size_mm: edge of the cube, and of the images.
        mark: written on painted images; "" for real CT.
    """
    images = None if views is None else _nine(views)
    # The constrained layout would draw everything several times, which takes seconds in 3-D.
    with style.house_style(), rc_context({"figure.constrained_layout.use": False}):
        figure = Figure(figsize=(7.4, 7.7))
        figure.subplots_adjust(left=0.03, right=0.99, bottom=0.02, top=0.96, wspace=0, hspace=0.08)
        for number, plane in enumerate(PLANES):
            ax = figure.add_subplot(3, 3, number + 1, projection="3d")
            color = PLANE_COLORS[number]
            _draw_cube(ax, size_mm / 2)
            corners = plane_corners_xyz_mm(plane, size_mm)
            ax.add_collection3d(
                Poly3DCollection([corners], facecolor=color, edgecolor=color, alpha=0.15)
            )
            if images is not None:
                _paint(ax, plane, images[number], size_mm)
            around = plane.points_xyz_mm((0, 0, 0), 2, size_mm)[[0, 0, 1, 1, 0], [0, 1, 1, 0, 0]]
            ax.plot(*around.T, color=color, linewidth=2.4, zorder=10)  # in front of the image
            _tidy(ax, size_mm / 2)
            ax.set_title(f"{number}  {plane.name}", fontsize=9, fontweight="normal")
        if images is not None and mark:
            figure.text(0.99, 0.005, f"images: {mark}", ha="right", va="bottom", fontsize=8)
    return style.describe(
        figure,
        "Nine drawings of one cube in space, each with one coloured plane through its middle: "
        "three parallel to the faces, six through two opposite edges.",
    )


def plane_corners_xyz_mm(plane: Plane, size_mm: float) -> Floats:
    """Where a plane through the middle of a cube leaves it: (4, 3) corners in turn, mm.

    >>> np.abs(plane_corners_xyz_mm(PLANES[0], 64)).max(axis=0).tolist()
    [32.0, 32.0, 0.0]
    """
    # A direction along a diagonal reaches sqrt(2) further before it meets an edge of the cube.
    row, col = (
        np.asarray(d) / np.abs(d).max() * size_mm / 2 for d in (plane.row_xyz, plane.col_xyz)
    )
    return np.stack([-row - col, -row + col, row + col, row - col])


def nine_views(views: ArrayLike, mark: str = style.SIMULATED) -> Figure:
    """The nine views side by side, in the colours of `in_space`, with their directions in words.

    Args:
        views: (9, size, size) HU.
        mark: written on every image; "" for real CT.
    """
    images = _nine(views)
    with style.house_style():
        figure = Figure(figsize=(7.0, 7.7), layout="constrained")
        for number, ax in enumerate(figure.subplots(3, 3).flat):
            plane = PLANES[number]
            style.show_ct(ax, images[number])
            for spine in ax.spines.values():
                spine.set(visible=True, color=PLANE_COLORS[number], linewidth=2.5)
            ax.set_title(f"{number}  {plane.name}", fontsize=9, fontweight="normal")
            ax.set_xlabel(f"to {toward(plane.col_xyz)} →", fontsize=8)
            ax.set_ylabel(f"← to {toward(plane.row_xyz)}", fontsize=8)
            if mark:
                style.mark_simulated(ax, mark)
    kind = f"{mark} " if mark else ""
    return style.describe(
        figure,
        f"The nine {kind}CT views of one nodule, {images.shape[-1]} pixels wide, in a grid of "
        "three by three, named: " + ", ".join(plane.name for plane in PLANES) + ".",
    )


def toward(direction_xyz: Sequence[float]) -> str:
    """A world direction (LPS) in words.

    >>> toward(PLANES[3].row_xyz)
    'front and feet'
    """
    return " and ".join(
        words[int(part > 0)]
        for words, part in zip(_WORDS, direction_xyz, strict=True)
        if abs(part) > 1e-9
    )


def side_by_side(
    images: Mapping[str, ArrayLike],
    mark: str = style.SIMULATED,
    pixel_mm: Mapping[str, tuple[float, float] | None] | None = None,
) -> Figure:
    """A few CT images of one nodule beside each other, in the paper's window, axes in mm.

    Args:
        images: title -> (rows, columns) HU.
        mark: written on every image; "" for real CT or a phantom.
        pixel_mm: title -> height and width of a pixel, mm; None draws square pixels and counts
            them. Images that are not named have pixels of 1 mm.
    """
    with style.house_style():
        figure = Figure(figsize=(7.4, 7.4 / len(images) + 0.7), layout="constrained")
        panels = figure.subplots(1, len(images), squeeze=False)[0]
        for ax, (title, image) in zip(panels, images.items(), strict=True):
            values = np.asarray(image)
            size = (pixel_mm or {}).get(title, (1.0, 1.0))
            height, width = size or (1.0, 1.0)
            y, x = values.shape[0] * height / 2, values.shape[1] * width / 2
            style.show_ct(ax, values, ticks=True, extent=(-x, x, y, -y))
            ax.set_title(title, fontsize=9, fontweight="normal")
            ax.set_xlabel("mm" if size else "voxels")
            if mark:
                style.mark_simulated(ax, mark)
    kind = f"{mark} images" if mark else "images"
    return style.describe(figure, f"{len(images)} {kind} side by side: {'; '.join(images)}.")


def differences(
    reference: ArrayLike,
    others: Mapping[str, ArrayLike],
    limit_hu: float = 100.0,
    mark: str = style.SIMULATED,
) -> Figure:
    """An image, and how some others differ from it, in HU.

    Args:
        reference: (rows, columns) HU.
        others: title -> (rows, columns) HU.
        limit_hu: end of the colour scale on both sides.
        mark: written on every image; "" for real CT.
    """
    base = np.asarray(reference, dtype=float)
    gaps = {title: np.asarray(image, dtype=float) - base for title, image in others.items()}
    with style.house_style():
        panels = len(others) + 1
        figure = Figure(figsize=(7.4, 7.4 / panels + 0.6), layout="constrained")
        axes = figure.subplots(1, panels)
        style.show_ct(axes[0], base)
        axes[0].set_title("one interpolation", fontsize=9, fontweight="normal")
        for ax, (title, gap) in zip(axes[1:], gaps.items(), strict=True):
            style.show_ct(ax, gap, -limit_hu, limit_hu, cmap="PuOr_r")
            ax.set_title(title, fontsize=9, fontweight="normal")
        figure.colorbar(axes[-1].get_images()[0], ax=axes[-1], label="difference, HU", shrink=0.8)
        if mark:
            for ax in axes:
                style.mark_simulated(ax, mark)
    spoken = ", ".join(f"{title}: up to {np.abs(gap).max():.0f} HU" for title, gap in gaps.items())
    return style.describe(figure, f"A view and maps of how others differ from it. {spoken}.")


def hidden_samples(lines: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Figure:
    """Lines of voxels of which every second one is hidden, and two curves through the others.

    Args:
        lines: title -> positions in mm and HU of the voxels along a line.
    """
    with style.house_style():
        figure = Figure(figsize=(7.4, 3.3), layout="constrained")
        panels = figure.subplots(1, len(lines), sharey=True, squeeze=False)[0]
        for ax, (title, (position, hu)) in zip(panels, lines.items(), strict=True):
            x, y = np.asarray(position, dtype=float), np.asarray(hu, dtype=float)
            known = slice(0, len(x) - (len(x) + 1) % 2, 2)  # curves end on a known voxel
            fine = np.linspace(x[known][0], x[known][-1], 401)
            for degree, name, color in ((1, "linear", style.SKY), (3, "cubic", style.VERMILION)):
                curve = make_interp_spline(x[known], y[known], k=degree)
                ax.plot(fine, curve(fine), color=color, label=name)
            ax.plot(x[known], y[known], "o", color="black", label="known voxel")
            ax.plot(x[1::2], y[1::2], "o", color="black", markerfacecolor="white", label="hidden")
            ax.set_xlabel("mm from the centre")
            ax.set_title(title, fontsize=9, fontweight="normal")
        panels[0].set_ylabel("HU")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
    return style.describe(
        figure,
        f"Voxels along {len(lines)} lines ({', '.join(lines)}), every second one hidden, with a "
        "linear and a cubic curve through the others.",
    )


def windows(
    image: ArrayLike, limits: Mapping[str, tuple[float, float]], mark: str = style.SIMULATED
) -> Figure:
    """One image in several windows, above a histogram of its HU with the windows marked.

    Args:
        image: (rows, columns) HU.
        limits: name -> HU drawn black and HU drawn white.
        mark: written on every image; "" for real CT.
    """
    values = np.asarray(image, dtype=float)
    colors = (style.BLUE, style.VERMILION, style.GREEN, style.PURPLE)
    with style.house_style():
        figure = Figure(figsize=(7.0, 4.9), layout="constrained")
        grid = figure.add_gridspec(2, len(limits), height_ratios=(3, 2))
        for column, ((name, (low, high)), color) in enumerate(
            zip(limits.items(), colors, strict=False)
        ):
            ax = figure.add_subplot(grid[0, column])
            style.show_ct(ax, window(values, low, high), 0, 1)
            ax.set_title(f"{name}: {low:g} to {high:g} HU", fontsize=9, color=color)
            if mark:
                style.mark_simulated(ax, mark)
        below = figure.add_subplot(grid[1, :])
        below.hist(values.ravel(), bins=np.arange(-1200, 1201, 25).tolist(), color=style.GREY)
        top = below.get_ylim()[1]
        for level, ((low, high), color) in enumerate(zip(limits.values(), colors, strict=False)):
            below.plot([low, high], [top * (1.1 + 0.1 * level)] * 2, color=color, linewidth=4)
        below.set(xlabel="HU", ylabel="pixels")
    spoken = ", ".join(f"{n} {low:g} to {high:g} HU" for n, (low, high) in limits.items())
    return style.describe(
        figure, f"One {mark} image in the windows {spoken}, and a histogram of its HU."
    )


def margin(
    view: ArrayLike, shifts: Sequence[tuple[int, int]], mark: str = style.SIMULATED
) -> Figure:
    """A wide view with the networks' square in it, and the square shifted over real tissue.

    Args:
        view: (wide, wide) HU.
        shifts: rows down and columns to the right, for each further square of 64 pixels.
        mark: written on the image; "" for real CT.

    Raises:
        InputError: a shift that leaves the view.
    """
    values, inner = np.asarray(view), 64
    room = (len(values) - inner) // 2
    if any(abs(step) > room for shift in shifts for step in shift):
        raise InputError(f"a view of {len(values)} pixels has room for shifts of {room} at most")
    colors = (style.SKY, style.ORANGE, style.PURPLE)
    with style.house_style():
        figure = Figure(figsize=(7.2, 2.3), layout="constrained")
        axes = figure.subplots(1, len(shifts) + 2)
        style.show_ct(axes[0], values)
        axes[0].set_title(f"{len(values)} x {len(values)}", fontsize=9, fontweight="normal")
        for ax, (down, right), color in zip(axes[1:], [(0, 0), *shifts], colors, strict=False):
            top, left = room + down, room + right
            axes[0].add_patch(_square(left, top, inner, color))
            style.show_ct(ax, values[top : top + inner, left : left + inner])
            ax.set_title(f"shift {down:+d}, {right:+d}", fontsize=9, color=color)
        if mark:
            for ax in axes:
                style.mark_simulated(ax, mark)
    return style.describe(
        figure,
        f"A {mark} view of {len(values)} pixels with squares of {inner} in it, and what they cut "
        "out: in the middle, and " + ", ".join(f"shifted by {s}" for s in shifts) + ".",
    )


def _nine(views: ArrayLike) -> NDArray:
    images = np.asarray(views)
    if images.ndim != 3 or len(images) != len(PLANES):
        raise InputError(f"nine views are needed, of shape (9, size, size), not {images.shape}")
    return images


def _square(left: int, top: int, size: int, color: str) -> Rectangle:
    corner = (left - 0.5, top - 0.5)  # pixels reach half a pixel beyond their centres
    return Rectangle(corner, size, size, fill=False, edgecolor=color, linewidth=1.6)


def _draw_cube(ax: Axes3D, half_mm: float) -> None:
    corners = np.array(list(product((-half_mm, half_mm), repeat=3)))
    edges = [(a, b) for a, b in combinations(corners, 2) if np.count_nonzero(a != b) == 1]
    ax.add_collection3d(Line3DCollection(edges, colors=style.GREY, linewidths=0.8))


def _paint(ax: Axes3D, plane: Plane, image: NDArray, size_mm: float) -> None:
    """Lay an image on its plane, coarsely: 3-D drawing is slow, and detail is for other figures."""
    step = max(1, image.shape[0] // _PAINTED)
    gray = window(image)[::step, ::step]
    at = plane.points_xyz_mm((0, 0, 0), len(gray) + 1, size_mm / len(gray))
    colors = np.repeat(gray[..., None], 3, axis=-1)
    ax.plot_surface(*np.moveaxis(at, -1, 0), facecolors=colors, rcount=99, ccount=99, shade=False)


def _tidy(ax: Axes3D, half_mm: float) -> None:
    ax.set(xlim=(-half_mm, half_mm), ylim=(-half_mm, half_mm), zlim=(-half_mm, half_mm))
    ax.set_box_aspect((1, 1, 1))
    # From here no plane is seen edge-on: the least angle to a plane is 12 degrees.
    ax.view_init(elev=12, azim=-59)
    ax.set_axis_off()
    far = 1.25 * half_mm
    for place, name in (
        ((0, -far, -half_mm), "left →"),
        ((far, 0, -half_mm), "back →"),
        ((-half_mm, -half_mm, 0), "head ↑ "),
    ):
        ax.text(*place, name, fontsize=7, color=style.GREY, ha="right", va="top")
