"""Lesson 11's figures: candidates in a scan, what they look like, and what they lie on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.froc import RATES
from labkit.imaging.volume import Volume
from labkit.plots import style
from labkit.plots.roc import method_colours, titles
from labkit.plots.style import draw_image, draw_ruler, draw_title

if TYPE_CHECKING:
    from labkit.cohorts.cohort import Cohort
if TYPE_CHECKING:
    from labkit.cohorts.cohort import Cohort

# What a candidate detector finds: the ceiling of all that is learnt from its candidates.


Found = tuple[float, int, int]
"""Candidates a scan, nodules hit, nodules."""


def detector_figure(values: Mapping[str, Any], here: Found, where: str) -> Figure:
    """Nodules hit against candidates a scan: the tuning scans, other scans, and LUNA-16 itself.

    Args:
        values: of results/luna16_detector.json.
        here: what the detector did on scans that it was not tuned on.
        where: what these are, for the legend.
    """
    curve, luna = values["curve"], values["luna16"]
    entries = {
        f"at work, same scans: {values['hit']:.0f} of {values['nodules']}": (
            (values["candidates_a_scan"], int(values["hit"]), values["nodules"]),
            style.BLUE, "o",
        ),
        f"{where}: {here[1]} of {here[2]}": (here, style.VERMILION, "s"),
        f"LUNA-16, as published: {luna['hit']:,} of {luna['nodules']:,}": (
            (luna["candidates_a_scan"], luna["hit"], luna["nodules"]), style.BLACK, "D",
        ),
    }  # fmt: skip
    words = []
    with style.house_style():
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        ax = figure.subplots()
        ax.plot(
            curve["candidates_a_scan"], curve["sensitivity"], color=style.BLUE, lw=1.2,
            label=f"{values['settings']['scans']} scans of the tuning, threshold moved",
        )  # fmt: skip
        for name, ((a_scan, hit, nodules), colour, marker) in entries.items():
            low, high = statistics.wilson(np.array([hit / nodules]), np.array([float(nodules)]))
            ax.vlines(a_scan, low, high, color=colour, lw=1.4)
            ax.plot(a_scan, hit / nodules, marker, color=colour, label=name, ls="")
            words.append(f"{name}, {hit / nodules:.3f} at {a_scan:.0f} candidates a scan")
        ax.axhline(1, color=style.GREY, lw=0.8, ls=":")
        ax.set(
            xscale="log",
            xlabel="candidates a scan",
            ylabel="share of nodules hit",
            ylim=(0.3, 1.03),
        )
        ax.set_xlim(right=1_100)
        ticks = [2, 5, 10, 20, 50, 100, 200, 500, 1000]
        ax.set_xticks(ticks, [str(t) for t in ticks])
        ax.minorticks_off()
        ax.legend(loc="lower right")
        ax.set_title("simulated CT", loc="right", fontweight="normal", color=style.GREY, fontsize=9)
    return style.describe(
        figure, "Share of nodules hit against candidates a scan. " + "; ".join(words) + "."
    )


# Lesson 11's figures of rarity: one nodule among hundreds of candidates, and what it does.


_ALL_SHOWN = (0.1, 200.0)


def two_axes_figure(
    scored: Mapping[str, tuple[ArrayLike, ArrayLike]], scans: int, *, simulated: bool = False
) -> Figure:
    """One ROC curve over candidates, drawn twice: against the rate, and against marks a scan.

    The part that the challenge looks at, up to 8 false positives a scan, is shaded in both.

    Args:
        scored: name -> (labels, scores) of the same candidates.
        scans: that they come from.
        simulated: say that the images were simulated.

    Raises:
        InputError: nothing to draw, or no scan.
    """
    if not scored or scans < 1:
        raise InputError("give one or more sets of scores, and how many scans they are from")
    words = []
    with style.house_style():
        figure = Figure(figsize=(9.4, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1, 1.25])
        colours = method_colours(list(scored))
        for name, (labels, scores) in scored.items():
            y, s = statistics.checked(labels, scores)
            false, true = statistics.roc(y, s)
            a_scan = int((y == 0).sum()) / scans
            auc = statistics.roc_auc(y, s)
            colour = colours[name]
            left.plot(false, true, color=colour, label=f"{name}: {auc:.3f}")
            right.step(false * a_scan, true, where="post", color=colour)
            at = np.interp(RATES[-1] / a_scan, false, true)
            words.append(f"{name}: AUC {auc:.3f}, {at:.3f} at 8 false positives a scan")
        left.axvspan(0, RATES[-1] / a_scan, color=style.YELLOW, alpha=0.45, lw=0)
        right.axvspan(RATES[0], RATES[-1], color=style.YELLOW, alpha=0.45, lw=0)
        left.plot([0, 1], [0, 1], color=style.GREY, lw=0.8, ls=":")
        left.set(xlabel="false positive rate", ylabel="share of nodules' candidates called")
        left.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        left.legend(loc="lower right", title="AUC", title_fontsize=9)
        right.set_xscale("log")
        ticks = [*RATES, 20, 50, 100]
        right.set_xticks(ticks, [str(Fraction(t)) for t in ticks])
        right.minorticks_off()
        right.set(xlabel="the same, as false positives a scan", xlim=_ALL_SHOWN)
        titles(right, "shaded: what the challenge looks at", simulated)
    return style.describe(
        figure,
        "One ROC curve on two axes, the false positive rate and the false positives a scan; the "
        f"challenge's part, 1/8 to 8 a scan, is a sliver of the first. {'; '.join(words)}.",
    )


def epochs_figure(labels: ArrayLike, shown: Sequence[ArrayLike]) -> Figure:
    """What the sampler shows: the mixture of an epoch, and the candidates met so far.

    Args:
        labels: (n,) of the training candidates, 1 a nodule.
        shown: of each epoch, in order, which candidates its images are of.

    Raises:
        InputError: no epoch.
    """
    y = np.asarray(labels, int)
    epochs = [np.asarray(rows, int) for rows in shown]
    if not epochs:
        raise InputError("there is no epoch to draw")
    mixture = {"as they come": y, "as an epoch shows them": y[epochs[0]]}
    with style.house_style():
        figure = Figure(figsize=(8.6, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.2, 1])
        for at, (name, of) in enumerate(mixture.items()):
            share = 100 * of.mean()
            left.barh(at, share, color=style.GREEN, height=0.5, label=None if at else "nodule")
            left.barh(at, 100 - share, left=share, color=style.SKY, height=0.5,
                      label=None if at else "not")  # fmt: skip
            words = f"{len(of):,} images, {share:.1f} % of nodules"
            left.text(0, at - 0.36, f"{name}: {words}", fontsize=9, va="bottom")
        left.set(xlim=(0, 100), ylim=(1.6, -0.75), xlabel="share, %", yticks=[])
        left.grid(visible=False, axis="y")
        left.legend(loc="upper right", ncols=2, bbox_to_anchor=(1, 1.16))
        counts = {}
        for value, name, colour in ((1, "nodules", style.GREEN), (0, "others", style.SKY)):
            met = _met(epochs, y, value)
            right.plot(np.arange(1, len(met) + 1), 100 * met, "o-", color=colour, ms=4, label=name)
            counts[name] = met[-1]
        right.set(xlabel="epoch", ylabel="candidates met so far, %", ylim=(0, 104))
        right.set_xticks(np.unique(np.linspace(1, len(epochs), 6).round().astype(int)))
        right.legend(loc="best")
    spoken = "; ".join(
        f"{name}: {len(of):,} images, {of.mean():.3f} of nodules" for name, of in mixture.items()
    )
    return style.describe(
        figure,
        f"Mixture of classes, {spoken}. After {len(epochs)} epochs {counts['nodules']:.0%} of the "
        f"nodules' candidates and {counts['others']:.0%} of the others were met.",
    )


def reliability_figure(tables: Mapping[str, pd.DataFrame], *, simulated: bool = False) -> Figure:
    """Predicted against observed share of nodules, on logarithmic axes, where nodules are rare.

    Args:
        tables: name -> what `evaluation.calibration.reliability_table` returns.
        simulated: say that the images were simulated.

    Raises:
        InputError: nothing to draw.
    """
    if not tables:
        raise InputError("there is no calibration to draw")
    least = min(_least(table) for table in tables.values())
    colours = dict(zip(tables, (style.VERMILION, style.BLUE, style.GREEN, style.PURPLE),
                       strict=False))  # fmt: skip
    words = []
    with style.house_style():
        figure = Figure(figsize=(5.4, 4.6), layout="constrained")
        ax = figure.subplots()
        ax.plot([least, 1], [least, 1], color=style.GREY, lw=0.8, ls=":")
        for name, table in tables.items():
            _draw_reliability(ax, name, table, colours.get(name, style.GREY), least)
            top = table.iloc[-1]
            words.append(
                f"{name}: highest bin predicted {top['predicted']:.2g}, observed "
                f"{top['observed']:.2g}"
            )
        ax.set(xscale="log", yscale="log", xlim=(least, 1.3), ylim=(least, 1.3))
        ax.set(xlabel="predicted probability, mean of a bin", aspect="equal")
        ax.set(ylabel="share that are nodules, with 95 % interval")
        titles(ax, "", simulated)
        ax.legend(loc="upper left")
    return style.describe(
        figure,
        "Reliability diagram on logarithmic axes; open triangles at the foot: no nodule in the "
        f"bin. {'; '.join(words)}.",
    )


def _draw_reliability(ax: Axes, name: str, table: pd.DataFrame, colour: str, least: float) -> None:
    some = table[table["observed"] > 0]
    none = table[table["observed"] == 0]
    ax.vlines(some["predicted"], np.maximum(some["low"], least), some["high"], color=colour, lw=1.2)
    ax.plot(some["predicted"], some["observed"], "o", color=colour, label=name)
    ax.vlines(none["predicted"], least, none["high"], color=colour, lw=1.2, alpha=0.5)
    ax.plot(none["predicted"], np.full(len(none), least * 1.15), "v", mfc="white", color=colour)


def _least(table: pd.DataFrame) -> float:
    """The decade below all that a table has to show."""
    shown = np.concatenate([table["predicted"], table["high"], table["observed"]])
    return float(10.0 ** np.floor(np.log10(max(1e-6, shown[shown > 0].min()))))


def _met(epochs: Sequence[NDArray[np.int64]], y: NDArray[np.int64], value: int) -> NDArray:
    """Share of a class that was shown up to each epoch."""
    seen = np.zeros(len(y), bool)
    shares = []
    for rows in epochs:
        seen[rows] = True
        shares.append(seen[y == value].mean())
    return np.array(shares)


NODULE, EXCLUDED, FALSE_POSITIVE = "nodule", "excluded", "false positive"
_LOOKS = {
    NODULE: (style.GREEN, "o"),
    EXCLUDED: (style.ORANGE, "s"),
    FALSE_POSITIVE: (style.SKY, "D"),
}
_AXIAL = 0
_SHOWN_MM = 40


def kind(table: pd.DataFrame) -> NDArray[np.str_]:
    """What each candidate of a cohort's table is: nodule, excluded, or false positive."""
    excluded = table["excluded"].to_numpy() == 1
    label = table["label"].to_numpy(int)
    return np.where(label == 1, NODULE, np.where(excluded, EXCLUDED, FALSE_POSITIVE))


def on_slice(
    volume: Volume,
    table: pd.DataFrame,
    z_mm: float,
    within_mm: float = 5.0,
    mark: str = style.SIMULATED,
) -> Figure:
    """An axial slice of a scan, with the candidates near it.

    Args:
        volume: the scan, HU; its axes along the world's.
        table: candidates, as a LUNA-16 cohort has them; those of other series are left out.
        z_mm: height of the slice; the nearest is drawn.
        within_mm: how far above or below the slice a candidate may lie.
        mark: written on the image; "" for real CT.

    Raises:
        InputError: an oblique scan, or no slice at that height.
    """
    if not np.allclose(volume.direction, np.eye(3)):
        raise InputError("only scans whose axes run along the world's can be drawn with marks")
    row = round((z_mm - volume.origin_xyz_mm[2]) / volume.spacing_xyz_mm[2])
    if not 0 <= row < volume.shape[0]:
        raise InputError(f"z = {z_mm:g} mm lies outside the scan; take a candidate's z_mm")
    own = table[(table["series_uid"] == volume.series_uid)]
    own = own[(own["z_mm"] - z_mm).abs() <= within_mm]
    px, py, _ = volume.spacing_xyz_mm
    # Marks go to the image's own axes, whose origin is its middle.
    corner = volume.world_from_index((row, -0.5, -0.5))
    extent = np.array([volume.shape[2] * px, volume.shape[1] * py])
    middle = corner[:2] + extent / 2
    kinds = kind(own)
    counts = {name: int((kinds == name).sum()) for name in _LOOKS}
    with style.house_style():
        figure = Figure(figsize=(6.2, 6.2 * extent[1] / extent[0]), layout="constrained")
        ax = figure.subplots()
        draw_image(ax, volume.voxels[row], (py, px), mark)
        handles = []
        for name, (color, shape) in _LOOKS.items():
            x, y = (own[["x_mm", "y_mm"]].to_numpy(float)[kinds == name] - middle).T
            handles += ax.plot(
                x, y, linestyle="", marker=shape, markersize=9.5, markeredgewidth=1.6,
                markerfacecolor="none", markeredgecolor=color, label=f"{name}: {counts[name]}",
            )  # fmt: skip
        draw_ruler(ax, 50.0)
        ax.legend(
            handles=handles,
            loc="upper right",
            labelcolor="white",
            facecolor="black",
            framealpha=0.6,
        )
    spoken = ", ".join(f"{n} {name}" for name, n in counts.items())
    return style.describe(
        figure, f"An axial CT slice; candidates within {within_mm:g} mm of it are marked: {spoken}."
    )


def gallery(cohort: Cohort, n: int = 9, rows: Mapping[str, ArrayLike] | None = None) -> Figure:
    """The strongest false positives beside nodules, each in its axial view.

    Args:
        cohort: of LUNA-16's kind, with the detector's `score`.
        n: how many of each.
        rows: title -> row numbers of the cohort to show instead.

    Raises:
        InputError: a cohort without scores and no rows, or without one of the two kinds.
    """
    shown = dict(rows) if rows is not None else strongest(cohort.nodules, n)
    table = cohort.nodules
    across = int(np.ceil(np.sqrt(max(len(np.asarray(r)) for r in shown.values()))))
    down = across
    middle = cohort.views.shape[-1] / 2
    part = slice(int(middle - _SHOWN_MM / 2), int(middle + _SHOWN_MM / 2))
    with style.house_style():
        figure = Figure(figsize=(3.7 * len(shown), 4.3), layout="constrained")
        for block, (title, numbers) in zip(
            figure.subfigures(1, len(shown), squeeze=False)[0], shown.items(), strict=True
        ):
            block.suptitle(title, fontsize=10)
            axes = block.subplots(down, across, squeeze=False).ravel()
            for ax in axes[len(np.asarray(numbers)) :]:
                ax.set_axis_off()
            for ax, row in zip(axes, np.asarray(numbers, int), strict=False):
                grey = cohort.views[row, _AXIAL][part, part]
                hu = grey.astype(float) * (1400 / 255) - 1000
                draw_image(ax, hu, (1.0, 1.0), style.SIMULATED if cohort.simulated else "")
                draw_title(ax, _caption(table.iloc[row]))
    spoken = " and ".join(f"{len(np.asarray(r))} {t}" for t, r in shown.items())
    return style.describe(figure, f"Axial images of {_SHOWN_MM} mm: {spoken}.")


def strongest(table: pd.DataFrame, n: int = 9) -> dict[str, NDArray[np.int64]]:
    """Rows of the n strongest false positives, and of n nodules spread evenly over their scores.

    A nodule is shown once, by its strongest candidate.

    Raises:
        InputError: no `score`, or none of one kind.
    """
    if "score" not in table:
        raise InputError("the cohort has no scores of a detector; name the rows to show")
    kinds = kind(table)
    order = np.argsort(-table["score"].to_numpy(float), kind="stable")
    false = order[kinds[order] == FALSE_POSITIVE][:n]
    hits = order[kinds[order] == NODULE]
    own = table[["series_uid", "hit"]].iloc[hits].reset_index(drop=True).drop_duplicates()
    hits = hits[own.index.to_numpy()]
    if not len(false) or not len(hits):
        raise InputError("the cohort lacks nodules or false positives; take more scans")
    spread = np.unique(np.linspace(0, len(hits) - 1, min(n, len(hits))).round().astype(int))
    return {"strongest false positives": false, "nodules": hits[spread]}


def whereabouts(table: pd.DataFrame, chance: Mapping[str, float] | None = None) -> Figure:
    """What the false positives of a simulated cohort lie on.

    Args:
        table: candidates with `lies_on`.
        chance: the same shares for points drawn at random in the lungs.

    Raises:
        InputError: no `lies_on`, or no false positive.
    """
    shares = shares_on(table)
    names = list(shares.index)
    at = np.arange(len(names))
    with style.house_style():
        figure = Figure(figsize=(6.2, 2.8), layout="constrained")
        ax = figure.subplots()
        ax.barh(at, 100 * shares.to_numpy(), height=0.6, color=style.SKY, label="false positives")
        if chance is not None:
            ax.scatter([100 * chance.get(name, 0.0) for name in names], at, marker="|", s=160,
                       color=style.BLACK, label="any point in the lungs", zorder=3)  # fmt: skip
            ax.legend(loc="lower right")
        ax.set_yticks(at, names)
        ax.invert_yaxis()
        ax.set_xlabel("share, %")
    spoken = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
    return style.describe(figure, f"What false positives lie on, as bars: {spoken}.")


def shares_on(table: pd.DataFrame) -> pd.Series:
    """Share of the false positives that lies on each part of the anatomy, largest first.

    Raises:
        InputError: no `lies_on`, or no false positive.
    """
    if "lies_on" not in table:
        raise InputError("only simulated candidates say what they lie on")
    false = table.loc[kind(table) == FALSE_POSITIVE, "lies_on"]
    if false.empty:
        raise InputError("no false positive in the table")
    return false.value_counts(normalize=True)


def _caption(row: pd.Series) -> str:
    if row["label"] == 1:
        return f"{row['diameter_mm']:.0f} mm"
    return str(row.get("lies_on", ""))


# Candidates side by side by what they are: nodules, and what else a detector takes for one.


def kinds_figure(cohort: Cohort, places: Sequence[str], n: int = 7) -> Figure:
    """A row of nodules, and a row of false positives for each part of the anatomy they lie on.

    Each row is spread evenly over the detector's scores, its surest candidate first.

    Args:
        cohort: of simulated candidates, with `score` and `lies_on`.
        places: of `labkit.simulate.scene.KINDS`; those that no candidate lies on are left
            out.
        n: candidates in a row.

    Raises:
        InputError: a cohort without scores or places, or with nothing to show.
    """
    rows = kinds_rows(cohort, places, n)
    table = cohort.nodules
    middle = cohort.views.shape[-1] // 2
    part = slice(middle - _SHOWN_MM // 2, middle + _SHOWN_MM // 2)
    with style.house_style():
        figure = Figure(figsize=(1.15 * n + 0.8, 1.32 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), n, squeeze=False)
        for axes, (name, numbers) in zip(grid, rows.items(), strict=True):
            for ax in axes[len(numbers) :]:
                ax.set_axis_off()
            for ax, number in zip(axes, numbers, strict=False):
                hu = cohort.views[number, _AXIAL][part, part].astype(float) * (1400 / 255) - 1000
                draw_image(ax, hu, (1.0, 1.0), style.SIMULATED if cohort.simulated else "")
                of = table.iloc[number]
                draw_title(ax, f"{of['diameter_mm']:.0f} mm" if name == NODULE else "")
            axes[0].set_ylabel(name, fontsize=10)
    spoken = ", ".join(f"{len(numbers)} on {name}" for name, numbers in rows.items())
    return style.describe(
        figure, f"Axial images of {_SHOWN_MM} mm, the detector's surest first: {spoken}."
    )


def kinds_rows(cohort: Cohort, places: Sequence[str], n: int) -> dict[str, NDArray[np.int64]]:
    """Name of a row -> numbers of the candidates in it; a nodule is shown once."""
    table = cohort.nodules
    missing = [column for column in ("score", "lies_on") if column not in table]
    if missing:
        raise InputError(f"the cohort lacks {', '.join(missing)}; only a simulated one has both")
    kinds = kind(table)
    order = np.argsort(-table["score"].to_numpy(float), kind="stable")
    hits = order[kinds[order] == NODULE]
    first = ~table[["series_uid", "hit"]].iloc[hits].duplicated().to_numpy()
    found = {NODULE: hits[first]}
    false = order[kinds[order] == FALSE_POSITIVE]
    for place in places:
        found[place] = false[(table["lies_on"].iloc[false] == place).to_numpy()]
    rows = {name: _spread(numbers, n) for name, numbers in found.items() if len(numbers)}
    if not rows:
        raise InputError("the cohort has no candidate of these kinds; take more scans")
    return rows


def _spread(numbers: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    at = np.linspace(0, len(numbers) - 1, min(n, len(numbers))).round().astype(int)
    return numbers[at]
