"""Lesson 05's figures: the network (Fig. 3), its losses (Eq. 1 to 3), and how fast it trains.

Speed is read from the benchmarks' files in `results/`. The roofline model is Williams, Waterman and
Patterson's (2009): a stage that does `intensity` FLOP for every byte it moves cannot be faster than
the lower of peak FLOP/s and intensity times bytes/s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlog1py, xlogy
from torch import nn

from labkit import paths
from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.imaging.views import window
from labkit.io import read_json
from labkit.models.mtcnn import IMAGE_SIZE, MTCNN, STCNN
from labkit.plots import style
from labkit.plots.style import Drawn
from labkit.plots.views import MIDDLE

# The network


_BRANCHES = {"share": "ShareNet", "classify": "ClsNet", "reconstruct": "ImgNet"}
_BRANCH_COLOURS = {"ShareNet": style.SKY, "ClsNet": style.ORANGE, "ImgNet": style.GREEN}
_KINDS = {
    "Conv2d": "convolution", "MaxPool2d": "max pooling", "Linear": "fully connected",
    "UpsampledDeconv": "upsampling + deconvolution", "Dropout": "dropout",
}  # fmt: skip


def network_table(network: MTCNN | STCNN) -> pd.DataFrame:
    """Compute the table behind Fig. 3: every layer with its output's shape and its parameters.

    Columns: branch, layer, output (channels x height x width, or neurons), parameters. Layers that
    only bend (ReLU, flatten) are left out.

    >>> table = network_table(STCNN())
    >>> table["layer"][0], table["output"][0], int(table["parameters"][0])
    ('convolution 5 x 5', '24 x 64 x 64', 624)
    """
    rows: list[dict[str, Any]] = []

    def note(branch: str, layer: nn.Module, output: torch.Tensor) -> None:
        name = _KINDS[type(layer).__name__]
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            name += " {} x {}".format(*layer.kernel_size)
        shape = " x ".join(map(str, output.shape[1:]))
        parameters = sum(p.numel() for p in layer.parameters())
        rows.append({"branch": branch, "layer": name, "output": shape, "parameters": parameters})

    hooks = [
        layer.register_forward_hook(lambda layer, _, out, branch=branch: note(branch, layer, out))
        for attribute, branch in _BRANCHES.items()
        for layer in getattr(network, attribute, ())
        if type(layer).__name__ in _KINDS and not (isinstance(layer, nn.Dropout) and layer.p == 0)
    ]
    try:
        weight = next(network.parameters())
        with torch.inference_mode():
            network(torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE, device=weight.device))
    finally:
        for hook in hooks:
            hook.remove()
    return pd.DataFrame(rows)


@style.figure
def network_figure(network: MTCNN | STCNN) -> Drawn:
    """Draw Fig. 3 from the modules: ShareNet and ClsNet to the right, ImgNet back to the left.

    A square's side is the map's side, its stack the number of channels; every map of ImgNet stands
    below the map of ShareNet that it mirrors. Below each: channels x height x width.
    """
    table = network_table(network)
    table = table[table["layer"] != "dropout"]
    rows: dict[str, list[tuple[int, ...]]] = {"ShareNet": [(1, IMAGE_SIZE, IMAGE_SIZE)]}
    for branch, output in zip(table["branch"], table["output"], strict=True):
        rows.setdefault(branch, []).append(tuple(map(int, output.split(" x "))))
    last = len(rows["ShareNet"]) - 1
    places = {
        "ShareNet": [(float(k), 0.0) for k in range(last + 1)],
        "ClsNet": [(last + 0.95 + 0.85 * k, 0.0) for k in range(3)],
        "ImgNet": [(float(k), -1.25) for k in range(last - 2, -1, -2)],
    }
    depth, width = -1.88 if "ImgNet" in rows else -0.65, last + 3.8
    figure, ax = style.subplots(size=(0.92 * width, 0.92 * (0.75 - depth)))
    arrow = {"arrowstyle": "->", "lw": 0.9}
    for branch, shapes in rows.items():
        spots = places[branch]
        for (x, y), shape in zip(spots, shapes, strict=True):
            _draw_block(ax, x, y, shape, _BRANCH_COLOURS[branch])
        # Each branch goes on where ShareNet ends.
        path = spots if branch == "ShareNet" else [(float(last), spots[0][1]), *spots]
        for (x0, y0), (x1, _) in pairwise(path):
            middle, half = (x0 + x1) / 2, 0.08 * (x1 - x0)
            ax.annotate("", (middle + half, y0), (middle - half, y0), arrowprops=arrow)
        above, left = 0.4 if branch == "ImgNet" else 0.46, min(x for x, _ in spots) - 0.32
        ax.text(left, spots[0][1] + above, branch, weight="bold", fontsize=11)
    if "ImgNet" in rows:
        ax.plot([last, last, last - 0.92], [-0.68, -1.25, -1.25], color=style.BLACK, lw=0.8)
    ax.set(xlim=(-0.5, width - 0.5), ylim=(depth, 0.75), aspect="equal")
    ax.axis("off")
    words = [f"{b}: " + ", ".join(" x ".join(map(str, s)) for s in of) for b, of in rows.items()]
    return figure, f"The network as boxes whose size is the output's size. {'; '.join(words)}."


def _draw_block(ax: Axes, x: float, y: float, shape: tuple[int, ...], colour: str) -> None:
    """A stack of squares for feature maps, a column for neurons, centred on (x, y)."""
    wide, tall, sheets = 0.1, 0.12 + 0.68 * shape[0] / 256, 1
    if len(shape) > 1:
        wide = tall = 0.1 + 0.52 * shape[1] / IMAGE_SIZE
        sheets = 1 if shape[0] == 1 else 2 + shape[0] // 16
    for k in reversed(range(sheets)):
        off = 0.025 * (k - (sheets - 1) / 2)
        corner = (x - wide / 2 + off, y - tall / 2 + off)
        ax.add_patch(Rectangle(corner, wide, tall, fc=colour, ec=style.BLACK, lw=0.6))
    ax.text(x, y - 0.45, " × ".join(map(str, shape)), ha="center", va="top", fontsize=7.5)


# The losses


def pixel_entropy(values: ArrayLike) -> NDArray[np.float64]:
    """Compute grey values' binary entropy in nats: what their cross-entropy cannot go below.

    >>> pixel_entropy([0.0, 0.5, 1.0]).round(3).tolist()
    [0.0, 0.693, 0.0]
    """
    z = np.asarray(values, dtype=float)
    return np.abs(xlogy(z, z) + xlog1py(1 - z, -z))


@style.figure
def minus_sign_figure() -> Drawn:
    """Draw Eq. 2 of a malignant nodule as printed and with its minus, and where it leads."""
    p = np.linspace(0.01, 0.99, 197)
    figure, axes = style.subplots(1, 2, (8.4, 3.3))
    for ax, sign, title, end, height, words in (
        (axes[0], 1, "Eq. 2 as printed", 0.25, 0.08, "learns to be surely wrong"),
        (axes[1], -1, "with the minus", 0.85, 0.85, "learns to be surely right"),
    ):
        ax.plot(p, sign * np.log(p), color=style.MALIGNANT)
        at, to = ((x, sign * np.log(x)) for x in (0.55, end))  # a ball, and where it is moved
        ax.plot(*at, "o", color=style.BLACK, ms=7)
        ax.annotate("", to, at, arrowprops={"arrowstyle": "-|>", "lw": 1.6, "color": style.BLACK})
        ax.text(0.96, height, words, transform=ax.transAxes, ha="right")
        ax.set(xlabel="predicted probability of malignant", xlim=(0, 1), title=title)
        ax.set_ylabel("loss of a malignant nodule")
    return figure, (
        "Loss of a malignant nodule by predicted probability. As printed it is lowest where the "
        "network is surely wrong; with the minus where it is surely right."
    )


@style.figure
def floor_figure(cohort: Cohort, row: int) -> Drawn:
    """Draw where the reconstruction loss has its floor: an axial view, and its pixels' entropy."""
    image = window(cohort.views[row, 0][MIDDLE])
    entropy = pixel_entropy(image)
    figure, (left, middle, right) = style.subplots(1, 3, (8.8, 3.1))
    mark = style.SIMULATED * cohort.simulated
    style.show_ct(left, image, 0, 1, mark=mark)
    left.set_title("image, 0 to 1")
    style.show_ct(middle, entropy, 0, float(np.log(2)), cmap="viridis", mark=mark)
    middle.set_title(f"entropy of each pixel, mean {entropy.mean():.3f}")
    figure.colorbar(middle.images[0], ax=middle, label="nats", shrink=0.8)
    grey = np.linspace(0, 1, 201)
    right.plot(grey, pixel_entropy(grey), color=style.BLUE)
    right.set(xlabel="grey value of a pixel", ylabel="lowest possible loss, nats")
    right.set_title("0 for black and white only")
    return figure, (
        f"A nodule; its pixels' entropy, highest in mid-grey, on average {entropy.mean():.3f} "
        "nats; and entropy by grey value, an arch from 0 over 0.693 at one half back to 0."
    )


# The roofline


_LIMITS = {"arithmetic": style.BLUE, "memory": style.VERMILION}


def read(file: Path | None = None) -> dict[str, Any]:
    """Load a measurement of `benchmarks.speed.roofline`; None loads the committed one of a CPU."""
    place = paths.results() / "roofline_cpu.json" if file is None else file
    return _benchmark(place, "roofline", ("roof", "steps", "hardware", "device", "batch_size"))


def _benchmark(file: Path, name: str, keys: Sequence[str]) -> dict[str, Any]:
    cure = f"make it by python -m benchmarks.speed.{name} --out {file}"
    if not file.is_file():
        raise InputError(f"{file}: missing; {cure}")
    found = read_json(file, f"a benchmark of {name}")
    if not all(isinstance(found, dict) and found.get(key) for key in keys):
        raise InputError(f"{file}: not a benchmark of {name}, which has {', '.join(keys)}; {cure}")
    return dict(found)


def table(found: Mapping[str, Any], precision: str | None = None) -> pd.DataFrame:
    """Compute from what `read` gives every stage's cost, its time and what limits it.

    Columns: stage, MFLOP (by the layer's definition), executed (of them, MFLOP; all that follows is
    about these), MB, FLOP/byte, ms, GFLOP/s, share (of the stages' time), limit ("arithmetic" or
    "memory", by the roof), least ms (what the roof allows). `precision`: "fp32" or "bf16"; None
    takes bf16 where it was measured.
    """
    name = _precision(found, precision)
    stages = pd.DataFrame(found["steps"][name]["stages"])
    # On a GPU the kernels alone; what lies between them is not the stage's.
    seconds = stages.get("kernel_seconds", stages["seconds"]).fillna(stages["seconds"])
    flop, size = stages["flop_executed"], stages["bytes"]
    by_flop, by_bytes = flop / found["roof"]["flop_per_s"][name], size / _bandwidth(found)
    return pd.DataFrame(
        {
            "stage": stages["stage"],
            "MFLOP": stages["flop"] / 1e6,
            "executed": flop / 1e6,
            "MB": size / 1e6,
            "FLOP/byte": flop / size,
            "ms": 1e3 * seconds,
            "GFLOP/s": flop / seconds / 1e9,
            "share": seconds / seconds.sum(),
            "limit": np.where(by_flop > by_bytes, "arithmetic", "memory"),
            "least ms": 1e3 * np.maximum(by_flop, by_bytes),
        }
    )


def _precision(found: Mapping[str, Any], precision: str | None) -> str:
    name = precision or ("bf16" if "bf16" in found["steps"] else "fp32")
    if name not in found["steps"]:
        raise InputError(f"{name} was not measured; there is {', '.join(found['steps'])}")
    return name


def _bandwidth(found: Mapping[str, Any]) -> float:
    return float(max(found["roof"]["bytes_per_s"].values()))


@style.figure
def roofline_figure(found: Mapping[str, Any], precision: str | None = None) -> Drawn:
    """Draw stages of a step below the measured roof: FLOP/s against FLOP a byte, both logarithmic.

    A point's area is its share of the stages' time. All roofs are drawn, and the points of one
    precision; None takes bf16 where it was measured.
    """
    name = _precision(found, precision)
    stages, bandwidth = table(found, name), _bandwidth(found)
    stages["area"] = 12 + 900 * stages["share"]
    peaks = found["roof"]["flop_per_s"]
    low = 0.5 * stages["FLOP/byte"].min()
    high = 2.5 * max(stages["FLOP/byte"].max(), max(peaks.values()) / bandwidth)
    figure, ax = style.subplots(size=(7.8, 5.2))
    for of, peak in peaks.items():
        x, bold = np.array([low, peak / bandwidth, high]), of == name
        y = np.minimum(peak, x * bandwidth) / 1e9
        ax.plot(x, y, color=style.BLACK, lw=1.8 if bold else 0.9, zorder=1)
        beside = {"va": "center", "fontsize": 9, "transform": ax.get_yaxis_transform()}
        weight = "bold" if bold else "normal"
        ax.text(1.01, peak / 1e9, f"{of}\n{_rate(peak)}", fontweight=weight, **beside)
    for limit, colour in _LIMITS.items():
        chosen = stages[stages["limit"] == limit]
        places = (chosen["FLOP/byte"], chosen["GFLOP/s"])
        ax.scatter(*places, s=chosen["area"], color=colour, alpha=0.75, lw=0, zorder=3)
        ax.plot([], [], "o", color=colour, ms=8, label=f"limit: {limit}")
    top = 2.2 * max(peaks.values()) / 1e9
    ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(stages["GFLOP/s"].min() / 2, top))
    ax.set(xlabel="arithmetic intensity, FLOP a byte", ylabel="GFLOP/s")
    cuda = found["device"] == "cuda"
    where = found["hardware"]["gpu" if cuda else "processor"] + ", one core" * (not cuda)
    place = f"{where}, {name}, batch {found['batch_size']}, {found['date'][:10]}"
    ax.set_title(place)
    ax.legend(loc="upper left")
    figure.draw_without_rendering()  # from here on, places in pixels are known
    # The memory's roof, named along its line.
    x = 0.75 * min(peaks.values()) / bandwidth
    across, up = np.diff(ax.transData.transform([(x, x), (10 * x, 10 * x)]), axis=0)[0]
    ax.text(
        x, 1.15 * x * bandwidth / 1e9, f"memory: {_gb(bandwidth)}", fontsize=9,
        rotation=float(np.degrees(np.arctan2(up, across))), rotation_mode="anchor",
        ha="right", va="bottom",
    )  # fmt: skip
    _name_points(ax, stages)
    said = "; ".join(
        f"{s['stage']} {s['FLOP/byte']:.2g} FLOP a byte, {s['GFLOP/s']:.3g} GFLOP/s"
        for s in stages.to_dict("records")
    )
    roofs = ", ".join([*(f"{of} {_rate(peak)}" for of, peak in peaks.items()), _gb(bandwidth)])
    return figure, f"Roofline of {place}. Roofs: {roofs}. Stages: {said}."


def _gb(bytes_per_s: float) -> str:
    return f"{bytes_per_s / 1e9:.3g} GB/s"


def _rate(flop_per_s: float) -> str:
    tera = flop_per_s >= 1e12
    return f"{flop_per_s / (1e12 if tera else 1e9):.3g} {'T' if tera else 'G'}FLOP/s"


def _name_points(ax: Axes, stages: pd.DataFrame) -> None:
    """Write every stage at the nearest free place, the largest point first, with a line if far."""
    to_pixels, inside = ax.transData, ax.get_window_extent()
    unit = ax.figure.dpi / 72
    legend = ax.get_legend()
    taken = [part.get_window_extent() for part in (*ax.texts, *filter(None, [legend]))]
    for line in ax.lines:  # small boxes along them
        for (x0, y0), (x1, y1) in pairwise(to_pixels.transform(line.get_xydata())):
            along = zip(np.linspace(x0, x1, 200), np.linspace(y0, y1, 200), strict=True)
            taken += [Bbox([(x - 1, y - 1), (x + 1, y + 1)]) for x, y in along]
    stages = stages.sort_values("area", ascending=False)
    centres = to_pixels.transform(stages[["FLOP/byte", "GFLOP/s"]].to_numpy())
    radii = unit * np.sqrt(stages["area"].to_numpy() / np.pi)
    taken += [Bbox([c - r, c + r]) for c, r in zip(centres, radii, strict=True)]
    angles = np.deg2rad([0, 180, 270, 90, 315, 45, 225, 135, 292, 68, 248, 112])
    ways = np.tile(np.stack([np.cos(angles), np.sin(angles)], axis=1), (16, 1))
    rings = np.repeat(6 * unit * np.arange(16), len(angles))
    for name, centre, radius in zip(stages["stage"], centres, radii, strict=True):
        text = ax.text(0.5, 0.5, name, fontsize=8.5, ha="center", va="center", zorder=4)
        size = np.array(text.get_window_extent().size)
        steps = ways * ((radius + 2 * unit + rings)[:, None] + np.abs(ways) * size / 2)
        boxes = [Bbox([centre + s - size / 2, centre + s + size / 2]) for s in steps]
        box = next(
            (b for b in boxes if inside.contains(*b.min) and inside.contains(*b.max)
             and not any(b.overlaps(other) for other in taken)),
            boxes[0],
        )  # fmt: skip
        taken.append(box)
        text.set_position(tuple(to_pixels.inverted().transform(box.get_points().mean(axis=0))))
        nearest = np.clip(centre, box.min, box.max)
        if np.hypot(*(nearest - centre)) > radius + 9 * unit:
            ends = to_pixels.inverted().transform([centre, nearest])
            ax.plot(ends[:, 0], ends[:, 1], color=style.GREY, lw=0.7, zorder=2)


@style.figure
def time_figure(found: Mapping[str, Any]) -> Drawn:
    """Draw where a step's time goes, a panel a precision; a tick is the least by the roof."""
    tables = {name: table(found, name) for name in found["steps"]}
    order = next(iter(tables.values()))["stage"].tolist()
    size = (1.6 + 3.4 * len(tables), 1.3 + 0.23 * len(order))
    shared = {"sharex": True, "sharey": True, "squeeze": False}
    figure, (axes,) = style.subplots(1, len(tables), size, **shared)
    words = []
    for ax, (name, stages) in zip(axes, tables.items(), strict=True):
        colours = [_LIMITS[limit] for limit in stages["limit"]]
        ax.barh(range(len(order)), stages["ms"], color=colours, height=0.7)
        for y, least in enumerate(stages["least ms"]):
            ax.plot([least, least], [y - 0.42, y + 0.42], color=style.BLACK, lw=1.8)
        style.name_rows(ax, order)
        ax.set_title(f"{name}: {1e3 * found['steps'][name]['seconds']:.3g} ms a step")
        ax.set_xlabel("ms, forward and backward")
        said = (f"{stage} {ms:.2g}" for stage, ms in zip(order, stages["ms"], strict=True))
        words.append(f"{name}: {', '.join(said)}")
    for limit, colour in _LIMITS.items():
        axes[-1].plot([], [], "s", color=colour, ms=8, label=f"limit: {limit}")
    axes[-1].plot([], [], "|", color=style.BLACK, ms=10, mew=1.8, label="least, by the roof")
    axes[-1].legend(loc="lower right")
    return figure, f"Milliseconds by stage of a training step of one MT-CNN. {'; '.join(words)}."


# The engine against the textbook loop, and networks side by side


def committed(folder: Path | None = None) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Load the benchmarks of training and of layouts in a folder (None: `results/`).

    Returns the comparison with the textbook loop, or None, and one comparison of layouts a machine,
    that of the CPU first. An InputError if neither is there, or a file is not such a benchmark.
    """
    place = paths.results() if folder is None else folder
    files = sorted(place.glob("benchmark_layouts*.json"), key=lambda f: (len(f.name), f.name))
    keys = ("ways", "networks", "batch_size", "precision", "hardware")
    layouts = [_benchmark(file, "layouts", keys) for file in files]
    file = place / "benchmark_training.json"
    if layouts and not file.is_file():
        return None, layouts
    return _benchmark(file, "training", ("ratio", "hardware")), layouts


@style.figure
def speed_figure(
    training: Mapping[str, Any] | None = None, layouts: Sequence[Mapping[str, Any]] = ()
) -> Drawn:
    """Draw bars of updates against the textbook loop, then a panel of layouts for every machine.

    From what `benchmarks.speed.training` and `benchmarks.speed.layouts` wrote.
    """
    if training is None and not layouts:
        raise InputError("there is no benchmark to draw")
    bars = [len(training["ratio"])] * (training is not None) + [len(one["ways"]) for one in layouts]  # type: ignore[index]
    size = (7.6, sum(0.95 + 0.3 * n for n in bars))
    ratios = [n + 1.2 for n in bars]
    figure, axes = style.subplots(len(bars), 1, size, squeeze=False, height_ratios=ratios)
    panels, words = list(axes[:, 0]), []
    if training is not None:
        ax, ratio = panels.pop(0), training["ratio"]
        ends = ["1", *(f"{value:.1f} × as fast" for value in list(ratio.values())[1:])]
        _bars(ax, ratio, ends, [style.GREY] + [style.GREEN] * (len(ratio) - 1))
        ax.set_xlabel("updates in the same time, the textbook loop's as one")
        ax.set_title(f"Nine networks, all cores: {_machine(training)}")
        said = ", ".join(f"{name} {value:.2f}" for name, value in ratio.items())
        words.append(f"Speed of training nine networks, textbook loop as one: {said}.")
    for ax, one in zip(panels, layouts, strict=True):
        ms = {name: way["ms_per_round"] for name, way in one["ways"].items()}
        first, best = next(iter(ms.values())), min(ms.values())
        digits = 0 if best >= 100 else 1
        ends = [
            f"{value:,.{digits}f} ms, {first / value:.2g} × as fast"
            + (f", {_rate(1e12 * flop)}" if (flop := one["ways"][name].get("tflops")) else "")
            for name, value in ms.items()
        ]
        _bars(ax, ms, ends, [style.GREEN if value == best else style.SKY for value in ms.values()])
        ax.set_xlabel(f"ms a step of {one['networks']} networks together (shorter is faster)")
        how = f"{one['precision']}, batch {one['batch_size']}"
        ax.set_title(f"Side by side, {how}: {_machine(one)}")
        said = ", ".join(f"{name} {value:,.{digits}f}" for name, value in ms.items())
        networks = f"{one['networks']} networks on {_machine(one)}"
        words.append(f"Milliseconds of a step of {networks}: {said}.")
    return figure, " ".join(words)


def _bars(ax: Axes, values: Mapping[str, float], ends: list[str], colours: list[str]) -> None:
    drawn = ax.barh(range(len(values)), list(values.values()), color=colours, height=0.66)
    ax.bar_label(drawn, ends, padding=4, fontsize=9)
    ax.set_xlim(0, 1.85 * max(values.values()))  # room for the words
    style.name_rows(ax, list(values))


def _machine(one: Mapping[str, Any]) -> str:
    hardware, date = one["hardware"], str(one.get("date", ""))[:10]
    cuda = one.get("device", "cpu") == "cuda"
    name = hardware["gpu"] if cuda else f"{hardware['processor']} (CPU)"
    return ", ".join(filter(None, [name, date]))
