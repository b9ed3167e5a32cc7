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
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.calibration import Calibration
from labkit.evaluation.statistics import Interval, scores
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
    threshold: float = statistics.DEFAULT_THRESHOLD,
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
    point = statistics.sensitivity_specificity(labels, probability, threshold)
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
        false_positive, true_positive = statistics.roc(labels, probability)
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
    return statistics.bootstrap_auc(
        labels, probabilities, groups=patients, resamples=resamples, seed=seed
    )


def _draw_roc(
    ax: Axes, label: str, chosen: Scores, colour: str, band: bool, resamples: int, seed: int
) -> None:
    labels, probabilities, patients = chosen
    grid, height, low, high = statistics.roc_band(
        labels, probabilities, groups=patients, resamples=resamples if band else 1, seed=seed
    )
    if len(probabilities) == 1:
        # One run has an exact staircase; only averages over repeats need the grid.
        false_positive, true_positive = statistics.roc(labels, probabilities[0])
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


# Reliability diagrams: whether probabilities come true.


def reliability_figure(
    methods: Mapping[str, Calibration], *, simulated: bool = False, title: str = ""
) -> Figure:
    """Share of malignant nodules against predicted probability, a panel a method.

    Args:
        methods: name -> what `evaluation.calibration.calibration` returns.
        simulated: say that the images were simulated.
        title: above the panels.

    Returns:
        Dots for bins of equally many predictions with their 95 % intervals, the diagonal of perfect
        calibration, and a bar at the foot for the probabilities that each bin holds.

    Raises:
        InputError: nothing to draw.
    """
    if not methods:
        raise InputError("there is no calibration to draw")
    colours = method_colours(list(methods))
    words = []
    with style.house_style():
        figure = Figure(figsize=(0.7 + 3.1 * len(methods), 3.9), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(methods), sharey=True))
        for ax, (name, found) in zip(panels, methods.items(), strict=True):
            colour = style.SIZE_ONLY if name.lower().startswith("size") else colours[name]
            table = found.table
            ax.plot([0, 1], [0, 1], color=style.GREY, lw=0.8, ls=":")
            ax.vlines(table["predicted"], table["low"], table["high"], color=colour, lw=1.2)
            ax.plot(table["predicted"], table["observed"], "o-", color=colour, lw=0.8)
            shades = np.where(np.arange(len(table)) % 2, 0.25, 0.6)
            edges = _edges(table["lowest"].to_numpy(), table["highest"].to_numpy())
            for left, right, shade in zip(edges[:-1], edges[1:], shades, strict=True):
                ax.axvspan(left, right, ymax=0.03, color=colour, alpha=shade, lw=0)
            chance, most = found.error_if_calibrated
            ax.text(
                0.04, 0.97,
                f"Brier {found.brier}\nerror {found.error.value:.3f}; by chance alone\n"
                f"{chance:.3f} (95 % of times below {most:.3f})",
                transform=ax.transAxes, va="top", fontsize=8,
            )  # fmt: skip
            ax.set(xlim=(-0.02, 1.02), ylim=(-0.04, 1.28), aspect="equal")
            ax.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
            ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
            ax.set_xlabel("predicted probability")
            titles(ax, name, simulated)
            worst = table.loc[(table["observed"] - table["predicted"]).abs().idxmax()]
            words.append(
                f"{name}: Brier score {found.brier}, calibration error {found.error.value:.3f} "
                f"where chance alone would give {chance:.3f}; furthest off at predicted "
                f"{worst['predicted']:.2f}, observed {worst['observed']:.2f}"
            )
        panels[0].set_ylabel("share malignant, with 95 % interval")
        if title:
            figure.suptitle(title)
    return style.describe(figure, "Reliability diagram. " + ". ".join(words) + ".")


def _edges(lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """Where one bin's probabilities end and the next one's begin."""
    return np.concatenate([lowest[:1], (highest[:-1] + lowest[1:]) / 2, highest[-1:]])


# Performance by size, several methods beside each other.


_WORDS = {"auc": "AUC", "sensitivity": "sensitivity", "specificity": "specificity"}


def size_bands_figure(
    table: pd.DataFrame, metric: str = "auc", *, simulated: bool = False, title: str = ""
) -> Figure:
    """A metric in every band of sizes, with 95 % intervals, a colour a method.

    Args:
        table: what `evaluation.bands.by_size` returns.
        metric: "auc", "sensitivity" or "specificity".
        simulated: say that the images were simulated.
        title: above the axes.

    Returns:
        A row a band with its counts. A hollow marker has no interval: too few nodules of a class.

    Raises:
        InputError: an unknown metric, or an empty table.
    """
    if metric not in _WORDS:
        raise InputError(f"metric must be one of {', '.join(_WORDS)}, not {metric!r}")
    if table.empty:
        raise InputError("there are no bands to draw")
    methods = list(dict.fromkeys(table["method"]))
    names = list(dict.fromkeys(table["band"]))
    colours = method_colours(methods)
    step = 0.56 / max(1, len(methods) - 1) if len(methods) > 1 else 0.0
    words = []
    with style.house_style():
        figure = Figure(figsize=(6.8, 1.2 + 0.75 * len(names)), layout="constrained")
        ax = figure.subplots()
        if metric == "auc":
            ax.axvline(0.5, color=style.GREY, lw=0.9, ls=":")
        for k, method in enumerate(methods):
            colour = style.SIZE_ONLY if method.lower().startswith("size") else colours[method]
            marker = "D" if colour == style.SIZE_ONLY else "o"
            rows = table[table["method"] == method].set_index("band").loc[names]
            place = np.arange(len(names)) + step * (k - (len(methods) - 1) / 2)
            value, low, high = (
                rows[metric + end].to_numpy(dtype=float) for end in ("", "_low", "_high")
            )
            sure = np.isfinite(low)
            ax.hlines(place[sure], low[sure], high[sure], color=colour, lw=1.4)
            ax.plot(value[sure], place[sure], marker, color=colour, label=method)
            ax.plot(value[~sure], place[~sure], marker, color=colour, mfc="none")
            words += [
                f"{method} {band} {v:.3f}" + (f" ({a:.3f} to {b:.3f})" if s else ", no interval")
                for band, v, a, b, s in zip(names, value, low, high, sure, strict=True)
                if np.isfinite(v)
            ]
        counts = table.drop_duplicates("band").set_index("band")[["nodules", "malignant"]]
        labels = [
            f"{band}\n{nodules - malignant} benign, {malignant} malignant"
            for band, (nodules, malignant) in zip(names, counts.to_numpy(dtype=int), strict=True)
        ]
        ax.set_yticks(range(len(names)), labels)
        ax.set_ylim(len(names) - 0.5, -0.5)
        for line in range(1, len(names)):
            ax.axhline(line - 0.5, color=style.GREY, lw=0.4)
        ax.grid(visible=False, axis="y")
        ax.set(xlim=(None, 1.01), xlabel=f"{_WORDS[metric]}, with 95 % interval over patients")
        titles(ax, title, simulated)
        figure.legend(loc="outside upper center", ncols=len(methods))
    return style.describe(figure, f"{_WORDS[metric]} by size: " + "; ".join(words) + ".")


# Figures of values with their intervals: AUC by view, fusion weights, paired differences.
#
# Everything starts from predictions as `evaluation.crossval.run` returns them, or from intervals
# already computed. Each function returns a Figure that belongs to nobody: show it or save it.


def view_auc_figure(
    runs: Mapping[str, pd.DataFrame],
    *,
    resamples: int = 1000,
    seed: int = 0,
    simulated: bool = False,
    title: str = "",
) -> Figure:
    """AUC of every view, of the fusion and of size alone, each with its 95 % interval.

    Args:
        runs: name -> predictions on the same nodules.
        resamples: of the bootstrap over patients.
        seed: of the bootstrap.
        simulated: say that the images were simulated.
        title: above the axes.
    """
    if not runs:
        raise InputError("there is no run to take AUCs from")
    first = next(iter(runs.values()))
    order = [str(v) for v in first["view"].astype(str).unique() if str(v) != "size_only"]
    colours = method_colours(list(runs))
    words: list[str] = []
    with style.house_style():
        height = 1.2 + 0.3 * (len(order) + 1) + 0.12 * len(order) * (len(runs) - 1)
        figure = Figure(figsize=(6.4, height), layout="constrained")
        ax = figure.subplots()
        step = 0.5 / max(1, len(runs) - 1) if len(runs) > 1 else 0.0
        for k, (name, predictions) in enumerate(runs.items()):
            shift = step * (k - (len(runs) - 1) / 2)
            for row, view in enumerate(order):
                auc = auc_interval(scores(predictions, view), resamples, seed)
                marker, label = "s" if view == "fused" else "o", name if row == 0 else None
                _whisker(ax, auc, row + shift, colours[name], marker, label)
                words.append(f"{name} {view_name(view)} {auc}")
        names = [view_name(v) for v in order]
        reference = first_with(runs, "size_only")
        if reference is not None:
            auc = auc_interval(scores(reference, "size_only"), resamples, seed)
            _whisker(ax, auc, len(order), style.SIZE_ONLY, "D", None)
            ax.axvline(auc.value, color=style.SIZE_ONLY, lw=0.8, ls=":")
            names.append("size only")
            words.append(f"size only {auc}")
        ax.set_yticks(range(len(names)), names)
        ax.invert_yaxis()
        ax.grid(visible=False, axis="y")
        ax.set(xlabel="AUC, with 95 % interval over patients")
        titles(ax, title, simulated)
        if len(runs) > 1:
            figure.legend(loc="outside upper center", ncols=len(runs))
    return style.describe(figure, "AUC with 95 % interval by view: " + "; ".join(words) + ".")


def weights_figure(weights: ArrayLike, views: tuple[int, ...] = tuple(range(9))) -> Figure:
    """Fusion weights of the views (Algorithm 1, line 7): a dot a fold, a bar for their mean.

    Args:
        weights: (views,) of one model, or (folds, views); each row sums to one.
        views: which views they are of.
    """
    rows = np.atleast_2d(np.asarray(weights, dtype=float))
    if rows.shape[1] != len(views) or not np.allclose(rows.sum(axis=1), 1):
        raise InputError(f"weights {rows.shape} must be {len(views)} a row, summing to one")
    with style.house_style():
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        ax = figure.subplots()
        place = np.arange(len(views))
        ax.bar(place, rows.mean(axis=0), color=style.SKY, width=0.7)
        if len(rows) > 1:
            for row in rows:
                ax.plot(place, row, "o", color=style.BLACK, ms=3, alpha=0.6)
        ax.axhline(1 / len(views), color=style.VERMILION, lw=1.2, ls="--")
        ax.text(1.01, 1 / len(views), f"1/{len(views)}", color=style.VERMILION, va="center",
                transform=ax.get_yaxis_transform())  # fmt: skip
        ax.set_xticks(place, [view_name(v).replace("diagonal ", "diag.\n") for v in views])
        ax.grid(visible=False, axis="x")
        ax.set(ylabel="weight $\\omega_v$", ylim=(0, None))
    return style.describe(
        figure,
        f"Fusion weights of {len(views)} views, between {rows.min():.3f} and {rows.max():.3f}; "
        f"equal weights would be {1 / len(views):.3f}.",
    )


def intervals_figure(
    rows: Mapping[str, Interval],
    *,
    xlabel: str,
    reference: float | None = None,
    notes: Mapping[str, str] | None = None,
    colours: Mapping[str, str] | None = None,
    simulated: bool = False,
    title: str = "",
) -> Figure:
    """Values with their intervals below one another, for differences and for interval widths.

    Args:
        rows: name -> interval, from top to bottom.
        xlabel: the quantity and its unit.
        reference: draw a line here, such as 0 for "no difference".
        notes: name -> a few words to the right of the row, such as a p-value.
        colours: name -> colour; black by default.
        simulated: say that the images were simulated.
        title: above the axes.
    """
    if not rows:
        raise InputError("there is no interval to draw")
    with style.house_style():
        # Long names and notes stand beside the axes, which must not become narrower than its label.
        beside = max(map(len, rows)) + max(map(len, (notes or {}).values()), default=0)
        width = min(max(6.4, 3.9 + 0.085 * beside), 9.6)
        figure = Figure(figsize=(width, 1.0 + 0.36 * len(rows)), layout="constrained")
        ax = figure.subplots()
        if reference is not None:
            ax.axvline(reference, color=style.BLACK, lw=0.9)
        for place, (name, interval) in enumerate(rows.items()):
            _whisker(ax, interval, place, (colours or {}).get(name, style.BLACK), "o", None)
            note = (notes or {}).get(name, "")
            ax.text(1.01, place, note, transform=ax.get_yaxis_transform(), va="center", fontsize=9)
        ax.xaxis.set_major_locator(MaxNLocator(5))  # labels of four decimals need room
        ax.set_yticks(range(len(rows)), list(rows))
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.grid(visible=False, axis="y")
        ax.set(xlabel=xlabel)
        titles(ax, title, simulated)
    words = "; ".join(f"{name} {interval}" for name, interval in rows.items())
    return style.describe(figure, f"{xlabel}: {words}.")


def differences_figure(
    comparisons: Mapping[str, Mapping[str, Any]], *, simulated: bool = False, title: str = ""
) -> Figure:
    """Paired AUC differences with bootstrap intervals and DeLong's p-values.

    Args:
        comparisons: name -> what `evaluation.summary.compare` returns.
        simulated: say that the images were simulated.
        title: above the axes.
    """
    rows = {name: Interval(**c["auc_difference"]) for name, c in comparisons.items()}
    notes = {name: f"p = {c['delong']['p_value']:.2g}" for name, c in comparisons.items()}
    return intervals_figure(
        rows, xlabel="difference of AUC, with 95 % interval over patients", reference=0.0,
        notes=notes, simulated=simulated, title=title,
    )  # fmt: skip


def _whisker(
    ax: Axes, interval: Interval, place: float, colour: str, marker: str, label: str | None
) -> None:
    ax.plot([interval.low, interval.high], [place, place], color=colour, lw=1.4)
    ax.plot(interval.value, place, marker, color=colour, label=label)
