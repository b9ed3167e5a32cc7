"""One way to train: the profile's protocol with a few settings changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from labkit.profiles import Profile
from labkit.training.config import TrainingConfig


@dataclass(frozen=True)
class Variant:
    """A point of a sweep, or a row of a table; several experiments may share it.

    Args:
        label: what a figure calls it.
        changes: (setting, value) pairs that differ from the profile's MT-CNN.
    """

    label: str
    changes: tuple[tuple[str, Any], ...] = ()

    def config(self, profile: Profile, views: tuple[int, ...] = tuple(range(9))) -> TrainingConfig:
        """How it is trained at this profile."""
        return profile.training(views=views, **dict(self.changes))

    def folder(self, profile: Profile) -> str:
        """Name of its run: the model, and what differs from the profile's protocol for it.

        Two experiments that ask for the same training under different labels share the folder.

        >>> from labkit import profiles
        >>> variant("alpha 0.3", alpha=0.3).folder(profiles.get("lab"))
        'mt'
        >>> variant("a", model="st", l2=1e-4, l2_on="share").folder(profiles.get("lab"))
        'st_l2-1e-4-share'
        >>> variant("b", dropout_on="fc1").folder(profiles.get("paper"))
        'mt_dropout-fc1'
        """
        config = self.config(profile)
        ours, base = config.as_dict(), profile.training(model=config.model).as_dict()
        parts = [config.model]
        for name in ours:
            if ours[name] == base[name] or name == "l2_on":
                continue
            if name == "l2":
                exponent = f"{config.l2:.0e}".replace("e-0", "e-")
                parts.append(f"l2-{exponent}-{config.l2_on}")
            elif name == "dropout_on":
                parts.append(f"dropout-{config.dropout_on.replace('+', '-')}")
            else:
                parts.append(f"{name}{ours[name]:g}")
        return "_".join(parts)

    def is_baseline(self, profile: Profile) -> bool:
        """Whether it is the profile's ST-CNN or MT-CNN itself."""
        return self.folder(profile) in ("st", "mt")

    def keeps_model(self, profile: Profile) -> bool:
        """Whether the first fold's networks are kept: of MT-CNN at any alpha, to reconstruct by."""
        folder = self.folder(profile)
        return folder == "mt" or (folder.startswith("mt_alpha") and folder.count("_") == 1)


def variant(label: str, **changes: Any) -> Variant:
    """A `Variant` from its settings by name."""
    return Variant(label, tuple(changes.items()))
