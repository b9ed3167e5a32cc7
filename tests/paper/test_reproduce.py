"""The paper's figures and tables of nodules: trained once, resumed, judged on the same nodules."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest

from labkit import profiles
from labkit.errors import InputError
from labkit.evaluation import crossval, reconstruction
from labkit.evaluation.predictions import pack, read_predictions
from labkit.evaluation.statistics import roc_auc
from labkit.imaging.views import window
from labkit.models import NETWORKS
from labkit.paper import fig4, reproduce, table1, values
from labkit.paper.declared import (
    ALPHAS,
    EXPERIMENTS,
    OTHERS,
    WITH_THE_DIAMETER,
    Variant,
    alpha_label,
)
from labkit.plots import paper, style
from labkit.training import nine_views
from tests.discs import disc_cohort

TINY = dataclasses.replace(profiles.get("smoke"), epochs=1, resamples=100, rivals=())
HERE = {"device": "cpu", "jobs": 1, "progress": False}


def read(file):
    return json.loads(file.read_text())


def when_trained(out):
    return {f: f.stat().st_mtime_ns for f in out.glob("runs/*/*/units/repeat*.json")}


@pytest.fixture(scope="module")
def made(discs, tmp_path_factory):
    out = tmp_path_factory.mktemp("reproduced")
    return out, reproduce.reproduce(["fig7"], discs.folder, TINY, out, **HERE)


@pytest.fixture(scope="module")
def redrawn(discs, made):
    """Fig. 4 of the networks that Fig. 7 needs anyway."""
    before = when_trained(made[0])
    files = reproduce.reproduce("fig4", discs.folder, TINY, made[0], **HERE)
    assert when_trained(made[0]) == before
    return made[0], read(files["fig4"])


def test_a_figure_comes_with_its_table_and_everything_that_it_rests_on(discs, made):
    out, files = made
    assert files == {"fig7": out / "fig7.json"}
    assert all((out / f"fig7.{e}").stat().st_size > 1000 for e in ("json", "png", "svg", "csv"))
    found = read(files["fig7"])
    assert found["complete"] and found["missing"] == []
    assert found["cohort"]["sha256"]["views.npy"] == discs.meta["files"]["views.npy"]["sha256"]
    assert {"torch", "processor", "python"} <= set(found["hardware"])
    assert set(found["variants"]) == {alpha_label(a) for a in (0, *ALPHAS)}
    assert len(pd.read_csv(out / "fig7.csv")) == 7
    for label, of in found["variants"].items():
        trained = of["trained"]
        assert trained["device"].startswith("CPU") and trained["networks"] == 8
        assert trained["out_of_epochs"] == 8 and trained["best_epoch"]["most"] == 1  # of one epoch
        auc = of["metrics"]["auc"]
        assert auc["low"] <= auc["value"] <= auc["high"]
        fused = read_predictions(out / "runs" / discs.name / of["folder"], "fused")
        expected = roc_auc(fused["label"], fused["probability"])
        assert auc["value"] == pytest.approx(expected, abs=1e-6), label
    aucs = [found["variants"][alpha_label(a)]["metrics"]["auc"] for a in ALPHAS]
    search = found["search"]
    assert search["printed"] == pytest.approx(max(aucs, key=lambda auc: auc["value"]), abs=1e-6)
    apart = search["printed"]["value"] - search["nested"]["value"]
    assert search["optimism"]["value"] == pytest.approx(apart, abs=2e-6) and apart >= 0
    assert found["family"]["size"] == len(found["comparisons"]) == len(ALPHAS)
    folds = found["plan"]["baselines"]["folds"]
    for pair in found["comparisons"].values():
        ratio = pair["corrected_t_test"]["test_over_train"]
        assert ratio == pytest.approx(1 / (0.85 * (folds - 1)), abs=1e-6)  # of what is trained on
        assert pair["p_holm"] >= pair["p_value"]


def test_what_experiments_share_is_trained_once(discs, made):
    out, _ = made
    before = when_trained(out)
    assert len(before) == 7 * 2 * 4
    files = reproduce.reproduce(["table1", "fig7"], discs.folder, TINY, out, **HERE)
    assert when_trained(out) == before
    found, fig7 = read(files["table1"]), read(files["fig7"])
    ours = found["rows"]["MT-CNN"]["metrics"]["auc"]
    assert ours == fig7["variants"]["alpha 0.3"]["metrics"]["auc"]
    table = pd.read_csv(out / "table1.csv").set_index("method")
    published = table[["auc_as_published", "sensitivity_as_published"]]
    assert published.loc["MT-CNN"].tolist() == [0.9559, 0.8774]
    assert published.loc["Xie et al. 2019, re-run"].tolist() == [0.9404, 0.8967]
    assert published.loc["ST-CNN"].isna().all()
    assert {"size only", "MT-CNN, axial", "ST-CNN, three orthogonal"} <= set(table.index)
    assert set(found["fusion"]["MT-CNN"]["ways"]) == {
        "AUC weights (Eq. 4)", "equal weights", "best view by validation", "logistic stacking",
    }  # fmt: skip
    assert found["family"]["size"] == 1 + 2 * 2  # both, and each with and without the diameter
    assert "sweep" not in found["protocol"] and "sweep" in fig7["protocol"]
    assert set(found["alt_text"]) == {"table1", "table1_fusion"}
    assert (out / "table1_fusion.png").is_file()


def test_another_method_stands_in_table_1_with_and_without_the_diameter(discs, made, tmp_path):
    """Beside what its paper says."""
    again, rival = tmp_path / "again", NETWORKS["zhao2018"].name
    shutil.copytree(made[0], again)
    profile = dataclasses.replace(TINY, rivals=("zhao2018",))
    found = read(reproduce.reproduce("table1", discs.folder, profile, again, **HERE)["table1"])
    columns = ["auc_as_published", "accuracy_as_published", "reference"]
    table = pd.read_csv(again / "table1.csv").set_index("method")
    assert table.loc[rival, columns].tolist() == [0.877, 0.822, "Zhao et al. 2018"]
    both = {rival, rival + WITH_THE_DIAMETER}
    assert found["complete"] and both <= set(found["rows"])
    assert {f"{name} less {table1.SIZE}" for name in both} <= set(found["comparisons"])
    assert found["family"]["size"] == 1 + 3 * 2


def test_it_goes_on_where_it_stopped(discs, made, tmp_path):
    out, files = made
    again = tmp_path / "again"
    shutil.copytree(out, again)
    gone = again / "runs" / discs.name / "mt_alpha0.6" / "units" / "repeat0_fold1_view2.json"
    gone.unlink()
    before = when_trained(again)
    reproduce.reproduce("fig7", discs.folder, TINY, again, **HERE)
    after = when_trained(again)
    assert {f: after[f] for f in before} == before
    assert set(after) - set(before) == {gone}
    ours, theirs = (read(f) for f in (again / "fig7.json", files["fig7"]))
    assert ours["complete"]
    for part in ("comparisons", "search", "family", "size_only", "config", "plan"):
        assert ours[part] == theirs[part]
    for label, of in ours["variants"].items():
        assert of["metrics"] == theirs["variants"][label]["metrics"]


def test_everything_but_pictures_is_computed_again_from_packed_runs(discs, made, tmp_path):
    """Nothing is trained, and a packed run of another cohort is refused."""
    runs, packed = made[0] / "runs" / discs.name, tmp_path / "runs" / discs.name
    packed.mkdir(parents=True)
    for run in runs.iterdir():
        pack(run, packed / f"{run.name}.tar.xz")
    files = reproduce.reproduce(["table1", "fig7"], discs.folder, TINY, tmp_path, **HERE)
    assert not any(packed.glob("*/"))
    reproduce.reproduce("table1", discs.folder, TINY, made[0], **HERE)
    for name, file in files.items():
        again, before = read(file), read(made[0] / f"{name}.json")
        assert again["complete"]
        for part in ("rows", "comparisons", "family", "fusion"):
            assert again.get(part) == before.get(part)
    for way in ("printed", "nested", "bootstrap_corrected"):
        assert again["search"][way] == before["search"][way]
    other = disc_cohort(tmp_path / "others", n=40, seed=5)
    (tmp_path / "runs" / discs.name).rename(tmp_path / "runs" / other.name)
    with pytest.raises(InputError, match="its cohort differs"):
        reproduce.reproduce("fig5", other, TINY, tmp_path, **HERE)


def test_a_half_finished_figure_is_drawn_and_says_so(discs, made, tmp_path, monkeypatch):
    """Networks that are lost cost their variant, and the rest goes on."""
    again = tmp_path / "again"
    shutil.copytree(made[0], again)
    for lost in ("mt_alpha0.6", "mt_alpha0.8"):
        shutil.rmtree(again / "runs" / discs.name / lost)
    whole = crossval.run

    def fails_at_0_6(cohort, config, *arguments, **changes):
        if config.alpha == 0.6:
            raise FloatingPointError("1 of 8 networks were lost")
        return whole(cohort, config, *arguments, **changes)

    monkeypatch.setattr(crossval, "run", fails_at_0_6)
    with pytest.raises(FloatingPointError, match=r"mt_alpha0\.6: 1 of 8"):
        reproduce.reproduce("fig7", discs.folder, TINY, again, **HERE)
    found = read(again / "fig7.json")
    assert found["missing"] == ["alpha 0.6"] and not found["complete"]
    assert found["search"]["among"] == [0.2, 0.3, 0.4, 0.8, 1.0]
    # The family is what was declared, so that finishing it lets no finding go.
    assert len(found["comparisons"]) == 5 and found["family"]["size"] == len(ALPHAS) == 6
    lowest = min(found["comparisons"].values(), key=lambda pair: pair["p_value"])
    assert lowest["p_holm"] == pytest.approx(min(1, 6 * lowest["p_value"]))


def test_another_cohort_or_profile_is_not_mixed_in(discs, made, tmp_path):
    other = disc_cohort(tmp_path / "others", n=40, seed=5)
    longer = dataclasses.replace(TINY, epochs=3)
    for what, cohort, profile, more in (
        ("cohort", other, TINY, {}),
        ("profile", discs, longer, {}),
        ("profile", discs, TINY, {"folds": TINY.folds + 1}),
    ):
        with pytest.raises(InputError, match=f"another {what}"):
            reproduce.reproduce("fig7", cohort, profile, made[0], **more, **HERE)


def test_sweeps_are_on_all_folds_that_are_asked_for(discs, made):
    few = dataclasses.replace(TINY, sweep_folds=1)
    files = reproduce.reproduce("fig7", discs.folder, few, made[0], folds=TINY.folds, **HERE)
    assert read(files["fig7"])["plan"]["sweeps"]["first_folds"] is None


@pytest.mark.parametrize("wanted", [["fig9"], "table2", [], ["fig7", "nonsense"]])
def test_unknown_names_are_refused(wanted, tmp_path):
    with pytest.raises(InputError, match="there are fig1, table1, fig7, fig4, fig6, fig5, all"):
        reproduce.reproduce(wanted, None, "smoke", tmp_path)


@pytest.mark.parametrize("profile", profiles.PROFILES.values(), ids=profiles.PROFILES)
def test_a_run_folder_says_what_is_trained_in_it(profile):
    by_folder = {}
    for experiment in EXPERIMENTS.values():
        labels = [v.label for v in experiment.variants]
        assert len(set(labels)) == len(labels)
        for pair in experiment.comparisons:
            assert {name.removesuffix(WITH_THE_DIAMETER) for name in pair} <= {*labels, table1.SIZE}
        for v in experiment.variants:
            folder, config = v.folder(profile), v.config(profile)
            assert by_folder.setdefault(folder, config) == config
    assert len(set(by_folder.values())) == len(by_folder) == 2 + 5 + 8 + 16 + 4 + len(OTHERS)
    assert {"mt", "st", "mt_alpha1", "st_depth5", "mt_l2-1e-4-img"} <= set(by_folder)
    baseline = profile.training().dropout_on.replace("+", "-")
    assert f"mt_dropout-{baseline}" not in by_folder
    redrawn = EXPERIMENTS["fig4"].variants
    assert {v.folder(profile) for v in redrawn} < set(by_folder)
    assert all(v.keeps_model(profile) for v in redrawn)


def test_the_paper_profile_repeats_the_baselines_only(discs, tmp_path):
    runs = values.Runs(discs, profiles.get("paper"), tmp_path)
    assert runs.todo(Variant("MT-CNN")) == 10 * 10 * 9
    assert runs.todo(Variant("alpha 1", {"alpha": 1.0})) == 10 * 9
    full, swept = (set(profiles.get("lab").plan(sweep=s).places()) for s in (False, True))
    assert swept < full and len(swept) == 3
    thrice = dataclasses.replace(profiles.get("lab"), repeats=3)  # each with folds of its own
    assert thrice.plan(sweep=True) == thrice.plan() and thrice.plan().first_folds is None


# Fig. 4 from end to end: reconstructions measured on nodules that the networks have not seen.


def test_every_alpha_and_view_is_measured_with_an_interval(redrawn):
    out, found = redrawn
    assert found["complete"] and list(found["variants"]) == [alpha_label(a) for a in ALPHAS]
    assert set(found["baselines"]) == {fig4.MEAN, fig4.BLUR, fig4.PCA}
    for of in (*found["variants"].values(), *found["baselines"].values()):
        assert set(of["views"]) == {"0", "1", "2", "8"}
        for metric in ("psnr", "ssim"):
            every = [view[metric] for view in (of["metrics"], *of["views"].values())]
            assert all(one["low"] <= one["value"] <= one["high"] for one in every)
            mean = np.mean([one["value"] for one in every[1:]])
            assert every[0]["value"] == pytest.approx(mean, abs=1e-5)
    shown = found["variants"][fig4.SHOWN]
    assert shown["less_shown"]["psnr"] == {"value": 0, "low": 0, "high": 0}
    table = pd.read_csv(out / "fig4.csv")
    assert len(table) == (6 + 3) * (4 + 1)
    assert table.loc[table["view"] == "all", "error_hu_rim"].notna().all()
    for nodule, label in zip(found["nodules"], (1, 0), strict=True):
        said = nodule["probability"]
        assert nodule["label"] == label and set(said) == {"0", "1", "2", "8"}
        assert min(said.values()) <= nodule["fused"] <= max(said.values())


def test_values_are_those_of_unseen_nodules_by_the_first_folds_networks(discs, redrawn):
    out, found = redrawn
    run = out / "runs" / discs.name / "mt"
    tested = read_predictions(run).query("repeat == 0 and fold == 0")["nodule_id"].unique()
    rows = np.flatnonzero(discs.nodules["nodule_id"].isin(tested))
    assert found["judged"]["nodules"] == len(rows) < len(discs.labelled)
    x = window(discs.views[rows, 8][:, 6:70, 6:70])
    y = nine_views.load(run / "model", "cpu").reconstruct(discs, rows)[:, 3]
    of = found["variants"][fig4.SHOWN]["views"]["8"]
    assert of["psnr"]["value"] == pytest.approx(reconstruction.psnr(x, y).mean(), abs=1e-5)
    assert of["ssim"]["value"] == pytest.approx(reconstruction.ssim(x, y).mean(), abs=1e-5)
    error_hu = np.abs(y - x).mean() * 1400
    drawn = [row.split() for row in found["map"]["error_hu"]["8"]]
    assert np.array(drawn, dtype=float).mean() == pytest.approx(error_hu, abs=0.5)


def test_figures_are_drawn_again_from_a_json_that_holds_no_picture_of_a_nodule(redrawn):
    """Maps are means over nodules, coarser than the images."""
    out, found = redrawn
    assert len(found["map"]["error_hu"]["0"]) == 32
    assert (out / "fig4.json").stat().st_size < 200_000
    names = {"fig4", "fig4_losses", "fig4_map", "fig4_nodules"}
    assert set(found["alt_text"]) == names
    assert all((out / f"{n}.png").stat().st_size > 1000 for n in names)
    for ending, draw in EXPERIMENTS["fig4"].draw.items():
        name = "_".join(filter(None, ("fig4", ending)))
        assert style.alt_text(getattr(paper, draw)(found)) == found["alt_text"][name]


def test_perfect_copies_measure_as_perfect(discs):
    images = window(discs.views[:6, :2][..., 6:70, 6:70])
    weights = reconstruction.over_patients(np.arange(6), 50)
    distance = reconstruction.outline_distance(np.full(6, 12.0))
    exact = fig4.measure(images, lambda k, x: (x * 0.999999, {}), (0, 1), distance, weights)
    off = fig4.measure(images, lambda k, x: (x + 0.05, {}), (0, 1), distance, weights)
    assert exact.measured["metrics"]["ssim"]["value"] == pytest.approx(1)
    assert exact.measured["finest_mm"]["value"] == pytest.approx(64 / 31, abs=1e-5)
    for zone in reconstruction.ZONES:
        assert off.measured["by_zone"][zone]["value"] == pytest.approx(70, abs=0.01)
