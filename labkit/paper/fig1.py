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
    """Count classes, patients and scores of the nodules that one of `RULES` leaves.

    Returns:
        benign, uncertain, malignant, nodules, patients, and by_score: (score, nodules) pairs of the
        median or mean over readers; means are rounded to quarters.

    >>> found = counts(DEFAULT)
    >>> found["benign"], found["uncertain"], found["malignant"]
    (388, 441, 363)
    """
    changes = RULES[rule]
    nodules = lidc.nodules(**changes)
    score = nodules[f"malignancy_{changes.get('aggregate', 'median')}"]
    by_score = ((4 * score).round() / 4).value_counts().sort_index()
    return {
        "benign": int((nodules["label"] == 0).sum()),
        "uncertain": int(nodules["label"].isna().sum()),
        "malignant": int((nodules["label"] == 1).sum()),
        "nodules": len(nodules),
        "patients": int(nodules["patient_id"].nunique()),
        "by_score": [[score, count] for score, count in by_score.to_dict().items()],
    }


def fig1(experiment: Experiment, runs: None) -> dict[str, Any]:
    """Count nodules by score under every rule: `rules`. Nothing is trained for it."""
    return {"rules": {rule: counts(rule) for rule in RULES}, "missing": []}


def table(values: dict[str, Any]) -> pd.DataFrame:
    """Return one row a rule: rule, benign, uncertain, malignant, nodules, patients."""
    rows = [{"rule": rule, **found} for rule, found in values["rules"].items()]
    return pd.DataFrame(rows).drop(columns="by_score")
