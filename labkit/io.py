"""Writing files so that a killed run leaves the old one or the new one, never half of either."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from filelock import FileLock, Timeout
from joblib.externals.loky.process_executor import TerminatedWorkerError

from labkit.errors import InputError

# Processes that the system killed, told in one line.


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


# One process at a time, of all that would make the same folder.


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


# Folders that appear whole or not at all.


@contextmanager
def whole_folder(
    folder: Path, check: Callable[[Path], object], needs_bytes: int = 0
) -> Iterator[Path]:
    """A hidden folder to fill; it takes the place of `folder` when the `with` block ends well.

    An error or a kill leaves whatever stood there as it was; what a kill leaves beside it is
    cleared by the next call.

    Args:
        folder: where the result shall be.
        check: raises when something stands there that must not be replaced; asked twice.
        needs_bytes: refuse a disk with less room.

    Raises:
        InputError: what `check` raises; no room; or this process is writing there already.
    """
    check(folder)
    target = folder.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}.partial-{platform.node()}-"
    clear_after_kill(target, prefix)
    free = shutil.disk_usage(target.parent).free
    if free < needs_bytes:
        raise InputError(
            f"{folder}: needs {needs_bytes / 1e6:.0f} MB, {free / 1e6:.0f} MB are free; make "
            "room, or name a folder on another disk"
        )
    partial = target.parent / f"{prefix}{os.getpid()}"
    try:
        partial.mkdir()
    except FileExistsError:
        raise InputError(f"{folder}: this process is already writing it") from None
    try:
        yield partial
        check(folder)
        move_into_place(partial, target, partial.with_name(partial.name + "-replaced"))
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, values: Any) -> None:
    """Write plain values as JSON, atomically."""
    text = json.dumps(values, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, atomically."""
    write_atomically(path, lambda p: table.to_csv(p, index=False))


def read_json(path: Path, what: str) -> Any:
    """Read JSON; `what` names the thing in the error.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {path.parent} is not {what}") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InputError(
            f"{path}: not readable as JSON; {what} is damaged, make it again"
        ) from None


def sha256(path: Path, on_bytes: Callable[[int], object] | None = None) -> str:
    """Checksum of a file, as hexadecimal text; `on_bytes` is told how many were read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            if on_bytes is not None:
                on_bytes(len(block))
    return digest.hexdigest()


def record_of(path: Path, on_bytes: Callable[[int], object] | None = None) -> dict[str, Any]:
    """What cohort.json says of a file: its length and its checksum."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path, on_bytes)}


def clear_after_kill(target: Path, prefix: str) -> None:
    """Remove what killed runs left beside the target; put back a cohort they had moved aside."""
    for left in target.parent.iterdir():
        pid, _, kind = left.name.removeprefix(prefix).partition("-")
        if not left.name.startswith(prefix) or not pid.isdigit() or psutil.pid_exists(int(pid)):
            continue
        if kind == "replaced" and not target.exists():
            left.rename(target)
        else:
            shutil.rmtree(left)


def move_into_place(made: Path, target: Path, aside: Path) -> None:
    """Put a finished folder where it belongs; what stood there is moved aside, then removed.

    Args:
        made: the finished folder, on the same disk.
        target: where it shall be.
        aside: a name for what stands there until it is removed; `clear_after_kill` has to know it.
    """
    if target.exists():
        target.rename(aside)
    made.rename(target)
    shutil.rmtree(aside, ignore_errors=True)
