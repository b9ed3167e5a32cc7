"""Folds do not pass for experiments, nor repeats for patients."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.statistics import roc_auc
from tests.evaluation.tables import predictions

DIFFERENCES = st.lists(st.floats(-0.3, 0.3), min_size=3, max_size=30).filter(
    lambda d: np.ptp(d) > 1e-3
)


def test_the_corrected_t_by_hand():
    # Mean 2, variance 4: the plain standard error is sqrt(4 / 3), the corrected one, with
    # n_test / n_train = 1 / 2, sqrt(4 (1 / 3 + 1 / 2)) = sqrt(10 / 3).
    test = statistics.resampled_t_test([0.0, 2.0, 4.0], 1 / 2)
    assert test.t == pytest.approx(2 / np.sqrt(10 / 3))
    assert test.degrees_of_freedom == 2
    assert test.p_value == pytest.approx(2 * stats.t.sf(2 / np.sqrt(10 / 3), 2))
    half = stats.t.ppf(0.975, 2) * np.sqrt(10 / 3)
    assert (test.difference.low, test.difference.high) == pytest.approx((2 - half, 2 + half))


@given(DIFFERENCES)
def test_without_correction_it_is_scipys_t_test(d):
    ours, theirs = statistics.resampled_t_test(d, 0.0), stats.ttest_1samp(d, 0.0)
    assert ours.t == pytest.approx(theirs.statistic)
    assert ours.p_value == pytest.approx(theirs.pvalue)
    bounds = theirs.confidence_interval(0.95)
    assert (ours.difference.low, ours.difference.high) == pytest.approx((bounds.low, bounds.high))


@given(DIFFERENCES, st.floats(0.01, 1))
def test_it_is_antisymmetric_and_the_correction_only_widens(d, ratio):
    test, other = (statistics.resampled_t_test(v, ratio) for v in (d, -np.array(d)))
    assert other.t == pytest.approx(-test.t)
    assert other.p_value == pytest.approx(test.p_value)
    assert test.p_value >= statistics.resampled_t_test(d, 0.0).p_value - 1e-12
    assert test.difference.low <= test.difference.value <= test.difference.high
    excluded = not test.difference.low <= 0 <= test.difference.high
    assert excluded == (test.p_value < 0.05) or test.p_value == pytest.approx(0.05)


def test_it_agrees_with_baycomp():
    baycomp = pytest.importorskip("baycomp", reason="baycomp is not installed")
    d = np.random.default_rng(0).normal(0.01, 0.02, size=30)
    mean, variance, freedom = baycomp.CorrelatedTTest.compute_statistics(np.zeros(30), d, runs=3)
    test = statistics.resampled_t_test(d, 1 / 9)
    assert (test.difference.value, test.degrees_of_freedom) == (pytest.approx(mean), freedom)
    assert test.t == pytest.approx(mean / np.sqrt(variance))


@pytest.mark.parametrize("d", [[], [0.1], [[0.1, 0.2]], [0.1, np.nan], [0.1, 0.1, 0.1]])
def test_differences_without_a_variance_are_refused(d):
    with pytest.raises(InputError):
        statistics.resampled_t_test(d, 0.1)


def test_methods_that_never_differ_have_no_difference():
    test = statistics.resampled_t_test([0.0, 0.0, 0.0], 0.1)
    assert (test.t, test.p_value, test.difference.value) == (0, 1, 0)


def _false_findings(
    simulations: int, nodules: int, folds: int, repeats: int
) -> tuple[float, float]:
    """How often each t-test finds a difference at 5 % between two learners that are equally good.

    Each has ten noisy features of its own, equally informative, and goes along the difference of
    the class means.
    """
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], nodules // 2)
    found = np.zeros(2)
    for _ in range(simulations):
        both = [rng.normal(size=(nodules, 10)) + 0.45 * y[:, None] for _ in range(2)]
        d = []
        for _ in range(repeats):
            fold = np.concatenate([rng.permutation(nodules // 2) % folds for _ in range(2)])
            for k in range(folds):
                test, train = fold == k, fold != k
                auc = [
                    _auc(
                        y[test],
                        x[test] @ (x[train & (y == 1)].mean(0) - x[train & (y == 0)].mean(0)),
                    )
                    for x in both
                ]
                d.append(auc[0] - auc[1])
        p = [statistics.resampled_t_test(d, r).p_value for r in (0.0, 1 / (folds - 1))]
        found += np.array(p) < 0.05
    return tuple(found / simulations)


def _auc(y, s):
    n = int(y.sum())
    return (stats.rankdata(s)[y == 1].sum() - n * (n + 1) / 2) / (n * (len(y) - n))


def test_the_plain_test_finds_what_is_not_there_and_the_corrected_one_seldom():
    plain, corrected = _false_findings(simulations=60, nodules=60, folds=5, repeats=5)
    assert plain > 0.25
    assert corrected <= 0.10


@pytest.mark.slow
def test_the_same_at_ten_by_ten():
    plain, corrected = _false_findings(simulations=300, nodules=100, folds=10, repeats=10)
    assert plain > 0.4
    assert corrected <= 0.08


def test_runs_are_compared_fold_by_fold():
    first, second = (predictions(repeats=3, scores_seed=s) for s in (1, 2))
    by_hand = [
        roc_auc(a["label"], a["probability"]) - roc_auc(b["label"], b["probability"])
        for (_, a), (_, b) in zip(
            first.groupby(["repeat", "fold"]), second.groupby(["repeat", "fold"]), strict=True
        )
    ]
    test = statistics.corrected_t_test(first, second)
    assert test == statistics.resampled_t_test(by_hand, 1 / 3)
    assert test.degrees_of_freedom == 11
    shuffled = second.sample(frac=1, random_state=0)
    assert statistics.corrected_t_test(first, shuffled).t == pytest.approx(test.t)
    ninth = statistics.corrected_t_test(first, second, test_over_train=1 / 9)
    assert abs(ninth.t) > abs(test.t)


def test_unpaired_and_unequal_folds_are_refused():
    first = predictions(repeats=2)
    with pytest.raises(InputError, match="no partner"):
        statistics.corrected_t_test(first, predictions(repeats=2, seed=5))
    with pytest.raises(InputError, match="no partner"):
        statistics.corrected_t_test(first, predictions(repeats=1))
    other = first.assign(label=1 - first["label"])
    with pytest.raises(InputError, match="different labels"):
        statistics.corrected_t_test(first, other)
    fewer = first.assign(fold=first["fold"].where(first["repeat"] == 0, first["fold"] % 3))
    with pytest.raises(InputError, match="3 to 4 folds"):
        statistics.corrected_t_test(fewer, fewer)
    lopsided = first.assign(fold=first["fold"].clip(upper=1))
    with pytest.raises(InputError, match="of about one size"):
        statistics.corrected_t_test(lopsided, lopsided)
    with pytest.raises(InputError, match="one fold"):
        statistics.corrected_t_test(first.assign(fold=0), first.assign(fold=0))
    by_label = first.assign(fold=first["label"])
    with pytest.raises(InputError, match="repeat 0, fold 0: both benign and malignant"):
        statistics.corrected_t_test(by_label, by_label)


def test_repeats_are_averaged_as_aucs_and_the_ensemble_stands_apart():
    table = predictions(repeats=5, shared=0.2)
    found = statistics.repeated_auc(table, resamples=200)
    aucs = [roc_auc(r["label"], r["probability"]) for _, r in table.groupby("repeat")]
    assert found.by_repeat == pytest.approx(aucs)
    assert found.auc.value == pytest.approx(np.mean(aucs))
    assert found.spread == pytest.approx(np.std(aucs, ddof=1))
    assert found.averaged.value > max(aucs)  # averaging takes noise away: another, better method
    once = statistics.repeated_auc(predictions(repeats=1), resamples=50)
    assert once.spread is None
    assert once.averaged == once.auc


def test_copies_of_a_repeat_make_nothing_surer():
    once = predictions(repeats=1)
    many = pd.concat([once.assign(repeat=r) for r in range(5)])
    kept, copied = (statistics.repeated_auc(t, resamples=100) for t in (once, many))
    assert (copied.auc.low, copied.auc.high) == pytest.approx((kept.auc.low, kept.auc.high))
    assert copied.spread == pytest.approx(0)


def test_a_table_of_comparisons_has_one_difference_and_not_two():
    first, second = (predictions(repeats=4, shared=0.2, scores_seed=s) for s in (1, 2))
    pair = statistics.compare(first, second)
    aucs = [statistics.repeated_auc(t, resamples=20).auc.value for t in (first, second)]
    assert pair["auc_difference"]["value"] == pytest.approx(aucs[0] - aucs[1])
    assert pair["delong"]["difference"] == pytest.approx(aucs[0] - aucs[1])
    renamed = second.assign(nodule_id="x" + second["nodule_id"])
    with pytest.raises(InputError, match="different nodules"):
        statistics.compare(first, renamed)
