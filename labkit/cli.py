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

from labkit import _data_commands, _options, paths, profiles
from labkit.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from labkit.training.config import TrainingConfig


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
    return _options.parser(_COMMANDS)


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
    from labkit.data.cohort import Cohort
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
    config = _config(options, cohort.task)
    model = fit(cohort, cohort.labelled, config, device=options.device)
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
    from labkit.evaluation import crossval, summary

    runs = {str(folder): crossval.read_predictions(folder) for folder in folders}
    cuts = {crossval.read_threshold(folder) for folder in folders}
    if len(cuts) > 1:
        raise InputError("the runs are of different tasks; give runs of one cohort")
    (cut,) = cuts
    print(f"AUC and rates at a threshold of {cut:.3g}, pooled over folds, with 95 % intervals over "
          "patients:")  # fmt: skip
    print(summary.table(runs, views, cut).to_string(index=False))
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
    "nodules": _data_commands.nodules,
    "build": _data_commands.build,
    "simulate": _data_commands.simulate,
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
