"""LUNA-16's evaluation once more, slowly: the rules written out scan by scan, mark by mark.

It shares nothing with labkit. Tables come as lists of dicts. What the challenge's script divides
by zero for is 0, as labkit states.
"""

import warnings
from dataclasses import dataclass, field

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import roc_curve


@dataclass
class Lists:
    """One entry a nodule, found or missed, and one a false positive, by scan."""

    rows: dict = field(default_factory=dict)  # series -> [(is_nodule, probability, missed)]
    tally: dict = field(default_factory=dict)


def sort_out(marks, nodules, excluded, scans, limit) -> Lists:
    lists = Lists({uid: [] for uid in scans})
    tally = dict.fromkeys(
        ["detected", "missed", "marks", "false_positives", "doubled", "excluded", "over_limit"], 0
    )
    tally["elsewhere"] = sum(m["seriesuid"] not in scans for m in marks)
    for uid in scans:
        ours = [m for m in marks if m["seriesuid"] == uid]
        if limit is not None and len(ours) > limit:
            beyond = sorted((m["probability"] for m in ours), reverse=True)[limit]
            kept = [m for m in ours if m["probability"] > beyond]
            tally["over_limit"] += len(ours) - len(kept)
            ours = kept
        tally["marks"] += len(ours)
        left = list(range(len(ours)))
        for nodule in [n for n in nodules if n["seriesuid"] == uid]:
            hit = [i for i in range(len(ours)) if _hits(ours[i], nodule)]
            left = [i for i in left if i not in hit]
            if hit:
                tally["detected"] += 1
                tally["doubled"] += len(hit) - 1
                lists.rows[uid].append((1, max(ours[i]["probability"] for i in hit), False))
            else:
                tally["missed"] += 1
                lists.rows[uid].append((1, None, True))
        for finding in [e for e in excluded if e["seriesuid"] == uid]:
            dropped = [i for i in left if _hits(ours[i], finding)]
            tally["excluded"] += len(dropped)
            left = [i for i in left if i not in dropped]
        tally["false_positives"] += len(left)
        lists.rows[uid] += [(0, ours[i]["probability"], False) for i in left]
    lists.tally = tally
    return lists


def _hits(mark, finding) -> bool:
    diameter = finding["diameter_mm"]
    if diameter < 0:
        diameter = 10.0
    squared = sum((mark[axis] - finding[axis]) ** 2.0 for axis in ("x_mm", "y_mm", "z_mm"))
    return squared < (diameter / 2.0) ** 2.0


def curve(lists: Lists, drawn):
    """False positives a scan, sensitivity, thresholds; `drawn` are scans, some of them twice."""
    rows = [row for uid in drawn for row in lists.rows[uid]]
    nodules = sum(is_nodule for is_nodule, _, _ in rows)
    judged = [(is_nodule, p) for is_nodule, p, missed in rows if not missed]
    if not judged:
        return np.zeros(1), np.zeros(1), np.array([np.inf])
    labels, probabilities = zip(*judged, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        false_rate, true_rate, thresholds = roc_curve(labels, probabilities)
    detected = float(sum(labels))
    if detected < len(labels):
        x = false_rate * (len(labels) - detected) / len(drawn)
    else:
        x = np.zeros(len(false_rate))
    y = (true_rate * detected) / nodules if detected else np.zeros(len(x))
    return x, y, thresholds
