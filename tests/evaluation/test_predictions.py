"""Predictions become arrays by nodule, whatever the order of their rows."""

import tarfile

import numpy as np
import pandas as pd
import pytest

from labkit import io, paths
from labkit.evaluation import crossval, statistics
from labkit.evaluation.predictions import (
    convergence,
    one_view,
    pack,
    read_predictions,
    read_threshold,
    run_folder,
    select_view,
)
from labkit.io import read_json, write_csv, write_json
from tests.evaluation.tables import predictions, refused


def test_rows_in_any_order_give_nodules_in_the_order_of_their_names():
    table = predictions(patients=12, repeats=3)
    of = one_view(table.sample(frac=1, random_state=0), "fused")
    assert of.nodules.tolist() == sorted(table["nodule_id"].unique())
    for repeat in range(3):
        part = table[table["repeat"] == repeat].set_index("nodule_id").loc[of.nodules]
        np.testing.assert_array_equal(of.probabilities[repeat], part["probability"])
        np.testing.assert_array_equal(of.folds[repeat], part["fold"])
        np.testing.assert_array_equal(of.labels, part["label"])
        np.testing.assert_array_equal(of.patients, part["patient_id"])


def test_views_may_have_been_read_as_numbers_and_what_is_missing_or_twice_there_is_refused():
    assert len(select_view(predictions(patients=5).assign(view=3), "3")) == 10
    table = predictions(patients=5, repeats=2)
    lost = table.assign(probability=table["probability"].mask(table.index == 0))
    for words, spoilt in (
        ("no predictions for view 'fused'; there are 3", table.assign(view=3)),
        ("lack a prediction", table.iloc[1:]), ("lack a prediction", lost),
        ("predicted twice", pd.concat([table, table.iloc[:1]])),
        ("lack the columns fold", table.drop(columns="fold")),
    ):  # fmt: skip
        refused(words, one_view, spoilt, "fused")


@pytest.mark.parametrize("rows_at_once", [7, 1_000_000])
def test_predictions_are_read_as_written_each_name_once_all_or_one_view(
    tmp_path, monkeypatch, rows_at_once
):
    table = predictions(patients=6, repeats=2)
    table.loc[table["nodule_id"] < "n004", "patient_id"] = "NA"
    table = pd.concat([table.assign(view="0"), table], ignore_index=True)
    write_csv(tmp_path / "predictions.csv", table)
    monkeypatch.setattr(io, "_ROWS_AT_ONCE", rows_at_once)
    found = read_predictions(tmp_path)
    pd.testing.assert_frame_equal(found, table, check_dtype=False)
    ids = found["nodule_id"]  # of which each is in memory once
    assert ids.dtype != object or ids.map(id).nunique() == ids.nunique()
    assert (found["patient_id"] == "NA").sum() == 16
    assert found["probability"].tolist() == table["probability"].tolist()  # to the last bit
    for view in ("0", "fused", "none of them"):
        wanted = found[found["view"] == view].reset_index(drop=True)
        alone = read_predictions(tmp_path, view)
        pd.testing.assert_frame_equal(alone, wanted, check_exact=True)


@pytest.mark.parametrize(
    ("names", "message"),
    [("01 1 1.10 1.1 NA 1e5", None), ("P01 P02 p01 4 5 6", "'P01' and 'p01' are most likely one"),
     ("1.36E+30 2 3 4 5 6", "a spreadsheet made of an id")],
)  # fmt: skip
def test_a_patient_is_one_and_called_as_written(tmp_path, names, message):
    table = predictions(patients=6)
    table["patient_id"] = np.repeat(names.split(), 2)
    write_csv(tmp_path / "predictions.csv", table)
    if message is None:
        assert read_predictions(tmp_path)["patient_id"].tolist() == table["patient_id"].tolist()
    else:
        refused(message, read_predictions, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [(lambda t: t.iloc[:0], "or there are none"),
     (lambda t: pd.concat([t, t.assign(view="0", label=1 - t["label"])]), "both labels"),
     (lambda t: pd.concat([t, t.assign(view="0", patient_id="p")]), "of two patients"),
     (lambda t: pd.concat([t, t.assign(view="0", fold=1 - t["fold"])]), "two folds"),
     (lambda t: pd.concat([t, t.iloc[1:].assign(view="0")]), "views differ in their nodules"),
     (lambda t: t.assign(probability=4 * t["probability"] - 2), "write them from 0 to 1")],
)  # fmt: skip
def test_predictions_that_contradict_themselves_are_refused(tmp_path, change, message):
    write_csv(tmp_path / "predictions.csv", change(predictions(patients=8, folds=2)))
    refused(message, read_predictions, tmp_path)


# A packed run is the run: what was trained for hours is judged again in seconds.


@pytest.fixture
def finished(tmp_path):
    """A finished run of two networks, with probabilities as float32 networks give them."""
    folder = tmp_path / "mt"
    table = predictions(patients=20, folds=2)
    network = table.assign(view="0", probability=table["probability"].astype(np.float32))
    write_csv(folder / "predictions.csv", pd.concat([network, table], ignore_index=True))
    curves = pd.DataFrame({"epoch": [0, 1], "learning_rate": 1e-5, "val_cls": [2 / 3, 1 / 3]})
    write_csv(folder / "history.csv", pd.concat(
        curves.assign(repeat=0, fold=fold, view=0, best_epoch=1) for fold in (0, 1)
    ))  # fmt: skip
    for fold in (0, 1):
        left = {"val_auc": 0.9, "prior_shift": 0.0, "history": [], "test_probability": [0.5]}
        of_val = {"val_nodule_id": ["a", "b"], "val_probability": [0.1 + 0.2, 2 / 3]}
        write_json(crossval.network_file(folder, (0, fold, 0)), left | of_val)
    of = {"config": {"epochs": 2, "patience": 1}, "plan": {"folds": 2}, "started": "today"}
    of["cohort"] = {"sha256": {"nodules.csv": "5e1f"}}
    write_json(folder / "run.json", of)
    metrics = statistics.summarise(table, 50)
    write_json(folder / "metrics.json", of | {"threshold": 0.25, "metrics": metrics})
    return folder


def test_a_packed_run_is_the_run_to_the_last_bit(finished, tmp_path):
    file, again = tmp_path / "packed" / "mt.tar.xz", tmp_path / "again.tar.xz"
    pack(finished, file)
    pack(file, again)
    assert file.read_bytes() == again.read_bytes()
    pd.testing.assert_frame_equal(
        read_predictions(file), read_predictions(finished), check_exact=True
    )
    one = read_predictions(file, "0")["probability"].to_numpy()
    np.testing.assert_array_equal(one, one.astype(np.float32))
    assert read_threshold(file) == 0.25
    assert convergence(file) == convergence(finished)
    assert convergence(file)["out_of_epochs"] == 2
    with run_folder(file) as folder:
        metrics = read_json(folder / "metrics.json", "a run")
        assert metrics["convergence"]["networks"] == 2
        assert metrics["cohort"]["sha256"]["nodules.csv"] == "5e1f"
        curves = pd.read_csv(folder / "history.csv")
        assert curves["val_cls"].tolist() == [0.666667, 0.333333] * 2
    one, left = (crossval.read_networks(of, [(0, 1, 0)])[0, 1, 0] for of in (file, finished))
    assert one == {k: v for k, v in left.items() if k not in ("history", "test_probability")}
    refused("lacks the network 'repeat0_fold2_view0'", crossval.read_networks, file, [(0, 2, 0)])
    fused = select_view(read_predictions(file), "fused")
    assert statistics.summarise(fused, 50)["fused"] == metrics["metrics"]["fused"]


def test_what_is_no_packed_run_or_unfinished_is_refused(finished, tmp_path):
    file, other = tmp_path / "mt.tar.xz", tmp_path / "other.tar.xz"
    pack(finished, file)
    content = file.read_bytes()
    with tarfile.open(other, "w:xz") as archive:
        archive.add(finished / "run.json", "../run.json")
    for damaged in (content[: len(content) // 2], other.read_bytes(), b"no", b""):
        file.write_bytes(damaged)
        refused("mt.tar.xz: no packed run, or damaged", read_predictions, file)
    (finished / "history.csv").unlink()
    refused("history.csv: missing; the run is not finished", pack, finished, file)
    assert file.read_bytes() == b"", "a run that cannot be packed leaves the file as it was"


@pytest.mark.parametrize(
    "file", sorted(paths.results().glob("predictions/*.tar.xz")), ids=lambda file: file.name
)
def test_a_table_is_computed_again_from_what_is_committed(file):
    with run_folder(file) as folder:
        metrics = read_json(folder / "metrics.json", "a run")
        table = read_predictions(folder, "fused")
        cut = read_threshold(folder)
    again = statistics.summarise(table, threshold=cut)["fused"]
    assert {name: again[name] for name in metrics["metrics"]["fused"]} == metrics["metrics"][
        "fused"
    ]
    networks = table[["repeat", "fold"]].drop_duplicates()
    assert convergence(file)["networks"] == len(networks) * len(metrics["config"]["views"])
