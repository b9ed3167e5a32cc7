"""A small LUNA-16 whose answer is known: nodules are bright discs, other candidates dark ones."""

from pathlib import Path

import numpy as np
import pandas as pd

from labkit.cohorts.candidates import part_files, write_candidates, write_part
from labkit.cohorts.cohort import Cohort

SUBSETS = 3


def luna_discs(folder: Path, scans: int = 18, each: int = 12, seed: int = 0) -> Cohort:
    """`scans` scans with `each` candidates, the first one or two of them on the scan's nodule.

    The last scan has a nodule that no candidate hits. Candidates lie 20 mm apart along x.
    """
    rng = np.random.default_rng(seed)
    row, col = np.mgrid[:76, :76] - 37.5
    disc = (row**2 + col**2 < 36).astype(float)
    rows, nodules = [], []
    uids = [f"1.2.3.{i}" for i in range(scans)]
    for i, uid in enumerate(uids):
        nodules.append((uid, 0.0, 0.0, -10.0 * i, 8.0))
        for k in range(each):
            hits = i < scans - 1 and k <= i % 2
            rows.append(
                {
                    "patient_id": f"p{i:02d}", "series_uid": uid,
                    "x_mm": 0.5 * k if hits else 20.0 * (k + 1), "y_mm": 0.0, "z_mm": -10.0 * i,
                    "diameter_mm": 8.0 if hits else np.nan, "hit": i if hits else -1,
                    "excluded": int(k == each - 1), "label": int(hits), "subset": i % SUBSETS,
                    "score": float(np.exp(rng.normal(1.5 * hits))),
                }
            )  # fmt: skip
    table = pd.DataFrame(rows)
    table.insert(0, "nodule_id", [f"c{i:07d}" for i in range(len(table))])
    positions = ["seriesuid", "coordX", "coordY", "coordZ"]
    left_out = table[table["excluded"] == 1]
    excluded = left_out[["series_uid", "x_mm", "y_mm", "z_mm"]].set_axis(positions, axis=1)
    tables = {
        "annotations.csv": pd.DataFrame(nodules, columns=[*positions, "diameter_mm"]),
        "annotations_excluded.csv": excluded.assign(diameter_mm=-1.0),
        "seriesuids.csv": pd.DataFrame({"seriesuid": uids}),
    }
    bright = np.where(table["label"] == 1, 180, 90)[:, None, None, None]
    grey = 20 + disc * (bright - 20) + rng.normal(0, 8, (len(table), 9, 76, 76))
    views = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    parts = part_files(folder, dict.fromkeys(uids, seed))
    for uid, file in parts.items():
        write_part(file, views[table["series_uid"] == uid], {})
    meta = {"source": "discs for a test", "simulated": True, "settings": {}, "report": {}}
    write_candidates(folder, parts, table, tables, meta)
    return Cohort.open(folder)
