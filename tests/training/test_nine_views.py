"""Training learns what can be learnt, repeats itself exactly, and its models survive a disk."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from labkit.errors import InputError
from labkit.evaluation.statistics import roc_auc
from labkit.training.config import TrainingConfig
from labkit.training.nine_views import fit, inner_split, load

QUICK = TrainingConfig.brief(epochs=8, views=(0, 4), precision="fp32", batch_size=16)


@pytest.fixture(scope="module")
def model(discs):
    return fit(discs, discs.labelled, QUICK, device="cpu", progress=False)


def test_learns_to_tell_bright_discs_from_dark(discs, model):
    rows = discs.labelled
    fused = model.fuse(model.predict(discs, rows))
    assert roc_auc(discs.nodules["label"].iloc[rows].astype(int), fused) > 0.95
    assert model.weights.sum() == pytest.approx(1)
    assert model.predict(discs, rows).shape == (len(rows), 2)


def test_two_runs_of_one_seed_are_equal_to_the_bit(discs, model):
    again = fit(discs, discs.labelled, QUICK, device="cpu", progress=False)
    pd.testing.assert_frame_equal(again.history, model.history, check_exact=True)
    for a, b in zip(model.networks, again.networks, strict=True):
        for name, weight in a.state_dict().items():
            assert torch.equal(weight, b.state_dict()[name]), name


def test_training_leaves_the_global_random_numbers_alone(discs):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(discs, discs.labelled, dataclasses.replace(QUICK, epochs=1), device="cpu", progress=False)
    assert torch.equal(torch.rand(3), expected)


def test_alpha_zero_is_the_single_task_network(discs):
    """III-B: "if alpha = 0, the proposed method becomes a 2-D CNN (ST-CNN)"."""
    models = [
        fit(discs, discs.labelled, dataclasses.replace(QUICK, views=(0,), model=kind, alpha=alpha),
            device="cpu", progress=False)
        for kind, alpha in (("st", 0.3), ("mt", 0.0))
    ]  # fmt: skip
    single, multi = (m.networks[0].state_dict() for m in models)
    for name, weight in single.items():
        torch.testing.assert_close(weight, multi[name], rtol=1e-5, atol=1e-6)


def test_saved_and_loaded_it_predicts_the_same(discs, model, tmp_path):
    model.save(tmp_path / "model")
    back = load(tmp_path / "model", device="cpu")
    assert back.config == model.config
    np.testing.assert_array_equal(back.predict(discs), model.predict(discs))
    table = back.prediction_table(discs)
    assert list(table.columns) == ["nodule_id", "view_0", "view_4", "fused", "label"]
    assert len(table) == len(discs)


def test_damaged_and_foreign_models_are_refused(discs, model, tmp_path):
    folder = tmp_path / "model"
    model.save(folder)
    weights = folder / "view_4.safetensors"
    whole = weights.read_bytes()
    for harm, words in (
        (lambda: weights.write_bytes(whole[: len(whole) // 2]), "view_4.safetensors: damaged"),
        (lambda: weights.write_bytes(whole[:-1] + b"~"), "view_4.safetensors: damaged"),
        (weights.unlink, "missing"),
        (lambda: (folder / "model.json").write_text("{}"), "not a model"),
        ((folder / "model.json").unlink, "missing"),
    ):
        harm()
        with pytest.raises(InputError, match=words):
            load(folder)
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="no part of a model"):
        model.save(folder)
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_uncertain_nodules_are_refused_in_training(discs):
    with pytest.raises(InputError, match="no label"):
        fit(discs, [0, 5, 6], QUICK, progress=False)


def test_inner_split_keeps_patients_whole_and_both_classes(discs):
    rows = discs.labelled
    train, val = inner_split(discs.nodules, rows, 0.25, seed=3)
    assert sorted([*train, *val]) == sorted(rows)
    patients = discs.nodules["patient_id"]
    assert not set(patients.iloc[train]) & set(patients.iloc[val])
    for part in (train, val):
        assert discs.nodules["label"].iloc[part].nunique() == 2
    assert 0.1 < len(val) / len(rows) < 0.45


@pytest.mark.parametrize("patients", [2, 3, 5])
def test_of_few_patients_one_is_held_out(patients):
    """A seventh of three patients is none, and a training without validation does not stop."""
    label = [0, 1] * 2 * patients
    table = pd.DataFrame({"patient_id": np.arange(patients).repeat(4), "label": label})
    train, val = inner_split(table, np.arange(len(table)), 0.15, seed=0)
    assert table["patient_id"].iloc[val].nunique() == 1
    assert sorted([*train, *val]) == list(range(len(table)))
    for rows, words in ((4, "4 nodules of 1 patients"), (2, "too few")):
        with pytest.raises(InputError, match=words):
            inner_split(table, np.arange(rows), 0.15, seed=0)


@pytest.mark.parametrize(
    "bad",
    [{"model": "3d"}, {"alpha": -1}, {"shift_px": 7}, {"views": (0, 0)}, {"views": (9,)},
     {"epochs": 0}, {"plain_copy": False, "augmented_copies": 0}, {"validation_fraction": 0.9},
     {"negatives_per_positive": 0}, {"negatives_per_positive": -1.0}],
)  # fmt: skip
def test_a_protocol_that_cannot_be_is_refused(bad):
    with pytest.raises(InputError, match="must"):
        TrainingConfig.paper(**bad)


def test_config_survives_json_and_refuses_unknown_keys():
    config = TrainingConfig.brief(views=(0, 3))
    assert TrainingConfig.from_dict(config.as_dict()) == config
    with pytest.raises(InputError, match="unknown training settings: colour"):
        TrainingConfig.from_dict({"colour": "blue"})
