"""Lesson 13's results: what is written from finished runs, and the verdicts drawn from it."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks import belief, leakage
from labkit import paths, profiles
from labkit.errors import InputError
from labkit.evaluation import calibration, crossval
from labkit.evaluation.crossval import read_unit
from labkit.evaluation.statistics import Interval
from labkit.io import read_json, write_json
from labkit.models.fusion import auc_weights, fuse
from labkit.paper import claims
from labkit.paper.declared import EXPERIMENTS
from labkit.plots import roc as band_plots
from labkit.plots.roc import reliability_figure

SMOKE = profiles.get("smoke")
UP, DOWN, OPEN = (0.03, 0.01, 0.05), (-0.03, -0.05, -0.01), (0.0, -0.03, 0.03)
SLIGHTLY = (0.003, 0.001, 0.005)
RUN = {"folds": 2, "device": "cpu", "jobs": 1, "progress": False}


@pytest.fixture(scope="module")
def runs(discs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("believed")
    for model in ("st", "mt"):
        config = SMOKE.training(model=model, views=(0, 3))
        crossval.run(discs, config, folder / model, **RUN)
    return folder


@pytest.fixture(scope="module")
def judged(discs, runs):
    return belief.belief(runs / "st", runs / "mt", discs.folder, resamples=60)


def test_validation_nodules_come_back_as_their_networks_left_them(discs, runs):
    table = crossval.validation(runs / "st", discs)
    unit = read_unit(runs / "st", (0, 1, 3))
    one = table.query("fold == 1 and view == '3'")
    assert one["nodule_id"].tolist() == unit["val_nodule_id"]
    assert one["probability"].tolist() == pytest.approx(unit["val_probability"])
    label = discs.nodules.set_index("nodule_id")["label"]
    assert (table["label"].to_numpy() == label[table["nodule_id"]].to_numpy(dtype=int)).all()
    assert set(table["view"]) == {"0", "3", "fused"}


def test_validation_is_fused_by_the_weights_of_the_test_nodules(discs, runs):
    table = crossval.validation(runs / "mt", discs).query("fold == 0")
    units = [read_unit(runs / "mt", (0, 0, view)) for view in (0, 3)]
    by_view = np.array([u["val_probability"] for u in units]).T
    expected = fuse(by_view, auc_weights([u["val_auc"] for u in units]))
    assert table.query("view == 'fused'")["probability"].tolist() == pytest.approx(list(expected))


def test_no_nodule_is_validated_and_tested_by_one_network(discs, runs):
    table = crossval.validation(runs / "st", discs)
    tested = crossval.read_predictions(runs / "st").groupby("fold")["patient_id"].agg(set)
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
    assert len(steady) == 2 + 10
    found = calibration.fit_temperature(steady["label"], steady["probability"])
    assert 0.3 < found < 1
    alone = steady.iloc[2:]
    assert calibration.fit_temperature(alone["label"], alone["probability"]) == pytest.approx(
        1, abs=1e-3
    )


def test_a_run_from_before_validation_was_kept_says_so(discs, runs, tmp_path):
    old = tmp_path / "old"
    (old / "units").mkdir(parents=True)
    for name in ("run.json", "metrics.json", "predictions.csv"):
        (old / name).write_bytes((runs / "st" / name).read_bytes())
    for file in (runs / "st" / "units").glob("*.json"):
        unit = json.loads(file.read_text())
        del unit["val_probability"]
        write_json(old / "units" / file.name, unit)
    with pytest.raises(InputError, match="did not keep"):
        crossval.validation(old, discs)
    assert "did not keep" in belief.scale(old, discs)["not_computed"]


def test_what_is_written_is_plain_and_agrees_with_itself(judged, tmp_path):
    write_json(tmp_path / "belief.json", judged)  # which refuses NaN
    assert set(judged["methods"]) == {"ST-CNN", "MT-CNN", "size only"}
    pair = judged["comparisons"]["MT-CNN less size only"]
    difference = (
        judged["methods"]["MT-CNN"]["auc"]["value"] - judged["methods"]["size only"]["auc"]["value"]
    )
    assert pair["auc_difference"]["value"] == pytest.approx(difference, abs=1e-5)
    assert judged["family"]["size"] == len(judged["comparisons"]) == 3
    assert set(judged["fusion"]["ST-CNN"]) == {"0", "3"}
    assert judged["fusion_family"]["ST-CNN"]["size"] == 2
    specificity = [judged["methods"][m]["specificity"]["value"] for m in ("MT-CNN", "ST-CNN")]
    assert judged["specificity"]["MT-CNN less ST-CNN"]["value"] == pytest.approx(
        specificity[0] - specificity[1], abs=1e-5
    )
    assert "nodule_id" not in json.dumps(judged)  # numbers only


def test_calibration_comes_back_and_can_be_drawn(runs, judged):
    predictions = crossval.read_predictions(runs / "st")
    made = calibration.calibration(predictions, resamples=60)
    back = belief.to_calibration(judged["calibration"]["ST-CNN"])
    assert back.brier.value == pytest.approx(made.brier.value, abs=1e-6)
    assert back.parts.resolution == pytest.approx(made.parts.resolution, abs=1e-6)
    pd.testing.assert_frame_equal(back.table, made.table, check_dtype=False, atol=1e-6)
    assert reliability_figure({"ST-CNN": back}).axes


def test_bands_without_an_interval_are_none_and_can_be_drawn(judged):
    table = pd.DataFrame(judged["bands"])
    assert "all sizes" in set(table["band"])
    assert band_plots.size_bands_figure(table).axes


def test_temperatures_of_a_run_are_one_a_fold(judged):
    scaled = judged["temperature"]["ST-CNN"]
    assert len(scaled["temperatures"]) == 2 and min(scaled["temperatures"]) > 0


def test_nodules_without_ratings_have_no_reader_to_stand_beside(judged):
    assert judged["readers"]["cohort"] is None
    assert 0.75 < judged["readers"]["lidc"]["auc"]["value"] < 0.85


def test_runs_in_the_wrong_place_are_refused(discs, runs, tmp_path, capsys):
    with pytest.raises(InputError, match="model mt, not st"):
        belief.belief(runs / "mt", runs / "st", discs.folder)
    out = tmp_path / "belief.json"
    swapped = [str(runs / "mt"), str(runs / "st"), str(discs.folder), "--out", str(out)]
    assert belief.main(swapped) == 2 and not out.exists()
    assert capsys.readouterr().err.count("\n") == 1


def test_both_splits_are_trained_compared_and_taken_up_again(discs, tmp_path):
    def once():
        config = SMOKE.training(model="st", views=(0,))
        return leakage.leakage([discs.folder], tmp_path, config=config, n_folds=2, repeats=2,
                               resamples=50, jobs=1, progress=False)  # fmt: skip

    values = once()
    write_json(tmp_path / "leakage.json", values)
    found = values["cohorts"][discs.name]
    assert found["with_sibling"]["patient"] == 0 < found["with_sibling"]["nodule"]
    memory = found["all"]["memory of patients"]["patient"]["within_folds"]
    assert memory["value"] == 0.5
    for row in found["all"].values():
        gain = row["nodule"]["pooled"]["value"] - row["patient"]["pooled"]["value"]
        assert row["nodule less patient"]["pooled"]["value"] == pytest.approx(gain, abs=2e-6)
    written = [f.stat().st_mtime_ns for f in tmp_path.glob("*/units/*.json")]
    assert once()["cohorts"] == values["cohorts"]
    assert [f.stat().st_mtime_ns for f in tmp_path.glob("*/units/*.json")] == written


def test_two_cohorts_of_one_name_are_refused(discs, tmp_path):
    with pytest.raises(InputError, match="same name"):
        leakage.leakage([discs.folder, discs.folder], tmp_path)


@pytest.mark.parametrize(
    ("difference", "within", "at_least", "found", "verdict"),
    [
        (UP, UP, 0.02, True, "shown"),
        (UP, UP, 0.02, False, "not shown"),  # lost to the correction
        (UP, OPEN, 0.02, True, "not shown"),  # pooled only
        (UP, DOWN, 0.0, True, "not shown"),  # the two ways of counting disagree
        (UP, UP, 0.04, True, "not shown"),  # surely better, perhaps not by as much
        (SLIGHTLY, SLIGHTLY, 0.02, True, "contradicted"),  # better, but surely not much
        (SLIGHTLY, SLIGHTLY, 0.02, False, "contradicted"),  # no correction makes it larger
        (SLIGHTLY, UP, 0.02, True, "not shown"),
        (OPEN, OPEN, 0.0, False, "not shown"),
        (DOWN, DOWN, 0.0, True, "contradicted"),
        (DOWN, DOWN, 0.0, False, "not shown"),  # the opposite has to be found as well
        (DOWN, OPEN, 0.0, True, "not shown"),
        (DOWN, None, 0.0, None, "contradicted"),  # one comparison, of what is not pooled
    ],
)
def test_a_verdict_follows_from_the_intervals(difference, within, at_least, found, verdict):
    inside = None if within is None else Interval(*within)
    said = claims.better(Interval(*difference), at_least, found=found, within=inside)
    assert said == verdict


def compared(pooled, within, found=True, same=False):
    named = ("value", "low", "high")
    return {
        "auc_difference": dict(zip(named, pooled, strict=True)),
        "within_folds_difference": dict(zip(named, within, strict=True)),
        "equivalence": {"margin": 0.02, "shown": same},
        "found": found,
    }


@pytest.mark.parametrize(("pooled", "sign"), [(UP, 1), (DOWN, -1)])
def test_a_difference_turned_round_has_the_other_side(pooled, sign):
    pair = compared(pooled, pooled)
    assert claims.side(pair) == sign
    assert claims.better_pair(pair, sign=sign) == claims.SHOWN
    assert claims.better_pair(pair, sign=-sign) == claims.CONTRADICTED
    assert claims.side(compared(pooled, OPEN)) == claims.side(compared(pooled, pooled, False)) == 0


def test_no_difference_that_matters_has_to_be_none_within_folds_either():
    assert claims.inside(compared(SLIGHTLY, SLIGHTLY, same=True))
    assert not claims.inside(compared(SLIGHTLY, UP, same=True))
    assert not claims.inside(compared(SLIGHTLY, SLIGHTLY, same=False))


def test_fusion_is_better_than_any_view_only_if_it_is_than_every_view():
    claim = next(c for c in claims.CLAIMS if c.text.startswith("fusing"))
    better, unsure = compared(UP, UP), compared(UP, OPEN)

    def told(**views):
        by_view = {name.removeprefix("view_"): pair for name, pair in views.items()}
        return claim.judge({"belief": {"fusion": {"MT-CNN": by_view}}})

    assert told(view_0=better, view_1=better).verdict == claims.SHOWN
    one = told(view_0=better, view_1=unsure)
    assert one.verdict == claims.NOT_SHOWN
    worse = compared(DOWN, DOWN)
    assert told(view_0=better, view_1=worse).verdict == claims.CONTRADICTED
    assert "coronal, the nearest" in told(view_0=better, view_1=worse).measured


def test_every_comparison_that_a_claim_names_is_one_that_is_made():
    """A verdict would be "cannot be judged" for ever if a label were misspelt."""
    made = {
        name: {f"{a} less {b}" for a, b in e.comparisons}
        for name, e in EXPERIMENTS.items()
    }  # fmt: skip
    asked = []

    class Asked(dict):
        def __init__(self, name):
            self.name = name

        def get(self, key, default=None):
            if key == "comparisons":
                return Asked(self.name)
            asked.append((self.name, key))
            return None

    class Evidence(dict):
        def get(self, key, default=None):
            return Asked(key)

    for claim in claims.CLAIMS:
        claim.judge(Evidence())
    assert len(asked) >= 8
    for name, comparison in asked:
        if name != "belief":
            assert comparison in made[name], comparison


def test_without_results_nothing_can_be_judged(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RESULTS", str(tmp_path))
    table = claims.verdicts()
    assert (table["verdict"] == claims.CANNOT).all() and len(table) == 2 * len(claims.CLAIMS)


def test_a_claim_that_is_borne_out_is_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RESULTS", str(tmp_path))
    pooled = (0.05, 0.03, 0.07)
    for within, said, note in ((pooled, "shown", False), ((0.02, -0.01, 0.05), "not shown", True)):
        values = {"comparisons": {"MT-CNN less ST-CNN": compared(pooled, within)}}
        write_json(tmp_path / "simulated_table1.json", values)
        table = claims.verdicts().set_index(["claim", "images"])
        rows = table.loc["MT-CNN has an obvious advantage over ST-CNN"]
        assert rows["verdict"].to_dict() == {"simulated": said, "real": claims.CANNOT}
        assert "+0.050 (+0.030 to +0.070)" in rows.loc["simulated", "measured"]
        assert (claims.NOT_COUNTED in rows.loc["simulated", "within folds"]) == note


def test_committed_results_are_of_the_runs_of_table_1():
    for kind in ("real", "simulated"):
        judged = read_json(paths.results() / f"{kind}_belief.json", "a result")
        beside = read_json(paths.results() / f"{kind}_table1.json", "a result")
        for model in ("ST-CNN", "MT-CNN"):
            assert judged["trained"][model]["started"] == beside["trained"][model]["started"]
            auc = judged["methods"][model]["auc"]["value"]
            assert auc == pytest.approx(beside["rows"][model]["metrics"]["auc"]["value"], abs=1e-5)
        name = "MT-CNN less ST-CNN"
        for how in ("auc_difference", "within_folds_difference"):
            assert judged["comparisons"][name][how] == beside["comparisons"][name][how]
        assert not re.search(r"LIDC-IDRI-\d", json.dumps(judged))


def test_the_interval_over_trainings_is_welchs():
    rng = np.random.default_rng(0)
    one, two = rng.normal(0.9, 0.01, 4).tolist(), rng.normal(0.8, 0.05, 3).tolist()
    found = leakage._over_trainings(one, two)
    expected = stats.ttest_ind(one, two, equal_var=False).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx(tuple(expected), abs=2e-6)
    assert leakage._over_trainings([0.9], [0.8]) is None
