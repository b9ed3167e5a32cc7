"""Lesson 03's figures: the cube, the planes in it, and the views that come of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, cycle, product

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mpl_toolkits.mplot3d import Axes3D
from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import make_interp_spline

from labkit.errors import InputError
from labkit.imaging.views import PLANES, Plane, window
from labkit.plots import style
from labkit.plots.style import SIMULATED, Arrays, Drawn, Look, show_ct

PLANE_COLORS = (
    style.BLUE, style.VERMILION, style.GREEN, style.PURPLE, style.ORANGE, style.SKY, style.YELLOW,
    style.BLACK, style.GREY,
)  # fmt: skip
_WORDS = (("right", "left"), ("front", "back"), ("feet", "head"))
_PAINTED = 32
SIZE_MM = 64.0
"""Edge of the cube, and of the images."""


@style.figure
def in_space(views: ArrayLike) -> Drawn:
    """Draw the planes in the cube, one small drawing each, with (views, size, size) HU on them."""
    rows = -(-len(PLANES) // 3)
    # Not the constrained layout, which would draw everything several times: seconds in 3-D.
    figure = Figure(figsize=(7.4, 2.57 * rows), layout="none")  # type: ignore[arg-type]
    figure.subplots_adjust(left=0.03, right=0.99, bottom=0.02, top=0.96, wspace=0, hspace=0.08)
    parts = zip(PLANES, cycle(PLANE_COLORS), np.asarray(views), strict=False)
    for number, (plane, color, image) in enumerate(parts):
        ax = figure.add_subplot(rows, 3, number + 1, projection="3d")
        _draw_cube(ax, SIZE_MM / 2)
        look = Look(facecolor=color, edgecolor=color, alpha=0.15)
        ax.add_collection3d(Poly3DCollection([plane_corners_xyz_mm(plane, SIZE_MM)], **look))
        _paint(ax, plane, image)
        around = plane.points_xyz_mm((0, 0, 0), 2, SIZE_MM)[[0, 0, 1, 1, 0], [0, 1, 1, 0, 0]]
        ax.plot(*around.T, color=color, linewidth=2.4, zorder=10)  # in front of the image
        ax.set_title(f"{number}  {plane.name}", **style.PLAIN)
    figure.text(0.99, 0.005, "images: simulated", ha="right", va="bottom", fontsize=8)
    return figure, "Three are parallel to the faces, the others run through two opposite edges"


def _draw_cube(ax: Axes3D, half_mm: float) -> None:
    corners = np.array(list(product((-half_mm, half_mm), repeat=3)))
    edges = [(a, b) for a, b in combinations(corners, 2) if np.count_nonzero(a != b) == 1]
    ax.add_collection3d(Line3DCollection(edges, colors=style.GREY, linewidths=0.8))
    ax.set(xlim=(-half_mm, half_mm), ylim=(-half_mm, half_mm), zlim=(-half_mm, half_mm))
    ax.set_box_aspect((1, 1, 1))
    # From here no plane is seen edge-on: the least angle to a plane is 12 degrees.
    ax.view_init(elev=12, azim=-59)
    ax.set_axis_off()
    far, look = 1.25 * half_mm, {"fontsize": 7, "color": style.GREY, "ha": "right", "va": "top"}
    ax.text(0, -far, -half_mm, "left →", **look)
    ax.text(far, 0, -half_mm, "back →", **look)
    ax.text(-half_mm, -half_mm, 0, "head ↑ ", **look)


def _paint(ax: Axes3D, plane: Plane, image: NDArray) -> None:
    """Lay an image on its plane, coarsely: 3-D drawing is slow, and detail is for other figures."""
    step = max(1, image.shape[0] // _PAINTED)
    gray = window(image)[::step, ::step]
    at = plane.points_xyz_mm((0, 0, 0), len(gray) + 1, SIZE_MM / len(gray))
    colors = np.repeat(gray[..., None], 3, axis=-1)
    ax.plot_surface(*np.moveaxis(at, -1, 0), facecolors=colors, rcount=99, ccount=99, shade=False)


def plane_corners_xyz_mm(plane: Plane, size_mm: float) -> NDArray[np.float64]:
    """Return where a plane through the middle of a cube leaves it: (4, 3) corners in turn, mm.

    >>> np.abs(plane_corners_xyz_mm(PLANES[0], 64)).max(axis=0).tolist()
    [32.0, 32.0, 0.0]
    """
    # A direction along a diagonal reaches sqrt(2) further before it meets an edge of the cube.
    ways = (np.asarray(plane.row_xyz), np.asarray(plane.col_xyz))
    row, col = (way / np.abs(way).max() * size_mm / 2 for way in ways)
    return np.stack([-row - col, -row + col, row + col, row - col])


@style.figure
def nine_views(views: ArrayLike, mark: str = SIMULATED) -> Drawn:
    """Draw (views, size, size) HU in the colours of `in_space`, with their directions in words."""
    figure, axes = style.view_panels(np.asarray(views), mark)
    for ax, plane, color in zip(axes, PLANES, cycle(PLANE_COLORS), strict=False):
        ax.spines[:].set(visible=True, color=color, linewidth=2.5)
        ax.set_xlabel(f"to {toward(plane.col_xyz)} →", fontsize=8)
        ax.set_ylabel(f"← to {toward(plane.row_xyz)}", fontsize=8)
    return figure


def toward(direction_xyz: Sequence[float]) -> str:
    """Return a world direction (LPS) in words.

    >>> toward(PLANES[3].row_xyz)
    'front and feet'
    """
    parts = zip(_WORDS, direction_xyz, strict=True)
    return " and ".join(words[int(part > 0)] for words, part in parts if abs(part) > 1e-9)


@style.figure
def side_by_side(
    images: Arrays, *, mark: str = SIMULATED,
    pixel_mm: Mapping[str, tuple[float, float] | None] | None = None,
) -> Drawn:  # fmt: skip
    """Draw images of HU side by side, each with its axes in mm from its middle.

    Args:
        images: title -> (rows, columns).
        pixel_mm: title -> height and width of a pixel, mm; None draws square pixels and counts
            them. Images that are not named have pixels of 1 mm.
    """
    columns = len(images) if len(images) < 5 else -(-len(images) // 2)
    figure, axes = style.panels(len(images), columns, 7.4, 7.4 / columns + 0.7)
    for ax, (title, image) in zip(axes, images.items(), strict=True):
        pixel = (pixel_mm or {}).get(title, (1.0, 1.0))
        show_ct(ax, image, pixel_mm=pixel or 1.0, ticks=True, title=title, mark=mark)
        ax.set_xlabel("mm" if pixel else "voxels")
    return figure, mark


@style.figure
def differences(reference: ArrayLike, others: Arrays) -> Drawn:
    """Draw an image (rows, columns), and how some others (by title) differ from it, in HU."""
    gaps = {title: np.subtract(image, reference, dtype=float) for title, image in others.items()}
    panels = len(others) + 1
    figure, (first, *axes) = style.subplots(1, panels, (7.4, 7.4 / panels + 0.6))
    show_ct(first, reference, title="one interpolation", mark=SIMULATED)
    for ax, (title, gap) in zip(axes, gaps.items(), strict=True):
        show_ct(ax, gap, -100, 100, cmap="PuOr_r", title=title, mark=SIMULATED)
    figure.colorbar(axes[-1].images[0], ax=axes[-1], label="difference, HU", shrink=0.8)
    return figure, {f"largest of {title}, HU:": np.abs(gap).max() for title, gap in gaps.items()}


@style.figure
def hidden_samples(lines: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Drawn:
    """Draw lines of voxels of which every second one is hidden, and two curves through the others.

    `lines`: title -> positions in mm and HU of the voxels along a line.
    """
    figure, axes = style.panels(len(lines), len(lines), 7.4, 3.3, sharey=True)
    for ax, (title, (position, hu)) in zip(axes, lines.items(), strict=True):
        x, y = np.asarray(position, dtype=float), np.asarray(hu, dtype=float)
        known = slice(0, len(x) - (len(x) + 1) % 2, 2)  # curves end on a known voxel
        fine = np.linspace(x[known][0], x[known][-1], 401)
        for degree, name, color in ((1, "linear", style.SKY), (3, "cubic", style.VERMILION)):
            curve = make_interp_spline(x[known], y[known], k=degree)
            ax.plot(fine, curve(fine), color=color, label=name)
        ax.plot(x[known], y[known], "o", color="black", label="known voxel")
        ax.plot(x[1::2], y[1::2], "o", color="black", markerfacecolor="white", label="hidden")
        ax.set_xlabel("mm from the centre")
        ax.set_title(title, **style.PLAIN)
    axes[0].set_ylabel("HU")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
    return figure


@style.figure
def margin(view: ArrayLike, shifts: Sequence[tuple[int, int]]) -> Drawn:
    """Draw a wide view with the networks' square of 64 pixels in it, and it shifted over tissue.

    `shifts`: rows down and columns to the right, of each further square.
    """
    values, inner = np.asarray(view), 64
    room = (len(values) - inner) // 2
    if np.abs(shifts).max() > room:
        raise InputError(f"a view of {len(values)} pixels has room for shifts of {room} at most")
    figure, (whole, *axes) = style.subplots(1, len(shifts) + 2, (7.2, 2.3))
    show_ct(whole, values, title=f"{len(values)} x {len(values)}", mark=SIMULATED)
    colors = (style.SKY, style.ORANGE, style.PURPLE)
    for ax, (down, right), color in zip(axes, [(0, 0), *shifts], colors, strict=False):
        top, left = room + down, room + right
        corner = (left - 0.5, top - 0.5)  # pixels reach half a pixel beyond their centres
        whole.add_patch(Rectangle(corner, inner, inner, fill=False, edgecolor=color, lw=1.6))
        show_ct(ax, values[top : top + inner, left : left + inner], mark=SIMULATED)
        ax.set_title(f"shift {down:+d}, {right:+d}", fontsize=9, color=color)
    return figure
