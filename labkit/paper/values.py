"""Compute what variants are worth: metrics with intervals, paired comparisons as one family.

Everything is computed from predictions by `labkit.evaluation` and put into plain values here, as
they go into JSON. Variants of a sweep are judged on the nodules of the sweep's folds. AUC within
folds is the primary estimate, which p-values and equivalence are of; the pooled one stands beside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
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
    read_predictions,
    run_folder,
    select_view,
    threshold,
)
from labkit.evaluation.statistics import correct, plain
from labkit.io import read_json
from labkit.paper.declared import MOST_CUT_OFF, Experiment, Variant
from labkit.profiles import Profile

NOT_COMPUTED = "not_computed"
Run = tuple[pd.DataFrame, str]
"""Predictions, and which view of them is meant."""
Values = dict[str, Any]
T = TypeVar("T")


def measure(
    run: Run, resamples: int, seed: int = 0, threshold: float = DEFAULT_THRESHOLD
) -> Values:
    """Compute AUC within folds and pooled, rates at a threshold and ROC curve of a view of a run.

    Intervals are 95 % bootstraps over patients.
    """
    only, view = select_view(*run), run[1]
    values = statistics.summarise(only, resamples=resamples, seed=seed, threshold=threshold)[view]
    labels, scores, patients = statistics.scores(only, view)
    curve = statistics.roc_band(labels, scores, groups=patients, resamples=1, points=101)[:2]
    names = ("false_positive_rate", "sensitivity")
    roc = {name: of.round(4).tolist() for name, of in zip(names, curve, strict=True)}
    return {**values, "roc": roc}


def compare(
    first: Run, second: Run, resamples: int, test_over_train: float | None = None
) -> Values:
    """Compare the first with the second on the same nodules, as `statistics.compare` does."""
    pair = (select_view(*first), select_view(*second), first[1], second[1])
    return statistics.compare(*pair, resamples=resamples, test_over_train=test_over_train)


def _or_why_not(compute: Callable[[], Values]) -> Values:
    try:
        return compute()
    except InputError as error:  # the reader is told, and the figure has everything else
        return {NOT_COMPUTED: str(error)}


# Whether networks had learnt: what has not converged is drawn, and gives no verdict.


def not_converged(values: Mapping[str, Any]) -> str:
    """Say why a figure or table gives no verdict; nothing where its networks had learnt.

    `MOST_CUT_OFF` of them may have run out of epochs, as `crossval.convergence` counts. Of results
    without that count the median of their epochs tells, and where nothing tells, nobody knows.

    >>> not_converged({"trained": {"MT-CNN": {"networks": 90, "out_of_epochs": 4}}})
    ''
    >>> not_converged({"trained": {"MT-CNN": {"networks": 90, "out_of_epochs": 9}}})
    'not converged: 9 of 90 networks ran out of epochs'
    """
    trained = values.get("trained") or {
        label: of.get("trained", {}) for label, of in values.get("variants", {}).items()
    }
    counted = [of.get("convergence", of) for of in trained.values()]
    if all("out_of_epochs" in of for of in counted):
        out, networks = (sum(of[k] for of in counted) for k in ("out_of_epochs", "networks"))
        cut_off = out > MOST_CUT_OFF * networks
        return f"not converged: {out} of {networks} networks ran out of epochs" * cut_off
    epochs = values.get("config", {}).get("epochs")
    if any("epochs_a_network" in of and of["epochs_a_network"] >= epochs for of in counted):
        return "not converged: half of the networks or more ran out of epochs"
    return "not converged as far as is known: nobody noted when the networks stopped"


def title(values: Mapping[str, Any], text: str = "") -> str:
    """Return a figure's or table's title, or another, which says so where it has not converged."""
    state = ", not converged" if not_converged(values) else ""
    return (text or f"{values['title']} ({values['where']})") + state


# What LUNA-16 adds: FROC, CPM, and false positives a scan.


def is_luna(values: Mapping[str, Any]) -> bool:
    """Tell whether a figure's or table's values are of LUNA-16's candidates."""
    return values.get("task") == "luna16"


def judged(metrics: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the FROC values in a variant's metrics; None where there are none, or no nodule."""
    of = metrics.get("froc")
    return None if of is None or NOT_COMPUTED in of else of


def cpm(metrics: Mapping[str, Any]) -> dict[str, float] | None:
    """Return CPM with its interval, as other metrics are written; None where it is not there.

    >>> cpm({"froc": {"cpm": 0.5, "cpm_low": 0.4, "cpm_high": 0.6}})
    {'value': 0.5, 'low': 0.4, 'high': 0.6}
    """
    if (of := judged(metrics)) is None:
        return None
    low, high = of.get("cpm_low", of["cpm"]), of.get("cpm_high", of["cpm"])
    return {"value": of["cpm"], "low": low, "high": high}


@dataclass
class Runs:
    """The runs of one cohort at one profile, each variant's in `folder`, and what they are worth.

    A run is the folder that training left, or a file of that name that `labkit evaluate --pack`
    made of it, from which all but what needs networks and images is computed again. `device` is
    where networks are trained.
    """

    cohort: Cohort
    profile: Profile
    folder: Path
    device: str = "auto"
    _kept: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def run_folder(self, variant: Variant) -> Path:
        """Return where a variant's run lies, or is to lie: its folder, or a packed run."""
        folder = self.folder / variant.folder(self.profile)
        packed = folder.with_name(f"{folder.name}.tar.xz")
        return packed if packed.is_file() and not folder.exists() else folder

    def plan(self, variant: Variant) -> crossval.Plan:
        """Return its folds and repeats: those of a sweep, unless it is ST-CNN or MT-CNN itself."""
        return self.profile.plan(sweep=not variant.is_baseline(self.profile))

    def todo(self, variant: Variant) -> int:
        """Count the networks of a variant that are still to be trained."""
        out, keeps = self.run_folder(variant), variant.keeps_model(self.profile)
        places = self.plan(variant).networks(variant.config(self.profile).views)
        return 0 if out.is_file() else sum(not crossval.is_done(out, p, keeps) for p in places)

    def has(self, variant: Variant) -> bool:
        """Tell whether a variant is trained and put together."""
        out = self.run_folder(variant)
        there = out.is_file() or (out / "metrics.json").is_file()
        return there and self.todo(variant) == 0

    def finished(self, experiment: Experiment) -> tuple[dict[str, Variant], list[str]]:
        """Return an experiment's finished variants by label, and the labels of the others."""
        variants = experiment.of(self.profile)
        there = {v.label: v for v in variants if self.has(v)}
        return there, [v.label for v in variants if v.label not in there]

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
        given = (self.predictions(variant, view), list(self.profile.plan(sweep=True).places()))
        return self.once(("swept", self.run_folder(variant), view), at_places, *given), view

    def networks(
        self, variant: Variant, plan: crossval.Plan
    ) -> dict[tuple[int, int, int], dict[str, Any]]:
        """Return (repeat, fold, view) -> what each network of a finished variant left."""
        places = plan.networks(variant.config(self.profile).views)
        return crossval.read_networks(self.run_folder(variant), places)

    def trained(self, variant: Variant, plan: crossval.Plan) -> Values:
        """Return on what a variant was trained, since when, how long, and whether it had learnt.

        Not in seconds: how long a network took says as much of what else the machine did.
        """
        out, places = self.run_folder(variant), list(plan.places())
        with run_folder(out) as folder:
            run, curves = (
                read_json(folder / "run.json", "a run"),
                pd.read_csv(folder / "history.csv"),
            )
        epochs = at_places(curves, places).groupby(["repeat", "fold", "view"]).size()
        named = ("device", "processor", "gpu", "torch", "labkit")
        return {
            **{k: run["hardware"].get(k) for k in named}, "started": run["started"],
            "epochs_a_network": float(epochs.median()), **crossval.convergence(out, places),
        }  # fmt: skip

    def measure(self, run: Run) -> Values:
        """Compute what one view of a run is worth; for LUNA-16 by FROC, and as III-E counts, too.

        Repeats are then judged by their mean, as they are submitted.
        """
        cut, resamples = threshold(self.cohort), self.profile.resamples
        values = measure(run, resamples, threshold=cut) | {"threshold": round(cut, 6)}
        if self.cohort.task != "luna16":
            return values
        marks = froc.marks(self.cohort, *run)
        against = froc.truth(self.cohort, marks["seriesuid"])
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
        share = statistics.share_of_test(folds) if folds > 1 else None
        values = compare(first, second, self.profile.resamples, share)
        if self.cohort.task == "luna16":
            one, two = (froc.marks(self.cohort, *run) for run in (first, second))
            against, resamples = froc.truth(self.cohort, one["seriesuid"]), self.profile.resamples
            values["cpm_difference"] = _or_why_not(
                lambda: plain(froc.cpm_difference(one, two, *against, bootstraps=resamples))
            )
        return values

    def measure_all(self, runs: Mapping[str, Run]) -> dict[str, Values]:
        """Measure runs that are kept, each once: label -> metrics."""
        return {name: self.once(_key(run), self.measure, run) for name, run in runs.items()}

    def compare_all(
        self, runs: Mapping[str, Run], pairs: Iterable[tuple[str, str]]
    ) -> dict[str, Values]:
        """Compare those pairs of runs that are there, each once: "first less second" -> tests."""
        there = [(a, b, (runs[a], runs[b])) for a, b in pairs if a in runs and b in runs]
        return {
            f"{a} less {b}": dict(self.once(tuple(map(_key, both)), self.compare, *both))
            for a, b, both in there
        }


def _key(run: Run) -> tuple[int, str]:
    """What tells a run from others, as long as its table is kept."""
    return id(run[0]), run[1]


def at_places(predictions: pd.DataFrame, places: list[tuple[int, int]]) -> pd.DataFrame:
    """Select the predictions of some (repeat, fold), such as those that two runs share."""
    here = pd.MultiIndex.from_frame(predictions[["repeat", "fold"]]).isin(places)
    return predictions if here.all() else predictions[here].reset_index(drop=True)


def sweep(experiment: Experiment, runs: Runs) -> Values:
    """Compute the values of a sweep's finished variants, and their declared comparisons.

    Returns:
        `variants`: label -> changes, folder, metrics, trained; `comparisons`: "first less
        second" -> tests, where both are finished; `family`: what they were corrected over, which is
        all that is declared; `missing`: labels not finished; and what one number tells of the same
        nodules: `size_only`, the diameter, or of LUNA-16 `detector`, the score of what proposed
        the candidates.
    """
    there, missing = runs.finished(experiment)
    folder = {v.label: v.folder(runs.profile) for v in experiment.variants}
    # A pair may be one run under two names.
    family = [(a, b) for a, b in experiment.comparisons if folder[a] != folder[b]]
    swept = {label: runs.in_sweep(v) for label, v in there.items()}
    comparisons, metrics = runs.compare_all(swept, family), runs.measure_all(swept)
    one_number = DETECTOR if runs.cohort.task == "luna16" else SIZE_ONLY
    alone = [runs.in_sweep(v, one_number) for v in [*there.values()][:1]]
    of_alone = [runs.once(_key(run), runs.measure, run) for run in alone if len(run[0])]
    plan = runs.profile.plan(sweep=True)
    variants = {
        label: {
            "changes": dict(v.changes), "folder": folder[label], "metrics": metrics[label],
            "trained": runs.trained(v, plan),
        }
        for label, v in there.items()
    }  # fmt: skip
    return {
        "variants": variants,
        "comparisons": comparisons,
        "family": correct(comparisons, len(family)),
        "missing": missing,
        one_number: of_alone[0] if of_alone else None,
    }


def table(values: Values) -> pd.DataFrame:
    """Return a sweep as a table: one row a variant, with its difference to what it is compared."""
    luna, lines, compared = is_luna(values), [], {}
    for name, pair in reversed(values["comparisons"].items()):
        first, second = name.split(" less ")
        compared[first] = (second, pair)  # the first that was declared
    for label, of in values["variants"].items():
        metrics, trained = of["metrics"], of["trained"]
        line: Values = {"variant": label, "candidates" if luna else "nodules": metrics["nodules"]}
        shown = ("auc_within_folds", "auc", "sensitivity", "specificity")
        line |= cells({k: metrics[k] for k in shown} | ({"cpm": cpm(metrics)} if luna else {}))
        if luna:
            screened = ("false_positive_rate", "false_positives_per_scan")
            line |= {k: metrics["screening"][k] for k in screened}
        line |= {k: trained[k] for k in ("networks", "out_of_epochs", "at_chance")}
        line |= {f"best_epoch_{k}": epoch for k, epoch in trained["best_epoch"].items()}
        if "costs" in values:
            of_costs = ("parameters", "memory_mb", "seconds_a_step", "seconds_a_training")
            line |= {k: values["costs"]["of"][label].get(k) for k in of_costs}
        if label in compared:
            line["compared_with"], pair = compared[label]
            apart = {"difference": pair["within_folds_difference"],
                     "pooled_difference": pair["auc_difference"]}  # fmt: skip
            if "value" in pair.get("cpm_difference", {}):
                apart["cpm_difference"] = pair["cpm_difference"]
            line |= {"p_holm": pair["p_holm"], "within_margin": pair["equivalence"]["shown"]}
            line |= {"p_delong": pair["delong"]["p_value"], **cells(apart)}
        lines.append(line)
    return pd.DataFrame(lines)


def cells(of: Mapping[str, Mapping[str, float] | None]) -> dict[str, float | None]:
    """Return values with their intervals as three cells each; None where there is no value."""
    ends = {"": "value", "_low": "low", "_high": "high"}
    return {n + end: None if d is None else d[k] for n, d in of.items() for end, k in ends.items()}
