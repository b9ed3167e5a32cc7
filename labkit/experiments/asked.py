"""One difference, asked about in every way that the course knows, side by side.

Pooled over folds and within them, over patients and over trainings: these are different questions,
and a difference that only one of them finds is not yet one that the others would bear out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from labkit.experiments.judging import pooled, signed, within

COLUMNS = (
    "pooled over folds", "Holm's p", "within folds", "t-test over folds, p", "excludes more than",
)  # fmt: skip


def asked(comparisons: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """What each way to ask says of each comparison.

    Args:
        comparisons: name -> what `measured.compare` and `measured.correct` gave, as in the JSON of
            a sweep.

    Returns:
        One row a comparison: the difference of the pooled AUC with its interval over patients;
        DeLong's p after the family's correction; the difference within folds with its interval; p
        of the corrected t-test, "none" where it could not be computed; and the smallest margin
        that equivalence is shown for.
    """
    rows = {}
    for name, pair in comparisons.items():
        t = pair["corrected_t_test"].get("p_value")
        rows[name] = (
            signed(pooled(pair)),
            f"{pair['p_holm']:.2g}",
            signed(within(pair)),
            "none" if t is None else f"{t:.2g}",
            f"{pair['equivalence']['smallest_margin']:.3f}",
        )
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS))
