"""The house style of the course's figures: colours, CT images, alternative text.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers; a class or a method
has the same colour in every figure. In a lesson: `style.use()` once, then `style.show(figure)`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from labkit.errors import InputError

BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#7A7A7A"

BENIGN = BLUE
MALIGNANT = VERMILION
UNCERTAIN = GREY
CLASSES = {0: BENIGN, 1: MALIGNANT, None: UNCERTAIN}
CLASS_COLUMNS = {"benign": BENIGN, "uncertain": UNCERTAIN, "malignant": MALIGNANT}

ST = ORANGE
MT = GREEN
SIZE_ONLY = BLACK
METHODS = {"st": ST, "mt": MT, "size": SIZE_ONLY, "detector": SIZE_ONLY}

READERS = (ORANGE, SKY, GREEN, PURPLE)  # seen on white and on CT
SIMULATED = "simulated"


@contextmanager
def house_style() -> Iterator[None]:
    """Draw with the house style inside a `with` block, and leave matplotlib as it was.

    >>> with house_style():
    ...     plt.rcParams["axes.spines.top"]
    False
    """
    with plt.style.context(_sheet()):
        yield


def use() -> None:
    """Set the house style for the rest of the process: the first cell of every lesson."""
    plt.style.use(_sheet())


def show_ct(
    ax: Axes,
    hu: Any,
    low: float = -1000.0,
    high: float = 400.0,
    ticks: bool = False,
    **changes: Any,
) -> None:
    """Draw an image of HU in the paper's window, (-1000, 400) as black to white.

    Args:
        ax: axes to draw on.
        hu: (rows, columns) HU.
        low: HU drawn black.
        high: HU drawn white.
        ticks: whether the axes keep theirs, and their spines.
        **changes: further arguments of `Axes.imshow`.
    """
    ax.imshow(hu, **{"cmap": "gray", "vmin": low, "vmax": high, **changes})
    if not ticks:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
    ax.grid(visible=False)


def mark_simulated(ax: Axes, word: str = SIMULATED) -> None:
    """Write "simulated" into the lower left corner of an image.

    Every image made of simulated CT carries the word.
    """
    ax.text(
        0.03,
        0.03,
        word,
        transform=ax.transAxes,
        color="white",
        fontsize=7,
        ha="left",
        va="bottom",
        bbox={"facecolor": "black", "edgecolor": "none", "alpha": 0.6, "pad": 1.2},
    )


def mark_kind(ax: Axes, simulated: bool) -> None:
    """Say above the axes, on the right, which kind of CT what is drawn was measured on."""
    word = "simulated CT" if simulated else "real CT"
    ax.set_title(word, loc="right", fontweight="normal", color=GREY, fontsize=9)


def describe(figure: Figure, alt: str) -> Figure:
    """Give a figure its alternative text, for readers who cannot see it.

    Every plot function ends with it, since only it knows what it drew.

    Args:
        figure: what was drawn.
        alt: one to three sentences with what there is to see.

    Returns:
        The figure.

    Raises:
        InputError: no text.
    """
    text = " ".join(alt.split())
    if not text:
        raise InputError("an alternative text has to say what the figure shows; it is empty")
    figure.set_label(text)
    return figure


def spoken_counts(counts: pd.DataFrame) -> str:
    """Class counts in words, for alternative texts.

    >>> spoken_counts(pd.DataFrame([[3, 1]], index=["all"], columns=["benign", "malignant"]))
    'all: 3 benign, 1 malignant'
    """
    rows = counts.to_dict("index").items()
    return "; ".join(f"{k}: {', '.join(f'{n} {c}' for c, n in row.items())}" for k, row in rows)


def alt_text(figure: Figure) -> str:
    """What `describe` was told.

    Raises:
        InputError: the figure was never described.
    """
    text = figure.get_label()
    if not isinstance(text, str) or not text:
        raise InputError("the figure has no alternative text; pass it through style.describe")
    return text


def show(figure: Figure, colors: int | None = None) -> None:
    """Show a figure in a notebook with its alternative text, once, and release it.

    Args:
        figure: what `describe` was told of.
        colors: keep that many at most (2 to 256): CT is full of noise, and takes a third of the
            space with 256.
    """
    from IPython.display import display

    # Drawn here, since notebooks know how to draw only figures that pyplot has made.
    image = io.BytesIO()
    figure.savefig(image, format="png")
    if colors is not None:
        image = _with_fewer_colours(image, colors)
    # nbconvert's classic template makes it the image's alt; the lab template and JupyterLab 4 do
    # not yet, so lessons also say below each figure what there is to see.
    display(
        {"image/png": image.getvalue(), "text/plain": alt_text(figure)},
        metadata={"image/png": {"alt": alt_text(figure)}},
        raw=True,
    )
    plt.close(figure)


def show_file(file: Path, alt: str, colors: int | None = None) -> None:
    """Show a picture that is kept as PNG in a notebook, with its alternative text.

    Args:
        file: of the picture.
        alt: what there is to see.
        colors: keep that many at most, as in `show`.
    """
    from IPython.display import display

    image = io.BytesIO(file.read_bytes())
    if colors is not None:
        image = _with_fewer_colours(image, colors)
    display(
        {"image/png": image.getvalue(), "text/plain": alt},
        metadata={"image/png": {"alt": alt}},
        raw=True,
    )


def _with_fewer_colours(image: io.BytesIO, colors: int) -> io.BytesIO:
    """A PNG of at most that many colours; of one channel where all is grey."""
    drawn = Image.open(image).convert("RGB")
    red, green, blue = drawn.split()
    if red.tobytes() == green.tobytes() == blue.tobytes():
        drawn = red
    else:  # an octree keeps rare colours, which a median cut would give to the many greys
        drawn = drawn.quantize(colors, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    smaller = io.BytesIO()
    drawn.save(smaller, format="png", optimize=True)
    return smaller


def _sheet() -> str:
    return str(resources.files("labkit.plots") / "house.mplstyle")


# CT slices in true proportions, and what is drawn over them.


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
    show_ct(ax, hu, low, high, extent=_extent(hu.shape, pixel_mm))
    if mark:
        mark_simulated(ax, mark)


def draw_tint(ax: Axes, mask: ArrayLike, color: str, pixel_mm: tuple[float, float]) -> None:
    """Tint where a mask is, and outline it."""
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
    """Outline a mask."""
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
    """Title of an image."""
    ax.set_title(text, fontsize=9, fontweight="normal")


def draw_ruler(ax: Axes, mm: float) -> None:
    """A bar of a known length in the upper left corner."""
    left, right, bottom, top = (*ax.get_xlim(), *ax.get_ylim())
    x, y = left + 0.05 * (right - left), top + 0.06 * (bottom - top)
    ax.plot([x, x + mm], [y, y], color="white", linewidth=2.5, solid_capstyle="butt")
    ax.text(x, y + 0.02 * (bottom - top), f"{mm:g} mm", color="white", fontsize=7, va="top")


# Names beside points, where they cover neither a name, a point nor a line.


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
            ax.plot(ends[:, 0], ends[:, 1], color=GREY, lw=0.7, zorder=2)


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
