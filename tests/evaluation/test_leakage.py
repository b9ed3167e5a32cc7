"""What siblings give away, and a method that has nothing else."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from labkit.annotations import lidc
from labkit.evaluation import leakage
from labkit.evaluation.crossval import make_folds
from labkit.evaluation.size import by_one_number
from labkit.evaluation.statistics import roc_auc, within_folds_auc


def families(patients, alike, seed=0):
    """Three nodules a patient; siblings share the label with probability `alike`, else draw it."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), 3)
    shared = rng.integers(0, 2, patients)[patient]
    label = np.where(rng.random(len(patient)) < alike, shared, rng.integers(0, 2, len(patient)))
    return pd.DataFrame({
        "nodule_id": [f"n{i:04d}" for i in range(len(patient))],
        "patient_id": [f"p{i:04d}" for i in patient], "label": label,
        "diameter_mm": np.exp(rng.normal(2.2, 0.3, len(patient)) + 0.3 * label),
    })  # fmt: skip


def run_of(nodules, split, folds=5):
    fold = make_folds(nodules, folds, split)
    p = np.empty(len(nodules))
    for k in range(folds):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        p[test] = by_one_number(nodules, "diameter_mm", train, test)
    table = nodules[["nodule_id", "patient_id", "label"]].reset_index(drop=True)
    table = table.assign(repeat=0, fold=fold, view="size_only", probability=p)
    return leakage.with_memory(table, nodules)


def test_labels_of_copies_are_alike_those_of_strangers_not_and_size_may_explain_it():
    copies, strangers = (leakage.sibling_pairs(families(300, a)) for a in (1.0, 0.0))
    assert copies["same_label"] == 1 and copies["likeness"] == pytest.approx(1)
    assert abs(strangers["likeness"]) < 0.08
    assert strangers["same_label"] == pytest.approx(strangers["same_label_by_chance"], abs=0.05)
    assert copies["pairs"] == 3 * 300 and copies["nodules_with_siblings"] == 900
    # The diameter says all of the label but for noise of its own.
    noise = np.random.default_rng(1).normal(0, 0.1, 1200)
    told = families(400, 1.0).assign(diameter_mm=lambda t: np.exp(2 + t["label"] + noise))
    found = leakage.sibling_pairs(told)
    assert found["likeness"] == pytest.approx(1) and found["likeness_beyond_size"] < 0.6


def test_memory_is_worth_nothing_by_patient_and_much_by_nodule():
    nodules = families(200, 0.9)
    by_patient, by_nodule = (run_of(nodules, split) for split in ("patient", "nodule"))
    assert within_folds_auc(by_patient, "memory", resamples=10).value == 0.5
    alone = by_patient.query("view == 'memory'")  # pooled, what knows nothing falls below a half
    assert roc_auc(alone["label"], alone["probability"]) < 0.5
    assert within_folds_auc(by_nodule, "memory", resamples=10).value > 0.8
    size, both = (
        within_folds_auc(by_nodule, view, resamples=10).value
        for view in ("size_only", "size_and_memory")
    )
    assert both > size + 0.05


def test_memory_is_the_siblings_mean_with_one_average_nodule():
    nodules = pd.DataFrame({"nodule_id": list("abcdef"), "patient_id": list("ppqqrr"),
                            "label": [1, 0, 1, 0, 1, 0],
                            "diameter_mm": [9.0, 5, 8, 4, 7, 6]})  # fmt: skip
    table = nodules.assign(repeat=0, fold=[0, 1, 1, 0, 0, 1], view="size_only", probability=0.5)
    found = leakage.with_memory(table, nodules).query("view == 'memory'").set_index("nodule_id")
    # Fold 0 tests a, d, e; training is b (p, 0), c (q, 1), f (r, 0), a third of which is malignant.
    expected = {"a": (0 + 1 / 3) / 2, "d": (1 + 1 / 3) / 2, "e": (0 + 1 / 3) / 2}
    assert found.loc[list("ade"), "probability"].to_dict() == pytest.approx(expected)


def test_only_nodules_with_siblings_stay():
    nodules = families(20, 0.5).iloc[2:]  # the first patient keeps one nodule
    kept = leakage.of_patients_with_several(run_of(nodules, "nodule", folds=3))
    assert set(kept["patient_id"]) == set(nodules["patient_id"]) - {"p0000"}


def test_lidc_siblings_agree_beyond_their_size():
    nodules = lidc.nodules().dropna(subset="label")
    found = leakage.sibling_pairs(nodules)
    assert (found["nodules"], found["patients"]) == (751, 463)
    assert found["patients_with_several"] == 170
    assert 0.65 < found["same_label"] < 0.8
    assert 0.2 < found["likeness_beyond_size"] < found["likeness"] < 0.5


def test_the_interval_over_trainings_is_welchs():
    rng = np.random.default_rng(0)
    one, two = rng.normal(0.9, 0.01, 4).tolist(), rng.normal(0.8, 0.05, 3).tolist()
    found = leakage._over_trainings(one, two)
    expected = stats.ttest_ind(one, two, equal_var=False).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx(tuple(expected), abs=2e-6)
    assert leakage._over_trainings([0.9], [0.8]) is None
