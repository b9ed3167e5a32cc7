"""What is kept is used while it is what would be made now, and made again when it is not."""

import dataclasses
import json
import os
from functools import lru_cache

import numpy as np
import pytest

from labkit import io
from labkit.annotations import lidc
from labkit.cohorts import simulated
from labkit.cohorts import simulated as simulate_build
from labkit.errors import InputError
from labkit.simulate.scan import scan_of
from labkit.simulate.scanner import truth, whole_scan
from labkit.simulate.scene import scene_of

PATIENT = "LIDC-IDRI-0171"


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    # Every test is a process of its own, as far as what was checked before goes.
    monkeypatch.setattr(simulated, "_verified", set())
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


def damage(file, at=-3):
    """Change one byte, and neither the size nor the time."""
    state = file.stat()
    content = bytearray(file.read_bytes())
    content[at] ^= 0x40
    file.write_bytes(content)

    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_cohort_is_made_once_and_again_when_damaged_or_stale(builds, capsys, monkeypatch):
    first = simulated.simulated_cohort(1, progress=False)
    images = np.array(first.views)
    assert simulated.simulated_cohort(1, progress=False).meta == first.meta
    assert len(builds) == 1
    assert capsys.readouterr().out == ""

    monkeypatch.setattr(simulated, "_verified", set())
    damage(first.folder / "cubes.npy")
    again = simulated.simulated_cohort(1, progress=False)
    assert len(builds) == 2
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and "cubes.npy: changed or damaged" in said[0]
    np.testing.assert_array_equal(again.views, images)

    (first.folder / "views.npy").unlink()
    simulated.simulated_cohort(1, progress=False)
    assert len(builds) == 3
    assert "missing" in capsys.readouterr().out

    version = simulate_build.SCENE_VERSION
    monkeypatch.setattr(simulate_build, "SCENE_VERSION", version + 1)
    newer = simulated.simulated_cohort(1, progress=False)
    assert len(builds) == 4
    assert f"scene_version {version}, now {version + 1}" in capsys.readouterr().out
    assert newer.meta["settings"]["scene_version"] == version + 1
    simulated.simulated_cohort(1, progress=False)
    assert len(builds) == 4


def test_a_cohort_of_other_rules_under_the_name_is_not_taken(builds, capsys):
    folder = simulated.simulated_cohort(1, progress=False).folder
    simulate_build.build_simulated(
        folder, n_nodules=1, labelled_only=True, min_readers=4, jobs=1, progress=False
    )
    cohort = simulated.simulated_cohort(1, progress=False)
    assert "made with min_readers 4, now 3" in capsys.readouterr().out
    assert cohort.meta["settings"]["min_readers"] == 3
    assert len(builds) == 2


def test_files_are_checked_once_a_process_and_when_they_change(builds, monkeypatch):
    checked = []
    real = io.sha256
    monkeypatch.setattr(simulated, "sha256", lambda path: checked.append(path.name) or real(path))
    folder = simulated.simulated_cohort(1, progress=False).folder
    checked.clear()
    simulated.simulated_cohort(1, progress=False)
    assert sorted(checked) == ["cubes.npy", "nodules.csv", "views.npy"]
    simulated.simulated_cohort(1, progress=False)
    assert len(checked) == 3
    (folder / "views.npy").touch()
    simulated.simulated_cohort(1, progress=False)
    assert checked[3:] == ["views.npy"]
    assert len(builds) == 1


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


def test_a_scan_is_kept_with_its_truth(few_slices, runs):
    volume, true = simulated.simulated_scan(PATIENT, seed=2, progress=False)
    uid = lidc.scans().set_index("patient_id").loc[PATIENT, "series_uid"]
    scene = few_slices(uid, 2)
    np.testing.assert_array_equal(volume.voxels, whole_scan(scene).voxels)
    np.testing.assert_array_equal(true.lung, truth(scene).lung)
    np.testing.assert_array_equal(true.nodules, truth(scene).nodules)
    assert volume.series_uid == uid
    assert volume.origin_xyz_mm == whole_scan(scene).origin_xyz_mm
    for array in (volume.voxels, true.lung, true.nodules):
        assert isinstance(array.base, np.memmap) or isinstance(array, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0, 0] = 1
    # The nodule is where the table has it.
    nodule = lidc.nodules().set_index("nodule_id").loc[f"{PATIENT}-s1-n0"]
    assert np.isfinite(lidc.center_xyz_mm(nodule, volume)).all()
    again, _ = simulated.simulated_scan(uid, seed=2, progress=False)
    np.testing.assert_array_equal(again.voxels, volume.voxels)
    assert few_slices.made == [2, 2]  # once to keep, once to compare
    assert [p.name for p in (runs / "scans").iterdir()] == [f"{PATIENT}-s1_seed2"]


def test_a_scan_is_made_again_when_damaged_or_stale(few_slices, runs, capsys, monkeypatch):
    volume, _ = simulated.simulated_scan(PATIENT, progress=False)
    voxels = np.array(volume.voxels)
    folder = runs / "scans" / f"{PATIENT}-s1_seed0"
    for spoil, why in (
        (lambda: damage(folder / "lung.npy"), "lung.npy: changed or damaged"),
        (lambda: (folder / "nodules.npy").unlink(), "missing"),
        (lambda: (folder / "scan.json").write_text("{"), "not readable as JSON"),
        (lambda: (folder / "scan.json").write_text("[]"), "not that of a simulated scan"),
        (lambda: (folder / "scan.json").write_text('{"files": 3}'), "not that of"),
        (lambda: monkeypatch.setattr(simulated, "SCENE_VERSION", 99), "now 99"),
    ):
        before = len(few_slices.made)
        spoil()
        monkeypatch.setattr(simulated, "_verified", set())
        volume, _ = simulated.simulated_scan(PATIENT, progress=False)
        assert len(few_slices.made) == before + 1
        said = capsys.readouterr().out.splitlines()
        assert len(said) == 1 and why in said[0]
        np.testing.assert_array_equal(volume.voxels, voxels)
    assert json.loads((folder / "scan.json").read_text())["settings"]["scene_version"] == 99


def test_an_interrupted_scan_leaves_nothing(few_slices, runs, monkeypatch):
    def stopped(scene):
        raise KeyboardInterrupt

    monkeypatch.setattr(simulated, "truth", stopped)
    with pytest.raises(KeyboardInterrupt):
        simulated.simulated_scan(PATIENT, progress=False)
    assert list((runs / "scans").iterdir()) == []


def test_scans_that_are_not_there_are_refused(runs):
    with pytest.raises(InputError, match="no such patient"):
        simulated.simulated_scan("LIDC-IDRI-5000")
    with pytest.raises(InputError, match="has 2 scans"):
        simulated.simulated_scan("LIDC-IDRI-0132")
    with pytest.raises(InputError, match="seed is -1"):
        simulated.simulated_scan(PATIENT, seed=-1)
    assert not (runs / "scans").exists()
