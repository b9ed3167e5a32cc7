"""Simulated scans as DICOM: everybody reads the same voxels, and nobody takes them for real."""

import dataclasses
import shutil
import subprocess

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from labkit import doctor
from labkit.annotations import lidc
from labkit.cohorts.build import build_lidc
from labkit.errors import InputError
from labkit.imaging import dicom
from labkit.simulate import write_dicom
from labkit.simulate.scan import scan_of, series_named
from labkit.simulate.scanner import truth, whole_scan
from labkit.simulate.scene import scene_of
from tests.dicom_phantom import ct_slice, save, write_series

SERIES = series_named("LIDC-IDRI-0171")


def few_slices(seed=0, slices=8):
    """The scene of a real scan of which only some slices around a nodule are scanned."""
    scan = scan_of(SERIES)
    first = float(scan.z_mm(18, 19)[0])
    return scene_of(dataclasses.replace(scan, first_z_mm=first, slices=slices), seed)


@pytest.fixture(scope="module")
def scene():
    return few_slices()


@pytest.fixture(scope="module")
def written(scene, tmp_path_factory):
    out = tmp_path_factory.mktemp("simulated") / "scan"
    return write_dicom.write_scan(scene, out, truth=True, progress=False)


@pytest.fixture(scope="module")
def headers(written):
    return [pydicom.dcmread(file) for file in sorted(written.glob("*.dcm"))]


def test_every_reader_finds_the_voxels_of_the_whole_scan_in_their_places(scene, written, headers):
    whole = whole_scan(scene)
    ours = dicom.read_series(written)
    assert ours.voxels.dtype == np.int16
    np.testing.assert_array_equal(ours.voxels, whole.voxels)
    series = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(written))
    image = sitk.ReadImage(series)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), whole.voxels)
    by_height = sorted(headers, key=lambda ds: ds.ImagePositionPatient[2])
    plain = [d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in by_height]
    np.testing.assert_array_equal(plain, whole.voxels)
    scan = scene.scan
    np.testing.assert_allclose(ours.spacing_xyz_mm, whole.spacing_xyz_mm, atol=1e-6)
    np.testing.assert_allclose(ours.origin_xyz_mm, whole.origin_xyz_mm, atol=1e-6)
    np.testing.assert_allclose(image.GetSpacing(), whole.spacing_xyz_mm, atol=1e-5)
    np.testing.assert_allclose(image.GetOrigin(), whole.origin_xyz_mm, atol=1e-5)
    # Pixel (row, column) lies where the simulated world has it.
    x, y, z = ours.world_from_index((3, 100, 400))
    assert x == pytest.approx((400 - 255.5) * scan.pixel_spacing_mm)
    assert y == pytest.approx((100 - 255.5) * scan.pixel_spacing_mm)
    assert z == pytest.approx(scan.first_z_mm + 3 * scan.slice_spacing_mm)
    assert {float(d.SliceThickness) for d in headers} == {scan.slice_thickness_mm}


def test_a_simulated_series_says_so_and_poses_as_nobody(scene, headers):
    real = lidc.scans().set_index("series_uid").loc[SERIES]
    for ds in headers:
        own = [ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID]
        assert len(set(own)) == 4
        for uid in own:
            assert uid.startswith("2.25.") and len(uid) <= 64 and pydicom.uid.UID(uid).is_valid
        assert ds.PatientID != real["patient_id"]
        texts = ds.SeriesDescription, ds.StudyDescription, ds.ImageComments, str(ds.PatientName)
        assert all("simulated" in text.lower() for text in texts)
        assert ds[0x0008, 0x001C].value == "YES"
        assert list(ds.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
        (related,) = ds.RelatedSeriesSequence
        assert related.SeriesInstanceUID == SERIES
        assert related.StudyInstanceUID == real["study_uid"]
    assert len({ds.SOPInstanceUID for ds in headers}) == scene.scan.slices
    for what in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert len({ds[what].value for ds in headers}) == 1


# PS3.3, CT Image IOD: what must be there with a value, and what must be there.
TYPE_1 = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality",
    "ImageType", "FrameOfReferenceUID", "PixelSpacing", "ImageOrientationPatient",
    "ImagePositionPatient", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData",
    "RescaleIntercept", "RescaleSlope", "PatientPosition", "DeidentificationMethod",
)  # fmt: skip
TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName", "SeriesNumber",
    "PositionReferenceIndicator", "Manufacturer", "InstanceNumber", "SliceThickness", "KVP",
    "AcquisitionNumber",
)  # fmt: skip


def test_headers_have_what_the_standard_asks_for(headers):
    for ds in headers:
        assert not [name for name in TYPE_1 if ds.get(name) in (None, "", [])]
        assert not [name for name in TYPE_2 if name not in ds]
        assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID
        assert len(ds.PixelData) == 512 * 512 * 2
    # Numbered from the head down, as LIDC-IDRI's series are.
    numbers = [int(ds.InstanceNumber) for ds in headers]
    heights = [float(ds.ImagePositionPatient[2]) for ds in headers]
    assert numbers == list(range(1, len(headers) + 1))
    assert heights == sorted(heights, reverse=True)


def test_the_validator_of_dicom3tools_finds_no_error(written):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy of dicom3tools is not installed")
    checked = subprocess.run(
        ["dciodvfy", str(written / "001.dcm")], capture_output=True, text=True, check=False
    )
    said = (checked.stdout + checked.stderr).splitlines()
    assert "CTImage" in said
    # Synthetic Data is younger than the validators that Linux distributions carry.
    assert not [s for s in said if s.startswith("Error") and "0x0008,0x001c" not in s]


def test_truth_lies_on_the_scans_own_grid(scene, written):
    true = truth(scene)
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(written)))
    for name, mask in (("lung", true.lung), ("nodules", true.nodules)):
        stored = sitk.ReadImage(str(written / f"{name}.mha"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(stored), mask)
        np.testing.assert_allclose(stored.GetOrigin(), image.GetOrigin(), atol=1e-5)
        np.testing.assert_allclose(stored.GetSpacing(), image.GetSpacing(), atol=1e-5)
    assert true.nodules.any() and true.lung.any()


def test_the_same_seed_gives_the_same_bytes_and_another_other_uids(scene, written, tmp_path):
    again = write_dicom.write_scan(scene, tmp_path / "again", truth=True, jobs=1, progress=False)
    names = sorted(p.name for p in written.iterdir())
    assert names == sorted(p.name for p in again.iterdir())
    assert [n for n in names if (written / n).read_bytes() != (again / n).read_bytes()] == []
    other = write_dicom.write_scan(few_slices(seed=1, slices=2), tmp_path / "other", progress=False)
    assert set(dicom.find_series(other)).isdisjoint(dicom.find_series(written))
    # A scan in the way of another is replaced, masks and all.
    write_dicom.write_scan(few_slices(seed=1, slices=2), again, progress=False)
    assert sorted(p.name for p in again.iterdir()) == ["001.dcm", "002.dcm", "scan.json"]


def test_what_is_no_simulated_scan_is_not_replaced(scene, tmp_path):
    write_series(tmp_path / "real", np.zeros((2, 8, 8), np.int16), [0, 1], series_uid=SERIES)
    (tmp_path / "thesis.docx").write_text("mine")
    for out, message in ((tmp_path, r"holds real, which"), (tmp_path / "thesis.docx", "is a file"),
                         (tmp_path / "real", "no part of a simulated scan")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            write_dicom.write_scan(scene, out, progress=False)


def test_only_synthetic_series_of_lidc_count_as_simulated(written, tmp_path):
    (own,) = dicom.find_series(written)
    write_series(tmp_path / "real", np.zeros((2, 8, 8), np.int16), [0, 1], series_uid=SERIES)
    # A real scan resampled by somebody names its source too, and says nothing of synthetic.
    resampled = ct_slice(np.zeros((8, 8), np.int16), (0, 0, 0), series_uid="1.2.3")
    resampled.RelatedSeriesSequence = pydicom.dcmread(written / "001.dcm").RelatedSeriesSequence
    save(resampled, tmp_path / "resampled.dcm")
    elsewhere = pydicom.dcmread(written / "001.dcm")
    elsewhere.SeriesInstanceUID = "1.2.4"
    elsewhere.RelatedSeriesSequence[0].SeriesInstanceUID = "1.2.5"
    save(elsewhere, tmp_path / "elsewhere.dcm")
    shutil.copytree(written, tmp_path / "simulated")
    found = dicom.find_series(tmp_path)
    assert len(found) == 4
    assert write_dicom.originals(found) == {own: SERIES}


def test_real_and_simulated_scans_make_no_cohort_together(scene, written, tmp_path):
    both = tmp_path / "both"
    shutil.copytree(written, both / "simulated")
    of_another = series_named("LIDC-IDRI-0001")
    write_series(both / "real", np.zeros((2, 8, 8), np.int16), [0, 1], series_uid=of_another)
    with pytest.raises(InputError, match="give each kind a folder of its own"):
        build_lidc(both, tmp_path / "cohort", progress=False)
    assert "1 refuse\n  refuse  " in (told := doctor.of_folder(both)) and "take " not in told
    # Asked for the simulated scan's patient alone, there is nothing to mix.
    report = build_lidc(both, tmp_path / "cohort", patients=["LIDC-IDRI-0171"], progress=False)
    assert report.scans["built"].sum() >= 1
    shutil.rmtree(both / "real")
    write_dicom.write_scan(few_slices(seed=1, slices=2), both / "another", progress=False)
    with pytest.raises(InputError, match="two simulated scans of series"):
        build_lidc(both, tmp_path / "cohort", progress=False)


def test_patients_with_two_scans_have_to_choose():
    with pytest.raises(InputError, match=r"has 2 scans; choose one by --series") as caught:
        series_named("LIDC-IDRI-0132")
    second = str(caught.value).split(", ")[-1]
    assert series_named("LIDC-IDRI-0132", second) == second
    for patient, series, message in (("LIDC-IDRI-9999", None, "no such patient or series"),
                                     ("LIDC-IDRI-0171", second, "no series of")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            series_named(patient, series)
