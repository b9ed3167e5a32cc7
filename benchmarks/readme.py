"""Committed measurements: from runs to `results/`, and from there to the README's table.

    python -m benchmarks.readme collect NAME RUN [RUN ...] --about "what these images are"
    python -m benchmarks.readme pictures runs/demo
    python -m benchmarks.readme readme

A result keeps the run's settings, data checksums, hardware, versions and date, so that a reader can
tell what a number was measured on, and repeat it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit import paths
from labkit.errors import InputError
from labkit.evaluation import crossval, statistics
from labkit.io import read_json, write_atomically, write_json
from labkit.paper import claims, results, table1

# Measured values as the README writes them.


def interval(of: Mapping[str, float], digits: int = 3) -> str:
    """A value with its interval.

    >>> interval({"value": 0.9, "low": 0.85, "high": 0.94}, 2)
    '0.90 (0.85 to 0.94)'
    """
    value, low, high = (f"{of[k]:.{digits}f}" for k in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def difference(of: Mapping[str, float], digits: int = 3) -> str:
    """A difference with its interval, all with their signs.

    >>> difference({"value": 0.01, "low": -0.002, "high": 0.022})
    '+0.010 (-0.002 to +0.022)'
    """
    value, low, high = (f"{of[k]:+.{digits}f}" for k in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def judged(pair: Mapping[str, Any], family: Mapping[str, Any], digits: int = 3) -> str:
    """A difference of AUCs, pooled and within folds, and what DeLong's test says of it."""
    pooled = difference(pair["auc_difference"], digits)
    within = difference(pair["within_folds_difference"], digits)
    return (
        f"{pooled}, within folds {within}; DeLong's test by patient, Holm-corrected over "
        f"{family['size']}: p = {pair['p_holm']:.2g}{equivalent(pair)}"
    )


def equivalent(pair: Mapping[str, Any]) -> str:
    """In words, where a difference is shown to be smaller than the margin."""
    of = pair["equivalence"]
    return f"; shown to be smaller than {of['margin']:g} either way" if of["shown"] else ""


def how(values: Mapping[str, Any], by: str) -> str:
    """How and where the rows of a table were made."""
    plan, config = values["plan"]["baselines"], values["config"]
    hardware = values["hardware"]
    machine = hardware["gpu"] or f"{hardware['processor']} without a GPU"
    return (
        f"{plan['repeats']} x {plan['folds']} folds by {by}, up to {config['epochs']} epochs, "
        f"{values['date'][:10]}, {machine}"
    )


# The README's part on LUNA-16's candidates.


_readme_luna_ROWS = (
    table1.DETECTORS,
    *(f"{model}{which}" for model in ("ST-CNN", "MT-CNN")
      for which in ("", ", axial", ", three orthogonal", f" {table1.WITH_DETECTOR}")),
)  # fmt: skip
# Each metric's title, and its digits.
_readme_luna_METRICS = {
    "auc": ("AUC", 3),
    "sensitivity": ("Sensitivity", 3),
    "specificity": ("Specificity", 3),
    "false_positives_per_scan": ("False positives a scan", 1),
    "cpm": ("CPM", 3),
}


def images(values: dict[str, Any]) -> str:
    """What LUNA-16 is made of, for a line's beginning."""
    return "LUNA-16, simulated" if values["cohort"]["simulated"] else "LUNA-16"


def luna_table() -> list[str]:
    """Our rows of Table 1 on LUNA-16's candidates, beside the published; none, no lines."""
    if ("table1", results.LUNA) not in results.there((results.LUNA,)):
        return []
    values = results.read("table1", results.LUNA)
    published = table1.published(values)
    titles = [title for title, _ in _readme_luna_METRICS.values()]
    lines = [
        "| " + " | ".join(["Method", *titles, "As published"]) + " |",
        "|---" * (len(titles) + 2) + "|",
    ]
    for name in (name for name in _readme_luna_ROWS if name in values["rows"]):
        of_row = values["rows"][name]["metrics"]
        cells, theirs = [name], []
        for metric, (title, digits) in _readme_luna_METRICS.items():
            found = table1.value(of_row, metric)
            cells.append("not computed" if found is None else interval(found, digits))
            if (name, metric) in published:
                theirs.append(f"{title} {published[name, metric]:.{digits}f}")
        lines.append("| " + " | ".join([*cells, ", ".join(theirs)]) + " |")
    lines += ["", _what(values)]
    for pairs, family in (("comparisons", "family"), ("together", "together_family")):
        for what, pair in values[pairs].items():
            lines.append(f"- AUC of {what}: {judged(pair, values[family])}{cpm_of(pair)}.")
    return lines


def cpm_of(pair: dict[str, Any]) -> str:
    """The difference of a pair in CPM, where there is one; "" elsewhere."""
    of = pair.get("cpm_difference", {})
    return f"; in CPM {difference(of)}" if "value" in of else ""


def _what(values: dict[str, Any]) -> str:
    at = next(iter(values["rows"].values()))["metrics"]["screening"]
    simulated = values["cohort"]["simulated"]
    candidates = at["positives"] + at["negatives"]
    source = (
        "Candidates of a detector in simulated CT of LUNA-16's scans"
        if simulated
        else "LUNA-16's candidates (Setio et al. 2017, CC BY 4.0)"
    )
    theirs = "; the published values are of real CT, 551,065 candidates in 888" if simulated else ""
    return (
        f"- {source}: {candidates:,} in {at['scans']} scans, {at['positives']} of them on nodules"
        f"{theirs}. {how(values, 'subset')}. Sensitivity, specificity and false positives are of "
        f"candidates at a probability of {at['threshold']:.3g}, the share of them that is on "
        "nodules; CPM is of nodules, by LUNA-16's own rules, its interval over scans."
    )


# The README's results, written from `results/` and from nothing else.
#
# Our rows of Table 1 first, of nodules and of LUNA-16's candidates, then what the sweeps found,
# then
# runs that were trained longer, then speed. What is not in `results/` has no line.


BEGIN = "<!-- results: begin (python -m benchmarks.readme readme) -->"
END = "<!-- results: end -->"
_ROWS = ("", ", axial", ", three orthogonal")
_SAID = {"": "nine views", ", axial": "axial view alone", ", three orthogonal": "three views"}
_SWEEPS = {"fig7": "alpha", "fig6": "depth", "fig5": "regularisation"}
_METRICS = ("auc", "sensitivity", "specificity")


def readme_block() -> str:
    """Everything between the README's markers, as Markdown."""
    parts = {
        "": _table1(),
        "Differences of these rows": _comparisons(),
        "False positives among LUNA-16's candidates": luna_table(),
        "Sweeps": _sweeps(),
        "Trained longer, and on other images than tested": [*_longer(), *_transfer()],
        "Speed, and what is simulated": _speed(),
    }
    lines = [BEGIN]
    for title, part in parts.items():
        if part:
            lines += ["", f"**{title}**", "", *part] if title else part
    return "\n".join([*lines, END])


def _figures(name: str, cohorts: tuple[str, ...] = results.NODULES) -> dict[str, dict[str, Any]]:
    """Kind of images -> a figure's committed values: real, simulated, LUNA-16's."""
    kinds = {c for n, c in results.there(cohorts) if n == name}
    ordered = sorted(kinds, key=lambda kind: (kind == results.LUNA, kind))
    return {kind: results.read(name, kind) for kind in ordered}


def _table1() -> list[str]:
    """Our rows of Table 1, with published values in columns of their own."""
    tables = _figures("table1")
    if not tables:
        return []
    lines = [
        "| Images | Method | AUC (95 % interval) | Sensitivity | Specificity | AUC as published | "
        "Sensitivity as published |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, values in tables.items():
        published = {
            (p["what"].removesuffix(", LIDC-IDRI"), p["metric"]): f"{p['value']:.3f}"
            for p in values["published"]
            if p["what"].endswith(", LIDC-IDRI")
        }
        rows = values["rows"]
        named = [(n, n) for n in ("size only", "size + calcification") if n in rows]
        for model in ("ST-CNN", "MT-CNN"):
            named += [
                (f"{model}{row}", f"{model}, {_SAID[row]}") for row in _ROWS if model + row in rows
            ]
        for row, said in named:
            mark = " (*)" if rows[row]["note"] else ""
            cells = [interval(rows[row]["metrics"][m]) for m in _METRICS]
            there = [published.get((row, m), "") for m in ("auc", "sensitivity")]
            lines.append("| " + " | ".join([kind, said + mark, *cells, *there]) + " |")
    lines += ["", "(*) reads the readers' own ratings, which no image method is given.", ""]
    for kind, values in tables.items():
        counts = next(iter(values["rows"].values()))["metrics"]
        lines.append(
            f"- {_images(kind, values)}, {counts['nodules']} labelled nodules of "
            f"{counts['patients']} patients: {how(values, 'patient')}."
        )
    return lines


def _images(kind: str, values: dict[str, Any]) -> str:
    if kind == "simulated":
        return "Simulated CT around the real readers' outlines"
    if values["cohort"]["name"] != "real_cubes":
        return f"Real CT ({values['cohort']['name']})"
    return (
        "Real LIDC-IDRI cubes (Armato et al. 2011, CC BY 3.0) in which only the slices that the "
        "nodule itself occupies are real and every other slice is air, so that eight of nine views "
        "are strips as wide as the nodule is long"
    )


def _comparisons() -> list[str]:
    """Differences of Table 1's rows, corrected for being several."""
    lines = []
    for kind, values in _figures("table1").items():
        for what, pair in values["comparisons"].items():
            lines.append(f"- {kind}, AUC of {what}: {judged(pair, values['family'])}.")
        for model, fusion in values["fusion"].items():
            for way in ("equal weights", "logistic stacking"):
                pair = fusion["comparisons"].get(f"{way} less AUC weights (Eq. 4)")
                if model == "MT-CNN" and pair is not None:
                    lines.append(
                        f"- {kind}, AUC of {way} less AUC weights (Eq. 4) in fusing {model}: "
                        f"{judged(pair, fusion['family'], 4)}."
                    )
    return lines


def _sweeps() -> list[str]:
    """What the sweeps over alpha, depth and regularisation found, a line each."""
    lines = []
    for name, what in _SWEEPS.items():
        for kind, values in _figures(name, results.COHORTS).items():
            pairs, said = values["comparisons"], kind
            if kind == results.LUNA:
                said = images(values)
            if not pairs:
                continue
            largest = max(pairs, key=lambda p: abs(pairs[p]["auc_difference"]["value"]))
            found = [p for p in pairs if pairs[p]["found"]]
            kept = [p for p in found if claims.side(pairs[p])]
            same = sum(claims.inside(pair) for pair in pairs.values())
            first = values["variants"].get(largest.split(" less ")[0], {}).get("trained", {})
            plan = values["plan"]["sweeps"]
            folds = plan["first_folds"] or plan["folds"]
            state = "" if values["complete"] else f" ({len(values['missing'])} variants to come)"
            margin = pairs[largest]["equivalence"]["margin"]
            lines.append(
                f"- {said}, {what} ({values['where'].split(',')[0]}), {folds} of {plan['folds']} "
                f"folds{state}: {len(found)} of {len(pairs)} pooled differences survive Holm's "
                f"correction, {len(kept)} of them within folds as well; {same} are shown to be "
                f"smaller than {margin:g} both ways; the largest is {largest}: "
                f"{difference(pairs[largest]['auc_difference'])}{cpm_of(pairs[largest])}"
                f"{_dead(first)}."
            )
    return lines


def _dead(trained: Mapping[str, Any]) -> str:
    """How many of a variant's networks never learnt, where some did not."""
    if not trained.get("at_chance"):
        return ""
    return f" ({trained['at_chance']} of the former's {trained['networks']} networks never learnt)"


def _longer() -> list[str]:
    """Runs that `benchmarks.readme collect` took, where they were trained longer than Table 1's."""
    lines = []
    epochs = {
        values["cohort"]["name"]: values["config"]["epochs"]
        for values in _figures("table1").values()
    }
    for file in sorted(paths.results().glob("*.json")):
        values = read_json(file, "a result")
        runs = list(values.get("runs", {}).values())
        if not runs or runs[0]["config"]["epochs"] <= epochs.get(runs[0]["cohort"]["name"], 0):
            continue
        lines.append(f"- `{file.name}`: {values['about']}")
        for model, run in values["runs"].items():
            auc = interval(run["metrics"][crossval.FUSED]["auc"])
            plan, config = run["plan"], run["config"]
            lines.append(
                f"  - {model}: AUC {auc}, {plan['repeats']} x {plan['folds']} folds by "
                f"{plan['split']}, up to {config['epochs']} epochs, batches of "
                f"{config['batch_size']}, {run['started'][:10]}, {run['hardware']['device']}"
            )
        for what, pair in values["comparisons"].items():
            lines.append(
                f"  - AUC of {what}: {difference(pair['auc_difference'])}, "
                f"DeLong by patient p = {pair['delong']['p_value']:.2g}"
            )
    return lines


def _there(name: str) -> dict[str, Any] | None:
    """A measurement of `results/`, or None where it was not made."""
    file = paths.results() / f"{name}.json"
    return read_json(file, "a result") if file.is_file() else None


def _transfer() -> list[str]:
    """Lines on networks that saw only simulated images and are tested on real ones."""
    values = _there("transfer")
    if values is None:
        return []
    metrics = {arm: m["auc"] for arm, m in values["metrics"].items()}
    d = values["differences"]["simulated less real"]["auc_difference"]
    auc = {arm: interval(a) for arm, a in metrics.items()}
    plan = values["plan"]
    return [
        "- Trained on simulated CT alone, the axial MT-CNN has an AUC of "
        f"{auc['simulated']} on real nodules of other patients; trained on real ones "
        f"{auc['real']}; the diameter alone {auc['size_only']} ({plan['seeds']} repeats of "
        f"{plan['folds']} folds by patient).",
        f"  - AUC of trained on simulated less trained on real: {difference(d)}",
    ]


def _speed() -> list[str]:
    """Lines on speed from the benchmarks that are there, each a ratio within one run."""
    lines = []
    if b := _there("benchmark_views"):
        scan = "real" if b["volume"].startswith("1.") else "synthetic"
        lines.append(
            f"- The cube and nine views of a nodule in a {scan} scan: "
            f"{b['cube_and_views_ms']:.0f} ms on one core, {b['ratio']:.0f} times less than "
            "resampling the whole scan to 1 mm by SimpleITK's B-spline, from which they differ by "
            f"{b['largest_difference_hu']:.4f} HU at most ({b['date'][:10]})."
        )
    if b := _there("benchmark_labels"):
        lines.append(
            f"- All 2,651 nodules of LIDC-IDRI, grouped and measured: {b['labkit_seconds']:.1f} s, "
            f"{b['ratio']:.0f} times less than pylidc (extrapolated from a sample of its scans)."
        )
    if b := _there("benchmark_training"):
        ratios = ", ".join(
            f"{ratio:.1f} times as fast in {name.split(', ')[1]}"
            for name, ratio in b["ratio"].items()
            if name.startswith("labkit")
        )
        lines.append(
            f"- Nine MT-CNNs trained at batch {b['batch_size']} against the textbook loop, the "
            f"same updates on the same processor without a GPU: {ratios} ({b['date'][:10]})."
        )
    if b := _there("benchmark_simulate"):
        cohort, alone = b["cohort"], b["whole_scan"]["runs"][0]
        lines.append(
            f"- All {cohort['nodules']:,} nodules simulated: {cohort['wall_s']:.0f} s on "
            f"{cohort['cores']} cores; a whole scan of 512 x 512 x {alone['slices']} voxels: "
            f"{alone['scan_s']:.0f} s on one, {alone['scan_peak_gb']:.1f} GB ({b['date'][:10]})."
        )
    if b := _there("benchmark_luna16"):
        whole, each = b["in_full"], b["scans"]["simulated"]["growth"]["ms_a_candidate"]
        gained = sorted(s["two_processes_measured"]["times_as_fast_by_the_clock"]
                        for s in b["scans"].values())  # fmt: skip
        lines.append(
            f"- The nine views of LUNA-16's {whole['candidates']:,} candidates: "
            f"{whole['cpu_s'] / 60:.0f} minutes of one core, so that two need "
            f"{whole['minutes_on_2_cores_calculated']:.0f} and sixteen "
            f"{whole['minutes_on_16_cores_calculated']:.0f}, and {whole['gb_of_views']:.0f} GB; "
            f"calculated from a scan's, {each:.1f} ms a candidate. Measured, two processes are "
            f"{gained[0]:.1f} to {gained[-1]:.1f} times as fast as one ({b['date'][:10]})."
        )
    if b := _there("benchmark_judging"):
        lines.append(
            f"- Everything after training, for two models on as many candidates: "
            f"{b['after_training_cpu_s'] / 60:.0f} minutes of one core, "
            f"{b['sizes']['whole']['peak_gb']:.1f} GB at most ({b['date'][:10]})."
        )
    if b := _there("luna16_detector"):
        lines.append(
            f"- The detector of the simulated LUNA-16 hits {b['hit']:.0f} of {b['nodules']} "
            f"nodules in the {len(b['series'])} scans that it was tuned on, with "
            f"{b['candidates_a_scan']:.0f} candidates a scan ({b['date'][:10]})."
        )
    if b := _there("official_froc"):
        worst = max(row["largest_difference"]["curve"] for row in b["rows"])
        lines.append(
            f"- FROC curves of {sum(row['challenges'] for row in b['rows'])} made-up submissions "
            "with ties, rims and overlaps, against the challenge's own script in Python 3: "
            f"{f'{worst:.0e} apart at most' if worst else 'the same to the last bit'} "
            f"({b['date'][:10]})."
        )
    if b := _there("lungs"):
        lines.append(
            f"- Lungs segmented in {len(b['simulated'])} whole simulated scans: Dice "
            f"{b['least_dice']:.3f} or more against the scene's own lungs; of the least kept of "
            f"{b['nodules']} nodules, {b['least_kept']:.1%} lies within the dilated mask."
        )
    return lines


_NAMES = {"st": "ST-CNN", "mt": "MT-CNN"}


def collect(name: str, runs: list[Path], about: str) -> Path:
    """Write `results/NAME.json` from finished runs of one cohort, with their paired comparisons.

    Args:
        name: of the result.
        runs: folders of finished runs, of different models.
        about: what the images are, and what the numbers do and do not say.

    Raises:
        InputError: unfinished runs, runs of different cohorts, or two of one model.
    """
    read: dict[str, dict[str, Any]] = {}
    for folder in runs:
        values = read_json(folder / "metrics.json", "a finished run")
        model = _NAMES[values["config"]["model"]]
        if model in read:
            raise InputError(f"{folder}: a second run of {model}; give one run a model")
        read[model] = values
    if len({str(v["cohort"]) for v in read.values()}) > 1:
        raise InputError("the runs are of different cohorts; collect them separately")
    predictions = {m: crossval.read_predictions(f) for m, f in zip(read, runs, strict=True)}
    comparisons = {}
    for model, table in predictions.items():
        if crossval.SIZE_ONLY in set(table["view"]):
            comparisons[f"{model} less size only"] = statistics.compare(
                table, table, crossval.FUSED, crossval.SIZE_ONLY
            )
    if {"MT-CNN", "ST-CNN"} <= set(predictions):
        comparisons["MT-CNN less ST-CNN"] = statistics.compare(
            predictions["MT-CNN"], predictions["ST-CNN"]
        )
    file = paths.results() / f"{name}.json"
    write_json(file, {"about": about, "runs": read, "comparisons": comparisons})
    return file


def pictures(demo: Path) -> list[Path]:
    """Write the README's two pictures from a finished demo: nine views and ROC curves.

    Args:
        demo: folder that `labkit demo` wrote.

    Raises:
        InputError: no finished demo there.
    """
    # Here, since matplotlib and torch have no part in collecting numbers.
    from labkit.cohorts.simulated import simulated_cohort
    from labkit.plots import roc, style, views
    from labkit.training.model import load

    runs = {name: crossval.read_predictions(demo / m) for m, name in _NAMES.items()}
    model = load(demo / "mt" / "model")
    cohort = simulated_cohort()
    first = runs["MT-CNN"].query("repeat == 0 and fold == 0 and label == 1")
    unseen = cohort.nodules[cohort.nodules["nodule_id"].isin(first["nodule_id"])]
    order = unseen["diameter_mm"].sort_values(kind="stable")
    row = int(order.index[3 * len(order) // 4])  # large enough to show its margin
    probabilities = model.predict(cohort, [row])
    with style.house_style():
        figures = {
            "nine_views.png": views.nine_views_figure(
                cohort,
                row,
                probabilities=probabilities[0],
                fused=float(model.fuse(probabilities)[0]),
            ),
            "roc.png": roc.roc_figure(runs, simulated=True),
        }
        for name, figure in figures.items():
            figure.savefig(paths.results() / name, dpi=90, metadata={"Software": None})
    return [paths.results() / name for name in figures]


def write_readme(file: Path) -> None:
    """Put the block between its markers in the README.

    Raises:
        InputError: the markers are not there.
    """
    text = file.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise InputError(f"{file}: needs the lines {BEGIN!r} and {END!r}, once each")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    write_atomically(
        file, lambda p: p.write_text(before + readme_block() + after, encoding="utf-8")
    )


def main() -> int:
    """Collect a result, draw the README's pictures, or write its table."""
    parser = argparse.ArgumentParser(description="Committed measurements.")
    commands = parser.add_subparsers(required=True, dest="command")
    add = commands.add_parser("collect", help="write results/NAME.json from finished runs")
    add.add_argument("name")
    add.add_argument("runs", nargs="+", type=Path)
    add.add_argument("--about", required=True, help="what the images are")
    draw = commands.add_parser("pictures", help="write the README's pictures from a demo")
    draw.add_argument("demo", type=Path)
    commands.add_parser("readme", help="write the README's table from results/")
    options = parser.parse_args()
    try:
        if options.command == "collect":
            print(f"wrote {collect(options.name, options.runs, options.about)}")
        elif options.command == "pictures":
            print("wrote", *pictures(options.demo))
        else:
            write_readme(paths.results().parent / "README.md")
    except InputError as error:
        print(f"benchmarks.readme: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
