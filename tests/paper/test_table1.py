"""Ways to fuse views, the detector's opinion, and what the readers rated."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import norm

from labkit.annotations import lidc
from labkit.evaluation import statistics
from labkit.evaluation.statistics import roc_auc
from labkit.paper import table1
from labkit.paper.table1 import with_detector

N, SHARE, FOLDS = 6_000, 0.1, 4


@pytest.fixture(scope="module")
def folds():
    """Three views: a good one, a bad one, and one that says the opposite of the truth."""
    rng = np.random.default_rng(0)
    made = []
    for fold in range(2):
        label = np.tile([0, 1], 40)
        z = (2 * label - 1)[:, None] * np.array([2.0, 0.2, -2.0]) + rng.normal(size=(80, 3))
        names = {f"{what}_id": [f"f{fold}{what}{i}" for i in range(40)]
                 for what in ("nodule", "patient")}  # fmt: skip
        test = pd.DataFrame({**names, "repeat": 0, "fold": fold, "label": label[:40]})
        val_auc = np.array([roc_auc(label[40:], column) for column in z[40:].T])
        made.append(table1.FoldViews(test, expit(z[:40]), val_auc, label[40:], expit(z[40:])))
    return made


def auc_of(folds, method):
    labels, runs, _ = statistics.scores(table1.fused(folds, method), "fused")
    return roc_auc(labels, runs[0])


def test_stacking_turns_a_view_round_that_weights_can_only_ignore(folds):
    ways = table1.methods(folds)
    aucs = {name: auc_of(folds, way) for name, way in ways.items()}
    assert aucs["logistic stacking"] > aucs["AUC weights (Eq. 4)"] > aucs["equal weights"]
    assert aucs["best view by validation"] == auc_of(folds, lambda f: table1.by_auc(f, [0]))


def test_fusing_one_view_or_all_is_what_it_says(folds):
    for fold in folds:
        np.testing.assert_array_equal(table1.by_auc(fold, [1]), fold.test_probability[:, 1])
        np.testing.assert_allclose(table1.equally(fold), fold.test_probability.mean(axis=1))
        weights = fold.val_auc / fold.val_auc.sum()
        np.testing.assert_allclose(table1.by_auc(fold), fold.test_probability @ weights)


def test_auc_by_number_of_views_ends_at_all_of_them(folds):
    rows = table1.by_count(folds)
    assert [r["subsets"] for r in rows] == [3, 3, 1]
    assert rows[-1]["worst"] == rows[-1]["best"]
    assert rows[-1]["best"] == pytest.approx(auc_of(folds, table1.equally), abs=1e-6)
    singles = [auc_of(folds, lambda f, v=v: table1.equally(f, [v])) for v in range(3)]
    assert rows[0]["best"] == pytest.approx(max(singles), abs=1e-6)


def of_size(nodules, fold):
    """A run that has the diameter's opinion of labelled nodules."""
    named = nodules[["nodule_id", "patient_id"]].assign(label=nodules["label"].astype(int))
    return named.assign(repeat=0, fold=fold, view="size_only", probability=0.5)


def test_size_and_calcification_knows_what_the_readers_saw(discs):
    """Benign nodules of a size are told from malignant ones by their calcium alone."""
    nodules = discs.nodules.copy()
    nodules["diameter_mm"] = 10.0
    nodules["calcification"] = np.where(nodules["label"].fillna(0) == 1, 6.0, 4.0)
    cohort = dataclasses.replace(discs, nodules=nodules)
    labelled = nodules.iloc[cohort.labelled]
    run = of_size(labelled, np.arange(len(labelled)) // 2 % 3)
    rated = table1.size_and_calcification(run, cohort)
    assert roc_auc(rated["label"], rated["probability"]) == 1
    assert set(rated["nodule_id"]) == set(run["nodule_id"])
    assert table1.size_and_calcification(run, discs) is None  # its readers rated nothing


def test_calcification_of_cubes_is_what_lidc_says_of_the_same_nodules(discs):
    """Named as in a file of cubes, with no calcification, they are found; else there is no row."""
    rated = (
        lidc.annotations().groupby("nodule_id")["malignancy"].agg(lambda r: "|".join(map(str, r)))
    )
    some = lidc.nodules().dropna(subset=["label"]).groupby("label").head(20)
    number = some["nodule_id"].str.extract(r"-n(\d+)$", expand=False)
    named = some.assign(
        nodule_id=some["patient_id"] + "/nodule-" + number, ratings=some["nodule_id"].map(rated)
    ).reset_index(drop=True)
    run = of_size(named, np.arange(len(named)) % 3)
    known = dataclasses.replace(discs, nodules=named)
    cubes = dataclasses.replace(discs, nodules=named.assign(calcification=np.nan))
    expected = table1.size_and_calcification(run, known)["probability"].tolist()
    found = table1.size_and_calcification(run, cubes)["probability"].tolist()
    assert found == pytest.approx(expected) and np.ptp(found) > 0.3
    one_wrong = cubes.nodules.assign(ratings=["9", *named["ratings"].iloc[1:]])
    assert table1.size_and_calcification(run, dataclasses.replace(cubes, nodules=one_wrong)) is None


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
