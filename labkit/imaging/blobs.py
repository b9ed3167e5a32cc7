"""Round, bright things in the lungs: candidates for nodules, found at several scales.

On cells of 1 mm, differences of Gaussians (about the scale-normalised Laplacian) are largest in the
middle of something bright and at the scale of its size (Lindeberg, Int J Comput Vis 30:79, 1998).
Vessels are as bright and thick, but long: so each maximum is weighed by how alike its principal
curvatures are, as in the dot filter of Li, Sone and Doi (Med Phys 30:2040, 2003), and a little by
its size, since at small scales there are more vessels and grains of noise.
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
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """What counts as a candidate; the sigmas suit balls of 4 to 32 mm diameter.

    Tuned on simulated scans that are in no cohort to as many candidates a scan as LUNA-16 has, 620.
    """

    least_score: float = 40.0  # weakest candidate kept, in the unit of `Blobs.score`
    # Blurs whose neighbours' differences are searched.
    sigmas_mm: tuple[float, ...] = (1.0, 1.5, 2.2, 3.3, 5.0, 7.5, 11.0)
    highest_hu: float = 100.0  # brighter voxels (calcium, contrast, bone) count as this
    apart_mm: float = 5.0  # of candidates at most as far apart the strongest is kept (section II)
    margin_mm: float = 1.0  # by how much the lungs' mask is widened, for nodules on the pleura
    # Hollows in the mask that a ball of this radius cannot enter are filled, for masses there.
    ball_mm: float = 0.0

    def __post_init__(self) -> None:
        if len(self.sigmas_mm) < 2 or (np.diff(self.sigmas_mm, prepend=0.0) <= 0).any():
            raise InputError(
                f"sigmas_mm is {self.sigmas_mm}; give two or more positive lengths, ascending"
            )
        for name in ("least_score", "apart_mm", "margin_mm", "ball_mm"):
            if not 0 <= getattr(self, name) < np.inf:
                raise InputError(f"{name} is {getattr(self, name)}; give 0 or more")


@dataclass(frozen=True)
class Blobs:
    """Candidates of one scan, strongest first."""

    centers_xyz_mm: _Floats  # (N, 3) world positions
    radius_mm: _Floats  # (N,) of the ball that answers most at the candidate's scale, in steps
    # (N,) response (HU; of a ball 0.9 of its contrast) times roundness squared times root of sigma.
    score: _Floats
    roundness: _Floats  # (N,) weakest principal curvature over the strongest: 1 of a ball

    def __len__(self) -> int:
        return len(self.score)


def detect(volume: Volume, lungs: Mask, settings: Settings | None = None) -> Blobs:
    """Find candidates for nodules in the lungs of a scan, as `lungs.segment` gives them.

    Their centres lie in the widened mask, any two more than `apart_mm` apart.

    Raises:
        InputError: a mask of another shape, or voxels that are not finite HU.
    """
    settings = settings or Settings()
    none = Blobs(np.zeros((0, 3)), *np.zeros((3, 0)))
    wide = dilate(lungs, volume, settings.margin_mm, settings.ball_mm)
    box = box_around(wide, _MARGIN_VOXELS)
    if box is None:
        return none
    voxels = volume.voxels[box]
    if voxels.dtype.kind == "f" and not np.isfinite(voxels.sum(dtype=np.float64)):
        raise InputError("voxels that are not finite (NaN or infinite); put -1000 HU there")
    part = replace(
        volume,
        voxels=np.clip(voxels, AIR_HU, settings.highest_hu).astype(np.int16),
        origin_xyz_mm=tuple(volume.world_from_index([axis.start for axis in box])),
    )
    lattice = Lattice.of(part, _STEP_MM)
    inside = lattice.averaged(lattice.turned(wide[box]).astype(np.float32)) > 0.5
    if not inside.any():
        return none
    hu = lattice.averaged(lattice.turned(part.voxels)).astype(np.float32, copy=False)
    # Wall and heart must not answer, nor outshine what lies on them: beyond the mask is lung.
    hu[~inside] = np.median(hu[inside])
    found = _maxima(hu, inside, settings)

    # From places on the lattice, in cells, to the world.
    index = (found[:, :3] + 0.5) * _STEP_MM / np.array(lattice.spacing_zyx_mm) - 0.5
    index = np.where(lattice.flips, np.array(lattice.scan_shape) - 1 - index, index)
    own = np.empty_like(index)
    own[:, list(lattice.axes)] = index
    centers = part.world_from_index(own)

    # Greedily the strongest, without any that lies within a distance of a stronger.
    order = np.lexsort((*centers.T, -found[:, 4]))
    found, centers = found[order], centers[order]
    keep = np.ones(len(found), bool)
    if len(found) and settings.apart_mm > 0:
        near = cKDTree(centers).query_ball_point(centers, settings.apart_mm)
        for number, others in enumerate(near):
            if keep[number]:
                keep[[other for other in others if other > number]] = False
    sigma, score, roundness = found[keep, 3:].T
    return Blobs(centers[keep], sigma * _RADIUS_PER_SIGMA, score, roundness)


def _maxima(hu: _Image, inside: Mask, settings: Settings) -> _Floats:
    """Maxima of all scales (n, 6): z, y, x in cells of the lattice, sigma, score, roundness."""
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
        roundness = _roundness(_neighbourhoods(level, at).astype(np.float64))
        score = weight * response[tuple(at.T)] * roundness**2
        keep = score >= settings.least_score
        at, score, roundness = at[keep], score[keep], roundness[keep]
        shift = _between_cells(_neighbourhoods(response, at).astype(np.float64))
        middle = np.full(len(at), np.sqrt(sigma * wider))
        found.append(np.column_stack([(at + shift) * step, middle, score, roundness]))
        level = next_level
        if wider >= _COARSER_AT * step * _STEP_MM:
            level, step = np.ascontiguousarray(level[::2, ::2, ::2]), 2 * step
    return np.concatenate(found)


def _blurred(image: _Image, sigma_cells: float) -> _Image:
    for axis in range(3):
        image = ndimage.gaussian_filter1d(
            image, sigma_cells, axis=axis, mode="nearest", truncate=_TRUNCATE
        )
    return image


def _neighbourhoods(image: _Image, at: NDArray[np.int64]) -> _Image:
    """(n, 3, 3, 3) values around cells (n, 3), none of which lies at the image's rim."""
    off = np.arange(-1, 2)
    z, y, x = (at[:, i, None] + off for i in range(3))
    return image[z[:, :, None, None], y[:, None, :, None], x[:, None, None, :]]


def _along_axes(near: _Floats) -> NDArray:
    """Values before, in and after the middle of neighbourhoods, each (n, 3), along z, y and x."""
    lines = np.stack([near[:, :, 1, 1], near[:, 1, :, 1], near[:, 1, 1]], axis=2)
    return np.moveaxis(lines, 1, 0)


def _roundness(near: _Floats) -> _Floats:
    """Weakest principal curvature over the strongest (n,), of neighbourhoods."""
    down, middle, up = _along_axes(near)
    bend = np.empty((len(near), 3, 3))
    bend[:, range(3), range(3)] = up - 2 * middle + down
    for through, (i, j) in enumerate(((1, 2), (0, 2), (0, 1))):
        face = np.take(near, 1, axis=1 + through)
        mixed = (face[:, 2, 2] + face[:, 0, 0] - face[:, 0, 2] - face[:, 2, 0]) / 4
        bend[:, i, j] = bend[:, j, i] = mixed
    # Ascending, and negative where bright: the strongest curvature comes first.
    curvature = -np.linalg.eigvalsh(bend)
    return np.maximum(curvature[:, 2], 0.0) / np.maximum(curvature[:, 0], 1e-6)


def _between_cells(near: _Floats) -> _Floats:
    """Where maxima lie from the middles of their cells (n, 3), by a parabola along each axis."""
    down, middle, up = _along_axes(near)
    fall = 2 * middle - up - down
    return np.clip((up - down) / np.maximum(2 * fall, 1e-6), -0.5, 0.5)
