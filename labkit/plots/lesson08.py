"""Lesson 08's figures: what alpha weighs while a network trains, and how luck chooses an alpha."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import ticker

from labkit.errors import InputError
from labkit.plots import style
from labkit.plots.style import Arrays, Drawn

_CLS, _IMG = style.VERMILION, style.PURPLE


@style.figure
def gradients_figure(
    watched: pd.DataFrame, alpha: float, floor: float | None = None, *, simulated: bool = False
) -> Drawn:
    """Draw both losses by epoch (`training.probes.watch`), and how hard each pulls at ShareNet.

    `alpha`: with which it was trained; `floor`: of the reconstruction's loss.
    """
    epoch = watched["epoch"] + 1
    figure, (sizes, pulls) = style.subplots(1, 2, (9.0, 3.8))
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
    style.titles(sizes, "how large the losses are", False)
    style.titles(pulls, "how hard they pull", simulated)
    for ax in (sizes, pulls):
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        ax.legend()
    cls, img, by_cls, by_img = (
        f"{watched[column].iloc[0]:.3f} to {watched[column].iloc[-1]:.3f}"
        for column in ("train_cls", "train_img", "cls", "img")
    )
    losses = f"Class loss {cls}, image loss {img}; gradient of the class {by_cls}, of the image"
    return figure, f"Losses and gradients by epoch, alpha {alpha:g}. {losses} {by_img}."


@style.figure
def luck_figure(found: Arrays, truth: float) -> Drawn:
    """Draw what studies report, by how they choose; the truth is what every choice is worth."""
    values = {name: np.asarray(v, dtype=float) for name, v in found.items()}
    bins = np.histogram_bin_edges(np.concatenate(list(values.values())), 44)
    shared = {"sharex": True, "sharey": True, "squeeze": False}
    figure, axes = style.subplots(len(values), 1, (7.0, 0.8 + 1.25 * len(values)), **shared)
    colours = (style.GREY, style.VERMILION, style.BLUE, style.PURPLE)
    for ax, (name, v), colour in zip(axes[:, 0], values.items(), colours, strict=False):
        ax.hist(v, bins=bins, color=colour, alpha=0.55)
        ax.axvline(truth, color=style.BLACK, lw=1)
        ax.axvline(v.mean(), color=colour, lw=2, ls="--")
        said = f"mean {v.mean():.4f}\n{v.mean() - truth:+.4f}"
        ax.text(0.99, 0.9, said, transform=ax.transAxes, ha="right", va="top", fontsize=9)
        ax.set(title=name, yticks=[])
    axes[-1, 0].set_xlabel("AUC; black: the truth, dashed: the mean of the studies")
    words = "; ".join(f"{name} {v.mean() - truth:+.4f}" for name, v in values.items())
    return figure, f"What studies report, against a truth of {truth:.4f}; on average: {words}."


@style.figure
def choices_figure(values: style.Values) -> Drawn:
    """Draw which alpha of fig7's values wins: on bootstrap samples, and in folds of the search."""
    search = values["search"]
    if search is None:
        raise InputError(f"{values['name']}: fewer than two values of alpha, nothing was chosen")
    share = {n.removeprefix("alpha "): s for n, s in search["best_in_share_of_bootstraps"].items()}
    nested = [f"{c['alpha']:g}" for c in search["nested_choices"]]
    best = f"{search['best']:g}"
    figure, ax = style.subplots(size=(6.4, 3.4))
    colours = [style.VERMILION if a == best else style.SKY for a in share]
    ax.bar(list(share), list(share.values()), color=colours, width=0.7)
    ax.plot([], [], "v", color=style.BLUE, label="chosen by a fold's inner validation")
    for i, alpha in enumerate(share):
        n = nested.count(alpha)
        at = [i + 0.12 * (k - (n - 1) / 2) for k in range(n)]
        ax.plot(at, [share[alpha] + 0.03] * n, "v", color=style.BLUE)
    ax.axhline(1 / len(share), color=style.GREY, ls=":", lw=1, label="all equally often")
    ax.set(xlabel="alpha", ylabel="share of bootstraps in which it is best")
    ax.set_ylim(0, max(share.values()) + 0.12)
    ax.grid(visible=False, axis="x")
    ax.legend(loc="upper right", bbox_to_anchor=(1, 1.12), ncols=2, fontsize=8)
    if values["cohort"]["simulated"]:
        ax.set_title("simulated CT", fontweight="normal", color=style.GREY, fontsize=9)
    said = "; ".join(f"alpha {a} in {s:.0%}" for a, s in share.items())
    chosen = f"Best on the sample itself: {best}. Chosen fold by fold: {', '.join(nested)}"
    return figure, f"Best on bootstrap samples: {said}. {chosen}."
