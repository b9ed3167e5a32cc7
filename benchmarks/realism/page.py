"""The measured part of the page on what is simulated, with its figures, from `results/`.

    python -m benchmarks.realism.page

Reads `results/realism.json` and `results/transfer.json`, draws `results/realism_*.png`, and writes
what stands between the marks in `notebooks/what_is_simulated.md`, in the words of
`benchmarks/pages`; the rest of the page stays.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.common import command, fill, in_words, put_between
from labkit import paths
from labkit.evaluation.statistics import Interval
from labkit.io import read_json, write_atomically
from labkit.plots import style

Values = Mapping[str, Any]
BEGIN = "<!-- measured: begin (python -m benchmarks.realism.page) -->"
END = "<!-- measured: end -->"
PAGE = Path(__file__).resolve().parents[2] / "notebooks" / "what_is_simulated.md"
# Of each kind of images its colour, marker, line, and place beside a tick.
LOOKS = {"real": (style.BLUE, "o", "-", -0.14), "simulated": (style.ORANGE, "s", "--", 0.14)}
# Of each arm of `transfer` its name in the figure, and its colour.
ARMS = {
    "size_only": ("diameter alone", style.SIZE_ONLY), "real": ("trained on real", style.BLUE),
    "simulated": ("trained on simulated, all", style.ORANGE),
    "simulated_same": ("trained on simulated, same nodules", style.PURPLE),
}  # fmt: skip


def _of(values: Values, factor: float = 1) -> Interval:
    return Interval(*(factor * values[k] for k in ("value", "low", "high")))


def nodule_figure(values: Values) -> Figure:
    """Draw HU inside the nodule by texture rating, and width of its edge by margin rating."""
    figure, axes = style.subplots(1, 2, (7.4, 3.4), width_ratios=(6, 5))
    for ax, part in zip(axes, ("density_by_texture", "edge_by_margin"), strict=True):
        groups = values[part]
        for kind, (color, marker, _, beside) in LOOKS.items():
            x = np.arange(len(groups)) + beside
            q = {n: [g[kind][n] for g in groups.values()]
                 for n in ("p10", "q25", "median", "q75", "p90")}  # fmt: skip
            ax.vlines(x, q["p10"], q["p90"], linewidth=1, color=color)
            ax.vlines(x, q["q25"], q["q75"], linewidth=6, alpha=0.6, color=color)
            ax.plot(x, q["median"], marker, mec="black", ms=5, label=kind, color=color)
        names = [f"{name}\nn = {group['nodules']}" for name, group in groups.items()]
        ax.set_xticks(range(len(names)), names, fontsize=8)
        ax.set_title(part.split("_")[0])
        ax.grid(visible=False, axis="x")
    axes[0].set(xlabel="texture, mean of the readers", ylabel="median HU inside")
    axes[1].set(xlabel="margin, mean of the readers", ylabel="edge, 10 to 90 %, mm", ylim=(0, None))
    return _with_legend(figure)


def surroundings_figure(values: Values) -> Figure:
    """Draw HU around the nodule, and the power spectrum of the lung there."""
    shares, spectrum = values["histogram"], values["spectrum"]["by_frequency"]
    figure, (left, right) = style.subplots(1, 2, (7.4, 3.4))
    f = [row["cycles_per_mm"] for row in spectrum]
    for kind, (color, _, line, _) in LOOKS.items():
        look = {"color": color, "linestyle": line}
        left.stairs(100 * np.array(shares[kind]), shares["edges_hu"], label=kind, lw=1.4, **look)
        low, middle, high = ([r[kind][q] for r in spectrum] for q in ("q25", "median", "q75"))
        right.plot(f, middle, **look)
        right.fill_between(f, low, high, color=color, alpha=0.2, linewidth=0)
    left.set(xlabel="HU, 3 to 20 mm from the nodule", ylabel="share of voxels in 22 HU, %",
             yscale="log", title="histogram")  # fmt: skip
    right.set(xlabel="cycles/mm, axial patches of lung", ylabel="power, HU² mm²", yscale="log",
              title="power spectrum: median, quartiles")  # fmt: skip
    return _with_legend(figure)


def contact_figure(values: Values) -> Figure:
    """Draw the share of nodules that touch pleura or mediastinum, by size, with intervals."""
    by_size = values["contact"]["by_size"]
    figure, ax = style.subplots(size=(6.4, 3.2))
    for kind, (color, marker, _, beside) in LOOKS.items():
        for i, row in enumerate(by_size.values()):
            style.whisker(ax, i + beside, _of(row[kind], 100), color, marker, None if i else kind)
    names = [f"{name}\nn = {row['nodules']}" for name, row in by_size.items()]
    ax.set_xticks(range(len(names)), names)
    ax.set(xlabel="mean diameter", ylabel="touch wall, %", ylim=(0, 100))
    ax.grid(visible=False, axis="x")
    return _with_legend(figure)


def classifier_figure(values: Values) -> Figure:
    """Draw how well a classifier tells simulated from real, by kind of measure; 0.5 is not."""
    found = values["classifier"]
    bars = {"everything": found["boosting"]["value"]}
    bars |= dict(sorted(found["by_theme"].items(), key=lambda pair: -pair[1]))
    figure, ax = style.subplots(size=(6.4, 3.0))
    drawn = ax.barh(list(bars), [v - 0.5 for v in bars.values()], left=0.5, color=style.PURPLE)
    ax.bar_label(drawn, [f"{v:.2f}" for v in bars.values()], padding=3)
    ax.invert_yaxis()
    ax.set(xlabel="AUC of telling simulated from real (0.5: no difference seen)", xlim=(0.5, 1))
    ax.grid(visible=False, axis="y")
    return figure


def transfer_figure(values: Values) -> Figure:
    """Draw the AUC on real nodules of networks trained on real and on simulated ones."""
    figure, ax = style.subplots(size=(6.8, 2.6))
    for row, (name, (_, colour)) in enumerate(ARMS.items()):
        of = _of(values["metrics"][name]["auc"])
        style.whisker(ax, row, of, colour, upright=False, mec="black")
        if name != "size_only":
            seeds = values["auc_by_seed"][name]
            ax.plot(seeds, [row + 0.25] * len(seeds), "|", color=style.GREY)
    style.name_rows(ax, [said for said, _ in ARMS.values()])
    ax.set(xlabel="AUC on real nodules, 95 % interval (grey: seeds)")
    return figure


def _with_legend(figure: Figure) -> Figure:
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper right", ncols=2)
    return figure


FIGURES = {
    "nodule": (
        nodule_figure,
        "HU inside nodules by texture rating and edge width by margin rating",
    ),
    "surroundings": (
        surroundings_figure,
        "Histogram of HU around nodules, and power spectrum of lung",
    ),
    "contact": (contact_figure, "Share of nodules that touch pleura or mediastinum, by size"),
    "classifier": (classifier_figure, "How well each kind of measure tells simulated from real"),
    "transfer": (
        transfer_figure,
        "AUC on real nodules of networks trained on real and on simulated ones",
    ),
}  # of each file what draws it, and what it shows in words


def block(realism: Values, transfer: Values) -> str:
    """Return the measured part, marks and all, as Markdown; an InputError if a value is missing."""

    def quartiles(of: Values, factor: float) -> str:
        found = {
            k: factor * of[q] for k, q in (("value", "median"), ("low", "q25"), ("high", "q75"))
        }
        return in_words(found, int(max(abs(found["low"]), abs(found["high"])) < 20))

    def percent(of: Values) -> str:
        return in_words({k: 100 * v for k, v in of.items()}, 0).replace(" (", " % (", 1)

    def beyond(aucs: Iterable[float]) -> float:
        return int(100 * (0.5 + max(abs(auc - 0.5) for auc in aucs))) / 100 + 0.01

    return fill(
        "simulated", begin=BEGIN, end=END, realism=realism, transfer=transfer, figures=FIGURES,
        quartiles=quartiles, percent=percent, beyond=beyond,
    )  # fmt: skip


def write() -> None:
    """Bring page and figures up to date."""
    values = {name: read_json(paths.results() / f"{name}.json", "measured values")
              for name in ("realism", "transfer")}  # fmt: skip
    put_between(PAGE, block(**values), BEGIN, END)
    for name, (draw, _) in FIGURES.items():
        with style.house_style():
            figure = draw(values["transfer" if name == "transfer" else "realism"])
        save = partial(figure.savefig, format="png")
        write_atomically(paths.results() / f"realism_{name}.png", save)
    print(f"{PAGE}: up to date")


if __name__ == "__main__":
    sys.exit(command(write, __doc__))
