"""What a run's networks said of the nodules that they were stopped by, as a table.

These inner validation nodules are of other patients than those trained on (and, with folds by
patient, than those tested), so that a temperature, or another way to fuse views, can be learnt from
them without a look at the test nodules.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from labkit.data.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation.gather import FUSED
from labkit.evaluation.runs import Plan
from labkit.evaluation.units import read_unit
from labkit.files import read_json
from labkit.models.fusion import auc_weights, fuse

_IMAGINARY = (*4 * ((0.8, 1),), (0.8, 0), *4 * ((0.2, 0),), (0.2, 1))


def validation(run: Path, cohort: Cohort) -> pd.DataFrame:
    """A finished run's predictions of its inner validation nodules, single views and fused.

    Args:
        run: folder of the run.
        cohort: that it was trained on, for the labels.

    Returns:
        Columns as `crossval.run` returns them; `fold` is the fold whose training the nodule was
        held out of, so that a nodule comes in several folds.

    Raises:
        InputError: unfinished, of another cohort, or from before units kept these predictions.
    """
    values = read_json(run / "run.json", "a run")
    plan = Plan(**values["plan"])
    views = [int(v) for v in values["config"]["views"]]
    table = cohort.nodules.set_index("nodule_id")
    parts = []
    for repeat, fold in plan.places():
        units = [read_unit(run, (repeat, fold, view)) for view in views]
        if any("val_probability" not in unit for unit in units):
            raise InputError(
                f"{run}: its networks did not keep what they said of validation nodules; it is "
                "from an older version: train again in another folder"
            )
        ids = units[0]["val_nodule_id"]
        if not set(ids) <= set(table.index):
            raise InputError(f"{run}: was trained on other nodules than {cohort.folder} holds")
        by_view = np.array([unit["val_probability"] for unit in units], dtype=float).T
        columns = {str(view): by_view[:, k] for k, view in enumerate(views)}
        weights = auc_weights([unit["val_auc"] for unit in units])
        columns[FUSED] = fuse(by_view, weights, units[0]["prior_shift"])
        for view, probability in columns.items():
            part = table.loc[ids, ["patient_id", "label"]].reset_index()
            part["label"] = part["label"].astype(int)
            parts.append(part.assign(repeat=repeat, fold=fold, view=view, probability=probability))
    columns_in_order = [
        "nodule_id", "patient_id", "repeat", "fold", "view", "probability", "label",
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)[columns_in_order]


def steadied(held_out: pd.DataFrame) -> pd.DataFrame:
    """The same table with ten imaginary nodules for each fold and view, perfectly calibrated.

    A few dozen validation nodules leave a temperature loose, and none at all is best where they
    happen to be separated entirely. Of the imaginary ones five have a probability of 0.8, of which
    four are malignant, and five of 0.2, of which one is: they pull the temperature towards 1, no
    further than ten nodules can.

    Args:
        held_out: as `validation` returns it.
    """
    parts = [held_out]
    for (repeat, fold, view), _ in held_out.groupby(["repeat", "fold", "view"]):
        for number, (probability, label) in enumerate(_IMAGINARY):
            name = f"imaginary-{number}"
            row = (name, name, repeat, fold, view, probability, label)
            parts.append(pd.DataFrame([row], columns=held_out.columns))
    return pd.concat(parts, ignore_index=True)
