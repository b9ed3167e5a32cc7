"""How well a radiologist would score: one reader against the median of the others.

The labels are medians of three or four opinions, and the opinions differ. One reader, judged as a
network is judged, shows how much of a network's error may be the labels'. It is no strict ceiling:
the median that a network is judged by counts one reader more, an opinion has only five values
where a probability has many, and networks follow what readers have in common (size) more steadily.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from labkit.annotations.lidc import UNCERTAIN
from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.statistics import RESAMPLES, Interval


class ReaderCeiling(NamedTuple):
    """One reader, and perhaps a score, against the median of the other readers."""

    nodules: int
    patients: int
    comparisons: int  # a nodule is compared once a reader
    undecided: float  # share of comparisons in which the one reader says 3
    auc: Interval  # of the reader's five-step opinion, ties half
    strict: tuple[Interval, Interval]  # sensitivity, specificity when 4 and 5 count as malignant,
    lenient: tuple[Interval, Interval]  # or 3, too
    score_auc: Interval | None = None  # of the scores in the very same comparisons
    difference: Interval | None = None  # AUC of the scores less that of the reader, paired


def against_the_rest(
    annotations: pd.DataFrame, scores: Mapping[str, float] | None = None, *, min_readers: int = 3,
    resamples: int = RESAMPLES,
) -> ReaderCeiling:  # fmt: skip
    """Judge each reader, and perhaps a score, by the median of the nodule's other readers.

    Args:
        annotations: one row a reader and nodule with `nodule_id`, `patient_id` and `malignancy`
            (1 to 5), as `lidc.annotations()` gives them.
        scores: nodule_id -> score, such as a network's probabilities or a diameter. Nodules without
            one are left out, such as those on which the readers are undecided as a whole, and the
            reader's AUC rises with it (on LIDC-IDRI from 0.79 to 0.87): compare within one call.
        min_readers: least readers of a nodule.
        resamples: of the bootstrap over patients.
    """
    table = comparisons(annotations, min_readers)
    if table.empty:
        raise InputError(f"no nodule is left: none has {min_readers} readers whose others decide")
    if scores is not None:
        table = table.assign(score=table["nodule_id"].map(dict(scores))).dropna(subset="score")
        if table.empty:
            raise InputError("no nodule has both a score and enough readers; do their ids agree?")
    y, opinion = table["label"].to_numpy(), table["opinion"].to_numpy()
    drawn: dict[str, Any] = {"groups": table["patient_id"].to_numpy(), "resamples": resamples}
    strict, lenient = (statistics.bootstrap_rates(y, called, **drawn)
                       for called in (opinion > UNCERTAIN, opinion >= UNCERTAIN))  # fmt: skip
    ceiling = ReaderCeiling(
        table["nodule_id"].nunique(), table["patient_id"].nunique(), len(table),
        float((opinion == UNCERTAIN).mean()), statistics.bootstrap_auc(y, opinion, **drawn),
        (strict["sensitivity"], strict["specificity"]),
        (lenient["sensitivity"], lenient["specificity"]),
    )  # fmt: skip
    if scores is None:
        return ceiling
    score = table["score"].to_numpy()
    difference = statistics.bootstrap_auc_difference(y, score, opinion, **drawn)
    return ceiling._replace(
        score_auc=statistics.bootstrap_auc(y, score, **drawn), difference=difference
    )


def comparisons(annotations: pd.DataFrame, min_readers: int = 3) -> pd.DataFrame:
    """Return each reader of a nodule beside what the others decide.

    One row a reader whose colleagues' median is not 3: `nodule_id`, `patient_id`, `readers`,
    `opinion` (1 to 5), `label` (1: the others' median is above 3).

    >>> readers = pd.DataFrame({"nodule_id": "n", "patient_id": "p", "malignancy": [5, 3, 2]})
    >>> comparisons(readers)[["opinion", "label"]].to_numpy().tolist()
    [[5, 0], [3, 1], [2, 1]]
    """
    if missing := {"nodule_id", "patient_id", "malignancy"}.difference(annotations):
        raise InputError(f"annotations lack the columns {', '.join(sorted(missing))}")
    if min_readers < 2:
        raise InputError("one reader has no others to be compared with; min_readers is 2 or more")
    if not annotations["malignancy"].isin(range(1, 6)).all():
        raise InputError("malignancy is rated 1 to 5; some annotations have another value")
    rated = annotations[["nodule_id", "patient_id", "malignancy"]].reset_index(drop=True)
    rated["readers"] = rated.groupby(["nodule_id", "patient_id"])["malignancy"].transform("size")
    rated = rated[rated["readers"] >= min_readers].rename_axis("reader").reset_index()
    pairs = rated.merge(rated, on=["nodule_id", "patient_id"], suffixes=("", "_of_other"))
    pairs = pairs[pairs["reader"] != pairs["reader_of_other"]]
    others = pairs.groupby("reader")["malignancy_of_other"].median()
    table = rated.assign(others=rated["reader"].map(others)).query("others != @UNCERTAIN")
    table = table.assign(label=(table["others"] > UNCERTAIN).astype(int))
    columns = ["nodule_id", "patient_id", "readers", "malignancy", "label"]
    return table[columns].rename(columns={"malignancy": "opinion"}).reset_index(drop=True)
