"""Break what labkit reads, and see whether it notices: counts by kind, as JSON.

    python -m benchmarks.fuzz [--slices 5000] [--volumes 2000] [--tables 2000] [--folders 500]
                              --out results/reliability.json

Real DICOM slices (`LABKIT_REAL_DATA`; simulated ones where there are none), a volume in every
format, every kind of table, a cohort, a model and a run are changed in one place by seeded draws.
What is read afterwards has to be the unchanged truth, or what the change itself means to a plain
program that is not labkit's (`right`); or one line says what is wrong (`refused`). All else is
`wrong`: another value without a word, a traceback, a crash, 20 s of computing, 2 GB beyond what the
libraries hold (a limit that the system keeps). The work is done in processes of its own, so that
the crash of a library is counted and does not end it.
"""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psutil
import pydicom
import SimpleITK as sitk
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from benchmarks.common import command, peak_gb
from benchmarks.speed.extraction import write_image
from labkit import paths, profiles
from labkit.annotations import luna16
from labkit.cohorts.cohort import Cohort, write_cohort
from labkit.errors import InputError
from labkit.evaluation import crossval
from labkit.evaluation.predictions import read_predictions
from labkit.imaging import dicom
from labkit.io import read_list
from labkit.simulate.scan import scan_of, series_named
from labkit.simulate.scene import scene_of
from labkit.simulate.write_dicom import write_scan
from labkit.training.machines import one_thread
from labkit.training.nine_views import fit, load

SECONDS, GB, SECRET = 20, 2, "Sekret^Patient"
_SLICES, _PART = 6, slice(128, 384)
_TAGS = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope",
    "RescaleIntercept", "Rows", "Columns", "BitsAllocated", "PixelRepresentation", "PixelData",
    "Modality", "SeriesInstanceUID", "SOPInstanceUID", "PatientID", "InstanceNumber",
    "SliceThickness", "PhotometricInterpretation", "SamplesPerPixel", "BitsStored", "HighBit",
)  # fmt: skip
_PERSONAL = (
    "PatientName", "ReferringPhysicianName", "OperatorsName", "InstitutionName", "PatientComments",
    "PatientAddress", "StudyDescription", "AccessionNumber", "StationName",
)  # fmt: skip
_GARBAGE = ("", "nan", "inf", "1e9", "-1", "0", "abc", "7", "1,5", "1" * 60)
_IDS = ("NA", "01", "1.10", "1e5", "nan", "1.36E+30", "", "None", "true")
_HEADER = re.compile(rb"(?s).*?(ElementDataFile = [^\n]*\n|\n\n)")
_GEOMETRY = re.compile(
    rb"(?m)^(ElementSpacing|Offset|TransformMatrix|space origin|space directions)[^\n]*$"
)
Rng, Found = np.random.Generator, dict[str, Any]
_JOB: list[Any] = []  # of a process that judges: the kind, its folder, and what is read there


class Kind(NamedTuple):
    """What is named is made in a folder, read by labkit as plain values, and broken by `change`,
    which returns what else than the truth may be read from it afterwards."""

    make: Callable[[str, Path], object]
    read: Callable[[str, Path], Found]
    change: Callable[[Rng, str, Path], list[Found]]


def pick(rng: Rng, values: Any) -> Any:
    """Draw one of several values."""
    return values[int(rng.integers(len(values)))]


def damage(rng: Rng, file: Path) -> None:
    """Change bytes of a file: one, a run of them, or its length."""
    data = file.read_bytes()
    at, n = int(rng.integers(max(len(data), 1))), int(rng.integers(1, 200))
    how = pick(rng, ("bit", "byte", "zeros", "noise", "cut", "longer", "empty"))
    new = {"bit": bytes(b ^ 1 << int(rng.integers(8)) for b in data[at : at + 1]),
           "byte": rng.bytes(1), "zeros": bytes(n), "noise": rng.bytes(n)}  # fmt: skip
    part = new.get(how, b"")[: len(data) - at]
    whole = {"cut": data[:at], "longer": data + rng.bytes(n), "empty": b""}
    file.write_bytes(whole.get(how, data[:at] + part + data[at + len(part) :]))


def same(a: Any, b: Any) -> bool:
    """Tell whether two results say the same, reals to a few millionths."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype.kind not in "iuf" or b.dtype.kind not in "iuf":
        return bool(np.array_equal(a, b))
    return bool(np.allclose(a, b, rtol=1e-5, atol=1e-4, equal_nan=True))


# DICOM, and volumes in one file


def volume(voxels: Any, spacing: Any, origin: Any, direction: Any) -> Found:
    """Return a volume as plain values; below -1200 HU there is padding, which counts as air."""
    axes, voxels = np.reshape(direction, (3, 3)), np.where(voxels < -1200, -1000, voxels)
    return {"voxels": voxels, "spacing": spacing, "origin": origin, "direction": axes}


def read_volume(name: str, folder: Path) -> Found:
    """Read a series, or the file of that name."""
    v = dicom.read_series(folder) if name == "dicom" else dicom.read_image(folder / f"scan{name}")
    return volume(v.voxels, v.spacing_xyz_mm, v.origin_xyz_mm, v.direction)


def make_dicom(name: str, folder: Path) -> None:
    """Write the middle slices of a scan, cut to the middle of their pixels."""
    real = paths.real_data()
    files = [*(real / "dicom").rglob("*.dcm")] if real else []
    with tempfile.TemporaryDirectory() as kept:
        if not files:
            scan = scan_of(series_named("LIDC-IDRI-0001"))
            scan = replace(scan, first_z_mm=float(scan.z_mm(60, 61)[0]), slices=2 * _SLICES)
            files = write_scan(scene_of(scan, 0), Path(kept) / "scan", progress=False).glob("*.dcm")
        slices = [pydicom.dcmread(file) for file in files]
    slices.sort(key=lambda d: float(d.ImagePositionPatient[2]))
    for number, d in enumerate(slices[len(slices) // 2 :][:_SLICES]):
        pixels = d.pixel_array[_PART, _PART]
        d.PixelData, (d.Rows, d.Columns) = pixels.tobytes(), pixels.shape
        d.save_as(folder / f"{number}.dcm")


def plain_dicom(folder: Path) -> list[Found]:
    """Read slices by pydicom alone; nothing where they are no even stack of CT in HU."""
    try:
        slices = {}
        for d in map(pydicom.dcmread, folder.glob("*.dcm")):
            axes = np.array(d.ImageOrientationPatient, float).reshape(2, 3)
            at, normal = np.array(d.ImagePositionPatient, float), np.cross(*axes)
            alike = (d.Modality, d.SeriesInstanceUID, *np.round([*d.PixelSpacing, *axes.flat], 4))
            hu = d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept)
            slices[round(at @ normal, 2), d.SOPInstanceUID] = hu, at, alike
        keys = sorted(slices)
        images, places, kinds = zip(*(slices[key] for key in keys), strict=True)
        along, voxels, alike = np.array([z for z, _ in keys]), np.stack(images), kinds[0]
        step, axes = np.diff(along).mean(), np.reshape(alike[4:], (2, 3))
        normal = np.cross(*axes)
        aside = np.array(places) - places[0] - np.outer(along - along[0], normal)
        off = max(np.abs(aside).max(), np.abs(np.diff(along) - step).max())
        even = off <= 0.11 and step >= 0.01 and alike[0] == "CT" and len(set(kinds)) == 1
        spacing, place = (alike[3], alike[2], step), (places[0], np.column_stack([*axes, normal]))
        return [volume(voxels, spacing, *place)] if even and np.abs(voxels).max() <= 34e3 else []
    except Exception:  # whatever pydicom says: it is no stack of slices
        return []


def change_dicom(rng: Rng, name: str, folder: Path) -> list[Found]:
    """Break a series: bytes, tags, slices, encodings, names, what lies beside."""
    files = sorted(folder.glob("*.dcm"))
    file, kind, tag, value = (pick(rng, v) for v in (files, range(3), _TAGS, _GARBAGE))
    how = pick(rng, ("bytes", "bytes", "lost tag", "tag", "tag", "lost", "double", "names",
                     "beside", "encoded", "personal", "unsigned"))  # fmt: skip
    if how == "bytes":
        damage(rng, file)
    elif how == "lost":
        file.unlink()
    elif how == "names":
        for f, number in zip(files, rng.permutation(len(files)), strict=True):
            f.rename(folder / f"IM{number}.dcm")
    elif how == "beside":
        other = pick(rng, ("notes.txt", "DICOMDIR", "report.pdf", ".DS_Store", "IM0007", "x.json"))
        (folder / other).write_bytes(rng.bytes(int(rng.integers(999))))
    else:
        for f in files if how in ("encoded", "personal", "unsigned") else [file]:
            d = pydicom.dcmread(f)
            to = folder / "double.dcm" if how == "double" else f
            try:
                change_slice(rng, d, how, kind, tag, value)
                d.save_as(to)
            except Exception:  # what pydicom does not write is cut short instead
                to.write_bytes(f.read_bytes()[: 2000 + int(rng.integers(999))])
    return plain_dicom(folder)


def change_slice(rng: Rng, d: Any, how: str, kind: int, tag: str, value: str) -> None:
    """Change one slice: a tag, its encoding, or what its pixels are in."""
    if how == "lost tag":
        d.pop(tag, None)
    elif how == "tag" and tag in d:
        number = d[tag].VR in ("US", "OW")
        d[tag]._value = int(rng.integers(65536)) if number else [value] * max(1, d[tag].VM)
    elif how == "double" and kind:  # not the same slice again, but other pixels at its place
        d.SOPInstanceUID, d.PixelData = f"{d.SOPInstanceUID}.1", d.PixelData[2:] + b"\0\0"
    elif how == "personal":
        plant_personal(d)
    elif how == "encoded" and kind:
        d.compress(RLELossless, generate_instance_uid=False)
    elif how == "encoded":
        d.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    elif how == "unsigned":  # with an offset, and ones in the bits that hold no value
        hu = d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept)
        raw = np.clip(hu + 1024, 0, 4095).astype("<u2") | (0xA000 if kind else 0)
        d.PixelRepresentation, d.RescaleIntercept, d.RescaleSlope = 0, "-1024", "1"
        d.BitsStored, d.HighBit, d.PixelData = 12, 11, raw.tobytes()
        d.pop("PixelPaddingValue", None)


def plant_personal(d: Any) -> None:
    """Put a secret into everything in a header that tells who somebody is."""
    for name in _PERSONAL:
        setattr(d, name, SECRET)
    d.add_new(0x00091010, "LO", SECRET)


def make_volume(name: str, folder: Path) -> None:
    """Write a part of the same scan as one file."""
    make_dicom(name, folder)
    v = dicom.read_series(folder)
    for file in folder.glob("*.dcm"):
        file.unlink()
    part = np.ascontiguousarray(v.voxels[:, :96, :96])
    write_image(folder / f"scan{name}", replace(v, voxels=part))


def change_volume(rng: Rng, name: str, folder: Path) -> list[Found]:
    """Break bytes of a volume, or one line of its header."""
    scan, file = folder / f"scan{name}", pick(rng, sorted(folder.iterdir()))
    before = scan.read_bytes()
    header = _HEADER.match(before)
    if header and file == scan and rng.random() < 0.5:
        lines = header[0].split(b"\n")
        at, value = int(rng.integers(len(lines))), str(pick(rng, _GARBAGE)).encode()
        key, sign, old = lines[at].partition(b"=" if b"=" in lines[at] else b":")
        places = old.split(b" ")
        places[int(rng.integers(len(places)))] = value
        lines[at : at + 1] = pick(rng, ([], [key + sign + b" ".join(places)], [lines[at]] * 2))
        scan.write_bytes(b"\n".join(lines) + before[header.end() :])
    else:
        damage(rng, file)
    now = _HEADER.match(scan.read_bytes())
    if not header or not now or _GEOMETRY.sub(rb"\1", header[0]) != _GEOMETRY.sub(rb"\1", now[0]):
        return []
    try:  # other voxels, or other numbers of its geometry, mean what SimpleITK reads
        image = sitk.ReadImage(str(scan))
    except RuntimeError:
        return []
    voxels = sitk.GetArrayFromImage(image)
    data = sum(f.stat().st_size for f in folder.iterdir()) - now.end()
    place = image.GetSpacing(), image.GetOrigin(), image.GetDirection()
    return [volume(voxels, *place)] if data == voxels.nbytes else []


# Tables


TABLES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "annotations.csv": (luna16.read_annotations, "diameter_mm"),
    "annotations_excluded.csv": (luna16.read_excluded, "diameter_mm"),
    "candidates.csv": (luna16.read_candidates, "class"),
    "submission.csv": (luna16.read_submission, "probability"),
    "subsets.csv": (luna16.read_subsets, "subset"),
    "seriesuids.csv": (luna16.read_series, ""),
    "patients.txt": (partial(read_list, column="patient_id", what="patient"), ""),
}


def make_table(name: str, folder: Path) -> None:
    """Write a table of its kind, of 40 lines."""
    rng, value = np.random.default_rng(0), TABLES[name][1]
    ids = [f"1.3.6.1.{i + 7}.{i * i + 101}" for i in range(40)]
    if name == "patients.txt":
        ids = [f"LIDC-IDRI-{i + 1:04d}" for i in range(40)]
    table = pd.DataFrame({"seriesuid": ids})
    for axis in ("coordX", "coordY", "coordZ") if value not in ("subset", "") else ():
        table[axis] = rng.uniform(-200, 200, 40).round(3)
    if value:
        whole = {"class": 2, "subset": 10}.get(value)
        table[value] = rng.integers(whole, size=40) if whole else rng.uniform(1, 20, 40).round(3)
    table.to_csv(folder / name, index=False, header=bool(value))


def read_table(name: str, folder: Path) -> Found:
    """Read it by labkit."""
    found = TABLES[name][0](folder / name)
    if isinstance(found, list):
        return {"names": found}
    return {c: found[c].astype(str if c == "seriesuid" else float).tolist() for c in found}


def plain_table(name: str, text: str) -> list[Found]:
    """Read it by Python's own csv; nothing where a line is not as the header says."""
    value = TABLES[name][1]
    rows = [[field.strip() for field in row] for row in csv.reader(io.StringIO(text, newline=None))]
    rows = [row for row in rows if any(row)]
    if not value:
        rows = rows[rows[:1] == [["SeriesInstanceUID"]] :]  # a header, and no scan
        return [{"names": [row[0] for row in rows]}] if all(len(r) == 1 for r in rows) else []
    places = [] if value == "subset" else ["coordX", "coordY", "coordZ"]
    try:
        header, *rows = rows
        at = [header.index(n) for n in ("seriesuid", *places, value)]
        if any(len(row) != len(header) for row in rows):
            return []
        found = [[row[k] if not number else float(row[k]) for row in rows]
                 for number, k in enumerate(at)]  # fmt: skip
    except (ValueError, IndexError):
        return []
    ours = ["x_mm", "y_mm", "z_mm"][: len(places)]
    return [dict(zip(("seriesuid", *ours, value), found, strict=True))]


def change_table(rng: Rng, name: str, folder: Path) -> list[Found]:
    """Break bytes or fields of a table, or write the same in another way."""
    file, value = folder / name, pick(rng, _GARBAGE)
    rows = [line.split(",") for line in file.read_text().splitlines()]
    at, column = (int(rng.integers(n)) for n in (len(rows), len(rows[0])))
    how = pick(rng, ("bytes", "bytes", "field", "field", "id", "twice", "lost", "order", "more",
                     "header", "encoding", "ends", "separator", "quotes", "spaces",
                     "blank"))  # fmt: skip
    if how == "bytes":
        damage(rng, file)
        try:
            return plain_table(name, file.read_bytes().decode())
        except UnicodeDecodeError:
            return []
    encoding, end, join, first = "utf-8", "\n", ",", rows[0]
    match how:
        case "field":
            rows[at][column] = value
        case "id":
            rows[at][0] = pick(rng, _IDS)
        case "twice" | "lost":
            rows[at : at + 1] = [rows[at]] * (2 * (how == "twice"))
        case "order":
            rows = np.array(rows)[:, rng.permutation(len(first))].tolist()
        case "more":
            rows = [[*row, value if n else "more"] for n, row in enumerate(rows)]
        case "header":
            rows[0] = pick(rng, ([f.upper() for f in first], [f"{f}x" for f in first], rows[1],
                                 ["SeriesInstanceUID", *first[1:]]))  # fmt: skip
        case "encoding":
            encoding = pick(rng, ("utf-8-sig", "utf-16", "utf-16-le", "utf-32"))
        case "ends":
            end = pick(rng, ("\r\n", "\r", "\n\n"))
        case "separator":
            join, point = pick(rng, (";", "\t", "|", " ")), "," if value == "0" else "."
            rows = [[row[0], *(f.replace(".", point) for f in row[1:])] for row in rows]
        case "quotes" | "spaces":
            rows = [[f'"{f}"' if how == "quotes" else f" {f}  " for f in row] for row in rows]
        case "blank":
            rows.insert(at, [""] * pick(rng, (1, len(first))))
    file.write_bytes((end.join(map(join.join, rows)) + end).encode(encoding))
    means = ("field", "id", "twice", "lost", "more", *(["header"] if not TABLES[name][1] else ()))
    return plain_table(name, "\n".join(map(",".join, rows))) if how in means else []


# Folders


def make_run(name: str, folder: Path) -> None:
    """Write a cohort of noise, train a model on it, and cross-validate."""
    rng = np.random.default_rng(0)
    with write_cohort(folder / "cohort", 24, source="noise", simulated=True) as add:
        for i in range(24):
            row = {"nodule_id": f"n{i}", "patient_id": f"P{i}", "series_uid": f"1.2.{i}",
                   "malignancy_median": 1.0 + 4 * (i % 2), "label": i % 2,
                   "diameter_mm": 5.0 + i}  # fmt: skip
            cube, views = (rng.integers(-1000, 400, s) for s in ((64, 64, 64), (9, 76, 76)))
            add(row, cube=cube, views=views)
    cohort = Cohort.open(folder / "cohort")
    config = profiles.get("smoke").training(model="st", views=(0,), epochs=1)
    if name == "model":
        model = fit(cohort, cohort.labelled, config, jobs=1, progress=False)
        model.save(folder / name)
    elif name == "run":
        out = folder / name
        crossval.run(cohort, config, out, folds=2, device="cpu", jobs=1, progress=False)


def read_folder(name: str, folder: Path) -> Found:
    """Read and verify a cohort, load a model and let it predict, or read a run's predictions."""
    if name == "model":
        return {"said": load(folder / name, "cpu").predict(Cohort.open(folder / "cohort"))}
    if name == "run":
        return read_predictions(folder / name).to_dict("list")
    cohort = Cohort.open(folder / name)
    cohort.verify()
    return {"table": cohort.nodules.to_csv(), "views": cohort.views, "cubes": cohort.cubes,
            "simulated": cohort.simulated, "task": cohort.task}  # fmt: skip


def change_folder(rng: Rng, name: str, folder: Path) -> list[Found]:
    """Break, lose, empty or exchange a file of a folder."""
    files = [f for f in sorted((folder / name).rglob("*")) if f.is_file()]
    file, other = pick(rng, files), pick(rng, files)
    how = pick(rng, ("bytes", "bytes", "bytes", "lost", "exchanged", "json"))
    if how == "lost":
        file.unlink()
    elif how == "exchanged":
        file.write_bytes(other.read_bytes())
    elif how == "json" and file.suffix == ".json":
        values = json.loads(file.read_text())
        key, new = pick(rng, sorted(values)), pick(rng, (None, [], {}, "x", -1, 1e300, {"a": [1]}))
        values[key] = new
        if rng.random() < 0.5:
            del values[key]
        file.write_text(json.dumps(values))
    else:
        damage(rng, file)
    try:  # a table without a checksum means what it says
        rows = [*csv.DictReader((folder / "run" / "predictions.csv").read_text().splitlines())]
        number = {"repeat": int, "fold": int, "label": int, "probability": float}
        return [{c: [number.get(c, str)(r[c]) for r in rows] for c in rows[0]}]
    except (OSError, ValueError, KeyError, TypeError, IndexError, csv.Error):
        return []


KINDS: dict[str, tuple[Kind, tuple[str, ...]]] = {
    "slices": (Kind(make_dicom, read_volume, change_dicom), ("dicom",)),
    "volumes": (Kind(make_volume, read_volume, change_volume),
                (".mhd", ".mha", ".nrrd", ".nii.gz")),
    "tables": (Kind(make_table, read_table, change_table), tuple(TABLES)),
    "folders": (Kind(make_run, read_folder, change_folder), ("cohort", "model", "run")),
}  # fmt: skip


def judge(
    kind: Kind, name: str, base: Path, truth: Found, seed: Sequence[int]
) -> tuple[str, str, float]:
    """Break a copy, read it, and say "right", "refused" or "wrong", why, and after how long."""
    with tempfile.TemporaryDirectory() as kept:
        folder = shutil.copytree(base, Path(kept) / "x")
        expected = [truth, *kind.change(np.random.default_rng(seed), name, folder)]
        start = time.process_time()
        try:
            found = kind.read(name, folder)
            right = any(same(found, of) for of in expected)
            of, why = ("right", "") if right else ("wrong", "other values")
        except InputError as error:
            why = str(error)
            of = "refused" if why and "\n" not in why and SECRET not in why else "wrong"
        except BaseException as error:  # a user would see a traceback
            of, why = "wrong", f"{type(error).__name__}: {error}"
        seconds = time.process_time() - start
        return (*(("wrong", "slow") if seconds > SECONDS else (of, why.replace(kept, ""))), seconds)


def _begin(*job: Any) -> None:
    """Make a process ready for a job: within memory, and silent."""
    held = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (held + (GB << 30), -1))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    _JOB[:] = job


def _judged(seed: Sequence[int]) -> tuple[str, str, float, float]:
    signal.alarm(10 * SECONDS)  # ends a process that hangs
    return (*judge(*_JOB, seed), peak_gb())


def fuzz(kind: Kind, name: str, count: int, seed: int) -> dict[str, Any]:
    """Judge so many mutations of one kind."""
    context, start = multiprocessing.get_context("fork"), time.time()
    found: list[tuple[str, str, float, float]] = []
    with tempfile.TemporaryDirectory() as folder, one_thread():
        (base := Path(folder) / "base").mkdir()
        kind.make(name, base)
        job = (kind, name, base, kind.read(name, base))
        seeds = [(zlib.crc32(name.encode()), seed, number) for number in range(count)]
        while len(found) < count:
            with ProcessPoolExecutor(1, context, _begin, job) as pool:
                try:
                    for said in pool.map(_judged, seeds[len(found) :]):
                        found.append(said)
                except BrokenProcessPool:
                    found.append(("wrong", "crash", 0, 0))
    results, _, slowest, peaks = zip(*found, strict=True)
    return {
        "tried": count,
        **{of: results.count(of) for of in ("right", "refused", "wrong")},
        "seconds": round(time.time() - start, 1),
        "slowest_cpu_s": round(max(slowest), 2),
        "peak_gb": max(peaks),
        "wrong_ones": [[n, why[:200]] for n, (of, why, *_) in enumerate(found) if of == "wrong"],
    }


def measure(
    *, slices: int = 5000, volumes: int = 2000, tables: int = 2000, folders: int = 500,
    seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Judge so many mutations of each kind of a group."""
    counts = {"slices": slices, "volumes": volumes, "tables": tables, "folders": folders}
    return {
        "seed": seed,
        "limits": {"cpu_s": SECONDS, "gb_beyond_libraries": GB},
        "real_slices": paths.real_data() is not None,
        "kinds": {
            name: fuzz(kind, name, counts[group], seed)
            for group, (kind, names) in KINDS.items()
            for name in names
        },
    }


if __name__ == "__main__":
    sys.exit(command(measure, __doc__, part="mutations"))
