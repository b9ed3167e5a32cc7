"""A small cohort whose answer is known: malignant discs are brighter than benign ones."""

from pathlib import Path

import numpy as np

from labkit.cohorts.cohort import Cohort, write_cohort

RATINGS = (
    "subtlety", "internal_structure", "calcification", "sphericity", "margin", "lobulation",
    "spiculation", "texture", "malignancy_mean", "malignancy_median", "center_row_px",
    "center_col_px", "center_z_mm", "volume_mm3",
)  # fmt: skip


def disc_cohort(folder: Path, n: int = 40, seed: int = 0, uncertain: int = 2) -> Cohort:
    """n nodules of n / 2 patients, discs of 12 pixels in all views, with noise."""
    rng = np.random.default_rng(seed)
    row, col = np.mgrid[:76, :76] - 37.5
    disc = (row**2 + col**2 < 36).astype(float)
    with write_cohort(folder, n, source="discs for a test", simulated=True) as add:
        for i in range(n):
            label = None if i < uncertain else int(rng.random() < 0.5)
            if i in (uncertain, uncertain + 1):
                label = i - uncertain
            bright = 200 if label else -400
            views = -900 + disc * (900 + bright) + rng.normal(0, 30, (9, 76, 76))
            row_of_table = {
                "nodule_id": f"n{i:03d}",
                "patient_id": f"p{i // 2:03d}",
                "series_uid": f"1.2.{i}",
                "readers": 4,
                "diameter_mm": 5 + 10 * rng.random() + 3 * (label or 0),
                "label": label,
                **dict.fromkeys(RATINGS, np.nan),
            }
            add(row_of_table, cube=np.full((64, 64, 64), -900), views=views)
    return Cohort.open(folder)
