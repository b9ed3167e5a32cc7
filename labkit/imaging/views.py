"""From a scan to what the networks see: a cube of 64 mm around a nodule, and nine views of it.

Every sample is one cubic B-spline interpolation of the scan's own voxels (paper, section III-A:
1 mm, "spline interpolation"), never an interpolation of an interpolation. Samples lie at
`(arange(size) - (size - 1) / 2) * spacing_mm` from the nodule's centre, which is therefore the
exact centre of every cube and image, half way between the two middle samples; a smaller cube or
view is the middle of a larger one. Directions are the world's (LPS), whatever the scan's own are.

The cube is indexed `cube[z, y, x]`, each growing with its world coordinate: to the head, to the
back, to the patient's left. The views are indexed `views[plane, row, column]` as `PLANES` says:
axial rows go to the back, in the other eight rows go to the feet. So, of equal size and spacing,

- `views[0]` lies half way between `cube[31]` and `cube[32]`,
- `views[1]` lies half way between `cube[::-1, 31]` and `cube[::-1, 32]`,
- `views[2]` lies half way between `cube[::-1, :, 31]` and `cube[::-1, :, 32]`.

A point more than half a voxel beyond the scan's outermost voxel centres is air, -1000 HU. Up to
there the scan is continued as its mirror image, as SimpleITK does. Beside a sharp edge a cubic
spline overshoots by some per cent; `window` clips that, where networks meet the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_banded
from scipy.ndimage import map_coordinates, spline_filter
from threadpoolctl import ThreadpoolController

from labkit.errors import InputError
from labkit.imaging.planes import PLANES, Plane, offsets_mm
from labkit.imaging.volume import AIR_HU, Volume

Image = NDArray[np.float32]
_Floats = NDArray[np.float64]
_Lungs = NDArray[np.bool_] | None
# These products are small: on a busy machine many threads cost twenty times what one does.
_on_one_thread = ThreadpoolController().wrap(limits=1, user_api="blas")


@_on_one_thread
def cube(
    volume: Volume, center_xyz_mm: ArrayLike, size: int = 64, spacing_mm: float = 1.0,
    lungs: _Lungs = None,
) -> Image:  # fmt: skip
    """Cut out the cube around a nodule, resampled once from the scan (paper, section III-A).

    Args:
        volume: the scan, HU.
        center_xyz_mm: (3,) world position of the nodule's centre, mm, LPS.
        size: samples along each edge.
        spacing_mm: distance between samples, mm.
        lungs: (Z, Y, X) bool, the volume's shape: beyond it the scan becomes chest wall, as by
            `lungs.outside_as_wall`. Give the lungs with a margin, as `lungs.dilate` makes it.

    Returns:
        (size, size, size) float32 HU, axes (z, y, x) along the world's.

    Raises:
        InputError: a centre that is not three finite numbers, no positive size or spacing, or
            lungs of another shape.

    >>> scan = Volume(np.full((40, 80, 80), 30, np.int16), (0.7, 0.7, 2.0))
    >>> cube(scan, (28, 28, 40), size=16).round(2).mean(axis=(1, 2)).tolist()[:3]
    [30.0, 30.0, 30.0]
    """
    return _Around(volume, center_xyz_mm, size, spacing_mm, lungs).cube(size, spacing_mm)


def nine_views(
    volume: Volume, center_xyz_mm: ArrayLike, size: int = 64, spacing_mm: float = 1.0,
    lungs: _Lungs = None,
) -> Image:  # fmt: skip
    """Cut out the nine views of a nodule in the order of `PLANES` (section III-A and Fig. 2b).

    As in Setio et al., IEEE TMI 35(5):1160, 2016, all at `spacing_mm` in both directions: slicing
    an array along its diagonal would stretch by sqrt(2). Returns (9, size, size) float32 HU, axes
    (plane, row, column); arguments and errors are `cube`'s.
    """
    return _Around(volume, center_xyz_mm, size, spacing_mm, lungs).views(size, spacing_mm)


@_on_one_thread
def cube_and_views(
    volume: Volume, center_xyz_mm: ArrayLike, size: int = 64, view_size: int = 76,
    spacing_mm: float = 1.0, lungs: _Lungs = None,
) -> tuple[Image, Image]:  # fmt: skip
    """Cut out `cube` of `size` and `nine_views` of `view_size`, as a cohort stores them."""
    around = _Around(volume, center_xyz_mm, min(size, view_size), spacing_mm, lungs)
    return around.cube(size, spacing_mm), around.views(view_size, spacing_mm)


def nine_views_each(
    volume: Volume, centers_xyz_mm: ArrayLike, size: int = 64, spacing_mm: float = 1.0,
    lungs: _Lungs = None,
) -> Iterator[tuple[int, Image]]:  # fmt: skip
    """Cut out the nine views of many points of one scan, as a detector of nodules leaves them.

    The spline's coefficients are computed once for all the points of a part of the scan: for
    hundreds of points five times as fast as `nine_views` of each, and the same but for 0.003 HU.
    `centers_xyz_mm` is (n, 3); the rest, and the errors, are `cube`'s.

    Yields:
        Number of the point, in the order in which it suits the scan, and its views
        (9, size, size) float32 HU.
    """
    centers = np.asarray(centers_xyz_mm, dtype=np.float64)
    if centers.ndim != 2 or centers.shape[1] != 3 or not np.isfinite(centers).all():
        raise InputError(f"centres are (n, 3) finite coordinates x, y, z in mm, not an array of "
                         f"shape {centers.shape}, or some are not finite")  # fmt: skip
    volume = _checked(volume, size, spacing_mm, lungs)
    found = _world_axes(volume)
    if found is None:
        for k, center in enumerate(centers):
            yield k, nine_views(volume, center, size, spacing_mm)
        return
    axes, per_mm = found
    voxels = np.transpose(volume.voxels, axes)
    index = volume.index_from_world(centers)[:, axes]
    reach = (size - 1) / 2 * spacing_mm * np.abs(per_mm)
    kinds = {step for plane in PLANES for step in enumerate(_steps_zyx(plane, spacing_mm))}
    for numbers, low, high in _parts(index, reach, np.array(voxels.shape)):
        box = coefficients(voxels[tuple(map(slice, low, high))])
        taps = {
            (a, step): _taps(
                index[numbers, a, None] + offsets_mm(size, step) * per_mm[a], voxels.shape[a],
                int(low[a]) - PAD,
            )
            for a, step in kinds
        }  # fmt: skip
        for k, number in enumerate(numbers):
            own = {key: (first[k], w[k], outside[k]) for key, (first, w, outside) in taps.items()}
            yield number, _views(_InBox(box, own), size, spacing_mm)


def window(hu: ArrayLike, low: float = -1000.0, high: float = 400.0) -> Image:
    """Rescale HU from (low, high) to (0, 1) and clip there (paper, section III-A).

    >>> window([-2000, -1000, -300, 400, 3000]).tolist()
    [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    if not high > low:
        raise InputError(f"a window needs low < high, not ({low}, {high})")
    scaled = (np.asarray(hu, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    return np.clip(scaled, 0.0, 1.0)


def _checked(volume: Volume, size: int, spacing_mm: float, lungs: _Lungs) -> Volume:
    """The scan to be sampled: with wall beyond the lungs, when they are given."""
    if size < 1 or not 0 < spacing_mm < np.inf:
        raise InputError(f"size {size} and spacing {spacing_mm} mm must both be above 0")
    if lungs is None:
        return volume
    from labkit.imaging.lungs import outside_as_wall  # needs SimpleITK, as nothing else here

    return outside_as_wall(volume, lungs)


def _world_axes(volume: Volume) -> tuple[list[int], _Floats] | None:
    """Array axes along the world's z, y and x, and their signs over mm; None if they do not run so.

    None also if a plane ties all three axes together (as through three corners of the cube).
    """
    if any(np.multiply(plane.row_xyz, plane.col_xyz).any() for plane in PLANES):
        return None
    # World axis -> axis of the index, both counted x, y, z.
    columns = np.argmax(np.abs(volume.direction), axis=1)
    signs = np.sign(volume.direction[np.arange(3), columns])
    straight = np.zeros((3, 3))
    straight[np.arange(3), columns] = signs
    # A tilt of 1e-6 moves the corner of a 76 mm view by 0.0001 mm.
    if np.abs(volume.direction - straight).max() > 1e-6 or len(set(columns)) < 3:
        return None
    axes = [2 - int(c) for c in columns[::-1]]
    return axes, signs[::-1] / np.array(volume.spacing_zyx_mm)[axes]


# --- cubic B-splines ----------------------------------------------------------------------------
#
# A prefilter turns voxels into coefficients, then every sample is a weighted sum of four of them
# (Unser, IEEE Signal Processing Magazine 16(6):22, 1999); along one axis both are one matrix. The
# weight of a voxel k away is at most 1.73 * 0.268**k: at 12 voxels 0.0005 HU of a 2,000 HU edge.

MARGIN_VOXELS = 12
# A sample at half a voxel beyond the outermost voxel's centre reaches two coefficients beyond it.
PAD = 2
_BLOCK = 64
_ROWS = 8
_FOUR = np.arange(4)


def _inside(positions: _Floats, length: int | NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which fractional positions lie on one of `length` voxels, half a voxel to either side."""
    return (positions >= -0.5) & (positions <= length - 0.5)


def _widened(first: int, stop: int, length: int) -> tuple[int, int]:
    return max(0, first - MARGIN_VOXELS), min(length, stop + MARGIN_VOXELS)


def _mirrored(index: ArrayLike, length: int) -> NDArray[np.int64]:
    """Indices folded back into 0..length-1 about the first and the last voxel (b a | b c)."""
    period = max(2 * (length - 1), 1)
    folded = np.abs(index) % period
    return np.where(folded < length, folded, period - folded)


def _weights(fraction: _Floats) -> _Floats:
    """Weights (..., 4) of the coefficients at floor-1, floor, floor+1 and floor+2."""
    t = fraction
    each = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    return np.stack(each, axis=-1) / 6.0


def _solved(right: _Floats, transposed: bool) -> _Floats:
    """Solve for n coefficients, whose samples at the voxels are (1, 4, 1) / 6 of neighbours."""
    n = len(right)
    if n == 1:
        return np.ones_like(right)
    bands = np.zeros((3, n))
    bands[0, 1:], bands[1], bands[2, :-1] = 1 / 6, 4 / 6, 1 / 6
    # The mirror doubles the one neighbour of an end: (4, 2) / 6 in a row, or transposed a column.
    if transposed:
        bands[2, 0] = bands[0, -1] = 2 / 6
    else:
        bands[0, 1] = bands[2, -2] = 2 / 6
    return solve_banded((1, 1), bands, right, check_finite=False)


def _sampling_matrix(positions: _Floats, length: int) -> tuple[Image, slice]:
    """The (m, k) matrix from voxels along an axis to cubic-spline samples, and which k voxels.

    The signal goes on past both ends as its mirror image about the end voxel, as in SimpleITK
    and scipy's mode "mirror". Rows of positions (m,) beyond the voxels are zero.
    """
    seen = _inside(positions, length)
    if not seen.any():
        return np.zeros((len(positions), 0), np.float32), slice(0, 0)
    at = positions[seen]
    first, stop = _widened(int(np.floor(at.min())), int(np.ceil(at.max())) + 1, length)
    # Solving on twice the margin makes the mirror at an inner end invisible to the samples.
    low, high = _widened(first, stop, length)
    base = np.floor(at).astype(np.int64)
    weights = _weights(at - base)
    from_coefficients = np.zeros((high - low, len(at)))
    for tap in range(4):
        rows = _mirrored(base - 1 + tap - low, high - low)
        np.add.at(from_coefficients, (rows, np.arange(len(at))), weights[:, tap])
    # samples = weights . inverse(P) . voxels with P tridiagonal, so its transpose is solved for.
    matrix = np.zeros((len(positions), stop - first), np.float32)
    matrix[seen] = _solved(from_coefficients, True)[first - low : stop - low].T
    return matrix, slice(first, stop)


@_on_one_thread
def coefficients(voxels: NDArray) -> Image:
    """Compute the spline coefficients of a box of voxels, continued by their mirror images.

    By products of blocks with a margin: five times as fast as the usual recursion. Of (z, y, x)
    voxels they are (z + 4, y + 4, x + 4) float32: coefficient [k + 2] belongs to voxel [k].
    """
    z, y, x = voxels.shape
    blocks: list[list[tuple[slice, slice, Image]]] = [[], [], []]
    for own, n in zip(blocks, (z, y, x), strict=True):
        for first in range(0, n, _BLOCK):
            stop = min(first + _BLOCK, n)
            low, high = _widened(first, stop, n)
            # Twice the margin makes the mirror at an inner end invisible to the block.
            start, end = _widened(low, high, n)
            whole = _solved(np.eye(end - start), False)
            part = whole[first - start : stop - start, low - start : high - start]
            matrix = np.ascontiguousarray(part, dtype=np.float32)
            own.append((slice(first, stop), slice(low, high), matrix))

    def along(axis: int, lines: Image) -> Image:
        result = np.empty_like(lines)
        for rows, source, matrix in blocks[axis]:
            np.matmul(matrix, lines[source], out=result[rows])
        return result

    padded = np.empty((z + 2 * PAD, y + 2 * PAD, x + 2 * PAD), np.float32)
    inner = padded[PAD:-PAD, PAD:-PAD, PAD:-PAD]
    for image, into in zip(voxels, inner, strict=True):
        turned = along(2, np.ascontiguousarray(image.T, dtype=np.float32))
        into[:] = along(1, np.ascontiguousarray(turned.T))
    for first in range(0, y, _ROWS):
        rows = inner[:, first : first + _ROWS]
        rows[:] = along(0, np.ascontiguousarray(rows).reshape(z, -1)).reshape(rows.shape)
    for axis, n in enumerate((z, y, x)):
        lines = np.moveaxis(padded, axis, 0)
        for k in (-1, -2, n, n + 1):
            lines[PAD + k] = lines[PAD + _mirrored(k, n)]
    return padded


def _at_points(volume: Volume, points_xyz_mm: _Floats) -> Image:
    """HU (...) at world points (..., 3) of a scan of any direction, point by point."""
    shape = np.asarray(volume.shape)
    index = volume.index_from_world(points_xyz_mm)
    seen = _inside(index, shape).all(axis=-1)
    values = np.full(seen.shape, AIR_HU, np.float32)
    if seen.any():
        index = index[seen]
        low = np.maximum(np.floor(index.min(axis=0)).astype(int) - MARGIN_VOXELS, 0)
        high = np.minimum(np.ceil(index.max(axis=0)).astype(int) + MARGIN_VOXELS + 1, shape)
        crop = volume.voxels[tuple(map(slice, low, high))].astype(np.float64)
        found = spline_filter(crop, order=3, mode="mirror")
        at = (index - low).T
        values[seen] = map_coordinates(found, at, order=3, mode="mirror", prefilter=False)
    return values


# --- samples around a point ---------------------------------------------------------------------
#
# Axes are counted z, y, x. In a scan whose axes run along the world's (nearly all) a cube is a
# tensor product of three small matrices, and a plane through two edges of a cube ties only two
# axes together: from the voxels around one point, or from the coefficients of a box with many.


@_on_one_thread
def _views(around: _Around | _InBox, size: int, spacing_mm: float) -> Image:
    """(planes, size, size) HU of a scan whose axes run along the world's.

    Samplers have `face`: an image along the two axes that are not `through`; `edge`: one whose
    columns run along one axis and whose rows tie the others; and `outside`: which samples are.
    """
    images = np.empty((len(PLANES), size, size), np.float32)
    for image, plane in zip(images, PLANES, strict=True):
        # In such a plane no coordinate changes both down the image and across it.
        down, across = ([a for a in range(3) if v[2 - a]] for v in (plane.row_xyz, plane.col_xyz))
        steps = _steps_zyx(plane, spacing_mm)
        if len(down) == len(across) == 1:
            face = around.face(size, steps, 3 - down[0] - across[0])
            image[:] = face if down < across else face.T
        elif len(across) == 1:
            image[:] = around.edge(size, steps, across[0])
        else:
            image[:] = around.edge(size, steps, down[0]).T
        for a in range(3):
            lines = image.T if a in across else image
            lines[around.outside(a, size, steps[a])] = AIR_HU
    return images


def _steps_zyx(plane: Plane, spacing_mm: float) -> tuple[float, ...]:
    """How far along z, y and x a pixel is from the one before it, down or across, mm."""
    both = zip(plane.row_xyz[::-1], plane.col_xyz[::-1], strict=True)
    return tuple((r + c) * spacing_mm for r, c in both)


class _Around:
    """Samples around one point from the voxels, with matrices that the planes share."""

    def __init__(
        self, volume: Volume, center_xyz_mm: ArrayLike, size: int, spacing_mm: float, lungs: _Lungs
    ) -> None:
        self._point = np.asarray(center_xyz_mm, dtype=np.float64)
        if self._point.shape != (3,) or not np.isfinite(self._point).all():
            raise InputError(
                f"a centre is three finite coordinates x, y, z in mm, not {center_xyz_mm!r}"
            )
        self._volume = _checked(volume, size, spacing_mm, lungs)
        found = _world_axes(self._volume)
        self._oblique = found is None  # then all is sampled point by point
        axes, self._per_mm = found or ([0, 1, 2], np.ones(3))
        self._voxels = np.transpose(self._volume.voxels, axes)
        self._center = self._volume.index_from_world(self._point)[axes]
        self._matrices: dict[tuple[int, int, float], tuple[Image, slice]] = {}
        self._half_summed: dict[tuple[int, int, float], Image] = {}

    def _positions(self, axis: int, size: int, step_mm: float) -> _Floats:
        return self._center[axis] + offsets_mm(size, step_mm) * self._per_mm[axis]

    def outside(self, axis: int, size: int, step_mm: float) -> NDArray[np.bool_]:
        return ~_inside(self._positions(axis, size, step_mm), self._voxels.shape[axis])

    def _along(self, size: int, steps: tuple[float, ...]) -> tuple[list[Image], tuple[slice, ...]]:
        """The matrices of the three axes (one row where there is no step), and their voxels."""
        keys = [(axis, size if step else 1, step) for axis, step in enumerate(steps)]
        for key in keys:
            if key not in self._matrices:
                positions = self._positions(*key)
                self._matrices[key] = _sampling_matrix(positions, self._voxels.shape[key[0]])
        matrices, spans = zip(*(self._matrices[key] for key in keys), strict=True)
        return list(matrices), spans

    def _crop(self, spans: tuple[slice, ...]) -> Image:
        return np.ascontiguousarray(self._voxels[spans], dtype=np.float32)

    def cube(self, size: int, spacing_mm: float) -> Image:
        """(size, size, size) HU, axes (z, y, x)."""
        if self._oblique:
            z, y, x = np.meshgrid(*[offsets_mm(size, spacing_mm)] * 3, indexing="ij")
            return _at_points(self._volume, self._point + np.stack([x, y, z], axis=-1))
        (mz, my, mx), spans = self._along(size, (spacing_mm,) * 3)
        along_yx = my @ (self._crop(spans) @ mx.T)
        cube = (mz @ along_yx.reshape(len(along_yx), size * size)).reshape(size, size, size)
        for axis in range(3):
            np.moveaxis(cube, axis, 0)[self.outside(axis, size, spacing_mm)] = AIR_HU
        return cube

    def views(self, size: int, spacing_mm: float) -> Image:
        """(planes, size, size) HU."""
        if self._oblique:
            points = [plane.points_xyz_mm(self._point, size, spacing_mm) for plane in PLANES]
            return _at_points(self._volume, np.stack(points))
        return _views(self, size, spacing_mm)

    def face(self, size: int, steps: tuple[float, ...], through: int) -> Image:
        """The axis through the image is summed first, over the few voxels that count."""
        matrices, spans = self._along(size, steps)
        crop, (w,) = self._crop(spans), matrices.pop(through)
        if through == 0:
            flat = np.tensordot(w, crop, 1)
        else:
            flat = w @ crop if through == 1 else crop @ w
        return matrices[0] @ flat @ matrices[1].T

    def edge(self, size: int, steps: tuple[float, ...], lone: int) -> Image:
        """Of the tied two axes one is summed for all rows at once, and then the other row by row.

        The first sum is the same for both diagonals of a cube.
        """
        (mz, my, mx), spans = self._along(size, steps)
        key = (lone, size, steps[2 if lone == 0 else 0])
        if key not in self._half_summed:
            crop = self._crop(spans)
            self._half_summed[key] = crop @ mx.T if lone == 0 else np.tensordot(mz, crop, 1)
        rule, tied, rest = (("iy,zyi->iz", my, mz), ("ix,iyx->iy", mx, my),
                            ("iy,iyx->ix", my, mx))[lone]  # fmt: skip
        return np.einsum(rule, tied, self._half_summed[key]) @ rest.T


# Points are taken by their place along the scan's first axis, as many at a time as lie in a box of
# 128 million voxels (512 MB).
_MOST_VOXELS = 128_000_000


def _parts(
    index: _Floats, reach: _Floats, shape: NDArray[np.int64]
) -> list[tuple[list[int], NDArray, NDArray]]:
    """Numbers of points that are taken together, and first and last + 1 voxel of their box."""
    lows = np.floor(index - reach).astype(np.int64) - MARGIN_VOXELS
    highs = np.ceil(index + reach).astype(np.int64) + MARGIN_VOXELS + 1
    # A box beyond the scan keeps one voxel of it.
    lows, highs = np.clip(lows, 0, shape - 1), np.clip(highs, 1, shape)
    parts: list[tuple[list[int], NDArray, NDArray]] = []
    for k in np.argsort(index[:, 0], kind="stable").tolist():
        if parts:
            numbers, low, high = parts[-1]
            low, high = np.minimum(low, lows[k]), np.maximum(high, highs[k])
            if np.prod(high - low) <= _MOST_VOXELS:
                parts[-1] = ([*numbers, k], low, high)
                continue
        parts.append(([k], lows[k], highs[k]))
    alone = np.prod(highs - lows, axis=1).sum()
    if alone < sum(np.prod(high - low) for _, low, high in parts):  # few points far apart
        return [([k], lows[k], highs[k]) for k in range(len(index))]
    return parts


def _taps(index: _Floats, length: int, first: int) -> tuple[NDArray, NDArray, NDArray]:
    """Where samples (n, size) along an axis fall among the coefficients, counted from `first`.

    The first of each sample's four coefficients, their weights (n, size, 4), and which are outside.
    """
    outside = ~_inside(index, length)
    index = np.clip(index, -0.5, length - 0.5)
    base = np.floor(index)
    return base.astype(np.int64) - 1 - first, _weights(index - base).astype(np.float32), outside


class _InBox:
    """The views around one of the points in a box, from the box's coefficients."""

    def __init__(self, box: Image, taps: dict[tuple[int, float], tuple[Any, Any, Any]]) -> None:
        self._box = box
        self._taps = taps  # (axis, step) -> first (size,), weights (size, 4), outside (size,)

    def outside(self, axis: int, size: int, step_mm: float) -> NDArray[np.bool_]:
        return self._taps[axis, step_mm][2]

    def _along(self, axis: int, step_mm: float) -> tuple[Image, slice]:
        """(size, coefficients), and which coefficients they are."""
        first, weights, _ = self._taps[axis, step_mm]
        span = slice(int(first.min()), int(first.max()) + 4)
        matrix = np.zeros((len(first), span.stop - span.start), np.float32)
        np.put_along_axis(matrix, first[:, None] - span.start + _FOUR, weights, axis=1)
        return matrix, span

    def face(self, size: int, steps: tuple[float, ...], through: int) -> Image:
        """The four coefficients across the image are summed first."""
        rows, columns = (self._along(*key) for key in enumerate(steps) if key[0] != through)
        first, weights, _ = self._taps[through, steps[through]]
        spans, w = [rows[1], columns[1]], weights[0]
        spans.insert(through, slice(int(first[0]), int(first[0]) + 4))
        crop = self._box[tuple(spans)]
        if through == 2:
            flat = crop @ w
        else:
            layers = np.moveaxis(crop, through, 0)
            flat = w[0] * layers[0] + w[1] * layers[1] + w[2] * layers[2] + w[3] * layers[3]
        return rows[0] @ flat @ columns[0].T

    def edge(self, size: int, steps: tuple[float, ...], lone: int) -> Image:
        """Each row's 4 x 4 coefficients of the tied axes first, all along the lone axis."""
        _, ny, nx = self._box.shape
        tied = [(self._taps[key], (ny * nx, nx, 1)[key[0]]) for key in enumerate(steps)]
        ((first, high, _), stride), ((second, low, _), step) = (*tied[:lone], *tied[lone + 1 :])
        at = [(first[:, None] + _FOUR) * stride, (second[:, None] + _FOUR) * step]
        at_16 = (at[0][:, :, None] + at[1][:, None, :]).reshape(size, 16)
        w_16 = (high[:, :, None] * low[:, None, :]).reshape(size, 16)
        matrix, span = self._along(lone, steps[lone])
        if lone == 2:
            lines = self._box.reshape(-1, nx)[:, span][at_16 // nx]
            summed = np.matmul(w_16[:, None, :], lines)[:, 0]
        elif lone == 1:
            along = np.arange(span.start, span.stop) * nx
            lines = self._box.ravel().take(at_16[:, None, :] + along[None, :, None])
            summed = np.matmul(lines, w_16[:, :, None])[:, :, 0]
        else:
            lines = self._box.reshape(-1, ny * nx)[span].take(at_16.ravel(), axis=1)
            summed = np.einsum("zit,it->iz", lines.reshape(-1, size, 16), w_16)
        return summed @ matrix.T
