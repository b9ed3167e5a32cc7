"""What the paper says of regularisation (Fig. 5, IV-C) beside what was measured.

Its argument compares effects with each other: l2 harms MT-CNN and leaves ST-CNN alone, since the
second task regularises already. A statement about a difference of two effects needs an interval of
that difference; that one effect is found and the other is not shows nothing about it (Gelman and
Stern, The American Statistician 60:328, 2006).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from labkit.errors import InputError
from labkit.evaluation.statistics import MARGIN_AUC, Interval
from labkit.paper.claims import (
    CANNOT,
    CLAIMS,
    CONTRADICTED,
    NOT_FINISHED,
    NOT_SHOWN,
    SHOWN,
    better_pair,
    pooled,
    side,
    signed,
)
from labkit.paper.declared import L2, L2_SHOWN, dropout_label, l2_label

ST, MT = "ST-CNN", "MT-CNN"
ST_L2 = l2_label("st", L2_SHOWN, "share")
MT_L2 = l2_label("mt", L2_SHOWN, "both")
CURVES = (ST, ST_L2, MT, MT_L2)
"""The four of Fig. 5; which l2 stands for "with l2" was stated before any was trained."""
_REFERENCE = {ST_L2: ST, MT_L2: MT, MT: ST}
Values = Mapping[str, Any]


def effect(values: Values, label: str) -> Interval | None:
    """AUC of a variant less that of the same network without the change; None: not finished.

    Args:
        values: of fig5's JSON.
        label: such as "MT-CNN, l2 1e-04 on both".
    """
    pair = values["comparisons"].get(f"{label} less {label[:2]}-CNN")
    return None if pair is None else pooled(pair)


def at_chance(values: Values) -> pd.DataFrame:
    """How many networks of each setting never learnt, of those trained.

    Args:
        values: of fig5's JSON, finished or not.

    Returns:
        One row a (setting, model), such as ("dropout none", "ST-CNN"): `networks` and `at chance`.
    """
    rows = {}
    for label, of in values["variants"].items():
        model, _, setting = label.partition(", ")
        trained = of["trained"]
        rows[setting or "as it is", model] = (trained["networks"], trained.get("at_chance"))
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["networks", "at chance"])
    table.index = pd.MultiIndex.from_tuples(rows, names=["setting", "model"])
    return table.astype("Int64")


def difference_of_effects(first: Interval, second: Interval) -> Interval:
    """The first effect less the second, with an interval that holds whatever they share.

    Both were measured on the same nodules, but only their own intervals are known, not how they go
    together. A standard deviation of a difference is at most the sum of the two, so that adding the
    widths can only be too careful.

    >>> print(difference_of_effects(Interval(-0.02, -0.03, -0.01), Interval(0.0, -0.005, 0.005)))
    -0.020 (-0.035 to -0.005)
    """
    return Interval(
        first.value - second.value, first.low - second.high, first.high - second.low, first.level
    )


def interactions(values: Values) -> pd.DataFrame:
    """By how much l2 moves MT-CNN more than ST-CNN, at every strength.

    Args:
        values: of fig5's JSON, finished or not.

    Returns:
        One row a strength of which all is finished: `l2`, `MT-CNN` (l2 on encoder and decoder),
        `ST-CNN`, `difference`, as `Interval`, and `sure`: "more", "less" or "open".
    """
    rows = []
    for l2 in L2:
        mt, st = (
            effect(values, l2_label("mt", l2, "both")),
            effect(values, l2_label("st", l2, "share")),
        )
        if mt is None or st is None:
            continue
        d = difference_of_effects(mt, st)
        sure = "more" if d.high < 0 else "less" if d.low > 0 else "open"
        rows.append({"l2": l2, MT: mt, ST: st, "difference": d, "sure": sure})
    return pd.DataFrame(rows, columns=["l2", MT, ST, "difference", "sure"])


def regularisation_verdicts(values: Values) -> pd.DataFrame:
    """The paper's claims about l2 and dropout (IV-C) against a measured sweep.

    Args:
        values: of fig5's JSON, finished or not.

    Returns:
        Columns claim, measured, verdict: "shown", "not shown", "contradicted" or "not finished".
    """
    rows = [
        ("of the four, MT-CNN without l2 is the highest", *_extreme(values, MT, 1)),
        ("of the four, MT-CNN with l2 is the lowest", *_extreme(values, MT_L2, -1)),
    ]
    for claim in CLAIMS:
        if claim.where == "IV-C":
            judged = claim.judge({"fig5": values})
            done = judged.verdict != CANNOT
            rows.append((claim.text, *((judged.measured, judged.verdict) if done else _nothing())))
    rows += [
        ("without l2 MT-CNN is greatly better than with it", *_greatly(values)),
        ("l2 harms MT-CNN more than ST-CNN", *_more(values, MT_L2, ST_L2, -1)),
        ("some strength of l2 makes MT-CNN worse", *_any(values, "mt", "both", -1)),
        ("some strength of l2 makes ST-CNN better", *_any(values, "st", "share", 1)),
        ("dropout makes ST-CNN better", *_dropout(values)),
        (
            "the second task regularises: MT-CNN needs dropout less than ST-CNN",
            *_more(values, dropout_label("mt", "none"), dropout_label("st", "none"), 1),
        ),
    ]
    return pd.DataFrame(rows, columns=["claim", "measured", "verdict"])


def _extreme(values: Values, label: str, sign: int) -> tuple[str, str]:
    """Whether one of the four curves is surely the highest (sign 1) or the lowest (-1)."""
    if not set(CURVES) <= set(values["variants"]):
        return _nothing()
    aucs = {name: values["variants"][name]["metrics"]["auc"]["value"] for name in CURVES}
    sides = [sign * _side(values, label, other) for other in CURVES if other != label]
    word = "highest" if sign == 1 else "lowest"
    first = max(aucs, key=lambda name: sign * aucs[name])
    measured = f"{word} is {first} ({aucs[first]:.4f}); {label} has {aucs[label]:.4f}"
    if min(sides) == 1:
        return measured, SHOWN
    return measured, CONTRADICTED if min(sides) == -1 else NOT_SHOWN


def _side(values: Values, first: str, second: str) -> int:
    """1 where the first of two curves is surely higher, -1 where it is lower, 0 where it is open.

    Pairs that were compared ask whether it was found; of others the interval is bounded.
    """
    for one, other, sign in ((first, second, 1), (second, first, -1)):
        pair = values["comparisons"].get(f"{one} less {other}")
        if pair is not None:
            return sign * side(pair)
    apart = difference_of_effects(_above_st(values, first), _above_st(values, second))
    return int(apart.low > 0) - int(apart.high < 0)


def _above_st(values: Values, label: str) -> Interval:
    """One of the four curves less ST-CNN, by adding up the comparisons that lead there."""
    total = Interval(0.0, 0.0, 0.0)
    while label in _REFERENCE:
        step = effect(values, label) if label != MT else _mt_less_st(values)
        if step is None:
            raise InputError(f"{values['name']}: lacks the comparison of {label}; reproduce it")
        total = Interval(total.value + step.value, total.low + step.low, total.high + step.high)
        label = _REFERENCE[label]
    return total


def _mt_less_st(values: Values) -> Interval | None:
    pair = values["comparisons"].get(f"{MT} less {ST}")
    return None if pair is None else pooled(pair)


def _greatly(values: Values) -> tuple[str, str]:
    """As great as the margin, since the words say so."""
    pair = values["comparisons"].get(f"{MT_L2} less {MT}")
    if pair is None:
        return _nothing()
    measured = f"{signed(pooled(pair, -1))}, against {MARGIN_AUC:g}"
    return measured, better_pair(pair, MARGIN_AUC, -1)


def _more(values: Values, first: str, second: str, sign: int) -> tuple[str, str]:
    """Whether one effect is above (sign 1) or below (-1) another, whatever the two share."""
    one, two = effect(values, first), effect(values, second)
    if one is None or two is None:
        return _nothing()
    d = difference_of_effects(one, two)
    measured = f"{one.value:+.3f} less {two.value:+.3f}: {signed(d)} at the widest"
    above, below = d.low > 0, d.high < 0
    if not (above or below):
        return measured, NOT_SHOWN
    return measured, SHOWN if above == (sign == 1) else CONTRADICTED


def _any(values: Values, model: str, place: str, sign: int) -> tuple[str, str]:
    """Whether l2 of any strength helps (sign 1) or harms (-1); to deny it takes all of them."""
    against = {l2: f"{l2_label(model, l2, place)} less {model.upper()}-CNN" for l2 in L2}
    there = {l2: p for l2, n in against.items() if (p := values["comparisons"].get(n)) is not None}
    measured = ", ".join(f"{l2:.0e}: {pooled(p).value:+.3f}" for l2, p in there.items())
    sides = [sign * side(pair) for pair in there.values()]
    if 1 in sides:
        return measured, SHOWN
    if len(there) < len(L2):
        return measured, NOT_FINISHED
    return measured, CONTRADICTED if set(sides) == {-1} else NOT_SHOWN


def _dropout(values: Values) -> tuple[str, str]:
    """Without dropout less with it, turned round."""
    pair = values["comparisons"].get(f"{dropout_label('st', 'none')} less {ST}")
    if pair is None:
        return _nothing()
    return f"with less without: {signed(pooled(pair, -1))}", better_pair(pair, sign=-1)


def _nothing() -> tuple[str, str]:
    return "", NOT_FINISHED
