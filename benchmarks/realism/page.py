"""The measured part of the course page "What is simulated, and what is not".

    python -m benchmarks.realism.page [notebooks/what_is_simulated.md]

Numbers and figures come from `results/realism.json` and `results/transfer.json` alone, and stand
between two marks in the page; the rest of it is written by hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from benchmarks.common import in_words
from labkit import paths
from labkit.errors import InputError
from labkit.evaluation.statistics import Interval
from labkit.io import read_json, write_atomically
from labkit.plots import style

COLORS = {"real": style.BLUE, "simulated": style.ORANGE}
_MARKERS, _LINES = {"real": "o", "simulated": "s"}, {"real": "-", "simulated": "--"}
_SIDE = {"real": -0.14, "simulated": 0.14}
ARMS = {
    "size_only": ("diameter alone", style.SIZE_ONLY),
    "real": ("trained on real", style.BLUE),
    "simulated": ("trained on simulated, all", style.ORANGE),
    "simulated_same": ("trained on simulated, same nodules", style.PURPLE),
}


@style.figure
def nodule_figure(values: Mapping[str, Any]) -> style.Drawn:
    """Draw HU inside the nodule by texture rating, and width of its edge by margin rating."""
    density, edge = _part(values, "density_by_texture"), _part(values, "edge_by_margin")
    figure, axes = style.subplots(1, 2, (7.4, 3.4), width_ratios=(6, 5))
    for ax, groups, title in zip(axes, (density, edge), ("density", "edge"), strict=True):
        for kind, color in COLORS.items():
            x, look = np.arange(len(groups)) + _SIDE[kind], {"color": color}
            q = {n: [g[kind][n] for g in groups.values()]
                 for n in ("p10", "q25", "median", "q75", "p90")}  # fmt: skip
            ax.vlines(x, q["p10"], q["p90"], linewidth=1, **look)
            ax.vlines(x, q["q25"], q["q75"], linewidth=6, alpha=0.6, **look)
            ax.plot(x, q["median"], _MARKERS[kind], mec="black", ms=5, label=kind, **look)
        names = [f"{name}\nn = {group['nodules']}" for name, group in groups.items()]
        ax.set_xticks(range(len(names)), names, fontsize=8)
        ax.set_title(title)
        ax.grid(visible=False, axis="x")
    axes[0].set(xlabel="texture, mean of the readers", ylabel="median HU inside")
    axes[1].set(xlabel="margin, mean of the readers", ylabel="edge, 10 to 90 %, mm", ylim=(0, None))
    _legend(axes[0])
    spoken = ""
    if "5" in density and "5" in edge:
        hu, mm = ([of["5"][kind]["median"] for kind in COLORS] for of in (density, edge))
        spoken = (
            f" Solid nodules have a median of {hu[0]:.0f} HU in real and {hu[1]:.0f} in simulated "
            f"images; edges rated sharp measure {mm[0]:.1f} and {mm[1]:.1f} mm."
        )
    return figure, (
        "Medians with quartiles and outer tenths of the same nodules in real and simulated CT, "
        f"left density by texture rating, right edge width by margin rating.{spoken}"
    )


@style.figure
def surroundings_figure(values: Mapping[str, Any]) -> style.Drawn:
    """Draw HU around the nodule, and the power spectrum of the lung there."""
    shares, spectrum = _part(values, "histogram"), _part(values, "spectrum")["by_frequency"]
    figure, (left, right) = style.subplots(1, 2, (7.4, 3.4))
    f = [row["cycles_per_mm"] for row in spectrum]
    for kind, color in COLORS.items():
        look = {"color": color, "linestyle": _LINES[kind]}
        left.stairs(100 * np.array(shares[kind]), shares["edges_hu"], label=kind, lw=1.4, **look)
        low, middle, high = ([r[kind][q] for r in spectrum] for q in ("q25", "median", "q75"))
        right.plot(f, middle, **look)
        right.fill_between(f, low, high, color=color, alpha=0.2, linewidth=0)
    left.set(xlabel="HU, 3 to 20 mm from the nodule", ylabel="share of voxels in 22 HU, %",
             yscale="log", title="histogram")  # fmt: skip
    right.set(xlabel="cycles/mm, axial patches of lung", ylabel="power, HU² mm²", yscale="log",
              title="power spectrum: median, quartiles")  # fmt: skip
    _legend(left)
    last = spectrum[-1]
    return figure, (
        "Left, histograms of HU around the nodules in real and simulated CT, "
        f"{shares['wasserstein_hu']['value']:.0f} HU apart (Wasserstein). Right, power spectra of "
        f"lung; at {last['cycles_per_mm']:.2f} cycles/mm simulated power is "
        f"{last['ratio']['value']:.2f} times the real."
    )


@style.figure
def contact_figure(values: Mapping[str, Any]) -> style.Drawn:
    """Draw the share of nodules that touch pleura or mediastinum, by size, with intervals."""
    by_size = _part(values, "contact")["by_size"]
    figure, ax = style.subplots(size=(6.4, 3.2))
    for kind, color in COLORS.items():
        for i, row in enumerate(by_size.values()):
            of = Interval(*(100 * row[kind][k] for k in ("value", "low", "high")))
            label = None if i else kind
            style.whisker(ax, i + _SIDE[kind], of, color, _MARKERS[kind], label)
    names = [f"{name}\nn = {row['nodules']}" for name, row in by_size.items()]
    ax.set_xticks(range(len(names)), names)
    ax.set(xlabel="mean diameter", ylabel="touch wall, %", ylim=(0, 100))
    ax.grid(visible=False, axis="x")
    _legend(ax)
    spoken = "; ".join(
        f"{name}: {100 * row['real']['value']:.0f} % real, "
        f"{100 * row['simulated']['value']:.0f} % simulated"
        for name, row in by_size.items()
    )
    return figure, f"Share of nodules that touch the body's wall. {spoken}."


@style.figure
def classifier_figure(values: Mapping[str, Any]) -> style.Drawn:
    """Draw how well a classifier tells simulated from real, by kind of measure; 0.5 is not."""
    found = _part(values, "classifier")
    bars = {"everything": found["boosting"]["value"]}
    bars |= dict(sorted(found["by_theme"].items(), key=lambda pair: -pair[1]))
    figure, ax = style.subplots(size=(6.4, 3.0))
    drawn = ax.barh(list(bars), [v - 0.5 for v in bars.values()], left=0.5, color=style.PURPLE)
    ax.bar_label(drawn, [f"{v:.2f}" for v in bars.values()], padding=3)
    ax.invert_yaxis()
    ax.set(xlabel="AUC of telling simulated from real (0.5: no difference seen)", xlim=(0.5, 1))
    ax.grid(visible=False, axis="y")
    spoken = ", ".join(f"{name} {value:.2f}" for name, value in bars.items())
    return figure, f"Bars of AUC: {spoken}."


@style.figure
def transfer_figure(values: Mapping[str, Any]) -> style.Drawn:
    """Draw the AUC on real nodules of networks trained on real and on simulated ones."""
    metrics, seeds = _part(values, "metrics"), _part(values, "auc_by_seed")
    arms = {name: arm for name, arm in ARMS.items() if name in metrics}
    figure, ax = style.subplots(size=(6.8, 2.6))
    for row, (name, (_, color)) in enumerate(arms.items()):
        of = Interval(*(metrics[name]["auc"][k] for k in ("value", "low", "high")))
        style.whisker(ax, row, of, color, upright=False, mec="black")
        if name != "size_only":
            ax.plot(seeds[name], [row + 0.25] * len(seeds[name]), "|", color=style.GREY)
    style.name_rows(ax, [text for text, _ in arms.values()])
    ax.set(xlabel="AUC on real nodules, 95 % interval (grey: seeds)")
    spoken = "; ".join(f"{text} {metrics[n]['auc']['value']:.3f}" for n, (text, _) in arms.items())
    return figure, f"AUC on real nodules: {spoken}."


def _part(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        raise InputError(
            f"no {name!r} in these values; make them with `python -m benchmarks.realism`"
        )
    return values[name]


def _legend(ax: Axes) -> None:
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside upper right", ncols=2)


BEGIN = "<!-- measured: begin (python -m benchmarks.realism.page) -->"
END = "<!-- measured: end -->"
PAGE = Path(__file__).resolve().parents[2] / "notebooks" / "what_is_simulated.md"
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
_TRAINED_ON = {
    "simulated": "simulated nodules of other patients, all there are",
    "simulated_same": "simulated twins of the real training nodules",
    "real": "real nodules of other patients",
    "size_only": "nothing: the diameter alone",
}
_MEASURES = {
    "lung_median_hu": ("lung around the nodule, median", "HU", 1.0),
    "vessel_share": ("share of vessels in that lung", "%", 100.0),
    "noise_lung_hu": ("noise in that lung", "HU", 1.0),
    "noise_tissue_hu": ("noise in soft tissue", "HU", 1.0),
    "wall_share": ("share of wall in the slice", "%", 100.0),
}
_TEXTURES = {"5": "solid", "3": "part-solid", "1": "ground glass"}
_MARGINS = {"5": "sharp", "3": "middling"}
_WORDS = {
    "vessel_piece_mm2": "the size of the pieces that vessels are cut into",
    "vessel_elongation": "how long those pieces are for their width",
    "vessel_long_share": "the share of long pieces among them",
    "vessel_count_cm2": "the number of vessels per area",
    "vessel_share": "the share of vessels",
    "edge_offset_mm": "where the edge lies against the outline",
    "edge_width_mm": "the width of the edge",
    "lung_median_hu": "the lung's median HU",
    "lung_p10_hu": "the HU of the darkest tenth of the lung",
    "inside_median_hu": "the HU inside the nodule",
    "inside_mean_hu": "the mean HU inside the nodule",
    "inside_p90_hu": "the HU of the brightest tenth of the nodule",
    "share_soft": "the share of soft tissue",
    "share_between": "the share of HU between lung and fat",
    "soft_tissue_hu": "the HU of soft tissue",
    "wall_fat_share": "the share of fat in the wall",
}


def block(realism: Mapping[str, Any], transfer: Mapping[str, Any]) -> str:
    """Return what stands between the marks, as Markdown, of what the two results hold.

    Raises:
        InputError: values that lack a part.
    """
    try:
        parts = (*_transfer(transfer), *_twins(realism), *_apart(realism), _made(realism, transfer))
    except (KeyError, IndexError, TypeError) as error:
        raise InputError(
            f"the measured values lack {error}; make them again with `python -m benchmarks.realism`"
        ) from None
    return "\n\n".join(parts)


def write(
    page: Path, realism: Mapping[str, Any], transfer: Mapping[str, Any], figures: Path
) -> bool:
    """Put the measured values into the page and draw its figures; True when the page changed.

    Args:
        page: Markdown with both marks.
        realism, transfer: what `results/realism.json` and `results/transfer.json` hold.
        figures: folder for the pictures, `realism_*.png`.

    Raises:
        InputError: no such page, or one without the marks.
    """
    before, old, after = _split(page)
    new = f"\n\n{block(realism, transfer)}\n\n"
    for name, (draw, _) in FIGURES.items():
        figure = draw(transfer if name == "transfer" else realism)
        target = figures / f"realism_{name}.png"
        write_atomically(target, partial(figure.savefig, format="png"))
    if new != old:
        text = f"{before}{BEGIN}{new}{END}{after}"
        write_atomically(page, lambda path: path.write_text(text, encoding="utf-8"))
    return new != old


def measured_part(page: Path) -> str:
    """Return what now stands between the marks of a page; raises as `write` does."""
    return _split(page)[1].strip()


def _split(page: Path) -> tuple[str, str, str]:
    if not page.is_file():
        raise InputError(f"{page}: no such page; run from a clone of the course")
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    measured, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{page}: lacks the line '{BEGIN}' or '{END}'; put both back")
    return before, measured, after


def _transfer(values: Mapping[str, Any]) -> list[str]:
    """Say what comes of training on simulated, testing on real."""
    found, plan = values["metrics"], values["plan"]
    rows = ["| Trained on | AUC on real nodules (95 % interval) |", "|---|---|"]
    rows += [f"| {text} | {in_words(found[arm]['auc'])} |" for arm, text in _TRAINED_ON.items()]
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


def _twins(values: Mapping[str, Any]) -> list[str]:
    """Compare the same nodules, real and simulated, measure by measure."""
    rows = [
        "| Measure | Real: median (quartiles) | Simulated | Distance | By chance | Same nodule |",
        "|---|---|---|---|---|---|",
    ]
    by_rating = (
        ("density_by_texture", _TEXTURES, "inside {} nodules, median", "HU"),
        ("edge_by_margin", _MARGINS, "edge of a {} margin, 10 to 90 %", "mm"),
    )
    for part, words, what, unit in by_rating:
        there = values[part]
        rows += [_row(what.format(w), unit, there[r]) for r, w in words.items() if r in there]
    for name, (what, unit, factor) in _MEASURES.items():
        rows.append(_row(what, unit, values["measures"][name], factor))
    contact, pairs = values["contact"], values["pairs"]
    touching = [{k: 100 * v for k, v in contact[kind].items()} for kind in COLORS]
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


def _row(what: str, unit: str, of: Mapping[str, Any], factor: float = 1.0) -> str:
    sides = []
    for kind in COLORS:
        found = {k: factor * of[kind][q]
                 for k, q in (("value", "median"), ("low", "q25"), ("high", "q75"))}  # fmt: skip
        small = max(abs(found["low"]), abs(found["high"])) < 20
        sides.append(in_words(found, 1 if small else 0))
    twin = "-" if of["spearman"] is None else f"{of['spearman']:.2f}"
    return (
        f"| {what}, {unit} (n = {of['nodules']}) | {sides[0]} | {sides[1]} | "
        f"{of['ks']['value']:.2f} | {of['ks']['chance']:.2f} | {twin} |"
    )


def _apart(values: Mapping[str, Any]) -> list[str]:
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


def _made(realism: Mapping[str, Any], transfer: Mapping[str, Any]) -> str:
    both = (realism, transfer)
    seen = [of["cohorts"]["simulated"]["settings"]["scene_version"] for of in both]
    versions = f" {seen[0]}" if seen[0] == seen[1] else f"s {seen[0]} and {seen[1]}"
    return (
        f"*Scene version{versions}; measured {' and '.join(sorted({v['date'][:10] for v in both}))}"
        f" on {transfer['hardware']['device']}. The full values, with settings and checksums, are "
        "in [results/realism.json](../results/realism.json) and "
        "[results/transfer.json](../results/transfer.json).*"
    )


def _figure(name: str) -> str:
    return f"![{FIGURES[name][1]}](../results/realism_{name}.png)"


def main(arguments: list[str] | None = None) -> int:
    """Bring the page up to date; return 0 when it worked, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.realism.page", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("page", nargs="?", type=Path, default=PAGE)
    page, folder = parser.parse_args(arguments).page, paths.results()
    try:
        values = [read_json(folder / f"{name}.json", "measured values")
                  for name in ("realism", "transfer")]  # fmt: skip
        changed = write(page, *values, folder)
    except (InputError, FileNotFoundError) as error:
        print(f"benchmarks.realism.page: {error}", file=sys.stderr)
        return 2
    print(f"{page}: {'written' if changed else 'up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
