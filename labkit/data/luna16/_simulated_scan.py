"""One simulated scan of LUNA-16, from the scene to its candidates' views; kept as a part."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from labkit.data._cohort_files import VIEW_SIZE
from labkit.data.luna16 import tables
from labkit.data.luna16.extract import views_u8
from labkit.data.luna16.whereabouts import lies_on
from labkit.data.simulate.build import SCENE_VERSION
from labkit.data.simulate.scene import scene_for_series
from labkit.data.simulate.whole import whole_scan
from labkit.errors import InputError
from labkit.files import write_atomically
from labkit.imaging import blobs
from labkit.imaging.lungs import segment

# Raised whenever the same settings give other candidates or views than before.
DETECTOR_VERSION = 1
_FRAMES = ("candidates", "annotations", "excluded")
_NO_VIEWS: NDArray[np.uint8] = np.zeros((0, 9, VIEW_SIZE, VIEW_SIZE), np.uint8)
_COLUMNS = (*tables.POSITION, "score", "radius_mm", "lies_on")


@dataclass(frozen=True)
class ScanPart:
    """What is kept of a simulated scan.

    Args:
        candidates: one row each, strongest first: `seriesuid`, `x_mm`, `y_mm`, `z_mm`, `score`
            (see `blobs.Blobs`), `radius_mm` and `lies_on` (of `whereabouts.KINDS`).
        views: (n, 9, 76, 76) uint8; no rows when they were not asked for.
        annotations: the scan's nodules, in its world.
        excluded: its findings left out.
        problem: why the scan has no candidates, when no lungs were found in it; else "".
        seconds: processor seconds of each step.
    """

    candidates: pd.DataFrame
    views: NDArray[np.uint8]
    annotations: pd.DataFrame
    excluded: pd.DataFrame
    problem: str
    seconds: Mapping[str, float]


def settings_of(seed: int, detector: blobs.Settings, cut_out: bool) -> dict[str, Any]:
    """All that decides what a scan's part holds, as plain values."""
    values = {
        "scene_version": SCENE_VERSION,
        "detector_version": DETECTOR_VERSION,
        "seed": int(seed),
        "detector": asdict(detector),
        "views": cut_out,
    }
    plain: dict[str, Any] = json.loads(json.dumps(values))  # lists and no tuples, as it is read
    return plain


def simulate(
    series_uid: str, seed: int, detector: blobs.Settings, findings: tables.Findings,
    cut_out: bool = True,
) -> ScanPart:  # fmt: skip
    """Simulate a whole scan, find its lungs and the candidates in them, and cut these out.

    The scan, some hundred megabytes, is gone when this returns.

    Args:
        series_uid: of LIDC-IDRI.
        seed: of the scene.
        detector: what counts as a candidate.
        findings: those of the series.
        cut_out: whether the views are wanted.
    """
    seconds, since = {}, process_time()

    def took(step: str) -> None:
        nonlocal since
        seconds[step] = process_time() - since
        since = process_time()

    # One thread of BLAS a process, so that the bytes do not depend on their number.
    with threadpool_limits(limits=1):
        scene = scene_for_series(series_uid, seed)
        volume = whole_scan(scene, jobs=1)
        took("scan")
        annotations = tables.in_world(findings.annotations, volume)
        excluded = tables.in_world(findings.excluded, volume)
        views: NDArray[np.uint8] = _NO_VIEWS
        try:
            lungs = segment(volume, one_lung=True)
        except InputError as error:
            return ScanPart(_empty(), views, annotations, excluded, str(error), seconds)
        took("lungs")
        found = blobs.detect(volume, lungs, detector)
        took("candidates")
        if cut_out:
            views = views_u8(volume, found.centers_xyz_mm)
        took("views")
        places = lies_on(scene, found.centers_xyz_mm)
        took("what they lie on")
    positions = dict(zip(tables.POSITION, found.centers_xyz_mm.T, strict=True))
    candidates = pd.DataFrame(
        {
            tables.SERIES: series_uid,
            **positions,
            "score": found.score,
            "radius_mm": found.radius_mm,
            "lies_on": places,
        }
    )
    return ScanPart(candidates, views, annotations, excluded, "", seconds)


def keep(path: Path, part: ScanPart, settings: Mapping[str, Any]) -> None:
    """Write a part, whole or not at all."""
    about = {"settings": dict(settings), "problem": part.problem, "seconds": dict(part.seconds)}
    frames = {name: getattr(part, name) for name in _FRAMES}
    arrays = {
        f"{name}.{column}": (
            values.to_numpy(str) if values.dtype.kind not in "fi" else values.to_numpy()
        )
        for name, frame in frames.items()
        for column, values in frame.items()
    }
    views = part.views
    write_atomically(path, lambda p: _save(p, about=json.dumps(about), views=views, **arrays))


def kept(path: Path, settings: Mapping[str, Any], views: bool = True) -> ScanPart:
    """Read a part back.

    Args:
        path: its file.
        settings: what it has to be made with.
        views: False leaves them on disk.

    Raises:
        InputError: missing, damaged, or made with other settings.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if views or name != "views"}
        about = json.loads(str(arrays.pop("about")))
        images = arrays.pop("views") if views else _NO_VIEWS
        frames: dict[str, dict[str, NDArray]] = {
            "candidates": {},
            "annotations": {},
            "excluded": {},
        }
        for name, values in arrays.items():
            frame, _, column = name.partition(".")
            frames[frame][column] = values.astype(object) if values.dtype.kind == "U" else values
    except FileNotFoundError:
        raise InputError(f"{path}: missing; make it again") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: damaged ({error}); make it again") from None
    if about["settings"] != dict(settings):
        raise InputError(f"{path}: made with other settings; make it again")
    candidates, annotations, excluded = (pd.DataFrame(columns) for columns in frames.values())
    return ScanPart(candidates, images, annotations, excluded, about["problem"], about["seconds"])


def _save(path: Path, **arrays: Any) -> None:
    with path.open("wb") as file:  # a name without .npz would get one
        np.savez(file, **arrays)


def _empty() -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=float) for name in (tables.SERIES, *_COLUMNS)})
