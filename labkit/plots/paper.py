"""The paper's figures, and Table 1 as a figure, from the values that `labkit.paper` computed.

Each function takes the values of a JSON file, finished or not, so that a lesson draws committed
results with the same call: `alpha_figure(read_json(paths.results() / "fig7.json", "a result"))`.
Fig. 5, 6 and 7 exist twice: by AUC with ROC curves, and, for LUNA-16's candidates as the challenge
judges them, by CPM with FROC curves.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator

from labkit.errors import InputError
from labkit.evaluation.reconstruction import ZONES
from labkit.evaluation.statistics import Interval
from labkit.imaging.planes import PLANES
from labkit.paper import declared, table1, values
from labkit.paper.declared import ALPHAS, DEPTHS, alpha_label, depth_label, dropout_label, l2_label
from labkit.plots import style
from labkit.plots.froc import froc_axes
from labkit.plots.roc import roc_axes
from labkit.plots.style import NETWORKS, Arrays, Drawn, Look, Values, view_name

By = Literal["AUC", "CPM"]
_OVER = {
    "AUC": "AUC within folds, with 95 % interval over patients",
    "CPM": "CPM, with 95 % interval over scans",
}
_BASELINES = {"size_only": "size only", "detector": "detector's score"}
_BLUES = (style.ST, "#B5D2EA", style.MT, "#7FB4DB", "#4A90C4", "#1F68A8", "#08306B")
_ALPHAS = dict(zip(map(alpha_label, (0.0, *ALPHAS)), _BLUES, strict=True))
_DEPTHS = {
    "st": ("#F6D9A8", "#EFB74A", style.ST, "#B87A00", "#6B4700"),
    "mt": ("#B3E0D1", "#5CBFA0", style.MT, "#007A59", "#004030"),
}
_SEARCHES = (
    (1.12, style.VERMILION, "printed", "search as printed"),
    (1.18, style.BLUE, "nested", "search, nested"),
    (1.24, style.PURPLE, "bootstrap_corrected", "search, bootstrap-corrected"),
)
"""Place, colour, key and name of what each way to choose alpha promises."""
_L2_CURVES = {
    "ST-CNN": style.ST, l2_label("st", declared.L2_SHOWN, "share"): style.VERMILION,
    "MT-CNN": style.MT, l2_label("mt", declared.L2_SHOWN, "both"): style.BLUE,
}  # fmt: skip
"""The paper's four curves in Fig. 5."""
_L2_LINES = (
    ("st", "share", style.ST, "encoder"), ("mt", "both", style.MT, "encoder and decoder"),
    ("mt", "share", style.SKY, "encoder"), ("mt", "img", style.PURPLE, "decoder"),
)  # fmt: skip
"""Model, place of l2, colour and words of each line over the strengths."""


# Fig. 1


@style.figure
def scores_by_rule(found: Values) -> Drawn:
    """Draw nodules by score under the printed rule, and the three classes under every rule."""
    published = {p["what"]: p["value"] for p in found["published"]}
    rules = pd.DataFrame({"as published": published, **found["rules"]}).T
    table = rules[list(style.CLASS_COLUMNS)].astype(int)
    rule, printed = next(iter(found["rules"].items()))
    figure, (left, right) = style.subplots(1, 2, (10.4, 4.6), width_ratios=[1, 1.35])
    style.score_bars(left, dict(printed["by_score"]))
    left.set(xlabel="malignancy, median over the readers", title=rule)
    style.class_bars(right, table)
    for bars in right.containers:
        bars[0].set_alpha(0.6)
    for tick in right.get_yticklabels()[:2]:
        tick.set_fontweight("bold")
    right.set(xlabel="nodules", title="under other rules")
    return figure, table


# Fig. 5, 6 and 7: what a setting does


@style.figure
def alpha_figure(found: Values, by: By = "AUC") -> Drawn:
    """Draw Fig. 7: curves by alpha, and AUC (or CPM) against alpha with the search's results."""
    of = _judged_variants(found, by)
    figure, (left, right) = style.subplots(1, 2, (9.6, 5.4), width_ratios=[1, 1.15])
    _curves(left, _ALPHAS, found, by)
    if alpha_label(0) in of:
        style.level(right, of[alpha_label(0)], style.ST, "ST-CNN (alpha 0)")
    style.series(right, _there({a: alpha_label(a) for a in ALPHAS}, of), style.MT, "MT-CNN")
    searches = _SEARCHES if by == "AUC" and found.get("search") else ()
    for x, colour, key, name in searches:
        of[name] = Interval(**found["search"][key])
        style.whisker(right, x, of[name], colour, "D", name)
    _baseline_line(right, found, by)
    right.set(xlabel="alpha, weight of the reconstruction's loss", ylabel=_OVER[by])
    right.set_xlim(-0.05, 1.3 if searches else 1.08)
    style.name_ticks(right, [0, *ALPHAS])
    _finish(figure, right, found)
    return figure, of


alpha_froc = partial(alpha_figure, by="CPM")
"""Draw Fig. 7 by FROC: curves by alpha, and CPM against alpha."""


@style.figure
def depth_figure(found: Values) -> Drawn:
    """Draw Fig. 6: AUC of ST-CNN and MT-CNN by depth, and what a depth costs.

    A depth at which most networks never learnt is written below the axis and not drawn: the axis
    would have to reach down to it, and show nothing of the others. Where there are no others, all
    are drawn.
    """
    of, costs = _judged_variants(found, "AUC"), pd.DataFrame(found["costs"]["of"]).T
    trained = {name: run.get("trained", {}) for name, run in found["variants"].items()}
    lost = {n for n, t in trained.items() if 2 * t.get("at_chance", 0) > t.get("networks", 0)}
    lost = set() if lost == set(of) else lost
    figure, axes = style.mosaic("as\nam", (9.6, 5.4), width_ratios=[1.5, 1])
    auc, seconds, memory = (axes[name] for name in "asm")
    _by_depth(auc, {name: value for name, value in of.items() if name not in lost}, found, "AUC")
    for low, (model, (network, colour)) in zip((0.27, 0.03), NETWORKS.items(), strict=True):
        labels = {depth_label(model, d): d for d in DEPTHS}
        look = Look(color=colour, ha="center", fontsize=7.5, transform=auc.get_xaxis_transform())
        for label in lost & set(labels):  # ST-CNN's words above MT-CNN's
            interval = "{0.value:.3f}\n({0.low:.2f} to {0.high:.2f})".format(of[label])
            never = "{at_chance} of {networks}\nnever learnt".format(**trained[label])
            auc.text(labels[label], low, f"{network} below:\n{interval}\n{never}", **look)
        cost = costs.reindex(list(labels)).rename(labels)
        seconds.plot(cost["seconds_a_training"].dropna(), "o-", color=colour)
        memory.plot(cost["memory_mb"].dropna(), "o-", color=colour)
        kept = "kept for the backward pass" if model == "mt" else None
        memory.plot(cost["kept_mb"], "--", color=colour, lw=1, label=kept)
    batch = costs["batch_size"].iloc[0]
    seconds.set(ylabel="s a training", title=f"cost of one network, batches of {batch:g}")
    memory.set(ylabel="MB in training", xlabel="convolutional layers in ShareNet")
    for ax in (seconds, memory):
        style.name_ticks(ax, DEPTHS)
        ax.set_ylim(bottom=0)
    memory.legend(loc="upper right")
    _finish(figure, auc, found)
    return figure, of, costs.drop(columns=["batch_size"])


@style.figure
def depth_froc(found: Values) -> Drawn:
    """Draw Fig. 6 by FROC: curves of each depth of ST-CNN and of MT-CNN, and CPM by depth."""
    of = _judged_variants(found, "CPM")
    figure, axes = style.subplots(1, 3, (12.4, 5.4))
    for ax, (model, ramp) in zip(axes, _DEPTHS.items(), strict=False):
        labels = [depth_label(model, d) for d in DEPTHS]
        _curves(ax, dict(zip(labels, ramp, strict=True)), found, "CPM")
    _by_depth(axes[2], of, found, "CPM")
    _finish(figure, axes[2], found)
    return figure, of


def _by_depth(ax: Axes, of: Mapping[str, Interval], found: Values, by: By) -> None:
    for shift, (model, (network, colour)) in zip((-0.06, 0.06), NETWORKS.items(), strict=True):
        labels = {d + shift: depth_label(model, d) for d in DEPTHS}
        style.series(ax, _there(labels, of), colour, network)
    _baseline_line(ax, found, by)
    ax.set(xlabel="convolutional layers in ShareNet", ylabel=_OVER[by], xlim=(0.6, 5.4))
    style.name_ticks(ax, DEPTHS)


@style.figure
def regularisation_figure(found: Values, by: By = "AUC") -> Drawn:
    """Draw Fig. 5: curves with and without l2, AUC (or CPM) by l2 and its place, and by dropout."""
    of = _judged_variants(found, by)
    figure, (left, middle, right) = style.subplots(1, 3, (12.4, 5.6), width_ratios=[1.1, 1.1, 1])
    right.sharey(middle)
    _curves(left, _L2_CURVES, found, by)
    by_l2_and_dropout(middle, right, of)
    for network, colour in NETWORKS.values():
        if network in of:
            style.level(middle, of[network], colour, f"{network}, no l2")
    middle.set(ylabel=_OVER[by])
    right.set(ylabel=by)
    _finish(figure, middle, found)
    return figure, of


regularisation_froc = partial(regularisation_figure, by="CPM")
"""Draw Fig. 5 by FROC: curves with and without l2, CPM against l2, and by dropout."""


def by_l2_and_dropout(left: Axes, right: Axes, of: Mapping[str, Interval]) -> None:
    """Draw Fig. 5's variants over the strength of l2, a line a place, and by dropout's place."""
    l2, places = declared.L2, declared.DROPOUTS
    for k, (model, place, colour, words) in enumerate(_L2_LINES):
        labels = {v * 1.14 ** (k - 1.5): l2_label(model, v, place) for v in l2}
        style.series(left, _there(labels, of), colour, f"{NETWORKS[model][0]}, l2 on {words}")
    left.set(xscale="log", xlim=(l2[0] / 2, l2[-1] * 2), xlabel="l2, weight of the squared weights")
    style.name_ticks(left, l2, [f"$10^{{{np.log10(v):.0f}}}$" for v in l2])
    for shift, (model, (_, colour)) in zip((-0.06, 0.06), NETWORKS.items(), strict=True):
        labels = {i + shift: dropout_label(model, on) for i, on in enumerate(places)}
        style.series(right, _there(labels, of), colour, None, join=False)
    style.name_ticks(right, range(len(places)), list(places.values()))
    right.set(xlabel="dropout 0.5 behind", xlim=(-0.5, len(places) - 0.5))


def _there(labels: Mapping[float, str], of: Mapping[str, Interval]) -> dict[float, Interval]:
    """Place on the x axis -> value of the variants that are finished."""
    return {x: of[label] for x, label in labels.items() if label in of}


def _variants(found: Values) -> dict[str, Any]:
    if not found["variants"]:
        raise InputError(f"{found['name']}: no variant is finished, nothing to draw")
    return dict(found["variants"])


def _judged_variants(found: Values, by: By) -> dict[str, Interval]:
    """Label -> AUC or CPM of the variants that are finished, and judged so."""
    measured = {label: _value(run["metrics"], by) for label, run in _variants(found).items()}
    if judged := {label: value for label, value in measured.items() if value is not None}:
        return judged
    words = "no variant was judged by FROC; only LUNA-16's candidates are"
    raise InputError(f"{found['name']}: {words}")


def _value(metrics: Values, by: By) -> Interval | None:
    of = metrics["auc_within_folds"] if by == "AUC" else values.cpm(metrics)
    return None if of is None else Interval(**of)


def _baseline(found: Values) -> dict[str, Any]:
    """What one number alone is worth, by what it is called; empty where it is not known."""
    return {name: of for key, name in _BASELINES.items() if (of := found.get(key)) is not None}


def _baseline_line(ax: Axes, found: Values, by: By) -> None:
    for name, metrics in _baseline(found).items():
        if (of := _value(metrics, by)) is not None:
            ax.axhline(of.value, color=style.SIZE_ONLY, lw=1, ls="--", label=name)


def _curves(ax: Axes, colours: Mapping[str, str], found: Values, by: By) -> None:
    """ROC curves, or FROC curves with dots at the seven rates, and what one number alone is."""
    beside = _baseline(found)
    metrics = {name: run["metrics"] for name, run in found["variants"].items()} | beside
    for name, colour in {**dict.fromkeys(beside, style.SIZE_ONLY), **colours}.items():
        if name not in metrics or (of := _value(metrics[name], by)) is None:
            continue
        look = Look(
            color=colour, ls="--" if name in beside else "-", label=f"{name}: {of.value:.3f}"
        )
        if by == "AUC":
            roc = metrics[name]["roc"]
            ax.plot([0, *roc["false_positive_rate"]], [0, *roc["sensitivity"]], **look)
            continue
        froc = metrics[name]["froc"]
        ax.plot(froc["curve"]["rates"], froc["curve"]["sensitivity"], **look)
        if name not in beside:
            ax.plot(froc["rates"], froc["sensitivity"], "o", color=colour, ms=3)
    if by == "AUC":
        roc_axes(ax)
        ax.legend(loc="lower right", title=by)
    else:
        # Good curves leave room below, poor ones above; where neither is free, words stay legible.
        froc_axes(ax)
        ax.legend(loc="best", title=by, frameon=True, framealpha=0.8, edgecolor="none")


def _finish(figure: Figure, ax: Axes, found: Values) -> None:
    """Legend, title, what was trained, and what is missing."""
    experiment_title(figure, ax, found)
    judged = _judged_on(found, next(iter(found["variants"].values()))["metrics"])
    missing = f". Not finished: {len(found['missing'])} variants" * bool(found["missing"])
    _footnote(figure, f"{judged}; {found['protocol']}{missing}")
    ax.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=8)


def experiment_title(figure: Figure, ax: Axes, found: Values, text: str = "") -> None:
    """Write the values' title above a figure, or another, and which CT above one of its axes."""
    words = textwrap.fill(values.title(found, text), int(9 * figure.get_figwidth()))
    figure.suptitle(words, ha="left", x=0.01)
    style.mark_kind(ax, found["cohort"]["simulated"])


def _judged_on(found: Values, metrics: Values) -> str:
    """How many nodules, or candidates, a variant was judged on, in words."""
    if not values.is_luna(found):
        return f"{metrics['nodules']} nodules of {metrics['patients']} patients"
    scans, positives = (metrics["screening"][key] for key in ("scans", "positives"))
    return f"{metrics['nodules']} candidates in {scans} scans, {positives} of them on nodules"


def _footnote(figure: Figure, text: str) -> None:
    """Small print below a figure, for which its layout makes room."""
    lines = textwrap.fill(text, int(14 * figure.get_figwidth()))
    figure.supxlabel(lines, x=0.01, ha="left", fontsize=7, color=style.GREY)


# Table 1


@style.figure
def table1_figure(found: Values) -> Drawn:
    """Draw the metrics of every method of Table 1, with intervals and published values.

    AUC, sensitivity, specificity and accuracy; for LUNA-16 false positives a scan, and CPM. Single
    views stand in one line, and what the diameter adds below the method itself.
    """
    rows, luna = _rows(found), values.is_luna(found)
    first = next(iter(rows.values()))["metrics"]
    at = f" at {first['threshold']:.3g}" if luna else " at 0.5"
    shown = {"auc_within_folds": "AUC within folds", "auc": "AUC, pooled",
             "sensitivity": f"sensitivity{at}", "specificity": f"specificity{at}"}  # fmt: skip
    last = {"false_positives_per_scan": f"false positives a scan{at}", "cpm": "CPM"}
    shown |= last if luna else {"accuracy": f"accuracy{at}"}
    published = table1.published(found)
    lines = _lines(rows) | {what: [] for what in sorted({w for w, _ in published} - set(rows))}
    others, hollow = {of.label for of in declared.OTHERS}, Look(mfc="white", mec=style.VERMILION)
    size = (2.4 + 2.6 * len(shown), 1.6 + 0.3 * len(lines))
    figure, axes = style.subplots(1, len(shown), size, sharey=True)
    for y, (line, names) in enumerate(lines.items()):
        alone = line.startswith("size") or line == table1.DETECTORS
        ours = line.startswith(("ST-CNN", "MT-CNN")) and line not in others
        (colour,) = style.method_colours(["size" if alone else line[:2] * ours]).values()
        for ax, metric in zip(axes, shown, strict=True):
            for name in names:
                if (of := table1.value(rows[name]["metrics"], metric)) is None:
                    continue
                here = Interval(of["value"], of["low"], of["high"])
                if line.endswith(_SINGLE):
                    ax.plot(here.value, y, "o", color=colour, ms=4, alpha=0.5)
                elif name.endswith(declared.WITH_THE_DIAMETER):
                    look = Look(ms=4.5, lw=0.8, mfc="white", zorder=3)
                    style.whisker(ax, y + 0.32, here, colour, upright=False, **look)
                else:
                    style.whisker(ax, y, here, colour, "s", upright=False, ms=5.5, lw=1.6)
            if (value := published.get((line, metric))) is not None:
                ax.plot(value, y, "D", zorder=4, **hollow)
                text = f"{value:.0f}" if value > 1 else f"{value:.3f}"
                look = Look(ha="center", fontsize=7, color=style.VERMILION)
                ax.annotate(text, (value, y), (0, 6), textcoords="offset points", **look)
    notes = {line: rows[line]["note"] for line in lines if line in rows and rows[line]["note"]}
    for ax, label in zip(axes, shown.values(), strict=True):
        style.name_rows(ax, [line + "*" * (line in notes) for line in lines])
        ax.set_xlabel(label)
    axes[0].set_ylim(len(lines) - 0.4, -0.6)
    for tick in axes[0].get_yticklabels():
        tick.set_fontweight("bold" if tick.get_text() in dict(NETWORKS.values()) else "normal")
    data = "LUNA-16" if luna else "LIDC-IDRI"
    axes[0].plot([], [], "D", label=f"as published ({data})", **hollow)
    if any(name.endswith(declared.WITH_THE_DIAMETER) for name in rows):
        axes[0].plot([], [], "o", label="with the diameter", mfc="white", mec=style.GREY, ms=4.5)
    figure.legend(loc="outside upper right", ncols=2)
    experiment_title(figure, axes[-1], found)
    under = "".join(f". * {note}" for note in sorted(set(notes.values())))
    _footnote(figure, f"{_judged_on(found, first)}; {found['protocol']}{under}")
    within = {name: Interval(**of["metrics"]["auc_within_folds"]) for name, of in rows.items()
              if not name.endswith(_VIEWS)}  # fmt: skip
    printed = {" ".join(what): value for what, value in published.items()}
    return figure, {"AUC within folds": within}, {"as published": printed}


_SINGLE = ", single views"
_VIEWS = tuple(f", {view_name(v)}" for v in range(len(PLANES)))


def _lines(rows: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the rows that share a line of the figure; other methods by their AUC, best first."""
    lines: dict[str, list[str]] = {}
    for name in rows:
        line = name.removesuffix(declared.WITH_THE_DIAMETER)
        line = line.partition(", ")[0] + _SINGLE if line.endswith(_VIEWS) else line
        lines.setdefault(line, []).append(name)
    others = [v.label for v in declared.OTHERS if v.label in lines]
    others.sort(key=lambda name: -rows[name]["metrics"]["auc_within_folds"]["value"])
    return lines | {name: lines.pop(name) for name in others}


def _rows(found: Values) -> dict[str, Any]:
    if not found["rows"]:
        raise InputError("table1: no run is finished, nothing to draw")
    return dict(found["rows"])


ROWS = ("ST-CNN", "MT-CNN", table1.DETECTORS)
"""Rows of LUNA-16's Table 1 that a FROC figure shows."""


@style.figure
def rows_froc_figure(found: Values, rows: Sequence[str] = ROWS) -> Drawn:
    """Draw FROC curves of some of Table 1's rows; intervals over scans at the seven rates as bands.

    Rows that are not there, or were not judged by FROC, are left out.
    """
    of_row = {name: found["rows"][name]["metrics"] for name in rows if name in found["rows"]}
    judged = {name: of for name, m in of_row.items() if (of := values.judged(m)) is not None}
    if not judged:
        raise InputError(f"table1: none of {', '.join(rows)} was judged by FROC")
    figure, ax = style.subplots(size=(6.4, 4.8))
    for (name, colour), of in zip(
        style.method_colours(judged).items(), judged.values(), strict=True
    ):
        line = "--" if name == table1.DETECTORS else "-"
        label, curve = f"{name}: {_value(of_row[name], 'CPM')}", of["curve"]
        band = (of["rates"], of["low"], of["high"]) if "low" in of else None
        x, y = curve["rates"], curve["sensitivity"]
        style.banded(ax, x, y, band, colour, label=label, ls=line)
        ax.plot(of["rates"], of["sensitivity"], "o", color=colour, ms=4.5)
    froc_axes(ax)
    experiment_title(figure, ax, found)
    ax.set_title("{scans} scans, {nodules} nodules".format(**next(iter(judged.values()))))
    ax.legend(loc="best", title="CPM (95 % interval over scans)")
    return figure


@style.figure
def fusion_figure(found: Values) -> Drawn:
    """Draw other ways to fuse against Eq. 4, the loss of a view, and AUC by number of views."""
    _rows(found)
    fusion, colours, said = found["fusion"], dict(NETWORKS.values()), []
    printed = next(iter(next(iter(fusion.values()))["ways"]))
    figure, (ways, without, count) = style.subplots(1, 3, (11.6, 4.6))
    for ax, part, of_what, title in (
        (ways, "comparisons", "Eq. 4's weights", "other ways to fuse"),
        (without, "without_view", "all views", "without one view"),
    ):
        said.append({
            model: {name.removesuffix(f" less {printed}"): Interval(**of["auc_difference"])
                    for name, of in found[part].items()}
            for model, found in fusion.items()
        })  # fmt: skip
        ax.axvline(0, color=style.BLACK, lw=0.9)
        style.interval_rows(ax, said[-1], colours, 0.24)
        ax.xaxis.set_major_locator(MaxNLocator(4))  # labels of three decimals need room
        ax.set(xlabel=f"AUC less that of {of_what}", title=title)
    for model, of in fusion.items():
        by_count = pd.DataFrame(of["by_count"]).set_index("views")
        x, mean, band = by_count.index, by_count["mean"], (by_count["worst"], by_count["best"])
        style.banded(count, x, mean, (x, *band), colours[model], marker="o", label=model)
    count.set(xlabel="views fused, with equal weights", ylabel="AUC", xticks=x)
    count.set_title("mean of all subsets,\nworst to best")
    count.legend(loc="lower right")
    experiment_title(figure, count, found)
    _footnote(figure, f"{found['protocol']}. Intervals: 95 %, paired over patients.")
    return figure, *said


# Fig. 4 in numbers; the pictures of nodules need the networks: `views.reconstruction_figure`


@style.figure
def fidelity_figure(found: Values) -> Drawn:
    """Draw PSNR and SSIM against alpha, beside plain ways to redraw, and of each view."""
    alphas, plain, shown = _variants(found), found["baselines"], found["shown"]
    colours = style.method_colours(plain)
    figure, axes = style.subplots(2, 2, (9.6, 6.6), width_ratios=[1.25, 1])
    for (left, right), key, name in zip(axes, ("psnr", "ssim"), ("PSNR, dB", "SSIM"), strict=True):
        for way, of in plain.items():
            if key == "ssim" or not of["settings"]:  # those were made to have the shown alpha's
                style.level(left, Interval(**of["metrics"][key]), colours[way], way, ls="--")
        points = {of["alpha"]: Interval(**of["metrics"][key]) for of in alphas.values()}
        style.series(left, points, style.MT, "MT-CNN", join=False)
        left.set(ylabel=name, xlim=(0.1, 1.1))
        style.name_ticks(left, ALPHAS)
        views = {view_name(v): Interval(**of[key]) for v, of in alphas[shown]["views"].items()}
        style.interval_rows(right, {"MT-CNN": views}, {"MT-CNN": style.MT})
        right.set_xlabel(f"{name}, {shown}")
    axes[1, 0].set_xlabel("alpha, weight of the reconstruction's loss")
    axes[1, 0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, fontsize=8)
    experiment_title(figure, axes[0, 1], found)
    _footnote(figure, f"{_fig4_judged(found)}. {_made_alike(found)}")
    ends = {name: of["metrics"] for name, of in {**alphas, **plain}.items()}
    return figure, {n: {k: Interval(**m[k]) for k in ("psnr", "ssim")} for n, m in ends.items()}


@style.figure
def losses_figure(found: Values) -> Drawn:
    """Draw what is lost: error by distance from the outline, and detail that comes back right."""
    shown = found["shown"]
    ways = {f"MT-CNN, {shown}": _variants(found)[shown], **found["baselines"]}
    figure, said = _draw_ways(ways, 4.6)
    experiment_title(figure, figure.axes[1], found)
    _footnote(figure, f"{_fig4_judged(found)}. {_made_alike(found)}")
    return figure, said


@style.figure
def ways_figure(ways: Mapping[str, Values], *, simulated: bool = False) -> Drawn:
    """Draw what ways to redraw lose: error by distance from the outline, and detail kept right.

    `ways`: name -> measures as fig4's JSON has them.
    """
    figure, said = _draw_ways(ways, 4.2)
    style.titles(figure.axes[1], "which detail", simulated)
    return figure, said


def _draw_ways(ways: Mapping[str, Values], height: float) -> tuple[Figure, Values]:
    """Error by distance from the outline on the left, share of power that is right on the right."""
    figure, (left, right) = style.subplots(1, 2, (9.6, height))
    said, colours = dict[str, Any](), style.method_colours(ways)
    for name, of in ways.items():
        middles = [(a + b) / 2 for a, b in pairwise(of["profile"]["edges_mm"])]
        for ax, x, band in (
            (left, middles, of["profile"]["error_hu"]),
            (right, of["spectrum"]["frequency_per_mm"], of["spectrum"]["right"]),
        ):
            value, *ends = (np.array(band[p], dtype=float) for p in ("value", "low", "high"))
            style.banded(ax, x, value, (x, *ends), colours[name], label=name, lw=1.6)
        zones = {z: of["by_zone"][z]["value"] for z in ZONES if of["by_zone"][z]}
        finest = of["finest_mm"]
        detail = "never" if finest is None else f"down to {finest['value']:.1f} mm"
        said[name] = {f"error {z}, HU": e for z, e in zones.items()} | {"half right": detail}
    left.axvline(0, color=style.GREY, lw=0.8, ls=":")
    left.set(xlabel="distance from the outline, mm (inside is negative)", ylim=(0, None))
    left.set(ylabel="mean absolute error, HU", title="where")
    left.legend(loc="best", fontsize=8)
    right.axhline(0, color=style.GREY, lw=0.8, ls=":")
    right.set(xscale="log", xlabel="wavelength, mm (fine detail to the right)", ylim=(-0.35, 1.03))
    style.name_ticks(right, [1 / w for w in (64, 32, 16, 8, 4, 2)], ["64", "32", "16", *"842"])
    right.set(ylabel="share of power that comes back right", title="which detail")
    return figure, said


@style.figure
def error_map_figure(found: Values) -> Drawn:
    """Draw the mean absolute error of every pixel over the test nodules, by view, in HU."""
    shown, of = found["shown"], found["map"]
    if not of:
        raise InputError(f"{found['name']}: {shown} is not finished, there is no map to draw")
    maps = {v: np.array([row.split() for row in m], float) for v, m in of["error_hu"].items()}
    top = max(float(np.percentile(m, 99.5)) for m in maps.values())
    radius, pixel = found["judged"]["median_diameter_mm"] / 2, of["pixel_mm"]
    columns = min(3, len(maps))
    named = {f"{view}  {view_name(view)}": image for view, image in maps.items()}
    width, look = 2.3 * columns + 0.9, Look(cmap="magma", pixel_mm=pixel)
    figure, axes = style.image_panels(named, columns, width, 0.05, 0, top, **look)
    for ax in axes:
        ax.add_patch(Circle((0, 0), radius, fill=False, ec="white", lw=1))
    figure.colorbar(axes[0].images[0], ax=list(axes), shrink=0.7, label="HU")
    experiment_title(figure, axes[columns - 1], found, f"Mean absolute error, {shown}")
    _footnote(figure, f"{_fig4_judged(found)}. Circle: the median nodule, {2 * radius:.1f} mm.")
    return figure, {f"{view_name(view)}, on average": m.mean() for view, m in maps.items()}


@style.figure
def beside_figure(ways: Arrays, nodules: Sequence[str], *, simulated: bool = False) -> Drawn:
    """Draw the same nodules by several ways to redraw: a row a nodule, a column a way.

    Args:
        ways: name -> (n, 64, 64) in [0, 1], such as {"input": ..., "MT-CNN": ...}.
        nodules: n descriptions, such as "malignant nodule, 18 mm".
    """
    images = np.stack([np.asarray(of) for of in ways.values()], axis=1)
    rows, mark = [words.replace(", ", "\n") for words in nodules], style.SIMULATED * simulated
    figure, _ = style.image_grid(images, 0, 1, columns=list(ways), rows=rows, mark=mark)
    return figure, "; ".join(nodules)


def _fig4_judged(found: Values) -> str:
    of, missing = found["judged"], found["missing"]
    of_whom = f"{of['nodules']} nodules of {of['patients']} patients, {of['on']}"
    left = f". Not finished: {', '.join(missing)}" * bool(missing)
    return f"{of_whom}; 95 % intervals over patients{left}"


def _made_alike(found: Values) -> str:
    """What the plain ways needed for the shown alpha's PSNR, and where that was out of reach."""
    words = []
    for way, of in found["baselines"].items():
        for key, unit in (("sigma_mm", "sigma {:.1f} to {:.1f} mm"), ("components", "{} to {}")):
            needed = [s[key] for s in of["settings"].values() if key in s]
            if needed:
                short = sum(not s["reached"] for s in of["settings"].values())
                text = f"{way}: {unit.format(min(needed), max(needed))}"
                words.append(text + f" (PSNR not reached in {short} views)" * (short > 0))
    return f"At the network's PSNR in each view: {'; '.join(words)}." if words else ""
