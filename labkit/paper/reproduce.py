"""From names to figures: train what is missing, in the best order, and draw after each variant."""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from labkit import profiles
from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation import crossval
from labkit.evaluation.predictions import run_folder
from labkit.io import read_json, write_atomically, write_csv, write_json
from labkit.paper.claims import claimed
from labkit.paper.declared import ALL, EXPERIMENTS, Experiment, Variant, names
from labkit.paper.results import LUNA
from labkit.paper.values import Runs, Values, judged
from labkit.profiles import Profile
from labkit.training.machines import Device, default_jobs, duration, provenance
from labkit.training.nine_views import labels_of

_PLOTS = "labkit.plots."
_DPI = 110


def reproduce(
    wanted: str | Iterable[str], cohort: str | Path | Cohort | None = None,
    profile: str | Profile | None = None, out: str | Path = "reproduced", *,
    folds: int | None = None, repeats: int | None = None, views: tuple[int, ...] | None = None,
    device: str = "auto", jobs: int | None = None, scheduler: str | None = None,
    progress: bool = True,
) -> dict[str, Path]:  # fmt: skip
    """Make figures and tables of the paper from a cohort; the same call goes on after a stop.

    Each variant is one cross-validation in `out`/runs/COHORT/VARIANT, trained once however many
    experiments share it. After each, what can be drawn is drawn: `out`/NAME.json, .png, .svg, .csv.

    Args:
        wanted: names of `EXPERIMENTS`, or "all".
        cohort: a cohort or its folder; None takes the simulated one of the profile, and "luna",
            unless there is such a folder, the simulated LUNA-16 of the profile.
        profile: its name, or a profile of your own; None takes LABKIT_PROFILE's, else `lab`.
        out: folder of everything that is made.
        folds, repeats: of the cross-validation, sweeps on all of these folds; None takes the
            profile's, and LUNA-16's subsets.
        views: which of the nine are trained; None takes the profile's.
        device, jobs, scheduler, progress: as `crossval.run` takes them.

    Returns:
        name -> its JSON file.

    Raises:
        InputError: an unknown name, or a folder in which something else was made.
        FloatingPointError: networks were lost, as `crossval.run` loses them; everything else is
            finished and drawn.
    """
    experiments, out = _chosen(wanted), Path(out).absolute()
    chosen = profile if isinstance(profile, Profile) else profiles.get(profile)
    if not any(e.variants for e in experiments):
        return {e.name: write(e, None, out) for e in experiments}
    cohort = _cohort(cohort, chosen, progress)
    luna = cohort.task == "luna16"
    own = int(cohort.nodules["subset"].nunique()) if luna else chosen.folds
    if luna and own < 2:
        raise InputError(f"{cohort.folder}: all candidates are of one subset, and LUNA-16's folds "
                         "are its subsets; build it of two or more")  # fmt: skip
    chosen = dataclasses.replace(
        chosen, task=cohort.task, folds=own if folds is None else folds,
        sweep_folds=chosen.sweep_folds if folds is None else None,
        repeats=chosen.repeats if repeats is None else repeats,
        paper_views=chosen.paper_views if views is None else views,
    )  # fmt: skip
    if luna and any(e.of_nodules_alone for e in experiments):
        if not (experiments := [e for e in experiments if not e.of_nodules_alone]):
            raise InputError(
                "fig4 redraws nodules inside and outside their outline, and most of LUNA-16's "
                "candidates are none; make it of a cohort of nodules, and of this one table1, "
                "fig5, fig6 and fig7"
            )
        if progress:
            print("left out, since it is of nodules: fig4")
    runs = Runs(cohort, chosen, out / "runs" / cohort.name, device)
    work = variants_of(experiments, chosen)
    # Before hours of training, rather than after them.
    for experiment in experiments:
        file, here = out / f"{experiment.name}.json", _header(experiment, runs)
        there = read_json(file, "a figure or table") if file.is_file() else here
        for part in ("cohort", "profile"):
            if there.get(part) != here.get(part):
                raise InputError(f"{file}: made of another {part}; choose another --out, one for "
                                 "each cohort and profile")  # fmt: skip
    for variant in work:
        with run_folder(runs.run_folder(variant)) as folder:
            if (folder / "run.json").is_file():
                crossval.claim(folder, cohort, variant.config(chosen), runs.plan(variant), {})
    if any(not runs.has(v) for v in work):
        # The folds of a sweep are among those of the baselines, and every variant has the same.
        crossval.networks_of(cohort, work[0].config(chosen), chosen.plan())
    files = {e.name: write(e, runs, out) for e in experiments}
    if progress:
        _announce(work, runs, jobs, scheduler)
    lost: list[str] = []
    for variant in (v for v in work if not runs.has(v)):
        name, plan = variant.folder(chosen), dataclasses.asdict(runs.plan(variant))
        if progress:
            print(f"\n{name}:", flush=True)
        try:
            crossval.run(
                cohort, variant.config(chosen), runs.run_folder(variant), **plan, device=device,
                jobs=jobs, scheduler=scheduler, keep_first_model=variant.keeps_model(chosen),
                progress=progress,
            )  # fmt: skip
        except FloatingPointError as error:
            lost.append(f"{name}: {error}")
            continue
        for experiment in experiments:
            if name in {v.folder(chosen) for v in experiment.variants}:
                files[experiment.name] = write(experiment, runs, out)
    if lost:
        raise FloatingPointError("; ".join(lost))
    return files


def write(experiment: Experiment, runs: Runs | None, out: Path) -> Path:
    """Write what is known of an experiment so far; return its JSON file.

    Nothing is drawn before the first variant is finished.
    """
    file, computed = out / f"{experiment.name}.json", _named(experiment.compute)(experiment, runs)
    values = {**_header(experiment, runs), **computed, "complete": not computed["missing"]}
    if done := next(iter(computed.values())):
        by_froc = any(judged(of["metrics"]) for of in done.values() if "metrics" in of)
        drawn: dict[str, tuple[str, Sequence[Any]]] = {
            ending: (f"paper:{figure}", (values,))
            for ending, figure in experiment.draw.items()
            if by_froc or ending != "froc"
        }
        for ending, (needed, figure) in experiment.draw_images.items():
            drawn[ending] = (figure, _named(needed)(experiment, runs))
        values["alt_text"] = {}
        for ending, (figure, shown) in drawn.items():
            name = "_".join(filter(None, (experiment.name, ending)))
            values["alt_text"][name] = _save(_named(figure, _PLOTS)(*shown), out / name)
        write_csv(file.with_suffix(".csv"), _named(experiment.table)(values))
    write_json(file, values)
    return file


def _named(name: str, package: str = "labkit.paper.") -> Callable[..., Any]:
    """The function that a declaration names; what draws is read only when something is drawn."""
    module, function = name.split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(package + module), function)
    return found


def _cohort(cohort: str | Path | Cohort | None, profile: Profile, progress: bool) -> Cohort:
    if isinstance(cohort, Cohort):
        return cohort
    if cohort is None:
        from labkit.cohorts.simulated import simulated_cohort

        return simulated_cohort(profile.nodules, profile.uncertain, progress=progress)
    if str(cohort) == LUNA and not Path(cohort).exists():
        from labkit.cohorts.simulated_luna16 import simulated_luna16

        return simulated_luna16(profile.luna16_scans, seed=profile.luna16_seed, progress=progress)
    return Cohort.open(cohort)


def _chosen(wanted: str | Iterable[str]) -> list[Experiment]:
    given = [wanted] if isinstance(wanted, str) else list(wanted)
    unknown = [name for name in given if name not in names()]
    if unknown or not given:
        raise InputError(
            f"no figure or table is called {', '.join(unknown) or 'nothing'}; there are "
            f"{', '.join(names())}"
        )
    return [e for e in EXPERIMENTS.values() if e.name in given or ALL in given]


def variants_of(experiments: Iterable[Experiment], profile: Profile) -> list[Variant]:
    """Return the trainings that experiments need, each once, in the order in which they are run."""
    by_folder: dict[str, Variant] = {}
    for variant in (v for e in experiments for v in e.of(profile)):
        by_folder.setdefault(variant.folder(profile), variant)
    return list(by_folder.values())


def _header(experiment: Experiment, runs: Runs | None) -> Values:
    header: Values = {
        **{k: getattr(experiment, k) for k in ("name", "title", "where")},
        "claims": claimed(experiment.name), "published": list(experiment.published),
        **provenance(),
    }  # fmt: skip
    if runs is None or not experiment.variants:
        return header
    profile = runs.profile
    config = profile.training(views=profile.paper_views)
    plans = {"baselines": profile.plan(), "sweeps": profile.plan(sweep=True)}
    said = _in_words(profile, not all(v.is_baseline(profile) for v in experiment.variants))
    return header | {
        "task": runs.cohort.task,
        "published": experiment.printed(profile),
        "cohort": runs.cohort.identity,
        "profile": profile.as_dict(),
        "config": config.as_dict(),
        "plan": {name: dataclasses.asdict(plan) for name, plan in plans.items()},
        "protocol": f"{said}; {len(config.views)} views, at most {config.epochs} epochs, batches "
        f"of {config.batch_size}, learning rate {config.learning_rate:g}",
    }


def _in_words(profile: Profile, sweeps: bool = True) -> str:
    full, sweep = profile.plan(), profile.plan(sweep=True)
    if not sweeps:
        return f"ST-CNN and MT-CNN on {full.repeats} x {full.folds} folds by {full.split}"
    first = "" if sweep.first_folds is None else f"the first {sweep.first_folds} of "
    text = f"sweeps on {first}{sweep.repeats} x {sweep.folds} folds by {sweep.split}"
    return f"{text}, ST-CNN and MT-CNN themselves on {full.repeats} x {full.folds}"


def _save(figure: Any, file: Path) -> str:
    """PNG and SVG, the same bytes of the same values; returns the figure's alternative text."""
    from matplotlib import rc_context

    style = importlib.import_module(_PLOTS + "style")
    with style.house_style(), rc_context({"svg.hashsalt": file.name}):
        for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            save = partial(figure.savefig, format=ending, dpi=_DPI, metadata=metadata)
            write_atomically(file.parent / f"{file.name}.{ending}", save)
    return str(style.alt_text(figure))


def _announce(work: Sequence[Variant], runs: Runs, jobs: int | None, scheduler: str | None) -> None:
    """Print what is trained, in order, and how long it takes at most."""
    profile, networks, seconds, each = runs.profile, 0, dict[str, float](), dict[Any, float]()
    todo = {v.folder(profile): runs.todo(v) for v in work if not runs.has(v)}
    at_once, labels = jobs or 1, labels_of(runs.cohort, runs.cohort.labelled)
    if todo and scheduler is None and jobs is None:
        at_once = default_jobs(Device.choose(runs.device, work[0].config(profile).precision))
    for v in work:
        name, config, plan = v.folder(profile), v.config(profile), runs.plan(v)
        own = len(plan.networks(config.views))
        networks += own
        if name in todo and scheduler is None:
            kind = (config.model, config.depth)  # what else differs costs next to nothing
            if kind not in each:
                each[kind] = crossval.estimate_seconds(labels, config, plan, runs.device) / own
            seconds[name] = each[kind] * todo[name] / at_once
    print(
        f"{runs.cohort.name}, profile {profile.name}: {len(work)} variants, {networks} networks, "
        f"{sum(todo.values())} of them to train; {_in_words(profile)}", flush=True,
    )  # fmt: skip
    for name, count in todo.items():
        when = f"  {duration(math.ceil(seconds[name])):>8}" if name in seconds else ""
        print(f"  {name:<{max(map(len, todo))}}  {count:5d} networks{when}")
    if seconds:
        most = sum(seconds.values())
        ends = datetime.datetime.now() + datetime.timedelta(seconds=most)
        print(f"at most {duration(most)}, {at_once} at once: done by {ends:%d %B %H:%M}, or long "
              "before; stop it when you like, the same command goes on", flush=True)  # fmt: skip
