"""Round, bright things in the lungs: candidates for nodules, found at several scales.

Within the lungs' box the scan is brought to cells of 1 mm. Differences of Gaussians, which are
about the scale-normalised Laplacian, are largest in the middle of something bright and at the scale
of its size (Lindeberg, Int J Comput Vis 30:79, 1998; Lowe, Int J Comput Vis 60:91, 2004). Vessels
are bright and as thick as nodules, but long: the image bends across them and not along them. So
each maximum is weighed by how alike its principal curvatures are, as in the dot filter of Li, Sone
and Doi (Med Phys 30:2040, 2003), which tells nodules from vessels and airways' walls; and a little
by its size, since the smaller the scale, the more vessels and grains of noise there are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from labkit.errors import InputError
from labkit.imaging.lattice import Lattice, Mask, box_around
from labkit.imaging.lungs import dilate
from labkit.imaging.volume import AIR_HU, Volume

_STEP_MM = 1.0
_MARGIN_VOXELS = 3
# The Laplacian of a ball is greatest, in its middle, where the ball's radius is sigma times this.
_RADIUS_PER_SIGMA = float(np.sqrt(3.0))
# A level as blurred as this many cells is kept on cells of twice the width.
_COARSER_AT = 3.0
_TRUNCATE = 3.0

_Image = NDArray[np.float32]
_Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """What counts as a candidate.

    The defaults are tuned on simulated scans that are in no cohort. The threshold leaves about as
    many candidates a scan as LUNA-16 has, 620.

    Args:
        least_score: weakest candidate kept, in the unit of `Blobs.score`.
        sigmas_mm: blurs whose neighbours' differences are searched, ascending. The defaults suit
            balls of 4 to 32 mm diameter; smaller ones are found at the finest scale.
        highest_hu: brighter voxels (calcium, contrast, bone) count as this.
        apart_mm: of candidates at most this far apart the strongest is kept (paper, section II).
        margin_mm: by how much the lungs' mask is widened, for nodules on the pleura.
        ball_mm: hollows in the mask that a ball of this radius cannot enter are filled before,
            for masses on the pleura.

    Raises:
        InputError: sigmas that are fewer than two or do not ascend, or a length that is negative.
    """

    least_score: float = 40.0
    sigmas_mm: tuple[float, ...] = (1.0, 1.5, 2.2, 3.3, 5.0, 7.5, 11.0)
    highest_hu: float = 100.0
    apart_mm: float = 5.0
    margin_mm: float = 1.0
    ball_mm: float = 0.0

    def __post_init__(self) -> None:
        sigmas = np.asarray(self.sigmas_mm, float)
        if sigmas.ndim != 1 or len(sigmas) < 2 or sigmas[0] <= 0 or (np.diff(sigmas) <= 0).any():
            raise InputError(
                f"sigmas_mm is {self.sigmas_mm}; give two or more positive lengths, ascending"
            )
        for name in ("least_score", "apart_mm", "margin_mm", "ball_mm"):
            if not 0 <= getattr(self, name) < np.inf:
                raise InputError(f"{name} is {getattr(self, name)}; give 0 or more")


@dataclass(frozen=True)
class Blobs:
    """Candidates of one scan, strongest first.

    Args:
        centers_xyz_mm: (N, 3) world positions.
        radius_mm: (N,) radius of the ball that answers most at the candidate's scale. Scales are
            steps, by a factor of 1.5, and so are radii.
        score: (N,) response (HU) times roundness squared times the root of sigma (mm). The response
            is scale-normalised: for a ball about 0.9 of its contrast to the lung.
        roundness: (N,) weakest principal curvature over the strongest: 1 for a ball, 0 for a
            cylinder, a plane or a saddle.
    """

    centers_xyz_mm: NDArray[np.float64]
    radius_mm: NDArray[np.float64]
    score: NDArray[np.float64]
    roundness: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.score)


def detect(volume: Volume, lungs: Mask, settings: Settings | None = None) -> Blobs:
    """Find candidates for nodules in the lungs of a scan, in a few seconds.

    Args:
        volume: the scan, HU; of any spacing and direction.
        lungs: (Z, Y, X) bool, as `labkit.imaging.lungs.segment` gives it.
        settings: what counts as a candidate.

    Returns:
        Blobs whose centres lie in the widened mask, any two more than `apart_mm` apart; none when
        the mask is empty.

    Raises:
        InputError: a mask of another shape, or voxels that are not finite HU.
    """
    settings = settings or Settings()
    wide = dilate(lungs, volume, settings.margin_mm, settings.ball_mm)
    box = box_around(wide, _MARGIN_VOXELS)
    if box is None:
        return _blobs(np.zeros((0, 5)), np.zeros((0, 3)))
    part = replace(
        volume,
        voxels=_clipped(volume, box, settings.highest_hu),
        origin_xyz_mm=tuple(volume.world_from_index([axis.start for axis in box])),
    )
    lattice = Lattice.of(part, _STEP_MM)
    inside = lattice.averaged(lattice.turned(wide[box]).astype(np.float32)) > 0.5
    hu = lattice.averaged(lattice.turned(part.voxels)).astype(np.float32, copy=False)
    if not inside.any():
        return _blobs(np.zeros((0, 5)), np.zeros((0, 3)))
    # Wall and heart must not answer, nor outshine what lies on them: beyond the mask is lung.
    hu[~inside] = np.median(hu[inside])
    found = np.concatenate(list(_maxima(hu, inside, settings)))
    return _strongest(found, _world(part, lattice, found[:, :3]), settings.apart_mm)


def _maxima(hu: _Image, inside: Mask, settings: Settings) -> list[_Rows]:
    """For each scale (n, 6): z, y, x in cells of the lattice, sigma, score, roundness."""
    found, step = [], 1
    level = _blurred(hu, settings.sigmas_mm[0] / _STEP_MM)
    for sigma, wider in pairwise(settings.sigmas_mm):
        blur = np.sqrt(wider**2 - sigma**2) / (step * _STEP_MM)
        next_level = _blurred(level, blur)
        # d/d(log sigma) of the blurred image is sigma^2 times its Laplacian (heat equation).
        response = level - next_level
        response *= np.float32(1.0 / np.log(wider / sigma))
        # Roundness is 1 at most.
        weight = float(np.sqrt(np.sqrt(sigma * wider)))
        peak = response > settings.least_score / weight
        peak &= inside[::step, ::step, ::step]
        at = np.argwhere(peak)
        at = at[((at > 0) & (at < np.array(peak.shape) - 1)).all(axis=1)]
        around = _neighbourhoods(response, at)
        at = at[around[:, 1, 1, 1] >= around.reshape(-1, 27).max(axis=1)]
        roundness = _roundness(level, at)
        score = weight * response[tuple(at.T)] * roundness**2
        keep = score >= settings.least_score
        at, score, roundness = at[keep], score[keep], roundness[keep]
        where = (at + _between_cells(response, at)) * step
        middle = np.full(len(at), np.sqrt(sigma * wider))
        found.append(np.column_stack([where, middle, score, roundness]))
        level = next_level
        if wider >= _COARSER_AT * step * _STEP_MM:
            level, step = np.ascontiguousarray(level[::2, ::2, ::2]), 2 * step
    return found


def _roundness(level: _Image, at: NDArray[np.int64]) -> _Rows:
    """Weakest principal curvature over the strongest (n,), at cells (n, 3) of a level."""
    near = _neighbourhoods(level, at).astype(np.float64)
    bend = np.empty((len(at), 3, 3))
    middle = (slice(None), 1, 1, 1)
    for i in range(3):
        up, down = _at(i, 2), _at(i, 0)
        bend[:, i, i] = near[up] - 2 * near[middle] + near[down]
        for j in range(i):
            corners = [near[_at(i, a, j, b)] for a, b in ((2, 2), (0, 0), (2, 0), (0, 2))]
            mixed = (corners[0] + corners[1] - corners[2] - corners[3]) / 4
            bend[:, i, j] = bend[:, j, i] = mixed
    # Ascending, and negative where bright: the strongest curvature comes first.
    curvature = -np.linalg.eigvalsh(bend)
    return np.maximum(curvature[:, 2], 0.0) / np.maximum(curvature[:, 0], 1e-6)


def _between_cells(response: _Image, at: NDArray[np.int64]) -> _Rows:
    """Where maxima lie from the middles of their cells (n, 3), by a parabola along each axis."""
    near = _neighbourhoods(response, at).astype(np.float64)
    shift = np.zeros((len(at), 3))
    for i in range(3):
        up, down = near[_at(i, 2)], near[_at(i, 0)]
        fall = 2 * near[:, 1, 1, 1] - up - down
        shift[:, i] = np.clip((up - down) / np.maximum(2 * fall, 1e-6), -0.5, 0.5)
    return shift


def _neighbourhoods(image: _Image, at: NDArray[np.int64]) -> _Image:
    """(n, 3, 3, 3) values around cells (n, 3), none of which lies at the image's rim."""
    off = np.arange(-1, 2)
    z, y, x = (at[:, i, None] + off for i in range(3))
    return image[z[:, :, None, None], y[:, None, :, None], x[:, None, None, :]]


def _at(axis: int, index: int, other: int | None = None, other_index: int = 1) -> tuple:
    """The place in neighbourhoods that is a step from the middle along one axis, or two."""
    place = [1, 1, 1]
    place[axis] = index
    if other is not None:
        place[other] = other_index
    return (slice(None), *place)


def _strongest(found: _Rows, centers_xyz_mm: _Rows, apart_mm: float) -> Blobs:
    """Greedily the strongest candidates, without any that lies within a distance of a stronger."""
    order = np.lexsort((*centers_xyz_mm.T, -found[:, 4]))
    found, centers_xyz_mm = found[order], centers_xyz_mm[order]
    keep = np.ones(len(found), bool)
    if len(found) and apart_mm > 0:
        near = cKDTree(centers_xyz_mm).query_ball_point(centers_xyz_mm, apart_mm)
        for number, others in enumerate(near):
            if keep[number]:
                keep[[other for other in others if other > number]] = False
    return _blobs(found[keep, 1:], centers_xyz_mm[keep])


def _blobs(columns: _Rows, centers_xyz_mm: _Rows) -> Blobs:
    """From columns that end with sigma, score and roundness."""
    sigma, score, roundness = columns[:, -3:].T
    return Blobs(centers_xyz_mm, sigma * _RADIUS_PER_SIGMA, score, roundness)


def _world(part: Volume, lattice: Lattice, cells: _Rows) -> _Rows:
    """World positions (n, 3) of places on the lattice (n, 3), in cells."""
    spacing = np.array(lattice.spacing_zyx_mm)
    index = (cells + 0.5) * lattice.step_mm / spacing - 0.5
    index = np.where(lattice.flips, np.array(lattice.scan_shape) - 1 - index, index)
    own = np.empty_like(index)
    own[:, list(lattice.axes)] = index
    return part.world_from_index(own)


def _clipped(volume: Volume, box: tuple[slice, ...], highest_hu: float) -> NDArray[np.int16]:
    voxels = volume.voxels[box]
    if voxels.dtype.kind == "f" and not np.isfinite(voxels.sum(dtype=np.float64)):
        raise InputError("voxels that are not finite (NaN or infinite); put -1000 HU there")
    return np.clip(voxels, AIR_HU, highest_hu).astype(np.int16)


def _blurred(image: _Image, sigma_cells: float) -> _Image:
    for axis in range(3):
        image = ndimage.gaussian_filter1d(
            image, sigma_cells, axis=axis, mode="nearest", truncate=_TRUNCATE
        )
    return image
