"""The main job at its smallest: cohort, both networks, comparison, report."""

import re

import pytest

from labkit import cli


@pytest.mark.usefixtures("_runs_elsewhere")
def test_demo_ends_in_a_table_and_a_report(tmp_path, capsys):
    out = tmp_path / "demo"
    assert cli.main(["demo", "--profile", "smoke", "--out", str(out), "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    for step in range(1, 5):
        assert f"Step {step} of 4" in text
    for method in ("ST-CNN", "MT-CNN", "size only"):
        assert re.search(rf"{method} +\d\.\d{{3}} \(\d\.\d{{3}} to \d\.\d{{3}}\)", text), method
    page = (out / "report.html").read_text()
    assert page.count("<img") >= 5
    assert page.count('alt="') == page.count("<img")
    assert "simulated" in page
    assert "Not for clinical use" in page
    assert text.index("first picture") < text.index("Step 1 of 4")
    assert "http-equiv" not in page, "a finished report is not loaded again and again"
    assert "http" not in re.sub(r"data:image[^\"]*", "", page), "the page needs nothing else"


@pytest.fixture
def _runs_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
