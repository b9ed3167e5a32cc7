"""FROC by LUNA-16's rules: worked by hand, against a slow reference, and as properties."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from labkit import cli
from labkit.annotations import luna16
from labkit.errors import InputError
from labkit.evaluation import froc, statistics
from labkit.evaluation.froc import RATES
from tests.evaluation import froc_by_hand

MARK = ["seriesuid", "x_mm", "y_mm", "z_mm", "probability"]
FINDING = ["seriesuid", "x_mm", "y_mm", "z_mm", "diameter_mm"]


def marks(*rows) -> pd.DataFrame:
    return _table(rows, MARK)


def findings(*rows) -> pd.DataFrame:
    return _table(rows, FINDING)


def _table(rows, columns) -> pd.DataFrame:
    table = pd.DataFrame(list(rows), columns=columns)
    return table.astype(dict.fromkeys(columns[1:], float) | {"seriesuid": str})


# Four scans, two of them with nodules, d without any mark.
SCANS = ["a", "b", "c", "d"]
NODULES = findings(
    ("a", 0, 0, 0, 10),
    ("a", 100, 0, 0, 6),
    ("b", 0, 0, 0, 4),
)
EXCLUDED = findings(("a", 50, 0, 0, -1))
MARKS = marks(
    ("a", 1, 0, 0, 0.9),  # 1 mm from the first nodule: hit
    ("a", 0, 4.999, 0, 0.8),  # hits it too, less probably: dropped
    ("a", 100, 0, 3, 0.95),  # on the second one's rim, 3 mm: not less than the radius, false
    ("a", 100, 0, 2.9, 0.7),  # hits it
    ("a", 54.9, 0, 0, 0.99),  # on the excluded finding of unknown size, so of 10 mm: dropped
    ("a", 55, 0, 0, 0.6),  # on its rim: false
    ("b", 0, 0, 2, 0.5),  # on the rim of b's nodule: false, and the nodule is missed
    ("c", 0, 0, 0, 0.85),  # false
)


def test_the_case_worked_by_hand():
    result = froc.evaluate(MARKS, NODULES, EXCLUDED, SCANS, bootstraps=0)
    assert dataclasses.asdict(result.counts) == {
        "scans": 4, "nodules": 3, "detected": 2, "missed": 1, "marks": 8, "false_positives": 4,
        "doubled": 1, "excluded": 1, "over_limit": 0, "elsewhere": 0,
    }  # fmt: skip
    # Descending: 0.95 false, 0.9 found, 0.85 false, 0.7 found, 0.6 false, 0.5 false; over four
    # scans and three nodules the curve is (false a scan, sensitivity)
    expected = [(0, 0), (0.25, 0), (0.25, 1 / 3), (0.5, 1 / 3), (0.5, 2 / 3), (0.75, 2 / 3),
                (1, 2 / 3)]  # fmt: skip
    # of which the last but one lies on a straight line.
    points = np.column_stack([result.false_positives_per_scan, result.curve_sensitivity])
    assert points == pytest.approx(np.array([*expected[:5], expected[6]]))
    assert result.thresholds.tolist() == [np.inf, 0.95, 0.9, 0.85, 0.7, 0.5]
    # At 1/8 the curve is flat at 0; at 1/4 it has jumped to 1/3, at 1/2 to 2/3, where it stays.
    assert result.sensitivity == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert result.cpm == pytest.approx((1 / 3 + 5 * 2 / 3) / 7)
    assert result.threshold_at(0.6) == pytest.approx((0.7, 0.5, 2 / 3))
    assert result.threshold_at(0.1) == (np.inf, 0, 0)


def test_between_two_points_the_curve_is_a_straight_line():
    """A nodule and a false mark tie: no threshold parts them, and half way is half of both."""
    tied = marks(("a", 0, 0, 0, 0.5), ("a", 30, 0, 0, 0.5))
    result = froc.evaluate(tied, findings(("a", 0, 0, 0, 5)), findings(), ["a", "b"], bootstraps=0)
    assert result.sensitivity == pytest.approx([0.25, 0.5, 1, 1, 1, 1, 1])


def test_one_mark_on_two_nodules_finds_both():
    two = findings(("a", 0, 0, 0, 10), ("a", 4, 0, 0, 10))
    one = marks(("a", 2, 0, 0, 0.3), ("a", 9, 9, 9, 0.2))
    result = froc.evaluate(one, two, findings(), ["a"], bootstraps=0)
    counts = result.counts
    assert (counts.detected, counts.false_positives, counts.doubled) == (2, 1, 0)
    assert result.sensitivity == pytest.approx([1] * 7)


def test_the_limit_loses_all_that_tie_with_the_first_mark_beyond():
    three = marks(("a", 0, 0, 0, 0.9), ("a", 50, 0, 0, 0.5), ("a", 90, 0, 0, 0.5))
    nodule = findings(("a", 0, 0, 0, 5))
    kept = {
        limit: froc.evaluate(
            three, nodule, findings(), ["a"], max_marks=limit, bootstraps=0
        ).counts.marks
        for limit in (None, 3, 2, 1)
    }
    assert kept == {None: 3, 3: 3, 2: 1, 1: 1}
    # A hundred and one certain marks are none.
    saturated = marks(*[("a", float(i), 0, 0, 1.0) for i in range(101)])
    result = froc.evaluate(saturated, nodule, findings(), ["a"], bootstraps=0)
    assert (result.counts.marks, result.counts.over_limit, result.cpm) == (0, 101, 0)


def test_hits_on_both_a_nodule_and_an_excluded_finding_are_hits():
    nodule = findings(("a", 0, 0, 0, 5))
    result = froc.evaluate(marks(("a", 0, 0, 0, 0.5)), nodule, nodule, ["a"], bootstraps=0)
    assert (result.counts.detected, result.counts.excluded) == (1, 0)


def test_other_scans_are_not_looked_at():
    alone = froc.evaluate(
        MARKS[MARKS.seriesuid == "a"], NODULES[:2], EXCLUDED, ["a"], bootstraps=20
    )
    amid = froc.evaluate(MARKS, NODULES, EXCLUDED, ["a"], bootstraps=20)
    assert amid.counts == dataclasses.replace(alone.counts, elsewhere=2)
    assert amid.cpm == alone.cpm
    assert amid.band.cpm == alone.band.cpm


# Places on a coarse lattice, so that marks often lie on a rim, share nodules, and tie.
_place = st.tuples(*[st.integers(0, 3).map(float)] * 3)
_uid = st.sampled_from("abcde")  # e is never judged
_mark = st.tuples(_uid, _place, st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.7, 1.0]))
_finding = st.tuples(_uid, _place, st.sampled_from([-1.0, 0.0, 1.0, 2.0, 3.5, 4.0]))
_case = st.fixed_dictionaries(
    {
        "marks": st.lists(_mark, max_size=30),
        "nodules": st.lists(_finding, min_size=1, max_size=6),
        "excluded": st.lists(_finding.filter(lambda f: f[2] >= 0), max_size=4),
        "scans": st.sampled_from([["a"], ["b", "a"], ["a", "b", "c"], ["d", "c", "b", "a"]]),
        "limit": st.sampled_from([None, 1, 2, 3, 5]),
    }
)


def _dicts(rows, last) -> list[dict]:
    return [{"seriesuid": u, "x_mm": x, "y_mm": y, "z_mm": z, last: v} for u, (x, y, z), v in rows]


def _evaluated(case, **changes) -> froc.Froc:
    """labkit's answer to a drawn case that it has to answer."""
    scans = case["scans"]
    assume(any(n[0] in scans for n in case["nodules"]))
    assume(not case["marks"] or any(m[0] in scans for m in case["marks"]))
    given_tables = (
        pd.DataFrame(_dicts(case["marks"], "probability"), columns=MARK),
        pd.DataFrame(_dicts(case["nodules"], "diameter_mm"), columns=FINDING),
        pd.DataFrame(_dicts(case["excluded"], "diameter_mm"), columns=FINDING),
    )
    return froc.evaluate(
        *given_tables, scans, max_marks=case["limit"], **{"bootstraps": 0, **changes}
    )


def _by_hand(case) -> froc_by_hand.Lists:
    return froc_by_hand.sort_out(
        _dicts(case["marks"], "probability"),
        _dicts(case["nodules"], "diameter_mm"),
        _dicts(case["excluded"], "diameter_mm"),
        case["scans"],
        case["limit"],
    )


@settings(max_examples=120, deadline=None)
@given(_case)
def test_counts_and_curve_are_the_slow_ones_to_the_last_bit(case):
    result = _evaluated(case)
    slow = _by_hand(case)
    counted = dataclasses.asdict(result.counts)
    assert {name: counted[name] for name in slow.tally} == slow.tally
    x, y, thresholds = froc_by_hand.curve(slow, case["scans"])
    np.testing.assert_array_equal(result.false_positives_per_scan, x)
    np.testing.assert_array_equal(result.curve_sensitivity, y)
    np.testing.assert_array_equal(result.thresholds, thresholds)
    np.testing.assert_array_equal(result.sensitivity, np.interp(RATES, x, y))
    assert result.cpm == np.mean(np.interp(RATES, x, y))


@settings(max_examples=30, deadline=None)
@given(_case, st.integers(0, 5))
def test_bands_are_those_of_the_scans_drawn_again_one_by_one(case, seed):
    scans = sorted(case["scans"])
    resamples = 40
    weights = statistics.resample_weights(len(scans), None, resamples, seed).astype(int)
    slow = _by_hand(case)
    with_nodule = [n for n in case["nodules"] if n[0] in scans]
    heights = []
    for times in weights:
        drawn = [uid for uid, n in zip(scans, times, strict=True) for _ in range(n)]
        if any(n[0] in drawn for n in with_nodule):
            heights.append(np.interp(RATES, *froc_by_hand.curve(slow, drawn)[:2]))
    assume(heights)
    band = _evaluated(case, bootstraps=resamples, seed=seed).band
    assert band.resamples == len(heights)
    ordered = np.sort(heights, axis=0)
    low, high = int(0.025 * len(heights)), int(0.975 * len(heights))
    for i, interval in enumerate(band.at_rates):
        assert interval.low == pytest.approx(ordered[low, i], abs=1e-12)
        assert interval.high == pytest.approx(ordered[high, i], abs=1e-12)
    cpm = np.sort(np.mean(heights, axis=1))
    assert (band.cpm.low, band.cpm.high) == pytest.approx((cpm[low], cpm[high]), abs=1e-12)
    assert band.mean[::16] == pytest.approx(np.mean(heights, axis=0), abs=1e-12)


def _submission(seed: int, scans: int = 40, each: int = 60):
    """A plausible submission: 40 scans, most of 50 nodules found, 60 marks a scan."""
    rng = np.random.default_rng(seed)
    uids = [f"1.2.{i:03d}" for i in range(scans)]
    nodules = pd.DataFrame(rng.uniform(-100, 100, (50, 3)), columns=MARK[1:4])
    nodules.insert(0, "seriesuid", rng.choice(uids, 50))
    nodules["diameter_mm"] = rng.uniform(4, 20, 50)
    close = nodules.iloc[:44].drop(columns="diameter_mm")
    close = close.assign(probability=rng.beta(5, 2, 44))
    noise = pd.DataFrame(rng.uniform(-100, 100, (scans * each, 3)), columns=MARK[1:4])
    noise.insert(0, "seriesuid", np.repeat(uids, each))
    noise["probability"] = rng.beta(1, 6, len(noise)).round(3)
    return pd.concat([close, noise], ignore_index=True), nodules, nodules.iloc[:0], uids


def test_bands_are_the_same_when_few_scans_hold_most_false_marks():
    """A sample may have few false positives: then all thresholds are gone through, not the top."""
    given_marks, nodules, excluded, uids = _submission(1)
    crowded = given_marks[given_marks["seriesuid"].isin(uids[:3])]
    others = given_marks[~given_marks["seriesuid"].isin(uids[:3])].groupby("seriesuid").head(5)
    many = pd.concat([crowded] * 8 + [others])
    result = froc.evaluate(many, nodules, excluded, uids, max_marks=None, bootstraps=60, seed=3)
    slow = froc_by_hand.sort_out(
        many.to_dict("records"), nodules.to_dict("records"), [], sorted(uids), None
    )
    weights = statistics.resample_weights(len(uids), None, 60, 3).astype(int)
    heights = [
        np.interp(RATES, *froc_by_hand.curve(slow, np.repeat(sorted(uids), times))[:2])
        for times in weights
    ]
    assert result.band.mean[::16] == pytest.approx(np.mean(heights, axis=0), abs=1e-12)


def test_the_order_of_rows_and_of_scans_does_not_matter():
    given_marks, nodules, excluded, uids = _submission(2)
    first = froc.evaluate(given_marks, nodules, excluded, uids, bootstraps=50)
    second = froc.evaluate(
        given_marks.sample(frac=1, random_state=1), nodules.sample(frac=1, random_state=2),
        excluded, uids[::-1], bootstraps=50,
    )  # fmt: skip
    np.testing.assert_array_equal(first.curve_sensitivity, second.curve_sensitivity)
    np.testing.assert_array_equal(first.band.low, second.band.low)
    assert first.counts == second.counts
    assert first.band.cpm == second.band.cpm


@settings(max_examples=30, deadline=None)
@given(_case, st.floats(0, 1))
def test_another_false_positive_never_raises_any_sensitivity(case, probability):
    case = {**case, "limit": None}
    before = _evaluated(case)
    far = (case["scans"][0], (99.0, 99.0, 99.0), probability)
    after = _evaluated({**case, "marks": [*case["marks"], far]})
    assert after.counts.false_positives == before.counts.false_positives + 1
    assert np.all(after.sensitivity <= before.sensitivity + 1e-12)


@settings(max_examples=30, deadline=None)
@given(_case)
def test_a_scan_without_anything_lowers_no_sensitivity(case):
    """False positives are shared among more scans, nodules and marks being the same."""
    case = {**case, "scans": [s for s in case["scans"] if s != "d"] or ["a"]}
    before = _evaluated(case)
    emptier = {
        name: [row for row in case[name] if row[0] != "d"]
        for name in ("marks", "nodules", "excluded")
    }
    after = _evaluated({**case, **emptier, "scans": [*case["scans"], "d"]})
    assert np.all(after.sensitivity >= before.sensitivity - 1e-12)


@settings(max_examples=30, deadline=None)
@given(_case)
def test_only_the_order_of_probabilities_matters(case):
    squeezed = {**case, "marks": [(u, place, p**3 - 7) for u, place, p in case["marks"]]}
    before, after = _evaluated(case), _evaluated(squeezed)
    np.testing.assert_array_equal(before.sensitivity, after.sensitivity)
    assert before.counts == after.counts


@settings(max_examples=30, deadline=None)
@given(_case)
def test_curves_rise_from_the_origin_to_what_the_counts_say(case):
    result = _evaluated(case)
    x, y = result.false_positives_per_scan, result.curve_sensitivity
    assert (x[0], y[0]) == (0, 0)
    assert np.all(np.diff(x) >= 0)
    assert np.all(np.diff(y) >= 0)
    counts = result.counts
    assert x[-1] == pytest.approx(counts.false_positives / counts.scans)
    assert y[-1] == pytest.approx(counts.detected / counts.nodules)
    assert counts.detected + counts.missed == counts.nodules


def test_the_same_seed_gives_the_same_bands_and_they_hold_the_estimate():
    given_tables = _submission(3)
    first = froc.evaluate(*given_tables, bootstraps=200, seed=5)
    again = froc.evaluate(*given_tables, bootstraps=200, seed=5)
    other = froc.evaluate(*given_tables, bootstraps=200, seed=6)
    np.testing.assert_array_equal(first.band.low, again.band.low)
    assert np.any(first.band.low != other.band.low)
    assert first.band.cpm.low < first.cpm < first.band.cpm.high
    assert set(RATES) <= set(first.band.rates)
    assert first.at(0.5) == first.sensitivity[2]


def test_bands_are_as_wide_as_binomial_ones_where_nothing_else_varies():
    """One nodule a scan, half of them found before any false mark: the error of a share."""
    scans = [f"{i:03d}" for i in range(400)]
    nodules = findings(*[(uid, 0, 0, 0, 5) for uid in scans])
    half = marks(*[(uid, 0, 0, 0, 0.9) for uid in scans[::2]])
    interval = froc.evaluate(half, nodules, findings(), scans, bootstraps=2000).band.at_rates[0]
    assert interval.value == 0.5
    expected = 1.96 * np.sqrt(0.25 / 400)
    assert (interval.high - interval.low) / 2 == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"candidates": MARKS.drop(columns="probability")}, "candidates lacks probability"),
        ({"candidates": MARKS.assign(probability=np.nan)}, "row 0 of the candidates"),
        ({"annotations": NODULES.assign(x_mm=np.inf)}, "row 0 of the annotations"),
        ({"annotations": NODULES.iloc[:0]}, "no nodule is annotated in these 4 scans"),
        ({"candidates": MARKS.assign(seriesuid="z")}, "none of the 8 marks"),
        ({"series_uids": []}, "no scan to judge"),
        ({"series_uids": ["a", "a"]}, "twice"),
        ({"max_marks": 0}, "max_marks is 0"),
        ({"bootstraps": -1}, "bootstraps is -1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_input_is_said(change, words):
    sound = {"candidates": MARKS, "annotations": NODULES, "excluded": EXCLUDED,
             "series_uids": SCANS}  # fmt: skip
    with pytest.raises(InputError, match=words):
        froc.evaluate(**{**sound, **change})


def test_no_mark_at_all_finds_nothing():
    result = froc.evaluate(marks(), NODULES, EXCLUDED, SCANS, bootstraps=10)
    assert result.cpm == 0
    assert result.counts.missed == 3
    assert result.band.cpm.high == 0


def test_screening_is_what_the_paper_reports_and_what_it_means_for_a_scan():
    classes = [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    probabilities = [0.9, 0.3, 0.8, 0.5, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1]
    point = froc.screening(classes, probabilities, scans=4, threshold=0.5)
    # Two of eight negatives are called (one right at the threshold); of the 16 pairs of a positive
    # and a negative the 0.9 wins 8 and the 0.3 wins 6.
    assert (point.sensitivity, point.specificity, point.false_positive_rate) == (0.5, 0.75, 0.25)
    assert point.auc == 14 / 16
    assert point.false_positives_per_scan == 0.5
    assert (point.positives, point.negatives) == (2, 8)
    with pytest.raises(InputError, match="scans is 0"):
        froc.screening(classes, probabilities, scans=0)


@pytest.fixture
def files(tmp_path):
    """The hand-worked case as the challenge's four files."""
    for name, table in (("marks", MARKS), ("annotations", NODULES), ("excluded", EXCLUDED)):
        luna16.write(tmp_path / f"{name}.csv", table)
    (tmp_path / "series.csv").write_text("\n".join(SCANS) + "\n")
    return tmp_path


def _command(folder, *more) -> list[str]:
    options = [f"--{n}={folder / n}.csv" for n in ("annotations", "excluded", "series")]
    return ["froc", str(folder / "marks.csv"), *options, *more]


def test_the_command_prints_and_writes_the_same_numbers(files, capsys):
    assert cli.main(_command(files, "--bootstraps", "100", "--out", str(files / "out"))) == 0
    text = capsys.readouterr().out
    assert "4 scans, 3 nodules: 2 hit, 1 missed" in text
    assert f"CPM {(1 / 3 + 10 / 3) / 7:.4f} (" in text
    written = json.loads((files / "out" / "froc.json").read_text())
    expected = froc.evaluate(MARKS, NODULES, EXCLUDED, SCANS, bootstraps=100)
    assert written["cpm"] == dataclasses.asdict(expected.band.cpm)
    assert written["counts"]["false_positives"] == 4
    assert [row["sensitivity"] for row in written["sensitivity"]] == expected.sensitivity.tolist()
    curve = pd.read_csv(files / "out" / "froc.csv")
    assert curve["threshold"].tolist() == expected.thresholds.tolist()
    assert (files / "out" / "froc.png").stat().st_size > 10_000


def test_the_command_without_bootstraps_or_limit(files, capsys):
    out = files / "out"
    assert cli.main(_command(files, "--bootstraps=0", "--max-marks=0", f"--out={out}")) == 0
    assert "low" not in capsys.readouterr().out
    written = json.loads((out / "froc.json").read_text())
    assert written["settings"]["max_marks"] is None
    assert list(written["cpm"]) == ["value"]


def test_the_command_says_which_line_is_bad_in_one_line(files, capsys):
    text = (files / "marks.csv").read_text().replace("0.95", "likely")
    (files / "marks.csv").write_text(text)
    assert cli.main(_command(files)) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert "marks.csv, line 4: probability is likely; give a finite number" in error[0]


@pytest.mark.real
def test_on_the_challenges_own_files_the_nodules_themselves_are_all_found(real_data):
    folder = real_data / "luna16"
    annotations = luna16.read_annotations(folder / "annotations.csv")
    excluded = luna16.read_excluded(folder / "annotations_excluded.csv")
    scans = luna16.read_series(folder / "luna16_subsets.csv")
    perfect = annotations.drop(columns="diameter_mm").assign(probability=1.0)
    result = froc.evaluate(perfect, annotations, excluded, scans, bootstraps=20)
    assert (result.counts.detected, result.counts.missed, result.cpm) == (1186, 0, 1)
    # Marks on every excluded finding are dropped, but for those in the radius of a nodule.
    everywhere = excluded.drop(columns="diameter_mm").assign(probability=0.5)
    result = froc.evaluate(everywhere, annotations, excluded, scans, max_marks=None, bootstraps=0)
    assert result.counts.false_positives == 0
    assert result.counts.excluded > 30_000
