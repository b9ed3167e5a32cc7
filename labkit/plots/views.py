"""Figures of networks at work: learning curves, augmentation, reconstructions, a nodule's views."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from labkit.cohorts.cohort import VIEW_SIZE, Cohort
from labkit.errors import InputError
from labkit.models.mtcnn import IMAGE_SIZE
from labkit.plots import style
from labkit.plots.style import Drawn, show_ct, view_name
from labkit.training import batches
from labkit.training.model import NineViewModel

MIDDLE = (slice((VIEW_SIZE - IMAGE_SIZE) // 2, (VIEW_SIZE + IMAGE_SIZE) // 2),) * 2
PANELS = {
    "train_cls": "classification loss, training", "val_cls": "classification loss, validation",
    "val_auc": "AUC, validation", "train_img": "reconstruction loss, training",
}  # fmt: skip
"""Column of a history -> what it is, in the order of the panels."""


@style.figure
def learning_curves(histories: style.Tables, *, simulated: bool = False) -> Drawn:
    """Draw losses and validation AUC by epoch: thin lines for networks, a thick one for their mean.

    `histories`: name -> history (`NineViewModel.history`, or history.csv of a run).
    """
    shown = [p for p in PANELS if any(h[p].notna().any() for h in histories.values() if p in h)]
    colours = style.method_colours(histories)
    figure, axes = style.subplots(2, 2, (8.4, 5.4), sharex=True)
    for ax, column in zip(axes.flat, shown, strict=False):
        for name, history in histories.items():
            if column in history and history[column].notna().any():
                _draw_curves(ax, history, column, colours[name], name)
        ax.set(title=PANELS[column], xlabel="epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.xaxis.set_tick_params(labelbottom=True)
    for ax in axes.flat[len(shown) :]:
        ax.remove()
    axes[0, 0].legend()
    style.titles(axes[0, 1], axes[0, 1].get_title("left"), simulated)
    last = ", ".join(f"{name} {h['val_auc'].iloc[-1]:.3f}" for name, h in histories.items())
    drawn = ", ".join(PANELS[p] for p in shown)
    return figure, f"Learning curves by epoch: {drawn}. Last validation AUC: {last}."


def _draw_curves(ax: Axes, history: pd.DataFrame, column: str, colour: str, name: str) -> None:
    parts = [c for c in ("repeat", "fold", "view") if c in history]
    networks = [h for _, h in history.groupby(parts)] if parts else [history]
    if len(networks) > 1:
        for network in networks:
            ax.plot(network["epoch"], network[column], color=colour, lw=0.6, alpha=0.35)
    epochs = history.groupby("epoch")[column]
    # Where some networks have stopped early the mean is one of others: draw it up to there.
    mean = epochs.mean()[epochs.size() == len(networks)]
    ax.plot(mean.index, mean.to_numpy(), color=colour, label=name)


@style.figure
def nine_views_figure(
    cohort: Cohort, row: int, *, probabilities: ArrayLike | None = None, fused: float | None = None
) -> Drawn:
    """Draw the nine views of a nodule, 64 mm wide, with each network's malignant probability.

    Args:
        row: of the nodule in the cohort.
        probabilities: (9,) one a view; `fused` goes into the title.
    """
    text = describe_nodule(cohort, row) + (
        "" if fused is None else f"; fused probability {fused:.2f}"
    )
    values = [] if probabilities is None else np.asarray(probabilities, dtype=float).tolist()
    figure, axes = style.subplots(3, 3, (6.4, 7.0))
    mark = style.SIMULATED * cohort.simulated
    for view, ax in enumerate(axes.flat):
        show_ct(ax, cohort.views[row, view][MIDDLE], title=f"{view}  {view_name(view)}", mark=mark)
    for ax, p in zip(axes.flat, values, strict=bool(values)):
        colour = style.MALIGNANT if p >= 0.5 else style.BENIGN
        ax.set_xlabel(f"p = {p:.2f}", color=colour, fontsize=9)
    style.scale_bar(axes[0, 0], 20)
    figure.suptitle(text)
    said = f" Probabilities {', '.join(f'{v:.2f}' for v in values)}." * bool(values)
    return figure, f"Nine CT views, 64 mm wide, of a {text}.{said}"


@style.figure
def reconstruction_figure(
    model: NineViewModel, cohort: Cohort, rows: Sequence[int], views: Sequence[int] | None = None
) -> Drawn:
    """Draw Fig. 4: input above, reconstruction and malignant probability below, view by view.

    Args:
        model: an MT-CNN; an ST-CNN reconstructs nothing and raises InputError.
        rows: of the nodules, such as one benign and one malignant.
        views: which of the model's views; None shows all.
    """
    columns = list(model.config.views if views is None else views)
    if not set(columns) <= set(model.config.views):
        raise InputError(f"the model has the views {model.config.views}, not all of {columns}")
    pick = [model.config.views.index(v) for v in columns]
    images = model.reconstruct(cohort, rows)[:, pick]
    probabilities = model.predict(cohort, rows)[:, pick]
    wide = max(1.05 * len(columns), 3.0)
    tall = wide / max(len(columns), 2) * 2 + 0.55
    figure = Figure(figsize=(wide, tall * len(rows)), layout="constrained")
    parts = np.atleast_1d(figure.subfigures(len(rows), 1))
    words = []
    for part, row, recon, p in zip(parts, rows, images, probabilities, strict=True):
        said = describe_nodule(cohort, row)
        part.suptitle(said, x=0.01, ha="left", fontsize=10)
        axes = part.subplots(2, len(columns), squeeze=False)
        for (above, below), view, image, value in zip(axes.T, columns, recon, p, strict=True):
            mark = style.SIMULATED * cohort.simulated
            show_ct(above, cohort.views[row, view][MIDDLE], mark=mark)
            show_ct(below, image, 0, 1)
            name = view_name(view).replace("diagonal ", "diag. ")
            above.set_title(name, fontsize=8, loc="center", fontweight="normal")
            below.set_xlabel(f"p = {value:.2f}", fontsize=9)
        axes[0, 0].set_ylabel("input", fontsize=9)
        axes[1, 0].set_ylabel("reconstruction", fontsize=9)
        words.append(f"{said}, probabilities {', '.join(f'{v:.2f}' for v in p)}")
    return figure, f"Inputs above their reconstructions, by view. {'; '.join(words)}."


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
    shifts = [(0, 0), *drawn[:, :2].tolist()]
    colours = (style.SKY, style.VERMILION, style.GREEN, style.PURPLE, style.ORANGE)
    edges = [style.YELLOW, *(colours[k % len(colours)] for k in range(copies))]
    mark = style.SIMULATED * cohort.simulated
    figure = Figure(figsize=(1.75 * (copies + 2), 3.9), layout="constrained")
    grid = figure.add_gridspec(2, copies + 2, width_ratios=[2.05, *[1] * (copies + 1)])
    left = figure.add_subplot(grid[:, 0])
    show_ct(left, wide.numpy(), mark=mark)
    left.set_title("stored view, 76 mm", fontsize=9)
    for k, ((down, right), colour) in enumerate(zip(shifts, edges, strict=True)):
        corner = (batches.MARGIN + right - 0.5, batches.MARGIN + down - 0.5)
        square = Rectangle(corner, IMAGE_SIZE, IMAGE_SIZE, fill=False, ec=colour, lw=1.4)
        square.set_linestyle("-" if k else "--")
        left.add_patch(square)
    for line, source, word in ((0, wide, "over tissue"), (1, poor, "from 64 mm alone")):
        plain = batches.transformed(source[None], torch.zeros(1, 4, dtype=torch.long))
        images = torch.cat([plain, batches.transformed(source.expand(copies, -1, -1), drawn)])
        for k, image in enumerate(images[:, 0].numpy()):
            ax = figure.add_subplot(grid[line, k + 1])
            show_ct(ax, image, 0, 1, frame=edges[k], mark=mark)
            ax.set_xlabel(_in_words(drawn[k - 1]) if k else "plain", fontsize=8)
            ax.set_ylabel("" if k else word, fontsize=9)
    return figure, (
        f"A stored view of 76 mm with the frames of {copies} shifted crops, and the crops, turned "
        "and mirrored: above they show lung everywhere, below black strips from outside the image."
    )


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
