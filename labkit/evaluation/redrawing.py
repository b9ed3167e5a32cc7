"""Ways to redraw an image that know nothing of nodules: what a reconstruction is held against.

A PSNR of 22 dB says little by itself. It says more beside the mean of the training images, which
has never seen the image at all, and beside a blur and a principal component analysis that are made
exactly as good, so that what they lose can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.ndimage import gaussian_filter

from labkit.errors import InputError
from labkit.evaluation.fidelity import psnr

_WIDEST_PX = 32.0
_SMALLEST_PX = 0.2
_STEPS = 24


@dataclass(frozen=True)
class Redrawn:
    """What a plain way made of images.

    Args:
        images: (n, size, size).
        setting: that it took: the blur's sigma in pixels, or how many components.
        reached: whether the wanted PSNR was reached.
    """

    images: NDArray[np.float64]
    setting: float
    reached: bool


def training_mean(train: NDArray, images: NDArray) -> NDArray[np.float64]:
    """(n, size, size): the mean of the training images, for every image the same."""
    mean = np.asarray(train, dtype=np.float64).mean(axis=0)
    return np.broadcast_to(mean, np.shape(images)).copy()


def blurred(images: NDArray, wanted_db: float) -> Redrawn:
    """Images through the Gaussian blur at which their mean PSNR is `wanted_db`.

    The edge's pixels are continued beyond the edge.
    """
    x = np.asarray(images, dtype=np.float64)

    def through(sigma: float) -> NDArray[np.float64]:
        return gaussian_filter(x, (0, sigma, sigma), mode="nearest")

    low, high = _SMALLEST_PX, _WIDEST_PX
    reached = _mean_db(x, through(high)) <= wanted_db <= _mean_db(x, through(low))
    for _ in range(_STEPS):
        middle = (low * high) ** 0.5
        if _mean_db(x, through(middle)) > wanted_db:
            low = middle
        else:
            high = middle
    return Redrawn(through(low), low, reached)


def from_components(train: NDArray, images: NDArray, wanted_db: float) -> Redrawn:
    """Images from the fewest principal components of the training images with this mean PSNR.

    Where all components are too few, all of them are taken and `reached` is False. There are one
    fewer than training images.

    Raises:
        InputError: fewer than two training images.
    """
    t, x = (np.asarray(a, dtype=np.float64).reshape(len(a), -1) for a in (train, images))
    if len(t) < 2:
        raise InputError("principal components need at least two training images")
    mean = t.mean(axis=0)
    centred = t - mean
    # The images' inner products, since there are fewer images than pixels.
    values, vectors = eigh(centred @ centred.T)
    keep = np.flatnonzero(values > values[-1] * 1e-9)[::-1]
    components = (vectors[:, keep] / np.sqrt(values[keep])).T @ centred
    rest = x - mean
    coefficients = rest @ components.T
    left = np.square(rest).sum(axis=1)[:, None] - np.cumsum(np.square(coefficients), axis=1)
    mean_db = -10 * np.log10(np.maximum(left, 1e-12) / x.shape[1]).mean(axis=0)
    enough = np.flatnonzero(mean_db >= wanted_db)
    count = int(enough[0]) + 1 if len(enough) else len(keep)
    drawn = mean + coefficients[:, :count] @ components[:count]
    return Redrawn(drawn.reshape(np.shape(images)), count, bool(len(enough)))


def _mean_db(images: NDArray, redrawn: NDArray) -> float:
    return float(psnr(images, redrawn).mean())
