"""The README's part on LUNA-16's candidates."""

from __future__ import annotations

from typing import Any

from labkit._readme_words import difference, how, interval, judged
from labkit.experiments import committed, rows

_ROWS = (
    rows.DETECTORS,
    *(f"{model}{which}" for model in ("ST-CNN", "MT-CNN")
      for which in ("", ", axial", ", three orthogonal", f" {rows.WITH_DETECTOR}")),
)  # fmt: skip
# Each metric's title, and its digits.
_METRICS = {
    "auc": ("AUC", 3),
    "sensitivity": ("Sensitivity", 3),
    "specificity": ("Specificity", 3),
    "false_positives_per_scan": ("False positives a scan", 1),
    "cpm": ("CPM", 3),
}


def images(values: dict[str, Any]) -> str:
    """What LUNA-16 is made of, for a line's beginning."""
    return "LUNA-16, simulated" if values["cohort"]["simulated"] else "LUNA-16"


def luna_table() -> list[str]:
    """Our rows of Table 1 on LUNA-16's candidates, beside the published; none, no lines."""
    if ("table1", committed.LUNA) not in committed.there((committed.LUNA,)):
        return []
    values = committed.read("table1", committed.LUNA)
    published = rows.published(values)
    titles = [title for title, _ in _METRICS.values()]
    lines = [
        "| " + " | ".join(["Method", *titles, "As published"]) + " |",
        "|---" * (len(titles) + 2) + "|",
    ]
    for name in (name for name in _ROWS if name in values["rows"]):
        of_row = values["rows"][name]["metrics"]
        cells, theirs = [name], []
        for metric, (title, digits) in _METRICS.items():
            found = rows.value(of_row, metric)
            cells.append("not computed" if found is None else interval(found, digits))
            if (name, metric) in published:
                theirs.append(f"{title} {published[name, metric]:.{digits}f}")
        lines.append("| " + " | ".join([*cells, ", ".join(theirs)]) + " |")
    lines += ["", _what(values)]
    for pairs, family in (("comparisons", "family"), ("together", "together_family")):
        for what, pair in values[pairs].items():
            lines.append(f"- AUC of {what}: {judged(pair, values[family])}{cpm_of(pair)}.")
    return lines


def cpm_of(pair: dict[str, Any]) -> str:
    """The difference of a pair in CPM, where there is one; "" elsewhere."""
    of = pair.get("cpm_difference", {})
    return f"; in CPM {difference(of)}" if "value" in of else ""


def _what(values: dict[str, Any]) -> str:
    at = next(iter(values["rows"].values()))["metrics"]["screening"]
    simulated = values["cohort"]["simulated"]
    candidates = at["positives"] + at["negatives"]
    source = (
        "Candidates of a detector in simulated CT of LUNA-16's scans"
        if simulated
        else "LUNA-16's candidates (Setio et al. 2017, CC BY 4.0)"
    )
    theirs = "; the published values are of real CT, 551,065 candidates in 888" if simulated else ""
    return (
        f"- {source}: {candidates:,} in {at['scans']} scans, {at['positives']} of them on nodules"
        f"{theirs}. {how(values, 'subset')}. Sensitivity, specificity and false positives are of "
        f"candidates at a probability of {at['threshold']:.3g}, the share of them that is on "
        "nodules; CPM is of nodules, by LUNA-16's own rules, its interval over scans."
    )
