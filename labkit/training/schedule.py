"""The three-step learning rate (III-D)."""

from __future__ import annotations


def learning_rate(epoch: int, epochs: int, initial: float) -> float:
    """Learning rate of an epoch (counted from 0): the first half, third quarter, last quarter.

    >>> [learning_rate(e, 150, 1e-4) for e in (0, 74, 75, 111, 112, 149)]
    [0.0001, 0.0001, 1e-05, 1e-05, 5e-06, 5e-06]
    """
    if epoch < epochs / 2:
        return initial
    if epoch < int(epochs * 0.75):
        return initial / 10
    return initial / 20
