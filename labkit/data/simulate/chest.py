"""What a chest is made of: HU of lung tissue, and of wall, bones, heart and belly around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labkit.data.simulate.noise import Float, generator, key, lattice, texture, upsample
from labkit.data.simulate.scan import Scan
from labkit.data.simulate.thorax import Thorax

_SURFACE_CELL_MM = 3.0
_BODY_CELL_MM = 1.25
_AIR_HU = -1000.0
_FAT_HU = -100.0
_MUSCLE_HU = 48.0


@dataclass(frozen=True)
class Tissue:
    """HU and textures of one patient.

    Args:
        lung_hu: of aerated lung, on average.
        gravity_hu: how much denser the lung is at the back than at the front.
        grain_hu: strength of the lung's fine texture.
        emphysema: share of the lung that is destroyed, about, 0 to 0.5.
        blood_hu: of the heart and the large vessels; high with contrast.
        organ_hu: of the liver.
        marrow_hu: of the inside of bones.
        cortex_hu: of their shell.
        salt: key of the textures.
    """

    lung_hu: float
    gravity_hu: float
    grain_hu: float
    emphysema: float
    blood_hu: float
    organ_hu: float
    marrow_hu: float
    cortex_hu: float
    salt: int

    @classmethod
    def of(cls, scan: Scan, seed: int) -> Tissue:
        """Draw a patient's."""
        rng = generator(seed, scan.patient_id, scan.series_uid, "tissue")
        contrast = rng.random() < 0.5
        return cls(
            lung_hu=float(np.clip(rng.normal(-876.0, 36.0), -945.0, -770.0)),
            gravity_hu=float(rng.uniform(10.0, 55.0)),
            grain_hu=float(rng.uniform(10.0, 26.0)),
            emphysema=float(max(rng.normal(-0.08, 0.16), 0.0)),
            blood_hu=float(rng.uniform(90.0, 220.0) if contrast else rng.normal(42.0, 6.0)),
            organ_hu=float(rng.normal(95.0, 12.0) if contrast else rng.normal(58.0, 8.0)),
            marrow_hu=float(rng.uniform(40.0, 200.0)),
            cortex_hu=float(rng.uniform(700.0, 1250.0)),
            salt=key(seed, scan.patient_id, scan.series_uid, "tissue texture"),
        )


def surface_distance(thorax: Thorax, x_mm: NDArray, y_mm: NDArray, z_mm: NDArray) -> Float:
    """Signed distance to the lungs' surface at the grid of three axes, negative in lung, mm.

    Computed on a lattice of 3 mm and interpolated: the surface is smooth, of radii of centimetres.
    """
    (ix, px), (iy, py), (iz, pz) = (lattice(a, _SURFACE_CELL_MM) for a in (x_mm, y_mm, z_mm))
    x, y, z = ((i * _SURFACE_CELL_MM).astype(np.float64) for i in (ix, iy, iz))
    nodes = thorax.lung(x[None, None, :], y[None, :, None], z[:, None, None])
    return upsample(nodes.astype(np.float32), (pz, py, px))


def lung_hu(thorax: Thorax, tissue: Tissue, x_mm: NDArray, y_mm: NDArray, z_mm: NDArray) -> Float:
    """HU of aerated lung, without its visible vessels, at the grid of three axes."""
    axes = (x_mm, y_mm, z_mm)
    # The smallest vessels are too fine to draw: they are specks, brighter than darker.
    hu = texture(*axes, 2.0, tissue.salt)
    np.maximum(hu, np.float32(-0.6), out=hu)
    hu *= np.float32(2.0 * tissue.grain_hu)
    hu += np.float32(0.8 * tissue.grain_hu) * texture(*axes, 6.0, tissue.salt + 1)
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


def body_hu(thorax: Thorax, tissue: Tissue, x_mm: NDArray, y_mm: NDArray, z_mm: NDArray) -> Float:
    """HU of everything that is not lung, at the grid of three axes; meaningless within lung.

    Computed on a lattice of 1.25 mm, where not deep in lung, and interpolated.
    """
    (ix, px), (iy, py), (iz, pz) = (lattice(a, _BODY_CELL_MM) for a in (x_mm, y_mm, z_mm))
    x, y, z = ((i * _BODY_CELL_MM).astype(np.float64) for i in (ix, iy, iz))
    wanted = surface_distance(thorax, x, y, z) > -3.0
    nodes = np.full(wanted.shape, _MUSCLE_HU, dtype=np.float32)
    at_z, at_y, at_x = np.nonzero(wanted)
    if len(at_z):
        mottle = texture(x, y, z, 5.0, tissue.salt + 3)[wanted].astype(np.float64)
        strata = texture(x, y, z, 14.0, tissue.salt + 4)[wanted].astype(np.float64)
        nodes[wanted] = _body_at(thorax, tissue, x[at_x], y[at_y], z[at_z], mottle, strata)
    return upsample(nodes, (pz, py, px))


def _body_at(
    thorax: Thorax,
    tissue: Tissue,
    x: NDArray,
    y: NDArray,
    z: NDArray,
    mottle: NDArray,
    strata: NDArray,
) -> NDArray:
    """HU of the body at (N,) points; two (N,) textures vary it."""
    depth = thorax.cavity(x, y, z) - thorax.pushed(x, y, z)
    hu = _wall(thorax, tissue, x, y, z, depth, mottle, strata)
    inside = depth < 0
    if inside.any():
        hu[inside] = _inner(thorax, tissue, x[inside], y[inside], z[inside], strata[inside])
    _put_spine(hu, thorax, tissue, x, y, z)
    return hu + 6.0 * mottle * (hu > -300)


def _wall(
    thorax: Thorax,
    tissue: Tissue,
    x: NDArray,
    y: NDArray,
    z: NDArray,
    depth: NDArray,
    mottle: NDArray,
    strata: NDArray,
) -> NDArray:
    """From the pleura outwards: ribs with muscle between, muscle, fat, skin, air."""
    angle = np.abs(np.arctan2(x - thorax.x0, y - thorax.y0)) / np.pi  # 0 at the back, 1 in front
    side = np.sin(np.pi * angle)
    muscle = thorax.muscle * (0.5 + 0.9 * side) * (1.0 + 0.25 * strata)
    fat = thorax.fat * (0.6 + 0.6 * angle + 0.15 * strata)
    hu = np.full(len(x), _AIR_HU)
    outer = 11.5 + np.maximum(muscle, 2.0)
    skin = outer + np.maximum(fat, 1.0)
    hu[depth < skin + 2.0] = -15.0
    hu[depth < skin] = _FAT_HU
    flesh = depth < outer
    hu[flesh] = _MUSCLE_HU
    # Planes of fat between the muscles, and within the intercostal space.
    hu[flesh & (np.abs(strata - 0.10 * (depth - 14.0)) < 0.30) & (depth > 9.5)] = -80.0
    hu[(depth < 10.0) & (mottle > 0.3)] = -50.0
    hu[(depth > 0.3) & (depth < 1.8) & (strata > 0.0)] = -60.0
    high = (z - thorax.z_base) / (thorax.z_top - thorax.z_base)
    blade = (np.abs(angle - 0.33) < 0.20) & (high > 0.55) & (np.abs(depth - outer + 4.0) < 2.2)
    hu[blade] = 0.55 * tissue.cortex_hu
    turn = thorax.rib_turn(x, y, z)
    height = 0.94 * thorax.rib_spacing * (turn - np.round(turn))
    rib = np.hypot((depth - 5.6) / 3.9, height / 6.4)
    front = np.clip((angle - 0.74) / 0.06, 0.0, 1.0)  # ribs end in cartilage
    marrow = tissue.marrow_hu + 40.0 * mottle
    bone = np.where(rib > 0.76, 0.75 * tissue.cortex_hu, marrow)
    is_rib = rib < 1.0
    hu[is_rib] = ((1 - front) * bone + front * 95.0)[is_rib]
    sternum = (np.abs(x - thorax.x0) < 17.0) & (angle > 0.8) & (np.abs(depth - 8.0) < 5.5)
    sternum &= high > 0.25
    rim = (np.abs(depth - 8.0) > 4.0) | (np.abs(x - thorax.x0) > 15.0)
    hu[sternum] = np.where(rim, 0.5 * tissue.cortex_hu, marrow)[sternum]
    return hu


def _inner(
    thorax: Thorax, tissue: Tissue, x: NDArray, y: NDArray, z: NDArray, strata: NDArray
) -> NDArray:
    """Within the cage: mediastinum with fat, heart, aorta and trachea; liver and spleen below."""
    hu = 35.0 - 125.0 * np.clip(1.6 * strata - 0.1, 0.0, 1.0)
    hu[thorax.heart(x, y, z) < -1.0] = 0.75 * tissue.blood_hu + 0.25 * 45.0
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
    hu[belly] = organ[belly]
    return hu


def _put_spine(
    hu: NDArray, thorax: Thorax, tissue: Tissue, x: NDArray, y: NDArray, z: NDArray
) -> None:
    """Vertebral bodies with discs between them, the canal behind, and the arch."""
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
