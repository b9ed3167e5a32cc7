"""LUNA-16's volumes on disk: one .mhd header and one .raw file a scan, named by its series.

Headers are read first, all of them: they tell in a second which scans are there, which are damaged
and where in the world each lies, before hours are spent on their voxels.
"""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from labkit.errors import InputError
from labkit.imaging.readers import read_image
from labkit.imaging.volume import AIR_HU, Volume

# Below it is no tissue and no air: pixels outside the reconstructed circle, -2000 or -3024.
PADDING_BELOW_HU = -1200
_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
    "MET_FLOAT": 4, "MET_DOUBLE": 8,
}  # fmt: skip
_SPACING = ("ElementSpacing", "ElementSize")
_ORIGIN = ("Offset", "Position", "Origin")
_DIRECTION = ("TransformMatrix", "Rotation", "Orientation")
# Of CT; beyond them are metres or micrometres.
_LEAST_MM, _MOST_MM = 0.05, 20.0
# A chest holds air. Where no voxel is below this, the numbers are not HU.
_NO_AIR_HU = -300
# The challenge's lung masks have the names of the scans that they belong to.
_MASKS = "seg-lungs"
_NO_SUBSET = -1
_UID = re.compile(r"\d+(\.\d+){3,}")
_LONGEST_HEADER = 1 << 16


@dataclass(frozen=True)
class Scan:
    """A volume on disk, of which the header has been read and found sound.

    Args:
        path: the .mhd file.
        series_uid: SeriesInstanceUID, the file's name.
        subset: number in the name of a folder above it (subset0 .. subset9), -1 without one.
        shape: voxels along (z, y, x).
        spacing_xyz_mm: as `Volume`.
        origin_xyz_mm: as `Volume`.
        direction: as `Volume`.
        compressed: data file that has to be decompressed, and how many bytes that gives.
    """

    path: Path
    series_uid: str
    subset: int
    shape: tuple[int, int, int]
    spacing_xyz_mm: tuple[float, float, float]
    origin_xyz_mm: tuple[float, float, float]
    direction: NDArray[np.float64]
    compressed: tuple[Path, int] | None = None

    @property
    def grid(self) -> Volume:
        """A `Volume` of the same geometry whose voxels are all one, and take no memory."""
        # Not kept: sent to another process, such an array would become as large as the scan.
        voxels = np.broadcast_to(np.int16(AIR_HU), self.shape)
        return Volume(
            voxels, self.spacing_xyz_mm, self.origin_xyz_mm, self.direction, self.series_uid
        )


def find(folder: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """The .mhd files anywhere below a folder, by the series that they are named by.

    Links to folders are followed, but for those to a folder that they lie in. Lung masks (in
    folders named seg-lungs...) and files not named by a UID are passed over.

    Returns:
        SeriesInstanceUID -> files; more than one where a scan is there twice: in two files, or in
        one that links put into two subsets.

    Raises:
        InputError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name the one with LUNA-16's subset0 ...")
    # A series and the file that it is in -> its subsets -> the first path that says so.
    ways: dict[tuple[str, Path], dict[int, Path]] = {}
    for path in sorted(_headers(folder)):
        ways.setdefault((path.stem, path.resolve()), {}).setdefault(_subset(path), path)
    found: dict[str, list[Path]] = {}
    for (uid, _), paths in ways.items():
        if len(paths) > 1:
            paths.pop(_NO_SUBSET, None)  # the same file, by a path that says less
        found.setdefault(uid, []).extend(paths.values())
    return {uid: sorted(found[uid]) for uid in sorted(found)}


def _headers(folder: Path) -> Iterator[Path]:
    """Files below a folder that may be the header of a scan."""
    seen = set()
    for name, folders, files in os.walk(folder, followlinks=True):
        here = Path(name)
        # A folder that two paths lead to is gone through again if they are of different subsets.
        place = (here.resolve(), _subset(here / "any"))
        masks = here != folder and any(p.name.startswith(_MASKS) for p in (here, place[0]))
        if place in seen or masks or _leads_up(here, folder):
            folders.clear()
            continue
        seen.add(place)
        folders.sort()
        for file in files:
            path = here / file
            if path.suffix == ".mhd" and _UID.fullmatch(path.stem) and path.is_file():
                yield path


def _leads_up(here: Path, top: Path) -> bool:
    """Whether a folder is a link to one that it lies in, which would go round and round."""
    if here == top or not here.is_symlink():
        return False
    target = here.resolve()
    above = [path.resolve() for path in here.parents if path.is_relative_to(top)]
    return any(path == target or target in path.parents for path in above)


def _subset(path: Path) -> int:
    """The number in the name of the nearest folder above that is called subset0 to subset9."""
    above = (re.fullmatch(r"subset(\d)", part) for part in reversed(path.parts[:-1]))
    return next((int(match[1]) for match in above if match), _NO_SUBSET)


def read_header(path: str | os.PathLike[str]) -> Scan:
    """Read a scan's header, and compare it with the size of its .raw file.

    Raises:
        InputError: what is wrong with it, in one line: not a MetaImage header, other than three
            dimensions or one value a voxel, no spacing or none of a CT, no origin, axes that are
            not at right angles, an unknown type, no data file, or one of another size than the
            header says.
    """
    path = Path(path)
    fields = _fields(path)
    for name in ("NDims", "DimSize", "ElementType", "ElementDataFile"):
        if not fields.get(name):
            raise InputError(f"{path}: the header has no {name}; fetch the scan again")
    if fields["NDims"] != "3":
        raise InputError(f"{path}: NDims is {fields['NDims']}; a CT volume has 3 dimensions")
    channels = fields.get("ElementNumberOfChannels", "1")
    if channels != "1":
        raise InputError(f"{path}: ElementNumberOfChannels is {channels}; a CT volume has 1")
    kind = fields["ElementType"]
    if kind not in _BYTES:
        raise InputError(f"{path}: ElementType {kind} is none of {', '.join(_BYTES)}")
    size = _numbers(path, fields, "DimSize")
    if not all(n > 0 and n == int(n) for n in size):
        raise InputError(
            f"{path}: DimSize is {fields['DimSize']!r}; it has to be three positive whole numbers"
        )
    _require_geometry(path, fields)
    length = math.prod(int(n) for n in size) * _BYTES[kind]
    data = _require_data(path, fields, length)
    compressed = fields.get("CompressedData", "False").lower() == "true"
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        x, y, z = reader.GetSize()
        scan = Scan(
            path, path.stem, _subset(path), (z, y, x), reader.GetSpacing(), reader.GetOrigin(),
            np.array(reader.GetDirection()).reshape(3, 3), (data, length) if compressed else None,
        )  # fmt: skip
        _ = scan.grid  # refuses a geometry that is none
    except (RuntimeError, ValueError) as error:
        why = str(error).strip().splitlines()[-1]
        raise InputError(f"{path}: the header is not readable ({why}); fetch it again") from None
    return scan


def read(scan: Scan) -> Volume:
    """Read a scan's voxels, HU. Padding, which the format cannot declare, becomes air.

    Raises:
        InputError: not readable, see `readers.read_image`; or no voxel of air, so that what is
            stored is no HU.
    """
    if scan.compressed is not None:
        _require_whole(scan.path, *scan.compressed)
    volume = read_image(scan.path)
    voxels = volume.voxels
    lowest = voxels.min()
    if lowest > _NO_AIR_HU:
        raise InputError(f"{scan.path}: no voxel is below {lowest:g}, and air is -1000 HU; write "
                         "the voxels as HU (1024 less, often)")  # fmt: skip
    if lowest < PADDING_BELOW_HU:
        # In place, a slice at a time: a mask of a large scan would be another 200 MB.
        for image in voxels:
            image[image < PADDING_BELOW_HU] = AIR_HU
    return replace(volume, series_uid=scan.series_uid)


def _fields(path: Path) -> dict[str, str]:
    """The "Name = value" lines of a header, up to its last, ElementDataFile."""
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST_HEADER).decode("latin-1")
    except OSError as error:
        raise InputError(f"{path}: not readable ({error.strerror})") from None
    fields = {}
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        if not equals:
            continue
        fields[name.strip()] = value.strip()
        if name.strip() == "ElementDataFile":
            break
    if not fields:
        raise InputError(f"{path}: not the header of a MetaImage; fetch the scan again")
    if any("\r" in value for value in fields.values()):
        raise InputError(f"{path}: lines end in CR alone; write the header with LF or CRLF")
    return fields


def _numbers(path: Path, fields: Mapping[str, str], name: str, n: int = 3) -> list[float]:
    """So many finite numbers."""
    try:
        numbers = [float(number) for number in fields[name].split()]
    except ValueError:
        numbers = []
    if len(numbers) != n or not np.isfinite(numbers).all():
        raise InputError(f"{path}: {name} is {fields[name]!r}; it has to be {n} finite numbers")
    return numbers


def _require_geometry(path: Path, fields: Mapping[str, str]) -> None:
    """Refuse a place in the world that is not said, or that is none; ITK would take a default."""
    spacing, origin, direction = (
        next((name for name in names if fields.get(name)), None)
        for names in (_SPACING, _ORIGIN, _DIRECTION)
    )
    if spacing is None or origin is None:
        lacks, what = (_SPACING, "size") if spacing is None else (_ORIGIN, "place")
        raise InputError(f"{path}: the header has no {lacks[0]}, the voxels' {what} in mm; fetch "
                         "the scan again")  # fmt: skip
    if not all(_LEAST_MM <= n <= _MOST_MM for n in _numbers(path, fields, spacing)):
        raise InputError(
            f"{path}: {spacing} is {fields[spacing]!r}; the voxels of a CT are {_LEAST_MM:g} to "
            f"{_MOST_MM:g} mm along each axis: give millimetres"
        )
    _numbers(path, fields, origin)
    if direction is None:
        return
    axes = np.reshape(_numbers(path, fields, direction, 9), (3, 3))
    if not np.allclose(axes @ axes.T, np.eye(3), atol=1e-3):
        raise InputError(f"{path}: {direction} is {fields[direction]!r}; a scan's axes are of "
                         "length 1 and at right angles: fetch the scan again")  # fmt: skip


def _require_data(path: Path, fields: Mapping[str, str], expected: int) -> Path:
    """The data file; one that is missing or has another size than the voxels need is refused."""
    name = fields["ElementDataFile"]
    if fields.get("BinaryData", "True").lower() != "true":
        raise InputError(f"{path}: BinaryData is {fields['BinaryData']}; write the voxels as "
                         "binary numbers")  # fmt: skip
    if name in ("LIST", "LOCAL") or "%" in name:
        raise InputError(f"{path}: ElementDataFile is {name}; write the voxels as one .raw file "
                         "beside the header")  # fmt: skip
    data = path.parent / name
    if not data.is_file():
        raise InputError(f"{path}: its data file {name} is not beside it; fetch the scan again")
    found = data.stat().st_size
    compressed = fields.get("CompressedData", "False").lower() == "true"
    if fields.get("HeaderSize", "0") not in ("0", "-1"):
        raise InputError(f"{path}: HeaderSize is {fields['HeaderSize']}; write the .raw file "
                         "without a header of its own")  # fmt: skip
    if not compressed and found != expected:
        raise InputError(
            f"{path}: DimSize {fields['DimSize']} and {fields['ElementType']} need {expected} "
            f"bytes, {name} has {found}; fetch the scan again"
        )
    return data


def _require_whole(path: Path, data: Path, expected: int) -> None:
    """Refuse a compressed file that is damaged; SimpleITK would take what memory held before."""
    inflate, found = zlib.decompressobj(), 0
    try:
        with data.open("rb") as file:
            while block := file.read(1 << 20):
                found += len(inflate.decompress(block))
    except (zlib.error, OSError):
        found = 0
    if found != expected:
        raise InputError(f"{path}: {data.name} cannot be decompressed; fetch the scan again")
