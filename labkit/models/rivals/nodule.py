"""The nodule in its cube: its voxels, and what hand-made features say of their shape and texture.

A threshold half way between lung and the nodule's own density, and what of it hangs together with
the cube's middle. The chest wall and vessels hang on it, too. The cube's middle is the nodule's
own, so what has no counterpart opposite is not of it: that takes the wall away. What still reaches
far is opened, which takes vessels away (Kostis et al., IEEE TMI 22:1259, 2003). The numbers were
set so that the size of real nodules agrees with the readers' diameters, whatever their label.

Cubes of a nodule's own slices alone hold air everywhere else, which is left out: there a nodule
ends where its slices do, and its height is what the readers marked.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import regionprops

from labkit.models.rivals import Floats

_LUNG_HU, _AIR_HU = -850, -1000
Mask = NDArray[np.bool_]


class Nodule(NamedTuple):
    """A nodule cut out of its cube, with up to 2 mm around it, 1 mm a voxel."""

    hu: Floats  # (z, y, x) float32
    mask: Mask  # its voxels, one at least


def segment(cube: Floats) -> Nodule:
    """Cut the nodule in the middle of a cube (64, 64, 64) HU out of it."""
    there = np.flatnonzero((cube > _AIR_HU).any(axis=(1, 2)))
    half = max(there[-1] - 31, 32 - there[0], 1) if len(there) else 1
    hu = cube[32 - half : 32 + half].astype(np.float32)
    at = np.ogrid[tuple(map(slice, hu.shape))]
    far = np.sqrt(sum((x - (n - 1) / 2) ** 2 for x, n in zip(at, hu.shape, strict=True)))
    smooth = ndimage.gaussian_filter(hu, (0.6 if half > 2 else 0, 0.6, 0.6))
    density = np.percentile(smooth[far <= 3], 75)
    bright = smooth > np.clip((density + _LUNG_HU) / 2, -800, -350)
    both = bright & bright[::-1, ::-1, ::-1]
    core = _piece(both, np.where(both, -far, -np.inf))
    depth = ndimage.distance_transform_edt(core)
    # The deepest point near the middle: a step away from it has to gain more than it costs.
    inner = np.where((far <= 4) & core, depth - far / 2, -np.inf)
    radius = max(float(depth.flat[inner.argmax()]), 1.5)
    if core.any() and far[core].max() > 2 * radius + 2:
        kept = _piece(depth > radius / 2, inner)
        core &= ndimage.distance_transform_edt(~kept) <= radius / 2
        core &= far <= 2 * radius + 2
    mask = (bright & ndimage.binary_dilation(core)) | (far < 1.5)
    around = tuple(slice(max(0, part.start - 2), part.stop + 2)
                   for part in ndimage.find_objects(mask.astype(np.uint8))[0])  # fmt: skip
    return Nodule(hu[around], mask[around])


def _piece(mask: Mask, score: Floats) -> Mask:
    """Return the connected piece of a mask that holds the voxel of the highest score."""
    labels = ndimage.label(mask)[0]
    return mask & (labels == labels.flat[score.argmax()])


def shape(mask: Mask) -> Floats:
    """Compute (15,) numbers of a nodule's shape, lengths in mm, volumes and areas as logarithms.

    Volume, surface, sphericity, filled share of the box and of the ball that hold it, three axes
    of its ellipsoid and two ratios of them, height; area, perimeter, eccentricity and solidity of
    its largest slice.
    """
    padded = np.pad(mask, 1)
    volume = mask.sum()
    # Faces between voxels overstate a smooth surface by half: a ball's by 3 / 2 exactly.
    faces = sum(np.count_nonzero(np.diff(padded, axis=axis)) for axis in range(3)) / 1.5
    at = np.argwhere(mask) - np.argwhere(mask).mean(axis=0)
    spread = np.linalg.eigvalsh(at.T @ at / volume + np.eye(3) / 12)[::-1]
    axes = 2 * np.sqrt(5 * spread)
    largest = mask[mask.sum(axis=(1, 2)).argmax()].astype(np.uint8)
    flat = regionprops(largest)[0]
    edge = sum(np.count_nonzero(np.diff(np.pad(largest, 1), axis=axis)) for axis in range(2))
    return np.array([
        np.log(volume), np.log(faces), np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / faces,
        volume / np.prod(np.ptp(at, axis=0) + 1),
        volume / (4 / 3 * np.pi * (np.linalg.norm(at, axis=1).max() + 0.5) ** 3),
        *axes, axes[1] / axes[0], axes[2] / axes[0], np.ptp(at[:, 0]) + 1,
        np.log(flat.area), edge * np.pi / 4 / np.sqrt(4 * np.pi * flat.area), flat.eccentricity,
        flat.solidity,
    ])  # fmt: skip


@cache
def _directions() -> Floats:
    """Return the 13 directions (13, 3) in which a voxel has neighbours, each once."""
    all_of_them = np.array(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij")).reshape(3, -1).T
    return all_of_them[14:]


def cooccurrence(nodule: Nodule, levels: int = 16) -> Floats:
    """Compute grey-level co-occurrence (d, levels, levels) of neighbours in a nodule, symmetric.

    Each direction's sums to 1; of the 13, those with a pair of neighbours (four in one slice).
    HU from -1000 to 400 are cut into `levels` equal parts.
    """
    level = np.clip((nodule.hu + 1000) / 1400 * levels, 0, levels - 1).astype(np.int64)
    found = []
    for step in _directions():
        own = tuple(
            slice(max(0, -s), n - max(0, s)) for s, n in zip(step, level.shape, strict=True)
        )
        other = tuple(slice(max(0, s), n - max(0, -s))
                      for s, n in zip(step, level.shape, strict=True))  # fmt: skip
        both = nodule.mask[own] & nodule.mask[other]
        pairs = level[own][both] * levels + level[other][both]
        counts = np.bincount(pairs, minlength=levels**2).reshape(levels, levels)
        if len(pairs):
            found.append((counts + counts.T) / (2 * len(pairs)))
    return np.array(found)


def haralick(p: Floats) -> Floats:
    """Compute (d, 13) features of co-occurrence matrices (d, levels, levels).

    Energy, contrast, correlation, variance, homogeneity, sum average, sum variance, sum entropy,
    entropy, difference variance, difference entropy and two of correlation as information
    (Haralick et al., IEEE SMC 3:610, 1973).
    """
    n = p.shape[1]
    i, j = np.indices((n, n))

    def entropy(q: Floats) -> Floats:
        return -(q * np.log2(q, where=q > 0, out=np.zeros_like(q))).reshape(len(q), -1).sum(axis=1)

    def moment(q: Floats, of: Floats) -> Floats:
        return (q * of).reshape(len(q), -1).sum(axis=1)

    def spread(q: Floats) -> Floats:
        k = np.arange(q.shape[1])
        return moment(q, k**2) - moment(q, k) ** 2

    margin = p.sum(axis=2)
    mean, variance = moment(margin, np.arange(n)), spread(margin)
    sums = np.stack([p[:, i + j == k].sum(axis=1) for k in range(2 * n - 1)], axis=1)
    gaps = np.stack([p[:, abs(i - j) == k].sum(axis=1) for k in range(n)], axis=1)
    apart = margin[:, :, None] * margin[:, None, :]
    own, both, cross = entropy(margin), entropy(p), entropy(apart)
    return np.stack([
        (p**2).sum(axis=(1, 2)), moment(p, (i - j) ** 2),
        (moment(p, i * j) - mean**2) / np.maximum(variance, 1e-9), variance,
        moment(p, 1 / (1 + (i - j) ** 2)), moment(sums, np.arange(2 * n - 1)), spread(sums),
        entropy(sums), both, spread(gaps), entropy(gaps),
        (both - cross) / np.maximum(own, 1e-9),
        np.sqrt(np.maximum(1 - np.exp2(-2 * (cross - both)), 0)),
    ], axis=1)  # fmt: skip
