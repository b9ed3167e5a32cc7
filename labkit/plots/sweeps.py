"""Figures 5, 6 and 7: what a setting does, from the values that `labkit.experiments` computed.

Each function takes the values of a JSON file, finished or not, so that a lesson draws committed
results with the same call: `alpha_figure(read_json(paths.results() / "fig7.json", "a result"))`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.errors import InputError
from labkit.experiments import luna
from labkit.experiments.declared import (
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
from labkit.plots import style

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
