"""The cost of a training step is the one that a hand would count."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks.speed import roofline
from labkit.errors import InputError
from labkit.models.mtcnn import UpsampledDeconv
from labkit.training.machines import Device

B = 4
CPU = Device.choose("cpu", "fp32")
CLOCK = roofline.Clock(cuda=False, repeats=1, least_s=0.0)


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


def test_the_first_layer_needs_no_gradient_of_the_image():
    x, layer = torch.zeros(B, 1, 64, 64), nn.Conv2d(1, 24, 5, padding="same")
    first, inner = counted(layer, x, needs_gradient=False), counted(layer, x)
    assert 3 * first[1] == 2 * inner[1]
    assert inner[2] - first[2] == x.numel() * 4


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
    found = roofline.step(CPU, CLOCK, B)
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


def test_weights_outside_the_branches_are_an_error():
    step = roofline.Step(CPU, 2)
    step.network.extra = nn.Linear(1, 1)
    with pytest.raises(InputError, match="outside"):
        step.layers()


def test_a_gpus_step_tells_kernels_from_what_lies_between_them(monkeypatch):
    """The GPU's path, with a stand-in for the GPU: no number of it is looked at."""
    cuda, cpu = torch.autograd.DeviceType.CUDA, torch.autograd.DeviceType.CPU
    events = [
        SimpleNamespace(name=name, device_type=device, is_user_annotation=label,
                        time_range=SimpleNamespace(elapsed_us=lambda us=us: us))
        for name, device, us, label in (
            ("aten::mm", cpu, 9.0, False), ("sm90_gemm", cuda, 3.0, False),
            ("vectorized_elementwise_kernel", cuda, 1.0, False),
            ("Optimizer.step#Adam.step", cuda, 50.0, False), ("a span", cuda, 60.0, True),
        )
    ]  # fmt: skip
    assert roofline.on_gpu(events) == (2, pytest.approx(4e-6))  # only what ran on it is a kernel
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(roofline, "kernels", lambda work: (150, 1e-4))
    found = roofline.step(CPU, CLOCK._replace(cuda=True), B)
    assert (found["kernels"], found["kernel_seconds"]) == (150, 1e-4)
    stages = {s["stage"]: s["kernel_seconds"] for s in found["stages"]}
    assert stages["conv 2"] == pytest.approx(1e-4)
