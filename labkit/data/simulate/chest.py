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
_MUSCLE_HU = 48.0  # where the body is too far away to be seen
_FISSURE_MM = 0.22
_FISSURE_EDGE_MM = 1.2


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
        muscle_hu: of muscle.
        fat_hu: of fat.
        haze_hu: how much denser lung is next to the pleura it rests on.
        region_hu: how much lung differs from region to region.
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
    muscle_hu: float
    fat_hu: float
    haze_hu: float
    region_hu: float
    marrow_hu: float
    cortex_hu: float
    salt: int

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
    hu += np.float32(tissue.region_hu) * texture(*axes, 38.0, tissue.salt + 5)
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


def fissure_share(thorax: Thorax, x_mm: NDArray, y_mm: NDArray, z_mm: NDArray) -> Float:
    """Share of tissue that fissures put at the grid of three axes: sheets of some tenths of a mm.

    Signed distances to them are computed on a lattice of 3 mm and interpolated.
    """
    share = np.zeros((len(z_mm), len(y_mm), len(x_mm)), np.float32)
    (ix, px), (iy, py), (iz, pz) = (lattice(a, _SURFACE_CELL_MM) for a in (x_mm, y_mm, z_mm))
    x, y, z = ((i * _SURFACE_CELL_MM).astype(np.float64) for i in (ix, iy, iz))
    x, y, z = x[None, None, :], y[None, :, None], z[:, None, None]
    oblique = np.broadcast_to(thorax.above_oblique(x, y, z), (len(iz), len(iy), len(ix)))
    alone = x[0, 0, 0] > thorax.x0 or oblique.max() < 0  # no horizontal one can be here
    if alone and np.abs(oblique).min() > 2 * _SURFACE_CELL_MM:
        return share
    height = upsample(oblique.astype(np.float32), (pz, py, px))
    _put_sheet(share, height)
    right = x_mm < thorax.x0
    if right.any() and height.max() > 0:
        nodes = np.broadcast_to(thorax.above_horizontal(x, y, z), oblique.shape)
        flat = np.zeros_like(share)
        _put_sheet(flat, upsample(nodes.astype(np.float32), (pz, py, px)))
        flat *= (height > 0) & right
        np.maximum(share, flat, out=share)
    return share


def _put_sheet(share: Float, height: Float) -> None:
    """Raise shares where a sheet lies; the signed distance to its middle is used up."""
    np.abs(height, out=height)
    height *= np.float32(-1.0 / _FISSURE_EDGE_MM)
    height += np.float32(1.0)
    height *= np.float32(_FISSURE_MM / _FISSURE_EDGE_MM)
    np.maximum(share, height, out=share)


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
    pushed = thorax.pushed(x, y, z)
    depth = thorax.cavity(x, y, z) - pushed
    torso = thorax.torso(x, y, z) - pushed
    hu = _wall(thorax, tissue, (x, y, z), depth, torso, mottle, strata)
    inside = depth < 0
    if inside.any():
        hu[inside] = _inner(thorax, tissue, x[inside], y[inside], z[inside], strata[inside])
    _put_spine(hu, thorax, tissue, x, y, z)
    return hu + (6.0 + 12.0 * (hu < -30.0)) * mottle * (hu > -300)


def _wall(
    thorax: Thorax,
    tissue: Tissue,
    points: tuple[NDArray, NDArray, NDArray],
    depth: NDArray,
    torso: NDArray,
    mottle: NDArray,
    strata: NDArray,
) -> NDArray:
    """From the pleura outwards: ribs with muscle between, muscle, fat, skin, air, table.

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
    """The mattress and the table's shell under the back, slightly hollow."""
    across = x - thorax.x0
    back = thorax.y0 + thorax.half_depth + 15.0 + 0.5 * thorax.muscle + 0.6 * thorax.fat
    below = y - back - 14.0 + across**2 / 900.0
    reach = np.abs(across) < 205.0
    hu[reach & (below > -22.0) & (below < 0.0)] = -945.0
    hu[reach & (below > 0.0) & (below < 32.0)] = -975.0
    shell = (np.abs(below - 1.5) < 1.5) | (np.abs(below - 30.5) < 1.5)
    hu[reach & shell] = -90.0


def _humerus(thorax: Thorax, x: NDArray, y: NDArray, z: NDArray) -> NDArray:
    """Signed distance to the heads of the upper arms' bones, mm."""
    across = np.abs(x - thorax.x0) - thorax.half_width * (1.0 + thorax.shoulders) + 8.0
    squared = across**2 + (y - thorax.y0 - 8.0) ** 2 + (z - thorax.z_top + 6.0) ** 2
    return np.sqrt(squared) - 23.0


def _inner(
    thorax: Thorax, tissue: Tissue, x: NDArray, y: NDArray, z: NDArray, strata: NDArray
) -> NDArray:
    """Within the cage: mediastinum with fat, heart, aorta and trachea; liver and spleen below."""
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
