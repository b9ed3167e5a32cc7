"""The measured part of the course page "What is simulated, and what is not".

    python -m labkit.realism.page [notebooks/what_is_simulated.md]

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

from labkit import paths
from labkit.errors import InputError
from labkit.files import read_json, write_atomically

BEGIN = "<!-- measured: begin (python -m labkit.realism.page) -->"
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
            f"the measured values lack {error}; make them again with `python -m labkit.realism`"
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
    parser = argparse.ArgumentParser(prog="python -m labkit.realism.page", description=__doc__)
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
        print(f"labkit.realism.page: {error}", file=sys.stderr)
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
    from labkit.plots import realism as plots

    for name, function in FIGURES.items():
        figure = getattr(plots, function)(transfer if name == "transfer" else realism)
        target = folder / f"realism_{name}.png"
        write_atomically(target, partial(figure.savefig, format="png"))


if __name__ == "__main__":
    sys.exit(main())
