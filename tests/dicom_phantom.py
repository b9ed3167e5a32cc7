"""Synthetic CT series on disk, for tests of what reads them."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

_PYDICOM_2 = pydicom.__version__.startswith("2.")


def save(dataset: Dataset, path: Path) -> Path:
    """Write a dataset as a DICOM file with preamble and header, with pydicom 2 or 3."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if _PYDICOM_2:
        dataset.save_as(path, write_like_original=False)
    else:
        dataset.save_as(path, enforce_file_format=True)
    return path


def ct_slice(
    stored,
    position_xyz_mm,
    *,
    series_uid="1.2.3.4",
    orientation=(1, 0, 0, 0, 1, 0),
    pixel_spacing_mm=(0.8, 0.5),
    slope=1,
    intercept=-1024,
    instance=1,
    patient_id="PATIENT-1",
    modality="CT",
    syntax=ExplicitVRLittleEndian,
) -> FileDataset:
    """One CT slice in memory; `stored` are its values as int16 or uint16, before rescaling."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    if _PYDICOM_2:
        dataset.is_little_endian, dataset.is_implicit_VR = True, syntax.is_implicit_VR
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality = modality
    dataset.PatientID = patient_id
    dataset.StudyInstanceUID = "1.2.3"
    dataset.SeriesInstanceUID = series_uid
    dataset.InstanceNumber = instance
    dataset.ImagePositionPatient = [f"{v:.6g}" for v in position_xyz_mm]
    dataset.ImageOrientationPatient = [f"{v:.8f}" for v in orientation]
    dataset.PixelSpacing = list(pixel_spacing_mm)
    stored = np.asarray(stored)
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = int(stored.dtype == np.int16)
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    dataset.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    return dataset


def write_series(folder: Path, stored, z_mm, **options) -> list[Path]:
    """Write slices (n, rows, columns) at these z, under names that are not in their order."""
    paths = []
    for k, (image, z) in enumerate(zip(stored, z_mm, strict=True)):
        dataset = ct_slice(image, (-20.0, 30.0, z), instance=k + 1, **options)
        paths.append(save(dataset, folder / f"{(k * 7) % 101:03d}-{k}.dcm"))
    return paths
