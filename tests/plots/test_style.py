"""The house style: colours, alternative texts, CT images and the parts of figures."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from labkit.errors import InputError
from labkit.evaluation.statistics import Interval
from labkit.plots import lesson03, style


def test_a_figure_is_drawn_in_the_house_style_and_leaves_matplotlib_as_it_was():
    before = dict(plt.rcParams)

    @style.figure
    def draw():
        """Draw a plot of nothing."""
        figure, ax = style.subplots()
        assert not ax.spines["top"].get_visible()
        ax.plot([1, 2], label="a line")
        ax.legend()
        return figure, {"AUC": Interval(0.8, 0.7, 0.9), "by class": {"benign": 3, "share": 0.25}}

    assert style.alt_text(draw()) == (
        "A plot of nothing. a line. AUC 0.800 (0.700 to 0.900); by class: benign 3, share 0.25."
    )
    assert dict(plt.rcParams) == before


@pytest.mark.parametrize(
    "names",
    [["ST-CNN", "MT-CNN"], ["MT-CNN", "other", "ST-CNN"], ["MT-CNN, alpha 0.3", "MT-CNN, alpha 1"]],
)
def test_methods_keep_their_colours_in_any_order_and_share_none(names):
    colours = style.method_colours(names)
    assert len(set(colours.values())) == len(names)
    assert colours.get("ST-CNN", style.ST) == style.ST
    assert colours.get("MT-CNN", style.MT) == style.MT


def test_a_figure_is_shown_once_with_its_alternative_text_and_never_without(monkeypatch, tmp_path):
    shown: list = []
    monkeypatch.setattr("IPython.display.display", lambda data, **rest: shown.append((data, rest)))
    noise = np.random.default_rng(0).normal(-850, 60, (200, 200))
    for colors in (None, 256):
        style.show(lesson03.side_by_side({"a": noise}), colors=colors)
    (tmp_path / "kept.png").write_bytes(shown[0][0]["image/png"])
    style.show_file(tmp_path / "kept.png", "As it was kept.", colors=256)
    (full, _), (small, said), (kept, _) = shown
    assert len(small["image/png"]) < 0.8 * len(full["image/png"])
    assert kept == {**small, "text/plain": "As it was kept."}
    assert said["metadata"]["image/png"]["alt"].startswith("Images of HU")
    streams = (io.BytesIO(data["image/png"]) for data in (full, small))
    pictures = [np.asarray(Image.open(stream).convert("RGB")) for stream in streams]
    assert (pictures[0] == pictures[1]).all()  # a grey picture loses nothing
    ours = style.describe(plt.subplots()[0], "An empty plot.")
    style.show(ours)
    assert not plt.fignum_exists(ours.number)
    with pytest.raises(InputError, match="alternative text"):
        style.show(Figure())


def test_ct_is_drawn_in_the_papers_window_and_in_true_proportions():
    _, (ax, scaled) = style.subplots(1, 2)
    style.show_ct(ax, np.zeros((4, 4)))
    assert ax.get_images()[0].get_clim() == (-1000, 400)
    assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0
    style.show_ct(scaled, np.zeros((10, 40)), pixel_mm=(2.5, 0.5), mark="phantom")
    assert scaled.get_images()[0].get_extent() == [-10, 10, 12.5, -12.5]
    assert [text.get_text() for text in scaled.texts] == ["phantom"]
    style.scale_bar(scaled, 5.0)
    assert np.ptp(scaled.get_lines()[0].get_xdata()) == 5


def test_values_stand_in_their_rows_beside_each_other_with_their_intervals():
    _, ax = style.subplots()
    value, unsure = Interval(0.8, 0.7, 0.9), Interval(0.6, np.nan, np.nan)
    found = {"ST-CNN": {"a": value, "b": unsure}, "MT-CNN": {"a": value}}
    style.interval_rows(ax, found, style.method_colours(list(found)))
    points = [line for line in ax.get_lines() if line.get_marker() == "o" and len(line.get_xdata())]
    places = [(line.get_xdata()[0], line.get_ydata()[0]) for line in points]
    assert places == [(0.8, -0.25), (0.6, 1), (0.8, 0.25)]
    assert [line.get_markerfacecolor() == "none" for line in points] == [False, True, False]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b"]
