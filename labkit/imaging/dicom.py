"""Scans from disk: a DICOM series as the scanner left it, or one image file.

A DICOM folder is where silent mistakes happen: slices in the order of their file names, a missing
slice that moves everything above it, an intercept applied twice. Here every such case is an
error with the file and the cure in it, or an option that has to be asked for.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.misc import is_dicom

from labkit.errors import InputError
from labkit.imaging.volume import Volume

# Positions are often rounded to 0.1 mm, so that even slices may seem to be off by as much.
EVEN_MM = 0.1
_SAME_MM = 0.01
_IMAGE_SUFFIXES = (".mhd", ".mha", ".nii", ".nii.gz", ".nrrd", ".nhdr")
# What pydicom raises on a damaged file, by where the damage sits.
_UNREADABLE = (
    AttributeError, EOFError, InvalidDicomError, KeyError, NotImplementedError, OSError,
    RuntimeError, TypeError, ValueError, struct.error,
)  # fmt: skip


def find_series(folder: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """Find the DICOM files anywhere below a folder, by series. Only headers are read.

    Files that are not DICOM are ignored. DICOM files too damaged to name a series stand under "".

    Returns:
        SeriesInstanceUID -> its files, sorted by name; of every modality.

    Raises:
        InputError: no such folder.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder")
    found: dict[str, list[Path]] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.name == "DICOMDIR" or not path.is_file() or not is_dicom(path):
            continue
        try:
            tags = ["SeriesInstanceUID"]
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
            uid = str(header.get(tags[0], ""))
        except _UNREADABLE:
            uid = ""
        found.setdefault(uid, []).append(path)
    return found


def read_series(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    series_uid: str | None = None,
    *,
    allow_gaps: bool = False,
    allow_doubles: bool = False,
    padding_hu: float | None = None,
) -> Volume:
    """Read one CT series in HU; its slices are sorted by their position along the slice normal.

    Args:
        source: a folder that it is in or below, or its files, as `find_series` lists them.
        series_uid: which series of a folder, when there are several.
        allow_gaps: put slices that are missing or unevenly spaced on an even grid, by linear
            interpolation along the slice normal; otherwise they are an error.
        allow_doubles: of slices at one position keep the one with the lowest instance number;
            otherwise they are an error.
        padding_hu: HU for pixels that the header declares as padding (outside the reconstructed
            circle, often -2000 or -3024); None leaves them as they are stored.

    Returns:
        The volume; voxels int16 where the HU are whole numbers that fit, else float32.

    Raises:
        InputError: no CT series, or several and none named; a damaged file, or one that cannot
            become HU; slices of unequal size, spacing or orientation, sheared by a tilted gantry,
            doubled, missing or unevenly spaced.
    """
    if isinstance(source, (str, os.PathLike)):
        source = _files_of(Path(source), series_uid)
    slices = _ordered([_read_header(Path(file)) for file in source], allow_doubles)
    first = slices[0]
    positions = np.array([s.along_normal_mm for s in slices])
    grid_mm = np.linspace(positions[0], positions[-1], len(positions))
    even = np.abs(positions - grid_mm).max() <= EVEN_MM
    if not even:
        gaps = np.diff(positions)
        usual = float(np.median(gaps))
        if not allow_gaps:
            worst = int(np.argmax(np.abs(gaps - usual)))
            raise InputError(
                f"{first.patient_id or first.series_uid}: {gaps[worst]:g} mm gap between slices "
                f"{worst + 1} and {worst + 2} ({slices[worst].path.name}, "
                f"{slices[worst + 1].path.name}), elsewhere {usual:g} mm; fetch what is missing, "
                "or pass allow_gaps=True to interpolate"
            )
        # As many slices as would fill the gaps.
        steps = np.maximum(np.rint(gaps / usual), 1).sum()
        grid_mm = np.linspace(positions[0], positions[-1], int(steps) + 1)
    images = [_read_hu(s, padding_hu) for s in slices]
    kind = np.result_type(*images) if even else np.float32
    voxels = np.empty((len(grid_mm), *first.shape), kind)
    if even:
        np.stack(images, out=voxels)
    else:
        for image, at in zip(voxels, grid_mm, strict=True):
            nearest = int(np.argmin(np.abs(positions - at)))
            if abs(positions[nearest] - at) <= EVEN_MM:
                image[:] = images[nearest]
                continue
            above = int(np.searchsorted(positions, at))
            share = (at - positions[above - 1]) / (positions[above] - positions[above - 1])
            image[:] = (1 - share) * images[above - 1] + share * images[above].astype(np.float32)
    row_mm, col_mm = first.pixel_spacing_mm
    step_mm = (grid_mm[-1] - grid_mm[0]) / (len(grid_mm) - 1)
    origin = tuple(first.position_xyz_mm)
    return Volume(voxels, (col_mm, row_mm, step_mm), origin, first.direction, first.series_uid)


def _files_of(folder: Path, series_uid: str | None) -> list[Path]:
    """The files of a folder's only series, or of the one named."""
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
    return files


class _Slice(NamedTuple):
    """What one slice's header says; directions are the world's (LPS)."""

    path: Path
    patient_id: str
    series_uid: str
    instance: int
    shape: tuple[int, int]
    pixel_spacing_mm: tuple[float, float]
    position_xyz_mm: NDArray[np.float64]
    direction: NDArray[np.float64]
    along_normal_mm: float


def _read_header(path: Path) -> _Slice:
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
        axes = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
        position = np.array(header.ImagePositionPatient, float)
        row_mm, col_mm = (float(v) for v in header.PixelSpacing)
        if position.shape != (3,) or not np.isfinite(position).all():
            raise ValueError(f"ImagePositionPatient {position}")
        if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-3):
            raise ValueError(f"ImageOrientationPatient {axes.ravel()}, not two perpendicular units")
        if not (row_mm > 0 and col_mm > 0):
            raise ValueError(f"PixelSpacing {row_mm}, {col_mm}")
        shape = int(header.Rows), int(header.Columns)
    except _UNREADABLE as error:
        raise InputError(
            f"{path}: no usable position, orientation or pixel spacing ({error}); it is no "
            "slice of a volume, or damaged: remove it or fetch it again"
        ) from None
    patient, series = (str(header.get(tag, "")) for tag in ("PatientID", "SeriesInstanceUID"))
    direction = np.column_stack([*axes, np.cross(*axes)])
    instance, along_mm = int(header.get("InstanceNumber") or 0), float(position @ direction[:, 2])
    return _Slice(path, patient, series, instance, shape, (row_mm, col_mm), position, direction,
                  along_mm)  # fmt: skip


def _ordered(slices: list[_Slice], allow_doubles: bool) -> list[_Slice]:
    """Slices that can be stacked, by position along their normal, one at each position."""
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
    first, *later = sorted(slices, key=lambda s: (s.along_normal_mm, s.instance, s.path))
    kept = [first]
    for s in later:
        if s.along_normal_mm - kept[-1].along_normal_mm > _SAME_MM:
            kept.append(s)
        elif not allow_doubles:
            raise InputError(
                f"{s.path}: lies at the same position ({s.along_normal_mm:g} mm) as "
                f"{kept[-1].path.name}; remove one, or pass allow_doubles=True to keep the one "
                "with the lower instance number"
            )
    return kept


def _read_hu(slice_: _Slice, padding_hu: float | None) -> NDArray:
    """The slice's pixels in HU: int16 when exact, else float32."""
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
    try:
        slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    except _UNREADABLE:
        raise InputError(
            f"{path}: no rescale slope and intercept, so its values cannot become HU; fetch the "
            "original series"
        ) from None
    hu = stored.astype(np.float64) * slope + intercept
    if padding_hu is not None and "PixelPaddingValue" in dataset:  # PS3.3, C.7.5.1.1.2
        value = dataset.PixelPaddingValue
        # The tag is often written as unsigned beside signed pixels: 63536 for -2000.
        ends = np.array([value, dataset.get("PixelPaddingRangeLimit", value)]).astype(stored.dtype)
        hu[(stored >= ends.min()) & (stored <= ends.max())] = padding_hu
    return _exact(hu)


def _exact(hu: NDArray) -> NDArray:
    """The same values as int16 when they are whole numbers that fit, else as float32."""
    limits = np.iinfo(np.int16)
    if limits.min <= hu.min() and hu.max() <= limits.max:
        whole = hu.astype(np.int16, copy=False)
        if np.array_equal(whole, hu):
            return whole
    return hu.astype(np.float32)


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
            f"{path}: not one of {', '.join(_IMAGE_SUFFIXES)}; for DICOM use read_series on its "
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
    uid = stem if re.fullmatch(r"\d+(\.\d+){3,}", stem) else ""
    direction = np.array(image.GetDirection()).reshape(3, 3)
    return Volume(_exact(voxels), image.GetSpacing(), image.GetOrigin(), direction, uid)


def _require_whole_nifti(path: Path, n_voxels: int) -> None:
    """Refuse a NIfTI file that is cut short; SimpleITK would fill it up with zeros, 0 HU."""
    whole = False
    unzipped = gzip.open if path.name.lower().endswith(".gz") else open
    with contextlib.suppress(EOFError, OSError, zlib.error), unzipped(path, "rb") as file:
        header = file.read(348)
        length = len(header)
        while block := file.read(1 << 20):
            length += len(block)
        order: Literal["little", "big"] = "big" if header[0] == 0 else "little"
        first = int.from_bytes(header[:4], order)  # length of the header: 348, in NIfTI-2 540
        at = 14 if first == 540 else 72
        whole = length >= first + n_voxels * int.from_bytes(header[at : at + 2], order) // 8
    if not whole:
        raise InputError(f"{path}: not readable; it is cut short: fetch it again")
