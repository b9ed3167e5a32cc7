"""What each part adds to the method `best`: its members alone, both, and with others beside them.

    python -m benchmarks.ablation COHORT [--out FILE.json]

Methods are fitted once a fold, and every choice of them is stacked anew, inside the training
nodules as `best` does it. The difference of each choice from `best` is paired, on the same nodules.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from benchmarks.common import command
from labkit import profiles
from labkit.cohorts.cohort import Cohort
from labkit.evaluation.crossval import Plan, networks_of
from labkit.evaluation.predictions import FUSED
from labkit.models import NETWORKS
from labkit.models.rivals.best import MEMBERS, Best
from labkit.paper.values import Run, compare, correct, measure
from labkit.training.loop import network_seed
from labkit.training.machines import Device, one_thread, provenance
from labkit.training.nine_views import split_of

TRIED = (*MEMBERS, "shewaye2016", "han2015")


def ablation(
    cohort: Path, *, folds: int = 10, resamples: int = 2000, progress: bool = True
) -> dict[str, Any]:
    """Cross-validate every choice of `TRIED` methods.

    Returns numbers ready for JSON: `choices`: names joined by " + " -> AUC within folds and pooled,
    with intervals; `comparisons`: each less `best`, with Holm's p-values in `family`.
    """
    of = Cohort.open(cohort)
    choices = [names for n in range(1, len(TRIED) + 1) for names in combinations(TRIED, n)]
    parts: dict[str, list[pd.DataFrame]] = {" + ".join(names): [] for names in choices}
    for place, rows, said in _folds(of, choices, folds, progress):
        known = of.nodules.iloc[rows][["nodule_id", "patient_id", "label"]].astype({"label": int})
        for tables, probability in zip(parts.values(), said, strict=True):
            about = {"repeat": place[0], "fold": place[1], "view": FUSED}
            tables.append(known.assign(**about, probability=probability))
    runs: dict[str, Run] = {name: (pd.concat(tables), FUSED) for name, tables in parts.items()}
    whole = " + ".join(MEMBERS)
    comparisons = {f"{name} less best": compare(run, runs[whole], resamples)
                   for name, run in runs.items() if name != whole}  # fmt: skip
    measured = {name: measure(run, resamples) for name, run in runs.items()}
    return {
        "about": "Choices of methods, `best` among them, stacked inside the training nodules.",
        **provenance(),
        "cohort": of.identity,
        "plan": {"folds": folds, "repeats": 1},
        "choices": {
            name: {k: values[k] for k in ("auc_within_folds", "auc")}
            for name, values in measured.items()
        },
        "comparisons": comparisons,
        "family": correct(comparisons),
    }


def _folds(
    cohort: Cohort, choices: list[tuple[str, ...]], folds: int, progress: bool
) -> Iterator[tuple[tuple[int, int], Any, list[Any]]]:
    """Yield (repeat, fold), its test rows, and what each choice says of them."""
    config, device = profiles.get("lab").training(model="best"), Device.choose("cpu")
    networks = networks_of(cohort, config, Plan(folds))
    for network in tqdm(networks, "folds", unit="fold", disable=not progress):
        split = split_of(cohort, network.train, network.val, network.test)
        own = {"config": config, "device": device}
        own["seed"] = network_seed(config.seed, *network.place)
        fitted = {name: NETWORKS[name].build(**own) for name in TRIED}
        said = []
        with one_thread():
            for member in fitted.values():
                member.fit(cohort, split, lambda row: None)
            for names in choices:
                best = Best(**own)
                best.weigh({name: fitted[name] for name in names}, cohort, split)
                said.append(best.predict(cohort, network.test))
        yield network.place[:2], network.test, said


if __name__ == "__main__":
    sys.exit(command(ablation, __doc__))
