"""The ROC figures say what the metrics say."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.statistics import Interval
from labkit.plots import roc, style


def predictions(quality: dict[str, float], nodules: int = 60, repeats: int = 1) -> pd.DataFrame:
    """Predictions whose scores are the label times a quality plus noise, two nodules a patient."""
    rng = np.random.default_rng(7)
    label = np.tile([0, 1], nodules // 2)
    parts = [
        pd.DataFrame(
            {
                "nodule_id": [f"n{i:03d}" for i in range(nodules)],
                "patient_id": [f"p{i // 2:03d}" for i in range(nodules)],
                "repeat": repeat,
                "fold": np.arange(nodules) // 2 % 3,
                "view": view,
                "probability": 1 / (1 + np.exp(-(good * (label - 0.5) + rng.normal(size=nodules)))),
                "label": label,
            }
        )
        for repeat in range(repeats)
        for view, good in quality.items()
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def runs() -> dict[str, pd.DataFrame]:
    quality = {"0": 1.0, "3": 1.5, "fused": 2.5, "size_only": 2.0}
    return {"ST-CNN": predictions(quality), "MT-CNN": predictions({**quality, "fused": 3.0})}


def test_legend_carries_the_auc_that_the_metric_gives(runs):
    figure = roc.roc_figure(runs, resamples=50)
    entries = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert [e.split(":")[0] for e in entries] == ["ST-CNN", "MT-CNN", "size only"]
    for name, entry in zip(runs, entries, strict=False):
        labels, scores, _ = statistics.scores(runs[name], "fused")
        assert f"{statistics.roc_auc(labels, scores[0]):.3f} (" in entry


def test_a_perfect_score_goes_through_the_upper_left_corner():
    run = predictions({"fused": 1000.0})
    (line,) = roc.roc_figure({"MT-CNN": run}, resamples=20).axes[0].get_lines()[1:]
    assert (0.0, 1.0) in list(zip(*line.get_data(), strict=True))
    assert line.get_label().startswith("MT-CNN: 1.000 (1.000 to 1.000)")


def test_the_curve_of_one_run_is_its_exact_staircase(runs):
    line = roc.roc_figure(runs, resamples=20).axes[0].get_lines()[1]
    labels, scores, _ = statistics.scores(runs["ST-CNN"], "fused")
    expected = statistics.roc(labels, scores[0])
    np.testing.assert_array_equal(line.get_data(), expected)


def test_repeats_are_averaged_and_start_at_the_origin():
    run = predictions({"fused": 1.0}, repeats=3)
    line = roc.roc_figure({"MT-CNN": run}, resamples=20).axes[0].get_lines()[1]
    x, y = line.get_data()
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(y) >= -1e-12)


def test_size_only_is_drawn_once_and_can_be_left_out(runs):
    assert len(roc.roc_figure(runs, resamples=20).axes[0].get_lines()) == 1 + 2 + 1
    assert len(roc.roc_figure(runs, resamples=20, size_only=False).axes[0].get_lines()) == 1 + 2


def test_methods_keep_their_colours_in_any_order():
    for names in (["ST-CNN", "MT-CNN"], ["MT-CNN", "other", "ST-CNN"]):
        colours = roc.method_colours(names)
        assert colours["ST-CNN"] == style.ST
        assert colours["MT-CNN"] == style.MT
        assert len(set(colours.values())) == len(names)


def test_two_variants_of_one_method_do_not_share_a_colour():
    colours = roc.method_colours(["MT-CNN, alpha 0.3", "MT-CNN, alpha 1"])
    assert len(set(colours.values())) == 2


def test_the_operating_point_lies_on_the_curve(runs):
    figure = roc.operating_point_figure(runs["MT-CNN"], 0.6)
    labels, scores, _ = statistics.scores(runs["MT-CNN"], "fused")
    point = statistics.sensitivity_specificity(labels, scores[0], 0.6)
    curve, dot = figure.axes[1].get_lines()
    assert dot.get_xydata()[0] == pytest.approx([1 - point.specificity, point.sensitivity])
    # Along a ROC curve the sum of both rates only grows, so it finds the place on the curve.
    x, y = curve.get_data()
    on_curve = np.interp(dot.get_xydata()[0].sum(), x + y, x)
    assert on_curve == pytest.approx(1 - point.specificity)
    # Every nodule is in one bar.
    heights = sum(abs(bar.get_height()) for bar in figure.axes[0].patches)
    assert heights == len(labels)


@pytest.mark.parametrize("simulated", [True, False])
def test_simulated_is_said_when_it_is_so(runs, simulated):
    figures = [
        roc.roc_figure(runs, resamples=20, simulated=simulated),
        roc.view_auc_figure(runs, resamples=20, simulated=simulated),
        roc.operating_point_figure(runs["ST-CNN"], simulated=simulated),
    ]
    for figure in figures:
        titles = [ax.get_title("right") for ax in figure.axes]
        assert ("simulated CT" in titles) == simulated


def test_auc_by_view_has_a_row_for_every_view_and_for_size(runs):
    ax = roc.view_auc_figure(runs, resamples=50).axes[0]
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names == ["axial", "diagonal x plus", "fused", "size only"]
    points = [line for line in ax.get_lines() if len(line.get_xdata()) == 1]
    assert len(points) == 2 * 3 + 1


def test_weights_are_drawn_as_their_mean_and_must_sum_to_one():
    rows = np.array([[0.2, 0.3, 0.5], [0.4, 0.3, 0.3]])
    bars = roc.weights_figure(rows, views=(0, 1, 2)).axes[0].patches
    assert [bar.get_height() for bar in bars] == pytest.approx([0.3, 0.3, 0.4])
    with pytest.raises(InputError, match="summing to one"):
        roc.weights_figure(rows * 2, views=(0, 1, 2))


def test_differences_show_what_compare_computed(runs):
    result = statistics.compare(runs["MT-CNN"], runs["ST-CNN"])
    figure = roc.differences_figure({"MT less ST": result})
    point = [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 1]
    assert point[0].get_xdata()[0] == result["auc_difference"]["value"]
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts == [f"p = {result['delong']['p_value']:.2g}"]


def test_alternative_texts_hold_the_numbers(runs):
    labels, scores, _ = statistics.scores(runs["MT-CNN"], "fused")
    auc = f"{statistics.roc_auc(labels, scores[0]):.3f}"
    for figure in (
        roc.roc_figure(runs, resamples=20),
        roc.view_auc_figure(runs, resamples=20),
    ):
        assert auc in style.alt_text(figure)
    text = style.alt_text(roc.intervals_figure({"a": Interval(0.5, 0.4, 0.6)}, xlabel="AUC"))
    assert "0.500 (0.400 to 0.600)" in text


def test_nothing_to_draw_is_an_error():
    with pytest.raises(InputError, match="no run"):
        roc.roc_figure({})
    with pytest.raises(InputError, match="no run"):
        roc.view_auc_figure({})
    with pytest.raises(InputError, match="no interval"):
        roc.intervals_figure({}, xlabel="AUC")
    with pytest.raises(InputError, match="no predictions for view"):
        roc.roc_figure({"MT": predictions({"0": 1.0})}, resamples=20)


def test_drawing_leaves_the_readers_settings_alone(runs):
    before = dict(mpl.rcParams)
    roc.roc_figure(runs, resamples=20)
    assert dict(mpl.rcParams) == before
