"""What several readers outlined, as one shape: a signed distance in mm at every point."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from labkit.data.lidc import Contour
from labkit.data.simulate.noise import Float, Place, upsample
from labkit.errors import InputError

MARGIN_MM = 6.5
_MOST_PIXELS = 80
_APART = 1e5


@dataclass(frozen=True)
class Shape:
    """A consensus shape, on a lattice of its own, readable anywhere.

    Args:
        distance_mm: (Z, Y, X) mean over readers of the signed distance to their outline, negative
            inside, mm.
        agreement: (Z, Y, X) share of the readers whose outline encloses the point, 0 to 1.
        first_xyz_mm: world position of the lattice's first point.
        step_xyz_mm: distances of its points.
    """

    distance_mm: Float
    agreement: Float
    first_xyz_mm: tuple[float, float, float]
    step_xyz_mm: tuple[float, float, float]

    @property
    def last_xyz_mm(self) -> tuple[float, float, float]:
        """World position of the lattice's last point."""
        z, y, x = self.distance_mm.shape
        fx, fy, fz = self.first_xyz_mm
        sx, sy, sz = self.step_xyz_mm
        return fx + sx * (x - 1), fy + sy * (y - 1), fz + sz * (z - 1)

    @property
    def volume_mm3(self) -> float:
        """Volume of the consensus: agreement summed, so that a half-agreed voxel counts half."""
        return float(self.agreement.sum(dtype=np.float64) * np.prod(self.step_xyz_mm))

    @property
    def radius_mm(self) -> float:
        """Radius of the ball of the same volume."""
        return float((3.0 * self.volume_mm3 / (4.0 * np.pi)) ** (1.0 / 3.0))

    @property
    def center_xyz_mm(self) -> NDArray[np.float64]:
        """Centre of mass of the consensus, mm."""
        index_zyx = ndimage.center_of_mass(self.agreement)
        return np.array(self.first_xyz_mm) + np.array(index_zyx[::-1]) * self.step_xyz_mm

    def window(self, *axes_xyz_mm: ArrayLike) -> tuple[slice, slice, slice]:
        """The part (z, y, x) of a grid of three ascending axes that lies within the lattice."""
        found = []
        for axis, low, high in zip(axes_xyz_mm, self.first_xyz_mm, self.last_xyz_mm, strict=True):
            start, stop = np.searchsorted(np.asarray(axis), (low, high))
            found.append(slice(int(start), int(stop)))
        return found[2], found[1], found[0]

    def places(self, *axes_xyz_mm: ArrayLike) -> tuple[Place, Place, Place]:
        """Where a grid's points lie on the lattice, for `noise.upsample`."""
        places = []
        sizes = self.distance_mm.shape[::-1]
        for axis, first, step, size in zip(
            axes_xyz_mm, self.first_xyz_mm, self.step_xyz_mm, sizes, strict=True
        ):
            position = (np.asarray(axis, dtype=np.float64) - first) / step
            lower = np.clip(np.floor(position), 0, size - 2).astype(np.intp)
            places.append((lower, np.clip(position - lower, 0.0, 1.0).astype(np.float32)))
        return places[2], places[1], places[0]

    def distance_at(self, x_mm: ArrayLike, y_mm: ArrayLike, z_mm: ArrayLike) -> Float:
        """Signed distance at the grid of three axes, (len z, len y, len x), mm."""
        return upsample(self.distance_mm, self.places(x_mm, y_mm, z_mm))

    def agreement_at(self, x_mm: ArrayLike, y_mm: ArrayLike, z_mm: ArrayLike) -> Float:
        """Share of the readers who enclose each point of the grid of three axes."""
        return upsample(self.agreement, self.places(x_mm, y_mm, z_mm))


def consensus(
    readers: Sequence[Sequence[Contour]], pixel_spacing_mm: float, slice_spacing_mm: float
) -> Shape:
    """The shape that the readers' outlines agree on.

    Each reader's outlines become a signed distance on their own slices, interpolated from slice
    to slice (shape-based interpolation: Raya and Udupa, IEEE TMI 9(1):32, 1990) and closed by
    rounded caps that reach 3/4 of a slice further: an elliptic cap of that height holds as much
    as the flat half slice that the usual sum over slabs ends with.

    Args:
        readers: each reader's outlines.
        pixel_spacing_mm: of the scan, mm; pixel (row, col) lies at ((col - 255.5) * spacing,
            (row - 255.5) * spacing) in the simulated world.
        slice_spacing_mm: distance of the scan's slices, mm.

    Raises:
        InputError: no reader outlined anything.
    """
    if not readers or not all(readers):
        raise InputError("a shape needs at least one outline from every reader; got none")
    vertices = np.concatenate([c.vertices_row_col_px for reader in readers for c in reader])
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    pad = int(np.ceil(MARGIN_MM / pixel_spacing_mm))
    stride = int(np.ceil((high - low + 1).max() / _MOST_PIXELS))
    rows = np.arange(low[0] - pad, high[0] + pad + stride, stride)
    cols = np.arange(low[1] - pad, high[1] + pad + stride, stride)
    heights = np.array([c.z_mm for reader in readers for c in reader])
    dz = slice_spacing_mm / np.ceil(slice_spacing_mm)
    count = int(np.ceil((heights.max() - heights.min() + 2 * MARGIN_MM) / dz)) + 1
    z_mm = heights.min() - MARGIN_MM + dz * np.arange(count)

    step = pixel_spacing_mm * stride
    distances = [_reader_distance(r, rows, cols, z_mm, step, slice_spacing_mm) for r in readers]
    # Half a voxel of blur at the boundary: the share of the voxel that is inside.
    inside = [np.clip(0.5 - d / step, 0.0, 1.0) for d in distances]
    return Shape(
        distance_mm=_mean(distances),
        agreement=_mean(inside),
        first_xyz_mm=(
            float((cols[0] - 255.5) * pixel_spacing_mm),
            float((rows[0] - 255.5) * pixel_spacing_mm),
            float(z_mm[0]),
        ),
        step_xyz_mm=(step, step, float(dz)),
    )


def _mean(arrays: list[Float]) -> Float:
    total = arrays[0].copy()
    for array in arrays[1:]:
        total += array
    return total / np.float32(len(arrays))


def _reader_distance(
    contours: Sequence[Contour],
    rows: NDArray[np.int64],
    cols: NDArray[np.int64],
    z_mm: NDArray[np.float64],
    step_mm: float,
    slice_spacing_mm: float,
) -> Float:
    """(len z, len rows, len cols) signed distance to one reader's outlines, mm."""
    by_slice: dict[float, list[Contour]] = defaultdict(list)
    for contour in contours:
        by_slice[contour.z_mm].append(contour)
    levels = np.array(sorted(by_slice))
    masks = np.stack([_slice_mask(by_slice[z], rows, cols) for z in levels])
    # One call for all slices, told that these are far apart, is one per slice.
    sampling = (_APART, step_mm, step_mm)
    outside = ndimage.distance_transform_edt(~masks, sampling=sampling)
    within = ndimage.distance_transform_edt(masks, sampling=sampling)
    plane = (outside - within).astype(np.float32)
    plane -= np.float32(0.5 * step_mm) * np.sign(plane)
    plane = ndimage.gaussian_filter(plane, (0.0, 0.7, 0.7), mode="nearest")
    return _between_slices(plane, levels, z_mm, slice_spacing_mm)


def _between_slices(
    plane: Float, levels: NDArray[np.float64], z_mm: NDArray[np.float64], slice_spacing_mm: float
) -> Float:
    """Signed distances on slices -> at every height, with rounded caps beyond the last slices."""
    if len(levels) == 1:
        body = np.repeat(plane, len(z_mm), axis=0)
    else:
        lower = np.clip(np.searchsorted(levels, z_mm, side="right") - 1, 0, len(levels) - 2)
        weight = np.clip((z_mm - levels[lower]) / np.diff(levels)[lower], 0.0, 1.0)
        weight = weight.astype(np.float32)[:, None, None]
        body = plane[lower] * (1 - weight) + plane[lower + 1] * weight
    cap = 0.75 * slice_spacing_mm
    for end, beyond in ((0, levels[0] - z_mm), (-1, z_mm - levels[-1])):
        out = beyond > 0
        t = beyond[out] / cap
        radius = float(-plane[end].min())
        rise = radius * (1 - np.sqrt(np.clip(1 - t**2, 0.0, 1.0))) + np.maximum(t - 1, 0) * cap
        body[out] += rise.astype(np.float32)[:, None, None]
    return body


def _slice_mask(
    contours: Sequence[Contour], rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Pixels of one slice that its outlines enclose, less their holes."""
    filled = [(c, _fill(c.vertices_row_col_px, rows, cols, edge=not c.inclusion)) for c in contours]
    mask = np.zeros((len(rows), len(cols)), bool)
    for contour, inside in filled:
        if contour.inclusion:
            mask |= inside
    solid = mask.copy()
    for contour, inside in filled:
        if not contour.inclusion:
            mask &= ~inside
    if mask.any():
        return mask
    # Dots and lines enclose no pixel, and some holes fill their outline: keep what was drawn.
    if solid.any():
        return solid
    drawn = np.concatenate([c.vertices_row_col_px for c in contours])
    mask[np.searchsorted(rows, drawn[:, 0]), np.searchsorted(cols, drawn[:, 1])] = True
    return mask


def _fill(
    vertices: NDArray[np.int64], rows: NDArray[np.int64], cols: NDArray[np.int64], edge: bool
) -> NDArray[np.bool_]:
    """Pixels inside a closed polygon of pixels by the even-odd rule, with or without its edge."""
    start = vertices.astype(np.float64)
    end = np.roll(start, -1, axis=0)
    crosses = (start[:, 0] <= rows[:, None]) != (end[:, 0] <= rows[:, None])
    row, side = np.nonzero(crosses)
    slope = (end[side, 1] - start[side, 1]) / (end[side, 0] - start[side, 0])
    column = start[side, 1] + (rows[row] - start[side, 0]) * slope
    passed = np.zeros((len(rows), len(cols) + 1), np.int64)
    np.add.at(passed, (row, np.searchsorted(cols, column)), 1)
    # A pixel is inside when an odd number of crossings lies to its right.
    inside = np.cumsum(passed[:, ::-1], axis=1)[:, ::-1][:, 1:] % 2 == 1
    r, c = np.searchsorted(rows, vertices[:, 0]), np.searchsorted(cols, vertices[:, 1])
    on_grid = (rows[r] == vertices[:, 0]) & (cols[c] == vertices[:, 1])
    inside[r[on_grid], c[on_grid]] = edge
    return inside
