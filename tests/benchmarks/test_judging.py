"""The benchmark of judging runs, small, and what it judges is of LUNA-16's proportions."""

import numpy as np

from benchmarks.speed import judging
from labkit.annotations import lidc, luna16
from labkit.evaluation import froc

SMALL = judging.Size(scans=20, candidates=60, views=(0, 8), resamples=20)


def test_every_step_has_its_seconds_and_its_memory():
    judged = judging.judge(SMALL)
    assert judged["candidates"] == 20 * 60 and judged["predictions"] == 4 * 20 * 60
    assert list(judged["steps"])[-1] == "all of table 1, two models"
    steps = judged["steps"].values()
    # A step of so few candidates may take less than the hundredth that is written down.
    assert all(of["seconds"] >= 0 and of["peak_gb"] > 0 for of in steps)
    assert judged["steps"]["all of table 1, two models"]["seconds"] > 0
    assert judged["peak_gb"] == max(of["peak_gb"] for of in judged["steps"].values())


def test_positives_are_those_that_hit_and_the_scans_are_real(tmp_path):
    cohort = judging.made_cohort(tmp_path / "cohort", SMALL, seed=1)
    marks = froc.marks(
        cohort, cohort.nodules.assign(view="fused", repeat=0, fold=0, probability=0.5)
    )
    found = luna16.label(marks, luna16.read_annotations(cohort.folder / "annotations.csv"))
    np.testing.assert_array_equal(found["class"], cohort.nodules["label"])
    assert cohort.nodules["label"].sum() == round(judging.POSITIVES * 20 / judging.SCANS)
    assert set(cohort.nodules["series_uid"]) <= set(lidc.luna16_series())
    folds = cohort.nodules.groupby("series_uid")["subset"].nunique()
    assert (folds == 1).all()
