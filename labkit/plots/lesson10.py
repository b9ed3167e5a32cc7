"""Lesson 10's figures: what l2 and dropout do to a network, and to its AUC."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.layout_engine import ConstrainedLayoutEngine

from labkit.errors import InputError
from labkit.evaluation.statistics import MARGIN_AUC, Interval
from labkit.models.mtcnn import MTCNN, STCNN
from labkit.plots import style
from labkit.plots.paper import by_l2_and_dropout
from labkit.plots.style import Arrays, Drawn


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
    sums = {name: f"{np.square(of).sum():.2f}" for name, of in filters.items()}
    first = next(iter(filters.values()))
    order = np.argsort(-np.square(first).sum(axis=(1, 2)))
    reach = max(float(np.abs(first).max()), 1e-6)
    size = (9.6, 0.55 + 0.52 * len(filters))
    figure, axes = style.subplots(len(filters), len(first), size, squeeze=False)
    figure.set_layout_engine(ConstrainedLayoutEngine(wspace=0.01, hspace=0.01, w_pad=0.01))
    for row, (name, of) in zip(axes, filters.items(), strict=True):
        for ax, k in zip(row, order, strict=True):
            style.show_ct(ax, of[k], -reach, reach)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        row[-1].text(1.25, 0.5, sums[name], transform=row[-1].transAxes, va="center", fontsize=9)
    axes[0, -1].set_title("$\\Sigma w^2$", fontsize=9, loc="left", fontweight="normal")
    scale = f"{len(first)} filters of the first layer, black {-reach:.1f} to white {reach:.1f}"
    scale += ", trained on simulated CT" * simulated
    figure.suptitle(scale, x=0.01, ha="left", fontsize=9, fontweight="normal")
    words = "; ".join(f"{name} {of}" for name, of in sums.items())
    return figure, f"Filters of the first layer, a row a network. Sum of their squares: {words}."


@style.figure
def masks_figure(drawn: Arrays, without: Mapping[str, float], *, simulated: bool = False) -> Drawn:
    """Draw a network's malignant probabilities of nodules under draws of dropout, and without."""
    size = (7.0, 0.7 + 0.95 * len(drawn))
    figure, axes = style.subplots(len(drawn), 1, size, sharex=True, squeeze=False)
    words = []
    for ax, (name, probabilities) in zip(axes[:, 0], drawn.items(), strict=True):
        p, plain = np.asarray(probabilities, dtype=float), without[name]
        ax.hist(p, np.linspace(0, 1, 51), color=style.SKY, label="with dropout, a draw each")
        ax.axvline(plain, color=style.BLACK, lw=1.6, label="without")
        ax.axvline(p.mean(), color=style.VERMILION, lw=1.4, ls="--", label="mean of the draws")
        style.titles(ax, name, simulated and ax is axes[0, 0])
        ax.set_yticks([])
        said = f"{p.min():.2f} to {p.max():.2f}, mean {p.mean():.2f}, without {plain:.2f}"
        words.append(f"{name}: {said}")
    axes[-1, 0].set(xlabel="probability of malignant", xlim=(0, 1))
    shown = axes[0, 0].get_legend_handles_labels()
    figure.legend(*shown, loc="outside lower center", ncols=3, fontsize=8)
    return figure, f"Malignant probabilities under dropout. {'; '.join(words)}."


@style.figure
def gaps_figure(table: pd.DataFrame, *, simulated: bool = False) -> Drawn:
    """Draw networks' classification loss and AUC on the nodules they learnt from and on others.

    `table`: a row a network; columns in two levels, ("loss" or "auc", nodules), such as "trained
    on", "validation", "held out": drawn from hollow to full.
    """
    markers = {"trained on": ("o", "white"), "validation": ("v", style.SKY), "held out": ("o", "")}
    figure, axes = style.subplots(1, 2, (8.6, 1.3 + 0.34 * len(table)), sharey=True)
    words = {"loss": "classification loss, nats", "auc": "AUC"}
    for ax, (of, xlabel) in zip(axes, words.items(), strict=True):
        for place, (name, row) in enumerate(table[of].iterrows()):
            ((_, colour),) = style.method_colours([str(name)[:2]]).items()
            ax.plot([row.min(), row.max()], [place] * 2, color=colour, lw=1.2, zorder=1)
            for nodules, value in row.items():
                marker, face = markers.get(str(nodules), ("s", "white"))
                edge, label = style.BLACK if marker == "v" else colour, None if place else nodules
                look = {"color": colour, "mfc": face or colour, "mec": edge, "label": label}
                ax.plot(value, place, marker, ms=6.5, **look)
        ax.set_xlabel(xlabel)
        style.name_rows(ax, [str(name) for name in table.index])
    style.titles(axes[1], "", simulated)
    shown = axes[0].get_legend_handles_labels()
    figure.legend(*shown, loc="outside lower center", ncols=table["loss"].shape[1])
    said = "; ".join(
        f"{name}: loss {', '.join(f'{n} {v:.2f}' for n, v in row['loss'].items())}, "
        f"AUC {', '.join(f'{n} {v:.3f}' for n, v in row['auc'].items())}"
        for name, row in table.iterrows()
    )
    return figure, f"Loss and AUC by network. {said}."


@style.figure
def effects_figure(values: style.Values) -> Drawn:
    """Draw what l2 and dropout do to the AUC: fig5's paired differences to the plain network."""
    if not values["comparisons"]:
        raise InputError(f"{values['name']}: no comparison is finished, nothing to draw")
    found = {}
    for name, pair in values["comparisons"].items():
        label, _, plain = name.partition(" less ")
        if label.startswith(f"{plain}, "):
            of = pair["auc_difference"]
            found[label] = Interval(of["value"], of["low"], of["high"])
    figure, (left, right) = style.subplots(1, 2, (9.6, 4.6), sharey=True, width_ratios=[1.6, 1])
    by_l2_and_dropout(left, right, found)
    left.set(ylabel="AUC less the AUC of the same network\nas it is, with 95 % interval")
    for ax, title in ((left, "l2"), (right, "dropout")):
        ax.axhline(0, color=style.BLACK, lw=0.9)
        ax.axhspan(-MARGIN_AUC, MARGIN_AUC, color=style.GREY, alpha=0.12, lw=0)
        ax.set_title(title)
    style.mark_kind(right, values["cohort"]["simulated"])
    if (shown := left.get_legend_handles_labels())[0]:
        figure.legend(*shown, loc="outside lower left", ncols=len(shown[0]), fontsize=9)
    words = [f"{n} {d.value:+.3f} ({d.low:+.3f} to {d.high:+.3f})" for n, d in found.items()]
    if values["missing"]:
        words.append(f"not finished: {len(values['missing'])} variants")
    return figure, f"Differences of AUC, and a margin of {MARGIN_AUC:g}. {'; '.join(words)}."
