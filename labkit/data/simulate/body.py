"""What is around the lungs: wall with ribs, table, spine, mediastinum with the heart, and belly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labkit.data.simulate.chest import Tissue, surface_distance
from labkit.data.simulate.noise import Float, lattice, texture, upsample
from labkit.data.simulate.thorax import Thorax

_BODY_CELL_MM = 1.5
_AIR_HU = -1000.0
_MUSCLE_HU = 48.0  # where the body is too far away to be seen


def body_hu(thorax: Thorax, tissue: Tissue, x_mm: NDArray, y_mm: NDArray, z_mm: NDArray) -> Float:
    """HU of everything that is not lung, at the grid of three axes; meaningless within lung.

    Computed on a lattice of 1.5 mm, where not deep in lung, and interpolated.
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
