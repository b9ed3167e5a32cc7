"""From names to figures: train what is missing, in the best order, and draw after each variant."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from labkit import profiles
from labkit.cohorts.cohort import Cohort
from labkit.cohorts.simulated import simulated_cohort
from labkit.cohorts.simulated_luna16 import simulated_luna16
from labkit.errors import InputError
from labkit.evaluation import crossval
from labkit.evaluation.crossval import claim, seconds_alone
from labkit.io import read_json, write_atomically, write_csv, write_json
from labkit.paper import fig1, fig4, sweeps, table1
from labkit.paper import values as luna
from labkit.paper.declared import ALL, EXPERIMENTS, Experiment, Variant, amounts, names
from labkit.paper.finished import Finished
from labkit.paper.results import LUNA
from labkit.plots import paper, style
from labkit.plots import paper as figures
from labkit.plots.paper import fusion_figure, scores_by_rule, table1_figure
from labkit.plots.views import reconstruction_figure
from labkit.profiles import Profile
from labkit.training.machines import Device, default_jobs, duration, provenance
from labkit.training.model import labels_of

# The files of an experiment: JSON with everything, the figure, and the table.


Values = dict[str, Any]


@dataclass(frozen=True)
class Maker:
    """What becomes of an experiment's runs.

    Args:
        compute: (experiment, runs) -> values for JSON, with `part` and `missing`, the labels of the
            variants that are not finished; runs is None for an experiment without variants.
        part: which of the values is empty as long as there is nothing to draw.
        draw: values, with the header's, -> figure; a lesson calls it with a committed JSON.
        table: values -> table for CSV.
        more: ending of the file's name -> another figure of the same values.
        pictured: ending -> a figure that needs the runs' networks and images, which no JSON has.
        by_froc: ending -> another figure, where variants were judged by FROC: for LUNA-16.
    """

    compute: Callable[[Experiment, Any], Values]
    part: str
    draw: Callable[[Values], Figure]
    table: Callable[[Values], pd.DataFrame]
    more: Mapping[str, Callable[[Values], Figure]] = field(default_factory=dict)
    pictured: Mapping[str, Callable[[Experiment, Any], Figure]] = field(default_factory=dict)
    by_froc: Mapping[str, Callable[[Values], Figure]] = field(default_factory=dict)


MAKERS = {
    "fig1": Maker(fig1.fig1, "rules", scores_by_rule, fig1.table),
    "table1": Maker(table1.table1, "rows", table1_figure, table1.table, {"fusion": fusion_figure}),
    "fig4": Maker(
        fig4.fig4,
        "variants",
        paper.fidelity_figure,
        fig4.table,
        {"losses": paper.losses_figure, "map": paper.error_map_figure},
        {"nodules": lambda e, runs: reconstruction_figure(*fig4.shown_nodules(e, runs))},
    ),
    "fig5": Maker(
        sweeps.fig5,
        "variants",
        figures.regularisation_figure,
        sweeps.table,
        by_froc={"froc": paper.regularisation_froc},
    ),
    "fig6": Maker(
        sweeps.fig6,
        "variants",
        figures.depth_figure,
        sweeps.table,
        by_froc={"froc": paper.depth_froc},
    ),
    "fig7": Maker(
        sweeps.fig7,
        "variants",
        figures.alpha_figure,
        sweeps.table,
        by_froc={"froc": paper.alpha_froc},
    ),
}
"""One for each of `declared.EXPERIMENTS`."""
_OF_NODULES_ALONE = ("fig4",)
_DPI = 110


def write(experiment: Experiment, runs: Finished | None, out: Path) -> Path:
    """Write what is known of an experiment so far; returns its JSON file.

    Nothing is drawn before the first variant is finished.
    """
    if experiment.variants and runs is None:
        raise InputError(f"{experiment.name} needs a cohort")
    maker = MAKERS[experiment.name]
    values = {**_header(experiment, runs), **maker.compute(experiment, runs)}
    values["complete"] = not values["missing"]
    file = out / f"{experiment.name}.json"
    if values[maker.part]:
        drawn = {"": partial(maker.draw, values)}
        drawn |= {ending: partial(draw, values) for ending, draw in maker.more.items()}
        drawn |= {e: partial(draw, experiment, runs) for e, draw in maker.pictured.items()}
        if any(luna.judged(of["metrics"]) for of in values[maker.part].values() if "metrics" in of):
            drawn |= {ending: partial(draw, values) for ending, draw in maker.by_froc.items()}
        values["alt_text"] = {}
        for ending, draw in drawn.items():
            name = "_".join(filter(None, (experiment.name, ending)))
            figure = draw()
            values["alt_text"][name] = style.alt_text(figure)
            _save(figure, out / name)
        write_csv(file.with_suffix(".csv"), maker.table(values))
    write_json(file, values)
    return file


def fits(experiment: Experiment, cohort: Cohort) -> bool:
    """Whether an experiment can be made of what a cohort's labels mean."""
    return cohort.task != "luna16" or experiment.name not in _OF_NODULES_ALONE


def refuse_others(experiment: Experiment, runs: Finished, out: Path) -> None:
    """Make sure that a file which stands there is of this cohort and profile.

    Raises:
        InputError: it is not; or the experiment is not for what this cohort's labels mean.
    """
    if not fits(experiment, runs.cohort):
        raise InputError(
            f"{experiment.name} redraws nodules inside and outside their outline, and most of "
            "LUNA-16's candidates are none; make it of a cohort of nodules, and of this one "
            "table1, fig5, fig6 and fig7"
        )
    file = out / f"{experiment.name}.json"
    if not experiment.variants or not file.is_file():
        return
    there = read_json(file, "a figure or table")
    here = _header(experiment, runs)
    # A figure from before a setting existed was made with the setting's default.
    there["profile"] = asdict(Profile(**there["profile"]))
    for part in ("cohort", "profile"):
        if there.get(part) != here[part]:
            raise InputError(
                f"{file}: made of another {part}; choose another --out, one for each cohort and "
                "profile"
            )


def _header(experiment: Experiment, runs: Finished | None) -> Values:
    header: Values = {
        "name": experiment.name,
        "title": experiment.title,
        "where": experiment.where,
        "claims": list(experiment.claims),
        "published": [p.as_dict() for p in experiment.published],
        **provenance(),
    }
    if runs is None or not experiment.variants:
        return header
    cohort, amount = runs.cohort, runs.amounts
    baseline = amount.profile.training(views=amount.views)
    sweeps = not all(v.is_baseline(amount.profile) for v in experiment.variants)
    return header | {
        "task": cohort.task,
        "cohort": cohort.identity,
        "profile": asdict(amount.profile),
        "config": baseline.as_dict(),
        "plan": {"baselines": asdict(amount.full), "sweeps": asdict(amount.sweep)},
        "protocol": (
            f"{amount.in_words(sweeps)}; {len(amount.views)} views, at most {baseline.epochs} "
            f"epochs, batches of {baseline.batch_size}, learning rate {baseline.learning_rate:g}"
        ),
    }


def _save(figure: Figure, file: Path) -> None:
    """PNG and SVG; the same values give the same bytes."""
    with style.house_style(), plt.rc_context({"svg.hashsalt": file.name}):
        for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            drawn = partial(figure.savefig, format=ending, dpi=_DPI, metadata=metadata)
            write_atomically(file.parent / f"{file.name}.{ending}", drawn)


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
        return {e.name: write(e, None, out) for e in experiments}
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
    unfit = [e for e in experiments if not fits(e, cohort)]
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
    files = {e.name: write(e, runs, out) for e in experiments}
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
                files[experiment.name] = write(experiment, runs, out)
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
        refuse_others(experiment, runs, out)
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
