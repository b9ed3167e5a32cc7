"""Figures of the losses in Eq. 1 to 3: the lost minus sign, and the floor of the reconstruction."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlog1py, xlogy

from labkit.data.cohort import VIEW_SIZE, Cohort
from labkit.imaging.views import window
from labkit.models.mtcnn import IMAGE_SIZE
from labkit.plots import style

_MIDDLE = slice((VIEW_SIZE - IMAGE_SIZE) // 2, (VIEW_SIZE + IMAGE_SIZE) // 2)


def pixel_entropy(values: ArrayLike) -> NDArray[np.float64]:
    """Binary entropy of grey values in [0, 1], in nats: what their cross-entropy cannot go below.

    >>> pixel_entropy([0.0, 0.5, 1.0]).round(3).tolist()
    [0.0, 0.693, 0.0]
    """
    z = np.asarray(values, dtype=float)
    return np.abs(xlogy(z, z) + xlog1py(1 - z, -z))


def minus_sign_figure() -> Figure:
    """Eq. 2 of a malignant nodule as printed and with its minus, and where descending leads."""
    p = np.linspace(0.01, 0.99, 197)
    with style.house_style():
        figure = Figure(figsize=(8.4, 3.3), layout="constrained")
        for ax, sign, title in zip(
            figure.subplots(1, 2), (1, -1), ("Eq. 2 as printed", "with the minus"), strict=True
        ):
            ax.plot(p, sign * np.log(p), color=style.MALIGNANT)
            ax.set(xlabel="predicted probability of malignant", xlim=(0, 1), title=title)
            _downhill(ax, 0.55, 0.25 if sign == 1 else 0.85, sign)
            ax.set_ylabel("loss of a malignant nodule")
    return style.describe(
        figure,
        "The loss of a malignant nodule against its predicted probability. As printed it is lowest "
        "where the network is surely wrong; with the minus where it is surely right.",
    )


def floor_figure(cohort: Cohort, row: int, view: int = 0) -> Figure:
    """Where the reconstruction loss has its floor: an image, and each of its pixels' entropy.

    Args:
        cohort: where the views are.
        row: of the nodule.
        view: of the nodule.
    """
    image = window(cohort.views[row, view][_MIDDLE, _MIDDLE])
    entropy = pixel_entropy(image)
    with style.house_style():
        figure = Figure(figsize=(8.8, 3.1), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        style.show_ct(left, image, low=0.0, high=1.0)
        left.set_title("image, 0 to 1")
        style.show_ct(middle, entropy, low=0.0, high=float(np.log(2)), cmap="viridis")
        middle.set_title(f"entropy of each pixel, mean {entropy.mean():.3f}")
        figure.colorbar(middle.images[0], ax=middle, label="nats", shrink=0.8)
        grey = np.linspace(0, 1, 201)
        right.plot(grey, pixel_entropy(grey), color=style.BLUE)
        right.set(xlabel="grey value of a pixel", ylabel="lowest possible loss, nats")
        right.set_title("0 for black and white only")
        if cohort.simulated:
            style.mark_simulated(left)
            style.mark_simulated(middle)
    return style.describe(
        figure,
        "An image of a nodule; a map of its pixels' entropy, high where the image is mid-grey and "
        f"on average {entropy.mean():.3f} nats; and the entropy against grey value, an arch from 0 "
        "over 0.693 at one half back to 0.",
    )


def _downhill(ax: Axes, start: float, end: float, sign: int) -> None:
    """A ball on the curve and an arrow to where the optimiser moves it."""
    at, to = (start, sign * np.log(start)), (end, sign * np.log(end))
    ax.plot(*at, "o", color=style.BLACK, ms=7)
    ax.annotate("", to, at, arrowprops={"arrowstyle": "-|>", "lw": 1.6, "color": style.BLACK})
    words = "learns to be surely wrong" if sign == 1 else "learns to be surely right"
    ax.text(0.96, 0.08 if sign == 1 else 0.85, words, transform=ax.transAxes, ha="right")
