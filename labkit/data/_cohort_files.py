"""The files of a cohort one by one: how they are written, read back and checked."""

from __future__ import annotations

import hashlib
import platform
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import scipy
from numpy.lib import format as npy
from numpy.typing import ArrayLike, NDArray

import labkit
from labkit.data.lidc import MEAN_RATINGS
from labkit.errors import InputError
from labkit.files import read_json

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


def sha256(path: Path, on_bytes: Callable[[int], object] | None = None) -> str:
    """Checksum of a file, as hexadecimal text; `on_bytes` is told how many were read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            if on_bytes is not None:
                on_bytes(len(block))
    return digest.hexdigest()


def record_of(path: Path, on_bytes: Callable[[int], object] | None = None) -> dict[str, Any]:
    """What cohort.json says of a file: its length and its checksum."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path, on_bytes)}


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


def clear_after_kill(target: Path, prefix: str) -> None:
    """Remove what killed runs left beside the target; put back a cohort they had moved aside."""
    for left in target.parent.iterdir():
        pid, _, kind = left.name.removeprefix(prefix).partition("-")
        if not left.name.startswith(prefix) or not pid.isdigit() or psutil.pid_exists(int(pid)):
            continue
        if kind == "replaced" and not target.exists():
            left.rename(target)
        else:
            shutil.rmtree(left)


def move_into_place(made: Path, target: Path, aside: Path) -> None:
    """Put a finished folder where it belongs; what stood there is moved aside, then removed.

    Args:
        made: the finished folder, on the same disk.
        target: where it shall be.
        aside: a name for what stands there until it is removed; `clear_after_kill` has to know it.
    """
    if target.exists():
        target.rename(aside)
    made.rename(target)
    shutil.rmtree(aside, ignore_errors=True)
