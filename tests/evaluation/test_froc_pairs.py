"""Two submissions compared on the same scans: against resampled scans judged one by one."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import InputError
from labkit.evaluation import froc
from labkit.evaluation.statistics import resample_weights

SCANS = [f"s{i}" for i in range(6)]
POSITION = ["seriesuid", "x_mm", "y_mm", "z_mm"]
NODULES = pd.DataFrame(
    [(uid, 50.0 * k, 0.0, 0.0, 8.0) for i, uid in enumerate(SCANS[:5]) for k in range(i % 3)],
    columns=[*POSITION, "diameter_mm"],
)
EXCLUDED = pd.DataFrame([("s0", 0.0, 70.0, 0.0, 6.0)], columns=[*POSITION, "diameter_mm"])


def marks(seed, signal=1.0):
    """Marks on every nodule, on the excluded finding and on nothing; nodules a little surer."""
    rng = np.random.default_rng(seed)
    on = NODULES.drop(columns="diameter_mm")
    off = pd.DataFrame(
        [(uid, 200.0 + 20 * k, 0.0, 0.0) for uid in SCANS for k in range(4)], columns=POSITION
    )
    table = pd.concat([on, EXCLUDED[POSITION], off], ignore_index=True)
    scores = rng.normal(size=len(table)) + signal * (np.arange(len(table)) < len(on))
    return table.assign(probability=np.round(scores, 1))  # so that some tie


def difference(first, second, bootstraps=40, seed=0, scans=SCANS):
    return froc.cpm_difference(
        first, second, NODULES, EXCLUDED, scans, bootstraps=bootstraps, seed=seed
    )


def drawn_again(table, times):
    """A table of the scans as often as each was drawn, every copy a scan of its own."""
    return pd.concat(
        [
            table[table["seriesuid"] == uid].assign(seriesuid=f"{uid}#{j}")
            for uid, n in zip(SCANS, times, strict=True)
            for j in range(int(n))
        ],
        ignore_index=True,
    )


def test_it_is_what_judging_every_sample_of_scans_by_itself_gives():
    first, second = marks(1, signal=1.5), marks(2, signal=0.5)
    found = difference(first, second, bootstraps=40, seed=3)
    cpm = [froc.evaluate(m, NODULES, EXCLUDED, SCANS, bootstraps=0).cpm for m in (first, second)]
    assert found.value == pytest.approx(cpm[0] - cpm[1])
    slow = []
    for times in resample_weights(len(SCANS), None, 40, seed=3):
        nodules = drawn_again(NODULES, times)
        if nodules.empty:
            continue
        uids = [f"{uid}#{j}" for uid, n in zip(SCANS, times, strict=True) for j in range(int(n))]
        one, two = (
            froc.evaluate(
                drawn_again(m, times), nodules, drawn_again(EXCLUDED, times), uids, bootstraps=0
            ).cpm
            for m in (first, second)
        )
        slow.append(one - two)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])))


def test_by_itself_a_submission_is_drawn_as_its_own_band_is():
    """Beside marks that find nothing, the difference is the CPM itself, sample by sample."""
    nothing = marks(0).iloc[-4:].assign(probability=-9.0)
    found = difference(marks(1), nothing, bootstraps=200, seed=5)
    alone = froc.evaluate(marks(1), NODULES, EXCLUDED, SCANS, bootstraps=200, seed=5)
    assert found.value == alone.cpm
    # The challenge's script takes the next sorted sample, where quantiles lie between two.
    assert found.low == pytest.approx(alone.band.cpm.low, abs=0.02)
    assert found.high == pytest.approx(alone.band.cpm.high, abs=0.02)


def test_all_nodules_first_against_all_of_them_last_is_one():
    order = np.arange(len(marks(0)))[::-1] + 1.0
    first = marks(0).assign(probability=order)
    worst = marks(0).iloc[len(NODULES) :]
    found = difference(first, worst)
    assert (found.value, found.low, found.high) == (1, 1, 1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 2))
def test_what_is_judged_alike_differs_by_exactly_nothing(seed, signal):
    one = marks(seed, signal)
    ranked = one.assign(probability=one["probability"].rank())  # the same order, the same ties
    shuffled = ranked.sample(frac=1, random_state=seed)
    for other in (one, ranked, shuffled):
        found = difference(one, other)
        assert (found.value, found.low, found.high) == (0, 0, 0)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_order_of_rows_and_scans_does_not_matter_and_of_the_two_turns_the_sign(a, b):
    first, second = marks(a), marks(b, 0.3)
    found = difference(first, second)
    again = difference(first.sample(frac=1, random_state=a), second.iloc[::-1], scans=SCANS[::-1])
    assert again == found
    turned = difference(second, first)
    assert (turned.value, turned.low, turned.high) == pytest.approx(
        (-found.value, -found.high, -found.low), abs=1e-12
    )
    assert found.low <= found.high


def test_pairing_takes_off_what_both_share():
    """Nearly the same marks: their difference is far surer than either's CPM."""
    one = marks(4)
    two = one.assign(probability=one["probability"] + np.where(np.arange(len(one)) == 0, 0.1, 0))
    alone = froc.evaluate(one, NODULES, EXCLUDED, SCANS, bootstraps=200).band.cpm
    paired = difference(one, two, bootstraps=200)
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)


def test_no_bootstrap_or_other_nonsense_is_refused():
    with pytest.raises(InputError, match="bootstraps is 0"):
        difference(marks(0), marks(1), bootstraps=0)
    with pytest.raises(InputError, match="lacks probability"):
        difference(marks(0), marks(1).drop(columns="probability"))
