"""Lesson 09's figures: what a feature sees, and what a layer costs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from labkit.models.mtcnn import IMAGE_SIZE
from labkit.models.receptive_field import central, receptive_field
from labkit.paper.declared import DEPTHS
from labkit.plots import style
from labkit.plots.style import Drawn, Look

_DEPTHS = (style.YELLOW, style.SKY, style.GREEN, style.PURPLE, style.GREY)  # not the classes'
_PARTS = (style.SKY, style.ORANGE, style.YELLOW, style.GREEN)


@style.figure
def fields_figure(hu: ArrayLike, nodules: pd.DataFrame) -> Drawn:
    """Draw what one feature sees at each depth on a simulated view, and how many nodules fit in.

    `hu`: (64, 64) in pixels of 1 mm; `nodules`: `diameter_mm` and `label`.
    """
    figure, (image, fits) = style.subplots(1, 2, (9.2, 4.2), width_ratios=[1, 1.25])
    style.show_ct(image, hu, mark=style.SIMULATED)
    image.set_title("what one feature sees, by layers")
    fields = {d: receptive_field(d) for d in DEPTHS}
    for depth, field in fields.items():
        colour, (start, end) = _DEPTHS[depth - 1], field.of(central(depth))
        if end - start <= IMAGE_SIZE:
            _draw_field(image, start, end, colour)
            look = Look(fontsize=9, path_effects=style.outlined("black"))
            image.text(start - 0.5, start - 1, str(depth), color=colour, **look)
        fits.axvline(field.size_px, color=colour, lw=2, ls="--")
        style.above(fits, field.size_px, _layers(depth))
    fitting = {}
    for label, name in ((0, "benign"), (1, "malignant")):
        mm = nodules.loc[nodules["label"] == label, "diameter_mm"]
        fits.ecdf(mm, color=style.CLASSES[label], label=f"{name}, n = {len(mm)}")
        within = {of.size_px: (mm <= of.size_px).mean() for of in fields.values()}
        fitting[name] = {f"{px} mm": f"{share:.0%}" for px, share in within.items()}
    fits.set(xscale="log", xlim=(3, 110), ylim=(0, 1), xlabel="diameter; side of the field, mm")
    fits.set_ylabel("share of nodules no wider")
    style.name_ticks(fits, [3, 6, 12, 24, 48, 96])
    fits.legend(loc="upper left")
    return figure, fitting


@style.figure
def influence_figure(
    maps: Mapping[int, NDArray[np.float64]], reach: Mapping[int, int], title: str = ""
) -> Drawn:
    """Draw which pixels move the central features, with the counted field around them.

    `maps`: depth -> (64, 64) as `receptive_field.influence` gives it; `reach`: depth -> side of the
    square that holds nine tenths of it, px.
    """
    # A root, so that the faint rim is seen beside the bright middle.
    images = [np.sqrt(moved / moved.max()) for moved in maps.values()]
    columns = [_layers(depth) for depth in maps]
    figure, ((*axes,),) = style.image_grid(
        [images], 0, 1, inches=2.05, cmap="magma", columns=columns, words=0.7
    )
    for ax, depth in zip(axes, maps, strict=True):
        start, end = receptive_field(depth).of(central(depth))
        _draw_field(ax, start, end, style.SKY)
        ax.set_xlabel(f"field {end - start} mm\n90 % within {reach[depth]} mm", fontsize=9)
    figure.suptitle(title, ha="left", x=0.01)
    within = (ax.get_xlabel() for ax in axes)
    return figure, dict(zip(columns, within, strict=True))


@style.figure
def costs_figure(costs: pd.DataFrame, parts: pd.DataFrame) -> Drawn:
    """Draw what each depth costs: parameters by part, arithmetic, memory and time of a step.

    `costs`: a row a (model, depth), columns as `paper.fig6` names them; `parts`: numbers trained, a
    row a depth of MT-CNN, a column a part.
    """
    batch = int(costs["batch_size"].iloc[0])
    figure, ((numbers, sums), (memory, seconds)) = style.subplots(2, 2, (9.2, 5.6))
    for (part, of), colour in zip(parts.items(), _PARTS, strict=True):
        below = parts.loc[:, :part].sum(axis=1) - of
        numbers.bar(parts.index, of / 1e6, 0.7, below / 1e6, color=colour, label=part)
    numbers.set(ylabel="millions of parameters", title="what is trained (MT-CNN)")
    for ax, key, scale, what, unit in (
        (sums, "gflop_a_step", 1, "arithmetic of a step", "GFLOP"),
        (memory, "memory_mb", 1, "memory in training", "MB"),
        (seconds, "seconds_a_step", 1000, "time of a step, one thread", "ms"),
    ):
        for model, (name, colour) in style.NETWORKS.items():
            ax.plot(costs[key].loc[model] * scale, "o-", color=colour, label=name)
            if ax is memory:
                kept = f"{name}, kept for the backward pass"
                ax.plot(costs["kept_mb"].loc[model], "--", color=colour, lw=1, label=kept)
        ax.set(title=f"{what}, batches of {batch}", ylabel=unit, ylim=(0, None))
    for ax in (numbers, sums, memory, seconds):
        style.name_ticks(ax, DEPTHS)
        ax.set_xlabel("convolutional layers in ShareNet")
        ax.legend(fontsize=8)
    named = {(m, d): f"{style.NETWORKS[m][0]}, {_layers(d)}" for m, d in costs.index}
    return figure, costs.drop(columns="batch_size").set_axis(list(named.values()))


def _draw_field(ax: Axes, start: int, end: int, colour: str) -> None:
    side = end - start
    ax.add_patch(Rectangle((start - 0.5, start - 0.5), side, side, fill=False, ec=colour, lw=1.8))
    ax.set(xlim=(-0.5, IMAGE_SIZE - 0.5), ylim=(IMAGE_SIZE - 0.5, -0.5))


def _layers(depth: int) -> str:
    return f"{depth} layer{'s' * (depth > 1)}"
