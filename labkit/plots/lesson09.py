"""Lesson 09's figures: what a feature sees, what a layer costs, what is left to draw from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray

from labkit.models.mtcnn import IMAGE_SIZE
from labkit.models.receptive_field import central, receptive_field
from labkit.paper.declared import DEPTHS
from labkit.plots import style
from labkit.plots.style import Drawn

_DEPTHS = (style.YELLOW, style.SKY, style.GREEN, style.PURPLE, style.GREY)  # not the classes'
_PARTS = (style.SKY, style.ORANGE, style.YELLOW, style.GREEN)


@style.figure
def fields_figure(hu: ArrayLike, nodules: pd.DataFrame) -> Drawn:
    """Draw what one feature sees at each depth, on a view (64, 64) of simulated HU in 1 mm pixels.

    Beside it, how many nodules (`diameter_mm`, `label`) fit into that.
    """
    figure, (image, fits) = style.subplots(1, 2, (9.2, 4.2), width_ratios=[1, 1.25])
    style.show_ct(image, hu, mark=style.SIMULATED)
    image.set_title("what one feature sees, by layers")
    fields = {d: receptive_field(d) for d in DEPTHS}
    for depth, field in fields.items():
        colour, (start, end) = _DEPTHS[depth - 1], field.of(central(depth))
        if end - start <= IMAGE_SIZE:
            _draw_field(image, start, end, colour)
            shade = {"path_effects": [withStroke(linewidth=2, foreground="black")], "fontsize": 9}
            image.text(start - 0.5, start - 1, str(depth), color=colour, **shade)
        fits.axvline(field.size_px, color=colour, lw=2, ls="--")
        above = {"ha": "center", "fontsize": 8, "transform": fits.get_xaxis_transform()}
        fits.text(field.size_px, 1.02, _layers(depth), **above)
    said = []
    for label, name in ((0, "benign"), (1, "malignant")):
        mm = np.sort(nodules.loc[nodules["label"] == label, "diameter_mm"])
        look = {"color": style.CLASSES[label], "label": f"{name}, n = {len(mm)}"}
        fits.step(mm, np.arange(1, len(mm) + 1) / len(mm), where="post", **look)
        fitting = [f"{(mm <= field.size_px).mean():.0%}" for field in fields.values()]
        said.append(f"{name} {', '.join(fitting)}")
    fits.set(xscale="log", xlim=(3, 110), ylim=(0, 1), xlabel="diameter; side of the field, mm")
    fits.set_ylabel("share of nodules no wider")
    style.name_ticks(fits, [3, 6, 12, 24, 48, 96])
    fits.legend(loc="upper left")
    sides = ", ".join(f"{d}: {field.size_px} mm" for d, field in fields.items())
    shares = "; ".join(said)
    return figure, f"Squares that one feature sees ({sides}). Nodules that fit, by depth: {shares}."


@style.figure
def influence_figure(
    maps: Mapping[int, NDArray[np.float64]], reach: Mapping[int, int], title: str = ""
) -> Drawn:
    """Draw which pixels move the central features, with the counted field around them.

    `maps`: depth -> (64, 64) as `receptive_field.influence` gives it; `reach`: depth -> side of the
    square that holds nine tenths of it, px.
    """
    figure, axes = style.subplots(1, len(maps), (2.05 * len(maps), 2.75), squeeze=False)
    words = []
    for ax, (depth, moved) in zip(axes[0], maps.items(), strict=True):
        # A root, so that the faint rim is seen beside the bright middle.
        style.show_ct(ax, np.sqrt(moved), 0, np.sqrt(moved.max()), cmap="magma", ticks=True)
        start, end = receptive_field(depth).of(central(depth))
        _draw_field(ax, start, end, style.SKY)
        ax.set(title=_layers(depth), xticks=[], yticks=[])
        ax.set_xlabel(f"field {end - start} mm\n90 % within {reach[depth]} mm", fontsize=9)
        field = receptive_field(depth).size_px
        words.append(f"{_layers(depth)}: field {field} mm, 90 % within {reach[depth]} mm")
    figure.suptitle(title, ha="left", x=0.01)
    return figure, f"Influence of each pixel on the central features. {'; '.join(words)}."


@style.figure
def costs_figure(costs: pd.DataFrame, parts: pd.DataFrame) -> Drawn:
    """Draw what each depth costs: parameters by part, arithmetic, memory and time of a step.

    `costs`: a row a (model, depth), columns as `paper.fig6` names them; `parts`: numbers trained, a
    row a depth of MT-CNN, a column a part.
    """
    batch = int(costs["batch_size"].iloc[0])
    figure, ((numbers, sums), (memory, seconds)) = style.subplots(2, 2, (9.2, 5.6))
    below = np.zeros(len(parts))
    for part, colour in zip(parts.columns, _PARTS, strict=True):
        height = parts[part].to_numpy() / 1e6
        numbers.bar(parts.index, height, bottom=below, color=colour, width=0.7, label=part)
        below += height
    numbers.set(ylabel="millions of parameters", title="what is trained (MT-CNN)")
    for ax, key, scale, what, unit in (
        (sums, "gflop_a_step", 1, "arithmetic of a step", "GFLOP"),
        (memory, "memory_mb", 1, "memory in training", "MB"),
        (seconds, "seconds_a_step", 1000, "time of a step, one thread", "ms"),
    ):
        for model, (name, colour) in style.NETWORKS.items():
            of = costs.loc[model]
            ax.plot(of.index, scale * of[key], "o-", color=colour, label=name)
            if ax is memory:
                kept = f"{name}, kept for the backward pass"
                ax.plot(of.index, of["kept_mb"], "--", color=colour, lw=1, label=kept)
        ax.set(title=f"{what}, batches of {batch}", ylabel=unit, ylim=(0, None))
    for ax in (numbers, sums, memory, seconds):
        ax.xaxis.set_major_locator(ticker.FixedLocator(DEPTHS))
        ax.set_xlabel("convolutional layers in ShareNet")
        ax.legend(fontsize=8)
    words = "; ".join(
        f"{style.NETWORKS[m][0]}, {_layers(d)}: {row['parameters'] / 1e6:.2f} million parameters, "
        f"{row['gflop_a_step']:.2f} GFLOP, {row['memory_mb']:.0f} MB, "
        f"{1000 * row['seconds_a_step']:.0f} ms"
        for (m, d), row in zip(costs.index.tolist(), costs.to_dict("records"), strict=True)
    )
    return figure, f"What each depth costs. {words}."


@style.figure
def redrawn_figure(
    image: ArrayLike, redrawn: Mapping[int, ArrayLike], psnr_db: Mapping[int, float], *,
    simulated: bool,
) -> Drawn:  # fmt: skip
    """Draw a view (64, 64) in [0, 1], and what MT-CNN of each depth draws of it, with mean PSNR."""
    panels = 1 + len(redrawn)
    figure, (first, *axes) = style.subplots(1, panels, (2.2 * panels, 2.7))
    style.show_ct(first, image, 0, 1, mark=style.SIMULATED * simulated)
    first.set_title("the view")
    for ax, (depth, drawn) in zip(axes, redrawn.items(), strict=True):
        style.show_ct(ax, drawn, 0, 1)
        ax.set_title(_layers(depth))
        ax.set_xlabel(f"PSNR {psnr_db[depth]:.1f} dB", fontsize=9)
    words = "; ".join(f"{_layers(d)} {v:.1f} dB" for d, v in psnr_db.items())
    return figure, f"A CT view and its reconstructions; mean PSNR over test nodules: {words}."


def _draw_field(ax: Axes, start: int, end: int, colour: str) -> None:
    side = end - start
    ax.add_patch(Rectangle((start - 0.5, start - 0.5), side, side, fill=False, ec=colour, lw=1.8))
    ax.set(xlim=(-0.5, IMAGE_SIZE - 0.5), ylim=(IMAGE_SIZE - 0.5, -0.5))


def _layers(depth: int) -> str:
    return f"{depth} layer{'s' * (depth > 1)}"
