"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.data._cohort_files import clear_after_kill, move_into_place
from labkit.errors import InputError


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
