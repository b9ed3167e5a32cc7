import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from labkit.annotations import lidc
from labkit.cohorts import simulated
from labkit.cohorts.simulated import scene_for
from labkit.simulate import chest, scan
from labkit.simulate.chest import surface_distance, thorax_of
from labkit.simulate.scanner import Scanner, scan_box
from labkit.simulate.scene import scene_for_series, scene_of
from tests.simulate.simulated_spheres import ball_finding, ball_reader, ball_scan

# Where the right lung of a chest of 358 mm lies, pixels.
IN_LUNG = {"row": 265.0, "col": 150.0}


def _ball(radius=6.0, seed=0, slice_mm=1.25, readers=1, **ratings):
    reader = ball_reader(radius, 0.7, slice_mm, **IN_LUNG)
    finding = ball_finding([reader] * readers, **ratings)
    return scene_of(ball_scan(finding, slice_mm=slice_mm), seed)


def _around(scene, half=12.0, step=0.7):
    x, y, z = scene.nodules[0].shape.center_xyz_mm
    return [c + np.arange(-half, half + 1e-6, step) for c in (x, y, z)]


def _inside(scene, axes, share=0.6):
    center = scene.nodules[0].shape.center_xyz_mm
    x, y, z = (a - c for a, c in zip(axes, center, strict=True))
    away = np.sqrt(x**2 + (y**2)[:, None] + (z**2)[:, None, None])
    return away < share * scene.nodules[0].shape.radius_mm


@pytest.fixture(scope="module")
def rows():
    return lidc.nodules().sample(6, random_state=5)


def test_a_crop_is_part_of_every_larger_crop(rows):
    for _, row in rows.head(3).iterrows():
        for noisy in (False, True):
            small = simulated.scan_crop(row, 3, half_width_mm=14.0, noisy=noisy)
            large = simulated.scan_crop(row, 3, half_width_mm=27.0, noisy=noisy)
            first = np.rint(large.index_from_world(small.world_from_index((0, 0, 0)))).astype(int)
            part = large.voxels[
                tuple(slice(f, f + n) for f, n in zip(first, small.shape, strict=True))
            ]
            np.testing.assert_array_equal(part, small.voxels)


def test_the_scene_is_a_function_of_points_alone(rows):
    scene = scene_for(rows.iloc[0], 1)
    x, y, z = (c + 1.1 * np.arange(-12, 13) for c in simulated.center_of(rows.iloc[0]))
    whole = scene.hu(x, y, z)
    np.testing.assert_array_equal(scene.hu(x[5:6], y[7:20:3], z[3:4]), whole[3:4, 7:20:3, 5:6])


def test_the_order_of_questions_does_not_matter(rows):
    crops = [simulated.scan_crop(row, 0, half_width_mm=10.0).voxels for _, row in rows.iterrows()]
    scene_for_series.cache_clear()
    for i in reversed(range(len(rows))):
        again = simulated.scan_crop(rows.iloc[i], 0, half_width_mm=10.0).voxels
        np.testing.assert_array_equal(again, crops[i])


def test_another_seed_is_another_patient(rows):
    one, two = (simulated.scan_crop(rows.iloc[0], s, half_width_mm=10.0).voxels for s in (0, 1))
    assert (one != two).mean() > 0.9


def test_malignancy_never_touches_the_image(rows, monkeypatch):
    before = [simulated.scan_crop(row, 0, half_width_mm=12.0).voxels for _, row in rows.iterrows()]
    shuffled = lidc.annotations()
    shuffled["malignancy"] = np.random.default_rng(0).permutation(shuffled["malignancy"])
    assert (shuffled["malignancy"] != lidc.annotations()["malignancy"]).mean() > 0.5
    monkeypatch.setattr(lidc, "annotations", lambda: shuffled)
    scan._tables.cache_clear()
    scene_for_series.cache_clear()
    try:
        for voxels, (_, row) in zip(before, rows.iterrows(), strict=True):
            changed = pd.Series({**row, "malignancy_median": 1.0, "malignancy_mean": 5, "label": 0})
            after = simulated.scan_crop(changed, 0, half_width_mm=12.0).voxels
            np.testing.assert_array_equal(after, voxels)
    finally:
        scan._tables.cache_clear()
        scene_for_series.cache_clear()
    assert "malignancy" not in scan.SEEN_RATINGS
    assert len(scan.SEEN_RATINGS) == 8


def test_slabs_average_over_their_thickness():
    scene = _ball()
    x, y, _ = _around(scene, half=9.0)
    thick, fine = 5.0, 0.25
    slabs = scene.slabs(x, y, np.array([-5.0, 0.0, 5.0]), thick)
    points = scene.hu(x, y, np.arange(-7.5 + fine / 2, 7.5, fine))
    means = points.reshape(3, -1, len(y), len(x)).mean(axis=1)
    assert slabs.mean() == pytest.approx(means.mean(), abs=6.0)
    assert np.abs(slabs - means).mean() < 20.0
    # A single plane through the middle is no such mean.
    plane = scene.hu(x, y, [5.0])[0]
    assert np.abs(plane - means[2]).mean() > 1.5 * np.abs(slabs[2] - means[2]).mean()


def test_thick_slices_dim_small_nodules():
    means = []
    for thickness in (0.6, 6.0):
        scene = _ball(radius=2.0, slice_mm=0.6)
        x, y, _ = (c + np.linspace(-1.0, 1.0, 7) for c in scene.nodules[0].shape.center_xyz_mm)
        means.append(scene.slabs(x, y, [0.0], thickness).mean())
    assert means[0] > means[1] + 150


def _mean_hu(seeds=6, **ratings):
    values = []
    for seed in range(seeds):
        scene = _ball(seed=seed, **ratings)
        axes = _around(scene, 6.0)
        values.append(scene.hu(*axes)[_inside(scene, axes)].mean())
    return float(np.mean(values))


def test_solid_is_brighter_than_part_solid_than_ground_glass():
    glass, part, solid = (_mean_hu(texture=t) for t in (1, 3, 5))
    assert glass < part - 100 < solid - 200
    assert -750 < glass < -350
    assert -40 < solid < 90


@pytest.mark.parametrize("pattern", [1, 2, 3, 4, 5])
def test_calcium_is_brightest(pattern):
    values = []
    for seed in range(4):
        scene = _ball(seed=seed, calcification=pattern)
        axes = _around(scene, 6.0)
        values.append(np.percentile(scene.hu(*axes)[_inside(scene, axes, 1.0)], 98))
    assert np.mean(values) > 200


def test_central_calcium_is_central_and_laminated_calcium_in_shells():
    for seed in range(3):
        scene = _ball(radius=9.0, seed=seed, calcification=5)
        axes = _around(scene, 9.0)
        hu = scene.hu(*axes)
        core, rim = (
            _inside(scene, axes, 0.3),
            _inside(scene, axes, 0.9) & ~_inside(scene, axes, 0.75),
        )
        assert hu[core].mean() > hu[rim].mean() + 150
        scene = _ball(radius=9.0, seed=seed, calcification=2)
        hu = scene.hu(*axes)
        inside = _inside(scene, axes, 0.9)
        assert hu[inside].std() > 50


def test_fat_fluid_and_air_are_darker_than_soft_tissue():
    soft, fluid, fat, air = (_mean_hu(internal_structure=i) for i in (1, 2, 3, 4))
    assert soft > fluid > fat > air
    assert air < -250


def test_a_sharp_margin_is_steeper():
    steepness = []
    for margin in (5, 1):
        values = []
        for seed in range(6):
            scene = _ball(radius=8.0, seed=seed, margin=margin)
            axes = _around(scene, 12.0, 0.5)
            hu = scene.hu(axes[0], axes[1], [scene.nodules[0].shape.center_xyz_mm[2]])[0]
            slope = ndimage.gaussian_gradient_magnitude(hu, 0.7)
            x, y = (a - a.mean() for a in axes[:2])
            away = np.hypot(x, y[:, None])
            values.append(np.median(slope[np.abs(away - 8.0) < 0.7]))
        steepness.append(np.mean(values))
    assert steepness[0] > 1.2 * steepness[1]


def test_spiculation_puts_tissue_around_the_nodule():
    shares = []
    for spiculation in (1, 5):
        values = []
        for seed in range(6):
            scene = _ball(radius=8.0, seed=seed, spiculation=spiculation)
            axes = _around(scene, 12.0)
            ring = _inside(scene, axes, 1.45) & ~_inside(scene, axes, 1.2)
            values.append((scene.hu(*axes)[ring] > -650).mean())
        shares.append(np.mean(values))
    assert shares[1] > 1.4 * shares[0]


def test_every_nodule_lies_in_lung(rows):
    for _, row in rows.iterrows():
        scene = scene_for(row, 0)
        for nodule in scene.nodules:
            surface = nodule.surface_xyz_mm()
            assert scene.thorax.lung(*surface.T).max() < 2.5


def test_a_chest_has_lung_wall_and_air_around():
    """A whole slice half way up: two lungs, bone and flesh around, air outside."""
    for seed in range(3):
        scene = scene_of(ball_scan(slices=241), seed)
        z = scene.thorax.z_hilum
        x = np.arange(-170.0, 170.0, 2.0)
        hu = scene.hu(x, x, [z])[0]
        lung = (hu < -600) & (hu > -975)
        parts, count = ndimage.label(ndimage.binary_opening(lung))
        sizes = np.sort(ndimage.sum_labels(lung, parts, np.arange(1, count + 1)))[::-1]
        assert 4 * sizes[1] > 4000  # mm^2, either lung
        assert (hu > 250).sum() * 4 > 800
        assert hu[0, 0] == -1000
        assert hu[len(x) // 2, len(x) // 2] > -200  # between the lungs


def test_the_body_lattice_is_the_same_in_every_crop():
    scene = scene_of(ball_scan(), 2)
    x, y, z = -120 + 0.7 * np.arange(60), -30 + 0.7 * np.arange(70), 1.25 * np.arange(20)
    whole = chest.body_hu(scene.thorax, scene.tissue, x, y, z)
    part = chest.body_hu(scene.thorax, scene.tissue, x[9:31], y[22:60], z[3:8])
    np.testing.assert_array_equal(part, whole[3:8, 22:60, 9:31])


def test_a_nodule_outside_every_chest_still_gets_its_place():
    reader = ball_reader(6.0, 0.7, 1.25, row=255.0, col=20.0)
    frame = ball_scan(ball_finding([reader]))
    scene = scene_of(frame, 0)
    surface = scene.nodules[0].surface_xyz_mm()
    assert thorax_of(frame, [], 0).lung(*surface.T).max() > 10.0
    assert scene.thorax.lung(*surface.T).max() < 2.5


def test_noise_has_its_strength_and_whole_numbers():
    scene = _ball()
    box = ((100, 200), (220, 320), (100, 112))
    clean, noisy = scan_box(scene, *box, noisy=False), scan_box(scene, *box)
    assert noisy.voxels.dtype == np.int16
    assert noisy.voxels.min() >= -1024
    scanner = Scanner.of(scene.scan, scene.seed)
    difference = noisy.voxels.astype(float) - clean.voxels
    kept = clean.voxels > -900  # where clipping cuts nothing off
    deep = surface_distance(
        scene.thorax, *(scene.scan.x_mm(*b) for b in box[:2]), scene.scan.z_mm(*box[2])
    )
    lung, body = (difference[kept & where].std() for where in (deep < -10, deep > 10))
    assert lung == pytest.approx(scanner.noise_hu, rel=0.35)  # no two regions are alike
    assert 1.0 < body / lung < 1.8
    beside = np.corrcoef(difference[:, :, 1:].ravel(), difference[:, :, :-1].ravel())[0, 1]
    assert 0.1 < beside < 0.95


def test_a_volume_knows_where_it_is(rows):
    row = rows.iloc[1]
    volume = simulated.scan_crop(row, 0, half_width_mm=15.0)
    at = volume.index_from_world(simulated.center_of(row))
    np.testing.assert_allclose(at, (np.array(volume.shape) - 1) / 2, atol=1.0)
    assert volume.spacing_xyz_mm[0] == row["pixel_spacing_mm"]
    assert volume.spacing_xyz_mm[2] == row["slice_spacing_mm"]
    assert volume.series_uid == row["series_uid"]


def test_nodules_of_one_scan_share_a_scene():
    table = lidc.nodules()
    two = table[table["series_uid"].duplicated(keep=False)].head(2)
    assert scene_for(two.iloc[0]) is scene_for(two.iloc[1])
    assert dataclasses.is_dataclass(scene_for(two.iloc[0]))


def test_fissures_part_the_lobes_as_faint_lines():
    """Between the lobes lung is a little denser than on either side, and nowhere else so."""
    scene = scene_of(ball_scan(), 4)
    thorax = scene.thorax
    low, high = thorax.bounds_xyz_mm()
    points = np.random.default_rng(1).uniform(low, high, (60_000, 3))
    points = points[thorax.lung(*points.T) < -15.0]
    away = thorax.fissure(*points.T)
    assert len(set(thorax.lobe(*points.T))) == 5
    hu = np.concatenate(
        [scene.hu([x], [y], [z]).ravel() for x, y, z in points[away < 0.25][:60]]
        + [scene.hu([x], [y], [z]).ravel() for x, y, z in points[(away > 2) & (away < 6)][:60]]
    )
    count = min(60, int((away < 0.25).sum()))
    assert 60 < np.median(hu[:count]) - np.median(hu[count:]) < 500


def test_the_patient_lies_on_a_table_in_air():
    scene = scene_of(ball_scan(), 1)
    x = y = np.arange(-175.0, 176.0, 2.5)
    hu = scene.hu(x, y, [scene.thorax.z_hilum])[0]
    body = ndimage.binary_opening(hu > -400, iterations=2)
    parts, _ = ndimage.label(body)
    largest = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    back = int(np.flatnonzero(largest.any(axis=1)).max())
    behind = hu[back + 3 :, len(x) // 2]
    assert behind.max() > -500  # the table's shell
    assert np.median(hu[: int(np.flatnonzero(largest.any(axis=1)).min()) - 3]) == -1000


def test_the_body_does_not_end_at_the_apices():
    """Above the lungs there are neck and shoulders, not air."""
    scene = scene_of(ball_scan(), 1)
    thorax = scene.thorax
    hu = scene.hu(np.arange(-60.0, 61.0, 4.0), [thorax.y0], [thorax.z_top + 6.0])
    assert (hu > -250).mean() > 0.8


def test_noise_is_fine_grained_as_filtered_back_projection_leaves_it():
    """Means over 8 x 8 pixels vary far less than were the noise white with its grain."""
    scene = _ball()
    box = ((100, 228), (200, 328), (100, 108))
    clean, noisy = scan_box(scene, *box, noisy=False), scan_box(scene, *box)
    difference = noisy.voxels.astype(float) - clean.voxels
    blocks = difference.reshape(8, 16, 8, 16, 8).mean(axis=(2, 4))
    scanner = Scanner.of(scene.scan, scene.seed)
    grain = ndimage.gaussian_filter(
        np.random.default_rng(0).normal(size=difference.shape),
        (0, scanner.noise_grain_px, scanner.noise_grain_px),
    )
    grain *= difference.std() / grain.std()
    white = grain.reshape(8, 16, 8, 16, 8).mean(axis=(2, 4))
    assert blocks.std() < 0.6 * white.std()


def test_a_round_field_of_view_has_nothing_outside_its_circle():
    kinds = set()
    for seed in range(8):
        scene = scene_of(ball_scan(), seed)
        corner = scan_box(scene, (0, 8), (0, 8), (100, 102)).voxels
        round_view = Scanner.of(scene.scan, seed).round_view
        assert (corner == -1024).all() == round_view
        kinds.add(round_view)
    assert kinds == {True, False}
