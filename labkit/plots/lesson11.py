"""Lesson 11's figures: candidates in a scan, what they look like, and one nodule among hundreds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.froc import RATES
from labkit.imaging.volume import Volume
from labkit.plots import style
from labkit.plots.style import SIMULATED, Drawn, Look, method_colours, titles

Found = tuple[float, int, int]
"""Candidates a scan, nodules hit, nodules."""
NODULE, EXCLUDED, FALSE_POSITIVE = "nodule", "excluded", "false positive"
_LOOKS = {NODULE: (style.GREEN, "o"), EXCLUDED: (style.ORANGE, "s"),
          FALSE_POSITIVE: (style.SKY, "D")}  # fmt: skip
_SHOWN_MM = 40


def kind(table: pd.DataFrame) -> NDArray[np.str_]:
    """Return what each candidate of a cohort's table is: nodule, excluded, or false positive."""
    excluded = table["excluded"].to_numpy() == 1
    label = table["label"].to_numpy(int)
    return np.where(label == 1, NODULE, np.where(excluded, EXCLUDED, FALSE_POSITIVE))


@style.figure
def on_slice(volume: Volume, table: pd.DataFrame, z_mm: float, mark: str = SIMULATED) -> Drawn:
    """Draw the axial slice of a scan nearest to z_mm, with the candidates at most 5 mm off it.

    `table`: candidates, as a LUNA-16 cohort has them; those of other series are left out.
    """
    if not np.allclose(volume.direction, np.eye(3)):
        raise InputError("only scans whose axes run along the world's can be drawn with marks")
    row = round((z_mm - volume.origin_xyz_mm[2]) / volume.spacing_xyz_mm[2])
    if not 0 <= row < volume.shape[0]:
        raise InputError(f"z = {z_mm:g} mm lies outside the scan; take a candidate's z_mm")
    near = (table["z_mm"] - z_mm).abs() <= 5
    own = table[near & (table["series_uid"] == volume.series_uid)]
    px, py, _ = volume.spacing_xyz_mm
    # Marks go to the image's own axes, whose origin is its middle.
    wide = np.array([volume.shape[2] * px, volume.shape[1] * py])
    middle = volume.world_from_index((row, -0.5, -0.5))[:2] + wide / 2
    figure, ax = style.subplots(size=(6.2, 6.2 * wide[1] / wide[0]))
    style.show_ct(ax, volume.voxels[row], pixel_mm=(py, px), mark=mark)
    for name, (color, shape) in _LOOKS.items():
        x, y = (own.loc[kind(own) == name, ["x_mm", "y_mm"]].to_numpy(float) - middle).T
        ax.plot(x, y, shape, ms=9.5, mew=1.6, mfc="none", mec=color, label=f"{name}: {len(x)}")
    style.scale_bar(ax, 50.0)
    look = Look(labelcolor="white", facecolor="black", framealpha=0.6, frameon=True)
    ax.legend(loc="upper right", **look)
    return figure


@style.figure
def lies_on_figure(table: pd.DataFrame, chance: Mapping[str, float] | None = None) -> Drawn:
    """Draw what false positives of a simulated cohort lie on; `chance`: points in the lungs."""
    shares = 100 * shares_on(table)
    figure, ax = style.subplots(size=(6.2, 2.8))
    style.named_bars(ax, shares, style.SKY, height=0.6, label="false positives")
    if chance is not None:
        any_point = [100 * chance.get(name, 0.0) for name in shares.index]
        look = Look(ms=12, mew=1.8, color=style.BLACK, label="any point in the lungs")
        ax.plot(any_point, range(len(shares)), "|", **look)
        ax.legend(loc="lower right")
    ax.set_xlabel("share, %")
    return figure, shares


def shares_on(table: pd.DataFrame) -> pd.Series:
    """Compute the share of the false positives on each part of the anatomy, largest first."""
    if "lies_on" not in table:
        raise InputError("only simulated candidates say what they lie on")
    return table.loc[kind(table) == FALSE_POSITIVE, "lies_on"].value_counts(normalize=True)


@style.figure
def kinds_figure(cohort: Cohort, places: Sequence[str]) -> Drawn:
    """Draw nodules in a row, and of simulated false positives a row for each of some places.

    Each row of seven is spread evenly over the detector's scores, its surest candidate first;
    `places` are of `simulate.scene.KINDS`.
    """
    rows = kinds_rows(cohort, places, 7)
    start = (cohort.views.shape[-1] - _SHOWN_MM) // 2
    part = slice(start, start + _SHOWN_MM)
    images = [cohort.views[of, 0, part, part] * (1400 / 255) - 1000 for of in rows.values()]
    mm = cohort.nodules["diameter_mm"].iloc[rows.get(NODULE, np.array([], int))]
    look = Look(columns=[f"{of:.0f} mm" for of in mm], mark=SIMULATED * cohort.simulated)
    figure, _ = style.image_grid(images, inches=1.15, words=0.17, rows=list(rows), **look)
    counts = {name: len(numbers) for name, numbers in rows.items()}
    return figure, f"{_SHOWN_MM} mm, the detector's surest first", counts


def kinds_rows(cohort: Cohort, places: Sequence[str], n: int) -> dict[str, NDArray[np.int64]]:
    """Return the name of a row -> numbers of the candidates in it; a nodule is shown once."""
    table = cohort.nodules
    missing = [column for column in ("score", "lies_on") if column not in table]
    if missing:
        raise InputError(f"the cohort lacks {', '.join(missing)}; only a simulated one has both")
    table = table.reset_index(drop=True).sort_values("score", ascending=False, kind="stable")
    false = table[kind(table) == FALSE_POSITIVE]
    found = {NODULE: table[kind(table) == NODULE].drop_duplicates(["series_uid", "hit"])}
    found |= {place: false[false["lies_on"] == place] for place in places}
    rows = {}
    for name, of in found.items():
        if len(of):
            spread = np.linspace(0, len(of) - 1, min(n, len(of))).round().astype(int)
            rows[name] = of.index.to_numpy()[spread]
    return rows


@style.figure
def detector_figure(values: style.Values, here: Found, where: str) -> Drawn:
    """Draw nodules hit against candidates a scan: the tuning scans, other scans, LUNA-16 itself.

    What a detector finds is the ceiling of all that is learnt from its candidates. `values`: of
    results/luna16_detector.json; `here`: what it did on simulated scans that it was not tuned on,
    `where`.
    """
    curve, scans = values["curve"], values["settings"]["scans"]
    figure, ax = style.subplots()
    label = f"{scans} scans of the tuning, threshold moved"
    ax.plot(curve["candidates_a_scan"], curve["sensitivity"], color=style.BLUE, lw=1.2, label=label)
    keys, found = ("candidates_a_scan", "hit", "nodules"), dict[str, statistics.Interval]()
    for name, (candidates, hit, nodules), colour, marker in (
        ("at work, same scans", [values[key] for key in keys], style.BLUE, "o"),
        (where, here, style.VERMILION, "s"),
        ("LUNA-16, as published", [values["luna16"][key] for key in keys], style.BLACK, "D"),
    ):
        (low,), (high,) = statistics.wilson([hit / nodules], [nodules])
        found[name] = statistics.Interval(hit / nodules, low, high)
        label = f"{name}: {hit:,.0f} of {nodules:,}"
        style.whisker(ax, candidates, found[name], colour, marker, label, ls="")
    ax.axhline(1, color=style.GREY, lw=0.8, ls=":")
    ax.set(xscale="log", xlabel="candidates a scan", ylabel="share of nodules hit")
    ax.set(ylim=(0.3, 1.03), xlim=(None, 1_100))
    style.name_ticks(ax, [2, 5, 10, 20, 50, 100, 200, 500, 1000])
    ax.legend(loc="lower right")
    titles(ax, "", True)
    return figure, found


@style.figure
def two_axes_figure(
    scored: Mapping[str, tuple[ArrayLike, ArrayLike]], scans: int, *, simulated: bool = False
) -> Drawn:
    """Draw one ROC curve over candidates twice: against the rate, and against marks a scan.

    The part that the challenge looks at, up to 8 false positives a scan, is shaded in both.
    `scored`: name -> (labels, scores) of the same candidates of some scans.
    """
    figure, (left, right) = style.subplots(1, 2, (9.4, 4.2), sharey=True, width_ratios=[1, 1.25])
    colours, at_8 = method_colours(scored), {}
    for name, (labels, scores) in scored.items():
        y, s = statistics.checked(labels, scores)
        false, true = statistics.roc(y, s)
        a_scan, auc = int((y == 0).sum()) / scans, f"{statistics.roc_auc(y, s):.3f}"
        left.plot(false, true, color=colours[name], label=f"{name}: {auc}")
        right.step(false * a_scan, true, where="post", color=colours[name])
        at_8[f"{name}, at 8 a scan"] = np.interp(RATES[-1] / a_scan, false, true)
    shaded = Look(color=style.YELLOW, alpha=0.45, lw=0)
    left.axvspan(0, RATES[-1] / a_scan, **shaded)
    right.axvspan(RATES[0], RATES[-1], **shaded)
    left.plot([0, 1], [0, 1], color=style.GREY, lw=0.8, ls=":")
    left.set(xlabel="false positive rate", ylabel="share of nodules' candidates called")
    left.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    left.legend(loc="lower right", title="AUC")
    right.set(xscale="log", xlabel="the same, as false positives a scan", xlim=(0.1, 200.0))
    ticks = [*RATES, 20, 50, 100]
    style.name_ticks(right, ticks, [str(Fraction(t)) for t in ticks])
    titles(right, "shaded: what the challenge looks at", simulated)
    return figure, at_8


@style.figure
def epochs_figure(labels: ArrayLike, shown: Sequence[ArrayLike]) -> Drawn:
    """Draw what the sampler shows: the mixture of an epoch, and the candidates met so far.

    `labels`: (n,) 1 a nodule; `shown`: of each epoch, in order, which candidates its images are of.
    """
    y, epochs = np.asarray(labels, int), len(shown)
    figure, (left, right) = style.subplots(1, 2, (8.6, 3.2), width_ratios=[1.2, 1])
    mixtures = {"as they come": y, "as an epoch shows them": y[np.asarray(shown[0], int)]}
    for at, (name, of) in enumerate(mixtures.items()):
        share, label = 100 * of.mean(), (None, None) if at else ("nodule", "not")
        left.barh(at, share, color=style.GREEN, height=0.5, label=label[0])
        left.barh(at, 100 - share, left=share, color=style.SKY, height=0.5, label=label[1])
        text = f"{name}: {len(of):,} images, {share:.1f} % of nodules"
        left.text(0, at - 0.36, text, fontsize=9, va="bottom")
    left.set(xlim=(0, 100), ylim=(1.6, -0.75), xlabel="share, %", yticks=[])
    left.legend(loc="upper right", ncols=2, bbox_to_anchor=(1, 1.16))
    seen = np.zeros((epochs, len(y)), bool)
    for k, rows in enumerate(shown):
        seen[k:, np.asarray(rows, int)] = True
    both = {"nodules": seen[:, y == 1], "others": seen[:, y == 0]}
    met = pd.DataFrame({name: 100 * of.mean(axis=1) for name, of in both.items()})
    met.index += 1
    met.plot(ax=right, style="o-", ms=4, color=[style.GREEN, style.SKY])
    right.set(xlabel="epoch", ylabel="candidates met so far, %", ylim=(0, 104))
    right.set_xticks(np.unique(np.linspace(1, epochs, 6).round().astype(int)))
    right.legend(loc="best")
    return figure, {f"{name} met at last, %:": of.iloc[-1] for name, of in met.items()}


@style.figure
def reliability_figure(tables: style.Tables, *, simulated: bool = False) -> Drawn:
    """Draw predicted against observed share of nodules, on logarithmic axes, for rare nodules.

    `tables`: name -> what `evaluation.calibration.reliability_table` returns. An open triangle at
    the foot: no nodule in the bin.
    """
    every = pd.concat(list(tables.values()))[["predicted", "high", "observed"]].to_numpy()
    # The decade below all that the tables have to show.
    least = float(10.0 ** np.floor(np.log10(max(1e-6, every[every > 0].min()))))
    figure, ax = style.subplots(size=(5.4, 4.6))
    ax.plot([least, 1], [least, 1], color=style.GREY, lw=0.8, ls=":")
    for (name, table), colour in zip(tables.items(), style.COLOURS, strict=False):
        some, none = table[table["observed"] > 0], table[table["observed"] == 0]
        for of, alpha in ((some, 1.0), (none, 0.5)):
            low = np.maximum(of["low"], least)
            ax.vlines(of["predicted"], low, of["high"], color=colour, lw=1.2, alpha=alpha)
        ax.plot(some["predicted"], some["observed"], "o", color=colour, label=name)
        foot = np.full(len(none), 1.15 * least)
        ax.plot(none["predicted"], foot, "v", mfc="white", color=colour)
    ax.set(xscale="log", yscale="log", xlim=(least, 1.3), ylim=(least, 1.3), aspect="equal")
    ax.set_xlabel("predicted probability, mean of a bin")
    ax.set_ylabel("share that are nodules, with 95 % interval")
    titles(ax, "", simulated)
    ax.legend(loc="upper left")
    return figure, {n: t.set_index("predicted")["observed"].to_dict() for n, t in tables.items()}
