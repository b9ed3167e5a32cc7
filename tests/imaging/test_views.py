"""Cubes and nine views against geometry that is known, and against SimpleITK."""

from itertools import product

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from labkit.errors import InputError
from labkit.imaging.dicom import read_dicom
from labkit.imaging.views import PLANES, cube, cube_and_views, nine_views, window
from labkit.imaging.volume import AIR_HU, Volume

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
each_plane = pytest.mark.parametrize("number", range(9), ids=[p.name for p in PLANES])


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


def test_planes_have_their_fixed_order_and_names():
    assert [p.name for p in PLANES] == [
        "axial",
        "coronal",
        "sagittal",
        "diagonal_x_plus",
        "diagonal_x_minus",
        "diagonal_y_plus",
        "diagonal_y_minus",
        "diagonal_z_plus",
        "diagonal_z_minus",
    ]


def test_nine_different_planes_of_perpendicular_unit_vectors():
    for plane in PLANES:
        axes = np.array([plane.col_xyz, plane.row_xyz, plane.normal_xyz])
        np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(axes) == pytest.approx(1)
    normals = np.array([p.normal_xyz for p in PLANES])
    parallel = np.abs(normals @ normals.T) > 0.999
    assert parallel.sum() == 9


@each_plane
def test_diagonal_planes_pass_through_two_opposite_edges_of_the_cube(number):
    corners = np.array(list(product((-1, 1), repeat=3)))
    on_plane = np.abs(corners @ PLANES[number].normal_xyz) < 1e-12
    # Two opposite edges have four corners; a plane between two faces has none.
    assert on_plane.sum() == (0 if number < 3 else 4)


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


@any_direction
def test_linear_field_is_reproduced_exactly(direction):
    slope = np.array([7.0, -11.0, 5.0])
    volume, middle = phantom(lambda p: p @ slope + 40, direction)
    center = middle + np.array([1.3, -2.1, 0.7])
    views = nine_views(volume, center, size=20, spacing_mm=0.9)
    for plane, view in zip(PLANES, views, strict=True):
        points = plane.points_xyz_mm(center, 20, 0.9) - middle
        np.testing.assert_allclose(view, points @ slope + 40, atol=0.02)
    at = (np.arange(20) - 9.5) * 0.9
    z, y, x = np.meshgrid(at, at, at, indexing="ij")
    expected = (np.stack([x, y, z], -1) + center - middle) @ slope + 40
    np.testing.assert_allclose(cube(volume, center, 20, 0.9), expected, atol=0.02)


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
def test_linear_field_is_exact_for_any_grid(turn, spacing, slope, shift):
    volume, middle = phantom(lambda p: p @ slope, turn, (56, 56, 56), spacing)
    center = middle + shift
    size = 8
    views = nine_views(volume, center, size)
    for plane, view in zip(PLANES, views, strict=True):
        points = plane.points_xyz_mm(center, size) - middle
        np.testing.assert_allclose(view, points @ slope, atol=0.02)


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


@each_plane
def test_an_oblique_rod_is_the_right_ellipse(number):
    plane = PLANES[number]
    tilt = np.radians(50)
    shadow = np.array([0.6, 0.8])  # rows, columns
    along = np.cos(tilt) * np.array(plane.normal_xyz) + np.sin(tilt) * (
        shadow[0] * np.array(plane.row_xyz) + shadow[1] * np.array(plane.col_xyz)
    )
    radius = 5.0
    volume, middle = phantom(lambda p: soft(np.linalg.norm(np.cross(p, along), axis=-1) - radius))
    image = (nine_views(volume, middle, size=40)[number] - AIR_HU) / -AIR_HU
    # An ellipse of semi-axes r and r / cos, the long one along the rod's shadow on the plane.
    assert image.sum() == pytest.approx(np.pi * (radius**2 + 1 / 3) / np.cos(tilt), rel=0.01)
    rows, columns = np.indices(image.shape) - 19.5
    moments = np.array([[(image * a * b).sum() for a in (rows, columns)] for b in (rows, columns)])
    variances, axes = np.linalg.eigh(moments)
    assert abs(axes[:, -1] @ shadow) == pytest.approx(1, abs=0.001)
    assert variances[1] / variances[0] == pytest.approx(1 / np.cos(tilt) ** 2, rel=0.03)


def test_a_rod_in_the_plane_is_a_straight_band():
    for number, plane in enumerate(PLANES):
        along = (np.array(plane.row_xyz) + np.array(plane.col_xyz)) / 2**0.5
        volume, middle = phantom(
            lambda p, along=along: soft(np.linalg.norm(np.cross(p, along), axis=-1) - 3.0)
        )
        image = nine_views(volume, middle, size=24)[number]
        rows, columns = np.indices(image.shape) - 11.5
        distance = np.abs(rows - columns) / 2**0.5  # the band runs down the image's diagonal
        assert (image[distance < 1.5] > -60).all(), plane.name
        assert (image[distance > 4.5] < AIR_HU + 60).all(), plane.name


def test_diagonals_of_a_box_are_longer_by_root_two_and_not_stretched_back():
    side = 20.0
    box = lambda p: soft(np.abs(p).max(axis=-1) - side / 2)  # noqa: E731
    volume, middle = phantom(box, shape=(80, 96, 96), spacing=(0.7, 0.7, 0.9))
    areas = (nine_views(volume, middle, size=48) - AIR_HU).sum(axis=(1, 2)) / -AIR_HU
    np.testing.assert_allclose(areas[:3], side**2, rtol=0.01)
    np.testing.assert_allclose(areas[3:], side**2 * 2**0.5, rtol=0.01)


def test_an_off_centre_box_lies_where_it_is_in_the_cube():
    low, high = np.array([-4.0, 2.0, -9.0]), np.array([6.0, 10.0, 1.0])  # x, y, z

    def box(p):
        return soft(np.max(np.maximum(low - p, p - high), axis=-1))

    volume, middle = phantom(box)
    seen = cube(volume, middle, size=32) > AIR_HU / 2
    at = np.arange(32) - 15.5
    inside = [(at > a) & (at < b) for a, b in zip(low, high, strict=True)]
    expected = inside[2][:, None, None] & inside[1][:, None] & inside[0]
    np.testing.assert_array_equal(seen, expected)


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


@pytest.mark.parametrize("center", [(-500, 0, 0), (0, 900, 0), (4, 4, -300)])
def test_a_cube_wholly_outside_is_air(center):
    volume = Volume(np.full((8, 8, 8), 55, np.int16), (1, 1, 1))
    images = cube_and_views(volume, center, size=8, view_size=12)
    assert all((image == AIR_HU).all() for image in images)


def test_views_beside_the_scan_still_show_what_reaches_into_it():
    # The centre is 2 mm in front of the scan's first row: planes along y reach into it.
    volume = Volume(np.full((40, 40, 40), 55, np.int16), (1, 1, 1))
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


def test_face_views_lie_between_the_middle_slices_of_the_cube():
    # Where HU change linearly across the middle, half way between two slices is their mean.
    volume, middle = phantom(lambda p: 9 * p[..., 0] - 5 * p[..., 1] + 3 * p[..., 2])
    q, v = cube_and_views(volume, middle, size=16, view_size=16)
    np.testing.assert_allclose(v[0], q[7:9].mean(axis=0), atol=0.01)
    np.testing.assert_allclose(v[1], q[::-1, 7:9].mean(axis=1), atol=0.01)
    np.testing.assert_allclose(v[2], q[::-1, :, 7:9].mean(axis=2), atol=0.01)


def test_voxels_are_returned_as_they_are_where_samples_meet_them():
    noise = np.random.default_rng(0).integers(-1000, 1000, (64, 64, 64)).astype(np.int16)
    volume = Volume(noise, (1, 1, 1))
    np.testing.assert_allclose(cube(volume, (31.5, 31.5, 31.5)), noise, atol=0.01)


@given(
    gain=st.floats(-3, 3),
    add=st.floats(-500, 500),
    move=st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3),
)
@settings(max_examples=20, deadline=None)
def test_views_follow_the_scan_in_brightness_and_place(gain, add, move):
    noise = np.random.default_rng(1).normal(0, 200, (20, 24, 28))
    here = Volume(noise, (1.1, 0.9, 2.0))
    there = Volume(gain * noise + add, (1.1, 0.9, 2.0), tuple(move))
    center = np.array([14.0, 11.0, 19.0])
    np.testing.assert_allclose(
        nine_views(there, center + move, 8), gain * nine_views(here, center, 8) + add, atol=0.02
    )


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
    with pytest.raises(InputError, match="above 0|three finite"):
        nine_views(volume, center, size, spacing)
    with pytest.raises(InputError, match="above 0|three finite"):
        cube(volume, center, size, spacing)


def test_window_clips_and_refuses_an_empty_window():
    np.testing.assert_allclose(window([-1500, -650, 400]), [0, 0.25, 1])
    assert window(np.zeros(3, np.int16)).dtype == np.float32
    with pytest.raises(InputError, match="low < high"):
        window([0], 100, 100)


# --- against SimpleITK --------------------------------------------------------------------------


def as_image(volume):
    image = sitk.GetImageFromArray(np.asarray(volume.voxels, np.float32))
    image.SetSpacing(volume.spacing_xyz_mm)
    image.SetOrigin(volume.origin_xyz_mm)
    image.SetDirection(volume.direction.ravel().tolist())
    return image


def resample(coefficients, corner, axes, shape):
    """Whole-volume B-spline samples (z, y, x) at 1 mm from SimpleITK, from its coefficients."""
    filter_ = sitk.ResampleImageFilter()
    filter_.SetInterpolator(sitk.sitkBSplineResampler)
    filter_.SetDefaultPixelValue(AIR_HU)
    filter_.SetSize(shape[::-1])
    filter_.SetOutputOrigin(np.asarray(corner, float).tolist())
    filter_.SetOutputDirection(np.column_stack(axes).ravel().tolist())
    return sitk.GetArrayFromImage(filter_.Execute(coefficients))


def reference(volume, coefficients, center, size):
    center = np.asarray(center)
    yield resample(coefficients, center - (size - 1) / 2, np.eye(3), (size, size, size))
    for plane in PLANES:
        axes = [np.array(v) for v in (plane.col_xyz, plane.row_xyz, plane.normal_xyz)]
        corner = center - (axes[0] + axes[1]) * (size - 1) / 2
        yield resample(coefficients, corner, axes, (1, size, size))[0]


@any_direction
def test_cube_and_every_view_agree_with_simpleitk_up_to_the_border(direction):
    noise = np.random.default_rng(5).normal(-400, 300, (30, 50, 54)).astype(np.float32)
    volume = Volume(noise, (0.75, 0.75, 1.6), (12.0, -60.0, 5.5), direction)
    center = volume.world_from_index((14.0, 18.0, 30.0))
    coefficients = sitk.BSplineDecomposition(as_image(volume), splineOrder=3)
    size = 40
    ours = [cube(volume, center, size), *nine_views(volume, center, size)]
    for mine, theirs in zip(ours, reference(volume, coefficients, center, size), strict=True):
        difference = np.abs(mine - theirs)
        assert np.median(difference) < 0.01
        # A sample that lies on the border to rounding may be in for one and out for the other.
        assert (difference > 0.1).mean() < 0.002


@pytest.fixture(scope="module")
def real_scan(real_dicom):
    return read_dicom(real_dicom)


@pytest.mark.real
def test_real_scan_agrees_with_whole_volume_resampling(real_scan):
    coefficients = sitk.BSplineDecomposition(as_image(real_scan), splineOrder=3)
    nodule = real_scan.world_from_index((89.7, 367.0, 316.3))
    for center in (nodule, real_scan.world_from_index((60, 250, 150))):
        ours = [cube(real_scan, center), *nine_views(real_scan, center)]
        theirs = reference(real_scan, coefficients, center, 64)
        for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            difference = np.abs(mine - other)
            assert np.median(difference) < 0.1, number
            assert difference.max() < 2, number


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
