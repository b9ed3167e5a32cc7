"""Writing a cohort of half a million candidates, in any order, so that a killed build goes on.

Beside the cohort to come stands a hidden folder:

    .NAME.unfinished/
        cohort/         what will be renamed into place, views.npy at its full length from the start
        journal.jsonl   what is being built, then a line for each part that is done
        owner.json      the process that is at it
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
import psutil
from numpy.lib import format as npy
from numpy.typing import ArrayLike, NDArray
from tqdm.auto import tqdm

from labkit.data._cohort_files import (
    ROW_SHAPES,
    check_target,
    clear_after_kill,
    move_into_place,
    nodule_table,
    record_of,
    require_room,
    shorten,
    versions,
)
from labkit.data.luna16._journal import Journal, compact, rows_of, write_rows
from labkit.errors import InputError
from labkit.files import read_json, write_json

_FORMAT = 2
_NAME = "views.npy"
_SHAPE = ROW_SHAPES[_NAME]
_ROW_BYTES = int(np.prod(_SHAPE))
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
    >>> from labkit.data.cohort import Cohort
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
            npy.open_memmap(begin, mode="w+", dtype=np.uint8, shape=(len(self._table), *_SHAPE))
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
        shorten(self.views_file, len(kept), _SHAPE, "uint8")
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
