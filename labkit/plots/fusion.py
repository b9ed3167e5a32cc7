"""Ways to make one probability of nine, and which views matter, from table1's values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from labkit.errors import InputError
from labkit.plots import style
from labkit.plots.sweeps import footnote

_COLOURS = {"ST-CNN": style.ST, "MT-CNN": style.MT}


def fusion_figure(values: Mapping[str, Any]) -> Figure:
    """Other ways to fuse against Eq. 4, what a view's absence changes, AUC by number of views.

    Args:
        values: of table1's JSON.
    """
    fusion = values["fusion"]
    if not fusion:
        raise InputError("table1: no run is finished, nothing to draw")
    first = next(iter(fusion.values()))
    with style.house_style():
        figure = Figure(figsize=(11.6, 4.6), layout="constrained")
        ways, without, count = figure.subplots(1, 3, width_ratios=[1, 1, 1])
        printed = next(iter(first["ways"]))
        _differences(ways, {m: of["comparisons"] for m, of in fusion.items()}, f" less {printed}")
        ways.set(xlabel="AUC less that of Eq. 4's weights", title="other ways to fuse")
        _differences(without, {m: of["without_view"] for m, of in fusion.items()}, "")
        without.set(xlabel="AUC less that of all views", title="without one view")
        for model, of in fusion.items():
            rows = of["by_count"]
            sizes = [row["views"] for row in rows]
            colour = _COLOURS[model]
            count.fill_between(
                sizes, [r["worst"] for r in rows], [r["best"] for r in rows], color=colour,
                alpha=0.15, lw=0,
            )  # fmt: skip
            count.plot(sizes, [r["mean"] for r in rows], "o-", color=colour, label=model)
        count.set_xticks(sizes)
        count.set(
            xlabel="views fused, with equal weights", ylabel="AUC",
            title="mean of all subsets, worst to best",
        )  # fmt: skip
        count.legend(loc="lower right")
        figure.suptitle(
            "simulated CT" if values["cohort"]["simulated"] else "real CT", x=0.99, ha="right",
            fontsize=9, fontweight="normal", color=style.GREY,
        )  # fmt: skip
        footnote(figure, f"{values['protocol']}. Intervals: 95 %, paired over patients.")
    words = [
        f"{model}, {name.replace(f' less {printed}', '')}: {pair['auc_difference']['value']:+.3f}"
        for model, of in fusion.items()
        for part in ("comparisons", "without_view")
        for name, pair in of[part].items()
    ]
    return style.describe(
        figure,
        f"AUC less that of the views' AUC weights, by another way to fuse or without a view. "
        f"{'; '.join(words)}.",
    )


def _differences(ax: Axes, by_model: Mapping[str, Mapping[str, Any]], ending: str) -> None:
    """Paired differences with intervals, a row a name, the models side by side."""
    names = list(next(iter(by_model.values())))
    ax.axvline(0, color=style.BLACK, lw=0.9)
    for k, (model, pairs) in enumerate(by_model.items()):
        for y, name in enumerate(names):
            d = pairs[name]["auc_difference"]
            at = y + 0.24 * (k - (len(by_model) - 1) / 2)
            ax.plot([d["low"], d["high"]], [at, at], color=_COLOURS[model], lw=1.4)
            ax.plot(d["value"], at, "o", color=_COLOURS[model])
    ax.xaxis.set_major_locator(MaxNLocator(4))  # labels of three decimals need room
    ax.set_yticks(range(len(names)), [name.removesuffix(ending) for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
