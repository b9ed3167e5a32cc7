"""What the networks of a cross-validation left, put together: predictions, curves, metrics."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from labkit.data.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation import candidates
from labkit.evaluation.runs import kept_folder
from labkit.evaluation.summary import summarise
from labkit.evaluation.units import Unit, read_unit
from labkit.files import read_json, write_csv, write_json
from labkit.models.fusion import auc_weights, fuse
from labkit.training.config import TrainingConfig
from labkit.training.device import Device
from labkit.training.fit import NineViewModel, load_network

FUSED = "fused"
SIZE_ONLY = "size_only"
DETECTOR = "detector"
"""What the score of whatever proposed LUNA-16's candidates tells by itself, where it is known."""
_BASELINES = {SIZE_ONLY: "diameter_mm", DETECTOR: "score"}


def by_one_number(
    nodules: pd.DataFrame, column: str, train: NDArray[np.int64], test: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(n_test,) probability from one positive number alone, such as the diameter.

    Logistic regression on its logarithm, fitted on the training rows; what every image method has
    to be set beside, since on LIDC the mean reader diameter alone has an AUC of 0.94.
    """
    x = np.log(nodules[column].to_numpy(dtype=float))[:, None]
    y = nodules["label"].to_numpy(dtype=float)
    model = LogisticRegression().fit(x[train], y[train].astype(int))
    return model.predict_proba(x[test])[:, 1]


def size_only(
    nodules: pd.DataFrame, train: NDArray[np.int64], test: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(n_test,) malignant probability from the diameter alone (`by_one_number`)."""
    return by_one_number(nodules, "diameter_mm", train, test)


def baselines(cohort: Cohort) -> dict[str, str]:
    """The views that need no network, and the column that each is made of (`by_one_number`).

    A column is taken where all labelled nodules have a positive number in it. Not every nodule need
    have a diameter; but a detector that proposed a candidate has a score for it.

    Raises:
        InputError: a column that is not of numbers, or a score that some candidates lack; told
            before anything is trained for it.
    """
    table = cohort.nodules.iloc[cohort.labelled]
    found = {}
    for view, column in _BASELINES.items():
        if column not in table or table[column].isna().all():
            continue
        numbers = pd.to_numeric(table[column], errors="coerce")
        values = numbers.to_numpy(dtype=float, na_value=np.nan)
        wrong = ~np.isfinite(values)
        if view != DETECTOR:  # a missing one is unknown, as long as it is not something else
            wrong &= table[column].notna().to_numpy()
        if wrong.any():
            first = table.iloc[int(wrong.argmax())]
            there = "missing" if pd.isna(first[column]) else repr(first[column])
            raise InputError(
                f"{cohort.folder / 'nodules.csv'}: {column} is no number in {int(wrong.sum())} of "
                f"{len(table)} rows, the first {first['nodule_id']}, where it is {there}; build "
                "the cohort with a number in each row, or without the column"
            )
        if (values > 0).all():
            found[view] = column
    return found


def gather(
    cohort: Cohort,
    config: TrainingConfig,
    out: Path,
    units: list[Unit],
    keep_first_model: bool,
) -> pd.DataFrame:
    """Write `predictions.csv`, `history.csv` and `metrics.json` of a run from its units.

    For LUNA-16 also `submission.csv`, as the challenge takes it.

    Args:
        cohort: its labelled nodules are predicted.
        config: how the networks were trained.
        out: folder of the run.
        units: all of them, ordered by place; their files are there.
        keep_first_model: also join the networks that the first fold kept, in `out`/model.

    Returns:
        The predictions, as `crossval.run` does.
    """
    rows = cohort.labelled
    of_numbers = baselines(cohort)
    parts: list[_Part] = []
    curves, seconds = [], 0.0
    for (repeat, fold), of_fold in groupby(units, key=lambda unit: unit.place[:2]):
        planned = list(of_fold)
        left = [read_unit(out, unit.place) for unit in planned]
        test = planned[0].test
        train = np.setdiff1d(rows, test)
        by_view = np.array([u["test_probability"] for u in left]).T
        columns = {str(v): by_view[:, i] for i, v in enumerate(config.views)}
        weights = auc_weights([u["val_auc"] for u in left])
        columns[FUSED] = fuse(by_view, weights, left[0]["prior_shift"])
        for view, column in of_numbers.items():
            columns[view] = by_one_number(cohort.nodules, column, train, test)
        parts += [_Part(test, repeat, fold, view, said) for view, said in columns.items()]
        for number, u in zip(config.views, left, strict=True):
            seconds += u["seconds"]
            curves.append(
                pd.DataFrame(u["history"]).assign(
                    repeat=repeat, fold=fold, view=number, best_epoch=u["best_epoch"]
                )
            )
    predictions = _table(cohort.nodules, parts)
    del parts
    if keep_first_model:
        _assemble_first_model(out, config)
    write_csv(out / "history.csv", pd.concat(curves, ignore_index=True))
    write_csv(out / "predictions.csv", predictions)
    if cohort.task == "luna16":
        write_csv(out / "submission.csv", candidates.submission(cohort, predictions, FUSED))
    cut = candidates.threshold(cohort)
    write_json(
        out / "metrics.json",
        {
            **read_json(out / "run.json", "a run"),
            "training_seconds": round(seconds, 1),
            "epochs_run": int(sum(len(c) for c in curves)),
            "threshold": round(cut, 8),
            "metrics": summarise(predictions, threshold=cut),
        },
    )
    return predictions


@dataclass(frozen=True, eq=False)
class _Part:
    """What one view's network of a fold said of its test rows."""

    rows: NDArray[np.int64]
    repeat: int
    fold: int
    view: str
    probability: NDArray[np.float64]


def _table(nodules: pd.DataFrame, parts: list[_Part]) -> pd.DataFrame:
    """The predictions, made column by column: of LUNA-16, a second copy would be gigabytes."""
    rows = np.concatenate([part.rows for part in parts])
    counts = [len(part.rows) for part in parts]
    columns = {
        "nodule_id": nodules["nodule_id"].to_numpy()[rows],
        "patient_id": nodules["patient_id"].to_numpy()[rows],
        "repeat": np.repeat([part.repeat for part in parts], counts),
        "fold": np.repeat([part.fold for part in parts], counts),
        "view": np.repeat(np.array([part.view for part in parts], dtype=object), counts),
        "probability": np.concatenate([part.probability for part in parts]),
        "label": nodules["label"].fillna(-1).to_numpy(dtype=np.int64)[rows],
    }
    return pd.DataFrame(columns, copy=False)


def _assemble_first_model(out: Path, config: TrainingConfig) -> None:
    """Join the networks that the first fold kept into one nine-view model."""
    device = Device.choose("cpu", config.precision)
    if (out / "model" / "model.json").is_file():
        return
    networks, aucs, curves = [], [], []
    shift = 0.0  # the same of all views, which learnt from the same nodules
    for view in config.views:
        folder = kept_folder(out, view)
        networks.append(load_network(folder / f"view_{view}.safetensors", config, device))
        model = read_json(folder / "model.json", "a labkit model")
        aucs.append(float(model["view_auc"][0]))
        shift = float(model.get("prior_shift", 0.0))
        curves.append(pd.read_csv(folder / "history.csv").assign(view=view))
    history = pd.concat(curves, ignore_index=True)
    joined = NineViewModel(config, tuple(networks), tuple(aucs), history, device, shift)
    joined.save(out / "model")
