"""What tells of a diagnosis, on patients whose answer is known."""

from __future__ import annotations

import pandas as pd
import pytest

from benchmarks import diagnosis
from labkit.errors import InputError


def test_a_patient_counts_once_by_the_largest_of_his_nodules() -> None:
    patients = pd.DataFrame({
        "patient_id": list("abcde"), "method": "biopsy",
        "diagnosis": ["benign", "primary cancer", "metastasis", "unknown", "benign"],
    })  # fmt: skip
    nodules = pd.DataFrame({
        "patient_id": list("aabbcd"), "diameter_mm": [5.0, 9.0, 4.0, 20.0, 8.0, 50.0],
        "malignancy_mean": [1.0, 2.0, 1.0, 5.0, 3.0, 5.0], "malignancy_median": [3.0] * 6,
    })  # fmt: skip
    found = diagnosis.judge(patients, nodules, resamples=50)
    assert (found["patients"], found["malignant"]) == (3, 2)  # d is unknown, e has no nodule
    values = {name: of["value"] for name, of in found["auc"].items()}
    assert values == {"largest diameter": 0.5, "highest mean malignancy": 1.0,
                      "highest median malignancy": 0.5}  # fmt: skip
    assert found["less largest diameter"]["highest mean malignancy"]["value"] == 0.5


def test_another_table_is_refused_with_its_name(tmp_path) -> None:
    (other := tmp_path / "other.xls").write_bytes(b"not the table")
    with pytest.raises(InputError, match=r"other\.xls: not the file of https"):
        diagnosis.read(other)
