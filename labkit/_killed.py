"""Processes that the system killed, told in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from joblib.externals.loky.process_executor import TerminatedWorkerError

from labkit.errors import InputError


@contextmanager
def told_if_killed(
    jobs: int, cure: str = "the same command with fewer --jobs goes on"
) -> Iterator[None]:
    """Make one line of joblib's page on a process that was killed, and of one without memory.

    A process that takes more memory than there is seldom gets to say so: the system ends it.

    Args:
        jobs: how many processes work in the `with` block.
        cure: what helps, where there are several.

    Raises:
        InputError: one of them was killed, or found no memory.
    """
    try:
        yield
    except TerminatedWorkerError:
        raise InputError(
            f"one of {jobs} processes was killed, for want of memory most likely; {cure}"
        ) from None
    except MemoryError:
        what = cure if jobs > 1 else "take a machine with more"
        raise InputError(f"there is too little memory for --jobs {jobs}; {what}") from None
