"""What networks under way have learnt so far: a small file each, a line an epoch.

Networks are trained in other processes, on a cluster on other machines, so that their epochs reach
a figure through the folder of the run: `folder`/live/NAME.jsonl. Nothing is ever computed from
these files. A run that goes on trains the networks that were under way anew, and their files begin
anew with them.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from labkit.errors import InputError
from labkit.io import write_json

COLUMNS = (
    "network", "epoch", "learning_rate", "train_cls", "train_img", "val_cls", "val_auc", "seconds",
)  # fmt: skip

_LIVE = "live"
_FINISHED = "units"
_END = ".jsonl"
_SECONDS_BETWEEN = 0.5
_LARGEST_SHARE = 0.005


@dataclass(frozen=True)
class Entry:
    """What is known of one network under way.

    Args:
        name: of the network.
        rows: one an epoch, as `loop.train_view` makes them, and the seconds since the start.
        changed: when the file was last written, seconds since 1970.
    """

    name: str
    rows: tuple[dict[str, Any], ...]
    changed: float


def writer(folder: str | Path, name: str) -> Callable[[Mapping[str, Any]], None]:
    """Begin the journal of a network; call the result with each of its epochs' rows.

    It is there to be looked at, so it writes twice a second at most (an epoch on a GPU may take
    milliseconds), takes a two-hundredth of the time at most, and never waits for the disk. Where
    it cannot write (a full disk, a folder that is gone) it warns once and training goes on.

    Args:
        folder: of the run.
        name: of the network, such as repeat0_fold3_view2; a network of that name begins anew.

    Raises:
        InputError: the name cannot be that of a file.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise InputError(f"{name!r}: a network's name must do as the name of a file")
    return _Writer(_file(Path(folder), name)).add


def begin(folder: str | Path, names: Iterable[str]) -> None:
    """Say which networks will be trained, and forget what an earlier training of them left.

    Not needed for a run, whose `run.json` says so.
    """
    folder = Path(folder)
    for name in names:
        writer(folder, name)
        _try(lambda file: file.unlink(missing_ok=True), folder / _FINISHED / f"{name}.json")


def finish(
    folder: str | Path, name: str, history: Iterable[Mapping[str, Any]] | None = None
) -> None:
    """Remove a network's journal, once its results are written.

    Args:
        folder: of the run.
        name: of the network.
        history: leave these rows as its results, where nothing else writes any.
    """
    folder = Path(folder)
    if history is not None:
        values = {"history": list(history)}
        _try(lambda file: write_json(file, values), folder / _FINISHED / f"{name}.json")
    _try(lambda file: file.unlink(missing_ok=True), _file(folder, name))


def clear(folder: str | Path) -> None:
    """Remove what is left of the journals of a run of which nothing is under way any more."""
    live = Path(folder) / _LIVE
    if live.is_dir():
        _try(shutil.rmtree, live)


def begun(folder: str | Path) -> bool:
    """Whether any network has a journal here, or had one."""
    return (Path(folder) / _LIVE).is_dir()


def finished(folder: str | Path) -> list[Path]:
    """The results of each finished network: JSON with a "history" of rows, NAME.json."""
    return sorted(f for f in (Path(folder) / _FINISHED).glob("*.json") if f.name[0] != ".")


def read(folder: str | Path) -> pd.DataFrame:
    """The epochs of all networks under way, one row each, by network and epoch.

    A killed run leaves its networks under way; `entries` also says when each was last heard of.

    Returns:
        network (its name), epoch, learning_rate, train_cls, train_img, val_cls, val_auc, and
        seconds since the network was started. No row where nothing is under way.
    """
    rows = [{"network": e.name, **row} for e in entries(folder) for row in e.rows]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def entries(folder: str | Path) -> list[Entry]:
    """What is known of each network under way, by name; also of one in its first epoch."""
    return [
        Entry(file.name.removesuffix(_END), tuple(_rows(text)), changed)
        for file, text, changed in _files(Path(folder) / _LIVE)
    ]


class _Writer:
    """Appends rows to a file, now and then."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._started = time.monotonic()
        self._waiting: list[str] = []
        self._broken = False
        self._next = 0.0
        self._write("w")

    def add(self, row: Mapping[str, Any]) -> None:
        """Note an epoch."""
        if self._broken:
            return
        seconds = round(time.monotonic() - self._started, 3)
        # Numbers of numpy and torch are numbers, too.
        self._waiting.append(json.dumps({**row, "seconds": seconds}, default=float) + "\n")
        if time.monotonic() >= self._next:
            self._write("a")

    def _write(self, mode: str) -> None:
        before = time.monotonic()
        self._broken = not _try(lambda file: _put(file, mode, "".join(self._waiting)), self._file)
        self._waiting.clear()
        if mode == "a":
            now = time.monotonic()
            self._next = now + max(_SECONDS_BETWEEN, (now - before) / _LARGEST_SHARE)


def _put(file: Path, mode: str, text: str) -> None:
    if mode == "w":
        file.parent.mkdir(parents=True, exist_ok=True)
    with file.open(mode + "b", buffering=0) as out:
        out.write(text.encode())


def _try(action: Callable[[Path], object], file: Path) -> bool:
    """Whether it worked; a disk that fails costs a warning, and not the training."""
    try:
        action(file)
    except OSError as error:
        warnings.warn(
            f"{file}: the live learning curves cannot be written ({error.strerror}); "
            "training goes on without them",
            stacklevel=2,
        )
        return False
    return True


def _file(folder: Path, name: str) -> Path:
    return folder / _LIVE / f"{name}{_END}"


def _files(live: Path) -> Iterator[tuple[Path, bytes, float]]:
    """File, contents and time of change of each journal; a folder that is not there holds none."""
    for file in sorted(live.glob(f"*{_END}")):
        try:
            with file.open("rb") as journal:
                text, changed = journal.read(), os.fstat(journal.fileno()).st_mtime
        except FileNotFoundError:
            continue  # that network has just finished
        yield file, text, changed


def _rows(text: bytes) -> list[dict[str, Any]]:
    """The epochs of a journal, in order.

    The last line may be torn: it is being written, or its process was killed. Should the process
    of a killed run live on beside its successor, both write the same epochs of the same network.
    """
    by_epoch: dict[int, dict[str, Any]] = {}
    for line in text.split(b"\n"):
        try:
            row = json.loads(line)
            by_epoch[int(row["epoch"])] = row
        except (ValueError, KeyError, TypeError):
            continue  # torn; the epoch is missing in a picture, and nowhere else
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]
