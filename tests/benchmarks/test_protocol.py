"""The lab's protocol is the one that the search found, and the search never sees a test nodule."""

import json

from benchmarks import protocol
from labkit import paths
from labkit.evaluation.crossval import make_folds
from labkit.training.config import TrainingConfig


def test_the_lab_protocol_is_what_was_measured_to_be_as_good_at_a_quarter_of_the_cost():
    rows = json.loads((paths.results() / "protocol.json").read_text())["protocols"]
    lab = TrainingConfig.lab(model="st", views=(0,))
    (chosen,) = (
        row for row in rows
        if (row["model"], row["view"]) == ("st", 0) and "averaged" not in row["changes"]
        and TrainingConfig.paper(model="st", views=(0,), **row["changes"]) == lab
    )  # fmt: skip
    assert chosen["paired"] >= 5 and chosen["less_printed"] > -0.01
    assert chosen["images_of_printed"] < 0.25 and chosen["cpu_s_of_printed"] < 0.25
    assert chosen["at_chance"] == chosen["out_of_epochs"] == 0


def test_test_nodules_are_never_seen_and_a_stopped_search_goes_on(discs, tmp_path, monkeypatch):
    quick = {"epochs": 1, "augmented_copies": 1}
    monkeypatch.setattr(protocol, "PROTOCOLS", {"printed": quick, "other": {**quick, "l2": 1e-3}})
    seen, train_view = [], protocol.train_view
    monkeypatch.setattr(
        protocol, "train_view", lambda *a: (seen.extend([a[0], a[2]]), train_view(*a))[1]
    )
    networks = tmp_path / "networks.jsonl"
    found = protocol.measure(discs.folder, networks, folds=1)
    rows = discs.labelled
    test = rows[make_folds(discs.nodules.iloc[rows], protocol.FOLDS) == 0]
    shown = {image.tobytes() for images in seen for image in images}
    assert len(seen) == 4 and not shown & {discs.views[row, 0].tobytes() for row in test}
    assert [row["protocol"] for row in found["protocols"]] == ["printed", "other"]
    assert found["protocols"][1]["images_of_printed"] == 1
    with networks.open("a") as lines:
        lines.write('\n{"protocol": "oth')
    assert len(protocol._read(networks)) == 2
    protocol.measure(discs.folder, networks, folds=1)
    assert len(seen) == 4
    protocol.measure(discs.folder, networks, folds=1, seed=1, protocols=("other",))
    assert len(protocol._read(networks)) == 3
