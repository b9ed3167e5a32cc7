"""How long it takes to simulate a nodule's CT and to extract its views, on one core.

    python benchmarks/simulate.py --sizes 10 20 40 --out simulate.json

Each size is a sample of whole patients, as `labkit build simulated --nodules` takes it. Seconds a
nodule that stay the same from size to size mean that the work grows in proportion.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
from pathlib import Path

from threadpoolctl import threadpool_limits

from labkit.data import lidc
from labkit.data.simulate.build import center_of, scan_crop, select
from labkit.data.simulate.scene import scene_for_series
from labkit.imaging.views import cube_and_views


def measure(size: int, seed: int) -> dict[str, float]:
    """Seconds a nodule for a sample of about `size`: scene, scan, views, and all of it."""
    table = select(lidc.nodules(), seed=seed, n_nodules=size)
    scene_for_series.cache_clear()
    spent = {"scene": 0.0, "scan": 0.0, "views": 0.0}
    wall, cpu = time.perf_counter(), time.process_time()
    for _, row in table.iterrows():
        start = time.perf_counter()
        scene_for_series(row["series_uid"], seed)
        built = time.perf_counter()
        volume = scan_crop(row, seed)
        scanned = time.perf_counter()
        cube_and_views(volume, center_of(row))
        spent["scene"] += built - start
        spent["scan"] += scanned - built
        spent["views"] += time.perf_counter() - scanned
    n = len(table)
    return {
        "nodules": n,
        "scans": int(table["series_uid"].nunique()),
        **{f"{name}_s": round(value / n, 4) for name, value in spent.items()},
        "wall_s": round((time.perf_counter() - wall) / n, 4),
        "cpu_s": round((time.process_time() - cpu) / n, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 20, 40, 80])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the measurements here, as JSON")
    options = parser.parse_args()
    # The database is read once a process, whatever the number of nodules.
    scan_crop(lidc.nodules().iloc[0], options.seed, half_width_mm=5.0)
    runs = []
    with threadpool_limits(limits=1):
        for size in options.sizes:
            runs.append(measure(size, options.seed))
            print("  ".join(f"{name} {value}" for name, value in runs[-1].items()), flush=True)
    if options.out:
        report = {
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "machine": platform.machine(),
            "processor": platform.processor(),
            "python": platform.python_version(),
            "seed": options.seed,
            "seconds_per_nodule": runs,
        }
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
