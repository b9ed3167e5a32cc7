"""A slice of the fuzzer, and personal fields of a DICOM header that must not get anywhere."""

import contextlib
import os
import signal

import pydicom
import pytest

from benchmarks import fuzz, interrupt
from labkit.cli import main

KINDS = [(kind, name) for kind, names in fuzz.KINDS.values() for name in names]


@pytest.mark.parametrize(("kind", "name"), KINDS, ids=[name for _, name in KINDS])
def test_what_is_broken_is_read_rightly_or_refused_in_one_line(kind, name):
    found = fuzz.fuzz(kind, name, 15, seed=1)
    assert found["wrong_ones"] == []
    assert found["right"] + found["refused"] == 15


def test_a_crash_and_another_value_are_counted_as_wrong(tmp_path):
    kind = fuzz.Kind(
        lambda name, folder: (folder / name).write_text("1"),
        lambda name, folder: {"value": int((folder / name).read_text())},
        lambda rng, name, folder: (folder / name).write_text("2") and [],
    )
    assert fuzz.fuzz(kind, "x", 2, 0)["wrong_ones"] == [[0, "other values"], [1, "other values"]]
    killed = kind._replace(change=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    assert fuzz.fuzz(killed, "x", 1, 0)["wrong_ones"] == [[0, "crash"]]


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("scan", ["simulated", pytest.param("real", marks=pytest.mark.real)])
def test_personal_fields_reach_no_cohort_log_or_report(tmp_path, capfd, broken, scan, request):
    folder, out, source = tmp_path / "in", tmp_path / "out" / "cohort", tmp_path / "scan"
    folder.mkdir()
    if scan == "real":
        source = request.getfixturevalue("real_dicom")
    else:
        interrupt.of_lidc(source, scans=1)
    files = sorted(source.rglob("*.dcm"))
    for number, file in enumerate(files):
        header = pydicom.dcmread(file)
        fuzz.plant_personal(header)
        header.save_as(folder / f"{number}.dcm")
    if broken:
        cut = folder / "3.dcm"
        cut.write_bytes(cut.read_bytes()[:3000])
    assert main(["build", "lidc", str(folder), "--out", str(out), "--jobs", "1"]) == 2 * broken
    with contextlib.suppress(SystemExit):
        main(["doctor", str(folder)])
    assert fuzz.SECRET not in "".join(capfd.readouterr())
    for file in (tmp_path / "out").rglob("*"):
        assert not file.is_file() or fuzz.SECRET.encode() not in file.read_bytes()
