"""Cohorts of LUNA-16's candidates: half a million rows, scan by scan, as fast as the machine is.

A scan is read, all its candidates' views are cut out, and these are written as one finished part
beside the cohort to come. A killed build goes on with the scans that are missing; at the end the
parts become one array. `labkit.cohorts.simulated_luna16` goes the same way with simulated scans.

Reference: Setio et al., Med Image Anal 42:1-13, 2017. The paper's section III-A says what is cut
out of each scan, and section III-B that candidates within 5 mm have been merged.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.lib import format as npy
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from labkit.annotations import lidc, luna16
from labkit.annotations.luna16 import POSITION, SERIES
from labkit.cohorts.build import nearest_voxels
from labkit.cohorts.cohort import (
    VIEW_SIZE,
    VIEWS_SHAPE,
    BuildReport,
    check_target,
    nodule_table,
    write_meta,
)
from labkit.errors import InputError, require_jobs_and_seed, require_known
from labkit.imaging.dicom import read_image, read_meta_header
from labkit.imaging.lungs import dilate, segment
from labkit.imaging.views import nine_views_each
from labkit.imaging.volume import Volume
from labkit.io import (
    clear_after_kill,
    in_turn,
    jobs_by_memory,
    replace_folder,
    require_room,
    sha256,
    told_if_killed,
    write_atomically,
)

LOW_HU, HIGH_HU = -1000.0, 400.0
_ROW_BYTES = int(np.prod(VIEWS_SHAPE))
_SOURCE = (
    "LUNA-16 (Setio et al. 2017, CC BY 4.0): CT of LIDC-IDRI, The Cancer Imaging Archive, CC BY 3.0"
)
_NONE_EXCLUDED = (
    "no finding is excluded, because none was given: FROC will count marks on findings that fewer "
    "readers saw as false; give --excluded FILE"
)
_AS_LUNA_WRITES = {"series_uid": SERIES, **luna16.IN_FILES, "label": "class"}
# Measured, of a scan of 764 slices: its voxels twice over while they are read, or once and a part
# of the spline's coefficients, 1.65 GB; 2.6 GB while the lungs are segmented.
_PROCESS_BYTES, _PROCESS_BYTES_WITH_LUNGS = 1.8e9, 2.8e9
# Measured by benchmarks/speed/extraction.py; for the estimate before a build.
_SECONDS_A_SCAN, _SECONDS_A_CANDIDATE, _SECONDS_OF_LUNGS = 0.8, 0.005, 12.0


def build_luna16(
    folder: Path | str, candidates: Path | str, out: Path | str, *, annotations: Path | str,
    excluded: Path | str | None = None, subsets: Path | str | None = None, lungs: bool = False,
    jobs: int | None = None, progress: bool = True,
) -> BuildReport:  # fmt: skip
    """Make a cohort of LUNA-16's candidates, or of any detector's over its scans.

    Scans are found by the names of their .mhd files, wherever they lie below the folder. One that
    is missing or damaged costs its own candidates: they are left out and told in the report and in
    cohort.json; its nodules stay in annotations.csv, and seriesuids.csv lists the scans that were
    there. A killed build goes on where it stopped, given the same arguments and the same scans,
    and gives the same bytes; so does any number of processes.

    Args:
        folder: any folder tree of .mhd and .raw files.
        candidates: candidates.csv or candidates_V2.csv.
        out: the cohort to make; a cohort that is there is replaced.
        annotations: annotations.csv, the nodules. A candidate is positive when it hits one
            (`luna16.label`).
        excluded: annotations_excluded.csv; candidates that hit one of them are marked. Without it
            FROC counts every mark that hits no nodule.
        subsets: table of `seriesuid` and `subset`: the folds, and which scans are meant. Without
            it every .mhd file is a scan of the challenge, and its subset is the number in the name
            of the folder above it, subset0 to subset9; -1 where there is none, which is told.
        lungs: make chest wall of everything beyond the lungs and 10 mm around them (paper, section
            III-A); about 10 s a scan. A candidate beyond them is left out.
        jobs: processes; by default one a core, as far as 1.8 GB of memory (2.8 GB with lungs) are
            free for each.
        progress: say how long it will take, and show a bar.

    Raises:
        InputError: a table that cannot be read; no scan, or none that can be used; most candidates
            of class 1 hit no nodule, as when the tables name scans in two ways; no room on the
            disk; less than one job; a process killed; another process that is building it.
    """
    folder, out = Path(folder), Path(out)
    require_jobs_and_seed(jobs)
    check_target(out)
    nodules = luna16.read_annotations(annotations)
    left = None if excluded is None else luna16.read_excluded(excluded)
    marks = luna16.read_candidates(candidates)
    if marks.empty:
        raise InputError(f"{candidates}: a header and no candidate below it; write it again")
    given = marks[SERIES].astype(str).value_counts(sort=False).to_dict()
    meant = {*given, *nodules[SERIES].astype(str)}
    found, official = find(folder), {}
    if subsets is not None:
        official = luna16.read_subsets(subsets).set_index(SERIES)["subset"].to_dict()
        known = {*meant, *found, *lidc.scans()["series_uid"]}
        require_known(map(str, official), known, "scan in any table or the folder", str(subsets))
        meant |= set(official)
        found = {uid: paths for uid, paths in found.items() if uid in official}
    if not set(found) & set(given):
        raise InputError(
            f"{folder}: none of the candidates' {len(given)} scans is among the {len(found)} .mhd "
            "files that count; name the folder above subset0, and the candidates of these scans"
        )
    scans: dict[str, Scan] = {}
    failed: dict[str, str] = {}
    for uid, paths in found.items():
        try:
            scans[uid] = read_header(*paths)
        except InputError as error:
            failed[uid] = str(error)
    table = labelled(marks, nodules, left).assign(given=marks["class"].to_numpy())
    table = table[table["series_uid"].isin(list(scans))]
    if table.empty:
        why = next(iter(failed.values()))
        raise InputError(f"{folder}: none of the candidates can be cut out; the first: {why}")
    said = table[table["given"] == 1]
    if 2 * (lost := int((said["label"] == 0).sum())) > len(said):
        raise InputError(f"{candidates}: {lost} of {len(said)} candidates of class 1 hit no nodule "
                         f"of {annotations}; check that both name scans and places alike, in mm, "
                         "LPS")  # fmt: skip
    number = {uid: official.get(uid, scan.subset) for uid, scan in scans.items()}
    table["subset"] = table["series_uid"].map(number).astype("int64")
    files = {"candidates": candidates, "annotations": annotations, "excluded": excluded,
             "subsets": subsets}  # fmt: skip
    how = {"lungs": lungs, "spacing_mm": 1.0, "window_hu": [LOW_HU, HIGH_HU]}
    settings = {
        name: {"file": Path(file).name, "sha256": sha256(Path(file))}
        for name, file in files.items() if file is not None
    } | how  # fmt: skip
    own = {str(uid): rows for uid, rows in table.groupby("series_uid", sort=False)}
    no_fold = sum(number[uid] < 0 for uid in own)
    notes = [
        f"{no_fold} of {len(own)} scans with candidates lie in no folder subset0 to subset9 and "
        "get subset -1, which is no fold to cross-validate by; give --subsets FILE "
        "(seriesuid,subset)"
    ] * bool(no_fold) + [_NONE_EXCLUDED] * (left is None)
    if progress and notes:
        print(*notes, sep="\n")
    workers = jobs or jobs_by_memory(_PROCESS_BYTES_WITH_LUNGS if lungs else _PROCESS_BYTES)

    def told(uids: list[str]) -> str:
        count = sum(len(own[uid]) for uid in uids)
        require_room(out, count * _ROW_BYTES)
        return estimate(count, len(uids), len(table), workers, lungs)

    with in_turn(out, wait=False):
        parts = part_files(out, {
            uid: {**how, "ids": rows["nodule_id"].tolist(), "changed": scans[uid].changed,
                  "centers": rows[list(POSITION)].to_numpy().tolist()}
            for uid, rows in own.items()
        })  # fmt: skip
        tasks = {uid: (_cut_scan, scans[uid], rows, lungs) for uid, rows in own.items()}
        abouts = make_parts(parts, tasks, workers, told, "cutting out", progress)
        problems = {uid: about["problem"] for uid, about in abouts.items() if about["problem"]}
        failed |= problems
        left_out = {n: why for about in abouts.values() for n, why in about["left_out"].items()}
        use = ~table["series_uid"].isin(list(failed)) & ~table["nodule_id"].isin(list(left_out))
        table = table[use]
        if table.empty:
            shutil.rmtree(_unfinished(out))
            first = [*problems.values(), *left_out.values()][0]
            raise InputError(f"{out}: no candidate could be used; the first: {first}")
        disagreeing = table.loc[table["given"] != table["label"], "nodule_id"].tolist()
        missing = sorted(meant - set(found))
        uids = pd.Series(sorted({*found, *given, *missing}))
        what = pd.DataFrame({
            "series_uid": uids,
            "subset": [scans[u].subset if u in scans else _NO_SUBSET for u in uids],
            "candidates": uids.map(given).fillna(0).astype(int),
            "built": uids.map(table["series_uid"].value_counts()).fillna(0).astype(int),
            "status": ["failed" if u in failed else "built" if u in scans else "missing"
                       for u in uids],
            "reason": [failed.get(u, "" if u in scans else "not in the folder") for u in uids],
        })  # fmt: skip
        beside = {
            "annotations.csv": nodules,
            # Judging wants the table, if only to see that no finding is excluded.
            "annotations_excluded.csv": nodules.iloc[:0] if left is None else left,
            "seriesuids.csv": what.loc[what["status"] == "built", ["series_uid"]],
        }
        report: dict[str, Any] = {
            "left_out": dict(sorted(left_out.items())), "missing_scans": missing,
            "failed_scans": dict(sorted(failed.items())), "class_disagrees": disagreeing,
            "notes": notes,
        }  # fmt: skip
        meta = {"source": _SOURCE, "simulated": False, "settings": settings, "report": report}
        write_candidates(out, parts, table.drop(columns="given"), beside, meta, progress)
    if disagreeing:
        notes = [f"{len(disagreeing)} candidates have another class in the candidates file than "
                 f"the hit rule gives, the first {disagreeing[0]}; the cohort has the rule's",
                 *notes]  # fmt: skip
    return BuildReport(out, what, notes, report["left_out"])


def _cut_scan(scan: Scan, rows: pd.DataFrame, lungs: bool) -> tuple[NDArray[np.uint8], dict]:
    """Cut out the views of one scan's candidates; say why some, or all, of them are left out."""
    names, centers = rows["nodule_id"].tolist(), rows[list(POSITION)].to_numpy(float)
    try:
        volume = read(scan)
        left_out = {names[k]: f"candidate {names[k]}{why}" for k, why in outside(volume, centers)}
        if len(left_out) > len(names) / 2:  # in voxels, in RAS, or another scan's
            first = next(iter(left_out.values()))
            raise InputError(f"{len(left_out)} of {len(names)} candidates; {first}")
        # One lung will do: a candidate in one that was missed is told below.
        kept = dilate(segment(volume, one_lung=True), volume) if lungs else None
    except (InputError, OSError) as error:
        return np.zeros((0, *VIEWS_SHAPE), np.uint8), {"problem": str(error), "left_out": {}}
    if kept is not None:
        for name, center in zip(names, centers, strict=True):
            if name not in left_out and not nearest_voxels(kept, volume, center):
                left_out[name] = f"candidate {name} is beyond the lungs found; build without lungs"
    use = [name not in left_out for name in names]
    return views_u8(volume, centers[use], kept), {"problem": "", "left_out": left_out}


def estimate(candidates: int, scans: int, rows: int, workers: int, lungs: bool) -> str:
    """Tell in a line the time, the memory and the room on the disk that a build needs."""
    a_scan = _SECONDS_A_SCAN + (_SECONDS_OF_LUNGS if lungs else 0)
    minutes = (scans * a_scan + candidates * _SECONDS_A_CANDIDATE) / workers / 60
    how_long = f"about {minutes:.0f} minutes" if minutes >= 2 else "a minute or two"
    needs = _PROCESS_BYTES_WITH_LUNGS if lungs else _PROCESS_BYTES
    processes, each = ("processes", " each") if workers > 1 else ("process", "")
    return (
        f"{candidates} candidates of {scans} scans: {how_long} on {workers} {processes} that take "
        f"up to {needs / 1e9:.1f} GB of memory{each}, {rows * _ROW_BYTES / 1e9:.1f} GB on disk; "
        "stopped, the same command goes on"
    )


def as_u8(hu: ArrayLike) -> NDArray[np.uint8]:
    """Turn HU into grey levels: v = round((HU + 1000) * 255 / 1400), clipped to 0..255.

    5.5 HU a level; networks see the window from -1000 to 400 HU and nothing beyond.

    >>> as_u8([-2000, -1000, -300, 399, 400, 3000]).tolist()
    [0, 0, 128, 255, 255, 255]
    """
    levels = np.float32(255 / (HIGH_HU - LOW_HU))
    scaled = (np.asarray(hu, dtype=np.float32) - np.float32(LOW_HU)) * levels
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def views_u8(
    volume: Volume, centers_xyz_mm: ArrayLike, lungs: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Cut out the nine views of each candidate of one scan.

    Args:
        volume: the scan, HU.
        centers_xyz_mm: (n, 3) world positions, mm, LPS; n may be 0.
        lungs: see `imaging.views.cube`.

    Returns:
        (n, 9, 76, 76) uint8, `as_u8` of `imaging.views.nine_views` of 76 pixels at 1 mm, in the
        order of the centres. They differ by at most one level where rounding is at its edge.

    Raises:
        InputError: a centre that is not finite; lungs of another shape.
    """
    centers = np.asarray(centers_xyz_mm, dtype=np.float64).reshape(-1, 3)
    views = np.empty((len(centers), *VIEWS_SHAPE), np.uint8)
    for k, images in nine_views_each(volume, centers, VIEW_SIZE, lungs=lungs):
        views[k] = as_u8(images)
    return views


def outside(volume: Volume, centers_xyz_mm: NDArray[np.float64]) -> Iterator[tuple[int, str]]:
    """Find the points (n, 3) that lie on no voxel of a scan, each with words on where it is."""
    index = volume.index_from_world(centers_xyz_mm)
    within = np.all((index >= -0.5) & (index <= np.array(volume.shape) - 0.5), axis=1)
    for k in np.flatnonzero(~within):
        x, y, z = (f"{n:.1f}" if abs(n) < 1e5 else f"{n:.3g}" for n in centers_xyz_mm[k])
        why = (
            f" at x {x}, y {y}, z {z} mm lies outside its scan {volume.series_uid}: at voxel "
            f"{', '.join(f'{n:.5g}' for n in index[k])} (z, y, x) of {volume.shape}; check the "
            "table's world coordinates"
        )
        yield int(k), why


def labelled(
    candidates: pd.DataFrame, annotations: pd.DataFrame, excluded: pd.DataFrame | None
) -> pd.DataFrame:
    """Label candidates (`seriesuid`, `x_mm`, `y_mm`, `z_mm`) by the hit rule; say whose they are.

    `annotations` are the nodules (also `diameter_mm`); candidates that hit one of `excluded` are
    marked. Returns a row a candidate, in their order, with all columns of a cohort of candidates
    but for `subset`. The patient of a series that LIDC-IDRI does not know is called as the series.
    """
    hit = luna16.label(candidates, annotations)["nodule"].to_numpy()
    diameter = annotations["diameter_mm"].to_numpy(float)
    patients = lidc.scans().set_index("series_uid")["patient_id"].to_dict()
    uids = candidates[SERIES].astype(str)
    on_excluded = np.zeros(len(candidates), np.int64)
    if excluded is not None:
        on_excluded[luna16.hits(candidates, excluded).candidate] = 1
    return pd.DataFrame({
        "nodule_id": [f"c{row:07d}" for row in range(len(candidates))],
        "patient_id": uids.map(patients).fillna(uids).to_numpy(), "series_uid": uids.to_numpy(),
        **{axis: candidates[axis].to_numpy(float) for axis in POSITION},
        "diameter_mm": np.where(hit < 0, np.nan, diameter[hit] if len(diameter) else 0),
        "hit": hit, "excluded": on_excluded, "label": (hit >= 0).astype(np.int64),
    })  # fmt: skip


# --- parts: what is finished of a build, a file a scan --------------------------------------------


def part_files(cohort: Path, made_with: Mapping[str, Any]) -> dict[str, Path]:
    """Name the part of each series, after it and all that decides what is in it (plain values).

    Parts lie beside the cohort to come, in the hidden folder .NAME.unfinished.
    """
    folder = _unfinished(cohort)
    return {uid: folder / f"{uid}-{_digest(values)}.npz" for uid, values in made_with.items()}


def make_parts(
    parts: Mapping[str, Path], tasks: Mapping[str, tuple], jobs: int,
    told: Callable[[list[str]], str], what: str, progress: bool,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Make the parts (`part_files`) that are missing; return what each says of its scan.

    `tasks` are a function and its arguments a scan: one of `jobs` processes calls it, and it
    returns the scan's views (n, 9, 76, 76) uint8 and plain values (JSON) about them. `told` makes
    of the scans that are missing a line to print before, and `what` they do is said by the bar.

    Raises:
        InputError: a process was killed; the parts that are finished stay.
    """
    left = [uid for uid, file in parts.items() if not _is_finished(file, parts)]
    if left and (line := told(left)) and progress:
        print(line)
    calls = (delayed(_make_part)(parts[uid], *tasks[uid]) for uid in left)
    bar = tqdm(total=len(parts), initial=len(parts) - len(left), unit="scan", desc=what,
               disable=not progress)  # fmt: skip
    with bar, told_if_killed(jobs):
        for _ in Parallel(jobs, return_as="generator_unordered")(calls):
            bar.update()
    return {uid: read_part(file, views=False)[1] for uid, file in parts.items()}


def _make_part(file: Path, make: Callable[..., tuple[NDArray, dict]], *arguments: Any) -> None:
    # One thread of BLAS a process: more would fight for the cores, and their number could change
    # the last bit of a sum and so the bytes of the cohort.
    with threadpool_limits(limits=1):
        views, about = make(*arguments)
    write_part(file, views, about)


def write_part(file: Path, views: NDArray[np.uint8], about: Mapping[str, Any]) -> None:
    """Write a scan's views, and what is to be said of them, whole or not at all."""

    def save(path: Path) -> None:
        with path.open("wb") as out:  # a name without .npz would get one
            np.savez(out, about=json.dumps(dict(about)), views=views)

    write_atomically(file, save)


def read_part(file: Path, views: bool = True) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Read a part back; without `views` these stay on disk. InputError: missing or damaged."""
    try:
        with file.open("rb") as raw, np.load(raw, allow_pickle=False) as part:
            about = json.loads(str(part["about"]))
            return part["views"] if views else np.zeros((0, *VIEWS_SHAPE), np.uint8), about
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: missing or damaged ({error}); remove it, and the same command "
                         "makes it again") from None  # fmt: skip


def write_candidates(
    folder: Path, parts: Mapping[str, Path], table: pd.DataFrame,
    beside: Mapping[str, pd.DataFrame], meta: Mapping[str, Any], progress: bool = False,
) -> None:  # fmt: skip
    """Make the cohort of finished parts; it appears in its place whole, or not at all.

    A part gives its views up once they are in the cohort's array and on the disk, which so needs
    room for them once. A killed call goes on.

    Args:
        folder: the cohort; one that stands there is replaced, anything else is not.
        parts: SeriesInstanceUID -> file; see `part_files`.
        table: one row a candidate in the cohort's order, with the columns of `labelled`, `subset`
            and any other. The rows of a scan have the views of its part, in their order.
        beside: file name -> table to lie beside, as LUNA-16 writes them; seriesuids.csv without a
            header. candidates.csv is made of `table`.
        meta: plain values (JSON) for cohort.json: `source` of the images in words, whether they
            are `simulated`, the `settings` that made them, and a `report` on what is missing.
        progress: show bars.
    """
    made = _joined(parts)
    array = made / "views.npy"
    if not array.is_file():
        made.mkdir(parents=True, exist_ok=True)
        fresh = array.with_suffix(".new")
        npy.open_memmap(fresh, mode="w+", dtype=np.uint8, shape=(len(table), *VIEWS_SHAPE))
        fresh.rename(array)  # whole, or not there
    first = np.load(array, mmap_mode="r").offset
    rows = table.reset_index(drop=True).groupby("series_uid").indices
    bar = tqdm(parts.items(), "joining", unit="scan", leave=False, disable=not progress)
    with bar, array.open("r+b") as out:
        for uid, file in bar:
            views, about = read_part(file)
            if about.get("joined"):
                continue
            # By plain writes: a full disk is then an error, and no end of the process.
            for row, images in zip(rows.get(uid, ()), views, strict=True):
                out.seek(first + int(row) * _ROW_BYTES)
                out.write(images.data)
            out.flush()
            os.fsync(out.fileno())  # before the part gives them up
            write_part(file, views[:0], {**about, "joined": True})
    nodule_table(table).to_csv(made / "nodules.csv", index=False)
    candidates = table[list(_AS_LUNA_WRITES)].rename(columns=_AS_LUNA_WRITES)
    for name, other in {"candidates.csv": candidates, **beside}.items():
        other = other.rename(columns=luna16.IN_FILES)
        other.to_csv(made / name, index=False, header=name != "seriesuids.csv")
    about = {
        "format": 2, "name": folder.resolve().name, "source": meta["source"],
        "simulated": meta["simulated"], "task": "luna16", "views": "uint8",
        "settings": meta["settings"], "n": len(table), "report": meta["report"],
    }  # fmt: skip
    write_meta(made, about, ("nodules.csv", "views.npy", "candidates.csv", *beside), progress)
    check_target(folder)
    clear_after_kill(folder)
    replace_folder(made, folder)
    shutil.rmtree(_unfinished(folder))


def _unfinished(cohort: Path) -> Path:
    target = cohort.resolve()
    return target.with_name(f".{target.name}.unfinished")


def _joined(parts: Mapping[str, Path]) -> Path:
    """Name the folder that becomes the cohort of these very parts."""
    names = [file.name for file in parts.values()]
    return next(iter(parts.values())).parent / f"cohort-{_digest(names)}"


def _is_finished(file: Path, parts: Mapping[str, Path]) -> bool:
    try:
        _, about = read_part(file, views=False)
    except InputError:
        return False
    return not about.get("joined") or (_joined(parts) / "views.npy").is_file()


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


# --- LUNA-16's volumes on disk: one .mhd header and one .raw file a scan, named by its series -----
#
# Headers are read first, all of them: they tell in a second which scans are there and which are
# damaged, before hours are spent on their voxels.

_NO_AIR_HU = -300  # a chest holds air: where no voxel is below this, the numbers are not HU
_NO_SUBSET = -1
_UID = re.compile(r"\d+(\.\d+){3,}")


class Scan(NamedTuple):
    """A volume on disk, of which the header is sound."""

    path: Path  # the .mhd file, named by the series
    subset: int  # number in the name of a folder above it (subset0 .. subset9), -1 without one
    data: Path  # the .raw file

    @property
    def changed(self) -> list[int]:
        """When header and data were last changed, and how long the data are."""
        data = self.data.stat()
        return [self.path.stat().st_mtime_ns, data.st_mtime_ns, data.st_size]


def find(folder: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """Find the .mhd files anywhere below a folder, by the series that they are named by.

    Links to folders are followed, but for those to a folder that they lie in. The challenge's lung
    masks (in folders named seg-lungs...) and files not named by a UID are passed over.

    Returns:
        SeriesInstanceUID -> files; more than one where a scan is there twice: in two files, or in
        one that links put into two subsets.

    Raises:
        InputError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name the one with LUNA-16's subset0 ...")
    # A series and the file that it is in -> its subsets -> the first path that says so.
    ways: dict[tuple[str, Path], dict[int, Path]] = {}
    for path in sorted(_mhd_files(folder)):
        ways.setdefault((path.stem, path.resolve()), {}).setdefault(_subset(path), path)
    found: dict[str, list[Path]] = {}
    for (uid, _), paths in sorted(ways.items()):
        if len(paths) > 1:
            paths.pop(_NO_SUBSET, None)  # the same file, by a path that says less
        found[uid] = sorted([*found.get(uid, []), *paths.values()])
    return found


def _mhd_files(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    here = folder.resolve()
    masks = above and any(p.name.startswith("seg-lungs") for p in (folder, here))
    if masks or any(here == path or here in path.parents for path in above):
        return  # the latter would go round and round
    with suppress(PermissionError):
        for path in folder.iterdir():
            if path.is_dir():
                yield from _mhd_files(path, (*above, here))
            elif path.suffix == ".mhd" and _UID.fullmatch(path.stem) and path.is_file():
                yield path


def _subset(path: Path) -> int:
    """Return the number of the nearest folder above that is called subset0 to subset9."""
    above = (re.fullmatch(r"subset(\d)", part) for part in reversed(path.parts[:-1]))
    return next((int(match[1]) for match in above if match), _NO_SUBSET)


def read_header(path: Path, *others: Path) -> Scan:
    """Read a scan's header, and compare it with the size of its .raw file.

    Raises:
        InputError: what `dicom.read_meta_header` refuses, data that are named by another scan, or
            other files of the same scan.
    """
    if others:
        raise InputError(f"{path}: also in {others[0].parent}; keep one of them")
    data = read_meta_header(path)
    if _UID.fullmatch(data.stem) and data.stem != path.stem:
        raise InputError(f"{path}: its data file {data.name} is another scan's; fetch it again")
    return Scan(path, _subset(path), data)


def read(scan: Scan) -> Volume:
    """Read a scan's voxels, HU.

    Raises:
        InputError: what `dicom.read_image` refuses; no voxel of air, so that what is stored is no
            HU; a slice of zeros.
    """
    volume = read_image(scan.path)
    lowest = volume.voxels.min()
    if lowest > _NO_AIR_HU:
        raise InputError(f"{scan.path}: no voxel is below {lowest:g}, and air is -1000 HU; write "
                         "the voxels as HU (1024 less, often)")  # fmt: skip
    if not (there := volume.voxels.any(axis=(1, 2))).all():
        raise InputError(f"{scan.path}: slice {there.argmin()} holds nothing but zeros, as of a "
                         "transfer that stopped; fetch it again")  # fmt: skip
    return replace(volume, series_uid=scan.path.stem)
