"""How the networks learn: settings, loss, batches, the loop, and nine trained networks as one.

from labkit.training import TrainingConfig, fit, load
"""

from typing import TYPE_CHECKING, Any

from labkit.training.config import TrainingConfig

if TYPE_CHECKING:
    from labkit.training.nine_views import fit, load

__all__ = ["TrainingConfig", "fit", "load"]


def __getattr__(name: str) -> Any:
    """Import torch only when something is trained: the command line reads the settings often."""
    if name in ("fit", "load"):
        from labkit.training import nine_views

        return getattr(nine_views, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
