"""The measured part of the page on what is simulated, with its figures, from `results/`.

    python -m benchmarks.realism.page

Reads `results/realism.json` and `results/transfer.json`, draws `results/realism_*.png`, and writes
what stands between the marks in `notebooks/what_is_simulated.md`; the rest of the page stays.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.common import in_words, put_between
from labkit import paths
from labkit.errors import InputError
from labkit.evaluation.statistics import Interval
from labkit.io import read_json, write_atomically
from labkit.plots import style

Values = Mapping[str, Any]
BEGIN = "<!-- measured: begin (python -m benchmarks.realism.page) -->"
END = "<!-- measured: end -->"
PAGE = Path(__file__).resolve().parents[2] / "notebooks" / "what_is_simulated.md"
# Of each kind of images its colour, marker, line, and place beside a tick.
LOOKS = {"real": (style.BLUE, "o", "-", -0.14), "simulated": (style.ORANGE, "s", "--", 0.14)}
# Of each arm of `transfer` its name in the table and in the figure, and its colour.
ARMS = {
    "simulated": ("simulated nodules of other patients, all there are",
                  "trained on simulated, all", style.ORANGE),
    "simulated_same": ("simulated twins of the real training nodules",
                       "trained on simulated, same nodules", style.PURPLE),
    "real": ("real nodules of other patients", "trained on real", style.BLUE),
    "size_only": ("nothing: the diameter alone", "diameter alone", style.SIZE_ONLY),
}  # fmt: skip
_BY_RATING = (
    ("density_by_texture", {"5": "solid", "3": "part-solid", "1": "ground glass"},
     "inside {} nodules, median, HU"),
    ("edge_by_margin", {"5": "sharp", "3": "middling"}, "edge of a {} margin, 10 to 90 %, mm"),
)  # fmt: skip
_MEASURES = {
    "lung_median_hu": "lung around the nodule, median, HU",
    "vessel_share": "share of vessels in that lung, %",
    "noise_lung_hu": "noise in that lung, HU",
    "noise_tissue_hu": "noise in soft tissue, HU",
    "wall_share": "share of wall in the slice, %",
}
_WORDS = {
    "vessel_piece_mm2": "the size of the pieces that vessels are cut into",
    "vessel_elongation": "how long those pieces are for their width",
    "vessel_long_share": "the share of long pieces among them",
    "edge_offset_mm": "where the edge lies against the outline",
    "edge_width_mm": "the width of the edge",
    "lung_median_hu": "the lung's median HU",
    "inside_median_hu": "the HU inside the nodule",
}


def nodule_figure(values: Values) -> Figure:
    """Draw HU inside the nodule by texture rating, and width of its edge by margin rating."""
    figure, axes = style.subplots(1, 2, (7.4, 3.4), width_ratios=(6, 5))
    for ax, (part, *_), title in zip(axes, _BY_RATING, ("density", "edge"), strict=True):
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
        ax.set_title(title)
        ax.grid(visible=False, axis="x")
    axes[0].set(xlabel="texture, mean of the readers", ylabel="median HU inside")
    axes[1].set(xlabel="margin, mean of the readers", ylabel="edge, 10 to 90 %, mm", ylim=(0, None))
    return _with_legend(figure, axes[0])


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
    return _with_legend(figure, left)


def contact_figure(values: Values) -> Figure:
    """Draw the share of nodules that touch pleura or mediastinum, by size, with intervals."""
    by_size = values["contact"]["by_size"]
    figure, ax = style.subplots(size=(6.4, 3.2))
    for kind, (color, marker, _, beside) in LOOKS.items():
        for i, row in enumerate(by_size.values()):
            of = Interval(*(100 * row[kind][k] for k in ("value", "low", "high")))
            style.whisker(ax, i + beside, of, color, marker, None if i else kind)
    names = [f"{name}\nn = {row['nodules']}" for name, row in by_size.items()]
    ax.set_xticks(range(len(names)), names)
    ax.set(xlabel="mean diameter", ylabel="touch wall, %", ylim=(0, 100))
    ax.grid(visible=False, axis="x")
    return _with_legend(figure, ax)


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
    arms = ("size_only", "real", "simulated", "simulated_same")
    figure, ax = style.subplots(size=(6.8, 2.6))
    for row, name in enumerate(arms):
        of = Interval(*(values["metrics"][name]["auc"][k] for k in ("value", "low", "high")))
        style.whisker(ax, row, of, ARMS[name][2], upright=False, mec="black")
        if name != "size_only":
            seeds = values["auc_by_seed"][name]
            ax.plot(seeds, [row + 0.25] * len(seeds), "|", color=style.GREY)
    style.name_rows(ax, [ARMS[name][1] for name in arms])
    ax.set(xlabel="AUC on real nodules, 95 % interval (grey: seeds)")
    return figure


def _with_legend(figure: Figure, ax: Axes) -> Figure:
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


FIGURES = {
    "nodule": (nodule_figure, "HU inside nodules by texture rating and edge width by margin "
               "rating"),
    "surroundings": (surroundings_figure, "Histogram of HU around nodules, and power spectrum of "
                     "lung"),
    "contact": (contact_figure, "Share of nodules that touch pleura or mediastinum, by size"),
    "classifier": (classifier_figure, "How well each kind of measure tells simulated from real"),
    "transfer": (transfer_figure, "AUC on real nodules of networks trained on real and on "
                 "simulated ones"),
}  # fmt: skip


def block(realism: Values, transfer: Values) -> str:
    """Return the measured part, marks and all, as Markdown; an InputError if a value is missing."""
    try:
        parts = (*_transfer(transfer), *_twins(realism), *_apart(realism), _made(realism, transfer))
    except (KeyError, IndexError, TypeError) as error:
        raise InputError(
            f"the measured values lack {error}; make them again with `python -m benchmarks.realism`"
        ) from None
    return "\n\n".join((BEGIN, *parts, END))


def _transfer(values: Values) -> list[str]:
    """Say what comes of training on simulated, testing on real."""
    found, plan = values["metrics"], values["plan"]
    rows = ["| Trained on | AUC on real nodules (95 % interval) |", "|---|---|"]
    rows += [f"| {text} | {in_words(found[arm]['auc'])} |" for arm, (text, *_) in ARMS.items()]
    gap = values["differences"]["simulated less real"]
    often = "once" if plan["seeds"] == 1 else f"repeated {plan['seeds']} times"
    return [
        "### Train on simulated, test on real",
        f"{found['real']['nodules']} real nodules of {found['real']['patients']} patients (benign "
        f"or malignant by their readers), axial view, MT-CNN; {plan['folds']} folds by patient, "
        f"{often}. No patient of a test fold is in any training set, real or simulated.",
        "\n".join(rows),
        f"Trained on simulated less trained on real: {in_words(gap['auc_difference'], sign='+')}, "
        f"DeLong's test by patient p = {gap['delong']['p_value']:.2g}.",
        _figure("transfer"),
    ]


def _twins(values: Values) -> list[str]:
    """Compare the same nodules, real and simulated, measure by measure."""
    rows = [
        "| Measure | Real: median (quartiles) | Simulated | Distance | By chance | Same nodule |",
        "|---|---|---|---|---|---|",
    ]
    for part, words, what in _BY_RATING:
        there = values[part]
        rows += [_row(what.format(w), there[r]) for r, w in words.items() if r in there]
    rows += [_row(what, values["measures"][name]) for name, what in _MEASURES.items()]
    contact, pairs = values["contact"], values["pairs"]
    touching = [{k: 100 * v for k, v in contact[kind].items()} for kind in LOOKS]
    real, simulated = (in_words(of, 0).replace(" (", " % (", 1) for of in touching)
    ratios = [row["ratio"]["value"] for row in values["spectrum"]["by_frequency"]]
    return [
        "### The same nodules, real and simulated",
        f"{pairs['nodules']} nodules of {pairs['patients']} patients, both versions clipped and "
        "cut alike. *Distance* is the Kolmogorov-Smirnov distance of the two distributions (0: the "
        "same, 1: no overlap); *by chance* is what 95 % of random exchanges of real and simulated "
        "stay below; *same nodule* is the rank correlation between a nodule and its twin.",
        "\n".join(rows),
        f"{real} of the real nodules touch pleura or mediastinum, and {simulated} of the simulated "
        "ones; whether they are the same ones, "
        f"Cohen's kappa says: {contact['kappa']:.2f} (0: as by chance, 1: all). Histograms of HU "
        "around the nodules are "
        f"{values['histogram']['wasserstein_hu']['value']:.0f} HU apart (Wasserstein); the power "
        f"spectrum of simulated lung is {min(ratios):.2f} to {max(ratios):.2f} times the real one, "
        "by frequency.",
        *map(_figure, ("nodule", "surroundings", "contact")),
    ]


def _row(what: str, of: Values) -> str:
    factor, sides = 100 if what.endswith("%") else 1, []
    for kind in LOOKS:
        found = {k: factor * of[kind][q]
                 for k, q in (("value", "median"), ("low", "q25"), ("high", "q75"))}  # fmt: skip
        small = max(abs(found["low"]), abs(found["high"])) < 20
        sides.append(in_words(found, 1 if small else 0))
    twin = "-" if of["spearman"] is None else f"{of['spearman']:.2f}"
    return (f"| {what} (n = {of['nodules']}) | {sides[0]} | {sides[1]} | "
            f"{of['ks']['value']:.2f} | {of['ks']['chance']:.2f} | {twin} |")  # fmt: skip


def _apart(values: Values) -> list[str]:
    """Say how well the two can be told apart, and by what."""
    found = values["classifier"]
    strongest = list(found["by_measure"])[:3]
    words = [_WORDS.get(name, name.replace("_", " ")) for name in strongest]
    single = max(abs(found["by_measure"][name] - 0.5) for name in strongest) + 0.5
    return [
        "### Can they be told apart?",
        "A classifier that sees all these measures of one image says which of the two it is with "
        f"an AUC of {in_words(found['boosting'], 2)}; 0.5 would be not at all. No single measure "
        f"reaches {int(100 * single) / 100 + 0.01:.2f}. What gives the simulation away most: "
        f"{words[0]}, {words[1]}, and {words[2]}.",
        _figure("classifier"),
    ]


def _made(*both: Values) -> str:
    seen = sorted({of["cohorts"]["simulated"]["settings"]["scene_version"] for of in both})
    versions = f"{'s' * (len(seen) > 1)} {' and '.join(map(str, seen))}"
    return (
        f"*Scene version{versions}; measured {' and '.join(sorted({v['date'][:10] for v in both}))}"
        f" on {both[1]['hardware']['device']}. The full values, with settings and checksums, are "
        "in [results/realism.json](../results/realism.json) and "
        "[results/transfer.json](../results/transfer.json).*"
    )


def _figure(name: str) -> str:
    return f"![{FIGURES[name][1]}](../results/realism_{name}.png)"


def main() -> int:
    """Bring page and figures up to date; return 0 when it worked, 2 for bad input."""
    folder = paths.results()
    try:
        realism, transfer = (read_json(folder / f"{name}.json", "measured values")
                             for name in ("realism", "transfer"))  # fmt: skip
        put_between(PAGE, block(realism, transfer), BEGIN, END)
        for name, (draw, _) in FIGURES.items():
            with style.house_style():
                figure = draw(transfer if name == "transfer" else realism)
            save = partial(figure.savefig, format="png")
            write_atomically(folder / f"realism_{name}.png", save)
    except InputError as error:
        print(f"benchmarks.realism.page: {error}", file=sys.stderr)
        return 2
    print(f"{PAGE}: up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
