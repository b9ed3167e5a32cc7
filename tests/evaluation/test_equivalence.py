"""Equivalence is shown by an interval within a margin, and many tests are paid for."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from labkit.errors import InputError
from labkit.evaluation.statistics import MARGIN_AUC, Interval, auc_equivalence, equivalence, holm
from tests.evaluation.tables import predictions

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [(-0.01, 0.015, True), (-0.019, 0.019, True), (0.001, 0.019, True), (-0.02, 0.0, False),
     (0.0, 0.021, False), (-0.05, -0.03, False), (-0.1, 0.1, False)],
)  # fmt: skip
def test_it_is_shown_when_the_interval_lies_within_the_margin(low, high, shown):
    result = equivalence(Interval((low + high) / 2, low, high, 0.9), 0.02)
    assert result.shown is shown
    assert result.smallest_margin == pytest.approx(max(-low, high))
    assert result.alpha == pytest.approx(0.05)
    assert ("no difference larger than 0.02" in str(result)) is shown
    assert "90 % interval" in str(result)


@given(st.floats(-0.2, 0.2), st.floats(0.001, 0.1), st.floats(0.001, 0.3))
def test_the_90_percent_interval_is_two_one_sided_tests_at_5_percent(difference, error, margin):
    half = stats.norm.ppf(0.95) * error
    result = equivalence(Interval(difference, difference - half, difference + half, 0.9), margin)
    below, above = ((margin + difference) / error, (margin - difference) / error)
    p = max(stats.norm.sf(below), stats.norm.sf(above))
    assert result.shown == (p < 0.05) or p == pytest.approx(0.05, abs=1e-6)
    assert result.shown == (result.smallest_margin < margin)


@pytest.mark.parametrize("margin", [0, -0.02, np.nan, np.inf])
def test_a_margin_has_to_be_one(margin):
    with pytest.raises(InputError, match="margin"):
        equivalence(Interval(0, -0.01, 0.01, 0.9), margin)
    with pytest.raises(InputError, match="interval"):
        equivalence(Interval(0, -np.inf, 0.01, 0.9))


def test_a_run_is_equivalent_to_itself_and_not_to_a_worse_one():
    good, poor = predictions(signal=2.0), predictions(signal=0.2)
    same = auc_equivalence(good, good, resamples=100)
    assert same.shown and same.smallest_margin == 0 and same.margin == MARGIN_AUC
    assert not auc_equivalence(good, poor, resamples=100).shown
    with pytest.raises(InputError, match="different nodules"):
        auc_equivalence(good, predictions(patients=20))


def test_methods_a_margin_apart_are_seldom_called_equivalent():
    # The error that the 5 % is about: the true difference is the margin, and equivalence is found.
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 60)
    truth = [stats.norm.cdf(s / np.sqrt(2)) for s in (1.5, 1.0)]
    found = 0
    for _ in range(150):
        common = rng.normal(size=60)[np.repeat(np.arange(60), 2)]
        tables = [
            pd.DataFrame(
                {
                    "nodule_id": np.arange(120),
                    "patient_id": np.repeat(np.arange(60), 2),
                    "repeat": 0,
                    "fold": 0,
                    "view": "fused",
                    "probability": s * y + 0.8 * common + 0.6 * rng.normal(size=120),
                    "label": y,
                }
            )
            for s in (1.5, 1.0)
        ]
        found += auc_equivalence(*tables, margin=truth[0] - truth[1], resamples=200).shown
    assert found / 150 < 0.10


def test_holm_by_hand():
    # Ordered 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, and never falling.
    table = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert table["p_adjusted"].tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert table["found"].tolist() == [True, False, False, True]
    assert table["comparison"].tolist() == ["a", "b", "c", "d"]
    assert set(table["correction"]) == {"Holm over 4"}


@given(P_VALUES)
def test_holm_is_the_closed_test_of_bonferroni(values):
    # By definition: a hypothesis falls when every family that holds it falls by Bonferroni.
    p = np.array(values)
    expected = np.zeros(len(p))
    for size in range(1, len(p) + 1):
        for family in combinations(range(len(p)), size):
            chosen = list(family)
            expected[chosen] = np.maximum(expected[chosen], min(1.0, size * p[chosen].min()))
    adjusted = holm({str(i): v for i, v in enumerate(p)})["p_adjusted"]
    assert adjusted.to_numpy() == pytest.approx(expected)


def test_holm_agrees_with_statsmodels():
    """Numbers that `multipletests(p, method="holm")` of statsmodels 0.14.6 gave; one tie."""
    p = [0.012, 0.0004, 0.31, 0.0021, 0.012, 0.048, 0.92, 0.0075]
    theirs = [0.06, 0.0032, 0.62, 0.0147, 0.06, 0.144, 0.92, 0.045]
    adjusted = holm({str(i): v for i, v in enumerate(p)})["p_adjusted"]
    assert adjusted.to_numpy() == pytest.approx(theirs)


@given(P_VALUES, st.integers(0, 6))
def test_a_family_measured_in_part_is_one_whose_rest_has_p_1(values, unknown):
    p = {str(i): v for i, v in enumerate(values)}
    rest = {f"rest {i}": 1.0 for i in range(unknown)}
    declared = holm(p, size=len(p) + unknown)
    assert set(declared["correction"]) == {f"Holm over {len(p) + unknown}"}
    expected = holm(p | rest)["p_adjusted"].to_numpy()[: len(p)]
    assert declared["p_adjusted"].to_numpy() == pytest.approx(expected)


@given(P_VALUES, P_VALUES)
def test_measuring_the_rest_of_a_family_only_lowers_what_was_adjusted(first, later):
    p = {str(i): v for i, v in enumerate(first)}
    rest = {f"rest {i}": v for i, v in enumerate(later)}
    before = holm(p, size=len(p) + len(rest))["p_adjusted"].to_numpy()
    after = holm(p | rest)["p_adjusted"].to_numpy()[: len(p)]
    assert (after <= before + 1e-12).all()


def test_a_family_is_no_smaller_than_what_was_measured_of_it():
    with pytest.raises(InputError, match="family of 1"):
        holm({"a": 0.1, "b": 0.2}, size=1)


@pytest.mark.parametrize("p", [{}, {"a": np.nan}, {"a": -0.1}, {"a": 1.1}])
def test_what_is_no_p_value_is_refused(p):
    with pytest.raises(InputError):
        holm(p)
