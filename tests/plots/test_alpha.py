"""The figures of lesson 8 show the numbers they were given."""

import numpy as np
import pandas as pd
import pytest

from labkit.errors import InputError
from labkit.plots import lesson08, style

WATCHED = pd.DataFrame(
    {
        "epoch": [0, 1, 2], "train_cls": [0.7, 0.6, 0.4], "train_img": [0.5, 0.45, 0.43],
        "cls": [0.1, 0.3, 0.9], "img": [0.4, 0.2, 0.06], "cosine": [0.0, 0.1, 0.0],
    }
)  # fmt: skip


def drawn(ax):
    return {line.get_label(): line.get_ydata() for line in ax.get_lines()}


def test_alpha_scales_the_images_pull_and_no_other():
    sizes, pulls = lesson08.pulls_figure(WATCHED, 0.3, floor=0.4, simulated=True).axes
    assert drawn(pulls)["image, times alpha = 0.3"] == pytest.approx(0.3 * WATCHED["img"])
    assert drawn(pulls)["class"] == pytest.approx(WATCHED["cls"])
    assert set(drawn(sizes)["floor of $L_{img}$"]) == {0.4}
    assert list(drawn(pulls)["image"]) == WATCHED["img"].tolist()
    assert len(lesson08.pulls_figure(WATCHED, 1.0).axes[1].get_lines()) == 2


def test_every_study_is_in_a_bar_and_the_mean_in_words():
    rng = np.random.default_rng(0)
    found = {"one": rng.normal(0.9, 0.01, 300), "best of seven": rng.normal(0.91, 0.01, 300)}
    figure = lesson08.luck_figure(found, truth=0.9)
    for ax, values in zip(figure.axes, found.values(), strict=True):
        assert sum(bar.get_height() for bar in ax.patches) == 300
        assert any(line.get_xdata()[0] == pytest.approx(values.mean()) for line in ax.get_lines())
    assert f"best of seven {found['best of seven'].mean() - 0.9:+.4f}" in style.alt_text(figure)
    with pytest.raises(InputError, match="no study"):
        lesson08.luck_figure({}, truth=0.9)


def test_shares_are_bars_and_each_fold_has_its_mark():
    search = {
        "best": 0.6,
        "best_in_share_of_bootstraps": {"alpha 0.2": 0.2, "alpha 0.6": 0.7, "alpha 1": 0.1},
        "nested_choices": [{"alpha": 0.2}, {"alpha": 1.0}, {"alpha": 0.2}],
    }
    values = {"name": "fig7", "search": search, "cohort": {"simulated": True}}
    (ax,) = lesson08.choices_figure(values).axes
    assert [bar.get_height() for bar in ax.patches] == [0.2, 0.7, 0.1]
    marks = [line.get_xdata()[0] for line in ax.get_lines() if line.get_marker() == "v"]
    assert np.round(marks).tolist() == [0, 0, 2]
    with pytest.raises(InputError, match="fewer than two"):
        lesson08.choices_figure({**values, "search": None})
