"""A search looks better than it is by what it chose by, and each honest way by no more."""

import numpy as np
import pandas as pd
import pytest

from labkit.errors import InputError
from labkit.evaluation.statistics import within_folds_auc
from labkit.paper import fig7
from tests.evaluation.tables import predictions


def noise(settings, patients=24):
    """Settings that are all worth nothing, on the same folds."""
    return {
        s: predictions(patients=patients, signal=0.0, scores_seed=10 + i)
        for i, s in enumerate(settings)
    }


def val_auc_of(values):
    return {s: {(0, f): v for f, v in enumerate(row)} for s, row in values.items()}


def test_searching_among_worthless_settings_looks_better_than_it_is():
    """All are worth 0.5. What the printed search reports is more, what it gives is not."""
    settings = tuple(range(12))
    rng = np.random.default_rng(3)
    val = val_auc_of({s: rng.random(4) for s in settings})
    found = fig7.search(noise(settings), val, resamples=300)
    assert found.printed.value > 0.55
    assert found.nested.low < 0.5 < found.nested.high
    assert abs(found.corrected.value - 0.5) < 0.08
    assert found.optimism.value > 0 and found.search_optimism > 0.03
    assert sum(found.how_often.values()) == pytest.approx(1)


def test_a_setting_that_is_best_everywhere_is_found_by_both_searches():
    runs = noise((0.2, 0.4)) | {0.3: predictions(patients=24, signal=5.0)}
    val = val_auc_of({0.2: [0.5] * 4, 0.3: [0.9] * 4, 0.4: [0.6] * 4})
    found = fig7.search(runs, val, resamples=100)
    assert found.best == 0.3 and set(found.chosen.values()) == {0.3}
    assert (found.optimism.value, found.optimism.low, found.optimism.high) == (0, 0, 0)
    assert found.how_often[0.3] == 1


def test_the_nested_search_takes_each_folds_own_choice():
    runs = noise((0.2, 0.3))
    val = val_auc_of({0.2: [0.9, 0.9, 0.1, 0.5], 0.3: [0.1, 0.1, 0.9, 0.5]})
    found = fig7.search(runs, val, resamples=50)
    assert found.chosen == {(0, 0): 0.2, (0, 1): 0.2, (0, 2): 0.3, (0, 3): 0.2}
    mixed = pd.concat([runs[s][runs[s]["fold"] == f] for (_, f), s in found.chosen.items()])
    assert found.nested.value == pytest.approx(within_folds_auc(mixed).value)


def test_a_search_over_other_folds_or_one_setting_is_refused():
    runs = {0.2: predictions(seed=0), 0.3: predictions(seed=1)}
    with pytest.raises(InputError, match="different folds"):
        fig7.search(runs, val_auc_of({0.2: [0.5] * 4, 0.3: [0.5] * 4}))
    with pytest.raises(InputError, match="two settings"):
        fig7.search({0.2: runs[0.2]}, val_auc_of({0.2: [0.5] * 4}))


def test_the_expected_maximum_is_that_of_simulated_numbers():
    drawn = np.random.default_rng(0).normal(size=(100_000, 6))
    assert fig7.expected_maximum(6) == pytest.approx(drawn.max(axis=1).mean(), abs=0.01)
    assert fig7.expected_maximum(1) == pytest.approx(0, abs=1e-9)
