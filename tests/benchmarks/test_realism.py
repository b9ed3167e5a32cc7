"""Measures of real against simulated: each is right where the answer is known."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from benchmarks.common import command
from benchmarks.realism import measure as realism
from benchmarks.realism import page, transfer
from benchmarks.realism.measure import compare, mean_share, measure, tell_apart
from labkit import paths
from labkit.annotations import lidc
from labkit.errors import InputError
from labkit.io import read_json
from tests.lidc_twins import twin_cohorts

LUNG, SOFT = -850.0, 40.0
K = np.arange(64) - 31.5


def disc(radius_mm, slices=6, col=0.0):
    """Signed distance to a cylinder along z, as outlines on all slices give."""
    d = np.hypot(K[:, None], K[None, :] - col) - radius_mm
    return np.repeat(d[None], slices, axis=0).astype(np.float32)


def scene(distance_mm, inner=SOFT, outer=LUNG, sigma_mm=1.0):
    """Image of a shape with an edge that is an error function of this width."""
    share = stats.norm.cdf(-distance_mm / sigma_mm)
    return (outer + (inner - outer) * share).astype(np.float32)


def agreement_of(distance_mm):
    return (distance_mm < 0).astype(np.float32)


def masked(hu, distance):
    return realism.masks(hu, agreement_of(distance))


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


def test_density_is_read_off_the_edge_and_ignores_offsets_between_slices():
    distance = disc(6.0)
    hu = scene(distance, inner=-100.0, sigma_mm=0.4)
    found = realism.density(hu, agreement_of(distance), distance)
    assert found["inside_median_hu"] == pytest.approx(-100, abs=3)
    offset = hu + np.linspace(-40, 40, len(hu), dtype=np.float32)[:, None, None]
    moved = realism.density(offset, agreement_of(distance), distance)
    assert moved["inside_sd_hu"] == pytest.approx(found["inside_sd_hu"], rel=0.01)


@pytest.mark.parametrize(("sigma_mm", "beside_mm"), [(0.6, 0), (1.0, 0), (1.5, 0), (1.0, 1.0)])
def test_edge_width_is_that_of_the_error_function_and_an_outline_beside_it_is_an_offset(
    sigma_mm, beside_mm
):
    hu = scene(disc(8.0), sigma_mm=sigma_mm)
    hu += np.random.default_rng(0).normal(0, 20, hu.shape).astype(np.float32)
    found = realism.edge(hu, disc(8.0 - beside_mm))
    assert found["edge_width_mm"] == pytest.approx(2.563 * sigma_mm, rel=0.12)
    assert found["edge_offset_mm"] == pytest.approx(beside_mm, abs=0.13)
    assert found["open_share"] == 1


def test_an_outline_off_to_one_side_wanders_and_an_edge_on_tissue_has_no_width():
    assert realism.edge(scene(disc(8.0)), disc(8.0, col=1.5))["edge_wander_mm"] > 0.7
    assert realism.edge(scene(disc(8.0)), disc(8.0))["edge_wander_mm"] < 0.2
    found = realism.edge(np.full((6, 64, 64), SOFT, np.float32), disc(8.0))
    assert found["open_share"] == 0 and np.isnan(found["edge_width_mm"])


def with_wall(gap_mm, radius_mm=6.0):
    """A disc in lung with a wall of soft tissue to its right, and their agreement."""
    hu = scene(disc(radius_mm), sigma_mm=0.5)
    hu[:, :, radius_mm + gap_mm <= K] = SOFT
    return hu, agreement_of(disc(radius_mm))


@pytest.mark.parametrize(("gap_mm", "touches"), [(0, 1), (1, 1), (4, 0), (10, 0), (99, 0)])
def test_contact_is_told_from_a_gap(gap_mm, touches):
    hu, agreement = with_wall(gap_mm)
    found = realism.contact(agreement, realism.masks(hu, agreement))
    assert found["touches_wall"] == touches
    expected = np.nan if gap_mm == 99 else gap_mm  # no wall at all
    assert found["wall_gap_mm"] == pytest.approx(expected, abs=1.0, nan_ok=True)


def test_a_vessel_to_the_wall_is_no_contact_and_air_behind_the_wall_is_outside():
    hu, agreement = with_wall(12)
    hu[:, 30:34] = np.maximum(hu[:, 30:34], SOFT)
    found = realism.masks(hu, agreement)
    assert realism.contact(agreement, found)["touches_wall"] == 0
    assert found.wall.mean() == pytest.approx((K >= 18).mean(), abs=0.01)
    assert not found.wall[agreement > 0].any()
    hu, agreement = with_wall(6)
    hu[:, :, 60:] = -1000
    found = realism.masks(hu, agreement)
    assert found.outside[:, :, 61:].all() and not found.outside[:, :, :40].any()
    assert not found.lung[:, :, 58:].any()


def test_lines_are_long_and_dots_are_round():
    distance = disc(4.0)
    images = {"lines": scene(distance), "dots": scene(distance)}
    images["lines"][:, 14:16, 12:52] = -200
    for row in (14, 22, 42, 50):
        for col in (14, 22, 42, 50):
            images["dots"][:, row : row + 3, col : col + 3] = -200
    of = {name: realism.vessels(hu, masked(hu, distance)) for name, hu in images.items()}
    assert of["lines"]["vessel_elongation"] > 5 and of["lines"]["vessel_long_share"] == 1
    assert of["dots"]["vessel_elongation"] < 1.2 and of["dots"]["vessel_long_share"] == 0
    assert of["dots"]["vessel_count_cm2"] > 3 * of["lines"]["vessel_count_cm2"]
    assert of["dots"]["lung_median_hu"] == pytest.approx(LUNG, abs=1)


def test_power_is_the_variance_of_white_noise_and_lies_at_a_waves_frequency():
    noise = np.random.default_rng(1).normal(0, 20, (30, 64, 64))
    wave = np.tile(50 * np.sin(2 * np.pi * 0.25 * np.arange(64)), (6, 64, 1))
    of_noise, of_wave = (
        realism.spectrum(hu, masked(hu, disc(2.0, len(image))))
        for image in (noise, wave)
        for hu in [(scene(disc(2.0, len(image))) + image).astype(np.float32)]
    )
    assert of_noise[2:] == pytest.approx(400, rel=0.15)
    assert realism.FREQUENCIES[of_wave.argmax()] == 0.25


def test_noise_is_read_in_lung_and_tissue_and_its_grain_told():
    rng, distance = np.random.default_rng(2), disc(2.0, slices=8)
    white = rng.normal(0, 20, (8, 64, 64))
    coarse = ndimage.gaussian_filter(rng.normal(0, 20, (8, 64, 64)), (0, 1, 1))
    found = {}
    for name, grain in (("white", white), ("coarse", coarse * 20 / coarse.std())):
        hu = scene(distance)
        hu[:, :, 44:] = SOFT
        hu += grain.astype(np.float32)
        found[name] = realism.noise(hu, masked(hu, distance))
    for tissue in ("lung", "tissue"):
        assert found["white"][f"noise_{tissue}_hu"] == pytest.approx(20, rel=0.08)
        grain = f"noise_fine_{tissue}"
        assert found["coarse"][grain] < 0.6 * found["white"][grain]
    shares = realism.histogram(hu, masked(hu, distance))
    assert shares.sum() == pytest.approx(1)  # every voxel of the shell once
    assert realism.HU_EDGES[shares.argmax()] == pytest.approx(LUNG, abs=35)


@pytest.mark.real
def test_outlines_lie_where_real_cubes_show_the_nodule(real_cubes):
    with np.load(real_cubes) as file:
        ids, diameters, cubes = file["nodule_id"], file["diameter_mm"], file["cubes"]
        series = file["series_uid"]
    table = lidc.nodules(min_readers=3)
    number = table["nodule_id"].str.extract(r"(\d+)$", expand=False)
    seen = []
    for i in np.flatnonzero((diameters > 12) & (diameters < 20))[:30]:
        same = (table["series_uid"] == str(series[i])) & (number == str(ids[i]).rsplit("-", 1)[1])
        cube = -1000 + 1400 / 255 * cubes[i].astype(np.float32)
        kept = realism.real_slices(cube)
        outline = realism.outline_at(table[same].iloc[0])[0][kept][:, 16:48, 16:48]

        def match(image, outline=outline):
            return np.corrcoef(image[:, 16:48, 16:48].ravel(), outline.ravel())[0, 1]

        as_is, *flipped = (match(np.flip(cube[kept], axes)) for axes in ((), 1, 2, (1, 2)))
        moved = {at: match(np.roll(cube[kept], at, (1, 2))) for at in np.ndindex(5, 5)}
        moved |= {(-a, -b): match(np.roll(cube[kept], (-a, -b), (1, 2))) for a, b in moved}
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
    beyond = 0
    for seed in range(40):
        a, b = np.random.default_rng(seed).normal(size=(2, 80))
        found = compare(a, b, np.arange(80) // 2, resamples=200, seed=seed)
        beyond += found["ks"]["value"] > found["ks"]["chance"]
    assert beyond <= 7  # 5 % of 40 are 2; 8 or more happen once in a thousand
    few = np.array([1.0, 2, 3, 4, 5, np.nan])
    assert compare(few, few[::-1], np.arange(6)) is None
    assert compare(few, few, np.arange(6))["nodules"] == 5


def test_share_has_a_wider_interval_when_patients_have_many_nodules():
    values = np.repeat(np.random.default_rng(0).random(60) < 0.4, 5).astype(float)
    by_patient, alone = (mean_share(values, np.arange(300) // each) for each in (5, 1))
    assert by_patient["high"] - by_patient["low"] > 1.6 * (alone["high"] - alone["low"])


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
    assert measured["cohorts"]["real"]["sha256"]["cubes.npy"]
    assert measured["date"][:2] == "20" and measured["hardware"]["labkit"]
    assert largest(measured) <= 65


def test_no_patient_is_trained_on_and_tested(cohorts):
    real, simulated = cohorts
    rows, pairs = real.labelled, realism.match(real, simulated)
    twin_of = np.full(len(real), -1)
    twin_of[pairs["real_row"]] = pairs["simulated_row"]
    sets = transfer.training_sets(real, simulated, twin_of, rows, rows[::3])
    tested = set(real.nodules["patient_id"].iloc[rows[::3]])
    patients = {
        arm: set((real if arm == "real" else simulated).nodules["patient_id"].iloc[train])
        for arm, train in sets.items()
    }
    assert not any(tested & of for of in patients.values())
    assert patients["simulated_same"] <= patients["real"]
    with pytest.raises(RuntimeError, match="trained on and tested"):
        transfer.check_apart(simulated, sets["simulated"], real, rows)


def test_transfer_trains_tests_and_goes_on_where_it_stopped(cohorts, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    out = tmp_path / "transfer.json"
    given = [*(str(c.folder) for c in cohorts), "--out", str(out), "--seeds", "1", "--folds", "2"]
    quick = [*given, "--epochs", "1", "--jobs", "1", "--quiet"]
    assert command(transfer.transfer, None, quick, str) == 0
    first = json.loads(out.read_text())
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


def test_bad_input_is_one_line_and_status_2(tmp_path, capsys):
    out = tmp_path / "x.json"
    assert command(measure, None, [str(tmp_path), str(tmp_path), "--out", str(out)]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not out.exists()


@pytest.mark.skipif(not page.PAGE.is_file(), reason="the package is installed away from its course")
def test_the_page_says_what_the_committed_results_say_and_writing_leaves_the_rest(
    tmp_path, monkeypatch
):
    values = [read_json(paths.results() / f"{n}.json", "a result") for n in ("realism", "transfer")]
    text = page.PAGE.read_text(encoding="utf-8")
    block = page.block(*values)
    assert block in text, "run `python -m benchmarks.realism.page`"
    for name in page.FIGURES:
        assert (paths.results() / f"realism_{name}.png").is_file()
        assert f"](../results/realism_{name}.png)" in block
    for name, of in zip(("realism", "transfer"), values, strict=True):
        (tmp_path / f"{name}.json").write_text(json.dumps(of))
    monkeypatch.setenv("LABKIT_RESULTS", str(tmp_path))
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    page.PAGE.write_text(f"By hand.\n\n{page.BEGIN}\nSTALE\n{page.END}\n\nBy hand, too.\n")
    assert page.main() == 0
    assert page.PAGE.read_text() == f"By hand.\n\n{block}\n\nBy hand, too.\n"
    assert {p.stem for p in Path(tmp_path).glob("*.png")} == {f"realism_{n}" for n in page.FIGURES}
    page.PAGE.write_text(page.BEGIN)
    assert page.main() == 2
    del values[0]["contact"]
    with pytest.raises(InputError, match="lack 'contact'; make them again"):
        page.block(*values)
