"""One reader against the others: worked by hand, then on LIDC-IDRI."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from labkit.annotations import lidc
from labkit.evaluation import readers
from labkit.evaluation.statistics import roc_auc
from tests.evaluation.tables import refused


def _annotations(ratings: dict[str, list[int]], patients: dict[str, str] | None = None):
    rows = [(n, (patients or {}).get(n, n), r) for n, each in ratings.items() for r in each]
    return pd.DataFrame(rows, columns=["nodule_id", "patient_id", "malignancy"])


def test_every_reader_meets_the_median_of_the_others():
    table = readers.comparisons(_annotations({"a": [5, 4, 1], "b": [3, 3, 3], "c": [1, 5]}))
    # a: 5 against (4, 1) = 2.5; 4 against (5, 1) = 3, undecided; 1 against (5, 4) = 4.5. b: nobody
    # decides. c: too few readers.
    found = table[["nodule_id", "opinion", "label"]].to_numpy().tolist()
    assert found == [["a", 5, 0], ["a", 1, 1]]
    two = readers.comparisons(_annotations({"c": [1, 5]}), min_readers=2)
    assert two[["opinion", "label"]].to_numpy().tolist() == [[1, 1], [5, 0]]


def test_readers_who_agree_score_one_and_readers_who_guess_a_half():
    agree = _annotations({f"n{i}": [5 - 4 * (i % 2)] * 4 for i in range(20)})
    found = readers.against_the_rest(agree, resamples=50)
    assert found.auc.value == 1 and found.undecided == 0
    assert [p.value for p in (*found.strict, *found.lenient)] == [1, 1, 1, 1]
    assert (found.nodules, found.patients, found.comparisons) == (20, 20, 80)
    rng = np.random.default_rng(0)
    guess = _annotations({f"n{i}": rng.integers(1, 6, size=4).tolist() for i in range(3000)})
    found = readers.against_the_rest(guess, resamples=50)
    assert found.auc.value == pytest.approx(0.5, abs=0.03)
    # Of five equally likely opinions two are above 3, and three are 3 or above.
    assert found.strict[0].value == pytest.approx(0.4, abs=0.03)
    assert found.lenient[0].value == pytest.approx(0.6, abs=0.03)
    assert found.undecided == pytest.approx(0.2, abs=0.03)


def test_a_score_is_judged_in_the_same_comparisons():
    rng = np.random.default_rng(1)
    ratings = {
        f"n{i}": (rng.integers(1, 4) + rng.integers(0, 3, size=4)).tolist() for i in range(90)
    }
    annotations = _annotations(ratings, {n: f"p{int(n[1:]) // 2}" for n in ratings})
    mean = {n: float(np.mean(r)) for n, r in ratings.items() if n != "n0"}
    found = readers.against_the_rest(annotations, mean, resamples=100)
    table = readers.comparisons(annotations)
    table = table[table["nodule_id"] != "n0"]
    auc = roc_auc(table["label"], table["nodule_id"].map(mean))
    assert found.score_auc.value == pytest.approx(auc)
    assert found.auc.value == pytest.approx(roc_auc(table["label"], table["opinion"]))
    assert found.difference.value == pytest.approx(found.score_auc.value - found.auc.value)
    assert found.comparisons == len(table) and found.nodules == table["nodule_id"].nunique()


def test_more_comparisons_of_a_patient_do_not_make_it_surer():
    rng = np.random.default_rng(2)
    ratings = {f"n{i}": rng.integers(1, 6, size=4).tolist() for i in range(80)}
    twice = {**ratings, **{f"{n}x": r for n, r in ratings.items()}}
    patients = {n: n.rstrip("x") for n in twice}
    once, again = (readers.against_the_rest(_annotations(*of), resamples=200)
                   for of in ((ratings,), (twice, patients)))  # fmt: skip
    assert again.comparisons == 2 * once.comparisons
    for one, two in ((again.auc, once.auc), (again.strict[0], once.strict[0])):
        assert dataclasses.astuple(one) == pytest.approx(dataclasses.astuple(two))


def test_lidcs_four_reader_nodules_give_the_known_numbers():
    # 1,766 comparisons, an opinion's AUC of 0.824, and 0.936 of the mean diameter.
    table = lidc.annotations()
    four = table[(table["slice_thickness_mm"] <= 2.5) & (table["readers"] == 4)]
    diameter = four.groupby("nodule_id")["diameter_mm"].mean()
    found = readers.against_the_rest(four, diameter, resamples=300)
    assert found.comparisons == 1766
    assert found.auc.value == pytest.approx(0.824, abs=5e-4)
    assert found.score_auc.value == pytest.approx(0.936, abs=5e-4)
    assert found.difference.low > 0.05
    assert found.strict[0].value < found.lenient[0].value
    assert found.strict[1].value > found.lenient[1].value


def test_annotations_that_cannot_be_judged_are_refused():
    good = _annotations({"a": [5, 4, 4], "b": [1, 2, 1]})
    judge = readers.against_the_rest
    refused("lack the columns malignancy", judge, good.drop(columns="malignancy"))
    refused("rated 1 to 5", judge, good.assign(malignancy=0))
    refused("2 or more", judge, good, min_readers=1)
    refused("no nodule has both", judge, good, {"elsewhere": 0.5})
    refused("no nodule is left", judge, good, min_readers=4)
