"""Lesson 11's figures of rarity: one nodule among hundreds of candidates, and what it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from labkit.errors import InputError
from labkit.evaluation import metrics
from labkit.evaluation.froc import RATES
from labkit.plots import style
from labkit.plots.roc import method_colours, titles

_ALL_SHOWN = (0.1, 200.0)


def two_axes_figure(
    scored: Mapping[str, tuple[ArrayLike, ArrayLike]], scans: int, *, simulated: bool = False
) -> Figure:
    """One ROC curve over candidates, drawn twice: against the rate, and against marks a scan.

    The part that the challenge looks at, up to 8 false positives a scan, is shaded in both.

    Args:
        scored: name -> (labels, scores) of the same candidates.
        scans: that they come from.
        simulated: say that the images were simulated.

    Raises:
        InputError: nothing to draw, or no scan.
    """
    if not scored or scans < 1:
        raise InputError("give one or more sets of scores, and how many scans they are from")
    words = []
    with style.house_style():
        figure = Figure(figsize=(9.4, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1, 1.25])
        colours = method_colours(list(scored))
        for name, (labels, scores) in scored.items():
            y, s = metrics.checked(labels, scores)
            false, true = metrics.roc(y, s)
            a_scan = int((y == 0).sum()) / scans
            auc = metrics.roc_auc(y, s)
            colour = colours[name]
            left.plot(false, true, color=colour, label=f"{name}: {auc:.3f}")
            right.step(false * a_scan, true, where="post", color=colour)
            at = np.interp(RATES[-1] / a_scan, false, true)
            words.append(f"{name}: AUC {auc:.3f}, {at:.3f} at 8 false positives a scan")
        left.axvspan(0, RATES[-1] / a_scan, color=style.YELLOW, alpha=0.45, lw=0)
        right.axvspan(RATES[0], RATES[-1], color=style.YELLOW, alpha=0.45, lw=0)
        left.plot([0, 1], [0, 1], color=style.GREY, lw=0.8, ls=":")
        left.set(xlabel="false positive rate", ylabel="share of nodules' candidates called")
        left.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        left.legend(loc="lower right", title="AUC", title_fontsize=9)
        right.set_xscale("log")
        ticks = [*RATES, 20, 50, 100]
        right.set_xticks(ticks, [str(Fraction(t)) for t in ticks])
        right.minorticks_off()
        right.set(xlabel="the same, as false positives a scan", xlim=_ALL_SHOWN)
        titles(right, "shaded: what the challenge looks at", simulated)
    return style.describe(
        figure,
        "One ROC curve on two axes, the false positive rate and the false positives a scan; the "
        f"challenge's part, 1/8 to 8 a scan, is a sliver of the first. {'; '.join(words)}.",
    )


def epochs_figure(labels: ArrayLike, shown: Sequence[ArrayLike]) -> Figure:
    """What the sampler shows: the mixture of an epoch, and the candidates met so far.

    Args:
        labels: (n,) of the training candidates, 1 a nodule.
        shown: of each epoch, in order, which candidates its images are of.

    Raises:
        InputError: no epoch.
    """
    y = np.asarray(labels, int)
    epochs = [np.asarray(rows, int) for rows in shown]
    if not epochs:
        raise InputError("there is no epoch to draw")
    mixture = {"as they come": y, "as an epoch shows them": y[epochs[0]]}
    with style.house_style():
        figure = Figure(figsize=(8.6, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.2, 1])
        for at, (name, of) in enumerate(mixture.items()):
            share = 100 * of.mean()
            left.barh(at, share, color=style.GREEN, height=0.5, label=None if at else "nodule")
            left.barh(at, 100 - share, left=share, color=style.SKY, height=0.5,
                      label=None if at else "not")  # fmt: skip
            words = f"{len(of):,} images, {share:.1f} % of nodules"
            left.text(0, at - 0.36, f"{name}: {words}", fontsize=9, va="bottom")
        left.set(xlim=(0, 100), ylim=(1.6, -0.75), xlabel="share, %", yticks=[])
        left.grid(visible=False, axis="y")
        left.legend(loc="upper right", ncols=2, bbox_to_anchor=(1, 1.16))
        counts = {}
        for value, name, colour in ((1, "nodules", style.GREEN), (0, "others", style.SKY)):
            met = _met(epochs, y, value)
            right.plot(np.arange(1, len(met) + 1), 100 * met, "o-", color=colour, ms=4, label=name)
            counts[name] = met[-1]
        right.set(xlabel="epoch", ylabel="candidates met so far, %", ylim=(0, 104))
        right.set_xticks(np.unique(np.linspace(1, len(epochs), 6).round().astype(int)))
        right.legend(loc="best")
    spoken = "; ".join(
        f"{name}: {len(of):,} images, {of.mean():.3f} of nodules" for name, of in mixture.items()
    )
    return style.describe(
        figure,
        f"Mixture of classes, {spoken}. After {len(epochs)} epochs {counts['nodules']:.0%} of the "
        f"nodules' candidates and {counts['others']:.0%} of the others were met.",
    )


def reliability_figure(tables: Mapping[str, pd.DataFrame], *, simulated: bool = False) -> Figure:
    """Predicted against observed share of nodules, on logarithmic axes, where nodules are rare.

    Args:
        tables: name -> what `evaluation.calibration.reliability_table` returns.
        simulated: say that the images were simulated.

    Raises:
        InputError: nothing to draw.
    """
    if not tables:
        raise InputError("there is no calibration to draw")
    least = min(_least(table) for table in tables.values())
    colours = dict(zip(tables, (style.VERMILION, style.BLUE, style.GREEN, style.PURPLE),
                       strict=False))  # fmt: skip
    words = []
    with style.house_style():
        figure = Figure(figsize=(5.4, 4.6), layout="constrained")
        ax = figure.subplots()
        ax.plot([least, 1], [least, 1], color=style.GREY, lw=0.8, ls=":")
        for name, table in tables.items():
            _draw_reliability(ax, name, table, colours.get(name, style.GREY), least)
            top = table.iloc[-1]
            words.append(
                f"{name}: highest bin predicted {top['predicted']:.2g}, observed "
                f"{top['observed']:.2g}"
            )
        ax.set(xscale="log", yscale="log", xlim=(least, 1.3), ylim=(least, 1.3))
        ax.set(xlabel="predicted probability, mean of a bin", aspect="equal")
        ax.set(ylabel="share that are nodules, with 95 % interval")
        titles(ax, "", simulated)
        ax.legend(loc="upper left")
    return style.describe(
        figure,
        "Reliability diagram on logarithmic axes; open triangles at the foot: no nodule in the "
        f"bin. {'; '.join(words)}.",
    )


def _draw_reliability(ax: Axes, name: str, table: pd.DataFrame, colour: str, least: float) -> None:
    some = table[table["observed"] > 0]
    none = table[table["observed"] == 0]
    ax.vlines(some["predicted"], np.maximum(some["low"], least), some["high"], color=colour, lw=1.2)
    ax.plot(some["predicted"], some["observed"], "o", color=colour, label=name)
    ax.vlines(none["predicted"], least, none["high"], color=colour, lw=1.2, alpha=0.5)
    ax.plot(none["predicted"], np.full(len(none), least * 1.15), "v", mfc="white", color=colour)


def _least(table: pd.DataFrame) -> float:
    """The decade below all that a table has to show."""
    shown = np.concatenate([table["predicted"], table["high"], table["observed"]])
    return float(10.0 ** np.floor(np.log10(max(1e-6, shown[shown > 0].min()))))


def _met(epochs: Sequence[NDArray[np.int64]], y: NDArray[np.int64], value: int) -> NDArray:
    """Share of a class that was shown up to each epoch."""
    seen = np.zeros(len(y), bool)
    shares = []
    for rows in epochs:
        seen[rows] = True
        shares.append(seen[y == value].mean())
    return np.array(shares)
