"""How much of everything: `smoke` for CI, `demo` for minutes on any laptop, `lab` for a class hour,
and `paper` for the printed protocol.

Lessons never ask which profile it is; they ask the profile for its numbers.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from labkit.errors import InputError
from labkit.imaging.planes import PLANES
from labkit.models import RIVALS

if TYPE_CHECKING:
    from labkit.evaluation.crossval import Plan
    from labkit.training.config import TrainingConfig

_OF_THE_PAPER = ("sweep_folds", "sweep_repeats", "paper_views", "rivals", "luna16_scans",
                 "luna16_seed")  # fmt: skip

RESAMPLES = 2000
"""Samples of a bootstrap where nobody says otherwise."""


@dataclass(frozen=True)
class Profile:
    """The sizes of one profile.

    Args:
        name: "smoke", "demo", "lab" or "paper".
        nodules: labelled nodules in the simulated cohort; None takes all of them.
        uncertain: whether the cohort also holds nodules of uncertain malignancy.
        epochs: most epochs a network is trained.
        folds: of the cross-validation.
        repeats: of the cross-validation.
        resamples: of the bootstrap.
        protocol: of training, `TrainingConfig.brief`, `lab` or `paper`.
        task: what is learnt, `Cohort.task`: "malignancy" or "luna16".
        sweep_folds: how many of the folds the sweeps of Figs. 5 to 7 train, where nothing is
            repeated; None takes all.
        sweep_repeats: of the sweeps; None takes as many as of the rest.
        paper_views: views that the paper's figures and tables train.
        rivals: the other methods of Table 1 that are trained for it.
        luna16_scans: in the simulated LUNA-16; None takes all that there are.
        luna16_seed: of the sample of these scans: few can be learnt from only if nodules are in
            them. The first four of seed 1875 have 13 nodules, of seed 0 two.
    """

    name: str
    nodules: int | None
    uncertain: bool
    epochs: int
    folds: int
    repeats: int
    resamples: int
    protocol: str
    task: str = "malignancy"
    sweep_folds: int | None = None
    sweep_repeats: int | None = None
    paper_views: tuple[int, ...] = tuple(range(len(PLANES)))
    rivals: tuple[str, ...] = ()
    luna16_scans: int | None = None
    luna16_seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the sizes of cohort, training and cross-validation, as files have them."""
        return {k: v for k, v in asdict(self).items() if k not in _OF_THE_PAPER}

    def training(self, **changes: Any) -> TrainingConfig:
        """Return the training protocol of this profile, with `changes`.

        The printed one is of ST-CNN and MT-CNN; at `paper` other methods are trained by the lab's.
        """
        from labkit.training.config import TrainingConfig

        of_task = TrainingConfig.of_task(self.task)
        own = {"epochs": self.epochs, **of_task, **changes}
        if self.protocol == "paper" and TrainingConfig(model=own.get("model", "mt")).network.whole:
            return TrainingConfig.lab(**of_task, **changes)
        return getattr(TrainingConfig, self.protocol)(**own)

    def plan(self, sweep: bool = False) -> Plan:
        """Return folds and repeats of ST-CNN and MT-CNN, or of the variants of a sweep.

        A sweep's folds are among those of the two, so that a variant is compared with them on the
        nodules that both judged. Folds of LUNA-16 are its official subsets.

        >>> get("lab").plan(sweep=True)
        Plan(folds=5, repeats=1, split='patient', first_folds=3)
        """
        from labkit.evaluation.crossval import Plan

        split = "subset" if self.task == "luna16" else "patient"
        if not sweep:
            return Plan(self.folds, self.repeats, split)
        repeats = self.sweep_repeats or self.repeats
        few = repeats == 1 and self.sweep_folds is not None and self.sweep_folds < self.folds
        return Plan(self.folds, repeats, split, self.sweep_folds if few else None)


PROFILES = {
    "smoke": Profile("smoke", 48, False, 2, 2, 1, 200, "brief", sweep_folds=2,
                     paper_views=(0, 1, 2, 8), rivals=("radiomics",),
                     luna16_scans=4, luna16_seed=1875),
    "demo": Profile("demo", 240, False, 16, 3, 1, RESAMPLES, "brief", sweep_folds=2,
                    luna16_scans=60),
    "lab": Profile("lab", None, False, 120, 5, 1, RESAMPLES, "lab", sweep_folds=3, rivals=RIVALS,
                   luna16_scans=60),
    "paper": Profile("paper", None, True, 150, 10, 10, RESAMPLES, "paper", sweep_repeats=1,
                     rivals=RIVALS),
}  # fmt: skip


def get(name: str | None = None, default: str = "lab") -> Profile:
    """Return the profile of this name, else the one that `LABKIT_PROFILE` names, else the default.

    Raises:
        InputError: no profile is called so.

    >>> get("paper").folds
    10
    """
    name = name or os.environ.get("LABKIT_PROFILE") or default
    if name not in PROFILES:
        raise InputError(f"no profile is called {name!r}; there are {', '.join(PROFILES)}")
    return PROFILES[name]
