"""What runs there are, how far each has come, and what the finished ones measured."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from labkit.errors import InputError
from labkit.evaluation.runs import Plan, unit_file
from labkit.files import read_json
from labkit.training import journal
from labkit.training.config import TrainingConfig
from labkit.training.hardware import duration

COLUMNS = (
    "run", "state", "networks", "under_way", "left", "cohort", "model", "protocol", "auc",
    "training", "last_change",
)  # fmt: skip

# A network is under way as long as it is heard of: an epoch may take this long, or as many times
# as long as its epochs took until now.
_SILENT_S = 180.0
_SILENT_EPOCHS = 5


def list_runs(folders: Iterable[str | Path]) -> pd.DataFrame:
    """Every cross-validation run in or below some folders, one row each, the newest last.

    A run is "running" while one of its networks was heard of in the last minutes: one that was
    killed is "stopped" after three minutes, or five epochs if these are longer.

    Args:
        folders: runs, or folders that hold runs at any depth.

    Returns:
        run (its folder, as seen from the current one), state ("finished", "running", "stopped", or
        "damaged: ..." with what to do), networks ("12 of 90" that are trained), under_way (how many
        are being trained, and how many epochs they have), left (time until it is finished, if all
        networks learn as those until now), cohort, model, protocol, auc (fused, with its 95 %
        interval), training (time that its networks took, summed), last_change (local time).

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


def as_text(table: pd.DataFrame) -> str:
    """The list for a terminal of 120 columns: by cohort, finished runs above the others.

    Args:
        table: from `list_runs`.
    """
    damaged = table["state"].str.startswith("damaged")
    parts = []
    for cohort, runs in table[~damaged].groupby("cohort", sort=False):
        finished = runs["state"] == "finished"
        counted = runs["state"] + " " + runs["networks"]
        shown = pd.DataFrame(
            {
                "run": runs["run"],
                "state": runs["state"].where(finished, counted),
                "under way": runs["under_way"],
                "left": runs["left"],
                "net": runs["model"].str.upper(),
                "protocol": runs["protocol"].str.replace(", 9 views", ""),  # as in the paper
                "AUC": runs["auc"],
                "trained": runs["training"],
                "changed": runs["last_change"].str.slice(len("2000-")),
            }
        ).fillna("")
        tables = []
        for part, unneeded in ((shown[finished], []), (shown[~finished], ["trained"])):
            empty = [column for column in part if (part[column] == "").all()]
            if len(part):
                tables.append(_aligned(part.drop(columns=[*unneeded, *empty])))
        parts.append("\n".join([str(cohort), *tables]))
    parts += [f"{row['run']} {row['state']}" for row in table[damaged].to_dict("records")]
    return "\n\n".join(parts)


def _aligned(table: pd.DataFrame) -> str:
    """Columns two spaces apart, all to the left."""
    cells = [list(table.columns), *table.astype(str).to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(f"  {line.rstrip()}" for line in lines)


def _row(file: Path) -> dict[str, Any]:
    out = file.parent
    entries = journal.entries(out)
    times = [_changed(f) for f in (file, *out.glob("*.csv"), *journal.finished(out))]
    changed = max([*times, *(e.changed for e in entries)])
    row: dict[str, Any] = {
        "run": _seen_from_here(out),
        "last_change": time.strftime("%Y-%m-%d %H:%M", time.localtime(changed)),
        "_changed": changed,
    }
    try:
        return {**row, **_described(out, read_json(file, "a run"), entries)}
    except (InputError, KeyError, TypeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        return {**row, "state": f"damaged: {reason}; delete it or start it again elsewhere"}


def _seen_from_here(out: Path) -> str:
    whole, here = out.resolve(), Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(out)


def _changed(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0  # a temporary file of a run at work


def _described(
    out: Path, values: dict[str, Any], entries: Sequence[journal.Entry]
) -> dict[str, Any]:
    config, plan = TrainingConfig.from_dict(values["config"]), Plan(**values["plan"])
    places = [(repeat, fold, v) for repeat, fold in plan.places() for v in config.views]
    files = [unit_file(out, *place) for place in places]
    done = [file for file in files if file.is_file()]
    by_nodule = "" if plan.split == "patient" else f" by {plan.split}"
    row: dict[str, Any] = {
        "networks": f"{len(done)} of {len(places)}",
        "cohort": values["cohort"]["name"],
        "model": config.model,
        "protocol": f"{plan.repeats}x{plan.folds} folds{by_nodule}, {len(config.views)} "
        f"view{'s' * (len(config.views) > 1)}, {config.epochs} epochs",
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
    units = [read_json(file, "a unit of a run") for file in done]
    row["training"] = duration(sum(unit["seconds"] for unit in units))
    finished = {file.stem for file in done}
    alive = [e for e in entries if e.name not in finished and _is_heard_of(e)]
    if not alive:
        # No network is under way before the first and after the last, either.
        quiet = time.time() - max(_changed(f) for f in (out / "run.json", *done)) > _SILENT_S
        between = 0 < len(done) < len(places)
        return {**row, "state": "stopped" if quiet or between else "running"}
    epochs = sorted(len(e.rows) for e in alive)
    several = f"{epochs[0]} to {epochs[-1]}" if epochs[0] < epochs[-1] else f"{epochs[0]}"
    left = _seconds_left(units, alive, len(places) - len(done), config.epochs)
    return {
        **row,
        "state": "running",
        "under_way": f"{len(alive)}, {several} epoch{'s' * (epochs[-1] != 1)}",
        "left": "" if left is None else duration(left),
    }


def _is_heard_of(entry: journal.Entry) -> bool:
    """Whether its process seems to live."""
    epoch = entry.rows[-1]["seconds"] / len(entry.rows) if entry.rows else 0.0
    return time.time() - entry.changed < max(_SILENT_S, _SILENT_EPOCHS * epoch)


def _seconds_left(
    units: Sequence[dict[str, Any]],
    under_way: Sequence[journal.Entry],
    networks: int,
    most_epochs: int,
) -> float | None:
    """Time until all are trained, at the pace of now; None as long as no epoch is known.

    Counted in epochs, since networks stop early: one is taken to need as many as those finished
    did, on average. The pace is that of the networks under way together, however many are trained
    side by side and on however many machines.

    Args:
        units: the networks that are finished.
        under_way: those that are being trained.
        networks: how many are not finished.
        most_epochs: that a network may be trained.
    """
    need = sum(len(u["history"]) for u in units) / len(units) if units else float(most_epochs)
    begun = [e for e in under_way if e.rows]
    if not begun:
        return None
    each = sum(len(e.rows) / max(e.rows[-1]["seconds"], 1e-3) for e in begun) / len(begun)
    todo = need * (networks - len(under_way))
    todo += sum(max(need - len(e.rows), 1.0) for e in under_way)
    # As many at once as there are now, but for the last ones, which wait for the slowest.
    return todo / (each * len(under_way))
