"""One patient's chest with its nodules: a function of points, whatever grid asks for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit.data.simulate.body import body_hu
from labkit.data.simulate.chest import (
    Tissue,
    fissure_share,
    lung_hu,
    surface_distance,
)
from labkit.data.simulate.nodule import Nodule
from labkit.data.simulate.noise import Float, generator, key
from labkit.data.simulate.scan import Scan, scan_of
from labkit.data.simulate.strands import Strands
from labkit.data.simulate.thorax import Thorax, thorax_of
from labkit.data.simulate.vessels import grow

_PLEURA_MM = 1.2
_LUMEN_HU = -960.0


@dataclass(frozen=True)
class Drawn:
    """What is drawn into the lungs: vessels full of blood, airways' walls, and their air."""

    vessels: Strands
    airways: Strands
    lumens: Strands


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

    @cached_property
    def drawn(self) -> Drawn:
        """All vessels and airways of the chest, grown once."""
        rng = generator(self.seed, self.scan.patient_id, "vessels")
        thick = float(rng.uniform(0.85, 1.15))
        salt = key(self.seed, self.scan.patient_id, self.scan.series_uid)
        arteries = grow(self.thorax, salt, "arteries", thick)
        veins = grow(self.thorax, salt, "veins", thick)
        walls, lumens = arteries.airways()
        return Drawn(Strands.join([arteries.strands(), veins.strands()]), walls, lumens)

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
        low, high = np.array([x[0], y[0], fine[0]]), np.array([x[-1], y[-1], fine[-1]])
        near = [nodule for nodule in self.nodules if nodule.near(low, high)]
        surface = surface_distance(self.thorax, x, y, fine)
        wall = surface * np.float32(1.0 / _PLEURA_MM)
        wall += np.float32(0.5)
        np.clip(wall, 0.0, 1.0, out=wall)
        hu = lung_hu(self.thorax, self.tissue, x, y, z_mm)
        hu += _haze(self.thorax, self.tissue, averaged(surface), y)
        if wall.min() < 1.0:
            self._put_vessels(hu, x, y, fine, averaged, near)
        share = averaged(wall)
        if share.max() > 0:
            body = body_hu(self.thorax, self.tissue, x, y, z_mm)
            body -= hu
            body *= share
            hu += body
        for nodule in near:
            self._put_nodule(hu, nodule, x, y, z_mm, offsets)
        return hu

    def _put_vessels(
        self,
        hu: Float,
        x: NDArray,
        y: NDArray,
        fine: NDArray,
        averaged: Callable[[Float], Float],
        near: list[Nodule],
    ) -> None:
        """Fissures, arteries with their airways, and veins."""
        low, high = np.array([x[0], y[0], fine[0]]), np.array([x[-1], y[-1], fine[-1]])
        share = fissure_share(self.thorax, x, y, fine)
        vessels = self.drawn.vessels
        own = [nodule.strands(self.thorax, vessels) for nodule in near]
        Strands.join([vessels.near(low, high), *own]).draw(share, x, y, fine)
        blood = np.float32(self.tissue.blood_hu - 8.0)
        hu += averaged(share) * (blood - hu)
        wall, lumen = self.drawn.airways, self.drawn.lumens
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


def _haze(thorax: Thorax, tissue: Tissue, surface: Float, y_mm: NDArray) -> Float:
    """HU that lung has more where it rests on the pleura: towards the back, within a centimetre."""
    haze = np.minimum(surface, np.float32(0.0))
    haze *= np.float32(1.0 / 5.0)
    np.exp(haze, out=haze)
    low = np.clip(0.35 + (y_mm - thorax.y0) / thorax.half_depth, 0.0, 1.2)
    haze *= (tissue.haze_hu * low).astype(np.float32)[None, :, None]
    return haze


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


def _gap_mm(surface_xyz_mm: NDArray, rng: np.random.Generator) -> float:
    """Distance that a nodule keeps from the pleura; negative when it touches, as large ones do."""
    width = float(np.ptp(surface_xyz_mm, axis=0).max())
    touches = rng.random() < np.interp(width, (8.0, 14.0, 30.0), (0.55, 0.65, 0.85))
    return -float(rng.uniform(0.4, 2.2)) if touches else float(rng.uniform(1.5, 4.0))


def scene_of(scan: Scan, seed: int) -> Scene:
    """The scene of a scan: its chest, fitted around its nodules."""
    nodules = tuple(Nodule.of(finding, scan, seed) for finding in scan.findings)
    surfaces = [nodule.surface_xyz_mm() for nodule in nodules]
    rng = generator(seed, scan.series_uid, "gaps")
    gaps = [_gap_mm(surface, rng) for surface in surfaces]
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
