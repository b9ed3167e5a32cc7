"""Cohorts of LUNA-16's candidates: half a million rows, scan by scan, as fast as the machine is.

Reference: Setio et al., Med Image Anal 42:1-13, 2017. The paper's section III-A says what is cut
out of each scan, and section III-B that candidates within 5 mm have been merged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from labkit._killed import told_if_killed
from labkit.data._cohort_files import VIEW_SIZE, check_target, sha256
from labkit.data.luna16 import tables, volumes
from labkit.data.luna16._candidate_writer import CandidateWriter
from labkit.data.luna16._journal import write_rows
from labkit.data.luna16._plan import Plan, default_jobs, estimate, plan, without_subset
from labkit.data.luna16.extract import HIGH_HU, LOW_HU, each_u8
from labkit.errors import InputError
from labkit.imaging.lungs import dilate, segment

__all__ = ["CandidateWriter", "LunaReport", "build_luna16"]

_SOURCE = (
    "LUNA-16 (Setio et al. 2017, CC BY 4.0): CT of LIDC-IDRI, The Cancer Imaging Archive, CC BY 3.0"
)
_NONE_EXCLUDED = (
    "no finding is excluded, because none was given: FROC will count marks on findings that fewer "
    "readers saw as false; give --excluded FILE"
)
_AT_ONCE = 256
_SHOWN = 10  # of scans or candidates that could not be used


@dataclass(frozen=True)
class LunaReport:
    """What became of each scan and each candidate.

    Args:
        folder: the cohort.
        scans: one row a scan that a table names or the folder holds: `series_uid`, `subset`,
            `candidates` (in the file), `built` (in the cohort), `status` ("built", "missing", or
            "failed" when it could not be read) and `reason`.
        left_out: nodule_id -> why, of candidates of scans that could be read.
        disagreeing: rows of the cohort's table whose class in the candidates file is not that of
            the hit rule; the cohort's label is the rule's.
        notes: what else a user of the cohort has to know, a line each.
    """

    folder: Path
    scans: pd.DataFrame
    left_out: Mapping[str, str]
    disagreeing: pd.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def problems(self) -> pd.DataFrame:
        """The rows of scans that are there, but could not be used."""
        return self.scans[self.scans["status"] == "failed"]

    def __str__(self) -> str:
        """A line with the counts, and one for each of the first scans and candidates that failed.

        `scans` and `left_out` have them all, and so has cohort.json.
        """
        count = self.scans["status"].value_counts()
        lines = [
            f"{self.folder}: {self.scans['built'].sum()} candidates of {count.get('built', 0)} "
            f"scans; {count.get('missing', 0)} scans missing, {count.get('failed', 0)} failed; "
            f"{len(self.left_out)} candidates left out"
        ]
        if len(self.disagreeing):
            first = self.disagreeing["nodule_id"].iloc[0]
            lines.append(
                f"{len(self.disagreeing)} candidates have another class in the candidates file "
                f"than the hit rule gives, the first {first}; the cohort has the rule's"
            )
        failed = [f"{row.series_uid}: {row.reason}" for row in self.problems.itertuples()]
        missing = self.scans.loc[self.scans["status"] == "missing", "series_uid"].tolist()
        lines += self.notes
        told = {"missing": missing, "failed": failed, "left out": list(self.left_out.values())}
        for what, each in told.items():
            lines += [f"{what}: {why}" for why in each[:_SHOWN]]
            if len(each) > _SHOWN:
                lines.append(f"{what}: {len(each) - _SHOWN} more, see {self.folder}/cohort.json")
        return "\n".join(lines)


def build_luna16(
    folder: Path | str,
    candidates: Path | str,
    out: Path | str,
    *,
    annotations: Path | str,
    excluded: Path | str | None = None,
    subsets: Path | str | None = None,
    lungs: bool = False,
    jobs: int | None = None,
    progress: bool = True,
) -> LunaReport:
    """Make a cohort of LUNA-16's candidates, or of any detector's over its scans.

    Scans are found by the names of their .mhd files, wherever they lie below the folder. One that
    is missing or damaged costs its own candidates: they are left out and told in the report and in
    cohort.json; its nodules stay in annotations.csv, and seriesuids.csv lists the scans that were
    there. A killed build goes on where it stopped, given the same arguments and the same scans,
    and gives the same bytes; so does any number of processes.

    Args:
        folder: any folder tree of .mhd and .raw files.
        candidates: candidates.csv or candidates_V2.csv.
        out: the cohort to make; a cohort that is there is replaced.
        annotations: annotations.csv, the nodules. A candidate is positive when it hits one
            (`hits.label`).
        excluded: annotations_excluded.csv; candidates that hit one of them are marked. Without it
            the cohort's own has no rows, and FROC counts every mark that hits no nodule.
        subsets: table of `seriesuid` and `subset`: the folds, and which scans are meant. Without
            it every .mhd file is a scan of the challenge, and its subset is the number in the name
            of the folder above it, subset0 to subset9; -1 where there is none, which is told.
        lungs: make chest wall of everything beyond the lungs and 10 mm around them (paper, section
            III-A); about 10 s a scan. A candidate beyond them is left out.
        jobs: processes. Memory is of each: 1.7 GB for the largest scans (764 slices), 2.6 GB with
            lungs, whatever the number of candidates; and 0.8 GB of the process that starts them
            for LUNA-16's 551,065. By default one a core, as far as 1.8 GB (2.8 GB with lungs) are
            free for each: 3.8 GB in all on two cores.
        progress: say how long it will take, and show a bar.

    Raises:
        InputError: a table that cannot be read; no scan, or none that can be used; no room on the
            disk; less than one job; a process killed; an unfinished build of something else.
    """
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs is {jobs}; give 1 or more, or None for all cores")
    check_target(Path(out))
    findings = {"annotations.csv": tables.read_annotations(annotations)}
    left = tables.read_excluded(excluded) if excluded is not None else None
    # Judging wants the table, if only to see that no finding is excluded.
    none = findings["annotations.csv"].iloc[:0]
    findings["annotations_excluded.csv"] = left if left is not None else none
    marks = tables.read_candidates(candidates)
    if marks.empty:
        raise InputError(f"{candidates}: a header and no candidate below it; write it again")
    what = plan(
        Path(folder), marks, findings["annotations.csv"], left,
        tables.read_subsets(subsets) if subsets is not None else None,
    )  # fmt: skip
    given = {
        "candidates": candidates, "annotations": annotations, "excluded": excluded,
        "subsets": subsets,
    }  # fmt: skip
    settings: dict[str, Any] = {
        name: {"file": Path(file).name, "sha256": sha256(Path(file))}
        for name, file in given.items() if file is not None
    }  # fmt: skip
    settings |= {"lungs": lungs, "spacing_mm": 1.0, "window_hu": [LOW_HU, HIGH_HU]}
    workers = jobs if jobs is not None else default_jobs(lungs)
    notes = [*without_subset(what.table), *([] if left is not None else [_NONE_EXCLUDED])]
    if progress and notes:
        print(*notes, sep="\n")
    with CandidateWriter(
        out, what.table, source=_SOURCE, simulated=False, settings=settings, progress=progress,
        tables={**findings, "seriesuids.csv": pd.DataFrame()},
    ) as writer:  # fmt: skip
        with told_if_killed(workers):
            _cut_out(writer, what, workers, lungs, progress)
        report = _report(Path(out), what, writer.left_out, notes)
        there = report.scans.loc[report.scans["status"] == "built", ["series_uid"]]
        writer.tables["seriesuids.csv"] = there
        writer.report = {
            "missing_scans": list(what.missing),
            "failed_scans": dict(report.problems[["series_uid", "reason"]].itertuples(index=False)),
            "left_out": dict(report.left_out),
            "class_disagrees": report.disagreeing["nodule_id"].tolist(),
            "notes": notes,
        }
    return report


def _cut_out(
    writer: CandidateWriter, what: Plan, workers: int, lungs: bool, progress: bool
) -> None:
    """Write the views of all candidates that are not there yet."""
    ids = what.table["nodule_id"].to_numpy()
    centers = what.table[list(tables.POSITION)].to_numpy(float)
    left = np.flatnonzero(~writer.done)
    by_scan = {
        str(uid): left[rows]
        for uid, rows in what.table["series_uid"].iloc[left].groupby(
            what.table["series_uid"].iloc[left].to_numpy(), sort=False).indices.items()
    }  # fmt: skip
    if progress and len(left):
        print(estimate(len(left), len(by_scan), len(ids), workers, lungs))
    tasks = (
        delayed(_cut_scan)(what.scans[uid], rows, ids[rows], centers[rows], lungs,
                           writer.views_file)
        for uid, rows in by_scan.items()
    )  # fmt: skip
    with tqdm(total=len(ids), initial=len(ids) - len(left), desc="cutting out",
              unit="candidate", disable=not progress) as bar:  # fmt: skip
        # Finished scans are noted at once, whichever they are.
        for rows, left_out in Parallel(workers, return_as="generator_unordered")(tasks):
            writer.leave_out(left_out)
            writer.note(np.setdiff1d(rows, list(left_out)))
            bar.update(len(rows))


def _cut_scan(
    scan: volumes.Scan,
    rows: NDArray[np.int64],
    ids: NDArray,
    centers: NDArray[np.float64],
    lungs: bool,
    file: Path,
) -> tuple[NDArray[np.int64], dict[int, str]]:
    """Write the views of one scan's candidates; its rows, and why some of them are left out."""
    left_out: dict[int, str] = {}
    # One thread of BLAS a process: more would fight for the cores, and their number could change
    # the last bit of a sum and so the bytes of the cohort.
    with threadpool_limits(limits=1):
        try:
            volume = volumes.read(scan)
            # One lung will do: a candidate in one that was missed is told below.
            kept = dilate(segment(volume, one_lung=True), volume) if lungs else None
        except (InputError, OSError) as error:
            return rows, dict.fromkeys(rows.tolist(), f"{scan.series_uid}: {error}")
        if kept is not None:
            index = np.rint(volume.index_from_world(centers)).astype(int)
            seen = kept[tuple(np.clip(index, 0, np.array(kept.shape) - 1).T)]
            for k in np.flatnonzero(~seen):
                why = f"candidate {ids[k]} is beyond the lungs found; build without lungs"
                left_out[int(rows[k])] = why
            rows_seen, centers = rows[seen], centers[seen]
        else:
            rows_seen = rows
        numbers: list[int] = []
        views = np.empty((min(_AT_ONCE, len(rows_seen)), 9, VIEW_SIZE, VIEW_SIZE), np.uint8)
        for k, images in each_u8(volume, centers, kept):
            views[len(numbers)] = images
            numbers.append(int(rows_seen[k]))
            if len(numbers) == len(views):
                write_rows(file, np.array(numbers), views)
                numbers = []
        if numbers:
            write_rows(file, np.array(numbers), views[: len(numbers)])
    return rows, left_out


def _report(out: Path, what: Plan, not_put: Mapping[int, str], notes: list[str]) -> LunaReport:
    """What became of all, also of what a killed run found out."""
    table, left_out, failed = what.table, dict(what.left_out), dict(what.failed)
    uids, ids = table["series_uid"].to_numpy(), table["nodule_id"].to_numpy()
    for row, why in not_put.items():
        uid, _, reason = why.partition(": ")
        if uid == uids[row]:
            failed[uid] = reason
        else:
            left_out[str(ids[row])] = why
    built = table.drop(index=list(not_put))["series_uid"].value_counts()
    scans = []
    for uid in sorted({*what.scans, *what.missing, *failed, *what.given}):
        scan = what.scans.get(uid)
        status = "failed" if uid in failed else "built" if scan else "missing"
        scans.append((
            uid, scan.subset if scan else -1, what.given.get(uid, 0), int(built.get(uid, 0)),
            status, failed.get(uid, "not in the folder" if scan is None else ""),
        ))  # fmt: skip
    columns = ["series_uid", "subset", "candidates", "built", "status", "reason"]
    disagreeing = what.disagreeing.drop(index=list(not_put), errors="ignore")
    of_scans = pd.DataFrame(scans, columns=columns)
    return LunaReport(out, of_scans, left_out, disagreeing, tuple(notes))
