"""The sweeps' figures show the values they were given, finished or not."""

import json

import pytest

from labkit.errors import InputError
from labkit.paper import fig1
from labkit.paper import values as measured
from labkit.paper.declared import (
    ALPHAS,
    DEPTHS,
    DROPOUTS,
    EXPERIMENTS,
    L2,
    alpha_label,
    depth_label,
    dropout_label,
    l2_label,
)
from labkit.plots import paper, style
from labkit.plots.paper import fusion_figure, scores_by_rule, table1_figure
from tests.evaluation.tables import predictions


def header(name, simulated=True):
    e = EXPERIMENTS[name]
    return {
        "name": name, "title": e.title, "where": e.where, "protocol": "some folds",
        "published": [p.as_dict() for p in e.published], "cohort": {"simulated": simulated},
        "missing": [],
    }  # fmt: skip


def metrics(signal):
    run = (predictions(patients=30, signal=signal, folds=3), "fused")
    return measured.measure(run, resamples=20)


@pytest.fixture(scope="module")
def levels():
    return [metrics(s) for s in (0.5, 1.0, 1.5)]


def values(figure, labels, levels, simulated=True):
    variants = {name: {"metrics": levels[i % len(levels)]} for i, name in enumerate(labels)}
    found = {**header(figure, simulated), "variants": variants, "size_only": levels[0]}
    return json.loads(json.dumps(found))  # as it comes from a file


@pytest.fixture(scope="module")
def alphas(levels):
    found = values("fig7", [alpha_label(a) for a in (0, *ALPHAS)], levels)
    interval = {"value": 0.7, "low": 0.6, "high": 0.8}
    keys = ("printed", "nested", "optimism", "bootstrap_corrected")
    return {**found, "search": {"best": 0.3, **dict.fromkeys(keys, interval)}}


def dots(ax):
    """(x, y) of everything that is drawn as a single point."""
    lines = [line for line in ax.get_lines() if len(line.get_xdata()) == 1]
    return {(line.get_xdata()[0], line.get_ydata()[0]) for line in lines}


def test_each_alpha_stands_at_its_place_with_its_auc(alphas):
    left, right = paper.alpha_figure(alphas).axes
    for alpha in ALPHAS:
        auc = alphas["variants"][alpha_label(alpha)]["metrics"]["auc"]["value"]
        assert (alpha, auc) in dots(right)
    assert sum(y == 0.7 for _, y in dots(right)) == 3  # the searches
    said = [t.get_text() for t in left.get_legend().get_texts()]
    auc = alphas["variants"]["alpha 0.6"]["metrics"]["auc"]["value"]
    assert f"alpha 0.6: {auc:.3f}" in said
    assert any(t.startswith("size only") for t in said)


def test_a_figure_under_way_shows_what_there_is_and_says_what_is_not(alphas):
    some = {k: v for k, v in alphas["variants"].items() if k in ("alpha 0", "alpha 0.3")}
    half = {**alphas, "variants": some, "search": None, "missing": ["alpha 0.2"] * 5}
    figure = paper.alpha_figure(half)
    assert len(dots(figure.axes[1])) == 1
    assert "Not finished: 5 variants" in figure.get_supxlabel()
    with pytest.raises(InputError, match="no variant is finished"):
        paper.alpha_figure({**half, "variants": {}})


def test_depth_has_both_networks_and_what_each_costs(levels):
    labels = [depth_label(m, d) for d in DEPTHS for m in ("st", "mt")]
    costs = {
        name: {
            "parameters": 10,
            "memory_mb": 5.0 + i,
            "kept_mb": 1.0,
            "seconds_a_step": 0.1 + i,
            "seconds_a_training": 10.0 + i,
            "batch_size": 16,
        }
        for i, name in enumerate(labels)
    }
    found = values("fig6", labels, levels) | {"costs": {"device": "CPU", "of": costs}}
    auc, seconds, memory = paper.depth_figure(found).axes
    assert len(dots(auc)) == 10
    for ax, key in ((seconds, "seconds_a_training"), (memory, "memory_mb")):
        solid = [line for line in ax.get_lines() if line.get_linestyle() == "-"]
        drawn = sorted(y for line in solid for y in line.get_ydata())
        assert drawn == pytest.approx(sorted(c[key] for c in costs.values()))
        assert ax.get_ylim()[0] == 0

    stuck = found["variants"][depth_label("st", 1)]
    stuck["trained"] = {"networks": 27, "at_chance": 14}
    auc = paper.depth_figure(found).axes[0]
    assert len(dots(auc)) == 9
    (words,) = [t.get_text() for t in auc.texts]
    assert words.startswith("ST-CNN") and "14 of 27" in words
    assert f"{stuck['metrics']['auc']['value']:.3f}" in words

    for of in found["variants"].values():  # as after the two epochs of smoke
        of["trained"] = {"networks": 8, "at_chance": 6}
    auc = paper.depth_figure(found).axes[0]
    assert len(dots(auc)) == 10 and not auc.texts


def test_l2_and_dropout_have_a_point_for_every_variant(levels):
    l2 = [l2_label("st", v, "share") for v in L2]
    l2 += [l2_label("mt", v, place) for v in L2 for place in ("both", "share", "img")]
    dropout = [dropout_label(m, place) for m in ("st", "mt") for place in DROPOUTS]
    found = values("fig5", ["ST-CNN", "MT-CNN", *l2, *dropout], levels)
    left, middle, right = paper.regularisation_figure(found).axes
    assert len(dots(middle)) == len(l2) == 16
    assert len(dots(right)) == len(dropout) == 6
    assert len(left.get_legend().get_texts()) == 1 + 4


def test_published_values_stand_beside_ours(levels):
    rows = {
        name: {"views": "nine", "note": note, "metrics": level}
        for (name, note), level in zip(
            (("size only", ""), ("size + calcification", "reads"), ("MT-CNN", "")),
            levels,
            strict=True,
        )
    }
    found = {**header("table1"), "rows": rows}
    figure = table1_figure(found)
    auc, sensitivity, specificity = figure.axes
    assert 0.9559 in {x for x, _ in dots(auc)} and 0.9404 in {x for x, _ in dots(auc)}
    assert 0.8774 in {x for x, _ in dots(sensitivity)}
    assert len(dots(specificity)) == 3
    names = [t.get_text() for t in auc.get_yticklabels()]
    assert names == ["size only", "size + calcification*", "MT-CNN", "Xie et al. 2019, re-run"]
    assert "* reads" in figure.get_supxlabel()
    with pytest.raises(InputError, match="no run is finished"):
        table1_figure({**found, "rows": {}})


def test_fusion_shows_each_difference_and_the_auc_of_every_number_of_views():
    def pair(value):
        return {"auc_difference": {"value": value, "low": value - 0.1, "high": value + 0.1}}

    of = {
        "ways": {"Eq. 4": {}, "equal": {}},
        "comparisons": {"equal less Eq. 4": pair(0.03)},
        "without_view": {"axial": pair(-0.02), "coronal": pair(0.01)},
        "by_count": [
            {"views": n, "worst": 0.6 + 0.1 * n, "mean": 0.65 + 0.1 * n, "best": 0.7 + 0.1 * n}
            for n in (1, 2)
        ],
    }
    figure = fusion_figure({**header("table1"), "fusion": {"MT-CNN": of}})
    ways, without, count = figure.axes
    assert {x for x, _ in dots(ways)} == {0.03}
    assert [t.get_text() for t in ways.get_yticklabels()] == ["equal"]
    assert sorted(x for x, _ in dots(without)) == [-0.02, 0.01]
    (line,) = count.get_lines()
    assert list(line.get_ydata()) == pytest.approx([0.75, 0.85])
    assert "axial: -0.020" in style.alt_text(figure)
    with pytest.raises(InputError, match="no run is finished"):
        fusion_figure({**header("table1"), "fusion": {}})


def test_every_nodule_of_every_rule_is_in_a_bar():
    chosen = {r: fig1.counts(r) for r in list(fig1.RULES)[:3]}
    figure = scores_by_rule({**header("fig1"), "rules": chosen})
    left, right = figure.axes
    assert sum(bar.get_height() for bar in left.patches) == 1192
    assert sum(bar.get_width() for bar in right.patches) == 1109 + sum(
        of["nodules"] for of in chosen.values()
    )
    assert "369 benign" in style.alt_text(figure)


@pytest.mark.parametrize("simulated", [True, False])
def test_simulated_is_said_when_it_is_so_and_the_numbers_in_words(levels, simulated):
    found = values("fig7", [alpha_label(a) for a in (0, 0.3)], levels, simulated)
    figure = paper.alpha_figure({**found, "search": None})
    titles = [ax.get_title("right") for ax in figure.axes]
    assert ("simulated CT" in titles) == simulated
    assert ("real CT" in titles) != simulated
    auc = levels[1]["auc"]
    assert f"alpha 0.3: AUC {auc['value']:.3f} ({auc['low']:.3f}" in style.alt_text(figure)
