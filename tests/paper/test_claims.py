"""Verdicts follow the numbers, in whichever direction these point, and only where they may."""

import numpy as np
import pytest

from labkit.evaluation.statistics import Interval
from labkit.io import write_json
from labkit.paper import claims, fig7, values
from labkit.paper.claims import (
    CANNOT,
    CLAIMS,
    MT,
    MT_L2,
    NOT_CONVERGED,
    NOT_FINISHED,
    NOT_HERE,
    NOT_SEEN,
    SEEN,
    ST,
    ST_L2,
)
from labkit.paper.declared import (
    ALPHAS,
    DEPTHS,
    EXPERIMENTS,
    MARGIN,
    OF_PAPERS,
    alpha_label,
    depth_label,
)

UP, DOWN, OPEN = (0.03, 0.02, 0.05), (-0.03, -0.05, -0.02), (0.0, -0.03, 0.03)
SLIGHTLY = (0.003, 0.001, 0.005)
LEARNT = {"networks": 90, "out_of_epochs": 4, "at_chance": 0}
CUT_OFF = LEARNT | {"out_of_epochs": 5}


def compared(within, found=True, pooled=None):
    named = ("value", "low", "high")
    inside = dict(zip(named, within, strict=True))
    return {
        "auc_difference": dict(zip(named, pooled or within, strict=True)),
        "within_folds_difference": inside, "found": found, "p_holm": 0.001 if found else 0.9,
        "equivalence": {"margin": MARGIN, "shown": max(-within[1], within[2]) < MARGIN},
    }  # fmt: skip


def pair(value, half_width):
    low, high = value - half_width, value + half_width
    return compared((value, low, high), low > 0 or high < 0)


def sweep(name, aucs, half_width, trained=LEARNT):
    """A finished sweep with these AUCs by label; a difference beyond its width is found."""
    labels = EXPERIMENTS[name].comparisons
    return {
        "name": name, "task": "luna16",
        "variants": {label: {"trained": trained} for label in aucs},
        "comparisons": {f"{a} less {b}": pair(aucs[a] - aucs[b], half_width) for a, b in labels},
    }  # fmt: skip


def without(sweep, *labels):
    """The sweep before these variants were finished."""
    pairs = sweep["comparisons"].items()
    left = {n: p for n, p in pairs if not set(n.split(" less ")) & set(labels)}
    return {**sweep, "comparisons": left}


def alphas(aucs, half_width=0.004):
    return sweep("fig7", dict(zip(map(alpha_label, (0, *ALPHAS)), aucs, strict=True)), half_width)


def depths(mt, st, half_width=0.004, four_to_three=(1.0, 0.7), device="NVIDIA V100, fp32"):
    """A sweep with these AUCs by depth, and four layers this many times as dear as three."""
    aucs = {"mt": mt, "st": st}
    by_label = {depth_label(m, d): aucs[m][d - 1] for m in aucs for d in DEPTHS}
    dear = dict(zip(("seconds_a_step", "memory_mb"), four_to_three, strict=True))
    of = {label: dear if "4" in label else dict.fromkeys(dear, 1.0) for label in by_label}
    return {**sweep("fig6", by_label, half_width), "costs": {"device": device, "of": of}}


def regularised(aucs, half_width=0.004):
    labels = [v.label for v in EXPERIMENTS["fig5"].variants]
    return sweep("fig5", {label: aucs.get(label, 0.90) for label in labels}, half_width)


NAMES = {
    "fig7": ("best", "same", "shape", "worst", "one against zero", "0.3 against zero"),
    "fig6": ("rising", "much better", "same", "falling", "no worse", "growing", "best", "time",
             "memory"),
    "fig5": ("highest", "lowest", "greatly", "little st", "more"),
}  # fmt: skip


def judged(sweep):
    verdicts = claims.figure_verdicts(sweep)["verdict"]
    return dict(zip(NAMES[sweep["name"]], verdicts, strict=True))


def all_of(figure, verdict, **others):
    return dict.fromkeys(NAMES[figure], verdict) | {
        k.replace("_", " "): v for k, v in others.items()
    }


RISES_AND_FALLS = [0.90, 0.93, 0.95, 0.93, 0.92, 0.90, 0.85]
LEVEL = [0.900, 0.901, 0.899, 0.900, 0.902, 0.900, 0.901]
# As IV-D tells it, MT rises and levels off, and ST falls beyond three.
PRINTED = ((0.80, 0.84, 0.95, 0.953, 0.953), (0.80, 0.84, 0.86, 0.82, 0.80))
FEWER = ((0.95, 0.93, 0.90, 0.85, 0.80), (0.80, 0.85, 0.90, 0.93, 0.95))
ALIKE = ((0.900,) * 5, (0.901,) * 5)
TOLD = {ST: 0.90, MT: 0.95, MT_L2: 0.85, ST_L2: 0.902}
CASES = {
    "alpha as printed": (alphas(RISES_AND_FALLS, 0.002), all_of("fig7", SEEN)),
    "alphas alike": (
        alphas(LEVEL, 0.002),
        all_of("fig7", CANNOT, same=SEEN, one_against_zero=NOT_SEEN)
        | {"0.3 against zero": NOT_SEEN},
    ),
    "alphas of wide intervals": (alphas(RISES_AND_FALLS, 0.2), all_of("fig7", CANNOT)),
    "alpha 1 is better": (
        alphas([*[0.90] * 6, 0.95]),
        {"one against zero": NOT_SEEN, "worst": NOT_SEEN, "best": NOT_SEEN, "shape": NOT_SEEN},
    ),
    "0.2 and 0.4 lie apart": (
        alphas([0.90, 0.86, 0.90, 0.94, 0.90, 0.90, 0.90]), {"same": NOT_SEEN, "best": NOT_SEEN},
    ),
    "a difference that is sure and small is not much": (
        alphas([*[0.90] * 6, 0.893], 0.002), {"one against zero": NOT_SEEN},
    ),
    "no alpha": (without(alphas(LEVEL), "alpha 0"), all_of("fig7", NOT_FINISHED)),
    "depth as printed": (depths(*PRINTED, four_to_three=(1.5, 1.5)), all_of("fig6", SEEN)),
    "depths alike": (
        depths(*ALIKE),
        all_of("fig6", SEEN, rising=CANNOT, falling=CANNOT, growing=CANNOT, much_better=NOT_SEEN,
               time=NOT_SEEN, memory=NOT_SEEN),
    ),
    "depths of wide intervals": (
        depths(*PRINTED, half_width=0.3), all_of("fig6", CANNOT, time=NOT_SEEN, memory=NOT_SEEN),
    ),
    "fewer layers are better": (depths(*FEWER), all_of("fig6", NOT_SEEN)),
    "three layers better than one": (
        depths((0.80, 0.88, 0.90, 0.90, 0.90), ALIKE[1], 0.03), {"much better": CANNOT},
    ),
    "time on a processor says nothing of a GPU": (
        depths(*ALIKE, device="CPU, 2 cores, bf16"), {"time": NOT_HERE, "memory": NOT_SEEN},
    ),
    "without one layer": (
        without(depths(*ALIKE), depth_label("mt", 1)),
        {"growing": NOT_FINISHED, "same": SEEN, "no worse": NOT_FINISHED, "memory": NOT_SEEN},
    ),
    "regularisation as printed": (regularised(TOLD), all_of("fig5", SEEN)),
    "no effect": (regularised({}), all_of("fig5", CANNOT, little_st=SEEN, greatly=NOT_SEEN)),
    "effects of wide intervals": (regularised(TOLD, 0.3), all_of("fig5", CANNOT)),
    "effects upside down": (
        regularised({ST: 0.90, MT: 0.85, MT_L2: 0.95, ST_L2: 0.87}), all_of("fig5", NOT_SEEN),
    ),
    "one effect found and the other not is no difference of effects": (
        regularised({MT_L2: 0.895, ST_L2: 0.897}), {"more": CANNOT},
    ),
    "without l2 of MT-CNN": (
        without(regularised(TOLD), MT_L2), all_of("fig5", NOT_FINISHED, little_st=SEEN),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("values", "expected"), CASES.values(), ids=CASES)
def test_verdicts_follow_the_numbers(values, expected):
    table, told = claims.figure_verdicts(values), judged(values)
    assert {claim: told[claim] for claim in expected} == expected
    assert ((table["measured"] != "") | (table["verdict"] == NOT_FINISHED)).all()


@pytest.mark.parametrize(
    "trained", [CUT_OFF, {"epochs_a_network": 12.0}, {"epochs_a_network": 11.0}, {}]
)
def test_networks_that_ran_out_of_epochs_give_no_verdict(trained):
    """Four of 90 may; of older results the median tells, and where nobody counted, nobody knows."""
    made = depths(*PRINTED) | {"config": {"epochs": 12}, "title": "A sweep", "where": "Fig. 9"}
    assert values.title(made) == "A sweep (Fig. 9)"
    made["variants"] = {label: {"trained": trained} for label in made["variants"]}
    told = judged(made)
    assert told.pop("memory") == told.pop("time") == NOT_SEEN  # the same however long one trains
    assert set(told.values()) == {NOT_CONVERGED}
    assert values.title(made) == "A sweep (Fig. 9), not converged"


@pytest.mark.parametrize("made", [alphas(LEVEL), regularised(TOLD), depths(*ALIKE)])
def test_a_claim_on_candidates_is_not_judged_on_nodules(made):
    on_nodules, on_candidates = (
        claims.figure_verdicts({**made, "task": task}) for task in ("malignancy", "luna16")
    )
    assert set(on_nodules["verdict"][:5]) == {NOT_HERE}
    assert on_nodules["measured"].tolist() == on_candidates["measured"].tolist()


def test_within_folds_decides_and_the_pooled_difference_stands_beside():
    told = depths(*ALIKE)
    name = f"{depth_label('st', 4)} less {depth_label('st', 3)}"
    told["comparisons"][name] = compared(OPEN, found=False, pooled=DOWN)
    table = claims.figure_verdicts(told).iloc[NAMES["fig6"].index("falling")]
    assert table["verdict"] == CANNOT
    assert table["pooled"].startswith("+0.030") and "+0.000" in table["measured"]
    told["comparisons"][name] = compared(DOWN, pooled=OPEN)
    assert judged(told)["falling"] == SEEN
    told["comparisons"][name] = compared(DOWN, found=False)
    assert judged(told)["falling"] == CANNOT  # lost to the correction


def test_two_that_were_not_compared_are_so_along_what_was_with_the_widths_added():
    made = regularised(TOLD, 0.004)
    d = claims.difference(made, MT_L2, ST_L2)
    assert d.value == pytest.approx(0.85 - 0.902) and d.high - d.low == pytest.approx(3 * 0.008)
    direct, turned = claims.difference(made, MT, ST), claims.difference(made, ST, MT)
    assert turned.low == pytest.approx(-direct.high) and direct.value == pytest.approx(0.05)
    with pytest.raises(KeyError, match="MT-CNN less nothing"):
        claims.difference(made, MT, "nothing")


@pytest.mark.parametrize("shared", [-0.9, 0.0, 0.9])
def test_the_interval_of_a_difference_of_effects_holds_whatever_they_share(shared):
    """Effects of zero and zero, drawn together: at least 95 of 100 intervals hold zero."""
    rng = np.random.default_rng(0)
    errors = rng.multivariate_normal([0, 0], [[1, shared], [shared, 1]], size=4000)
    held = 0
    for one, two in errors:
        first, second = (Interval(e, e - 1.96, e + 1.96) for e in (one, two))
        apart = claims.difference_of_effects(first, second)
        held += apart.low <= 0 <= apart.high
    assert held / len(errors) > 0.94


def test_own_error_is_what_one_variant_contributes_to_a_difference():
    told = alphas(LEVEL, half_width=1.959964 * np.sqrt(2) * 0.003)
    told["search"] = {"among": list(ALPHAS)}
    assert fig7.own_error(told) == pytest.approx(0.003, rel=1e-4)
    assert fig7.expected_luck(told) == pytest.approx(0.003 * fig7.expected_maximum(6), rel=1e-4)


@pytest.mark.parametrize(
    ("difference", "at_least", "found", "verdict"),
    [
        (UP, 0.02, True, SEEN),
        (UP, 0.02, False, CANNOT),  # lost to the correction
        (UP, 0.04, True, CANNOT),  # surely better, perhaps not by as much
        (SLIGHTLY, 0.02, True, NOT_SEEN),  # better, but surely not much
        (SLIGHTLY, 0.02, False, NOT_SEEN),  # no correction makes it larger
        (OPEN, 0.0, False, CANNOT),
        (DOWN, 0.0, True, NOT_SEEN),
        (DOWN, 0.0, False, CANNOT),  # the opposite has to be found as well
        (DOWN, 0.0, None, NOT_SEEN),  # one comparison alone
        (SLIGHTLY, -0.01, False, SEEN),  # no worse
        (UP, -0.01, True, SEEN),
        (DOWN, -0.01, True, NOT_SEEN),
        ((-0.003, -0.005, -0.001), -0.01, True, NOT_SEEN),  # a little, and surely
        (OPEN, -0.01, False, CANNOT),
    ],
)
def test_a_verdict_follows_from_the_interval(difference, at_least, found, verdict):
    assert claims.better(Interval(*difference), at_least, found) == verdict


@pytest.mark.parametrize(("d", "sign"), [(UP, 1), (DOWN, -1), (OPEN, 0)])
def test_a_difference_that_is_found_has_a_side(d, sign):
    assert claims.side(compared(d)) == sign and claims.side(compared(d, found=False)) == 0


def rows(auc, low, high):
    interval = {"value": auc, "low": low, "high": high}
    return {"rows": {MT: {"metrics": {"auc": interval, "auc_within_folds": interval}}},
            "trained": {MT: LEARNT}, "comparisons": {}}  # fmt: skip


@pytest.mark.parametrize(
    ("interval", "verdict"), [((0.94, 0.93, 0.96), SEEN), ((0.90, 0.88, 0.92), NOT_SEEN)]
)
def test_a_published_auc_is_seen_where_our_interval_holds_it(interval, verdict):
    claim = next(c for c in CLAIMS if "0.9559" in c.text)
    assert claim.judge(rows(*interval), claims.NODULES)[0] == verdict
    assert claim.judge(rows(*interval), claims.LUNA)[0] == NOT_HERE
    assert claim.judge(None, claims.NODULES)[0] == NOT_HERE


@pytest.mark.parametrize(("nearest", "verdict"), [(UP, SEEN), (OPEN, CANNOT), (DOWN, NOT_SEEN)])
def test_the_table_is_read_from_the_committed_results(tmp_path, monkeypatch, nearest, verdict):
    """Fusion is better than any view only if it is than every view."""
    monkeypatch.setenv("LABKIT_RESULTS", str(tmp_path))
    by_view = {str(v): compared(UP) for v in range(8)} | {"8": compared(nearest)}
    belief = {
        "trained": {MT: {"convergence": LEARNT}}, "fusion": {MT: by_view}, "comparisons": {},
        "specificity": {f"{MT} less {ST}": dict(zip(("value", "low", "high"), DOWN, strict=True))},
    }  # fmt: skip
    write_json(tmp_path / "real_belief.json", belief)
    table = claims.verdicts()
    assert len(table) == 3 * len(CLAIMS) and set(table["verdict"]) <= set(claims.VERDICTS)
    of = table[table["images"] == "real"].set_index("claim")["verdict"]
    assert of["fusing the nine views is better than any one of them"] == verdict
    assert of["the specificity of MT-CNN is lower than ST-CNN's"] == SEEN
    assert of["alpha = 0.3 is best"] == of["MT-CNN has the highest AUC of all methods"] == NOT_HERE


@pytest.mark.parametrize(("best_rival", "verdict"), [(UP, SEEN), (OPEN, CANNOT), (DOWN, NOT_SEEN)])
def test_the_highest_of_all_is_ahead_of_the_best_rival(best_rival, verdict):
    claim = next(c for c in CLAIMS if "highest AUC of all" in c.text)
    ahead = {f"{MT} less {name}": compared(UP) for name in OF_PAPERS}
    ahead[f"{MT} less {OF_PAPERS[0]}"] = compared(best_rival)
    table = {"trained": {MT: {"convergence": LEARNT}}, "rivals": ahead}
    assert claim.judge(table, claims.NODULES)[0] == verdict
    ahead.popitem()
    assert claim.judge(table, claims.NODULES)[0] == NOT_FINISHED
