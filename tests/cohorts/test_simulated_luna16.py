"""The simulated LUNA-16: its sample, its folds, its labels, and that a kill costs one scan only."""

import time
from collections import Counter
from threading import Thread

import numpy as np
import pandas as pd
import pytest

from labkit import io
from labkit.annotations import lidc, luna16
from labkit.cohorts import simulated_luna16
from labkit.errors import InputError
from labkit.imaging import blobs

SCANS, SEED = 4, 0


def fake_part(series_uid, seed):
    """A part as a scan would give it: every nodule hit, and some candidates that hit nothing."""
    rng = np.random.default_rng(int(series_uid[-6:]) + seed)
    count = len(luna16.from_lidc([series_uid]).annotations)
    nodules = table_of(series_uid, rng.uniform(-100, 100, (count, 3)))
    others = rng.uniform(200, 300, (6, 3))
    found = nodules[list(luna16.POSITION)].to_numpy() + np.array([1.0, 0.0, 0.0])
    marks = table_of(series_uid, np.concatenate([found, others]))
    marks["score"] = np.linspace(500.0, 200.0, len(marks))
    marks = marks.assign(radius_mm=3.0, lies_on="vessel")
    views = rng.integers(0, 256, (len(marks), 9, 76, 76)).astype(np.uint8)
    return views, {
        "candidates": marks.to_dict("list"),
        "annotations": nodules.assign(diameter_mm=8.0).to_dict("list"),
        "excluded": table_of(series_uid, others[:1]).assign(diameter_mm=6.0).to_dict("list"),
        "problem": "",
        "seconds": {"scan": 1.0},
    }


def table_of(series_uid, points):
    table = pd.DataFrame(points, columns=list(luna16.POSITION))
    table.insert(0, luna16.SERIES, series_uid)
    return table


@pytest.fixture
def calls(monkeypatch):
    """Simulations are made up; says which were asked for."""
    asked = []

    def simulate(series_uid, seed, settings, cut):
        asked.append(series_uid)
        return fake_part(series_uid, seed)

    monkeypatch.setattr(simulated_luna16, "simulate", simulate)
    return asked


def build(folder, scans=SCANS, **changes):
    """The made-up cohort."""
    return simulated_luna16.simulated_luna16(scans, folder, jobs=1, progress=False, **changes)


def test_a_sample_is_of_luna_and_has_nothing_that_was_tuned_on():
    chosen = simulated_luna16.sample(60, SEED)
    assert len(set(chosen)) == 60
    assert set(chosen) <= set(lidc.luna16_series())
    patient = lidc.scans().set_index("series_uid")["patient_id"]
    assert simulated_luna16.sample(5, SEED) == chosen[:5]
    assert simulated_luna16.sample(60, SEED + 1) != chosen
    nodules = luna16.from_lidc(chosen).annotations
    assert 1.0 < len(nodules) / 60 < 1.7  # 1,186 in 888: 1.34
    everything = simulated_luna16.sample(None, SEED)
    tuned_on = set(patient[simulated_luna16.tuning_series()])
    assert {patient[uid] for uid in lidc.luna16_series()} == tuned_on | set(patient[everything])
    assert tuned_on.isdisjoint(patient[everything])


def test_folds_are_by_patient_and_even_in_scans_and_in_nodules():
    uids = simulated_luna16.sample(60, SEED)
    patient = lidc.scans().set_index("series_uid")["patient_id"][uids].tolist()
    count = luna16.from_lidc(uids).annotations.groupby("series_uid").size()
    nodules = count.reindex(uids, fill_value=0).tolist()
    folds = simulated_luna16.subsets(patient, nodules, SEED)
    assert len(set(zip(patient, folds, strict=True))) == len(set(patient))
    assert sorted(set(folds)) == list(range(10))
    assert max(Counter(folds).values()) - min(Counter(folds).values()) <= 2
    held = [sum(n for n, f in zip(nodules, folds, strict=True) if f == k) for k in range(10)]
    assert max(held) - min(held) <= max(nodules)
    assert folds != simulated_luna16.subsets(patient, nodules, SEED + 1)


def test_the_cohort_is_labelled_by_the_hit_rule(calls, tmp_path):
    cohort = build(tmp_path / "luna")
    table = cohort.nodules
    assert cohort.simulated and cohort.task == "luna16"
    assert sorted(calls) == sorted(simulated_luna16.sample(SCANS, SEED))
    nodules = pd.read_csv(cohort.folder / "annotations.csv")
    hit = table[table["label"] == 1]
    assert len(hit) > 0
    assert (hit["diameter_mm"] == 8.0).all() and table.loc[table["label"] == 0, "hit"].eq(-1).all()
    at = nodules.iloc[hit["hit"]]
    assert at["seriesuid"].tolist() == hit["series_uid"].tolist()
    np.testing.assert_allclose(at["coordX"].to_numpy() + 1.0, hit["x_mm"])
    # One of the others in every scan lies on an excluded finding.
    assert table.loc[table["label"] == 0].groupby("series_uid")["excluded"].sum().eq(1).all()
    assert table.groupby("patient_id")["subset"].nunique().eq(1).all()
    uids = (cohort.folder / "seriesuids.csv").read_text().split()
    assert uids == sorted(simulated_luna16.sample(SCANS, SEED))


def test_it_is_made_once_and_again_only_with_other_settings(calls, tmp_path, capsys):
    cohort = build(tmp_path / "luna")
    build(tmp_path / "luna")
    assert len(calls) == SCANS
    assert {p.name for p in tmp_path.glob(".luna*")} <= {".luna.lock"}  # the parts are gone
    for uid in simulated_luna16.sample(SCANS, SEED):  # views stand in their candidate's row
        views, about = fake_part(uid, SEED)
        rows = np.flatnonzero(cohort.nodules["series_uid"] == uid)
        np.testing.assert_array_equal(cohort.views[rows], views)
        scores = cohort.nodules["score"].iloc[rows]
        np.testing.assert_array_equal(scores, about["candidates"]["score"])
    build(tmp_path / "luna", detector=blobs.Settings(least_score=300.0))
    assert len(calls) == 2 * SCANS
    assert "other settings" in capsys.readouterr().out


def test_a_kill_costs_one_scan_and_changes_no_byte(calls, tmp_path, monkeypatch):
    whole = build(tmp_path / "a" / "luna")
    simulate = simulated_luna16.simulate
    done = []

    def killed(*arguments):
        if len(done) == SCANS - 1:
            raise KeyboardInterrupt
        done.append(arguments[0])
        return simulate(*arguments)

    monkeypatch.setattr(simulated_luna16, "simulate", killed)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "b" / "luna")
    monkeypatch.setattr(simulated_luna16, "simulate", simulate)
    del calls[:]
    again = build(tmp_path / "b" / "luna")
    assert len(calls) == 1 and calls[0] not in done
    for name in ("views.npy", "nodules.csv", "candidates.csv", "annotations.csv"):
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_second_build_waits_for_the_first_and_opens_what_it_made(calls, tmp_path, capsys):
    folder, told = tmp_path / "luna", ""
    with io.in_turn(folder):
        other = Thread(target=build, args=(folder,))
        other.start()
        while "another process is making it; waiting" not in told and other.is_alive():
            told += capsys.readouterr().out
            time.sleep(0.05)
        build(tmp_path / "made")
        (tmp_path / "made").rename(folder)
        calls.clear()
    other.join(60)
    assert not other.is_alive() and calls == []


def test_a_scan_without_lungs_is_told_and_its_nodules_are_missed(calls, tmp_path, monkeypatch):
    simulate = simulated_luna16.simulate
    bad = simulated_luna16.sample(SCANS, SEED)[0]

    def without(*arguments):
        views, about = simulate(*arguments)
        if arguments[0] != bad:
            return views, about
        return views[:0], {**about, "candidates": {}, "problem": "no lungs found"}

    monkeypatch.setattr(simulated_luna16, "simulate", without)
    cohort = build(tmp_path / "luna")
    assert cohort.meta["report"]["failed_scans"] == {bad: "no lungs found"}
    assert bad not in set(cohort.nodules["series_uid"])
    assert bad in (cohort.folder / "seriesuids.csv").read_text()
    nodules = pd.read_csv(cohort.folder / "annotations.csv")
    assert len(nodules) == len(luna16.from_lidc(simulated_luna16.sample(SCANS, SEED)).annotations)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"scans": 0}, "scans is 0"), ({"scans": 888}, "scans is 888"),
     ({"scans": 2, "seed": -1}, "seed is -1"), ({"scans": 2, "jobs": 0}, "jobs is 0")],
)  # fmt: skip
def test_wrong_input_is_told(arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        simulated_luna16.simulated_luna16(out=tmp_path / "luna", progress=False, **arguments)


@pytest.mark.slow
def test_whole_scans_give_the_same_bytes_by_any_number_of_processes(tmp_path):
    first, second = (
        simulated_luna16.simulated_luna16(2, tmp_path / str(jobs), jobs=jobs, progress=False)
        for jobs in (1, 2)
    )
    for name in ("views.npy", "nodules.csv", "candidates.csv", "annotations.csv"):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()
    nodules = pd.read_csv(first.folder / "annotations.csv")
    found = set(first.nodules.loc[first.nodules["label"] == 1, "hit"])
    assert found  # not every nodule: a detector misses some
    assert found <= set(range(len(nodules)))
    assert (first.nodules["label"] == 0).sum() > 20
