"""Cross-validation keeps patients apart, goes on after a kill, and refuses to mix runs."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest

from labkit.annotations import luna16
from labkit.evaluation import crossval, froc, statistics
from labkit.evaluation.crossval import baselines, list_runs, make_folds, read_network, runs_as_text
from labkit.evaluation.predictions import read_predictions, threshold
from labkit.evaluation.statistics import roc_auc
from labkit.io import read_json, write_csv, write_json
from labkit.models.fusion import auc_weights, fuse
from labkit.training import loop, side_by_side
from labkit.training.config import TrainingConfig
from labkit.training.loop import network_seed
from labkit.training.nine_views import load
from tests.evaluation.tables import refused
from tests.luna_discs import SUBSETS, luna_discs

QUICK = TrainingConfig.brief(epochs=4, views=(0, 8), precision="fp32", batch_size=16)
RUN = {"folds": 3, "device": "cpu", "jobs": 1, "progress": False}
LUNA = TrainingConfig.brief(
    model="st", epochs=3, views=(0, 8), precision="fp32", **TrainingConfig.of_task("luna16")
)


@pytest.fixture(scope="module")
def run(discs, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "mt"
    return out, crossval.run(discs, QUICK, out, keep_first_model=True, **RUN)


def test_every_labelled_nodule_is_predicted_once_by_each_view(discs, run):
    _, predictions = run
    labelled = sorted(discs.nodules["nodule_id"].iloc[discs.labelled])
    assert set(predictions["view"]) == {"0", "8", "fused", "size_only"}
    for _, part in predictions.groupby("view"):
        assert sorted(part["nodule_id"]) == labelled
    assert predictions["probability"].between(0, 1).all()
    assert (predictions.groupby("patient_id")["fold"].nunique() == 1).all()


def test_curves_tell_which_networks_had_learnt(tmp_path):
    # (losses, best): stopped by patience, cut off while still improving, at chance all along, and
    # one that ran all epochs although the best was `patience` epochs ago.
    curves = {0: ([0.6, 0.3, 0.4, 0.5], 1), 1: ([0.6, 0.5, 0.4, 0.3, 0.2, 0.1], 5),
              2: ([0.69, 0.7, 0.7], 0), 3: ([0.6, 0.5, 0.4, 0.3, 0.4, 0.4], 3)}  # fmt: skip
    write_csv(tmp_path / "history.csv", pd.concat(
        pd.DataFrame({"epoch": range(len(losses)), "val_cls": losses, "best_epoch": best,
                      "repeat": 0, "fold": fold, "view": 8})
        for fold, (losses, best) in curves.items()
    ))  # fmt: skip
    write_json(tmp_path / "run.json", {"config": {"epochs": 6, "patience": 2}})
    assert crossval.convergence(tmp_path) == {
        "networks": 4, "out_of_epochs": 1, "at_chance": 1,
        "best_epoch": {"median": 3.0, "least": 1, "most": 6},
    }  # fmt: skip
    assert crossval.convergence(tmp_path, [(0, 1), (0, 1)])["best_epoch"]["median"] == 6
    refused("start it again", crossval.convergence, tmp_path / "elsewhere")


def test_what_is_on_disk_is_what_was_returned(run):
    out, predictions = run
    pd.testing.assert_frame_equal(read_predictions(out), predictions, check_dtype=False)
    metrics = read_json(out / "metrics.json", "a run")
    assert metrics["convergence"] == crossval.convergence(out)
    assert metrics["convergence"]["networks"] == 6
    assert metrics["metrics"] == statistics.summarise(predictions)


def test_fused_rows_follow_equation_4_with_weights_of_the_inner_split(run):
    out, predictions = run
    fold = predictions[predictions["fold"] == 1]
    left = [read_network(out, (0, 1, view)) for view in (0, 8)]
    by_view = np.array([of["test_probability"] for of in left]).T
    expected = fuse(by_view, auc_weights([of["val_auc"] for of in left]))
    np.testing.assert_allclose(fold[fold["view"] == "fused"]["probability"], expected)


def test_a_network_says_which_training_nodules_it_stopped_by_and_what_it_gave_them(discs, run):
    out, predictions = run
    labels = discs.nodules.set_index("nodule_id")["label"].astype(float)
    table = crossval.validation_predictions(out, discs)
    for view in (0, 8):
        left = read_network(out, (0, 1, view))
        names = left["val_nodule_id"]
        tested = predictions[(predictions["fold"] == 1) & (predictions["view"] == str(view))]
        assert not set(names) & set(tested["nodule_id"])
        found = roc_auc(labels.loc[names], left["val_probability"])
        assert found == pytest.approx(left["val_auc"])
        of_view = table[(table["fold"] == 1) & (table["view"] == str(view))]
        assert of_view["nodule_id"].tolist() == names
        assert of_view["probability"].tolist() == left["val_probability"]


def test_kept_model_repeats_its_folds_predictions(discs, run):
    out, predictions = run
    model = load(out / "model", device="cpu")
    fold = predictions[(predictions["fold"] == 0) & (predictions["view"] == "fused")]
    rows = pd.Index(discs.nodules["nodule_id"]).get_indexer(fold["nodule_id"])
    np.testing.assert_allclose(model.fuse(model.predict(discs, rows)), fold["probability"],
                               rtol=1e-5)  # fmt: skip


def test_processes_side_by_side_give_the_same_predictions(discs, run, tmp_path):
    _, predictions = run
    beside = crossval.run(discs, QUICK, tmp_path / "run", **{**RUN, "jobs": 2})
    pd.testing.assert_frame_equal(beside, predictions, rtol=1e-5)


def test_another_run_is_not_mixed_in_and_other_things_are_left_alone(discs, run, tmp_path):
    out, _ = run
    other = dataclasses.replace(QUICK, alpha=0.9)
    refused("its config differs in alpha", crossval.run, discs, other, out, **RUN)
    refused("its plan differs in folds", crossval.run, discs, QUICK, out, **{**RUN, "folds": 4})
    (tmp_path / "thesis.txt").write_text("years of work")
    refused("not empty", crossval.run, discs, QUICK, tmp_path, **RUN)
    refused("not finished", read_predictions, tmp_path)
    file = crossval.network_file(tmp_path, (0, 0, 0))
    file.parent.mkdir()
    for text, words in (('{"val_auc": 0.9}', "from another version"), ('{"v": 0.', "not readable")):
        file.write_text(text)
        refused(rf"view0\.json: {words}", read_network, tmp_path, (0, 0, 0))


def with_score(cohort, score):
    return dataclasses.replace(cohort, nodules=cohort.nodules.assign(score=score))


@pytest.mark.parametrize(("first", "said"), [("high", "'high'"), (np.nan, "missing"),
                                             (np.inf, "inf"), ("NaN", "'NaN'")])  # fmt: skip
def test_a_score_that_is_no_number_is_told_before_training(discs, tmp_path, first, said):
    score = pd.Series(1.5, index=discs.nodules.index, dtype=object)
    score.iloc[discs.labelled[0]] = first
    wrong = with_score(discs, score)
    named = wrong.nodules["nodule_id"].iloc[discs.labelled[0]]
    words = rf"score .* 1 of \d+ rows, .* {named}, .* {said}"
    refused(words, crossval.run, wrong, QUICK, tmp_path / "run", **RUN)
    assert not (tmp_path / "run").exists()


def test_baselines_are_of_columns_that_every_nodule_has(discs):
    assert baselines(discs) == {"size_only": "diameter_mm"}
    both = {"size_only": "diameter_mm", "detector": "score"}
    assert baselines(with_score(discs, 2)) == both
    for unknown in (np.nan, -1.0):  # a logit has no logarithm
        assert baselines(with_score(discs, unknown)) == {"size_only": "diameter_mm"}
    sizes = discs.nodules["diameter_mm"].where(discs.nodules.index != discs.labelled[0])
    some = dataclasses.replace(discs, nodules=discs.nodules.assign(diameter_mm=sizes))
    assert baselines(some) == {}


def start(config, *arguments):
    """`labkit crossval` in a process group of its own, which is what a terminal's Ctrl-C reaches.

    Ctrl-C is heard also where the tests run in the background of a shell, which ignores it.
    """
    script = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from labkit import cli\n"
        "from labkit.training.config import TrainingConfig\n"
        f"config = TrainingConfig.from_dict({config.as_dict()!r})\n"
        "cli._config = lambda *_: config\n"
        "sys.exit(cli.main(['crossval', *sys.argv[1:]]))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments), "--folds", "3", "--device", "cpu"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def finished(out):
    return {f: f.stat().st_mtime_ns for f in out.glob("units/repeat*.json")}


def wait(condition, process=None, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        if process is not None:
            assert process.poll() is None, f"the run ended too early:\n{process.communicate()[1]}"
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.01)


def _in_group(group):
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                yield process.cmdline()


def test_a_run_killed_at_random_goes_on_to_the_numbers_of_an_unbroken_one(discs, run, tmp_path):
    unbroken_out, unbroken = run
    out = tmp_path / "killed"
    rng = np.random.default_rng(5)
    for jobs, at_least in ((1, 0), (2, 1), (1, 2)):
        before = finished(out)
        process = start(QUICK, discs.folder, "--jobs", jobs, "--out", out)
        under_way = [out / "live", out / "units"][: 1 + (at_least > len(before))]
        wait(lambda u=under_way, n=at_least: all(f.is_dir() and any(f.iterdir()) for f in u)
             and len(finished(out)) >= n, process)  # fmt: skip
        time.sleep(rng.uniform(0, 0.6))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not (out / "predictions.csv").exists()
        assert before.items() <= finished(out).items(), "a finished network was trained again"
    there = finished(out)
    assert 2 <= len(there) < 6
    rest = out / "units" / ".repeat0_fold9_view9.json.x.json"  # as if killed while writing, ...
    rest.write_text('{"val_auc": 0.')
    os.utime(rest, (time.time() - 3600,) * 2)  # ... an hour ago
    resumed = crossval.run(discs, QUICK, out, **RUN)
    pd.testing.assert_frame_equal(resumed, unbroken, check_exact=True)
    assert there.items() <= finished(out).items(), "a finished network was trained again"
    assert not [f for f in out.rglob(".*") if time.time() - f.stat().st_mtime > 600]
    names = {f.name for f in out.iterdir()}
    assert names == {f.name for f in unbroken_out.iterdir()} - {"model"}


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is no signal there")
@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(discs, tmp_path, jobs):
    out = tmp_path / "stopped"
    process = start(QUICK, discs.folder, "--jobs", jobs, "--out", out)
    wait(lambda: len(finished(out)) >= 1, process)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said and "KeyboardInterrupt" not in said, said
    told = re.search(r"labkit: stopped; (\d) of 6 networks are done and kept in (.+); the same "
                     "command goes on", said)  # fmt: skip
    assert told, said
    assert int(told[1]) == len(finished(out)) < 6
    wait(lambda: not list(_in_group(process.pid)), seconds=10)
    assert not list(out.rglob(".*")), "half-written files are left"
    assert sorted(f.name for f in out.iterdir()) == ["run.json", "units"]


def test_a_lost_network_is_named_and_the_others_go_on(discs, run, tmp_path, monkeypatch):
    _, unbroken = run
    out = tmp_path / "run"
    unlucky = network_seed(QUICK.seed, 0, 1, 8)
    why = "batch 1 of 2 (training rows 1, 4, ...): lower the learning rate (now 0.001) or use fp32"

    def train_view(*arguments):
        if arguments[6] == unlucky:
            raise FloatingPointError(f"the loss is not a number in epoch 2, {why}")
        return loop.train_view(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(side_by_side, "train_view", train_view)
        with pytest.raises(FloatingPointError) as error:
            crossval.run(discs, QUICK, out, **RUN)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(
        "1 of 6 networks were lost: repeat 0, fold 1, view 8: the loss is not a number in epoch 2, "
        "batch 1 of 2 (training rows 1, 4, ...). lower the learning rate (now 0.001) or use fp32"
    )
    there = finished(out)
    assert len(there) == 5
    again = crossval.run(discs, QUICK, out, **RUN)
    pd.testing.assert_frame_equal(again, unbroken, check_exact=True)
    assert there.items() <= finished(out).items()


def test_files_of_another_machine_that_never_appear_are_an_error(tmp_path):
    (tmp_path / "there.json").touch()
    crossval.wait_for([tmp_path / "there.json"], seconds=0)
    files = [tmp_path / n for n in ("there.json", "missing.json")]
    refused(r"missing\.json.*all machines share", crossval.wait_for, files, seconds=0)


def test_folds_by_patient_and_by_nodule():
    patient = np.repeat([f"p{i}" for i in range(60)], 3)
    nodules = pd.DataFrame({"patient_id": patient, "label": np.arange(180) % 2})
    for split in ("patient", "nodule"):
        part = nodules.assign(fold=make_folds(nodules, 5, split, seed=0))
        in_folds = part.groupby("patient_id")["fold"].nunique()
        assert (in_folds == 1).all() if split == "patient" else in_folds.mean() > 1.5
        counts = part.groupby("fold")["label"].agg(["mean", "size"])
        assert counts.index.tolist() == list(range(5))
        assert counts["mean"].between(0.35, 0.65).all() and counts["size"].between(25, 47).all()


@pytest.mark.parametrize(
    ("other", "folds", "split", "words"),
    [("p5", 1, "patient", "folds need"), ("p5", 5, "hospital", "split must be"),
     ("p5", 200, "nodule", "folds need"), ("P1", 5, "patient", "'P1' and 'p1' are most likely"),
     (" p1", 5, "nodule", "are most likely one"), (None, 5, "patient", "is of no patient"),
     ("", 5, "patient", "is of no patient")],
)  # fmt: skip
def test_folds_that_cannot_be_are_refused(other, folds, split, words):
    nodules = pd.DataFrame({"patient_id": [f"p{i}" for i in range(20)], "label": [0, 1] * 10})
    nodules.loc[5, "patient_id"] = other
    refused(words, make_folds, nodules, folds, split)


def test_some_folds_of_several_repeats_judge_the_same_nodules_or_are_refused():
    refused("hold other nodules in every repeat", crossval.Plan, 5, 2, "patient", 3)
    assert len([*crossval.Plan(10, 2, "subset", 3).places()]) == 6


# LUNA-16's candidates: folds are subsets, and a run is judged as a submission.


@pytest.fixture(scope="module")
def luna(tmp_path_factory):
    return luna_discs(tmp_path_factory.mktemp("luna") / "discs")


@pytest.fixture(scope="module")
def luna_run(luna, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "st"
    return out, crossval.run(luna, LUNA, out, **{**RUN, "folds": SUBSETS, "split": "subset"})


def test_candidates_are_told_apart_fold_by_subset_beside_the_detectors_score(luna, luna_run):
    _, predictions = luna_run
    fold = predictions.drop_duplicates("nodule_id").set_index("nodule_id")["fold"]
    subset = luna.nodules.set_index("nodule_id")["subset"]
    assert (fold == subset.loc[fold.index]).all() and len(fold) == len(luna)
    views = predictions.groupby("view")
    by_view = {view: roc_auc(part["label"], part["probability"]) for view, part in views}
    assert set(by_view) == {"0", "8", "fused", "detector"}
    assert by_view["fused"] > 0.99 > by_view["detector"] > 0.7


def test_probabilities_and_rates_are_of_the_candidates_there_are_not_of_those_shown(luna, luna_run):
    out, predictions = luna_run
    share = luna.nodules["label"].astype(float).mean()
    fused = predictions[predictions["view"] == "fused"]
    assert share < 0.15
    assert fused.loc[fused["label"] == 0, "probability"].mean() < share
    assert threshold(luna) == pytest.approx(share)
    m = read_json(out / "metrics.json", "a run")["metrics"]["fused"]
    called = fused["probability"] >= share
    assert m["sensitivity"]["value"] == pytest.approx(called[fused["label"] == 1].mean())
    assert m["specificity"]["value"] == pytest.approx((~called[fused["label"] == 0]).mean())


def test_the_submission_is_what_the_challenge_takes(luna, luna_run):
    out, predictions = luna_run
    marks = luna16.read_submission(out / "submission.csv")
    assert len(marks) == len(luna)
    np.testing.assert_allclose(marks["x_mm"], luna.nodules["x_mm"])
    fused = predictions[predictions["view"] == "fused"].set_index("nodule_id")["probability"]
    np.testing.assert_allclose(marks["probability"], fused.loc[luna.nodules["nodule_id"]])
    again = predictions.assign(repeat=1, probability=predictions["probability"] / 2)
    both = froc.marks(luna, pd.concat([predictions, again]))  # repeats as their mean
    np.testing.assert_allclose(both["probability"], 0.75 * marks["probability"])


def judged_as_submission(cohort, predictions, bootstraps=0):
    marks = froc.marks(cohort, predictions)
    against = froc.truth(cohort, marks["seriesuid"])
    return froc.evaluate(marks, *against, bootstraps=bootstraps)


def test_a_missed_nodule_bounds_the_sensitivity_and_excluded_findings_are_no_errors(luna, luna_run):
    _, predictions = luna_run
    found = judged_as_submission(luna, predictions, bootstraps=20)
    assert found.counts.nodules == found.counts.scans == 18
    perfect = predictions.assign(probability=predictions["label"].astype(float))
    best = judged_as_submission(luna, perfect)
    assert best.cpm == pytest.approx(17 / 18)
    excluded = luna.nodules.loc[luna.nodules["excluded"] == 1, "nodule_id"]
    of_excluded = perfect["nodule_id"].isin(excluded)
    worse = perfect.assign(probability=perfect["probability"].mask(of_excluded, 2.0))
    assert judged_as_submission(luna, worse).cpm == best.cpm
    values = froc.as_values(found)
    assert values["cpm_low"] <= values["cpm"] <= values["cpm_high"]
    assert values["rates"] == list(froc.RATES) and len(values["sensitivity"]) == 7
    part = predictions[predictions["fold"] == 0]  # of some subsets only their scans are judged
    assert judged_as_submission(luna, part).counts.scans == 18 / SUBSETS


def test_a_patient_with_scans_in_two_subsets_never_trains_for_the_fold_that_tests_it(luna):
    # As LIDC-IDRI-0332, whose two scans lie in LUNA-16's subsets 2 and 6.
    twice = luna.nodules["patient_id"].replace({"p01": "p00"})
    torn = dataclasses.replace(luna, nodules=luna.nodules.assign(patient_id=twice))
    for network in crossval.networks_of(torn, LUNA, crossval.Plan(SUBSETS, 1, "subset")):
        trained = np.r_[network.train, network.val]
        assert not set(twice.iloc[network.test]) & set(twice.iloc[trained])
        everybody = np.setdiff1d(torn.labelled, network.test)
        left_out = np.setdiff1d(everybody, crossval.training_rows(torn, network.test, "subset"))
        here = (twice.iloc[everybody] == "p00") & ("p00" in set(twice.iloc[network.test]))
        np.testing.assert_array_equal(left_out, everybody[here.to_numpy()])


def test_a_cohort_without_subsets_cannot_be_split_by_them(luna):
    nodules = luna.nodules
    torn, none = nodules.assign(subset=np.arange(len(nodules)) % 3), nodules.drop(columns="subset")
    refused("3 subsets: ask for 3 folds", make_folds, nodules, 5, "subset")
    refused("all candidates are of one subset", make_folds, nodules.assign(subset=0), 3, "subset")
    refused("a scan lies in two subsets", make_folds, torn, 3, "subset")
    refused("split by patient instead", make_folds, none, 3, "subset")


# Runs listed: how far each has come.


@pytest.fixture(scope="module")
def runs(discs, tmp_path_factory):
    """A finished run, one with a network missing, and one whose record is damaged."""
    folder = tmp_path_factory.mktemp("runs")
    whole, part, broken = folder / "a" / "whole", folder / "b" / "part", folder / "broken"
    config = TrainingConfig.brief(model="st", epochs=1, views=(0, 4))
    crossval.run(discs, config, whole, first_folds=1, **{**RUN, "folds": 2})
    shutil.copytree(whole, part)
    for name in ("predictions.csv", "metrics.json", "units/repeat0_fold0_view4.json"):
        (part / name).unlink()
    shutil.copytree(part, broken)
    changed(broken, plan=None)
    for age, run in enumerate((whole, part, broken)):
        for file in run.rglob("*.*"):
            os.utime(file, (1e9 + age, 1e9 + age))
    return folder


@pytest.fixture
def under_way(runs, tmp_path):
    """A run of 3 x 2 x 2 networks of up to 100 epochs, of which one is finished."""
    run = tmp_path / "run"
    shutil.copytree(runs / "b" / "part", run)
    plan = {"folds": 2, "repeats": 3, "split": "nodule", "first_folds": None}
    changed(run, plan=plan, config=TrainingConfig.brief(epochs=100, views=(0, 4)).as_dict())
    return run


def changed(run, **parts):
    record = read_json(run / "run.json", "a run") | parts
    write_json(run / "run.json", {k: v for k, v in record.items() if v is not None})


def noted(run, name, seconds, epochs, ago=0.0):
    """What a network under way leaves whose epochs took `seconds` each, last heard of `ago`."""
    lines = [json.dumps({"epoch": e, "seconds": (e + 1) * seconds}) for e in range(epochs)]
    file = run / "live" / f"{name}.jsonl"
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))
    os.utime(file, (time.time() - ago,) * 2)


def listed(run, *columns):
    (row,) = list_runs([run]).to_dict("records")
    return tuple(row[column] for column in columns) if columns else row["state"]


def test_every_run_is_found_once_with_its_state(runs, tmp_path):
    table = list_runs([runs, runs / "b"])
    assert [os.path.relpath(run, runs) for run in table["run"]] == ["a/whole", "b/part", "broken"]
    assert table["state"].tolist()[:2] == ["finished", "stopped"]
    assert table["networks"].tolist()[:2] == ["2 of 2", "1 of 2"]
    assert table["state"].iloc[2].startswith("damaged: lacks 'plan'")
    assert table["protocol"].iloc[0] == "1x2 folds, 2 views, 1 epochs"
    metrics = read_json(runs / "a" / "whole" / "metrics.json", "a run")["metrics"]
    assert table["auc"].iloc[0].startswith(f"{metrics['fused']['auc']['value']:.3f} (")
    assert list_runs([tmp_path]).empty
    refused("no such folder", list_runs, [tmp_path / "nothing"])


def test_a_run_under_way_shows_its_networks_and_a_killed_one_is_stopped(under_way, runs):
    noted(under_way, "repeat0_fold0_view4", 10.0, 5)
    noted(under_way, "repeat0_fold1_view0", 10.0, 15)
    assert listed(under_way, "state", "networks", "under_way", "protocol") == (
        "running", "1 of 12", "2, 5 to 15 epochs", "3x2 folds by nodule, 2 views, 100 epochs"
    )  # fmt: skip
    assert time.strptime(*listed(under_way, "last_change"), "%Y-%m-%d %H:%M")
    noted(under_way, "repeat0_fold1_view0", 10.0, 15, ago=600)
    for seconds, epochs, ago, state, words in (
        (1.0, 1, 0, "running", "1, 1 epoch"), (1.0, 0, 0, "running", "1, 0 epochs"),
        (10.0, 5, 600, "stopped", None), (600.0, 5, 600, "running", "1, 5 epochs"),
        (10.0, 5, 600, "stopped", None),
    ):  # fmt: skip
        noted(under_way, "repeat0_fold0_view4", seconds, epochs, ago)
        assert listed(under_way) == state
        assert words is None or listed(under_way, "under_way") == (words,)
    noted(under_way, "repeat0_fold0_view0", 10.0, 5)  # what a finished network has left
    assert listed(under_way) == "stopped"
    # Before its first network and after its last it is running, too.
    network = under_way / "units" / "repeat0_fold0_view0.json"
    os.utime(under_way / "run.json")
    assert listed(under_way) == "stopped"
    (under_way / "live" / "repeat0_fold0_view0.jsonl").unlink()
    network.rename(under_way / "first.json")
    assert listed(under_way) == "running"
    os.utime(under_way / "run.json", (1e9, 1e9))
    assert listed(under_way) == "stopped"
    shutil.copy(runs / "a" / "whole" / "run.json", under_way / "run.json")
    for name in ("repeat0_fold0_view0.json", "repeat0_fold0_view4.json"):
        shutil.copy(under_way / "first.json", network.with_name(name))
    assert listed(under_way) == "running"


def test_the_list_fits_a_terminal(runs, under_way, monkeypatch):
    noted(under_way, "repeat0_fold0_view4", 10.0, 5)
    monkeypatch.chdir(under_way.parent)
    table = list_runs([runs, "run"])
    assert table["run"].iloc[-1] == "run"
    table["run"] = table["run"].str.replace(str(runs), "runs", regex=False)
    text = runs_as_text(table)
    whole = [line for line in text.splitlines() if "damaged" not in line]
    assert max(map(len, whole)) <= 120 and whole[0] == "discs"
    (header,) = (line for line in whole if "under way" in line)
    (line,) = (line for line in whole if "running" in line)
    for column, words in {"state": "running 1 of 12", "under way": "1, 5 epochs"}.items():
        assert line[header.index(column) :].startswith(words)
    assert "runs/broken damaged: lacks 'plan'; delete it" in text
    assert runs_as_text(list_runs([under_way / "live"])) == ""
