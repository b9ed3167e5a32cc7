"""What the paper says of depth (Fig. 6, IV-D) beside what was measured, and what a depth costs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from labkit.evaluation.statistics import MARGIN_AUC, Interval
from labkit.models.mtcnn import IMAGE_SIZE
from labkit.paper.claims import (
    CANNOT,
    CONTRADICTED,
    NOT_FINISHED,
    NOT_SHOWN,
    SHOWN,
    better_pair,
    inside,
    pooled,
    side,
    signed,
    within,
)
from labkit.paper.declared import DEPTHS, depth_label
from labkit.training.config import TrainingConfig
from labkit.training.loop import Row, build_network, train_view
from labkit.training.loss import classification_loss, reconstruction_loss
from labkit.training.machines import Device, one_thread
from labkit.training.side_by_side import step_flop

# What a training costs: parameters, arithmetic, memory and time (IV-D's argument for three).
#
# Memory is counted, not watched: what autograd keeps of a step for its backward pass, and four
# numbers a parameter (weight, gradient, Adam's two means). So it is the same on every machine.
# Time is measured, on one thread in processor time, configurations by turns, the fastest round.


_EPOCHS = 5
_STEPS = 3
_VALIDATED = 4
_PARTS = ("ShareNet", "FC1", "FC2 and output", "ImgNet")
_ADAM_NUMBERS = 4
_BYTES = 4


def parameters(config: TrainingConfig) -> int:
    """Trained numbers of one network.

    >>> parameters(TrainingConfig(model="st")), parameters(TrainingConfig(model="mt"))
    (1079042, 1105043)
    """
    with torch.random.fork_rng(devices=[]):
        return sum(p.numel() for p in build_network(config).parameters())


def parameters_by_part(config: TrainingConfig) -> dict[str, int]:
    """Trained numbers of each part of one network; FC1 apart, since depth changes it most.

    >>> parameters_by_part(TrainingConfig(model="st"))
    {'ShareNet': 26064, 'FC1': 1048832, 'FC2 and output': 4146, 'ImgNet': 0}
    """
    with torch.random.fork_rng(devices=[]):
        network = build_network(config)
    share, classify, img = (
        sum(p.numel() for p in getattr(network, name).parameters()) if hasattr(network, name) else 0
        for name in ("share", "classify", "reconstruct")
    )
    fc1 = next(m for m in network.classify if isinstance(m, nn.Linear))
    first = sum(p.numel() for p in fc1.parameters())
    return dict(zip(_PARTS, (share, first, classify - first, img), strict=True))


def memory_mb(config: TrainingConfig) -> float:
    """Megabytes (10^6) of one network in training: what `kept_mb` counts, weights, Adam."""
    return kept_mb(config) + _ADAM_NUMBERS * _BYTES * parameters(config) / 1e6


def kept_mb(config: TrainingConfig) -> float:
    """Megabytes of images and features that a step keeps for its backward pass, in float32."""
    with torch.random.fork_rng(devices=[]):
        network = build_network(config).train()
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor  # held by the graph, so that no address is used twice

    images = torch.zeros(config.batch_size, 1, IMAGE_SIZE, IMAGE_SIZE)
    labels = torch.arange(config.batch_size) % 2
    watch = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with torch.random.fork_rng(devices=[]), watch:
        logits, image_logits = network.logits(images)
        loss = classification_loss(logits, labels, config.output)
        if image_logits is not None:
            loss = loss + config.alpha * reconstruction_loss(image_logits, images)
    return sum(kept.values()) / 1e6


def seconds_a_step(
    configs: Mapping[str, TrainingConfig], device: Device, rounds: int = 3
) -> dict[str, float]:
    """Seconds of one training step of each configuration, in the fastest of many short epochs.

    The time before an epoch's end is taken from the end of the one before. So neither the making
    of the network counts, which takes as long as several steps where FC1 is large, nor the
    keeping of its best weights, as not every epoch is the best so far.

    Args:
        configs: name -> configuration.
        device: where; on a CPU processor time of one thread is taken, on a GPU the clock.
        rounds: how often each is trained, by turns, so that a busy moment hits none alone.
    """
    clock = time.perf_counter if device.torch_device.type == "cuda" else time.process_time
    rng = np.random.default_rng(0)
    fastest = dict.fromkeys(configs, np.inf)
    with one_thread():
        for _ in range(rounds):
            for name, config in configs.items():
                n = config.batch_size
                views = rng.integers(-1000, 400, (n, 76, 76)).astype(np.int16)
                labels = np.resize(np.array([0, 1]), n)
                quick = TrainingConfig.from_dict(
                    {**config.as_dict(), "epochs": _EPOCHS, "patience": _EPOCHS,
                     "augmented_copies": _STEPS, "plain_copy": False}
                )  # fmt: skip
                ends: list[float] = []

                def note(_: Row, ends: list[float] = ends) -> None:
                    ends.append(clock())

                train_view(
                    views, labels, views[:_VALIDATED], labels[:_VALIDATED], quick, device, seed=0,
                    on_epoch=note,
                )  # fmt: skip
                fastest[name] = min(fastest[name], np.diff(ends).min() / _STEPS)
    return {name: float(seconds) for name, seconds in fastest.items()}


def costs(configs: Mapping[str, TrainingConfig], device: Device) -> dict[str, dict[str, Any]]:
    """Parameters, GFLOP and seconds a step, and memory of each configuration.

    Args:
        configs: name -> configuration.
        device: where time is measured.
    """
    seconds = seconds_a_step(configs, device)
    return {
        name: {
            "parameters": parameters(config),
            "gflop_a_step": round(step_flop(config) / 1e9, 3),
            "memory_mb": round(memory_mb(config), 2),
            "kept_mb": round(kept_mb(config), 2),
            "seconds_a_step": round(seconds[name], 5),
            "batch_size": config.batch_size,
        }
        for name, config in configs.items()
    }


CHOSEN = 3
"""The paper's depth."""
PUBLISHED_DEPTHS = (1, 2, 3, 4)
"""Those of Fig. 6; five is ours."""
MUCH_MORE = 1.25
"""What "takes much more time and memory" has to mean at least: a quarter."""
Values = Mapping[str, Any]
_Row = tuple[str, str]


def to_three(values: Values, model: str, depth: int) -> Mapping[str, Any] | None:
    """The comparison of a depth with three layers; None where it is not finished.

    Args:
        values: of fig6's JSON.
        model: "st" or "mt".
        depth: other than three.
    """
    found: Mapping[str, Any] | None = values["comparisons"].get(
        f"{depth_label(model, depth)} less {depth_label(model, CHOSEN)}"
    )
    return found


def between_tasks(values: Values, depth: int) -> Mapping[str, Any] | None:
    """The comparison of MT-CNN with ST-CNN at a depth; None where it is not finished."""
    found: Mapping[str, Any] | None = values["comparisons"].get(
        f"{depth_label('mt', depth)} less {depth_label('st', depth)}"
    )
    return found


def at_chance(values: Values) -> pd.DataFrame:
    """How many networks of each depth never learnt, of those trained.

    Args:
        values: of fig6's JSON, finished or not.

    Returns:
        One row a (layers, model): `networks`, and `at chance`, missing where it was not counted.
    """
    rows = {}
    for layers in DEPTHS:
        for model in ("st", "mt"):
            of = values["variants"].get(depth_label(model, layers))
            if of is not None:
                trained = of["trained"]
                rows[layers, f"{model.upper()}-CNN"] = {
                    "networks": trained["networks"], "at chance": trained.get("at_chance"),
                }  # fmt: skip
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["networks", "at chance"])
    table.index = pd.MultiIndex.from_tuples(rows, names=["layers", "model"])
    return table.astype("Int64")


def depth_verdicts(values: Values) -> pd.DataFrame:
    """The paper's claims about depth (IV-D) against a measured sweep.

    Args:
        values: of fig6's JSON, finished or not.

    Returns:
        Columns claim, measured, verdict; the verdicts are those of `verdicts`.
    """
    rows = [
        ("MT-CNN: the more layers, the better", *_rising(values)),
        ("MT-CNN: three layers are much better than one or two", *_much_better(values)),
        ("MT-CNN: four layers and three do not differ", *_same(values)),
        ("ST-CNN: falls with four layers", *_falling(values)),
        ("MT-CNN is no worse than ST-CNN of the same depth", *_no_worse(values)),
        ("MT-CNN's advantage grows with depth", *_growing(values)),
        ("four layers take much more time than three", *_dearer(values, "seconds_a_step")),
        ("four layers take much more memory than three", *_dearer(values, "memory_mb")),
        ("three layers are one of the best choices", *_among_the_best(values)),
    ]
    return pd.DataFrame(rows, columns=["claim", "measured", "verdict"])


def _rising(values: Values) -> _Row:
    """Each depth below three found worse than three, none above it found worse."""
    pairs = {d: to_three(values, "mt", d) for d in PUBLISHED_DEPTHS if d != CHOSEN}
    if (said := _words(pairs)) is None:
        return "", NOT_FINISHED
    found = {d: side(pair) for d, pair in pairs.items() if pair is not None}
    if found[1] > 0 or found[2] > 0 or found[4] < 0:
        return said, CONTRADICTED
    return said, SHOWN if found[1] < 0 and found[2] < 0 else NOT_SHOWN


def _much_better(values: Values) -> _Row:
    pairs = {d: to_three(values, "mt", d) for d in (1, 2)}
    if (said := _words(pairs)) is None:
        return "", NOT_FINISHED
    each = [better_pair(p, MARGIN_AUC, -1) for p in pairs.values() if p is not None]
    return said, _all_of(each)


def _same(values: Values) -> _Row:
    pair = to_three(values, "mt", 4)
    if (said := _words({4: pair})) is None or pair is None:
        return "", NOT_FINISHED
    if inside(pair):
        return said, SHOWN
    return said, CONTRADICTED if side(pair) else NOT_SHOWN


def _falling(values: Values) -> _Row:
    """With four layers, which the paper has; five are shown beside them, and not judged."""
    pair, beyond = to_three(values, "st", 4), to_three(values, "st", 5)
    if (said := _words({4: pair})) is None or pair is None:
        return "", NOT_FINISHED
    five = _words({5: beyond})
    words = f"{said}, within folds {signed(within(pair))}"
    return words if five is None else f"{words}; {five}", better_pair(pair, sign=-1)


def _no_worse(values: Values) -> _Row:
    """Non-inferiority: at every depth no loss of more than the margin is left, in either way."""
    pairs = {d: between_tasks(values, d) for d in PUBLISHED_DEPTHS}
    if (said := _words(pairs)) is None:
        return "", NOT_FINISHED
    there = [pair for pair in pairs.values() if pair is not None]
    if any(side(pair) < 0 for pair in there):
        return said, CONTRADICTED
    no_loss = all(d.low > -MARGIN_AUC for p in there for d in (pooled(p), within(p)))
    return said, SHOWN if no_loss else NOT_SHOWN


def _growing(values: Values) -> _Row:
    first, last = (between_tasks(values, d) for d in (PUBLISHED_DEPTHS[0], PUBLISHED_DEPTHS[-1]))
    if first is None or last is None:
        return "", NOT_FINISHED
    a, b = pooled(last), pooled(first)
    # What the two share is not known; the widths' sum can only be too careful.
    growth = Interval(a.value - b.value, a.low - b.high, a.high - b.low)
    said = f"with four layers less with one: {signed(growth)}"
    if growth.low > 0:
        return said, SHOWN
    return said, CONTRADICTED if growth.high < 0 else NOT_SHOWN


def _dearer(values: Values, what: str) -> _Row:
    """Memory is counted, and the same anywhere; time is that of a device, and the paper's a GPU."""
    device, of = values["costs"]["device"], values["costs"]["of"]
    names = [(m, depth_label(m, 4), depth_label(m, CHOSEN)) for m in ("st", "mt")]
    if not all(four in of and three in of for _, four, three in names):
        return "", NOT_FINISHED
    times = {m: of[four][what] / of[three][what] for m, four, three in names}
    said = ", ".join(f"{m.upper()}-CNN {times[m]:.2f} times" for m in times)
    if what == "seconds_a_step":
        said += f" ({device})"
        if device.startswith("CPU"):
            return said, CANNOT
    if all(ratio >= MUCH_MORE for ratio in times.values()):
        return said, SHOWN
    return said, CONTRADICTED if max(times.values()) < MUCH_MORE else NOT_SHOWN


def _among_the_best(values: Values) -> _Row:
    """No other depth is found better, and none can be better by more than the margin."""
    pairs = {(m, d): to_three(values, m, d) for m in ("st", "mt") for d in DEPTHS if d != CHOSEN}
    if any(pair is None for pair in pairs.values()):
        return "", NOT_FINISHED
    there = {place: pair for place, pair in pairs.items() if pair is not None}
    (model, depth), most = max(there.items(), key=lambda item: pooled(item[1]).high)
    d = pooled(most)
    said = f"most is left for {depth_label(model, depth)}: {signed(d)}"
    if any(side(pair) > 0 for pair in there.values()):
        return said, CONTRADICTED
    no_gain = all(x.high < MARGIN_AUC for p in there.values() for x in (pooled(p), within(p)))
    return said, SHOWN if no_gain else NOT_SHOWN


def _all_of(verdicts: list[str]) -> str:
    """Of a sentence that says several things at once."""
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return SHOWN if set(verdicts) == {SHOWN} else NOT_SHOWN


def _words(pairs: Mapping[int, Mapping[str, Any] | None]) -> str | None:
    """What was measured, depth by depth; None when any is missing."""
    if any(pair is None for pair in pairs.values()):
        return None
    return "; ".join(
        f"{depth}: {signed(pooled(pair))}" for depth, pair in pairs.items() if pair is not None
    )
