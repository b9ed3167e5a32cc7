"""Grouping against pylidc's rule written out plainly, on scenes made at random."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from labkit.annotations.lidc import group


def _plain(outlines: list[np.ndarray], tolerance: float) -> set[frozenset[int]]:
    """pylidc's rule for one scan, pair by pair."""
    distance = np.array([[cdist(a, b).min() for b in outlines] for a in outlines])
    while True:
        labels = connected_components(distance <= tolerance, directed=False)[1]
        if np.bincount(labels).max() <= 4 or tolerance * 0.9 < 0.1:
            return {frozenset(np.flatnonzero(labels == i).tolist()) for i in set(labels)}
        tolerance *= 0.9


def _ours(scans: list[list[np.ndarray]], tolerances: list[float]) -> list[set[frozenset[int]]]:
    outlines = [outline for scan in scans for outline in scan]
    labels = group(
        np.concatenate(outlines),
        np.repeat(np.arange(len(outlines)), [len(outline) for outline in outlines]),
        np.repeat(np.arange(len(scans)), [len(scan) for scan in scans]),
        np.array(tolerances),
    )
    result, start = [], 0
    for scan in scans:
        own = labels[start : start + len(scan)]
        result.append({frozenset(np.flatnonzero(own == i).tolist()) for i in set(own)})
        start += len(scan)
    assert len(set(labels)) == sum(map(len, result))  # no group spans two scans
    return result


_points = st.tuples(st.integers(0, 4), st.integers(0, 16), st.integers(0, 16))
_outline = st.lists(_points, min_size=1, max_size=6).map(np.array)
_scan = st.lists(_outline, min_size=1, max_size=9)
_tolerance = st.sampled_from([0.6, 1.0, 1.25, 2.0, 2.5, 3.0, 5.0])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(_scan, _tolerance), min_size=1, max_size=3))
def test_groups_follow_the_plain_rule(scene):
    scans, tolerances = [s for s, _ in scene], [t for _, t in scene]
    expected = [_plain(s, t) for s, t in scene]
    assert _ours(scans, tolerances) == expected


@settings(max_examples=60, deadline=None)
@given(_scan, _tolerance, st.randoms(use_true_random=False))
def test_the_order_of_annotations_does_not_matter(scan, tolerance, random):
    order = list(range(len(scan)))
    random.shuffle(order)
    (shuffled,) = _ours([[scan[i] for i in order]], [tolerance])
    (groups,) = _ours([scan], [tolerance])
    assert {frozenset(order[i] for i in members) for members in shuffled} == groups


@settings(max_examples=60, deadline=None)
@given(_scan, _tolerance, st.tuples(st.integers(-50, 50), st.integers(0, 99), st.integers(0, 99)))
def test_moving_the_scan_does_not_matter(scan, tolerance, shift):
    assert _ours([[o + np.array(shift) for o in scan]], [tolerance]) == _ours([scan], [tolerance])


def _dot(k: int, row: int, col: int) -> np.ndarray:
    return np.array([[k, row, col]])


def test_the_tolerance_is_inclusive():
    apart_by_five = [_dot(0, 0, 0), _dot(0, 3, 4)]
    assert _ours([apart_by_five], [5.0]) == [{frozenset({0, 1})}]
    assert _ours([apart_by_five], [4.99]) == [{frozenset({0}), frozenset({1})}]


def test_five_in_a_chain_fall_apart_where_the_chain_is_widest():
    chain = [_dot(0, 0, c) for c in (0, 1, 2, 4, 5)]
    assert _ours([chain[:4]], [2.5]) == [{frozenset({0, 1, 2, 3})}]
    assert _ours([chain], [2.5]) == [{frozenset({0, 1, 2}), frozenset({3, 4})}]


def test_five_on_the_same_voxel_stay_together():
    assert _ours([[_dot(0, 7, 7)] * 5], [2.5]) == [{frozenset(range(5))}]
