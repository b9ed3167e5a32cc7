"""Lesson 01's figures show the numbers that they are given, in the colours of the house."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from sklearn.metrics import auc

from labkit.annotations import lidc
from labkit.cohorts.simulated import center_of, scan_crop
from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.plots import lesson01, style

HERO = "LIDC-IDRI-0921-s1-n0"


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def nodules() -> pd.DataFrame:
    return lidc.nodules()


@pytest.fixture(scope="module")
def labelled(nodules) -> pd.DataFrame:
    return nodules[nodules["label"].notna()].reset_index(drop=True)


@pytest.fixture(scope="module")
def hero(nodules) -> pd.Series:
    return nodules.set_index("nodule_id", drop=False).loc[HERO]


def bars(ax) -> list[tuple[float, float, str]]:
    """(centre, height, colour) of the upright bars of some axes."""
    return [
        (bar.get_x() + bar.get_width() / 2, bar.get_height(), to_hex(bar.get_facecolor()).upper())
        for container in ax.containers
        for bar in container
    ]


def test_the_bars_of_fig_1_are_as_high_as_the_counts_and_have_their_class_s_colour(nodules):
    (ax,) = lesson01.malignancy_scores(nodules).axes
    expected = nodules["malignancy_median"].value_counts()
    drawn = {round(score, 2): (height, color) for score, height, color in bars(ax)}
    assert {score: height for score, (height, _) in drawn.items()} == expected.to_dict()
    for score, (_, color) in drawn.items():
        wanted = style.UNCERTAIN if score == 3 else style.CLASSES[int(score > 3)]
        assert color == wanted
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "benign: 388",
        "uncertain: 441",
        "malignant: 363",
    ]


def test_outlines_are_drawn_in_mm_from_the_nodule_one_line_a_contour(hero):
    contours = lidc.contours(HERO)
    figure = lesson01.outlines(contours, hero)
    lines = [line for ax in figure.axes for line in ax.get_lines()]
    assert len(lines) == len(contours)
    width = {  # the widest line of a reader is as wide as the reader's widest outline
        color: max(np.ptp(line.get_xdata()) for line in lines if line.get_color() == color)
        for color in style.READERS
    }
    readers = list(dict.fromkeys(c.annotation_id for c in contours))
    for reader, color in zip(readers, style.READERS, strict=True):
        columns = [
            np.ptp(c.vertices_row_col_px[:, 1]) for c in contours if c.annotation_id == reader
        ]
        assert width[color] == pytest.approx(max(columns) * hero["pixel_spacing_mm"])
    everything = np.concatenate([line.get_xydata() for line in lines])
    assert np.abs(everything.mean(axis=0)).max() < 3  # mm


def test_every_slice_that_somebody_outlined_has_its_panel_in_order(hero):
    contours = lidc.contours(HERO)
    titles = [ax.get_title(loc="left") for ax in lesson01.outlines(contours, hero).axes]
    levels = sorted({contour.z_mm for contour in contours})
    assert titles == [f"z = {z:.1f} mm" for z in levels]


def test_a_simulated_slice_lies_under_its_outlines_and_says_that_it_is_simulated(hero):
    ct = scan_crop(hero, half_width_mm=15)
    figure = lesson01.outlines(lidc.contours(HERO), hero, ct, center_of(hero))
    axes = figure.axes
    assert all("simulated" in [text.get_text() for text in ax.texts] for ax in axes)
    (image,) = axes[5].get_images()
    left, right, bottom, top = image.get_extent()
    shown = image.get_array()
    # Pixels inside an outline that all four readers drew are bright tissue; the mean place of
    # bright pixels near the nodule is the nodule's centre, when picture and outlines are aligned.
    x = left + (np.arange(shown.shape[1]) + 0.5) * (right - left) / shown.shape[1]
    y = top + (np.arange(shown.shape[0]) + 0.5) * (bottom - top) / shown.shape[0]
    near = (np.abs(y)[:, None] < 4) & (np.abs(x) < 2)
    assert shown[near].mean() > np.ma.median(shown) + 400
    assert hero["pixel_spacing_mm"] == pytest.approx((right - left) / shown.shape[1])
    assert np.mean(shown) < -500


def test_outlines_over_ct_without_a_centre_are_refused(hero):
    with pytest.raises(InputError, match="center_xyz_mm"):
        lesson01.outlines(lidc.contours(HERO), hero, scan_crop(hero, half_width_mm=5))


def test_the_agreement_matrix_shows_percent_of_each_row():
    pairs = np.array([[6, 2], [1, 3]])
    (ax,) = lesson01.agreement(pairs).axes
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["75 %", "25 %", "25 %", "75 %"]


def test_the_ratings_table_prints_every_rating(hero):
    readings = lidc.annotations().query("nodule_id == @HERO")
    (ax,) = lesson01.ratings(readings).axes
    shown = np.array([float(text.get_text()) for text in ax.texts]).reshape(4, 9)
    assert (shown == readings[list(lidc.RATINGS)].to_numpy()).all()


def test_agreement_bars_are_ordered_and_diameter_stands_out():
    (ax,) = lesson01.rating_agreement({"diameter": 0.9, "texture": 0.2, "margin": 0.5}).axes
    lengths = [bar.get_width() for bar in ax.patches]
    assert lengths == [0.2, 0.5, 0.9]
    assert to_hex(ax.patches[-1].get_facecolor()).upper() == style.SIZE_ONLY


def test_class_counts_add_up_to_each_rules_nodules(nodules):
    rules = {"three": nodules, "mean": lidc.nodules(aggregate="mean")}
    counts = lesson01.class_counts(rules)
    assert counts.loc["three"].tolist() == [388, 441, 363]
    assert (counts.sum(axis=1) == [len(table) for table in rules.values()]).all()


def test_the_stacked_bars_of_a_rule_end_at_its_total(nodules):
    counts = lesson01.class_counts({"three": nodules, "none": nodules[:0]})
    counts.loc["as published"] = [369, 405, 335]
    (ax,) = lesson01.counts_by_rule(counts, ["as published"]).axes
    ends = {}
    for bar in ax.patches:
        row = round(bar.get_y() + bar.get_height() / 2)
        ends[row] = max(ends.get(row, 0), bar.get_x() + bar.get_width())
    assert ends == {0: 1192, 1: 0, 2: 1109}
    weights = [tick.get_fontweight() for tick in ax.get_yticklabels()]
    assert weights == ["normal", "normal", "bold"]


def test_boxes_stand_at_their_scores_with_their_medians(nodules):
    (ax,) = lesson01.size_by_score(nodules).axes
    medians = nodules.groupby("malignancy_median")["diameter_mm"].median()
    drawn = {
        round(float(np.mean(line.get_xdata())), 2): float(line.get_ydata()[0])
        for line in ax.get_lines()
        if line.get_linewidth() == 1.6
    }
    assert drawn == pytest.approx(medians.to_dict())


def test_the_histograms_hold_every_labelled_nodule(labelled):
    (ax,) = lesson01.size_by_class(labelled).axes
    heights = [sum(height for _, height, _ in bars(ax)[30 * i : 30 * i + 30]) for i in (0, 1)]
    assert heights == [388, 363]


def test_a_drawn_roc_has_the_area_of_its_score(labelled):
    y, d = labelled["label"].to_numpy(dtype=int), labelled["diameter_mm"].to_numpy()
    figure = lesson01.rocs(
        y, {"diameter": d, "other": -d}, groups=labelled["patient_id"], resamples=20
    )
    curves = figure.axes[0].get_lines()[:2]
    areas = [auc(*line.get_data()) for line in curves]
    assert areas[0] == pytest.approx(statistics.roc_auc(y, d), abs=1e-9)
    assert areas[0] + areas[1] == pytest.approx(1)
    assert curves[0].get_color() == style.SIZE_ONLY
    assert len(figure.axes[0].collections) == 2  # a band each


def test_shares_of_the_calcified_add_up_to_100_percent(nodules):
    table = lesson01.class_counts({"all": nodules, "large": nodules[nodules["diameter_mm"] > 20]})
    (ax,) = lesson01.calcification(table).axes
    ends = sorted(bar.get_x() + bar.get_width() for bar in ax.patches)
    assert ends[-2:] == pytest.approx([100, 100])


def test_a_sibling_counts_only_in_another_fold():
    table = pd.DataFrame({"patient_id": list("aabbbc")}, index=[5, 4, 3, 2, 1, 0])
    found = lesson01.with_sibling(table, [0, 1, 2, 2, 2, 0])
    assert found.tolist() == [True, True, False, False, False, False]


def test_sibling_bars_are_0_by_patient_and_100_when_every_nodule_is_alone(labelled):
    several = labelled[labelled.groupby("patient_id")["label"].transform("size") > 1]
    by_patient = pd.factorize(several["patient_id"])[0]
    alone = np.arange(len(several))
    figure = lesson01.siblings(several, {"patient": by_patient, "alone": alone})
    assert [height for _, height, _ in bars(figure.axes[1])] == [0, 100]
    patients = sum(height for _, height, _ in bars(figure.axes[0]))
    assert patients == several["patient_id"].nunique()


def test_the_house_style_leaves_matplotlib_as_it_was():
    before = dict(plt.rcParams)
    with style.house_style():
        assert plt.rcParams["axes.spines.top"] is False
    assert dict(plt.rcParams) == before


def test_colours_are_okabe_and_itos():
    palette = {style.BLACK, style.ORANGE, style.SKY, style.GREEN, style.YELLOW, style.BLUE}
    palette |= {style.VERMILION, style.PURPLE, style.GREY}
    assert {style.BENIGN, style.MALIGNANT, style.UNCERTAIN, style.ST, style.MT} <= palette
    assert len({style.BENIGN, style.MALIGNANT, style.ST, style.MT, style.SIZE_ONLY}) == 5


def test_a_figure_without_alternative_text_is_not_shown():
    figure, _ = plt.subplots()
    with pytest.raises(InputError, match="alternative text"):
        style.show(figure)
    with pytest.raises(InputError, match="empty"):
        style.describe(figure, "  ")
    assert style.alt_text(style.describe(figure, "two\n  words")) == "two words"


def test_a_shown_figure_hands_its_alternative_text_to_the_notebook(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **k: shown.append((data, k)))
    figure = style.describe(plt.subplots()[0], "An empty plot.")
    style.show(figure)
    ((data, options),) = shown
    assert data["image/png"].startswith(b"\x89PNG")
    assert options["metadata"] == {"image/png": {"alt": "An empty plot."}}
    assert not plt.fignum_exists(figure.number)


def test_ct_is_drawn_in_the_papers_window():
    _, ax = plt.subplots()
    style.show_ct(ax, np.zeros((4, 4)))
    assert ax.get_images()[0].get_clim() == (-1000, 400)
    assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0
