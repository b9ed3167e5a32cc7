"""The paper's figures as they are committed: `results/COHORT_NAME.json`, made by `reproduce`.

Fig. 1 shows labels and no images, so that it is of no cohort: `results/fig1.json`.

    values = committed.read("fig7", "simulated")
    style.show(sweeps.alpha_figure(values))

`collect` puts them there, from a folder that `reproduce` wrote. Runs are never copied: a figure's
JSON has everything that it shows, and what it was measured on.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from labkit import paths
from labkit.errors import InputError
from labkit.io import read_json, write_atomically, write_json
from labkit.paper import values as luna
from labkit.paper.declared import EXPERIMENTS

# The committed measurements in `results/`: runs that take too long for a lesson.


COLUMNS = (
    "images", "method", "nodules", "auc", "sensitivity", "specificity", "protocol", "device",
    "date",
)  # fmt: skip


def table(pattern: str = "*.json", folder: Path | None = None) -> pd.DataFrame:
    """What cross-validation runs measured, where and when; one row a method.

    Files without runs are passed over: the folder also holds other measurements.

    Args:
        pattern: which files, such as "real_cubes*.json".
        folder: None takes `paths.results()`.

    Returns:
        Columns `COLUMNS`; metrics as text, value and 95 % interval over patients. Empty when
        nothing is there.

    Raises:
        FileNotFoundError: there is no folder of results.
        InputError: a file that is not readable as JSON.
    """
    rows: list[dict[str, Any]] = []
    for values in _collected(pattern, folder).values():
        of_size: dict[str, Any] = {}
        for method, run in values["runs"].items():
            rows += _row(method, run, "fused")
            of_size = run if "size_only" in run["metrics"] else of_size
        if of_size:  # the diameter's own score is the same in all runs on the same folds
            rows += _row("size only", of_size, "size_only")
    return pd.DataFrame(rows, columns=list(COLUMNS))


def comparisons(pattern: str = "*.json", folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """Paired differences of the committed runs, as `plots.compare.differences_figure` takes them.

    Returns:
        "file: what less what" -> what `summary.compare` returned.

    Raises:
        As `table`.
    """
    return {
        f"{name}: {what}": result
        for name, values in _collected(pattern, folder).items()
        for what, result in values.get("comparisons", {}).items()
    }


def _collected(pattern: str, folder: Path | None) -> dict[str, dict[str, Any]]:
    return dict(_files_with_runs(pattern, folder or paths.results()))


def _files_with_runs(pattern: str, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted(folder.glob(pattern)):
        values = read_json(file, "a measured result")
        if isinstance(values, dict) and "runs" in values:
            yield file.stem, values


def _row(method: str, run: dict[str, Any], view: str) -> list[dict[str, Any]]:
    found = run["metrics"].get(view)
    if not found:
        return []
    plan, kind = run["plan"], "simulated" if run["cohort"]["simulated"] else "real"
    return [
        {
            "images": f"{run['cohort']['name']} ({kind})",
            "method": method,
            "nodules": found["nodules"],
            **{m: _in_words(found[m]) for m in ("auc", "sensitivity", "specificity")},
            "protocol": (
                f"{plan['repeats']} x {plan['folds']} folds by {plan['split']}, at most "
                f"{run['config']['epochs']} epochs"
            ),
            "device": run["hardware"]["device"],
            "date": run["started"][:10],
        }
    ]


def _in_words(metric: dict[str, float]) -> str:
    return f"{metric['value']:.3f} ({metric['low']:.3f} to {metric['high']:.3f})"


NODULES = ("simulated", "real")
"""Kinds of images of nodules whose malignancy is learnt."""
LUNA = "luna"
"""LUNA-16's candidates, or simulated ones: which, `provenance` says."""
COHORTS = (*NODULES, LUNA)
"""What results are committed for."""
_PICTURES = {"fig4": ("fig4_nodules",)}
"""What is made of a figure's networks and images, and so of no JSON; real images stay out."""


@dataclass(frozen=True)
class Collected:
    """What `collect` did.

    Args:
        files: that it wrote.
        refused: name of a figure or table -> why it was left out.
    """

    files: tuple[Path, ...]
    refused: Mapping[str, str]


def read(name: str, cohort: str) -> dict[str, Any]:
    """The values of a committed figure or table.

    Args:
        name: of `EXPERIMENTS`, such as "fig7".
        cohort: "simulated", "real" or "luna"; any of them for a figure of labels alone.

    Raises:
        InputError: no such figure or cohort, or it is not committed; says which are.
    """
    _check(cohort, name)
    file = _file(name, cohort)
    if not file.is_file():
        here = ", ".join(f"{n} ({c})" for n, c in there(COHORTS)) or "none yet"
        raise InputError(
            f"{file}: not committed; there are: {here}. `labkit reproduce {name}` makes it, "
            "`python -m labkit.paper collect` puts it there"
        )
    values: dict[str, Any] = read_json(file, "a committed figure")
    return values


def there(cohorts: Iterable[str] = NODULES) -> list[tuple[str, str]]:
    """(name, cohort) of every committed figure and table, in the order of `EXPERIMENTS`.

    A figure of labels alone is there for every kind of images.

    Args:
        cohorts: of `COHORTS`; without it those of nodules, which have the same form. LUNA-16's
            have rows, baselines and units of their own, and are there for who asks for them.
    """
    kinds = tuple(cohorts)
    return [(n, c) for n in EXPERIMENTS for c in kinds if _file(n, c).is_file()]


def kind(values: Mapping[str, Any]) -> str | None:
    """Which of `COHORTS` a figure's values are of; None for a figure of labels alone.

    >>> kind({"task": "luna16", "cohort": {"simulated": True}}), kind({"rules": {}})
    ('luna', None)
    >>> kind({"cohort": {"simulated": True}})
    'simulated'
    """
    if "cohort" not in values:
        return None
    if luna.is_luna(values):
        return LUNA
    return "simulated" if values["cohort"]["simulated"] else "real"


def picture(name: str, cohort: str = NODULES[0]) -> tuple[Path, str]:
    """A committed picture that no JSON can be drawn to, and its alternative text.

    Args:
        name: such as "fig4_nodules".
        cohort: of its images; only simulated ones are committed.

    Raises:
        InputError: no such picture, or its figure is not committed.
    """
    of = {p: figure for figure, pictures in _PICTURES.items() for p in pictures}
    file = paths.results() / f"{cohort}_{name}.png"
    if name not in of or not file.is_file():
        raise InputError(f"{file}: not committed; there may be {', '.join(of)} of simulated CT")
    return file, str(read(of[name], cohort)["alt_text"][name])


def provenance(values: Mapping[str, Any]) -> str:
    """On what, how, where and when a committed figure was measured, in a few lines.

    Args:
        values: that `read` gave.
    """
    if "cohort" not in values:
        return f"labels of LIDC-IDRI's readers, no images\n{values['date'][:10]}"
    cohort = values["cohort"]
    images = "simulated" if cohort["simulated"] else "real"
    what = "candidates of LUNA-16" if luna.is_luna(values) else "labelled nodules"
    processor = values["hardware"]["gpu"] or values["hardware"]["processor"]
    done = values.get("variants") or values.get("rows") or {}
    first = [of["metrics"] for of in done.values()][:1]
    judged = "".join(f", {metrics['nodules']} of them judged" for metrics in first)
    for metrics in first:
        if (found := luna.judged(metrics)) is not None:
            judged += f" in {found['scans']} scans with {found['nodules']} nodules"
    state = "" if values["complete"] else f"; not finished: {', '.join(values['missing'])}"
    return (
        f"{cohort['labelled']} {what}, {images} CT{judged}\n"
        f"{values['protocol']}\n"
        f"{values['date'][:10]}, {processor}, torch {values['hardware']['torch']}{state}"
    )


def collect(folder: str | Path, cohort: str, partial: bool = False) -> Collected:
    """Copy the finished figures of a folder that `reproduce` wrote into `results/`.

    Args:
        folder: with NAME.json; its runs stay where they are.
        cohort: "simulated", "real" or "luna": what its images are, which is checked.
        partial: take unfinished ones as well. They never replace a finished one.

    Raises:
        InputError: nothing to copy, or figures of the other kind of images.
    """
    _check(cohort)
    folder = Path(folder)
    found = {n: folder / f"{n}.json" for n in EXPERIMENTS if (folder / f"{n}.json").is_file()}
    if not found:
        raise InputError(f"{folder}: holds no figure; give a folder that `labkit reproduce` wrote")
    values = {n: read_json(file, "a figure or table") for n, file in found.items()}
    taken, refused = {}, {}
    for name, of in values.items():
        if (made_of := kind(of)) not in (None, cohort):
            raise InputError(f"{found[name]}: made of {made_of} images, not {cohort}")
        if (why := _why_not(name, cohort, of, partial)) is None:
            taken[name] = of
        else:
            refused[name] = why
    if not taken:
        said = "; ".join(f"{n}: {why}" for n, why in refused.items())
        raise InputError(f"{folder}: nothing to copy ({said})")
    written = []
    for name, of in taken.items():
        write_json(_file(name, cohort), of)
        written.append(_file(name, cohort))
        written += _copy_pictures(name, folder, cohort)
    return Collected(tuple(written), refused)


def _copy_pictures(name: str, folder: Path, cohort: str) -> list[Path]:
    """Pictures of simulated images; of an unfinished figure there may be none."""
    there = _PICTURES.get(name, ()) if cohort == NODULES[0] else ()
    copied = []
    for made in (folder / f"{p}.png" for p in there):
        if made.is_file():
            file = paths.results() / f"{cohort}_{made.name}"
            write_atomically(file, functools.partial(shutil.copyfile, made))
            copied.append(file)
    return copied


def _why_not(name: str, cohort: str, values: Mapping[str, Any], partial: bool) -> str | None:
    """Why a figure is not copied, or None."""
    if values["complete"]:
        return None
    missing = f"{len(values['missing'])} variants are not finished"
    if not partial:
        return f"{missing}; --partial takes it all the same"
    if len(values.get("variants", values.get("rows", {}))) == 0:
        return "no variant is finished"
    file = _file(name, cohort)
    if file.is_file() and read_json(file, "a committed figure")["complete"]:
        return f"{missing}, and the committed one is complete"
    return None


def _file(name: str, cohort: str) -> Path:
    of_labels = not EXPERIMENTS[name].variants
    return paths.results() / (f"{name}.json" if of_labels else f"{cohort}_{name}.json")


def _check(cohort: str, name: str | None = None) -> None:
    if cohort not in COHORTS:
        raise InputError(f"cohort must be one of {', '.join(COHORTS)}, not {cohort!r}")
    if name is not None and name not in EXPERIMENTS:
        raise InputError(f"no figure or table is called {name}; there are {', '.join(EXPERIMENTS)}")
