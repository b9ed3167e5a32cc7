"""Verdicts follow the numbers, in whichever direction these point."""

import copy

import numpy as np
import pytest

from labkit.paper import claims, fig7
from labkit.paper.declared import ALPHAS, alpha_label

CLAIMS = {
    "best": 0,
    "same": 1,
    "shape": 2,
    "worst": 3,
    "one against zero": 4,
    "0.3 against zero": 5,
}


def sweep(aucs, half_width=0.004, found=(), share=None):
    """A sweep with these AUCs at 0 and ALPHAS, and intervals of the differences to 0."""
    names = [alpha_label(a) for a in (0, *ALPHAS)]
    by_name = dict(zip(names, aucs, strict=True))
    comparisons = {}
    for name in names[1:]:
        d = by_name[name] - by_name["alpha 0"]
        low, high = d - half_width, d + half_width
        comparisons[f"{name} less alpha 0"] = {
            "auc_difference": {"value": d, "low": low, "high": high},
            "within_folds_difference": {"value": d, "low": low, "high": high},
            "p_holm": 0.001 if name in found else 0.9,
            "found": name in found,
            "equivalence": {"margin": 0.02, "shown": max(-low, high) < 0.02},
        }
    best = max(ALPHAS, key=lambda a: by_name[alpha_label(a)])
    even = {alpha_label(a): 1 / len(ALPHAS) for a in ALPHAS}
    return {
        "variants": {n: {"metrics": {"auc": {"value": v}}} for n, v in by_name.items()},
        "comparisons": comparisons,
        "search": {
            "best": best,
            "among": list(ALPHAS),
            "best_in_share_of_bootstraps": even | (share or {}),
        },
    }


def verdict(values, what):
    return fig7.alpha_verdicts(values)["verdict"].iloc[CLAIMS[what]]


# alphas 0, 0.2, 0.3, 0.4, 0.6, 0.8, 1: as the paper draws them, and all alike.
PRINTED = [0.90, 0.93, 0.95, 0.93, 0.92, 0.90, 0.85]
ALIKE = [0.900, 0.901, 0.899, 0.900, 0.902, 0.900, 0.901]


def test_a_sweep_as_the_paper_describes_it_confirms_the_paper():
    told = sweep(PRINTED, found=("alpha 0.3", "alpha 1"), share={"alpha 0.3": 0.99})
    assert fig7.alpha_verdicts(told)["verdict"].tolist() == [claims.SHOWN] * 6


def test_six_alphas_that_are_alike_show_no_best_and_contradict_what_is_far():
    values = sweep(ALIKE)
    for what in ("best", "shape", "worst"):
        assert verdict(values, what) == claims.NOT_SHOWN
    assert verdict(values, "same") == claims.SHOWN
    for what in ("one against zero", "0.3 against zero"):
        assert verdict(values, what) == claims.CONTRADICTED


def test_a_wide_interval_leaves_everything_open():
    values = sweep(PRINTED, half_width=0.2)
    for what in ("same", "shape", "worst", "one against zero", "0.3 against zero"):
        assert verdict(values, what) == claims.NOT_SHOWN


def test_the_lowest_of_seven_is_not_yet_worse():
    values = sweep([*ALIKE[:-1], 0.895])
    assert verdict(values, "worst") == claims.NOT_SHOWN
    assert "alpha 1 is number 1 of 7" in fig7.alpha_verdicts(values)["measured"].iloc[3]


def test_a_clear_opposite_contradicts():
    values = sweep([0.90, 0.90, 0.90, 0.90, 0.90, 0.90, 0.95], found=("alpha 1",))
    assert verdict(values, "one against zero") == claims.CONTRADICTED
    other = sweep(ALIKE, share={"alpha 0.8": 0.97})
    assert verdict(other, "best") == claims.CONTRADICTED
    apart = sweep([0.90, 0.86, 0.90, 0.94, 0.90, 0.90, 0.90])
    assert verdict(apart, "same") == claims.CONTRADICTED


def test_a_difference_that_is_sure_and_small_is_not_far():
    values = sweep([0.90] * 6 + [0.89], half_width=0.003, found=("alpha 1",))
    assert verdict(values, "one against zero") == claims.NOT_SHOWN


def test_what_is_not_finished_has_no_verdict():
    values = copy.deepcopy(sweep(ALIKE))
    del values["variants"]["alpha 1"], values["comparisons"]["alpha 1 less alpha 0"]
    for what in ("best", "shape", "worst", "one against zero"):
        assert verdict(values, what) == claims.NOT_FINISHED
    assert verdict(values, "0.3 against zero") != claims.NOT_FINISHED
    nothing = {"variants": {}, "comparisons": {}, "search": None}
    assert set(fig7.alpha_verdicts(nothing)["verdict"]) == {claims.NOT_FINISHED}


def test_the_expected_maximum_is_that_of_simulated_numbers():
    drawn = np.random.default_rng(0).normal(size=(100_000, 6))
    assert fig7.expected_maximum(6) == pytest.approx(drawn.max(axis=1).mean(), abs=0.01)
    assert fig7.expected_maximum(1) == pytest.approx(0, abs=1e-9)


def test_own_error_is_what_one_variant_contributes_to_a_difference():
    values = sweep(ALIKE, half_width=1.959964 * np.sqrt(2) * 0.003)
    assert fig7.own_error(values) == pytest.approx(0.003, rel=1e-4)
    assert fig7.expected_luck(values) == pytest.approx(0.003 * fig7.expected_maximum(6), rel=1e-4)
