"""A cross-validation of LUNA-16's candidates, and how it is judged."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from labkit.annotations import luna16
from labkit.errors import InputError
from labkit.evaluation import candidates, crossval, froc
from labkit.evaluation.crossval import make_folds
from labkit.evaluation.statistics import roc_auc
from labkit.io import read_json
from labkit.training.config import TrainingConfig
from tests.luna_discs import SUBSETS, luna_discs

QUICK = TrainingConfig.brief(
    model="st", epochs=3, views=(0, 8), precision="fp32", **TrainingConfig.of_task("luna16")
)


@pytest.fixture(scope="module")
def luna(tmp_path_factory):
    return luna_discs(tmp_path_factory.mktemp("luna") / "discs")


@pytest.fixture(scope="module")
def run(luna, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "st"
    found = crossval.run(
        luna, QUICK, out, folds=SUBSETS, split="subset", device="cpu", jobs=1, progress=False
    )
    return out, found


def test_the_folds_are_the_subsets(luna, run):
    _, predictions = run
    fold = predictions.drop_duplicates("nodule_id").set_index("nodule_id")["fold"]
    subset = luna.nodules.set_index("nodule_id")["subset"]
    assert (fold == subset.loc[fold.index]).all() and len(fold) == len(luna)


def test_what_can_be_told_apart_is_and_the_detectors_score_stands_beside_it(run):
    _, predictions = run
    by_view = {
        view: roc_auc(part["label"], part["probability"])
        for view, part in predictions.groupby("view")
    }
    assert set(by_view) == {"0", "8", "fused", "detector"}
    assert by_view["fused"] > 0.99 > by_view["detector"] > 0.7


def test_probabilities_are_of_the_candidates_there_are_not_of_those_shown(luna, run):
    _, predictions = run
    share = luna.nodules["label"].astype(float).mean()
    fused = predictions[predictions["view"] == "fused"]
    assert share < 0.15
    assert fused.loc[fused["label"] == 0, "probability"].mean() < share
    assert candidates.threshold(luna) == pytest.approx(share)


def test_the_rates_are_taken_at_the_share_of_nodules(luna, run):
    out, predictions = run
    m = read_json(out / "metrics.json", "a run")["metrics"]["fused"]
    fused = predictions[predictions["view"] == "fused"]
    called = fused["probability"] >= candidates.threshold(luna)
    assert m["sensitivity"]["value"] == pytest.approx(called[fused["label"] == 1].mean())
    assert m["specificity"]["value"] == pytest.approx((~called[fused["label"] == 0]).mean())


def test_the_submission_is_what_the_challenge_takes(luna, run):
    out, predictions = run
    marks = luna16.read_submission(out / "submission.csv")
    assert len(marks) == len(luna)
    np.testing.assert_allclose(marks["x_mm"], luna.nodules["x_mm"])
    fused = predictions[predictions["view"] == "fused"].set_index("nodule_id")["probability"]
    np.testing.assert_allclose(marks["probability"], fused.loc[luna.nodules["nodule_id"]])


def test_a_missed_nodule_bounds_the_sensitivity_and_excluded_findings_are_no_errors(luna, run):
    _, predictions = run
    found = candidates.judge(luna, predictions, bootstraps=20)
    assert found.counts.nodules == found.counts.scans == 18
    perfect = predictions.assign(probability=predictions["label"].astype(float))
    best = candidates.judge(luna, perfect, bootstraps=0)
    assert best.cpm == pytest.approx(17 / 18)
    excluded = luna.nodules.loc[luna.nodules["excluded"] == 1, "nodule_id"]
    worse = perfect.assign(
        probability=np.where(perfect["nodule_id"].isin(excluded), 2.0, perfect["probability"])
    )
    assert candidates.judge(luna, worse, bootstraps=0).cpm == best.cpm
    values = candidates.as_values(found)
    assert values["cpm_low"] <= values["cpm"] <= values["cpm_high"]
    assert values["rates"] == list(froc.RATES) and len(values["sensitivity"]) == 7


def test_of_some_subsets_only_their_scans_are_judged(luna, run):
    _, predictions = run
    part = predictions[predictions["fold"] == 0]
    assert candidates.judge(luna, part, bootstraps=0).counts.scans == 18 / SUBSETS


def test_repeats_are_submitted_as_their_mean(luna, run):
    _, predictions = run
    again = predictions.assign(repeat=1, probability=predictions["probability"] / 2)
    both = pd.concat([predictions, again])
    one, two = (candidates.submission(luna, p)["probability"] for p in (predictions, both))
    np.testing.assert_allclose(two, 0.75 * one)


def test_a_cohort_without_subsets_cannot_be_split_by_them(luna):
    with pytest.raises(InputError, match="3 subsets: ask for 3 folds"):
        make_folds(luna.nodules, 5, "subset")
    with pytest.raises(InputError, match="all candidates are of one subset"):
        make_folds(luna.nodules.assign(subset=0), 3, "subset")
    torn = luna.nodules.assign(subset=np.arange(len(luna.nodules)) % 3)
    with pytest.raises(InputError, match="a scan lies in two subsets"):
        make_folds(torn, 3, "subset")
    with pytest.raises(InputError, match="split by patient instead"):
        make_folds(luna.nodules.drop(columns="subset"), 3, "subset")


def test_validation_sees_all_nodules_and_few_of_the_others():
    assert dataclasses.asdict(QUICK)["negatives_per_positive"] == 1.0
    assert TrainingConfig.brief(**TrainingConfig.of_task("malignancy")) == TrainingConfig.brief()
