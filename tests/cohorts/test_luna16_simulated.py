"""The simulated LUNA-16: its sample, its folds, its labels, and that a kill costs one scan only."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import detector
from labkit.annotations import lidc, luna16
from labkit.cohorts import simulated_luna16
from labkit.cohorts import simulated_luna16 as one
from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.imaging import blobs
from labkit.simulate import scene as whereabouts
from labkit.simulate.scene import Scene, scene_for_series

SCANS, SEED = 4, 0


def fake_part(series_uid: str, findings: luna16.Findings, seed: int) -> one.ScanPart:
    """A part as a scan would give it: every nodule hit, and some candidates that hit nothing."""
    rng = np.random.default_rng(int(series_uid[-6:]) + seed)
    found = findings.annotations
    points = rng.uniform(-100, 100, (len(found), 3))
    nodules = pd.DataFrame(points, columns=list(luna16.POSITION))
    nodules.insert(0, luna16.SERIES, series_uid)
    nodules["diameter_mm"] = np.full(len(found), 8.0)
    hit = points + np.array([1.0, 0.0, 0.0])
    others = rng.uniform(200, 300, (6, 3))
    everything = np.concatenate([hit, others])
    candidates = pd.DataFrame(everything, columns=list(luna16.POSITION))
    candidates.insert(0, luna16.SERIES, series_uid)
    candidates["score"] = np.linspace(500.0, 200.0, len(candidates))
    candidates["radius_mm"] = 3.0
    candidates["lies_on"] = "vessel"
    excluded = nodules.iloc[:0].copy()
    excluded.loc[0] = [series_uid, *others[0], 6.0]
    views = rng.integers(0, 256, (len(candidates), 9, 76, 76)).astype(np.uint8)
    return one.ScanPart(candidates, views, nodules, excluded, "", {"scan": 1.0})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Simulations are made up; says which were asked for."""
    asked: list[str] = []

    def simulate(
        series_uid: str, seed: int, settings: blobs.Settings, findings: luna16.Findings, cut: bool
    ) -> one.ScanPart:
        asked.append(series_uid)
        return fake_part(series_uid, findings, seed)

    monkeypatch.setattr(one, "simulate", simulate)
    return asked


def build(folder: Path, scans: int = SCANS, **changes: object) -> Cohort:
    """The made-up cohort."""
    return simulated_luna16.simulated_luna16(scans, folder, jobs=1, progress=False, **changes)  # type: ignore[arg-type]


def test_a_sample_is_of_luna_and_has_nothing_that_was_tuned_on() -> None:
    chosen = simulated_luna16.sample(60, SEED)
    assert len(set(chosen)) == 60
    assert set(chosen) <= set(luna16.the_888())
    patient = lidc.scans().set_index("series_uid")["patient_id"]
    assert not set(patient[chosen]) & set(patient[simulated_luna16.tuning_series()])
    assert simulated_luna16.sample(5, SEED) == chosen[:5]
    assert simulated_luna16.sample(60, SEED + 1) != chosen


def test_the_sample_of_the_lab_has_about_as_many_nodules_a_scan_as_luna() -> None:
    nodules = luna16.from_lidc(simulated_luna16.sample(60, SEED)).annotations
    assert 1.0 < len(nodules) / 60 < 1.7  # 1,186 in 888: 1.34


def test_folds_are_by_patient_and_even_in_scans_and_in_nodules() -> None:
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


def test_the_cohort_is_labelled_by_the_hit_rule(calls: list[str], tmp_path: Path) -> None:
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


def test_views_stand_in_the_row_of_their_candidate(calls: list[str], tmp_path: Path) -> None:
    cohort = build(tmp_path / "luna")
    for uid in simulated_luna16.sample(SCANS, SEED):
        own = luna16.from_lidc([uid])
        part = fake_part(uid, own, SEED)
        rows = np.flatnonzero(cohort.nodules["series_uid"] == uid)
        np.testing.assert_array_equal(cohort.views[rows], part.views)
        np.testing.assert_allclose(cohort.nodules["score"].iloc[rows], part.candidates["score"])


def test_it_is_made_once_and_again_only_with_other_settings(
    calls: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tmp_path / "luna")
    build(tmp_path / "luna")
    assert len(calls) == SCANS
    assert {p.name for p in tmp_path.glob(".luna*")} <= {".luna.lock"}  # the parts are gone
    build(tmp_path / "luna", detector=blobs.Settings(least_score=300.0))
    assert len(calls) == 2 * SCANS
    assert "other settings" in capsys.readouterr().out


def test_a_kill_costs_one_scan_and_changes_no_byte(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(tmp_path / "a" / "luna")
    simulate = one.simulate
    done = []

    def killed(*arguments: object) -> one.ScanPart:
        if len(done) == SCANS - 1:
            raise KeyboardInterrupt
        done.append(arguments[0])
        return simulate(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(one, "simulate", killed)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "b" / "luna")
    monkeypatch.setattr(one, "simulate", simulate)
    del calls[:]
    again = build(tmp_path / "b" / "luna")
    assert len(calls) == 1 and calls[0] not in done
    for name in ("views.npy", "nodules.csv", "candidates.csv", "annotations.csv"):
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes()


BUILDER = """
import sys, time
from pathlib import Path
from labkit.cohorts import _simulated_scan as one, simulated
from tests.cohorts.test_luna16_simulated import SCANS, fake_part
folder, log, stops_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
def simulate(uid, seed, settings, findings, cut):
    with log.open("a") as file:
        print(uid, file=file)
    while len(log.read_text().split()) == stops_at:
        time.sleep(0.05)
    return fake_part(uid, findings, seed)
one.simulate = simulate
simulated.simulated_luna16(SCANS, folder, jobs=1, progress=False)
"""


def start(folder: Path, log: Path, stops_at: int) -> subprocess.Popen[str]:
    """A process that builds the made-up cohort; it never gets past so many simulations."""
    given = [str(folder), str(log), str(stops_at)]
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, *given], cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_second_process_waits_and_goes_on_when_the_first_is_killed(
    calls: list[str], tmp_path: Path
) -> None:
    folder, log, other = tmp_path / "luna", tmp_path / "first", tmp_path / "second"
    with start(folder, log, stops_at=2) as first:
        try:
            while not log.is_file() or len(log.read_text().split()) < 2:
                assert first.poll() is None
                time.sleep(0.05)
            with start(folder, other, stops_at=0) as second:
                assert second.stdout is not None
                assert "another process is making it; waiting" in second.stdout.readline()
                assert not other.exists() and first.poll() is None
                first.kill()
                assert second.wait(timeout=120) == 0
        finally:
            first.kill()
    # The scan that the first had finished is not simulated again, and the lock is free.
    begun = log.read_text().split()
    assert set(other.read_text().split()) == {*simulated_luna16.sample(SCANS, SEED)} - {begun[0]}
    assert calls == [] and len(build(folder)) == len(build(tmp_path / "alone"))
    assert len(calls) == SCANS


def test_a_scan_without_lungs_is_told_and_its_nodules_are_missed(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate = one.simulate
    bad = simulated_luna16.sample(SCANS, SEED)[0]

    def without(*arguments: object) -> one.ScanPart:
        part = simulate(*arguments)  # type: ignore[arg-type]
        if arguments[0] != bad:
            return part
        empty = part.candidates.iloc[:0]
        return one.ScanPart(
            empty, part.views[:0], part.annotations, part.excluded, "no lungs found", {}
        )

    monkeypatch.setattr(one, "simulate", without)
    cohort = build(tmp_path / "luna")
    assert cohort.meta["report"]["failed_scans"] == {bad: "no lungs found"}
    assert bad not in set(cohort.nodules["series_uid"])
    assert bad in (cohort.folder / "seriesuids.csv").read_text()
    nodules = pd.read_csv(cohort.folder / "annotations.csv")
    assert len(nodules) == len(luna16.from_lidc(simulated_luna16.sample(SCANS, SEED)).annotations)


def test_a_part_is_read_as_it_was_kept_and_damage_is_noticed(tmp_path: Path) -> None:
    uid = simulated_luna16.sample(1, SEED)[0]
    part = fake_part(uid, luna16.from_lidc([uid]), SEED)
    settings = one.settings_of(SEED, blobs.Settings(), True)
    file = tmp_path / "part.npz"
    one.keep(file, part, settings)
    back = one.kept(file, settings)
    np.testing.assert_array_equal(back.views, part.views)
    for name in ("candidates", "annotations", "excluded"):
        pd.testing.assert_frame_equal(getattr(back, name), getattr(part, name), check_dtype=False)
    with pytest.raises(InputError, match="other settings"):
        one.kept(file, one.settings_of(SEED + 1, blobs.Settings(), True))
    damaged = tmp_path / "damaged.npz"
    shutil.copy(file, damaged)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        one.kept(damaged, settings)
    damaged.write_bytes(content[: len(content) // 3])
    with pytest.raises(InputError, match="damaged"):
        one.kept(damaged, settings)


def test_all_scans_are_all_but_those_of_the_tuning_patients() -> None:
    patient = lidc.scans().set_index("series_uid")["patient_id"]
    everything = simulated_luna16.sample(None, SEED)
    tuned_on = set(patient[simulated_luna16.tuning_series()])
    assert {patient[uid] for uid in luna16.the_888()} == tuned_on | set(patient[everything])
    assert tuned_on.isdisjoint(patient[everything])
    assert simulated_luna16.sample(5, SEED) == everything[:5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scans": 0}, "scans is 0"),
        ({"scans": 888}, "scans is 888"),
        ({"scans": 2, "seed": -1}, "seed is -1"),
        ({"scans": 2, "jobs": 0}, "jobs is 0"),
    ],
)
def test_wrong_input_is_told(arguments: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        simulated_luna16.simulated_luna16(out=tmp_path / "luna", progress=False, **arguments)


@pytest.fixture(scope="module")
def scene() -> Scene:
    """One simulated chest."""
    return scene_for_series(simulated_luna16.sample(1, SEED)[0], SEED)


def test_points_put_on_the_anatomy_are_told_by_it(scene: Scene) -> None:
    vessels = scene.drawn.vessels
    middle = (vessels.start_xyz_mm + vessels.end_xyz_mm) / 2
    x, y, z = middle.T
    root = [scene.thorax.hilum_xyz_mm(np.array(left)) for left in (False, True)]
    deep = scene.thorax.lung(x, y, z) < -10
    far = np.min([np.linalg.norm(middle - r, axis=1) for r in root], axis=0) > 40
    some = np.random.default_rng(SEED).choice(np.flatnonzero(deep & far), 300, replace=False)
    on_vessels = Counter(whereabouts.lies_on(scene, middle[some]))
    assert set(on_vessels) <= {"vessel", "branching"}
    assert on_vessels["vessel"] > 100
    _, first, count = np.unique(vessels.start_xyz_mm, axis=0, return_index=True, return_counts=True)
    thick = vessels.start_radius_mm[first] > 0.6
    parting = vessels.start_xyz_mm[first[(count > 1) & thick]][::40]
    assert set(whereabouts.lies_on(scene, parting)) <= {"branching", "hilum"}
    assert whereabouts.lies_on(scene, np.array(root)) == ["hilum", "hilum"]


def test_most_points_of_lung_lie_on_nothing(scene: Scene) -> None:
    points = detector.points_in_lung(scene, 400, SEED)
    x, y, z = points.T
    assert (scene.thorax.lung(x, y, z) < 0).all()
    kinds = Counter(whereabouts.lies_on(scene, points))
    assert kinds["nothing"] > 0.3 * len(points)
    assert kinds["branching"] < 0.1 * len(points)


def test_sensitivity_falls_and_candidates_grow_fewer_as_the_threshold_rises() -> None:
    at = {"x_mm": [0.0, 50.0, 2.0, 90.0], "y_mm": 0.0, "z_mm": 0.0}
    candidates = pd.DataFrame({"seriesuid": "a", **at, "score": [300.0, 200.0, 100.0, 90.0]})
    nodules = pd.DataFrame(
        {"seriesuid": "a", "x_mm": [1.0, 51.0, 300.0], "y_mm": 0.0, "z_mm": 0.0,
         "diameter_mm": 6.0}
    )  # fmt: skip
    table = detector.sensitivity_table(candidates, nodules, 2, [50.0, 150.0, 250.0, 350.0])
    assert table["candidates_a_scan"].tolist() == [2.0, 1.0, 0.5, 0.0]
    assert table["hit"].tolist() == [2, 2, 1, 0]
    assert table["sensitivity"].iloc[0] == pytest.approx(2 / 3)
    assert detector.best_scores(candidates, nodules).tolist() == [300.0, 200.0, 0.0]


@pytest.mark.slow
def test_whole_scans_give_the_same_bytes_by_any_number_of_processes(tmp_path: Path) -> None:
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
