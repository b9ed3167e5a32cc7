"""Several opinions as one: what is measured of a nodule, and what ImageNet's features see in it.

Stacked generalisation (Wolpert, Neural Networks 5:241, 1992). What makes it itself: its members
look at different things, the segmented nodule's shape, density and texture on one side and whole
views through a pretrained network on the other, so that they err on different nodules. Each says of
every training nodule what it would of one that it has not seen (`FeatureRival.cross_fitted`), and
logistic regression learns from that how far to trust whom. Nothing of it sees the diameter.

Decided here: which members, after all had been judged alone on the real cubes; how they are weighed
is learnt inside the training nodules. Where cubes hold the nodule's own slices alone, all members
see where these end.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from labkit.cohorts.cohort import Cohort
from labkit.models import NETWORKS
from labkit.models.fusion import log_odds
from labkit.models.rivals import FeatureRival, Floats, Report, Rival, Rows, Split, only_row

MEMBERS = ("radiomics", "shewaye2016", "han2015", "ciompi2015")


class Best(Rival):
    """Logistic regression on the log-odds of `MEMBERS`."""

    def fit(self, cohort: Cohort, split: Split, on_epoch: Report) -> NDArray[np.float64]:
        self._members = self._new()
        for member in self._members:
            member.fit(cohort, split, lambda row: None)
        rows, labels = np.concatenate([split.train, split.val]), cohort.nodules["label"].to_numpy()
        stack = LogisticRegression().fit(self._cross_fitted(rows), labels[rows].astype(int))
        self._weights = np.append(stack.intercept_, stack.coef_[0])
        of_val = self._said(self._cross_fitted(split.val))
        on_epoch(only_row(of_val, labels[split.val].astype(float)))
        return of_val

    def _new(self) -> list[FeatureRival]:
        return [NETWORKS[name].build(config=self.config, device=self.device, seed=self.seed)
                for name in MEMBERS]  # fmt: skip

    def _cross_fitted(self, rows: Rows) -> Floats:
        return _inputs([member.cross_fitted[rows].to_numpy() for member in self._members])

    def _said(self, inputs: Floats) -> NDArray[np.float64]:
        return expit(self._weights[0] + inputs @ self._weights[1:])

    def predict(self, cohort: Cohort, rows: Rows) -> NDArray[np.float64]:
        return self._said(_inputs([member.predict(cohort, rows) for member in self._members]))

    def state(self) -> dict[str, Floats]:
        return {"weights": self._weights} | {
            f"{name}.{key}": of for name, member in zip(MEMBERS, self._members, strict=True)
            for key, of in member.state().items()
        }  # fmt: skip

    def restore(self, state: Mapping[str, Floats]) -> None:
        self._members, self._weights = self._new(), state["weights"]
        for name, member in zip(MEMBERS, self._members, strict=True):
            start = f"{name}."
            member.restore({key.removeprefix(start): of for key, of in state.items()
                            if key.startswith(start)})  # fmt: skip


def _inputs(said: list[Floats]) -> Floats:
    return np.column_stack([log_odds(of, 1e-3) for of in said])
