"""A fixed number of networks on the device, and one step of all of them at once.

Nothing in a step depends on the host: which images, which transformations, what dropout keeps and
which learning rate are tables on the device, read at a step counter that lies there too. On a GPU
the step is therefore recorded once, as a CUDA graph, and replayed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from labkit.models.mtcnn import MTCNN, STCNN
from labkit.training import augment
from labkit.training.config import TrainingConfig
from labkit.training.device import Device
from labkit.training.draws import Epoch
from labkit.training.loop import build_network
from labkit.training.loss import classification_losses, decayed, reconstruction_losses
from labkit.training.stack import FC_WIDTHS, NOTHING_DROPPED, Kept, Outputs, Weights

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
        transforms = augment.Transforms(*now(self.transforms).view(m * b, 4).unbind(1))
        images = augment.apply(self._views[sample.flatten()], transforms).unflatten(0, (m, b))
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
        margin = augment.MARGIN
        side = augment.STORED_SIZE
        crops = self._views[rows.flatten(), margin : side - margin, margin : side - margin]
        images = augment.window(crops).unsqueeze(1).unflatten(0, rows.shape)
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
