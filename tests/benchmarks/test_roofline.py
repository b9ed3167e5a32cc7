"""The cost of a training step is the one that a hand would count."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks.speed import counting, roofline
from labkit.errors import InputError
from labkit.models.mtcnn import MTCNN, UpsampledDeconv
from labkit.training.machines import Device

B = 4
CPU = Device.choose("cpu", "fp32")


def counted(module: nn.Module, x: torch.Tensor, needs_gradient: bool = True):
    return counting.cost(module, x, module(x), needs_gradient)


def test_a_convolution_by_hand():
    """32 filters of 24 x 3 x 3 at every place of 32 x 32, a product and a sum for each."""
    kind, flop, size = counted(nn.Conv2d(24, 32, 3, padding="same"), torch.zeros(B, 24, 32, 32))
    assert kind == counting.PRODUCT
    forward = B * 32 * 32 * 32 * (24 * 3 * 3) * 2
    assert flop == 3 * forward  # backward: one product for the input, one for the weights
    x, y, weights = B * 24 * 32 * 32 * 4, B * 32 * 32 * 32 * 4, 32 * 24 * 9 * 4
    assert size == (x + weights + y) + (y + x + weights + x + weights)


def test_the_first_layer_needs_no_gradient_of_the_image():
    x, layer = torch.zeros(B, 1, 64, 64), nn.Conv2d(1, 24, 5, padding="same")
    first, inner = counted(layer, x, needs_gradient=False), counted(layer, x)
    assert 3 * first[1] == 2 * inner[1]
    assert inner[2] - first[2] == x.numel() * 4


def test_a_deconvolution_counts_its_definition_not_its_shortcut():
    """24 channels through 5 x 5 to each of 64 x 64 pixels, though the layer needs 9 for 25."""
    _, flop, _ = counted(UpsampledDeconv(24, 1, 5), torch.zeros(B, 24, 32, 32))
    assert flop == 3 * 2 * B * 64 * 64 * 24 * 25


def test_a_fully_connected_layer_by_hand():
    _, flop, size = counted(nn.Linear(4096, 256), torch.zeros(B, 4096))
    assert flop == 3 * 2 * B * 4096 * 256
    x, y, weights = B * 4096 * 4, B * 256 * 4, 4096 * 256 * 4
    assert size == 3 * x + 3 * weights + 2 * y


def test_pooling_and_relu_hardly_compute_for_what_they_move():
    x = torch.zeros(B, 24, 64, 64)
    for layer in (nn.MaxPool2d(2), nn.ReLU()):
        kind, flop, size = counted(layer, x)
        assert kind == counting.ELEMENTWISE
        assert flop / size < 0.25
    _, flop, size = counted(nn.Conv2d(24, 32, 3, padding="same"), x)
    assert flop / size > 20


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


def test_half_the_precision_moves_half_the_activations():
    layer = nn.ReLU()
    full, half = torch.zeros(B, 8), torch.zeros(B, 8, dtype=torch.bfloat16)
    assert counted(layer, full)[2] == 2 * counted(layer, half)[2]


def test_a_layer_that_nobody_counted_is_an_error():
    with pytest.raises(InputError, match=r"GELU.*counting\.py"):
        counted(nn.GELU(), torch.zeros(2))


def test_operations_leave_out_views():
    a = torch.ones(4, 4)
    assert counting.executed(lambda: a.t()[0].reshape(4)) == counting.Executed(0, 0)
    assert counting.executed(lambda: torch.relu(a @ a)) == counting.Executed(2, 2 * 4**3)


@pytest.fixture(scope="module")
def measured() -> dict[str, dict]:
    """The stages of a step at a batch of 4, by name."""
    clock = roofline.Clock(cuda=False, repeats=1, least_s=0.0)
    found = roofline.step(CPU, clock, B)
    assert found["flop"] == sum(s["flop"] for s in found["stages"])
    assert 100 < found["operations"] < 400
    return {s["stage"].removesuffix(" + pooling"): s for s in found["stages"]}


@pytest.mark.parametrize("stage", ["conv 2", "conv 3", "FC 1", "FC 2", "FC 3"])
def test_plain_layers_execute_their_definition_by_pytorchs_counter(measured, stage):
    assert measured[stage]["flop_executed"] == measured[stage]["flop"]


def test_a_deconvolution_executes_less_than_its_definition(measured):
    """Of 5 x 5 products at a pixel of the last one 9 are left, and some for adding its weights."""
    last = measured["deconv 3"]
    assert last["flop_executed"] == pytest.approx(last["flop"] * 9 / 25, rel=0.05)
    for stage in ("deconv 1", "deconv 2"):
        assert measured[stage]["flop_executed"] <= 1.1 * measured[stage]["flop"]


def test_every_stage_of_the_network_is_there(measured):
    assert all(min(s["flop"], s["bytes"], s["seconds"]) > 0 for s in measured.values())
    for branch, layers in (("conv", 3), ("FC", 3), ("deconv", 3)):
        assert sum(n.startswith(f"{branch} ") for n in measured) == layers
    assert {"augmentation", "losses", "optimiser", "ReLU"} <= set(measured)


def test_weights_outside_the_branches_are_an_error():
    network = MTCNN()
    network.extra = nn.Linear(1, 1)
    images = torch.rand(2, 1, 64, 64)
    with pytest.raises(InputError, match="outside"):
        counting.calls(network, images, CPU.autocast, lambda a, b: a.sum() + b.sum())


def test_only_what_ran_on_a_gpu_is_a_kernel():
    cuda, cpu = torch.autograd.DeviceType.CUDA, torch.autograd.DeviceType.CPU

    def event(name, device, us, label=False):
        span = SimpleNamespace(elapsed_us=lambda: us)
        return SimpleNamespace(
            name=name, device_type=device, time_range=span, is_user_annotation=label
        )

    events = [
        event("aten::mm", cpu, 9.0),
        event("sm90_gemm", cuda, 3.0),
        event("vectorized_elementwise_kernel", cuda, 1.0),
        event("Optimizer.step#Adam.step", cuda, 50.0),
        event("a span", cuda, 60.0, label=True),
    ]
    count, seconds = roofline.on_gpu(events)
    assert count == 2 and seconds == pytest.approx(4e-6)


def test_a_gpus_step_tells_kernels_from_what_lies_between_them(monkeypatch):
    """The GPU's path, with a stand-in for the GPU: no number of it is looked at."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(roofline, "kernels", lambda work: (150, 1e-4))
    found = roofline.step(CPU, roofline.Clock(cuda=True, repeats=1, least_s=0.0), B)
    assert (found["kernels"], found["kernel_seconds"]) == (150, 1e-4)
    stages = {s["stage"]: s["kernel_seconds"] for s in found["stages"]}
    assert stages["conv 2"] == pytest.approx(1e-4)
    whole = {
        "roof": {"flop_per_s": {"fp32": 1e11}, "bytes_per_s": {"copy": 1e10}},
        "steps": {"fp32": found}, "networks": 9, "launch_seconds": 4e-6,
    }  # fmt: skip
    assert "9 networks: 1350 kernels, 5.40 ms to hand over" in roofline.report(whole)
