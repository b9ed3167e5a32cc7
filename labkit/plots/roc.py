"""ROC curves with their bands, size-only beside them, and what one threshold does.

Everything starts from predictions as `evaluation.crossval.run` returns them. The figures belong to
nobody: show them with `style.show`, save them, or put them in a page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from labkit.errors import InputError
from labkit.evaluation import intervals, metrics
from labkit.evaluation.intervals import Interval
from labkit.evaluation.summary import scores
from labkit.imaging.views import PLANES
from labkit.plots import style

Scores = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[Any]]
_SPARE = (style.SKY, style.PURPLE, style.BLUE, style.VERMILION, style.GREY)


def method_colours(names: list[str]) -> dict[str, str]:
    """One colour a method: ST-CNN, MT-CNN and size-only have their own, others are dealt out.

    >>> method_colours(["MT-CNN", "ST-CNN"]) == {"MT-CNN": style.MT, "ST-CNN": style.ST}
    True
    """
    colours: dict[str, str] = {}
    for name in names:
        known = [c for key, c in style.METHODS.items() if name.lower().startswith(key)]
        free = [c for c in (*known, *_SPARE) if c not in colours.values()]
        colours[name] = free[0] if free else style.GREY
    return colours


def view_name(view: str | int) -> str:
    """What a view is called in a figure: its plane's name, or "fused", or "size only".

    >>> view_name("3"), view_name("size_only")
    ('diagonal x plus', 'size only')
    """
    text = str(view)
    return (PLANES[int(text)].name if text.isdigit() else text).replace("_", " ")


def roc_figure(
    runs: Mapping[str, pd.DataFrame],
    *,
    view: str = "fused",
    size_only: bool = True,
    band: bool = True,
    resamples: int = 1000,
    seed: int = 0,
    simulated: bool = False,
    title: str = "",
) -> Figure:
    """ROC curves of several methods on one set of axes, AUC and 95 % interval in the legend.

    Curves are pooled over folds (and averaged over repeats); bands and intervals come from a
    bootstrap over patients. A band holds at each false positive rate by itself.

    Args:
        runs: name -> predictions, as `crossval.run` returns them.
        view: "fused", or "0" to "8".
        size_only: also draw the diameter's own curve, from the first run that has it.
        band: shade each run's 95 % band (size-only has none, to keep the figure legible).
        resamples: of the bootstrap.
        seed: of the bootstrap.
        simulated: say that the images were simulated.
        title: above the axes.

    Raises:
        InputError: no runs, or predictions without this view.
    """
    if not runs:
        raise InputError("there is no run to draw a ROC curve of")
    with style.house_style():
        figure = Figure(figsize=(5.6, 5.2), layout="constrained")
        ax = figure.subplots()
        ax.plot([0, 1], [0, 1], color=style.GREY, lw=0.8, ls=":", zorder=1)
        colours = method_colours(list(runs))
        drawn = {name: (scores(table, view), colours[name], band) for name, table in runs.items()}
        reference = first_with(runs, "size_only") if size_only else None
        if reference is not None:
            drawn["size only"] = (scores(reference, "size_only"), style.SIZE_ONLY, False)
        for name, (chosen, colour, shaded) in drawn.items():
            auc = auc_interval(chosen, resamples, seed)
            _draw_roc(ax, f"{name}: {auc}", chosen, colour, shaded, resamples, seed)
        _roc_axes(ax, title, simulated)
        ax.legend(loc="lower right", title="AUC (95 % interval over patients)", title_fontsize=9)
        words = "; ".join(str(line.get_label()) for line in ax.get_lines()[1:])
    return style.describe(
        figure, f"ROC curves, sensitivity against false positive rate. AUC with interval: {words}."
    )


def operating_point_figure(
    predictions: pd.DataFrame,
    threshold: float = metrics.DEFAULT_THRESHOLD,
    *,
    view: str = "fused",
    simulated: bool = False,
) -> Figure:
    """What one threshold does: the two classes' scores, cut by it, and its point on the ROC curve.

    Args:
        predictions: of one run; scores are averaged over repeats.
        threshold: a score at or above it is called malignant.
        view: "fused", "size_only", or "0" to "8".
        simulated: say that the images were simulated.
    """
    labels, runs, _ = scores(predictions, view)
    probability = runs.mean(axis=0)
    point = metrics.sensitivity_specificity(labels, probability, threshold)
    with style.house_style():
        figure = Figure(figsize=(8.4, 3.9), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
        bins = np.linspace(0, 1, 26)
        for label, sign, word in ((1, 1, "malignant"), (0, -1, "benign")):
            counts, _ = np.histogram(probability[labels == label], bins)
            called = bins[:-1] + np.diff(bins) / 2 >= threshold
            right_call = called if label == 1 else ~called
            for right_side, alpha in ((True, 0.95), (False, 0.35)):
                shown = np.where(right_call == right_side, counts, 0)
                left.bar(
                    bins[:-1], sign * shown, np.diff(bins), align="edge",
                    color=style.CLASSES[label], alpha=alpha, lw=0,
                    label=word if right_side else None,
                )  # fmt: skip
        left.axvline(threshold, color=style.BLACK, lw=1.2)
        left.axhline(0, color=style.BLACK, lw=0.6)
        left.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")
        left.set(xlabel="malignant probability", ylabel="nodules", xlim=(0, 1))
        left.set_title(f"threshold {threshold:.2f}; pale: called wrongly")
        left.legend(loc="best")
        false_positive, true_positive = metrics.roc(labels, probability)
        right.plot(false_positive, true_positive, color=style.GREY)
        right.plot(1 - point.specificity, point.sensitivity, "o", color=style.BLACK, ms=8)
        right.vlines(1 - point.specificity, 0, point.sensitivity, color=style.BENIGN, lw=1)
        right.hlines(point.sensitivity, 0, 1 - point.specificity, color=style.MALIGNANT, lw=1)
        right.text(
            0.97, 0.06,
            f"sensitivity {point.sensitivity:.3f}\nspecificity {point.specificity:.3f}",
            ha="right", transform=right.transAxes,
        )  # fmt: skip
        _roc_axes(right, "", simulated)
    return style.describe(
        figure,
        f"Left: scores of malignant nodules upwards and benign ones downwards, cut at {threshold}. "
        f"Right: the ROC curve with that threshold's point at sensitivity {point.sensitivity:.3f} "
        f"and specificity {point.specificity:.3f}.",
    )


def auc_interval(chosen: Scores, resamples: int, seed: int) -> Interval:
    """AUC of `summary.scores` with its 95 % interval over patients."""
    labels, probabilities, patients = chosen
    return intervals.bootstrap_auc(
        labels, probabilities, groups=patients, resamples=resamples, seed=seed
    )


def _draw_roc(
    ax: Axes, label: str, chosen: Scores, colour: str, band: bool, resamples: int, seed: int
) -> None:
    labels, probabilities, patients = chosen
    grid, height, low, high = intervals.roc_band(
        labels, probabilities, groups=patients, resamples=resamples if band else 1, seed=seed
    )
    if len(probabilities) == 1:
        # One run has an exact staircase; only averages over repeats need the grid.
        false_positive, true_positive = metrics.roc(labels, probabilities[0])
    else:
        false_positive, true_positive = np.append(0, grid), np.append(0, height)
    line = "--" if colour == style.SIZE_ONLY else "-"
    ax.plot(false_positive, true_positive, color=colour, ls=line, label=label)
    if band:
        ax.fill_between(grid, low, high, color=colour, alpha=0.15, lw=0)


def _roc_axes(ax: Axes, title: str, simulated: bool) -> None:
    ax.set(
        xlabel="false positive rate (1 − specificity)", ylabel="sensitivity",
        xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal",
    )  # fmt: skip
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(ticker.MultipleLocator(0.2))
    titles(ax, title, simulated)


def titles(ax: Axes, title: str, simulated: bool) -> None:
    """Title on the left; on the right, where it is so, that the CT was simulated."""
    ax.set_title(title)
    if simulated:
        ax.set_title("simulated CT", loc="right", fontweight="normal", color=style.GREY, fontsize=9)


def first_with(runs: Mapping[str, pd.DataFrame], view: str) -> pd.DataFrame | None:
    """The first run's predictions that have this view; None when no run has it."""
    return next((p for p in runs.values() if (p["view"].astype(str) == view).any()), None)
