"""Judging somebody's submission to LUNA-16: their CSV in, a table and files out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd

from labkit import __version__, io
from labkit.annotations import luna16
from labkit.errors import InputError
from labkit.evaluation import froc
from labkit.evaluation.froc import RATES, Froc, Screening


def screen(
    marks: pd.DataFrame, annotations: pd.DataFrame, series_uids: Sequence[str], threshold: float
) -> Screening:
    """The paper's measures (III-E) of a submission, each of its marks being a candidate.

    A mark is positive when it hits a nodule by the challenge's rule, and negative otherwise: one on
    an excluded finding, too, as in the challenge's own candidates.csv, whose 549,714 negatives the
    paper's rates are of. No limit of marks a scan, and no mark is dropped for another on the same
    nodule.

    Args:
        marks: as `tables.read_submission` has them; those in other scans are left out.
        annotations: as `tables.read_annotations` has them.
        series_uids: the scans judged.
        threshold: a mark at or above it is called a nodule.

    Raises:
        InputError: a threshold that is no number, or marks that are all positive or all negative.
    """
    if not math.isfinite(threshold):
        raise InputError(f"threshold is {threshold}; give a probability such as 0.5")
    labelled = luna16.label(marks[marks[luna16.SERIES].isin(series_uids)], annotations)
    positives = int(labelled["class"].sum())
    if positives in (0, len(labelled)):
        which = "none" if not positives else "every one"
        raise InputError(
            f"of the {len(labelled)} marks in the scans judged, {which} hits a nodule; AUC and "
            "rates need marks of both kinds: judge without a threshold"
        )
    return froc.screening(labelled["class"], labelled["probability"], len(series_uids), threshold)


def run(
    candidates: Path,
    out: Path | None = None,
    *,
    annotations: Path,
    excluded: Path,
    series: Path,
    max_marks: int | None = froc.MAX_MARKS,
    bootstraps: int = 1000,
    seed: int = 0,
    threshold: float | None = None,
) -> None:
    """What `labkit froc` does: judge, print, and write into `out` if it is given.

    Args:
        candidates: CSV with the columns seriesuid, coordX, coordY, coordZ and probability.
        out: folder for the numbers, the curve and the figure; None writes nothing.
        annotations: annotations.csv.
        excluded: annotations_excluded.csv.
        series: the scans judged: a UID a line, or a CSV with a column seriesuid.
        max_marks: most marks kept of a scan; None keeps all.
        bootstraps: samples of scans for the intervals; 0 for none.
        seed: of the samples.
        threshold: of `screen`, whose measures are left out for None.

    Raises:
        InputError: a file is unsound, with its line; no mark or no nodule is in the scans; or as
            `screen` does.
    """
    settings: dict[str, Any] = {"max_marks": max_marks, "bootstraps": bootstraps, "seed": seed}
    marks = luna16.read_submission(candidates)
    nodules, findings = luna16.read_annotations(annotations), luna16.read_excluded(excluded)
    uids = luna16.read_series(series)
    result = froc.evaluate(marks, nodules, findings, uids, **settings)
    called = screen(marks, nodules, uids, threshold) if threshold is not None else None
    print(as_text(result))
    if called is not None:
        print(f"\n{screening_as_text(called)}")
    if out is not None:
        written = write(result, out, candidates.stem, settings, called)
        print(f"wrote {', '.join(map(str, written))}")


def as_text(result: Froc) -> str:
    """The result as the lines that `labkit froc` prints."""
    c = result.counts
    lines = [
        f"{c.scans} scans, {c.nodules} nodules: {c.detected} hit, {c.missed} missed",
        f"{c.marks} marks judged: {c.false_positives} false positives, {c.doubled} further hits of "
        f"a nodule, {c.excluded} on excluded findings",
    ]
    if c.over_limit:
        lines.append(f"{c.over_limit} marks beyond the limit of marks a scan were left out")
    if c.elsewhere:
        lines.append(f"{c.elsewhere} marks in scans that are not judged were left out")
    shown = at_rates(result)
    shown.insert(0, "false positives a scan", [str(Fraction(rate)) for rate in RATES])
    shown = shown.drop(columns="false_positives_per_scan").dropna(axis=1)
    lines += ["", shown.to_string(index=False, float_format="{:.4f}".format), ""]
    if result.band is None:
        lines.append(f"CPM {result.cpm:.4f}")
    else:
        cpm = result.band.cpm
        lines.append(f"CPM {cpm.value:.4f} ({cpm.low:.4f} to {cpm.high:.4f}), 95 % over scans, "
                     f"{result.band.resamples} bootstrap samples")  # fmt: skip
    return "\n".join(lines)


def screening_as_text(called: Screening) -> str:
    """The paper's measures as the lines that `labkit froc --threshold` prints."""
    return "\n".join([
        f"{called.positives} marks on nodules and {called.negatives} others, those on excluded "
        f"findings among them; called a nodule from {called.threshold:g} on:",
        f"AUC {called.auc:.4f}, sensitivity {called.sensitivity:.4f} of the marks on nodules, "
        f"specificity {called.specificity:.4f}",
        f"false positive rate {called.false_positive_rate:.4f}, which is "
        f"{called.false_positives_per_scan:.2f} false positives a scan",
    ])  # fmt: skip


def at_rates(result: Froc) -> pd.DataFrame:
    """Seven rows: `false_positives_per_scan`, `sensitivity`, `low`, `high` (NaN without bands)."""
    intervals = result.band.at_rates if result.band is not None else None
    return pd.DataFrame(
        {
            "false_positives_per_scan": RATES,
            "sensitivity": result.sensitivity,
            "low": [i.low for i in intervals] if intervals else float("nan"),
            "high": [i.high for i in intervals] if intervals else float("nan"),
        }
    )


def write(
    result: Froc,
    folder: Path,
    name: str,
    settings: dict[str, Any],
    called: Screening | None = None,
) -> list[Path]:
    """Write froc.json (the numbers), froc.csv (the whole curve) and froc.png (the figure).

    Args:
        result: of `froc.evaluate`.
        folder: made if it is not there.
        name: of the submission, for the figure's legend.
        settings: noted in froc.json.
        called: what `screen` found; noted in froc.json as `screening`.
    """
    from labkit.plots.froc import froc_figure

    known = at_rates(result).dropna(axis=1)
    numbers = {
        "submission": name,
        "cpm": asdict(result.band.cpm) if result.band is not None else {"value": result.cpm},
        "sensitivity": known.to_dict("records"),
        "counts": asdict(result.counts),
        "settings": settings,
        "labkit": __version__,
    }
    if called is not None:
        numbers["screening"] = asdict(called)
    io.write_json(folder / "froc.json", numbers)
    io.write_csv(
        folder / "froc.csv",
        pd.DataFrame(
            {
                "false_positives_per_scan": result.false_positives_per_scan,
                "sensitivity": result.curve_sensitivity,
                "threshold": result.thresholds,
            }
        ),
    )
    figure = froc_figure({name: result})
    io.write_atomically(folder / "froc.png", lambda path: figure.savefig(path, dpi=150))
    return [folder / f"froc.{kind}" for kind in ("json", "csv", "png")]
