"""How far to believe two finished runs: every test, size, calibration and the readers, as JSON.

    python -m benchmarks.belief RUN_ST RUN_MT COHORT --out results/real_belief.json

The runs are those of our rows of Table 1, packed or as `labkit reproduce table1` leaves them.
Lesson 13 shows what this wrote. It holds numbers only, no images and no predictions, so that it can
be committed where the runs cannot.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common import command
from labkit.annotations import lidc
from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation import crossval, readers, size, statistics
from labkit.evaluation.calibration import Calibration, calibration, scale_run
from labkit.evaluation.predictions import (
    one_view,
    paired,
    read_predictions,
    run_folder,
    select_view,
)
from labkit.evaluation.readers import ReaderCeiling
from labkit.evaluation.reconstruction import mean_over, over_patients
from labkit.evaluation.statistics import RESAMPLES, Floats, Patients, percentile_interval, plain
from labkit.io import read_json
from labkit.paper import values as measured

ST, MT, SIZE = "ST-CNN", "MT-CNN", "size only"
MAX_SLICE_THICKNESS_MM = 2.5
RATIO = 1.1
"""The larger diameter of a pair may be this many times the smaller. Readers' own diameters of one
nodule differ by more than that."""
_DIGITS = 6
_KEPT = ("cohort", "config", "plan", "hardware", "started", "training_seconds", "epochs_run",
         "convergence")  # fmt: skip


def belief(
    st_run: Path, mt_run: Path, cohort_folder: Path, *, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Judge the runs of ST-CNN and MT-CNN on one cohort in every way of lesson 13.

    The runs are finished and on the same folds; anything else is an InputError.

    Returns:
        Numbers ready for JSON: `methods`, `comparisons` with Holm's `family`, `specificity` of MT
        less ST, `fusion` less each single view, with Holm's `fusion_family` of each network, and
        what else lesson 13 looks at.
    """
    cohort, runs = Cohort.open(cohort_folder), {ST: st_run, MT: mt_run}
    trained = {ST: _finished(st_run, "st", cohort), MT: _finished(mt_run, "mt", cohort)}
    tables = {name: read_predictions(run) for name, run in runs.items()}
    methods = {**{name: (of, crossval.FUSED) for name, of in tables.items()},
               SIZE: (tables[ST], crossval.SIZE_ONLY)}  # fmt: skip
    comparisons = {f"{a} less {b}": measured.compare(methods[a], methods[b], resamples)
                   for a, b in ((MT, ST), (MT, SIZE), (ST, SIZE))}  # fmt: skip
    fusion = {
        name: {view: measured.compare((of, crossval.FUSED), (of, view), resamples)
               for view in of["view"].astype(str).unique() if view.isdigit()}
        for name, of in tables.items()
    }  # fmt: skip
    of_methods = {name: measured.measure(run, resamples) for name, run in methods.items()}
    for values in of_methods.values():
        values.pop("roc")
    # Paired, at the threshold of 0.5.
    mt, st = paired(tables[MT], tables[ST], crossval.FUSED)
    right = [(p.probabilities < statistics.DEFAULT_THRESHOLD).mean(axis=0) for p in (mt, st)]
    less = np.where(mt.labels == 0, right[0] - right[1], np.nan)
    specificity = percentile_interval(mean_over(less, over_patients(mt.patients, resamples)))

    def both_ways(run: measured.Run) -> dict[str, Any]:
        how = partial(matched, run[0], cohort.nodules, run[1], resamples=resamples)
        return {"ratio": RATIO, "pooled": how(within_folds=False), "within_folds": how()}

    return {
        "about": "What two finished runs can and cannot claim; see lesson 13.",
        "cohort": trained[ST]["cohort"],
        "trained": trained,
        "resamples": resamples,
        "methods": of_methods,
        "comparisons": comparisons,
        "family": measured.correct(comparisons),
        "specificity": {f"{MT} less {ST}": plain(specificity)},
        "fusion": fusion,
        "fusion_family": {name: measured.correct(pairs) for name, pairs in fusion.items()},
        "bands": _records(size.by_size(methods, cohort.nodules, resamples=resamples)),
        "size_matched": {name: both_ways(run) for name, run in methods.items()},
        "calibration": {name: _calibrated(calibration(*run, resamples=resamples))
                        for name, run in methods.items()},
        "temperature": {name: scale(run, cohort, resamples) for name, run in runs.items()},
        "readers": _readers(methods, cohort, resamples),
    }  # fmt: skip


def scale(run: Path, cohort: Cohort, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Calibrate a run's fused probabilities by a temperature a fold, before and after."""
    predictions, values = read_predictions(run), _about(run)
    validation = crossval.steadied(crossval.validation_predictions(run, cohort))
    scaled, found = scale_run(predictions, validation)
    return {
        **{key: values[key] for key in ("config", "plan", "started")},
        "temperatures": [round(t, 4) for t in found["temperature"].tolist()],
        "before": _calibrated(calibration(predictions, resamples=resamples)),
        "after": _calibrated(calibration(scaled, resamples=resamples)),
    }


def _calibrated(found: Calibration) -> dict[str, Any]:
    """Return a calibration as JSON has it; `calibration.from_json` reads it back."""
    return {
        "brier": plain(found.brier),
        "parts": {k: round(v, _DIGITS) for k, v in brier_parts(found).items()},
        "error": plain(found.error),
        "error_if_calibrated": [round(v, _DIGITS) for v in found.error_if_calibrated],
        "table": _records(found.table),
    }


def brier_parts(found: Calibration) -> dict[str, float]:
    """Compute what the Brier score is made of, over the bins of a calibration.

    value = reliability - resolution + uncertainty + within (Murphy 1973; the last as in Stephenson,
    Coelho and Jolliffe, Wea Forecasting 23:752, 2008, without which bins make the sum inexact):
    squared distance of a bin's mean probability from its observed share, too large of few nodules;
    how far the shares lie apart; what a constant probability gets; and what the bins hide.
    """
    predicted, observed = found.table["predicted"], found.table["observed"]
    mean, value = partial(np.average, weights=found.table["predictions"]), found.brier.value
    share = float(mean(observed))
    reliability = float(mean((predicted - observed) ** 2))
    resolution, uncertainty = float(mean((observed - share) ** 2)), share * (1 - share)
    return {"value": value, "reliability": reliability, "resolution": resolution,
            "uncertainty": uncertainty,
            "within": value - reliability + resolution - uncertainty}  # fmt: skip


def _about(run: Path) -> dict[str, Any]:
    with run_folder(run) as folder:
        return dict(read_json(folder / "metrics.json", "a finished run"))


def _finished(run: Path, model: str, cohort: Cohort) -> dict[str, Any]:
    values = _about(run)
    if values["config"]["model"] != model:
        raise InputError(f"{run}: is a run of model {values['config']['model']}, not {model}")
    if values["cohort"]["sha256"]["nodules.csv"] != cohort.meta["files"]["nodules.csv"]["sha256"]:
        raise InputError(f"{run}: was trained on another cohort than {cohort.folder}")
    return {key: values[key] for key in _KEPT}


def matched(
    predictions: pd.DataFrame, nodules: pd.DataFrame, view: str = crossval.FUSED,
    less: str = crossval.SIZE_ONLY, *, ratio: float = RATIO, within_folds: bool = True,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:  # fmt: skip
    """Compute how often a malignant nodule outscores a benign one of nearly its size, ties half.

    The diameter has next to nothing to say of such a pair, so that whatever orders it must be
    something else. The diameters of a pair differ by `ratio` at most; `within_folds` compares only
    nodules that the same networks judged. The AUC of the view `less` in the same pairs is taken
    off, by paired bootstrap over patients. An InputError for a nodule without a diameter, or no
    pair at all.
    """
    sides = [one_view(predictions, name) for name in dict.fromkeys((view, less))]
    of = sides[0]
    mm = nodules.set_index("nodule_id")["diameter_mm"].reindex(of.nodules).to_numpy(dtype=float)
    if not np.all(mm > 0):
        lost = of.nodules[~(mm > 0)][0]
        raise InputError(f"{lost}: no diameter in the nodule table; sizes cannot be matched")
    ill, well = np.flatnonzero(of.labels == 1), np.flatnonzero(of.labels == 0)
    close = np.abs(np.log(mm[ill])[:, None] - np.log(mm[well])) <= np.log(ratio) + 1e-12
    won, counted = np.zeros((len(sides), *close.shape)), np.zeros(close.shape)
    for repeat, fold in enumerate(of.folds):
        same = close & (fold[ill][:, None] == fold[well]) if within_folds else close
        counted += same
        for k, side in enumerate(sides):
            p = side.probabilities[repeat]
            won[k] += same * (np.sign(p[ill][:, None] - p[well]) + 1) / 2
    if not counted.any():
        raise InputError("no malignant nodule has a benign one of its size: nothing to compare")
    patients = Patients.of(of.patients, len(of.labels))

    def shares(weights: Floats) -> Floats:
        one, zero = weights[:, patients.codes[ill]], weights[:, patients.codes[well]]
        with np.errstate(invalid="ignore"):
            pairs = ((one @ counted) * zero).sum(axis=1)
            return np.stack([((one @ w) * zero).sum(axis=1) / pairs for w in won], axis=1)

    found, pair = patients.bootstrap(shares, resamples, seed=0), counted > 0
    values = {
        "auc": plain(percentile_interval(found[:, 0])), "pairs": int(pair.sum()),
        "malignant": int(pair.any(axis=1).sum()), "benign": int(pair.any(axis=0).sum()),
    }  # fmt: skip
    if len(sides) > 1:
        ahead = percentile_interval(found[:, 0] - found[:, 1])
        values[f"less {less.replace('_', ' ')}"] = plain(ahead)
    return values


def from_ratings(nodules: pd.DataFrame) -> pd.DataFrame:
    """Return one row a reader, as `readers` takes them, of `ratings` like "5|4|4|3"."""
    split = nodules["ratings"].astype(str).str.split("|")
    long = nodules[["nodule_id", "patient_id"]].assign(malignancy=split).explode("malignancy")
    return long.assign(malignancy=pd.to_numeric(long["malignancy"], errors="coerce"))


def _readers(methods: Mapping[str, measured.Run], cohort: Cohort, resamples: int) -> dict[str, Any]:
    against = partial(readers.against_the_rest, resamples=resamples)
    annotations = lidc.annotations()
    thin = annotations[annotations["slice_thickness_mm"] <= MAX_SLICE_THICKNESS_MM]
    own = thin[thin["nodule_id"].isin(cohort.nodules["nodule_id"])]
    if "ratings" in cohort.nodules:
        own = from_ratings(cohort.nodules)
    values: dict[str, Any] = {"lidc": _ceiling(against(thin)), "cohort": None}
    if not own.empty:
        values["cohort"] = _ceiling(against(own))
        for name, of in methods.items():
            score = select_view(*of).groupby("nodule_id")["probability"].mean().to_dict()
            values[name] = _ceiling(against(own, score))
    return values


def _ceiling(found: ReaderCeiling) -> dict[str, Any]:
    values = {**found._asdict(), "undecided": round(found.undecided, _DIGITS)}
    for name in ("strict", "lenient"):
        values[name] = dict(zip(("sensitivity", "specificity"), map(plain, values[name]),
                                strict=True))  # fmt: skip
    for name in ("auc", "score_auc", "difference"):
        values[name] = values[name] and plain(values[name])
    return {name: of for name, of in values.items() if of is not None}


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values; NaN, which JSON does not have, becomes None."""
    rounded = table.round(_DIGITS).astype(object)
    return rounded.where(table.notna(), None).to_dict("records")


if __name__ == "__main__":
    sys.exit(command(belief, __doc__))
