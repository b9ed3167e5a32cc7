"""Operating points: read off by hand, as the curve has them, and less good elsewhere."""

import numpy as np
import pandas as pd
import pytest

from labkit.errors import InputError
from labkit.evaluation import froc
from tests.evaluation.luna_by_hand import EXCLUDED, MARKS, NODULES, SCANS

BY_HAND = (MARKS, NODULES, EXCLUDED, SCANS)


def programme(scans: int, seed: int):
    """Scans with a nodule each and ten other marks, whose scores overlap."""
    rng = np.random.default_rng(seed)
    uids = [f"{i:05d}" for i in range(scans)]
    nodules = pd.DataFrame(
        {"seriesuid": uids, "x_mm": 0.0, "y_mm": 0.0, "z_mm": 0.0, "diameter_mm": 8.0}
    )
    found = nodules.drop(columns="diameter_mm").assign(probability=rng.normal(2, 1, scans))
    others = pd.DataFrame({"seriesuid": np.repeat(uids, 10), "x_mm": 50.0, "y_mm": 0.0})
    others = others.assign(z_mm=0.0, probability=rng.normal(size=10 * scans))
    return pd.concat([found, others], ignore_index=True), nodules, nodules[:0], uids


def test_points_of_the_case_by_hand():
    points = froc.points(*BY_HAND)
    assert points["threshold"].tolist() == [np.inf, 0.95, 0.85, 0.7, 0.6, 0.5]
    assert points["false_positives_per_scan"].tolist() == [0, 0, 0.25, 0.5, 0.5, 0.75]
    assert (3 * points["sensitivity"]).round(9).tolist() == [0, 1, 1, 1, 2, 2]


def test_the_cheapest_point_that_reaches_a_sensitivity():
    points = froc.points(*BY_HAND)
    assert froc.at_sensitivity(points, 2 / 3) == froc.Point(0.6, 0.5, 2 / 3)
    assert froc.at_sensitivity(points, 0.1).threshold == 0.95
    for never in (0.9, 1.1, 0.0):
        with pytest.raises(InputError, match="no threshold"):
            froc.at_sensitivity(points, never)


def test_a_threshold_from_elsewhere_need_not_be_among_the_scores():
    points = froc.points(*BY_HAND)
    assert froc.at_threshold(points, 0.65) == froc.Point(0.65, 0.5, 1 / 3)
    assert froc.at_threshold(points, 0.6).sensitivity == 2 / 3
    assert froc.at_threshold(points, 0.99).sensitivity == 0
    assert froc.at_threshold(points, -5.0).false_positives_per_scan == 0.75


def test_points_lie_on_the_curve_of_froc():
    case = programme(60, 3)
    points, curve = froc.points(*case), froc.evaluate(*case, bootstraps=0)
    at = points.set_index("threshold").loc[curve.thresholds]
    np.testing.assert_allclose(at["sensitivity"], curve.curve_sensitivity)
    np.testing.assert_allclose(at["false_positives_per_scan"], curve.false_positives_per_scan)


def test_costs_add_up():
    cost = froc.cost(
        froc.Point(0.3, 4.0, 0.75), nodules_a_person=0.5, seconds_a_mark=30, people=200
    )
    assert (cost.nodules, cost.found, cost.missed, cost.false_marks) == (100, 75, 25, 800)
    assert cost.hours == pytest.approx(875 / 120)
    assert cost.share_true == pytest.approx(75 / 875)
    none = froc.cost(froc.Point(np.inf, 0, 0), nodules_a_person=1, seconds_a_mark=1)
    assert none.share_true == 0 and none.missed == 1000
    with pytest.raises(InputError, match="seconds_a_mark -1"):
        froc.cost(froc.Point(0, 0, 0), nodules_a_person=1, seconds_a_mark=-1)


def test_what_was_chosen_is_kept_elsewhere_only_on_average_and_less_the_luck():
    case = programme(400, 0)
    splits = froc.transferred(*case, sensitivity=0.8, splits=100)
    assert (splits["sensitivity_chosen"] >= 0.8).all()
    assert (splits["sensitivity_chosen"] < 0.81).all()  # 200 nodules: steps of half a point
    assert abs(splits["sensitivity_elsewhere"].mean() - 0.8) < 0.02
    # A sample's own threshold always reaches; on other scans it falls short half of the time.
    short = (splits["sensitivity_elsewhere"] < 0.8).mean()
    assert 0.3 < short < 0.7
    again = froc.transferred(*case, sensitivity=0.8, splits=100)
    pd.testing.assert_frame_equal(splits, again)


def test_halves_are_judged_as_they_would_be_alone():
    case = programme(6, 1)
    (split,) = froc.transferred(*case, sensitivity=0.6, splits=1).to_dict("records")
    chosen = np.random.default_rng(0).permutation(6)[:3]
    here = [case[3][i] for i in chosen]
    for scans, end in ((here, "chosen"), (sorted(set(case[3]) - set(here)), "elsewhere")):
        own = [table[table["seriesuid"].isin(scans)] for table in case[:3]]
        at = froc.at_threshold(froc.points(*own, scans), split["threshold"])
        assert at.sensitivity == pytest.approx(split[f"sensitivity_{end}"])
        assert at.false_positives_per_scan == pytest.approx(split[f"false_positives_{end}"])


def test_what_cannot_be_split_is_said():
    with pytest.raises(InputError, match="2 or more"):
        froc.transferred(MARKS, NODULES, EXCLUDED, ["a"], 0.5)
    missed = (MARKS[MARKS["probability"] == 0.85], NODULES, EXCLUDED, SCANS)
    with pytest.raises(InputError, match="in none of"):
        froc.transferred(*missed, sensitivity=0.5)
