"""Figures 5, 6 and 7 of LUNA-16's candidates as the challenge judges them: FROC curves and CPM.

They stand beside `labkit.plots.sweeps`, which draws ROC curves and AUC of the same values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.errors import InputError
from labkit.evaluation.froc import RATES
from labkit.experiments import luna
from labkit.experiments.declared import (
    ALPHAS,
    DEPTHS,
    DROPOUTS,
    L2,
    alpha_label,
    depth_label,
    dropout_label,
    l2_label,
)
from labkit.plots import style
from labkit.plots.sweeps import (
    L2_CURVES,
    L2_LINES,
    PLACE_WORDS,
    RAMP,
    baseline_of,
    dropout_axis,
    finish,
    l2_axis,
    level,
    point,
    regularisation_axes,
    said,
)

Values = Mapping[str, Any]
Curves = Mapping[str, tuple[Mapping[str, Any], str]]
"""Name -> (metrics, colour)."""
CPM = "CPM, with 95 % interval over scans"
_REDS = ("#F6D9A8", "#EFB74A", style.ST, "#B87A00", "#6B4700")
_GREENS = ("#B3E0D1", "#5CBFA0", style.MT, "#007A59", "#004030")


def alpha_froc(values: Values) -> Figure:
    """Fig. 7 by FROC: curves by alpha, and CPM against alpha.

    Args:
        values: of fig7's JSON, of LUNA-16's candidates.

    Raises:
        InputError: no variant was judged by FROC.
    """
    metrics = _metrics(values)
    with style.house_style():
        figure = Figure(figsize=(9.6, 5.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
        colours = {
            alpha_label(a): c for a, c in zip((0.0, *ALPHAS), (style.ST, *RAMP), strict=True)
        }
        _curves(left, {n: (metrics[n], c) for n, c in colours.items() if n in metrics}, values)
        _level_of(right, metrics, alpha_label(0), style.ST, "ST-CNN (alpha 0)")
        points = {a: alpha_label(a) for a in ALPHAS}
        _line(right, points, metrics, style.MT, "MT-CNN")
        _baseline_line(right, values)
        right.set(xlabel="alpha, weight of the reconstruction's loss", ylabel=CPM)
        right.set_xlim(-0.05, 1.08)
        right.xaxis.set_major_locator(ticker.FixedLocator([0, *ALPHAS]))
        finish(figure, right, values)
    return _described(figure, "FROC curves by alpha, and CPM against alpha", metrics, values)


def depth_froc(values: Values) -> Figure:
    """Fig. 6 by FROC: curves of each depth of ST-CNN and of MT-CNN, and CPM by depth.

    Args:
        values: of fig6's JSON, of LUNA-16's candidates.

    Raises:
        InputError: no variant was judged by FROC.
    """
    metrics = _metrics(values)
    with style.house_style():
        figure = Figure(figsize=(12.4, 5.4), layout="constrained")
        st, mt, right = figure.subplots(1, 3)
        for ax, model, ramp in ((st, "st", _REDS), (mt, "mt", _GREENS)):
            named = {depth_label(model, d): c for d, c in zip(DEPTHS, ramp, strict=True)}
            _curves(ax, {n: (metrics[n], c) for n, c in named.items() if n in metrics}, values)
        for model, colour, shift in (("st", style.ST, -0.06), ("mt", style.MT, 0.06)):
            points = {d + shift: depth_label(model, d) for d in DEPTHS}
            _line(right, points, metrics, colour, f"{model.upper()}-CNN")
        _baseline_line(right, values)
        right.set(xlabel="convolutional layers in ShareNet", ylabel=CPM, xlim=(0.6, 5.4))
        right.xaxis.set_major_locator(ticker.FixedLocator(DEPTHS))
        finish(figure, right, values)
    return _described(figure, "FROC curves by depth, and CPM by depth", metrics, values)


def regularisation_froc(values: Values) -> Figure:
    """Fig. 5 by FROC: curves with and without l2, CPM against l2 and its place, and by dropout.

    Args:
        values: of fig5's JSON, of LUNA-16's candidates.

    Raises:
        InputError: no variant was judged by FROC.
    """
    metrics = _metrics(values)
    with style.house_style():
        figure, left, middle, right = regularisation_axes()
        _curves(left, {n: (metrics[n], c) for n, c in L2_CURVES.items() if n in metrics}, values)
        for k, (model, place, colour) in enumerate(L2_LINES):
            points = {l2 * 1.12 ** (k - 1.5): l2_label(model, l2, place) for l2 in L2}
            name = f"{model.upper()}-CNN, l2 on {PLACE_WORDS[place]}"
            _line(middle, points, metrics, colour, name)
        for name, colour in (("ST-CNN", style.ST), ("MT-CNN", style.MT)):
            _level_of(middle, metrics, name, colour, f"{name}, no l2")
        l2_axis(middle)
        middle.set(ylabel=CPM)
        for model, colour, shift in (("st", style.ST, -0.06), ("mt", style.MT, 0.06)):
            places = {i + shift: dropout_label(model, p) for i, p in enumerate(DROPOUTS)}
            _points(right, places, metrics, colour)
        dropout_axis(right)
        right.set(ylabel="CPM")
        finish(figure, middle, values)
    return _described(figure, "FROC curves, CPM against l2, CPM by dropout", metrics, values)


def _metrics(values: Values) -> dict[str, Mapping[str, Any]]:
    """Label -> metrics of the variants that were judged by FROC."""
    found = {n: v["metrics"] for n, v in values["variants"].items() if luna.judged(v["metrics"])}
    if not found:
        raise InputError(
            f"{values['name']}: no variant was judged by FROC; only LUNA-16's candidates are"
        )
    return found


def _curves(ax: Axes, curves: Curves, values: Values) -> None:
    """FROC curves on the challenge's axis, dots at its seven rates."""
    beside = baseline_of(values)
    if beside is not None and (of := luna.judged(beside[1])) is not None:
        label = f"{beside[0]}: {of['cpm']:.3f}"
        ax.plot(*_xy(of["curve"]), color=style.SIZE_ONLY, ls="--", lw=1.2, label=label)
    for name, (metrics, colour) in curves.items():
        of = metrics["froc"]
        ax.plot(*_xy(of["curve"]), color=colour, lw=1.8, label=f"{name}: {of['cpm']:.3f}")
        ax.plot(*_xy(of), "o", color=colour, ms=3)
    ax.set_xscale("log", base=2)
    ax.set_xticks(RATES, [str(Fraction(rate)) for rate in RATES])
    ax.minorticks_off()
    ax.set(
        xlabel="false positives a scan", ylabel="sensitivity",
        xlim=(RATES[0] * 0.92, RATES[-1] * 1.08), ylim=(-0.01, 1.02),
    )  # fmt: skip
    # Good curves leave room below, poor ones above; where neither is free, the words stay legible.
    ax.legend(
        loc="best", title="CPM", title_fontsize=9, frameon=True, framealpha=0.8, edgecolor="none"
    )


def _xy(of: Mapping[str, Sequence[float]]) -> tuple[Sequence[float], Sequence[float]]:
    return of["rates"], of["sensitivity"]


def _line(
    ax: Axes,
    points: Mapping[float, str],
    metrics: Mapping[str, Mapping[str, Any]],
    colour: str,
    label: str,
) -> None:
    """CPM of the variants at their places, joined."""
    there = _points(ax, points, metrics, colour, label)
    ax.plot(list(there), list(there.values()), color=colour, lw=1, alpha=0.6)


def _points(
    ax: Axes,
    points: Mapping[float, str],
    metrics: Mapping[str, Mapping[str, Any]],
    colour: str,
    label: str | None = None,
) -> dict[float, float]:
    """Place -> CPM of what was drawn there, each with its interval."""
    found: dict[float, float] = {}
    for x, name in points.items():
        of = luna.cpm(metrics.get(name, {}))
        if of is not None:
            point(ax, x, of, colour, "o", None if found else label)
            found[x] = of["value"]
    return found


def _level_of(
    ax: Axes, metrics: Mapping[str, Mapping[str, Any]], name: str, colour: str, label: str
) -> None:
    if (of := luna.cpm(metrics.get(name, {}))) is not None:
        level(ax, of, colour, label)


def _baseline_line(ax: Axes, values: Values) -> None:
    if (beside := baseline_of(values)) is None:
        return
    name, metrics = beside
    if (of := luna.cpm(metrics)) is not None:
        ax.axhline(of["value"], color=style.SIZE_ONLY, lw=1, ls="--", label=name)


def _described(
    figure: Figure, what: str, metrics: Mapping[str, Mapping[str, Any]], values: Values
) -> Figure:
    beside = baseline_of(values)
    named = {**metrics, **({} if beside is None else dict([beside]))}
    found = {name: luna.cpm(of) for name, of in named.items()}
    words = [f"{name}: CPM {said(of)}" for name, of in found.items() if of is not None]
    return style.describe(figure, f"{what}. {'; '.join(words)}.")
