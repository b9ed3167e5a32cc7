"""Shift, quarter turn and mirror against numpy, on real pixels of the wider view."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labkit.imaging import views
from labkit.training import batches


def _one(shift_row, shift_col, turns, mirror):
    values = [torch.tensor([v]) for v in (shift_row, shift_col, turns, mirror)]
    return batches.Transforms(*values)


@given(st.integers(-6, 6), st.integers(-6, 6), st.integers(0, 3), st.integers(0, 2))
def test_equals_cropping_mirroring_and_turning_by_numpy(shift_row, shift_col, turns, mirror):
    image = np.random.default_rng(0).integers(-1000, 400, (76, 76)).astype(np.int16)
    crop = image[6 + shift_row : 70 + shift_row, 6 + shift_col : 70 + shift_col]
    if mirror == 1:
        crop = crop[:, ::-1]
    if mirror == 2:
        crop = crop[::-1]
    expected = views.window(np.rot90(crop, turns))
    ours = batches.apply(torch.from_numpy(image)[None], _one(shift_row, shift_col, turns, mirror))
    assert ours.shape == (1, 1, 64, 64)
    np.testing.assert_allclose(ours[0, 0], expected, atol=1e-6)


def test_identity_is_the_plain_central_crop():
    image = torch.randint(-1000, 400, (3, 76, 76), dtype=torch.int16)
    plain = batches.apply(image, batches.identity(3))
    np.testing.assert_allclose(plain[:, 0], views.window(image[:, 6:70, 6:70]), atol=1e-6)


def test_window_is_the_one_of_the_views():
    hu = torch.arange(-1500, 1000, 7, dtype=torch.int16)
    np.testing.assert_allclose(batches.window(hu), views.window(hu.numpy()), atol=1e-6)


@pytest.mark.parametrize("symmetries", ["all", "reflections"])
def test_shifts_cover_the_papers_range_and_nothing_else(symmetries):
    drawn = batches.draw(5000, 6, torch.Generator().manual_seed(0), symmetries)
    assert sorted(set(drawn.shift_row.tolist())) == list(range(-6, 7))
    assert sorted(set(drawn.shift_col.tolist())) == list(range(-6, 7))


def test_all_symmetries_of_a_square_occur_and_reflections_alone_mirror_every_image():
    """A square has eight symmetries; half of them turn its corners round the other way."""
    corners = torch.zeros(1, 76, 76, dtype=torch.int16)
    corners[0, 6:38, 6:38], corners[0, 6:38, 38:70], corners[0, 38:70, 6:38] = 100, 200, 300

    def seen(symmetries):
        drawn = batches.draw(4000, 0, torch.Generator().manual_seed(0), symmetries)
        images = batches.apply(corners.expand(4000, -1, -1), drawn)[:, 0]
        around = images[:, [0, 0, 63, 63], [0, 63, 63, 0]]
        return Counter(tuple(np.round(1400 * row - 1000).astype(int)) for row in around.numpy())

    turned = {tuple(np.roll([100, 200, 0, 300], k)) for k in range(4)}
    mirrored = {tuple(np.roll([300, 0, 200, 100], k)) for k in range(4)}
    assert set(seen("all")) == turned | mirrored
    assert set(seen("reflections")) == mirrored
    # Four turns times three flips: a pure turn comes of one pair, a mirrored image of two.
    for orientation, count in seen("all").items():
        assert abs(count / 4000 - (1 / 12 if orientation in turned else 1 / 6)) < 0.03


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_draws_the_same(seed):
    first, second = (batches.draw(50, 6, torch.Generator().manual_seed(seed)) for _ in range(2))
    for name in ("shift_row", "shift_col", "turns", "mirror"):
        assert torch.equal(getattr(first, name), getattr(second, name))
