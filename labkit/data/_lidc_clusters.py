"""Which annotations of a scan are the same nodule: pylidc's grouping, for all scans at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

MOST_READERS = 4
TOLERANCE_FACTOR = 0.9
LEAST_TOLERANCE = 0.1


def group(
    vertices_kij: NDArray[np.int64],
    vertex_annotation: NDArray[np.int64],
    annotation_scan: NDArray[np.int64],
    tolerance: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Group annotations as pylidc's `Scan.cluster_annotations()` does with its defaults.

    Two annotations are neighbours when the least distance between their vertices is at most the
    tolerance; groups are the connected parts. While any group of a scan has more than four
    members (there were four readers), the scan's tolerance shrinks to nine tenths, down to 0.1,
    below which large groups stay. pylidc starts from the slice thickness in mm, yet measures the
    distance in *indices* (slices, rows, columns): kept, since it defines the known counts.

    Nearly all annotations of a nodule share a vertex, so the shared voxels are found first, by one
    sort; distances are only taken between what is then still apart and near.

    Args:
        vertices_kij: (V, 3) slice, row and column indices, all annotations in turn.
        vertex_annotation: (V,) annotation of each vertex, ascending from 0, none left out.
        annotation_scan: (A,) scan of each annotation.
        tolerance: (S,) first tolerance of each scan.

    Returns:
        (A,) group of each annotation; groups are numbered by their first member.
    """
    n_annotations = len(annotation_scan)
    shared = _pairs_sharing_a_voxel(vertices_kij, vertex_annotation, annotation_scan)
    touching = _components(n_annotations, shared)
    near, distance = _near_pairs(
        vertices_kij, vertex_annotation, annotation_scan, tolerance[annotation_scan], touching
    )
    tolerance = np.array(tolerance, dtype=np.float64)
    while True:
        joined = near[distance <= tolerance[annotation_scan[near[:, 0]]]]
        groups = _components(n_annotations, np.concatenate([shared, joined]))
        crowded = np.zeros(len(tolerance), bool)
        crowded[annotation_scan[np.bincount(groups)[groups] > MOST_READERS]] = True
        crowded &= tolerance * TOLERANCE_FACTOR >= LEAST_TOLERANCE
        if not crowded.any():
            return groups
        tolerance[crowded] *= TOLERANCE_FACTOR


def _components(n: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) connected part of each of `n` nodes, numbered by the part's first node."""
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    labels = connected_components(graph, directed=False)[1]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _pairs_sharing_a_voxel(
    vertices_kij: NDArray[np.int64],
    vertex_annotation: NDArray[np.int64],
    annotation_scan: NDArray[np.int64],
) -> NDArray[np.int64]:
    """(P, 2) pairs of annotations that connect all those with a common vertex."""
    low = vertices_kij.min(axis=0)
    shape = vertices_kij.max(axis=0) - low + 1
    scan = annotation_scan[vertex_annotation]
    voxel = scan
    for axis in range(3):
        voxel = voxel * shape[axis] + (vertices_kij[:, axis] - low[axis])
    order = np.argsort(voxel, kind="stable")
    same = np.flatnonzero(voxel[order][1:] == voxel[order][:-1])
    pairs = np.column_stack([vertex_annotation[order][same], vertex_annotation[order][same + 1]])
    return np.unique(pairs, axis=0)


def _near_pairs(
    vertices_kij: NDArray[np.int64],
    vertex_annotation: NDArray[np.int64],
    annotation_scan: NDArray[np.int64],
    tolerance: NDArray[np.float64],
    touching: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pairs of one scan that do not touch yet lie within the tolerance, and their distances."""
    n_annotations = len(annotation_scan)
    start = np.searchsorted(vertex_annotation, np.arange(n_annotations + 1))
    low = np.minimum.reduceat(vertices_kij, start[:-1])
    high = np.maximum.reduceat(vertices_kij, start[:-1])
    order = np.argsort(annotation_scan, kind="stable")
    sizes = np.bincount(annotation_scan)
    position = np.arange(n_annotations) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    later = np.repeat(sizes, sizes) - position - 1  # annotations of the same scan after this one
    first = np.repeat(np.arange(n_annotations), later)
    second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(later) - later, later)
    pairs = np.column_stack([order[first], order[second]])

    a, b = pairs.T
    gap = np.maximum(0, np.maximum(low[b] - high[a], low[a] - high[b]))
    possible = (touching[a] != touching[b]) & (np.sqrt((gap**2).sum(axis=1)) <= tolerance[a])
    pairs = pairs[possible]
    distance = np.empty(len(pairs))
    for i, (a, b) in enumerate(pairs):
        reach = tolerance[a]
        ours = _within(vertices_kij[start[a] : start[a + 1]], low[b] - reach, high[b] + reach)
        theirs = _within(vertices_kij[start[b] : start[b + 1]], low[a] - reach, high[a] + reach)
        distance[i] = cdist(ours, theirs).min() if len(ours) and len(theirs) else np.inf
    near = distance <= tolerance[pairs[:, 0]]
    return pairs[near], distance[near]


def _within(
    points: NDArray[np.int64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.int64]:
    """The points inside a box."""
    return points[((points >= low) & (points <= high)).all(axis=1)]
