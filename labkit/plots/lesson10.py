"""Lesson 10's figures: what l2 and dropout do to a network, and to its AUC."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from labkit.errors import InputError
from labkit.evaluation.statistics import Interval
from labkit.models.mtcnn import MTCNN, STCNN
from labkit.paper.declared import MARGIN
from labkit.plots import style
from labkit.plots.paper import by_l2_and_dropout, experiment_title
from labkit.plots.style import Drawn, Look


@style.figure
def filters_figure(networks: Mapping[str, MTCNN | STCNN], *, simulated: bool = False) -> Drawn:
    """Draw the filters of the first layer, a row a network, all on one grey scale.

    The same filter has the same column in all rows, in the order of its size in the first network,
    so that networks of one seed can be compared filter by filter.
    """
    filters = {
        name: network.get_parameter("share.0.weight").detach().float().cpu().numpy()[:, 0]
        for name, network in networks.items()
    }
    first = next(iter(filters.values()))
    order = np.argsort(-np.square(first).sum(axis=(1, 2)))
    reach = max(float(np.abs(first).max()), 1e-6)
    sums = {name: f"{np.square(of).sum():.2f}" for name, of in filters.items()}
    figure, axes = style.subplots(len(filters), 1, (8.9, 0.45 + 0.4 * len(filters)), squeeze=False)
    for ax, (name, of) in zip(axes[:, 0], filters.items(), strict=True):
        apart = np.pad(of[order], ((0, 0), (0, 0), (0, 1)), constant_values=np.nan)
        style.show_ct(ax, np.hstack([*apart]), -reach, reach)
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        ax.text(1.01, 0.5, sums[name], transform=ax.transAxes, va="center", fontsize=9)
    axes[0, 0].set_title("$\\Sigma w^2$", loc="right", **style.PLAIN)
    scale = f"{len(first)} filters of the first layer, black {-reach:.1f} to white {reach:.1f}"
    scale += ", trained on simulated CT" * simulated
    figure.suptitle(scale, x=0.01, ha="left", **style.PLAIN)
    return figure, sums


@style.figure
def gaps_figure(table: pd.DataFrame, *, simulated: bool = False) -> Drawn:
    """Draw networks' classification loss and AUC on the nodules they learnt from and on others.

    `table`: a row a network; columns in two levels, ("loss" or "auc", nodules), such as "trained
    on", "validation", "held out": drawn from hollow to full.
    """
    markers = {"trained on": ("o", "white"), "validation": ("v", style.SKY), "held out": ("o", "")}
    figure, axes = style.subplots(1, 2, (8.6, 1.3 + 0.34 * len(table)), sharey=True)
    words = Look(loss="classification loss, nats", auc="AUC")
    for ax, (of, xlabel) in zip(axes, words.items(), strict=True):
        for place, (name, row) in enumerate(table[of].iterrows()):
            (colour,) = style.method_colours([str(name)[:2]]).values()
            ax.plot([row.min(), row.max()], [place] * 2, color=colour, lw=1.2, zorder=1)
            for nodules, value in row.items():
                marker, face = markers.get(str(nodules), ("s", "white"))
                look = Look(mfc=face or colour, mec=style.BLACK if marker == "v" else colour)
                label = None if place else nodules
                ax.plot(value, place, marker, ms=6.5, color=colour, label=label, **look)
        ax.set_xlabel(xlabel)
        style.name_rows(ax, [str(name) for name in table.index])
    style.titles(axes[1], "", simulated)
    shown = axes[0].get_legend_handles_labels()
    figure.legend(*shown, loc="outside lower center", ncols=len(shown[1]))
    return figure, table.set_axis(table.columns.map(", ".join), axis=1)


@style.figure
def effects_figure(values: style.Values) -> Drawn:
    """Draw what l2 and dropout do to the AUC: fig5's paired differences to the plain network."""
    if not values["comparisons"]:
        raise InputError(f"{values['name']}: no comparison is finished, nothing to draw")
    pairs = {tuple(name.split(" less ")): pair for name, pair in values["comparisons"].items()}
    found = {
        label: Interval(**pair["auc_difference"])
        for (label, plain), pair in pairs.items()
        if label.startswith(f"{plain}, ")
    }
    figure, (left, right) = style.subplots(1, 2, (9.6, 4.8), sharey=True, width_ratios=[1.6, 1])
    by_l2_and_dropout(left, right, found)
    left.set(ylabel="AUC less the AUC of the same network\nas it is, with 95 % interval")
    for ax, title in ((left, "l2"), (right, "dropout")):
        ax.axhline(0, color=style.BLACK, lw=0.9)
        ax.axhspan(-MARGIN, MARGIN, color=style.GREY, alpha=0.12, lw=0)
        ax.set_title(title)
    experiment_title(figure, right, values)
    if (shown := left.get_legend_handles_labels())[0]:
        figure.legend(*shown, loc="outside lower left", ncols=len(shown[0]), fontsize=9)
    missing = f"not finished: {len(values['missing'])} variants" if values["missing"] else ""
    return figure, found, f"A grey margin of {MARGIN:g}", missing
