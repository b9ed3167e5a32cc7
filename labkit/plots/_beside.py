"""Names beside points, where they cover neither a name, a point nor a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from labkit.plots import style

_SIZE = 8.5  # points
_ANGLES = np.deg2rad([0, 180, 270, 90, 315, 45, 225, 135, 292, 68, 248, 112])


@dataclass(frozen=True)
class Point:
    """A point that `Axes.scatter` drew.

    Args:
        name: to be written beside it.
        x: in the axes' data.
        y: in the axes' data.
        area: `s` of scatter, square points.
    """

    name: str
    x: float
    y: float
    area: float


def name_points(ax: Axes, points: Sequence[Point]) -> None:
    """Write every point's name at the nearest free place, the largest first, with a line if far.

    Args:
        ax: with everything else drawn and its figure laid out (`draw_without_rendering`).
        points: to be named.
    """
    figure = ax.get_figure()
    assert isinstance(figure, Figure)
    unit = figure.dpi / 72
    inside, to_pixels = ax.get_window_extent(), ax.transData
    taken = [text.get_window_extent() for text in ax.texts]
    legend = ax.get_legend()
    if legend is not None:
        taken.append(legend.get_window_extent())
    for line in ax.lines:
        taken += _along(to_pixels.transform(np.asarray(line.get_xydata())))
    centres = {p.name: np.asarray(to_pixels.transform((p.x, p.y))) for p in points}
    radii = {p.name: unit * np.sqrt(p.area / np.pi) for p in points}
    taken += [Bbox([centres[n] - r, centres[n] + r]) for n, r in radii.items()]
    for name in sorted(radii, key=lambda n: -radii[n]):
        text = ax.text(0.5, 0.5, name, fontsize=_SIZE, ha="center", va="center", zorder=4)
        extent = text.get_window_extent()
        size = np.array([extent.width, extent.height])
        corner = _free(centres[name], radii[name] + 2 * unit, size, taken, inside, unit)
        taken.append(Bbox([corner, corner + size]))
        text.set_position(tuple(to_pixels.inverted().transform(corner + size / 2)))
        nearest = np.clip(centres[name], corner, corner + size)
        if np.hypot(*(nearest - centres[name])) > radii[name] + 9 * unit:
            ends = to_pixels.inverted().transform([centres[name], nearest])
            ax.plot(ends[:, 0], ends[:, 1], color=style.GREY, lw=0.7, zorder=2)


def _free(
    centre: NDArray[Any], start: float, size: NDArray[Any], taken: list[Bbox], inside: Bbox,
    unit: float,
) -> NDArray[Any]:  # fmt: skip
    """Lower left corner, in pixels, of the nearest free place for a name; beside it if none is."""
    for ring in range(16):
        for angle in _ANGLES:
            way = np.array([np.cos(angle), np.sin(angle)])
            corner = centre + way * (start + 6 * unit * ring + np.abs(way) * size / 2) - size / 2
            box = Bbox([corner, corner + size])
            held = box.x0 > inside.x0 and box.x1 < inside.x1
            held = held and box.y0 > inside.y0 and box.y1 < inside.y1
            if held and not any(box.overlaps(other) for other in taken):
                return corner
    return np.asarray(centre + np.array([start, -size[1] / 2]))


def _along(xy: NDArray[Any]) -> list[Bbox]:
    """Small boxes along a line, so that names keep off it."""
    steps = np.linspace(0, 1, 200)
    places = [a + t * (b - a) for a, b in pairwise(xy) for t in steps]
    return [Bbox([place - 1, place + 1]) for place in places]
