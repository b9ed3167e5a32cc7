"""Lesson 03's figures lie where the planes lie, and show the HU that they are given."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from labkit.errors import InputError
from labkit.imaging.views import PLANES
from labkit.plots import lesson03, style

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "03_view_extraction.ipynb"


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(-400, 300, (9, 16, 16))


@pytest.mark.parametrize("number", range(9))
def test_a_plane_leaves_the_cube_through_its_edges(number):
    corners = lesson03.plane_corners_xyz_mm(PLANES[number], 64)
    edges = np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=1)
    # A face's plane is 64 by 64; a plane through two opposite edges holds two of the cube's
    # edges (64) and two diagonals of its faces.
    assert sorted(edges) == pytest.approx(
        [64] * 4 if number < 3 else [64, 64, 90.51, 90.51], abs=0.01
    )
    assert corners.mean(axis=0) == pytest.approx([0, 0, 0])
    assert np.abs(corners).max() == pytest.approx(32)
    if number >= 3:
        cube = {*product((-32, 32), repeat=3)}
        assert {tuple(np.round(corner).astype(int)) for corner in corners} <= cube


def test_every_cube_in_space_holds_its_plane_and_its_images_frame():
    figure = lesson03.in_space()
    assert [ax.get_title().split()[-1] for ax in figure.axes] == [p.name for p in PLANES]
    for plane, color, ax in zip(PLANES, lesson03.PLANE_COLORS, figure.axes, strict=True):
        (polygon,) = (c for c in ax.collections if isinstance(c, Poly3DCollection))
        assert to_hex(polygon.get_facecolor()).upper() == color
        (frame,) = ax.get_lines()
        corners = np.stack(frame.get_data_3d(), axis=-1)[:4]
        assert np.linalg.norm(corners, axis=1) == pytest.approx([32 * np.sqrt(2)] * 4)
        assert np.abs(corners @ np.array(plane.normal_xyz)).max() == pytest.approx(0, abs=1e-9)


def toward_viewer(ax) -> np.ndarray:
    """Unit vector from the middle of a 3-D drawing to its viewer."""
    up, around = np.radians([ax.elev, ax.azim])
    return np.array([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)])


def test_no_plane_is_drawn_edge_on():
    viewer = toward_viewer(lesson03.in_space().axes[0])
    assert min(abs(np.dot(plane.normal_xyz, viewer)) for plane in PLANES) > 0.2


@pytest.mark.parametrize("number", [0, 3, 7])
def test_a_painted_image_lies_on_its_plane_the_right_way_round(number):
    # Grey that grows toward the viewer. A drawing is painted from the back to the front, so its
    # greys must come in rising order, which they would not if the image were turned or mirrored.
    viewer = toward_viewer(lesson03.in_space().axes[0])
    points = PLANES[number].points_xyz_mm((0, 0, 0), 8, 8.0)
    images = np.repeat(10 * (points @ viewer)[None], 9, axis=0) - 300
    figure = lesson03.in_space(images)
    figure.canvas.draw()
    filled = [c for c in figure.axes[number].collections if isinstance(c, Poly3DCollection)]
    greys = max((c.get_facecolor() for c in filled), key=len)[:, 0]
    assert len(greys) == 64
    assert np.ptp(greys) > 0.1
    assert (np.diff(greys) > -1e-6).all()


def test_painted_planes_say_that_they_are_simulated(images):
    assert [text.get_text() for text in lesson03.in_space(images).texts] == ["images: simulated"]
    assert lesson03.in_space(images, mark="").texts == []


def test_nine_views_show_their_hu_with_names_directions_and_the_word_simulated(images):
    axes = lesson03.nine_views(images).axes
    for number, ax in enumerate(axes):
        assert np.array_equal(ax.get_images()[0].get_array(), images[number])
        assert ax.get_images()[0].get_clim() == (-1000, 400)
        assert ax.get_title(loc="left").split() == [str(number), PLANES[number].name]
        assert [text.get_text() for text in ax.texts] == ["simulated"]
        assert to_hex(ax.spines["left"].get_edgecolor()).upper() == lesson03.PLANE_COLORS[number]
    assert (axes[0].get_xlabel(), axes[0].get_ylabel()) == ("to left →", "← to back")
    assert axes[8].get_xlabel() == "to left and front →"
    assert all(not ax.texts for ax in lesson03.nine_views(images, mark="").axes)


def test_anything_but_nine_images_is_refused(images):
    for draw in (lesson03.nine_views, lesson03.in_space):
        with pytest.raises(InputError, match="nine views are needed"):
            draw(images[:8])


def test_images_side_by_side_are_as_large_as_their_voxels():
    image = np.zeros((10, 40))
    sizes = {"squares": None, "mm": (2.5, 0.5)}
    left, right, plain = lesson03.side_by_side(
        {"squares": image, "mm": image, "plain": image}, pixel_mm=sizes
    ).axes
    assert left.get_images()[0].get_extent() == [-20, 20, 5, -5]
    assert right.get_images()[0].get_extent() == [-10, 10, 12.5, -12.5]
    assert plain.get_images()[0].get_extent() == [-20, 20, 5, -5]
    assert [ax.get_xlabel() for ax in (left, right, plain)] == ["voxels", "mm", "mm"]


def test_difference_maps_show_the_other_less_the_reference(images):
    figure = lesson03.differences(images[0], {"brighter": images[0] + 30, "other": images[1]})
    maps = [np.asarray(ax.get_images()[0].get_array()) for ax in figure.axes[1:3]]
    assert maps[0] == pytest.approx(np.full((16, 16), 30))
    assert maps[1] == pytest.approx(images[1] - images[0])
    assert figure.axes[1].get_images()[0].get_clim() == (-100, 100)
    assert "brighter: up to 30 HU" in style.alt_text(figure)


@pytest.mark.parametrize("count", [9, 10])
def test_curves_run_through_the_known_voxels_and_not_through_the_hidden_ones(count):
    position = np.arange(count) * 0.7
    hu = np.random.default_rng(1).normal(size=count) * 100
    (ax,) = lesson03.hidden_samples({"line": (position, hu)}).axes
    linear, cubic, known, hidden = ax.get_lines()
    assert list(known.get_xdata()) == list(position[::2])
    assert list(hidden.get_ydata()) == list(hu[1::2])
    for curve in (linear, cubic):
        assert curve.get_ydata()[[0, -1]] == pytest.approx(known.get_ydata()[[0, -1]])
    at = np.interp(hidden.get_xdata()[:4], linear.get_xdata(), linear.get_ydata())
    assert at == pytest.approx((hu[:8:2] + hu[2:9:2]) / 2, rel=0.02, abs=2)


def test_window_panels_are_clipped_and_their_bars_span_their_hu(images):
    limits = {"paper": (-1000, 400), "soft": (-160, 240)}
    figure = lesson03.windows(images[0], limits)
    soft = np.asarray(figure.axes[1].get_images()[0].get_array())
    assert soft == pytest.approx(np.clip((images[0] + 160) / 400, 0, 1), abs=1e-6)
    spans = [tuple(line.get_xdata()) for line in figure.axes[2].get_lines()]
    assert spans == [(-1000, 400), (-160, 240)]


def test_the_margin_figure_cuts_out_what_its_squares_frame():
    view = np.arange(76 * 76.0).reshape(76, 76)
    figure = lesson03.margin(view, [(6, -6)])
    wide, middle, shifted = figure.axes
    assert np.array_equal(middle.get_images()[0].get_array(), view[6:70, 6:70])
    assert np.array_equal(shifted.get_images()[0].get_array(), view[12:76, 0:64])
    assert [square.get_xy() for square in wide.patches] == [(5.5, 5.5), (-0.5, 11.5)]
    with pytest.raises(InputError, match="room for shifts of 6"):
        lesson03.margin(view, [(7, 0)])


@pytest.mark.skipif(not NOTEBOOK.is_file(), reason="the package is installed away from its course")
def test_the_committed_lesson_was_run_without_real_ct():
    cells = {cell["id"]: cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]}
    (output,) = cells["real"]["outputs"]
    assert output["output_type"] == "stream"
    assert "everything in this notebook is simulated" in "".join(output["text"])
