"""Arteries, veins and airways: trees that fill the lungs and can be grown for any part of them.

Branching points lie near the points of nested lattices, and each joins one of the next coarser
lattice that leads towards the hilum. So a part of the tree follows from its surroundings alone,
and two crops that overlap hold the same vessels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labkit.data.simulate.noise import key, uniform
from labkit.data.simulate.strands import Strands
from labkit.data.simulate.thorax import Thorax

# From twigs to segmental vessels: lattice distance and radius, mm.
_CELLS_MM = (12.0, 24.0, 48.0, 96.0)
_RADII_MM = (0.42, 0.78, 1.45, 2.6)
_HILUM_RADIUS_MM = 4.6
_REACH = 3.0
_NEIGHBOURS = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)


@dataclass(frozen=True)
class _Level:
    """The branching points of one lattice within a box."""

    first: NDArray[np.int64]  # (3,) integers of the first lattice point, x y z
    points: NDArray[np.float64]  # (X, Y, Z, 3) mm
    alive: NDArray[np.bool_]  # (X, Y, Z) in lung and joined to the hilum
    flow: NDArray[np.float64]  # (X, Y, Z, 3) unit vector of the vessel that arrives there
    radius: NDArray[np.float64]  # (X, Y, Z) mm


def tree(
    thorax: Thorax,
    low_xyz_mm: NDArray,
    high_xyz_mm: NDArray,
    seed: int,
    name: str,
    thickness: float = 1.0,
) -> tuple[Strands, NDArray[np.int64]]:
    """The part of a vessel tree that may touch a box.

    Args:
        thorax: its lungs bound the tree.
        low_xyz_mm: (3,) lowest corner of the box, mm; `high_xyz_mm` the highest.
        seed: of the patient.
        name: "arteries" or "veins", or another tree of one's own.
        thickness: factor of all radii.

    Returns:
        the strands, and for each its level: 0 twigs, 1, 2, 3 the stems at the hilum.
    """
    low, high = np.asarray(low_xyz_mm, float), np.asarray(high_xyz_mm, float)
    boxes: list[tuple[NDArray, NDArray]] = []
    for cell in _CELLS_MM[:-1]:
        # What can touch the box, and what the finer level may want to join.
        wanted_low, wanted_high = low - _REACH * cell - 2.0, high + _REACH * cell + 2.0
        if boxes:
            wanted_low = np.minimum(wanted_low, boxes[-1][0] - 0.5 * _REACH * cell)
            wanted_high = np.maximum(wanted_high, boxes[-1][1] + 0.5 * _REACH * cell)
        boxes.append((wanted_low, wanted_high))
    # The stems come all the way from the hilum: every one of them may pass through the box.
    boxes.append(thorax.bounds_xyz_mm())
    above: _Level | None = None
    parts: list[Strands] = []
    levels: list[NDArray[np.int64]] = []
    for i in reversed(range(len(_CELLS_MM))):
        salt = key(seed, name, i)
        above, strands = _grow(thorax, above, boxes[i], i, salt, thickness)
        stem = np.full(len(strands), i + 1 if i == len(_CELLS_MM) - 1 else i)
        parts.append(strands)
        levels.append(stem)
    joined, level = Strands.join(parts), np.concatenate(levels)
    touches = joined.touching(low, high)
    return joined.take(touches), level[touches]


def _grow(
    thorax: Thorax,
    above: _Level | None,
    box: tuple[NDArray, NDArray],
    level: int,
    salt: int,
    thickness: float,
) -> tuple[_Level, Strands]:
    """Branching points of one level in a box, and the vessels that lead to them."""
    cell = _CELLS_MM[level]
    first = np.floor(box[0] / cell).astype(np.int64)
    count = np.floor(box[1] / cell).astype(np.int64) - first + 1
    index = np.stack(
        np.meshgrid(*[f + np.arange(n) for f, n in zip(first, count, strict=True)], indexing="ij"),
        axis=-1,
    )
    ix, iy, iz = np.moveaxis(index, -1, 0)
    random = [uniform(ix, iy, iz, key(salt, "jitter", k)).astype(np.float64) for k in range(4)]
    points = (index + np.stack(random[:3], axis=-1)) * cell
    depth = thorax.lung(*np.moveaxis(points, -1, 0))
    alive = depth < -_RADII_MM[level] - 1.0
    # Vessels are thinner towards the pleura, and no two are alike.
    near = np.clip(-depth / 35.0, 0.0, 1.0)
    radius = thickness * _RADII_MM[level] * (0.70 + 0.45 * near) * (0.75 + 0.5 * random[3])
    chosen: NDArray = np.flatnonzero(alive)
    flat = points.reshape(-1, 3)[chosen]
    left = flat[:, 0] > thorax.x0
    hilum = thorax.hilum_xyz_mm(left)
    parent: NDArray
    joined: NDArray
    parent_radius: NDArray
    if above is None:
        parent, joined = hilum, np.ones(len(chosen), bool)
        leaving = _unit(flat - hilum)
        parent_radius = np.full(len(chosen), _HILUM_RADIUS_MM * thickness)
    else:
        parent, joined, leaving, parent_radius = _choose(above, flat, hilum, left, thorax, cell)
    chosen, flat, parent = chosen[joined], flat[joined], parent[joined]
    leaving, parent_radius = leaving[joined], parent_radius[joined]
    own = radius.reshape(-1)[chosen]
    rods = 3 if level else 2
    strands, arriving = _bend(
        parent, leaving, flat, np.minimum(parent_radius, 1.9 * own), own, rods
    )
    shape = alive.shape
    flow = np.zeros((alive.size, 3))
    flow[chosen] = arriving
    kept = np.zeros(alive.size, bool)
    kept[chosen] = True
    return _Level(first, points, kept.reshape(shape), flow.reshape(*shape, 3), radius), strands


def _choose(
    above: _Level,
    points: NDArray,
    hilum: NDArray,
    left: NDArray,
    thorax: Thorax,
    cell: float,
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """For each point the branching point above that it joins: near, and on the way to the hilum."""
    coarse = np.floor(points / (2 * cell)).astype(np.int64) - above.first
    best = np.full(len(points), np.inf)
    pick = np.zeros(len(points), np.int64)
    shape = np.array(above.alive.shape)
    positions = above.points.reshape(-1, 3)
    alive = above.alive.reshape(-1)
    for offset in _NEIGHBOURS:
        near = coarse + offset
        within = ((near >= 0) & (near < shape)).all(axis=1)
        at = np.ravel_multi_index(tuple(np.clip(near, 0, shape - 1).T), tuple(shape))
        candidate = positions[at]
        way = np.linalg.norm(points - candidate, axis=1)
        cost = way + 0.5 * np.linalg.norm(candidate - hilum, axis=1)
        usable = within & alive[at] & (np.abs(points - candidate).max(axis=1) < _REACH * cell)
        usable &= (candidate[:, 0] > thorax.x0) == left
        better = usable & (cost < best)
        best[better], pick[better] = cost[better], at[better]
    return (
        positions[pick],
        np.isfinite(best),
        above.flow.reshape(-1, 3)[pick],
        above.radius.reshape(-1)[pick],
    )


def _bend(
    start: NDArray,
    leaving: NDArray,
    end: NDArray,
    start_radius: NDArray,
    end_radius: NDArray,
    rods: int,
) -> tuple[Strands, NDArray]:
    """Curves that leave along a direction and end at a point, as some rods each.

    Returns:
        the rods, and the (N, 3) unit direction in which each curve ends.
    """
    length = np.linalg.norm(end - start, axis=1, keepdims=True)
    control = start + 0.42 * length * leaving
    ends = np.linspace(0.0, 1.0, rods + 1)
    knots = [(1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end for t in ends]
    radii = [start_radius + t * (end_radius - start_radius) for t in ends]
    strands = Strands.join(
        [Strands(knots[i], knots[i + 1], radii[i], radii[i + 1]) for i in range(rods)]
    )
    return strands, _unit(end - control)


def _unit(way: NDArray) -> NDArray:
    """(N, 3) vectors of length 1 in the directions of others."""
    return way / np.maximum(np.sqrt((way**2).sum(axis=1, keepdims=True)), 1e-9)
