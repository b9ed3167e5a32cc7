"""Metrics, intervals and tests agree with other libraries, with definitions, and with chance."""

import dataclasses
import tracemalloc
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.special import expit
from sklearn import metrics

from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.predictions import one_view, paired
from labkit.evaluation.statistics import Interval, equivalence, holm, roc, roc_auc
from tests.evaluation.tables import predictions, refused

N, RESAMPLES = 90, 40
CASES = st.integers(0, 2**32 - 1).map(
    lambda seed: (
        np.r_[0, 1, np.random.default_rng(seed).integers(0, 2, 40)],
        np.random.default_rng(seed).integers(0, 12, 42) / 11,  # with ties
    )
)
DIFFERENCES = st.lists(st.floats(-0.3, 0.3), min_size=3, max_size=30).filter(
    lambda d: np.ptp(d) > 1e-3
)
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


def corrected(first, second, **how):
    return statistics.corrected_t_test(*paired(first, second, "fused"), **how)


# Metrics.


@given(CASES)
def test_auc_is_the_share_of_pairs_in_the_right_order_and_rates_those_of_scikit_learn(case):
    y, s = case
    pairs = s[y == 1][:, None] - s[y == 0][None, :]
    expected = np.mean((pairs > 0) + 0.5 * (pairs == 0))
    area = integrate.trapezoid(*roc(y, s)[::-1])
    assert [roc_auc(y, s), 1 - roc_auc(1 - y, s), area] == pytest.approx([expected] * 3)
    assert statistics.area(s[y == 1], s[y == 0]) == pytest.approx(expected, abs=1e-12)
    called = s >= 0.4
    rates = [metrics.recall_score(y, called), metrics.recall_score(y, called, pos_label=0),
             metrics.accuracy_score(y, called)]  # fmt: skip
    assert statistics.sensitivity_specificity(y, s, 0.4) == pytest.approx(rates)
    brier = statistics.bootstrap_rates(y, s, resamples=1)["brier"].value
    assert brier == pytest.approx(metrics.brier_score_loss(y, s))


@pytest.mark.parametrize(
    ("labels", "scores", "word"),
    [([0, 1], [0.1], "one length"), ([0, 1], [0.1, np.nan], "finite"),
     ([1, 1], [0.1, 0.2], "both"), ([0, 2], [0.1, 0.2], "0 .benign. or 1"),
     ([np.nan, 1], [0.1, 0.2], "0 .benign. or 1")],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused(labels, scores, word):
    for judge in (roc_auc, statistics.bootstrap_auc):
        refused(word, judge, labels, scores)
    for groups in ([1, 2], [[1]]):
        three = ([0, 1, 1], [0.1, 0.2, 0.3])
        refused("do not fit 3 labels", statistics.bootstrap_auc, *three, groups=groups)
    refused("1 or more", statistics.bootstrap_auc, [0, 1], [0.1, 0.2], resamples=0)


# The bootstrap gives what comparing every pair of drawn nodules gives, at any size.


@pytest.fixture(params=[1 << 22, 64], ids=["one block", "many"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(statistics, "_AT_ONCE", request.param)


def nodules(seed=0, repeats=3):
    """Labels, scores with many ties, and patients of one to many nodules, some of one class."""
    rng = np.random.default_rng(seed)
    y = (rng.random(N) < 0.3).astype(int)
    runs = np.round(y + rng.normal(size=(repeats, N)), 1)
    patients = np.array([f"p{i:02d}" for i in rng.integers(0, 25, N)], dtype=object)
    return y, runs, patients


def drawn_again(names, seed=0):
    """(RESAMPLES, N) as drawn in one piece, nodule by nodule."""
    _, codes = np.unique(names, return_inverse=True)
    count = codes.max() + 1
    counts = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    return counts[:, codes].astype(float)


def pair_by_pair(y, runs, weights):
    """AUC of each sample by its definition: every malignant nodule against every benign one."""
    wins = np.mean([(np.sign(r[y == 1][:, None] - r[y == 0]) + 1) / 2 for r in runs], axis=0)
    ill, well = weights[:, y == 1], weights[:, y == 0]
    return ((ill @ wins) * well).sum(1) / (ill.sum(1) * well.sum(1))


def bounds(samples):
    return tuple(np.nanquantile(samples, [0.025, 0.975]))


def three(interval):
    return interval.value, interval.low, interval.high


@pytest.mark.parametrize("grouped", [True, False], ids=["patients", "nodules"])
def test_the_bootstrap_is_that_of_all_pairs_on_the_same_patients(blocks, grouped):
    y, runs, patients = nodules()
    groups = patients if grouped else None
    weights = drawn_again(patients if grouped else np.arange(N), seed=5)
    how = {"groups": groups, "resamples": RESAMPLES, "seed": 5}
    weights = np.vstack([np.ones(N), weights])
    one, other = runs, nodules(seed=1, repeats=2)[1] + y
    first, second = (pair_by_pair(y, r, weights) for r in (one, other))
    for found, samples in (
        (statistics.bootstrap_auc(y, one, **how), first),
        (statistics.bootstrap_auc_difference(y, one, other, **how), first - second),
    ):
        expected = (samples[0], *bounds(samples[1:]))
        assert three(found) == pytest.approx(expected, abs=1e-12)


def test_every_sample_has_scikit_learns_weighted_roc(blocks):
    y, runs, names = nodules(seed=2, repeats=1)
    grid, curves = np.linspace(0, 1, 33), []
    for weight in np.vstack([np.ones(N), drawn_again(names, seed=3)]):
        false, true, _ = metrics.roc_curve(
            y, runs[0], sample_weight=weight, drop_intermediate=False
        )
        curves.append(np.interp(grid, false, true))
    band = statistics.roc_band(y, runs, groups=names, resamples=RESAMPLES, seed=3, points=33)
    expected = (grid, curves[0], *np.quantile(curves[1:], [0.025, 0.975], axis=0))
    np.testing.assert_allclose(band, expected, atol=1e-12)


def test_rates_are_those_of_nodules_drawn_with_their_patients():
    y, runs, names = nodules(seed=6)
    runs, weights = expit(runs), np.vstack([np.ones(N), drawn_again(names)])
    right, squared = ((runs >= 0.5) == (y == 1)).mean(axis=0), ((runs - y) ** 2).mean(axis=0)
    found = statistics.bootstrap_rates(y, runs, groups=names, resamples=RESAMPLES)
    of = {"sensitivity": (right, y == 1), "specificity": (right, y == 0),
          "accuracy": (right, y >= 0), "brier": (squared, y >= 0)}  # fmt: skip
    for name, (amount, counted) in of.items():
        samples = (weights @ (amount * counted)) / (weights @ counted)
        expected = (samples[0], *bounds(samples[1:]))
        assert three(found[name]) == pytest.approx(expected, abs=1e-12), name


def test_the_same_patients_are_drawn_however_they_are_named_and_in_whatever_blocks(blocks):
    y, runs, names = nodules()
    numbers = np.unique(names, return_inverse=True)[1]
    for groups in (names, numbers, names.tolist(), names.astype(str)):
        found = statistics.resample_weights(N, groups, RESAMPLES, 0)
        np.testing.assert_array_equal(found, drawn_again(names))
    first, again, other = (statistics.bootstrap_auc(y, runs, seed=s) for s in (1, 1, 2))
    assert first == again != other


def test_hundreds_of_thousands_of_candidates_take_little_memory():
    """A table of all pairs would take 2 GB here, and one of samples by candidates another 3."""
    rng = np.random.default_rng(0)
    n = 200_000
    y = np.zeros(n, dtype=int)
    y[rng.choice(n, 1_300, replace=False)] = 1
    p = np.clip(rng.random(n) + 0.4 * y, 0, 1)
    patients = rng.integers(0, 300, n)
    tracemalloc.start()
    found = statistics.bootstrap_auc(y, p, groups=patients)
    statistics.bootstrap_rates(y, p, groups=patients)
    statistics.roc_band(y, p, groups=patients, resamples=200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.low < metrics.roc_auc_score(y, p) < found.high
    assert peak < 300e6


# What intervals are worth.


def two_scores(seed, n=60):
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1], n)
    common = y + rng.normal(size=2 * n)
    first, second = (np.round(common + rng.normal(size=2 * n), 1) for _ in range(2))
    return y, first, second


def test_a_rate_is_counted_and_not_certain_without_a_miss():
    y = np.repeat([0, 1], 100)
    p = np.r_[np.full(90, 0.1), np.full(10, 0.9), np.full(20, 0.2), np.full(80, 0.8)]
    rates = statistics.bootstrap_rates(y, p, resamples=4000)
    values = [rates[name].value for name in ("sensitivity", "specificity", "accuracy")]
    assert values == pytest.approx([0.8, 0.9, 0.85])
    wilson = stats.binomtest(80, 100).proportion_ci(method="wilson")
    assert three(rates["sensitivity"]) == pytest.approx((0.8, wilson.low, wilson.high), abs=0.02)
    assert statistics.wilson(0.8, 100) == pytest.approx((wilson.low, wilson.high))
    y = np.repeat([0, 1], [30, 10])
    sure = statistics.bootstrap_rates(y, y.astype(float), groups=np.arange(40) // 2, resamples=50)
    wilson = stats.binomtest(5, 5).proportion_ci(method="wilson")  # ten nodules, five patients
    assert three(sure["sensitivity"]) == pytest.approx((1, wilson.low, 1))


def test_the_bootstrap_covers_the_true_auc_but_of_few_nodules_where_another_interval_does():
    # Normal distributions of a distance d have an AUC of Phi(d / sqrt 2). Then ten malignant
    # nodules, an AUC of 0.90, one to three nodules a patient who share their noise.
    rng, y = np.random.default_rng(0), np.repeat([0, 1], 50)
    truth = stats.norm.cdf(1 / np.sqrt(2))
    every = [statistics.bootstrap_auc(y, y + rng.normal(size=100), resamples=400)
             for _ in range(150)]  # fmt: skip
    assert 0.87 <= np.mean([i.low <= truth <= i.high for i in every]) <= 0.99
    truth, rng, hits = stats.norm.cdf(1.8 / np.sqrt(2)), np.random.default_rng(1), np.zeros(2)
    for _ in range(200):
        y = rng.permutation(np.repeat([0, 1], [80, 10]))
        patient = np.repeat(np.arange(90), rng.integers(1, 4, size=90))[:90]
        s = 1.8 * y + np.sqrt(0.4) * rng.normal(size=90)[patient]
        s = s + np.sqrt(0.6) * rng.normal(size=90)
        found = (statistics.small_sample_auc(y, s, groups=patient),
                 statistics.bootstrap_auc(y, s, groups=patient, resamples=200))  # fmt: skip
        hits += [i.low <= truth <= i.high for i in found]
    few, bootstrap = hits / 200
    assert few >= 0.92 and bootstrap < few - 0.03
    y = np.repeat([0, 1], 6)
    for s in (y + np.arange(12) / 100, np.arange(12) % 7, -y):
        interval = statistics.small_sample_auc(y, s)
        assert 0 <= interval.low <= interval.value <= interval.high <= 1
        assert interval.high - interval.low > 0.2


# DeLong's test.


@pytest.mark.parametrize("seed", range(5))
def test_delong_equals_its_definition(seed):
    """DeLong et al. 1988, eq. 5 and 6, with the kernel written out pair by pair."""
    y, first, second = two_scores(seed)
    pairs = [s[y == 1][:, None] - s[y == 0] for s in (first, second)]
    kernels = [(np.sign(p) + 1) / 2 for p in pairs]
    auc = [k.mean() for k in kernels]
    n = (y == 1).sum()
    covariance = sum(np.cov([k.mean(axis) for k in kernels]) / n for axis in (0, 1))
    contrast = np.array([1, -1])
    z = (auc[0] - auc[1]) / np.sqrt(contrast @ covariance @ contrast)
    test = statistics.delong_test(y, first, second)
    assert test.difference.value == pytest.approx(auc[0] - auc[1])
    assert (test.z, test.p_value) == pytest.approx((z, 2 * stats.norm.sf(abs(z))))


def test_neither_copies_of_patients_nor_repeats_make_delongs_test_surer():
    y, first, second = two_scores(8)
    alone = np.arange(len(y))
    plain = statistics.delong_test(y, first, second)
    once = statistics.delong_test(y, first, second, groups=alone)
    assert once.z == pytest.approx(plain.z, rel=0.02)
    again = [np.tile(v, 4) for v in (y, first, second)]
    clustered = statistics.delong_test(*again, groups=np.tile(alone, 4))
    assert clustered.z == pytest.approx(once.z, rel=1e-6)
    assert abs(statistics.delong_test(*again).z) > 1.9 * abs(once.z)
    copies = statistics.delong_test(y, [first] * 10, [second] * 10, groups=alone)
    assert three(copies.difference) == pytest.approx(three(once.difference))
    itself = statistics.delong_test(y, first, first)
    assert (itself.difference.value, itself.z, itself.p_value) == (0, 0, 1)


def agree(test, boot):
    assert test.difference.value == pytest.approx(boot.value)
    width = test.difference.high - test.difference.low
    assert width == pytest.approx(boot.high - boot.low, rel=0.1)


def test_delong_and_the_bootstrap_agree_on_the_mean_auc_over_repeats():
    # Not the AUC of the mean score, which is higher.
    rng = np.random.default_rng(12)
    y, first, second = two_scores(12, n=150)
    noisy = [[s + rng.normal(size=len(y)) for _ in range(5)] for s in (first, second)]
    for pair in ((first, second), noisy):
        test = statistics.delong_test(y, *pair)
        agree(test, statistics.bootstrap_auc_difference(y, *pair, resamples=3000))
    means = [np.mean([roc_auc(y, s) for s in of]) for of in noisy]
    assert test.difference.value == pytest.approx(means[0] - means[1])
    assert means[0] < roc_auc(y, np.mean(noisy[0], axis=0))


# Within folds, only nodules that the same networks judged are compared.


def test_within_folds_is_all_pairs_of_each_fold(blocks):
    table = predictions(patients=30, repeats=2, folds=3, drift=1.0)
    of = one_view(table, "fused")
    y, runs, folds, names = of.labels, of.probabilities, of.folds, of.patients
    weights = np.vstack([np.ones(len(y)), drawn_again(names)])
    won, pairs = np.zeros((2, len(weights)))
    for run, fold_of in zip(runs, folds, strict=True):
        for i in np.flatnonzero(y == 1):
            for j in np.flatnonzero((y == 0) & (fold_of == fold_of[i])):
                both = weights[:, i] * weights[:, j]
                won += both * (np.sign(run[i] - run[j]) + 1) / 2
                pairs += both
    expected = won / pairs
    found = statistics.within_folds_auc(table, resamples=RESAMPLES)
    assert three(found) == pytest.approx((expected[0], *bounds(expected[1:])), abs=1e-12)
    shuffled = table.sample(frac=1, random_state=1)
    assert statistics.within_folds_auc(shuffled, resamples=RESAMPLES) == found
    one = table.assign(fold=0)
    within = statistics.within_folds_auc(one, resamples=RESAMPLES)
    pooled = statistics.bootstrap_auc(y, runs, groups=names, resamples=RESAMPLES)
    assert three(within) == pytest.approx(three(pooled))


def test_drift_between_folds_costs_the_pooled_auc_alone():
    still, drifting = (predictions(patients=200, drift=d) for d in (0.0, 3.0))
    pooled = [roc_auc(t["label"], t["probability"]) for t in (still, drifting)]
    within = [statistics.within_folds_auc(t, resamples=50).value for t in (still, drifting)]
    assert within[1] == pytest.approx(within[0])  # a constant a fold changes no order in it
    assert pooled[1] < pooled[0] - 0.05
    assert within[0] == pytest.approx(pooled[0], abs=0.01)
    torn = still.assign(fold=still["label"])
    refused("no fold has both", statistics.within_folds_auc, torn)


def test_delong_within_folds_is_delong_in_one_fold_and_the_bootstrap_in_several():
    first, second = (predictions(patients=150, drift=1.0, scores_seed=s) for s in (1, 2))
    one, two = paired(first.assign(fold=0), second.assign(fold=0), "fused")
    runs = (one.labels, one.probabilities, two.probabilities)
    whole = statistics.within_folds_test(one, two)
    assert whole == statistics.delong_test(*runs, groups=one.patients)
    one, two = paired(first, second, "fused")
    test = statistics.within_folds_test(one, two)
    agree(test, statistics.within_folds_difference(one, two))
    each = [statistics.within_folds_auc(t, resamples=1).value for t in (first, second)]
    assert test.difference.value == pytest.approx(each[0] - each[1])
    itself = statistics.within_folds_difference(one, one, resamples=100)
    assert three(itself) == (0, 0, 0)
    assert (test.p_value < 0.05) == (test.difference.low > 0 or test.difference.high < 0)
    drifting = first.assign(probability=first["probability"] * (1 + first["fold"]) / 4)
    one, two = paired(first, drifting, "fused")  # the same order in each fold
    assert statistics.within_folds_test(one, two).p_value == 1


def retrained(seed, repeats=3, between=0.4):
    """Two equally good methods, whose every training moves each by `between` on its own."""
    rng = np.random.default_rng(seed)
    nodules = pd.DataFrame({"nodule_id": np.arange(200), "patient_id": np.arange(200) // 2,
                            "fold": np.arange(200) // 2 % 2, "view": "fused",
                            "label": np.arange(200) % 2})  # fmt: skip
    common = rng.normal(size=100)[nodules["patient_id"]] + rng.normal(size=200)

    def trained():
        own, signal = 0.3 * rng.normal(size=200), 1.5 + between * rng.normal(size=repeats)
        return pd.concat(
            nodules.assign(repeat=r, probability=expit(signal[r] * nodules["label"] + common + own))
            for r in range(repeats)
        )

    return trained(), trained()


def test_with_three_trainings_the_interval_and_the_test_are_of_other_trainings_too():
    missed = np.zeros(3)
    for seed in range(120):
        one, two = paired(*retrained(seed), "fused")
        interval = statistics.within_folds_difference(one, two, resamples=200)
        # As if the repeats were of one training each: what is said of these networks alone.
        means = (of.probabilities.mean(axis=0, keepdims=True) for of in (one, two))
        alone = [dataclasses.replace(of, probabilities=p, folds=of.folds[:1])
                 for of, p in zip((one, two), means, strict=True)]  # fmt: skip
        missed += [statistics.within_folds_test(*alone).p_value < 0.05,
                   statistics.within_folds_test(one, two).p_value < 0.05,
                   not interval.low <= 0 <= interval.high]  # fmt: skip
    patients_only, test, boot = missed / 120
    assert patients_only > 0.3  # the luck of three trainings passes for a finding
    assert test <= 0.08
    assert boot <= 0.2  # a percentile interval of three is no Student's t
    said = [statistics.compare(*retrained(0, repeats), resamples=20)["holds_for"]
            for repeats in (1, 2, 3)]  # fmt: skip
    these, trainings = "other patients, these networks", "other patients and trainings"
    assert said == [these, these, trainings]


def test_a_family_is_corrected_on_the_primary_p_values():
    runs = [predictions(scores_seed=s, drift=d) for s, d in ((1, 0.0), (2, 1.0), (3, 0.0))]
    pairs = {f"{a} less {b}": statistics.compare(runs[a], runs[b], resamples=50)
             for a, b in combinations(range(3), 2)}  # fmt: skip
    family = statistics.correct(pairs, size=5)
    assert family["size"] == 5 and "within folds" in family["of"]
    p = {k: pair["p_value"] for k, pair in pairs.items()}
    expected = holm({**p, "later": 1.0, "last": 1.0})["p_adjusted"]  # not yet measured
    assert [pair["p_holm"] for pair in pairs.values()] == expected[:3].tolist()
    assert statistics.correct({})["size"] == 0


# Equivalence is shown by an interval within a margin.


@given(st.floats(-0.2, 0.2), st.floats(0.001, 0.1), st.floats(0.001, 0.3))
def test_the_90_percent_interval_is_two_one_sided_tests_at_5_percent(difference, error, margin):
    half = stats.norm.ppf(0.95) * error
    result = equivalence(Interval(difference, difference - half, difference + half, 0.9), margin)
    p = stats.norm.sf((margin - abs(difference)) / error)
    assert result.shown == (p < 0.05) or p == pytest.approx(0.05, abs=1e-6)
    assert result.smallest_margin == pytest.approx(abs(difference) + half)
    assert ("no difference larger than" in result.in_words) is result.shown
    assert "90 % interval" in result.in_words


@pytest.mark.parametrize("margin", [0, -0.02, np.nan, np.inf])
def test_a_margin_has_to_be_one(margin):
    refused("margin", equivalence, Interval(0, -0.01, 0.01, 0.9), margin)
    refused("interval", equivalence, Interval(0, -np.inf, 0.01, 0.9))


# Holm's correction.


@given(P_VALUES)
def test_holm_is_the_closed_test_of_bonferroni(values):
    # By definition: a hypothesis falls when every family that holds it falls by Bonferroni.
    p = np.array(values)
    expected = np.zeros(len(p))
    for size in range(1, len(p) + 1):
        for family in combinations(range(len(p)), size):
            chosen = list(family)
            expected[chosen] = np.maximum(expected[chosen], min(1.0, size * p[chosen].min()))
    table = holm({str(i): v for i, v in enumerate(p)})
    assert table["p_adjusted"].to_numpy() == pytest.approx(expected)
    assert table["found"].tolist() == (table["p_adjusted"] <= 0.05).tolist()
    assert table["comparison"].tolist() == [str(i) for i in range(len(p))]


def test_what_is_no_family_of_p_values_is_refused():
    refused("family of 1", holm, {"a": 0.1, "b": 0.2}, size=1)
    for p in ({}, {"a": np.nan}, {"a": -0.1}, {"a": 1.1}):
        refused("p-value", holm, p)


# Folds do not pass for experiments: the corrected t-test.


def test_the_corrected_t_by_hand():
    # Mean 2, variance 4: the plain standard error is sqrt(4 / 3), the corrected one, with
    # n_test / n_train = 1 / 2, sqrt(4 (1 / 3 + 1 / 2)) = sqrt(10 / 3).
    test, error = statistics.resampled_t_test([0.0, 2.0, 4.0], 1 / 2), np.sqrt(10 / 3)
    assert (test.t, test.degrees_of_freedom) == (pytest.approx(2 / error), 2)
    assert test.p_value == pytest.approx(2 * stats.t.sf(2 / error, 2))
    half = stats.t.ppf(0.975, 2) * error
    assert three(test.difference) == pytest.approx((2, 2 - half, 2 + half))


@given(DIFFERENCES, st.floats(0.01, 1))
def test_without_correction_it_is_scipys_t_test_and_the_correction_only_widens(d, ratio):
    ours, theirs = statistics.resampled_t_test(d, 0.0), stats.ttest_1samp(d, 0.0)
    assert (ours.t, ours.p_value) == pytest.approx((theirs.statistic, theirs.pvalue))
    scipys = theirs.confidence_interval(0.95)
    assert (ours.difference.low, ours.difference.high) == pytest.approx((scipys.low, scipys.high))
    test, other = (statistics.resampled_t_test(v, ratio) for v in (d, -np.array(d)))
    assert (other.t, other.p_value) == pytest.approx((-test.t, test.p_value))
    assert test.p_value >= ours.p_value - 1e-12
    assert test.difference.low <= test.difference.value <= test.difference.high
    excluded = not test.difference.low <= 0 <= test.difference.high
    assert excluded == (test.p_value < 0.05) or test.p_value == pytest.approx(0.05)


@pytest.mark.parametrize("d", [[], [0.1], [[0.1, 0.2]], [0.1, np.nan], [0.1, 0.1, 0.1]])
def test_differences_without_a_variance_are_refused(d):
    refused("differences", statistics.resampled_t_test, d, 0.1)
    test = statistics.resampled_t_test([0.0, 0.0, 0.0], 0.1)
    assert (test.t, test.p_value, test.difference.value) == (0, 1, 0)


def test_the_plain_test_finds_what_is_not_there_and_the_corrected_one_seldom():
    """Two learners, equally good: ten noisy features each, along the difference of class means."""
    rng = np.random.default_rng(0)
    y, found, folds = np.repeat([0, 1], 30), np.zeros(2), 5
    for _ in range(60):
        both = [rng.normal(size=(60, 10)) + 0.45 * y[:, None] for _ in range(2)]
        d = []
        for _ in range(folds):  # as many repeats
            fold = np.concatenate([rng.permutation(30) % folds for _ in range(2)])
            for test in (fold == k for k in range(folds)):
                ill, well = ~test & (y == 1), ~test & (y == 0)
                scores = [x[test] @ (x[ill].mean(0) - x[well].mean(0)) for x in both]
                one, two = (statistics.area(s[y[test] == 1], s[y[test] == 0]) for s in scores)
                d.append(one - two)
        p = [statistics.resampled_t_test(d, r).p_value for r in (0.0, 1 / (folds - 1))]
        found += np.array(p) < 0.05
    plain, corrected = found / 60
    assert plain > 0.25 and corrected <= 0.10


def test_runs_are_compared_fold_by_fold():
    first, second = (predictions(repeats=3, scores_seed=s) for s in (1, 2))
    pairs = zip(*(t.groupby(["repeat", "fold"]) for t in (first, second)), strict=True)
    by_hand = [roc_auc(a["label"], a["probability"]) - roc_auc(b["label"], b["probability"])
               for (_, a), (_, b) in pairs]  # fmt: skip
    test = corrected(first, second)
    assert test == statistics.resampled_t_test(by_hand, 1 / (0.85 * 3))  # 15 % of the rest stop
    assert test.degrees_of_freedom == 11
    shuffled = second.sample(frac=1, random_state=0)
    assert corrected(first, shuffled).t == pytest.approx(test.t)
    ninth = corrected(first, second, test_over_train=1 / 9)
    assert abs(ninth.t) > abs(test.t)


def test_unpaired_and_unequal_folds_are_refused():
    first = predictions(repeats=2)
    fewer = first.assign(fold=first["fold"].where(first["repeat"] == 0, first["fold"] % 3))
    lopsided = first.assign(fold=first["fold"].clip(upper=1))
    one, by_label = first.assign(fold=0), first.assign(fold=first["label"])
    for table, other, words in (
        (first, predictions(repeats=2, seed=5), "no partner"),
        (first, predictions(repeats=1), "no partner"),
        (first, first.assign(label=1 - first["label"]), "different nodules"),
        (fewer, fewer, "3 to 4 folds"),
        (lopsided, lopsided, "of about one size"),
        (one, one, "one fold"),
        (by_label, by_label, "repeat 0, fold 0: both benign and malignant"),
    ):
        refused(words, corrected, table, other)


def test_a_bootstrap_that_would_not_fit_into_memory_is_refused():
    label = np.arange(statistics.MOST_PATIENTS + 1) % 2
    with pytest.raises(InputError, match="give `groups`"):
        statistics.bootstrap_auc(label, label)


def test_methods_a_margin_apart_are_seldom_found_equivalent():
    # The error that the 5 % is about: the true difference is the margin, and equivalence is found.
    rng = np.random.default_rng(0)
    y, table = np.tile([0, 1], 60), predictions(patients=60)
    truth = [stats.norm.cdf(s / np.sqrt(2)) for s in (1.5, 1.0)]
    found = 0
    for _ in range(150):
        common = rng.normal(size=60)[np.repeat(np.arange(60), 2)]
        pair = [table.assign(probability=s * y + 0.8 * common + 0.6 * rng.normal(size=120), fold=0)
                for s in (1.5, 1.0)]  # fmt: skip
        of = statistics.compare(*pair, margin=truth[0] - truth[1], resamples=200)
        found += of["equivalence"]["shown"]
    assert found / 150 < 0.10
