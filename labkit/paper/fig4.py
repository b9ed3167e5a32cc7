"""Fig. 4: what MT-CNN redraws of nodules it has not seen, by alpha and by view, and what it loses.

Everything is measured on the test nodules of the first fold, by the networks of that fold, which
are kept for every alpha. Intervals are over patients; of another training they know nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.cohorts.cohort import VIEW_SIZE, Cohort
from labkit.errors import InputError
from labkit.evaluation import reconstruction
from labkit.evaluation.reconstruction import (
    PROFILE_MM,
    ZONES,
    Spectra,
    blurred,
    from_components,
    training_mean,
)
from labkit.imaging.views import window
from labkit.models.mtcnn import IMAGE_SIZE
from labkit.paper.declared import ALPHA_SHOWN, ALPHAS, Experiment, Variant, alpha_label
from labkit.paper.finished import Finished
from labkit.paper.values import plain
from labkit.training.model import NineViewModel, load

# Ways to redraw nodules, measured alike: networks, blurs, whatever gives images back.
#
# Everything is put into plain values with intervals over patients, as it goes into fig4's JSON.


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
    zone = reconstruction.zones(distance_mm)
    ring = np.digitize(distance_mm, PROFILE_MM) - 1
    psnr, ssim, by_zone, profile, maps, settings = [], [], [], [], {}, {}
    spectrum: Spectra | None = None
    for k, view in enumerate(views):
        x = images[:, k]
        y, setting = redraw(k, x)
        error = reconstruction.HU_RANGE * np.abs(np.asarray(y, dtype=np.float64) - x)
        psnr.append(reconstruction.psnr(x, y))
        ssim.append(reconstruction.ssim(x, y))
        by_zone.append(reconstruction.by_zone(error, zone, len(ZONES)))
        profile.append(reconstruction.by_zone(error, ring, len(PROFILE_MM) - 1))
        found = reconstruction.spectra(x, y)
        spectrum = found if spectrum is None else spectrum + found
        maps[view] = error.mean(axis=0)
        if setting:
            settings[str(view)] = setting
    if spectrum is None:
        raise InputError("there is no view to measure a reconstruction of")
    db, likeness = np.stack(psnr, axis=1), np.stack(ssim, axis=1)
    right = reconstruction.share_right(spectrum, weights)
    drawn = reconstruction.share_drawn(spectrum, weights)
    finest = reconstruction.finest_mm(right)
    zones = reconstruction.mean_over(np.mean(by_zone, axis=0), weights)
    rings = reconstruction.mean_over(np.mean(profile, axis=0), weights)
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
            "frequency_per_mm": [round(float(f), 6) for f in reconstruction.frequencies_per_mm()],
            "right": _band(right),
            "drawn": _band(drawn),
        },
        "finest_mm": _interval(finest),
        "settings": settings,
    }
    return Measures(db, likeness, maps, values)


def over(values: NDArray, weights: NDArray) -> dict[str, float] | None:
    """Mean over nodules of (n,) values with its interval, by `fidelity.over_patients`."""
    return _interval(reconstruction.mean_over(values, weights))


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
    return plain(reconstruction.interval(samples))


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


MEAN, BLUR, PCA = "mean of the training images", "Gaussian blur", "principal components"
MAP_PIXEL_MM = 2
_MIDDLE = slice((VIEW_SIZE - IMAGE_SIZE) // 2, (VIEW_SIZE + IMAGE_SIZE) // 2)


@dataclass(frozen=True)
class Tested:
    """The nodules on which reconstructions are judged.

    Args:
        rows: of the cohort: the first fold's test nodules.
        train: labelled rows that are not among them.
        images: (n, views, 64, 64) in [0, 1].
        distance_mm: (n, 64, 64) from each nodule's outline.
        weights: (1 + resamples, n) of the nodules, over patients.
    """

    rows: NDArray[np.int64]
    train: NDArray[np.int64]
    images: NDArray[np.float32]
    distance_mm: NDArray[np.float64]
    weights: NDArray[np.float64]


def fig4(experiment: Experiment, runs: Finished) -> dict[str, Any]:
    """PSNR and SSIM, errors by place and by detail, of each alpha and of plain ways to redraw.

    Returns:
        `variants`: label -> `metrics` over all views and `views` one by one, `by_zone`, `profile`,
        `spectrum`, `finest_mm`, and `less_shown`, paired differences to the alpha that is shown;
        `baselines`: the same of plain ways, two of which have the shown alpha's PSNR; `map`: error
        of every pixel, by view; `nodules`: the two of the figure, with probabilities; `missing`:
        labels not finished.
    """
    there = {v.label: v for v in experiment.variants if runs.has(v)}
    shown = there.get(alpha_label(ALPHA_SHOWN))
    values: dict[str, Any] = {
        "variants": {},
        "baselines": {},
        "map": {},
        "nodules": [],
        "shown": alpha_label(ALPHA_SHOWN),
        "missing": [v.label for v in experiment.variants if v.label not in there],
    }
    if shown is None:
        return values
    tested = runs.once("fig4 tested", lambda: _tested(runs, shown))
    reference = _of_alpha(runs, shown, tested)
    for alpha in ALPHAS:
        if (variant := there.get(alpha_label(alpha))) is None:
            continue
        of = _of_alpha(runs, variant, tested)
        values["variants"][variant.label] = {
            "alpha": alpha,
            "folder": variant.folder(runs.amounts.profile),
            **of.measured,
            "less_shown": {
                "psnr": over(of.psnr.mean(1) - reference.psnr.mean(1), tested.weights),
                "ssim": over(of.ssim.mean(1) - reference.ssim.mean(1), tested.weights),
            },
            "trained": runs.trained(variant),
        }
    baselines = runs.once("fig4 baselines", lambda: _baselines(runs, tested, reference))
    values["baselines"] = {name: of.measured for name, of in baselines.items()}
    values["map"] = {
        "pixel_mm": MAP_PIXEL_MM,
        "error_hu": {str(v): _coarse(image) for v, image in reference.error_hu.items()},
    }
    model = _model(runs, shown)
    chosen = _typical(runs.cohort, tested.rows)
    values["nodules"] = _described(model, runs.cohort, chosen)
    patients = runs.cohort.nodules["patient_id"].iloc[tested.rows].nunique()
    values["judged"] = {
        "on": "test nodules of the first fold, by its networks",
        "nodules": len(tested.rows),
        "patients": int(patients),
        "median_diameter_mm": round(
            float(runs.cohort.nodules["diameter_mm"].iloc[tested.rows].median()), 2
        ),
        "resamples": len(tested.weights) - 1,
    }
    return values


def table(values: dict[str, Any]) -> pd.DataFrame:
    """One row a way to redraw and a view, and one over all views."""
    lines = []
    for way, of in {**values["variants"], **values["baselines"]}.items():
        for view, metrics in {"all": of["metrics"], **of["views"]}.items():
            line: dict[str, Any] = {"way": way, "view": view}
            named = dict(metrics)
            if view == "all":
                named |= {f"error_hu_{zone}": of["by_zone"][zone] for zone in ZONES}
                named["finest_mm"] = of["finest_mm"]
            for metric, m in named.items():
                if isinstance(m, dict):
                    line |= {metric: m["value"], f"{metric}_low": m["low"]}
                    line[f"{metric}_high"] = m["high"]
            lines.append(line)
    return pd.DataFrame(lines)


def shown_nodules(
    experiment: Experiment, runs: Finished
) -> tuple[NineViewModel, Cohort, list[int]]:
    """What the figure itself needs: networks, cohort, and a typical nodule of each class."""
    shown = next(v for v in experiment.variants if v.label == alpha_label(ALPHA_SHOWN))
    tested = runs.once("fig4 tested", lambda: _tested(runs, shown))
    return _model(runs, shown), runs.cohort, _typical(runs.cohort, tested.rows)


def _tested(runs: Finished, variant: Variant) -> Tested:
    table, cohort = runs.predictions(variant), runs.cohort
    first = table[(table["repeat"] == 0) & (table["fold"] == 0)]
    inside = cohort.nodules["nodule_id"].isin(first["nodule_id"]).to_numpy()
    rows = np.flatnonzero(inside)
    train = np.setdiff1d(cohort.labelled, rows)
    return Tested(
        rows,
        train,
        np.stack([_images(cohort, rows, view) for view in runs.amounts.views], axis=1),
        reconstruction.outline_distance(cohort.nodules["diameter_mm"].iloc[rows]),
        reconstruction.over_patients(
            cohort.nodules["patient_id"].iloc[rows].to_numpy(), runs.amounts.profile.resamples
        ),
    )


def _images(cohort: Cohort, rows: NDArray[np.int64], view: int) -> NDArray[np.float32]:
    """(n, 64, 64) in [0, 1]: what the network of a view sees."""
    return window(cohort.views[rows, view][:, _MIDDLE, _MIDDLE])


def _model(runs: Finished, variant: Variant) -> NineViewModel:
    folder = runs.run_folder(variant) / "model"
    return runs.once(("fig4 model", folder), lambda: load(folder, runs.device))


def _of_alpha(runs: Finished, variant: Variant, tested: Tested) -> Measures:
    def make() -> Measures:
        redrawn = _model(runs, variant).reconstruct(runs.cohort, tested.rows)
        return measure(
            tested.images, lambda k, _: (redrawn[:, k], {}), runs.amounts.views,
            tested.distance_mm, tested.weights,
        )  # fmt: skip

    return runs.once(("fig4", variant.folder(runs.amounts.profile)), make)


def _baselines(runs: Finished, tested: Tested, reference: Measures) -> dict[str, Measures]:
    """Plain ways to redraw; blur and components as good as the shown alpha, view by view."""
    views = runs.amounts.views

    def seen(k: int) -> NDArray[np.float32]:
        return _images(runs.cohort, tested.train, views[k])

    def by_blur(k: int, x: NDArray) -> tuple[NDArray, dict[str, Any]]:
        made = blurred(x, float(reference.psnr[:, k].mean()))
        return made.images, {"sigma_mm": round(made.setting, 3), "reached": made.reached}

    def by_components(k: int, x: NDArray) -> tuple[NDArray, dict[str, Any]]:
        made = from_components(seen(k), x, float(reference.psnr[:, k].mean()))
        return made.images, {"components": int(made.setting), "reached": made.reached}

    ways: Mapping[str, Redraw] = {
        MEAN: lambda k, x: (training_mean(seen(k), x), {}),
        BLUR: by_blur,
        PCA: by_components,
    }
    return {
        name: measure(tested.images, way, views, tested.distance_mm, tested.weights)
        for name, way in ways.items()
    }


def _typical(cohort: Cohort, rows: NDArray[np.int64]) -> list[int]:
    """The malignant and the benign test nodule whose diameter is the median of their class.

    A rule that looks at no reconstruction, so that it cannot pick a good one.
    """
    tested = cohort.nodules.iloc[rows]
    chosen = []
    for label in (1, 0):
        mm = tested.loc[tested["label"] == label, "diameter_mm"].sort_values(kind="stable")
        chosen.append(int(mm.index[(len(mm) - 1) // 2]))
    return chosen


def _described(model: NineViewModel, cohort: Cohort, rows: list[int]) -> list[dict[str, Any]]:
    probabilities = model.predict(cohort, rows)
    fused = model.fuse(probabilities)
    return [
        {
            "nodule_id": str(cohort.nodules["nodule_id"].iloc[row]),
            "label": int(cohort.nodules["label"].iloc[row]),
            "diameter_mm": round(float(cohort.nodules["diameter_mm"].iloc[row]), 2),
            "probability": {
                str(v): round(float(p), 4)
                for v, p in zip(model.config.views, probabilities[i], strict=True)
            },
            "fused": round(float(fused[i]), 4),
        }
        for i, row in enumerate(rows)
    ]


def _coarse(image: NDArray) -> list[str]:
    """A map in pixels of `MAP_PIXEL_MM`: whole HU, a line of text for every row."""
    side = image.shape[0] // MAP_PIXEL_MM
    blocks = image.reshape(side, MAP_PIXEL_MM, side, MAP_PIXEL_MM).mean(axis=(1, 3))
    return [" ".join(f"{v:.0f}" for v in row) for row in blocks]
