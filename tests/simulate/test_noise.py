import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.simulate import noise
from labkit.simulate.vessels import Strands

PLACES = st.integers(-100_000, 100_000)


@settings(deadline=None, max_examples=50)
@given(PLACES, PLACES, PLACES, st.integers(0, 2**32 - 1))
def test_a_place_keeps_its_value_in_every_grid(x, y, z, salt):
    alone = noise.gaussian(x, y, z, salt)
    grid = noise.gaussian(
        np.arange(x - 2, x + 3)[None, None, :],
        np.arange(y - 1, y + 2)[None, :, None],
        np.arange(z - 3, z + 1)[:, None, None],
        salt,
    )
    assert grid[3, 1, 2] == alone


def test_values_are_gaussian_and_unrelated():
    axis = np.arange(60)
    white = noise.gaussian(axis[None, None, :], axis[None, :, None], axis[:, None, None], 5)
    assert white.mean() == pytest.approx(0.0, abs=0.01)
    assert white.std() == pytest.approx(1.0, abs=0.01)
    for axis_number in range(3):
        beside = np.roll(white, 1, axis=axis_number)
        assert abs(np.corrcoef(white.ravel(), beside.ravel())[0, 1]) < 0.01
    other = noise.gaussian(axis[None, None, :], axis[None, :, None], axis[:, None, None], 6)
    assert abs(np.corrcoef(white.ravel(), other.ravel())[0, 1]) < 0.01


def test_texture_is_smooth_between_its_points():
    x = np.arange(0.0, 30.0, 0.01)
    line = noise.texture(x, [0.0], [0.0], 3.0, 2)[0, 0]
    assert np.abs(np.diff(line)).max() < 0.03
    np.testing.assert_allclose(line[::300], noise.gaussian(np.arange(10), 0, 0, 2), atol=1e-5)


def test_a_rod_holds_its_own_volume_and_thin_ones_fade():
    x = np.arange(-8.0, 8.0, 0.25)

    def drawn(radius):
        rod = Strands(
            np.array([[-5.0, 0.1, 0.0]]), np.array([[5.0, 0.1, 0.0]]), *[np.array([radius])] * 2
        )
        into = np.zeros((len(x),) * 3, np.float32)
        rod.draw(into, x, x, x)
        return into

    volume = np.pi * 2.0**2 * 10 + 4 / 3 * np.pi * 2.0**3
    assert drawn(2.0).sum() * 0.25**3 == pytest.approx(volume, rel=0.05)
    assert drawn(2.0).max() == 1.0
    assert drawn(0.2).max() < 0.8


def test_strands_do_not_depend_on_the_grid_or_on_each_other_s_order():
    rng = np.random.default_rng(0)
    start = rng.uniform(-10, 10, (60, 3))
    end = start + rng.uniform(-6, 6, (60, 3))
    strands = Strands(start, end, rng.uniform(0.3, 3, 60), rng.uniform(0.3, 3, 60))
    x, y, z = 0.7 * np.arange(-15, 16), 0.7 * np.arange(-14, 14), 1.1 * np.arange(-9, 9)
    whole, part, turned = (
        np.zeros(s, np.float32) for s in ((18, 28, 31), (5, 20, 9), (18, 28, 31))
    )
    strands.draw(whole, x, y, z)
    strands.draw(part, x[20:29], y[3:23], z[6:11])
    strands.take(rng.permutation(60)).draw(turned, x, y, z)
    np.testing.assert_array_equal(part, whole[6:11, 3:23, 20:29])
    np.testing.assert_array_equal(turned, whole)
    assert 0.05 < (whole > 0).mean() < 0.9


def test_a_tapering_strand_is_thick_where_it_starts():
    taper = Strands(
        np.array([[0.0, 0.0, 0.0]]), np.array([[10.0, 0.0, 0.0]]), np.array([2.0]), np.array([0.5])
    )
    y = np.arange(-4.0, 4.0, 0.1)
    into = np.zeros((1, len(y), 2), np.float32)
    taper.draw(into, np.array([0.5, 9.5]), y, np.array([0.0]))
    widths = 0.1 * into[0].sum(axis=0)
    assert widths[0] == pytest.approx(2 * 1.925, abs=0.15)
    assert widths[1] == pytest.approx(2 * 0.575, abs=0.15)
