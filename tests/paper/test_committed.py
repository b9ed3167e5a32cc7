"""Committed figures: what is copied into results/, what is refused, and what a reader is told."""

import json

import pytest

from labkit.annotations import lidc
from labkit.errors import InputError
from labkit.paper import __main__ as command
from labkit.paper import results as committed
from labkit.paper.declared import EXPERIMENTS


def figure(name, simulated=True, missing=()):
    metrics = {"nodules": 450, "patients": 300}
    return {
        "name": name, "date": "2020-01-02T03:04:05+00:00", "protocol": "three folds",
        "cohort": {"simulated": simulated, "labelled": 751}, "missing": list(missing),
        "hardware": {"gpu": None, "processor": "an abacus", "torch": "2.0"},
        "variants": {"alpha 0": {"metrics": metrics}}, "complete": not missing,
    }  # fmt: skip


def write(folder, *figures):
    for values in figures:
        (folder / f"{values['name']}.json").write_text(json.dumps(values))


@pytest.fixture
def results(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.setenv("LABKIT_RESULTS", str(folder))
    return folder


@pytest.fixture
def made(tmp_path):
    folder = tmp_path / "reproduced"
    (folder / "runs" / "discs").mkdir(parents=True)
    (folder / "runs" / "discs" / "run.json").write_text("{}")
    return folder


def test_finished_figures_are_copied_to_the_letter_and_unfinished_left_out(made, results):
    write(made, figure("fig7"), figure("fig6", missing=["4 layers"]))
    (made / "notes.json").write_text("{}")
    done = committed.collect(made, "simulated")
    assert [f.name for f in done.files] == ["simulated_fig7.json"]
    assert "1 variants are not finished" in done.refused["fig6"]
    assert [f.name for f in results.iterdir()] == ["simulated_fig7.json"]
    assert committed.read("fig7", "simulated") == figure("fig7")
    assert committed.there() == [("fig7", "simulated")]


@pytest.mark.parametrize("simulated", [True, False])
def test_pictures_of_images_are_copied_where_these_are_simulated(made, results, simulated):
    fig4 = figure("fig4", simulated) | {"alt_text": {"fig4_nodules": "two nodules"}}
    write(made, fig4)
    (made / "fig4_nodules.png").write_bytes(b"a picture")
    done = committed.collect(made, "simulated" if simulated else "real")
    if simulated:
        file, alt = committed.picture("fig4_nodules")
        assert file.name == "simulated_fig4_nodules.png" and file in done.files
        assert (file.read_bytes(), alt) == (b"a picture", "two nodules")
    else:
        assert [f.name for f in results.iterdir()] == ["real_fig4.json"]
        with pytest.raises(InputError, match="not committed"):
            committed.picture("fig4_nodules", "real")


def test_a_figure_of_labels_alone_is_of_no_images(made, results):
    labels = {"name": "fig1", "date": "2020-01-02", "rules": {}, "missing": [], "complete": True}
    write(made, labels)
    assert [f.name for f in committed.collect(made, "real").files] == ["fig1.json"]
    assert committed.read("fig1", "simulated") == committed.read("fig1", "real") == labels
    assert "no images" in committed.provenance(labels)


def test_an_unfinished_figure_is_taken_when_asked_for_but_replaces_no_finished_one(made, results):
    write(made, figure("fig7", missing=["alpha 1"]))
    with pytest.raises(InputError, match="--partial"):
        committed.collect(made, "simulated")
    assert list(results.iterdir()) == []
    committed.collect(made, "simulated", partial=True)
    assert committed.read("fig7", "simulated")["complete"] is False
    write(made, figure("fig7"))
    committed.collect(made, "simulated")
    write(made, figure("fig7", missing=["alpha 1"]))
    with pytest.raises(InputError, match="committed one is complete"):
        committed.collect(made, "simulated", partial=True)
    assert committed.read("fig7", "simulated")["complete"] is True


def test_a_figure_without_a_finished_variant_says_nothing_and_stays_out(made, results):
    write(made, {**figure("fig7", missing=["alpha 0"]), "variants": {}})
    with pytest.raises(InputError, match="no variant is finished"):
        committed.collect(made, "simulated", partial=True)


@pytest.mark.parametrize("simulated", [True, False])
def test_simulated_images_are_not_committed_as_real_ones(made, results, simulated):
    write(made, figure("fig7", simulated))
    wrong, right = ("real", "simulated") if simulated else ("simulated", "real")
    with pytest.raises(InputError, match=f"made of {right} images, not {wrong}"):
        committed.collect(made, wrong)
    assert len(committed.collect(made, right).files) == 1


def test_what_is_not_committed_is_missed_by_name_with_what_there_is(made, results):
    with pytest.raises(InputError, match=r"real_fig7\.json: not committed; there are: none yet"):
        committed.read("fig7", "real")
    write(made, figure("fig7"))
    committed.collect(made, "simulated")
    with pytest.raises(InputError, match=r"there are: fig7 \(simulated\)\. `labkit reproduce fig6"):
        committed.read("fig6", "simulated")
    with pytest.raises(InputError, match="no figure or table is called fig99"):
        committed.read("fig99", "real")
    with pytest.raises(InputError, match="one of simulated, real, luna, not 'mice'"):
        committed.read("fig7", "mice")
    with pytest.raises(InputError, match="holds no figure"):
        committed.collect(results, "real")


def test_provenance_says_what_was_judged_where_and_when_and_what_is_missing():
    said = committed.provenance(figure("fig7", missing=["alpha 1"]))
    for words in ("751", "simulated CT", "450 of them", "three folds", "2020-01-02", "abacus"):
        assert words in said
    assert said.endswith("not finished: alpha 1")
    assert "not finished" not in committed.provenance(figure("fig7"))


def test_the_command_says_what_it_wrote_and_fails_with_one_line(made, results, capsys):
    write(made, figure("fig7"), figure("fig6", missing=["4 layers"]))
    assert command.main(["collect", str(made), "simulated"]) == 0
    said = capsys.readouterr().out
    assert "simulated_fig7.json" in said and "left out fig6" in said
    assert command.main(["collect", str(results), "simulated"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("name", "cohort"), committed.there())
def test_every_committed_figure_says_what_it_was_measured_on(name, cohort):
    values = committed.read(name, cohort)
    assert values["name"] == name and values["title"] == EXPERIMENTS[name].title
    assert values["hardware"]["torch"] and values["date"][:2] == "20"
    if EXPERIMENTS[name].variants:
        assert values["cohort"]["simulated"] == (cohort == "simulated")
        assert values["cohort"]["sha256"]["views.npy"]


def test_the_committed_counts_are_those_of_the_readers_as_they_are_read_now():
    rules = committed.read("fig1", "real")["rules"]
    now = lidc.nodules()["malignancy_median"]
    printed = rules["3 readers, 2.5 mm, median"]
    assert printed["nodules"] == len(now) == 1192
    counts = [int((now < 3).sum()), int((now == 3).sum()), int((now > 3).sum())]
    assert [printed[k] for k in ("benign", "uncertain", "malignant")] == counts
