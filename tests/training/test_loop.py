"""The loop gives the textbook loop's numbers, and stops where it should."""

import numpy as np
import pytest
import torch

from benchmarks.speed import textbook
from labkit.training.config import TrainingConfig
from labkit.training.loop import network_seed, train_view
from labkit.training.machines import Device, one_thread

N, CPU = 40, Device.choose("cpu", "fp32")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(2)
    labels = np.resize(np.array([0, 1], dtype=np.int64), N)
    views = rng.normal(-700, 120, (N, 76, 76)) + 300 * labels[:, None, None]
    return views.astype(np.int16), labels


@pytest.mark.parametrize("dropout_on", ["none", "fc1", "fc1+fc2"])
@pytest.mark.parametrize("model", ["mt", "st"])
def test_the_engine_gives_the_textbook_loops_losses_and_weights(data, model, dropout_on):
    """Float32, the same seed: equal but for the order in which sums are taken."""
    views, labels = data
    config = TrainingConfig.paper(
        model=model, epochs=3, batch_size=16, dropout_on=dropout_on, augmented_copies=1,
        patience=3, precision="fp32",
    )  # fmt: skip
    with one_thread():
        network, losses = textbook.train(views, labels, config, seed=11, epochs=3)
        ours = train_view(views, labels, views[:8], labels[:8], config, CPU, 11)
    steps = len(losses) // 3
    sizes = np.minimum(16, 2 * N - 16 * np.arange(steps))
    by_epoch = np.average(np.reshape(losses, (3, steps)), axis=1, weights=sizes)
    measured = [row["train_cls"] + config.alpha * (row["train_img"] or 0.0) for row in ours.history]
    np.testing.assert_allclose(measured, by_epoch, rtol=2e-4)
    assert ours.best_epoch == 2  # so that the weights kept are those of the last step
    pairs = zip(ours.network.parameters(), network.parameters(), strict=True)
    apart = torch.cat([(a - b).detach().abs().flatten() for a, b in pairs])
    # Adam divides by a gradient's own size: where that is nearly nothing, rounding decides its
    # sign, and a weight may go one step the other way. Few do, and none goes further.
    assert apart.mean() < 1e-6
    assert (apart > 1e-5).float().mean() < 1e-3
    assert apart.max() < 3 * config.learning_rate


@pytest.mark.parametrize(("schedule", "rates"), [("printed", 1), ("plateau", 2)])
def test_training_stops_once_nothing_gets_better_and_keeps_its_best_epoch(schedule, rates):
    """Labels that have nothing to do with the images; on a plateau the rate falls once before."""
    rng = np.random.default_rng(0)
    noise, labels = rng.integers(-1000, 400, (48, 76, 76)).astype(np.int16), np.arange(48) % 2
    config = TrainingConfig.brief(epochs=200, patience=3, precision="fp32", batch_size=16,
                                  schedule=schedule)  # fmt: skip
    result = train_view(noise[:32], labels[:32], noise[32:], labels[32:], config, CPU, seed=1)
    best, waiting_since, fallen = np.inf, -1, [1e-3]
    for epoch, row in enumerate(result.history):
        assert row["learning_rate"] == pytest.approx(fallen[-1])
        if row["val_cls"] < best:
            best, waiting_since = row["val_cls"], epoch
        elif epoch - waiting_since == 3:
            fallen.append(fallen[-1] / 10)  # of which the last never comes
            waiting_since = epoch
    assert fallen == pytest.approx([10.0**-k for k in range(3, 4 + rates)])
    assert len(result.history) == waiting_since + 1 < 100
    assert result.best_epoch == int(np.argmin([row["val_cls"] for row in result.history]))


def test_a_loss_that_is_no_number_is_an_error_with_a_cure():
    views = np.zeros((8, 76, 76), np.int16)
    config = TrainingConfig.brief(epochs=3, learning_rate=1e30, batch_size=4, precision="fp32")
    # The first batch is computed with the first weights; the step after it ruins them.
    where = r"epoch 0, batch 2 of 2 \(training rows \d, .*lower the learning rate"
    with pytest.raises(FloatingPointError, match=where):
        train_view(views, np.arange(8) % 2, views, np.arange(8) % 2, config,
                   CPU, seed=0)  # fmt: skip


def test_networks_at_different_places_have_different_seeds():
    seeds = {network_seed(0, repeat, fold, view)
             for repeat in range(3) for fold in range(10) for view in range(9)}  # fmt: skip
    assert len(seeds) == 270
