"""What lies around a nodule: tissues, vessels, and the finest structure of lung and noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from labkit.realism.pairs import LOW_HU, STEP_HU
from labkit.realism.wall import Floats, Masks

SHELL_MM = (3.0, 20.0)
# Four of the 256 levels of a real cube in every bin: other bins would hold more and fewer.
HU_EDGES = LOW_HU + STEP_HU * (4 * np.arange(65) - 0.5)
PATCH = 24
FREQUENCIES = np.arange(1, PATCH // 2 + 1) / PATCH
_STRIDE = 8
_MOST_PATCHES = 12
_VESSEL_HU = -600.0
_SHARES = {
    "share_lung": (-960.0, -700.0),
    "share_between": (-700.0, -300.0),
    "share_fat": (-150.0, -50.0),
    "share_soft": (0.0, 120.0),
    "share_bright": (150.0, 401.0),
}


def histogram(hu: Floats, masks: Masks) -> NDArray[np.float64]:
    """Shares of the voxels 3 to 20 mm from the nodule in 64 bins of 22 HU (`HU_EDGES`)."""
    near = (masks.from_nodule_mm > SHELL_MM[0]) & (masks.from_nodule_mm <= SHELL_MM[1])
    counts = np.histogram(hu[near], HU_EDGES)[0].astype(float)
    return counts / max(counts.sum(), 1.0)


def tissues(hu: Floats, masks: Masks) -> dict[str, float]:
    """Shares of tissues 3 to 20 mm from the nodule, and of the wall in whole slices.

    Returns:
        `share_lung` (-960 to -700 HU), `share_between` (-700 to -300), `share_fat` (-150 to -50),
        `share_soft` (0 to 120) and `share_bright` (above 150); `wall_share` and `outside_share` of
        the slices; `wall_bone_share` (above 200) and `wall_fat_share` of the wall;
        `soft_tissue_hu`, median of the wall between -30 and 130 HU. NaN with too little of it.
    """
    near = (masks.from_nodule_mm > SHELL_MM[0]) & (masks.from_nodule_mm <= SHELL_MM[1])
    values = hu[near]
    found = {
        name: float(((values >= low) & (values < high)).mean()) if len(values) else float("nan")
        for name, (low, high) in _SHARES.items()
    }
    wall = hu[masks.wall]
    # The middle slices of the real cubes are the ones without an offset.
    middle = slice(max(len(hu) // 2 - 1, 0), len(hu) // 2 + 2)
    soft = hu[middle][masks.wall[middle]]
    soft = soft[(soft > -30) & (soft < 130)]
    return {
        **found,
        "wall_share": float(masks.wall.mean()),
        "outside_share": float(masks.outside.mean()),
        "wall_bone_share": float((wall > 200).mean()) if len(wall) > 500 else float("nan"),
        "wall_fat_share": (
            float(((wall > -150) & (wall < -50)).mean()) if len(wall) > 500 else float("nan")
        ),
        "soft_tissue_hu": float(np.median(soft)) if len(soft) > 300 else float("nan"),
    }


def vessels(hu: Floats, masks: Masks) -> dict[str, float]:
    """Bright structures in the lung 3 to 20 mm from the nodule, and the lung between them.

    Returns:
        `lung_median_hu`, `lung_p10_hu`; `vessel_share` (of lung voxels above -600 HU),
        `vessel_p99_hu`; `vessel_count_cm2` (pieces of 3 mm^2 or more in a slice, for each cm^2 of
        lung), `vessel_piece_mm2` (median area), `vessel_elongation` (median of long over short
        axis) and `vessel_long_share` (of their area that lies in pieces three times as long as
        wide). NaN with less than 3 cm^2 of lung.
    """
    lung = masks.lung & (masks.from_nodule_mm <= SHELL_MM[1])
    names = (
        "lung_median_hu", "lung_p10_hu", "vessel_share", "vessel_p99_hu", "vessel_count_cm2",
        "vessel_piece_mm2", "vessel_elongation", "vessel_long_share",
    )  # fmt: skip
    if lung.sum() < 300:
        return dict.fromkeys(names, float("nan"))
    values = hu[lung]
    areas, elongations = _pieces(hu, lung)
    long = areas[elongations >= 3].sum() / areas.sum() if len(areas) else float("nan")
    found = (
        np.median(values),
        np.percentile(values, 10),
        (values > _VESSEL_HU).mean(),
        np.percentile(values, 99),
        100 * len(areas) / lung.sum(),
        np.median(areas) if len(areas) else np.nan,
        np.median(elongations) if len(areas) else np.nan,
        long,
    )
    return dict(zip(names, map(float, found), strict=True))


def _pieces(hu: Floats, lung: NDArray[np.bool_]) -> tuple[NDArray, NDArray]:
    """Area, mm^2, and elongation of every bright piece of lung, slice by slice."""
    areas, elongations = [], []
    for z in range(len(hu)):
        labels, count = ndimage.label((hu[z] > _VESSEL_HU) & lung[z], np.ones((3, 3)))
        if not count:
            continue
        rows, cols = np.nonzero(labels)
        piece = labels[rows, cols]
        n = np.bincount(piece, minlength=count + 1)[1:].astype(float)
        mean = [np.bincount(piece, at, count + 1)[1:] / n for at in (rows, cols)]
        dr, dc = rows - mean[0][piece - 1], cols - mean[1][piece - 1]
        # A pixel is itself 1/12 mm^2 wide: a single one is round.
        vr, vc, vrc = (np.bincount(piece, w, count + 1)[1:] / n for w in (dr**2, dc**2, dr * dc))
        middle, half = (vr + vc) / 2 + 1 / 12, np.sqrt(((vr - vc) / 2) ** 2 + vrc**2)
        keep = n >= 3
        areas.append(n[keep])
        elongations.append(np.sqrt((middle + half) / (middle - half))[keep])
    if not areas:
        return np.zeros(0), np.zeros(0)
    return np.concatenate(areas), np.concatenate(elongations)


def spectrum(hu: Floats, masks: Masks) -> NDArray[np.float64]:
    """Power spectrum of lung around the nodule, mean over its patches, HU^2 mm^2.

    Axial patches of 24 x 24 mm without wall or nodule, mean taken off, under a Hann window; power
    is averaged over directions.

    Returns:
        (12,) at `FREQUENCIES` cycles/mm; NaN without such a patch.
    """
    free = masks.lung
    found = []
    for z in range(len(hu)):
        # Sums over patches by the summed-area table; a few voxels at a corner may be wall.
        table = np.pad(free[z].astype(np.int32).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        for r in range(0, hu.shape[1] - PATCH + 1, _STRIDE):
            for c in range(0, hu.shape[2] - PATCH + 1, _STRIDE):
                r1, c1 = r + PATCH, c + PATCH
                inside = table[r1, c1] - table[r, c1] - table[r1, c] + table[r, c]
                if inside >= 0.98 * PATCH**2:
                    found.append(hu[z, r:r1, c:c1])
    if not found:
        return np.full(len(FREQUENCIES), np.nan)
    patches = np.stack(found[:: int(np.ceil(len(found) / _MOST_PATCHES))]).astype(float)
    window = np.outer(np.hanning(PATCH + 1)[:-1], np.hanning(PATCH + 1)[:-1])
    patches = (patches - patches.mean(axis=(1, 2), keepdims=True)) * window
    power = (np.abs(np.fft.fft2(patches)) ** 2).mean(axis=0) / (window**2).sum()
    f = np.fft.fftfreq(PATCH)
    ring = np.rint(np.hypot(f[:, None], f[None, :]) * PATCH).astype(int) - 1
    used = (ring >= 0) & (ring < len(FREQUENCIES))
    sums = np.bincount(ring[used], power[used], len(FREQUENCIES))
    return sums / np.bincount(ring[used], minlength=len(FREQUENCIES))


def noise(hu: Floats, masks: Masks) -> dict[str, float]:
    """The finest scale: noise in lung between vessels, and in soft tissue of the wall.

    The Laplacian's spread, by the median absolute deviation, is that of the image where it is flat;
    it is stated as the deviation of white noise with the same Laplacian. `noise_fine` tells
    the noise's texture: the Laplacian's deviation over the image's own in flat places (low:
    coarse grain, a soft kernel or smooth interpolation).
    """
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=np.float32)[None] / np.sqrt(20)
    fine = ndimage.convolve(hu, kernel)
    smooth = ndimage.uniform_filter(hu, (0, 7, 7))
    rest = hu - smooth
    quiet = masks.lung & (ndimage.maximum_filter(hu, (1, 3, 3)) < -740)
    deep = ndimage.binary_erosion(masks.wall, np.ones((1, 3, 3)), iterations=3)
    flat = deep & (smooth > 0) & (smooth < 120)
    lung, tissue = _spread(fine[quiet]), _spread(fine[flat])
    return {
        "noise_lung_hu": lung,
        "noise_tissue_hu": tissue,
        "noise_fine_lung": lung / _spread(rest[quiet]) if quiet.sum() > 200 else float("nan"),
        "noise_fine_tissue": tissue / _spread(rest[flat]) if flat.sum() > 200 else float("nan"),
    }


def _spread(values: NDArray) -> float:
    if len(values) <= 200:
        return float("nan")
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) + 1e-6
