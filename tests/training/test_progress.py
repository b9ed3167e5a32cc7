"""The journal of networks under way: what is written is read, and no harm to it harms training."""

import json
import shutil

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


def test_what_is_noted_is_read_until_the_network_is_finished(tmp_path):
    first, second = (progress.writer(tmp_path, f"view{v}") for v in (0, 4))
    for epoch in range(3):
        first(row(epoch))
    second(row(0, train_img=None))
    one, two = progress.entries(tmp_path)
    assert (one.name, two.name) == ("view0", "view4")
    assert [{**row(e), **r} for e, r in enumerate(one.rows)] == list(one.rows)
    assert two.rows[0]["train_img"] is None and two.rows[0]["seconds"] >= 0
    for name, history in (("view0", None), ("not there", None), ("view4", [row(0), row(1)])):
        progress.finish(tmp_path, name, history)
    assert progress.entries(tmp_path) == []
    (left,) = progress.finished(tmp_path)
    assert left.name == "view4.json"
    assert json.loads(left.read_text())["history"] == [row(0), row(1)]
    progress.begin(tmp_path, ["view4"])
    assert progress.finished(tmp_path) == []
    assert [e.name for e in progress.entries(tmp_path)] == ["view4"]


@pytest.mark.parametrize("keep", range(1, 60, 7))
def test_a_torn_last_line_costs_that_epoch_only(tmp_path, keep):
    note = progress.writer(tmp_path, "view0")
    for epoch in range(3):
        note(row(epoch))
    file = tmp_path / "live" / "view0.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:2]) + lines[2][:keep])
    assert epochs(tmp_path) == [0, 1]


def test_a_network_that_is_started_anew_begins_anew(tmp_path):
    killed = progress.writer(tmp_path, "view0")
    killed(row(0))
    again = progress.writer(tmp_path, "view0")
    assert epochs(tmp_path) == []
    again(row(0))
    killed(row(5))  # should the killed one live on for a while, both write the same epochs
    again(row(5))
    assert epochs(tmp_path) == [0, 5]


def test_a_disk_that_fails_costs_a_warning_and_no_more(tmp_path):
    note = progress.writer(tmp_path, "view0")
    shutil.rmtree(tmp_path / "live")
    with pytest.warns(UserWarning, match="view0.jsonl: .* training goes on"):
        note(row(0))
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
