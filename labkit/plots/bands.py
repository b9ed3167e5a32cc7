"""Performance by size, several methods beside each other."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from labkit.errors import InputError
from labkit.plots import style
from labkit.plots.roc import method_colours, titles

_WORDS = {"auc": "AUC", "sensitivity": "sensitivity", "specificity": "specificity"}


def size_bands_figure(
    table: pd.DataFrame, metric: str = "auc", *, simulated: bool = False, title: str = ""
) -> Figure:
    """A metric in every band of sizes, with 95 % intervals, a colour a method.

    Args:
        table: what `evaluation.bands.by_size` returns.
        metric: "auc", "sensitivity" or "specificity".
        simulated: say that the images were simulated.
        title: above the axes.

    Returns:
        A row a band with its counts. A hollow marker has no interval: too few nodules of a class.

    Raises:
        InputError: an unknown metric, or an empty table.
    """
    if metric not in _WORDS:
        raise InputError(f"metric must be one of {', '.join(_WORDS)}, not {metric!r}")
    if table.empty:
        raise InputError("there are no bands to draw")
    methods = list(dict.fromkeys(table["method"]))
    names = list(dict.fromkeys(table["band"]))
    colours = method_colours(methods)
    step = 0.56 / max(1, len(methods) - 1) if len(methods) > 1 else 0.0
    words = []
    with style.house_style():
        figure = Figure(figsize=(6.8, 1.2 + 0.75 * len(names)), layout="constrained")
        ax = figure.subplots()
        if metric == "auc":
            ax.axvline(0.5, color=style.GREY, lw=0.9, ls=":")
        for k, method in enumerate(methods):
            colour = style.SIZE_ONLY if method.lower().startswith("size") else colours[method]
            marker = "D" if colour == style.SIZE_ONLY else "o"
            rows = table[table["method"] == method].set_index("band").loc[names]
            place = np.arange(len(names)) + step * (k - (len(methods) - 1) / 2)
            value, low, high = (
                rows[metric + end].to_numpy(dtype=float) for end in ("", "_low", "_high")
            )
            sure = np.isfinite(low)
            ax.hlines(place[sure], low[sure], high[sure], color=colour, lw=1.4)
            ax.plot(value[sure], place[sure], marker, color=colour, label=method)
            ax.plot(value[~sure], place[~sure], marker, color=colour, mfc="none")
            words += [
                f"{method} {band} {v:.3f}" + (f" ({a:.3f} to {b:.3f})" if s else ", no interval")
                for band, v, a, b, s in zip(names, value, low, high, sure, strict=True)
                if np.isfinite(v)
            ]
        counts = table.drop_duplicates("band").set_index("band")[["nodules", "malignant"]]
        labels = [
            f"{band}\n{nodules - malignant} benign, {malignant} malignant"
            for band, (nodules, malignant) in zip(names, counts.to_numpy(dtype=int), strict=True)
        ]
        ax.set_yticks(range(len(names)), labels)
        ax.set_ylim(len(names) - 0.5, -0.5)
        for line in range(1, len(names)):
            ax.axhline(line - 0.5, color=style.GREY, lw=0.4)
        ax.grid(visible=False, axis="y")
        ax.set(xlim=(None, 1.01), xlabel=f"{_WORDS[metric]}, with 95 % interval over patients")
        titles(ax, title, simulated)
        figure.legend(loc="outside upper center", ncols=len(methods))
    return style.describe(figure, f"{_WORDS[metric]} by size: " + "; ".join(words) + ".")
