"""What each method of Table 1 costs: parameters, FLOP, seconds of computing, and memory.

    python -m benchmarks.methods COHORT --runs RUN [RUN ...] --known FILE.json --out FILE.json

Each is fitted to the first of ten folds by patient and then tells of its test nodules, in a process
of its own, on one thread. Seconds are the processor's, not the clock's, so that other work on the
machine counts little. Of a network three epochs are timed; how many there are in a fit is the
median of a run of the same method (`--runs`: folders or packed files, also of unfinished runs), of
one without a run the median of all others that have epochs. What is in `--known` is not timed
again, but reckoned again, from the runs that there are by then.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import command, fresh, timed
from labkit.cohorts.cohort import Cohort
from labkit.evaluation.crossval import Plan, networks_of
from labkit.evaluation.predictions import run_folder
from labkit.io import read_json
from labkit.models import NETWORKS
from labkit.models.rivals import Rival
from labkit.models.rivals.ciompi2015 import Ciompi2015, pretrained
from labkit.training.config import TrainingConfig
from labkit.training.loop import network_seed, train_view
from labkit.training.machines import Device, now, one_thread, provenance
from labkit.training.nine_views import labels_of, predict_rows, train_rival
from labkit.training.side_by_side import Task

FOLDS, EPOCHS = 10, 3


def methods(
    cohort: Path, *, runs: tuple[Path, ...] = (), known: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Measure every method, and yield all that is known after each, ready for JSON.

    `methods`: name -> `parameters` of networks that are learnt, `frozen_parameters`, `features` of
    a classifier that is no network, `flop_a_nodule` of the networks in a prediction (None without),
    `fit_seconds` (`reckoned`), `predict_seconds` a nodule, `peak_mib` of the fit above its start.
    """
    there = read_json(known, "a result")["methods"] if known and known.is_file() else {}
    kept = dict(map(_run, runs))
    for name in NETWORKS:
        config = kept[name][0] if name in kept else TrainingConfig.lab(model=name)
        if name not in there:
            there[name] = {**fresh(cost, cohort, config), "date": now()}
        yield {
            "about": "Costs of each method on one core: seconds of the processor of a fit to one "
            "fold and of a prediction; memory of the fit above what the process had at its start, "
            "pages of the cohort's files among it. Of ST-CNN and MT-CNN one view was measured: "
            "memory is its own, all else nine times that.",
            **provenance(),
            "cohort": Cohort.open(cohort).identity,
            "plan": {"folds": FOLDS, "split": "patient", "epochs_timed": EPOCHS},
            "methods": reckoned(there, {name: of for name, (_, of) in kept.items()}),
        }


def _run(run: Path) -> tuple[str, tuple[TrainingConfig, dict[str, Any]]]:
    """Read a run: its method, and how that was trained, with how many epochs."""
    with run_folder(run) as folder:
        config = TrainingConfig.from_dict(read_json(folder / "run.json", "a run")["config"])
        if (folder / "history.csv").is_file():
            epochs = pd.read_csv(folder / "history.csv").groupby(["repeat", "fold", "view"]).size()
        else:
            units = [read_json(of, "a network") for of in (folder / "units").glob("*.json")]
            epochs = pd.Series([len(of["history"]) for of in units])
    told = {"run": run.name, "networks": len(epochs), "epochs": float(epochs.median())}
    return config.model, (config, told)


def reckoned(measured: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """Compute `fit_seconds`: `start_seconds` (all but epochs) and `epoch_seconds` times `epochs`.

    Beside them is the `run` that the epochs are of (None: of others), and its `networks`.

    >>> of = {"start_seconds": 2.0, "epoch_seconds": 0.5}
    >>> reckoned({"mt3d": of}, {"mt3d": {"run": "r", "epochs": 40.0}})["mt3d"]["fit_seconds"]
    22.0
    """
    several = [of["epochs"] for of in kept.values() if of["epochs"] > 1] or [1.0]
    found = {}
    for name, of in measured.items():
        epochs = float(np.median(several)) if of["epoch_seconds"] else 1.0
        of = {**of, **kept.get(name, {"run": None, "networks": 0, "epochs": epochs})}
        seconds = of["start_seconds"] + of["epoch_seconds"] * of["epochs"]
        found[name] = {**of, "fit_seconds": round(seconds, 2)}
    return found


def cost(folder: Path, config: TrainingConfig) -> dict[str, Any]:
    """Fit a method to the first fold, let it tell of the test nodules, and say what that took."""
    cohort, device = Cohort.open(folder), Device.choose("cpu", config.precision)
    place = networks_of(cohort, config, Plan(FOLDS))[0]
    train, val, test, views = place.train, place.val, place.test, len(config.views)
    seed, brief = network_seed(config.seed, *place.place), replace(config, epochs=EPOCHS)
    ends: list[float] = []

    def note(row: dict[str, Any]) -> None:
        ends.append(time.process_time())

    def fit() -> Any:
        if config.network.whole:
            return train_rival(cohort, Task(0, train, val, seed, test), brief, device, note)
        x, y = cohort.views[:, 0], partial(labels_of, cohort)
        return train_view(x[train], y(train), x[val], y(val), brief, device, seed, note)

    def predict(rows: Any) -> Any:
        return predict_rows(fitted.result.network, cohort, rows, 0, config, device)

    with one_thread():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        fitted = timed(fit)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        with FlopCounterMode(display=False) as counted:
            predict(test[:1])
        said = timed(lambda: predict(test[1:]))
    epoch = float(min(np.diff(ends), default=0.0))  # the least: a busy machine only adds to it
    rest = fitted.cpu_s - epoch * (len(ends) if epoch else 0)
    return {
        **{what: of * views for what, of in sizes(fitted.result.network).items()},
        "flop_a_nodule": counted.get_total_flops() * views or None,
        "predict_seconds": round(said.cpu_s / (len(test) - 1) * views, 5),
        "peak_mib": round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1),
        "start_seconds": round(rest * views, 3), "epoch_seconds": round(epoch * views, 4),
    }  # fmt: skip


def sizes(method: nn.Module | Rival) -> dict[str, int]:
    """Count what a fitted method learns of networks, what it takes as it is, and its features."""
    members = [*getattr(method, "_members", {"": method}).values()]
    parts = [part for one in members for part in (one, *vars(one).values())]
    networks = [part for part in parts if isinstance(part, nn.Module)]
    tables = [of for one in members if isinstance(one, Rival)
              for key, of in one.state().items() if key in ("x", "stumps_x")]  # fmt: skip
    frozen = [of.numel() for one in members if isinstance(one, Ciompi2015)
              for key, of in pretrained().items()
              if key.endswith(("weight", "bias")) and not key.startswith("_fc")]  # fmt: skip
    return {
        "parameters": sum(p.numel() for of in networks for p in of.parameters()),
        "frozen_parameters": sum(frozen), "features": sum(x.shape[1] for x in tables),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(command(methods, __doc__))
