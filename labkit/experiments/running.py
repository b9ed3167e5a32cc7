"""From names to figures: train what is missing, in the best order, and draw after each variant."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from labkit import profiles
from labkit.data.cohort import Cohort
from labkit.data.embedded import simulated_cohort
from labkit.data.luna16.simulated import simulated_luna16
from labkit.errors import InputError
from labkit.evaluation import crossval
from labkit.evaluation.estimate import seconds_alone
from labkit.evaluation.runs import claim
from labkit.experiments import written
from labkit.experiments.amounts import amounts
from labkit.experiments.committed import LUNA
from labkit.experiments.declared import ALL, EXPERIMENTS, Experiment, names
from labkit.experiments.finished import Finished
from labkit.experiments.variants import Variant
from labkit.profiles import Profile
from labkit.training.device import Device
from labkit.training.fit import labels_of
from labkit.training.hardware import duration
from labkit.training.workers import default_jobs


def reproduce(
    wanted: str | Iterable[str],
    cohort: str | Path | Cohort | None = None,
    profile: str | Profile | None = None,
    out: str | Path = "reproduced",
    *,
    folds: int | None = None,
    repeats: int | None = None,
    device: str = "auto",
    jobs: int | None = None,
    scheduler: str | None = None,
    progress: bool = True,
) -> dict[str, Path]:
    """Make figures and tables of the paper from a cohort; the same call goes on after a stop.

    Each variant is one cross-validation in `out`/runs/COHORT/VARIANT, trained once however many
    experiments share it. After each, what can be drawn is drawn: `out`/NAME.json, .png, .svg, .csv.

    Args:
        wanted: names of `EXPERIMENTS`, or "all".
        cohort: a cohort or its folder; None takes the simulated one of the profile, and "luna",
            unless there is such a folder, the simulated LUNA-16 of the profile.
        profile: its name, or a profile of your own; None takes LABKIT_PROFILE's, else `lab`.
        out: folder of everything that is made.
        folds, repeats: of the cross-validation; None takes the profile's, and LUNA-16's subsets.
        device: "auto", "cpu" or "cuda".
        jobs: networks trained at once; None takes one a core on a CPU, one on a GPU.
        scheduler: address of a Dask scheduler whose workers train instead of this machine.
        progress: print what is to be done, and show bars.

    Returns:
        name -> its JSON file.

    Raises:
        InputError: an unknown name, or a folder in which something else was made.
        FloatingPointError: networks were lost since their loss was no number; everything else is
            finished and drawn.
    """
    experiments = _chosen(wanted)
    out = Path(out).absolute()
    chosen = profile if isinstance(profile, Profile) else profiles.get(profile)
    if not any(e.variants for e in experiments):
        return {e.name: written.write(e, None, out) for e in experiments}
    if cohort is None:
        cohort = simulated_cohort(chosen.nodules, chosen.uncertain, progress=progress)
    elif not isinstance(cohort, Cohort):
        named = str(cohort) == LUNA and not Path(cohort).exists()
        cohort = (
            simulated_luna16(chosen.luna16_scans, seed=chosen.luna16_seed, progress=progress)
            if named
            else Cohort.open(cohort)
        )
    if cohort.task == "luna16" and folds is None:
        folds = int(cohort.nodules["subset"].nunique())
        if folds < 2:
            raise InputError(
                f"{cohort.folder}: all candidates are of one subset, and LUNA-16's folds are its "
                "subsets; build it of two or more"
            )
    chosen = dataclasses.replace(
        chosen,
        task=cohort.task,
        folds=chosen.folds if folds is None else folds,
        repeats=chosen.repeats if repeats is None else repeats,
    )
    unfit = [e for e in experiments if not written.fits(e, cohort)]
    if unfit and len(unfit) < len(experiments):
        experiments = [e for e in experiments if e not in unfit]
        if progress:
            print(f"left out, since it is of nodules: {', '.join(e.name for e in unfit)}")
    spent = amounts(chosen)
    runs = Finished(cohort, spent, out / "runs" / cohort.name, device)
    work = _in_order(experiments, chosen)
    _refuse_what_is_others(experiments, work, runs, out)
    if any(not runs.has(v) for v in work):
        # The folds of a sweep are among those of the baselines, and every variant has the same.
        crossval.check(cohort, work[0].config(chosen, spent.views), spent.full)
    files = {e.name: written.write(e, runs, out) for e in experiments}
    if progress:
        _announce(work, runs, jobs, scheduler)
    lost: list[str] = []
    for variant in work:
        if runs.has(variant):
            continue
        try:
            _train(variant, runs, jobs, scheduler, progress)
        except FloatingPointError as error:
            lost.append(f"{variant.folder(chosen)}: {error}")
            continue
        for experiment in experiments:
            if variant.folder(chosen) in {v.folder(chosen) for v in experiment.variants}:
                files[experiment.name] = written.write(experiment, runs, out)
    if lost:
        raise FloatingPointError("; ".join(lost))
    return files


def variants_of(wanted: str | Iterable[str], profile: Profile) -> list[Variant]:
    """The trainings that experiments need, each once, in the order in which they are run."""
    return _in_order(_chosen(wanted), profile)


def _chosen(wanted: str | Iterable[str]) -> list[Experiment]:
    asked = [wanted] if isinstance(wanted, str) else list(wanted)
    unknown = [name for name in asked if name not in names()]
    if unknown or not asked:
        raise InputError(
            f"no figure or table is called {', '.join(unknown) or 'nothing'}; there are "
            f"{', '.join(names())}"
        )
    return [e for e in EXPERIMENTS.values() if e.name in asked or ALL in asked]


def _in_order(experiments: Sequence[Experiment], profile: Profile) -> list[Variant]:
    by_folder: dict[str, Variant] = {}
    for experiment in experiments:
        for variant in experiment.variants:
            by_folder.setdefault(variant.folder(profile), variant)
    return list(by_folder.values())


def _refuse_what_is_others(
    experiments: Sequence[Experiment], work: Sequence[Variant], runs: Finished, out: Path
) -> None:
    """Say before hours of training, rather than after them, that a folder is taken."""
    for experiment in experiments:
        written.refuse_others(experiment, runs, out)
    for variant in work:
        folder = runs.run_folder(variant)
        if (folder / "run.json").is_file():
            config = variant.config(runs.amounts.profile, runs.amounts.views)
            claim(folder, runs.cohort, config, runs.amounts.plan(variant), {})


def _announce(
    work: Sequence[Variant], runs: Finished, jobs: int | None, scheduler: str | None
) -> None:
    """Print what is trained, in order, and about how long it takes."""
    amount = runs.amounts
    todo = {v: runs.todo(v) for v in work if not runs.has(v)}
    total = sum(amount.networks(v) for v in work)
    print(
        f"{runs.cohort.name}, profile {amount.profile.name}: {len(work)} variants, {total} "
        f"networks, {sum(todo.values())} of them to train; {amount.in_words()}",
        flush=True,
    )
    if not todo:
        return
    at_once = jobs or 1
    seconds: dict[Variant, float] = {}
    if scheduler is None:
        precision = work[0].config(amount.profile).precision
        at_once = jobs or default_jobs(Device.choose(runs.device, precision))
        timed: dict[Any, float] = {}
        for v in todo:
            config = v.config(amount.profile, amount.views)
            key = (config.model, config.depth)  # what else differs costs next to nothing
            if key not in timed:
                labels = labels_of(runs.cohort, runs.cohort.labelled)
                whole = seconds_alone(labels, config, amount.plan(v), runs.device)
                timed[key] = whole / amount.networks(v)
            seconds[v] = timed[key] * todo[v] / at_once
    width = max(len(v.folder(amount.profile)) for v in todo)
    for v, count in todo.items():
        when = f"  {duration(math.ceil(seconds[v])):>8}" if v in seconds else ""
        print(f"  {v.folder(amount.profile):<{width}}  {count:5d} networks{when}")
    if seconds:
        ends = datetime.datetime.now() + datetime.timedelta(seconds=sum(seconds.values()))
        print(
            f"at most {duration(sum(seconds.values()))}, {at_once} at once: done by "
            f"{ends:%d %B %H:%M}; stop it when you like, the same command goes on",
            flush=True,
        )


def _train(
    variant: Variant, runs: Finished, jobs: int | None, scheduler: str | None, progress: bool
) -> None:
    profile, plan = runs.amounts.profile, runs.amounts.plan(variant)
    if progress:
        print(f"\n{variant.folder(profile)}:", flush=True)
    crossval.run(
        runs.cohort,
        variant.config(profile, runs.amounts.views),
        runs.run_folder(variant),
        folds=plan.folds,
        repeats=plan.repeats,
        split=plan.split,
        first_folds=plan.first_folds,
        device=runs.device,
        jobs=jobs,
        scheduler=scheduler,
        keep_first_model=variant.keeps_model(profile),
        progress=progress,
    )
