"""Arteries, veins and airways: trees that fill the lungs and share their flow out.

A tree is grown as lungs' are modelled: every piece of lung is fed by a twig of its own; the pieces
that one branch feeds are parted in two by a plane, and a branch grows part of the way towards the
middle of each (volume-filling branching: Kitaoka et al., J Appl Physiol 87:2207, 1999; Tawhai et
al., J Appl Physiol 97:2310, 2004). A branch's radius follows from what flows through it, by
Murray's law: the cubes of the children's radii sum to the parent's (Murray, PNAS 12:207, 1926).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labkit.data.simulate.noise import key, uniform
from labkit.data.simulate.strands import Strands
from labkit.data.simulate.thorax import Thorax

_CELL_MM = 10.2  # a twig feeds a cube of lung of this width
_TWIG_RADIUS_MM = 0.41
_MARGIN_MM = 2.5  # twigs end this far from the pleura and from fissures
_BEND = 0.24  # how far along a branch it turns from its parent's direction to its own
_SHARE = 0.42  # how far a branch grows towards the middle of what it feeds
_AIRWAY_FLOW = 55  # branches that feed fewer twigs have no airway that could be seen
_ANY_WAY = np.array([0.31, 0.47, 0.83])
_UPWARD = np.array([0.3, 0.35, 1.0])


@dataclass(frozen=True)
class Tree:
    """Branches from the hilum outwards, in order: parents come before their children.

    Args:
        start_xyz_mm: (N, 3) where each branch leaves its parent.
        end_xyz_mm: (N, 3) where it parts, or ends.
        leaving: (N, 3) unit directions in which branches leave: those in which parents arrive.
        arriving: (N, 3) unit directions in which they arrive at their ends.
        flow: (N,) number of twigs that each feeds.
        parent: (N,) index of the parent; -1 for those that leave the hilum.
        twig_radius_mm: radius of a branch of flow 1.
    """

    start_xyz_mm: NDArray[np.float64]
    end_xyz_mm: NDArray[np.float64]
    leaving: NDArray[np.float64]
    arriving: NDArray[np.float64]
    flow: NDArray[np.int64]
    parent: NDArray[np.int64]
    twig_radius_mm: float

    @property
    def radius_mm(self) -> NDArray[np.float64]:
        """(N,) radii by Murray's law."""
        return self.twig_radius_mm * np.cbrt(self.flow)

    def strands(self) -> Strands:
        """The branches as rods, bent so that each leaves in the direction its parent arrives."""
        radius = self.radius_mm
        begin = np.where(self.parent >= 0, radius[self.parent], radius)
        begin = np.minimum(begin, 1.25 * radius)
        return _bent(self.start_xyz_mm, self.end_xyz_mm, self.leaving, begin, radius)

    def airways(self) -> tuple[Strands, Strands]:
        """Airways beside the larger branches: their outer surfaces, and the air within."""
        large = self.flow >= _AIRWAY_FLOW
        radius = self.radius_mm[large]
        outer = 1.0 * radius + 0.25
        wall = 0.10 * outer + 0.22
        # A place of its own beside every end, so that airways are joined where arteries are.
        end = self.end_xyz_mm[large] + _beside(self.arriving[large]) * (radius + outer)[:, None]
        number = np.cumsum(large) - 1
        parent = np.where(self.parent[large] >= 0, number[self.parent[large]], -1)
        # The stems leave the ends of the main bronchi, which lie at the hilum.
        start = np.where((parent >= 0)[:, None], end[parent], self.start_xyz_mm[large])
        begin = np.where(parent >= 0, np.minimum(outer[parent], 1.2 * outer), outer)
        leaving = self.leaving[large]
        return (
            _bent(start, end, leaving, begin, outer),
            _bent(start, end, leaving, np.maximum(begin - wall, 0.2), outer - wall),
        )


def grow(thorax: Thorax, seed: int, name: str, thickness: float = 1.0) -> Tree:
    """Grow a tree through both lungs, lobe by lobe; without lung there is none.

    Args:
        thorax: its lungs hold the tree, its fissures part the lobes.
        seed: of the patient.
        name: "arteries" or "veins", or another tree of one's own.
        thickness: factor of all radii.
    """
    twigs = _twigs(thorax, key(seed, name, "twigs"))
    lobe = thorax.lobe(*twigs.T)
    order = np.argsort(lobe, kind="stable")
    twigs, lobe = twigs[order], lobe[order]
    # What one branch feeds is always a run of rows.
    first: NDArray = np.flatnonzero(np.diff(lobe, prepend=-1))
    left = np.array([thorax.is_left_lobe(number) for number in lobe[first]], bool)
    start = thorax.hilum_xyz_mm(left)
    if name == "veins":  # they leave the lungs below and before the arteries
        start = start + np.array([0.0, -8.0, -14.0])
    leaving = np.where(left, 1.0, -1.0)[:, None] * np.array([1.0, 0.0, 0.0])
    parent: NDArray = np.full(len(first), -1)
    random = np.random.default_rng(key(seed, name, "branches"))
    parts: list[tuple[NDArray, ...]] = []
    count = 0
    while len(first):
        flow = np.diff(first, append=len(twigs))
        middle = np.add.reduceat(twigs, first, axis=0) / flow[:, None]
        share = np.where(flow > 1, _SHARE + 0.12 * (random.random(len(first)) - 0.5), 1.0)
        end = start + share[:, None] * (middle - start)
        control = start + _BEND * np.linalg.norm(end - start, axis=1)[:, None] * leaving
        arriving = _unit(end - control)
        parts.append((start, end, leaving, arriving, flow, parent))
        # Whatever feeds more than one twig parts in two, rarely into equal halves.
        above = np.flatnonzero(flow > 1)
        twigs = twigs[np.repeat(flow > 1, flow)]
        flow, ends = flow[above], np.cumsum(flow[above])
        first = ends - flow
        twigs = twigs[_order(twigs, first, flow, middle[above], arriving[above])]
        cut = np.rint(flow * (0.5 + 0.4 * (random.random(len(flow)) - 0.5))).astype(np.int64)
        cut = np.clip(cut, 1, flow - 1)
        first = np.concatenate([first, first + cut]).reshape(2, -1).T.ravel()
        above = np.repeat(above, 2)
        start, leaving, parent = end[above], arriving[above], count + above
        count += len(end)
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    names = ("start_xyz_mm", "end_xyz_mm", "leaving", "arriving", "flow", "parent")
    return Tree(
        twig_radius_mm=_TWIG_RADIUS_MM * thickness, **dict(zip(names, columns, strict=True))
    )


def _twigs(thorax: Thorax, salt: int) -> NDArray[np.float64]:
    """(N, 3) ends of twigs: one in every cell of a lattice, away from the lungs' surfaces."""
    low, high = (np.floor(b / _CELL_MM).astype(np.int64) for b in thorax.bounds_xyz_mm())
    axes = [np.arange(first, last + 1) for first, last in zip(low, high, strict=True)]
    index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    ix, iy, iz = index.T
    jitter = [uniform(ix, iy, iz, key(salt, k)).astype(np.float64) for k in range(3)]
    points = (index + np.stack(jitter, axis=-1)) * _CELL_MM
    points = points[thorax.lung(*points.T) < -_MARGIN_MM]
    return points[np.abs(thorax.fissure(*points.T)) > _MARGIN_MM]


def _order(
    points: NDArray[np.float64],
    first: NDArray[np.int64],
    flow: NDArray[np.int64],
    middle: NDArray[np.float64],
    along: NDArray[np.float64],
) -> NDArray[np.int64]:
    """The order of the points within their runs in which a plane would meet them.

    The plane holds the branch that arrives, and its normal is the direction, of those across that
    branch, in which what it feeds is widest.
    """
    if not len(first):
        return np.zeros(0, np.int64)
    group = np.repeat(np.arange(len(first)), flow)
    x, y, z = points.T - middle.T[:, group]
    u, v, w = along.T[:, group]
    forward = x * u + y * v + z * w
    x, y, z = x - forward * u, y - forward * v, z - forward * w
    products = np.stack([x * x, x * y, x * z, y * y, y * z, z * z])
    moments = np.add.reduceat(products, first, axis=1).T
    spread = moments[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
    # The widest direction, by squaring the matrix of second moments: near enough, and quick.
    for _ in range(3):
        spread = spread @ spread
        spread /= np.maximum(np.abs(spread).max(axis=(1, 2), keepdims=True), 1e-30)
    a, b, c = _unit(spread @ _ANY_WAY).T[:, group]
    height = x * a + y * b + z * c
    return np.argsort(1e4 * group + height, kind="stable")


def _bent(
    start: NDArray, end: NDArray, leaving: NDArray, begin_mm: NDArray, end_mm: NDArray
) -> Strands:
    """Curves that leave along a direction, as rods: three each, or one where they are short."""
    length = np.linalg.norm(end - start, axis=1, keepdims=True)
    control = start + _BEND * length * leaving
    parts = []
    for rods, some in ((3, length[:, 0] > 6.0), (2, length[:, 0] <= 6.0)):
        ends = np.linspace(0.0, 1.0, rods + 1)
        a, b, c = start[some], control[some], end[some]
        knots = [(1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c for t in ends]
        radii = [begin_mm[some] + t * (end_mm[some] - begin_mm[some]) for t in ends]
        parts += [Strands(knots[i], knots[i + 1], radii[i], radii[i + 1]) for i in range(rods)]
    return Strands.join(parts)


def _beside(along: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3) unit vectors across given directions, varying smoothly with them."""
    return _unit(_UPWARD - (along @ _UPWARD)[:, None] * along)


def _unit(way: NDArray) -> NDArray:
    """(N, 3) vectors of length 1 in the directions of others."""
    return way / np.maximum(np.sqrt((way**2).sum(axis=1, keepdims=True)), 1e-9)
