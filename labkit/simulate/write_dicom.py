"""Simulated scans as DICOM: valid CT series, which never pose as the real ones.

A series written here has UIDs, a patient id and a patient's name of its own, says Synthetic Data
(0008,001C) YES, and names the LIDC-IDRI series whose outlines it holds in its Related Series
Sequence (0008,1250). `originals` reads that back; it is how `build_lidc` finds the nodules.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import DS
from tqdm.auto import tqdm

from labkit.annotations import lidc
from labkit.io import require_own_folder, whole_folder, write_json
from labkit.simulate.scan import PIXELS
from labkit.simulate.scanner import truth as true_masks
from labkit.simulate.scanner import whole_scan
from labkit.simulate.scene import SCENE_VERSION, Scene

# Added to the standard in 2023; by number, since older dictionaries do not know its keyword.
SYNTHETIC_DATA = pydicom.tag.Tag(0x0008, 0x001C)
INTERCEPT_HU = -1024
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "labkit simulated CT")


def own_uid(scene: Scene, what: str) -> UID:
    """Make a UID that belongs to this simulation alone, below the root for UUIDs (ITU-T X.667).

    >>> from labkit.simulate.scene import scene_for_series
    >>> from labkit.simulate.scan import series_named
    >>> scenes = [scene_for_series(series_named("LIDC-IDRI-0001"), seed) for seed in (0, 1)]
    >>> len({own_uid(scene, what) for scene in scenes for what in ("series", "image 1")})
    4
    """
    name = "\x1f".join((str(SCENE_VERSION), str(scene.seed), scene.scan.series_uid, what))
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, name).int}")


def slice_header(scene: Scene, number: int, z_mm: float) -> Dataset:
    """Make the data set of slice `number` (from 1) without pixels: PS3.3, CT Image IOD (A.3).

    Nothing in it changes from one writing to the next: equal UIDs have to mean equal files.
    """
    scan = scene.scan
    image_uid = own_uid(scene, f"image {number}")
    corner = float(scan.x_mm(0, 1)[0])
    # General Series (C.7.3.1): a series "significantly related to this". It is how a reader
    # finds the outlines, while the series itself never bears the real one's UID.
    scans = lidc.scans().set_index("series_uid")
    purpose = _dataset({"CodeValue": "122401", "CodingSchemeDesignator": "DCM",
                        "CodeMeaning": "Same Anatomy"})  # fmt: skip
    original = _dataset({
        "StudyInstanceUID": str(scans.loc[scan.series_uid, "study_uid"]),
        "SeriesInstanceUID": scan.series_uid, "PurposeOfReferenceCodeSequence": [purpose],
    })  # fmt: skip
    ds = _dataset({
        # Patient, study, series, equipment: nobody. Another patient than the real one, or an
        # archive would file both together.
        "PatientName": f"Simulated^{scan.patient_id}", "PatientID": f"{scan.patient_id}-SIMULATED",
        "PatientBirthDate": "", "PatientSex": "", "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "Simulated: there is no patient",
        "StudyInstanceUID": own_uid(scene, "study"), "StudyID": "1",
        "StudyDescription": "Simulated chest CT, not of a patient",
        "StudyDate": "", "StudyTime": "", "AccessionNumber": "", "ReferringPhysicianName": "",
        "Modality": "CT", "SeriesInstanceUID": own_uid(scene, "series"), "SeriesNumber": 1,
        "SeriesDescription": f"Simulated CT around the outlines of {scan.patient_id}",
        "BodyPartExamined": "CHEST", "PatientPosition": "HFS", "Manufacturer": "labkit",
        "ManufacturerModelName": "simulated scanner",
        "SoftwareVersions": f"scene version {SCENE_VERSION}", "RelatedSeriesSequence": [original],
        # Frame of Reference (C.7.4.1) and Image Plane (C.7.6.2)
        "FrameOfReferenceUID": own_uid(scene, "frame of reference"),
        "PositionReferenceIndicator": "",
        "PixelSpacing": [DS(scan.pixel_spacing_mm, auto_format=True)] * 2,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [DS(v, auto_format=True) for v in (corner, corner, z_mm)],
        "SliceLocation": DS(z_mm, auto_format=True),
        "SliceThickness": DS(scan.slice_thickness_mm, auto_format=True),
        # SOP Common (C.12.1)
        "SpecificCharacterSet": "ISO_IR 100", "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": image_uid,
        # General Image (C.7.6.1) and CT Image (C.8.2.1). The pixels are no direct result of an
        # examination: SECONDARY. Nothing was acquired either, and software that picks acquisitions
        # by their ORIGINAL must not find this: DERIVED, although from outlines and not from pixels.
        "ImageType": ["DERIVED", "SECONDARY", "AXIAL"],
        "DerivationDescription": (
            "Computed from a model of the chest around outlines that readers drew; no pixel of any "
            "patient's image went into it"
        ),
        "ImageComments": (
            f"SIMULATED by labkit (scene version {SCENE_VERSION}, seed {scene.seed}) around the "
            f"outlines that the readers of {scan.patient_id} drew: every grey value is invented "
            "and says nothing about a patient"
        ),
        "InstanceNumber": number, "AcquisitionNumber": 1, "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00", "ConvolutionKernel": "SIMULATED",
        "KVP": "120",  # for which the model's HU of bone and calcium are made
        "ReconstructionDiameter": DS(scan.field_of_view_mm, auto_format=True),
        "RescaleSlope": 1, "RescaleIntercept": INTERCEPT_HU, "RescaleType": "HU",
        "WindowCenter": -600, "WindowWidth": 1600,
        # Image Pixel (C.7.6.3): signed, as most of LIDC-IDRI's series are.
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "Rows": PIXELS,
        "Columns": PIXELS, "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
        "PixelRepresentation": 1,
    })  # fmt: skip
    ds.add_new(SYNTHETIC_DATA, "CS", "YES")
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = image_uid
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = UID(f"2.25.{_NAMESPACE.int}")
    ds.file_meta.ImplementationVersionName = "LABKIT"
    return ds


def _dataset(values: Mapping[str, Any]) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


_MANIFEST = "scan.json"
_WHAT = "simulated CT"
_MASKS = ("lung.mha", "nodules.mha")
_PYDICOM_2 = pydicom.__version__.startswith("2.")


def write_scan(
    scene: Scene, out: str | os.PathLike[str], *, truth: bool = False, jobs: int | None = None,
    progress: bool = True,
) -> Path:  # fmt: skip
    """Simulate the whole scan of a scene and write it as a DICOM CT series.

    The folder appears whole or not at all; a simulated scan that stands there is replaced. The
    same scene gives the same bytes. The four scans of LIDC-IDRI with uneven slices (0123, 0267,
    0514, 0672) are written on an even grid from the real first to about the real last position.

    Args:
        scene: of `scene_for_series`.
        out: the folder, which is returned. It gets `001.dcm` (the slice nearest the head) and so
            on, 512 x 512 pixels each, and `scan.json`: how it was made, and its nodules.
        truth: also write `lung.mha` (1 within the lungs' surface) and `nodules.mha` (the numbers
            of `scan.json`'s nodules), compressed, on the scan's own grid.
        jobs: threads; see `whole_scan`.
        progress: show bars.

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
                image = sitk.GetImageFromArray(mask.astype(np.uint8))
                image.SetSpacing(volume.spacing_xyz_mm)
                image.SetOrigin(volume.origin_xyz_mm)
                sitk.WriteImage(image, str(partial / name), useCompression=True)
        about = {
            "what": _WHAT, "simulated": True, "scene_version": SCENE_VERSION, "seed": scene.seed,
            "patient_id": scan.patient_id, "outlines_of_series_uid": scan.series_uid,
            "series_uid": own_uid(scene, "series"),
            "nodules": [
                {"number": number, "nodule_id": finding.nodule_id}
                for number, finding in enumerate(scan.findings, start=1)
            ],
            "files": [*names, *(_MASKS if truth else ())],
        }  # fmt: skip
        write_json(partial / _MANIFEST, about)
    return folder


def originals(series: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """Find the simulated among DICOM series (UID -> files, as `dicom.find_series` gives them).

    One header of each series is read that is not LIDC-IDRI's own.

    Returns:
        The simulated series' SeriesInstanceUID -> that of the LIDC-IDRI series whose outlines they
        hold.
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


def _check_target(folder: Path) -> None:
    """Refuse a place where a scan would destroy something that is not a simulated scan."""

    def belongs(name: str, about: Any) -> bool:
        ours = isinstance(about, dict) and about.get("what") == _WHAT
        return ours and (name in _MASKS or re.fullmatch(r"\d{3,}\.dcm", name) is not None)

    require_own_folder(folder, _MANIFEST, "a simulated scan", belongs)
