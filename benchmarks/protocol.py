"""Search a protocol that converges at a fraction of the printed one's cost.

    python -m benchmarks.protocol COHORT NETWORKS.jsonl --out results/protocol.json

Protocols are compared on inner splits alone: of the patients that train in a fold of the course's
cross-validation a fifth judges, and of the rest a part stops the training as always. The test
nodules of the fold are never looked at. Cost is counted in images shown and in the process's own
seconds of processor, which other work on the machine moves little. `TrainingConfig.lab` is the
protocol with the least loss of AUC among those that keep the paper's patience, cost at most a
quarter of the printed one's seconds, and leave no network at chance.

Every finished network is a line of NETWORKS.jsonl; a search that was stopped goes on after it, and
several may share the file.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.common import command
from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation.crossval import make_folds
from labkit.evaluation.statistics import roc_auc
from labkit.training.batches import Labels, Pixels, shown_images
from labkit.training.config import TrainingConfig
from labkit.training.loop import (
    Trained,
    Validation,
    begin_network,
    class_logits,
    network_seed,
    predict_view,
    train_epochs,
    train_view,
)
from labkit.training.machines import Device, one_thread
from labkit.training.nine_views import inner_split

FOLDS, JUDGES, CHANCE = 5, 0.2, 0.6
PLACE = ("model", "fold", "seed", "view")
PRINTED = "printed"
COMMAND = "python -m benchmarks.protocol COHORT NETWORKS.jsonl --out results/protocol.json"
ABOUT = (
    "Inner splits of five folds by patient: AUC on patients that neither taught nor stopped a "
    "network, the difference from the printed protocol on the same splits with its standard error "
    "over folds, and cost as a share of the printed one's. A judge is a fifth of the training "
    "patients, some eighty nodules, so that differences of 0.01 lie within the error. What no row "
    "names (another network, another view, another cohort, nine views fused) was not measured."
)


def _short(rate: float, batch: int, copies: int = 1, **changes: Any) -> dict[str, Any]:
    """Return changes of the printed protocol: a larger rate that falls on a plateau."""
    return {
        "learning_rate": rate, "batch_size": batch, "augmented_copies": copies, "plain_copy": False,
        "dropout_on": "fc1", "schedule": "plateau", "epochs": 120, **changes,
    }  # fmt: skip


PROTOCOLS: dict[str, dict[str, Any]] = {
    PRINTED: {},
    "12 short epochs": _short(1e-3, 16, schedule="printed", epochs=12),
    "1e-3, 16, FC1": _short(1e-3, 16),
    "1e-3, 64, FC1": _short(1e-3, 64),
    "5e-4, 32, FC1": _short(5e-4, 32),
    "5e-4, 16, FC1": _short(5e-4, 16),
    "5e-4, 16, FC1, patience 7": _short(5e-4, 16, patience=7),
    "3e-4, 16, FC1": _short(3e-4, 16),
    "3e-4, 16, FC1, patience 7": _short(3e-4, 16, patience=7),
    "5e-4, 32, FC1 and FC2": _short(5e-4, 32, dropout_on="fc1+fc2"),
    "5e-4, 32, FC1, two copies": _short(5e-4, 32, copies=2),
    "1e-3, 32, FC1, averaged": _short(1e-3, 32, averaged=0.97),
}
"""Changes of the printed one; `averaged` is what a running mean of the weights keeps a step."""


def measure(
    cohort: Path, networks: Path, *, folds: int = FOLDS, protocols: tuple[str, ...] = (),
    seed: int = 0, view: int = 0, model: Literal["st", "mt"] = "st",
) -> dict[str, Any]:  # fmt: skip
    """Train a network of every protocol on every fold's inner split, and compare them.

    `folds` of the five are used; `protocols` are names of `PROTOCOLS`, all when not given; `seed`
    is of weights, order and splits.
    """
    unknown = set(protocols) - set(PROTOCOLS)
    if unknown:
        raise InputError(f"no protocol is called {sorted(unknown)}; there are {list(PROTOCOLS)}")
    data = Cohort.open(cohort)
    done = {tuple(row[of] for of in ("protocol", *PLACE)) for row in _read(networks)}
    for fold, name in itertools.product(range(folds), protocols or PROTOCOLS):
        if (name, model, fold, seed, view) not in done:
            row = train(data, name, model, fold, seed, view)
            with networks.open("a") as lines:
                lines.write("\n" + json.dumps(row))  # a torn one keeps to itself
    return {"about": ABOUT, "command": COMMAND, "cohort": data.meta["source"],
            "protocols": summary(pd.DataFrame(_read(networks)))}  # fmt: skip


def train(cohort: Cohort, name: str, model: str, fold: int, seed: int, view: int) -> dict[str, Any]:
    """Train one network and judge it on patients that neither taught nor stopped it."""
    changes = dict(PROTOCOLS[name])
    averaged = changes.pop("averaged", None)
    config = TrainingConfig.paper(**{"model": model, "views": (view,), **changes})
    device, rows, nodules = Device.choose("cpu"), cohort.labelled, cohort.nodules
    number, own_seed = make_folds(nodules.iloc[rows], FOLDS), network_seed(seed, fold)
    rest, judged = inner_split(nodules, rows[number != fold], JUDGES, own_seed)
    learn, stop = inner_split(nodules, rest, config.validation_fraction, own_seed + 1)
    labels = nodules["label"].fillna(0).to_numpy(dtype=np.int64)
    fit = train_view if averaged is None else partial(train_averaged, kept=averaged)
    start = time.process_time()
    with one_thread():
        trained = fit(cohort.views[learn, view], labels[learn], cohort.views[stop, view],
                      labels[stop], config, device, own_seed)  # fmt: skip
        seconds = time.process_time() - start
        probability = predict_view(trained.network, cohort.views[judged, view], config, device)
    epochs = len(trained.history)
    waited = epochs - 1 - trained.best_epoch
    return {
        "protocol": name, "model": model, "fold": fold, "seed": seed, "view": view,
        "auc": roc_auc(labels[judged], probability), "stop_auc": trained.val_auc,
        "epochs": epochs, "best_epoch": trained.best_epoch,
        "out_of_epochs": epochs == config.epochs and waited < config.patience,
        "images": epochs * shown_images(labels[learn], config), "cpu_s": round(seconds, 2),
        "precision": "bf16" if device.bf16 else "fp32",
    }  # fmt: skip


def train_averaged(
    views: Pixels, labels: Labels, val_views: Pixels, val_labels: Labels, config: TrainingConfig,
    device: Device, seed: int, kept: float,
) -> Trained:  # fmt: skip
    """Train as `train_view` does, and validate and keep a running mean of the weights."""
    stopping, best, steps = Validation(config, val_labels, labels), dict[str, Tensor](), 0
    with device.seeded(seed), device.arithmetic():
        network = begin_network(config, device, seed)
        mean = copy.deepcopy(network)

        def add(*losses: Tensor) -> None:
            nonlocal steps
            steps += 1
            share = 1 - min(kept, steps / (steps + 10))
            with torch.no_grad():
                for slow, now in zip(mean.parameters(), network.parameters(), strict=True):
                    slow.lerp_(now, share)

        for losses, sample in train_epochs(
            network, network.parameters(), views, labels, config, device, seed, add,
            lambda epoch: stopping.rate,
        ):  # fmt: skip
            if stopping.validate(losses, sample, class_logits(mean, val_views, device)):
                best = copy.deepcopy(mean.state_dict())
            if stopping.done:
                break
    mean.load_state_dict(best)
    return stopping.result(mean.eval())


def summary(networks: pd.DataFrame) -> list[dict[str, Any]]:
    """Compare the protocols, each with the printed one on the splits that both were trained on."""
    rows, printed = [], networks[networks["protocol"] == PRINTED]
    for (name, model, view), own in networks.groupby(["protocol", "model", "view"], sort=False):
        pairs = own.merge(printed, on=[*PLACE], suffixes=("", "_printed"))
        gain, numbers = pairs["auc"] - pairs["auc_printed"], {"auc": own["auc"].mean()}
        if len(pairs):
            numbers |= {"less_printed": gain.mean(), "standard_error": gain.sem()}
            for of in ("images", "cpu_s"):
                numbers[f"{of}_of_printed"] = pairs[of].sum() / pairs[f"{of}_printed"].sum()
        epochs = own[["epochs", "best_epoch"]].agg(["median", "min", "max"])
        rows.append({
            "protocol": name, "model": model, "view": int(view), "changes": PROTOCOLS[str(name)],
            "networks": len(own), "paired": len(pairs),
            **epochs.rename({"min": "least", "max": "most"}).to_dict(),
            **{k: round(float(v), 4) for k, v in numbers.items() if pd.notna(v)},
            "out_of_epochs": int(own["out_of_epochs"].sum()),
            "at_chance": int((own["auc"] < CHANCE).sum()),
        })  # fmt: skip
    return rows


def _read(file: Path) -> list[dict[str, Any]]:
    """Read the finished networks; lines that a kill has torn are left out."""
    rows = []
    for line in file.read_text().split("\n") if file.is_file() else []:
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


if __name__ == "__main__":
    sys.exit(command(measure, __doc__))
