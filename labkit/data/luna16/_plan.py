"""Before a build of LUNA-16 starts: which scans are there, and which candidates can be cut out.

Also how many processes there is memory for, and how long they will take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from joblib import cpu_count

from labkit.data._cohort_files import VIEW_SIZE
from labkit.data.luna16._labelled import candidate_ids, labelled
from labkit.data.luna16.extract import outside, within
from labkit.data.luna16.tables import POSITION, SERIES
from labkit.data.luna16.volumes import Scan, find, read_header
from labkit.errors import InputError

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
