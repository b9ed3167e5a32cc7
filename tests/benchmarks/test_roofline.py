"""The cost of a training step is the one that a hand would count."""

import pytest
import torch
from torch import nn

from benchmarks.speed import roofline
from labkit.errors import InputError
from labkit.models.mtcnn import UpsampledDeconv
from labkit.training.machines import Device

B = 4
CPU = Device.choose("cpu", "fp32")


def counted(module: nn.Module, x: torch.Tensor, needs_gradient: bool = True):
    return roofline.cost(module, x, module(x), needs_gradient)


@pytest.mark.parametrize(
    ("module", "shape", "forward", "x", "y", "weights"),
    [
        # 32 filters of 24 x 3 x 3 at every place of 32 x 32, a product and a sum for each.
        (nn.Conv2d(24, 32, 3, padding="same"), (24, 32, 32), 32 * 32 * 32 * (24 * 3 * 3) * 2,
         24 * 32 * 32, 32 * 32 * 32, 32 * 24 * 9),
        # 24 channels through 5 x 5 to each of 64 x 64 pixels, though the layer needs 9 for 25.
        (UpsampledDeconv(24, 1, 5), (24, 32, 32), 2 * 64 * 64 * 24 * 25, 24 * 32 * 32, 64 * 64,
         24 * 25),
        (nn.Linear(4096, 256), (4096,), 2 * 4096 * 256, 4096, 256, 4096 * 256),
    ],
    ids=["convolution", "deconvolution", "fully connected"],
)  # fmt: skip
def test_a_layer_by_hand(module, shape, forward, x, y, weights):
    kind, flop, size = counted(module, torch.zeros(B, *shape))
    assert kind == roofline.PRODUCT
    assert flop == 3 * B * forward  # backward: one product for the input, one for the weights
    assert size == 4 * (3 * B * x + 2 * B * y + 3 * weights)
    # The first layer needs no gradient of the image.
    _, first, moved = counted(module, torch.zeros(B, *shape), needs_gradient=False)
    assert 3 * first == 2 * flop and size - moved == 4 * B * x


def test_pooling_and_relu_hardly_compute_for_what_they_move():
    x = torch.zeros(B, 24, 64, 64)
    for layer in (nn.MaxPool2d(2), nn.ReLU()):
        kind, flop, size = counted(layer, x)
        assert kind == roofline.ELEMENTWISE and flop / size < 0.25
        assert size > 1.9 * counted(layer, x.bfloat16())[2]  # half the precision moves half
    _, flop, size = counted(nn.Conv2d(24, 32, 3, padding="same"), x)
    assert flop / size > 20
    with pytest.raises(InputError, match=r"GELU.*roofline\.py"):
        counted(nn.GELU(), x)


def test_a_convolution_that_pools_moves_less_than_both_apart():
    class Pooled(nn.Conv2d):
        def forward(self, x):
            return nn.functional.max_pool2d(super().forward(x), 2)

    x, plain = torch.zeros(B, 1, 64, 64), nn.Conv2d(1, 24, 5, padding="same")
    _, flop, size = counted(Pooled(1, 24, 5, padding="same"), x, needs_gradient=False)
    _, conv_flop, conv_size = counted(plain, x, needs_gradient=False)
    _, pool_flop, pool_size = counted(nn.MaxPool2d(2), plain(x))
    assert conv_flop < flop <= conv_flop + pool_flop
    assert size < conv_size < conv_size + pool_size


def test_every_stage_is_there_and_executes_what_pytorch_counts():
    found = roofline.step(CPU, B, repeats=1)
    stages = {s["stage"].removesuffix(" + pooling"): s for s in found["stages"]}
    assert found["flop"] == sum(s["flop"] for s in found["stages"])
    assert 100 < found["operations"] < 400
    assert all(min(s["flop"], s["bytes"], s["seconds"]) > 0 for s in stages.values())
    for branch in ("conv", "FC", "deconv"):
        assert sum(n.startswith(f"{branch} ") for n in stages) == 3
    assert {"augmentation", "losses", "optimiser", "ReLU"} <= set(stages)
    for plain in ("conv 2", "conv 3", "FC 1", "FC 2", "FC 3"):
        assert stages[plain]["flop_executed"] == stages[plain]["flop"]
    # Of 5 x 5 products at a pixel of the last one 9 are left, and some for adding its weights.
    last = stages["deconv 3"]
    assert last["flop_executed"] == pytest.approx(last["flop"] * 9 / 25, rel=0.05)
    for stage in ("deconv 1", "deconv 2"):
        assert stages[stage]["flop_executed"] <= 1.1 * stages[stage]["flop"]
    step = roofline.Step(CPU, 2)
    step.network.extra = nn.Linear(1, 1)
    with pytest.raises(InputError, match="outside"):
        step.layers()
