"""The journal of networks under way: what is written is read, and no harm to it harms training."""

import json
import shutil
import time
import warnings

import pandas as pd
import pytest

from labkit.training import progress
from labkit.training.config import TrainingConfig
from labkit.training.nine_views import fit


def row(epoch: int, train_img: float | None = 0.5) -> dict:
    """An epoch as the training loop reports it."""
    return {"epoch": epoch, "learning_rate": 1e-3, "train_cls": 0.7 - 0.1 * epoch,
            "train_img": train_img, "val_cls": 0.69, "val_auc": 0.5 + 0.1 * epoch}  # fmt: skip


def epochs(folder) -> list[int]:
    """Of the one network under way."""
    (entry,) = progress.entries(folder)
    return [found["epoch"] for found in entry.rows]


@pytest.fixture
def at_once(monkeypatch):
    """Every row is written when it comes, rather than twice a second."""
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(progress, "_LARGEST_SHARE", 1e9)


def test_what_is_noted_is_read(tmp_path, at_once):
    first, second = (progress.writer(tmp_path, f"repeat0_fold0_view{v}") for v in (0, 4))
    for epoch in range(3):
        first(row(epoch))
    second(row(0, train_img=None))
    one, two = progress.entries(tmp_path)
    assert (one.name, two.name) == ("repeat0_fold0_view0", "repeat0_fold0_view4")
    assert [{**r, "seconds": None} for r in one.rows] == [
        {**row(epoch), "seconds": None} for epoch in range(3)
    ]
    assert two.rows[0]["train_img"] is None and two.rows[0]["seconds"] >= 0


@pytest.mark.parametrize("keep", range(1, 60, 7))
def test_a_torn_last_line_costs_that_epoch_only(tmp_path, at_once, keep):
    note = progress.writer(tmp_path, "view0")
    for epoch in range(3):
        note(row(epoch))
    file = tmp_path / "live" / "view0.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:2]) + lines[2][:keep])
    assert epochs(tmp_path) == [0, 1]


def test_a_network_that_is_started_anew_begins_anew(tmp_path, at_once):
    killed = progress.writer(tmp_path, "view0")
    for epoch in range(5):
        killed(row(epoch))
    again = progress.writer(tmp_path, "view0")
    assert epochs(tmp_path) == []
    again(row(0))
    assert epochs(tmp_path) == [0]
    # Should the killed one live on for a while, both write the same epochs.
    killed(row(5))
    again(row(1))
    assert epochs(tmp_path) == [0, 1, 5]
    again(row(5))
    assert epochs(tmp_path) == [0, 1, 5]


def test_a_finished_network_leaves_nothing_or_its_history(tmp_path, at_once):
    for name in ("view0", "view1"):
        progress.writer(tmp_path, name)(row(0))
    progress.finish(tmp_path, "view0")
    progress.finish(tmp_path, "not there")
    progress.finish(tmp_path, "view1", [row(0), row(1)])
    assert progress.entries(tmp_path) == []
    (left,) = progress.finished(tmp_path)
    assert left.name == "view1.json"
    assert json.loads(left.read_text())["history"] == [row(0), row(1)]
    progress.begin(tmp_path, ["view1"])
    assert progress.finished(tmp_path) == []
    assert [e.name for e in progress.entries(tmp_path)] == ["view1"]


def test_fast_epochs_are_written_now_and_then(tmp_path):
    note = progress.writer(tmp_path, "view0")
    file = tmp_path / "live" / "view0.jsonl"
    start, sizes = time.monotonic(), set()
    for epoch in range(1000):
        note(row(epoch))
        sizes.add(file.stat().st_size)
    # The empty file, and then at most one write each half a second.
    assert len(sizes) <= 2 + 2 * (time.monotonic() - start)
    assert 0 in epochs(tmp_path)


def test_a_disk_that_fails_costs_a_warning_and_no_more(tmp_path, at_once):
    note = progress.writer(tmp_path, "view0")
    shutil.rmtree(tmp_path / "live")
    with pytest.warns(UserWarning, match="view0.jsonl: .* training goes on"):
        note(row(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        note(row(1))
    (tmp_path / "live").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="training goes on"):
        progress.writer(tmp_path, "view0")(row(0))


def test_a_fit_notes_its_networks_from_wherever_they_are_trained(discs, tmp_path):
    config = TrainingConfig.brief(model="st", epochs=2, views=(0, 4), precision="fp32")
    rows = discs.labelled
    plain = fit(discs, rows, config, device="cpu", jobs=1, progress=False)
    for jobs in (1, 2):
        folder = tmp_path / str(jobs)
        noted = fit(discs, rows, config, device="cpu", jobs=jobs, progress=False, live=folder)
        pd.testing.assert_frame_equal(plain.history, noted.history, check_exact=True)
        assert [f.name for f in progress.finished(folder)] == ["view0.json", "view4.json"]
        assert progress.entries(folder) == []
        history = json.loads((folder / "units" / "view4.json").read_text())["history"]
        of_view = noted.history.query("view == 4")
        assert [r["val_auc"] for r in history] == of_view["val_auc"].tolist()
