"""The loss of Eq. 1 to 3, with the minus sign that Eq. 2 lost."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from labkit.models.mtcnn import MTCNN
from labkit.training import loss
from labkit.training.loss import classification_loss, malignant_probability, reconstruction_loss


@pytest.mark.parametrize("output", ["sigmoid", "softmax"])
def test_classification_loss_is_scikit_learns_log_loss(output):
    """Of the softmax, or the mean of the two neurons' own."""
    torch.manual_seed(0)
    logits, labels = torch.randn(50, 2), torch.arange(50) % 2
    p, y = malignant_probability(logits, output).numpy(), labels.numpy()
    benign = torch.sigmoid(logits[:, 0]).numpy() if output == "sigmoid" else 1 - p
    expected = (log_loss(1 - y, benign) + log_loss(y, p)) / 2
    found = classification_loss(logits, labels, output)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    each = classification_loss(logits, labels, output, reduction="none")
    assert float(each.mean()) == pytest.approx(expected, rel=1e-5)


def test_score_is_the_malignant_neurons_sigmoid():
    logits = torch.tensor([[5.0, 0.0], [0.0, 2.0]])
    expected = [0.5, 1 / (1 + np.exp(-2))]
    np.testing.assert_allclose(malignant_probability(logits), expected, rtol=1e-6)


def test_a_perfect_reconstruction_reaches_the_images_entropy_and_no_other_goes_below():
    torch.manual_seed(0)
    image = torch.rand(4, 1, 64, 64) * 0.9 + 0.05
    entropy = -(image * image.log() + (1 - image) * (1 - image).log()).mean()
    perfect = reconstruction_loss(torch.logit(image), image)
    assert float(perfect) == pytest.approx(float(entropy), rel=1e-4)
    worse = reconstruction_loss(torch.logit(image) + 0.3 * torch.randn_like(image), image)
    assert worse > perfect


@pytest.mark.parametrize(
    ("l2_on", "branches"),
    [("share", {"share"}), ("img", {"reconstruct"}), ("both", {"share", "reconstruct"})],
)
def test_l2_acts_on_the_convolutions_of_the_branches_that_it_names(l2_on, branches):
    names = [name for name, _ in MTCNN().named_parameters()]
    acted_on = {name for name in names if loss.decayed(name, l2_on)}
    convolutions = {n for n in names if n.split(".")[0] in branches and n.endswith(".weight")}
    assert acted_on == convolutions
    assert len(acted_on) == 3 * len(branches)
