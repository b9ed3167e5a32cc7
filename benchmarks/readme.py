"""Committed measurements: from runs to `results/`, and from there to three pages.

The README has one short table, `results/README.md` all that was measured, and the course's page on
what was broken on purpose the counts of it.

    python -m benchmarks.readme pictures runs/demo
    python -m benchmarks.readme write

A result keeps the run's settings, data checksums, hardware, versions and date, so that a reader can
tell what a number was measured on, and repeat it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import in_words, put_between
from labkit import paths
from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.predictions import (
    FUSED,
    SIZE_ONLY,
    convergence,
    read_predictions,
    run_folder,
)
from labkit.io import read_json
from labkit.models import NETWORKS, RIVALS
from labkit.paper import claims, results, table1
from labkit.paper.declared import WITH_THE_DIAMETER
from labkit.paper.values import not_converged

Values = Mapping[str, Any]
BEGIN = "<!-- results: begin (python -m benchmarks.readme write) -->"
END = "<!-- results: end -->"
_WAYS = {"": "nine views", ", axial": "axial view alone", ", three orthogonal": "three views"}
_NAMES = {model: NETWORKS[model].name for model in ("st", "mt")}
_SWEEPS = {"fig7": "alpha", "fig6": "depth", "fig5": "regularisation"}
_WITH = f" {table1.WITH_DETECTOR}"
# Each metric's title, and its digits.
_METRICS = {
    "auc": ("AUC", 3), "sensitivity": ("Sensitivity", 3), "specificity": ("Specificity", 3),
    "false_positives_per_scan": ("False positives a scan", 1), "cpm": ("CPM", 3),
}  # fmt: skip


def table(header: Sequence[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a table."""
    return [f"| {' | '.join(cells)} |" if cells else "|---" * len(header) + "|"
            for cells in (header, None, *rows)]  # fmt: skip


def figures(name: str, cohorts: tuple[str, ...] = results.NODULES) -> dict[str, Values]:
    """Read a figure's committed values by kind of images: real, simulated, LUNA-16's."""
    kinds = {c for n, c in results.there(cohorts) if n == name}
    ordered = sorted(kinds, key=lambda kind: (kind == results.LUNA, kind))
    return {kind: results.read(name, kind) for kind in ordered}


def judged(pair: Values, family: Values, digits: int = 3) -> str:
    """Say a difference of AUCs, pooled and within folds, what DeLong's test says of it, and CPM."""
    pooled, within = (in_words(pair[f"{part}_difference"], digits, "+")
                      for part in ("auc", "within_folds"))  # fmt: skip
    margin = pair["equivalence"]["margin"]
    same = pair["equivalence"]["shown"]
    return (
        f"{pooled}, within folds {within}; {family['of']}, Holm-corrected over "
        f"{family['size']}: p = {pair['p_holm']:.2g}"
        f"{f'; shown to be smaller than {margin:g} either way' if same else ''}{cpm_of(pair)}"
    )


def _less(pair: Values) -> list[str]:
    """Say a difference within folds, and its corrected p-value, in two cells."""
    return [in_words(pair["within_folds_difference"], sign="+"), f"{pair['p_holm']:.2g}"]


def cpm_of(pair: Values) -> str:
    """Say the difference of a pair in CPM, where there is one."""
    of = pair.get("cpm_difference", {})
    return f"; in CPM {in_words(of, sign='+')}" if "value" in of else ""


def how(values: Values, by: str) -> str:
    """Say how and where the rows of a table were made."""
    plan, hardware = values["plan"]["baselines"], values["hardware"]
    machine = hardware["gpu"] or f"{hardware['processor']} without a GPU"
    return (
        f"{plan['repeats']} x {plan['folds']} folds by {by}, up to {values['config']['epochs']} "
        f"epochs, {values['date'][:10]}, {machine}"
    )


def images(kind: str, values: Values) -> str:
    """Say of what images a row is, for a line's beginning."""
    return (
        f"LUNA-16{', simulated' * values['cohort']['simulated']}" * (kind == results.LUNA) or kind
    )


def short_table() -> str:
    """Return the README's table: our main rows beside the published, a dozen at most."""
    best, ours = NETWORKS["best"].name, "MT-CNN"
    main = {
        "real": ("size only", "size + calcification", "ST-CNN", ours, NETWORKS["mt-ratings"].name,
                 best, best + WITH_THE_DIAMETER),
        "simulated": ("size only", ours), results.LUNA: (table1.DETECTORS, ours, ours + _WITH),
    }  # fmt: skip
    rows = []
    for kind, values in figures("table1", results.COHORTS).items():
        luna, published = kind == results.LUNA, table1.published(values)
        for row in (name for name in main[kind] if name in values["rows"]):
            of_row, theirs = values["rows"][row], published.get((row, "auc"))
            cells = [in_words(table1.value(of_row["metrics"], m)) if m != "cpm" or luna else ""
                     for m in ("auc_within_folds", "auc", "cpm")]  # fmt: skip
            named = f"{row} (*)" if of_row["note"] == table1.READS_READERS else row
            said = "" if theirs is None else f"AUC {theirs:.3f}"
            rows.append([images(kind, values), named, *cells, said])
    header = ("Images", "Method", "AUC within folds", "AUC, pooled", "CPM", "As published")
    return "\n".join([BEGIN, *table(header, rows), END])


def whole_block() -> str:
    """Return all that was measured, as Markdown: tables, differences, sweeps and speeds."""
    lines = [BEGIN]
    for title, parts in _SECTIONS.items():
        if part := [line for each in parts for line in each()]:
            lines += ["", f"### {title}", "", *part]
    return "\n".join([*lines, "", END])


def broken() -> str:
    """Return the counts of what was broken on purpose, and of what came of it."""
    found = read_json(paths.results() / "reliability.json", "a result")
    mutations, interruptions = found["mutations"], found["interruptions"]
    limits, hardware = mutations["limits"], mutations["hardware"]
    rows = [
        [f"{mutations['real_slices'] * 'real '}DICOM slices" if name == "dicom" else f"`{name}`",
         *(f"{of[part]:,}" for part in ("tried", "right", "refused", "wrong"))]
        for name, of in mutations["kinds"].items()
    ]  # fmt: skip
    disturbed = list(next(iter(interruptions["commands"].values())))
    commands = [
        [f"`{name}`", *(f"{of[what]['tried']}" for what in disturbed),
         f"{sum(of[what]['refused'] for what in disturbed)}",
         f"{sum(of[what]['wrong'] for what in disturbed)}"]
        for name, of in interruptions["commands"].items()
    ]  # fmt: skip
    header = ("Broken", "Tried", "Read rightly", "Refused in one line", "Wrong")
    of_commands = ("Command", *disturbed, "refused in one line", "wrong")
    slowest = max(of["slowest_cpu_s"] for of in mutations["kinds"].values())
    return "\n".join([
        BEGIN, "", *table(header, rows), "",
        f"The slowest took {slowest:.1f} s of computing, of {limits['cpu_s']} allowed; none got "
        f"more than {limits['gb_beyond_libraries']} GB of memory.", "",
        *table(of_commands, commands), "",
        f"*Inputs of {mutations['date'][:10]}, commands of {interruptions['date'][:10]}, on "
        f"{hardware['processor']}, Python {hardware['python']}, labkit {hardware['labkit']}; the "
        "full values are in [results/reliability.json](../results/reliability.json).*", "", END,
    ])  # fmt: skip


def _table1() -> Iterator[str]:
    """Write our rows of Table 1, with published values in columns of their own."""
    named = {name: name for name in ("size only", "size + calcification")}
    named |= {f"{model}{way}": f"{model}, {said}" for model in _NAMES.values()
              for way, said in _WAYS.items()}  # fmt: skip
    named |= {name: name for of in (*_NAMES, *RIVALS)
              for name in (NETWORKS[of].name, NETWORKS[of].name + WITH_THE_DIAMETER)
              if name not in named}  # fmt: skip
    rows, notes, shown = [], [], ("auc", "sensitivity", "specificity", "accuracy")
    papers = {NETWORKS[of].name: NETWORKS[of].reference for of in RIVALS}
    for kind, values in figures("table1").items():
        published = table1.published(values)
        for row, said in ((row, said) for row, said in named.items() if row in values["rows"]):
            of = values["rows"][row]
            cells = [in_words(of["metrics"][m]) for m in ("auc_within_folds", *shown)]
            theirs = [f"{'AUC' if m == 'auc' else m} {published[row, m]:.3f}"
                      for m in shown if (row, m) in published]  # fmt: skip
            there = ", ".join(filter(None, (papers.get(row), *theirs)))
            pair = values["comparisons"].get(f"{row} less size only")
            cells.insert(1, ", p = ".join(_less(pair)) if pair else "")
            rows.append([kind, said + " (*)" * (of["note"] == table1.READS_READERS), *cells, there])
        what = {
            "simulated": "Simulated CT around the real readers' outlines",
            "real": "Real LIDC-IDRI cubes (Armato et al. 2011, CC BY 3.0) in which only the "
            "slices that the nodule itself occupies are real and every other slice is air, so that "
            "eight of nine views are strips as wide as the nodule is long",
        }.get(kind if kind == "simulated" else values["cohort"]["name"])
        counts = next(iter(values["rows"].values()))["metrics"]
        notes.append(
            f"- {what or 'Real CT (' + values['cohort']['name'] + ')'}, {counts['nodules']} "
            f"labelled nodules of {counts['patients']} patients: {how(values, 'patient')}; "
            f"{not_converged(values) or 'converged'}."
        )
    if rows:
        header = ("Images", "Method", "AUC within folds", "less the diameter", "AUC, pooled",
                  "Sensitivity", "Specificity", "Accuracy", "As published")  # fmt: skip
        yield from table(header, rows)
        yield from ("", "(*) reads the readers' own ratings, which no image method is given. p: "
                    "DeLong's test by patient, corrected by Holm over all comparisons of these "
                    "images.", "")  # fmt: skip
        yield from notes


def _costs() -> Iterator[str]:
    """List what each method of Table 1 learns, computes, takes and needs."""
    if not (file := paths.results() / "methods.json").is_file():
        return
    found = read_json(file, "a result")
    rows = [
        [NETWORKS[name].name, f"{of['parameters']:,}", f"{of['features']:,}",
         f"{(of['flop_a_nodule'] or 0) / 1e6:,.0f}", f"{1000 * of['predict_seconds']:.1f}",
         f"{of['fit_seconds']:,.0f}", f"{of['peak_mib']:.0f}"]
        for name, of in found["methods"].items()
    ]  # fmt: skip
    yield from table(["Method", "Weights", "Features", "MFLOP a nodule", "Predicted, ms a nodule",
                      "Fit, s", "Memory, MiB"], rows)  # fmt: skip
    yield from ("", f"{found['about']} Fits are to a fold of {found['plan']['folds']}, "
                f"{found['cohort']['labelled']} labelled real nodules in all; "
                f"{found['hardware']['processor']}, {found['date'][:10]}.")  # fmt: skip


def _comparisons() -> Iterator[str]:
    """List differences of Table 1's rows, corrected for being several."""
    for kind, values in figures("table1").items():
        for what, pair in values["comparisons"].items():
            if not what.endswith("less size only"):
                yield f"- {kind}, AUC of {what}: {judged(pair, values['family'])}."
        fusion = values["fusion"].get("MT-CNN", {"comparisons": {}})
        for way in ("equal weights", "logistic stacking"):
            if pair := fusion["comparisons"].get(what := f"{way} less AUC weights (Eq. 4)"):
                yield (f"- {kind}, AUC of {what} in fusing MT-CNN: "
                       f"{judged(pair, fusion['family'], 4)}.")  # fmt: skip


def _luna() -> Iterator[str]:
    """Write our rows of Table 1 on LUNA-16's candidates, beside the published."""
    names = [f"{model}{way}" for model in _NAMES.values() for way in (*_WAYS, _WITH)]
    for values in (v for k, v in figures("table1", results.COHORTS).items() if k == results.LUNA):
        lines, published = [], table1.published(values)
        for name in (name for name in (table1.DETECTORS, *names) if name in values["rows"]):
            cells, theirs = [name], []
            for metric, (title, digits) in _METRICS.items():
                found = table1.value(values["rows"][name]["metrics"], metric)
                cells.append("not computed" if found is None else in_words(found, digits))
                if (name, metric) in published:
                    theirs.append(f"{title} {published[name, metric]:.{digits}f}")
            lines.append([*cells, ", ".join(theirs)])
        yield from table(["Method", *(t for t, _ in _METRICS.values()), "As published"], lines)
        at = next(iter(values["rows"].values()))["metrics"]["screening"]
        source, theirs = "LUNA-16's candidates (Setio et al. 2017, CC BY 4.0)", []
        if values["cohort"]["simulated"]:
            source = "Candidates of a detector in simulated CT of LUNA-16's scans"
            theirs = ["; the published values are of real CT, 551,065 candidates in 888"]
        yield ""
        yield (
            f"- {source}: {at['positives'] + at['negatives']:,} in {at['scans']} scans, "
            f"{at['positives']} of them on nodules{''.join(theirs)}. {how(values, 'subset')}. "
            "Sensitivity, specificity and false positives are of candidates at a probability of "
            f"{at['threshold']:.3g}, the share of them that is on nodules; CPM is of nodules, by "
            "LUNA-16's own rules, its interval over scans."
        )
        for pairs, family in (("comparisons", "family"), ("together", "together_family")):
            for what, pair in values[pairs].items():
                yield f"- AUC of {what}: {judged(pair, values[family])}."


def _sweeps() -> Iterator[str]:
    """Say what the sweeps over alpha, depth and regularisation found, a line each."""
    for name, what in _SWEEPS.items():
        for kind, values in figures(name, results.COHORTS).items():
            pairs = values["comparisons"]
            if not pairs:
                continue
            largest = max(pairs, key=lambda p: abs(pairs[p]["auc_difference"]["value"]))
            found = [p for p in pairs.values() if p["found"]]
            first = values["variants"].get(largest.split(" less ")[0], {}).get("trained", {})
            dead = (f" ({first['at_chance']} of the former's {first['networks']} networks never "
                    "learnt)" if first.get("at_chance") else "")  # fmt: skip
            plan = values["plan"]["sweeps"]
            state = "" if values["complete"] else f" ({len(values['missing'])} variants to come)"
            yield (
                f"- {images(kind, values)}, {what} ({values['where'].split(',')[0]}), "
                f"{plan['first_folds'] or plan['folds']} of {plan['folds']} folds{state}: "
                f"{not_converged(values) or 'converged'}; {len(found)} of {len(pairs)} differences "
                f"survive Holm's correction ({values['family']['of']}), "
                f"{sum(map(bool, map(claims.side, found)))} of them on one side within folds; "
                f"{sum(map(claims.inside, pairs.values()))} are shown to be smaller than "
                f"{pairs[largest]['equivalence']['margin']:g} both ways; the largest is {largest}: "
                f"{in_words(pairs[largest]['auc_difference'], sign='+')}"
                f"{cpm_of(pairs[largest])}{dead}."
            )


# What puts a measurement in words, by its file, and what the words need that has to be computed.
_TRANSFER = {
    "transfer": (
        "The axial MT-CNN, tested on real nodules of other patients: trained on simulated CT alone "
        "it has an AUC of {simulated}, on the simulated twins of just the real training nodules "
        "{simulated_same}, on these real ones {real}; the diameter alone has {size_only} "
        "({plan[seeds]} repeats of {plan[folds]} folds by patient). The simulated scene was tuned "
        "on these same real cubes, so that scans from elsewhere may be farther from it.\n"
        "  - AUC of trained on simulated less trained on real: {gap}\n"
        "  - AUC of trained on the twins less trained on real: {twins_gap}",
        lambda b: {
            arm: in_words(of["auc"]) + (f" on {b['arms'][arm]['nodules_a_fold']:.0f} nodules a fold"
                                        if arm in b["arms"] else "")
            for arm, of in b["metrics"].items()
        } | {
            name: in_words(b["differences"][f"{arm} less real"]["auc_difference"], sign="+")
            for name, arm in (("gap", "simulated"), ("twins_gap", "simulated_same"))
        },
    ),
}  # fmt: skip
_SPEED = {
    "benchmark_views": (
        "The cube and nine views of a nodule in a {kind} scan: {cube_and_views_ms:.0f} ms on one "
        "core, {ratio:.0f} times less than resampling the whole scan to 1 mm by SimpleITK's "
        "B-spline, from which they differ by {largest_difference_hu:.4f} HU at most ({date:.10}).",
        lambda b: {"kind": "real" if b["volume"].startswith("1.") else "synthetic"},
    ),
    "benchmark_labels": (
        "All 2,651 nodules of LIDC-IDRI, grouped and measured: {labkit_seconds:.1f} s, {ratio:.0f} "
        "times less than pylidc (extrapolated from a sample of its scans).", None,
    ),
    "benchmark_training": (
        "Nine MT-CNNs trained at batch {batch_size} against the textbook loop, the same updates on "
        "the same processor without a GPU: {ratios} ({date:.10}).",
        lambda b: {"ratios": ", ".join(f"{ratio:.1f} times as fast in {name.split(', ')[1]}"
                                       for name, ratio in b["ratio"].items() if "labkit" in name)},
    ),
    "benchmark_simulate": (
        "All {cohort[nodules]:,} nodules simulated: {cohort[wall_s]:.0f} s on {cohort[cores]} "
        "cores; a whole scan of 512 x 512 x {whole_scan[runs][0][slices]} voxels: "
        "{whole_scan[runs][0][scan_s]:.0f} s on one, {whole_scan[runs][0][scan_peak_gb]:.1f} GB "
        "({date:.10}).", None,
    ),
    "benchmark_luna16": (
        "The nine views of LUNA-16's {in_full[candidates]:,} candidates: {minutes:.0f} minutes of "
        "one core, so that two need {in_full[minutes_on_2_cores_calculated]:.0f} and sixteen "
        "{in_full[minutes_on_16_cores_calculated]:.0f}, and {in_full[gb_of_views]:.0f} GB; "
        "calculated from a scan's, {scans[simulated][growth][ms_a_candidate]:.1f} ms a candidate. "
        "Measured, two processes are {gained[0]:.1f} to {gained[1]:.1f} times as fast as one "
        "({date:.10}).",
        lambda b: {
            "minutes": b["in_full"]["cpu_s"] / 60,
            "gained": [of(s["two_processes_measured"]["times_as_fast_by_the_clock"]
                          for s in b["scans"].values()) for of in (min, max)],
        },
    ),
    "benchmark_judging": (
        "Everything after training, for two models on as many candidates: {minutes:.0f} minutes of "
        "one core, {sizes[whole][peak_gb]:.1f} GB at most ({date:.10}).",
        lambda b: {"minutes": b["after_training_cpu_s"] / 60},
    ),
    "luna16_detector": (
        "The detector of the simulated LUNA-16 hits {hit:.0f} of {nodules} nodules in the {scans} "
        "scans that it was tuned on, with {candidates_a_scan:.0f} candidates a scan ({date:.10}).",
        lambda b: {"scans": len(b["series"])},
    ),
    "official_froc": (
        "FROC curves of {challenges} made-up submissions with ties, rims and overlaps, against the "
        "challenge's own script in Python 3: {apart} ({date:.10}).",
        lambda b: {
            "challenges": sum(row["challenges"] for row in b["rows"]),
            "apart": f"{worst:.0e} apart at most" if (worst := max(
                row["largest_difference"]["curve"] for row in b["rows"]
            )) else "the same to the last bit",
        },
    ),
    "lungs": (
        "Lungs segmented in {scans} whole simulated scans: Dice {least_dice:.3f} or more against "
        "the scene's own lungs; of the least kept of {nodules} nodules, {least_kept:.1%} lies "
        "within the dilated mask.", lambda b: {"scans": len(b["simulated"])},
    ),
}  # fmt: skip


def _said(files: Mapping[str, Any]) -> Iterator[str]:
    """Say what each measurement that is there found."""
    for name, (words, more) in files.items():
        if (file := paths.results() / f"{name}.json").is_file():
            found = read_json(file, "a result")
            yield "- " + words.format(**found | (more(found) if more else {}))


def _packed() -> Iterator[str]:
    """Tabulate kept runs that are not of Table 1, and compare each with the diameter, and pairs."""
    runs = {}
    kept = sorted((paths.results() / "predictions").glob("*.tar.xz"))
    for file in (f for f in kept if not {"printed", "rival"} & set(f.name[:-7].split("_"))):
        with run_folder(file) as folder:
            about = read_json(folder / "run.json", "a run")
            runs[file.name.split(".")[0]] = read_predictions(folder), convergence(folder), about
    if not runs:
        return
    yield from ("These, and the runs of Table 1 on real cubes, can be evaluated again, see "
                "[predictions/](predictions/README.md).", "")  # fmt: skip
    tables = {name: of for name, (of, *_) in runs.items()}
    found = statistics.table(tables, (SIZE_ONLY, FUSED))
    columns = {"method": "Run", "auc_within_folds": "AUC within folds", "auc": "AUC, pooled"}
    yield from table(list(columns.values()), found[list(columns)].to_numpy().tolist())
    yield ""
    for name, (_, learnt, about) in runs.items():
        best, config, hardware = learnt["best_epoch"], about["config"], about["hardware"]
        yield (f"- {name}: {learnt['networks']} networks, learning rate "
               f"{config['learning_rate']:g}, at most {config['epochs']} epochs; best in epoch "
               f"{best['median']:g} (median; {best['least']} to {best['most']}), "
               f"{learnt['out_of_epochs']} out of epochs, {learnt['at_chance']} at chance; "
               f"{hardware['processor']}, {hardware['device']}, "
               f"torch {hardware['torch']}, begun {about['started'][:10]}")  # fmt: skip
    pairs = {
        f"{a} less {b}": statistics.compare(tables[a], tables[b]) for a in tables for b in tables
        if a != b and b in (a.replace("mt", "st"), a.replace("_all", "_reflections"))
    } | {f"{a} less size only": statistics.compare(of, of, FUSED, SIZE_ONLY)
         for a, of in tables.items()}  # fmt: skip
    family = statistics.correct(pairs)
    for name, pair in pairs.items():
        yield (f"- {name}: within folds {in_words(pair['within_folds_difference'], sign='+')}, "
               f"{pair['holds_for']}; {family['of']}, Holm-corrected over {family['size']}: p = "
               f"{pair['p_holm']:.2g}")  # fmt: skip


def _slices() -> Iterator[str]:
    """Tabulate what missing slices change, on simulated cubes cut as the real ones are."""
    if not (file := paths.results() / "missing_slices.json").is_file():
        return
    found = read_json(file, "a result")
    yield (f"Simulated cubes in 8 bits, whole and cut to the slices that readers outlined, as the "
           f"real cubes are (a nodule keeps {found['slices']['median']:g}, median, of 64); "
           f"{found['plan']['folds']} folds by patient, {found['date'][:10]}:")  # fmt: skip
    yield ""
    rows = []
    for name, of in found["methods"].items():
        aucs = [in_words(of[kind]["auc_within_folds"]) for kind in ("whole", "cut")]
        pair = found["comparisons"].get(name)
        less = _less(pair) if pair else ["", ""]
        rows.append([f"`{name}`", *aucs, *less])
    header = ("Method", "AUC within folds, whole", "cut", "cut less whole", "p (Holm)")
    yield from table(header, rows)
    yield ""
    yield ("The cut tells how many slices the readers outlined, and so the nodule's height. What "
           "gains by it on simulated CT may be too good on the real cubes.")  # fmt: skip


def _ablation() -> Iterator[str]:
    """Tabulate what each part adds to `best`."""
    if not (file := paths.results() / "ablation.json").is_file():
        return
    found = read_json(file, "a result")
    yield from ("", "Stacked on real cubes inside the training nodules, in place of `best`'s two "
                f"members ({found['date'][:10]}):", "")  # fmt: skip
    rows = []
    for name, of in found["choices"].items():
        pair = found["comparisons"].get(f"{name} less best")
        less = _less(pair) if pair else ["`best`", ""]
        rows.append([name, *(in_words(of[m]) for m in ("auc_within_folds", "auc")), *less])
    header = ("Stacked", "AUC within folds", "AUC, pooled", "less `best`", "p (Holm)")
    yield from table(header, rows)


_SECTIONS: dict[str, tuple[Callable[[], Iterator[str]], ...]] = {
    "Table 1": (_table1,),
    "What each method costs": (_costs,),
    "Differences of these rows": (_comparisons,),
    "Other methods, taken apart": (_slices, _ablation),
    "False positives among LUNA-16's candidates": (_luna,),
    "Long runs, kept prediction by prediction": (_packed,),
    "Sweeps": (_sweeps,),
    "Tested on other images than trained": (partial(_said, _TRANSFER),),
    "Speed, and what is simulated": (partial(_said, _SPEED),),
}


def pictures(demo: Path) -> list[Path]:
    """Write the README's two pictures, nine views and ROC curves, from what `labkit demo` wrote."""
    # Here, since matplotlib and torch have no part in collecting numbers.
    from labkit.cohorts.simulated import simulated_cohort
    from labkit.plots import roc, style, views
    from labkit.training.nine_views import load

    runs = {name: read_predictions(demo / m) for m, name in _NAMES.items()}
    model, cohort = load(demo / "mt" / "model"), simulated_cohort()
    first = runs["MT-CNN"].query("repeat == 0 and fold == 0 and label == 1")
    unseen = cohort.nodules[cohort.nodules["nodule_id"].isin(first["nodule_id"])]
    order = unseen["diameter_mm"].sort_values(kind="stable")
    row = int(order.index[3 * len(order) // 4])  # large enough to show its margin
    said = model.predict(cohort, [row])
    nine = {"probabilities": said[0], "fused": float(model.fuse(said)[0])}
    with style.house_style():
        figures = {
            "nine_views.png": views.nine_views_figure(cohort, row, **nine),
            "roc.png": roc.roc_figure(runs, simulated=True),
        }
        for name, figure in figures.items():
            figure.savefig(paths.results() / name, dpi=90, metadata={"Software": None})
    return [paths.results() / name for name in figures]


def main() -> int:
    """Draw the README's pictures, or write the tables of all pages."""
    parser = argparse.ArgumentParser(description="Committed measurements.")
    commands = parser.add_subparsers(required=True, dest="command")
    draw = commands.add_parser("pictures", help="write the README's pictures from a demo")
    draw.add_argument("demo", type=Path)
    commands.add_parser("write", help="write the tables of all pages from results/")
    options = vars(parser.parse_args())
    try:
        if options.pop("command") == "pictures":
            print("wrote", *pictures(**options))
        else:
            put_between(paths.results().parent / "README.md", short_table(), BEGIN, END)
            put_between(paths.results() / "README.md", whole_block(), BEGIN, END)
            page = paths.results().parent / "notebooks" / "what_we_tried_to_break.md"
            put_between(page, broken(), BEGIN, END)
    except InputError as error:
        print(f"benchmarks.readme: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
