"""What the README says is what `results/` holds, and results say what they were measured on."""

import json
from pathlib import Path

import pytest

from benchmarks import readme
from benchmarks.common import put_between
from labkit.errors import InputError

REPO = Path(__file__).resolve().parents[2]
OF_A_COHORT = [
    f for f in sorted((REPO / "results").glob("*.json"))
    if "sha256" in json.loads(f.read_text()).get("cohort", {})
]  # fmt: skip


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


@pytest.mark.parametrize("file", OF_A_COHORT, ids=lambda f: f.stem)
def test_a_result_names_its_machine_versions_and_date(file):
    values = json.loads(file.read_text())
    assert values["hardware"]["processor"] and values["hardware"]["labkit"]
    assert values["date"][:2] == "20"


def test_a_readme_without_the_markers_is_left_alone(tmp_path):
    file = tmp_path / "README.md"
    file.write_text("# Something else\n")
    with pytest.raises(InputError, match="needs the lines"):
        put_between(file, readme.short_table(), readme.BEGIN, readme.END)
    assert file.read_text() == "# Something else\n"
