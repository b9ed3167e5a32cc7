"""What runs there are, how far each has come, and what the finished ones measured."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from labkit.errors import InputError
from labkit.evaluation.runs import Plan, unit_file
from labkit.files import read_json
from labkit.training.config import TrainingConfig
from labkit.training.hardware import duration

COLUMNS = ("run", "state", "cohort", "model", "protocol", "auc", "training", "last_change")


def list_runs(folders: Iterable[str | Path]) -> pd.DataFrame:
    """Every cross-validation run in or below some folders, one row each, the newest last.

    Args:
        folders: runs, or folders that hold runs at any depth.

    Returns:
        run (its folder), state ("finished", "12 of 90 networks", or "damaged: ..." with what to
        do), cohort, model, protocol, auc (fused, with its 95 % interval), training (time that its
        networks took, summed), last_change (local time).

    Raises:
        InputError: a folder that is not there.
    """
    rows = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; name one that holds runs")
        rows += [_row(file) for file in sorted(folder.rglob("run.json"))]
    table = pd.DataFrame(rows, columns=[*COLUMNS, "_changed"])
    table = table.drop_duplicates("run").sort_values("_changed", kind="stable")
    return table.drop(columns="_changed").reset_index(drop=True)


def _row(file: Path) -> dict[str, Any]:
    out = file.parent
    files = [file, *out.glob("*.csv"), *out.glob("units/*.json")]
    changed = max(f.stat().st_mtime for f in files)
    row: dict[str, Any] = {
        "run": str(out),
        "last_change": time.strftime("%Y-%m-%d %H:%M", time.localtime(changed)),
        "_changed": changed,
    }
    try:
        return {**row, **_described(out, read_json(file, "a run"))}
    except (InputError, KeyError, TypeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        return {**row, "state": f"damaged: {reason}; delete it or start it again elsewhere"}


def _described(out: Path, values: dict[str, Any]) -> dict[str, Any]:
    config, plan = TrainingConfig.from_dict(values["config"]), Plan(**values["plan"])
    places = [(repeat, fold, v) for repeat, fold in plan.places() for v in config.views]
    done = [place for place in places if unit_file(out, *place).is_file()]
    row: dict[str, Any] = {
        "cohort": values["cohort"]["name"],
        "model": config.model,
        "protocol": f"{plan.repeats} x {plan.folds} folds by {plan.split}, {len(config.views)} "
        f"view{'s' * (len(config.views) > 1)}, up to {config.epochs} epochs",
    }
    metrics = out / "metrics.json"
    if len(done) == len(places) and metrics.is_file() and (out / "predictions.csv").is_file():
        measured = read_json(metrics, "a finished run")
        auc = measured["metrics"]["fused"]["auc"]
        return {
            **row,
            "state": "finished",
            "auc": f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})",
            "training": duration(measured["training_seconds"]),
        }
    seconds = sum(read_json(unit_file(out, *p), "a unit of a run")["seconds"] for p in done)
    return {
        **row,
        "state": f"{len(done)} of {len(places)} networks",
        "training": duration(seconds),
    }
