"""The scanner: pixels, slices that average over their thickness, a kernel's blur, and noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy import ndimage
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from labkit.errors import require_jobs_and_seed
from labkit.imaging.volume import Volume
from labkit.io import available_cores
from labkit.simulate.chest import noise_gain, surface_distance
from labkit.simulate.noise import Float, gaussian, generator, key
from labkit.simulate.scan import PIXELS, Scan
from labkit.simulate.scene import Scene, scene_for_series

_PAD_PX = 5  # what the blur reaches
_NOISE_PAD_PX = 2 * _PAD_PX  # what the noise's two filters reach
_LOWEST_HU, _HIGHEST_HU = -1024, 3071


@dataclass(frozen=True)
class Scanner:
    """How one scan was made."""

    blur_mm: float  # standard deviation of the kernel's blur within a slice
    noise_hu: float  # standard deviation of the noise in lung; in the body it is a third higher
    noise_grain_px: float  # how coarse the noise is: blur of its white source, in pixels
    noise_hollow: float  # share of its coarse part that the reconstruction's ramp filter takes away
    streaks: float  # how much stronger and longer, from side to side, the noise is at the shoulders
    edge_gain: float  # how much the kernel sharpens, 0 for none
    round_view: bool  # whether only the circle within the pixels' square was reconstructed
    salt: int  # key of the noise

    @classmethod
    def of(cls, scan: Scan, seed: int) -> Scanner:
        """Draw a scan's kernel and dose."""
        rng = generator(seed, scan.patient_id, scan.series_uid, "scanner")
        # Two in three scans have a soft kernel, the others one for lungs or bones.
        soft = rng.random() < 0.70
        sharp = float(rng.beta(1.6, 4.0) if soft else rng.uniform(0.5, 1.0))
        dose = float(np.exp(rng.normal(0.0, 0.30)))
        # Thinner slices and sharper kernels are noisier (Brooks and Di Chiro, 1976).
        thin = float(np.clip((2.0 / scan.slice_thickness_mm) ** 0.8, 0.7, 1.9))
        return cls(
            blur_mm=0.62 - 0.24 * sharp,
            noise_hu=float(np.clip(10.0 * dose * thin * np.exp(1.9 * sharp), 6.0, 130.0)),
            noise_grain_px=0.97 - 0.52 * sharp,
            noise_hollow=float(rng.uniform(0.6, 0.95)),
            streaks=float(max(rng.normal(0.8, 0.7), 0.0)),
            edge_gain=0.9 * sharp,
            round_view=bool(rng.random() < 0.5),
            salt=key(seed, scan.patient_id, scan.series_uid, "noise"),
        )


def scan_box(
    scene: Scene, cols: tuple[int, int], rows: tuple[int, int], slices: tuple[int, int], noisy: bool
    = True, scanner: Scanner | None = None,
) -> Volume:  # fmt: skip
    """Simulate a part of the scan that would be made of a scene.

    Args:
        scene: what is scanned.
        cols: first pixel column, and the one after the last; rows and slices likewise. They may
            reach beyond the 512 x 512 pixels and the real slices.
        noisy: whether with the scanner's noise.
        scanner: another than the scan's own, to see the same chest with it.

    Returns:
        Volume of int16 HU in the simulated world; the same voxels for whichever part is asked.
    """
    scan = scene.scan
    scanner = scanner or Scanner.of(scan, scene.seed)
    x, y = (scan.x_mm(first - _PAD_PX, stop + _PAD_PX) for first, stop in (cols, rows))
    z = scan.z_mm(*slices)
    hu = scene.slabs(x, y, z, scan.slice_thickness_mm)
    hu = _blurred(hu, scanner, scan.pixel_spacing_mm)[:, _PAD_PX:-_PAD_PX, _PAD_PX:-_PAD_PX]
    if noisy:
        shoulders = np.clip((z - scan.last_z_mm + 120.0) / 90.0, 0.0, 1.0)
        noise = _noise(scanner, cols, rows, slices, shoulders.astype(np.float32))
        pad = _PAD_PX
        noise *= noise_gain(scene.thorax, x[pad:-pad], y[pad:-pad], z, scanner.salt + 1)
        hu += noise
    if scanner.round_view:
        col, row = (np.arange(first, stop) - (PIXELS - 1) / 2 for first, stop in (cols, rows))
        hu[:, col**2 + row[:, None] ** 2 > (PIXELS / 2) ** 2] = _LOWEST_HU
    voxels = np.clip(np.rint(hu), _LOWEST_HU, _HIGHEST_HU).astype(np.int16)
    spacing = scan.pixel_spacing_mm
    origin = (float(scan.x_mm(*cols)[0]), float(scan.x_mm(*rows)[0]), float(z[0]))
    return Volume(
        voxels, (spacing, spacing, scan.slice_spacing_mm), origin, series_uid=scan.series_uid
    )


def _blurred(hu: Float, scanner: Scanner, pixel_mm: float) -> Float:
    """Blur in plane by the kernel; sharp kernels overshoot at edges."""
    sigma = scanner.blur_mm / pixel_mm
    wide = _gaussian_weights(1.7 * sigma)
    weights = _gaussian_weights(sigma, len(wide) // 2)
    if scanner.edge_gain > 0:
        # Difference of two Gaussians: 1 + gain of the narrow, minus gain of the wide one.
        weights = weights * (1 + 0.25 * scanner.edge_gain) - 0.25 * scanner.edge_gain * wide
    return _filtered(hu, weights)


def scan_crop(
    nodule: Mapping[Any, Any], seed: int = 0, half_width_mm: float = 42.0, noisy: bool = True
) -> Volume:
    """Simulate the CT around a nodule, with the real scan's pixels and slices.

    Args:
        nodule: a row of `lidc.nodules`.
        seed: of everything random.
        half_width_mm: how far the crop reaches from the nodule's centre on every side, at least.
        noisy: whether with the scanner's noise.

    Returns:
        Volume of int16 HU. The simulated world has its x and y origin in the middle of the
        512 x 512 pixels and the real scan's z; `center_of(nodule)` gives the centre in it.
    """
    scene = scene_for_series(str(nodule["series_uid"]), int(seed))
    scan = scene.scan
    x, y, z = center_of(nodule)
    middle = (PIXELS - 1) / 2
    pixel, spacing = scan.pixel_spacing_mm, scan.slice_spacing_mm
    cols, rows = (_around(at / pixel + middle, half_width_mm / pixel) for at in (x, y))
    # Three slices beyond what is sampled, so that the spline does not feel the crop's end.
    high = max(half_width_mm, half_width_mm - 4.0 + 3.0 * spacing)
    slices = _around((z - scan.first_z_mm) / spacing, high / spacing)
    return scan_box(scene, cols, rows, slices, noisy)


def center_of(nodule: Mapping[Any, Any]) -> tuple[float, float, float]:
    """Return a nodule's centre (x, y, z) in the simulated world, mm."""
    middle, pixel = (PIXELS - 1) / 2, float(nodule["pixel_spacing_mm"])
    return (
        (float(nodule["center_col_px"]) - middle) * pixel,
        (float(nodule["center_row_px"]) - middle) * pixel,
        float(nodule["center_z_mm"]),
    )


def _around(center: float, half: float) -> tuple[int, int]:
    """First index and the one after the last that reach `half` to both sides of a place."""
    return int(np.floor(center - half)), int(np.ceil(center + half)) + 1


def _noise(
    scanner: Scanner, cols: tuple[int, int], rows: tuple[int, int], slices: tuple[int, int],
    shoulders: Float,
) -> Float:  # fmt: skip
    """Draw correlated noise that belongs to absolute voxels; `shoulders` (slices,) from 0 to 1."""
    pad = _NOISE_PAD_PX
    white = gaussian(
        np.arange(cols[0] - pad, cols[1] + pad)[None, None, :],
        np.arange(rows[0] - pad, rows[1] + pad)[None, :, None],
        np.arange(*slices)[:, None, None],
        scanner.salt,
    )
    # Filtered back-projection leaves little noise at low frequencies: so does the difference of a
    # narrow and a wide blur of white noise (Riederer et al., Phys Med Biol 23:446, 1978).
    narrow = _gaussian_weights(scanner.noise_grain_px)
    reach = len(narrow) // 2
    wide = _gaussian_weights(2.0 * scanner.noise_grain_px)
    fine, hollow = _filtered(white, narrow), scanner.noise_hollow
    shared = np.convolve(narrow, wide)[len(wide) // 2 + reach]
    variance = (narrow**2).sum() ** 2 + hollow**2 * (wide**2).sum() ** 2
    variance -= 2.0 * hollow * shared**2
    noise = fine - np.float32(hollow) * _filtered(white, wide)
    noise *= np.float32(scanner.noise_hu / np.sqrt(variance))
    streaks = np.float32(scanner.streaks) * shoulders
    if streaks.any():
        # Photons are fewest from side to side through the shoulders.
        long = _gaussian_weights(2.5)
        both = np.convolve(narrow, long)
        deviation = np.sqrt((narrow**2).sum() * (both**2).sum())
        some = np.flatnonzero(streaks)
        along = ndimage.correlate1d(fine[some], long, axis=2, mode="nearest")
        gain = np.float32(scanner.noise_hu / deviation) * streaks[some]
        noise[some] += gain[:, None, None] * along
    return noise[:, pad:-pad, pad:-pad]


def _filtered(values: Float, weights: NDArray[np.float64]) -> Float:
    out = ndimage.correlate1d(values, weights, axis=2, mode="nearest")
    return ndimage.correlate1d(out, weights, axis=1, mode="nearest")


def _gaussian_weights(sigma: float, reach: int | None = None) -> NDArray[np.float64]:
    """Gaussian of a standard deviation in pixels, cut where the crop's margin ends, of sum 1."""
    reach = min(_PAD_PX, int(np.ceil(3.0 * sigma))) if reach is None else reach
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return weights / weights.sum()


# Slices worked on at once by a thread: enough to keep the arithmetic in large steps, few enough
# for memory (about 0.3 GB a thread).
_AT_ONCE = 6
_MOST_THREADS = 4


@dataclass(frozen=True)
class Truth:
    """What is true of every voxel of a whole scan."""

    # (Z, Y, X) bool: within the lungs' surface; vessels, airways and nodules included
    lung: NDArray[np.bool_]
    # (Z, Y, X) uint8: 0, or 1 + the place in `Scene.nodules` of the nodule that at least half of
    # its readers' outlines enclose here
    nodules: NDArray[np.uint8]


def whole_scan(
    scene: Scene, noisy: bool = True, progress: bool = False, jobs: int | None = None
) -> Volume:
    """Simulate the whole scan, 512 x 512 pixels and all real slices; its crops are `scan_box`'s.

    The same voxels whatever the number of threads: every slice is a function of its place.

    `noisy` is with the scanner's noise, `jobs` the number of threads: by default one a core, four
    at most; each takes about 0.3 GB. Returns int16 HU in the simulated world.

    Raises:
        InputError: less than one job.
    """
    require_jobs_and_seed(jobs)
    scan = scene.scan
    voxels = np.empty((scan.slices, PIXELS, PIXELS), np.int16)

    def fill(first: int) -> int:
        stop = min(first + _AT_ONCE, scan.slices)
        whole = (0, PIXELS)
        voxels[first:stop] = scan_box(scene, whole, whole, (first, stop), noisy).voxels
        return stop - first

    # NumPy and SciPy let other threads work meanwhile: no process to start, nothing to copy.
    threads = jobs if jobs is not None else min(available_cores(), _MOST_THREADS)
    with (
        threadpool_limits(limits=1),
        tqdm(total=scan.slices, unit="slice", desc="scanning", disable=not progress) as bar,
    ):
        firsts = list(range(0, scan.slices, _AT_ONCE))
        # What a scene keeps (its vessels) is made by the middle slices, before threads ask for it.
        bar.update(fill(firsts.pop(len(firsts) // 2)))
        made = Parallel(n_jobs=threads, prefer="threads", return_as="generator")(
            delayed(fill)(first) for first in firsts
        )
        for slices in made:
            bar.update(slices)
    pixel = scan.pixel_spacing_mm
    corner = float(scan.x_mm(0, 1)[0])
    spacing, origin = (pixel, pixel, scan.slice_spacing_mm), (corner, corner, scan.first_z_mm)
    return Volume(voxels, spacing, origin, series_uid=scan.series_uid)


def truth(scene: Scene) -> Truth:
    """Compute lung and nodules at `whole_scan`'s voxels, from the scene and not from its image."""
    scan = scene.scan
    x = y = scan.x_mm(0, PIXELS)
    z = scan.z_mm(0, scan.slices)
    lung = np.empty((scan.slices, PIXELS, PIXELS), bool)
    for first in range(0, scan.slices, _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        lung[part] = surface_distance(scene.thorax, x, y, z[part]) < 0
    nodules = np.zeros(lung.shape, np.uint8)
    for number, nodule in enumerate(scene.nodules, start=1):
        window = nodule.shape.window(x, y, z)
        at_z, at_y, at_x = window
        share = nodule.shape.agreement_at(x[at_x], y[at_y], z[at_z])
        nodules[window][share >= 0.5] = number
    return Truth(lung, nodules)
