"""A cohort on disk: what goes in comes out, and nothing damaged opens."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit import io
from labkit.cohorts.cohort import COLUMNS, Cohort, write_cohort
from labkit.errors import InputError

CUBE = np.zeros((64, 64, 64), np.int16)
VIEWS = np.zeros((9, 76, 76), np.int16)
ROW = {"nodule_id": "a", "patient_id": "p"}


def adding(folder, n=1, **options):
    return write_cohort(folder, n, source="a test", simulated=True, **options)


def write(folder, n=3, announced=None, **options):
    with adding(folder, announced or n, **options) as add:
        for k in range(n):
            label = [1, 0, pd.NA][k % 3]
            row = {"nodule_id": f"n{k}", "patient_id": f"{k:03d}", "label": label}
            add({**row, "diameter_mm": 0.1 + k, "note": "5|4"}, CUBE + k, VIEWS - k)
    return folder


def test_what_goes_in_comes_out(tmp_path):
    cohort = Cohort.open(write(tmp_path / "small", settings={"spacing_mm": 1.0}))
    assert len(cohort) == 3 and cohort.labelled.tolist() == [0, 1]
    assert cohort.name == "small"
    assert cohort.simulated is True
    assert cohort.meta["settings"] == {"spacing_mm": 1.0}
    assert cohort.cubes[:, 5, 5, 5].tolist() == [0, 1, 2]
    assert cohort.views[:, 8, 5, 5].tolist() == [0, -1, -2]
    assert isinstance(cohort.cubes, np.memmap)
    assert isinstance(cohort.views, np.memmap)
    cohort.verify()
    table = cohort.nodules
    assert list(table.columns) == [*COLUMNS, "note"]
    assert table["patient_id"].tolist() == ["000", "001", "002"]
    assert table["series_uid"].tolist() == ["", "", ""]
    assert str(table["label"].dtype) == "Int64"
    assert table["label"].isna().tolist() == [False, False, True]
    assert table["diameter_mm"].tolist() == pytest.approx([0.1, 1.1, 2.1])
    assert table["readers"].isna().all()
    assert table["note"].tolist() == ["5|4"] * 3


@given(
    ids=st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), min_size=1,
                 max_size=3, unique_by=lambda name: normalize("NFKC", name).casefold()),
    diameter=st.floats(0.1, 100),
)  # fmt: skip
@settings(max_examples=10, deadline=None)
def test_any_text_and_any_number_survive_the_table(tmp_path_factory, ids, diameter):
    folder = tmp_path_factory.mktemp("any") / "c"
    with adding(folder, len(ids)) as add:
        for k, patient in enumerate([*ids[:-1], "NA"]):
            add({"nodule_id": str(k), "patient_id": patient, "diameter_mm": diameter}, CUBE, VIEWS)
    table = Cohort.open(folder).nodules
    assert table["patient_id"].tolist() == [*ids[:-1], "NA"]
    assert table["nodule_id"].tolist() == [str(k) for k in range(len(ids))]
    assert table["diameter_mm"].tolist() == pytest.approx([diameter] * len(ids), rel=1e-12)


def test_hu_are_rounded_and_saturate(tmp_path):
    views = np.zeros((9, 76, 76), np.float32)
    views[0, 0, :4] = [-999.6, 0.4, 1e6, -1e6]
    with adding(tmp_path / "c") as add:
        add(ROW, CUBE, views)
    stored = Cohort.open(tmp_path / "c").views[0, 0, 0, :4]
    assert stored.tolist() == [-1000, 0, 32767, -32768]


def test_fewer_rows_than_announced_leave_no_empty_rows(tmp_path):
    folder = write(tmp_path / "c", n=2, announced=50)
    cohort = Cohort.open(folder)
    assert len(cohort) == 2
    assert cohort.cubes.shape == (2, 64, 64, 64)
    assert cohort.views[1, 0, 0, 0] == -1
    assert (folder / "cubes.npy").stat().st_size < 2 * 2 * 64**3 + 1000
    cohort.verify()


def test_a_cohort_is_the_same_to_the_byte_when_made_again(tmp_path):
    one, two = write(tmp_path / "one" / "x"), write(tmp_path / "two" / "x")
    for name in ("nodules.csv", "views.npy", "cubes.npy", "cohort.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


# --- damage -------------------------------------------------------------------------------------


def refused(folder, message):
    with pytest.raises(InputError, match=message) as caught:
        Cohort.open(folder)
    assert "\n" not in str(caught.value)


def test_no_cohort_there(tmp_path):
    refused(tmp_path / "nowhere", "no such folder")
    refused(tmp_path, "not a cohort")


@pytest.mark.parametrize("name", ["nodules.csv", "views.npy", "cubes.npy", "cohort.json"])
def test_a_missing_truncated_or_changed_file_is_named(tmp_path, name):
    folder = write(tmp_path / "c")
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    refused(folder, name)
    if name == "cohort.json":
        return
    (folder / name).write_bytes(whole[:-7])
    refused(folder, f"{name}.*truncated")
    content = bytearray(whole)
    content[-3] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}.*checksum"):
        Cohort.open(folder).verify()


@pytest.mark.parametrize(
    "change",
    [lambda text: "", lambda text: text.replace(",", ";"), lambda text: text + text[-40:],
     lambda text: text.replace("patient_id", "who"), lambda text: text.replace("n2,", "n1,")],
)  # fmt: skip
def test_a_table_that_is_none_is_refused_even_with_its_checksum(tmp_path, change):
    folder = write(tmp_path / "c")
    table, about = folder / "nodules.csv", json.loads((folder / "cohort.json").read_text())
    table.write_text(change(table.read_text()))
    size = {"bytes": table.stat().st_size, "sha256": io.sha256(table)}
    about["files"]["nodules.csv"] = size
    (folder / "cohort.json").write_text(json.dumps(about))
    refused(folder, "no table of nodules|most likely one")


def test_a_sorted_table_is_refused_since_its_rows_have_left_their_images(tmp_path):
    folder = write(tmp_path / "c")
    head, *rows = (folder / "nodules.csv").read_text().splitlines(keepends=True)
    (folder / "nodules.csv").write_text(head + "".join(reversed(rows)))
    refused(folder, r"nodules\.csv.*changed")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not readable as JSON"),
        ("[]", "not a cohort"),
        ('{"format": 99}', "not a cohort of format"),
        ({"files": None}, "does not know"),
        ({"files": {"nodules.csv": 3}}, "does not know"),
        ({"n": 2}, "2 nodules and nodule_id,.* are expected"),
    ],
)
def test_a_strange_cohort_json_is_refused(tmp_path, content, message):
    folder = write(tmp_path / "c")
    if isinstance(content, dict):
        meta = json.loads((folder / "cohort.json").read_text())
        content = json.dumps({**meta, **content})
    (folder / "cohort.json").write_text(content)
    refused(folder, message)


# --- what must not be written -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "cube", "views", "message"),
    [
        ({"patient_id": "p"}, CUBE, VIEWS, "no nodule_id"),
        ({"nodule_id": "n"}, CUBE, VIEWS, "no patient_id"),
        ({"nodule_id": "n", "patient_id": ""}, CUBE, VIEWS, "no patient_id"),
        ({**ROW, "label": 3}, CUBE, VIEWS, "label 3"),
        (ROW, CUBE[1:], VIEWS, "cubes: shape"),
        (ROW, CUBE, VIEWS[:, 6:-6, 6:-6], "views: shape"),
        (ROW, CUBE, np.full(VIEWS.shape, np.nan), "not finite"),
    ],
)
def test_bad_rows_are_refused_and_leave_nothing(tmp_path, row, cube, views, message):
    with pytest.raises(InputError, match=message), adding(tmp_path / "c") as add:
        add(row, cube, views)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"patient_id": "P01"}, {"patient_id": "p01"}], "'P01' and 'p01' are most likely one"),
        ([{"patient_id": "P-01"}, {"patient_id": "P_01"}], "most likely one"),
        ([{"patient_id": "P-01"}, {"patient_id": "P\u2013 01"}], "most likely one"),
        ([{"patient_id": "P01"}, {"patient_id": "P01\u200b "}], "a character that no id has"),
        ([{"series_uid": "1.2"}, {"series_uid": "1.2", "patient_id": "q"}], "of patients p and q"),
        ([{"series_uid": "1.36E+30"}], "a spreadsheet made of an id"),
        ([{"series_uid": "1.36E30"}], "a spreadsheet made of an id"),
        ([{"label": 1, "malignancy_mean": 2.5}], "contradicts its malignancy_mean 2.5"),
        ([{"label": 1, "malignancy_median": 2.5}], "label 1, which contradicts .* 2.5"),
        ([{"label": 0, "malignancy_median": 4.0}], "label 0, which contradicts"),
    ],
)
def test_what_a_table_says_in_two_ways_is_refused(tmp_path, rows, message):
    with pytest.raises(InputError, match=message), adding(tmp_path / "c", len(rows)) as add:
        [add({**ROW, "nodule_id": str(k), **row}, CUBE, VIEWS) for k, row in enumerate(rows)]
    assert list(tmp_path.iterdir()) == []


def test_ids_that_look_like_numbers_stay_as_they_are_also_in_other_columns(tmp_path):
    names = ["01", "1", "1.10", "1.1", "NA", "nan", "1e5", "True"]
    with adding(tmp_path / "c", len(names)) as add:
        for k, name in enumerate(names):
            ids = dict.fromkeys(["nodule_id", "patient_id", "series_uid", "scanner"], name)
            add({**ids, "dose": 0.1 * k, "count": k, "seen": k > 2}, CUBE, VIEWS)
    table = Cohort.open(tmp_path / "c").nodules
    for column in ("nodule_id", "patient_id", "series_uid", "scanner"):
        assert table[column].tolist() == names
    assert table["dose"].tolist() == [0.1 * k for k in range(8)]
    assert [table[c].dtype.kind for c in ("dose", "count", "seen")] == ["f", "i", "b"]


def test_the_same_nodule_twice_too_many_and_none_are_refused(tmp_path):
    with adding(tmp_path / "c") as add:
        add(ROW, CUBE, VIEWS)
        with pytest.raises(InputError, match="comes twice"):
            add(ROW, CUBE, VIEWS)
        with pytest.raises(InputError, match="only 1 nodules were announced"):
            add({**ROW, "nodule_id": "b"}, CUBE, VIEWS)
    with pytest.raises(InputError, match="no nodule was added"), adding(tmp_path / "d", 5):
        pass
    with pytest.raises(InputError, match="at least one"), adding(tmp_path / "d", 0):
        pass


def test_an_old_cohort_is_replaced_but_nothing_else(tmp_path):
    folder = write(tmp_path / "c", n=2)
    write(folder, n=3)
    assert len(Cohort.open(folder)) == 3
    (tmp_path / "file").write_text("x")
    (tmp_path / "other").mkdir()
    for file in (folder / "thesis.tex", tmp_path / "other" / "views.npy"):
        file.write_text("precious")
        with pytest.raises(InputError, match=file.name):
            write(file.parent)
    with pytest.raises(InputError, match="is a file"):
        write(tmp_path / "file")


def test_a_full_disk_is_known_before(tmp_path, monkeypatch):
    usage = io.shutil.disk_usage(tmp_path)._replace(free=600_000)
    monkeypatch.setattr(io.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="needs 2 MB, 1 MB are free"):
        write(tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_old_cohort_as_it_was(tmp_path):
    folder = write(tmp_path / "c", n=2)
    with pytest.raises(InputError, match="comes twice"), adding(folder, 9) as add:
        any(add(ROW, CUBE, VIEWS) for _ in range(2))
    assert len(Cohort.open(folder)) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


KILLS = pytest.mark.skipif(
    not hasattr(signal, "SIGKILL"), reason="needs a kill that cannot be caught"
)


@KILLS
def test_a_kill_leaves_the_old_file_and_the_next_write_clears_up(tmp_path):
    io.write_json(file := tmp_path / "a.json", "old")
    script = f"""
        import os, pathlib, signal
        from labkit import io
        def write(path):
            path.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        io.write_atomically(pathlib.Path({str(file)!r}), write)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2 and io.read_json(file, "a file") == "old"
    io.write_json(file, "new")
    assert list(tmp_path.iterdir()) == [file] and io.read_json(file, "a file") == "new"


def test_what_was_left_by_an_earlier_process_of_our_number_is_cleared(tmp_path):
    """A container that is killed and started again has the same name and numbers."""
    left = io._beside(tmp_path / "c", str(os.getpid()))
    left.mkdir()
    folder = write(tmp_path / "c")
    assert list(tmp_path.iterdir()) == [folder]


def test_of_two_that_replace_a_folder_at_once_one_stays_whole(tmp_path, monkeypatch):
    folder, *both = (write(tmp_path / name, n=n) for n, name in enumerate("cab", 1))
    rename = Path.rename

    def rename_while_another_comes(path, target):
        rename(path, target)
        if both[1].exists():
            rename(both[1], folder)

    monkeypatch.setattr(Path, "rename", rename_while_another_comes)
    io.replace_folder(both[0], folder)
    assert len(Cohort.open(folder)) == 2
    assert list(tmp_path.iterdir()) == [folder]


@KILLS
@pytest.mark.parametrize("moved", [False, True])
def test_a_kill_leaves_the_old_cohort_and_the_next_run_clears_up(tmp_path, moved):
    """Killed while it writes, or between moving the old cohort aside and its own into place."""
    folder = write(tmp_path / "c", n=2)
    script = f"""
        import os, pathlib, signal
        import numpy as np
        from labkit.cohorts.cohort import write_cohort
        with write_cohort({str(folder)!r}, 9, source="a test", simulated=True) as add:
            add({ROW!r}, np.zeros((64, 64, 64)), np.zeros((9, 76, 76)))
            if not {moved}:
                os.kill(os.getpid(), signal.SIGKILL)
            rename = pathlib.Path.rename
            def killing(self, target):
                rename(self, target)
                if str(target).endswith("-replaced"):
                    os.kill(os.getpid(), signal.SIGKILL)
            pathlib.Path.rename = killing
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert folder.exists() == (not moved)
    with pytest.raises(InputError, match="no nodule was added"), adding(folder):
        assert len(Cohort.open(folder)) == 2
    assert list(tmp_path.iterdir()) == [folder]
    write(folder, n=3)
    assert list(tmp_path.iterdir()) == [folder]
