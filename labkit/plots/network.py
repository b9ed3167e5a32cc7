"""Fig. 3 drawn from the modules: the network's own table of shapes and parameters.

Computed from the modules themselves, so that table and drawing cannot say anything else than what
is trained.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn

from labkit.models.mtcnn import IMAGE_SIZE, MTCNN, STCNN
from labkit.plots import style

_BRANCHES = {"share": "ShareNet", "classify": "ClsNet", "reconstruct": "ImgNet"}
_COLOURS = {"ShareNet": style.SKY, "ClsNet": style.ORANGE, "ImgNet": style.GREEN}
_KINDS = {
    "Conv2d": "convolution", "MaxPool2d": "max pooling", "Linear": "fully connected",
    "UpsampledDeconv": "upsampling + deconvolution", "Dropout": "dropout",
}  # fmt: skip
_ARROW = {"arrowstyle": "->", "lw": 0.9}


def network_table(network: MTCNN | STCNN) -> pd.DataFrame:
    """The table behind Fig. 3: every layer with its output's shape and its parameters.

    Shapes come from sending an empty image through; layers that only bend (ReLU, flatten) are
    left out.

    Returns:
        Columns: branch, layer, output (channels x height x width, or neurons), parameters.

    >>> table = network_table(STCNN())
    >>> table["layer"][0], table["output"][0], int(table["parameters"][0])
    ('convolution 5 x 5', '24 x 64 x 64', 624)
    """
    rows: list[dict[str, Any]] = []

    def note(branch: str, layer: nn.Module, output: torch.Tensor) -> None:
        name = _KINDS[type(layer).__name__]
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            name += " {} x {}".format(*layer.kernel_size)
        rows.append(
            {
                "branch": branch,
                "layer": name,
                "output": " x ".join(map(str, output.shape[1:])),
                "parameters": sum(p.numel() for p in layer.parameters()),
            }
        )

    hooks = []
    for attribute, branch in _BRANCHES.items():
        for layer in getattr(network, attribute, ()):
            skipped = isinstance(layer, nn.Dropout) and layer.p == 0
            if type(layer).__name__ in _KINDS and not skipped:
                hooks.append(
                    layer.register_forward_hook(
                        lambda layer, _, output, branch=branch: note(branch, layer, output)
                    )
                )
    try:
        weight = next(network.parameters())
        with torch.inference_mode():
            network(torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE, device=weight.device))
    finally:
        for hook in hooks:
            hook.remove()
    return pd.DataFrame(rows)


def network_figure(network: MTCNN | STCNN) -> Figure:
    """Fig. 3, drawn from the modules: ShareNet and ClsNet to the right, ImgNet back to the left.

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
    depth = -1.88 if "ImgNet" in rows else -0.65
    width = last + 3.8
    with style.house_style():
        figure = Figure(figsize=(0.92 * width, 0.92 * (0.75 - depth)), layout="constrained")
        ax = figure.subplots()
        for branch, shapes in rows.items():
            spots = places[branch]
            for (x, y), shape in zip(spots, shapes, strict=True):
                _draw_block(ax, x, y, shape, _COLOURS[branch])
            # Each branch goes on where ShareNet ends.
            path = spots if branch == "ShareNet" else [(float(last), spots[0][1]), *spots]
            for (x0, y0), (x1, _) in pairwise(path):
                middle, half = (x0 + x1) / 2, 0.08 * (x1 - x0)
                ax.annotate("", (middle + half, y0), (middle - half, y0), arrowprops=_ARROW)
            above = 0.46 if branch != "ImgNet" else 0.4
            left = min(x for x, _ in spots) - 0.32
            ax.text(left, spots[0][1] + above, branch, weight="bold", fontsize=11)
        if "ImgNet" in rows:
            ax.plot([last, last, last - 0.92], [-0.68, -1.25, -1.25], color=style.BLACK, lw=0.8)
        ax.set(xlim=(-0.5, width - 0.5), ylim=(depth, 0.75), aspect="equal")
        ax.axis("off")
    words = "; ".join(
        f"{branch}: " + ", ".join(" x ".join(map(str, shape)) for shape in shapes)
        for branch, shapes in rows.items()
    )
    return style.describe(figure, f"The network as boxes whose size is the output's size. {words}.")


def _draw_block(ax: Axes, x: float, y: float, shape: tuple[int, ...], colour: str) -> None:
    """A stack of squares for feature maps, a column for neurons, centred on (x, y)."""
    if len(shape) == 1:
        height = 0.12 + 0.68 * shape[0] / 256
        box = Rectangle((x - 0.05, y - height / 2), 0.1, height, fc=colour, ec=style.BLACK, lw=0.6)
        ax.add_patch(box)
        text = f"{shape[0]}"
    else:
        channels, side = shape[0], 0.1 + 0.52 * shape[1] / IMAGE_SIZE
        sheets = 1 if channels == 1 else 2 + channels // 16
        for k in reversed(range(sheets)):
            left = x - side / 2 + 0.025 * (k - (sheets - 1) / 2)
            low = y - side / 2 + 0.025 * (k - (sheets - 1) / 2)
            box = Rectangle((left, low), side, side, fc=colour, ec=style.BLACK, lw=0.6)
            ax.add_patch(box)
        text = " × ".join(map(str, shape))
    ax.text(x, y - 0.45, text, ha="center", va="top", fontsize=7.5)
