"""A cohort on disk: what goes in comes out, and nothing damaged opens."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.cohorts.cohort import COLUMNS, Cohort, CohortWriter
from labkit.errors import InputError

CUBE = np.zeros((64, 64, 64), np.int16)
VIEWS = np.zeros((9, 76, 76), np.int16)


def write(folder, n=3, announced=None, **options):
    options = {"source": "a test", "simulated": True, **options}
    with CohortWriter(folder, announced or n, **options) as writer:
        for k in range(n):
            row = {
                "nodule_id": f"n{k}",
                "patient_id": f"{k:03d}",
                "label": [1, 0, pd.NA][k % 3],
                "diameter_mm": 0.1 + k,
                "note": "5|4",
            }
            writer.add(row, CUBE + k, VIEWS - k)
    return folder


def test_what_goes_in_comes_out(tmp_path):
    folder = write(tmp_path / "small", settings={"spacing_mm": 1.0})
    cohort = Cohort.open(folder)
    assert len(cohort) == 3
    assert cohort.name == "small"
    assert cohort.simulated is True
    assert cohort.meta["settings"] == {"spacing_mm": 1.0}
    assert cohort.cubes[:, 5, 5, 5].tolist() == [0, 1, 2]
    assert cohort.views[:, 8, 5, 5].tolist() == [0, -1, -2]
    assert isinstance(cohort.cubes, np.memmap)
    assert isinstance(cohort.views, np.memmap)
    cohort.verify()


def test_the_table_keeps_ids_as_text_and_labels_nullable(tmp_path):
    table = Cohort.open(write(tmp_path / "c")).nodules
    assert list(table.columns) == [*COLUMNS, "note"]
    assert table["patient_id"].tolist() == ["000", "001", "002"]
    assert table["series_uid"].tolist() == ["", "", ""]
    assert str(table["label"].dtype) == "Int64"
    assert table["label"].isna().tolist() == [False, False, True]
    assert table["diameter_mm"].tolist() == pytest.approx([0.1, 1.1, 2.1])
    assert table["readers"].isna().all()
    assert table["note"].tolist() == ["5|4"] * 3


def test_labelled_are_the_rows_that_are_not_uncertain(tmp_path):
    assert Cohort.open(write(tmp_path / "c", n=7)).labelled.tolist() == [0, 1, 3, 4, 6]


@given(
    ids=st.lists(
        st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), min_size=1, max_size=3
    ),
    diameter=st.floats(0.1, 100),
)
@settings(max_examples=10, deadline=None)
def test_any_text_and_any_number_survive_the_table(tmp_path_factory, ids, diameter):
    folder = tmp_path_factory.mktemp("any") / "c"
    with CohortWriter(folder, len(ids), source="a test", simulated=True) as writer:
        for k, patient in enumerate([*ids[:-1], "NA"]):
            row = {"nodule_id": str(k), "patient_id": patient, "diameter_mm": diameter}
            writer.add(row, CUBE, VIEWS)
    table = Cohort.open(folder).nodules
    assert table["patient_id"].tolist() == [*ids[:-1], "NA"]
    assert table["nodule_id"].tolist() == [str(k) for k in range(len(ids))]
    assert table["diameter_mm"].tolist() == pytest.approx([diameter] * len(ids), rel=1e-12)


def test_hu_are_rounded_and_saturate(tmp_path):
    values = [-999.6, 0.4, 1e6, -1e6]
    with CohortWriter(tmp_path / "c", 1, source="a test", simulated=True) as writer:
        views = np.zeros((9, 76, 76), np.float32)
        views[0, 0, :4] = values
        writer.add({"nodule_id": "a", "patient_id": "b"}, CUBE, views)
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
    one, two = write(tmp_path / "one", name="x"), write(tmp_path / "two", name="x")
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
def test_a_missing_file_is_named(tmp_path, name):
    folder = write(tmp_path / "c")
    (folder / name).unlink()
    refused(folder, name)


@pytest.mark.parametrize("name", ["nodules.csv", "views.npy", "cubes.npy"])
def test_a_truncated_file_is_named(tmp_path, name):
    folder = write(tmp_path / "c")
    (folder / name).write_bytes((folder / name).read_bytes()[:-7])
    refused(folder, f"{name}.*truncated")


@pytest.mark.parametrize("name", ["views.npy", "cubes.npy"])
def test_a_changed_array_is_found_by_verify(tmp_path, name):
    folder = write(tmp_path / "c")
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 1
    (folder / name).write_bytes(content)
    cohort = Cohort.open(folder)
    with pytest.raises(InputError, match=f"{name}.*checksum"):
        cohort.verify()


def test_a_sorted_table_is_refused_since_its_rows_have_left_their_images(tmp_path):
    folder = write(tmp_path / "c")
    head, *rows = (folder / "nodules.csv").read_text().splitlines(keepends=True)
    (folder / "nodules.csv").write_text(head + "".join(reversed(rows)))
    refused(folder, r"nodules\.csv.*changed")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 99}', "not json"])
def test_a_strange_cohort_json_is_refused(tmp_path, content):
    folder = write(tmp_path / "c")
    (folder / "cohort.json").write_text(content)
    refused(folder, r"cohort\.json")


@pytest.mark.parametrize("files", [None, {}, {"nodules.csv": 3}])
def test_a_cohort_json_that_does_not_know_its_files_is_refused(tmp_path, files):
    folder = write(tmp_path / "c")
    meta = json.loads((folder / "cohort.json").read_text())
    (folder / "cohort.json").write_text(json.dumps({**meta, "files": files}))
    refused(folder, r"cohort\.json: does not know")


def test_arrays_of_another_number_of_rows_are_refused(tmp_path):
    folder = write(tmp_path / "c")
    meta = json.loads((folder / "cohort.json").read_text())
    meta["n"] = 2
    (folder / "cohort.json").write_text(json.dumps(meta))
    refused(folder, "says 2 nodules")


# --- what must not be written -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "cube", "views", "message"),
    [
        ({"patient_id": "p"}, CUBE, VIEWS, "no nodule_id"),
        ({"nodule_id": "n"}, CUBE, VIEWS, "no patient_id"),
        ({"nodule_id": "n", "patient_id": ""}, CUBE, VIEWS, "no patient_id"),
        ({"nodule_id": "n", "patient_id": "p", "label": 2}, CUBE, VIEWS, "label 2"),
        ({"nodule_id": "n", "patient_id": "p"}, CUBE[:, :, 1:], VIEWS, "cubes: shape"),
        ({"nodule_id": "n", "patient_id": "p"}, CUBE, VIEWS[:8], "views: shape"),
        ({"nodule_id": "n", "patient_id": "p"}, CUBE, VIEWS * np.nan, "not finite"),
    ],
)
def test_bad_rows_are_refused_and_leave_nothing(tmp_path, row, cube, views, message):
    with (
        pytest.raises(InputError, match=message),
        CohortWriter(tmp_path / "c", 1, source="a test", simulated=True) as writer,
    ):
        writer.add(row, cube, views)
    assert list(tmp_path.iterdir()) == []


def test_the_same_nodule_twice_and_too_many_nodules_are_refused(tmp_path):
    with CohortWriter(tmp_path / "c", 1, source="a test", simulated=True) as writer:
        writer.add({"nodule_id": "a", "patient_id": "p"}, CUBE, VIEWS)
        with pytest.raises(InputError, match="comes twice"):
            writer.add({"nodule_id": "a", "patient_id": "p"}, CUBE, VIEWS)
        with pytest.raises(InputError, match="only 1 nodules were announced"):
            writer.add({"nodule_id": "b", "patient_id": "p"}, CUBE, VIEWS)


def test_an_empty_cohort_is_an_error(tmp_path):
    with (
        pytest.raises(InputError, match="no nodule was added"),
        CohortWriter(tmp_path / "c", 5, source="a test", simulated=True),
    ):
        pass
    with pytest.raises(InputError, match="at least one"):
        CohortWriter(tmp_path / "c", 0, source="a test", simulated=True)


def test_an_old_cohort_is_replaced_but_nothing_else(tmp_path):
    folder = write(tmp_path / "c", n=2)
    write(folder, n=3)
    assert len(Cohort.open(folder)) == 3
    (folder / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        write(folder)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        write(tmp_path / "file")
    other = tmp_path / "other"
    other.mkdir()
    (other / "views.npy").touch()
    with pytest.raises(InputError, match=r"views\.npy"):
        write(other)


def test_an_error_leaves_the_old_cohort_as_it_was(tmp_path):
    folder = write(tmp_path / "c", n=2)

    def build_with_a_bug():
        with CohortWriter(folder, 9, source="a test", simulated=True) as writer:
            writer.add({"nodule_id": "a", "patient_id": "p"}, CUBE, VIEWS)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        build_with_a_bug()
    assert len(Cohort.open(folder)) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a kill that cannot be caught")
def test_a_kill_leaves_the_old_cohort_and_the_next_run_clears_up(tmp_path):
    folder = write(tmp_path / "c", n=2)
    script = f"""
        import os, signal
        import numpy as np
        from labkit.cohorts.cohort import CohortWriter
        with CohortWriter({str(folder)!r}, 9, source="a test", simulated=True) as writer:
            cube, views = np.zeros((64, 64, 64)), np.zeros((9, 76, 76))
            writer.add({{"nodule_id": "a", "patient_id": "p"}}, cube, views)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = set(tmp_path.iterdir()) - {folder}
    with pytest.raises(InputError, match="missing"):
        Cohort.open(left)
    assert len(Cohort.open(folder)) == 2
    write(folder, n=3)
    assert list(tmp_path.iterdir()) == [folder]


def test_a_cohort_moved_aside_by_a_killed_run_is_put_back(tmp_path):
    folder = write(tmp_path / "c", n=2)
    with CohortWriter(tmp_path / "c", 1, source="a test", simulated=True) as probe:
        partial = probe._partial.name
        probe.add({"nodule_id": "a", "patient_id": "p"}, CUBE, VIEWS)
        kept = Cohort.open(folder).meta["n"]
    assert kept == 2
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    aside = partial.replace(f"-{os.getpid()}", f"-{dead.pid}-replaced")
    folder.rename(tmp_path / aside)
    with (
        pytest.raises(InputError, match="no nodule was added"),
        CohortWriter(folder, 1, source="a test", simulated=True),
    ):
        assert len(Cohort.open(folder)) == 1
    assert list(tmp_path.iterdir()) == [folder]
