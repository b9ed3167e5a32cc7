"""What the candidate detector finds and what it costs, measured on scans that are in no cohort.

    python -m benchmarks.detector --out results/luna16_detector.json

Every scan of `simulated_luna16.tuning_series` is simulated and searched; how sensitivity and
candidates a scan go together follows by raising the threshold, since weaker candidates have no say
in what becomes of stronger ones.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common import command
from labkit import paths
from labkit.annotations import lidc, luna16
from labkit.annotations.luna16 import hits
from labkit.cohorts import simulated_luna16
from labkit.cohorts.cohort import versions
from labkit.errors import InputError
from labkit.imaging import blobs
from labkit.simulate.noise import generator
from labkit.simulate.scene import KINDS, Scene, lies_on, scene_for_series

# Bounds of bands, and their names; LIDC's texture is 1 of a non-solid nodule and 5 of a solid one.
SIZES_MM = ((0, 4, 6, 10, 20, np.inf), ("0 to 4", "4 to 6", "6 to 10", "10 to 20", "20 and more"))
TEXTURES = ((1.0, 2.5, 4.5, 5.1), ("non-solid", "part-solid", "solid"))
_STEP, _HIGHEST = 5.0, 300.0
_POINTS_A_SCAN = 200


def sensitivity_table(
    candidates: pd.DataFrame, nodules: pd.DataFrame, scans: int, thresholds: Iterable[float]
) -> pd.DataFrame:
    """Count how many nodules are hit, and candidates a scan there are, at each least score.

    Both tables have `seriesuid`, `x_mm`, `y_mm`, `z_mm`, and `score` or `diameter_mm`; `scans` are
    all that were searched. Returns `least_score`, `candidates_a_scan`, `hit` (nodules) and
    `sensitivity` (missing when there is no nodule).
    """
    least = np.array(list(thresholds), dtype=float)
    counts = (candidates["score"].to_numpy(float) >= least[:, None]).sum(axis=1) / scans
    hit = (best_scores(candidates, nodules) >= least[:, None]).sum(axis=1)
    table = pd.DataFrame({"least_score": least, "candidates_a_scan": counts, "hit": hit})
    return table.assign(sensitivity=table["hit"] / len(nodules) if len(nodules) else np.nan)


def best_scores(candidates: pd.DataFrame, nodules: pd.DataFrame) -> np.ndarray:
    """Return of each nodule the score of the strongest candidate that hits it; 0 when none does."""
    found = hits(candidates, nodules)
    best = np.zeros(len(nodules))
    np.maximum.at(best, found.finding, candidates["score"].to_numpy(float)[found.candidate])
    return best


def points_in_lung(scene: Scene, count: int, seed: int) -> np.ndarray:
    """Draw (count, 3) points evenly in the lungs of a simulated chest."""
    rng = generator(seed, scene.scan.series_uid, "points in lung")
    low, high = scene.thorax.bounds_xyz_mm()
    low[2] = max(low[2], scene.scan.first_z_mm)
    points: np.ndarray = np.zeros((0, 3))
    while len(points) < count:
        more = rng.uniform(low, high, (4 * count, 3))
        points = np.concatenate([points, more[scene.thorax.lung(*more.T) < 0]])
    return points[:count]


def measure(
    *, scans: int = simulated_luna16.TUNING_SCANS, seed: int = 0, jobs: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Measure the detector's sensitivity as it is, by size and texture, and what else it finds.

    About 24 s a scan and process, for the first `scans` of the tuning scans; a killed run goes on
    where it stopped. Returns plain values (JSON): settings, curve, shares, and with what and when
    it was measured.
    """
    series = simulated_luna16.tuning_series()
    if not 1 <= scans <= len(series):
        raise InputError(f"scans is {scans}; give 1 to {len(series)}")
    series, settings, folder = series[:scans], blobs.Settings(), paths.runs() / "luna16_detector"
    how, least = (seed, settings, jobs, progress), settings.least_score
    _, found = simulated_luna16.simulate_scans(folder, series, *how, cut_out=False)
    parts = {uid: found[uid] for uid in series}
    names = ("candidates", "annotations", "excluded")
    candidates, nodules, excluded = (simulated_luna16.joined(parts, name) for name in names)
    # Mean ratings, in the order in which the parts name the nodules.
    texture = lidc.nodules(1, None).set_index("nodule_id")["texture"]
    findings = luna16.from_lidc(series).annotations
    ids = [i for uid in series for i in findings["finding_id"][findings["series_uid"] == uid]]
    nodules["texture"] = texture.loc[ids].to_numpy(float)
    nodules["best"] = best_scores(candidates, nodules)
    at_work = sensitivity_table(candidates, nodules, scans, [least])
    hit = np.concatenate([hits(candidates, each).candidate for each in (nodules, excluded)])
    of_nothing = candidates["lies_on"].to_numpy()[~np.isin(np.arange(len(candidates)), hit)]
    scenes = [scene_for_series(uid, seed) for uid in series]
    chance = [k for s in scenes for k in lies_on(s, points_in_lung(s, _POINTS_A_SCAN, seed))]
    a_scan = candidates.groupby(luna16.SERIES).size().reindex(series, fill_value=0)
    curve = sensitivity_table(candidates, nodules, scans, np.arange(least, _HIGHEST + 1, _STEP))
    steps = pd.DataFrame([part["seconds"] for part in parts.values()]).fillna(0).mean()
    return {
        "versions": versions(),
        "settings": {**simulated_luna16.settings_of(seed, settings, cut_out=False), "scans": scans},
        "series": series,
        "nodules": len(nodules),
        **{name: values[0] for name, values in _plain(at_work).items()},
        "least_and_most_candidates_of_a_scan": [int(a_scan.min()), int(a_scan.max())],
        "curve": _plain(curve),
        "by_diameter_mm": _counts(nodules, "diameter_mm", SIZES_MM, least),
        "by_texture": _counts(nodules, "texture", TEXTURES, least),
        "missed": _plain(nodules.loc[nodules["best"] < least, ["diameter_mm", "texture", "best"]]),
        "false_positives_lie_on": _shares(of_nothing),
        "any_point_of_lung_lies_on": _shares(chance),
        "processor_seconds_a_scan": steps.round(2).to_dict(),
        "luna16": {"candidates_a_scan": 551065 / 888, "nodules": 1186, "hit": 1120},
        "detector": asdict(settings),
    }  # fmt: skip


def _counts(
    nodules: pd.DataFrame, column: str, bands: tuple[Sequence[float], Sequence[str]], least: float
) -> dict[str, dict[str, int]]:
    """Count nodules, and those that are hit, in each band of a column."""
    band = pd.cut(nodules[column], bands[0], labels=bands[1], right=False)
    hit = (nodules["best"] >= least).groupby(band, observed=False).agg(["size", "sum"])
    return hit.set_axis(["nodules", "hit"], axis=1).astype(int).to_dict("index")


def _shares(kinds: Iterable[str]) -> dict[str, float]:
    shares = pd.Series(kinds, dtype=object).value_counts(normalize=True)
    return shares.reindex(KINDS, fill_value=0.0).round(4).to_dict() if len(shares) else {}


def _plain(table: pd.DataFrame) -> dict[str, list[Any]]:
    return {
        str(name): [None if pd.isna(v) else round(float(v), 4) for v in values]
        for name, values in table.items()
    }


if __name__ == "__main__":
    sys.exit(command(measure, __doc__))
