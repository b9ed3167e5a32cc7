"""The figures of networks show the modules and the images that are really there."""

import numpy as np
import pandas as pd
import pytest
import torch

from labkit.cohorts.cohort import Cohort, CohortWriter
from labkit.errors import InputError
from labkit.imaging.views import window
from labkit.models.mtcnn import MTCNN, STCNN
from labkit.plots import lesson05, style
from labkit.plots import views as training
from labkit.training.config import TrainingConfig
from labkit.training.machines import Device
from labkit.training.model import NineViewModel


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Cohort:
    """Two nodules of soft tissue: nowhere air, so that black must have come from outside."""
    rng = np.random.default_rng(3)
    folder = tmp_path_factory.mktemp("plots") / "cohort"
    with CohortWriter(folder, 2, source="test", simulated=True) as writer:
        for i in range(2):
            nodule = {"nodule_id": f"n{i}", "patient_id": f"p{i}", "label": i, "diameter_mm": 7.6}
            writer.add(nodule, np.zeros((64, 64, 64)), rng.integers(-500, 300, (9, 76, 76)))
    return Cohort.open(folder)


def model(kind: str, views: tuple[int, ...] = (0, 4)) -> NineViewModel:
    """Untrained networks: enough to be drawn."""
    config = TrainingConfig(model=kind, views=views, precision="fp32")
    torch.manual_seed(0)
    networks = tuple((MTCNN if kind == "mt" else STCNN)().eval() for _ in views)
    history = pd.DataFrame({"epoch": [0], "val_auc": [0.5], "view": [0]})
    return NineViewModel(config, networks, (0.5,) * len(views), history, Device.choose("cpu"))


@pytest.mark.parametrize("kind", [MTCNN, STCNN])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_the_table_counts_every_parameter(kind, depth):
    net = kind(depth=depth)
    table = lesson05.network_table(net)
    assert table["parameters"].sum() == sum(p.numel() for p in net.parameters())
    pooled = table[table["layer"] == "max pooling"]["output"].tolist()
    assert [int(o.split(" x ")[-1]) for o in pooled] == [64 >> k for k in range(1, depth + 1)]


def test_the_table_of_the_printed_network():
    table = lesson05.network_table(MTCNN())
    assert table.groupby("branch")["parameters"].sum().to_dict() == {
        "ClsNet": 4096 * 256 + 256 + 256 * 16 + 16 + 16 * 2 + 2,
        "ImgNet": 64 * 32 * 9 + 32 + 32 * 24 * 9 + 24 + 24 * 25 + 1,
        "ShareNet": 24 * 25 + 24 + 24 * 32 * 9 + 32 + 32 * 64 * 9 + 64,
    }
    assert table["output"].iloc[-1] == "1 x 64 x 64"


def test_dropout_is_in_the_table_where_it_acts():
    def count(places: str) -> int:
        return int((lesson05.network_table(STCNN(dropout_on=places))["layer"] == "dropout").sum())

    assert [count(p) for p in ("none", "fc1", "fc1+fc2")] == [0, 1, 2]


def test_making_the_table_leaves_no_hooks():
    net = MTCNN()
    lesson05.network_table(net)
    assert not any(m._forward_hooks for m in net.modules())


def test_the_drawing_names_the_branches_that_are_there():
    def names(net) -> set[str]:
        return {t.get_text() for t in lesson05.network_figure(net).axes[0].texts}

    assert {"ShareNet", "ClsNet", "ImgNet", "64 × 8 × 8"} <= names(MTCNN())
    assert "ImgNet" not in names(STCNN())


def test_learning_curves_average_only_where_all_networks_still_train():
    history = pd.DataFrame(
        {
            "epoch": [0, 1, 2, 0, 1],
            "view": [0, 0, 0, 1, 1],
            "train_cls": [0.7, 0.6, 0.5, 0.5, 0.4],
            "train_img": [np.nan] * 5,
            "val_cls": [0.7, 0.6, 0.5, 0.5, 0.4],
            "val_auc": [0.5, 0.6, 0.7, 0.7, 0.8],
        }
    )
    figure = training.learning_curves({"ST-CNN": history})
    assert len(figure.axes) == 3  # ST-CNN has no reconstruction loss
    lines = figure.axes[0].get_lines()
    assert [len(line.get_xdata()) for line in lines] == [3, 2, 2]
    assert lines[-1].get_ydata() == pytest.approx([0.6, 0.5])


def test_learning_curves_without_an_epoch_are_an_error():
    with pytest.raises(InputError, match="no epoch"):
        training.learning_curves(pd.DataFrame())


def test_nine_views_are_the_central_crops_in_their_order(cohort):
    figure = training.nine_views_figure(cohort, 1, probabilities=np.linspace(0, 0.8, 9), fused=0.4)
    shown = [ax.images[0].get_array() for ax in figure.axes]
    np.testing.assert_array_equal(shown, cohort.views[1][:, 6:70, 6:70])
    assert figure.axes[8].get_xlabel() == "p = 0.80"
    assert "malignant nodule, 8 mm, simulated; fused probability 0.40" in style.alt_text(figure)


def test_every_image_of_simulated_ct_says_so(cohort):
    figure = training.nine_views_figure(cohort, 0)
    for ax in figure.axes:
        assert style.SIMULATED in [t.get_text() for t in ax.texts]


def test_nine_probabilities_are_nine(cohort):
    with pytest.raises(InputError, match="nine probabilities"):
        training.nine_views_figure(cohort, 0, probabilities=[0.5])


def test_reconstructions_are_those_of_the_model(cohort):
    mt = model("mt")
    figure = training.reconstruction_figure(mt, cohort, [0, 1], views=[4])
    expected = mt.reconstruct(cohort, [0, 1])[:, 1]
    inputs, outputs = figure.axes[0::2], figure.axes[1::2]
    for row in (0, 1):
        np.testing.assert_array_equal(outputs[row].images[0].get_array(), expected[row])
        shown = window(inputs[row].images[0].get_array())
        np.testing.assert_array_equal(shown, window(cohort.views[row, 4, 6:70, 6:70]))
    assert outputs[0].get_xlabel() == f"p = {mt.predict(cohort, [0])[0, 1]:.2f}"


def test_only_mt_cnn_reconstructs(cohort):
    with pytest.raises(InputError, match="ST-CNN reconstructs nothing"):
        training.reconstruction_figure(model("st"), cohort, [0])
    with pytest.raises(InputError, match="has the views"):
        training.reconstruction_figure(model("mt"), cohort, [0], views=[7])


def test_copies_over_tissue_never_show_the_outside(cohort):
    copies = 6
    figure = training.augmentation_figure(cohort, 0, 2, copies=copies, seed=4)
    images = [ax.images[0].get_array() for ax in figure.axes[1:]]
    over_tissue, from_64_mm = images[: copies + 1], images[copies + 1 :]
    assert min(image.min() for image in over_tissue) > 0
    assert sum(bool((image == 0).any()) for image in from_64_mm) > copies / 2
    np.testing.assert_array_equal(over_tissue[0], from_64_mm[0])  # the plain crop
