"""How long the nodule table takes: labkit's reader for all scans, pylidc for a sample of them.

pylidc needs minutes for all 1,018 scans, so it is timed on every n-th scan that has annotations,
in the same run and from the same file. Both sides give the same thing: groups, and for every
nodule its centre, diameter, volume and mean ratings. Groups are compared before anything is
reported. labkit is timed in fresh processes, of which the best counts; imports are left out.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from labkit.annotations import lidc
from labkit.annotations.pylidc_compat import import_pylidc

_FRESH = """
import time
from labkit.annotations import lidc
start = time.perf_counter()
assert len(lidc.nodules(min_readers=1, max_slice_thickness_mm=None)) == 2651
print(time.perf_counter() - start)
"""


def time_labkit(repeats: int) -> list[float]:
    """Seconds for all nodules, each time in a process of its own: nothing is cached."""
    runs = [
        subprocess.run([sys.executable, "-c", _FRESH], capture_output=True, text=True, check=True)
        for _ in range(repeats)
    ]
    return [float(run.stdout) for run in runs]


def time_pylidc(every: int) -> tuple[list[int], list[int], float]:
    """Scan ids, annotations a scan, and seconds, for every n-th scan that has annotations."""
    pl = import_pylidc()
    annotations = lidc.annotations()
    ours = annotations.groupby("nodule_id")["annotation_id"].agg(frozenset)
    expected = set(ours)
    scans = [s for s in pl.query(pl.Scan).order_by(pl.Scan.id) if len(s.annotations)][::every]
    pl.query(pl.Scan).session.expire_all()  # reading the outlines is part of the work
    ids = [scan.id for scan in scans]
    counts, groups = [], set()
    start = time.perf_counter()
    for scan in scans:
        for group in scan.cluster_annotations(verbose=False):
            groups.add(frozenset(a.id for a in group))
            np.mean([a.centroid for a in group], axis=0)
            np.mean([a.diameter for a in group])
            np.mean([a.volume for a in group])
            np.mean([a.feature_vals() for a in group], axis=0)
        counts.append(len(scan.annotations))
    seconds = time.perf_counter() - start
    if not groups <= expected:
        raise SystemExit("labkit and pylidc group annotations differently: no timing is worth that")
    return ids, counts, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the numbers to this JSON file")
    parser.add_argument(
        "--every", type=int, default=20, help="pylidc on every n-th scan with annotations (20)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="processes for labkit (3)")
    args = parser.parse_args()
    if args.every < 1 or args.repeats < 1:
        parser.error("--every and --repeats are at least 1")

    labkit_seconds = time_labkit(args.repeats)
    ids, counts, pylidc_seconds = time_pylidc(args.every)
    total = len(lidc.annotations())
    pylidc_all = pylidc_seconds * total / sum(counts)
    result = {
        "what": "all 2,651 nodules: groups, centres, diameters, volumes, mean ratings",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": {"cores": os.cpu_count(), "processor": platform.machine()},
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "labkit_seconds": round(min(labkit_seconds), 3),
        "labkit_seconds_each": [round(s, 3) for s in labkit_seconds],
        "pylidc_sample_scans": len(ids),
        "pylidc_sample_annotations": sum(counts),
        "pylidc_sample_seconds": round(pylidc_seconds, 3),
        "pylidc_seconds_extrapolated_by_annotations": round(pylidc_all, 1),
        "ratio": round(pylidc_all / min(labkit_seconds), 1),
    }
    print(f"labkit, all 1,018 scans: {min(labkit_seconds):.2f} s (best of {args.repeats})")
    print(
        f"pylidc, {len(ids)} scans with {sum(counts)} of {total} annotations: "
        f"{pylidc_seconds:.1f} s; for all about {pylidc_all:.0f} s"
    )
    print(f"ratio: {result['ratio']}")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
