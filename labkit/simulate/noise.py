"""Randomness that belongs to a place: the same point has the same value in every crop.

Ordinary generators hand out numbers in the order they are asked for, so a larger crop would
see another chest. Here a value depends only on integer coordinates and a key, through a hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float32]
Place = tuple[NDArray[np.intp], Float]

_X, _Y, _Z = np.uint32(0x9E3779B1), np.uint32(0x85EBCA77), np.uint32(0xC2B2AE3D)
_MIX_A, _MIX_B = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)


def key(seed: int, *names: object) -> int:
    """Compute a 32-bit key of a seed and any names, the same on every machine and Python.

    >>> key(0, "LIDC-IDRI-0001", "vessels") == key(0, "LIDC-IDRI-0001", "vessels")
    True
    >>> key(0, "a") == key(1, "a")
    False
    """
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")


def generator(seed: int, *names: object) -> np.random.Generator:
    """Return NumPy's generator keyed by seed and names, for things made once a scan or nodule."""
    return np.random.default_rng(key(seed, *names))


def hashed(ix: ArrayLike, iy: ArrayLike, iz: ArrayLike, salt: int) -> NDArray[np.uint32]:
    """Compute 32 well mixed bits for every integer place; the three arrays broadcast.

    The mixer is the two-round multiply-xorshift hash "lowbias32" (C. Wellons, 2018).
    """
    x, y, z = (np.asarray(i).astype(np.int64).astype(np.uint32) for i in (ix, iy, iz))
    with np.errstate(over="ignore"):
        salted = np.asarray(x * _X + np.uint32(salt & 0xFFFFFFFF)) ^ (y * _Y)
        h = np.array((salted ^ (salted >> np.uint32(15))) + z * _Z, dtype=np.uint32)
        h ^= h >> np.uint32(16)
        h *= _MIX_A
        h ^= h >> np.uint32(15)
        h *= _MIX_B
        h ^= h >> np.uint32(16)
    return h


def uniform(ix: ArrayLike, iy: ArrayLike, iz: ArrayLike, salt: int) -> Float:
    """Draw uniform values in [0, 1) for every integer place."""
    return (hashed(ix, iy, iz, salt) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def gaussian(ix: ArrayLike, iy: ArrayLike, iz: ArrayLike, salt: int) -> Float:
    """Draw near-Gaussian values, mean 0 and standard deviation 1, for every integer place.

    The sum of the hash's four bytes: bounded by about 3.5, which a filter widens to Gaussian.
    """
    h = hashed(ix, iy, iz, salt)
    total = (h & np.uint32(0x00FF00FF)) + ((h >> np.uint32(8)) & np.uint32(0x00FF00FF))
    total = (total & np.uint32(0xFFFF)) + (total >> np.uint32(16))
    return (total.astype(np.float32) - np.float32(510.0)) * np.float32(1.0 / 147.8005413)


def lattice(axis_mm: ArrayLike, cell_mm: float) -> tuple[NDArray[np.int64], Place]:
    """Find integer lattice points that enclose positions, and where these lie among them.

    Args:
        axis_mm: positions along one axis, mm.
        cell_mm: distance of the lattice's points, mm; point i lies at i * cell_mm.

    Returns:
        the lattice's integers, consecutive; and for every position the index of the lattice point
        below it with the weight, in [0, 1), of the one above.
    """
    scaled = np.asarray(axis_mm, dtype=np.float64) / cell_mm
    whole = np.floor(scaled)
    first, last = int(whole.min()), int(whole.max()) + 1
    weight = (scaled - whole).astype(np.float32)
    return np.arange(first, last + 1), ((whole - first).astype(np.intp), weight)


def upsample(values: Float, places_zyx: tuple[Place, Place, Place]) -> Float:
    """Interpolate a lattice (Z, Y, X) linearly at the grid of three axes' places (`lattice`).

    Written as one weighted sum an axis, element by element, and not as a matrix product: a matrix
    product may round differently when the grid grows, and then two crops would differ.

    Returns:
        (len z, len y, len x), float32.
    """
    out = np.asarray(values, dtype=np.float32)
    for axis, (lower, weight) in enumerate(places_zyx):
        shape = [1, 1, 1]
        shape[axis] = -1
        below = out.take(lower, axis=axis)
        above = out.take(lower + 1, axis=axis)
        above -= below
        above *= weight.reshape(shape)
        above += below
        out = above
    return out


def grid(x: NDArray, y: NDArray, z: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Shape three axes so that together they make a grid (len z, len y, len x)."""
    return x[None, None, :], y[None, :, None], z[:, None, None]


def on_lattice(
    cell_mm: float, axes_xyz_mm: tuple[ArrayLike, ...], compute: Callable[..., NDArray]
) -> Float:
    """Compute what varies slowly at a lattice's points, and interpolate it at a grid of three axes.

    `compute` makes of the lattice's three axes, mm, values (len z, len y, len x).
    """
    (ix, px), (iy, py), (iz, pz) = (lattice(axis, cell_mm) for axis in axes_xyz_mm)
    values = compute(ix * cell_mm, iy * cell_mm, iz * cell_mm)
    return upsample(values.astype(np.float32), (pz, py, px))


def texture(x_mm: ArrayLike, y_mm: ArrayLike, z_mm: ArrayLike, cell_mm: float, salt: int) -> Float:
    """Draw smooth random texture at a grid of three axes: mean 0, spread 1 at the lattice's points.

    Hashed Gaussian values at the points of a lattice, linear in between (value noise).

    Returns:
        (len z, len y, len x), float32.
    """
    (ix, px), (iy, py), (iz, pz) = (lattice(axis, cell_mm) for axis in (x_mm, y_mm, z_mm))
    return upsample(gaussian(*grid(ix, iy, iz), salt), (pz, py, px))
