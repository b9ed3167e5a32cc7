"""One training step of one network, whole and in parts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks import counting
from labkit.models.mtcnn import MTCNN
from labkit.training import batches
from labkit.training.config import TrainingConfig
from labkit.training.loss import classification_loss, reconstruction_loss
from labkit.training.machines import Device

NODULES = 512  # as many as a fold has, about, from which batches are drawn


class Step:
    """A training step of one network, whole and in parts, as `labkit.training.loop` does it.

    Args:
        device: with its precision.
        batch_size: images a step.
        seed: of weights, images and augmentation.
    """

    def __init__(self, device: Device, batch_size: int, seed: int = 0) -> None:
        self.device, self.config = device, TrainingConfig.paper(batch_size=batch_size)
        order = torch.Generator().manual_seed(seed)
        views = torch.randint(-1000, 400, (NODULES, 76, 76), generator=order, dtype=torch.int16)
        self.views = device.tensor(views)
        self.labels = device.tensor(torch.randint(0, 2, (NODULES,), generator=order))
        transforms, sample = batches.draw_epoch(NODULES, self.config, order)
        self.transforms = transforms[:batch_size].to(device.torch_device)
        self.sample = device.tensor(sample[:batch_size])
        with device.seeded(seed):
            self.network = MTCNN(dropout_on=self.config.dropout_on)
        device.place(self.network)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=1e-4, fused=True)
        self.network.train()

    def images(self) -> Tensor:
        """(B, 1, 64, 64) freshly augmented."""
        images = batches.apply(self.views[self.sample], self.transforms)
        return images.contiguous(memory_format=torch.channels_last)

    def loss(self, logits: Tensor, drawn: Tensor | None, images: Tensor) -> Tensor:
        """Eq. 1 of an MT-CNN."""
        assert drawn is not None
        cls = classification_loss(logits, self.labels[self.sample])
        return cls + self.config.alpha * reconstruction_loss(drawn, images)

    def whole(self) -> None:
        """Augment, forward, backward, optimise."""
        images = self.images()
        with self.device.autocast():
            logits, drawn = self.network.logits(images)
        loss = self.loss(logits, drawn, images)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()

    def parts(self) -> Iterator[tuple[str, str, int, int, Callable[[], object]]]:
        """Every part: stage, kind, FLOP, least bytes, and the work itself."""
        images = self.images()
        loss = functools.partial(self.loss, images=images)
        kind = counting.ELEMENTWISE
        size = images.numel() * (2 + 4)  # a pixel is read as int16 and written as float32
        yield "augmentation", kind, counting.WINDOW_FLOP * images.numel(), size, self.images
        for call in counting.calls(self.network, images, self.device.autocast, loss):
            work = functools.partial(_forward_backward, call, self.device)
            yield call.stage, call.kind, call.flop, call.bytes, work
        with self.device.autocast():
            logits, drawn = self.network.logits(images)
        ends = [x.detach().requires_grad_() for x in (logits, drawn) if x is not None]
        elements = sum(end.numel() for end in ends)
        # Logits are read forward and backward and get a gradient; images are read twice.
        size = sum(3 * end.numel() * end.element_size() for end in ends) + 8 * images.numel()
        flop = counting.BCE_FLOP * elements
        yield "losses", kind, flop, size, lambda: torch.autograd.grad(loss(*ends), ends)
        self.whole()  # leaves a gradient everywhere
        weights = sum(p.numel() for p in self.network.parameters())
        size = 4 * counting.ADAM_TENSORS * weights
        yield "optimiser", kind, counting.ADAM_FLOP * weights, size, self.optimiser.step


def _forward_backward(call: counting.Call, device: Device) -> None:
    x = call.x.requires_grad_(call.needs_gradient)
    with device.autocast():
        y = call.module(x)
    wanted = [*([x] if call.needs_gradient else []), *call.module.parameters()]
    torch.autograd.grad(y, wanted, call.gradient)
