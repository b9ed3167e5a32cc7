"""ROC curves with their bands, what one threshold does, calibration, and values by view or size.

Everything starts from predictions as `evaluation.crossval.run` returns them, or from intervals
already computed. Bootstraps are over patients, with `resamples`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.calibration import Calibration
from labkit.evaluation.statistics import DEFAULT_THRESHOLD, RESAMPLES, Interval, scores
from labkit.plots import style
from labkit.plots.style import Arrays, Drawn, Look, Tables, method_colours, titles, view_name


@style.figure
def roc_figure(runs: Tables, *, resamples: int = RESAMPLES, simulated: bool = False) -> Drawn:
    """Draw ROC curves of several methods by name, AUC and 95 % interval.

    `runs`: name -> predictions. Curves are pooled over folds (and averaged over repeats); a band
    holds at each false positive rate by itself. Size alone, of the first run that has it, has none,
    to keep the figure legible.
    """
    drawn = _with_size(runs, "fused")
    colours = method_colours(drawn)
    figure, ax = style.subplots(size=(5.6, 5.2))
    for name, (table, (view,)) in drawn.items():
        labels, found, patients = scores(table, view)
        fused = view == "fused"
        how = Look(groups=patients, resamples=resamples if fused else 1)
        grid, height, *ends = statistics.roc_band(labels, found, **how)
        # One run has an exact staircase; only averages over repeats need the grid.
        once = statistics.roc(labels, found[0]) if len(found) == 1 else None
        x, y = once or (np.append(0, grid), np.append(0, height))
        look = Look(label=f"{name}: {_auc(table, view, resamples)}", ls="-" if fused else "--")
        style.banded(ax, x, y, (grid, *ends) if fused else None, colours[name], **look)
    roc_axes(ax, simulated)
    ax.legend(loc="lower right", title="AUC (95 % interval over patients)")
    return figure


def roc_axes(ax: Axes, simulated: bool = False) -> None:
    """Make axes those of ROC curves, with the diagonal of chance."""
    ax.plot([0, 1], [0, 1], color=style.GREY, lw=0.8, ls=":", zorder=1)
    ax.set(xlabel="false positive rate (1 − specificity)", ylabel="sensitivity")
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(ticker.MultipleLocator(0.2))
    titles(ax, ax.get_title("left"), simulated)


@style.figure
def operating_point_figure(
    predictions: pd.DataFrame, threshold: float = DEFAULT_THRESHOLD, *, simulated: bool = False
) -> Drawn:
    """Draw the two classes' scores, cut by a threshold, and its point on the ROC curve.

    A score (averaged over repeats) at or above the threshold is called malignant.
    """
    labels, runs, _ = scores(predictions, "fused")
    probability = runs.mean(axis=0)
    point = statistics.sensitivity_specificity(labels, probability, threshold)
    figure, (left, right) = style.subplots(1, 2, (8.4, 3.9), width_ratios=[1.15, 1])
    bins = np.linspace(0, 1, 26)
    for label, sign, word in ((1, 1, "malignant"), (0, -1, "benign")):
        own = probability[labels == label]
        is_right = (own >= threshold) == bool(label)
        for part, alpha, name in ((own[is_right], 0.95, word), (own[~is_right], 0.35, None)):
            look = Look(color=style.CLASSES[label], alpha=alpha, label=name)
            left.hist(part, bins, weights=np.full(len(part), sign), **look)
    left.axvline(threshold, color=style.BLACK, lw=1.2)
    left.axhline(0, color=style.BLACK, lw=0.6)
    left.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")
    left.set(xlabel="malignant probability", ylabel="nodules", xlim=(0, 1))
    left.set_title(f"threshold {threshold:.2f}; pale: called wrongly")
    left.legend(loc="best")
    x, y = 1 - point.specificity, point.sensitivity
    right.plot(*statistics.roc(labels, probability), color=style.GREY)
    right.plot(x, y, "o", color=style.BLACK, ms=8)
    right.vlines(x, 0, y, color=style.BENIGN, lw=1)
    right.hlines(y, 0, x, color=style.MALIGNANT, lw=1)
    text = f"sensitivity {y:.3f}\nspecificity {point.specificity:.3f}"
    right.text(0.97, 0.06, text, ha="right", transform=right.transAxes)
    roc_axes(right, simulated)
    return figure


def threshold_slider(predictions: pd.DataFrame, *, simulated: bool = False) -> Any:
    """Draw `operating_point_figure` under a slider that moves the threshold, for JupyterLab."""
    try:
        import ipywidgets
    except ImportError:
        raise InputError(
            "sliders need ipywidgets: pip install ipywidgets; without it, change the threshold "
            "of roc.operating_point_figure and run the cell again"
        ) from None

    def draw(threshold: float) -> None:
        style.show(operating_point_figure(predictions, threshold, simulated=simulated))

    slider = ipywidgets.FloatSlider(DEFAULT_THRESHOLD, min=0.0, max=1.0, step=0.01)
    slider.continuous_update = False
    return ipywidgets.VBox([slider, ipywidgets.interactive_output(draw, {"threshold": slider})])


@style.figure
def reliability_figure(
    methods: Mapping[str, Calibration], *, simulated: bool = False, title: str = ""
) -> Drawn:
    """Draw the share of malignant nodules against predicted probability, a panel a method.

    Dots stand for bins of equally many predictions with their 95 % intervals, the diagonal for
    perfect calibration, a bar at the foot for the probabilities that each bin holds.
    """
    n, colours = len(methods), method_colours(methods)
    figure, panels = style.panels(n, n, 0.7 + 3.1 * n, 3.9, sharey=True)
    for ax, (name, found) in zip(panels, methods.items(), strict=True):
        colour, table = colours[name], found.table
        ax.plot([0, 1], [0, 1], color=style.GREY, lw=0.8, ls=":")
        ax.vlines(table["predicted"], table["low"], table["high"], color=colour, lw=1.2)
        ax.plot(table["predicted"], table["observed"], "o-", color=colour, lw=0.8)
        lows, highs = (table[end].to_numpy() for end in ("lowest", "highest"))
        edges = [lows[0], *((highs[:-1] + lows[1:]) / 2), highs[-1]]
        for k, span in enumerate(pairwise(edges)):
            ax.axvspan(*span, ymax=0.03, color=colour, alpha=0.25 if k % 2 else 0.6, lw=0)
        chance, most = found.error_if_calibrated
        text = (
            f"Brier {found.brier}\nerror {found.error.value:.3f}; by chance alone\n"
            f"{chance:.3f} (95 % of times below {most:.3f})"
        )
        ax.text(0.04, 0.97, text, transform=ax.transAxes, va="top", fontsize=8)
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.04, 1.28), aspect="equal")
        ax.set(xticks=np.linspace(0, 1, 6), yticks=np.linspace(0, 1, 6))
        ax.set_xlabel("predicted probability")
        titles(ax, name, simulated)
    panels[0].set_ylabel("share malignant, with 95 % interval")
    figure.suptitle(title)
    return figure


@style.figure
def size_bands_figure(table: pd.DataFrame, *, simulated: bool = False, title: str = "") -> Drawn:
    """Draw the AUC in every band of sizes (`evaluation.size.by_size`), with 95 % intervals.

    A colour is a method; a hollow marker has no interval: too few nodules of a class.
    """
    columns, found = ["method", "band", "auc", "auc_low", "auc_high"], dict[str, Any]()
    for method, band, *ends in table[columns].itertuples(index=False):
        found.setdefault(method, {})[band] = Interval(*map(float, ends))
    counts = table.drop_duplicates("band").set_index("band")[["nodules", "malignant"]]
    figure, ax = style.subplots(size=(6.8, 1.2 + 0.75 * len(counts)))
    ax.axvline(0.5, color=style.GREY, lw=0.9, ls=":")
    style.interval_rows(ax, found, method_colours(found), 0.56)
    labels = [f"{b}\n{n - m} benign, {m} malignant" for b, n, m in counts.itertuples()]
    ax.set_yticks(range(len(counts)), labels)
    for line in range(1, len(counts)):
        ax.axhline(line - 0.5, color=style.GREY, lw=0.4)
    ax.set(xlim=(None, 1.01), xlabel="AUC, with 95 % interval over patients")
    titles(ax, title, simulated)
    figure.legend(loc="outside upper center", ncols=len(found))
    return figure, found


@style.figure
def view_auc_figure(runs: Tables, *, resamples: int = RESAMPLES, simulated: bool = False) -> Drawn:
    """Draw the AUC of every view, of the fusion and of size alone, each with its 95 % interval.

    `runs`: name -> predictions on the same nodules.
    """
    views = list(dict.fromkeys(v for of in runs.values() for v in of["view"].astype(str)))
    order = [view for view in views if view != "size_only"]
    asked = _with_size(runs, *order)
    found = {
        name: {view_name(view): _auc(run, view, resamples) for view in of}
        for name, (run, of) in asked.items()
    }
    height = 1.2 + 0.3 * (len(order) + 1) + 0.12 * len(order) * (len(runs) - 1)
    figure, ax = style.subplots(size=(6.4, height))
    style.interval_rows(ax, found, method_colours(asked))
    if "size only" in found:
        ax.axvline(found["size only"]["size only"].value, color=style.SIZE_ONLY, lw=0.8, ls=":")
    ax.set(xlabel="AUC, with 95 % interval over patients")
    titles(ax, "", simulated)
    if len(runs) > 1:
        figure.legend(loc="outside upper center", ncols=len(found))
    return figure, found


@style.figure
def weights_figure(weights: ArrayLike) -> Drawn:
    """Draw the views' fusion weights (Algorithm 1, line 7): a dot a fold, a bar for their mean.

    `weights`: (views,) of one model, or (folds, views); each row sums to one.
    """
    rows = np.atleast_2d(np.asarray(weights, dtype=float))
    if not np.allclose(rows.sum(axis=1), 1):
        raise InputError(f"weights {rows.shape} must be rows summing to one")
    names = [view_name(v).replace("diagonal ", "diag.\n") for v in range(rows.shape[1])]
    even = 1 / len(names)
    figure, ax = style.subplots(size=(6.4, 3.4))
    ax.bar(names, rows.mean(axis=0), color=style.SKY, width=0.7)
    if len(rows) > 1:
        ax.plot(names, rows.T, "o", color=style.BLACK, ms=3, alpha=0.6)
    ax.axhline(even, color=style.VERMILION, lw=1.2, ls="--")
    beside = Look(va="center", transform=ax.get_yaxis_transform())
    ax.text(1.01, even, f"1/{len(names)}", color=style.VERMILION, **beside)
    ax.grid(visible=False, axis="x")
    ax.set(ylabel="weight $\\omega_v$", ylim=(0, None))
    return figure, dict(zip(names, rows.mean(axis=0), strict=True))


@style.figure
def histograms_figure(
    samples: Arrays, references: Mapping[str, float], xlabel: str, reference: str, *,
    simulated: bool = False,
) -> Drawn:  # fmt: skip
    """Draw a histogram a name below one another, each with its mean and its reference.

    `references`: name -> a value called `reference`, to which the mean's distance is written.
    """
    bins = np.histogram_bin_edges(np.concatenate([np.ravel(v) for v in samples.values()]), 44)
    figure, axes = style.panels(len(samples), 1, 7.0, 1.5, sharex=True)
    for ax, (name, values) in zip(axes, samples.items(), strict=True):
        mean = float(np.mean(values))
        ax.hist(values, bins, color=style.SKY)
        ax.axvline(references[name], color=style.BLACK, lw=1.6, label=reference)
        ax.axvline(mean, color=style.VERMILION, lw=1.6, ls="--", label="mean")
        said = f"mean {mean:.4f}\n{mean - references[name]:+.4f}"
        ax.text(1.01, 0.9, said, transform=ax.transAxes, va="top", fontsize=9)
        ax.set(yticks=[])
        titles(ax, name, simulated and ax is axes[0])
    axes[-1].set_xlabel(xlabel)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@style.figure
def intervals_figure(
    rows: Mapping[str, Interval], *, xlabel: str, reference: float | None = None,
    notes: Mapping[str, str] | None = None, colours: Mapping[str, str] | None = None,
    simulated: bool = False,
) -> Drawn:  # fmt: skip
    """Draw values with their intervals below one another.

    Args:
        rows: name -> interval, from top to bottom.
        reference: draw a line here, such as 0 for "no difference".
        notes: name -> a few words to the right of the row, such as a p-value.
        colours: name -> colour; black by default.
    """
    if not rows:
        raise InputError("there is no interval to draw")
    notes, colours = notes or {}, colours or {}
    # Long names and notes stand beside the axes, which must not become narrower than its label.
    beside = max(map(len, rows)) + max(map(len, notes.values()), default=0)
    width = min(max(6.4, 3.9 + 0.085 * beside), 9.6)
    figure, ax = style.subplots(size=(width, 1.0 + 0.36 * len(rows)))
    if reference is not None:
        ax.axvline(reference, color=style.BLACK, lw=0.9)
    right = Look(transform=ax.get_yaxis_transform(), va="center", fontsize=9)
    for place, (name, interval) in enumerate(rows.items()):
        style.whisker(ax, place, interval, colours.get(name, style.BLACK), upright=False)
        ax.text(1.01, place, notes.get(name, ""), **right)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(5))  # labels of four decimals need room
    style.name_rows(ax, list(rows))
    ax.set(xlabel=xlabel)
    titles(ax, "", simulated)
    return figure, xlabel, rows


def differences_figure(
    comparisons: Mapping[str, Mapping[str, Any]], *, pooled: bool = False, simulated: bool = False
) -> Figure:
    """Draw paired differences of AUC (name -> `statistics.compare`) within folds, or `pooled`."""
    drawn = {name: (of["auc_difference"], of["delong"]) if pooled else
             (of["within_folds_difference"], of) for name, of in comparisons.items()}  # fmt: skip
    return intervals_figure(
        {name: Interval(**difference) for name, (difference, _) in drawn.items()},
        xlabel=f"difference of {'pooled AUC' if pooled else 'AUC within folds'}, with 95 % "
        "interval over patients", reference=0.0,
        notes={name: f"p = {test['p_value']:.2g}" for name, (_, test) in drawn.items()},
        simulated=simulated,
    )  # fmt: skip


def _with_size(runs: Tables, *views: str) -> dict[str, tuple[pd.DataFrame, tuple[str, ...]]]:
    """Add size alone, of the first run that has it; name -> predictions, and views to draw."""
    if not runs:
        raise InputError("there is no run to draw")
    found = {name: (table, views) for name, table in runs.items()}
    sized = [p for p in runs.values() if "size_only" in set(p["view"].astype(str))]
    return found | ({"size only": (sized[0], ("size_only",))} if sized else {})


def _auc(predictions: pd.DataFrame, view: str, resamples: int) -> Interval:
    labels, found, patients = scores(predictions, view)
    return statistics.bootstrap_auc(labels, found, groups=patients, resamples=resamples)
