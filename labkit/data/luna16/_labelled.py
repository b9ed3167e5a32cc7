"""The rows of a LUNA-16 cohort, of candidates and what they may hit."""

from __future__ import annotations

import numpy as np
import pandas as pd

from labkit.data import lidc
from labkit.data.luna16 import hits
from labkit.data.luna16.tables import POSITION, SERIES

_NONE = -1


def candidate_ids(n: int) -> list[str]:
    """Ids of n candidates, by their row."""
    return [f"c{row:07d}" for row in range(n)]


def labelled(
    candidates: pd.DataFrame, annotations: pd.DataFrame, excluded: pd.DataFrame | None
) -> pd.DataFrame:
    """Label candidates by the hit rule, and say whose they are.

    Args:
        candidates: columns `seriesuid`, `x_mm`, `y_mm`, `z_mm`.
        annotations: the nodules; the same and `diameter_mm`.
        excluded: findings of which candidates are marked; as `annotations`.

    Returns:
        One row a candidate, in their order, with all columns that `CandidateWriter` wants but for
        `subset`. The patient of a series that LIDC-IDRI does not know is called as the series.
    """
    hit = hits.label(candidates, annotations)["nodule"].to_numpy()
    diameter = annotations["diameter_mm"].to_numpy(float)
    patients = lidc.scans().set_index("series_uid")["patient_id"].to_dict()
    uids = candidates[SERIES].astype(str)
    on_excluded = np.zeros(len(candidates), np.int64)
    if excluded is not None:
        on_excluded[hits.hits(candidates, excluded).candidate] = 1
    return pd.DataFrame(
        {
            "nodule_id": candidate_ids(len(candidates)),
            "patient_id": uids.map(patients).fillna(uids).to_numpy(),
            "series_uid": uids.to_numpy(),
            **{axis: candidates[axis].to_numpy(float) for axis in POSITION},
            "diameter_mm": np.where(hit == _NONE, np.nan, diameter[hit] if len(diameter) else 0),
            "hit": hit,
            "excluded": on_excluded,
            "label": (hit != _NONE).astype(np.int64),
        }
    )
