"""Whether outlines lie where the images show a nodule: no shift, no flip."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labkit.realism.wall import Floats

_HALF = 16
_REACH = 2
FLIPS = {"x": (2,), "y": (1,), "xy": (1, 2)}


def alignment(hu: Floats, agreement: Floats) -> dict[str, float]:
    """Correlation of outline and image, in place, shifted and flipped.

    Args:
        hu: (n, 64, 64) HU.
        agreement: share of the readers who outlined the point.

    Returns:
        `match` (correlation in place, over the middle 32 mm), `match_flipped` (the best of three
        flips of the image), and `shift_row_mm` and `shift_col_mm` (where the correlation is
        greatest, within 2 mm, by a parabola; of the image against the outline).
    """
    middle = hu.shape[1] // 2
    inner = slice(middle - _HALF, middle + _HALF)
    image = _normal(hu[:, inner, inner])
    table = np.empty((2 * _REACH + 1,) * 2)
    for r in range(-_REACH, _REACH + 1):
        for c in range(-_REACH, _REACH + 1):
            moved = np.roll(agreement, (r, c), axis=(1, 2))[:, inner, inner]
            table[r + _REACH, c + _REACH] = np.vdot(image, _normal(moved))
    outline = _normal(agreement[:, inner, inner])
    flipped = max(float(np.vdot(np.flip(image, axes), outline)) for axes in FLIPS.values())
    row, col = np.unravel_index(int(table.argmax()), table.shape)
    return {
        "match": float(table[_REACH, _REACH]),
        "match_flipped": flipped,
        "shift_row_mm": _peak(table[:, col], int(row)) - _REACH,
        "shift_col_mm": _peak(table[row], int(col)) - _REACH,
    }


def _normal(values: Floats) -> NDArray[np.float64]:
    centred = values.astype(np.float64) - values.mean(dtype=np.float64)
    return centred / (np.linalg.norm(centred) + 1e-9)


def _peak(line: NDArray[np.float64], at: int) -> float:
    """Place of the top of the parabola through a maximum and its neighbours."""
    if not 0 < at < len(line) - 1:
        return float(at)
    left, top, right = line[at - 1 : at + 2]
    bend = left - 2 * top + right
    return float(at + 0.5 * (left - right) / bend) if bend < 0 else float(at)
