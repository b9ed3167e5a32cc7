"""Within folds, only nodules that the same networks judged are compared."""

import numpy as np
import pytest

from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.statistics import roc_auc
from tests.evaluation.tables import predictions


def test_drift_between_folds_costs_the_pooled_auc_alone():
    still, drifting = (predictions(patients=200, drift=d) for d in (0.0, 3.0))
    pooled = [roc_auc(t["label"], t["probability"]) for t in (still, drifting)]
    within = [statistics.within_folds_auc(t, resamples=50).value for t in (still, drifting)]
    assert within[1] == pytest.approx(within[0])  # a constant a fold changes no order in it
    assert pooled[1] < pooled[0] - 0.05
    assert within[0] == pytest.approx(pooled[0], abs=0.01)


def test_it_is_the_mean_of_the_folds_weighted_by_their_pairs():
    table = predictions(repeats=2, folds=3)
    parts = [g for _, g in table.groupby(["repeat", "fold"])]
    aucs = [roc_auc(g["label"], g["probability"]) for g in parts]
    pairs = [g["label"].sum() * (1 - g["label"]).sum() for g in parts]
    found = statistics.within_folds_auc(table, resamples=20)
    assert found.value == pytest.approx(np.average(aucs, weights=pairs))
    shuffled = table.sample(frac=1, random_state=1)
    assert statistics.within_folds_auc(shuffled, resamples=20) == found


def test_with_one_fold_it_is_the_pooled_auc_and_its_interval():
    table = predictions().assign(fold=0)
    found = statistics.within_folds_auc(table, resamples=200)
    pooled = statistics.repeated_auc(table, resamples=200).auc
    assert (found.value, found.low, found.high) == pytest.approx(
        (pooled.value, pooled.low, pooled.high)
    )


def test_differences_are_paired_and_need_the_same_nodules():
    first, second = (predictions(scores_seed=s) for s in (1, 2))
    found = statistics.within_folds_difference(first, second, resamples=100)
    each = [statistics.within_folds_auc(t, resamples=100).value for t in (first, second)]
    assert found.value == pytest.approx(each[0] - each[1])
    same = statistics.within_folds_difference(first, first, resamples=100)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    with pytest.raises(InputError, match="different nodules"):
        statistics.within_folds_difference(first, predictions(patients=30))


def test_folds_of_one_class_have_nothing_to_compare():
    table = predictions()
    with pytest.raises(InputError, match="no fold has both"):
        statistics.within_folds_auc(table.assign(fold=table["label"]))
