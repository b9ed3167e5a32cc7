"""Lesson 04's figures: the network (Fig. 3), its losses (Eq. 1 to 3), and how it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlog1py, xlogy
from torch import nn

from labkit import paths
from labkit.cohorts.cohort import Cohort
from labkit.evaluation.predictions import run_folder
from labkit.imaging.views import window
from labkit.io import read_json
from labkit.models.mtcnn import IMAGE_SIZE, MTCNN, STCNN
from labkit.paper import results
from labkit.plots import style
from labkit.plots.style import Drawn, Look
from labkit.plots.views import MIDDLE

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
    rows, shared = [], next(network.parameters()).new_zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE)
    with torch.inference_mode():
        for attribute, branch in _BRANCHES.items():
            x = shared
            for layer in getattr(network, attribute, ()):
                x = layer(x)
                shared = x if branch == "ShareNet" else shared
                name = _KINDS.get(type(layer).__name__)
                if name is None or getattr(layer, "p", 1) == 0:  # dropout of nothing
                    continue
                if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                    name += " {} x {}".format(*layer.kernel_size)
                shape = " x ".join(map(str, x.shape[1:]))
                parameters = sum(p.numel() for p in layer.parameters())
                rows.append((branch, name, shape, parameters))
    return pd.DataFrame(rows, columns=["branch", "layer", "output", "parameters"])


@style.figure
def network_figure(network: MTCNN | STCNN) -> Drawn:
    """Draw Fig. 3 from the modules: ShareNet and ClsNet to the right, ImgNet back to the left.

    A square's side is the map's side, its stack the number of channels; every map of ImgNet stands
    below the map of ShareNet that it mirrors. Below each: channels x height x width.
    """
    table = network_table(network).query("layer != 'dropout'")
    outputs = table["output"].str.split(" x ").map(lambda parts: tuple(map(int, parts)))
    rows = {"ShareNet": [(1, IMAGE_SIZE, IMAGE_SIZE)]}
    for branch, shape in zip(table["branch"], outputs, strict=True):
        rows.setdefault(branch, []).append(shape)
    last = len(rows["ShareNet"]) - 1
    places = {
        "ShareNet": (np.arange(last + 1), 0.0, 0.46),
        "ClsNet": (last + 0.95 + 0.85 * np.arange(3), 0.0, 0.46),
        "ImgNet": (np.arange(last - 2, -1, -2), -1.25, 0.4),
    }
    depth, width = -1.88 if "ImgNet" in rows else -0.65, last + 3.8
    figure, ax = style.subplots(size=(0.92 * width, 0.92 * (0.75 - depth)))
    for branch, shapes in rows.items():
        across, y, above = places[branch]
        for x, shape in zip(across, shapes, strict=True):
            _draw_block(ax, x, y, shape, _BRANCH_COLOURS[branch])
        # Each branch goes on where ShareNet ends.
        path = across if branch == "ShareNet" else np.append(last, across)
        for middle, half in zip((path[1:] + path[:-1]) / 2, 0.08 * np.diff(path), strict=True):
            arrow = Look(arrowstyle="->", lw=0.9)
            ax.annotate("", (middle + half, y), (middle - half, y), arrowprops=arrow)
        ax.text(min(across) - 0.32, y + above, branch, weight="bold", fontsize=11)
    if "ImgNet" in rows:
        ax.plot([last, last, last - 0.92], [-0.68, -1.25, -1.25], color=style.BLACK, lw=0.8)
    ax.set(xlim=(-0.5, width - 0.5), ylim=(depth, 0.75), aspect="equal")
    ax.axis("off")
    return figure


def _draw_block(ax: Axes, x: float, y: float, shape: tuple[int, ...], colour: str) -> None:
    """A stack of squares for feature maps, a column for neurons, centred on (x, y)."""
    wide, tall, sheets = 0.1, 0.12 + 0.68 * shape[0] / 256, 1
    if len(shape) > 1:
        wide = tall = 0.1 + 0.52 * shape[1] / IMAGE_SIZE
        sheets = 1 if shape[0] == 1 else 2 + shape[0] // 16
    for off in 0.025 * (np.arange(sheets)[::-1] - (sheets - 1) / 2):
        corner = (x - wide / 2 + off, y - tall / 2 + off)
        ax.add_patch(Rectangle(corner, wide, tall, fc=colour, ec=style.BLACK, lw=0.6))
    ax.text(x, y - 0.45, " × ".join(map(str, shape)), ha="center", va="top", fontsize=7.5)


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
        "As printed the loss is lowest where the network is surely wrong, with the minus where it "
        "is surely right"
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
    return figure, "Entropy is highest in mid-grey: an arch from 0 over 0.693 at one half to 0"


@style.figure
def slopes_figure(loss: Callable[[NDArray[Any]], float], ways: Mapping[str, NDArray[Any]]) -> Drawn:
    """Draw the loss of a network of two weights as a map, ways down it, and the loss on the way.

    `loss`: of the two weights; `ways`: name -> (steps, 2) weights, the first ones first.
    """
    figure, (left, right) = style.subplots(1, 2, (9.0, 3.9))
    reach = 4.0
    side = np.linspace(-reach, reach, 61)
    heights = np.array([[loss(np.array([a, b])) for a in side] for b in side])
    lines = left.contour(side, side, heights, levels=np.arange(0.3, 1.8, 0.1), cmap="viridis")
    left.clabel(lines, lines.levels[::2], fontsize=8)
    ends = {}
    for (name, way), colour in zip(ways.items(), (style.VERMILION, style.BLUE), strict=False):
        values = [loss(w) for w in way]
        left.plot(*way.T, ".-", color=colour, lw=1, ms=4, label=name)
        right.plot(values, color=colour, label=name)
        ends[f"loss of {name}, {len(way) - 1} steps:"] = f"{values[0]:.3f} to {values[-1]:.3f}"
    left.plot(0, 0, "x", color=style.BLACK, ms=8)
    left.set(xlabel="first weight", ylabel="second weight", aspect="equal", title="where they go")
    left.set(xlim=(-reach, reach), ylim=(-reach, reach))
    right.axhline(np.log(2), color=style.GREY, ls=":", lw=1)
    look = Look(va="bottom", ha="right", transform=right.get_yaxis_transform())
    right.text(1, np.log(2), "a coin", color=style.GREY, **look)
    right.set(xlabel="step", ylabel="loss", title="how fast")
    right.legend()
    return figure, "The map has two valleys, and a saddle at zero", ends


def signal(network: STCNN, images: torch.Tensor) -> pd.Series:
    """Compute the root mean square of what leaves each layer with weights, before its ReLU.

    Of images (B, 1, 64, 64); one value a convolution or fully connected layer of the classifier.

    >>> signal(STCNN(), torch.rand(4, 1, 64, 64)).index.tolist()
    ['conv 1', 'conv 2', 'conv 3', 'FC1', 'FC2', 'output']
    """
    convs, sizes, x = [f"conv {k + 1}" for k in range(network.depth)], list[float](), images
    with torch.inference_mode():
        for layer in (*network.eval().share, *network.classify):
            x = layer(x)
            if isinstance(layer, nn.Conv2d | nn.Linear):
                sizes.append(float(x.square().mean().sqrt()))
    return pd.Series(sizes, [*convs, "FC1", "FC2", "output"])


@style.figure
def signals_figure(signals: Mapping[str, pd.Series]) -> Drawn:
    """Draw how large a signal is behind each layer, on a logarithmic scale, by first weights."""
    figure, ax = style.subplots(size=(6.0, 3.4))
    looks = Look(color=[style.VERMILION, style.GREEN, style.BLUE], legend=False, logy=True)
    table = pd.DataFrame(dict(signals))
    table.plot(ax=ax, style=["v-", "o-", "^-"], ylabel="root mean square", **looks)
    ax.set_title("signal behind each layer")
    figure.legend(loc="outside right center")
    return figure, table.T


def printed_curves() -> dict[str, Any]:
    """Load the learning curves of the packed run by the printed protocol.

    Returns what its `run.json` says, and `networks`: of each `fold`, `view`, `best_epoch` (the
    first is 0), and the losses `train_cls` and `val_cls` by epoch.
    """
    with run_folder(paths.results() / "predictions" / "real_st_printed.tar.xz") as folder:
        about = read_json(folder / "run.json", "a run")
        curves = pd.read_csv(folder / "history.csv")
    losses = curves.groupby(["fold", "view"]).agg(
        {"best_epoch": "first", "train_cls": list, "val_cls": list}
    )
    return {**about, "networks": losses.reset_index().to_dict("records")}


@style.figure
def curves_figure(curves: Mapping[str, Any], marks: Mapping[str, int]) -> Drawn:
    """Draw every network's validation loss, one in colour beside its training loss, and its best.

    `curves`: as `printed_curves` loads them; `marks`: words -> epoch, counted from 1, to draw a
    line at.
    """
    figure, ax = style.subplots(size=(8.0, 4.0))
    networks = curves["networks"]
    for of in networks:
        loss = pd.Series(of["val_cls"]).rename(lambda epoch: epoch + 1)
        ax.plot(loss, color=style.GREY, lw=0.6, alpha=0.5)
        ax.plot(of["best_epoch"] + 1, loss.iloc[of["best_epoch"]], ".", color=style.GREY, ms=6)
    one, best = networks[0], networks[0]["best_epoch"] + 1
    epochs = range(1, len(one["val_cls"]) + 1)
    name = "one network, training (with dropout)"
    ax.plot(epochs, one["train_cls"], color=style.SKY, lw=1.8, label=name)
    ax.plot(epochs, one["val_cls"], color=style.BLUE, lw=1.8, label="the same, validation")
    look = Look(color=style.VERMILION, label="its best epoch: kept")
    ax.plot(best, one["val_cls"][best - 1], "o", **look)
    for words, epoch in marks.items():
        ax.axvline(epoch, color=style.BLACK, ls=":", lw=1)
        ax.text(epoch, 0.97, f" {words}", transform=ax.get_xaxis_transform(), va="top", fontsize=9)
    ax.set(xlabel="epoch", ylabel="classification loss", ylim=(0, 0.85))
    style.mark_kind(ax, curves["cohort"]["simulated"])
    figure.legend(loc="outside upper left", ncols=3)
    ran = [len(of["val_cls"]) for of in networks]
    stopped = f"{len(networks)} networks stopped after {min(ran)} to {max(ran)} epochs"
    return figure, f"{stopped}; the one in colour was best in epoch {best} of {ran[0]}"


def stopped() -> pd.DataFrame:
    """Tabulate of every committed sweep when its networks stopped, and how many never learnt.

    Returns:
        One row a (figure, images): networks, at most (epochs), median epochs, at chance, date,
        machine. A network that serves several figures counts in each.
    """
    rows = {}
    for name, images in results.there(results.COHORTS):
        values = results.read(name, images)
        trained = pd.DataFrame([of["trained"] for of in values.get("variants", {}).values()])
        if "epochs_a_network" not in trained or trained["epochs_a_network"].isna().any():
            continue
        rows[name, images] = {
            "networks": trained["networks"].sum(), "at most": values["config"]["epochs"],
            "median epochs": trained["epochs_a_network"].median(),
            "at chance": trained["at_chance"].sum(),
            "date": values["date"][:10], "machine": values["hardware"]["processor"],
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")
