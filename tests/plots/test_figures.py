"""Every figure can be drawn, says in words what it shows, and names its axes with their units."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import partial

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
from labkit.plots import lesson01, lesson04, roofline, style
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


class Luna:
    """Candidates as a cohort has them."""

    nodules, views, simulated = candidates(), np.zeros((6, 9, 76, 76), np.uint8), True


def call(*args, **named):
    return args, named


def calls(cohort: Cohort) -> dict[str, tuple]:
    """Name of a figure -> what to draw it of."""
    nodules = lidc.nodules()
    labelled = nodules[nodules["label"].notna()].reset_index(drop=True)
    hero = nodules.set_index("nodule_id", drop=False).loc[HERO]
    contours, ct = lidc.contours(HERO), scan_crop(hero, half_width_mm=15)
    counts = lesson01.class_counts({"all": nodules, "none": nodules[:0]})
    y, mm = labelled["label"].to_numpy(int), labelled["diameter_mm"]
    fused, other = predictions(patients=40), predictions(patients=40, scores_seed=2)
    run = pd.concat([fused, other.assign(view="size_only")])
    sized = pd.DataFrame({"nodule_id": sorted(set(run["nodule_id"])), "diameter_mm": 9.0})
    scan = Volume(RNG.normal(-500, 300, (9, 12, 14)).astype(np.int16), (1.0, 1.0, 2.5))
    half = np.zeros(scan.shape, bool)
    half[2:7, 2:10, 3:9] = True
    image, nine = RNG.normal(-400, 300, (64, 64)), RNG.normal(-400, 300, (9, 16, 16))
    wide, unit = RNG.normal(-400, 300, (76, 76)), RNG.uniform(0, 1, (2, 64, 64))
    line, ball = np.arange(9.0), sum(x**2 for x in np.ogrid[-15.5:16, -15.5:16, -15.5:16]) < 64
    losses = {"train_cls": [0.7, 0.4], "train_img": [0.5, 0.4], "val_cls": 0.6, "val_auc": 0.7}
    history = pd.DataFrame({"epoch": [0, 1], **losses})
    watched = history.assign(cls=[0.1, 0.3], img=[0.4, 0.2])
    cost = dict.fromkeys(("gflop_a_step", "memory_mb", "kept_mb", "seconds_a_step"), 1.0)
    costs = pd.DataFrame(
        [cost | {"batch_size": 16}] * 4, pd.MultiIndex.from_product([["st", "mt"], [1, 2]])
    )
    gaps = pd.DataFrame(
        [[0.4, 0.5, 0.9, 0.8], [0.1, 0.7, 0.99, 0.85]], ["ST-CNN", "MT-CNN"],
        pd.MultiIndex.from_product([["loss", "auc"], ["trained on", "held out"]]),
    )  # fmt: skip
    place = (0.5, 0.5, 2.0), (-24.75, -14.75, 0.0)
    found = Volume(np.full((40, 60, 100), -850, np.int16), *place, series_uid="a")
    walk = pd.DataFrame({"probability": [0.9], "counts_as": [froc.FOUND],
                         "false_positives_per_scan": [0.0], "sensitivity": [0.5]})  # fmt: skip
    splits = pd.DataFrame({f"{what}_{end}": [0.8] for end in ("chosen", "elsewhere")
                           for what in ("sensitivity", "false_positives")})  # fmt: skip
    bins = pd.DataFrame({"predicted": [0.001, 0.5], "observed": [0.0, 0.4], "low": [0.0, 0.2],
                         "high": [0.02, 0.6]})  # fmt: skip
    bands = size.by_size({"MT-CNN": (run, "fused")}, sized, resamples=20)
    of, three = Interval(0.9, 0.8, 0.95), torch.rand(4, 1, 64, 64)
    row = {"auc": of, "pooled": of, "accuracy": of, "place": Interval(1.5, 1, 2), "s": 9.0}
    methods = pd.DataFrame({"best": row, "mt": row | {"s": 900.0}, "size": row}).T
    square = pd.DataFrame([[0.0, 0.1], [-0.1, 0.0]], ["best", "mt"], ["best", "mt"])
    ways = {"down": np.array([[0.1, 0.1], [2, 2]])}
    return {
        "froc.froc_figure": call({"MT-CNN": judged()}),
        "froc.steps_figure": call(walk, judged()),
        "froc.transferred_figure": call(splits, 0.8),
        "lesson01.agreement": call(np.array([[6, 2], [1, 3]])),
        "lesson01.classes": call(counts[:1], percent=True),
        "lesson01.malignancy_scores": call(nodules),
        "lesson01.outlines": call(contours, hero, ct, center_of(hero)),
        "lesson01.rating_agreement": call(UNIT),
        "lesson01.ratings": call(lidc.annotations()[:4]),
        "lesson01.rocs": call(y, {"diameter": mm, "other": -mm}),
        "lesson01.siblings": call(labelled, {"one by one": range(len(y))}),
        "lesson01.size_by_class": call(labelled),
        "lesson01.size_by_score": call(nodules),
        "lesson02.histogram": call({"lung": image}),
        "lesson02.kept": call(scan, {"a": half}, {"all": half}),
        "lesson02.kernels": call({"a": image}, {"a": line}, 1.0),
        "lesson02.over_slices": call(scan, {"lungs": half}, at=[4]),
        "lesson02.peaks": call([1, 5], {"a": [0, 9]}, {"a": [0, 9]}, -850),
        "lesson02.slabs": call({1.0: (image, image)}, 0.5),
        "lesson02.spacings": call(lidc.scans()),
        "lesson02.steps": call(scan, lungs.Steps(*[half] * 7)),
        "lesson02.windows": call(image, {"a": (-1000, 400)}, 0.5),
        "lesson03.differences": call(image, {"other": image + 30}),
        "lesson03.hidden_samples": call({"line": (line, line)}),
        "lesson03.in_space": call(nine),
        "lesson03.margin": call(wide, [(6, -6)]),
        "lesson03.nine_views": call(nine),
        "lesson03.side_by_side": call({"a": image, "b": image}),
        "lesson04.curves_figure": call(lesson04.printed_curves(), {"a line": 12}),
        "lesson04.floor_figure": call(cohort, 0),
        "lesson04.minus_sign_figure": call(),
        "lesson04.network_figure": call(MTCNN()),
        "lesson04.signals_figure": call({"Kaiming's": lesson04.signal(STCNN(), three)}),
        "lesson04.slopes_figure": call(lambda w: float(np.exp(-w[0] * w[1])), ways),
        "lesson08.choices_figure": call(committed("simulated_fig7")),
        "lesson08.gradients_figure": call(watched, 0.3, 0.4),
        "lesson09.costs_figure": call(costs, pd.DataFrame(dict.fromkeys("abcd", 1e5), [1, 2])),
        "lesson09.fields_figure": call(image, labelled),
        "lesson09.influence_figure": call({1: abs(image)}, {1: 5}),
        "lesson10.effects_figure": call(committed("simulated_fig5")),
        "lesson10.filters_figure": call({"a": MTCNN()}),
        "lesson10.gaps_figure": call(gaps),
        "lesson11.detector_figure": call(committed("luna16_detector"), (640.0, 80, 92), "others"),
        "lesson11.epochs_figure": call([1, 1, 0, 0], [[0, 2], [1, 3]]),
        "lesson11.kinds_figure": call(Luna, ["vessel", "branching"]),
        "lesson11.lies_on_figure": call(candidates(), {"vessel": 0.1}),
        "lesson11.on_slice": call(found, candidates(), 20.0),
        "lesson11.reliability_figure": call({"a": bins}),
        "lesson11.two_axes_figure": call({"a": (y, mm)}, 9),
        "lesson12.block_figure": call(np.pad(ball, 16) * 1050 - 1000),
        "lesson12.cost_figure": call(methods, "s", "seconds", of),
        "lesson12.field_figure": call(),
        "lesson12.pairs_figure": call(square, square > 0),
        "lesson12.pretrained_figure": call(nine[:3], np.ones(120)),
        "lesson12.published_figure": call(methods, {"auc": {"mt": 0.95}, "accuracy": {}}),
        "lesson12.ranking_figure": call(methods),
        "lesson12.segmented_figure": call(Nodule(1050.0 * ball - 1000, ball), {"sphericity": 0.9}),
        "lesson13.predictive_value_figure": call(lambda share, auc: share**auc, {"here": 0.1}),
        "lesson13.splits_figure": call(committed("audit")["networks"]["auc"]),
        "paper.alpha_froc": call(committed("luna_fig7")),
        "paper.beside_figure": call({"input": unit}, ["a", "b"]),
        "paper.depth_froc": call(judged_by_froc("fig6")),
        "paper.regularisation_froc": call(judged_by_froc("fig5")),
        "paper.rows_froc_figure": call(committed("luna_table1")),
        "paper.scores_by_rule": call(committed("fig1")),
        "paper.ways_figure": call(committed("simulated_fig4")["baselines"]),
        "roc.differences_figure": call({"a less b": compare(fused, other)}),
        "roc.histograms_figure": call({"a": line}, UNIT, "AUC", "truth"),
        "roc.intervals_figure": call({"a": Interval(0.5, 0.4, 0.6)}, xlabel="AUC"),
        "roc.operating_point_figure": call(run),
        "roc.reliability_figure": call({"MT-CNN": calibration(run, resamples=20)}),
        "roc.roc_figure": call({"MT-CNN": run}, resamples=20),
        "roc.size_bands_figure": call(bands),
        "roc.view_auc_figure": call({"MT-CNN": run}, resamples=20),
        "roc.weights_figure": call(np.full((2, 9), 1 / 9)),
        "roofline.roofline_figure": call(roofline.read()),
        "roofline.speed_figure": call(*roofline.committed()),
        "roofline.time_figure": call(roofline.read()),
        "views.augmentation_figure": call(cohort, 0),
        "views.learning_curves": call({"ST-CNN": history}),
        "views.nine_views_figure": call(cohort, 1),
        "views.reconstruction_figure": call(model("mt"), cohort, [0, 1]),
    } | {
        f"paper.{of}": call(committed(f"simulated_{name}"))
        for name, experiment in EXPERIMENTS.items() if name != "fig1"
        for ending, of in experiment.draw.items() if ending != "froc"
    }  # fmt: skip


MODULES = {of.name: f"{plots.__name__}.{of.name}" for of in pkgutil.iter_modules(plots.__path__)}
ALL = sorted(
    f"{module}.{name}"
    for module, path in MODULES.items()
    for name, of in vars(importlib.import_module(path)).items()
    if isinstance(of, partial) or (hasattr(of, "__wrapped__") and of.__module__ == path)
    if name not in ("curves", "figure")
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
def of_each(simulated):
    return calls(simulated)


def labelled(axis, together, other: str = "") -> bool:
    """Whether an axis says what runs along it: by its label, in words at its ticks, or above."""
    words = "".join(t.get_text() for t in axis.get_ticklabels())
    labels = [of.get_label_text() for of in (axis, *together)]
    return any(labels) or bool(other) or not words or any(c.isalpha() for c in words)


@pytest.mark.parametrize("name", ALL)
def test_a_figure_says_what_it_shows_and_what_runs_along_its_axes(of_each, name):
    module, draw = name.split(".")
    draw, (args, named) = getattr(importlib.import_module(MODULES[module]), draw), of_each[name]
    kind = {"simulated": True} if "simulated" in inspect.signature(draw).parameters else {}
    figure = draw(*args, **named, **kind)
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
        if ax.images and name not in NOT_MARKED:
            assert style.SIMULATED in [t.get_text() for t in ax.texts]
    words = [text.get_text() for text in figure.findobj(Text)]
    assert any("simulated" in word for word in words) == (name not in NOTHING_SIMULATED)
