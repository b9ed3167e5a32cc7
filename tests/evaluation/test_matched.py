"""AUC in pairs of one size."""

import numpy as np
import pandas as pd
import pytest

from labkit.errors import InputError
from labkit.evaluation import size, statistics
from labkit.evaluation.statistics import roc_auc
from tests.evaluation.tables import predictions


def sizes(table, mm):
    ids = sorted(table["nodule_id"].unique())
    return pd.DataFrame({"nodule_id": ids, "diameter_mm": np.broadcast_to(mm, len(ids))})


def by_size(patients, rng):
    """Predictions whose score is the diameter itself, larger in malignant nodules."""
    table = predictions(patients)
    mm = np.exp(rng.normal(2.3, 0.4, len(table)) + 0.5 * table["label"])
    return table.assign(probability=mm / mm.max()), table[["nodule_id"]].assign(diameter_mm=mm)


def test_with_all_nodules_of_one_size_it_is_the_auc():
    table = predictions(30)
    found = size.matched_auc(table, sizes(table, 10.0), within_folds=False, resamples=200)
    assert found.auc.value == pytest.approx(roc_auc(table["label"], table["probability"]))
    assert (found.pairs, found.malignant, found.benign) == (900, 30, 30)
    same = statistics.bootstrap_auc(
        table["label"], table["probability"], groups=table["patient_id"], resamples=200
    )
    assert (found.auc.low, found.auc.high) == pytest.approx((same.low, same.high))


def test_size_alone_knows_next_to_nothing_among_nodules_of_one_size():
    table, nodules = by_size(400, np.random.default_rng(0))
    assert roc_auc(table["label"], table["probability"]) > 0.75
    close = size.matched_auc(table, nodules, ratio=1.02, within_folds=False, resamples=100)
    assert 0.47 < close.auc.value < 0.53


def test_wider_pairs_lead_back_to_the_auc_of_size():
    table, nodules = by_size(100, np.random.default_rng(1))
    aucs = [
        size.matched_auc(table, nodules, ratio=r, within_folds=False, resamples=10)
        for r in (1.05, 1.5, 1e6)
    ]
    assert aucs[0].auc.value < aucs[1].auc.value < aucs[2].auc.value
    assert aucs[2].auc.value == pytest.approx(roc_auc(table["label"], table["probability"]))
    assert aucs[0].pairs < aucs[1].pairs < aucs[2].pairs == 100 * 100


def test_drift_between_folds_does_not_count_within_them():
    calm, adrift = (predictions(60, drift=d) for d in (0.0, 5.0))
    within = [size.matched_auc(t, sizes(t, 9.0), resamples=10) for t in (calm, adrift)]
    assert within[0] == within[1]
    assert within[0].pairs < 60 * 60


def test_only_the_pairs_of_one_size_are_asked():
    table = pd.DataFrame(
        {
            "nodule_id": list("abcd"), "patient_id": list("abcd"), "repeat": 0, "fold": 0,
            "view": "fused", "probability": [0.1, 0.9, 0.8, 0.2], "label": [0, 1, 0, 1],
        }
    )  # fmt: skip
    nodules = pd.DataFrame({"nodule_id": list("dcba"), "diameter_mm": [20.0, 20.0, 5.0, 5.0]})
    found = size.matched_auc(table, nodules, resamples=10)
    assert found.auc.value == 0.5  # b outscores a, and d does not outscore c
    assert found.pairs == 2


def test_a_difference_is_that_of_the_two_and_of_itself_is_nothing():
    table = predictions(40)
    better = table.assign(view="better", probability=table["probability"] + 0.1 * table["label"])
    both = pd.concat([table, better], ignore_index=True)
    nodules = sizes(table, np.linspace(5, 12, 80))
    how = {"ratio": 1.3, "resamples": 200}
    one, two = (size.matched_auc(both, nodules, v, **how).auc for v in ("better", "fused"))
    difference = size.matched_difference(both, nodules, "better", "fused", **how)
    assert difference.value == pytest.approx(one.value - two.value)
    assert 0 <= difference.low < difference.value < difference.high
    none = size.matched_difference(both, nodules, "fused", "fused", **how)
    assert (none.low, none.value, none.high) == (0, 0, 0)


@pytest.mark.parametrize("ratio", [0.9, np.nan, np.inf])
def test_a_ratio_that_is_none_is_refused(ratio):
    table = predictions(10)
    with pytest.raises(InputError, match="larger diameter"):
        size.matched_auc(table, sizes(table, 9.0), ratio=ratio)


def test_what_is_missing_is_named():
    table = predictions(10)
    with pytest.raises(InputError, match="n000: no diameter"):
        size.matched_auc(table, sizes(table, 9.0).iloc[1:])
    apart = sizes(table, np.where(np.arange(20) % 2, 30.0, 3.0))
    with pytest.raises(InputError, match="of its size"):
        size.matched_auc(table, apart)
