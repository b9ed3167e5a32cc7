"""When a difference counts: the rule that all verdicts on the paper's claims share.

A difference is *found* when it survives Holm's correction over its family (of DeLong's pooled test)
and the interval of the AUC within folds lies on the same side of zero. Pooling compares scores of
different networks, and can make a difference as well as hide one (`evaluation.within_folds`); what
only one way of counting sees is not believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labkit.evaluation.equivalence import MARGIN_AUC
from labkit.evaluation.intervals import Interval

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
