"""Whole simulated scans: crops are parts of them, and their truth is the readers' outlines."""

import dataclasses

import numpy as np
import pytest

from labkit.errors import InputError
from labkit.simulate.scan import scan_of, series_named
from labkit.simulate.scanner import scan_box, truth, whole_scan
from labkit.simulate.scene import scene_of
from tests.simulate.simulated_spheres import ball_finding, ball_reader, ball_scan

RADIUS_MM, PIXEL_MM, SLICE_MM = 9.0, 0.7, 1.25


@pytest.fixture(scope="module")
def part():
    """The scene of ten slices of a real scan around its largest nodule."""
    scan = scan_of(series_named("LIDC-IDRI-0171"))
    first = float(scan.z_mm(15, 16)[0])
    return scene_of(dataclasses.replace(scan, first_z_mm=first, slices=10), seed=5)


@pytest.fixture(scope="module")
def ball():
    """The scene of a ball, outlined alike by three readers, in 24 slices."""
    reader = ball_reader(RADIUS_MM, PIXEL_MM, SLICE_MM, row=200.0, col=150.0)
    finding = ball_finding([reader] * 3)
    return scene_of(ball_scan(finding, PIXEL_MM, SLICE_MM, slices=25), seed=1)


@pytest.mark.parametrize("noisy", [True, False])
def test_a_crop_is_a_part_of_the_whole_scan(part, noisy):
    whole = whole_scan(part, noisy=noisy)
    assert whole.shape == (10, 512, 512)
    assert whole.voxels.dtype == np.int16
    for cols, rows, slices in (
        ((0, 512), (0, 512), (4, 5)),
        ((301, 398), (250, 341), (3, 9)),
        ((0, 60), (400, 512), (0, 10)),
        ((137, 138), (222, 223), (7, 8)),
    ):
        crop = scan_box(part, cols, rows, slices, noisy)
        np.testing.assert_array_equal(
            crop.voxels, whole.voxels[slice(*slices), slice(*rows), slice(*cols)]
        )
        corner = whole.world_from_index((slices[0], rows[0], cols[0]))
        np.testing.assert_allclose(crop.origin_xyz_mm, corner, atol=1e-9)


def test_threads_do_not_change_a_voxel(part):
    one, three = (whole_scan(part, jobs=jobs) for jobs in (1, 3))
    np.testing.assert_array_equal(one.voxels, three.voxels)
    with pytest.raises(InputError, match="jobs is 0"):
        whole_scan(part, jobs=0)


def test_the_true_nodule_is_the_ball_that_was_outlined(ball):
    true = truth(ball)
    inside = np.argwhere(true.nodules == 1)
    assert set(np.unique(true.nodules)) == {0, 1}
    ball_mm3 = 4 / 3 * np.pi * RADIUS_MM**3
    assert len(inside) * PIXEL_MM**2 * SLICE_MM == pytest.approx(ball_mm3, rel=0.1)
    z, y, x = inside.mean(axis=0)
    assert (x, y) == pytest.approx((150.0, 200.0), abs=0.5)
    assert ball.scan.first_z_mm + z * SLICE_MM == pytest.approx(0.0, abs=0.5 * SLICE_MM)
    extent = np.ptp(inside, axis=0) * (SLICE_MM, PIXEL_MM, PIXEL_MM)
    np.testing.assert_allclose(extent, 2 * RADIUS_MM, atol=2 * SLICE_MM)
    # It is seen where the truth has it.
    assert np.median(whole_scan(ball, noisy=False).voxels[true.nodules == 1]) > -200
