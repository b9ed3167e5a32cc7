"""Fusion by AUC weights (Eq. 4)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from labkit.evaluation.statistics import roc_auc
from labkit.models.fusion import add_size, auc_weights, fuse, moved, size_weights

aucs = arrays(float, 9, elements=st.floats(0.01, 1.0))
probabilities = arrays(float, (5, 9), elements=st.floats(0, 1))


@given(probabilities, aucs)
def test_weights_sum_to_one_keep_the_aucs_order_and_fuse_to_something_between(p, auc):
    weights = auc_weights(auc)
    assert weights.sum() == pytest.approx(1)
    assert np.all(np.diff(weights[np.argsort(auc, kind="stable")]) >= 0)
    fused = fuse(p, weights)
    assert np.all(fused >= p.min(1) - 1e-12) and np.all(fused <= p.max(1) + 1e-12)


@given(probabilities)
def test_equal_aucs_give_the_plain_mean(p):
    np.testing.assert_allclose(fuse(p, auc_weights(np.full(9, 0.8))), p.mean(1), atol=1e-12)


@pytest.mark.parametrize("bad", [[0.5, np.nan], [0.5, 1.2], [[0.5]]])
def test_impossible_aucs_and_weights_are_refused(bad):
    with pytest.raises(ValueError, match="AUC"):
        auc_weights(bad)
    with pytest.raises(ValueError, match="do not fit"):
        fuse(np.ones((2, 9)), np.full(8, 1 / 8))
    with pytest.raises(ValueError, match="sum to"):
        fuse(np.ones((2, 2)), [0.5, 0.6])


def test_views_that_are_all_worthless_weigh_the_same():
    assert auc_weights([0.0, 0.0]).tolist() == [0.5, 0.5]


@given(
    st.lists(st.lists(st.floats(0.001, 0.999), min_size=3, max_size=3), min_size=1, max_size=8),
    st.lists(st.floats(0.5, 1), min_size=3, max_size=3),
    st.floats(-7, 7),
)
def test_fusing_and_moving_the_odds_may_change_places(p, auc, shift):
    """What is brought back to another share view by view is fused as if it had been afterwards."""
    weights = auc_weights(auc)
    fused = fuse(moved(p, shift), weights, shift)
    np.testing.assert_allclose(fused, moved(fuse(p, weights), shift), rtol=1e-6)


def test_one_sure_view_does_not_outvote_eight_after_the_odds_are_moved():
    """Three rows: all views a little in favour, one view sure and eight against, all against."""
    p = np.array([[0.6] * 9, [0.999] + [0.3] * 8, [0.3] * 9])
    equal, shift = np.full(9, 1 / 9), -5.6
    assert np.argmax(moved(p, shift) @ equal) == 1  # the mean of what was moved
    assert np.argsort(-fuse(moved(p, shift), equal, shift)).tolist() == [0, 1, 2]


def test_the_diameter_adds_what_a_method_does_not_know():
    """Where one of the two says nothing, both together are worth as much as the other."""
    rng = np.random.default_rng(0)
    label = np.arange(400) % 2
    tells = rng.normal(label, 0.8)
    says_nothing = rng.normal(0, 1, 400)
    half = slice(0, 200), slice(200, 400)
    for logit, log_mm in ((tells, says_nothing), (says_nothing, tells)):
        p, mm = 1 / (1 + np.exp(-logit)), 10 * np.exp(log_mm / 3)
        weights = size_weights(p[half[0]], mm[half[0]], label[half[0]])
        together = add_size(p[half[1]], mm[half[1]], weights)
        assert roc_auc(label[half[1]], together) > roc_auc(label[half[1]], tells[half[1]]) - 0.02
