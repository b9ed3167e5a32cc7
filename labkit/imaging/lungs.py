"""Lung parenchyma segmentation (paper, section III-A): which voxels of a scan are lung.

The classical way, as in Hu, Hoffman and Reinhardt, IEEE TMI 20(6):490, 2001: what is darker than
-400 HU and within the body, without windpipe and bronchi, is air in the lungs; it is taken apart
into right and left; a closing of each brings back vessels and the nodules that touch the wall.
All of it happens on cells of 1.5 mm, which is enough for every step but the last: there the
surface is drawn at the scan's own voxels.

Before views are cut out, everything beyond the lungs can be made to look like chest wall:

    kept = lungs.dilate(lungs.segment(volume), volume)
    views.nine_views(volume, center_xyz_mm, lungs=kept)

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

# Which air is what: body around it, windpipe and bronchi, right and left lung.


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
_lungs_parts_GAS_HU = -880
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
        if tall - away > best and np.percentile(hu[box][own], 25) < _lungs_parts_GAS_HU:
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
    for threshold in range(_lungs_parts_GAS_HU, -980, -15):
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


AIR_BELOW_HU = -400.0
CLOSING_MM = 10.0
DILATION_MM = 10.0
BALL_MM = 30.0
# Muscle; also the median of what lies 3 to 10 mm beyond the lungs of a real scan.
WALL_HU = 50.0

_PADDING_HU = -1200.0  # no tissue, nor air: pixels outside the reconstructed circle
_HIGHEST_HU = 1000
_LEAST_ML = 100.0
_GAS_HU = -970.0  # in bowel, stomach, sinuses or a table, on average; emphysema has more
_DENSE_HU = -450.0
_LEAST_VESSELS = 0.003
_PIECE_ML = 0.3
_PIECE_MM = 8.0
_WALL_CELL_MM = 3.0


@dataclass(frozen=True)
class Steps:
    """What each step finds, as (Z, Y, X) bool arrays of the scan's shape.

    All but the last are drawn with cells of 1.5 mm.

    Args:
        threshold: darker than -400 HU: lungs, airways, bowel gas and the air around the patient.
        body: the patient, with all the air in it, without the table.
        airways: windpipe and main bronchi.
        without_airways: air in the lungs: within the body, in pieces as large and as textured as
            lungs.
        right: of that the right lung.
        left: of that the left lung.
        closed: the lungs: closed, so that vessels and nodules are in them. `segment`'s result.
    """

    threshold: Mask
    body: Mask
    airways: Mask
    without_airways: Mask
    right: Mask
    left: Mask
    closed: Mask


def segment(volume: Volume, *, one_lung: bool = False) -> Mask:
    """Which voxels are lung, vessels and nodules in it included, airways outside it not.

    Args:
        volume: a chest CT, HU, of any direction and spacing. Padding is what is below -1200 HU.
        one_lung: take a scan with one lung only, as after a pneumonectomy.

    Returns:
        (Z, Y, X) bool, of the volume's shape.

    Raises:
        InputError: voxels that are not finite HU; no lungs (not a chest, a phantom, both lungs
            without air); one lung, unless asked for.
    """
    found = _find(volume, one_lung)
    return _surface(found, volume)


def steps(volume: Volume, *, one_lung: bool = False) -> Steps:
    """The same as `segment`, with what every step finds; raises as it does."""
    found = _find(volume, one_lung)
    fine = found.lattice.to_scan
    return Steps(
        threshold=fine(found.air),
        body=fine(filled(found.body)),
        airways=fine(found.airways),
        without_airways=fine(found.right | found.left),
        right=fine(found.right),
        left=fine(found.left),
        closed=_surface(found, volume),
    )


def dilate(mask: Mask, volume: Volume, mm: float = DILATION_MM, ball_mm: float = BALL_MM) -> Mask:
    """The mask with a margin, in which nodules are whole that the mask may have cut.

    First all that a ball cannot enter from outside is added, each lung by itself: a mass of up to
    60 mm at the wall leaves a hollow in the mask that a ball of 30 mm cannot enter. Then comes
    everything within a distance.

    Args:
        mask: (Z, Y, X) bool, as `segment` gives it.
        volume: the scan that it belongs to.
        mm: the margin.
        ball_mm: radius of the ball; 0 leaves hollows as they are.

    Returns:
        (Z, Y, X) bool. Both distances are kept to 3 mm.

    Raises:
        InputError: a mask of another shape, or a distance below 0.
    """
    mask = _checked(mask, volume)
    if not (0 <= mm < np.inf and 0 <= ball_mm < np.inf):
        raise InputError(f"a margin of {mm} mm and a ball of {ball_mm} mm: both must be 0 or more")
    lattice = Lattice.of(volume, _WALL_CELL_MM)
    share = lattice.averaged(lattice.turned(mask).astype(np.float32))
    wide = share > 0.25
    if ball_mm:
        labels, count = ndimage.label(wide, output=np.int32)
        size = np.bincount(labels.ravel()) * (_WALL_CELL_MM**3 / 1000.0)
        for number in range(1, count + 1):
            if size[number] >= _LEAST_ML:
                wide |= closed(labels == number, ball_mm, _WALL_CELL_MM)
    reach = int(np.ceil(mm / _WALL_CELL_MM)) + 2
    box = box_around(wide, reach)
    if box is None or (mm == 0 and ball_mm == 0):
        return mask.copy()
    # Distances are between the middles of cells; the surface is half a cell further out.
    beyond = distance_mm(wide[box], _WALL_CELL_MM) - np.float32(mm + _WALL_CELL_MM / 2)
    return lattice.below([beyond], box) | mask


def outside_as_wall(volume: Volume, mask: Mask, hu: float = WALL_HU) -> Volume:
    """The scan with chest wall wherever the mask is not (paper, section III-A).

    Networks then see lung, nodule and pleura, and no ribs, heart or table. Muscle is what lies
    beside most of the lungs' surface, so that no new edge arises there.

    Args:
        volume: the scan, HU.
        mask: (Z, Y, X) bool, what stays: the lungs with a margin, from `dilate`.
        hu: of the wall.

    Raises:
        InputError: a mask of another shape, or HU that are not a finite number.

    >>> scan = Volume(np.full((2, 2, 2), -870, np.int16), (1, 1, 1))
    >>> outside_as_wall(scan, np.arange(8).reshape(2, 2, 2) < 2).voxels.ravel().tolist()
    [-870, -870, 50, 50, 50, 50, 50, 50]
    """
    mask = _checked(mask, volume)
    if not np.isfinite(hu):
        raise InputError(f"the wall's HU must be a finite number, not {hu}")
    voxels = np.where(mask, volume.voxels, volume.voxels.dtype.type(hu))
    return replace(volume, voxels=voxels)


@dataclass(frozen=True)
class _Found:
    """The steps' masks on the lattice."""

    lattice: Lattice
    air: Mask
    body: Mask
    airways: Mask
    right: Mask
    left: Mask
    whole: Mask


def _find(volume: Volume, one_lung: bool) -> _Found:
    lattice = Lattice.of(volume, STEP_MM)
    hu, padding = _on_lattice(lattice, volume)
    air = (hu < AIR_BELOW_HU) & ~padding
    tissue = ~air & ~padding
    if not air.any() or not tissue.any():
        what = "no air" if tissue.any() else "nothing but air"
        raise InputError(
            f"{_who(volume)}{what} in it (HU from {hu.min()} to {hu.max()}); "
            "give a chest CT in HU, with the rescale intercept applied"
        )
    body = tissue_of_body(tissue)
    across = body.any(axis=0)
    middle_x = float(ndimage.center_of_mass(across)[1]) if across.any() else hu.shape[2] / 2
    tubes = airways(hu, middle_x)
    labels = enclosed(air & ~tubes, body, padding)
    lungs = _lung_like(labels, hu, _who(volume))
    right, left = sides(lungs, middle_x)
    wholes = []
    for side, mask in (("right", right), ("left", left)):
        ml = float(mask.sum()) * CELL_ML
        if ml >= _LEAST_ML:
            wholes.append(closed(mask, CLOSING_MM, STEP_MM))
            _require_vessels(wholes[-1], hu, _who(volume), side)
        elif not one_lung:
            other = "left" if side == "right" else "right"
            raise InputError(
                f"{_who(volume)}only one lung found, the {other}; pass one_lung=True if the "
                f"{side} one has been removed or holds no air"
            )
    inner = body | (labels > 0) | tubes
    return _Found(lattice, air, inner, tubes, right, left, np.logical_or.reduce(wholes))


def _on_lattice(lattice: Lattice, volume: Volume) -> tuple[NDArray[np.int16], Mask]:
    """HU at 1.5 mm, air where nothing was scanned, and where that is."""
    kind = volume.voxels.dtype
    if not (np.issubdtype(kind, np.integer) or np.issubdtype(kind, np.floating)):
        raise InputError(f"{_who(volume)}voxels of type {kind}; give HU as numbers")
    # A sum is not finite when one of its terms is not, and takes no memory.
    if kind.kind == "f" and not np.isfinite(volume.voxels.sum(dtype=np.float64)):
        raise InputError(
            f"{_who(volume)}voxels that are not finite (NaN or infinite); put -1000 HU there"
        )
    turned = lattice.turned(volume.voxels)
    if kind.kind == "u" or kind.itemsize < 2:
        turned = turned.astype(np.int32)  # clipping at -1024 has to be possible
    padded = turned < _PADDING_HU
    hu = lattice.averaged(np.clip(turned, int(AIR_HU) - 24, _HIGHEST_HU).astype(np.int16))
    padding = lattice.nearest(padded) if padded.any() else np.zeros(lattice.shape, bool)
    return hu, padding


def _lung_like(labels: NDArray[np.int32], hu: NDArray[np.int16], who: str) -> Mask:
    """Large pieces of air that are no mere gas, and small ones beside them."""
    size = np.bincount(labels.ravel()) * CELL_ML
    size[0] = 0.0
    numbers = np.arange(len(size))
    keep = np.zeros(len(size), bool)
    for number in numbers[size >= _LEAST_ML]:
        keep[number] = _GAS_HU < np.median(hu[labels == number]) < _DENSE_HU
    if not keep.any():
        gas = numbers[size >= _LEAST_ML]
        what = (
            f"the largest air within the body, {size.max():.0f} ml, is plain gas"
            if len(gas)
            else f"the largest air within the body has {size.max():.0f} ml"
        )
        raise InputError(
            f"{who}no lungs found: {what}; give a chest CT with whole lungs that hold air"
        )
    lungs = keep[labels]
    # Lung that a fissure, a scar or a coarse cell has cut off; bowel lies beyond a diaphragm.
    pieces = numbers[(size >= _PIECE_ML) & (size < _LEAST_ML)]
    reach = box_around(lungs, int(_PIECE_MM / STEP_MM) + 1)
    if len(pieces) and reach is not None:
        part = labels[reach]
        near = (distance_mm(lungs[reach], STEP_MM) <= _PIECE_MM) & (part > 0)
        for number in np.intersect1d(pieces, part[near]):
            keep[number] = np.percentile(hu[labels == number], 10) > _GAS_HU
    return keep[labels]


def _require_vessels(lung: Mask, hu: NDArray[np.int16], who: str, side: str) -> None:
    share = vessel_share(lung, hu)
    if share < _LEAST_VESSELS:
        raise InputError(
            f"{who}no vessels in what should be the {side} lung ({100 * share:.1f} % of it); "
            "a phantom, or no chest CT: give a patient's"
        )


def _surface(found: _Found, volume: Volume) -> Mask:
    """The lungs at the scan's voxels.

    A cell's depth within the closed lungs is lung; about their surface the scan's own voxels
    decide where air ends.
    """
    air = found.right | found.left
    box = box_around(found.whole, 3)
    if box is None:
        return np.zeros(volume.shape, bool)
    inner = STEP_MM - distance_mm(~found.whole[box], STEP_MM)
    near = distance_mm(air[box], STEP_MM) - np.float32(STEP_MM)
    return found.lattice.below([inner, near], box, volume.voxels, AIR_BELOW_HU)


def _checked(mask: Mask, volume: Volume) -> Mask:
    mask = np.asarray(mask)
    if mask.shape != volume.shape or mask.dtype != bool:
        raise InputError(
            f"a mask of {mask.dtype} and shape {mask.shape} for a scan of shape {volume.shape}; "
            "give what lungs.segment makes of this very scan"
        )
    return mask


def _who(volume: Volume) -> str:
    return f"{volume.series_uid}: " if volume.series_uid else ""
