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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy
from numpy.lib import format as npy
from numpy.typing import ArrayLike, NDArray
from tqdm.auto import tqdm

import labkit
from labkit.annotations.lidc import MEAN_RATINGS, UNCERTAIN
from labkit.annotations.luna16 import POSITION
from labkit.errors import InputError, require_known
from labkit.imaging.planes import PLANES
from labkit.io import read_json, require_ids, require_own_folder, sha256, whole_folder, write_json

VIEW_SIZE = 76
CUBE_SIZE = 64
VIEWS_SHAPE = (len(PLANES), VIEW_SIZE, VIEW_SIZE)
_SHAPES = {"views.npy": VIEWS_SHAPE, "cubes.npy": (CUBE_SIZE, CUBE_SIZE, CUBE_SIZE)}
_FILES = ("nodules.csv", *_SHAPES)
_TEXT = ("nodule_id", "patient_id", "series_uid")
_WHOLE = ("readers", "label")
_NUMBERS = (*POSITION, "hit", "excluded", "subset", "score", "radius_mm")  # of candidates
# Columns that every cohort has, first and in this order; a source without one leaves it missing.
COLUMNS = (
    *_TEXT, "center_row_px", "center_col_px", "center_z_mm", "diameter_mm", "readers",
    "malignancy_median", *MEAN_RATINGS, "label",
)  # fmt: skip
# Format 1 holds nodules with cubes; format 2 says what its files are, as of candidates.
_KEYS = {"format", "name", "source", "simulated", "settings", "n", "versions", "files"}
Task = Literal["malignancy", "luna16"]


@dataclass(frozen=True)
class Cohort:
    """Nodules with their images. Get one by `Cohort.open(folder)`."""

    folder: Path
    nodules: pd.DataFrame  # N nodules or candidates, with at least `COLUMNS`; index 0..N-1
    # (N, 9, 76, 76) in the order of `imaging.views.PLANES`: int16 HU, or uint8 v for
    # HU = -1000 + 1400 v / 255
    views: NDArray[Any]
    cubes: NDArray[np.int16] | None  # (N, 64, 64, 64) HU, axes (z, y, x); None where none were kept
    meta: Mapping[str, Any]  # what cohort.json says

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
        if not isinstance(meta, dict) or meta.get("format") not in (1, 2) or not set(meta) >= _KEYS:
            raise InputError(f"{folder / 'cohort.json'}: not a cohort of format 1 or 2; build it "
                             "again with this version of labkit")  # fmt: skip
        names = _files_of(meta)
        for name in names:
            _check_file(folder / name, meta, checksum=name == "nodules.csv")
        table = _read_table(folder / "nodules.csv", meta["n"])
        views = _open_array(folder / "views.npy", meta["n"], meta.get("views", "int16"))
        cubes = None
        if "cubes.npy" in names:
            cubes = _open_array(folder / "cubes.npy", meta["n"], "int16")
        return cls(folder, table, views, cubes, meta)

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
            "name": self.name, "simulated": self.simulated, "nodules": len(self),
            "labelled": len(self.labelled),
            "sha256": {name: f["sha256"] for name, f in self.meta["files"].items()},
        }  # fmt: skip

    @property
    def labelled(self) -> NDArray[np.int64]:
        """Row numbers of the nodules that have a label; those of uncertain malignancy have none."""
        return np.flatnonzero(self.nodules["label"].notna().to_numpy()).astype(np.int64)

    def require_cubes(self) -> NDArray[np.int16]:
        """Return the cubes, for what cannot do without. InputError: the cohort has none."""
        if self.cubes is None:
            raise InputError(
                f"{self.folder}: a cohort of views alone, without cubes, which this needs; take "
                "one that `labkit build` made of lidc, cubes or simulated"
            )
        return self.cubes

    def verify(self) -> None:
        """Compare every byte with the checksums taken when the cohort was made.

        Raises:
            InputError: a file that is not what was written.
        """
        for name in _files_of(self.meta):
            _check_file(self.folder / name, self.meta, checksum=True)


@dataclass(frozen=True)
class BuildReport:
    """What became of each scan that a build was asked for."""

    folder: Path  # the cohort
    # One row a scan: `series_uid`, `built` (rows in the cohort), `status` ("built", "missing", or
    # "failed" when it could not be used, or not all of it) and `reason`. Of LIDC-IDRI also
    # `patient_id` and `nodules` (under the rule); of LUNA-16 `subset` and `candidates` (in the
    # file), of every scan that a table names or the folder holds.
    scans: pd.DataFrame
    notes: Sequence[str] = ()  # what else a user of the cohort has to know, a line each
    left_out: Mapping[str, str] = field(default_factory=dict)  # candidates of readable scans -> why

    @property
    def problems(self) -> pd.DataFrame:
        """The rows of scans that are there, but could not be used, or not all of them."""
        return self.scans[self.scans["status"] == "failed"]

    def __str__(self) -> str:
        """Tell the counts in a line, and each scan or candidate that failed in one more.

        Of candidates the first ten of each kind are told; cohort.json has them all.
        """
        of_candidates, built = "candidates" in self.scans, self.scans["built"]
        what, with_any = ("candidates", self.scans["status"] == "built") if of_candidates else (
            "nodules", built > 0
        )  # fmt: skip
        absent = self.scans.loc[self.scans["status"] == "missing", "series_uid"].tolist()
        reasons = [f"{row.series_uid}: {row.reason}" for row in self.problems.itertuples()]
        line = (
            f"{self.folder}: {built.sum()} {what} of {with_any.sum()} scans; "
            f"{len(absent)} scans missing, {len(reasons)} failed"
        )
        if not of_candidates:
            return "\n".join([line, *(f"failed: {reason}" for reason in reasons), *self.notes])
        lines = [f"{line}; {len(self.left_out)} candidates left out", *self.notes]
        told = {"missing": absent, "failed": reasons, "left out": list(self.left_out.values())}
        for kind, each in told.items():
            lines += [f"{kind}: {why}" for why in each[:10]]
            if len(each) > 10:
                lines.append(f"{kind}: {len(each) - 10} more, see {self.folder}/cohort.json")
        return "\n".join(lines)


@contextmanager
def write_cohort(
    folder: str | os.PathLike[str], n: int, *, source: str, simulated: bool,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[Callable[[Mapping[Any, Any], ArrayLike, ArrayLike], None]]:  # fmt: skip
    """Write a cohort nodule by nodule; it appears in its place whole, or not at all.

    An error or a kill leaves whatever stood at the target as it was. A cohort that stands there
    is replaced; anything else is not.

    Args:
        folder: where the cohort shall be.
        n: the most nodules that will come. Fewer are fine, none is an error.
        source: where the images come from, in words for the reader.
        simulated: whether the images are simulated.
        settings: plain values (JSON) that say how it was made.

    Yields:
        add(nodule, cube, views): appends a nodule, a mapping with `nodule_id`, `patient_id` and
        more, with its (64, 64, 64) cube, axes (z, y, x), and (9, 76, 76) views, HU, which are
        rounded, and saturate at the limits of int16. An InputError refuses more nodules than
        promised, an id that is missing or doubled, a label that is not 0, 1 or missing, and images
        of a wrong shape or not finite.

    Raises:
        InputError: the target is in use for something else, no room, or nothing was written.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "tiny"
    >>> with write_cohort(folder, 1, source="doctest", simulated=True) as add:
    ...     add({"nodule_id": "n1", "patient_id": "p1", "label": 1},
    ...         cube=np.zeros((64, 64, 64)), views=np.full((9, 76, 76), -999.6))
    >>> cohort = Cohort.open(folder)
    >>> len(cohort), cohort.labelled.tolist(), int(cohort.views.max())
    (1, [0], -1000)
    """
    folder = Path(folder)
    if n < 1:
        raise InputError(f"{folder}: a cohort needs at least one nodule, not {n}")
    meta = {
        "format": 1, "name": folder.resolve().name, "source": source,
        "simulated": bool(simulated), "settings": dict(settings or {}),
    }  # fmt: skip
    json.dumps(meta, allow_nan=False)  # fail now, not after hours of building
    room = n * sum(2 * int(np.prod(shape)) for shape in _SHAPES.values())
    with whole_folder(folder, check_target, room) as partial:
        rows: dict[str, dict[str, Any]] = {}
        with ExitStack() as stack:
            files = {name: stack.enter_context((partial / name).open("wb")) for name in _SHAPES}

            def write_headers(n: int) -> None:
                # Once more at the end: NumPy's header keeps its length as the shape shrinks.
                for name, file in files.items():
                    file.seek(0)
                    shape = (n, *_SHAPES[name])
                    header = {"descr": "<i2", "fortran_order": False, "shape": shape}
                    npy.write_array_header_1_0(file, header)

            def add(nodule: Mapping[Any, Any], cube: ArrayLike, views: ArrayLike) -> None:
                row = {str(key): value for key, value in nodule.items()}
                who = f"{folder}: nodule {row.get('nodule_id', '(no nodule_id)')}"
                for key in ("nodule_id", "patient_id"):
                    if pd.isna(row.get(key)) or not str(row[key]):
                        raise InputError(f"{who}: has no {key}; every row needs one")
                if str(row["nodule_id"]) in rows:
                    raise InputError(f"{who}: comes twice; nodule_id must be unique")
                label = row.get("label")
                if not pd.isna(label) and label not in (0, 1):
                    raise InputError(f"{who}: label {label!r} must be 1, 0 or missing")
                if len(rows) == n:
                    raise InputError(f"{who}: only {n} nodules were announced")
                stored = _as_int16(views, "views", who), _as_int16(cube, "cubes", who)
                for file, images in zip(files.values(), stored, strict=True):
                    file.write(images.tobytes())
                rows[str(row["nodule_id"])] = row

            write_headers(n)
            yield add
            write_headers(len(rows))
        if not rows:
            raise InputError(f"{folder}: no nodule was added; nothing was written")
        table = nodule_table(rows.values())
        require_sound(table, str(folder))
        table.to_csv(partial / "nodules.csv", index=False)
        write_meta(partial, {**meta, "n": len(rows)}, _FILES)


def write_meta(
    folder: Path, about: Mapping[str, Any], names: Iterable[str], progress: bool = False
) -> None:
    """Write cohort.json: what is given, and versions and checksums of the files in the folder."""
    files = [folder / name for name in names]
    total = sum(file.stat().st_size for file in files)
    options: dict[str, Any] = {"unit": "B", "unit_scale": True, "leave": False}
    with tqdm(total=total, desc="checksums", disable=not progress, **options) as bar:
        sums = {
            file.name: {"bytes": file.stat().st_size, "sha256": sha256(file, bar.update)}
            for file in files
        }
    write_json(folder / "cohort.json", {**about, "versions": versions(), "files": sums})


def nodule_table(rows: pd.DataFrame | Iterable[Mapping[Any, Any]]) -> pd.DataFrame:
    """Make a table of rows: `COLUMNS` first, then the others; whole numbers nullable."""
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    others = [c for c in table.columns if c not in COLUMNS]
    table = table.reindex(columns=[*COLUMNS, *others])
    for column in _WHOLE:
        table[column] = table[column].astype("Float64").astype("Int64")
    return table


def require_sound(table: pd.DataFrame, where: str) -> None:
    """Refuse a nodule table in which one thing is said in two ways.

    That is a patient whose id is spelled in two ways, a series of two patients, and a label on the
    other side of uncertain than the median malignancy.
    """
    require_ids(table["patient_id"].unique(), "patient_id", where)
    if "series_uid" in table:
        named = table["series_uid"].notna() & (table["series_uid"] != "")
        pairs = table.loc[named, ["series_uid", "patient_id"]].drop_duplicates()
        require_ids(pairs["series_uid"], "series_uid", where)
        of_two = pairs[pairs["series_uid"].duplicated(keep=False)].to_numpy().tolist()
        if of_two:
            patients = " and ".join(who for uid, who in of_two if uid == of_two[0][0])
            raise InputError(f"{where}: series {of_two[0][0]} is of patients {patients}; a scan is "
                             "of one, so write the same id for both")  # fmt: skip
    for column in ("malignancy_median", "malignancy_mean"):  # of up to four readers
        if not {"label", column} <= set(table):
            continue
        label, rating = (table[c].astype("Float64") for c in ("label", column))
        wrong = ((label == 1) & (rating < UNCERTAIN)) | ((label == 0) & (rating > UNCERTAIN))
        for row in table[wrong.fillna(False).astype(bool)].to_dict("records"):
            raise InputError(
                f"{where}: nodule {row['nodule_id']} has label {row['label']}, which contradicts "
                f"its {column} {row[column]:g}, and {wrong.sum() - 1} others do; above 3 is "
                "malignant, 1, and below 3 benign, 0"
            )


def choose_patients(
    table: pd.DataFrame, patients: Iterable[str] | None, exclude: Iterable[str] | None, where: str,
    known: Iterable[str] | None = None,
) -> tuple[pd.DataFrame, dict[str, list[str] | None]]:  # fmt: skip
    """Take the rows of the chosen patients, with the index of the table they came from.

    Each of them has to be among the `known` patients, by default those of the table. Returned with
    the choice as a cohort's settings have it: ids in order, each once, or None for no choice.
    """
    choice: dict[str, list[str] | None] = {}
    known = set(table["patient_id"] if known is None else known)
    for name, ids in (("patients", patients), ("exclude_patients", exclude)):
        if isinstance(ids, str):
            raise InputError(f"{name} is the text {ids!r}; give a list of patient ids")
        choice[name] = chosen = None if ids is None else sorted({str(who) for who in ids})
        if chosen is not None:
            require_known(chosen, known, "patient", where)
            table = table[table["patient_id"].isin(chosen) == (name == "patients")]
    if table.empty:
        raise InputError(f"{where}: no nodule is left; relax the rule or the choice of patients")
    return table, choice


def versions() -> dict[str, str]:
    """Return what a cohort is made with."""
    used = {"numpy": np, "scipy": scipy, "pandas": pd}
    return {
        "labkit": labkit.__version__, "python": platform.python_version(),
        **{name: module.__version__ for name, module in used.items()},
    }  # fmt: skip


def check_target(folder: Path) -> None:
    """Refuse a place where a new cohort would destroy something that is not a cohort."""
    require_own_folder(
        folder, "cohort.json", "a cohort",
        lambda name, about: name in (*_FILES, *(_files_of(about) if about else ())),
    )  # fmt: skip


def _files_of(meta: Any) -> tuple[str, ...]:
    """Names of a cohort's files besides cohort.json, by what cohort.json says."""
    files = meta.get("files") if isinstance(meta, dict) else None
    if not isinstance(files, dict) or meta.get("format") == 1:
        return _FILES
    needed = ("nodules.csv", "views.npy")
    # Nothing outside the folder, whatever a file from elsewhere may say.
    return (*needed, *(name for name in files if name not in needed and Path(name).name == name))


def _check_file(path: Path, meta: Mapping[str, Any], checksum: bool) -> None:
    """Refuse a file of another length, or content, than cohort.json has for it."""
    if not path.is_file():
        raise InputError(f"{path}: missing; build the cohort again")
    try:
        length, content = (meta["files"][path.name][key] for key in ("bytes", "sha256"))
    except (KeyError, TypeError):
        about = path.parent / "cohort.json"
        raise InputError(f"{about}: does not know {path.name}; build the cohort again") from None
    size = path.stat().st_size
    if size != length:
        raise InputError(
            f"{path}: {size} bytes instead of {length}, truncated or changed since the cohort "
            "was made; build it again"
        )
    if checksum and sha256(path) != content:
        raise InputError(
            f"{path}: changed since the cohort was made (its checksum differs); build it again"
        )


def _read_table(path: Path, n: int) -> pd.DataFrame:
    """Read nodules.csv with the types it was written with."""
    kinds: dict[Any, Any] = dict.fromkeys(_TEXT, object) | dict.fromkeys(_WHOLE, "Int64")
    try:
        header = pd.read_csv(path, nrows=0).columns
        others = [c for c in header if c not in (*COLUMNS, *_NUMBERS)]
        table = pd.read_csv(
            path, dtype=kinds | dict.fromkeys(others, object), keep_default_na=False,
            na_values={c: [""] for c in header if c not in _TEXT},
        )  # fmt: skip
        for column in others:
            table[column] = _as_written(table[column])
        if (
            len(table) != n
            or not set(COLUMNS) <= set(table)
            or table["nodule_id"].duplicated().any()
        ):
            raise ValueError(f"{n} nodules and {','.join(COLUMNS)} are expected")
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: no table of nodules ({error}); build the cohort again") from None
    require_sound(table, str(path))
    return table


def _as_written(column: pd.Series) -> pd.Series:
    """Make numbers of text that is written as numbers are, but not of 1.10, 01, 1e5 or nan."""
    for kind in ("int64", "float64"):
        with suppress(ValueError, TypeError, OverflowError):
            numbers = column.astype(kind)
            given = column.notna()
            if (numbers.notna() == given).all() and (numbers.astype(str) == column)[given].all():
                return numbers
    return column == "True" if len(column) and column.isin(["True", "False"]).all() else column


def _open_array(path: Path, n: int, kind: str) -> NDArray[Any]:
    """Memory-map an array of a cohort of n nodules; `kind` is "int16" or "uint8"."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: not readable ({error}); build the cohort again") from None
    if array.shape != (n, *_SHAPES[path.name]) or array.dtype.name != kind:
        raise InputError(
            f"{path}: {array.dtype} of shape {array.shape}, but cohort.json says {n} nodules "
            f"and {kind}; build the cohort again"
        )
    return array


def _as_int16(images: ArrayLike, name: str, who: str) -> NDArray[np.int16]:
    """Round HU to int16, saturating at its limits; refuse views or cubes of another shape."""
    hu, shape = np.asarray(images), _SHAPES[f"{name}.npy"]
    if hu.shape != shape:
        raise InputError(f"{who}: {name}: shape {hu.shape}, but a cohort stores {shape}")
    if hu.dtype == np.int16:
        return hu
    if not np.isfinite(hu).all():
        raise InputError(f"{who}: {name}: values that are not finite; check their scan")
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(hu), limits.min, limits.max).astype("<i2")
