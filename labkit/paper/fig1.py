"""Fig. 1: how many nodules there are of each malignancy score, and under each rule."""

from __future__ import annotations

from typing import Any

import pandas as pd

from labkit.annotations import lidc
from labkit.paper.declared import Experiment

DEFAULT = "3 readers, 2.5 mm, median"
RULES: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "mean instead of median": {"aggregate": "mean"},
    "slices of any thickness": {"max_slice_thickness_mm": None},
    "slices of 1.5 mm at most": {"max_slice_thickness_mm": 1.5},
    "1 reader": {"min_readers": 1},
    "2 readers": {"min_readers": 2},
    "4 readers": {"min_readers": 4},
    "LUNA-16's 888 scans": {"series": "luna16"},
    "LUNA-16's scans, mean": {"series": "luna16", "aggregate": "mean"},
    "every nodule of every scan": {"min_readers": 1, "max_slice_thickness_mm": None},
}
"""Name -> what differs from `lidc.nodules`'s defaults, which are the printed rule."""


def counts(rule: str) -> dict[str, Any]:
    """Classes, patients and scores of the nodules that a rule leaves.

    Args:
        rule: a name in `RULES`.

    Returns:
        benign, uncertain, malignant, nodules, patients, and by_score: (score, nodules) pairs of the
        median or mean over readers; means are rounded to quarters.

    >>> found = counts(DEFAULT)
    >>> found["benign"], found["uncertain"], found["malignant"]
    (388, 441, 363)
    """
    changes = RULES[rule]
    table = lidc.nodules(**changes)
    score = table[f"malignancy_{changes.get('aggregate', 'median')}"]
    by_score = ((4 * score).round() / 4).value_counts().sort_index()
    return {
        "benign": int((table["label"] == 0).sum()),
        "uncertain": int(table["label"].isna().sum()),
        "malignant": int((table["label"] == 1).sum()),
        "nodules": len(table),
        "patients": int(table["patient_id"].nunique()),
        "by_score": [
            [s, n] for s, n in zip(by_score.index.tolist(), by_score.tolist(), strict=True)
        ],
    }


def fig1(experiment: Experiment, runs: None) -> dict[str, Any]:
    """`rules`: rule -> what `counts` says. Nothing is trained for it."""
    return {"rules": {rule: counts(rule) for rule in RULES}, "missing": []}


def table(values: dict[str, Any]) -> pd.DataFrame:
    """One row a rule: rule, benign, uncertain, malignant, nodules, patients."""
    rows = [{"rule": rule, **found} for rule, found in values["rules"].items()]
    return pd.DataFrame(rows).drop(columns="by_score")
