"""The scanner: pixels, slices that average over their thickness, a kernel's blur, and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from labkit.data.simulate.noise import Float, gaussian, generator, key
from labkit.data.simulate.scan import PIXELS, Scan
from labkit.data.simulate.scene import Scene
from labkit.imaging.volume import Volume

_PAD_PX = 5  # what the blur reaches
_NOISE_PAD_PX = 2 * _PAD_PX  # what the noise's two filters reach
_LOWEST_HU, _HIGHEST_HU = -1024, 3071


@dataclass(frozen=True)
class Scanner:
    """How one scan was made.

    Args:
        blur_mm: standard deviation of the kernel's blur within a slice.
        noise_hu: standard deviation of the noise.
        noise_grain_px: how coarse the noise is: blur of its white source, in pixels.
        streaks: how much stronger and longer, from side to side, the noise is at the shoulders.
        edge_gain: how much the kernel sharpens, 0 for none.
        salt: key of the noise.
    """

    blur_mm: float
    noise_hu: float
    noise_grain_px: float
    streaks: float
    edge_gain: float
    salt: int

    @classmethod
    def of(cls, scan: Scan, seed: int) -> Scanner:
        """Draw a scan's kernel and dose."""
        rng = generator(seed, scan.patient_id, scan.series_uid, "scanner")
        sharp = float(rng.beta(1.6, 3.2))
        dose = float(np.exp(rng.normal(0.0, 0.25)))
        # Thinner slices and sharper kernels are noisier (Brooks and Di Chiro, 1976).
        thin = float(np.clip((2.0 / scan.slice_thickness_mm) ** 0.5, 0.8, 1.6))
        return cls(
            blur_mm=0.62 - 0.24 * sharp,
            noise_hu=float(np.clip(17.0 * dose * thin * (1.0 + 1.3 * sharp), 9.0, 70.0)),
            noise_grain_px=0.85 - 0.32 * sharp,
            streaks=float(max(rng.normal(0.5, 0.6), 0.0)),
            edge_gain=0.9 * sharp,
            salt=key(seed, scan.patient_id, scan.series_uid, "noise"),
        )


def scan_box(
    scene: Scene,
    cols: tuple[int, int],
    rows: tuple[int, int],
    slices: tuple[int, int],
    noisy: bool = True,
) -> Volume:
    """A part of the scan that would be made of a scene.

    Args:
        scene: what is scanned.
        cols: first pixel column, and the one after the last; rows and slices likewise. They may
            reach beyond the 512 x 512 pixels and the real slices.
        noisy: whether with the scanner's noise.

    Returns:
        Volume of int16 HU in the simulated world; the same voxels for whichever part is asked.
    """
    scan = scene.scan
    scanner = Scanner.of(scan, scene.seed)
    x, y = (scan.x_mm(first - _PAD_PX, stop + _PAD_PX) for first, stop in (cols, rows))
    z = scan.z_mm(*slices)
    hu = scene.slabs(x, y, z, scan.slice_thickness_mm)
    hu = _blurred(hu, scanner, scan.pixel_spacing_mm)[:, _PAD_PX:-_PAD_PX, _PAD_PX:-_PAD_PX]
    if noisy:
        shoulders = np.clip((z - scan.last_z_mm + 120.0) / 90.0, 0.0, 1.0)
        hu += _noise(scanner, cols, rows, slices, shoulders.astype(np.float32))
    voxels = np.clip(np.rint(hu), _LOWEST_HU, _HIGHEST_HU).astype(np.int16)
    spacing = scan.pixel_spacing_mm
    origin = (float(scan.x_mm(*cols)[0]), float(scan.x_mm(*rows)[0]), float(z[0]))
    return Volume(
        voxels, (spacing, spacing, scan.slice_spacing_mm), origin, series_uid=scan.series_uid
    )


def _blurred(hu: Float, scanner: Scanner, pixel_mm: float) -> Float:
    """In-plane blur of the kernel; sharp kernels overshoot at edges."""
    sigma = scanner.blur_mm / pixel_mm
    wide = _gaussian_weights(1.7 * sigma)
    weights = _gaussian_weights(sigma, len(wide) // 2)
    if scanner.edge_gain > 0:
        # Difference of two Gaussians: 1 + gain of the narrow, minus gain of the wide one.
        weights = weights * (1 + 0.25 * scanner.edge_gain) - 0.25 * scanner.edge_gain * wide
    return _filtered(hu, weights)


def _noise(
    scanner: Scanner,
    cols: tuple[int, int],
    rows: tuple[int, int],
    slices: tuple[int, int],
    shoulders: Float,
) -> Float:
    """Correlated noise that belongs to absolute voxels; `shoulders` (slices,) from 0 to 1."""
    pad = _NOISE_PAD_PX
    white = gaussian(
        np.arange(cols[0] - pad, cols[1] + pad)[None, None, :],
        np.arange(rows[0] - pad, rows[1] + pad)[None, :, None],
        np.arange(*slices)[:, None, None],
        scanner.salt,
    )
    weights = _gaussian_weights(scanner.noise_grain_px)
    noise = _filtered(white, weights)
    noise *= np.float32(scanner.noise_hu / float((weights**2).sum()))
    streaks = np.float32(scanner.streaks) * shoulders
    if streaks.any():
        # Photons are fewest from side to side through the shoulders.
        long = _gaussian_weights(2.5)
        both = np.convolve(weights, long)
        gain = np.float32(np.sqrt((weights**2).sum() / (both**2).sum()))
        some = np.flatnonzero(streaks)
        along = ndimage.correlate1d(noise[some], long, axis=2, mode="nearest")
        noise[some] += (gain * streaks[some])[:, None, None] * along
    return noise[:, pad:-pad, pad:-pad]


def _filtered(values: Float, weights: NDArray[np.float64]) -> Float:
    out = ndimage.correlate1d(values, weights, axis=2, mode="nearest")
    return ndimage.correlate1d(out, weights, axis=1, mode="nearest")


def _gaussian_weights(sigma: float, reach: int | None = None) -> NDArray[np.float64]:
    """Gaussian of a standard deviation in pixels, cut where the crop's margin ends, of sum 1."""
    reach = min(_PAD_PX, int(np.ceil(3.0 * sigma))) if reach is None else reach
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return weights / weights.sum()


__all__ = ["PIXELS", "Scanner", "scan_box"]
