"""Committed measurements: from runs to `results/`, and from there to three pages.

The README has one short table, `results/README.md` all that was measured, and the course's page on
what was broken on purpose the counts of it. Their words are in `benchmarks/pages`.

    python -m benchmarks.readme pictures runs/demo
    python -m benchmarks.readme write

A result keeps the run's settings, data checksums, hardware, versions and date, so that a reader can
tell what a number was measured on, and repeat it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.common import command, fill, in_words, put_between
from labkit import paths
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
# What the pages call the rows of Table 1, those of nodules and of candidates, in their order.
_WAYS = {"": "nine views", ", axial": "axial view alone", ", three orthogonal": "three views"}
_NAMES = {model: NETWORKS[model].name for model in ("st", "mt")}
_METHODS = [NETWORKS[of].name + more for of in (*_NAMES, *RIVALS)
            for more in ("", WITH_THE_DIAMETER)]  # fmt: skip
_NAMED = {name: name for name in ("size only", "size + calcification")} | {
    f"{model}{way}": f"{model}, {said}" for model in _NAMES.values() for way, said in _WAYS.items()
}
_NAMED |= {name: name for name in _METHODS if name not in _NAMED}
_WITH, _BEST = f" {table1.WITH_DETECTOR}", NETWORKS["best"].name
_LUNA = [table1.DETECTORS, *(f"{of}{way}" for of in _NAMES.values() for way in (*_WAYS, _WITH)),
         _BEST, _BEST + _WITH]  # fmt: skip
_MAIN = {
    "real": ("size only", "size + calcification", "ST-CNN", "MT-CNN", NETWORKS["mt-ratings"].name,
             _BEST, _BEST + WITH_THE_DIAMETER),
    "simulated": ("size only", "MT-CNN"),
    results.LUNA: (table1.DETECTORS, "MT-CNN", _BEST),
}  # fmt: skip
# Each metric's title, and its digits.
_METRICS = {
    "auc": ("AUC", 3), "sensitivity": ("Sensitivity", 3), "specificity": ("Specificity", 3),
    "false_positives_per_scan": ("False positives a scan", 1), "cpm": ("CPM", 3),
}  # fmt: skip
_SWEEPS = {"fig7": "alpha", "fig6": "depth", "fig5": "regularisation"}
_FILES = (
    "methods", "missing_slices", "ablation", "transfer", "benchmark_views", "benchmark_labels",
    "benchmark_training", "benchmark_simulate", "benchmark_luna16", "benchmark_judging",
    "luna16_detector", "official_froc", "lungs",
)  # fmt: skip


def figures(name: str, cohorts: tuple[str, ...] = results.NODULES) -> dict[str, Values]:
    """Read a figure's committed values by kind of images: real, simulated, LUNA-16's."""
    kinds = {c for n, c in results.there(cohorts) if n == name}
    ordered = sorted(kinds, key=lambda kind: (kind == results.LUNA, kind))
    return {kind: results.read(name, kind) for kind in ordered}


# What the pages call for.


def images(kind: str, values: Values) -> str:
    """Say of what images a row is, for a line's beginning."""
    luna = f"LUNA-16{', simulated' * values['cohort']['simulated']}"
    return luna if kind == results.LUNA else kind


def published(values: Values, row: str) -> str:
    """Say whose method a row is, and what they published of it."""
    theirs, papers = table1.published(values), {NETWORKS[of].name: NETWORKS[of] for of in RIVALS}
    metrics = ("auc", "sensitivity", "specificity", "accuracy")
    said = [f"{'AUC' if metric == 'auc' else metric} {theirs[row, metric]:.3f}"
            for metric in metrics if (row, metric) in theirs]  # fmt: skip
    return ", ".join(filter(None, [papers[row].reference if row in papers else "", *said]))


def luna_cells(values: Values, row: str) -> list[str]:
    """Say a row's metrics on LUNA-16's candidates, and what was published of them."""
    cells, theirs, of = [], [], table1.published(values)
    for metric, (title, digits) in _METRICS.items():
        found = table1.value(values["rows"][row]["metrics"], metric)
        cells.append("not computed" if found is None else in_words(found, digits))
        if (row, metric) in of:
            theirs.append(f"{title} {of[row, metric]:.{digits}f}")
    return [*cells, ", ".join(theirs)]


def _sweeps() -> list[tuple[Any, ...]]:
    """Find each sweep's largest difference, those that survive, and whether networks learnt."""
    found = []
    every = ((what, kind, values) for name, what in _SWEEPS.items()
             for kind, values in figures(name, results.COHORTS).items())  # fmt: skip
    for what, kind, values in every:
        if pairs := values["comparisons"]:
            name = max(pairs, key=lambda p: abs(pairs[p]["within_folds_difference"]["value"]))
            survive = [pair for pair in pairs.values() if pair["found"]]
            small = sum(pair["equivalence"]["shown"] for pair in pairs.values())
            first = values["variants"].get(name.split(" less ")[0], {}).get("trained", {})
            counts = len(survive), sum(map(bool, map(claims.side, survive))), small
            found.append((what, kind, values, name, pairs[name], counts, first))
    return found


def _packed() -> Values | None:
    """Judge kept runs that are not of Table 1, and compare each with the diameter, and pairs."""
    tables, runs = {}, {}
    for file in sorted((paths.results() / "predictions").glob("*.tar.xz")):
        if not {"printed", "rival", "luna", "sweep"} & set(file.name[:-7].split("_")):
            with run_folder(file) as folder:
                tables[name := file.name.split(".")[0]] = read_predictions(folder)
                runs[name] = read_json(folder / "run.json", "a run"), convergence(folder)
    if not tables:
        return None
    rows = statistics.table(tables, (SIZE_ONLY, FUSED))[["method", "auc_within_folds", "auc"]]
    pairs = {
        f"{a} less {b}": statistics.compare(tables[a], tables[b]) for a in tables for b in tables
        if a != b and b in (a.replace("mt", "st"), a.replace("_all", "_reflections"))
    } | {f"{a} less size only": statistics.compare(of, of, FUSED, SIZE_ONLY)
         for a, of in tables.items()}  # fmt: skip
    return {"rows": rows.to_numpy().tolist(), "runs": runs, "pairs": pairs,
            "family": statistics.correct(pairs)}  # fmt: skip


def short_table() -> str:
    """Return the README's table: our main rows beside the published, a dozen at most."""
    return fill("short", **_GIVEN, main=_MAIN, theirs_of=table1.published, value=table1.value)


def whole_block() -> str:
    """Return all that was measured, as Markdown: tables, differences, sweeps and speeds."""
    places = {name: paths.results() / f"{name}.json" for name in _FILES}
    there = {name: read_json(of, "a result") if of.is_file() else None
             for name, of in places.items()}  # fmt: skip
    return fill(
        "results", **_GIVEN, **there, sweeps=_sweeps(), packed=_packed(), named=_NAMED,
        luna_rows=_LUNA, networks=NETWORKS, not_converged=not_converged, published=published,
        luna_cells=luna_cells,
    )  # fmt: skip


def broken() -> str:
    """Return the counts of what was broken on purpose, and of what came of it."""
    found = read_json(paths.results() / "reliability.json", "a result")
    return fill("broken", begin=BEGIN, end=END, **found)


_GIVEN = {
    "begin": BEGIN, "end": END, "figures": figures, "cohorts": results.COHORTS,
    "luna": results.LUNA, "reads_readers": table1.READS_READERS, "images": images,
}  # fmt: skip


def pictures(demo: Path) -> None:
    """Write the README's two pictures, nine views and ROC curves, from what `labkit demo` wrote."""
    # Here, since matplotlib has no part in collecting numbers.
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
        for name, figure in {
            "nine_views.png": views.nine_views_figure(cohort, row, **nine),
            "roc.png": roc.roc_figure(runs, simulated=True),
        }.items():
            figure.savefig(paths.results() / name, dpi=90, metadata={"Software": None})
            print("wrote", paths.results() / name)


def write() -> None:
    """Write the tables of all pages from results/."""
    repository = paths.results().parent
    for page, block in (
        (repository / "README.md", short_table), (paths.results() / "README.md", whole_block),
        (repository / "notebooks" / "what_we_tried_to_break.md", broken),
    ):  # fmt: skip
        put_between(page, block(), BEGIN, END)


if __name__ == "__main__":
    sys.exit(command((pictures, write), __doc__))
