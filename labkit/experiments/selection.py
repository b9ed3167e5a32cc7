"""Searching a setting by its result: as Algorithm 1 prints it, and without looking at the test.

Line 9 of Algorithm 1 takes the alpha whose cross-validated result is best and reports that very
result: the maximum of several noisy numbers, which is too high on average even when all alphas
are equally good. Two ways not to: nested (each fold's alpha is chosen on the inner validation
split of its training patients, so that its test nodules have no say), and the bootstrap bias
correction of Tsamardinos, Greasidou and Borboudakis, Machine Learning 107:1895 (2018), which
repeats the printed search on bootstrap samples of patients and judges what it chose by the
patients left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.errors import InputError
from labkit.evaluation import _order, intervals
from labkit.evaluation._patients import Patients
from labkit.evaluation.intervals import Interval
from labkit.evaluation.metrics import roc_auc
from labkit.evaluation.summary import scores

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
    printed = intervals.bootstrap_auc(labels, every[best], **drawn)
    return Search(
        settings[best],
        printed,
        chosen,
        intervals.bootstrap_auc(labels, honest, **drawn),
        intervals.bootstrap_auc_difference(labels, every[best], honest, **drawn),
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
    of_each = [_order.auc(labels, runs, whose) for runs in every]
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
    return intervals.percentile(float(values.mean()), values, 0.95), share
