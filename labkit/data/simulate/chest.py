"""What a chest is made of: a patient's tissues, and lung with its regions, fissures and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labkit.data.simulate.noise import (
    Float,
    gaussian,
    generator,
    key,
    lattice,
    texture,
    upsample,
)
from labkit.data.simulate.scan import Scan
from labkit.data.simulate.thorax import Thorax

_SURFACE_CELL_MM = 3.0
_REGION_CELL_MM = 6.0
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
    # Regions of 38 mm are smooth enough to be worked out at the points of the finer texture.
    (ix, px), (iy, py), (iz, pz) = (lattice(axis, _REGION_CELL_MM) for axis in axes)
    nodes = gaussian(ix[None, None, :], iy[None, :, None], iz[:, None, None], tissue.salt + 1)
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
    """How much stronger than deep in lung a scan's noise is, at the grid of three axes.

    Rays that reach the wall or the mediastinum pass more bone and flesh, a third more noise; and
    no two regions of a scan are alike. Computed on a lattice of 3 mm and interpolated.
    """
    (ix, px), (iy, py), (iz, pz) = (lattice(a, _SURFACE_CELL_MM) for a in (x_mm, y_mm, z_mm))
    x, y, z = ((i * _SURFACE_CELL_MM).astype(np.float64) for i in (ix, iy, iz))
    depth = thorax.lung(x[None, None, :], y[None, :, None], z[:, None, None])
    nodes = 1.0 + 0.33 * np.clip(0.5 + depth / 16.0, 0.0, 1.0)
    nodes *= np.exp(0.3 * texture(x, y, z, 60.0, salt))
    return upsample(nodes.astype(np.float32), (pz, py, px))


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
