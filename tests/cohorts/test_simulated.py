"""Simulated cohorts: the same for the same seed, and made again only when that is needed."""

import dataclasses
import json
from functools import lru_cache

import numpy as np
import pytest

from labkit.annotations import lidc
from labkit.cohorts import Cohort, simulated
from labkit.cohorts.build import build_lidc
from labkit.cohorts.cohort import choose_patients
from labkit.cohorts.simulated import build_simulated, select
from labkit.errors import InputError
from labkit.imaging import dicom
from labkit.simulate import write_dicom
from labkit.simulate.scan import scan_of, series_named
from labkit.simulate.scene import scene_for_series, scene_of

# The patient with the fewest slices; four nodules, all further inside than a cube reaches.
PATIENT = "LIDC-IDRI-0171"


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    return tmp_path


@pytest.fixture
def builds(monkeypatch):
    """How often a cohort was made."""
    made = []
    build = simulated.build_simulated

    def counted(*args, **options):
        made.append(args)
        return build(*args, jobs=1, **options)

    monkeypatch.setattr(simulated, "build_simulated", counted)
    return made


def damage(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 0x40
    file.write_bytes(content)


def test_a_cohort_is_made_once_and_again_when_damaged_or_stale(builds, capsys, monkeypatch):
    first = simulated.simulated_cohort(1, progress=False)
    images = np.array(first.views)
    assert simulated.simulated_cohort(1, progress=False).meta == first.meta
    assert len(builds) == 1
    assert capsys.readouterr().out == ""

    version = simulated.SCENE_VERSION
    for spoil, why in (
        (lambda: damage(first.folder / "cubes.npy", -3), "cubes.npy: changed"),
        (lambda: (first.folder / "views.npy").unlink(), "views.npy: missing"),
        (lambda: monkeypatch.setattr(simulated, "SCENE_VERSION", 99), f"{version}, now 99"),
    ):
        spoil()
        again = simulated.simulated_cohort(1, progress=False)
        (said,) = capsys.readouterr().out.splitlines()
        assert why in said
        np.testing.assert_array_equal(again.views, images)
    assert again.meta["settings"]["scene_version"] == 99
    simulated.simulated_cohort(1, progress=False)
    assert len(builds) == 4


def test_a_cohort_of_other_rules_under_the_name_is_not_taken(builds, capsys):
    folder = simulated.simulated_cohort(1, progress=False).folder
    build_simulated(folder, n_nodules=1, labelled_only=True, min_readers=4, jobs=1, progress=False)
    cohort = simulated.simulated_cohort(1, progress=False)
    assert "made with min_readers 4, now 3" in capsys.readouterr().out
    assert cohort.meta["settings"]["min_readers"] == 3 and len(builds) == 2


@lru_cache
def short_scene(series_uid, seed):
    scan = scan_of(series_uid)
    first = float(scan.z_mm(19, 20)[0])
    return scene_of(dataclasses.replace(scan, first_z_mm=first, slices=3), seed)


@pytest.fixture
def few_slices(monkeypatch):
    """Whole scans of three slices: the folder is what is tested here."""
    made = []

    def scene(series_uid, seed):
        made.append(seed)
        return short_scene(series_uid, seed)

    monkeypatch.setattr(simulated, "scene_for_series", scene)
    scene.made = made
    return scene


def test_a_scan_is_kept_with_its_truth_and_made_again_when_damaged_or_stale(
    few_slices, runs, capsys, monkeypatch
):
    volume, true = simulated.simulated_scan(PATIENT, seed=2, progress=False)
    uid = lidc.scans().set_index("patient_id").loc[PATIENT, "series_uid"]
    assert volume.series_uid == uid
    # The nodule is where the table has it.
    nodule = lidc.nodules().set_index("nodule_id").loc[f"{PATIENT}-s1-n0"]
    assert np.isfinite(lidc.center_xyz_mm(nodule, volume)).all()
    (file,) = (runs / "scans").iterdir()
    for spoil, why in (
        (lambda: None, ""),
        (lambda: damage(file, 600_000), "CRC"),
        (lambda: file.write_bytes(file.read_bytes()[:-100]), "zip"),
        (lambda: np.savez(file, settings="{}"), "made with scene_version not set, now"),
        (lambda: monkeypatch.setattr(simulated, "SCENE_VERSION", 99), "now 99"),
    ):
        before = len(few_slices.made)
        spoil()
        again, also = simulated.simulated_scan(uid, seed=2, progress=False)
        said = capsys.readouterr().out
        assert len(few_slices.made) - before == said.count("\n") == bool(why) and why in said
        for kept, made in ((again, volume), (also, true)):
            for name, value in vars(made).items():
                np.testing.assert_array_equal(getattr(kept, name), value)


@pytest.mark.parametrize(
    ("scan", "seed", "message"),
    [("LIDC-IDRI-5000", 0, "no such patient"), ("LIDC-IDRI-0132", 0, "has 2 scans"),
     (PATIENT, -1, "seed is -1")],
)  # fmt: skip
def test_scans_that_are_not_there_are_refused(runs, scan, seed, message):
    with pytest.raises(InputError, match=message):
        simulated.simulated_scan(scan, seed=seed)
    assert not (runs / "scans").exists()


# --- the cohort of a selection ---------------------------------------------------------------


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


def test_a_subset_takes_whole_patients_who_can_be_chosen_and_left_out(table):
    some = select(table, seed=1, n_nodules=100)
    assert 100 <= len(some) < 125
    full = table[table["patient_id"].isin(some["patient_id"])]
    assert some["nodule_id"].tolist() == full["nodule_id"].tolist()
    assert select(table, seed=2, n_nodules=100)["nodule_id"].tolist() != some["nodule_id"].tolist()
    assert set(some["nodule_id"]) <= set(select(table, seed=1, n_nodules=200)["nodule_id"])
    ids = table["patient_id"].unique()[:5]
    (chosen, _), (rest, _) = (choose_patients(table, *c, "") for c in ((ids, None), (None, ids)))
    assert set(chosen["patient_id"]) == set(ids)
    assert len(chosen) + len(rest) == len(table) == 1192
    assert select(table, labelled_only=True)["label"].isin([0, 1]).all()


@pytest.mark.parametrize(
    ("choice", "message"),
    [({"patients": ["NOBODY"]}, "no such patient: 'NOBODY'"), ({"n_nodules": 0}, "1 or more"),
     ({"exclude_patients": lidc.scans()["patient_id"]}, "no nodule is left"),
     ({"jobs": 0}, "jobs is 0"), ({"seed": -1}, "seed is -1")],
)  # fmt: skip
def test_a_selection_without_nodules_says_so(tmp_path, choice, message):
    with pytest.raises(InputError, match=message):
        build_simulated(tmp_path / "new", progress=False, **choice)
    assert list(tmp_path.iterdir()) == []


# --- from DICOM to views: a simulated scan goes the way of a real one, and its truth is known ----

SEED = 3


@pytest.fixture(scope="module")
def scene():
    return scene_for_series(series_named(PATIENT), SEED)


@pytest.fixture(scope="module")
def scan(scene, tmp_path_factory):
    out = tmp_path_factory.mktemp("dicom") / PATIENT
    return write_dicom.write_scan(scene, out, truth=True, progress=False)


@pytest.fixture(scope="module")
def from_dicom(scan, tmp_path_factory):
    out = tmp_path_factory.mktemp("cohorts") / "dicom"
    report = build_lidc(scan, out, patients=[PATIENT], progress=False)
    assert report.scans["status"].tolist() == ["built"]
    return Cohort.open(out)


def test_a_scan_read_from_dicom_gives_the_cubes_of_the_simulated_cohort(from_dicom, tmp_path):
    assert from_dicom.simulated and "simulated" in from_dicom.meta["source"]
    out = build_simulated(tmp_path / "crops", seed=SEED, patients=[PATIENT], jobs=1, progress=False)
    crops = Cohort.open(out)
    assert crops.nodules["nodule_id"].tolist() == from_dicom.nodules["nodule_id"].tolist()
    cubes, views = (
        [getattr(c, name).astype(int) for c in (crops, from_dicom)] for name in ("cubes", "views")
    )
    # The 64 pixels that the networks see; only rounding to whole HU can differ there.
    inner = [v[..., 6:-6, 6:-6] for v in views]
    for one, other in (cubes, inner):
        assert np.abs(one - other).max() <= 1
        assert (one != other).mean() < 0.01
    # The rim is near the crop's end, where a spline through thick slices still feels it.
    assert np.abs(views[0] - views[1]).max() < 60


def test_the_true_nodules_lie_in_the_middle_of_their_cubes(scene, scan, from_dicom):
    volume = dataclasses.replace(dicom.read_series(scan), series_uid=series_named(PATIENT))
    mask = dicom.read_image(scan / "nodules.mha")
    np.testing.assert_allclose(mask.origin_xyz_mm, volume.origin_xyz_mm, atol=1e-5)
    number = {nodule.nodule_id: i for i, nodule in enumerate(scene.scan.findings, start=1)}
    for row, nodule in from_dicom.nodules.iterrows():
        inside = np.argwhere(mask.voxels == number[nodule["nodule_id"]])
        true_center = volume.world_from_index(inside.mean(axis=0))
        # The table's centre is the mean of the readers', the mask where half of them agree.
        off = np.abs(true_center - lidc.center_xyz_mm(nodule, volume))
        assert off[:2].max() < 1.0
        assert off[2] < scene.scan.slice_spacing_mm / 2
        volume_mm3 = len(inside) * float(np.prod(volume.spacing_xyz_mm))
        assert 0.6 < volume_mm3 / nodule["volume_mm3"] < 1.5
        middle = from_dicom.cubes[row, 30:34, 30:34, 30:34]
        lung = np.percentile(from_dicom.cubes[row], 20)
        assert np.median(middle) > lung + 150
