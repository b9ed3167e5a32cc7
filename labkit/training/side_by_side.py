"""Training many networks: on a CPU one after another, on a GPU side by side.

A small network leaves a GPU idle: its kernels end sooner than the next one is launched. Networks
that differ in their weights and data alone (nine views, ten folds) can share every kernel. A fixed
number of places is trained at once. In a round every place goes through one epoch of its own
network; then all are validated, networks that are done leave, and the next ones take their places.
Every network gets the numbers that `loop.train_view` gives it, whatever is trained beside it.

Shapes: M networks, B images each, S steps an epoch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.models.mtcnn import FILTERS, IMAGE_SIZE, KERNELS, STCNN
from labkit.training import batches
from labkit.training.batches import MARGIN, STORED_SIZE, Labels, Pixels
from labkit.training.config import TrainingConfig
from labkit.training.loop import Trained, Validation, build_network, train_view
from labkit.training.loss import classification_loss, decayed, reconstruction_loss
from labkit.training.machines import Device, one_thread

MOST_AT_ONCE = 90
_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # of Adam, as PyTorch has them

Outputs = tuple[Tensor, Tensor | None]
"""(M, B, 2) class logits and (M, B, 1, 64, 64) image logits, or None where no image is drawn."""


@dataclass(frozen=True)
class Task:
    """One network to train."""

    view: int  # its number among the views
    train: Labels  # nodules to learn from, by their place in the cohort
    val: Labels  # nodules to stop by
    seed: int  # of the network, as `loop.train_view` takes it
    test: Labels = field(default_factory=lambda: np.empty(0, np.int64))  # never to be looked at


Outcome = tuple[int, Trained | FloatingPointError]
"""Number of a task and what training left, or why its loss is no number any more."""
Report = Callable[[int, dict[str, Any] | None], None]
"""Is told a task's number and each row of its history; None in its place when training begins."""


def train_many(
    views_hu: Pixels, labels: Labels, tasks: Sequence[Task], config: TrainingConfig, device: Device,
    on_epoch: Report = lambda number, row: None, at_once: int | None = None,
) -> Iterator[Outcome]:  # fmt: skip
    """Train a network a task: on a CPU one after another, on a GPU many of them at once.

    Outcomes come as networks finish; where one fails, the others go on. A GPU takes all of the
    (n, views, 76, 76) `views_hu`; labels (n,) are read for the tasks' nodules only. `at_once`
    networks are side by side, None measures what is fastest on a GPU (`choose`); the number is
    halved, with a warning, when the device's memory is too small.
    """
    if device.torch_device.type == "cpu" and at_once is None:
        for number, task in enumerate(tasks):
            on_epoch(number, None)
            train, val = (views_hu[rows, task.view] for rows in (task.train, task.val))
            try:
                with one_thread():
                    yield number, train_view(
                        train, labels[task.train], val, labels[task.val], config, device, task.seed,
                        functools.partial(on_epoch, number),
                    )  # fmt: skip
            except FloatingPointError as error:
                yield number, error
        return
    count, left = at_once or choose(config, device, len(tasks))[0], dict(enumerate(tasks))
    while left:
        count = min(count, len(left))
        try:
            for number, trained in _train_stacked(
                views_hu, labels, dict(left), config, device, on_epoch, count
            ):
                del left[number]
                yield number, trained
        except torch.OutOfMemoryError:
            if count == 1:
                raise
            count //= 2
            if device.torch_device.type == "cuda":
                torch.cuda.empty_cache()
            several = f"{count} network{'s' * (count > 1)}"
            words = f"not enough memory; going on with {several} side by side"
            warnings.warn(f"{device.description}: {words}", stacklevel=2)


@dataclass
class _Running:
    """A network that has a place among those trained at once, and its next epoch."""

    number: int
    train: Tensor  # places of its images among all views of all nodules
    val: Tensor
    stopping: Validation
    epochs: Iterator[dict[str, Tensor]]
    epoch: dict[str, Tensor]


def _train_stacked(
    views_hu: Pixels, labels: Labels, tasks: Mapping[int, Task], config: TrainingConfig,
    device: Device, report: Report, count: int,
) -> Iterator[Outcome]:  # fmt: skip
    """Train the tasks of these numbers, `count` networks at once."""
    waiting, running = iter(tasks.items()), dict[int, _Running]()
    labels, n_views = np.asarray(labels, dtype=np.int64), views_hu.shape[1]
    flat = torch.from_numpy(np.array(views_hu)).flatten(0, 1)  # a copy: it may be read-only
    of_each = torch.from_numpy(labels).repeat_interleave(n_views)
    steps = max(steps_of(labels[task.train], config) for task in tasks.values())
    with device.arithmetic():
        stack = Stack(count, device.tensor(flat), device.tensor(of_each), config, device, steps,
                      record=device.torch_device.type == "cuda")  # fmt: skip
        while True:
            empty = (m for m in range(stack.count) if m not in running)
            for m, (number, task) in zip(empty, waiting, strict=False):
                train, val = (
                    torch.from_numpy(np.asarray(rows, dtype=np.int64) * n_views + task.view)
                    for rows in (task.train, task.val)
                )
                stopping = Validation(config, labels[task.val], labels[task.train])
                epochs = draw_epochs(task.seed, labels[task.train], config, stack.dropouts)
                running[m] = _Running(number, train, val, stopping, epochs, next(epochs))
                report(number, None)
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(task.seed)
                    stack.load(m, build_network(config))
            if not running:
                return
            if len(running) <= stack.count // 2:
                stack = stack.only(sorted(running))
                running = dict(enumerate(running[m] for m in sorted(running)))
            longest = max(len(one.val) for one in running.values())
            validation = torch.zeros(stack.count, longest, dtype=torch.long)
            for m, one in running.items():
                stack.write(m, one.train, one.epoch, one.stopping.rate)
                validation[m, : len(one.val)] = one.val
            stack.run(max(len(one.epoch["sample"]) for one in running.values()))
            logits = stack.class_logits(device.tensor(validation))
            shown = {m: one.epoch for m, one in running.items()}
            for one in running.values():
                one.epoch = next(one.epochs)  # while the device is at work
            losses, logits = stack.losses.cpu(), logits.float().cpu()
            improved, ended = list[int](), dict[int, FloatingPointError | None]()
            for m, one in running.items():
                sample, share = shown[m]["sample"], shown[m]["share"]
                of_steps, of_val = losses[: len(sample), m], logits[m, : len(one.val)]
                try:
                    if one.stopping.validate(of_steps, sample[share > 0], of_val):
                        improved.append(m)
                    report(one.number, one.stopping.history[-1])
                    if one.stopping.done:
                        ended[m] = None
                except FloatingPointError as error:
                    ended[m] = error
            stack.keep_best(improved)
            for m, failure in ended.items():
                one = running.pop(m)
                stack.clear(m)
                yield one.number, failure or one.stopping.result(stack.best_network(m))


def steps_of(labels: Labels, config: TrainingConfig) -> int:
    """Count the steps in an epoch of training images with these labels."""
    return math.ceil(batches.shown_images(labels, config) / config.batch_size)


def draw_epochs(
    seed: int, labels: Labels, config: TrainingConfig,
    dropouts: Mapping[str, tuple[float, torch.Size]],
) -> Iterator[dict[str, Tensor]]:  # fmt: skip
    """Draw what chance decides in each epoch of one network, in `loop.train_view`'s order.

    `dropouts` are the probability and the shape of each dropout, by name and in order.

    Yields:
        sample (S, B), which image is shown; transforms (S, B, 4), how; share (S, B), an image's
        weight in its step's mean loss, 0 where the last step is filled up; and for each dropout
        (S, B, ...) booleans, what it keeps.
    """
    order, chance = (torch.Generator().manual_seed(seed) for _ in range(2))
    b, places = config.batch_size, steps_of(labels, config) * config.batch_size
    while True:
        transforms, sample = batches.draw_epoch(labels, config, order)
        n = len(sample)
        kept = {name: torch.zeros(places, *shape, dtype=torch.bool)
                for name, (_, shape) in dropouts.items()}  # fmt: skip
        for start in range(0, n, b):
            for name, (probability, shape) in dropouts.items():
                noise = torch.empty(min(b, n - start), *shape)
                noise.bernoulli_(1 - probability, generator=chance)
                kept[name][start : start + len(noise)] = noise > 0
        share = (torch.arange(places) < n).float().view(-1, b)
        flat = {"sample": F.pad(sample, (0, places - n)),
                "transforms": F.pad(transforms, (0, 0, 0, places - n)), **kept}  # fmt: skip
        yield {"share": share / share.sum(1, keepdim=True),
               **{name: values.unflatten(0, (-1, b)) for name, values in flat.items()}
               }  # fmt: skip


class _GivenDropout(nn.Module):
    """Dropout that is told what to keep: (B, ...) booleans; without them it drops nothing."""

    kept: Tensor | None

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.register_buffer("kept", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x if self.kept is None else x * (self.kept.to(x.dtype) / (1 - self.probability))


class _Branches(nn.Module):
    """A network's branches before their sigmoids, as `functional_call` wants them."""

    def __init__(self, network: STCNN, draws_images: bool) -> None:
        super().__init__()
        self.network, self.draws_images = network, draws_images

    def forward(self, x: Tensor) -> list[Tensor]:
        if not self.draws_images:
            return [self.network.class_logits(x)]
        return [y for y in self.network.logits(x) if y is not None]


def stacked(
    network: STCNN, weights: Mapping[str, Tensor], images: Tensor, draws_images: bool = True
) -> Outputs:
    """Compute M networks' outputs at once, by `torch.vmap` over their stacked weights.

    Of `network` only the layers matter; `weights` are (M, ...) each, by their name in its state,
    with what its dropouts keep; images are (M, B, 1, 64, 64) in [0, 1].
    """
    call = functools.partial(torch.func.functional_call, _Branches(network, draws_images))
    own, kind = {f"network.{name}": w for name, w in weights.items()}, images.device.type
    if len(images) == 1:
        # One network alone is fastest with channels last, as `Device.place` has it.
        last = torch.channels_last
        one = {n: w[0].contiguous(memory_format=last) if w.dim() == 5 else w[0]
               for n, w in own.items()}  # fmt: skip
        x = images[0]
        # With a single channel both layouts are the same bytes; strides tell PyTorch which it is.
        x = x.as_strided(x.shape, (x[0].numel(), 1, x.shape[-1], 1))
        found = [y[None] for y in call(one, (x,))]
    elif torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        # Autocast does not reach every operation under vmap: cast here, once.
        dtype = torch.get_autocast_dtype(kind)
        own = {n: w.to(dtype) if w.is_floating_point() else w for n, w in own.items()}
        with torch.autocast(kind, enabled=False):
            found = torch.vmap(call)(own, (images.to(dtype),))
    else:
        found = torch.vmap(call)(own, (images,))
    return found[0], found[1] if len(found) == 2 else None


class Stack:
    """Networks of one configuration on a device, and one training step of all of them at once.

    Nothing in a step depends on the host: which images, which transformations, what dropout keeps
    and which learning rate are tables on the device, read at a step counter that lies there too. On
    a GPU the step is therefore recorded once, as a CUDA graph, and replayed.

    On the device lie (n, 76, 76) views of all nodules, and (n,) labels. `steps` are those of the
    longest epoch that will come; `forward` computes outputs, as `stacked` does; `record` needs a
    GPU.
    """

    def __init__(
        self, count: int, views_hu: Tensor, labels: Tensor, config: TrainingConfig, device: Device,
        steps: int, record: bool = False, forward: Callable[..., Outputs] = stacked,
    ) -> None:  # fmt: skip
        self.count, self._record = count, record
        self._of_all = (views_hu, labels, config, device, steps, record, forward)
        self._views, self._labels, self._config, self._device = views_hu, labels, config, device
        self._graph: torch.cuda.CUDAGraph | None = None
        self._network, b = self._pattern(), config.batch_size
        self.dropouts = dict[str, tuple[float, torch.Size]]()
        for name, module in list(self._network.named_modules()):
            if isinstance(module, nn.Linear):
                width = module.out_features
            elif isinstance(module, nn.Dropout) and module.p > 0:
                self._network.set_submodule(name, _GivenDropout(module.p))
                self.dropouts[f"{name}.kept"] = module.p, torch.Size([width])
        self._forward = functools.partial(forward, self._network)
        # All weights of a network lie in one row; each begins at a multiple of 16 bytes.
        self._shapes = {n: w.shape for n, w in self._network.state_dict().items()}
        self._room = [-(-shape.numel() // 4) * 4 for shape in self._shapes.values()]
        table = functools.partial(torch.zeros, device=device.torch_device)
        self._weights = table(count, sum(self._room), requires_grad=True)
        self._best, self._mean, self._square = table(3, count, sum(self._room)).unbind()
        self._taken, self._rate = table(2, count, dtype=torch.float64).unbind()
        self._at = table(1, dtype=torch.long)
        self._tables = {
            "sample": table(steps, count, b, dtype=torch.long),
            "transforms": table(steps, count, b, 4, dtype=torch.long),
            "share": table(steps, count, b),
            **{name: table(steps, count, b, *shape, dtype=torch.bool)
               for name, (_, shape) in self.dropouts.items()},
        }  # fmt: skip
        self.losses = table(steps, count, 2)

    def _pattern(self) -> STCNN:
        """Build a network whose weights do not matter; torch's random numbers stay as they are."""
        with torch.random.fork_rng(devices=[]):
            return build_network(self._config)

    def _named(self, rows: Tensor) -> dict[str, Tensor]:
        """Return (M, ...) views of all networks' weights, by name."""
        parts = rows.split(self._room, dim=1)
        return {
            name: part[:, : shape.numel()].view(len(rows), *shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }

    def load(self, m: int, network: STCNN) -> None:
        """Give place m to a network, with an optimiser that has seen nothing."""
        with torch.no_grad():
            named = self._named(self._weights)
            for name, value in network.state_dict().items():
                named[name][m].copy_(value)
            for state in (self._mean, self._square, self._taken):
                state[m] = 0

    def write(self, m: int, images: Tensor, epoch: Mapping[str, Tensor], rate: float) -> None:
        """Lay the next epoch of place m out: `epoch` (see `draw_epochs`) counts `images`."""
        self._rate[m] = rate
        self.clear(m)
        for name, values in {**epoch, "sample": images[epoch["sample"]]}.items():
            self._tables[name][: len(values), m] = self._device.tensor(values)

    def clear(self, m: int) -> None:
        """Leave place m empty: it takes no step."""
        self._tables["share"][:, m] = 0

    def run(self, steps: int) -> None:
        """Train every network for its first `steps` steps of the tables; does not wait for them."""
        place = self._device.torch_device
        # Streams and graphs belong to the current GPU, which may be another one.
        with torch.cuda.device(place) if place.type == "cuda" else contextlib.nullcontext():
            self._at.zero_()
            if self._record and self._graph is None:
                self._graph = self._recorded()
            step = self._one_step if self._graph is None else self._graph.replay
            for _ in range(steps):
                step()

    def _recorded(self) -> torch.cuda.CUDAGraph:
        """Record the step as a CUDA graph; its warm-up moves no weight."""
        share = self._tables["share"].clone()
        self._tables["share"].zero_()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._at.zero_()
                self._one_step()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._one_step()
        self._tables["share"].copy_(share)
        self._at.zero_()
        return graph

    def _one_step(self) -> None:
        """Forward, backward and Adam of all networks at the step counter; then count on."""
        config = self._config
        now = {name: t.index_select(0, self._at).squeeze(0) for name, t in self._tables.items()}
        sample, share = now["sample"], now["share"]
        images = batches.transformed(self._views[sample.flatten()], now["transforms"].flatten(0, 1))
        images, weights = images.unflatten(0, sample.shape), self._named(self._weights)
        with self._device.autocast():
            classes, drawn = self._forward(
                {**weights, **{n: now[n] for n in self.dropouts}}, images
            )
        cls = classification_loss(classes, self._labels[sample], config.output, reduction="none")
        cls = (cls * share).sum(1)
        img = torch.zeros_like(cls)
        if drawn is not None:
            img = (reconstruction_loss(drawn, images, reduction="none") * share).sum(1)
        # Networks share no weight, so that the gradient of the sum is each one's own.
        total = cls.sum() + config.alpha * img.sum()
        if config.l2:
            for name, weight in weights.items():
                if decayed(name, config.l2_on):
                    total = total + config.l2 * weight.square().sum()
        (gradient,) = torch.autograd.grad(total, self._weights)
        with torch.no_grad():
            self._adam(gradient, share.sum(1) > 0)
            self.losses.index_copy_(0, self._at, torch.stack([cls, img], dim=1).unsqueeze(0))
            self._at.add_(1)

    def _adam(self, gradient: Tensor, active: Tensor) -> None:
        """Take Adam's step with the networks that show images; the others' epoch is over."""
        first, second = _BETAS
        self._taken.add_(active)
        mean = torch.lerp(self._mean, gradient, 1 - first)
        square = (self._square * second).addcmul_(gradient, gradient, value=1 - second)
        # In float64: beta to the power of a few is too close to one for float32.
        size = (self._rate / (1 - first**self._taken)).float()[:, None]
        unbiased = (1 - second**self._taken).sqrt().float()[:, None]
        weights = self._weights - size * mean / (square.sqrt() / unbiased + _EPSILON)
        for old, new in ((self._weights, weights), (self._mean, mean), (self._square, square)):
            old.copy_(torch.where(active[:, None], new, old))

    def class_logits(self, images: Tensor) -> Tensor:
        """Compute (M, n, 2) class logits of plain central crops; (M, n) counts `views_hu`."""
        inside = slice(MARGIN, STORED_SIZE - MARGIN)
        crops = batches.window(self._views[images.flatten(), inside, inside])
        crops = crops.unsqueeze(1).unflatten(0, images.shape)
        with torch.no_grad(), self._device.autocast():
            return self._forward(self._named(self._weights), crops, draws_images=False)[0]

    def keep_best(self, places: Sequence[int]) -> None:
        """Remember the weights that these networks have now."""
        if places:
            self._best[list(places)] = self._weights.detach()[list(places)]

    def best_network(self, m: int) -> STCNN:
        """Return a network of its own with the weights that place m remembers."""
        network = self._pattern()
        network.load_state_dict({name: w[m] for name, w in self._named(self._best).items()})
        self._device.place(network)
        return network.eval()

    def only(self, kept: Sequence[int]) -> Stack:
        """Return fewer places, which go on with these networks where they stand."""
        fewer = Stack(len(kept), *self._of_all)
        with torch.no_grad():
            for name in ("_weights", "_best", "_mean", "_square", "_taken"):
                getattr(fewer, name).copy_(getattr(self, name)[list(kept)])
        return fewer


def step_flop(config: TrainingConfig) -> float:
    """Count the operations of one network's training step as the textbook does.

    Two for a multiplication and addition; convolutions at the size that Fig. 3 gives them, ImgNet's
    after its upsampling. The backward pass costs twice the forward one, but for the first layer,
    whose images need no gradient. Bias, ReLU, pooling, losses and Adam are left out.

    >>> round(9 * step_flop(TrainingConfig.paper()) / 1e9)  # nine MT-CNNs, batch 64
    99
    """
    widths = (1, *FILTERS[: config.depth])
    convolutions = [2 * (IMAGE_SIZE >> i) ** 2 * KERNELS[i] ** 2 * widths[i] * widths[i + 1]
                    for i in range(config.depth)]  # fmt: skip
    neurons = (widths[-1] * (IMAGE_SIZE >> config.depth) ** 2, 256, 16, 2)
    full = sum(2 * a * b for a, b in pairwise(neurons))
    forward = sum(convolutions) * (2 if config.network.reconstructs else 1) + full
    return float(config.batch_size * (3 * forward - convolutions[0]))


def time_step(
    config: TrainingConfig, device: Device, networks: int, at_once: int,
    steps: int = 4, repeats: int = 3,
    record: bool | None = None, forward: Callable[..., Outputs] = stacked,
) -> dict[str, Any]:  # fmt: skip
    """Time a training step of some networks, on noise.

    Of the networks `at_once` (all, or 1) are side by side; the median of `repeats` runs of `steps`
    steps is taken. `record` and `forward` are `Stack`'s; None records on a GPU.

    Returns:
        seconds (a step of all networks), tflops (textbook operations a second, in 10^12),
        memory_gb (most of the GPU's memory in use; None on a CPU).
    """
    config = dataclasses.replace(config, negatives_per_positive=None)
    place, on_gpu = device.torch_device, device.torch_device.type == "cuda"
    finish = functools.partial(torch.cuda.synchronize, place) if on_gpu else lambda: None
    labels = np.arange(max(2, steps * config.batch_size // config.copies)) % 2
    noise = np.random.default_rng(0).integers(-1000, 400, (len(labels), STORED_SIZE, STORED_SIZE))
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(place)
    seconds = []
    with device.arithmetic(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stack = Stack(at_once, device.tensor(torch.from_numpy(noise.astype(np.int16))),
                      device.tensor(torch.from_numpy(labels)), config, device,
                      steps_of(labels, config), on_gpu if record is None else record, forward
                      )  # fmt: skip
        epoch = next(draw_epochs(0, labels, config, stack.dropouts))
        for m in range(at_once):
            stack.load(m, build_network(config))
            stack.write(m, torch.arange(len(labels)), epoch, config.learning_rate)
        for repeat in range(repeats + 1):
            finish()
            start = time.perf_counter()
            stack.run(steps if repeat else 1)  # the first compiles kernels, records the graph
            finish()
            seconds.append(time.perf_counter() - start)
    each = statistics.median(seconds[1:]) / steps * networks / at_once
    return {"seconds": each, "tflops": networks * step_flop(config) / each / 1e12,
            "memory_gb": torch.cuda.max_memory_allocated(place) / 1e9 if on_gpu else None
            }  # fmt: skip


def time_layouts(
    config: TrainingConfig, device: Device, networks: int, steps: int = 4, repeats: int = 3
) -> pd.DataFrame:
    """Time a step of networks one after another and side by side: layout, and `time_step`'s."""
    layouts = {"one after another": 1, "side by side": networks}
    rows = [{"layout": name, **time_step(config, device, networks, at_once, steps, repeats)}
            for name, at_once in layouts.items()]  # fmt: skip
    return pd.DataFrame(rows).sort_values("seconds", ignore_index=True)


@functools.lru_cache
def choose(config: TrainingConfig, device: Device, networks: int) -> tuple[int, float]:
    """Choose how many networks a GPU trains at once, by timing both layouts for a moment.

    One, or what its memory holds, at most 90; with the seconds that a step of one takes, about.
    """
    tried, best = min(networks, 9), None
    while best is None:
        try:
            best = time_layouts(config, device, tried, steps=2, repeats=2).iloc[0]
        except torch.OutOfMemoryError:
            if tried == 1:
                raise
            tried //= 2
    at_once = 1
    if best["layout"] != "one after another":
        free, _ = torch.cuda.mem_get_info(device.torch_device)
        fitting = int(0.8 * free / 1e9 / best["memory_gb"] * tried)
        at_once = max(1, min(networks, MOST_AT_ONCE, fitting))
    return at_once, float(best["seconds"]) / tried
