"""One patient's chest with its nodules: a function of points, whatever grid asks for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit.simulate.chest import (
    Array,
    Thorax,
    Tissue,
    body_hu,
    fissure_share,
    lung_hu,
    surface_distance,
    thorax_of,
)
from labkit.simulate.nodule import Nodule
from labkit.simulate.noise import Float, generator, key
from labkit.simulate.scan import Scan, scan_of
from labkit.simulate.vessels import Strands, grow

# Raised whenever the same seed gives other images than before.
SCENE_VERSION = 2
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
    no scanner in it: `labkit.simulate.scanner` looks at it with one.
    """

    scan: Scan  # the real frame, outlines and ratings
    thorax: Thorax  # where lung ends
    tissue: Tissue  # the patient's HU
    nodules: tuple[Nodule, ...]  # everything that at least one reader outlined
    seed: int  # of everything random; ids are mixed in

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
        """Compute HU at the grid of three ascending axes in the world, without any scanner.

        Positions (X,) towards the patient's left, (Y,) towards the back and (Z,) towards the head
        give (Z, Y, X) float32 HU.
        """
        return self._compose(x_mm, y_mm, np.asarray(z_mm, dtype=np.float64), 1, 0.0)

    def slabs(
        self, x_mm: ArrayLike, y_mm: ArrayLike, z_mm: ArrayLike, thickness_mm: float
    ) -> Float:
        """Compute mean HU over slabs around every z: what a slice of that thickness sees.

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
        self, hu: Float, x: NDArray, y: NDArray, fine: NDArray, averaged: Callable[[Float], Float],
        near: list[Nodule],
    ) -> None:  # fmt: skip
        """Draw fissures, arteries with their airways, and veins."""
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
        """Draw one nodule, where the grid meets it."""
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
    """Make the scene of a scan: its chest, fitted around its nodules."""
    spacings = scan.pixel_spacing_mm, scan.slice_spacing_mm
    nodules = tuple(Nodule(finding, *spacings, seed) for finding in scan.findings)
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
    """Make the scene of one LIDC-IDRI scan; the last two are kept."""
    return scene_of(scan_of(series_uid), seed)


# In this order: of several things that lie at a point, the first is told.
KINDS = ("hilum", "branching", "vessel", "airway", "pleura", "fissure", "nothing")
HILUM_MM = 30.0
NEAR_MM = 1.0
PLEURA_MM = 4.0
# A branching of thinner vessels than this is no blob in a scan's pixels.
_LEAST_RADIUS_MM = 0.5


def lies_on(scene: Scene, points_xyz_mm: ArrayLike) -> list[str]:
    """Tell what of the anatomy each point lies on, of `KINDS`; nodules are not among them.

    Only a simulation can say it: in real scans readers would have to look at every candidate.

    A point is at the hilum within 30 mm of a lung's root; on a branching or a vessel, an airway's
    wall or a fissure when its surface is at most 1 mm away (inside counts); on the pleura within
    4 mm of the lung's surface, at the wall, the mediastinum or the diaphragm.

    `points_xyz_mm`: (n, 3) world positions.
    """
    points = np.asarray(points_xyz_mm, dtype=np.float64).reshape(-1, 3)
    thorax, drawn = scene.thorax, scene.drawn
    x, y, z = points.T
    root = np.stack([thorax.hilum_xyz_mm(np.full(len(points), left)) for left in (False, True)])
    balls = _branchings(drawn.vessels)
    tests = (
        np.linalg.norm(points - root, axis=-1).min(axis=0) < HILUM_MM,
        beyond_surface_mm(balls, points) < NEAR_MM,
        beyond_surface_mm(drawn.vessels, points) < NEAR_MM,
        np.abs(beyond_surface_mm(drawn.airways, points)) < NEAR_MM,
        thorax.lung(x, y, z) > -PLEURA_MM,
        np.abs(thorax.fissure(x, y, z)) < NEAR_MM,
        np.ones(len(points), bool),
    )
    return [KINDS[int(first)] for first in np.argmax(np.stack(tests), axis=0)]


def beyond_surface_mm(strands: Strands, points_xyz_mm: Array) -> Array:
    """Compute how far points (n, 3) are from the nearest strand's surface; negative within one."""
    start = strands.start_xyz_mm
    along = strands.end_xyz_mm - start
    squared = np.maximum((along**2).sum(axis=1), 1e-9)
    taper = strands.end_radius_mm - strands.start_radius_mm
    nearest = np.full(len(points_xyz_mm), np.inf)
    for number, point in enumerate(points_xyz_mm if len(strands) else ()):
        away = point - start
        share = np.clip((away * along).sum(axis=1) / squared, 0.0, 1.0)
        gap = np.linalg.norm(away - share[:, None] * along, axis=1)
        nearest[number] = (gap - strands.start_radius_mm - share * taper).min()
    return nearest


def _branchings(vessels: Strands) -> Strands:
    """Where vessels part, as balls: there two or more strands start at the same point."""
    start, first, count = np.unique(
        vessels.start_xyz_mm, axis=0, return_index=True, return_counts=True
    )
    radius = vessels.start_radius_mm[first]
    parts = (count > 1) & (radius >= _LEAST_RADIUS_MM)
    return Strands(start[parts], start[parts], radius[parts], radius[parts])
