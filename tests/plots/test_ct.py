"""Lesson 02's figures show what they are given, in the right place and proportion."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from labkit.errors import InputError
from labkit.imaging.volume import Volume
from labkit.plots import lesson02, style


def scan_with_ball() -> tuple[Volume, np.ndarray, np.ndarray]:
    """A block of lung with a ball of 8 mm in its middle; the ball; its upper half."""
    z, y, x = np.ogrid[:12, :40, :40]
    ball = ((z - 6) * 2.0) ** 2 + (y - 20.0) ** 2 + (x - 20.0) ** 2 < 16
    volume = Volume(np.where(ball, 30, -850).astype(np.int16), (1.0, 1.0, 2.0))
    return volume, ball, ball & (x < 20)


def test_a_histogram_has_a_line_for_each_part_and_names_medians():
    rng = np.random.default_rng(0)
    parts = {"lung": rng.normal(-850, 20, 999), "rest": rng.normal(40, 9, (9, 111))}
    figure = lesson02.histogram(parts)
    assert "lung -85" in style.alt_text(figure)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["lung", "rest"]
    assert "simulated" in [t.get_text() for t in figure.axes[0].texts]
    with pytest.raises(InputError, match="4 at most"):
        lesson02.histogram({name: [0.0] for name in "abcde"})


def test_windows_map_their_ends_to_black_and_white_in_true_proportions():
    image = np.zeros((30, 60))
    figure = lesson02.windows(image, {"lung": (-1350, 150), "bone": (-500, 1300), "c": (0, 1)}, 0.5)
    shown = [ax.get_images()[0] for ax in figure.axes if ax.get_images()]
    assert [i.get_clim() for i in shown] == [(-1350, 150), (-500, 1300), (0, 1)]
    assert [abs(e) for e in shown[0].get_extent()] == [15.0, 15.0, 7.5, 7.5]


def test_spacings_count_every_scan_once():
    table = pd.DataFrame(
        {
            "pixel_spacing_mm": [0.5, 0.7, 0.7],
            "slice_spacing_mm": [0.625, 2.5, 2.5],
            "slice_thickness_mm": [1.25, 2.5, 2.5],
        }
    )
    figure = lesson02.spacings(table)
    left, right = figure.axes
    assert sum(bar.get_height() for bar in left.patches) == 3
    assert sum(bar.get_height() for bar in right.patches) == 6
    assert [t.get_text() for t in right.get_xticklabels()] == ["0.625", "1.25", "2.5"]
    assert "median 0.70" in style.alt_text(figure)


def test_slabs_of_different_thickness_show_the_same_millimetres():
    images = {1.0: (np.zeros((20, 8)), np.zeros((8, 8))), 5.0: (np.zeros((5, 8)), np.zeros((8, 8)))}
    figure = lesson02.slabs(images, pixel_mm=0.5)
    first, second = figure.axes[:2]
    assert first.get_ylim() == second.get_ylim() == (10.0, -10.0)
    assert "1, 5 mm thick" in style.alt_text(figure)


def test_peaks_draw_formula_and_measurement_in_one_colour():
    values = {"good": [0.0, -10.0], "bad": [-5.0, -300.0]}
    figure = lesson02.peaks([1.0, 5.0], values, values, surround_hu=-850.0)
    lines = figure.axes[0].get_lines()
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()
    assert "bad: -5 HU at 1 mm, -300 at 5" in style.alt_text(figure)


def test_kernels_put_the_middle_of_a_line_at_zero():
    figure = lesson02.kernels({"soft": np.zeros((9, 9))}, {"soft": np.arange(5.0)}, pixel_mm=2.0)
    assert figure.axes[-1].get_lines()[0].get_xdata().tolist() == [-4, -2, 0, 2, 4]


def test_kept_states_the_share_of_each_nodule_that_each_mask_holds():
    volume, ball, half = scan_with_ball()
    masks = {"all": np.ones(volume.shape, bool), "half": half, "none": np.zeros_like(ball)}
    figure = lesson02.kept(volume, {"ball": ball}, masks, half_width_mm=10)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    share = round(100 * half.sum() / ball.sum())
    assert titles == ["all: 100 %", f"half: {share} %", "none: 0 %"]
    assert "ball, none: 0 %" in style.alt_text(figure)
    drawn = figure.axes[0].get_images()[0].get_array()
    assert drawn.shape == (21, 21)
    assert drawn[10, 10] == 30  # the nodule in the middle of its panel


def test_fewer_colours_keep_the_picture_and_its_alternative_text(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **rest: shown.append((data, rest)))
    noise = np.random.default_rng(0).normal(-850, 60, (200, 200))
    for colors in (None, 256):
        figure = lesson02.windows(noise, {"a": (-1000, 400)}, 1.0)
        style.show(figure, colors=colors)
    (full, _), (small, said) = shown
    assert len(small["image/png"]) < 0.8 * len(full["image/png"])
    assert said["metadata"]["image/png"]["alt"].startswith("The same simulated slice")
    streams = (io.BytesIO(data["image/png"]) for data in (full, small))
    pictures = [np.asarray(Image.open(stream).convert("RGB")) for stream in streams]
    assert (pictures[0] == pictures[1]).all()  # a grey picture loses nothing
