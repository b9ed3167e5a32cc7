"""What networks under way have learnt so far: a small file each, a line an epoch.

Networks are trained in other processes, on a cluster on other machines, so that their epochs reach
a figure through the folder of the run: `folder`/live/NAME.jsonl. Nothing is ever computed from
these files; a run that goes on begins those of the networks that were under way anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from labkit.io import write_json


class Entry(NamedTuple):
    """What is known of one network under way."""

    name: str
    rows: tuple[dict[str, Any], ...]  # one an epoch of its history, and seconds since the start
    changed: float  # when the file was last written, seconds since 1970


def writer(folder: str | Path, name: str) -> Callable[[Mapping[str, Any]], None]:
    """Begin the file of a network; call the result with each of its epochs' rows.

    Where it cannot write (a full disk, a folder that is gone) it warns and training goes on. A
    network of the name of an earlier one begins anew.
    """
    file, started = Path(folder) / "live" / f"{name}.jsonl", time.monotonic()
    with _forgiven(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")

    def add(row: Mapping[str, Any]) -> None:
        values = {**row, "seconds": round(time.monotonic() - started, 3)}
        with _forgiven(file), file.open("ab", buffering=0) as out:  # never half a line at a time
            out.write(f"{json.dumps(values, default=float)}\n".encode())

    return add


def begin(folder: str | Path, names: Iterable[str]) -> None:
    """Say which networks will be trained, and forget what an earlier training of them left.

    Not needed for a run, whose `run.json` says so.
    """
    for name in names:
        writer(folder, name)
        left = Path(folder) / "units" / f"{name}.json"
        with _forgiven(left):
            left.unlink(missing_ok=True)


def finish(
    folder: str | Path, name: str, history: Iterable[Mapping[str, Any]] | None = None
) -> None:
    """Remove a network's file; where nothing else writes its results, leave its history as them."""
    file = Path(folder) / "live" / f"{name}.jsonl"
    with _forgiven(file):
        if history is not None:
            write_json(Path(folder) / "units" / f"{name}.json", {"history": list(history)})
        file.unlink(missing_ok=True)


def clear(folder: str | Path) -> None:
    """Remove the files of a run of which nothing is under way any more."""
    live = Path(folder) / "live"
    with _forgiven(live), contextlib.suppress(FileNotFoundError):
        shutil.rmtree(live)


def finished(folder: str | Path) -> list[Path]:
    """List the results of each finished network: JSON with a "history" of rows, NAME.json."""
    return sorted(f for f in (Path(folder) / "units").glob("*.json") if f.name[0] != ".")


def entries(folder: str | Path) -> list[Entry]:
    """Read what is known of each network under way, by name; also of one in its first epoch.

    A killed run leaves its networks under way; `Entry.changed` says when each was last heard of.
    """
    found = []
    for file in sorted((Path(folder) / "live").glob("*.jsonl")):
        by_epoch: dict[int, dict[str, Any]] = {}
        with contextlib.suppress(FileNotFoundError), file.open("rb") as lines:  # it has finished
            for line in lines:
                # The last line may be torn, and a killed run's process may write beside its heir.
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    row = json.loads(line)
                    by_epoch[int(row["epoch"])] = row
            rows = tuple(by_epoch[epoch] for epoch in sorted(by_epoch))
            found.append(Entry(file.stem, rows, os.fstat(lines.fileno()).st_mtime))
    return found


@contextlib.contextmanager
def _forgiven(file: Path) -> Iterator[None]:
    """Let a disk that fails cost a warning, and not the training."""
    try:
        yield
    except OSError as error:
        warnings.warn(f"{file}: the live learning curves cannot be written ({error.strerror}); "
                      "training goes on without them", stacklevel=3)  # fmt: skip
