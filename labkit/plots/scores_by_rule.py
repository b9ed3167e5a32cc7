"""Fig. 1: nodules by malignancy score, and how the classes move with the rule that makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from labkit.data.lidc import UNCERTAIN
from labkit.plots import style

_PUBLISHED = "as published"


def scores_by_rule(values: Mapping[str, Any]) -> Figure:
    """Nodules by score under the printed rule, and the three classes under every rule.

    Args:
        values: of fig1's JSON.
    """
    counts = {p["what"]: int(p["value"]) for p in values["published"]}
    classes = list(style.CLASS_COLUMNS)
    table = pd.DataFrame.from_dict(
        {
            _PUBLISHED: [counts[c] for c in classes],
            **{rule: [found[c] for c in classes] for rule, found in values["rules"].items()},
        },
        "index",
        columns=classes,
    )
    rule, printed = next(iter(values["rules"].items()))
    with style.house_style():
        figure = Figure(figsize=(10.4, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.35])
        for name, colour in style.CLASS_COLUMNS.items():
            chosen = [(s, n) for s, n in printed["by_score"] if _class_of(s) == name]
            bars = left.bar(
                [s for s, _ in chosen], [n for _, n in chosen], 0.4, color=colour, label=name
            )
            left.bar_label(bars, padding=2, fontsize=8)
        left.set(xlabel="malignancy, median over the readers", ylabel="nodules", title=rule)
        left.set_xticks(np.arange(1, 5.5, 0.5))
        left.grid(visible=False, axis="x")
        left.legend(loc="upper right")
        so_far = np.zeros(len(table))
        for name, colour in style.CLASS_COLUMNS.items():
            bars = right.barh(list(table.index), table[name], left=so_far, color=colour)
            for bar, hatched in zip(bars, table.index == _PUBLISHED, strict=True):
                bar.set(alpha=0.6 if hatched else 1.0)
            right.bar_label(bars, label_type="center", color="white", fontsize=8)
            so_far += table[name].to_numpy(dtype=float)
        for y, total in enumerate(so_far):
            right.text(total, y, f" {total:.0f}", va="center", fontsize=8)
        for tick in right.get_yticklabels():
            tick.set_fontweight("bold" if tick.get_text() in (_PUBLISHED, rule) else "normal")
        right.invert_yaxis()
        right.set(xlabel="nodules", xlim=(0, 1.1 * so_far.max()), title="under other rules")
        right.grid(visible=False, axis="y")
    return style.describe(
        figure,
        f"Left: bars of nodules by median malignancy, {rule}. Right: nodules by class for each "
        f"rule. {style.spoken_counts(table)}.",
    )


def _class_of(score: float) -> str:
    if score == UNCERTAIN:
        return "uncertain"
    return "malignant" if score > UNCERTAIN else "benign"
