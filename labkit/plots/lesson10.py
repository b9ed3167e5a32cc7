"""Figures of lesson 10: what l2 and dropout do to a network, and to its AUC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import ArrayLike

from labkit.errors import InputError
from labkit.evaluation.statistics import MARGIN_AUC, Interval
from labkit.models.mtcnn import MTCNN, STCNN
from labkit.paper.declared import DROPOUTS, L2, dropout_label, l2_label
from labkit.paper.fig5 import effect
from labkit.plots import style
from labkit.plots.paper import dropout_axis, l2_axis
from labkit.plots.roc import titles

_LINES = (
    ("st", "share", style.ST, "ST-CNN, encoder"),
    ("mt", "both", style.MT, "MT-CNN, encoder and decoder"),
    ("mt", "share", style.SKY, "MT-CNN, encoder"),
    ("mt", "img", style.PURPLE, "MT-CNN, decoder"),
)


def filters_figure(networks: Mapping[str, MTCNN | STCNN], *, simulated: bool = False) -> Figure:
    """The filters of the first layer, a row a network, all on one grey scale.

    The same filter has the same column in all rows, in the order of its size in the first network,
    so that networks of one seed can be compared filter by filter.

    Args:
        networks: name -> network.
        simulated: say that they were trained on simulated images.
    """
    if not networks:
        raise InputError("there is no network whose filters to draw")
    filters = {
        name: network.get_parameter("share.0.weight").detach().float().cpu().numpy()[:, 0]
        for name, network in networks.items()
    }
    first = next(iter(filters.values()))
    order = np.argsort(-np.square(first).sum(axis=(1, 2)))
    reach = max(float(np.abs(first).max()), 1e-6)
    with style.house_style():
        close = ConstrainedLayoutEngine(wspace=0.01, hspace=0.01, w_pad=0.01)
        figure = Figure(figsize=(9.6, 0.55 + 0.52 * len(filters)), layout=close)
        axes = figure.subplots(len(filters), len(first), squeeze=False)
        for row, (name, of) in enumerate(filters.items()):
            for column, k in enumerate(order):
                style.show_ct(axes[row, column], of[k], low=-reach, high=reach)
            axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
            axes[row, -1].text(
                1.25, 0.5, f"{np.square(of).sum():.2f}", transform=axes[row, -1].transAxes,
                va="center", fontsize=9,
            )  # fmt: skip
        axes[0, -1].set_title("$\\Sigma w^2$", fontsize=9, loc="left", fontweight="normal")
        where = ", trained on simulated CT" if simulated else ""
        figure.suptitle(
            f"{len(first)} filters of the first layer, black {-reach:.1f} to white {reach:.1f}"
            f"{where}",
            x=0.01, ha="left", fontsize=9, fontweight="normal",
        )  # fmt: skip
    words = "; ".join(f"{name} {np.square(of).sum():.2f}" for name, of in filters.items())
    return style.describe(
        figure, f"Filters of the first layer, a row a network. Sum of their squares: {words}."
    )


def masks_figure(
    drawn: Mapping[str, ArrayLike], without: Mapping[str, float], *, simulated: bool = False
) -> Figure:
    """What one network says of the same nodules under many draws of dropout, and without it.

    Args:
        drawn: nodule -> malignant probabilities, one a draw.
        without: nodule -> malignant probability with dropout switched off.
        simulated: say that the images were simulated.
    """
    if not drawn or set(drawn) != set(without):
        raise InputError("every nodule needs its draws, and its probability without dropout")
    values = {name: np.asarray(p, dtype=float) for name, p in drawn.items()}
    bins = np.linspace(0, 1, 51).tolist()
    with style.house_style():
        figure = Figure(figsize=(7.0, 0.7 + 0.95 * len(values)), layout="constrained")
        axes = figure.subplots(len(values), 1, sharex=True, squeeze=False)[:, 0]
        for ax, (name, p) in zip(axes, values.items(), strict=True):
            ax.hist(p, bins=bins, color=style.SKY, label="with dropout, a draw each")
            ax.axvline(without[name], color=style.BLACK, lw=1.6, label="without")
            ax.axvline(p.mean(), color=style.VERMILION, lw=1.4, ls="--", label="mean of the draws")
            titles(ax, name, simulated and ax is axes[0])
            ax.set_yticks([])
            ax.grid(visible=False, axis="y")
        axes[-1].set(xlabel="probability of malignant", xlim=(0, 1))
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8
        )
    words = "; ".join(
        f"{name}: {p.min():.2f} to {p.max():.2f}, mean {p.mean():.2f}, without {without[name]:.2f}"
        for name, p in values.items()
    )
    return style.describe(figure, f"Malignant probabilities under dropout. {words}.")


def gaps_figure(table: pd.DataFrame, *, simulated: bool = False) -> Figure:
    """Classification loss and AUC of networks on the nodules they learnt from and on others.

    Args:
        table: one row a network, by name; columns in two levels, ("loss" or "auc", nodules),
            such as "trained on", "validation", "held out": drawn from hollow to full.
        simulated: say that the images were simulated.
    """
    if table.empty or set(table.columns.get_level_values(0)) != {"loss", "auc"}:
        raise InputError("the table needs a row a network, and the columns loss and auc")
    markers = {"trained on": ("o", "white"), "validation": ("v", style.SKY), "held out": ("o", "")}
    with style.house_style():
        figure = Figure(figsize=(8.6, 1.3 + 0.34 * len(table)), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for ax, of, words in zip(axes, ("loss", "auc"), ("classification loss, nats", "AUC"),
                                 strict=True):  # fmt: skip
            for place, (name, row) in enumerate(table[of].iterrows()):
                colour = style.ST if str(name).startswith("ST") else style.MT
                ax.plot([row.min(), row.max()], [place] * 2, color=colour, lw=1.2, zorder=1)
                for nodules, value in row.items():
                    marker, face = markers.get(str(nodules), ("s", "white"))
                    ax.plot(value, place, marker, color=colour, mfc=face or colour, ms=6.5,
                            mec=style.BLACK if marker == "v" else colour,
                            label=nodules if place == 0 else None)  # fmt: skip
            ax.set(xlabel=words)
            ax.grid(visible=False, axis="y")
        axes[0].set_yticks(range(len(table)), [str(name) for name in table.index])
        axes[0].set_ylim(len(table) - 0.5, -0.5)
        titles(axes[1], "", simulated)
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside lower center",
            ncols=table["loss"].shape[1],
        )  # fmt: skip
    words = "; ".join(
        f"{name}: loss {', '.join(f'{n} {v:.2f}' for n, v in row['loss'].items())}, "
        f"AUC {', '.join(f'{n} {v:.3f}' for n, v in row['auc'].items())}"
        for name, row in table.iterrows()
    )
    return style.describe(figure, f"Loss and AUC by network. {words}.")


def effects_figure(values: Mapping[str, Any]) -> Figure:
    """What l2 and dropout do to the AUC: paired differences to the same network without the change.

    Args:
        values: of fig5's JSON, finished or not.

    Raises:
        InputError: no comparison is finished.
    """
    if not values["comparisons"]:
        raise InputError(f"{values['name']}: no comparison is finished, nothing to draw")
    words: list[str] = []
    with style.house_style():
        figure = Figure(figsize=(9.6, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.6, 1])
        for k, (model, place, colour, name) in enumerate(_LINES):
            marks = {
                l2 * 1.16 ** (k - 1.5): effect(values, l2_label(model, l2, place)) for l2 in L2
            }
            _draw_effects(left, marks, colour, name)
            words += _in_words(values, [l2_label(model, l2, place) for l2 in L2])
        for model, colour, shift in (("st", style.ST, -0.08), ("mt", style.MT, 0.08)):
            labels = {i + shift: dropout_label(model, on) for i, on in enumerate(DROPOUTS)}
            marks = {x: effect(values, label) for x, label in labels.items()}
            _draw_effects(right, marks, colour, f"{model.upper()}-CNN", join=False)
            words += _in_words(values, list(labels.values()))
        l2_axis(left, "l2, weight of the squared weights")
        left.set(ylabel="AUC less the AUC of the same network\nas it is, with 95 % interval")
        dropout_axis(right, "dropout behind")
        for ax in (left, right):
            ax.axhline(0, color=style.BLACK, lw=0.9)
            ax.axhspan(-MARGIN_AUC, MARGIN_AUC, color=style.GREY, alpha=0.12, lw=0)
        titles(left, "l2", False)
        titles(right, "dropout", False)
        style.mark_kind(right, values["cohort"]["simulated"])
        if (shown := left.get_legend_handles_labels())[0]:
            figure.legend(*shown, loc="outside lower left", ncols=len(_LINES), fontsize=9)
    if values["missing"]:
        words.append(f"not finished: {len(values['missing'])} variants")
    return style.describe(
        figure, f"Differences of AUC; the band is a margin of {MARGIN_AUC:g}. {'; '.join(words)}."
    )


def _draw_effects(
    ax: Axes, marks: Mapping[float, Interval | None], colour: str, name: str, join: bool = True
) -> None:
    there = {x: d for x, d in marks.items() if d is not None}
    if not there:
        return
    if join:
        ax.plot(list(there), [d.value for d in there.values()], color=colour, lw=1, alpha=0.6)
    for i, (x, d) in enumerate(there.items()):
        ax.plot([x, x], [d.low, d.high], color=colour, lw=1.4)
        ax.plot(x, d.value, "o", color=colour, label=name if i == 0 else None)


def _in_words(values: Mapping[str, Any], labels: list[str]) -> list[str]:
    found = {label: effect(values, label) for label in labels}
    return [
        f"{label} {d.value:+.3f} ({d.low:+.3f} to {d.high:+.3f})"
        for label, d in found.items()
        if d is not None
    ]
