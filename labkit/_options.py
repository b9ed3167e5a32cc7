"""The commands and options of the command line, with an example of each command's use."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from labkit import __version__, experiments, profiles


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
    reproduce.add_argument("names", nargs="+", choices=experiments.names(), metavar="NAME",
                           help=", ".join(experiments.names()))  # fmt: skip
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
