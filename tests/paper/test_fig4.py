"""Fig. 4 from end to end: networks' reconstructions measured on nodules they have not seen."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from labkit import profiles
from labkit.errors import InputError
from labkit.evaluation import crossval, reconstruction
from labkit.imaging.views import window
from labkit.paper import fig4, reproduce
from labkit.paper.declared import ALPHA_SHOWN, ALPHAS, EXPERIMENTS, alpha_label
from labkit.plots import paper, style
from labkit.training import model

TINY = dataclasses.replace(profiles.get("smoke"), epochs=1, resamples=100)
HERE = {"device": "cpu", "jobs": 1, "progress": False}
SHOWN = alpha_label(ALPHA_SHOWN)


@pytest.fixture(scope="module")
def made(discs, tmp_path_factory):
    out = tmp_path_factory.mktemp("fig4")
    files = reproduce.reproduce("fig4", discs.folder, TINY, out, **HERE)
    return out, json.loads(files["fig4"].read_text())


def interval_of(of):
    return of["low"] <= of["value"] <= of["high"]


def test_it_needs_no_training_that_fig7_does_not_need():
    mine, others = ({v.folder(TINY) for v in EXPERIMENTS[n].variants} for n in ("fig4", "fig7"))
    assert mine < others
    assert all(v.keeps_model(TINY) for v in EXPERIMENTS["fig4"].variants)


def test_every_alpha_and_view_is_measured_with_an_interval(made):
    out, values = made
    assert values["complete"]
    assert list(values["variants"]) == [alpha_label(a) for a in ALPHAS]
    assert set(values["baselines"]) == {fig4.MEAN, fig4.BLUR, fig4.PCA}
    for of in (*values["variants"].values(), *values["baselines"].values()):
        assert set(of["views"]) == {"0", "1", "2", "8"}
        for view in (of["metrics"], *of["views"].values()):
            assert interval_of(view["psnr"]) and interval_of(view["ssim"])
        for metric in ("psnr", "ssim"):
            mean = np.mean([view[metric]["value"] for view in of["views"].values()])
            assert of["metrics"][metric]["value"] == pytest.approx(mean, abs=1e-5)
    assert values["variants"][SHOWN]["less_shown"]["psnr"] == {"value": 0, "low": 0, "high": 0}
    table = pd.read_csv(out / "fig4.csv")
    assert len(table) == (6 + 3) * (4 + 1)
    assert table.loc[table["view"] == "all", "error_hu_rim"].notna().all()


def test_values_are_those_of_unseen_nodules_by_the_first_folds_networks(discs, made):
    out, values = made
    run = out / "runs" / discs.name / "mt"
    predictions = crossval.read_predictions(run)
    tested = predictions.query("repeat == 0 and fold == 0")["nodule_id"].unique()
    rows = np.flatnonzero(discs.nodules["nodule_id"].isin(tested))
    assert values["judged"]["nodules"] == len(rows) < len(discs.labelled)
    x = window(discs.views[rows, 8][:, 6:70, 6:70])
    y = model.load(run / "model", "cpu").reconstruct(discs, rows)[:, 3]
    of = values["variants"][SHOWN]["views"]["8"]
    assert of["psnr"]["value"] == pytest.approx(reconstruction.psnr(x, y).mean(), abs=1e-5)
    assert of["ssim"]["value"] == pytest.approx(reconstruction.ssim(x, y).mean(), abs=1e-5)
    error_hu = np.abs(y - x).mean() * 1400
    drawn = [row.split() for row in values["map"]["error_hu"]["8"]]
    assert np.array(drawn, dtype=float).mean() == pytest.approx(error_hu, abs=0.5)


def test_the_nodules_shown_are_typical_and_carry_their_probabilities(discs, made):
    _, values = made
    malignant, benign = values["nodules"]
    assert (malignant["label"], benign["label"]) == (1, 0)
    for one in (malignant, benign):
        assert set(one["probability"]) == {"0", "1", "2", "8"}
        assert min(one["probability"].values()) <= one["fused"] <= max(one["probability"].values())


def test_figures_can_be_drawn_again_from_the_json_alone(made):
    out, values = made
    names = {"fig4", "fig4_losses", "fig4_map", "fig4_nodules"}
    assert set(values["alt_text"]) == names
    assert all((out / f"{n}.png").stat().st_size > 1000 for n in names)
    maker = reproduce.MAKERS["fig4"]
    for name, draw in (("fig4", maker.draw), *((f"fig4_{k}", d) for k, d in maker.more.items())):
        assert style.alt_text(draw(values)) == values["alt_text"][name]


def test_no_json_holds_a_picture_of_a_nodule(made):
    """Maps are means over nodules, coarser than the images."""
    values = made[1]
    assert len(values["map"]["error_hu"]["0"]) == 32
    assert not {"images", "pictures"} & set(values)
    assert (made[0] / "fig4.json").stat().st_size < 200_000


def test_nothing_is_drawn_before_the_alpha_that_is_shown_is_there(made):
    _, values = made
    none = {**values, "variants": {}, "map": {}}
    for draw in (paper.fidelity_figure, paper.losses_figure):
        with pytest.raises(InputError, match="no variant is finished"):
            draw(none)
    with pytest.raises(InputError, match="no map to draw"):
        paper.error_map_figure(none)


def test_perfect_copies_measure_as_perfect(discs):
    images = window(discs.views[:6, :2][..., 6:70, 6:70])
    weights = reconstruction.over_patients(np.arange(6), 50)
    distance = reconstruction.outline_distance(np.full(6, 12.0))
    bright = lambda k, x: (x + 0.05, {})  # noqa: E731
    exact = fig4.measure(images, lambda k, x: (x * 0.999999, {}), (0, 1), distance, weights)
    off = fig4.measure(images, bright, (0, 1), distance, weights)
    assert exact.measured["metrics"]["ssim"]["value"] == pytest.approx(1)
    assert exact.measured["finest_mm"]["value"] == pytest.approx(64 / 31, abs=1e-5)
    for zone in reconstruction.ZONES:
        assert off.measured["by_zone"][zone]["value"] == pytest.approx(70, abs=0.01)
    drawn = paper.ways_figure({"exact": exact.measured, "bright": off.measured}, simulated=True)
    assert "exact: error in HU inside 0" in style.alt_text(drawn)
    with pytest.raises(InputError, match="no way to redraw"):
        paper.ways_figure({})


def test_nodules_side_by_side_are_as_many_as_they_are_named(discs):
    images = window(discs.views[:2, 0][..., 6:70, 6:70])
    drawn = paper.beside_figure(
        {"input": images, "flat": np.full_like(images, 0.5)}, ["one", "two"], simulated=True
    )
    assert len(drawn.axes) == 4 and "input, flat" in style.alt_text(drawn)
    with pytest.raises(InputError, match="each of the 2 nodules"):
        paper.beside_figure({"input": images[:1]}, ["one", "two"])
