import json
import os
import shutil
import time
from itertools import pairwise

import pytest

from labkit.errors import InputError
from labkit.evaluation import crossval
from labkit.evaluation.crossval import as_text, list_runs
from labkit.training import progress
from labkit.training.config import TrainingConfig


@pytest.fixture(scope="module")
def runs(discs, tmp_path_factory):
    """A finished run, one with a network missing, and one whose record is damaged."""
    folder = tmp_path_factory.mktemp("runs")
    config = TrainingConfig.brief(model="st", epochs=1, views=(0, 4))
    crossval.run(
        discs, config, folder / "a" / "whole", folds=2, first_folds=1, jobs=1, progress=False
    )
    part = folder / "b" / "part"
    shutil.copytree(folder / "a" / "whole", part)
    for name in ("predictions.csv", "metrics.json", "units/repeat0_fold0_view4.json"):
        (part / name).unlink()
    broken = folder / "broken"
    shutil.copytree(part, broken)
    record = json.loads((broken / "run.json").read_text())
    del record["plan"]
    (broken / "run.json").write_text(json.dumps(record))
    for age, name in enumerate(("a/whole", "b/part", "broken")):
        for file in (folder / name).rglob("*.*"):
            os.utime(file, (1e9 + age, 1e9 + age))
    return folder


def test_every_run_is_found_with_its_state(runs):
    table = list_runs([runs])
    assert [os.path.relpath(run, runs) for run in table["run"]] == ["a/whole", "b/part", "broken"]
    assert table["state"].tolist()[:2] == ["finished", "stopped"]
    assert table["networks"].tolist()[:2] == ["2 of 2", "1 of 2"]
    assert table["state"].iloc[2].startswith("damaged: lacks 'plan'")
    assert table["model"].tolist()[:2] == ["st", "st"]
    assert table["protocol"].iloc[0] == "1x2 folds, 2 views, 1 epochs"


def test_a_finished_run_shows_the_auc_of_its_predictions(runs):
    table = list_runs([runs / "a"])
    measured = json.loads((runs / "a" / "whole" / "metrics.json").read_text())
    auc = measured["metrics"]["fused"]["auc"]["value"]
    assert table["auc"].iloc[0].startswith(f"{auc:.3f} (")


def test_a_run_named_twice_is_listed_once_and_none_is_no_error(runs, tmp_path):
    assert len(list_runs([runs, runs / "b"])) == 3
    assert list_runs([tmp_path]).empty


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        list_runs([tmp_path / "nothing"])


def noted(run, name, seconds, epochs, ago=0.0):
    """A journal as that of a network whose epochs took `seconds` each, last heard of `ago`."""
    lines = [json.dumps({"epoch": e, "seconds": (e + 1) * seconds}) for e in range(epochs)]
    file = run / "live" / f"{name}.jsonl"
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))
    os.utime(file, (time.time() - ago,) * 2)


@pytest.fixture
def under_way(runs, tmp_path):
    """A run of 3 x 2 x 2 networks of up to 100 epochs; one is finished, after 20 epochs."""
    run = tmp_path / "run"
    shutil.copytree(runs / "b" / "part", run)
    record = json.loads((run / "run.json").read_text())
    record["plan"] = {"folds": 2, "repeats": 3, "split": "nodule", "first_folds": None}
    record["config"]["epochs"] = 100
    (run / "run.json").write_text(json.dumps(record))
    unit = run / "units" / "repeat0_fold0_view0.json"
    values = json.loads(unit.read_text())
    unit.write_text(json.dumps({**values, "seconds": 100.0, "history": values["history"] * 20}))
    return run


def listed(run):
    (row,) = list_runs([run]).to_dict("records")
    return row


def test_a_run_under_way_shows_its_networks_and_the_time_left(under_way):
    noted(under_way, "repeat0_fold0_view4", 10.0, 5)
    noted(under_way, "repeat0_fold1_view0", 10.0, 15)
    row = listed(under_way)
    assert (row["state"], row["networks"]) == ("running", "1 of 12")
    assert row["under_way"] == "2, 5 to 15 epochs"
    assert row["protocol"] == "3x2 folds by nodule, 2 views, 100 epochs"
    # 9 networks of 20 epochs, and 15 and 5 more, at two epochs each 10 s.
    assert row["left"] == "17 min"
    assert time.strptime(row["last_change"], "%Y-%m-%d %H:%M")
    noted(under_way, "repeat0_fold0_view4", 5.0, 5)
    assert listed(under_way)["left"] == "11 min"


def test_without_a_finished_network_all_epochs_may_be_needed(under_way):
    (under_way / "units" / "repeat0_fold0_view0.json").unlink()
    noted(under_way, "repeat0_fold0_view4", 1.0, 1)
    assert listed(under_way)["left"] == "20 min"
    assert listed(under_way)["under_way"] == "1, 1 epoch"
    noted(under_way, "repeat0_fold0_view4", 1.0, 0)
    row = listed(under_way)
    assert (row["state"], row["left"], row["under_way"]) == ("running", "", "1, 0 epochs")


def test_a_killed_run_is_stopped(under_way):
    noted(under_way, "repeat0_fold0_view4", 10.0, 5, ago=600)
    assert listed(under_way)["state"] == "stopped"
    # With epochs of ten minutes, it may well be at work.
    noted(under_way, "repeat0_fold0_view4", 600.0, 5, ago=600)
    assert listed(under_way)["state"] == "running"
    # What a finished network has left says nothing.
    noted(under_way, "repeat0_fold0_view4", 10.0, 5, ago=600)
    noted(under_way, "repeat0_fold0_view0", 10.0, 5)
    assert listed(under_way)["state"] == "stopped"


def test_before_its_first_network_and_after_its_last_a_run_is_running(under_way, runs):
    unit = under_way / "units" / "repeat0_fold0_view0.json"
    os.utime(under_way / "run.json")
    assert listed(under_way)["state"] == "stopped"
    unit.rename(under_way / "first.json")
    assert listed(under_way)["state"] == "running"
    os.utime(under_way / "run.json", (1e9, 1e9))
    assert listed(under_way)["state"] == "stopped"
    shutil.copy(runs / "a" / "whole" / "run.json", under_way / "run.json")
    for name in ("repeat0_fold0_view0.json", "repeat0_fold0_view4.json"):
        shutil.copy(under_way / "first.json", unit.with_name(name))
    assert listed(under_way)["state"] == "running"


def test_a_file_that_is_just_being_written_is_no_network(under_way):
    progress.writer(under_way, "repeat0_fold0_view4")
    (under_way / "units" / ".repeat0_fold0_view4.json.x1.json").write_text("{")
    assert listed(under_way)["networks"] == "1 of 12"


def test_the_list_fits_a_terminal(runs, under_way, monkeypatch):
    noted(under_way, "repeat0_fold0_view4", 10.0, 5)
    monkeypatch.chdir(under_way.parent)
    table = list_runs([runs, "run"])
    assert table["run"].iloc[-1] == "run"
    table["run"] = table["run"].str.replace(str(runs), "runs", regex=False)
    text = as_text(table)
    whole = [line for line in text.splitlines() if "damaged" not in line]
    assert max(map(len, whole)) <= 120
    assert whole[0] == "discs"
    (header,) = (line for line in whole if "under way" in line)
    (line,) = (line for line in whole if "running" in line)
    for column, words in {"state": "running 1 of 12", "under way": "1, 5 epochs"}.items():
        assert line[header.index(column) :].startswith(words)
    assert any("finished" in line and "AUC" in above for above, line in pairwise(whole))
    assert "runs/broken damaged: lacks 'plan'; delete it" in text
    assert list_runs([under_way / "live"]).pipe(as_text) == ""
