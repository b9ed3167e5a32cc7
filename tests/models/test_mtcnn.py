"""The networks have the paper's shapes, sizes and starting weights."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from labkit.models.mtcnn import FILTERS, MTCNN, STCNN, UpsampledDeconv, by_phases


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("depth", range(1, 6))
def test_shapes_and_parameter_counts_at_every_depth(depth):
    """Weights and biases of each layer as Fig. 3 has them; ImgNet mirrors ShareNet."""
    network, side = MTCNN(depth=depth), 64 // 2**depth
    channels, kernels = (1, 24, 32, 64, 64, 64)[: depth + 1], (5, 3, 3, 3, 3)
    weights = sum(a * b * k**2 for a, b, k in zip(channels, channels[1:], kernels, strict=False))
    assert _count(network.share) == weights + sum(channels[1:])
    assert _count(network.reconstruct) == weights + sum(channels[:-1])
    neurons = (channels[-1] * side**2, 256, 16, 2)
    assert _count(network.classify) == sum((a + 1) * b for a, b in pairwise(neurons))
    images = torch.rand(3, 1, 64, 64)
    features = network.share(images)
    assert features.shape == (3, FILTERS[depth - 1], side, side)
    logits, image = network(images)
    assert logits.shape == (3, 2)
    assert image.shape == (3, 1, 64, 64)
    assert image.min() > 0 and image.max() < 1


def test_single_task_network_is_the_multi_task_one_without_its_decoder():
    torch.manual_seed(3)
    multi = MTCNN()
    torch.manual_seed(3)
    single = STCNN()
    shared = single.state_dict()
    assert set(multi.state_dict()) - set(shared) == {
        k for k in multi.state_dict() if k.startswith("reconstruct.")
    }
    for name, weight in shared.items():
        torch.testing.assert_close(weight, multi.state_dict()[name], rtol=0, atol=0)
    multi.eval(), single.eval()
    images = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(multi(images)[0], single(images)[0])
    assert single(images)[1] is None


def test_kaiming_weights_and_zero_biases():
    torch.manual_seed(0)
    network = MTCNN(depth=5)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert torch.all(parameter == 0), name
    # He et al.: the standard deviation is sqrt(2 / fan-in) before a ReLU.
    fc1 = network.classify[1].weight
    assert fc1.std().item() == pytest.approx(np.sqrt(2 / fc1.shape[1]), rel=0.02)
    conv = network.share[9].weight
    assert conv.std().item() == pytest.approx(np.sqrt(2 / (64 * 9)), rel=0.02)
    deconv = network.reconstruct[0].weight
    assert deconv.std().item() == pytest.approx(np.sqrt(2 / (64 * 9)), rel=0.02)


@pytest.mark.parametrize(
    ("place", "rates"), [("none", (0, 0)), ("fc1", (0.5, 0)), ("fc1+fc2", (0.5, 0.5))]
)
def test_dropout_sits_where_it_is_asked_for(place, rates):
    dropouts = [m.p for m in MTCNN(dropout_on=place).classify if isinstance(m, nn.Dropout)]
    assert tuple(dropouts) == rates


@pytest.mark.parametrize("bad", [{"depth": 0}, {"depth": 6}, {"dropout_on": "everywhere"}])
@pytest.mark.parametrize("kind", [MTCNN, STCNN])
def test_a_network_that_cannot_be_is_refused(kind, bad):
    with pytest.raises(ValueError, match="must be"):
        kind(**bad)


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.sampled_from([3, 5]),
    channels=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    channels_last=st.booleans(),
    phases=st.booleans(),
)
def test_upsampled_deconvolution_equals_upsampling_then_deconvolving(
    kernel, channels, shape, channels_last, phases
):
    torch.manual_seed(1)
    (inputs, outputs), (batch, height, width) = channels, shape
    ours = UpsampledDeconv(inputs, outputs, kernel).double()
    plain = nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.ConvTranspose2d(inputs, outputs, kernel, padding=kernel // 2).double(),
    )
    plain[1].load_state_dict(ours.state_dict())
    x = torch.randn(batch, inputs, height, width, dtype=torch.double)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    x_ours, x_plain = x.clone().requires_grad_(), x.clone().requires_grad_()
    y_ours = by_phases(x_ours, ours.weight, ours.bias) if phases else ours(x_ours)
    y_plain = plain(x_plain)
    torch.testing.assert_close(y_ours, y_plain)
    direction = torch.randn_like(y_plain)
    (y_ours * direction).sum().backward()
    (y_plain * direction).sum().backward()
    torch.testing.assert_close(x_ours.grad, x_plain.grad)
    torch.testing.assert_close(ours.weight.grad, plain[1].weight.grad)
    torch.testing.assert_close(ours.bias.grad, plain[1].bias.grad)


def test_pooling_before_relu_changes_nothing():
    torch.manual_seed(2)
    network = STCNN(depth=2)
    convolutions = [m for m in network.share if isinstance(m, nn.Conv2d)]
    textbook = nn.Sequential(
        *(layer for c in convolutions for layer in (c, nn.ReLU(), nn.MaxPool2d(2)))
    )
    images = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(network.share(images), textbook(images), rtol=0, atol=0)


def test_bfloat16_stays_near_float32():
    torch.manual_seed(5)
    network = MTCNN().eval()
    images = torch.rand(4, 1, 64, 64)
    with torch.no_grad():
        exact = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(images)
    for found, truth in zip(rounded, exact, strict=True):
        # Eight bits of mantissa, a handful of layers.
        apart = (found.float() - truth).square().mean().sqrt()
        assert apart < 0.02 * truth.square().mean().sqrt()
