"""Compute what variants are worth: metrics with intervals, paired comparisons as one family.

Everything is computed from predictions by `labkit.evaluation` and put into plain values here, as
they go into JSON. Variants of a sweep are judged on the nodules of the sweep's folds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation import crossval, froc, statistics
from labkit.evaluation.predictions import (
    DEFAULT_THRESHOLD,
    DETECTOR,
    FUSED,
    SIZE_ONLY,
    paired,
    read_predictions,
    select_view,
    threshold,
)
from labkit.evaluation.statistics import plain
from labkit.io import read_json
from labkit.paper.declared import Experiment, Variant
from labkit.profiles import Profile

AT_CHANCE = 0.67
"""A classification loss above it is a coin's, ln 2 = 0.693, but for the classes' shares."""
NOT_COMPUTED = "not_computed"
Run = tuple[pd.DataFrame, str]
"""Predictions, and which view of them is meant."""
Values = dict[str, Any]
T = TypeVar("T")


def measure(
    run: Run, resamples: int, seed: int = 0, threshold: float = DEFAULT_THRESHOLD
) -> Values:
    """Compute AUC, rates at a threshold, AUC within folds and ROC curve of one view of a run.

    Intervals are 95 % bootstraps over patients.
    """
    only, view = select_view(*run), run[1]
    values = statistics.summarise(only, resamples=resamples, seed=seed, threshold=threshold)[view]
    labels, scores, patients = statistics.scores(only, view)
    band = statistics.roc_band(labels, scores, groups=patients, resamples=1, points=101)
    inside = statistics.within_folds_auc(only, view, resamples=resamples, seed=seed)
    return {
        **values,
        "auc_within_folds": plain(inside),
        "roc": {
            name: [round(float(x), 4) for x in of]
            for name, of in zip(("false_positive_rate", "sensitivity"), band[:2], strict=True)
        },
    }


def compare(
    first: Run, second: Run, resamples: int, test_over_train: float | None = None
) -> Values:
    """Compare the first with the second on the same nodules by every test that the course knows.

    Args:
        first, second: predictions and view.
        resamples: of the bootstraps over patients.
        test_over_train: n_test / n_train, for the corrected t-test; None takes the folds there are.

    Returns:
        Of the first less the second `auc_difference` (95 % bootstrap over patients),
        `within_folds_difference`, `delong` (by patient), `corrected_t_test` over folds (or why
        there is none), `equivalence`.
    """
    sides = (select_view(*first), select_view(*second), first[1], second[1])
    found, (one, two) = statistics.compare(*sides), paired(*sides)
    inside = statistics.within_folds_difference(one, two, resamples=resamples)
    same = statistics.equivalence(statistics.bootstrap_auc_difference(
        one.labels, one.probabilities, two.probabilities, groups=one.patients,
        resamples=resamples, level=statistics.TOST_LEVEL,
    ))  # fmt: skip

    def over_folds() -> Values:
        test = statistics.corrected_t_test(one, two, test_over_train=test_over_train)
        return {
            **plain(test.difference),
            "t": round(test.t, 4),
            "p_value": test.p_value,
            "degrees_of_freedom": test.degrees_of_freedom,
            "test_over_train": round(test.test_over_train, 6),
        }

    delong = found["delong"]
    return {
        "auc_difference": {k: round(v, 6) for k, v in found["auc_difference"].items()},
        "within_folds_difference": plain(inside),
        "delong": {k: round(delong[k], 6) for k in ("difference", "low", "high")}
        | {"p_value": delong["p_value"]},
        "corrected_t_test": _or_why_not(over_folds),
        "equivalence": same._asdict() | {"smallest_margin": round(same.smallest_margin, 6)},
    }


def correct(comparisons: Mapping[str, Values], size: int | None = None) -> Values:
    """Add Holm's `p_holm` and `found` to a family's comparisons; return how large the family is.

    `size` is that of the whole family, where some of it is not measured yet; None takes those
    given.
    """
    family = {"method": statistics.METHOD, "size": len(comparisons) if size is None else size}
    if not comparisons:
        return family
    table = statistics.holm({k: c["delong"]["p_value"] for k, c in comparisons.items()}, size=size)
    for pair, p, found in zip(
        comparisons.values(), table["p_adjusted"].tolist(), table["found"].tolist(), strict=True
    ):
        pair |= {"p_holm": p, "found": found}
    return family | {"of": "DeLong's test by patient"}


def _or_why_not(compute: Callable[[], Values]) -> Values:
    try:
        return compute()
    except InputError as error:  # the reader is told, and the figure has everything else
        return {NOT_COMPUTED: str(error)}


# What LUNA-16 adds: FROC, CPM, and false positives a scan.


def is_luna(values: Mapping[str, Any]) -> bool:
    """Tell whether a figure's or table's values are of LUNA-16's candidates.

    >>> is_luna({"task": "luna16"}), is_luna({"task": "malignancy"}), is_luna({})
    (True, False, False)
    """
    return values.get("task") == "luna16"


def judged(metrics: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the FROC values in a variant's metrics; None where there are none, or no nodule."""
    of = metrics.get("froc")
    return None if of is None or NOT_COMPUTED in of else of


def cpm(metrics: Mapping[str, Any]) -> dict[str, float] | None:
    """Return CPM with its interval, as other metrics are written; None where it is not there.

    >>> cpm({"froc": {"cpm": 0.5, "cpm_low": 0.4, "cpm_high": 0.6}})
    {'value': 0.5, 'low': 0.4, 'high': 0.6}
    >>> cpm({"auc": {"value": 0.9}})
    """
    of = judged(metrics)
    if of is None:
        return None
    low, high = of.get("cpm_low", of["cpm"]), of.get("cpm_high", of["cpm"])
    return {"value": of["cpm"], "low": low, "high": high}


def cpm_difference(cohort: Cohort, first: Run, second: Run, resamples: int) -> Values:
    """Compute CPM of the first run less the second's, with its 95 % interval over scans."""

    def difference() -> Values:
        one, two = (froc.marks(cohort, *run) for run in (first, second))
        against = froc.truth(cohort, one["seriesuid"])
        return {**plain(froc.cpm_difference(one, two, *against, bootstraps=resamples))}

    return _or_why_not(difference)


@dataclass
class Runs:
    """The runs of one cohort at one profile, each variant's in `folder`, and what they are worth.

    `device` is where networks are trained.
    """

    cohort: Cohort
    profile: Profile
    folder: Path
    device: str = "auto"
    _kept: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def run_folder(self, variant: Variant) -> Path:
        """Return where a variant's run lies."""
        return self.folder / variant.folder(self.profile)

    def plan(self, variant: Variant) -> crossval.Plan:
        """Return its folds and repeats: those of a sweep, unless it is ST-CNN or MT-CNN itself."""
        return self.profile.plan(sweep=not variant.is_baseline(self.profile))

    def todo(self, variant: Variant) -> int:
        """Count the networks of a variant that are still to be trained."""
        out, keeps = self.run_folder(variant), variant.keeps_model(self.profile)
        places = self.plan(variant).networks(self.profile.paper_views)
        return sum(not crossval.is_done(out, place, keeps) for place in places)

    def has(self, variant: Variant) -> bool:
        """Tell whether a variant is trained and put together."""
        return (self.run_folder(variant) / "metrics.json").is_file() and self.todo(variant) == 0

    def finished(self, experiment: Experiment) -> tuple[dict[str, Variant], list[str]]:
        """Return an experiment's finished variants by label, and the labels of the others."""
        there = {v.label: v for v in experiment.variants if self.has(v)}
        return there, [v.label for v in experiment.variants if v.label not in there]

    def once(self, key: Any, make: Callable[..., T], *arguments: Any) -> T:
        """Return what `make` gives, computed once: figures are drawn anew after every variant."""
        if key not in self._kept:
            self._kept[key] = make(*arguments)
        result: T = self._kept[key]
        return result

    def predictions(self, variant: Variant, view: str | None = None) -> pd.DataFrame:
        """Return the predictions of a finished variant: of one view, or all."""
        out = self.run_folder(variant)
        return self.once(("predictions", out, view), read_predictions, out, view)

    def in_sweep(self, variant: Variant, view: str = FUSED) -> Run:
        """Return one view's predictions in the sweep's folds, also of a baseline that has more."""
        places = list(self.profile.plan(sweep=True).places())
        table = partial(at_places, self.predictions(variant, view), places)
        return self.once(("swept", self.run_folder(variant), view), table), view

    def networks(
        self, variant: Variant, plan: crossval.Plan
    ) -> dict[tuple[int, int, int], dict[str, Any]]:
        """Return (repeat, fold, view) -> what each network of a finished variant left."""
        out, places = self.run_folder(variant), plan.networks(self.profile.paper_views)
        return {place: crossval.read_network(out, place) for place in places}

    def measure(self, run: Run) -> Values:
        """Compute what one view of a run is worth; for LUNA-16 by FROC, and as III-E counts, too.

        Repeats are then judged by their mean, as they are submitted.
        """
        cohort, cut, resamples = self.cohort, threshold(self.cohort), self.profile.resamples
        values = measure(run, resamples, threshold=cut) | {"threshold": round(cut, 6)}
        if cohort.task != "luna16":
            return values
        marks = froc.marks(cohort, *run)
        against = froc.truth(cohort, marks["seriesuid"])
        values["froc"] = _or_why_not(
            lambda: froc.as_values(froc.evaluate(marks, *against, bootstraps=resamples))
        )
        label, scans = marks["label"].to_numpy(dtype=np.int64), len(against[2])
        found = asdict(froc.screening(label, marks["probability"], scans, cut))
        del found["auc"]
        found["false_positives_per_scan"] = round(found["false_positives_per_scan"], 4)
        rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in found.items()}
        return values | {"screening": rounded | {"scans": scans}}

    def compare(self, first: Run, second: Run) -> Values:
        """Compare the first with the second on the same nodules; for LUNA-16 by CPM, too."""
        folds = self.profile.folds  # of which a sweep may take the first alone
        share = 1 / (folds - 1) if folds > 1 else None
        values = compare(first, second, self.profile.resamples, share)
        if self.cohort.task == "luna16":
            run = (self.cohort, first, second, self.profile.resamples)
            values["cpm_difference"] = cpm_difference(*run)
        return values

    def trained(self, variant: Variant) -> Values:
        """Return on what a variant was trained, and since when."""
        values = read_json(self.run_folder(variant) / "run.json", "a run")
        named = ("device", "processor", "gpu", "torch", "labkit")
        return {k: values["hardware"].get(k) for k in named} | {"started": values["started"]}


def at_places(predictions: pd.DataFrame, places: list[tuple[int, int]]) -> pd.DataFrame:
    """Select the predictions of some (repeat, fold), such as those that two runs share."""
    here = pd.MultiIndex.from_frame(predictions[["repeat", "fold"]]).isin(places)
    return predictions if here.all() else predictions[here].reset_index(drop=True)


def sweep(experiment: Experiment, runs: Runs) -> Values:
    """Compute the values of a sweep's finished variants, and their declared comparisons.

    Returns:
        `variants`: label -> changes, folder, metrics, trained; `comparisons`: "first less
        second" -> tests, those declared of which both are finished; `family`: what they were
        corrected over, which is all that is declared; `missing`: labels not finished; and what one
        number tells of the same nodules: `size_only`, the diameter, or of LUNA-16 `detector`, the
        score of what proposed the candidates, since what is no nodule has no diameter.
    """
    there, missing = runs.finished(experiment)
    folder = {v.label: v.folder(runs.profile) for v in experiment.variants}
    # A pair may be one run under two names.
    family = [(a, b) for a, b in experiment.comparisons if folder[a] != folder[b]]
    comparisons = {
        f"{a} less {b}": dict(runs.once(
            ("pair", folder[a], folder[b]), runs.compare,
            runs.in_sweep(there[a]), runs.in_sweep(there[b]),
        ))
        for a, b in family if a in there and b in there
    }  # fmt: skip
    one_number, alone = DETECTOR if runs.cohort.task == "luna16" else SIZE_ONLY, None
    if there:
        run = runs.in_sweep(next(iter(there.values())), one_number)
        alone = None if run[0].empty else runs.once(one_number, runs.measure, run)
    variants = {
        label: {
            "changes": dict(v.changes),
            "folder": folder[label],
            "metrics": runs.once(("metrics", folder[label]), runs.measure, runs.in_sweep(v)),
            "trained": runs.once(("trained", folder[label]), _trained, runs, v),
        }
        for label, v in there.items()
    }
    return {
        "variants": variants,
        "comparisons": comparisons,
        "family": correct(comparisons, len(family)),
        "missing": missing,
        one_number: alone,
    }


def _trained(runs: Runs, variant: Variant) -> Values:
    """On what, how long, and how often it came to nothing.

    Not in seconds: how long a network took says as much of what else the machine did.
    """
    networks = runs.networks(variant, runs.profile.plan(sweep=True)).values()
    lowest = [min(float(row["val_cls"]) for row in of["history"]) for of in networks]
    return runs.trained(variant) | {
        "networks": len(networks),
        "epochs_a_network": float(np.median([len(of["history"]) for of in networks])),
        "at_chance": sum(loss > AT_CHANCE for loss in lowest),
    }


def table(values: Values) -> pd.DataFrame:
    """Return a sweep as a table: one row a variant, with its difference to what it is compared."""
    counted = "candidates" if is_luna(values) else "nodules"
    lines = []
    for label, of in values["variants"].items():
        metrics, trained = of["metrics"], of["trained"]
        line: Values = {"variant": label, counted: metrics["nodules"]}
        for name in ("auc", "auc_within_folds", "sensitivity", "specificity"):
            line |= cells(name, metrics[name])
        if is_luna(values):
            line |= cells("cpm", cpm(metrics))
            screened = ("false_positive_rate", "false_positives_per_scan")
            line |= {k: metrics["screening"][k] for k in screened}
        line |= {k: trained.get(k) for k in ("networks", "epochs_a_network", "at_chance")}
        if "costs" in values:
            of_costs = ("parameters", "memory_mb", "seconds_a_step", "seconds_a_training")
            line |= {k: values["costs"]["of"][label].get(k) for k in of_costs}
        for name, pair in values["comparisons"].items():
            first, second = name.split(" less ")
            if first == label and "compared_with" not in line:
                line |= {"compared_with": second} | cells("difference", pair["auc_difference"])
                line |= {
                    "p_delong": pair["delong"]["p_value"],
                    "p_holm": pair["p_holm"],
                    "within_margin": pair["equivalence"]["shown"],
                }
                if "value" in (of_cpm := pair.get("cpm_difference", {})):
                    line |= cells("cpm_difference", of_cpm)
        lines.append(line)
    return pd.DataFrame(lines)


def cells(name: str, of: Mapping[str, float] | None) -> dict[str, float | None]:
    """Return a value and its interval as three cells of a table; None where there is no value."""
    ends = {"value": name, "low": f"{name}_low", "high": f"{name}_high"}
    return {cell: None if of is None else of[key] for key, cell in ends.items()}
