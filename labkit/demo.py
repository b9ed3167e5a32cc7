"""The main job: ST-CNN and MT-CNN against size alone on the simulated cohort, and a report."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from labkit.data.cohort import Cohort
from labkit.data.embedded import simulated_cohort
from labkit.evaluation import crossval, summary
from labkit.evaluation.estimate import estimate_seconds
from labkit.evaluation.runs import Plan
from labkit.files import read_json
from labkit.plots import roc, style, training
from labkit.profiles import Profile
from labkit.report import Report
from labkit.training.config import TrainingConfig
from labkit.training.device import Device
from labkit.training.fit import load
from labkit.training.hardware import describe_hardware, duration
from labkit.training.workers import default_jobs, one_thread

_LABELLED = 751
_NAMES = {"st": "ST-CNN", "mt": "MT-CNN"}


def run(profile: Profile, out: Path, device: str = "auto") -> None:
    """Make the cohort, cross-validate both networks, compare, write `out`/report.html.

    Args:
        profile: how much of everything.
        out: folder of runs and report; what is there already is used.
        device: "auto", "cpu" or "cuda".
    """
    start = time.monotonic()
    plan = Plan(profile.folds, profile.repeats)
    configs = {model: profile.training(model=model) for model in _NAMES}
    chosen = Device.choose(device)
    count = min(profile.nodules or _LABELLED, _LABELLED)
    jobs = default_jobs(chosen)
    with one_thread():
        expected = {
            model: estimate_seconds(count, config, plan, chosen) / jobs
            for model, config in configs.items()
        }
    total = sum(expected.values())
    _say(1, f"the simulated cohort: {count} labelled nodules around the readers' real outlines; "
            f"after it, at most {duration(total)} of training")  # fmt: skip
    cohort = simulated_cohort(profile.nodules, profile.uncertain)
    runs: dict[str, pd.DataFrame] = {}
    left = total
    for step, (model, config) in enumerate(configs.items(), start=2):
        _say(step, f"{_NAMES[model]}, {plan.folds} folds by patient; "
                   f"at most {duration(left)} left in all")  # fmt: skip
        runs[_NAMES[model]] = crossval.run(
            cohort, config, out / model, folds=plan.folds, repeats=plan.repeats, device=device,
            keep_first_model=True,
        )  # fmt: skip
        left -= expected[model]
    _say(4, "comparison and report; a few seconds left")
    table = summary.table(runs, ("fused", "size_only"))
    pair = summary.compare(runs["MT-CNN"], runs["ST-CNN"])
    size = summary.compare(runs["MT-CNN"], runs["MT-CNN"], crossval.FUSED, crossval.SIZE_ONLY)
    minutes = (time.monotonic() - start) / 60
    file = out / "report.html"
    _write_report(cohort, configs["mt"], plan, runs, table, pair, size, out, file, minutes)
    print(table.to_string(index=False))
    print(_sentence("MT-CNN less ST-CNN", pair))
    print(_sentence("MT-CNN less size only", size))
    print(f"\n{minutes:.1f} min. Report: {file}")


def _say(step: int, text: str) -> None:
    print(f"\nStep {step} of 4: {text}", flush=True)


def _sentence(what: str, pair: dict[str, Any]) -> str:
    d, p = pair["auc_difference"], pair["delong"]["p_value"]
    shown = p < 0.05 and not d["low"] <= 0 <= d["high"]
    verdict = "a difference" if shown else "no difference that both tests show"
    return (
        f"AUC of {what}: {d['value']:+.3f} (95 % interval {d['low']:+.3f} to {d['high']:+.3f}, "
        f"DeLong p = {p:.2g}): {verdict}"
    )


def _write_report(
    cohort: Cohort,
    config: TrainingConfig,
    plan: Plan,
    runs: dict[str, pd.DataFrame],
    table: pd.DataFrame,
    pair: dict[str, Any],
    size: dict[str, Any],
    out: Path,
    file: Path,
    minutes: float,
) -> None:
    page = Report("Nine views, two tasks: the simulated cohort")
    page.note(
        "Every image here is simulated: CT made around the outlines, ratings, positions and "
        "spacings that LIDC-IDRI's readers and scanners left. It teaches and tests the method, and "
        "says nothing about patients."
    )
    page.heading("How well benign and malignant nodules are told apart")
    page.text(
        f"{len(cohort.labelled)} nodules, {plan.repeats} x {plan.folds} folds by patient, at most "
        f"{config.epochs} epochs, alpha {config.alpha}. Values with 95 % intervals by bootstrap "
        "over patients; rates at a threshold of 0.5, chosen beforehand."
    )
    page.table(table)
    page.text(_sentence("MT-CNN less ST-CNN", pair) + ".")
    page.text(_sentence("MT-CNN less size only", size) + ".")
    model = load(out / "mt" / "model")
    with style.house_style():
        page.figure(
            roc.roc_figure(runs, simulated=True),
            "ROC curves of the fused predictions with bands that hold point by point. Read them "
            "beside the diameter alone: on LIDC, size is most of what the label says.",
        )
        curves = {name: pd.read_csv(out / m / "history.csv") for m, name in _NAMES.items()}
        page.heading("Learning curves")
        page.figure(
            training.learning_curves(curves, simulated=True),
            "One thin line a network. The validation curves come from patients held out inside "
            "the training folds; they stop training and weigh the views. The test fold does not.",
        )
        page.heading("Nine views, and what the second task reconstructs")
        predictions = runs["MT-CNN"]
        first = predictions[(predictions["fold"] == 0) & (predictions["repeat"] == 0)]
        tested = set(first["nodule_id"])
        rows = _typical_rows(cohort, tested)
        for row in rows:
            probabilities = model.predict(cohort, [row])
            page.figure(
                training.nine_views_figure(
                    cohort, row, probabilities=probabilities[0],
                    fused=float(model.fuse(probabilities)[0]),
                ),
                "A nodule that the networks of the first fold have not seen, in its nine views, "
                "with each view's malignant probability.",
            )  # fmt: skip
        page.figure(
            training.reconstruction_figure(model, cohort, rows),
            "Input and reconstruction. What is missing below is what 4,096 features and the loss "
            "let go: noise first, then fine vessels and spicules.",
        )
    hardware = describe_hardware()
    when = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    seconds = [read_json(out / m / "metrics.json", "a run")["training_seconds"] for m in _NAMES]
    page.save(
        file,
        f"Measured on {when}: {hardware['gpu'] or hardware['processor']}, torch "
        f"{hardware['torch']}; {minutes:.1f} min in all, {sum(seconds) / 60:.1f} min of network "
        "training summed over processes.",
    )


def _typical_rows(cohort: Cohort, tested: set[str]) -> list[int]:
    """A benign and a malignant nodule of the test fold, each of median size in its class."""
    table = cohort.nodules
    rows = []
    for label in (0, 1):
        among = table[table["nodule_id"].isin(tested) & (table["label"] == label)]
        order = among["diameter_mm"].sort_values(kind="stable")
        rows.append(int(order.index[len(order) // 2]))
    return [int(r) for r in np.asarray(rows)]
