"""Every method that takes a nodule whole: it learns what is there to learn, and nothing else."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import ParameterGrid

from labkit.cohorts.cohort import Cohort, write_cohort
from labkit.errors import InputError
from labkit.evaluation import crossval
from labkit.evaluation.predictions import select_view
from labkit.evaluation.statistics import roc_auc, within_folds_auc
from labkit.imaging.views import nine_views
from labkit.imaging.volume import Volume
from labkit.models import NETWORKS
from labkit.models.rivals import TRIALS, of_features
from labkit.models.rivals.shewaye2016 import Shewaye2016
from labkit.training import TrainingConfig, batches, fit, load, machines, side_by_side
from labkit.training.nine_views import train_rival
from tests.discs import RATINGS
from tests.luna_discs import luna_discs

OF_VIEWS = {"descriptors", "ciompi2015", "zhao2018", "mvkbc2019", "mkssac2019", "shared",
            "mt-ratings", "best"}  # which need no cubes  # fmt: skip
RIVALS = [name for name, of in NETWORKS.items() if of.whole]
CONFIG = TrainingConfig.lab(epochs=8, patience=8)
Z, Y, X = np.mgrid[:64, :64, :64] - 31.5


def ball_cohort(folder: Path, n: int = 72, shuffled: bool = False, tells_mm: float = 0) -> Cohort:
    """Balls in lung, malignant ones larger, denser and spiky; a twelfth of n is uncertain.

    `shuffled`: labels are drawn by lot, and the diameter is larger by `tells_mm` where malignant.
    """
    rng = np.random.default_rng(0)
    malignant = rng.permutation(np.arange(n) % 2)
    said = rng.permutation(malignant) if shuffled else malignant
    with write_cohort(folder, n, source="balls for a test", simulated=True) as add:
        for i in range(n):
            mm = rng.uniform(9, 12) if malignant[i] else rng.uniform(4, 6)
            r = np.sqrt(Z**2 + Y**2 + X**2)
            spikes = 1.5 * malignant[i] * np.cos(5 * np.arctan2(Y, X))
            cube = np.where(r < mm + spikes, 40 if malignant[i] else -150, -850)
            cube = (cube + rng.normal(0, 25, cube.shape)).astype(np.int16)
            label = None if i % 12 == 11 else int(said[i])
            rating = 3.0 if label is None else 1.5 + 3 * label
            nodule = {
                **dict.fromkeys(RATINGS, 3.0), "nodule_id": f"n{i:03d}", "patient_id": f"p{i:03d}",
                "series_uid": f"1.2.{i}", "readers": 4, "diameter_mm": 2 * mm, "label": label,
                "malignancy_mean": rating, "malignancy_median": rating,
            }  # fmt: skip
            if shuffled:
                nodule["diameter_mm"] = 10 + rng.random() + tells_mm * (label or 0)
            wide = Volume(np.pad(cube, 8, constant_values=-850), (1.0, 1.0, 1.0))
            add(nodule, cube=cube, views=nine_views(wide, (39.5, 39.5, 39.5), size=76))
    return Cohort.open(folder)


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    return ball_cohort(tmp_path_factory.mktemp("balls") / "cohort")


@pytest.fixture(scope="module")
def lots(tmp_path_factory):
    """The same, with labels drawn by lot."""
    return ball_cohort(tmp_path_factory.mktemp("lots") / "cohort", shuffled=True)


def _learnt(cohort, name, rows):
    return fit(cohort, rows, replace(CONFIG, model=name), device="cpu", progress=False)


@pytest.mark.parametrize("name", RIVALS)
def test_every_method_may_try_as_many_hyper_parameters(name):
    grid = getattr(resolve_name(NETWORKS[name].place), "grid", {})
    assert len(ParameterGrid(grid)) <= TRIALS


@pytest.mark.parametrize("name", RIVALS)
def test_it_learns_what_is_there_and_keeps_it(balls, name, tmp_path):
    train, test = balls.labelled[:48], balls.labelled[48:]
    model = _learnt(balls, name, train)
    said = model.predict(balls, test)
    assert said.shape == (len(test), 1)
    assert roc_auc(balls.nodules["label"].iloc[test].astype(int), said[:, 0]) > 0.9
    model.save(tmp_path / "model")
    np.testing.assert_allclose(
        load(tmp_path / "model", "cpu").predict(balls, test), said, atol=1e-6
    )
    np.testing.assert_array_equal(_learnt(balls, name, train).predict(balls, test), said)


@pytest.mark.parametrize("name", [name for name in RIVALS if not name.startswith("size")])
def test_it_learns_nothing_from_labels_by_lot(lots, name):
    train, test = lots.labelled[:40], lots.labelled[40:]
    said = _learnt(lots, name, train).predict(lots, test)[:, 0]
    # Of 26 nodules the AUC by chance has a standard deviation of 0.12.
    assert 0.14 < roc_auc(lots.nodules["label"].iloc[test].astype(int), said) < 0.86


@pytest.mark.parametrize("name", [name for name in RIVALS if not name.startswith("size")])
def test_it_refuses_a_cohort_without_what_it_needs(balls, name):
    """It takes the views alone, or says that it needs the cubes."""
    without, brief = replace(balls, cubes=None), replace(CONFIG, model=name, epochs=1)
    with nullcontext() if name in OF_VIEWS else pytest.raises(InputError, match="cubes"):
        fit(without, balls.labelled, brief, device="cpu", progress=False)


@pytest.mark.parametrize("name", ["best", "shared"])
def test_of_candidates_it_says_the_share_of_nodules_that_there_is(name, tmp_path, monkeypatch):
    """Though it learns from a sample of the others; and it needs no cubes."""
    monkeypatch.setattr(batches, "MOST_VALIDATION_NEGATIVES", 2)
    discs = luna_discs(tmp_path / "discs", each=24)
    config = replace(CONFIG, model=name, negatives_per_positive=1.0)
    model = fit(discs, np.arange(12 * 24), config, device="cpu", progress=False)
    model.save(tmp_path / "model")
    test = np.arange(12 * 24, 17 * 24)
    said = load(tmp_path / "model", "cpu").fuse(model.predict(discs, test))
    label = discs.nodules["label"].iloc[test]
    assert roc_auc(label, said) > 0.95
    assert 0.5 < said.sum() / label.sum() < 2


def test_the_diameter_is_added_to_what_a_method_says(tmp_path):
    cohort = ball_cohort(tmp_path / "cohort", n=36, shuffled=True, tells_mm=9)
    run = crossval.run(
        cohort, replace(CONFIG, model="size+size"), tmp_path / "run", folds=3, device="cpu", jobs=1,
        progress=False,
    )  # fmt: skip
    fused, alone = (select_view(run, view)["probability"].to_numpy() for view in ("fused", "0"))
    label = select_view(run, "fused")["label"]
    assert roc_auc(label, fused) == roc_auc(label, alone) == 1.0
    assert not np.allclose(fused, alone)


def test_of_features_every_training_nodule_is_held_out_once(balls, tmp_path):
    """So that what the diameter adds is learnt from all of them, and from no test nodule."""
    config = replace(CONFIG, model="shewaye2016")
    said = crossval.run(
        balls, config, tmp_path / "run", folds=3, device="cpu", jobs=1, progress=False
    )
    labelled = set(balls.nodules["nodule_id"].iloc[balls.labelled])
    held_out = crossval.validation_predictions(tmp_path / "run", balls)
    for fold, tested in said[said["view"] == "fused"].groupby("fold"):
        names = held_out[(held_out["fold"] == fold) & (held_out["view"] == "fused")]["nodule_id"]
        assert set(names) == labelled - set(tested["nodule_id"]) and names.is_unique


def test_a_method_of_one_s_own_is_judged_as_those_that_have_a_name(balls, tmp_path):
    plan, others = crossval.Plan(3), {"device": "cpu", "jobs": 1, "progress": False}
    config = TrainingConfig.lab(model="shewaye2016")
    run = crossval.run(balls, config, tmp_path / "run", folds=3, **others)
    same = crossval.judge(balls, Shewaye2016, plan)
    pd.testing.assert_frame_equal(same, run[run["view"] != "0"].reset_index(drop=True))
    trees = ExtraTreesClassifier(20, random_state=0)
    bright = crossval.judge(balls, of_features(lambda cube: (cube > -400).sum(), trees), plan)
    inside = within_folds_auc(bright)
    assert inside.value > 0.95 and bright["view"].unique().tolist() == ["fused", "size_only"]
    noise = np.random.default_rng(0)
    nothing = crossval.judge(balls, of_features(lambda cube: noise.normal(size=3)), plan)
    assert within_folds_auc(nothing).value < 0.8


def test_a_stopped_run_goes_on_to_the_same(balls, tmp_path):
    settings = {"folds": 3, "device": "cpu", "jobs": 1, "progress": False}
    config = replace(CONFIG, model="size+calcification")
    whole = crossval.run(balls, config, tmp_path / "whole", **settings)
    crossval.run(balls, config, tmp_path / "stopped", **settings)
    for file in ("units/repeat0_fold1_view0.json", "predictions.csv", "metrics.json"):
        (tmp_path / "stopped" / file).unlink()
    again = crossval.run(balls, config, tmp_path / "stopped", **settings)
    pd.testing.assert_frame_equal(again, whole)


def test_a_bar_counts_the_epochs_of_a_training(balls, capsys):
    model = fit(balls, balls.labelled, replace(CONFIG, model="zhao2018", epochs=2), device="cpu")
    shown, auc = capsys.readouterr().err, model.history["val_auc"].iloc[-1]
    assert "2epoch" in shown and f"val_auc={auc:.3f}" in shown


@pytest.mark.parametrize("monitor", ["loss", "auc"])
def test_training_stops_when_what_is_watched_gets_no_better(lots, monitor):
    config = replace(CONFIG, model="zhao2018", patience=2, schedule="printed", monitor=monitor)
    task = side_by_side.Task(0, lots.labelled[:48], lots.labelled[48:], seed=0)
    done = train_rival(lots, task, config, machines.Device.choose("cpu", "fp32"))
    curve = pd.DataFrame(done.history)
    best = curve["val_cls"].idxmin() if monitor == "loss" else curve["val_auc"].idxmax()
    assert (done.best_epoch, len(curve)) == (best, min(config.epochs, best + 1 + config.patience))


def test_a_nodule_without_diameter_is_refused(balls):
    unknown = balls.nodules.assign(diameter_mm=np.nan)
    with pytest.raises(InputError, match="diameter"):
        _learnt(replace(balls, nodules=unknown), "size+size", balls.labelled)
