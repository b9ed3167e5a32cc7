"""The ROC figures, the reliability diagram and the size bands say what the metrics say."""

import numpy as np
import pandas as pd
import pytest

from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.calibration import calibration
from labkit.plots import roc, style
from tests.evaluation.tables import predictions as fused


def predictions(quality: dict[str, float], repeats: int = 1) -> pd.DataFrame:
    """Predictions of views as far from chance as their qualities say."""
    return pd.concat(
        fused(patients=30, signal=good, repeats=repeats).assign(view=view)
        for view, good in quality.items()
    )


@pytest.fixture(scope="module")
def runs() -> dict[str, pd.DataFrame]:
    quality = {"0": 1.0, "3": 1.5, "fused": 2.5, "size_only": 2.0}
    return {"ST-CNN": predictions(quality), "MT-CNN": predictions({**quality, "fused": 3.0})}


def curves(figure) -> dict[str, np.ndarray]:
    """Method -> (x, y) of the labelled curves of a ROC figure."""
    lines = [line for line in figure.axes[0].get_lines() if ":" in str(line.get_label())]
    return {str(line.get_label()).split(":")[0]: line.get_data() for line in lines}


def test_legend_and_curve_are_what_the_metric_gives(runs):
    figure = roc.roc_figure(runs, resamples=50)
    entries = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert [e.split(":")[0] for e in entries] == ["ST-CNN", "MT-CNN", "size only"]
    for name, entry in zip(runs, entries, strict=False):
        labels, scores, _ = statistics.scores(runs[name], "fused")
        assert f"{statistics.roc_auc(labels, scores[0]):.3f} (" in entry
        # The curve of one run is its exact staircase.
        np.testing.assert_array_equal(
            curves(figure)[name], statistics.roc(labels, scores[0])
        )  # fmt: skip
        assert entry in style.alt_text(figure)


def test_the_operating_point_lies_on_the_curve(runs):
    figure = roc.operating_point_figure(runs["MT-CNN"], 0.6)
    labels, scores, _ = statistics.scores(runs["MT-CNN"], "fused")
    point = statistics.sensitivity_specificity(labels, scores[0], 0.6)
    curve, dot, *_ = figure.axes[1].get_lines()
    assert dot.get_xydata()[0] == pytest.approx([1 - point.specificity, point.sensitivity])
    # Along a ROC curve the sum of both rates only grows, so it finds the place on the curve.
    x, y = curve.get_data()
    on_curve = np.interp(dot.get_xydata()[0].sum(), x + y, x)
    assert on_curve == pytest.approx(1 - point.specificity)
    # Every nodule is in one bar.
    assert sum(abs(bar.get_height()) for bar in figure.axes[0].patches) == len(labels)


def test_weights_are_drawn_as_their_mean_and_must_sum_to_one():
    rows = np.array([[0.2, 0.3, 0.5], [0.4, 0.3, 0.3]])
    bars = roc.weights_figure(rows).axes[0].patches
    assert [bar.get_height() for bar in bars] == pytest.approx([0.3, 0.3, 0.4])
    with pytest.raises(InputError, match="summing to one"):
        roc.weights_figure(rows * 2)


def test_the_diagram_has_a_panel_a_method_with_the_tables_points():
    found = dict.fromkeys(("MT-CNN", "size only"), calibration(fused(patients=90), resamples=50))
    figure = roc.reliability_figure(found, simulated=True)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["MT-CNN", "size only"]
    points, table = figure.axes[0].get_lines()[1], found["MT-CNN"].table
    np.testing.assert_array_equal(points.get_xydata(), table[["predicted", "observed"]])
    assert points.get_color() == style.MT
    assert f"Brier {found['MT-CNN'].brier}" in style.alt_text(figure)


def test_moving_the_slider_draws_anew(runs, monkeypatch):
    pytest.importorskip("ipywidgets")
    drawn = []
    monkeypatch.setattr(style, "show", drawn.append)
    slider, _ = roc.threshold_slider(runs["MT-CNN"]).children
    slider.value = 0.8
    assert ["cut by a threshold" in style.alt_text(figure) for figure in drawn] == [True, True]
    assert "threshold 0.80" in style.alt_text(drawn[1])
    monkeypatch.setitem(__import__("sys").modules, "ipywidgets", None)
    with pytest.raises(InputError, match="pip install ipywidgets"):
        roc.threshold_slider(runs["MT-CNN"])
