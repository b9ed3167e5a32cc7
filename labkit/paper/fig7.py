"""What the paper says of alpha beside what was measured, phrased by the numbers and by nobody.

A verdict has four values: "shown", "contradicted", "not shown" (the data leave it open), and
"not finished" (variants are missing). Where it rests on a comparison, `judging` says what counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import integrate, stats

from labkit.evaluation.statistics import MARGIN_AUC
from labkit.paper.claims import CONTRADICTED, NOT_FINISHED, NOT_SHOWN, SHOWN, inside, side
from labkit.paper.declared import ALPHAS, alpha_label

_SURE = 0.95
_INTERVAL = 2 * stats.norm.ppf(0.975)


def expected_maximum(k: int) -> float:
    """Mean of the largest of k independent standard normal numbers.

    The integral of k x phi(x) Phi(x)^(k-1) over x.

    >>> round(expected_maximum(2), 4), round(expected_maximum(7), 4)
    (0.5642, 1.3522)
    """
    value, _ = integrate.quad(
        lambda x: k * x * stats.norm.pdf(x) * stats.norm.cdf(x) ** (k - 1), -8, 8
    )
    return float(value)


def own_error(values: Mapping[str, Any]) -> float:
    """Standard error of one variant's AUC that it does not share with the others.

    What all variants get wrong together moves no ranking. A difference of two variants has the
    errors of their own, twice: each is its standard error over the square root of two. Taken as
    the median of the comparisons with alpha 0.

    Args:
        values: of fig7's JSON, with a comparison or more.
    """
    of = [c["auc_difference"] for c in values["comparisons"].values()]
    return float(np.median([(d["high"] - d["low"]) / _INTERVAL for d in of]) / np.sqrt(2))


def expected_luck(values: Mapping[str, Any]) -> float:
    """By how much the best of several equally good alphas looks better than it is, on average."""
    return expected_maximum(len(values["search"]["among"])) * own_error(values)


def alpha_verdicts(values: Mapping[str, Any]) -> pd.DataFrame:
    """The paper's claims about alpha (IV-D, IV-E) against a measured sweep.

    Args:
        values: of fig7's JSON, finished or not.

    Returns:
        Columns claim, measured, verdict.
    """
    aucs = {label: of["metrics"]["auc"]["value"] for label, of in values["variants"].items()}
    rows = [
        ("alpha = 0.3 is best", *_best(values, aucs)),
        ("0.2 and 0.4 give the same", *_same(values, aucs)),
        ("the AUC rises with alpha, then falls", *_shape(values, aucs)),
        ("alpha = 1 is the worst of all", *_worst(values, aucs)),
        ("alpha = 1 is much worse than ST-CNN", *_against_zero(values, 1.0, better=False)),
        ("alpha = 0.3 is far better than ST-CNN", *_against_zero(values, 0.3, better=True)),
    ]
    return pd.DataFrame(rows, columns=["claim", "measured", "verdict"])


def _against_zero(values: Mapping[str, Any], alpha: float, better: bool) -> tuple[str, str]:
    """A difference to alpha 0: found with Holm's correction, excluded by the margin, or open."""
    pair = values["comparisons"].get(f"{alpha_label(alpha)} less {alpha_label(0)}")
    if pair is None:
        return "", NOT_FINISHED
    d, margin = pair["auc_difference"], pair["equivalence"]["margin"]
    measured = (
        f"{d['value']:+.4f} ({d['low']:+.4f} to {d['high']:+.4f}), Holm's p = {pair['p_holm']:.2g}"
    )
    if side(pair):
        right = (side(pair) > 0) == better
        if right and inside(pair, margin):
            return f"{measured}; less than {margin:g} all the same", NOT_SHOWN
        return measured, SHOWN if right else CONTRADICTED
    if inside(pair, margin):
        return f"{measured}; no difference larger than {margin:g}", CONTRADICTED
    return measured, NOT_SHOWN


def _best(values: Mapping[str, Any], aucs: Mapping[str, float]) -> tuple[str, str]:
    if not _all(aucs):
        return "", NOT_FINISHED
    search = values["search"]
    share = search["best_in_share_of_bootstraps"]
    best = alpha_label(search["best"])
    measured = f"{best} is highest here, and in {share[best]:.0%} of bootstraps"
    if best != alpha_label(0.3):
        measured += f"; alpha 0.3 in {share[alpha_label(0.3)]:.0%}"
    sure = {name for name, s in share.items() if s >= _SURE}
    if not sure:
        return measured, NOT_SHOWN
    return measured, SHOWN if alpha_label(0.3) in sure else CONTRADICTED


def _same(values: Mapping[str, Any], aucs: Mapping[str, float]) -> tuple[str, str]:
    names = [alpha_label(a) for a in (0.2, 0.4)]
    if not set(names) <= set(aucs) or not values["comparisons"]:
        return "", NOT_FINISHED
    one, two = (aucs[n] for n in names)
    luck = float(stats.norm.ppf(0.975) * np.sqrt(2)) * own_error(values)
    measured = f"AUC {one:.4f} and {two:.4f}; equal ones stay within {luck:.4f} in 95 % of studies"
    if abs(one - two) + luck < MARGIN_AUC:
        return measured, SHOWN
    return measured, CONTRADICTED if abs(one - two) > luck else NOT_SHOWN


def _shape(values: Mapping[str, Any], aucs: Mapping[str, float]) -> tuple[str, str]:
    """Whether the six AUCs differ by more than luck would make them differ."""
    if not _all(aucs):
        return "", NOT_FINISHED
    six = [aucs[alpha_label(a)] for a in ALPHAS]
    reach, error = max(six) - min(six), own_error(values)
    luck = float(stats.studentized_range.ppf(_SURE, len(six), np.inf)) * error
    measured = f"they span {reach:.4f}; six equal ones stay within {luck:.4f} in 95 % of studies"
    if reach <= luck:
        return measured, NOT_SHOWN
    top = int(np.argmax(six))
    rises_then_falls = 0 < top < len(six) - 1 and bool(
        (np.diff(six[: top + 1]) >= 0).all() and (np.diff(six[top:]) <= 0).all()
    )
    return measured, SHOWN if rises_then_falls else NOT_SHOWN


def _worst(values: Mapping[str, Any], aucs: Mapping[str, float]) -> tuple[str, str]:
    if not _all(aucs) or alpha_label(0) not in aucs:
        return "", NOT_FINISHED
    upwards = sorted(aucs, key=lambda name: aucs[name])
    place = upwards.index(alpha_label(1)) + 1
    measured = f"lowest: {upwards[0]}; alpha 1 is number {place} of {len(upwards)} from below"
    # One of seven equal ones is always the lowest: it has to be found below alpha 0 as well.
    pair = values["comparisons"][f"{alpha_label(1)} less {alpha_label(0)}"]
    return measured, SHOWN if place == 1 and side(pair) < 0 else NOT_SHOWN


def _all(aucs: Mapping[str, float]) -> bool:
    return {alpha_label(a) for a in ALPHAS} <= set(aucs)
