"""What is there of the runs: predictions and units of each variant that is finished."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from labkit.cohorts.cohort import Cohort
from labkit.evaluation import candidates, crossval
from labkit.evaluation.crossval import Plan, is_done, read_unit
from labkit.io import read_json
from labkit.paper import values as luna
from labkit.paper import values as measured
from labkit.paper.declared import Amounts, Variant

Place = tuple[int, int]


@dataclass
class Finished:
    """The runs of one cohort at one profile.

    Args:
        cohort: what the networks are trained on.
        amounts: of which profile, and how much it repeats.
        folder: in which each variant has its run.
        device: where networks are trained.
    """

    cohort: Cohort
    amounts: Amounts
    folder: Path
    device: str = "auto"
    _read: dict[tuple[str, str | None], pd.DataFrame] = field(
        default_factory=dict, init=False, repr=False
    )
    _kept: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def run_folder(self, variant: Variant) -> Path:
        """Where a variant's run lies."""
        return self.folder / variant.folder(self.amounts.profile)

    def todo(self, variant: Variant) -> int:
        """How many networks of a variant are still to be trained."""
        keeps = variant.keeps_model(self.amounts.profile)
        out = self.run_folder(variant)
        return sum(
            not is_done(out, repeat, fold, view, keeps)
            for repeat, fold in self.amounts.plan(variant).places()
            for view in self.amounts.views
        )

    def has(self, variant: Variant) -> bool:
        """Whether a variant is trained and put together."""
        out = self.run_folder(variant)
        return (out / "metrics.json").is_file() and self.todo(variant) == 0

    def predictions(self, variant: Variant, view: str | None = None) -> pd.DataFrame:
        """The predictions of a finished variant: of one view, or all; they stay in memory."""
        name = variant.folder(self.amounts.profile)
        if (name, view) not in self._read:
            self._read[name, view] = crossval.read_predictions(self.run_folder(variant), view)
        return self._read[name, view]

    def units(self, variant: Variant, plan: Plan) -> dict[tuple[int, int, int], dict[str, Any]]:
        """(repeat, fold, view) -> what each network of a finished variant left."""
        out = self.run_folder(variant)
        places = [(r, f, v) for r, f in plan.places() for v in self.amounts.views]
        return {place: read_unit(out, place) for place in places}

    def measure(self, run: measured.Run) -> dict[str, Any]:
        """What one view of a run is worth; for LUNA-16 by FROC, too."""
        resamples = self.amounts.profile.resamples
        cut = candidates.threshold(self.cohort)
        values = measured.measure(run, resamples, threshold=cut) | {"threshold": round(cut, 6)}
        if self.cohort.task == "luna16":
            values |= luna.luna_measure(self.cohort, run, resamples)
        return values

    def compare(self, first: measured.Run, second: measured.Run) -> dict[str, Any]:
        """The first less the second on the same nodules; for LUNA-16 by CPM, too."""
        resamples = self.amounts.profile.resamples
        folds = self.amounts.full.folds  # of which a sweep may take the first alone
        share = 1 / (folds - 1) if folds > 1 else None
        values = measured.compare(first, second, resamples, share)
        if self.cohort.task == "luna16":
            values["cpm_difference"] = luna.cpm_difference(self.cohort, first, second, resamples)
        return values

    def trained(self, variant: Variant) -> dict[str, Any]:
        """On what a variant was trained, and since when."""
        values = read_json(self.run_folder(variant) / "run.json", "a run")
        named = ("device", "processor", "gpu", "torch", "labkit")
        return {k: values["hardware"].get(k) for k in named} | {"started": values["started"]}

    def once(self, key: Any, make: Any) -> Any:
        """What `make()` gives, computed once: figures are drawn anew after every variant."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


def at_places(predictions: pd.DataFrame, places: Iterable[Place]) -> pd.DataFrame:
    """Rows of some (repeat, fold), such as those that two runs share."""
    repeat, fold = (predictions[name].to_numpy() for name in ("repeat", "fold"))
    chosen = np.zeros(len(predictions), dtype=bool)
    for wanted, of in places:
        chosen |= (repeat == wanted) & (fold == of)
    return predictions if chosen.all() else predictions[chosen].reset_index(drop=True)
