"""Figures of how far simulated CT is from real CT, from the committed numbers alone.

Each takes what `labkit.realism` wrote (`results/realism.json`, `results/transfer.json`). Only
`twins_figure` needs the images: real ones are shown to readers who have them, and never committed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from labkit.errors import InputError
from labkit.plots import style

REAL, SIMULATED = style.BLUE, style.ORANGE
COLORS = {"real": REAL, "simulated": SIMULATED}
_MARKERS = {"real": "o", "simulated": "s"}
_SIDE = {"real": -0.14, "simulated": 0.14}
_ARMS = {
    "size_only": "diameter alone",
    "real": "trained on real",
    "simulated": "trained on simulated, all",
    "simulated_same": "trained on simulated, same nodules",
}
_ARM_COLORS = {
    "size_only": style.SIZE_ONLY,
    "real": REAL,
    "simulated": SIMULATED,
    "simulated_same": style.PURPLE,
}


def nodule_figure(values: Mapping[str, Any]) -> Figure:
    """HU inside the nodule by texture rating, and width of its edge by margin rating.

    Args:
        values: what `results/realism.json` holds.
    """
    density, edge = _part(values, "density_by_texture"), _part(values, "edge_by_margin")
    with style.house_style():
        figure = Figure(figsize=(7.4, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(6, 5))
        _boxes(left, density)
        _boxes(right, edge)
        left.set(xlabel="texture, mean of the readers", ylabel="median HU inside")
        right.set(
            xlabel="margin, mean of the readers", ylabel="edge, 10 to 90 %, mm", ylim=(0, None)
        )
        left.set_title("density")
        right.set_title("edge")
        _legend(figure, left)
    solid, sharp = density.get("5"), edge.get("5")
    spoken = ""
    if solid and sharp:
        spoken = (
            f"Solid nodules have a median of {solid['real']['median']:.0f} HU in real and "
            f"{solid['simulated']['median']:.0f} in simulated images; edges rated sharp measure "
            f"{sharp['real']['median']:.1f} and {sharp['simulated']['median']:.1f} mm."
        )
    return style.describe(
        figure,
        "Medians with quartiles and outer tenths of the same nodules in real and simulated CT, "
        f"left density by texture rating, right edge width by margin rating. {spoken}",
    )


def surroundings_figure(values: Mapping[str, Any]) -> Figure:
    """HU around the nodule, and the power spectrum of the lung there.

    Args:
        values: what `results/realism.json` holds.
    """
    shares, spectrum = _part(values, "histogram"), _part(values, "spectrum")["by_frequency"]
    with style.house_style():
        figure = Figure(figsize=(7.4, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        edges = np.asarray(shares["edges_hu"])
        for kind, color in COLORS.items():
            dashed = "-" if kind == "real" else "--"
            percent = 100 * np.asarray(shares[kind])
            left.stairs(percent, edges, color=color, linestyle=dashed, label=kind, linewidth=1.4)
            f = np.array([row["cycles_per_mm"] for row in spectrum])
            q = {n: np.array([row[kind][n] for row in spectrum]) for n in ("q25", "median", "q75")}
            right.plot(f, q["median"], color=color, linestyle=dashed)
            right.fill_between(f, q["q25"], q["q75"], color=color, alpha=0.2, linewidth=0)
        left.set_yscale("log")
        left.set(xlabel="HU, 3 to 20 mm from the nodule", ylabel="share of voxels in 22 HU, %")
        right.set_yscale("log")
        right.set(xlabel="cycles/mm, axial patches of lung", ylabel="power, HU² mm²")
        left.set_title("histogram")
        right.set_title("power spectrum: median, quartiles")
        _legend(figure, left)
    last = spectrum[-1]
    return style.describe(
        figure,
        "Left, histograms of HU around the nodules in real and simulated CT, "
        f"{shares['wasserstein_hu']['value']:.0f} HU apart (Wasserstein). Right, power spectra of "
        f"lung; at {last['cycles_per_mm']:.2f} cycles/mm simulated power is "
        f"{last['ratio']['value']:.2f} times the real.",
    )


def contact_figure(values: Mapping[str, Any]) -> Figure:
    """Share of nodules that touch pleura or mediastinum, by size, with intervals over patients.

    Args:
        values: what `results/realism.json` holds.
    """
    by_size = _part(values, "contact")["by_size"]
    with style.house_style():
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        ax = figure.subplots()
        for kind, color in COLORS.items():
            found = [100 * np.array(_ordered(row[kind])) for row in by_size.values()]
            value, low, high = np.array(found).T
            ax.errorbar(
                np.arange(len(by_size)) + _SIDE[kind], value, np.stack([value - low, high - value]),
                color=color, marker=_MARKERS[kind], linestyle="none", capsize=3, label=kind,
            )  # fmt: skip
        names = [f"{name}\nn = {row['nodules']}" for name, row in by_size.items()]
        ax.set_xticks(range(len(names)), names)
        ax.set(xlabel="mean diameter", ylabel="touch wall, %", ylim=(0, 100))
        ax.grid(visible=False, axis="x")
        _legend(figure, ax)
    spoken = "; ".join(
        f"{name}: {100 * row['real']['value']:.0f} % real, "
        f"{100 * row['simulated']['value']:.0f} % simulated"
        for name, row in by_size.items()
    )
    return style.describe(figure, f"Share of nodules that touch the body's wall. {spoken}.")


def classifier_figure(values: Mapping[str, Any]) -> Figure:
    """How well a classifier tells simulated from real, by kind of measure; 0.5 is not at all.

    Args:
        values: what `results/realism.json` holds.
    """
    found = _part(values, "classifier")
    bars = {"everything": found["boosting"]["value"]}
    bars |= dict(sorted(found["by_theme"].items(), key=lambda pair: -pair[1]))
    with style.house_style():
        figure = Figure(figsize=(6.4, 3.0), layout="constrained")
        ax = figure.subplots()
        drawn = ax.barh(list(bars), [v - 0.5 for v in bars.values()], left=0.5, color=style.PURPLE)
        ax.bar_label(drawn, [f"{v:.2f}" for v in bars.values()], padding=3)
        ax.invert_yaxis()
        ax.set(xlabel="AUC of telling simulated from real (0.5: no difference seen)", xlim=(0.5, 1))
        ax.grid(visible=False, axis="y")
    spoken = ", ".join(f"{name} {value:.2f}" for name, value in bars.items())
    return style.describe(figure, f"Bars of AUC: {spoken}.")


def transfer_figure(values: Mapping[str, Any]) -> Figure:
    """AUC on real nodules of networks trained on real and on simulated ones.

    Args:
        values: what `results/transfer.json` holds.
    """
    metrics, seeds = _part(values, "metrics"), _part(values, "auc_by_seed")
    names = [name for name in _ARMS if name in metrics]
    with style.house_style():
        figure = Figure(figsize=(6.8, 2.6), layout="constrained")
        ax = figure.subplots()
        for row, name in enumerate(names):
            value, low, high = _ordered(metrics[name]["auc"])
            ax.errorbar(
                value, row, xerr=[[value - low], [high - value]], color=_ARM_COLORS[name],
                marker="o", capsize=3, markeredgecolor="black",
            )  # fmt: skip
            if name != "size_only":
                ax.plot(seeds[name], [row + 0.25] * len(seeds[name]), "|", color=style.GREY)
        ax.set_yticks(range(len(names)), [_ARMS[name] for name in names])
        ax.invert_yaxis()
        ax.set(xlabel="AUC on real nodules, 95 % interval (grey: seeds)")
        ax.grid(visible=False, axis="y")
    spoken = "; ".join(f"{_ARMS[n]} {metrics[n]['auc']['value']:.3f}" for n in names)
    return style.describe(figure, f"AUC on real nodules: {spoken}.")


def twins_figure(
    real: Sequence[ArrayLike], simulated: Sequence[ArrayLike], titles: Sequence[str] = ()
) -> Figure:
    """The same nodules, real and simulated, side by side.

    Real CT is not ours to publish: what this draws stays with the reader who has the images.

    Args:
        real: axial slices, HU.
        simulated: of the same nodules, HU.
        titles: one a pair.

    Raises:
        InputError: nothing to draw, or lists of different lengths.
    """
    if not len(real) or len(real) != len(simulated):
        raise InputError(f"{len(real)} real and {len(simulated)} simulated slices; give pairs")
    across = min(3, len(real))
    down = -(-len(real) // across)
    with style.house_style():
        figure = Figure(figsize=(2.5 * across, 1.4 * down + 0.2), layout="constrained")
        axes = figure.subplots(down, 2 * across, squeeze=False)
        for ax in axes.flat:
            ax.set_axis_off()
        for number, pair in enumerate(zip(real, simulated, strict=True)):
            row, column = divmod(number, across)
            for k, (word, image) in enumerate(zip(COLORS, pair, strict=True)):
                ax = axes[row, 2 * column + k]
                ax.set_axis_on()
                style.show_ct(ax, image)
                style.mark_simulated(ax, word)
            if number < len(titles):
                axes[row, 2 * column].set_title(titles[number], fontsize=8, loc="left")
    return style.describe(
        figure, f"{len(real)} nodules, each as real CT on the left and simulated on the right."
    )


def _part(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        raise InputError(f"no {name!r} in these values; make them with `python -m labkit.realism`")
    return values[name]


def _ordered(found: Mapping[str, float]) -> tuple[float, float, float]:
    return found["value"], found["low"], found["high"]


def _boxes(ax: Axes, groups: Mapping[str, Any]) -> None:
    """Median, quartiles and outer tenths of every group, real beside simulated."""
    for kind, color in COLORS.items():
        x = np.arange(len(groups)) + _SIDE[kind]
        q = {n: np.array([g[kind][n] for g in groups.values()]) for n in
             ("p10", "q25", "median", "q75", "p90")}  # fmt: skip
        ax.vlines(x, q["p10"], q["p90"], color=color, linewidth=1)
        ax.vlines(x, q["q25"], q["q75"], color=color, linewidth=6, alpha=0.6)
        ax.plot(
            x, q["median"], _MARKERS[kind], color=color, markeredgecolor="black", markersize=5,
            label=kind,
        )  # fmt: skip
    names = [f"{name}\nn = {group['nodules']}" for name, group in groups.items()]
    ax.set_xticks(range(len(names)), names, fontsize=8)
    ax.grid(visible=False, axis="x")


def _legend(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2)
