"""Table 1 as a figure: every row with its interval, and the published values beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.errors import InputError
from labkit.experiments import luna
from labkit.experiments import rows as rows_of
from labkit.plots import style
from labkit.plots.sweeps import footnote, judged

_NAMES = {
    "auc": "AUC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "false_positives_per_scan": "false positives a scan",
    "cpm": "CPM",
}
_AT_THRESHOLD = ("sensitivity", "specificity", "false_positives_per_scan")


def table1_figure(values: Mapping[str, Any]) -> Figure:
    """Metrics of every row, with intervals and published values.

    AUC, sensitivity and specificity; for LUNA-16 also false positives a scan, and CPM.

    Args:
        values: of table1's JSON.
    """
    rows = dict(values["rows"])
    if not rows:
        raise InputError("table1: no run is finished, nothing to draw")
    of_luna = luna.is_luna(values)
    metrics = tuple(m for m in rows_of.metrics(values) if m in _NAMES)
    published = rows_of.published(values)
    others = sorted({what for what, _ in published if what not in rows})
    names = [*rows, *others]
    first = next(iter(rows.values()))["metrics"]
    threshold = f"{first['threshold']:.3g}" if of_luna else "0.5"
    with style.house_style():
        size = (14.4 if of_luna else 10.4, 1.5 + 0.27 * len(names))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(metrics), sharey=True)
        for ax, metric in zip(axes, metrics, strict=True):
            for y, name in enumerate(names):
                of = rows_of.value(rows[name]["metrics"], metric) if name in rows else None
                if of is not None:
                    _whisker(ax, y, of, _colour(name), name)
                if (name, metric) in published:
                    value = published[name, metric]
                    ax.plot(value, y, "D", mfc="white", mec=style.VERMILION, zorder=4)
                    ax.annotate(
                        f"{value:.0f}" if value > 1 else f"{value:.3f}", (value, y), (0, 6),
                        textcoords="offset points", ha="center", fontsize=7, color=style.VERMILION,
                    )  # fmt: skip
            ax.set(xlabel=_NAMES[metric] + (f" at {threshold}" * (metric in _AT_THRESHOLD)))
            ax.grid(visible=False, axis="y")
        axes[0].set_yticks(range(len(names)), [_said(name, rows) for name in names])
        axes[0].set_ylim(len(names) - 0.4, -0.6)
        data = "LUNA-16" if of_luna else "LIDC-IDRI"
        axes[0].plot([], [], "D", mfc="white", mec=style.VERMILION, label=f"as published ({data})")
        figure.legend(loc="outside upper right")
        figure.suptitle(f"{values['title']} ({values['where']})", ha="left", x=0.01)
        style.mark_kind(axes[-1], values["cohort"]["simulated"])
        for tick in axes[0].get_yticklabels():
            bold = "," not in tick.get_text() and "*" not in tick.get_text()
            tick.set_fontweight("bold" if bold else "normal")
        notes = sorted({row["note"] for row in rows.values() if row["note"]})
        under = f"{judged(values, first)}; {values['protocol']}"
        under += "".join(f". * {note}" for note in notes)
        footnote(figure, under)
    return style.describe(figure, _in_words(values, published))


def _in_words(values: Mapping[str, Any], published: Mapping[tuple[str, str], float]) -> str:
    said = []
    for name, row in values["rows"].items():
        told = f"{name}: AUC {_interval(row['metrics']['auc'])}"
        if (cpm := luna.cpm(row["metrics"])) is not None:
            told += f", CPM {_interval(cpm)}"
        said.append(told)
    printed = "; ".join(f"{what} {m} {v:.4f}" for (what, m), v in published.items())
    return f"Rows of Table 1. {'; '.join(said)}. As published: {printed}."


def _whisker(ax: Axes, y: float, of: Mapping[str, float], colour: str, name: str) -> None:
    strong = "," not in name
    ax.plot([of["low"], of["high"]], [y, y], color=colour, lw=1.8 if strong else 1.0)
    ax.plot(of["value"], y, "s" if strong else "o", color=colour, ms=6 if strong else 4)


def _colour(name: str) -> str:
    if name.startswith("size") or name == rows_of.DETECTORS:
        return style.SIZE_ONLY
    return style.ST if name.startswith("ST") else style.MT


def _said(name: str, rows: Mapping[str, Any]) -> str:
    return name + ("*" if name in rows and rows[name]["note"] else "")


def _interval(of: Mapping[str, float]) -> str:
    return f"{of['value']:.3f} ({of['low']:.3f} to {of['high']:.3f})"
