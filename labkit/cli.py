"""The command line: `labkit COMMAND --help` shows examples.

Heavy modules are imported inside the commands, so that `labkit --help` answers at once.
Exit status: 0 when it worked, 2 for bad input (one line on what is wrong and what to do), 130
after Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import __version__, paths, profiles
from labkit.errors import InputError
from labkit.paper import declared

if TYPE_CHECKING:
    import pandas as pd

    from labkit.training.config import TrainingConfig

# The commands that make data: nodules, cohorts, simulated scans.
#
# Heavy modules are imported inside, as in `labkit.cli`.


# Of `labkit build`: rules that choose nodules, where LUNA-16's tables have chosen.
_OF_OTHER_KINDS = ("min_readers", "max_thickness", "nodules", "labelled_only")


def nodules(options: argparse.Namespace) -> None:
    """List nodules under a rule, with the AUC of size alone."""
    from labkit.annotations import lidc
    from labkit.io import write_csv

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
        from labkit.evaluation.statistics import bootstrap_auc

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


def build(options: argparse.Namespace) -> None:
    """Make a cohort."""
    chosen: dict[str, Any] = {
        "patients": _patients(options.patients),
        "exclude_patients": _patients(options.exclude_patients),
    }
    rules: dict[str, Any] = {}
    if options.min_readers is not None:
        rules["min_readers"] = options.min_readers
    if options.max_thickness is not None:
        rules["max_slice_thickness_mm"] = _max_thickness(options)
    if options.simulated is not None and options.kind != "luna16":
        raise InputError("--simulated goes with build luna16; a simulated cohort of nodules is "
                         "made by labkit build simulated")  # fmt: skip
    if options.lungs and options.kind not in ("lidc", "luna16"):
        raise InputError(f"--lungs needs whole scans, which build {options.kind} does not see; "
                         "leave it out, or build lidc or luna16")  # fmt: skip
    if options.kind == "luna16":
        _build_luna16(options)
        return
    if options.kind == "simulated":
        if options.source is not None:
            raise InputError("build simulated takes no source; give the folder by --out")
        from labkit.cohorts.simulated import build_simulated

        build_simulated(
            options.out, seed=options.seed or 0, n_nodules=options.nodules, jobs=options.jobs,
            labelled_only=options.labelled_only, **rules, **chosen,
        )  # fmt: skip
    else:
        if options.source is None:
            needed = "a folder of DICOM" if options.kind == "lidc" else "an .npz file"
            raise InputError(f"build {options.kind} needs a source: {needed}")
        from labkit.cohorts.build import build_cubes, build_lidc

        if options.kind == "lidc":
            print(build_lidc(
                options.source, options.out, lungs=options.lungs, **rules, **chosen))  # fmt: skip
        else:
            build_cubes(options.source, options.out, **chosen)
    from labkit.cohorts.cohort import Cohort

    cohort = Cohort.open(options.out)
    print(f"{options.out}: {len(cohort)} nodules, {len(cohort.labelled)} of them labelled")


def _build_luna16(options: argparse.Namespace) -> None:
    values = {f"--{name.replace('_', '-')}": getattr(options, name) for name in _OF_OTHER_KINDS}
    not_its = [name for name, value in values.items() if value is not None and value is not False]
    if not_its:
        raise InputError("build luna16 takes all candidates of its scans, and no nodules by a "
                         f"rule; leave out {' and '.join(not_its)}")  # fmt: skip
    given = {"a source: the folder above subset0": options.source,
             "--candidates FILE": options.candidates,
             "--annotations FILE": options.annotations}  # fmt: skip
    if options.simulated is not None:
        _simulate_luna16(options, [what for what, value in given.items() if value is not None])
        return
    missing = [what for what, value in given.items() if value is None]
    if missing:
        raise InputError(f"build luna16 needs {' and '.join(missing)}; see labkit build --help")
    if options.patients is not None or options.exclude_patients is not None:
        raise InputError("build luna16 chooses scans by its tables: --patients and "
                         "--exclude-patients do not go with it, a shorter --subsets "
                         "does")  # fmt: skip
    if options.seed is not None:
        raise InputError("build luna16 draws nothing by lot, but with --simulated; leave out "
                         "--seed")  # fmt: skip
    from labkit.cohorts.candidates import build_luna16

    print(build_luna16(
        options.source, options.candidates, options.out, annotations=options.annotations,
        excluded=options.excluded, subsets=options.subsets, lungs=options.lungs, jobs=options.jobs,
    ))  # fmt: skip


def _simulate_luna16(options: argparse.Namespace, given: list[str]) -> None:
    given += [f"--{name.replace('_', '-')}" for name in ("excluded", "subsets", "lungs", "patients",
              "exclude_patients") if getattr(options, name)]  # fmt: skip
    if given:
        raise InputError(f"build luna16 --simulated makes its own scans and tables; leave out "
                         f"{' and '.join(given)}")  # fmt: skip
    from labkit.cohorts.simulated_luna16 import simulated_luna16

    cohort = simulated_luna16(
        options.simulated, options.out, seed=options.seed or 0, jobs=options.jobs
    )  # fmt: skip
    table = cohort.nodules
    print(f"{options.out}: simulated CT, {len(table)} candidates in "
          f"{table['series_uid'].nunique()} scans, {int(table['label'].sum())} of them on "
          "nodules")  # fmt: skip


def simulate(options: argparse.Namespace) -> None:
    """Write a whole simulated scan."""
    import time

    from labkit.simulate.scan import series_named
    from labkit.simulate.scene import scene_for_series
    from labkit.simulate.write_dicom import write_scan

    if options.seed < 0:
        raise InputError(f"--seed {options.seed}: give 0 or a positive whole number")
    started = time.perf_counter()
    scene = scene_for_series(series_named(options.patient, options.series), options.seed)
    scan = scene.scan
    print(f"{scan.patient_id}: {scan.slices} slices of 512 x 512 pixels, {scan.slices * 0.526:.0f} "
          f"MB; {scan.slices * 0.05:.0f} to {scan.slices * 0.2:.0f} s")  # fmt: skip
    write_scan(scene, options.out, truth=options.truth, jobs=options.jobs)
    print(f"{options.out}: simulated CT of {scan.slices} slices, {len(scan.findings)} nodule(s) "
          f"that at least one reader outlined, {time.perf_counter() - started:.0f} s")  # fmt: skip


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


# The commands and options of the command line, with an example of each command's use.


def parser(commands: Mapping[str, Callable[[argparse.Namespace], None]]) -> argparse.ArgumentParser:
    """The command line's parser.

    Args:
        commands: what runs each command; it is given the parsed options, and is their `command`.
    """
    whole = argparse.ArgumentParser(
        prog="labkit",
        description="Multi-view, multi-task classification of lung nodules on chest CT. "
        "Not for clinical use.",
    )
    whole.add_argument("--version", action="version", version=f"labkit {__version__}")
    choices = whole.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, summary: str, *examples: str) -> argparse.ArgumentParser:
        sub = choices.add_parser(
            name,
            help=summary,
            description=summary,
            epilog="examples:\n  " + "\n  ".join(examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=commands[name])
        return sub

    demo = command(
        "demo", "ST-CNN and MT-CNN against size alone on the simulated cohort, as a report",
        "labkit demo", "labkit demo --profile smoke --out /tmp/demo",
    )  # fmt: skip
    demo.add_argument("--profile", choices=list(profiles.PROFILES), help="default: lab")
    demo.add_argument("--out", type=Path, help="folder of the report (default: runs/demo)")
    demo.add_argument("--device", default="auto", help="auto, cpu or cuda")

    command(
        "doctor", "what this machine has, and what is missing for which lesson",
        "labkit doctor",
    )  # fmt: skip

    nodules = command(
        "nodules", "the LIDC-IDRI nodules that a set of rules leaves, and their labels",
        "labkit nodules", "labkit nodules --min-readers 4 --aggregate mean --out nodules.csv",
    )  # fmt: skip
    _add_rules(nodules)
    nodules.add_argument("--aggregate", choices=("median", "mean"), default="median",
                         help="of the readers' malignancy (default: median)")  # fmt: skip
    nodules.add_argument("--luna16", action="store_true", help="only LUNA-16's 888 series")
    nodules.add_argument("--out", type=Path, help="write the table to this CSV file")

    build = command(
        "build", "make a cohort: a table of nodules with a cube and nine views of each",
        "labkit build simulated --out runs/cohorts/simulated",
        "labkit build lidc ~/LIDC-IDRI --out runs/cohorts/lidc",
        "labkit build cubes nodules.npz --exclude-patients held_out.txt --out runs/cohorts/cubes",
        "labkit build luna16 ~/LUNA16 --candidates candidates.csv \\\n"
        "      --annotations annotations.csv --excluded annotations_excluded.csv \\\n"
        "      --out runs/cohorts/luna16",
        "labkit build luna16 FLAT_FOLDER --subsets subsets.csv --candidates C --annotations A \\\n"
        "      --excluded E --jobs 1 --out runs/cohorts/luna16",
        "labkit build luna16 --simulated 60 --out runs/cohorts/luna16_simulated",
    )  # fmt: skip
    build.add_argument("kind", choices=("simulated", "lidc", "cubes", "luna16"))
    build.add_argument("source", nargs="?", type=Path,
                       help="lidc: folder of DICOM; cubes: .npz file; "
                       "luna16: folder of .mhd files")  # fmt: skip
    build.add_argument("--out", type=Path, required=True, help="folder of the cohort")
    build.add_argument("--patients", type=Path, help="text file: only these patients, one a line")
    build.add_argument("--exclude-patients", type=Path, help="text file: all but these patients")
    _add_rules(build)
    # What is not given goes with every kind, and leaves each rule as it is by default.
    build.set_defaults(min_readers=None, max_thickness=None)
    build.add_argument("--nodules", type=int, help="simulated: take about this many, by patient")
    build.add_argument("--labelled-only", action="store_true", help="simulated: none uncertain")
    build.add_argument("--seed", type=int,
                       help="simulated, luna16 --simulated: of the simulation "
                       "(default: 0)")  # fmt: skip
    build.add_argument("--jobs", type=int,
                       help="simulated, luna16: processes (default: one a core). luna16: each "
                       "takes up to 1.8 GB of memory, 2.8 with --lungs, and the default is as many "
                       "as that is free for")  # fmt: skip
    build.add_argument("--lungs", action="store_true",
                       help="lidc, luna16: make chest wall of everything beyond "
                       "the lungs")  # fmt: skip
    _add_luna16_tables(build)

    simulate = command(
        "simulate", "a whole CT scan, simulated around real outlines, as DICOM",
        "labkit simulate scan LIDC-IDRI-0001 --out runs/dicom/0001",
        "labkit simulate scan LIDC-IDRI-0132 --series UID --seed 3 --truth --out FOLDER",
        "labkit build lidc runs/dicom/0001 --out runs/cohorts/one_scan",
    )  # fmt: skip
    simulate.add_argument("kind", choices=("scan",))
    simulate.add_argument("patient", help="patient id of LIDC-IDRI, or a SeriesInstanceUID")
    simulate.add_argument("--out", type=Path, required=True, help="folder of the DICOM series")
    simulate.add_argument("--series", metavar="UID", help="which scan; eight patients have two")
    simulate.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    simulate.add_argument("--truth", action="store_true",
                          help="also the masks lung.mha and nodules.mha")  # fmt: skip
    simulate.add_argument("--jobs", type=int, help="threads (default: one a core, at most four)")

    crossval = command(
        "crossval", "cross-validate; the same command goes on after an interruption",
        "labkit crossval runs/cohorts/simulated --model mt --out runs/mt",
        "labkit crossval COHORT --model st --folds 10 --repeats 10 --paper --out runs/st_paper",
        "labkit crossval COHORT --paper --scheduler tcp://node7:8786 --out runs/on_a_cluster",
    )  # fmt: skip
    _add_training(crossval)
    crossval.add_argument("--folds", type=int, default=10)
    crossval.add_argument("--repeats", type=int, default=1)
    crossval.add_argument("--split", choices=("patient", "nodule", "subset"),
                          help="default: patient; subset for LUNA-16's candidates")  # fmt: skip
    crossval.add_argument("--jobs", type=int, help="networks trained at once")
    crossval.add_argument("--scheduler", metavar="ADDRESS",
                          help="of a Dask scheduler, whose workers train instead of this machine "
                          "(see notebooks/running_on_a_cluster.md)")  # fmt: skip
    crossval.add_argument("--out", type=Path, required=True, help="folder of the run")

    runs = command(
        "runs", "list cross-validation runs: how far each has come, and what it measured",
        "labkit runs", "labkit runs runs/lessons --out runs.csv",
    )  # fmt: skip
    runs.add_argument("folders", nargs="*", type=Path, metavar="FOLDER",
                      help="runs, or folders that hold runs (default: runs/)")  # fmt: skip
    runs.add_argument("--out", type=Path, help="also write the table to this CSV file")

    evaluate = command(
        "evaluate", "metrics with intervals of finished runs, and paired tests",
        "labkit evaluate runs/mt runs/st",
    )  # fmt: skip
    evaluate.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    evaluate.add_argument("--views", action="store_true", help="also every single view")

    train = command(
        "train", "train nine networks on all labelled nodules of a cohort",
        "labkit train runs/cohorts/simulated --model mt --out runs/model",
    )  # fmt: skip
    _add_training(train)
    train.add_argument("--out", type=Path, required=True, help="folder of the model")

    predict = command(
        "predict", "apply a trained model to a cohort",
        "labkit predict runs/model runs/cohorts/lidc --out predictions.csv",
    )  # fmt: skip
    predict.add_argument("model", type=Path)
    predict.add_argument("cohort", type=Path)
    predict.add_argument("--device", default="auto", help="auto, cpu or cuda")
    predict.add_argument("--out", type=Path, required=True, help="CSV file")

    froc = command(
        "froc", "judge a submission of marks as LUNA-16 does: FROC, CPM, and intervals over scans",
        "labkit froc submission.csv --annotations annotations.csv \\\n"
        "      --excluded annotations_excluded.csv --series seriesuids.csv",
        "labkit froc SUBMISSION --annotations A --excluded E --series S --max-marks 0 --out FOLDER",
        "labkit froc SUBMISSION --annotations A --excluded E --series S --threshold 0.5",
    )  # fmt: skip
    froc.add_argument("candidates", type=Path, metavar="CANDIDATES",
                      help="CSV file: seriesuid,coordX,coordY,coordZ,probability; mm in the "
                      "scan's world, LPS")  # fmt: skip
    froc.add_argument("--annotations", type=Path, required=True, metavar="FILE",
                      help="CSV file: seriesuid,coordX,coordY,coordZ,diameter_mm")  # fmt: skip
    froc.add_argument("--excluded", type=Path, required=True, metavar="FILE",
                      help="findings whose marks do not count; the same columns")  # fmt: skip
    froc.add_argument("--series", type=Path, required=True, metavar="FILE",
                      help="the scans judged: a UID a line, or a CSV file with a column seriesuid; "
                      "marks in others are left out")  # fmt: skip
    froc.add_argument("--max-marks", type=int, default=100, metavar="N",
                      help="most marks kept of a scan (default: 100, as in the challenge; "
                      "0 keeps all)")  # fmt: skip
    froc.add_argument("--threshold", type=float, metavar="P",
                      help="also the paper's measures over all marks as candidates (AUC, "
                      "sensitivity, specificity, false positive rate), a mark of this probability "
                      "or more being called a nodule; one on an excluded finding is a negative, as "
                      "in candidates.csv")  # fmt: skip
    froc.add_argument("--bootstraps", type=int, default=1000, metavar="N",
                      help="samples of scans for intervals (default: 1000; 0: none)")  # fmt: skip
    froc.add_argument("--seed", type=int, default=0, help="of the samples (default: 0)")
    froc.add_argument("--out", type=Path, metavar="FOLDER",
                      help="also write froc.json, froc.csv and froc.png there")  # fmt: skip

    reproduce = command(
        "reproduce", "the paper's figures and tables, each beside what was published",
        "labkit reproduce fig1 --out runs/reproduced",
        "labkit reproduce table1 fig7 --cohort runs/cohorts/lidc --profile lab --out runs/lidc",
        "labkit reproduce table1 --folds 10 --out runs/ten_folds",
        "labkit reproduce table1 fig5 fig6 fig7 --cohort luna --out runs/luna",
        "labkit reproduce all --profile paper --scheduler tcp://node7:8786 --out runs/paper",
    )  # fmt: skip
    reproduce.add_argument("names", nargs="+", choices=declared.names(), metavar="NAME",
                           help=", ".join(declared.names()))  # fmt: skip
    reproduce.add_argument("--cohort", type=Path,
                           help="its folder, or luna: the simulated LUNA-16 (default: the "
                           "simulated cohort of nodules)")  # fmt: skip
    reproduce.add_argument("--profile", choices=tuple(profiles.PROFILES),
                           help="how much of everything (default: lab)")  # fmt: skip
    for name in ("folds", "repeats"):
        reproduce.add_argument(f"--{name}", type=int,
                               help="of the cross-validation (default: the profile's)")  # fmt: skip
    reproduce.add_argument("--device", default="auto", help="auto, cpu or cuda")
    reproduce.add_argument("--jobs", type=int, help="networks trained at once")
    reproduce.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster that trains")
    reproduce.add_argument("--out", type=Path, required=True,
                           help="folder of all that is made from the cohort")  # fmt: skip
    return whole


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
    parser.add_argument("--l2", type=float, default=0.0, help="weight of the squared weights")
    parser.add_argument("--l2-on", choices=("both", "share", "img"), default="both",
                        help="encoder, decoder or both")  # fmt: skip
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--augmented-copies", type=int, help="transformed images a nodule, epoch")
    parser.add_argument("--symmetries", choices=("all", "reflections"), default="all",
                        help="of transformed images: turns and flips drawn independently, or every "
                        "turn joined with a flip (default: all)")  # fmt: skip
    parser.add_argument("--plain-copy", action=argparse.BooleanOptionalAction,
                        help="whether an epoch shows each image untransformed too")  # fmt: skip
    parser.add_argument("--negatives-per-positive", type=float, metavar="RATIO",
                        help="negatives an epoch shows for each image of a positive, drawn afresh "
                        "(default: 1 for LUNA-16's candidates, else all images alike)")  # fmt: skip
    parser.add_argument("--patience", type=int, default=10)
    parser.add_argument("--views", help="numbers such as 0,1,2 (default: all nine)")
    parser.add_argument("--precision", choices=("auto", "fp32", "tf32", "bf16"), default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def _add_luna16_tables(parser: argparse.ArgumentParser) -> None:
    luna16 = parser.add_argument_group("luna16, its tables (CSV); the same command goes on after "
                                       "an interruption")  # fmt: skip
    luna16.add_argument("--candidates", type=Path, metavar="FILE",
                        help="seriesuid,coordX,coordY,coordZ,class")  # fmt: skip
    luna16.add_argument("--annotations", type=Path, metavar="FILE",
                        help="the nodules: seriesuid,coordX,coordY,coordZ,diameter_mm")  # fmt: skip
    luna16.add_argument("--excluded", type=Path, metavar="FILE",
                        help="findings whose candidates are marked, and whose marks FROC does not "
                        "count; the same columns (default: none)")  # fmt: skip
    luna16.add_argument("--subsets", type=Path, metavar="FILE",
                        help="seriesuid,subset: the folds of cross-validation (default: by the "
                        "folders subset0 to subset9)")  # fmt: skip
    luna16.add_argument("--simulated", type=int, metavar="SCANS",
                        help="instead of all these: as many simulated scans, and what a detector "
                        "finds in them")  # fmt: skip


_TRAINING = (
    "model", "alpha", "depth", "dropout_on", "l2", "l2_on", "epochs", "batch_size", "learning_rate",
    "augmented_copies", "plain_copy", "symmetries", "negatives_per_positive", "patience",
    "precision", "seed",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except InputError as error:
        print(f"labkit: {error}", file=sys.stderr)
        return 2
    except (OSError, FloatingPointError) as error:
        print(f"labkit: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        kept = str(stop) or "what was finished is kept, the same command goes on"
        print(f"\nlabkit: stopped; {kept}", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    return parser(_COMMANDS)


def _config(options: argparse.Namespace, task: str) -> TrainingConfig:
    from labkit.training.config import TrainingConfig

    given = TrainingConfig.of_task(task) | {
        name: getattr(options, name) for name in _TRAINING if getattr(options, name) is not None
    }
    if options.views:
        try:
            given["views"] = tuple(int(v) for v in options.views.split(","))
        except ValueError:
            raise InputError(f"--views {options.views}: give numbers such as 0,1,2") from None
    return TrainingConfig.paper(**given) if options.paper else TrainingConfig.brief(**given)


def _demo(options: argparse.Namespace) -> None:
    from labkit.demo import run

    run(profiles.get(options.profile), options.out or paths.runs() / "demo", device=options.device)


def _doctor(options: argparse.Namespace) -> None:
    from labkit.doctor import report

    print(report())


def _crossval(options: argparse.Namespace) -> None:
    from labkit.cohorts.cohort import Cohort
    from labkit.evaluation import crossval

    cohort = Cohort.open(options.cohort)
    split = options.split or ("subset" if cohort.task == "luna16" else "patient")
    crossval.run(
        cohort, _config(options, cohort.task), options.out, folds=options.folds,
        repeats=options.repeats, split=split, device=options.device, jobs=options.jobs,
        scheduler=options.scheduler,
    )  # fmt: skip
    _print_runs([options.out], ("fused", "size_only", "detector"))
    print(f"wrote {options.out / 'predictions.csv'} and {options.out / 'metrics.json'}")
    if (options.out / "submission.csv").is_file():
        print(f"judge it: labkit froc {options.out / 'submission.csv'} --annotations "
              f"{cohort.folder / 'annotations.csv'} --excluded "
              f"{cohort.folder / 'annotations_excluded.csv'} --series "
              f"{cohort.folder / 'seriesuids.csv'}")  # fmt: skip


def _runs(options: argparse.Namespace) -> None:
    from labkit.evaluation.crossval import as_text, list_runs
    from labkit.io import write_csv

    table = list_runs(options.folders or [paths.runs()])
    if table.empty:
        print("no runs here; labkit crossval makes one")
        return
    print(as_text(table))
    if options.out is not None:
        write_csv(options.out, table)
        print(f"wrote {options.out}")


def _evaluate(options: argparse.Namespace) -> None:
    from labkit.evaluation import crossval
    from labkit.paper import values

    views = ("fused", "size_only") + (tuple(map(str, range(9))) if options.views else ())
    runs = _print_runs(options.runs, views)
    names, pairs = list(runs), {}
    for i, first in enumerate(names):
        rivals = {name: (runs[name], crossval.FUSED) for name in names[i + 1 :]}
        if crossval.SIZE_ONLY in set(runs[first]["view"]):
            rivals["size only"] = (runs[first], crossval.SIZE_ONLY)
        for second, rival in rivals.items():
            pairs[f"{first} less {second}"] = values.compare(
                (runs[first], crossval.FUSED), rival, resamples=2000
            )
    family = values.correct(pairs)
    if family["size"] > 1:
        print(f"\np-values are corrected for {family['size']} comparisons ({family['method']})")
    for name, pair in pairs.items():
        _print_pair(name, pair)


def _train(options: argparse.Namespace) -> None:
    from labkit.cohorts.cohort import Cohort
    from labkit.training.model import fit

    cohort = Cohort.open(options.cohort)
    config = _config(options, cohort.task)
    model = fit(cohort, cohort.labelled, config, device=options.device)
    model.save(options.out)
    aucs = ", ".join(f"{auc:.3f}" for auc in model.view_auc)
    print(f"wrote {options.out}; AUC of its views on the inner validation split: {aucs}")


def _predict(options: argparse.Namespace) -> None:
    from labkit.cohorts.cohort import Cohort
    from labkit.io import write_csv
    from labkit.training.model import load

    model = load(options.model, options.device)
    cohort = Cohort.open(options.cohort)
    table = model.prediction_table(cohort)
    write_csv(options.out, table)
    print(f"wrote {options.out}: {len(table)} nodules")


def _froc(options: argparse.Namespace) -> None:
    from labkit import submissions

    if options.max_marks < 0:
        raise InputError(f"--max-marks {options.max_marks}: give 1 or more, or 0 for no limit")
    submissions.run(
        options.candidates, options.out, annotations=options.annotations,
        excluded=options.excluded, series=options.series, max_marks=options.max_marks or None,
        bootstraps=options.bootstraps, seed=options.seed, threshold=options.threshold,
    )  # fmt: skip


def _print_runs(folders: Sequence[Path], views: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    from labkit.evaluation import crossval, statistics

    runs = {str(folder): crossval.read_predictions(folder) for folder in folders}
    cuts = {crossval.read_threshold(folder) for folder in folders}
    if len(cuts) > 1:
        raise InputError("the runs are of different tasks; give runs of one cohort")
    (cut,) = cuts
    print(f"AUC and rates at a threshold of {cut:.3g}, pooled over folds, with 95 % intervals over "
          "patients:")  # fmt: skip
    print(statistics.table(runs, views, cut).to_string(index=False))
    return runs


def _print_pair(name: str, pair: dict[str, Any]) -> None:
    d, inside, t = (
        pair[k] for k in ("auc_difference", "within_folds_difference", "corrected_t_test")
    )
    print(f"\nAUC of {name}: {d['value']:+.4f} ({d['low']:+.4f} to {d['high']:+.4f})")
    print(f"  DeLong by patient: p = {pair['delong']['p_value']:.3g}, corrected "
          f"{pair['p_holm']:.3g}")  # fmt: skip
    print(f"  nodules compared within their fold only: {inside['value']:+.4f} "
          f"({inside['low']:+.4f} to {inside['high']:+.4f})")  # fmt: skip
    if "not_computed" in t:
        print(f"  corrected resampled t-test over folds: none, {t['not_computed']}")
    else:
        print(f"  corrected resampled t-test over folds: {t['value']:+.4f} ({t['low']:+.4f} to "
              f"{t['high']:+.4f}), p = {t['p_value']:.3g}")  # fmt: skip
    print(f"  {pair['equivalence']['in_words']}")


def _reproduce(options: argparse.Namespace) -> None:
    from labkit.paper.reproduce import reproduce

    files = reproduce(
        options.names, options.cohort, options.profile, options.out, folds=options.folds,
        repeats=options.repeats, device=options.device, jobs=options.jobs,
        scheduler=options.scheduler,
    )  # fmt: skip
    for name, file in files.items():
        print(f"{name}: {file.with_suffix('.png')} and {file}")


_COMMANDS = {
    "demo": _demo,
    "doctor": _doctor,
    "nodules": nodules,
    "build": build,
    "simulate": simulate,
    "crossval": _crossval,
    "runs": _runs,
    "evaluate": _evaluate,
    "train": _train,
    "predict": _predict,
    "froc": _froc,
    "reproduce": _reproduce,
}


if __name__ == "__main__":
    sys.exit(main())
