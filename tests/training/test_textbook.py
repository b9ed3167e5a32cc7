"""The engine gives the textbook loop's numbers."""

import numpy as np
import pytest
import torch

from benchmarks import textbook
from labkit.training.config import TrainingConfig
from labkit.training.loop import train_view
from labkit.training.machines import Device, one_thread

N = 40


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
        ours = train_view(
            views, labels, views[:8], labels[:8], config, Device.choose("cpu", "fp32"), 11
        )
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


def test_the_textbook_transforms_are_the_engines(data):
    from labkit.training import batches

    views, labels = data
    order = torch.Generator().manual_seed(0)
    drawn = batches.draw(N, 6, order)
    plain = textbook.AugmentedViews(views, labels, drawn, torch.arange(N))
    ours = batches.apply(torch.from_numpy(views), drawn)
    theirs = torch.stack([plain[i][0] for i in range(N)])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
