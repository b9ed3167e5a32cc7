"""The paper's tables and figures as data: what is trained, what is compared, and who draws it.

Figures 5 to 7 were measured on LUNA-16's candidates; their curves are pictures without numbers, so
what can be held beside ours is what the text says of them (`claims`). Here they are measured on
whatever cohort is given. Another sweep (over the batch size, say) is another `Experiment`, whose
variants change that setting of `TrainingConfig`, and a figure in `plots.paper`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labkit.models import NETWORKS, RIVALS
from labkit.profiles import Profile
from labkit.training.config import TrainingConfig


@dataclass(frozen=True)
class Variant:
    """A point of a sweep, or a row of a table; several experiments may share its training.

    `changes` are settings that differ from the profile's MT-CNN.
    """

    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    def config(self, profile: Profile) -> TrainingConfig:
        """Return how it is trained at this profile."""
        return profile.training(views=profile.paper_views, **self.changes)

    def folder(self, profile: Profile) -> str:
        """Name its run: the model, and what differs from the profile's protocol for it.

        >>> from labkit import profiles
        >>> Variant("alpha 0.3", {"alpha": 0.3}).folder(profiles.get("lab"))
        'mt'
        >>> changes = {"model": "st", "l2": 1e-4, "l2_on": "share"}
        >>> Variant("a", changes).folder(profiles.get("lab"))
        'st_l2-1e-4-share'
        >>> Variant("b", {"dropout_on": "fc1"}).folder(profiles.get("paper"))
        'mt_dropout-fc1'
        >>> Variant("c", {"monitor": "auc"}).folder(profiles.get("lab"))
        'mt_monitor-auc'
        """
        config = self.config(profile)
        base = profile.training(views=profile.paper_views, model=config.model).as_dict()
        special = {
            "l2": f"l2-{config.l2:.0e}-{config.l2_on}".replace("e-0", "e-"),
            "dropout_on": f"dropout-{config.dropout_on.replace('+', '-')}",
        }
        changed = {k: v for k, v in config.as_dict().items() if v != base[k] and k != "l2_on"}
        parts = (special.get(k) or (f"{k}-{v}" if isinstance(v, str) else f"{k}{v:g}")
                 for k, v in changed.items())  # fmt: skip
        return "_".join((config.model, *parts))

    def is_baseline(self, profile: Profile) -> bool:
        """Tell whether it is the profile's ST-CNN, MT-CNN or other method itself."""
        return self.folder(profile) in NETWORKS

    def keeps_model(self, profile: Profile) -> bool:
        """Tell whether the first fold's networks are kept: MT-CNN at any alpha, to reconstruct."""
        folder = self.folder(profile)
        return folder == "mt" or (folder.startswith("mt_alpha") and folder.count("_") == 1)


MARGIN = 0.01
"""A difference of AUCs below it does not matter, one above is "much". Stated before the runs, since
the paper's own gain over its best rival is 0.0155, and a margin has to stay well below that."""
MOST_CUT_OFF = 0.05
"""Share of networks that may run out of epochs in a figure or table that gives a verdict."""
ALPHAS = (0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
ALPHA_SHOWN = 0.3
"""Whose reconstructions Fig. 4 shows: the paper's best."""
DEPTHS = (1, 2, 3, 4, 5)
L2 = (1e-5, 1e-4, 1e-3, 1e-2)
L2_SHOWN = 1e-4
"""Which l2 stands for "with l2" beside the paper's four curves; stated before any was trained."""
DROPOUTS = {"none": "none", "fc1": "FC1", "fc1+fc2": "FC1 and FC2"}


def l2_label(model: str, l2: float, l2_on: str) -> str:
    """Name a variant with l2.

    >>> l2_label("mt", 1e-4, "img")
    'MT-CNN, l2 1e-04 on decoder'
    """
    place = {"share": "encoder", "img": "decoder", "both": "both"}[l2_on]
    return f"{NETWORKS[model].name}, l2 {l2:.0e} on {place}"


def dropout_label(model: str, dropout_on: str) -> str:
    """Name a variant with dropout in other places."""
    return f"{NETWORKS[model].name}, dropout {DROPOUTS[dropout_on]}"


def alpha_label(alpha: float) -> str:
    """Name a weight of the reconstruction; 0 is ST-CNN (III-B)."""
    return f"alpha {alpha:g}"


def depth_label(model: str, depth: int) -> str:
    """Name a network of other depth."""
    return f"{NETWORKS[model].name}, {depth} layer{'s' * (depth > 1)}"


@dataclass(frozen=True)
class Experiment:
    """A figure or table of the paper; its name is that on the command line and of the files."""

    name: str
    title: str
    where: str  # section of the paper
    # "module:function" of `labkit.paper`: (experiment, runs) -> values for JSON, the first of which
    # is empty as long as there is nothing to draw, with `missing`, the labels of the variants that
    # are not finished; and values -> table for CSV.
    compute: str
    table: str
    # Ending of the file's name -> function of `labkit.plots.paper` that draws the values; "froc"
    # where variants were judged by FROC, which are LUNA-16's.
    draw: Mapping[str, str]
    # Ending -> ("module:function" of `labkit.paper`, "module:function" of `labkit.plots`): a figure
    # that needs the runs' networks and images, which no JSON has.
    draw_images: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    of_nodules_alone: bool = False  # LUNA-16's candidates, most of which are none, do not do
    # The text's numbers: of which method and data, metric, value (a share, 0.9559 where the paper
    # prints 95.59 %, or a count) and section.
    published: tuple[dict[str, Any], ...] = ()
    variants: tuple[Variant, ...] = ()  # what is trained for it
    # Labels (first, second) that are compared: the family over which p-values are corrected.
    comparisons: tuple[tuple[str, str], ...] = ()

    def of(self, profile: Profile) -> tuple[Variant, ...]:
        """Return the variants that a profile trains: not every method of Table 1, and on LUNA-16's
        candidates, which have no cubes, the two beyond the paper that need none."""
        taken = set(profile.rivals)
        taken &= {"shared", "best"} if profile.task == "luna16" else taken
        return tuple(v for v in self.variants if v not in OTHERS or v.changes["model"] in taken)

    def printed(self, profile: Profile) -> list[dict[str, Any]]:
        """Return what is published, of the other methods that a profile trains in their papers."""
        others = (NETWORKS[v.changes["model"]] for v in self.of(profile) if v in OTHERS)
        lines = ((f"{of.name}, LIDC-IDRI", metric, value, of.reference)
                 for of in others for metric, value in of.published.items())  # fmt: skip
        return [*self.published, *_published(*lines)]


def _published(*lines: tuple[str, str, float, str]) -> tuple[dict[str, Any], ...]:
    return tuple(dict(zip(("what", "metric", "value", "where"), of, strict=True)) for of in lines)


def _sweep(figure: str) -> dict[str, Any]:
    return {"compute": "values:sweep", "table": "values:table",
            "draw": {"": f"{figure}_figure", "froc": f"{figure}_froc"}}  # fmt: skip


WITH_THE_DIAMETER = " + size"
"""After a method's name: with the log-diameter (`fusion.add_size`)."""
OTHERS = tuple(Variant(NETWORKS[name].name, {"model": name}) for name in RIVALS)
OF_PAPERS = tuple(of.name for name in RIVALS if (of := NETWORKS[name]).reference[0].isupper())
"""Those of them that somebody published as they are; not what is after or beyond a paper."""
ST, MT = Variant("ST-CNN", {"model": "st"}), Variant("MT-CNN", {"model": "mt"})
# In each sweep what the paper shows comes first, so that an unfinished figure has it.
_ALPHA = tuple(Variant(alpha_label(a), {"alpha": a}) for a in (0.3, 1.0, 0.6, 0.2, 0.4, 0.8))
_DEPTH = tuple(
    Variant(depth_label(model, depth), {"model": model, "depth": depth})
    for depth in (3, 2, 4, 1, 5) for model in ("mt", "st")
)  # fmt: skip
_L2 = tuple(
    Variant(l2_label(model, l2, l2_on), {"model": model, "l2": l2, "l2_on": l2_on})
    for model, l2_on in (("st", "share"), ("mt", "both"), ("mt", "share"), ("mt", "img"))
    for l2 in L2
)
_SHOWN_L2 = (_L2[L2.index(L2_SHOWN)], _L2[len(L2) + L2.index(L2_SHOWN)])
_DROPOUT = tuple(
    Variant(dropout_label(model, place), {"model": model, "dropout_on": place})
    for model in ("st", "mt") for place in DROPOUTS
)  # fmt: skip

_EXPERIMENTS = (
    Experiment(
        "fig1", "Nodules by malignancy score, and under other rules", "Fig. 1, II",
        compute="fig1:fig1", table="fig1:table", draw={"": "scores_by_rule"},
        published=_published(
            ("benign", "nodules", 369, "II"), ("uncertain", "nodules", 405, "II"),
            ("malignant", "nodules", 335, "II"), ("benign, not included", "nodules", 266, "II"),
            ("uncertain, not included", "nodules", 239, "II"),
            ("malignant, not included", "nodules", 175, "II"),
            ("LUNA-16", "nodules", 1186, "II"),
        ),
    ),
    Experiment(
        "table1", "Table 1, single views, and ways to fuse them",
        "Table 1, III-C, IV-A",
        compute="table1:table1", table="table1:table",
        draw={"": "table1_figure", "fusion": "fusion_figure"},
        published=_published(
            ("MT-CNN, LIDC-IDRI", "auc", 0.9559, "abstract, IV-A"),
            ("MT-CNN, LIDC-IDRI", "sensitivity", 0.8774, "IV-A"),
            ("MT-CNN, LUNA-16", "auc", 0.9730, "abstract, IV-A"),
            ("MT-CNN, LUNA-16", "specificity", 0.9680, "IV-A"),
            ("MT-CNN, LUNA-16", "false_positive_rate", 0.032, "abstract"),
            ("Xie et al. 2019, re-run, LIDC-IDRI", "auc", 0.9404, "IV-A"),
            ("Xie et al. 2019, re-run, LIDC-IDRI", "sensitivity", 0.8967, "IV-A"),
        ),
        variants=(MT, ST, *OTHERS),
        comparisons=(
            ("MT-CNN", "ST-CNN"),
            *((f"{v.label}{diameter}", "size only")
              for v in (MT, ST, *OTHERS) for diameter in ("", WITH_THE_DIAMETER)),
        ),
    ),
    Experiment(
        "fig7", "The weight of the reconstruction, alpha", "Fig. 7, IV-D, IV-E, Algorithm 1",
        **_sweep("alpha") | {"compute": "fig7:fig7"},
        published=_published(("alpha that is best", "alpha", 0.3, "IV-D")),
        variants=(Variant(alpha_label(0), {"model": "st"}), *_ALPHA),
        comparisons=tuple((alpha_label(a), alpha_label(0)) for a in ALPHAS),
    ),
    Experiment(
        "fig4", "What is redrawn of nodules that were not seen, and what is lost", "Fig. 4, IV-B",
        compute="fig4:fig4", table="fig4:table",
        draw={"": "fidelity_figure", "losses": "losses_figure", "map": "error_map_figure"},
        draw_images={"nodules": ("fig4:shown_nodules", "views:reconstruction_figure")},
        of_nodules_alone=True, variants=_ALPHA,
    ),
    Experiment(
        "fig6", "The number of convolutional layers", "Fig. 6, IV-D",
        **_sweep("depth") | {"compute": "fig6:fig6"},
        variants=_DEPTH,
        comparisons=(
            *((depth_label("mt", d), depth_label("st", d)) for d in DEPTHS),
            *((depth_label(m, d), depth_label(m, 3)) for m in ("mt", "st")
              for d in DEPTHS if d != 3),
        ),
    ),
    Experiment(
        "fig5", "Regularisation: l2 and dropout", "Fig. 5, IV-C", **_sweep("regularisation"),
        variants=(MT, ST, *_SHOWN_L2, *_DROPOUT, *(v for v in _L2 if v not in _SHOWN_L2)),
        comparisons=(
            ("MT-CNN", "ST-CNN"),
            *((v.label, f"{v.label[:2]}-CNN") for v in (*_L2, *_DROPOUT)),
        ),
    ),
)  # fmt: skip
EXPERIMENTS = {e.name: e for e in _EXPERIMENTS}
"""By name, in the order in which they are made: those that say most come first."""
ALL = "all"


def names() -> tuple[str, ...]:
    """Return what can be reproduced."""
    return (*EXPERIMENTS, ALL)
