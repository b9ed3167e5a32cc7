"""Predictions become arrays by nodule, whatever the order of their rows."""

import numpy as np
import pandas as pd
import pytest

from labkit.errors import InputError
from labkit.evaluation import predictions as module
from labkit.evaluation.predictions import one_view, read_predictions, select_view
from labkit.io import write_csv
from tests.evaluation.tables import predictions


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


def test_views_may_have_been_read_as_numbers():
    table = predictions(patients=5).assign(view=3)
    assert len(select_view(table, "3")) == 10
    with pytest.raises(InputError, match="no predictions for view 'fused'; there are 3"):
        one_view(table, "fused")


@pytest.mark.parametrize("spoil", ["dropped", "no number"])
def test_a_nodule_that_a_repeat_lacks_is_an_error(spoil):
    table = predictions(patients=5, repeats=2)
    if spoil == "dropped":
        table = table.iloc[1:]
    else:
        table.loc[0, "probability"] = np.nan
    with pytest.raises(InputError, match="lack a prediction"):
        one_view(table, "fused")


def test_a_nodule_predicted_twice_is_an_error():
    table = predictions(patients=5)
    with pytest.raises(InputError, match="predicted twice"):
        one_view(pd.concat([table, table.iloc[:1]]), "fused")


@pytest.mark.parametrize("rows_at_once", [7, 1_000_000])
def test_predictions_are_read_as_written_each_name_once_all_or_one_view(
    tmp_path, monkeypatch, rows_at_once
):
    table = predictions(patients=6, repeats=2)
    table.loc[:3, "patient_id"] = "NA"
    table = pd.concat([table.assign(view="0"), table], ignore_index=True)
    write_csv(tmp_path / "predictions.csv", table)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", rows_at_once)
    found = read_predictions(tmp_path)
    pd.testing.assert_frame_equal(found, table, check_dtype=False)
    ids = found["nodule_id"]  # of which each is in memory once
    assert ids.dtype != object or ids.map(id).nunique() == ids.nunique()
    assert (found["patient_id"] == "NA").sum() == 8
    for view in ("0", "fused", "none of them"):
        wanted = found[found["view"] == view].reset_index(drop=True)
        alone = read_predictions(tmp_path, view)
        pd.testing.assert_frame_equal(alone, wanted, check_exact=True)
