"""How many folds, repeats and views each profile spends on baselines and on sweeps."""

from __future__ import annotations

from dataclasses import dataclass

from labkit.evaluation.runs import Plan
from labkit.experiments.variants import Variant
from labkit.profiles import Profile

_FIRST_FOLDS = {"smoke": 2, "lab": 3}
_ONCE = {"paper"}
_FEW_VIEWS = {"smoke": (0, 1, 2, 8)}


@dataclass(frozen=True)
class Amounts:
    """What a profile repeats.

    Args:
        profile: whose they are.
        full: plan of the baselines, ST-CNN and MT-CNN.
        sweep: plan of every other variant. Its folds are folds of `full`, so that a baseline can be
            compared with a variant on the nodules that both judged.
        views: which views are trained.
    """

    profile: Profile
    full: Plan
    sweep: Plan
    views: tuple[int, ...] = tuple(range(9))

    def plan(self, variant: Variant) -> Plan:
        """Of one variant."""
        return self.full if variant.is_baseline(self.profile) else self.sweep

    def networks(self, variant: Variant) -> int:
        """How many networks a variant trains."""
        return len(list(self.plan(variant).places())) * len(self.views)

    def in_words(self, sweeps: bool = True) -> str:
        """The plans in a sentence, for figures and tables.

        Args:
            sweeps: False where nothing but ST-CNN and MT-CNN themselves is shown.
        """
        full, sweep = self.full, self.sweep
        if not sweeps:
            return f"ST-CNN and MT-CNN on {full.repeats} x {full.folds} folds by {full.split}"
        first = "" if sweep.first_folds is None else f"the first {sweep.first_folds} of "
        text = f"sweeps on {first}{sweep.repeats} x {sweep.folds} folds by {sweep.split}"
        return f"{text}, ST-CNN and MT-CNN themselves on {full.repeats} x {full.folds}"


def amounts(profile: Profile) -> Amounts:
    """What this profile spends.

    `smoke` trains four views, and sweeps two folds; `lab` sweeps the first three of five folds;
    `paper` sweeps one repeat of its ten. Folds of LUNA-16 are its official subsets.

    >>> from labkit import profiles
    >>> amounts(profiles.get("lab")).sweep
    Plan(folds=5, repeats=1, split='patient', first_folds=3)
    """
    split = "subset" if profile.task == "luna16" else "patient"
    full = Plan(profile.folds, profile.repeats, split)
    repeats = 1 if profile.name in _ONCE else profile.repeats
    first = _FIRST_FOLDS.get(profile.name)
    few = first is not None and first < profile.folds
    sweep = Plan(profile.folds, repeats, split, first if few else None)
    return Amounts(profile, full, sweep, _FEW_VIEWS.get(profile.name, tuple(range(9))))
