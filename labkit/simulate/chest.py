"""What a chest is made of: a patient's tissues, and lung with its regions, fissures and noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from labkit.simulate.noise import (
    Float,
    gaussian,
    generator,
    grid,
    key,
    lattice,
    on_lattice,
    texture,
    upsample,
)
from labkit.simulate.scan import Scan

Array = NDArray[np.float64]
_CANDIDATES = 24
_ROUNDING_MM = 5.0
_MEET_MM = 7.0  # how far the pleura comes to meet a nodule that touches it


@dataclass(frozen=True)
class Pocket:
    """A place where the lung's surface gives way to a nodule, or comes to meet it."""

    center_xyz_mm: Array  # (3,) middle of the bulge
    push_mm: float  # how far the surface moves outward at the middle; inward when negative
    reach_mm: float  # the bulge's width (Gaussian)


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
        """Return the lowest and highest corner of a box around both lungs."""
        reach = np.array([self.half_width, 1.2 * self.half_depth])
        low = np.array([self.x0 - reach[0], self.y0 - reach[1], self.z_base - 20.0])
        return low, np.array([self.x0 + reach[0], self.y0 + reach[1], self.z_top])

    def hilum_xyz_mm(self, left: NDArray[np.bool_]) -> Array:
        """Return (..., 3) the root of the left or right lung."""
        x = self.x0 + np.where(left, 34.0, -34.0)
        y = np.full_like(x, self.y0 - 0.02 * self.half_depth)
        return np.stack([x, y, np.full_like(x, self.z_hilum)], axis=-1)

    def spine_y(self) -> float:
        """Where the vertebral bodies' middle lies."""
        return self.y0 + 0.60 * self.half_depth

    def cavity(self, x: Array, y: Array, z: Array) -> Array:
        """Compute the signed distance to the inner chest wall, mm, about: negative inside."""
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
        """Compute the signed distance to the column of vertebral bodies, mm."""
        return np.hypot(x - self.x0, 0.9 * (y - self.spine_y())) - 19.0 + 0.0 * z

    def heart(self, x: Array, y: Array, z: Array) -> Array:
        """Compute the signed distance to the heart, mm, about."""
        scale = self.heart_scale
        z_heart = self.z_base + 0.36 * (self.z_top - self.z_base)
        u, v = (x - self.x0 - 20.0) / (56.0 * scale), (y - self.y0 + 0.30 * self.half_depth)
        radius = np.sqrt(u**2 + (v / (46.0 * scale)) ** 2 + ((z - z_heart) / 52.0) ** 2)
        return (radius - 1.0) * 46.0 * scale

    def mediastinum(self, x: Array, y: Array, z: Array) -> Array:
        """Compute the signed distance to everything between the lungs, mm, about."""
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
            nearest = -_smooth_max(-nearest, -part)
        return nearest

    def diaphragm(self, x: Array, y: Array, z: Array) -> Array:
        """Compute the signed distance to the diaphragm, mm, about: positive in the belly."""
        side = x - self.x0
        u = (np.abs(side) - 0.46 * self.half_width) / (0.62 * self.half_width)
        v = (y - self.y0 + 0.12 * self.half_depth) / (0.98 * self.half_depth)
        height = np.maximum(1.0 - u**2 - v**2, -0.6)
        top = (
            self.z_base + self.dome * height + np.where(side < 0, 12.0, 0.0) * np.maximum(height, 0)
        )
        return 0.72 * (top - z)

    def lung(self, x: Array, y: Array, z: Array) -> Array:
        """Compute the signed distance to the lungs' surface, mm, about: negative in lung."""
        outside = _smooth_max(self.cavity(x, y, z), -self.mediastinum(x, y, z))
        outside = _smooth_max(outside, self.diaphragm(x, y, z))
        return outside - self.pushed(x, y, z)

    def pushed(self, x: Array, y: Array, z: Array) -> Array:
        """Compute how far pockets move the lung's surface outward at each point, mm."""
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
        """Compute the distance to the nearest fissure of the lung that holds a point, mm, about.

        The oblique one rises from the front of the diaphragm to the back; in the right lung a
        horizontal one leaves it at the level of the hilum. Fissures are gently wavy.
        """
        oblique = self.above_oblique(x, y, z)
        horizontal = np.where(oblique > 0, np.abs(self.above_horizontal(x, y, z)), np.inf)
        right = x < self.x0
        return np.where(right, np.minimum(np.abs(oblique), horizontal), np.abs(oblique))

    def lobe(self, x: Array, y: Array, z: Array) -> NDArray[np.int64]:
        """Return the lobe that holds a point of lung: right 0 to 2 from above, left 3, 4."""
        upper = self.above_oblique(x, y, z) > 0
        high = self.above_horizontal(x, y, z) > 0
        right = np.where(upper, np.where(high, 0, 1), 2)
        return np.where(x < self.x0, right, np.where(upper, 3, 4))

    def above_oblique(self, x: Array, y: Array, z: Array) -> Array:
        """Compute the signed distance to the oblique fissure, mm, about: negative below."""
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
        """Compute the height along the ribs' spiral: whole numbers are the middle of a rib.

        Ribs start high at the spine and fall on their way round to the front.
        """
        angle = np.abs(np.arctan2(x - self.x0, y - self.y0)) / np.pi
        return (z + self.rib_drop * angle - self.rib_phase) / self.rib_spacing


def thorax_of(
    scan: Scan, surfaces_xyz_mm: list[Array], seed: int, gaps_mm: list[float] | None = None
) -> Thorax:
    """Draw a chest at random for a scan, in which every nodule lies in lung.

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


def _smooth_max(a: Array, b: Array) -> Array:
    """Maximum whose edge is rounded within `_ROUNDING_MM`."""
    h = np.maximum(_ROUNDING_MM - np.abs(a - b), 0.0) / _ROUNDING_MM
    return np.maximum(a, b) + h * h * (_ROUNDING_MM / 4.0)


_SURFACE_CELL_MM = 3.0
_REGION_CELL_MM = 6.0
_FISSURE_MM = 0.22
_FISSURE_EDGE_MM = 1.2


@dataclass(frozen=True)
class Tissue:
    """HU and textures of one patient."""

    lung_hu: float  # of aerated lung, on average
    gravity_hu: float  # how much denser the lung is at the back than at the front
    grain_hu: float  # strength of the lung's fine texture
    emphysema: float  # share of the lung that is destroyed, about, 0 to 0.5
    blood_hu: float  # of the heart and the large vessels; high with contrast
    organ_hu: float  # of the liver
    muscle_hu: float  # of muscle
    fat_hu: float  # of fat
    haze_hu: float  # how much denser lung is next to the pleura it rests on
    region_hu: float  # how much lung differs from region to region
    marrow_hu: float  # of the inside of bones
    cortex_hu: float  # of their shell
    salt: int  # key of the textures

    @classmethod
    def of(cls, scan: Scan, seed: int) -> Tissue:
        """Draw a patient's."""
        rng = generator(seed, scan.patient_id, scan.series_uid, "tissue")
        contrast = rng.random() < 0.5
        return cls(
            lung_hu=float(np.clip(rng.normal(-890.0, 48.0), -955.0, -720.0)),
            gravity_hu=float(rng.uniform(20.0, 90.0)),
            grain_hu=float(rng.uniform(8.0, 24.0)),
            emphysema=float(max(rng.normal(-0.08, 0.16), 0.0)),
            blood_hu=float(rng.uniform(90.0, 220.0) if contrast else rng.normal(42.0, 6.0)),
            organ_hu=float(rng.normal(95.0, 12.0) if contrast else rng.normal(58.0, 8.0)),
            muscle_hu=float(rng.normal(35.0, 14.0)),
            fat_hu=float(rng.normal(-106.0, 9.0)),
            haze_hu=float(rng.uniform(0.0, 130.0)),
            region_hu=float(rng.uniform(8.0, 38.0)),
            marrow_hu=float(rng.uniform(40.0, 200.0)),
            cortex_hu=float(rng.uniform(700.0, 1250.0)),
            salt=key(seed, scan.patient_id, scan.series_uid, "tissue texture"),
        )


def surface_distance(thorax: Thorax, x_mm: NDArray, y_mm: NDArray, z_mm: NDArray) -> Float:
    """Compute the signed distance to the lungs' surface at a grid of axes, negative in lung, mm.

    Computed on a lattice of 3 mm and interpolated: the surface is smooth, of radii of centimetres.
    """
    axes = (x_mm, y_mm, z_mm)
    return on_lattice(_SURFACE_CELL_MM, axes, lambda *at: thorax.lung(*grid(*at)))


def lung_hu(thorax: Thorax, tissue: Tissue, x_mm: NDArray, y_mm: NDArray, z_mm: NDArray) -> Float:
    """Compute HU of aerated lung, without its visible vessels, at the grid of three axes."""
    axes = (x_mm, y_mm, z_mm)
    # The smallest vessels are too fine to draw: they are specks, brighter than darker.
    hu = texture(*axes, 2.0, tissue.salt)
    np.maximum(hu, np.float32(-0.6), out=hu)
    hu *= np.float32(2.0 * tissue.grain_hu)
    # Regions of 38 mm are smooth enough to be worked out at the points of the finer texture.
    (ix, px), (iy, py), (iz, pz) = (lattice(axis, _REGION_CELL_MM) for axis in axes)
    nodes = gaussian(*grid(ix, iy, iz), tissue.salt + 1)
    nodes *= np.float32(0.8 * tissue.grain_hu)
    x, y, z = (i * _REGION_CELL_MM for i in (ix, iy, iz))
    nodes += np.float32(tissue.region_hu) * texture(x, y, z, 38.0, tissue.salt + 5)
    hu += upsample(nodes, (pz, py, px))
    back = (y_mm - thorax.y0) / (2.0 * thorax.half_depth)
    hu += (tissue.lung_hu + tissue.gravity_hu * back).astype(np.float32)[None, :, None]
    if tissue.emphysema > 0:
        # Holes: where a smooth texture is high, the lung is gone.
        holes = texture(*axes, 7.0, tissue.salt + 2)
        holes += np.float32(4.0 * tissue.emphysema - 1.7)
        holes *= np.float32(2.0)
        np.clip(holes, 0.0, 1.0, out=holes)
        hu += holes * (np.float32(-960.0) - hu)
    return hu


def noise_gain(thorax: Thorax, x_mm: NDArray, y_mm: NDArray, z_mm: NDArray, salt: int) -> Float:
    """Compute how much stronger than deep in lung a scan's noise is, at the grid of three axes.

    Rays that reach the wall or the mediastinum pass more bone and flesh, a third more noise; and
    no two regions of a scan are alike. Computed on a lattice of 3 mm and interpolated.
    """

    def gain(x: NDArray, y: NDArray, z: NDArray) -> NDArray:
        nodes = 1.0 + 0.33 * np.clip(0.5 + thorax.lung(*grid(x, y, z)) / 16.0, 0.0, 1.0)
        return nodes * np.exp(0.3 * texture(x, y, z, 60.0, salt))

    return on_lattice(_SURFACE_CELL_MM, (x_mm, y_mm, z_mm), gain)


def fissure_share(thorax: Thorax, x_mm: NDArray, y_mm: NDArray, z_mm: NDArray) -> Float:
    """Compute the share of tissue that fissures put at a grid: sheets of some tenths of a mm.

    Signed distances to them are computed on a lattice of 3 mm and interpolated.
    """
    share = np.zeros((len(z_mm), len(y_mm), len(x_mm)), np.float32)
    (ix, px), (iy, py), (iz, pz) = (lattice(a, _SURFACE_CELL_MM) for a in (x_mm, y_mm, z_mm))
    x, y, z = grid(*(i * _SURFACE_CELL_MM for i in (ix, iy, iz)))
    oblique = np.broadcast_to(thorax.above_oblique(x, y, z), (len(iz), len(iy), len(ix)))
    alone = x[0, 0, 0] > thorax.x0 or oblique.max() < 0  # no horizontal one can be here
    if alone and np.abs(oblique).min() > 2 * _SURFACE_CELL_MM:
        return share
    height = upsample(oblique.astype(np.float32), (pz, py, px))
    _put_sheet(share, height.copy())
    right = x_mm < thorax.x0
    if right.any() and height.max() > 0:
        nodes = np.broadcast_to(thorax.above_horizontal(x, y, z), oblique.shape)
        # It lies about level: few slices meet it.
        met = np.abs(nodes).min(axis=(1, 2)) < 2 * _SURFACE_CELL_MM
        some = np.flatnonzero(met[pz[0]] | met[pz[0] + 1])
        level = upsample(nodes.astype(np.float32), ((pz[0][some], pz[1][some]), py, px))
        flat = np.zeros_like(level)
        _put_sheet(flat, level)
        flat *= (height[some] > 0) & right
        share[some] = np.maximum(share[some], flat)
    return share


def _put_sheet(share: Float, height: Float) -> None:
    """Raise shares where a sheet lies; the signed distance to its middle is used up."""
    np.abs(height, out=height)
    height *= np.float32(-1.0 / _FISSURE_EDGE_MM)
    height += np.float32(1.0)
    height *= np.float32(_FISSURE_MM / _FISSURE_EDGE_MM)
    np.maximum(share, height, out=share)


_BODY_CELL_MM = 1.5
_AIR_HU = -1000.0
_MUSCLE_HU = 48.0  # where the body is too far away to be seen


def body_hu(thorax: Thorax, tissue: Tissue, x_mm: NDArray, y_mm: NDArray, z_mm: NDArray) -> Float:
    """Compute HU of everything that is not lung, at a grid of three axes; meaningless within lung.

    Computed on a lattice of 1.5 mm, where not deep in lung, and interpolated.
    """

    def body(x: NDArray, y: NDArray, z: NDArray) -> NDArray:
        wanted = surface_distance(thorax, x, y, z) > -3.0
        nodes = np.full(wanted.shape, _MUSCLE_HU, dtype=np.float32)
        at_z, at_y, at_x = np.nonzero(wanted)
        if len(at_z):
            mottle = texture(x, y, z, 5.0, tissue.salt + 3)[wanted].astype(np.float64)
            strata = texture(x, y, z, 14.0, tissue.salt + 4)[wanted].astype(np.float64)
            points = (x[at_x], y[at_y], z[at_z])
            nodes[wanted] = _body_at(thorax, tissue, points, mottle, strata)
        return nodes

    return on_lattice(_BODY_CELL_MM, (x_mm, y_mm, z_mm), body)


def _body_at(
    thorax: Thorax, tissue: Tissue, points: tuple[Array, Array, Array], mottle: Array, strata: Array
) -> Array:
    """Compute HU of the body at (N,) points; two (N,) textures vary it."""
    x, y, z = points
    pushed = thorax.pushed(x, y, z)
    depth, torso = thorax.cavity(x, y, z) - pushed, thorax.torso(x, y, z) - pushed
    hu = _wall(thorax, tissue, points, depth, torso, mottle, strata)
    inside = depth < 0
    if inside.any():
        hu[inside] = _inner(thorax, tissue, x[inside], y[inside], z[inside], strata[inside])
    _put_spine(hu, thorax, tissue, x, y, z)
    return hu + (6.0 + 12.0 * (hu < -30.0)) * mottle * (hu > -300)


def _wall(
    thorax: Thorax, tissue: Tissue, points: tuple[Array, Array, Array], depth: Array,
    torso: Array, mottle: Array, strata: Array,
) -> Array:  # fmt: skip
    """Compute HU from the pleura outwards: ribs with muscle between, muscle, fat, skin, air, table.

    `depth` counts from the inner chest wall, which closes over the lungs; `torso` from a body that
    goes on to shoulders and neck, where muscle and fat lie in between.
    """
    x, y, z = points
    angle = np.abs(np.arctan2(x - thorax.x0, y - thorax.y0)) / np.pi  # 0 at the back, 1 in front
    side = np.sin(np.pi * angle)
    muscle = thorax.muscle * (0.5 + 0.9 * side) * (1.0 + 0.25 * strata)
    fat = thorax.fat * (0.6 + 0.6 * angle + 0.15 * strata)
    hu = np.full(len(x), _AIR_HU)
    _put_table(hu, thorax, x, y)
    outer = 11.5 + np.maximum(muscle, 2.0)
    skin = outer + np.maximum(fat, 1.0)
    hu[torso < skin + 2.0] = -15.0
    hu[torso < skin] = tissue.fat_hu
    between = torso < outer
    lard = np.clip(0.5 + 1.5 * (0.6 * mottle + strata - 0.5), 0.0, 1.0)
    hu[between] = (tissue.muscle_hu + lard * (tissue.fat_hu - tissue.muscle_hu))[between]
    flesh = between & (depth < outer)
    hu[flesh] = tissue.muscle_hu
    # Planes of fat between the muscles, and within the intercostal space.
    planes = flesh & (np.abs(strata - 0.10 * (depth - 14.0)) < 0.38) & (depth > 9.5)
    hu[planes] = 0.9 * tissue.fat_hu
    hu[(depth < 10.0) & (mottle > 0.25)] = 0.6 * tissue.fat_hu
    hu[(depth > 0.3) & (depth < 2.2) & (strata > -0.2)] = 0.75 * tissue.fat_hu
    high = (z - thorax.z_base) / (thorax.z_top - thorax.z_base)
    arm = _humerus(thorax, x, y, z)
    within = between & (arm < 0.0)
    hu[within] = np.where(arm > -3.0, 0.7 * tissue.cortex_hu, tissue.marrow_hu)[within]
    blade = (np.abs(angle - 0.33) < 0.20) & (high > 0.55) & (np.abs(depth - outer + 4.0) < 2.2)
    hu[blade] = 0.55 * tissue.cortex_hu
    turn = thorax.rib_turn(x, y, z)
    height = 0.94 * thorax.rib_spacing * (turn - np.round(turn))
    rib = np.hypot((depth - 5.6) / 3.9, height / 6.4)
    front = np.clip((angle - 0.74) / 0.06, 0.0, 1.0)  # ribs end in cartilage
    marrow = tissue.marrow_hu + 40.0 * mottle
    bone = np.where(rib > 0.70, 0.75 * tissue.cortex_hu, marrow)
    is_rib = rib < 1.0
    hu[is_rib] = ((1 - front) * bone + front * 95.0)[is_rib]
    sternum = (np.abs(x - thorax.x0) < 17.0) & (angle > 0.8) & (np.abs(depth - 8.0) < 5.5)
    sternum &= high > 0.25
    rim = (np.abs(depth - 8.0) > 4.0) | (np.abs(x - thorax.x0) > 15.0)
    hu[sternum] = np.where(rim, 0.5 * tissue.cortex_hu, marrow)[sternum]
    return hu


def _put_table(hu: NDArray, thorax: Thorax, x: NDArray, y: NDArray) -> None:
    """Draw the mattress and the table's shell under the back, slightly hollow."""
    across = x - thorax.x0
    back = thorax.y0 + thorax.half_depth + 15.0 + 0.5 * thorax.muscle + 0.6 * thorax.fat
    below = y - back - 14.0 + across**2 / 900.0
    reach = np.abs(across) < 205.0
    hu[reach & (below > -22.0) & (below < 0.0)] = -945.0
    hu[reach & (below > 0.0) & (below < 32.0)] = -975.0
    shell = (np.abs(below - 1.5) < 1.5) | (np.abs(below - 30.5) < 1.5)
    hu[reach & shell] = -90.0


def _humerus(thorax: Thorax, x: NDArray, y: NDArray, z: NDArray) -> NDArray:
    """Compute the signed distance to the heads of the upper arms' bones, mm."""
    across = np.abs(x - thorax.x0) - thorax.half_width * (1.0 + thorax.shoulders) + 8.0
    squared = across**2 + (y - thorax.y0 - 8.0) ** 2 + (z - thorax.z_top + 6.0) ** 2
    return np.sqrt(squared) - 23.0


def _inner(thorax: Thorax, tissue: Tissue, x: Array, y: Array, z: Array, strata: Array) -> Array:
    """Compute HU within the cage: mediastinum, heart, aorta, trachea; liver and spleen below."""
    hu = 35.0 - 125.0 * np.clip(1.6 * strata - 0.1, 0.0, 1.0)
    # Chambers of blood within muscle, parted by a wall that runs from front left to back right.
    heart = thorax.heart(x, y, z)
    flesh = 0.4 * tissue.blood_hu + 0.6 * 45.0
    septum = 0.8 * (x - thorax.x0 - 16.0) + 0.6 * (y - thorax.y0 + 0.30 * thorax.half_depth)
    chamber = (heart < -7.0) & (np.abs(septum + 5.0 * strata) > 4.5)
    hu[heart < -1.0] = flesh
    hu[chamber] = 0.85 * tissue.blood_hu + 0.15 * 45.0
    middle = thorax.y0 - 0.14 * thorax.half_depth
    aorta = np.hypot(x - thorax.x0 - 23.0, y - thorax.spine_y() + 22.0) < 12.0
    arch = np.hypot(x - thorax.x0 - 6.0, y - middle + 8.0) < 15.0
    cava = np.hypot(x - thorax.x0 + 24.0, y - middle + 4.0) < 9.0
    level = (z - thorax.z_base) / (thorax.z_top - thorax.z_base)
    hu[aorta & (level < 0.75)] = tissue.blood_hu
    hu[(arch | cava) & (level > 0.45) & (level < 0.85)] = tissue.blood_hu
    # Trachea, and two main bronchi from the carina to the hila.
    trachea = np.hypot(x - thorax.x0, y - middle - 14.0) - 8.5
    branch = np.abs(x - thorax.x0) - 36.0
    z_bronchus = thorax.z_hilum + 22.0 - 0.55 * np.abs(x - thorax.x0)
    main = np.maximum(np.hypot(y - middle - 14.0, z - z_bronchus) - 6.0, branch)
    tube = np.minimum(np.maximum(trachea, thorax.z_hilum + 20.0 - z), main)
    hu[tube < 1.5] = 30.0
    hu[tube < 0.0] = -985.0
    belly = thorax.diaphragm(x, y, z) > 0
    right = x < thorax.x0
    organ = np.where(right, tissue.organ_hu, np.where(strata > 0.3, -95.0, tissue.organ_hu))
    # The stomach lies in front under the left dome; its gas rises to the front.
    u, v = (x - thorax.x0 - 0.48 * thorax.half_width) / 38.0, (y - thorax.y0) / thorax.half_depth
    w = (z - thorax.z_base - 0.5 * thorax.dome + 26.0) / 26.0
    stomach = u**2 + ((v + 0.30) / 0.34) ** 2 + w**2 < 1.0
    organ[stomach] = np.where(v < -0.34, -980.0, 25.0)[stomach]
    hu[belly] = organ[belly]
    return hu


def _put_spine(hu: Array, thorax: Thorax, tissue: Tissue, x: Array, y: Array, z: Array) -> None:
    """Draw vertebral bodies with discs between them, the canal behind, and the arch."""
    dx, dy = np.abs(x - thorax.x0), y - thorax.spine_y()
    near = np.flatnonzero((dx < 36.0) & (np.abs(dy) < 62.0))
    dx, dy, depth = dx[near], dy[near], thorax.vertebrae(x[near], y[near], z[near])
    turn = (z[near] - thorax.rib_phase) / 25.0
    disc = np.abs(turn - np.round(turn)) > 0.40
    body = depth < 0
    value = np.where(depth > -1.8, 0.42 * tissue.cortex_hu, tissue.marrow_hu + 30.0)
    value = np.where(disc, 85.0, value)
    canal = np.hypot(dx, dy - 29.0) < 9.0
    ring = np.hypot(dx / 1.25, dy - 29.0) < 15.0
    process = (dx < 4.0) & (dy > 40.0) & (dy < 58.0)
    wing = (np.abs(dy - 30.0) < 5.0) & (dx < 34.0)
    arch = (ring | process | wing) & ~disc
    spot = hu[near]
    spot[arch] = 0.22 * tissue.cortex_hu + 90.0
    spot[canal] = 22.0
    spot[body] = value[body]
    hu[near] = spot
