"""From a nodule's pixel and slice position to its place in the scan's world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.errors import InputError
from labkit.imaging.volume import Volume

_SPACING_TOLERANCE = 0.01


def center_xyz_mm(nodule: pd.Series | Mapping[Any, Any], volume: Volume) -> NDArray[np.float64]:
    """The nodule's centre in the world of its scan.

    The readers' rows and columns are those of the DICOM slices, and their z is the position of
    a slice's first pixel (ImagePositionPatient). The header of `volume` turns these into world
    coordinates, whichever way its slices run and however it is tilted or turned. A DICOM slice is
    never mirrored; where the volume's rows run upwards (NIfTI from a converter such as
    dcm2niix), they are counted from the other end. Rows *and* columns running backwards are
    taken as they are, since scans of prone patients come like that; an array turned to RAS
    afterwards looks the same and cannot be told from them: read the original instead.

    Args:
        nodule: a row of `lidc.nodules()` or `lidc.annotations()`: needs `center_row_px`,
            `center_col_px` and `center_z_mm`; `series_uid` and `pixel_spacing_mm` are checked
            against the volume when both sides have them.
        volume: the whole scan with its own rows and columns; not resampled, not cropped in plane.

    Returns:
        (3,) x, y, z in mm, LPS.

    Raises:
        InputError: another series, resampled or re-oriented slices, or a centre outside the volume.
    """
    name = str(nodule.get("nodule_id", nodule.get("annotation_id", "nodule")))
    _check_same_scan(name, nodule, volume)
    n_slices, n_rows, n_cols = volume.shape
    direction = volume.direction
    if abs(direction[2, 2]) < max(abs(direction[2, 0]), abs(direction[2, 1])):
        raise InputError(f"{name}: the volume is not a stack of axial slices; read the original")
    row, col = float(nodule["center_row_px"]), float(nodule["center_col_px"])
    z_mm = float(nodule["center_z_mm"])
    first_row = 0.0
    if np.linalg.det(direction[:2, :2]) < 0:
        if direction[0, 0] < 0:
            raise InputError(f"{name}: the volume's columns are mirrored; read the original")
        first_row = n_rows - 1.0
        row = first_row - row
    bottom = volume.world_from_index((0.0, first_row, 0.0))[2]
    step = direction[2, 2] * volume.spacing_xyz_mm[2]
    index = (z_mm - bottom) / step
    if not -0.5 <= index <= n_slices - 0.5:
        ends = sorted((bottom, bottom + step * (n_slices - 1)))
        raise InputError(
            f"{name}: z = {z_mm:.1f} mm is outside the volume ({ends[0]:.1f} to {ends[1]:.1f} mm); "
            "load the whole series that the nodule was read on"
        )
    if not (-0.5 <= row <= n_rows - 0.5 and -0.5 <= col <= n_cols - 0.5):
        raise InputError(
            f"{name}: row {row:.1f}, column {col:.1f} is outside slices of {n_rows} x {n_cols}; "
            "load the series without cropping it"
        )
    return volume.world_from_index((index, row, col))


def _check_same_scan(name: str, nodule: pd.Series | Mapping[Any, Any], volume: Volume) -> None:
    """Refuse a volume that is visibly not the scan, or not the pixels, that the readers saw."""
    series_uid = nodule.get("series_uid", "")
    if volume.series_uid and series_uid and series_uid != volume.series_uid:
        raise InputError(
            f"{name}: belongs to series {series_uid}, the volume is series {volume.series_uid}"
        )
    pixel_mm = nodule.get("pixel_spacing_mm")
    if pixel_mm is None:
        return
    in_plane = np.asarray(volume.spacing_xyz_mm[:2])
    if np.any(np.abs(in_plane / float(pixel_mm) - 1) > _SPACING_TOLERANCE):
        raise InputError(
            f"{name}: was outlined on pixels of {float(pixel_mm):.3f} mm, the volume's are "
            f"{in_plane[0]:.3f} x {in_plane[1]:.3f} mm; use the scan before resampling"
        )
