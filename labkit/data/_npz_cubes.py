"""Anybody's nodule cubes from one .npz file, checked before anything is made of them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.data.cohort import CUBE_SIZE
from labkit.errors import InputError
from labkit.imaging.volume import AIR_HU

_UINT8_RANGE_HU = 1400.0
UNCERTAIN = 3


def read_cubes(path: Path) -> tuple[pd.DataFrame, NDArray]:
    """Table and cubes of an .npz file; see `build.build_cubes` for what it holds.

    Returns:
        The nodule table with `nodule_id`, `patient_id`, `label` and every other array of one
        value a nodule; and the cubes (N, 64, 64, 64) as they are stored, uint8 or int16.

    Raises:
        InputError: anything that is missing, of a wrong shape or kind, or out of range.
    """
    arrays = _load(path)
    missing = [key for key in ("cubes", "nodule_id", "patient_id") if key not in arrays]
    if missing:
        raise InputError(
            f"{path}: has no array {', '.join(missing)}; it needs cubes, nodule_id, patient_id, "
            "and malignancy_median or label"
        )
    cubes = arrays.pop("cubes")
    edge = CUBE_SIZE
    if cubes.ndim != 4 or cubes.shape[1:] != (edge,) * 3 or not len(cubes):
        raise InputError(f"{path}: cubes of shape {cubes.shape}, not (N, {edge}, {edge}, {edge})")
    if cubes.dtype not in (np.uint8, np.int16):
        raise InputError(
            f"{path}: cubes are {cubes.dtype}; store HU as int16, or uint8 with "
            "HU = -1000 + 1400 v / 255"
        )
    columns = {}
    for key, values in arrays.items():
        if values.ndim == 1 and len(values) != len(cubes):
            raise InputError(
                f"{path}: {key} has {len(values)} values for {len(cubes)} cubes; give one a nodule"
            )
        if values.ndim == 1:
            columns[key] = values
    table = pd.DataFrame(columns)
    for key in ("nodule_id", "patient_id", "series_uid"):
        if key in table:
            table[key] = _ids(path, key, columns[key])
    twice = table.loc[table["nodule_id"].duplicated(), "nodule_id"]
    if len(twice):
        raise InputError(f"{path}: nodule_id {twice.iloc[0]} comes twice; it must be unique")
    for key in ("diameter_mm", "readers"):
        if key in table:
            _require_positive(path, table, key, whole=key == "readers")
    table["label"] = _labels(path, table)
    return table, cubes


def to_hu(cube: NDArray) -> NDArray:
    """HU of one stored cube: uint8 v means -1000 + 1400 v / 255, int16 is HU already."""
    if cube.dtype == np.uint8:
        return (AIR_HU + _UINT8_RANGE_HU / 255 * cube).astype(np.float32)
    return cube


def _load(path: Path) -> dict[str, NDArray]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: not a whole .npz file; write one with numpy.savez_compressed")
    arrays: dict[str, NDArray] = {}
    key = ""
    try:
        with np.load(path, allow_pickle=False) as file:
            for key in file.files:
                arrays[key] = file[key]
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: array {key!r} is not readable ({error}); store numbers or fixed-width "
            "text, not Python objects"
        ) from None
    return arrays


def _ids(path: Path, key: str, values: NDArray) -> list[str]:
    if values.dtype.kind not in "USiu":
        raise InputError(f"{path}: {key} is {values.dtype}; give text or whole numbers")
    ids = [v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist()]
    if key != "series_uid" and not all(ids):
        raise InputError(f"{path}: {key} is empty for cube {ids.index('')}; every cube needs one")
    return ids


def _numbers(path: Path, table: pd.DataFrame, key: str) -> NDArray[np.float64]:
    if table[key].to_numpy().dtype.kind not in "biuf":
        raise InputError(f"{path}: {key} is not numeric; give numbers")
    return table[key].to_numpy(dtype=np.float64)


def _complain(
    path: Path, table: pd.DataFrame, wrong: NDArray[np.bool_], key: str, cure: str
) -> None:
    if wrong.any():
        row = table.iloc[int(np.argmax(wrong))]
        raise InputError(f"{path}: nodule {row['nodule_id']} has {key} {row[key]}; {cure}")


def _require_positive(path: Path, table: pd.DataFrame, key: str, whole: bool) -> None:
    values = _numbers(path, table, key)
    wrong = ~(np.isfinite(values) & (values > 0))
    if whole:
        wrong |= values != np.rint(values)
    _complain(path, table, wrong, key, "give a positive number, or leave the nodule out")


def _labels(path: Path, table: pd.DataFrame) -> Any:
    """1 malignant, 0 benign, missing when uncertain; from `label`, else from the median rating."""
    median: NDArray[np.float64] | None = None
    if "malignancy_median" in table:
        median = _numbers(path, table, "malignancy_median")
        wrong = ~((median >= 1) & (median <= 5))
        _complain(path, table, wrong, "malignancy_median", "ratings run from 1 to 5")
    if "label" in table:
        label = _numbers(path, table, "label")
        # With the median beside it, a missing label can be seen to mean uncertain.
        uncertain = np.isnan(label) & (median == UNCERTAIN if median is not None else False)
        wrong = ~(np.isin(label, (0, 1)) | uncertain)
        cure = "give 1 (malignant) or 0 (benign), and leave uncertain nodules out"
        _complain(path, table, wrong, "label", cure)
    elif median is not None:
        label = np.where(median == UNCERTAIN, np.nan, median > UNCERTAIN)
    else:
        raise InputError(f"{path}: has neither malignancy_median nor label; add one of them")
    return pd.array(label, dtype="Float64").astype("Int64")
