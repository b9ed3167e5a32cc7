"""The committed measurements in `results/`: runs that take too long for a lesson."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from labkit import paths
from labkit.files import read_json

COLUMNS = (
    "images", "method", "nodules", "auc", "sensitivity", "specificity", "protocol", "device",
    "date",
)  # fmt: skip


def table(pattern: str = "*.json", folder: Path | None = None) -> pd.DataFrame:
    """What cross-validation runs measured, where and when; one row a method.

    Files without runs are passed over: the folder also holds other measurements.

    Args:
        pattern: which files, such as "real_cubes*.json".
        folder: None takes `paths.results()`.

    Returns:
        Columns `COLUMNS`; metrics as text, value and 95 % interval over patients. Empty when
        nothing is there.

    Raises:
        FileNotFoundError: there is no folder of results.
        InputError: a file that is not readable as JSON.
    """
    rows: list[dict[str, Any]] = []
    for values in _collected(pattern, folder).values():
        of_size: dict[str, Any] = {}
        for method, run in values["runs"].items():
            rows += _row(method, run, "fused")
            of_size = run if "size_only" in run["metrics"] else of_size
        if of_size:  # the diameter's own score is the same in all runs on the same folds
            rows += _row("size only", of_size, "size_only")
    return pd.DataFrame(rows, columns=list(COLUMNS))


def comparisons(pattern: str = "*.json", folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """Paired differences of the committed runs, as `plots.compare.differences_figure` takes them.

    Returns:
        "file: what less what" -> what `summary.compare` returned.

    Raises:
        As `table`.
    """
    return {
        f"{name}: {what}": result
        for name, values in _collected(pattern, folder).items()
        for what, result in values.get("comparisons", {}).items()
    }


def _collected(pattern: str, folder: Path | None) -> dict[str, dict[str, Any]]:
    return dict(_files_with_runs(pattern, folder or paths.results()))


def _files_with_runs(pattern: str, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted(folder.glob(pattern)):
        values = read_json(file, "a measured result")
        if isinstance(values, dict) and "runs" in values:
            yield file.stem, values


def _row(method: str, run: dict[str, Any], view: str) -> list[dict[str, Any]]:
    found = run["metrics"].get(view)
    if not found:
        return []
    plan, kind = run["plan"], "simulated" if run["cohort"]["simulated"] else "real"
    return [
        {
            "images": f"{run['cohort']['name']} ({kind})",
            "method": method,
            "nodules": found["nodules"],
            **{m: _in_words(found[m]) for m in ("auc", "sensitivity", "specificity")},
            "protocol": (
                f"{plan['repeats']} x {plan['folds']} folds by {plan['split']}, at most "
                f"{run['config']['epochs']} epochs"
            ),
            "device": run["hardware"]["device"],
            "date": run["started"][:10],
        }
    ]


def _in_words(metric: dict[str, float]) -> str:
    return f"{metric['value']:.3f} ({metric['low']:.3f} to {metric['high']:.3f})"
