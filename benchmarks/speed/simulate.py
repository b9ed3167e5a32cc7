"""What simulating costs: a nodule's CT and views, the whole cohort, a whole scan and its DICOM.

    python -m benchmarks.speed.simulate [--sizes 10 20 40 80] [--cohort] [--out FILE.json]

Nodules are timed on one core, in samples of whole patients as `labkit build simulated --nodules`
takes them. Seconds a nodule that stay the same from size to size mean that the work grows in
proportion. `--cohort` builds all of it with every core, too. The whole scan runs in a process of
its own, so that the memory is the scan's; by itself on one thread, and as `write_scan` runs it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.common import command, fresh, peak_gb, timed
from labkit.annotations import lidc
from labkit.cohorts.cohort import Cohort
from labkit.cohorts.simulated import build_simulated, select
from labkit.imaging.dicom import read_series
from labkit.imaging.views import cube_and_views
from labkit.io import available_cores
from labkit.simulate.scan import series_named
from labkit.simulate.scanner import center_of, scan_crop, truth, whole_scan
from labkit.simulate.scene import SCENE_VERSION, scene_for_series
from labkit.simulate.write_dicom import write_scan

SCAN = "LIDC-IDRI-0001"  # 512 x 512 x 133


def of_nodules(size: int, seed: int) -> dict[str, float]:
    """Take the seconds a nodule for a sample of about `size`: scene, scan, views, and all of it."""
    table = select(lidc.nodules(), seed=seed, n_nodules=size)
    scene_for_series.cache_clear()

    def simulated() -> list[tuple[float, ...]]:
        each = []
        for _, row in table.iterrows():
            scene = timed(lambda row=row: scene_for_series(row["series_uid"], seed))
            scan = timed(lambda row=row: scan_crop(row, seed))
            of, at = scan.result, center_of(row)
            views = timed(lambda of=of, at=at: cube_and_views(of, at))
            each.append((of.voxels.size / 1e6, scene.clock_s, scan.clock_s, views.clock_s))
        return each

    wall, cpu, each = timed(simulated)
    n, names = len(table), ("scene_s", "scan_s", "views_s", "wall_s", "cpu_s")
    megavoxels, *seconds = np.mean(each, axis=0).tolist()
    return {
        "nodules": n,
        "scans": int(table["series_uid"].nunique()),
        # Thin slices make larger crops, and samples differ in them.
        "megavoxels": round(megavoxels, 3),
        **{k: round(s, 4) for k, s in zip(names, [*seconds, wall / n, cpu / n], strict=True)},
    }


def of_scan(seed: int, threads: int | None) -> dict[str, float]:
    """Take one whole scan's seconds, its truth's and its DICOM's, and this process's memory."""
    lidc.annotations()  # the database is read once a process, whatever is simulated
    made = timed(lambda: scene_for_series(series_named(SCAN), seed))
    scan = timed(lambda: whole_scan(made.result, jobs=threads))
    true = timed(lambda: truth(made.result)).clock_s
    scan_peak = peak_gb()
    with tempfile.TemporaryDirectory() as folder:
        out, how = Path(folder) / "scan", {"truth": True, "jobs": threads, "progress": False}
        written = timed(lambda: write_scan(made.result, out, **how)).clock_s
        again = timed(lambda: read_series(out))
        megabytes = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    assert np.array_equal(again.result.voxels, scan.result.voxels)
    seconds = {
        "scene_s": made.clock_s, "scan_s": scan.clock_s, "scan_cpu_s": scan.cpu_s, "truth_s": true,
        "write_scan_s": written, "read_dicom_s": again.clock_s,
        # It simulates the scan once more: what is left is the writing.
        "dicom_s": written - scan.clock_s - true,
    }  # fmt: skip
    return {
        "slices": scan.result.shape[0], "threads": threads or 0,
        **{name: round(value, 2) for name, value in seconds.items()},
        "scan_peak_gb": scan_peak, "dicom_peak_gb": peak_gb(), "dicom_mb": round(megabytes, 1),
    }  # fmt: skip


def of_cohort(seed: int) -> dict[str, float]:
    """Build all 1,192 nodules on all cores, in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        built = timed(lambda: build_simulated(Path(folder) / "all", seed=seed)).clock_s
        cohort = Cohort.open(Path(folder) / "all")
        return {"nodules": len(cohort), "cores": available_cores(), "wall_s": round(built, 1),
                "verify_s": round(timed(cohort.verify).clock_s, 2)}  # fmt: skip


def measure(
    *, sizes: tuple[int, ...] = (10, 20, 40, 80), cohort: bool = False, seed: int = 0
) -> dict[str, Any]:
    """Measure nodules, a scan and, if asked for, the cohort."""
    # The database is read once a process, whatever the number of nodules.
    scan_crop(lidc.nodules().iloc[0], seed, half_width_mm=5.0)
    with threadpool_limits(limits=1):
        runs = [of_nodules(size, seed) for size in sorted(sizes)]
    return {
        "seed": seed,
        "scene_version": SCENE_VERSION,
        "seconds_per_nodule": runs,
        "cohort": of_cohort(seed) if cohort else None,
        "whole_scan": {"patient_id": SCAN,
                       "runs": [fresh(of_scan, seed, threads) for threads in (1, None)]},
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(command(measure, __doc__))
