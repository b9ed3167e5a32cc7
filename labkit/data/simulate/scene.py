"""One patient's chest with its nodules: a function of points, whatever grid asks for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit.data.simulate.chest import Tissue, body_hu, lung_hu, surface_distance
from labkit.data.simulate.nodule import Nodule
from labkit.data.simulate.noise import Float, generator, key
from labkit.data.simulate.scan import Scan, scan_of
from labkit.data.simulate.strands import Strands
from labkit.data.simulate.thorax import Thorax, thorax_of
from labkit.data.simulate.vessels import tree

_PLEURA_MM = 1.2
_LUMEN_HU = -960.0


@dataclass(frozen=True)
class Scene:
    """One patient's chest, simulated around the real outlines of its nodules.

    The same points have the same HU in every crop: nothing depends on the grid's extent. There is
    no scanner in it: `labkit.data.simulate.scanner` looks at it with one.

    Args:
        scan: the real frame, outlines and ratings.
        thorax: where lung ends.
        tissue: the patient's HU.
        nodules: everything that at least one reader outlined.
        seed: of everything random; ids are mixed in.
    """

    scan: Scan
    thorax: Thorax
    tissue: Tissue
    nodules: tuple[Nodule, ...]
    seed: int

    def hu(self, x_mm: ArrayLike, y_mm: ArrayLike, z_mm: ArrayLike) -> Float:
        """HU at the grid of three ascending axes in the world, without any scanner.

        Args:
            x_mm: (X,) positions towards the patient's left.
            y_mm: (Y,) positions towards the back.
            z_mm: (Z,) positions towards the head.

        Returns:
            (Z, Y, X) float32 HU.
        """
        return self._compose(x_mm, y_mm, np.asarray(z_mm, dtype=np.float64), 1, 0.0)

    def slabs(
        self, x_mm: ArrayLike, y_mm: ArrayLike, z_mm: ArrayLike, thickness_mm: float
    ) -> Float:
        """Mean HU over slabs of a thickness around every z: what a slice of that thickness sees.

        Thin things and surfaces are averaged over points at most 1 mm apart; the tissue between
        them, which varies slowly, is taken in the slab's middle.

        Returns:
            (Z, Y, X) float32 HU.
        """
        points = max(2, int(np.ceil(thickness_mm)))
        return self._compose(x_mm, y_mm, np.asarray(z_mm, float), points, thickness_mm)

    def _compose(
        self, x_mm: ArrayLike, y_mm: ArrayLike, z_mm: NDArray, points: int, thickness_mm: float
    ) -> Float:
        x, y = np.asarray(x_mm, dtype=np.float64), np.asarray(y_mm, dtype=np.float64)
        offsets = ((np.arange(points) + 0.5) / points - 0.5) * thickness_mm
        fine, averaged = _within_slabs(z_mm, offsets)
        surface = surface_distance(self.thorax, x, y, fine)
        wall = surface * np.float32(1.0 / _PLEURA_MM)
        wall += np.float32(0.5)
        np.clip(wall, 0.0, 1.0, out=wall)
        hu = lung_hu(self.thorax, self.tissue, x, y, z_mm)
        if wall.min() < 1.0:
            self._put_vessels(hu, x, y, fine, averaged)
        share = averaged(wall)
        if share.max() > 0:
            body = body_hu(self.thorax, self.tissue, x, y, z_mm)
            body -= hu
            body *= share
            hu += body
        for nodule in self.nodules:
            self._put_nodule(hu, nodule, x, y, z_mm, offsets)
        return hu

    def _put_vessels(
        self, hu: Float, x: NDArray, y: NDArray, fine: NDArray, averaged: Callable[[Float], Float]
    ) -> None:
        """Arteries with their airways, and veins."""
        low, high = np.array([x[0], y[0], fine[0]]), np.array([x[-1], y[-1], fine[-1]])
        share = np.zeros((len(fine), len(y), len(x)), np.float32)
        rng = generator(self.seed, self.scan.patient_id, "vessels")
        thick = float(rng.uniform(0.85, 1.15))
        salt = key(self.seed, self.scan.patient_id, self.scan.series_uid)
        arteries, level = tree(self.thorax, low, high, salt, "arteries", thick)
        veins, _ = tree(self.thorax, low, high, salt, "veins", thick)
        near = [nodule for nodule in self.nodules if nodule.near(low, high)]
        own = [nodule.strands(self.thorax, self.seed) for nodule in near]
        Strands.join([arteries, veins, *own]).draw(share, x, y, fine)
        wall, lumen = _airways(arteries.take(level >= 2))
        blood = np.float32(self.tissue.blood_hu - 8.0)
        hu += averaged(share) * (blood - hu)
        wall_near = wall.near(low, high)
        if not len(wall_near):
            return
        # Airways are few: work only on the box that holds them.
        box_low, box_high = wall_near.bounds_xyz_mm()
        at_y, at_x = (
            slice(*np.searchsorted(axis, (box_low[i], box_high[i]))) for i, axis in ((1, y), (0, x))
        )
        part = hu[:, at_y, at_x]
        if not part.size:
            return
        for tubes, value in ((wall_near, 10.0), (lumen.near(low, high), _LUMEN_HU)):
            tube = np.zeros((len(fine), *part.shape[1:]), np.float32)
            tubes.draw(tube, x[at_x], y[at_y], fine)
            part += averaged(tube) * (np.float32(value) - part)

    def _put_nodule(
        self, hu: Float, nodule: Nodule, x: NDArray, y: NDArray, z: NDArray, offsets: NDArray
    ) -> None:
        """One nodule, where the grid meets it."""
        at_z, at_y, at_x = nodule.shape.window(x, y, z)
        px, py, pz = x[at_x], y[at_y], z[at_z]
        if not (len(px) and len(py) and len(pz)):
            return
        around = hu[at_z, at_y, at_x]
        total = np.zeros_like(around)
        for offset in offsets:
            share, matter = nodule.paint(px, py, pz + offset)
            matter -= around
            matter *= share
            total += matter
        total *= np.float32(1.0 / len(offsets))
        around += total


def _within_slabs(z_mm: NDArray, offsets_mm: NDArray) -> tuple[NDArray, Callable[[Float], Float]]:
    """Ascending heights at some offsets from every z, and what turns values there into means."""
    points = len(offsets_mm)
    heights = (z_mm[:, None] + offsets_mm).ravel()
    order = np.argsort(heights, kind="stable")
    place = np.empty(len(heights), np.intp)
    place[order] = np.arange(len(heights))
    apart = bool((place == np.arange(len(place))).all())  # slabs that do not overlap

    def averaged(values: Float) -> Float:
        if points == 1:
            return values
        parts = [values[i::points] if apart else values[place[i::points]] for i in range(points)]
        total = parts[0] + parts[1]
        for part in parts[2:]:
            total += part
        total *= np.float32(1.0 / points)
        return total

    return heights[order], averaged


def _airways(arteries: Strands) -> tuple[Strands, Strands]:
    """Airways beside the larger arteries: their walls, and the air within."""
    along = arteries.end_xyz_mm - arteries.start_xyz_mm
    beside = np.cross(along, np.array([0.3, 0.2, 1.0]))
    beside /= np.maximum(np.linalg.norm(beside, axis=1, keepdims=True), 1e-9)
    outer_start, outer_end = (
        arteries.start_radius_mm * 1.1 + 0.2,
        arteries.end_radius_mm * 1.1 + 0.2,
    )
    start = arteries.start_xyz_mm + beside * (arteries.start_radius_mm + outer_start)[:, None]
    end = arteries.end_xyz_mm + beside * (arteries.end_radius_mm + outer_end)[:, None]
    wall_start, wall_end = 0.12 * outer_start + 0.35, 0.12 * outer_end + 0.35
    return (
        Strands(start, end, outer_start, outer_end),
        Strands(start, end, outer_start - wall_start, outer_end - wall_end),
    )


def scene_of(scan: Scan, seed: int) -> Scene:
    """The scene of a scan: its chest, fitted around its nodules."""
    nodules = tuple(Nodule.of(finding, scan, seed) for finding in scan.findings)
    surfaces = [nodule.surface_xyz_mm() for nodule in nodules]
    rng = generator(seed, scan.series_uid, "gaps")
    gaps = [float(rng.uniform(-1.0, 1.5)) for _ in nodules]
    return Scene(
        scan=scan,
        thorax=thorax_of(scan, surfaces, seed, gaps),
        tissue=Tissue.of(scan, seed),
        nodules=nodules,
        seed=seed,
    )


@lru_cache(maxsize=2)
def scene_for_series(series_uid: str, seed: int) -> Scene:
    """The scene of one LIDC-IDRI scan; the last two are kept."""
    return scene_of(scan_of(series_uid), seed)
