"""What a ruler and the readers' opinions tell of a diagnosis, which 157 patients of LIDC-IDRI have.

    pip install xlrd
    python -m benchmarks.diagnosis [--file TABLE.xls] --out results/diagnosis.json

The table is The Cancer Imaging Archive's (LIDC-IDRI, CC BY 3.0), and is fetched once. A diagnosis
is of a patient, so each is scored by the largest of all his nodules, and by the one that readers
think most suspicious. Lesson 13 shows what this wrote.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.common import command
from labkit import io, paths
from labkit.annotations import lidc
from labkit.evaluation.statistics import bootstrap_auc, bootstrap_auc_difference, plain

NAME = "tcia-diagnosis-data-2012-04-20.xls"
URL = f"https://www.cancerimagingarchive.net/wp-content/uploads/{NAME}"
SHA256 = "63a930a7893ace5d37f5a2dd402ccb8b1efd25cdeb7d0c241519cc435a35e2bc"
DIAGNOSES = ("unknown", "benign", "primary cancer", "metastasis")
METHODS = ("unknown", "two years stable", "biopsy", "surgery", "progression or response")
RULER = "largest diameter"
SCORES = {"highest mean malignancy": "malignancy_mean",
          "highest median malignancy": "malignancy_median", RULER: "diameter_mm"}  # fmt: skip


def read(file: Path | None = None) -> pd.DataFrame:
    """Read the table, as given, in `LABKIT_REAL_DATA`, or fetched into the cache: patient_id, and
    diagnosis and method in words."""
    place = io.fetch(URL, SHA256, file or (paths.real_data() or paths.cache()) / NAME)
    table = pd.read_excel(place, usecols=[0, 1, 2])
    table.columns = pd.Index(["patient_id", "diagnosis", "method"])
    for column, words in (("diagnosis", DIAGNOSES), ("method", METHODS)):
        table[column] = table[column].map(dict(enumerate(words)))
    return table


def judge(patients: pd.DataFrame, nodules: pd.DataFrame, resamples: int) -> dict[str, Any]:
    """Tell malignant patients from benign ones by each of `SCORES`, and compare with the ruler.

    Patients of unknown diagnosis, or without a nodule, drop out.
    """
    known = patients[patients["diagnosis"] != "unknown"].set_index("patient_id")
    both = known.join(nodules.groupby("patient_id")[list(SCORES.values())].max(), how="inner")
    y, size = (both["diagnosis"] != "benign").astype(int), both[SCORES[RULER]]
    auc, less = {}, {}
    for name, score in ((name, both[column]) for name, column in SCORES.items()):
        auc[name] = plain(bootstrap_auc(y, score, resamples=resamples))
        if name != RULER:
            less[name] = plain(bootstrap_auc_difference(y, score, size, resamples=resamples))
    return {"patients": len(both), "malignant": int(y.sum()), "auc": auc, f"less {RULER}": less}


def measure(*, file: Path | None = None, resamples: int = 10_000) -> dict[str, Any]:
    """Judge ruler and opinions by the diagnosis, of nodules of one reader or more, and of three."""
    patients, rows = read(file), {}
    for readers, whose in ((1, "any reader's nodules"), (3, "nodules of three readers or more")):
        nodules = lidc.nodules(min_readers=readers, max_slice_thickness_mm=None)
        for name, left_out in (("all cancers", ""), ("primary cancers", "metastasis")):
            part = patients[patients["diagnosis"] != left_out]
            rows[f"{name}, {whose}"] = judge(part, nodules, resamples)
    return {
        "source": URL, "sha256": SHA256, "patients": len(patients),
        "diagnosed_by": pd.crosstab(patients["diagnosis"], patients["method"]).to_dict("index"),
        "rows": rows,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(command(measure, __doc__))
