"""A nodule as something to be seen: its share of tissue and its HU at every point."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from labkit.annotations.lidc import Contour
from labkit.errors import InputError
from labkit.simulate.chest import Array, Thorax
from labkit.simulate.noise import Float, Place, generator, key, texture, upsample
from labkit.simulate.scan import PIXELS, Finding
from labkit.simulate.vessels import Strands

MARGIN_MM = 6.5
_MOST_PIXELS = 80
_APART = 1e5


@dataclass(frozen=True)
class Shape:
    """A consensus shape, on a lattice of its own, readable anywhere."""

    # (Z, Y, X) mean over readers of the signed distance to their outline, negative inside, mm
    distance_mm: Float
    agreement: Float  # (Z, Y, X) share of the readers whose outline encloses the point, 0 to 1
    first_xyz_mm: tuple[float, float, float]  # world position of the lattice's first point
    step_xyz_mm: tuple[float, float, float]  # distances of its points

    @property
    def volume_mm3(self) -> float:
        """Volume of the consensus: agreement summed, so that a half-agreed voxel counts half."""
        return float(self.agreement.sum(dtype=np.float64) * np.prod(self.step_xyz_mm))

    @property
    def radius_mm(self) -> float:
        """Radius of the ball of the same volume."""
        return float((3.0 * self.volume_mm3 / (4.0 * np.pi)) ** (1.0 / 3.0))

    @property
    def center_xyz_mm(self) -> Array:
        """Centre of mass of the consensus, mm."""
        index_zyx = ndimage.center_of_mass(self.agreement)
        return np.array(self.first_xyz_mm) + np.array(index_zyx[::-1]) * self.step_xyz_mm

    def window(self, *axes_xyz_mm: ArrayLike) -> tuple[slice, slice, slice]:
        """Find the part (z, y, x) of a grid of three ascending axes within the lattice."""
        found = []
        sizes = self.distance_mm.shape[::-1]
        for axis, first, step, size in zip(
            axes_xyz_mm, self.first_xyz_mm, self.step_xyz_mm, sizes, strict=True
        ):
            start, stop = np.searchsorted(np.asarray(axis), (first, first + step * (size - 1)))
            found.append(slice(int(start), int(stop)))
        return found[2], found[1], found[0]

    def places(self, *axes_xyz_mm: ArrayLike) -> tuple[Place, Place, Place]:
        """Find where a grid's points lie on the lattice, for `noise.upsample`."""
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
        """Compute the share of the readers who enclose each point of the grid of three axes."""
        return upsample(self.agreement, self.places(x_mm, y_mm, z_mm))


def consensus(
    readers: Sequence[Sequence[Contour]], pixel_spacing_mm: float, slice_spacing_mm: float
) -> Shape:
    """Compute the shape that the readers' outlines agree on.

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
    n = np.float32(len(readers))
    return Shape(
        distance_mm=sum(distances[1:], distances[0]) / n,
        agreement=(sum(inside[1:], inside[0]) / n).astype(np.float32),
        first_xyz_mm=(
            float((cols[0] - 255.5) * pixel_spacing_mm),
            float((rows[0] - 255.5) * pixel_spacing_mm),
            float(z_mm[0]),
        ),
        step_xyz_mm=(step, step, float(dz)),
    )


def _reader_distance(
    contours: Sequence[Contour], rows: NDArray[np.int64], cols: NDArray[np.int64], z_mm: Array,
    step_mm: float, slice_spacing_mm: float,
) -> Float:  # fmt: skip
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


def _between_slices(plane: Float, levels: Array, z_mm: Array, slice_spacing_mm: float) -> Float:
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


CALCIUM = {
    1.0: "popcorn", 2.0: "laminated", 3.0: "solid", 4.0: "non-central", 5.0: "central",
    6.0: "absent",
}  # fmt: skip
INTERIOR = {1.0: "soft tissue", 2.0: "fluid", 3.0: "fat", 4.0: "air"}
_INTERIOR_HU = {"soft tissue": 40.0, "fluid": 8.0, "fat": -70.0, "air": 40.0}


@dataclass(frozen=True)
class Appearance:
    """What a nodule is made of."""

    tissue_hu: float  # HU of its solid part
    veil: float  # share of tissue in its ground glass, 0 to 1
    # Share of the radius that its solid part fills from the middle outwards: 0 for none, 1 for a
    # solid nodule
    core: float
    unevenness: float  # how much the share of tissue varies within ground glass
    gaps_hu: float  # how much darker its inner gaps are: small airways, necrosis, scars
    swell_mm: float  # how far the nodule reaches beyond the outlines, which no reader draws exactly
    edge_mm: float  # width within which the nodule gives way to lung
    bumps_mm: float  # how far its surface is displaced in and out
    spicules: int  # number of strands that leave its surface
    spicule_length_mm: float  # their typical length
    calcium: str  # its pattern, one of `CALCIUM`'s words
    calcium_hu: float  # HU of the calcium
    interior: str  # one of `INTERIOR`'s words
    vessels: int  # number of vessels that end in the nodule
    tail: bool  # whether a strand ties the nodule to the pleura


def appearance_of(finding: Finding, radius_mm: float, rng: np.random.Generator) -> Appearance:
    """Draw what a nodule is made of from what its readers said.

    Every rating sets the middle of a wide distribution, so that no single measure of the image
    gives a rating back, as in real nodules.

    Args:
        finding: the ratings; `malignancy` is not among them.
        radius_mm: of the consensus shape.
        rng: the nodule's own generator.
    """
    mean = {name: float(np.mean(values)) for name, values in finding.ratings.items()}
    texture = mean["texture"] + rng.normal(0.0, 0.35)
    # 1 is ground glass, 5 solid: the core grows from nothing at 1.9 to everything at 4.7.
    core = float(np.clip((texture - 1.9) / 2.8, 0.0, 1.0))
    veil = float(np.clip(0.21 + 0.12 * (texture - 1.0) + rng.normal(0.0, 0.07), 0.10, 0.8))
    margin = np.clip(mean["margin"] + rng.normal(0.0, 0.5), 1.0, 5.0)
    edge = (1.45 + 0.45 * (5.0 - margin)) * np.exp(rng.normal(0.0, 0.35))
    spiculation = max(mean["spiculation"] - 1.0 + rng.normal(0.0, 0.35), 0.0)
    lobulation = max(mean["lobulation"] - 1.0 + rng.normal(0.0, 0.35), 0.0)
    calcium, sure = _vote(finding.ratings["calcification"], CALCIUM, "absent")
    interior, _ = _vote(finding.ratings["internal_structure"], INTERIOR, "soft tissue")
    # Small nodules look less dense than large ones beyond what slices and kernels explain.
    small = min(3.0 / radius_mm, 1.5)
    solid = rng.normal(28.0, 38.0) + rng.normal(-40.0 * small**2, 95.0 * small)
    # A calcified scar is dense all through.
    solid = float(np.clip(solid, -420.0 if calcium == "absent" else 0.0, 90.0))
    return Appearance(
        tissue_hu=_INTERIOR_HU[interior] + solid,
        veil=veil,
        core=core,
        unevenness=float(rng.uniform(0.03, 0.11)),
        gaps_hu=float(rng.lognormal(np.log(42.0), 0.7) * np.clip(radius_mm / 8.0, 0.2, 1.4)),
        swell_mm=float(np.clip(rng.normal(0.0, 0.3), -0.15 * radius_mm, 0.7)),
        edge_mm=float(np.clip(edge, 0.6, 1.2 * radius_mm)),
        bumps_mm=float((0.05 + 0.03 * lobulation) * min(radius_mm, 10.0) * rng.uniform(0.6, 1.2)),
        spicules=int(rng.poisson((0.4 + 3.2 * spiculation) * np.clip(radius_mm / 6.0, 0.5, 3.0))),
        spicule_length_mm=float(rng.uniform(2.0, 4.5) + 0.25 * radius_mm * min(spiculation, 3.0)),
        calcium=calcium,
        calcium_hu=float(np.exp(rng.normal(np.log(1400.0), 0.45)) * (0.5 + 0.5 * sure)),
        interior=interior,
        vessels=int(rng.binomial(3, 0.38)),
        tail=bool(rng.random() < 0.15 + 0.12 * spiculation),
    )


def _vote(ratings: tuple[float, ...], words: dict[float, str], ordinary: str) -> tuple[str, float]:
    """The word that most readers chose and the share of them; the ordinary one in a tie.

    One annotation of the database has a value that its scale lacks: it counts as ordinary.
    """
    count = Counter(words.get(float(r), ordinary) for r in ratings)
    word, votes = max(count.items(), key=lambda item: (item[1], item[0] == ordinary))
    return word, votes / len(ratings)


_AIR_HU = -900.0
_STRAND_MM = 30.0


@dataclass(frozen=True)
class Nodule:
    """One nodule of a scene; its shape and matter are worked out when they are first asked for."""

    finding: Finding  # outlines and ratings
    pixel_spacing_mm: float  # of the scan that it was found in
    slice_spacing_mm: float  # of that scan
    seed: int  # of everything random; the nodule's id is mixed in

    @property
    def nodule_id(self) -> str:
        """As in `lidc.nodules`."""
        return self.finding.nodule_id

    @cached_property
    def shape(self) -> Shape:
        """Where it is."""
        return consensus(self.finding.readers, self.pixel_spacing_mm, self.slice_spacing_mm)

    @cached_property
    def look(self) -> Appearance:
        """What it is made of."""
        rng = generator(self.seed, self.nodule_id, "appearance")
        return appearance_of(self.finding, self.shape.radius_mm, rng)

    @cached_property
    def salt(self) -> int:
        """Key of its random textures."""
        return key(self.seed, self.nodule_id, "texture")

    def surface_xyz_mm(self) -> Array:
        """Return (N, 3) points that the reader of the middle size outlined, mm."""
        sizes = [sum(_area(c.vertices_row_col_px) for c in r) for r in self.finding.readers]
        middle = self.finding.readers[int(np.argsort(sizes, kind="stable")[len(sizes) // 2])]
        return self._points([middle])

    @cached_property
    def _bounds_xyz_mm(self) -> tuple[Array, Array]:
        """Return lowest and highest corner of a box around all outlines and what leaves them."""
        points = self._points(self.finding.readers)
        return points.min(axis=0) - _STRAND_MM, points.max(axis=0) + _STRAND_MM

    def _points(self, readers: Sequence[Sequence[Contour]]) -> Array:
        parts = []
        for contour in (c for reader in readers for c in reader):
            col_row = contour.vertices_row_col_px[:, ::-1]
            plane = (col_row - (PIXELS - 1) / 2) * self.pixel_spacing_mm
            parts.append(np.column_stack([plane, np.full(len(plane), contour.z_mm)]))
        return np.concatenate(parts)

    def near(self, low_xyz_mm: NDArray, high_xyz_mm: NDArray) -> bool:
        """Tell whether the nodule or what leaves it may touch a box."""
        low, high = self._bounds_xyz_mm
        return bool((high >= low_xyz_mm).all() and (low <= high_xyz_mm).all())

    def paint(self, x_mm: NDArray, y_mm: NDArray, z_mm: NDArray) -> tuple[Float, Float]:
        """Compute the share of the nodule's matter, 0 to 1, and its HU, at the grid of three axes.

        The points must lie within the shape's lattice (`Shape.window`).
        """
        look, radius = self.look, self.shape.radius_mm
        distance = self.shape.distance_at(x_mm, y_mm, z_mm)
        cell = max(0.75 * radius, 1.6)
        bumps = texture(x_mm, y_mm, z_mm, cell, self.salt)
        distance += np.float32(0.8 * look.bumps_mm) * bumps - np.float32(look.swell_mm)
        share = np.clip(0.5 - distance / np.float32(look.edge_mm), 0.0, 1.0)
        share *= share * (3.0 - 2.0 * share)
        matter = np.full_like(share, look.tissue_hu)
        fine = texture(x_mm, y_mm, z_mm, max(0.35 * radius, 1.3), self.salt + 1)
        matter += np.float32(14.0) * fine
        matter -= np.float32(look.gaps_hu) * np.maximum(fine + 0.5 * bumps - np.float32(0.2), 0.0)
        if look.core < 1.0:
            # Depth of the core's surface; its edge is soft, and it is not concentric.
            depth = (1.0 - look.core) * (radius + 1.0) + 0.35 * radius * bumps
            solid = np.clip(0.5 - (distance + depth) / np.float32(0.8 + 0.25 * radius), 0.0, 1.0)
            if look.core <= 0.0:
                solid[:] = 0.0
            veil = np.clip(look.veil + look.unevenness * fine, 0.05, 0.95)
            share *= veil + (1.0 - veil) * solid
        if look.interior == "air":
            hollow = np.clip(0.5 - (distance + 0.45 * radius) / 1.0, 0.0, 1.0)
            matter += hollow * (_AIR_HU - matter)
        if look.calcium != "absent":
            chalk = self._calcium(distance, bumps, fine, x_mm, y_mm, z_mm)
            matter += chalk * np.float32(look.calcium_hu)
            share = np.maximum(share, chalk)
        return share, matter

    def _calcium(
        self, distance: Float, bumps: Float, fine: Float, x_mm: NDArray, y_mm: NDArray, z_mm:
        NDArray,
    ) -> Float:  # fmt: skip
        """Compute the share of calcium, 0 to 1, in the pattern that the readers named."""
        radius = np.float32(self.shape.radius_mm)
        pattern = self.look.calcium
        inside = np.clip(0.3 - distance / np.float32(0.9), 0.0, 1.0)
        if pattern == "solid":
            return inside * (0.88 + 0.12 * np.clip(fine, -1, 1))
        if pattern == "central":
            return np.clip(0.5 - (distance + 0.5 * radius) / (0.35 * radius), 0.0, 1.0)
        if pattern == "laminated":
            return inside * (0.5 + 0.5 * np.cos(distance * (4.0 * np.pi / radius)))
        if pattern == "popcorn":
            return inside * np.clip(0.8 * bumps + 0.8 * fine + 0.2, 0.0, 1.0)
        # Non-central: a grain or two away from the middle.
        rng = np.random.default_rng(self.salt)
        center = self.shape.center_xyz_mm
        total = np.zeros_like(distance)
        for _ in range(int(rng.integers(1, 3))):
            way = rng.normal(size=3)
            x, y, z = center + 0.55 * radius * way / np.linalg.norm(way)
            grain = np.maximum(rng.uniform(0.25, 0.45) * radius, 0.8)
            squared = ((x_mm - x) ** 2)[None, None, :] + ((y_mm - y) ** 2)[None, :, None]
            away = np.sqrt(squared + ((z_mm - z) ** 2)[:, None, None]).astype(np.float32)
            total = np.maximum(total, np.clip(0.5 - (away - grain) / 0.8, 0.0, 1.0))
        return np.minimum(total, inside)

    def strands(self, thorax: Thorax, vessels: Strands) -> Strands:
        """Draw spicules, vessels that end in the nodule, and the tail that ties it to the pleura.

        Spicules leave the surface about radially and taper; vessels come from those nearby.

        Args:
            thorax: where the pleura is.
            vessels: of the whole lung.
        """
        rng = generator(self.seed, self.nodule_id, "strands")
        look, radius = self.look, self.shape.radius_mm
        parts = []
        if look.spicules:
            way = _directions(rng, look.spicules)
            start, found = self._leave(way)
            length = look.spicule_length_mm * np.exp(rng.normal(0.0, 0.6, len(way)))
            thick = rng.uniform(0.35, 0.75, len(way)) + 0.025 * radius
            bent = way + 0.55 * rng.normal(size=way.shape)
            middle = start + way * (0.5 * length)[:, None]
            end = middle + bent * (0.5 * length)[:, None]
            # A broad foot: spicules grow out of the nodule, they are not stuck on it.
            parts.append(Strands(start, middle, thick * 1.6, thick * 0.8).take(found))
            parts.append(Strands(middle, end, thick * 0.8, thick * 0.3).take(found))
        parts += [self._fed(vessels, rng) for _ in range(look.vessels)]
        if look.tail:
            parts.append(self._tail(thorax, rng))
        return Strands.join(parts)

    def _fed(self, vessels: Strands, rng: np.random.Generator) -> Strands:
        """A vessel that leaves one of those nearby and ends in the nodule, or none."""
        away = np.linalg.norm(vessels.end_xyz_mm - self.shape.center_xyz_mm, axis=1)
        away -= self.shape.radius_mm
        reachable = np.flatnonzero((away > 3.0) & (away < 0.6 * _STRAND_MM))
        # One of the nearest, thicker ones first.
        far = away[reachable] - 8.0 * vessels.end_radius_mm[reachable]
        nearest = reachable[np.argsort(far, kind="stable")[:12]]
        if not len(nearest):
            return Strands.join([])
        root = int(rng.choice(nearest))
        begin = vessels.end_xyz_mm[root]
        way = begin - self.shape.center_xyz_mm
        surface, found = self._leave((way / np.linalg.norm(way))[None])
        if not found.all():
            return Strands.join([])
        bow = np.cross(way, rng.normal(size=3)) * rng.uniform(0.1, 0.3)
        bow *= np.linalg.norm(way) / max(float(np.linalg.norm(bow)), 1e-6) * 0.15
        ends = np.linspace(0.0, 1.0, 4)
        knots = [begin + t * (surface[0] - begin) + 4 * t * (1 - t) * bow for t in ends]
        thick = min(
            vessels.end_radius_mm[root], rng.uniform(0.5, 0.9) + 0.03 * self.shape.radius_mm
        )
        radius = np.full(3, max(float(thick), 0.4))
        return Strands(np.array(knots[:-1]), np.array(knots[1:]), radius, radius)

    def _tail(self, thorax: Thorax, rng: np.random.Generator) -> Strands:
        """A strand to the nearest pleura when that is within 20 mm, or none."""
        center = self.shape.center_xyz_mm
        step = np.concatenate([np.zeros((1, 3)), np.eye(3)])
        depth = thorax.lung(*(center + step).T)
        way = depth[1:] - depth[0]
        way = (way / max(float(np.linalg.norm(way)), 1e-6))[None]
        start, found = self._leave(way)
        length = -float(thorax.lung(*start.T)[0])
        if not found.all() or not 1.5 < length < 20.0:
            return Strands.join([])
        thick = np.array([rng.uniform(0.4, 0.9)])
        return Strands(start, start + way * (length + 1.0), 1.4 * thick, thick)

    def _leave(self, way: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Where rays from the middle leave the shape, a little inside, and whether they do."""
        shape = self.shape
        steps = np.arange(0.0, 3.0 * shape.radius_mm + 6.0, 0.5)
        center = shape.center_xyz_mm
        points = center + way[:, None, :] * steps[None, :, None]
        index = (points - shape.first_xyz_mm) / shape.step_xyz_mm
        distance = ndimage.map_coordinates(
            shape.distance_mm, np.moveaxis(index, -1, 0)[::-1], order=1, cval=9.0
        )
        inside = distance < -0.3
        last = inside.shape[1] - 1 - np.argmax(inside[:, ::-1], axis=1)
        return center + way * steps[last][:, None], inside.any(axis=1)


def _area(vertices_row_col_px: NDArray[np.int64]) -> float:
    """Area of a polygon of pixels by the shoelace formula."""
    row, col = vertices_row_col_px.T.astype(np.float64)
    return 0.5 * abs(float(np.sum(row * np.roll(col, -1) - col * np.roll(row, -1))))


def _directions(rng: np.random.Generator, count: int) -> Array:
    """(count, 3) unit vectors, uniform on the sphere."""
    way = rng.normal(size=(count, 3))
    return way / np.linalg.norm(way, axis=1, keepdims=True)
