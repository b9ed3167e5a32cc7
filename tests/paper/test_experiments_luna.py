"""The paper's figures and tables of LUNA-16's candidates: what they add, and that they go on."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest

from benchmarks.readme import readme_block
from labkit import profiles
from labkit.annotations import lidc, luna16
from labkit.cohorts import simulated_luna16
from labkit.errors import InputError
from labkit.evaluation import candidates, froc
from labkit.evaluation.crossval import make_folds
from labkit.io import write_csv
from labkit.paper import fig6, reproduce, table1
from labkit.paper import results as committed
from labkit.paper import values as luna
from labkit.paper.declared import ALPHAS, EXPERIMENTS, alpha_label, amounts
from labkit.paper.finished import Finished
from labkit.plots import paper, style
from labkit.plots.paper import table1_figure
from labkit.training.model import training_and_validation
from tests.luna_discs import SUBSETS, luna_discs

TINY = dataclasses.replace(profiles.get("smoke"), epochs=1, resamples=60)
HERE = {"device": "cpu", "jobs": 1, "progress": False}
FREE = {
    "parameters": 1, "memory_mb": 1.0, "kept_mb": 1.0, "seconds_a_step": 0.1, "batch_size": 16,
}  # fmt: skip


def read(file):
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    return luna_discs(tmp_path_factory.mktemp("luna") / "discs")


@pytest.fixture(scope="module")
def made(discs, tmp_path_factory):
    out = tmp_path_factory.mktemp("reproduced")
    return out, reproduce.reproduce("table1", discs.folder, TINY, out, **HERE)


@pytest.fixture(scope="module")
def runs(discs, made, tmp_path_factory):
    """All sweeps, of which MT-CNN and ST-CNN were trained and the others are those, blurred."""
    out = tmp_path_factory.mktemp("swept")
    shutil.copytree(made[0] / "runs", out / "runs")
    profile = dataclasses.replace(TINY, task="luna16", folds=SUBSETS)
    finished = Finished(discs, amounts(profile), out / "runs" / discs.name, "cpu")
    rng = np.random.default_rng(0)
    for name in ("fig5", "fig6", "fig7"):
        for variant in EXPERIMENTS[name].variants:
            folder = finished.run_folder(variant)
            if folder.is_dir():
                continue
            shutil.copytree(finished.folder / variant.config(profile).model, folder)
            table = pd.read_csv(folder / "predictions.csv")
            table["probability"] *= rng.uniform(0.02, 1, len(table))
            write_csv(folder / "predictions.csv", table)
    return finished


@pytest.fixture(scope="module")
def drawn(runs, tmp_path_factory):
    """Figures 5 to 7 as written; what a step costs is not measured for it."""
    out = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fig6, "costs", lambda configs, _: dict.fromkeys(configs, FREE))
        files = {n: reproduce.write(EXPERIMENTS[n], runs, out) for n in ("fig5", "fig6", "fig7")}
    return out, {name: read(file) for name, file in files.items()}


def values_of(made):
    return read(made[1]["table1"])


def test_luna_is_the_simulated_one_of_the_profiles_size(discs, made, monkeypatch, tmp_path):
    asked = []

    def simulated(scans, *, seed, progress):
        asked.append((scans, seed, progress))
        return discs

    monkeypatch.setattr(reproduce, "simulated_luna16", simulated)
    monkeypatch.chdir(tmp_path)
    files = reproduce.reproduce("table1", "luna", TINY, made[0], **HERE)
    assert read(files["table1"])["cohort"] == discs.identity
    smoke = profiles.get("smoke")
    assert asked == [(smoke.luna16_scans, smoke.luna16_seed, False)]
    (tmp_path / "luna").mkdir()
    with pytest.raises(InputError, match="is not a cohort"):
        reproduce.reproduce("table1", "luna", TINY, made[0], **HERE)
    assert len(asked) == 1


def test_the_scans_of_smoke_can_be_learnt_from_in_every_fold():
    """Each fold, and each inner split, needs a nodule that was found; most are."""
    profile = dataclasses.replace(profiles.get("smoke"), task="luna16")
    series = simulated_luna16.sample(profile.luna16_scans, profile.luna16_seed)
    patient_of = lidc.scans().set_index("series_uid")["patient_id"]
    found = luna16.from_lidc(series).annotations.groupby("series_uid").size()
    nodules = [int(found.get(uid, 0)) for uid in series]
    subsets = simulated_luna16.subsets(
        [patient_of[uid] for uid in series], nodules, profile.luna16_seed
    )
    rows = [
        {"patient_id": patient_of[uid], "series_uid": uid, "subset": subset, "label": int(k < n)}
        for uid, n, subset in zip(series, nodules, subsets, strict=True)
        for k in range(100)
    ]
    table = pd.DataFrame(rows)
    fold_of = make_folds(table, len(set(subsets)), "subset")
    for fold in np.unique(fold_of):
        train, val = training_and_validation(
            table, np.flatnonzero(fold_of != fold), profile.training(), seed=0
        )
        assert table["label"].iloc[train].nunique() == table["label"].iloc[val].nunique() == 2
    assert amounts(dataclasses.replace(profile, folds=len(set(subsets)))).sweep.first_folds == 2


def test_four_scans_are_enough_for_a_table(tmp_path):
    few = luna_discs(tmp_path / "few", scans=4)
    files = reproduce.reproduce("table1", few.folder, TINY, tmp_path / "out", **HERE)
    values = read(files["table1"])
    assert values["complete"] and (tmp_path / "out" / "table1_fusion.png").is_file()
    assert values["rows"]["MT-CNN"]["metrics"]["screening"]["scans"] == 4


def test_too_few_scans_are_told_before_anything_is_written(tmp_path):
    three = luna_discs(tmp_path / "three", scans=3)  # in the last of which no nodule was found
    with pytest.raises(InputError, match="three: fold 2 would hold one class .* of more scans"):
        reproduce.reproduce("fig7", three.folder, TINY, tmp_path / "out", **HERE)
    assert not (tmp_path / "out").exists()


def test_folds_are_the_subsets_and_the_file_says_what_was_learnt(made):
    values = values_of(made)
    assert values["task"] == "luna16" and values["cohort"]["simulated"]
    assert values["plan"]["baselines"]["split"] == "subset"
    assert values["plan"]["baselines"]["folds"] == SUBSETS
    assert values["complete"] and values["missing"] == []


def test_rows_are_judged_as_the_challenge_judges_a_submission(discs, made):
    out, _ = made
    values = values_of(made)
    marks = luna16.read_submission(out / "runs" / discs.name / "mt" / "submission.csv")
    judged = froc.evaluate(
        marks,
        luna16.read_annotations(discs.folder / "annotations.csv"),
        luna16.read_excluded(discs.folder / "annotations_excluded.csv"),
        luna16.read_series(discs.folder / "seriesuids.csv"),
        bootstraps=TINY.resamples,
    )
    found = luna.cpm(values["rows"]["MT-CNN"]["metrics"])
    assert found["value"] == pytest.approx(judged.cpm, abs=1e-6)
    assert found["low"] == pytest.approx(judged.band.cpm.low, abs=1e-6)
    at = values["rows"]["MT-CNN"]["metrics"]["screening"]
    screened = froc.screening(
        discs.nodules["label"], marks["probability"], 18, candidates.threshold(discs)
    )
    assert at["false_positive_rate"] == pytest.approx(screened.false_positive_rate, abs=1e-6)
    assert at["false_positives_per_scan"] == pytest.approx(
        screened.false_positives_per_scan, abs=1e-4
    )
    assert at["scans"] == 18 and at["positives"] + at["negatives"] == len(discs)


def test_the_table_has_lunas_rows_columns_and_published_values(made):
    out, _ = made
    table = pd.read_csv(out / "table1.csv").set_index("method")
    assert {table1.DETECTORS, "MT-CNN", "ST-CNN, axial", "MT-CNN, three orthogonal"} <= set(
        table.index
    )
    assert not any("size" in name or "Xie" in name for name in table.index)
    assert table.loc["MT-CNN", "auc_as_published"] == 0.973
    assert table.loc["MT-CNN", "specificity_as_published"] == 0.968
    assert table.loc["MT-CNN", "false_positive_rate_as_published"] == 0.032
    assert round(table.loc["MT-CNN", "false_positives_per_scan_as_published"]) == 20
    assert table["auc_as_published"].notna().sum() == 1
    of = table.loc["MT-CNN"]
    for metric in ("cpm", "false_positives_per_scan", "false_positive_rate", "auc"):
        assert of[f"{metric}_low"] <= of[metric] <= of[f"{metric}_high"], metric
    assert of["false_positive_rate"] == pytest.approx(1 - of["specificity"], abs=1e-5)
    assert (table["threshold"] < 0.15).all()


def test_comparisons_are_of_cpm_too_and_with_the_detector(made):
    values = values_of(made)
    assert set(values["comparisons"]) == {
        "MT-CNN less ST-CNN",
        f"MT-CNN less {table1.DETECTORS}",
        f"ST-CNN less {table1.DETECTORS}",
    }
    assert values["family"]["size"] == 3
    for pair in values["comparisons"].values():
        first, second = (values["rows"][n] for n in _names(values, pair))
        d = pair["cpm_difference"]
        expected = first["metrics"]["froc"]["cpm"] - second["metrics"]["froc"]["cpm"]
        assert d["value"] == pytest.approx(expected, abs=2e-6)
        assert d["low"] <= d["high"]


def _names(values, pair):
    name = next(n for n, p in values["comparisons"].items() if p is pair)
    return name.split(" less ")


def test_it_goes_on_where_it_stopped(discs, made, tmp_path, monkeypatch):
    out, _ = made
    again = tmp_path / "again"
    shutil.copytree(out, again)
    run = again / "runs" / discs.name
    gone = run / "mt" / "units" / "repeat0_fold1_view2.json"
    gone.unlink()
    (run / "mt" / "predictions.csv").unlink()
    before = {f: f.stat().st_mtime_ns for f in run.glob("[ms]t/units/repeat*.json")}
    assert len(before) == 2 * SUBSETS * 4 - 1
    monkeypatch.setattr(reproduce, "write", lambda e, *_: again / f"{e.name}.json")
    reproduce.reproduce("table1", discs.folder, TINY, again, **HERE)
    assert {f: f.stat().st_mtime_ns for f in before} == before
    assert gone.is_file()
    for name in ("predictions.csv", "submission.csv"):
        there = out / "runs" / discs.name / "mt" / name
        assert (run / "mt" / name).read_bytes() == there.read_bytes()


def test_sweeps_come_with_froc_and_the_detector_in_the_diameters_place(drawn):
    out, values = drawn
    for name, of in values.items():
        assert of["complete"] and of["task"] == "luna16" and "size_only" not in of
        assert 0.5 < of["detector"]["auc"]["value"] < 1
        assert all(luna.cpm(v["metrics"]) for v in of["variants"].values())
        assert all("cpm_difference" in pair for pair in of["comparisons"].values())
        for ending in (".png", ".svg", ".csv", "_froc.png", "_froc.svg"):
            assert (out / f"{name}{ending}").stat().st_size > 1000
        assert set(of["alt_text"]) == {name, f"{name}_froc"}
        table = pd.read_csv(out / f"{name}.csv")
        assert len(table) == len(of["variants"])
        assert {"candidates", "cpm", "false_positives_per_scan", "cpm_difference"} <= set(table)


def dots(ax):
    """(x, y) of everything that is drawn as a single point."""
    lines = [line for line in ax.get_lines() if len(line.get_xdata()) == 1]
    return {(line.get_xdata()[0], line.get_ydata()[0]) for line in lines}


def test_each_alphas_cpm_stands_at_its_place(drawn):
    values = drawn[1]["fig7"]
    curves, right = paper.alpha_froc(values).axes
    for alpha in ALPHAS:
        cpm = values["variants"][alpha_label(alpha)]["metrics"]["froc"]["cpm"]
        assert (alpha, cpm) in dots(right)
    said = [t.get_text() for t in curves.get_legend().get_texts()]
    assert said[0].startswith("detector's score: ") and len(said) == 1 + 7
    assert curves.get_xlim()[0] < 1 / 8 < 8 < curves.get_xlim()[1]


def test_depth_and_regularisation_have_a_cpm_for_every_variant(drawn):
    st, mt, right = paper.depth_froc(drawn[1]["fig6"]).axes
    assert len(dots(right)) == 10
    assert all(len(ax.get_legend().get_texts()) == 1 + 5 for ax in (st, mt))
    left, middle, dropout = paper.regularisation_froc(drawn[1]["fig5"]).axes
    assert (len(dots(middle)), len(dots(dropout))) == (16, 6)
    assert len(left.get_legend().get_texts()) == 1 + 4


def test_figures_say_candidates_scans_detector_and_simulated(made, drawn):
    alphas, methods = paper.alpha_figure(drawn[1]["fig7"]), table1_figure(values_of(made))
    assert "144 candidates in 12 scans" in alphas.get_supxlabel()  # a sweep is of two folds
    assert "216 candidates in 18 scans" in methods.get_supxlabel()
    for figure in (alphas, methods):
        assert "simulated CT" in [ax.get_title("right") for ax in figure.axes]
    legend = paper.alpha_figure(drawn[1]["fig7"]).axes[0].get_legend().get_texts()
    assert any(t.get_text().startswith("detector's score") for t in legend)
    shown = table1_figure(values_of(made))
    assert [ax.get_xlabel().split(" at ")[0] for ax in shown.axes] == [
        "AUC", "sensitivity", "specificity", "false positives a scan", "CPM",
    ]  # fmt: skip
    assert 0.973 in {x for x, _ in dots(shown.axes[0])}
    assert "CPM" in style.alt_text(shown)


def test_what_froc_cannot_judge_is_said_and_the_rest_is_measured(discs, runs, monkeypatch):
    """Without an annotated nodule there is no sensitivity of nodules."""
    none = luna16.read_annotations(discs.folder / "annotations.csv").iloc[:0]
    monkeypatch.setattr(luna16, "read_annotations", lambda _: none)
    table = runs.predictions(EXPERIMENTS["table1"].variants[0])
    found = runs.measure((table, "fused"))
    assert "no nodule is annotated" in found["froc"][luna.NOT_COMPUTED]
    assert found["auc"]["value"] > 0 and luna.cpm(found) is None
    pair = runs.compare((table, "fused"), (table, "detector"))
    assert "no nodule is annotated" in pair["cpm_difference"][luna.NOT_COMPUTED]
    of = {"name": "fig7", "variants": {"alpha 0": {"metrics": found}}}
    with pytest.raises(InputError, match="no variant was judged by FROC"):
        paper.alpha_froc(of)


def test_fig4_is_of_nodules_and_says_so_before_it_trains(discs, tmp_path):
    with pytest.raises(InputError, match="fig4 .* LUNA-16's candidates"):
        reproduce.reproduce("fig4", discs, TINY, tmp_path, **HERE)
    assert not list(tmp_path.glob("runs/*/*/units/*"))


@pytest.fixture
def results(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.setenv("LABKIT_RESULTS", str(folder))
    return folder


def test_collected_as_luna_and_as_nothing_else(made, drawn, results):
    done = committed.collect(drawn[0], "luna")
    committed.collect(made[0], "luna")
    assert {f.name for f in done.files} == {f"luna_{n}.json" for n in ("fig5", "fig6", "fig7")}
    values = committed.read("fig7", "luna")
    assert values == drawn[1]["fig7"]
    said = committed.provenance(values)
    assert "216 candidates of LUNA-16, simulated CT" in said
    assert "144 of them judged in 12 scans with 12 nodules" in said
    for wrong in committed.NODULES:
        with pytest.raises(InputError, match=f"made of luna images, not {wrong}"):
            committed.collect(drawn[0], wrong)
    assert ("table1", "luna") in committed.there(("luna",))
    assert committed.there() == []  # of nodules


def test_the_readme_has_the_rows_the_sweeps_and_what_was_published(made, drawn, results):
    assert "LUNA-16" not in readme_block()  # nothing is committed yet
    committed.collect(drawn[0], "luna")
    committed.collect(made[0], "luna")
    block = readme_block().splitlines()
    table = [line for line in block if line.startswith("| ")]
    assert table[0].startswith(
        "| Method | AUC | Sensitivity | Specificity | False positives a scan"
    )
    values = values_of(made)
    assert [line.split(" | ")[0][2:] for line in table[1:]] == [
        table1.DETECTORS, "ST-CNN", "ST-CNN, axial", "ST-CNN, three orthogonal",
        f"ST-CNN {table1.WITH_DETECTOR}", "MT-CNN", "MT-CNN, axial", "MT-CNN, three orthogonal",
        f"MT-CNN {table1.WITH_DETECTOR}",
    ]  # fmt: skip
    cells = table[6].split(" | ")
    metrics = values["rows"]["MT-CNN"]["metrics"]
    assert cells[1].startswith(f"{metrics['auc']['value']:.3f} (")
    assert cells[4].startswith(f"{metrics['screening']['false_positives_per_scan']:.1f} (")
    assert cells[5].startswith(f"{metrics['froc']['cpm']:.3f} (")
    assert cells[6] == "AUC 0.973, Specificity 0.968, False positives a scan 19.8 |"
    assert [line.split(" | ")[6] for line in table[1:6]] == [" |"] * 5
    said = next(line for line in block if "Candidates of a detector in simulated CT" in line)
    positives = metrics["screening"]["positives"]
    assert f"216 in 18 scans, {positives} of them on nodules" in said
    assert f"1 x {SUBSETS} folds by subset" in said
    compared = [line for line in block if line.startswith("- AUC of ")]
    assert len(values["comparisons"]) == 3
    assert len(values["together"]) == 4  # both opinions less each alone, of two models
    assert len(compared) == 7
    for line, family in zip(compared, [3] * 3 + [4] * 4, strict=True):
        assert f"Holm-corrected over {family}" in line
        assert "; in CPM " in line
    swept = [line for line in block if line.startswith("- LUNA-16, simulated, ")]
    assert [line.split(", ")[2].split(" (")[0] for line in swept] == [
        "alpha", "depth", "regularisation",
    ]  # fmt: skip
    assert all("; in CPM " in line for line in swept)


def test_nodules_are_not_collected_as_luna(results, tmp_path):
    of = {"name": "fig7", "task": "malignancy", "cohort": {"simulated": True}, "complete": True}
    (tmp_path / "fig7.json").write_text(json.dumps(of))
    with pytest.raises(InputError, match="made of simulated images, not luna"):
        committed.collect(tmp_path, "luna")


@pytest.mark.parametrize(("name", "cohort"), committed.there((committed.LUNA,)))
def test_every_committed_figure_of_luna_says_what_it_was_measured_on(name, cohort):
    values = committed.read(name, cohort)
    if EXPERIMENTS[name].variants:
        assert committed.kind(values) == "luna"
        assert values["cohort"]["sha256"]["views.npy"] and "CT" in committed.provenance(values)
