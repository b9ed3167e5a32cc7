"""Cohorts of LUNA-16's candidates: every row beside its images, through kills, gaps and damage."""

import os
import platform
import signal
import subprocess
import sys
import textwrap
import time
import zlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
import SimpleITK as sitk

from labkit import paths
from labkit.annotations import lidc, luna16
from labkit.cli import main
from labkit.cohorts import candidates as build_module
from labkit.cohorts import candidates as cohorts_candidates
from labkit.cohorts.candidates import CandidateWriter, Journal, as_u8, build_luna16
from labkit.cohorts.cohort import COLUMNS, Cohort
from labkit.errors import InputError
from labkit.evaluation import candidates as candidates_judged
from labkit.imaging.dicom import read_dicom, read_image
from labkit.imaging.lungs import dilate, segment
from labkit.imaging.views import nine_views
from labkit.io import read_json, write_json
from tests.cohorts.luna_phantom import (
    FLIPPED,
    SAGITTAL,
    TISSUE,
    Phantom,
    annotations,
    candidates,
    oblique,
)

UIDS = lidc.luna16_series()
NO_HEADER_FIELD = [
    ({"NDims": "2", "DimSize": "90 96"}, "NDims is 2"),
    ({"ElementType": "MET_LONG_LONG"}, "MET_LONG_LONG is none of"),
    ({"DimSize": "90 96 41"}, "need 708480 bytes, .* has 691200"),
    ({"DimSize": "90 96"}, "DimSize is '90 96'"),
    ({"DimSize": "90 96 -40"}, "three positive whole numbers"),
    ({"DimSize": "90.5 96 40"}, "three positive whole numbers"),
    ({"DimSize": "90000000 9600000 400000000"}, "need 691200000000000000000000 bytes"),
    ({"ElementSpacing": None}, "no ElementSpacing"),
    ({"ElementSpacing": "0.8 0 2"}, "ElementSpacing is '0.8 0 2'"),
    ({"ElementSpacing": "nan 1 1"}, "ElementSpacing is 'nan 1 1'"),
    ({"ElementSpacing": "800 700 2000"}, "0.05 to 20 mm.*give millimetres"),
    ({"ElementSpacing": "0.0008 0.0007 0.002"}, "give millimetres"),
    ({"Offset": None}, "no Offset, the voxels' place"),
    ({"Offset": "0 0"}, "Offset is '0 0'; it has to be 3 finite"),
    ({"Offset": "inf 0 0"}, "Offset is 'inf 0 0'"),
    ({"BinaryData": "False"}, "write the voxels as binary"),
    ({"ElementDataFile": None}, "no ElementDataFile"),
    ({"ElementDataFile": "other.raw"}, "other.raw is not beside it"),
    ({"ElementDataFile": "LIST"}, "is LIST; write the voxels as one"),
    ({"HeaderSize": "100"}, "HeaderSize is 100"),
    ({"ElementNumberOfChannels": "3"}, "ElementNumberOfChannels is 3"),
    ({"TransformMatrix": "1 0 0 0 1 0 0 0 0"}, "at right angles"),
    ({"TransformMatrix": "1 0 0 0.5 1 0 0 0 1"}, "at right angles"),
    ({"TransformMatrix": "2 0 0 0 2 0 0 0 2"}, "of length 1"),
    ({"TransformMatrix": "nan 0 0 0 1 0 0 0 1"}, "9 finite numbers"),
    ({"TransformMatrix": "1 0 0 0 1 0"}, "9 finite numbers"),
]


def phantoms():
    """Scans of four kinds of grid; the third has no nodule, the last lies in subset 7."""
    return [
        Phantom(UIDS[0], noise=1),
        Phantom(UIDS[1], direction=FLIPPED, noise=2),
        Phantom(UIDS[2], balls=[], direction=SAGITTAL, shape=(90, 40, 80),
                spacing=(0.9, 2.0, 0.7), noise=3),
        Phantom(UIDS[3], direction=oblique(), shape=(30, 60, 60), spacing=(1.0, 1.0, 2.5),
                balls=[(0, 0, 0, 9)], noise=4),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def luna(tmp_path_factory):
    """A LUNA-16 of four scans on disk, its tables, and lung masks that must not be taken."""
    folder = tmp_path_factory.mktemp("luna")
    made = phantoms()
    for scan, subset in zip(made, ("subset0", "subset0", "deeper/subset3", "subset7"), strict=True):
        scan.write(folder / subset)
    made[0].write(folder / "seg-lungs-LUNA16")
    (folder / "notes.mhd").write_text("not a scan")
    annotations(made).to_csv(folder / "annotations.csv", index=False)
    candidates(made).to_csv(folder / "candidates.csv", index=False)
    near = annotations(made[1:2]).iloc[:1].assign(diameter_mm=-1)
    near["coordX"] += 3.0
    near.to_csv(folder / "excluded.csv", index=False)
    return folder


def build(luna, out, **changes):
    options = {"annotations": luna / "annotations.csv", "jobs": 1, "progress": False, **changes}
    return build_luna16(luna, options.pop("candidates", luna / "candidates.csv"), out, **options)


def same_bytes(one, two):
    assert {p.name for p in one.iterdir()} == {p.name for p in two.iterdir()}
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


# --- what a cohort holds ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(luna, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "luna16"
    report = build(luna, out, excluded=luna / "excluded.csv")
    return Cohort.open(out), report


def test_rows_are_the_candidates_in_their_order(luna, built):
    cohort, report = built
    given = pd.read_csv(luna / "candidates.csv")
    table = cohort.nodules
    assert cohort.task == "luna16"
    assert cohort.cubes is None
    assert cohort.simulated is False
    assert cohort.views.dtype == np.uint8
    assert isinstance(cohort.views, np.memmap)
    assert len(cohort) == len(given) == report.scans["built"].sum()
    assert list(table.columns[: len(COLUMNS)]) == list(COLUMNS)
    assert table["nodule_id"].tolist() == [f"c{k:07d}" for k in range(len(given))]
    assert table["series_uid"].tolist() == given["seriesuid"].tolist()
    assert table["label"].tolist() == given["class"].tolist()
    for axis, theirs in (("x_mm", "coordX"), ("y_mm", "coordY"), ("z_mm", "coordZ")):
        assert table[axis].tolist() == given[theirs].tolist()
    by_series = lidc.scans().set_index("series_uid")["patient_id"]
    assert table["patient_id"].tolist() == by_series[given["seriesuid"]].tolist()
    cohort.verify(progress=False)


def test_hits_subsets_and_excluded_findings(luna, built):
    cohort, report = built
    table = cohort.nodules
    nodules = pd.read_csv(luna / "annotations.csv")
    positive = table[table["label"] == 1]
    assert (positive["hit"] >= 0).all()
    assert (table.loc[table["label"] == 0, "hit"] == -1).all()
    assert positive["diameter_mm"].tolist() == nodules["diameter_mm"][positive["hit"]].tolist()
    assert set(positive["hit"]) == set(range(len(nodules)))
    assert table.loc[table["label"] == 0, "diameter_mm"].isna().all()
    marked = table[table["excluded"] == 1]
    assert set(marked["series_uid"]) == {UIDS[1]}
    subset = table.groupby("series_uid")["subset"].first()
    assert subset[UIDS[:4]].tolist() == [0, 0, 3, 7]
    assert set(report.scans["status"]) == {"built"}
    assert report.disagreeing.empty


def test_every_row_has_the_views_of_its_own_place(luna, built):
    cohort, _ = built
    files = cohorts_candidates.find(luna)
    scans = {uid: read_image(files[uid][0]) for uid in UIDS[:4]}
    for row in range(0, len(cohort), 5):
        nodule = cohort.nodules.iloc[row]
        center = nodule[["x_mm", "y_mm", "z_mm"]].to_numpy(float)
        expected = as_u8(nine_views(scans[nodule["series_uid"]], center, 76)).astype(int)
        assert np.abs(cohort.views[row] - expected).max() <= 1
    middle = cohort.views[:, :, 37:39, 37:39].mean(axis=(1, 2, 3))
    inside = (cohort.nodules["label"] == 1).to_numpy()
    assert middle[inside].min() > 0.9 * as_u8(TISSUE)


def test_the_tables_lie_beside_it_as_the_challenge_writes_them(luna, built):
    cohort, _ = built
    given = pd.read_csv(luna / "candidates.csv")
    pd.testing.assert_frame_equal(pd.read_csv(cohort.folder / "candidates.csv"), given)
    for name, source in (
        ("annotations.csv", "annotations.csv"),
        ("annotations_excluded.csv", "excluded.csv"),
    ):
        ours, theirs = (pd.read_csv(f) for f in (cohort.folder / name, luna / source))
        pd.testing.assert_frame_equal(ours, theirs, check_dtype=False)
    uids = (cohort.folder / "seriesuids.csv").read_text().split()
    assert uids == sorted(UIDS[:4])
    assert set(cohort.meta["files"]) == {p.name for p in cohort.folder.iterdir()} - {"cohort.json"}


def test_without_excluded_findings_the_cohort_can_be_judged_all_the_same(luna, tmp_path, capsys):
    """By `candidates.judge`, and by the command that `labkit crossval` prints."""
    out = tmp_path / "c"
    report = build(luna, out)
    assert "no finding is excluded, because none was given" in str(report)
    cohort = Cohort.open(out)
    assert luna16.read_excluded(out / "annotations_excluded.csv").empty
    assert cohort.meta["report"]["notes"] == list(report.notes)
    cohort.verify(progress=False)
    label = cohort.nodules["label"]
    predictions = cohort.nodules[["nodule_id", "patient_id", "series_uid"]].assign(
        view="fused", repeat=0, fold=0, probability=0.1 + 0.8 * label, label=label
    )
    found = candidates_judged.judge(cohort, predictions, bootstraps=0)
    assert found.counts.excluded == 0
    assert found.counts.nodules == len(pd.read_csv(luna / "annotations.csv"))
    candidates_judged.submission(cohort, predictions).to_csv(tmp_path / "s.csv", index=False)
    given = {"annotations": "annotations", "excluded": "annotations_excluded",
             "series": "seriesuids"}  # fmt: skip
    words = [w for name, file in given.items() for w in (f"--{name}", str(out / f"{file}.csv"))]
    assert main(["froc", str(tmp_path / "s.csv"), *words, "--bootstraps", "0"]) == 0
    assert f"CPM {found.cpm:.4f}" in capsys.readouterr().out


def test_with_excluded_findings_nothing_is_said_of_none(built):
    assert built[1].notes == ()
    assert "excluded" not in str(built[1])


def test_two_processes_write_the_same_bytes_as_one(luna, built, tmp_path):
    cohort, _ = built
    build(luna, tmp_path / "luna16", excluded=luna / "excluded.csv", jobs=2)
    same_bytes(cohort.folder, tmp_path / "luna16")


def test_the_command_line_builds_it(luna, tmp_path, capsys):
    arguments = ["build", "luna16", str(luna), "--out", str(tmp_path / "c"), "--jobs", "1"]
    tables = ["--annotations", str(luna / "annotations.csv")]
    assert main([*arguments, *tables]) == 2
    assert "needs --candidates" in capsys.readouterr().err
    tables += ["--candidates", str(luna / "candidates.csv")]
    assert main([*arguments, *tables]) == 0
    assert "candidates of 4 scans" in capsys.readouterr().out
    assert len(Cohort.open(tmp_path / "c")) == len(pd.read_csv(luna / "candidates.csv"))


# --- what is missing, damaged or wrong costs itself alone ---------------------------------------


def test_missing_scans_are_listed_and_their_nodules_stay(luna, built, tmp_path):
    made = phantoms()
    absent = Phantom(UIDS[4])
    given = candidates([absent, *made])
    given.to_csv(tmp_path / "candidates.csv", index=False)
    annotations([absent, *made]).to_csv(tmp_path / "annotations.csv", index=False)
    report = build(
        luna, tmp_path / "c", candidates=tmp_path / "candidates.csv",
        annotations=tmp_path / "annotations.csv",
    )  # fmt: skip
    status = report.scans.set_index("series_uid")["status"]
    assert status[UIDS[4]] == "missing"
    assert "1 scans missing" in str(report)
    cohort = Cohort.open(tmp_path / "c")
    assert cohort.meta["report"]["missing_scans"] == [UIDS[4]]
    here = given[given["seriesuid"] != UIDS[4]]
    assert cohort.nodules["nodule_id"].tolist() == [f"c{k:07d}" for k in here.index]
    assert len(pd.read_csv(cohort.folder / "annotations.csv")) == 7
    assert UIDS[4] not in (cohort.folder / "seriesuids.csv").read_text()


@pytest.mark.parametrize(("header", "message"), NO_HEADER_FIELD)
def test_a_wrong_header_is_told_in_one_line(tmp_path, header, message):
    path = Phantom(UIDS[0]).write(tmp_path, **header)
    with pytest.raises(InputError, match=message) as caught:
        cohorts_candidates.read_header(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_line_ends_of_a_header(tmp_path, end):
    path = Phantom(UIDS[0]).write(tmp_path)
    text = path.read_bytes()
    path.write_bytes(text.replace(b"\n", end))
    assert cohorts_candidates.read_header(path).shape == Phantom(UIDS[0]).shape
    path.write_bytes(text.replace(b"\n", b"\r"))
    with pytest.raises(InputError, match="end in CR alone"):
        cohorts_candidates.read_header(path)


@pytest.mark.parametrize("kind", ["<u2", "u1"])
def test_numbers_that_are_no_hu_are_refused(tmp_path, kind):
    """Stored 1024 higher, or a mask: no voxel is as low as air."""
    voxels = np.clip(Phantom(UIDS[0]).voxels() + 1024, 0, 255 if kind == "u1" else None)
    met = {"<u2": "MET_USHORT", "u1": "MET_UCHAR"}[kind]
    path = Phantom(UIDS[0]).write(tmp_path, ElementType=met)
    (tmp_path / f"{UIDS[0]}.raw").write_bytes(voxels.astype(kind).tobytes())
    with pytest.raises(InputError, match="write the voxels as HU"):
        cohorts_candidates.read(cohorts_candidates.read_header(path))


def test_a_header_that_is_none_is_told(tmp_path):
    path = tmp_path / "1.2.3.4.mhd"
    for content in (b"", b"\x00\xff" * 500, b"hello"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not the header"):
            cohorts_candidates.read_header(path)


def test_a_compressed_volume_is_read_as_well(tmp_path):
    phantom = Phantom(UIDS[0])
    path = phantom.write(tmp_path, CompressedData="True")
    raw = tmp_path / f"{UIDS[0]}.raw"
    raw.write_bytes(zlib.compress(raw.read_bytes()))
    scan = cohorts_candidates.read_header(path)
    np.testing.assert_array_equal(cohorts_candidates.read(scan).voxels, phantom.voxels())
    raw.write_bytes(raw.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be decompressed"):
        cohorts_candidates.read(scan)


def test_padding_becomes_air(tmp_path):
    phantom = Phantom(UIDS[0])
    scan = cohorts_candidates.read_header(phantom.write(tmp_path))
    voxels = phantom.voxels()
    voxels[:, :20] = -3024
    (tmp_path / f"{UIDS[0]}.raw").write_bytes(voxels.tobytes())
    read = cohorts_candidates.read(scan).voxels
    assert (read[:, :20] == -1000).all()
    np.testing.assert_array_equal(read[:, 20:], voxels[:, 20:])


def test_damage_costs_that_scan_alone(luna, built, tmp_path):
    made = phantoms()
    folder = tmp_path / "luna"
    made[0].write(folder / "subset0", ElementSpacing=None)
    made[1].write(folder / "subset0")
    # Its header is sound and its size right, but what should be compressed is not.
    made[2].write(folder, CompressedData="True")
    made[3].write(folder / "a")
    made[3].write(folder / "b")
    given = candidates(made)
    given.to_csv(folder / "candidates.csv", index=False)
    report = build(
        folder, tmp_path / "c", candidates=folder / "candidates.csv",
        annotations=luna / "annotations.csv",
    )  # fmt: skip
    reasons = report.problems.set_index("series_uid")["reason"]
    assert "no ElementSpacing" in reasons[UIDS[0]]
    assert "cannot be decompressed" in reasons[UIDS[2]]
    assert "also in" in reasons[UIDS[3]]
    assert report.scans.set_index("series_uid")["status"][UIDS[1]] == "built"
    cohort = Cohort.open(tmp_path / "c")
    assert set(cohort.nodules["series_uid"]) == {UIDS[1]}
    assert (cohort.folder / "seriesuids.csv").read_text().split() == [UIDS[1]]
    assert set(cohort.meta["report"]["failed_scans"]) == {UIDS[0], UIDS[2], UIDS[3]}
    assert cohort.meta["report"]["left_out"] == {}
    # The rows that were kept for the others are gone, and these are as they were.
    whole = built[0]
    rows = np.flatnonzero(whole.nodules["series_uid"] == UIDS[1])
    np.testing.assert_array_equal(cohort.views, whole.views[rows])
    cohort.verify(progress=False)


def test_candidates_outside_are_named_and_the_others_built(luna, tmp_path):
    given = pd.read_csv(luna / "candidates.csv")
    given.loc[3, "coordX"] += 500
    given.loc[9, "class"] = 1 - given.loc[9, "class"]
    given.to_csv(tmp_path / "candidates.csv", index=False)
    report = build(luna, tmp_path / "c", candidates=tmp_path / "candidates.csv")
    assert list(report.left_out) == ["c0000003"]
    assert f"{given['coordX'][3]:.1f}" in report.left_out["c0000003"]
    assert given["seriesuid"][3] in report.left_out["c0000003"]
    assert report.disagreeing["nodule_id"].tolist() == ["c0000009"]
    assert "another class" in str(report)
    cohort = Cohort.open(tmp_path / "c")
    assert len(cohort) == len(given) - 1
    assert "c0000003" not in set(cohort.nodules["nodule_id"])
    assert cohort.meta["report"]["class_disagrees"] == ["c0000009"]
    assert cohort.meta["report"]["left_out"] == dict(report.left_out)


def test_places_too_far_for_their_square_are_outside_too(luna, tmp_path):
    given = pd.read_csv(luna / "candidates.csv")
    given.loc[3, ["coordX", "coordY"]] = 1e300, -1e200
    given.to_csv(tmp_path / "candidates.csv", index=False)
    report = build(luna, tmp_path / "c", candidates=tmp_path / "candidates.csv")
    assert "at x 1e+300, y -1e+200, z" in report.left_out["c0000003"]
    assert len(Cohort.open(tmp_path / "c")) == len(given) - 1


def test_a_long_list_of_what_could_not_be_used_is_cut_short(luna, tmp_path):
    given = pd.read_csv(luna / "candidates.csv")
    given.loc[3:, "coordX"] += 5000
    absent = candidates([Phantom(uid) for uid in UIDS[10:30]], n=0)
    pd.concat([given, absent]).to_csv(tmp_path / "candidates.csv", index=False)
    report = build(luna, tmp_path / "c", candidates=tmp_path / "candidates.csv")
    text = str(report).splitlines()
    assert len(report.left_out) == len(given) - 3
    assert sum(line.startswith("left out: candidate") for line in text) == 10
    assert f"left out: {len(given) - 13} more, see {tmp_path / 'c'}/cohort.json" in text
    assert f"missing: 10 more, see {tmp_path / 'c'}/cohort.json" in text
    about = Cohort.open(tmp_path / "c").meta["report"]
    assert len(about["left_out"]) == len(given) - 3
    assert len(about["missing_scans"]) == 20


def test_subsets_say_which_scans_are_meant(luna, tmp_path):
    table = pd.DataFrame({"seriesuid": [UIDS[1], UIDS[3], UIDS[5]], "subset": [4, 5, 6]})
    table.to_csv(tmp_path / "subsets.csv", index=False)
    report = build(luna, tmp_path / "c", subsets=tmp_path / "subsets.csv")
    cohort = Cohort.open(tmp_path / "c")
    found = cohort.nodules.groupby("series_uid")["subset"].first()
    assert found.to_dict() == {UIDS[1]: 4, UIDS[3]: 5}
    assert UIDS[5] in cohort.meta["report"]["missing_scans"]
    assert report.scans["built"].sum() == len(cohort)


def test_scans_that_lie_in_no_subset_are_told_before_and_after(luna, tmp_path, capsys):
    flat = tmp_path / "flat"
    for scan, subset in zip(phantoms(), (".", ".", ".", "subset7"), strict=True):
        scan.write(flat / subset)
    given = {"candidates": luna / "candidates.csv", "annotations": luna / "annotations.csv",
             "excluded": luna / "excluded.csv", "jobs": 1}  # fmt: skip
    report = build_luna16(flat, out=tmp_path / "c", progress=True, **given)
    (note,) = report.notes
    assert note.startswith("3 of 4 scans with candidates lie in no folder subset0 to subset9")
    assert "--subsets FILE" in note
    assert note in str(report).splitlines()
    told = capsys.readouterr().out.splitlines()
    estimate = next(line for line in told if "candidates of 4 scans: " in line)
    assert told.index(note) < told.index(estimate)
    table = pd.DataFrame({"seriesuid": UIDS[:4], "subset": [0, 1, 2, 3]})
    table.to_csv(tmp_path / "subsets.csv", index=False)
    report = build_luna16(flat, out=tmp_path / "d", progress=False,
                          subsets=tmp_path / "subsets.csv", **given)  # fmt: skip
    assert report.notes == ()


def linked(link, target):
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        link.symlink_to(target, target_is_directory=target.is_dir())
    except OSError:
        pytest.skip("this system makes no links")


def test_links_to_folders_are_followed_and_each_scan_is_found_once(tmp_path):
    disk, luna = tmp_path / "disk", tmp_path / "luna"
    for scan, folder in zip(phantoms(), ("a", "a", "b/c", "d"), strict=True):
        scan.write(disk / folder)
    phantoms()[0].write(disk / "seg-lungs-LUNA16")
    linked(luna / "subset0", disk / "a")
    linked(luna / "subset3", disk / "b")
    linked(luna / "all", disk)  # the same scans, by a path that names no subset
    linked(luna / "masks", disk / "seg-lungs-LUNA16")
    linked(disk / "b" / "c" / "round", luna)  # and round and round
    linked(luna / "itself", luna)
    linked(luna / "gone", tmp_path / "nowhere")
    found = cohorts_candidates.find(luna)
    assert sorted(found) == sorted(UIDS[:4])
    assert {len(paths) for paths in found.values()} == {1}
    subset = {uid: cohorts_candidates.read_header(paths[0]).subset for uid, paths in found.items()}
    assert subset == dict(zip(UIDS[:4], (0, 0, 3, -1), strict=True))


def test_a_scan_that_links_put_into_two_subsets_is_there_twice(tmp_path):
    disk, luna = tmp_path / "disk", tmp_path / "luna"
    path = phantoms()[0].write(disk)
    for subset in ("subset1", "subset0"):
        linked(luna / subset, disk)
    assert cohorts_candidates.find(luna)[UIDS[0]] == [
        luna / s / path.name for s in ("subset0", "subset1")
    ]
    # A link to the file alone, beside one that says its subset.
    linked(tmp_path / "files" / path.name, path)
    linked(tmp_path / "files" / "subset5" / path.name, path)
    (found,) = cohorts_candidates.find(tmp_path / "files")[UIDS[0]]
    assert found.parent.name == "subset5"


def test_nothing_to_build_is_an_error_and_leaves_nothing(luna, tmp_path):
    given = candidates([Phantom("1.2.3.4.5")])
    given.to_csv(tmp_path / "candidates.csv", index=False)
    with pytest.raises(InputError, match="none of the candidates' 1 scans"):
        build(luna, tmp_path / "c", candidates=tmp_path / "candidates.csv")
    with pytest.raises(InputError, match="no such folder"):
        build_luna16(tmp_path / "x", luna / "candidates.csv", tmp_path / "c",
                     annotations=luna / "annotations.csv")  # fmt: skip
    with pytest.raises(InputError, match="jobs is 0"):
        build(luna, tmp_path / "c", jobs=0)
    given[:0].to_csv(tmp_path / "candidates.csv", index=False)
    with pytest.raises(InputError, match="no candidate below it"):
        build(luna, tmp_path / "c", candidates=tmp_path / "candidates.csv")
    with pytest.raises(InputError, match="cannot be written there"):
        build(luna, tmp_path / "candidates.csv" / "c")
    assert [p.name for p in tmp_path.iterdir()] == ["candidates.csv"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_may_not_be_written_is_told(luna, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    with pytest.raises(InputError, match="cannot be written there"):
        build(luna, closed / "c")
    assert list(closed.iterdir()) == []


def test_scans_without_lungs_are_told_when_lungs_are_asked_for(luna, tmp_path):
    with pytest.raises(InputError, match="no candidate could be used; the first: .*lung"):
        build(luna, tmp_path / "c", lungs=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real
@pytest.mark.slow
def test_a_real_scan_with_lungs_alone(real_dicom, tmp_path):
    volume = read_dicom(real_dicom)
    mask = segment(volume, one_lung=True)
    kept = dilate(mask, volume)
    chosen = np.random.default_rng(0)
    index = [chosen.choice(np.argwhere(mask), 20), chosen.choice(np.argwhere(~kept), 3)]
    points = volume.world_from_index(np.concatenate(index))
    image = sitk.GetImageFromArray(volume.voxels)
    image.SetSpacing(volume.spacing_xyz_mm)
    image.SetOrigin(volume.origin_xyz_mm)
    sitk.WriteImage(image, str(tmp_path / f"{volume.series_uid}.mhd"))
    marks = pd.DataFrame(points, columns=["coordX", "coordY", "coordZ"])
    marks.insert(0, "seriesuid", volume.series_uid)
    marks.assign(**{"class": 0}).to_csv(tmp_path / "candidates.csv", index=False)
    marks[:0].assign(diameter_mm=5.0).to_csv(tmp_path / "annotations.csv", index=False)
    report = build(tmp_path, tmp_path / "c", lungs=True)
    assert list(report.left_out) == [f"c{k:07d}" for k in (20, 21, 22)]
    assert "beyond the lungs" in report.left_out["c0000021"]
    views = Cohort.open(tmp_path / "c").views
    assert len(views) == 20
    for row in (0, 19):
        expected = as_u8(nine_views(volume, points[row], 76, lungs=kept)).astype(int)
        assert np.abs(views[row] - expected).max() <= 1


# --- kills --------------------------------------------------------------------------------------


def unfinished(out):
    return out.with_name(f".{out.name}.unfinished")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a kill that cannot be caught")
def test_a_killed_build_goes_on_and_gives_the_same_bytes(luna, built, tmp_path):
    cohort, _ = built
    out = tmp_path / "luna16"
    # The process is killed in the middle of its third scan, when two are noted.
    script = f"""
        import os, signal
        from labkit.cohorts import build, volumes
        read, seen = volumes.read, []
        def killing(scan):
            seen.append(scan)
            if len(seen) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return read(scan)
        volumes.read = killing
        build.build_luna16({str(luna)!r}, {str(luna / "candidates.csv")!r}, {str(out)!r},
            annotations={str(luna / "annotations.csv")!r}, excluded={str(luna / "excluded.csv")!r},
            jobs=1, progress=False)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    journal = unfinished(out) / "journal.jsonl"
    assert journal.read_text().count('"done"') == 2
    with journal.open("a") as file:
        file.write('{"done": [[0, 2')  # as a line looks that a kill has torn
    with pytest.raises(InputError, match="lungs False, not True"):
        build(luna, out, excluded=luna / "excluded.csv", lungs=True)
    reads = []
    real = cohorts_candidates.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            cohorts_candidates, "read", lambda scan: reads.append(scan.series_uid) or real(scan)
        )
        build(luna, out, excluded=luna / "excluded.csv")
    assert len(reads) == 2
    assert not unfinished(out).exists()
    same_bytes(cohort.folder, out)


CUT_SCAN = build_module._cut_scan


def killed_in_the_last_scan(scan, rows, ids, centers, lungs, file):
    """Runs in a worker; ends it as the system does, once another scan is noted."""
    if scan.series_uid != UIDS[3]:
        return CUT_SCAN(scan, rows, ids, centers, lungs, file)
    journal = file.parent.parent / "journal.jsonl"
    for _ in range(1000):
        if '"done"' in journal.read_text():
            break
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def without_memory(*_):
    raise MemoryError


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a kill that cannot be caught")
def test_a_killed_worker_is_one_line_and_the_same_command_goes_on(
    luna, built, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "luna16"
    names = ("candidates", "annotations", "excluded")
    given = [word for name in names for word in (f"--{name}", str(luna / f"{name}.csv"))]
    command = ["build", "luna16", str(luna), *given, "--out", str(out), "--jobs"]
    monkeypatch.setattr(build_module, "_cut_scan", killed_in_the_last_scan)
    assert main([*command, "2"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    line = error.splitlines()[-1]
    assert line.startswith("labkit: one of 2 processes was killed, for want of memory most likely;")
    assert line.endswith("the same command with fewer --jobs goes on")
    assert '"done"' in (unfinished(out) / "journal.jsonl").read_text()
    monkeypatch.setattr(build_module, "_cut_scan", without_memory)
    with pytest.raises(InputError, match="too little memory for --jobs 2; the same.* fewer --jobs"):
        build(luna, out, excluded=luna / "excluded.csv", jobs=2)
    with pytest.raises(
        InputError, match="too little memory for --jobs 1; take a machine with more"
    ):
        build(luna, out, excluded=luna / "excluded.csv")
    monkeypatch.undo()
    assert main([*command, "1"]) == 0
    same_bytes(built[0].folder, out)


@pytest.mark.parametrize(
    ("cores", "free_gb", "lungs", "jobs"),
    [(2, 64, False, 2), (64, 8, False, 4), (64, 0.5, False, 1), (64, 8, True, 2)],
)
def test_by_default_no_more_processes_than_there_is_memory_for(
    monkeypatch, cores, free_gb, lungs, jobs
):
    monkeypatch.setattr(cohorts_candidates, "cpu_count", lambda: cores)
    memory = SimpleNamespace(available=free_gb * 1e9)
    monkeypatch.setattr(cohorts_candidates.psutil, "virtual_memory", lambda: memory)
    assert cohorts_candidates.default_jobs(lungs) == jobs


def test_the_estimate_is_what_was_measured():
    """By `benchmarks.extraction`: each candidate's part, and all of LUNA-16."""
    measured = read_json(paths.results() / "benchmark_luna16.json", "a benchmark")
    growth = measured["scans"]["simulated"]["growth"]
    assert (
        pytest.approx(growth["ms_a_candidate"], rel=0.2)
        == 1000 * cohorts_candidates._SECONDS_A_CANDIDATE
    )
    line = cohorts_candidates.estimate(551_065, 888, 551_065, 2, False)
    minutes = int(line.split("about ")[1].split()[0])
    assert minutes == pytest.approx(measured["in_full"]["cpu_s"] / 2 / 60, rel=0.2)
    assert "2 processes that take up to 1.8 GB of memory each, 28.6 GB on disk" in line


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX signal")
def test_ctrl_c_is_one_line_and_the_same_command_goes_on(luna, built, tmp_path):
    """In the middle of the third scan, from the command line."""
    out = tmp_path / "luna16"
    tables = ["--candidates", "candidates.csv", "--annotations", "annotations.csv",
              "--excluded", "excluded.csv"]  # fmt: skip
    tables = [word if word.startswith("--") else str(luna / word) for word in tables]
    command = ["build", "luna16", str(luna), *tables, "--jobs", "1", "--out", str(out)]
    script = f"""
        import os, signal, sys
        from labkit.cli import main
        from labkit.cohorts import volumes
        # What runs in the background of a shell would not hear it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        read, seen = volumes.read, []
        def stopping(scan):
            seen.append(scan)
            if len(seen) == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return read(scan)
        volumes.read = stopping
        sys.exit(main({command!r}))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1].startswith("labkit: stopped; what was finished is kept")
    assert "Traceback" not in done.stderr
    assert not out.exists()
    assert (unfinished(out) / "journal.jsonl").read_text().count('"done"') == 2
    assert main(command) == 0
    same_bytes(built[0].folder, out)


TABLE = pd.DataFrame(
    {
        "nodule_id": [f"c{k:07d}" for k in range(12)], "patient_id": "p", "series_uid": "1.2.3.4",
        "x_mm": 1.5, "y_mm": 2.5, "z_mm": np.arange(12.0), "diameter_mm": np.nan, "hit": -1,
        "excluded": 0, "label": 0, "subset": 0,
    }
)  # fmt: skip
VIEWS = np.broadcast_to(np.arange(12, dtype=np.uint8)[:, None, None, None], (12, 9, 76, 76))


def writer(out, table=TABLE, **options):
    return CandidateWriter(out, table, source="a test", simulated=True, **options)


def first_levels(out):
    return Cohort.open(out).views[:, 4, 70, 3].tolist()


def test_rows_may_come_in_any_order(tmp_path):
    with writer(tmp_path / "c") as out:
        for rows in ([11, 3, 4], [0], [10, 9, 8, 7, 6, 5], [1, 2]):
            out.put(rows, VIEWS[rows])
    assert first_levels(tmp_path / "c") == list(range(12))
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("gone", [[0], [11], [3], [0, 1, 5, 6, 10], list(range(1, 12))])
def test_rows_left_out_close_up(tmp_path, gone):
    with writer(tmp_path / "c") as out:
        kept = [k for k in range(12) if k not in gone]
        out.put(kept, VIEWS[kept])
        out.leave_out({k: f"{k} is no good" for k in gone})
    assert first_levels(tmp_path / "c") == kept
    cohort = Cohort.open(tmp_path / "c")
    assert cohort.nodules["z_mm"].tolist() == kept
    assert list(cohort.meta["report"]["left_out"]) == [f"c{k:07d}" for k in gone]
    cohort.verify(progress=False)


def test_a_stop_while_gaps_are_closed_does_no_harm(tmp_path, monkeypatch):
    out = tmp_path / "c"
    add, seen = Journal.add, []

    def stopping(self, entry):
        seen.extend(["compacted"] * ("compacted" in entry))
        if len(seen) == 3:
            raise KeyboardInterrupt  # rows have been moved, and it is not yet noted
        add(self, entry)

    def stopped():
        with writer(out) as cohort:
            cohort.put(range(12), VIEWS)
            cohort.leave_out({2: "no good", 6: "no good"})

    monkeypatch.setattr(Journal, "add", stopping)
    with pytest.raises(KeyboardInterrupt):
        stopped()
    monkeypatch.undo()
    with writer(out) as again:
        assert again.done.all()
        assert list(again.left_out) == [2, 6]
    assert first_levels(out) == [0, 1, 3, 4, 5, 7, 8, 9, 10, 11]


def test_an_error_keeps_what_was_put_and_the_old_cohort(tmp_path):
    out = tmp_path / "c"
    with writer(out) as old:
        old.put(range(12), VIEWS)

    def interrupted():
        with writer(out, name="new") as cohort:
            cohort.put([5], VIEWS[[5]])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert Cohort.open(out).name == "c"
    with pytest.raises(InputError, match="begun with name 'new', not 'c'"), writer(out):
        pass
    other = TABLE.assign(x_mm=9.0)
    with pytest.raises(InputError, match="other candidates"), writer(out, other, name="new"):
        pass
    with pytest.raises(InputError, match="neither put nor left out"), writer(out, name="new") as go:
        assert go.done.nonzero()[0].tolist() == [5]
    with writer(out, name="new") as go:
        go.put(np.flatnonzero(~go.done), VIEWS[~go.done])
    assert Cohort.open(out).name == "new"
    assert first_levels(out) == list(range(12))
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_an_error_before_anything_was_put_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), writer(tmp_path / "c"):
        raise ZeroDivisionError
    first = "no candidate could be used; the first: worn"
    with pytest.raises(InputError, match=first), writer(tmp_path / "c") as out:
        out.leave_out(dict.fromkeys(range(12), "worn"))
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_is_building_is_left_alone(tmp_path):
    owner = tmp_path / ".c.unfinished" / "owner.json"
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as other:
        who = {"host": platform.node(), "pid": other.pid}
        write_json(owner, {**who, "started": psutil.Process(other.pid).create_time()})
        at_it = f"process {other.pid} is building it; wait"
        with pytest.raises(InputError, match=at_it), writer(tmp_path / "c"):
            pass
        write_json(owner, {**who, "started": 0.0})  # a process that had its number before
        with writer(tmp_path / "c") as out:
            out.put(range(12), VIEWS)
        other.communicate(b"")
    write_json(owner, {"host": "elsewhere", "pid": 1, "started": 0.0})
    with pytest.raises(InputError, match=f"on elsewhere.*remove {owner}"), writer(tmp_path / "c"):
        pass
    assert first_levels(tmp_path / "c") == list(range(12))


def test_bad_rows_are_refused(tmp_path):
    with pytest.raises(InputError, match="no column hit"):
        writer(tmp_path / "c", TABLE.drop(columns="hit"))
    with pytest.raises(InputError, match="comes twice"):
        writer(tmp_path / "c", TABLE.assign(nodule_id="a"))
    with pytest.raises(InputError, match="c0000000 needs a label"):
        writer(tmp_path / "c", TABLE.assign(label=2))
    with pytest.raises(InputError, match="finite position"):
        writer(tmp_path / "c", TABLE.assign(x_mm=np.nan))
    with pytest.raises(InputError, match="uint8 of shape"), writer(tmp_path / "c") as out:
        out.put([0], np.zeros((1, 9, 76, 76), np.int16))
    with pytest.raises(InputError, match="rows 12 to 12"), writer(tmp_path / "c") as out:
        out.put([12], VIEWS[:1])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_known_before(tmp_path, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)._replace(free=600_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    needs = "12 nodules need 1 MB, 1 MB are free"
    with pytest.raises(InputError, match=needs), writer(tmp_path / "c"):
        pass


# --- cohorts of half a million ------------------------------------------------------------------


def test_a_cohort_of_views_alone_says_so_where_cubes_are_needed(built):
    with pytest.raises(InputError, match="without cubes"):
        built[0].require_cubes()


def test_a_changed_table_beside_it_is_found(luna, tmp_path):
    out = tmp_path / "c"
    with writer(out, tables={"annotations.csv": TABLE[["series_uid"]]}) as cohort:
        cohort.put(range(12), VIEWS)
    (out / "annotations.csv").write_text((out / "annotations.csv").read_text().replace("3", "5"))
    with pytest.raises(InputError, match=r"annotations\.csv.*checksum"):
        Cohort.open(out).verify(progress=False)
    (out / "annotations.csv").unlink()
    with pytest.raises(InputError, match=r"annotations\.csv: missing"):
        Cohort.open(out)
