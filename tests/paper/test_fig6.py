"""Costs of a depth are counted as PyTorch's own profiler sees them."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from labkit.paper import fig6
from labkit.paper.declared import DEPTHS
from labkit.training.config import TrainingConfig
from labkit.training.loop import build_network
from labkit.training.loss import classification_loss
from labkit.training.machines import Device


def test_parameters_are_those_of_figure_3():
    share = 24 * 25 + 24 + 32 * 24 * 9 + 32 + 64 * 32 * 9 + 64
    classify = 4096 * 256 + 256 + 256 * 16 + 16 + 16 * 2 + 2
    decoder = 64 * 32 * 9 + 32 + 32 * 24 * 9 + 24 + 24 * 25 + 1
    assert fig6.parameters(TrainingConfig(model="st")) == share + classify
    assert fig6.parameters(TrainingConfig(model="mt")) == share + classify + decoder


@pytest.mark.parametrize("model", ["st", "mt"])
def test_parts_add_up_and_fc1_shrinks_by_the_features(model):
    for d, features in zip(DEPTHS, (24_576, 8_192, 4_096, 1_024, 256), strict=True):
        config = TrainingConfig(model=model, depth=d)
        parts, network = fig6.parameters_by_part(config), build_network(config)
        assert sum(parts.values()) == sum(p.numel() for p in network.parameters())
        assert (parts["ImgNet"] > 0) == (model == "mt")
        assert parts["FC1"] == 256 * features + 256


def most_allocated_mb(config):
    """What a step allocates at most, watched: features, gradients, what kernels need for a time."""
    network = build_network(config)
    images = torch.rand(config.batch_size, 1, 64, 64)
    labels = torch.arange(config.batch_size) % 2
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        classification_loss(network.logits(images)[0], labels, config.output).backward()
    events = [e for e in watched.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most / 1e6


def test_a_fourth_layer_takes_less_memory_counted_and_watched():
    """It keeps more of the images, but FC1 sees a quarter as many pixels.

    Weights and Adam's two means are there before a step; gradients come in it.
    """
    three, four = (TrainingConfig.brief(model="st", depth=d) for d in (3, 4))
    assert fig6.kept_mb(four) > fig6.kept_mb(three)
    assert fig6.memory_mb(four) < 0.8 * fig6.memory_mb(three)
    watched = [most_allocated_mb(c) + 3 * 4 * fig6.parameters(c) / 1e6 for c in (three, four)]
    assert watched[1] < 0.9 * watched[0]
    for config, seen in zip((three, four), watched, strict=True):
        assert 0.7 < seen / fig6.memory_mb(config) < 1.5


def test_time_a_step_leaves_out_the_making_of_the_network():
    """FC1 of one layer takes far longer to draw than to train for one step."""
    small = {"precision": "fp32", "batch_size": 2}
    configs = {d: TrainingConfig.brief(depth=d, model="st", **small) for d in (1, 5)}
    configs["mt"] = TrainingConfig.brief(depth=5, **small)
    found = fig6.costs(configs, Device.choose("cpu", "fp32"))
    assert 0 < found[5]["seconds_a_step"] < found[1]["seconds_a_step"] < 0.5
    assert found["mt"]["gflop_a_step"] > found[5]["gflop_a_step"] > 0
