"""What it costs a method that real cubes hold only the nodule's own slices, on simulated CT.

    python -m benchmarks.missing_slices SIMULATED --runs FOLDER [--methods NAME ...] --out FILE.json

The real cubes that can be had without a download of 125 GB have air above and below the nodule, in
8 bits. Here simulated cubes are stored in 8 bits, too, once whole and once cut to the slices on
which readers drew the nodule, and every method is cross-validated on both, in the same folds. What
is trained is taken up again: the command goes on after an interruption.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import command
from labkit import profiles
from labkit.annotations import lidc
from labkit.cohorts.build import build_cubes
from labkit.cohorts.cohort import CUBE_SIZE, Cohort
from labkit.evaluation import crossval
from labkit.evaluation.predictions import FUSED, SIZE_ONLY, read_predictions
from labkit.imaging.views import window
from labkit.io import read_json
from labkit.paper.values import compare, correct, measure
from labkit.training.machines import provenance

WHOLE, CUT = "whole", "cut"
METHODS = (
    "han2015", "shewaye2016", "descriptors", "radiomics", "kumar2015", "ciompi2015", "yan2016-2d",
    "best",
)  # fmt: skip


def missing_slices(
    simulated: Path, *, runs: Path, methods: tuple[str, ...] = METHODS, folds: int = 10,
    resamples: int = 2000, jobs: int | None = None, progress: bool = True,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Cross-validate methods on whole and cut cubes, and compare; yield all that is there so far.

    Returns numbers ready for JSON: `cohorts`: whole and cut -> what they are; `slices`: how many a
    nodule keeps; `methods`: name -> whole and cut, each AUC with its interval; `comparisons`: name
    -> cut less whole, paired, with Holm's p-values over these in `family`.
    """
    kinds = {kind: _stored(Cohort.open(simulated), runs / kind, kind == CUT)
             for kind in (WHOLE, CUT)}  # fmt: skip
    kept = [int((np.asarray(cube) > -1000).any(axis=(1, 2)).sum())
            for cube in kinds[CUT].require_cubes()]  # fmt: skip
    found: dict[str, Any] = {
        "about": "Simulated cubes in 8 bits, whole and cut to the nodule's own slices.",
        **provenance(),
        "simulated": Cohort.open(simulated).identity,
        "cohorts": {kind: cohort.identity for kind, cohort in kinds.items()},
        "slices": {"median": float(np.median(kept)), "least": min(kept), "most": max(kept)},
        "plan": {"folds": folds, "repeats": 1}, "methods": {}, "comparisons": {}, "trained": {},
    }  # fmt: skip
    for name in methods:
        said = {}
        for kind, cohort in kinds.items():
            out = runs / f"{kind}_{name}"
            config = profiles.get("lab").training(model=name)
            if not (out / "metrics.json").is_file():
                crossval.run(cohort, config, out, folds=folds, jobs=jobs, progress=progress)
            said[kind] = read_predictions(out)
            about = read_json(out / "metrics.json", "a finished run")
            found["trained"][f"{name}, {kind}"] = about["convergence"]
        for which, view in {SIZE_ONLY: SIZE_ONLY, name: FUSED}.items():
            of_kinds = {kind: measure((table, view), resamples) for kind, table in said.items()}
            for values in of_kinds.values():
                del values["roc"]
            found["methods"][which] = of_kinds
        pair = ((said[kind], FUSED) for kind in (CUT, WHOLE))
        found["comparisons"][name] = compare(*pair, resamples)
        yield found | {"family": correct(found["comparisons"])}


def _stored(simulated: Cohort, out: Path, cut: bool) -> Cohort:
    """Store labelled nodules as real cubes are: in 8 bits, and cut to their own slices or whole."""
    if (out / "cohort.json").is_file():
        return Cohort.open(out)
    rows = simulated.labelled
    table, cubes = simulated.nodules.iloc[rows], simulated.require_cubes()
    eight = np.stack([np.rint(255 * window(cubes[row])).astype(np.uint8) for row in rows])
    if cut:
        for cube, nodule in zip(eight, table["nodule_id"], strict=True):
            cube[~own_slices(str(nodule))] = 0
    columns = {name: of.to_numpy(dtype=str if of.dtype == object else float)
               for name, of in table.items() if of.notna().all()}  # fmt: skip
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        np.savez(file := Path(folder) / f"{out.name}.npz", cubes=eight, **columns)
        return build_cubes(file, out, simulated=True)


def own_slices(nodule_id: str) -> NDArray[np.bool_]:
    """Return (64,) which 1 mm slices of a nodule's cube lie on a slice that a reader outlined."""
    nodule = lidc.nodules().set_index("nodule_id").loc[nodule_id]
    half = nodule["slice_spacing_mm"] / 2
    z = np.array([of.z_mm for of in lidc.contours(nodule_id)]) - nodule["center_z_mm"]
    at = np.arange(CUBE_SIZE) - (CUBE_SIZE - 1) / 2
    return (at > z.min() - half) & (at < z.max() + half)


if __name__ == "__main__":
    sys.exit(command(missing_slices, __doc__))
