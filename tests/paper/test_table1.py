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
from labkit.models.fusion import auc_weights, fuse
from labkit.paper import table1
from labkit.paper.table1 import with_detector

N, SHARE, FOLDS = 6_000, 0.1, 4


@pytest.fixture(scope="module", params=[0.0, -4.0])
def said(request):
    """What two folds' networks said of three views, with and without a shift of their odds: a good
    view, a bad one, and one that says the opposite of the truth."""
    rng, shift = np.random.default_rng(0), request.param
    nodules, parts, networks = [], [], {}
    for fold in range(2):
        label = np.tile([0, 1], 40)
        z = (2 * label - 1)[:, None] * np.array([2.0, 0.2, -2.0]) + rng.normal(size=(80, 3))
        names = {f"{what}_id": [f"f{fold}{what}{i}" for i in range(80)]
                 for what in ("nodule", "patient")}  # fmt: skip
        table = pd.DataFrame({**names, "repeat": 0, "fold": fold, "label": label})
        nodules.append(table)
        for v in range(3):
            probability = expit(z[:, v] + shift)
            part = table[:40].assign(view=str(v), probability=probability[:40])
            parts.append(part.sample(frac=1, random_state=v))
            networks[0, fold, v] = {
                "val_auc": roc_auc(label[40:], z[40:, v]), "prior_shift": shift,
                "val_nodule_id": names["nodule_id"][40:], "val_probability": probability[40:],
            }  # fmt: skip
    return table1.views_of_run(pd.concat(parts), networks, pd.concat(nodules), range(3))


def auc_of(said, method):
    labels, runs, _ = statistics.scores(table1.fused(said, method), "fused")
    return roc_auc(labels, runs[0])


def test_stacking_turns_a_view_round_that_weights_can_only_ignore(said):
    aucs = {name: auc_of(said, way) for name, way in table1.methods(said).items()}
    assert aucs["logistic stacking"] > aucs["AUC weights (Eq. 4)"] > aucs["equal weights"]
    assert aucs["best view by validation"] == auc_of(said, lambda of: table1.by_auc(of, [0]))


def test_fusing_one_view_or_all_is_eq_4_in_every_fold(said):
    np.testing.assert_allclose(table1.by_auc(said, [1]), said.probability[:, 1])
    for fold in range(2):
        here = (said.test["fold"] == fold).to_numpy()
        auc, shift = said.val_auc[here][0], said.prior_shift[here][0, 0]
        for way, weights in ((table1.by_auc, auc_weights(auc)), (table1.equally, np.ones(3) / 3)):
            expected = fuse(said.probability[here], weights, shift)
            np.testing.assert_allclose(way(said)[here], expected)


def test_auc_by_number_of_views_ends_at_all_of_them(said):
    rows = table1.by_count(said)
    assert [r["subsets"] for r in rows] == [3, 3, 1]
    assert rows[-1]["worst"] == rows[-1]["best"]
    assert rows[-1]["best"] == pytest.approx(auc_of(said, table1.equally), abs=1e-6)
    singles = [auc_of(said, lambda of, v=v: table1.equally(of, [v])) for v in range(3)]
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
