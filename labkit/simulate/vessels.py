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

from labkit.simulate.chest import Array, Thorax
from labkit.simulate.noise import Float, key, uniform

_BOX_SIZES = np.array([5, 8, 13, 20, 40, 80, 160, 800])
_AT_ONCE = 100_000
_PIECE_MM = 4.0
_EDGE_MM = 0.8


@dataclass(frozen=True)
class Strands:
    """Straight rods with round ends, each thinner or thicker from its start to its end."""

    start_xyz_mm: Array  # (N, 3) world positions
    end_xyz_mm: Array  # (N, 3) world positions
    start_radius_mm: Array  # (N,) radii
    end_radius_mm: Array  # (N,) radii

    def __len__(self) -> int:
        return len(self.start_xyz_mm)

    def near(self, low_xyz_mm: NDArray, high_xyz_mm: NDArray) -> Strands:
        """Find those whose own box, with 1.5 mm around, meets the given one."""
        below, above = self._boxes(1.5)
        meets = (above >= low_xyz_mm) & (below <= high_xyz_mm)
        return self.take(np.flatnonzero(meets.all(axis=1)))

    def bounds_xyz_mm(self) -> tuple[Array, Array]:
        """Return the lowest and highest corner of a box around all strands, with 1.5 mm around."""
        below, above = self._boxes(1.5)
        return below.min(axis=0), above.max(axis=0)

    def _boxes(self, margin_mm: float) -> tuple[Array, Array]:
        """(N, 3) lowest and highest corners of a box around each strand."""
        reach = np.maximum(self.start_radius_mm, self.end_radius_mm)[:, None] + margin_mm
        return (
            np.minimum(self.start_xyz_mm, self.end_xyz_mm) - reach,
            np.maximum(self.start_xyz_mm, self.end_xyz_mm) + reach,
        )

    def take(self, which: NDArray) -> Strands:
        """Take some of them, by mask or index."""
        return Strands(*(values[which] for values in vars(self).values()))

    @classmethod
    def join(cls, parts: list[Strands]) -> Strands:
        """Join the strands of several sets; the empty set when there are none."""
        if not parts:
            return cls(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros(0))
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    def draw(self, into: Float, x_mm: Array, y_mm: Array, z_mm: Array) -> None:
        """Raise `into` to the share of tissue that the strands put at each point of a grid.

        The share falls from 1 to 0 within 0.8 mm across a strand's surface. A strand thinner than
        that never reaches 1: the same mass, seen blurred.

        Args:
            into: (len z, len y, len x) shares, changed in place; overlapping strands do not add.
            x_mm: ascending positions; `y_mm` and `z_mm` too.
        """
        pieces = self._cut()
        low, high = pieces._boxes(0.5 * _EDGE_MM)
        axes = (x_mm, y_mm, z_mm)
        first = np.stack([np.searchsorted(a, low[:, i]) for i, a in enumerate(axes)], axis=1)
        last = np.stack([np.searchsorted(a, high[:, i]) for i, a in enumerate(axes)], axis=1)
        size = last - first
        met = np.flatnonzero((size > 0).all(axis=1))
        # Boxes of about one size are worked on together: a loop over strands would take as long
        # for its own steps as for the arithmetic.
        bucket = _BOX_SIZES[np.searchsorted(_BOX_SIZES, size[met])]
        order = np.lexsort(bucket.T)
        met, bucket = met[order], bucket[order]
        breaks = np.flatnonzero((np.diff(bucket, axis=0) != 0).any(axis=1)) + 1
        for group in np.split(np.arange(len(met)), breaks):
            if not len(group):
                continue
            box = bucket[group[0]]
            step = max(1, _AT_ONCE // int(box.prod()))
            for begin in range(0, len(group), step):
                some = met[group[begin : begin + step]]
                pieces._draw_boxes(into, axes, some, first[some], box)

    def _cut(self) -> Strands:
        """The same strands in pieces so short that their boxes hold little else."""
        along = self.end_xyz_mm - self.start_xyz_mm
        thick = np.maximum(self.start_radius_mm, self.end_radius_mm)
        length = np.sqrt((along**2).sum(axis=1))
        count = np.ceil(length / (_PIECE_MM + 2.0 * thick)).astype(np.intp).clip(1)
        owner = np.repeat(np.arange(len(self)), count)
        number = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        begin, end = number / count[owner], (number + 1) / count[owner]
        start, taper = self.start_xyz_mm[owner], self.end_radius_mm - self.start_radius_mm
        radius = self.start_radius_mm[owner]
        return Strands(
            start + begin[:, None] * along[owner],
            start + end[:, None] * along[owner],
            radius + begin * taper[owner],
            radius + end * taper[owner],
        )

    def _draw_boxes(
        self, into: Float, axes: tuple[NDArray, NDArray, NDArray], which: NDArray[np.int64], first:
        NDArray[np.int64], box: NDArray[np.int64],
    ) -> None:  # fmt: skip
        """Draw some strands, each in a box of one size that begins at its own first voxel."""
        start = self.start_xyz_mm[which]
        along = self.end_xyz_mm[which] - start
        squared = np.maximum((along**2).sum(axis=1), 1e-9)
        scaled = along / squared[:, None]
        index, delta = [], []
        for i, axis in enumerate(axes):
            at = first[:, i, None] + np.arange(box[i])
            inside = at < len(axis)
            away = axis[np.minimum(at, len(axis) - 1)] - start[:, i, None]
            shape = [len(which), 1, 1, 1]
            shape[3 - i] = int(box[i])
            # Beyond the grid's end: too far from anything to be drawn.
            delta.append(np.where(inside, away, 1e6).astype(np.float32).reshape(shape))
            index.append(at.astype(np.int32).reshape(shape))

        def column(values: NDArray) -> Float:
            return values.astype(np.float32).reshape(-1, 1, 1, 1)

        # Squared distance to a point on the axis at share t of its length, where q is the share
        # that the foot of the perpendicular has: |d|^2 + |a|^2 t (t - 2 q).
        dx, dy, dz = delta
        q = (dx * column(scaled[:, 0]) + dy * column(scaled[:, 1])) + dz * column(scaled[:, 2])
        t = np.clip(q, np.float32(0.0), np.float32(1.0))
        q *= np.float32(-2.0)
        q += t
        q *= t
        q *= column(squared)
        q += (dx * dx + dy * dy) + dz * dz
        begin = self.start_radius_mm[which]
        t *= column(self.end_radius_mm[which] - begin)
        t += column(begin + 0.5 * _EDGE_MM)
        found = np.flatnonzero((q < t * t) & (t > 0))
        ix, iy, iz = index
        _, height, width = into.shape
        flat = (((iz * height + iy) * width) + ix).ravel()[found]
        away = np.sqrt(np.maximum(q.ravel()[found], np.float32(0.0)))
        share = (t.ravel()[found] - away) * np.float32(1.0 / _EDGE_MM)
        np.maximum.at(into.reshape(-1), flat, np.minimum(share, np.float32(1.0)))


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
    """Branches from the hilum outwards, in order: parents come before their children."""

    start_xyz_mm: Array  # (N, 3) where each branch leaves its parent
    end_xyz_mm: Array  # (N, 3) where it parts, or ends
    # (N, 3) unit directions in which branches leave: those in which parents arrive
    leaving: Array
    arriving: Array  # (N, 3) unit directions in which they arrive at their ends
    flow: NDArray[np.int64]  # (N,) number of twigs that each feeds
    parent: NDArray[np.int64]  # (N,) index of the parent; -1 for those that leave the hilum
    twig_radius_mm: float  # radius of a branch of flow 1

    @property
    def radius_mm(self) -> Array:
        """(N,) radii by Murray's law."""
        return self.twig_radius_mm * np.cbrt(self.flow)

    def strands(self) -> Strands:
        """Return the branches as rods, bent to leave in the direction their parents arrive."""
        radius = self.radius_mm
        begin = np.where(self.parent >= 0, radius[self.parent], radius)
        begin = np.minimum(begin, 1.25 * radius)
        return _bent(self.start_xyz_mm, self.end_xyz_mm, self.leaving, begin, radius)

    def airways(self) -> tuple[Strands, Strands]:
        """Return airways beside the larger branches: their outer surfaces, and the air within."""
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

    The thorax's lungs hold the tree, its fissures part the lobes. `name` is "arteries" or "veins",
    or another tree of one's own; `thickness` is a factor of all radii.
    """
    twigs = _twigs(thorax, key(seed, name, "twigs"))
    lobe = thorax.lobe(*twigs.T)
    order = np.argsort(lobe, kind="stable")
    twigs, lobe = twigs[order], lobe[order]
    # What one branch feeds is always a run of rows.
    first: NDArray = np.flatnonzero(np.diff(lobe, prepend=-1))
    left = lobe[first] >= 3
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


def _twigs(thorax: Thorax, salt: int) -> Array:
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
    points: Array, first: NDArray[np.int64], flow: NDArray[np.int64], middle: Array, along: Array
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


def _beside(along: Array) -> Array:
    """(N, 3) unit vectors across given directions, varying smoothly with them."""
    return _unit(_UPWARD - (along @ _UPWARD)[:, None] * along)


def _unit(way: NDArray) -> NDArray:
    """(N, 3) vectors of length 1 in the directions of others."""
    return way / np.maximum(np.sqrt((way**2).sum(axis=1, keepdims=True)), 1e-9)
