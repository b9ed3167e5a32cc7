import json

import numpy as np
import pytest

from labkit.annotations import lidc
from labkit.cohorts.cohort import Cohort
from labkit.cohorts.simulated import build_simulated, select
from labkit.errors import InputError


@pytest.fixture(scope="module")
def table():
    return lidc.nodules()


def test_two_builds_are_the_same_whatever_the_jobs(tmp_path):
    folders = [tmp_path / name for name in ("one", "again", "two")]
    for folder, jobs in zip(folders, (1, 1, 2), strict=True):
        build_simulated(folder, seed=4, n_nodules=3, jobs=jobs, progress=False)
    for name in ("nodules.csv", "views.npy", "cubes.npy"):
        first, *others = [(folder / name).read_bytes() for folder in folders]
        assert all(other == first for other in others)
    cohort = Cohort.open(folders[0])
    assert cohort.simulated
    assert len(cohort) >= 3
    meta = json.loads((folders[0] / "cohort.json").read_text())
    assert meta["settings"]["seed"] == 4
    assert meta["settings"]["scene_version"] >= 1
    # A nodule's axial view is the middle of its cube.
    middle = cohort.cubes[:, 31:33].mean(axis=1)
    np.testing.assert_allclose(cohort.views[:, 0, 6:-6, 6:-6].mean(), middle.mean(), atol=15)
    assert cohort.cubes.min() < -700
    assert cohort.cubes.max() > 0


def test_a_nodule_is_the_same_in_every_selection(tmp_path, table):
    patient = table["patient_id"].iloc[40]
    alone = build_simulated(tmp_path / "a", patients=[patient], jobs=1, progress=False)
    others = [patient, table["patient_id"].iloc[2]]
    both = build_simulated(tmp_path / "b", patients=others, jobs=1, progress=False)
    one, two = Cohort.open(alone), Cohort.open(both)
    rows = np.flatnonzero(two.nodules["patient_id"] == patient)
    assert 0 < len(rows) < len(two)
    np.testing.assert_array_equal(two.views[rows], one.views)


def test_a_subset_takes_whole_patients(table):
    some = select(table, seed=1, n_nodules=100)
    assert 100 <= len(some) < 125
    full = table[table["patient_id"].isin(some["patient_id"])]
    assert some["nodule_id"].tolist() == full["nodule_id"].tolist()
    assert select(table, seed=2, n_nodules=100)["nodule_id"].tolist() != some["nodule_id"].tolist()
    assert select(table, seed=1, n_nodules=100).equals(some)
    larger = select(table, seed=1, n_nodules=200)
    assert set(some["nodule_id"]) <= set(larger["nodule_id"])


def test_patients_can_be_chosen_and_left_out(table):
    ids = table["patient_id"].unique()[:5]
    chosen, rest = select(table, patients=ids), select(table, exclude_patients=ids)
    assert set(chosen["patient_id"]) == set(ids)
    assert len(chosen) + len(rest) == len(table) == 1192
    assert select(table, labelled_only=True)["label"].isin([0, 1]).all()


def test_a_selection_without_nodules_says_so(table, tmp_path):
    with pytest.raises(InputError, match="none of the patients"):
        select(table, patients=["NOBODY"])
    with pytest.raises(InputError, match="1 or more"):
        select(table, n_nodules=0)
    with pytest.raises(InputError, match="no nodule is left"):
        select(table, exclude_patients=table["patient_id"])
    with pytest.raises(InputError, match="jobs is 0"):
        build_simulated(tmp_path / "new", jobs=0, progress=False)
    with pytest.raises(InputError, match="seed is -1"):
        build_simulated(tmp_path / "new", seed=-1, progress=False)
    (tmp_path / "letters").write_text("mine")
    with pytest.raises(InputError, match="name a new folder"):
        build_simulated(tmp_path, n_nodules=1, progress=False)
