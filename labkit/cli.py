"""The command line: `labkit COMMAND --help` shows examples.

Heavy modules are imported inside the commands, so that `labkit --help` answers at once.
Exit status: 0 when it worked, 2 for bad input (one line on what is wrong and what to do), 130
after Ctrl-C.
"""

from __future__ import annotations

import argparse
import errno
import inspect
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from labkit import __version__, paths, profiles
from labkit.errors import InputError, require_known
from labkit.models import NETWORKS
from labkit.paper import declared
from labkit.training.config import CHOICES, TrainingConfig

if TYPE_CHECKING:
    import pandas as pd

Options = argparse.Namespace
_Arguments = Sequence[tuple[tuple[str, ...], dict[str, Any]]]
_COMMANDS: list[tuple[Callable[[Options], None], tuple[str, ...], _Arguments]] = []


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = argparse.Namespace()
    try:
        parser().parse_args(arguments, options)
        options.command(options)
    except (InputError, OSError, FloatingPointError) as error:
        said = str(error)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = error.filename or getattr(options, "out", None) or "a disk"
            said = f"{where}: {error.strerror}; make room, and the same command goes on"
        print(f"labkit: {' '.join(said.split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        kept = str(stop) or "what was finished is kept, the same command goes on"
        print(f"\nlabkit: stopped; {kept}", file=sys.stderr)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    whole = _Parser(
        prog="labkit",
        description="Multi-view, multi-task classification of lung nodules on chest CT. "
        "Not for clinical use.",
    )
    whole.add_argument("--version", action="version", version=f"labkit {__version__}")
    choices = whole.add_subparsers(required=True, metavar="COMMAND")
    for function, examples, arguments in _COMMANDS:
        summary = (function.__doc__ or "").rstrip(".")
        sub = choices.add_parser(
            function.__name__, help=summary, description=summary,
            epilog="examples:\n  " + "\n  ".join(examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.set_defaults(command=function)
        for flags, settings in arguments:
            if settings.get("type") is Path:  # no shell turns the ~ of --out=~/cohort into a home
                settings = settings | {"type": paths.path}
            sub.add_argument(*flags, **settings)
    return whole


def _command(*examples: str, options: _Arguments = ()) -> Callable[..., Any]:
    """Make a command of a function, whose docstring explains it."""

    def register(function: Callable[[Options], None]) -> Callable[[Options], None]:
        _COMMANDS.append((function, examples, options))
        return function

    return register


def _option(*flags: str, **settings: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    return flags, settings


def _folder(what: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    return _option("--out", type=Path, required=True, help=what)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"give numbers such as 0,1,2, not {text}") from None


def _of_training() -> _Arguments:
    """An option for each field of `TrainingConfig`, explained by its docstring."""
    text = inspect.getdoc(TrainingConfig) or ""
    described = dict(re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", text, re.M))
    options = []
    for field in fields(TrainingConfig):
        settings: dict[str, Any] = {"help": " ".join(described.get(field.name, "").split())}
        if field.name in CHOICES:
            settings |= {"choices": CHOICES[field.name], "type": type(CHOICES[field.name][0])}
            if field.name == "model":
                settings["metavar"] = "NAME"
                settings["help"] += f" All: {', '.join(NETWORKS)}."
        elif isinstance(field.default, bool):
            settings["action"] = argparse.BooleanOptionalAction
        elif field.name == "views":
            settings |= {"metavar": "0,1,...", "type": _numbers}
        else:
            settings |= {"type": type(field.default) if field.default is not None else float}
            settings |= {"metavar": "N" if settings["type"] is int else "X"}
        settings["help"] = settings["help"].replace("%", "%%")
        options.append(_option(f"--{field.name.replace('_', '-')}", **settings))
    return options


_DEVICE = _option("--device", default="auto", help="auto, cpu or cuda")
_JOBS = _option("--jobs", type=int, help="networks trained at once")
_PROFILE = _option("--profile", choices=list(profiles.PROFILES), help="how much of everything")
_SCHEDULER = _option(
    "--scheduler", metavar="ADDRESS",
    help="of a Dask scheduler, whose workers train instead of this machine (see "
    "notebooks/running_on_a_cluster.md)",
)  # fmt: skip
_READERS = _option("--min-readers", type=int, metavar="N", help="default: 3")
_THICKNESS = _option(
    "--max-thickness", type=float, metavar="MM", help="of slices (default: 2.5; inf takes all)"
)
_TRAINING = (
    _option("cohort", type=Path),
    _option("--paper", action="store_true",
            help="the printed protocol (150 epochs, rate 1e-4, five images a nodule and epoch) "
            "rather than the lab's, which converges at a fraction of its cost"),
    *_of_training(),
    _DEVICE,
)  # fmt: skip


@_command(
    "labkit demo", "labkit demo --profile smoke --out /tmp/demo",
    options=[_PROFILE, _option("--out", type=Path, help="of the report (default: runs/demo)"),
             _DEVICE],
)  # fmt: skip
def demo(options: Options) -> None:
    """Compare ST-CNN and MT-CNN with size alone on the simulated cohort, in a report."""
    from labkit.demo import run

    profile = profiles.get(options.profile, "demo")
    run(profile, options.out or paths.runs() / "demo", device=options.device)


@_command(
    "labkit doctor", "labkit doctor ~/LIDC-IDRI",
    options=[
        _option("folder", nargs="?", type=Path, metavar="FOLDER",
                help="of DICOM, .mhd files or .npz files: say what a build would take of it, what "
                "it would refuse, and why; nothing is changed"),
    ],
)  # fmt: skip
def doctor(options: Options) -> None:
    """Say what this machine has, and lacks for which lesson; or what a build makes of a folder."""
    from labkit.doctor import of_folder, report

    print(report() if options.folder is None else of_folder(options.folder))


@_command(
    "labkit nodules", "labkit nodules --min-readers 4 --aggregate mean --out nodules.csv",
    options=[
        _READERS, _THICKNESS,
        _option("--aggregate", choices=("median", "mean"), default="median",
                help="of the readers' malignancy (default: median)"),
        _option("--luna16", action="store_true", help="only LUNA-16's 888 series"),
        _option("--out", type=Path, help="write the table to this CSV file"),
    ],
)  # fmt: skip
def nodules(options: Options) -> None:
    """List the LIDC-IDRI nodules that a set of rules leaves, and their labels."""
    from labkit.annotations import lidc
    from labkit.evaluation.statistics import bootstrap_auc
    from labkit.io import write_csv

    table = lidc.nodules(
        **_rules(options), aggregate=options.aggregate,
        series="luna16" if options.luna16 else None,
    )  # fmt: skip
    labels = table["label"]
    print(
        f"{len(table)} nodules of {table['patient_id'].nunique()} patients: {(labels == 0).sum()} "
        f"benign, {labels.isna().sum()} uncertain, {(labels == 1).sum()} malignant"
    )
    known = table[labels.notna()]
    if known["label"].nunique() == 2:
        y, patients = known["label"].astype(int), known["patient_id"]
        auc = bootstrap_auc(y, known["diameter_mm"], groups=patients)
        print(f"AUC of the diameter alone: {auc}, 95 % interval over patients")
    if options.out is not None:
        write_csv(options.out, table)
        print(f"wrote {options.out}")
    else:
        shown = ["nodule_id", "readers", "diameter_mm", "malignancy_median", "label"]
        print(table[shown].head(10).to_string(index=False))


def _rules(options: Options) -> dict[str, Any]:
    """The rules that choose nodules, as far as they are given."""
    rules: dict[str, Any] = {}
    if options.min_readers is not None:
        rules["min_readers"] = options.min_readers
    if options.max_thickness is not None:
        thickest = options.max_thickness
        rules["max_slice_thickness_mm"] = None if thickest == float("inf") else thickest
    return rules


# What a kind of cohort cannot be built with.
_RULES = ("min_readers", "max_thickness", "nodules", "labelled_only")
_ALLOW = ("allow_gaps", "allow_doubles", "allow_incomplete")
_PATIENTS = ("patients", "exclude_patients")
_NOT_TAKEN: dict[str, tuple[str, ...]] = {
    "simulated": ("source", "lungs", "simulated", *_ALLOW),
    "lidc": ("simulated",),
    "cubes": ("simulated", "lungs", *_ALLOW),
    "luna16": (*_ALLOW, *_RULES, *_PATIENTS, "seed"),
    "luna16 --simulated": ("source", "candidates", "annotations", "excluded", "subsets", "lungs",
                           *_ALLOW, *_RULES, *_PATIENTS),
}  # fmt: skip
_NEEDED = {
    "lidc": ("source",), "cubes": ("source",), "luna16": ("source", "candidates", "annotations"),
}  # fmt: skip


@_command(
    "labkit build simulated --out runs/cohorts/simulated",
    "labkit build lidc ~/LIDC-IDRI --out runs/cohorts/lidc",
    "labkit build cubes nodules.npz --exclude-patients held_out.txt --out runs/cohorts/cubes",
    "labkit build luna16 ~/LUNA16 --candidates candidates.csv \\\n"
    "      --annotations annotations.csv --excluded annotations_excluded.csv \\\n"
    "      --out runs/cohorts/luna16",
    "labkit build luna16 FLAT_FOLDER --subsets subsets.csv --candidates C --annotations A \\\n"
    "      --excluded E --jobs 1 --out runs/cohorts/luna16",
    "labkit build luna16 --simulated 60 --out runs/cohorts/luna16_simulated",
    options=[
        _option("kind", choices=("simulated", "lidc", "cubes", "luna16")),
        _option("source", nargs="?", type=Path,
                help="lidc: folder of DICOM; cubes: .npz file; luna16: folder of .mhd files"),
        _folder("folder of the cohort"),
        _option("--patients", type=Path, help="text file: only these patients, one a line"),
        _option("--exclude-patients", type=Path, help="text file: all but these patients"),
        _READERS, _THICKNESS,
        _option("--nodules", type=int, help="simulated: take about this many, by patient"),
        _option("--labelled-only", action="store_true", help="simulated: none uncertain"),
        _option("--seed", type=int, help="simulated, luna16 --simulated: of the simulation "
                "(default: 0)"),
        _option("--jobs", type=int,
                help="simulated, luna16: processes (default: one a core). luna16: each takes up to "
                "1.8 GB of memory, 2.8 with --lungs, and the default is as many as that is free "
                "for"),
        _option("--lungs", action="store_true",
                help="lidc, luna16: make chest wall of everything beyond the lungs"),
        *(_option(flag, action="store_true", help=f"lidc: {what}") for flag, what in (
            ("--allow-gaps", "interpolate between slices that are missing or uneven"),
            ("--allow-doubles", "of slices at one position take the one of the lowest number"),
            ("--allow-incomplete", "of scans that lack slices take the nodules that are whole, "
             "with 20 mm around them"),
        )),
        _option("--candidates", type=Path, metavar="FILE",
                help="luna16: CSV file, seriesuid,coordX,coordY,coordZ,class"),
        _option("--annotations", type=Path, metavar="FILE",
                help="luna16: the nodules, seriesuid,coordX,coordY,coordZ,diameter_mm"),
        _option("--excluded", type=Path, metavar="FILE",
                help="luna16: findings whose candidates are marked, and whose marks FROC does not "
                "count; the same columns (default: none)"),
        _option("--subsets", type=Path, metavar="FILE",
                help="luna16: seriesuid,subset, the folds of cross-validation (default: by the "
                "folders subset0 to subset9)"),
        _option("--simulated", type=int, metavar="SCANS",
                help="luna16: instead of all these, as many simulated scans, and what a detector "
                "finds in them"),
    ],
)  # fmt: skip
def build(options: Options) -> None:
    """Make a cohort: a table of nodules with a cube and nine views of each."""
    from labkit.cohorts.cohort import Cohort
    from labkit.io import read_list

    kind, out, seed = options.kind, options.out, options.seed or 0
    if kind == "luna16" and options.simulated is not None:
        kind = "luna16 --simulated"
    given = {n for n, value in vars(options).items() if value is not None and value is not False}
    unfit = [name for name in _NOT_TAKEN[kind] if name in given]
    missing = [name for name in _NEEDED.get(kind, ()) if name not in given]
    for said, names in ((f"build {kind} takes no", unfit), (f"build {kind} needs", missing)):
        if names:
            flags = (n if n == "source" else f"--{n.replace('_', '-')}" for n in names)
            raise InputError(f"{said} {' and '.join(flags)}; see labkit build --help")
    chosen = _rules(options)
    for name in _PATIENTS:
        file = getattr(options, name)
        chosen[name] = None if file is None else read_list(file, "patient_id", "patient")
    if kind == "simulated":
        from labkit.cohorts.simulated import build_simulated

        build_simulated(out, seed=seed, n_nodules=options.nodules, jobs=options.jobs,
                        labelled_only=options.labelled_only, **chosen)  # fmt: skip
    elif kind == "lidc":
        from labkit.cohorts.build import build_lidc

        how = {name: getattr(options, name) for name in ("lungs", *_ALLOW)}
        print(build_lidc(options.source, out, **how, **chosen))
    elif kind == "cubes":
        from labkit.cohorts.build import build_cubes

        build_cubes(options.source, out, **{name: chosen[name] for name in _PATIENTS})
    elif kind == "luna16":
        from labkit.cohorts.candidates import build_luna16

        print(build_luna16(
            options.source, options.candidates, out, annotations=options.annotations,
            excluded=options.excluded, subsets=options.subsets, lungs=options.lungs,
            jobs=options.jobs,
        ))  # fmt: skip
        return
    else:
        from labkit.cohorts.simulated_luna16 import simulated_luna16

        table = simulated_luna16(options.simulated, out, seed=seed, jobs=options.jobs).nodules
        print(f"{out}: simulated CT, {len(table)} candidates in {table['series_uid'].nunique()} "
              f"scans, {int(table['label'].sum())} of them on nodules")  # fmt: skip
        return
    cohort = Cohort.open(out)
    print(f"{out}: {len(cohort)} nodules, {len(cohort.labelled)} of them labelled")


@_command(
    "labkit simulate scan LIDC-IDRI-0001 --out runs/dicom/0001",
    "labkit simulate scan LIDC-IDRI-0132 --series UID --seed 3 --truth --out FOLDER",
    "labkit build lidc runs/dicom/0001 --out runs/cohorts/one_scan",
    options=[
        _option("kind", choices=("scan",)),
        _option("patient", help="patient id of LIDC-IDRI, or a SeriesInstanceUID"),
        _folder("folder of the DICOM series"),
        _option("--series", metavar="UID", help="which scan; eight patients have two"),
        _option("--seed", type=int, default=0, help="of everything random (default: 0)"),
        _option("--truth", action="store_true", help="also the masks lung.mha and nodules.mha"),
        _option("--jobs", type=int, help="threads (default: one a core, at most four)"),
    ],
)  # fmt: skip
def simulate(options: Options) -> None:
    """Write a whole CT scan, simulated around real outlines, as DICOM."""
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


@_command(
    "labkit crossval runs/cohorts/simulated --model mt --out runs/mt",
    "labkit crossval COHORT --model st --folds 10 --repeats 10 --paper --out runs/st_paper",
    "labkit crossval COHORT --paper --scheduler tcp://node7:8786 --out runs/on_a_cluster",
    options=[
        *_TRAINING,
        _option("--folds", type=int, default=10, help="default: 10"),
        _option("--repeats", type=int, default=1, help="default: 1"),
        _option("--split", choices=("patient", "nodule", "subset"),
                help="default: patient; subset for LUNA-16's candidates"),
        _JOBS, _SCHEDULER, _folder("folder of the run"),
    ],
)  # fmt: skip
def crossval(options: Options) -> None:
    """Cross-validate; the same command goes on after an interruption."""
    from labkit.cohorts.cohort import Cohort
    from labkit.evaluation import crossval

    cohort, out = Cohort.open(options.cohort), options.out
    split = options.split or ("subset" if cohort.task == "luna16" else "patient")
    crossval.run(
        cohort, _config(options, cohort.task), out, folds=options.folds, repeats=options.repeats,
        split=split, device=options.device, jobs=options.jobs, scheduler=options.scheduler,
    )  # fmt: skip
    _print_runs([out], ("fused", "size_only", "detector"))
    print(f"wrote {out / 'predictions.csv'} and {out / 'metrics.json'}")
    if (out / "submission.csv").is_file():
        tables = {"annotations": "annotations", "excluded": "annotations_excluded",
                  "series": "seriesuids"}  # fmt: skip
        flags = (f"--{flag} {cohort.folder / name}.csv" for flag, name in tables.items())
        print(f"judge it: labkit froc {out / 'submission.csv'} {' '.join(flags)}")


def _config(options: Options, task: str) -> TrainingConfig:
    values = {field.name: getattr(options, field.name) for field in fields(TrainingConfig)}
    given = {name: value for name, value in values.items() if value is not None}
    protocol = TrainingConfig.paper if options.paper else TrainingConfig.lab
    return protocol(**TrainingConfig.of_task(task) | given)


@_command(
    "labkit runs", "labkit runs runs/lessons --out runs.csv",
    options=[
        _option("folders", nargs="*", type=Path, metavar="FOLDER",
                help="runs, or folders that hold runs (default: runs/)"),
        _option("--out", type=Path, help="also write the table to this CSV file"),
    ],
)  # fmt: skip
def runs(options: Options) -> None:
    """List cross-validation runs: how far each has come, and what it measured."""
    from labkit.evaluation.crossval import list_runs, runs_as_text
    from labkit.io import write_csv

    table = list_runs(options.folders or [paths.runs()])
    if table.empty:
        print("no runs here; labkit crossval makes one")
        return
    print(runs_as_text(table))
    if options.out is not None:
        write_csv(options.out, table)
        print(f"wrote {options.out}")


@_command(
    "labkit evaluate runs/mt runs/st",
    "labkit evaluate runs/mt runs/st --pack results/predictions",
    "labkit evaluate results/predictions/mt.tar.xz results/predictions/st.tar.xz",
    options=[
        _option("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, or packed run"),
        _option("--views", action="store_true", help="also every single view"),
        _option("--pack", type=Path, metavar="FOLDER",
                help="also write each run's predictions and curves, with what was run on what, to "
                "FOLDER/RUN.tar.xz, which this command takes in place of the run"),
    ],
)  # fmt: skip
def evaluate(options: Options) -> None:
    """Compute metrics with intervals of finished runs, and paired tests."""
    from labkit.evaluation import predictions, statistics
    from labkit.imaging.views import PLANES

    views: tuple[str, ...] = ("fused", "size_only")
    if options.views:
        views += tuple(str(number) for number in range(len(PLANES)))
    runs = _print_runs(options.runs, views)
    names, pairs = list(runs), dict[str, dict[str, Any]]()
    for i, first in enumerate(names):
        rivals = {name: (runs[name], predictions.FUSED) for name in names[i + 1 :]}
        if predictions.SIZE_ONLY in set(runs[first]["view"]):
            rivals["size only"] = (runs[first], predictions.SIZE_ONLY)
        pairs |= {
            f"{first} less {second}": statistics.compare(runs[first], of, predictions.FUSED, view)
            for second, (of, view) in rivals.items()
        }
    family = statistics.correct(pairs)
    if family["size"] > 1:
        print(f"\np-values are corrected for {family['size']} comparisons ({family['method']})")
    for name, pair in pairs.items():
        apart = "{value:+.4f} ({low:+.4f} to {high:+.4f})"
        tested = pair["corrected_t_test"]
        t_test = f"none, {tested.get('not_computed')}"
        if "value" in tested:
            t_test = f"{apart}, p = {{p_value:.3g}}".format(**tested)
        print(
            f"\nAUC within folds of {name}: {apart.format(**pair['within_folds_difference'])}, "
            f"{pair['holds_for']}\n"
            f"  DeLong by patient: p = {pair['p_value']:.3g}, corrected {pair['p_holm']:.3g}\n"
            f"  pooled over folds: {apart.format(**pair['auc_difference'])}, p = "
            f"{pair['delong']['p_value']:.3g}\n"
            f"  corrected resampled t-test over folds: {t_test}\n"
            f"  {pair['equivalence']['in_words']}"
        )
    for run in options.runs if options.pack else ():
        file = options.pack / f"{run.resolve().name.removesuffix('.tar.xz')}.tar.xz"
        predictions.pack(run, file)
        print(f"wrote {file}, {file.stat().st_size / 1e3:.0f} kB")


def _print_runs(folders: Sequence[Path], views: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """Print what runs are worth, and whether their networks had learnt; return predictions."""
    from labkit.evaluation import statistics
    from labkit.evaluation.predictions import convergence, read_predictions, read_threshold

    runs = {str(folder): read_predictions(folder) for folder in folders}
    cut, *others = {read_threshold(folder) for folder in folders}
    if others:
        raise InputError("the runs are of different tasks; give runs of one cohort")
    print(f"AUC within folds, then pooled over folds with rates at a threshold of {cut:.3g}; 95 % "
          "intervals over patients:")  # fmt: skip
    print(statistics.table(runs, views, cut).to_string(index=False))
    for folder in folders:
        print("{}: {networks} networks, best in epoch {best_epoch[median]:g} (median; "
              "{best_epoch[least]} to {best_epoch[most]}); {out_of_epochs} ran out of epochs "
              "before they stopped getting better, {at_chance} are at chance"
              .format(folder, **convergence(folder)))  # fmt: skip
    return runs


@_command(
    "labkit train runs/cohorts/simulated --model mt --out runs/model",
    options=[*_TRAINING, _folder("folder of the model")],
)
def train(options: Options) -> None:
    """Train nine networks on all labelled nodules of a cohort."""
    from labkit.cohorts.cohort import Cohort
    from labkit.training.nine_views import fit, require_model_place

    cohort = Cohort.open(options.cohort)
    config = _config(options, cohort.task)
    require_model_place(options.out, config)
    model = fit(cohort, cohort.labelled, config, device=options.device)
    model.save(options.out)
    aucs = ", ".join(f"{auc:.3f}" for auc in model.view_auc)
    print(f"wrote {options.out}; AUC of its views on the inner validation split: {aucs}")


@_command(
    "labkit predict runs/model runs/cohorts/lidc --out predictions.csv",
    options=[_option("model", type=Path), _option("cohort", type=Path), _DEVICE,
             _folder("CSV file")],
)  # fmt: skip
def predict(options: Options) -> None:
    """Apply a trained model to a cohort."""
    from labkit.cohorts.cohort import Cohort
    from labkit.io import write_csv
    from labkit.training.nine_views import load

    model = load(options.model, options.device)
    table = model.prediction_table(Cohort.open(options.cohort))
    write_csv(options.out, table)
    print(f"wrote {options.out}: {len(table)} nodules")


@_command(
    "labkit froc submission.csv --annotations annotations.csv \\\n"
    "      --excluded annotations_excluded.csv --series seriesuids.csv",
    "labkit froc SUBMISSION --annotations A --excluded E --series S --max-marks 0 --out FOLDER",
    "labkit froc SUBMISSION --annotations A --excluded E --series S --threshold 0.5",
    options=[
        _option("candidates", type=Path, metavar="CANDIDATES",
                help="CSV file: seriesuid,coordX,coordY,coordZ,probability; mm in the scan's "
                "world, LPS"),
        _option("--annotations", type=Path, required=True, metavar="FILE",
                help="CSV file: seriesuid,coordX,coordY,coordZ,diameter_mm"),
        _option("--excluded", type=Path, required=True, metavar="FILE",
                help="findings whose marks do not count; the same columns"),
        _option("--series", type=Path, required=True, metavar="FILE",
                help="the scans judged: a UID a line, or a CSV file with a column seriesuid; "
                "marks in others are left out"),
        _option("--empty-scans", action="store_true",
                help="take scans of --series that have no mark, nodule or finding, and are not of "
                "LIDC-IDRI: which may as well be misspelt"),
        _option("--max-marks", type=int, default=100, metavar="N",
                help="most marks kept of a scan (default: 100, as in the challenge; 0 keeps all)"),
        _option("--threshold", type=float, metavar="P",
                help="also the paper's measures over all marks as candidates (AUC, sensitivity, "
                "specificity, false positive rate), a mark of this probability or more being "
                "called a nodule; one on an excluded finding is a negative, as in candidates.csv"),
        _option("--bootstraps", type=int, default=1000, metavar="N",
                help="samples of scans for intervals (default: 1000; 0: none)"),
        _option("--seed", type=int, default=0, help="of the samples (default: 0)"),
        _option("--out", type=Path, metavar="FOLDER",
                help="also write froc.json, froc.csv and froc.png there"),
    ],
)  # fmt: skip
def froc(options: Options) -> None:
    """Judge a submission of marks as LUNA-16 does: FROC, CPM, and intervals over scans."""
    import pandas as pd

    from labkit import io
    from labkit.annotations import lidc, luna16
    from labkit.annotations.luna16 import SERIES
    from labkit.evaluation import froc
    from labkit.plots.froc import froc_figure

    if options.max_marks < 0:
        raise InputError(f"--max-marks {options.max_marks}: give 1 or more, or 0 for no limit")
    settings = {"max_marks": options.max_marks or None, "bootstraps": options.bootstraps,
                "seed": options.seed}  # fmt: skip
    marks = luna16.read_submission(options.candidates)
    nodules = luna16.read_annotations(options.annotations)
    excluded, scans = luna16.read_excluded(options.excluded), luna16.read_series(options.series)
    if not options.empty_scans:
        known = {*lidc.scans()["series_uid"], *marks[SERIES], *nodules[SERIES], *excluded[SERIES]}
        require_known(
            scans, known, "scan in any table (or pass --empty-scans)", str(options.series)
        )
    result = froc.evaluate(marks, nodules, excluded, scans, **settings)
    told = str(result)
    numbers = {
        "submission": options.candidates.stem,
        "cpm": {"value": result.cpm} if result.band is None else asdict(result.band.cpm),
        "sensitivity": result.at_rates().to_dict("records"),
        "counts": asdict(result.counts),
        "settings": settings,
        "labkit": __version__,
    }
    if options.threshold is not None:
        # Each mark in these scans is a candidate, one on an excluded finding a negative, as in the
        # challenge's candidates.csv, whose 549,714 negatives the paper's rates are of (III-E).
        labelled = luna16.label(marks[marks["seriesuid"].isin(scans)], nodules)
        called = froc.screening(labelled["class"], labelled["probability"], len(scans),
                                options.threshold)  # fmt: skip
        told += f"\n\n{called}"
        numbers["screening"] = asdict(called)
    print(told)
    if options.out is None:
        return
    curve = {"false_positives_per_scan": result.false_positives_per_scan,
             "sensitivity": result.curve_sensitivity, "threshold": result.thresholds}  # fmt: skip
    figure = froc_figure({options.candidates.stem: result})
    files = [options.out / f"froc.{kind}" for kind in ("json", "csv", "png")]
    io.write_json(files[0], numbers)
    io.write_csv(files[1], pd.DataFrame(curve))
    io.write_atomically(files[2], lambda path: figure.savefig(path, dpi=150))
    print(f"wrote {', '.join(map(str, files))}")


@_command(
    "labkit reproduce fig1 --out runs/reproduced",
    "labkit reproduce table1 fig7 --cohort runs/cohorts/lidc --profile lab --out runs/lidc",
    "labkit reproduce table1 --folds 10 --out runs/ten_folds",
    "labkit reproduce fig7 --folds 10 --repeats 3 --views 0,1,2 --out runs/three_views",
    "labkit reproduce table1 fig5 fig6 fig7 --cohort luna --out runs/luna",
    "labkit reproduce all --profile paper --scheduler tcp://node7:8786 --out runs/paper",
    options=[
        _option("names", nargs="+", choices=declared.names(), metavar="NAME",
                help=", ".join(declared.names())),
        _option("--cohort", type=Path,
                help="its folder, or luna: the simulated LUNA-16 (default: the simulated cohort of "
                "nodules)"),
        _PROFILE,
        *(_option(flag, type=int, help=f"of the cross-validation{all_of} (default: the profile's)")
          for flag, all_of in (("--folds", ", in sweeps all of them"), ("--repeats", ""))),
        _option("--views", type=_numbers, metavar="0,1,...",
                help="that are trained (default: all nine)"),
        _DEVICE, _JOBS, _SCHEDULER, _folder("folder of all that is made from the cohort"),
    ],
)  # fmt: skip
def reproduce(options: Options) -> None:
    """Make the paper's figures and tables, each beside what was published."""
    import pandas as pd

    from labkit.paper.reproduce import reproduce

    files = reproduce(
        options.names, options.cohort, options.profile, options.out, folds=options.folds,
        repeats=options.repeats, views=options.views, device=options.device, jobs=options.jobs,
        scheduler=options.scheduler,
    )  # fmt: skip
    for name, file in files.items():
        print(f"{name}: {file.with_suffix('.png')} and {file}")
    if "table1" in files and (table := files["table1"].with_suffix(".csv")).is_file():
        rows = pd.read_csv(table)
        columns = "^method$|^auc_within_folds(_low|_high)?$|^auc$|_published$"
        shown = rows[rows["views"] != "one"].filter(regex=columns)
        print(shown.dropna(axis=1, how="all").round(3).to_string(index=False, na_rep=""))


if __name__ == "__main__":
    sys.exit(main())
