"""The FROC figures say what the evaluation says."""

import numpy as np

from labkit.evaluation import froc
from labkit.evaluation.froc import RATES
from labkit.plots import style
from labkit.plots.froc import froc_figure, steps_figure
from tests.evaluation.test_froc import LESSON
from tests.plots.test_figures import judged


def test_curve_dots_band_and_legend_are_those_of_the_evaluation():
    results = {"ST-CNN": judged(2.0), "MT-CNN": judged(4.0)}
    figure = froc_figure(results)
    (ax,) = figure.axes
    entries = [text.get_text() for text in ax.get_legend().get_texts()]
    assert entries == [f"{name}: {r.band.cpm}" for name, r in results.items()]
    assert [line.get_color() for line in ax.get_lines()[::2]] == [style.ST, style.MT]
    curve, dots = ax.get_lines()[:2]
    np.testing.assert_array_equal(dots.get_data(), [RATES, results["ST-CNN"].sensitivity])
    x, y = curve.get_data()
    assert (x.min(), x.max()) == (RATES[0], RATES[-1])
    np.testing.assert_array_equal(y[np.searchsorted(x, RATES)], results["ST-CNN"].sensitivity)
    assert ax.get_xscale() == "log"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1/8", "1/4", "1/2", "1", "2", "4", "8"]
    assert len(ax.collections) == 2
    for name, r in results.items():
        words = f"{name}: {r.band.cpm}"
        assert words in style.alt_text(figure)


def test_each_mark_is_drawn_where_the_walk_stands():
    figure = steps_figure(froc.steps(*LESSON), froc.evaluate(*LESSON, bootstraps=0))
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert lines["false positive"].get_xdata().tolist() == [0.25, 0.5, 0.75]
    assert lines["nodule found"].get_xdata().tolist() == [0, 0.5]
    assert "CPM 0.571" in style.alt_text(figure)
