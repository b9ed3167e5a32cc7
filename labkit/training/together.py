"""Training many networks side by side, each with its own data, schedule and end.

A fixed number of slots is trained at once. In a round every slot goes through one epoch of its own
network; then all are validated, networks that are done leave, and the next ones take their places.
So no slot waits for a network that trains longer, and the arithmetic has the same shape from the
first step to the last. Within a round the device never waits for the host.

Every network gets the numbers that `loop.train_view` gives it: the same first weights, order,
augmentation, dropout, schedule and stopping, whatever is trained beside it.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labkit.training.augment import Pixels
from labkit.training.config import TrainingConfig
from labkit.training.course import Course, Row, epoch_means, lost_batch
from labkit.training.device import Device
from labkit.training.draws import Chance, Epoch, steps_of
from labkit.training.loop import Trained, build_network, left_by
from labkit.training.slots import Slots
from labkit.training.stack import GPU_WAYS, ONE_AFTER_ANOTHER
from labkit.training.ways import choose


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
