"""What judging costs at LUNA-16's own size: 551,065 candidates, 1,351 of them nodules, 888 scans.

    python -m benchmarks.speed.judging --out results/benchmark_judging.json

Nothing is trained: two cross-validations' networks (ten folds, nine views) are made to have said
something plausible, and everything that `labkit reproduce table1` does after training is done with
it. Each step has its seconds and the most memory that the process held during it, at a tenth of the
size and at all of it, each in a process of its own. Seconds of the processor are of one thread;
`load` says how busy the machine was beside.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit
from threadpoolctl import threadpool_limits

from benchmarks.common import command, fresh, watched
from labkit import profiles
from labkit.annotations import lidc, luna16
from labkit.cohorts.cohort import Cohort
from labkit.evaluation import crossval
from labkit.evaluation.crossval import Network
from labkit.io import write_json
from labkit.paper import reproduce
from labkit.paper.declared import EXPERIMENTS, Variant
from labkit.paper.values import Runs
from labkit.profiles import Profile
from labkit.training.machines import describe_hardware

CANDIDATES, POSITIVES, SCANS, NODULES, SUBSETS = 551_065, 1_351, 888, 1_186, 10
_MISSED = 0.05  # share of nodules that no candidate hits
_VALIDATED = 1_000  # candidates of an inner validation split
_TABLE1 = EXPERIMENTS["table1"]
_TOGETHER = "predictions, metrics and submission put together and written"
_ALL = "all of table 1, two models"


class Size(NamedTuple):
    """How many scans are judged, candidates a scan (None: LUNA-16's), views, and resamples."""

    scans: int = SCANS
    candidates: int | None = None
    views: tuple[int, ...] = tuple(range(9))
    resamples: int = 2000


def made_cohort(folder: Path, size: Size, seed: int) -> Cohort:
    """Make candidates in the real scans of real patients, at places of nobody's, without pixels."""
    rng = np.random.default_rng(seed)
    share = size.scans / SCANS
    uids = np.array(lidc.luna16_series()[: size.scans], dtype=object)
    total = round(CANDIDATES * share) if size.candidates is None else size.candidates * size.scans
    positives, nodules = min(round(POSITIVES * share), total // 2), round(NODULES * share)
    # A nodule lies 100 mm or more from every other, and nothing but its own hits lies near.
    nodule_scan = np.sort(rng.integers(0, size.scans, nodules))
    nodule_x = 100.0 * np.arange(nodules)
    hit = rng.permutation(nodules)[: max(1, round(nodules * (1 - _MISSED)))]
    of_nodule = np.full(total, -1)
    of_nodule[:positives] = np.resize(hit, positives)
    scan = np.where(of_nodule >= 0, nodule_scan[of_nodule], rng.integers(0, size.scans, total))
    order = np.argsort(scan, kind="stable")
    scan, of_nodule = scan[order], of_nodule[order]
    ill = of_nodule >= 0
    table = pd.DataFrame({
        "nodule_id": [f"c{i:07d}" for i in range(total)],
        "patient_id": lidc.scans().set_index("series_uid")["patient_id"].loc[uids[scan]].array,
        "series_uid": uids[scan],
        "x_mm": np.where(ill, nodule_x[of_nodule] + rng.uniform(-2, 2, total), 0.0),
        "y_mm": np.where(ill, 0.0, rng.uniform(-200, -50, total)),
        "z_mm": rng.uniform(-1, 1, total), "diameter_mm": np.where(ill, 8.0, np.nan),
        "label": ill.astype(np.int64), "subset": scan % SUBSETS,
        "score": np.exp(rng.normal(1.5 * ill)),
    })  # fmt: skip
    findings = pd.DataFrame({"seriesuid": uids[nodule_scan], "x_mm": nodule_x, "y_mm": 0.0,
                             "z_mm": 0.0, "diameter_mm": 8.0})  # fmt: skip
    folder.mkdir()
    luna16.write(folder / "annotations.csv", findings)
    luna16.write(folder / "annotations_excluded.csv", findings.iloc[:1].assign(y_mm=500.0))
    pd.DataFrame({"seriesuid": uids}).to_csv(folder / "seriesuids.csv", index=False)
    nothing = np.broadcast_to(np.uint8(0), (total, 9, 76, 76))
    meta = {"name": "judging", "task": "luna16", "simulated": True, "files": {}}
    return Cohort(folder, table, nothing, None, meta)


def made_run(
    cohort: Cohort, variant: Variant, profile: Profile, out: Path, skill: float, seed: int
) -> list[Network]:
    """Invent what the networks of a finished run leave; return them."""
    rng = np.random.default_rng(seed)
    label, subset, ids = (cohort.nodules[k].to_numpy() for k in ("label", "subset", "nodule_id"))
    common, prior = skill * label + rng.normal(size=len(label)), np.log(label.mean())
    crossval.claim(out, cohort, variant.config(profile), profile.plan(), describe_hardware())
    networks = []
    for repeat, fold in profile.plan().places():
        test, trained = np.flatnonzero(subset == fold), np.flatnonzero(subset != fold)
        ill = trained[label[trained] == 1][::10]
        val = np.union1d(ill, rng.choice(trained, min(_VALIDATED, len(trained)), replace=False))
        for view in profile.paper_views:
            said = expit(prior + common + 0.7 * rng.normal(size=len(label))).astype(np.float32)
            place = (repeat, fold, view)
            unit = {
                "val_auc": 0.9 + 0.01 * view, "prior_shift": 0.0, "best_epoch": 1, "seconds": 60.0,
                "test_probability": said[test].tolist(), "val_nodule_id": ids[val].tolist(),
                "val_probability": said[val].tolist(), "history": [{"epoch": 1, "val_cls": 0.2}],
            }  # fmt: skip
            write_json(crossval.network_file(out, place), unit)
            networks.append(Network(place, trained, val, test))
    if variant.keeps_model(profile):
        for view in profile.paper_views:  # stand for the networks, which nothing here looks into
            crossval.kept_folder(out, view).mkdir(parents=True)
    return networks


def judge(size: Size, seed: int = 0) -> dict[str, Any]:
    """Take every step at one size: its seconds, of the clock and the processor, and its memory."""
    chosen = replace(profiles.get("paper"), task="luna16", folds=SUBSETS, repeats=1, rivals=(),
                     resamples=size.resamples, paper_views=size.views)  # fmt: skip
    steps: dict[str, dict[str, float]] = {}

    def step(name: str, work: Callable[..., Any], *given: Any) -> None:
        with watched() as watch:
            work(*given)
        steps[name] = {"seconds": round(watch.clock_s, 2), "cpu_s": round(watch.cpu_s, 2),
                       "peak_gb": watch.peak_gb}  # fmt: skip

    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name, threadpool_limits(1):
        folder = Path(name)
        cohort = made_cohort(folder / "cohort", size, seed)
        runs = Runs(cohort, chosen, folder / "runs")
        for number, (v, skill) in enumerate(zip(_TABLE1.of(chosen), (3.2, 3.0), strict=True)):
            out = runs.run_folder(v)
            networks = made_run(cohort, v, chosen, out, skill, seed + number)
            step(f"{v.label}: {_TOGETHER}", crossval.join_predictions, cohort, v.config(chosen),
                 out, networks, False)  # fmt: skip
        # As `labkit reproduce table1` does it once the networks are there.
        step(_ALL, reproduce.write, _TABLE1, runs, folder)
    return {
        "candidates": len(cohort),
        "positives": int(cohort.nodules["label"].sum()),
        "scans": size.scans,
        "patients": int(cohort.nodules["patient_id"].nunique()),
        "predictions": len(cohort) * (len(size.views) + 2),
        "resamples": size.resamples,
        "steps": steps,
        "peak_gb": max(s["peak_gb"] for s in steps.values()),
        "load": round(load, 1),
    }


def measure(*, resamples: int = 2000) -> dict[str, Any]:
    """Judge a tenth of LUNA-16 and all of it."""
    print("about 15 minutes on one core that does nothing else, 3 GB of disk for a while")
    small, whole = (fresh(judge, Size(of, resamples=resamples)) for of in (SCANS // 10, SCANS))
    seconds = {name: of["cpu_s"] for name, of in whole["steps"].items()}
    return {
        "sizes": {"a_tenth": small, "whole": whole},
        "whole_over_a_tenth": {
            "candidates": round(whole["candidates"] / small["candidates"], 1),
            "cpu_s": round(seconds[_ALL] / small["steps"][_ALL]["cpu_s"], 1),
            "peak_gb": round(whole["peak_gb"] / small["peak_gb"], 1),
        },
        "after_training_cpu_s": round(sum(seconds.values())),
    }


if __name__ == "__main__":
    sys.exit(command(measure, __doc__))
