"""The benchmark of the detector: its table of sensitivities."""

import pandas as pd
import pytest

from benchmarks import detector


def test_sensitivity_falls_and_candidates_grow_fewer_as_the_threshold_rises():
    at = {"x_mm": [0.0, 50.0, 2.0, 90.0], "y_mm": 0.0, "z_mm": 0.0}
    candidates = pd.DataFrame({"seriesuid": "a", **at, "score": [300.0, 200.0, 100.0, 90.0]})
    nodules = pd.DataFrame(
        {"seriesuid": "a", "x_mm": [1.0, 51.0, 300.0], "y_mm": 0.0, "z_mm": 0.0,
         "diameter_mm": 6.0}
    )  # fmt: skip
    table = detector.sensitivity_table(candidates, nodules, 2, [50.0, 150.0, 250.0, 350.0])
    assert table["candidates_a_scan"].tolist() == [2.0, 1.0, 0.5, 0.0]
    assert table["hit"].tolist() == [2, 2, 1, 0]
    assert table["sensitivity"].iloc[0] == pytest.approx(2 / 3)
    assert detector.best_scores(candidates, nodules).tolist() == [300.0, 200.0, 0.0]
