"""What the headers of a simulated CT series say: DICOM PS3.3, CT Image IOD (A.3).

Nothing in them changes from one writing to the next: equal UIDs have to mean equal files.
"""

from __future__ import annotations

import uuid

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import DS

from labkit.data import lidc
from labkit.data.simulate.build import SCENE_VERSION
from labkit.data.simulate.scan import PIXELS
from labkit.data.simulate.scene import Scene

# Added to the standard in 2023; by number, since older dictionaries do not know its keyword.
SYNTHETIC_DATA = pydicom.tag.Tag(0x0008, 0x001C)
INTERCEPT_HU = -1024
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "labkit simulated CT")


def own_uid(scene: Scene, what: str) -> UID:
    """A UID that belongs to this simulation alone, below the root for UUIDs (ITU-T X.667).

    >>> from labkit.data.simulate.scene import scene_for_series
    >>> from labkit.data.simulate.named import series_named
    >>> scenes = [scene_for_series(series_named("LIDC-IDRI-0001"), seed) for seed in (0, 1)]
    >>> len({own_uid(scene, what) for scene in scenes for what in ("series", "image 1")})
    4
    """
    name = "\x1f".join((str(SCENE_VERSION), str(scene.seed), scene.scan.series_uid, what))
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, name).int}")


def slice_header(scene: Scene, number: int, z_mm: float) -> Dataset:
    """The data set of one slice, without its pixels.

    Args:
        scene: what was scanned.
        number: the slice's, from 1.
        z_mm: its position.
    """
    scan = scene.scan
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = own_uid(scene, f"image {number}")
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = UID(f"2.25.{_NAMESPACE.int}")
    ds.file_meta.ImplementationVersionName = "LABKIT"
    _who(ds, scene)
    _where(ds, scene, z_mm)
    # SOP Common (C.12.1)
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = own_uid(scene, f"image {number}")
    ds.add_new(SYNTHETIC_DATA, "CS", "YES")
    # General Image (C.7.6.1) and CT Image (C.8.2.1). The pixels are no direct result of an
    # examination: SECONDARY. Nothing was acquired either, and software that picks acquisitions
    # by their ORIGINAL must not find this: DERIVED, although from outlines and not from pixels.
    ds.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    ds.DerivationDescription = (
        "Computed from a model of the chest around outlines that readers drew; no pixel of any "
        "patient's image went into it"
    )
    ds.ImageComments = (
        f"SIMULATED by labkit (scene version {SCENE_VERSION}, seed {scene.seed}) around the "
        f"outlines that the readers of {scan.patient_id} drew: every grey value is invented and "
        "says nothing about a patient"
    )
    ds.InstanceNumber = number
    ds.AcquisitionNumber = 1
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    ds.KVP = "120"  # for which the model's HU of bone and calcium are made
    ds.ConvolutionKernel = "SIMULATED"
    ds.ReconstructionDiameter = DS(scan.field_of_view_mm, auto_format=True)
    ds.RescaleSlope = 1
    ds.RescaleIntercept = INTERCEPT_HU
    ds.RescaleType = "HU"
    ds.WindowCenter = -600
    ds.WindowWidth = 1600
    # Image Pixel (C.7.6.3): signed, as most of LIDC-IDRI's series are.
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows = ds.Columns = PIXELS
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = 1
    return ds


def _who(ds: Dataset, scene: Scene) -> None:
    """Patient, study, series, equipment: nobody, and which real series the outlines are of."""
    scan = scene.scan
    # Another patient than the real one, or an archive would file both together.
    ds.PatientName = f"Simulated^{scan.patient_id}"
    ds.PatientID = f"{scan.patient_id}-SIMULATED"
    ds.PatientBirthDate = ds.PatientSex = ""
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = "Simulated: there is no patient"
    ds.StudyInstanceUID = own_uid(scene, "study")
    ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.StudyID = "1"
    ds.StudyDescription = "Simulated chest CT, not of a patient"
    ds.Modality = "CT"
    ds.SeriesInstanceUID = own_uid(scene, "series")
    ds.SeriesNumber = 1
    ds.SeriesDescription = f"Simulated CT around the outlines of {scan.patient_id}"
    ds.BodyPartExamined = "CHEST"
    ds.PatientPosition = "HFS"
    ds.Manufacturer = "labkit"
    ds.ManufacturerModelName = "simulated scanner"
    ds.SoftwareVersions = f"scene version {SCENE_VERSION}"
    # General Series (C.7.3.1): a series "significantly related to this". It is how a reader
    # finds the outlines, while the series itself never bears the real one's UID.
    scans = lidc.scans().set_index("series_uid")
    original = Dataset()
    original.StudyInstanceUID = str(scans.loc[scan.series_uid, "study_uid"])
    original.SeriesInstanceUID = scan.series_uid
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "122401", "DCM"
    purpose.CodeMeaning = "Same Anatomy"
    original.PurposeOfReferenceCodeSequence = [purpose]
    ds.RelatedSeriesSequence = [original]


def _where(ds: Dataset, scene: Scene, z_mm: float) -> None:
    """Frame of Reference (C.7.4.1) and Image Plane (C.7.6.2)."""
    scan = scene.scan
    corner = float(scan.x_mm(0, 1)[0])
    ds.FrameOfReferenceUID = own_uid(scene, "frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.PixelSpacing = [DS(scan.pixel_spacing_mm, auto_format=True)] * 2
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [DS(v, auto_format=True) for v in (corner, corner, z_mm)]
    ds.SliceLocation = DS(z_mm, auto_format=True)
    ds.SliceThickness = DS(scan.slice_thickness_mm, auto_format=True)
