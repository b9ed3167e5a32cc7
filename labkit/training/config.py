"""The settings of training: every choice in one frozen record."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from labkit.errors import InputError
from labkit.imaging.planes import PLANES
from labkit.models import NETWORKS, Network

WITH_SIZE = "+size"
CHOICES: dict[str, tuple[Any, ...]] = {
    "model": (*NETWORKS, *(f"{name}{WITH_SIZE}" for name in NETWORKS)),
    "depth": (1, 2, 3, 4, 5),
    "dropout_on": ("none", "fc1", "fc1+fc2"),
    "output": ("sigmoid", "softmax"),
    "precision": ("auto", "fp32", "tf32", "bf16"),
    "monitor": ("loss", "auc"),
    "l2_on": ("both", "share", "img"),
    "symmetries": ("all", "reflections"),
    "schedule": ("printed", "plateau"),
}


@dataclass(frozen=True)
class TrainingConfig:
    """Choices for training the network of one view; the defaults are the printed protocol (III-D).

    Args:
        model: "mt" (MT-CNN), "st" (ST-CNN), a method of Table 1 such as "radiomics", or one of them
            with the diameter, such as "mt+size".
        alpha: weight of the reconstruction loss in Eq. 1; unused by "st".
        depth: convolutions in ShareNet, 1 to 5 (IV-D).
        dropout_on: "fc1+fc2" (III-D), "fc1" (IV-C) or "none".
        output: "sigmoid" for two independent output neurons (III-B), or "softmax".
        epochs: passes over the training set at most (III-D: 150).
        batch_size: images a step (III-D: 64).
        learning_rate: of Adam in the first epoch (III-D: 1e-4).
        schedule: "printed": the rate is a tenth in the third quarter of `epochs` and a twentieth in
            the last (III-D: 1e-5, 5e-6); "plateau": a tenth from when `patience` epochs have
            brought no better validation result; after as many more training stops.
        patience: epochs without a better validation result before training stops (III-D: 10).
        monitor: "loss" (classification loss) or "auc" on the inner validation split.
        l2: weight of the squared convolution weights in the loss (IV-C; off).
        l2_on: whose weights those are: "share" (encoder), "img" (decoder) or "both"; "st" has no
            decoder.
        augmented_copies: freshly transformed copies of every image in an epoch (III-D: 4).
        plain_copy: whether an epoch also shows every image as it is.
        negatives_per_positive: None shows all images alike; a number shows, for every image of a
            positive, so many negatives, drawn afresh each epoch and as they are (LUNA-16).
        shift_px: largest translation of a transformed copy, pixels of 1 mm (III-D: 6).
        symmetries: of a transformed copy: "all" draws a turn (0, 90, 180, 270 degrees) and a flip
            (none, horizontal, vertical) independently; "reflections" joins every turn of 90, 180
            or 270 degrees with a flip, which leaves mirrored images only.
        validation_fraction: share of the training patients held out for stopping and weights.
        views: which of the nine views, by number (see `labkit.imaging.planes`); a method that takes
            a nodule whole has one, 0.
        precision: "fp32", "tf32" (GPU only), "bf16" (autocast) or "auto": bf16 where the hardware
            has it.
        seed: of weights, order, augmentation, dropout and the inner split.

    Raises:
        InputError: a value out of its range.

    >>> TrainingConfig.paper().epochs, TrainingConfig.lab().schedule
    (150, 'plateau')
    """

    model: str = "mt"
    alpha: float = 0.3
    depth: int = 3
    dropout_on: str = "fc1+fc2"
    output: str = "sigmoid"
    epochs: int = 150
    batch_size: int = 64
    learning_rate: float = 1e-4
    schedule: str = "printed"
    patience: int = 10
    monitor: str = "loss"
    l2: float = 0.0
    l2_on: str = "both"
    augmented_copies: int = 4
    plain_copy: bool = True
    negatives_per_positive: float | None = None
    shift_px: int = 6
    symmetries: str = "all"
    validation_fraction: float = 0.15
    views: tuple[int, ...] = tuple(range(len(PLANES)))
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} must be one of {choices}, not {getattr(self, name)!r}")
        if self.network.whole:
            object.__setattr__(self, "views", (0,))
        checks = {
            "alpha must be 0 or more": self.alpha >= 0,
            "epochs must be 1 or more": self.epochs >= 1,
            "batch_size must be 1 or more": self.batch_size >= 1,
            "learning_rate must be positive": self.learning_rate > 0,
            "patience must be 1 or more": self.patience >= 1,
            "l2 must be 0 or more": self.l2 >= 0,
            f"l2_on='img' needs a decoder, which model={self.model!r} lacks":
                self.l2_on != "img" or self.network.reconstructs,
            "shift_px must be 0 to 6, the room that the views have": 0 <= self.shift_px <= 6,
            "validation_fraction must lie between 0.05 and 0.5":
                0.05 <= self.validation_fraction <= 0.5,
            "an epoch must show something: plain_copy or augmented_copies":
                self.augmented_copies >= 0 and (self.plain_copy or self.augmented_copies > 0),
            "negatives_per_positive must be positive, or None":
                self.negatives_per_positive is None or self.negatives_per_positive > 0,
            f"views must be different numbers from 0 to {len(PLANES) - 1}":
                0 < len(self.views) == len(set(self.views) & set(range(len(PLANES)))),
        }  # fmt: skip
        for rule, holds in checks.items():
            if not holds:
                named = [f.name for f in fields(self) if re.search(rf"\b{f.name}\b", rule)]
                got = ", ".join(f"{name}={getattr(self, name)!r}" for name in named)
                raise InputError(f"{rule}; got {got}")

    @property
    def copies(self) -> int:
        """How often an epoch shows an image, plain and transformed."""
        return int(self.plain_copy) + self.augmented_copies

    @property
    def network(self) -> Network:
        """The registry's entry of the network, with its name in figures."""
        return NETWORKS[self.model.removesuffix(WITH_SIZE)]

    @property
    def with_size(self) -> bool:
        """Whether the diameter is put together with what the network says (`fusion.add_size`)."""
        return self.model.endswith(WITH_SIZE)

    def early_stopping(self, initial: float | None = None) -> EarlyStopping:
        """Return a new network's; `initial` is its first rate where it is not `learning_rate`."""
        return EarlyStopping(self, self.learning_rate if initial is None else initial)

    @classmethod
    def paper(cls, **changes: Any) -> TrainingConfig:
        """Return the printed protocol of section III-D, with `changes`."""
        return replace(cls(), **changes)

    @classmethod
    def lab(cls, **changes: Any) -> TrainingConfig:
        """Return a protocol that converges at a quarter of the printed one's cost.

        One transformed copy of each image an epoch, a larger rate that falls once on a plateau, and
        a cap of epochs that is hardly ever reached. Chosen on inner splits of real cubes, axial
        view, ST-CNN (`benchmarks/protocol.py`, `results/protocol.json`). With dropout on the 16
        neurons of FC2 as well, or batches of 64, some networks stay at chance at such rates.
        """
        own = cls(epochs=120, batch_size=16, learning_rate=5e-4, schedule="plateau",
                  augmented_copies=1, plain_copy=False, dropout_on="fc1")  # fmt: skip
        return replace(own, **changes)

    @classmethod
    def brief(cls, **changes: Any) -> TrainingConfig:
        """Return a protocol that stops long before its networks have learnt: to see how all works.

        It shows a fiftieth of the printed one's images; nothing may be concluded from it.
        """
        own = cls(epochs=16, batch_size=16, learning_rate=1e-3, augmented_copies=1,
                  plain_copy=False, dropout_on="fc1")  # fmt: skip
        return replace(own, **changes)

    @classmethod
    def of_task(cls, task: str) -> dict[str, Any]:
        """Return what a task changes of a protocol, to be passed as `changes`.

        In LUNA-16 an epoch shows each nodule plain and transformed four times (III-D), and as many
        other candidates, drawn afresh.

        >>> TrainingConfig.of_task("malignancy")
        {}
        """
        of_luna = {"negatives_per_positive": 1.0, "augmented_copies": 4, "plain_copy": True}
        return of_luna if task == "luna16" else {}

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for JSON."""
        return {**asdict(self), "views": list(self.views)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingConfig:
        """Return the settings that `as_dict` wrote; a key that it does not know is an error."""
        if unknown := set(values) - {f.name for f in fields(cls)}:
            raise InputError(f"unknown training settings: {', '.join(sorted(unknown))}")
        return cls(**values | ({"views": tuple(values["views"])} if "views" in values else {}))


def learning_rate(epoch: int, epochs: int, initial: float) -> float:
    """Compute the rate of an epoch (from 0): three steps, for half and two quarters (III-D).

    >>> [learning_rate(e, 150, 1e-4) for e in (0, 74, 75, 111, 112, 149)]
    [0.0001, 0.0001, 1e-05, 1e-05, 5e-06, 5e-06]
    """
    if epoch < epochs / 2:
        return initial
    return initial / (10 if epoch < int(epochs * 0.75) else 20)


@dataclass
class EarlyStopping:
    """The learning curve of one network: what rate comes next, when to stop, what to keep.

    `history` has a row an epoch, of which `val_cls` or `val_auc` is watched (`config.monitor`).
    """

    config: TrainingConfig
    initial: float  # learning rate
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1
    _best: float = float("inf")
    _waiting_since: int = -1
    _rate_fell: bool = False

    @property
    def rate(self) -> float:
        """Learning rate of the epoch that comes next."""
        if self.config.schedule == "plateau":
            return self.initial / (10 if self._rate_fell else 1)
        return learning_rate(len(self.history), self.config.epochs, self.initial)

    @property
    def done(self) -> bool:
        """Whether all epochs have run, or none was better for `patience` epochs (III-D)."""
        last = self._waiting_since + self.config.patience
        return len(self.history) > min(last, self.config.epochs - 1)

    def add(self, row: dict[str, Any]) -> bool:
        """Add an epoch; return whether it is the best, whose weights are to be kept."""
        epoch = len(self.history)
        self.history.append(row)
        value = row["val_cls"] if self.config.monitor == "loss" else -row["val_auc"]
        if value < self._best:
            self._best, self.best_epoch, self._waiting_since = value, epoch, epoch
        elif self.config.schedule == "plateau" and self.done and not self._rate_fell:
            self._rate_fell, self._waiting_since = True, epoch
        return self.best_epoch == epoch
