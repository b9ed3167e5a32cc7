import json
import os
import shutil

import pytest

from labkit.errors import InputError
from labkit.evaluation import crossval
from labkit.evaluation.listing import list_runs
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
    assert table["state"].tolist()[:2] == ["finished", "1 of 2 networks"]
    assert table["state"].iloc[2].startswith("damaged: lacks 'plan'")
    assert table["model"].tolist()[:2] == ["st", "st"]
    assert table["protocol"].iloc[0] == "1 x 2 folds by patient, 2 views, up to 1 epochs"


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
