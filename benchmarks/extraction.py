"""Candidates a second: all of a scan's at once against one at a time, and a whole build of LUNA-16.

    python -m benchmarks.extraction [--dicom FOLDER] --out results/benchmark_luna16.json

On a simulated whole scan of usual size (232 slices; LUNA-16's have 256 on average), and on a real
one if given:

- the same candidates in turn by `views_u8` and one at a time, on one thread, and how far apart the
  results are;
- what 1, 2 and 4 times as many candidates cost;
- `labkit build luna16` of several copies of the scan on one process and on two, with the memory
  that all its processes hold together at most.

From that follows the time of all 551,065 candidates: cost a slice times LUNA-16's 227,242 slices,
plus cost a candidate. Times are the processor's, since the clock tells little on a busy machine;
`load` says how busy it was. What two and sixteen cores would need is calculated, as if they shared
the work evenly; what two processes gained is measured by the clock, on the builds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import SimpleITK as sitk
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from labkit.annotations import lidc
from labkit.cohorts import candidates
from labkit.cohorts.candidates import as_u8, build_luna16, views_u8
from labkit.cohorts.simulated import simulated_scan
from labkit.imaging import lungs
from labkit.imaging.dicom import read_dicom
from labkit.imaging.views import cube_and_views, nine_views
from labkit.imaging.volume import Volume
from labkit.io import write_json
from labkit.training.machines import duration, provenance

CANDIDATES, SCANS = 551_065, 888
A_SCAN = round(CANDIDATES / SCANS)
_AT_ONCE = 24


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of this process, and the result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def places(volume: Volume, lung: NDArray[np.bool_], n: int, seed: int) -> NDArray[np.float64]:
    """World positions (n, 3) of random voxels of lung."""
    inside = np.flatnonzero(lung)
    chosen = np.random.default_rng(seed).choice(inside, n, replace=False)
    return volume.world_from_index(np.stack(np.unravel_index(chosen, lung.shape), axis=-1))


def side_by_side(volume: Volume, centers: NDArray[np.float64], repeats: int) -> dict[str, Any]:
    """Many at once and one at a time, in turn, on the same candidates; and how they differ."""
    few = centers[:: max(1, len(centers) // _AT_ONCE)][:_AT_ONCE]
    ratios, at_once, alone, with_cube = [], [], [], []
    views_u8(volume, few), nine_views(volume, few[0], 76)  # once to warm up
    for _ in tqdm(range(repeats), desc="side by side"):
        seconds, found = cpu(lambda: views_u8(volume, centers))
        at_once.append(seconds / len(centers))
        seconds, expected = cpu(lambda: [nine_views(volume, c, 76) for c in few])
        alone.append(seconds / len(few))
        seconds, _ = cpu(lambda: [cube_and_views(volume, c, 64, 76) for c in few])
        with_cube.append(seconds / len(few))
        ratios.append((alone[-1] / at_once[-1], with_cube[-1] / at_once[-1]))
    rows = [int(np.flatnonzero((centers == c).all(axis=1))[0]) for c in few]
    levels = np.abs(found[rows].astype(int) - as_u8(np.stack(expected)).astype(int))
    return {
        "candidates": len(centers),
        "at_once_ms_a_candidate": in_ms(at_once),
        "one_at_a_time_ms": in_ms(alone),
        "one_at_a_time_with_cube_ms": in_ms(with_cube),
        "times_faster": round(statistics.median(r for r, _ in ratios), 1),
        "times_faster_than_with_cube": round(statistics.median(r for _, r in ratios), 1),
        "largest_difference_levels": int(levels.max()),
        "share_of_pixels_differing": float(f"{(levels > 0).mean():.2g}"),
        "largest_difference_hu": largest_hu(volume, few),
    }


def largest_hu(volume: Volume, centers: NDArray[np.float64]) -> float:
    """Largest difference of the two ways before rounding, HU."""
    from labkit.imaging.views import nine_views_each

    pairs = nine_views_each(volume, centers, 76)
    return round(max(float(np.abs(v - nine_views(volume, centers[k], 76)).max())
                     for k, v in pairs), 4)  # fmt: skip


def growth(volume: Volume, lung: NDArray[np.bool_], repeats: int) -> dict[str, Any]:
    """Seconds of the processor for 1, 2 and 4 times as many candidates, and the line through them.

    Returns:
        The medians; cost of a scan whatever its candidates, and of each candidate; and the largest
        share by which a median is off that line.
    """
    counts = [A_SCAN // 4, A_SCAN // 2, A_SCAN]
    seconds: dict[int, list[float]] = {n: [] for n in counts}
    for repeat in tqdm(range(repeats), desc="growth"):
        for n in counts:
            centers = places(volume, lung, n, repeat)
            start = time.process_time()
            views_u8(volume, centers)
            seconds[n].append(time.process_time() - start)
    medians = [statistics.median(seconds[n]) for n in counts]
    slope, intercept = np.polyfit(counts, medians, 1)
    off = np.abs(np.polyval((slope, intercept), counts) / medians - 1).max()
    return {
        "candidates": counts,
        "cpu_s": [round(s, 3) for s in medians],
        "ms_a_candidate": round(1000 * float(slope), 2),
        "s_a_scan": round(float(intercept), 3),
        "largest_deviation_from_a_line": round(float(off), 3),
    }


def whole_build(
    path: Path, volume: Volume, lung: NDArray[np.bool_], copies: int, jobs: int
) -> dict[str, Any]:
    """`build_luna16` of copies of a scan; its processes' time and memory.

    Args:
        path: the scan's .mhd.
        volume: what is in it.
        lung: where candidates are drawn.
        copies: how many scans.
        jobs: processes.
    """
    uids = lidc.luna16_series()[:copies]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        marks = []
        for number, uid in enumerate(uids):
            header = path.read_text().replace(path.stem, str(path.with_name(path.stem)))
            (folder / f"{uid}.mhd").write_text(header)
            points = places(volume, lung, A_SCAN, number)
            marks += [(uid, *point, 0) for point in points]
        columns = ["seriesuid", "coordX", "coordY", "coordZ"]
        pd.DataFrame(marks, columns=[*columns, "class"]).to_csv(folder / "c.csv", index=False)
        nodules = pd.DataFrame([(*marks[0][:4], 10.0)], columns=[*columns, "diameter_mm"])
        nodules.to_csv(folder / "a.csv", index=False)
        load = os.getloadavg()[0]
        with Watch() as watch:
            build_luna16(
                folder, folder / "c.csv", folder / "out", annotations=folder / "a.csv", jobs=jobs
            )
    return {
        "scans": copies,
        "candidates": len(marks),
        "processes": jobs,
        "clock_s": round(watch.clock_s, 1),
        "cpu_s": round(watch.cpu_s, 1),
        "candidates_a_second_of_cpu": round(len(marks) / watch.cpu_s),
        "candidates_a_second": round(len(marks) / watch.clock_s),
        "peak_gb_of_all_processes": round(watch.peak_bytes / 1e9, 2),
        "load": round(load, 1),
    }


class Watch:
    """Time and memory of this process and those it starts, from samples."""

    def __enter__(self) -> Watch:
        self.peak_bytes, self._stop = 0, threading.Event()
        self._cpu: dict[int, float] = {}
        self._sample()
        self._before = dict(self._cpu)
        self._start = time.perf_counter()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()
        self.clock_s = time.perf_counter() - self._start
        self.cpu_s = sum(s - self._before.get(pid, 0.0) for pid, s in self._cpu.items())

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self._sample()

    def _sample(self) -> None:
        held, here = 0, psutil.Process()
        for process in [here, *here.children(recursive=True)]:
            try:
                held += process.memory_info().rss
                times = process.cpu_times()
                self._cpu[process.pid] = times.user + times.system
            except psutil.Error:
                continue  # it has ended meanwhile
        self.peak_bytes = max(self.peak_bytes, held)


def largest_scan_gb() -> float:
    """Most memory of one process for a scan of 764 slices, LUNA-16's largest, 0.6 mm apart."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "1.2.3.4.mhd"
        voxels = np.random.default_rng(0).integers(-1000, 400, (764, 512, 512)).astype(np.int16)
        write_mhd(path, Volume(voxels, (0.65, 0.65, 0.6)))
        del voxels
        # A fresh process, since memory once held counts for ever.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return round(pool.apply(_peak_of, (path,)) / 1e9, 2)


def _peak_of(path: Path) -> int:
    with Watch() as watch, threadpool_limits(1):
        volume = candidates.read(candidates.read_header(path))
        index = np.random.default_rng(0).uniform(0.1, 0.9, (A_SCAN, 3)) * volume.shape
        views_u8(volume, volume.world_from_index(index))
    return watch.peak_bytes


def write_mhd(path: Path, volume: Volume) -> None:
    image = sitk.GetImageFromArray(volume.voxels)
    image.SetSpacing(volume.spacing_xyz_mm)
    image.SetOrigin(volume.origin_xyz_mm)
    image.SetDirection(volume.direction.ravel().tolist())
    sitk.WriteImage(image, str(path))


def measure(volume: Volume, lung: NDArray[np.bool_], repeats: int, copies: int) -> dict[str, Any]:
    """All measurements on one scan."""
    with threadpool_limits(1):
        results = {
            "slices": volume.shape[0],
            "spacing_xyz_mm": [round(s, 3) for s in volume.spacing_xyz_mm],
            "side_by_side": side_by_side(volume, places(volume, lung, A_SCAN, 0), repeats),
            "growth": growth(volume, lung, repeats),
        }
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "scan.mhd"
        write_mhd(path, volume)
        header = candidates.read_header(path)
        reading = statistics.median(cpu(lambda: candidates.read(header))[0] for _ in range(repeats))
        results["reading_cpu_s"] = round(reading, 3)
        results["builds"] = [whole_build(path, volume, lung, copies, jobs) for jobs in (1, 2)]
        results["two_processes_measured"] = against(*results["builds"])
    return results


def against(one: dict[str, Any], two: dict[str, Any]) -> dict[str, float]:
    """What a build on two processes gained over the same on one.

    Returns:
        How many times as fast it was by the clock, 2 at best, which on a busy machine says as much
        of its neighbours; and how many times the processor's time it took, 1 at best.
    """
    return {
        "times_as_fast_by_the_clock": round(one["clock_s"] / two["clock_s"], 2),
        "times_the_cpu_s": round(two["cpu_s"] / one["cpu_s"], 2),
        "load": max(one["load"], two["load"]),
    }


def in_full(result: dict[str, Any]) -> dict[str, Any]:
    """The time of LUNA-16's 551,065 candidates in 888 scans, from one scan's costs."""
    scans = lidc.scans()
    slices = int(scans.loc[scans["series_uid"].isin(lidc.luna16_series()), "slices"].sum())
    a_slice = (result["growth"]["s_a_scan"] + result["reading_cpu_s"]) / result["slices"]
    parts = a_slice * slices + result["growth"]["ms_a_candidate"] / 1000 * CANDIDATES
    # What a build takes beyond these two: writing, checksums, the journal.
    build = result["builds"][0]
    expected = build["scans"] * a_slice * result["slices"]
    expected += result["growth"]["ms_a_candidate"] / 1000 * build["candidates"]
    whole = parts * max(1.0, build["cpu_s"] / expected)
    return {
        "candidates": CANDIDATES,
        "slices": slices,
        "cpu_s": round(whole),
        "build_over_its_parts": round(build["cpu_s"] / expected, 2),
        "minutes_on_2_cores_calculated": round(whole / 2 / 60),
        "minutes_on_16_cores_calculated": round(whole / 16 / 60, 1),
        "gb_of_views": round(CANDIDATES * 9 * 76 * 76 / 1e9, 1),
    }


def in_ms(seconds: Iterable[float]) -> float:
    return round(1000 * statistics.median(seconds), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patient", default="LIDC-IDRI-0168", help="whose scan is simulated")
    parser.add_argument("--dicom", type=Path, help="folder of a real CT")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--copies", type=int, default=6, help="scans of a build")
    parser.add_argument("--out", type=Path, help="write the measurement as JSON")
    args = parser.parse_args()

    volume, truth = simulated_scan(args.patient)
    volume = replace(volume, voxels=np.array(volume.voxels))
    scans = {"simulated": measure(volume, np.array(truth.lung), args.repeats, args.copies)}
    scans["simulated"]["patient_id"] = args.patient
    if args.dicom:
        real = read_dicom(args.dicom)
        scans["real"] = measure(real, lungs.segment(real), args.repeats, args.copies)
        scans["real"]["series_uid"] = real.series_uid
    result = {
        "what": "views of LUNA-16's candidates: all of a scan's at once, and a whole build",
        "scans": scans,
        "in_full": in_full(scans["simulated"]),
        "largest_scan_gb_of_a_process": largest_scan_gb(),
        **provenance(),
    }
    for name, found in scans.items():
        pair, line = found["side_by_side"], found["growth"]
        print(
            f"{name}: {pair['at_once_ms_a_candidate']} ms a candidate at once, "
            f"{pair['one_at_a_time_ms']} one at a time, {pair['times_faster']} times faster; "
            f"differ by {pair['largest_difference_hu']} HU; "
            f"{line['ms_a_candidate']} ms a candidate and {line['s_a_scan']} s a scan"
        )
    full = result["in_full"]
    print(f"{CANDIDATES} candidates: {duration(60.0 * full['minutes_on_2_cores_calculated'])} on "
          "two cores, calculated")  # fmt: skip
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
