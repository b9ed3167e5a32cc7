"""Reading scans: what has to come out right, and what has to be refused."""

import errno
import gzip
import os
import struct

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from labkit.errors import InputError
from labkit.imaging.dicom import find_series, read_image, read_series
from labkit.imaging.volume import require_hu
from tests.dicom_phantom import ct_slice, save, write_series

Z = np.arange(6) * 2.5 - 100


@pytest.fixture
def stored():
    """Values as a scanner stores them, different in every voxel."""
    return np.random.default_rng(0).integers(0, 3000, (6, 8, 12)).astype(np.int16)


# --- what comes out -----------------------------------------------------------------------------


def simpleitks(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def test_slices_are_sorted_by_position_and_rescaled_once(tmp_path, stored):
    order = [3, 0, 5, 1, 4, 2]
    write_series(tmp_path, stored[order], Z[order])
    volume = read_series(tmp_path)
    assert volume.voxels.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels, stored - 1024)
    np.testing.assert_allclose(volume.spacing_xyz_mm, (0.5, 0.8, 2.5))  # columns lie along x
    np.testing.assert_allclose(volume.origin_xyz_mm, (-20, 30, -100))
    np.testing.assert_allclose(volume.direction, np.eye(3))
    assert volume.series_uid == "1.2.3.4"


@pytest.mark.parametrize(
    "orientation",
    [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0), (1, 0, 0, 0, -1, 0), (0.8, 0.6, 0, -0.6, 0.8, 0),
     (1, 0, 0, 0, 0.8, 0.6)],
)  # fmt: skip
def test_every_orientation_agrees_with_simpleitk(tmp_path, stored, orientation):
    normal = np.cross(orientation[:3], orientation[3:])
    for k, image in enumerate(stored):
        dataset = ct_slice(image, (5, 6, 7) + 1.5 * k * normal, orientation=orientation)
        save(dataset, tmp_path / f"{9 - k}.dcm")
    volume = read_series(tmp_path)
    image = simpleitks(tmp_path)
    np.testing.assert_array_equal(volume.voxels, sitk.GetArrayFromImage(image))
    for index in ((0, 0, 0), (5, 7, 11), (2, 4, 1)):
        theirs = image.TransformIndexToPhysicalPoint(index[::-1])
        np.testing.assert_allclose(volume.world_from_index(index), theirs, atol=1e-4)


@pytest.mark.real
def test_real_scan_agrees_with_simpleitk_voxel_for_voxel(real_dicom):
    ((uid, files),) = find_series(real_dicom).items()
    volume = read_series(real_dicom)
    image = simpleitks(files[0].parent)
    assert volume.series_uid == uid
    assert volume.shape == (133, 512, 512)
    theirs = sitk.GetArrayFromImage(image)  # -2000 beyond the circle
    np.testing.assert_array_equal(volume.voxels, np.where(theirs < -1200, -1000, theirs))
    np.testing.assert_allclose(volume.spacing_xyz_mm, image.GetSpacing(), atol=1e-6)
    np.testing.assert_allclose(volume.origin_xyz_mm, image.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(volume.direction.ravel(), image.GetDirection(), atol=1e-6)


def test_rescaling_is_per_slice_and_fractions_are_kept(tmp_path, stored):
    for k, image in enumerate(stored // 3):
        dataset = ct_slice(image, (0, 0, Z[k]), slope=0.5 + k / 2, intercept=-1000 - k)
        save(dataset, tmp_path / f"{k}.dcm")
    volume = read_series(tmp_path)
    assert volume.voxels.dtype == np.float32
    expected = [image // 3 * (0.5 + k / 2) - 1000 - k for k, image in enumerate(stored)]
    np.testing.assert_allclose(volume.voxels, expected)


def test_positions_rounded_to_a_tenth_are_even(tmp_path, stored):
    write_series(tmp_path, stored, np.round(np.arange(6) * 1.25, 1))
    assert read_series(tmp_path).spacing_xyz_mm[2] == pytest.approx(1.25, abs=0.03)


@pytest.mark.parametrize("tag", [None, 63536])  # -2000, as many scanners write it
def test_padding_is_air_with_and_without_its_tag(tmp_path, tag):
    stored = np.full((2, 16, 16), 1054, np.int16)
    stored[:, 0] = -2000
    for k, image in enumerate(stored):
        dataset = ct_slice(image, (0, 0, k))
        if tag:
            dataset.add_new("PixelPaddingValue", "US", tag)
        save(dataset, tmp_path / f"{k}.dcm")
    hu = read_series(tmp_path).voxels
    assert (hu[:, 0] == -1000).all() and (hu[:, 1:] == 30).all()


def test_compressed_slices_are_decoded_when_pydicom_can(tmp_path, stored):
    for k, image in enumerate(stored):
        dataset = ct_slice(image, (0, 0, Z[k]))
        dataset.compress(RLELossless)
        save(dataset, tmp_path / f"{k}.dcm")
    np.testing.assert_array_equal(read_series(tmp_path).voxels, stored - 1024)


# --- folders ------------------------------------------------------------------------------------


def test_other_files_are_ignored_and_subfolders_searched(tmp_path, stored):
    write_series(tmp_path / "a" / "b", stored, Z)
    (tmp_path / "069.xml").write_text("<LidcReadMessage/>")
    (tmp_path / "a" / "notes.dcm").write_bytes(b"no dicom at all")
    (tmp_path / "a" / "empty").touch()
    assert read_series(tmp_path).shape == (6, 8, 12)
    (tmp_path / "a" / "b").rename(tmp_path / "gone")
    with pytest.raises(InputError, match="no readable DICOM"):
        read_series(tmp_path / "a")
    with pytest.raises(InputError, match="no such folder"):
        read_series(tmp_path / "nowhere")


def test_what_is_left_out_is_told_once_in_a_line(tmp_path, stored, capsys):
    write_series(tmp_path, stored, Z, series_uid="1.1")
    write_series(tmp_path / "scout", stored[:2], Z[:2], series_uid="2.2")
    (tmp_path / "notes.txt").write_text("text")
    index = ct_slice(stored[0], (0, 0, 0))
    index.SOPClassUID = index.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    del index.SeriesInstanceUID
    save(index, tmp_path / "dicomdir.dcm")
    assert read_series(tmp_path, "1.1").shape == stored.shape
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert all(word in told for word in ("1 other series (2 files)", "notes.txt", "dicomdir.dcm"))


def test_links_to_folders_are_followed_without_going_round(tmp_path, stored):
    write_series(tmp_path / "store", stored, Z)
    (tmp_path / "study").mkdir()
    for name, target in (("one", "store"), ("again", "store"), ("round", "study")):
        (tmp_path / "study" / name).symlink_to(tmp_path / target, target_is_directory=True)
    np.testing.assert_array_equal(read_series(tmp_path / "study").voxels, stored - 1024)


def test_a_folder_that_may_not_be_read_is_named(tmp_path, stored, monkeypatch):
    write_series(tmp_path, stored, Z)
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refused(folder):
        if str(folder).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(InputError, match="closed: not readable .Permission denied"):
        read_series(tmp_path)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("first", [132, None])
def test_slices_without_preamble_are_slices(tmp_path, stored, syntax, first):
    for path in write_series(tmp_path, stored, Z, syntax=syntax):
        whole = path.read_bytes()
        # Without the first part too, which says how the rest is written.
        start = first or 144 + int.from_bytes(whole[140:144], "little")
        path.write_bytes(whole[start:])
    np.testing.assert_array_equal(read_series(tmp_path).voxels, stored - 1024)


def test_find_series_maps_each_series_to_its_files(tmp_path, stored):
    one = write_series(tmp_path / "x", stored, Z, series_uid="1.1")
    two = write_series(tmp_path / "y", stored[:4], Z[:4], series_uid="2.2")
    (tmp_path / "x" / "readme.txt").write_text("text")
    broken = tmp_path / "y" / "broken.dcm"
    broken.write_bytes(two[0].read_bytes()[:200])
    found = find_series(tmp_path)
    expected = {"1.1": set(one), "2.2": set(two), "": {broken}}
    assert {uid: set(files) for uid, files in found.items()} == expected
    np.testing.assert_array_equal(read_series(found["2.2"]).voxels, stored[:4] - 1024)


def test_several_series_need_a_choice(tmp_path, stored):
    write_series(tmp_path, stored, Z, series_uid="1.1")
    write_series(tmp_path / "more", stored + 1, Z, series_uid="2.2")
    with pytest.raises(InputError, match=r"2 series.*series_uid=.*1\.1 \(6 files\)"):
        read_series(tmp_path)
    assert read_series(tmp_path, "2.2").voxels[0, 0, 0] == stored[0, 0, 0] + 1 - 1024
    with pytest.raises(InputError, match=r"no series 3\.3"):
        read_series(tmp_path, series_uid="3.3")


# --- slices that do not make a volume -----------------------------------------------------------


@pytest.mark.parametrize("missing", [1, 3, 4])
def test_a_missing_slice_is_an_error_or_interpolated(tmp_path, stored, missing):
    write_series(tmp_path, np.delete(stored, missing, axis=0), np.delete(Z, missing))
    gap = f"5 mm gap between slices {missing} and {missing + 1}.*allow_gaps"
    with pytest.raises(InputError, match=gap):
        read_series(tmp_path)
    volume = read_series(tmp_path, allow_gaps=True)
    assert volume.shape == stored.shape
    np.testing.assert_allclose(volume.spacing_xyz_mm, (0.5, 0.8, 2.5))
    expected = stored.astype(float) - 1024
    expected[missing] = (expected[missing - 1] + expected[missing + 1]) / 2
    np.testing.assert_allclose(volume.voxels, expected, atol=1e-3)


def test_uneven_slices_are_put_on_an_even_grid(tmp_path):
    z = np.array([0.0, 1.0, 2.0, 3.0, 4.6, 6.0, 7.0])
    ramp = np.round(100 * z).astype(np.int16)[:, None, None] * np.ones((1, 4, 4), np.int16)
    write_series(tmp_path, ramp, z)
    with pytest.raises(InputError, match=r"1\.6 mm gap between slices 4 and 5"):
        read_series(tmp_path)
    volume = read_series(tmp_path, allow_gaps=True)
    at = np.array([volume.world_from_index((k, 0, 0))[2] for k in range(volume.shape[0])])
    np.testing.assert_allclose(at[[0, -1]], [0, 7])
    np.testing.assert_allclose(volume.voxels[:, 0, 0], 100 * at - 1024, atol=10)


def test_one_slice_is_no_volume_and_a_doubled_one_an_error_or_dropped(tmp_path, stored):
    write_series(tmp_path, stored[:1], Z[:1])
    with pytest.raises(InputError, match="at least two slices"):
        read_series(tmp_path)
    files = write_series(tmp_path, stored, Z)
    (tmp_path / "copy").mkdir()
    for file in files[:3]:  # a second download: the same slices
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    np.testing.assert_array_equal(read_series(tmp_path).voxels, stored - 1024)
    save(ct_slice(stored[2] * 0, (-20, 30, Z[2]), instance=99), tmp_path / "again.dcm")
    with pytest.raises(InputError, match="same position.*other pixels.*--allow-doubles"):
        read_series(tmp_path)
    np.testing.assert_array_equal(read_series(tmp_path, allow_doubles=True).voxels, stored - 1024)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, k: setattr(d, "AcquisitionNumber", 1 + k % 2), "2 acquisitions in series"),
        (lambda d, k: setattr(d, "AcquisitionNumber", 1 + k // 3), "2 acquisitions in series"),
        (lambda d, k: setattr(d, "ConvolutionKernel", "BL"[k // 3]), "another kernel"),
        (lambda d, k: setattr(d, "ConvolutionKernel", ["", "B", "L"][k // 2]), "another kernel"),
        (lambda d, k: setattr(d, "PatientID", "AB"[k // 3]), "another patient"),
        (lambda d, k: setattr(d, "StudyInstanceUID", f"1.{k // 3}"), "another study"),
        (lambda d, k: setattr(d, "FrameOfReferenceUID", f"1.{k // 3}"), "another frame of"),
        (lambda d, k: setattr(d, "SliceThickness", ["2.5", "2.50", "5"][k // 2]),
         "another slice thickness"),
        (lambda d, k: setattr(d, "KVP", ["120", "80"][k // 3]), "another tube voltage"),
        (lambda d, k: setattr(d, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"][: 2 + k // 5]),
         "a localizer"),
        (lambda d, k: setattr(d, "GantryDetectorTilt", 15), "gantry tilt of 15 degrees"),
        (lambda d, k: setattr(d, "ImagePositionPatient", [0, round(k * 0.53, 4), 2.5 * k]),
         r"gantry tilt of 12\.0 degrees"),
        (lambda d, k: setattr(d, "ImagePositionPatient", [k % 2, 0, 2.5 * k]), "on no one line"),
    ],
)  # fmt: skip
def test_what_is_not_one_upright_acquisition_is_refused(tmp_path, stored, change, message):
    for k, image in enumerate(stored):
        dataset = ct_slice(image, (0, 0, Z[k]))
        change(dataset, k)
        save(dataset, tmp_path / f"{k}.dcm")
    with pytest.raises(InputError, match=message) as caught:
        read_series(tmp_path)
    assert ".dcm" in str(caught.value)


def test_where_each_turn_of_the_scanner_is_an_acquisition_there_is_one_series(tmp_path, stored):
    for k, image in enumerate(stored):
        dataset = ct_slice(image, (0, 0, Z[k]))
        dataset.AcquisitionNumber = k + 1
        save(dataset, tmp_path / f"{k}.dcm")
    assert read_series(tmp_path).shape == stored.shape


@pytest.mark.parametrize(
    ("what", "options", "shape"),
    [
        ("size", {}, (8, 10)),
        ("pixel spacing", {"pixel_spacing_mm": (0.8, 0.6)}, (8, 12)),
        ("orientation", {"orientation": (0, 1, 0, -1, 0, 0)}, (8, 12)),
    ],
)
def test_slices_of_two_kinds_are_refused(tmp_path, stored, what, options, shape):
    write_series(tmp_path, stored, Z)
    odd = ct_slice(np.zeros(shape, np.int16), (-20, 30, Z[-1] + 2.5), **options)
    save(odd, tmp_path / "odd.dcm")
    with pytest.raises(InputError, match=f"odd.dcm: another {what}|another {what} than odd.dcm"):
        read_series(tmp_path)


# --- files that are damaged or no CT ------------------------------------------------------------


def damage(folder, change, stored):
    paths = write_series(folder, stored, Z)
    dataset = pydicom.dcmread(paths[2])
    change(dataset)
    return save(dataset, paths[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: setattr(d, "Modality", "MR"), "modality MR, not CT"),
        (lambda d: delattr(d, "Modality"), "modality none given"),
        (lambda d: delattr(d, "PixelData"), "no pixel data"),
        (lambda d: delattr(d, "RescaleSlope"), "no rescale slope"),
        (lambda d: delattr(d, "ImagePositionPatient"), "no usable position"),
        (lambda d: delattr(d, "ImageOrientationPatient"), "no usable position"),
        (lambda d: setattr(d, "PixelSpacing", [0, 0.5]), "another pixel spacing"),
        (lambda d: setattr(d["InstanceNumber"], "_value", "nan"), "no usable position.*not finite"),
        (lambda d: setattr(d, "ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), "perpendicular"),
        (lambda d: setattr(d, "NumberOfFrames", 3), "many frames"),
        (lambda d: setattr(d, "PixelData", d.PixelData[:-20]), "truncated or damaged pixels"),
    ],
)
def test_damaged_slices_are_named(tmp_path, stored, change, message):
    path = damage(tmp_path, change, stored)
    with pytest.raises(InputError, match=message) as caught:
        read_series(tmp_path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda whole, keep=keep: whole[: int(keep * len(whole))]
          for keep in (0, 0.05, 0.2, 0.3, 0.6, 0.99)),
        lambda whole: bytes(len(whole)),  # room was made for it, and nothing came
        lambda whole: bytes(132) + whole[132:],
        lambda whole: b"<html>404</html>",
        "packed",
        None,  # a link to what was not fetched
    ],
)  # fmt: skip
@pytest.mark.parametrize("k", [2, -1])
def test_slices_of_which_a_part_or_nothing_is_there_are_named(tmp_path, stored, damage, k):
    path = write_series(tmp_path, stored, Z)[k]
    whole = path.read_bytes()
    path.unlink()
    if damage is None:
        path.symlink_to(tmp_path / "nowhere")
    elif damage == "packed":
        path.with_suffix(".dcm.gz").write_bytes(gzip.compress(whole))
    else:
        path.write_bytes(damage(whole))
    with pytest.raises(InputError, match=path.name) as caught:
        read_series(tmp_path)
    assert "PATIENT-1" not in str(caught.value)


def test_compression_that_cannot_be_decoded_is_named(tmp_path, stored):
    for k, image in enumerate(stored):
        dataset = ct_slice(image, (0, 0, Z[k]), syntax=JPEG2000Lossless)
        dataset.PixelData = pydicom.encaps.encapsulate([b"no codestream "])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        save(dataset, tmp_path / f"{k}.dcm")
    with pytest.raises(InputError, match="compressed as JPEG 2000.*pylibjpeg"):
        read_series(tmp_path)


# --- image files --------------------------------------------------------------------------------

DIRECTION = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])


def image_of(stored):
    image = sitk.GetImageFromArray(stored)
    image.SetSpacing((0.5, 0.8, 2.5))
    image.SetOrigin((-20, 30, -100))
    image.SetDirection(DIRECTION.ravel().tolist())
    return image


@pytest.mark.parametrize("name", ["scan.mhd", "scan.mha", "scan.nii.gz", "scan.nii", "scan.nrrd"])
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
def test_image_files_keep_values_and_place(tmp_path, stored, name, dtype):
    hu = (stored - 1024).astype(dtype)
    sitk.WriteImage(image_of(hu), str(tmp_path / name))
    volume = read_image(tmp_path / name)
    assert volume.voxels.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels, hu)
    np.testing.assert_allclose(volume.spacing_xyz_mm, (0.5, 0.8, 2.5), atol=1e-6)
    np.testing.assert_allclose(volume.origin_xyz_mm, (-20, 30, -100), atol=1e-5)
    np.testing.assert_allclose(volume.direction, DIRECTION, atol=1e-6)
    assert volume.series_uid == ""


def test_fractions_stay_and_luna16_names_are_series(tmp_path, stored):
    uid = "1.3.6.1.4.1.14519.5.2.1.6279.6001.1234"
    sitk.WriteImage(image_of(stored + np.float32(0.25)), str(tmp_path / f"{uid}.mhd"))
    volume = read_image(tmp_path / f"{uid}.mhd")
    assert volume.series_uid == uid
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(volume.voxels, stored + np.float32(0.25))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere.mhd", None, "no such file"),
        ("notes.txt", "hello", "read_series"),
        ("fake.nrrd", "hello", "not readable"),
        ("four.nii.gz", sitk.Image([4, 4, 4, 2], sitk.sitkInt16), "4 dimensions"),
        ("two.nrrd", sitk.Image([4, 4], sitk.sitkInt16), "2 dimensions"),
        ("rgb.mha", sitk.Image([4, 4, 4], sitk.sitkVectorInt16, 3), "Channels is 3"),
        ("rgb.nrrd", sitk.Image([4, 4, 4], sitk.sitkVectorInt16, 3), "3 value"),
        ("nan.mha", image_of(np.full((4, 4, 4), np.nan, np.float32)), "not finite"),
    ],
)
def test_image_files_that_are_no_ct_volume_are_refused(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        sitk.WriteImage(content, str(path))
    with pytest.raises(InputError, match=message) as caught:
        read_image(path)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["scan.mha", "scan.nii", "scan.nii.gz", "scan.nrrd"])
@pytest.mark.parametrize("keep", [0.5, 0.98])
def test_a_file_that_is_cut_short_is_not_filled_up_with_zeros(tmp_path, stored, name, keep):
    path = tmp_path / name
    sitk.WriteImage(image_of(stored), str(path))
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(InputError, match="not readable|scan.mha has"):
        read_image(path)


@pytest.mark.parametrize("name", ["scan.mhd", "scan.mha", "scan.nii.gz", "scan.nrrd"])
def test_damaged_compressed_data_are_an_error(tmp_path, stored, name):
    sitk.WriteImage(image_of(stored - 1024), str(tmp_path / name), useCompression=True)
    (path,) = [p for p in tmp_path.iterdir() if p.suffix != ".mhd"]
    whole = bytearray(path.read_bytes())
    whole[-300] ^= 0x10
    path.write_bytes(whole)
    with pytest.raises(InputError, match="not readable"):
        read_image(tmp_path / name)


META = """ObjectType = Image
NDims = 3
BinaryData = True
Offset = 0 0 0
TransformMatrix = 1 0 0 0 1 0 {lean}
ElementSpacing = 1 1 2
DimSize = 6 5 4
ElementType = MET_SHORT
ElementDataFile = LOCAL
"""
NRRD = """NRRD0004
type: short
dimension: 3
space: left-posterior-superior
sizes: 6 5 4
space directions: (1,0,0) (0,1,0) ({lean})
endian: little
encoding: raw
space origin: (0,0,0)

"""


def nifti(lean, qform=0, pixel=0.7, shift=0):
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, 6, 5, 4, 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 4, 16)
    struct.pack_into("<8f", header, 76, 1, pixel, 0.7, 2.5, 1, 1, 1, 1)
    struct.pack_into("<f", header, 108, 352)
    struct.pack_into("<hh", header, 252, qform, int(lean is not None))
    struct.pack_into("<6f", header, 256, 0, 0, 1, 10 + shift, 20, -30)  # half a turn around z
    for k, row in enumerate(((-0.7, 0, 0, 10), (0, -0.7, lean or 0, 20), (0, 0, 2.5, -30))):
        struct.pack_into("<4f", header, 280 + 16 * k, *row)
    return bytes(header[:344]) + b"n+1\0" + bytes(4)


def test_a_place_that_is_said_twice_alike_is_taken(tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti(0, qform=1) + bytes(240))
    assert read_image(tmp_path / "a.nii").origin_xyz_mm == pytest.approx((-10, -20, -30))


@pytest.mark.parametrize(
    ("name", "header", "message"),
    [
        ("a.mha", META.format(lean="0 0.2 0.98").encode(), "sheared by 11.5 degrees"),
        ("a.nrrd", NRRD.format(lean="0,0.4,2").encode(), "sheared by 11.3 degrees"),
        ("a.nii", nifti(0.5), "sheared by 11.3 degrees"),
        ("a.nii", nifti(0.5, qform=1), "sheared by 11.3 degrees"),  # qform is upright
        ("a.nii", nifti(None), "nothing of the axes"),
        ("a.nii", nifti(0, qform=1, shift=5), "in two ways where its voxels lie .* 5 mm apart"),
        ("a.nii", nifti(0, pixel=1), "in two ways where its voxels lie"),
        *(
            ("a.nrrd", NRRD.format(lean="0,0,2").replace(*change).encode(), "lies in the space")
            for change in (
                ("left-posterior-superior", "scanner-xyz"),
                ("encoding", 'space units: "cm" "cm" "cm"\nencoding'),
            )
        ),
        ("a.nrrd", NRRD.format(lean="0,0,0.002").encode(), "give millimetres"),
    ],
)
def test_files_without_an_upright_place_in_the_world_are_refused(tmp_path, name, header, message):
    (tmp_path / name).write_bytes(header + bytes(240))
    with pytest.raises(InputError, match=message):
        read_image(tmp_path / name)


# --- numbers that are no HU -----------------------------------------------------------------------


def chest(padding=None):
    """HU of a block of lung with vessels between two walls, padded on two sides or not."""
    rng = np.random.default_rng(0)
    hu = np.full((12, 64, 64), -850)
    hu[:, :, :20] = hu[:, :, -20:] = 40
    hu[rng.random(hu.shape) < 0.02] = 40
    hu += rng.normal(0, 20, hu.shape).astype(int)
    if padding is not None:
        hu[:, :6] = hu[:, -6:] = padding
    return hu.astype(np.int16)


def written(folder, hu, kind):
    """A volume as a file of a kind, or as a series."""
    folder.mkdir()
    if kind != "dicom":
        sitk.WriteImage(sitk.GetImageFromArray(hu), str(folder / f"scan{kind}"))
        return read_image(folder / f"scan{kind}").voxels
    write_series(folder, hu, np.arange(len(hu)), intercept=0)
    return read_series(folder).voxels


@pytest.mark.parametrize("kind", ["dicom", ".mhd", ".mha", ".nrrd", ".nii.gz"])
@pytest.mark.parametrize("padding", [None, -2000, -1024])
def test_values_that_are_no_hu_are_refused_and_hu_with_padding_are_not(tmp_path, kind, padding):
    hu = chest(padding)
    right = written(tmp_path / "right", hu, kind)
    np.testing.assert_array_equal(right, np.where(hu < -1200, -1000, hu))
    for name, wrong, cause in (
        ("up", np.where(hu < -1000, hu, hu + 1024), "not rescaled"),
        ("down", hu - 1024, "intercept applied twice"),
        ("swapped", hu.byteswap(), "byte order"),
        ("no sign", np.where(hu < -890, 65536 + hu.astype(int), hu), "byte order or sign"),
        ("grey", np.clip((hu + 1000) * (255 / 1400), 0, 255), "grey levels"),
    ):
        wrong = wrong.astype(np.uint16 if name == "no sign" else np.int16)
        with pytest.raises(InputError, match=cause):
            written(tmp_path / name, wrong, kind)


@pytest.mark.parametrize("to", [lambda hu: hu / 1000, lambda hu: (hu + 1000) / 1400])
def test_values_that_somebody_normalised_are_refused(tmp_path, to):
    hu = to(chest()).astype(np.float32)
    with pytest.raises(InputError, match="normalised"):
        written(tmp_path / "of a network", hu, ".nrrd")


def test_half_a_series_that_lost_its_intercept_is_refused(tmp_path):
    for k, image in enumerate(chest() + 1024):
        save(ct_slice(image, (0, 0, k), intercept=-1024 * (k < 6)), tmp_path / f"{k}.dcm")
    with pytest.raises(InputError, match="not rescaled"):
        read_series(tmp_path)


def test_a_tag_of_padding_that_is_not_in_the_corners_makes_no_holes_in_tissue(tmp_path):
    for k, image in enumerate(chest()):
        dataset = ct_slice(image, (0, 0, k), intercept=0)
        dataset.add_new("PixelPaddingValue", "SS", 40)
        save(dataset, tmp_path / f"{k}.dcm")
    np.testing.assert_array_equal(read_series(tmp_path).voxels, chest())


@pytest.mark.parametrize("change", [{"pixel_spacing_mm": (8e-4, 5e-4)}, {"step": 38}])
def test_lengths_that_are_no_millimetres_are_refused(tmp_path, stored, change):
    write_series(tmp_path, stored, np.arange(6) * change.pop("step", 2.5), **change)
    with pytest.raises(InputError, match="give millimetres"):
        read_series(tmp_path)


@pytest.mark.parametrize(
    "hu",
    [np.full((4, 32, 32), 30), np.full((4, 32, 32), -850), np.zeros((4, 9, 9)),
     np.random.default_rng(0).normal(40, 15, (4, 32, 32)), chest()[:, :, 20:44],
     chest()[:, :, :18], np.random.default_rng(0).normal(900, 200, (4, 9, 9))],
    ids=["tissue", "lung", "zero", "noise", "lung alone", "wall alone", "bone"],
)  # fmt: skip
def test_crops_of_one_kind_of_tissue_are_hu(hu):
    require_hu(hu, "a crop")


@pytest.mark.real
def test_no_crop_of_a_real_scan_is_refused_and_no_real_nodule(real_dicom, real_cubes):
    folder = next(real_dicom.rglob("*.dcm")).parent
    voxels = sitk.GetArrayFromImage(simpleitks(folder))
    rng = np.random.default_rng(0)
    for size in ((26, 91, 91), (6, 20, 20), (3, 10, 10)):
        for _ in range(200):
            at = [rng.integers(0, n - m) for n, m in zip(voxels.shape, size, strict=True)]
            crop = tuple(slice(k, k + m) for k, m in zip(at, size, strict=True))
            require_hu(voxels[crop], "a crop")
    with np.load(real_cubes) as file:
        for one in file["cubes"]:
            require_hu(-1000 + 1400 / 255 * one.astype(np.float32), "a nodule")
    for shift, cause in ((1024, "not rescaled"), (-1024, "twice")):
        with pytest.raises(InputError, match=cause):
            require_hu(voxels + shift, "the scan")
