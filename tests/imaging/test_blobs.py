"""Balls and rods of known place and size in a dark block: what the detector has to make of them."""

import numpy as np
import pytest

from labkit.errors import InputError
from labkit.imaging import blobs
from labkit.imaging.volume import Volume

LUNG_HU, TISSUE_HU = -850.0, 30.0
SIDE_MM = 60.0
# Away from the middles of voxels and cells.
BALL_XYZ_MM = np.array([16.3, 29.6, 33.2])
ROD_XYZ_MM = np.array([44.4, 29.6, 33.2])
C, S = np.cos(np.deg2rad(20.0)), np.sin(np.deg2rad(20.0))
OBLIQUE = np.array([[C, -S, 0.0], [S, C, 0.0], [0.0, 0.0, 1.0]])


def block(spacing_xyz_mm=(0.7, 0.7, 1.25), direction=None, flipped=False):
    """An empty block of lung, and where its voxels are (Z, Y, X, 3)."""
    shape = tuple(round(SIDE_MM / s) for s in spacing_xyz_mm[::-1])
    direction = np.eye(3) if direction is None else direction
    origin = (0.0, 0.0, 0.0)
    if flipped:
        direction = direction @ np.diag([1.0, 1.0, -1.0])
        origin = (0.0, 0.0, SIDE_MM)
    volume = Volume(np.full(shape, LUNG_HU, np.float32), spacing_xyz_mm, origin, direction)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return volume, volume.world_from_index(index)


def fill(volume, distance_mm, radius_mm, hu=TISSUE_HU):
    """Put tissue where a distance is below a radius, with an edge as soft as a scanner's."""
    share = np.clip((radius_mm - distance_mm) / 0.7 + 0.5, 0.0, 1.0)
    volume.voxels[:] += (hu - volume.voxels) * share


def add_ball(volume, at, middle, radius_mm, hu=TISSUE_HU):
    fill(volume, np.linalg.norm(at - np.asarray(middle), axis=-1), radius_mm, hu)


def with_ball_and_rod(**how):
    """A ball of 8 mm, and a rod as thick as it that runs along (0, 1, 1)."""
    volume, at = block(**how)
    add_ball(volume, at, BALL_XYZ_MM, 4.0)
    along = np.array([0.0, 1.0, 1.0]) / np.sqrt(2.0)
    away = at - ROD_XYZ_MM
    across = away - (away @ along)[..., None] * along
    fill(volume, np.linalg.norm(across, axis=-1), 4.0)
    return volume


def found(volume, least_score=30.0, **settings):
    """Candidates anywhere in a block."""
    settings = blobs.Settings(least_score, ball_mm=0.0, **settings)
    return blobs.detect(volume, np.ones(volume.shape, bool), settings)


def nearest(candidates, point_xyz_mm):
    """The candidate nearest to a point, and how far it is."""
    away = np.linalg.norm(candidates.centers_xyz_mm - point_xyz_mm, axis=1)
    return int(away.argmin()), float(away.min())


@pytest.fixture(scope="module")
def usual():
    """What is found in the ball and the rod on a usual grid."""
    return found(with_ball_and_rod())


@pytest.mark.parametrize(
    ("diameter_mm", "direction"), [(4, None), (8, None), (14, None), (22, None), (8, OBLIQUE)]
)
def test_a_ball_is_found_where_it_is_at_the_scale_of_its_size(diameter_mm, direction):
    volume, at = block(direction=direction)
    middle = volume.world_from_index(np.array(volume.shape) / 2) + np.array([-0.7, 0.6, -0.8])
    add_ball(volume, at, middle, diameter_mm / 2)
    candidates = found(volume)
    assert np.linalg.norm(candidates.centers_xyz_mm[0] - middle) < 1.0
    assert 1 / 1.3 < candidates.radius_mm[0] / (diameter_mm / 2) < 1.3
    assert candidates.roundness[0] > 0.7


def test_a_long_rod_scores_far_lower_than_a_ball_as_thick(usual):
    ball, away = nearest(usual, BALL_XYZ_MM)
    assert away < 1.0
    # Away from the block's faces, where the rod ends.
    middle = (np.abs(usual.centers_xyz_mm - SIDE_MM / 2) < 20.0).all(axis=1)
    others = middle & (np.arange(len(usual)) != ball)
    assert usual.score[others].max(initial=0.0) < 0.1 * usual.score[ball]


@pytest.mark.parametrize(
    "how",
    [
        {"spacing_xyz_mm": (0.5, 0.5, 0.6)},
        {"spacing_xyz_mm": (1.0, 1.0, 1.0)},
        {"spacing_xyz_mm": (0.7, 0.7, 2.5)},
        {"flipped": True},
        {"direction": np.eye(3)[:, [2, 0, 1]], "spacing_xyz_mm": (0.7, 0.7, 0.7)},
    ],
)
def test_spacing_and_direction_of_the_grid_do_not_matter(how, usual):
    other = found(with_ball_and_rod(**how))
    one, _ = nearest(usual, BALL_XYZ_MM)
    two, away = nearest(other, BALL_XYZ_MM)
    assert away < 1.0
    assert other.score[two] == pytest.approx(usual.score[one], rel=0.25)
    assert other.radius_mm[two] == pytest.approx(usual.radius_mm[one], rel=0.01)


def test_nothing_outside_the_mask_is_found_and_the_wall_does_not_answer():
    volume = with_ball_and_rod()
    lungs = np.zeros(volume.shape, bool)
    lungs[8:-8, 10:-10, -45:-10] = True  # around the rod, and not the ball
    volume.voxels[:, :, -8:] = 400.0  # bone beside it
    settings = blobs.Settings(30.0, ball_mm=0.0)
    candidates = blobs.detect(volume, lungs, settings)
    index = volume.index_from_world(candidates.centers_xyz_mm)
    z, y, x = volume.shape
    # The margin of 1 mm, kept to 3 mm, in voxels.
    margin = (settings.margin_mm + 3.0) / np.array(volume.spacing_zyx_mm)
    assert (index >= np.array([8, 10, x - 45]) - margin).all()
    assert (index <= np.array([z - 9, y - 11, x - 11]) + margin).all()
    assert nearest(found(volume), BALL_XYZ_MM)[1] < 1.0  # it is there, when it is asked for


def test_a_ball_on_the_pleura_that_the_segmentation_left_out_is_still_hit():
    """Within its radius by the widened mask alone; nearer to its middle with hollows filled."""
    volume, at = block((1.0, 1.0, 1.0))
    volume.voxels[:, :, :15] = TISSUE_HU
    middle = np.array([17.0, 30.0, 30.0])
    add_ball(volume, at, middle, 5.0)
    lungs = np.zeros(volume.shape, bool)
    lungs[5:-5, 5:-5, 15:-5] = True
    lungs &= volume.voxels < -400.0  # the segmentation left it out
    plain, filled = (
        nearest(blobs.detect(volume, lungs, blobs.Settings(100.0, ball_mm=mm)), middle)[1]
        for mm in (0.0, 20.0)
    )
    assert filled < 3.5 and filled <= plain < 5.0


def test_of_neighbours_the_strongest_is_kept():
    volume, at = block((1.0, 1.0, 1.0))
    for x in (18.0, 24.0, 40.0):
        add_ball(volume, at, (x, 30.0, 30.0), 2.0)
    assert [len(found(volume, 150.0, apart_mm=mm)) for mm in (5.0, 8.0, 30.0)] == [3, 2, 1]
    candidates = found(volume, 20.0, apart_mm=9.0)
    centers = candidates.centers_xyz_mm
    away = np.linalg.norm(centers[:, None] - centers[None], axis=-1)
    assert away[~np.eye(len(away), dtype=bool)].min(initial=99.0) > 9.0
    assert (np.diff(candidates.score) <= 0).all()


def test_an_empty_mask_and_even_lung_have_no_candidates():
    volume, _ = block()
    assert len(blobs.detect(with_ball_and_rod(), np.zeros(volume.shape, bool))) == 0
    assert len(found(volume, 1.0)) == 0


def test_wrong_input_is_told():
    volume = with_ball_and_rod()
    with pytest.raises(InputError, match="mask"):
        blobs.detect(volume, np.ones((2, 2, 2), bool))
    volume.voxels[30, 30, 30] = np.nan
    with pytest.raises(InputError, match="not finite"):
        found(volume)
    with pytest.raises(InputError, match="ascending"):
        blobs.Settings(sigmas_mm=(2.0, 1.0))
    with pytest.raises(InputError, match="apart_mm"):
        blobs.Settings(apart_mm=-1.0)
