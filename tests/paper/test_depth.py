"""Verdicts on depth follow the numbers; costs are counted as PyTorch's own profiler sees them."""

import copy

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from labkit.paper import fig6
from labkit.paper.claims import CANNOT, CONTRADICTED, NOT_FINISHED, NOT_SHOWN, SHOWN
from labkit.paper.declared import DEPTHS, depth_label
from labkit.training.config import TrainingConfig
from labkit.training.loop import build_network
from labkit.training.loss import classification_loss
from labkit.training.machines import Device

CLAIMS = (
    "rising", "much better", "same", "falling", "no worse", "growing", "time", "memory", "best",
)  # fmt: skip
# As IV-D tells it: MT rises and levels off, ST falls beyond three.
PRINTED = {"mt": (0.80, 0.84, 0.95, 0.955, 0.955), "st": (0.80, 0.84, 0.86, 0.82, 0.80)}
ALIKE = {"mt": (0.900,) * 5, "st": (0.901,) * 5}


def pair(value, half_width):
    low, high = value - half_width, value + half_width
    return {
        "auc_difference": {"value": value, "low": low, "high": high},
        "within_folds_difference": {"value": value, "low": low, "high": high},
        "found": low > 0 or high < 0,
        "equivalence": {"margin": 0.02, "shown": max(-low, high) < 0.02},
    }


def sweep(aucs, half_width=0.008, four_to_three=(1.0, 0.7), device="NVIDIA V100, fp32"):
    """A sweep with these AUCs by depth, and four layers this many times as dear as three."""
    by_label = {depth_label(m, d): aucs[m][d - 1] for m in aucs for d in DEPTHS}
    asked = [(depth_label("mt", d), depth_label("st", d)) for d in DEPTHS]
    asked += [(depth_label(m, d), depth_label(m, 3)) for m in aucs for d in DEPTHS if d != 3]
    seconds, memory = four_to_three
    of = {
        label: {"seconds_a_step": seconds if "4" in label else 1.0,
                "memory_mb": memory if "4" in label else 1.0}
        for label in by_label
    }  # fmt: skip
    return {
        "comparisons": {
            f"{a} less {b}": pair(by_label[a] - by_label[b], half_width) for a, b in asked
        },
        "costs": {"device": device, "of": of},
    }


def judged(values):
    return dict(zip(CLAIMS, fig6.depth_verdicts(values)["verdict"], strict=True))


def test_a_sweep_as_the_paper_describes_it_confirms_the_paper():
    told = judged(sweep(PRINTED, four_to_three=(1.5, 1.5)))
    assert told == dict.fromkeys(CLAIMS, SHOWN)


def test_depths_that_are_alike_contradict_what_is_much_and_show_what_is_same():
    told = judged(sweep(ALIKE))
    assert told["much better"] == CONTRADICTED
    assert told["rising"] == told["falling"] == told["growing"] == NOT_SHOWN
    assert told["same"] == told["no worse"] == told["best"] == SHOWN
    assert told["time"] == told["memory"] == CONTRADICTED


def test_wide_intervals_leave_everything_about_auc_open():
    told = judged(sweep(PRINTED, half_width=0.3))
    assert {told[c] for c in CLAIMS if c not in ("time", "memory")} == {NOT_SHOWN}


def test_clear_opposites_contradict():
    fewer = {"mt": (0.95, 0.93, 0.90, 0.85, 0.80), "st": (0.80, 0.85, 0.90, 0.93, 0.95)}
    told = judged(sweep(fewer))
    for claim in ("rising", "much better", "same", "falling", "no worse", "growing", "best"):
        assert told[claim] == CONTRADICTED, claim


def test_a_claim_of_two_depths_needs_both():
    only_one = {**ALIKE, "mt": (0.80, 0.85, 0.90, 0.90, 0.90)}
    values = sweep(only_one)
    assert judged(values)["much better"] == SHOWN
    mt2 = f"{depth_label('mt', 2)} less {depth_label('mt', 3)}"
    open_one = copy.deepcopy(values)
    open_one["comparisons"][mt2] = pair(-0.02, 0.04)
    assert judged(open_one)["much better"] == NOT_SHOWN


def test_time_that_grows_for_one_network_only_is_open():
    values = sweep(ALIKE, four_to_three=(1.5, 0.7))
    values["costs"]["of"][depth_label("st", 4)]["seconds_a_step"] = 1.0
    assert judged(values)["time"] == NOT_SHOWN


def test_time_on_a_processor_says_nothing_of_a_gpu_and_memory_is_the_same():
    told = judged(sweep(ALIKE, device="CPU, 2 cores, bf16"))
    assert (told["time"], told["memory"]) == (CANNOT, CONTRADICTED)


def test_what_pooling_alone_finds_shows_nothing_and_contradicts_nothing():
    """As ST-CNN with four layers on the real cubes: -0.011 pooled, -0.007 within folds."""
    values = sweep(ALIKE)
    name = f"{depth_label('st', 4)} less {depth_label('st', 3)}"
    both = pair(-0.011, 0.008)
    values["comparisons"][name] = both
    assert judged(values)["falling"] == SHOWN
    inside = {"value": -0.007, "low": -0.017, "high": 0.002}
    values["comparisons"][name] = both | {"within_folds_difference": inside}
    assert judged(values)["falling"] == NOT_SHOWN
    measured = fig6.depth_verdicts(values)["measured"].iloc[CLAIMS.index("falling")]
    assert "within folds -0.007" in measured and "; 5: +0.000" in measured
    values["comparisons"][name] = pair(0.011, 0.008) | {"found": False}
    assert judged(values)["falling"] == NOT_SHOWN  # the opposite, lost to the correction


def test_what_is_not_finished_has_no_verdict():
    values = sweep(ALIKE)
    for name in [n for n in values["comparisons"] if depth_label("mt", 1) in n]:
        del values["comparisons"][name]
    told = judged(values)
    for claim in ("rising", "much better", "no worse", "growing", "best"):
        assert told[claim] == NOT_FINISHED, claim
    assert told["same"] == SHOWN
    nothing = {"comparisons": {}, "costs": {"device": "CPU", "of": {}}}
    assert set(judged(nothing).values()) == {NOT_FINISHED}


@pytest.mark.parametrize("model", ["st", "mt"])
def test_parts_add_up_and_fc1_shrinks_by_the_features(model):
    for d in DEPTHS:
        config = TrainingConfig(model=model, depth=d)
        parts = fig6.parameters_by_part(config)
        assert sum(parts.values()) == fig6.parameters(config)
        assert (parts["ImgNet"] > 0) == (model == "mt")
    fc1 = [fig6.parameters_by_part(TrainingConfig(depth=d))["FC1"] - 256 for d in DEPTHS]
    assert fc1 == [256 * n for n in (24_576, 8_192, 4_096, 1_024, 256)]


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
    """Weights and Adam's two means are there before a step; gradients come in it."""
    three, four = (TrainingConfig.brief(model="st", depth=d) for d in (3, 4))
    assert fig6.memory_mb(four) < 0.8 * fig6.memory_mb(three)
    watched = [most_allocated_mb(c) + 3 * 4 * fig6.parameters(c) / 1e6 for c in (three, four)]
    assert watched[1] < 0.9 * watched[0]
    for config, seen in zip((three, four), watched, strict=True):
        assert 0.7 < seen / fig6.memory_mb(config) < 1.5


def test_time_a_step_leaves_out_the_making_of_the_network():
    """FC1 of one layer takes far longer to draw than to train for one step."""
    small = {"precision": "fp32", "batch_size": 2, "model": "st"}
    configs = {d: TrainingConfig.brief(depth=d, **small) for d in (1, 5)}
    seconds = fig6.seconds_a_step(configs, Device.choose("cpu", "fp32"), rounds=1)
    assert 0 < seconds[5] < seconds[1] < 0.5


def test_networks_at_chance_are_counted_where_they_were_and_missing_where_not():
    counted = {"trained": {"networks": 27, "at_chance": 23}}
    before = {"trained": {"networks": 27}}
    values = {"variants": {depth_label("mt", 1): counted, depth_label("st", 3): before}}
    table = fig6.at_chance(values)
    assert table.loc[(1, "MT-CNN"), "at chance"] == 23
    assert table["at chance"].isna().tolist() == [False, True]
    assert len(table) == 2
