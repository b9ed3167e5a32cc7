"""Two tiny cohorts of the same LIDC nodules, one called real: balls of known density in lung."""

from pathlib import Path

import numpy as np

from labkit.annotations import lidc
from labkit.cohorts.cohort import Cohort, write_cohort

LUNG_HU, WALL_HU = -850.0, 40.0


def ball_cube(radius_mm, hu, seed, noise_hu=15.0, soft_mm=0.7):
    """(64, 64, 64) HU: a ball in the middle of noisy lung, and wall behind row 56."""
    k = np.arange(64) - 31.5
    r = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2)
    inside = 1 / (1 + np.exp((r - radius_mm) / soft_mm))
    cube = LUNG_HU + (hu - LUNG_HU) * inside
    cube[:, 56:] = WALL_HU
    return cube + np.random.default_rng(seed).normal(0, noise_hu, cube.shape)


def twin_cohorts(folder: Path, n: int = 24, skew: int = 1) -> tuple[Cohort, Cohort]:
    """n labelled nodules of as many patients; malignant ones are brighter in both cohorts.

    The real cohort has air beyond the nodule's slices, ids as in a file of cubes, and `skew`
    nodules with other ratings than LIDC's, which therefore have no twin.
    """
    table = lidc.nodules().dropna(subset=["label"]).drop_duplicates("patient_id")
    halves = [table[table["label"] == label].head(n // 2) for label in (0, 1)]
    ratings = lidc.annotations().groupby("nodule_id")["malignancy"].agg(list)
    rows = [row for half in halves for row in half.to_dict("records")]
    made = []
    for simulated in (False, True):
        name = "simulated" if simulated else "real"
        with write_cohort(
            folder / name, len(rows), source="balls for a test", simulated=simulated
        ) as add:
            for i, row in enumerate(rows):
                radius = 0.5 * row["diameter_mm"]
                hu = (60 if row["label"] else -150) + (20 if simulated else 0)
                cube = ball_cube(radius, hu, seed=2 * i + simulated)
                axial = np.pad(cube[31], 6, mode="edge")
                if not simulated:
                    number = row["nodule_id"].rsplit("-n", 1)[1]
                    marks = [int(m) for m in ratings[row["nodule_id"]]]
                    if i < skew:
                        marks[0] += 1
                    row = {
                        **row,
                        "nodule_id": f"{row['patient_id']}/nodule-{number}",
                        "ratings": "|".join(map(str, sorted(marks, reverse=True))),
                    }
                    reach = int(np.ceil(radius))
                    cube[: 32 - reach], cube[32 + reach :] = -1000, -1000
                    cube = np.clip(cube, -1000, 400)
                add(row, cube=cube, views=np.repeat(axial[None], 9, axis=0))
        made.append(Cohort.open(folder / name))
    return made[0], made[1]
