"""Scans from disk: a DICOM series as the scanner left it, or one image file.

A DICOM folder is where silent mistakes happen: slices in the order of their file names, a missing
slice that moves everything above it, an intercept applied twice. Here every such case is an
error with the file and the cure in it, or an option that has to be asked for.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from labkit.errors import InputError
from labkit.imaging._dicom import (
    EVEN_MM,
    Slice,
    even_grid_mm,
    exact_hu,
    files_by_series,
    in_order,
    read_header,
    read_hu,
    require_one_grid,
)
from labkit.imaging.volume import Volume

_IMAGE_SUFFIXES = (".mhd", ".mha", ".nii", ".nii.gz", ".nrrd", ".nhdr")


def find_series(folder: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """The DICOM files anywhere below a folder, by series. Only headers are read.

    Files that are not DICOM are ignored. DICOM files too damaged to name a series stand under "".

    Args:
        folder: any folder tree.

    Returns:
        SeriesInstanceUID -> its files, sorted by name; of every modality.

    Raises:
        InputError: no such folder.
    """
    return files_by_series(Path(folder))


def read_dicom(
    folder: str | os.PathLike[str],
    series_uid: str | None = None,
    *,
    allow_gaps: bool = False,
    allow_doubles: bool = False,
    padding_hu: float | None = None,
) -> Volume:
    """Read the CT series in a folder (or in the folders below it) in HU.

    Args:
        folder: a folder tree; files that are not DICOM are ignored.
        series_uid: which series, when there are several.
        allow_gaps: put slices that are missing or unevenly spaced on an even grid, by linear
            interpolation along the slice normal; otherwise they are an error.
        allow_doubles: of slices at one position keep the one with the lowest instance number;
            otherwise they are an error.
        padding_hu: HU for pixels that the header declares as padding (outside the reconstructed
            circle, often -2000 or -3024); None leaves them as they are stored.

    Returns:
        The volume; slices sorted by their position along the slice normal, voxels int16 where
        the HU are whole numbers that fit, else float32.

    Raises:
        InputError: no DICOM; several series and none named; a modality other than CT; no pixel
            data; a truncated file; a compression that pydicom cannot decode here; slices of
            unequal size, spacing or orientation, sheared by a tilted gantry, doubled, missing
            or unevenly spaced; no rescale slope and intercept.
    """
    folder = Path(folder)
    series = find_series(folder)
    damaged = series.pop("", [])
    if not series:
        what = f"; {damaged[0].name} is DICOM but damaged" if damaged else ""
        raise InputError(f"{folder}: no readable DICOM file in it or below it{what}")
    if series_uid is None:
        if len(series) > 1:
            found = ", ".join(f"{uid} ({len(files)} files)" for uid, files in series.items())
            raise InputError(
                f"{folder}: {len(series)} series in one folder; pass series_uid=, one of {found}"
            )
        (series_uid,) = series
    elif series_uid not in series:
        raise InputError(f"{folder}: no series {series_uid} in it; there are {', '.join(series)}")
    files = series[series_uid]
    beside = [file for file in damaged if file.parent in {f.parent for f in files}]
    if beside:
        raise InputError(
            f"{beside[0]}: truncated or damaged DICOM beside series {series_uid}; fetch the "
            "series again, or remove the file if it is no part of it"
        )
    return read_series(
        files, allow_gaps=allow_gaps, allow_doubles=allow_doubles, padding_hu=padding_hu
    )


def read_series(
    files: Iterable[str | os.PathLike[str]],
    *,
    allow_gaps: bool = False,
    allow_doubles: bool = False,
    padding_hu: float | None = None,
) -> Volume:
    """Read one CT series from its files, as `find_series` lists them; see `read_dicom`."""
    slices = [read_header(Path(file)) for file in files]
    require_one_grid(slices)
    slices = in_order(slices, allow_doubles)
    grid_mm = even_grid_mm(slices, allow_gaps)
    first = slices[0]
    row_mm, col_mm = first.pixel_spacing_mm
    return Volume(
        _stack(slices, grid_mm, padding_hu),
        (col_mm, row_mm, (grid_mm[-1] - grid_mm[0]) / (len(grid_mm) - 1)),
        tuple(first.position_xyz_mm),
        first.direction,
        first.series_uid,
    )


def _stack(
    slices: Sequence[Slice], grid_mm: NDArray[np.float64], padding_hu: float | None
) -> NDArray:
    """Voxels (len(grid_mm), rows, columns); a position without a slice is interpolated."""
    positions = np.array([s.along_normal_mm for s in slices])
    images = [read_hu(s, padding_hu) for s in slices]
    voxels = np.empty((len(grid_mm), *slices[0].shape), np.result_type(*images))
    if len(grid_mm) == len(slices) and np.abs(grid_mm - positions).max() <= EVEN_MM:
        return np.stack(images, out=voxels)
    voxels = voxels.astype(np.float32)
    for k, at in enumerate(grid_mm):
        nearest = int(np.argmin(np.abs(positions - at)))
        if abs(positions[nearest] - at) <= EVEN_MM:
            voxels[k] = images[nearest]
            continue
        above = int(np.searchsorted(positions, at))
        share = (at - positions[above - 1]) / (positions[above] - positions[above - 1])
        voxels[k] = (1 - share) * images[above - 1] + share * images[above].astype(np.float32)
    return voxels


def read_image(path: str | os.PathLike[str]) -> Volume:
    """Read one CT volume in HU from an image file: .mhd, .mha, .nii, .nii.gz, .nrrd or .nhdr.

    Positions and directions come out in LPS, also from NIfTI. A MetaImage whose name is a DICOM
    UID, as in LUNA-16, has that as its `series_uid`.

    Raises:
        InputError: no such file, another kind of file, not readable (with .mhd: the .raw is
            missing or too short), not three-dimensional, several values a voxel, or values that
            are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    suffix = next((s for s in _IMAGE_SUFFIXES if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise InputError(
            f"{path}: not one of {', '.join(_IMAGE_SUFFIXES)}; for DICOM use read_dicom on its "
            "folder"
        )
    try:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        dimension, components = reader.GetDimension(), reader.GetNumberOfComponents()
        if dimension != 3 or components != 1:
            raise InputError(
                f"{path}: {dimension} dimensions and {components} value(s) a voxel; a CT volume "
                "has 3 and 1: extract one volume first"
            )
        if suffix.startswith(".nii"):
            _require_whole_nifti(path, int(np.prod(reader.GetSize())))
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(
            f"{path}: not readable; it is damaged or cut short, or (.mhd, .nhdr) its data file is "
            "not beside it: fetch it again"
        ) from error
    voxels = sitk.GetArrayFromImage(image)
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise InputError(f"{path}: holds values that are not finite; replace them by -1000 (air)")
    stem = path.name[: -len(suffix)]
    return Volume(
        exact_hu(voxels),
        image.GetSpacing(),
        image.GetOrigin(),
        np.array(image.GetDirection()).reshape(3, 3),
        stem if re.fullmatch(r"\d+(\.\d+){3,}", stem) else "",
    )


def _require_whole_nifti(path: Path, n_voxels: int) -> None:
    """Refuse a NIfTI file that is cut short; SimpleITK would fill it up with zeros, 0 HU."""
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            header = file.read(348)
            length = len(header)
            while block := file.read(1 << 20):
                length += len(block)
    except (EOFError, OSError, zlib.error):
        length = 0
    else:
        order: Literal["little", "big"] = "big" if header[0] == 0 else "little"
        first = int.from_bytes(header[:4], order)  # length of the header: 348, in NIfTI-2 540
        at = 14 if first == 540 else 72
        bits = int.from_bytes(header[at : at + 2], order)
        if length >= first + n_voxels * bits // 8:
            return
    raise InputError(f"{path}: not readable; it is cut short: fetch it again")
