"""Committed measurements are read as they were written, and other files are left alone."""

import copy

import pytest

from labkit import paths
from labkit.errors import InputError
from labkit.io import write_json
from labkit.paper import results

METRIC = {"value": 0.9, "low": 0.85, "high": 0.93}
VIEW = {"nodules": 479, **dict.fromkeys(("auc", "sensitivity", "specificity"), METRIC)}
RUN = {
    "cohort": {"name": "real_cubes", "simulated": False},
    "config": {"epochs": 40},
    "plan": {"folds": 10, "repeats": 1, "split": "patient"},
    "hardware": {"device": "CPU, 2 threads, bf16"},
    "started": "2026-01-02T03:04:05+00:00",
    "metrics": {"0": VIEW, "fused": VIEW, "size_only": VIEW},
}
COMPARISON = {"auc_difference": {"value": 0.01, "low": -0.01, "high": 0.03}}
RESULT = {
    "about": "a test",
    "runs": {"ST-CNN": RUN, "MT-CNN": copy.deepcopy(RUN)},
    "comparisons": {"MT-CNN less ST-CNN": COMPARISON},
}


def test_every_method_has_a_row_and_size_only_one(tmp_path):
    write_json(tmp_path / "real_cubes.json", RESULT)
    table = results.table(folder=tmp_path)
    assert table["method"].tolist() == ["ST-CNN", "MT-CNN", "size only"]
    row = table.iloc[0]
    assert row["auc"] == "0.900 (0.850 to 0.930)"
    assert row["images"] == "real_cubes (real)"
    assert (row["date"], row["device"]) == ("2026-01-02", "CPU, 2 threads, bf16")
    assert row["protocol"] == "1 x 10 folds by patient, at most 40 epochs"


def test_a_run_without_diameters_has_no_size_only(tmp_path):
    without = copy.deepcopy(RESULT)
    for run in without["runs"].values():
        del run["metrics"]["size_only"]
    write_json(tmp_path / "a.json", without)
    assert results.table(folder=tmp_path)["method"].tolist() == ["ST-CNN", "MT-CNN"]


def test_comparisons_carry_the_name_of_their_file(tmp_path):
    write_json(tmp_path / "real_cubes.json", RESULT)
    found = results.comparisons(folder=tmp_path)
    assert found == {"real_cubes: MT-CNN less ST-CNN": COMPARISON}


def test_other_measurements_and_other_names_are_passed_over(tmp_path):
    write_json(tmp_path / "bench.json", {"seconds": 1})
    write_json(tmp_path / "list.json", [1, 2])
    write_json(tmp_path / "simulated.json", RESULT)
    assert results.table("real_*.json", tmp_path).empty
    assert len(results.table(folder=tmp_path)) == 3


def test_nothing_there_yet_is_an_empty_table(tmp_path):
    table = results.table(folder=tmp_path)
    assert table.empty
    assert tuple(table.columns) == results.COLUMNS
    assert results.comparisons(folder=tmp_path) == {}


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "real.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"real\.json"):
        results.table(folder=tmp_path)


def test_what_is_committed_can_be_read():
    table = results.table(folder=paths.results())
    assert {"ST-CNN", "MT-CNN", "size only"} <= set(table["method"])
