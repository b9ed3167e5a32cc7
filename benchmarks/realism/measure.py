"""Measure simulated against real CT of the same nodules: all measures of all twins, as JSON.

The simulation is drawn around the outlines and ratings of real nodules, so that most real cubes
have a simulated twin: they are compared nodule by nodule, after both were made alike. What is
written are numbers only, never an image. Everywhere below `hu` is (n, 64, 64) HU, axes (z, y, x) on
a grid of 1 mm, `agreement` the share of the readers who outlined a point, and `distance_mm` the
signed distance to their consensus, negative inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, stats
from scipy.special import erfc
from skimage.measure import regionprops
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import cohen_kappa_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from labkit.annotations import lidc
from labkit.cohorts.cohort import CUBE_SIZE, Cohort
from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.reconstruction import mean_over, over_patients
from labkit.evaluation.statistics import Interval, percentile_interval
from labkit.imaging.volume import AIR_HU
from labkit.io import available_cores, told_if_killed
from labkit.simulate.nodule import consensus

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
KINDS = ("real", "simulated")
LOW_HU, HIGH_HU = -1000.0, 400.0
STEP_HU = (HIGH_HU - LOW_HU) / 255
# Four of the 256 levels of a real cube in every bin: other bins would hold more and fewer.
HU_EDGES = LOW_HU + STEP_HU * (4 * np.arange(65) - 0.5)
PATCH = 24
FREQUENCIES = np.arange(1, PATCH // 2 + 1) / PATCH
QUANTILES = {"p10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "p90": 0.9}
_VESSEL_HU, _LEAST_RAYS = -600.0, 8
_AT_MM = np.linspace(-3.0, 4.0, 29)  # where the image is read along a normal of the outline
_SHARES = {
    "share_lung": (-960.0, -700.0), "share_between": (-700.0, -300.0), "share_fat": (-150.0, -50.0),
    "share_soft": (0.0, 120.0), "share_bright": (150.0, 401.0),
}  # fmt: skip
THEMES = {
    "nodule": (
        "inside_median_hu", "inside_mean_hu", "inside_sd_hu", "inside_p90_hu", "edge_width_mm",
        "edge_offset_mm", "edge_wander_mm",
    ),
    "wall": ("open_share", "wall_gap_mm", "touches_wall", "wall_share", "outside_share"),
    "tissues": (*_SHARES, "wall_bone_share", "wall_fat_share", "soft_tissue_hu"),
    "lung and vessels": (
        "lung_median_hu", "lung_p10_hu", "vessel_share", "vessel_p99_hu", "vessel_count_cm2",
        "vessel_piece_mm2", "vessel_elongation", "vessel_long_share",
    ),
    "noise": ("noise_lung_hu", "noise_tissue_hu", "noise_fine_lung", "noise_fine_tissue"),
    "spectrum": tuple(f"spectrum_{k}" for k in range(12)),
}  # fmt: skip
SIZES = {
    "below 7 mm": (0, 7), "7 to 10 mm": (7, 10), "10 to 15 mm": (10, 15), "15 to 25 mm": (15, 25),
    "above 25 mm": (25, 100),
}  # fmt: skip


# The same nodule, real and simulated: finding the twins, and making them alike.


def match(real: Cohort, simulated: Cohort) -> pd.DataFrame:
    """Find the nodules that both hold: one series, one number in pylidc's clustering, same ratings.

    The last part of `nodule_id` is that number in both. A nodule whose malignancy ratings are not
    the same readers' is left out: it was put together from other annotations, and has another
    outline. Returns one row a pair: the simulated cohort's columns, `real_row`, `simulated_row`.
    """
    if real.simulated or not simulated.simulated or "ratings" not in real.nodules:
        raise InputError(
            f"{real.folder} has to hold real images with ratings, {simulated.folder} simulated ones"
        )

    def keyed(table: pd.DataFrame, ratings: pd.Series, row: str) -> pd.DataFrame:
        number = table["nodule_id"].astype(str).str.extract(r"(\d+)$", expand=False)
        rated = ["|".join(sorted(str(int(float(r))) for r in of)) for of in ratings]
        return table.assign(number=number, rated=rated, **{row: np.arange(len(table))})

    readers = lidc.annotations().groupby("nodule_id")["malignancy"].agg(list)
    ours = readers.loc[simulated.nodules["nodule_id"].astype(str)]
    left = keyed(real.nodules, real.nodules["ratings"].astype(str).str.split("|"), "real_row")
    right = keyed(simulated.nodules, ours, "simulated_row")
    keys = ["series_uid", "number", "rated"]
    pairs = right.merge(left[[*keys, "real_row"]], on=keys, validate="one_to_one")
    if pairs.empty:
        raise InputError(f"{real.folder} and {simulated.folder} have no nodule in common")
    return pairs.sort_values("real_row", ignore_index=True)


def like_real(cube_hu: ArrayLike) -> Floats:
    """Store a simulated cube as the real ones are: -1000 to 400 HU in 255 steps, as whole HU.

    >>> like_real([-3000.0, -1000.0, 0.0, 3000.0]).tolist()[::3]
    [-1000.0, 400.0]
    """
    clipped = np.clip(np.asarray(cube_hu, dtype=np.float32), LOW_HU, HIGH_HU)
    steps = np.rint((clipped - LOW_HU) / np.float32(STEP_HU))
    return np.rint(steps * np.float32(STEP_HU) + np.float32(LOW_HU)).astype(np.float32)


def real_slices(cube_hu: ArrayLike) -> slice:
    """Return which slices of a real cube are real: those that are not all air, without gaps."""
    some = np.flatnonzero((np.asarray(cube_hu) > AIR_HU).any(axis=(1, 2)))
    if not len(some):
        raise InputError("a cube holds nothing but air; build the cohort of real cubes again")
    return slice(int(some[0]), int(some[-1]) + 1)


def outline_at(nodule: pd.Series) -> tuple[Floats, Floats]:
    """Return agreement and signed distance of a row of `lidc.nodules` on its cube, (64, 64, 64)."""
    readers: dict[int, list[lidc.Contour]] = {}
    for contour in lidc.contours(str(nodule["nodule_id"])):
        readers.setdefault(contour.annotation_id, []).append(contour)
    pixel = float(nodule["pixel_spacing_mm"])
    shape = consensus(list(readers.values()), pixel, float(nodule["slice_spacing_mm"]))
    around = np.arange(CUBE_SIZE) - (CUBE_SIZE - 1) / 2
    # The shape's own world has its origin in the middle of the scan's 512 x 512 pixels.
    x, y = ((float(nodule[f"center_{k}_px"]) - 255.5) * pixel + around for k in ("col", "row"))
    axes = (x, y, float(nodule["center_z_mm"]) + around)
    return shape.agreement_at(*axes), shape.distance_at(*axes)


def twins(real: Cohort, simulated: Cohort, pair: pd.Series) -> tuple[Floats, ...]:
    """Load a pair, clipped, rounded and cut alike: real, simulated, agreement, distance."""
    cube = np.asarray(real.require_cubes()[int(pair["real_row"])], dtype=np.float32)
    kept = real_slices(cube)
    other = like_real(simulated.require_cubes()[int(pair["simulated_row"])][kept])
    return np.clip(cube[kept], LOW_HU, HIGH_HU), other, *(part[kept] for part in outline_at(pair))


# What around a nodule is body wall and what is lung, by the same rule on real and simulated CT.


class Masks(NamedTuple):
    """Parts of the slices around a nodule, and the distance to its consensus.

    The wall is chest wall, mediastinum, diaphragm and whatever else is wide, not the nodule;
    outside is air outside the body; lung the rest, 3 mm clear of all three, vessels included;
    the shell is what lies 3 to 20 mm from the nodule.
    """

    wall: Mask
    outside: Mask
    lung: Mask
    from_nodule_mm: Floats
    shell: Mask


def masks(hu: Floats, agreement: Floats) -> Masks:
    """Tell wall from lung: above -300 HU, and wide enough to survive an opening of 2.5 mm.

    The opening, slice by slice, takes away vessels up to 5 mm and the blurred rim of the nodule;
    what is left and measures 250 mm^2 or more in its slice is wall. The nodule is taken out first,
    so that one that touches the wall is no part of it.
    """
    nodule, plane = agreement >= 0.5, np.zeros((3, 3, 3), bool)
    plane[1] = ndimage.generate_binary_structure(2, 1)  # neighbours within a slice
    disc = (np.hypot(*np.ogrid[-3:4, -3:4]) <= 2.5)[None]
    smooth = ndimage.gaussian_filter(hu, (0, 0.7, 0.7))  # noise must not perforate the wall
    # Beyond the slice's edge lies more of the same.
    tissue = np.pad((smooth > -300) & ~nodule, ((0, 0), (4, 4), (4, 4)), mode="edge")
    labels, _ = ndimage.label(ndimage.binary_opening(tissue, disc)[:, 4:-4, 4:-4], plane)
    wall = (np.bincount(labels.ravel()) >= 250)[labels] & (labels > 0)
    # Air at the slice's corners, behind the wall, is darker than any lung.
    labels, _ = ndimage.label((smooth < -960) & ~wall, plane)
    air = np.isin(labels, labels[:, [0, 0, -1, -1], [0, -1, 0, -1]]) & (labels > 0)
    count = air.sum(axis=(1, 2))
    dark = np.where(air, smooth, 0).sum(axis=(1, 2)) < -980 * count
    outside = air & ((count >= 30) & dark)[:, None, None]
    blocked = ndimage.binary_dilation(wall | outside, np.ones((1, 3, 3)), iterations=3)
    far = np.full(hu.shape, 64.0, np.float32)
    if nodule.any():
        far = ndimage.distance_transform_edt(~nodule).astype(np.float32)
    return Masks(wall, outside, ~blocked & (far > 3), far, (far > 3) & (far <= 20))


# What lies around a nodule: tissues, vessels, and the finest structure of lung and noise.


def histogram(hu: Floats, masks: Masks) -> NDArray[np.float64]:
    """Compute shares of the voxels 3 to 20 mm from the nodule in bins of 22 HU (`HU_EDGES`)."""
    counts = np.histogram(hu[masks.shell], HU_EDGES)[0].astype(float)
    return counts / max(counts.sum(), 1.0)


def tissues(hu: Floats, masks: Masks) -> dict[str, float]:
    """Compute shares of tissues by HU 3 to 20 mm from the nodule, and of the wall in whole slices.

    NaN with too little wall: `wall_bone_share` (above 200 HU), `wall_fat_share` and
    `soft_tissue_hu`, the median between -30 and 130 HU.
    """

    def share(values: Floats, low: float, high: float, least: int = 0) -> float:
        return float(((values >= low) & (values < high)).mean()) if len(values) > least else np.nan

    near, wall = hu[masks.shell], hu[masks.wall]
    # The middle slices of the real cubes are the ones without an offset.
    middle = slice(max(len(hu) // 2 - 1, 0), len(hu) // 2 + 2)
    soft = hu[middle][masks.wall[middle]]
    soft = soft[(soft > -30) & (soft < 130)]
    return {
        **{name: share(near, *bounds) for name, bounds in _SHARES.items()},
        "wall_share": float(masks.wall.mean()),
        "outside_share": float(masks.outside.mean()),
        "wall_bone_share": share(wall, np.nextafter(np.float32(200), np.inf), np.inf, 500),
        "wall_fat_share": share(wall, np.nextafter(np.float32(-150), np.inf), -50, 500),
        "soft_tissue_hu": float(np.median(soft)) if len(soft) > 300 else np.nan,
    }


def vessels(hu: Floats, masks: Masks) -> dict[str, float]:
    """Measure bright structures in the lung up to 20 mm from the nodule, and lung between them.

    A vessel is above -600 HU; pieces of 3 mm^2 or more in a slice are counted for each cm^2 of
    lung, with median area and long over short axis, and the share of their area that lies in
    pieces three times as long as wide. NaN with less than 3 cm^2 of lung.
    """
    lung = masks.lung & (masks.from_nodule_mm <= 20)
    found = dict.fromkeys(THEMES["lung and vessels"], np.nan)
    if lung.sum() < 300:
        return found
    pieces = [piece for bright in (hu > _VESSEL_HU) & lung
              for piece in regionprops(ndimage.label(bright, np.ones((3, 3)))[0])
              if piece.area >= 3]  # fmt: skip
    values, names = hu[lung], iter(found)
    for value in (np.median(values), np.percentile(values, 10), (values > _VESSEL_HU).mean(),
                  np.percentile(values, 99), 100 * len(pieces) / lung.sum()):  # fmt: skip
        found[next(names)] = float(value)
    if pieces:
        # A pixel is itself 1/12 mm^2 wide: a single one is round.
        axes = np.array([piece.inertia_tensor_eigvals for piece in pieces]) + 1 / 12
        area, elongation = np.array([p.area for p in pieces]), np.sqrt(axes[:, 0] / axes[:, 1])
        found["vessel_piece_mm2"] = float(np.median(area))
        found["vessel_elongation"] = float(np.median(elongation))
        found["vessel_long_share"] = float(area[elongation >= 3].sum() / area.sum())
    return found


def spectrum(hu: Floats, masks: Masks) -> NDArray[np.float64]:
    """Compute the power spectrum of lung around the nodule, mean over its patches, HU^2 mm^2.

    Axial patches of 24 x 24 mm without wall or nodule, mean taken off, under a Hann window; power
    is averaged over directions. Returns (12,) at `FREQUENCIES` cycles/mm; NaN without a patch.
    """
    free, found = (sliding_window_view(part, (PATCH, PATCH), axis=(1, 2))[:, ::8, ::8]
                   for part in (masks.lung, hu))  # fmt: skip
    # A few voxels at a corner may be wall.
    patches = found[free.sum(axis=(-2, -1)) >= 0.98 * PATCH**2]
    if not len(patches):
        return np.full(len(FREQUENCIES), np.nan)
    patches = patches[:: int(np.ceil(len(patches) / 12))].astype(float)
    window = np.outer(np.hanning(PATCH + 1)[:-1], np.hanning(PATCH + 1)[:-1])
    patches = (patches - patches.mean(axis=(1, 2), keepdims=True)) * window
    power = (np.abs(np.fft.fft2(patches)) ** 2).mean(axis=0) / (window**2).sum()
    f = np.fft.fftfreq(PATCH)
    ring = np.rint(np.hypot(f[:, None], f[None, :]) * PATCH).astype(int)
    return ndimage.mean(power, ring, np.arange(1, len(FREQUENCIES) + 1))


def noise(hu: Floats, masks: Masks) -> dict[str, float]:
    """Measure noise at the finest scale, in lung between vessels and in soft tissue of the wall.

    The Laplacian's spread, by the median absolute deviation, is that of the image where it is flat;
    it is stated as the deviation of white noise with the same Laplacian. `noise_fine` tells
    the noise's texture: the Laplacian's deviation over the image's own in flat places (low:
    coarse grain, a soft kernel or smooth interpolation).
    """
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=np.float32)[None] / np.sqrt(20)
    fine = ndimage.convolve(hu, kernel)
    smooth = ndimage.uniform_filter(hu, (0, 7, 7))
    deep = ndimage.binary_erosion(masks.wall, np.ones((1, 3, 3)), iterations=3)

    def spread(values: Floats) -> float:
        enough = len(values) > 200
        return float(1.4826 * stats.median_abs_deviation(values)) + 1e-6 if enough else np.nan

    found = {}
    for name, at in {
        "lung": masks.lung & (ndimage.maximum_filter(hu, (1, 3, 3)) < -740),
        "tissue": deep & (smooth > 0) & (smooth < 120),
    }.items():
        found[f"noise_{name}_hu"] = spread(fine[at])
        found[f"noise_fine_{name}"] = spread(fine[at]) / spread((hu - smooth)[at])
    return found


# What a nodule itself looks like: its HU, how sharp its edge is, and whether it touches pleura.


def density(hu: Floats, agreement: Floats, distance_mm: Floats) -> dict[str, float]:
    """Measure HU within the consensus, off its edge by 1 mm or half its depth, whichever is less.

    The deviation is about each slice's own mean, since slices of the real cubes may be offset. NaN
    for a nodule of fewer than four such voxels.
    """
    inside = (agreement >= 0.5) & (distance_mm <= max(-1.0, 0.5 * float(distance_mm.min())))
    values, found = hu[inside], np.full(4, np.nan)
    if len(values) >= 4:
        by_slice = pd.Series(values.astype(float)).groupby(np.nonzero(inside)[0])
        # A slice's mean takes one degree of freedom.
        rest = values - by_slice.transform("mean")
        spread = np.sqrt((rest**2).sum() / max(len(values) - by_slice.ngroups, 1))
        found[:] = np.median(values), values.mean(), spread, np.percentile(values, 90)
    return dict(zip(THEMES["nodule"], found.tolist(), strict=False))


def edge(hu: Floats, distance_mm: Floats) -> dict[str, float]:
    """Measure how many mm the edge takes from 10 % to 90 %, and how much of it looks out on lung.

    Along axial normals of the outline an error function is fitted, ray by ray, so that an outline
    that lies beside the edge does not widen it; the nodule's width is the median over rays that
    end in lung and are well fitted. `edge_offset_mm` is of the edge outward of the outline,
    `edge_wander_mm` its spread along it, how far the readers' outline and the image disagree: NaN
    when fewer than eight rays are fit for it. `open_share` is of the outline that faces lung.
    """
    found = dict.fromkeys((*THEMES["nodule"][4:], "open_share"), np.nan)
    profiles = _profiles(hu, distance_mm)
    if len(profiles) < _LEAST_RAYS:
        return found
    outer = profiles[:, _AT_MM >= 2.5].mean(axis=1)
    inner = profiles[:, (_AT_MM >= -2.0) & (_AT_MM <= -1.0)].mean(axis=1)
    found["open_share"] = float((outer < -600).mean())
    rays = profiles[(outer < -600) & (inner - outer > 150)]
    # Falling error functions of all widths and offsets, as unit vectors.
    grid = np.meshgrid(np.geomspace(0.15, 4.0, 34), np.arange(-2.0, 2.01, 0.25))
    sigma, offset = (g.ravel() for g in grid)
    shapes = erfc((_AT_MM - offset[:, None]) / (np.sqrt(2) * sigma[:, None]))
    units = [part - part.mean(axis=1, keepdims=True) for part in (rays, shapes)]
    rays, shapes = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in units)
    fit = rays @ shapes.T
    best = fit.argmax(axis=1)[fit.max(axis=1, initial=-1) ** 2 >= 0.9]
    if len(best) >= _LEAST_RAYS:
        # 10 % to 90 % of an error function are 2.5631 of its sigmas.
        found["edge_width_mm"] = float(2.5631 * np.median(sigma[best]))
        found["edge_offset_mm"] = float(np.median(offset[best]))
        found["edge_wander_mm"] = float(offset[best].std())
    return found


def _profiles(hu: Floats, distance_mm: Floats) -> NDArray[np.float64]:
    """Read (rays, positions) HU along axial normals of the outline, in its middle slices."""
    area = (distance_mm < 0).sum(axis=(1, 2))
    found = [np.zeros((0, len(_AT_MM)))]
    # Where the outline is widest its normal lies in the slice.
    for z in np.flatnonzero((area > 0) & (area >= 0.6 * area.max())):
        slope = np.stack(np.gradient(distance_mm[z]))
        length = np.hypot(*slope)
        rows, cols = np.nonzero((np.abs(distance_mm[z]) < 0.5) & (length > 0.5))
        normal = slope[:, rows, cols] / length[rows, cols]
        start = np.stack([rows, cols]) - distance_mm[z][rows, cols] * normal
        points = start[:, :, None] + normal[:, :, None] * _AT_MM
        found.append(ndimage.map_coordinates(hu[z].astype(float), points, order=3, mode="nearest"))
    rays = np.concatenate(found)
    return rays[:: max(1, int(np.ceil(len(rays) / 400)))]


def contact(agreement: Floats, masks: Masks) -> dict[str, float]:
    """Measure the distance of consensus and wall, NaN with no wall in sight, and tell contact."""
    nodule = agreement >= 0.5
    if not nodule.any() or not masks.wall.any():
        return {"wall_gap_mm": np.nan, "touches_wall": 0.0}
    # Neighbouring voxels are 1 mm apart, and nothing lies between them.
    gap = float(ndimage.distance_transform_edt(~masks.wall)[nodule].min()) - 1.0
    return {"wall_gap_mm": gap, "touches_wall": float(gap <= 1.5)}


# Two sets of values of the same nodules: quantiles, distances, and how sure they are.


def rounded(value: float) -> float:
    """Round to five significant digits: more would be noise, and change with every machine.

    >>> rounded(-856.123456)
    -856.12
    """
    return float(f"{value:.5g}")


def _plain(of: Interval) -> dict[str, float]:
    return {k: rounded(getattr(of, k)) for k in ("value", "low", "high")}


def mean_share(values: ArrayLike, patients: ArrayLike, resamples: int = 2000) -> dict[str, float]:
    """Compute the mean of values with its 95 % interval over patients."""
    return _plain(percentile_interval(mean_over(values, over_patients(patients, resamples))))


def compare(
    real: ArrayLike, simulated: ArrayLike, patients: ArrayLike, resamples: int = 500, seed: int = 0
) -> dict[str, Any] | None:
    """Compare a measure of the same nodules, (n,) values, between real and simulated images.

    Pairs with a NaN on either side are left out; fewer than five give None. Patients are what is
    drawn again. Returns `nodules`, quantiles of `real` and `simulated`, `difference` (median of
    simulated less real, nodule by nodule), `ks` (the Kolmogorov-Smirnov distance of the two
    distributions with its 95 % interval, and `chance`, what 95 % of random exchanges of real and
    simulated, patient by patient, stay below), and `spearman`, the rank correlation.
    """
    a, b = np.asarray(real, dtype=float), np.asarray(simulated, dtype=float)
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if len(a) < 5:
        return None
    codes = np.unique(np.asarray(patients)[both], return_inverse=True)[1]
    count = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)[:, codes]
    weights = np.vstack([np.ones(len(a)), drawn])
    swapped = _kolmogorov(a, b, rng.choice((-1.0, 1.0), size=(resamples, count))[:, codes])
    # The median of every sample of patients.
    order = np.argsort(b - a, kind="stable")
    share = np.cumsum(weights[:, order], axis=1)
    medians = (b - a)[order][(share < share[:, -1:] / 2).sum(axis=1)]
    medians[0] = np.median(b - a)
    apart = _plain(percentile_interval(_kolmogorov(a, b, weights)))
    quantiles = {kind: {q: rounded(np.quantile(x, at)) for q, at in QUANTILES.items()}
                 for kind, x in zip(KINDS, (a, b), strict=True)}  # fmt: skip
    return {
        "nodules": len(a),
        **quantiles,
        "difference": _plain(percentile_interval(medians)),
        "ks": {**apart, "chance": rounded(np.quantile(swapped, 0.95))},
        "spearman": rounded(stats.spearmanr(a, b)[0]) if np.ptp(a) > 0 and np.ptp(b) > 0 else None,
    }


def _kolmogorov(a: NDArray, b: NDArray, weights: NDArray) -> NDArray:
    """Compute the distance for every row of weights; negative ones exchange a pair's values."""
    pooled = np.concatenate([a, b])
    order = np.argsort(pooled, kind="stable")
    steps = np.concatenate([weights, -weights], axis=1)[:, order]
    gaps = np.cumsum(steps, axis=1)[:, :-1] / np.abs(weights).sum(axis=1, keepdims=True)
    # Between equal values the distribution functions are half way through a step.
    return np.abs(gaps[:, np.diff(pooled[order]) > 0]).max(axis=1, initial=0)


def tell_apart(
    real: pd.DataFrame, simulated: pd.DataFrame, patients: ArrayLike,
    themes: Mapping[str, Sequence[str]], seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Judge a classifier that is to say which of two images is the simulated one, by its AUC.

    0.5 means that these measures, the columns, see no difference. Folds are by patient, so that a
    nodule is never judged by what was learnt from its twin. Returns `boosting` (AUC with 95 %
    interval over patients), `by_theme` (AUC of boosting on a theme's measures alone) and
    `by_measure` (AUC of the bare value: above 0.5 the simulated values are greater), farthest from
    0.5 first.
    """
    table = pd.concat([real, simulated], ignore_index=True)
    truth, groups = np.repeat([0, 1], [len(real), len(simulated)]), np.tile(np.asarray(patients), 2)
    folds = GroupKFold(min(5, len(np.unique(groups))))
    model = HistGradientBoostingClassifier(max_iter=150, random_state=seed)

    def out_of_fold(names: Sequence[str]) -> NDArray[np.float64]:
        # The boosting's threads wait for each other, and for ever on a machine that is busy.
        with threadpool_limits(1):
            values = table[list(names)].to_numpy(float)
            how = {"groups": groups, "cv": folds, "method": "predict_proba"}
            return cross_val_predict(model, values, truth, **how)[:, 1]

    def auc(score: NDArray[np.float64]) -> float:
        known = np.isfinite(score)
        both = len(np.unique(truth[known])) == 2
        return statistics.roc_auc(truth[known], score[known]) if both else 0.5

    alone = {str(name): auc(table[name].to_numpy(float)) for name in table}
    said = out_of_fold(list(table))
    whole = statistics.bootstrap_auc(truth, said, groups=groups, resamples=500, seed=seed)
    return {
        "boosting": _plain(whole),
        "by_theme": {theme: rounded(auc(out_of_fold(names))) for theme, names in themes.items()},
        "by_measure": {
            k: rounded(alone[k]) for k in sorted(alone, key=lambda k: -abs(alone[k] - 0.5))
        },
    }


# All of it, for all twins.


def measure(
    real: Path, simulated: Path, *, jobs: int | None = None, resamples: int = 500,
    progress: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Compare two cohorts, of real and of simulated cubes, nodule by nodule.

    `jobs` are processes, None all cores; `resamples` are of every bootstrap over patients. Returns
    numbers only, ready for JSON.
    """
    cohorts = Cohort.open(real), Cohort.open(simulated)
    pairs = match(*cohorts)
    tasks = (delayed(_one)(real, simulated, row) for _, row in pairs.iterrows())
    jobs = jobs or available_cores()
    done = Parallel(n_jobs=jobs, return_as="generator")(tasks)
    bar = tqdm(done, total=len(pairs), desc="comparing", unit="nodule", disable=not progress)
    with told_if_killed(jobs, "try again with fewer --jobs"):
        found = list(bar)
    tables = [pd.DataFrame([f[k][0] for f in found]) for k in range(2)]
    histograms = [np.stack([f[k][1] for f in found]) for k in range(2)]
    return {
        "about": (
            "Simulated CT against real CT of the same nodules, both clipped to -1000 to 400 HU in "
            "255 steps and cut to the slices that the nodule occupies. Numbers, no images."
        ),
        "cohorts": {k: describe(c) for k, c in zip(KINDS, cohorts, strict=True)},
        "settings": {"resamples": resamples, "seed": 0},
        "pairs": {
            "nodules": len(pairs),
            "patients": int(pairs["patient_id"].nunique()),
            "real_without_twin": len(cohorts[0]) - len(pairs),
        },
        **_summary(pairs, *tables, histograms, resamples),
    }


def describe(cohort: Cohort) -> dict[str, Any]:
    """Say what a cohort is, for a result: name, settings, checksums."""
    sums = {name: of["sha256"] for name, of in cohort.meta["files"].items()}
    return {"name": cohort.name, "simulated": cohort.simulated, "nodules": len(cohort),
            "settings": dict(cohort.meta["settings"]), "sha256": sums}  # fmt: skip


def measures(hu: Floats, agreement: Floats, distance_mm: Floats) -> dict[str, float]:
    """Take every measure of `THEMES` of one image."""
    found = masks(hu, agreement)
    return {
        **density(hu, agreement, distance_mm), **edge(hu, distance_mm), **contact(agreement, found),
        **tissues(hu, found), **vessels(hu, found), **noise(hu, found),
        **dict(zip(THEMES["spectrum"], spectrum(hu, found).tolist(), strict=True)),
    }  # fmt: skip


def _one(real_folder: Path, simulated_folder: Path, pair: pd.Series) -> list[Any]:
    """Take the measures and the histogram of both images of a pair."""
    *images, agreement, distance = twins(
        Cohort.open(real_folder), Cohort.open(simulated_folder), pair
    )
    return [(measures(hu, agreement, distance), histogram(hu, masks(hu, agreement)))
            for hu in images]  # fmt: skip


def _summary(
    pairs: pd.DataFrame, real: pd.DataFrame, simulated: pd.DataFrame,
    histograms: list[NDArray], resamples: int,
) -> dict[str, Any]:  # fmt: skip
    """State everything about measured twins, row i of all arguments being one pair."""
    patients, d = pairs["patient_id"].to_numpy(), pairs["diameter_mm"]
    names = [name for of_theme in THEMES.values() for name in of_theme]

    def both(name: str, rows: Any = slice(None)) -> dict[str, Any] | None:
        return compare(real[name][rows], simulated[name][rows], patients[rows], resamples)

    def by(name: str, groups: Mapping[str, Mask]) -> dict[str, Any]:
        return {group: found for group, rows in groups.items() if (found := both(name, rows))}

    def touch(rows: Any = slice(None)) -> dict[str, Any]:
        return {kind: mean_share(of["touches_wall"].to_numpy()[rows], patients[rows])
                for kind, of in zip(KINDS, (real, simulated), strict=True)}  # fmt: skip

    plainly = (pairs["calcification"] >= 5.5).to_numpy()  # mean rating; 6 is "absent"
    texture, margin = (
        {str(k): plainly & (np.floor(pairs[name].to_numpy() + 0.5) == k) for k in range(1, 6)}
        for name in ("texture", "margin")
    )  # halves upwards
    steps = np.cumsum(histograms[1] - histograms[0], axis=1)
    gaps = np.abs(mean_over(steps, over_patients(patients, resamples))).sum(axis=1)
    powers = []
    for name, frequency in zip(THEMES["spectrum"], FREQUENCIES, strict=True):
        if of := compare(np.log(real[name]), np.log(simulated[name]), patients, resamples):
            row = {k: {q: rounded(np.exp(v)) for q, v in of[k].items()}
                   for k in (*KINDS, "difference")}  # fmt: skip
            row["ratio"] = row.pop("difference")
            powers.append({"cycles_per_mm": rounded(frequency), "nodules": of["nodules"], **row})
    kappa = cohen_kappa_score(real["touches_wall"], simulated["touches_wall"])
    sizes = {name: ((d > low) & (d <= high)).to_numpy() for name, (low, high) in SIZES.items()}
    return {
        "density_by_texture": by("inside_median_hu", {**texture, "calcified": ~plainly}),
        "edge_by_margin": by("edge_width_mm", margin),
        "histogram": {
            "edges_hu": [rounded(e) for e in HU_EDGES],
            **{k: [rounded(v) for v in of.mean(axis=0)]
               for k, of in zip(KINDS, histograms, strict=True)},
            "wasserstein_hu": _plain(percentile_interval(gaps * float(np.diff(HU_EDGES)[0]))),
        },
        "spectrum": {"unit": "HU^2 mm^2", "by_frequency": powers},
        "contact": {
            **touch(),
            "kappa": rounded(kappa) if np.isfinite(kappa) else None,
            "by_size": {name: {"nodules": int(rows.sum()), **touch(rows)}
                        for name, rows in sizes.items() if rows.any()},
        },
        "measures": {name: both(name) for name in names if not name.startswith("spectrum")},
        "classifier": tell_apart(real[names], simulated[names], patients, THEMES),
    }  # fmt: skip
