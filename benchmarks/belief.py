"""How far to believe two finished runs: every test, size, calibration and the readers, as JSON.

    python -m benchmarks.belief RUN_ST RUN_MT COHORT --out results/real_belief.json

The runs are those of our rows of Table 1, which `labkit reproduce table1` leaves in its folder.
Lesson 13 shows what this wrote. It holds numbers only, no images and no predictions, so that it can
be committed where the runs cannot.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.command import write_computed
from labkit.annotations import lidc
from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation import calibration as evaluation_calibration
from labkit.evaluation import crossval, readers, size, statistics
from labkit.evaluation.calibration import BrierParts, Calibration, calibration
from labkit.evaluation.readers import ReaderCeiling
from labkit.evaluation.statistics import Interval
from labkit.io import read_json
from labkit.paper import values as measured
from labkit.paper.values import plain
from labkit.training.machines import provenance

ST, MT, SIZE = "ST-CNN", "MT-CNN", "size only"
MAX_SLICE_THICKNESS_MM = 2.5
_DIGITS = 6


def belief(
    st_run: Path,
    mt_run: Path,
    cohort_folder: Path,
    *,
    resamples: int = 2000,
) -> dict[str, Any]:
    """Judge the runs of ST-CNN and MT-CNN on one cohort in every way of lesson 13.

    Args:
        st_run, mt_run: folders of finished runs on the same folds.
        cohort_folder: that they were trained on, with diameters.
        resamples: of the bootstraps over patients.

    Returns:
        Numbers ready for JSON: `methods`, `comparisons` with Holm's `family`, `specificity` of MT
        less ST, `fusion` less each single view, with Holm's `fusion_family` of each network,
        `bands`, `size_matched`, `calibration`, `temperature`, `readers`, and what was trained,
        where and when.

    Raises:
        InputError: an unfinished run, runs of other models, cohorts or folds.
    """
    cohort = Cohort.open(cohort_folder)
    trained = {
        ST: _finished(st_run, "st", cohort),
        MT: _finished(mt_run, "mt", cohort),
    }
    st, mt = crossval.read_predictions(st_run), crossval.read_predictions(mt_run)
    methods = {ST: (st, crossval.FUSED), MT: (mt, crossval.FUSED), SIZE: (st, crossval.SIZE_ONLY)}
    comparisons = {
        f"{a} less {b}": measured.compare(methods[a], methods[b], resamples)
        for a, b in ((MT, ST), (MT, SIZE), (ST, SIZE))
    }
    family = measured.correct(comparisons)
    fusion = {name: _fused_less_views(methods[name][0], resamples) for name in (ST, MT)}
    return {
        "about": "What two finished runs can and cannot claim; see lesson 13.",
        **provenance(),
        "cohort": trained[ST]["cohort"],
        "trained": trained,
        "resamples": resamples,
        "methods": {name: _measured(run, resamples) for name, run in methods.items()},
        "comparisons": comparisons,
        "family": family,
        "specificity": {
            f"{MT} less {ST}": plain(_specificity_difference(mt, st, resamples)),
        },
        "fusion": fusion,
        "fusion_family": {name: measured.correct(pairs) for name, pairs in fusion.items()},
        "bands": _records(size.by_size(methods, cohort.nodules, resamples=resamples)),
        "size_matched": {
            name: _matched(run, cohort.nodules, resamples) for name, run in methods.items()
        },
        "calibration": {
            name: from_calibration(calibration(*run, resamples=resamples))
            for name, run in methods.items()
        },
        "temperature": {
            ST: scale(st_run, cohort, resamples),
            MT: scale(mt_run, cohort, resamples),
        },
        "readers": _readers(methods, cohort, resamples),
    }


def scale(run: Path, cohort: Cohort, resamples: int = 2000) -> dict[str, Any]:
    """Calibration of a run's fused probabilities before and after temperature scaling.

    Args:
        run: folder of a finished run.
        cohort: that it was trained on.
        resamples: of the bootstraps.

    Returns:
        `temperatures` (one a repeat and fold), `before` and `after` as `from_calibration` gives
        them, and how the run was trained; or `not_computed` and why.
    """
    predictions = crossval.read_predictions(run)
    values = read_json(run / "metrics.json", "a finished run")
    try:
        validation = crossval.steadied(crossval.validation(run, cohort))
    except InputError:  # the reader is told, and other parts stand without it
        return {"not_computed": "its networks did not keep what they said of validation nodules"}
    scaled, found = evaluation_calibration.scale_run(predictions, validation)
    return {
        "config": values["config"],
        "plan": values["plan"],
        "started": values["started"],
        "temperatures": [round(t, 4) for t in found["temperature"].tolist()],
        "before": from_calibration(calibration(predictions, resamples=resamples)),
        "after": from_calibration(calibration(scaled, resamples=resamples)),
    }


def from_calibration(found: Calibration) -> dict[str, Any]:
    """A calibration as JSON has it; `to_calibration` reads it back."""
    return {
        "brier": plain(found.brier),
        "parts": {k: round(v, _DIGITS) for k, v in asdict(found.parts).items()},
        "error": plain(found.error),
        "error_if_calibrated": [round(v, _DIGITS) for v in found.error_if_calibrated],
        "table": _records(found.table),
    }


def to_calibration(values: Mapping[str, Any]) -> Calibration:
    """The calibration that `from_calibration` wrote, for `plots.calibration`."""
    mean, most = values["error_if_calibrated"]
    return Calibration(
        Interval(**values["brier"]),
        BrierParts(**values["parts"]),
        Interval(**values["error"]),
        (mean, most),
        pd.DataFrame(values["table"]),
    )


def _finished(run: Path, model: str, cohort: Cohort) -> dict[str, Any]:
    values = read_json(run / "metrics.json", "a finished run")
    if values["config"]["model"] != model:
        raise InputError(f"{run}: is a run of model {values['config']['model']}, not {model}")
    sha256 = {name: f["sha256"] for name, f in cohort.meta["files"].items()}
    if values["cohort"]["sha256"]["nodules.csv"] != sha256["nodules.csv"]:
        raise InputError(f"{run}: was trained on another cohort than {cohort.folder}")
    kept = ("cohort", "config", "plan", "hardware", "started", "training_seconds", "epochs_run")
    return {key: values[key] for key in kept}


def _measured(run: measured.Run, resamples: int) -> dict[str, Any]:
    values = measured.measure(run, resamples)
    values.pop("roc")
    return values


def _specificity_difference(first: pd.DataFrame, second: pd.DataFrame, resamples: int) -> Interval:
    """Paired, by bootstrap over patients, at the threshold of 0.5."""
    labels, one, two, patients = statistics.paired_scores(first, second)
    right = [(p < statistics.DEFAULT_THRESHOLD).mean(axis=0) for p in (one, two)]
    weights = statistics.resample_weights(len(labels), patients, resamples, seed=0)
    weights = np.vstack([np.ones(len(labels)), weights])[:, labels == 0]
    found = (weights @ (right[0] - right[1])[labels == 0]) / weights.sum(axis=1)
    return statistics.percentile(float(found[0]), found[1:], 0.95)


def _fused_less_views(predictions: pd.DataFrame, resamples: int) -> dict[str, Any]:
    """View -> the fusion compared with it."""
    single = [v for v in predictions["view"].astype(str).unique() if v.isdigit()]
    fused = (predictions, crossval.FUSED)
    return {view: measured.compare(fused, (predictions, view), resamples) for view in single}


def _matched(run: measured.Run, nodules: pd.DataFrame, resamples: int) -> dict[str, Any]:
    predictions, view = run
    values: dict[str, Any] = {"ratio": size.RATIO}
    for name, inside in (("pooled", False), ("within_folds", True)):
        found = size.matched_auc(
            predictions, nodules, view, within_folds=inside, resamples=resamples
        )
        values[name] = {"auc": plain(found.auc), "pairs": found.pairs,
                        "malignant": found.malignant, "benign": found.benign}  # fmt: skip
        if view != crossval.SIZE_ONLY:
            ahead = size.matched_difference(
                predictions, nodules, view, crossval.SIZE_ONLY, within_folds=inside,
                resamples=resamples,
            )  # fmt: skip
            values[name]["less size only"] = plain(ahead)
    return values


def _readers(methods: Mapping[str, measured.Run], cohort: Cohort, resamples: int) -> dict[str, Any]:
    annotations = lidc.annotations()
    thin = annotations[annotations["slice_thickness_mm"] <= MAX_SLICE_THICKNESS_MM]
    if "ratings" in cohort.nodules:
        own = readers.from_ratings(cohort.nodules)
    else:
        own = thin[thin["nodule_id"].isin(cohort.nodules["nodule_id"])]
    values: dict[str, Any] = {
        "lidc": _ceiling(readers.against_the_rest(thin, resamples=resamples)),
        "cohort": None,
    }
    if own.empty:
        return values
    values["cohort"] = _ceiling(readers.against_the_rest(own, resamples=resamples))
    for name, (predictions, view) in methods.items():
        chosen = predictions[predictions["view"].astype(str) == view]
        mean = chosen.groupby("nodule_id")["probability"].mean()
        score = {str(nodule): float(p) for nodule, p in mean.items()}
        found = readers.against_the_rest(own, score, resamples=resamples)
        values[name] = _ceiling(found)
    return values


def _ceiling(found: ReaderCeiling) -> dict[str, Any]:
    values: dict[str, Any] = {
        "nodules": int(found.nodules),
        "patients": int(found.patients),
        "comparisons": found.comparisons,
        "undecided": round(found.undecided, _DIGITS),
        "auc": plain(found.auc),
    }
    for name, (sensitivity, specificity) in (("strict", found.strict), ("lenient", found.lenient)):
        values[name] = {"sensitivity": plain(sensitivity), "specificity": plain(specificity)}
    if found.score_auc is not None and found.difference is not None:
        values |= {"score_auc": plain(found.score_auc), "difference": plain(found.difference)}
    return values


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values; NaN, which JSON does not have, becomes None."""
    return [{str(k): _plain(v) for k, v in row.items()} for row in table.to_dict("records")]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, _DIGITS)
    return value


def main(arguments: list[str] | None = None) -> int:
    """The command `python -m benchmarks.belief`; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.belief",
        description="Judge finished runs of ST-CNN and MT-CNN in every way of lesson 13.",
    )
    parser.add_argument("st", type=Path, help="finished run of ST-CNN")
    parser.add_argument("mt", type=Path, help="finished run of MT-CNN")
    parser.add_argument("cohort", type=Path, help="cohort that both were trained on")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    return write_computed(
        parser.prog,
        options.out,
        lambda: belief(options.st, options.mt, options.cohort),
    )


if __name__ == "__main__":
    sys.exit(main())
