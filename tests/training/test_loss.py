"""The loss of Eq. 1 to 3, with the minus sign that Eq. 2 lost."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from labkit.models.mtcnn import MTCNN
from labkit.training.loss import (
    classification_loss,
    decayed,
    malignant_probability,
    reconstruction_loss,
)


def test_classification_loss_is_the_mean_log_loss_of_the_two_neurons():
    torch.manual_seed(0)
    logits, labels = torch.randn(50, 2), torch.arange(50) % 2
    p = torch.sigmoid(logits).double().numpy()
    expected = (log_loss(1 - labels.numpy(), p[:, 0]) + log_loss(labels.numpy(), p[:, 1])) / 2
    assert float(classification_loss(logits, labels)) == pytest.approx(expected, rel=1e-5)


def test_softmax_is_scikit_learns_log_loss():
    torch.manual_seed(0)
    logits, labels = torch.randn(50, 2), torch.arange(50) % 2
    p = malignant_probability(logits, "softmax").numpy()
    expected = log_loss(labels.numpy(), p)
    assert float(classification_loss(logits, labels, "softmax")) == pytest.approx(
        expected, rel=1e-5
    )


def test_a_right_answer_costs_less_than_a_wrong_one():
    right = classification_loss(torch.tensor([[-4.0, 4.0]]), torch.tensor([1]))
    wrong = classification_loss(torch.tensor([[-4.0, 4.0]]), torch.tensor([0]))
    assert 0 < right < 0.1 < wrong


def test_score_is_the_malignant_neurons_sigmoid():
    logits = torch.tensor([[5.0, 0.0], [0.0, 2.0]])
    np.testing.assert_allclose(
        malignant_probability(logits), [0.5, 1 / (1 + np.exp(-2))], rtol=1e-6
    )


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
    acted_on = {name for name in names if decayed(name, l2_on)}
    convolutions = {n for n in names if n.split(".")[0] in branches and n.endswith(".weight")}
    assert acted_on == convolutions
    assert len(acted_on) == 3 * len(branches)
