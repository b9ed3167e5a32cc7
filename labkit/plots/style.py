"""The house style of the course's figures: colours, CT images, alternative text.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers; a class or a method
has the same colour in every figure. In a lesson: `style.use()` once, then `style.show(figure)`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
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
