"""What the paper claims beside what was measured here, with a verdict on each claim.

A verdict is computed from committed results by a rule that was written down with the claim; none is
written by hand. It is about the images and the training of those results: "contradicted" means
contradicted here. What counts as found is in `judging`, and is corrected within the family of each
figure; nothing is corrected over the table of claims, so that a long table has a wrong line or two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from labkit import paths
from labkit.evaluation.statistics import MARGIN_AUC, Interval
from labkit.imaging.views import PLANES
from labkit.io import read_json
from labkit.paper import results
from labkit.paper.declared import L2_SHOWN, alpha_label, depth_label, l2_label

# When a difference counts: the rule that all verdicts on the paper's claims share.
#
# A difference is *found* when it survives Holm's correction over its family (of DeLong's pooled
# test)
# and the interval of the AUC within folds lies on the same side of zero. Pooling compares scores of
# different networks, and can make a difference as well as hide one (`evaluation.within_folds`);
# what
# only one way of counting sees is not believed.


SHOWN, NOT_SHOWN, CONTRADICTED, CANNOT, NOT_FINISHED = (
    "shown", "not shown", "contradicted", "cannot be judged", "not finished",
)  # fmt: skip
Pair = Mapping[str, Any]
"""A committed comparison, as `measured.compare` and `measured.correct` leave it."""


def better(
    difference: Interval,
    at_least: float = 0.0,
    *,
    found: bool | None = None,
    within: Interval | None = None,
) -> str:
    """Whether a difference bears out "better", by as much as the words promise.

    Args:
        difference: of the one said to be better less the other, with its 95 % interval.
        at_least: what the claim promises: 0 for "better", `MARGIN_AUC` for "much better".
        found: whether it survives the correction for many comparisons; None where it is the only
            one of its family, and its interval decides.
        within: the same difference within folds; None for what is not pooled over folds.

    Returns:
        "shown": found, above 0 within folds as well, and as large as promised. "contradicted":
        found below 0 in the same way, or shown to be smaller than what is promised. Else "not
        shown".

    >>> better(Interval(-0.001, -0.004, 0.003), at_least=0.02)
    'contradicted'
    >>> better(Interval(0.02, -0.01, 0.05))
    'not shown'
    >>> better(Interval(0.003, 0.001, 0.006), found=True, within=Interval(0.001, -0.003, 0.005))
    'not shown'
    """
    both = [difference] if within is None else [difference, within]
    counts = found is None or found
    if counts and all(d.low > 0 for d in both) and difference.value >= at_least:
        return SHOWN
    opposite = counts and all(d.high < 0 for d in both)
    too_small = at_least > 0 and all(d.high < at_least for d in both)
    return CONTRADICTED if opposite or too_small else NOT_SHOWN


def better_pair(pair: Pair, at_least: float = 0.0, sign: int = 1) -> str:
    """`better` of a committed comparison; with sign -1 of the second over the first.

    Args:
        pair: first less second.
        at_least: what the claim promises.
        sign: 1 or -1.
    """
    return better(pooled(pair, sign), at_least, found=pair["found"], within=within(pair, sign))


def side(pair: Pair) -> int:
    """1 or -1 for a difference that is found, by its sign; else 0."""
    said = {SHOWN: 1, CONTRADICTED: -1}
    return said.get(better_pair(pair), 0)


def inside(pair: Pair, margin: float = MARGIN_AUC) -> bool:
    """Whether a difference is shown to be smaller than a margin, pooled and within folds.

    Args:
        pair: with the equivalence test at this margin.
        margin: stated beforehand.
    """
    d = within(pair)
    return bool(pair["equivalence"]["shown"]) and -margin < d.low and d.high < margin


def pooled(pair: Pair, sign: int = 1) -> Interval:
    """The difference of pooled AUCs, or with sign -1 its opposite."""
    return _turned(pair["auc_difference"], sign)


def within(pair: Pair, sign: int = 1) -> Interval:
    """The difference of AUCs within folds, or with sign -1 its opposite."""
    return _turned(pair["within_folds_difference"], sign)


def signed(d: Interval) -> str:
    """A difference in words, with its sign.

    >>> signed(Interval(0.01, -0.002, 0.022))
    '+0.010 (-0.002 to +0.022)'
    """
    return f"{d.value:+.3f} ({d.low:+.3f} to {d.high:+.3f})"


def _turned(d: Mapping[str, float], sign: int) -> Interval:
    low, high = sorted((sign * d["low"], sign * d["high"]))
    return Interval(sign * d["value"], low, high)


# One difference, asked about in every way that the course knows, side by side.
#
# Pooled over folds and within them, over patients and over trainings: these are different
# questions,
# and a difference that only one of them finds is not yet one that the others would bear out.


COLUMNS = (
    "pooled over folds", "Holm's p", "within folds", "t-test over folds, p", "excludes more than",
)  # fmt: skip


def asked(comparisons: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """What each way to ask says of each comparison.

    Args:
        comparisons: name -> what `measured.compare` and `measured.correct` gave, as in the JSON of
            a sweep.

    Returns:
        One row a comparison: the difference of the pooled AUC with its interval over patients;
        DeLong's p after the family's correction; the difference within folds with its interval; p
        of the corrected t-test, "none" where it could not be computed; and the smallest margin
        that equivalence is shown for.
    """
    rows = {}
    for name, pair in comparisons.items():
        t = pair["corrected_t_test"].get("p_value")
        rows[name] = (
            signed(pooled(pair)),
            f"{pair['p_holm']:.2g}",
            signed(within(pair)),
            "none" if t is None else f"{t:.2g}",
            f"{pair['equivalence']['smallest_margin']:.3f}",
        )
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS))


VERDICTS = (SHOWN, NOT_SHOWN, CONTRADICTED, CANNOT)
NOT_COUNTED = "pooled only"
"""What a finding is worth that is gone within folds: a verdict of "not shown" says so."""
Evidence = Mapping[str, Any]
"""Name of a result ("belief", "fig7", ...) -> its values; what is not committed is not there."""


@dataclass(frozen=True)
class Judged:
    """A verdict and what it rests on.

    Args:
        verdict: one of `VERDICTS`.
        measured: the numbers, in words; or what is missing.
        within_folds: the same difference within folds, in words; "" where nothing was pooled.
    """

    verdict: str
    measured: str
    within_folds: str = ""


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


def verdicts() -> pd.DataFrame:
    """Every claim with its verdict on simulated and on real images, from `results/`.

    Returns:
        Two rows a claim: `claim`, `where`, `images` ("simulated" or "real"), `verdict`, `measured`
        and `within folds`.

    Raises:
        FileNotFoundError: there is no folder of results.
        InputError: a result that is not readable.
    """
    evidence = {kind: _evidence(kind) for kind in results.NODULES}
    rows = []
    for claim in CLAIMS:
        for kind, values in evidence.items():
            judged = claim.judge(values)
            rows.append(
                {
                    "claim": claim.text,
                    "where": claim.where,
                    "images": kind,
                    "verdict": judged.verdict,
                    "measured": judged.measured,
                    "within folds": judged.within_folds,
                }
            )
    return pd.DataFrame(rows)


def _evidence(kind: str) -> dict[str, Any]:
    found = {name: results.read(name, cohort) for name, cohort in results.there()
             if cohort == kind}  # fmt: skip
    file = paths.results() / f"{kind}_belief.json"
    if file.is_file():
        found["belief"] = read_json(file, "a result")
    return found


def _difference(
    result: str, comparison: str, at_least: float = 0.0, sign: int = 1, beside: str | None = None
) -> Callable[[Evidence], Judged]:
    """A judge of "better" (or, with sign -1, "worse") by one committed comparison.

    Another one may be named to stand beside it, which is not judged.
    """

    def judge(evidence: Evidence) -> Judged:
        pair = _pair(evidence, result, comparison)
        if pair is None:
            return Judged(CANNOT, f"{result} is not committed for these images")
        judged = _judged(better_pair(pair, at_least, sign), comparison, pair)
        other = None if beside is None else _pair(evidence, result, beside)
        if other is None:
            return judged
        return replace(judged, measured=f"{judged.measured}; {beside}: {signed(pooled(other))}")

    return judge


def _same(result: str, comparison: str) -> Callable[[Evidence], Judged]:
    """A judge of "makes little difference", by equivalence within `MARGIN_AUC`."""

    def judge(evidence: Evidence) -> Judged:
        pair = _pair(evidence, result, comparison)
        if pair is None:
            return Judged(CANNOT, f"{result} is not committed for these images")
        found = side(pair)
        apart = found != 0 and pooled(pair, found).low > MARGIN_AUC
        verdict = SHOWN if inside(pair) else CONTRADICTED if apart else NOT_SHOWN
        return _judged(verdict, comparison, pair)

    return judge


def _pair(evidence: Evidence, result: str, comparison: str) -> Mapping[str, Any] | None:
    pair: Mapping[str, Any] | None = evidence.get(result, {}).get("comparisons", {}).get(comparison)
    return pair


def _judged(verdict: str, comparison: str, pair: Mapping[str, Any]) -> Judged:
    inner = signed(within(pair))
    if verdict == NOT_SHOWN and pair["found"] and not side(pair):
        inner += f": {NOT_COUNTED}"
    return Judged(verdict, f"{comparison}: {signed(pooled(pair))}", inner)


def _reaches(value: float) -> Callable[[Evidence], Judged]:
    """A judge of a published AUC of MT-CNN: our interval holds it or does not."""

    def judge(evidence: Evidence) -> Judged:
        if "belief" not in evidence:
            return Judged(CANNOT, "not measured on these images")
        mt = evidence["belief"]["methods"]["MT-CNN"]
        auc = Interval(**mt["auc"])
        # Other images and a shorter training: that they fall short contradicts nothing.
        verdict = SHOWN if auc.low <= value <= auc.high else NOT_SHOWN
        return Judged(verdict, f"AUC {auc}", str(Interval(**mt["auc_within_folds"])))

    return judge


def _fusion(evidence: Evidence) -> Judged:
    """The fusion of MT-CNN against each of its views; all of them have to be found worse."""
    if "belief" not in evidence:
        return Judged(CANNOT, "not measured on these images")
    by_view = evidence["belief"]["fusion"]["MT-CNN"]
    view, nearest = min(by_view.items(), key=lambda item: pooled(item[1]).low)
    sides = [side(pair) for pair in by_view.values()]
    verdict = CONTRADICTED if -1 in sides else SHOWN if set(sides) == {1} else NOT_SHOWN
    plane = PLANES[int(view)].name.replace("_", " ")
    return _judged(verdict, f"fused less {plane}, the nearest", nearest)


def _specificity(evidence: Evidence) -> Judged:
    if "belief" not in evidence:
        return Judged(CANNOT, "not measured on these images")
    d = Interval(**evidence["belief"]["specificity"]["MT-CNN less ST-CNN"])
    lower = Interval(-d.value, -d.high, -d.low)
    return Judged(better(lower), f"MT-CNN less ST-CNN: {signed(d)}")


def _never(why: str) -> Callable[[Evidence], Judged]:
    return lambda _: Judged(CANNOT, why)


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
    Claim("ST-CNN falls with four layers", "IV-D",
          _difference("fig6", f"{depth_label('st', 4)} less {depth_label('st', 3)}", 0.0, -1,
                      f"{depth_label('st', 5)} less {depth_label('st', 3)}")),
    Claim("l2 lowers the AUC of MT-CNN", "IV-C",
          _difference("fig5", f"{l2_label('mt', L2_SHOWN, 'both')} less {_MT}", 0.0, -1)),
    Claim("l2 makes little difference to ST-CNN", "IV-C",
          _same("fig5", f"{l2_label('st', L2_SHOWN, 'share')} less {_ST}")),
    Claim("MT-CNN has the highest AUC of all methods on LIDC-IDRI", "Table 1",
          _never("the other methods are not trained here")),
    Claim("the lowest false positive rate on LUNA-16, 3.2 %", "abstract",
          _never("neither LUNA-16's own images nor the other methods are here")),
)  # fmt: skip
"""The claims that are judged, each with its rule."""
