"""Predictions of a run: read, packed into one file, cut at a threshold, and as arrays.

The table has one row a nodule, repeat, fold and view; every metric, test and figure starts from it.
"""

from __future__ import annotations

import lzma
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.io import read_csv, read_json, write_atomically, write_json

COLUMNS = ("nodule_id", "patient_id", "repeat", "fold", "view", "probability", "label")
FUSED = "fused"
SIZE_ONLY = "size_only"
DETECTOR = "detector"
"""What the score of whatever proposed LUNA-16's candidates tells by itself, where it is known."""
DEFAULT_THRESHOLD = 0.5
AT_CHANCE = 0.67
"""A classification loss above it is a coin's, ln 2 = 0.693, but for the classes' shares."""

_NAMES = ("nodule_id", "patient_id", "view")
_NUMBERS: dict[str, range | None] = {
    "repeat": range(10**9), "fold": range(10**9), "probability": None, "label": range(2),
}  # fmt: skip
NETWORKS = "networks.json"
"""In a packed run, what each network left but `_ELSEWHERE`, by its file's name."""
_ELSEWHERE = ("history", "test_probability", "seconds")
_PACKED = ("run.json", "metrics.json", "history.csv", NETWORKS, "predictions.csv")


@contextmanager
def run_folder(run: str | Path) -> Iterator[Path]:
    """Give the folder of a run; for a packed one, a temporary folder with its files."""
    run = Path(run)
    if not run.is_file():
        yield run
        return
    with tempfile.TemporaryDirectory() as kept:
        try:
            with tarfile.open(run) as packed:
                for name in _PACKED:
                    if (member := packed.extractfile(name)) is None:  # no file
                        raise KeyError(name)
                    (Path(kept) / name).write_bytes(member.read())
        except (tarfile.TarError, lzma.LZMAError, EOFError, KeyError):
            raise InputError(f"{run}: no packed run, or damaged; `labkit evaluate RUN --pack "
                             "FOLDER` makes one of a finished run") from None  # fmt: skip
        yield Path(kept)


def pack(run: str | Path, file: Path) -> None:
    """Pack a finished run into one .tar.xz file, which every reader here takes for the run itself.

    It holds the run's `predictions.csv` as it is, `history.csv` with curves of six digits, what
    each network said of its validation nodules, and in `run.json` and `metrics.json` its plan,
    config, checksums of its cohort, and where and how long it was trained. No weights. The same run
    gives the same bytes.
    """

    def write(path: Path) -> None:
        with run_folder(run) as whole, tempfile.TemporaryDirectory() as kept, \
                tarfile.open(path, "w:xz", preset=9) as packed:  # fmt: skip
            folder, metrics = Path(kept), read_json(whole / "metrics.json", "a finished run")
            curves = _finished(whole, "history.csv")
            pd.read_csv(curves).to_csv(folder / curves.name, index=False, float_format="%.6g")
            write_json(folder / "metrics.json", metrics | {"convergence": convergence(whole)})
            if units := sorted((whole / "units").glob("*.json")):
                left = {of.stem: read_json(of, "a network of a run") for of in units}
                write_json(folder / NETWORKS, {
                    name: {k: v for k, v in of.items() if k not in _ELSEWHERE}
                    for name, of in left.items()
                })  # fmt: skip
            for name in _PACKED:
                source = folder / name if (folder / name).is_file() else _finished(whole, name)
                about = tarfile.TarInfo(name)
                about.size = source.stat().st_size
                with source.open("rb") as content:
                    packed.addfile(about, content)

    write_atomically(file, write)


def _finished(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise InputError(f"{folder / name}: missing; the run is not finished, start it again to go "
                         "on")  # fmt: skip
    return folder / name


def convergence(
    run: str | Path, places: Iterable[tuple[int, int]] | None = None
) -> dict[str, Any]:  # fmt: skip
    """Tell from a finished run's curves whether its networks had learnt when they stopped.

    Returns `networks`; `best_epoch` {"median", "least", "most"}, counted from 1; `out_of_epochs`,
    how many ran all epochs of their protocol with fewer than `patience` of them since the best; and
    `at_chance`, how many never had a validation loss below `AT_CHANCE`. `places` are the
    (repeat, fold) that count; None takes all.
    """
    with run_folder(run) as folder:
        curves = pd.read_csv(_finished(folder, "history.csv"))
        config = read_json(folder / "run.json", "a run")["config"]
    if places is not None:
        curves = curves.set_index(["repeat", "fold"]).loc[sorted(set(places))].reset_index()
    each = curves.groupby(["repeat", "fold", "view"]).agg(
        epochs=("epoch", "size"), best=("best_epoch", "first"), loss=("val_cls", "min")
    )
    best, since = each["best"] + 1, each["epochs"] - each["best"] - 1
    cut = (each["epochs"] == config["epochs"]) & (since < config["patience"])
    return {
        "networks": len(each), "out_of_epochs": int(cut.sum()),
        "best_epoch": {"median": float(best.median()), "least": int(best.min()),
                       "most": int(best.max())},
        "at_chance": int((each["loss"] > AT_CHANCE).sum()),
    }  # fmt: skip


def read_predictions(run: str | Path, view: str | None = None) -> pd.DataFrame:
    """Read the predictions of a finished run, from its folder or its packed file.

    With a `view`, of this one alone, so that no more of LUNA-16's millions is ever held than that
    and a part of the file. Raises InputError when the run is not finished.
    """
    with run_folder(run) as folder:
        # Each name is kept once, though LUNA-16's predictions repeat it eleven times or more.
        table = read_csv(
            _finished(folder, "predictions.csv"), _NAMES, _NUMBERS, "a run's predictions",
            may_lack=["probability"], only=None if view is None else ("view", view),
        )  # fmt: skip
    rows = table.groupby(["repeat", "view"], observed=True).size()
    if rows.groupby("repeat").nunique().gt(1).any() or (table.empty and view is None):
        raise InputError(f"{run}: views differ in their nodules, or there are none; the "
                         "predictions are damaged")  # fmt: skip
    nodules = table[["nodule_id", "patient_id", "label"]].drop_duplicates()["nodule_id"]
    places = table[["nodule_id", "repeat", "fold"]].drop_duplicates()
    if nodules.duplicated().any() or places.duplicated(["nodule_id", "repeat"]).any():
        raise InputError(f"{run}: a nodule is of two patients, of both labels or in two folds of a "
                         "repeat; the predictions are damaged")  # fmt: skip
    if not table["probability"].dropna().between(0, 1).all():
        raise InputError(f"{run}: probabilities from {table['probability'].min():g} to "
                         f"{table['probability'].max():g}; write them from 0 to 1")  # fmt: skip
    return table.astype(dict.fromkeys(_NAMES, object))[list(COLUMNS)]


def read_threshold(run: str | Path) -> float:
    """Read where a finished run's probabilities are cut (`threshold`)."""
    with run_folder(run) as folder:
        values = read_json(folder / "metrics.json", "a finished run")
    return float(values.get("threshold", DEFAULT_THRESHOLD))


def threshold(cohort: Cohort) -> float:
    """Return above which probability a nodule is called malignant, or a candidate a nodule.

    Half for malignancy. A candidate, hardly ever more likely a nodule than not, is called one when
    its image speaks for it: when its probability exceeds the share of nodules among the candidates.
    """
    if cohort.task != "luna16":
        return DEFAULT_THRESHOLD
    return float(cohort.nodules["label"].iloc[cohort.labelled].astype(float).mean())


@dataclass(frozen=True, eq=False)
class OneView:
    """Predictions of one view, by nodule in the order of their names."""

    nodules: NDArray[Any]  # (n,) names, ascending
    labels: NDArray[np.int64]  # (n,) 1 malignant, 0 benign
    probabilities: NDArray[np.float64]  # (repeats, n)
    patients: NDArray[Any]  # (n,) whose each is
    folds: NDArray[np.int64]  # (repeats, n) in which fold each was tested


def select_view(predictions: pd.DataFrame, view: str) -> pd.DataFrame:
    """Return the rows of one view; the table itself where it has no other."""
    chosen = (predictions["view"].astype(str) == view).to_numpy(dtype=bool)
    return predictions if chosen.all() else predictions[chosen]


def one_view(predictions: pd.DataFrame, view: str) -> OneView:
    """Return one view ("0" to "8", "fused" or a baseline) as arrays.

    Raises InputError for a view or a column that is not there, or a nodule missing from a repeat.
    """
    if missing := set(COLUMNS) - set(predictions.columns):
        raise InputError(f"predictions lack the columns {', '.join(sorted(missing))}")
    chosen = select_view(predictions, view)
    if chosen.empty:
        there = ", ".join(map(str, predictions["view"].unique()))
        raise InputError(f"no predictions for view {view!r}; there are {there}")
    number, names = pd.factorize(chosen["nodule_id"], sort=True)
    repeat, repeats = pd.factorize(chosen["repeat"], sort=True)
    if np.bincount(repeat * len(names) + number).max() > 1:
        raise InputError("a nodule is predicted twice in one repeat")
    probabilities = np.full((len(repeats), len(names)), np.nan)
    folds = np.zeros_like(probabilities, dtype=np.int64)
    labels, patients = np.zeros(len(names), np.int64), np.empty(len(names), object)
    probabilities[repeat, number], folds[repeat, number] = chosen["probability"], chosen["fold"]
    labels[number], patients[number] = chosen["label"], chosen["patient_id"]
    if np.isnan(probabilities).any():
        raise InputError("some nodules lack a prediction in some repeats; the run is not finished, "
                         "or only some of its folds were run more than once")  # fmt: skip
    return OneView(np.asarray(names, dtype=object), labels, probabilities, patients, folds)


def paired(
    first: pd.DataFrame, second: pd.DataFrame, view: str, second_view: str | None = None
) -> tuple[OneView, OneView]:
    """Return a view of one run and of another (None: the same), of the same nodules in order.

    Raises InputError when the runs judge different nodules, or as `one_view`.
    """
    one, two = one_view(first, view), one_view(second, second_view or view)
    if not all(np.array_equal(getattr(one, name), getattr(two, name))
               for name in ("nodules", "labels", "patients")):  # fmt: skip
        raise InputError("the runs judge different nodules: nothing to compare in pairs")
    return one, two
