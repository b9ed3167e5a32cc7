"""The large anatomy of one patient: where lung ends and wall, heart and diaphragm begin."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from labkit.data.simulate.noise import generator
from labkit.data.simulate.scan import Scan

Array = NDArray[np.float64]
_CANDIDATES = 24
_ROUNDING_MM = 5.0
_MEET_MM = 7.0  # how far the pleura comes to meet a nodule that touches it


@dataclass(frozen=True)
class Pocket:
    """A place where the lung's surface gives way to a nodule, or comes to meet it.

    Args:
        center_xyz_mm: (3,) middle of the bulge.
        push_mm: how far the surface moves outward at the middle; inward when negative.
        reach_mm: the bulge's width (Gaussian).
    """

    center_xyz_mm: Array
    push_mm: float
    reach_mm: float


@dataclass(frozen=True)
class Thorax:
    """One patient's chest; lengths in mm, positions in the simulated world.

    x grows to the patient's left, y to the back, z to the head. The cavity is a superellipse that
    closes like a dome at the top; spine, mediastinum, heart and diaphragm stand in it.
    """

    x0: float
    y0: float
    half_width: float
    half_depth: float
    z_top: float
    z_wide: float
    z_base: float
    dome: float
    squareness: float
    heart_scale: float
    neck_width: float
    rib_spacing: float
    rib_phase: float
    rib_drop: float
    fat: float
    muscle: float
    shoulders: float
    fissure_tilt: float
    fissure_phase: float
    pockets: tuple[Pocket, ...] = ()

    @property
    def z_hilum(self) -> float:
        """Height of the lungs' roots."""
        return self.z_base + 0.58 * (self.z_top - self.z_base)

    def bounds_xyz_mm(self) -> tuple[Array, Array]:
        """Lowest and highest corner of a box around both lungs."""
        reach = np.array([self.half_width, 1.2 * self.half_depth])
        low = np.array([self.x0 - reach[0], self.y0 - reach[1], self.z_base - 20.0])
        return low, np.array([self.x0 + reach[0], self.y0 + reach[1], self.z_top])

    def hilum_xyz_mm(self, left: NDArray[np.bool_]) -> Array:
        """(..., 3) the root of the left or right lung."""
        x = self.x0 + np.where(left, 34.0, -34.0)
        y = np.full_like(x, self.y0 - 0.02 * self.half_depth)
        return np.stack([x, y, np.full_like(x, self.z_hilum)], axis=-1)

    def spine_y(self) -> float:
        """Where the vertebral bodies' middle lies."""
        return self.y0 + 0.60 * self.half_depth

    def cavity(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance to the inner chest wall, mm, about: negative inside the cage."""
        rise = np.maximum(z - self.z_wide, 0.0) / (self.z_top - self.z_wide)
        # The apices lie further back than the middle of the chest.
        v = (y - self.y0 - 22.0 * rise**2) / self.half_depth
        u = (x - self.x0) / (self.half_width * (1.0 - 0.10 * np.clip(-v, 0.0, 1.0)))
        scales = (self.half_width, self.half_depth, self.z_top - self.z_wide)
        return self._to_superellipse((u, v, rise), scales)

    def torso(self, x: Array, y: Array, z: Array) -> Array:
        """The same distance for a body that goes on to the neck instead of closing over the lungs.

        Far below the apices it is `cavity`'s; near them shoulders widen it.
        """
        share = np.clip((z - self.z_top + 110.0) / 100.0, 0.0, 1.0)
        wide = self.half_width * (1.0 + self.shoulders * share**2 * (3.0 - 2.0 * share))
        v = (y - self.y0) / self.half_depth
        u = (x - self.x0) / (wide * (1.0 - 0.10 * np.clip(-v, 0.0, 1.0)))
        return self._to_superellipse((u, v), (self.half_width, self.half_depth))

    def _to_superellipse(self, scaled: tuple[Array, ...], scales: tuple[float, ...]) -> Array:
        """First-order distance to where the scaled coordinates' norm of `squareness` is 1."""
        n = self.squareness
        powers = [np.abs(u) ** n for u in scaled]
        level = np.maximum(sum(powers), 1e-9) ** (1.0 / n)
        slope = np.sqrt(
            sum((p ** ((n - 1) / n) / s) ** 2 for p, s in zip(powers, scales, strict=True))
        ) / level ** (n - 1)
        return (level - 1.0) / np.maximum(slope, 0.3 / self.half_depth)

    def vertebrae(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance to the column of vertebral bodies, mm."""
        return np.hypot(x - self.x0, 0.9 * (y - self.spine_y())) - 19.0 + 0.0 * z

    def heart(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance to the heart, mm, about."""
        scale = self.heart_scale
        z_heart = self.z_base + 0.36 * (self.z_top - self.z_base)
        u, v = (x - self.x0 - 20.0) / (56.0 * scale), (y - self.y0 + 0.30 * self.half_depth)
        radius = np.sqrt(u**2 + (v / (46.0 * scale)) ** 2 + ((z - z_heart) / 52.0) ** 2)
        return (radius - 1.0) * 46.0 * scale

    def mediastinum(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance to everything between the lungs, mm, about."""
        across = np.abs(x - self.x0)
        share = np.clip((z - self.z_base) / (self.z_top - self.z_base), 0.0, 1.2)
        middle = self.y0 - 0.14 * self.half_depth
        width = self.neck_width + 10.0 * np.exp(-(((share - 0.6) / 0.18) ** 2))
        depth = 0.58 * self.half_depth
        column = (np.hypot((x - self.x0) / width, (y - middle) / depth) - 1.0) * width
        behind = np.maximum(across - 15.0, self.spine_y() - y)
        before = np.maximum(across - 5.0, y - middle)
        spine = self.vertebrae(x, y, z) - 2.0
        aorta = np.hypot(x - self.x0 - 23.0, y - self.spine_y() + 22.0) - 13.0
        aorta = np.maximum(aorta, z - self.z_base - 0.75 * (self.z_top - self.z_base))
        parts = (column, behind, before, spine, aorta)
        nearest = self.heart(x, y, z)
        for part in parts:
            nearest = _smooth_min(nearest, part)
        return nearest

    def diaphragm(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance to the diaphragm, mm, about: positive in the belly."""
        side = x - self.x0
        u = (np.abs(side) - 0.46 * self.half_width) / (0.62 * self.half_width)
        v = (y - self.y0 + 0.12 * self.half_depth) / (0.98 * self.half_depth)
        height = np.maximum(1.0 - u**2 - v**2, -0.6)
        top = (
            self.z_base + self.dome * height + np.where(side < 0, 12.0, 0.0) * np.maximum(height, 0)
        )
        return 0.72 * (top - z)

    def lung(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance to the lungs' surface, mm, about: negative in lung."""
        outside = _smooth_max(self.cavity(x, y, z), -self.mediastinum(x, y, z))
        outside = _smooth_max(outside, self.diaphragm(x, y, z))
        return outside - self.pushed(x, y, z)

    def pushed(self, x: Array, y: Array, z: Array) -> Array:
        """How far pockets move the lung's surface outward at each point, mm."""
        shape = np.broadcast_shapes(np.shape(x), np.shape(y), np.shape(z))
        outward, inward = np.zeros(shape), np.zeros(shape)
        for pocket in self.pockets:
            px, py, pz = pocket.center_xyz_mm
            squared = (x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2
            push = pocket.push_mm * np.exp(-squared / (2 * pocket.reach_mm**2))
            if pocket.push_mm > 0:
                outward = np.maximum(outward, push)
            else:
                inward = np.minimum(inward, push)
        return outward + inward

    def fissure(self, x: Array, y: Array, z: Array) -> Array:
        """Distance to the nearest fissure of the lung that holds a point, mm, about.

        The oblique one rises from the front of the diaphragm to the back; in the right lung a
        horizontal one leaves it at the level of the hilum. Fissures are gently wavy.
        """
        oblique = self.above_oblique(x, y, z)
        horizontal = np.where(oblique > 0, np.abs(self.above_horizontal(x, y, z)), np.inf)
        right = x < self.x0
        return np.where(right, np.minimum(np.abs(oblique), horizontal), np.abs(oblique))

    def lobe(self, x: Array, y: Array, z: Array) -> NDArray[np.int64]:
        """The lobe that holds a point of lung: right 0 upper, 1 middle, 2 lower; left 3, 4."""
        upper = self.above_oblique(x, y, z) > 0
        high = self.above_horizontal(x, y, z) > 0
        right = np.where(upper, np.where(high, 0, 1), 2)
        return np.where(x < self.x0, right, np.where(upper, 3, 4))

    @staticmethod
    def is_left_lobe(number: int) -> bool:
        """Whether a lobe's number is one of the left lung's."""
        return number >= 3

    def above_oblique(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance to the oblique fissure, mm, about: negative in the lower lobes."""
        wave = 3.5 * np.sin((x - self.x0) / 34.0 + self.fissure_phase)
        wave = wave + 2.5 * np.sin((y - self.y0) / 41.0 + 2.0 * self.fissure_phase)
        middle = self.z_base + 0.46 * (self.z_top - self.z_base)
        slope = np.tan(self.fissure_tilt)
        return (z - middle - slope * (y - self.y0) + wave) * np.cos(self.fissure_tilt)

    def above_horizontal(self, x: Array, y: Array, z: Array) -> Array:
        """Signed height over the right horizontal fissure, mm: negative in the middle lobe."""
        wave = 3.0 * np.sin((x - self.x0) / 27.0 + 3.0 * self.fissure_phase)
        return z - self.z_hilum + 4.0 + wave - 0.12 * (y - self.y0)

    def rib_turn(self, x: Array, y: Array, z: Array) -> Array:
        """Height along the ribs' spiral: whole numbers are the middle of a rib.

        Ribs start high at the spine and fall on their way round to the front.
        """
        angle = np.abs(np.arctan2(x - self.x0, y - self.y0)) / np.pi
        return (z + self.rib_drop * angle - self.rib_phase) / self.rib_spacing


def thorax_of(
    scan: Scan, surfaces_xyz_mm: list[Array], seed: int, gaps_mm: list[float] | None = None
) -> Thorax:
    """A chest drawn at random for a scan, in which every nodule lies in lung.

    Of some random chests of the size that the field of view suggests, the one is taken in whose
    lungs the nodules fit best. Where one still sticks out, the lung's surface gives way to it; it
    comes to meet one that is to touch it and lies near.

    Args:
        scan: the frame: field of view and height.
        surfaces_xyz_mm: for each nodule (N, 3) points on its surface.
        seed: of the chest; the patient's id is mixed in.
        gaps_mm: for each nodule how far its furthest point must stay inside the lung; negative
            lets it be swallowed that far, and is for nodules that touch the pleura. 0 by default.
    """
    rng = generator(seed, scan.patient_id, scan.series_uid, "thorax")
    chests = [_draw(scan, rng) for _ in range(_CANDIDATES)]
    if not surfaces_xyz_mm:
        return chests[0]
    points = np.concatenate([s[:: max(len(s) // 12, 1)] for s in surfaces_xyz_mm]).T
    misfit = [np.maximum(chest.lung(*points), 0.0).sum() for chest in chests]
    chest = chests[int(np.argmin(misfit))]
    gaps = gaps_mm or [0.0] * len(surfaces_xyz_mm)
    # Those that touch come first: what then sticks out of a narrower lung is let in again.
    for number in np.argsort(gaps, kind="stable"):
        surface, gap = surfaces_xyz_mm[number], gaps[number]
        out = chest.lung(*surface.T) + gap
        push = float(out.max())
        if push > 0 or (gap < 0 and push > -_MEET_MM):
            worst = surface[int(np.argmax(out))]
            # Wide bulges look like anatomy. The rest of the nodule lies further in and follows.
            reach = 18.0 + 0.6 * float(np.ptp(surface, axis=0).max())
            chest = replace(chest, pockets=(*chest.pockets, Pocket(worst, push, reach)))
    return chest


def _draw(scan: Scan, rng: np.random.Generator) -> Thorax:
    view = scan.field_of_view_mm
    half_width = view * np.clip(rng.normal(0.340, 0.028), 0.27, 0.41)
    half_depth = half_width * np.clip(rng.normal(0.73, 0.06), 0.58, 0.86)
    z_top = scan.last_z_mm - rng.uniform(8.0, 45.0)
    height = np.clip(
        rng.normal(0.78, 0.06) * min(scan.last_z_mm - scan.first_z_mm, 330.0), 150, 300
    )
    return Thorax(
        x0=view * rng.normal(0.0, 0.015),
        y0=view * rng.normal(0.035, 0.020),
        half_width=half_width,
        half_depth=half_depth,
        z_top=z_top,
        z_wide=z_top - height * rng.uniform(0.62, 0.78),
        z_base=z_top - height,
        dome=rng.uniform(45.0, 75.0),
        squareness=rng.uniform(2.1, 2.6),
        heart_scale=rng.uniform(0.85, 1.12),
        neck_width=rng.uniform(20.0, 27.0),
        rib_spacing=rng.uniform(24.0, 30.0),
        rib_phase=rng.uniform(0.0, 30.0),
        rib_drop=rng.uniform(95.0, 135.0),
        fat=rng.gamma(2.2, 10.0) + 4.0,
        muscle=rng.uniform(4.0, 15.0),
        shoulders=rng.uniform(0.10, 0.28),
        fissure_tilt=rng.uniform(0.65, 0.95),
        fissure_phase=rng.uniform(0.0, 6.0),
    )


def _smooth_min(a: Array, b: Array) -> Array:
    return -_smooth_max(-a, -b)


def _smooth_max(a: Array, b: Array) -> Array:
    """Maximum whose edge is rounded within `_ROUNDING_MM`."""
    h = np.maximum(_ROUNDING_MM - np.abs(a - b), 0.0) / _ROUNDING_MM
    return np.maximum(a, b) + h * h * (_ROUNDING_MM / 4.0)
