"""Two opinions on LUNA-16's candidates put together: the networks' and the detector's."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import norm

from labkit.evaluation.statistics import roc_auc
from labkit.paper.table1 import with_detector

N, SHARE, FOLDS = 6_000, 0.1, 4


def run(opinions: dict[str, np.ndarray], label: np.ndarray) -> pd.DataFrame:
    """Predictions of one repeat of folds that hold equal shares of nodules."""
    place = {
        "nodule_id": [f"c{i:05d}" for i in range(len(label))],
        "patient_id": [f"p{i}" for i in range(len(label))],
        "repeat": 0,
        "fold": np.arange(len(label)) % FOLDS,
        "label": label,
    }
    parts = [pd.DataFrame({**place, "view": v, "probability": p}) for v, p in opinions.items()]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def label():
    return np.repeat([1, 0], [round(SHARE * N), round((1 - SHARE) * N)])


def test_independent_opinions_add_up_to_what_bayes_rule_says(label):
    """Each sees a reading of its own, normal about 0 or 1; the posterior of both is known."""
    rng = np.random.default_rng(0)
    seen = rng.normal(loc=label[:, None], size=(N, 2))

    def posterior(*readings):
        ill, well = (np.prod([norm.pdf(x, at) for x in readings], axis=0) for at in (1, 0))
        return SHARE * ill / (SHARE * ill + (1 - SHARE) * well)

    alone = [posterior(x) for x in seen.T]
    together = with_detector(run({"fused": alone[0], "detector": alone[1]}, label))
    np.testing.assert_allclose(together["probability"], posterior(*seen.T), atol=1e-12)
    aucs = [roc_auc(label, p) for p in alone]
    assert roc_auc(label, together["probability"]) > max(aucs) + 0.02
    assert set(together["view"]) == {"fused"}


def test_a_detector_that_knows_the_share_alone_changes_nothing(label):
    ours = np.random.default_rng(1).uniform(0.01, 0.9, N)
    together = with_detector(run({"fused": ours, "detector": np.full(N, SHARE)}, label))
    np.testing.assert_allclose(together["probability"], ours, atol=1e-12)


def test_the_share_is_of_the_other_folds(label):
    """A fold that has all nodules is judged by the share of those that have none of them."""
    fold = np.where(label == 1, 0, 1 + np.arange(N) % (FOLDS - 1))
    fold[:3] = 1  # three nodules elsewhere
    table = run({"fused": np.full(N, 0.5), "detector": np.full(N, 0.5)}, label)
    table["fold"] = np.tile(fold, 2)
    together = with_detector(table).set_index("nodule_id")["probability"]
    others = label[fold != 0].mean()
    assert together["c00010"] == pytest.approx(expit(-logit(others)))


def test_the_order_of_rows_is_nothing(label):
    rng = np.random.default_rng(2)
    table = run({"fused": rng.uniform(size=N), "detector": rng.uniform(size=N)}, label)
    expected = with_detector(table).set_index("nodule_id")["probability"]
    shuffled = with_detector(table.sample(frac=1, random_state=0)).set_index("nodule_id")
    np.testing.assert_allclose(shuffled["probability"].loc[expected.index], expected, rtol=1e-12)


def test_certainty_is_rounding_and_stays_finite(label):
    table = run({"fused": label.astype(float), "detector": 1.0 - label}, label)
    assert np.isfinite(with_detector(table)["probability"]).all()
