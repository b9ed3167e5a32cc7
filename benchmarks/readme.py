"""Committed measurements: from runs to `results/`, and from there to two pages.

The README has one short table, `results/README.md` all that was measured.

    python -m benchmarks.readme collect NAME RUN [RUN ...] --about "what these images are"
    python -m benchmarks.readme pictures runs/demo
    python -m benchmarks.readme write

A result keeps the run's settings, data checksums, hardware, versions and date, so that a reader can
tell what a number was measured on, and repeat it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.common import in_words
from labkit import paths
from labkit.errors import InputError
from labkit.evaluation import crossval, statistics
from labkit.evaluation.predictions import read_predictions
from labkit.io import read_json, write_atomically, write_json
from labkit.models import NETWORKS
from labkit.paper import claims, results, table1

BEGIN = "<!-- results: begin (python -m benchmarks.readme write) -->"
END = "<!-- results: end -->"
_WAYS = {"": "nine views", ", axial": "axial view alone", ", three orthogonal": "three views"}
_NAMES = {model: NETWORKS[model].name for model in ("st", "mt")}
_SWEEPS = {"fig7": "alpha", "fig6": "depth", "fig5": "regularisation"}
# Each metric's title, and its digits.
_METRICS = {
    "auc": ("AUC", 3), "sensitivity": ("Sensitivity", 3), "specificity": ("Specificity", 3),
    "false_positives_per_scan": ("False positives a scan", 1), "cpm": ("CPM", 3),
}  # fmt: skip


def line(cells: Iterable[str]) -> str:
    """Join the cells of a table's line."""
    return f"| {' | '.join(cells)} |"


def judged(pair: Mapping[str, Any], family: Mapping[str, Any], digits: int = 3) -> str:
    """Say a difference of AUCs, pooled and within folds, what DeLong's test says of it, and CPM."""
    pooled, within = (in_words(pair[f"{part}_difference"], digits, "+")
                      for part in ("auc", "within_folds"))  # fmt: skip
    margin = pair["equivalence"]["margin"]
    same = pair["equivalence"]["shown"]
    return (
        f"{pooled}, within folds {within}; DeLong's test by patient, Holm-corrected over "
        f"{family['size']}: p = {pair['p_holm']:.2g}"
        f"{f'; shown to be smaller than {margin:g} either way' if same else ''}{cpm_of(pair)}"
    )


def cpm_of(pair: Mapping[str, Any]) -> str:
    """Say the difference of a pair in CPM, where there is one."""
    of = pair.get("cpm_difference", {})
    return f"; in CPM {in_words(of, sign='+')}" if "value" in of else ""


def how(values: Mapping[str, Any], by: str) -> str:
    """Say how and where the rows of a table were made."""
    plan, config = values["plan"]["baselines"], values["config"]
    hardware = values["hardware"]
    machine = hardware["gpu"] or f"{hardware['processor']} without a GPU"
    return (
        f"{plan['repeats']} x {plan['folds']} folds by {by}, up to {config['epochs']} epochs, "
        f"{values['date'][:10]}, {machine}"
    )


def images(values: dict[str, Any]) -> str:
    """Say what LUNA-16 is made of, for a line's beginning."""
    return "LUNA-16, simulated" if values["cohort"]["simulated"] else "LUNA-16"


def luna_table() -> list[str]:
    """Write our rows of Table 1 on LUNA-16's candidates, beside the published; none, no lines."""
    if ("table1", results.LUNA) not in results.there((results.LUNA,)):
        return []
    values = results.read("table1", results.LUNA)
    published, rows = table1.published(values), values["rows"]
    lines = [line(["Method", *(title for title, _ in _METRICS.values()), "As published"]),
             "|---" * (len(_METRICS) + 2) + "|"]  # fmt: skip
    names = [f"{model}{way}" for model in _NAMES.values()
             for way in (*_WAYS, f" {table1.WITH_DETECTOR}")]  # fmt: skip
    for name in (name for name in (table1.DETECTORS, *names) if name in rows):
        cells, theirs = [name], []
        for metric, (title, digits) in _METRICS.items():
            found = table1.value(rows[name]["metrics"], metric)
            cells.append("not computed" if found is None else in_words(found, digits))
            if (name, metric) in published:
                theirs.append(f"{title} {published[name, metric]:.{digits}f}")
        lines.append(line([*cells, ", ".join(theirs)]))
    lines += ["", _what(values)]
    for pairs, family in (("comparisons", "family"), ("together", "together_family")):
        for what, pair in values[pairs].items():
            lines.append(f"- AUC of {what}: {judged(pair, values[family])}.")
    return lines


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


def short_table() -> str:
    """Return the README's table: our main rows beside the published, a dozen at most."""
    lines = [line(["Images", "Method", "AUC (95 % interval)", "CPM (95 % interval)",
                   "As published"]), "|---|---|---|---|---|"]  # fmt: skip
    main = ("size only", "size + calcification", table1.DETECTORS, "ST-CNN", "MT-CNN",
            f"MT-CNN {table1.WITH_DETECTOR}")  # fmt: skip
    for kind, values in _figures("table1", results.COHORTS).items():
        luna, published = kind == results.LUNA, table1.published(values)
        for row in (name for name in main if name in values["rows"]):
            of_row, theirs = values["rows"][row], published.get((row, "auc"))
            cells = [in_words(table1.value(of_row["metrics"], m)) if m == "auc" or luna else ""
                     for m in ("auc", "cpm")]  # fmt: skip
            named = f"{row} (*)" if of_row["note"] and not luna else row
            said = "" if theirs is None else f"AUC {theirs:.3f}"
            first = images(values) if luna else kind
            lines.append(" | ".join([f"| {first}", named, *cells, said]) + " |")
    return "\n".join([BEGIN, *lines, END])


def whole_block() -> str:
    """Return all that was measured, as Markdown: tables, differences, sweeps and speeds."""
    parts = {
        "Table 1": _table1(),
        "Differences of these rows": _comparisons(),
        "False positives among LUNA-16's candidates": luna_table(),
        "Sweeps": _sweeps(),
        "Trained longer, and on other images than tested": [*_longer(), *_transfer()],
        "Speed, and what is simulated": _speed(),
    }
    lines = [BEGIN]
    for title, part in parts.items():
        if part:
            lines += ["", f"### {title}", "", *part]
    return "\n".join([*lines, "", END])


def _figures(name: str, cohorts: tuple[str, ...] = results.NODULES) -> dict[str, dict[str, Any]]:
    """Read a figure's committed values by kind of images: real, simulated, LUNA-16's."""
    kinds = {c for n, c in results.there(cohorts) if n == name}
    ordered = sorted(kinds, key=lambda kind: (kind == results.LUNA, kind))
    return {kind: results.read(name, kind) for kind in ordered}


def _table1() -> list[str]:
    """Write our rows of Table 1, with published values in columns of their own."""
    tables, theirs = _figures("table1"), ("auc", "sensitivity")
    if not tables:
        return []
    lines = [line(["Images", "Method", "AUC (95 % interval)", "Sensitivity", "Specificity",
                   "AUC as published", "Sensitivity as published"]),
             "|---" * 7 + "|"]  # fmt: skip
    named = {name: name for name in ("size only", "size + calcification")}
    named |= {f"{model}{way}": f"{model}, {said}" for model in _NAMES.values()
              for way, said in _WAYS.items()}  # fmt: skip
    for kind, values in tables.items():
        published = table1.published(values)
        for row, said in ((row, said) for row, said in named.items() if row in values["rows"]):
            of = values["rows"][row]
            cells = [in_words(of["metrics"][m]) for m in ("auc", "sensitivity", "specificity")]
            there = [f"{published[row, m]:.3f}" if (row, m) in published else "" for m in theirs]
            lines.append(line([kind, said + " (*)" * bool(of["note"]), *cells, *there]))
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
    """List differences of Table 1's rows, corrected for being several."""
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
    """Say what the sweeps over alpha, depth and regularisation found, a line each."""
    lines = []
    for name, what in _SWEEPS.items():
        for kind, values in _figures(name, results.COHORTS).items():
            pairs, said = values["comparisons"], images(values) if kind == results.LUNA else kind
            if not pairs:
                continue
            largest = max(pairs, key=lambda p: abs(pairs[p]["auc_difference"]["value"]))
            found = [p for p in pairs if pairs[p]["found"]]
            kept = [p for p in found if claims.side(pairs[p])]
            same = sum(claims.inside(pair) for pair in pairs.values())
            first = values["variants"].get(largest.split(" less ")[0], {}).get("trained", {})
            dead = (f" ({first['at_chance']} of the former's {first['networks']} networks never "
                    "learnt)" if first.get("at_chance") else "")  # fmt: skip
            plan = values["plan"]["sweeps"]
            folds = plan["first_folds"] or plan["folds"]
            state = "" if values["complete"] else f" ({len(values['missing'])} variants to come)"
            margin = pairs[largest]["equivalence"]["margin"]
            lines.append(
                f"- {said}, {what} ({values['where'].split(',')[0]}), {folds} of {plan['folds']} "
                f"folds{state}: {len(found)} of {len(pairs)} pooled differences survive Holm's "
                f"correction, {len(kept)} of them within folds as well; {same} are shown to be "
                f"smaller than {margin:g} both ways; the largest is {largest}: "
                f"{in_words(pairs[largest]['auc_difference'], sign='+')}"
                f"{cpm_of(pairs[largest])}{dead}."
            )
    return lines


def _longer() -> list[str]:
    """List runs that `collect` took, where they were trained longer than Table 1's."""
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
            auc = in_words(run["metrics"][crossval.FUSED]["auc"])
            plan, config = run["plan"], run["config"]
            lines.append(
                f"  - {model}: AUC {auc}, {plan['repeats']} x {plan['folds']} folds by "
                f"{plan['split']}, up to {config['epochs']} epochs, batches of "
                f"{config['batch_size']}, {run['started'][:10]}, {run['hardware']['device']}"
            )
        for what, pair in values["comparisons"].items():
            lines.append(
                f"  - AUC of {what}: {in_words(pair['auc_difference'], sign='+')}, "
                f"DeLong by patient p = {pair['delong']['p_value']:.2g}"
            )
    return lines


def _there(name: str) -> Any:
    """Read a measurement of `results/`; None where it was not made."""
    file = paths.results() / f"{name}.json"
    return read_json(file, "a result") if file.is_file() else None


def _transfer() -> list[str]:
    """Say what networks that saw only simulated images do on real ones."""
    values = _there("transfer")
    if values is None:
        return []
    auc = {arm: in_words(of["auc"]) for arm, of in values["metrics"].items()}
    gap, plan = values["differences"]["simulated less real"]["auc_difference"], values["plan"]
    return [
        f"- Trained on simulated CT alone, the axial MT-CNN has an AUC of {auc['simulated']} on "
        f"real nodules of other patients; trained on real ones {auc['real']}; the diameter alone "
        f"{auc['size_only']} ({plan['seeds']} repeats of {plan['folds']} folds by patient).",
        f"  - AUC of trained on simulated less trained on real: {in_words(gap, sign='+')}",
    ]


def _speed() -> list[str]:
    """Say what the benchmarks that are there found, each a ratio within one run."""
    lines = []
    if b := _there("benchmark_views"):
        lines.append(
            f"- The cube and nine views of a nodule in a "
            f"{'real' if b['volume'].startswith('1.') else 'synthetic'} scan: "
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
        ratios = [f"{ratio:.1f} times as fast in {name.split(', ')[1]}"
                  for name, ratio in b["ratio"].items() if name.startswith("labkit")]  # fmt: skip
        lines.append(
            f"- Nine MT-CNNs trained at batch {b['batch_size']} against the textbook loop, the "
            f"same updates on the same processor without a GPU: {', '.join(ratios)} "
            f"({b['date'][:10]})."
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
    predictions = {m: read_predictions(f) for m, f in zip(read, runs, strict=True)}
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

    runs = {name: read_predictions(demo / m) for m, name in _NAMES.items()}
    model = load(demo / "mt" / "model")
    cohort = simulated_cohort()
    first = runs["MT-CNN"].query("repeat == 0 and fold == 0 and label == 1")
    unseen = cohort.nodules[cohort.nodules["nodule_id"].isin(first["nodule_id"])]
    order = unseen["diameter_mm"].sort_values(kind="stable")
    row = int(order.index[3 * len(order) // 4])  # large enough to show its margin
    probabilities = model.predict(cohort, [row])
    fused = float(model.fuse(probabilities)[0])
    with style.house_style():
        figures = {
            "nine_views.png": views.nine_views_figure(
                cohort, row, probabilities=probabilities[0], fused=fused
            ),
            "roc.png": roc.roc_figure(runs, simulated=True),
        }
        for name, figure in figures.items():
            figure.savefig(paths.results() / name, dpi=90, metadata={"Software": None})
    return [paths.results() / name for name in figures]


def write(file: Path, block: str) -> None:
    """Put a block between its markers in a page.

    Raises:
        InputError: the markers are not there.
    """
    text = file.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise InputError(f"{file}: needs the lines {BEGIN!r} and {END!r}, once each")
    before, rest = text.split(BEGIN)
    page = before + block + rest.split(END)[1]
    write_atomically(file, lambda p: p.write_text(page, encoding="utf-8"))


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
    commands.add_parser("write", help="write the tables of both pages from results/")
    options = parser.parse_args()
    try:
        if options.command == "collect":
            print(f"wrote {collect(options.name, options.runs, options.about)}")
        elif options.command == "pictures":
            print("wrote", *pictures(options.demo))
        else:
            write(paths.results().parent / "README.md", short_table())
            write(paths.results() / "README.md", whole_block())
    except InputError as error:
        print(f"benchmarks.readme: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
