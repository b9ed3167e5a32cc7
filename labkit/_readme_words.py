"""Measured values as the README writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def interval(of: Mapping[str, float], digits: int = 3) -> str:
    """A value with its interval.

    >>> interval({"value": 0.9, "low": 0.85, "high": 0.94}, 2)
    '0.90 (0.85 to 0.94)'
    """
    value, low, high = (f"{of[k]:.{digits}f}" for k in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def difference(of: Mapping[str, float], digits: int = 3) -> str:
    """A difference with its interval, all with their signs.

    >>> difference({"value": 0.01, "low": -0.002, "high": 0.022})
    '+0.010 (-0.002 to +0.022)'
    """
    value, low, high = (f"{of[k]:+.{digits}f}" for k in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def judged(pair: Mapping[str, Any], family: Mapping[str, Any], digits: int = 3) -> str:
    """A difference of AUCs, pooled and within folds, and what DeLong's test says of it."""
    pooled = difference(pair["auc_difference"], digits)
    within = difference(pair["within_folds_difference"], digits)
    return (
        f"{pooled}, within folds {within}; DeLong's test by patient, Holm-corrected over "
        f"{family['size']}: p = {pair['p_holm']:.2g}{equivalent(pair)}"
    )


def equivalent(pair: Mapping[str, Any]) -> str:
    """In words, where a difference is shown to be smaller than the margin."""
    of = pair["equivalence"]
    return f"; shown to be smaller than {of['margin']:g} either way" if of["shown"] else ""


def how(values: Mapping[str, Any], by: str) -> str:
    """How and where the rows of a table were made."""
    plan, config = values["plan"]["baselines"], values["config"]
    hardware = values["hardware"]
    machine = hardware["gpu"] or f"{hardware['processor']} without a GPU"
    return (
        f"{plan['repeats']} x {plan['folds']} folds by {by}, up to {config['epochs']} epochs, "
        f"{values['date'][:10]}, {machine}"
    )
