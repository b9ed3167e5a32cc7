"""What a feature is counted to see is what its gradient reaches, and no more."""

import pytest
import torch

from labkit.errors import InputError
from labkit.models import receptive_field
from labkit.models.mtcnn import IMAGE_SIZE, MTCNN, STCNN


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("feature", [1, 2])
def test_a_pixel_moves_a_feature_where_its_field_says_so(depth, feature):
    """One pixel brighter, inside the field's corners and just outside of them."""
    torch.manual_seed(depth)
    network = STCNN(depth=depth).double().eval()
    images = torch.rand(16, 1, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.float64)
    start, end = receptive_field.receptive_field(depth).of(feature)
    before = network.share(images)[:, :, feature, feature]

    def moves(pixel):
        if not 0 <= pixel < IMAGE_SIZE:
            return None
        brighter = images.clone()
        brighter[:, :, pixel, pixel] += 5
        return bool((network.share(brighter)[:, :, feature, feature] != before).any())

    assert moves(start) in (True, None) and moves(end - 1) in (True, None)
    assert moves(start - 1) in (False, None) and moves(end) in (False, None)
    assert moves((start + end) // 2) is True


def test_every_layer_doubles_the_field():
    sizes = [receptive_field.receptive_field(d).size_px for d in range(1, 6)]
    assert sizes == [6 * 2**i for i in range(5)]
    for depth in range(1, 6):
        field = receptive_field.receptive_field(depth)
        assert field.step_px == IMAGE_SIZE // (IMAGE_SIZE >> depth)
        # A feature sees its own cell and the ring of cells around it.
        assert field.of(3) == (2 * field.step_px, 5 * field.step_px)
    with pytest.raises(InputError, match="1 to 5"):
        receptive_field.receptive_field(6)


@pytest.mark.parametrize("kind", [STCNN, MTCNN])
def test_influence_is_a_share_and_stays_within_the_field(kind):
    torch.manual_seed(0)
    network = kind(depth=2)
    moved = receptive_field.influence(network, torch.rand(4, 1, 64, 64))
    start, end = receptive_field.receptive_field(2).of(receptive_field.central(2))
    assert moved.shape == (64, 64) and moved.sum() == pytest.approx(1)
    assert moved[start:end, start:end].sum() == pytest.approx(1)
    assert all(p.grad is None for p in network.parameters())
    half = receptive_field.reach_px(moved, 2, 0.5)
    assert 0 < half < receptive_field.reach_px(moved, 2, 0.99) <= end - start


def test_features_that_never_answer_have_no_influence():
    network = STCNN(depth=1)
    torch.nn.init.constant_(network.share[0].bias, -1e6)
    with pytest.raises(InputError, match="no central feature answers"):
        receptive_field.influence(network, torch.rand(2, 1, 64, 64))
