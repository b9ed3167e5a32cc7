"""Cross-validation keeps patients apart, goes on after a kill, and refuses to mix runs."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from labkit.errors import InputError
from labkit.evaluation import crossval, summary
from labkit.evaluation.folds import make_folds
from labkit.evaluation.metrics import roc_auc
from labkit.models.fusion import auc_weights, fuse
from labkit.training.config import TrainingConfig
from labkit.training.fit import load

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


def test_fused_rows_follow_equation_4_with_weights_of_the_inner_split(run):
    out, predictions = run
    fold = predictions[predictions["fold"] == 1]
    units = [json.loads((out / "units" / f"repeat0_fold1_view{v}.json").read_text())
             for v in (0, 8)]  # fmt: skip
    by_view = np.array([u["test_probability"] for u in units]).T
    expected = fuse(by_view, auc_weights([u["val_auc"] for u in units]))
    np.testing.assert_allclose(fold[fold["view"] == "fused"]["probability"], expected)


def test_metrics_can_be_computed_again_from_the_predictions(run):
    out, predictions = run
    stored = json.loads((out / "metrics.json").read_text())["metrics"]
    fused = predictions[predictions["view"] == "fused"]
    assert stored["fused"]["auc"]["value"] == pytest.approx(
        roc_auc(fused["label"], fused["probability"]), abs=1e-4
    )
    assert stored == summary.summarise(crossval.read_predictions(out))


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


def test_an_unfinished_run_has_no_predictions(tmp_path):
    with pytest.raises(InputError, match="not finished"):
        crossval.read_predictions(tmp_path)


def test_a_killed_run_goes_on_to_the_numbers_of_an_unbroken_one(discs, run, tmp_path):
    _, unbroken = run
    out = tmp_path / "killed"
    script = (
        "import sys; from labkit.data.cohort import Cohort; "
        "from labkit.evaluation import crossval; from tests.evaluation.test_crossval import *; "
        "crossval.run(Cohort.open(sys.argv[1]), QUICK, sys.argv[2], **RUN)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(discs.folder), str(out)], env={**os.environ}
    )
    deadline = time.monotonic() + 120
    while len(list(out.glob("units/repeat*.json"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {f: f.stat().st_mtime_ns for f in out.glob("units/repeat*.json")}
    assert 2 <= len(finished) < 6
    assert not (out / "predictions.csv").exists()
    resumed = crossval.run(discs, QUICK, out, **RUN)
    pd.testing.assert_frame_equal(resumed, unbroken, rtol=1e-6)
    for file, when in finished.items():
        assert file.stat().st_mtime_ns == when, "a finished network was trained again"


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
    pair = summary.compare(predictions, predictions)
    assert pair["auc_difference"] == {"value": 0, "low": 0, "high": 0}
    assert pair["delong"]["p_value"] == 1


def test_runs_on_different_nodules_are_not_compared(run):
    _, predictions = run
    fewer = predictions[predictions["nodule_id"] != predictions["nodule_id"].iloc[0]]
    with pytest.raises(InputError, match="different nodules"):
        summary.compare(predictions, fewer)
