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
from labkit.errors import InputError
from labkit.evaluation import crossval, summary
from labkit.files import read_json, write_atomically, write_json

BEGIN = "<!-- results: begin (python -m labkit.results readme) -->"
END = "<!-- results: end -->"
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


def readme_block() -> str:
    """The README's table of results, from every collected result, as Markdown."""
    lines = [
        BEGIN,
        "| Images | Method | AUC (95 % interval) | Sensitivity | Specificity | Measured |",
        "|---|---|---|---|---|---|",
    ]
    notes = []
    for file in sorted(paths.results().glob("*.json")):
        values = read_json(file, "a result")
        if "runs" not in values:
            continue
        rows: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        for model, run in values["runs"].items():
            if crossval.SIZE_ONLY in run["metrics"]:
                rows["size only"] = (run, run["metrics"][crossval.SIZE_ONLY])
            rows[model] = (run, run["metrics"][crossval.FUSED])
        for model in ("size only", "ST-CNN", "MT-CNN"):
            if model in rows:
                lines.append(_row(model, *rows[model]))
        notes.append(f"- {values['about']}")
        for what, pair in values["comparisons"].items():
            d = pair["auc_difference"]
            notes.append(
                f"  - AUC of {what}: {d['value']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f}), "
                f"DeLong by patient p = {pair['delong']['p_value']:.2g}"
            )
    return "\n".join([*lines, "", *notes, *_transfer(), *_speed(), END])


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
    auc = {arm: _interval(a) for arm, a in metrics.items()}
    plan = values["plan"]
    return [
        "- Trained on simulated CT alone, the axial MT-CNN has an AUC of "
        f"{auc['simulated']} on real nodules of other patients; trained on real ones "
        f"{auc['real']}; the diameter alone {auc['size_only']} ({plan['seeds']} repeats of "
        f"{plan['folds']} folds by patient).",
        f"  - AUC of trained on simulated less trained on real: {d['value']:+.3f} "
        f"({d['low']:+.3f} to {d['high']:+.3f})",
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
    if b := _there("lungs"):
        lines.append(
            f"- Lungs segmented in {len(b['simulated'])} whole simulated scans: Dice "
            f"{b['least_dice']:.3f} or more against the scene's own lungs; of the least kept of "
            f"{b['nodules']} nodules, {b['least_kept']:.1%} lies within the dilated mask."
        )
    return lines


def _interval(of: dict[str, float]) -> str:
    return f"{of['value']:.3f} ({of['low']:.3f} to {of['high']:.3f})"


def _row(model: str, run: dict[str, Any], m: dict[str, Any]) -> str:
    kind = "simulated" if run["cohort"]["simulated"] else "real"
    plan, config = run["plan"], run["config"]
    images = f"{kind} ({run['cohort']['name']}), {m['nodules']} nodules of {m['patients']} patients"
    cells = [_interval(m[k]) for k in ("auc", "sensitivity", "specificity")]
    how = (
        f"{plan['repeats']} x {plan['folds']} folds by {plan['split']}, up to {config['epochs']} "
        f"epochs, {run['started'][:10]}, {run['hardware']['device']}"
    )
    return "| " + " | ".join([images, model, *cells, how]) + " |"


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
