"""What the candidate detector finds and what it costs, measured on scans that are in no cohort.

    python -m benchmarks.detector --out results/luna16_detector.json

Every scan of `simulated_luna16.tuning_series` is simulated and searched; how sensitivity and
candidates a scan go together follows by raising the threshold, since weaker candidates have no say
in what becomes of stronger ones.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import pairwise
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
from labkit.training.machines import now

SIZES_MM = (0.0, 4.0, 6.0, 10.0, 20.0, np.inf)
# LIDC's texture: 1 is non-solid, 5 solid.
TEXTURES = {"non-solid": (1.0, 2.5), "part-solid": (2.5, 4.5), "solid": (4.5, 5.1)}
_STEP = 5.0
_HIGHEST = 300.0
_POINTS_A_SCAN = 200


def sensitivity_table(
    candidates: pd.DataFrame, nodules: pd.DataFrame, scans: int, thresholds: Iterable[float]
) -> pd.DataFrame:
    """Count how many nodules are hit, and candidates a scan there are, at each threshold.

    Args:
        candidates: `seriesuid`, `x_mm`, `y_mm`, `z_mm`, `score`.
        nodules: `seriesuid`, `x_mm`, `y_mm`, `z_mm`, `diameter_mm`.
        scans: how many were searched, those without candidates too.
        thresholds: least scores.

    Returns:
        DataFrame with the columns `least_score`, `candidates_a_scan`, `hit` (nodules) and
        `sensitivity` (missing when there is no nodule).
    """
    score = candidates["score"].to_numpy(float)
    best = best_scores(candidates, nodules)
    rows = [
        (float(least), float((score >= least).sum() / scans), int((best >= least).sum()))
        for least in thresholds
    ]
    table = pd.DataFrame(rows, columns=["least_score", "candidates_a_scan", "hit"])
    table["sensitivity"] = table["hit"] / len(nodules) if len(nodules) else np.nan
    return table


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

    About 24 s a scan and process; a killed run goes on where it stopped.

    Args:
        scans: how many of the tuning scans, in the order of their draw.
        seed: of the scenes.
        jobs: processes; by default as `simulated_luna16`.
        progress: show a bar.

    Returns:
        Plain values (JSON): settings, curve, shares, and with what and when it was measured.

    Raises:
        InputError: less than one scan, or more than there are.
    """
    series = simulated_luna16.tuning_series()
    if not 1 <= scans <= len(series):
        raise InputError(f"scans is {scans}; give 1 to {len(series)}")
    series = series[:scans]
    settings = blobs.Settings()
    folder = paths.runs() / "luna16_detector"
    _, found = simulated_luna16.simulate_scans(
        folder, series, seed, settings, jobs, progress, cut_out=False
    )
    kept = simulated_luna16.settings_of(seed, settings, cut_out=False)
    parts = {uid: found[uid] for uid in series}
    candidates = simulated_luna16.joined(parts, "candidates")
    nodules = simulated_luna16.joined(parts, "annotations")
    nodules["texture"] = _textures(series)
    nodules["best"] = best_scores(candidates, nodules)
    thresholds = np.arange(settings.least_score, _HIGHEST + 1, _STEP)
    curve = sensitivity_table(candidates, nodules, scans, thresholds)
    at_work = sensitivity_table(candidates, nodules, scans, [settings.least_score])
    nothing = np.ones(len(candidates), bool)
    for findings in (nodules, simulated_luna16.joined(parts, "excluded")):
        nothing[hits(candidates, findings).candidate] = False
    missed = nodules[nodules["best"] < settings.least_score]
    scenes = [scene_for_series(uid, seed) for uid in series]
    chance = [k for s in scenes for k in lies_on(s, points_in_lung(s, _POINTS_A_SCAN, seed))]
    sizes = {f"{a:g} to {b:g}" if np.isfinite(b) else f"{a:g} and more": (a, b)
             for a, b in pairwise(SIZES_MM)}  # fmt: skip
    a_scan = candidates.groupby(luna16.SERIES).size().reindex(series, fill_value=0)
    return {
        "what": "simulated CT: the candidate detector on scans that are in no cohort",
        "date": now(),
        "versions": versions(),
        "settings": {**kept, "scans": scans},
        "series": series,
        "nodules": len(nodules),
        **{name: values[0] for name, values in _plain(at_work).items()},
        "least_and_most_candidates_of_a_scan": [int(a_scan.min()), int(a_scan.max())],
        "curve": _plain(curve),
        "by_diameter_mm": _counts(nodules, "diameter_mm", sizes, settings.least_score),
        "by_texture": _counts(nodules, "texture", TEXTURES, settings.least_score),
        "missed": _plain(missed[["diameter_mm", "texture", "best"]]),
        "false_positives_lie_on": _shares(candidates["lies_on"][nothing]),
        "any_point_of_lung_lies_on": _shares(pd.Series(chance)),
        "processor_seconds_a_scan": {
            step: round(float(np.mean([p["seconds"].get(step, 0.0) for p in parts.values()])), 2)
            for step in parts[series[0]]["seconds"]
        },
        "luna16": {"candidates_a_scan": 551065 / 888, "nodules": 1186, "hit": 1120},
        "detector": asdict(settings),
    }


def _textures(series: list[str]) -> np.ndarray:
    """Return mean texture ratings, in the order in which the parts name the nodules."""
    texture = lidc.nodules(1, None).set_index("nodule_id")["texture"]
    findings = luna16.from_lidc(series).annotations
    ids = [i for uid in series for i in findings["finding_id"][findings["series_uid"] == uid]]
    return texture.loc[ids].to_numpy(float)


def _counts(
    nodules: pd.DataFrame, column: str, bands: Mapping[str, tuple[float, float]], least: float
) -> dict[str, dict[str, int]]:
    """Count nodules, and those that are hit, in each band of a column."""
    best = {name: nodules["best"][(nodules[column] >= low) & (nodules[column] < high)]
            for name, (low, high) in bands.items()}  # fmt: skip
    return {n: {"nodules": len(b), "hit": int((b >= least).sum())} for n, b in best.items()}


def _shares(kinds: pd.Series) -> dict[str, float]:
    return {kind: round(float((kinds == kind).mean()), 4) for kind in KINDS} if len(kinds) else {}


def _plain(table: pd.DataFrame) -> dict[str, list[Any]]:
    return {
        str(name): [None if pd.isna(v) else round(float(v), 4) for v in values]
        for name, values in table.items()
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the command `python -m benchmarks.detector`."""
    return command(measure, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
