"""Fig. 6: depth, and what a depth costs: parameters, arithmetic, memory, time (IV-D).

Memory is counted, not watched: what autograd keeps of a step for its backward pass, and four
numbers a parameter (weight, gradient, Adam's two means). So it is the same on every machine. Time
is measured: on one thread in processor time, configurations by turns, the fastest round.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit.evaluation.crossval import steps_an_epoch
from labkit.models.mtcnn import IMAGE_SIZE, MTCNN, STCNN
from labkit.paper.declared import Experiment
from labkit.paper.values import Runs, sweep
from labkit.training.config import TrainingConfig
from labkit.training.loop import build_network, train_view
from labkit.training.loss import classification_loss, reconstruction_loss
from labkit.training.machines import Device, one_thread
from labkit.training.nine_views import labels_of
from labkit.training.side_by_side import step_flop

_EPOCHS, _STEPS, _VALIDATED, _ROUNDS = 5, 3, 4, 3
_ADAM_NUMBERS, _BYTES = 4, 4


def fig6(experiment: Experiment, runs: Runs) -> dict[str, Any]:
    """Compute the sweep over depth, and `costs`, what each depth costs.

    A training's seconds are those of a step, measured alone, times the steps of an epoch and the
    median epochs of the networks: how long they took in fact depends on what else ran beside them.
    """
    values = sweep(experiment, runs)
    configs = {v.label: v.config(runs.profile) for v in experiment.variants}
    device = Device.choose(runs.device, next(iter(configs.values())).precision)
    of_each = runs.once("costs", costs, configs, device) if values["variants"] else {}
    labels = labels_of(runs.cohort, runs.cohort.labelled)
    given = (runs.profile.folds, int((labels == 1).sum()))
    for label, of in values["variants"].items():
        steps = steps_an_epoch(len(labels), configs[label], *given)
        a_step, epochs = of_each[label]["seconds_a_step"], of["trained"]["epochs_a_network"]
        of_each[label]["seconds_a_training"] = round(a_step * steps * epochs, 2)
    return {**values, "costs": {"device": device.description, "of": of_each}}


def costs(configs: Mapping[Any, TrainingConfig], device: Device) -> dict[Any, dict[str, Any]]:
    """Compute parameters, GFLOP and seconds a step, and memory of each configuration, by name."""
    seconds = seconds_a_step(configs, device)
    return {
        name: {
            "parameters": parameters(config), "gflop_a_step": round(step_flop(config) / 1e9, 3),
            "memory_mb": round(memory_mb(config), 2), "kept_mb": round(kept_mb(config), 2),
            "seconds_a_step": round(seconds[name], 5), "batch_size": config.batch_size,
        }
        for name, config in configs.items()
    }  # fmt: skip


def parameters(config: TrainingConfig) -> int:
    """Count the trained numbers of one network.

    >>> parameters(TrainingConfig(model="st")), parameters(TrainingConfig(model="mt"))
    (1079042, 1105043)
    """
    return sum(parameters_by_part(config).values())


def parameters_by_part(config: TrainingConfig) -> dict[str, int]:
    """Count the trained numbers of each part of one network; FC1 apart, as depth changes it most.

    >>> parameters_by_part(TrainingConfig(model="st"))
    {'ShareNet': 26064, 'FC1': 1048832, 'FC2 and output': 4146, 'ImgNet': 0}
    """
    network = _network(config)
    fc1 = next(m for m in network.classify if isinstance(m, nn.Linear))
    share, first, classify, img = (
        0 if part is None else sum(p.numel() for p in part.parameters())
        for part in (network.share, fc1, network.classify, getattr(network, "reconstruct", None))
    )
    return {"ShareNet": share, "FC1": first, "FC2 and output": classify - first, "ImgNet": img}


def memory_mb(config: TrainingConfig) -> float:
    """Count megabytes (10^6) of one network in training: what `kept_mb` counts, weights, Adam."""
    return kept_mb(config) + _ADAM_NUMBERS * _BYTES * parameters(config) / 1e6


def kept_mb(config: TrainingConfig) -> float:
    """Count megabytes of images and features that a step keeps for its backward pass, float32."""
    network = _network(config).train()
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


def seconds_a_step(configs: Mapping[Any, TrainingConfig], device: Device) -> dict[Any, float]:
    """Measure one training step of each configuration, in the fastest of many short epochs.

    The time before an epoch's end is taken from the end of the one before: neither the making of
    the network counts, which takes as long as several steps where FC1 is large, nor the keeping of
    its best weights. On a CPU processor time of one thread is taken, on a GPU the clock. All are
    trained by turns, so that a busy moment hits none alone.
    """
    clock = time.perf_counter if device.torch_device.type == "cuda" else time.process_time
    rng, fastest = np.random.default_rng(0), dict.fromkeys(configs, np.inf)
    short = {"epochs": _EPOCHS, "patience": _EPOCHS, "augmented_copies": _STEPS,
             "plain_copy": False}  # fmt: skip
    with one_thread():
        for name, config in list(configs.items()) * _ROUNDS:
            views = rng.integers(-1000, 400, (config.batch_size, 76, 76)).astype(np.int16)
            labels = np.resize(np.array([0, 1]), config.batch_size)
            quick = TrainingConfig.from_dict({**config.as_dict(), **short})
            ends: list[float] = []

            def note(_: Any, ends: list[float] = ends) -> None:
                ends.append(clock())

            few = (views[:_VALIDATED], labels[:_VALIDATED])
            train_view(views, labels, *few, quick, device, seed=0, on_epoch=note)
            fastest[name] = min(fastest[name], np.diff(ends).min() / _STEPS)
    return {name: float(seconds) for name, seconds in fastest.items()}


def _network(config: TrainingConfig) -> MTCNN | STCNN:
    with torch.random.fork_rng(devices=[]):
        return build_network(config)
