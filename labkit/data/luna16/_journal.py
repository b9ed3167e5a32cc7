"""The journal of a build of candidates, and the one array that it is about.

A line is written when what it says is on disk, never before; a torn last line says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from tqdm.auto import tqdm

from labkit.data._cohort_files import ROW_SHAPES
from labkit.errors import InputError

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
