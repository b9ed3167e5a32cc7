"""Measures of real against simulated: each is right where the answer is known."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from benchmarks.realism import measure as realism_measure
from benchmarks.realism import transfer
from benchmarks.realism.__main__ import main
from benchmarks.realism.measure import compare, mean_share, measure, tell_apart
from labkit.annotations import lidc
from labkit.errors import InputError
from tests.lidc_twins import twin_cohorts

LUNG, SOFT = -850.0, 40.0
K = np.arange(64) - 31.5


def disc_distance(radius_mm, slices=6, row=0.0, col=0.0):
    """Signed distance to a cylinder along z, as outlines on all slices give."""
    d = np.hypot(K[:, None] - row, K[None, :] - col) - radius_mm
    return np.repeat(d[None], slices, axis=0).astype(np.float32)


def scene(distance_mm, inner=SOFT, outer=LUNG, sigma_mm=1.0):
    """Image of a shape with an edge that is an error function of this width."""
    share = stats.norm.cdf(-distance_mm / sigma_mm)
    return (outer + (inner - outer) * share).astype(np.float32)


def agreement_of(distance_mm):
    return (distance_mm < 0).astype(np.float32)


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    return twin_cohorts(tmp_path_factory.mktemp("twins"))


@pytest.fixture(scope="module")
def measured(cohorts):
    return measure(cohorts[0].folder, cohorts[1].folder, jobs=1, resamples=50, progress=False)


# --- twins -------------------------------------------------------------------------------------


def test_twins_are_the_same_nodule_and_share_its_ratings(cohorts):
    real, simulated = cohorts
    found = realism_measure.match(real, simulated)
    assert len(found) == len(real) - 1, "the nodule with another rating has no twin"
    for _, pair in found.iterrows():
        a = real.nodules.iloc[pair["real_row"]]
        b = simulated.nodules.iloc[pair["simulated_row"]]
        assert a["series_uid"] == b["series_uid"]
        assert a["nodule_id"].rsplit("-", 1)[1] == b["nodule_id"].rsplit("-n", 1)[1]


def test_cohorts_the_wrong_way_round_are_refused(cohorts):
    with pytest.raises(InputError, match="has to hold real images"):
        realism_measure.match(cohorts[1], cohorts[0])


def test_twins_are_alike_in_slices_range_and_rounding(cohorts):
    real, simulated = cohorts
    pair = realism_measure.match(real, simulated).iloc[5]
    twins = realism_measure.twins(real, simulated, pair)
    assert twins.real.shape == twins.simulated.shape == twins.agreement.shape
    assert (twins.real > -1000).any(axis=(1, 2)).all()
    assert twins.simulated.min() >= -1000 and twins.simulated.max() <= 400
    assert twins.agreement.max() == 1 and twins.distance_mm.min() < 0


@given(st.lists(st.floats(-3000, 3000), min_size=1, max_size=50))
def test_storing_twice_changes_nothing_and_clips(values):
    once = realism_measure.like_real(values)
    assert np.array_equal(realism_measure.like_real(once), once)
    inside_range = np.clip(values, -1000, 400)
    assert np.abs(once - inside_range).max() <= realism_measure.STEP_HU / 2 + 0.51


def test_a_cube_of_air_has_no_real_slice():
    with pytest.raises(InputError, match="nothing but air"):
        realism_measure.real_slices(np.full((64, 64, 64), -1000))


# --- the nodule --------------------------------------------------------------------------------


def test_density_is_read_off_the_edge_and_ignores_offsets_between_slices():
    distance = disc_distance(6.0)
    hu = scene(distance, inner=-100.0, sigma_mm=0.4)
    found = realism_measure.density(hu, agreement_of(distance), distance)
    assert found["inside_median_hu"] == pytest.approx(-100, abs=3)
    offset = hu + np.linspace(-40, 40, len(hu), dtype=np.float32)[:, None, None]
    moved = realism_measure.density(offset, agreement_of(distance), distance)
    assert moved["inside_sd_hu"] == pytest.approx(found["inside_sd_hu"], rel=0.01)


@pytest.mark.parametrize("sigma_mm", [0.6, 1.0, 1.5])
def test_edge_width_is_that_of_the_error_function_also_in_noise(sigma_mm):
    distance = disc_distance(8.0)
    hu = scene(distance, sigma_mm=sigma_mm)
    hu += np.random.default_rng(0).normal(0, 20, hu.shape).astype(np.float32)
    found = realism_measure.edge(hu, distance)
    assert found["edge_width_mm"] == pytest.approx(2.563 * sigma_mm, rel=0.12)
    assert found["edge_offset_mm"] == pytest.approx(0, abs=0.13)
    assert found["open_share"] == 1


def test_an_outline_beside_the_edge_moves_the_offset_not_the_width():
    true, drawn = disc_distance(8.0), disc_distance(7.0)
    found = realism_measure.edge(scene(true), drawn)
    assert found["edge_offset_mm"] == pytest.approx(1.0, abs=0.13)
    assert found["edge_width_mm"] == pytest.approx(2.563, rel=0.12)


def test_an_outline_off_to_one_side_wanders():
    drawn = disc_distance(8.0, col=1.5)
    assert realism_measure.edge(scene(disc_distance(8.0)), drawn)["edge_wander_mm"] > 0.7
    assert (
        realism_measure.edge(scene(disc_distance(8.0)), disc_distance(8.0))["edge_wander_mm"] < 0.2
    )


def test_an_edge_on_tissue_is_not_open_and_has_no_width():
    distance = disc_distance(8.0)
    found = realism_measure.edge(np.full(distance.shape, SOFT, np.float32), distance)
    assert found["open_share"] == 0
    assert np.isnan(found["edge_width_mm"])


# --- wall, lung and vessels --------------------------------------------------------------------


def with_wall(gap_mm, radius_mm=6.0):
    """A disc in lung with a wall of soft tissue to its right, and their agreement."""
    distance = disc_distance(radius_mm)
    hu = scene(distance, sigma_mm=0.5)
    hu[:, :, radius_mm + gap_mm <= K] = SOFT
    return hu, agreement_of(distance)


@pytest.mark.parametrize(("gap_mm", "touches"), [(0, 1), (1, 1), (4, 0), (10, 0)])
def test_contact_is_told_from_a_gap(gap_mm, touches):
    hu, agreement = with_wall(gap_mm)
    found = realism_measure.contact(agreement, realism_measure.masks(hu, agreement))
    assert found["touches_wall"] == touches
    assert found["wall_gap_mm"] == pytest.approx(gap_mm, abs=1.0)


def test_a_vessel_to_the_wall_is_no_contact_and_no_wall():
    hu, agreement = with_wall(12)
    hu[:, 30:34] = np.maximum(hu[:, 30:34], SOFT)
    masks = realism_measure.masks(hu, agreement)
    assert realism_measure.contact(agreement, masks)["touches_wall"] == 0
    assert masks.wall.mean() == pytest.approx((K >= 18).mean(), abs=0.01)
    assert not masks.wall[agreement > 0].any()


def test_without_wall_nothing_touches():
    distance = disc_distance(6.0)
    found = realism_measure.contact(
        agreement_of(distance), realism_measure.masks(scene(distance), agreement_of(distance))
    )
    assert np.isnan(found["wall_gap_mm"]) and found["touches_wall"] == 0


def test_air_behind_the_wall_is_outside_and_lung_is_not():
    hu, agreement = with_wall(6)
    hu[:, :, 60:] = -1000
    masks = realism_measure.masks(hu, agreement)
    assert masks.outside[:, :, 61:].all()
    assert not masks.outside[:, :, :40].any() and not masks.lung[:, :, 58:].any()


def test_lines_are_long_and_dots_are_round():
    distance = disc_distance(4.0)
    lines, dots = scene(distance), scene(distance)
    lines[:, 14:16, 12:52] = -200
    for row in (14, 22, 42, 50):
        for col in (14, 22, 42, 50):
            dots[:, row : row + 3, col : col + 3] = -200
    of = {}
    for name, hu in (("lines", lines), ("dots", dots)):
        of[name] = realism_measure.vessels(hu, realism_measure.masks(hu, agreement_of(distance)))
    assert of["lines"]["vessel_elongation"] > 5 and of["lines"]["vessel_long_share"] == 1
    assert of["dots"]["vessel_elongation"] < 1.2 and of["dots"]["vessel_long_share"] == 0
    assert of["dots"]["vessel_count_cm2"] > 3 * of["lines"]["vessel_count_cm2"]
    assert of["dots"]["lung_median_hu"] == pytest.approx(LUNG, abs=1)


def lung_with(image):
    """Slices of lung with an image added, and masks of a small nodule in the middle."""
    distance = disc_distance(2.0, slices=len(image))
    hu = (scene(distance) + image).astype(np.float32)
    return hu, realism_measure.masks(hu, agreement_of(distance))


def test_power_of_white_noise_is_its_variance_at_every_frequency():
    noise = np.random.default_rng(1).normal(0, 20, (30, 64, 64))
    power = realism_measure.spectrum(*lung_with(noise))
    assert power[2:] == pytest.approx(400, rel=0.15)


def test_power_of_a_wave_lies_at_its_frequency():
    wave = 50 * np.sin(2 * np.pi * 0.25 * np.arange(64))
    power = realism_measure.spectrum(*lung_with(wave[None, None, :].repeat(6, axis=0)))
    assert realism_measure.FREQUENCIES[power.argmax()] == 0.25


def test_noise_is_read_in_lung_and_tissue_and_its_grain_told():
    rng = np.random.default_rng(2)
    white = rng.normal(0, 20, (8, 64, 64))
    coarse = ndimage.gaussian_filter(rng.normal(0, 20, (8, 64, 64)), (0, 1, 1))
    coarse *= 20 / coarse.std()
    found = {}
    for name, grain in (("white", white), ("coarse", coarse)):
        distance = disc_distance(2.0, slices=8)
        hu = scene(distance)
        hu[:, :, 44:] = SOFT
        hu += grain.astype(np.float32)
        found[name] = realism_measure.noise(hu, realism_measure.masks(hu, agreement_of(distance)))
    assert found["white"]["noise_lung_hu"] == pytest.approx(20, rel=0.08)
    assert found["white"]["noise_tissue_hu"] == pytest.approx(20, rel=0.08)
    for tissue in ("lung", "tissue"):
        grain = f"noise_fine_{tissue}"
        assert found["coarse"][grain] < 0.6 * found["white"][grain]


def test_histogram_holds_every_voxel_of_the_shell_once():
    hu, masks = lung_with(np.zeros((6, 64, 64)))
    shares = realism_measure.histogram(hu, masks)
    assert shares.sum() == pytest.approx(1)
    assert realism_measure.HU_EDGES[shares.argmax()] == pytest.approx(LUNG, abs=25)


# --- alignment ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (-1, 1)])
def test_a_shifted_image_is_noticed(shift):
    distance = disc_distance(7.0)
    moved = np.roll(scene(distance), shift, axis=(1, 2))
    found = realism_measure.alignment(moved, agreement_of(distance))
    assert (found["shift_row_mm"], found["shift_col_mm"]) == pytest.approx(shift, abs=0.1)


def test_a_flipped_image_is_noticed():
    distance = np.minimum(disc_distance(6.0), disc_distance(4.0, row=6.0, col=5.0))
    hu, agreement = scene(distance), agreement_of(distance)
    right = realism_measure.alignment(hu, agreement)
    assert right["match"] > right["match_flipped"]
    mirrored = realism_measure.alignment(hu[:, :, ::-1], agreement)
    assert mirrored["match"] < mirrored["match_flipped"]


@pytest.mark.real
def test_outlines_lie_where_real_cubes_show_the_nodule(real_cubes):
    with np.load(real_cubes) as file:
        ids, diameters, cubes = file["nodule_id"], file["diameter_mm"], file["cubes"]
        series = file["series_uid"]
    table = lidc.nodules(min_readers=3)
    number = table["nodule_id"].str.extract(r"(\d+)$", expand=False)
    found = []
    for i in np.flatnonzero((diameters > 12) & (diameters < 20))[:30]:
        same = (table["series_uid"] == str(series[i])) & (number == str(ids[i]).rsplit("-", 1)[1])
        cube = -1000 + 1400 / 255 * cubes[i].astype(np.float32)
        kept = realism_measure.real_slices(cube)
        agreement, _ = realism_measure.outline_at(table[same].iloc[0])
        found.append(realism_measure.alignment(cube[kept], agreement[kept]))
    seen = pd.DataFrame(found).query("match > 0.5")
    assert len(seen) >= 8
    assert (seen["match"] > seen["match_flipped"]).mean() >= 0.9
    assert abs(seen["shift_row_mm"].median()) < 0.5
    assert abs(seen["shift_col_mm"].median()) < 0.5


# --- comparing ---------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(5, 60))
def test_distances_are_scipys(seed, n):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, 2, n).round(1), rng.normal(1, 1, n).round(1)
    found = compare(a, b, np.arange(n), resamples=5)
    assert found["ks"]["value"] == pytest.approx(stats.ks_2samp(a, b).statistic, abs=1e-4)
    expected = stats.wasserstein_distance(a, b)
    assert found["wasserstein"]["value"] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_constant_shift_is_found_with_its_size():
    rng = np.random.default_rng(0)
    a, patients = rng.normal(0, 3, 200), np.arange(200) // 2
    found = compare(a, a + 5, patients)
    assert found["difference"]["value"] == pytest.approx(5)
    assert found["wasserstein"]["low"] <= 5 <= found["wasserstein"]["high"] + 1e-6
    assert found["wasserstein"]["value"] > found["wasserstein"]["chance"]
    assert found["spearman"] == pytest.approx(1)


def test_two_samples_of_one_kind_differ_by_no_more_than_chance():
    beyond = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        a, b = rng.normal(size=(2, 80))
        found = compare(a, b, np.arange(80) // 2, resamples=200, seed=seed)
        beyond += found["ks"]["value"] > found["ks"]["chance"]
    assert beyond <= 7  # 5 % of 40 are 2; 8 or more happen once in a thousand


def test_pairs_without_a_value_are_left_out_and_too_few_give_nothing():
    a = np.array([1.0, 2, 3, 4, 5, np.nan])
    assert compare(a, a[::-1], np.arange(6)) is None
    assert compare(a, a, np.arange(6))["nodules"] == 5


def test_share_has_a_wider_interval_when_patients_have_many_nodules():
    values = np.repeat(np.random.default_rng(0).random(60) < 0.4, 5).astype(float)
    by_patient = mean_share(values, np.arange(300) // 5)
    alone = mean_share(values, np.arange(300))
    assert by_patient["high"] - by_patient["low"] > 1.6 * (alone["high"] - alone["low"])


def test_equal_images_cannot_be_told_apart_and_others_can():
    rng = np.random.default_rng(0)
    a, b = (pd.DataFrame(rng.normal(size=(120, 3)), columns=list("xyz")) for _ in range(2))
    patients = np.arange(120) // 2
    same = tell_apart(a, b, patients, {"all": "xyz"})
    assert same["logistic"]["low"] < 0.55 and same["boosting"]["low"] < 0.55
    other = tell_apart(a, b.assign(y=b["y"] + 4), patients, {"all": "xyz", "x": "x"})
    assert other["boosting"]["value"] > 0.98
    assert next(iter(other["by_measure"])) == "y"
    assert other["by_theme"]["x"] < 0.7


# --- the whole ---------------------------------------------------------------------------------


def test_a_whole_measurement_finds_what_was_put_in(measured, cohorts):
    assert measured["pairs"]["nodules"] == len(cohorts[0]) - 1
    assert measured["pairs"]["real_without_twin"] == 1
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured
    difference = measured["measures"]["inside_median_hu"]["difference"]
    assert difference["value"] == pytest.approx(20, abs=12)  # the simulated balls are 20 HU denser
    lung = measured["measures"]["lung_median_hu"]
    assert lung["real"]["median"] == pytest.approx(LUNG, abs=6)
    assert measured["cohorts"]["real"]["sha256"]["cubes.npy"]
    assert measured["date"][:2] == "20" and measured["hardware"]["labkit"]


def test_nothing_that_is_written_is_an_image(measured):
    def largest(values):
        if isinstance(values, dict):
            return max((largest(v) for v in values.values()), default=0)
        return len(values) if isinstance(values, list) else 0

    assert largest(measured) <= 65


def test_no_patient_is_trained_on_and_tested(cohorts):
    real, simulated = cohorts
    rows = real.labelled
    pairs = realism_measure.match(real, simulated)
    twin_of = np.full(len(real), -1)
    twin_of[pairs["real_row"]] = pairs["simulated_row"]
    test = rows[::3]
    sets = transfer.training_sets(real, simulated, twin_of, rows, test)
    tested = set(real.nodules["patient_id"].iloc[test])
    for arm, train in sets.items():
        source = real if arm == transfer.REAL else simulated
        assert not tested & set(source.nodules["patient_id"].iloc[train])
    same = set(simulated.nodules["patient_id"].iloc[sets[transfer.SAME]])
    assert same <= set(real.nodules["patient_id"].iloc[sets[transfer.REAL]])
    with pytest.raises(RuntimeError, match="trained on and tested"):
        transfer.check_apart(simulated, sets[transfer.SIMULATED], real, rows)


def test_transfer_trains_tests_and_goes_on_where_it_stopped(cohorts, tmp_path):
    real, simulated = (c.folder for c in cohorts)
    run, out = tmp_path / "run", tmp_path / "transfer.json"
    command = ["transfer", str(real), str(simulated), "--out", str(out), "--run", str(run)]
    quick = ["--seeds", "1", "--folds", "2", "--epochs", "1", "--jobs", "1", "--quiet"]
    assert main(command + quick) == 0
    first = json.loads(out.read_text())
    units = sorted((run / "units").glob("*.json"))
    assert len(units) == 2 * len(transfer.ARMS)
    units[0].unlink()
    before = {u: u.stat().st_mtime_ns for u in units[1:]}
    assert main(command + quick) == 0
    assert {u: u.stat().st_mtime_ns for u in units[1:]} == before
    again = json.loads(out.read_text())
    assert again["metrics"] == first["metrics"] and again["differences"] == first["differences"]
    for arm in (*transfer.ARMS, "size_only"):
        assert first["metrics"][arm]["nodules"] == len(cohorts[0])
        assert len(first["auc_by_seed"][arm]) == 1
    # Another number of epochs is another run.
    assert main([*command, "--epochs", "2", "--quiet"]) == 2


def test_bad_input_is_one_line_and_status_2(tmp_path, capsys):
    status = main(["measure", str(tmp_path), str(tmp_path), "--out", str(tmp_path / "x.json")])
    assert status == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not Path(tmp_path / "x.json").exists()
