"""Simulated scans as DICOM: valid CT series, which never pose as the real ones.

A series written here has UIDs, a patient id and a patient's name of its own, says Synthetic Data
(0008,001C) YES, and names the LIDC-IDRI series whose outlines it holds in its Related Series
Sequence (0008,1250). `originals` reads that back; it is how `build_lidc` finds the nodules.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from tqdm.auto import tqdm

from labkit.data import lidc
from labkit.data._whole_folder import whole_folder
from labkit.data.simulate._ct_header import INTERCEPT_HU, SYNTHETIC_DATA, own_uid, slice_header
from labkit.data.simulate.build import SCENE_VERSION
from labkit.data.simulate.scan import PIXELS
from labkit.data.simulate.scene import Scene
from labkit.data.simulate.whole import truth as true_masks
from labkit.data.simulate.whole import whole_scan
from labkit.errors import InputError
from labkit.files import read_json, write_json
from labkit.imaging.readers import find_series, read_series
from labkit.imaging.volume import Volume

_MANIFEST = "scan.json"
_WHAT = "simulated CT"
_MASKS = ("lung.mha", "nodules.mha")
_PYDICOM_2 = pydicom.__version__.startswith("2.")


def write_scan(
    scene: Scene,
    out: str | os.PathLike[str],
    *,
    truth: bool = False,
    jobs: int | None = None,
    progress: bool = True,
) -> Path:
    """Simulate the whole scan of a scene and write it as a DICOM CT series.

    The folder appears whole or not at all; a simulated scan that stands there is replaced. The
    same scene gives the same bytes. The four scans of LIDC-IDRI with uneven slices (0123, 0267,
    0514, 0672) are written on an even grid from the real first to about the real last position.

    Args:
        scene: of `scene_for_series`.
        out: the folder. It gets `001.dcm` (the slice nearest the head) and so on, 512 x 512
            pixels each, and `scan.json`: how it was made, and which nodules are in it.
        truth: also write `lung.mha` (1 within the lungs' surface) and `nodules.mha` (the numbers
            of `scan.json`'s nodules), compressed, on the scan's own grid.
        jobs: threads; see `whole_scan`.
        progress: show bars.

    Returns:
        The folder.

    Raises:
        InputError: a folder in use for something else, a full disk, or less than one job.
    """
    folder = Path(out)
    scan = scene.scan
    room = scan.slices * (2 * PIXELS**2 + 4096) + 1_000_000
    with whole_folder(folder, _check_target, room) as partial:
        volume = whole_scan(scene, progress=progress, jobs=jobs)
        heights = [float(z) for z in scan.z_mm(0, scan.slices)]
        names = []
        # From the head down, as the real series are numbered.
        downwards = list(enumerate(zip(heights[::-1], volume.voxels[::-1], strict=True), 1))
        for number, (z, hu) in tqdm(
            downwards, "writing", unit="slice", leave=False, disable=not progress
        ):
            names.append(f"{number:03d}.dcm")
            _save(slice_header(scene, number, z), hu, partial / names[-1])
        if truth:
            masks = true_masks(scene)
            for name, mask in zip(_MASKS, (masks.lung, masks.nodules), strict=True):
                _save_mask(mask, volume, partial / name)
        write_json(partial / _MANIFEST, _manifest(scene, names, truth))
    return folder


def read_scan(folder: str | os.PathLike[str]) -> Volume:
    """Read a simulated series in HU, as `whole_scan` gives it.

    Args:
        folder: as `write_scan` wrote it, or any with one simulated series in or below it.

    Returns:
        The volume. Its `series_uid` is the LIDC-IDRI series', so that `lidc.center_xyz_mm` finds
        that series' nodules in it. (`readers.read_dicom` gives the simulated series' own.)

    Raises:
        InputError: no simulated series there, or several; or what `readers.read_dicom` refuses.
    """
    series = find_series(folder)
    found = originals(series)
    if len(found) != 1:
        raise InputError(
            f"{Path(folder)}: {len(found)} simulated series in it; name a folder with one, made by "
            "`labkit simulate scan`"
        )
    ((own, original),) = found.items()
    return replace(read_series(series[own]), series_uid=original)


def originals(series: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """Which of some DICOM series are simulated, and the LIDC-IDRI series whose outlines they hold.

    Args:
        series: SeriesInstanceUID -> files, as `readers.find_series` gives it. One header of each
            series is read that is not LIDC-IDRI's own.

    Returns:
        The simulated series' SeriesInstanceUID -> the LIDC-IDRI series'.
    """
    known = set(lidc.scans()["series_uid"])
    found = {}
    for own, files in series.items():
        original = _original(files[0]) if own and own not in known else None
        if original in known:
            found[own] = str(original)
    return found


def _original(file: Path) -> str | None:
    """The related series of a file that says it is synthetic; None of any other."""
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True)
        if header.get(SYNTHETIC_DATA) is None or header[SYNTHETIC_DATA].value != "YES":
            return None
        return str(header.RelatedSeriesSequence[0].SeriesInstanceUID)
    except (InvalidDicomError, AttributeError, IndexError, ValueError, OSError, EOFError):
        return None  # damaged, or synthetic and unrelated: whoever reads it will say so


def _save(header: Dataset, hu: NDArray[np.int16], path: Path) -> None:
    stored = hu.astype("<i2") - np.int16(INTERCEPT_HU)
    header.PixelData = stored.astype("<i2").tobytes()
    header["PixelData"].VR = "OW"
    if _PYDICOM_2:
        header.is_little_endian, header.is_implicit_VR = True, False
        header.save_as(path, write_like_original=False)
    else:
        header.save_as(path, enforce_file_format=True)


def _save_mask(mask: NDArray, volume: Volume, path: Path) -> None:
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(volume.spacing_xyz_mm)
    image.SetOrigin(volume.origin_xyz_mm)
    sitk.WriteImage(image, str(path), useCompression=True)


def _manifest(scene: Scene, names: list[str], truth: bool) -> dict:
    scan = scene.scan
    return {
        "what": _WHAT,
        "simulated": True,
        "scene_version": SCENE_VERSION,
        "seed": scene.seed,
        "patient_id": scan.patient_id,
        "outlines_of_series_uid": scan.series_uid,
        "series_uid": own_uid(scene, "series"),
        "nodules": [
            {"number": number, "nodule_id": finding.nodule_id}
            for number, finding in enumerate(scan.findings, start=1)
        ],
        "files": [*names, *(_MASKS if truth else ())],
    }


def _check_target(folder: Path) -> None:
    """Refuse a place where a scan would destroy something that is not a simulated scan."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a new folder for the scan")
    present = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    if not present:
        return
    others = present
    if _MANIFEST in present:
        about = read_json(folder / _MANIFEST, "a simulated scan")
        if isinstance(about, dict) and about.get("what") == _WHAT:
            ours = re.compile(r"\d{3,}\.dcm")
            others = [
                name for name in present
                if name not in (_MANIFEST, *_MASKS) and not ours.fullmatch(name)
            ]  # fmt: skip
    if others:
        raise InputError(
            f"{folder}: holds {others[0]}, which is no part of a simulated scan; name a new folder"
        )
