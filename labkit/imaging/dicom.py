"""Scans from disk: a DICOM series as the scanner left it, or one image file.

A DICOM folder is where silent mistakes happen: slices in the order of their file names, a missing
slice that moves everything above it, an intercept applied twice. Here every such case is an
error with the file and the cure in it, or an option that has to be asked for.
"""

from __future__ import annotations

import bz2
import os
import re
import struct
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from labkit.errors import InputError
from labkit.imaging.volume import AIR_HU, PADDING_BELOW_HU, Volume, require_hu

# Positions are often rounded to 0.1 mm, so that even slices may seem to be off by as much.
EVEN_MM = 0.1
_SAME_MM = 0.01
# What a header has to say of its place, by any of these names: NRRD's, MetaImage's.
_PLACES = (
    {"spacing": ("space directions",), "position": ("space origin",), "direction": ("space",)},
    {"spacing": ("ElementSpacing", "ElementSize"), "position": ("Offset", "Position", "Origin"),
     "direction": ("TransformMatrix", "Rotation", "Orientation")},
)  # fmt: skip
_IMAGE_SUFFIXES = (".mhd", ".mha", ".nii", ".nii.gz", ".nrrd", ".nhdr")
_INDEX_OF_A_DISK = "1.2.840.10008.1.3.10"  # SOP class of a DICOMDIR, which is no image
# What pydicom raises on a damaged file, by where the damage sits.
_UNREADABLE = (
    AttributeError, EOFError, InvalidDicomError, KeyError, NotImplementedError, OSError,
    MemoryError, OverflowError, RuntimeError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip
# Nothing else of a header is ever looked at, least of all whose it is.
_OF_HEADER = [
    "Modality", "PatientID", "SeriesInstanceUID", "InstanceNumber", "AcquisitionNumber",
    "ConvolutionKernel", "GantryDetectorTilt", "NumberOfFrames", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns",
]  # fmt: skip


# --- what lies in a folder ------------------------------------------------------------------------


class Found(NamedTuple):
    """What lies below a folder."""

    series: dict[str, list[Path]]  # SeriesInstanceUID -> its files, sorted by name
    damaged: dict[Path, str]  # slices, or files that seem to have been some -> what is wrong
    other: list[Path]  # what is no DICOM, and indices of disks

    def beside(self, files: Iterable[Path]) -> dict[Path, str]:
        """Return the damaged files in the folders that these files lie in."""
        folders = {file.parent for file in files}
        return {file: why for file, why in self.damaged.items() if file.parent in folders}

    def left_out(self, taken: Iterable[str]) -> str:
        """Tell in one line which files belong to none of the series taken; "" when all do."""
        unused = [files for uid, files in self.series.items() if uid not in set(taken)]
        names = sorted({path.name for path in [*self.damaged, *self.other]})
        told = [f"{len(unused)} other series ({sum(map(len, unused))} files)"] * bool(unused)
        told += [", ".join(names[:5]) + f" and {len(names) - 5} more" * (len(names) > 5)]
        return f"left out: {', '.join(filter(None, told))}" if any(told) else ""


def look_into(folder: str | os.PathLike[str]) -> Found:
    """Find the DICOM files anywhere below a folder, by series. Only headers are read.

    Links are followed, without going round. A file without DICOM's mark counts when it holds a
    series' header all the same. Empty files, and files that are no DICOM but are called as the
    slices beside them, count as damaged; hidden files do not count.

    Raises:
        InputError: no such folder.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder")
    found = Found({}, {}, [])
    for path in sorted(_files_below(Path(folder))):
        try:
            with path.open("rb") as file:
                start = file.read(144)
        except OSError as error:  # of a link to nothing: a file that was not fetched
            found.damaged[path] = f"not readable ({error.strerror})"
            continue
        marked = start[128:132] == b"DICM"
        bare = start[:2] in (b"\2\0", b"\10\0", b"\0\10")  # group 2 or 8
        cut = not any(start[:128]) or start[132:136] == b"\2\0\0\0"
        uid = _series_of(path) if marked or bare else None
        if uid:
            found.series.setdefault(uid, []).append(path)
        elif uid is None and (marked or (cut and not bare)):
            found.damaged[path] = "truncated or damaged at its beginning" if start else "empty"
        else:
            found.other.append(path)

    def kind(path: Path) -> tuple[Path, str]:
        return path.parent, re.sub(r"\d+", "0", path.name)

    slices = [path for files in found.series.values() for path in files]
    kinds, folders = set(map(kind, slices)), {path.parent for path in slices}
    for path in [*found.other]:
        called = path.suffix.lower() == ".dcm" and path.parent in folders
        if (called or kind(path) in kinds) and _series_of(path) is None:
            found.other.remove(path)
            found.damaged[path] = "no DICOM, although it is called like a slice"
    return found


def _files_below(folder: Path) -> Iterator[Path]:
    seen = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        if os.path.realpath(here) in seen:
            folders.clear()
            continue
        folders.sort()
        seen.add(os.path.realpath(here))
        yield from (Path(here, name) for name in files if not name.startswith("."))


def _series_of(path: Path) -> str | None:
    """The series that a file says it is of; "" of the index of a disk, None when it says none."""
    try:
        header = _read(path, ["SeriesInstanceUID", "SOPClassUID"])
    except _UNREADABLE:
        return None
    classes = header.get("SOPClassUID"), header.file_meta.get("MediaStorageSOPClassUID")
    if _INDEX_OF_A_DISK in classes:
        return ""
    return str(header.get("SeriesInstanceUID", "")).strip() or None


def _read(path: Path, tags: list[str] | None = None) -> pydicom.Dataset:
    """Some tags of a file, or all with its pixels, with DICOM's mark or without.

    Without pydicom's warnings, which would show values, when these are converted by asking.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=tags is not None,
                                  specific_tags=tags)  # fmt: skip
        for tag in tags or ():
            dataset.get(tag)
        list(dataset.file_meta.values())
    return dataset


def find_series(folder: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """Find the DICOM files anywhere below a folder, by series, as `look_into` does.

    Returns:
        SeriesInstanceUID -> its files, sorted by name; of every modality. Files that are too
        damaged to name a series stand under "".
    """
    found = look_into(folder)
    return found.series | ({"": list(found.damaged)} if found.damaged else {})


# --- a series -------------------------------------------------------------------------------------


def read_series(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    series_uid: str | None = None,
    *,
    allow_gaps: bool = False,
    allow_doubles: bool = False,
    padding_hu: float | None = AIR_HU,
) -> Volume:
    """Read one CT series in HU; its slices are sorted by their position along the slice normal.

    What is left out of a folder is told in a line on stderr.

    Args:
        source: a folder that it is in or below, or its files, as `find_series` lists them.
        series_uid: which series of a folder, when there are several.
        allow_gaps: put slices that are missing or unevenly spaced on an even grid, by linear
            interpolation along the slice normal; otherwise they are an error.
        allow_doubles: of slices at one position keep the one with the lowest instance number;
            otherwise they are an error, unless their pixels are the same.
        padding_hu: HU for pixels outside the reconstructed circle, which the header declares as
            padding or which are below -1200 HU; None leaves them as they are stored.

    Returns:
        The volume; voxels int16 where the HU are whole numbers that fit, else float32.

    Raises:
        InputError: no CT series, or several and none named; a damaged file in it or beside it, or
            one that cannot become HU; slices of unequal size, spacing, orientation, kernel or
            acquisition, sheared by a tilted gantry, doubled, missing or unevenly spaced.
    """
    if isinstance(source, (str, os.PathLike)):
        source = _files_of(Path(source), series_uid)
    slices = _ordered([_read_header(Path(file)) for file in source], allow_doubles)
    first, who = slices[0], f"series {slices[0].series_uid}"
    positions = np.array([s.along_normal_mm for s in slices])
    grid_mm = np.linspace(positions[0], positions[-1], len(positions))
    even = np.abs(positions - grid_mm).max() <= EVEN_MM
    if not even:
        gaps = np.diff(positions)
        usual = float(np.median(gaps))
        if not allow_gaps:
            worst = int(np.argmax(np.abs(gaps - usual)))
            raise InputError(
                f"{who}: {gaps[worst]:g} mm gap between slices {worst + 1} and {worst + 2} "
                f"({slices[worst].path.name}, {slices[worst + 1].path.name}), elsewhere "
                f"{usual:g} mm; fetch what is missing, or allow_gaps (--allow-gaps) interpolates"
            )
        # As many slices as would fill the gaps.
        steps = np.maximum(np.rint(gaps / usual), 1).sum()
        grid_mm = np.linspace(positions[0], positions[-1], int(steps) + 1)
    images = [_read_hu(s, padding_hu) for s in slices]
    require_hu(images, who)
    if padding_hu is not None:
        for image in images:
            image[image < PADDING_BELOW_HU] = padding_hu
    images = [_exact(image) for image in images]
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
    found = look_into(folder)
    series = found.series
    if not series:
        what = "".join(f"; {path.name} is {why}" for path, why in [*found.damaged.items()][:1])
        raise InputError(f"{folder}: no readable DICOM file in it or below it{what}")
    if series_uid is None:
        if len(series) > 1:
            each = ", ".join(f"{uid} ({len(files)} files)" for uid, files in series.items())
            raise InputError(
                f"{folder}: {len(series)} series in one folder; pass series_uid=, one of {each}"
            )
        (series_uid,) = series
    elif series_uid not in series:
        raise InputError(f"{folder}: no series {series_uid} in it; there are {', '.join(series)}")
    files = series[series_uid]
    for path, why in found.beside(files).items():
        raise InputError(
            f"{path}: {why}, beside series {series_uid}; fetch the series again, or remove the "
            "file if it is no part of it"
        )
    if left_out := found.left_out([series_uid]):
        print(f"{folder}: {left_out}", file=sys.stderr)
    return files


def slice_positions(
    files: Iterable[Path], pixels: bool = False
) -> tuple[dict[Path, float], dict[Path, str]]:
    """Read where slices lie along the world's z, mm, and which files are damaged, and why.

    With `pixels` these have to be readable too, which takes as long as reading the series.
    """
    there, damaged = {}, {}
    for file in files:
        try:
            header = _read_header(file)
            if pixels:
                _read_hu(header, None)
            there[file] = float(header.position_xyz_mm[2])
        except InputError as error:
            damaged[file] = str(error).removeprefix(f"{file}: ")
    return there, damaged


class _Slice(NamedTuple):
    """What one slice's header says; directions are the world's (LPS)."""

    path: Path
    series_uid: str
    same: dict[str, str]  # what all slices of a series share, where they say it
    acquisition: str
    instance: int
    shape: tuple[int, int]
    pixel_spacing_mm: tuple[float, float]
    position_xyz_mm: NDArray[np.float64]
    direction: NDArray[np.float64]
    along_normal_mm: float


def _read_header(path: Path) -> _Slice:
    try:
        header = _read(path, _OF_HEADER)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except _UNREADABLE as error:
        raise InputError(f"{path}: not readable as DICOM ({error}); fetch it again") from None
    modality = header.get("Modality", "none given")
    if modality != "CT":
        raise InputError(f"{path}: modality {modality}, not CT; name a CT series by series_uid=")
    if str(header.get("NumberOfFrames") or 1) != "1":
        raise InputError(f"{path}: a DICOM of many frames; convert it to single slices")
    try:
        axes = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
        position = np.array(header.ImagePositionPatient, float)
        row_mm, col_mm = (float(v) for v in header.PixelSpacing)
        if position.shape != (3,) or not np.isfinite(position).all():
            raise ValueError(f"ImagePositionPatient {position}")
        if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-3):
            raise ValueError(
                f"ImageOrientationPatient {axes.tolist()}, not two perpendicular units"
            )
        if not (0 < row_mm < np.inf and 0 < col_mm < np.inf):
            raise ValueError(f"PixelSpacing {row_mm}, {col_mm}")
        shape = int(header.Rows), int(header.Columns)
        instance, tilt = (float(header.get(tag) or 0)
                          for tag in ("InstanceNumber", "GantryDetectorTilt"))  # fmt: skip
    except _UNREADABLE as error:
        raise InputError(
            f"{path}: no usable position, orientation or pixel spacing ({error}); it is no "
            "slice of a volume, or damaged: remove it or fetch it again"
        ) from None
    direction = np.column_stack([*axes, np.cross(*axes)])
    if abs(tilt) > 1 and abs(direction[2, 2]) > np.cos(np.radians(tilt / 2)):
        raise InputError(
            f"{path}: a gantry tilt of {tilt:g} degrees, of which its orientation says nothing; "
            "resample the series to an upright grid first"
        )
    names = {"patient": "PatientID", "kernel": "ConvolutionKernel"}
    same = {what: str(header.get(tag) or "").strip() for what, tag in names.items()}
    return _Slice(path, str(header.get("SeriesInstanceUID", "")).strip(), same,
                  str(header.get("AcquisitionNumber") or ""), int(instance), shape,
                  (row_mm, col_mm), position, direction, float(position @ direction[:, 2])
                  )  # fmt: skip


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
            *((what, first.same[what] in ("", own) or not own) for what, own in s.same.items()),
        ):
            if not same:
                raise InputError(
                    f"{s.path}: another {what} than {first.path.name}; separate the two "
                    "acquisitions into folders of their own"
                )
    # Where each turn of a scanner is an acquisition there are as many as slices.
    acquisitions = Counter(s.acquisition for s in slices if s.acquisition)
    if 1 < len(acquisitions) <= len(slices) / 2:
        (one, count), (two, _), *_ = acquisitions.most_common()
        other = next(s.path for s in slices if s.acquisition == two)
        raise InputError(
            f"{other}: {len(acquisitions)} acquisitions in series {first.series_uid} (number "
            f"{one} has {count} of {len(slices)} slices, this is of number {two}); separate them "
            "into folders of their own"
        )
    offsets = np.array([s.position_xyz_mm - first.position_xyz_mm for s in slices])
    along = offsets @ first.direction[:, 2]
    sideways = offsets - along[:, None] * first.direction[:, 2]
    drift = np.linalg.norm(sideways, axis=1)
    worst = int(np.argmax(drift))
    if drift[worst] > EVEN_MM:
        degrees = np.degrees(np.arctan2(drift[worst], abs(along[worst])))
        slope = sideways[worst] / along[worst] if along[worst] else np.inf
        straight = np.abs(sideways - along[:, None] * slope).max() <= EVEN_MM
        what = f"gantry tilt of {degrees:.1f} degrees" if straight else "positions on no one line"
        raise InputError(
            f"{slices[worst].path}: moved {drift[worst]:.1f} mm sideways from {first.path.name} "
            f"({what}); resample the series to an upright grid first"
        )
    first, *later = sorted(slices, key=lambda s: (s.along_normal_mm, s.instance, s.path))
    kept = [first]
    for s in later:
        if s.along_normal_mm - kept[-1].along_normal_mm > _SAME_MM:
            kept.append(s)
        elif not (allow_doubles or np.array_equal(_read_hu(s, None), _read_hu(kept[-1], None))):
            raise InputError(
                f"{s.path}: lies at the same position ({s.along_normal_mm:g} mm) as "
                f"{kept[-1].path.name}, with other pixels; remove one, or allow_doubles "
                "(--allow-doubles) keeps the one with the lower instance number"
            )
    return kept


def _read_hu(slice_: _Slice, padding_hu: float | None) -> NDArray[np.float64]:
    """The slice's pixels in HU, without its declared padding."""
    path = slice_.path
    try:
        dataset = _read(path)
    except _UNREADABLE as error:
        raise InputError(f"{path}: not readable as DICOM ({error}); fetch it again") from None
    if "PixelData" not in dataset:
        raise InputError(f"{path}: no pixel data, or truncated before it; fetch it again")
    syntax: Any = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:  # of a file without its first part: by how the rest is written
        implicit, little = (
            dataset.original_encoding if hasattr(dataset, "original_encoding")  # pydicom 3
            else (dataset.is_implicit_VR, dataset.is_little_endian)
        )  # fmt: skip
        syntax = UID("1.2.840.10008.1.2" + ("" if implicit else ".1" if little else ".2"))
        dataset.file_meta.TransferSyntaxUID = syntax
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
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
        slope = intercept = 0.0
    if not (slope and np.isfinite([slope, intercept]).all()):
        raise InputError(
            f"{path}: no rescale slope and intercept, so its values cannot become HU; fetch the "
            "original series"
        )
    hu = stored.astype(np.float64) * slope + intercept
    if padding_hu is not None and "PixelPaddingValue" in dataset:  # PS3.3, C.7.5.1.1.2
        value = dataset.PixelPaddingValue
        # The tag is often written as unsigned beside signed pixels: 63536 for -2000.
        ends = np.array([value, dataset.get("PixelPaddingRangeLimit", value)]).astype(stored.dtype)
        hu[(stored >= ends.min()) & (stored <= ends.max())] = padding_hu
    return hu


def _exact(hu: NDArray) -> NDArray:
    """The same values as int16 when they are whole numbers that fit, else as float32."""
    limits = np.iinfo(np.int16)
    if limits.min <= hu.min() and hu.max() <= limits.max:
        whole = hu.astype(np.int16, copy=False)
        if np.array_equal(whole, hu):
            return whole
    return hu.astype(np.float32)


# --- an image file --------------------------------------------------------------------------------


def read_image(path: str | os.PathLike[str]) -> Volume:
    """Read one CT volume in HU from an image file: .mhd, .mha, .nii, .nii.gz, .nrrd or .nhdr.

    Positions and directions come out in LPS, also from NIfTI; padding, below -1200 HU, as air. A
    MetaImage whose name is a DICOM UID, as in LUNA-16, has that as its `series_uid`.

    Raises:
        InputError: no such file, another kind of file, damaged or cut short (with .mhd: the .raw
            is missing or too short), not three-dimensional, several values a voxel, no spacing,
            sheared axes, or values that are not finite or cannot be HU.
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
        if suffix.startswith(".nii"):
            _require_sound_nifti(path)
        elif suffix in (".mhd", ".mha"):
            with path.open("rb") as start:
                sizes = re.findall(rb"(?m)^\s*NDims\b.*$", start.read(1 << 16))
            if len(sizes) != 1 or not re.fullmatch(rb"\s*NDims *= *\d\s*", sizes[0]):
                raise InputError(f"{path}: its header gives no number of dimensions (NDims); fetch "
                                 "it again")  # fmt: skip  # ITK crashes on NDims = -1
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        dimension, components = reader.GetDimension(), reader.GetNumberOfComponents()
        if dimension != 3 or components != 1:
            raise InputError(
                f"{path}: {dimension} dimensions and {components} value(s) a voxel; a CT volume "
                "has 3 and 1: extract one volume first"
            )
        axes = np.array(reader.GetDirection()).reshape(3, 3)
        _require_right_angles(path, axes)
        if not np.allclose(np.linalg.norm(axes, axis=0), 1.0, atol=1e-3):
            raise InputError(f"{path}: its axes' directions are no unit vectors; fetch it again")
        if not suffix.startswith(".nii"):
            one = sitk.GetArrayViewFromImage(sitk.Image([1, 1, 1], reader.GetPixelID()))
            _require_sound_data(path, suffix, int(np.prod(reader.GetSize())) * one.itemsize)
        image = reader.Execute()
    except (RuntimeError, EOFError, OSError, ValueError, struct.error, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: not readable; it is damaged or cut short, or (.mhd, .nhdr) its data file is "
            "not beside it: fetch it again"
        ) from error
    voxels = sitk.GetArrayFromImage(image)
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise InputError(f"{path}: holds values that are not finite; replace them by -1000 (air)")
    require_hu(voxels, str(path))
    for slice_ in voxels if voxels.dtype.kind in "if" else ():
        # A slice at a time: a mask of a large scan would be another 200 MB.
        slice_[slice_ < PADDING_BELOW_HU] = AIR_HU
    stem = path.name[: -len(suffix)]
    uid = stem if re.fullmatch(r"\d+(\.\d+){3,}", stem) else ""
    direction = np.array(image.GetDirection()).reshape(3, 3)
    return Volume(_exact(voxels), image.GetSpacing(), image.GetOrigin(), direction, uid)


def _require_right_angles(path: Path, axes: NDArray[np.float64]) -> None:
    """Refuse the axes of an image, the columns of a matrix, when they are sheared."""
    length = np.linalg.norm(axes, axis=0)
    cosines = axes.T @ axes / np.outer(length, length) if length.all() else np.ones((3, 3))
    if not np.abs(cosines - np.eye(3)).max() < 1e-3:
        degrees = 90 - np.degrees(np.arccos(np.clip(np.abs(cosines - np.eye(3)).max(), 0, 1)))
        raise InputError(
            f"{path}: its axes are not at right angles but sheared by {degrees:.1f} degrees (a "
            "tilted gantry?); resample the scan to an upright grid, or convert it again"
        )


def _require_sound_nifti(path: Path) -> None:
    """Refuse NIfTI that ITK would fill up with zeros, or take for upright when it is sheared."""
    zipped = path.name.lower().endswith(".gz")
    head, length = b"", 0
    for block in _unpacked(path, 0, "gzip" if zipped else "raw"):
        head += block[: max(0, 544 - len(head))]
        length += len(block)
    if len(head) < 348:
        raise EOFError
    order = ">" if head[0] == 0 else "<"
    (size,) = struct.unpack_from(f"{order}i", head, 0)
    dims, bits, codes, rows = {
        348: (("8h", 40), ("h", 72), ("2h", 252), ("12f", 280)),
        540: (("8q", 16), ("h", 14), ("2i", 344), ("12d", 400)),
    }[size if size == 540 else 348]
    n, *shape = struct.unpack_from(f"{order}{dims[0]}", head, dims[1])
    (bits_each,) = struct.unpack_from(order + bits[0], head, bits[1])
    if length < size + np.prod([float(k) for k in shape[:n]]) * bits_each / 8:
        raise EOFError
    q_code, s_code = struct.unpack_from(order + codes[0], head, codes[1])
    if not (q_code > 0 or s_code > 0):
        raise InputError(f"{path}: says nothing of the axes' directions; convert the scan again")
    if s_code > 0:
        affine = np.array(struct.unpack_from(order + rows[0], head, rows[1])).reshape(3, 4)
        _require_right_angles(path, affine[:, :3])


def _require_sound_data(path: Path, suffix: str, n_bytes: int) -> None:
    """Refuse what ITK would make up: damaged or shifted data, and a place that is not stated."""
    with path.open("rb") as start:
        text = start.read(1 << 16).decode("latin-1")
    meta = suffix in (".mhd", ".mha")
    end = re.search(r"ElementDataFile[^\n]*\n?" if meta else r"\r?\n\r?\n|$", text)
    head = text[: end.end() if end else 0]
    said = re.findall(
        r"(?m)^\s*(\w+) *= *(.*?)\s*$" if meta else r"(?m)^([\w ]+): *(.*?)\s*$", head
    )
    fields: dict[str, str] = dict(said)
    for what, names in _PLACES[meta].items():
        if not any(fields.get(name) for name in names):
            raise InputError(f"{path}: its header gives no {what} of voxels ({names[0]}); convert "
                             "the scan again")  # fmt: skip
    zipped = fields.get("CompressedData", "False").lower()
    if "\0" in head or len(fields) < len(said) or zipped not in ("true", "false"):
        raise InputError(f"{path}: its header is damaged; fetch it again")
    if meta:
        kind, data = "gzip" if zipped == "true" else "raw", fields.get("ElementDataFile", "LOCAL")
    else:
        coding = fields.get("encoding", "raw")
        kind = {"gz": "gzip", "bz2": "bzip2"}.get(coding, coding)
        data = fields.get("data file", fields.get("datafile", "LOCAL"))
    local = data.upper() == "LOCAL"
    file = path if local else path.parent / data
    if kind in ("raw", "gzip", "bzip2") and file.is_file() and "HeaderSize" not in fields:
        first = len(head) if local else 0
        length = file.stat().st_size - first
        if kind != "raw":
            length = sum(map(len, _unpacked(file, first, kind)))
        if length != n_bytes:
            raise EOFError


def _unpacked(path: Path, first: int, kind: str) -> Iterator[bytes]:
    """A file's data from a byte on, block by block; an error where they are cut or damaged."""
    unpack: Any = None
    with path.open("rb") as file:
        file.seek(first)
        while block := file.read(1 << 20):
            while block and kind != "raw":
                if unpack is None:
                    unpack = bz2.BZ2Decompressor() if kind == "bzip2" else zlib.decompressobj(47)
                yield unpack.decompress(block)
                block = unpack.unused_data.lstrip(b"\0")
                unpack = None if unpack.eof else unpack
            if kind == "raw":
                yield block
    if unpack is not None:
        raise EOFError
