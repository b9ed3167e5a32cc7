"""The measured part of the course page "What is simulated, and what is not".

    python -m benchmarks.realism.page [notebooks/what_is_simulated.md]

Numbers and figures come from `results/realism.json` and `results/transfer.json` alone, and stand
between two marks in the page; the rest of it is written by hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from labkit import paths
from labkit.errors import InputError
from labkit.io import read_json, write_atomically
from labkit.plots import style

# Figures of how far simulated CT is from real CT, from the committed numbers alone.
#
# Each takes what `benchmarks.realism` wrote (`results/realism.json`, `results/transfer.json`). Only
# `twins_figure` needs the images: real ones are shown to readers who have them, and never
# committed.


REAL, SIMULATED = style.BLUE, style.ORANGE
COLORS = {"real": REAL, "simulated": SIMULATED}
_MARKERS = {"real": "o", "simulated": "s"}
_SIDE = {"real": -0.14, "simulated": 0.14}
_realism_ARMS = {
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
    names = [name for name in _realism_ARMS if name in metrics]
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
        ax.set_yticks(range(len(names)), [_realism_ARMS[name] for name in names])
        ax.invert_yaxis()
        ax.set(xlabel="AUC on real nodules, 95 % interval (grey: seeds)")
        ax.grid(visible=False, axis="y")
    spoken = "; ".join(f"{_realism_ARMS[n]} {metrics[n]['auc']['value']:.3f}" for n in names)
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
        raise InputError(
            f"no {name!r} in these values; make them with `python -m benchmarks.realism`"
        )
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


BEGIN = "<!-- measured: begin (python -m benchmarks.realism.page) -->"
END = "<!-- measured: end -->"
PAGE = Path(__file__).resolve().parents[2] / "notebooks" / "what_is_simulated.md"
FIGURES = {
    "nodule": "nodule_figure",
    "surroundings": "surroundings_figure",
    "contact": "contact_figure",
    "classifier": "classifier_figure",
    "transfer": "transfer_figure",
}
_ARMS = {
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
    """What stands between the marks, as Markdown.

    Args:
        realism: what `results/realism.json` holds.
        transfer: what `results/transfer.json` holds.

    Raises:
        InputError: values that lack a part.
    """
    try:
        parts = (
            *_transfer(transfer),
            *_twins(realism),
            *_apart(realism),
            *_made(realism, transfer),
        )
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
        realism: what `results/realism.json` holds.
        transfer: what `results/transfer.json` holds.
        figures: folder for the pictures, `realism_*.png`.

    Raises:
        InputError: no such page, or one without the marks.
    """
    text, before, after = _split(page)
    new = f"{before}{BEGIN}\n\n{block(realism, transfer)}\n\n{END}{after}"
    _draw(figures, realism, transfer)
    if new != text:
        write_atomically(page, lambda path: path.write_text(new, encoding="utf-8"))
    return new != text


def measured_part(page: Path) -> str:
    """What now stands between the marks of a page; raises as `write` does."""
    text, before, after = _split(page)
    return text[len(before) + len(BEGIN) : len(text) - len(after) - len(END)].strip()


def main(arguments: list[str] | None = None) -> int:
    """Bring the page up to date; 0 when it worked, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.realism.page", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("page", nargs="?", type=Path, default=PAGE)
    page = parser.parse_args(arguments).page
    try:
        folder = paths.results()
        values = [
            read_json(folder / f"{n}.json", "measured values") for n in ("realism", "transfer")
        ]
        changed = write(page, values[0], values[1], folder)
    except (InputError, FileNotFoundError) as error:
        print(f"benchmarks.realism.page: {error}", file=sys.stderr)
        return 2
    print(f"{page}: {'written' if changed else 'up to date'}")
    return 0


def _transfer(values: Mapping[str, Any]) -> list[str]:
    """Train on simulated, test on real."""
    found = values["metrics"]
    rows = ["| Trained on | AUC on real nodules (95 % interval) |", "|---|---|"]
    rows += [f"| {text} | {_interval(found[arm]['auc'], 3)} |" for arm, text in _ARMS.items()]
    gap = values["differences"]["simulated less real"]
    plan = values["plan"]
    return [
        "### Train on simulated, test on real",
        f"{found['real']['nodules']} real nodules of {found['real']['patients']} patients (benign "
        "or malignant by their readers), axial view, MT-CNN; "
        f"{plan['folds']} folds by patient, {_times(plan['seeds'])}. No patient of a test fold is "
        "in any training set, real or simulated.",
        "\n".join(rows),
        "Trained on simulated less trained on real: "
        f"{_interval(gap['auc_difference'], 3, sign=True)}, DeLong's test by patient "
        f"p = {gap['delong']['p_value']:.2g}.",
        _figure("transfer"),
    ]


def _twins(values: Mapping[str, Any]) -> list[str]:
    """The same nodules, real and simulated, measure by measure."""
    rows = [
        "| Measure | Real: median (quartiles) | Simulated | Distance | By chance | Same nodule |",
        "|---|---|---|---|---|---|",
    ]
    for rating, word in _TEXTURES.items():
        if rating in values["density_by_texture"]:
            of = values["density_by_texture"][rating]
            rows.append(_row(f"inside {word} nodules, median", "HU", of))
    for rating, word in _MARGINS.items():
        if rating in values["edge_by_margin"]:
            of = values["edge_by_margin"][rating]
            rows.append(_row(f"edge of a {word} margin, 10 to 90 %", "mm", of))
    for name, (what, unit, factor) in _MEASURES.items():
        rows.append(_row(what, unit, values["measures"][name], factor))
    contact, pairs = values["contact"], values["pairs"]
    ratios = [row["ratio"]["value"] for row in values["spectrum"]["by_frequency"]]
    return [
        "### The same nodules, real and simulated",
        f"{pairs['nodules']} nodules of {pairs['patients']} patients, both versions clipped and "
        "cut alike. *Distance* is the Kolmogorov-Smirnov distance of the two distributions (0: the "
        "same, 1: no overlap); *by chance* is what 95 % of random exchanges of real and simulated "
        "stay below; *same nodule* is the rank correlation between a nodule and its twin.",
        "\n".join(rows),
        f"{_percent(contact['real'])} of the real nodules touch pleura or mediastinum, and "
        f"{_percent(contact['simulated'])} of the simulated ones; whether they are the same ones, "
        f"Cohen's kappa says: {contact['kappa']:.2f} (0: as by chance, 1: all). Histograms of HU "
        "around the nodules are "
        f"{values['histogram']['wasserstein_hu']['value']:.0f} HU apart (Wasserstein); the power "
        f"spectrum of simulated lung is {min(ratios):.2f} to {max(ratios):.2f} times the real one, "
        "by frequency.",
        _figure("nodule"),
        _figure("surroundings"),
        _figure("contact"),
    ]


def _apart(values: Mapping[str, Any]) -> list[str]:
    """How well the two can be told apart, and by what."""
    found = values["classifier"]
    strongest = [_WORDS.get(n, n.replace("_", " ")) for n in list(found["by_measure"])[:3]]
    far = [found["by_measure"][n] for n in list(found["by_measure"])[:3]]
    single = max(max(v, 1 - v) for v in far)
    return [
        "### Can they be told apart?",
        "A classifier that sees all these measures of one image says which of the two it is with "
        f"an AUC of {_interval(found['boosting'], 2)}; 0.5 would be not at all. No single measure "
        f"reaches {_above(single)}. What gives the simulation away most: {strongest[0]}, "
        f"{strongest[1]}, and {strongest[2]}.",
        _figure("classifier"),
    ]


def _made(realism: Mapping[str, Any], transfer: Mapping[str, Any]) -> list[str]:
    version = realism["cohorts"]["simulated"]["settings"]["scene_version"]
    other = transfer["cohorts"]["simulated"]["settings"]["scene_version"]
    dates = sorted({values["date"][:10] for values in (realism, transfer)})
    versions = f"version {version}" if version == other else f"versions {version} and {other}"
    return [
        f"*Scene {versions}; measured {' and '.join(dates)} on "
        f"{transfer['hardware']['device']}. The full values, with settings and checksums, are in "
        "[results/realism.json](../results/realism.json) and "
        "[results/transfer.json](../results/transfer.json).*"
    ]


def _row(what: str, unit: str, of: Mapping[str, Any], factor: float = 1.0) -> str:
    sides = []
    for kind in ("real", "simulated"):
        median, low, high = (factor * of[kind][q] for q in ("median", "q25", "q75"))
        digits = 1 if max(abs(low), abs(high)) < 20 else 0
        sides.append(f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})")
    ks, rank = of["ks"], of["spearman"]
    twin = "-" if rank is None else f"{rank:.2f}"
    return (
        f"| {what}, {unit} (n = {of['nodules']}) | {sides[0]} | {sides[1]} | {ks['value']:.2f} | "
        f"{ks['chance']:.2f} | {twin} |"
    )


def _interval(of: Mapping[str, float], digits: int, sign: bool = False) -> str:
    form = f"{'+' if sign else ''}.{digits}f"
    return f"{of['value']:{form}} ({of['low']:{form}} to {of['high']:{form}})"


def _percent(of: Mapping[str, float]) -> str:
    return f"{100 * of['value']:.0f} % ({100 * of['low']:.0f} to {100 * of['high']:.0f})"


def _above(value: float) -> str:
    """The next two-digit number above a value.

    >>> _above(0.6201)
    '0.63'
    """
    return f"{int(100 * value) / 100 + 0.01:.2f}"


def _times(number: int) -> str:
    return "once" if number == 1 else f"repeated {number} times"


def _figure(name: str) -> str:
    return f"![{_ALT[name]}](../results/realism_{name}.png)"


_ALT = {
    "transfer": "AUC on real nodules of networks trained on real and on simulated ones",
    "nodule": "HU inside nodules by texture rating and edge width by margin rating",
    "surroundings": "Histogram of HU around nodules, and power spectrum of lung",
    "contact": "Share of nodules that touch pleura or mediastinum, by size",
    "classifier": "How well each kind of measure tells simulated from real",
}


def _split(page: Path) -> tuple[str, str, str]:
    if not page.is_file():
        raise InputError(f"{page}: no such page; run from a clone of the course")
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{page}: lacks the line '{BEGIN}' or '{END}'; put both back")
    return text, before, after


def _draw(folder: Path, realism: Mapping[str, Any], transfer: Mapping[str, Any]) -> None:
    for name, function in FIGURES.items():
        figure = globals()[function](transfer if name == "transfer" else realism)
        target = folder / f"realism_{name}.png"
        write_atomically(target, partial(figure.savefig, format="png"))


if __name__ == "__main__":
    sys.exit(main())
