"""FROC curves of Table 1's rows, from committed values and with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from matplotlib.figure import Figure

from labkit.errors import InputError
from labkit.evaluation.froc import RATES
from labkit.experiments import luna
from labkit.experiments.rows import DETECTORS
from labkit.plots import style
from labkit.plots.roc import method_colours
from labkit.plots.sweeps import said

ROWS = ("ST-CNN", "MT-CNN", DETECTORS)


def rows_froc_figure(values: Mapping[str, Any], rows: Sequence[str] = ROWS) -> Figure:
    """FROC curves of some of Table 1's rows; intervals over scans at the seven rates, as bands.

    Args:
        values: of table1's JSON, of LUNA-16's candidates.
        rows: names; those that are not there, or not judged by FROC, are left out.

    Raises:
        InputError: none of them is left.
    """
    found = {
        name: of
        for name in rows
        if name in values["rows"]
        and (of := luna.judged(values["rows"][name]["metrics"])) is not None
    }
    if not found:
        raise InputError(f"table1: none of {', '.join(rows)} was judged by FROC")
    colours = method_colours(list(found))
    words = []
    with style.house_style():
        figure = Figure(figsize=(6.4, 4.8), layout="constrained")
        ax = figure.subplots()
        for name, of in found.items():
            colour, cpm = colours[name], luna.cpm(values["rows"][name]["metrics"])
            words.append(f"{name}: {said(cpm)}" if cpm is not None else name)
            dashed = "--" if name == DETECTORS else "-"
            curve = of["curve"]
            ax.plot(curve["rates"], curve["sensitivity"], dashed, color=colour, label=words[-1])
            ax.plot(of["rates"], of["sensitivity"], "o", color=colour, ms=4.5)
            if "low" in of:
                ax.fill_between(of["rates"], of["low"], of["high"], color=colour, alpha=0.13, lw=0)
        ax.set_xscale("log", base=2)
        ax.set_xticks(RATES, [str(Fraction(rate)) for rate in RATES])
        ax.minorticks_off()
        ax.set(xlabel="false positives a scan", ylabel="sensitivity")
        ax.set(xlim=(RATES[0] * 0.95, RATES[-1] * 1.05), ylim=(0, 1.02))
        first = next(iter(found.values()))
        ax.set_title(f"{first['scans']} scans, {first['nodules']} nodules")
        if values["cohort"]["simulated"]:
            ax.set_title(
                "simulated CT", loc="right", fontweight="normal", color=style.GREY, fontsize=9
            )
        ax.legend(loc="best", title="CPM (95 % interval over scans)", title_fontsize=9)
    return style.describe(figure, f"FROC curves with CPM: {'; '.join(words)}.")
