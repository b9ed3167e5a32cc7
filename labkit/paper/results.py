"""Read the committed results, and commit what `reproduce` made: `results/COHORT_NAME.json`.

    values = results.read("fig7", "simulated")
    style.show(paper.alpha_figure(values))

Fig. 1 shows labels and no images, so that it is of no cohort: `results/fig1.json`. Runs are never
copied: a figure's JSON has everything that it shows, and what it was measured on.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from labkit import paths
from labkit.errors import InputError
from labkit.io import read_json, write_atomically, write_json
from labkit.paper.declared import EXPERIMENTS
from labkit.paper.values import is_luna, judged, not_converged

NODULES = ("simulated", "real")
"""Kinds of images of nodules whose malignancy is learnt."""
LUNA = "luna"
"""LUNA-16's candidates, or simulated ones: which, `provenance` says."""
COHORTS = (*NODULES, LUNA)


def read(name: str, cohort: str) -> dict[str, Any]:
    """Read the values of a committed figure or table, such as "fig7" of "simulated" images.

    Raises InputError, which says what there is, for what is not committed.
    """
    if name not in EXPERIMENTS:
        raise InputError(f"no figure or table is called {name}; there are {', '.join(EXPERIMENTS)}")
    if not (file := _file(name, cohort)).is_file():
        here = ", ".join(f"{n} ({c})" for n, c in there(COHORTS)) or "none yet"
        raise InputError(
            f"{file}: not committed; there are: {here}. `labkit reproduce {name}` makes it, "
            "`python -m labkit.paper collect` puts it there"
        )
    values: dict[str, Any] = read_json(file, "a committed figure")
    return values


def there(cohorts: Iterable[str] = NODULES) -> list[tuple[str, str]]:
    """Return (name, cohort) of every committed figure and table, in the order of `EXPERIMENTS`.

    A figure of labels alone is there for every kind of images.
    """
    kinds = tuple(cohorts)
    return [(n, c) for n in EXPERIMENTS for c in kinds if _file(n, c).is_file()]


def picture(name: str) -> tuple[Path, str]:
    """Return a committed picture that no JSON can be drawn to, and its alternative text.

    Only pictures of simulated images are committed, such as "fig4_nodules".
    """
    cohort = NODULES[0]
    known = {f"{e.name}_{ending}": e.name for e in EXPERIMENTS.values() for ending in e.draw_images}
    file = paths.results() / f"{cohort}_{name}.png"
    if name not in known or not file.is_file():
        raise InputError(f"{file}: not committed; there may be {', '.join(known)} of simulated CT")
    return file, str(read(known[name], cohort)["alt_text"][name])


def provenance(values: Mapping[str, Any]) -> str:
    """Say on what, how, where and when a figure was measured, in a few lines."""
    if "cohort" not in values:
        return f"labels of LIDC-IDRI's readers, no images\n{values['date'][:10]}"
    cohort, hardware, counted = values["cohort"], values["hardware"], ""
    images = "simulated" if cohort["simulated"] else "real"
    what = "candidates of LUNA-16" if is_luna(values) else "labelled nodules"
    if finished := values.get("variants") or values.get("rows"):
        metrics = next(iter(finished.values()))["metrics"]
        counted = f", {metrics['nodules']} of them judged"
        if found := judged(metrics):
            counted += f" in {found['scans']} scans with {found['nodules']} nodules"
    missing = "" if values["complete"] else f"not finished: {', '.join(values['missing'])}"
    holds = next((pair["holds_for"] for pair in values.get("comparisons", {}).values()
                  if "holds_for" in pair), "")  # fmt: skip
    said = (f"intervals of {holds}" * bool(holds), not_converged(values), missing)
    state = "".join(f"; {words}" for words in said if words)
    return (
        f"{cohort['labelled']} {what}, {images} CT{counted}\n{values['protocol']}\n"
        f"{values['date'][:10]}, {hardware['gpu'] or hardware['processor']}, "
        f"torch {hardware['torch']}{state}"
    )


def at_chance(values: Mapping[str, Any]) -> pd.DataFrame:
    """Count the networks of each setting of a sweep that never learnt, of those trained.

    One row a (layers, model) of fig6, or a (setting, model), such as ("dropout none", "ST-CNN"):
    `networks`, and `at chance`, missing where it was not counted.
    """
    rows, named = {}, "setting"
    for label, of in values["variants"].items():
        model, _, setting = label.partition(", ")
        place: str | int = setting or "as it is"
        if " layer" in setting:
            place, named = int(setting.split()[0]), "layers"
        rows[place, model] = (of["trained"]["networks"], of["trained"].get("at_chance"))
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["networks", "at chance"])
    table.index = pd.MultiIndex.from_tuples(rows, names=[named, "model"])
    return table.astype("Int64")


def collect(
    folder: str | Path, cohort: str, partial_too: bool = False
) -> tuple[list[Path], dict[str, str]]:
    """Copy the finished figures of a folder that `reproduce` wrote into `results/`.

    `cohort` is one of `COHORTS`, which is checked. With `partial_too` unfinished ones are taken as
    well; they never replace a finished one. Returns the files that were written, and name of a
    figure or table -> why it was left out. Raises InputError where there is nothing to copy.
    """
    folder, written, refused = Path(folder), [], {}
    files = {n: file for n in EXPERIMENTS if (file := folder / f"{n}.json").is_file()}
    if not files:
        raise InputError(f"{folder}: holds no figure; give a folder that `labkit reproduce` wrote")
    found = {name: read_json(file, "a figure or table") for name, file in files.items()}
    for name, values in found.items():
        if (made_of := kind(values)) not in (None, cohort):
            raise InputError(f"{files[name]}: made of {made_of} images, not {cohort}")
    for name, values in found.items():
        if why := _why_not(_file(name, cohort), values, partial_too):
            refused[name] = why
            continue
        written.append(_file(name, cohort))
        write_json(written[-1], values)
        for ending in EXPERIMENTS[name].draw_images if cohort == NODULES[0] else ():
            made = folder / f"{name}_{ending}.png"  # real images stay out
            if made.is_file():
                written.append(paths.results() / f"{cohort}_{made.name}")
                write_atomically(written[-1], partial(shutil.copyfile, made))
    if not written:
        said = "; ".join(f"{n}: {reason}" for n, reason in refused.items())
        raise InputError(f"{folder}: nothing to copy ({said})")
    return written, refused


def kind(values: Mapping[str, Any]) -> str | None:
    """Return which of `COHORTS` a figure's values are of; None for a figure of labels alone.

    >>> kind({"task": "luna16", "cohort": {"simulated": True}}), kind({"rules": {}})
    ('luna', None)
    """
    if "cohort" not in values:
        return None
    return LUNA if is_luna(values) else NODULES[0 if values["cohort"]["simulated"] else 1]


def _why_not(file: Path, values: Mapping[str, Any], partial_too: bool) -> str:
    """Why a figure is not copied to a file; nothing for one that is."""
    missing = f"{len(values['missing'])} variants are not finished"
    if values["complete"]:
        return ""
    if not partial_too:
        return f"{missing}; --partial takes it all the same"
    if not values.get("variants", values.get("rows")):
        return "no variant is finished"
    complete = file.is_file() and read_json(file, "a committed figure")["complete"]
    return f"{missing}, and the committed one is complete" if complete else ""


def _file(name: str, cohort: str) -> Path:
    if cohort not in COHORTS:
        raise InputError(f"cohort must be one of {', '.join(COHORTS)}, not {cohort!r}")
    prefix = f"{cohort}_" if EXPERIMENTS[name].variants else ""
    return paths.results() / f"{prefix}{name}.json"
