"""A nodule as something to be seen: its share of tissue and its HU at every point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from labkit.data.lidc import Contour
from labkit.data.simulate.appearance import Appearance, appearance_of
from labkit.data.simulate.noise import Float, generator, key, texture
from labkit.data.simulate.outline import Shape, consensus
from labkit.data.simulate.scan import PIXELS, Finding, Scan
from labkit.data.simulate.strands import Strands
from labkit.data.simulate.thorax import Thorax

_AIR_HU = -900.0
_STRAND_MM = 30.0


@dataclass(frozen=True)
class Nodule:
    """One nodule of a scene; its shape and matter are worked out when they are first asked for.

    Args:
        finding: outlines and ratings.
        pixel_spacing_mm: of the scan that it was found in.
        slice_spacing_mm: of that scan.
        seed: of everything random; the nodule's id is mixed in.
    """

    finding: Finding
    pixel_spacing_mm: float
    slice_spacing_mm: float
    seed: int

    @classmethod
    def of(cls, finding: Finding, scan: Scan, seed: int) -> Nodule:
        """The nodule that a scan's readers outlined and rated."""
        return cls(finding, scan.pixel_spacing_mm, scan.slice_spacing_mm, seed)

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

    def surface_xyz_mm(self) -> NDArray[np.float64]:
        """(N, 3) points that the reader of the middle size outlined, mm."""
        sizes = [sum(_area(c.vertices_row_col_px) for c in r) for r in self.finding.readers]
        middle = self.finding.readers[int(np.argsort(sizes, kind="stable")[len(sizes) // 2])]
        return self._points([middle])

    @cached_property
    def _bounds_xyz_mm(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest corner of a box around all outlines and what may leave them."""
        points = self._points(self.finding.readers)
        return points.min(axis=0) - _STRAND_MM, points.max(axis=0) + _STRAND_MM

    def _points(self, readers: Sequence[Sequence[Contour]]) -> NDArray[np.float64]:
        parts = []
        for contour in (c for reader in readers for c in reader):
            col_row = contour.vertices_row_col_px[:, ::-1]
            plane = (col_row - (PIXELS - 1) / 2) * self.pixel_spacing_mm
            parts.append(np.column_stack([plane, np.full(len(plane), contour.z_mm)]))
        return np.concatenate(parts)

    def near(self, low_xyz_mm: NDArray, high_xyz_mm: NDArray) -> bool:
        """Whether the nodule or what leaves it may touch a box."""
        low, high = self._bounds_xyz_mm
        return bool((high >= low_xyz_mm).all() and (low <= high_xyz_mm).all())

    def paint(self, x_mm: NDArray, y_mm: NDArray, z_mm: NDArray) -> tuple[Float, Float]:
        """Share of the nodule's matter, 0 to 1, and that matter's HU, at the grid of three axes.

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
        self,
        distance: Float,
        bumps: Float,
        fine: Float,
        x_mm: NDArray,
        y_mm: NDArray,
        z_mm: NDArray,
    ) -> Float:
        """Share of calcium, 0 to 1, in the pattern that the readers named."""
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
        """Spicules, the vessels that end in the nodule, and the tail that ties it to the pleura.

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

    def _leave(self, way: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
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


def _directions(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """(count, 3) unit vectors, uniform on the sphere."""
    way = rng.normal(size=(count, 3))
    return way / np.linalg.norm(way, axis=1, keepdims=True)
