"""The files of an experiment: JSON with everything, the figure, and the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from labkit.data.cohort import Cohort
from labkit.errors import InputError
from labkit.experiments import fig4, luna, rules, sweeps, table1
from labkit.experiments.declared import Experiment
from labkit.experiments.finished import Finished
from labkit.files import read_json, write_atomically, write_csv, write_json
from labkit.plots import froc_sweeps, reconstructions, style
from labkit.plots import sweeps as figures
from labkit.plots.fusion import fusion_figure
from labkit.plots.scores_by_rule import scores_by_rule
from labkit.plots.table1 import table1_figure
from labkit.plots.training import reconstruction_figure
from labkit.profiles import Profile
from labkit.training.hardware import provenance

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
    "fig1": Maker(rules.fig1, "rules", scores_by_rule, rules.table),
    "table1": Maker(table1.table1, "rows", table1_figure, table1.table, {"fusion": fusion_figure}),
    "fig4": Maker(
        fig4.fig4,
        "variants",
        reconstructions.fidelity_figure,
        fig4.table,
        {"losses": reconstructions.losses_figure, "map": reconstructions.error_map_figure},
        {"nodules": lambda e, runs: reconstruction_figure(*fig4.shown_nodules(e, runs))},
    ),
    "fig5": Maker(
        sweeps.fig5,
        "variants",
        figures.regularisation_figure,
        sweeps.table,
        by_froc={"froc": froc_sweeps.regularisation_froc},
    ),
    "fig6": Maker(
        sweeps.fig6,
        "variants",
        figures.depth_figure,
        sweeps.table,
        by_froc={"froc": froc_sweeps.depth_froc},
    ),
    "fig7": Maker(
        sweeps.fig7,
        "variants",
        figures.alpha_figure,
        sweeps.table,
        by_froc={"froc": froc_sweeps.alpha_froc},
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
