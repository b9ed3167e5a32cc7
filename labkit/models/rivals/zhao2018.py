"""The "agile" CNN (Zhao et al., Int. J. CARS 13, 2018).

What makes it itself: LeNet's layers (two convolutions with a pooling each, two fully connected
ones) with AlexNet's settings (ReLU, dropout, stochastic gradient descent with momentum), and the
rest searched: kernels of 7x7, rate 0.005, batches of 32, Gaussian weights. Of the axial view alone.

Decided here: 40 mm at 1 mm, 20 and 50 filters and 500 neurons as LeNet has; the Gaussian's width by
He et al. (2015), since AlexNet's 0.01 takes more epochs to wake than early stopping grants. Its
view lies within one slice, so that missing ones do not matter.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from labkit.cohorts.cohort import Cohort
from labkit.models.rivals import Floats, NetworkRival, Rows, unit, views_hu


class Zhao2018(NetworkRival):
    """LeNet grown up, on the axial view."""

    batch_size, learning_rate, size = 32, 0.005, (40, 40)

    def inputs(self, cohort: Cohort, rows: Rows) -> Floats:
        return unit(views_hu(cohort, rows, 52)[:, :1])

    def network(self) -> nn.Module:
        net = nn.Sequential(
            nn.Conv2d(1, 20, 7), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(20, 50, 7), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(50 * 5 * 5, 500), nn.ReLU(), nn.Dropout(0.5), nn.Linear(500, 1),
        )  # fmt: skip
        for layer in net:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        return net

    def optimiser(self, network: nn.Module) -> Any:
        return torch.optim.SGD(network.parameters(), self.learning_rate, momentum=0.9)
