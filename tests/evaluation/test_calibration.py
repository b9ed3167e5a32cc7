"""Calibration agrees with scikit-learn, with arithmetic, and with what it says of chance."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from labkit.errors import InputError
from labkit.evaluation import calibration
from tests.evaluation.tables import predictions


def _table(y, p, patients=None, repeats=1):
    n = len(y)
    one = pd.DataFrame(
        {
            "nodule_id": np.arange(n),
            "patient_id": np.arange(n) if patients is None else patients,
            "repeat": 0,
            "fold": 0,
            "view": "fused",
            "probability": p,
            "label": y,
        }
    )
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


@settings(deadline=None)
@given(_judged(), st.integers(1, 12))
def test_the_brier_score_is_scikit_learns_and_its_parts_add_up(judged, bins):
    y, p = judged
    parts = calibration.brier_parts(y, p, bins)
    assert parts.value == pytest.approx(brier_score_loss(y, p), abs=1e-12)
    total = parts.reliability - parts.resolution + parts.uncertainty + parts.within
    assert total == pytest.approx(parts.value, abs=1e-12)
    assert min(parts.reliability, parts.resolution) >= 0
    assert parts.resolution <= parts.uncertainty + 1e-12


@settings(deadline=None)
@given(_judged(), st.integers(1, 12))
def test_the_error_lies_between_the_bias_and_one(judged, bins):
    y, p = judged
    error = calibration.calibration_error(y, p, bins)
    assert abs(y.mean() - p.mean()) - 1e-12 <= error <= 1
    assert calibration.calibration_error(y, p, 1) == pytest.approx(abs(y.mean() - p.mean()))
    assert calibration.calibration_error(y, y.astype(float), bins) == 0


def test_the_table_is_scikit_learns_curve():
    y, p = _calibrated(0)
    table = calibration.reliability_table(_table(y, p), bins=10)
    observed, predicted = calibration_curve(y, p, n_bins=10, strategy="quantile")
    assert table["observed"].to_numpy() == pytest.approx(observed)
    assert table["predicted"].to_numpy() == pytest.approx(predicted)
    assert table["predictions"].tolist() == [48] * 10
    assert (table["low"] <= table["observed"]).all()
    assert (table["observed"] <= table["high"]).all()
    assert (table["lowest"] <= table["predicted"]).all()


def test_equal_probabilities_share_a_bin():
    table = calibration.reliability_table(_table([0, 1] * 20, [0.3] * 30 + [0.7] * 10), bins=10)
    assert table["predicted"].to_numpy() == pytest.approx([0.3, 0.7])
    assert table["predictions"].tolist() == [30, 10]


def test_a_bin_without_malignant_nodules_still_has_an_interval():
    y = np.repeat([0, 1], 20)
    table = calibration.reliability_table(_table(y, np.repeat([0.1, 0.9], 20)), bins=2)
    assert table["observed"].tolist() == [0, 1]
    assert table["high"].iloc[0] == pytest.approx(0.161, abs=1e-3)  # Wilson, 0 of 20
    assert table["low"].iloc[1] == pytest.approx(1 - 0.161, abs=1e-3)


def test_siblings_do_not_pass_for_patients():
    y, p = _calibrated(1, n=200)
    alone = calibration.calibration(_table(y, p), resamples=300)
    twins = _table(np.repeat(y, 3), np.repeat(p, 3), patients=np.repeat(np.arange(200), 3))
    tripled = calibration.calibration(twins, resamples=300)
    assert tripled.brier.low == pytest.approx(alone.brier.low)
    assert tripled.brier.high == pytest.approx(alone.brier.high)
    assert tripled.table["high"].to_numpy() == pytest.approx(alone.table["high"].to_numpy())


def test_repeats_do_not_pass_for_patients():
    y, p = _calibrated(2, n=200)
    once = calibration.calibration(_table(y, p), resamples=200)
    thrice = calibration.calibration(_table(y, p, repeats=3), resamples=200)
    assert thrice.brier == pytest.approx(once.brier) or str(thrice.brier) == str(once.brier)
    assert thrice.error.value == pytest.approx(once.error.value)
    assert thrice.error.high == pytest.approx(once.error.high)
    assert thrice.error_if_calibrated == pytest.approx(once.error_if_calibrated)
    assert thrice.table["nodules"].tolist() == once.table["nodules"].tolist()
    assert thrice.table["predictions"].tolist() == [60] * 10
    assert thrice.table["low"].to_numpy() == pytest.approx(once.table["low"].to_numpy())


def test_chance_alone_seldom_exceeds_what_is_said_of_it_and_overconfidence_does():
    def exceeds(seed, sharper):
        found = calibration.calibration(_table(*_calibrated(seed, sharper=sharper)), resamples=200)
        return found.error.value > found.error_if_calibrated[1]

    assert np.mean([exceeds(seed, 1.0) for seed in range(60)]) < 0.15
    assert np.mean([exceeds(seed, 2.0) for seed in range(20)]) > 0.9


def test_the_expected_error_of_calibrated_probabilities_is_what_they_show():
    # 48 draws of a fair coin a bin miss a half by sqrt(2 / pi) / (2 sqrt 48) on average.
    rng = np.random.default_rng(0)
    table = _table(rng.integers(0, 2, size=480), 0.5 + np.linspace(-1e-3, 1e-3, 480))
    mean, _ = calibration.calibration(table, resamples=2000).error_if_calibrated
    assert mean == pytest.approx(np.sqrt(2 / np.pi) / (2 * np.sqrt(48)), rel=0.03)


def test_intervals_of_the_brier_score_cover_it():
    y, p = _calibrated(99, n=400_000, sharper=1.7)
    truth = brier_score_loss(y, p)
    hits = 0
    for seed in range(100):
        found = calibration.calibration(_table(*_calibrated(seed, sharper=1.7)), resamples=200)
        hits += found.brier.low <= truth <= found.brier.high
    assert hits >= 87


def test_the_same_seed_gives_the_same_numbers():
    table = predictions()
    first, again, other = (calibration.calibration(table, seed=s, resamples=50) for s in (1, 1, 2))
    assert first.error == again.error and first.error_if_calibrated == again.error_if_calibrated
    assert first.error != other.error


def test_what_is_no_probability_is_refused():
    with pytest.raises(InputError, match="between 0 and 1"):
        calibration.calibration(_table([0, 1], [0.5, 1.5]))
    with pytest.raises(InputError, match="bins"):
        calibration.brier_parts([0, 1], [0.2, 0.3], bins=0)
    with pytest.raises(InputError, match="no predictions for view"):
        calibration.reliability_table(_table([0, 1], [0.5, 0.5]), "3")
