"""Cubes and nine views against geometry that is known, and against SimpleITK."""

from unittest.mock import patch

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import spline_filter
from scipy.spatial.transform import Rotation

from labkit.errors import InputError
from labkit.imaging import views as sampling
from labkit.imaging.dicom import read_series
from labkit.imaging.views import PLANES, Plane, cube, cube_and_views, nine_views, nine_views_each
from labkit.imaging.volume import AIR_HU, Volume
from tests.cohorts.luna_phantom import FLIPPED, SAGITTAL, Phantom, oblique

UPRIGHT = np.eye(3)
FEET_FIRST = np.diag([-1.0, 1.0, -1.0])
CORONAL_SCAN = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
OBLIQUE = Rotation.from_euler("zyx", [25, -10, 40], degrees=True).as_matrix()
DIRECTIONS = {
    "upright": UPRIGHT,
    "feet_first": FEET_FIRST,
    "mirrored": np.diag([1.0, -1.0, 1.0]),
    "coronal_scan": CORONAL_SCAN,
    "oblique": OBLIQUE,
}
any_direction = pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS.keys())
each_plane = pytest.mark.parametrize("number", range(len(PLANES)), ids=[p.name for p in PLANES])


def phantom(hu_at, direction=UPRIGHT, shape=(56, 80, 84), spacing=(0.8, 0.8, 1.25)):
    """A volume of hu_at(points (..., 3) relative to the middle of the volume), and that middle."""
    volume = Volume(np.zeros(shape, np.float32), spacing, (-31.0, 44.5, -210.0), direction)
    middle = volume.world_from_index((np.array(shape) - 1) / 2)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    hu = hu_at(volume.world_from_index(index) - middle)
    return Volume(hu, spacing, volume.origin_xyz_mm, direction), middle


def soft(distance_mm):
    """0 HU within a surface, air outside, with an edge 2 mm wide: 50 % at the surface."""
    return AIR_HU * np.clip(0.5 + distance_mm / 2, 0, 1)


def ball(center, radius_mm):
    return lambda p: soft(np.linalg.norm(p - np.asarray(center), axis=-1) - radius_mm)


# --- the planes ---------------------------------------------------------------------------------


def test_nine_different_planes_of_perpendicular_unit_vectors_in_their_order():
    diagonals = [f"diagonal_{axis}_{sign}" for axis in "xyz" for sign in ("plus", "minus")]
    assert [p.name for p in PLANES] == ["axial", "coronal", "sagittal", *diagonals]
    for plane in PLANES:
        axes = np.array([plane.col_xyz, plane.row_xyz, plane.normal_xyz])
        np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(axes) == pytest.approx(1)
    normals = np.array([p.normal_xyz for p in PLANES])
    parallel = np.abs(normals @ normals.T) > 0.999
    assert parallel.sum() == 9


# Where a small ball lies in the image (rows down, columns right), by hand, for a ball that many
# mm to the patient's left (x), back (y) and head (z).
SEEN_AT = {
    "axial": {(9, 0, 0): (0, 9), (0, 9, 0): (9, 0)},
    "coronal": {(9, 0, 0): (0, 9), (0, 0, 9): (-9, 0)},
    "sagittal": {(0, 9, 0): (0, 9), (0, 0, 9): (-9, 0)},
    "diagonal_x_plus": {(9, 0, 0): (0, 9), (0, 6, 6): (-6 * 2**0.5, 0)},
    "diagonal_x_minus": {(9, 0, 0): (0, 9), (0, -6, 6): (-6 * 2**0.5, 0)},
    "diagonal_y_plus": {(0, 9, 0): (0, 9), (6, 0, 6): (-6 * 2**0.5, 0)},
    "diagonal_y_minus": {(0, 9, 0): (0, 9), (-6, 0, 6): (-6 * 2**0.5, 0)},
    "diagonal_z_plus": {(0, 0, 9): (-9, 0), (6, 6, 0): (0, 6 * 2**0.5)},
    "diagonal_z_minus": {(0, 0, 9): (-9, 0), (6, -6, 0): (0, 6 * 2**0.5)},
}


@any_direction
@each_plane
def test_a_ball_beside_the_centre_is_seen_where_anatomy_says(number, direction):
    for offset, expected in SEEN_AT[PLANES[number].name].items():
        volume, middle = phantom(ball(offset, 3.0), direction)
        image = nine_views(volume, middle, size=32)[number] - AIR_HU
        rows, columns = np.indices(image.shape) - 15.5
        seen = ((rows * image).sum() / image.sum(), (columns * image).sum() / image.sum())
        assert seen == pytest.approx(expected, abs=0.1)


# --- shapes -------------------------------------------------------------------------------------


@given(
    turn=st.one_of(
        st.sampled_from(list(DIRECTIONS.values())),
        st.lists(st.floats(-180, 180), min_size=3, max_size=3).map(
            lambda a: Rotation.from_euler("zyx", a, degrees=True).as_matrix()
        ),
    ),
    spacing=st.tuples(st.floats(0.6, 1.0), st.floats(0.6, 1.0), st.floats(0.6, 2.5)),
    slope=st.lists(st.floats(-20, 20), min_size=3, max_size=3),
    shift=st.lists(st.floats(-2, 2), min_size=3, max_size=3),
)
@settings(max_examples=25, deadline=None)
def test_a_linear_field_is_exact_for_any_grid_and_through_any_tenth_plane(
    turn, spacing, slope, shift
):
    volume, middle = phantom(lambda p: p @ slope, turn, (56, 56, 56), spacing)
    center = middle + shift
    size = 8
    at = (np.arange(size) - (size - 1) / 2) * 0.9
    z, y, x = np.meshgrid(at, at, at, indexing="ij")
    expected = (np.stack([x, y, z], -1) + center - middle) @ slope
    np.testing.assert_allclose(cube(volume, center, size, 0.9), expected, atol=0.02)
    corner = Plane("corner", tuple(np.array([1, 1, -2]) / 6**0.5), (0.5**0.5, -(0.5**0.5), 0.0))
    for planes in (PLANES, (*PLANES, corner)):
        with patch.object(sampling, "PLANES", planes):
            views = nine_views(volume, center, size, 0.9)
            ((_, again),) = nine_views_each(volume, [center], size, 0.9)
        for plane, *both in zip(planes, views, again, strict=True):
            points = plane.points_xyz_mm(center, size, 0.9) - middle
            np.testing.assert_allclose(both, [points @ slope] * 2, atol=0.02)


@any_direction
def test_a_sphere_is_a_circle_of_its_radius_in_all_nine_views(direction):
    radius = 11.0
    volume, middle = phantom(ball((0, 0, 0), radius), direction)
    views = nine_views(volume, middle, size=48)
    rows, columns = np.indices((48, 48)) - 23.5
    distance = np.hypot(rows, columns)
    for view in views:
        area = ((view - AIR_HU) / -AIR_HU).sum()
        # The 2 mm edge adds 1/3 to the mean of r squared: half of its own variance.
        assert area == pytest.approx(np.pi * (radius**2 + 1 / 3), rel=0.005)
        assert (view[distance < radius - 1.5] > -60).all()
        assert (view[distance > radius + 1.5] < AIR_HU + 60).all()


# --- the edge of the scan, sizes, and agreement with each other ---------------------------------


@any_direction
def test_points_outside_the_scan_are_air_and_half_a_voxel_still_belongs_to_it(direction):
    volume = Volume(np.full((8, 9, 10), 55, np.int16), (1, 1, 1), (0, 0, 0), direction)
    corner = volume.world_from_index((0, 0, 0))
    image = cube(volume, corner, size=5)
    offset = np.arange(5) - 2
    z, y, x = np.meshgrid(offset, offset, offset, indexing="ij")
    index = volume.index_from_world(corner + np.stack([x, y, z], -1))
    inside = ((index >= -0.5) & (index <= np.array(volume.shape) - 0.5)).all(axis=-1)
    np.testing.assert_allclose(image, np.where(inside, 55, AIR_HU), atol=1e-3)
    assert inside.sum() >= 8


def test_a_cube_wholly_outside_is_air_and_views_show_what_reaches_into_the_scan():
    volume = Volume(np.full((40, 40, 40), 55, np.int16), (1, 1, 1))
    for center in ((-500, 0, 0), (0, 900, 0), (4, 4, -300)):
        images = cube_and_views(volume, center, size=8, view_size=12)
        assert all((image == AIR_HU).all() for image in images)
    # The centre is 2 mm in front of the scan's first row: planes along y reach into it.
    views = nine_views(volume, (20, -2, 20), size=16)
    for plane, view in zip(PLANES, views, strict=True):
        inside = plane.points_xyz_mm((20, -2, 20), 16)[..., 1] >= -0.5
        np.testing.assert_allclose(view, np.where(inside, 55, AIR_HU), atol=1e-3)


@any_direction
def test_the_middle_of_a_wide_view_is_the_small_view(direction):
    noise = np.random.default_rng(3).normal(-500, 300, (56, 80, 84)).astype(np.float32)
    volume = Volume(noise, (0.8, 0.8, 1.25), direction=direction)
    center = volume.world_from_index((28.2, 40.1, 41.7))
    np.testing.assert_allclose(
        nine_views(volume, center, 76)[:, 6:70, 6:70], nine_views(volume, center, 64), atol=2e-3
    )
    both = cube_and_views(volume, center)
    np.testing.assert_array_equal(both[0], cube(volume, center))
    np.testing.assert_array_equal(both[1], nine_views(volume, center, 76))
    assert both[0].shape == (64, 64, 64)
    assert both[1].shape == (9, 76, 76)
    assert both[0].dtype == both[1].dtype == np.float32


@pytest.mark.parametrize("n_slices", [1, 2, 3])
def test_very_thin_scans_are_no_special_case(n_slices):
    volume = Volume(np.full((n_slices, 30, 30), 7.0), (1, 1, 2))
    image = nine_views(volume, volume.world_from_index(((n_slices - 1) / 2, 15, 15)), size=4)[0]
    np.testing.assert_allclose(image, 7.0, atol=1e-3)


@pytest.mark.parametrize(
    ("center", "size", "spacing"),
    [((0, 0), 64, 1), ((0, 0, np.nan), 64, 1), ((0, 0, 0), 0, 1), ((0, 0, 0), 8, 0)],
)
def test_what_makes_no_sense_is_refused(center, size, spacing):
    volume = Volume(np.zeros((4, 4, 4)), (1, 1, 1))
    for cut_out in (nine_views, cube):
        with pytest.raises(InputError, match="above 0|three finite"):
            cut_out(volume, center, size, spacing)
    with pytest.raises(InputError, match="above 0|finite"):
        list(nine_views_each(volume, [center], size, spacing))


def test_window_clips_and_refuses_an_empty_window():
    np.testing.assert_allclose(sampling.window([-1500, -650, 400]), [0, 0.25, 1])
    assert sampling.window(np.zeros(3, np.int16)).dtype == np.float32
    with pytest.raises(InputError, match="low < high"):
        sampling.window([0], 100, 100)


# --- against SimpleITK --------------------------------------------------------------------------


def differences(volume, center, size):
    """How far the cube and every view are from SimpleITK's samples of the whole volume."""
    image = sitk.GetImageFromArray(np.asarray(volume.voxels, np.float32))
    image.SetSpacing(volume.spacing_xyz_mm)
    image.SetOrigin(volume.origin_xyz_mm)
    image.SetDirection(volume.direction.ravel().tolist())
    image = sitk.BSplineDecomposition(image, splineOrder=3)
    resample = sitk.ResampleImageFilter()
    resample.SetInterpolator(sitk.sitkBSplineResampler)
    resample.SetDefaultPixelValue(AIR_HU)
    ours = [cube(volume, center, size), *nine_views(volume, center, size)]
    for mine, plane in zip(ours, (None, *PLANES), strict=True):
        axes = plane and (plane.col_xyz, plane.row_xyz, plane.normal_xyz)
        axes = np.eye(3) if plane is None else np.array(axes)
        spread = axes.sum(axis=0) if plane is None else axes[0] + axes[1]
        resample.SetSize((size, size, size if plane is None else 1))
        resample.SetOutputOrigin((center - spread * (size - 1) / 2).tolist())
        resample.SetOutputDirection(axes.T.ravel().tolist())
        yield np.abs(mine - np.squeeze(sitk.GetArrayFromImage(resample.Execute(image))))


@any_direction
def test_cube_and_every_view_agree_with_simpleitk_up_to_the_border(direction):
    noise = np.random.default_rng(5).normal(-400, 300, (30, 50, 54)).astype(np.float32)
    volume = Volume(noise, (0.75, 0.75, 1.6), (12.0, -60.0, 5.5), direction)
    center = volume.world_from_index((14.0, 18.0, 30.0))
    for difference in differences(volume, center, 40):
        assert np.median(difference) < 0.01
        # A sample that lies on the border to rounding may be in for one and out for the other.
        assert (difference > 0.1).mean() < 0.002


# --- many points at once, whatever the scan's grid ------------------------------------------------

GRIDS = {
    "straight": {},
    "flipped": {"direction": FLIPPED},
    "sagittal slices": {"direction": SAGITTAL, "shape": (90, 40, 80), "spacing": (0.9, 2.0, 0.7)},
    "thin slices": {"spacing": (0.8, 0.8, 0.6), "shape": (80, 70, 70)},
    "one slice": {"shape": (1, 96, 90), "balls": [(0, 0, 0, 10)]},
    "oblique": {"direction": oblique()},
}


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 70), (3, 65, 200), (130, 2, 5)])
def test_coefficients_are_those_of_scipy_and_go_on_as_a_mirror_image(shape):
    voxels = np.random.default_rng(0).integers(-1000, 1500, shape).astype(np.int16)
    ours = sampling.coefficients(voxels)
    inner = ours[(slice(sampling.PAD, -sampling.PAD),) * 3]
    theirs = spline_filter(voxels.astype(float), order=3, mode="mirror")
    np.testing.assert_allclose(inner, theirs, atol=0.05)
    np.testing.assert_array_equal(ours, np.pad(inner, sampling.PAD, mode="reflect"))


@pytest.mark.parametrize("grid", GRIDS)
def test_the_same_as_one_at_a_time_also_at_the_scans_rim(grid):
    phantom = Phantom("1.2.3.4", **GRIDS[grid])
    volume = phantom.volume()
    rng = np.random.default_rng(1)
    index = rng.uniform(-0.5, np.array(volume.shape) - 0.5, (3 if grid == "oblique" else 6, 3))
    index[0] = -0.49
    centers = np.concatenate([phantom.centers, volume.world_from_index(index)])
    found = dict(nine_views_each(volume, centers, 76))
    assert sorted(found) == list(range(len(centers)))
    for k, views in found.items():  # HU; a grey level is 5.5
        assert np.abs(views - nine_views(volume, centers[k], 76)).max() < 0.02


def test_a_scan_in_parts_gives_the_same(monkeypatch):
    phantom = Phantom("1.2.3.4", shape=(200, 40, 40), spacing=(0.8, 0.8, 1.0))
    volume = phantom.volume()
    index = np.random.default_rng(2).uniform(0, np.array(volume.shape) - 1, (24, 3))
    centers = volume.world_from_index(index)
    whole = dict(nine_views_each(volume, centers, 76))
    monkeypatch.setattr(sampling, "_MOST_VOXELS", 130 * 40 * 40)
    parts = sampling._parts(index, np.array([38.0, 47.0, 47.0]), np.array(volume.shape))
    assert 1 < len(parts) < 24
    for k, views in nine_views_each(volume, centers, 76):
        assert np.abs(views - whole[k]).max() < 0.02


# --- a real scan ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_scan(real_dicom):
    return read_series(real_dicom)


@pytest.mark.real
def test_real_scan_agrees_with_whole_volume_resampling(real_scan):
    for index in ((89.7, 367.0, 316.3), (60, 250, 150)):  # the first is a nodule's
        for difference in differences(real_scan, real_scan.world_from_index(index), 64):
            assert np.median(difference) < 0.1 and difference.max() < 2


@pytest.mark.real
def test_real_scan_shows_the_nodule_of_the_real_cubes(real_scan, real_cubes):
    # The same nodule, cut out independently by somebody else from 8-bit slices.
    with np.load(real_cubes) as file:
        stored = file["cubes"][0]
        assert str(file["series_uid"][0]) == real_scan.series_uid
    center = real_scan.world_from_index((89.68, 367.04, 316.28))
    slices = np.flatnonzero(stored.any(axis=(1, 2)))
    ours = np.clip(cube(real_scan, center)[slices], -1000, 400)
    theirs = -1000 + 1400 / 255 * stored[slices]
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.99
