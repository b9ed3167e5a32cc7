"""FROC by LUNA-16's rules: worked by hand, against a slow reference, and as properties."""

import dataclasses
import json
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import roc_curve

from labkit import cli
from labkit.annotations import luna16
from labkit.evaluation import froc, statistics
from labkit.evaluation.froc import RATES
from tests.evaluation.tables import refused

POSITION = ["seriesuid", "x_mm", "y_mm", "z_mm"]
MARK, FINDING = [*POSITION, "probability"], [*POSITION, "diameter_mm"]


def marks(*rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=MARK).astype(dict.fromkeys(MARK[1:], float))


def findings(*rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=FINDING).astype(dict.fromkeys(FINDING[1:], float))


NOTHING = findings().astype({"seriesuid": str})

# Four scans, two of them with nodules, d without any mark.
SCANS = ["a", "b", "c", "d"]
NODULES = findings(("a", 0, 0, 0, 10), ("a", 100, 0, 0, 6), ("b", 0, 0, 0, 4))
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

# Seven marks in four scans, through which lesson 11 walks: marks, nodules, excluded, scans.
LESSON = (
    marks(
        ("a", 1, 0, 0, 0.95),  # 1 mm from the first nodule
        ("a", 0, 4.9, 0, 0.90),  # within it too
        ("b", 30, 0, 0, 0.85),  # on nothing
        ("a", 0, 52, 0, 0.80),  # on the excluded finding, whose diameter counts as 10 mm
        ("a", 43, 0, 0, 0.70),  # exactly on the second nodule's rim
        ("a", 41, 0, 0, 0.60),  # in it
        ("b", 0, 60, 0, 0.50),  # on nothing; the nodule of b has no mark
    ),
    findings(("a", 0, 0, 0, 10), ("a", 40, 0, 0, 6), ("b", 0, 0, 0, 8)),
    findings(("a", 0, 50, 0, -1)),
    SCANS,
)


def test_the_case_worked_by_hand():
    result = froc.evaluate(MARKS, NODULES, EXCLUDED, SCANS, bootstraps=0)
    assert dataclasses.asdict(result.counts) == {
        "scans": 4, "nodules": 3, "detected": 2, "missed": 1, "marks": 8, "false_positives": 4,
        "doubled": 1, "excluded": 1, "over_limit": 0, "elsewhere": 0,
        "unjudged": 0,
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
    assert froc.evaluate(*LESSON, bootstraps=0).cpm == pytest.approx(4 / 7)


def test_the_limit_loses_all_that_tie_with_the_first_mark_beyond():
    three = marks(("a", 0, 0, 0, 0.9), ("a", 50, 0, 0, 0.5), ("a", 90, 0, 0, 0.5))
    against = (findings(("a", 0, 0, 0, 5)), NOTHING, ["a"])
    for limit, kept in {None: 3, 3: 3, 2: 1, 1: 1}.items():
        found = froc.evaluate(three, *against, max_marks=limit, bootstraps=0)
        assert found.counts.marks == kept
    # A hundred and one certain marks are none.
    saturated = marks(*[("a", float(i), 0, 0, 1.0) for i in range(101)])
    result = froc.evaluate(saturated, *against, bootstraps=0)
    assert (result.counts.marks, result.counts.over_limit, result.cpm) == (0, 101, 0)


# LUNA-16's evaluation once more, slowly: the rules scan by scan, mark by mark, sharing nothing with
# labkit. What the challenge's script divides by zero for is 0, as labkit states.


def sorted_out(tried, nodules, excluded, scans, limit):
    """Scan -> [(is_nodule, probability, missed)], and how all were counted."""
    rows = {uid: [] for uid in scans}
    tally = dict.fromkeys(
        ["detected", "missed", "marks", "false_positives", "doubled", "excluded", "over_limit"], 0
    )
    for what, table in (("elsewhere", tried), ("unjudged", nodules)):
        tally[what] = sum(row["seriesuid"] not in scans for row in table)
    for uid in scans:
        ours = [m for m in tried if m["seriesuid"] == uid]
        if limit is not None and len(ours) > limit:
            beyond = sorted((m["probability"] for m in ours), reverse=True)[limit]
            kept = [m for m in ours if m["probability"] > beyond]
            tally["over_limit"] += len(ours) - len(kept)
            ours = kept
        tally["marks"] += len(ours)
        left = list(range(len(ours)))
        for nodule in [n for n in nodules if n["seriesuid"] == uid]:
            hit = [i for i in range(len(ours)) if _hits(ours[i], nodule)]
            left = [i for i in left if i not in hit]
            if hit:
                tally["detected"] += 1
                tally["doubled"] += len(hit) - 1
                rows[uid].append((1, max(ours[i]["probability"] for i in hit), False))
            else:
                tally["missed"] += 1
                rows[uid].append((1, None, True))
        for finding in [e for e in excluded if e["seriesuid"] == uid]:
            dropped = [i for i in left if _hits(ours[i], finding)]
            tally["excluded"] += len(dropped)
            left = [i for i in left if i not in dropped]
        tally["false_positives"] += len(left)
        rows[uid] += [(0, ours[i]["probability"], False) for i in left]
    return rows, tally


def _hits(mark, finding) -> bool:
    diameter = finding["diameter_mm"] if finding["diameter_mm"] >= 0 else 10.0
    squared = sum((mark[axis] - finding[axis]) ** 2.0 for axis in ("x_mm", "y_mm", "z_mm"))
    return squared < (diameter / 2.0) ** 2.0


def slow_curve(rows, drawn):
    """False positives a scan, sensitivity, thresholds; `drawn` are scans, some of them twice."""
    rows = [row for uid in drawn for row in rows[uid]]
    nodules = sum(is_nodule for is_nodule, _, _ in rows)
    judged = [(is_nodule, p) for is_nodule, p, missed in rows if not missed]
    if not judged:
        return np.zeros(1), np.zeros(1), np.array([np.inf])
    labels, probabilities = zip(*judged, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        false_rate, true_rate, thresholds = roc_curve(labels, probabilities)
    detected, negatives = float(sum(labels)), len(labels) - float(sum(labels))
    x = false_rate * negatives / len(drawn) if negatives else np.zeros(len(false_rate))
    y = (true_rate * detected) / nodules if detected else np.zeros(len(x))
    return x, y, thresholds


# Places on a coarse lattice, so that marks often lie on a rim, share nodules, and tie.
_place = st.tuples(*[st.integers(0, 3).map(float)] * 3)
_uid = st.sampled_from("abcde")  # e is never judged
_mark = st.tuples(_uid, _place, st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.7, 1.0]))
_finding = st.tuples(_uid, _place, st.sampled_from([-1.0, 0.0, 1.0, 2.0, 3.5, 4.0]))
_case = st.fixed_dictionaries({
    "marks": st.lists(_mark, max_size=30), "nodules": st.lists(_finding, min_size=1, max_size=6),
    "excluded": st.lists(_finding.filter(lambda f: f[2] >= 0), max_size=4),
    "scans": st.sampled_from([["a"], ["b", "a"], ["a", "b", "c"], ["d", "c", "b", "a"]]),
    "limit": st.sampled_from([None, 1, 2, 3, 5]),
})  # fmt: skip


def _dicts(case) -> list[list[dict]]:
    """Marks, nodules and excluded findings of a drawn case."""
    last = {"marks": "probability", "nodules": "diameter_mm", "excluded": "diameter_mm"}
    return [
        [{"seriesuid": u, "x_mm": x, "y_mm": y, "z_mm": z, of: v} for u, (x, y, z), v in case[name]]
        for name, of in last.items()
    ]


def _evaluated(case, **changes) -> froc.Froc:
    """labkit's answer to a drawn case that it has to answer."""
    scans = case["scans"]
    assume(any(n[0] in scans for n in case["nodules"]))
    assume(not case["marks"] or any(m[0] in scans for m in case["marks"]))
    tables = (
        pd.DataFrame(rows, columns=columns)
        for rows, columns in zip(_dicts(case), (MARK, FINDING, FINDING), strict=True)
    )
    return froc.evaluate(*tables, scans, max_marks=case["limit"], **{"bootstraps": 0, **changes})


@settings(max_examples=120, deadline=None)
@given(_case)
def test_counts_and_curve_are_the_slow_ones_to_the_last_bit(case):
    result = _evaluated(case)
    rows, tally = sorted_out(*_dicts(case), case["scans"], case["limit"])
    counted = dataclasses.asdict(result.counts)
    assert {name: counted[name] for name in tally} == tally
    x, y, thresholds = slow_curve(rows, case["scans"])
    np.testing.assert_array_equal(result.false_positives_per_scan, x)
    np.testing.assert_array_equal(result.curve_sensitivity, y)
    np.testing.assert_array_equal(result.thresholds, thresholds)
    np.testing.assert_array_equal(result.sensitivity, np.interp(RATES, x, y))
    assert result.cpm == np.mean(np.interp(RATES, x, y))


@settings(max_examples=30, deadline=None)
@given(_case, st.integers(0, 5))
def test_bands_are_those_of_the_scans_drawn_again_one_by_one(case, seed):
    scans, resamples = sorted(case["scans"]), 40
    weights = statistics.resample_weights(len(scans), None, resamples, seed).astype(int)
    rows, _ = sorted_out(*_dicts(case), case["scans"], case["limit"])
    with_nodule = {n[0] for n in case["nodules"]}
    drawn = [np.repeat(scans, times).tolist() for times in weights]
    heights = [np.interp(RATES, *slow_curve(rows, these)[:2]) for these in drawn
               if with_nodule & set(these)]  # fmt: skip
    assume(heights)
    band = _evaluated(case, bootstraps=resamples, seed=seed).band
    assert band.resamples == len(heights)
    ordered = np.sort(heights, axis=0)
    low, high = int(0.025 * len(heights)), int(0.975 * len(heights))
    assert band.low[::16] == pytest.approx(ordered[low], abs=1e-12)
    assert band.high[::16] == pytest.approx(ordered[high], abs=1e-12)
    cpm = np.sort(np.mean(heights, axis=1))
    assert (band.cpm.low, band.cpm.high) == pytest.approx((cpm[low], cpm[high]), abs=1e-12)


def test_bands_are_the_same_when_few_scans_hold_most_false_marks():
    """A sample may have few false positives: then all thresholds are gone through, not the top."""
    rng, uids = np.random.default_rng(1), [f"1.2.{i:03d}" for i in range(40)]
    nodules = findings(*[(u, *rng.uniform(-99, 99, 3), 12) for u in rng.choice(uids, 50)])
    found = [(*row[:4], rng.beta(5, 2)) for row in nodules[:44].itertuples(index=False)]
    false = [(u, *rng.uniform(100, 300, 3), round(rng.beta(1, 6), 3))
             for i, u in enumerate(uids) for _ in range(480 if i < 3 else 5)]  # fmt: skip
    many = marks(*found, *false)
    result = froc.evaluate(many, nodules, NOTHING, uids, max_marks=None, bootstraps=60, seed=3)
    rows, _ = sorted_out(many.to_dict("records"), nodules.to_dict("records"), [], uids, None)
    weights = statistics.resample_weights(len(uids), None, 60, 3).astype(int)
    ordered = np.sort([np.interp(RATES, *slow_curve(rows, np.repeat(uids, times))[:2])
                       for times in weights], axis=0)  # fmt: skip
    assert result.band.low[::16] == pytest.approx(ordered[int(0.025 * 60)], abs=1e-12)
    assert result.band.high[::16] == pytest.approx(ordered[int(0.975 * 60)], abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(_case)
def test_the_walk_ends_where_the_curve_does_and_passes_its_points(case):
    case = {**case, "limit": None}
    assume(case["marks"])
    result = _evaluated(case)
    tried, *judged = map(pd.DataFrame, _dicts(case))
    judged = [table.reindex(columns=FINDING) for table in judged]
    here = [table[table["seriesuid"].isin(case["scans"])] for table in (tried, *judged)]
    walk = froc.steps(*here, case["scans"])
    c, last = result.counts, walk.iloc[-1]
    assert (last["found"], last["false"]) == (c.detected, c.false_positives)
    assert (walk["counts_as"] == froc.EXCLUDED).sum() == c.excluded
    after = walk.groupby("probability").last().loc[result.thresholds[1:]]
    assert after["false_positives_per_scan"].tolist() == pytest.approx(
        result.false_positives_per_scan[1:]
    )
    assert after["sensitivity"].tolist() == pytest.approx(result.curve_sensitivity[1:])


def test_the_walk_of_lesson_11():
    tried, *against = LESSON
    walk = froc.steps(tried.sample(frac=1, random_state=1), *against)
    assert walk["counts_as"].tolist() == [
        "nodule found", "found again", "false positive", "excluded", "false positive",
        "nodule found", "false positive",
    ]  # fmt: skip
    assert walk["found"].tolist() == [1, 1, 1, 1, 1, 2, 2]
    assert walk["false_positives_per_scan"].tolist() == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"candidates": MARKS.drop(columns="probability")}, "candidates lacks probability"),
     ({"candidates": MARKS.assign(probability=np.nan)}, "row 0 of the candidates"),
     ({"annotations": NODULES.assign(x_mm=np.inf)}, "row 0 of the annotations"),
     ({"annotations": NODULES.iloc[:0]}, "no nodule is annotated in these 4 scans"),
     ({"candidates": MARKS.assign(seriesuid="z")}, "none of the 8 marks"),
     ({"series_uids": []}, "no scan to judge"), ({"series_uids": ["a", "a"]}, "twice"),
     ({"max_marks": 0}, "max_marks is 0"), ({"bootstraps": -1}, "bootstraps is -1"),
     ({"seed": -1}, "seed is -1")],
)  # fmt: skip
def test_bad_input_is_said(change, words):
    sound = {"candidates": MARKS, "annotations": NODULES, "excluded": EXCLUDED,
             "series_uids": SCANS}  # fmt: skip
    refused(words, froc.evaluate, **{**sound, **change})


# Two sets of marks on the same scans: against resampled scans judged one by one.


SIX = [f"s{i}" for i in range(6)]
OF_SIX = (
    findings(*[(u, 50 * k, 0, 0, 8) for i, u in enumerate(SIX[:5]) for k in range(i % 3)]),
    findings(("s0", 0, 70, 0, 6)),
)


def tried(seed, signal=1.0):
    """Marks on every nodule, on the excluded finding and on nothing; nodules a little surer."""
    off = findings(*[(uid, 200 + 20 * k, 0, 0, 0) for uid in SIX for k in range(4)])
    table = pd.concat([*OF_SIX, off], ignore_index=True)[POSITION]
    on_nodule = np.arange(len(table)) < len(OF_SIX[0])
    scores = np.random.default_rng(seed).normal(size=len(table)) + signal * on_nodule
    return table.assign(probability=np.round(scores, 1))  # so that some tie


def difference(first, second, bootstraps=40, seed=0, scans=SIX):
    return froc.cpm_difference(first, second, *OF_SIX, scans, bootstraps=bootstraps, seed=seed)


def test_a_difference_is_what_judging_every_sample_of_scans_by_itself_gives():
    def drawn_again(table, times):  # every copy a scan of its own
        copies = [(u, f"{u}#{j}") for u, n in zip(SIX, times, strict=True) for j in range(int(n))]
        return pd.concat([table[table["seriesuid"] == u].assign(seriesuid=v) for u, v in copies])

    first, second = tried(1, signal=1.5), tried(2, signal=0.5)
    found = difference(first, second, bootstraps=40, seed=3)
    cpm = [froc.evaluate(m, *OF_SIX, SIX, bootstraps=0).cpm for m in (first, second)]
    assert found.value == pytest.approx(cpm[0] - cpm[1])
    slow = []
    for times in statistics.resample_weights(len(SIX), None, 40, seed=3):
        uids = [f"{u}#{j}" for u, n in zip(SIX, times, strict=True) for j in range(int(n))]
        against = [drawn_again(table, times) for table in OF_SIX]
        if len(against[0]):
            pair = (froc.evaluate(drawn_again(m, times), *against, uids, bootstraps=0)
                    for m in (first, second))  # fmt: skip
            slow.append(np.subtract(*[of.cpm for of in pair]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000), st.floats(0, 2))
def test_likes_differ_by_exactly_nothing_order_does_not_matter_and_turning_turns_the_sign(a, b, s):
    first, second = tried(a, s), tried(b, 0.3)
    ranked = first.assign(probability=first["probability"].rank())  # the same order and ties
    for other in (first, ranked, ranked.sample(frac=1, random_state=a)):
        found = difference(first, other)
        assert (found.value, found.low, found.high) == (0, 0, 0)
    found, turned = difference(first, second), difference(second, first)
    again = difference(first.sample(frac=1, random_state=a), second.iloc[::-1], scans=SIX[::-1])
    assert again == found and found.low <= found.high
    turned_back = (-turned.value, -turned.high, -turned.low)
    assert turned_back == pytest.approx((found.value, found.low, found.high), abs=1e-12)


# Operating points: the paper's measures, what a point costs, and how far it holds elsewhere.


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
    refused("scans is 0", froc.screening, classes, probabilities, scans=0)


def programme(scans: int, seed: int):
    """Scans with a nodule each and ten other marks, whose scores overlap."""
    rng = np.random.default_rng(seed)
    uids = [f"{i:05d}" for i in range(scans)]
    nodules = findings(*[(uid, 0, 0, 0, 8) for uid in uids])
    found = nodules.drop(columns="diameter_mm").assign(probability=rng.normal(2, 1, scans))
    others = pd.DataFrame({"seriesuid": np.repeat(uids, 10), "x_mm": 50.0, "y_mm": 0.0})
    others = others.assign(z_mm=0.0, probability=rng.normal(size=10 * scans))
    return pd.concat([found, others], ignore_index=True), nodules, nodules[:0], uids


def test_what_was_chosen_is_kept_elsewhere_only_on_average_and_less_the_luck():
    splits = froc.transferred(*programme(400, 0), sensitivity=0.8, splits=100)
    chosen, elsewhere = (splits[f"sensitivity_{half}"] for half in ("chosen", "elsewhere"))
    assert ((chosen >= 0.8) & (chosen < 0.81)).all()  # 200 nodules: steps of half a point
    assert abs(elsewhere.mean() - 0.8) < 0.02
    # A sample's own threshold always reaches; on other scans it falls short half of the time.
    assert 0.3 < (elsewhere < 0.8).mean() < 0.7


def test_halves_are_judged_as_they_would_be_alone():
    case = programme(6, 1)
    (split,) = froc.transferred(*case, sensitivity=0.6, splits=1).to_dict("records")
    chosen = [case[3][i] for i in np.random.default_rng(0).permutation(6)[:3]]
    halves = {"chosen": chosen, "elsewhere": sorted(set(case[3]) - set(chosen))}
    for half, scans in halves.items():
        own = [table[table["seriesuid"].isin(scans)] for table in case[:3]]
        shown = own[0][own[0]["probability"] >= split["threshold"]]
        at = froc.evaluate(shown, *own[1:], scans, bootstraps=0)
        assert at.curve_sensitivity[-1] == pytest.approx(split[f"sensitivity_{half}"])
        assert at.false_positives_per_scan[-1] == pytest.approx(split[f"false_positives_{half}"])
    refused("2 or more", froc.transferred, *case[:3], ["a"], 0.5)
    missed = (LESSON[0][LESSON[0]["probability"] == 0.85], *LESSON[1:])
    refused("in none of", froc.transferred, *missed, sensitivity=0.5)


# The command.


@pytest.fixture
def command(tmp_path):
    """`labkit froc` on the hand-worked case as the challenge's four files."""
    for name, table in (("marks", MARKS), ("annotations", NODULES), ("excluded", EXCLUDED)):
        luna16.write(tmp_path / f"{name}.csv", table)
    (tmp_path / "series.csv").write_text("\n".join(SCANS) + "\n")
    options = [f"--{n}={tmp_path / n}.csv" for n in ("annotations", "excluded", "series")]
    options += [f"--out={tmp_path / 'out'}", "--empty-scans"]
    return ["froc", str(tmp_path / "marks.csv"), *options]


def test_the_command_prints_and_writes_the_same_numbers(command, tmp_path, capsys):
    assert cli.main([*command, "--bootstraps", "100"]) == 0
    text = capsys.readouterr().out
    assert "4 scans, 3 nodules: 2 hit, 1 missed" in text
    assert f"CPM {(1 / 3 + 10 / 3) / 7:.4f} (" in text
    written = json.loads((tmp_path / "out" / "froc.json").read_text())
    expected = froc.evaluate(MARKS, NODULES, EXCLUDED, SCANS, bootstraps=100)
    assert written["cpm"] == dataclasses.asdict(expected.band.cpm)
    assert written["counts"]["false_positives"] == 4
    assert [row["sensitivity"] for row in written["sensitivity"]] == expected.sensitivity.tolist()
    curve = pd.read_csv(tmp_path / "out" / "froc.csv")
    assert curve["threshold"].tolist() == expected.thresholds.tolist()
    assert (tmp_path / "out" / "froc.png").stat().st_size > 10_000
    assert cli.main([*command, "--bootstraps=0", "--max-marks=0"]) == 0
    assert "low" not in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "froc.json").read_text())
    assert written["settings"]["max_marks"] is None
    assert list(written["cpm"]) == ["value"]


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
