"""Verdicts follow the numbers, in whichever direction these point."""

import numpy as np
import pytest

from labkit.evaluation.statistics import Interval
from labkit.io import write_json
from labkit.paper import claims, fig7, values
from labkit.paper.claims import (
    CANNOT,
    CONTRADICTED,
    MT,
    MT_L2,
    NOT_FINISHED,
    NOT_SHOWN,
    SHOWN,
    ST,
    ST_L2,
)
from labkit.paper.declared import (
    ALPHAS,
    DEPTHS,
    EXPERIMENTS,
    L2,
    L2_SHOWN,
    alpha_label,
    depth_label,
    dropout_label,
    l2_label,
)
from tests.evaluation.tables import predictions

UP, DOWN, OPEN = (0.03, 0.01, 0.05), (-0.03, -0.05, -0.01), (0.0, -0.03, 0.03)
SLIGHTLY = (0.003, 0.001, 0.005)


def compared(pooled, within, found=True, same=False):
    named = ("value", "low", "high")
    return {
        "auc_difference": dict(zip(named, pooled, strict=True)),
        "within_folds_difference": dict(zip(named, within, strict=True)),
        "found": found, "p_holm": 0.001 if found else 0.9,
        "equivalence": {"margin": 0.02, "shown": same},
    }  # fmt: skip


def pair(value, half_width, found=None):
    """A difference of this value, pooled and within folds."""
    low, high = value - half_width, value + half_width
    found = low > 0 or high < 0 if found is None else found
    return compared((value, low, high), (value, low, high), found, max(-low, high) < 0.02)


def sweep(name, aucs, half_width):
    """A finished sweep with these AUCs by label; a difference beyond its width is found."""
    labels = EXPERIMENTS[name].comparisons
    return {
        "name": name,
        "variants": {label: {"metrics": {"auc": {"value": auc}}} for label, auc in aucs.items()},
        "comparisons": {f"{a} less {b}": pair(aucs[a] - aucs[b], half_width) for a, b in labels},
    }


def without(sweep, *labels):
    """The sweep before these variants were finished."""
    there = {n: v for n, v in sweep["variants"].items() if n not in labels}
    pairs = sweep["comparisons"].items()
    compared = {n: p for n, p in pairs if not set(n.split(" less ")) & set(labels)}
    return {**sweep, "variants": there, "comparisons": compared}


def judged(sweep):
    verdicts = claims.figure_verdicts(sweep)["verdict"]
    return dict(zip(CLAIMS[sweep["name"]], verdicts, strict=True))


def alphas(aucs, half_width=0.004, found=(), share=None):
    """A sweep with these AUCs at 0 and ALPHAS, where those of `found` survive the correction."""
    by_label = dict(zip([alpha_label(a) for a in (0, *ALPHAS)], aucs, strict=True))
    made = sweep("fig7", by_label, half_width)
    for name, of in made["comparisons"].items():
        survives = name.split(" less ")[0] in found
        of |= {"found": survives, "p_holm": 0.001 if survives else 0.9}
    even = {alpha_label(a): 1 / len(ALPHAS) for a in ALPHAS}
    best = max(ALPHAS, key=lambda a: by_label[alpha_label(a)])
    shares = even | (share or {})
    search = {"best": best, "among": list(ALPHAS), "best_in_share_of_bootstraps": shares}
    return {**made, "search": search}


def depths(mt, st, half_width=0.008, four_to_three=(1.0, 0.7), device="NVIDIA V100, fp32"):
    """A sweep with these AUCs by depth, and four layers this many times as dear as three."""
    aucs = {"mt": mt, "st": st}
    by_label = {depth_label(m, d): aucs[m][d - 1] for m in aucs for d in DEPTHS}
    dear = dict(zip(("seconds_a_step", "memory_mb"), four_to_three, strict=True))
    of = {label: dear if "4" in label else dict.fromkeys(dear, 1.0) for label in by_label}
    return {**sweep("fig6", by_label, half_width), "costs": {"device": device, "of": of}}


def regularised(aucs, half_width=0.004):
    labels = [v.label for v in EXPERIMENTS["fig5"].variants]
    return sweep("fig5", {label: aucs.get(label, 0.90) for label in labels}, half_width)


CLAIMS = {
    "fig7": ("best", "same", "shape", "worst", "one against zero", "0.3 against zero"),
    "fig6": ("rising", "much better", "same", "falling", "no worse", "growing", "time", "memory",
             "best"),
    "fig5": ("highest", "lowest", "lowers mt", "little st", "greatly", "more", "any mt", "any st",
             "dropout", "second task"),
}  # fmt: skip
RISES_AND_FALLS = [0.90, 0.93, 0.95, 0.93, 0.92, 0.90, 0.85]
LEVEL = [0.900, 0.901, 0.899, 0.900, 0.902, 0.900, 0.901]
# As IV-D tells it, MT rises and levels off, and ST falls beyond three.
PRINTED = ((0.80, 0.84, 0.95, 0.955, 0.955), (0.80, 0.84, 0.86, 0.82, 0.80))
FEWER = ((0.95, 0.93, 0.90, 0.85, 0.80), (0.80, 0.85, 0.90, 0.93, 0.95))
ALIKE = ((0.900,) * 5, (0.901,) * 5)
NO_DROPOUT = {m: dropout_label(m, "none") for m in ("st", "mt")}
TOLD = {
    ST: 0.90, MT: 0.95, MT_L2: 0.85, ST_L2: 0.902, NO_DROPOUT["st"]: 0.86, NO_DROPOUT["mt"]: 0.94,
    l2_label("st", 1e-3, "share"): 0.92,
}  # fmt: skip
UPSIDE_DOWN = {
    **{name: 1.8 - auc for name, auc in TOLD.items()},
    **{l2_label("mt", l2, "both"): 0.93 for l2 in L2},
    **{l2_label("st", l2, "share"): 0.87 for l2 in L2},
    ST: 0.9, MT: 0.85, MT_L2: 0.95, ST_L2: 0.87,
}  # fmt: skip
LAST_L2 = l2_label("st", 1e-2, "share")


def all_of(figure, verdict, **others):
    return dict.fromkeys(CLAIMS[figure], verdict) | {
        k.replace("_", " "): v for k, v in others.items()
    }


CASES = {
    "alpha as printed": (
        alphas(RISES_AND_FALLS, found=("alpha 0.3", "alpha 1"), share={"alpha 0.3": 0.99}),
        all_of("fig7", SHOWN),
    ),
    "alphas alike": (
        alphas(LEVEL),
        {**all_of("fig7", NOT_SHOWN, same=SHOWN, one_against_zero=CONTRADICTED),
         "0.3 against zero": CONTRADICTED},
    ),
    "alphas of wide intervals": (alphas(RISES_AND_FALLS, 0.2), all_of("fig7", NOT_SHOWN)),
    "the lowest of seven is not yet worse": (alphas([*LEVEL[:-1], 0.895]), {"worst": NOT_SHOWN}),
    "alpha 1 is better": (
        alphas([*[0.90] * 6, 0.95], found=("alpha 1",)), {"one against zero": CONTRADICTED},
    ),
    "another alpha is best": (alphas(LEVEL, share={"alpha 0.8": 0.97}), {"best": CONTRADICTED}),
    "0.2 and 0.4 lie apart": (
        alphas([0.90, 0.86, 0.90, 0.94, 0.90, 0.90, 0.90]), {"same": CONTRADICTED},
    ),
    "a difference that is sure and small is not far": (
        alphas([*[0.90] * 6, 0.89], 0.003, found=("alpha 1",)), {"one against zero": NOT_SHOWN},
    ),
    "without alpha 1": (
        without(alphas(LEVEL), "alpha 1"),
        {**all_of("fig7", NOT_FINISHED, same=SHOWN), "0.3 against zero": CONTRADICTED},
    ),
    "no alpha": (without(alphas(LEVEL), *alphas(LEVEL)["variants"]), all_of("fig7", NOT_FINISHED)),
    "depth as printed": (depths(*PRINTED, four_to_three=(1.5, 1.5)), all_of("fig6", SHOWN)),
    "depths alike": (
        depths(*ALIKE),
        all_of("fig6", SHOWN, rising=NOT_SHOWN, falling=NOT_SHOWN, growing=NOT_SHOWN,
               much_better=CONTRADICTED, time=CONTRADICTED, memory=CONTRADICTED),
    ),
    "depths of wide intervals": (
        depths(*PRINTED, half_width=0.3),
        all_of("fig6", NOT_SHOWN, time=CONTRADICTED, memory=CONTRADICTED),
    ),
    "fewer layers are better": (depths(*FEWER), all_of("fig6", CONTRADICTED)),
    "three layers better than one and two": (
        depths((0.80, 0.85, 0.90, 0.90, 0.90), ALIKE[1]), {"much better": SHOWN},
    ),
    "three layers better than one": (
        depths((0.80, 0.88, 0.90, 0.90, 0.90), ALIKE[1], 0.03), {"much better": NOT_SHOWN},
    ),
    "time on a processor says nothing of a GPU": (
        depths(*ALIKE, device="CPU, 2 cores, bf16"), {"time": CANNOT, "memory": CONTRADICTED},
    ),
    "without one layer": (
        without(depths(*ALIKE), depth_label("mt", 1)),
        all_of("fig6", NOT_FINISHED, same=SHOWN, falling=NOT_SHOWN, much_better=NOT_FINISHED,
               time=CONTRADICTED, memory=CONTRADICTED),
    ),
    "no depth": (
        {"name": "fig6", "comparisons": {}, "costs": {"device": "CPU", "of": {}}},
        all_of("fig6", NOT_FINISHED),
    ),
    "regularisation as printed": (regularised(TOLD), all_of("fig5", SHOWN)),
    "no effect": (
        regularised({}), all_of("fig5", NOT_SHOWN, little_st=SHOWN, greatly=CONTRADICTED),
    ),
    "effects of wide intervals": (regularised(TOLD, 0.3), all_of("fig5", NOT_SHOWN)),
    "effects upside down": (regularised(UPSIDE_DOWN), all_of("fig5", CONTRADICTED)),
    "one effect found and the other not is no difference of effects": (
        regularised({MT_L2: 0.895, ST_L2: 0.897}), {"lowers mt": SHOWN, "more": NOT_SHOWN},
    ),
    "without l2 of MT-CNN": (
        without(regularised(TOLD), MT_L2, NO_DROPOUT["mt"], LAST_L2),
        # One strength that helps is enough.
        all_of("fig5", NOT_FINISHED, little_st=SHOWN, dropout=SHOWN, any_st=SHOWN, any_mt=SHOWN),
    ),
    "that no strength helps takes all of them": (
        without(regularised({}), LAST_L2), {"any st": NOT_FINISHED},
    ),
    "no regularisation": (
        without(regularised(TOLD), *regularised(TOLD)["variants"]), all_of("fig5", NOT_FINISHED),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("values", "expected"), CASES.values(), ids=CASES)
def test_verdicts_follow_the_numbers(values, expected):
    table, told = claims.figure_verdicts(values), judged(values)
    assert {claim: told[claim] for claim in expected} == expected
    assert ((table["measured"] != "") | (table["verdict"] == NOT_FINISHED)).all()


def test_own_error_is_what_one_variant_contributes_to_a_difference():
    told = alphas(LEVEL, half_width=1.959964 * np.sqrt(2) * 0.003)
    assert fig7.own_error(told) == pytest.approx(0.003, rel=1e-4)
    assert fig7.expected_luck(told) == pytest.approx(0.003 * fig7.expected_maximum(6), rel=1e-4)


def test_time_that_grows_for_one_network_only_is_open():
    told = depths(*ALIKE, four_to_three=(1.5, 0.7))
    told["costs"]["of"][depth_label("st", 4)] = {"seconds_a_step": 1.0, "memory_mb": 0.7}
    assert judged(told)["time"] == NOT_SHOWN


def test_what_pooling_alone_finds_shows_nothing_and_contradicts_nothing():
    """As ST-CNN with four layers on the real cubes: -0.011 pooled, -0.007 within folds."""
    told = depths(*ALIKE)
    name = f"{depth_label('st', 4)} less {depth_label('st', 3)}"
    both = pair(-0.011, 0.008)
    told["comparisons"][name] = both
    assert judged(told)["falling"] == SHOWN
    inside = {"value": -0.007, "low": -0.017, "high": 0.002}
    told["comparisons"][name] = both | {"within_folds_difference": inside}
    assert judged(told)["falling"] == NOT_SHOWN
    measured = claims.figure_verdicts(told)["measured"].iloc[CLAIMS["fig6"].index("falling")]
    assert "within folds -0.007" in measured and "; 5: +0.000" in measured
    told["comparisons"][name] = pair(0.011, 0.008, found=False)
    assert judged(told)["falling"] == NOT_SHOWN  # the opposite, lost to the correction


def test_interactions_have_a_row_for_every_finished_strength():
    told = without(regularised(TOLD), l2_label("st", 1e-2, "share"))
    table = claims.interactions(told)
    assert table["l2"].tolist() == [1e-5, 1e-4, 1e-3]
    shown = table.set_index("l2").loc[L2_SHOWN]
    assert shown["difference"].value == pytest.approx(-0.10 - 0.002) and shown["sure"] == "more"
    assert claims.interactions(without(told, *told["variants"])).empty
    assert claims.effect(told, MT_L2).value == pytest.approx(-0.10)
    assert claims.effect(told, "MT-CNN, l2 of nothing") is None


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


def test_every_test_stands_in_a_row():
    table, other = predictions(scores_seed=1), predictions(scores_seed=2)
    pairs = {"one less other": values.compare((table, "fused"), (other, "fused"), 50)}
    there = ((values.at_places(t, [(0, 0)]), "fused") for t in (table, other))
    pairs["at one place"] = values.compare(*there, 50)
    values.correct(pairs)
    found = claims.compare_tests(pairs)
    assert list(found.index) == list(pairs)
    said = f"{pairs['one less other']['auc_difference']['value']:+.3f}"
    assert found.loc["one less other", "pooled over folds"].startswith(said)
    assert found["t-test over folds, p"].tolist()[1] == "none"


@pytest.mark.parametrize(
    ("difference", "within", "at_least", "found", "verdict"),
    [
        (UP, UP, 0.02, True, "shown"),
        (UP, UP, 0.02, False, "not shown"),  # lost to the correction
        (UP, OPEN, 0.02, True, "not shown"),  # pooled only
        (UP, DOWN, 0.0, True, "not shown"),  # the two ways of counting disagree
        (UP, UP, 0.04, True, "not shown"),  # surely better, perhaps not by as much
        (SLIGHTLY, SLIGHTLY, 0.02, True, "contradicted"),  # better, but surely not much
        (SLIGHTLY, SLIGHTLY, 0.02, False, "contradicted"),  # no correction makes it larger
        (SLIGHTLY, UP, 0.02, True, "not shown"),
        (OPEN, OPEN, 0.0, False, "not shown"),
        (DOWN, DOWN, 0.0, True, "contradicted"),
        (DOWN, DOWN, 0.0, False, "not shown"),  # the opposite has to be found as well
        (DOWN, OPEN, 0.0, True, "not shown"),
        (DOWN, None, 0.0, None, "contradicted"),  # one comparison, of what is not pooled
    ],
)
def test_a_verdict_follows_from_the_intervals(difference, within, at_least, found, verdict):
    inside = None if within is None else Interval(*within)
    said = claims.better(Interval(*difference), at_least, found=found, within=inside)
    assert said == verdict


@pytest.mark.parametrize(("pooled", "sign"), [(UP, 1), (DOWN, -1)])
def test_a_difference_turned_round_has_the_other_side(pooled, sign):
    pair = compared(pooled, pooled)
    assert claims.side(pair) == sign
    assert claims.better_pair(pair, sign=sign) == SHOWN
    assert claims.better_pair(pair, sign=-sign) == CONTRADICTED
    assert claims.side(compared(pooled, OPEN)) == claims.side(compared(pooled, pooled, False)) == 0


def test_no_difference_that_matters_has_to_be_none_within_folds_either():
    assert claims.inside(compared(SLIGHTLY, SLIGHTLY, same=True))
    assert not claims.inside(compared(SLIGHTLY, UP, same=True))
    assert not claims.inside(compared(SLIGHTLY, SLIGHTLY, same=False))


@pytest.mark.parametrize(
    ("within", "verdict"), [(UP, SHOWN), (OPEN, NOT_SHOWN), (DOWN, CONTRADICTED)]
)
def test_fusion_is_better_than_any_view_only_if_it_is_than_every_view(within, verdict):
    claim = next(c for c in claims.CLAIMS if c.text.startswith("fusing"))
    by_view = {"0": compared(UP, UP), "1": compared(DOWN if within == DOWN else UP, within)}
    told = claim.judge({"belief": {"fusion": {"MT-CNN": by_view}}})
    assert told.verdict == verdict
    assert ("coronal, the nearest" in told.measured) == (within == DOWN)


def test_every_comparison_that_a_claim_names_is_one_that_is_made():
    """A verdict would be "cannot be judged" for ever if a label were misspelt."""
    of_pairs = [c for c in (*claims.CLAIMS, *claims.FIGURE_CLAIMS)
                if c.rule in (claims._better, claims._equal)]  # fmt: skip
    assert len(of_pairs) >= 12
    for claim in of_pairs:
        assert claim.arguments[:2] in EXPERIMENTS[claim.result].comparisons, claim.text


def test_without_results_nothing_can_be_judged(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RESULTS", str(tmp_path))
    table = claims.verdicts()
    assert (table["verdict"] == CANNOT).all() and len(table) == 2 * len(claims.CLAIMS)


def test_a_claim_that_is_borne_out_is_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RESULTS", str(tmp_path))
    pooled = (0.05, 0.03, 0.07)
    for within, said, note in ((pooled, "shown", False), ((0.02, -0.01, 0.05), "not shown", True)):
        values = {"comparisons": {"MT-CNN less ST-CNN": compared(pooled, within)}}
        write_json(tmp_path / "simulated_table1.json", values)
        table = claims.verdicts().set_index(["claim", "images"])
        rows = table.loc["MT-CNN has an obvious advantage over ST-CNN"]
        assert rows["verdict"].to_dict() == {"simulated": said, "real": CANNOT}
        assert "+0.050 (+0.030 to +0.070)" in rows.loc["simulated", "measured"]
        assert (claims.NOT_COUNTED in rows.loc["simulated", "within folds"]) == note
