"""Figures of lesson 9: what a feature sees, what a layer costs, what is left to draw from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray

from labkit.models.mtcnn import IMAGE_SIZE
from labkit.models.receptive_field import central, receptive_field
from labkit.paper.declared import DEPTHS
from labkit.plots import style
from labkit.plots.roc import titles

_COLOURS = (style.YELLOW, style.SKY, style.GREEN, style.PURPLE, style.GREY)  # not the classes'
_PARTS = (style.SKY, style.ORANGE, style.YELLOW, style.GREEN)


def fields_figure(
    hu: ArrayLike, nodules: pd.DataFrame, *, mark: str = style.SIMULATED, depths: ArrayLike = DEPTHS
) -> Figure:
    """What one feature sees at each depth, on a view; and how many nodules fit into that.

    Args:
        hu: (64, 64) a view, HU, 1 mm pixels.
        nodules: with `diameter_mm` and `label`.
        mark: word in the image's corner; "" for real CT.
        depths: which are drawn.
    """
    wanted = [int(d) for d in np.asarray(depths)]
    with style.house_style():
        figure = Figure(figsize=(9.2, 4.2), layout="constrained")
        image, fits = figure.subplots(1, 2, width_ratios=[1, 1.25])
        style.show_ct(image, hu)
        if mark:
            style.mark_simulated(image, mark)
        for depth in wanted:
            field, colour = receptive_field(depth), _COLOURS[depth - 1]
            start, end = field.of(central(depth))
            if end - start <= IMAGE_SIZE:
                _square(image, start, end, colour)
                image.text(start - 0.5, start - 1, str(depth), color=colour, fontsize=9,
                           path_effects=[withStroke(linewidth=2, foreground="black")])  # fmt: skip
            fits.axvline(field.size_px, color=colour, lw=2, ls="--")
            fits.text(field.size_px, 1.02, _layers(depth), ha="center", fontsize=8,
                      transform=fits.get_xaxis_transform())  # fmt: skip
        image.set_xlim(-0.5, IMAGE_SIZE - 0.5)
        image.set_ylim(IMAGE_SIZE - 0.5, -0.5)
        image.set_title("what one feature sees, by layers")
        said = []
        for label, name in ((0, "benign"), (1, "malignant")):
            mm = np.sort(nodules.loc[nodules["label"] == label, "diameter_mm"])
            fits.step(mm, np.arange(1, len(mm) + 1) / len(mm), where="post",
                      color=style.CLASSES[label], label=f"{name}, n = {len(mm)}")  # fmt: skip
            shares = [float((mm <= receptive_field(d).size_px).mean()) for d in wanted]
            said.append(f"{name} {', '.join(f'{s:.0%}' for s in shares)}")
        fits.set(
            xscale="log", xlim=(3, 110), ylim=(0, 1), xlabel="diameter; side of the field, mm",
            ylabel="share of nodules no wider",
        )  # fmt: skip
        fits.xaxis.set_major_locator(ticker.FixedLocator([3, 6, 12, 24, 48, 96]))
        fits.xaxis.set_minor_locator(ticker.NullLocator())
        fits.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:g}"))
        fits.legend(loc="upper left")
    sides = ", ".join(f"{d}: {receptive_field(d).size_px} mm" for d in wanted)
    return style.describe(
        figure,
        f"A nodule with the squares that one feature sees ({sides}), and the distribution of "
        f"diameters; share of nodules that fit, by depth: {'; '.join(said)}.",
    )


def influence_figure(
    maps: Mapping[int, NDArray[np.float64]], reach: Mapping[int, int], title: str = ""
) -> Figure:
    """Which pixels move the central features, with the counted field around them.

    Args:
        maps: depth -> (64, 64) as `receptive.influence` gives it.
        reach: depth -> side of the square that holds nine tenths of it, px.
        title: above the figure.
    """
    with style.house_style():
        figure = Figure(figsize=(2.05 * len(maps), 2.75), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(maps)))
        for ax, (depth, moved) in zip(axes, maps.items(), strict=True):
            # A root, so that the faint rim is seen beside the bright middle.
            ax.imshow(np.sqrt(moved), cmap="magma", vmin=0)
            start, end = receptive_field(depth).of(central(depth))
            _square(ax, start, end, style.SKY)
            ax.set_xlim(-0.5, IMAGE_SIZE - 0.5)
            ax.set_ylim(IMAGE_SIZE - 0.5, -0.5)
            ax.set_title(_layers(depth))
            ax.set_xlabel(f"field {end - start} mm\n90 % within {reach[depth]} mm", fontsize=9)
            ax.set_xticks([])
            ax.set_yticks([])
            ax.grid(visible=False)
        figure.suptitle(title, ha="left", x=0.01)
    words = "; ".join(
        f"{_layers(d)}: field {receptive_field(d).size_px} mm, 90 % within {reach[d]} mm"
        for d in maps
    )
    return style.describe(figure, f"Influence of each pixel on the central features. {words}.")


def costs_figure(costs: pd.DataFrame, parts: pd.DataFrame) -> Figure:
    """What each depth costs: parameters by part, arithmetic, memory and time of a step.

    Args:
        costs: one row a (model, depth), columns as `experiments.cost.costs` names them.
        parts: one row a depth of MT-CNN, one column a part, numbers trained.
    """
    batch = int(costs["batch_size"].iloc[0])
    with style.house_style():
        figure = Figure(figsize=(9.2, 5.6), layout="constrained")
        numbers, sums, memory, seconds = figure.subplots(2, 2).ravel()
        below = np.zeros(len(parts))
        for part, colour in zip(parts.columns, _PARTS, strict=True):
            height = parts[part].to_numpy() / 1e6
            numbers.bar(parts.index, height, bottom=below, color=colour, width=0.7, label=part)
            below += height
        numbers.set(ylabel="millions of parameters")
        numbers.set_title("what is trained (MT-CNN)")
        numbers.legend(fontsize=8)
        for model, colour in (("st", style.ST), ("mt", style.MT)):
            of = costs.loc[model]
            name = f"{model.upper()}-CNN"
            for ax, key, scale in (
                (sums, "gflop_a_step", 1), (memory, "memory_mb", 1),
                (seconds, "seconds_a_step", 1000),
            ):  # fmt: skip
                ax.plot(of.index, scale * of[key], "o-", color=colour, label=name)
            memory.plot(of.index, of["kept_mb"], "--", color=colour, lw=1,
                        label=f"{name}, kept for the backward pass")  # fmt: skip
        for ax, what, unit in (
            (sums, "arithmetic of a step", "GFLOP"), (memory, "memory in training", "MB"),
            (seconds, "time of a step, one thread", "ms"),
        ):  # fmt: skip
            ax.set_title(f"{what}, batches of {batch}")
            ax.set(ylabel=unit, ylim=(0, None))
            ax.legend(fontsize=8)
        for ax in (numbers, sums, memory, seconds):
            ax.xaxis.set_major_locator(ticker.FixedLocator(DEPTHS))
        for ax in (memory, seconds):
            ax.set_xlabel("convolutional layers in ShareNet")
    words = "; ".join(
        f"{m.upper()}-CNN, {_layers(d)}: {row['parameters'] / 1e6:.2f} million parameters, "
        f"{row['gflop_a_step']:.2f} GFLOP, {row['memory_mb']:.0f} MB, "
        f"{1000 * row['seconds_a_step']:.0f} ms"
        for (m, d), row in zip(costs.index.tolist(), costs.to_dict("records"), strict=True)
    )
    return style.describe(figure, f"What each depth costs. {words}.")


def redrawn_figure(
    image: ArrayLike,
    redrawn: Mapping[int, ArrayLike],
    psnr_db: Mapping[int, float],
    *,
    simulated: bool,
) -> Figure:
    """A view, and what MT-CNN of each depth draws of it.

    Args:
        image: (64, 64) in [0, 1].
        redrawn: depth -> (64, 64) in [0, 1].
        psnr_db: depth -> mean over the test nodules, dB.
        simulated: say that the image was simulated.
    """
    with style.house_style():
        figure = Figure(figsize=(2.2 * (1 + len(redrawn)), 2.7), layout="constrained")
        axes = figure.subplots(1, 1 + len(redrawn))
        style.show_ct(axes[0], image, 0, 1)
        axes[0].set_title("the view")
        if simulated:
            style.mark_simulated(axes[0])
        for ax, (depth, drawn) in zip(axes[1:], redrawn.items(), strict=True):
            style.show_ct(ax, drawn, 0, 1)
            titles(ax, _layers(depth), False)
            ax.set_xlabel(f"PSNR {psnr_db[depth]:.1f} dB", fontsize=9)
    words = "; ".join(f"{_layers(d)} {v:.1f} dB" for d, v in psnr_db.items())
    return style.describe(
        figure, f"A CT view and its reconstructions; mean PSNR over test nodules: {words}."
    )


def _square(ax: Axes, start: int, end: int, colour: str) -> None:
    side = end - start
    ax.add_patch(Rectangle((start - 0.5, start - 0.5), side, side, fill=False, ec=colour, lw=1.8))


def _layers(depth: Any) -> str:
    return f"{depth} layer{'s' * (depth > 1)}"
