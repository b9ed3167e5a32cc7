"""The paper's figures show the values they were given, finished or not."""

import json

import pytest

from labkit.errors import InputError
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
from labkit.plots import lesson10, paper, style
from tests.evaluation.tables import predictions

ALL_L2 = [l2_label("st", v, "share") for v in L2]
ALL_L2 += [l2_label("mt", v, place) for v in L2 for place in ("both", "share", "img")]
ALL_DROPOUT = [dropout_label(m, place) for m in ("st", "mt") for place in DROPOUTS]


def header(name, simulated=True):
    e = EXPERIMENTS[name]
    return {
        "name": name, "title": e.title, "where": e.where, "protocol": "some folds",
        "published": list(e.published), "cohort": {"simulated": simulated},
        "missing": [],
    }  # fmt: skip


@pytest.fixture(scope="module")
def levels():
    runs = [predictions(patients=30, signal=signal, folds=3) for signal in (0.5, 1.0, 1.5)]
    return [measured.measure((run, "fused"), resamples=20) for run in runs]


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
        auc = alphas["variants"][alpha_label(alpha)]["metrics"]["auc_within_folds"]["value"]
        assert (alpha, auc) in dots(right)
    assert sum(y == 0.7 for _, y in dots(right)) == 3  # the searches
    said = [t.get_text() for t in left.get_legend().get_texts()]
    auc = alphas["variants"]["alpha 0.6"]["metrics"]["auc_within_folds"]["value"]
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
    with pytest.raises(InputError, match="no variant was judged by FROC"):
        paper.alpha_froc(half)


def test_depth_has_both_networks_and_what_each_costs(levels):
    labels = [depth_label(m, d) for d in DEPTHS for m in ("st", "mt")]
    same = {"parameters": 10, "kept_mb": 1.0, "batch_size": 16}
    rising = ("memory_mb", "seconds_a_step", "seconds_a_training")
    costs = {name: same | dict.fromkeys(rising, 5.0 + i) for i, name in enumerate(labels)}
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
    assert f"{stuck['metrics']['auc_within_folds']['value']:.3f}" in words

    for of in found["variants"].values():  # as after the two epochs of smoke
        of["trained"] = {"networks": 8, "at_chance": 6}
    auc = paper.depth_figure(found).axes[0]
    assert len(dots(auc)) == 10 and not auc.texts


def test_l2_and_dropout_have_a_point_a_variant_and_effects_are_differences_to_the_plain(levels):
    found = values("fig5", ["ST-CNN", "MT-CNN", *ALL_L2, *ALL_DROPOUT], levels)
    left, *others = paper.regularisation_figure(found).axes
    assert [len(dots(ax)) for ax in others] == [len(ALL_L2), len(ALL_DROPOUT)] == [16, 6]
    assert len(left.get_legend().get_texts()) == 1 + 4

    pairs = [f"{a} less {b}" for a, b in EXPERIMENTS["fig5"].comparisons]
    less = {name: {"value": -k, "low": -k - 1, "high": -k + 1} for k, name in enumerate(pairs)}
    compared = header("fig5") | {
        "comparisons": {n: {"auc_difference": of} for n, of in less.items()}
    }
    for labels, ax in zip(
        (ALL_L2, ALL_DROPOUT), lesson10.effects_figure(compared).axes, strict=True
    ):
        expected = [less[f"{name} less {name[:2]}-CNN"]["value"] for name in labels]
        assert sorted(y for _, y in dots(ax)) == sorted(expected)
    name = f"{l2_label('mt', 1e-4, 'both')} less MT-CNN"
    some = compared | {"comparisons": {name: compared["comparisons"][name]}, "missing": ["x"] * 3}
    figure = lesson10.effects_figure(some)
    assert [len(dots(ax)) for ax in figure.axes] == [1, 0]
    assert "not finished: 3 variants" in style.alt_text(figure)
    with pytest.raises(InputError, match="no comparison is finished"):
        lesson10.effects_figure(some | {"comparisons": {}})
