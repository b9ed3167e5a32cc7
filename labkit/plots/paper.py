"""Figures 5, 6 and 7: what a setting does, from the values that `labkit.paper` computed.

Each function takes the values of a JSON file, finished or not, so that a lesson draws committed
results with the same call: `alpha_figure(read_json(paths.results() / "fig7.json", "a result"))`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from labkit.annotations.lidc import UNCERTAIN
from labkit.errors import InputError
from labkit.evaluation.froc import RATES
from labkit.evaluation.reconstruction import ZONES
from labkit.imaging.views import PLANES
from labkit.paper import table1 as rows_of
from labkit.paper import values as luna
from labkit.paper.declared import (
    ALPHAS,
    DEPTHS,
    DROPOUTS,
    L2,
    L2_SHOWN,
    alpha_label,
    depth_label,
    dropout_label,
    l2_label,
)
from labkit.paper.table1 import DETECTORS
from labkit.plots import style
from labkit.plots.roc import method_colours, view_name

# Fig. 1: nodules by malignancy score, and how the classes move with the rule that makes them.


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


Values = Mapping[str, Any]
RAMP = ("#B5D2EA", style.MT, "#7FB4DB", "#4A90C4", "#1F68A8", "#08306B")
_BASELINES = {"size_only": "size only", "detector": "detector's score"}
PLACES = {"both": style.MT, "share": style.SKY, "img": style.PURPLE}
PLACE_WORDS = {"both": "encoder and decoder", "share": "encoder", "img": "decoder"}
L2_CURVES = {
    "ST-CNN": style.ST,
    l2_label("st", L2_SHOWN, "share"): style.VERMILION,
    "MT-CNN": style.MT,
    l2_label("mt", L2_SHOWN, "both"): style.BLUE,
}
"""The paper's four curves in Fig. 5, by label, with their colours."""
L2_LINES = [("st", "share", style.ST), *(("mt", p, c) for p, c in PLACES.items())]
"""Model, place of l2 and colour of each line over the strengths."""


def alpha_figure(values: Values) -> Figure:
    """Fig. 7: ROC curves by alpha, and AUC against alpha with the search's two results.

    Args:
        values: of fig7's JSON.
    """
    runs = _runs(values)
    with style.house_style():
        figure = Figure(figsize=(9.6, 5.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
        curves = {}
        for alpha, blue in zip((0.0, *ALPHAS), ("", *RAMP), strict=False):
            name = alpha_label(alpha)
            if name in runs:
                curves[name] = (runs[name], style.ST if alpha == 0 else blue)
        _roc(left, curves, values)
        baseline = runs.get(alpha_label(0))
        if baseline is not None:
            level(right, baseline["metrics"]["auc"], style.ST, "ST-CNN (alpha 0)")
        points = {a: runs[alpha_label(a)] for a in ALPHAS if alpha_label(a) in runs}
        _line(right, points, style.MT, "MT-CNN")
        if (found := values.get("search")) is not None:
            for name, key, colour, shift in (
                ("search as printed", "printed", style.VERMILION, 0.12),
                ("search, nested", "nested", style.BLUE, 0.18),
                ("search, bootstrap-corrected", "bootstrap_corrected", style.PURPLE, 0.24),
            ):
                point(right, 1.0 + shift, found[key], colour, "D", name)
        _size_line(right, values)
        right.set(
            xlabel="alpha, weight of the reconstruction's loss",
            ylabel="AUC, with 95 % interval over patients", xlim=(-0.05, 1.3),
        )  # fmt: skip
        right.xaxis.set_major_locator(ticker.FixedLocator([0, *ALPHAS]))
        finish(figure, right, values)
    words = [f"{n}: AUC {said(r['metrics']['auc'])}" for n, r in runs.items()]
    if found is not None:
        words += [
            f"search as printed: alpha {found['best']:g} with {said(found['printed'])}",
            f"nested: {said(found['nested'])}, optimism {said(found['optimism'])}",
        ]
    return style.describe(figure, f"ROC curves, and AUC against alpha. {'; '.join(words)}.")


def depth_figure(values: Values) -> Figure:
    """Fig. 6: AUC of ST-CNN and MT-CNN by depth, and what a depth costs.

    A depth at which most networks never learnt is written below the axis and not drawn: the axis
    would have to reach down to it, and show nothing of the others. Where there are no others, all
    are drawn.

    Args:
        values: of fig6's JSON.
    """
    runs = _runs(values)
    costs = values["costs"]["of"]
    with style.house_style():
        figure = Figure(figsize=(9.6, 5.4), layout="constrained")
        grid = figure.add_gridspec(2, 2, width_ratios=[1.5, 1])
        auc, seconds, memory = (
            figure.add_subplot(place) for place in (grid[:, 0], grid[0, 1], grid[1, 1])
        )
        none = all(_never_learnt(run) for run in runs.values())
        for model, colour, shift in (("st", style.ST, -0.06), ("mt", style.MT, 0.06)):
            name = f"{model.upper()}-CNN"
            there = {
                d: runs[depth_label(model, d)] for d in DEPTHS if depth_label(model, d) in runs
            }
            points = {d + shift: run for d, run in there.items() if none or not _never_learnt(run)}
            _line(auc, points, colour, name)
            for d in set(there) - {round(x) for x in points}:
                _write_below(auc, d, there[d], colour, name)
            of = {d: costs[depth_label(model, d)] for d in DEPTHS}
            for ax, key in ((seconds, "seconds_a_training"), (memory, "memory_mb")):
                known = {d: c[key] for d, c in of.items() if key in c}
                ax.plot(list(known), list(known.values()), "o-", color=colour)
            kept = [c["kept_mb"] for c in of.values()]
            label = "kept for the backward pass" if model == "mt" else None
            memory.plot(list(of), kept, "--", color=colour, lw=1, label=label)
        _size_line(auc, values)
        auc.set(
            xlabel="convolutional layers in ShareNet",
            ylabel="AUC, with 95 % interval over patients", xlim=(0.6, 5.4),
        )  # fmt: skip
        batch = next(iter(costs.values()))["batch_size"]
        seconds.set(ylabel="s a training", title=f"cost of one network, batches of {batch}")
        memory.set(ylabel="MB in training", xlabel="convolutional layers in ShareNet")
        for ax in (auc, seconds, memory):
            ax.xaxis.set_major_locator(ticker.FixedLocator(DEPTHS))
        for ax in (seconds, memory):
            ax.set_ylim(bottom=0)
        memory.legend(loc="upper right")
        finish(figure, auc, values)
    words = [f"{n}: AUC {said(r['metrics']['auc'])}" for n, r in runs.items()]
    words += [
        f"{n}: {c['parameters']:,} parameters, {c['memory_mb']:.1f} MB, "
        f"{1000 * c['seconds_a_step']:.0f} ms a step"
        + (f", {c['seconds_a_training']:.0f} s a training" if "seconds_a_training" in c else "")
        for n, c in costs.items()
    ]
    return style.describe(figure, f"AUC by depth, and cost by depth. {'; '.join(words)}.")


def regularisation_axes() -> tuple[Figure, Axes, Axes, Axes]:
    """Fig. 5's frame: curves, the measure against l2, and beside it by dropout, on one axis."""
    figure = Figure(figsize=(12.4, 5.6), layout="constrained")
    grid = figure.add_gridspec(1, 3, width_ratios=[1.1, 1.1, 1])
    left, middle = (figure.add_subplot(grid[0, i]) for i in (0, 1))
    return figure, left, middle, figure.add_subplot(grid[0, 2], sharey=middle)


def l2_axis(ax: Axes, label: str = "l2") -> None:
    """The axis across of what is drawn over the strengths of l2, by decades."""
    ax.set(xscale="log", xlim=(L2[0] / 2, L2[-1] * 2), xlabel=label)
    ax.xaxis.set_major_locator(ticker.FixedLocator(L2))
    ax.xaxis.set_minor_locator(ticker.NullLocator())


def dropout_axis(ax: Axes, label: str = "dropout 0.5 behind") -> None:
    """The axis across of what is drawn by the place of dropout."""
    ax.set_xticks(range(len(DROPOUTS)), list(DROPOUTS.values()))
    ax.set(xlabel=label, xlim=(-0.5, len(DROPOUTS) - 0.5))


def regularisation_figure(values: Values) -> Figure:
    """Fig. 5: ROC curves with and without l2, AUC against l2 and its place, and dropout.

    Args:
        values: of fig5's JSON.
    """
    runs = _runs(values)
    with style.house_style():
        figure, left, middle, right = regularisation_axes()
        _roc(left, {n: (runs[n], c) for n, c in L2_CURVES.items() if n in runs}, values)
        for k, (model, place, colour) in enumerate(L2_LINES):
            points = {
                l2 * 1.12 ** (k - 1.5): runs[l2_label(model, l2, place)]
                for l2 in L2
                if l2_label(model, l2, place) in runs
            }
            _line(middle, points, colour, f"{model.upper()}-CNN, l2 on {PLACE_WORDS[place]}")
        for name, colour in (("ST-CNN", style.ST), ("MT-CNN", style.MT)):
            if name in runs:
                level(middle, runs[name]["metrics"]["auc"], colour, f"{name}, no l2")
        l2_axis(middle)
        middle.set(ylabel="AUC, with 95 % interval over patients")
        for model, colour, shift in (("st", style.ST, -0.06), ("mt", style.MT, 0.06)):
            there = {
                i + shift: runs[dropout_label(model, place)]
                for i, place in enumerate(DROPOUTS)
                if dropout_label(model, place) in runs
            }
            for x, run in there.items():
                point(right, x, run["metrics"]["auc"], colour, "o", None)
        dropout_axis(right)
        right.set(ylabel="AUC")
        finish(figure, middle, values)
    words = [f"{n}: AUC {said(r['metrics']['auc'])}" for n, r in runs.items()]
    return style.describe(
        figure, f"ROC curves, AUC against l2, AUC by dropout. {'; '.join(words)}."
    )


def _runs(values: Values) -> dict[str, Any]:
    if not values["variants"]:
        raise InputError(f"{values['name']}: no variant is finished, nothing to draw")
    return dict(values["variants"])


def _roc(ax: Axes, curves: Mapping[str, tuple[Any, str]], values: Values) -> None:
    ax.plot([0, 1], [0, 1], color=style.GREY, lw=0.8, ls=":")
    if (found := baseline_of(values)) is not None:
        name, alone = found
        auc = alone["auc"]["value"]
        ax.plot(*_xy(alone["roc"]), color=style.SIZE_ONLY, ls="--", label=f"{name}: {auc:.3f}")
    for name, (run, colour) in curves.items():
        metrics = run["metrics"]
        ax.plot(*_xy(metrics["roc"]), color=colour, label=f"{name}: {metrics['auc']['value']:.3f}")
    ax.set(
        xlabel="false positive rate (1 − specificity)", ylabel="sensitivity",
        xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal",
    )  # fmt: skip
    ax.legend(loc="lower right", title="AUC", title_fontsize=9)


def _xy(roc: Mapping[str, Sequence[float]]) -> tuple[list[float], list[float]]:
    return [0.0, *roc["false_positive_rate"]], [0.0, *roc["sensitivity"]]


def _line(ax: Axes, points: Mapping[float, Any], colour: str, label: str) -> None:
    """Points with intervals, joined, one a setting."""
    if not points:
        return
    aucs = [run["metrics"]["auc"] for run in points.values()]
    ax.plot(list(points), [a["value"] for a in aucs], color=colour, lw=1, alpha=0.6)
    for i, (x, auc) in enumerate(zip(points, aucs, strict=True)):
        point(ax, x, auc, colour, "o", label if i == 0 else None)


def point(
    ax: Axes, x: float, auc: Mapping[str, float], colour: str, marker: str, label: str | None
) -> None:
    """A value with its interval."""
    ax.plot([x, x], [auc["low"], auc["high"]], color=colour, lw=1.4)
    ax.plot(x, auc["value"], marker, color=colour, label=label)


def _never_learnt(run: Mapping[str, Any]) -> bool:
    """Whether most of a variant's networks are where they began."""
    of = run.get("trained", {})
    return bool(2 * of.get("at_chance", 0) > of.get("networks", 0))


def _write_below(ax: Axes, x: float, run: Mapping[str, Any], colour: str, name: str) -> None:
    """What is not drawn, as words at its place; ST-CNN's above MT-CNN's."""
    of, auc = run["trained"], run["metrics"]["auc"]
    text = (
        f"{name} below:\n{auc['value']:.3f}\n({auc['low']:.2f} to {auc['high']:.2f})\n"
        f"{of['at_chance']} of {of['networks']}\nnever learnt"
    )
    height = 0.03 if name.startswith("MT") else 0.27
    ax.text(x, height, text, color=colour, fontsize=7.5, ha="center", va="bottom",
            transform=ax.get_xaxis_transform())  # fmt: skip


def level(ax: Axes, auc: Mapping[str, float], colour: str, label: str) -> None:
    """A reference that has no place on the x axis."""
    ax.axhspan(auc["low"], auc["high"], color=colour, alpha=0.10, lw=0)
    ax.axhline(auc["value"], color=colour, lw=1.2, label=label)


def _size_line(ax: Axes, values: Values) -> None:
    if (found := baseline_of(values)) is not None:
        name, alone = found
        ax.axhline(alone["auc"]["value"], color=style.SIZE_ONLY, lw=1, ls="--", label=name)


def finish(figure: Figure, ax: Axes, values: Values) -> None:
    """Legend, title, what was trained, and what is missing."""
    figure.suptitle(f"{values['title']} ({values['where']})", ha="left", x=0.01)
    style.mark_kind(ax, values["cohort"]["simulated"])
    first = next(iter(values["variants"].values()))["metrics"]
    under = f"{judged(values, first)}; {values['protocol']}"
    if values["missing"]:
        under += f". Not finished: {len(values['missing'])} variants"
    footnote(figure, under)
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "fontsize": 8}
    ax.legend(ncols=2, **below)


def baseline_of(values: Values) -> tuple[str, Mapping[str, Any]] | None:
    """What one number alone is worth, and what it is called; None where it is not known."""
    for key, name in _BASELINES.items():
        if values.get(key) is not None:
            return name, values[key]
    return None


def judged(values: Values, metrics: Mapping[str, Any]) -> str:
    """How many nodules, or candidates, a variant was judged on, in words."""
    if not luna.is_luna(values):
        return f"{metrics['nodules']} nodules of {metrics['patients']} patients"
    of = metrics["screening"]
    return (
        f"{metrics['nodules']} candidates in {of['scans']} scans, {of['positives']} of them on "
        "nodules"
    )


def footnote(figure: Figure, text: str) -> None:
    """Small print below a figure, for which its layout makes room."""
    lines = textwrap.wrap(text, int(14 * figure.get_figwidth()))
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=7, color=style.GREY)


def said(auc: Mapping[str, float]) -> str:
    """A value with its interval, in words."""
    return f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})"


# Fig. 4 in numbers: how good reconstructions are, where they err, and which detail is lost.
#
# Each function takes the values that `labkit.paper.fig4` computed, so that a lesson draws
# committed results with the same call. Pictures of nodules are drawn by
# `plots.training.reconstruction_figure`, which needs the networks.


_SPARE = (style.SKY, style.PURPLE, style.ORANGE, style.VERMILION, style.BLUE)
_reconstructions_COLOURS = {
    "mean of the training images": style.GREY,
    "Gaussian blur": style.ORANGE,
    "principal components": style.PURPLE,
}
_WAVELENGTHS_MM = (64, 32, 16, 8, 4, 2)


def fidelity_figure(values: Values) -> Figure:
    """PSNR and SSIM against alpha, beside plain ways to redraw, and of each view.

    Args:
        values: of fig4's JSON.
    """
    alphas, shown = _alphas(values), values["shown"]
    with style.house_style():
        figure = Figure(figsize=(9.6, 6.6), layout="constrained")
        axes = figure.subplots(2, 2, width_ratios=[1.25, 1])
        for row, (key, name) in enumerate((("psnr", "PSNR, dB"), ("ssim", "SSIM"))):
            left, right = axes[row]
            for way, of in values["baselines"].items():
                if key == "psnr" and of["settings"]:
                    continue  # made to have the shown alpha's
                level = of["metrics"][key]
                left.axhspan(
                    level["low"],
                    level["high"],
                    color=_reconstructions_COLOURS[way],
                    alpha=0.15,
                    lw=0,
                )
                left.axhline(
                    level["value"], color=_reconstructions_COLOURS[way], lw=1.2, ls="--", label=way
                )
            for k, of in enumerate(alphas.values()):
                label = None if k else "MT-CNN"
                _point(left, of["alpha"], of["metrics"][key], style.MT, label)
            left.set(ylabel=name, xlim=(0.1, 1.1))
            left.xaxis.set_major_locator(ticker.FixedLocator(ALPHAS))
            views = alphas[shown]["views"]
            for y, of in enumerate(views.values()):
                right.plot([of[key]["low"], of[key]["high"]], [y, y], color=style.MT, lw=1.4)
                right.plot(of[key]["value"], y, "o", color=style.MT)
            right.set_yticks(range(len(views)), [view_name(v) for v in views])
            right.invert_yaxis()
            right.set_xlabel(f"{name}, {shown}")
        axes[1, 0].set_xlabel("alpha, weight of the reconstruction's loss")
        axes[1, 0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, fontsize=8)
        _title(figure, values, axes[0, 1])
        footnote(figure, f"{_under(values)}. {_made_alike(values)}")
    words = [
        f"{n}: {_reconstructions_said(of['metrics']['psnr'], 1)} dB, SSIM "
        f"{_reconstructions_said(of['metrics']['ssim'])}"
        for n, of in {**alphas, **values["baselines"]}.items()
    ]
    return style.describe(figure, f"PSNR and SSIM by alpha and by view. {'; '.join(words)}.")


def losses_figure(values: Values) -> Figure:
    """What is lost: error against distance from the outline, and detail that comes back right.

    Args:
        values: of fig4's JSON.
    """
    shown = values["shown"]
    ways = {f"MT-CNN, {shown}": _alphas(values)[shown], **values["baselines"]}
    with style.house_style():
        figure = Figure(figsize=(9.6, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        draw_ways(left, right, ways)
        _title(figure, values, right)
        footnote(figure, f"{_under(values)}. {_made_alike(values)}")
    return style.describe(figure, f"{_where_and_which(ways)}")


def ways_figure(ways: Mapping[str, Values], *, simulated: bool = False, title: str = "") -> Figure:
    """`losses_figure` of any ways to redraw, as `experiments.redrawn.measure` measured them.

    Args:
        ways: name -> `Measures.measured`.
        simulated: say that the images were simulated.
        title: above the figure.
    """
    if not ways:
        raise InputError("there is no way to redraw to draw")
    with style.house_style():
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        draw_ways(left, right, ways)
        if title:
            figure.suptitle(title, ha="left", x=0.01)
        if simulated:
            _mark(right)
    return style.describe(figure, _where_and_which(ways))


def beside_figure(
    ways: Mapping[str, ArrayLike], nodules: Sequence[str], *, simulated: bool = False
) -> Figure:
    """The same nodules by several ways to redraw: a row a nodule, a column a way.

    Args:
        ways: name -> (n, 64, 64) in [0, 1], such as {"input": ..., "MT-CNN": ...}.
        nodules: n descriptions, such as "malignant nodule, 18 mm".
        simulated: say that the images were simulated.

    Raises:
        InputError: no ways, or images that are not one a nodule.
    """
    images = {name: np.asarray(of, dtype=float) for name, of in ways.items()}
    if not images or any(of.ndim != 3 or len(of) != len(nodules) for of in images.values()):
        raise InputError(f"every way needs an image for each of the {len(nodules)} nodules")
    with style.house_style():
        figure = Figure(figsize=(1.6 * len(images), 1.7 * len(nodules)), layout="constrained")
        axes = figure.subplots(len(nodules), len(images), squeeze=False)
        for column, (name, of) in enumerate(images.items()):
            for row, image in enumerate(of):
                style.show_ct(axes[row, column], image, low=0.0, high=1.0)
                if simulated:
                    style.mark_simulated(axes[row, column])
            axes[0, column].set_title(name, fontsize=9, loc="center")
        for row, words in enumerate(nodules):
            axes[row, 0].set_ylabel(words.replace(", ", "\n"), fontsize=8)
    return style.describe(figure, f"{'; '.join(nodules)}, side by side as {', '.join(images)}.")


def draw_ways(left: Axes, right: Axes, ways: Mapping[str, Values]) -> None:
    """Error by distance from the outline on the left, share of power that is right on the right."""
    for (name, of), colour in zip(ways.items(), _colours(list(ways)), strict=True):
        edges = of["profile"]["edges_mm"]
        middles = [(a + b) / 2 for a, b in pairwise(edges)]
        _band(left, middles, of["profile"]["error_hu"], colour, name)
        f = of["spectrum"]["frequency_per_mm"]
        _band(right, f, of["spectrum"]["right"], colour, name)
    left.axvline(0, color=style.GREY, lw=0.8, ls=":")
    left.set(xlabel="distance from the outline, mm (inside is negative)",
             ylabel="mean absolute error, HU", ylim=(0, None))  # fmt: skip
    left.set_title("where", fontsize=10)
    left.legend(loc="best", fontsize=8)
    right.axhline(0, color=style.GREY, lw=0.8, ls=":")
    right.set_xscale("log")
    right.xaxis.set_major_locator(ticker.FixedLocator([1 / w for w in _WAVELENGTHS_MM]))
    right.xaxis.set_major_formatter(ticker.FixedFormatter([f"{w}" for w in _WAVELENGTHS_MM]))
    right.xaxis.set_minor_locator(ticker.NullLocator())
    right.set(xlabel="wavelength, mm (fine detail to the right)",
              ylabel="share of power that comes back right", ylim=(-0.35, 1.03))  # fmt: skip
    right.set_title("which detail", fontsize=10)


def error_map_figure(values: Values) -> Figure:
    """Mean absolute error of every pixel over the test nodules, by view.

    Args:
        values: of fig4's JSON.
    """
    shown = values["shown"]
    of = values["map"]
    if not of:
        raise InputError(f"{values['name']}: {shown} is not finished, there is no map to draw")
    maps = {v: np.array([row.split() for row in m], float) for v, m in of["error_hu"].items()}
    top = max(float(np.percentile(m, 99.5)) for m in maps.values())
    columns = min(3, len(maps))
    rows = -(-len(maps) // columns)
    half_mm = 0.5 * next(iter(maps.values())).shape[0] * of["pixel_mm"]
    radius = values["judged"]["median_diameter_mm"] / 2
    with style.house_style():
        figure = Figure(figsize=(2.3 * columns + 0.9, 2.35 * rows + 0.9), layout="constrained")
        axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
        for ax, (view, image) in zip(axes, maps.items(), strict=False):
            drawn = ax.imshow(image, cmap="magma", vmin=0, vmax=top,
                              extent=(-half_mm, half_mm, half_mm, -half_mm))  # fmt: skip
            ax.add_patch(Circle((0, 0), radius, fill=False, ec="white", lw=1))
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
            ax.grid(visible=False)
            ax.set_title(f"{view}  {view_name(view)}", fontsize=9, fontweight="normal")
        for ax in axes[len(maps) :]:
            ax.remove()
        figure.colorbar(drawn, ax=list(axes[: len(maps)]), shrink=0.7, label="HU")
        _title(figure, values, axes[columns - 1], f"Mean absolute error, {shown}")
        footnote(figure, f"{_under(values)}. Circle: the median nodule, {2 * radius:.1f} mm.")
    words = [
        f"{PLANES[int(v)].name.replace('_', ' ')}: {m.mean():.0f} HU on average, "
        f"{_centre(m, radius / of['pixel_mm']).mean():.0f} HU within the median nodule's circle"
        for v, m in maps.items()
    ]
    return style.describe(figure, f"Maps of mean absolute error by view. {'; '.join(words)}.")


def _centre(image: NDArray, radius_px: float) -> NDArray:
    axis = np.arange(image.shape[0]) - (image.shape[0] - 1) / 2
    return image[np.hypot(axis[:, None], axis) < max(radius_px, 1.0)]


def _alphas(values: Values) -> dict[str, Any]:
    if not values["variants"]:
        raise InputError(f"{values['name']}: no variant is finished, nothing to draw")
    return dict(values["variants"])


def _colours(names: Sequence[str]) -> list[str]:
    """Colours of ways to redraw: MT-CNN's own, the plain ways', and others dealt out."""
    spare = iter(_SPARE)
    chosen: list[str] = []
    for name in names:
        known = _reconstructions_COLOURS.get(name) or next(
            (c for key, c in style.METHODS.items() if name.lower().startswith(key)), None
        )
        while known is None or known in chosen:
            known = next(spare, style.BLACK)
            if known == style.BLACK:
                break
        chosen.append(known)
    return chosen


def _point(
    ax: Axes, x: float, of: Mapping[str, float], colour: str, label: str | None = None
) -> None:
    ax.plot([x, x], [of["low"], of["high"]], color=colour, lw=1.4)
    ax.plot(x, of["value"], "o", color=colour, label=label)


def _band(
    ax: Axes, x: Sequence[float], of: Mapping[str, Sequence[float | None]], colour: str, name: str
) -> None:
    value, low, high = (
        np.array([np.nan if v is None else v for v in of[part]])
        for part in ("value", "low", "high")
    )
    ax.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
    ax.plot(x, value, color=colour, label=name, lw=1.6)


def _title(figure: Figure, values: Values, ax: Axes, text: str = "") -> None:
    figure.suptitle(text or f"{values['title']} ({values['where']})", ha="left", x=0.01)
    if values["cohort"]["simulated"]:
        _mark(ax)


def _mark(ax: Axes) -> None:
    ax.set_title("simulated CT", loc="right", fontweight="normal", color=style.GREY, fontsize=9)


def _under(values: Values) -> str:
    judged = values["judged"]
    text = (
        f"{judged['nodules']} nodules of {judged['patients']} patients, {judged['on']}; 95 % "
        "intervals over patients"
    )
    if values["missing"]:
        text += f". Not finished: {', '.join(values['missing'])}"
    return text


def _made_alike(values: Values) -> str:
    """What the plain ways needed for the shown alpha's PSNR, and where that was out of reach."""
    words = []
    for way, of in values["baselines"].items():
        for key, unit in (("sigma_mm", "sigma {:.1f} to {:.1f} mm"), ("components", "{} to {}")):
            found = [s[key] for s in of["settings"].values() if key in s]
            if found:
                short = sum(not s["reached"] for s in of["settings"].values())
                text = f"{way}: {unit.format(min(found), max(found))}"
                words.append(text + (f" (PSNR not reached in {short} views)" if short else ""))
    return f"At the network's PSNR in each view: {'; '.join(words)}." if words else ""


def _where_and_which(ways: Mapping[str, Values]) -> str:
    words = []
    for name, of in ways.items():
        zones = ", ".join(
            f"{zone} {of['by_zone'][zone]['value']:.0f}" for zone in ZONES if of["by_zone"][zone]
        )
        finest = of["finest_mm"]
        detail = "never" if finest is None else f"down to {finest['value']:.1f} mm"
        words.append(f"{name}: error in HU {zones}; half of the power is right {detail}")
    return (
        "Error against distance from the outline, and share of power that comes back right "
        f"against wavelength. {'. '.join(words)}."
    )


def _reconstructions_said(of: Mapping[str, float], digits: int = 3) -> str:
    return f"{of['value']:.{digits}f} ({of['low']:.{digits}f} to {of['high']:.{digits}f})"


# Ways to make one probability of nine, and which views matter, from table1's values.


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


# Table 1 as a figure: every row with its interval, and the published values beside ours.


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


# FROC curves of Table 1's rows, from committed values and with their intervals.


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


# Figures 5, 6 and 7 of LUNA-16's candidates as the challenge judges them: FROC curves and CPM.
#
# They stand beside `labkit.plots.paper`, which draws ROC curves and AUC of the same values.


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
        _froc_sweeps_line(right, points, metrics, style.MT, "MT-CNN")
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
            _froc_sweeps_line(right, points, metrics, colour, f"{model.upper()}-CNN")
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
            _froc_sweeps_line(middle, points, metrics, colour, name)
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
        ax.plot(*_froc_sweeps_xy(of["curve"]), color=style.SIZE_ONLY, ls="--", lw=1.2, label=label)
    for name, (metrics, colour) in curves.items():
        of = metrics["froc"]
        ax.plot(
            *_froc_sweeps_xy(of["curve"]), color=colour, lw=1.8, label=f"{name}: {of['cpm']:.3f}"
        )
        ax.plot(*_froc_sweeps_xy(of), "o", color=colour, ms=3)
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


def _froc_sweeps_xy(of: Mapping[str, Sequence[float]]) -> tuple[Sequence[float], Sequence[float]]:
    return of["rates"], of["sensitivity"]


def _froc_sweeps_line(
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
