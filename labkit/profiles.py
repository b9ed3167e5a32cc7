"""How much of everything: `smoke` for CI, `lab` for a class hour, `paper` for the printed protocol.

Lessons never ask which profile it is; they ask the profile for its numbers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labkit.errors import InputError

if TYPE_CHECKING:
    from labkit.training.config import TrainingConfig


@dataclass(frozen=True)
class Profile:
    """The sizes of one profile.

    Args:
        name: "smoke", "lab" or "paper".
        nodules: labelled nodules in the simulated cohort; None takes all of them.
        uncertain: whether the cohort also holds nodules of uncertain malignancy.
        epochs: most epochs a network is trained.
        folds: of the cross-validation.
        repeats: of the cross-validation.
        resamples: of the bootstrap.
        printed_protocol: train by `TrainingConfig.paper` rather than `TrainingConfig.brief`.
        task: what is learnt, `Cohort.task`: "malignancy" or "luna16".
    """

    name: str
    nodules: int | None
    uncertain: bool
    epochs: int
    folds: int
    repeats: int
    resamples: int
    printed_protocol: bool
    task: str = "malignancy"

    @property
    def luna16_scans(self) -> int | None:
        """Scans in the simulated LUNA-16; None takes all that there are.

        >>> get("lab").luna16_scans
        60
        """
        return _LUNA16_SCANS[self.name]

    @property
    def luna16_seed(self) -> int:
        """Of the sample of these scans: few scans can be learnt from only if nodules are in them.

        >>> get("lab").luna16_seed
        0
        """
        return _LUNA16_SEED[self.name]

    def training(self, **changes: Any) -> TrainingConfig:
        """The training protocol of this profile, with `changes`."""
        from labkit.training.config import TrainingConfig

        protocol = TrainingConfig.paper if self.printed_protocol else TrainingConfig.brief
        of_task = TrainingConfig.of_task(self.task)
        return protocol(**{"epochs": self.epochs, **of_task, **changes})


PROFILES = {
    "smoke": Profile("smoke", 48, False, 2, 2, 1, 200, False),
    "lab": Profile("lab", None, False, 12, 5, 1, 2000, False),
    "paper": Profile("paper", None, True, 150, 10, 10, 2000, True),
}

_LUNA16_SCANS = {"smoke": 4, "lab": 60, "paper": None}
# The first four scans of this seed have 13 nodules, of seed 0 two.
_LUNA16_SEED = {"smoke": 1875, "lab": 0, "paper": 0}


def get(name: str | None = None) -> Profile:
    """The profile of this name, else the one that `LABKIT_PROFILE` names, else `lab`.

    Raises:
        InputError: no profile is called so.

    >>> get("paper").folds
    10
    """
    name = name or os.environ.get("LABKIT_PROFILE") or "lab"
    if name not in PROFILES:
        raise InputError(f"no profile is called {name!r}; there are {', '.join(PROFILES)}")
    return PROFILES[name]
