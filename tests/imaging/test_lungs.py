"""Lungs against chests of known geometry, simulated scans with their truth, and a real scan."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from labkit.annotations import lidc
from labkit.cli import main
from labkit.cohorts.build import build_lidc
from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.imaging import lungs, views
from labkit.imaging.dicom import read_series
from labkit.imaging.volume import AIR_HU, Volume
from labkit.simulate import scanner
from labkit.simulate.scene import scene_for_series
from tests.cohorts.test_build import of_patient, write_scan
from tests.imaging.test_views import CORONAL_SCAN, FEET_FIRST, OBLIQUE

# --- a small chest, about a child's ---------------------------------------------------------------

SHAPE_MM = (176.0, 168.0, 224.0)  # z, y, x
LUNG_HALF_MM = (58.0, 46.0, 36.0)
LUNG_X_MM = 44.0
MUSCLE, LUNG, AIR, GAS, BLOOD = 45.0, -860.0, -1000.0, -1000.0, 60.0


@dataclass(frozen=True)
class Chest:
    """A chest: a Volume, what is true of its voxels, and where they are about the middle, mm."""

    volume: Volume
    right: np.ndarray
    left: np.ndarray
    windpipe: np.ndarray
    gas: np.ndarray
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray

    @property
    def lungs(self):
        return self.right | self.left


def ball(x, y, z, center_xyz_mm, radius_mm):
    cx, cy, cz = center_xyz_mm
    return (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < radius_mm**2


def chest(
    spacing_mm=2.0, direction=None, sides="rl", aerated=True, vessels=True, bronchi=True,
    touching=False, table=True, stomach=True, arms=True, padding=None, nodules=(), noise=12.0,
):  # fmt: skip
    """Make a chest; `nodules` are (center_xyz_mm, radius_mm), `padding` HU beyond a circle."""
    direction = np.eye(3) if direction is None else np.asarray(direction, float)
    spacing = np.broadcast_to(np.asarray(spacing_mm, float), 3)
    # A grid that covers the same box of the world whatever the direction.
    reach = np.abs(np.linalg.inv(direction)) @ np.array(SHAPE_MM[::-1])
    count = np.round(reach / spacing).astype(int)
    origin = -direction @ (spacing * (count - 1) / 2)
    frame = Volume(np.zeros(count[::-1], np.int8), tuple(spacing), tuple(origin), direction)
    index = np.stack(np.meshgrid(*map(np.arange, frame.shape), indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(frame.world_from_index(index), -1, 0)

    body = (x / 92) ** 2 + (y / 66) ** 2 < 1
    hu = np.where(body, MUSCLE, AIR)
    if arms:
        for side in (-1, 1):
            hu[np.hypot(x - 99 * side, y - 4) < 10] = MUSCLE
    if table:  # a shell of plastic around foam, right below the back
        hu[(np.abs(y - 75) < 8) & (np.abs(x) < 100)] = -100
        hu[(np.abs(y - 75) < 5) & (np.abs(x) < 97)] = -965

    def lung(side):
        middle = LUNG_X_MM * side * (0.83 if touching else 1)
        a, b, c = LUNG_HALF_MM
        inside = ((x - middle) / c) ** 2 + (y / b) ** 2 + ((z - 8) / a) ** 2 < 1
        return inside & (x * side > (0.5 if touching else 6))

    nothing = np.zeros(body.shape, bool)
    right, left = (lung(side) if name in sides else nothing for name, side in (("r", -1), ("l", 1)))
    lungs = right | left
    rng = np.random.default_rng(0)
    if aerated:
        hu[lungs] = LUNG
    if vessels:
        for side in (-1, 1):
            for rod in range(9):
                at = np.array([44.0 * side, 0.0, 8.0]) + rng.uniform(-1, 1, 3) * (18, 26, 30)
                off = [x - at[0], y - at[1], z - at[2]]
                along = off.pop(rod % 3)
                hu[(off[0] ** 2 + off[1] ** 2 < 9) & (np.abs(along) < 14) & lungs] = BLOOD
    windpipe = (np.hypot(x, y + 8) < 6) & (z > 18) & (np.abs(x) < 40)
    if bronchi:
        for side in (-1, 1):
            line = np.hypot(y + 8, z - (20 - 0.3 * np.abs(x)))
            windpipe |= (line < 4) & (x * side > 0) & (x * side < 12)
    wall = (np.hypot(x, y + 8) < 8) & (z > 16)
    hu[wall & ~windpipe] = MUSCLE
    hu[windpipe & body] = GAS
    windpipe &= body & ~lungs
    gas = nothing.copy()
    if stomach:
        gas = ball(x, y, z, (34.0, -12.0, -72.0), 14)
        gas |= (np.hypot(x - 3, y - 14) < 4) & (np.abs(z - 20) < 14)  # in the oesophagus
        hu[gas] = GAS
    for center, radius in nodules:
        hu[ball(x, y, z, center, radius)] = 30.0
    hu = hu + rng.normal(0, noise, hu.shape)
    if padding is not None:
        hu[np.hypot(x, y) > 108] = padding
    voxels = np.round(hu).astype(np.int16)
    volume = Volume(voxels, frame.spacing_xyz_mm, frame.origin_xyz_mm, direction)
    return Chest(volume, right, left, windpipe, gas & ~lungs, x, y, z)


DIRECTIONS = {
    "feet_first": FEET_FIRST,
    "coronal_scan": CORONAL_SCAN,
    "any_order": np.array([[0.0, 0, -1], [-1, 0, 0], [0, 1, 0]]),
    "oblique": OBLIQUE,
}


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@cache
def plain():
    made = chest()
    return made, lungs.steps(made.volume)


# --- chests of known geometry -------------------------------------------------------------------


def test_each_step_finds_what_it_says():
    made, found = plain()
    assert found.threshold[made.lungs].mean() > 0.9  # not the vessels
    assert found.body[made.lungs | made.windpipe | made.gas].mean() > 0.995
    table = np.abs(made.y - 75) < 7
    assert not found.body[table].any() and found.threshold[table].mean() > 0.4
    assert found.airways[made.windpipe].all() and not (found.airways & made.gas).any()
    assert not (found.without_airways & (made.windpipe | made.gas | table)).any()
    assert (found.right | found.left == found.without_airways).all()
    assert not (found.right & found.left).any()
    assert dice(found.right, made.right) > 0.97 and dice(found.left, made.left) > 0.97
    assert dice(found.closed, made.lungs) > 0.995
    # Vessels are lung, and airways and gas are not.
    within = ndimage.binary_erosion(made.lungs, iterations=2)
    assert (found.closed[within]).all()
    assert not found.closed[made.windpipe & (np.abs(made.x) < 4)].any()
    assert not found.closed[made.gas].any()


@pytest.mark.parametrize(
    "how",
    [
        *({"direction": direction} for direction in DIRECTIONS.values()),
        {"spacing_mm": (0.9, 0.9, 5.0)},
        {"spacing_mm": (3.0, 3.0, 1.0)},
    ],
    ids=[*DIRECTIONS, "thick", "coarse"],
)
def test_the_same_lungs_whatever_way_the_scan_lies_and_whatever_its_spacing(how):
    made = chest(**how)
    found = lungs.steps(made.volume)
    assert dice(found.closed, made.lungs) > (0.99 if "direction" in how else 0.985)
    # Right is the patient's, whichever way the arrays run.
    assert dice(found.right, made.right) > 0.97 and dice(found.left, made.left) > 0.97


@pytest.mark.parametrize("padding", [-2000, -3024])
def test_padding_is_neither_lung_nor_air(padding):
    _, found = plain()
    padded = chest(padding=padding)
    assert padded.volume.voxels.min() < -1900
    assert (lungs.segment(padded.volume) == found.closed).mean() > 0.9999


def test_a_narrow_field_of_view_may_cut_the_body_and_graze_a_lung():
    made = chest(arms=False)
    voxels = made.volume.voxels.copy()
    voxels[np.hypot(made.x, made.y) > 79] = -2000
    seen = made.lungs & (np.hypot(made.x, made.y) <= 79)
    assert 0.985 < seen.sum() / made.lungs.sum() < 1
    assert dice(lungs.segment(replace(made.volume, voxels=voxels)), seen) > 0.97


def test_lungs_that_touch_are_taken_apart():
    made = chest(touching=True, stomach=False)
    found = lungs.steps(made.volume)
    joined, count = ndimage.label(found.without_airways)
    assert count == 1 or np.bincount(joined.ravel())[1:].max() > 0.9 * (joined > 0).sum()
    assert dice(found.right, made.right) > 0.97 and dice(found.left, made.left) > 0.97


def test_segment_gives_the_last_step_of_any_type_of_voxels():
    made, found = plain()
    for kind in (np.int16, np.float32, np.int32):
        volume = replace(made.volume, voxels=made.volume.voxels.astype(kind))
        mask = lungs.segment(volume)
        assert mask.dtype == bool and (mask == found.closed).all()


def test_small_nodules_at_the_pleura_are_in_the_lungs_and_a_large_mass_in_the_margin():
    small, large = ((-72.0, 0.0, 10.0), 7.0), ((76.0, 0.0, 8.0), 24.0)
    made = chest(nodules=[small, large], arms=False)
    mask = lungs.segment(made.volume)
    in_small, in_large = (ball(made.x, made.y, made.z, *n) & made.lungs for n in (small, large))
    assert mask[in_small].mean() > 0.95  # the wall's side is as coarse as the cells
    assert mask[in_large].mean() < 0.95  # wider than the closing: a hollow is left
    assert lungs.dilate(mask, made.volume)[in_small | in_large].all()


# --- the margin, and the wall beyond it ---------------------------------------------------------


@pytest.mark.parametrize("mm", [4.0, 10.0])
@pytest.mark.parametrize("direction", [np.eye(3), FEET_FIRST], ids=["upright", "feet_first"])
def test_a_margin_is_as_wide_as_it_says(mm, direction):
    made = chest(spacing_mm=(1.6, 1.6, 2.5), direction=direction, vessels=False)
    mask = ball(made.x, made.y, made.z, (10.0, 5.0, -8.0), 40)
    wide = lungs.dilate(mask, made.volume, mm)
    assert wide[ball(made.x, made.y, made.z, (10.0, 5.0, -8.0), 40 + mm - 1.5)].all()
    assert not wide[~ball(made.x, made.y, made.z, (10.0, 5.0, -8.0), 40 + mm + 3)].any()
    assert (lungs.dilate(mask, made.volume, 0, 0) == mask).all()


def test_the_ball_fills_what_it_cannot_enter_of_each_lung_by_itself():
    made, found = plain()
    wide, without = (lungs.dilate(found.closed, made.volume, 3, mm) for mm in (lungs.BALL_MM, 0))
    assert wide[found.closed].all()
    # Ellipsoids have no hollows, and between the two nothing is filled.
    assert (wide & (np.abs(made.x) < 2)).sum() == 0
    assert wide.sum() == pytest.approx(without.sum(), rel=0.03)


def test_beyond_the_mask_is_wall_and_within_nothing_changes():
    made, found = plain()
    before = made.volume.voxels.copy()
    walled = lungs.outside_as_wall(made.volume, found.closed)
    assert walled.voxels.dtype == before.dtype
    assert (walled.voxels[found.closed] == before[found.closed]).all()
    assert (walled.voxels[~found.closed] == lungs.WALL_HU).all()
    assert (made.volume.voxels == before).all()
    assert walled.spacing_xyz_mm == made.volume.spacing_xyz_mm
    nothing = np.zeros_like(found.closed)
    assert not lungs.dilate(nothing, made.volume).any()
    assert (lungs.outside_as_wall(made.volume, nothing).voxels == lungs.WALL_HU).all()


def test_views_take_the_lungs_as_an_option():
    made, found = plain()
    kept = lungs.dilate(found.closed, made.volume)
    walled = lungs.outside_as_wall(made.volume, kept)
    center = (-66.0, 0.0, 8.0)
    cube, nine = views.cube_and_views(made.volume, center, 64, 76, lungs=kept)
    plain_cube = views.cube(made.volume, center)
    for volume, how in ((walled, {}), (made.volume, {"lungs": kept})):
        assert (cube == views.cube(volume, center, **how)).all()
        assert (nine == views.nine_views(volume, center, 76, **how)).all()
    # The lung is as it was; the air beside the patient is gone.
    assert np.abs(cube[:, :, 32:50] - plain_cube[:, :, 32:50]).max() < 1
    assert plain_cube.min(axis=(0, 1))[0] < -900 < -100 < cube[:, :, 0].min()


@pytest.mark.parametrize("bad", [np.zeros((2, 2, 2), bool), np.zeros((88, 84, 112), np.uint8)])
def test_masks_of_other_scans_and_margins_that_make_no_sense_are_refused(bad):
    made, found = plain()
    for ask in (
        lambda: lungs.dilate(bad, made.volume),
        lambda: lungs.outside_as_wall(made.volume, bad),
        lambda: views.cube(made.volume, (0, 0, 0), lungs=bad),
    ):
        with pytest.raises(InputError, match="this very scan"):
            ask()
    for how in ({"mm": -1}, {"mm": np.nan}, {"ball_mm": np.inf}):
        with pytest.raises(InputError, match="must be 0 or more"):
            lungs.dilate(found.closed, made.volume, **how)
    with pytest.raises(InputError, match="finite"):
        lungs.outside_as_wall(made.volume, found.closed, np.nan)


# --- what holds no lungs ------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "gone"), [("right", "left"), ("left", "right")])
def test_one_lung_is_an_error_that_says_which_unless_asked_for(side, gone):
    made = chest(sides=side[0])
    with pytest.raises(InputError, match=f"only one lung found, the {side}; .* the {gone} one"):
        lungs.segment(made.volume)
    mask = lungs.segment(made.volume, one_lung=True)
    assert dice(mask, made.lungs) > 0.99
    found = lungs.steps(made.volume, one_lung=True)
    assert getattr(found, side).any() and not getattr(found, gone).any()


def grid(shape_mm=(150, 200, 200), step=2.0):
    return np.meshgrid(*(np.arange(-m / 2, m / 2, step) for m in shape_mm), indexing="ij")


def scan_of(hu, noise=10.0):
    voxels = hu + np.random.default_rng(0).normal(0, noise, hu.shape)
    return Volume(np.round(voxels).astype(np.int16), (2.0, 2.0, 2.0), series_uid="1.2.3")


def belly():
    z, y, x = grid((200, 220, 300))
    hu = np.where((x / 130) ** 2 + (y / 95) ** 2 < 1, 45.0, AIR_HU)
    hu[ball(x, y, z, (40, -40, 20), 38)] = AIR_HU  # a full stomach's gas, 230 ml
    hu[(np.hypot(y + 50, z + 60) < 20) & (np.abs(x) < 90)] = AIR_HU
    return scan_of(hu)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (belly, "plain gas"),
        (lambda: chest(aerated=False, bronchi=False).volume, "no lungs found"),
        (lambda: chest(vessels=False, noise=8).volume, "no vessels .* a phantom"),
        (lambda: scan_of(np.full((60, 60, 60), -1000.0)), "nothing but air"),
        (lambda: scan_of(np.full((60, 60, 60), 40.0)), "no air"),
        (lambda: Volume(np.full((1, 1, 1), -900, np.int16), (1, 1, 1)), "nothing but air"),
    ],
    ids=["belly", "soft", "foam", "air", "water", "voxel"],
)
def test_what_is_no_chest_has_no_lungs(make, message):
    volume = make()
    with pytest.raises(InputError, match=message) as raised:
        lungs.segment(volume)
    assert "\n" not in str(raised.value) and "give" in str(raised.value)
    assert str(raised.value).startswith("1.2.3: ") == (volume.series_uid == "1.2.3")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_hu_are_told(bad):
    voxels = np.full((30, 30, 30), -900.0, np.float32)
    voxels[3, 4, 5] = bad
    with pytest.raises(InputError, match="not finite .* put -1000"):
        lungs.segment(Volume(voxels, (2, 2, 2)))
    made, _ = plain()
    stored = (np.maximum(made.volume.voxels, -1024).astype(np.int32) + 1024).astype(np.uint16)
    with pytest.raises(InputError, match="rescale intercept"):
        lungs.segment(replace(made.volume, voxels=stored))
    with pytest.raises(InputError, match="bool"):
        lungs.segment(replace(made.volume, voxels=made.lungs))


# --- as an option of cohorts --------------------------------------------------------------------


def test_scans_without_lungs_are_reported_by_a_build_that_wants_them(tmp_path, capsys):
    write_scan(tmp_path / "scans", of_patient(1))  # balls in air
    how = {"lungs": True, "allow_incomplete": True}
    with pytest.raises(InputError, match="none of the scans .* no lungs found"):
        build_lidc(tmp_path / "scans", tmp_path / "out", progress=False, **how)
    assert build_lidc(tmp_path / "scans", tmp_path / "out", progress=False).scans["built"].sum()
    assert main(["build", "simulated", "--lungs", "--out", str(tmp_path / "none")]) == 2
    assert "takes no --lungs" in capsys.readouterr().err


@pytest.mark.real
def test_a_cohort_with_lungs_has_wall_beyond_them_and_the_same_nodule(real_dicom, tmp_path):
    cohorts = []
    for wanted in (False, True):
        out = tmp_path / str(wanted)
        build_lidc(real_dicom, out, patients=["LIDC-IDRI-0001"], lungs=wanted, progress=False)
        cohorts.append(Cohort.open(out))
        assert cohorts[-1].meta["settings"]["lungs"] is wanted
    whole, walled = (cohort.views[0] for cohort in cohorts)
    rows, columns = np.indices(whole.shape[1:]) - 37.5
    nodule = np.hypot(rows, columns) < 16
    assert (np.abs(whole[:, nodule].astype(int) - walled[:, nodule]) <= 1).all()
    assert 0.05 < (walled == lungs.WALL_HU).mean() < 0.5


# --- simulated scans, of which the truth is known -----------------------------------------------


@pytest.mark.parametrize(
    ("patient", "seed"),
    [
        (254, 1),
        # The second has nine nodules, the fourth one of 47 mm, the sixth one at the pleura.
        *(pytest.param(patient, seed, marks=pytest.mark.slow) for patient, seed in
          ((1, 0), (12, 2), (72, 2), (191, 1), (447, 1), (1005, 0), (1007, 1))),
    ],
)  # fmt: skip
def test_a_simulated_scan_is_segmented_and_its_nodules_stay_whole(patient, seed):
    nodules = lidc.nodules().query(f"patient_id == 'LIDC-IDRI-{patient:04d}'")
    uid = str(nodules["series_uid"].iloc[0])
    scene = scene_for_series(uid, seed)
    volume, truth = scanner.whole_scan(scene), scanner.truth(scene)
    mask = lungs.segment(volume)
    assert dice(mask, truth.lung) > 0.97
    kept = lungs.dilate(mask, volume)
    places = {nodule.nodule_id: k for k, nodule in enumerate(scene.nodules, start=1)}
    for nodule in nodules.loc[nodules["series_uid"] == uid, "nodule_id"]:
        assert kept[truth.nodules == places[nodule]].mean() > 0.99


# --- a real scan --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(real_dicom):
    volume = read_series(real_dicom)
    return volume, lungs.steps(volume)


@pytest.mark.real
def test_the_lungs_of_a_real_scan_have_a_plausible_size(real):
    volume, found = real
    litres = float(np.prod(volume.spacing_xyz_mm)) / 1e6
    right, left = (mask.sum() * litres for mask in (found.right, found.left))
    assert 1.5 < right < 2.5 and 1.3 < left < 2.3 and left < right
    assert 3.4 < found.closed.sum() * litres < 4.2
    # A windpipe's volume; with main bronchi about 40 ml.
    assert 25e-3 < found.airways.sum() * litres < 70e-3
    inside = volume.voxels[found.closed]
    assert -900 < np.median(inside) < -820 and (inside < AIR_HU - 50).mean() < 1e-3


@pytest.mark.real
def test_gas_bowel_and_table_of_a_real_scan_are_no_lung(real):
    volume, found = real
    # Below the lungs there is gas in the colon and the stomach.
    assert (volume.voxels[:12, 100:350, 100:450] < -900).sum() > 5000
    assert not found.closed[:12].any() and not found.closed[-4:].any()
    rows = np.flatnonzero(found.closed.any(axis=(0, 2)))
    assert rows[-1] < 420  # the table begins at row 430


@pytest.mark.real
def test_the_nodule_of_a_real_scan_is_whole_in_its_lungs(real):
    volume, found = real
    (nodule,) = lidc.nodules().query("series_uid == @volume.series_uid")["nodule_id"]
    kept = lungs.dilate(found.closed, volume)
    within = []
    for contour in lidc.contours(nodule):
        slice_number = round(float((contour.z_mm - volume.origin_xyz_mm[2]) / 2.5))
        at = (slice_number, *contour.vertices_row_col_px.T)
        assert kept[at].all()
        within.append(found.closed[at])
    # Readers drew on the first pixels outside, of which some are wall.
    assert len(within) > 20 and np.concatenate(within).mean() > 0.9
