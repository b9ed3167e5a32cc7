"""Shift, quarter turn and mirror against numpy, on real pixels of the wider view."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labkit.imaging import views
from labkit.training import augment


def _one(shift_row, shift_col, turns, mirror):
    values = [torch.tensor([v]) for v in (shift_row, shift_col, turns, mirror)]
    return augment.Transforms(*values)


@given(st.integers(-6, 6), st.integers(-6, 6), st.integers(0, 3), st.integers(0, 2))
def test_equals_cropping_mirroring_and_turning_by_numpy(shift_row, shift_col, turns, mirror):
    image = np.random.default_rng(0).integers(-1000, 400, (76, 76)).astype(np.int16)
    crop = image[6 + shift_row : 70 + shift_row, 6 + shift_col : 70 + shift_col]
    if mirror == 1:
        crop = crop[:, ::-1]
    if mirror == 2:
        crop = crop[::-1]
    expected = views.window(np.rot90(crop, turns))
    ours = augment.apply(torch.from_numpy(image)[None], _one(shift_row, shift_col, turns, mirror))
    assert ours.shape == (1, 1, 64, 64)
    np.testing.assert_allclose(ours[0, 0], expected, atol=1e-6)


def test_identity_is_the_plain_central_crop():
    image = torch.randint(-1000, 400, (3, 76, 76), dtype=torch.int16)
    plain = augment.apply(image, augment.identity(3))
    np.testing.assert_allclose(plain[:, 0], views.window(image[:, 6:70, 6:70]), atol=1e-6)


def test_window_is_the_one_of_the_views():
    hu = torch.arange(-1500, 1000, 7, dtype=torch.int16)
    np.testing.assert_allclose(augment.window(hu), views.window(hu.numpy()), atol=1e-6)


def test_draws_cover_the_papers_ranges_and_nothing_else():
    drawn = augment.draw(5000, 6, torch.Generator().manual_seed(0))
    assert sorted(set(drawn.shift_row.tolist())) == list(range(-6, 7))
    assert sorted(set(drawn.shift_col.tolist())) == list(range(-6, 7))
    assert set(drawn.turns.tolist()) == {1, 2, 3}
    assert set(drawn.mirror.tolist()) == {1, 2}


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_draws_the_same(seed):
    first, second = (augment.draw(50, 6, torch.Generator().manual_seed(seed)) for _ in range(2))
    for name in ("shift_row", "shift_col", "turns", "mirror"):
        assert torch.equal(getattr(first, name), getattr(second, name))
