"""The page on what is simulated, and its figures, say what was measured; the rest stays."""

import json
from pathlib import Path

import pytest

from benchmarks.realism import page
from labkit.errors import InputError
from labkit.plots import style

RESULTS = Path(__file__).resolve().parents[2] / "results"


def spread(median: float) -> dict:
    return {"median": median, "q25": median - 1, "q75": median + 1, "p10": median, "p90": median}


def pair(real: float, simulated: float) -> dict:
    return {
        "nodules": 40, "real": spread(real), "simulated": spread(simulated),
        "ks": {"value": 0.31, "low": 0.2, "high": 0.4, "chance": 0.12}, "spearman": 0.27,
    }  # fmt: skip


def around(value: float) -> dict:
    return {"value": value, "low": value - 0.02, "high": value + 0.02}


@pytest.fixture
def realism() -> dict:
    touches = {"real": around(0.33), "simulated": around(0.29)}
    return {
        "date": "2027-01-02T03:04:05+00:00",
        "pairs": {"nodules": 345, "patients": 210, "real_without_twin": 3},
        "cohorts": {"simulated": {"settings": {"scene_version": 7}}},
        "density_by_texture": {"1": pair(-650, -630), "5": pair(-20, -25)},
        "edge_by_margin": {"5": pair(1.9, 2.0)},
        "measures": {name: pair(21, 20) for name in page._MEASURES},
        "contact": {**touches, "kappa": 0.11, "by_size": {"below 7 mm": {"nodules": 9, **touches}}},
        "histogram": {
            "edges_hu": [-1000.0, -986.0], "real": [0.1], "simulated": [0.2],
            "wasserstein_hu": around(16.4),
        },
        "spectrum": {
            "by_frequency": [
                {"cycles_per_mm": f, "ratio": around(r), "real": spread(9), "simulated": spread(8)}
                for f, r in ((0.1, 0.91), (0.3, 1.13))
            ]
        },
        "classifier": {
            "boosting": around(0.86), "by_theme": {"noise": 0.7},
            "by_measure": {"vessel_piece_mm2": 0.381, "lung_median_hu": 0.41, "new_one": 0.55},
        },
    }  # fmt: skip


@pytest.fixture
def transfer() -> dict:
    arms = {"real": 0.897, "simulated": 0.906, "simulated_same": 0.9, "size_only": 0.934}
    metrics = {n: {"nodules": 479, "patients": 298, "auc": around(v)} for n, v in arms.items()}
    gap = {"auc_difference": around(0.009), "delong": {"p_value": 0.2645}}
    return {
        "date": "2027-02-03T00:00:00+00:00", "hardware": {"device": "CPU, 2 cores"},
        "cohorts": {"simulated": {"settings": {"scene_version": 7}}},
        "plan": {"seeds": 3, "folds": 5}, "metrics": metrics,
        "auc_by_seed": {n: [v] for n, v in arms.items()},
        "differences": {"simulated less real": gap},
    }  # fmt: skip


def test_the_measured_part_states_every_kind_of_number(realism, transfer):
    text = page.block(realism, transfer)
    assert "| real nodules of other patients | 0.897 (0.877 to 0.917) |" in text
    assert "+0.009 (-0.011 to +0.029)" in text
    assert "p = 0.26" in text
    assert (
        "| inside solid nodules, median, HU (n = 40) | -20 (-21 to -19) | -25 (-26 to -24) |"
        in text
    )
    assert "33 % (31 to 35) of the real nodules" in text
    assert "16 HU apart" in text
    assert "0.91 to 1.13 times" in text
    assert "AUC of 0.86 (0.84 to 0.88)" in text
    assert "No single measure reaches 0.62" in text  # 1 - 0.381 = 0.619
    assert "the size of the pieces" in text
    assert "Scene version 7; measured 2027-01-02 and 2027-02-03" in text


def test_two_versions_of_the_scene_are_both_named(realism, transfer):
    transfer["cohorts"]["simulated"]["settings"]["scene_version"] = 8
    assert "Scene versions 7 and 8" in page.block(realism, transfer)


def test_values_that_lack_a_part_are_refused(realism, transfer):
    del realism["contact"]
    with pytest.raises(InputError, match="lack 'contact'; make them again"):
        page.block(realism, transfer)


def test_writing_replaces_what_stands_between_the_marks_only(tmp_path, realism, transfer):
    path = tmp_path / "page.md"
    path.write_text(f"By hand.\n\n{page.BEGIN}\nSTALE\n{page.END}\n\nBy hand, too.\n")
    assert page.write(path, realism, transfer, tmp_path)
    text = path.read_text()
    assert text.startswith("By hand.\n\n")
    assert text.endswith("\n\nBy hand, too.\n")
    assert "STALE" not in text
    assert page.measured_part(path) == page.block(realism, transfer)
    assert {p.name for p in tmp_path.glob("*.png")} == {f"realism_{n}.png" for n in page.FIGURES}
    assert not page.write(path, realism, transfer, tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nodule", "-20 HU in real and -25 in simulated"),
        ("surroundings", "16 HU apart"),
        ("contact", "below 7 mm: 33 % real, 29 % simulated"),
        ("classifier", "everything 0.86, noise 0.70"),
        ("transfer", "trained on simulated, all 0.906"),
    ],
)
def test_figures_say_what_they_show_and_are_shown(realism, transfer, name, said):
    figure = page.FIGURES[name][0](transfer if name == "transfer" else realism)
    figure.draw_without_rendering()
    assert said in style.alt_text(figure)
    assert figure.get_size_inches()[0] <= 7.5
    named = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert named == (set() if name in ("classifier", "transfer") else {"real", "simulated"})
    assert f"](../results/realism_{name}.png)" in page.block(realism, transfer)


def test_values_of_something_else_are_refused():
    with pytest.raises(InputError, match=r"python -m benchmarks\.realism"):
        page.contact_figure({"runs": {}})


def test_a_page_without_marks_is_refused(tmp_path, realism, transfer):
    path = tmp_path / "page.md"
    with pytest.raises(InputError, match="no such page"):
        page.write(path, realism, transfer, tmp_path)
    path.write_text(page.BEGIN)
    with pytest.raises(InputError, match="put both back"):
        page.write(path, realism, transfer, tmp_path)


@pytest.mark.skipif(not page.PAGE.is_file(), reason="the package is installed away from its course")
def test_the_committed_page_says_what_the_committed_results_say():
    files = [RESULTS / f"{name}.json" for name in ("realism", "transfer")]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        pytest.skip(f"not measured yet: results/{missing[0]}")
    realism, transfer = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    assert page.measured_part(page.PAGE) == page.block(realism, transfer), (
        "run `python -m benchmarks.realism.page`"
    )
    for name in page.FIGURES:
        assert (RESULTS / f"realism_{name}.png").is_file()
