"""Verdicts on l2 and dropout follow the numbers; a difference of effects has its own interval."""

import numpy as np
import pytest

from labkit.errors import InputError
from labkit.evaluation.statistics import Interval
from labkit.paper import fig5
from labkit.paper.declared import EXPERIMENTS, L2, L2_SHOWN, dropout_label, l2_label
from labkit.paper.fig5 import MT, MT_L2, ST, ST_L2

HIGHEST, LOWEST = 0, 1
LOWERS_MT, LITTLE_ST = 2, 3
GREATLY, MORE, ANY_MT, ANY_ST, DROPOUT, SECOND_TASK = 4, 5, 6, 7, 8, 9
NO_DROPOUT = {m: dropout_label(m, "none") for m in ("st", "mt")}
PRINTED = {
    ST: 0.90, MT: 0.95, MT_L2: 0.85, ST_L2: 0.902, NO_DROPOUT["st"]: 0.86, NO_DROPOUT["mt"]: 0.94,
    l2_label("st", 1e-3, "share"): 0.92,
}  # fmt: skip


def sweep(aucs, half_width=0.004, standard=0.90):
    """A finished sweep with these AUCs, else `standard`; a difference beyond its width is found."""
    experiment = EXPERIMENTS["fig5"]
    values = {v.label: aucs.get(v.label, standard) for v in experiment.variants}
    comparisons = {}
    for one, two in experiment.comparisons:
        d = values[one] - values[two]
        found = abs(d) > half_width
        comparisons[f"{one} less {two}"] = {
            "auc_difference": {"value": d, "low": d - half_width, "high": d + half_width},
            "within_folds_difference": {"value": d, "low": d - half_width, "high": d + half_width},
            "p_holm": 0.001 if found else 0.9, "found": found,
            "equivalence": {"margin": 0.02, "shown": abs(d) + half_width < 0.02},
        }  # fmt: skip
    variants = {name: {"metrics": {"auc": {"value": v}}} for name, v in values.items()}
    return {"name": "fig5", "variants": variants, "comparisons": comparisons, "missing": []}


def verdict(values, row):
    return fig5.regularisation_verdicts(values)["verdict"].iloc[row]


def without(values, *labels):
    """The sweep before these variants were finished."""
    return {
        **values,
        "variants": {n: v for n, v in values["variants"].items() if n not in labels},
        "comparisons": {
            n: v
            for n, v in values["comparisons"].items()
            if not any(part in labels for part in n.split(" less "))
        },
    }


def test_a_sweep_as_the_paper_describes_it_bears_the_paper_out():
    told = fig5.regularisation_verdicts(sweep(PRINTED))
    assert set(told["verdict"]) == {"shown"}
    assert len(told) == 10 and (told["measured"] != "").all()


def test_curves_that_are_alike_show_no_order_and_contradict_what_is_great():
    values = sweep({})
    for row in (HIGHEST, LOWEST, MORE, ANY_MT, ANY_ST, DROPOUT, SECOND_TASK):
        assert verdict(values, row) == "not shown"
    assert verdict(values, LITTLE_ST) == "shown"
    assert verdict(values, GREATLY) == "contradicted"


def test_wide_intervals_leave_everything_open():
    told = fig5.regularisation_verdicts(sweep(PRINTED, half_width=0.3))
    assert set(told["verdict"]) == {"not shown"}


def test_the_opposite_contradicts():
    upside_down = {name: 1.8 - auc for name, auc in PRINTED.items()} | {
        l2_label(m, l2, place): 0.93 if m == "mt" else 0.87
        for m, place in (("mt", "both"), ("st", "share"))
        for l2 in L2
    }
    values = sweep(upside_down | {ST: 0.9, MT: 0.85, MT_L2: 0.95, ST_L2: 0.87})
    for row in (HIGHEST, LOWEST, LOWERS_MT, LITTLE_ST, GREATLY, MORE, ANY_MT, ANY_ST, DROPOUT):
        assert verdict(values, row) == "contradicted"
    assert verdict(values, SECOND_TASK) == "contradicted"


def test_one_effect_found_and_the_other_not_is_no_difference_of_effects():
    values = sweep({MT_L2: 0.895, ST_L2: 0.897}, half_width=0.004)
    assert values["comparisons"][f"{MT_L2} less {MT}"]["found"]
    assert not values["comparisons"][f"{ST_L2} less {ST}"]["found"]
    assert verdict(values, LOWERS_MT) == "shown"
    assert verdict(values, MORE) == "not shown"


def test_what_is_not_finished_has_no_verdict_and_the_rest_has():
    values = sweep(PRINTED)
    some = without(values, MT_L2, NO_DROPOUT["mt"], l2_label("st", 1e-2, "share"))
    told = fig5.regularisation_verdicts(some)["verdict"].tolist()
    for row in (HIGHEST, LOWEST, LOWERS_MT, GREATLY, MORE, SECOND_TASK):
        assert told[row] == "not finished"
    assert told[LITTLE_ST] == told[DROPOUT] == "shown"
    assert told[ANY_ST] == "shown"  # one strength that helps is enough
    alike = without(sweep({}), l2_label("st", 1e-2, "share"))
    assert verdict(alike, ANY_ST) == "not finished"  # that none helps takes all of them
    nothing = without(values, *values["variants"])
    told = fig5.regularisation_verdicts(nothing)["verdict"]
    assert set(told) == {"not finished"}


def test_interactions_have_a_row_for_every_finished_strength():
    values = without(sweep(PRINTED), l2_label("st", 1e-2, "share"))
    table = fig5.interactions(values)
    assert table["l2"].tolist() == [1e-5, 1e-4, 1e-3]
    shown = table.set_index("l2").loc[L2_SHOWN]
    assert shown["difference"].value == pytest.approx(-0.10 - 0.002)
    assert shown["sure"] == "more"
    assert fig5.interactions(without(values, *values["variants"])).empty


@pytest.mark.parametrize("shared", [-0.9, 0.0, 0.9])
def test_the_interval_of_a_difference_of_effects_holds_whatever_they_share(shared):
    """Effects of zero and zero, drawn together: at least 95 of 100 intervals hold zero."""
    rng = np.random.default_rng(0)
    errors = rng.multivariate_normal([0, 0], [[1, shared], [shared, 1]], size=4000)
    held = 0
    for one, two in errors:
        first, second = (Interval(e, e - 1.96, e + 1.96) for e in (one, two))
        apart = fig5.difference_of_effects(first, second)
        held += apart.low <= 0 <= apart.high
    assert held / len(errors) > 0.94


def test_an_effect_is_that_of_the_declared_comparison():
    values = sweep(PRINTED)
    assert fig5.effect(values, MT_L2).value == pytest.approx(-0.10)
    assert fig5.effect(values, "MT-CNN, l2 of nothing") is None


def test_networks_that_never_learnt_are_counted_by_setting_and_model():
    trained = {
        ST: (45, 0), NO_DROPOUT["st"]: (27, 3), NO_DROPOUT["mt"]: (27, 4), MT_L2: (27, None),
    }  # fmt: skip
    variants = {n: {"trained": {"networks": k, "at_chance": c}} for n, (k, c) in trained.items()}
    table = fig5.at_chance({"variants": variants})
    assert table.loc[("dropout none", "MT-CNN")].tolist() == [27, 4]
    assert table.loc[("as it is", "ST-CNN"), "at chance"] == 0
    assert table["at chance"].isna().sum() == 1 and len(table) == 4


def test_a_sweep_without_the_comparison_that_it_declares_says_so():
    values = sweep(PRINTED)
    del values["comparisons"][f"{MT} less {ST}"]
    with pytest.raises(InputError, match="lacks the comparison of MT-CNN"):
        fig5.regularisation_verdicts(values)
