"""What a nodule itself looks like: its HU, how sharp its edge is, and whether it touches pleura."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import erfc

from labkit.realism.wall import Floats, Masks

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
