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

from labkit.errors import InputError
from labkit.evaluation import crossval, statistics
from labkit.evaluation.crossval import baselines, make_folds
from labkit.evaluation.statistics import roc_auc
from labkit.models.fusion import auc_weights, fuse
from labkit.training import loop
from labkit.training.config import TrainingConfig
from labkit.training.loop import network_seed
from labkit.training.machines import Device
from labkit.training.model import load, training_and_validation

QUICK = TrainingConfig.brief(epochs=4, views=(0, 8), precision="fp32", batch_size=16)
RUN = {"folds": 3, "device": "cpu", "jobs": 1, "progress": False}


@pytest.fixture(scope="module")
def run(discs, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "mt"
    return out, crossval.run(discs, QUICK, out, keep_first_model=True, **RUN)


def test_every_labelled_nodule_is_predicted_once_by_each_view(discs, run):
    _, predictions = run
    labelled = set(discs.nodules["nodule_id"].iloc[discs.labelled])
    assert set(predictions["view"]) == {"0", "8", "fused", "size_only"}
    for _, part in predictions.groupby("view"):
        assert set(part["nodule_id"]) == labelled
        assert not part["nodule_id"].duplicated().any()
    assert predictions["probability"].between(0, 1).all()


def test_no_patient_is_in_two_folds(run):
    _, predictions = run
    assert (predictions.groupby("patient_id")["fold"].nunique() == 1).all()


def test_predictions_on_disk_are_the_ones_returned(run):
    out, predictions = run
    there = crossval.read_predictions(out)
    pd.testing.assert_frame_equal(there, predictions, check_dtype=False)


@pytest.mark.parametrize("rows_at_once", [7, 1_000_000])
def test_one_view_read_by_parts_is_that_view_of_all(run, monkeypatch, rows_at_once):
    monkeypatch.setattr(crossval, "_ROWS_AT_ONCE", rows_at_once)
    every = crossval.read_predictions(run[0])
    for view in (*every["view"].unique(), "none of them"):
        alone = crossval.read_predictions(run[0], view)
        asked = every[every["view"] == view].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, asked, check_exact=True)
    ids = every["nodule_id"]  # of which each is in memory once
    assert ids.dtype != object or ids.map(id).nunique() == ids.nunique()


def test_fused_rows_follow_equation_4_with_weights_of_the_inner_split(run):
    out, predictions = run
    fold = predictions[predictions["fold"] == 1]
    left = [json.loads((out / "units" / f"repeat0_fold1_view{v}.json").read_text())
            for v in (0, 8)]  # fmt: skip
    by_view = np.array([u["test_probability"] for u in left]).T
    expected = fuse(by_view, auc_weights([u["val_auc"] for u in left]))
    np.testing.assert_allclose(fold[fold["view"] == "fused"]["probability"], expected)


def test_a_unit_says_which_training_nodules_it_stopped_by_and_what_it_gave_them(discs, run):
    out, predictions = run
    labels = discs.nodules.set_index("nodule_id")["label"].astype(float)
    for view in (0, 8):
        unit = json.loads((out / "units" / f"repeat0_fold1_view{view}.json").read_text())
        held_out = unit["val_nodule_id"]
        tested = predictions[(predictions["fold"] == 1) & (predictions["view"] == str(view))]
        assert not set(held_out) & set(tested["nodule_id"])
        assert roc_auc(labels.loc[held_out], unit["val_probability"]) == pytest.approx(
            unit["val_auc"]
        )


def test_a_run_from_before_a_setting_existed_is_a_run_with_its_default(discs, run, tmp_path):
    out, predictions = run
    old = tmp_path / "old"
    shutil.copytree(out, old)
    values = json.loads((old / "run.json").read_text())
    del values["config"]["l2_on"]
    (old / "run.json").write_text(json.dumps(values))
    again = crossval.run(discs, QUICK, old, keep_first_model=True, **RUN)
    pd.testing.assert_frame_equal(again, predictions)


def test_metrics_can_be_computed_again_from_the_predictions(run):
    out, predictions = run
    stored = json.loads((out / "metrics.json").read_text())["metrics"]
    fused = predictions[predictions["view"] == "fused"]
    assert stored["fused"]["auc"]["value"] == pytest.approx(
        roc_auc(fused["label"], fused["probability"]), abs=1e-4
    )
    assert stored == statistics.summarise(crossval.read_predictions(out))


def test_size_only_is_a_function_of_diameter_within_a_fold(discs, run):
    _, predictions = run
    size = predictions[(predictions["view"] == "size_only") & (predictions["fold"] == 0)]
    diameter = discs.nodules.set_index("nodule_id")["diameter_mm"].loc[size["nodule_id"]]
    order = np.argsort(diameter.to_numpy())
    steps = np.diff(size["probability"].to_numpy()[order])
    assert np.all(steps >= 0) or np.all(steps <= 0)


def test_kept_model_repeats_its_folds_predictions(discs, run):
    out, predictions = run
    model = load(out / "model", device="cpu")
    fold = predictions[(predictions["fold"] == 0) & (predictions["view"] == "fused")]
    ids = discs.nodules["nodule_id"].to_numpy()
    rows = [int(np.flatnonzero(ids == i)[0]) for i in fold["nodule_id"]]
    np.testing.assert_allclose(model.fuse(model.predict(discs, rows)), fold["probability"],
                               rtol=1e-5)  # fmt: skip


def test_processes_side_by_side_give_the_same_predictions(discs, run, tmp_path):
    _, predictions = run
    beside = crossval.run(discs, QUICK, tmp_path / "run", **{**RUN, "jobs": 2})
    pd.testing.assert_frame_equal(beside, predictions, rtol=1e-5)


def test_another_run_is_not_mixed_in(discs, run):
    out, _ = run
    with pytest.raises(InputError, match="its config differs in alpha"):
        crossval.run(discs, dataclasses.replace(QUICK, alpha=0.9), out, **RUN)
    with pytest.raises(InputError, match="its plan differs in folds"):
        crossval.run(discs, QUICK, out, **{**RUN, "folds": 4})


def test_a_folder_of_other_things_is_left_alone(discs, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not empty"):
        crossval.run(discs, QUICK, tmp_path, **RUN)


def with_score(cohort, score):
    return dataclasses.replace(cohort, nodules=cohort.nodules.assign(score=score))


@pytest.mark.parametrize(
    ("first", "said"),
    [("high", "'high'"), (np.nan, "missing"), (np.inf, "inf"), ("NaN", "'NaN'")],
)
def test_a_score_that_is_no_number_is_told_before_training(discs, tmp_path, first, said):
    score = pd.Series(1.5, index=discs.nodules.index, dtype=object)
    score.iloc[discs.labelled[0]] = first
    wrong = with_score(discs, score)
    named = wrong.nodules["nodule_id"].iloc[discs.labelled[0]]
    with pytest.raises(InputError, match=rf"score .* 1 of \d+ rows, .* {named}, .* {said}"):
        crossval.run(wrong, QUICK, tmp_path / "run", **RUN)
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


def test_an_unfinished_run_has_no_predictions(tmp_path):
    with pytest.raises(InputError, match="not finished"):
        crossval.read_predictions(tmp_path)


def _start(discs, out, jobs):
    """A run in a process group of its own, which is what a terminal's Ctrl-C reaches."""
    script = (
        "import sys\n"
        "from labkit import cli\n"
        "from labkit.evaluation import crossval\n"
        "from tests.evaluation.test_crossval import QUICK\n"
        "cli._config = lambda *_: QUICK\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    options = ["--folds", "3", "--device", "cpu", "--jobs", str(jobs), "--out", str(out)]
    return subprocess.Popen(
        [sys.executable, "-c", script, "crossval", str(discs.folder), *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def _finished(out):
    return {f: f.stat().st_mtime_ns for f in out.glob("units/repeat*.json")}


def _wait(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, f"the run ended too early:\n{process.communicate()[1]}"
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.01)


def _lingering(group, seconds=10):
    """Command lines of the processes of a group that have not ended after some seconds."""
    deadline = time.monotonic() + seconds
    while True:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.cmdline())
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)  # a process that has been told to end needs a moment


def test_a_run_killed_at_random_goes_on_to_the_numbers_of_an_unbroken_one(discs, run, tmp_path):
    unbroken_out, unbroken = run
    out = tmp_path / "killed"
    rng = np.random.default_rng(5)
    for jobs, at_least in ((1, 0), (2, 1), (1, 2)):
        before = _finished(out)
        process = _start(discs, out, jobs)
        under_way = [out / "live", out / "units"][: 1 + (at_least > len(before))]
        _wait(lambda u=under_way, n=at_least: all(f.is_dir() and any(f.iterdir()) for f in u)
              and len(_finished(out)) >= n, process)  # fmt: skip
        time.sleep(rng.uniform(0, 0.6))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not (out / "predictions.csv").exists()
        assert before.items() <= _finished(out).items(), "a finished network was trained again"
    finished = _finished(out)
    assert 2 <= len(finished) < 6
    rest = out / "units" / ".repeat0_fold9_view9.json.x.json"  # as if killed while writing, ...
    rest.write_text('{"val_auc": 0.')
    os.utime(rest, (time.time() - 3600,) * 2)  # ... an hour ago
    resumed = crossval.run(discs, QUICK, out, **RUN)
    pd.testing.assert_frame_equal(resumed, unbroken, check_exact=True)
    assert finished.items() <= _finished(out).items(), "a finished network was trained again"
    assert not [f for f in out.rglob(".*") if time.time() - f.stat().st_mtime > 600]
    names = {f.name for f in out.iterdir()}
    assert names == {f.name for f in unbroken_out.iterdir()} - {"model"}


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is no signal there")
@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(discs, tmp_path, jobs):
    out = tmp_path / "stopped"
    process = _start(discs, out, jobs)
    _wait(lambda: len(_finished(out)) >= 1, process)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said and "KeyboardInterrupt" not in said, said
    told = re.search(r"labkit: stopped; (\d) of 6 networks are done and kept in (.+); the same "
                     "command goes on", said)  # fmt: skip
    assert told, said
    assert int(told[1]) == len(_finished(out)) < 6
    assert _lingering(process.pid) == []
    assert not list(out.rglob(".*")), "half-written files are left"
    assert sorted(f.name for f in out.iterdir()) == ["run.json", "units"]


def test_a_lost_network_is_named_and_the_others_go_on(discs, run, tmp_path, monkeypatch):
    _, unbroken = run
    out = tmp_path / "run"
    unlucky = network_seed(QUICK.seed, 0, 1, 8)

    def train_view(*arguments):
        if arguments[6] == unlucky:
            raise FloatingPointError(
                "the loss is not a number in epoch 2, batch 1 of 2 (training rows 1, 4, ...): "
                "lower the learning rate (now 0.001) or use fp32"
            )
        return loop.train_view(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(crossval, "train_view", train_view)
        with pytest.raises(FloatingPointError) as error:
            crossval.run(discs, QUICK, out, **RUN)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(
        "1 of 6 networks were lost: repeat 0, fold 1, view 8: the loss is not a number in epoch 2, "
        "batch 1 of 2 (training rows 1, 4, ...). lower the learning rate (now 0.001) or use fp32"
    )
    finished = _finished(out)
    assert len(finished) == 5
    there = crossval.run(discs, QUICK, out, **RUN)
    pd.testing.assert_frame_equal(there, unbroken, check_exact=True)
    assert finished.items() <= _finished(out).items()


def test_networks_that_all_diverge_are_all_named_with_their_batch(discs, tmp_path):
    wild = dataclasses.replace(QUICK, learning_rate=1e30)
    with pytest.raises(FloatingPointError, match="6 of 6 networks were lost") as error:
        crossval.run(discs, wild, tmp_path / "run", **RUN)
    for fold in range(3):
        for view in QUICK.views:
            assert f"repeat 0, fold {fold}, view {view}: " in str(error.value)
    assert len(re.findall(r"batch \d+ of \d+", str(error.value))) == 6


def test_tasks_hold_every_unit_once_in_order():
    none = np.empty(0, dtype=np.int64)
    all_units = [crossval.Unit(r, f, v, none, none, none)
                 for r in range(10) for f in range(10) for v in range(9)]  # fmt: skip
    for on_gpu, workers in ((False, 4), (True, 1), (True, 7), (True, 2000)):
        tasks = crossval.in_tasks(all_units, on_gpu, workers)
        assert [u for task in tasks for u in task] == all_units
        assert (max(map(len, tasks)) == 1) == (not on_gpu or workers == 2000)
    assert crossval.in_tasks([], True, 3) == []


def test_files_of_another_machine_that_never_appear_are_an_error(tmp_path):
    (tmp_path / "there.json").touch()
    crossval.wait_for([tmp_path / "there.json"], seconds=0)
    with pytest.raises(InputError, match=r"missing\.json.*all machines share"):
        crossval.wait_for([tmp_path / n for n in ("there.json", "missing.json")], seconds=0)


def test_folds_by_patient_and_by_nodule():
    nodules = pd.DataFrame(
        {"patient_id": np.repeat([f"p{i}" for i in range(60)], 3), "label": np.arange(180) % 2}
    )
    by_patient = make_folds(nodules, 5, "patient", seed=0)
    by_nodule = make_folds(nodules, 5, "nodule", seed=0)
    folds_a_patient = nodules.assign(fold=by_patient).groupby("patient_id")["fold"].nunique()
    assert (folds_a_patient == 1).all()
    scattered = nodules.assign(fold=by_nodule).groupby("patient_id")["fold"].nunique()
    assert scattered.mean() > 1.5
    for number in (by_patient, by_nodule):
        assert sorted(set(number)) == list(range(5))
        counts = nodules.assign(fold=number).groupby("fold")["label"].agg(["mean", "size"])
        assert counts["mean"].between(0.35, 0.65).all()
        assert counts["size"].between(25, 47).all()


@pytest.mark.parametrize(("folds", "split"), [(1, "patient"), (5, "hospital"), (200, "nodule")])
def test_folds_that_cannot_be_are_refused(folds, split):
    nodules = pd.DataFrame({"patient_id": [f"p{i}" for i in range(20)], "label": [0, 1] * 10})
    with pytest.raises(InputError):
        make_folds(nodules, folds, split)


def test_a_comparison_of_a_run_with_itself_is_null(run):
    _, predictions = run
    pair = statistics.compare(predictions, predictions)
    assert pair["auc_difference"] == {"value": 0, "low": 0, "high": 0}
    assert pair["delong"]["p_value"] == 1


def test_runs_on_different_nodules_are_not_compared(run):
    _, predictions = run
    fewer = predictions[predictions["nodule_id"] != predictions["nodule_id"].iloc[0]]
    with pytest.raises(InputError, match="different nodules"):
        statistics.compare(predictions, fewer)


def test_units_trained_side_by_side_leave_what_they_leave_alone(discs, tmp_path):
    """The road of a GPU, walked on a CPU: the same files, with the same numbers in float32."""
    config = dataclasses.replace(QUICK, views=(0, 4), precision="fp32")
    cpu = Device.choose("cpu", "fp32")
    rows = discs.labelled
    these = []
    for fold in (0, 1):
        train, val = training_and_validation(discs.nodules, rows[fold::2], config, seed=fold)
        these += [crossval.Unit(0, fold, v, train, val, rows[1 - fold :: 2]) for v in config.views]
    plain = {
        unit.place: trained
        for unit, trained, _ in crossval._one_by_one(discs, config, tmp_path, cpu, these)
    }
    found = list(crossval._together(discs, config, tmp_path, cpu, these))
    assert {unit.place for unit, _, _ in found} == set(plain)
    for unit, trained, seconds in found:
        alone = plain[unit.place]
        assert trained.best_epoch == alone.best_epoch
        np.testing.assert_allclose(trained.val_probability, alone.val_probability, atol=1e-3)
        assert seconds > 0
        assert (
            tmp_path / "live" / f"{crossval.unit_file(tmp_path, *unit.place).stem}.jsonl"
        ).is_file()
