"""How large a difference can still be: equivalence with a margin stated beforehand.

"No significant difference" is no finding: a small study never finds one. What can be found is that
no difference is larger than a margin. Two one-sided tests at 5 % find it when the 90 % interval
of the difference lies within the margin on both sides.

Reference: Schuirmann, J Pharmacokinet Biopharm 15:657 (1987).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from labkit.errors import InputError
from labkit.evaluation import intervals
from labkit.evaluation.intervals import Interval
from labkit.evaluation.summary import paired_scores

MARGIN_AUC = 0.02
"""Why 0.02: studies of readers commonly allow 0.05, far more than the networks here differ by.
On a few hundred nodules a paired 90 % interval reaches about 0.003 (two networks alike) to 0.02
(a network and the diameter) to each side, so nobody could show much less for unlike methods. It is
wider than the 0.0155 by which the paper puts MT-CNN above its best rival: equivalence within 0.02
does not by itself contradict the paper; compare `smallest_margin` with 0.0155 for that."""

TOST_LEVEL = 0.90


@dataclass(frozen=True)
class Equivalence:
    """Whether a difference is shown to be no larger than a margin.

    Args:
        difference: with the interval that was tested.
        margin: stated beforehand, in units of the difference.
        shown: the interval lies within the margin on both sides.
        smallest_margin: any margin larger than this would have been shown. It describes the
            result; a margin chosen by it tests nothing.
    """

    difference: Interval
    margin: float
    shown: bool
    smallest_margin: float

    @property
    def alpha(self) -> float:
        """Level of each of the two one-sided tests."""
        return (1 - self.difference.level) / 2

    def __str__(self) -> str:
        found = (
            f"no difference larger than {self.margin:g}"
            if self.shown
            else f"not shown that the difference is within {self.margin:g}"
        )
        d = self.difference
        return (
            f"{found}: {d.value:+.3f} ({100 * d.level:.0f} % interval {d.low:+.3f} to "
            f"{d.high:+.3f}); shown for margins above {self.smallest_margin:.3f}"
        )


def equivalence(difference: Interval, margin: float = MARGIN_AUC) -> Equivalence:
    """Test a paired difference against a margin.

    Args:
        difference: with its 90 % interval for two one-sided tests at 5 %; a 95 % interval tests
            at 2.5 %, which is stricter.
        margin: the largest difference that does not matter, stated before looking.

    Raises:
        InputError: a margin that is not positive, or an interval without bounds.

    >>> print(equivalence(Interval(0.004, -0.006, 0.014, level=0.9)))
    no difference larger than 0.02: +0.004 (90 % interval -0.006 to +0.014); shown for margins
    above 0.014
    """
    if not (np.isfinite(margin) and margin > 0):
        raise InputError(f"the margin is {margin}; give a positive difference that does not matter")
    if not np.all(np.isfinite([difference.low, difference.high])):
        raise InputError("the difference has no finite interval to test")
    smallest = max(abs(difference.low), abs(difference.high))
    return Equivalence(difference, margin, bool(smallest < margin), smallest)


def auc_equivalence(
    first: pd.DataFrame,
    second: pd.DataFrame,
    view: str = "fused",
    second_view: str | None = None,
    *,
    margin: float = MARGIN_AUC,
    resamples: int = 2000,
    seed: int = 0,
) -> Equivalence:
    """Test two runs for AUCs within a margin, by paired bootstrap over patients.

    Args:
        first: predictions of a run, as `crossval.run` returns them.
        second: predictions of another run on the same nodules.
        view: of the first run.
        second_view: of the second run; None takes the same.
        margin: stated beforehand.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        InputError: the runs judge different nodules, or the margin is not positive.
    """
    labels, one, other, patients = paired_scores(first, second, view, second_view)
    difference = intervals.bootstrap_auc_difference(
        labels, one, other, groups=patients, resamples=resamples, level=TOST_LEVEL, seed=seed
    )
    return equivalence(difference, margin)
