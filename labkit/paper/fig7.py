"""Fig. 7: alpha, and the search for it as Algorithm 1 prints it and without looking at the test.

Line 9 of Algorithm 1 takes the alpha whose cross-validated result is best and reports that very
result: the maximum of several noisy numbers, too high on average even when all alphas are equally
good. Two ways not to: nested (each fold's alpha is chosen on the inner validation split of its
training patients), and the bootstrap bias correction of Tsamardinos, Greasidou and Borboudakis,
Machine Learning 107:1895 (2018), which repeats the printed search on samples of patients and judges
what it chose by the patients left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import integrate, stats

from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.predictions import FUSED, one_view, select_view
from labkit.evaluation.statistics import RESAMPLES, Interval, Patients, plain
from labkit.paper.declared import ALPHAS, Experiment, alpha_label
from labkit.paper.values import Runs, sweep

Place = tuple[int, int]


def fig7(experiment: Experiment, runs: Runs) -> dict[str, Any]:
    """Compute the sweep over alpha (IV-E), and `search`, what a search for it finds."""
    values = sweep(experiment, runs)
    there, _ = runs.finished(experiment)
    done = {a: there[alpha_label(a)] for a in ALPHAS if alpha_label(a) in there}
    if len(done) < 2:
        return {**values, "search": None}
    plan = runs.profile.plan(sweep=True)
    found = search(
        {a: runs.in_sweep(v)[0] for a, v in done.items()},
        {a: val_auc(runs.networks(v, plan)) for a, v in done.items()},
        resamples=runs.profile.resamples,
    )
    shares = {alpha_label(a): round(share, 4) for a, share in found.how_often.items()}
    values["search"] = {
        "among": sorted(done), "best": found.best,
        **{k: plain(getattr(found, k)) for k in ("printed", "nested", "optimism")},
        "nested_choices": [{"repeat": r, "fold": f, "alpha": a}
                           for (r, f), a in found.chosen.items()],
        "bootstrap_corrected": plain(found.corrected),
        "bootstrap_optimism": round(found.search_optimism, 6),
        "best_in_share_of_bootstraps": shares,
    }  # fmt: skip
    return values


def val_auc(networks: Mapping[tuple[int, int, int], Mapping[str, Any]]) -> dict[Place, float]:
    """Return (repeat, fold) -> mean over views of the AUC on the inner validation split."""
    aucs = pd.Series({place: float(of["val_auc"]) for place, of in networks.items()})
    return dict(aucs.groupby(level=[0, 1]).mean())


@dataclass(frozen=True)
class Search:
    """What a search for a setting finds, and what is left of it on patients it did not see."""

    best: float  # setting with the highest AUC within the test folds
    printed: Interval  # that AUC, as Algorithm 1 would report it
    chosen: dict[Place, float]  # (repeat, fold) -> setting that the nested search takes there
    nested: Interval  # AUC of the nested search
    optimism: Interval  # `printed` less `nested`, paired over patients; the best setting held fixed
    corrected: Interval  # mean AUC, on patients left out, of what a bootstrap sample chooses
    search_optimism: float  # `printed` less the value of `corrected`
    how_often: dict[float, float]  # setting -> share of bootstrap samples in which it is best


def search(
    runs: Mapping[float, pd.DataFrame], val_auc: Mapping[float, Mapping[Place, float]],
    *, resamples: int = RESAMPLES,
) -> Search:  # fmt: skip
    """Search the setting with the best AUC within folds in both ways. The first wins a tie.

    Of setting -> `runs`, predictions of the same nodules and folds, fused, and setting -> (repeat,
    fold) -> `val_auc` on that fold's inner validation split. Raises InputError for fewer than two
    settings, or runs of different nodules or folds.
    """
    settings = sorted(runs)
    if len(settings) < 2:
        raise InputError("a search needs two settings or more to choose from")
    parts = {s: select_view(runs[s], FUSED) for s in settings}
    of = {s: one_view(part, FUSED) for s, part in parts.items()}
    labels, patients = of[settings[0]].labels, of[settings[0]].patients
    for s in settings[1:]:
        same = (np.array_equal(getattr(of[s], k), getattr(of[settings[0]], k))
                for k in ("nodules", "folds"))  # fmt: skip
        if not all(same):
            raise InputError(f"the runs of {settings[0]:g} and {s:g} have different folds")
    chosen = {p: max(settings, key=lambda s: (val_auc[s][p], -s))
              for p in sorted(val_auc[settings[0]])}  # fmt: skip
    nested = [part[pd.MultiIndex.from_frame(part[["repeat", "fold"]]).map(chosen) == s]
              for s, part in parts.items()]  # fmt: skip
    whose = Patients.of(patients, len(labels))
    judged_by_fold = [*of.values(), one_view(pd.concat(nested, ignore_index=True), FUSED)]
    measures = [statistics.auc_of_samples(labels, one.probabilities, whose, one.folds)
                for one in judged_by_fold]  # fmt: skip
    *every, honest = (whose.bootstrap(measure, resamples, seed=0) for measure in measures)
    inside = np.stack(every)
    best = int(np.argmax(inside[:, 0]))
    left_out = [lambda weights, m=measure: m((weights == 0).astype(float))
                for measure in measures[:-1]]  # fmt: skip
    outside = np.stack([whose.bootstrap(measure, resamples, seed=0) for measure in left_out])
    usable = np.isfinite(inside[0]) & np.isfinite(outside[0])
    if not usable.any():
        raise InputError("too few patients: no bootstrap sample leaves both classes out")
    winners = inside[:, usable].argmax(axis=0)
    judged = np.take_along_axis(outside[:, usable], winners[None], axis=0)[0]
    share = np.bincount(winners, minlength=len(every)) / len(winners)
    printed = statistics.percentile_interval(inside[best])
    return Search(
        best=settings[best], printed=printed, chosen=chosen,
        nested=statistics.percentile_interval(honest),
        optimism=statistics.percentile_interval(inside[best] - honest),
        corrected=statistics.percentile_interval(np.append(judged.mean(), judged)),
        search_optimism=printed.value - float(judged.mean()),
        how_often=dict(zip(settings, share.tolist(), strict=True)),
    )  # fmt: skip


def expected_maximum(k: int) -> float:
    """Compute the mean of the largest of k independent standard normal numbers.

    The integral of k x phi(x) Phi(x)^(k-1) over x.

    >>> round(expected_maximum(2), 4), round(expected_maximum(7), 4)
    (0.5642, 1.3522)
    """
    normal = stats.norm
    density = lambda x: k * x * normal.pdf(x) * normal.cdf(x) ** (k - 1)  # noqa: E731
    return float(integrate.quad(density, -8, 8)[0])


def own_error(values: Mapping[str, Any]) -> float:
    """Estimate the standard error of an alpha's AUC that it does not share with the others.

    What all get wrong together moves no ranking. A difference has two own errors: each is its
    standard error over the square root of two, the median of fig7's comparisons with alpha 0.
    """
    of = [c["within_folds_difference"] for c in values["comparisons"].values()]
    interval = 2 * stats.norm.ppf(0.975)
    return float(np.median([(d["high"] - d["low"]) / interval for d in of]) / np.sqrt(2))


def expected_luck(values: Mapping[str, Any]) -> float:
    """Compute by how much the best of several equally good alphas looks too good on average."""
    return expected_maximum(len(values["search"]["among"])) * own_error(values)
