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

from labkit import _options, paths, profiles
from labkit.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from labkit.training.config import TrainingConfig


_TRAINING = (
    "model", "alpha", "depth", "dropout_on", "l2", "l2_on", "epochs", "batch_size", "learning_rate",
    "augmented_copies", "plain_copy", "patience", "precision", "seed",
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
    return _options.parser(_COMMANDS)


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
    if options.lungs and options.kind != "lidc":
        raise InputError(f"--lungs needs whole scans, which build {options.kind} does not see; "
                         "leave it out, or build lidc")  # fmt: skip
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
            print(build_lidc(
                options.source, options.out, lungs=options.lungs, **rules, **chosen))  # fmt: skip
        else:
            build_cubes(options.source, options.out, **chosen)
    from labkit.data.cohort import Cohort

    cohort = Cohort.open(options.out)
    print(f"{options.out}: {len(cohort)} nodules, {len(cohort.labelled)} of them labelled")


def _simulate(options: argparse.Namespace) -> None:
    import time

    from labkit.data.simulate.dicom import write_scan
    from labkit.data.simulate.named import series_named
    from labkit.data.simulate.scene import scene_for_series

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


def _crossval(options: argparse.Namespace) -> None:
    from labkit.data.cohort import Cohort
    from labkit.evaluation import crossval

    crossval.run(
        Cohort.open(options.cohort), _config(options), options.out, folds=options.folds,
        repeats=options.repeats, split=options.split, device=options.device, jobs=options.jobs,
        scheduler=options.scheduler,
    )  # fmt: skip
    _print_runs([options.out], ("fused", "size_only"))
    print(f"wrote {options.out / 'predictions.csv'} and {options.out / 'metrics.json'}")


def _runs(options: argparse.Namespace) -> None:
    from labkit.evaluation.listing import as_text, list_runs
    from labkit.files import write_csv

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
    from labkit.experiments import measured

    views = ("fused", "size_only") + (tuple(map(str, range(9))) if options.views else ())
    runs = _print_runs(options.runs, views)
    names, pairs = list(runs), {}
    for i, first in enumerate(names):
        rivals = {name: (runs[name], crossval.FUSED) for name in names[i + 1 :]}
        if crossval.SIZE_ONLY in set(runs[first]["view"]):
            rivals["size only"] = (runs[first], crossval.SIZE_ONLY)
        for second, rival in rivals.items():
            pairs[f"{first} less {second}"] = measured.compare(
                (runs[first], crossval.FUSED), rival, resamples=2000
            )
    family = measured.correct(pairs)
    if family["size"] > 1:
        print(f"\np-values are corrected for {family['size']} comparisons ({family['method']})")
    for name, pair in pairs.items():
        _print_pair(name, pair)


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
    from labkit.experiments import reproduce

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
    "nodules": _nodules,
    "build": _build,
    "simulate": _simulate,
    "crossval": _crossval,
    "runs": _runs,
    "evaluate": _evaluate,
    "train": _train,
    "predict": _predict,
    "reproduce": _reproduce,
}


if __name__ == "__main__":
    sys.exit(main())
