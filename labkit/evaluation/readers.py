"""How well a radiologist would score: one reader against the median of the others.

The labels are medians of three or four opinions, and the opinions differ. One reader, judged as a
network is judged, shows how much of a network's error may be the labels'. It is no strict ceiling:
the median that a network is judged by counts one reader more, an opinion has only five values
where a probability has many, and networks can follow what readers have in common (size, above all)
more steadily than a reader does. So `against_the_rest` also judges any scores by the same rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from labkit.annotations.lidc import UNCERTAIN
from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.statistics import Interval

_COLUMNS = ("nodule_id", "patient_id", "malignancy")


@dataclass(frozen=True)
class ReaderCeiling:
    """One reader, and perhaps a score, against the median of the other readers.

    Args:
        nodules, patients, comparisons: how many; a nodule is compared once a reader, as long as the
            other readers' median is not 3.
        undecided: share of comparisons in which the one reader says 3.
        auc: of the reader's five-step opinion, ties half.
        strict: (sensitivity, specificity) when only 4 and 5 count as malignant.
        lenient: the same when 3 counts as malignant, too.
        score_auc: of the scores in the very same comparisons; None without scores.
        difference: AUC of the scores less that of the reader, paired.
    """

    nodules: int
    patients: int
    comparisons: int
    undecided: float
    auc: Interval
    strict: tuple[Interval, Interval]
    lenient: tuple[Interval, Interval]
    score_auc: Interval | None = None
    difference: Interval | None = None


def against_the_rest(
    annotations: pd.DataFrame,
    scores: Mapping[str, float] | None = None,
    *,
    min_readers: int = 3,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> ReaderCeiling:
    """Judge each reader, and perhaps a score, by the median of the nodule's other readers.

    Intervals come from a bootstrap over patients: all comparisons of a patient's nodules stay
    together.

    Args:
        annotations: one row a reader and nodule with `nodule_id`, `patient_id` and `malignancy`
            (1 to 5), as `lidc.annotations()` or `from_ratings` give them; what slices were how
            thick is for the caller to choose.
        scores: nodule_id -> score, such as a network's probabilities or a diameter; None judges
            readers alone. Nodules without a score are left out, so that both judge the same. A
            network of the labelled nodules leaves out those on which the readers are undecided as
            a whole, and the reader's AUC rises with it (on LIDC-IDRI from 0.79 to 0.87): compare
            within one call, never between calls.
        min_readers: least readers of a nodule.
        resamples: of the bootstrap.
        level: confidence.
        seed: of the bootstrap.

    Raises:
        InputError: a column missing, a malignancy that is none, or nothing left to compare.
    """
    table = comparisons(annotations, min_readers)
    if table.empty:
        raise InputError(f"no nodule is left: none has {min_readers} readers whose others decide")
    if scores is not None:
        table = table.assign(score=table["nodule_id"].map(dict(scores))).dropna(subset="score")
        if table.empty:
            raise InputError("no nodule has both a score and enough readers; do their ids agree?")
    y = table["label"].to_numpy(dtype=np.int64)
    opinion = table["opinion"].to_numpy(dtype=float)
    common: dict[str, Any] = {
        "groups": table["patient_id"].to_numpy(),
        "resamples": resamples,
        "level": level,
        "seed": seed,
    }
    points = {}
    for name, called in (("strict", opinion > UNCERTAIN), ("lenient", opinion >= UNCERTAIN)):
        rates = statistics.bootstrap_rates(y, called.astype(float), **common)
        points[name] = (rates["sensitivity"], rates["specificity"])
    score_auc = difference = None
    if scores is not None:
        s = table["score"].to_numpy(dtype=float)
        score_auc = statistics.bootstrap_auc(y, s, **common)
        difference = statistics.bootstrap_auc_difference(y, s, opinion, **common)
    return ReaderCeiling(
        nodules=table["nodule_id"].nunique(),
        patients=table["patient_id"].nunique(),
        comparisons=len(table),
        undecided=float((opinion == UNCERTAIN).mean()),
        auc=statistics.bootstrap_auc(y, opinion, **common),
        strict=points["strict"],
        lenient=points["lenient"],
        score_auc=score_auc,
        difference=difference,
    )


def comparisons(annotations: pd.DataFrame, min_readers: int = 3) -> pd.DataFrame:
    """Each reader of a nodule beside what the others decide.

    Args:
        annotations: as `against_the_rest` takes them.
        min_readers: least readers of a nodule.

    Returns:
        One row a reader whose colleagues' median is not 3: `nodule_id`, `patient_id`, `readers`,
        `opinion` (1 to 5), `label` (1: the others' median is above 3).

    Raises:
        InputError: a column missing, a malignancy that is none, or fewer than 2 readers asked for.

    >>> readers = pd.DataFrame({"nodule_id": "n", "patient_id": "p", "malignancy": [5, 3, 2]})
    >>> comparisons(readers)[["opinion", "label"]].to_numpy().tolist()
    [[5, 0], [3, 1], [2, 1]]
    """
    missing = [c for c in _COLUMNS if c not in annotations]
    if missing:
        raise InputError(f"annotations lack the columns {', '.join(missing)}")
    if min_readers < 2:
        raise InputError("one reader has no others to be compared with; min_readers is 2 or more")
    if not annotations["malignancy"].isin(range(1, 6)).all():
        raise InputError("malignancy is rated 1 to 5; some annotations have another value")
    parts = []
    for (nodule, patient), group in annotations.groupby(["nodule_id", "patient_id"], sort=False):
        opinions = group["malignancy"].to_numpy(dtype=np.int64)
        if len(opinions) < min_readers:
            continue
        others = np.array([np.median(np.delete(opinions, k)) for k in range(len(opinions))])
        parts += [
            (nodule, patient, len(opinions), opinion, int(rest > UNCERTAIN))
            for opinion, rest in zip(opinions, others, strict=True)
            if rest != UNCERTAIN
        ]
    columns = ["nodule_id", "patient_id", "readers", "opinion", "label"]
    return pd.DataFrame(parts, columns=columns)


def from_ratings(nodules: pd.DataFrame) -> pd.DataFrame:
    """Annotations out of a nodule table with the readers' opinions in one column.

    Args:
        nodules: with `nodule_id`, `patient_id` and `ratings` such as "5|4|4|3".

    Returns:
        One row a reader: `nodule_id`, `patient_id`, `malignancy`.

    Raises:
        InputError: no such column, or ratings that cannot be read.
    """
    if "ratings" not in nodules:
        raise InputError("the nodules have no column of single ratings; use lidc.annotations()")
    long = nodules[["nodule_id", "patient_id"]].assign(
        malignancy=nodules["ratings"].astype(str).str.split("|")
    )
    long = long.explode("malignancy", ignore_index=True)
    values = pd.to_numeric(long["malignancy"], errors="coerce")
    if values.isna().any():
        odd = long.loc[values.isna(), "nodule_id"].iloc[0]
        raise InputError(f"{odd}: its ratings must read like 5|4|4|3")
    return long.assign(malignancy=values)
