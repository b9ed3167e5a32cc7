"""The networks have the paper's shapes, sizes and starting weights."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from labkit.models.mtcnn import FILTERS, KERNELS, MTCNN, STCNN, UpsampledDeconv, by_phases


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# Worked out by hand from Fig. 3: weights and biases of each layer.
SHARE = {
    1: 24 * 25 + 24,
    2: 24 * 25 + 24 + 32 * 24 * 9 + 32,
    3: 24 * 25 + 24 + 32 * 24 * 9 + 32 + 64 * 32 * 9 + 64,
}
SHARE[4] = SHARE[3] + 64 * 64 * 9 + 64
SHARE[5] = SHARE[4] + 64 * 64 * 9 + 64
FEATURES = {1: 24 * 32 * 32, 2: 32 * 16 * 16, 3: 64 * 8 * 8, 4: 64 * 4 * 4, 5: 64 * 2 * 2}
HEAD = 256 * 16 + 16 + 16 * 2 + 2
# The mirror image of ShareNet has its weights, and a bias for each channel going out.
DECODER_BIASES = {1: 1, 2: 25, 3: 57, 4: 121, 5: 185}
SHARE_BIASES = {1: 24, 2: 56, 3: 120, 4: 184, 5: 248}


@pytest.mark.parametrize("depth", range(1, 6))
def test_shapes_and_parameter_counts_at_every_depth(depth):
    network = MTCNN(depth=depth)
    assert _count(network.share) == SHARE[depth]
    assert _count(network.classify) == FEATURES[depth] * 256 + 256 + HEAD
    decoder = SHARE[depth] - SHARE_BIASES[depth] + DECODER_BIASES[depth]
    assert _count(network.reconstruct) == decoder
    images = torch.rand(3, 1, 64, 64)
    features = network.share(images)
    side = 64 // 2**depth
    assert features.shape == (3, FILTERS[depth - 1], side, side)
    logits, image = network(images)
    assert logits.shape == (3, 2)
    assert image.shape == (3, 1, 64, 64)
    assert image.min() > 0 and image.max() < 1


def test_three_layers_leave_4096_features_and_the_kernels_of_the_paper():
    network = MTCNN(depth=3)
    convolutions = [m for m in network.share if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [24, 32, 64]
    assert [c.kernel_size[0] for c in convolutions] == [5, 3, 3]
    linear = [m for m in network.classify if isinstance(m, nn.Linear)]
    assert [layer.in_features for layer in linear] == [4096, 256, 16]
    assert linear[-1].out_features == 2
    assert KERNELS[:3] == (5, 3, 3)


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


def test_layout_and_inference_mode_change_nothing():
    torch.manual_seed(4)
    network = MTCNN().eval()
    images = torch.rand(3, 1, 64, 64)
    logits, image = network(images)
    (logits.square().sum() + image.square().sum()).backward()
    expected = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    network.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        for found, truth in zip(network(images), (logits, image), strict=True):
            torch.testing.assert_close(found, truth.detach(), rtol=1e-4, atol=1e-5)
    logits, image = network(images.contiguous(memory_format=torch.channels_last))
    (logits.square().sum() + image.square().sum()).backward()
    for found, truth in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(
            found.grad, truth, rtol=1e-3, atol=1e-3 * float(truth.abs().max())
        )


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


def test_pooling_before_relu_changes_nothing():
    torch.manual_seed(2)
    network = STCNN(depth=2)
    convolutions = [m for m in network.share if isinstance(m, nn.Conv2d)]
    textbook = nn.Sequential(
        *(layer for c in convolutions for layer in (c, nn.ReLU(), nn.MaxPool2d(2)))
    )
    images = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(network.share(images), textbook(images), rtol=0, atol=0)
