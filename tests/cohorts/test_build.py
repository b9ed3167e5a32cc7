"""Cohorts from DICOM and from cubes: the nodule in the middle, and what is left out is told."""

import hashlib
import shutil

import numpy as np
import pydicom
import pytest

from labkit import doctor
from labkit.annotations import lidc
from labkit.cohorts.build import build_cubes, build_lidc
from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.imaging.views import nine_views
from labkit.imaging.volume import Volume
from tests.dicom_phantom import save, write_series

# --- LIDC-IDRI's DICOM --------------------------------------------------------------------------


def of_patient(number):
    """The nodules of a patient with one scan."""
    table = lidc.nodules()
    table = table[table["patient_id"] == f"LIDC-IDRI-{number:04d}"]
    assert table["series_uid"].nunique() == 1
    return table


def write_scan(folder, nodules, drop=(), reach_mm=40):
    """A part of a scan, as it is in LIDC: air, and a ball of 8 mm where each nodule is.

    The slices within a reach of the nodules, but for some, numbered from the lowest.
    """
    uid = nodules["series_uid"].iloc[0]
    spacing = float(nodules["pixel_spacing_mm"].iloc[0])
    z = np.unique(lidc.slice_z_mm(uid))
    reach = np.min(np.abs(z[:, None] - nodules["center_z_mm"].to_numpy()), axis=1)
    z = z[reach < reach_mm]
    rows, columns = np.ogrid[:512, :512]
    stored = np.zeros((len(z), 512, 512), np.int16)
    for nodule in nodules.itertuples():
        in_plane = np.hypot(rows - nodule.center_row_px, columns - nodule.center_col_px) * spacing
        for k, height in enumerate(z - nodule.center_z_mm):
            stored[k][np.hypot(in_plane, height) < 8] = 1000
    keep = np.setdiff1d(np.arange(len(z)), drop)
    return write_series(
        folder, stored[keep], z[keep], series_uid=uid, pixel_spacing_mm=(spacing, spacing),
        intercept=-1000, patient_id=nodules["patient_id"].iloc[0],
    )  # fmt: skip


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Three scans in a folder tree of no particular order: sound, with a gap, and truncated."""
    folder = tmp_path_factory.mktemp("scans")
    write_scan(folder / "anything", of_patient(1))
    write_scan(folder / "b" / "c", of_patient(5), drop=[4])
    broken = write_scan(folder / "b" / "d", of_patient(7))[3]
    broken.write_bytes(broken.read_bytes()[:9000])
    (folder / "b" / "max.xml").write_text("<LidcReadMessage/>")
    return folder


def test_scans_that_are_there_are_built_and_the_others_reported(scans, tmp_path):
    report = build_lidc(scans, tmp_path / "c", progress=False)
    status = report.scans.set_index("patient_id")["status"]
    assert status["LIDC-IDRI-0001"] == "built"
    assert status["LIDC-IDRI-0005"] == status["LIDC-IDRI-0007"] == "failed"
    assert (status.drop([f"LIDC-IDRI-000{k}" for k in (1, 5, 7)]) == "missing").all()
    assert len(report.scans) == lidc.nodules()["series_uid"].nunique()
    reasons = report.problems.set_index("patient_id")["reason"]
    assert "slices, none at z" in reasons["LIDC-IDRI-0005"]
    assert "021-3.dcm: truncated" in reasons["LIDC-IDRI-0007"]
    told = str(report)
    assert "2 failed" in told and "left out: max.xml" in told
    # Cut beyond all that is cut out of it: told, and nothing wrong.
    assert "of its 133 slices" in told and "built: LIDC-IDRI-0001-s1-n0" in told
    cohort = Cohort.open(tmp_path / "c")
    assert cohort.nodules["nodule_id"].tolist() == of_patient(1)["nodule_id"].tolist()
    assert cohort.simulated is False
    assert cohort.meta["settings"]["min_readers"] == 3


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A scan's part that reaches 60 mm from its nodule, from the feet to the head; its cohort."""
    folder = tmp_path_factory.mktemp("wide")
    files = write_scan(folder / "scan", of_patient(1), reach_mm=60)
    report = build_lidc(folder, folder / "c", patients=["LIDC-IDRI-0001"], progress=False)
    return files, Cohort.open(report.folder)


@pytest.mark.parametrize(
    ("damage", "reason", "partly"),
    [
        (lambda files: [f.unlink() for f in files[30:]], "30 of its 133 slices, none at z", False),
        (lambda files: files[20].unlink(), "47 of its 133 slices, none at z", False),
        (lambda files: files[0].write_bytes(b""), "000-0.dcm: empty", True),
        (
            lambda files: files[0].write_bytes(files[0].read_bytes()[:-9]),
            "000-0.dcm: truncated or damaged pixels",
            True,
        ),
        (lambda files: [f.unlink() for f in (files[1], files[-3])], "46 of its 133 slices", True),
    ],
)
def test_an_incomplete_scan_is_refused_or_gives_what_is_whole(
    wide, tmp_path, damage, reason, partly
):
    folder, (files, sound) = tmp_path / "scan", wide
    shutil.copytree(files[0].parent, folder)
    damage([folder / file.name for file in files])
    how = {"patients": ["LIDC-IDRI-0001"], "progress": False}
    with pytest.raises(InputError, match=reason) as caught:
        build_lidc(folder, tmp_path / "c", **how)
    # Of pixels that are cut short the reader tells.
    assert "--allow-incomplete" in str(caught.value) or "truncated or damaged pixels" in reason
    if not partly:
        with pytest.raises(InputError, match="no nodule is whole in what is there"):
            build_lidc(folder, tmp_path / "c", allow_incomplete=True, **how)
        return
    report = build_lidc(folder, tmp_path / "c", allow_incomplete=True, **how)
    assert report.scans["built"].tolist() == [1]
    assert "incomplete" in str(report) and "built: LIDC-IDRI-0001-s1-n0" in str(report)
    for name in ("cubes", "views"):
        pair = [getattr(c, name).astype(int) for c in (Cohort.open(report.folder), sound)]
        assert np.abs(pair[0] - pair[1]).max() <= 1


def test_slices_where_the_scan_has_none_are_refused_and_copies_are_one_slice(tmp_path):
    files = write_scan(tmp_path / "a", of_patient(1), reach_mm=39)
    shutil.copytree(tmp_path / "a", tmp_path / "a (copy)")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "back").symlink_to(tmp_path, target_is_directory=True)
    how = {"patients": ["LIDC-IDRI-0001"], "progress": False}
    report = build_lidc(tmp_path / "links", tmp_path / "c", **how)
    assert report.scans["built"].tolist() == [1]
    dataset = pydicom.dcmread(files[5])
    dataset.ImagePositionPatient[2] += 1.25
    save(dataset, files[5])
    with pytest.raises(InputError, match="1 of .* slices lie where LIDC-IDRI has none"):
        build_lidc(tmp_path, tmp_path / "c", **how)


def test_slices_that_were_cropped_in_plane_are_refused_and_other_series_are_told(tmp_path):
    files = write_scan(tmp_path / "a", of_patient(1), reach_mm=39)
    other = write_series(tmp_path / "b", np.zeros((3, 8, 8), np.int16), [0, 1, 2])
    report = build_lidc(tmp_path, tmp_path / "c", progress=False)
    assert f"left out: 1 other series ({len(other)} files)" in str(report)
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.PixelData = np.ascontiguousarray(dataset.pixel_array[90:, 90:]).tobytes()
        dataset.Rows = dataset.Columns = 422
        save(dataset, file)
    with pytest.raises(InputError, match=r"slices of \(422, 422\) pixels"):
        build_lidc(tmp_path, tmp_path / "c", progress=False)


def test_doctor_reads_a_folder_as_a_build_would_and_changes_nothing(scans, tmp_path):
    before = sorted(path for path in scans.rglob("*"))
    told = doctor.of_folder(scans)
    assert "1 take, 2 refuse" in told.splitlines()[0]
    assert "of its 133 slices" in told and "max.xml" in told
    assert "LIDC-IDRI-0005-s" not in told
    assert sorted(path for path in scans.rglob("*")) == before
    cubes = arrays(cubes=np.full((3, 64, 64, 64), 1064, np.int16))
    np.savez(tmp_path / "up.npz", **cubes)
    saved(tmp_path)
    told = doctor.of_folder(tmp_path)
    assert "1 take, 1 refuse" in told and "not rescaled" in told
    with pytest.raises(InputError, match="no such folder"):
        doctor.of_folder(tmp_path / "nowhere")


def test_the_nodule_is_in_the_middle_of_its_cube_and_views(scans, tmp_path):
    two = ["LIDC-IDRI-0001", "LIDC-IDRI-0005"]
    report = build_lidc(scans, tmp_path / "c", patients=two, allow_gaps=True, progress=False)
    assert set(report.scans["status"]) == {"built"}
    cohort = Cohort.open(tmp_path / "c")
    assert len(cohort) == len(of_patient(1)) + len(of_patient(5))
    rows, columns = np.indices((76, 76)) - 37.5
    near = np.hypot(rows, columns) < 12
    for views in cohort.views:
        for view in views:
            light = np.where(near, np.clip(view, -1000, 0) + 1000.0, 0)
            middle = [(light * axis).sum() / light.sum() for axis in (rows, columns)]
            assert middle == pytest.approx((0, 0), abs=0.7)
            assert light.sum() / 1000 == pytest.approx(np.pi * 8**2, rel=0.1)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"exclude_patients": ["LIDC-IDRI-1"]}, "no such patient"),
        ({"patients": "LIDC-IDRI-0001"}, "give a list"),
        ({"patients": ["LIDC-IDRI-0001"], "exclude_patients": ["LIDC-IDRI-0001"]}, "no nodule is"),
        ({"patients": ["LIDC-IDRI-0005"]}, r"none of the scans.*incomplete"),
        ({"folder": "without"}, "is among the 1 DICOM series"),
        ({"folder": "nowhere"}, "no such folder"),
    ],
)
def test_what_makes_no_cohort_is_refused_and_leaves_nothing(scans, tmp_path, choice, message):
    write_series(tmp_path / "in" / "without", np.zeros((3, 8, 8), np.int16), [0, 1, 2])
    folder = tmp_path / "in" / choice.pop("folder") if "folder" in choice else scans
    with pytest.raises(InputError, match=message):
        build_lidc(folder, tmp_path / "out" / "c", progress=False, **choice)
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.real
def test_real_scan_becomes_a_cohort(real_dicom, real_cubes, tmp_path):
    report = build_lidc(real_dicom, tmp_path / "c", progress=False)
    assert report.scans["status"].value_counts().to_dict() == {"missing": 607, "built": 1}
    cohort = Cohort.open(tmp_path / "c")
    (nodule,) = cohort.nodules.itertuples()
    assert nodule.patient_id == "LIDC-IDRI-0001"
    assert nodule.label == 1
    # Soft tissue in the middle, lung beside it, and the same picture as in the real cubes.
    assert 0 < np.median(cohort.cubes[0, 28:36, 28:36, 28:36]) < 100
    assert -950 < np.percentile(cohort.cubes[0], 10) < -750
    with np.load(real_cubes) as file:
        stored = file["cubes"][0]
    slices = np.flatnonzero(stored.any(axis=(1, 2)))
    ours = np.clip(cohort.cubes[0, slices], -1000, 400).ravel()
    assert np.corrcoef(ours, stored[slices].ravel())[0, 1] > 0.99


# --- cubes --------------------------------------------------------------------------------------


def arrays(n=3, **change):
    """What a good .npz holds: noise in every voxel."""
    noise = np.random.default_rng(0).integers(1, 256, (n, 64, 64, 64)).astype(np.uint8)
    good = {
        "cubes": noise, "nodule_id": np.array([f"n{k}" for k in range(n)]),
        "patient_id": np.array([f"p{k // 2}" for k in range(n)]),
        "malignancy_median": np.array([5.0, 1.5, 3.0][:n]),
        "diameter_mm": np.array([12.0, 4.5, 7.0][:n]),
    } | change  # fmt: skip
    return {key: value for key, value in good.items() if value is not None}


def saved(folder, **change):
    np.savez(folder / "in.npz", **arrays(**change))
    return folder / "in.npz"


def test_uint8_cubes_are_hu_by_the_stated_rule(tmp_path):
    path = saved(tmp_path)
    cohort = build_cubes(path, tmp_path / "c", progress=False)
    expected = np.rint(-1000 + 1400 * arrays()["cubes"].astype(float) / 255)
    np.testing.assert_array_equal(cohort.cubes, expected)
    assert cohort.nodules["label"].fillna(-1).tolist() == [1, 0, -1]
    assert cohort.nodules["diameter_mm"].tolist() == [12.0, 4.5, 7.0]
    assert cohort.meta["settings"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_views_are_cut_through_the_middle_of_each_cube_with_air_beyond(tmp_path):
    cubes = np.random.default_rng(1).integers(-900, 400, (1, 64, 64, 64)).astype(np.int16)
    path = saved(tmp_path, n=1, cubes=cubes)
    cohort = build_cubes(path, tmp_path / "c", progress=False)
    np.testing.assert_array_equal(cohort.cubes, cubes)
    views = nine_views(Volume(cubes[0], (1, 1, 1)), (31.5, 31.5, 31.5), 76)
    np.testing.assert_allclose(cohort.views[0], views, atol=0.51)
    assert (cohort.views[0, :3, :6] == -1000).all()
    assert (cohort.views[0, :3, :, -6:] == -1000).all()


def test_slices_that_were_not_scanned_do_not_bend_the_axial_view(tmp_path):
    # Two slices of 40 HU in air: a spline through the air would overshoot between them.
    cubes = np.full((1, 64, 64, 64), -1000, np.int16)
    cubes[:, 31:33] = 40
    cohort = build_cubes(saved(tmp_path, n=1, cubes=cubes), tmp_path / "c", progress=False)
    assert (cohort.views[0, 0, 6:70, 6:70] == 40).all()
    coronal = cohort.views[0, 1, :, 38]
    assert sorted(set(coronal.tolist())) == [-1000, 40]
    assert (coronal == 40).sum() == 2


def test_other_columns_go_along_and_labels_may_be_given(tmp_path):
    path = saved(
        tmp_path, malignancy_median=None, label=np.array([0, 1, 1]), readers=np.array([4, 3, 4]),
        ratings=np.array(["5|4", "1|2", "3|3"]), not_a_column=np.zeros((3, 2)),
    )  # fmt: skip
    table = build_cubes(path, tmp_path / "c", progress=False).nodules
    assert table["label"].tolist() == [0, 1, 1]
    assert table["readers"].tolist() == [4, 3, 4]
    assert table["ratings"].tolist() == ["5|4", "1|2", "3|3"]
    assert "not_a_column" not in table


def test_patients_of_cubes_can_be_chosen_and_left_out(tmp_path):
    path = saved(tmp_path)
    kept = build_cubes(path, tmp_path / "kept", patients=["p0"], progress=False)
    left = build_cubes(path, tmp_path / "left", exclude_patients=iter(["p0"]), progress=False)
    assert kept.nodules["nodule_id"].tolist() == ["n0", "n1"]
    assert left.nodules["nodule_id"].tolist() == ["n2"]
    np.testing.assert_array_equal(left.cubes[0], build_cubes(path, tmp_path / "all").cubes[2])
    for names in (["0"], ["p0", "p0x"], ["P0"]):
        with pytest.raises(InputError, match=f"no such patient: {names[-1]!r}.*there is 'p0'"):
            build_cubes(path, tmp_path / "c", exclude_patients=names)
    with pytest.raises(InputError, match="no nodule is left"):
        build_cubes(path, tmp_path / "c", exclude_patients=["p0", "p1"])


RNG = np.random.default_rng(2)
# Lung with balls of tissue.
CUBES = RNG.normal(np.where(np.hypot(*np.indices((64, 64)) - 31.5) < 8, 40, -850), 20,
                   (3, 64, 64, 64)).astype(np.int16)  # fmt: skip


def test_padding_of_cubes_is_air(tmp_path):
    cubes = CUBES.copy()
    cubes[:, :, :5] = -2000
    cohort = build_cubes(saved(tmp_path, cubes=cubes), tmp_path / "c", progress=False)
    np.testing.assert_array_equal(cohort.cubes, np.where(cubes == -2000, -1000, cubes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cubes": None}, "no array cubes"),
        ({"patient_id": None}, "no array patient_id"),
        ({"malignancy_median": None}, "no array malignancy_median or label"),
        ({"cubes": np.zeros((3, 32, 32, 32), np.uint8)}, r"not \(N, 64"),
        ({"cubes": np.zeros((0, 64, 64, 64), np.uint8)}, r"not \(N, 64"),
        ({"cubes": np.zeros((3, 64, 64, 64), np.float32)}, "float32; store HU as int16"),
        ({"cubes": 1024 + CUBES}, "n0: values .* not rescaled"),
        ({"cubes": CUBES.byteswap()}, "n0: values .* byte order"),
        ({"cubes": np.pad(CUBES[:, :, :60], ((0, 0), (0, 0), (0, 4), (0, 0)))}, "n0: zeros beyond"),
        ({"cubes": np.full((3, 64, 64, 64), 40, np.int16)}, "n0: the cube holds nothing but"),
        ({"diameter_mm": np.array([0.012, 0.0045, 0.007])}, "diameter_mm 0.012; .* in mm"),
        ({"cubes": np.zeros((3, 64, 64, 64), np.uint8)}, "n0: the cube holds nothing but air"),
        ({"nodule_id": np.array(["a", "b", "a"])}, "a comes twice"),
        ({"nodule_id": np.array(["a", "b"])}, "nodule_id has 2 values for 3 cubes"),
        ({"nodule_id": np.array(["a", "b", ""])}, "nodule_id is empty for cube 2"),
        ({"patient_id": np.array(["a", "", "b"])}, "patient_id is empty for cube 1"),
        ({"patient_id": np.array([1.0, 2.0, 3.0])}, "patient_id is float64"),
        ({"nodule_id": np.array(["a", "b", None], dtype=object)}, "not readable .Object arrays"),
        ({"malignancy_median": np.array([5, 6, 1])}, "n1 has malignancy_median 6"),
        ({"malignancy_median": np.array([5, np.nan, 1])}, "n1 has malignancy_median nan"),
        ({"malignancy_median": np.array(["5", "1", "2"])}, "malignancy_median is not numeric"),
        ({"label": np.array([0, 1, 2])}, "n2 has label 2"),
        ({"label": np.array([0, np.nan, 1])}, "n1 has label nan"),
        ({"diameter_mm": np.array([3, -1, 1])}, "n1 has diameter_mm -1"),
        ({"diameter_mm": np.array([3, np.nan, 1])}, "n1 has diameter_mm nan"),
        ({"readers": np.array([3.5, 3, 3])}, "n0 has readers 3.5"),
        ({"label": np.array([0, 0, 0])}, "n0 has label 0, which contradicts its malignancy_median"),
        ({"patient_id": np.array(["P01", "P01 ", "P02"])}, "'P01' and 'P01 ' are most likely one"),
        ({"patient_id": np.array(["P01", "p01", "P02"])}, "'P01' and 'p01' are most likely one"),
        ({"series_uid": np.array(["1.2", "1.3", "1.2"])}, "series 1.2 is of patients p0 and p1"),
        ({"series_uid": np.array(["1.36E+30", "1.3", "1.4"])}, "a spreadsheet made of an id"),
    ],
)
def test_bad_cubes_are_refused_and_leave_nothing(tmp_path, change, message):
    path = saved(tmp_path, **change)
    with pytest.raises(InputError, match=message) as caught:
        build_cubes(path, tmp_path / "c", progress=False)
    assert "in.npz" in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_label_beside_a_median_of_three_is_uncertain(tmp_path):
    path = saved(tmp_path, label=np.array([1, 0, np.nan]))
    assert build_cubes(path, tmp_path / "c", progress=False).labelled.tolist() == [0, 1]


@pytest.mark.parametrize("name", ["nowhere.npz", "cut.npz", "one.npy"])
def test_files_that_are_no_npz_are_refused(tmp_path, name):
    (tmp_path / "cut.npz").write_bytes(saved(tmp_path).read_bytes()[:5000])
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(
        InputError, match="no such file" if name == "nowhere.npz" else "not a whole .npz"
    ):
        build_cubes(tmp_path / name, tmp_path / "c")


@pytest.mark.real
def test_real_cubes_of_a_few_patients(real_cubes, tmp_path):
    with np.load(real_cubes) as file:
        some = sorted(set(file["patient_id"].tolist()))[:5]
        here = np.isin(file["patient_id"], some)
        median = file["malignancy_median"][here]
        ids = file["nodule_id"][here].tolist()
    cohort = build_cubes(real_cubes, tmp_path / "c", patients=some, progress=False)
    assert cohort.nodules["nodule_id"].tolist() == ids
    label = cohort.nodules["label"].astype("float64").to_numpy()
    np.testing.assert_array_equal(label, np.where(median == 3, np.nan, median > 3))
    # The nodule is in the middle: denser than its surroundings in every view.
    middle = cohort.views[:, :, 36:40, 36:40].mean(axis=(2, 3))
    assert (middle > np.median(cohort.views[:, 0, 6:70, 6:70], axis=(1, 2))[:, None]).mean() > 0.9
    cohort.verify()
