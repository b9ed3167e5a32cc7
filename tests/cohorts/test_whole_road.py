"""From DICOM to views: a simulated scan goes the way of a real one, and its truth is known."""

import numpy as np
import pytest

from labkit.annotations import lidc
from labkit.cohorts.build import build_lidc
from labkit.cohorts.cohort import Cohort
from labkit.cohorts.simulated import build_simulated
from labkit.imaging import dicom
from labkit.simulate import write_dicom
from labkit.simulate.scan import series_named
from labkit.simulate.scanner import truth
from labkit.simulate.scene import scene_for_series

# The patient with the fewest slices; four nodules, all further inside than a cube reaches.
PATIENT, SEED = "LIDC-IDRI-0171", 3


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


def test_the_cohort_says_that_it_is_simulated(scan, from_dicom):
    assert from_dicom.simulated
    assert "simulated" in from_dicom.meta["source"]
    (own,) = dicom.find_series(scan)
    assert from_dicom.meta["settings"]["simulated_series"] == [own]
    assert set(from_dicom.nodules["patient_id"]) == {PATIENT}


def test_a_scan_read_from_dicom_gives_the_cubes_of_the_simulated_cohort(from_dicom, tmp_path):
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
    volume = write_dicom.read_scan(scan)
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


def test_the_true_lungs_hold_lung(scene, scan):
    volume = write_dicom.read_scan(scan)
    true = truth(scene)
    lung = true.lung & (true.nodules == 0)
    hu = volume.voxels[lung]
    assert -960 < np.median(hu) < -650
    assert (hu < -500).mean() > 0.8
    liters = lung.sum() * np.prod(volume.spacing_xyz_mm) / 1e6
    assert 1.5 < liters < 8
    # Around the lungs is a wall: what touches them from outside is mostly no air.
    beside = np.zeros_like(true.lung)
    beside[:, :, 6:] |= true.lung[:, :, :-6]
    beside[:, :, :-6] |= true.lung[:, :, 6:]
    beside &= ~true.lung
    assert (volume.voxels[beside] > -300).mean() > 0.7


def test_lungs_found_in_the_scan_are_the_true_ones(scan):
    lungs = pytest.importorskip("labkit.imaging.lungs")
    found = lungs.segment(write_dicom.read_scan(scan))
    true = dicom.read_image(scan / "lung.mha").voxels > 0
    nodules = dicom.read_image(scan / "nodules.mha").voxels > 0
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.9
    assert found[nodules].mean() > 0.9
