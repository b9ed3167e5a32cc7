"""Seven marks in four scans, worked by hand: what lesson 11 walks through."""

import pandas as pd

SCANS = ["a", "b", "c", "d"]
_POSITION = ["seriesuid", "x_mm", "y_mm", "z_mm"]
NODULES = pd.DataFrame(
    [("a", 0, 0, 0, 10), ("a", 40, 0, 0, 6), ("b", 0, 0, 0, 8)],
    columns=[*_POSITION, "diameter_mm"],
).astype(dict.fromkeys((*_POSITION[1:], "diameter_mm"), float))
EXCLUDED = pd.DataFrame([("a", 0.0, 50.0, 0.0, -1.0)], columns=[*_POSITION, "diameter_mm"])
MARKS = pd.DataFrame(
    [
        ("a", 1, 0, 0, 0.95),  # 1 mm from the first nodule
        ("a", 0, 4.9, 0, 0.90),  # within it too
        ("b", 30, 0, 0, 0.85),  # on nothing
        ("a", 0, 52, 0, 0.80),  # on the excluded finding, whose diameter counts as 10 mm
        ("a", 43, 0, 0, 0.70),  # exactly on the second nodule's rim
        ("a", 41, 0, 0, 0.60),  # in it
        ("b", 0, 60, 0, 0.50),  # on nothing; the nodule of b has no mark
    ],
    columns=[*_POSITION, "probability"],
)
