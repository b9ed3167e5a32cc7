"""How much of an image a reconstruction keeps: PSNR, SSIM, where it errs, and which detail is lost.

Images are (n, 64, 64) in [0, 1], the paper's window of 1,400 HU, with pixels of 1 mm. Every measure
is one value a nodule, so that intervals can be taken over patients.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh
from scipy.ndimage import gaussian_filter

from labkit.errors import InputError
from labkit.evaluation.statistics import Floats, resample_weights

HU_RANGE = 1400.0
"""Of the window (-1000, 400): an error of 0.01 is 14 HU."""
ZONES = ("inside", "rim", "rest")
RIM_MM = 3.0
PROFILE_MM = tuple(range(-8, 17))
"""Edges of the profile's rings: signed distance from the outline, mm, negative inside."""


def psnr(images: ArrayLike, redrawn: ArrayLike) -> Floats:
    """Compute (n,) peak signal-to-noise ratios, dB: ten times the logarithm of 1 / squared error.

    20 dB is an error of a tenth of the window, 140 HU; identity has infinity.
    """
    x, y = _pair(images, redrawn)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(np.square(x - y).mean(axis=(1, 2)))


def ssim(images: ArrayLike, redrawn: ArrayLike) -> Floats:
    """Compute (n,) structural similarities, 1 for identity (Wang et al., IEEE TIP 13:600, 2004)."""
    from skimage.metrics import structural_similarity

    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    pairs = zip(*_pair(images, redrawn), strict=True)
    return np.array([structural_similarity(x, y, data_range=1.0, **how) for x, y in pairs])


def outline_distance(diameter_mm: ArrayLike, size: int = 64) -> Floats:
    """Compute (n, size, size) distances of pixels from nodules' outlines, mm, negative inside.

    The outline is taken as a circle about the image's centre, of the largest diameter in a slice:
    it holds all of a round nodule and more than all of a long one.
    """
    diameter = np.asarray(diameter_mm, dtype=np.float64)
    if diameter.ndim != 1 or not (np.isfinite(diameter) & (diameter > 0)).all():
        raise InputError("every nodule needs a diameter in mm to know where its outline is")
    axis = np.arange(size) - (size - 1) / 2
    return np.hypot(axis[:, None], axis)[None] - diameter[:, None, None] / 2


def zones(distance_mm: ArrayLike) -> NDArray[np.int64]:
    """Number each pixel's zone of `ZONES`; half of the rim's `RIM_MM` is inside the outline.

    >>> zones([-9.0, -1.5, 0.0, 1.4, 1.5, 9.0]).tolist()
    [0, 1, 1, 1, 2, 2]
    """
    return np.digitize(np.asarray(distance_mm), [-RIM_MM / 2, RIM_MM / 2])


def by_zone(errors: ArrayLike, zone: NDArray[np.int64], count: int) -> Floats:
    """Compute (n, count) means of (n, 64, 64) errors in zones below `count`; NaN without pixels."""
    values = np.asarray(errors, dtype=np.float64)
    there = [zone == k for k in range(count)]
    sums = [np.where(inside, values, 0.0).sum(axis=(1, 2)) for inside in there]
    with np.errstate(invalid="ignore"):
        return np.stack(sums, 1) / np.stack([inside.sum(axis=(1, 2)) for inside in there], 1)


def frequencies_per_mm(size: int = 64) -> Floats:
    """Return the (size / 2 - 1,) frequencies of `spectra`: 1, 2, ... waves across the image."""
    return np.arange(1, size // 2) / size


def spectra(images: ArrayLike, redrawn: ArrayLike) -> Floats:
    """Compute (3, n, 31) power of images, reconstructions and differences by spatial frequency.

    Each image's own mean is taken off, and a Hann window fades it out towards its edges, where
    the Fourier transform would otherwise see a jump to the opposite edge. Views are added up.
    """
    x, y = _pair(images, redrawn)
    size = x.shape[1]
    fade = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(size) + 0.5) / size)
    fx, fy = (np.fft.fft2((part - part.mean(axis=(1, 2), keepdims=True)) * np.outer(fade, fade))
              for part in (x, y))  # fmt: skip
    waves = np.fft.fftfreq(size, 1 / size)
    ring = np.rint(np.hypot(waves[:, None], waves)).astype(int)
    inside = (ring >= 1) & (ring < size // 2)
    member = ring[inside][:, None] == np.arange(1, size // 2)
    return np.stack([np.abs(f[:, inside]) ** 2 @ member for f in (fx, fy, fx - fy)])


def share_right(spectrum: Floats, weights: NDArray) -> Floats:
    """Compute the (resamples, 31) share of the originals' power that comes back right.

    1 less the power of the error over that of the original: 1 is perfect, 0 is no better than
    leaving the frequency out, and below 0 the reconstruction invents more than it finds.
    """
    return 1 - (weights @ spectrum[2]) / (weights @ spectrum[0])


def share_drawn(spectrum: Floats, weights: NDArray) -> Floats:
    """Compute the (resamples, 31) power of reconstructions over the originals', right or wrong."""
    return (weights @ spectrum[1]) / (weights @ spectrum[0])


def finest_mm(shares: NDArray) -> Floats:
    """Find the (...) wavelength, mm, down to which at least half of the power comes back right.

    Between two frequencies the share is taken as a straight line. NaN where even the coarsest
    has less; the finest wavelength there is where all have more.
    """
    f, right = frequencies_per_mm(), np.asarray(shares, dtype=np.float64)
    first = (right < 0.5).argmax(axis=-1)[..., None]  # the first frequency that has less
    before = np.maximum(first - 1, 0)
    high, low = (np.take_along_axis(right, k, -1) for k in (before, first))
    with np.errstate(invalid="ignore", divide="ignore"):
        at = f[before] + (f[first] - f[before]) * (high - 0.5) / (high - low)
    at = np.where(low >= 0.5, f[-1], np.where(first == 0, np.nan, at))
    return 1 / at[..., 0]


def over_patients(patients: ArrayLike, resamples: int) -> Floats:
    """Draw (1 + resamples, n) weights of nodules: as they are, then bootstrapped over patients."""
    n = len(np.asarray(patients))
    return np.vstack([np.ones(n), resample_weights(n, patients, resamples, seed=0)])


def mean_over(values: ArrayLike, weights: NDArray) -> Floats:
    """Compute (resamples, ...) weighted means over nodules of (n, ...) values, without NaN."""
    v = np.asarray(values, dtype=np.float64)
    known = np.isfinite(v)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights @ np.where(known, v, 0.0)) / (weights @ known.astype(np.float64))


def _pair(images: ArrayLike, redrawn: ArrayLike) -> tuple[Floats, Floats]:
    x, y = (np.asarray(part, dtype=np.float64) for part in (images, redrawn))
    if x.shape != y.shape or x.ndim != 3 or x.shape[1] != x.shape[2]:
        raise InputError(f"images and reconstructions must both be (n, size, size), not {x.shape} "
                         f"and {y.shape}")  # fmt: skip
    return x, y


# Ways to redraw an image that know nothing of nodules, to set a network's PSNR beside: the mean of
# the training images, and a blur and principal components that are made exactly as good.


class Redrawn(NamedTuple):
    """Images (n, size, size), the setting that it took, and whether the PSNR was reached."""

    images: Floats
    setting: float
    reached: bool


def training_mean(train: NDArray, images: NDArray) -> Floats:
    """Return (n, size, size): the mean of the training images, for every image the same."""
    return np.broadcast_to(train.mean(axis=0, dtype=np.float64), np.shape(images)).copy()


def blurred(images: NDArray, wanted_db: float) -> Redrawn:
    """Blur images by the Gaussian, sigma in pixels, at which their mean PSNR is `wanted_db`."""
    x = np.asarray(images, dtype=np.float64)

    def through(sigma: float) -> Floats:
        return gaussian_filter(x, (0, sigma, sigma), mode="nearest")

    def too_good(sigma: float) -> bool:
        return bool(psnr(x, through(sigma)).mean() > wanted_db)

    low, high = 0.2, 32.0
    reached = too_good(low) and not too_good(high)
    for _ in range(24):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if too_good(middle) else (low, middle)
    return Redrawn(through(low), low, reached)


def from_components(train: NDArray, images: NDArray, wanted_db: float) -> Redrawn:
    """Redraw images from the fewest principal components of training images with this mean PSNR.

    Where all components, one fewer than training images, are too few, all of them are taken.
    """
    t, x = (np.asarray(a, dtype=np.float64).reshape(len(a), -1) for a in (train, images))
    if len(t) < 2:
        raise InputError("principal components need at least two training images")
    mean = t.mean(axis=0)
    # The images' inner products, since there are fewer images than pixels.
    centred = t - mean
    values, vectors = eigh(centred @ centred.T)
    keep = np.flatnonzero(values > values[-1] * 1e-9)[::-1]
    components = (vectors[:, keep] / np.sqrt(values[keep])).T @ centred
    coefficients = (x - mean) @ components.T
    left = np.square(x - mean).sum(axis=1)[:, None] - np.cumsum(np.square(coefficients), axis=1)
    mean_db = -10 * np.log10(np.maximum(left, 1e-12) / x.shape[1]).mean(axis=0)
    enough = np.flatnonzero(mean_db >= wanted_db)
    count = int(enough[0]) + 1 if len(enough) else len(keep)
    drawn = mean + coefficients[:, :count] @ components[:count]
    return Redrawn(drawn.reshape(np.shape(images)), count, bool(len(enough)))
