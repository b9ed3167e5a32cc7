"""Table 1 as a figure: every row with its interval, and the published values beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.errors import InputError
from labkit.plots import style
from labkit.plots.sweeps import footnote

METRICS = ("auc", "sensitivity", "specificity")
_NAMES = {"auc": "AUC", "sensitivity": "sensitivity", "specificity": "specificity"}


def table1_figure(values: Mapping[str, Any]) -> Figure:
    """AUC, sensitivity and specificity of every row, with intervals and published values.

    Args:
        values: of table1's JSON.
    """
    rows = dict(values["rows"])
    if not rows:
        raise InputError("table1: no run is finished, nothing to draw")
    published = {
        (p["what"].removesuffix(", LIDC-IDRI"), p["metric"]): p["value"]
        for p in values["published"]
        if p["what"].endswith("LIDC-IDRI")
    }
    others = sorted({what for what, _ in published if what not in rows})
    names = [*rows, *others]
    with style.house_style():
        figure = Figure(figsize=(10.4, 1.5 + 0.27 * len(names)), layout="constrained")
        axes = figure.subplots(1, 3, sharey=True)
        for ax, metric in zip(axes, METRICS, strict=True):
            for y, name in enumerate(names):
                if name in rows:
                    _whisker(ax, y, rows[name]["metrics"][metric], _colour(name), name)
                if (name, metric) in published:
                    value = published[name, metric]
                    ax.plot(value, y, "D", mfc="white", mec=style.VERMILION, zorder=4)
                    ax.annotate(
                        f"{value:.3f}", (value, y), (0, 6), textcoords="offset points",
                        ha="center", fontsize=7, color=style.VERMILION,
                    )  # fmt: skip
            ax.set(xlabel=_NAMES[metric] + ("" if metric == "auc" else " at 0.5"))
            ax.grid(visible=False, axis="y")
        axes[0].set_yticks(range(len(names)), [_said(name, rows) for name in names])
        axes[0].set_ylim(len(names) - 0.4, -0.6)
        axes[0].plot(
            [], [], "D", mfc="white", mec=style.VERMILION, label="as published (LIDC-IDRI)"
        )
        figure.legend(loc="outside upper right")
        figure.suptitle(f"{values['title']} ({values['where']})", ha="left", x=0.01)
        if values["cohort"]["simulated"]:
            axes[2].set_title(
                "simulated CT", loc="right", fontweight="normal", color=style.GREY, fontsize=9
            )
        for tick in axes[0].get_yticklabels():
            bold = "," not in tick.get_text() and "*" not in tick.get_text()
            tick.set_fontweight("bold" if bold else "normal")
        first = next(iter(rows.values()))["metrics"]
        notes = sorted({row["note"] for row in rows.values() if row["note"]})
        under = f"{first['nodules']} nodules of {first['patients']} patients; {values['protocol']}"
        under += "".join(f". * {note}" for note in notes)
        footnote(figure, under)
    words = "; ".join(
        f"{name}: AUC {_interval(row['metrics']['auc'])}" for name, row in rows.items()
    )
    told = "; ".join(f"{what} {m} {v:.4f}" for (what, m), v in published.items())
    return style.describe(figure, f"Rows of Table 1. {words}. As published: {told}.")


def _whisker(ax: Axes, y: float, of: Mapping[str, float], colour: str, name: str) -> None:
    strong = "," not in name
    ax.plot([of["low"], of["high"]], [y, y], color=colour, lw=1.8 if strong else 1.0)
    ax.plot(of["value"], y, "s" if strong else "o", color=colour, ms=6 if strong else 4)


def _colour(name: str) -> str:
    if name.startswith("size"):
        return style.SIZE_ONLY
    return style.ST if name.startswith("ST") else style.MT


def _said(name: str, rows: Mapping[str, Any]) -> str:
    return name + ("*" if name in rows and rows[name]["note"] else "")


def _interval(of: Mapping[str, float]) -> str:
    return f"{of['value']:.3f} ({of['low']:.3f} to {of['high']:.3f})"
