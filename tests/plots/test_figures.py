"""Every figure can be drawn, says in words what it shows, and names its axes with their units."""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text

from labkit import paths, plots
from labkit.annotations import lidc
from labkit.cohorts.cohort import Cohort, write_cohort
from labkit.evaluation import froc, size
from labkit.evaluation.calibration import calibration
from labkit.evaluation.statistics import Interval, compare
from labkit.imaging import lungs
from labkit.imaging.volume import Volume
from labkit.io import read_json
from labkit.models.mtcnn import MTCNN, STCNN
from labkit.models.rivals.nodule import Nodule
from labkit.paper.declared import EXPERIMENTS
from labkit.plots import froc as froc_plots
from labkit.plots import (
    lesson01,
    lesson02,
    lesson03,
    lesson04,
    lesson08,
    lesson09,
    lesson10,
    lesson11,
    lesson12,
    lesson13,
    paper,
    roc,
    roofline,
    style,
    views,
)
from labkit.simulate.scanner import center_of, scan_crop
from labkit.training.config import TrainingConfig
from labkit.training.machines import Device
from labkit.training.nine_views import NineViewModel
from tests.evaluation.tables import predictions

RNG = np.random.default_rng(0)
HERO = "LIDC-IDRI-0921-s1-n0"
UNIT = {"a": 0.3, "b": 0.7}


def committed(name):
    return read_json(paths.results() / f"{name}.json", "a result")


@pytest.fixture(scope="session")
def simulated(tmp_path_factory) -> Cohort:
    """Two nodules of soft tissue: nowhere air, so that black must have come from outside."""
    folder = tmp_path_factory.mktemp("plots") / "cohort"
    with write_cohort(folder, 2, source="test", simulated=True) as add:
        for i in range(2):
            nodule = {"nodule_id": f"n{i}", "patient_id": f"p{i}", "label": i, "diameter_mm": 7.6}
            add(nodule, np.zeros((64, 64, 64)), RNG.integers(-500, 300, (9, 76, 76)))
    return Cohort.open(folder)


def model(kind: str, of: tuple[int, ...] = (0, 4)) -> NineViewModel:
    """Untrained networks: enough to be drawn."""
    config = TrainingConfig(model=kind, views=of, precision="fp32")
    torch.manual_seed(0)
    networks = tuple((MTCNN if kind == "mt" else STCNN)().eval() for _ in of)
    return NineViewModel(config, networks, (0.5,) * len(of), pd.DataFrame(), Device.choose("cpu"))


def candidates() -> pd.DataFrame:
    """Two candidates on one nodule, one on an excluded finding, three false positives."""
    return pd.DataFrame(
        {
            "series_uid": ["a", "a", "a", "a", "a", "b"],
            "x_mm": [-10.0, -9.0, 10.0, 0.0, 5.0, 0.0],
            "y_mm": [-5.0, -5.0, 5.0, 0.0, 5.0, 0.0],
            "z_mm": [20.0, 20.0, 20.0, 21.0, 80.0, 20.0],
            "diameter_mm": [9.0, 9.0, np.nan, np.nan, np.nan, np.nan],
            "hit": [0, 0, -1, -1, -1, -1],
            "excluded": [1, 0, 1, 0, 0, 0],
            "label": pd.array([1, 1, 0, 0, 0, 0], dtype="Int64"),
            "score": [200.0, 100.0, 150.0, 90.0, 300.0, 80.0],
            "lies_on": ["vessel", "vessel", "pleura", "vessel", "branching", "vessel"],
        }
    )


def judged(quality: float = 2.0, bootstraps: int = 50) -> froc.Froc:
    """Thirty scans, a nodule each, and twenty other marks each."""
    rng = np.random.default_rng(4)
    uids = [f"{i:02d}" for i in range(30)]
    nodules = pd.DataFrame({"seriesuid": uids, "x_mm": 0.0, "y_mm": 0.0, "z_mm": 0.0})
    found = nodules.assign(probability=rng.beta(1 + quality, 2, 30)).iloc[:27]
    far = pd.DataFrame(rng.uniform(20, 100, (600, 3)), columns=["x_mm", "y_mm", "z_mm"])
    far = far.assign(seriesuid=np.repeat(uids, 20), probability=rng.beta(1, 4, 600))
    nodules["diameter_mm"] = 8.0
    marks = pd.concat([found, far])
    return froc.evaluate(marks, nodules, nodules[:0], uids, bootstraps=bootstraps)


def judged_by_froc(variants: str) -> dict:
    """A sweep's values on LUNA-16: every variant with the metrics of the committed Fig. 7."""
    luna, of = committed("luna_fig7"), committed(f"simulated_{variants}")
    metrics = luna["variants"]["alpha 0.3"]["metrics"]
    return luna | {"variants": {name: {"metrics": metrics} for name in of["variants"]}}


def drawn(cohort: Cohort) -> dict[str, object]:
    """Name -> a way to draw each figure, of simulated data where it can be told."""
    nodules = lidc.nodules()
    labelled = nodules[nodules["label"].notna()].reset_index(drop=True)
    hero = nodules.set_index("nodule_id", drop=False).loc[HERO]
    contours, ct = lidc.contours(HERO), scan_crop(hero, half_width_mm=15)
    counts = lesson01.class_counts({"all": nodules, "none": nodules[:0]})
    y, mm = labelled["label"].to_numpy(int), labelled["diameter_mm"]
    run = predictions(patients=40)
    alone = predictions(patients=40, scores_seed=2).assign(view="size_only")
    run = pd.concat([run, alone])
    sized = pd.DataFrame({"nodule_id": sorted(set(run["nodule_id"])), "diameter_mm": 9.0})
    scan = Volume(RNG.normal(-500, 300, (9, 12, 14)).astype(np.int16), (1.0, 1.0, 2.5))
    half = np.zeros(scan.shape, bool)
    half[2:7, 2:10, 3:9] = True
    steps = lungs.Steps(*[half] * 7)
    image, nine = RNG.normal(-400, 300, (64, 64)), RNG.normal(-400, 300, (9, 16, 16))
    wide, unit = RNG.normal(-400, 300, (76, 76)), RNG.uniform(0, 1, (2, 64, 64))
    line, ball = np.arange(9.0), sum(x**2 for x in np.ogrid[-15.5:16, -15.5:16, -15.5:16]) < 64
    watched = pd.DataFrame({"epoch": [0, 1], "train_cls": [0.7, 0.4], "train_img": [0.5, 0.4],
                            "cls": [0.1, 0.3], "img": [0.4, 0.2]})  # fmt: skip
    history = pd.DataFrame({"epoch": [0, 1], "train_cls": 0.5, "val_cls": 0.6, "val_auc": 0.7})
    cost = {"batch_size": 16, "gflop_a_step": 1.0, "memory_mb": 5.0, "kept_mb": 1.0,
            "seconds_a_step": 0.1, "parameters": 9e5}  # fmt: skip
    costs = pd.DataFrame([cost] * 4, pd.MultiIndex.from_product([["st", "mt"], [1, 2]]))
    columns = pd.MultiIndex.from_product([["loss", "auc"], ["trained on", "held out"]])
    gaps = pd.DataFrame(
        [[0.4, 0.5, 0.9, 0.8], [0.1, 0.7, 0.99, 0.85]], ["ST-CNN", "MT-CNN"], columns
    )
    place = (0.5, 0.5, 2.0), (-24.75, -14.75, 0.0)
    found = Volume(np.full((40, 60, 100), -850, np.int16), *place, series_uid="a")
    luna = type("Luna", (), {"nodules": candidates(), "views": np.zeros((6, 9, 76, 76), np.uint8),
                             "simulated": True})  # fmt: skip
    walk = pd.DataFrame({"probability": [0.9], "counts_as": [froc.FOUND],
                         "false_positives_per_scan": [0.0], "sensitivity": [0.5]})  # fmt: skip
    splits = pd.DataFrame({f"{what}_{end}": [0.8] for end in ("chosen", "elsewhere")
                           for what in ("sensitivity", "false_positives")})  # fmt: skip
    bins = pd.DataFrame({"predicted": [0.001, 0.5], "observed": [0.0, 0.4], "low": [0.0, 0.2],
                         "high": [0.02, 0.6]})  # fmt: skip
    fig4, of = committed("simulated_fig4"), Interval(0.9, 0.8, 0.95)
    row = {"auc": of, "pooled": of, "accuracy": of, "place": Interval(1.5, 1, 2), "s": 9.0}
    methods = pd.DataFrame({"best": row, "mt": row | {"s": 900.0}, "size": row}).T
    square = pd.DataFrame([[0.0, 0.1], [-0.1, 0.0]], ["best", "mt"], ["best", "mt"])
    say = {"simulated": True}
    return {
        "froc.froc_figure": lambda: froc_plots.froc_figure({"MT-CNN": judged()}, **say),
        "froc.steps_figure": lambda: froc_plots.steps_figure(walk, judged()),
        "froc.transferred_figure": lambda: froc_plots.transferred_figure(splits, 0.8, **say),
        "lesson01.agreement": lambda: lesson01.agreement(np.array([[6, 2], [1, 3]])),
        "lesson01.classes": lambda: lesson01.classes(counts[:1], percent=True),
        "lesson01.malignancy_scores": lambda: lesson01.malignancy_scores(nodules),
        "lesson01.outlines": lambda: lesson01.outlines(contours, hero, ct, center_of(hero)),
        "lesson01.rating_agreement": lambda: lesson01.rating_agreement(UNIT),
        "lesson01.ratings": lambda: lesson01.ratings(lidc.annotations()[:4]),
        "lesson01.rocs": lambda: lesson01.rocs(y, {"diameter": mm, "other": -mm}),
        "lesson01.siblings": lambda: lesson01.siblings(labelled, {"one by one": range(len(y))}),
        "lesson01.size_by_class": lambda: lesson01.size_by_class(labelled),
        "lesson01.size_by_score": lambda: lesson01.size_by_score(nodules),
        "lesson02.histogram": lambda: lesson02.histogram({"lung": image}),
        "lesson02.kept": lambda: lesson02.kept(scan, {"a": half}, {"all": half}),
        "lesson02.kernels": lambda: lesson02.kernels({"a": image}, {"a": line}, 1.0),
        "lesson02.over_slices": lambda: lesson02.over_slices(scan, {"lungs": half}, at=[4]),
        "lesson02.peaks": lambda: lesson02.peaks([1, 5], {"a": [0, 9]}, {"a": [0, 9]}, -850),
        "lesson02.slabs": lambda: lesson02.slabs({1.0: (image, image)}, 0.5),
        "lesson02.spacings": lambda: lesson02.spacings(lidc.scans()),
        "lesson02.steps": lambda: lesson02.steps(scan, steps),
        "lesson02.windows": lambda: lesson02.windows(image, {"a": (-1000, 400)}, 0.5),
        "lesson03.differences": lambda: lesson03.differences(image, {"other": image + 30}),
        "lesson03.hidden_samples": lambda: lesson03.hidden_samples({"line": (line, line)}),
        "lesson03.in_space": lambda: lesson03.in_space(nine),
        "lesson03.margin": lambda: lesson03.margin(wide, [(6, -6)]),
        "lesson03.nine_views": lambda: lesson03.nine_views(nine),
        "lesson03.side_by_side": lambda: lesson03.side_by_side({"a": image, "b": image}),
        "lesson04.curves_figure": lambda: lesson04.curves_figure(
            lesson04.printed_curves(), {"a line": 12}
        ),
        "lesson04.signals_figure": lambda: lesson04.signals_figure(
            {"Kaiming's": lesson04.signal(STCNN(), torch.rand(4, 1, 64, 64))}
        ),
        "lesson04.slopes_figure": lambda: lesson04.slopes_figure(
            lambda w: float(np.exp(-w[0] * w[1])), {"down": np.array([[0.1, 0.1], [2, 2]])}
        ),
        "lesson04.floor_figure": lambda: lesson04.floor_figure(cohort, 0),
        "lesson04.minus_sign_figure": lesson04.minus_sign_figure,
        "lesson04.network_figure": lambda: lesson04.network_figure(MTCNN()),
        "lesson08.choices_figure": lambda: lesson08.choices_figure(committed("simulated_fig7")),
        "lesson08.gradients_figure": lambda: lesson08.gradients_figure(watched, 0.3, 0.4, **say),
        "lesson09.costs_figure": lambda: lesson09.costs_figure(
            costs, pd.DataFrame({"a": [9, 9], "b": 1, "c": 1, "d": 1}, [1, 2])
        ),
        "lesson09.fields_figure": lambda: lesson09.fields_figure(image, labelled),
        "lesson09.influence_figure": lambda: lesson09.influence_figure({1: abs(image)}, {1: 5}),
        "lesson10.effects_figure": lambda: lesson10.effects_figure(committed("simulated_fig5")),
        "lesson10.filters_figure": lambda: lesson10.filters_figure({"a": MTCNN()}, **say),
        "lesson10.gaps_figure": lambda: lesson10.gaps_figure(gaps, **say),
        "lesson11.detector_figure": lambda: lesson11.detector_figure(
            committed("luna16_detector"), (640.0, 80, 92), "60 other scans"
        ),
        "lesson11.epochs_figure": lambda: lesson11.epochs_figure([1, 1, 0, 0], [[0, 2], [1, 3]]),
        "lesson11.kinds_figure": lambda: lesson11.kinds_figure(luna, ["vessel", "branching"], 2),
        "lesson11.lies_on_figure": lambda: lesson11.lies_on_figure(candidates(), {"vessel": 0.1}),
        "lesson11.on_slice": lambda: lesson11.on_slice(found, candidates(), 20.0),
        "lesson11.reliability_figure": lambda: lesson11.reliability_figure({"a": bins}, **say),
        "lesson11.two_axes_figure": lambda: lesson11.two_axes_figure({"a": (y, mm)}, 9, **say),
        "lesson12.block_figure": lambda: lesson12.block_figure(np.pad(ball, 16) * 1050 - 1000),
        "lesson12.cost_figure": lambda: lesson12.cost_figure(methods, "s", "seconds", of),
        "lesson12.field_figure": lesson12.field_figure,
        "lesson12.pairs_figure": lambda: lesson12.pairs_figure(square, square > 0),
        "lesson12.pretrained_figure": lambda: lesson12.pretrained_figure(nine[:3], np.ones(120)),
        "lesson12.published_figure": lambda: lesson12.published_figure(
            methods, {"auc": {"mt": 0.95}, "accuracy": {}}
        ),
        "lesson12.ranking_figure": lambda: lesson12.ranking_figure(methods),
        "lesson12.segmented_figure": lambda: lesson12.segmented_figure(
            Nodule(1050.0 * ball - 1000, ball), {"sphericity": 0.9}
        ),
        "lesson13.predictive_value_figure": lambda: lesson13.predictive_value_figure(
            lambda prevalence, auc: prevalence**auc, {"here": 0.1}
        ),
        "lesson13.splits_figure": lambda: lesson13.splits_figure(
            committed("audit")["networks"]["auc"]
        ),
        "paper.alpha_froc": lambda: paper.alpha_froc(committed("luna_fig7")),
        "paper.beside_figure": lambda: paper.beside_figure({"input": unit}, ["a", "b"], **say),
        "paper.depth_froc": lambda: paper.depth_froc(judged_by_froc("fig6")),
        "paper.regularisation_froc": lambda: paper.regularisation_froc(judged_by_froc("fig5")),
        "paper.rows_froc_figure": lambda: paper.rows_froc_figure(committed("luna_table1")),
        "paper.scores_by_rule": lambda: paper.scores_by_rule(committed("fig1")),
        "paper.ways_figure": lambda: paper.ways_figure(fig4["baselines"], **say),
        "roc.differences_figure": lambda: roc.differences_figure(
            {"a less b": compare(run[run["view"] == "fused"], predictions(scores_seed=3))}, **say
        ),
        "roc.histograms_figure": lambda: roc.histograms_figure(
            {"a": line}, UNIT, "AUC", "truth", **say
        ),
        "roc.intervals_figure": lambda: roc.intervals_figure(
            {"a": Interval(0.5, 0.4, 0.6)}, xlabel="AUC", **say
        ),
        "roc.operating_point_figure": lambda: roc.operating_point_figure(run, **say),
        "roc.reliability_figure": lambda: roc.reliability_figure(
            {"MT-CNN": calibration(run, resamples=20)}, **say
        ),
        "roc.roc_figure": lambda: roc.roc_figure({"MT-CNN": run}, resamples=20, **say),
        "roc.size_bands_figure": lambda: roc.size_bands_figure(
            size.by_size({"MT-CNN": (run, "fused")}, sized, resamples=20), **say
        ),
        "roc.view_auc_figure": lambda: roc.view_auc_figure({"MT-CNN": run}, resamples=20, **say),
        "roc.weights_figure": lambda: roc.weights_figure(np.full((2, 9), 1 / 9)),
        "roofline.roofline_figure": lambda: roofline.roofline_figure(roofline.read()),
        "roofline.speed_figure": lambda: roofline.speed_figure(*roofline.committed()),
        "roofline.time_figure": lambda: roofline.time_figure(roofline.read()),
        "views.augmentation_figure": lambda: views.augmentation_figure(cohort, 0),
        "views.learning_curves": lambda: views.learning_curves({"ST-CNN": history}, **say),
        "views.nine_views_figure": lambda: views.nine_views_figure(cohort, 1),
        "views.reconstruction_figure": lambda: views.reconstruction_figure(
            model("mt"), cohort, [0, 1]
        ),
    } | {
        f"paper.{of}": lambda of=of, name=name: getattr(paper, of)(committed(f"simulated_{name}"))
        for name, experiment in EXPERIMENTS.items() if name != "fig1"
        for ending, of in experiment.draw.items() if ending != "froc"
    }  # fmt: skip


ALL = sorted(
    f"{module.name}.{name}"
    for module in pkgutil.iter_modules(plots.__path__)
    for name, of in vars(importlib.import_module(f"labkit.plots.{module.name}")).items()
    if getattr(of, "__module__", "") == f"labkit.plots.{module.name}"
    and getattr(of, "__annotations__", {}).get("return") in ("Drawn", "Figure")
    and not name.startswith("_")
    and module.name not in ("live", "style")
)
NOTHING_SIMULATED = {
    "froc.steps_figure", "lesson02.peaks", "lesson02.spacings", "lesson03.hidden_samples",
    "lesson09.costs_figure", "lesson09.influence_figure", "lesson11.epochs_figure",
    "lesson11.lies_on_figure", "lesson13.predictive_value_figure", "lesson13.splits_figure",
    "paper.scores_by_rule", "roc.weights_figure",
    *(n for n in ALL if n.startswith("lesson01") and "outlines" not in n),
    *(n for n in ALL if n.startswith(("lesson04", "roofline")) and "floor" not in n),
    *(f"lesson12.{of}_figure" for of in ("cost", "field", "pairs", "published", "ranking")),
}  # fmt: skip
NOT_MARKED = {  # of the figures of images, since they show no CT, or mark the inputs alone
    "lesson01.agreement", "lesson01.ratings", "lesson09.influence_figure",
    "lesson10.filters_figure", "paper.error_map_figure", "views.reconstruction_figure",
}  # fmt: skip


@pytest.fixture(scope="module")
def ways(simulated):
    return drawn(simulated)


def labelled(axis, together, other: str = "") -> bool:
    """Whether an axis says what runs along it: by its label, in words at its ticks, or above."""
    words = "".join(t.get_text() for t in axis.get_ticklabels())
    labels = [of.get_label_text() for of in (axis, *together)]
    return any(labels) or bool(other) or not words or any(c.isalpha() for c in words)


@pytest.mark.parametrize("name", ALL)
def test_a_figure_says_what_it_shows_and_what_runs_along_its_axes(ways, name):
    figure = ways[name]()
    figure.draw_without_rendering()
    alt = style.alt_text(figure)
    assert len(alt) > 25 and alt.endswith(".") and "nan" not in alt.split()
    for ax in figure.axes:
        if not ax.axison or ax.name == "3d" or "colorbar" in ax.get_label():
            continue
        below = figure.get_supxlabel() or any(i.get_extent() for i in ax.images)
        xs, ys = (of.get_siblings(ax) for of in (ax.get_shared_x_axes(), ax.get_shared_y_axes()))
        assert labelled(ax.xaxis, [of.xaxis for of in xs], below), ax.get_title("left")
        beside = figure.get_supylabel() or ax.get_title("left")
        assert labelled(ax.yaxis, [of.yaxis for of in ys], beside), ax.get_title("left")
    words = [text.get_text() for text in figure.findobj(Text)]
    assert any("simulated" in word for word in words) == (name not in NOTHING_SIMULATED)
    if name not in NOT_MARKED:
        for ax in figure.axes:
            if ax.images and ax.name != "3d" and "colorbar" not in ax.get_label():
                assert style.SIMULATED in [t.get_text() for t in ax.texts]


def test_no_figure_is_left_out(ways):
    assert sorted(ways) == ALL
