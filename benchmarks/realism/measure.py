"""All measures of all twins, and the JSON that is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, cpu_count, delayed
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, stats
from scipy.special import erfc
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from labkit.annotations import lidc
from labkit.cohorts.cohort import CUBE_SIZE, Cohort
from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.imaging.volume import AIR_HU
from labkit.io import told_if_killed
from labkit.simulate.nodule import consensus
from labkit.training.machines import provenance

# The same nodule, real and simulated: finding the twins, and making them alike.


LOW_HU, HIGH_HU = -1000.0, 400.0
STEP_HU = (HIGH_HU - LOW_HU) / 255


@dataclass(frozen=True)
class Twins:
    """One nodule, real and simulated, on the same grid of 1 mm with its outline.

    All arrays have the axes (z, y, x) and hold only the slices that are real.

    Args:
        real: (n, 64, 64) HU.
        simulated: (n, 64, 64) HU, clipped and rounded like the real ones.
        agreement: (n, 64, 64) share of the readers who outlined the point.
        distance_mm: (n, 64, 64) signed distance to the consensus outline, negative inside; true
            within some millimetres of the outline, constant further out.
    """

    real: NDArray[np.float32]
    simulated: NDArray[np.float32]
    agreement: NDArray[np.float32]
    distance_mm: NDArray[np.float32]


def match(real: Cohort, simulated: Cohort) -> pd.DataFrame:
    """Nodules that both cohorts hold: one series, one number in pylidc's clustering, same ratings.

    The last part of `nodule_id` is that number in both. A nodule that the number finds but whose
    malignancy ratings are not the same readers' is left out: it was put together from
    other annotations, and has another outline.

    Args:
        real: with `ratings` ("5|4|4|3", one a reader).
        simulated: made from `lidc.nodules`.

    Returns:
        One row a pair: the simulated cohort's columns, `real_row` and `simulated_row`.

    Raises:
        InputError: cohorts the wrong way round, columns missing, or no pair.
    """
    if real.simulated or not simulated.simulated:
        raise InputError(
            f"{real.folder} has to hold real images, {simulated.folder} simulated ones"
        )
    missing = {"series_uid", "ratings"} - set(real.nodules)
    if missing:
        raise InputError(f"{real.folder}: lacks the columns {', '.join(sorted(missing))}")
    ratings = lidc.annotations().groupby("nodule_id")["malignancy"].agg(_as_one)
    left = pd.DataFrame(
        {
            "series_uid": real.nodules["series_uid"],
            "number": _number(real.nodules["nodule_id"]),
            "rated": real.nodules["ratings"].map(lambda r: _as_one(str(r).split("|"))),
            "real_row": np.arange(len(real)),
        }
    )
    right = simulated.nodules.assign(
        number=_number(simulated.nodules["nodule_id"]),
        rated=simulated.nodules["nodule_id"].map(ratings),
        simulated_row=np.arange(len(simulated)),
    )
    pairs = right.merge(left, on=["series_uid", "number", "rated"], validate="one_to_one")
    if pairs.empty:
        raise InputError(f"{real.folder} and {simulated.folder} have no nodule in common")
    return pairs.drop(columns=["number", "rated"]).sort_values("real_row", ignore_index=True)


def _number(ids: pd.Series) -> pd.Series:
    """Last number of an id, as text.

    >>> _number(pd.Series(["LIDC-IDRI-0003/nodule-2", "LIDC-IDRI-0003-s1-n2"])).tolist()
    ['2', '2']
    """
    return ids.astype(str).str.extract(r"(\d+)$", expand=False)


def _as_one(ratings: ArrayLike) -> str:
    return "|".join(sorted(str(int(float(r))) for r in np.asarray(ratings)))


def like_real(cube_hu: ArrayLike) -> NDArray[np.float32]:
    """A simulated cube as the real ones are stored: -1000 to 400 HU in 255 steps, as whole HU.

    >>> like_real([-3000.0, -1000.0, 0.0, 3000.0]).tolist()[::3]
    [-1000.0, 400.0]
    """
    clipped = np.clip(np.asarray(cube_hu, dtype=np.float32), LOW_HU, HIGH_HU)
    steps = np.rint((clipped - LOW_HU) / np.float32(STEP_HU))
    return np.rint(steps * np.float32(STEP_HU) + np.float32(LOW_HU)).astype(np.float32)


def real_slices(cube_hu: ArrayLike) -> slice:
    """Which slices of a real cube are real: those that are not all air, without gaps.

    Raises:
        InputError: a cube of nothing but air.
    """
    some = np.flatnonzero((np.asarray(cube_hu) > AIR_HU).any(axis=(1, 2)))
    if not len(some):
        raise InputError("a cube holds nothing but air; build the cohort of real cubes again")
    return slice(int(some[0]), int(some[-1]) + 1)


def outline_at(nodule: pd.Series) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Consensus of a nodule's readers on its cube: agreement and signed distance, (64, 64, 64).

    Args:
        nodule: a row of `lidc.nodules`.
    """
    readers: dict[int, list[lidc.Contour]] = {}
    for contour in lidc.contours(str(nodule["nodule_id"])):
        readers.setdefault(contour.annotation_id, []).append(contour)
    pixel = float(nodule["pixel_spacing_mm"])
    shape = consensus(list(readers.values()), pixel, float(nodule["slice_spacing_mm"]))
    around = np.arange(CUBE_SIZE) - (CUBE_SIZE - 1) / 2
    # The shape's own world has its origin in the middle of the scan's 512 x 512 pixels.
    axes = (
        (float(nodule["center_col_px"]) - 255.5) * pixel + around,
        (float(nodule["center_row_px"]) - 255.5) * pixel + around,
        float(nodule["center_z_mm"]) + around,
    )
    return shape.agreement_at(*axes), shape.distance_at(*axes)


def twins(real: Cohort, simulated: Cohort, pair: pd.Series) -> Twins:
    """Load a pair that `match` found, and make the two alike.

    The simulated cube is clipped and rounded as the real one was, and only the slices that are
    real are kept of both.
    """
    cube = np.asarray(real.require_cubes()[int(pair["real_row"])], dtype=np.float32)
    kept = real_slices(cube)
    agreement, distance = outline_at(pair)
    return Twins(
        real=np.clip(cube[kept], LOW_HU, HIGH_HU),
        simulated=like_real(simulated.require_cubes()[int(pair["simulated_row"])][kept]),
        agreement=agreement[kept],
        distance_mm=distance[kept],
    )


# What around a nodule is body wall and what is lung, by the same rule on real and simulated CT.


Floats = NDArray[np.float32]

_TISSUE_HU = -300.0
_OPENING_MM = 2.5
_LEAST_WALL_MM2 = 250
_AIR_EDGE_HU, _AIR_HU = -960.0, -980.0
_CLEAR_MM = 3


@dataclass(frozen=True)
class Masks:
    """Parts of the slices around a nodule, each (n, 64, 64).

    Args:
        wall: chest wall, mediastinum, diaphragm and whatever else is wide; not the nodule.
        outside: air outside the body.
        lung: the rest, 3 mm clear of wall, outside air and nodule, vessels included.
        from_nodule_mm: distance to the consensus, mm.
    """

    wall: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    lung: NDArray[np.bool_]
    from_nodule_mm: Floats


def masks(hu: Floats, agreement: Floats) -> Masks:
    """Tell wall from lung: above -300 HU, and wide enough to survive an opening of 2.5 mm.

    The opening, slice by slice, takes away vessels up to 5 mm and the blurred rim of the nodule;
    what is left and measures 250 mm^2 or more in its slice is wall. The nodule is taken out first,
    so that one that touches the wall is no part of it.

    Args:
        hu: (n, 64, 64) HU.
        agreement: share of the readers who outlined the point.
    """
    nodule = agreement >= 0.5
    reach = np.arange(-3, 4)
    disc = np.hypot(reach[:, None], reach[None, :]) <= _OPENING_MM
    wall, outside = np.zeros_like(nodule), np.zeros_like(nodule)
    for z in range(len(hu)):
        # Noise must not perforate the wall.
        smooth = ndimage.gaussian_filter(hu[z], 0.7)
        tissue = (smooth > _TISSUE_HU) & ~nodule[z]
        wide = _opened(tissue, disc)
        wall[z] = _large(wide, _LEAST_WALL_MM2)
        outside[z] = _outside_air(smooth, wall[z])
    blocked = ndimage.binary_dilation(wall | outside, np.ones((1, 3, 3)), iterations=_CLEAR_MM)
    if nodule.any():
        far = ndimage.distance_transform_edt(~nodule).astype(np.float32)
    else:
        far = np.full(hu.shape, 64.0, np.float32)
    return Masks(wall, outside, ~blocked & (far > _CLEAR_MM), far)


def _opened(tissue: NDArray[np.bool_], disc: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Opening that takes what lies beyond the slice's edge for more of the same."""
    padded = np.pad(tissue, 4, mode="edge")
    return ndimage.binary_opening(padded, disc)[4:-4, 4:-4]


def _large(mask: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    if not count:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes >= least)[labels]


def _outside_air(smooth: Floats, wall: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Air at the slice's corners, behind the wall: darker than any lung."""
    labels, count = ndimage.label((smooth < _AIR_EDGE_HU) & ~wall)
    if not count:
        return np.zeros_like(wall)
    corners = {int(labels[r, c]) for r in (0, -1) for c in (0, -1)} - {0}
    found = np.isin(labels, list(corners))
    is_air = found.sum() >= 30 and float(smooth[found].mean()) < _AIR_HU
    return found if is_air else np.zeros_like(wall)


# What lies around a nodule: tissues, vessels, and the finest structure of lung and noise.


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


# What a nodule itself looks like: its HU, how sharp its edge is, and whether it touches pleura.


_INWARD_MM, _OUTWARD_MM, _POINTS = 3.0, 4.0, 29
_MOST_RAYS = 400
_LEAST_RAYS = 8
_LEAST_CONTRAST_HU = 150.0
_LEAST_FIT = 0.9
_LUNG_BELOW_HU = -600.0
_WIDTH_OF_SIGMA = 2.5631  # 10 % to 90 % of an error function
CONTACT_MM = 1.5


def density(hu: Floats, agreement: Floats, distance_mm: Floats) -> dict[str, float]:
    """HU within the consensus, off its edge by 1 mm or half its depth, whichever is less.

    Args:
        hu: (n, 64, 64) HU.
        agreement: share of the readers who outlined the point.
        distance_mm: signed distance to their outline, negative inside.

    Returns:
        `inside_median_hu`, `inside_mean_hu`, `inside_p90_hu`, and `inside_sd_hu`, about each
        slice's own mean, since slices of the real cubes may be offset; NaN for a nodule of fewer
        than four such voxels.
    """
    inside = (agreement >= 0.5) & (distance_mm <= max(-1.0, 0.5 * float(distance_mm.min())))
    values = hu[inside]
    names = ("inside_median_hu", "inside_mean_hu", "inside_sd_hu", "inside_p90_hu")
    if len(values) < 4:
        return dict.fromkeys(names, float("nan"))
    counts = inside.sum(axis=(1, 2))
    means = np.where(inside, hu, 0).sum(axis=(1, 2)) / np.maximum(counts, 1)
    rest = values - np.repeat(means, counts)
    # A slice's mean takes one degree of freedom.
    spread = np.sqrt((rest**2).sum() / max(len(values) - int((counts > 0).sum()), 1))
    found = (np.median(values), values.mean(), spread, np.percentile(values, 90))
    return dict(zip(names, map(float, found), strict=True))


def edge(hu: Floats, distance_mm: Floats) -> dict[str, float]:
    """How many mm the edge takes from 10 % to 90 %, and how much of it looks out on lung.

    Along axial normals of the outline an error function is fitted, ray by ray, so that an outline
    that lies beside the edge does not widen it; the nodule's width is the median over rays that
    end in lung and are well fitted.

    Args:
        hu: (n, 64, 64) HU.
        distance_mm: signed distance to the consensus outline.

    Returns:
        `edge_width_mm`, `edge_offset_mm` (of the edge outward of the outline) and
        `edge_wander_mm` (spread of that offset along the outline: how far the readers' outline and
        the image disagree), NaN when fewer than eight rays are fit for it, and `open_share`: of the
        outline that faces lung.
    """
    profiles = _profiles(hu, distance_mm)
    nothing = dict.fromkeys(("edge_width_mm", "edge_offset_mm", "edge_wander_mm"), float("nan"))
    if len(profiles) < _LEAST_RAYS:
        return {**nothing, "open_share": float("nan")}
    at = _positions()
    outer = profiles[:, at >= 2.5].mean(axis=1)
    is_open = outer < _LUNG_BELOW_HU
    share = {"open_share": float(is_open.mean())}
    inner = profiles[:, (at >= -2.0) & (at <= -1.0)].mean(axis=1)
    rays = profiles[is_open & (inner - outer > _LEAST_CONTRAST_HU)]
    if len(rays) < _LEAST_RAYS:
        return {**nothing, **share}
    shapes, sigma, offset = _error_functions()
    centred = rays - rays.mean(axis=1, keepdims=True)
    fit = (centred / np.linalg.norm(centred, axis=1, keepdims=True)) @ shapes.T
    best = fit.argmax(axis=1)
    good = fit[np.arange(len(rays)), best] ** 2 >= _LEAST_FIT
    if good.sum() < _LEAST_RAYS:
        return {**nothing, **share}
    offsets = offset[best[good]]
    return {
        "edge_width_mm": float(_WIDTH_OF_SIGMA * np.median(sigma[best[good]])),
        "edge_offset_mm": float(np.median(offsets)),
        "edge_wander_mm": float(offsets.std()),
        **share,
    }


def contact(agreement: Floats, masks: Masks) -> dict[str, float]:
    """Distance of the consensus to the body's wall, and whether it is contact.

    Args:
        agreement: share of the readers who outlined the point.
        masks: of the same slices.

    Returns:
        `wall_gap_mm`, NaN where no wall is in sight, and `touches_wall`, 1 or 0.
    """
    nodule = agreement >= 0.5
    if not nodule.any() or not masks.wall.any():
        return {"wall_gap_mm": float("nan"), "touches_wall": 0.0}
    # Neighbouring voxels are 1 mm apart, and nothing lies between them.
    gap = float(ndimage.distance_transform_edt(~masks.wall)[nodule].min()) - 1.0
    return {"wall_gap_mm": gap, "touches_wall": float(gap <= CONTACT_MM)}


def _positions() -> NDArray[np.float64]:
    return np.linspace(-_INWARD_MM, _OUTWARD_MM, _POINTS).astype(np.float64)


def _profiles(hu: Floats, distance_mm: Floats) -> NDArray[np.float64]:
    """(rays, positions) HU along the axial normals of the outline, in its middle slices."""
    area = (distance_mm < 0).sum(axis=(1, 2))
    # Where the outline is widest its normal lies in the slice.
    middle = np.flatnonzero((area > 0) & (area >= 0.6 * area.max()))
    at = _positions()
    found = []
    for z in middle:
        slope = np.stack(np.gradient(distance_mm[z]))
        length = np.hypot(*slope)
        rows, cols = np.nonzero((np.abs(distance_mm[z]) < 0.5) & (length > 0.5))
        if not len(rows):
            continue
        normal = slope[:, rows, cols] / length[rows, cols]
        start = np.stack([rows, cols]) - distance_mm[z][rows, cols] * normal
        points = start[:, :, None] + normal[:, :, None] * at
        found.append(ndimage.map_coordinates(hu[z].astype(float), points, order=3, mode="nearest"))
    if not found:
        return np.zeros((0, len(at)))
    rays = np.concatenate(found)
    return rays[:: int(np.ceil(len(rays) / _MOST_RAYS))]


def _error_functions() -> tuple[NDArray, NDArray, NDArray]:
    """Falling error functions of all widths and offsets: unit vectors, sigma mm, offset mm."""
    widths, offsets = np.geomspace(0.15, 4.0, 34), np.arange(-2.0, 2.01, 0.25)
    sigma, offset = (g.ravel() for g in np.meshgrid(widths, offsets))
    shapes = erfc((_positions() - offset[:, None]) / (np.sqrt(2) * sigma[:, None]))
    shapes -= shapes.mean(axis=1, keepdims=True)
    return shapes / np.linalg.norm(shapes, axis=1, keepdims=True), sigma, offset


# Two sets of values of the same nodules: quartiles, distances, and how sure they are.


QUANTILES = {"p10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "p90": 0.9}
LEAST = 5
_DIGITS = 5


def compare(
    real: ArrayLike, simulated: ArrayLike, patients: ArrayLike, resamples: int = 500, seed: int = 0
) -> dict[str, Any] | None:
    """How a measure of the same nodules differs between real and simulated images.

    Distances are those of the two distributions, whatever nodule a value belongs to: the
    Kolmogorov-Smirnov statistic and the first Wasserstein distance, in the measure's unit. Both
    are above 0 for any two samples; `chance` is what 95 % of random exchanges of real and
    simulated, patient by patient, stay below.

    Args:
        real: (n,) values; pairs with a NaN on either side are left out.
        simulated: (n,) values of the same nodules.
        patients: (n,) whose nodules they are: patients are what is drawn again.
        resamples: of the bootstrap, and of the exchanges.
        seed: of both.

    Returns:
        `nodules`, `patients`, quantiles of `real` and `simulated`, `difference` (median of
        simulated less real, nodule by nodule), `ks` and `wasserstein` with 95 % intervals and
        `chance`, and `spearman`, the rank correlation between the two; None with fewer than five
        pairs.
    """
    a, b = np.asarray(real, dtype=float), np.asarray(simulated, dtype=float)
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if len(a) < LEAST:
        return None
    codes = np.unique(np.asarray(patients)[both], return_inverse=True)[1]
    count = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=resamples)[:, codes]
    weights = weights[weights.sum(axis=1) > 0].astype(float)
    signs = rng.choice((-1.0, 1.0), size=(resamples, count))[:, codes]
    ones = np.ones((1, len(a)))
    drawn = _distances(a, b, weights, weights)
    swapped = _distances(a, b, signs, signs)
    found = _distances(a, b, ones, ones)
    result: dict[str, Any] = {
        "nodules": len(a),
        "patients": count,
        "real": quantiles(a),
        "simulated": quantiles(b),
        "difference": interval(float(np.median(b - a)), _medians(b - a, weights)),
    }
    for k, name in enumerate(("ks", "wasserstein")):
        chance = float(np.quantile(swapped[k], 0.95))
        result[name] = {**interval(float(found[k][0]), drawn[k]), "chance": rounded(chance)}
    varies = np.ptp(a) > 0 and np.ptp(b) > 0
    result["spearman"] = rounded(float(stats.spearmanr(a, b)[0])) if varies else None
    return result


def mean_share(
    values: ArrayLike, patients: ArrayLike, resamples: int = 2000, seed: int = 0
) -> dict[str, float]:
    """Mean of values with its 95 % interval over patients."""
    x = np.asarray(values, dtype=float)
    codes = np.unique(np.asarray(patients), return_inverse=True)[1]
    count = int(codes.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(
        count, np.full(count, 1 / count), size=resamples
    )
    sums, sizes = np.bincount(codes, x, count), np.bincount(codes, minlength=count)
    with np.errstate(invalid="ignore"):
        samples = (drawn @ sums) / (drawn @ sizes)
    return interval(float(x.mean()), samples)


def quantiles(values: ArrayLike) -> dict[str, float]:
    """The quantiles that are reported, by name.

    >>> quantiles([0.0, 1.0, 2.0, 3.0, 4.0])["median"]
    2.0
    """
    found = np.quantile(np.asarray(values, dtype=float), list(QUANTILES.values()))
    return {name: rounded(float(v)) for name, v in zip(QUANTILES, found, strict=True)}


def interval(value: float, samples: NDArray) -> dict[str, float]:
    """A value with the 2.5 and 97.5 percentiles of its resamples."""
    low, high = np.nanquantile(samples, [0.025, 0.975])
    return {"value": rounded(value), "low": rounded(float(low)), "high": rounded(float(high))}


def rounded(value: float) -> float:
    """Five significant digits: more would be noise, and would change with every machine.

    >>> rounded(-856.123456)
    -856.12
    """
    return float(f"{value:.{_DIGITS}g}")


def _distances(
    a: NDArray, b: NDArray, weights_a: NDArray, weights_b: NDArray
) -> tuple[NDArray, NDArray]:
    """Kolmogorov-Smirnov statistic and Wasserstein distance for every row of weights.

    Negative weights exchange a pair's two values.
    """
    pooled = np.concatenate([a, b])
    order = np.argsort(pooled, kind="stable")
    steps = np.concatenate([weights_a, -weights_b], axis=1)[:, order]
    total = np.abs(weights_a).sum(axis=1, keepdims=True)
    gaps = np.cumsum(steps, axis=1)[:, :-1] / total
    width = np.diff(pooled[order])
    # Between equal values the distribution functions are half way through a step.
    return np.abs(gaps[:, width > 0]).max(axis=1, initial=0), np.abs(gaps) @ width


def _medians(values: NDArray, weights: NDArray) -> NDArray:
    """Median of the values under every row of weights."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[:, order], axis=1)
    at = (share < share[:, -1:] / 2).sum(axis=1)
    return values[order][at]


# Can real and simulated be told apart? One number for all measures, and what gives it away.


_FOLDS = 5


def tell_apart(
    real: pd.DataFrame,
    simulated: pd.DataFrame,
    patients: ArrayLike,
    themes: Mapping[str, Sequence[str]],
    seed: int = 0,
) -> dict[str, Any]:
    """AUC of classifiers that are to say which of two images is the simulated one.

    0.5 means that these measures see no difference. Folds are by patient, so that a nodule is
    never judged by what was learnt from its twin.

    Args:
        real: one row a nodule, measures as columns.
        simulated: the same of the simulated images.
        patients: (n,) of both.
        themes: name -> its measures; each theme is also judged by itself.
        seed: of the classifiers and the bootstrap.

    Returns:
        `logistic` and `boosting` (AUC with 95 % interval over patients), `by_theme` (AUC of
        boosting on these measures alone) and `by_measure` (AUC of the bare value: above 0.5 the
        simulated values are greater), farthest from 0.5 first.
    """
    table = pd.concat([real, simulated], ignore_index=True)
    truth = np.repeat([0, 1], [len(real), len(simulated)])
    groups = np.tile(np.asarray(patients), 2)
    logistic = make_pipeline(
        SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression(max_iter=2000)
    )
    boosting = HistGradientBoostingClassifier(max_iter=150, random_state=seed)
    scores = {
        "logistic": _out_of_fold(logistic, table, truth, groups),
        "boosting": _out_of_fold(boosting, table, truth, groups),
    }
    result: dict[str, Any] = {}
    for name, score in scores.items():
        found = statistics.bootstrap_auc(truth, score, groups=groups, resamples=500, seed=seed)
        result[name] = {k: rounded(getattr(found, k)) for k in ("value", "low", "high")}
    result["by_theme"] = {
        theme: rounded(_auc(truth, _out_of_fold(boosting, table[list(names)], truth, groups)))
        for theme, names in themes.items()
    }
    alone = {name: _auc(truth, table[name].to_numpy(float)) for name in table}
    ordered = sorted(alone, key=lambda name: -abs(alone[name] - 0.5))
    result["by_measure"] = {name: rounded(alone[name]) for name in ordered}
    return result


def _out_of_fold(
    model: Any, table: pd.DataFrame, truth: NDArray[np.int64], groups: NDArray
) -> NDArray[np.float64]:
    score = np.empty(len(table))
    x = table.to_numpy(float)
    folds = min(_FOLDS, len(np.unique(groups)))
    for train, test in GroupKFold(folds).split(x, truth, groups):
        # The boosting's threads wait for each other, and for ever on a machine that is busy.
        with threadpool_limits(1):
            score[test] = model.fit(x[train], truth[train]).predict_proba(x[test])[:, 1]
    return score


def _auc(truth: NDArray[np.int64], score: NDArray[np.float64]) -> float:
    """AUC of the finite scores; 0.5 when they are all of one kind."""
    known = np.isfinite(score)
    return (
        statistics.roc_auc(truth[known], score[known]) if len(np.unique(truth[known])) == 2 else 0.5
    )


# Whether outlines lie where the images show a nodule: no shift, no flip.


_HALF = 16
_REACH = 2
FLIPS = {"x": (2,), "y": (1,), "xy": (1, 2)}


def alignment(hu: Floats, agreement: Floats) -> dict[str, float]:
    """Correlation of outline and image, in place, shifted and flipped.

    Args:
        hu: (n, 64, 64) HU.
        agreement: share of the readers who outlined the point.

    Returns:
        `match` (correlation in place, over the middle 32 mm), `match_flipped` (the best of three
        flips of the image), and `shift_row_mm` and `shift_col_mm` (where the correlation is
        greatest, within 2 mm, by a parabola; of the image against the outline).
    """
    middle = hu.shape[1] // 2
    inner = slice(middle - _HALF, middle + _HALF)
    image = _normal(hu[:, inner, inner])
    table = np.empty((2 * _REACH + 1,) * 2)
    for r in range(-_REACH, _REACH + 1):
        for c in range(-_REACH, _REACH + 1):
            moved = np.roll(agreement, (r, c), axis=(1, 2))[:, inner, inner]
            table[r + _REACH, c + _REACH] = np.vdot(image, _normal(moved))
    outline = _normal(agreement[:, inner, inner])
    flipped = max(float(np.vdot(np.flip(image, axes), outline)) for axes in FLIPS.values())
    row, col = np.unravel_index(int(table.argmax()), table.shape)
    return {
        "match": float(table[_REACH, _REACH]),
        "match_flipped": flipped,
        "shift_row_mm": _peak(table[:, col], int(row)) - _REACH,
        "shift_col_mm": _peak(table[row], int(col)) - _REACH,
    }


def _normal(values: Floats) -> NDArray[np.float64]:
    centred = values.astype(np.float64) - values.mean(dtype=np.float64)
    return centred / (np.linalg.norm(centred) + 1e-9)


def _peak(line: NDArray[np.float64], at: int) -> float:
    """Place of the top of the parabola through a maximum and its neighbours."""
    if not 0 < at < len(line) - 1:
        return float(at)
    left, top, right = line[at - 1 : at + 2]
    bend = left - 2 * top + right
    return float(at + 0.5 * (left - right) / bend) if bend < 0 else float(at)


KINDS = ("real", "simulated")
SIZES_MM = (0.0, 7.0, 10.0, 15.0, 25.0, 100.0)
CALCIFIED_BELOW = 5.5  # mean rating; 6 is "absent"
THEMES = {
    "nodule": (
        "inside_median_hu", "inside_mean_hu", "inside_sd_hu", "inside_p90_hu", "edge_width_mm",
        "edge_offset_mm", "edge_wander_mm",
    ),
    "wall": ("open_share", "wall_gap_mm", "touches_wall", "wall_share", "outside_share"),
    "tissues": (
        "share_lung", "share_between", "share_fat", "share_soft", "share_bright",
        "wall_bone_share", "wall_fat_share", "soft_tissue_hu",
    ),
    "lung and vessels": (
        "lung_median_hu", "lung_p10_hu", "vessel_share", "vessel_p99_hu", "vessel_count_cm2",
        "vessel_piece_mm2", "vessel_elongation", "vessel_long_share",
    ),
    "noise": ("noise_lung_hu", "noise_tissue_hu", "noise_fine_lung", "noise_fine_tissue"),
    "spectrum": tuple(f"spectrum_{k}" for k in range(len(FREQUENCIES))),
}  # fmt: skip


def measure(
    real_folder: Path,
    simulated_folder: Path,
    *,
    jobs: int | None = None,
    resamples: int = 500,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Compare two cohorts, nodule by nodule.

    Args:
        real_folder: cohort of real cubes.
        simulated_folder: cohort of simulated ones, of any scene version.
        jobs: processes; None takes all cores.
        resamples: of every bootstrap over patients.
        seed: of the bootstraps.
        progress: whether to show a bar with the time left.

    Returns:
        Numbers only, ready for JSON.

    Raises:
        InputError: see `pairs.match`.
    """
    real, simulated = Cohort.open(real_folder), Cohort.open(simulated_folder)
    pairs = match(real, simulated)
    tasks = (delayed(_one)(real_folder, simulated_folder, row) for _, row in pairs.iterrows())
    done = Parallel(n_jobs=jobs or -1, return_as="generator")(tasks)
    bar = tqdm(done, total=len(pairs), desc="comparing", unit="nodule", disable=not progress)
    with told_if_killed(jobs or cpu_count(), "try again with fewer --jobs"):
        found = list(bar)
    tables = {k: pd.DataFrame([f[k][0] for f in found]) for k in KINDS}
    histograms = {k: np.stack([f[k][1] for f in found]) for k in KINDS}
    return {
        "about": (
            "Simulated CT against real CT of the same nodules, both clipped to -1000 to 400 HU in "
            "255 steps and cut to the slices that the nodule occupies. Numbers, no images."
        ),
        **provenance(),
        "cohorts": {k: describe(c) for k, c in zip(KINDS, (real, simulated), strict=True)},
        "settings": {"resamples": resamples, "seed": seed},
        "pairs": {
            "nodules": len(pairs),
            "patients": int(pairs["patient_id"].nunique()),
            "real_without_twin": len(real) - len(pairs),
        },
        **summarise(pairs, tables, histograms, resamples, seed),
    }


def describe(cohort: Cohort) -> dict[str, Any]:
    """What a cohort is, for a result: name, settings, checksums."""
    return {
        "name": cohort.name,
        "simulated": cohort.simulated,
        "nodules": len(cohort),
        "settings": dict(cohort.meta["settings"]),
        "sha256": {name: f["sha256"] for name, f in cohort.meta["files"].items()},
    }


def summarise(
    pairs: pd.DataFrame,
    tables: dict[str, pd.DataFrame],
    histograms: dict[str, NDArray[np.float64]],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Everything that is stated about measured twins, row i of all arguments being one pair."""
    patients = pairs["patient_id"].to_numpy()
    r, s = (tables[k] for k in KINDS)

    def both(name: str, rows: NDArray[np.bool_] | None = None) -> dict[str, Any] | None:
        kept = np.ones(len(pairs), bool) if rows is None else rows
        return compare(r[name][kept], s[name][kept], patients[kept], resamples, seed)

    def by(name: str, groups: dict[str, NDArray[np.bool_]]) -> dict[str, Any]:
        made = {group: both(name, rows) for group, rows in groups.items()}
        return {group: values for group, values in made.items() if values}

    plain = (pairs["calcification"] >= CALCIFIED_BELOW).to_numpy()
    texture = {**_ratings(pairs["texture"], plain), "calcified": ~plain}
    margin = _ratings(pairs["margin"], plain)
    sizes = _sizes(pairs["diameter_mm"])
    solid = {name: rows & texture["5"] for name, rows in sizes.items()}
    measures = [name for names in THEMES.values() for name in names]
    return {
        "alignment": _alignment(r),
        "density_by_texture": by("inside_median_hu", texture),
        "density_of_solid_by_size": by("inside_median_hu", solid),
        "spread_by_texture": by("inside_sd_hu", texture),
        "edge_by_margin": by("edge_width_mm", margin),
        "histogram": _histogram(histograms, patients, resamples, seed),
        "spectrum": _spectrum(r, s, patients, resamples, seed),
        "contact": _contact(r, s, patients, sizes),
        "measures": {name: both(name) for name in measures if not name.startswith("spectrum")},
        "classifier": tell_apart(r[measures], s[measures], patients, THEMES, seed),
    }


def _one(real_folder: Path, simulated_folder: Path, pair: pd.Series) -> dict[str, Any]:
    pair_of = twins(Cohort.open(real_folder), Cohort.open(simulated_folder), pair)
    return {
        kind: measure_one(hu, pair_of.agreement, pair_of.distance_mm)
        for kind, hu in zip(KINDS, (pair_of.real, pair_of.simulated), strict=True)
    }


def measure_one(
    hu: Floats, agreement: Floats, distance_mm: Floats
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """Every measure of one image by name, and its histogram.

    Args:
        hu: (n, 64, 64) HU.
        agreement: share of the readers who outlined the point.
        distance_mm: signed distance to their consensus, negative inside.
    """
    found = masks(hu, agreement)
    power = spectrum(hu, found)
    return {
        **alignment(hu, agreement),
        **density(hu, agreement, distance_mm),
        **edge(hu, distance_mm),
        **contact(agreement, found),
        **tissues(hu, found),
        **vessels(hu, found),
        **noise(hu, found),
        **{f"spectrum_{k}": float(p) for k, p in enumerate(power)},
    }, histogram(hu, found)


def _ratings(mean: pd.Series, kept: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """Nodules by their mean rating, halves upwards."""
    whole = np.floor(mean.to_numpy() + 0.5)
    return {str(k): kept & (whole == k) for k in range(1, 6)}


def _sizes(diameter_mm: pd.Series) -> dict[str, NDArray[np.bool_]]:
    d = diameter_mm.to_numpy()
    bands = list(pairwise(SIZES_MM))
    names = [f"{a:g} to {b:g} mm" for a, b in bands]
    names[0], names[-1] = f"below {SIZES_MM[1]:g} mm", f"above {SIZES_MM[-2]:g} mm"
    return {n: (d > a) & (d <= b) for n, (a, b) in zip(names, bands, strict=True)}


def _alignment(real: pd.DataFrame) -> dict[str, Any]:
    """Over nodules whose outline is seen in the image at all (correlation above 0.5)."""
    seen = real[real["match"] > 0.5]
    if seen.empty:
        return {"nodules": 0}
    return {
        "nodules": len(seen),
        "share_better_unflipped": rounded(float((seen["match"] > seen["match_flipped"]).mean())),
        "median_shift_row_mm": rounded(float(seen["shift_row_mm"].median())),
        "median_shift_col_mm": rounded(float(seen["shift_col_mm"].median())),
        "share_within_1_mm": rounded(
            float((np.hypot(seen["shift_row_mm"], seen["shift_col_mm"]) <= 1).mean())
        ),
    }


def _histogram(
    histograms: dict[str, NDArray[np.float64]], patients: NDArray, resamples: int, seed: int
) -> dict[str, Any]:
    """Mean shares over nodules, and the Wasserstein distance of the two, HU."""
    width = float(np.diff(HU_EDGES)[0])
    names, codes = np.unique(patients, return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=resamples
    )
    weights = drawn[:, codes] / drawn[:, codes].sum(axis=1, keepdims=True)
    gap = np.cumsum(histograms["simulated"] - histograms["real"], axis=1)
    distance = np.abs(gap.mean(axis=0)).sum() * width
    samples = np.abs(weights @ gap).sum(axis=1) * width
    return {
        "edges_hu": [rounded(float(e)) for e in HU_EDGES],
        **{k: [rounded(float(v)) for v in h.mean(axis=0)] for k, h in histograms.items()},
        "wasserstein_hu": interval(float(distance), samples),
    }


def _spectrum(
    real: pd.DataFrame, simulated: pd.DataFrame, patients: NDArray, resamples: int, seed: int
) -> dict[str, Any]:
    """Quartiles of power at every frequency, and the median ratio of twins."""
    rows: list[dict[str, Any]] = []
    for k, frequency in enumerate(FREQUENCIES):
        name = f"spectrum_{k}"
        of = compare(np.log(real[name]), np.log(simulated[name]), patients, resamples, seed)
        if of is None:
            continue
        rows.append(
            {
                "cycles_per_mm": rounded(float(frequency)),
                "nodules": of["nodules"],
                **{kind: {q: rounded(float(np.exp(v))) for q, v in of[kind].items()}
                   for kind in KINDS},
                "ratio": {k: rounded(float(np.exp(v))) for k, v in of["difference"].items()},
                "ks": of["ks"],
            }
        )  # fmt: skip
    return {"unit": "HU^2 mm^2", "by_frequency": rows}


def _contact(
    real: pd.DataFrame,
    simulated: pd.DataFrame,
    patients: NDArray,
    sizes: dict[str, NDArray[np.bool_]],
) -> dict[str, Any]:
    """Shares that touch the wall, by size, and how far the two agree on which."""
    a, b = (t["touches_wall"].to_numpy() for t in (real, simulated))
    by_size = {
        name: {
            "nodules": int(rows.sum()),
            "real": mean_share(a[rows], patients[rows]),
            "simulated": mean_share(b[rows], patients[rows]),
        }
        for name, rows in sizes.items()
        if rows.any()
    }
    agree = float((a == b).mean())
    expected = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    kappa = rounded((agree - expected) / (1 - expected)) if expected < 1 else None
    return {
        "real": mean_share(a, patients),
        "simulated": mean_share(b, patients),
        "difference": mean_share(b - a, patients),
        "both": int((a * b).sum()),
        "only_real": int((a * (1 - b)).sum()),
        "only_simulated": int(((1 - a) * b).sum()),
        "kappa": kappa,
        "by_size": by_size,
    }
