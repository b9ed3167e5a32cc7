"""Ways to redraw nodules, measured alike: networks, blurs, whatever gives images back.

Everything is put into plain values with intervals over patients, as it goes into fig4's JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.errors import InputError
from labkit.evaluation import fidelity
from labkit.evaluation.fidelity import PROFILE_MM, ZONES, Spectra
from labkit.experiments.measured import plain

Redraw = Callable[[int, NDArray], tuple[NDArray, dict[str, Any]]]
"""(position of a view, images (n, 64, 64)) -> reconstructions, and settings worth noting."""


@dataclass(frozen=True)
class Measures:
    """How good reconstructions are.

    Args:
        psnr: (n, views) dB.
        ssim: (n, views).
        error_hu: view -> (64, 64) mean absolute error over the nodules.
        measured: all of it as plain values, with intervals over patients.
    """

    psnr: NDArray[np.float64]
    ssim: NDArray[np.float64]
    error_hu: dict[int, NDArray[np.float64]]
    measured: dict[str, Any]


def measure(
    images: NDArray, redraw: Redraw, views: tuple[int, ...], distance_mm: NDArray, weights: NDArray
) -> Measures:
    """Measure reconstructions view by view.

    Args:
        images: (n, views, 64, 64) in [0, 1].
        redraw: what makes a view's reconstructions.
        views: numbers of the views, for the names.
        distance_mm: (n, 64, 64) from each nodule's outline.
        weights: (1 + resamples, n), as `fidelity.over_patients` makes them.
    """
    zone = fidelity.zones(distance_mm)
    ring = np.digitize(distance_mm, PROFILE_MM) - 1
    psnr, ssim, by_zone, profile, maps, settings = [], [], [], [], {}, {}
    spectrum: Spectra | None = None
    for k, view in enumerate(views):
        x = images[:, k]
        y, setting = redraw(k, x)
        error = fidelity.HU_RANGE * np.abs(np.asarray(y, dtype=np.float64) - x)
        psnr.append(fidelity.psnr(x, y))
        ssim.append(fidelity.ssim(x, y))
        by_zone.append(fidelity.by_zone(error, zone, len(ZONES)))
        profile.append(fidelity.by_zone(error, ring, len(PROFILE_MM) - 1))
        found = fidelity.spectra(x, y)
        spectrum = found if spectrum is None else spectrum + found
        maps[view] = error.mean(axis=0)
        if setting:
            settings[str(view)] = setting
    if spectrum is None:
        raise InputError("there is no view to measure a reconstruction of")
    db, likeness = np.stack(psnr, axis=1), np.stack(ssim, axis=1)
    right = fidelity.share_right(spectrum, weights)
    drawn = fidelity.share_drawn(spectrum, weights)
    finest = fidelity.finest_mm(right)
    zones = fidelity.mean_over(np.mean(by_zone, axis=0), weights)
    rings = fidelity.mean_over(np.mean(profile, axis=0), weights)
    values = {
        "metrics": {
            "nodules": len(images),
            "psnr": over(db.mean(1), weights),
            "ssim": over(likeness.mean(1), weights),
        },
        "views": {
            str(v): {"psnr": over(db[:, k], weights), "ssim": over(likeness[:, k], weights)}
            for k, v in enumerate(views)
        },
        "by_zone": {name: _interval(zones[:, k]) for k, name in enumerate(ZONES)},
        "profile": {"edges_mm": list(PROFILE_MM), "error_hu": _band(rings)},
        "spectrum": {
            "frequency_per_mm": [round(float(f), 6) for f in fidelity.frequencies_per_mm()],
            "right": _band(right),
            "drawn": _band(drawn),
        },
        "finest_mm": _interval(finest),
        "settings": settings,
    }
    return Measures(db, likeness, maps, values)


def over(values: NDArray, weights: NDArray) -> dict[str, float] | None:
    """Mean over nodules of (n,) values with its interval, by `fidelity.over_patients`."""
    return _interval(fidelity.mean_over(values, weights))


def in_words(ways: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Ways to redraw as a table to read: one row a way, values with their 95 % intervals.

    Args:
        ways: name -> `Measures.measured`, or the variants and baselines of fig4's values.
    """
    columns: dict[str, tuple[tuple[str, str], int]] = {
        "PSNR, dB": (("metrics", "psnr"), 1),
        "SSIM": (("metrics", "ssim"), 3),
        **{f"error {zone}, HU": (("by_zone", zone), 0) for zone in ZONES},
    }
    rows = {}
    for name, of in ways.items():
        found = {c: (of[part][key], digits) for c, ((part, key), digits) in columns.items()}
        found["finest detail, mm"] = (of["finest_mm"], 1)
        rows[name] = {c: _said(m, digits) for c, (m, digits) in found.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def _interval(samples: NDArray) -> dict[str, float] | None:
    """None where there is no value, such as the rim of nodules that all fill the image."""
    if not np.isfinite(samples[0]):
        return None
    return plain(fidelity.interval(samples))


def _said(of: Mapping[str, float] | None, digits: int) -> str:
    if of is None:
        return "none"
    return f"{of['value']:.{digits}f} ({of['low']:.{digits}f} to {of['high']:.{digits}f})"


def _band(samples: NDArray) -> dict[str, list[float | None]]:
    """A curve with its band, from (1 + resamples, points)."""
    points = [_interval(samples[:, k]) for k in range(samples.shape[1])]
    return {
        part: [None if p is None else round(p[part], 4) for p in points]
        for part in ("value", "low", "high")
    }
