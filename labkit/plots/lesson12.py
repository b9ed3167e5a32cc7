"""Lesson 12's figures: the field, what each family sees of a nodule, what a ranking rests on."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter
from skimage.measure import marching_cubes

from labkit.evaluation.statistics import Interval
from labkit.models import NETWORKS
from labkit.models.rivals.nodule import Nodule
from labkit.plots import style
from labkit.plots.style import SIMULATED, Drawn, Look
from labkit.training.config import WITH_SIZE

HAND, BORROWED, ONE, SEVERAL = FAMILIES = (
    "features measured by hand", "features learnt for another task",
    "a network with one task", "a network with several tasks",
)  # fmt: skip
COLOURS = dict(zip(FAMILIES, (style.PURPLE, style.SKY, style.ST, style.MT), strict=True))
FIELD = {
    ("readers' numbers", HAND): ("size", "size+calcification"),
    ("the nodule,\nsegmented", HAND): ("shewaye2016", "han2015", "radiomics"),
    ("slices", BORROWED): ("kumar2015",),
    ("slices", ONE): ("yan2016-slice", "yan2016-2d", "zhao2018"),
    ("views", HAND): ("descriptors",),
    ("views", BORROWED): ("ciompi2015",),
    ("views", ONE): ("st", "mvkbc2019"),
    ("views", SEVERAL): ("mt", "mkssac2019", "shared", "mt-ratings"),
    ("a block in 3-D", ONE): ("yan2016-3d", "dou2017", "dey2018", "deeplung2018"),
    ("a block in 3-D", SEVERAL): ("hscnn2019", "mt3d"),
    ("several of these", HAND): ("best",),
    ("several of these", ONE): ("deeplung2018+diameter",),
}
"""What a method is given, and how it comes to its features -> the methods."""
_BLOCK = slice(16, 48)


def colour(name: str) -> str:
    """Return the colour of a method's family; black for the readers' numbers alone."""
    base = name.removesuffix(WITH_SIZE)
    (place,) = (place for place, names in FIELD.items() if base in names)
    return style.SIZE_ONLY if base.startswith("size") else COLOURS[place[1]]


def _name_families(ax: Axes, names: pd.Index) -> None:
    """Give a legend the families that some methods are of."""
    there = set(map(colour, names))
    for family, of in COLOURS.items():
        if of in there:
            ax.plot([], [], "o", color=of, label=family)


@style.figure
def field_figure() -> Drawn:
    """Draw every method: downwards what it is given, to the right how it comes to its features."""
    rows = list(dict.fromkeys(sees for sees, _ in FIELD))
    wrap = Look(width=33, subsequent_indent="    ", break_on_hyphens=False)
    lines = {
        place: [line for n in names for line in textwrap.wrap(f"{n}: {NETWORKS[n].name}", **wrap)]
        for place, names in FIELD.items()
    }
    tall = [
        1 + max(2, *(len(of) for (sees, _), of in lines.items() if sees == row)) for row in rows
    ]
    figure, ax = style.subplots(size=(10.4, 0.6 + 0.165 * sum(tall)))
    for row, top, high in zip(rows, np.cumsum([0, *tall]), tall, strict=False):
        for column, (family, tint) in enumerate(COLOURS.items()):
            words = lines.get((row, family), [])
            look = Look(color=tint, alpha=0.22 if words else 0.05, lw=0)
            ax.add_patch(Rectangle((column + 0.01, top + 0.1), 0.98, high - 0.2, **look))
            place = (column + 0.04, top + high / 2)
            ax.text(*place, "\n".join(words), fontsize=8, va="center", linespacing=1.25)
    ax.set(xlim=(0, len(FAMILIES)), ylim=(sum(tall), 0))
    ax.set_xticks(np.arange(len(FAMILIES)) + 0.5, FAMILIES, fontweight="bold")
    ax.set_yticks(np.cumsum(tall) - np.array(tall) / 2, rows, fontweight="bold")
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    return figure


@style.figure
def segmented_figure(nodule: Nodule, said: Mapping[str, float]) -> Drawn:
    """Draw a segmented nodule in three planes, and what some features say of it."""
    figure, (*axes, words) = style.subplots(1, 4, (9.6, 2.9), width_ratios=[1, 1, 1, 0.95])
    half = max(nodule.mask.shape) / 2
    for axis, (ax, plane) in enumerate(zip(axes, ("axial", "coronal", "sagittal"), strict=True)):
        at = nodule.mask.shape[axis] // 2
        hu, mask = (np.take(of, at, axis)[:: -1 if axis else 1] for of in nodule)  # head upwards
        style.show_ct(ax, hu, title=plane, mark=SIMULATED, pixel_mm=(1, 1))
        y, x = (np.arange(n) - (n - 1) / 2 for n in mask.shape)
        ax.contour(x, y, mask, [0.5], colors=[style.YELLOW], linewidths=1.6)
        ax.set(xlim=(-half, half), ylim=(half, -half), facecolor=style.BLACK)
    text = "\n".join(f"{value:>7,.3g}  {name}" for name, value in said.items())
    words.text(0, 0.5, text, va="center", family="monospace", fontsize=8.5)
    words.set_axis_off()
    return figure


@style.figure
def pretrained_figure(views: NDArray, features: ArrayLike) -> Drawn:
    """Draw three views, and below each the features that a pretrained network has of it.

    `views`: (3, rows, columns) HU; `features`: (3 n,) of one view after the other.
    """
    figure, axes = style.subplots(2, 3, (9.6, 4.6), height_ratios=[1, 0.36])
    codes = np.split(np.sqrt(np.asarray(features)), 3)
    for number, ((above, below), image, code) in enumerate(zip(axes.T, views, codes, strict=True)):
        title = f"{style.view_name(number)}, {len(image)} mm"
        style.show_ct(above, image, title=title, mark=SIMULATED, interpolation="bicubic")
        below.pcolormesh(code.reshape(20, -1), cmap="magma", vmin=0, vmax=np.quantile(codes, 0.99))
        below.set(xticks=[], yticks=[], xlabel=f"{len(code):,} features (root)")
    return figure


@style.figure
def block_figure(cube: ArrayLike) -> Drawn:
    """Draw the middle 32 mm of a cube as a 3-D network has them: a surface, and every other slice.

    The surface is that of -400 HU.
    """
    block = np.asarray(cube)[_BLOCK, _BLOCK, _BLOCK].astype(float)
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.1])
    ax = left.add_subplot(projection="3d")
    points, faces, normals, _ = marching_cubes(gaussian_filter(block, 0.7), -400)
    light = normals[faces].mean(axis=1) @ np.array([0.5, -0.7, 0.5])
    shade = np.clip(0.6 + 0.4 * light, 0.15, 1)[:, None] * np.array([0.95, 0.85, 0.8])
    # (z, y, x) to (x, y, z)
    ax.add_collection3d(Poly3DCollection(points[faces][..., ::-1], facecolors=shade, lw=0))
    ax.set(xlim=(0, 31), ylim=(31, 0), zlim=(0, 31), xticks=[], yticks=[], zticks=[])
    ax.set(xlabel="to left", ylabel="to back", zlabel="to head")
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.labelpad = -14
    ax.set_box_aspect((1, 1, 1), zoom=0.95)
    ax.text2D(0.02, 0.02, SIMULATED, transform=ax.transAxes, color=style.GREY, fontsize=8)
    for number, small in enumerate(right.subplots(4, 4).flat):
        style.show_ct(small, block[2 * number], mark=SIMULATED)
        small.set_title(f"{2 * number - 15.5:+g} mm", fontsize=7, fontweight="normal", pad=2)
    return figure


@style.figure
def cost_figure(methods: pd.DataFrame, cost: str, xlabel: str, size_only: Interval) -> Drawn:
    """Draw AUC within folds, with its interval, against what a method costs.

    `methods`: a row a method, with `auc` (an Interval) and the column `cost`; without it it is left
    out.
    """
    shown = methods[methods[cost].astype(float) > 0]
    figure, ax = style.subplots(size=(9.6, 5.4))
    style.level(ax, size_only, style.SIZE_ONLY, "size only", ls="--")
    for name, auc, x in zip(shown.index, shown["auc"], shown[cost], strict=True):
        style.whisker(ax, x, auc, colour(name), lw=1.0)
    ax.set(xscale="log", xlabel=xlabel, ylabel="AUC within folds, with 95 % interval")
    ax.set_xlim(0.6 * shown[cost].min(), 6 * shown[cost].max())  # room for the last name
    # By what is missing to 1: from 0.94 to 0.97 is as far as from 0.88 to 0.94.
    missing = (lambda auc: -np.log(1.001 - auc), lambda z: 1.001 - np.exp(-z))
    ax.set_yscale("function", functions=missing)
    lowest = min(of.low for of in shown["auc"])
    ax.set_yticks([t for t in (0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.96, 0.98) if t > lowest])
    _name_families(ax, shown.index)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    style.mark_kind(ax, simulated=False)
    values = [of.value for of in shown["auc"]]
    style.name_points(ax, shown.index, shown[cost], values, [3.0] * len(shown))
    return figure, {name: f"{x:.3g}, {auc}" for name, x, auc in shown[[cost, "auc"]].itertuples()}


@style.figure
def ranking_figure(methods: pd.DataFrame) -> Drawn:
    """Draw methods by AUC within folds and pooled, and which place they take if patients change.

    `methods`: a row a method, the best first, with the Intervals `auc`, `pooled` and `place`.
    """
    size = (9.6, 1.3 + 0.25 * len(methods))
    figure, (left, right) = style.subplots(1, 2, size, sharey=True, width_ratios=[1.3, 1])
    shown = methods[["auc", "pooled", "place"]]
    for y, (name, auc, pooled, place) in enumerate(shown.itertuples()):
        look = Look(colour=colour(name), upright=False)
        style.whisker(left, y - 0.12, auc, **look)
        style.whisker(left, y + 0.2, pooled, **look, lw=0.7, mfc="white", ms=4.5)
        style.whisker(right, y, place, **look)
    left.plot([], [], "o", color=style.GREY, label="within folds")
    left.plot([], [], "o", color=style.GREY, mfc="white", label="pooled over folds")
    _name_families(left, methods.index)
    style.name_rows(left, list(methods.index))
    left.set(xlabel="AUC, with 95 % interval over patients")
    right.set(xlabel="place, 95 % of samples of patients", xlim=(0, len(methods) + 1))
    right.grid(visible=False, axis="y")
    style.mark_kind(right, simulated=False)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure, shown


@style.figure
def published_figure(methods: pd.DataFrame, published: Mapping[str, Mapping[str, float]]) -> Drawn:
    """Draw what is published of methods beside what they reach here, on the same folds.

    `methods`: as `ranking_figure`'s, with `accuracy`; `published`: "auc" or "accuracy" -> method ->
    value.
    """
    names = [name for name in methods.index if any(name in of for of in published.values())]
    figure, axes = style.subplots(1, 2, (9.6, 1.3 + 0.3 * len(names)), sharey=True)
    words = {"auc": "AUC within folds", "accuracy": "accuracy at 0.5"}
    for ax, (metric, of) in zip(axes, published.items(), strict=True):
        for y, name in enumerate(names):
            if name in of:
                style.whisker(ax, y, methods[metric][name], colour(name), upright=False)
                ax.plot(of[name], y, "D", mfc="white", mec=style.VERMILION)
        ax.set_xlabel(words[metric])
        style.name_rows(ax, names)
    axes[0].plot([], [], "D", mfc="white", mec=style.VERMILION, label="published, other nodules")
    axes[0].plot([], [], "o", color=style.GREY, label="here, with 95 % interval")
    figure.legend(loc="outside upper center", ncols=2)
    style.mark_kind(axes[1], simulated=False)
    return figure, dict(published), methods.loc[names, ["auc", "accuracy"]]


@style.figure
def pairs_figure(less: pd.DataFrame, found: pd.DataFrame) -> Drawn:
    """Draw the difference of each pair of methods, row less column; a dot where one is found.

    Both tables are square, with the methods as rows and as columns.
    """
    n, names = len(less), list(less.index)
    figure, ax = style.subplots(size=(2.6 + 0.27 * n, 1.5 + 0.25 * n))
    values = less.to_numpy(float)
    mesh = ax.pcolormesh(np.arange(n), np.arange(n), values, cmap="PuOr_r", vmin=-0.06, vmax=0.06)
    y, x = np.nonzero(found.to_numpy(bool))
    ax.plot(x, y, "o", color=style.BLACK, ms=3.5)
    style.name_rows(ax, names)
    ax.set_xticks(range(n), names, rotation=90)
    ax.grid(visible=False)
    figure.colorbar(mesh, ax=ax, label="AUC within folds, row less column", extend="both")
    style.mark_kind(ax, simulated=False)
    pairs = [f"{names[i]} over {names[j]}" for i, j in zip(y, x, strict=True) if values[i, j] > 0]
    return figure, f"Found: {'; '.join(pairs) or 'none'}"
