"""The commands as a user types them: their output, their files, their exit status."""

import dataclasses
import errno
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from labkit import cli, paths, profiles
from labkit.errors import InputError
from labkit.io import read_list
from labkit.training import TrainingConfig

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
    assert re.search(r"AUC within folds of \S*mt less \S*st: [+-]\d\.\d{4} \(.*\), other", text)
    assert text.count("DeLong by patient: p = ") == 3
    assert "corrected for 3 comparisons (Holm)" in text
    assert text.count("pooled over folds: ") == 3
    assert text.count("4 networks, best in epoch ") == 2
    assert cli.main(["evaluate", str(tmp_path / "mt"), "--pack", str(tmp_path / "packed")]) == 0
    said = capsys.readouterr().out
    assert f"wrote {tmp_path / 'packed' / 'mt.tar.xz'}" in said
    assert cli.main(["evaluate", str(tmp_path / "packed" / "mt.tar.xz")]) == 0
    again = capsys.readouterr().out
    metrics = re.findall(r"\d\.\d{3}", said.partition("networks, best")[0])
    assert metrics and metrics == re.findall(r"\d\.\d{3}", again.partition("networks, best")[0])
    model = tmp_path / "model"
    assert cli.main(["train", cohort, *SMALL, "--out", str(model)]) == 0
    assert cli.main(["predict", str(model), cohort, "--device", "cpu",
                     "--out", str(tmp_path / "p.csv")]) == 0  # fmt: skip
    table = pd.read_csv(tmp_path / "p.csv")
    assert list(table.columns) == ["nodule_id", "view_0", "view_1", "fused", "label"]
    assert table["label"].isna().sum() == 2
    assert np.all((table["fused"] > 0) & (table["fused"] < 1))


def test_bad_input_is_one_line_and_status_2(discs, capsys, tmp_path):
    cohort, out, luna = discs.folder, ("--out", tmp_path / "c"), ("build", "luna16")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    empty, one = tmp_path / "none.txt", tmp_path / "one.txt"
    empty.write_text("\n")
    one.write_text("LIDC-IDRI-0001\n")
    tables, made = ("--candidates", one, "--annotations", one), ("--simulated", "2")
    for arguments, words in (
        (("crossval", tmp_path / "none", *out), "labkit build"),
        (("crossval", cohort, "--model", "vgg", *out), "choose from"),
        (("train", cohort, "--views", "axial", *out), "give numbers such as 0,1,2, not axial"),
        (("reproduce", "fig7", "--cohort", cohort, "--views", "9", *out), "numbers from 0 to 8"),
        # before it trains
        (("train", cohort, "--out", tmp_path / "full"), "thesis.txt, which is no part of a model"),
        (("predict", cohort, cohort, *out), "not a labkit model"),
        (("evaluate", tmp_path), "not finished"),
        (("build", "lidc", *out), "needs source"),
        (("build", "simulated", cohort, *out), "takes no source"),
        (("build", "simulated", "--patients", empty, *out), "names no patient"),
        (("build", "simulated", *made, *out), "takes no --simulated"),
        ((*luna, tmp_path, *made, *out), "takes no source"),
        ((*luna, *made, *out, "--patients", one), "takes no --patients"),
        ((*luna, tmp_path, *tables, *out, "--seed", "0"), "takes no --seed"),
        ((*luna, tmp_path, *tables, *out, "--min-readers", "3"), "takes no --min-readers"),
        ((*luna, *made, *out, "--nodules", "0"), "takes no --nodules"),
        ((*luna, *made, *out, "--labelled-only"), "takes no --labelled-only"),
        ((*luna, "--simulated", "0", *out), "scans is 0"),
        (("nodules", "--min-readers", "0"), "min_readers"),
    ):
        assert words in _fails(capsys, *arguments)


def test_a_full_disk_is_one_line_with_the_place_and_the_cure(capsys, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    out = tmp_path / "nodules.csv"
    told = _fails(capsys, "nodules", "--out", out)
    assert told.startswith(f"labkit: {out}: No space left on device; make room")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["demo", "doctor", "nodules", "build", "simulate", "crossval",
                                     "evaluate", "train", "predict", "froc"])  # fmt: skip
def test_every_command_explains_itself_with_examples(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    assert f"examples:\n  labkit {command}" in capsys.readouterr().out


def test_every_setting_of_training_is_an_option_with_its_explanation():
    found = {flag: settings for flags, settings in cli._of_training() for flag in flags}
    names = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(TrainingConfig)}
    assert set(found) == names
    assert all(len(settings["help"]) > 10 for settings in found.values())


def _submission(folder):
    """Two scans and one nodule of 10 mm: two marks on it, one on an excluded finding, three off."""
    head = "seriesuid,coordX,coordY,coordZ"
    (folder / "a.csv").write_text(f"{head},diameter_mm\n1.2.3.4,0,0,0,10\n")
    (folder / "e.csv").write_text(f"{head},diameter_mm\n1.2.3.4,50,0,0,10\n")
    (folder / "s.csv").write_text("1.2.3.4\n1.2.3.5\n")
    marks = ["1.2.3.4,0,0,0,0.9", "1.2.3.4,1,0,0,0.3", "1.2.3.4,50,0,0,0.8",
             "1.2.3.4,99,0,0,0.5", "1.2.3.5,0,0,0,0.2", "1.2.3.5,9,0,0,0.1",
             "1.2.3.6,0,0,0,0.99"]  # fmt: skip
    (folder / "m.csv").write_text("\n".join([f"{head},probability", *marks]) + "\n")
    return [str(folder / "m.csv"), "--annotations", str(folder / "a.csv"), "--excluded",
            str(folder / "e.csv"), "--series", str(folder / "s.csv"),
            "--bootstraps", "0"]  # fmt: skip


def test_froc_with_a_threshold_has_the_papers_measures_too(tmp_path, capsys):
    arguments = ["froc", *_submission(tmp_path), "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == 0
    assert "AUC" not in capsys.readouterr().out
    assert "screening" not in json.loads((tmp_path / "out" / "froc.json").read_text())
    assert cli.main([*arguments, "--threshold", "0.5"]) == 0
    text = capsys.readouterr().out
    # Of the marks in the two scans, 0.9 and 0.3 are on the nodule; 0.8 (on the excluded finding),
    # 0.5, 0.2 and 0.1 are not. Of the eight pairs, 0.3 loses two; 0.8 and 0.5 are called wrongly.
    assert "2 marks on nodules and 4 others, those on excluded findings among them" in text
    assert "AUC 0.7500, sensitivity 0.5000 of the marks on nodules, specificity 0.5000" in text
    assert "false positive rate 0.5000, which is 1.00 false positives a scan" in text
    written = json.loads((tmp_path / "out" / "froc.json").read_text())
    assert written["screening"] == {
        "threshold": 0.5, "auc": 0.75, "sensitivity": 0.5, "specificity": 0.5,
        "false_positive_rate": 0.5, "false_positives_per_scan": 1.0, "positives": 2,
        "negatives": 4,
    }  # fmt: skip
    assert written["counts"]["excluded"] == 1


@pytest.mark.parametrize("head", ["seriesuid", "SeriesInstanceUID", "series_uid", '"Series UID"'])
def test_a_header_never_counts_as_a_scan(tmp_path, capsys, head):
    arguments = ["froc", *_submission(tmp_path)]
    for text in (f"{head}\n1.2.3.4\n1.2.3.5\n", f"{head};n\r\n1.2.3.4;1\r\n 1.2.3.5;2"):
        (tmp_path / "s.csv").write_text(text)
        assert cli.main(arguments) == 0
        assert capsys.readouterr().out.startswith("2 scans, 1 nodules: 1 hit")
    (tmp_path / "s.csv").write_text("scan\n1.2.3.4\n1.2.3.5\n")
    assert "begins with 'scan', which looks like a header" in _fails(capsys, *arguments)


def test_a_scan_that_is_in_no_table_is_refused_unless_it_is_meant(tmp_path, capsys):
    arguments = ["froc", *_submission(tmp_path)]
    (tmp_path / "s.csv").write_text("1.2.3.4\n1.2.3.55\n1.2.3.5\n")
    told = _fails(capsys, *arguments)
    assert "no such scan" in told and "'1.2.3.55' (1 of 3 named)" in told
    assert cli.main([*arguments, "--empty-scans"]) == 0
    assert capsys.readouterr().out.startswith("3 scans")
    (tmp_path / "s.csv").write_text("1.2.3.4\n1.2.3.5\n")
    with (tmp_path / "a.csv").open("a") as file:  # a misspelt scan, which would raise the score
        file.write("1.2.3.4.mhd,5,0,0,10\n")
    assert cli.main(arguments) == 0
    assert "1 nodules in scans that are not judged were left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("\ufeffP01\r\n 1e5 \r\n\r\n".encode(), ["P01", "1e5"]),
        ("P01\r\nNA\r\n".encode("utf-16"), ["P01", "NA"]),
        (b'"P01",\r01,\r', ["P01", "01"]),
        (b"n;Patient ID\n1;P01\n2;1.10\n", ["P01", "1.10"]),
        (b"P01, P02\n", "more than one patient"),
        (b"P01;P02\n", "more than one patient"),
        (b"\n", "names no patient"),
        (b"P01\np01\n", "most likely one"),
        (b"1.36E+30\n", "a spreadsheet made of an id"),
        (b"who\nP01\nP02\n", "looks like a header"),
        ("P\xe4r1\n".encode("latin-1"), "not a CSV file in UTF-8"),
    ],
)
def test_lists_of_patients_are_read_as_any_system_writes_them(tmp_path, text, ids):
    (tmp_path / "list").write_bytes(text)
    if isinstance(ids, list):
        assert read_list(tmp_path / "list", "patient_id", "patient") == ids
    else:
        with pytest.raises(InputError, match=ids):
            read_list(tmp_path / "list", "patient_id", "patient")


def test_froc_tells_what_is_wrong_in_the_words_of_the_command_line(tmp_path, capsys):
    arguments = ["froc", *_submission(tmp_path)]
    told = _fails(capsys, *arguments, "--max-marks", "-5")
    assert told == "labkit: --max-marks -5: give 1 or more, or 0 for no limit"
    assert cli.main([*arguments, "--max-marks", "0"]) == 0
    capsys.readouterr()
    assert "give a probability" in _fails(capsys, *arguments, "--threshold", "nan")
    (tmp_path / "s.csv").write_text("1.2.3.4\n")
    (tmp_path / "m.csv").write_text(
        "seriesuid,coordX,coordY,coordZ,probability\n1.2.3.4,0,0,0,0.9\n1.2.3.5,9,9,9,0.2\n"
    )
    told = _fails(capsys, *arguments, "--threshold", "0.5")
    assert "of the 1 marks in the scans judged, every one hits a nodule" in told


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
    import labkit.simulate.scene as scenes

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
    with pytest.raises(InputError, match="smoke, demo, lab, paper"):
        profiles.get("turbo")


def test_links_that_go_round_are_no_place(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises((InputError, OSError)):  # either is one line of the command
        paths.path(str(tmp_path / "loop")).stat()


def test_the_home_folder_stands_in_place_of_a_tilde(monkeypatch, tmp_path, capsys):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("LABKIT_RUNS", "~/runs")
    assert paths.runs() == tmp_path / "runs"
    for command in (
        ["build", "cubes", "~/c.npz", "--out=~/c", "--patients=~/p", "--exclude-patients=~/e"],
        ["froc", "~/s", "--annotations=~/a", "--excluded=~/e", "--series=~/u", "--out=~/o"],
        ["crossval", "~/c", "--out=~/o"], ["predict", "~/m", "~/c", "--out=~/o"],
        ["evaluate", "~/a", "~/b"], ["doctor", "~/scans"],
    ):  # fmt: skip
        given = vars(cli.parser().parse_args(command)).values()
        assert not any("~" in str(value) for value in given if not callable(value))
    assert "~nobody" in _fails(capsys, "doctor", "~nobody-of-this-name/scans")
