"""Calibration agrees with scikit-learn and with chance; a temperature mends and never peeks."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from labkit.evaluation.calibration import (
    apply_temperature,
    calibration,
    fit_temperature,
    reliability_table,
    scale_run,
)
from tests.evaluation.tables import predictions, refused


def _table(y, p, patients=None, repeats=1):
    n = len(y)
    one = pd.DataFrame({"nodule_id": np.arange(n), "probability": p, "label": y})
    one = one.assign(patient_id=one["nodule_id"] if patients is None else patients)
    one = one.assign(fold=0, view="fused")
    return pd.concat([one.assign(repeat=r) for r in range(repeats)], ignore_index=True)


def _calibrated(seed, n=480, sharper=1.0):
    """Labels drawn from true probabilities, and those probabilities `sharper` times too sure."""
    rng = np.random.default_rng(seed)
    z = 1.5 * rng.normal(size=n)
    return (rng.random(n) < expit(z)).astype(int), expit(sharper * z)


@st.composite
def _judged(draw):
    n = draw(st.integers(2, 60))
    y = np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    p = np.array(draw(st.lists(st.floats(0, 1), min_size=n, max_size=n)))
    y[:2] = 0, 1
    return y, p


@given(_judged())
def test_brier_score_and_error_are_what_they_should_be(judged):
    y, p = judged
    found = calibration(_table(y, p), resamples=1)
    assert found.brier.value == pytest.approx(brier_score_loss(y, p), abs=1e-12)
    assert abs(y.mean() - p.mean()) - 1e-12 <= found.error.value <= 1
    assert calibration(_table(y, y.astype(float)), resamples=1).error.value == 0


def test_the_table_is_scikit_learns_curve_with_wilsons_interval():
    y, p = _calibrated(0)
    table = reliability_table(_table(y, p))
    observed, predicted = calibration_curve(y, p, n_bins=10, strategy="quantile")
    assert table["observed"].to_numpy() == pytest.approx(observed)
    assert table["predicted"].to_numpy() == pytest.approx(predicted)
    assert table["predictions"].tolist() == [48] * 10
    assert (table["lowest"] <= table["predicted"]).all()
    table = reliability_table(_table([0] * 30 + [1] * 10, [0.3] * 30 + [0.7] * 10))
    assert table[["predictions", "observed"]].to_numpy().tolist() == [[30, 0], [10, 1]]
    assert table["high"].iloc[0] == pytest.approx(0.114, abs=1e-3)  # Wilson, 0 of 30
    assert table["low"].iloc[1] == pytest.approx(0.722, abs=1e-3)  # Wilson, 10 of 10


def test_neither_siblings_nor_repeats_pass_for_patients():
    y, p = _calibrated(1, n=200)
    twins = _table(np.repeat(y, 3), np.repeat(p, 3), patients=np.repeat(np.arange(200), 3))
    once, tripled, thrice = (
        calibration(t, resamples=200) for t in (_table(y, p), twins, _table(y, p, repeats=3))
    )
    for found in (tripled, thrice):
        assert found.brier.low == pytest.approx(once.brier.low)
        assert found.brier.high == pytest.approx(once.brier.high)
        assert found.table["high"].to_numpy() == pytest.approx(once.table["high"].to_numpy())
    assert thrice.error.value == pytest.approx(once.error.value)
    assert thrice.error.high == pytest.approx(once.error.high)
    assert thrice.error_if_calibrated == pytest.approx(once.error_if_calibrated)
    assert thrice.table["nodules"].tolist() == once.table["nodules"].tolist()
    assert thrice.table["predictions"].tolist() == [60] * 10


def test_chance_alone_seldom_exceeds_what_is_said_of_it_and_overconfidence_does():
    def exceeds(seed, sharper):
        found = calibration(_table(*_calibrated(seed, sharper=sharper)), resamples=200)
        return found.error.value > found.error_if_calibrated[1]

    assert np.mean([exceeds(seed, 1.0) for seed in range(60)]) < 0.15
    assert np.mean([exceeds(seed, 2.0) for seed in range(20)]) > 0.9


def test_what_is_no_probability_is_refused():
    refused("between 0 and 1", calibration, _table([0, 1], [0.5, 1.5]))
    refused("no predictions for view", reliability_table, _table([0, 1], [0.5, 0.5]), "3")


# Temperature scaling.


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_of_a_known_distortion_is_found(temperature):
    found = fit_temperature(*_calibrated(0, 20_000, temperature))
    assert found == pytest.approx(temperature, rel=0.05)
    for seed in range(4):
        y, p = _calibrated(seed, 65, 1.7)  # as few as a fold's validation split has
        model = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-10).fit(logit(p)[:, None], y)
        assert fit_temperature(y, p) == pytest.approx(1 / model.coef_[0, 0], rel=1e-3)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.floats(0.1, 10))
def test_scaling_changes_no_order_and_undoes_itself(p, temperature):
    p = np.clip(p, 1e-4, 1 - 1e-4)
    scaled = apply_temperature(p, temperature)
    assert np.all((scaled >= 0) & (scaled <= 1))
    assert np.all(np.diff(scaled[np.argsort(p)]) >= 0)
    assume(temperature > 0.7)  # far below, probabilities are rounded to 1 and cannot come back
    assert apply_temperature(scaled, 1 / temperature) == pytest.approx(p, abs=1e-3)


def test_extreme_probabilities_have_a_temperature_too_and_what_has_none_is_refused():
    y = np.repeat([1, 0], 10)
    p = np.repeat([1.0, 0.0], 10)
    p[0], p[-1] = 0.0, 1.0  # two of twenty are wrong, and as sure as the others
    # The best slope makes nine tenths of 1 - 1e-7.
    assert fit_temperature(y, p) == pytest.approx(logit(1 - 1e-7) / logit(0.9), rel=1e-4)
    p = [0.2, 0.3, 0.6, 0.7]
    refused("separate the classes", fit_temperature, [0, 0, 1, 1], p)
    refused("wrong about as often as right", fit_temperature, [1, 1, 0, 0], p)
    refused("between 0 and 1", fit_temperature, [0, 1], [0.2, 1.3])
    refused("positive", apply_temperature, [0.2], 0)


@pytest.fixture
def run():
    return predictions(patients=120, repeats=2, folds=3)


def _validation(run):
    """Each fold's validation nodules: those of the next fold."""
    return run.assign(fold=(run["fold"] - 1) % 3)


def test_every_fold_is_scaled_by_its_own_validation(run):
    validation = _validation(run)
    second = validation["fold"] == 1
    distorted = apply_temperature(validation.loc[second, "probability"], 1 / 3)
    validation.loc[second, "probability"] = distorted
    scaled, temperatures = scale_run(run, validation)
    places = temperatures[["repeat", "fold"]].to_numpy().tolist()
    assert places == [[r, f] for r in range(2) for f in range(3)]
    ratio = temperatures["temperature"] / scale_run(run, _validation(run))[1]["temperature"]
    assert ratio.to_numpy() == pytest.approx([1, 3, 1] * 2, rel=1e-3)
    unchanged = [c for c in run.columns if c != "probability"]
    pd.testing.assert_frame_equal(scaled[unchanged], run[unchanged])
    folds = (t.groupby(["repeat", "fold"])["probability"] for t in (run, scaled))
    for (_, before), (_, after), t in zip(*folds, temperatures["temperature"], strict=True):
        assert after.to_numpy() == pytest.approx(apply_temperature(before, t))


def test_validation_that_is_missing_or_is_the_test_is_refused(run):
    where = "repeat 0, fold 0: "
    refused(f"{where}.* in its validation and in its test", scale_run, run, run)
    validation = _validation(run)
    there = (validation["repeat"] != 1) | (validation["fold"] != 2)
    refused("repeat 1, fold 2: no validation", scale_run, run, validation[there])
    perfect = validation.assign(probability=0.2 + 0.6 * validation["label"])
    refused(f"{where}no temperature", scale_run, run, perfect)
