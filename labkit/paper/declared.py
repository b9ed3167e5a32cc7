"""The paper's tables and figures as data: what it claims, and what is trained to see.

Figures 5 to 7 were measured on LUNA-16's candidates; their curves are pictures without numbers, so
what can be held beside ours is what the text says of them. Here they are measured on whatever
cohort is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from labkit.evaluation.crossval import Plan
from labkit.profiles import Profile
from labkit.training.config import TrainingConfig

# One way to train: the profile's protocol with a few settings changed.


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


# How many folds, repeats and views each profile spends on baselines and on sweeps.


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


ALPHAS = (0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
ALPHA_SHOWN = 0.3
"""Whose reconstructions Fig. 4 shows: the paper's best."""
DEPTHS = (1, 2, 3, 4, 5)
L2 = (1e-5, 1e-4, 1e-3, 1e-2)
L2_SHOWN = 1e-4
"""Which l2 stands for "with l2" beside the paper's four curves; stated before any was trained."""
DROPOUTS = {"none": "none", "fc1": "FC1", "fc1+fc2": "FC1 and FC2"}

ST = variant("ST-CNN", model="st")
MT = variant("MT-CNN", model="mt")


@dataclass(frozen=True)
class Published:
    """A number as published.

    Args:
        what: of which method and data.
        metric: "auc", "sensitivity", "specificity", "false_positive_rate", "nodules" or "alpha".
        value: a share (0.9559 where the paper prints 95.59 %), or a count.
        where: section, figure or table.
    """

    what: str
    metric: str
    value: float
    where: str

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {"what": self.what, "metric": self.metric, "value": self.value, "where": self.where}


@dataclass(frozen=True)
class Experiment:
    """A figure or table of the paper.

    Args:
        name: on the command line, and of the files.
        title: what it shows.
        where: section of the paper.
        claims: what the text says of it, sentence by sentence.
        published: its numbers, as far as the text has any.
        variants: what is trained for it.
        comparisons: labels (first, second) of the variants that are compared in pairs: the family
            over which p-values are corrected.
    """

    name: str
    title: str
    where: str
    claims: tuple[str, ...]
    published: tuple[Published, ...] = ()
    variants: tuple[Variant, ...] = ()
    comparisons: tuple[tuple[str, str], ...] = ()


def l2_label(model: str, l2: float, l2_on: str) -> str:
    """What a variant with l2 is called.

    >>> l2_label("mt", 1e-4, "img")
    'MT-CNN, l2 1e-04 on decoder'
    """
    place = {"share": "encoder", "img": "decoder", "both": "both"}[l2_on]
    return f"{model.upper()}-CNN, l2 {l2:.0e} on {place}"


def dropout_label(model: str, dropout_on: str) -> str:
    """What a variant with dropout in other places is called."""
    return f"{model.upper()}-CNN, dropout {DROPOUTS[dropout_on]}"


def alpha_label(alpha: float) -> str:
    """What a weight of the reconstruction is called; 0 is ST-CNN (III-B)."""
    return f"alpha {alpha:g}"


def depth_label(model: str, depth: int) -> str:
    """What a network of other depth is called."""
    return f"{model.upper()}-CNN, {depth} layer{'s' * (depth > 1)}"


_L2 = tuple(
    variant(l2_label(model, l2, l2_on), model=model, l2=l2, l2_on=l2_on)
    for model, places in (("st", ("share",)), ("mt", ("both", "share", "img")))
    for l2_on in places
    for l2 in L2
)
# The paper's four curves first, so that an unfinished figure has them.
_WITH_L2 = tuple(
    v
    for v in _L2
    if v.label in (l2_label("st", L2_SHOWN, "share"), l2_label("mt", L2_SHOWN, "both"))
)
_DROPOUT = tuple(
    variant(dropout_label(model, place), model=model, dropout_on=place)
    for model in ("st", "mt")
    for place in DROPOUTS
)

EXPERIMENTS = {
    e.name: e
    for e in (
        Experiment(
            "fig1",
            "Nodules by malignancy score, and under other rules",
            "Fig. 1, II",
            (
                "1,109 nodules with at least three readers on slices of at most 2.5 mm: 369 "
                "benign, 405 uncertain, 335 malignant",
                "266 benign, 239 uncertain and 175 malignant nodules were not included",
            ),
            (
                Published("benign", "nodules", 369, "II"),
                Published("uncertain", "nodules", 405, "II"),
                Published("malignant", "nodules", 335, "II"),
                Published("benign, not included", "nodules", 266, "II"),
                Published("uncertain, not included", "nodules", 239, "II"),
                Published("malignant, not included", "nodules", 175, "II"),
                Published("LUNA-16", "nodules", 1186, "II"),
            ),
        ),
        Experiment(
            "table1",
            "Our rows of Table 1, single views, and ways to fuse them",
            "Table 1, III-C, IV-A",
            (
                "MT-CNN has an obvious advantage over ST-CNN on both data sets",
                "the specificity of MT-CNN is slightly lower than ST-CNN's on LIDC-IDRI, its AUC "
                "higher on both",
                "fusing the nine views gives better predictions than different models do alone",
            ),
            (
                Published("MT-CNN, LIDC-IDRI", "auc", 0.9559, "abstract, IV-A"),
                Published("MT-CNN, LIDC-IDRI", "sensitivity", 0.8774, "IV-A"),
                Published("MT-CNN, LUNA-16", "auc", 0.9730, "abstract, IV-A"),
                Published("MT-CNN, LUNA-16", "specificity", 0.9680, "IV-A"),
                Published("MT-CNN, LUNA-16", "false_positive_rate", 0.032, "abstract"),
                Published("Xie et al. 2019, re-run, LIDC-IDRI", "auc", 0.9404, "IV-A"),
                Published("Xie et al. 2019, re-run, LIDC-IDRI", "sensitivity", 0.8967, "IV-A"),
            ),
            (MT, ST),
            (("MT-CNN", "ST-CNN"), ("MT-CNN", "size only"), ("ST-CNN", "size only")),
        ),
        Experiment(
            "fig7",
            "The weight of the reconstruction, alpha",
            "Fig. 7, IV-D, IV-E, Algorithm 1",
            (
                "alpha = 0.3 is best; 0.2 and 0.4 give the same result",
                "performance rises with alpha up to a certain value and falls beyond it",
                "alpha = 1 is much worse than ST-CNN (alpha = 0), and the worst of all",
            ),
            (Published("alpha that is best", "alpha", 0.3, "IV-D"),),
            (
                variant(alpha_label(0), model="st"),
                *(variant(alpha_label(a), alpha=a) for a in (0.3, 1.0, 0.6, 0.2, 0.4, 0.8)),
            ),
            tuple((alpha_label(a), alpha_label(0)) for a in ALPHAS),
        ),
        Experiment(
            "fig4",
            "What is redrawn of nodules that were not seen, and what is lost",
            "Fig. 4, IV-B",
            (
                "all reconstructed images are very similar to the original images",
                "margin and texture of the nodules are clearly seen in the reconstructed image",
                "the second task makes ShareNet preserve pixel-level nodule information",
            ),
            variants=tuple(
                variant(alpha_label(a), alpha=a) for a in (ALPHA_SHOWN, 1.0, 0.6, 0.2, 0.4, 0.8)
            ),
        ),
        Experiment(
            "fig6",
            "The number of convolutional layers",
            "Fig. 6, IV-D",
            (
                "MT-CNN is better the more layers it has, and much better with more than two",
                "ST-CNN is best with two or three layers and falls with more",
                "MT-CNN is no worse than ST-CNN of the same depth, and the difference grows with "
                "depth",
                "four layers take much more time and memory than three, which makes three the best "
                "choice",
            ),
            variants=tuple(
                variant(depth_label(model, depth), model=model, depth=depth)
                for depth in (3, 2, 4, 1, 5)
                for model in ("mt", "st")
            ),
            comparisons=(
                *((depth_label("mt", d), depth_label("st", d)) for d in DEPTHS),
                *(
                    (depth_label(m, d), depth_label(m, 3))
                    for m in ("mt", "st")
                    for d in DEPTHS
                    if d != 3
                ),
            ),
        ),
        Experiment(
            "fig5",
            "Regularisation: l2 and dropout",
            "Fig. 5, IV-C",
            (
                "MT-CNN without l2 has the best AUC of the four, MT-CNN with l2 the lowest",
                "l2 makes little difference to ST-CNN, since dropout plays the same role",
            ),
            variants=(MT, ST, *_WITH_L2, *_DROPOUT, *(v for v in _L2 if v not in _WITH_L2)),
            comparisons=(
                ("MT-CNN", "ST-CNN"),
                *((v.label, f"{v.label[:2]}-CNN") for v in (*_L2, *_DROPOUT)),
            ),
        ),
    )
}
"""By name, in the order in which they are made: those that say most come first."""

ALL = "all"


def names() -> tuple[str, ...]:
    """What can be reproduced."""
    return (*EXPERIMENTS, ALL)
