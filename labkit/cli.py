"""The command line: `labkit COMMAND --help` shows examples.

Heavy modules are imported inside the commands, so that `labkit --help` answers at once.
Exit status: 0 when it worked, 2 for bad input (one line on what is wrong and what to do), 130
after Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import __version__, paths, profiles
from labkit.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from labkit.training.config import TrainingConfig


_TRAINING = (
    "model", "alpha", "depth", "dropout_on", "l2", "epochs", "batch_size", "learning_rate",
    "augmented_copies", "plain_copy", "patience", "precision", "seed",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.command(options)
    except InputError as error:
        print(f"labkit: {error}", file=sys.stderr)
        return 2
    except (OSError, FloatingPointError) as error:
        print(f"labkit: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nlabkit: stopped; what was finished is kept, the same command goes on",
              file=sys.stderr)  # fmt: skip
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="labkit",
        description="Multi-view, multi-task classification of lung nodules on chest CT. "
        "Not for clinical use.",
    )
    parser.add_argument("--version", action="version", version=f"labkit {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, summary: str, *examples: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog="examples:\n  " + "\n  ".join(examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=run)
        return sub

    demo = command(
        "demo", _demo, "ST-CNN and MT-CNN against size alone on the simulated cohort, as a report",
        "labkit demo", "labkit demo --profile smoke --out /tmp/demo",
    )  # fmt: skip
    demo.add_argument("--profile", choices=list(profiles.PROFILES), help="default: lab")
    demo.add_argument("--out", type=Path, help="folder of the report (default: runs/demo)")
    demo.add_argument("--device", default="auto", help="auto, cpu or cuda")

    command(
        "doctor", _doctor, "what this machine has, and what is missing for which lesson",
        "labkit doctor",
    )  # fmt: skip

    nodules = command(
        "nodules", _nodules, "the LIDC-IDRI nodules that a set of rules leaves, and their labels",
        "labkit nodules", "labkit nodules --min-readers 4 --aggregate mean --out nodules.csv",
    )  # fmt: skip
    _add_rules(nodules)
    nodules.add_argument("--aggregate", choices=("median", "mean"), default="median",
                         help="of the readers' malignancy (default: median)")  # fmt: skip
    nodules.add_argument("--luna16", action="store_true", help="only LUNA-16's 888 series")
    nodules.add_argument("--out", type=Path, help="write the table to this CSV file")

    build = command(
        "build", _build, "make a cohort: a table of nodules with a cube and nine views of each",
        "labkit build simulated --out runs/cohorts/simulated",
        "labkit build lidc ~/LIDC-IDRI --out runs/cohorts/lidc",
        "labkit build cubes nodules.npz --exclude-patients held_out.txt --out runs/cohorts/cubes",
    )  # fmt: skip
    build.add_argument("kind", choices=("simulated", "lidc", "cubes"))
    build.add_argument("source", nargs="?", type=Path,
                       help="lidc: folder of DICOM; cubes: .npz file")  # fmt: skip
    build.add_argument("--out", type=Path, required=True, help="folder of the cohort")
    build.add_argument("--patients", type=Path, help="text file: only these patients, one a line")
    build.add_argument("--exclude-patients", type=Path, help="text file: all but these patients")
    _add_rules(build)
    build.add_argument("--nodules", type=int, help="simulated: take about this many, by patient")
    build.add_argument("--labelled-only", action="store_true", help="simulated: none uncertain")
    build.add_argument("--seed", type=int, default=0, help="simulated: of the simulation")
    build.add_argument("--jobs", type=int, help="simulated: processes (default: one a core)")

    crossval = command(
        "crossval", _crossval, "cross-validate; the same command goes on after an interruption",
        "labkit crossval runs/cohorts/simulated --model mt --out runs/mt",
        "labkit crossval COHORT --model st --folds 10 --repeats 10 --paper --out runs/st_paper",
    )  # fmt: skip
    _add_training(crossval)
    crossval.add_argument("--folds", type=int, default=10)
    crossval.add_argument("--repeats", type=int, default=1)
    crossval.add_argument("--split", choices=("patient", "nodule"), default="patient")
    crossval.add_argument("--jobs", type=int, help="networks trained at once")
    crossval.add_argument("--out", type=Path, required=True, help="folder of the run")

    evaluate = command(
        "evaluate", _evaluate, "metrics with intervals of finished runs, and paired tests",
        "labkit evaluate runs/mt runs/st",
    )  # fmt: skip
    evaluate.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    evaluate.add_argument("--views", action="store_true", help="also every single view")

    train = command(
        "train", _train, "train nine networks on all labelled nodules of a cohort",
        "labkit train runs/cohorts/simulated --model mt --out runs/model",
    )  # fmt: skip
    _add_training(train)
    train.add_argument("--out", type=Path, required=True, help="folder of the model")

    predict = command(
        "predict", _predict, "apply a trained model to a cohort",
        "labkit predict runs/model runs/cohorts/lidc --out predictions.csv",
    )  # fmt: skip
    predict.add_argument("model", type=Path)
    predict.add_argument("cohort", type=Path)
    predict.add_argument("--device", default="auto", help="auto, cpu or cuda")
    predict.add_argument("--out", type=Path, required=True, help="CSV file")
    return parser


def _add_rules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--min-readers", type=int, default=3, help="default: 3")
    parser.add_argument("--max-thickness", type=float, default=2.5, metavar="MM",
                        help="of the scan's slices (default: 2.5; inf takes all)")  # fmt: skip


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--model", choices=("mt", "st"), default="mt")
    parser.add_argument("--paper", action="store_true",
                        help="the printed protocol (150 epochs, rate 1e-4, five images a nodule "
                        "and epoch) rather than the brief one")  # fmt: skip
    parser.add_argument("--alpha", type=float, default=0.3, help="weight of reconstruction")
    parser.add_argument("--depth", type=int, choices=range(1, 6), default=3)
    parser.add_argument("--dropout-on", choices=("none", "fc1", "fc1+fc2"),
                        help="default: fc1+fc2 with --paper, else fc1")  # fmt: skip
    parser.add_argument("--l2", type=float, default=0.0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--augmented-copies", type=int, help="transformed images a nodule, epoch")
    parser.add_argument("--plain-copy", action=argparse.BooleanOptionalAction,
                        help="whether an epoch shows each image untransformed too")  # fmt: skip
    parser.add_argument("--patience", type=int, default=10)
    parser.add_argument("--views", help="numbers such as 0,1,2 (default: all nine)")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def _config(options: argparse.Namespace) -> TrainingConfig:
    from labkit.training.config import TrainingConfig

    given = {
        name: getattr(options, name) for name in _TRAINING if getattr(options, name) is not None
    }
    if options.views:
        try:
            given["views"] = tuple(int(v) for v in options.views.split(","))
        except ValueError:
            raise InputError(f"--views {options.views}: give numbers such as 0,1,2") from None
    return TrainingConfig.paper(**given) if options.paper else TrainingConfig.brief(**given)


def _patients(file: Path | None) -> list[str] | None:
    if file is None:
        return None
    if not file.is_file():
        raise InputError(f"{file}: no such file; give a text file with one patient id a line")
    ids = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    if not ids:
        raise InputError(f"{file}: names no patient; give one patient id a line")
    return ids


def _max_thickness(options: argparse.Namespace) -> float | None:
    return None if options.max_thickness == float("inf") else options.max_thickness


def _demo(options: argparse.Namespace) -> None:
    from labkit.demo import run

    run(profiles.get(options.profile), options.out or paths.runs() / "demo", device=options.device)


def _doctor(options: argparse.Namespace) -> None:
    from labkit.doctor import report

    print(report())


def _nodules(options: argparse.Namespace) -> None:
    from labkit.data import lidc
    from labkit.files import write_csv

    table = lidc.nodules(
        min_readers=options.min_readers,
        max_slice_thickness_mm=_max_thickness(options),
        aggregate=options.aggregate,
        series="luna16" if options.luna16 else None,
    )
    labels = table["label"]
    counts = {"benign": (labels == 0).sum(), "uncertain": labels.isna().sum(),
              "malignant": (labels == 1).sum()}  # fmt: skip
    print(f"{len(table)} nodules of {table['patient_id'].nunique()} patients: "
          + ", ".join(f"{n} {name}" for name, n in counts.items()))  # fmt: skip
    known = table[labels.notna()]
    if known["label"].nunique() == 2:
        from labkit.evaluation.intervals import bootstrap_auc

        auc = bootstrap_auc(
            known["label"].astype(int), known["diameter_mm"], groups=known["patient_id"]
        )
        print(f"AUC of the diameter alone: {auc}, 95 % interval over patients")
    if options.out is not None:
        write_csv(options.out, table)
        print(f"wrote {options.out}")
    else:
        shown = ["nodule_id", "readers", "diameter_mm", "malignancy_median", "label"]
        print(table[shown].head(10).to_string(index=False))


def _build(options: argparse.Namespace) -> None:
    chosen: dict[str, Any] = {
        "patients": _patients(options.patients),
        "exclude_patients": _patients(options.exclude_patients),
    }
    rules: dict[str, Any] = {
        "min_readers": options.min_readers,
        "max_slice_thickness_mm": _max_thickness(options),
    }
    if options.kind == "simulated":
        if options.source is not None:
            raise InputError("build simulated takes no source; give the folder by --out")
        from labkit.data.simulate import build_simulated

        build_simulated(
            options.out, seed=options.seed, n_nodules=options.nodules, jobs=options.jobs,
            labelled_only=options.labelled_only, **rules, **chosen,
        )  # fmt: skip
    else:
        if options.source is None:
            needed = "a folder of DICOM" if options.kind == "lidc" else "an .npz file"
            raise InputError(f"build {options.kind} needs a source: {needed}")
        from labkit.data.build import build_cubes, build_lidc

        if options.kind == "lidc":
            print(build_lidc(options.source, options.out, **rules, **chosen))
        else:
            build_cubes(options.source, options.out, **chosen)
    from labkit.data.cohort import Cohort

    cohort = Cohort.open(options.out)
    print(f"{options.out}: {len(cohort)} nodules, {len(cohort.labelled)} of them labelled")


def _crossval(options: argparse.Namespace) -> None:
    from labkit.data.cohort import Cohort
    from labkit.evaluation import crossval

    crossval.run(
        Cohort.open(options.cohort), _config(options), options.out, folds=options.folds,
        repeats=options.repeats, split=options.split, device=options.device, jobs=options.jobs,
    )  # fmt: skip
    _print_runs([options.out], ("fused", "size_only"))
    print(f"wrote {options.out / 'predictions.csv'} and {options.out / 'metrics.json'}")


def _evaluate(options: argparse.Namespace) -> None:
    from labkit.evaluation import crossval, summary

    views = ("fused", "size_only") + (tuple(map(str, range(9))) if options.views else ())
    runs = _print_runs(options.runs, views)
    names = list(runs)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            _print_pair(first, second, summary.compare(runs[first], runs[second]))
        if crossval.SIZE_ONLY in set(runs[first]["view"]):
            pair = summary.compare(runs[first], runs[first], crossval.FUSED, crossval.SIZE_ONLY)
            _print_pair(first, "size only", pair)


def _train(options: argparse.Namespace) -> None:
    from labkit.data.cohort import Cohort
    from labkit.training.fit import fit

    cohort = Cohort.open(options.cohort)
    model = fit(cohort, cohort.labelled, _config(options), device=options.device)
    model.save(options.out)
    aucs = ", ".join(f"{auc:.3f}" for auc in model.view_auc)
    print(f"wrote {options.out}; AUC of its views on the inner validation split: {aucs}")


def _predict(options: argparse.Namespace) -> None:
    from labkit.data.cohort import Cohort
    from labkit.files import write_csv
    from labkit.training.fit import load

    model = load(options.model, options.device)
    cohort = Cohort.open(options.cohort)
    table = model.prediction_table(cohort)
    write_csv(options.out, table)
    print(f"wrote {options.out}: {len(table)} nodules")


def _print_runs(folders: Sequence[Path], views: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    from labkit.evaluation import crossval, summary

    runs = {str(folder): crossval.read_predictions(folder) for folder in folders}
    print("AUC and rates at a threshold of 0.5, pooled over folds, with 95 % intervals over "
          "patients:")  # fmt: skip
    print(summary.table(runs, views).to_string(index=False))
    return runs


def _print_pair(first: str, second: str, pair: dict[str, dict[str, float]]) -> None:
    d, test = pair["auc_difference"], pair["delong"]
    print(f"AUC {first} less {second}: {d['value']:+.4f} ({d['low']:+.4f} to {d['high']:+.4f}), "
          f"DeLong by patient p = {test['p_value']:.3g}")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
