"""A nodule's place in the world, in volumes that lie every way round."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.annotations import lidc
from labkit.errors import InputError
from labkit.imaging.volume import Volume

SPACING = (0.7, 0.7, 2.5)
ORIGIN = (-160.0, -170.0, -300.0)
NODULE = {
    "nodule_id": "LIDC-IDRI-0001-s1-n0",
    "series_uid": "1.2.3",
    "center_row_px": 31.5,
    "center_col_px": 12.25,
    "center_z_mm": -290.5,
    "pixel_spacing_mm": 0.7,
}


def _volume(direction=None, origin=ORIGIN, spacing=SPACING, series_uid="") -> Volume:
    direction = np.eye(3) if direction is None else np.asarray(direction, dtype=float)
    return Volume(np.zeros((20, 64, 48), np.int16), spacing, origin, direction, series_uid)


def test_upright():
    expected = (-160 + 12.25 * 0.7, -170 + 31.5 * 0.7, -290.5)
    np.testing.assert_allclose(lidc.center_xyz_mm(NODULE, _volume()), expected)


def test_slices_running_downwards():
    down = _volume(np.diag([1, 1, -1]), (-160, -170, -300 + 19 * 2.5))
    np.testing.assert_allclose(
        lidc.center_xyz_mm(NODULE, down), lidc.center_xyz_mm(NODULE, _volume())
    )


def test_rows_turned_upside_down_by_a_converter():
    flipped = _volume(np.diag([1, -1, 1]), (-160, -170 + 63 * 0.7, -300))
    np.testing.assert_allclose(
        lidc.center_xyz_mm(NODULE, flipped), lidc.center_xyz_mm(NODULE, _volume())
    )


def test_a_prone_patients_rows_and_columns_run_backwards():
    prone = _volume(np.diag([-1, -1, 1]), (160, 170, -300))
    expected = (160 - 12.25 * 0.7, 170 - 31.5 * 0.7, -290.5)
    np.testing.assert_allclose(lidc.center_xyz_mm(NODULE, prone), expected)


@settings(deadline=None, max_examples=50)
@given(st.tuples(*[st.floats(-0.5, 0.5)] * 3), st.sampled_from([1, -1]))
def test_oblique(angles, way):
    """z is that of the slice's first pixel: the slice is right, and the pixel within it."""
    a, b, c = angles
    turn_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    turn_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    volume = _volume(turn_z @ turn_y @ turn_x @ np.diag([1, 1, way]))
    slice_index = 7.25
    z_mm = volume.world_from_index((slice_index, 0, 0))[2]
    nodule = {**NODULE, "center_z_mm": z_mm}
    index = volume.index_from_world(lidc.center_xyz_mm(nodule, volume))
    np.testing.assert_allclose(index, (slice_index, 31.5, 12.25), atol=1e-9)


@pytest.mark.parametrize("z_mm", [-301.3, -251.2, 0.0])
def test_outside_the_slices_is_refused(z_mm):
    with pytest.raises(InputError, match=r"outside the volume \(-300.0 to -252.5 mm\)"):
        lidc.center_xyz_mm({**NODULE, "center_z_mm": z_mm}, _volume())


def test_within_half_a_slice_of_the_ends_is_inside():
    for z_mm in (-301.2, -251.3):
        assert lidc.center_xyz_mm({**NODULE, "center_z_mm": z_mm}, _volume())[2] == pytest.approx(
            z_mm
        )


def test_outside_the_rows_is_refused():
    with pytest.raises(InputError, match="without cropping"):
        lidc.center_xyz_mm({**NODULE, "center_row_px": 64.0}, _volume())


def test_another_series_is_refused():
    assert lidc.center_xyz_mm(NODULE, _volume(series_uid="1.2.3")).shape == (3,)
    with pytest.raises(InputError, match=r"belongs to series 1\.2\.3.*1\.2\.4"):
        lidc.center_xyz_mm(NODULE, _volume(series_uid="1.2.4"))


def test_resampled_and_reoriented_volumes_are_refused():
    with pytest.raises(InputError, match="before resampling"):
        lidc.center_xyz_mm(NODULE, _volume(spacing=(1.0, 1.0, 1.0)))
    with pytest.raises(InputError, match="not a stack of axial slices"):
        lidc.center_xyz_mm(NODULE, _volume([[0, 0, 1], [1, 0, 0], [0, 1, 0]]))
    with pytest.raises(InputError, match="mirrored"):
        lidc.center_xyz_mm(NODULE, _volume(np.diag([-1, 1, 1])))


def test_a_row_of_either_table_is_taken():
    nodule = lidc.nodules().iloc[0]
    annotation = lidc.annotations().iloc[0]
    z_mm = lidc.slice_z_mm(nodule["series_uid"])
    px = nodule["pixel_spacing_mm"]
    voxels = np.zeros((len(z_mm), 512, 512), np.int8)
    volume = Volume(voxels, (px, px, 2.5), (0, 0, z_mm[0]), series_uid=nodule["series_uid"])
    for row in (nodule, annotation):
        expected = (row["center_col_px"] * px, row["center_row_px"] * px, row["center_z_mm"])
        np.testing.assert_allclose(lidc.center_xyz_mm(row, volume), expected)
