"""Cohorts of LUNA-16's candidates: every row beside its images, through kills, gaps and damage."""

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from labkit import io, paths
from labkit.annotations import lidc, luna16
from labkit.cli import main
from labkit.cohorts import candidates as luna_cohorts
from labkit.cohorts.candidates import (
    as_u8,
    build_luna16,
    find,
    outside,
    part_files,
    read,
    read_header,
    read_part,
    views_u8,
    write_candidates,
    write_part,
)  # fmt: skip
from labkit.cohorts.cohort import COLUMNS, Cohort
from labkit.errors import InputError
from labkit.imaging.dicom import read_image, read_series
from labkit.imaging.lungs import dilate, segment
from labkit.imaging.views import nine_views
from labkit.imaging.volume import Volume
from tests.cohorts import luna_phantom
from tests.cohorts.luna_phantom import FLIPPED, SAGITTAL, STRAIGHT, TISSUE, Phantom, oblique

UIDS = lidc.luna16_series()
POSITIONS = ["coordX", "coordY", "coordZ"]
KILLS = pytest.mark.skipif(
    not hasattr(signal, "SIGKILL"), reason="needs a kill that cannot be caught"
)


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
    luna_phantom.annotations(made).to_csv(folder / "annotations.csv", index=False)
    luna_phantom.candidates(made).to_csv(folder / "candidates.csv", index=False)
    near = luna_phantom.annotations(made[1:2]).iloc[:1].assign(diameter_mm=-1)
    near["coordX"] += 3.0
    near.to_csv(folder / "excluded.csv", index=False)
    return folder


def build(luna, out, **changes):
    options = {"annotations": luna / "annotations.csv", "jobs": 1, "progress": False, **changes}
    return build_luna16(luna, options.pop("candidates", luna / "candidates.csv"), out, **options)


def command(luna, out, jobs=1):
    names = ("candidates", "annotations", "excluded")
    tables = [word for name in names for word in (f"--{name}", str(luna / f"{name}.csv"))]
    return ["build", "luna16", str(luna), *tables, "--jobs", str(jobs), "--out", str(out)]


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


def test_rows_are_the_candidates_in_their_order_with_views_of_their_own_place(luna, built):
    cohort, report = built
    given, nodules = (pd.read_csv(luna / f"{name}.csv") for name in ("candidates", "annotations"))
    table = cohort.nodules
    assert cohort.task == "luna16" and not cohort.simulated
    with pytest.raises(InputError, match="without cubes"):
        cohort.require_cubes()
    assert cohort.views.dtype == np.uint8 and isinstance(cohort.views, np.memmap)
    assert len(cohort) == len(given) == report.scans["built"].sum()
    assert list(table.columns[: len(COLUMNS)]) == list(COLUMNS)
    assert table["nodule_id"].tolist() == [f"c{k:07d}" for k in range(len(given))]
    assert table["series_uid"].tolist() == given["seriesuid"].tolist()
    assert table["label"].tolist() == given["class"].tolist()
    assert (table[["x_mm", "y_mm", "z_mm"]].to_numpy() == given[POSITIONS].to_numpy()).all()
    by_series = lidc.scans().set_index("series_uid")["patient_id"]
    assert table["patient_id"].tolist() == by_series[given["seriesuid"]].tolist()
    positive, negative = (table[table["label"] == label] for label in (1, 0))
    assert set(positive["hit"]) == set(range(len(nodules))) and set(negative["hit"]) == {-1}
    assert positive["diameter_mm"].tolist() == nodules["diameter_mm"][positive["hit"]].tolist()
    assert negative["diameter_mm"].isna().all()
    assert set(table.loc[table["excluded"] == 1, "series_uid"]) == {UIDS[1]}
    assert table.groupby("series_uid")["subset"].first()[UIDS[:4]].tolist() == [0, 0, 3, 7]
    assert set(report.scans["status"]) == {"built"}
    assert report.notes == []
    files = find(luna)
    scans = {uid: read_image(files[uid][0]) for uid in UIDS[:4]}
    for row in range(0, len(cohort), 5):
        center = table.iloc[row][["x_mm", "y_mm", "z_mm"]].to_numpy(float)
        expected = as_u8(nine_views(scans[table["series_uid"][row]], center, 76)).astype(int)
        assert np.abs(cohort.views[row] - expected).max() <= 1
    middle = cohort.views[:, :, 37:39, 37:39].mean(axis=(1, 2, 3))
    assert middle[(table["label"] == 1).to_numpy()].min() > 0.9 * as_u8(TISSUE)


def test_the_tables_lie_beside_it_as_the_challenge_writes_them_and_are_checked(luna, tmp_path):
    folder = tmp_path / "c"
    build(luna, folder, excluded=luna / "excluded.csv")
    for name, source in {"candidates": "candidates", "annotations": "annotations",
                         "annotations_excluded": "excluded"}.items():  # fmt: skip
        ours, theirs = (pd.read_csv(f"{f}.csv") for f in (folder / name, luna / source))
        pd.testing.assert_frame_equal(ours, theirs, check_dtype=False)
    assert (folder / "seriesuids.csv").read_text().split() == sorted(UIDS[:4])
    cohort = Cohort.open(folder)
    cohort.verify()
    assert set(cohort.meta["files"]) == {p.name for p in folder.iterdir()} - {"cohort.json"}
    file = folder / "annotations.csv"
    file.write_text(file.read_text().replace("3", "5"))
    with pytest.raises(InputError, match=r"annotations\.csv.*checksum"):
        cohort.verify()
    file.unlink()
    with pytest.raises(InputError, match=r"annotations\.csv: missing"):
        Cohort.open(folder)


def test_without_excluded_findings_it_is_told(luna, tmp_path):
    report = build(luna, tmp_path / "c")
    assert "no finding is excluded, because none was given" in str(report)
    assert luna16.read_excluded(tmp_path / "c" / "annotations_excluded.csv").empty


def test_the_command_builds_the_same_bytes_on_two_processes(luna, built, tmp_path, capsys):
    arguments = command(luna, tmp_path / "luna16", jobs=2)
    assert main([*arguments[:3], "--out", str(tmp_path / "luna16")]) == 2
    assert "needs --candidates" in capsys.readouterr().err
    assert main(arguments) == 0
    assert "candidates of 4 scans" in capsys.readouterr().out
    same_bytes(built[0].folder, tmp_path / "luna16")


# --- views --------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", [STRAIGHT, FLIPPED, oblique()])
def test_a_ball_is_in_the_middle_of_all_its_views(direction):
    phantom = Phantom("1.2.3.4", direction=direction, spacing=(0.8, 0.7, 1.0))
    level = int(as_u8(TISSUE))
    rows, columns = np.indices((76, 76)) - 37.5
    for nine, ball in zip(views_u8(phantom.volume(), phantom.centers), phantom.balls, strict=True):
        for view in nine:
            light = (view > level / 2) & (np.hypot(rows, columns) < ball[3])
            assert light.sum() == pytest.approx(np.pi * ball[3] ** 2 / 4, rel=0.2)
            assert (light * rows).sum() / light.sum() == pytest.approx(0, abs=0.4)
            assert (light * columns).sum() / light.sum() == pytest.approx(0, abs=0.4)
    assert views_u8(phantom.volume(), []).shape == (0, 9, 76, 76)


def test_a_candidate_outside_is_named_with_its_place():
    volume = Volume(np.zeros((4, 5, 6), np.int16), (1, 1, 1), (10, 20, 30), series_uid="1.2.3.4")
    points = [(10, 20, 30), (9.4, 20, 30), (15.6, 20, 30), (15.4, 24.4, 33.4), (np.nan, 0, 0)]
    found = dict(outside(volume, np.array(points)))
    assert list(found) == [1, 2, 4] and "x 9.4, y 20.0, z 30.0 mm lies outside" in found[1]
    turned = Phantom("1.2.3.4", direction=oblique(30)).volume()
    ((_, why),) = outside(turned, turned.world_from_index((-2.0, 7.0, 90.0))[None])
    assert "at voxel -2, 7, 90 (z, y, x) of (40, 96, 90)" in why


# --- what is missing, damaged or wrong costs itself alone ---------------------------------------


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"NDims": "2", "DimSize": "90 96"}, "DimSize is '90 96'"),
        ({"ElementType": "MET_LONG_LONG"}, "ElementType is none of"),
        ({"DimSize": "90 96 41"}, "need 708480 bytes, .* has 691200"),
        ({"DimSize": "90 96 -40"}, "DimSize 90 96 -40"),
        ({"DimSize": "90.5 96 40"}, "DimSize 90.5 96 40"),
        ({"DimSize": "90000000 9600000 400000000"}, r"need 6.912e\+23 bytes"),
        ({"ElementSpacing": "nan 1 1"}, "ElementSpacing is 'nan 1 1'"),
        ({"ElementSpacing": "800 700 2000"}, "0.05 to 20 mm.*give millimetres"),
        ({"Offset": None}, "no Offset"),
        ({"Offset": "0 0"}, "Offset is '0 0' and has to be 3 finite"),
        ({"BinaryData": "False"}, "write HU as plain binary"),
        ({"ElementDataFile": None}, "no ElementDataFile"),
        ({"ElementDataFile": "LIST"}, "LIST is not beside it; fetch it, as one"),
        ({"ElementDataFile": f"{UIDS[1]}.raw"}, f"{UIDS[1]}.raw is not beside it"),
        ({"HeaderSize": "100"}, "HeaderSize is 100"),
        ({"ElementNumberOfChannels": "3"}, "Channels is 3; .* one a voxel"),
        ({"TransformMatrix": "1 0 0 0 1 0 0 0 0"}, "at right angles"),
        ({"TransformMatrix": "1 0 0 0.5 1 0 0 0 1"}, "at right angles"),
        ({"TransformMatrix": "2 0 0 0 2 0 0 0 2"}, "of length 1"),
        ({"TransformMatrix": "1 0 0 0 1 0"}, "9 finite numbers"),
        ({"DistanceUnits": "cm"}, "DistanceUnits is cm; .* of millimetres"),
        ({"Modality": "MET_MOD_MR"}, "Modality is MET_MOD_MR"),
        ({"ElementToIntensityFunctionSlope": "2"}, "FunctionSlope is 2; write HU"),
        ({"Position": "1 2 3"}, "in two ways what its Offset is"),
        ({"Comment": "a line\nof more"}, "header is damaged"),
        ({"CompressedData": "True", "CompressedDataSize": "9"}, "CompressedDataSize is 9, and"),
    ],
)
def test_a_wrong_header_is_told_in_one_line(tmp_path, header, message):
    path = Phantom(UIDS[0]).write(tmp_path, **header)
    for reading in (read_header, read_image):
        with pytest.raises(InputError, match=message) as caught:
            reading(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_what_cannot_be_the_scan_is_refused(tmp_path):
    """Another scan's voxels, and voxels that stop in zeros."""
    Phantom(UIDS[1]).write(tmp_path)
    path = Phantom(UIDS[0]).write(tmp_path, ElementDataFile=f"{UIDS[1]}.raw")
    with pytest.raises(InputError, match="is another scan's"):
        read_header(path)
    scan = read_header(Phantom(UIDS[0]).write(tmp_path))
    whole = scan.data.read_bytes()
    scan.data.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 2))
    with pytest.raises(InputError, match="slice 20 holds nothing but zeros"):
        read(scan)


@pytest.mark.parametrize(
    ("change", "both", "message"),
    [
        (lambda t, _: t.assign(seriesuid=t["seriesuid"] + ".mhd"), False, "hit no nodule"),
        (lambda t, _: t.assign(**{p: t[p] + 30 for p in POSITIONS}), False, "hit no nodule"),
        (lambda t, at: at(t), False, "hit no nodule"),
        (lambda t, at: at(t), True, "8 of 8 candidates; candidate c0000000 .* outside"),
        (lambda t, _: t.assign(coordX=-t["coordX"], coordY=-t["coordY"] - 90), True, "outside"),
    ],
)
def test_tables_of_other_names_or_places_than_the_scans_are_refused(
    tmp_path, change, both, message
):
    """Annotations named by their files, or elsewhere; in voxels; in RAS."""
    phantom = Phantom(UIDS[0])
    phantom.write(tmp_path / "subset0")

    def in_voxels(table):
        index = phantom.volume().index_from_world(table[POSITIONS].to_numpy())
        return table.assign(**dict(zip(POSITIONS, index[:, ::-1].T + 300, strict=True)))

    marks, nodules = (f([phantom]) for f in (luna_phantom.candidates, luna_phantom.annotations))
    (change(marks, in_voxels) if both else marks).to_csv(tmp_path / "candidates.csv", index=False)
    change(nodules, in_voxels).to_csv(tmp_path / "annotations.csv", index=False)
    with pytest.raises(InputError, match=message):
        build(tmp_path, tmp_path / "c")


def test_line_ends_of_a_header_and_what_is_none(tmp_path):
    path = Phantom(UIDS[0]).write(tmp_path)
    text = path.read_bytes()
    for end in (b"\n", b"\r\n"):
        path.write_bytes(text.replace(b"\n", end))
        assert read(read_header(path)).shape == Phantom(UIDS[0]).shape
    for content in (text.replace(b"\n", b"\r"), b"", b"\x00\xff" * 500, b"hello"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="no MetaImage header|header is damaged"):
            read_header(path)


def test_numbers_that_are_no_hu_are_refused(tmp_path):
    """Stored 1024 higher: no voxel is as low as air."""
    path = Phantom(UIDS[0]).write(tmp_path, ElementType="MET_USHORT")
    voxels = (Phantom(UIDS[0]).voxels() + 1024).astype("<u2")
    path.with_suffix(".raw").write_bytes(voxels.tobytes())
    with pytest.raises(InputError, match="write .*HU"):
        read(read_header(path))


def test_damage_costs_that_scan_alone_until_it_is_mended(luna, built, tmp_path):
    made = phantoms()
    folder = tmp_path / "luna"
    made[0].write(folder / "subset0", ElementSpacing=None)
    made[1].write(folder / "subset0")
    # Its header is sound and its size right, but what should be compressed is not.
    made[2].write(folder, CompressedData="True")
    made[3].write(folder / "a")
    made[3].write(folder / "b")
    given = {"candidates": luna / "candidates.csv", "annotations": luna / "annotations.csv",
             "excluded": luna / "excluded.csv"}  # fmt: skip
    report = build(folder, tmp_path / "c", **given)
    reasons = report.problems.set_index("series_uid")["reason"]
    assert "no ElementSpacing" in reasons[UIDS[0]]
    assert "not readable" in reasons[UIDS[2]]
    assert "also in" in reasons[UIDS[3]]
    assert report.scans.set_index("series_uid")["status"][UIDS[1]] == "built"
    cohort = Cohort.open(tmp_path / "c")
    assert set(cohort.nodules["series_uid"]) == {UIDS[1]}
    assert (cohort.folder / "seriesuids.csv").read_text().split() == [UIDS[1]]
    assert set(cohort.meta["report"]["failed_scans"]) == {UIDS[0], UIDS[2], UIDS[3]}
    assert cohort.meta["report"]["left_out"] == {}
    rows = np.flatnonzero(built[0].nodules["series_uid"] == UIDS[1])
    np.testing.assert_array_equal(cohort.views, built[0].views[rows])
    cohort.verify()
    made[2].write(folder)
    report = build(folder, tmp_path / "c", **given)
    assert set(report.problems["series_uid"]) == {UIDS[0], UIDS[3]}


def test_candidates_outside_are_named_and_a_long_list_is_cut_short(luna, tmp_path):
    given = pd.read_csv(luna / "candidates.csv")
    far = [k for k in range(3, len(given)) if k % 5 in (0, 3)]  # of no scan more than half
    given.loc[far, "coordX"] += 5000
    given.loc[5, ["coordX", "coordY"]] = 1e300, -1e200  # too far for their square
    given.loc[22, "class"] = 1 - given.loc[22, "class"]
    absent = luna_phantom.candidates([Phantom(uid) for uid in UIDS[10:30]], n=0)
    pd.concat([given, absent]).to_csv(tmp_path / "candidates.csv", index=False)
    report = build(luna, tmp_path / "c", candidates=tmp_path / "candidates.csv")
    assert list(report.left_out) == [f"c{k:07d}" for k in far]
    assert f"{given['coordX'][3]:.1f}" in report.left_out["c0000003"]
    assert given["seriesuid"][3] in report.left_out["c0000003"]
    assert "at x 1e+300, y -1e+200, z" in report.left_out["c0000005"]
    text = str(report).splitlines()
    assert sum(line.startswith("left out: candidate") for line in text) == 10
    assert f"left out: {len(far) - 10} more, see {tmp_path / 'c'}/cohort.json" in text
    assert f"missing: 10 more, see {tmp_path / 'c'}/cohort.json" in text
    assert any("another class" in line for line in text)
    cohort = Cohort.open(tmp_path / "c")
    assert cohort.nodules["nodule_id"].tolist() == [
        f"c{k:07d}" for k in range(len(given)) if k not in far
    ]
    assert set(given["seriesuid"]) | set(absent["seriesuid"]) == set(report.scans["series_uid"])
    about = cohort.meta["report"]
    assert about["missing_scans"] == sorted(set(absent["seriesuid"]))
    assert about["class_disagrees"] == ["c0000022"] and about["left_out"] == report.left_out


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
    tables = {name: luna / f"{name}.csv" for name in ("candidates", "annotations", "excluded")}
    report = build(flat, tmp_path / "c", progress=True, **tables)
    (note,) = report.notes
    assert note.startswith("3 of 4 scans with candidates lie in no folder subset0 to subset9")
    assert "--subsets FILE" in note and note in str(report).splitlines()
    told = capsys.readouterr().out
    assert told.index(note) < told.index("candidates of 4 scans: ")


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
    found = find(luna)
    assert sorted(found) == sorted(UIDS[:4])
    assert {len(paths) for paths in found.values()} == {1}
    subset = {uid: read_header(paths[0]).subset for uid, paths in found.items()}
    assert subset == dict(zip(UIDS[:4], (0, 0, 3, -1), strict=True))
    # A link to the file alone, and one that puts it into another subset: there twice.
    name = f"{UIDS[0]}.mhd"
    linked(luna / name, disk / "a" / name)
    assert len(find(luna)[UIDS[0]]) == 1
    linked(luna / "subset5" / name, disk / "a" / name)
    assert find(luna)[UIDS[0]] == [luna / s / name for s in ("subset0", "subset5")]


def test_nothing_to_build_is_an_error_and_leaves_nothing(luna, tmp_path):
    given = luna_phantom.candidates([Phantom("1.2.3.4.5")])
    table = tmp_path / "candidates.csv"
    given.to_csv(table, index=False)
    with pytest.raises(InputError, match="none of the candidates' 1 scans"):
        build(luna, tmp_path / "c", candidates=table)
    with pytest.raises(InputError, match="no such folder"):
        build(tmp_path / "x", tmp_path / "c", annotations=luna / "annotations.csv",
              candidates=luna / "candidates.csv")  # fmt: skip
    with pytest.raises(InputError, match="jobs is 0"):
        build(luna, tmp_path / "c", jobs=0)
    given[:0].to_csv(table, index=False)
    with pytest.raises(InputError, match="no candidate below it"):
        build(luna, tmp_path / "c", candidates=table)
    with pytest.raises(InputError, match="cannot be written there"):
        build(luna, table / "c")
    with pytest.raises(InputError, match="no candidate could be used; the first: .*lung"):
        build(luna, tmp_path / "c", lungs=True)
    assert {p.name for p in tmp_path.iterdir()} == {"candidates.csv", ".c.lock"}


@pytest.mark.real
@pytest.mark.slow
def test_a_real_scan_with_lungs_alone(real_dicom, tmp_path):
    volume = read_series(real_dicom)
    mask = segment(volume, one_lung=True)
    kept = dilate(mask, volume)
    chosen = np.random.default_rng(0)
    index = [chosen.choice(np.argwhere(mask), 20), chosen.choice(np.argwhere(~kept), 3)]
    points = volume.world_from_index(np.concatenate(index))
    image = sitk.GetImageFromArray(volume.voxels)
    image.SetSpacing(volume.spacing_xyz_mm)
    image.SetOrigin(volume.origin_xyz_mm)
    sitk.WriteImage(image, str(tmp_path / f"{volume.series_uid}.mhd"))
    marks = pd.DataFrame(points, columns=POSITIONS)
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


def finished(out):
    return sorted(p.name for p in out.with_name(f".{out.name}.unfinished").glob("*.npz"))


@KILLS
@pytest.mark.parametrize(("number", "status"), [("SIGKILL", -9), ("SIGINT", 130)])
def test_a_stopped_build_goes_on_and_gives_the_same_bytes(luna, built, tmp_path, number, status):
    """In the middle of its third scan, by the system or by Ctrl-C, when two are finished."""
    out = tmp_path / "luna16"
    script = f"""
        import os, signal, sys
        from labkit.cli import main
        from labkit.cohorts import candidates
        # What runs in the background of a shell would not hear it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        read, seen = candidates.read, []
        def stopping(scan):
            seen.append(scan)
            if len(seen) == 3:
                os.kill(os.getpid(), signal.{number})
            return read(scan)
        candidates.read = stopping
        sys.exit(main({command(luna, out)!r}))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], check=False, capture_output=True, text=True
    )
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    if number == "SIGINT":
        last = done.stderr.splitlines()[-1]
        assert last.startswith("labkit: stopped; what was finished is kept")
    assert not out.exists()
    assert len(finished(out)) == 2
    # One of them is damaged meanwhile: it is made again, and so is not taken for whole.
    first = out.with_name(".luna16.unfinished") / finished(out)[0]
    first.write_bytes(first.read_bytes()[:-200])
    reads = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(luna_cohorts, "read", lambda scan: reads.append(scan) or read(scan))
        build(luna, out, excluded=luna / "excluded.csv")
    assert len(reads) == 3
    assert not out.with_name(".luna16.unfinished").exists()
    same_bytes(built[0].folder, out)


CUT_SCAN = luna_cohorts._cut_scan


def killed_in_the_last_scan(scan, rows, lungs):
    """Runs in a worker, and ends it as the system does."""
    if scan.path.stem == UIDS[3]:
        os.kill(os.getpid(), signal.SIGKILL)
    return CUT_SCAN(scan, rows, lungs)


def without_memory(*_):
    raise MemoryError


@KILLS
def test_a_killed_worker_is_one_line_and_the_same_command_goes_on(
    luna, built, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "luna16"
    monkeypatch.setattr(luna_cohorts, "_cut_scan", killed_in_the_last_scan)
    assert main(command(luna, out, jobs=2)) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    line = error.splitlines()[-1]
    assert line.startswith("labkit: one of 2 processes was killed, for want of memory most likely;")
    assert line.endswith("the same command with fewer --jobs goes on")
    monkeypatch.setattr(luna_cohorts, "_cut_scan", without_memory)
    with pytest.raises(InputError, match="too little memory for --jobs 2; the same.* fewer --jobs"):
        build(luna, out, excluded=luna / "excluded.csv", jobs=2)
    with pytest.raises(InputError, match="--jobs 1; take a machine with more"):
        build(luna, out, excluded=luna / "excluded.csv")
    monkeypatch.undo()
    assert main(command(luna, out)) == 0
    same_bytes(built[0].folder, out)


TABLE = pd.DataFrame(
    {
        "nodule_id": [f"c{k:07d}" for k in range(12)], "patient_id": "p",
        "series_uid": [f"1.2.3.{k % 3}" for k in range(12)], "x_mm": 1.5, "y_mm": 2.5,
        "z_mm": np.arange(12.0), "diameter_mm": np.nan, "hit": -1, "excluded": 0, "label": 0,
        "subset": 0,
    }
)  # fmt: skip
VIEWS = np.broadcast_to(np.arange(12, dtype=np.uint8)[:, None, None, None], (12, 9, 76, 76))


def parts_of(out, **made_with):
    parts = part_files(out, dict.fromkeys(sorted(set(TABLE["series_uid"])), made_with))
    for uid, file in parts.items():
        write_part(file, VIEWS[TABLE["series_uid"] == uid], {"problem": ""})
    return parts


def join(out, parts):
    meta = {"source": "a test", "simulated": True, "settings": {}, "report": {}}
    write_candidates(out, parts, TABLE, {}, meta)


def test_parts_are_joined_in_the_tables_order_also_after_a_stop(tmp_path, monkeypatch):
    """Stopped where a part's views are in the array, and it is not yet noted."""
    out = tmp_path / "c"
    parts = parts_of(out)

    def stopped(file, *rest):
        if file == parts["1.2.3.1"]:
            raise KeyboardInterrupt
        write_part(file, *rest)

    monkeypatch.setattr(luna_cohorts, "write_part", stopped)
    with pytest.raises(KeyboardInterrupt):
        join(out, parts)
    monkeypatch.undo()
    assert not out.exists()
    assert [len(read_part(file)[0]) for file in parts.values()] == [0, 4, 4]
    join(out, parts)
    assert Cohort.open(out).views[:, 4, 70, 3].tolist() == list(range(12))
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    Cohort.open(out).verify()


def test_a_part_made_otherwise_or_given_up_for_another_array_is_not_taken(tmp_path):
    out = tmp_path / "c"
    parts = parts_of(out)
    other = part_files(out, {uid: {"lungs": True} for uid in parts})
    assert set(parts.values()).isdisjoint(other.values())
    for file in parts.values():
        write_part(file, VIEWS[:0], {"joined": True})
    made = luna_cohorts.make_parts(
        parts, {uid: (again, uid) for uid in parts}, 1, ", ".join, "again", False
    )
    assert made == {uid: {"uid": uid} for uid in parts}
    assert len(finished(out)) == 3


def again(uid):
    return VIEWS[:4], {"uid": uid}


def test_what_another_process_is_building_is_left_alone(luna, tmp_path):
    with io.in_turn(tmp_path / "c"), pytest.raises(InputError, match="another process is making"):
        build(luna, tmp_path / "c")


def test_a_full_disk_is_known_before(luna, tmp_path, monkeypatch):
    usage = io.shutil.disk_usage(tmp_path)._replace(free=600_000)
    monkeypatch.setattr(io.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="needs 2 MB, 1 MB are free"):
        build(luna, tmp_path / "c")
    assert finished(tmp_path / "c") == []


@pytest.mark.parametrize(
    ("cores", "free_gb", "each_gb", "jobs"),
    [(2, 64, 1.8, 2), (64, 8, 1.8, 4), (64, 0.5, 1.8, 1), (64, 8, 2.8, 2)],
)
def test_no_more_processes_than_there_is_memory_for(monkeypatch, cores, free_gb, each_gb, jobs):
    monkeypatch.setattr(io, "available_cores", lambda: cores)
    monkeypatch.setattr(io, "memory", lambda: (128e9, free_gb * 1e9))
    assert io.jobs_by_memory(each_gb * 1e9) == jobs


def test_the_estimate_is_what_was_measured():
    """By `benchmarks.speed.extraction`: each candidate's part, and all of LUNA-16."""
    measured = io.read_json(paths.results() / "benchmark_luna16.json", "a benchmark")
    growth = measured["scans"]["simulated"]["growth"]
    a_candidate = 1000 * luna_cohorts._SECONDS_A_CANDIDATE
    assert pytest.approx(growth["ms_a_candidate"], rel=0.2) == a_candidate
    line = luna_cohorts.estimate(551_065, 888, 551_065, 2, False)
    minutes = int(line.split("about ")[1].split()[0])
    assert minutes == pytest.approx(measured["in_full"]["cpu_s"] / 2 / 60, rel=0.2)
    assert "2 processes that take up to 1.8 GB of memory each, 28.6 GB on disk" in line
