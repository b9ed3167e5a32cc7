"""The one error that means: your input is wrong, and here is what to do."""

from collections.abc import Iterable


class InputError(ValueError):
    """Bad input from outside. The message is one line: what is wrong, where, and the cure."""


def require_known(names: Iterable[str], known: Iterable[str], what: str, where: str) -> None:
    """Refuse names that are none of the known ones; `what` they name, and `where` it should be."""
    names, there = list(dict.fromkeys(names)), set(known)
    unknown = [repr(name) for name in names if name not in there]
    if unknown:
        shown = ", ".join(unknown[:5]) + f" and {len(unknown) - 5} more" * (len(unknown) > 5)
        raise InputError(
            f"{where}: no such {what}: {shown} ({len(unknown)} of {len(names)} named); there is "
            f"{min(there, default='none')!r}; check how they are written"
        )


def require_jobs_and_seed(jobs: int | None, seed: int = 0) -> None:
    """Refuse less than one process, and a seed below 0; None means as many as there are cores."""
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs is {jobs}; give 1 or more, or None for all cores")
    if seed < 0:
        raise InputError(f"seed is {seed}; give 0 or a positive whole number")
