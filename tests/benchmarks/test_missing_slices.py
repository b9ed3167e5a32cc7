"""Cut cubes are the whole ones on the slices that readers outlined, and air elsewhere."""

import numpy as np
import pytest

from benchmarks.missing_slices import CUT, WHOLE, _stored, missing_slices, own_slices
from labkit.annotations import lidc
from labkit.cohorts.cohort import Cohort, write_cohort


@pytest.fixture(scope="module")
def of_nodules(tmp_path_factory):
    """Cubes of noise around real nodules, labelled by their readers, brighter where malignant."""
    folder, rng = tmp_path_factory.mktemp("cubes") / "noise", np.random.default_rng(0)
    table = lidc.nodules(min_readers=3, max_slice_thickness_mm=2.5).dropna(subset="label")
    table = table.drop_duplicates("patient_id").groupby("label").head(15)
    with write_cohort(folder, len(table), source="noise", simulated=True) as add:
        for row in table.to_dict("records"):
            cube = rng.normal(-400 + 300 * row["label"], 100, (64, 64, 64))
            add(row, cube, np.zeros((9, 76, 76)))
    return Cohort.open(folder)


def test_every_slice_that_a_reader_outlined_is_kept_and_no_other(of_nodules):
    for nodule in of_nodules.nodules.head(10).to_dict("records"):
        kept = np.flatnonzero(own_slices(nodule["nodule_id"]))
        z = np.array([of.z_mm for of in lidc.contours(nodule["nodule_id"])])
        high, low = z.max() - nodule["center_z_mm"], z.min() - nodule["center_z_mm"]
        half = nodule["slice_spacing_mm"] / 2
        assert len(kept) == pytest.approx(high - low + 2 * half, abs=1)
        assert (np.diff(kept) == 1).all()
        assert kept[0] - 31.5 == pytest.approx(low - half, abs=1)


def test_a_cut_cube_is_the_whole_one_on_its_own_slices_and_air_elsewhere(of_nodules, tmp_path):
    whole, cut = (_stored(of_nodules, tmp_path / kind, kind == CUT) for kind in (WHOLE, CUT))
    assert cut.nodules["nodule_id"].tolist() == whole.nodules["nodule_id"].tolist()
    for row, nodule in enumerate(whole.nodules["nodule_id"]):
        here = own_slices(nodule)
        np.testing.assert_array_equal(cut.cubes[row][here], whole.cubes[row][here])
        assert (cut.cubes[row][~here] == -1000).all()


def test_what_needs_no_other_slices_loses_nothing_by_them(of_nodules, tmp_path):
    """The diameter is no image: it is the same on both, and what is finished is not fitted anew."""
    *_, found = missing_slices(
        of_nodules.folder, runs=tmp_path, methods=["size"], folds=2, resamples=50, progress=False
    )
    assert found["comparisons"]["size"]["auc_difference"]["value"] == 0
    assert found["slices"]["least"] > 1
    first = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/*.json")}
    list(missing_slices(of_nodules.folder, runs=tmp_path, methods=["size"], folds=2, resamples=50))
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/*.json")} == first
