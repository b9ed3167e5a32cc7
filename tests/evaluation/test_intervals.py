"""Intervals cover what they should, and DeLong's test agrees with its definition."""

import numpy as np
import pytest
from scipy import integrate, stats

from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.statistics import roc, roc_auc


def _two_scores(seed, n=60):
    rng = np.random.default_rng(seed)
    y = np.r_[np.zeros(n), np.ones(n)].astype(int)
    common = y + rng.normal(size=2 * n)
    first = np.round(common + rng.normal(size=2 * n), 1)
    second = np.round(common + rng.normal(size=2 * n), 1)
    return y, first, second


def _delong_by_definition(y, first, second):
    """DeLong et al. 1988, eq. 5 and 6, with the kernel written out pair by pair."""
    v10, v01, auc = [], [], []
    for s in (first, second):
        x, z = s[y == 1], s[y == 0]
        kernel = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in z] for a in x])
        auc.append(kernel.mean())
        v10.append(kernel.mean(1))
        v01.append(kernel.mean(0))
    covariance = np.cov(v10) / len(v10[0]) + np.cov(v01) / len(v01[0])
    contrast = np.array([1, -1])
    z = (auc[0] - auc[1]) / np.sqrt(contrast @ covariance @ contrast)
    return auc, z


@pytest.mark.parametrize("seed", range(5))
def test_delong_equals_its_definition(seed):
    y, first, second = _two_scores(seed)
    auc, z = _delong_by_definition(y, first, second)
    test = statistics.delong_test(y, first, second)
    assert test.auc == pytest.approx(auc)
    assert test.z == pytest.approx(z)
    assert test.p_value == pytest.approx(2 * stats.norm.sf(abs(z)))


def test_clusters_of_one_nodule_give_nearly_the_unclustered_test():
    y, first, second = _two_scores(7)
    plain = statistics.delong_test(y, first, second)
    single = statistics.delong_test(y, first, second, groups=np.arange(len(y)))
    assert single.z == pytest.approx(plain.z, rel=0.02)


def test_repeating_every_patient_does_not_make_the_clustered_test_surer():
    y, first, second = _two_scores(8)
    once = statistics.delong_test(y, first, second, groups=np.arange(len(y)))
    patients = np.tile(np.arange(len(y)), 4)
    again = [np.tile(v, 4) for v in (y, first, second)]
    clustered = statistics.delong_test(*again, groups=patients)
    assert clustered.z == pytest.approx(once.z, rel=1e-6)
    assert abs(statistics.delong_test(*again).z) > 1.9 * abs(once.z)


def test_delong_agrees_with_an_independent_implementation():
    other = pytest.importorskip("MLstatkit", reason="mlstatkit is not installed")
    for seed, n in enumerate((20, 60, 300)):
        y, first, second = _two_scores(seed, n)
        test = statistics.delong_test(y, first, second)
        z, p, _, _, *auc, _ = other.Delong_test(y, second, first)
        assert test.auc == pytest.approx(auc[::-1])
        assert (test.z, test.p_value) == pytest.approx((z, p))


def test_repeats_do_not_pass_for_nodules_in_delongs_test():
    y, first, second = _two_scores(11)
    patients = np.arange(len(y)) // 2
    once = statistics.delong_test(y, first, second, groups=patients)
    copies = statistics.delong_test(y, [first] * 10, [second] * 10, groups=patients)
    assert copies.z == pytest.approx(once.z)
    assert copies.difference.low == pytest.approx(once.difference.low)


def test_delong_of_repeats_tests_what_the_bootstrap_measures():
    # The mean AUC over repeats, not the AUC of the mean score, which is higher.
    rng = np.random.default_rng(12)
    y, first, second = _two_scores(12, n=150)
    noisy = [[s + rng.normal(size=len(y)) for _ in range(5)] for s in (first, second)]
    test = statistics.delong_test(y, *noisy)
    boot = statistics.bootstrap_auc_difference(y, *noisy, resamples=3000)
    assert test.auc[0] == pytest.approx(np.mean([roc_auc(y, s) for s in noisy[0]]))
    assert test.auc[0] < roc_auc(y, np.mean(noisy[0], axis=0))
    assert test.difference.value == pytest.approx(boot.value)
    width = test.difference.high - test.difference.low
    assert width == pytest.approx(boot.high - boot.low, rel=0.1)


def test_delong_of_a_score_with_itself_finds_nothing():
    y, first, _ = _two_scores(1)
    test = statistics.delong_test(y, first, first)
    assert (test.difference.value, test.z, test.p_value) == (0, 0, 1)


def test_bootstrap_interval_agrees_with_delongs_standard_error():
    y, first, second = _two_scores(2, n=150)
    boot = statistics.bootstrap_auc_difference(y, first, second, resamples=4000)
    normal = statistics.delong_test(y, first, second).difference
    assert boot.value == pytest.approx(normal.value)
    assert boot.high - boot.low == pytest.approx(normal.high - normal.low, rel=0.1)


def test_bootstrap_covers_the_true_auc_about_as_often_as_it_says():
    # Two normal distributions one standard deviation apart have an AUC of Phi(1 / sqrt 2).
    truth = stats.norm.cdf(1 / np.sqrt(2))
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 50)
    hits = 0
    for _ in range(150):
        interval = statistics.bootstrap_auc(y, y + rng.normal(size=100), resamples=400)
        hits += interval.low <= truth <= interval.high
    assert 0.87 <= hits / 150 <= 0.99


def test_siblings_widen_the_interval_when_patients_are_drawn():
    rng = np.random.default_rng(3)
    y = np.repeat(np.repeat([0, 1], 30), 4)
    patient = np.repeat(np.arange(60), 4)
    scores = y + np.repeat(rng.normal(size=60), 4) + 0.1 * rng.normal(size=240)
    by_patient = statistics.bootstrap_auc(y, scores, groups=patient)
    by_nodule = statistics.bootstrap_auc(y, scores)
    assert by_patient.value == by_nodule.value
    ratio = (by_patient.high - by_patient.low) / (by_nodule.high - by_nodule.low)
    assert 1.6 < ratio < 2.4  # four near-copies of each: the square root of four


def test_repeats_are_averaged_and_do_not_pass_for_patients():
    y, first, _ = _two_scores(4)
    once = statistics.bootstrap_auc(y, first)
    same_again = statistics.bootstrap_auc(y, np.stack([first] * 10))
    assert same_again == once
    both = statistics.bootstrap_auc(y, np.stack([first, -first]))
    assert both.value == pytest.approx(0.5)


def test_the_same_seed_gives_the_same_interval():
    y, first, _ = _two_scores(5)
    assert statistics.bootstrap_auc(y, first, seed=1) == statistics.bootstrap_auc(y, first, seed=1)
    assert statistics.bootstrap_auc(y, first, seed=1) != statistics.bootstrap_auc(y, first, seed=2)


def test_rates_agree_with_counting_and_wilson():
    y = np.repeat([0, 1], 100)
    p = np.r_[np.full(90, 0.1), np.full(10, 0.9), np.full(20, 0.2), np.full(80, 0.8)]
    rates = statistics.bootstrap_rates(y, p, resamples=4000)
    assert rates["sensitivity"].value == pytest.approx(0.8)
    assert rates["specificity"].value == pytest.approx(0.9)
    assert rates["accuracy"].value == pytest.approx(0.85)
    wilson = stats.binomtest(80, 100).proportion_ci(method="wilson")
    assert rates["sensitivity"].low == pytest.approx(wilson.low, abs=0.02)
    assert rates["sensitivity"].high == pytest.approx(wilson.high, abs=0.02)


def test_a_rate_without_a_miss_is_not_certain():
    y = np.repeat([0, 1], [30, 10])
    rates = statistics.bootstrap_rates(y, y.astype(float), groups=np.arange(40) // 2, resamples=50)
    sure = rates["sensitivity"]
    wilson = stats.binomtest(5, 5).proportion_ci(method="wilson")  # ten nodules, five patients
    assert (sure.value, sure.low, sure.high) == pytest.approx((1, wilson.low, 1))


@pytest.mark.parametrize(("hits", "trials"), [(0, 20), (3, 17), (50, 50)])
def test_wilsons_interval_is_scipys(hits, trials):
    ours = statistics.wilson(hits / trials, trials, 0.9)
    theirs = stats.binomtest(hits, trials).proportion_ci(0.9, method="wilson")
    assert ours == pytest.approx((theirs.low, theirs.high))


def test_the_interval_for_few_nodules_covers_where_the_bootstrap_does_not():
    # Ten malignant nodules, an AUC of 0.90, one to three nodules a patient who share their noise.
    truth = stats.norm.cdf(1.8 / np.sqrt(2))
    rng = np.random.default_rng(1)
    hits = np.zeros(2)
    for _ in range(200):
        y = rng.permutation(np.repeat([0, 1], [80, 10]))
        patient = np.repeat(np.arange(90), rng.integers(1, 4, size=90))[:90]
        s = 1.8 * y + np.sqrt(0.4) * rng.normal(size=90)[patient]
        s = s + np.sqrt(0.6) * rng.normal(size=90)
        found = (
            statistics.small_sample_auc(y, s, groups=patient),
            statistics.bootstrap_auc(y, s, groups=patient, resamples=200),
        )
        hits += [i.low <= truth <= i.high for i in found]
    few, bootstrap = hits / 200
    assert few >= 0.92
    assert bootstrap < few - 0.03


def test_the_interval_for_few_nodules_stays_within_zero_and_one():
    y = np.repeat([0, 1], 6)
    for s in (y + np.arange(12) / 100, np.arange(12) % 7, -y):
        interval = statistics.small_sample_auc(y, s)
        assert 0 <= interval.low <= interval.value <= interval.high <= 1
        assert interval.high - interval.low > 0.2
    y, first, _ = _two_scores(3, n=400)
    many, boot = statistics.small_sample_auc(y, first), statistics.bootstrap_auc(y, first)
    assert (many.low, many.high) == pytest.approx((boot.low, boot.high), abs=0.01)


def test_roc_band_holds_the_curve():
    y, first, _ = _two_scores(6)
    grid, height, low, high = statistics.roc_band(y, first, resamples=300)
    false_positive, true_positive = roc(y, first)
    np.testing.assert_allclose(integrate.trapezoid(height, grid), roc_auc(y, first), atol=0.01)
    assert np.all(low <= high)
    inside = (low - 1e-9 <= height) & (height <= high + 1e-9)
    assert inside.mean() > 0.95
    assert len(false_positive) == len(true_positive)


@pytest.mark.parametrize("groups", [[1, 2], [[1]]])
def test_groups_that_do_not_fit_are_refused(groups):
    with pytest.raises((InputError, ValueError), match="fit|group"):
        statistics.bootstrap_auc([0, 1, 1], [0.1, 0.2, 0.3], groups=groups)
