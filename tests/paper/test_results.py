"""Committed results: what is copied into results/, what is refused, and what a reader is told."""

import pytest

from labkit.errors import InputError
from labkit.io import write_json
from labkit.paper import __main__ as command
from labkit.paper import fig1, results
from labkit.paper.declared import EXPERIMENTS, ST, depth_label, dropout_label


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
        write_json(folder / f"{values['name']}.json", values)


@pytest.fixture
def made(tmp_path):
    """What `reproduce` wrote."""
    folder = tmp_path / "reproduced"
    (folder / "runs" / "discs").mkdir(parents=True)
    (folder / "runs" / "discs" / "run.json").write_text("{}")
    return folder


def test_finished_figures_are_copied_to_the_letter_and_unfinished_left_out(made, results_folder):
    write(made, figure("fig7"), figure("fig6", missing=["4 layers"]))
    (made / "notes.json").write_text("{}")
    written, refused = results.collect(made, "simulated")
    assert [f.name for f in written] == ["simulated_fig7.json"]
    assert "1 variants are not finished" in refused["fig6"]
    assert [f.name for f in results_folder.iterdir()] == ["simulated_fig7.json"]
    assert results.read("fig7", "simulated") == figure("fig7")
    assert results.there() == [("fig7", "simulated")]


@pytest.mark.parametrize("simulated", [True, False])
def test_pictures_of_images_are_copied_where_these_are_simulated(made, results_folder, simulated):
    write(made, figure("fig4", simulated) | {"alt_text": {"fig4_nodules": "two nodules"}})
    (made / "fig4_nodules.png").write_bytes(b"a picture")
    written, _ = results.collect(made, "simulated" if simulated else "real")
    if simulated:
        file, alt = results.picture("fig4_nodules")
        assert file.name == "simulated_fig4_nodules.png" and file in written
        assert (file.read_bytes(), alt) == (b"a picture", "two nodules")
    else:
        assert [f.name for f in results_folder.iterdir()] == ["real_fig4.json"]
        with pytest.raises(InputError, match="not committed"):
            results.picture("fig4_nodules")


def test_a_figure_of_labels_alone_is_of_no_images(made, results_folder):
    labels = {"name": "fig1", "date": "2020-01-02", "rules": {}, "missing": [], "complete": True}
    write(made, labels)
    assert [f.name for f in results.collect(made, "real")[0]] == ["fig1.json"]
    assert results.read("fig1", "simulated") == results.read("fig1", "real") == labels
    assert "no images" in results.provenance(labels)


def test_an_unfinished_figure_is_taken_when_wanted_but_replaces_no_finished_one(
    made, results_folder
):
    half = figure("fig7", missing=["alpha 1"])
    write(made, half)
    with pytest.raises(InputError, match="--partial"):
        results.collect(made, "simulated")
    assert list(results_folder.iterdir()) == []
    results.collect(made, "simulated", True)
    assert results.read("fig7", "simulated") == half
    write(made, figure("fig7"))
    results.collect(made, "simulated")
    write(made, half)
    with pytest.raises(InputError, match="committed one is complete"):
        results.collect(made, "simulated", True)
    assert results.read("fig7", "simulated") == figure("fig7")
    write(made, figure("fig6", missing=["alpha 0"]) | {"variants": {}})
    (made / "fig7.json").unlink()
    with pytest.raises(InputError, match="no variant is finished"):
        results.collect(made, "simulated", True)


@pytest.mark.parametrize("simulated", [True, False])
def test_simulated_images_are_not_committed_as_real_ones(made, results_folder, simulated):
    write(made, figure("fig7", simulated))
    right = "simulated" if simulated else "real"
    for wrong in {"simulated", "real", "luna"} - {right}:
        with pytest.raises(InputError, match=f"made of {right} images, not {wrong}"):
            results.collect(made, wrong)
    assert len(results.collect(made, right)[0]) == 1


def test_the_command_says_what_it_wrote_and_fails_with_one_line(made, results_folder, capsys):
    write(made, figure("fig7"), figure("fig6", missing=["4 layers"]))
    assert command.main(["collect", str(made), "simulated"]) == 0
    said = capsys.readouterr().out
    assert "simulated_fig7.json" in said and "left out fig6" in said
    assert command.main(["collect", str(results_folder), "simulated"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("name", "cohort"), results.there(results.COHORTS))
def test_every_committed_figure_says_what_it_was_measured_on(name, cohort):
    values = results.read(name, cohort)
    assert values["name"] == name and values["title"] == EXPERIMENTS[name].title
    assert values["hardware"]["torch"] and values["date"][:2] == "20"
    if EXPERIMENTS[name].variants:
        assert results.kind(values) == cohort
        assert values["cohort"]["sha256"]["views.npy"] and "CT" in results.provenance(values)


def test_the_committed_counts_are_those_of_the_readers_as_they_are_read_now():
    printed = results.read("fig1", "real")["rules"][fig1.DEFAULT]
    assert printed == fig1.counts(fig1.DEFAULT) and printed["nodules"] == 1192


def test_networks_that_never_learnt_are_counted_by_setting_and_model():
    trained = {
        ST.label: {"networks": 45, "at_chance": 0}, depth_label("st", 3): {"networks": 27},
        dropout_label("mt", "none"): {"networks": 27, "at_chance": 4},
    }  # fmt: skip
    table = results.at_chance({"variants": {n: {"trained": of} for n, of in trained.items()}})
    assert table.loc[("dropout none", "MT-CNN")].tolist() == [27, 4]
    assert table.loc[("as it is", "ST-CNN"), "at chance"] == 0
    assert table["at chance"].isna().tolist() == [False, True, False]
