"""Measures of real against simulated: each is right where the answer is known."""

import itertools
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from benchmarks.common import command
from benchmarks.realism import measure as realism
from benchmarks.realism import page, transfer
from benchmarks.realism.measure import compare, measure, tell_apart
from labkit.annotations import lidc
from labkit.errors import InputError
from tests.conftest import REPO
from tests.lidc_twins import twin_cohorts

LUNG, SOFT = -850.0, 40.0
K = np.arange(64) - 31.5


def disc(radius_mm, col=0.0, slices=8):
    """Signed distance to a cylinder along z, as outlines on all slices give."""
    d = np.hypot(K[:, None], K[None, :] - col) - radius_mm
    return np.repeat(d[None], slices, axis=0).astype(np.float32)


def scene(radius_mm, inner=SOFT, sigma_mm=1.0, noise_hu=0.0, wall_mm=99, slices=8):
    """Image of a disc in lung, its edge an error function, a wall of soft tissue to its right."""
    share = stats.norm.cdf(-disc(radius_mm, slices=slices) / sigma_mm)
    hu = LUNG + (inner - LUNG) * share
    hu[:, :, radius_mm + wall_mm <= K] = SOFT
    return (hu + np.random.default_rng(0).normal(0, noise_hu, hu.shape)).astype(np.float32)


def painted(hu, *parts):
    """The same with parts at least as bright as a value."""
    for rows, cols, value in parts:
        hu[:, rows, cols] = np.maximum(hu[:, rows, cols], value)
    return hu


def grainy(sigma):
    """Noise of 20 HU, smoothed or not, in lung and in soft tissue."""
    grain = ndimage.gaussian_filter(np.random.default_rng(2).normal(0, 20, (8, 64, 64)),
                                    (0, sigma, sigma))  # fmt: skip
    return (scene(2.0, wall_mm=10) + grain * 20 / grain.std()).astype(np.float32)


def band(value, within):
    return value - within, value + within


def edge_of(sigma_mm, offset_mm=0.0):
    width = 2.563 * sigma_mm
    return {"edge_width_mm": band(width, 0.12 * width), "edge_offset_mm": band(offset_mm, 0.13),
            "open_share": (1, 1), "edge_wander_mm": (0, 0.2)}  # fmt: skip


DOTS = [(slice(r, r + 3), slice(c, c + 3), -200.0) for r in (14, 22, 42, 50)
        for c in (14, 22, 42, 50)]  # fmt: skip
WAVE = np.tile(50 * np.sin(2 * np.pi * 0.25 * np.arange(64)), (8, 64, 1)).astype(np.float32)
NOISE = {"noise_lung_hu": band(20, 1.6), "noise_tissue_hu": band(20, 1.6)}
GRAIN = ("noise_fine_lung", "noise_fine_tissue")
# An image, where its outline is, and between what its measures lie.
SCENES = {
    "a density": (scene(6.0, -100.0, 0.4), disc(6.0), {"inside_median_hu": band(-100, 3)}),
    **{f"an edge of {s} mm": (scene(8.0, sigma_mm=s, noise_hu=20), disc(8.0), edge_of(s))
       for s in (0.6, 1.0, 1.5)},
    "an outline within the edge": (scene(8.0, noise_hu=20), disc(7.0), edge_of(1.0, 1.0)),
    "an outline to one side": (scene(8.0), disc(8.0, col=1.5), {"edge_wander_mm": (0.7, 9)}),
    "no edge": (np.full((8, 64, 64), SOFT, np.float32), disc(8.0),
                {"open_share": (0, 0), "edge_width_mm": None}),
    **{f"a wall {gap} mm off": (scene(6.0, sigma_mm=0.5, wall_mm=gap), disc(6.0), {
        "touches_wall": (gap < 2,) * 2, "wall_gap_mm": None if gap == 99 else band(gap, 1)})
       for gap in (0, 1, 4, 10, 99)},
    "a vessel to the wall": (
        painted(scene(6.0, wall_mm=12), (slice(30, 34), slice(None), SOFT)), disc(6.0),
        {"touches_wall": (0, 0), "wall_share": band((K >= 18).mean(), 0.01)}),
    "lines": (painted(scene(4.0), (slice(14, 16), slice(12, 52), -200.0)), disc(4.0), {
        "vessel_elongation": (5, 99), "vessel_long_share": (1, 1), "vessel_count_cm2": (0.03, 0.1),
    }),
    "dots": (painted(scene(4.0), *DOTS), disc(4.0), {
        "vessel_elongation": (1, 1.2), "vessel_long_share": (0, 0), "vessel_count_cm2": (0.2, 9),
        "lung_median_hu": band(LUNG, 1)}),
    "power": (scene(2.0, noise_hu=20, slices=30), disc(2.0, slices=30),
              {f"spectrum_{k}": band(400, 60) for k in range(2, 12)}),
    "white noise": (grainy(0), disc(2.0), {**NOISE, **dict.fromkeys(GRAIN, (0.9, 1.1))}),
    "coarse noise": (grainy(1), disc(2.0), dict.fromkeys(GRAIN, (0.1, 0.55))),
}  # fmt: skip


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_is_measured_as_it_was_drawn(name):
    hu, distance, expected = SCENES[name]
    found = realism.measures(hu, (distance < 0).astype(np.float32), distance)
    assert set(found) == {name for names in realism.THEMES.values() for name in names}
    for of, bounds in expected.items():
        inside = bounds and bounds[0] <= found[of] <= bounds[1]
        assert inside or (bounds is None and np.isnan(found[of])), (of, found[of])


def test_an_offset_between_slices_is_no_spread_and_a_wave_lies_at_its_frequency():
    hu, distance = scene(6.0, -100.0, 0.4), disc(6.0)
    offset = hu + np.linspace(-40, 40, len(hu), dtype=np.float32)[:, None, None]
    one, other = (realism.density(of, (distance < 0).astype(np.float32), distance)["inside_sd_hu"]
                  for of in (hu, offset))  # fmt: skip
    assert other == pytest.approx(one, rel=0.01)
    wave = realism.masks(hu := scene(2.0) + WAVE, (disc(2.0) < 0).astype(np.float32))
    assert realism.FREQUENCIES[realism.spectrum(hu, wave).argmax()] == 0.25
    shares = realism.histogram(hu, wave)
    assert shares.sum() == pytest.approx(1)  # every voxel of the shell once


def test_air_behind_the_wall_is_outside_and_no_nodule_is_wall():
    hu, agreement = scene(6.0, sigma_mm=0.5, wall_mm=6), (disc(6.0) < 0).astype(np.float32)
    hu[:, :, 60:] = -1000
    found = realism.masks(hu, agreement)
    assert found.outside[:, :, 61:].all() and not found.outside[:, :, :40].any()
    assert not found.lung[:, :, 58:].any() and not found.wall[agreement > 0].any()


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    return twin_cohorts(tmp_path_factory.mktemp("twins"))


@pytest.fixture(scope="module")
def measured(cohorts):
    return measure(cohorts[0].folder, cohorts[1].folder, jobs=1, resamples=50, progress=False)


def test_twins_are_the_same_nodule_and_alike_in_slices_range_and_rounding(cohorts):
    real, simulated = cohorts
    found = realism.match(real, simulated)
    assert len(found) == len(real) - 1, "the nodule with another rating has no twin"
    for _, pair in found.iterrows():
        a = real.nodules.iloc[pair["real_row"]]
        b = simulated.nodules.iloc[pair["simulated_row"]]
        assert a["series_uid"] == b["series_uid"]
        assert a["nodule_id"].rsplit("-", 1)[1] == b["nodule_id"].rsplit("-n", 1)[1]
    true, made, agreement, distance = realism.twins(real, simulated, found.iloc[5])
    assert true.shape == made.shape == agreement.shape == distance.shape
    assert (true > -1000).any(axis=(1, 2)).all() and made.min() >= -1000 and made.max() <= 400
    assert agreement.max() == 1 and distance.min() < 0
    with pytest.raises(InputError, match="has to hold real images"):
        realism.match(simulated, real)
    with pytest.raises(InputError, match="nothing but air"):
        realism.real_slices(np.full((64, 64, 64), -1000))


@given(st.lists(st.floats(-3000, 3000), min_size=1, max_size=50))
def test_storing_twice_changes_nothing_and_clips(values):
    once = realism.like_real(values)
    assert np.array_equal(realism.like_real(once), once)
    assert np.abs(once - np.clip(values, -1000, 400)).max() <= realism.STEP_HU / 2 + 0.51


@pytest.mark.real
def test_outlines_lie_where_real_cubes_show_the_nodule(real_cubes):
    with np.load(real_cubes) as file:
        found = {name: file[name] for name in ("nodule_id", "diameter_mm", "cubes", "series_uid")}
    table, seen = lidc.nodules(min_readers=3), []
    table = table.assign(number=table["nodule_id"].str.extract(r"(\d+)$", expand=False))
    for i in np.flatnonzero((found["diameter_mm"] > 12) & (found["diameter_mm"] < 20))[:30]:
        number = str(found["nodule_id"][i]).rsplit("-", 1)[1]
        same = (table["series_uid"] == str(found["series_uid"][i])) & (table["number"] == number)
        cube = -1000 + 1400 / 255 * found["cubes"][i].astype(np.float32)
        kept = realism.real_slices(cube)
        outline = realism.outline_at(table[same].iloc[0])[0][kept][:, 16:48, 16:48]

        def match(image, outline=outline):
            return np.corrcoef(image[:, 16:48, 16:48].ravel(), outline.ravel())[0, 1]

        as_is, *flipped = (match(np.flip(cube[kept], axes)) for axes in ((), 1, 2, (1, 2)))
        moved = {at: match(np.roll(cube[kept], at, (1, 2)))
                 for at in itertools.product(range(-4, 5), repeat=2)}  # fmt: skip
        if as_is > 0.5:
            seen.append((as_is > max(flipped), *max(moved, key=moved.get)))
    better, rows, cols = np.array(seen).T
    assert len(seen) >= 8 and better.mean() >= 0.9
    assert np.median(rows) == np.median(cols) == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(5, 60))
def test_distances_are_scipys(seed, n):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, 2, n).round(1), rng.normal(1, 1, n).round(1)
    found = compare(a, b, np.arange(n), resamples=5)
    assert found["ks"]["value"] == pytest.approx(stats.ks_2samp(a, b).statistic, abs=1e-4)


def test_a_shift_is_found_with_its_size_and_no_difference_is_within_chance():
    rng = np.random.default_rng(0)
    a, patients = rng.normal(0, 3, 200), np.arange(200) // 2
    found = compare(a, a + 5, patients)
    assert found["difference"]["value"] == pytest.approx(5)
    assert found["ks"]["value"] > found["ks"]["chance"]
    assert found["spearman"] == pytest.approx(1)
    pairs = (np.random.default_rng(seed).normal(size=(2, 80)) for seed in range(40))
    same = [compare(*pair, np.arange(80) // 2, resamples=200)["ks"] for pair in pairs]
    beyond = sum(ks["value"] > ks["chance"] for ks in same)
    assert beyond <= 7  # 5 % of 40 are 2; 8 or more happen once in a thousand
    few = np.array([1.0, 2, 3, 4, 5, np.nan])
    assert compare(few, few[::-1], np.arange(6)) is None
    assert compare(few, few, np.arange(6))["nodules"] == 5


def test_equal_images_cannot_be_told_apart_and_others_can():
    rng = np.random.default_rng(0)
    a, b = (pd.DataFrame(rng.normal(size=(120, 3)), columns=list("xyz")) for _ in range(2))
    patients = np.arange(120) // 2
    assert tell_apart(a, b, patients, {"all": "xyz"})["boosting"]["low"] < 0.55
    other = tell_apart(a, b.assign(y=b["y"] + 4), patients, {"all": "xyz", "x": "x"})
    assert other["boosting"]["value"] > 0.98 and other["by_theme"]["x"] < 0.7
    assert next(iter(other["by_measure"])) == "y"


def test_a_whole_measurement_finds_what_was_put_in_and_writes_no_image(measured, cohorts):
    def largest(values):
        if isinstance(values, dict):
            return max((largest(v) for v in values.values()), default=0)
        return len(values) if isinstance(values, list) else 0

    assert measured["pairs"]["nodules"] == len(cohorts[0]) - 1
    assert measured["pairs"]["real_without_twin"] == 1
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured
    difference = measured["measures"]["inside_median_hu"]["difference"]
    assert difference["value"] == pytest.approx(20, abs=12)  # the simulated balls are 20 HU denser
    lung = measured["measures"]["lung_median_hu"]
    assert lung["real"]["median"] == pytest.approx(LUNG, abs=6)
    assert largest(measured) <= 65


def test_no_patient_is_trained_on_and_tested(cohorts):
    real, simulated = cohorts
    rows, pairs = real.labelled, realism.match(real, simulated)
    twin_of = np.full(len(real), -1)
    twin_of[pairs["real_row"]] = pairs["simulated_row"]
    sets = transfer.training_sets(real, simulated, twin_of, rows, rows[::3])
    tested = set(real.nodules["patient_id"].iloc[rows[::3]])
    patients = {arm: {*(real if arm == "real" else simulated).nodules["patient_id"].iloc[train]}
                for arm, train in sets.items()}  # fmt: skip
    assert not any(tested & of for of in patients.values())
    assert patients["simulated_same"] <= patients["real"]


def test_transfer_trains_tests_and_goes_on_where_it_stopped(cohorts, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    out = tmp_path / "transfer.json"
    quick = [*(str(c.folder) for c in cohorts), "--out", str(out), "--seeds", "1", "--folds", "2",
             "--epochs", "1", "--jobs", "1", "--quiet"]  # fmt: skip
    assert command(transfer.transfer, None, quick, str) == 0
    first = json.loads(out.read_text())
    assert first["date"][:2] == "20" and first["hardware"]["labkit"]
    units = sorted((tmp_path / "runs").glob("*/units/*.json"))
    assert len(units) == 2 * len(transfer.ARMS)
    units[0].unlink()
    before = {u: u.stat().st_mtime_ns for u in units[1:]}
    assert command(transfer.transfer, None, quick, str) == 0
    assert {u: u.stat().st_mtime_ns for u in units[1:]} == before
    again = json.loads(out.read_text())
    assert again["metrics"] == first["metrics"] and again["differences"] == first["differences"]
    for arm in (*transfer.ARMS, "size_only"):
        assert first["metrics"][arm]["nodules"] == len(cohorts[0])
        assert len(first["auc_by_seed"][arm]) == 1


@pytest.mark.skipif(not page.PAGE.is_file(), reason="the package is installed away from its course")
def test_the_page_says_what_the_committed_results_say_and_writing_leaves_the_rest(
    results_folder, tmp_path, monkeypatch
):
    for name in ("realism", "transfer"):
        shutil.copy(REPO / "results" / f"{name}.json", results_folder)
    text = page.PAGE.read_text(encoding="utf-8")
    block = text[text.index(page.BEGIN) : text.index(page.END) + len(page.END)]
    assert all(f"](../results/realism_{name}.png)" in block for name in page.FIGURES)
    assert all((REPO / f"results/realism_{name}.png").is_file() for name in page.FIGURES)
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    page.PAGE.write_text(f"By hand.\n\n{page.BEGIN}\nSTALE\n{page.END}\n\nBy hand, too.\n")
    assert command(page.write, None, []) == 0
    made = page.PAGE.read_text(encoding="utf-8")
    assert made == f"By hand.\n\n{block}\n\nBy hand, too.\n", "python -m benchmarks.realism.page"
    assert {p.stem for p in results_folder.glob("*.png")} == {f"realism_{n}" for n in page.FIGURES}
    page.PAGE.write_text(page.BEGIN)
    assert command(page.write, None, []) == 2
    (results_folder / "realism.json").write_text('{"pairs": {"nodules": 1, "patients": 1}}')
    page.PAGE.write_text(made)
    assert command(page.write, None, []) == 2 and page.PAGE.read_text(encoding="utf-8") == made
