"""CT slices in true proportions, and what is drawn over them."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from numpy.typing import ArrayLike

from labkit.plots import style


def draw_image(
    ax: Axes,
    image: ArrayLike,
    pixel_mm: tuple[float, float],
    mark: str,
    low: float = -1000.0,
    high: float = 400.0,
) -> None:
    """An image in true proportions, its axes in mm."""
    hu = np.asarray(image)
    style.show_ct(ax, hu, low, high, extent=_extent(hu.shape, pixel_mm))
    if mark:
        style.mark_simulated(ax, mark)


def draw_tint(ax: Axes, mask: ArrayLike, color: str, pixel_mm: tuple[float, float]) -> None:
    shown = np.ma.masked_equal(np.asarray(mask, dtype=float), 0.0)
    ax.imshow(
        shown,
        cmap=_single(color),
        alpha=0.45,
        vmin=0,
        vmax=1,
        extent=_extent(shown.shape, pixel_mm),
    )
    draw_outline(ax, mask, color, pixel_mm)


def draw_outline(ax: Axes, mask: ArrayLike, color: str, pixel_mm: tuple[float, float]) -> None:
    values = np.asarray(mask, dtype=float)
    if values.min() < 0.5 < values.max():
        extent = _extent(values.shape, pixel_mm)
        ax.contour(values, [0.5], colors=[color], linewidths=0.9, extent=extent, origin="upper")


def _single(color: str) -> ListedColormap:
    return ListedColormap([color])


def _extent(
    shape: tuple[int, ...], pixel_mm: tuple[float, float]
) -> tuple[float, float, float, float]:
    y, x = (n * p / 2 for n, p in zip(shape, pixel_mm, strict=True))
    return -x, x, y, -y


def draw_title(ax: Axes, text: str) -> None:
    ax.set_title(text, fontsize=9, fontweight="normal")


def draw_ruler(ax: Axes, mm: float) -> None:
    """A bar of a known length in the upper left corner."""
    left, right, bottom, top = (*ax.get_xlim(), *ax.get_ylim())
    x, y = left + 0.05 * (right - left), top + 0.06 * (bottom - top)
    ax.plot([x, x + mm], [y, y], color="white", linewidth=2.5, solid_capstyle="butt")
    ax.text(x, y + 0.02 * (bottom - top), f"{mm:g} mm", color="white", fontsize=7, va="top")
