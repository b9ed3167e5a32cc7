import numpy as np
import pytest
from matplotlib.path import Path as Polygon

from labkit.annotations import lidc
from labkit.annotations.lidc import Contour
from labkit.errors import InputError
from labkit.simulate.nodule import consensus
from tests.simulate.simulated_spheres import ball_reader


@pytest.mark.parametrize(
    ("radius", "pixel", "spacing"),
    [(3.0, 0.6, 1.0), (5.0, 0.7, 1.25), (8.0, 0.8, 2.5), (12.0, 0.7, 2.0), (25.0, 0.7, 1.25)],
)
def test_outlines_of_a_ball_give_its_volume_place_and_depth(radius, pixel, spacing):
    reader = ball_reader(radius, pixel, spacing, row=300.2, col=140.7, z_mm=-31.0)
    shape = consensus([reader], pixel, spacing)
    volume = 4 / 3 * np.pi * radius**3
    assert shape.volume_mm3 == pytest.approx(volume, rel=0.07)
    expected = [(140.7 - 255.5) * pixel, (300.2 - 255.5) * pixel, -31.0]
    np.testing.assert_allclose(shape.center_xyz_mm, expected, atol=0.3)
    # The signed distance is measured within slices, so on the middle slice it is the ball's.
    # (The cone's very tip is smoothed away.)
    x = expected[0] + np.array([0.5 * radius, radius, radius + 3.0])
    z = np.round(-31.0 / spacing) * spacing
    depth = shape.distance_at(x, [expected[1]], [z])[0, 0]
    edge = np.sqrt(radius**2 - (z + 31.0) ** 2)
    np.testing.assert_allclose(depth, x - expected[0] - edge, atol=0.8 * pixel)


def test_the_shape_between_slices_is_between_them():
    """A cone's middle slice, left out, comes back from its neighbours."""

    def cone(z):
        return ball_reader(8.0 - z, 0.6, 100.0)[0].vertices_row_col_px

    shape = consensus([[Contour(0, z, True, cone(z)) for z in (0.0, 4.0)]], 0.6, 4.0)
    x = np.arange(-12.0, 12.0, 0.1)
    width = 0.1 * (shape.distance_at(x, [0.0], [2.0]) < 0).sum()
    assert width == pytest.approx(2 * 6.0, abs=0.5)


def test_ends_are_round_and_hold_half_a_slice():
    flat = ball_reader(6.0, 0.6, 100.0)[0].vertices_row_col_px
    shape = consensus([[Contour(0, 0.0, True, flat)]], 0.6, 5.0)
    x = np.arange(-9.0, 9.0, 0.1)
    widths = 0.1 * (shape.distance_at(x, [0.0], [0.0, 2.0, 3.5, 4.8]) < 0).sum(axis=(1, 2))
    assert widths[0] > widths[1] > widths[2] > 0
    assert widths[3] == 0
    assert shape.volume_mm3 == pytest.approx(np.pi * 6.0**2 * 5.0, rel=0.08)


def test_readers_who_disagree_are_averaged():
    small, large = ball_reader(4.0, 0.7, 1.0), ball_reader(8.0, 0.7, 1.0)
    shape = consensus([small, large], 0.7, 1.0)
    z, y, x = (n // 2 for n in shape.agreement.shape)
    assert shape.agreement[z, y, x] == 1.0
    # At 6 mm one reader of two is inside, and the mean of the distances (2 and -2) is zero.
    at = round((6.0 - shape.first_xyz_mm[0]) / shape.step_xyz_mm[0])
    assert shape.agreement[z, y, at] == pytest.approx(0.5, abs=0.05)
    assert shape.distance_mm[z, y, at] == pytest.approx(0.0, abs=0.7)
    both = 4 / 3 * np.pi * (4.0**3 + 8.0**3) / 2
    assert shape.volume_mm3 == pytest.approx(both, rel=0.06)


def test_a_hole_is_not_nodule():
    outer, hole = ball_reader(10.0, 0.7, 1.0), ball_reader(4.0, 0.7, 1.0, inclusion=False)
    shape = consensus([outer + hole], 0.7, 1.0)
    assert shape.distance_at([0.0], [0.0], [0.0])[0, 0, 0] > 2.0
    # The hole's own outline belongs to the hole: half a pixel more on either side.
    holes = 4 / 3 * np.pi * (4.0 + 0.7) ** 3
    assert shape.volume_mm3 == pytest.approx(4 / 3 * np.pi * 1000 - holes, rel=0.07)


def test_a_dot_is_a_small_nodule_and_no_outline_an_error():
    dot = Contour(0, 10.0, True, np.array([[200, 300]]))
    shape = consensus([[dot]], 0.7, 1.25)
    assert 0 < shape.volume_mm3 < 4.0
    expected = [44.5 * 0.7, -55.5 * 0.7, 10.0]
    np.testing.assert_allclose(shape.center_xyz_mm, expected, atol=0.4)
    for readers in ([], [[]]):
        with pytest.raises(InputError, match="at least one outline"):
            consensus(readers, 0.7, 1.25)


def _counted_volume_mm3(contours, pixel, spacing):
    """Pixels strictly inside, counted by matplotlib's own polygons."""
    vertices = np.concatenate([c.vertices_row_col_px for c in contours])
    axes = [np.arange(vertices[:, i].min(), vertices[:, i].max() + 1) for i in (0, 1)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    slices = {}
    for c in contours:
        if c.inclusion:
            on_edge = {tuple(v) for v in c.vertices_row_col_px}
            inside = Polygon(c.vertices_row_col_px).contains_points(points)
            inside &= [tuple(p) not in on_edge for p in points]
            slices[c.z_mm] = slices.get(c.z_mm, False) | inside
    return sum(s.sum() for s in slices.values()) * pixel**2 * spacing


def test_real_outlines_keep_the_mean_of_the_readers_volumes():
    table = lidc.nodules()
    # Of middle size, so that counting pixels is a fair reference and quick.
    table = table[(table["diameter_mm"] > 8) & (table["diameter_mm"] < 20)]
    ratios = []
    for _, row in table.sample(25, random_state=3).iterrows():
        readers = {}
        for contour in lidc.contours(row["nodule_id"]):
            readers.setdefault(contour.annotation_id, []).append(contour)
        pixel, spacing = row["pixel_spacing_mm"], row["slice_spacing_mm"]
        counted = [_counted_volume_mm3(r, pixel, spacing) for r in readers.values()]
        shape = consensus(list(readers.values()), pixel, spacing)
        ratios.append(shape.volume_mm3 / np.mean(counted))
    assert np.median(ratios) == pytest.approx(1.0, abs=0.05)
    assert np.all(np.abs(np.array(ratios) - 1.0) < 0.25)
