"""Candidates a second: all of a scan's at once against one at a time, and a whole build of LUNA-16.

    python -m benchmarks.speed.extraction [--dicom FOLDER] --out results/benchmark_luna16.json

On a simulated whole scan of usual size (232 slices; LUNA-16's have 256 on average), and on a real
one if given: the same candidates in turn by `views_u8` and one at a time, on one thread, and how
far apart the results are; what 1, 2 and 4 times as many cost; `labkit build luna16` of several
copies of the scan on one process and on two, with the memory that all its processes hold together
at most.

From that follows the time of all 551,065 candidates: cost a slice times LUNA-16's 227,242 slices,
plus cost a candidate. Times are the processor's, since the clock tells little on a busy machine;
`load` says how busy it was. What two and sixteen cores would need is calculated, as if they shared
the work evenly; what two processes gained is measured by the clock, on the builds.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.common import command, fresh, in_turn, timed, watched
from labkit.annotations import lidc
from labkit.cohorts import candidates
from labkit.cohorts.candidates import as_u8, build_luna16, views_u8
from labkit.cohorts.simulated import simulated_scan
from labkit.imaging import lungs
from labkit.imaging.dicom import read_series
from labkit.imaging.views import nine_views, nine_views_each
from labkit.imaging.volume import Volume

CANDIDATES, SCANS = 551_065, 888
A_SCAN = round(CANDIDATES / SCANS)
_AT_ONCE = 24
Lung = NDArray[np.bool_]


def places(volume: Volume, lung: Lung, n: int, seed: int) -> NDArray[np.float64]:
    """Draw world positions (n, 3) of voxels of lung."""
    chosen = np.random.default_rng(seed).choice(np.flatnonzero(lung), n, replace=False)
    return volume.world_from_index(np.stack(np.unravel_index(chosen, lung.shape), axis=-1))


def side_by_side(volume: Volume, centers: NDArray[np.float64], repeats: int) -> dict[str, Any]:
    """Time many at once and one at a time, in turn, on the same candidates; and how they differ."""
    rows = np.arange(len(centers))[:: max(1, len(centers) // _AT_ONCE)][:_AT_ONCE]
    few = centers[rows]
    both = in_turn({
        "at once": lambda: views_u8(volume, centers),
        "alone": lambda: np.stack([nine_views(volume, c, 76) for c in few]),
    }, repeats)  # fmt: skip
    ways = zip(both.values(), (len(centers), len(few)), strict=True)
    at_once, alone = (1000 * np.array([t.cpu_s for t in times]) / n for times, n in ways)
    found, expected = both["at once"][0].result[rows], both["alone"][0].result
    levels = np.abs(found.astype(int) - as_u8(expected).astype(int))
    before = max(float(np.abs(v - expected[k]).max()) for k, v in nine_views_each(volume, few, 76))
    return {
        "candidates": len(centers),
        "at_once_ms_a_candidate": round(median(at_once), 2),
        "one_at_a_time_ms": round(median(alone), 2),
        "times_faster": round(median(alone / at_once), 1),
        "largest_difference_levels": int(levels.max()),
        "share_of_pixels_differing": float(f"{(levels > 0).mean():.2g}"),
        "largest_difference_hu": round(before, 4),  # before rounding
    }


def growth(volume: Volume, lung: Lung, repeats: int) -> dict[str, Any]:
    """Time 1, 2 and 4 times as many candidates, and lay a line through the medians.

    Returns the medians; cost of a scan whatever its candidates, and of each candidate; and the
    largest share by which a median is off that line.
    """
    counts = [A_SCAN // 4, A_SCAN // 2, A_SCAN]
    medians = []
    for count in counts:
        drawn = (places(volume, lung, count, seed) for seed in range(repeats))
        medians.append(median(timed(lambda at=at: views_u8(volume, at)).cpu_s for at in drawn))
    slope, intercept = np.polyfit(counts, medians, 1)
    off = np.abs(np.polyval((slope, intercept), counts) / medians - 1).max()
    return {
        "candidates": counts,
        "cpu_s": [round(s, 3) for s in medians],
        "ms_a_candidate": round(1000 * float(slope), 2),
        "s_a_scan": round(float(intercept), 3),
        "largest_deviation_from_a_line": round(float(off), 3),
    }


def whole_build(path: Path, volume: Volume, lung: Lung, copies: int, jobs: int) -> dict[str, Any]:
    """Build a cohort of copies of the scan in `path`, an .mhd; its processes' time and memory."""
    with tempfile.TemporaryDirectory() as name:
        folder, marks = Path(name), []
        for number, uid in enumerate(lidc.luna16_series()[:copies]):
            header = path.read_text().replace(path.stem, str(path.with_name(path.stem)))
            (folder / f"{uid}.mhd").write_text(header)
            marks += [(uid, *point, 0) for point in places(volume, lung, A_SCAN, number)]
        table = pd.DataFrame(marks, columns=["seriesuid", "coordX", "coordY", "coordZ", "class"])
        table.to_csv(folder / "c.csv", index=False)
        nodule = table.head(1).drop(columns="class").assign(diameter_mm=10.0)
        nodule.to_csv(folder / "a.csv", index=False)
        given, load = {"annotations": folder / "a.csv", "jobs": jobs}, os.getloadavg()[0]
        with watched() as watch:
            build_luna16(folder, folder / "c.csv", folder / "out", **given)
    return {
        "scans": copies,
        "candidates": len(marks),
        "processes": jobs,
        "clock_s": round(watch.clock_s, 1),
        "cpu_s": round(watch.cpu_s, 1),
        "candidates_a_second": round(len(marks) / watch.clock_s),
        "peak_gb_of_all_processes": watch.peak_gb,
        "load": round(load, 1),
    }


def image_of(volume: Volume) -> sitk.Image:
    """Return a volume as SimpleITK has it."""
    image = sitk.GetImageFromArray(volume.voxels)
    image.SetSpacing(volume.spacing_xyz_mm)
    image.SetOrigin(volume.origin_xyz_mm)
    image.SetDirection(volume.direction.ravel().tolist())
    return image


def write_image(path: Path, volume: Volume) -> None:
    """Write a volume as one file, of the format that its name says."""
    sitk.WriteImage(image_of(volume), str(path))


def of_largest_scan() -> float:
    """Take the GB of this process for a scan of 764 slices, LUNA-16's largest, 0.6 mm apart."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "1.2.3.4.mhd"
        voxels = np.random.default_rng(0).integers(-1000, 400, (764, 512, 512)).astype(np.int16)
        write_image(path, Volume(voxels, (0.65, 0.65, 0.6)))
        del voxels
        with watched() as watch, threadpool_limits(1):
            volume = candidates.read(candidates.read_header(path))
            index = np.random.default_rng(0).uniform(0.1, 0.9, (A_SCAN, 3)) * volume.shape
            views_u8(volume, volume.world_from_index(index))
    return watch.peak_gb


def of_scan(volume: Volume, lung: Lung, repeats: int, copies: int) -> dict[str, Any]:
    """Measure all there is on one scan."""
    with threadpool_limits(1):
        results = {
            "slices": volume.shape[0],
            "spacing_xyz_mm": [round(s, 3) for s in volume.spacing_xyz_mm],
            "side_by_side": side_by_side(volume, places(volume, lung, A_SCAN, 0), repeats),
            "growth": growth(volume, lung, repeats),
        }
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "scan.mhd"
        write_image(path, volume)
        header = candidates.read_header(path)
        read = [timed(lambda: candidates.read(header)).cpu_s for _ in range(repeats)]
        one, two = (whole_build(path, volume, lung, copies, jobs) for jobs in (1, 2))
    # 2 at best, which on a busy machine says as much of its neighbours; 1 at best.
    gained = {"times_as_fast_by_the_clock": round(one["clock_s"] / two["clock_s"], 2),
              "times_the_cpu_s": round(two["cpu_s"] / one["cpu_s"], 2),
              "load": max(one["load"], two["load"])}  # fmt: skip
    return {**results, "reading_cpu_s": round(median(read), 3), "builds": [one, two],
            "two_processes_measured": gained}  # fmt: skip


def in_full(result: dict[str, Any]) -> dict[str, Any]:
    """Calculate the time of LUNA-16's 551,065 candidates in 888 scans from one scan's costs."""
    scans = lidc.scans()
    slices = int(scans.loc[scans["series_uid"].isin(lidc.luna16_series()), "slices"].sum())
    a_slice = (result["growth"]["s_a_scan"] + result["reading_cpu_s"]) / result["slices"]
    a_candidate = result["growth"]["ms_a_candidate"] / 1000
    # What a build takes beyond these two: writing, joining, checksums.
    build = result["builds"][0]
    expected = build["scans"] * a_slice * result["slices"] + a_candidate * build["candidates"]
    whole = (a_slice * slices + a_candidate * CANDIDATES) * max(1.0, build["cpu_s"] / expected)
    return {
        "candidates": CANDIDATES,
        "slices": slices,
        "cpu_s": round(whole),
        "build_over_its_parts": round(build["cpu_s"] / expected, 2),
        "minutes_on_2_cores_calculated": round(whole / 2 / 60),
        "minutes_on_16_cores_calculated": round(whole / 16 / 60, 1),
        "gb_of_views": round(CANDIDATES * 9 * 76 * 76 / 1e9, 1),
    }


def measure(
    *, patient: str = "LIDC-IDRI-0168", dicom: Path | None = None, repeats: int = 5, copies: int = 6
) -> dict[str, Any]:
    """Measure a simulated scan, and a real one where it is given."""
    volume, truth = simulated_scan(patient)
    volume = replace(volume, voxels=np.array(volume.voxels))
    found = of_scan(volume, np.array(truth.lung), repeats, copies)
    scans = {"simulated": {**found, "patient_id": patient}}
    if dicom:
        real = read_series(dicom)
        found = of_scan(real, lungs.segment(real), repeats, copies)
        scans["real"] = {**found, "series_uid": real.series_uid}
    largest = fresh(of_largest_scan)
    return {"scans": scans, "in_full": in_full(scans["simulated"]),
            "largest_scan_gb_of_a_process": largest}  # fmt: skip


if __name__ == "__main__":
    sys.exit(command(measure, __doc__))
