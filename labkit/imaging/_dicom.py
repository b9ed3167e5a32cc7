"""DICOM slices one by one: what their headers say, whether they fit together, and their HU."""

from __future__ import annotations

import os
import struct
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from labkit.errors import InputError

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
