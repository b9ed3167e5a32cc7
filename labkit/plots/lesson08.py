"""Lesson 08's figures: what alpha weighs while a network trains, and how luck chooses an alpha."""

from __future__ import annotations

import pandas as pd
from matplotlib import ticker

from labkit.errors import InputError
from labkit.plots import style
from labkit.plots.paper import experiment_title
from labkit.plots.style import Drawn, Look


@style.figure
def gradients_figure(
    watched: pd.DataFrame, alpha: float, floor: float, *, simulated: bool = False
) -> Drawn:
    """Draw both losses by epoch, and how hard each pulls at ShareNet.

    `watched`: of `training.probes.watch`; `alpha`: with which it was trained; `floor`: of the
    reconstruction's loss.
    """
    by_epoch = watched.set_index(watched["epoch"] + 1).rename_axis("epoch")
    figure, (sizes, pulls) = style.subplots(1, 2, (9.0, 3.8))
    look = Look(style="o-", color=[style.VERMILION, style.PURPLE], title="how large the losses are")
    losses = {"train_cls": "class, $L_{cls}$", "train_img": "image, $L_{img}$"}
    by_epoch.rename(columns=losses)[[*losses.values()]].plot(ax=sizes, ylabel="loss, nats", **look)
    sizes.axhline(floor, color=style.GREY, ls="--", lw=1, label="floor of $L_{img}$")
    sizes.set_ylim(0, None)
    gradients = by_epoch[["cls", "img"]].set_axis(["class", "image"], axis=1)
    words = "norm of the gradient on ShareNet"
    gradients.plot(ax=pulls, logy=True, ylabel=words, **look | {"title": "how hard they pull"})
    scaled = Look(color=style.PURPLE, lw=1, ms=3, label=f"image, times alpha = {alpha:g}")
    pulls.plot(alpha * gradients["image"], "o--", **scaled)
    # No more exponents than there are decades, which are two.
    pulls.yaxis.set_major_formatter("{x:g}")
    pulls.yaxis.set_minor_formatter(ticker.NullFormatter())
    style.titles(pulls, "how hard they pull", simulated)
    for ax in (sizes, pulls):
        ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        ax.legend()
    return figure, watched[[*losses, "cls", "img"]].iloc[[0, -1]].set_axis(["at first", "at last"])


@style.figure
def choices_figure(values: style.Values) -> Drawn:
    """Draw which alpha of fig7's values wins: on bootstrap samples, and in folds of the search."""
    search = values["search"]
    if search is None:
        raise InputError(f"{values['name']}: fewer than two values of alpha, nothing was chosen")
    share = pd.Series(search["best_in_share_of_bootstraps"]).rename(lambda n: n.split(" ")[1])
    nested = pd.Series([f"{c['alpha']:g}" for c in search["nested_choices"]])
    best = f"{search['best']:g}"
    figure, ax = style.subplots(size=(6.4, 3.6))
    colours = [style.VERMILION if alpha == best else style.SKY for alpha in share.index]
    ax.bar(share.index, share, color=colours, width=0.7)
    # The choices of an alpha stand beside each other above its bar.
    aside = nested.groupby(nested).cumcount() - (nested.map(nested.value_counts()) - 1) / 2
    places = nested.map(share.index.get_loc) + 0.12 * aside
    look = Look(color=style.BLUE, label="chosen by a fold's inner validation")
    ax.plot(places, nested.map(share) + 0.03, "v", **look)
    ax.axhline(1 / len(share), color=style.GREY, ls=":", lw=1, label="all equally often")
    ax.set(xlabel="alpha", ylabel="share of bootstraps in which it is best")
    ax.set_ylim(0, share.max() + 0.12)
    ax.grid(visible=False, axis="x")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    experiment_title(figure, ax, values)
    return figure, share, f"best on the sample itself {best}, fold by fold {', '.join(nested)}"
