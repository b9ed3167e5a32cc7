"""Figures of real against simulated say in words what they draw, and need numbers only."""

import numpy as np
import pytest

from benchmarks.realism import page
from labkit.errors import InputError
from labkit.plots import style

RNG = np.random.default_rng(0)


def _summary(real, simulated, n=40):
    def spread(median):
        return {"p10": median - 40, "q25": median - 20, "median": median, "q75": median + 20,
                "p90": median + 40}  # fmt: skip

    return {"nodules": n, "real": spread(real), "simulated": spread(simulated)}


def _interval(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


@pytest.fixture
def values():
    row = {"q25": 80.0, "median": 100.0, "q75": 120.0}
    return {
        "density_by_texture": {"1": _summary(-650, -560), "5": _summary(-21, 17)},
        "edge_by_margin": {"2": _summary(210, 230), "5": _summary(190, 170)},
        "histogram": {
            "edges_hu": np.linspace(-1000, 400, 65).tolist(),
            "real": [1 / 64] * 64,
            "simulated": [1 / 64] * 64,
            "wasserstein_hu": _interval(23.0),
        },
        "spectrum": {
            "by_frequency": [
                {"cycles_per_mm": f, "real": row, "simulated": row, "ratio": _interval(0.67)}
                for f in (0.1, 0.2, 0.48)
            ]
        },
        "contact": {
            "by_size": {
                "below 7 mm": {
                    "nodules": 12, "real": _interval(0.26), "simulated": _interval(0.31)
                }
            }
        },
        "classifier": {"boosting": _interval(0.9), "by_theme": {"noise": 0.8, "wall": 0.55}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (page.nodule_figure, "-21 HU in real and 17 in simulated"),
        (page.surroundings_figure, "23 HU apart"),
        (page.contact_figure, "below 7 mm: 26 % real, 31 % simulated"),
        (page.classifier_figure, "everything 0.90, noise 0.80, wall 0.55"),
    ],
)
def test_figures_say_what_they_show(values, draw, said):
    figure = draw(values)
    figure.draw_without_rendering()
    assert said in style.alt_text(figure)
    assert figure.get_size_inches()[0] <= 7.5


@pytest.mark.parametrize(
    "draw", [page.nodule_figure, page.surroundings_figure, page.contact_figure]
)
def test_real_and_simulated_are_named(values, draw):
    figure = draw(values)
    named = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert named == {"real", "simulated"}


def test_transfer_shows_every_arm_with_its_interval_and_seeds():
    arms = {"size_only": 0.94, "real": 0.9, "simulated": 0.88, "simulated_same": 0.86}
    figure = page.transfer_figure(
        {
            "metrics": {arm: {"auc": _interval(v)} for arm, v in arms.items()},
            "auc_by_seed": {arm: [v, v + 0.01] for arm, v in arms.items()},
        }
    )
    (ax,) = figure.axes
    assert ax.get_yticklabels()[0].get_text() == "diameter alone"
    assert "trained on simulated, all 0.880" in style.alt_text(figure)


def test_twins_carry_their_words_and_come_in_pairs():
    slices = RNG.uniform(-1000, 400, (4, 64, 64))
    figure = page.twins_figure(slices, slices, ["one", "two"])
    words = [t.get_text() for ax in figure.axes for t in ax.texts]
    assert words.count("real") == words.count("simulated") == 4
    with pytest.raises(InputError, match="give pairs"):
        page.twins_figure(slices, slices[:2])


def test_values_of_something_else_are_refused():
    with pytest.raises(InputError, match=r"python -m labkit\.realism"):
        page.contact_figure({"runs": {}})
