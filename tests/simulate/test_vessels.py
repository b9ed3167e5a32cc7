import numpy as np
import pytest
from scipy.spatial import cKDTree

from labkit.simulate.chest import thorax_of
from labkit.simulate.vessels import grow
from tests.simulate.simulated_spheres import ball_scan


@pytest.fixture(scope="module")
def chest():
    return thorax_of(ball_scan(), [], 3)


@pytest.fixture(scope="module")
def arteries(chest):
    return grow(chest, 5, "arteries")


def test_what_flows_in_flows_out(arteries):
    """Murray's law: the cubes of the children's radii sum to the parent's."""
    cubed = arteries.radius_mm**3
    child = arteries.parent >= 0
    summed = np.bincount(arteries.parent[child], cubed[child], minlength=len(cubed))
    parts = np.bincount(arteries.parent[child], minlength=len(cubed))
    assert set(parts) == {0, 2}  # every branch parts in two, or ends
    np.testing.assert_allclose(summed[parts == 2], cubed[parts == 2], rtol=1e-9)
    assert (arteries.flow[parts == 0] == 1).all()


def test_children_start_where_their_parents_end(arteries):
    child = np.flatnonzero(arteries.parent >= 0)
    parent = arteries.parent[child]
    assert (parent < child).all()
    np.testing.assert_array_equal(arteries.start_xyz_mm[child], arteries.end_xyz_mm[parent])
    np.testing.assert_array_equal(arteries.leaving[child], arteries.arriving[parent])


def test_vessels_are_thin_at_the_pleura_and_thick_at_the_hilum(chest, arteries):
    depth = -chest.lung(*arteries.end_xyz_mm.T)
    hilum = chest.hilum_xyz_mm(arteries.end_xyz_mm[:, 0] > chest.x0)
    away = np.linalg.norm(arteries.end_xyz_mm - hilum, axis=1)
    length = np.linalg.norm(arteries.end_xyz_mm - arteries.start_xyz_mm, axis=1)
    blood = arteries.radius_mm**2 * length  # where most blood is, not most branches
    near, far = away < 30, (away > 60) & (depth < 15)
    typical = [np.average(arteries.radius_mm[w], weights=blood[w]) for w in (near, far)]
    assert typical[0] > 2.5 * typical[1]
    assert arteries.radius_mm[arteries.parent < 0].min() > 2.0
    assert np.percentile(arteries.radius_mm[far], 99) < 1.8


def test_every_piece_of_lung_has_a_vessel_nearby(chest, arteries):
    twigs = arteries.end_xyz_mm[arteries.flow == 1]
    assert chest.lung(*twigs.T).max() < -1.0
    low, high = chest.bounds_xyz_mm()
    points = np.random.default_rng(0).uniform(low, high, (40_000, 3))
    points = points[chest.lung(*points.T) < -6.0]
    points = points[chest.fissure(*points.T) > 6.0]
    away, _ = cKDTree(arteries.end_xyz_mm).query(points)
    assert np.percentile(away, 99) < 11.0


def test_airways_are_tubes_beside_the_larger_arteries(arteries):
    wall, lumen = arteries.airways()
    assert len(wall) == len(lumen) > 60
    np.testing.assert_array_equal(wall.start_xyz_mm, lumen.start_xyz_mm)
    assert (wall.end_radius_mm - lumen.end_radius_mm > 0.2).all()
    assert lumen.end_radius_mm.min() > 0.3
    # Beside, not within: no airway's middle lies in the artery it goes with.
    nodes = arteries.end_xyz_mm[arteries.flow >= 55]
    away, _ = cKDTree(nodes).query(wall.end_xyz_mm)
    assert (away > 0.9).mean() > 0.98


def test_one_seed_one_tree_and_another_another(chest, arteries):
    again, other = grow(chest, 5, "arteries"), grow(chest, 6, "arteries")
    np.testing.assert_array_equal(again.end_xyz_mm, arteries.end_xyz_mm)
    one, two = again.end_xyz_mm, other.end_xyz_mm
    assert one.shape != two.shape or np.abs(one - two).max() > 1.0
