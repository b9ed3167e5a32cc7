"""A cohort: a folder with one row and nine views a nodule or candidate, all that training needs.

    nodules.csv   the table, one row a nodule
    views.npy     (N, 9, 76, 76) int16 HU: 64 pixels and room to shift by 6
    cubes.npy     (N, 64, 64, 64) int16 HU, axes (z, y, x)
    cohort.json   source, settings, versions, checksums, and whether the images are simulated

Row i of the table is row i of both arrays. The arrays are memory-mapped, never loaded whole.

A cohort of LUNA-16's candidates (`labkit build luna16`) has half a million rows. Its views are
uint8 v for HU = -1000 + 1400 v / 255, it has no cubes, and beside the table lie LUNA-16's own
(candidates.csv, annotations.csv, annotations_excluded.csv, seriesuids.csv).
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy
from numpy.lib import format as npy
from numpy.typing import ArrayLike, NDArray
from tqdm.auto import tqdm

import labkit
from labkit.annotations.lidc import MEAN_RATINGS
from labkit.errors import InputError
from labkit.io import clear_after_kill, move_into_place, read_json, record_of, sha256, write_json

# The files of a cohort one by one: how they are written, read back and checked.


VIEW_SIZE = 76
CUBE_SIZE = 64
ROW_SHAPES = {
    "views.npy": (9, VIEW_SIZE, VIEW_SIZE),
    "cubes.npy": (CUBE_SIZE, CUBE_SIZE, CUBE_SIZE),
}
FILES = ("nodules.csv", *ROW_SHAPES)
# Format 2 says what its files are: uint8 views, no cubes, tables beside.
FORMATS = (1, 2)
_NEEDED = ("nodules.csv", "views.npy")
_TEXT = ("nodule_id", "patient_id", "series_uid")
_WHOLE = ("readers", "label")
# Columns that every cohort has, first and in this order; a source without one leaves it missing.
COLUMNS = (
    *_TEXT,
    "center_row_px",
    "center_col_px",
    "center_z_mm",
    "diameter_mm",
    "readers",
    "malignancy_median",
    *MEAN_RATINGS,
    "label",
)


def as_int16(images: ArrayLike, shape: tuple[int, ...], what: str) -> NDArray[np.int16]:
    """HU rounded to int16, saturating at its limits; `what` names them in an error."""
    hu = np.asarray(images)
    if hu.shape != shape:
        raise InputError(f"{what}: shape {hu.shape}, but a cohort stores {shape}")
    if hu.dtype == np.int16:
        return hu
    if not np.isfinite(hu).all():
        raise InputError(f"{what}: values that are not finite; check the scan they came from")
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(hu), limits.min, limits.max).astype(np.int16)


def shorten(path: Path, n: int, row_shape: tuple[int, ...], kind: str = "int16") -> None:
    """Cut a .npy file to its first n rows. NumPy's header keeps its length as the shape shrinks."""
    descr = {"int16": "<i2", "uint8": "|u1"}[kind]
    with path.open("r+b") as file:
        version = npy.read_magic(file)
        npy.read_array_header_1_0(file)
        start = file.tell()
        file.seek(0)
        header = {"descr": descr, "fortran_order": False, "shape": (n, *row_shape)}
        npy.write_array_header_1_0(file, header)
        if file.tell() != start or version != (1, 0):
            raise RuntimeError(f"{path}: NumPy changed its header's layout; rows would shift")
        file.truncate(start + np.dtype(descr).itemsize * n * int(np.prod(row_shape)))


def nodule_table(rows: pd.DataFrame | Iterable[Mapping[Any, Any]]) -> pd.DataFrame:
    """The table of the rows: `COLUMNS` first, then the others; whole numbers nullable."""
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    others = [c for c in table.columns if c not in COLUMNS]
    table = table.reindex(columns=[*COLUMNS, *others])
    for column in _WHOLE:
        table[column] = table[column].astype("Float64").astype("Int64")
    return table


def read_table(path: Path) -> pd.DataFrame:
    """Read nodules.csv with the types it was written with."""
    # An empty id stays an empty string, and a patient called "NA" stays a patient.
    header = pd.read_csv(path, nrows=0).columns
    missing = [c for c in COLUMNS if c not in header]
    if missing:
        raise InputError(f"{path}: has no column {', '.join(missing)}; build the cohort again")
    table = pd.read_csv(
        path,
        dtype={**dict.fromkeys(_TEXT, str), **dict.fromkeys(_WHOLE, "Int64")},
        keep_default_na=False,
        na_values={c: [""] for c in header if c not in _TEXT},
    )
    if table["nodule_id"].duplicated().any():
        raise InputError(f"{path}: a nodule_id comes twice; build the cohort again")
    return table


def open_array(path: Path, n: int, kind: str = "int16") -> NDArray[Any]:
    """Memory-map an array of a cohort of n nodules; `kind` is "int16" or "uint8"."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: not readable ({error}); build the cohort again") from None
    if array.shape != (n, *ROW_SHAPES[path.name]) or array.dtype.name != kind:
        raise InputError(
            f"{path}: {array.dtype} of shape {array.shape}, but cohort.json says {n} nodules "
            f"and {kind}; build the cohort again"
        )
    return array


def names_of(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """The files of a cohort besides cohort.json, by what cohort.json says."""
    files = meta.get("files")
    if meta.get("format") == 1 or not isinstance(files, dict):
        return FILES
    # Nothing outside the folder, whatever a file from elsewhere may say.
    others = [name for name in files if name not in _NEEDED and Path(name).name == name]
    return (*_NEEDED, *others)


def check_size(path: Path, meta: Mapping[str, Any]) -> None:
    """Refuse a file of another length than cohort.json has for it."""
    expected = _recorded(path, meta, "bytes")
    size = path.stat().st_size
    if size != expected:
        raise InputError(
            f"{path}: {size} bytes instead of {expected}, truncated or changed since the cohort "
            "was made; build it again"
        )


def check_sum(
    path: Path, meta: Mapping[str, Any], on_bytes: Callable[[int], object] | None = None
) -> None:
    """Refuse a file whose content is not what cohort.json has the checksum of."""
    expected = _recorded(path, meta, "sha256")
    if sha256(path, on_bytes) != expected:
        raise InputError(
            f"{path}: changed since the cohort was made (its checksum differs); build it again"
        )


def _recorded(path: Path, meta: Mapping[str, Any], what: str) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: missing; build the cohort again")
    try:
        return meta["files"][path.name][what]
    except (KeyError, TypeError):
        raise InputError(
            f"{path.parent / 'cohort.json'}: does not know {path.name}; build the cohort again"
        ) from None


def versions() -> dict[str, str]:
    """What a cohort was made with."""
    return {
        "labkit": labkit.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "pandas": pd.__version__,
    }


def check_target(folder: Path) -> None:
    """Refuse a place where a new cohort would destroy something that is not a cohort.

    Raises:
        InputError: the place is a file, or a folder with other things in it.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a new folder for the cohort")
    present = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    others = sorted(present)
    if "cohort.json" in present:
        others = sorted(present - {*FILES, *_listed(folder), "cohort.json"})
    if others:
        raise InputError(
            f"{folder}: holds {others[0]}, which is no part of a cohort; name a new folder"
        )


def _listed(folder: Path) -> tuple[str, ...]:
    """The files that a folder's cohort.json lists."""
    try:
        meta = read_json(folder / "cohort.json", "a cohort")
    except InputError:
        return ()
    return names_of(meta) if isinstance(meta, dict) else ()


def require_room(parent: Path, n: int, row_bytes: int | None = None) -> None:
    """Refuse a disk without room for n more nodules of a cohort."""
    # Writing a mapped file on a full disk kills the process; better to know before.
    if row_bytes is None:
        row_bytes = sum(2 * int(np.prod(shape)) for shape in ROW_SHAPES.values())
    needed = n * row_bytes
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise InputError(
            f"{parent}: {n} nodules need {needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are free; "
            "make room, or name a folder on another disk"
        )


# Writing a cohort row by row; see `labkit.cohorts.cohort`.


FORMAT = 1


class CohortWriter:
    """Writes a cohort row by row; it appears in its place whole, or not at all.

    The rows go to a hidden folder beside the target, which is renamed when the `with` block ends
    well. An error or a kill leaves whatever stood at the target as it was. A cohort that stands
    there is replaced; anything else is not.

    Args:
        folder: where the cohort shall be.
        n: the most rows that will come. Fewer are fine, none is an error.
        source: where the images come from, in words for the reader.
        simulated: whether the images are simulated.
        settings: plain values (JSON) that say how it was made.
        name: short name for tables and figures; the folder's by default.

    Raises:
        InputError: the target is in use for something else, or nothing was written.

    >>> import tempfile
    >>> from labkit.cohorts.cohort import Cohort
    >>> folder = Path(tempfile.mkdtemp()) / "tiny"
    >>> with CohortWriter(folder, 1, source="doctest", simulated=True) as writer:
    ...     writer.add({"nodule_id": "n1", "patient_id": "p1", "label": 1},
    ...                cube=np.zeros((64, 64, 64)), views=np.full((9, 76, 76), -999.6))
    >>> cohort = Cohort.open(folder)
    >>> len(cohort), cohort.labelled.tolist(), int(cohort.views.max())
    (1, [0], -1000)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        n: int,
        *,
        source: str,
        simulated: bool,
        settings: Mapping[str, Any] | None = None,
        name: str = "",
    ) -> None:
        self.folder = Path(folder)
        if n < 1:
            raise InputError(f"{self.folder}: a cohort needs at least one nodule, not {n}")
        check_target(self.folder)
        self._n = n
        self._meta = {
            "format": FORMAT,
            "name": name or self.folder.resolve().name,
            "source": source,
            "simulated": bool(simulated),
            "settings": dict(settings or {}),
        }
        json.dumps(self._meta, allow_nan=False)  # fail now, not after hours of building
        self._rows: list[dict[str, Any]] = []
        self._seen: set[str] = set()
        self._arrays: dict[str, np.memmap] = {}
        self._partial = Path()

    def __enter__(self) -> CohortWriter:
        target = self.folder.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        require_room(target.parent, self._n)
        prefix = f".{target.name}.partial-{platform.node()}-"
        clear_after_kill(target, prefix)
        self._partial = target.parent / f"{prefix}{os.getpid()}"
        try:
            self._partial.mkdir()
        except FileExistsError:
            raise InputError(f"{self.folder}: this process is already writing it") from None
        for name, shape in ROW_SHAPES.items():
            self._arrays[name] = npy.open_memmap(
                self._partial / name, mode="w+", dtype=np.int16, shape=(self._n, *shape)
            )
        return self

    def add(self, nodule: Mapping[Any, Any], cube: ArrayLike, views: ArrayLike) -> None:
        """Append one nodule: a mapping with `nodule_id`, `patient_id` and more, and its images.

        Args:
            nodule: the row; a pandas Series will do.
            cube: (64, 64, 64) HU, axes (z, y, x).
            views: (9, 76, 76) HU. HU are rounded, and saturate at the limits of int16.

        Raises:
            InputError: more rows than promised, an id that is missing or was there before, a
                label that is not 0, 1 or missing, or images of a wrong shape or not finite.
        """
        row = {str(key): value for key, value in nodule.items()}
        who = f"{self.folder}: nodule {row.get('nodule_id', '(no nodule_id)')}"
        for key in ("nodule_id", "patient_id"):
            if pd.isna(row.get(key)) or not str(row[key]):
                raise InputError(f"{who}: has no {key}; every row needs one")
        if str(row["nodule_id"]) in self._seen:
            raise InputError(f"{who}: comes twice; nodule_id must be unique")
        label = row.get("label")
        if not pd.isna(label) and label not in (0, 1):
            raise InputError(f"{who}: label {label!r} must be 1, 0 or missing")
        if len(self._rows) == self._n:
            raise InputError(f"{who}: only {self._n} nodules were announced")
        stored = {
            name: as_int16(images, ROW_SHAPES[name], f"{who}: {name.removesuffix('.npy')}")
            for name, images in (("views.npy", views), ("cubes.npy", cube))
        }
        for name, images in stored.items():
            self._arrays[name][len(self._rows)] = images
        self._rows.append(row)
        self._seen.add(str(row["nodule_id"]))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            for array in self._arrays.values():
                array.flush()
            self._arrays.clear()  # Windows renames no folder while a file in it is mapped
            if error is None:
                self._finish()
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)

    def _finish(self) -> None:
        n = len(self._rows)
        if n == 0:
            raise InputError(f"{self.folder}: no nodule was added; nothing was written")
        for name, shape in ROW_SHAPES.items():
            shorten(self._partial / name, n, shape)
        nodule_table(self._rows).to_csv(self._partial / "nodules.csv", index=False)
        files = {name: record_of(self._partial / name) for name in FILES}
        write_json(
            self._partial / "cohort.json",
            {**self._meta, "n": n, "versions": versions(), "files": files},
        )
        check_target(self.folder)
        aside = self._partial.with_name(self._partial.name + "-replaced")
        move_into_place(self._partial, self.folder.resolve(), aside)


_KEYS = {"format", "name", "source", "simulated", "settings", "n", "versions", "files"}
Task = Literal["malignancy", "luna16"]


@dataclass(frozen=True)
class Cohort:
    """Nodules with their images. Get one by `Cohort.open(folder)`.

    Args:
        folder: where it lies.
        nodules: the table of N nodules or candidates, with at least `COLUMNS`; index 0..N-1.
        views: (N, 9, 76, 76) in the order of `imaging.views.PLANES`: int16 HU, or uint8 v for
            HU = -1000 + 1400 v / 255.
        cubes: (N, 64, 64, 64) int16 HU, axes (z, y, x); None where none were kept.
        meta: what cohort.json says.

    Raises:
        InputError: table and arrays do not have the same number of rows.
    """

    folder: Path
    nodules: pd.DataFrame
    views: NDArray[Any]
    cubes: NDArray[np.int16] | None
    meta: Mapping[str, Any]

    def __post_init__(self) -> None:
        cubes = len(self.nodules) if self.cubes is None else len(self.cubes)
        if not len(self.nodules) == len(self.views) == cubes:
            raise InputError(
                f"{self.folder}: {len(self.nodules)} nodules, {len(self.views)} sets of views and "
                f"{cubes} cubes do not belong together; build the cohort again"
            )

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Cohort:
        """Open a cohort: read the table, memory-map the arrays.

        File sizes are checked, and the table's checksum, since rows that were sorted or edited
        would no longer stand beside their images. `verify` checks every byte.

        Raises:
            InputError: no cohort there, or a part that is missing, truncated or changed.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; make a cohort with `labkit build`")
        meta = read_json(folder / "cohort.json", "a cohort")
        known = isinstance(meta, dict) and meta.get("format") in FORMATS and set(meta) >= _KEYS
        if not known:
            formats = " or ".join(map(str, FORMATS))
            raise InputError(
                f"{folder / 'cohort.json'}: not a cohort of format {formats}; build it again "
                "with this version of labkit"
            )
        names = names_of(meta)
        for name in names:
            check_size(folder / name, meta)
        check_sum(folder / "nodules.csv", meta)
        has_cubes = "cubes.npy" in names
        return cls(
            folder,
            read_table(folder / "nodules.csv"),
            open_array(folder / "views.npy", meta["n"], meta.get("views", "int16")),
            open_array(folder / "cubes.npy", meta["n"]) if has_cubes else None,
            meta,
        )

    def __len__(self) -> int:
        return len(self.nodules)

    @property
    def name(self) -> str:
        """Short name for tables and figures."""
        return str(self.meta["name"])

    @property
    def task(self) -> Task:
        """What a label of 1 means: "malignancy", or "luna16": a nodule and not something else."""
        return "luna16" if self.meta.get("task") == "luna16" else "malignancy"

    @property
    def simulated(self) -> bool:
        """Whether the images are simulated; what is shown from them has to say so."""
        return bool(self.meta["simulated"])

    @property
    def identity(self) -> dict[str, Any]:
        """What it is, for the record of a run or a result: name, kind, counts, checksums."""
        return {
            "name": self.name,
            "simulated": self.simulated,
            "nodules": len(self),
            "labelled": len(self.labelled),
            "sha256": {name: f["sha256"] for name, f in self.meta["files"].items()},
        }

    @property
    def labelled(self) -> NDArray[np.int64]:
        """Row numbers of the nodules that have a label; those of uncertain malignancy have none."""
        return np.flatnonzero(self.nodules["label"].notna().to_numpy()).astype(np.int64)

    def require_cubes(self) -> NDArray[np.int16]:
        """The cubes, for what cannot do without.

        Raises:
            InputError: the cohort has none.
        """
        if self.cubes is None:
            raise InputError(
                f"{self.folder}: a cohort of views alone, without cubes, which this needs; take "
                "one that `labkit build` made of lidc, cubes or simulated"
            )
        return self.cubes

    def verify(self, progress: bool = True) -> None:
        """Compare every file with the checksum taken when the cohort was made.

        Args:
            progress: show a bar; every byte is read, which takes a minute for 28 GB.

        Raises:
            InputError: a file that is not what was written.
        """
        names = names_of(self.meta)
        total = sum((self.folder / name).stat().st_size for name in names)
        with tqdm(
            total=total, desc="verifying", unit="B", unit_scale=True, leave=False,
            disable=not progress,
        ) as bar:  # fmt: skip
            for name in names:
                check_sum(self.folder / name, self.meta, bar.update)
