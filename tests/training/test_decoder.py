"""A new decoder on a network that is held still."""

import numpy as np
import pytest
import torch

from labkit.errors import InputError
from labkit.evaluation.reconstruction import psnr
from labkit.imaging.views import window
from labkit.models.mtcnn import MTCNN, STCNN
from labkit.training.config import TrainingConfig
from labkit.training.loop import reconstruct_view
from labkit.training.machines import Device
from labkit.training.probes import with_new_decoder

CPU = Device.choose("cpu", "fp32")


def quick(epochs=8, **changes):
    return TrainingConfig.brief(
        epochs=epochs, precision="fp32", batch_size=8, shift_px=0, **changes
    )


@pytest.fixture(scope="module")
def views():
    """Air with a bright disc of varying size."""
    row, col = np.mgrid[:76, :76] - 37.5
    radius = np.linspace(5, 20, 24)[:, None, None]
    return np.where(row**2 + col**2 < radius**2, 100, -900).astype(np.int16)


@pytest.mark.parametrize("kind", [STCNN, MTCNN])
def test_only_the_decoder_learns(kind, views):
    torch.manual_seed(0)
    network = kind()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    whole = with_new_decoder(network, views, quick(), CPU, seed=1)
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, before[name]), "the network that was given is left alone"
        if not name.startswith("reconstruct"):
            assert torch.equal(whole.state_dict()[name], before[name])
    assert not whole.training


def test_a_decoder_learns_to_draw(views):
    torch.manual_seed(0)
    network = STCNN()
    x = window(views[:, 6:70, 6:70])
    whole = with_new_decoder(network, views, quick(60, learning_rate=3e-3), CPU, seed=1)
    drawn = reconstruct_view(whole, views, CPU)
    mean = np.broadcast_to(x.mean(axis=0), x.shape)
    assert psnr(x, drawn).mean() > psnr(x, mean).mean()


def test_decoders_of_one_seed_begin_alike_and_a_trained_one_is_thrown_away(views):
    torch.manual_seed(0)
    single = STCNN()
    torch.manual_seed(5)
    both = MTCNN()
    both.load_state_dict({**both.state_dict(), **single.state_dict()})
    one, two = (with_new_decoder(n, views, quick(), CPU, seed=3) for n in (single, both))
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, two.state_dict()[name]), name
    other = with_new_decoder(single, views, quick(), CPU, seed=4)
    assert not torch.equal(one.reconstruct[0].weight, other.reconstruct[0].weight)


def test_nothing_to_learn_from_is_refused(views):
    with pytest.raises(InputError, match="there are none"):
        with_new_decoder(STCNN(), views[:0], quick(), CPU, seed=0)
