"""Views of many candidates at once: those of one candidate at a time, whatever the scan's grid."""

import re

import numpy as np
import pytest
from scipy.ndimage import spline_filter

from labkit.cohorts.candidates import as_u8, outside, views_u8, within
from labkit.errors import InputError
from labkit.imaging import views as many
from labkit.imaging.views import PAD, coefficients, nine_views
from labkit.imaging.volume import Volume
from tests.cohorts.luna_phantom import FLIPPED, SAGITTAL, STRAIGHT, TISSUE, Phantom, oblique

# --- the spline's coefficients ------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 70), (3, 65, 200), (130, 2, 5)])
def test_coefficients_are_those_of_scipy(shape):
    voxels = np.random.default_rng(0).integers(-1000, 1500, shape).astype(np.int16)
    ours = coefficients(voxels)[PAD:-PAD, PAD:-PAD, PAD:-PAD]
    theirs = spline_filter(voxels.astype(float), order=3, mode="mirror")
    np.testing.assert_allclose(ours, theirs, atol=0.05)


def test_coefficients_go_on_as_a_mirror_image():
    for n in (1, 2, 3, 9):
        found = coefficients(np.random.default_rng(n).normal(size=(n, 4, 4)))[:, 2, 2]
        mirrored = np.pad(found[PAD:-PAD], PAD, mode="reflect")
        np.testing.assert_array_equal(found, mirrored)


# --- views --------------------------------------------------------------------------------------

GRIDS = {
    "straight": {},
    "flipped": {"direction": FLIPPED},
    "sagittal slices": {"direction": SAGITTAL, "shape": (90, 40, 80), "spacing": (0.9, 2.0, 0.7)},
    "thin slices": {"spacing": (0.8, 0.8, 0.6), "shape": (80, 70, 70)},
    "one slice": {"shape": (1, 96, 90), "balls": [(0, 0, 0, 10)]},
    "oblique": {"direction": oblique()},
}


def scan_of(phantom):
    return Volume(phantom.voxels(), phantom.spacing, phantom.origin, phantom.direction)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_same_as_one_at_a_time_also_at_the_scans_rim(grid):
    phantom = Phantom("1.2.3.4", **GRIDS[grid])
    volume = scan_of(phantom)
    rng = np.random.default_rng(1)
    index = rng.uniform(-0.5, np.array(volume.shape) - 0.5, (3 if grid == "oblique" else 6, 3))
    index[0] = -0.49
    centers = np.concatenate([phantom.centers, volume.world_from_index(index)])
    worst = 0.0
    seen = []
    for k, views in many.nine_views_each(volume, centers, 76):
        worst = max(worst, np.abs(views - nine_views(volume, centers[k], 76)).max())
        seen.append(k)
    assert sorted(seen) == list(range(len(centers)))
    assert worst < 0.02  # HU; a grey level is 5.5
    levels = as_u8(np.stack([nine_views(volume, c, 76) for c in centers])).astype(int)
    assert np.abs(views_u8(volume, centers) - levels).max() <= 1


def test_a_ball_is_in_the_middle_of_all_its_views():
    for direction in (STRAIGHT, FLIPPED, oblique()):
        phantom = Phantom("1.2.3.4", direction=direction, spacing=(0.8, 0.7, 1.0))
        views = views_u8(scan_of(phantom), phantom.centers)
        level = int(as_u8(TISSUE))
        rows, columns = np.indices((76, 76)) - 37.5
        for nine, ball in zip(views, phantom.balls, strict=True):
            near = np.hypot(rows, columns) < ball[3]
            for view in nine:
                light = (view > level / 2) & near
                assert light.sum() == pytest.approx(np.pi * ball[3] ** 2 / 4, rel=0.2)
                assert (light * rows).sum() / light.sum() == pytest.approx(0, abs=0.4)
                assert (light * columns).sum() / light.sum() == pytest.approx(0, abs=0.4)


def test_a_scan_in_parts_gives_the_same(monkeypatch):
    phantom = Phantom("1.2.3.4", shape=(200, 40, 40), spacing=(0.8, 0.8, 1.0))
    volume = scan_of(phantom)
    index = np.random.default_rng(2).uniform(0, np.array(volume.shape) - 1, (24, 3))
    centers = volume.world_from_index(index)
    whole = views_u8(volume, centers)
    monkeypatch.setattr(many, "_MOST_VOXELS", 130 * 40 * 40)
    parts = many._parts(index, np.array([38.0, 47.0, 47.0]), np.array(volume.shape))
    assert 1 < len(parts) < 24
    assert np.abs(views_u8(volume, centers).astype(int) - whole).max() <= 1


def test_lungs_make_wall_of_the_rest():
    phantom = Phantom("1.2.3.4")
    volume = scan_of(phantom)
    kept = np.zeros(volume.shape, bool)
    kept[10:30, 20:80, 20:80] = True
    views = views_u8(volume, phantom.centers, kept)
    expected = as_u8(np.stack([nine_views(volume, c, 76, lungs=kept) for c in phantom.centers]))
    assert np.abs(views.astype(int) - expected).max() <= 1
    assert (views == as_u8(50.0)).mean() > 0.1


def test_grey_levels_are_the_window_that_networks_see():
    hu = np.linspace(-1500, 900, 5001)
    expected = np.clip((hu + 1000) / 1400, 0, 1)
    assert np.abs(as_u8(hu) / 255 - expected).max() <= 0.5 / 255 + 1e-6
    assert as_u8([-1000, 400]).tolist() == [0, 255]


def test_no_candidates_no_views():
    assert views_u8(scan_of(Phantom("1.2.3.4")), []).shape == (0, 9, 76, 76)


def test_a_candidate_outside_is_named_with_its_place():
    phantom = Phantom("1.2.3.4")
    volume = Volume(np.zeros((4, 5, 6), np.int16), (1, 1, 1), (10, 20, 30), series_uid="1.2.3.4")
    points = [(10, 20, 30), (9.4, 20, 30), (15.6, 20, 30), (15.4, 24.4, 33.4), (np.nan, 0, 0)]
    assert within(volume, points).tolist() == [True, False, False, True, False]
    with pytest.raises(InputError, match=r"candidate 1 at x 9\.4.*outside its scan 1\.2\.3\.4"):
        views_u8(volume, points[:3])
    with pytest.raises(InputError, match="finite"):
        many.nine_views_each(scan_of(phantom), [(0, 0, np.inf)])
    with pytest.raises(InputError, match="finite"):
        many.nine_views_each(scan_of(phantom), (0, 0, 0))


def test_what_an_oblique_scan_spans_holds_all_of_it():
    """Its furthest points along an axis are not at the first or the last voxel."""
    volume = scan_of(Phantom("1.2.3.4", direction=oblique(30)))
    index = np.random.default_rng(4).uniform(-0.5, np.array(volume.shape) - 0.5, (4000, 3))
    points = volume.world_from_index(index)
    text = outside("candidate c", volume.world_from_index([(-500, 0, 0)])[0], volume)
    spans = re.search(r"spans (.*) mm;", text)[1].replace(",", " to").split(" to ")
    low, high = np.array(spans, float).reshape(3, 2).T
    assert (points > low - 0.1).all() and (points < high + 0.1).all()
    # And hardly more than that.
    assert (points.min(axis=0) - low < 6).all() and (high - points.max(axis=0) < 6).all()
    # A corner of that box is beyond the scan, and yet within what it spans.
    missed = low + 0.5
    assert not within(volume, [missed])[0]
    assert "obliquely, so that it does not fill them" in outside("candidate c", missed, volume)


@pytest.mark.real
def test_the_real_scan_gives_the_same(real_dicom):
    from labkit.imaging.dicom import read_dicom

    volume = read_dicom(real_dicom)
    index = np.random.default_rng(3).uniform(0, np.array(volume.shape) - 1, (12, 3))
    centers = volume.world_from_index(index)
    expected = as_u8(np.stack([nine_views(volume, c, 76) for c in centers])).astype(int)
    assert np.abs(views_u8(volume, centers) - expected).max() <= 1
