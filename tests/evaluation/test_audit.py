"""An audit finds the leak that was planted, and none where there is none."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from labkit import paths
from labkit.evaluation import audit
from labkit.io import sha256
from tests.evaluation.tables import refused

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def planted() -> pd.DataFrame:
    """Two nodules a patient, under three kinds of folds; by slice the label itself leaks in."""
    rng, n = np.random.default_rng(0), 240
    nodules = pd.DataFrame({
        "nodule_id": [f"n{i}" for i in range(n)], "patient_id": [f"p{i // 2}" for i in range(n)],
        "label": rng.integers(0, 2, n),
    })  # fmt: skip
    nodules["diameter_mm"] = np.exp(rng.normal(2 + 0.6 * nodules["label"], 0.5))
    rows = []
    place = np.arange(n)
    folds = {"patient": [place // 2 % 5], "nodule": [place % 5],
             "random": [place % 5, (place + 1) % 5]}  # fmt: skip
    for repeat, split in product(range(3), folds):
        for fold in folds[split]:
            seen = nodules["label"] * (5 if split == "random" else 1.5)
            rows.append(nodules.assign(
                cohort="all", network="net", split=split, repeat=repeat, fold=fold, view="fused",
                slices=rng.integers(1, 9, n), probability=expit(seen + rng.normal(size=n)),
            ))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def test_a_planted_leak_is_found_and_no_other_and_what_adds_to_size(planted) -> None:
    found = audit.judge_networks(planted, resamples=200)
    pairs = found["splits"]["comparisons"]
    by_slice, by_nodule = (pairs[f"all: net, by {k} less by patient"] for k in ("slice", "nodule"))
    assert by_slice["found"] and by_slice["within_folds_difference"]["low"] > 0.1
    assert not by_nodule["found"]
    shares = found["cohorts"]["all"]["scattered"]
    assert [[*shares[f"by {k}"].values()] for k in ("patient", "nodule", "slice")] == [
        [0, 0], [0, 1], [1, 1]
    ]  # fmt: skip
    assert found["size"]["family"]["size"] == 2
    assert found["size"]["comparisons"]["all: net with diameter less diameter alone"]["found"]


def test_scattered_slices_are_judged_once_or_vote(planted) -> None:
    by_slice = planted[planted["split"] == "random"]
    one, votes = audit.one_fold_each(by_slice), audit.all_slices(by_slice)
    assert len(one) == len(votes) == 3 * planted["nodule_id"].nunique()
    for (repeat, nodule), rows in list(by_slice.groupby(["repeat", "nodule_id"]))[:20]:
        here = f"repeat == {repeat} and nodule_id == '{nodule}'"
        assert one.query(here)["slices"].item() == rows["slices"].max()
        mean = np.average(rows["probability"], weights=rows["slices"])
        assert votes.query(here)["probability"].item() == pytest.approx(mean)
    whole = planted[planted["split"] == "patient"]
    pd.testing.assert_frame_equal(audit.one_fold_each(whole).sort_index(), whole)


def test_nothing_but_the_pinned_file_is_read_or_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LABKIT_REAL_DATA", str(tmp_path))
    kept, packed = (tmp_path / folder / "audit" for folder in ("cache", ""))
    refused(r"missing, or .* LABKIT_REAL_DATA", audit.original, audit.SLICES)
    packed.mkdir()
    (packed / f"{audit.SLICES}.xz").write_bytes(b"x")
    refused("damaged", audit.original, audit.SLICES)
    kept.mkdir(parents=True)
    (kept / audit.SLICES).write_bytes(b"another table")
    refused("another table", audit.original, audit.SLICES)
    monkeypatch.setattr(audit, "DEEPLUNG", f"{tmp_path.as_uri()}/{{}}-")
    (public := tmp_path / f"{audit.COMMIT}-newseriesuids.csv").write_text("00001\n")
    refused(r"newseriesuids\.csv: not the file of file:", audit.original, "newseriesuids.csv")
    assert not (kept / "newseriesuids.csv").exists()
    monkeypatch.setitem(audit.SHA256, "newseriesuids.csv", sha256(public))
    assert audit.original("newseriesuids.csv").read_text() == "00001\n"


def test_what_is_committed_is_what_the_tables_give(real_data, tmp_path, monkeypatch) -> None:
    if not (real_data / "audit").is_dir():
        pytest.skip(f"{real_data / 'audit'} is missing: no predictions of others to judge")
    monkeypatch.setenv("LABKIT_REAL_DATA", str(real_data))
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    kept = json.loads((REPO / "results" / "audit.json").read_text())
    found, missing = audit.results(resamples=2)
    assert not missing
    assert round(found["submission"]["cpm"], 3) == audit.PUBLISHED["cpm"]
    rates = np.round(found["submission"]["sensitivity"], 3)
    assert rates.tolist() == audit.PUBLISHED["sensitivity"]
    for part in ("size", "splits"):
        of_kept, of_found = (v["networks"][part]["comparisons"] for v in (kept, found))
        for name, pair in of_kept.items():
            assert of_found[name]["p_value"] == pytest.approx(pair["p_value"], rel=1e-6), name
            assert of_found[name]["found"] == pair["found"]


def test_without_the_tables_the_committed_numbers_speak(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    monkeypatch.delenv("LABKIT_REAL_DATA", raising=False)
    monkeypatch.setattr(audit, "DEEPLUNG", "file:///nowhere/{}/")
    found, missing = audit.results()
    assert set(missing) == {"networks", "submission"}
    assert found == json.loads((paths.results() / "audit.json").read_text())
