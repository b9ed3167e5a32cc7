"""The walk along a FROC curve: the case done by hand, and always the curve of `froc.evaluate`."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.evaluation import froc
from labkit.plots import style
from labkit.plots.froc import steps_figure
from tests.evaluation.luna_by_hand import EXCLUDED, MARKS, NODULES, SCANS


def test_the_case_by_hand():
    walk = froc.froc_steps_steps(MARKS.sample(frac=1, random_state=1), NODULES, EXCLUDED, SCANS)
    assert walk["counts_as"].tolist() == [
        "nodule found", "found again", "false positive", "excluded", "false positive",
        "nodule found", "false positive",
    ]  # fmt: skip
    assert walk["found"].tolist() == [1, 1, 1, 1, 1, 2, 2]
    assert walk["false_positives_per_scan"].tolist() == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75]
    assert froc.evaluate(MARKS, NODULES, EXCLUDED, SCANS, bootstraps=0).cpm == pytest.approx(4 / 7)


def test_a_mark_on_two_nodules_finds_both():
    two = NODULES.iloc[[0, 0]].assign(x_mm=[0.0, 3.0])
    walk = froc.froc_steps_steps(MARKS.iloc[:1], two, EXCLUDED, SCANS)
    assert walk[["found", "sensitivity"]].to_numpy().tolist() == [[2, 1.0]]


places = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=12
)


def table(rows, last, values):
    frame = pd.DataFrame([r[:2] for r in rows], columns=["seriesuid", "x_mm"])
    frame["x_mm"] = 2.5 * frame["x_mm"]
    return frame.assign(y_mm=0.0, z_mm=0.0, **{last: values})


@settings(max_examples=60, deadline=None)
@given(marks=places, nodules=places, excluded=places)
def test_the_walk_ends_where_the_curve_does_and_passes_its_points(marks, nodules, excluded):
    judged = (
        table(nodules, "diameter_mm", [4.0 + r[2] for r in nodules]),
        table(excluded, "diameter_mm", [-1.0 if r[2] == 0 else 6.0 for r in excluded]),
        ["a", "b"],
    )
    tried = table(marks, "probability", [r[2] / 6 for r in marks])
    walk = froc.froc_steps_steps(tried, *judged)
    result = froc.evaluate(tried, *judged, max_marks=None, bootstraps=0)
    c, last = result.counts, walk.iloc[-1]
    assert (last["found"], last["false"]) == (c.detected, c.false_positives)
    assert (walk["counts_as"] == froc.EXCLUDED).sum() == c.excluded
    after = walk.groupby("probability").last()
    for x, y, t in zip(
        result.false_positives_per_scan, result.curve_sensitivity, result.thresholds, strict=True
    ):
        if np.isfinite(t):
            at = after.loc[t]
            assert (at["false_positives_per_scan"], at["sensitivity"]) == pytest.approx((x, y))


def test_the_figure_shows_each_mark_where_the_walk_stands():
    walk = froc.froc_steps_steps(MARKS, NODULES, EXCLUDED, SCANS)
    result = froc.evaluate(MARKS, NODULES, EXCLUDED, SCANS, bootstraps=0)
    figure = steps_figure(walk, result)
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert lines["false positive"].get_xdata().tolist() == [0.25, 0.5, 0.75]
    assert lines["nodule found"].get_xdata().tolist() == [0, 0.5]
    assert "CPM 0.571" in style.alt_text(figure)
