"""What the paper claims beside what was measured here, with a verdict on each claim.

A verdict is computed from committed results by a rule that was written down with the claim; none is
written by hand. It is about the images and the training of those results: "contradicted" means
contradicted here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from labkit import paths
from labkit.evaluation.equivalence import MARGIN_AUC
from labkit.evaluation.intervals import Interval
from labkit.experiments import committed
from labkit.experiments.declared import L2_SHOWN, alpha_label, depth_label, l2_label
from labkit.files import read_json

SHOWN, NOT_SHOWN, CONTRADICTED, CANNOT = (
    "shown", "not shown", "contradicted", "cannot be judged",
)  # fmt: skip
VERDICTS = (SHOWN, NOT_SHOWN, CONTRADICTED, CANNOT)
Evidence = Mapping[str, Any]
"""Name of a result ("belief", "fig7", ...) -> its values; what is not committed is not there."""


@dataclass(frozen=True)
class Judged:
    """A verdict and what it rests on.

    Args:
        verdict: one of `VERDICTS`.
        measured: the numbers, in words; or what is missing.
    """

    verdict: str
    measured: str


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, and the rule that judges it.

    Args:
        text: what it says.
        where: section, or "not asked" for what its argument needs and it does not look at.
        judge: evidence of one kind of images -> verdict.
    """

    text: str
    where: str
    judge: Callable[[Evidence], Judged]


def better(difference: Interval, at_least: float = 0.0, found: bool | None = None) -> str:
    """Whether a difference bears out "better", by as much as the words promise.

    Args:
        difference: of the one said to be better less the other, with its 95 % interval.
        at_least: what the claim promises: 0 for "better", `MARGIN_AUC` for "much better".
        found: whether it survives the correction for many comparisons; None asks the interval.

    Returns:
        "shown": no chance finding, and as large as promised. "contradicted": the interval lies
        below 0, or below what is promised. Else "not shown".

    >>> better(Interval(-0.001, -0.004, 0.003), at_least=0.02)
    'contradicted'
    >>> better(Interval(0.02, -0.01, 0.05))
    'not shown'
    """
    sure = difference.low > 0 if found is None else found and difference.low > 0
    if sure and difference.value >= at_least:
        return SHOWN
    if difference.high < 0 or difference.high < at_least:
        return CONTRADICTED
    return NOT_SHOWN


def verdicts() -> pd.DataFrame:
    """Every claim with its verdict on simulated and on real images, from `results/`.

    Returns:
        One row a claim: `claim`, `where`, and for "simulated" and "real" the verdict, and what was
        measured as "simulated: measured" and "real: measured".

    Raises:
        FileNotFoundError: there is no folder of results.
        InputError: a result that is not readable.
    """
    evidence = {kind: _evidence(kind) for kind in committed.NODULES}
    rows = []
    for claim in CLAIMS:
        judged = {kind: claim.judge(values) for kind, values in evidence.items()}
        row = {"claim": claim.text, "where": claim.where}
        row |= {kind: j.verdict for kind, j in judged.items()}
        row |= {f"{kind}: measured": j.measured for kind, j in judged.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def _evidence(kind: str) -> dict[str, Any]:
    found = {name: committed.read(name, cohort) for name, cohort in committed.there()
             if cohort == kind}  # fmt: skip
    file = paths.results() / f"{kind}_belief.json"
    if file.is_file():
        found["belief"] = read_json(file, "a result")
    return found


def _difference(
    result: str, comparison: str, at_least: float = 0.0, sign: int = 1
) -> Callable[[Evidence], Judged]:
    """A judge of "better" (or, with sign -1, "worse") by one committed comparison."""

    def judge(evidence: Evidence) -> Judged:
        pair = evidence.get(result, {}).get("comparisons", {}).get(comparison)
        if pair is None:
            return Judged(CANNOT, f"{result} is not committed for these images")
        d = pair["auc_difference"]
        ends = sorted((sign * d["low"], sign * d["high"]))
        difference = Interval(sign * d["value"], *ends)
        verdict = better(difference, at_least, pair.get("found"))
        return Judged(verdict, f"{comparison}: {_signed(Interval(**d))}")

    return judge


def _same(result: str, comparison: str) -> Callable[[Evidence], Judged]:
    """A judge of "makes little difference", by equivalence within `MARGIN_AUC`."""

    def judge(evidence: Evidence) -> Judged:
        pair = evidence.get(result, {}).get("comparisons", {}).get(comparison)
        if pair is None:
            return Judged(CANNOT, f"{result} is not committed for these images")
        d = Interval(**pair["auc_difference"])
        apart = d.low > MARGIN_AUC or d.high < -MARGIN_AUC
        shown = pair["equivalence"]["shown"]
        verdict = SHOWN if shown else CONTRADICTED if apart else NOT_SHOWN
        return Judged(verdict, f"{comparison}: {_signed(d)}")

    return judge


def _reaches(value: float) -> Callable[[Evidence], Judged]:
    """A judge of a published AUC of MT-CNN: our interval holds it or does not."""

    def judge(evidence: Evidence) -> Judged:
        if "belief" not in evidence:
            return Judged(CANNOT, "not measured on these images")
        auc = evidence["belief"]["methods"]["MT-CNN"]["auc"]
        # Other images and a shorter training: that they fall short contradicts nothing.
        verdict = SHOWN if auc["low"] <= value <= auc["high"] else NOT_SHOWN
        return Judged(verdict, f"AUC {Interval(**auc)}")

    return judge


def _fusion(evidence: Evidence) -> Judged:
    """The fusion of MT-CNN against each of its views; the nearest view decides."""
    if "belief" not in evidence:
        return Judged(CANNOT, "not measured on these images")
    by_view = [Interval(**d) for d in evidence["belief"]["fusion"]["MT-CNN"].values()]
    nearest = min(by_view, key=lambda d: d.low)
    return Judged(better(nearest), f"fused less the nearest view: {_signed(nearest)}")


def _specificity(evidence: Evidence) -> Judged:
    if "belief" not in evidence:
        return Judged(CANNOT, "not measured on these images")
    d = Interval(**evidence["belief"]["specificity"]["MT-CNN less ST-CNN"])
    lower = Interval(-d.value, -d.high, -d.low)
    return Judged(better(lower), f"MT-CNN less ST-CNN: {_signed(d)}")


def _never(why: str) -> Callable[[Evidence], Judged]:
    return lambda _: Judged(CANNOT, why)


def _signed(d: Interval) -> str:
    return f"{d.value:+.3f} ({d.low:+.3f} to {d.high:+.3f})"


_ST, _MT = "ST-CNN", "MT-CNN"
CLAIMS = (
    Claim("MT-CNN has an obvious advantage over ST-CNN", "IV-A",
          _difference("table1", f"{_MT} less {_ST}", MARGIN_AUC)),
    Claim("the AUC of MT-CNN is higher than ST-CNN's", "IV-A",
          _difference("table1", f"{_MT} less {_ST}")),
    Claim("the specificity of MT-CNN is lower than ST-CNN's on LIDC-IDRI", "IV-A", _specificity),
    Claim("MT-CNN has an AUC of 0.9559 on LIDC-IDRI", "abstract", _reaches(0.9559)),
    Claim("fusing the nine views is better than any one of them", "V", _fusion),
    Claim("a nine-view network is better than the diameter alone", "not asked",
          _difference("table1", f"{_MT} less size only")),
    Claim("with alpha = 0.3 MT-CNN is better than ST-CNN", "IV-D",
          _difference("fig7", f"{alpha_label(0.3)} less {alpha_label(0)}")),
    Claim("with alpha = 1 MT-CNN is much worse than ST-CNN", "IV-E",
          _difference("fig7", f"{alpha_label(1.0)} less {alpha_label(0)}", MARGIN_AUC, -1)),
    Claim("MT-CNN is much better with three layers than with two", "IV-D",
          _difference("fig6", f"{depth_label('mt', 2)} less {depth_label('mt', 3)}",
                      MARGIN_AUC, -1)),
    Claim("ST-CNN falls with more than three layers", "IV-D",
          _difference("fig6", f"{depth_label('st', 4)} less {depth_label('st', 3)}", 0.0, -1)),
    Claim("l2 lowers the AUC of MT-CNN", "IV-C",
          _difference("fig5", f"{l2_label('mt', L2_SHOWN, 'both')} less {_MT}", 0.0, -1)),
    Claim("l2 makes little difference to ST-CNN", "IV-C",
          _same("fig5", f"{l2_label('st', L2_SHOWN, 'share')} less {_ST}")),
    Claim("MT-CNN has the highest AUC of all methods on LIDC-IDRI", "Table 1",
          _never("the other methods are not trained here")),
    Claim("the lowest false positive rate on LUNA-16, 3.2 %", "abstract",
          _never("no images of LUNA-16's candidates here")),
)  # fmt: skip
"""The claims that are judged, each with its rule."""
