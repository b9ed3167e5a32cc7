"""All measures of all twins, and the JSON that is made of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray
from tqdm.auto import tqdm

from labkit._killed import told_if_killed
from labkit.data.cohort import Cohort
from labkit.realism import surroundings
from labkit.realism.alignment import alignment
from labkit.realism.classify import tell_apart
from labkit.realism.compare import compare, interval, mean_share, rounded
from labkit.realism.inside import contact, density, edge
from labkit.realism.pairs import match, twins
from labkit.realism.wall import Floats, masks
from labkit.training.hardware import provenance

KINDS = ("real", "simulated")
SIZES_MM = (0.0, 7.0, 10.0, 15.0, 25.0, 100.0)
CALCIFIED_BELOW = 5.5  # mean rating; 6 is "absent"
THEMES = {
    "nodule": (
        "inside_median_hu", "inside_mean_hu", "inside_sd_hu", "inside_p90_hu", "edge_width_mm",
        "edge_offset_mm", "edge_wander_mm",
    ),
    "wall": ("open_share", "wall_gap_mm", "touches_wall", "wall_share", "outside_share"),
    "tissues": (
        "share_lung", "share_between", "share_fat", "share_soft", "share_bright",
        "wall_bone_share", "wall_fat_share", "soft_tissue_hu",
    ),
    "lung and vessels": (
        "lung_median_hu", "lung_p10_hu", "vessel_share", "vessel_p99_hu", "vessel_count_cm2",
        "vessel_piece_mm2", "vessel_elongation", "vessel_long_share",
    ),
    "noise": ("noise_lung_hu", "noise_tissue_hu", "noise_fine_lung", "noise_fine_tissue"),
    "spectrum": tuple(f"spectrum_{k}" for k in range(len(surroundings.FREQUENCIES))),
}  # fmt: skip


def measure(
    real_folder: Path,
    simulated_folder: Path,
    *,
    jobs: int | None = None,
    resamples: int = 500,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Compare two cohorts, nodule by nodule.

    Args:
        real_folder: cohort of real cubes.
        simulated_folder: cohort of simulated ones, of any scene version.
        jobs: processes; None takes all cores.
        resamples: of every bootstrap over patients.
        seed: of the bootstraps.
        progress: whether to show a bar with the time left.

    Returns:
        Numbers only, ready for JSON.

    Raises:
        InputError: see `pairs.match`.
    """
    real, simulated = Cohort.open(real_folder), Cohort.open(simulated_folder)
    pairs = match(real, simulated)
    tasks = (delayed(_one)(real_folder, simulated_folder, row) for _, row in pairs.iterrows())
    done = Parallel(n_jobs=jobs or -1, return_as="generator")(tasks)
    bar = tqdm(done, total=len(pairs), desc="comparing", unit="nodule", disable=not progress)
    with told_if_killed(jobs or cpu_count(), "try again with fewer --jobs"):
        found = list(bar)
    tables = {k: pd.DataFrame([f[k][0] for f in found]) for k in KINDS}
    histograms = {k: np.stack([f[k][1] for f in found]) for k in KINDS}
    return {
        "about": (
            "Simulated CT against real CT of the same nodules, both clipped to -1000 to 400 HU in "
            "255 steps and cut to the slices that the nodule occupies. Numbers, no images."
        ),
        **provenance(),
        "cohorts": {k: describe(c) for k, c in zip(KINDS, (real, simulated), strict=True)},
        "settings": {"resamples": resamples, "seed": seed},
        "pairs": {
            "nodules": len(pairs),
            "patients": int(pairs["patient_id"].nunique()),
            "real_without_twin": len(real) - len(pairs),
        },
        **summarise(pairs, tables, histograms, resamples, seed),
    }


def describe(cohort: Cohort) -> dict[str, Any]:
    """What a cohort is, for a result: name, settings, checksums."""
    return {
        "name": cohort.name,
        "simulated": cohort.simulated,
        "nodules": len(cohort),
        "settings": dict(cohort.meta["settings"]),
        "sha256": {name: f["sha256"] for name, f in cohort.meta["files"].items()},
    }


def summarise(
    pairs: pd.DataFrame,
    tables: dict[str, pd.DataFrame],
    histograms: dict[str, NDArray[np.float64]],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Everything that is stated about measured twins, row i of all arguments being one pair."""
    patients = pairs["patient_id"].to_numpy()
    r, s = (tables[k] for k in KINDS)

    def both(name: str, rows: NDArray[np.bool_] | None = None) -> dict[str, Any] | None:
        kept = np.ones(len(pairs), bool) if rows is None else rows
        return compare(r[name][kept], s[name][kept], patients[kept], resamples, seed)

    def by(name: str, groups: dict[str, NDArray[np.bool_]]) -> dict[str, Any]:
        made = {group: both(name, rows) for group, rows in groups.items()}
        return {group: values for group, values in made.items() if values}

    plain = (pairs["calcification"] >= CALCIFIED_BELOW).to_numpy()
    texture = {**_ratings(pairs["texture"], plain), "calcified": ~plain}
    margin = _ratings(pairs["margin"], plain)
    sizes = _sizes(pairs["diameter_mm"])
    solid = {name: rows & texture["5"] for name, rows in sizes.items()}
    measures = [name for names in THEMES.values() for name in names]
    return {
        "alignment": _alignment(r),
        "density_by_texture": by("inside_median_hu", texture),
        "density_of_solid_by_size": by("inside_median_hu", solid),
        "spread_by_texture": by("inside_sd_hu", texture),
        "edge_by_margin": by("edge_width_mm", margin),
        "histogram": _histogram(histograms, patients, resamples, seed),
        "spectrum": _spectrum(r, s, patients, resamples, seed),
        "contact": _contact(r, s, patients, sizes),
        "measures": {name: both(name) for name in measures if not name.startswith("spectrum")},
        "classifier": tell_apart(r[measures], s[measures], patients, THEMES, seed),
    }


def _one(real_folder: Path, simulated_folder: Path, pair: pd.Series) -> dict[str, Any]:
    pair_of = twins(Cohort.open(real_folder), Cohort.open(simulated_folder), pair)
    return {
        kind: measure_one(hu, pair_of.agreement, pair_of.distance_mm)
        for kind, hu in zip(KINDS, (pair_of.real, pair_of.simulated), strict=True)
    }


def measure_one(
    hu: Floats, agreement: Floats, distance_mm: Floats
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """Every measure of one image by name, and its histogram.

    Args:
        hu: (n, 64, 64) HU.
        agreement: share of the readers who outlined the point.
        distance_mm: signed distance to their consensus, negative inside.
    """
    found = masks(hu, agreement)
    power = surroundings.spectrum(hu, found)
    return {
        **alignment(hu, agreement),
        **density(hu, agreement, distance_mm),
        **edge(hu, distance_mm),
        **contact(agreement, found),
        **surroundings.tissues(hu, found),
        **surroundings.vessels(hu, found),
        **surroundings.noise(hu, found),
        **{f"spectrum_{k}": float(p) for k, p in enumerate(power)},
    }, surroundings.histogram(hu, found)


def _ratings(mean: pd.Series, kept: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """Nodules by their mean rating, halves upwards."""
    whole = np.floor(mean.to_numpy() + 0.5)
    return {str(k): kept & (whole == k) for k in range(1, 6)}


def _sizes(diameter_mm: pd.Series) -> dict[str, NDArray[np.bool_]]:
    d = diameter_mm.to_numpy()
    bands = list(pairwise(SIZES_MM))
    names = [f"{a:g} to {b:g} mm" for a, b in bands]
    names[0], names[-1] = f"below {SIZES_MM[1]:g} mm", f"above {SIZES_MM[-2]:g} mm"
    return {n: (d > a) & (d <= b) for n, (a, b) in zip(names, bands, strict=True)}


def _alignment(real: pd.DataFrame) -> dict[str, Any]:
    """Over nodules whose outline is seen in the image at all (correlation above 0.5)."""
    seen = real[real["match"] > 0.5]
    if seen.empty:
        return {"nodules": 0}
    return {
        "nodules": len(seen),
        "share_better_unflipped": rounded(float((seen["match"] > seen["match_flipped"]).mean())),
        "median_shift_row_mm": rounded(float(seen["shift_row_mm"].median())),
        "median_shift_col_mm": rounded(float(seen["shift_col_mm"].median())),
        "share_within_1_mm": rounded(
            float((np.hypot(seen["shift_row_mm"], seen["shift_col_mm"]) <= 1).mean())
        ),
    }


def _histogram(
    histograms: dict[str, NDArray[np.float64]], patients: NDArray, resamples: int, seed: int
) -> dict[str, Any]:
    """Mean shares over nodules, and the Wasserstein distance of the two, HU."""
    width = float(np.diff(surroundings.HU_EDGES)[0])
    names, codes = np.unique(patients, return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=resamples
    )
    weights = drawn[:, codes] / drawn[:, codes].sum(axis=1, keepdims=True)
    gap = np.cumsum(histograms["simulated"] - histograms["real"], axis=1)
    distance = np.abs(gap.mean(axis=0)).sum() * width
    samples = np.abs(weights @ gap).sum(axis=1) * width
    return {
        "edges_hu": [rounded(float(e)) for e in surroundings.HU_EDGES],
        **{k: [rounded(float(v)) for v in h.mean(axis=0)] for k, h in histograms.items()},
        "wasserstein_hu": interval(float(distance), samples),
    }


def _spectrum(
    real: pd.DataFrame, simulated: pd.DataFrame, patients: NDArray, resamples: int, seed: int
) -> dict[str, Any]:
    """Quartiles of power at every frequency, and the median ratio of twins."""
    rows: list[dict[str, Any]] = []
    for k, frequency in enumerate(surroundings.FREQUENCIES):
        name = f"spectrum_{k}"
        of = compare(np.log(real[name]), np.log(simulated[name]), patients, resamples, seed)
        if of is None:
            continue
        rows.append(
            {
                "cycles_per_mm": rounded(float(frequency)),
                "nodules": of["nodules"],
                **{kind: {q: rounded(float(np.exp(v))) for q, v in of[kind].items()}
                   for kind in KINDS},
                "ratio": {k: rounded(float(np.exp(v))) for k, v in of["difference"].items()},
                "ks": of["ks"],
            }
        )  # fmt: skip
    return {"unit": "HU^2 mm^2", "by_frequency": rows}


def _contact(
    real: pd.DataFrame,
    simulated: pd.DataFrame,
    patients: NDArray,
    sizes: dict[str, NDArray[np.bool_]],
) -> dict[str, Any]:
    """Shares that touch the wall, by size, and how far the two agree on which."""
    a, b = (t["touches_wall"].to_numpy() for t in (real, simulated))
    by_size = {
        name: {
            "nodules": int(rows.sum()),
            "real": mean_share(a[rows], patients[rows]),
            "simulated": mean_share(b[rows], patients[rows]),
        }
        for name, rows in sizes.items()
        if rows.any()
    }
    agree = float((a == b).mean())
    expected = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    kappa = rounded((agree - expected) / (1 - expected)) if expected < 1 else None
    return {
        "real": mean_share(a, patients),
        "simulated": mean_share(b, patients),
        "difference": mean_share(b - a, patients),
        "both": int((a * b).sum()),
        "only_real": int((a * (1 - b)).sum()),
        "only_simulated": int(((1 - a) * b).sum()),
        "kappa": kappa,
        "by_size": by_size,
    }
