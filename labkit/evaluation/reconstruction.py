"""How much of an image a reconstruction keeps: PSNR, SSIM, where it errs, and which detail is lost.

Images are (n, 64, 64) in [0, 1], the paper's window of 1,400 HU, with pixels of 1 mm. Every measure
is one value a nodule, so that intervals can be taken over patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh
from scipy.ndimage import gaussian_filter

from labkit.errors import InputError
from labkit.evaluation.statistics import Interval, percentile, resample_weights

HU_RANGE = 1400.0
"""Of the window (-1000, 400): an error of 0.01 is 14 HU."""
ZONES = ("inside", "rim", "rest")
RIM_MM = 3.0
PROFILE_MM = tuple(range(-8, 17))
"""Edges of the profile's rings: signed distance from the outline, mm, negative inside."""
Floats = NDArray[np.float64]


def psnr(images: ArrayLike, redrawn: ArrayLike) -> Floats:
    """(n,) peak signal-to-noise ratio, dB: ten times the logarithm of 1 / mean squared error.

    20 dB is a root mean squared error of a tenth of the window, 140 HU; identity has infinity.

    >>> psnr(np.zeros((1, 64, 64)), np.full((1, 64, 64), 0.1)).round(6).tolist()
    [20.0]
    """
    x, y = _pair(images, redrawn)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(np.square(x - y).mean(axis=(1, 2)))


def ssim(images: ArrayLike, redrawn: ArrayLike) -> Floats:
    """(n,) structural similarity, 1 for identity.

    With the Gaussian window of 1.5 pixels of Wang et al., IEEE TIP 13(4):600, 2004.
    """
    from skimage.metrics import structural_similarity

    x, y = _pair(images, redrawn)
    of_each = (
        structural_similarity(
            one, other, data_range=1.0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )
        for one, other in zip(x, y, strict=True)
    )  # fmt: skip
    return np.fromiter(of_each, dtype=np.float64, count=len(x))


def outline_distance(diameter_mm: ArrayLike, size: int = 64) -> Floats:
    """(n, size, size) distance of every pixel from a nodule's outline, mm, negative inside.

    The outline is taken as a circle about the image's centre, which is the nodule's, since cohorts
    keep diameters and no masks. The diameter is the largest in a slice, so that the circle holds
    all of a round nodule and more than all of a long one.

    Raises:
        InputError: a diameter that is missing or not positive.
    """
    diameter = np.asarray(diameter_mm, dtype=np.float64)
    if diameter.ndim != 1 or not (np.isfinite(diameter).all() and (diameter > 0).all()):
        raise InputError("every nodule needs a diameter in mm to know where its outline is")
    axis = np.arange(size) - (size - 1) / 2
    return np.hypot(axis[:, None], axis)[None] - diameter[:, None, None] / 2


def zones(distance_mm: ArrayLike, rim_mm: float = RIM_MM) -> NDArray[np.int64]:
    """Which of `ZONES` each pixel is in: the rim is `rim_mm` wide, half of it inside the outline.

    >>> zones([-9.0, -1.5, 0.0, 1.4, 1.5, 9.0]).tolist()
    [0, 1, 1, 1, 2, 2]
    """
    return np.digitize(np.asarray(distance_mm), [-rim_mm / 2, rim_mm / 2])


def by_zone(errors: ArrayLike, zone: NDArray[np.int64], count: int) -> Floats:
    """(n, count) mean of (n, 64, 64) errors in each nodule's zones; NaN where it has no pixel.

    Args:
        errors: such as absolute differences.
        zone: (n, 64, 64) number of each pixel's zone; numbers outside 0 to count - 1 are left out.
        count: how many zones there are.
    """
    values = np.asarray(errors, dtype=np.float64)
    means = np.full((len(values), count), np.nan)
    for k in range(count):
        there = zone == k
        pixels = there.sum(axis=(1, 2))
        total = np.where(there, values, 0.0).sum(axis=(1, 2))
        np.divide(total, pixels, out=means[:, k], where=pixels > 0)
    return means


@dataclass(frozen=True)
class Spectra:
    """Power by spatial frequency, one row an image; add them over views as they are.

    Args:
        original: (n, 31) power of the images.
        drawn: (n, 31) power of the reconstructions.
        wrong: (n, 31) power of the difference.
    """

    original: Floats
    drawn: Floats
    wrong: Floats

    def __add__(self, other: Spectra) -> Spectra:
        return Spectra(
            self.original + other.original, self.drawn + other.drawn, self.wrong + other.wrong
        )


def frequencies_per_mm(size: int = 64) -> Floats:
    """(size / 2 - 1,) frequencies of `Spectra`: 1, 2, ... waves across the image."""
    return np.arange(1, size // 2) / size


def spectra(images: ArrayLike, redrawn: ArrayLike) -> Spectra:
    """Power of images, reconstructions and their differences in rings of spatial frequency.

    Each image's own mean is taken off, and a Hann window fades it out towards its edges, where
    the Fourier transform would otherwise see a jump to the opposite edge.
    """
    x, y = _pair(images, redrawn)
    size = x.shape[1]
    fade = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(size) + 0.5) / size)
    fx, fy = (
        np.fft.fft2((part - part.mean(axis=(1, 2), keepdims=True)) * np.outer(fade, fade))
        for part in (x, y)
    )
    waves = np.fft.fftfreq(size, 1 / size)
    ring = np.rint(np.hypot(waves[:, None], waves)).astype(int)
    inside = (ring >= 1) & (ring < size // 2)
    member = ring[inside][:, None] == np.arange(1, size // 2)
    return Spectra(*(np.abs(f[:, inside]) ** 2 @ member for f in (fx, fy, fx - fy)))


def mean_over(values: ArrayLike, weights: NDArray) -> Floats:
    """(resamples, ...) weighted means over nodules of (n, ...) values; NaN counts for nothing."""
    v = np.asarray(values, dtype=np.float64)
    known = np.isfinite(v)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights @ np.where(known, v, 0.0)) / (weights @ known.astype(np.float64))


def over_patients(patients: ArrayLike, resamples: int, seed: int = 0) -> Floats:
    """(1 + resamples, n) weights of nodules: first as they are, then bootstrapped over patients."""
    n = len(np.asarray(patients))
    return np.vstack([np.ones(n), resample_weights(n, patients, resamples, seed)])


def share_right(spectrum: Spectra, weights: NDArray) -> Floats:
    """(resamples, 31) share of the originals' power that comes back right, by frequency.

    1 less the power of the error over that of the original: 1 is perfect, 0 is no better than
    leaving the frequency out, and below 0 the reconstruction invents more than it finds.
    """
    return 1 - (weights @ spectrum.wrong) / (weights @ spectrum.original)


def share_drawn(spectrum: Spectra, weights: NDArray) -> Floats:
    """(resamples, 31) power of the reconstructions over that of the originals, right or wrong."""
    return (weights @ spectrum.drawn) / (weights @ spectrum.original)


def finest_mm(shares: NDArray, level: float = 0.5) -> Floats:
    """(...) wavelength, mm, down to which at least `level` of the power comes back right.

    Between two frequencies the share is taken as a straight line. NaN where even the coarsest
    has less; the finest wavelength there is where all have more.

    >>> down = np.linspace(1, 0, 31)
    >>> round(float(finest_mm(down)), 3)
    4.0
    """
    f = frequencies_per_mm()
    flat = np.atleast_2d(np.asarray(shares, dtype=np.float64))
    below = flat < level
    found = np.full(len(flat), 1 / f[-1])
    for i in np.flatnonzero(below.any(axis=1)):
        k = int(below[i].argmax())
        if k == 0:
            found[i] = np.nan
            continue
        high, low = flat[i, k - 1], flat[i, k]
        found[i] = 1 / (f[k - 1] + (f[k] - f[k - 1]) * (high - level) / (high - low))
    return found.reshape(np.shape(shares)[:-1])


def interval(samples: NDArray, level: float = 0.95) -> Interval:
    """Of (1 + resamples,): the value first, then its bootstrap samples."""
    return percentile(float(samples[0]), samples[1:], level)


def _pair(images: ArrayLike, redrawn: ArrayLike) -> tuple[Floats, Floats]:
    x, y = (np.asarray(part, dtype=np.float64) for part in (images, redrawn))
    if x.shape != y.shape or x.ndim != 3 or x.shape[1] != x.shape[2]:
        raise InputError(
            f"images and reconstructions must both be (n, size, size), not {x.shape} and {y.shape}"
        )
    return x, y


# Ways to redraw an image that know nothing of nodules: what a reconstruction is held against.
#
# A PSNR of 22 dB says little by itself. It says more beside the mean of the training images, which
# has never seen the image at all, and beside a blur and a principal component analysis that are
# made
# exactly as good, so that what they lose can be compared.


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
