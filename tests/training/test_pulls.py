"""The pulls are gradients of the two losses, and watching a training does not change it."""

import numpy as np
import pytest
import torch

from labkit.errors import InputError
from labkit.models.mtcnn import MTCNN, STCNN
from labkit.training.config import TrainingConfig
from labkit.training.loop import train_view
from labkit.training.loss import classification_loss, reconstruction_loss
from labkit.training.machines import Device
from labkit.training.probes import pull, watch

CPU = Device.choose("cpu", "fp32")


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.rand(8, 1, 64, 64), torch.arange(8) % 2


@pytest.fixture
def network():
    torch.manual_seed(1)
    return MTCNN().eval()


def share_gradient(network, loss):
    network.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in network.share.parameters()])


def test_a_pull_is_the_length_of_a_losss_own_gradient(network, batch):
    images, labels = batch
    found = pull(network, images, labels)
    assert all(p.grad is None for p in network.parameters())
    logits, drawn = network.logits(images)
    cls = share_gradient(network, classification_loss(logits, labels))
    logits, drawn = network.logits(images)
    img = share_gradient(network, reconstruction_loss(drawn, images))
    assert found.cls == pytest.approx(float(cls.norm()), rel=1e-4)
    assert found.img == pytest.approx(float(img.norm()), rel=1e-4)
    cosine = torch.nn.functional.cosine_similarity(cls, img, dim=0)
    assert found.cosine == pytest.approx(float(cosine), abs=1e-4)


def test_only_sharenet_hears_both_losses(network, batch):
    images, labels = batch
    reconstruction_loss(network.logits(images)[1], images).backward()
    assert all(p.grad is None for p in network.classify.parameters())
    network.zero_grad()
    classification_loss(network.logits(images)[0], labels).backward()
    assert all(p.grad is None for p in network.reconstruct.parameters())


def test_a_nearly_perfect_drawing_pulls_at_nothing_though_its_loss_is_large():
    image = torch.full((2, 1, 64, 64), 0.5)
    drawn = torch.zeros_like(image, requires_grad=True)  # logits of 0.5
    loss = reconstruction_loss(drawn, image)
    loss.backward()
    assert loss.item() == pytest.approx(np.log(2), abs=1e-6)
    assert float(drawn.grad.abs().max()) < 1e-9


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
