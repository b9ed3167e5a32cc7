"""FROC one mark at a time: what each mark of a submission counts as, and where the curve goes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from labkit.data.luna16.hits import hits
from labkit.data.luna16.tables import SERIES
from labkit.evaluation import froc

FOUND, AGAIN, EXCLUDED, FALSE = "nodule found", "found again", "excluded", "false positive"
KINDS = (FOUND, AGAIN, EXCLUDED, FALSE)


def steps(
    candidates: pd.DataFrame,
    annotations: pd.DataFrame,
    excluded: pd.DataFrame,
    series_uids: Sequence[str],
) -> pd.DataFrame:
    """The marks in the order in which a falling threshold meets them.

    The rules are those of `froc.evaluate`, but for its limit of marks a scan, which is left out.
    The curve has a point after each mark that is not tied with the next one.

    Args:
        candidates, annotations, excluded, series_uids: as `froc.evaluate` takes them; no mark lies
            in another scan.

    Returns:
        One row a mark: `seriesuid`, `probability`, `counts_as` (of `KINDS`), and after it
        `found` (nodules), `false` (marks), `sensitivity` and `false_positives_per_scan`.

    Raises:
        InputError: what `froc.evaluate` raises.
    """
    judged = froc.evaluate(
        candidates, annotations, excluded, series_uids, max_marks=None, bootstraps=0
    )
    order = np.argsort(-candidates["probability"].to_numpy(float), kind="stable")
    marks = candidates.iloc[order].reset_index(drop=True)
    marks = marks[marks[SERIES].isin(list(series_uids))].reset_index(drop=True)
    on_nodules = hits(marks, annotations)
    # Of a nodule's hits the first in this order is its best.
    first = pd.Series(on_nodules.candidate).groupby(on_nodules.finding).min()
    newly = np.bincount(first.to_numpy(np.int64), minlength=len(marks))
    counts_as = np.full(len(marks), FALSE, dtype=object)
    counts_as[hits(marks, excluded).candidate] = EXCLUDED
    counts_as[on_nodules.candidate] = AGAIN
    counts_as[newly > 0] = FOUND
    found, false = np.cumsum(newly), np.cumsum(counts_as == FALSE)
    return pd.DataFrame(
        {
            SERIES: marks[SERIES].astype(str),
            "probability": marks["probability"].to_numpy(float),
            "counts_as": counts_as,
            "found": found,
            "false": false,
            "sensitivity": found / judged.counts.nodules,
            "false_positives_per_scan": false / judged.counts.scans,
        }
    )
