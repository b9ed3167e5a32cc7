"""ROC curves with their bands, what one threshold does, calibration, and values by view or size.

Everything starts from predictions as `evaluation.crossval.run` returns them, or from intervals
already computed. Bootstraps are over patients, with `resamples`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
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
from labkit.evaluation.statistics import DEFAULT_THRESHOLD, Interval, scores
from labkit.plots import style
from labkit.plots.style import Drawn, method_colours, titles, view_name


@style.figure
def roc_figure(runs: style.Tables, *, resamples: int = 1000, simulated: bool = False) -> Drawn:
    """Draw ROC curves of several methods (name -> predictions), AUC and 95 % interval.

    Curves are pooled over folds (and averaged over repeats); a band holds at each false positive
    rate by itself. Size alone, of the first run that has it, has none, to keep the figure legible.
    """
    _some(runs, "run to draw a ROC curve of")
    figure, ax = style.subplots(size=(5.6, 5.2))
    colours = method_colours(runs)
    drawn = {name: (scores(table, "fused"), colours[name], True) for name, table in runs.items()}
    if (reference := _first_with_size(runs)) is not None:
        drawn["size only"] = (scores(reference, "size_only"), style.SIZE_ONLY, False)
    words = []
    for name, (of, colour, shaded) in drawn.items():
        words.append(f"{name}: {_auc(of, resamples)}")
        labels, found, patients = of
        grid, height, low, high = statistics.roc_band(
            labels, found, groups=patients, resamples=resamples if shaded else 1
        )
        # One run has an exact staircase; only averages over repeats need the grid.
        once = statistics.roc(labels, found[0]) if len(found) == 1 else None
        x, y = once or (np.append(0, grid), np.append(0, height))
        line = "--" if colour == style.SIZE_ONLY else "-"
        ax.plot(x, y, color=colour, ls=line, label=words[-1])
        if shaded:
            ax.fill_between(grid, low, high, color=colour, alpha=0.15, lw=0)
    roc_axes(ax, simulated)
    ax.legend(loc="lower right", title="AUC (95 % interval over patients)", title_fontsize=9)
    said = "; ".join(words)
    return figure, f"ROC curves, sensitivity by false positive rate. AUC with interval: {said}."


def roc_axes(ax: Axes, simulated: bool = False) -> None:
    """Make axes those of ROC curves, with the diagonal of chance."""
    ax.plot([0, 1], [0, 1], color=style.GREY, lw=0.8, ls=":", zorder=1)
    ax.set(xlabel="false positive rate (1 − specificity)", ylabel="sensitivity")
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(ticker.MultipleLocator(0.2))
    titles(ax, "", simulated)


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
    called = bins[:-1] + np.diff(bins) / 2 >= threshold
    for label, sign, word in ((1, 1, "malignant"), (0, -1, "benign")):
        counts, _ = np.histogram(probability[labels == label], bins)
        for right_call, alpha in ((True, 0.95), (False, 0.35)):
            shown = np.where((called == bool(label)) == right_call, sign * counts, 0)
            look = {"color": style.CLASSES[label], "alpha": alpha, "lw": 0, "align": "edge"}
            left.bar(bins[:-1], shown, np.diff(bins), label=word if right_call else None, **look)
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
    said = text.replace("\n", ", ")
    return figure, f"Scores of both classes cut at {threshold}, and its point on the ROC: {said}."


def threshold_slider(predictions: pd.DataFrame, *, simulated: bool = False) -> Any:
    """Draw `operating_point_figure` under a slider that moves the threshold, for JupyterLab."""
    try:
        import ipywidgets
    except ImportError:
        raise InputError(
            "sliders need ipywidgets: pip install ipywidgets; without it, change the threshold "
            "of roc.operating_point_figure and run the cell again"
        ) from None

    def draw(threshold: float) -> bytes:
        image = io.BytesIO()
        figure = operating_point_figure(predictions, threshold, simulated=simulated)
        figure.savefig(image, format="png")
        return image.getvalue()

    slider = ipywidgets.FloatSlider(
        DEFAULT_THRESHOLD, min=0.0, max=1.0, step=0.01, description="threshold",
        continuous_update=False,
    )  # fmt: skip
    picture = ipywidgets.Image(value=draw(DEFAULT_THRESHOLD), format="png")
    slider.observe(lambda change: setattr(picture, "value", draw(change["new"])), names="value")
    return ipywidgets.VBox([slider, picture])


@style.figure
def reliability_figure(
    methods: Mapping[str, Calibration], *, simulated: bool = False, title: str = ""
) -> Drawn:
    """Draw the share of malignant nodules against predicted probability, a panel a method.

    Dots stand for bins of equally many predictions with their 95 % intervals, the diagonal for
    perfect calibration, a bar at the foot for the probabilities that each bin holds.
    """
    _some(methods, "calibration to draw")
    size = (0.7 + 3.1 * len(methods), 3.9)
    figure, (panels,) = style.subplots(1, len(methods), size, sharey=True, squeeze=False)
    words, colours = [], method_colours(methods)
    for ax, (name, found) in zip(panels, methods.items(), strict=True):
        colour, table = colours[name], found.table
        ax.plot([0, 1], [0, 1], color=style.GREY, lw=0.8, ls=":")
        ax.vlines(table["predicted"], table["low"], table["high"], color=colour, lw=1.2)
        ax.plot(table["predicted"], table["observed"], "o-", color=colour, lw=0.8)
        lowest, highest = table["lowest"].to_numpy(), table["highest"].to_numpy()
        edges = [lowest[0], *((highest[:-1] + lowest[1:]) / 2), highest[-1]]
        for k in range(len(table)):
            shade = 0.25 if k % 2 else 0.6
            ax.axvspan(edges[k], edges[k + 1], ymax=0.03, color=colour, alpha=shade, lw=0)
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
        worst = table.loc[(table["observed"] - table["predicted"]).abs().idxmax()]
        words.append(
            f"{name}: Brier score {found.brier}, calibration error {found.error.value:.3f}, "
            f"{chance:.3f} by chance alone; furthest off at predicted {worst['predicted']:.2f}, "
            f"observed {worst['observed']:.2f}"
        )
    panels[0].set_ylabel("share malignant, with 95 % interval")
    if title:
        figure.suptitle(title)
    return figure, "Reliability diagram. " + ". ".join(words) + "."


@style.figure
def size_bands_figure(table: pd.DataFrame, *, simulated: bool = False, title: str = "") -> Drawn:
    """Draw the AUC in every band of sizes (`evaluation.size.by_size`), with 95 % intervals.

    A colour is a method; a hollow marker has no interval: too few nodules of a class.
    """
    methods, bands = (list(table[column].unique()) for column in ("method", "band"))
    figure, ax = style.subplots(size=(6.8, 1.2 + 0.75 * len(bands)))
    ax.axvline(0.5, color=style.GREY, lw=0.9, ls=":")
    counts = table.drop_duplicates("band").set_index("band")[["nodules", "malignant"]]
    of_method: dict[str, dict[str, Interval]] = {name: {} for name in methods}
    for of in table.to_dict("records"):
        value = Interval(*(float(of[end]) for end in ("auc", "auc_low", "auc_high")))
        of_method[of["method"]][of["band"]] = value
    words = style.interval_rows(ax, of_method, method_colours(methods), 0.56)
    labels = [f"{b}\n{n - m} benign, {m} malignant" for b, n, m in counts.itertuples()]
    ax.set_yticks(range(len(bands)), labels)
    for line in range(1, len(bands)):
        ax.axhline(line - 0.5, color=style.GREY, lw=0.4)
    ax.set(xlim=(None, 1.01), xlabel="AUC, with 95 % interval over patients")
    titles(ax, title, simulated)
    figure.legend(loc="outside upper center", ncols=len(methods))
    return figure, f"AUC by size: {words}."


@style.figure
def view_auc_figure(runs: style.Tables, *, resamples: int = 1000, simulated: bool = False) -> Drawn:
    """Draw the AUC of every view, of the fusion and of size alone, each with its 95 % interval.

    `runs`: name -> predictions on the same nodules.
    """
    _some(runs, "run to take AUCs from")
    views = next(iter(runs.values()))["view"].astype(str).unique()
    order = [view for view in views if view != "size_only"]
    asked = {name: (run, order) for name, run in runs.items()}
    if (reference := _first_with_size(runs)) is not None:
        asked["size only"] = (reference, ["size_only"])
    found = {
        name: {view_name(view): _auc(scores(run, view), resamples) for view in of}
        for name, (run, of) in asked.items()
    }
    height = 1.2 + 0.3 * (len(order) + 1) + 0.12 * len(order) * (len(runs) - 1)
    figure, ax = style.subplots(size=(6.4, height))
    words = style.interval_rows(ax, found, method_colours(asked))
    if reference is not None:
        ax.axvline(found["size only"]["size only"].value, color=style.SIZE_ONLY, lw=0.8, ls=":")
    ax.set(xlabel="AUC, with 95 % interval over patients")
    titles(ax, "", simulated)
    if len(runs) > 1:
        figure.legend(loc="outside upper center", ncols=len(found))
    return figure, f"AUC with 95 % interval by view: {words}."


@style.figure
def weights_figure(weights: ArrayLike) -> Drawn:
    """Draw the views' fusion weights (Algorithm 1, line 7): a dot a fold, a bar for their mean.

    `weights`: (views,) of one model, or (folds, views); each row sums to one.
    """
    rows = np.atleast_2d(np.asarray(weights, dtype=float))
    if not np.allclose(rows.sum(axis=1), 1):
        raise InputError(f"weights {rows.shape} must be rows summing to one")
    figure, ax = style.subplots(size=(6.4, 3.4))
    n = rows.shape[1]
    place, even = np.arange(n), 1 / n
    ax.bar(place, rows.mean(axis=0), color=style.SKY, width=0.7)
    if len(rows) > 1:
        ax.plot(place, rows.T, "o", color=style.BLACK, ms=3, alpha=0.6)
    ax.axhline(even, color=style.VERMILION, lw=1.2, ls="--")
    beside = {"va": "center", "transform": ax.get_yaxis_transform()}
    ax.text(1.01, even, f"1/{n}", color=style.VERMILION, **beside)
    ax.set_xticks(place, [view_name(v).replace("diagonal ", "diag.\n") for v in range(n)])
    ax.grid(visible=False, axis="x")
    ax.set(ylabel="weight $\\omega_v$", ylim=(0, None))
    return figure, (
        f"Fusion weights of {n} views, between {rows.min():.3f} and {rows.max():.3f}; "
        f"equal weights would be {even:.3f}."
    )


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
    _some(rows, "interval to draw")
    notes, colours = notes or {}, colours or {}
    # Long names and notes stand beside the axes, which must not become narrower than its label.
    beside = max(map(len, rows)) + max(map(len, notes.values()), default=0)
    width = min(max(6.4, 3.9 + 0.085 * beside), 9.6)
    figure, ax = style.subplots(size=(width, 1.0 + 0.36 * len(rows)))
    if reference is not None:
        ax.axvline(reference, color=style.BLACK, lw=0.9)
    right = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": 9}
    for place, (name, interval) in enumerate(rows.items()):
        style.whisker(ax, place, interval, colours.get(name, style.BLACK), upright=False)
        ax.text(1.01, place, notes.get(name, ""), **right)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(5))  # labels of four decimals need room
    style.name_rows(ax, list(rows))
    ax.set(xlabel=xlabel)
    titles(ax, "", simulated)
    return figure, f"{xlabel}: {'; '.join(f'{name} {of}' for name, of in rows.items())}."


def differences_figure(
    comparisons: Mapping[str, Mapping[str, Any]], *, simulated: bool = False
) -> Figure:
    """Draw paired AUC differences (name -> `statistics.compare`), and DeLong's p-values."""
    return intervals_figure(
        {name: Interval(**of["auc_difference"]) for name, of in comparisons.items()},
        xlabel="difference of AUC, with 95 % interval over patients", reference=0.0,
        notes={name: f"p = {of['delong']['p_value']:.2g}" for name, of in comparisons.items()},
        simulated=simulated,
    )  # fmt: skip


def _some(found: Mapping[str, Any], what: str) -> None:
    if not found:
        raise InputError(f"there is no {what}")


def _first_with_size(runs: style.Tables) -> pd.DataFrame | None:
    return next((p for p in runs.values() if (p["view"].astype(str) == "size_only").any()), None)


def _auc(chosen: tuple[Any, Any, Any], resamples: int) -> Interval:
    labels, found, patients = chosen
    return statistics.bootstrap_auc(labels, found, groups=patients, resamples=resamples)
