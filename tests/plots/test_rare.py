"""Lesson 11's figures of rarity and of the detector say what their numbers say."""

import numpy as np
import pandas as pd
import pytest

from labkit.errors import InputError
from labkit.evaluation.froc import RATES
from labkit.plots import lesson11, style
from labkit.plots.froc import transferred_figure
from labkit.plots.lesson11 import detector_figure
from labkit.plots.paper import rows_froc_figure

RNG = np.random.default_rng(0)
LABELS = np.repeat([1, 0], [20, 2000])
SCORES = RNG.normal(2.0 * LABELS)


def test_both_axes_show_one_curve():
    figure = lesson11.two_axes_figure({"MT-CNN": (LABELS, SCORES)}, scans=20, simulated=True)
    left, right = figure.axes
    rate, a_scan = left.get_lines()[0].get_data(), right.get_lines()[0].get_data()
    np.testing.assert_allclose(100 * rate[0], a_scan[0])
    np.testing.assert_array_equal(rate[1], a_scan[1])
    assert right.get_title("right") == "simulated CT"
    assert "at 8 false positives a scan" in style.alt_text(figure)
    with pytest.raises(InputError, match="scans"):
        lesson11.two_axes_figure({"MT-CNN": (LABELS, SCORES)}, scans=0)


def test_the_sampler_meets_more_others_with_every_epoch():
    shown = [np.r_[0, 0, 1, 5, 6, 7], np.r_[0, 0, 1, 7, 8, 9]]
    labels = np.r_[1, 1, np.zeros(8, int)]
    figure = lesson11.epochs_figure(labels, shown)
    lines = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[1].get_lines()}
    assert lines == {"nodules": [100, 100], "others": [37.5, 62.5]}
    assert "6 images, 0.500 of nodules" in style.alt_text(figure)
    with pytest.raises(InputError, match="no epoch"):
        lesson11.epochs_figure(labels, [])


def test_reliability_puts_bins_without_a_nodule_at_the_foot():
    table = pd.DataFrame(
        {
            "predicted": [0.001, 0.02, 0.5], "observed": [0.0, 0.03, 0.4],
            "low": [0.0, 0.01, 0.2], "high": [0.02, 0.09, 0.6],
        }
    )  # fmt: skip
    figure = lesson11.reliability_figure({"corrected": table})
    (ax,) = figure.axes
    lines = {tuple(line.get_xdata()): line for line in ax.get_lines()}
    assert lines[0.02, 0.5].get_ydata().tolist() == [0.03, 0.4]
    assert lines[(0.001,)].get_ydata() < 0.002
    assert ax.get_xscale() == ax.get_yscale() == "log"
    with pytest.raises(InputError):
        lesson11.reliability_figure({})


def test_the_detector_stands_where_it_was_measured():
    values = {
        "curve": {"candidates_a_scan": [600.0, 100.0, 5.0], "sensitivity": [1.0, 0.9, 0.4]},
        "luna16": {"candidates_a_scan": 620.6, "nodules": 1186, "hit": 1120},
        "candidates_a_scan": 100.0, "hit": 36.0, "nodules": 40, "settings": {"scans": 24},
    }  # fmt: skip
    figure = detector_figure(values, (110.0, 80, 92), "60 other scans")
    text = style.alt_text(figure)
    assert "60 other scans: 80 of 92, 0.870 at 110 candidates a scan" in text
    assert "1,120 of 1,186, 0.944 at 621" in text


def test_rows_are_drawn_with_their_intervals_where_they_were_judged():
    def row(**of):
        curve = {"rates": list(RATES), "sensitivity": list(np.linspace(0.2, 0.8, 7))}
        ends = {"low": list(np.linspace(0.1, 0.7, 7)), "high": list(np.linspace(0.3, 0.9, 7))}
        cpm = {"cpm": 0.5, "cpm_low": 0.4, "cpm_high": 0.6, "scans": 60, "nodules": 92}
        return {"metrics": {"froc": {**curve, "curve": curve, **ends, **cpm, **of}}}

    none = {"metrics": {"froc": {"not_computed": "no nodule"}}}
    values = {"rows": {"MT-CNN": row(), "ST-CNN": none}, "cohort": {"simulated": True}}
    figure = rows_froc_figure(values)
    (ax,) = figure.axes
    assert len(ax.collections) == 1 and len(ax.get_lines()) == 2
    assert style.alt_text(figure).endswith("MT-CNN: 0.500 (0.400 to 0.600).")
    assert ax.get_title("left") == "60 scans, 92 nodules"
    with pytest.raises(InputError, match="none of ST-CNN"):
        rows_froc_figure(values, ["ST-CNN"])


def test_thresholds_stand_where_they_were_chosen_and_elsewhere():
    splits = pd.DataFrame(
        {
            "threshold": [0.5, 0.4], "sensitivity_chosen": [0.8, 0.9],
            "sensitivity_elsewhere": [0.7, 0.6], "false_positives_chosen": [1.0, 2.0],
            "false_positives_elsewhere": [1.5, 1.0],
        }
    )  # fmt: skip
    (ax,) = transferred_figure(splits, 0.8).axes
    chosen, elsewhere, wanted = ax.get_lines()
    assert (list(chosen.get_ydata()), list(elsewhere.get_xdata())) == ([0.8, 0.9], [1.5, 1.0])
    assert set(wanted.get_ydata()) == {0.8}
    with pytest.raises(InputError, match="no split"):
        transferred_figure(splits[:0], 0.8)
