"""Which nodule of LIDC-IDRI a nodule is whose images came from a file of cubes."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from labkit.data import lidc

NEEDED = ("nodule_id", "series_uid", "ratings")


def lidc_ids(nodules: pd.DataFrame) -> pd.Series:
    """LIDC-IDRI's id of each nodule, by series, place in the scan and ratings; or missing.

    The last number of an id is the nodule's place in its scan, counted from the feet to the head
    as pylidc's `cluster_annotations` does. That it is the same nodule is confirmed by the readers:
    each malignancy rating has to be one of LIDC's nodule, which may have more of them (of 750
    nodules of one file, 734 have the very same ratings, and 16 lack some).

    Args:
        nodules: with `nodule_id` ("LIDC-IDRI-0003/nodule-2"), `series_uid` and `ratings`
            ("5|4|4|3", one a reader), as `labkit build cubes` keeps them.

    Returns:
        One id or missing value a row, such as "LIDC-IDRI-0003-s1-n2"; all missing where a column
        is.

    >>> series = lidc.annotations().iloc[0]["series_uid"]
    >>> own = {"nodule_id": "mine/nodule-0", "series_uid": series, "ratings": "5|4"}
    >>> lidc_ids(pd.DataFrame([own, own | {"ratings": "5|1"}])).fillna("none").tolist()
    ['LIDC-IDRI-0001-s1-n0', 'none']
    """
    found = pd.Series(None, index=nodules.index, dtype=object, name="lidc_id")
    if not set(NEEDED) <= set(nodules):
        return found
    table = lidc.annotations()
    at = table.drop_duplicates("nodule_id")
    places = zip(at["series_uid"], _number(at["nodule_id"]), at["nodule_id"], strict=True)
    by_place = {(series, number): own for series, number, own in places}
    rated = {own: Counter(r.tolist()) for own, r in table.groupby("nodule_id")["malignancy"]}
    asked = zip(
        nodules.index, nodules["series_uid"], _number(nodules["nodule_id"]), nodules["ratings"],
        strict=True,
    )  # fmt: skip
    for row, series, number, ratings in asked:
        own = by_place.get((series, number))
        if own is not None and Counter(_opinions(ratings)) <= rated[own]:
            found[row] = own
    return found


def _number(ids: pd.Series) -> pd.Series:
    return ids.astype(str).str.extract(r"(\d+)$", expand=False)


def _opinions(ratings: object) -> list[float]:
    """Of "5|4|4|3"; what is no number is nobody's opinion."""
    return pd.to_numeric(pd.Series(str(ratings).split("|")), errors="coerce").fillna(-1).tolist()
