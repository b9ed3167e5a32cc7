"""One process at a time, of all that would make the same folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_SECONDS_BETWEEN = 0.5


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Run the `with` block while no other process runs one for the same folder.

    The others wait, and say so; whoever gets its turn has to look whether there is anything left
    to do. The operating system holds the lock, so that a killed process leaves none behind; what
    stays is an empty file, .NAME.lock beside the folder.

    Args:
        folder: what is made; it need not be there.
    """
    target = folder.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{folder}: another process is making it; waiting until it is done", flush=True)
        lock.acquire(poll_interval=_SECONDS_BETWEEN)
    try:
        yield
    finally:
        lock.release()
