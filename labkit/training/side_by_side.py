"""Training many networks side by side, each with its own data, schedule and end.

A fixed number of slots is trained at once. In a round every slot goes through one epoch of its own
network; then all are validated, networks that are done leave, and the next ones take their places.
So no slot waits for a network that trains longer, and the arithmetic has the same shape from the
first step to the last. Within a round the device never waits for the host.

Every network gets the numbers that `loop.train_view` gives it: the same first weights, order,
augmentation, dropout, schedule and stopping, whatever is trained beside it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from labkit.models.mtcnn import (
    FILTERS,
    IMAGE_SIZE,
    KERNELS,
    MTCNN,
    STCNN,
    by_phases,
    phase_kernels,
    upsampled_deconv,
)
from labkit.training import batches
from labkit.training.batches import STORED_SIZE, Pixels
from labkit.training.config import TrainingConfig
from labkit.training.loop import (
    Course,
    Row,
    Trained,
    build_network,
    epoch_means,
    left_by,
    lost_batch,
)
from labkit.training.loss import classification_losses, decayed, reconstruction_losses
from labkit.training.machines import Device

# Many networks of one architecture as one: weights stacked, and ways to multiply with them.
#
# A small network leaves a GPU idle: its kernels end sooner than the next one is launched. Networks
# that differ in their weights and data alone (nine views, ten folds) can share every kernel, if the
# kernel is told apart by network. There are several ways to do so, and which is fastest depends on
# the device (`labkit.training.side_by_side` measures it); all compute the same.
#
# Shapes: M networks, B images each.


FC_WIDTHS = (256, 16)

Weights = dict[str, Tensor]
"""Weights of M networks by their name in `MTCNN.state_dict`, each of shape (M, ...)."""


class Outputs(NamedTuple):
    """What M networks say of their images, before the sigmoids.

    Args:
        classes: (M, B, 2).
        images: (M, B, 1, 64, 64), or None for ST-CNN and when only classes were asked for.
    """

    classes: Tensor
    images: Tensor | None


class Forward(Protocol):
    """A way to compute all networks' outputs.

    Args:
        weights: of M networks.
        images: (M, B, 1, 64, 64) in [0, 1].
        kept: what dropout keeps behind FC1 and FC2, (M, B, 256) and (M, B, 16) booleans, or None
            where nothing is dropped.
        reconstruct: whether to run the decoder, where there is one.
    """

    def __call__(  # noqa: D102
        self, weights: Weights, images: Tensor, kept: Kept, reconstruct: bool = True
    ) -> Outputs: ...


Kept = tuple[Tensor | None, Tensor | None]
NOTHING_DROPPED: Kept = (None, None)


def layers(weights: Weights, branch: str) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias) of every layer of a branch ("share", "classify", "reconstruct"), in order."""
    names = [n for n in weights if n.startswith(f"{branch}.") and n.endswith(".weight")]
    return [(weights[n], weights[n.removesuffix("weight") + "bias"]) for n in names]


def classify(weights: Weights, features: Tensor, kept: Kept) -> Tensor:
    """ClsNet of M networks as batched matrix products: (M, B, F) to (M, B, 2)."""
    x = features
    hidden = layers(weights, "classify")
    for i, (weight, bias) in enumerate(hidden):
        x = torch.baddbmm(bias.unsqueeze(-2), x, weight.transpose(-1, -2))
        if i < len(FC_WIDTHS):
            x = _dropped(F.relu(x), kept[i])
    return x


def _dropped(x: Tensor, kept: Tensor | None) -> Tensor:
    """Dropout with probability 0.5: what is kept counts double."""
    return x if kept is None else x * (kept.to(x.dtype) * 2)


def one_network(
    weights: Weights, images: Tensor, kept: Kept, reconstruct: bool, under_vmap: bool = False
) -> tuple[Tensor, Tensor | None]:
    """One network, given its weights: (B, 1, 64, 64) to (B, 2) and (B, 1, 64, 64) or None."""

    def laid_out(kernel: Tensor) -> Tensor:
        return kernel if under_vmap else kernel.contiguous(memory_format=torch.channels_last)

    # What is fastest for one network, vmap turns into grouped transposed convolutions: very slow.
    deconv = by_phases if under_vmap else upsampled_deconv
    x = images
    if not under_vmap:
        # With a single channel both layouts are the same bytes; strides tell PyTorch which it is.
        side = x.shape[-1]
        x = x.as_strided(x.shape, (side * side, 1, side, 1))
    for weight, bias in layers(weights, "share"):
        # The maximum and ReLU commute, and ReLU is cheaper after the pooling than before it.
        x = F.conv2d(x, laid_out(weight), bias, padding=weight.shape[-1] // 2)
        x = F.relu(F.max_pool2d(x, 2))
    logits = x.flatten(1)
    for i, (weight, bias) in enumerate(layers(weights, "classify")):
        logits = F.linear(logits, weight, bias)
        if i < len(FC_WIDTHS):
            logits = _dropped(F.relu(logits), kept[i])
    decoder = layers(weights, "reconstruct") if reconstruct else []
    for i, (weight, bias) in enumerate(decoder):
        x = deconv(x, weight, bias)
        if i < len(decoder) - 1:
            x = F.relu(x)
    return logits, x if decoder else None


def looped(
    weights: Weights, images: Tensor, kept: Kept, reconstruct: bool = True, streams: int = 1
) -> Outputs:
    """One network after the other; on a GPU with several streams, so that kernels may overlap."""
    side = [torch.cuda.Stream(images.device) for _ in range(streams)] if streams > 1 else []
    rows = {name: w.unbind(0) for name, w in weights.items()}
    found = []
    for stream in side:
        stream.wait_stream(torch.cuda.current_stream(images.device))
    for m in range(len(images)):
        own = {name: w[m] for name, w in rows.items()}
        dropped = (_row(kept[0], m), _row(kept[1], m))
        with torch.cuda.stream(side[m % streams] if side else None):
            found.append(one_network(own, images[m], dropped, reconstruct))
    for stream in side:
        torch.cuda.current_stream(images.device).wait_stream(stream)
    pictures = [image for _, image in found if image is not None]
    return Outputs(torch.stack([c for c, _ in found]), torch.stack(pictures) if pictures else None)


def _row(tensor: Tensor | None, m: int) -> Tensor | None:
    return None if tensor is None else tensor[m]


def vmapped(weights: Weights, images: Tensor, kept: Kept, reconstruct: bool = True) -> Outputs:
    """`torch.vmap` over the networks."""
    kind = images.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        # Autocast does not reach every operation under vmap: cast here, once.
        dtype = torch.get_autocast_dtype(kind)
        cast = {name: w.to(dtype) for name, w in weights.items()}
        with torch.autocast(kind, enabled=False):
            return vmapped(cast, images.to(dtype), kept, reconstruct)
    names, stacked = list(weights), tuple(weights.values())
    masks = tuple(k for k in kept if k is not None)

    def single(rows: tuple[Tensor, ...], image: Tensor, *own: Tensor) -> tuple[Tensor, ...]:
        left = iter(own)
        dropped = tuple(None if k is None else next(left) for k in kept)
        logits, picture = one_network(
            dict(zip(names, rows, strict=True)), image, (dropped[0], dropped[1]), reconstruct,
            under_vmap=True,
        )  # fmt: skip
        return (logits,) if picture is None else (logits, picture)

    found = torch.vmap(single)(stacked, images, *masks)
    return Outputs(found[0], found[1] if len(found) == 2 else None)


def grouped(
    weights: Weights,
    images: Tensor,
    kept: Kept,
    reconstruct: bool = True,
    channels_last: bool = False,
) -> Outputs:
    """Grouped convolutions: the networks' channels side by side, (B, M C, H, W)."""
    m, b = images.shape[:2]

    def convolve(x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
        flat = kernels.flatten(0, 1)
        if channels_last:
            flat = flat.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, flat, bias.flatten(), padding=kernels.shape[-1] // 2, groups=m)

    x = images.transpose(0, 1).reshape(b, m, IMAGE_SIZE, IMAGE_SIZE)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    for weight, bias in layers(weights, "share"):
        x = F.relu(F.max_pool2d(convolve(x, weight, bias), 2))
    features = x.contiguous().view(b, m, -1).transpose(0, 1)
    logits = classify(weights, features, kept)
    decoder = layers(weights, "reconstruct") if reconstruct else []
    for i, (weight, bias) in enumerate(decoder):
        x = convolve(x, phase_kernels(weight), bias.repeat_interleave(4, dim=1))
        x = F.pixel_shuffle(x, 2)
        if i < len(decoder) - 1:
            x = F.relu(x)
    if not decoder:
        return Outputs(logits, None)
    return Outputs(logits, x.reshape(b, m, 1, IMAGE_SIZE, IMAGE_SIZE).transpose(0, 1))


def multiplied(weights: Weights, images: Tensor, kept: Kept, reconstruct: bool = True) -> Outputs:
    """Convolutions as batched matrix products of patches and kernels, channels last."""
    m, b = images.shape[:2]

    def convolve(x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
        """(M, B, H, W, C) with kernels (M, O, C, k, k) to (M, B, H, W, O)."""
        _, _, h, w, c = x.shape
        side = kernels.shape[-1]
        half = side // 2
        padded = F.pad(x, (0, 0, half, half, half, half))
        patches = torch.cat(
            [padded[:, :, i : i + h, j : j + w] for i in range(side) for j in range(side)], dim=-1
        )
        matrix = kernels.permute(0, 3, 4, 2, 1).reshape(m, side * side * c, -1)
        product = torch.baddbmm(bias.unsqueeze(1), patches.view(m, b * h * w, -1), matrix)
        return product.view(m, b, h, w, -1)

    def planes(x: Tensor) -> Tensor:
        return x.flatten(0, 1).permute(0, 3, 1, 2)

    x = images.permute(0, 1, 3, 4, 2)
    for weight, bias in layers(weights, "share"):
        pooled = F.relu(F.max_pool2d(planes(convolve(x, weight, bias)), 2))
        x = pooled.permute(0, 2, 3, 1).unflatten(0, (m, b))
    features = x.permute(0, 1, 4, 2, 3).reshape(m, b, -1)
    logits = classify(weights, features, kept)
    decoder = layers(weights, "reconstruct") if reconstruct else []
    for i, (weight, bias) in enumerate(decoder):
        x = convolve(x, phase_kernels(weight), bias.repeat_interleave(4, dim=1))
        _, _, h, w, _ = x.shape
        x = x.view(m, b, h, w, -1, 2, 2).permute(0, 1, 2, 5, 3, 6, 4)
        x = x.reshape(m, b, 2 * h, 2 * w, -1)
        if i < len(decoder) - 1:
            x = F.relu(x)
    return Outputs(logits, x.permute(0, 1, 4, 2, 3) if decoder else None)


ONE_AFTER_ANOTHER = "one after another"

WAYS: dict[str, Callable[..., Outputs]] = {
    ONE_AFTER_ANOTHER: looped,
    "vmap": vmapped,
    "grouped convolutions": grouped,
    "batched matrix products": multiplied,
}
"""The ways by name, on any device; each is a `Forward`."""

GPU_WAYS: dict[str, Callable[..., Outputs]] = {
    **WAYS,
    "one after another, 8 streams": partial(looped, streams=8),
    "grouped convolutions, channels last": partial(grouped, channels_last=True),
}
"""What is tried on a GPU: with two variants that mean nothing on a CPU, or are slower there."""


# What chance decides in a network's training, drawn ahead for an epoch at a time.
#
# `loop.train_view` draws as it goes. Networks side by side draw the same numbers from generators of
# their own, each from its network's seed and in the same order, so that none depends on another.


DROPOUT = 0.5


@dataclass(frozen=True)
class Epoch:
    """One epoch of one network; S steps of B images, the last step filled up with image 0.

    Args:
        sample: (S, B), which training image is shown.
        transforms: (S, B, 4), how it is shown: `Transforms` field by field.
        share: (S, B), weight of an image in its step's mean loss: 1 / images, or 0 for filling.
        kept: what dropout keeps behind FC1 and FC2: (S, B, 256) and (S, B, 16) booleans, or None
            where nothing is dropped.
    """

    sample: Tensor
    transforms: Tensor
    share: Tensor
    kept: tuple[Tensor | None, Tensor | None]


def steps_of(labels: NDArray[np.int64], config: TrainingConfig) -> int:
    """Steps in an epoch of training images with these labels."""
    return math.ceil(batches.shown_images(labels, config) / config.batch_size)


class Chance:
    """The random choices of one network, epoch by epoch.

    Args:
        seed: of the network, as `loop.train_view` takes it.
        labels: (n,) of the images it learns from, 1 positive.
        config: the protocol.
    """

    def __init__(self, seed: int, labels: NDArray[np.int64], config: TrainingConfig) -> None:
        self._labels, self._config = labels, config
        self._order = torch.Generator().manual_seed(seed)
        self._dropout = torch.Generator().manual_seed(seed)

    def epoch(self) -> Epoch:
        """The next epoch."""
        c, b = self._config, self._config.batch_size
        transforms, sample = batches.sampling_draw_epoch(self._labels, c, self._order)
        shown, steps = len(sample), steps_of(self._labels, c)
        fields = torch.stack(
            [transforms.shift_row, transforms.shift_col, transforms.turns, transforms.mirror], dim=1
        )
        sizes = torch.full((steps, 1), b)
        sizes[-1] = shown - b * (steps - 1)
        share = torch.where(torch.arange(b) < sizes, 1.0 / sizes, 0.0)
        return Epoch(
            _filled(sample, steps * b).view(steps, b),
            _filled(fields, steps * b).view(steps, b, 4),
            share,
            self._kept(sizes.flatten().tolist()),
        )

    def _kept(self, sizes: list[int]) -> tuple[Tensor | None, Tensor | None]:
        """Step by step in the order in which the layers draw: FC1, then FC2."""
        dropped = (self._config.dropout_on != "none", self._config.dropout_on == "fc1+fc2")
        kept = [
            torch.zeros(len(sizes), self._config.batch_size, width, dtype=torch.bool)
            if drops else None
            for drops, width in zip(dropped, FC_WIDTHS, strict=True)
        ]  # fmt: skip
        for step, size in enumerate(sizes):
            for mask in kept:
                if mask is not None:
                    noise = torch.empty(size, mask.shape[-1])
                    mask[step, :size] = noise.bernoulli_(1 - DROPOUT, generator=self._dropout) > 0
        return kept[0], kept[1]


def _filled(values: Tensor, length: int) -> Tensor:
    """Zeros after the last row, up to a length."""
    rest = values.new_zeros(length - len(values), *values.shape[1:])
    return torch.cat([values, rest])


# A fixed number of networks on the device, and one step of all of them at once.
#
# Nothing in a step depends on the host: which images, which transformations, what dropout keeps and
# which learning rate are tables on the device, read at a step counter that lies there too. On a GPU
# the step is therefore recorded once, as a CUDA graph, and replayed.


_WARM_UP = 3


class Slots:
    """Places for networks of one configuration that are trained side by side.

    Args:
        count: how many networks.
        views_hu: (n, 76, 76) integer HU of all views of all nodules, on the device.
        labels: (n,) of them, 1 malignant, on the device.
        config: how the networks are trained.
        device: where.
        way: how their outputs are computed (`stack.WAYS`).
        steps: of the longest epoch that will come.
        record: whether to record the step as a CUDA graph; needs a GPU.
    """

    def __init__(
        self,
        count: int,
        views_hu: Tensor,
        labels: Tensor,
        config: TrainingConfig,
        device: Device,
        way: Callable[..., Outputs],
        steps: int,
        record: bool = False,
    ) -> None:
        self.count, self.steps = count, steps
        self._views, self._labels = views_hu, labels
        self._config, self._device, self._way, self._record = config, device, way, record
        self._graph: torch.cuda.CUDAGraph | None = None
        place = device.torch_device
        pattern = _unset(config).state_dict()
        self.weights: Weights = {
            name: torch.zeros(count, *w.shape, device=place, requires_grad=True)
            for name, w in pattern.items()
        }
        self.best: Weights = {n: w.detach().clone() for n, w in self.weights.items()}
        on_gpu = place.type == "cuda"
        # The fused kernel of a GPU reads its learning rate as float32.
        self.rate = torch.zeros(
            count, device=place, dtype=torch.float32 if on_gpu else torch.float64
        )
        self._idle = torch.zeros(count, device=place)
        self._rows = [
            [nn.Parameter(w.detach()[m]) for w in self.weights.values()] for m in range(count)
        ]
        self._optimisers = [self._optimiser(m, on_gpu) for m in range(count)]
        b = config.batch_size
        self._step = torch.zeros((), dtype=torch.long, device=place)
        self.sample = torch.zeros(steps, count, b, dtype=torch.long, device=place)
        self.transforms = torch.zeros(steps, count, b, 4, dtype=torch.long, device=place)
        self.share = torch.zeros(steps, count, b, device=place)
        drops = (config.dropout_on != "none", config.dropout_on == "fc1+fc2")
        self.kept = [
            torch.zeros(steps, count, b, width, dtype=torch.bool, device=place) if drop else None
            for drop, width in zip(drops, FC_WIDTHS, strict=True)
        ]
        self.losses = torch.zeros(steps, count, 2, device=place)

    def _optimiser(self, m: int, on_gpu: bool) -> torch.optim.Adam:
        """Adam on one network's rows of the stacked weights, as `loop.train_view` has it."""
        optimiser = torch.optim.Adam(self._rows[m], fused=True, capturable=on_gpu)
        optimiser.param_groups[0]["lr"] = self.rate[m]
        # What gradient scaling uses to pass over a step: here, of a network whose epoch is over.
        optimiser.found_inf = self._idle[m]  # type: ignore[attr-defined]
        return optimiser

    def load(self, m: int, network: MTCNN | STCNN) -> None:
        """Put a network into slot m, with an optimiser that has seen nothing."""
        with torch.no_grad():
            for name, value in network.state_dict().items():
                self.weights[name][m].copy_(value)
        for state in self._optimisers[m].state.values():
            for value in state.values():
                value.zero_()  # in place: a recorded step knows these tensors by their address

    def write(self, m: int, rows: Tensor, epoch: Epoch, rate: float) -> None:
        """Lay slot m's next epoch out in the tables.

        Args:
            rows: (images,) of `views_hu`, which `epoch.sample` counts.
            epoch: what chance decided.
            rate: learning rate.
        """
        n = len(epoch.sample)
        self.rate[m] = rate
        self.sample[:n, m] = rows[epoch.sample].to(self.sample.device, non_blocking=True)
        self.transforms[:n, m] = epoch.transforms.to(self.sample.device, non_blocking=True)
        self.share[:, m] = 0
        self.share[:n, m] = epoch.share.to(self.sample.device, non_blocking=True)
        for table, kept in zip(self.kept, epoch.kept, strict=True):
            if table is not None and kept is not None:
                table[:n, m] = kept.to(self.sample.device, non_blocking=True)

    def clear(self, m: int) -> None:
        """Leave slot m empty: it takes no step."""
        self.share[:, m] = 0

    def run(self, steps: int) -> None:
        """Train every slot for its first `steps` steps of the tables; does not wait for them."""
        place = self._device.torch_device
        # Streams and graphs belong to the current GPU, which may be another one.
        current = torch.cuda.device(place) if place.type == "cuda" else contextlib.nullcontext()
        with current:
            self._step.zero_()
            if self._record and self._graph is None:
                self._graph = self._recorded()
            for _ in range(steps):
                if self._graph is None:
                    self._one_step()
                else:
                    self._graph.replay()

    def _recorded(self) -> torch.cuda.CUDAGraph:
        """The step as a CUDA graph; what the warm-up does to weights is undone."""
        share = self.share.clone()
        self.share.zero_()  # all idle: no weight moves
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self._step.zero_()
                self._one_step()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._one_step()
        self.share.copy_(share)
        self._step.zero_()
        return graph

    def _one_step(self) -> None:
        """Forward, backward and Adam of all slots at the step counter; then count on."""
        config, at = self._config, self._step.view(1)

        def now(table: Tensor) -> Tensor:
            return table.index_select(0, at).squeeze(0)

        sample, share = now(self.sample), now(self.share)
        m, b = sample.shape
        transforms = batches.Transforms(*now(self.transforms).view(m * b, 4).unbind(1))
        images = batches.apply(self._views[sample.flatten()], transforms).unflatten(0, (m, b))
        kept: Kept = (
            None if self.kept[0] is None else now(self.kept[0]),
            None if self.kept[1] is None else now(self.kept[1]),
        )
        with self._device.autocast():
            out = self._way(self.weights, images, kept)
        cls = classification_losses(out.classes, self._labels[sample], config.output)
        cls = (cls * share).sum(1)
        img = torch.zeros_like(cls)
        if out.images is not None:
            img = (reconstruction_losses(out.images, images) * share).sum(1)
        # Networks share no weight, so that the gradient of the sum is each one's own.
        total = cls.sum() + config.alpha * img.sum()
        if config.l2:
            for name, weight in self.weights.items():
                if decayed(name, config.l2_on):
                    total = total + config.l2 * weight.square().sum()
        # The fused optimiser walks through memory: gradients have to lie as their weights do.
        gradients = [
            g.contiguous() for g in torch.autograd.grad(total, list(self.weights.values()))
        ]
        self._idle.copy_(share.sum(1) == 0)
        for m, (rows, optimiser) in enumerate(zip(self._rows, self._optimisers, strict=True)):
            for row, gradient in zip(rows, gradients, strict=True):
                row.grad = gradient[m]
            optimiser.step()
        found = torch.stack([cls.detach(), img.detach()], dim=1)
        self.losses.index_copy_(0, at, found.unsqueeze(0))
        self._step.add_(1)

    def class_logits(self, rows: Tensor) -> Tensor:
        """(M, n, 2) class logits of plain central crops; `rows` (M, n) counts `views_hu`."""
        margin = batches.MARGIN
        side = batches.STORED_SIZE
        crops = self._views[rows.flatten(), margin : side - margin, margin : side - margin]
        images = batches.window(crops).unsqueeze(1).unflatten(0, rows.shape)
        with torch.no_grad(), self._device.autocast():
            return self._way(self.weights, images, NOTHING_DROPPED, reconstruct=False).classes

    def keep_best(self, slots: Sequence[int]) -> None:
        """Remember the weights that these slots have now."""
        if slots:
            chosen = torch.tensor(slots, device=self.share.device)
            with torch.no_grad():
                for name, weight in self.weights.items():
                    self.best[name][chosen] = weight[chosen]

    def best_network(self, m: int) -> MTCNN | STCNN:
        """A network of its own with the weights that slot m remembers."""
        network = _unset(self._config)
        network.load_state_dict({name: w[m] for name, w in self.best.items()})
        self._device.place(network)
        network.eval()
        return network

    def only(self, kept: Sequence[int]) -> Slots:
        """Fewer slots, which go on with these networks where they stand."""
        fewer = Slots(
            len(kept), self._views, self._labels, self._config, self._device, self._way,
            self.steps, self._record,
        )  # fmt: skip
        with torch.no_grad():
            for name in self.weights:
                fewer.weights[name].copy_(self.weights[name][list(kept)])
                fewer.best[name].copy_(self.best[name][list(kept)])
        for new, old in enumerate(kept):
            fewer._optimisers[new].load_state_dict(self._optimisers[old].state_dict())
            fewer._optimisers[new].param_groups[0]["lr"] = fewer.rate[new]
        return fewer


def _unset(config: TrainingConfig) -> MTCNN | STCNN:
    """A network whose weights are of no account; torch's random numbers stay where they are."""
    with torch.random.fork_rng(devices=[]):
        return build_network(config)


# Which way of laying networks side by side is fastest on a device: measured, not assumed.
#
# On a CPU networks are trained one after another, in a process a core (`labkit.training.machines`);
# every other way is slower there (`benchmarks/layouts.py` measures by how much). On a GPU the
# engine
# times all ways for a moment before it starts, and takes the fastest.


MOST_SLOTS = 90
_SHARE_OF_MEMORY = 0.8


def step_flop(config: TrainingConfig) -> float:
    """Operations of one network's training step as the textbook counts them.

    Two for a multiplication and addition; convolutions at the size that Fig. 3 gives them, ImgNet's
    after its upsampling. The backward pass costs twice the forward one, but for the first layer,
    whose images need no gradient. Bias, ReLU, pooling, losses and Adam are left out.

    >>> round(9 * step_flop(TrainingConfig.paper()) / 1e9)  # nine MT-CNNs, batch 64
    99
    """
    widths = (1, *FILTERS[: config.depth])
    convolutions = [
        2 * (IMAGE_SIZE >> i) ** 2 * KERNELS[i] ** 2 * widths[i] * widths[i + 1]
        for i in range(config.depth)
    ]
    neurons = (widths[-1] * (IMAGE_SIZE >> config.depth) ** 2, *FC_WIDTHS, 2)
    full = sum(2 * a * b for a, b in pairwise(neurons))
    decoder = sum(convolutions) if config.model == "mt" else 0
    forward = sum(convolutions) + full + decoder
    return float(config.batch_size * (3 * forward - convolutions[0]))


def time_ways(
    config: TrainingConfig,
    device: Device,
    networks: int,
    ways: Iterable[str] | None = None,
    steps: int = 4,
    repeats: int = 3,
    record: bool | None = None,
) -> pd.DataFrame:
    """Time a training step of some networks in every way, on noise.

    Args:
        config: how they are trained.
        device: where.
        networks: how many side by side.
        ways: names from `stack.GPU_WAYS`; None takes all that make sense on the device.
        steps, repeats: the median of `repeats` runs of `steps` steps is taken.
        record: whether a step is recorded as a CUDA graph and replayed; None does so on a GPU.

    Returns:
        way, seconds (a step of all networks), tflops (textbook operations a second, in 10^12),
        memory_gb (most of the GPU's memory in use; missing on a CPU); the fastest first.
    """
    rng = np.random.default_rng(0)
    images = max(2, steps * config.batch_size // (config.plain_copy + config.augmented_copies))
    place = device.torch_device
    on_gpu = place.type == "cuda"
    noise = rng.integers(-1000, 400, (images, STORED_SIZE, STORED_SIZE)).astype(np.int16)
    views = device.tensor(torch.from_numpy(noise))
    labels = device.tensor(torch.arange(images) % 2)
    as_they_are = dataclasses.replace(config, negatives_per_positive=None)
    epoch = Chance(0, np.arange(images) % 2, as_they_are).epoch()
    rows = []
    for way in ways or (GPU_WAYS if on_gpu else WAYS):
        # One after another needs no more than one slot, and its memory.
        count = 1 if way == ONE_AFTER_ANOTHER else networks
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(place)
        with device.arithmetic(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            slots = Slots(
                count, views, labels, config, device, GPU_WAYS[way], len(epoch.sample),
                record=on_gpu if record is None else record,
            )  # fmt: skip
            for m in range(count):
                slots.load(m, build_network(config))
                slots.write(m, torch.arange(images), epoch, config.learning_rate)
            slots.run(1)  # compiles kernels, records the graph
            seconds = [_timed(slots, steps, device) for _ in range(repeats)]
        memory = torch.cuda.max_memory_allocated(place) / 1e9 if on_gpu else None
        each = statistics.median(seconds) / steps * networks / count
        rows.append((way, each, networks * step_flop(config) / each / 1e12, memory))
        del slots
    table = pd.DataFrame(rows, columns=["way", "seconds", "tflops", "memory_gb"])
    return table.sort_values("seconds", ignore_index=True)


def _timed(slots: Slots, steps: int, device: Device) -> float:
    """Seconds of some steps, from an idle device to an idle device."""
    _wait(device)
    start = time.perf_counter()
    slots.run(steps)
    _wait(device)
    return time.perf_counter() - start


def _wait(device: Device) -> None:
    if device.torch_device.type == "cuda":
        torch.cuda.synchronize(device.torch_device)


class Choice(NamedTuple):
    """How the networks of a run are laid out on a GPU.

    Args:
        way: a name from `stack.GPU_WAYS`.
        slots: networks side by side.
        seconds: a step of one network among them, about.
    """

    way: str
    slots: int
    seconds: float


@lru_cache
def choose(config: TrainingConfig, device: Device, networks: int) -> Choice:
    """The fastest way on a GPU, and as many slots as its memory holds, at most 90.

    Args:
        config: how they are trained.
        device: a GPU.
        networks: how many there are to train in all.

    Raises:
        torch.OutOfMemoryError: its memory is too small for one network.
    """
    tried = min(networks, 9)
    while True:
        try:
            fastest = time_ways(config, device, tried, steps=2, repeats=2).iloc[0]
            break
        except torch.OutOfMemoryError:
            if tried == 1:
                raise
            tried //= 2
    free, _ = torch.cuda.mem_get_info(device.torch_device)
    fitting = int(_SHARE_OF_MEMORY * free / 1e9 / fastest["memory_gb"] * tried)
    one = fastest["way"] == ONE_AFTER_ANOTHER
    slots = 1 if one else max(1, min(networks, MOST_SLOTS, fitting))
    return Choice(str(fastest["way"]), slots, float(fastest["seconds"]) / tried)


@dataclass(frozen=True)
class Task:
    """One network to train.

    Args:
        view: its number among the views.
        train: rows that it learns from.
        val: rows for stopping and for its fusion weight.
        seed: of the network, as `loop.train_view` takes it.
    """

    view: int
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    seed: int


@dataclass
class _Network:
    """A task in a slot."""

    number: int
    task: Task
    chance: Chance
    course: Course
    next_epoch: Epoch


def train_many(
    views_hu: Pixels,
    labels: NDArray[np.int64],
    tasks: Sequence[Task],
    config: TrainingConfig,
    device: Device,
    slots: int | None = None,
    way: str | None = None,
    on_epoch: Callable[[int, Row], None] | None = None,
) -> Iterator[tuple[int, Trained | FloatingPointError]]:
    """Train a network a task, `slots` of them at once.

    Args:
        views_hu: (n, views, 76, 76) HU, or uint8; all of it goes to the device.
        labels: (n,), 1 malignant; read for the tasks' rows only.
        tasks: what to train.
        config: how.
        device: where.
        slots: networks side by side; halved, with a warning, when the device's memory is too small.
        way: how they are computed (`stack.GPU_WAYS`). Where `slots` or `way` is None, a GPU's are
            measured (`ways.choose`); a CPU takes one after another.
        on_epoch: called with a task's number and every row of its history.

    Yields:
        (number of the task, what training left), as networks finish; a network whose loss is no
        number any more yields its error, and the others go on.
    """
    if slots is None or way is None:
        on_gpu = device.torch_device.type == "cuda"
        best = choose(config, device, len(tasks))[:2] if on_gpu else (ONE_AFTER_ANOTHER, 1)
        way, slots = way or best[0], slots or best[1]
    waiting = deque(range(len(tasks)))
    count = max(1, min(slots, len(tasks)))
    while waiting:
        bank = _Bank(views_hu, labels, tasks, config, device, count, way, on_epoch)
        try:
            yield from bank.train(waiting)
        except torch.OutOfMemoryError:
            waiting.extendleft(reversed(bank.under_way()))
            if count == 1:
                raise
            count //= 2
            del bank
            if device.torch_device.type == "cuda":
                torch.cuda.empty_cache()
            warnings.warn(
                f"{device.description}: not enough memory; going on with {count} "
                f"network{'s' * (count > 1)} side by side",
                stacklevel=2,
            )


class _Bank:
    """The networks in the slots, and the round that takes them one epoch further."""

    def __init__(
        self,
        views_hu: Pixels,
        labels: NDArray[np.int64],
        tasks: Sequence[Task],
        config: TrainingConfig,
        device: Device,
        count: int,
        way: str,
        on_epoch: Callable[[int, Row], None] | None,
    ) -> None:
        self._tasks, self._config, self._device = tasks, config, device
        self._labels, self._views = np.asarray(labels, dtype=np.int64), views_hu.shape[1]
        self._way, self._count, self._on_epoch = GPU_WAYS[way], count, on_epoch
        self._in_slot: list[_Network | None] = [None] * count
        self._data = views_hu

    def under_way(self) -> list[int]:
        """Numbers of the tasks that are in a slot."""
        return [n.number for n in self._in_slot if n is not None]

    def train(self, waiting: deque[int]) -> Iterator[tuple[int, Trained | FloatingPointError]]:
        """Take tasks from the queue until it is empty and all are trained."""
        device, config = self._device, self._config
        flat = torch.from_numpy(np.array(self._data)).flatten(0, 1)  # a copy: it may be read-only
        of_each = torch.from_numpy(self._labels).repeat_interleave(self._views)
        steps = max(steps_of(self._labels[t.train], config) for t in self._tasks)
        # Whoever is in a slot is the queue's business again if memory runs out.
        self._in_slot = [None] * self._count
        for m in range(self._count):
            if waiting:
                self._in_slot[m] = self._enter(waiting.popleft())
        with device.arithmetic():
            slots = Slots(
                self._count, device.tensor(flat), device.tensor(of_each), config, device,
                self._way, steps, record=device.torch_device.type == "cuda",
            )  # fmt: skip
            for m, network in enumerate(self._in_slot):
                self._load(slots, m, network)
            while any(self._in_slot):
                yield from self._round(slots)
                for m, network in enumerate(self._in_slot):
                    if network is None and waiting:
                        self._in_slot[m] = self._enter(waiting.popleft())
                        self._load(slots, m, self._in_slot[m])
                left = [m for m, network in enumerate(self._in_slot) if network is not None]
                if left and len(left) <= slots.count // 2:
                    slots = slots.only(left)
                    self._in_slot = [self._in_slot[m] for m in left]

    def _enter(self, number: int) -> _Network:
        task = self._tasks[number]
        chance = Chance(task.seed, self._labels[task.train], self._config)
        course = Course(self._config, self._labels[task.val], self._labels[task.train])
        return _Network(number, task, chance, course, chance.epoch())

    def _load(self, slots: Slots, m: int, network: _Network | None) -> None:
        if network is None:
            slots.clear(m)
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(network.task.seed)
            slots.load(m, build_network(self._config))

    def _rows(self, task: Task, rows: NDArray[np.int64]) -> Tensor:
        """Where a task's images lie among all views of all nodules."""
        return torch.from_numpy(np.asarray(rows, dtype=np.int64) * self._views + task.view)

    def _round(self, slots: Slots) -> Iterator[tuple[int, Trained | FloatingPointError]]:
        """One epoch of every network; yields those that end with it."""
        there = [(m, n) for m, n in enumerate(self._in_slot) if n is not None]
        shown = {}
        for m, network in there:
            rows = self._rows(network.task, network.task.train)
            slots.write(m, rows, network.next_epoch, network.course.rate)
            shown[m] = network.next_epoch
        slots.run(max(len(epoch.sample) for epoch in shown.values()))
        logits = slots.class_logits(self._validation(there, slots.count))
        for _, network in there:
            network.next_epoch = network.chance.epoch()  # while the device is at work
        losses, logits = slots.losses.cpu(), logits.float().cpu()
        improved: list[int] = []
        ended: list[tuple[int, _Network, FloatingPointError | None]] = []
        for m, network in there:
            try:
                if self._judge(network, losses[:, m], logits[m], shown[m]):
                    improved.append(m)
                if network.course.done:
                    ended.append((m, network, None))
            except FloatingPointError as error:
                ended.append((m, network, error))
        slots.keep_best(improved)
        for m, network, failure in ended:
            self._in_slot[m] = None
            slots.clear(m)
            yield (
                network.number,
                failure or left_by(slots.best_network(m), network.course, self._config),
            )

    def _validation(self, there: list[tuple[int, _Network]], count: int) -> Tensor:
        """(count, n) validation rows, filled up with row 0."""
        table = torch.zeros(count, max(len(n.task.val) for _, n in there), dtype=torch.long)
        for m, network in there:
            table[m, : len(network.task.val)] = self._rows(network.task, network.task.val)
        return self._device.tensor(table)

    def _judge(self, network: _Network, losses: Tensor, logits: Tensor, epoch: Epoch) -> bool:
        """Take an epoch into a network's course; whether it was its best."""
        config, steps = self._config, len(epoch.sample)
        losses = losses[:steps]
        images = int((epoch.share > 0).sum())
        lost = lost_batch(losses, epoch.sample.flatten()[:images], config.batch_size)
        cls, img = epoch_means(losses, config.batch_size, images)
        course = network.course
        val = logits[: len(network.task.val)]
        improved = course.add(cls, img if config.model == "mt" else None, val, lost)
        if self._on_epoch is not None:
            self._on_epoch(network.number, course.history[-1])
        return improved
