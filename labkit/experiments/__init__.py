"""The paper's tables and figures, each declared as data, and what makes them from a cohort.

`declared` says what each claims and trains; `running.reproduce` trains what is missing and draws.
The declarations are light; torch is imported with `reproduce`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labkit.experiments.declared import ALL, EXPERIMENTS, Experiment, Published, names

if TYPE_CHECKING:
    from labkit.experiments.running import reproduce, variants_of

__all__ = [
    "ALL", "EXPERIMENTS", "Experiment", "Published", "names", "reproduce", "variants_of",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in ("reproduce", "variants_of"):
        from labkit.experiments import running

        return getattr(running, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
