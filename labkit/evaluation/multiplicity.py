"""Many comparisons at once: Holm's correction of a family of p-values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from labkit.errors import InputError

METHOD = "Holm"


def holm(
    p_values: Mapping[str, float], alpha: float = 0.05, *, size: int | None = None
) -> pd.DataFrame:
    """Holm's step-down correction: the chance of any false finding in the family is at most alpha.

    It holds however the tests depend on each other, as they do when all methods judge the same
    nodules, and it is never weaker than Bonferroni's. The family is all comparisons that were made,
    not those that are shown. Reference: Holm, Scand J Statist 6:65 (1979).

    A family that is declared before it is measured has its size from the start. What is not yet
    measured counts as a p-value of 1, so that the rest can only lower what is given here.

    Args:
        p_values: comparison -> p-value.
        alpha: chance of any false finding.
        size: how many comparisons the family has, measured or not; None takes those given.

    Returns:
        One row a comparison, in the order given: `comparison`, `p_value`, `p_adjusted`, `found`
        (`p_adjusted` is at most alpha), `correction` ("Holm over 3").

    Raises:
        InputError: no p-values, one outside 0 to 1, or more of them than the family has.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})["p_adjusted"].tolist()
    [0.03, 0.06, 0.06]
    >>> holm({"a": 0.01}, size=3)["p_adjusted"].tolist()
    [0.03]
    """
    p = np.array(list(p_values.values()), dtype=float)
    if len(p) == 0:
        raise InputError("there are no p-values to correct")
    outside = [k for k, v in p_values.items() if not 0 <= v <= 1]  # NaN is outside, too
    if outside:
        raise InputError(f"{outside[0]}: {p_values[outside[0]]} is no p-value")
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha}; give a chance between 0 and 1")
    family = len(p) if size is None else size
    if family < len(p):
        raise InputError(f"{len(p)} p-values in a family of {family}; give the size of all of it")
    order = np.argsort(p, kind="stable")
    steps = (family - np.arange(len(p))) * p[order]
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return pd.DataFrame(
        {
            "comparison": list(p_values),
            "p_value": p,
            "p_adjusted": adjusted,
            "found": adjusted <= alpha,
            "correction": f"{METHOD} over {family}",
        }
    )
