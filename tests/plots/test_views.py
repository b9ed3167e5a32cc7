"""The figures of networks show the curves and the images that are really there."""

import numpy as np
import pandas as pd
import pytest

from labkit.errors import InputError
from labkit.imaging.views import window
from labkit.plots import style, views
from tests.plots.test_figures import model, simulated

__all__ = ["simulated"]


def test_learning_curves_average_only_finished_networks_where_all_of_them_still_train():
    long, short = (
        pd.DataFrame({"epoch": range(len(of)), "train_cls": of, "val_cls": of, "val_auc": 0.7,
                      "train_img": np.nan}) for of in ([0.7, 0.6, 0.5], [0.5, 0.4])
    )  # fmt: skip
    history = pd.concat([long.assign(view=0), short.assign(view=1)])
    growing = views.draw_curves({"": [long, short]}, {"under way": [long]}, False)
    for figure, extra in ((views.learning_curves({"ST-CNN": history}), []), (growing, [3])):
        assert len(figure.axes) == 3  # ST-CNN has no reconstruction loss
        lines = figure.axes[0].get_lines()
        assert [len(line.get_xdata()) for line in lines] == [3, 2, 2, *extra]
        assert lines[2].get_ydata() == pytest.approx([0.6, 0.5])


def test_nine_views_are_the_central_crops_in_their_order(simulated):
    figure = views.nine_views_figure(
        simulated, 1, probabilities=np.linspace(0, 0.8, 9), fused=0.4
    )  # fmt: skip
    shown = [ax.images[0].get_array() for ax in figure.axes]
    np.testing.assert_array_equal(shown, simulated.views[1][:, 6:70, 6:70])
    assert figure.axes[8].get_xlabel() == "p = 0.80"
    assert "malignant nodule, 8 mm, simulated; fused probability 0.40" in style.alt_text(figure)


def test_reconstructions_are_those_of_the_model(simulated):
    mt = model("mt")
    figure = views.reconstruction_figure(mt, simulated, [0, 1], views=[4])
    expected = mt.reconstruct(simulated, [0, 1])[:, 1]
    inputs, outputs = figure.axes[0::2], figure.axes[1::2]
    for row in (0, 1):
        np.testing.assert_array_equal(outputs[row].images[0].get_array(), expected[row])
        shown = window(inputs[row].images[0].get_array())
        np.testing.assert_array_equal(shown, window(simulated.views[row, 4, 6:70, 6:70]))
        assert style.SIMULATED in [t.get_text() for t in inputs[row].texts]
    assert outputs[0].get_xlabel() == f"p = {mt.predict(simulated, [0])[0, 1]:.2f}"
    with pytest.raises(InputError, match="ST-CNN reconstructs nothing"):
        views.reconstruction_figure(model("st"), simulated, [0])
    with pytest.raises(InputError, match="has the views"):
        views.reconstruction_figure(mt, simulated, [0], views=[7])


def test_copies_over_tissue_never_show_the_outside(simulated):
    figure = views.augmentation_figure(simulated, 0, 2, copies=6, seed=4)
    images = [ax.images[0].get_array() for ax in figure.axes[1:]]
    over_tissue, from_64_mm = images[:7], images[7:]
    assert min(image.min() for image in over_tissue) > 0
    assert sum(bool((image == 0).any()) for image in from_64_mm) > 3
    np.testing.assert_array_equal(over_tissue[0], from_64_mm[0])  # the plain crop
