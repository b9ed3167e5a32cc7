"""Scans from disk: a DICOM series as the scanner left it, or one image file.

A DICOM folder is where silent mistakes happen: slices in the order of their file names, a missing
slice that moves everything above it, an intercept applied twice. Here every such case is an
error with the file and the cure in it, or an option that has to be asked for.
"""

from __future__ import annotations

import gzip
import os
import re
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from labkit.errors import InputError
from labkit.imaging.volume import Volume

# DICOM slices one by one: what their headers say, whether they fit together, and their HU.


# Positions are often rounded to 0.1 mm, so that even slices may seem to be off by as much.
EVEN_MM = 0.1
_SAME_MM = 0.01
# What pydicom raises on a damaged file, by where the damage sits.
_UNREADABLE = (
    AttributeError,
    EOFError,
    InvalidDicomError,
    KeyError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True)
class Slice:
    """One CT slice as its header describes it; lengths in mm, directions in the world (LPS)."""

    path: Path
    patient_id: str
    series_uid: str
    instance: int
    shape: tuple[int, int]
    pixel_spacing_mm: tuple[float, float]
    position_xyz_mm: NDArray[np.float64]
    direction: NDArray[np.float64]
    slope: float
    intercept: float

    @property
    def along_normal_mm(self) -> float:
        """Position along the normal of the slice."""
        return float(self.position_xyz_mm @ self.direction[:, 2])


def files_by_series(folder: Path) -> dict[str, list[Path]]:
    """See `readers.find_series`."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found: dict[str, list[Path]] = defaultdict(list)
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(where) / name
            uid = _series_of(path)
            if uid is not None:
                found[uid].append(path)
    return dict(found)


def _series_of(path: Path) -> str | None:
    """SeriesInstanceUID, "" when the file is DICOM but damaged, None when it is no DICOM image."""
    if path.name == "DICOMDIR" or not path.is_file():
        return None
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return None
        file.seek(0)
        try:
            header = pydicom.dcmread(
                file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"]
            )
            return str(header.get("SeriesInstanceUID", ""))
        except _UNREADABLE:
            return ""


def read_header(path: Path) -> Slice:
    """Read one CT slice's header.

    Raises:
        InputError: not readable, not CT, several frames, or without geometry or rescaling.
    """
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except _UNREADABLE as error:
        raise InputError(f"{path}: not readable as DICOM ({error}); fetch it again") from None
    modality = header.get("Modality", "none given")
    if modality != "CT":
        raise InputError(f"{path}: modality {modality}, not CT; name a CT series by series_uid=")
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise InputError(f"{path}: an enhanced DICOM of many frames; convert it to single slices")
    try:
        geometry = _geometry(header)
    except _UNREADABLE as error:
        raise InputError(
            f"{path}: no usable position, orientation or pixel spacing ({error}); it is no "
            "slice of a volume, or damaged: remove it or fetch it again"
        ) from None
    try:
        slope, intercept = float(header.RescaleSlope), float(header.RescaleIntercept)
    except _UNREADABLE:
        raise InputError(
            f"{path}: no rescale slope and intercept, so its values cannot become HU; fetch the "
            "original series"
        ) from None
    return Slice(
        path=path,
        patient_id=str(header.get("PatientID", "")),
        series_uid=str(header.get("SeriesInstanceUID", "")),
        instance=int(header.get("InstanceNumber") or 0),
        slope=slope,
        intercept=intercept,
        **geometry,
    )


def _geometry(header: Dataset) -> dict:
    orientation = np.array([float(v) for v in header.ImageOrientationPatient])
    position = np.array([float(v) for v in header.ImagePositionPatient])
    row_mm, col_mm = (float(v) for v in header.PixelSpacing)
    along_columns, along_rows = orientation[:3], orientation[3:]
    if position.shape != (3,) or not np.isfinite(position).all():
        raise ValueError(f"ImagePositionPatient {position}")
    square = np.array([along_columns, along_rows]) @ np.array([along_columns, along_rows]).T
    if not np.allclose(square, np.eye(2), atol=1e-3):
        raise ValueError(f"ImageOrientationPatient {orientation} is not two perpendicular units")
    if not (row_mm > 0 and col_mm > 0):
        raise ValueError(f"PixelSpacing {row_mm}, {col_mm}")
    normal = np.cross(along_columns, along_rows)
    return {
        "shape": (int(header.Rows), int(header.Columns)),
        "pixel_spacing_mm": (row_mm, col_mm),
        "position_xyz_mm": position,
        "direction": np.column_stack([along_columns, along_rows, normal]),
    }


def require_one_grid(slices: Sequence[Slice]) -> None:
    """Check that the slices can be stacked: one series, size, spacing and orientation, no shear.

    Raises:
        InputError: they cannot.
    """
    if len(slices) < 2:
        where = slices[0].path if slices else "an empty list of files"
        raise InputError(f"{where}: a scan needs at least two slices; fetch the whole series")
    first = slices[0]
    for s in slices[1:]:
        for what, same in (
            ("series", s.series_uid == first.series_uid),
            ("size", s.shape == first.shape),
            ("pixel spacing", np.allclose(s.pixel_spacing_mm, first.pixel_spacing_mm, atol=1e-4)),
            ("orientation", np.allclose(s.direction, first.direction, atol=1e-3)),
        ):
            if not same:
                raise InputError(
                    f"{s.path}: another {what} than {first.path.name}; separate the two "
                    "acquisitions into folders of their own"
                )
    offsets = np.array([s.position_xyz_mm - first.position_xyz_mm for s in slices])
    along = offsets @ first.direction[:, 2]
    drift = np.linalg.norm(offsets - along[:, None] * first.direction[:, 2], axis=1)
    worst = int(np.argmax(drift))
    if drift[worst] > EVEN_MM:
        degrees = np.degrees(np.arctan2(drift[worst], abs(along[worst])))
        raise InputError(
            f"{slices[worst].path}: moved {drift[worst]:.1f} mm sideways from {first.path.name} "
            f"(gantry tilt of {degrees:.1f} degrees?); resample the series to an upright grid first"
        )


def in_order(slices: Sequence[Slice], allow_doubles: bool) -> list[Slice]:
    """The slices by position along their normal, one at each position.

    Raises:
        InputError: two slices at one position, unless `allow_doubles`.
    """
    ordered = sorted(slices, key=lambda s: (s.along_normal_mm, s.instance, s.path))
    kept = ordered[:1]
    for s in ordered[1:]:
        if s.along_normal_mm - kept[-1].along_normal_mm > _SAME_MM:
            kept.append(s)
        elif not allow_doubles:
            raise InputError(
                f"{s.path}: lies at the same position ({s.along_normal_mm:g} mm) as "
                f"{kept[-1].path.name}; remove one, or pass allow_doubles=True to keep the one "
                "with the lower instance number"
            )
    return kept


def even_grid_mm(slices: Sequence[Slice], allow_gaps: bool) -> NDArray[np.float64]:
    """Evenly spaced positions along the normal for ordered slices, from the first to the last.

    Raises:
        InputError: the slices do not lie on them within 0.1 mm, unless `allow_gaps`.
    """
    positions = np.array([s.along_normal_mm for s in slices])
    even = np.linspace(positions[0], positions[-1], len(positions))
    if np.abs(positions - even).max() <= EVEN_MM:
        return even
    gaps = np.diff(positions)
    usual = float(np.median(gaps))
    if not allow_gaps:
        worst = int(np.argmax(np.abs(gaps - usual)))
        above, below = slices[worst], slices[worst + 1]
        name = above.patient_id or above.series_uid
        raise InputError(
            f"{name}: {gaps[worst]:g} mm gap between slices {worst + 1} and {worst + 2} "
            f"({above.path.name}, {below.path.name}), elsewhere {usual:g} mm; fetch what is "
            "missing, or pass allow_gaps=True to interpolate"
        )
    steps = np.maximum(np.rint(gaps / usual), 1).sum()
    return np.linspace(positions[0], positions[-1], int(steps) + 1)


def read_hu(slice_: Slice, padding_hu: float | None) -> NDArray:
    """The slice's pixels in HU: int16 when exact, else float32.

    Raises:
        InputError: no pixel data, a truncated file, or a compression that cannot be decoded.
    """
    path = slice_.path
    dataset = pydicom.dcmread(path)
    if "PixelData" not in dataset:
        raise InputError(f"{path}: no pixel data, or truncated before it; fetch it again")
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        stored = dataset.pixel_array
    except _UNREADABLE as error:
        if syntax.is_compressed:
            raise InputError(
                f"{path}: compressed as {syntax.name}, which cannot be decoded here; install "
                "pylibjpeg[all], or decompress the series"
            ) from error
        raise InputError(f"{path}: truncated or damaged pixels ({error}); fetch it again") from None
    if stored.shape != slice_.shape:
        raise InputError(
            f"{path}: pixels of shape {stored.shape}, but the header says {slice_.shape}; "
            "a CT slice has one grey value a pixel"
        )
    hu = stored.astype(np.float64) * slice_.slope + slice_.intercept
    if padding_hu is not None:
        hu[_padding(dataset, stored)] = padding_hu
    return exact_hu(hu)


def _padding(dataset: Dataset, stored: NDArray) -> NDArray[np.bool_]:
    """Which pixels the header declares as padding (DICOM PS3.3, C.7.5.1.1.2)."""
    if "PixelPaddingValue" not in dataset:
        return np.zeros(stored.shape, bool)

    # The tag is often written as unsigned beside signed pixels: 63536 for -2000.
    def as_stored(value: int) -> int:
        return int(np.int64(value).astype(stored.dtype))

    value = as_stored(dataset.PixelPaddingValue)
    limit = as_stored(dataset.get("PixelPaddingRangeLimit", dataset.PixelPaddingValue))
    return (stored >= min(value, limit)) & (stored <= max(value, limit))


def exact_hu(hu: NDArray) -> NDArray:
    """The same values as int16 when they are whole numbers that fit, else as float32."""
    if hu.dtype == np.int16:
        return hu
    limits = np.iinfo(np.int16)
    if hu.min() >= limits.min and hu.max() <= limits.max:
        whole = hu.astype(np.int16)
        if np.array_equal(whole, hu):
            return whole
    return hu.astype(np.float32)


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
