"""What the README says is what `results/` holds, and results say what they were measured on."""

import json
from pathlib import Path

import pytest

from benchmarks import readme
from benchmarks.common import put_between
from labkit.errors import InputError
from labkit.evaluation import crossval
from labkit.training.config import TrainingConfig

REPO = Path(__file__).resolve().parents[2]
COLLECTED = [
    f for f in sorted((REPO / "results").glob("*.json")) if "runs" in json.loads(f.read_text())
]


@pytest.mark.parametrize(
    ("page", "block"),
    [
        ("README.md", readme.short_table),
        ("results/README.md", readme.whole_block),
        ("notebooks/what_we_tried_to_break.md", readme.broken),
    ],
)
def test_the_tables_of_a_page_are_those_that_the_results_give(page, block):
    text = (REPO / page).read_text()
    there = text[text.index(readme.BEGIN) : text.index(readme.END) + len(readme.END)]
    assert there == block(), "run: python -m benchmarks.readme write"


def test_the_readme_has_one_short_table():
    rows = [line for line in readme.short_table().splitlines() if line.startswith("| ")]
    assert 1 < len(rows) <= 13
    assert len((REPO / "README.md").read_text().splitlines()) <= 130


@pytest.mark.parametrize("file", COLLECTED, ids=lambda f: f.stem)
def test_results_name_settings_hardware_versions_and_date(file):
    values = json.loads(file.read_text())
    assert len(values["about"]) > 40
    for run in values["runs"].values():
        assert run["hardware"]["processor"]
        assert run["hardware"]["torch"]
        assert run["started"][:2] == "20"
        assert run["cohort"]["sha256"]["views.npy"]
        assert run["config"]["seed"] is not None
        for metrics in run["metrics"].values():
            assert metrics["auc"]["low"] <= metrics["auc"]["value"] <= metrics["auc"]["high"]


def test_two_runs_are_collected_with_their_paired_difference(discs, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RESULTS", str(tmp_path))
    folders = []
    for model in ("st", "mt"):
        config = TrainingConfig.brief(model=model, epochs=1, views=(0,), precision="fp32")
        folders.append(tmp_path / model)
        crossval.run(discs, config, folders[-1], folds=2, device="cpu", jobs=1, progress=False)
    file = readme.collect("discs", folders, "Bright and dark discs, made for a test.")
    values = json.loads(file.read_text())
    assert set(values["runs"]) == {"ST-CNN", "MT-CNN"}
    assert "MT-CNN less ST-CNN" in values["comparisons"]
    assert "`discs.json`: Bright and dark discs" in readme.whole_block()
    with pytest.raises(InputError, match="second run"):
        readme.collect("twice", [folders[0], folders[0]], "about")


def test_a_readme_without_the_markers_is_left_alone(tmp_path):
    file = tmp_path / "README.md"
    file.write_text("# Something else\n")
    with pytest.raises(InputError, match="needs the lines"):
        put_between(file, readme.short_table(), readme.BEGIN, readme.END)
    assert file.read_text() == "# Something else\n"
