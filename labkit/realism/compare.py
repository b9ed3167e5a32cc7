"""Two sets of values of the same nodules: quartiles, distances, and how sure they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

QUANTILES = {"p10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "p90": 0.9}
LEAST = 5
_DIGITS = 5


def compare(
    real: ArrayLike, simulated: ArrayLike, patients: ArrayLike, resamples: int = 500, seed: int = 0
) -> dict[str, Any] | None:
    """How a measure of the same nodules differs between real and simulated images.

    Distances are those of the two distributions, whatever nodule a value belongs to: the
    Kolmogorov-Smirnov statistic and the first Wasserstein distance, in the measure's unit. Both
    are above 0 for any two samples; `chance` is what 95 % of random exchanges of real and
    simulated, patient by patient, stay below.

    Args:
        real: (n,) values; pairs with a NaN on either side are left out.
        simulated: (n,) values of the same nodules.
        patients: (n,) whose nodules they are: patients are what is drawn again.
        resamples: of the bootstrap, and of the exchanges.
        seed: of both.

    Returns:
        `nodules`, `patients`, quantiles of `real` and `simulated`, `difference` (median of
        simulated less real, nodule by nodule), `ks` and `wasserstein` with 95 % intervals and
        `chance`, and `spearman`, the rank correlation between the two; None with fewer than five
        pairs.
    """
    a, b = np.asarray(real, dtype=float), np.asarray(simulated, dtype=float)
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if len(a) < LEAST:
        return None
    codes = np.unique(np.asarray(patients)[both], return_inverse=True)[1]
    count = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=resamples)[:, codes]
    weights = weights[weights.sum(axis=1) > 0].astype(float)
    signs = rng.choice((-1.0, 1.0), size=(resamples, count))[:, codes]
    ones = np.ones((1, len(a)))
    drawn = _distances(a, b, weights, weights)
    swapped = _distances(a, b, signs, signs)
    found = _distances(a, b, ones, ones)
    result: dict[str, Any] = {
        "nodules": len(a),
        "patients": count,
        "real": quantiles(a),
        "simulated": quantiles(b),
        "difference": interval(float(np.median(b - a)), _medians(b - a, weights)),
    }
    for k, name in enumerate(("ks", "wasserstein")):
        chance = float(np.quantile(swapped[k], 0.95))
        result[name] = {**interval(float(found[k][0]), drawn[k]), "chance": rounded(chance)}
    varies = np.ptp(a) > 0 and np.ptp(b) > 0
    result["spearman"] = rounded(float(stats.spearmanr(a, b)[0])) if varies else None
    return result


def mean_share(
    values: ArrayLike, patients: ArrayLike, resamples: int = 2000, seed: int = 0
) -> dict[str, float]:
    """Mean of values with its 95 % interval over patients."""
    x = np.asarray(values, dtype=float)
    codes = np.unique(np.asarray(patients), return_inverse=True)[1]
    count = int(codes.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(
        count, np.full(count, 1 / count), size=resamples
    )
    sums, sizes = np.bincount(codes, x, count), np.bincount(codes, minlength=count)
    with np.errstate(invalid="ignore"):
        samples = (drawn @ sums) / (drawn @ sizes)
    return interval(float(x.mean()), samples)


def quantiles(values: ArrayLike) -> dict[str, float]:
    """The quantiles that are reported, by name.

    >>> quantiles([0.0, 1.0, 2.0, 3.0, 4.0])["median"]
    2.0
    """
    found = np.quantile(np.asarray(values, dtype=float), list(QUANTILES.values()))
    return {name: rounded(float(v)) for name, v in zip(QUANTILES, found, strict=True)}


def interval(value: float, samples: NDArray) -> dict[str, float]:
    """A value with the 2.5 and 97.5 percentiles of its resamples."""
    low, high = np.nanquantile(samples, [0.025, 0.975])
    return {"value": rounded(value), "low": rounded(float(low)), "high": rounded(float(high))}


def rounded(value: float) -> float:
    """Five significant digits: more would be noise, and would change with every machine.

    >>> rounded(-856.123456)
    -856.12
    """
    return float(f"{value:.{_DIGITS}g}")


def _distances(
    a: NDArray, b: NDArray, weights_a: NDArray, weights_b: NDArray
) -> tuple[NDArray, NDArray]:
    """Kolmogorov-Smirnov statistic and Wasserstein distance for every row of weights.

    Negative weights exchange a pair's two values.
    """
    pooled = np.concatenate([a, b])
    order = np.argsort(pooled, kind="stable")
    steps = np.concatenate([weights_a, -weights_b], axis=1)[:, order]
    total = np.abs(weights_a).sum(axis=1, keepdims=True)
    gaps = np.cumsum(steps, axis=1)[:, :-1] / total
    width = np.diff(pooled[order])
    # Between equal values the distribution functions are half way through a step.
    return np.abs(gaps[:, width > 0]).max(axis=1, initial=0), np.abs(gaps) @ width


def _medians(values: NDArray, weights: NDArray) -> NDArray:
    """Median of the values under every row of weights."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[:, order], axis=1)
    at = (share < share[:, -1:] / 2).sum(axis=1)
    return values[order][at]
