"""Lung parenchyma segmentation (paper, section III-A): which voxels of a scan are lung.

As in Hu, Hoffman and Reinhardt, IEEE TMI 20(6):490, 2001: what is darker than -400 HU and within
the body, without windpipe and bronchi, is air in the lungs; it is taken apart into right and left;
a closing of each brings back vessels and the nodules that touch the wall. All of it happens on
cells of 1.5 mm, but for the surface, which is drawn at the scan's own voxels.

It fails where the lung is not dark: behind an effusion, in a collapsed or consolidated lobe, in a
mass wider than the closing that lies along the chest wall (`dilate` brings most of these back).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from labkit.errors import InputError
from labkit.imaging.lattice import Lattice, Mask, box_around, closed, distance_mm, filled
from labkit.imaging.volume import AIR_HU, Volume

AIR_BELOW_HU = -400.0
CLOSING_MM = 10.0
DILATION_MM = 10.0
BALL_MM = 30.0
# Muscle; also the median of what lies 3 to 10 mm beyond the lungs of a real scan.
WALL_HU = 50.0

_STEP_MM = 1.5
_CELL_ML = _STEP_MM**3 / 1000.0
_WALL_CELL_MM = 3.0
_PADDING_HU = -1200.0  # no tissue, nor air: pixels outside the reconstructed circle
_TUBE_GAS_HU = -880
_GAS_HU = -970.0  # in bowel, stomach, sinuses or a table, on average; emphysema has more
_LEAST_ML = 100.0


@dataclass(frozen=True)
class Steps:
    """What each step finds, (Z, Y, X) bool; all but the last drawn with cells of 1.5 mm."""

    threshold: Mask  # darker than -400 HU: lungs, airways, bowel gas, the air around the patient
    body: Mask  # the patient, with all the air in it, without the table
    airways: Mask  # windpipe and main bronchi
    without_airways: Mask  # air in the lungs: within the body, in pieces as large as lungs
    right: Mask  # of that the right lung
    left: Mask  # of that the left lung
    closed: Mask  # `segment`'s result: the lungs, vessels and nodules in them included


def segment(volume: Volume, *, one_lung: bool = False) -> Mask:
    """Find which voxels are lung, vessels and nodules in it included, airways outside it not.

    Args:
        volume: a chest CT, HU, of any direction and spacing. Padding is what is below -1200 HU.
        one_lung: take a scan with one lung only, as after a pneumonectomy.

    Returns:
        (Z, Y, X) bool, of the volume's shape.

    Raises:
        InputError: voxels that are not finite HU; no lungs (not a chest, a phantom, both lungs
            without air); one lung, unless asked for.
    """
    return _surface(*_find(volume, one_lung), volume)


def steps(volume: Volume, *, one_lung: bool = False) -> Steps:
    """Do the same as `segment` and return what every step finds; raises as it does."""
    lattice, found = _find(volume, one_lung)
    fine = _surface(lattice, found, volume)
    found = replace(found, body=filled(found.body))
    masks = {name: lattice.to_scan(mask) for name, mask in vars(found).items() if name != "closed"}
    return Steps(**masks, closed=fine)


def dilate(mask: Mask, volume: Volume, mm: float = DILATION_MM, ball_mm: float = BALL_MM) -> Mask:
    """Widen `segment`'s mask of a scan, so that nodules are whole which it may have cut.

    Args:
        mask: (Z, Y, X) bool.
        volume: the scan that it belongs to.
        mm: everything within this distance is added, kept to 3 mm.
        ball_mm: before that, of each lung by itself, what a ball of this radius cannot enter from
            outside, as the hollow that a mass of 60 mm at the wall leaves; 0 adds none.

    Raises:
        InputError: a mask of another shape, or a distance below 0.
    """
    mask = _checked(mask, volume)
    if not (0 <= mm < np.inf and 0 <= ball_mm < np.inf):
        raise InputError(f"a margin of {mm} mm and a ball of {ball_mm} mm: both must be 0 or more")
    lattice = Lattice.of(volume, _WALL_CELL_MM)
    wide = lattice.averaged(lattice.turned(mask).astype(np.float32)) > 0.25
    if ball_mm:
        labels, count = ndimage.label(wide, output=np.int32)
        size = np.bincount(labels.ravel()) * (_WALL_CELL_MM**3 / 1000.0)
        for number in range(1, count + 1):
            if size[number] >= _LEAST_ML:
                wide |= closed(labels == number, ball_mm, _WALL_CELL_MM)
    box = box_around(wide, int(np.ceil(mm / _WALL_CELL_MM)) + 2)
    if box is None or (mm == 0 and ball_mm == 0):
        return mask.copy()
    # Distances are between the middles of cells; the surface is half a cell further out.
    beyond = distance_mm(wide[box], _WALL_CELL_MM) - np.float32(mm + _WALL_CELL_MM / 2)
    return lattice.below([beyond], box) | mask


def outside_as_wall(volume: Volume, mask: Mask, hu: float = WALL_HU) -> Volume:
    """Return the scan with chest wall wherever the mask is not (paper, section III-A).

    The mask is (Z, Y, X) bool: the lungs with a margin, from `dilate`. Muscle lies beside most of
    the lungs' surface, so that no new edge arises there.

    Raises:
        InputError: a mask of another shape, or HU that are not a finite number.

    >>> scan = Volume(np.full((2, 2, 2), -870, np.int16), (1, 1, 1))
    >>> outside_as_wall(scan, np.arange(8).reshape(2, 2, 2) < 2).voxels.ravel().tolist()
    [-870, -870, 50, 50, 50, 50, 50, 50]
    """
    mask = _checked(mask, volume)
    if not np.isfinite(hu):
        raise InputError(f"the wall's HU must be a finite number, not {hu}")
    return replace(volume, voxels=np.where(mask, volume.voxels, volume.voxels.dtype.type(hu)))


def _checked(mask: Mask, volume: Volume) -> Mask:
    mask = np.asarray(mask)
    if mask.shape != volume.shape or mask.dtype != bool:
        raise InputError(
            f"a mask of {mask.dtype} and shape {mask.shape} for a scan of shape {volume.shape}; "
            "give what lungs.segment makes of this very scan"
        )
    return mask


def _find(volume: Volume, one_lung: bool) -> tuple[Lattice, Steps]:
    """The steps' masks on a lattice of 1.5 mm; `body` with holes where there is air."""
    who = f"{volume.series_uid}: " if volume.series_uid else ""
    kind = volume.voxels.dtype
    if kind.kind not in "iuf":
        raise InputError(f"{who}voxels of type {kind}; give HU as numbers")
    # A sum is not finite when one of its terms is not, and takes no memory.
    if kind.kind == "f" and not np.isfinite(volume.voxels.sum(dtype=np.float64)):
        raise InputError(f"{who}voxels that are not finite (NaN or infinite); put -1000 HU there")
    lattice = Lattice.of(volume, _STEP_MM)
    turned = lattice.turned(volume.voxels)
    if kind.kind == "u" or kind.itemsize < 2:
        turned = turned.astype(np.int32)  # clipping at -1024 has to be possible
    hu = lattice.averaged(np.clip(turned, int(AIR_HU) - 24, 1000).astype(np.int16))
    padded = turned < _PADDING_HU
    padding = lattice.nearest(padded) if padded.any() else np.zeros(lattice.shape, bool)
    air = (hu < AIR_BELOW_HU) & ~padding
    tissue = ~air & ~padding
    if not air.any() or not tissue.any():
        what = "no air" if tissue.any() else "nothing but air"
        raise InputError(
            f"{who}{what} in it (HU from {hu.min()} to {hu.max()}); "
            "give a chest CT in HU, with the rescale intercept applied"
        )
    body = _tissue_of_body(tissue)
    across = body.any(axis=0)
    middle_x = float(ndimage.center_of_mass(across)[1]) if across.any() else hu.shape[2] / 2
    tubes = _airways(hu, middle_x)
    labels = _enclosed(air & ~tubes, body, padding)
    lungs = _lung_like(labels, hu, who)
    right, left = _sides(lungs, middle_x)
    whole = np.zeros_like(lungs)
    for side, other, mask in (("right", "left", right), ("left", "right", left)):
        if float(mask.sum()) * _CELL_ML >= _LEAST_ML:
            lung = closed(mask, CLOSING_MM, _STEP_MM)
            box = box_around(lung, 1)
            # Foam and gas are empty: away from their surface patients' lungs hold 1 to 4 % vessels.
            deep = distance_mm(~lung[box], _STEP_MM) > 4.0
            share = float((hu[box][deep] > -500).mean()) if deep.any() else 0.0
            if share < 0.003:
                raise InputError(
                    f"{who}no vessels in what should be the {side} lung ({100 * share:.1f} % of "
                    "it); a phantom, or no chest CT: give a patient's"
                )
            whole |= lung
        elif not one_lung:
            raise InputError(
                f"{who}only one lung found, the {other}; pass one_lung=True if the "
                f"{side} one has been removed or holds no air"
            )
    inner = body | (labels > 0) | tubes
    return lattice, Steps(air, inner, tubes, right | left, right, left, whole)


def _surface(lattice: Lattice, found: Steps, volume: Volume) -> Mask:
    """The lungs at the scan's voxels, which decide about the lungs' surface where air ends."""
    box = box_around(found.closed, 3)
    if box is None:
        return np.zeros(volume.shape, bool)
    inner = _STEP_MM - distance_mm(~found.closed[box], _STEP_MM)
    near = distance_mm(found.without_airways[box], _STEP_MM) - np.float32(_STEP_MM)
    return lattice.below([inner, near], box, volume.voxels, AIR_BELOW_HU)


def _tissue_of_body(tissue: Mask) -> Mask:
    """The patient, of all tissue: without table and wires, which an erosion by 3 cells removes."""
    image = sitk.GetImageFromArray(tissue.astype(np.uint8))
    core = sitk.GetArrayFromImage(sitk.BinaryErode(image, [3] * 3, sitk.sitkBall))
    labels, count = ndimage.label(core, output=np.int32)
    if not count:
        return np.zeros(tissue.shape, bool)
    largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    image = sitk.GetImageFromArray((labels == largest).astype(np.uint8))
    grown = sitk.BinaryDilate(image, [4] * 3, sitk.sitkBall)
    return tissue & (sitk.GetArrayFromImage(grown) > 0)


def _airways(hu: NDArray[np.int16], middle_x: float) -> Mask:
    """Windpipe and main bronchi, by the body's middle (in cells).

    A tall piece of gas near it that is narrow in every slice; and what hangs together with that at
    the highest threshold that does not leak into the lungs, and the half-filled cells around.
    """
    in_slice = ndimage.generate_binary_structure(3, 1)
    in_slice[::2] = False
    # A bronchus's wall, averaged with the air on its two sides, stays above -650 HU.
    in_slices, _ = ndimage.label(hu < -650, in_slice, output=np.int32)
    narrow = np.bincount(in_slices.ravel()) * _STEP_MM**2 < 1100.0  # mm^2
    narrow[0] = False
    labels, _ = ndimage.label(narrow[in_slices], output=np.int32)
    best, windpipe = 10.0, 0
    boxes = ndimage.find_objects(labels)
    for number, box in enumerate(boxes, start=1):
        tall = (box[0].stop - box[0].start) * _STEP_MM
        if tall < 25.0:
            continue
        own = labels[box] == number
        away = abs(box[2].start + ndimage.center_of_mass(own)[2] - middle_x) * _STEP_MM
        if tall - away > best and np.percentile(hu[box][own], 25) < _TUBE_GAS_HU:
            best, windpipe = tall - away, number
    found = (labels == windpipe) & (windpipe > 0)
    near = box_around(found, int(60.0 / _STEP_MM))
    if near is None:
        return found
    own = found[near].copy()
    for threshold in range(_TUBE_GAS_HU, -980, -15):
        labels, _ = ndimage.label((hu[near] < threshold) | own, output=np.int32)
        reached = np.isin(labels, np.unique(labels[own]))
        if int(reached.sum() - own.sum()) * _CELL_ML <= 35.0:
            around = ndimage.generate_binary_structure(3, 2)
            found[near] |= ndimage.binary_dilation(reached, around)
            break
    return found


def _enclosed(air: Mask, body: Mask, padding: Mask) -> NDArray[np.int32]:
    """The pieces of air within the body, numbered from 1.

    Outside air meets much of the image's sides or of the padding, where a lung that a narrow
    field of view cuts off meets a little; a table's inside meets no body. The image's top and
    bottom do not count, since scans end within the chest.
    """
    labels, count = ndimage.label(air, output=np.int32)
    met, flesh, rim = np.zeros((3, count + 1))
    for axis in range(3):
        one, tissue, beyond = (a.swapaxes(0, axis) for a in (labels, body, padding))
        for here, there in ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))):
            edge = (one[here] > 0) & (one[there] == 0)
            at = one[here][edge]
            met += np.bincount(at, minlength=count + 1)
            flesh += np.bincount(at, weights=tissue[there][edge], minlength=count + 1)
            rim += np.bincount(at, weights=beyond[there][edge], minlength=count + 1)
        for face in (one[0], one[-1]) if axis else ():
            cells = np.bincount(face.ravel(), minlength=count + 1)
            met += cells
            rim += cells
    keep = (rim <= 0.15 * met) & (flesh >= 0.25 * met)
    keep[0] = False
    return np.where(keep, np.cumsum(keep), 0).astype(np.int32)[labels]


def _lung_like(labels: NDArray[np.int32], hu: NDArray[np.int16], who: str) -> Mask:
    """Large pieces of air that are no mere gas, and small ones beside them."""
    size = np.bincount(labels.ravel()) * _CELL_ML
    size[0] = 0.0
    keep = np.zeros(len(size), bool)
    for number in np.flatnonzero(size >= _LEAST_ML):
        keep[number] = _GAS_HU < np.median(hu[labels == number]) < -450.0
    if not keep.any():
        ml = f"{size.max():.0f} ml"
        what = f", {ml}, is plain gas" if size.max() >= _LEAST_ML else f" has {ml}"
        raise InputError(
            f"{who}no lungs found: the largest air within the body{what}; "
            "give a chest CT with whole lungs that hold air"
        )
    lungs = keep[labels]
    # Lung that a fissure, a scar or a coarse cell has cut off; bowel lies beyond a diaphragm.
    pieces = np.flatnonzero((size >= 0.3) & (size < _LEAST_ML))
    reach = box_around(lungs, int(8.0 / _STEP_MM) + 1)
    if len(pieces):
        part = labels[reach]
        near = (distance_mm(lungs[reach], _STEP_MM) <= 8.0) & (part > 0)
        for number in np.intersect1d(pieces, part[near]):
            keep[number] = np.percentile(hu[labels == number], 10) > _GAS_HU
    return keep[labels]


def _sides(lungs: Mask, middle_x: float) -> tuple[Mask, Mask]:
    """Right and left lung, of the air in both; one of them empty where there is one only.

    Lungs that touch (in front of the heart, mostly) are taken apart where they are thinnest: both
    are eroded until they part, and every cell goes to the nearer of the two cores.
    """
    nothing = np.zeros(lungs.shape, bool)
    box = box_around(lungs, 1)
    assert box is not None
    air = lungs[box]

    def from_middle(mask: Mask) -> float:
        across = mask.sum(axis=(0, 1))
        middle = float((across * np.arange(len(across))).sum() / max(across.sum(), 1))
        return middle + box[2].start - middle_x

    depth = distance_mm(~air, _STEP_MM)
    for thinner_mm in (0.0, *np.arange(1.0, 16.0, 1.5).tolist()):
        labels, count = ndimage.label(depth > thinner_mm, output=np.int32)
        if not count:
            break
        size = np.bincount(labels.ravel())[1:]
        first, *others = (int(n) + 1 for n in np.argsort(-size)[:4])
        for second in (n for n in others if size[n - 1] > 0.12 * size[first - 1]):
            at = [from_middle(labels == number) for number in (first, second)]
            if at[0] * at[1] < 0:
                cores = (first, second) if at[0] < at[1] else (second, first)
                right, left = (distance_mm(labels == core, _STEP_MM) for core in cores)
                out = nothing.copy(), nothing.copy()
                out[0][box], out[1][box] = air & (right < left), air & ~(right < left)
                return out
    return (lungs, nothing) if from_middle(air) < 0 else (nothing, lungs)
