"""What an epoch shows: transformations against numpy, sampled negatives, and what follows."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from labkit.evaluation.statistics import roc_auc
from labkit.imaging import views
from labkit.models.mtcnn import STCNN
from labkit.training import batches
from labkit.training.config import TrainingConfig
from labkit.training.loop import predict_view, train_view
from labkit.training.loss import malignant_probability
from labkit.training.machines import Device, one_thread

CPU = Device.choose("cpu", "fp32")
RARE = TrainingConfig.paper(negatives_per_positive=1.0, precision="fp32")


@given(st.integers(-6, 6), st.integers(-6, 6), st.integers(0, 3), st.integers(0, 2))
def test_equals_cropping_mirroring_turning_and_windowing_by_numpy(
    shift_row, shift_col, turns, mirror
):
    image = np.random.default_rng(0).integers(-1500, 1000, (76, 76)).astype(np.int16)
    crop = image[6 + shift_row : 70 + shift_row, 6 + shift_col : 70 + shift_col]
    if mirror == 1:
        crop = crop[:, ::-1]
    if mirror == 2:
        crop = crop[::-1]
    expected = views.window(np.rot90(crop, turns))
    drawn = torch.tensor([[shift_row, shift_col, turns, mirror]])
    ours = batches.transformed(torch.from_numpy(image)[None], drawn)
    assert ours.shape == (1, 1, 64, 64)
    np.testing.assert_allclose(ours[0, 0], expected, atol=1e-6)


def test_all_symmetries_of_a_square_occur_and_reflections_alone_mirror_every_image():
    """A square has eight symmetries; half of them turn its corners round the other way."""
    corners = torch.zeros(1, 76, 76, dtype=torch.int16)
    corners[0, 6:38, 6:38], corners[0, 6:38, 38:70], corners[0, 38:70, 6:38] = 100, 200, 300

    def seen(symmetries):
        drawn = batches.draw_transforms(4000, 0, torch.Generator().manual_seed(0), symmetries)
        images = batches.transformed(corners.expand(4000, -1, -1), drawn)[:, 0]
        around = images[:, [0, 0, 63, 63], [0, 63, 63, 0]]
        return Counter(tuple(np.round(1400 * row - 1000).astype(int)) for row in around.numpy())

    turned = {tuple(np.roll([100, 200, 0, 300], k)) for k in range(4)}
    mirrored = {tuple(np.roll([300, 0, 200, 100], k)) for k in range(4)}
    assert set(seen("all")) == turned | mirrored
    assert set(seen("reflections")) == mirrored
    # Four turns times three flips: a pure turn comes of one pair, a mirrored image of two.
    for orientation, count in seen("all").items():
        assert abs(count / 4000 - (1 / 12 if orientation in turned else 1 / 6)) < 0.03


@given(
    positives=st.integers(1, 12), negatives=st.integers(1, 80), ratio=st.floats(0.1, 6),
    copies=st.integers(0, 4), plain=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_an_epoch_shows_every_positive_alike_and_so_many_negatives_plain(
    positives, negatives, ratio, copies, plain, seed
):
    if not (plain or copies):
        return
    labels = np.random.default_rng(seed).permutation([1] * positives + [0] * negatives)
    config = replace(
        RARE, negatives_per_positive=ratio, augmented_copies=copies, plain_copy=plain,
        symmetries="reflections",  # of which none leaves an image as it is
    )  # fmt: skip
    transforms, sample = batches.draw_epoch(labels, config, torch.Generator().manual_seed(seed))
    shown = labels[sample.numpy()]
    each = copies + plain
    assert shown.sum() == positives * each
    assert (shown == 0).sum() == round(positives * each * ratio)
    assert len(sample) == batches.shown_images(labels, config)
    times = np.bincount(sample.numpy(), minlength=len(labels))
    assert set(times[labels == 1]) == {each}
    assert np.ptp(times[labels == 0]) <= 1  # none twice before all once
    negative = torch.from_numpy(shown == 0)
    assert (transforms[negative] == 0).all()
    assert int((transforms[~negative, 2] > 0).sum()) == positives * copies


def test_negatives_are_drawn_afresh_each_epoch_and_the_same_from_the_same_seed():
    labels = np.array([1] * 3 + [0] * 500)
    alike = replace(RARE, negatives_per_positive=None)
    all_shown = batches.draw_epoch(labels, alike, torch.Generator().manual_seed(7))[1]
    assert set(np.bincount(all_shown)) == {5}
    chance, again = (torch.Generator().manual_seed(4) for _ in range(2))
    first, second = (batches.draw_epoch(labels, RARE, chance)[1] for _ in range(2))
    assert len({*first.tolist()} & {*second.tolist()} - {0, 1, 2}) < 5
    assert torch.equal(batches.draw_epoch(labels, RARE, again)[1], first)


def test_the_shift_brings_a_model_of_a_sample_to_the_probabilities_of_the_whole():
    """The case that has an answer: a logistic model of two Gaussians, fitted to equal classes."""
    rng = np.random.default_rng(0)
    labels = (rng.random(200_000) < 0.02).astype(np.int64)
    x = rng.normal(1.5 * labels, 1.0)
    rows = np.r_[np.flatnonzero(labels), rng.choice(np.flatnonzero(labels == 0), labels.sum())]
    model = LogisticRegression(C=1e6).fit(x[rows, None], labels[rows])
    shift = batches.prior_shift(labels, replace(RARE, augmented_copies=0))
    log_odds = model.decision_function(x[:, None])
    corrected = 1 / (1 + np.exp(-(log_odds + shift)))
    true = 1 / (1 + np.exp(-(1.5 * x - 1.125 + np.log(0.02 / 0.98))))
    assert corrected.mean() == pytest.approx(labels.mean(), rel=0.03)
    assert np.abs(corrected - true).max() < 0.05
    assert (1 / (1 + np.exp(-log_odds))).mean() > 0.15  # what it would have claimed


@pytest.mark.parametrize("output", ["sigmoid", "softmax"])
@pytest.mark.parametrize("shift", [-4.2, 0.7])
def test_moving_the_log_odds_of_a_network_moves_them_by_that_much(output, shift):
    torch.manual_seed(0)
    network = STCNN().eval()
    images = torch.rand(5, 1, 64, 64)
    with torch.no_grad():
        before = malignant_probability(network(images)[0], output).double().logit()
        batches.move_log_odds(network, shift, output)
        after = malignant_probability(network(images)[0], output).double().logit()
    torch.testing.assert_close(after - before, torch.full_like(before, shift), atol=1e-5, rtol=0)


@given(st.lists(st.booleans(), min_size=2, max_size=60), st.floats(0.05, 0.95))
def test_validation_weights_give_the_classes_the_share_that_training_shows(positive, share):
    labels = np.array(positive, dtype=np.int64)
    weights = batches.balanced_weights(labels, share)
    if 0 < labels.sum() < len(labels):
        assert weights.sum() == pytest.approx(1)
        assert weights[labels == 1].sum() == pytest.approx(share)


def test_thinning_keeps_all_positives_and_a_fair_choice_of_negatives():
    rows = np.arange(1000, 11_000)
    labels = (np.arange(10_000) % 500 == 0).astype(np.int64)
    kept = batches.thinned(rows, labels, seed=3)
    assert (np.diff(kept) > 0).all()
    assert set(rows[labels == 1]) <= set(kept)
    assert len(kept) == 20 * (1 + batches.MOST_VALIDATION_NEGATIVES)
    assert abs(np.mean(kept) - np.mean(rows)) < 600
    few = slice(480, 521)  # one positive among forty
    assert len(batches.thinned(rows[few], labels[few], 0)) == 21
    assert np.array_equal(batches.thinned(rows[500:521], labels[500:521], 0), rows[500:521])


def rare_discs(n=400, positives=24, seed=0, dtype=np.uint8):
    """Bright discs among dark ones, in 8 bits or in HU."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(n, dtype=np.int64)
    labels[rng.choice(n, positives, replace=False)] = 1
    row, col = np.mgrid[:76, :76] - 37.5
    disc = (row**2 + col**2 < 36).astype(float)
    grey = 20 + disc * (60 + 120 * labels[:, None, None]) + rng.normal(0, 8, (n, 76, 76))
    grey = np.clip(np.rint(grey), 0, 255)
    if dtype == np.uint8:
        return grey.astype(np.uint8), labels
    return np.rint(-1000 + 1400 * grey / 255).astype(np.int16), labels


def test_probabilities_of_a_trained_network_hold_for_the_share_there_is():
    views, labels = rare_discs()
    val_views, val_labels = rare_discs(seed=1)
    test_views, test_labels = rare_discs(seed=2)
    config = replace(RARE, epochs=4, learning_rate=1e-3, dropout_on="none", model="st")
    with one_thread():
        trained = train_view(views, labels, val_views, val_labels, config, CPU, seed=0)
        probability = predict_view(trained.network, test_views, config, CPU)
    assert roc_auc(test_labels, probability) > 0.99
    assert probability[test_labels == 0].mean() < 0.06  # of a share of 0.06
    again = predict_view(trained.network, val_views, config, CPU)
    np.testing.assert_allclose(again, trained.val_probability, atol=1e-6)


def test_eight_bits_and_hu_show_the_networks_the_same_image():
    eight, _ = rare_discs(n=20, positives=4)
    hu, _ = rare_discs(n=20, positives=4, dtype=np.int16)
    transforms = batches.draw_transforms(20, 6, torch.Generator().manual_seed(0))
    one, two = (batches.transformed(torch.from_numpy(v), transforms) for v in (eight, hu))
    assert one.dtype == two.dtype == torch.float32
    torch.testing.assert_close(one, two, atol=0.5 / 1400 + 1e-6, rtol=0)
