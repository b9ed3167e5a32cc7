"""The FROC figure says what the evaluation says."""

import numpy as np
import pandas as pd
import pytest

from labkit.errors import InputError
from labkit.evaluation import froc
from labkit.evaluation.froc import RATES
from labkit.plots import style
from labkit.plots.froc import froc_figure


def result(quality: float, bootstraps: int = 100) -> froc.Froc:
    """Thirty scans, a nodule each, and twenty other marks each."""
    rng = np.random.default_rng(4)
    uids = [f"{i:02d}" for i in range(30)]
    nodules = pd.DataFrame({"seriesuid": uids, "x_mm": 0.0, "y_mm": 0.0, "z_mm": 0.0})
    found = nodules.assign(probability=rng.beta(1 + quality, 2, 30)).iloc[:27]
    far = pd.DataFrame(rng.uniform(20, 100, (600, 3)), columns=["x_mm", "y_mm", "z_mm"])
    far = far.assign(seriesuid=np.repeat(uids, 20), probability=rng.beta(1, 4, 600))
    marks = pd.concat([found, far])
    nodules["diameter_mm"] = 8.0
    return froc.evaluate(marks, nodules, nodules[:0], uids, bootstraps=bootstraps)


@pytest.fixture(scope="module")
def results() -> dict[str, froc.Froc]:
    return {"ST-CNN": result(2.0), "MT-CNN": result(4.0)}


def test_the_legend_carries_each_cpm_with_its_interval(results):
    (ax,) = froc_figure(results).axes
    entries = [text.get_text() for text in ax.get_legend().get_texts()]
    assert entries == [f"{name}: {r.band.cpm}" for name, r in results.items()]
    assert f"{results['MT-CNN'].cpm:.3f}" in entries[1]


def test_dots_stand_at_the_seven_rates_on_the_curve(results):
    (ax,) = froc_figure(results).axes
    curve, dots = ax.get_lines()[:2]
    np.testing.assert_array_equal(dots.get_xdata(), RATES)
    np.testing.assert_array_equal(dots.get_ydata(), results["ST-CNN"].sensitivity)
    x, y = curve.get_data()
    assert (x.min(), x.max()) == (RATES[0], RATES[-1])
    np.testing.assert_array_equal(y[np.searchsorted(x, RATES)], results["ST-CNN"].sensitivity)


def test_the_axis_doubles_and_is_labelled_in_eighths(results):
    (ax,) = froc_figure(results).axes
    assert ax.get_xscale() == "log"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1/8", "1/4", "1/2", "1", "2", "4", "8"]


def test_bands_are_shaded_where_there_are_any(results):
    bands = [len(froc_figure(results, band=band).axes[0].collections) for band in (True, False)]
    assert bands == [2, 0]
    bare = froc_figure({"MT-CNN": result(2.0, bootstraps=0)})
    assert len(bare.axes[0].collections) == 0
    assert "interval" not in bare.axes[0].get_legend().get_title().get_text()


def test_methods_have_their_house_colours(results):
    (ax,) = froc_figure(results).axes
    assert [line.get_color() for line in ax.get_lines()[::2]] == [style.ST, style.MT]


@pytest.mark.parametrize("simulated", [True, False])
def test_simulated_is_said_when_it_is_so(results, simulated):
    (ax,) = froc_figure(results, simulated=simulated).axes
    assert (ax.get_title("right") == "simulated CT") == simulated


def test_the_alternative_text_holds_the_numbers(results):
    text = style.alt_text(froc_figure(results))
    for name, r in results.items():
        assert f"{name}: {r.band.cpm}" in text
        assert f"from {r.sensitivity[0]:.3f} at 1/8" in text


def test_nothing_to_draw_is_an_error():
    with pytest.raises(InputError, match="no result"):
        froc_figure({})
