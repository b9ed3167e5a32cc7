"""Sums over pairs of patients give what comparing every pair of nodules gives, at any size."""

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from labkit.evaluation import statistics
from labkit.evaluation.statistics import Patients, scores
from tests.evaluation.tables import predictions

N, RESAMPLES = 90, 40


@pytest.fixture(params=[True, False], ids=["table", "order"])
def way(request, monkeypatch):
    """By a table of patients, and by running along the scores where that would be too large."""
    if not request.param:
        monkeypatch.setattr(statistics, "_LARGEST_TABLE", 0)
        monkeypatch.setattr(statistics, "_WORTH_A_TABLE", 0)
    else:
        monkeypatch.setattr(statistics, "_WORTH_A_TABLE", N)
    return request.param


@pytest.fixture(params=[1 << 22, 64], ids=["one block", "many blocks"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(statistics, "_AT_ONCE", request.param)


def nodules(seed=0, repeats=3, digits=1):
    """Labels, scores with many ties, and patients of one to many nodules, some of one class."""
    rng = np.random.default_rng(seed)
    y = (rng.random(N) < 0.3).astype(int)
    runs = np.round(y + rng.normal(size=(repeats, N)), digits)
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


@pytest.mark.parametrize("grouped", [True, False], ids=["patients", "nodules"])
def test_the_bootstrap_is_that_of_all_pairs_on_the_same_patients(way, blocks, grouped):
    y, runs, patients = nodules()
    groups = patients if grouped else None
    weights = drawn_again(patients if grouped else np.arange(N), seed=5)
    expected = np.nanquantile(pair_by_pair(y, runs, weights), [0.025, 0.975])
    found = statistics.bootstrap_auc(y, runs, groups=groups, resamples=RESAMPLES, seed=5)
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-12)
    as_it_is = pair_by_pair(y, runs, np.ones((1, N)))[0]
    assert found.value == pytest.approx(as_it_is, abs=1e-12)
    other = nodules(seed=1, repeats=2)[1] + y
    apart = pair_by_pair(y, runs, weights) - pair_by_pair(y, other, weights)
    less = statistics.bootstrap_auc_difference(
        y, runs, other, groups=groups, resamples=RESAMPLES, seed=5
    )
    expected = np.nanquantile(apart, [0.025, 0.975])
    assert (less.low, less.high) == pytest.approx(tuple(expected), abs=1e-12)


def test_every_sample_is_scikit_learns_weighted_auc_and_roc(way, blocks):
    y, runs, names = nodules(seed=2, repeats=1)
    patients = Patients.of(names, N)
    grid = np.linspace(0, 1, 33)
    aucs = patients.bootstrap(statistics.auc(y, runs, patients), RESAMPLES, 3)
    curves = patients.bootstrap(statistics.heights(y, runs[0], patients, grid), RESAMPLES, 3)
    weights = np.vstack([np.ones(N), drawn_again(names, seed=3)])
    for weight, auc, curve in zip(weights, aucs, curves, strict=True):
        assert auc == pytest.approx(roc_auc_score(y, runs[0], sample_weight=weight), abs=1e-12)
        false, true, _ = roc_curve(y, runs[0], sample_weight=weight, drop_intermediate=False)
        np.testing.assert_allclose(curve, np.interp(grid, false, true), atol=1e-12)


def test_the_value_of_all_as_they_are_is_the_same_alone():
    y, runs, _ = nodules(seed=4)
    for run in runs:
        found = statistics.area(run[y == 1], run[y == 0])
        assert found == pytest.approx(roc_auc_score(y, run), abs=1e-12)


def test_a_sample_without_a_class_has_no_auc_and_no_curve(way):
    y, runs, names = nodules()
    patients = Patients.of(names, N)
    weights = np.ones((2, patients.count))
    weights[1, np.unique(patients.codes[y == 1])] = 0
    found = statistics.auc(y, runs, patients)(weights)
    assert np.isfinite(found).tolist() == [True, False]
    curves = statistics.heights(y, runs[0], patients, np.linspace(0, 1, 5))(weights)
    assert np.isfinite(curves).all(axis=1).tolist() == [True, False]


def test_within_folds_is_all_pairs_of_each_fold(way, blocks):
    table = predictions(patients=30, repeats=2, folds=3, drift=1.0)
    y, runs, names = scores(table, "fused")
    folds = table.pivot(index="nodule_id", columns="repeat", values="fold").to_numpy().T
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
    assert found.value == pytest.approx(expected[0], abs=1e-12)
    bounds = tuple(np.nanquantile(expected[1:], [0.025, 0.975]))
    assert (found.low, found.high) == pytest.approx(bounds, abs=1e-12)


def test_rates_are_those_of_nodules_drawn_with_their_patients():
    y, runs, names = nodules(seed=6)
    runs = 1 / (1 + np.exp(-runs))
    weights = drawn_again(names)
    right = ((runs >= 0.5) == (y == 1)).mean(axis=0)
    squared = ((runs - y) ** 2).mean(axis=0)
    found = statistics.bootstrap_rates(y, runs, groups=names, resamples=RESAMPLES)
    for name, amount, counted in (
        ("sensitivity", right, y == 1),
        ("specificity", right, y == 0),
        ("accuracy", right, y >= 0),
        ("brier", squared, y >= 0),
    ):
        samples = (weights @ (amount * counted)) / (weights @ counted)
        expected = (amount[counted].mean(), *np.nanquantile(samples, [0.025, 0.975]))
        rate = found[name]
        assert (rate.value, rate.low, rate.high) == pytest.approx(expected, abs=1e-12), name


def test_the_same_patients_are_drawn_however_they_are_named_and_in_whatever_blocks(blocks):
    _, _, names = nodules()
    numbers = np.unique(names, return_inverse=True)[1]
    expected = drawn_again(names)
    for groups in (names, numbers, names.tolist(), names.astype(str)):
        found = statistics.resample_weights(N, groups, RESAMPLES, 0)
        np.testing.assert_array_equal(found, expected)


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
    assert found.low < roc_auc_score(y, p) < found.high
    assert peak < 300e6
