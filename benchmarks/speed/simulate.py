"""What simulating costs: a nodule's CT and views, the whole cohort, a whole scan and its DICOM.

    python -m benchmarks.speed.simulate [--sizes 10 20 40 80] [--cohort] [--out FILE.json]

Nodules are timed on one core, in samples of whole patients as `labkit build simulated --nodules`
takes them. Seconds a nodule that stay the same from size to size mean that the work grows in
proportion. `--cohort` builds all of it with every core, too. The whole scan runs in a process of
its own, so that the memory is the scan's; by itself on one thread, and as `write_scan` runs it.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from threadpoolctl import threadpool_limits

from benchmarks.common import command, fresh, peak_gb, timed
from labkit import __version__
from labkit.annotations import lidc
from labkit.cohorts.cohort import Cohort
from labkit.cohorts.simulated import build_simulated, select
from labkit.imaging.views import cube_and_views
from labkit.simulate.scan import series_named
from labkit.simulate.scanner import center_of, scan_crop, truth, whole_scan
from labkit.simulate.scene import SCENE_VERSION, scene_for_series
from labkit.simulate.write_dicom import read_scan, write_scan
from labkit.training.machines import describe_hardware, now

SCAN = "LIDC-IDRI-0001"  # 512 x 512 x 133


def of_nodules(size: int, seed: int) -> dict[str, float]:
    """Take the seconds a nodule for a sample of about `size`: scene, scan, views, and all of it."""
    table = select(lidc.nodules(), seed=seed, n_nodules=size)
    scene_for_series.cache_clear()

    def simulated() -> list[tuple[float, float, float, int]]:
        each = []
        for _, row in table.iterrows():
            uid = row["series_uid"]
            scene = timed(lambda uid=uid: scene_for_series(uid, seed))
            scan = timed(lambda row=row: scan_crop(row, seed))
            volume = scan.result
            views = timed(lambda row=row, volume=volume: cube_and_views(volume, center_of(row)))
            each.append((scene.clock_s, scan.clock_s, views.clock_s, volume.voxels.size))
        return each

    wall, cpu, each = timed(simulated)
    scene_s, scan_s, views_s, voxels = np.mean(each, axis=0)
    n = len(table)
    return {
        "nodules": n,
        "scans": int(table["series_uid"].nunique()),
        # Thin slices make larger crops, and samples differ in them.
        "megavoxels": round(voxels / 1e6, 3),
        "scene_s": round(scene_s, 4),
        "scan_s": round(scan_s, 4),
        "views_s": round(views_s, 4),
        "wall_s": round(wall / n, 4),
        "cpu_s": round(cpu / n, 4),
    }


def linearity(runs: list[dict[str, float]]) -> dict[str, float]:
    """Tell how seconds grow with nodules: the slope of a line through the samples, and the ratio.

    Processor time does not see what else the machine was doing.
    """
    nodules, cpu, size = (
        np.array([r[k] for r in runs]) for k in ("nodules", "cpu_s", "megavoxels")
    )
    slopes = {
        f"{kind}_a_nodule": round(float(np.polyfit(nodules, [r[kind] * r["nodules"] for r in runs],
                                                   1)[0]), 4)
        for kind in ("wall_s", "cpu_s")
        if len(runs) > 1
    }  # fmt: skip
    return {
        **slopes,
        "largest_over_smallest": round(float(cpu[-1] / cpu[0]), 3),
        "largest_over_smallest_a_voxel": round(float(cpu[-1] / size[-1] / (cpu[0] / size[0])), 3),
    }


def of_scan(seed: int, threads: int | None) -> dict[str, float]:
    """Take one whole scan's seconds, its truth's and its DICOM's, and this process's memory."""
    uid = series_named(SCAN)
    lidc.annotations()  # the database is read once a process, whatever is simulated
    made = timed(lambda: scene_for_series(uid, seed))
    scan = timed(lambda: whole_scan(made.result, jobs=threads))
    true = timed(lambda: truth(made.result)).clock_s
    scan_peak = peak_gb()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "scan"
        written = timed(
            lambda: write_scan(made.result, out, truth=True, jobs=threads, progress=False)
        ).clock_s
        again = timed(lambda: read_scan(out))
        megabytes = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    assert np.array_equal(again.result.voxels, scan.result.voxels)
    seconds = {
        "scene_s": made.clock_s,
        "scan_s": scan.clock_s,
        "scan_cpu_s": scan.cpu_s,
        "truth_s": true,
        "write_scan_s": written,
        # It simulates the scan once more: what is left is the writing.
        "dicom_s": written - scan.clock_s - true,
        "read_dicom_s": again.clock_s,
    }
    return {
        "slices": scan.result.shape[0],
        "threads": threads or 0,
        **{name: round(value, 2) for name, value in seconds.items()},
        "scan_peak_gb": scan_peak,
        "dicom_peak_gb": peak_gb(),
        "dicom_mb": round(megabytes, 1),
    }


def of_cohort(seed: int) -> dict[str, float]:
    """Build all 1,192 nodules on all cores, in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        built = timed(lambda: build_simulated(Path(folder) / "all", seed=seed)).clock_s
        cohort = Cohort.open(Path(folder) / "all")
        verified = timed(cohort.verify).clock_s
        return {"nodules": len(cohort), "cores": os.cpu_count() or 1, "wall_s": round(built, 1),
                "verify_s": round(verified, 2)}  # fmt: skip


def measure(
    *, sizes: tuple[int, ...] = (10, 20, 40, 80), cohort: bool = False, seed: int = 0
) -> dict[str, Any]:
    """Measure nodules, a scan and, if asked for, the cohort."""
    machine = {
        "processor": describe_hardware()["processor"],
        "cores": os.cpu_count(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "python": platform.python_version(),
        "labkit": __version__,
        **{name: version(name) for name in ("numpy", "scipy", "pandas", "pydicom")},
        "simpleitk": sitk.Version.VersionString(),
    }
    # The database is read once a process, whatever the number of nodules.
    scan_crop(lidc.nodules().iloc[0], seed, half_width_mm=5.0)
    with threadpool_limits(limits=1):
        runs = [of_nodules(size, seed) for size in sorted(sizes)]
    line, full, cores = linearity(runs), len(lidc.nodules()), os.cpu_count() or 1
    each = line.get("wall_s_a_nodule", runs[-1]["wall_s"])
    return {
        "date": now(),
        "machine": machine,
        "seed": seed,
        "scene_version": SCENE_VERSION,
        "seconds_per_nodule": runs,
        "linearity": line,
        "cohort_extrapolated": {
            "nodules": full,
            "one_core_s": round(full * each),
            f"{cores}_cores_s": round(full * each / cores),
            "one_core_cpu_s": round(full * line.get("cpu_s_a_nodule", runs[-1]["cpu_s"])),
        },
        "cohort": of_cohort(seed) if cohort else None,
        "whole_scan": {
            "patient_id": SCAN,
            "runs": [fresh(of_scan, seed, threads) for threads in (1, None)],
        },
    }


if __name__ == "__main__":
    sys.exit(command(measure, __doc__))
