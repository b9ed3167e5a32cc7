"""Reliability diagrams: whether probabilities come true."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from labkit.errors import InputError
from labkit.evaluation.calibration import Calibration
from labkit.plots import style
from labkit.plots.roc import method_colours, titles


def reliability_figure(
    methods: Mapping[str, Calibration], *, simulated: bool = False, title: str = ""
) -> Figure:
    """Share of malignant nodules against predicted probability, a panel a method.

    Args:
        methods: name -> what `evaluation.calibration.calibration` returns.
        simulated: say that the images were simulated.
        title: above the panels.

    Returns:
        Dots for bins of equally many predictions with their 95 % intervals, the diagonal of perfect
        calibration, and a bar at the foot for the probabilities that each bin holds.

    Raises:
        InputError: nothing to draw.
    """
    if not methods:
        raise InputError("there is no calibration to draw")
    colours = method_colours(list(methods))
    words = []
    with style.house_style():
        figure = Figure(figsize=(0.7 + 3.1 * len(methods), 3.9), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(methods), sharey=True))
        for ax, (name, found) in zip(panels, methods.items(), strict=True):
            colour = style.SIZE_ONLY if name.lower().startswith("size") else colours[name]
            table = found.table
            ax.plot([0, 1], [0, 1], color=style.GREY, lw=0.8, ls=":")
            ax.vlines(table["predicted"], table["low"], table["high"], color=colour, lw=1.2)
            ax.plot(table["predicted"], table["observed"], "o-", color=colour, lw=0.8)
            shades = np.where(np.arange(len(table)) % 2, 0.25, 0.6)
            edges = _edges(table["lowest"].to_numpy(), table["highest"].to_numpy())
            for left, right, shade in zip(edges[:-1], edges[1:], shades, strict=True):
                ax.axvspan(left, right, ymax=0.03, color=colour, alpha=shade, lw=0)
            chance, most = found.error_if_calibrated
            ax.text(
                0.04, 0.97,
                f"Brier {found.brier}\nerror {found.error.value:.3f}; by chance alone\n"
                f"{chance:.3f} (95 % of times below {most:.3f})",
                transform=ax.transAxes, va="top", fontsize=8,
            )  # fmt: skip
            ax.set(xlim=(-0.02, 1.02), ylim=(-0.04, 1.28), aspect="equal")
            ax.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
            ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
            ax.set_xlabel("predicted probability")
            titles(ax, name, simulated)
            worst = table.loc[(table["observed"] - table["predicted"]).abs().idxmax()]
            words.append(
                f"{name}: Brier score {found.brier}, calibration error {found.error.value:.3f} "
                f"where chance alone would give {chance:.3f}; furthest off at predicted "
                f"{worst['predicted']:.2f}, observed {worst['observed']:.2f}"
            )
        panels[0].set_ylabel("share malignant, with 95 % interval")
        if title:
            figure.suptitle(title)
    return style.describe(figure, "Reliability diagram. " + ". ".join(words) + ".")


def _edges(lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """Where one bin's probabilities end and the next one's begin."""
    return np.concatenate([lowest[:1], (highest[:-1] + lowest[1:]) / 2, highest[-1:]])
