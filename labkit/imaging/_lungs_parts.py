"""Which air is what: body around it, windpipe and bronchi, right and left lung."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from labkit.imaging._lungs_lattice import Mask, box_around, distance_mm

Labels = NDArray[np.int32]
STEP_MM = 1.5
CELL_ML = STEP_MM**3 / 1000.0
_IN_SLICE = np.zeros((3, 3, 3), bool)
_IN_SLICE[1] = ndimage.generate_binary_structure(2, 1)

# Tables, blankets and wires are thinner than 7 cells in one direction, a body is not.
_THIN = 3
_MOST_OPEN = 0.15
_LEAST_BODY = 0.25
# A bronchus's wall, averaged with the air on its two sides, stays above.
_LUMEN_HU = -650
_GAS_HU = -880
_WIDEST_MM2 = 1100.0
_TUBE_MM = 25.0
_AWAY_MM = 60.0
_BRANCHES_ML = 35.0
_SECOND_LUNG = 0.12
_VESSEL_HU = -500
_PLEURA_MM = 4.0
_JUNCTION_MM = (0.0, *np.arange(1.0, 16.0, 1.5).tolist())


def tissue_of_body(tissue: Mask) -> Mask:
    """The patient's skin and what is below it, of all tissue: without table, blankets, wires.

    The thin goes in an erosion; of what is left the largest piece, grown back, is the body.
    """
    core = sitk.BinaryErode(
        sitk.GetImageFromArray(tissue.astype(np.uint8)), [_THIN] * 3, sitk.sitkBall
    )
    labels, count = ndimage.label(sitk.GetArrayFromImage(core), output=np.int32)
    if not count:
        return np.zeros(tissue.shape, bool)
    largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    core = sitk.GetImageFromArray((labels == largest).astype(np.uint8))
    grown = sitk.BinaryDilate(core, [_THIN + 1] * 3, sitk.sitkBall)
    return tissue & (sitk.GetArrayFromImage(grown) > 0)


def enclosed(air: Mask, body: Mask, padding: Mask) -> Labels:
    """The pieces of air within the body, numbered from 1.

    Outside air meets much of the image's sides or of the padding, where a lung that a narrow
    field of view cuts off meets a little; a table's inside meets no body. The image's top and
    bottom do not count, since scans end within the chest.

    Args:
        air: (Z, Y, X) air.
        body: (Z, Y, X) tissue of the body.
        padding: (Z, Y, X) not scanned.
    """
    labels, count = ndimage.label(air, output=np.int32)
    met, flesh, rim = np.zeros(count + 1), np.zeros(count + 1), np.zeros(count + 1)
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
    keep = (rim <= _MOST_OPEN * met) & (flesh >= _LEAST_BODY * met)
    keep[0] = False
    return np.where(keep, np.cumsum(keep), 0).astype(np.int32)[labels]


def airways(hu: NDArray[np.int16], middle_x: float) -> Mask:
    """Windpipe and main bronchi.

    The windpipe is a tall piece of gas near the body's middle that is narrow in every slice. The
    bronchi are what continues it at the highest threshold that does not leak into the lungs.

    Args:
        hu: (Z, Y, X) HU of the lattice.
        middle_x: the body's middle, in cells.
    """
    in_slices, _ = ndimage.label(hu < _LUMEN_HU, _IN_SLICE, output=np.int32)
    narrow = np.bincount(in_slices.ravel()) * STEP_MM**2 < _WIDEST_MM2
    narrow[0] = False
    labels, _ = ndimage.label(narrow[in_slices], output=np.int32)
    best, windpipe = 10.0, 0
    boxes = ndimage.find_objects(labels)
    for number, box in enumerate(boxes, start=1):
        tall = (box[0].stop - box[0].start) * STEP_MM
        if tall < _TUBE_MM:
            continue
        own = labels[box] == number
        away = abs(box[2].start + ndimage.center_of_mass(own)[2] - middle_x) * STEP_MM
        if tall - away > best and np.percentile(hu[box][own], 25) < _GAS_HU:
            best, windpipe = tall - away, number
    if not windpipe:
        return np.zeros(hu.shape, bool)
    seed = labels == windpipe
    return seed | _bronchi(hu, seed, boxes[windpipe - 1])


def _bronchi(hu: NDArray[np.int16], seed: Mask, box: tuple[slice, ...]) -> Mask:
    """What hangs together with the windpipe and is gas, with the half-filled cells around it."""
    reach = int(_AWAY_MM / STEP_MM)
    z, y, x = (
        slice(max(s.start - reach, 0), min(s.stop + reach, n))
        for s, n in zip(box, hu.shape, strict=True)
    )
    part, own = hu[z, y, x], seed[z, y, x]
    grown = np.zeros(hu.shape, bool)
    for threshold in range(_GAS_HU, -980, -15):
        labels, _ = ndimage.label((part < threshold) | own, output=np.int32)
        reached = np.isin(labels, np.unique(labels[own]))
        if int(reached.sum() - own.sum()) * CELL_ML <= _BRANCHES_ML:
            around = ndimage.generate_binary_structure(3, 2)
            grown[z, y, x] = ndimage.binary_dilation(reached, around)
            break
    return grown


def sides(lungs: Mask, middle_x: float) -> tuple[Mask, Mask]:
    """Right and left lung, of the air in both; one of them empty where there is one only.

    Lungs that touch (in front of the heart, mostly) are taken apart where they are thinnest: both
    are eroded until they part, and every cell goes to the nearer of the two cores.

    Args:
        lungs: (Z, Y, X) air in the lungs.
        middle_x: the body's middle, in cells.
    """
    nothing = np.zeros(lungs.shape, bool)
    box = box_around(lungs, 1)
    if box is None:
        return nothing, nothing
    air = lungs[box]
    depth = distance_mm(~air, STEP_MM)
    for thinner_mm in _JUNCTION_MM:
        labels, count = ndimage.label(depth > thinner_mm, output=np.int32)
        if not count:
            break
        size = np.bincount(labels.ravel())[1:]
        first, *others = (int(n) + 1 for n in np.argsort(-size)[:4])
        x_first = _middle_x(labels == first) + box[2].start
        for second in (n for n in others if size[n - 1] > _SECOND_LUNG * size[first - 1]):
            x_second = _middle_x(labels == second) + box[2].start
            if (x_first - middle_x) * (x_second - middle_x) < 0:
                right, left = (first, second) if x_first < x_second else (second, first)
                nearer = distance_mm(labels == right, STEP_MM) < distance_mm(
                    labels == left, STEP_MM
                )
                out = nothing.copy(), nothing.copy()
                out[0][box], out[1][box] = air & nearer, air & ~nearer
                return out
    on_the_right = _middle_x(air) + box[2].start < middle_x
    return (lungs, nothing) if on_the_right else (nothing, lungs)


def vessel_share(lung: Mask, hu: NDArray[np.int16]) -> float:
    """How much of a closed lung, away from its surface, is denser than lung tissue: 0 to 1.

    Patients have 1 to 4 %, foam and gas nothing.
    """
    box = box_around(lung, 1)
    if box is None:
        return 0.0
    deep = distance_mm(~lung[box], STEP_MM) > _PLEURA_MM
    return float((hu[box][deep] > _VESSEL_HU).mean()) if deep.any() else 0.0


def _middle_x(mask: Mask) -> float:
    across = mask.sum(axis=(0, 1))
    return float((across * np.arange(len(across))).sum() / max(across.sum(), 1))
