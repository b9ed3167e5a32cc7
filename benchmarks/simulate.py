"""What simulating costs: a nodule's CT and views, the whole cohort, a whole scan and its DICOM.

    python benchmarks/simulate.py --sizes 10 20 40 80 --cohort --out simulate.json

Nodules are timed on one core, in samples of whole patients as `labkit build simulated --nodules`
takes them. Seconds a nodule that stay the same from size to size mean that the work grows in
proportion. `--cohort` builds all of it with every core, too. The whole scan runs in a process of
its own, so that the memory is the scan's; by itself on one thread, and as `write_scan` runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import scipy
import SimpleITK as sitk
from threadpoolctl import threadpool_limits

from labkit import __version__
from labkit.annotations import lidc
from labkit.cohorts.cohort import Cohort
from labkit.cohorts.simulated import SCENE_VERSION, build_simulated, center_of, scan_crop, select
from labkit.imaging.views import cube_and_views
from labkit.simulate.scan import series_named
from labkit.simulate.scanner import truth, whole_scan
from labkit.simulate.scene import scene_for_series
from labkit.simulate.write_dicom import read_scan, write_scan
from labkit.training.machines import now

SCAN = "LIDC-IDRI-0001"  # 512 x 512 x 133


def measure(size: int, seed: int) -> dict[str, float]:
    """Seconds a nodule for a sample of about `size`: scene, scan, views, and all of it."""
    table = select(lidc.nodules(), seed=seed, n_nodules=size)
    scene_for_series.cache_clear()
    spent = {"scene": 0.0, "scan": 0.0, "views": 0.0}
    voxels = 0
    wall, cpu = time.perf_counter(), time.process_time()
    for _, row in table.iterrows():
        start = time.perf_counter()
        scene_for_series(row["series_uid"], seed)
        built = time.perf_counter()
        volume = scan_crop(row, seed)
        scanned = time.perf_counter()
        voxels += volume.voxels.size
        cube_and_views(volume, center_of(row))
        spent["scene"] += built - start
        spent["scan"] += scanned - built
        spent["views"] += time.perf_counter() - scanned
    n = len(table)
    return {
        "nodules": n,
        "scans": int(table["series_uid"].nunique()),
        # Thin slices make larger crops, and samples differ in them.
        "megavoxels": round(voxels / n / 1e6, 3),
        **{f"{name}_s": round(value / n, 4) for name, value in spent.items()},
        "wall_s": round((time.perf_counter() - wall) / n, 4),
        "cpu_s": round((time.process_time() - cpu) / n, 4),
    }


def linearity(runs: list[dict[str, float]]) -> dict[str, float]:
    """How seconds grow with nodules: the slope of a line through the samples, and the ratio."""
    nodules = np.array([run["nodules"] for run in runs])
    seconds = {kind: np.array([run[kind] for run in runs]) for kind in ("wall_s", "cpu_s")}
    slope = {
        f"{kind}_a_nodule": round(float(np.polyfit(nodules, nodules * each, 1)[0]), 4)
        for kind, each in seconds.items()
        if len(runs) > 1
    }
    # Processor time does not see what else the machine was doing.
    each = seconds["cpu_s"]
    a_voxel = each / [run["megavoxels"] for run in runs]
    return {
        **slope,
        "largest_over_smallest": round(float(each[-1] / each[0]), 3),
        "largest_over_smallest_a_voxel": round(float(a_voxel[-1] / a_voxel[0]), 3),
    }


def measure_scan(seed: int, threads: int | None) -> dict[str, float]:
    """One whole scan, its truth, and its DICOM; in this process, whose memory is reported."""
    series_uid = series_named(SCAN)
    lidc.annotations()  # the database is read once a process, whatever is simulated
    seconds = {}
    start = time.perf_counter()
    scene = scene_for_series(series_uid, seed)
    seconds["scene_s"] = time.perf_counter() - start
    start, cpu = time.perf_counter(), time.process_time()
    volume = whole_scan(scene, jobs=threads)
    seconds["scan_s"] = time.perf_counter() - start
    seconds["scan_cpu_s"] = time.process_time() - cpu
    start = time.perf_counter()
    truth(scene)
    seconds["truth_s"] = time.perf_counter() - start
    memory = {"scan_peak_gb": _peak_gb()}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "scan"
        start = time.perf_counter()
        write_scan(scene, out, truth=True, jobs=threads, progress=False)
        # It simulates the scan once more: what is left is the writing.
        seconds["write_scan_s"] = time.perf_counter() - start
        seconds["dicom_s"] = seconds["write_scan_s"] - seconds["scan_s"] - seconds["truth_s"]
        start = time.perf_counter()
        again = read_scan(out)
        seconds["read_dicom_s"] = time.perf_counter() - start
        megabytes = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    if not np.array_equal(again.voxels, volume.voxels):
        raise SystemExit("the DICOM series does not hold the scan's voxels")
    return {
        "slices": volume.shape[0],
        "threads": threads or 0,
        **{name: round(value, 2) for name, value in seconds.items()},
        **{name: round(value, 2) for name, value in memory.items()},
        "dicom_peak_gb": round(_peak_gb(), 2),
        "dicom_mb": round(megabytes, 1),
    }


def _peak_gb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def in_a_fresh_process(seed: int, threads: int | None) -> dict[str, float]:
    command = [sys.executable, __file__, "--only-scan", str(threads or 0), "--seed", str(seed)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def measure_cohort(seed: int) -> dict[str, float]:
    """All 1,192 nodules on all cores, in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        build_simulated(Path(folder) / "all", seed=seed)
        built = time.perf_counter() - start
        cohort = Cohort.open(Path(folder) / "all")
        start = time.perf_counter()
        cohort.verify()
        return {
            "nodules": len(cohort),
            "cores": os.cpu_count() or 1,
            "wall_s": round(built, 1),
            "verify_s": round(time.perf_counter() - start, 2),
        }


def machine() -> dict[str, object]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "python": platform.python_version(),
        "labkit": __version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "pandas": pd.__version__,
        "pydicom": pydicom.__version__,
        "simpleitk": sitk.Version.VersionString(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 20, 40, 80])
    parser.add_argument("--cohort", action="store_true", help="build all 1,192 nodules, too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the measurements here, as JSON")
    parser.add_argument("--only-scan", type=int, metavar="THREADS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_scan is not None:
        print(json.dumps(measure_scan(options.seed, options.only_scan or None)))
        return
    about = machine()
    # The database is read once a process, whatever the number of nodules.
    scan_crop(lidc.nodules().iloc[0], options.seed, half_width_mm=5.0)
    runs = []
    with threadpool_limits(limits=1):
        for size in sorted(options.sizes):
            runs.append(measure(size, options.seed))
            print("  ".join(f"{name} {value}" for name, value in runs[-1].items()), flush=True)
    line = linearity(runs)
    each = line.get("wall_s_a_nodule", runs[-1]["wall_s"])
    full = len(lidc.nodules())
    extrapolated = {
        "nodules": full,
        "one_core_s": round(full * each),
        f"{os.cpu_count()}_cores_s": round(full * each / (os.cpu_count() or 1)),
        "one_core_cpu_s": round(full * line.get("cpu_s_a_nodule", runs[-1]["cpu_s"])),
    }
    print(f"linearity {line}\nextrapolated {extrapolated}", flush=True)
    scans = [in_a_fresh_process(options.seed, threads) for threads in (1, None)]
    print("\n".join(f"{SCAN} {scan}" for scan in scans), flush=True)
    cohort = measure_cohort(options.seed) if options.cohort else None
    if cohort:
        print(f"cohort {cohort}")
    if options.out:
        report = {
            "date": now(),
            "machine": about,
            "seed": options.seed,
            "scene_version": SCENE_VERSION,
            "seconds_per_nodule": runs,
            "linearity": line,
            "cohort_extrapolated": extrapolated,
            "cohort": cohort,
            "whole_scan": {"patient_id": SCAN, "runs": scans},
        }
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
