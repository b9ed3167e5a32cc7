"""Cohorts of LUNA-16's candidates: half a million rows, scan by scan, as fast as the machine is.

Reference: Setio et al., Med Image Anal 42:1-13, 2017. The paper's section III-A says what is cut
out of each scan, and section III-B that candidates within 5 mm have been merged.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import platform
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
import psutil
import SimpleITK as sitk
from joblib import Parallel, cpu_count, delayed
from numpy.lib import format as npy
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from labkit.annotations import lidc, luna16
from labkit.annotations.luna16 import POSITION, SERIES
from labkit.cohorts.cohort import (
    ROW_SHAPES,
    VIEW_SIZE,
    check_target,
    nodule_table,
    require_room,
    shorten,
    versions,
)
from labkit.errors import InputError
from labkit.imaging.dicom import read_image
from labkit.imaging.lungs import dilate, segment
from labkit.imaging.views import nine_views_each
from labkit.imaging.volume import AIR_HU, Volume
from labkit.io import (
    clear_after_kill,
    move_into_place,
    read_json,
    record_of,
    sha256,
    told_if_killed,
    write_json,
)

# LUNA-16's volumes on disk: one .mhd header and one .raw file a scan, named by its series.
#
# Headers are read first, all of them: they tell in a second which scans are there, which are
# damaged
# and where in the world each lies, before hours are spent on their voxels.


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


# The views of all candidates of a scan, as a LUNA-16 cohort stores them.


LOW_HU, HIGH_HU = -1000.0, 400.0


def as_u8(hu: ArrayLike) -> NDArray[np.uint8]:
    """HU as grey levels: v = round((HU + 1000) * 255 / 1400), clipped to 0..255.

    5.5 HU a level; networks see the window from -1000 to 400 HU and nothing beyond.

    >>> as_u8([-2000, -1000, -300, 399, 400, 3000]).tolist()
    [0, 0, 128, 255, 255, 255]
    """
    scaled = (np.asarray(hu, dtype=np.float32) - np.float32(LOW_HU)) * np.float32(
        255 / (HIGH_HU - LOW_HU)
    )
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def within(volume: Volume, centers_xyz_mm: ArrayLike) -> NDArray[np.bool_]:
    """Which points (n, 3) lie on a scan's voxels; only the volume's geometry is used."""
    index = volume.index_from_world(np.asarray(centers_xyz_mm, dtype=np.float64).reshape(-1, 3))
    return np.all((index >= -0.5) & (index <= np.array(volume.shape) - 0.5), axis=1)


def views_u8(
    volume: Volume, centers_xyz_mm: ArrayLike, lungs: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """The nine views of each candidate of one scan.

    Args:
        volume: the scan, HU.
        centers_xyz_mm: (n, 3) world positions, mm, LPS; n may be 0.
        lungs: see `imaging.views.cube`.

    Returns:
        (n, 9, 76, 76) uint8, `as_u8` of `imaging.views.nine_views` of 76 pixels at 1 mm, in the
        order of the centres. They differ by at most one level where rounding is at its edge.

    Raises:
        InputError: a centre outside the scan, or not finite; lungs of another shape.
    """
    centers = np.asarray(centers_xyz_mm, dtype=np.float64).reshape(-1, 3)
    views = np.empty((len(centers), 9, VIEW_SIZE, VIEW_SIZE), np.uint8)
    for k, images in each_u8(volume, centers, lungs):
        views[k] = images
    return views


def each_u8(
    volume: Volume, centers_xyz_mm: NDArray[np.float64], lungs: NDArray[np.bool_] | None = None
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """`views_u8` a candidate at a time, with its number, in the order that suits the scan."""
    here = within(volume, centers_xyz_mm)
    if not here.all():
        k = int(np.argmin(here))
        raise InputError(outside(f"candidate {k}", centers_xyz_mm[k], volume))
    for k, images in nine_views_each(volume, centers_xyz_mm, VIEW_SIZE, lungs=lungs):
        yield k, as_u8(images)


def outside(candidate: str, center_xyz_mm: NDArray[np.float64], volume: Volume) -> str:
    """What to say of a candidate that is not in its scan."""
    ends = [(-0.5, n - 0.5) for n in volume.shape]  # as `within` has them
    corners = volume.world_from_index(list(itertools.product(*ends)))
    low, high = corners.min(axis=0), corners.max(axis=0)
    x, y, z = (f"{n:.1f}" if abs(n) < 1e5 else f"{n:.3g}" for n in center_xyz_mm)
    spans = ", ".join(f"{a:.1f} to {b:.1f}" for a, b in zip(low, high, strict=True))
    oblique = bool(np.all((low <= center_xyz_mm) & (center_xyz_mm <= high)))
    spans += " mm, obliquely, so that it does not fill them" if oblique else " mm"
    return (
        f"{candidate} at x {x}, y {y}, z {z} mm lies outside its scan "
        f"{volume.series_uid or ''}, which spans {spans}; check the table's world coordinates"
    )


# The rows of a LUNA-16 cohort, of candidates and what they may hit.


_NONE = -1


def candidate_ids(n: int) -> list[str]:
    """Ids of n candidates, by their row."""
    return [f"c{row:07d}" for row in range(n)]


def labelled(
    candidates: pd.DataFrame, annotations: pd.DataFrame, excluded: pd.DataFrame | None
) -> pd.DataFrame:
    """Label candidates by the hit rule, and say whose they are.

    Args:
        candidates: columns `seriesuid`, `x_mm`, `y_mm`, `z_mm`.
        annotations: the nodules; the same and `diameter_mm`.
        excluded: findings of which candidates are marked; as `annotations`.

    Returns:
        One row a candidate, in their order, with all columns that `CandidateWriter` wants but for
        `subset`. The patient of a series that LIDC-IDRI does not know is called as the series.
    """
    hit = luna16.label(candidates, annotations)["nodule"].to_numpy()
    diameter = annotations["diameter_mm"].to_numpy(float)
    patients = lidc.scans().set_index("series_uid")["patient_id"].to_dict()
    uids = candidates[SERIES].astype(str)
    on_excluded = np.zeros(len(candidates), np.int64)
    if excluded is not None:
        on_excluded[luna16.hits(candidates, excluded).candidate] = 1
    return pd.DataFrame(
        {
            "nodule_id": candidate_ids(len(candidates)),
            "patient_id": uids.map(patients).fillna(uids).to_numpy(),
            "series_uid": uids.to_numpy(),
            **{axis: candidates[axis].to_numpy(float) for axis in POSITION},
            "diameter_mm": np.where(hit == _NONE, np.nan, diameter[hit] if len(diameter) else 0),
            "hit": hit,
            "excluded": on_excluded,
            "label": (hit != _NONE).astype(np.int64),
        }
    )


# The journal of a build of candidates, and the one array that it is about.
#
# A line is written when what it says is on disk, never before; a torn last line says nothing.


_SHAPE = ROW_SHAPES["views.npy"]
_ROW_BYTES = int(np.prod(_SHAPE))
_MOST_ROWS = 1000  # copied at once: 52 MB


class Journal:
    """What is built and which parts of it are done, a line of JSON each."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def begin(self, begun: Mapping[str, Any]) -> None:
        """Start anew, with what is going to be built."""
        self._file.write_text(_line(begun), encoding="utf-8")

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append a line."""
        with self._file.open("ab", buffering=0) as file:
            file.write(_line(entry).encode())

    def add_done(self, rows: NDArray[np.int64]) -> None:
        """Append that these rows are written; as ranges, since rows of a scan are neighbours."""
        starts = [row for row, _ in _runs(np.sort(rows))]
        lengths = [length for _, length in _runs(np.sort(rows))]
        self.add({"done": [[int(s), int(s + n)] for s, n in zip(starts, lengths, strict=True)]})

    def entries(self) -> list[dict[str, Any]]:
        """All lines after the first."""
        return self._lines()[1:]

    def require_same(self, begun: Mapping[str, Any], folder: Path) -> None:
        """Refuse to go on with something else than was begun; ready for more lines otherwise.

        Raises:
            InputError: names the first thing that differs.
        """
        cure = f"finish that with the same command, or remove {folder} to start anew"
        lines = self._lines()
        if not lines:
            raise InputError(f"{folder}: an unfinished build whose journal is damaged; remove it")
        then, now = _flat(lines[0]), _flat(json.loads(_line(begun)))
        for key in [*now, *then]:
            if then.get(key) != now.get(key):
                what = {"table": "other candidates or scans", "rows": "other candidates or scans"}
                differs = what.get(key, f"{key} {then.get(key)!r}, not {now.get(key)!r}")
                raise InputError(f"{folder}: an unfinished build, begun with {differs}; {cure}")
        if not self._file.read_bytes().endswith(b"\n"):
            with self._file.open("ab", buffering=0) as file:
                file.write(b"\n")  # so that a torn line does not spoil the next one

    def _lines(self) -> list[dict[str, Any]]:
        lines = []
        try:
            text = self._file.read_bytes()
        except FileNotFoundError:
            return []
        for line in text.split(b"\n")[:-1]:  # what follows the last newline is torn, or nothing
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue  # torn by a kill, and another run went on below it
        return lines


def rows_of(ranges: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """Row numbers of [start, stop) ranges.

    >>> rows_of([[2, 4], [9, 10]]).tolist()
    [2, 3, 9]
    """
    parts = [np.arange(start, stop, dtype=np.int64) for start, stop in ranges]
    return np.concatenate([*parts, np.array([], np.int64)])


def write_rows(file: Path, rows: NDArray[np.int64], views: NDArray) -> None:
    """Write views to their rows of the array, by plain writes: a full disk is then an error.

    Several processes may write different rows at once.

    Args:
        file: the .npy file.
        rows: (n,) row numbers.
        views: (n, 9, 76, 76) uint8.

    Raises:
        InputError: views of another shape or type.
    """
    if views.shape != (len(rows), *_SHAPE) or views.dtype != np.uint8:
        needed = (len(rows), *_SHAPE)
        raise InputError(f"{file.parent}: views are {views.dtype} of shape {views.shape}; "
                         f"{len(rows)} rows need uint8 of shape {needed}")  # fmt: skip
    order = np.argsort(rows, kind="stable")
    with file.open("r+b") as out:
        start, at = _first_byte(out), 0
        for row, length in _runs(rows[order]):
            out.seek(start + int(row) * _ROW_BYTES)
            out.write(np.ascontiguousarray(views[order[at : at + length]]).data)
            at += length


def compact(file: Path, kept: NDArray[np.int64], journal: Journal, progress: bool) -> None:
    """Move the kept rows of the array together, in order; it goes on where a kill stopped it.

    Rows move towards the front by the number of rows left out before them. A step never writes
    over what it reads, so that it can be done again, and is noted before the next one is.
    """
    done = max((entry.get("compacted", 0) for entry in journal.entries()), default=0)
    gaps = kept - np.arange(len(kept))
    at = max(done, int(np.searchsorted(gaps, 1)))
    with (
        file.open("r+b") as array,
        tqdm(total=len(kept) - at, desc="closing gaps", unit="row", leave=False,
             disable=not progress or at == len(kept)) as bar,
    ):  # fmt: skip
        start = _first_byte(array)
        while at < len(kept):
            # As many as have the same gap, and no more than it.
            same = int(np.searchsorted(gaps, gaps[at], side="right")) - at
            n = min(same, int(gaps[at]), _MOST_ROWS)
            array.seek(start + int(kept[at]) * _ROW_BYTES)
            rows = array.read(n * _ROW_BYTES)
            array.seek(start + at * _ROW_BYTES)
            array.write(rows)
            array.flush()
            at += n
            journal.add({"compacted": at})
            bar.update(n)


def _first_byte(array: Any) -> int:
    array.seek(0)
    npy.read_magic(array)
    npy.read_array_header_1_0(array)
    return int(array.tell())


def _runs(rows: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First row and length of each run of neighbours among sorted rows."""
    if not len(rows):
        return []
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    edges = [0, *breaks.tolist(), len(rows)]
    return [(int(rows[a]), b - a) for a, b in pairwise(edges)]


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, allow_nan=False) + "\n"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their innermost names, for a message that names one."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}." if key != "builds" else "")
        else:
            flat[prefix + key] = value
    return flat


# Writing a cohort of half a million candidates, in any order, so that a killed build goes on.
#
# Beside the cohort to come stands a hidden folder:
#
#     .NAME.unfinished/
#         cohort/         what will be renamed into place, views.npy at its full length from the
# start
#         journal.jsonl   what is being built, then a line for each part that is done
#         owner.json      the process that is at it


_FORMAT = 2
_NAME = "views.npy"
_candidate_writer_SHAPE = ROW_SHAPES[_NAME]

_COLUMNS = (
    "nodule_id", "patient_id", "series_uid", "x_mm", "y_mm", "z_mm", "diameter_mm", "hit",
    "excluded", "label", "subset",
)  # fmt: skip
_AXES = {"x_mm": "coordX", "y_mm": "coordY", "z_mm": "coordZ"}
_AS_LUNA_WRITES = {"series_uid": "seriesuid", **_AXES, "label": "class"}
_CANDIDATES = "candidates.csv"
_NO_HEADER = "seriesuids.csv"


class CandidateWriter:
    """Writes a LUNA-16 cohort, its rows in any order; it appears in its place whole, or not at all.

    An error or a kill leaves whatever stood at the target as it was, and what was put so far in a
    hidden folder beside it. The same writer, given the same arguments, goes on there: `done` says
    which rows are there already. One that is given others refuses, and says what differs.

    Args:
        out: where the cohort shall be. A cohort that stands there is replaced; anything else is
            not.
        table: one row a candidate, in the cohort's order: nodule_id, patient_id, series_uid, x_mm,
            y_mm, z_mm, diameter_mm, hit, excluded, label, subset, and any other column.
        source: where the images come from, in words for the reader.
        simulated: whether the images are simulated.
        settings: plain values (JSON) that say how it was made.
        name: short name for tables and figures; the folder's by default.
        tables: file name -> table to lie beside, as LUNA-16 writes them: annotations.csv,
            annotations_excluded.csv, and seriesuids.csv, of one column and written without a
            header. Positions may be called x_mm or coordX. May be changed until the end of the
            `with` block. candidates.csv is made of `table`.
        progress: show a bar while checksums are taken.

    Attributes:
        done: (N,) bool, rows that have been put or left out, by this writer or by a killed one.
        report: plain values (JSON) for cohort.json, such as which scans were missing; may be
            filled until the end of the `with` block. Its `left_out` is `left_out`, unless set.

    Raises:
        InputError: a table without one of these columns, with an id twice, a label that is not 0
            or 1, or a position that is not finite; a place that is in use, or being written; an
            unfinished build of something else; no room.

    >>> import tempfile
    >>> from labkit.cohorts.cohort import Cohort
    >>> folder = Path(tempfile.mkdtemp()) / "tiny"
    >>> table = pd.DataFrame({
    ...     "nodule_id": ["c0000000", "c0000001"], "patient_id": "p", "series_uid": "1.2.3.4",
    ...     "x_mm": 1.5, "y_mm": 2.5, "z_mm": [3.5, 9.5], "diameter_mm": [6.0, None],
    ...     "hit": [0, -1], "excluded": 0, "label": [1, 0], "subset": 7})
    >>> with CandidateWriter(folder, table, source="doctest", simulated=True) as writer:
    ...     writer.put([1], np.full((1, 9, 76, 76), 255, np.uint8))
    ...     writer.put([0], np.zeros((1, 9, 76, 76), np.uint8))
    >>> cohort = Cohort.open(folder)
    >>> cohort.task, cohort.cubes, cohort.views[:, 0, 0, 0].tolist()
    ('luna16', None, [0, 255])
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        table: pd.DataFrame,
        *,
        source: str,
        simulated: bool,
        settings: Mapping[str, Any] | None = None,
        name: str = "",
        tables: Mapping[str, pd.DataFrame] | None = None,
        progress: bool = False,
    ) -> None:
        self.folder = Path(out)
        check_target(self.folder)
        self._table = _checked(self.folder, table)
        self.tables = dict(tables or {})
        self.report: dict[str, Any] = {}
        self.done = np.zeros(len(table), bool)
        self._left_out: dict[int, str] = {}
        self._progress = progress
        self._meta = {
            "format": _FORMAT,
            "name": name or self.folder.resolve().name,
            "source": source,
            "simulated": bool(simulated),
            "task": "luna16",
            "views": "uint8",
            "settings": dict(settings or {}),
        }
        json.dumps(self._meta, allow_nan=False)  # fail now, not after hours of building
        target = self.folder.resolve()
        self._unfinished = target.with_name(f".{target.name}.unfinished")
        self._owner = self._unfinished / "owner.json"
        self._journal = Journal(self._unfinished / "journal.jsonl")

    @property
    def views_file(self) -> Path:
        """The array under way, for other processes: `write_rows` into it, then `note` the rows."""
        return self._unfinished / "cohort" / _NAME

    def __enter__(self) -> CandidateWriter:
        try:
            self._begin()
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be written there ({error.strerror}); name a "
                             "folder on another disk, or of your own") from None  # fmt: skip
        return self

    def _begin(self) -> None:
        """Start anew, or go on where a killed writer was."""
        target = self.folder.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        clear_after_kill(target, f".{target.name}.partial-{platform.node()}-")
        _require_free(self.folder, self._owner)
        begun = {
            "builds": self._meta, "rows": len(self._table), "versions": versions(),
            "table": _fingerprint(self._table),
        }  # fmt: skip
        if not self.views_file.is_file():  # nothing there, or killed before or after its work
            require_room(target.parent, len(self._table), _ROW_BYTES)
            shutil.rmtree(self._unfinished, ignore_errors=True)
            self.views_file.parent.mkdir(parents=True)
            self._own()
            self._journal.begin(begun)
            begin = self.views_file.with_suffix(".new")
            npy.open_memmap(
                begin, mode="w+", dtype=np.uint8, shape=(len(self._table), *_candidate_writer_SHAPE)
            )
            begin.rename(self.views_file)  # whole, or not there
        else:
            self._journal.require_same(begun, self._unfinished)
            self._own()
            for entry in self._journal.entries():
                self.done[rows_of(entry.get("done", []))] = True
                self._left_out |= {int(k): v for k, v in entry.get("left_out", {}).items()}
            self.done[list(self._left_out)] = True
            require_room(target.parent, int((~self.done).sum()), _ROW_BYTES)

    def put(self, rows: ArrayLike, views: ArrayLike) -> None:
        """Write the views of some rows.

        Args:
            rows: (n,) row numbers of the table.
            views: (n, 9, 76, 76) uint8, as `extract.views_u8` gives them.

        Raises:
            InputError: views of another shape or type, or rows that the table does not have.
        """
        write_rows(self.views_file, self._known(rows), np.asarray(views))
        self.note(rows)

    def note(self, rows: ArrayLike) -> None:
        """Say that the views of some rows have been written by `write_rows`."""
        with self.views_file.open("r+b") as file:
            os.fsync(file.fileno())  # on disk before the journal says so, should the power fail
        self.done[self._known(rows)] = True
        self._journal.add_done(self._known(rows))

    def leave_out(self, reasons: Mapping[int, str]) -> None:
        """Leave rows out of the cohort.

        Args:
            reasons: row number -> why, in words.
        """
        known = {int(row): reason for row, reason in reasons.items()}
        self.done[self._known(list(known))] = True
        self._left_out |= known
        if known:
            self._journal.add({"left_out": {str(row): why for row, why in known.items()}})

    @property
    def left_out(self) -> dict[int, str]:
        """Row number -> why it is left out."""
        return dict(sorted(self._left_out.items()))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._finish()
            if error is None or not self.done.any():
                shutil.rmtree(self._unfinished, ignore_errors=True)
        finally:
            self._owner.unlink(missing_ok=True)

    def _known(self, rows: ArrayLike) -> NDArray[np.int64]:
        numbers = np.asarray(rows, dtype=np.int64).reshape(-1)
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(self._table):
            raise InputError(f"{self.folder}: rows {numbers.min()} to {numbers.max()}, but the "
                             f"table has rows 0 to {len(self._table) - 1}")  # fmt: skip
        return numbers

    def _own(self) -> None:
        process = psutil.Process()
        started = process.create_time()
        write_json(self._owner, {"host": platform.node(), "pid": process.pid, "started": started})

    def _finish(self) -> None:
        open_rows = int((~self.done).sum())
        if open_rows:
            raise InputError(f"{self.folder}: {open_rows} candidates were neither put nor left "
                             "out; the same call goes on with them")  # fmt: skip
        kept = np.setdiff1d(np.arange(len(self._table)), list(self._left_out))
        if not len(kept):
            shutil.rmtree(self._unfinished, ignore_errors=True)
            first = next(iter(self.left_out.values()))
            raise InputError(f"{self.folder}: no candidate could be used; the first: {first}")
        made = self.views_file.parent
        compact(self.views_file, kept, self._journal, self._progress)
        shorten(self.views_file, len(kept), _candidate_writer_SHAPE, "uint8")
        table = nodule_table(self._table.iloc[kept])
        table.to_csv(made / "nodules.csv", index=False)
        luna = table[list(_AS_LUNA_WRITES)].rename(columns=_AS_LUNA_WRITES)
        for name, beside in {_CANDIDATES: luna, **self.tables}.items():
            there = beside.rename(columns=_AXES)
            there.to_csv(made / name, index=False, header=name != _NO_HEADER)
        names = ("nodules.csv", _NAME, _CANDIDATES, *self.tables)
        total = sum((made / name).stat().st_size for name in names)
        with tqdm(total=total, desc="checksums", unit="B", unit_scale=True, leave=False,
                  disable=not self._progress) as bar:  # fmt: skip
            files = {name: record_of(made / name, bar.update) for name in names}
        ids = self._table["nodule_id"].to_numpy()
        left_out = {str(ids[row]): why for row, why in self.left_out.items()}
        about = {**self._meta, "n": len(kept), "report": {"left_out": left_out, **self.report}}
        write_json(made / "cohort.json", {**about, "versions": versions(), "files": files})
        check_target(self.folder)
        target = self.folder.resolve()
        aside = target.with_name(f".{target.name}.partial-{platform.node()}-{os.getpid()}-replaced")
        move_into_place(made, target, aside)


def _checked(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The table, when it can be that of a cohort of candidates."""
    missing = [column for column in _COLUMNS if column not in table]
    if missing:
        raise InputError(f"{folder}: the table of candidates has no column {', '.join(missing)}")
    if table.empty:
        raise InputError(f"{folder}: a cohort needs at least one candidate")
    twice = table["nodule_id"].duplicated()
    if twice.any():
        first = table["nodule_id"][twice].iloc[0]
        raise InputError(f"{folder}: candidate {first} comes twice; nodule_id must be unique")
    wrong = ~table["label"].isin((0, 1)).to_numpy(dtype=bool)
    wrong |= ~np.isfinite(table[["x_mm", "y_mm", "z_mm"]].to_numpy(dtype=float)).all(axis=1)
    if wrong.any():
        first = table["nodule_id"].iloc[int(np.argmax(wrong))]
        raise InputError(f"{folder}: candidate {first} needs a label of 0 or 1 and a finite "
                         "position x_mm, y_mm, z_mm")  # fmt: skip
    return table.reset_index(drop=True)


def _fingerprint(table: pd.DataFrame) -> str:
    """A checksum of the table's content, a second for half a million rows."""
    hashes = pd.util.hash_pandas_object(table, index=False).to_numpy()
    return hashlib.sha256(np.ascontiguousarray(hashes).tobytes()).hexdigest()


def _require_free(folder: Path, owner: Path) -> None:
    """Refuse an unfinished build that a living process is at."""
    if not owner.is_file():
        return
    who = read_json(owner, "an unfinished build")
    if who["host"] != platform.node():
        raise InputError(f"{folder}: process {who['pid']} on {who['host']} is building it; if that "
                         f"has ended, remove {owner} and try again")  # fmt: skip
    try:
        alive = abs(psutil.Process(who["pid"]).create_time() - who["started"]) < 1
    except psutil.Error:
        alive = False
    if alive:
        raise InputError(f"{folder}: process {who['pid']} is building it; wait for it to end")


# Before a build of LUNA-16 starts: which scans are there, and which candidates can be cut out.
#
# Also how many processes there is memory for, and how long they will take.


# What a process holds at its most: the voxels of a scan of 764 slices twice over while they are
# read, or once and the spline's coefficients of a part of them: 1.65 GB. Two at once and the one
# that starts them hold 3.8 GB with half a million candidates, code that they share counted once.
_PROCESS_BYTES = 1.8e9
_PROCESS_BYTES_WITH_LUNGS = 2.8e9  # 2.6 measured, while the lungs are segmented
# Measured by benchmarks/extraction.py; for the estimate before a build.
_SECONDS_A_SCAN, _SECONDS_A_CANDIDATE, _SECONDS_OF_LUNGS = 0.8, 0.005, 12.0


@dataclass(frozen=True)
class Plan:
    """What a build is going to do.

    Args:
        table: the rows to cut out, as `CandidateWriter` takes them, in the candidates' order.
        scans: the scans with a sound header, by series; those without candidates are among them.
        missing: series that a table names and that are not in the folder.
        failed: series -> what is wrong with its header.
        left_out: nodule_id -> why a candidate of a sound scan cannot be cut out.
        disagreeing: rows of the candidates whose own class is not that of the hit rule.
        given: candidates a series, in the file.
    """

    table: pd.DataFrame
    scans: Mapping[str, Scan]
    missing: tuple[str, ...]
    failed: Mapping[str, str]
    left_out: Mapping[str, str]
    disagreeing: pd.DataFrame
    given: Mapping[str, int]


def plan(
    folder: Path,
    candidates: pd.DataFrame,
    annotations: pd.DataFrame,
    excluded: pd.DataFrame | None,
    subsets: pd.DataFrame | None,
) -> Plan:
    """Read all headers and label all candidates; takes seconds.

    Args:
        folder: any folder tree with .mhd files.
        candidates: as `tables.read_candidates`.
        annotations: as `tables.read_annotations`.
        excluded: as `tables.read_excluded`.
        subsets: as `tables.read_subsets`; says which scans are meant, and no others are.

    Raises:
        InputError: no scan of the candidates is in the folder, or none can be used.
    """
    named = candidates[SERIES].astype(str)
    given = {str(uid): int(n) for uid, n in named.value_counts(sort=False).items()}
    meant = {*given, *annotations[SERIES].astype(str)}
    found = find(folder)
    if subsets is not None:
        official = dict(zip(subsets[SERIES], subsets["subset"].tolist(), strict=True))
        meant |= set(official)
        found = {uid: paths for uid, paths in found.items() if uid in official}
    else:
        official = {}
    scans, failed = _scans(found)
    if not set(found) & set(given):
        raise InputError(
            f"{folder}: none of the candidates' {len(given)} scans is among the {len(found)} .mhd "
            "files that count; name the folder above subset0, and the candidates of these scans"
        )
    table = labelled(candidates, annotations, excluded)
    table = table[table["series_uid"].isin(list(scans))]
    numbers = {uid: official.get(uid, scan.subset) for uid, scan in scans.items()}
    table = table.assign(subset=table["series_uid"].map(numbers).astype("int64"))
    left_out = _outside(table, scans)
    table = table[~table["nodule_id"].isin(list(left_out))].reset_index(drop=True)
    if table.empty:
        why = next(iter([*failed.values(), *left_out.values()]))
        raise InputError(f"{folder}: none of the candidates can be cut out; the first: {why}")
    rule = table.set_index("nodule_id")["label"]
    own = candidates["class"].set_axis(candidate_ids(len(candidates))).reindex(rule.index)
    return Plan(
        table=table,
        scans=scans,
        missing=tuple(sorted(meant - set(found))),
        failed=failed,
        left_out=left_out,
        disagreeing=table[(own != rule).to_numpy()],
        given=given,
    )


def without_subset(table: pd.DataFrame) -> list[str]:
    """A line on the scans that cross-validation by subset could not place, if there are any."""
    scans = table.drop_duplicates("series_uid")
    lost = int((scans["subset"] < 0).sum())
    if not lost:
        return []
    return [
        f"{lost} of {len(scans)} scans with candidates lie in no folder subset0 to subset9 and get "
        "subset -1, which is no fold to cross-validate by; give --subsets FILE (seriesuid,subset)"
    ]


def default_jobs(lungs: bool) -> int:
    """Processes: one a core, as far as there is the memory free that each may need; at least one.

    Args:
        lungs: whether the lungs are segmented.
    """
    room = int(psutil.virtual_memory().available // _needs(lungs))
    return max(1, min(cpu_count(), room))


def estimate(candidates: int, scans: int, rows: int, workers: int, lungs: bool) -> str:
    """A line on the time, the memory and the room on the disk that a build needs.

    Args:
        candidates: to cut out.
        scans: that they are in.
        rows: of the cohort, with those that are there already.
        workers: processes.
        lungs: whether the lungs are segmented.
    """
    a_scan = _SECONDS_A_SCAN + (_SECONDS_OF_LUNGS if lungs else 0)
    minutes = (scans * a_scan + candidates * _SECONDS_A_CANDIDATE) / workers / 60
    gigabytes = rows * 9 * VIEW_SIZE**2 / 1e9
    how_long = f"about {minutes:.0f} minutes" if minutes >= 2 else "a minute or two"
    return (
        f"{candidates} candidates of {scans} scans: {how_long} on {workers} "
        f"process{'es' if workers > 1 else ''} that take up to {_needs(lungs) / 1e9:.1f} GB of "
        f"memory{' each' if workers > 1 else ''}, {gigabytes:.1f} GB on disk; stopped, the same "
        "command goes on"
    )


def _needs(lungs: bool) -> float:
    return _PROCESS_BYTES_WITH_LUNGS if lungs else _PROCESS_BYTES


def _scans(found: Mapping[str, list[Path]]) -> tuple[dict[str, Scan], dict[str, str]]:
    scans, failed = {}, {}
    for uid, paths in found.items():
        if len(paths) > 1:
            failed[uid] = f"{paths[0]}: also in {paths[1].parent}; keep one of them"
            continue
        try:
            scans[uid] = read_header(paths[0])
        except InputError as error:
            failed[uid] = str(error)
    return scans, failed


def _outside(table: pd.DataFrame, scans: Mapping[str, Scan]) -> dict[str, str]:
    """nodule_id -> why, of candidates that are not within their scan."""
    left_out = {}
    for uid, rows in table.groupby("series_uid", sort=False):
        grid = scans[str(uid)].grid
        centers = rows[list(POSITION)].to_numpy(float)
        for k in np.flatnonzero(~within(grid, centers)):
            name = str(rows["nodule_id"].iloc[k])
            left_out[name] = outside(f"candidate {name}", centers[k], grid)
    return left_out


_SOURCE = (
    "LUNA-16 (Setio et al. 2017, CC BY 4.0): CT of LIDC-IDRI, The Cancer Imaging Archive, CC BY 3.0"
)
_NONE_EXCLUDED = (
    "no finding is excluded, because none was given: FROC will count marks on findings that fewer "
    "readers saw as false; give --excluded FILE"
)
_AT_ONCE = 256
_SHOWN = 10  # of scans or candidates that could not be used


@dataclass(frozen=True)
class LunaReport:
    """What became of each scan and each candidate.

    Args:
        folder: the cohort.
        scans: one row a scan that a table names or the folder holds: `series_uid`, `subset`,
            `candidates` (in the file), `built` (in the cohort), `status` ("built", "missing", or
            "failed" when it could not be read) and `reason`.
        left_out: nodule_id -> why, of candidates of scans that could be read.
        disagreeing: rows of the cohort's table whose class in the candidates file is not that of
            the hit rule; the cohort's label is the rule's.
        notes: what else a user of the cohort has to know, a line each.
    """

    folder: Path
    scans: pd.DataFrame
    left_out: Mapping[str, str]
    disagreeing: pd.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def problems(self) -> pd.DataFrame:
        """The rows of scans that are there, but could not be used."""
        return self.scans[self.scans["status"] == "failed"]

    def __str__(self) -> str:
        """A line with the counts, and one for each of the first scans and candidates that failed.

        `scans` and `left_out` have them all, and so has cohort.json.
        """
        count = self.scans["status"].value_counts()
        lines = [
            f"{self.folder}: {self.scans['built'].sum()} candidates of {count.get('built', 0)} "
            f"scans; {count.get('missing', 0)} scans missing, {count.get('failed', 0)} failed; "
            f"{len(self.left_out)} candidates left out"
        ]
        if len(self.disagreeing):
            first = self.disagreeing["nodule_id"].iloc[0]
            lines.append(
                f"{len(self.disagreeing)} candidates have another class in the candidates file "
                f"than the hit rule gives, the first {first}; the cohort has the rule's"
            )
        failed = [f"{row.series_uid}: {row.reason}" for row in self.problems.itertuples()]
        missing = self.scans.loc[self.scans["status"] == "missing", "series_uid"].tolist()
        lines += self.notes
        told = {"missing": missing, "failed": failed, "left out": list(self.left_out.values())}
        for what, each in told.items():
            lines += [f"{what}: {why}" for why in each[:_SHOWN]]
            if len(each) > _SHOWN:
                lines.append(f"{what}: {len(each) - _SHOWN} more, see {self.folder}/cohort.json")
        return "\n".join(lines)


def build_luna16(
    folder: Path | str,
    candidates: Path | str,
    out: Path | str,
    *,
    annotations: Path | str,
    excluded: Path | str | None = None,
    subsets: Path | str | None = None,
    lungs: bool = False,
    jobs: int | None = None,
    progress: bool = True,
) -> LunaReport:
    """Make a cohort of LUNA-16's candidates, or of any detector's over its scans.

    Scans are found by the names of their .mhd files, wherever they lie below the folder. One that
    is missing or damaged costs its own candidates: they are left out and told in the report and in
    cohort.json; its nodules stay in annotations.csv, and seriesuids.csv lists the scans that were
    there. A killed build goes on where it stopped, given the same arguments and the same scans,
    and gives the same bytes; so does any number of processes.

    Args:
        folder: any folder tree of .mhd and .raw files.
        candidates: candidates.csv or candidates_V2.csv.
        out: the cohort to make; a cohort that is there is replaced.
        annotations: annotations.csv, the nodules. A candidate is positive when it hits one
            (`hits.label`).
        excluded: annotations_excluded.csv; candidates that hit one of them are marked. Without it
            the cohort's own has no rows, and FROC counts every mark that hits no nodule.
        subsets: table of `seriesuid` and `subset`: the folds, and which scans are meant. Without
            it every .mhd file is a scan of the challenge, and its subset is the number in the name
            of the folder above it, subset0 to subset9; -1 where there is none, which is told.
        lungs: make chest wall of everything beyond the lungs and 10 mm around them (paper, section
            III-A); about 10 s a scan. A candidate beyond them is left out.
        jobs: processes. Memory is of each: 1.7 GB for the largest scans (764 slices), 2.6 GB with
            lungs, whatever the number of candidates; and 0.8 GB of the process that starts them
            for LUNA-16's 551,065. By default one a core, as far as 1.8 GB (2.8 GB with lungs) are
            free for each: 3.8 GB in all on two cores.
        progress: say how long it will take, and show a bar.

    Raises:
        InputError: a table that cannot be read; no scan, or none that can be used; no room on the
            disk; less than one job; a process killed; an unfinished build of something else.
    """
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs is {jobs}; give 1 or more, or None for all cores")
    check_target(Path(out))
    findings = {"annotations.csv": luna16.read_annotations(annotations)}
    left = luna16.read_excluded(excluded) if excluded is not None else None
    # Judging wants the table, if only to see that no finding is excluded.
    none = findings["annotations.csv"].iloc[:0]
    findings["annotations_excluded.csv"] = left if left is not None else none
    marks = luna16.read_candidates(candidates)
    if marks.empty:
        raise InputError(f"{candidates}: a header and no candidate below it; write it again")
    what = plan(
        Path(folder), marks, findings["annotations.csv"], left,
        luna16.read_subsets(subsets) if subsets is not None else None,
    )  # fmt: skip
    given = {
        "candidates": candidates, "annotations": annotations, "excluded": excluded,
        "subsets": subsets,
    }  # fmt: skip
    settings: dict[str, Any] = {
        name: {"file": Path(file).name, "sha256": sha256(Path(file))}
        for name, file in given.items() if file is not None
    }  # fmt: skip
    settings |= {"lungs": lungs, "spacing_mm": 1.0, "window_hu": [LOW_HU, HIGH_HU]}
    workers = jobs if jobs is not None else default_jobs(lungs)
    notes = [*without_subset(what.table), *([] if left is not None else [_NONE_EXCLUDED])]
    if progress and notes:
        print(*notes, sep="\n")
    with CandidateWriter(
        out, what.table, source=_SOURCE, simulated=False, settings=settings, progress=progress,
        tables={**findings, "seriesuids.csv": pd.DataFrame()},
    ) as writer:  # fmt: skip
        with told_if_killed(workers):
            _cut_out(writer, what, workers, lungs, progress)
        report = _report(Path(out), what, writer.left_out, notes)
        there = report.scans.loc[report.scans["status"] == "built", ["series_uid"]]
        writer.tables["seriesuids.csv"] = there
        writer.report = {
            "missing_scans": list(what.missing),
            "failed_scans": dict(report.problems[["series_uid", "reason"]].itertuples(index=False)),
            "left_out": dict(report.left_out),
            "class_disagrees": report.disagreeing["nodule_id"].tolist(),
            "notes": notes,
        }
    return report


def _cut_out(
    writer: CandidateWriter, what: Plan, workers: int, lungs: bool, progress: bool
) -> None:
    """Write the views of all candidates that are not there yet."""
    ids = what.table["nodule_id"].to_numpy()
    centers = what.table[list(luna16.POSITION)].to_numpy(float)
    left = np.flatnonzero(~writer.done)
    by_scan = {
        str(uid): left[rows]
        for uid, rows in what.table["series_uid"].iloc[left].groupby(
            what.table["series_uid"].iloc[left].to_numpy(), sort=False).indices.items()
    }  # fmt: skip
    if progress and len(left):
        print(estimate(len(left), len(by_scan), len(ids), workers, lungs))
    tasks = (
        delayed(_cut_scan)(what.scans[uid], rows, ids[rows], centers[rows], lungs,
                           writer.views_file)
        for uid, rows in by_scan.items()
    )  # fmt: skip
    with tqdm(total=len(ids), initial=len(ids) - len(left), desc="cutting out",
              unit="candidate", disable=not progress) as bar:  # fmt: skip
        # Finished scans are noted at once, whichever they are.
        for rows, left_out in Parallel(workers, return_as="generator_unordered")(tasks):
            writer.leave_out(left_out)
            writer.note(np.setdiff1d(rows, list(left_out)))
            bar.update(len(rows))


def _cut_scan(
    scan: Scan,
    rows: NDArray[np.int64],
    ids: NDArray,
    centers: NDArray[np.float64],
    lungs: bool,
    file: Path,
) -> tuple[NDArray[np.int64], dict[int, str]]:
    """Write the views of one scan's candidates; its rows, and why some of them are left out."""
    left_out: dict[int, str] = {}
    # One thread of BLAS a process: more would fight for the cores, and their number could change
    # the last bit of a sum and so the bytes of the cohort.
    with threadpool_limits(limits=1):
        try:
            volume = read(scan)
            # One lung will do: a candidate in one that was missed is told below.
            kept = dilate(segment(volume, one_lung=True), volume) if lungs else None
        except (InputError, OSError) as error:
            return rows, dict.fromkeys(rows.tolist(), f"{scan.series_uid}: {error}")
        if kept is not None:
            index = np.rint(volume.index_from_world(centers)).astype(int)
            seen = kept[tuple(np.clip(index, 0, np.array(kept.shape) - 1).T)]
            for k in np.flatnonzero(~seen):
                why = f"candidate {ids[k]} is beyond the lungs found; build without lungs"
                left_out[int(rows[k])] = why
            rows_seen, centers = rows[seen], centers[seen]
        else:
            rows_seen = rows
        numbers: list[int] = []
        views = np.empty((min(_AT_ONCE, len(rows_seen)), 9, VIEW_SIZE, VIEW_SIZE), np.uint8)
        for k, images in each_u8(volume, centers, kept):
            views[len(numbers)] = images
            numbers.append(int(rows_seen[k]))
            if len(numbers) == len(views):
                write_rows(file, np.array(numbers), views)
                numbers = []
        if numbers:
            write_rows(file, np.array(numbers), views[: len(numbers)])
    return rows, left_out


def _report(out: Path, what: Plan, not_put: Mapping[int, str], notes: list[str]) -> LunaReport:
    """What became of all, also of what a killed run found out."""
    table, left_out, failed = what.table, dict(what.left_out), dict(what.failed)
    uids, ids = table["series_uid"].to_numpy(), table["nodule_id"].to_numpy()
    for row, why in not_put.items():
        uid, _, reason = why.partition(": ")
        if uid == uids[row]:
            failed[uid] = reason
        else:
            left_out[str(ids[row])] = why
    built = table.drop(index=list(not_put))["series_uid"].value_counts()
    scans = []
    for uid in sorted({*what.scans, *what.missing, *failed, *what.given}):
        scan = what.scans.get(uid)
        status = "failed" if uid in failed else "built" if scan else "missing"
        scans.append((
            uid, scan.subset if scan else -1, what.given.get(uid, 0), int(built.get(uid, 0)),
            status, failed.get(uid, "not in the folder" if scan is None else ""),
        ))  # fmt: skip
    columns = ["series_uid", "subset", "candidates", "built", "status", "reason"]
    disagreeing = what.disagreeing.drop(index=list(not_put), errors="ignore")
    of_scans = pd.DataFrame(scans, columns=columns)
    return LunaReport(out, of_scans, left_out, disagreeing, tuple(notes))
