"""Size bands hold what they say, and say nothing where there is nothing."""

import numpy as np
import pandas as pd
import pytest

from labkit.evaluation.size import by_size
from labkit.evaluation.statistics import roc_auc, sensitivity_specificity
from tests.evaluation.tables import predictions, refused


def _nodules(table, diameter_mm):
    ids = sorted(table["nodule_id"].unique())
    return pd.DataFrame({"nodule_id": ids, "diameter_mm": diameter_mm})


@pytest.fixture
def run():
    return predictions(patients=90, repeats=2)


@pytest.fixture
def nodules(run):
    return _nodules(run, np.tile([5.0, 7.9, 8.0, 12.0, 15.0, 15.1, 30.0, 31.0, 32.0], 20))


def test_both_ends_belong_to_the_middle_band(run, nodules):
    table = by_size({"MT-CNN": (run, "fused")}, nodules, resamples=50)
    assert table["band"].tolist() == ["under 8 mm", "8 to 15 mm", "over 15 mm", "all sizes"]
    assert table["nodules"].tolist() == [40, 60, 80, 180]


def test_values_are_the_metrics_of_the_band_averaged_over_repeats(run, nodules):
    table = by_size({"MT-CNN": (run, "fused")}, nodules, resamples=50).set_index("band")
    ids = nodules.loc[nodules["diameter_mm"] < 8, "nodule_id"]
    parts = [g for _, g in run[run["nodule_id"].isin(ids)].groupby("repeat")]
    row = table.loc["under 8 mm"]
    assert row["auc"] == pytest.approx(
        np.mean([roc_auc(g["label"], g["probability"]) for g in parts])
    )
    points = [sensitivity_specificity(g["label"], g["probability"]) for g in parts]
    assert row["sensitivity"] == pytest.approx(np.mean([p.sensitivity for p in points]))
    assert row["specificity"] == pytest.approx(np.mean([p.specificity for p in points]))
    assert (table["auc_low"] < table["auc"]).all() and (table["auc"] < table["auc_high"]).all()
    assert row["malignant"] == parts[0]["label"].sum()


def test_bands_with_few_nodules_of_a_class_have_no_interval_and_with_one_class_no_value(run):
    label = run[run["repeat"] == 0].sort_values("nodule_id")["label"].to_numpy()
    mm = np.where(label == 1, 20.0, 5.0)
    mm[np.flatnonzero(label == 0)[:3]] = 20.0  # three benign nodules among the large
    table = by_size({"MT-CNN": (run, "fused")}, _nodules(run, mm), resamples=50)
    rows = table.set_index("band")
    assert np.isfinite(rows.loc["over 15 mm", "auc"])
    assert rows.loc["over 15 mm", ["auc_low", "specificity_high"]].isna().all()
    assert rows.loc["under 8 mm", ["auc", "auc_low", "sensitivity"]].isna().all()
    assert rows.loc["under 8 mm", ["nodules", "malignant"]].tolist() == [87, 0]
    assert rows.loc["8 to 15 mm", ["nodules", "malignant"]].tolist() == [0, 0]
    assert np.isfinite(rows.loc["all sizes", "auc_low"])


def test_siblings_that_are_copies_make_no_band_surer(run, nodules):
    copied = pd.concat([run, run.assign(nodule_id="x" + run["nodule_id"])])
    sizes = pd.concat([nodules, nodules.assign(nodule_id="x" + nodules["nodule_id"])])
    once = by_size({"MT-CNN": (run, "fused")}, nodules, resamples=50)
    again = by_size({"MT-CNN": (copied, "fused")}, sizes, resamples=50)
    for column in ("auc", "auc_low", "auc_high", "sensitivity_low", "specificity_high"):
        assert again[column].to_numpy() == pytest.approx(once[column].to_numpy())


def test_what_does_not_fit_is_refused(run, nodules):
    runs = {"MT-CNN": (run, "fused")}
    refused("no diameter", by_size, runs, nodules.iloc[1:])
    refused("twice", by_size, runs, pd.concat([nodules, nodules]))
    refused("no predictions for view", by_size, {"MT-CNN": (run, "3")}, nodules)
