"""What lesson 10 draws is what it was given."""

import numpy as np
import pandas as pd
import pytest
import torch

from labkit.errors import InputError
from labkit.models.mtcnn import MTCNN, STCNN
from labkit.paper.declared import DROPOUTS, EXPERIMENTS, L2, dropout_label, l2_label
from labkit.plots import lesson10, style


def comparison(value):
    return {"auc_difference": {"value": value, "low": value - 0.01, "high": value + 0.01}}


@pytest.fixture
def values():
    pairs = EXPERIMENTS["fig5"].comparisons
    return {
        "name": "fig5", "cohort": {"simulated": True}, "missing": [],
        "comparisons": {
            f"{a} less {b}": comparison(-0.001 * k) for k, (a, b) in enumerate(pairs)
        },
    }  # fmt: skip


def dots(ax):
    """Heights of everything that is drawn as a single point."""
    return [line.get_ydata()[0] for line in ax.get_lines() if line.get_marker() == "o"]


def test_filters_are_drawn_on_one_scale_in_the_order_of_the_first_network():
    torch.manual_seed(0)
    one, two = MTCNN(), STCNN()
    with torch.no_grad():
        two.share[0].weight.copy_(0.5 * one.share[0].weight)
    figure = lesson10.filters_figure({"as it is": one, "shrunk": two}, simulated=True)
    images = [ax.images[0] for ax in figure.axes]
    assert len(images) == 2 * 24
    assert {image.get_clim() for image in images} == {images[0].get_clim()}
    first = [float(np.square(i.get_array()).sum()) for i in images[:24]]
    assert first == sorted(first, reverse=True)
    for above, below in zip(images[:24], images[24:], strict=True):
        assert np.allclose(0.5 * above.get_array(), below.get_array())
    assert f"as it is {sum(first):.2f}" in style.alt_text(figure)
    assert "simulated" in figure.get_suptitle()
    with pytest.raises(InputError, match="no network"):
        lesson10.filters_figure({})


def test_draws_of_dropout_stand_beside_what_the_network_says_without_it():
    rng = np.random.default_rng(0)
    drawn = {"a": rng.uniform(0.2, 0.4, 100), "b": rng.uniform(0.5, 0.9, 100)}
    without = {"a": 0.25, "b": 0.8}
    figure = lesson10.masks_figure(drawn, without)
    for ax, name in zip(figure.axes, drawn, strict=True):
        assert sum(bar.get_height() for bar in ax.patches) == 100
        at = [line.get_xdata()[0] for line in ax.get_lines()]
        assert at == pytest.approx([without[name], drawn[name].mean()])
    with pytest.raises(InputError, match="every nodule"):
        lesson10.masks_figure(drawn, {"a": 0.25})


def test_every_network_has_its_loss_and_auc_on_all_nodules():
    columns = pd.MultiIndex.from_product([["loss", "auc"], ["trained on", "held out"]])
    table = pd.DataFrame(
        [[0.4, 0.5, 0.9, 0.8], [0.1, 0.7, 0.99, 0.85]], ["ST-CNN", "MT-CNN"], columns
    )
    figure = lesson10.gaps_figure(table, simulated=True)
    loss, auc = figure.axes
    assert dots(loss) == [0, 0, 1, 1]
    single = [line for line in loss.get_lines() if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in single] == [0.4, 0.5, 0.1, 0.7]
    assert [t.get_text() for t in loss.get_yticklabels()] == ["ST-CNN", "MT-CNN"]
    assert auc.get_title("right") == "simulated CT"
    assert "MT-CNN: loss trained on 0.10, held out 0.70" in style.alt_text(figure)
    with pytest.raises(InputError, match="loss and auc"):
        lesson10.gaps_figure(table["loss"])


def test_effects_have_a_point_for_every_comparison_but_that_of_the_two_networks(values):
    figure = lesson10.effects_figure(values)
    left, right = figure.axes
    l2 = [l2_label("st", v, "share") for v in L2]
    l2 += [l2_label("mt", v, place) for place in ("both", "share", "img") for v in L2]
    expected = [values["comparisons"][f"{n} less {n[:2]}-CNN"] for n in l2]
    assert sorted(dots(left)) == sorted(c["auc_difference"]["value"] for c in expected)
    assert len(dots(right)) == 2 * len(DROPOUTS)
    assert right.get_title("right") == "simulated CT"
    assert f"{dropout_label('mt', 'none')} " in style.alt_text(figure)


def test_an_unfinished_sweep_shows_what_there_is(values):
    name = f"{l2_label('mt', 1e-4, 'both')} less MT-CNN"
    some = {**values, "comparisons": {name: values["comparisons"][name]}, "missing": ["x"] * 3}
    figure = lesson10.effects_figure(some)
    assert len(dots(figure.axes[0])) == 1 and dots(figure.axes[1]) == []
    assert "not finished: 3 variants" in style.alt_text(figure)
    with pytest.raises(InputError, match="no comparison is finished"):
        lesson10.effects_figure({**values, "comparisons": {}})
