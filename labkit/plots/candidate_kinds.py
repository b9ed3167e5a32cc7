"""Candidates side by side by what they are: nodules, and what else a detector takes for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from labkit.errors import InputError
from labkit.plots import style
from labkit.plots._slices import draw_image, draw_title
from labkit.plots.candidates import FALSE_POSITIVE, NODULE, kind

if TYPE_CHECKING:
    from labkit.data.cohort import Cohort

_AXIAL = 0
_SHOWN_MM = 40


def kinds_figure(cohort: Cohort, places: Sequence[str], n: int = 7) -> Figure:
    """A row of nodules, and a row of false positives for each part of the anatomy they lie on.

    Each row is spread evenly over the detector's scores, its surest candidate first.

    Args:
        cohort: of simulated candidates, with `score` and `lies_on`.
        places: of `labkit.data.luna16.whereabouts.KINDS`; those that no candidate lies on are left
            out.
        n: candidates in a row.

    Raises:
        InputError: a cohort without scores or places, or with nothing to show.
    """
    rows = kinds_rows(cohort, places, n)
    table = cohort.nodules
    middle = cohort.views.shape[-1] // 2
    part = slice(middle - _SHOWN_MM // 2, middle + _SHOWN_MM // 2)
    with style.house_style():
        figure = Figure(figsize=(1.15 * n + 0.8, 1.32 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), n, squeeze=False)
        for axes, (name, numbers) in zip(grid, rows.items(), strict=True):
            for ax in axes[len(numbers) :]:
                ax.set_axis_off()
            for ax, number in zip(axes, numbers, strict=False):
                hu = cohort.views[number, _AXIAL][part, part].astype(float) * (1400 / 255) - 1000
                draw_image(ax, hu, (1.0, 1.0), style.SIMULATED if cohort.simulated else "")
                of = table.iloc[number]
                draw_title(ax, f"{of['diameter_mm']:.0f} mm" if name == NODULE else "")
            axes[0].set_ylabel(name, fontsize=10)
    spoken = ", ".join(f"{len(numbers)} on {name}" for name, numbers in rows.items())
    return style.describe(
        figure, f"Axial images of {_SHOWN_MM} mm, the detector's surest first: {spoken}."
    )


def kinds_rows(cohort: Cohort, places: Sequence[str], n: int) -> dict[str, NDArray[np.int64]]:
    """Name of a row -> numbers of the candidates in it; a nodule is shown once."""
    table = cohort.nodules
    missing = [column for column in ("score", "lies_on") if column not in table]
    if missing:
        raise InputError(f"the cohort lacks {', '.join(missing)}; only a simulated one has both")
    kinds = kind(table)
    order = np.argsort(-table["score"].to_numpy(float), kind="stable")
    hits = order[kinds[order] == NODULE]
    first = ~table[["series_uid", "hit"]].iloc[hits].duplicated().to_numpy()
    found = {NODULE: hits[first]}
    false = order[kinds[order] == FALSE_POSITIVE]
    for place in places:
        found[place] = false[(table["lies_on"].iloc[false] == place).to_numpy()]
    rows = {name: _spread(numbers, n) for name, numbers in found.items() if len(numbers)}
    if not rows:
        raise InputError("the cohort has no candidate of these kinds; take more scans")
    return rows


def _spread(numbers: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    at = np.linspace(0, len(numbers) - 1, min(n, len(numbers))).round().astype(int)
    return numbers[at]
