from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from benchmarks import detector
from labkit.annotations import lidc
from labkit.simulate import scan
from labkit.simulate.chest import surface_distance, thorax_of
from labkit.simulate.scanner import Scanner, center_of, scan_box, scan_crop
from labkit.simulate.scene import lies_on, scene_for_series, scene_of
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
            small = scan_crop(row, 3, half_width_mm=14.0, noisy=noisy)
            large = scan_crop(row, 3, half_width_mm=27.0, noisy=noisy)
            first = np.rint(large.index_from_world(small.world_from_index((0, 0, 0)))).astype(int)
            part = large.voxels[
                tuple(slice(f, f + n) for f, n in zip(first, small.shape, strict=True))
            ]
            np.testing.assert_array_equal(part, small.voxels)


def test_the_scene_is_a_function_of_points_alone(rows):
    scene = scene_for_series(rows.iloc[0]["series_uid"], 1)
    x, y, z = (c + 1.1 * np.arange(-12, 13) for c in center_of(rows.iloc[0]))
    whole = scene.hu(x, y, z)
    np.testing.assert_array_equal(scene.hu(x[5:6], y[7:20:3], z[3:4]), whole[3:4, 7:20:3, 5:6])


def test_the_order_of_questions_does_not_matter_and_the_seed_does(rows):
    crops = [scan_crop(row, 0, half_width_mm=10.0).voxels for _, row in rows.iterrows()]
    scene_for_series.cache_clear()
    for i in reversed(range(len(rows))):
        again = scan_crop(rows.iloc[i], 0, half_width_mm=10.0).voxels
        np.testing.assert_array_equal(again, crops[i])
    assert (scan_crop(rows.iloc[0], 1, half_width_mm=10.0).voxels != crops[0]).mean() > 0.9


def test_malignancy_never_touches_the_image(rows, monkeypatch):
    before = [scan_crop(row, 0, half_width_mm=12.0).voxels for _, row in rows.iterrows()]
    shuffled = lidc.annotations()
    shuffled["malignancy"] = np.random.default_rng(0).permutation(shuffled["malignancy"])
    assert (shuffled["malignancy"] != lidc.annotations()["malignancy"]).mean() > 0.5
    monkeypatch.setattr(lidc, "annotations", lambda: shuffled)
    scan._tables.cache_clear()
    scene_for_series.cache_clear()
    try:
        for voxels, (_, row) in zip(before, rows.iterrows(), strict=True):
            changed = pd.Series({**row, "malignancy_median": 1.0, "malignancy_mean": 5, "label": 0})
            after = scan_crop(changed, 0, half_width_mm=12.0).voxels
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


def _mean_hu(seeds=6, **ratings):
    values = []
    for seed in range(seeds):
        scene = _ball(seed=seed, **ratings)
        axes = _around(scene, 6.0)
        values.append(scene.hu(*axes)[_inside(scene, axes)].mean())
    return float(np.mean(values))


def test_ratings_of_matter_order_the_hu():
    glass, part, solid = (_mean_hu(texture=t) for t in (1, 3, 5))
    assert glass < part - 100 < solid - 200
    assert -750 < glass < -350
    assert -40 < solid < 90
    soft, fluid, fat, air = (_mean_hu(internal_structure=i) for i in (1, 2, 3, 4))
    assert soft > fluid > fat > air
    assert air < -250


@pytest.mark.parametrize("pattern", [1, 2, 3, 4, 5])
def test_calcium_is_brightest_in_its_pattern(pattern):
    values = []
    for seed in range(4):
        scene = _ball(seed=seed, calcification=pattern)
        axes = _around(scene, 6.0)
        values.append(np.percentile(scene.hu(*axes)[_inside(scene, axes, 1.0)], 98))
        large = _ball(radius=9.0, seed=seed, calcification=pattern)
        axes = _around(large, 9.0)
        hu = large.hu(*axes)
        rim = _inside(large, axes, 0.9) & ~_inside(large, axes, 0.75)
        if pattern == 5:
            assert hu[_inside(large, axes, 0.3)].mean() > hu[rim].mean() + 150
        elif pattern == 2:  # shells
            assert hu[_inside(large, axes, 0.9)].std() > 50
    assert np.mean(values) > 200


def test_a_sharp_margin_is_steeper_and_spicules_put_tissue_around_the_nodule():
    slopes, shares = {1: [], 5: []}, {1: [], 5: []}
    for rating in (1, 5):
        for seed in range(6):
            scene = _ball(radius=8.0, seed=seed, margin=rating)
            axes = _around(scene, 12.0, 0.5)
            hu = scene.hu(axes[0], axes[1], [scene.nodules[0].shape.center_xyz_mm[2]])[0]
            x, y = (a - a.mean() for a in axes[:2])
            at_edge = np.abs(np.hypot(x, y[:, None]) - 8.0) < 0.7
            slopes[rating].append(np.median(ndimage.gaussian_gradient_magnitude(hu, 0.7)[at_edge]))
            scene = _ball(radius=8.0, seed=seed, spiculation=rating)
            axes = _around(scene, 12.0)
            ring = _inside(scene, axes, 1.45) & ~_inside(scene, axes, 1.2)
            shares[rating].append((scene.hu(*axes)[ring] > -650).mean())
    assert np.mean(slopes[5]) > 1.2 * np.mean(slopes[1])
    assert np.mean(shares[5]) > 1.4 * np.mean(shares[1])


def test_every_nodule_lies_in_lung(rows):
    for _, row in rows.iterrows():
        scene = scene_for_series(row["series_uid"], 0)
        for nodule in scene.nodules:
            surface = nodule.surface_xyz_mm()
            assert scene.thorax.lung(*surface.T).max() < 2.5


def test_a_nodule_outside_every_chest_still_gets_its_place():
    reader = ball_reader(6.0, 0.7, 1.25, row=255.0, col=20.0)
    frame = ball_scan(ball_finding([reader]))
    scene = scene_of(frame, 0)
    surface = scene.nodules[0].surface_xyz_mm()
    assert thorax_of(frame, [], 0).lung(*surface.T).max() > 10.0
    assert scene.thorax.lung(*surface.T).max() < 2.5


def test_noise_has_its_strength_and_the_grain_of_filtered_back_projection():
    """Means over 8 x 8 pixels vary far less than were the noise white with its grain."""
    scene = _ball()
    box = ((100, 228), (200, 328), (100, 108))
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
    blocks = difference.reshape(8, 16, 8, 16, 8).mean(axis=(2, 4))
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


def test_points_put_on_the_anatomy_are_told_by_it():
    scene = scene_for_series(lidc.luna16_series()[0], 0)
    vessels = scene.drawn.vessels
    middle = (vessels.start_xyz_mm + vessels.end_xyz_mm) / 2
    x, y, z = middle.T
    root = [scene.thorax.hilum_xyz_mm(np.array(left)) for left in (False, True)]
    deep = scene.thorax.lung(x, y, z) < -10
    far = np.min([np.linalg.norm(middle - r, axis=1) for r in root], axis=0) > 40
    some = np.random.default_rng(0).choice(np.flatnonzero(deep & far), 300, replace=False)
    on_vessels = Counter(lies_on(scene, middle[some]))
    assert set(on_vessels) <= {"vessel", "branching"}
    assert on_vessels["vessel"] > 100
    _, first, count = np.unique(vessels.start_xyz_mm, axis=0, return_index=True, return_counts=True)
    thick = vessels.start_radius_mm[first] > 0.6
    parting = vessels.start_xyz_mm[first[(count > 1) & thick]][::40]
    assert set(lies_on(scene, parting)) <= {"branching", "hilum"}
    assert lies_on(scene, np.array(root)) == ["hilum", "hilum"]
    # Most points of lung lie on nothing.
    points = detector.points_in_lung(scene, 400, 0)
    x, y, z = points.T
    assert (scene.thorax.lung(x, y, z) < 0).all()
    kinds = Counter(lies_on(scene, points))
    assert kinds["nothing"] > 0.3 * len(points)
    assert kinds["branching"] < 0.1 * len(points)
