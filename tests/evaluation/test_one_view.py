"""Predictions become arrays by nodule, whatever the order of their rows."""

import numpy as np
import pandas as pd
import pytest

from labkit.errors import InputError
from labkit.evaluation.crossval import read_predictions
from labkit.evaluation.predictions import one_view, rows_of
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
    assert len(rows_of(table, "3")) == 10
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


def test_predictions_are_read_as_they_were_written_each_name_once(tmp_path):
    table = predictions(patients=6, repeats=2)
    table.loc[:3, "patient_id"] = "NA"
    write_csv(tmp_path / "predictions.csv", table)
    found = read_predictions(tmp_path)
    pd.testing.assert_frame_equal(found, table, check_dtype=False)
    assert len({id(name) for name in found["nodule_id"].to_numpy(object)}) <= 24
    assert (found["patient_id"] == "NA").sum() == 4
