"""Figures of values with their intervals: AUC by view, fusion weights, paired differences.

Everything starts from predictions as `evaluation.crossval.run` returns them, or from intervals
already computed. Each function returns a Figure that belongs to nobody: show it or save it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from labkit.errors import InputError
from labkit.evaluation.intervals import Interval
from labkit.evaluation.summary import scores
from labkit.plots import style
from labkit.plots.roc import auc_interval, first_with, method_colours, titles, view_name


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
