"""Scans from disk: a DICOM series as the scanner left it, or one image file.

A DICOM folder is where silent mistakes happen: slices in the order of their file names, a missing
slice that moves everything above it, an intercept applied twice. Here every such case is an
error with the file and the cure in it, or an option that has to be asked for.
"""

from __future__ import annotations

import math
import os
import re
import struct
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID
from scipy.spatial.transform import Rotation

from labkit.errors import InputError
from labkit.imaging.volume import AIR_HU, PADDING_BELOW_HU, Volume, require_hu, require_spacing

# Positions are often rounded to 0.1 mm, so that even slices may seem to be off by as much.
EVEN_MM = 0.1
_SAME_MM = 0.01
# What a MetaImage's header may say besides; the first is meant where it says nothing.
_PLAIN = {
    "NDims": ("3",), "ElementNumberOfChannels": ("1",), "BinaryData": ("true",),
    "HeaderSize": ("0", "-1"), "CompressedData": ("false", "true"), "DistanceUnits": ("mm", "?"),
    "Modality": ("met_mod_ct", "met_mod_other", "met_mod_unknown"),
    "ElementToIntensityFunctionSlope": ("1", "1.0"),
    "ElementToIntensityFunctionOffset": ("0", "0.0", "-0"),
}  # fmt: skip
_META_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
    "MET_FLOAT": 4, "MET_DOUBLE": 8,
}  # fmt: skip
# The spaces of NRRD that ITK turns into the world's; of others nobody knows where they lie.
_NRRD_SPACES = ("left-posterior-superior", "lps", "right-anterior-superior", "ras",
                "left-anterior-superior", "las")  # fmt: skip
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
    "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "ImageType", "RescaleSlope",
    "RescaleIntercept", "StudyInstanceUID", "FrameOfReferenceUID", "SliceThickness", "KVP",
]  # fmt: skip
# What all slices of one acquisition share, as far as they say it.
_SHARED = {
    "patient": "PatientID", "study": "StudyInstanceUID", "kernel": "ConvolutionKernel",
    "frame of reference": "FrameOfReferenceUID", "slice thickness": "SliceThickness",
    "tube voltage": "KVP",
}  # fmt: skip


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

    def closed(error: OSError) -> None:
        found.damaged[Path(error.filename)] = f"not readable ({error.strerror})"

    for path in sorted(_files_below(Path(folder), closed)):
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
        called = ".dcm" in path.name.lower() and path.parent in folders  # 001.dcm.gz, too
        if (called or kind(path) in kinds) and _series_of(path) is None:
            found.other.remove(path)
            found.damaged[path] = "no DICOM, although it is called like a slice"
    return found


def _files_below(folder: Path, closed: Callable[[OSError], None]) -> Iterator[Path]:
    seen = set()
    for here, folders, files in os.walk(folder, onerror=closed, followlinks=True):
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
    except InputError:
        return None
    classes = header.get("SOPClassUID"), header.file_meta.get("MediaStorageSOPClassUID")
    if _INDEX_OF_A_DISK in classes:
        return ""
    return str(header.get("SeriesInstanceUID", "")).strip() or None


def _read(path: Path, tags: list[str] | None = None) -> pydicom.Dataset:
    """Some tags of a file, or all with its pixels, with DICOM's mark or without.

    Without pydicom's warnings, which would show values, when these are converted by asking.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, force=True, stop_before_pixels=tags is not None,
                                      specific_tags=tags)  # fmt: skip
            for tag in tags or ():
                dataset.get(tag)
            list(dataset.file_meta.values())
    except _UNREADABLE as error:
        why = str(error) or type(error).__name__
        raise InputError(f"{path}: not readable as DICOM ({why}); fetch it again") from None
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
) -> Volume:
    """Read one CT series in HU; its slices are sorted by their position along the slice normal.

    What is left out of a folder is told in a line on stderr. Pixels outside the reconstructed
    circle, which the header declares as padding or which are below -1200 HU, come out as air.

    Args:
        source: a folder that it is in or below, or its files, as `find_series` lists them.
        series_uid: which series of a folder, when there are several.
        allow_gaps: put slices that are missing or unevenly spaced on an even grid, by linear
            interpolation along the slice normal; otherwise they are an error.
        allow_doubles: of slices at one position keep the one with the lowest instance number;
            otherwise they are an error, unless their pixels are the same.

    Returns:
        The volume; voxels int16 where the HU are whole numbers that fit, else float32.

    Raises:
        InputError: no CT series, or several and none named; a damaged file in it or beside it, or
            one that cannot become HU; slices of unequal size, spacing, orientation or acquisition,
            or of two patients, kernels and so on; sheared by a tilted gantry, doubled, missing or
            unevenly spaced; lengths that are no millimetres.
    """
    if isinstance(source, (str, os.PathLike)):
        source = _files_of(Path(source), series_uid)
    slices = _ordered([_read_header(Path(file)) for file in source], allow_doubles)
    first, who = slices[0], f"series {slices[0].series_uid}"
    positions = np.array([s.along_normal_mm for s in slices])
    grid_mm = np.linspace(positions[0], positions[-1], len(positions))
    if np.abs(positions - grid_mm).max() > EVEN_MM:
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
    images = [_read_hu(s) for s in slices]
    for rescale in {s.rescale for s in slices}:  # half a series may have lost its intercept
        require_hu([hu for s, hu in zip(slices, images, strict=True) if s.rescale == rescale], who)
    for image in images:
        image[image < PADDING_BELOW_HU] = AIR_HU
    images = [_exact(image) for image in images]
    below = np.clip(np.searchsorted(positions, grid_mm, "right") - 1, 0, len(positions) - 2)
    gaps = np.diff(positions)[below]
    shares = (grid_mm - positions[below]) / gaps  # of the slice above in each of the grid
    whole = np.rint(shares)
    shares = np.where(np.abs(shares - whole) * gaps <= EVEN_MM, whole, shares)
    voxels = np.stack([
        images[k + int(share)] if share in (0, 1) else
        ((1 - share) * images[k] + share * images[k + 1]).astype(np.float32)
        for k, share in zip(below, shares, strict=True)
    ])  # fmt: skip
    row_mm, col_mm = first.pixel_spacing_mm
    step_mm = (grid_mm[-1] - grid_mm[0]) / (len(grid_mm) - 1)
    require_spacing((col_mm, row_mm, step_mm), who)
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
                _read_hu(header)
            there[file] = float(header.position_xyz_mm[2])
        except InputError as error:
            damaged[file] = str(error).removeprefix(f"{file}: ")
    return there, damaged


class _Slice(NamedTuple):
    """What one slice's header says; directions are the world's (LPS)."""

    path: Path
    series_uid: str
    shared: dict[str, str]  # what all slices of a series share, where they say it
    rescale: tuple[str, str]
    acquisition: str
    instance: int
    shape: tuple[int, int]
    pixel_spacing_mm: tuple[float, float]
    position_xyz_mm: NDArray[np.float64]
    direction: NDArray[np.float64]
    along_normal_mm: float


def _read_header(path: Path) -> _Slice:
    header = _read(path, _OF_HEADER)
    modality = header.get("Modality", "none given")
    if modality != "CT":
        raise InputError(f"{path}: modality {modality}, not CT; name a CT series by series_uid=")
    if "LOCALIZER" in (header.get("ImageType") or ()):
        raise InputError(f"{path}: a localizer (scout), no slice; remove it")
    if str(header.get("NumberOfFrames") or 1) != "1":
        raise InputError(f"{path}: a DICOM of many frames; convert it to single slices")
    try:
        axes = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
        position = np.array(header.ImagePositionPatient, float).reshape(3)
        row_mm, col_mm = (float(v) for v in header.PixelSpacing)
        shape = int(header.Rows), int(header.Columns)
        instance, tilt = (
            float(header.get(tag) or 0) for tag in ("InstanceNumber", "GantryDetectorTilt")
        )
        if not np.isfinite([*position, row_mm, col_mm, instance, tilt]).all():
            raise ValueError("a number that is not finite")
        if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-3):
            raise ValueError(
                f"ImageOrientationPatient {axes.tolist()}, not two perpendicular units"
            )
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

    def text(tag: str) -> str:
        value = header.get(tag)
        return f"{value:.2f}" if isinstance(value, float) else str(value or "").strip()

    shared = {what: text(tag) for what, tag in _SHARED.items()}
    rescale = str(header.get("RescaleSlope")), str(header.get("RescaleIntercept"))
    return _Slice(path, text("SeriesInstanceUID"), shared, rescale, text("AcquisitionNumber"),
                  int(instance), shape, (row_mm, col_mm), position, direction,
                  float(position @ direction[:, 2]))  # fmt: skip


def _ordered(slices: list[_Slice], allow_doubles: bool) -> list[_Slice]:
    """Slices that can be stacked, by position along their normal, one at each position."""
    if len(slices) < 2:
        where = slices[0].path if slices else "an empty list of files"
        raise InputError(f"{where}: a scan needs at least two slices; fetch the whole series")
    first = slices[0]
    shared = {what: next((s.shared[what] for s in slices if s.shared[what]), "")
              for what in _SHARED}  # fmt: skip
    for s in slices:
        for what, same in (
            ("series", s.series_uid == first.series_uid),
            ("size", s.shape == first.shape),
            ("pixel spacing", np.allclose(s.pixel_spacing_mm, first.pixel_spacing_mm, atol=1e-4)),
            ("orientation", np.allclose(s.direction, first.direction, atol=1e-3)),
            *((what, not own or own == shared[what]) for what, own in s.shared.items()),
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
        elif not (allow_doubles or np.array_equal(_read_hu(s), _read_hu(kept[-1]))):
            raise InputError(
                f"{s.path}: lies at the same position ({s.along_normal_mm:g} mm) as "
                f"{kept[-1].path.name}, with other pixels; remove one, or allow_doubles "
                "(--allow-doubles) keeps the one with the lower instance number"
            )
    return kept


def _read_hu(slice_: _Slice) -> NDArray[np.float64]:
    """The slice's pixels in HU, its declared padding as air."""
    path = slice_.path
    dataset = _read(path)
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
    if "PixelPaddingValue" in dataset:  # PS3.3, C.7.5.1.1.2
        value = dataset.PixelPaddingValue
        # The tag is often written as unsigned beside signed pixels: 63536 for -2000.
        ends = np.array([value, dataset.get("PixelPaddingRangeLimit", value)]).astype(stored.dtype)
        padding = (stored >= ends.min()) & (stored <= ends.max())
        # Beyond the circle lie the corners. A value of tissue that is not there means tissue.
        if padding[[0, 0, -1, -1], [0, -1, 0, -1]].all() or hu[padding].max(initial=-1e9) < -900:
            hu[padding] = AIR_HU
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
            is missing or too short), not three-dimensional, several values a voxel, no spacing or
            none of a CT, sheared axes, a place that is not the world's or is said in two ways, or
            values that are not finite or cannot be HU.
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
            read_meta_header(path, unpack=True)
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        dimension, components = reader.GetDimension(), reader.GetNumberOfComponents()
        if dimension != 3 or components != 1:
            raise InputError(
                f"{path}: {dimension} dimensions and {components} value(s) a voxel; a CT volume "
                "has 3 and 1: extract one volume first"
            )
        require_spacing(reader.GetSpacing(), str(path))
        _require_right_angles(path, np.array(reader.GetDirection()).reshape(3, 3), unit=True)
        if suffix in (".nrrd", ".nhdr"):
            one = sitk.GetArrayViewFromImage(sitk.Image([1, 1, 1], reader.GetPixelID()))
            _require_sound_nrrd(path, int(np.prod(reader.GetSize())) * one.itemsize)
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


def _require_right_angles(path: Path, axes: NDArray[np.float64], unit: bool = False) -> None:
    """Refuse the axes of an image, the columns of a matrix, when they are sheared, or no units."""
    length = np.linalg.norm(axes, axis=0)
    cosines = axes.T @ axes / np.outer(length, length) if length.all() else np.ones((3, 3))
    if not np.abs(cosines - np.eye(3)).max() < 1e-3:
        degrees = 90 - np.degrees(np.arccos(np.clip(np.abs(cosines - np.eye(3)).max(), 0, 1)))
        raise InputError(
            f"{path}: its axes are not at right angles but sheared by {degrees:.1f} degrees (a "
            "tilted gantry?); resample the scan to an upright grid, or convert it again"
        )
    if unit and not np.allclose(length, 1.0, atol=1e-3):
        raise InputError(f"{path}: its axes' directions are not of length 1; fetch it again")


def _require_sound_nifti(path: Path) -> None:
    """Refuse NIfTI that ITK would fill up with zeros, or take for upright when it is sheared."""
    head, length = b"", 0
    for block in _unpacked(path, 0, packed=path.name.lower().endswith(".gz")):
        head += block[: max(0, 544 - len(head))]
        length += len(block)
    if len(head) < 348:
        raise EOFError
    order = ">" if head[0] == 0 else "<"
    (size,) = struct.unpack_from(f"{order}i", head, 0)
    layouts = {
        348: (("8h", 40), ("h", 72), ("4f", 76), ("2h", 252), ("6f", 256), ("12f", 280)),
        540: (("8q", 16), ("h", 14), ("4d", 104), ("2i", 344), ("6d", 352), ("12d", 400)),
    }
    (n, *shape), (bits,), (side, *edges), (q_code, s_code), turn, rows = (
        struct.unpack_from(order + kind, head, at) for kind, at in layouts.get(size, layouts[348])
    )
    if length < size + np.prod([float(k) for k in shape[:n]]) * bits / 8:
        raise EOFError
    if not (q_code > 0 or s_code > 0):
        raise InputError(f"{path}: says nothing of the axes' directions; convert the scan again")
    b, c, d = turn[:3]
    axes = Rotation.from_quat([b, c, d, max(0.0, 1 - b * b - c * c - d * d) ** 0.5]).as_matrix()
    by_q = np.column_stack([axes * edges * [1, 1, -1 if side < 0 else 1], turn[3:]])
    by_s = np.reshape(rows, (3, 4))
    if s_code > 0:
        _require_right_angles(path, by_s[:, :3])
        if q_code <= 0:  # what it says of the edges' lengths it says twice as well
            by_q = by_s * [*(np.abs(edges) / np.linalg.norm(by_s[:, :3], axis=0)), 1]
        apart = np.abs((by_q - by_s) @ [*(k - 1 for k in shape[:3]), 1]).max()
        if not apart < 0.5:
            raise InputError(f"{path}: says in two ways where its voxels lie (qform, sform, "
                             f"pixdim), {apart:.3g} mm apart; convert the scan again"
                             )  # fmt: skip


def _header(path: Path, end: str, field: str) -> tuple[str, dict[str, str]]:
    """The text before a volume's data, and its fields, each of which it may hold once."""
    with path.open("rb") as start:
        text = start.read(1 << 16).decode("latin-1")
    found = re.search(end, text)
    head = text[: found.end() if found else None]
    said = re.findall(field, head)
    if "\0" in head or len(dict(said)) < len(said):
        raise InputError(f"{path}: its header is damaged; fetch it again")
    return head, dict(said)


def read_meta_header(path: Path, unpack: bool = False) -> Path:
    """Read the header of a .mhd or .mha file; return the file that holds its voxels.

    ITK has a default for what a header does not say of the place in the world, leaves out what it
    does not know, and reads on past nonsense. InputError tells what is wrong or missing in it, or
    that its data file is missing or of another size, packed voxels only with `unpack`.
    """

    def refuse(why: str, cure: str = "fetch the scan again") -> InputError:
        return InputError(f"{path}: {why}; {cure}")

    try:
        head, fields = _header(
            path, r"ElementDataFile[^\n]*\n?", r"(?m)^[^\S\n]*(\w+)[^\S\n]*=[^\S\n]*(.*?)[^\S\n]*$"
        )
    except OSError as error:
        raise refuse(f"not readable ({error.strerror})") from None
    if len(fields) != len(re.findall(r"\S.*", head)):  # ITK skips the line after one that is none
        raise refuse("its header is damaged, or it is no MetaImage header")

    def said(*names: str) -> str:
        values = {fields[name] for name in names if fields.get(name)}
        if not values:
            raise refuse(f"no MetaImage header, or it has no {names[0]}")
        if len(values) > 1:
            raise refuse(f"says in two ways what its {names[0]} is", "convert the scan again")
        return values.pop()

    def numbers(count: int, *names: str) -> NDArray[np.float64]:
        value = said(*names)
        with suppress(ValueError):
            found = np.array(value.split(), float)
            if len(found) == count and np.isfinite(found).all():
                return found
        raise refuse(f"{names[0]} is {value!r} and has to be {count} finite numbers")

    size = numbers(3, "DimSize")
    spacing = next(filter(fields.get, ("ElementSpacing", "ElementSize")), "ElementSpacing")
    require_spacing(numbers(3, spacing), str(path))
    numbers(3, "Offset", "Position", "Origin")
    axes = numbers(9, "TransformMatrix", "Rotation", "Orientation").reshape(3, 3)
    kind, name = said("ElementType"), said("ElementDataFile")
    for key, plain in _PLAIN.items():
        if fields.get(key, plain[0]).lower() not in plain:
            raise refuse(
                f"{key} is {fields[key]}",
                "write HU as plain binary numbers, one a voxel in 3 dimensions of millimetres",
            )
    _require_right_angles(path, axes.T, unit=True)
    local = name.upper() == "LOCAL"
    data, first = (path, len(head)) if local else (path.parent / name, 0)
    if not data.is_file():
        raise refuse(f"its data file {name} is not beside it", "fetch it, as one .raw file")
    if kind not in _META_BYTES:
        raise refuse(f"ElementType is none of {', '.join(_META_BYTES)}", "write the voxels as one")
    needed, length = math.prod(size.tolist()) * _META_BYTES[kind], data.stat().st_size - first
    packed = fields.get("CompressedData", "").lower() == "true"
    size_said = fields.get("CompressedDataSize", f"{length}")
    if packed and size_said != f"{length}":
        raise refuse(f"CompressedDataSize is {size_said}, and there are {length} bytes")
    if packed and unpack:
        length = sum(map(len, _unpacked(data, first, packed)))
    if (size != np.rint(size)).any() or (length != needed and (unpack or not packed)):
        raise refuse(
            f"DimSize {fields['DimSize']} and {kind} need {needed:.12g} bytes, {data.name} has "
            f"{length}"
        )
    return data


def _require_sound_nrrd(path: Path, n_bytes: int) -> None:
    """Refuse what ITK would make up: damaged or shifted data, and a place that is not stated."""
    head, fields = _header(path, r"\r?\n\r?\n|$", r"(?m)^([\w ]+): *(.*?)\s*$")
    for name in ("space", "space directions", "space origin"):
        if not fields.get(name):
            raise InputError(f"{path}: its header gives no {name}; convert the scan again")
    units = set(re.findall(r'"(.*?)"', fields.get("space units", ""))) - {"mm"}
    if units or fields["space"].lower() not in _NRRD_SPACES:
        raise InputError(f"{path}: lies in the space {fields['space']} {' '.join(units)}; write it "
                         "as left-posterior-superior, in mm")  # fmt: skip
    coding = fields.get("encoding", "raw")
    data = fields.get("data file", fields.get("datafile", "LOCAL"))
    local = data.upper() == "LOCAL"
    file, first = (path, len(head)) if local else (path.parent / data, 0)
    counted = coding in ("raw", "gz", "gzip") and file.is_file()
    if counted and sum(map(len, _unpacked(file, first, coding != "raw"))) != n_bytes:
        raise EOFError


def _unpacked(path: Path, first: int, packed: bool) -> Iterator[bytes]:
    """A file's data from a byte on, block by block; an error where they are cut or damaged."""
    unpack: Any = None
    with path.open("rb") as file:
        file.seek(first)
        while block := file.read(1 << 20):
            if not packed:
                yield block
            while packed and block:
                unpack = unpack or zlib.decompressobj(47)
                yield unpack.decompress(block)
                block = unpack.unused_data.lstrip(b"\0")
                unpack = None if unpack.eof else unpack
    if unpack is not None:
        raise EOFError
