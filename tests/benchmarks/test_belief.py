"""Lesson 13's results: what is written from finished runs, and folds by nodule."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from benchmarks import belief, leakage
from benchmarks.common import command
from labkit import paths, profiles
from labkit.errors import InputError
from labkit.evaluation import calibration, crossval, readers
from labkit.evaluation.crossval import read_network
from labkit.evaluation.predictions import read_predictions
from labkit.evaluation.statistics import bootstrap_auc, plain, roc_auc
from labkit.io import read_json, write_json
from labkit.models.fusion import auc_weights, fuse
from tests.evaluation.tables import predictions

SMOKE = profiles.get("smoke")


@pytest.fixture(scope="module")
def runs(discs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("believed")
    for model in ("st", "mt"):
        config = SMOKE.training(model=model, views=(0, 3))
        crossval.run(discs, config, folder / model, folds=2, device="cpu", jobs=1, progress=False)
    return folder


@pytest.fixture(scope="module")
def judged(discs, runs):
    return belief.belief(runs / "st", runs / "mt", discs.folder, resamples=60)


def test_validation_nodules_come_back_fused_and_are_tested_by_no_network_that_saw_them(discs, runs):
    table = crossval.validation_predictions(runs / "st", discs)
    units = [read_network(runs / "st", (0, 1, view)) for view in (0, 3)]
    by_view = np.array([u["val_probability"] for u in units]).T
    expected = fuse(by_view, auc_weights([u["val_auc"] for u in units]))
    fused = table.query("fold == 1 and view == 'fused'")
    assert fused["probability"].tolist() == pytest.approx(list(expected))
    label = discs.nodules.set_index("nodule_id")["label"]
    assert fused["label"].tolist() == label[fused["nodule_id"]].tolist()
    tested = read_predictions(runs / "st").groupby("fold")["patient_id"].agg(set)
    for fold, part in table.groupby("fold"):
        assert not set(part["patient_id"]) & tested[fold]


def test_imaginary_nodules_hold_a_temperature_near_one():
    few = pd.DataFrame(
        {"nodule_id": ["a", "b"], "patient_id": ["a", "b"], "repeat": 0, "fold": 0,
         "view": "fused", "probability": [0.4, 0.6], "label": [0, 1]}
    )  # fmt: skip
    with pytest.raises(InputError, match="separate"):
        calibration.fit_temperature(few["label"], few["probability"])
    steady = crossval.steadied(few)
    of = [calibration.fit_temperature(t["label"], t["probability"]) for t in (steady, steady[2:])]
    assert len(steady) == 2 + 10 and 0.3 < of[0] < 1 and of[1] == pytest.approx(1, abs=1e-3)


def test_what_is_written_is_plain_and_agrees_with_itself(judged, runs, tmp_path):
    write_json(tmp_path / "belief.json", judged)  # which refuses NaN
    assert set(judged["methods"]) == {"ST-CNN", "MT-CNN", "size only"}
    pair, of = judged["comparisons"]["MT-CNN less size only"], judged["methods"]
    apart = of["MT-CNN"]["auc"]["value"] - of["size only"]["auc"]["value"]
    assert pair["auc_difference"]["value"] == pytest.approx(apart, abs=1e-5)
    assert judged["family"]["size"] == len(judged["comparisons"]) == 3
    assert set(judged["fusion"]["ST-CNN"]) == {"0", "3"}
    assert judged["fusion_family"]["ST-CNN"]["size"] == 2
    apart = of["MT-CNN"]["specificity"]["value"] - of["ST-CNN"]["specificity"]["value"]
    found = judged["specificity"]["MT-CNN less ST-CNN"]["value"]
    assert found == pytest.approx(apart, abs=1e-5)
    assert "all sizes" in set(pd.DataFrame(judged["bands"])["band"])
    scaled = judged["temperature"]["ST-CNN"]["temperatures"]
    assert len(scaled) == 2 and min(scaled) > 0
    assert judged["readers"]["cohort"] is None  # nodules without ratings
    assert 0.75 < judged["readers"]["lidc"]["auc"]["value"] < 0.85
    assert "nodule_id" not in json.dumps(judged)  # numbers only
    made = calibration.calibration(read_predictions(runs / "st"), resamples=60)
    back = calibration.from_json(judged["calibration"]["ST-CNN"])
    assert back.brier.value == pytest.approx(made.brier.value, abs=1e-6)
    pd.testing.assert_frame_equal(back.table, made.table, check_dtype=False, atol=1e-6)


def test_the_brier_scores_parts_are_what_they_should_be():
    table = predictions(repeats=2)
    y, p = table["label"].to_numpy(), table["probability"].to_numpy()
    parts = belief.brier_parts(calibration.calibration(table, resamples=1))
    bin_of = np.searchsorted(np.quantile(p, np.arange(1, 10) / 10), p)
    mean, share = (np.array([v[bin_of == k].mean() for k in bin_of]) for v in (p, y))
    off = p - mean
    assert parts["value"] == pytest.approx(np.mean((p - y) ** 2))
    assert parts["reliability"] == pytest.approx(np.mean((mean - share) ** 2))
    assert parts["resolution"] == pytest.approx(np.mean((share - y.mean()) ** 2))
    assert parts["within"] == pytest.approx(np.mean(off**2 - 2 * off * y))


def sizes(table, mm):
    ids = sorted(table["nodule_id"].unique())
    return pd.DataFrame({"nodule_id": ids, "diameter_mm": np.broadcast_to(mm, len(ids))})


def test_among_nodules_of_one_size_the_matched_auc_is_the_auc():
    table = predictions(30)
    how = {"less": "fused", "within_folds": False, "resamples": 200}
    found = belief.matched(table, sizes(table, 10.0), **how)
    assert (found["pairs"], found["malignant"], found["benign"]) == (900, 30, 30)
    same = {"groups": table["patient_id"], "resamples": 200}
    same = bootstrap_auc(table["label"], table["probability"], **same)
    assert found["auc"] == pytest.approx(plain(same), abs=1e-6)
    calm, adrift = (belief.matched(t, sizes(t, 9.0), less="fused", resamples=10)
                    for t in (predictions(60, drift=d) for d in (0.0, 5.0)))  # fmt: skip
    assert calm == adrift and calm["pairs"] < 60 * 60  # a constant a fold changes no order in it


def test_size_alone_knows_next_to_nothing_among_nodules_of_one_size():
    """Scores that are the diameter itself, larger in malignant nodules."""
    table = predictions(200)
    mm = np.exp(np.random.default_rng(0).normal(2.3, 0.4, 400) + 0.5 * table["label"])
    table = table.assign(probability=mm / mm.max())
    nodules = table[["nodule_id"]].assign(diameter_mm=mm)
    how = {"less": "fused", "within_folds": False, "resamples": 10}
    found = [belief.matched(table, nodules, ratio=r, **how) for r in (1.02, 1.5, 1e6)]
    aucs, pairs = ([of["auc"]["value"] for of in found], [of["pairs"] for of in found])
    auc = roc_auc(table["label"], table["probability"])
    assert 0.46 < aucs[0] < 0.54 < aucs[1] < aucs[2] == pytest.approx(auc, abs=1e-6)
    assert auc > 0.75 and pairs[0] < pairs[1] < pairs[2] == 200 * 200


def test_a_matched_difference_is_that_of_the_two():
    table = predictions(40)
    better = table.assign(view="better", probability=table["probability"] + 0.1 * table["label"])
    both, nodules = pd.concat([table, better]), sizes(table, np.linspace(5, 12, 80))
    one, two = (belief.matched(both, nodules, view, "fused", ratio=1.3, resamples=200)
                for view in ("better", "fused"))  # fmt: skip
    difference = one["less fused"]
    apart = one["auc"]["value"] - two["auc"]["value"]
    assert difference["value"] == pytest.approx(apart, abs=2e-6)
    assert 0 <= difference["low"] < difference["value"] < difference["high"]
    far = sizes(table, np.where(np.arange(80) % 2, 30.0, 3.0))
    for of, why in ((nodules.iloc[1:], "n000: no diameter"), (far, "of its size")):
        with pytest.raises(InputError, match=why):
            belief.matched(both, of, less="fused")


@pytest.mark.real
def test_the_real_cubes_ratings_give_a_reader(real_cubes):
    with np.load(real_cubes) as file:
        nodules = pd.DataFrame({k: file[k] for k in ("nodule_id", "patient_id", "ratings")})
    found = readers.against_the_rest(belief.from_ratings(nodules), resamples=200)
    assert found.auc.value == pytest.approx(0.804, abs=1e-3)
    assert found.auc.low < 0.79 < 0.82 < found.auc.high
    assert found.nodules == 602


def test_runs_in_the_wrong_place_are_refused(discs, runs, tmp_path, capsys):
    out = tmp_path / "belief.json"
    swapped = [str(runs / "mt"), str(runs / "st"), str(discs.folder), "--out", str(out)]
    assert command(belief.belief, None, swapped) == 2 and not out.exists()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "model mt, not st" in said
    two = [str(discs.folder), str(discs.folder), "--runs", str(tmp_path)]
    assert command(leakage.leakage, None, two) == 2
    assert "same name" in capsys.readouterr().err


def test_both_splits_are_trained_compared_and_taken_up_again(discs, tmp_path):
    def once():
        config = SMOKE.training(model="st", views=(0,))
        return leakage.leakage([discs.folder], runs=tmp_path, config=config, folds=2, repeats=2,
                               resamples=50, jobs=1, progress=False)  # fmt: skip

    values = once()
    write_json(tmp_path / "leakage.json", values)
    found = values["cohorts"][discs.name]
    assert found["with_sibling"]["patient"] == 0 < found["with_sibling"]["nodule"]
    assert found["all"]["memory of patients"]["patient"]["within_folds"]["value"] == 0.5
    for row in found["all"].values():
        gain = row["nodule"]["pooled"]["value"] - row["patient"]["pooled"]["value"]
        assert row["nodule less patient"]["pooled"]["value"] == pytest.approx(gain, abs=2e-6)
    written = [f.stat().st_mtime_ns for f in tmp_path.glob("*/units/*.json")]
    assert once()["cohorts"] == values["cohorts"]
    assert [f.stat().st_mtime_ns for f in tmp_path.glob("*/units/*.json")] == written


@pytest.mark.parametrize("kind", ["real", "simulated"])
def test_committed_results_are_of_the_runs_of_table_1(kind):
    judged, beside = (read_json(paths.results() / f"{kind}_{name}.json", "a result")
                      for name in ("belief", "table1"))  # fmt: skip
    for model in ("ST-CNN", "MT-CNN"):
        assert judged["trained"][model]["started"] == beside["trained"][model]["started"]
        auc = judged["methods"][model]["auc"]["value"]
        assert auc == pytest.approx(beside["rows"][model]["metrics"]["auc"]["value"], abs=1e-5)
    name = "MT-CNN less ST-CNN"
    for how in ("auc_difference", "within_folds_difference"):
        assert judged["comparisons"][name][how] == beside["comparisons"][name][how]
    assert not re.search(r"LIDC-IDRI-\d", json.dumps(judged))
