"""The paper's figures and tables of LUNA-16's candidates: what they add, and that they go on."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest

from labkit import profiles
from labkit.annotations import luna16
from labkit.cohorts import simulated_luna16
from labkit.errors import InputError
from labkit.evaluation import froc
from labkit.evaluation.predictions import threshold
from labkit.io import write_csv
from labkit.paper import fig6, reproduce, table1
from labkit.paper import results as committed
from labkit.paper import values as luna
from labkit.paper.declared import EXPERIMENTS
from labkit.paper.values import Runs
from labkit.plots import paper
from tests.luna_discs import SUBSETS, luna_discs

TINY = dataclasses.replace(profiles.get("smoke"), epochs=1, resamples=60)
HERE = {"device": "cpu", "jobs": 1, "progress": False}
FREE = dict.fromkeys(("parameters", "memory_mb", "kept_mb", "batch_size"), 1)
FREE |= {"seconds_a_step": 0.1}


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
    finished = Runs(discs, profile, out / "runs" / discs.name, "cpu")
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
    monkeypatch.setattr(
        simulated_luna16,
        "simulated_luna16",
        lambda n, seed, progress: asked.append((n, seed)) or discs,
    )
    monkeypatch.chdir(tmp_path)
    files = reproduce.reproduce("table1", "luna", TINY, made[0], **HERE)
    assert read(files["table1"])["cohort"] == discs.identity
    assert asked == [(TINY.luna16_scans, TINY.luna16_seed)]
    (tmp_path / "luna").mkdir()
    with pytest.raises(InputError, match="is not a cohort"):
        reproduce.reproduce("table1", "luna", TINY, made[0], **HERE)


def test_too_few_scans_are_told_before_anything_is_written(tmp_path):
    three = luna_discs(tmp_path / "three", scans=3)  # in the last of which no nodule was found
    with pytest.raises(InputError, match="three: fold 2 would hold one class .* of more scans"):
        reproduce.reproduce("fig7", three.folder, TINY, tmp_path / "out", **HERE)
    assert not (tmp_path / "out").exists()


def test_rows_are_judged_as_the_challenge_judges_a_submission(discs, made):
    out, values = made[0], values_of(made)
    assert values["task"] == "luna16" and values["cohort"]["simulated"] and values["complete"]
    plan = values["plan"]["baselines"]
    assert (plan["split"], plan["folds"]) == ("subset", SUBSETS)
    marks = luna16.read_submission(out / "runs" / discs.name / "mt" / "submission.csv")
    against = froc.truth(discs, marks["seriesuid"])
    judged = froc.evaluate(marks, *against, bootstraps=TINY.resamples)
    of = values["rows"]["MT-CNN"]["metrics"]
    found, at = luna.cpm(of), of["screening"]
    expected = (judged.cpm, judged.band.cpm.low, judged.band.cpm.high)
    assert tuple(found.values()) == pytest.approx(expected, abs=1e-6)
    screened = froc.screening(discs.nodules["label"], marks["probability"], 18, threshold(discs))
    assert at["false_positive_rate"] == pytest.approx(screened.false_positive_rate, abs=1e-6)
    assert at["false_positives_per_scan"] == pytest.approx(
        screened.false_positives_per_scan, abs=1e-4
    )
    assert at["scans"] == 18 and at["positives"] + at["negatives"] == len(discs)


def test_the_table_has_lunas_rows_columns_and_published_values(made):
    table = pd.read_csv(made[0] / "table1.csv").set_index("method")
    here = {table1.DETECTORS, "MT-CNN", "ST-CNN, axial", "MT-CNN, three orthogonal"}
    assert here <= set(table.index)
    assert not any("size" in name or "Xie" in name for name in table.index)
    of = table.loc["MT-CNN"]
    published = {"auc": 0.973, "specificity": 0.968, "false_positive_rate": 0.032}
    assert {name: of[f"{name}_as_published"] for name in published} == published
    assert round(of["false_positives_per_scan_as_published"]) == 20
    assert table["auc_as_published"].notna().sum() == 1
    for metric in ("cpm", "false_positives_per_scan", "false_positive_rate", "auc"):
        assert of[f"{metric}_low"] <= of[metric] <= of[f"{metric}_high"], metric
    assert of["false_positive_rate"] == pytest.approx(1 - of["specificity"], abs=1e-5)
    assert (table["threshold"] < 0.15).all()


def test_comparisons_are_of_cpm_too_and_with_the_detector(made):
    values = values_of(made)
    alone = table1.DETECTORS
    pairs = [("MT-CNN", "ST-CNN"), ("MT-CNN", alone), ("ST-CNN", alone)]
    assert set(values["comparisons"]) == {f"{a} less {b}" for a, b in pairs}
    assert values["family"]["size"] == 3
    for pair in pairs:
        d = values["comparisons"][" less ".join(pair)]["cpm_difference"]
        first, second = (values["rows"][name]["metrics"]["froc"]["cpm"] for name in pair)
        assert d["value"] == pytest.approx(first - second, abs=2e-6)
        assert d["low"] <= d["high"]


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


def test_collected_as_luna_and_as_nothing_else(made, drawn, results_folder):
    written, _ = committed.collect(drawn[0], "luna")
    committed.collect(made[0], "luna")
    assert {f.name for f in written} == {f"luna_{n}.json" for n in ("fig5", "fig6", "fig7")}
    values = committed.read("fig7", "luna")
    assert values == drawn[1]["fig7"]
    said = committed.provenance(values)
    assert "216 candidates of LUNA-16, simulated CT" in said
    assert "144 of them judged in 12 scans with 12 nodules" in said
    with pytest.raises(InputError, match="made of luna images, not real"):
        committed.collect(drawn[0], "real")
    assert ("table1", "luna") in committed.there(("luna",))
    assert committed.there() == []  # of nodules
