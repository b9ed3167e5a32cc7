"""Figures of networks at work: learning curves, augmentation, reconstructions, a nodule's views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from labkit.cohorts.cohort import VIEW_SIZE, Cohort
from labkit.errors import InputError
from labkit.imaging.views import PLANES
from labkit.models.mtcnn import IMAGE_SIZE
from labkit.plots import style
from labkit.plots.roc import method_colours, titles, view_name
from labkit.training import batches
from labkit.training.model import NineViewModel

_MIDDLE = slice((VIEW_SIZE - IMAGE_SIZE) // 2, (VIEW_SIZE + IMAGE_SIZE) // 2)


def learning_curves(
    histories: pd.DataFrame | Mapping[str, pd.DataFrame], *, simulated: bool = False
) -> Figure:
    """Losses and validation AUC by epoch: thin lines for networks, a thick one for their mean.

    Args:
        histories: one history (`NineViewModel.history`, or history.csv of a run), or several by
            name, such as {"ST-CNN": ..., "MT-CNN": ...}.
        simulated: say that the images were simulated.

    Raises:
        InputError: no epoch in there.
    """
    named = {"": histories} if isinstance(histories, pd.DataFrame) else dict(histories)
    if not named or any(len(h) == 0 for h in named.values()):
        raise InputError("there is no epoch to draw a learning curve of")
    panels = {
        "train_cls": "classification loss, training", "val_cls": "classification loss, validation",
        "val_auc": "AUC, validation", "train_img": "reconstruction loss, training",
    }  # fmt: skip
    shown = [p for p in panels if any(h[p].notna().any() for h in named.values() if p in h)]
    colours = method_colours([name or "MT" for name in named])
    with style.house_style():
        figure = Figure(figsize=(8.4, 5.4), layout="constrained")
        axes = figure.subplots(2, 2, sharex=True).ravel()
        for ax, column in zip(axes, shown, strict=False):
            for name, history in named.items():
                if column in history and history[column].notna().any():
                    _draw_curves(ax, history, column, colours[name or "MT"], name)
            ax.set_title(panels[column])
            ax.xaxis.get_major_locator().set_params(integer=True)
            ax.xaxis.set_tick_params(labelbottom=True)
            ax.set_xlabel("epoch")
        for ax in axes[len(shown) :]:
            ax.remove()
        if "" not in named:
            axes[0].legend()
        titles(axes[1], axes[1].get_title("left"), simulated)
    last = [f"{name or 'network'} {h['val_auc'].iloc[-1]:.3f}" for name, h in named.items()]
    return style.describe(
        figure,
        f"Learning curves by epoch: {', '.join(panels[p] for p in shown)}. Last validation AUC: "
        f"{', '.join(last)}.",
    )


def nine_views_figure(
    cohort: Cohort,
    row: int,
    *,
    probabilities: ArrayLike | None = None,
    fused: float | None = None,
    title: str | None = None,
) -> Figure:
    """The nine views of a nodule, 64 mm wide, with each network's malignant probability.

    Args:
        cohort: where the views are.
        row: of the nodule.
        probabilities: (9,) one a view; None writes none.
        fused: the fused probability, for the title.
        title: None describes the nodule.
    """
    values = None if probabilities is None else np.asarray(probabilities, dtype=float)
    if values is not None and values.shape != (len(PLANES),):
        raise InputError(f"nine probabilities are needed, not {values.shape}")
    text = describe_nodule(cohort, row) if title is None else title
    if fused is not None:
        text += f"; fused probability {fused:.2f}"
    with style.house_style():
        figure = Figure(figsize=(6.4, 7.0), layout="constrained")
        axes = figure.subplots(3, 3)
        for view, ax in enumerate(axes.flat):
            style.show_ct(ax, cohort.views[row, view][_MIDDLE, _MIDDLE])
            ax.set_title(f"{view}  {view_name(view)}", fontsize=9, fontweight="normal")
            if values is not None:
                _write_probability(ax, values[view])
            if cohort.simulated:
                style.mark_simulated(ax)
        _scale_bar(axes[2, 2])
        figure.suptitle(text)
    said = "" if values is None else f" Probabilities {', '.join(f'{v:.2f}' for v in values)}."
    return style.describe(figure, f"Nine CT views, 64 mm wide, of a {text}.{said}")


def reconstruction_figure(
    model: NineViewModel, cohort: Cohort, rows: Sequence[int], views: Sequence[int] | None = None
) -> Figure:
    """Fig. 4: input above, reconstruction below, malignant probability under both, view by view.

    Args:
        model: an MT-CNN.
        cohort: where the nodules are.
        rows: of the nodules, such as one benign and one malignant.
        views: which of the model's views; None shows all.

    Raises:
        InputError: the model is an ST-CNN, or lacks a view.
    """
    columns = list(model.config.views if views is None else views)
    if not set(columns) <= set(model.config.views):
        raise InputError(f"the model has the views {model.config.views}, not all of {columns}")
    pick = [model.config.views.index(v) for v in columns]
    images = model.reconstruct(cohort, rows)[:, pick]
    probabilities = model.predict(cohort, rows)[:, pick]
    with style.house_style():
        wide = max(1.05 * len(columns), 3.0)
        tall = wide / max(len(columns), 2) * 2 + 0.55
        figure = Figure(figsize=(wide, tall * len(rows)), layout="constrained")
        for part, row, recon, p in zip(
            np.atleast_1d(figure.subfigures(len(rows), 1)), rows, images, probabilities, strict=True
        ):
            part.suptitle(describe_nodule(cohort, row), x=0.01, ha="left", fontsize=10)
            axes = part.subplots(2, len(columns), squeeze=False)
            for k, view in enumerate(columns):
                style.show_ct(axes[0, k], cohort.views[row, view][_MIDDLE, _MIDDLE])
                style.show_ct(axes[1, k], recon[k], low=0.0, high=1.0)
                axes[0, k].set_title(
                    view_name(view).replace("diagonal ", "diag. "), fontsize=8, loc="center",
                    fontweight="normal",
                )  # fmt: skip
                axes[1, k].set_xlabel(f"p = {p[k]:.2f}", fontsize=9)
                if cohort.simulated:
                    style.mark_simulated(axes[0, k])
            axes[0, 0].set_ylabel("input", fontsize=9)
            axes[1, 0].set_ylabel("reconstruction", fontsize=9)
    words = "; ".join(
        f"{describe_nodule(cohort, row)}, probabilities {', '.join(f'{v:.2f}' for v in p)}"
        for row, p in zip(rows, probabilities, strict=True)
    )
    return style.describe(figure, f"Inputs above their reconstructions, by view. {words}.")


def augmentation_figure(
    cohort: Cohort, row: int, view: int = 0, *, copies: int = 4, shift_px: int = 6, seed: int = 0
) -> Figure:
    """Augmentation over real tissue: where the crops lie in the 76-pixel view, and the copies.

    The lower row makes the same copies from the 64-pixel image alone: the shift then brings in
    black from outside, which tells the network how far the image was moved.

    Args:
        cohort: where the views are.
        row: of the nodule.
        view: of the nodule.
        copies: how many transformed copies.
        shift_px: largest shift, pixels of 1 mm.
        seed: of the transformations.
    """
    wide = torch.from_numpy(np.array(cohort.views[row, view]))
    poor = torch.full_like(wide, -1000)
    poor[_MIDDLE, _MIDDLE] = wide[_MIDDLE, _MIDDLE]
    drawn = batches.draw(copies, shift_px, torch.Generator().manual_seed(seed))
    with style.house_style():
        figure = Figure(figsize=(1.75 * (copies + 2), 3.9), layout="constrained")
        grid = figure.add_gridspec(2, copies + 2, width_ratios=[2.05, *[1] * (copies + 1)])
        left = figure.add_subplot(grid[:, 0])
        style.show_ct(left, wide.numpy())
        left.set_title("stored view, 76 mm", fontsize=9)
        _crop(left, 0, 0, style.YELLOW, "--")
        for k in range(copies):
            _crop(left, int(drawn.shift_row[k]), int(drawn.shift_col[k]), _edge(k), "-")
        for line, source, word in ((0, wide, "over tissue"), (1, poor, "from 64 mm alone")):
            plain = batches.apply(source[None], batches.identity(1))
            images = torch.cat([plain, batches.apply(source.expand(copies, -1, -1), drawn)])
            for k, image in enumerate(images[:, 0].numpy()):
                ax = figure.add_subplot(grid[line, k + 1])
                style.show_ct(ax, image, low=0.0, high=1.0)
                for spine in ax.spines.values():
                    spine.set(visible=True, color=_edge(k - 1) if k else style.YELLOW, lw=2)
                ax.set_xlabel(_in_words(drawn, k - 1) if k else "plain", fontsize=8)
                if k == 0:
                    ax.set_ylabel(word, fontsize=9)
                if cohort.simulated:
                    style.mark_simulated(ax)
        if cohort.simulated:
            style.mark_simulated(left)
    return style.describe(
        figure,
        f"A stored view of 76 mm with the frames of {copies} shifted crops, and the crops, turned "
        "and mirrored: above they show lung everywhere, below black strips from outside the image.",
    )


def describe_nodule(cohort: Cohort, row: int) -> str:
    """A nodule in a few words, such as "malignant nodule, 18 mm, simulated"."""
    nodule = cohort.nodules.iloc[row]
    label = (
        "uncertain" if pd.isna(nodule["label"]) else ("benign", "malignant")[int(nodule["label"])]
    )
    size = nodule.get("diameter_mm")
    words = [f"{label} nodule"]
    if size is not None and not pd.isna(size):
        words.append(f"{size:.0f} mm")
    return ", ".join([*words, style.SIMULATED] if cohort.simulated else words)


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


def _write_probability(ax: Axes, probability: float) -> None:
    colour = style.MALIGNANT if probability >= 0.5 else style.BENIGN
    ax.set_xlabel(f"p = {probability:.2f}", color=colour, fontsize=9)


def _scale_bar(ax: Axes, length_mm: int = 20) -> None:
    """A bar of this length in the lower right corner of an image with pixels of 1 mm."""
    left, top = IMAGE_SIZE - 4 - length_mm, IMAGE_SIZE - 11
    box = Rectangle((left - 2, top - 1), length_mm + 4, 10, fc=style.BLACK, lw=0, alpha=0.6)
    ax.add_patch(box)
    ax.plot([left, left + length_mm], [top + 7, top + 7], color="white", lw=2)
    ax.text(left + length_mm / 2, top + 5.5, f"{length_mm} mm", color="white", ha="center",
            va="bottom", fontsize=7)  # fmt: skip


def _crop(ax: Axes, shift_row: int, shift_col: int, colour: str, line: str) -> None:
    corner = (batches.MARGIN + shift_col - 0.5, batches.MARGIN + shift_row - 0.5)
    ax.add_patch(Rectangle(corner, IMAGE_SIZE, IMAGE_SIZE, fill=False, ec=colour, ls=line, lw=1.4))


def _edge(copy: int) -> str:
    return (style.SKY, style.VERMILION, style.GREEN, style.PURPLE, style.ORANGE)[copy % 5]


def _in_words(drawn: batches.Transforms, copy: int) -> str:
    flip = ("", "flip l-r", "flip u-d")[int(drawn.mirror[copy])]
    shift = f"{int(drawn.shift_row[copy]):+d}, {int(drawn.shift_col[copy]):+d} mm"
    turn = f"{90 * int(drawn.turns[copy])}°" if drawn.turns[copy] else ""
    return f"{', '.join(filter(None, (flip, turn))) or 'as it is'}\nframe {shift}"
