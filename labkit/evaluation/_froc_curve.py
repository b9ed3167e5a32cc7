"""The points of a FROC curve, for scans that count once or as often as a bootstrap drew them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labkit.evaluation._marks import Judged


def last_of_tie(probability: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows after which the (descending) probability changes: one for each threshold."""
    return np.flatnonzero(np.append(np.diff(probability) != 0, True)[: len(probability)])


def steps(
    judged: Judged, weights: NDArray[np.float64], last: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False positives and nodules found at each threshold, from none on, as weighted counts."""
    end = int(last[-1]) + 1 if len(last) else 0
    weight = weights[judged.scan[:end]]
    found = np.cumsum(weight * judged.is_nodule[:end])[last]
    false = np.cumsum(weight)[last] - found
    return np.append(0.0, false), np.append(0.0, found)


def rates(
    judged: Judged,
    weights: NDArray[np.float64],
    false: NDArray[np.float64],
    found: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False positives a scan and sensitivity from weighted counts.

    Shares are taken and multiplied back, as the script does by way of scikit-learn's `roc_curve`:
    a sensitivity can jump at exactly 1/8 false positives a scan, and which side of the jump is
    read there hangs on the last bit.
    """
    all_false, all_found = weights @ judged.false, weights @ judged.found
    scans, nodules = judged.counts.scans, weights @ judged.nodules
    x = false / all_false * all_false / scans if all_false else np.zeros_like(false)
    y = found / all_found * all_found / nodules if all_found else np.zeros_like(found)
    return x, y


def corners(false: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Points that the curve needs: its start, and those that scikit-learn's `roc_curve` keeps."""
    bent = (np.diff(false[1:], 2) != 0) | (np.diff(found[1:], 2) != 0)
    return np.concatenate([[True, True], bent, [True]])[: len(false)]


def resampled(
    judged: Judged, drawn: NDArray[np.float64], rates_wanted: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(S, G) sensitivities at G rates (ascending) of S samples of scans.

    Args:
        judged: the marks of all scans.
        drawn: (S, scans) how often each sample holds each scan.
        rates_wanted: (G,) false positives a scan.
    """
    last = last_of_tie(judged.probability)
    # Twice the false positives that the last rate needs are enough for nearly every sample.
    false = np.cumsum(~judged.is_nodule)[last]
    highest = rates_wanted[-1]
    enough = int(np.searchsorted(false, 2 * highest * judged.counts.scans)) + 1
    heights = np.empty((len(drawn), len(rates_wanted)))
    for i, weights in enumerate(drawn):
        x, y = rates(judged, weights, *steps(judged, weights, last[:enough]))
        if x[-1] <= highest and enough < len(last):
            x, y = rates(judged, weights, *steps(judged, weights, last))
        heights[i] = np.interp(rates_wanted, x, y)
    return heights
