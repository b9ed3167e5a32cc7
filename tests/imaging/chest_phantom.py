"""A small chest of known geometry, about a child's: quick to segment, with whatever is wanted."""

from dataclasses import dataclass

import numpy as np

from labkit.imaging.volume import Volume

SHAPE_MM = (176.0, 168.0, 224.0)  # z, y, x
LUNG_HALF_MM = (58.0, 46.0, 36.0)
LUNG_X_MM = 44.0
MUSCLE, LUNG, AIR, GAS, BLOOD = 45.0, -860.0, -1000.0, -1000.0, 60.0


@dataclass(frozen=True)
class Chest:
    """A chest on a grid: a Volume, and what is true of its voxels.

    x, y and z are (Z, Y, X)-shaped world coordinates about the middle, mm.
    """

    volume: Volume
    right: np.ndarray
    left: np.ndarray
    windpipe: np.ndarray
    gas: np.ndarray
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray

    @property
    def lungs(self):
        return self.right | self.left


def ball(x, y, z, center_xyz_mm, radius_mm):
    cx, cy, cz = center_xyz_mm
    return (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < radius_mm**2


def chest(
    spacing_mm=2.0,
    direction=None,
    sides="rl",
    aerated=True,
    vessels=True,
    bronchi=True,
    touching=False,
    table=True,
    stomach=True,
    arms=True,
    padding=None,
    nodules=(),
    noise=12.0,
    seed=0,
):
    """Make one.

    Args:
        spacing_mm: one length, or three as (x, y, z) of the array's axes.
        direction: of the volume; None is the identity.
        sides: which lungs there are.
        aerated: whether they hold air.
        nodules: (center_xyz_mm, radius_mm) of balls of soft tissue.
        padding: HU outside the largest circle in every slice, None for air.
    """
    direction = np.eye(3) if direction is None else np.asarray(direction, float)
    spacing = np.broadcast_to(np.asarray(spacing_mm, float), 3)
    # A grid that covers the same box of the world whatever the direction.
    reach = np.abs(np.linalg.inv(direction)) @ np.array(SHAPE_MM[::-1])
    count = np.round(reach / spacing).astype(int)
    origin = -direction @ (spacing * (count - 1) / 2)
    frame = Volume(np.zeros(count[::-1], np.int8), tuple(spacing), tuple(origin), direction)
    index = np.stack(np.meshgrid(*map(np.arange, frame.shape), indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(frame.world_from_index(index), -1, 0)

    body = (x / 92) ** 2 + (y / 66) ** 2 < 1
    hu = np.where(body, MUSCLE, AIR)
    if arms:
        for side in (-1, 1):
            hu[np.hypot(x - 99 * side, y - 4) < 10] = MUSCLE
    if table:  # a shell of plastic around foam, right below the back
        hu[(np.abs(y - 75) < 8) & (np.abs(x) < 100)] = -100
        hu[(np.abs(y - 75) < 5) & (np.abs(x) < 97)] = -965

    def lung(side):
        middle = LUNG_X_MM * side * (0.83 if touching else 1)
        a, b, c = LUNG_HALF_MM
        inside = ((x - middle) / c) ** 2 + (y / b) ** 2 + ((z - 8) / a) ** 2 < 1
        return inside & (x * side > (0.5 if touching else 6))

    nothing = np.zeros(body.shape, bool)
    right, left = (lung(side) if name in sides else nothing for name, side in (("r", -1), ("l", 1)))
    lungs = right | left
    rng = np.random.default_rng(seed)
    if aerated:
        hu[lungs] = LUNG
    if vessels:
        for side in (-1, 1):
            for rod in range(9):
                at = np.array([44.0 * side, 0.0, 8.0]) + rng.uniform(-1, 1, 3) * (18, 26, 30)
                off = [x - at[0], y - at[1], z - at[2]]
                along = off.pop(rod % 3)
                hu[(off[0] ** 2 + off[1] ** 2 < 9) & (np.abs(along) < 14) & lungs] = BLOOD
    windpipe = (np.hypot(x, y + 8) < 6) & (z > 18) & (np.abs(x) < 40)
    if bronchi:
        for side in (-1, 1):
            line = np.hypot(y + 8, z - (20 - 0.3 * np.abs(x)))
            windpipe |= (line < 4) & (x * side > 0) & (x * side < 12)
    wall = (np.hypot(x, y + 8) < 8) & (z > 16)
    hu[wall & ~windpipe] = MUSCLE
    hu[windpipe & body] = GAS
    windpipe &= body & ~lungs
    gas = nothing.copy()
    if stomach:
        gas = ball(x, y, z, (34.0, -12.0, -72.0), 14)
        gas |= (np.hypot(x - 3, y - 14) < 4) & (np.abs(z - 20) < 14)  # in the oesophagus
        hu[gas] = GAS
    for center, radius in nodules:
        hu[ball(x, y, z, center, radius)] = 30.0
    hu = hu + rng.normal(0, noise, hu.shape)
    if padding is not None:
        hu[np.hypot(x, y) > 108] = padding
    voxels = np.round(hu).astype(np.int16)
    volume = Volume(voxels, frame.spacing_xyz_mm, frame.origin_xyz_mm, direction)
    return Chest(volume, right, left, windpipe, gas & ~lungs, x, y, z)
