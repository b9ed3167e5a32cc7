"""Nodules from a file of cubes are found again in LIDC-IDRI, and others are not."""

import numpy as np
import pandas as pd
import pytest

from labkit.annotations import lidc


@pytest.fixture(scope="module")
def as_in_a_file():
    """300 of LIDC's nodules under a file's ids, with their readers' ratings in another order."""
    rated = lidc.annotations().groupby("nodule_id")["malignancy"].agg(list)
    table = lidc.nodules(min_readers=2).iloc[::3].head(300).reset_index(drop=True)
    rng = np.random.default_rng(0)
    mixed = ["|".join(map(str, rng.permutation(rated[own]))) for own in table["nodule_id"]]
    number = table["nodule_id"].str.extract(r"-n(\d+)$", expand=False)
    ids = table["patient_id"] + "/nodule-" + number
    return table.assign(own=table["nodule_id"], nodule_id=ids, ratings=mixed)


def test_every_nodule_is_found_by_its_series_number_and_ratings(as_in_a_file):
    assert lidc.lidc_ids(as_in_a_file).tolist() == as_in_a_file["own"].tolist()
    shuffled = as_in_a_file.sample(frac=1, random_state=0)
    assert (lidc.lidc_ids(shuffled) == shuffled["own"]).all()


def test_a_reader_who_is_missing_does_not_hide_a_nodule(as_in_a_file):
    fewer = as_in_a_file.assign(ratings=as_in_a_file["ratings"].str.partition("|")[2])
    assert (lidc.lidc_ids(fewer) == as_in_a_file["own"]).all()


@pytest.mark.parametrize(
    "wrong",
    [{"ratings": "1|1|1|1|1|1|1|1|1"}, {"ratings": "no"}, {"nodule_id": "a/nodule-99"},
     {"nodule_id": "a"}, {"series_uid": "1.2.3"}],
)  # fmt: skip
def test_what_contradicts_is_no_twin(as_in_a_file, wrong):
    assert lidc.lidc_ids(as_in_a_file.head(5).assign(**wrong)).isna().all()


def test_a_table_without_ratings_has_no_twins():
    table = pd.DataFrame({"nodule_id": ["a/nodule-0"], "series_uid": ["1.2.3"]})
    assert lidc.lidc_ids(table).isna().all()


@pytest.mark.real
def test_all_nodules_of_the_real_cubes_are_lidcs(real_cubes):
    with np.load(real_cubes) as file:
        table = pd.DataFrame({name: file[name] for name in (*lidc.NEEDED, "diameter_mm")})
    found = lidc.lidc_ids(table)
    assert found.notna().all() and found.is_unique
    known = lidc.annotations().groupby("nodule_id")["diameter_mm"].mean()
    assert np.corrcoef(np.log(table["diameter_mm"]), np.log(found.map(known)))[0, 1] > 0.95
