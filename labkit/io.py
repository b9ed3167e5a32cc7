"""Writing files so that a killed run leaves the old one or the new one, never half of either."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from filelock import FileLock, Timeout
from joblib import cpu_count
from joblib.externals.loky.process_executor import TerminatedWorkerError

from labkit.errors import InputError


def jobs_by_memory(bytes_each: float) -> int:
    """Return one process a core, as far as there is that much memory free for each; at least 1."""
    return max(1, min(cpu_count(), int(psutil.virtual_memory().available // bytes_each)))


@contextmanager
def told_if_killed(jobs: int, cure: str = "the same command with fewer --jobs goes on") -> Iterator:
    """Make one line of joblib's page on a process that was killed, and of one without memory.

    A process that takes more memory than there is seldom gets to say so: the system ends it.
    `jobs` processes work in the `with` block; `cure` helps where there are several.
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


@contextmanager
def in_turn(folder: Path, wait: bool = True) -> Iterator[None]:
    """Run the `with` block while no other process runs one for the same folder.

    The others wait, and say so (InputError without `wait`); whoever gets its turn has to look
    whether there is anything left to do. The operating system holds the lock, so that a killed
    process leaves none behind; what stays is an empty file, .NAME.lock beside the folder.
    """
    target = folder.resolve()
    _make_parent(folder)
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    busy = f"{folder}: another process is making it"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise InputError(f"{busy}; wait until it is done") from None
        print(f"{busy}; waiting until it is done", flush=True)
        lock.acquire(poll_interval=0.5)
    try:
        yield
    finally:
        lock.release()


def require_own_folder(
    folder: Path, manifest: str, what: str, belongs: Callable[[str, Any], bool]
) -> None:
    """Refuse a place where a new folder would destroy anything but an older one of its kind.

    Args:
        folder: what shall be made or replaced.
        manifest: name of the JSON file that marks such a folder; `what` names one in words.
        belongs: tells of another file's name, given the manifest's content (None when it cannot be
            read), whether it is part of such a folder.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a new folder for {what}")
    others = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    if manifest in others:
        about = None
        with suppress(InputError):
            about = read_json(folder / manifest, what)
        others = [n for n in others if n != manifest and not belongs(n, about)]
    if others:
        raise InputError(
            f"{folder}: holds {others[0]}, which is no part of {what}; name a new folder"
        )


def require_room(folder: Path, needs_bytes: int) -> None:
    """Refuse a disk with less room than a folder that shall be made there needs."""
    free = shutil.disk_usage(folder.resolve().parent).free
    if free < needs_bytes:
        raise InputError(
            f"{folder}: needs {needs_bytes / 1e6:.0f} MB, {free / 1e6:.0f} MB are free; make "
            "room, or name a folder on another disk"
        )


@contextmanager
def whole_folder(
    folder: Path, check: Callable[[Path], object], needs_bytes: int = 0
) -> Iterator[Path]:
    """Give a hidden folder to fill, which takes the place of `folder` when the block ends well.

    An error or a kill leaves whatever stood there as it was; what a kill leaves beside it is
    cleared by the next call. `check`, called twice, raises when something stands there that must
    not be replaced; a disk with less room than `needs_bytes` is refused.
    """
    check(folder)
    _make_parent(folder)
    clear_after_kill(folder)
    require_room(folder, needs_bytes)
    partial = _beside(folder, str(os.getpid()))
    try:
        partial.mkdir()
    except FileExistsError:
        raise InputError(f"{folder}: this process is already writing it") from None
    try:
        yield partial
        check(folder)
        replace_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def replace_folder(made: Path, folder: Path) -> None:
    """Put a finished folder of the same disk in its place, and remove what stood there."""
    target, aside = folder.resolve(), _beside(folder, f"{os.getpid()}-replaced")
    if target.exists():
        target.rename(aside)
    made.rename(target)
    shutil.rmtree(aside, ignore_errors=True)


def clear_after_kill(folder: Path) -> None:
    """Remove what killed runs left beside a folder; put it back if they had moved it aside."""
    target, prefix = folder.resolve(), _beside(folder, "").name
    for left in target.parent.iterdir():
        pid, _, kind = left.name.removeprefix(prefix).partition("-")
        if not left.name.startswith(prefix) or not pid.isdigit() or psutil.pid_exists(int(pid)):
            continue
        if kind == "replaced" and not target.exists():
            left.rename(target)
        else:
            shutil.rmtree(left)


def _make_parent(folder: Path) -> None:
    parent = folder.resolve().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise InputError(f"{folder}: cannot be written there ({error.strerror}); name a folder on "
                         "another disk, or of your own") from None  # fmt: skip


def _beside(folder: Path, whose: str) -> Path:
    target = folder.resolve()
    return target.with_name(f".{target.name}.partial-{platform.node()}-{whose}")


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
    """Read JSON; an InputError says that `what` is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {path.parent} is not {what}") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InputError(f"{path}: not readable as JSON; {what} is damaged, make it again"
                         ) from None  # fmt: skip


def sha256(path: Path, on_bytes: Callable[[int], object] | None = None) -> str:
    """Compute a file's checksum, as hexadecimal text; `on_bytes` is told how many were read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            if on_bytes is not None:
                on_bytes(len(block))
    return digest.hexdigest()
