"""The benchmark of LUNA-16's extraction: what it calls measured was, and the rest is calculated."""

import pytest

from benchmarks.speed import extraction


def test_what_two_processes_gain_is_measured_and_what_cores_need_calculated():
    one = {"clock_s": 90.0, "cpu_s": 10.0, "load": 1.0, "scans": 2, "candidates": 1242}
    two = {**one, "clock_s": 60.0, "cpu_s": 12.0, "load": 3.0}
    assert extraction.against(one, two) == {
        "times_as_fast_by_the_clock": 1.5, "times_the_cpu_s": 1.2, "load": 3.0,
    }  # fmt: skip
    full = extraction.in_full(
        {
            "slices": 250, "reading_cpu_s": 0.5, "growth": {"s_a_scan": 0.5, "ms_a_candidate": 6.0},
            "builds": [one, two],
        }
    )  # fmt: skip
    minutes = {name: value for name, value in full.items() if "minutes" in name}
    assert set(minutes) == {"minutes_on_2_cores_calculated", "minutes_on_16_cores_calculated"}
    for name, value in minutes.items():
        cores = int(name.split("_")[2])
        assert value == pytest.approx(full["cpu_s"] / cores / 60, rel=0.03)
