"""The networks, by the short name that a configuration gives them. They know nothing of folds."""

from __future__ import annotations

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any


@dataclass(frozen=True)
class Network:
    """A network that a configuration can ask for."""

    name: str  # in figures and tables
    place: str  # its class as "module:class", imported when it is first built
    reconstructs: bool  # whether it has a second task, to draw its image again

    def build(self, **options: Any) -> Any:
        """Return a new network, with weights from torch's current seed."""
        return resolve_name(self.place)(**options)


NETWORKS = {
    "mt": Network("MT-CNN", "labkit.models.mtcnn:MTCNN", reconstructs=True),
    "st": Network("ST-CNN", "labkit.models.mtcnn:STCNN", reconstructs=False),
}
"""To add a network, write its class in a file of its own and its entry here. It is built with
`depth` and `dropout_on`, has `logits(images)` and `class_logits(images)` as `STCNN`, `share` and
`classify`, whose last layer is linear, and no batch normalisation if it shall be trained beside
others."""
