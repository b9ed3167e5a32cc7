"""The annotation and nodule tables, made once a process from the database's records."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.data import _lidc_clusters, _lidc_shapes
from labkit.data._lidc_database import RATINGS, Records, load

MEAN_RATINGS = (*RATINGS[:-1], "malignancy_mean")
_SCAN_COLUMNS = [
    "patient_id",
    "series_uid",
    "slice_thickness_mm",
    "slice_spacing_mm",
    "pixel_spacing_mm",
]


@lru_cache(maxsize=1)
def scan_table() -> pd.DataFrame:
    """One row a scan, by patient and scan number. Shared: callers copy it before handing it out."""
    records = load()
    table = records.scans[
        ["patient_id", "scan_number", "series_uid", "study_uid", "slice_thickness_mm"]
    ].copy()
    gap = np.diff(records.slice_z_mm)
    scan = np.repeat(np.arange(len(table)), np.diff(records.slice_start))
    within = scan[1:] == scan[:-1]
    table["slice_spacing_mm"] = pd.Series(gap[within]).groupby(scan[1:][within]).median()
    table["pixel_spacing_mm"] = records.scans["pixel_spacing_mm"]
    table["slices"] = np.diff(records.slice_start)
    return table


@lru_cache(maxsize=1)
def annotation_table() -> pd.DataFrame:
    """One row an annotation, by patient, scan, nodule and annotation. Shared: copy before use."""
    records = load()
    table = records.annotations[["annotation_id", "scan", *RATINGS]].copy()
    table = table.join(scan_table()[[*_SCAN_COLUMNS, "scan_number"]], on="scan")
    table["diameter_mm"] = _lidc_shapes.diameters_mm(records)
    table["volume_mm3"], centers = _lidc_shapes.volumes_and_centers(records)
    table[["center_row_px", "center_col_px", "center_z_mm"]] = centers
    number, readers = _number_nodules(records)
    table["readers"] = readers
    table["nodule"] = number
    table.insert(
        0,
        "nodule_id",
        table["patient_id"]
        + "-s"
        + table["scan_number"].astype(str)
        + "-n"
        + table["nodule"].astype(str),
    )
    table = table.sort_values(["scan", "nodule", "annotation_id"], ignore_index=True)
    first = ["annotation_id", "nodule_id", "patient_id", "series_uid", "readers", *RATINGS]
    table = table.drop(columns=["scan", "scan_number", "nodule"])
    return table[first + [name for name in table.columns if name not in first]]


@lru_cache(maxsize=1)
def nodule_table() -> pd.DataFrame:
    """One row a nodule with what its readers say on average. Shared: copy before use."""
    annotations = annotation_table()
    nodules = annotations.groupby("nodule_id", sort=False)
    table = nodules[["patient_id", "series_uid"]].first()
    means = ["center_row_px", "center_col_px", "center_z_mm", "diameter_mm", "volume_mm3"]
    table[means] = nodules[means].mean()
    table["readers"] = nodules["readers"].first()
    table["malignancy_median"] = nodules["malignancy"].median()
    table[list(MEAN_RATINGS)] = nodules[list(RATINGS)].mean().to_numpy()
    spacings = _SCAN_COLUMNS[2:]
    table[spacings] = nodules[spacings].first()
    return table.reset_index()


def _slice_indices(records: Records) -> NDArray[np.int64]:
    """(C,) index of the slice nearest to each outline; of equally near ones the lowest."""
    scan = records.annotations["scan"].to_numpy()[records.contour_annotation]
    first = np.searchsorted(scan, np.arange(len(records.scans) + 1))
    index = np.empty(len(scan), np.int64)
    for i, (start, end) in enumerate(pairwise(first)):
        slices = records.slice_z_mm[records.slice_start[i] : records.slice_start[i + 1]]
        z = records.contour_z_mm[start:end]
        index[start:end] = np.abs(slices - z[:, None]).argmin(axis=1)
    return index


def _number_nodules(records: Records) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(A,) each annotation's nodule, counted from 0 within its scan, and that nodule's readers.

    Nodules of a scan are numbered from the feet to the head, in the order of pylidc's
    `cluster_annotations()`: by the mean over readers of the mean slice index of all vertices.
    """
    scan = records.annotations["scan"].to_numpy()
    vertex_contour = records.vertex_contour
    vertex_annotation = records.contour_annotation[vertex_contour]
    slices = _slice_indices(records)[vertex_contour]
    groups = _lidc_clusters.group(
        np.column_stack([slices, records.vertices_row_col_px]),
        vertex_annotation,
        scan,
        records.scans["slice_thickness_mm"].to_numpy(np.float64),
    )
    readers = np.bincount(groups)
    height = np.bincount(vertex_annotation, slices) / np.bincount(vertex_annotation)
    group_height = np.bincount(groups, height) / readers
    group_scan = scan[np.unique(groups, return_index=True)[1]]
    order = np.lexsort((group_height, group_scan))
    number = np.empty(len(readers), np.int64)
    number[order] = np.arange(len(readers)) - np.searchsorted(group_scan[order], group_scan[order])
    return number[groups], readers[groups]
