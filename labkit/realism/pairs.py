"""The same nodule, real and simulated: finding the twins, and making them alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from labkit.data import lidc
from labkit.data.cohort import CUBE_SIZE, Cohort
from labkit.data.simulate.outline import consensus
from labkit.errors import InputError
from labkit.imaging.volume import AIR_HU

LOW_HU, HIGH_HU = -1000.0, 400.0
STEP_HU = (HIGH_HU - LOW_HU) / 255


@dataclass(frozen=True)
class Twins:
    """One nodule, real and simulated, on the same grid of 1 mm with its outline.

    All arrays have the axes (z, y, x) and hold only the slices that are real.

    Args:
        real: (n, 64, 64) HU.
        simulated: (n, 64, 64) HU, clipped and rounded like the real ones.
        agreement: (n, 64, 64) share of the readers who outlined the point.
        distance_mm: (n, 64, 64) signed distance to the consensus outline, negative inside; true
            within some millimetres of the outline, constant further out.
    """

    real: NDArray[np.float32]
    simulated: NDArray[np.float32]
    agreement: NDArray[np.float32]
    distance_mm: NDArray[np.float32]


def match(real: Cohort, simulated: Cohort) -> pd.DataFrame:
    """Nodules that both cohorts hold: one series, one number in pylidc's clustering, same ratings.

    The last part of `nodule_id` is that number in both. A nodule that the number finds but whose
    malignancy ratings are not the same readers' is left out: it was put together from
    other annotations, and has another outline.

    Args:
        real: with `ratings` ("5|4|4|3", one a reader).
        simulated: made from `lidc.nodules`.

    Returns:
        One row a pair: the simulated cohort's columns, `real_row` and `simulated_row`.

    Raises:
        InputError: cohorts the wrong way round, columns missing, or no pair.
    """
    if real.simulated or not simulated.simulated:
        raise InputError(
            f"{real.folder} has to hold real images, {simulated.folder} simulated ones"
        )
    missing = {"series_uid", "ratings"} - set(real.nodules)
    if missing:
        raise InputError(f"{real.folder}: lacks the columns {', '.join(sorted(missing))}")
    ratings = lidc.annotations().groupby("nodule_id")["malignancy"].agg(_as_one)
    left = pd.DataFrame(
        {
            "series_uid": real.nodules["series_uid"],
            "number": _number(real.nodules["nodule_id"]),
            "rated": real.nodules["ratings"].map(lambda r: _as_one(str(r).split("|"))),
            "real_row": np.arange(len(real)),
        }
    )
    right = simulated.nodules.assign(
        number=_number(simulated.nodules["nodule_id"]),
        rated=simulated.nodules["nodule_id"].map(ratings),
        simulated_row=np.arange(len(simulated)),
    )
    pairs = right.merge(left, on=["series_uid", "number", "rated"], validate="one_to_one")
    if pairs.empty:
        raise InputError(f"{real.folder} and {simulated.folder} have no nodule in common")
    return pairs.drop(columns=["number", "rated"]).sort_values("real_row", ignore_index=True)


def _number(ids: pd.Series) -> pd.Series:
    """Last number of an id, as text.

    >>> _number(pd.Series(["LIDC-IDRI-0003/nodule-2", "LIDC-IDRI-0003-s1-n2"])).tolist()
    ['2', '2']
    """
    return ids.astype(str).str.extract(r"(\d+)$", expand=False)


def _as_one(ratings: ArrayLike) -> str:
    return "|".join(sorted(str(int(float(r))) for r in np.asarray(ratings)))


def like_real(cube_hu: ArrayLike) -> NDArray[np.float32]:
    """A simulated cube as the real ones are stored: -1000 to 400 HU in 255 steps, as whole HU.

    >>> like_real([-3000.0, -1000.0, 0.0, 3000.0]).tolist()[::3]
    [-1000.0, 400.0]
    """
    clipped = np.clip(np.asarray(cube_hu, dtype=np.float32), LOW_HU, HIGH_HU)
    steps = np.rint((clipped - LOW_HU) / np.float32(STEP_HU))
    return np.rint(steps * np.float32(STEP_HU) + np.float32(LOW_HU)).astype(np.float32)


def real_slices(cube_hu: ArrayLike) -> slice:
    """Which slices of a real cube are real: those that are not all air, without gaps.

    Raises:
        InputError: a cube of nothing but air.
    """
    some = np.flatnonzero((np.asarray(cube_hu) > AIR_HU).any(axis=(1, 2)))
    if not len(some):
        raise InputError("a cube holds nothing but air; build the cohort of real cubes again")
    return slice(int(some[0]), int(some[-1]) + 1)


def outline_at(nodule: pd.Series) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Consensus of a nodule's readers on its cube: agreement and signed distance, (64, 64, 64).

    Args:
        nodule: a row of `lidc.nodules`.
    """
    readers: dict[int, list[lidc.Contour]] = {}
    for contour in lidc.contours(str(nodule["nodule_id"])):
        readers.setdefault(contour.annotation_id, []).append(contour)
    pixel = float(nodule["pixel_spacing_mm"])
    shape = consensus(list(readers.values()), pixel, float(nodule["slice_spacing_mm"]))
    around = np.arange(CUBE_SIZE) - (CUBE_SIZE - 1) / 2
    # The shape's own world has its origin in the middle of the scan's 512 x 512 pixels.
    axes = (
        (float(nodule["center_col_px"]) - 255.5) * pixel + around,
        (float(nodule["center_row_px"]) - 255.5) * pixel + around,
        float(nodule["center_z_mm"]) + around,
    )
    return shape.agreement_at(*axes), shape.distance_at(*axes)


def twins(real: Cohort, simulated: Cohort, pair: pd.Series) -> Twins:
    """Load a pair that `match` found, and make the two alike.

    The simulated cube is clipped and rounded as the real one was, and only the slices that are
    real are kept of both.
    """
    cube = np.asarray(real.require_cubes()[int(pair["real_row"])], dtype=np.float32)
    kept = real_slices(cube)
    agreement, distance = outline_at(pair)
    return Twins(
        real=np.clip(cube[kept], LOW_HU, HIGH_HU),
        simulated=like_real(simulated.require_cubes()[int(pair["simulated_row"])][kept]),
        agreement=agreement[kept],
        distance_mm=distance[kept],
    )
