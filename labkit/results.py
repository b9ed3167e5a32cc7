"""Committed measurements: from runs to `results/`, and from there to the README's table.

    python -m labkit.results collect NAME RUN [RUN ...] --about "what these images are"
    python -m labkit.results pictures runs/demo
    python -m labkit.results readme

A result keeps the run's settings, data checksums, hardware, versions and date, so that a reader can
tell what a number was measured on, and repeat it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from labkit import paths
from labkit._readme_block import BEGIN, END, readme_block
from labkit.errors import InputError
from labkit.evaluation import crossval, summary
from labkit.files import read_json, write_atomically, write_json

__all__ = ["BEGIN", "END", "collect", "pictures", "readme_block", "write_readme"]

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
            comparisons[f"{model} less size only"] = summary.compare(
                table, table, crossval.FUSED, crossval.SIZE_ONLY
            )
    if {"MT-CNN", "ST-CNN"} <= set(predictions):
        comparisons["MT-CNN less ST-CNN"] = summary.compare(
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
    from labkit.data.embedded import simulated_cohort
    from labkit.plots import roc, style, training
    from labkit.training.fit import load

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
            "nine_views.png": training.nine_views_figure(
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
        print(f"labkit.results: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
