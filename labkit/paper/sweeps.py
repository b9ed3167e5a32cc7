"""Figures 5, 6 and 7: one value a variant, compared as one family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.crossval import DETECTOR, SIZE_ONLY, Plan, steps_an_epoch
from labkit.evaluation.statistics import Interval, Patients, roc_auc, scores
from labkit.paper import fig6 as cost
from labkit.paper import values as luna
from labkit.paper import values as measured
from labkit.paper.declared import ALPHAS, Experiment, Variant, alpha_label
from labkit.paper.finished import Finished, at_places
from labkit.profiles import Profile
from labkit.training.machines import Device
from labkit.training.model import labels_of

# Searching a setting by its result: as Algorithm 1 prints it, and without looking at the test.
#
# Line 9 of Algorithm 1 takes the alpha whose cross-validated result is best and reports that very
# result: the maximum of several noisy numbers, which is too high on average even when all alphas
# are equally good. Two ways not to: nested (each fold's alpha is chosen on the inner validation
# split of its training patients, so that its test nodules have no say), and the bootstrap bias
# correction of Tsamardinos, Greasidou and Borboudakis, Machine Learning 107:1895 (2018), which
# repeats the printed search on bootstrap samples of patients and judges what it chose by the
# patients left out.


Place = tuple[int, int]


@dataclass(frozen=True)
class Search:
    """What a search for a setting finds, and what is left of it on patients it did not see.

    Args:
        best: setting with the highest AUC on the test folds.
        printed: that AUC, as Algorithm 1 would report it.
        chosen: (repeat, fold) -> setting that the nested search takes there.
        nested: AUC of the nested search.
        optimism: `printed` less `nested`, paired over patients. The setting that is best is held
            fixed, so that the interval does not tell how often another one would have been.
        corrected: mean AUC, on patients left out, of what the printed search chooses on a bootstrap
            sample, with its 95 % interval.
        search_optimism: `printed` less the value of `corrected`.
        how_often: setting -> share of bootstrap samples in which it is best.
    """

    best: float
    printed: Interval
    chosen: dict[Place, float]
    nested: Interval
    optimism: Interval
    corrected: Interval
    search_optimism: float
    how_often: dict[float, float]


def search(
    runs: Mapping[float, pd.DataFrame],
    val_auc: Mapping[float, Mapping[Place, float]],
    view: str = "fused",
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Search:
    """Search the setting with the best AUC in both ways. Ties go to the smaller setting.

    Args:
        runs: setting -> predictions, all of the same nodules and folds.
        val_auc: setting -> (repeat, fold) -> AUC on that fold's inner validation split.
        view: which view's predictions are judged.
        resamples: of the bootstraps over patients.
        seed: of them.

    Raises:
        InputError: fewer than two settings, or runs of different nodules or folds.
    """
    settings = sorted(runs)
    if len(settings) < 2:
        raise InputError("a search needs two settings or more to choose from")
    parts = {s: runs[s][runs[s]["view"].astype(str) == view] for s in settings}
    found = {s: scores(parts[s], view) for s in settings}
    labels, _, patients = found[settings[0]]
    key = ["repeat", "fold", "nodule_id"]
    first = parts[settings[0]][key].sort_values(key).to_numpy()
    for s in settings[1:]:
        here = parts[s][key].sort_values(key).to_numpy()
        if here.shape != first.shape or np.any(here != first):
            raise InputError(f"the runs of {settings[0]:g} and {s:g} have different folds")
    every = np.stack([found[s][1] for s in settings])
    test = np.array([np.mean([roc_auc(labels, run) for run in runs_]) for runs_ in every])
    best = int(np.argmax(test))
    places = sorted(val_auc[settings[0]])
    chosen = {p: max(settings, key=lambda s: (val_auc[s][p], -s)) for p in places}
    nested = pd.concat(
        [part[_at(part, place)] for place, s in chosen.items() for part in [parts[s]]],
        ignore_index=True,
    )
    _, honest, _ = scores(nested, view)
    drawn: dict[str, Any] = {"groups": patients, "resamples": resamples, "seed": seed}
    corrected, share = _bias_corrected(labels, every, patients, resamples, seed)
    printed = statistics.bootstrap_auc(labels, every[best], **drawn)
    return Search(
        settings[best],
        printed,
        chosen,
        statistics.bootstrap_auc(labels, honest, **drawn),
        statistics.bootstrap_auc_difference(labels, every[best], honest, **drawn),
        corrected,
        printed.value - corrected.value,
        dict(zip(settings, share.tolist(), strict=True)),
    )


def _at(table: pd.DataFrame, place: Place) -> pd.Series:
    return (table["repeat"] == place[0]) & (table["fold"] == place[1])


def _bias_corrected(
    labels: NDArray, every: NDArray, patients: NDArray, resamples: int, seed: int
) -> tuple[Interval, NDArray[np.float64]]:
    """AUC on the patients left out of what is best on those drawn; how often each is best."""
    whose = Patients.of(patients, len(labels))
    of_each = [statistics.auc(labels, runs, whose) for runs in every]
    blocks = list(whose.draws(resamples, seed))
    inside = np.stack([np.concatenate([of(w) for w in blocks]) for of in of_each])
    left_out = [(w == 0).astype(float) for w in blocks]
    outside = np.stack([np.concatenate([of(w) for w in left_out]) for of in of_each])
    usable = np.isfinite(inside[0]) & np.isfinite(outside[0])
    if not usable.any():
        raise InputError("too few patients: no bootstrap sample leaves both classes out")
    inside, outside = inside[:, usable], outside[:, usable]
    best = inside.argmax(axis=0)
    values = np.take_along_axis(outside, best[None], axis=0)[0]
    share = np.bincount(best, minlength=len(every)) / len(best)
    return statistics.percentile(float(values.mean()), values, 0.95), share


VIEW = "fused"
_SCREENED = ("false_positive_rate", "false_positives_per_scan")
_TRAINED = ("networks", "epochs_a_network", "at_chance")
_COSTS = ("parameters", "memory_mb", "seconds_a_step", "seconds_a_training")


def sweep(experiment: Experiment, runs: Finished) -> dict[str, Any]:
    """Values of the finished variants of a sweep, all on the nodules of the sweep's folds.

    Returns:
        `variants`: label -> changes, folder, metrics, trained; `comparisons`: "first less
        second" -> tests, those declared of which both are finished; `family`: what they were
        corrected over, which is all that is declared; `missing`: labels not finished.
    """
    profile = runs.amounts.profile
    there = {v.label: v for v in experiment.variants if runs.has(v)}
    values = {label: _values(v, runs) for label, v in there.items()}
    comparisons: dict[str, dict[str, Any]] = {}
    family = _pairs(experiment, profile)
    for first, second in family:
        if first not in there or second not in there:
            continue
        one, two = there[first], there[second]
        comparisons[f"{first} less {second}"] = dict(
            runs.once(
                ("pair", one.folder(profile), two.folder(profile)),
                lambda one=one, two=two: runs.compare(
                    (_predictions(one, runs), VIEW), (_predictions(two, runs), VIEW)
                ),
            )
        )
    return {
        "variants": values,
        "comparisons": comparisons,
        "family": measured.correct(comparisons, len(family)),
        "missing": [v.label for v in experiment.variants if v.label not in there],
    }


def baseline(runs: Finished, variant: Variant) -> dict[str, Any]:
    """What one number tells of the same nodules, where a finished variant has it.

    Returns:
        `size_only`, the diameter alone, or None. For LUNA-16 instead `detector`, the score of
        whatever proposed the candidates: what is no nodule has no diameter.
    """
    view = DETECTOR if runs.cohort.task == "luna16" else SIZE_ONLY
    predictions = _predictions(variant, runs, view)
    if predictions.empty:
        return {view: None}
    folder = variant.folder(runs.amounts.profile)
    return {view: runs.once((view, folder), lambda: runs.measure((predictions, view)))}


def fig5(experiment: Experiment, runs: Finished) -> dict[str, Any]:
    """l2 and dropout (IV-C)."""
    return _with_baseline(experiment, runs, sweep(experiment, runs))


def fig6(experiment: Experiment, runs: Finished) -> dict[str, Any]:
    """Depth (IV-D), with what each depth costs.

    A training's seconds are those of a step, measured alone, times the steps of an epoch and the
    median epochs of the networks: how long they took in fact depends on what else ran beside them.
    """
    values = _with_baseline(experiment, runs, sweep(experiment, runs))
    profile, views = runs.amounts.profile, runs.amounts.views
    configs = {v.label: v.config(profile, views) for v in experiment.variants}
    device = Device.choose(runs.device, next(iter(configs.values())).precision)
    of_each = runs.once("costs", lambda: cost.costs(configs, device)) if values["variants"] else {}
    labelled = len(runs.cohort.labelled)
    positives = int((labels_of(runs.cohort, runs.cohort.labelled) == 1).sum())
    for label, of in values["variants"].items():
        epochs = of["trained"]["epochs_a_network"]
        steps = steps_an_epoch(labelled, configs[label], runs.amounts.full.folds, positives)
        a_step = of_each[label]["seconds_a_step"]
        of_each[label]["seconds_a_training"] = round(a_step * steps * epochs, 2)
    return {**values, "costs": {"device": device.description, "of": of_each}}


def fig7(experiment: Experiment, runs: Finished) -> dict[str, Any]:
    """Alpha (IV-E), and the search for it as printed and without looking at the test."""
    values = _with_baseline(experiment, runs, sweep(experiment, runs))
    of_alpha = {a: v for a in ALPHAS for v in experiment.variants if v.label == alpha_label(a)}
    done = {a: v for a, v in of_alpha.items() if runs.has(v)}
    values["search"] = None
    if len(done) >= 2:
        found = search(
            {a: _predictions(v, runs) for a, v in done.items()},
            {a: measured.val_auc(runs.units(v, runs.amounts.sweep)) for a, v in done.items()},
            resamples=runs.amounts.profile.resamples,
        )
        values["search"] = {
            "among": sorted(done),
            "best": found.best,
            "printed": measured.plain(found.printed),
            "nested": measured.plain(found.nested),
            "nested_choices": [
                {"repeat": r, "fold": f, "alpha": a} for (r, f), a in found.chosen.items()
            ],
            "optimism": measured.plain(found.optimism),
            "bootstrap_corrected": measured.plain(found.corrected),
            "bootstrap_optimism": round(found.search_optimism, 6),
            "best_in_share_of_bootstraps": {
                alpha_label(a): round(share, 4) for a, share in found.how_often.items()
            },
        }
    return values


def table(values: dict[str, Any]) -> pd.DataFrame:
    """A sweep as a table: one row a variant, with its difference to what it is compared with."""
    counted = "candidates" if luna.is_luna(values) else "nodules"
    lines = []
    for label, of in values["variants"].items():
        metrics = of["metrics"]
        line: dict[str, Any] = {"variant": label, counted: metrics["nodules"]}
        shown = {m: metrics[m] for m in ("auc", "auc_within_folds", "sensitivity", "specificity")}
        if luna.is_luna(values):
            shown["cpm"] = luna.cpm(metrics) or dict.fromkeys(("value", "low", "high"))
        for metric, m in shown.items():
            line |= {metric: m["value"], f"{metric}_low": m["low"], f"{metric}_high": m["high"]}
        if luna.is_luna(values):
            line |= {k: metrics["screening"][k] for k in _SCREENED}
        line |= {k: of["trained"].get(k) for k in _TRAINED}
        if "costs" in values:
            line |= {k: values["costs"]["of"][label].get(k) for k in _COSTS}
        for name, pair in values["comparisons"].items():
            if name.startswith(f"{label} less ") and "compared_with" not in line:
                d = pair["auc_difference"]
                line |= {
                    "compared_with": name.removeprefix(f"{label} less "),
                    "difference": d["value"],
                    "difference_low": d["low"],
                    "difference_high": d["high"],
                    "p_delong": pair["delong"]["p_value"],
                    "p_holm": pair["p_holm"],
                    "within_margin": pair["equivalence"]["shown"],
                }
                c = pair.get("cpm_difference", {})
                line |= {
                    f"cpm_difference{end}": c[key]
                    for key, end in (("value", ""), ("low", "_low"), ("high", "_high"))
                    if key in c
                }
        lines.append(line)
    return pd.DataFrame(lines)


def _pairs(experiment: Experiment, profile: Profile) -> list[tuple[str, str]]:
    """What is compared, finished or not: declared pairs that are not one run by two names."""
    folder = {v.label: v.folder(profile) for v in experiment.variants}
    return [(a, b) for a, b in experiment.comparisons if folder[a] != folder[b]]


def _with_baseline(
    experiment: Experiment, runs: Finished, values: dict[str, Any]
) -> dict[str, Any]:
    first = next((v for v in experiment.variants if runs.has(v)), None)
    none = {DETECTOR if runs.cohort.task == "luna16" else SIZE_ONLY: None}
    return {**values, **(none if first is None else baseline(runs, first))}


def _predictions(variant: Variant, runs: Finished, view: str = VIEW) -> pd.DataFrame:
    """One view's predictions at the sweep's places, also of a baseline that has more.

    Of one view, since all variants' stay in memory.
    """
    plan: Plan = runs.amounts.sweep
    return runs.once(
        ("predictions", variant.folder(runs.amounts.profile), view),
        lambda: at_places(runs.predictions(variant, view), plan.places()),
    )


def _values(variant: Variant, runs: Finished) -> dict[str, Any]:
    profile = runs.amounts.profile
    folder = variant.folder(profile)
    return {
        "changes": dict(variant.changes),
        "folder": folder,
        "metrics": runs.once(
            ("metrics", folder),
            lambda: runs.measure((_predictions(variant, runs), VIEW)),
        ),
        "trained": runs.once(
            ("trained", folder),
            lambda: {
                **runs.trained(variant),
                **measured.training(runs.units(variant, runs.amounts.sweep)),
            },
        ),
    }
