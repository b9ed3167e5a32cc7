"""Thin things: vessels, airways and spicules as tapering rods, drawn only around themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labkit.data.simulate.noise import Float

_BOX_SIZES = np.array([5, 8, 13, 20, 40, 80, 160, 800])
_AT_ONCE = 100_000
_PIECE_MM = 4.0


@dataclass(frozen=True)
class Strands:
    """Straight rods with round ends, each thinner or thicker from its start to its end.

    Args:
        start_xyz_mm: (N, 3) world positions.
        end_xyz_mm: (N, 3) world positions.
        start_radius_mm: (N,) radii.
        end_radius_mm: (N,) radii.
    """

    start_xyz_mm: NDArray[np.float64]
    end_xyz_mm: NDArray[np.float64]
    start_radius_mm: NDArray[np.float64]
    end_radius_mm: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.start_xyz_mm)

    def near(self, low_xyz_mm: NDArray, high_xyz_mm: NDArray) -> Strands:
        """Those that `touching` finds."""
        return self.take(self.touching(low_xyz_mm, high_xyz_mm))

    def touching(self, low_xyz_mm: NDArray, high_xyz_mm: NDArray) -> NDArray[np.intp]:
        """Indices of those whose own box, with 1.5 mm around, meets the given one."""
        below, above = self._boxes(1.5)
        return np.flatnonzero(((above >= low_xyz_mm) & (below <= high_xyz_mm)).all(axis=1))

    def bounds_xyz_mm(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest corner of a box around all strands, with 1.5 mm around."""
        below, above = self._boxes(1.5)
        return below.min(axis=0), above.max(axis=0)

    def _boxes(self, margin_mm: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N, 3) lowest and highest corners of a box around each strand."""
        reach = np.maximum(self.start_radius_mm, self.end_radius_mm)[:, None] + margin_mm
        return (
            np.minimum(self.start_xyz_mm, self.end_xyz_mm) - reach,
            np.maximum(self.start_xyz_mm, self.end_xyz_mm) + reach,
        )

    def take(self, which: NDArray) -> Strands:
        """Some of them, by mask or index."""
        return Strands(
            self.start_xyz_mm[which],
            self.end_xyz_mm[which],
            self.start_radius_mm[which],
            self.end_radius_mm[which],
        )

    @classmethod
    def join(cls, parts: list[Strands]) -> Strands:
        """All strands of several sets; the empty set when there are none."""
        if not parts:
            return cls(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros(0))
        return cls(
            np.concatenate([p.start_xyz_mm for p in parts]),
            np.concatenate([p.end_xyz_mm for p in parts]),
            np.concatenate([p.start_radius_mm for p in parts]),
            np.concatenate([p.end_radius_mm for p in parts]),
        )

    def draw(
        self,
        into: Float,
        x_mm: NDArray[np.float64],
        y_mm: NDArray[np.float64],
        z_mm: NDArray[np.float64],
        edge_mm: float = 0.8,
    ) -> None:
        """Raise `into` to the share of tissue that the strands put at each point of a grid.

        The share falls from 1 to 0 within `edge_mm` across a strand's surface. A strand thinner
        than that never reaches 1: the same mass, seen blurred.

        Args:
            into: (len z, len y, len x) shares, changed in place; overlapping strands do not add.
            x_mm: ascending positions; `y_mm` and `z_mm` too.
        """
        pieces = self._cut()
        low, high = pieces._boxes(0.5 * edge_mm)
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
                pieces._draw_boxes(into, axes, some, first[some], box, edge_mm)

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
        self,
        into: Float,
        axes: tuple[NDArray, NDArray, NDArray],
        which: NDArray[np.int64],
        first: NDArray[np.int64],
        box: NDArray[np.int64],
        edge_mm: float,
    ) -> None:
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
        t += column(begin + 0.5 * edge_mm)
        found = np.flatnonzero((q < t * t) & (t > 0))
        ix, iy, iz = index
        _, height, width = into.shape
        flat = (((iz * height + iy) * width) + ix).ravel()[found]
        away = np.sqrt(np.maximum(q.ravel()[found], np.float32(0.0)))
        share = (t.ravel()[found] - away) * np.float32(1.0 / edge_mm)
        np.maximum.at(into.reshape(-1), flat, np.minimum(share, np.float32(1.0)))
