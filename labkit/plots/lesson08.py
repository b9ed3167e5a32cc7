"""Figures of lesson 8: what alpha weighs while a network trains, and how luck chooses an alpha."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from labkit.errors import InputError
from labkit.plots import style
from labkit.plots.roc import titles

_CLS, _IMG = style.VERMILION, style.PURPLE


def pulls_figure(
    watched: pd.DataFrame, alpha: float, floor: float | None = None, *, simulated: bool = False
) -> Figure:
    """Both losses by epoch, and how hard each pulls at ShareNet.

    Args:
        watched: as `training.pulls.watch` returns it.
        alpha: with which it was trained.
        floor: of the reconstruction's loss, to be drawn.
        simulated: say that the images were simulated.
    """
    epoch = watched["epoch"] + 1
    with style.house_style():
        figure = Figure(figsize=(9.0, 3.8), layout="constrained")
        sizes, pulls = figure.subplots(1, 2)
        sizes.plot(epoch, watched["train_cls"], "o-", color=_CLS, label="class, $L_{cls}$")
        sizes.plot(epoch, watched["train_img"], "o-", color=_IMG, label="image, $L_{img}$")
        if floor is not None:
            sizes.axhline(floor, color=style.GREY, ls="--", lw=1, label="floor of $L_{img}$")
        sizes.set(ylabel="loss, nats", ylim=(0, None))
        pulls.plot(epoch, watched["cls"], "o-", color=_CLS, label="class")
        pulls.plot(epoch, watched["img"], "o-", color=_IMG, label="image")
        if alpha != 1:
            of = f"image, times alpha = {alpha:g}"
            pulls.plot(epoch, alpha * watched["img"], "o--", color=_IMG, lw=1, ms=3, label=of)
        pulls.set(yscale="log", ylabel="norm of the gradient on ShareNet")
        # No more exponents than there are decades, which are two.
        pulls.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: f"{y:g}"))
        pulls.yaxis.set_minor_formatter(ticker.NullFormatter())
        for ax, title in ((sizes, "how large the losses are"), (pulls, "how hard they pull")):
            ax.set_xlabel("epoch")
            ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
            ax.legend()
            titles(ax, title, simulated and ax is pulls)
    first, last = watched.iloc[0], watched.iloc[-1]
    return style.describe(
        figure,
        f"Losses and gradients by epoch, alpha {alpha:g}. Class loss {first['train_cls']:.3f} to "
        f"{last['train_cls']:.3f}, image loss {first['train_img']:.3f} to {last['train_img']:.3f}; "
        f"gradient of the class {first['cls']:.3f} to {last['cls']:.3f}, of the image "
        f"{first['img']:.3f} to {last['img']:.3f}.",
    )


def luck_figure(found: Mapping[str, ArrayLike], truth: float, *, xlabel: str = "AUC") -> Figure:
    """Where repeated studies end up, by how they choose; the truth is one and the same.

    Args:
        found: way of choosing -> what each study reports.
        truth: what every choice is worth.
        xlabel: the quantity.
    """
    values = {name: np.asarray(v, dtype=float) for name, v in found.items()}
    if not values:
        raise InputError("there is no study to draw")
    every = np.concatenate(list(values.values()))
    bins = np.linspace(every.min(), every.max(), 45).tolist()
    colours = (style.GREY, style.VERMILION, style.BLUE, style.PURPLE)
    with style.house_style():
        figure = Figure(figsize=(7.0, 0.8 + 1.25 * len(values)), layout="constrained")
        axes = np.atleast_1d(figure.subplots(len(values), 1, sharex=True, sharey=True))
        for ax, (name, v), colour in zip(axes, values.items(), colours, strict=False):
            ax.hist(v, bins=bins, color=colour, alpha=0.55)
            ax.axvline(truth, color=style.BLACK, lw=1)
            ax.axvline(v.mean(), color=colour, lw=2, ls="--")
            ax.set_title(name)
            said = f"mean {v.mean():.4f}\n{v.mean() - truth:+.4f}"
            ax.text(0.99, 0.9, said, transform=ax.transAxes, ha="right", va="top", fontsize=9)
            ax.set_yticks([])
            ax.grid(visible=False, axis="y")
        axes[-1].set_xlabel(f"{xlabel}; black: the truth, dashed: the mean of the studies")
    words = "; ".join(f"{name} {v.mean() - truth:+.4f}" for name, v in values.items())
    return style.describe(
        figure, f"What studies report, against a truth of {truth:.4f}; on average: {words}."
    )


def choices_figure(values: Mapping[str, Any]) -> Figure:
    """Which alpha wins: on bootstrap samples of patients, and in each fold of the nested search.

    Args:
        values: of fig7's JSON, with at least two values of alpha.
    """
    search = values["search"]
    if search is None:
        raise InputError(f"{values['name']}: fewer than two values of alpha, nothing was chosen")
    share = {n.removeprefix("alpha "): s for n, s in search["best_in_share_of_bootstraps"].items()}
    nested = [f"{c['alpha']:g}" for c in search["nested_choices"]]
    best = f"{search['best']:g}"
    with style.house_style():
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        ax = figure.subplots()
        colours = [style.VERMILION if a == best else style.SKY for a in share]
        ax.bar(range(len(share)), list(share.values()), color=colours, width=0.7)
        for i, alpha in enumerate(share):
            for k in range(nested.count(alpha)):
                label = "chosen by a fold's inner validation" if alpha == nested[0] else None
                ax.plot(i + 0.12 * (k - (nested.count(alpha) - 1) / 2), share[alpha] + 0.03, "v",
                        color=style.BLUE, label=label if k == 0 else None)  # fmt: skip
        even = 1 / len(share)
        ax.axhline(even, color=style.GREY, ls=":", lw=1, label="all equally often")
        ax.set_xticks(range(len(share)), list(share))
        ax.set(xlabel="alpha", ylabel="share of bootstraps in which it is best")
        ax.set_ylim(0, max(share.values()) + 0.12)
        ax.grid(visible=False, axis="x")
        ax.legend(loc="upper right", bbox_to_anchor=(1, 1.12), ncols=2, fontsize=8)
        if values["cohort"]["simulated"]:
            ax.set_title("simulated CT", loc="left", fontweight="normal", color=style.GREY,
                         fontsize=9)  # fmt: skip
    said = "; ".join(f"alpha {a} in {s:.0%}" for a, s in share.items())
    return style.describe(
        figure,
        f"Best on bootstrap samples: {said}. Best on the sample itself: {best}. Chosen by inner "
        f"validation, fold by fold: {', '.join(nested)}.",
    )
