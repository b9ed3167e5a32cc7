"""The reliability diagram and the size bands show what was computed."""

import numpy as np
import pandas as pd
import pytest

from labkit.errors import InputError
from labkit.evaluation import size as size_bands
from labkit.evaluation.calibration import calibration
from labkit.plots import roc, style
from labkit.plots.roc import reliability_figure
from tests.evaluation.tables import predictions


@pytest.fixture(scope="module")
def run() -> pd.DataFrame:
    return predictions(patients=90)


@pytest.fixture(scope="module")
def banded(run) -> pd.DataFrame:
    label = run.sort_values("nodule_id")["label"].to_numpy()
    mm = np.where(label == 1, 20.0, np.tile([5.0, 10.0], 90))
    mm[:60], mm[60:120] = 5.0, 10.0
    mm[np.flatnonzero((label == 0) & (mm == 5.0))[:2]] = 20.0
    nodules = pd.DataFrame({"nodule_id": sorted(run["nodule_id"]), "diameter_mm": mm})
    methods = {"MT-CNN": (run, "fused"), "size only": (run, "fused")}
    return size_bands.by_size(methods, nodules, resamples=50)


def test_the_diagram_has_a_panel_a_method_with_the_tables_points(run):
    found = {"MT-CNN": calibration(run, resamples=50), "size only": calibration(run, resamples=50)}
    figure = reliability_figure(found, simulated=True)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["MT-CNN", "size only"]
    assert all(ax.get_title(loc="right") == "simulated CT" for ax in figure.axes)
    points = figure.axes[0].get_lines()[1]
    table = found["MT-CNN"].table
    np.testing.assert_array_equal(points.get_xdata(), table["predicted"])
    np.testing.assert_array_equal(points.get_ydata(), table["observed"])
    assert points.get_color() == style.MT
    assert f"Brier score {found['MT-CNN'].brier}" in style.alt_text(figure)


def test_bands_show_every_method_and_leave_the_unsure_hollow(banded):
    figure = roc.size_bands_figure(banded)
    (ax,) = figure.axes
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert labels[0].startswith("under 8 mm\n") and labels[-1].startswith("all sizes\n90 benign")
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == ["MT-CNN", "size only"]
    unsure = banded["auc_low"].isna() & banded["auc"].notna()
    assert unsure.any()
    hollow = [line for line in ax.get_lines() if line.get_markerfacecolor() == "none"]
    assert sum(np.isfinite(line.get_xdata()).sum() for line in hollow) == unsure.sum()
    assert "no interval" in style.alt_text(figure)
    assert roc.size_bands_figure(banded, "sensitivity", title="by size").axes


def test_nothing_to_draw_is_refused(banded):
    with pytest.raises(InputError, match="no calibration"):
        reliability_figure({})
    with pytest.raises(InputError, match="metric must be one of"):
        roc.size_bands_figure(banded, "accuracy")
    with pytest.raises(InputError, match="no bands"):
        roc.size_bands_figure(banded.iloc[:0])
