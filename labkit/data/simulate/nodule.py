"""A nodule as something to be seen: its share of tissue and its HU at every point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from labkit.data.simulate.appearance import Appearance, appearance_of
from labkit.data.simulate.noise import Float, generator, key, texture
from labkit.data.simulate.outline import Shape, consensus
from labkit.data.simulate.scan import Finding, Scan
from labkit.data.simulate.strands import Strands
from labkit.data.simulate.thorax import Thorax

_AIR_HU = -900.0
_STRAND_MM = 30.0


@dataclass(frozen=True)
class Nodule:
    """One nodule of a scene.

    Args:
        nodule_id: as in `lidc.nodules`.
        shape: where it is.
        look: what it is made of.
        salt: key of its random textures.
    """

    nodule_id: str
    shape: Shape
    look: Appearance
    salt: int

    @classmethod
    def of(cls, finding: Finding, scan: Scan, seed: int) -> Nodule:
        """The nodule that a scan's readers outlined and rated."""
        shape = consensus(finding.readers, scan.pixel_spacing_mm, scan.slice_spacing_mm)
        rng = generator(seed, finding.nodule_id, "appearance")
        look = appearance_of(finding, shape.radius_mm, rng)
        return cls(finding.nodule_id, shape, look, key(seed, finding.nodule_id, "texture"))

    def surface_xyz_mm(self) -> NDArray[np.float64]:
        """(N, 3) points of the shape's lattice just inside its surface, mm."""
        inside = self.shape.distance_mm < 0
        if not inside.any():
            return self.shape.center_xyz_mm[None]
        shell = inside & ~ndimage.binary_erosion(inside)
        index_xyz = np.argwhere(shell)[:, ::-1]
        return np.array(self.shape.first_xyz_mm) + index_xyz * np.array(self.shape.step_xyz_mm)

    def near(self, low_xyz_mm: NDArray, high_xyz_mm: NDArray) -> bool:
        """Whether the nodule or what leaves it may touch a box."""
        low, high = np.array(self.shape.first_xyz_mm), np.array(self.shape.last_xyz_mm)
        return bool(
            (high + _STRAND_MM >= low_xyz_mm).all() and (low - _STRAND_MM <= high_xyz_mm).all()
        )

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

    def strands(self, thorax: Thorax, seed: int) -> Strands:
        """Spicules, the vessels that end in the nodule, and the tail that ties it to the pleura.

        Spicules leave the surface about radially and taper; vessels arrive from where they may.
        """
        rng = generator(seed, self.nodule_id, "strands")
        look, radius = self.look, self.shape.radius_mm
        parts = []
        if look.spicules:
            way = _directions(rng, look.spicules)
            start, found = self._leave(way)
            length = look.spicule_length_mm * np.exp(rng.normal(0.0, 0.4, len(way)))
            thick = rng.uniform(0.35, 0.75, len(way)) + 0.025 * radius
            bent = way + 0.35 * rng.normal(size=way.shape)
            middle = start + way * (0.5 * length)[:, None]
            end = middle + bent * (0.5 * length)[:, None]
            # A broad foot: spicules grow out of the nodule, they are not stuck on it.
            parts.append(Strands(start, middle, thick * 1.6, thick * 0.8).take(found))
            parts.append(Strands(middle, end, thick * 0.8, thick * 0.3).take(found))
        for _ in range(look.vessels):
            way = _directions(rng, 1)
            start, found = self._leave(way)
            if not found.all():
                continue
            thick = np.array([rng.uniform(0.5, 0.9) + 0.03 * radius])
            for _ in range(4):
                step = rng.uniform(4.0, 8.0)
                way = way + 0.3 * rng.normal(size=(1, 3))
                end = start + way * step / np.linalg.norm(way)
                parts.append(Strands(start, end, thick, thick * 0.93))
                start, thick = end, thick * 0.93
        if look.tail:
            parts.append(self._tail(thorax, rng))
        return Strands.join(parts)

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


def _directions(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """(count, 3) unit vectors, uniform on the sphere."""
    way = rng.normal(size=(count, 3))
    return way / np.linalg.norm(way, axis=1, keepdims=True)
