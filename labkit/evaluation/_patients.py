"""Patients drawn again: what is bootstrapped is summed by patient first.

A sample of the bootstrap says how often each patient is drawn, and all their nodules go with them.
So a sample is as many numbers as there are patients, whether they have 700 nodules or LUNA-16's
half a million candidates, and samples are drawn a block at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from labkit.errors import InputError

Floats = NDArray[np.float64]
Measure = Callable[[Floats], Floats]
"""(samples, patients) how often each sample holds each patient -> (samples, ...) a value each."""
_AT_ONCE = 1 << 22  # numbers of a block: 32 MB


@dataclass(frozen=True)
class Patients:
    """Whose each nodule is.

    Args:
        codes: (n,) number of each nodule's patient, 0 to count - 1 in the order of their names.
        count: how many patients.
    """

    codes: NDArray[np.int64]
    count: int

    @classmethod
    def of(cls, groups: ArrayLike | None, nodules: int) -> Patients:
        """From each nodule's patient; None makes every nodule its own.

        Raises:
            InputError: not one group a nodule.
        """
        if groups is None:
            return cls(np.arange(nodules), nodules)
        names = np.asarray(groups)
        if names.shape != (nodules,):
            raise InputError(f"groups of shape {names.shape} do not fit {nodules} labels")
        # Hashed, since sorting half a million names to number them takes seconds.
        codes, distinct = pd.factorize(names, sort=True, use_na_sentinel=False)
        return cls(codes.astype(np.int64, copy=False), len(distinct))

    def total(self, values: ArrayLike) -> Floats:
        """Sums over each patient's nodules: (patients,) of (n,) values, or (patients, k) of (n, k).

        >>> Patients.of(["b", "a", "b"], 3).total([1.0, 10.0, 100.0]).tolist()
        [10.0, 101.0]
        """
        of_nodules = np.asarray(values, dtype=np.float64)
        columns = of_nodules.reshape(len(of_nodules), -1).T
        sums = [np.bincount(self.codes, column, self.count) for column in columns]
        return np.stack(sums, axis=1, dtype=np.float64).reshape(-1, *of_nodules.shape[1:])

    def distinct(self, chosen: NDArray[np.bool_]) -> int:
        """How many patients have one of the chosen (n,) nodules."""
        return int(np.count_nonzero(np.bincount(self.codes[chosen], minlength=self.count)))

    def draws(self, resamples: int, seed: int) -> Iterator[Floats]:
        """Bootstrap samples in blocks (b, patients): how often each holds each patient.

        The same seed and number of patients draw the same, however large the blocks.

        Raises:
            InputError: no sample is asked for.
        """
        if resamples < 1:
            raise InputError("resamples must be 1 or more")
        rng = np.random.default_rng(seed)
        chances = np.full(self.count, 1 / self.count)
        for start, stop in _blocks(resamples, self.count):
            drawn = rng.multinomial(self.count, chances, size=stop - start)
            yield drawn.astype(np.float64)

    def bootstrap(self, measure: Measure, resamples: int, seed: int) -> Floats:
        """(1 + resamples, ...): the measure of the patients as they are, then of every sample."""
        found = [measure(np.ones((1, self.count)))]
        found += [measure(drawn) for drawn in self.draws(resamples, seed)]
        return np.concatenate(found)


def in_blocks(measure: Measure, width: int) -> Measure:
    """The same measure of fewer samples at once, for one that holds `width` numbers a sample."""

    def of(weights: Floats) -> Floats:
        blocks = _blocks(len(weights), width)
        return np.concatenate([measure(weights[start:stop]) for start, stop in blocks])

    return of


def _blocks(samples: int, width: int) -> Iterator[tuple[int, int]]:
    step = max(1, _AT_ONCE // max(1, width))
    for start in range(0, samples, step):
        yield start, min(start + step, samples)
