"""The lessons' own figures show the numbers they were given, in the right place and proportion."""

import json
from dataclasses import fields, replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from labkit.annotations import lidc
from labkit.errors import InputError
from labkit.imaging.lungs import Steps
from labkit.imaging.views import PLANES
from labkit.imaging.volume import Volume
from labkit.models import NETWORKS
from labkit.models.mtcnn import MTCNN, STCNN
from labkit.plots import lesson01, lesson02, lesson03, lesson04, lesson11, lesson12, roofline, style
from labkit.simulate.scanner import center_of, scan_crop
from tests.plots.test_figures import HERO, Luna, candidates

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def nodules() -> pd.DataFrame:
    return lidc.nodules()


@pytest.fixture(scope="module")
def hero(nodules) -> pd.Series:
    return nodules.set_index("nodule_id", drop=False).loc[HERO]


# Lesson 01


def test_the_bars_of_fig_1_are_as_high_as_the_counts_in_their_class_s_colour(nodules):
    (ax,) = lesson01.malignancy_scores(nodules).axes
    drawn = {round(b.get_x() + b.get_width() / 2, 2): b for b in ax.patches}
    expected = nodules["malignancy_median"].value_counts()
    assert {score: bar.get_height() for score, bar in drawn.items()} == expected.to_dict()
    for score, bar in drawn.items():
        wanted = style.UNCERTAIN if score == 3 else style.CLASSES[int(score > 3)]
        assert to_hex(bar.get_facecolor()).upper() == wanted
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["benign: 388", "uncertain: 441", "malignant: 363"]


def test_outlines_lie_in_mm_on_the_simulated_nodule_a_panel_a_slice(hero):
    ct, contours = scan_crop(hero, half_width_mm=15), lidc.contours(HERO)
    axes = lesson01.outlines(contours, hero, ct, center_of(hero)).axes
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles == [f"z = {z:.1f} mm" for z in sorted({c.z_mm for c in contours})]
    lines = [line for ax in axes for line in ax.get_lines()]
    assert len(lines) == len(contours)
    readers = list(dict.fromkeys(c.annotation_id for c in contours))
    for reader, color in zip(readers, style.READERS, strict=True):
        own = [c.vertices_row_col_px[:, 1] for c in contours if c.annotation_id == reader]
        width = max(np.ptp(line.get_xdata()) for line in lines if line.get_color() == color)
        assert width == pytest.approx(max(map(np.ptp, own)) * hero["pixel_spacing_mm"])
    (image,) = axes[5].get_images()
    left, right, bottom, top = image.get_extent()
    shown = image.get_array()
    # Near the nodule's centre there is bright tissue, when picture and outlines are aligned.
    x = left + (np.arange(shown.shape[1]) + 0.5) * (right - left) / shown.shape[1]
    y = top + (np.arange(shown.shape[0]) + 0.5) * (bottom - top) / shown.shape[0]
    near = (np.abs(y)[:, None] < 4) & (np.abs(x) < 2)
    assert shown[near].mean() > np.ma.median(shown) + 400
    assert hero["pixel_spacing_mm"] == pytest.approx((right - left) / shown.shape[1])
    with pytest.raises(InputError, match="center_xyz_mm"):
        lesson01.outlines(contours, hero, ct)


# Lesson 02


def test_kept_states_the_share_of_each_nodule_that_each_mask_holds():
    z, y, x = np.ogrid[:12, :60, :60]
    ball = ((z - 6) * 2.0) ** 2 + (y - 30.0) ** 2 + (x - 30.0) ** 2 < 16
    half = ball & (x < 30)
    volume = Volume(np.where(ball, 30, -850).astype(np.int16), (1.0, 1.0, 2.0))
    masks = {"all": np.ones(volume.shape, bool), "half": half, "none": np.zeros_like(ball)}
    figure = lesson02.kept(volume, {"ball": ball}, masks)
    share = round(100 * half.sum() / ball.sum())
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["all: 100 %", f"half: {share} %", "none: 0 %"]
    drawn = figure.axes[0].get_images()[0].get_array()
    assert drawn.shape == (53, 53)
    assert drawn[26, 26] == 30  # the nodule in the middle of its panel


def test_steps_are_in_order_with_the_head_up_and_the_same_of_a_scan_that_lies_otherwise():
    shape, masks = (9, 12, 14), {}
    for number, field in enumerate(fields(Steps)):  # a box of its own each
        masks[field.name] = np.zeros(shape, bool)
        masks[field.name][2:7, 2:10, 1 + number : 5 + number] = True
    scan = Volume(RNG.normal(-500, 300, shape).astype(np.int16), (1.0, 1.0, 2.5))
    turned = replace(scan, voxels=scan.voxels[::-1, :, ::-1], direction=np.diag([-1.0, 1, -1]))
    other = Steps(**{name: mask[::-1, :, ::-1] for name, mask in masks.items()})
    order = ["threshold", "body", "airways", "without_airways", "right", "left", "closed"]
    for plane, axis in (("axial", 0), ("coronal", 1), ("sagittal", 2)):
        axes = lesson02.steps(scan, Steps(**masks), at=5, plane=plane).axes
        again = lesson02.steps(turned, other, at=5, plane=plane).axes
        assert [ax.get_title("left")[0] for ax in axes] == list("123456")
        layers, same = ([image.get_array() for ax in of for image in ax.images[1:]]
                        for of in (axes, again))  # fmt: skip
        for layer, found, name in zip(layers, same, order, strict=True):
            mask = np.take(masks[name], 5, axis)
            assert ((layer[..., 3] > 0) == (mask[::-1] if axis else mask)).all(), name
            assert (layer == found).all()
        assert axes[0].get_aspect() == pytest.approx(2.5 if axis else 1)
    airways = np.zeros(shape, bool)
    airways[5, 3:5, 3:5] = True
    image = lesson02.steps(scan, Steps(**masks | {"airways": airways})).axes[2].images[1]
    assert ((image.get_array()[..., 3] > 0) == airways[5]).all()  # where most of them is


# Lesson 03


@pytest.mark.parametrize("number", range(9))
def test_a_plane_leaves_the_cube_through_its_edges(number):
    corners = lesson03.plane_corners_xyz_mm(PLANES[number], 64)
    edges = np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=1)
    # A face's plane is 64 by 64; a plane through two opposite edges holds two of the cube's
    # edges (64) and two diagonals of its faces.
    wanted = [64] * 4 if number < 3 else [64, 64, 90.51, 90.51]
    assert sorted(edges) == pytest.approx(wanted, abs=0.01)
    assert corners.mean(axis=0) == pytest.approx([0, 0, 0])
    assert np.abs(corners).max() == pytest.approx(32)
    if number >= 3:
        cube = {*product((-32, 32), repeat=3)}
        assert {tuple(np.round(corner).astype(int)) for corner in corners} <= cube


def test_a_painted_image_lies_on_its_plane_the_right_way_round():
    # Grey that grows toward the viewer. A drawing is painted from the back to the front, so its
    # greys must come in rising order, which they would not if the image were turned or mirrored.
    ax = lesson03.in_space(np.zeros((9, 8, 8))).axes[0]
    up, around = np.radians([ax.elev, ax.azim])
    viewer = np.array([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)])
    points = [plane.points_xyz_mm((0, 0, 0), 8, 8.0) for plane in PLANES]
    figure = lesson03.in_space([10 * (p @ viewer) - 300 for p in points])
    figure.canvas.draw()
    for number in (0, 3, 7):
        filled = [c for c in figure.axes[number].collections if isinstance(c, Poly3DCollection)]
        greys = max((c.get_facecolor() for c in filled), key=len)[:, 0]
        assert len(greys) == 64
        assert np.ptp(greys) > 0.1
        assert (np.diff(greys) > -1e-6).all()


def test_nine_views_show_their_hu_with_names_and_directions():
    images = RNG.normal(-400, 300, (9, 16, 16))
    axes = lesson03.nine_views(images).axes
    for number, ax in enumerate(axes):
        assert np.array_equal(ax.get_images()[0].get_array(), images[number])
        assert ax.get_title(loc="left") == f"{number}  {PLANES[number].name.replace('_', ' ')}"
        assert to_hex(ax.spines["left"].get_edgecolor()).upper() == lesson03.PLANE_COLORS[number]
    assert (axes[0].get_xlabel(), axes[0].get_ylabel()) == ("to left →", "← to back")
    assert axes[8].get_xlabel() == "to left and front →"
    assert all(not ax.texts for ax in lesson03.nine_views(images, mark="").axes)


def test_windows_clip_and_the_margins_squares_frame_what_they_cut_out():
    image = RNG.normal(-400, 300, (16, 16))
    limits = {"paper": (-1000, 400), "soft": (-160, 240)}
    _, soft, below = lesson02.windows(image, limits).axes
    shown = np.asarray(soft.get_images()[0].get_array())
    assert shown == pytest.approx(np.clip((image + 160) / 400, 0, 1), abs=1e-6)
    assert [tuple(line.get_xdata()) for line in below.get_lines()] == list(limits.values())
    view = np.arange(76 * 76.0).reshape(76, 76)
    wide, middle, shifted = lesson03.margin(view, [(6, -6)]).axes
    assert np.array_equal(middle.get_images()[0].get_array(), view[6:70, 6:70])
    assert np.array_equal(shifted.get_images()[0].get_array(), view[12:76, 0:64])
    assert [square.get_xy() for square in wide.patches] == [(5.5, 5.5), (-0.5, 11.5)]
    with pytest.raises(InputError, match="room for shifts of 6"):
        lesson03.margin(view, [(7, 0)])


# Lesson 05


@pytest.mark.parametrize("kind", [MTCNN, STCNN])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_the_table_counts_every_parameter(kind, depth):
    net = kind(depth=depth)
    table = lesson04.network_table(net)
    assert table["parameters"].sum() == sum(p.numel() for p in net.parameters())
    pooled = table[table["layer"] == "max pooling"]["output"].tolist()
    assert [int(o.split(" x ")[-1]) for o in pooled] == [64 >> k for k in range(1, depth + 1)]


def test_the_table_and_the_drawing_of_the_printed_network():
    table = lesson04.network_table(MTCNN())
    assert table.groupby("branch")["parameters"].sum().to_dict() == {
        "ClsNet": 4096 * 256 + 256 + 256 * 16 + 16 + 16 * 2 + 2,
        "ImgNet": 64 * 32 * 9 + 32 + 32 * 24 * 9 + 24 + 24 * 25 + 1,
        "ShareNet": 24 * 25 + 24 + 24 * 32 * 9 + 32 + 32 * 64 * 9 + 64,
    }
    for places, n in (("none", 0), ("fc1", 1), ("fc1+fc2", 2)):
        layers = lesson04.network_table(STCNN(dropout_on=places))["layer"]
        assert (layers == "dropout").sum() == n
    both, one = (style.alt_text(lesson04.network_figure(net)) for net in (MTCNN(), STCNN()))
    assert "; ImgNet" in both and "64 × 8 × 8" in both and "; ImgNet" not in one


# Appendix 1


def stage(name: str, flop: float, size: float, seconds: float) -> dict:
    return {"stage": name, "flop": 2 * flop, "flop_executed": flop, "bytes": size,
            "seconds": seconds}  # fmt: skip


@pytest.fixture
def measured() -> dict:
    """A machine of 100 GFLOP/s and 10 GB/s: its ridge lies at 10 FLOP a byte."""
    stages = [
        stage("conv 1", 4e9, 1e8, 0.05),  # 40 FLOP a byte, 80 GFLOP/s; at least 40 ms
        stage("max pooling", 1e7, 1e8, 0.02),  # 0.1 FLOP a byte; at least 10 ms
        stage("FC 2", 1e6, 2e5, 0.001),
    ]
    return {
        "hardware": {"processor": "a processor"}, "device": "cpu", "date": "2026-01-02T03:04:05",
        "batch_size": 64, "steps": {"fp32": {"seconds": 0.08, "stages": stages}},
        "roof": {"flop_per_s": {"fp32": 1e11}, "bytes_per_s": {"copy": 1e10, "triad": 8e9}},
    }  # fmt: skip


def test_the_roofline_tells_arithmetic_from_memory_where_it_was_measured(measured):
    table = roofline.table(measured).set_index("stage")
    assert table["limit"].tolist() == ["arithmetic", "memory", "memory"]
    assert table["FLOP/byte"]["conv 1"] == pytest.approx(40)
    assert table["GFLOP/s"]["conv 1"] == pytest.approx(80)
    assert table["least ms"].tolist() == pytest.approx([40, 10, 0.02])
    assert table["share"].sum() == pytest.approx(1)
    (ax,) = roofline.roofline_figure(measured).axes
    places = np.concatenate([c.get_offsets() for c in ax.collections])
    wanted = table[["FLOP/byte", "GFLOP/s"]].to_numpy()
    np.testing.assert_allclose(np.sort(places, axis=0), np.sort(wanted, axis=0))
    # The roof bends at the ridge.
    assert any(np.isclose(line.get_xdata(), 10).any() for line in ax.lines)
    measured["steps"]["fp32"]["stages"][0]["kernel_seconds"] = 0.025  # a GPU's kernels alone
    assert roofline.table(measured)["ms"].tolist() == pytest.approx([25, 20, 1])
    with pytest.raises(InputError, match="bf16 was not measured; there is fp32"):
        roofline.roofline_figure(measured, "bf16")


def test_no_name_covers_another(measured):
    near = [stage(f"conv {k}", 4e9 * (1 + 0.05 * k), 1e8, 0.05) for k in range(6)]
    measured["steps"]["fp32"]["stages"] = near
    figure = roofline.roofline_figure(measured)
    figure.draw_without_rendering()
    named = [t for t in figure.axes[0].texts if t.get_text().startswith("conv")]
    boxes = [Text.get_window_extent(t) for t in named]  # without the lines to their points
    assert len(boxes) == 6
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_speed_has_a_panel_a_machine_and_another_file_is_refused(tmp_path):
    training, (cpu, *_) = roofline.committed()
    gpu = cpu | {"device": "cuda", "hardware": {"gpu": "a GPU"}}
    axes = roofline.speed_figure(training, [cpu, gpu]).axes
    assert ["a GPU" in ax.get_title("left") for ax in axes] == [False, False, True]
    ratio, ms = training["ratio"], [way["ms_per_round"] for way in cpu["ways"].values()]
    assert [p.get_width() for p in axes[0].patches] == pytest.approx(list(ratio.values()))
    assert [p.get_width() for p in axes[1].patches] == pytest.approx(ms)
    (tmp_path / "a.json").write_text(json.dumps(training))
    with pytest.raises(InputError, match=r"a\.json.*make it by python -m benchmarks"):
        roofline.read(tmp_path / "a.json")


# Lesson 11


def test_marks_lie_on_the_voxels_of_their_candidates():
    # A hit is a nodule even where an excluded finding is, too.
    voxels = np.full((40, 60, 100), -850, np.int16)
    volume = Volume(voxels, (0.5, 0.5, 2.0), (-24.75, -14.75, 0.0), series_uid="a")
    (ax,) = lesson11.on_slice(volume, candidates(), 20.0).axes
    assert ax.get_images()[0].get_extent() == [-25.0, 25.0, 15.0, -15.0]
    marks = {m.get_label(): m.get_xydata().tolist() for m in ax.lines if ":" in m.get_label()}
    assert marks == {
        "nodule: 2": [[-10.0, -5.0], [-9.0, -5.0]],
        "excluded: 1": [[10.0, 5.0]],
        "false positive: 1": [[0.0, 0.0]],  # not the one 60 mm above, nor another scan's
    }
    with pytest.raises(InputError, match="outside the scan"):
        lesson11.on_slice(volume, candidates(), 500.0)


def test_kinds_stand_in_rows_the_surest_first_and_a_nodule_once():
    rows = lesson11.kinds_rows(Luna, ["vessel", "branching", "hilum"], n=2)
    numbers = {name: of.tolist() for name, of in rows.items()}
    assert numbers == {"nodule": [0], "vessel": [3, 5], "branching": [4]}
    figure = lesson11.kinds_figure(Luna, ["vessel", "branching"])
    assert [ax.get_ylabel() for ax in figure.axes[::2]] == ["nodule", "vessel", "branching"]
    assert figure.axes[0].get_title("left") == "9 mm"


def test_both_axes_show_one_curve():
    labels = np.repeat([1, 0], [20, 2000])
    scored = {"MT-CNN": (labels, RNG.normal(2.0 * labels))}
    left, right = lesson11.two_axes_figure(scored, scans=20).axes
    rate, a_scan = left.get_lines()[0].get_data(), right.get_lines()[0].get_data()
    np.testing.assert_allclose(100 * rate[0], a_scan[0])
    np.testing.assert_array_equal(rate[1], a_scan[1])


# Lesson 12


def test_every_method_has_its_place_in_the_field():
    names = [name for of in lesson12.FIELD.values() for name in of]
    assert sorted(names) == sorted(NETWORKS)
    assert lesson12.colour("size+calcification") == style.SIZE_ONLY
    assert [lesson12.colour(name) for name in ("st", "mt+size")] == [style.ST, style.MT]


def test_a_dot_stands_where_a_pair_is_found():
    names = ["a", "b", "c"]
    less = pd.DataFrame([[0, 0.1, 0.2], [-0.1, 0, 0.1], [-0.2, -0.1, 0]], names, names)
    found = pd.DataFrame(abs(less) > 0.15, names, names)
    figure = lesson12.pairs_figure(less, found)
    dots = {tuple(at) for line in figure.axes[0].lines for at in line.get_xydata().astype(int)}
    assert dots == {(2, 0), (0, 2)}
    assert "Found: a over c." in style.alt_text(figure)
