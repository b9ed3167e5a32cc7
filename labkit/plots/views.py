"""Figures of networks at work: learning curves, augmentation, reconstructions, a nodule's views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from labkit.cohorts.cohort import VIEW_SIZE, Cohort
from labkit.errors import InputError
from labkit.models.mtcnn import IMAGE_SIZE
from labkit.plots import style
from labkit.plots.style import Drawn, Look, show_ct, view_name
from labkit.training import batches
from labkit.training.nine_views import NineViewModel

MIDDLE = (slice((VIEW_SIZE - IMAGE_SIZE) // 2, (VIEW_SIZE + IMAGE_SIZE) // 2),) * 2
PANELS = {
    "train_cls": "classification loss, training", "val_cls": "classification loss, validation",
    "val_auc": "AUC, validation", "train_img": "reconstruction loss, training",
}  # fmt: skip
"""Column of a history -> what it is, in the order of the panels."""
Networks = Sequence[pd.DataFrame]
"""Histories, one a network."""


@style.figure
def learning_curves(histories: style.Tables, *, simulated: bool = False) -> Drawn:
    """Draw learning curves by epoch: thin lines for networks, a thick one for their mean.

    `histories`: name -> history (`NineViewModel.history`, or history.csv of a run).
    """
    networks: dict[str, Networks] = {}
    for name, history in histories.items():
        parts = [c for c in ("repeat", "fold", "view") if c in history]
        networks[name] = [h for _, h in history.groupby(parts)] if parts else [history]
    last = {f"last AUC, {name},": h["val_auc"].iloc[-1] for name, h in histories.items()}
    return draw_curves(networks, {}, simulated), last


def draw_curves(
    finished: Mapping[str, Networks], under_way: Mapping[str, Networks], simulated: bool
) -> Figure:
    """Draw histories of networks by name: thin, with a thick mean as far as all of them reach.

    Networks that are under way are in no mean, and have a dot at their end.
    """
    colours = style.method_colours(dict.fromkeys([*finished, *under_way]))
    every = pd.concat([h for of in (*finished.values(), *under_way.values()) for h in of])
    shown = [panel for panel in PANELS if panel in every and every[panel].notna().any()]
    figure, axes = style.panels(len(shown), 2, 8.4, 2.7)
    for ax, column in zip(axes, shown, strict=True):
        for name, networks in finished.items():
            known = [h.set_index("epoch")[column] for h in networks if column in h]
            if known := [of for of in known if of.notna().any()]:
                for of in known:
                    ax.plot(of, color=colours[name], lw=0.6, alpha=0.4, marker="")
                # Further on the mean would be one of others.
                mean = pd.concat(known, axis=1, join="inner").mean(axis=1)
                ax.plot(mean, color=colours[name], lw=1.8, marker="")
        for name, networks in under_way.items():
            head = Look(marker="o", markevery=[-1], ms=5.5, mec="white", zorder=4)
            for history in networks:
                ax.plot(history["epoch"], history[column], color=colours[name], lw=1, **head)
        ax.set(title=PANELS[column], xlabel="epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
    style.titles(axes[1], PANELS[shown[1]], simulated)
    lines = [Line2D([], [], color=colour, lw=1.8) for colour in colours.values()]
    figure.legend(lines, list(colours), loc="outside lower center", ncols=len(lines))
    return figure


@style.figure
def nine_views_figure(
    cohort: Cohort, row: int, *, probabilities: ArrayLike | None = None, fused: float | None = None
) -> Drawn:
    """Draw the views of a nodule, 64 mm wide, with each network's malignant probability.

    Args:
        row: of the nodule in the cohort.
        probabilities: (views,) one a view; `fused` goes into the title.
    """
    views, mark = cohort.views[row][(slice(None), *MIDDLE)], style.SIMULATED * cohort.simulated
    figure, axes = style.view_panels(views, mark, pixel_mm=(1.0, 1.0))
    values = {} if probabilities is None else dict(enumerate(np.asarray(probabilities, float)))
    for view, p in values.items():
        colour = style.MALIGNANT if p >= 0.5 else style.BENIGN
        axes[view].set_xlabel(f"p = {p:.2f}", color=colour, fontsize=9)
    style.scale_bar(axes[0], 20)
    said = "" if fused is None else f"; fused probability {fused:.2f}"
    figure.suptitle(describe_nodule(cohort, row) + said)
    return figure, values


@style.figure
def reconstruction_figure(
    model: NineViewModel, cohort: Cohort, rows: Sequence[int], views: Sequence[int] | None = None
) -> Drawn:
    """Draw inputs above their reconstructions and malignant probabilities, by view (Fig. 4).

    Args:
        model: an MT-CNN; an ST-CNN reconstructs nothing and raises InputError.
        rows: of the nodules, such as one benign and one malignant.
        views: which of the model's views; None shows all.
    """
    columns = list(views or model.config.views)
    if not set(columns) <= set(model.config.views):
        raise InputError(f"the model has the views {model.config.views}, not all of {columns}")
    pick = [model.config.views.index(v) for v in columns]
    images = model.reconstruct(cohort, rows)[:, pick]
    probabilities = model.predict(cohort, rows)[:, pick]
    names, mark = [view_name(v) for v in columns], style.SIMULATED * cohort.simulated
    wide = max(1.05 * len(columns), 3.0)
    tall = wide / max(len(columns), 2) * 2 + 0.55
    figure = Figure(figsize=(wide, tall * len(rows)), layout="constrained")
    parts, said = np.atleast_1d(figure.subfigures(len(rows), 1)), {}
    for part, row, recon, p in zip(parts, rows, images, probabilities, strict=True):
        nodule = describe_nodule(cohort, row)
        part.suptitle(nodule, x=0.01, ha="left", fontsize=10)
        axes = part.subplots(2, len(columns), squeeze=False)
        for k, (above, below) in enumerate(axes.T):
            show_ct(above, cohort.views[row, columns[k]][MIDDLE], mark=mark)
            show_ct(below, recon[k], 0, 1)
            short = names[k].replace("diagonal ", "diag. ")
            above.set_title(short, fontsize=8, loc="center", fontweight="normal")
            below.set_xlabel(f"p = {p[k]:.2f}", fontsize=9)
        axes[0, 0].set_ylabel("input", fontsize=9)
        axes[1, 0].set_ylabel("reconstruction", fontsize=9)
        said[f"{nodule} (row {row})"] = dict(zip(names, p.tolist(), strict=True))
    return figure, said


@style.figure
def augmentation_figure(
    cohort: Cohort, row: int, view: int = 0, *, copies: int = 4, seed: int = 0
) -> Drawn:
    """Draw augmentation over real tissue: where the crops lie in the stored view, and the copies.

    The lower row makes the same copies from the 64-pixel image alone: the shift (of 6 mm at
    most) then brings in black from outside, which tells the network how far it was moved.
    """
    wide = torch.from_numpy(np.array(cohort.views[row, view]))
    poor = torch.full_like(wide, -1000)
    poor[MIDDLE] = wide[MIDDLE]
    drawn = batches.draw_transforms(copies, 6, torch.Generator().manual_seed(seed))
    drawn = torch.cat([torch.zeros(1, 4, dtype=drawn.dtype), drawn])  # the first as it is
    colours = (style.SKY, style.VERMILION, style.GREEN, style.PURPLE, style.ORANGE)
    edges = [style.YELLOW, *islice(cycle(colours), copies)]
    mark = style.SIMULATED * cohort.simulated
    plan = [["stored", *(f"{line} {k}" for k in range(copies + 1))] for line in range(2)]
    ratios = [2.05, *[1] * (copies + 1)]
    figure, axes = style.mosaic(plan, (1.75 * (copies + 2), 3.9), width_ratios=ratios)
    show_ct(axes["stored"], wide.numpy(), mark=mark)
    axes["stored"].set_title("stored view, 76 mm", fontsize=9)
    for k, ((down, right, *_), colour) in enumerate(zip(drawn.tolist(), edges, strict=True)):
        corner = (batches.MARGIN + right - 0.5, batches.MARGIN + down - 0.5)
        look = Look(fill=False, ec=colour, lw=1.4, ls="-" if k else "--")
        axes["stored"].add_patch(Rectangle(corner, IMAGE_SIZE, IMAGE_SIZE, **look))
    for line, source, word in ((0, wide, "over tissue"), (1, poor, "from 64 mm alone")):
        images = batches.transformed(source.expand(copies + 1, -1, -1), drawn)
        for k, image in enumerate(images[:, 0].numpy()):
            ax = axes[f"{line} {k}"]
            show_ct(ax, image, 0, 1, mark=mark)
            ax.spines[:].set(visible=True, color=edges[k], linewidth=2.5)
            ax.set_xlabel(_in_words(drawn[k]) if k else "plain", fontsize=8)
            ax.set_ylabel("" if k else word, fontsize=9)
    return figure, "The copies show lung everywhere above, and below black strips from outside"


def _in_words(drawn: torch.Tensor) -> str:
    shift_row, shift_col, turns, mirror = drawn.tolist()
    flip = ("", "flip l-r", "flip u-d")[mirror]
    turn = f"{90 * turns}°" if turns else ""
    said = ", ".join(filter(None, (flip, turn))) or "as it is"
    return f"{said}\nframe {shift_row:+d}, {shift_col:+d} mm"


def describe_nodule(cohort: Cohort, row: int) -> str:
    """Return a nodule in a few words, such as "malignant nodule, 18 mm, simulated"."""
    nodule = cohort.nodules.iloc[row]
    label, size = nodule["label"], nodule.get("diameter_mm")
    kind = "uncertain" if pd.isna(label) else ("benign", "malignant")[int(label)]
    words = [f"{kind} nodule", "" if pd.isna(size) else f"{size:.0f} mm"]
    return ", ".join(filter(None, [*words, style.SIMULATED * cohort.simulated]))
