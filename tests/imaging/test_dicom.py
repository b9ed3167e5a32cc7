"""Reading scans: what has to come out right, and what has to be refused."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import JPEG2000Lossless, RLELossless

from labkit.errors import InputError
from labkit.imaging.dicom import find_series, read_image, read_series
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
    np.testing.assert_array_equal(volume.voxels, sitk.GetArrayFromImage(image))
    np.testing.assert_allclose(volume.spacing_xyz_mm, image.GetSpacing(), atol=1e-6)
    np.testing.assert_allclose(volume.origin_xyz_mm, image.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(volume.direction.ravel(), image.GetDirection(), atol=1e-6)


def test_rescaling_is_per_slice_and_fractions_are_kept(tmp_path, stored):
    for k, image in enumerate(stored):
        dataset = ct_slice(image, (0, 0, Z[k]), slope=0.5 + k, intercept=-1000 - k)
        save(dataset, tmp_path / f"{k}.dcm")
    volume = read_series(tmp_path)
    assert volume.voxels.dtype == np.float32
    expected = [image * (0.5 + k) - 1000 - k for k, image in enumerate(stored)]
    np.testing.assert_allclose(volume.voxels, expected)
    write_series(tmp_path / "beyond int16", np.full((2, 4, 4), 60000, np.uint16), [0, 1])
    volume = read_series(tmp_path / "beyond int16")
    assert volume.voxels.dtype == np.float32
    assert (volume.voxels == 60000 - 1024).all()


def test_positions_rounded_to_a_tenth_are_even(tmp_path, stored):
    write_series(tmp_path, stored, np.round(np.arange(6) * 1.25, 1))
    assert read_series(tmp_path).spacing_xyz_mm[2] == pytest.approx(1.25, abs=0.03)


def test_padding_is_kept_unless_asked_otherwise(tmp_path):
    stored = np.full((2, 4, 4), 1024, np.int16)
    stored[:, 0] = -2000
    for k, image in enumerate(stored):
        dataset = ct_slice(image, (0, 0, k))
        dataset.add_new("PixelPaddingValue", "US", 63536)  # -2000, as many scanners write it
        save(dataset, tmp_path / f"{k}.dcm")
    assert (read_series(tmp_path).voxels[:, 0] == -3024).all()
    air = read_series(tmp_path, padding_hu=-1000).voxels
    assert (air[:, 0] == -1000).all()
    assert (air[:, 1:] == 0).all()


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
    gap = f"PATIENT-1: 5 mm gap between slices {missing} and {missing + 1}.*allow_gaps"
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
    write_series(tmp_path, stored, Z)
    save(ct_slice(stored[2] * 0, (-20, 30, Z[2]), instance=99), tmp_path / "again.dcm")
    with pytest.raises(InputError, match="same position.*allow_doubles"):
        read_series(tmp_path)
    np.testing.assert_array_equal(read_series(tmp_path, allow_doubles=True).voxels, stored - 1024)


def test_a_tilted_gantry_is_refused(tmp_path, stored):
    for k, image in enumerate(stored):
        save(ct_slice(image, (0, np.tan(np.radians(12)) * Z[k], Z[k])), tmp_path / f"{k}.dcm")
    with pytest.raises(InputError, match=r"gantry tilt of 12\.0 degrees"):
        read_series(tmp_path)


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
        (lambda d: setattr(d, "PixelSpacing", [0, 0.5]), "no usable position.*PixelSpacing"),
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


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.99])
def test_truncated_files_are_named(tmp_path, stored, keep):
    path = write_series(tmp_path, stored, Z)[4]
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(InputError, match=path.name):
        read_series(tmp_path)


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
        ("rgb.mha", sitk.Image([4, 4, 4], sitk.sitkVectorInt16, 3), "3 value"),
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


@pytest.mark.parametrize("left", [None, 100])
def test_a_missing_or_truncated_raw_is_an_error(tmp_path, stored, left):
    sitk.WriteImage(image_of(stored), str(tmp_path / "scan.mhd"))
    raw = tmp_path / "scan.raw"
    if left is None:
        raw.unlink()
    else:
        raw.write_bytes(raw.read_bytes()[:left])
    with pytest.raises(InputError, match=r"scan\.mhd: not readable"):
        read_image(tmp_path / "scan.mhd")


@pytest.mark.parametrize("name", ["scan.mha", "scan.nii", "scan.nii.gz", "scan.nrrd"])
@pytest.mark.parametrize("keep", [0.5, 0.98])
def test_a_file_that_is_cut_short_is_not_filled_up_with_zeros(tmp_path, stored, name, keep):
    path = tmp_path / name
    sitk.WriteImage(image_of(stored), str(path))
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(InputError, match="not readable"):
        read_image(path)
