"""Lesson 11's figures of candidates: marks where they belong, and the right images."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from labkit.errors import InputError
from labkit.imaging.volume import Volume
from labkit.plots import lesson11, style
from labkit.plots.lesson11 import kinds_figure, kinds_rows


def table() -> pd.DataFrame:
    """Two candidates on one nodule, one on an excluded finding, three false positives."""
    return pd.DataFrame(
        {
            "series_uid": ["a", "a", "a", "a", "a", "b"],
            "x_mm": [-10.0, -9.0, 10.0, 0.0, 5.0, 0.0],
            "y_mm": [-5.0, -5.0, 5.0, 0.0, 5.0, 0.0],
            "z_mm": [20.0, 20.0, 20.0, 21.0, 80.0, 20.0],
            "diameter_mm": [9.0, 9.0, np.nan, np.nan, np.nan, np.nan],
            "hit": [0, 0, -1, -1, -1, -1],
            "excluded": [1, 0, 1, 0, 0, 0],
            "label": pd.array([1, 1, 0, 0, 0, 0], dtype="Int64"),
            "score": [200.0, 100.0, 150.0, 90.0, 300.0, 80.0],
            "lies_on": ["vessel", "vessel", "pleura", "vessel", "branching", "vessel"],
        }
    )


def test_a_hit_is_a_nodule_even_where_an_excluded_finding_is_too():
    kinds = lesson11.kind(table()).tolist()
    assert kinds == ["nodule", "nodule", "excluded", *["false positive"] * 3]


def test_marks_lie_on_the_voxels_of_their_candidates():
    voxels = np.full((40, 60, 100), -850, np.int16)
    volume = Volume(voxels, (0.5, 0.5, 2.0), (-24.75, -14.75, 0.0), series_uid="a")
    figure = lesson11.on_slice(volume, table(), 20.0)
    (ax,) = figure.axes
    left, right, bottom, top = ax.get_images()[0].get_extent()
    assert (left, right, bottom, top) == (-25.0, 25.0, 15.0, -15.0)
    marks = {m.get_label(): m.get_xydata().tolist() for m in ax.lines if ":" in m.get_label()}
    assert marks == {
        "nodule: 2": [[-10.0, -5.0], [-9.0, -5.0]],
        "excluded: 1": [[10.0, 5.0]],
        "false positive: 1": [[0.0, 0.0]],  # not the one 60 mm above, nor another scan's
    }
    assert "simulated" in [t.get_text() for t in ax.texts]
    with pytest.raises(InputError, match="outside the scan"):
        lesson11.on_slice(volume, table(), 500.0)


def test_the_gallery_shows_each_nodule_once_and_false_positives_by_score():
    shown = lesson11.strongest(table(), 2)
    assert shown["strongest false positives"].tolist() == [4, 3]
    assert shown["nodules"].tolist() == [0]
    views = np.zeros((6, 9, 76, 76), np.uint8)
    views[:, 0] = np.arange(6)[:, None, None] * 40
    cohort = SimpleNamespace(nodules=table(), views=views, simulated=True)
    figure = lesson11.gallery(cohort, 2)
    images = [i for block in figure.subfigs for ax in block.axes for i in ax.get_images()]
    levels = [round((float(np.mean(i.get_array())) + 1000) * 255 / 1400) for i in images]
    assert levels == [160, 120, 0]
    assert images[0].get_array().shape == (40, 40)
    titles = [ax.get_title(loc="left") for ax in figure.subfigs[1].axes if ax.get_images()]
    assert titles == ["9 mm"]


def test_shares_are_of_false_positives_alone():
    shares = lesson11.shares_on(table())
    assert shares.to_dict() == pytest.approx({"vessel": 2 / 3, "branching": 1 / 3})
    figure = lesson11.whereabouts(table(), {"vessel": 0.1})
    assert "vessel 67 %" in style.alt_text(figure)
    with pytest.raises(InputError, match="simulated"):
        lesson11.shares_on(table().drop(columns="lies_on"))
    with pytest.raises(InputError, match="score"):
        lesson11.strongest(table().drop(columns="score"))


def test_kinds_stand_in_rows_the_surest_first():
    views = np.zeros((6, 9, 76, 76), np.uint8)
    cohort = SimpleNamespace(nodules=table(), views=views, simulated=True)
    rows = kinds_rows(cohort, ["vessel", "branching", "hilum"], n=2)
    assert {name: numbers.tolist() for name, numbers in rows.items()} == {
        "nodule": [0], "vessel": [3, 5], "branching": [4],
    }  # fmt: skip
    figure = kinds_figure(cohort, ["vessel", "branching"], n=2)
    assert [ax.get_ylabel() for ax in figure.axes[::2]] == ["nodule", "vessel", "branching"]
    assert figure.axes[0].get_title("left") == "9 mm"
    assert sum(len(ax.get_images()) for ax in figure.axes) == 4
    bare = SimpleNamespace(nodules=table().drop(columns="score"), views=views, simulated=True)
    with pytest.raises(InputError, match="score"):
        kinds_rows(bare, ["vessel"], n=2)
