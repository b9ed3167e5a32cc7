"""Lesson 02's figures show the masks that they are given, the patient's right on the left."""

from dataclasses import fields, replace

import numpy as np
import pytest

from labkit.errors import InputError
from labkit.imaging.lungs import Steps
from labkit.imaging.volume import Volume
from labkit.plots import lesson02, style

SHAPE = (9, 12, 14)


@pytest.fixture
def scan():
    hu = np.random.default_rng(0).normal(-500, 300, SHAPE).astype(np.int16)
    return Volume(hu, (1.0, 1.0, 2.5))


@pytest.fixture
def found():
    """Every step's mask is a box of its own; the left lung lies at larger x."""
    masks = {}
    for number, field in enumerate(fields(Steps)):
        mask = np.zeros(SHAPE, bool)
        mask[2:7, 2:10, 1 + number : 5 + number] = True
        masks[field.name] = mask
    return Steps(**masks)


def tints(figure):
    """The coloured layers of every panel, as masks."""
    return [[np.asarray(i.get_array())[..., 3] > 0 for i in ax.images[1:]] for ax in figure.axes]


def test_the_steps_are_shown_in_their_order(scan, found):
    figure = lesson02.steps(scan, found, at=4)
    assert [ax.get_title("left")[0] for ax in figure.axes] == list("123456")
    layers = tints(figure)
    assert [len(panel) for panel in layers] == [1, 1, 1, 1, 2, 1]
    order = ["threshold", "body", "airways", "without_airways", "right", "left", "closed"]
    for layer, name in zip((a for panel in layers for a in panel), order, strict=True):
        assert (layer == getattr(found, name)[4]).all(), name
    assert "right and left" in style.alt_text(figure)


def test_a_slice_is_chosen_where_lungs_and_airways_are(scan, found):
    airways = np.zeros(SHAPE, bool)
    airways[5, 3:5, 3:5] = True
    figure = lesson02.steps(scan, replace(found, airways=airways))
    (layer,) = tints(figure)[2]
    assert (layer == airways[5]).all()


def test_coronal_slices_have_the_head_up(scan, found):
    figure = lesson02.steps(scan, found, at=3, plane="coronal")
    (layer,) = tints(figure)[0]
    assert (layer == found.threshold[::-1, 3]).all()
    assert figure.axes[0].get_aspect() == pytest.approx(2.5)


def test_a_scan_lying_otherwise_looks_the_same(scan, found):
    turned = replace(scan, voxels=scan.voxels[::-1, :, ::-1], direction=np.diag([-1.0, 1, -1]))
    other = Steps(**{f.name: getattr(found, f.name)[::-1, :, ::-1] for f in fields(Steps)})
    for plane in ("axial", "coronal", "sagittal"):
        one, two = (
            lesson02.steps(*pair, at=5, plane=plane) for pair in ((scan, found), (turned, other))
        )
        for a, b in zip(one.axes, two.axes, strict=True):
            for first, second in zip(a.images, b.images, strict=True):
                assert (first.get_array() == second.get_array()).all()


def test_slices_are_spread_over_the_masks(scan, found):
    figure = lesson02.over_slices(scan, {"lungs": found.closed, "body": found.body}, count=2)
    assert [ax.get_title("left") for ax in figure.axes] == ["slice 3", "slice 5"]
    assert "outlines of lungs, body" in style.alt_text(figure)
    assert all(style.SIMULATED in [t.get_text() for t in ax.texts] for ax in figure.axes)
    real = lesson02.over_slices(scan, {"lungs": found.closed}, at=[4], mark="")
    assert not real.axes[0].texts and "simulated" not in style.alt_text(real)


def test_what_cannot_be_drawn_is_refused(scan, found):
    with pytest.raises(InputError, match="1 to 4"):
        lesson02.over_slices(scan, {})
    with pytest.raises(InputError, match="of shape"):
        lesson02.over_slices(scan, {"lungs": found.closed[1:]})
    with pytest.raises(InputError, match="masks are empty"):
        lesson02.over_slices(scan, {"lungs": np.zeros(SHAPE, bool)})
    with pytest.raises(InputError, match="no axial slice 9"):
        lesson02.steps(scan, found, at=9)
    with pytest.raises(InputError, match="no plane"):
        lesson02.steps(scan, found, plane="oblique")
