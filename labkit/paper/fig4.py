"""Fig. 4: what MT-CNN redraws of nodules it has not seen, by alpha and by view, and what it loses.

Everything is measured on the test nodules of the first fold, by the networks of that fold, which
are kept for every alpha. Intervals are over patients; of another training they know nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.cohorts.cohort import VIEW_SIZE, Cohort
from labkit.errors import InputError
from labkit.evaluation import reconstruction
from labkit.evaluation.reconstruction import PROFILE_MM, ZONES
from labkit.evaluation.statistics import percentile_interval, plain
from labkit.imaging.views import window
from labkit.models.mtcnn import IMAGE_SIZE
from labkit.paper.declared import ALPHA_SHOWN, ALPHAS, Experiment, Variant, alpha_label
from labkit.paper.values import Runs, cells
from labkit.training.nine_views import NineViewModel, load

Redraw = Callable[[int, NDArray], tuple[NDArray, dict[str, Any]]]
"""(position of a view, images (n, 64, 64)) -> reconstructions, and settings worth noting."""
MEAN, BLUR, PCA = "mean of the training images", "Gaussian blur", "principal components"
MAP_PIXEL_MM = 2
SHOWN = alpha_label(ALPHA_SHOWN)
_MIDDLE = slice((VIEW_SIZE - IMAGE_SIZE) // 2, (VIEW_SIZE + IMAGE_SIZE) // 2)


class Measures(NamedTuple):
    """How good reconstructions are: (n, views) PSNR in dB and SSIM, (views, 64, 64) mean absolute
    error in HU, and all of it as plain values with intervals over patients."""

    psnr: NDArray[np.float64]
    ssim: NDArray[np.float64]
    error_hu: NDArray[np.float64]
    measured: dict[str, Any]


def measure(
    images: NDArray, redraw: Redraw, views: tuple[int, ...], distance_mm: NDArray, weights: NDArray
) -> Measures:
    """Measure what `redraw` makes of (n, views, 64, 64) images in [0, 1], view by view.

    `views` are the numbers of the views, for the names; `distance_mm` (n, 64, 64) is from each
    nodule's outline; `weights` (1 + resamples, n) are as `reconstruction.over_patients` makes them.
    """
    if not views:
        raise InputError("there is no view to measure a reconstruction of")
    zone, ring = reconstruction.zones(distance_mm), np.digitize(distance_mm, PROFILE_MM) - 1
    found: list[Any] = []
    settings: dict[str, Any] = {}
    for k, view in enumerate(views):
        x = images[:, k]
        y, setting = redraw(k, x)
        error = reconstruction.HU_RANGE * np.abs(np.asarray(y, dtype=np.float64) - x)
        found.append((
            reconstruction.psnr(x, y), reconstruction.ssim(x, y),
            reconstruction.by_zone(error, zone, len(ZONES)),
            reconstruction.by_zone(error, ring, len(PROFILE_MM) - 1),
            reconstruction.spectra(x, y), error.mean(axis=0),
        ))  # fmt: skip
        settings |= {str(view): setting} if setting else {}
    psnr, ssim, zones, rings, spectra, error_hu = map(np.stack, zip(*found, strict=True))
    both, spectrum = {"psnr": psnr.T, "ssim": ssim.T}, spectra.sum(axis=0)
    right = reconstruction.share_right(spectrum, weights)
    zones, rings = (reconstruction.mean_over(of.mean(axis=0), weights) for of in (zones, rings))
    values = {
        "metrics": {"nodules": len(images)}
        | {name: _over(of.mean(1), weights) for name, of in both.items()},
        "views": {
            str(v): {name: _over(of[:, k], weights) for name, of in both.items()}
            for k, v in enumerate(views)
        },
        "by_zone": {name: _interval(zones[:, k]) for k, name in enumerate(ZONES)},
        "profile": {"edges_mm": list(PROFILE_MM), "error_hu": _band(rings)},
        "spectrum": {
            "frequency_per_mm": reconstruction.frequencies_per_mm().round(6).tolist(),
            "right": _band(right),
            "drawn": _band(reconstruction.share_drawn(spectrum, weights)),
        },
        "finest_mm": _interval(reconstruction.finest_mm(right)),
        "settings": settings,
    }
    return Measures(psnr.T, ssim.T, error_hu, values)


def in_words(ways: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Tabulate ways to redraw to read: one row a way, values with their 95 % intervals.

    `ways` is name -> `Measures.measured`, or the variants and baselines of fig4's values.
    """
    rows: dict[str, dict[str, str]] = {}
    for name, of in ways.items():
        shown = {"PSNR, dB": (of["metrics"]["psnr"], 1), "SSIM": (of["metrics"]["ssim"], 3)}
        shown |= {f"error {zone}, HU": (of["by_zone"][zone], 0) for zone in ZONES}
        rows[name] = {
            what: "none" if d is None else
            f"{d['value']:.{n}f} ({d['low']:.{n}f} to {d['high']:.{n}f})"
            for what, (d, n) in (shown | {"finest detail, mm": (of["finest_mm"], 1)}).items()
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")


def _over(values: NDArray, weights: NDArray) -> dict[str, float] | None:
    return _interval(reconstruction.mean_over(values, weights))


def _interval(samples: NDArray) -> dict[str, float] | None:
    """None where there is no value, such as the rim of nodules that all fill the image."""
    return plain(percentile_interval(samples)) if np.isfinite(samples[0]) else None


def _band(samples: NDArray) -> dict[str, list[float | None]]:
    """A curve with its band, from (1 + resamples, points)."""
    points = [_interval(column) or {} for column in samples.T]
    return {
        part: [round(p[part], 4) if p else None for p in points]
        for part in ("value", "low", "high")
    }


def fig4(experiment: Experiment, runs: Runs) -> dict[str, Any]:
    """Compute PSNR, SSIM, errors by place and detail, of each alpha and of plain ways to redraw.

    Returns:
        `variants`: label -> `Measures.measured`, and `less_shown`, paired differences to the alpha
        that is shown; `baselines`: the same of plain ways, two of which have the shown alpha's
        PSNR; `map`: error of every pixel, by view; `nodules`: the two of the figure, with
        probabilities; `missing`: labels not finished.
    """
    there, missing = runs.finished(experiment)
    values: dict[str, Any] = {
        "variants": {}, "baselines": {}, "map": {}, "nodules": [], "shown": SHOWN,
        "missing": missing,
    }  # fmt: skip
    if SHOWN not in there:
        return values
    rows = _tested(runs, there[SHOWN])
    nodules, views = runs.cohort.nodules.iloc[rows], runs.profile.paper_views
    images = runs.once("fig4 images", _images, runs.cohort, rows, views)
    given = (
        views, reconstruction.outline_distance(nodules["diameter_mm"]),
        reconstruction.over_patients(nodules["patient_id"].to_numpy(), runs.profile.resamples),
    )  # fmt: skip

    def of_alpha(label: str) -> Measures:
        drawn = _model(runs, there[label]).reconstruct(runs.cohort, rows)
        return measure(images, lambda k, _: (drawn[:, k], {}), *given)

    def of_baselines(wanted_db: list[float]) -> dict[str, Any]:
        ways = _plain_ways(runs, rows, wanted_db)
        return {name: measure(images, way, *given).measured for name, way in ways.items()}

    reference = runs.once(("fig4", SHOWN), of_alpha, SHOWN)
    for alpha, label in ((a, alpha_label(a)) for a in ALPHAS if alpha_label(a) in there):
        of, variant = runs.once(("fig4", label), of_alpha, label), there[label]
        apart = {"psnr": of.psnr.mean(1) - reference.psnr.mean(1),
                 "ssim": of.ssim.mean(1) - reference.ssim.mean(1)}  # fmt: skip
        values["variants"][label] = {
            "alpha": alpha, "folder": variant.folder(runs.profile), **of.measured,
            "less_shown": {name: _over(less, given[-1]) for name, less in apart.items()},
            "trained": runs.trained(variant, runs.profile.plan(sweep=True)),
        }  # fmt: skip
    wanted_db = [float(psnr.mean()) for psnr in reference.psnr.T]
    values["baselines"] = runs.once("fig4 baselines", of_baselines, wanted_db)
    maps = zip(views, reference.error_hu, strict=True)
    values["map"] = {
        "pixel_mm": MAP_PIXEL_MM,
        "error_hu": {str(view): _coarse(image) for view, image in maps},
    }
    values["nodules"] = _described(*shown_nodules(experiment, runs))
    values["judged"] = {
        "on": "test nodules of the first fold, by its networks",
        "nodules": len(nodules),
        "patients": int(nodules["patient_id"].nunique()),
        "median_diameter_mm": round(float(nodules["diameter_mm"].median()), 2),
        "resamples": runs.profile.resamples,
    }
    return values


def table(values: dict[str, Any]) -> pd.DataFrame:
    """Return one row a way to redraw and a view, and one over all views."""
    lines = []
    for way, of in {**values["variants"], **values["baselines"]}.items():
        over_all = of["metrics"] | {f"error_hu_{zone}": of["by_zone"][zone] for zone in ZONES}
        over_all["finest_mm"] = of["finest_mm"]
        for view, metrics in {"all": over_all, **of["views"]}.items():
            measured = {name: m for name, m in metrics.items() if isinstance(m, dict)}
            lines.append({"way": way, "view": view, **cells(measured)})
    return pd.DataFrame(lines)


def shown_nodules(experiment: Experiment, runs: Runs) -> tuple[NineViewModel, Cohort, list[int]]:
    """Return what the figure itself needs: networks, cohort, and rows of two typical nodules.

    The malignant and the benign test nodule whose diameter is the median of their class: a rule
    that looks at no reconstruction, so that it cannot pick a good one.
    """
    shown = next(v for v in experiment.variants if v.label == SHOWN)
    nodules, chosen = runs.cohort.nodules.iloc[_tested(runs, shown)], []
    for label in (1, 0):
        mm = nodules.loc[nodules["label"] == label, "diameter_mm"].sort_values(kind="stable")
        chosen.append(int(mm.index[(len(mm) - 1) // 2]))
    return _model(runs, shown), runs.cohort, chosen


def _tested(runs: Runs, variant: Variant) -> NDArray[np.int64]:
    """Rows of the cohort on which reconstructions are judged: the first fold's test nodules."""
    first = runs.predictions(variant).query("repeat == 0 and fold == 0")
    return np.flatnonzero(runs.cohort.nodules["nodule_id"].isin(first["nodule_id"]))


def _images(cohort: Cohort, rows: NDArray[np.int64], views: tuple[int, ...]) -> NDArray[np.float32]:
    """(n, views, 64, 64) in [0, 1]: what the networks see."""
    return np.stack([window(cohort.views[rows, v][:, _MIDDLE, _MIDDLE]) for v in views], axis=1)


def _model(runs: Runs, variant: Variant) -> NineViewModel:
    folder = runs.run_folder(variant) / "model"
    return runs.once(("fig4 model", folder), load, folder, runs.device)


def _plain_ways(runs: Runs, rows: NDArray[np.int64], wanted_db: list[float]) -> dict[str, Redraw]:
    """Plain ways to redraw; blur and components as good as the shown alpha, view by view."""
    train = np.setdiff1d(runs.cohort.labelled, rows)

    def seen(k: int) -> NDArray[np.float32]:
        return _images(runs.cohort, train, (runs.profile.paper_views[k],))[:, 0]

    def by_blur(k: int, x: NDArray) -> tuple[NDArray, dict[str, Any]]:
        made = reconstruction.blurred(x, wanted_db[k])
        return made.images, {"sigma_mm": round(made.setting, 3), "reached": made.reached}

    def by_components(k: int, x: NDArray) -> tuple[NDArray, dict[str, Any]]:
        made = reconstruction.from_components(seen(k), x, wanted_db[k])
        return made.images, {"components": int(made.setting), "reached": made.reached}

    def by_mean(k: int, x: NDArray) -> tuple[NDArray, dict[str, Any]]:
        return reconstruction.training_mean(seen(k), x), {}

    return {MEAN: by_mean, BLUR: by_blur, PCA: by_components}


def _described(model: NineViewModel, cohort: Cohort, rows: list[int]) -> list[dict[str, Any]]:
    probabilities = model.predict(cohort, rows)
    fused, described = model.fuse(probabilities), []
    for i, nodule in enumerate(cohort.nodules.iloc[rows].to_dict("records")):
        of_view = zip(map(str, model.config.views), probabilities[i].tolist(), strict=True)
        described.append({
            "nodule_id": str(nodule["nodule_id"]), "label": int(nodule["label"]),
            "diameter_mm": round(float(nodule["diameter_mm"]), 2),
            "probability": {v: round(p, 4) for v, p in of_view}, "fused": round(float(fused[i]), 4),
        })  # fmt: skip
    return described


def _coarse(image: NDArray) -> list[str]:
    """A map in pixels of `MAP_PIXEL_MM`: whole HU, a line of text for every row."""
    side = image.shape[0] // MAP_PIXEL_MM
    blocks = image.reshape(side, MAP_PIXEL_MM, side, MAP_PIXEL_MM).mean(axis=(1, 3))
    return [" ".join(f"{v:.0f}" for v in row) for row in blocks]
