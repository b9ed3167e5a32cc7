"""The house style of the figures, and the parts that several of them are made of.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers; a class or a method
has the same colour in every figure. In a lesson: `style.use()` once, then `style.show(figure)`.

A function that draws is marked `@figure`, which gives its figure an alternative text. Three
arguments mean the same everywhere: `simulated` says that the images were simulated, `mark` is the
word on every image ("" for real CT), `title` stands above.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from importlib import resources
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from labkit import models
from labkit.annotations.lidc import UNCERTAIN as UNCERTAIN_SCORE
from labkit.errors import InputError
from labkit.evaluation.statistics import Interval
from labkit.imaging.views import PLANES

BLACK, GREY = "#000000", "#7A7A7A"
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"

COLOURS = [BLUE, VERMILION, GREEN, PURPLE]
"""In which order the names of a figure have them, where they mean nothing else."""

BENIGN, MALIGNANT, UNCERTAIN = BLUE, VERMILION, GREY
CLASSES = {0: BENIGN, 1: MALIGNANT, None: UNCERTAIN}
CLASS_COLUMNS = {"benign": BENIGN, "uncertain": UNCERTAIN, "malignant": MALIGNANT}

ST, MT, SIZE_ONLY = ORANGE, GREEN, BLACK  # shades of them, by alpha and depth: `plots.paper`
NETWORKS = {kind: (models.NETWORKS[kind].name, c) for kind, c in (("st", ST), ("mt", MT))}
"""Short name of a network -> its name in figures, and its colour."""
METHODS = {
    "st": ST, "mt": MT, "size": SIZE_ONLY, "detector": SIZE_ONLY,
    "mean of the training": GREY, "gaussian blur": ORANGE, "principal components": PURPLE,
}  # fmt: skip
"""How the name of a method begins -> its colour."""

READERS = (ORANGE, SKY, GREEN, PURPLE)  # seen on white and on CT
SIMULATED = "simulated"
_BOX = {"facecolor": "black", "edgecolor": "none", "alpha": 0.6, "pad": 1.2}
_ON_IMAGES: dict[str, Any] = {"color": "white", "fontsize": 7, "bbox": _BOX}
PLAIN: dict[str, Any] = {"fontsize": 9, "fontweight": "normal"}
_SHEET = str(resources.files("labkit.plots") / "house.mplstyle")
P = ParamSpec("P")
Look = dict[str, Any]
"""Further arguments of matplotlib's."""
Arrays = Mapping[str, Any]
"""Name -> array."""
Tables = Mapping[str, pd.DataFrame]
Values = Mapping[str, Any]
Drawn = Figure | tuple[Any, ...]
"""A figure, and what its titles and legends do not yet say in words."""


def house_style() -> AbstractContextManager[None]:
    """Draw with the house style inside a `with` block, and leave matplotlib as it was."""
    return plt.style.context(_SHEET)


def use() -> None:
    """Set the house style for the rest of the process: the first cell of every lesson."""
    plt.style.use(_SHEET)


def figure(draw: Callable[P, Drawn]) -> Callable[P, Figure]:
    """Draw in the house style, and say in words what is drawn.

    The words are the docstring's first line, what is written in the figure, and what is returned
    beside it: values by name, a table, or a sentence.
    """

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with house_style():
            found = draw(*args, **kwargs)
        made, *values = found if isinstance(found, tuple) else (found,)
        lead = str(draw.__doc__).splitlines()[0].removeprefix("Draw ").replace("`", "")
        legends = [*made.legends, *filter(None, (ax.get_legend() for ax in made.axes))]
        texts = dict.fromkeys(text.get_text() for ax in made.axes for text in ax.texts)
        words = [
            made.get_suptitle(), *(ax.get_title("left") for ax in made.axes),
            *("; ".join(t.get_text() for t in legend.get_texts()) for legend in legends),
            "; ".join(filter(None, texts)), *(said(of).removesuffix(".") for of in values),
        ]  # fmt: skip
        text = ". ".join(dict.fromkeys(filter(None, words)))
        return describe(made, f"{lead[0].upper()}{lead[1:]} {text}" + "." * bool(text))

    return drawn


def subplots(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.4, 4.0), **options: Any
) -> tuple[Figure, Any]:
    """Make a figure of a size in inches that belongs to nobody, and its axes as pyplot does."""
    made = Figure(figsize=size, layout="constrained")
    return made, made.subplots(rows, columns, **options)


def mosaic(plan: Any, size: tuple[float, float], **options: Any) -> tuple[Figure, dict[Any, Axes]]:
    """Make a figure of a size in inches, and its axes as `subplot_mosaic` names them."""
    made = Figure(figsize=size, layout="constrained")
    return made, made.subplot_mosaic(plan, **options)


def panels(n: int, columns: int, width: float, height: float, **options: Any) -> tuple[Figure, Any]:
    """Make a figure of n panels in rows, of a width and of a height a row in inches."""
    rows = -(-n // columns)
    made, axes = subplots(rows, columns, (width, rows * height), squeeze=False, **options)
    for ax in axes.flat[n:]:
        ax.remove()
    return made, axes.flat[:n]


def describe(figure: Figure, alt: str) -> Figure:
    """Give a figure its alternative text, for readers who cannot see it, and return it."""
    figure.set_label(" ".join(alt.split()))
    return figure


def alt_text(figure: Figure) -> str:
    """Return the alternative text that `describe` was told; an InputError if it was not."""
    if not (text := str(figure.get_label())):
        raise InputError("the figure has no alternative text; pass it through style.describe")
    return text


def said(of: Any) -> str:
    """Return values by name in words, a table row by row.

    >>> said({"size only": 0.9123, "MT-CNN": {"loss": 0.5, "AUC": 0.94}})
    'size only 0.912; MT-CNN: loss 0.5, AUC 0.94'
    """
    if isinstance(of, pd.DataFrame):
        of = of.to_dict("index")
    if isinstance(of, Mapping | pd.Series):
        return "; ".join(
            f"{said(name)}: {said(v).replace(';', ',')}"
            if isinstance(v, Mapping)
            else f"{said(name)} {said(v)}"
            for name, v in of.items()
        )
    if isinstance(of, Interval) and not np.isfinite(of.low):
        return f"{said(of.value)} without an interval"
    if isinstance(of, float):
        known = f"{of:.3g}" if abs(of) < 100 else f"{of:,.0f}"
        return known if np.isfinite(of) else "unknown"
    return str(of)


def show(figure: Figure, colors: int | None = None) -> None:
    """Show a figure in a notebook with its alternative text, once, and release it.

    `colors`: keep that many at most (2 to 256): CT is full of noise, and takes a third of the space
    with 256.
    """
    # Drawn here, since notebooks know how to draw only figures that pyplot has made.
    image, alt = io.BytesIO(), alt_text(figure)
    figure.savefig(image, format="png")
    _display(image, alt, colors)
    plt.close(figure)


def show_file(file: Path, alt: str, colors: int | None = None) -> None:
    """Show a picture that is kept as PNG in a notebook, as `show` shows a figure."""
    _display(io.BytesIO(file.read_bytes()), alt, colors)


def _display(image: io.BytesIO, alt: str, colors: int | None) -> None:
    from IPython.display import display

    if colors is not None:
        drawn = Image.open(image).convert("RGB")
        red, green, blue = drawn.split()
        if red.tobytes() == green.tobytes() == blue.tobytes():
            drawn = red
        else:  # an octree keeps rare colours, which a median cut would give to the many greys
            drawn = drawn.quantize(colors, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        drawn.save(image := io.BytesIO(), format="png", optimize=True)
    # nbconvert's classic template makes it the image's alt; the lab template and JupyterLab 4 do
    # not yet, so lessons also say below each figure what there is to see.
    data, metadata = {"image/png": image.getvalue(), "text/plain": alt}, {"image/png": {"alt": alt}}
    display(data, metadata=metadata, raw=True)


# Images


def show_ct(
    ax: Axes, image: ArrayLike, low: float = -1000.0, high: float = 400.0, *, title: str = "",
    mark: str = "", pixel_mm: ArrayLike | None = None, ticks: bool = False, **look: Any,
) -> None:  # fmt: skip
    """Draw an image (rows, columns) in the paper's window, (-1000, 400) HU as black to white.

    Args:
        pixel_mm: height and width of a pixel, or its side: axes in mm from the image's middle.
        ticks: whether the axes keep theirs, and their spines.
        **look: further arguments of `Axes.imshow`.
    """
    if pixel_mm is not None:
        y, x = np.array(np.shape(image)) * np.asarray(pixel_mm) / 2
        look["extent"] = (-x, x, y, -y)
    ax.imshow(np.asarray(image), **{"cmap": "gray", "vmin": low, "vmax": high, **look})
    if not ticks:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    if title:
        ax.set_title(title, **PLAIN)
    if mark:
        mark_simulated(ax, mark)


def image_panels(
    images: Mapping[str, ArrayLike], columns: int, width: float = 7.4, words: float = 0.3,
    *limits: float, **look: Any,
) -> tuple[Figure, Any]:  # fmt: skip
    """Draw images of one size in rows, a title above each.

    Args:
        width: of the figure, in inches; `words`: height that a row needs for its words.
        *limits, **look: further arguments of `show_ct`, the same for all.
    """
    rows, wide = np.shape(next(iter(images.values())))
    tall = width / columns * look.get("aspect", 1) * rows / wide + words
    made, axes = panels(len(images), columns, width, tall)
    for ax, (title, image) in zip(axes, images.items(), strict=True):
        show_ct(ax, image, *limits, title=title, **look)
    return made, axes


def view_panels(views: NDArray[Any], mark: str, **look: Any) -> tuple[Figure, Any]:
    """Draw a nodule's (views, size, size) HU in rows of three, each named for its plane."""
    named = {f"{number}  {view_name(number)}": image for number, image in enumerate(views)}
    return image_panels(named, 3, 7.0, 0.17, mark=mark, **look)


def image_grid(
    images: Any, low: float = -1000.0, high: float = 400.0, *,
    inches: float = 1.6, words: float = 0.3, columns: Sequence[str] = (), rows: Sequence[str] = (),
    **look: Any,
) -> tuple[Figure, NDArray[Any]]:  # fmt: skip
    """Draw rows of images of one size with words above each column and beside each row.

    Args:
        inches: width of an image; `words`: height of what is written around each, in inches.
        **look: further arguments of `show_ct`, the same for all.

    Returns:
        The figure and its axes, (rows, columns); those without an image are not seen.
    """
    wide = max(map(len, images))
    tall = inches * np.divide(*np.shape(images[0][0])) + words
    size = (inches * wide + 0.3 * bool(rows), tall * len(images))
    made, axes = subplots(len(images), wide, size, squeeze=False)
    for row, found in zip(axes, images, strict=True):
        for ax, image in zip(row, found, strict=False):
            show_ct(ax, image, low, high, **look)
        for ax in row[len(found) :]:
            ax.set_axis_off()
    for ax, text in zip(axes[0], columns, strict=False):
        ax.set_title(text, **PLAIN)
    for ax, text in zip(axes[:, 0], rows, strict=False):
        ax.set_ylabel(text, fontsize=9)
    return made, axes


def mark_simulated(ax: Axes, word: str = SIMULATED) -> None:
    """Write "simulated" into the lower left corner of an image, as on all of simulated CT."""
    ax.text(0.03, 0.03, word, transform=ax.transAxes, **_ON_IMAGES)


def outlined(colour: str, width: float = 2) -> list[withStroke]:
    """Return path effects that keep a line or words legible on an image."""
    return [withStroke(linewidth=width, foreground=colour)]


def scale_bar(ax: Axes, mm: float) -> None:
    """Draw a bar of a known length into the upper left corner of an image in mm."""
    left, right, bottom, top = (*ax.get_xlim(), *ax.get_ylim())
    x, y = left + 0.05 * (right - left), top + 0.06 * (bottom - top)
    look = Look(color="white", solid_capstyle="butt", path_effects=outlined("#444444", 4.5))
    ax.plot([x, x + mm], [y, y], lw=2.5, **look)
    ax.text(x, y + 0.04 * (bottom - top), f"{mm:g} mm", va="top", **_ON_IMAGES)


# Names, titles and colours


def titles(ax: Axes, title: str, simulated: bool) -> None:
    """Write a title on the left; on the right, where it is so, that the CT was simulated."""
    ax.set_title(title)
    if simulated:
        mark_kind(ax, simulated)


def mark_kind(ax: Axes, simulated: bool) -> None:
    """Say above the axes, on the right, which kind of CT what is drawn was measured on."""
    word = "simulated CT" if simulated else "real CT"
    ax.set_title(word, loc="right", color=GREY, **PLAIN)


def method_colours(names: Iterable[str]) -> dict[str, str]:
    """Return one colour a method: known ones have their own, others are dealt out.

    >>> method_colours(["MT-CNN", "ST-CNN"]) == {"MT-CNN": MT, "ST-CNN": ST}
    True
    """
    colours: dict[str, str] = {}
    for name in names:
        known = [c for key, c in METHODS.items() if name.lower().startswith(key)]
        free = [c for c in (*known, SKY, PURPLE, BLUE, VERMILION) if c not in colours.values()]
        colours[name] = free[0] if free else GREY
    return colours


def view_name(view: str | int) -> str:
    """Return what a view is called in a figure: its plane's name, or "fused", or "size only".

    >>> view_name("3"), view_name("size_only")
    ('diagonal x plus', 'size only')
    """
    text = str(view)
    return (PLANES[int(text)].name if text.isdigit() else text).replace("_", " ")


def name_ticks(ax: Axes, ticks: Sequence[float], names: Sequence[str] | None = None) -> None:
    """Put ticks on the x axis where they are told, and nowhere else."""
    ax.set_xticks(ticks, names or [f"{t:g}" for t in ticks])
    ax.minorticks_off()


def above(ax: Axes, x: float, text: str, colour: str = BLACK) -> None:
    """Write a few words above the axes, over a place on the x axis."""
    place = Look(transform=ax.get_xaxis_transform(), ha="center", va="bottom")
    ax.text(x, 1.0, text, color=colour, fontsize=8, **place)


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Make the axis upwards one of names, from top to bottom."""
    ax.set_yticks(range(len(names)), list(names))
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")


def name_points(
    ax: Axes,
    names: Iterable[str],
    x: Iterable[float],
    y: Iterable[float],
    radii_pt: Iterable[float],
) -> None:
    """Write every point's name to the right of it, as far down as it is free."""
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]  # places in pixels are known
    points = sorted(zip(y, x, radii_pt, names, strict=True), reverse=True)
    centres = ax.transData.transform([(x, y) for y, x, *_ in points])
    pixel = ax.figure.dpi / 72  # a point
    taken = [
        Bbox([c - r * pixel, c + r * pixel])
        for c, (_, _, r, _) in zip(centres, points, strict=True)
    ]
    look = Look(fontsize=8.5, va="center", path_effects=outlined("white"), in_layout=False)
    look |= {"textcoords": "offset points", "arrowprops": Look(arrowstyle="-", color=GREY, lw=0.7)}
    for (across, up), (top, right, r, name) in zip(centres, points, strict=True):
        text = ax.annotate(name, (right, top), (r + 3, 0), **look)
        width, height = Text.get_window_extent(text).size
        at = (across + pixel * (r + 3), up - height / 2)
        here = Bbox.from_bounds(*at, width, height)
        places = {down: here.translated(0, -pixel * down) for down in range(0, 400, 2)}
        free = (d for d, box in places.items() if not any(map(box.overlaps, taken)))
        down = next(free, 0)
        taken.append(places[down])
        text.set_position((r + 3, -down))


# Values with their intervals


def whisker(
    ax: Axes, at: float, of: Interval, colour: str, marker: str = "o", label: str | None = None,
    *, upright: bool = True, lw: float = 1.4, **look: Any,
) -> None:  # fmt: skip
    """Draw a value as a point with its interval as a line, upright over `at` or across at `at`."""
    line, point = ([at, at], [of.low, of.high]), (at, of.value)
    ax.plot(*(line if upright else line[::-1]), color=colour, lw=lw)
    ax.plot(*(point if upright else point[::-1]), marker, color=colour, label=label, **look)


def series(
    ax: Axes, points: Mapping[float, Interval], colour: str, label: str | None, join: bool = True
) -> None:
    """Draw values with their intervals over their places, joined by a thin line."""
    if join and points:
        ax.plot(list(points), [of.value for of in points.values()], color=colour, lw=1, alpha=0.6)
    for i, (x, of) in enumerate(points.items()):
        whisker(ax, x, of, colour, label=None if i else label)


def level(ax: Axes, of: Interval, colour: str, label: str, ls: str = "-") -> None:
    """Draw a reference that has no place on the x axis: a line across, in a band."""
    ax.axhspan(of.low, of.high, color=colour, alpha=0.12, lw=0)
    ax.axhline(of.value, color=colour, label=label, lw=1.2, ls=ls)


def banded(
    ax: Axes, x: ArrayLike, y: ArrayLike, band: Iterable[Any] | None, colour: str, **look: Any
) -> None:
    """Draw a line, and the band (x, low, high) around it, if there is one."""
    ax.plot(x, y, color=colour, **look)
    if band is not None:
        x, low, high = band
        ax.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)


def named_bars(
    ax: Axes, values: Mapping[str, float] | pd.Series, colours: str | Sequence[str],
    texts: Sequence[str] = (), **look: Any,
) -> None:  # fmt: skip
    """Draw a bar a name, from top to bottom, with words behind each."""
    bars = ax.barh(range(len(values)), list(dict(values).values()), color=colours, **look)
    name_rows(ax, [str(name) for name in dict(values)])
    if texts:
        ax.bar_label(bars, texts, padding=3, fontsize=9)


def interval_rows(
    ax: Axes, found: Mapping[str, Mapping[str, Interval]], colours: Mapping[str, str],
    width: float = 0.5,
) -> None:  # fmt: skip
    """Draw a row a name, with every method's value and interval in it.

    Args:
        found: method -> name of a row -> value; a hollow marker has no interval.
        width: how much of a row the methods take.
    """
    names = list(dict.fromkeys(name for of in found.values() for name in of))
    for method, of in found.items():
        usual = "D" if colours[method] == SIZE_ONLY else "o"
        ax.plot([], [], usual, color=colours[method], label=method)
        for name, value in of.items():
            here = [m for m in found if name in found[m]]
            shift = (here.index(method) - (len(here) - 1) / 2) / max(1, len(here) - 1)
            at, marker = names.index(name) + width * shift, "s" if name == "fused" else usual
            face = colours[method] if np.isfinite(value.low) else "none"
            whisker(ax, at, value, colours[method], marker, upright=False, mfc=face)
    name_rows(ax, names)


# Nodules by class


def class_of(score: float) -> str:
    """Return the class that a median malignancy falls into."""
    if score == UNCERTAIN_SCORE:
        return "uncertain"
    return "malignant" if score > UNCERTAIN_SCORE else "benign"


def score_bars(ax: Axes, counts: Mapping[float, int] | pd.Series, totals: bool = False) -> None:
    """Draw how many nodules have which malignancy score (Fig. 1), in the classes' colours."""
    for name, colour in CLASS_COLUMNS.items():
        of = {score: n for score, n in dict[Any, Any](counts).items() if class_of(score) == name}
        label = f"{name}: {sum(of.values())}" if totals else name
        bars = ax.bar(list(of), list(of.values()), 0.4, color=colour, label=label)
        ax.bar_label(bars, padding=2, fontsize=8)
    ax.set(ylabel="nodules", xticks=np.arange(1, 5.5, 0.5))
    ax.grid(visible=False, axis="x")
    ax.legend(loc="upper right")


def class_bars(ax: Axes, counts: pd.DataFrame, percent: bool = False) -> None:
    """Draw a bar a row of three stacked counts, named within, or of their shares."""
    wide = counts.mul(100 / counts.sum(axis=1), axis=0) if percent else counts
    total = wide.sum(axis=1)
    wide.plot.barh(
        ax=ax, stacked=True, width=0.8, color=dict[Any, Any](CLASS_COLUMNS), legend=False
    )
    parts: Any = ax.containers
    for bars, name in zip(parts, counts, strict=True):
        texts = counts[name].astype(str).where(wide[name] > 0.03 * total.max(), "")
        ax.bar_label(bars, texts, label_type="center", color="white", fontsize=8)
    if not percent:
        ax.bar_label(parts[-1], [f"{n:.0f}" for n in total], padding=3, fontsize=8)
    name_rows(ax, [str(name) for name in counts.index])
    ax.set(xlim=(0, 100 if percent else 1.1 * total.max()))
