"""Predictions of LUNA-16's candidates: where to cut them, how to submit and to judge them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.annotations import luna16
from labkit.cohorts.cohort import Cohort
from labkit.evaluation import froc
from labkit.evaluation.predictions import rows_of
from labkit.evaluation.statistics import DEFAULT_THRESHOLD

_DIGITS = 6
_MARK = {"coordX": "x_mm", "coordY": "y_mm", "coordZ": "z_mm"}


def threshold(cohort: Cohort) -> float:
    """Above which probability a nodule is called malignant, or a candidate a nodule.

    Half for malignancy. A candidate is hardly ever more likely a nodule than not: it is called one
    when its image speaks for a nodule, which is when its probability exceeds the share of nodules
    among the candidates.
    """
    if cohort.task != "luna16":
        return DEFAULT_THRESHOLD
    return float(cohort.nodules["label"].iloc[cohort.labelled].astype(float).mean())


def by_candidate(
    cohort: Cohort, predictions: pd.DataFrame, view: str = "fused"
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which rows of the cohort were predicted, and each one's mean probability over repeats.

    Args:
        cohort: of LUNA-16's candidates.
        predictions: of all of them, or of some subsets.
        view: "0" to "8", "fused" or "detector".

    Returns:
        (n,) rows, ascending, and (n,) probabilities.
    """
    chosen = rows_of(predictions, view)
    number, names = pd.factorize(chosen["nodule_id"])
    total = np.bincount(number, chosen["probability"].to_numpy(dtype=np.float64), len(names))
    mean = total / np.bincount(number, minlength=len(names))
    place = pd.Index(names).get_indexer(pd.Index(cohort.nodules["nodule_id"]))
    rows = np.flatnonzero(place >= 0)
    return rows, mean[place[rows]]


def submission(cohort: Cohort, predictions: pd.DataFrame, view: str = "fused") -> pd.DataFrame:
    """Predictions as the challenge takes them: one row a candidate, the mean over repeats.

    Args:
        cohort: of LUNA-16's candidates.
        predictions: of all of them, or of some subsets.
        view: "0" to "8", "fused" or "detector".

    Returns:
        seriesuid, coordX, coordY, coordZ (mm, world) and probability, in the cohort's order.
    """
    rows, probability = by_candidate(cohort, predictions, view)
    table = cohort.nodules.iloc[rows]
    return pd.DataFrame(
        {
            "seriesuid": table["series_uid"].to_numpy(),
            "coordX": table["x_mm"].to_numpy(),
            "coordY": table["y_mm"].to_numpy(),
            "coordZ": table["z_mm"].to_numpy(),
            "probability": probability,
        }
    )


def marks(cohort: Cohort, predictions: pd.DataFrame, view: str = "fused") -> pd.DataFrame:
    """`submission` under the names that `froc` takes."""
    return submission(cohort, predictions, view).rename(columns=_MARK)


def scans(cohort: Cohort, marked: pd.Series) -> list[str]:
    """All scans of the cohort; where only some candidates were predicted, those that have one.

    Args:
        cohort: of LUNA-16's candidates.
        marked: series of each candidate that was predicted.
    """
    every = luna16.read_series(cohort.folder / "seriesuids.csv")
    if len(marked) == len(cohort):
        return every
    there = set(marked)
    return [uid for uid in every if uid in there]


def truth(cohort: Cohort, marked: pd.Series) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Nodules, excluded findings and `scans`, as `froc` takes them after the marks."""
    return (
        luna16.read_annotations(cohort.folder / "annotations.csv"),
        luna16.read_excluded(cohort.folder / "annotations_excluded.csv"),
        scans(cohort, marked),
    )


def judge(
    cohort: Cohort,
    predictions: pd.DataFrame,
    view: str = "fused",
    *,
    bootstraps: int = 1000,
    seed: int = 0,
) -> froc.Froc:
    """FROC of a run, as the challenge judges a submission.

    The scans are all of the cohort's, or, where only some subsets were predicted, those that have a
    candidate in them.

    Args:
        cohort: of LUNA-16's candidates.
        predictions: of a run on it.
        view: "0" to "8", "fused" or "detector".
        bootstraps: samples of scans for the bands; 0 for none.
        seed: of the samples.
    """
    of_run = marks(cohort, predictions, view)
    against = truth(cohort, of_run["seriesuid"])
    return froc.evaluate(of_run, *against, bootstraps=bootstraps, seed=seed)


def as_values(found: froc.Froc) -> dict[str, Any]:
    """A FROC result as JSON has it: the seven rates and CPM with intervals, and a thinned curve."""
    band = found.band
    curve = np.geomspace(froc.RATES[0], froc.RATES[-1], 49)

    def rounded(values: Any) -> list[float]:
        return [round(float(v), _DIGITS) for v in values]

    values: dict[str, Any] = {
        "rates": list(froc.RATES),
        "sensitivity": rounded(found.sensitivity),
        "cpm": round(found.cpm, _DIGITS),
        "curve": {"rates": rounded(curve), "sensitivity": rounded(found.at(curve))},
        "scans": found.counts.scans,
        "nodules": found.counts.nodules,
    }
    if band is not None:
        values["cpm_low"], values["cpm_high"] = rounded((band.cpm.low, band.cpm.high))
        values["low"] = rounded(i.low for i in band.at_rates)
        values["high"] = rounded(i.high for i in band.at_rates)
    return values
