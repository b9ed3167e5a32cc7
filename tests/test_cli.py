"""The commands as a user types them: their output, their files, their exit status."""

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest

from labkit import cli, profiles
from labkit.errors import InputError

SMALL = ["--epochs", "2", "--views", "0,1", "--device", "cpu", "--precision", "fp32"]


def _fails(capsys, *arguments) -> str:
    """The one line that a command prints when its input is bad."""
    assert cli.main([str(a) for a in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1, error
    assert error[0].startswith("labkit: ")
    return error[0]


def test_nodules_prints_the_counts_and_size_alone(capsys, tmp_path):
    out = tmp_path / "nodules.csv"
    assert cli.main(["nodules", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "1192 nodules of 607 patients: 388 benign, 441 uncertain, 363 malignant" in text
    assert re.search(r"AUC of the diameter alone: 0\.940 \(0\.9\d\d to 0\.9\d\d\)", text)
    table = pd.read_csv(out)
    assert len(table) == 1192
    assert table["nodule_id"].is_unique


def test_nodules_rules_are_options(capsys):
    assert cli.main(["nodules", "--max-thickness", "inf", "--aggregate", "mean",
                     "--min-readers", "1"]) == 0  # fmt: skip
    assert "2651 nodules" in capsys.readouterr().out
    assert cli.main(["nodules", "--luna16"]) == 0
    assert "1186 nodules" in capsys.readouterr().out


def test_crossval_evaluate_train_predict(discs, capsys, tmp_path):
    cohort = str(discs.folder)
    for model in ("mt", "st"):
        assert cli.main(["crossval", cohort, "--model", model, "--folds", "2", *SMALL,
                         "--jobs", "1", "--out", str(tmp_path / model)]) == 0  # fmt: skip
    metrics = json.loads((tmp_path / "mt" / "metrics.json").read_text())
    assert set(metrics["metrics"]) == {"0", "1", "fused", "size_only"}
    assert metrics["hardware"]["torch"]
    capsys.readouterr()
    assert cli.main(["evaluate", str(tmp_path / "mt"), str(tmp_path / "st"), "--views"]) == 0
    text = capsys.readouterr().out
    assert "size only" in text
    assert re.search(r"AUC of \S*mt less \S*st: [+-]\d\.\d{4} \(.*\)\n", text)
    assert text.count("DeLong by patient: p = ") == 3
    assert "corrected for 3 comparisons (Holm)" in text
    assert text.count("within their fold only") == 3
    model = tmp_path / "model"
    assert cli.main(["train", cohort, *SMALL, "--out", str(model)]) == 0
    assert cli.main(["predict", str(model), cohort, "--device", "cpu",
                     "--out", str(tmp_path / "p.csv")]) == 0  # fmt: skip
    table = pd.read_csv(tmp_path / "p.csv")
    assert list(table.columns) == ["nodule_id", "view_0", "view_1", "fused", "label"]
    assert table["label"].isna().sum() == 2
    assert np.all((table["fused"] > 0) & (table["fused"] < 1))


def test_bad_input_is_one_line_and_status_2(discs, capsys, tmp_path):
    cohort = discs.folder
    assert "labkit build" in _fails(capsys, "crossval", tmp_path / "none", "--out", tmp_path / "r")
    assert "give numbers" in _fails(
        capsys, "train", cohort, "--views", "axial", "--out", tmp_path / "m"
    )
    assert "not a labkit model" in _fails(
        capsys, "predict", cohort, cohort, "--out", tmp_path / "p.csv"
    )
    assert "not finished" in _fails(capsys, "evaluate", tmp_path)
    assert "needs a source" in _fails(capsys, "build", "lidc", "--out", tmp_path / "c")
    assert "takes no source" in _fails(
        capsys, "build", "simulated", cohort, "--out", tmp_path / "c"
    )
    empty = tmp_path / "patients.txt"
    empty.write_text("\n")
    assert "names no patient" in _fails(
        capsys, "build", "simulated", "--patients", empty, "--out", tmp_path / "c"
    )
    luna = ("--simulated", "2", "--out", tmp_path / "c")
    assert "leave out a source" in _fails(capsys, "build", "luna16", tmp_path, *luna)
    empty.write_text("LIDC-IDRI-0001\n")
    assert "leave out --patients" in _fails(capsys, "build", "luna16", *luna, "--patients", empty)
    assert "goes with build luna16" in _fails(
        capsys, "build", "simulated", "--simulated", "2", "--out", tmp_path / "c"
    )
    assert "scans is 0" in _fails(
        capsys, "build", "luna16", "--simulated", "0", "--out", tmp_path / "c"
    )
    assert "min_readers" in _fails(capsys, "nodules", "--min-readers", "0")


@pytest.mark.parametrize("command", ["demo", "doctor", "nodules", "build", "simulate", "crossval",
                                     "evaluate", "train", "predict"])  # fmt: skip
def test_every_command_explains_itself_with_examples(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    assert f"examples:\n  labkit {command}" in capsys.readouterr().out


def test_simulate_scan_explains_what_it_refuses(capsys, tmp_path):
    out = tmp_path / "scan"
    assert "LIDC-IDRI-0001 to" in _fails(capsys, "simulate", "scan", "NOBODY", "--out", out)
    two = _fails(capsys, "simulate", "scan", "LIDC-IDRI-0132", "--out", out)
    assert "--series" in two
    uids = re.findall(r"1\.3\.6[.\d]+", two)
    assert len(uids) == 2
    other = _fails(capsys, "simulate", "scan", "LIDC-IDRI-0001", "--series", uids[0], "--out", out)
    assert "no series of LIDC-IDRI-0001" in other
    (tmp_path / "letters").write_text("mine")
    assert "name a new folder" in _fails(
        capsys, "simulate", "scan", "LIDC-IDRI-0132", "--series", uids[0], "--out", tmp_path
    )
    assert "--seed -1" in _fails(
        capsys, "simulate", "scan", "LIDC-IDRI-0001", "--seed", "-1", "--out", out
    )
    assert "jobs is 0" in _fails(
        capsys, "simulate", "scan", "LIDC-IDRI-0001", "--jobs", "0", "--out", out
    )
    assert [p.name for p in tmp_path.iterdir()] == ["letters"]


def test_simulate_scan_writes_what_build_lidc_reads(capsys, tmp_path, monkeypatch):
    import labkit.data.simulate.scene as scenes

    whole = scenes.scan_of

    def three_slices(series_uid):
        scan = whole(series_uid)
        return dataclasses.replace(scan, first_z_mm=float(scan.z_mm(19, 20)[0]), slices=3)

    monkeypatch.setattr(scenes, "scan_of", three_slices)
    scenes.scene_for_series.cache_clear()
    out = tmp_path / "scan"
    try:
        assert cli.main(["simulate", "scan", "LIDC-IDRI-0171", "--out", str(out), "--seed", "9",
                         "--truth", "--jobs", "1"]) == 0  # fmt: skip
    finally:
        scenes.scene_for_series.cache_clear()
    text = capsys.readouterr().out
    assert "3 slices of 512 x 512" in text and "simulated CT" in text
    names = sorted(p.name for p in out.iterdir())
    assert names == ["001.dcm", "002.dcm", "003.dcm", "lung.mha", "nodules.mha", "scan.json"]
    assert json.loads((out / "scan.json").read_text())["seed"] == 9
    assert cli.main(["build", "lidc", str(out), "--out", str(tmp_path / "cohort")]) == 0
    assert "1 nodules of 1 scans" in capsys.readouterr().out
    assert json.loads((tmp_path / "cohort" / "cohort.json").read_text())["simulated"] is True


def test_doctor_names_versions_and_devices(capsys):
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "1018 scans" in text
    assert "trains on CPU" in text
    assert re.search(r"ok +torch 2\.", text)


def test_profiles_are_known_by_name_and_environment(monkeypatch):
    monkeypatch.setenv("LABKIT_PROFILE", "paper")
    assert profiles.get().training().as_dict()["epochs"] == 150
    assert profiles.get("smoke").name == "smoke"
    monkeypatch.delenv("LABKIT_PROFILE")
    assert profiles.get().name == "lab"
    with pytest.raises(InputError, match="smoke, lab, paper"):
        profiles.get("turbo")
