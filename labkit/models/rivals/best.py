"""Two opinions as one: what is measured of a nodule, and what ImageNet's features see in it.

Stacked generalisation (Wolpert, Neural Networks 5:241, 1992). What makes it itself: its members
look at different things, the segmented nodule's shape, density and texture on one side and whole
views through a pretrained network on the other, so that they err on different nodules. Each says of
every training nodule what it would of one that it has not seen (`FeatureRival.cross_fitted`), and
logistic regression learns from that how far to trust whom. Nothing of it sees the diameter.

Decided here: which members, after all had been judged alone on the real cubes (two more added
nothing, `results/ablation.json`); how they are weighed is learnt inside the training nodules. Of a
cohort without cubes, such as LUNA-16's candidates, where nothing can be segmented, the nine views'
descriptors take radiomics' place. Where cubes hold the nodule's own slices alone, both see where
these end.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from labkit.cohorts.cohort import Cohort
from labkit.models import NETWORKS
from labkit.models.fusion import log_odds
from labkit.models.rivals import FeatureRival, Floats, Report, Rival, Rows, Split, only_row

MEMBERS = ("radiomics", "ciompi2015")
MEMBERS_OF_VIEWS = ("descriptors", "ciompi2015")  # where there are no cubes


class Best(Rival):
    """Logistic regression on the log-odds of `MEMBERS`, or of `MEMBERS_OF_VIEWS`."""

    def fit(self, cohort: Cohort, split: Split, on_epoch: Report) -> NDArray[np.float64]:
        members = self._new(MEMBERS_OF_VIEWS if cohort.cubes is None else MEMBERS)
        for member in members.values():
            member.fit(cohort, split, lambda row: None)
        of_val = self.weigh(members, cohort, split)
        labels = cohort.nodules["label"].iloc[split.val].to_numpy(dtype=float)
        on_epoch(only_row(of_val, labels))
        return of_val

    def weigh(
        self, members: Mapping[str, FeatureRival], cohort: Cohort, split: Split
    ) -> NDArray[np.float64]:  # fmt: skip
        """Learn how far to trust which of fitted methods; return `fit`'s validation word."""
        self._members = members
        rows = np.concatenate([split.train, split.val])
        labels = cohort.nodules["label"].iloc[rows].to_numpy(dtype=int)
        learnt = LogisticRegression().fit(self._cross_fitted(rows), labels)
        self._weights = np.append(learnt.intercept_, learnt.coef_[0])
        self.held_out = pd.Series(self._said(self._cross_fitted(rows)), rows)
        return np.asarray(self.held_out[split.val], dtype=float)

    def _new(self, names: tuple[str, ...]) -> dict[str, FeatureRival]:
        own = {"config": self.config, "device": self.device, "seed": self.seed}
        return {name: NETWORKS[name].build(**own) for name in names}

    def _cross_fitted(self, rows: Rows) -> Floats:
        return _inputs([of.cross_fitted[rows].to_numpy() for of in self._members.values()])

    def _said(self, inputs: Floats) -> NDArray[np.float64]:
        return expit(self._weights[0] + inputs @ self._weights[1:])

    def predict(self, cohort: Cohort, rows: Rows) -> NDArray[np.float64]:
        return self._said(_inputs([of.predict(cohort, rows) for of in self._members.values()]))

    def state(self) -> dict[str, Floats]:
        return {"weights": self._weights} | {
            f"{name}.{key}": of for name, member in self._members.items()
            for key, of in member.state().items()
        }  # fmt: skip

    def restore(self, state: Mapping[str, Floats]) -> None:
        of_views = any(key.startswith("descriptors.") for key in state)
        self._members = self._new(MEMBERS_OF_VIEWS if of_views else MEMBERS)
        self._weights = state["weights"]
        for name, member in self._members.items():
            start = f"{name}."
            member.restore({key.removeprefix(start): of for key, of in state.items()
                            if key.startswith(start)})  # fmt: skip


def _inputs(said: list[Floats]) -> Floats:
    return np.column_stack([log_odds(of, 1e-3) for of in said])
