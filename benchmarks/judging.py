"""What judging costs at LUNA-16's own size: 551,065 candidates, 1,351 of them nodules, 888 scans.

    python -m benchmarks.judging --out results/benchmark_judging.json

Nothing is trained: two cross-validations' networks (ten folds, nine views) are made to have said
something plausible, and everything that `labkit reproduce table1` does after training is done with
it, step by step: predictions put together and written, intervals, tests, FROC, ways to fuse, the
figure. Each step has its seconds and the most memory that the process held during it, at a tenth of
the size and at all of it, each in a process of its own.

Seconds of the processor are of one thread; `load` says how busy the machine was beside.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit
from threadpoolctl import threadpool_limits

from benchmarks.extraction import Watch
from labkit import profiles
from labkit.annotations import lidc, luna16
from labkit.cohorts.cohort import Cohort
from labkit.evaluation import calibration, candidates, statistics
from labkit.evaluation.crossval import (
    DETECTOR,
    FUSED,
    Unit,
    claim,
    gather,
    kept_folder,
    read_predictions,
    unit_file,
)
from labkit.io import write_json
from labkit.paper import reproduce, table1, values
from labkit.paper.declared import EXPERIMENTS, Amounts, Variant, amounts
from labkit.paper.finished import Finished
from labkit.training.machines import describe_hardware, duration, provenance

CANDIDATES, POSITIVES, SCANS, NODULES, SUBSETS = 551_065, 1_351, 888, 1_186, 10
_MISSED = 0.05  # share of nodules that no candidate hits
_VALIDATED = 1_000  # candidates of an inner validation split
_TABLE1 = EXPERIMENTS["table1"]
_TOGETHER = "predictions, metrics and submission put together and written"
_ALL = "all of table 1, two models"


@dataclass(frozen=True)
class Size:
    """How much is judged.

    Args:
        scans: of LUNA-16's 888; candidates, positives and nodules are as many a scan as there.
        candidates: a scan; None for as many as in LUNA-16.
        views: whose networks there are.
        resamples: of all bootstraps.
    """

    scans: int = SCANS
    candidates: int | None = None
    views: tuple[int, ...] = tuple(range(9))
    resamples: int = 2000


def made_cohort(folder: Path, size: Size, seed: int) -> Cohort:
    """Candidates in the real scans of real patients, at places of nobody's; without any pixel."""
    rng = np.random.default_rng(seed)
    share = size.scans / SCANS
    uids = lidc.luna16_series()[: size.scans]
    patient_of = lidc.scans().set_index("series_uid")["patient_id"]
    total = round(CANDIDATES * share) if size.candidates is None else size.candidates * size.scans
    positives = min(round(POSITIVES * share), total // 2)
    nodules = round(NODULES * share)
    # A nodule lies 100 mm or more from every other, and nothing but its own hits lies near.
    nodule_scan = np.sort(rng.integers(0, size.scans, nodules))
    nodule_x = 100.0 * np.arange(nodules)
    hit = rng.permutation(nodules)[: max(1, round(nodules * (1 - _MISSED)))]
    of_nodule = np.full(total, -1)
    of_nodule[:positives] = np.resize(hit, positives)
    scan = np.where(of_nodule >= 0, nodule_scan[of_nodule], rng.integers(0, size.scans, total))
    order = np.argsort(scan, kind="stable")
    scan, of_nodule = scan[order], of_nodule[order]
    label = (of_nodule >= 0).astype(np.int64)
    x_mm = np.where(label == 1, nodule_x[of_nodule] + rng.uniform(-2, 2, total), 0.0)
    series = np.array(uids, dtype=object)[scan]
    table = pd.DataFrame(
        {
            "nodule_id": [f"c{i:07d}" for i in range(total)],
            "patient_id": patient_of.loc[series].to_numpy(),
            "series_uid": series,
            "x_mm": x_mm,
            "y_mm": np.where(label == 1, 0.0, rng.uniform(-200, -50, total)),
            "z_mm": rng.uniform(-1, 1, total),
            "diameter_mm": np.where(label == 1, 8.0, np.nan),
            "label": label,
            "subset": scan % SUBSETS,
            "score": np.exp(rng.normal(1.5 * label)),
        }
    )
    findings = pd.DataFrame(
        {
            "seriesuid": np.array(uids, dtype=object)[nodule_scan],
            "x_mm": nodule_x, "y_mm": 0.0, "z_mm": 0.0, "diameter_mm": 8.0,
        }
    )  # fmt: skip
    folder.mkdir()
    luna16.write(folder / "annotations.csv", findings)
    luna16.write(folder / "annotations_excluded.csv", findings.iloc[:1].assign(y_mm=500.0))
    pd.DataFrame({"seriesuid": uids}).to_csv(folder / "seriesuids.csv", index=False)
    nothing = np.broadcast_to(np.uint8(0), (total, 9, 76, 76))
    meta = {"name": "judging", "task": "luna16", "simulated": True, "files": {}}
    return Cohort(folder, table, nothing, None, meta)


def made_run(
    cohort: Cohort, variant: Variant, plan: Amounts, out: Path, skill: float, seed: int
) -> list[Unit]:
    """What the networks of a finished run leave, with invented probabilities; returns its units."""
    rng = np.random.default_rng(seed)
    label = cohort.nodules["label"].to_numpy()
    subset = cohort.nodules["subset"].to_numpy()
    common = skill * label + rng.normal(size=len(label))
    prior = np.log(label.mean())
    claim(out, cohort, variant.config(plan.profile, plan.views), plan.full, describe_hardware())
    rows, units = np.arange(len(cohort)), []
    for repeat, fold in plan.full.places():
        test = np.flatnonzero(subset == fold)
        trained = np.flatnonzero(subset != fold)
        ill = trained[label[trained] == 1][::10]
        val = np.union1d(ill, rng.choice(trained, min(_VALIDATED, len(trained)), replace=False))
        for view in plan.views:
            said = expit(prior + common + 0.7 * rng.normal(size=len(rows))).astype(np.float32)
            write_json(
                unit_file(out, repeat, fold, view),
                {
                    "val_auc": 0.9 + 0.01 * view,
                    "best_epoch": 1,
                    "seconds": 60.0,
                    "test_probability": said[test].tolist(),
                    "val_nodule_id": cohort.nodules["nodule_id"].iloc[val].tolist(),
                    "val_probability": said[val].tolist(),
                    "history": [{"epoch": 1, "val_cls": 0.2}],
                },
            )
            units.append(Unit(repeat, fold, view, trained, val, test))
    if variant.keeps_model(plan.profile):
        for view in plan.views:  # stand for the networks, which nothing here looks into
            kept_folder(out, view).mkdir(parents=True)
    return units


def judge(size: Size, seed: int = 0) -> dict[str, Any]:
    """Every step at one size: its seconds, its seconds of the processor, and its peak memory."""
    chosen = dataclasses.replace(
        profiles.get("paper"), task="luna16", folds=SUBSETS, repeats=1, resamples=size.resamples
    )
    plan = dataclasses.replace(amounts(chosen), views=size.views)
    steps: dict[str, dict[str, float]] = {}

    def step(name: str, work: Callable[[], Any]) -> Any:
        with Watch() as watch:
            result = work()
        steps[name] = {
            "seconds": round(watch.clock_s, 2),
            "cpu_s": round(watch.cpu_s, 2),
            "peak_gb": round(watch.peak_bytes / 1e9, 2),
        }
        return result

    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name, threadpool_limits(1):
        folder = Path(name)
        cohort = made_cohort(folder / "cohort", size, seed)
        runs = Finished(cohort, plan, folder / "runs")
        mt, st = _TABLE1.variants
        units = {
            v.label: made_run(cohort, v, plan, runs.run_folder(v), skill, seed + number)
            for number, (v, skill) in enumerate(((mt, 3.2), (st, 3.0)))
        }
        for v in (mt, st):
            out, config = runs.run_folder(v), v.config(chosen, size.views)
            step(
                f"{v.label}: {_TOGETHER}",
                lambda out=out, config=config, v=v: gather(
                    cohort, config, out, units[v.label], False
                ),
            )
        written_mb = (runs.run_folder(mt) / "predictions.csv").stat().st_size / 1e6
        _one_by_one(step, cohort, runs, size)
        del runs
        step(_ALL, lambda: _table1(cohort, plan, folder))
    return {
        "candidates": len(cohort),
        "positives": int(cohort.nodules["label"].sum()),
        "scans": size.scans,
        "patients": int(cohort.nodules["patient_id"].nunique()),
        "predictions": len(cohort) * (len(size.views) + 2),
        "predictions_csv_mb": round(written_mb, 1),
        "resamples": size.resamples,
        "steps": steps,
        "peak_gb": max(s["peak_gb"] for s in steps.values()),
        "load": round(load, 1),
    }


def _one_by_one(
    step: Callable[[str, Callable[[], Any]], Any], cohort: Cohort, runs: Finished, size: Size
) -> None:
    mt, _ = _TABLE1.variants
    table = step("predictions read", lambda: read_predictions(runs.run_folder(mt)))
    y, p, patients = step("one view's scores", lambda: statistics.scores(table, FUSED))
    other: NDArray[np.float64] = statistics.scores(table, "0")[1]
    drawn: dict[str, Any] = {"groups": patients, "resamples": size.resamples}
    step("AUC with its interval", lambda: statistics.bootstrap_auc(y, p, **drawn))
    step("AUC difference", lambda: statistics.bootstrap_auc_difference(y, p, other, **drawn))
    step("rates and Brier score", lambda: statistics.bootstrap_rates(y, p, **drawn))
    step("ROC curve with its band", lambda: statistics.roc_band(y, p, **drawn))
    step("DeLong's test by patient", lambda: statistics.delong_test(y, p, other, groups=patients))
    step(
        "AUC within folds",
        lambda: statistics.within_folds_auc(table, FUSED, resamples=size.resamples),
    )
    step(
        "calibration",
        lambda: calibration.calibration(table, FUSED, resamples=size.resamples),
    )
    step("FROC", lambda: candidates.judge(cohort, table, FUSED, bootstraps=size.resamples))
    pair = ((table, FUSED), (table, DETECTOR))
    step("CPM difference", lambda: values.cpm_difference(cohort, *pair, size.resamples))
    step("a row of table 1", lambda: runs.measure(pair[0]))
    step("a comparison of table 1", lambda: runs.compare(*pair))
    units = runs.units(mt, runs.amounts.plan(mt))
    folds = step(
        "what the networks said, fold by fold",
        lambda: table1.fold_views(table, units, cohort.nodules, size.views),
    )
    step("AUC of every choice of views", lambda: table1.by_count(folds))


def _table1(cohort: Cohort, plan: Amounts, folder: Path) -> None:
    """As `labkit reproduce table1` does it once the networks are there."""
    reproduce.write(_TABLE1, Finished(cohort, plan, folder / "runs"), folder)


def grows(small: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """How many times the candidates, the processor's seconds and the memory of the larger."""
    return {
        "candidates": round(whole["candidates"] / small["candidates"], 1),
        "cpu_s": round(whole["steps"][_ALL]["cpu_s"] / small["steps"][_ALL]["cpu_s"], 1),
        "peak_gb": round(whole["peak_gb"] / small["peak_gb"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--out", type=Path, help="write the measurement as JSON")
    args = parser.parse_args()

    print("about 15 minutes on one core that does nothing else, 3 GB of disk for a while")
    found = {}
    for name, scans in (("a_tenth", SCANS // 10), ("whole", SCANS)):
        # A fresh process, since memory once held counts for ever.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[name] = pool.apply(judge, (Size(scans, resamples=args.resamples),))
        for step, of in found[name]["steps"].items():
            print(f"{name}: {step}: {of['cpu_s']} s of the processor, {of['peak_gb']} GB")
    whole = found["whole"]
    parts = (_ALL, *(f"{v.label}: {_TOGETHER}" for v in _TABLE1.variants))
    seconds = sum(whole["steps"][name]["cpu_s"] for name in parts)
    result = {
        "what": "judging two models on as many candidates as LUNA-16 has, step by step",
        "sizes": found,
        "whole_over_a_tenth": grows(found["a_tenth"], whole),
        "after_training_cpu_s": round(seconds),
        **provenance(),
    }
    print(f"after training: {duration(seconds)} of one core, {whole['peak_gb']} GB at most")
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
