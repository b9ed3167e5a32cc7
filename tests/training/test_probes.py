"""A new decoder on a network that is held still; both losses' gradients while one trains."""

import numpy as np
import pytest
import torch

from labkit.errors import InputError
from labkit.evaluation.reconstruction import psnr
from labkit.imaging.views import window
from labkit.models.mtcnn import MTCNN, STCNN
from labkit.training.config import TrainingConfig
from labkit.training.loop import reconstruct_view, train_view
from labkit.training.loss import classification_loss, reconstruction_loss
from labkit.training.machines import Device
from labkit.training.probes import pull, watch, with_new_decoder

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


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.rand(8, 1, 64, 64), torch.arange(8) % 2


def test_a_pull_is_the_length_of_a_losss_own_gradient(batch):
    images, labels = batch
    torch.manual_seed(1)
    network, gradients = MTCNN().eval(), []
    found = pull(network, images, labels)
    assert all(p.grad is None for p in network.parameters())
    for loss, target in ((classification_loss, labels), (reconstruction_loss, images)):
        network.zero_grad()
        loss(network.logits(images)[loss is reconstruction_loss], target).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.share.parameters()]))
    cls, img = gradients
    assert found.cls == pytest.approx(float(cls.norm()), rel=1e-4)
    assert found.img == pytest.approx(float(img.norm()), rel=1e-4)
    cosine = torch.nn.functional.cosine_similarity(cls, img, dim=0)
    assert found.cosine == pytest.approx(float(cosine), abs=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_watching_changes_nothing(discs, alpha):
    config = TrainingConfig.brief(epochs=2, views=(0,), alpha=alpha, precision="fp32")
    rows = np.flatnonzero(discs.nodules["label"].notna())
    views, labels = discs.views[rows, 0], discs.nodules["label"].to_numpy()[rows].astype(int)
    watched = watch(views, labels, config, CPU, seed=3)
    trained = train_view(views, labels, views, labels, config, CPU, seed=3)
    for name in ("train_cls", "train_img"):
        theirs = [row[name] for row in trained.history]
        assert watched[name].tolist() == pytest.approx(theirs, rel=1e-4)
    assert (watched[["cls", "img"]] > 0).all(axis=None)
    assert watched["cosine"].between(-1, 1).all()


def test_what_has_no_second_loss_or_a_third_is_refused(batch, discs):
    with pytest.raises(InputError, match="no second loss"):
        pull(STCNN(), *batch)
    for changes, why in (({"model": "st"}, "no second loss"), ({"l2": 1e-4}, "l2 pulls as well")):
        config = TrainingConfig.brief(epochs=1, views=(0,), **changes)
        with pytest.raises(InputError, match=why):
            watch(discs.views[:4, 0], np.array([0, 1, 0, 1]), config, CPU, seed=0)
