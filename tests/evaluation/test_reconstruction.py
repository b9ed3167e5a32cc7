"""What a reconstruction keeps, on images and errors whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio

from labkit.errors import InputError
from labkit.evaluation import reconstruction as rec
from labkit.evaluation.statistics import percentile_interval

ONE = np.ones((1, 1))


@pytest.fixture(scope="module")
def images():
    """Smooth blobs with some noise, away from 0 and 1."""
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.normal(size=(12, 64, 64)), (0, 3, 3))
    return 0.5 + smooth + 0.01 * rng.normal(size=smooth.shape)


def waves(k, phase=0.0):
    """(1, 64, 64): k waves along the columns."""
    row = 0.5 + 0.3 * np.cos(2 * np.pi * k * np.arange(64) / 64 + phase)
    return np.broadcast_to(row, (1, 64, 64)).copy()


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.1])
def test_psnr_of_known_noise(images, sigma):
    noise = np.random.default_rng(1).normal(0, sigma, images.shape)
    found = rec.psnr(images, images + noise)
    np.testing.assert_allclose(found, -20 * np.log10(sigma), atol=0.25)
    pairs = zip(images, images + noise, strict=True)
    theirs = [peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in pairs]
    np.testing.assert_allclose(found, theirs)


def test_identity_is_perfect_by_every_measure(images):
    np.testing.assert_allclose(rec.ssim(images, images), 1.0)
    assert np.isposinf(rec.psnr(images, images)).all()
    found = rec.spectra(images, images)
    for share in (rec.share_right, rec.share_drawn):
        np.testing.assert_allclose(share(found, np.ones((1, 12))), 1.0)


@pytest.mark.parametrize("k", [2, 4, 8, 14])
def test_share_of_a_blur_by_hand(k):
    """A Gaussian blur multiplies a wave of frequency f by H = exp(-2 pi^2 sigma^2 f^2)."""
    sigma, image = 2.0, waves(k)
    blurry = gaussian_filter(image, (0, sigma, sigma), mode="wrap", truncate=8)
    h = np.exp(-2 * np.pi**2 * sigma**2 * (k / 64) ** 2)
    found = rec.spectra(image, blurry)
    at = k - 1
    assert rec.frequencies_per_mm()[at] == k / 64
    assert rec.share_drawn(found, ONE)[0, at] == pytest.approx(h**2, rel=1e-3)
    assert rec.share_right(found, ONE)[0, at] == pytest.approx(1 - (1 - h) ** 2, rel=1e-3)
    assert found[0, 0].argmax() == at


def test_detail_in_the_wrong_place_is_worse_than_none():
    image, moved = waves(8), waves(8, phase=np.pi)
    found = rec.spectra(image, moved)
    assert rec.share_drawn(found, ONE)[0, 7] == pytest.approx(1)
    assert rec.share_right(found, ONE)[0, 7] == pytest.approx(-3)
    left_out = rec.spectra(image, np.full_like(image, 0.5))
    assert rec.share_right(left_out, ONE)[0, 7] == pytest.approx(0)


def test_finest_detail_is_where_the_share_falls_below_one_half():
    f = rec.frequencies_per_mm()
    assert rec.finest_mm(np.ones(31)) == pytest.approx(1 / f[-1])
    assert np.isnan(rec.finest_mm(np.zeros(31)))
    step = np.where(np.arange(31) < 8, 1.0, 0.0)  # between 8 and 9 waves in 64 mm
    assert rec.finest_mm(step) == pytest.approx(64 / 8.5)
    both = rec.finest_mm(np.stack([np.ones(31), step]))
    assert both.shape == (2,) and both[0] < both[1]


@given(st.floats(4, 40))
def test_zones_part_every_image_and_the_rim_has_its_area(diameter):
    pixels = np.bincount(rec.zones(rec.outline_distance([diameter])).ravel(), minlength=3)
    assert pixels.sum() == 64 * 64
    expected = np.pi * diameter * rec.RIM_MM
    edge = 2 * np.pi * (diameter + rec.RIM_MM)  # a pixel of doubt along both circles
    assert abs(pixels[1] - expected) < 0.5 * edge + 4


def test_an_error_is_found_in_the_zone_where_it_was_made_and_means_leave_out_what_is_missing():
    zone = rec.zones(rec.outline_distance([20.0, 90.0]))
    found = rec.by_zone(np.where(zone == 1, 30.0, 2.0), zone, 3)
    np.testing.assert_allclose(found[0], [2, 30, 2])
    assert found[1, 0] == 2 and np.isnan(found[1, 2])  # nothing is left beyond a rim that wide
    values = np.array([[1.0, np.nan], [3.0, 5.0], [np.nan, np.nan]])
    np.testing.assert_allclose(rec.mean_over(values, np.ones((1, 3))), [[2, 5]])
    assert np.isnan(rec.mean_over(values[2:], ONE)).all()


def test_intervals_are_over_patients_not_nodules():
    """Copies of a patient's nodules leave the interval as it was."""
    rng = np.random.default_rng(3)
    values, patients = rng.normal(size=30), np.arange(30)

    def width(v, who):
        w = rec.over_patients(who, 400)
        found = percentile_interval(rec.mean_over(v, w))
        assert found.low <= found.value <= found.high
        return found.high - found.low

    assert width(np.tile(values, 5), np.tile(patients, 5)) == pytest.approx(width(values, patients))


@pytest.mark.parametrize("bad", [[0.0], [-3.0], [np.nan], [[5.0]]])
def test_what_cannot_be_measured_is_refused(images, bad):
    with pytest.raises(InputError, match="diameter"):
        rec.outline_distance(bad)
    with pytest.raises(InputError, match="must both be"):
        rec.psnr(images, images[:3])


def test_components_of_a_family_of_images_are_as_many_as_it_has():
    """Images made of three patterns: three components redraw others of the family exactly."""
    rng = np.random.default_rng(4)
    patterns = rng.normal(size=(3, 64, 64))
    train = 0.5 + np.tensordot(rng.normal(size=(20, 3)), patterns, axes=1)
    new = 0.5 + np.tensordot(rng.normal(size=(5, 3)), patterns, axes=1)
    made = rec.from_components(train, new, 60.0)
    assert made.reached and made.setting == 3
    np.testing.assert_allclose(made.images, new, atol=1e-6)
    outside = rec.from_components(train, rng.normal(size=(5, 64, 64)), 60.0)
    assert not outside.reached and outside.setting == 3
    with pytest.raises(InputError, match="two training images"):
        rec.from_components(train[:1], new, 20.0)


def test_a_blur_and_the_fewest_components_have_the_psnr_that_was_asked_for(images):
    made = rec.blurred(images, 30.0)
    assert made.reached
    assert rec.psnr(images, made.images).mean() == pytest.approx(30.0, abs=0.05)
    assert not rec.blurred(images, 3.0).reached  # blurred away altogether, they are better
    seen, new = images[:8], images[8:]
    made = rec.from_components(seen, new, 18.0)
    assert made.reached and rec.psnr(new, made.images).mean() >= 18.0
    mean = rec.training_mean(seen, new)
    np.testing.assert_allclose(mean, np.broadcast_to(seen.mean(0), new.shape))
