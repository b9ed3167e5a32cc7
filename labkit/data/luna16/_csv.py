"""Reading the challenge's CSV files: fast when they are sound, exact about the line when not."""

from __future__ import annotations

import csv
import math
import re
import warnings
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from labkit.errors import InputError

SERIES = "seriesuid"

# From 3.1 on pandas always reads numbers exactly, and warns of being told to.
_TOLD_TO = tuple(int(part) for part in pd.__version__.split(".")[:2]) < (3, 1)
# Python's `float` takes more: 1_000, and the digits of every script.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_OTHER_KINDS = {
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"PK\x03\x04": "a zip archive or a workbook; unpack it, or save the sheet as CSV",
    b"\xff\xfe": "in UTF-16; save it as CSV in UTF-8",
    b"\xfe\xff": "in UTF-16; save it as CSV in UTF-8",
}
_SEPARATORS = {";": "semicolons", "\t": "tabs"}
# What the parser takes for a number, or does not see, and `_first_fault` does.
_ODD = (b"\0", b"true", b"false")
_BLOCK = 1 << 20


def read(
    path: Path | str,
    columns: Mapping[str, str],
    what: str,
    allowed: Mapping[str, range] | None = None,
) -> pd.DataFrame:
    """Read the series and some columns of numbers.

    Numbers are rounded as Python's own `float` rounds them, since a hit can hang on the last bit.
    Any line ends (CRLF, LF, lone CR, mixed), a byte order mark, blank lines and quoted fields are
    taken; other columns are left out. The file is read twice, so that it cannot be a pipe.

    Args:
        path: CSV file with a header.
        columns: the file's name of each column of numbers -> the table's name of it.
        what: the kind of file, for the errors.
        allowed: the file's name of a column -> the whole numbers that it may hold.

    Returns:
        DataFrame with `seriesuid` (category) and the renamed columns (float64), as in the file.

    Raises:
        InputError: no such file, no CSV in UTF-8, a wrong header, a row with too many or too few
            fields, or a number that is text, empty, not finite or not allowed; with the line.
    """
    path = Path(path)
    allowed = allowed or {}
    kinds: dict[Hashable, str] = {SERIES: "category", **dict.fromkeys(columns, "float64")}
    header = _header(path, columns, what)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # fields beyond the header
            table = pd.read_csv(
                path,
                encoding="utf-8-sig",
                header=0,
                names=header,
                index_col=False,
                dtype=kinds,
                # A scan may be called NA; a number that is called so is told below.
                keep_default_na=False,
                na_values=[""],
                float_precision="round_trip" if _TOLD_TO else None,
            )
    except (ValueError, OSError, pd.errors.ParserWarning) as error:
        raise _first_fault(path, header, columns, what, allowed) or InputError(
            f"{path}: not readable as CSV ({' '.join(str(error).split())}); write {what} again"
        ) from None
    table = table[[SERIES, *columns]]
    table[SERIES] = _stripped(table[SERIES])
    sound = np.isfinite(table[list(columns)].to_numpy()).all(axis=1)
    sound &= table[SERIES].cat.codes.to_numpy() >= 0
    for name, numbers in allowed.items():
        sound &= table[name].isin(numbers).to_numpy()
    if not sound.all() or _holds_odd(path):
        fault = _first_fault(path, header, columns, what, allowed)
        if fault is not None:
            raise fault
        # What is left are lines of blanks, which the parser takes for rows that lack everything.
        table = table[sound].reset_index(drop=True)
        table[SERIES] = table[SERIES].cat.remove_unused_categories()
    return table.rename(columns=dict(columns))


def lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of every line that is not blank; of several in quotes, the first's.

    Raises:
        InputError: no such file, or not text.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the CSV file")
    if not path.is_file():
        there = "is no plain file; write it to one" if path.exists() else "no such file"
        raise InputError(f"{path}: {there}")
    with path.open("rb") as binary:
        begin = binary.read(4)
    for magic, what in _OTHER_KINDS.items():
        if begin.startswith(magic):
            raise InputError(f"{path}: {what}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows, before = csv.reader(file), 0
            for fields in rows:
                if any(field.strip() for field in fields):
                    yield before + 1, fields
                before = rows.line_num
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error}); save it as CSV") from None


def _header(path: Path, columns: Mapping[str, str], what: str) -> list[str]:
    needed = [SERIES, *columns]
    line, fields = next(lines(path), (0, []))
    if not fields:
        raise InputError(f"{path}: empty; {what} needs the header {','.join(needed)}")
    header = [field.strip() for field in fields]
    for separator, name in _SEPARATORS.items():
        if len(fields) == 1 and {field.strip() for field in fields[0].split(separator)} >= {
            *needed
        }:
            raise InputError(f"{path}, line {line}: fields are separated by {name}; save it with "
                             "commas between fields, and points in numbers")  # fmt: skip
    missing = [name for name in needed if name not in header]
    if missing:
        raise InputError(
            f"{path}, line {line}: the header {_short(','.join(header))} lacks "
            f"{', '.join(missing)}; {what} needs {','.join(needed)}"
        )
    doubled = [name for name in needed if header.count(name) > 1]
    if doubled:
        raise InputError(f"{path}, line {line}: two columns are named {doubled[0]}; leave one out")
    # The parser wants every name once, also of columns that nobody reads.
    return [name if name in needed else f"{i}: {name}" for i, name in enumerate(header)]


def _first_fault(
    path: Path,
    header: list[str],
    columns: Mapping[str, str],
    what: str,
    allowed: Mapping[str, range],
) -> InputError | None:
    """What is wrong with the first bad line; None when no line is bad."""
    rows = lines(path)
    next(rows)
    for line, fields in rows:
        while len(fields) > len(header) and not fields[-1].strip():
            fields.pop()  # a comma at a line's end
        if len(fields) != len(header):
            if any("\n" in field or "\r" in field for field in fields):
                return InputError(f"{path}, line {line}: a quote is opened there and not closed "
                                  "on that line; close it, or leave it out")  # fmt: skip
            return InputError(
                f"{path}, line {line}: {len(fields)} fields under a header of {len(header)}; "
                f"{what} needs {','.join([SERIES, *columns])} on every line"
            )
        if any("\0" in field for field in fields):
            return InputError(f"{path}, line {line}: holds a zero byte, which is no text; write "
                              f"{what} again")  # fmt: skip
        row = dict(zip(header, fields, strict=True))
        if not row[SERIES].strip():
            return InputError(f"{path}, line {line}: no {SERIES}; name the scan on every line")
        for name in columns:
            if not _is_finite(row[name]):
                return InputError(
                    f"{path}, line {line}: {name} is {_short(row[name].strip()) or 'empty'}; "
                    "give a finite number"
                )
        for name, numbers in allowed.items():
            if float(row[name]) not in numbers:
                return InputError(
                    f"{path}, line {line}: {name} is {_short(row[name].strip())}; "
                    f"give a whole number from {numbers[0]} to {numbers[-1]}"
                )
    return None


def _holds_odd(path: Path) -> bool:
    """Whether any of `_ODD` is in a file; a tenth of a second for a million rows."""
    end = b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            text = end + block.lower()
            if any(odd in text for odd in _ODD):
                return True
            end = text[-max(map(len, _ODD)) :]
    return False


def _is_finite(text: str) -> bool:
    return _NUMBER.fullmatch(text.strip()) is not None and math.isfinite(float(text))


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _stripped(series: pd.Series) -> pd.Categorical:
    """The same names without blanks around them, in alphabetical order; none for a blank."""
    names = [str(name).strip() for name in series.cat.categories]
    unique = sorted({*names} - {""})
    number = {name: code for code, name in enumerate(unique)} | {"": -1}
    # One more for rows without a name, which have the code -1.
    code: Any = np.array([*(number[name] for name in names), -1], np.int64)
    return pd.Categorical.from_codes(
        code[series.cat.codes.to_numpy()], categories=pd.Index(unique, dtype=object)
    )
