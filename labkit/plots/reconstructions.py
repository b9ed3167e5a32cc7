"""Fig. 4 in numbers: how good reconstructions are, where they err, and which detail is lost.

Each function takes the values that `labkit.experiments.fig4` computed, so that a lesson draws
committed results with the same call. Pictures of nodules are drawn by
`plots.training.reconstruction_figure`, which needs the networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import ArrayLike, NDArray

from labkit.errors import InputError
from labkit.evaluation.fidelity import ZONES
from labkit.experiments.declared import ALPHAS
from labkit.imaging.views import PLANES
from labkit.plots import style
from labkit.plots.roc import view_name
from labkit.plots.sweeps import footnote

Values = Mapping[str, Any]
_SPARE = (style.SKY, style.PURPLE, style.ORANGE, style.VERMILION, style.BLUE)
_COLOURS = {
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
                left.axhspan(level["low"], level["high"], color=_COLOURS[way], alpha=0.15, lw=0)
                left.axhline(level["value"], color=_COLOURS[way], lw=1.2, ls="--", label=way)
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
        f"{n}: {_said(of['metrics']['psnr'], 1)} dB, SSIM {_said(of['metrics']['ssim'])}"
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
        known = _COLOURS.get(name) or next(
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


def _said(of: Mapping[str, float], digits: int = 3) -> str:
    return f"{of['value']:.{digits}f} ({of['low']:.{digits}f} to {of['high']:.{digits}f})"
