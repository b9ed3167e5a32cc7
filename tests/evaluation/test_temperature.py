"""A temperature is found where it is, changes no order, and never sees what it is judged by."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from labkit.errors import InputError
from labkit.evaluation.calibration import apply_temperature, fit_temperature, scale_run
from labkit.evaluation.statistics import roc_auc
from tests.evaluation.tables import predictions


def _too_sure(temperature, n=20_000, seed=0):
    rng = np.random.default_rng(seed)
    z = 1.5 * rng.normal(size=n)
    return (rng.random(n) < expit(z)).astype(int), expit(z * temperature)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_of_a_known_distortion_is_found(temperature):
    assert fit_temperature(*_too_sure(temperature)) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_scikit_learns_logistic_regression_without_intercept(seed):
    y, p = _too_sure(1.7, n=65, seed=seed)  # as few as a fold's validation split has
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


def test_probabilities_of_zero_and_one_have_a_temperature_too():
    y = np.repeat([1, 0], 10)
    p = np.repeat([1.0, 0.0], 10)
    p[0], p[-1] = 0.0, 1.0  # two of twenty are wrong, and as sure as the others
    # The best slope makes nine tenths of 1 - 1e-7.
    assert fit_temperature(y, p) == pytest.approx(logit(1 - 1e-7) / logit(0.9), rel=1e-4)


def test_validation_without_a_best_temperature_is_refused():
    with pytest.raises(InputError, match="separate the classes"):
        fit_temperature([0, 0, 1, 1], [0.2, 0.3, 0.6, 0.7])
    with pytest.raises(InputError, match="wrong about as often as right"):
        fit_temperature([1, 1, 0, 0], [0.2, 0.3, 0.6, 0.7])
    with pytest.raises(InputError, match="between 0 and 1"):
        fit_temperature([0, 1], [0.2, 1.3])
    with pytest.raises(InputError, match="positive"):
        apply_temperature([0.2], 0)


@pytest.fixture
def run():
    return predictions(patients=120, repeats=2, folds=3)


def _validation(run):
    """Each fold's validation nodules: those of the next fold."""
    return run.assign(fold=(run["fold"] - 1) % 3)


def test_every_fold_is_scaled_by_its_own_validation(run):
    validation = _validation(run)
    distorted = run["fold"] == 1
    validation.loc[validation["fold"] == 1, "probability"] = apply_temperature(
        validation.loc[validation["fold"] == 1, "probability"], 1 / 3
    )
    scaled, temperatures = scale_run(run, validation)
    assert temperatures[["repeat", "fold"]].to_numpy().tolist() == [
        [r, f] for r in range(2) for f in range(3)
    ]
    plain = scale_run(run, _validation(run))[1]
    ratio = temperatures["temperature"] / plain["temperature"]
    assert ratio[temperatures["fold"] == 1].to_numpy() == pytest.approx(3, rel=1e-3)
    assert ratio[temperatures["fold"] != 1].to_numpy() == pytest.approx(1)
    expected = apply_temperature(
        run.loc[distorted & (run["repeat"] == 0), "probability"],
        temperatures.query("repeat == 0 and fold == 1")["temperature"].item(),
    )
    got = scaled.loc[distorted & (scaled["repeat"] == 0), "probability"]
    assert got.to_numpy() == pytest.approx(expected)
    unchanged = [c for c in run.columns if c != "probability"]
    pd.testing.assert_frame_equal(scaled[unchanged], run[unchanged])


def test_the_auc_within_a_fold_stays(run):
    scaled, _ = scale_run(run, _validation(run))
    for (_, before), (_, after) in zip(
        run.groupby(["repeat", "fold"]), scaled.groupby(["repeat", "fold"]), strict=True
    ):
        assert roc_auc(after["label"], after["probability"]) == pytest.approx(
            roc_auc(before["label"], before["probability"])
        )


def test_validation_that_is_missing_or_is_the_test_is_refused(run):
    with pytest.raises(InputError, match="repeat 0, fold 0: .* in its validation and in its test"):
        scale_run(run, run)
    validation = _validation(run)
    with pytest.raises(InputError, match="repeat 1, fold 2: no validation"):
        scale_run(run, validation[(validation["repeat"] != 1) | (validation["fold"] != 2)])
    perfect = validation.assign(probability=0.2 + 0.6 * validation["label"])
    with pytest.raises(InputError, match="repeat 0, fold 0: no temperature"):
        scale_run(run, perfect)
    with pytest.raises(InputError, match="no predictions for view"):
        scale_run(run, validation, "7")
