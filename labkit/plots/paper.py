"""The paper's figures, and Table 1 as a figure, from the values that `labkit.paper` computed.

Each function takes the values of a JSON file, finished or not, so that a lesson draws committed
results with the same call: `alpha_figure(read_json(paths.results() / "fig7.json", "a result"))`.
Fig. 5, 6 and 7 exist twice: by AUC with ROC curves, and, for LUNA-16's candidates as the challenge
judges them, by CPM with FROC curves.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from labkit.errors import InputError
from labkit.evaluation.reconstruction import ZONES
from labkit.evaluation.statistics import Interval
from labkit.paper import declared, table1, values
from labkit.paper.declared import ALPHAS, DEPTHS, alpha_label, depth_label, l2_label
from labkit.plots import style
from labkit.plots.froc import froc_axes
from labkit.plots.roc import roc_axes
from labkit.plots.style import NETWORKS, Arrays, Drawn, Values, method_colours, view_name

By = Literal["AUC", "CPM"]
_OVER = {
    "AUC": "AUC, with 95 % interval over patients",
    "CPM": "CPM, with 95 % interval over scans",
}
_CURVES = {"AUC": "ROC curves", "CPM": "FROC curves"}
_BASELINES = {"size_only": "size only", "detector": "detector's score"}
_BLUES = (style.ST, "#B5D2EA", style.MT, "#7FB4DB", "#4A90C4", "#1F68A8", "#08306B")
_ALPHAS = dict(zip(map(alpha_label, (0.0, *ALPHAS)), _BLUES, strict=True))
_DEPTHS = {
    "st": ("#F6D9A8", "#EFB74A", style.ST, "#B87A00", "#6B4700"),
    "mt": ("#B3E0D1", "#5CBFA0", style.MT, "#007A59", "#004030"),
}
_L2_CURVES = {
    "ST-CNN": style.ST,
    l2_label("st", declared.L2_SHOWN, "share"): style.VERMILION,
    "MT-CNN": style.MT,
    l2_label("mt", declared.L2_SHOWN, "both"): style.BLUE,
}
"""The paper's four curves in Fig. 5."""
_L2_LINES = (
    ("st", "share", style.ST, "encoder"),
    ("mt", "both", style.MT, "encoder and decoder"),
    ("mt", "share", style.SKY, "encoder"),
    ("mt", "img", style.PURPLE, "decoder"),
)
"""Model, place of l2, colour and words of each line over the strengths."""


# Fig. 1


@style.figure
def scores_by_rule(found: Values) -> Drawn:
    """Draw nodules by score under the printed rule, and the three classes under every rule."""
    published = {p["what"]: int(p["value"]) for p in found["published"]}
    classes = list(style.CLASS_COLUMNS)
    rules = {"as published": published, **found["rules"]}
    table = pd.DataFrame([[of[c] for c in classes] for of in rules.values()], list(rules), classes)
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
    said = style.spoken_counts(table)
    return figure, f"Nodules by median malignancy, {rule}; and by class for each rule. {said}."


# Fig. 5, 6 and 7: what a setting does


def alpha_froc(found: Values) -> Figure:
    """Draw Fig. 7 by FROC: curves by alpha, and CPM against alpha."""
    return alpha_figure(found, "CPM")


@style.figure
def alpha_figure(found: Values, by: By = "AUC") -> Drawn:
    """Draw Fig. 7: ROC curves by alpha, and AUC against alpha with the search's results."""
    of = _judged_variants(found, by)
    figure, (left, right) = style.subplots(1, 2, (9.6, 5.4), width_ratios=[1, 1.15])
    _curves(left, _ALPHAS, found, by)
    if alpha_label(0) in of:
        style.level(right, of[alpha_label(0)], style.ST, "ST-CNN (alpha 0)")
    points = {a: of[alpha_label(a)] for a in ALPHAS if alpha_label(a) in of}
    style.series(right, points, style.MT, "MT-CNN")
    words = [_said(of, by)]
    search = found.get("search") if by == "AUC" else None
    if search is not None:
        for x, name, key, colour in (
            (1.12, "search as printed", "printed", style.VERMILION),
            (1.18, "search, nested", "nested", style.BLUE),
            (1.24, "search, bootstrap-corrected", "bootstrap_corrected", style.PURPLE),
        ):
            style.whisker(right, x, _interval(search[key]), colour, "D", name)
        words += [
            f"search as printed: alpha {search['best']:g} with {_interval(search['printed'])}",
            f"nested: {_interval(search['nested'])}, optimism {_interval(search['optimism'])}",
        ]
    _baseline_line(right, found, by)
    right.set(xlabel="alpha, weight of the reconstruction's loss", ylabel=_OVER[by])
    right.set_xlim(-0.05, 1.08 if search is None else 1.3)
    right.xaxis.set_major_locator(FixedLocator([0, *ALPHAS]))
    _finish(figure, right, found)
    return figure, f"{_CURVES[by]} by alpha, and {by} against alpha. {'; '.join(words)}."


@style.figure
def depth_figure(found: Values) -> Drawn:
    """Draw Fig. 6: AUC of ST-CNN and MT-CNN by depth, and what a depth costs.

    A depth at which most networks never learnt is written below the axis and not drawn: the axis
    would have to reach down to it, and show nothing of the others. Where there are no others, all
    are drawn.
    """
    of, costs = _judged_variants(found, "AUC"), found["costs"]["of"]
    trained = {name: run.get("trained", {}) for name, run in found["variants"].items()}
    lost = {n for n, t in trained.items() if 2 * t.get("at_chance", 0) > t.get("networks", 0)}
    lost = set() if lost == set(of) else lost
    figure = Figure(figsize=(9.6, 5.4), layout="constrained")
    axes = figure.subplot_mosaic("as\nam", width_ratios=[1.5, 1])
    auc, seconds, memory = (axes[name] for name in "asm")
    _by_depth(auc, {name: value for name, value in of.items() if name not in lost}, found, "AUC")
    for model, (network, colour) in NETWORKS.items():
        labels = {d: depth_label(model, d) for d in DEPTHS}
        for d, label in labels.items():
            if label in lost:  # ST-CNN's words above MT-CNN's
                value, n = of[label], trained[label]
                text = (
                    f"{network} below:\n{value.value:.3f}\n({value.low:.2f} to {value.high:.2f})\n"
                    f"{n['at_chance']} of {n['networks']}\nnever learnt"
                )
                auc.text(d, 0.03 if model == "mt" else 0.27, text, color=colour, fontsize=7.5,
                         ha="center", transform=auc.get_xaxis_transform())  # fmt: skip
        for ax, key in ((seconds, "seconds_a_training"), (memory, "memory_mb")):
            known = {d: costs[label][key] for d, label in labels.items() if key in costs[label]}
            ax.plot(list(known), list(known.values()), "o-", color=colour)
        kept = [costs[label]["kept_mb"] for label in labels.values()]
        words = "kept for the backward pass" if model == "mt" else None
        memory.plot(list(labels), kept, "--", color=colour, lw=1, label=words)
    batch = next(iter(costs.values()))["batch_size"]
    seconds.set(ylabel="s a training", title=f"cost of one network, batches of {batch}")
    memory.set(ylabel="MB in training", xlabel="convolutional layers in ShareNet")
    for ax in (seconds, memory):
        ax.xaxis.set_major_locator(FixedLocator(DEPTHS))
        ax.set_ylim(bottom=0)
    memory.legend(loc="upper right")
    _finish(figure, auc, found)
    said = [
        f"{n}: {c['parameters']:,} parameters, {c['memory_mb']:.1f} MB, "
        f"{1000 * c['seconds_a_step']:.0f} ms a step"
        + (f", {c['seconds_a_training']:.0f} s a training" if "seconds_a_training" in c else "")
        for n, c in costs.items()
    ]
    return figure, f"AUC by depth, and cost by depth. {'; '.join([_said(of, 'AUC'), *said])}."


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
    return figure, f"FROC curves by depth, and CPM by depth. {_said(of, 'CPM')}."


def _by_depth(ax: Axes, of: Mapping[str, Interval], found: Values, by: By) -> None:
    for shift, (model, (network, colour)) in zip((-0.06, 0.06), NETWORKS.items(), strict=True):
        labels = {d + shift: depth_label(model, d) for d in DEPTHS}
        points = {x: of[label] for x, label in labels.items() if label in of}
        style.series(ax, points, colour, network)
    _baseline_line(ax, found, by)
    ax.set(xlabel="convolutional layers in ShareNet", ylabel=_OVER[by], xlim=(0.6, 5.4))
    ax.xaxis.set_major_locator(FixedLocator(DEPTHS))


def regularisation_froc(found: Values) -> Figure:
    """Draw Fig. 5 by FROC: curves with and without l2, CPM against l2, and by dropout."""
    return regularisation_figure(found, "CPM")


@style.figure
def regularisation_figure(found: Values, by: By = "AUC") -> Drawn:
    """Draw Fig. 5: ROC curves with and without l2, AUC against l2 and its place, and by dropout."""
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
    return figure, f"{_CURVES[by]}, {by} against l2, {by} by dropout. {_said(of, by)}."


def by_l2_and_dropout(left: Axes, right: Axes, of: Mapping[str, Interval]) -> None:
    """Draw Fig. 5's variants over the strength of l2, a line a place, and by dropout's place."""
    l2, places = declared.L2, declared.DROPOUTS
    for k, (model, place, colour, words) in enumerate(_L2_LINES):
        labels = {v * 1.14 ** (k - 1.5): l2_label(model, v, place) for v in l2}
        points = {x: of[label] for x, label in labels.items() if label in of}
        style.series(left, points, colour, f"{NETWORKS[model][0]}, l2 on {words}")
    left.set(xscale="log", xlim=(l2[0] / 2, l2[-1] * 2), xlabel="l2, weight of the squared weights")
    left.xaxis.set_major_locator(FixedLocator(l2))
    left.xaxis.set_minor_locator(NullLocator())
    for shift, (model, (_, colour)) in zip((-0.06, 0.06), NETWORKS.items(), strict=True):
        labels = {i + shift: declared.dropout_label(model, on) for i, on in enumerate(places)}
        points = {x: of[label] for x, label in labels.items() if label in of}
        style.series(right, points, colour, None, join=False)
    right.set_xticks(range(len(places)), list(places.values()))
    right.set(xlabel="dropout 0.5 behind", xlim=(-0.5, len(places) - 0.5))


def _judged_variants(found: Values, by: By) -> dict[str, Interval]:
    """Label -> AUC or CPM of the variants that are finished, and judged so."""
    measured = {label: _value(run["metrics"], by) for label, run in _variants(found).items()}
    judged = {label: value for label, value in measured.items() if value is not None}
    if not judged:
        raise InputError(
            f"{found['name']}: no variant was judged by FROC; only LUNA-16's candidates are"
        )
    return judged


def _variants(found: Values) -> dict[str, Any]:
    if not found["variants"]:
        raise InputError(f"{found['name']}: no variant is finished, nothing to draw")
    return dict(found["variants"])


def _said(of: Mapping[str, Interval], by: By) -> str:
    return "; ".join(f"{name}: {by} {value}" for name, value in of.items())


def _value(metrics: Values, by: By) -> Interval | None:
    of = metrics["auc"] if by == "AUC" else values.cpm(metrics)
    return None if of is None else _interval(of)


def _interval(of: Mapping[str, float]) -> Interval:
    return Interval(of["value"], of["low"], of["high"])


def _baseline(found: Values) -> dict[str, Any]:
    """What one number alone is worth, by what it is called; empty where it is not known."""
    known = {n: found[key] for key, n in _BASELINES.items() if found.get(key) is not None}
    return dict(list(known.items())[:1])


def _baseline_line(ax: Axes, found: Values, by: By) -> None:
    for name, metrics in _baseline(found).items():
        if (of := _value(metrics, by)) is not None:
            ax.axhline(of.value, color=style.SIZE_ONLY, lw=1, ls="--", label=name)


def _curves(ax: Axes, colours: Mapping[str, str], found: Values, by: By) -> None:
    """ROC curves, or FROC curves with dots at the seven rates, and what one number alone is."""
    beside = _baseline(found)
    metrics = {name: run["metrics"] for name, run in found["variants"].items()} | beside
    for name, colour in {**dict.fromkeys(beside, style.SIZE_ONLY), **colours}.items():
        if (of := _value(metrics.get(name, {"auc": None}), by)) is None:
            continue
        if by == "AUC":
            roc = metrics[name]["roc"]
            x, y = [0.0, *roc["false_positive_rate"]], [0.0, *roc["sensitivity"]]
        else:
            froc = metrics[name]["froc"]
            x, y = froc["curve"]["rates"], froc["curve"]["sensitivity"]
            if name not in beside:
                ax.plot(froc["rates"], froc["sensitivity"], "o", color=colour, ms=3)
        line = "--" if name in beside else "-"
        ax.plot(x, y, color=colour, ls=line, label=f"{name}: {of.value:.3f}")
    if by == "AUC":
        roc_axes(ax)
        ax.legend(loc="lower right", title=by, title_fontsize=9)
    else:
        # Good curves leave room below, poor ones above; where neither is free, words stay legible.
        froc_axes(ax)
        look = {"frameon": True, "framealpha": 0.8, "edgecolor": "none"}
        ax.legend(loc="best", title=by, title_fontsize=9, **look)


def _finish(figure: Figure, ax: Axes, found: Values) -> None:
    """Legend, title, what was trained, and what is missing."""
    _title(figure, ax, found)
    judged = _judged_on(found, next(iter(found["variants"].values()))["metrics"])
    missing = f". Not finished: {len(found['missing'])} variants" * bool(found["missing"])
    _footnote(figure, f"{judged}; {found['protocol']}{missing}")
    ax.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=8)


def _title(figure: Figure, ax: Axes, found: Values, text: str = "") -> None:
    figure.suptitle(text or f"{found['title']} ({found['where']})", ha="left", x=0.01)
    style.mark_kind(ax, found["cohort"]["simulated"])


def _judged_on(found: Values, metrics: Values) -> str:
    """How many nodules, or candidates, a variant was judged on, in words."""
    if not values.is_luna(found):
        return f"{metrics['nodules']} nodules of {metrics['patients']} patients"
    scans, positives = (metrics["screening"][key] for key in ("scans", "positives"))
    return f"{metrics['nodules']} candidates in {scans} scans, {positives} of them on nodules"


def _footnote(figure: Figure, text: str) -> None:
    """Small print below a figure, for which its layout makes room."""
    lines = textwrap.wrap(text, int(14 * figure.get_figwidth()))
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=7, color=style.GREY)


# Table 1


@style.figure
def table1_figure(found: Values) -> Drawn:
    """Draw the metrics of every row, with intervals and published values.

    AUC, sensitivity and specificity; for LUNA-16 also false positives a scan, and CPM.
    """
    rows, luna = found["rows"], values.is_luna(found)
    if not rows:
        raise InputError("table1: no run is finished, nothing to draw")
    first = next(iter(rows.values()))["metrics"]
    at = f" at {first['threshold']:.3g}" if luna else " at 0.5"
    shown = {"auc": "AUC", "sensitivity": f"sensitivity{at}", "specificity": f"specificity{at}"}
    if luna:
        shown |= {"false_positives_per_scan": f"false positives a scan{at}", "cpm": "CPM"}
    published = table1.published(found)
    names = [*rows, *sorted({what for what, _ in published} - set(rows))]
    size = (14.4 if luna else 10.4, 1.5 + 0.27 * len(names))
    figure, axes = style.subplots(1, len(shown), size, sharey=True)
    hollow = {"mfc": "white", "mec": style.VERMILION}
    for ax, (metric, label) in zip(axes, shown.items(), strict=True):
        for y, name in enumerate(names):
            of = table1.value(rows[name]["metrics"], metric) if name in rows else None
            if of is not None:
                alone = name.startswith("size") or name == table1.DETECTORS
                colour = method_colours(["size" if alone else name[:2]]).popitem()[1]
                marker, ms, lw = ("o", 4, 1.0) if "," in name else ("s", 6, 1.8)
                style.whisker(ax, y, _interval(of), colour, marker, upright=False, ms=ms, lw=lw)
            if (name, metric) in published:
                value = published[name, metric]
                ax.plot(value, y, "D", zorder=4, **hollow)
                ax.annotate(
                    f"{value:.0f}" if value > 1 else f"{value:.3f}", (value, y), (0, 6),
                    textcoords="offset points", ha="center", fontsize=7, color=style.VERMILION,
                )  # fmt: skip
        ax.set_xlabel(label)
        style.name_rows(ax, [n + "*" * bool(n in rows and rows[n]["note"]) for n in names])
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    data = "LUNA-16" if luna else "LIDC-IDRI"
    axes[0].plot([], [], "D", label=f"as published ({data})", **hollow)
    figure.legend(loc="outside upper right")
    _title(figure, axes[-1], found)
    for tick in axes[0].get_yticklabels():
        tick.set_fontweight("normal" if set(",*") & set(tick.get_text()) else "bold")
    notes = sorted({row["note"] for row in rows.values() if row["note"]})
    under = f"{_judged_on(found, first)}; {found['protocol']}"
    _footnote(figure, under + "".join(f". * {note}" for note in notes))
    said = []
    for name, row in rows.items():
        cpm = _value(row["metrics"], "CPM")
        said.append(f"{name}: AUC {_interval(row['metrics']['auc'])}" + f", CPM {cpm}" * bool(cpm))
    printed = "; ".join(f"{what} {m} {v:.4f}" for (what, m), v in published.items())
    return figure, f"Rows of Table 1. {'; '.join(said)}. As published: {printed}."


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
    words, colours = [], method_colours(judged)
    figure, ax = style.subplots(size=(6.4, 4.8))
    for name, of in judged.items():
        words.append(f"{name}: {_value(of_row[name], 'CPM')}")
        look = {"color": colours[name], "ls": "--" if name == table1.DETECTORS else "-"}
        ax.plot(of["curve"]["rates"], of["curve"]["sensitivity"], label=words[-1], **look)
        ax.plot(of["rates"], of["sensitivity"], "o", color=colours[name], ms=4.5)
        if "low" in of:
            band = (of["rates"], of["low"], of["high"])
            ax.fill_between(*band, color=colours[name], alpha=0.13, lw=0)
    froc_axes(ax)
    first = next(iter(judged.values()))
    title = f"{first['scans']} scans, {first['nodules']} nodules"
    style.titles(ax, title, found["cohort"]["simulated"])
    ax.legend(loc="best", title="CPM (95 % interval over scans)", title_fontsize=9)
    return figure, f"FROC curves with CPM: {'; '.join(words)}."


@style.figure
def fusion_figure(found: Values) -> Drawn:
    """Draw other ways to fuse against Eq. 4, the loss of a view, and AUC by number of views."""
    fusion = found["fusion"]
    if not fusion:
        raise InputError("table1: no run is finished, nothing to draw")
    printed = next(iter(next(iter(fusion.values()))["ways"]))
    colours = dict(NETWORKS.values())
    figure, (ways, without, count) = style.subplots(1, 3, (11.6, 4.6))
    words = []
    for ax, part, xlabel, title in (
        (ways, "comparisons", "AUC less that of Eq. 4's weights", "other ways to fuse"),
        (without, "without_view", "AUC less that of all views", "without one view"),
    ):
        differences = {
            model: {
                name.removesuffix(f" less {printed}"): _interval(pair["auc_difference"])
                for name, pair in of[part].items()
            }
            for model, of in fusion.items()
        }
        ax.axvline(0, color=style.BLACK, lw=0.9)
        style.interval_rows(ax, differences, colours, 0.24)
        ax.xaxis.set_major_locator(MaxNLocator(4))  # labels of three decimals need room
        ax.set(xlabel=xlabel, title=title)
        for model, of in differences.items():
            words += [f"{model}, {name}: {d.value:+.3f}" for name, d in of.items()]
    for model, of in fusion.items():
        by_count = pd.DataFrame(of["by_count"]).set_index("views")
        ends = (by_count["worst"], by_count["best"])
        count.fill_between(by_count.index, *ends, color=colours[model], alpha=0.15, lw=0)
        count.plot(by_count.index, by_count["mean"], "o-", color=colours[model], label=model)
        count.set_xticks(by_count.index)
    count.set(xlabel="views fused, with equal weights", ylabel="AUC")
    count.set_title("mean of all subsets, worst to best")
    count.legend(loc="lower right")
    kind = "simulated CT" if found["cohort"]["simulated"] else "real CT"
    figure.suptitle(kind, x=0.99, ha="right", fontsize=9, fontweight="normal", color=style.GREY)
    _footnote(figure, f"{found['protocol']}. Intervals: 95 %, paired over patients.")
    return figure, f"AUC less that of Eq. 4, by another fusion or less a view. {'; '.join(words)}."


# Fig. 4 in numbers; the pictures of nodules need the networks: `views.reconstruction_figure`


@style.figure
def fidelity_figure(found: Values) -> Drawn:
    """Draw PSNR and SSIM against alpha, beside plain ways to redraw, and of each view."""
    alphas, plain, shown = _variants(found), found["baselines"], found["shown"]
    colours = method_colours(plain)
    figure, axes = style.subplots(2, 2, (9.6, 6.6), width_ratios=[1.25, 1])
    for (left, right), key, name in zip(axes, ("psnr", "ssim"), ("PSNR, dB", "SSIM"), strict=True):
        for way, of in plain.items():
            if key == "ssim" or not of["settings"]:  # those were made to have the shown alpha's
                style.level(left, _interval(of["metrics"][key]), colours[way], way, ls="--")
        points = {of["alpha"]: _interval(of["metrics"][key]) for of in alphas.values()}
        style.series(left, points, style.MT, "MT-CNN", join=False)
        left.set(ylabel=name, xlim=(0.1, 1.1))
        left.xaxis.set_major_locator(FixedLocator(ALPHAS))
        views = {view_name(v): _interval(of[key]) for v, of in alphas[shown]["views"].items()}
        style.interval_rows(right, {"MT-CNN": views}, {"MT-CNN": style.MT})
        right.set_xlabel(f"{name}, {shown}")
    axes[1, 0].set_xlabel("alpha, weight of the reconstruction's loss")
    axes[1, 0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, fontsize=8)
    _title(figure, axes[0, 1], found)
    _footnote(figure, f"{_fig4_judged(found)}. {_made_alike(found)}")
    said = []
    for name, of in {**alphas, **plain}.items():
        psnr, ssim = of["metrics"]["psnr"], _interval(of["metrics"]["ssim"])
        db = f"{psnr['value']:.1f} ({psnr['low']:.1f} to {psnr['high']:.1f}) dB"
        said.append(f"{name}: {db}, SSIM {ssim}")
    return figure, f"PSNR and SSIM by alpha and by view. {'; '.join(said)}."


@style.figure
def losses_figure(found: Values) -> Drawn:
    """Draw what is lost: error by distance from the outline, and detail that comes back right."""
    shown = found["shown"]
    ways = {f"MT-CNN, {shown}": _variants(found)[shown], **found["baselines"]}
    figure, said = _draw_ways(ways, 4.6)
    _title(figure, figure.axes[1], found)
    _footnote(figure, f"{_fig4_judged(found)}. {_made_alike(found)}")
    return figure, said


@style.figure
def ways_figure(ways: Mapping[str, Values], *, simulated: bool = False) -> Drawn:
    """Draw `losses_figure` of any ways to redraw: name -> measures as fig4's JSON has them."""
    figure, said = _draw_ways(ways, 4.2)
    if simulated:
        style.mark_kind(figure.axes[1], simulated)
    return figure, said


def _draw_ways(ways: Mapping[str, Values], height: float) -> Drawn:
    """Error by distance from the outline on the left, share of power that is right on the right."""
    figure, (left, right) = style.subplots(1, 2, (9.6, height))
    words, colours = [], method_colours(ways)
    for name, of in ways.items():
        middles = [(a + b) / 2 for a, b in pairwise(of["profile"]["edges_mm"])]
        for ax, x, band in (
            (left, middles, of["profile"]["error_hu"]),
            (right, of["spectrum"]["frequency_per_mm"], of["spectrum"]["right"]),
        ):
            value, low, high = (np.array(band[p], dtype=float) for p in ("value", "low", "high"))
            ax.fill_between(x, low, high, color=colours[name], alpha=0.18, lw=0)
            ax.plot(x, value, color=colours[name], label=name, lw=1.6)
        by_zone = {zone: of["by_zone"][zone] for zone in ZONES if of["by_zone"][zone]}
        zones = ", ".join(f"{zone} {error['value']:.0f}" for zone, error in by_zone.items())
        finest = of["finest_mm"]
        detail = "never" if finest is None else f"down to {finest['value']:.1f} mm"
        words.append(f"{name}: error in HU {zones}; half of the power is right {detail}")
    left.axvline(0, color=style.GREY, lw=0.8, ls=":")
    left.set(xlabel="distance from the outline, mm (inside is negative)", ylim=(0, None))
    left.set(ylabel="mean absolute error, HU", title="where")
    left.legend(loc="best", fontsize=8)
    right.axhline(0, color=style.GREY, lw=0.8, ls=":")
    right.set(xscale="log", xlabel="wavelength, mm (fine detail to the right)", ylim=(-0.35, 1.03))
    style.name_ticks(right, [1 / w for w in (64, 32, 16, 8, 4, 2)], ["64", "32", "16", *"842"])
    right.set(ylabel="share of power that comes back right", title="which detail")
    return figure, f"Error by distance from the outline, and detail. {'. '.join(words)}."


@style.figure
def error_map_figure(found: Values) -> Drawn:
    """Draw the mean absolute error of every pixel over the test nodules, by view."""
    shown, of = found["shown"], found["map"]
    if not of:
        raise InputError(f"{found['name']}: {shown} is not finished, there is no map to draw")
    maps = {v: np.array([row.split() for row in m], float) for v, m in of["error_hu"].items()}
    top = max(float(np.percentile(m, 99.5)) for m in maps.values())
    radius, pixel = found["judged"]["median_diameter_mm"] / 2, of["pixel_mm"]
    columns = min(3, len(maps))
    rows = -(-len(maps) // columns)
    size = (2.3 * columns + 0.9, 2.35 * rows + 0.9)
    figure, axes = style.subplots(rows, columns, size, squeeze=False)
    words = []
    for ax, (view, image) in zip(axes.flat, maps.items(), strict=False):
        title = f"{view}  {view_name(view)}"
        style.show_ct(ax, image, 0, top, title=title, cmap="magma", pixel_mm=(pixel, pixel))
        ax.add_patch(Circle((0, 0), radius, fill=False, ec="white", lw=1))
        at = (np.arange(len(image)) - (len(image) - 1) / 2) * pixel
        centre = image[np.hypot(at[:, None], at) < max(radius, pixel)]
        words.append(f"{view_name(view)}: {image.mean():.0f}, in the circle {centre.mean():.0f}")
    for ax in axes.flat[len(maps) :]:
        ax.remove()
    drawn = list(axes.flat[: len(maps)])
    figure.colorbar(drawn[0].images[0], ax=drawn, shrink=0.7, label="HU")
    _title(figure, axes.flat[columns - 1], found, f"Mean absolute error, {shown}")
    _footnote(figure, f"{_fig4_judged(found)}. Circle: the median nodule, {2 * radius:.1f} mm.")
    return figure, f"Maps of mean absolute error by view, HU on average. {'; '.join(words)}."


@style.figure
def beside_figure(ways: Arrays, nodules: Sequence[str], *, simulated: bool = False) -> Drawn:
    """Draw the same nodules by several ways to redraw: a row a nodule, a column a way.

    Args:
        ways: name -> (n, 64, 64) in [0, 1], such as {"input": ..., "MT-CNN": ...}.
        nodules: n descriptions, such as "malignant nodule, 18 mm".
    """
    size = (1.6 * len(ways), 1.7 * len(nodules))
    figure, axes = style.subplots(len(nodules), len(ways), size, squeeze=False)
    for column, (name, images) in zip(axes.T, ways.items(), strict=True):
        for ax, image in zip(column, np.asarray(images), strict=True):
            style.show_ct(ax, image, 0, 1, mark=style.SIMULATED * simulated)
        column[0].set_title(name, fontsize=9, loc="center")
    for ax, words in zip(axes[:, 0], nodules, strict=True):
        ax.set_ylabel(words.replace(", ", "\n"), fontsize=8)
    return figure, f"{'; '.join(nodules)}, side by side as {', '.join(ways)}."


def _fig4_judged(found: Values) -> str:
    of, missing = found["judged"], found["missing"]
    text = f"{of['nodules']} nodules of {of['patients']} patients, {of['on']}; 95 % intervals over "
    return f"{text}patients" + f". Not finished: {', '.join(missing)}" * bool(missing)


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
