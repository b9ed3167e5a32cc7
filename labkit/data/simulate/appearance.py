"""From readers' ratings to what a nodule is made of, with scatter within every rating."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from labkit.data.simulate.scan import Finding

CALCIUM = {
    1.0: "popcorn",
    2.0: "laminated",
    3.0: "solid",
    4.0: "non-central",
    5.0: "central",
    6.0: "absent",
}
INTERIOR = {1.0: "soft tissue", 2.0: "fluid", 3.0: "fat", 4.0: "air"}
_INTERIOR_HU = {"soft tissue": 40.0, "fluid": 8.0, "fat": -70.0, "air": 40.0}


@dataclass(frozen=True)
class Appearance:
    """What a nodule is made of.

    Args:
        tissue_hu: HU of its solid part.
        veil: share of tissue in its ground glass, 0 to 1.
        core: share of the radius that its solid part fills from the middle outwards: 0 for
            none, 1 for a solid nodule.
        unevenness: how much the share of tissue varies within ground glass.
        gaps_hu: how much darker its inner gaps are: small airways, necrosis, scars.
        swell_mm: how far the nodule reaches beyond the outlines, which no reader draws exactly.
        edge_mm: width within which the nodule gives way to lung.
        bumps_mm: how far its surface is displaced in and out.
        spicules: number of strands that leave its surface.
        spicule_length_mm: their typical length.
        calcium: its pattern, one of `CALCIUM`'s words.
        calcium_hu: HU of the calcium.
        interior: one of `INTERIOR`'s words.
        vessels: number of vessels that end in the nodule.
        tail: whether a strand ties the nodule to the pleura.
    """

    tissue_hu: float
    veil: float
    core: float
    unevenness: float
    gaps_hu: float
    swell_mm: float
    edge_mm: float
    bumps_mm: float
    spicules: int
    spicule_length_mm: float
    calcium: str
    calcium_hu: float
    interior: str
    vessels: int
    tail: bool


def appearance_of(finding: Finding, radius_mm: float, rng: np.random.Generator) -> Appearance:
    """Draw what a nodule is made of from what its readers said.

    Every rating sets the middle of a wide distribution, so that no single measure of the image
    gives a rating back, as in real nodules.

    Args:
        finding: the ratings; `malignancy` is not among them.
        radius_mm: of the consensus shape.
        rng: the nodule's own generator.
    """
    mean = {name: float(np.mean(values)) for name, values in finding.ratings.items()}
    texture = mean["texture"] + rng.normal(0.0, 0.35)
    # 1 is ground glass, 5 solid: the core grows from nothing at 1.9 to everything at 4.7.
    core = float(np.clip((texture - 1.9) / 2.8, 0.0, 1.0))
    veil = float(np.clip(0.21 + 0.12 * (texture - 1.0) + rng.normal(0.0, 0.07), 0.10, 0.8))
    margin = np.clip(mean["margin"] + rng.normal(0.0, 0.5), 1.0, 5.0)
    edge = (1.45 + 0.45 * (5.0 - margin)) * np.exp(rng.normal(0.0, 0.35))
    spiculation = max(mean["spiculation"] - 1.0 + rng.normal(0.0, 0.35), 0.0)
    lobulation = max(mean["lobulation"] - 1.0 + rng.normal(0.0, 0.35), 0.0)
    calcium, sure = _vote(finding.ratings["calcification"], CALCIUM, "absent")
    interior, _ = _vote(finding.ratings["internal_structure"], INTERIOR, "soft tissue")
    # Small nodules look less dense than large ones beyond what slices and kernels explain.
    small = min(3.0 / radius_mm, 1.5)
    solid = rng.normal(28.0, 38.0) + rng.normal(-40.0 * small**2, 95.0 * small)
    # A calcified scar is dense all through.
    solid = float(np.clip(solid, -420.0 if calcium == "absent" else 0.0, 90.0))
    return Appearance(
        tissue_hu=_INTERIOR_HU[interior] + solid,
        veil=veil,
        core=core,
        unevenness=float(rng.uniform(0.03, 0.11)),
        gaps_hu=float(rng.lognormal(np.log(42.0), 0.7) * np.clip(radius_mm / 8.0, 0.2, 1.4)),
        swell_mm=float(np.clip(rng.normal(0.0, 0.3), -0.15 * radius_mm, 0.7)),
        edge_mm=float(np.clip(edge, 0.6, 1.2 * radius_mm)),
        bumps_mm=float((0.05 + 0.03 * lobulation) * min(radius_mm, 10.0) * rng.uniform(0.6, 1.2)),
        spicules=int(rng.poisson((0.4 + 3.2 * spiculation) * np.clip(radius_mm / 6.0, 0.5, 3.0))),
        spicule_length_mm=float(rng.uniform(2.0, 4.5) + 0.25 * radius_mm * min(spiculation, 3.0)),
        calcium=calcium,
        calcium_hu=float(np.exp(rng.normal(np.log(1400.0), 0.45)) * (0.5 + 0.5 * sure)),
        interior=interior,
        vessels=int(rng.binomial(3, 0.38)),
        tail=bool(rng.random() < 0.15 + 0.12 * spiculation),
    )


def _vote(ratings: tuple[float, ...], words: dict[float, str], ordinary: str) -> tuple[str, float]:
    """The word that most readers chose and the share of them; the ordinary one in a tie.

    One annotation of the database has a value that its scale lacks: it counts as ordinary.
    """
    count = Counter(words.get(float(r), ordinary) for r in ratings)
    word, votes = max(count.items(), key=lambda item: (item[1], item[0] == ordinary))
    return word, votes / len(ratings)
