"""Metrics against scikit-learn and known answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, brier_score_loss, recall_score, roc_auc_score

from labkit.errors import InputError
from labkit.evaluation import statistics

cases = st.integers(0, 2**32 - 1).map(
    lambda seed: (
        np.r_[0, 1, np.random.default_rng(seed).integers(0, 2, 40)],
        np.random.default_rng(seed).integers(0, 12, 42) / 11,  # with ties
    )
)


@given(cases)
def test_agrees_with_scikit_learn(case):
    y, s = case
    assert statistics.roc_auc(y, s) == pytest.approx(roc_auc_score(y, s))
    point = statistics.sensitivity_specificity(y, s, 0.4)
    called = s >= 0.4
    assert point.sensitivity == pytest.approx(recall_score(y, called))
    assert point.specificity == pytest.approx(recall_score(y, called, pos_label=0))
    assert point.accuracy == pytest.approx(accuracy_score(y, called))
    assert statistics.brier(y, s) == pytest.approx(brier_score_loss(y, s))


@given(cases)
def test_auc_is_the_share_of_pairs_in_the_right_order(case):
    y, s = case
    pairs = s[y == 1][:, None] - s[y == 0][None, :]
    expected = np.mean((pairs > 0) + 0.5 * (pairs == 0))
    assert statistics.roc_auc(y, s) == pytest.approx(expected)
    assert statistics.roc_auc(1 - y, s) == pytest.approx(1 - expected)
    false_positive, true_positive = statistics.roc(y, s)
    area = np.sum(np.diff(false_positive) * (true_positive[1:] + true_positive[:-1]) / 2)
    assert area == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "scores", "word"),
    [
        ([0, 1], [0.1], "one length"),
        ([0, 1], [0.1, np.nan], "finite"),
        ([0, 2], [0.1, 0.2], "0 .benign. or 1"),
        ([1, 1], [0.1, 0.2], "both"),
        ([np.nan, 1], [0.1, 0.2], "0 .benign. or 1"),
    ],
)
def test_what_cannot_be_judged_is_refused(labels, scores, word):
    with pytest.raises(InputError, match=word):
        statistics.roc_auc(labels, scores)


def test_brier_refuses_what_is_no_probability():
    with pytest.raises(InputError, match="between 0 and 1"):
        statistics.brier([0, 1], [0.2, 3.0])
