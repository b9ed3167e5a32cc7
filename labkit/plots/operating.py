"""Operating points where they were chosen, and what becomes of them on other scans."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from labkit.errors import InputError
from labkit.plots import style
from labkit.plots.roc import titles


def transferred_figure(splits: pd.DataFrame, wanted: float, *, simulated: bool = False) -> Figure:
    """What thresholds gave where they were chosen, and on the other half of the scans.

    Args:
        splits: of `evaluation.operating.transferred`.
        wanted: the sensitivity that they were chosen for.
        simulated: say that the images were simulated.

    Raises:
        InputError: no split.
    """
    if not len(splits):
        raise InputError("there is no split of the scans to draw")
    looks = {
        "chosen": ("where it was chosen", style.GREY, "white"),
        "elsewhere": ("on the other scans", style.MT, style.MT),
    }
    words = []
    with style.house_style():
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        ax = figure.subplots()
        for end, (name, colour, face) in looks.items():
            x, y = splits[f"false_positives_{end}"], splits[f"sensitivity_{end}"]
            ax.plot(
                x, y, "o", ms=4, color=colour, mfc=face, alpha=0.55, mew=0.8, ls="",
                label=f"{name}: mean {y.mean():.3f} at {x.mean():.2f} a scan",
            )  # fmt: skip
            words.append(f"{name}, {y.mean():.3f} from {y.min():.3f} to {y.max():.3f}")
        ax.axhline(wanted, color=style.VERMILION, lw=1.2, ls="--", label=f"wanted: {wanted:.3f}")
        ax.set(xlabel="false positives a scan", ylabel="sensitivity", ylim=(-0.02, 1.02))
        ax.set_xlim(left=0)
        titles(ax, f"{len(splits)} thresholds", simulated)
        ax.legend(loc="lower right")
    return style.describe(
        figure,
        f"Sensitivity against false positives a scan of {len(splits)} thresholds, chosen for "
        f"{wanted:.3f}: {'; '.join(words)}.",
    )
