"""Learning curves that grow in a notebook while networks are trained, and stay as one figure.

A thread of the notebook's kernel reads what the networks' processes note (`training.journal`) and
what finished networks leave, and redraws the figure in its place. It uses no pyplot, whose state
belongs to the main thread, and a thirtieth of one core at most.
"""

from __future__ import annotations

import contextvars
import io
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from labkit.errors import InputError
from labkit.evaluation.runs import Plan
from labkit.files import read_json
from labkit.plots.growing import Curve, Growing, Progress
from labkit.training import journal

_LARGEST_SHARE = 0.03


@contextmanager
def curves(
    runs: str | Path | Mapping[str, str | Path] | None = None,
    *,
    simulated: bool = False,
    every_s: float = 1.0,
) -> Iterator[Path]:
    """Show learning curves while the block trains; leave one figure, also when it is stopped.

    In a notebook:

        with live.curves(out):
            crossval.run(cohort, config, out)

        with live.curves() as folder:
            model = fit.fit(cohort, rows, config, live=folder)

    Elsewhere it shows nothing, and the block runs as if it were not there. Another notebook may
    watch a run that is under way: `with live.curves(out): time.sleep(600)`.

    Args:
        runs: folder of a run (there need not be one yet), or several by name, such as
            {"ST-CNN": ..., "MT-CNN": ...}, which are set beside each other.
        simulated: say that the images were simulated.
        every_s: seconds between redraws, or more where drawing takes long.

    Yields:
        A folder to give to `fit.fit` as `live`, whose networks are shown, too. Several fits are
        set beside each other if each has a folder of its own in it, named for what it is.
    """
    named = {"": runs} if isinstance(runs, str | Path) else dict(runs or {})
    with tempfile.TemporaryDirectory(prefix="labkit_", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if not _in_notebook():
            yield folder
            return
        watcher = _Watcher({k: Path(v) for k, v in named.items()}, folder, simulated)
        stop = threading.Event()
        # In this cell's context, so that what the thread shows belongs to the cell.
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run, args=(watcher.watch, stop, every_s), name="live curves", daemon=True
        )
        thread.start()
        try:
            yield folder
        finally:
            stop.set()
            thread.join()
            try:
                watcher.look(last=True)
            except (OSError, InputError) as error:
                warnings.warn(f"the learning curves are not the last: {error}", stacklevel=3)
            watcher.redraw(last=True)


class _Watcher:
    """What is watched, and the figure that shows it."""

    def __init__(self, runs: dict[str, Path], fits: Path, simulated: bool) -> None:
        self._sources = {name: _Source(folder) for name, folder in runs.items()}
        self._fits = fits
        self._figure = Growing(simulated)
        self._display_id: str | None = None
        self._progress: dict[str, Progress] = {}
        self._drawn: object = None

    def watch(self, stop: threading.Event, every_s: float) -> None:
        """Look and redraw until told to stop."""
        drawn, pause = 0.0, 0.0
        while not stop.wait(every_s):
            # A file system may have a bad moment; if it is more, the last look tells of it.
            with suppress(OSError, InputError):
                start = time.thread_time()
                self.look()
                if time.monotonic() - drawn >= pause:
                    self.redraw()
                    drawn = time.monotonic()
                    pause = (time.thread_time() - start) / _LARGEST_SHARE

    def look(self, last: bool = False) -> None:
        """Read what there is now.

        Raises:
            OSError, InputError: it cannot be read.
        """
        for folder in (self._fits, *sorted(self._fits.iterdir())):
            name = "" if folder == self._fits else folder.name
            if journal.begun(folder) and name not in self._sources:
                self._sources[name] = _Source(folder, new=True)
        self._progress = {name: source.look(last) for name, source in self._sources.items()}

    def redraw(self, last: bool = False) -> None:
        """Show what was seen, where it has changed."""
        state = (
            last,
            [
                (name, p.total, *p.finished, *(len(c.epoch) for c in p.under_way))
                for name, p in self._progress.items()
            ],
        )
        if state == self._drawn or not any(p.curves for p in self._progress.values()):
            return
        self._drawn = state
        image = io.BytesIO()
        alt = self._figure.draw(self._progress, image, last)
        self._show(image.getvalue(), alt)

    def _show(self, image: bytes, alt: str) -> None:
        from IPython.display import display

        update = self._display_id is not None
        self._display_id = self._display_id or uuid.uuid4().hex
        display(
            {"image/png": image, "text/plain": alt},
            metadata={"image/png": {"alt": alt}},
            raw=True,
            display_id=self._display_id,
            update=update,
        )


class _Source:
    """A folder in which networks are trained. Each finished network is read once."""

    def __init__(self, folder: Path, new: bool = False) -> None:
        self._folder = folder
        self._read: dict[str, tuple[int, Curve]] = {}
        self._under_way: dict[str, Curve] = {}
        self._total: int | None = None
        # A killed run leaves journals behind: what does not change is not under way.
        left = [] if new else journal.entries(folder)
        self._left = {entry.name: entry.changed for entry in left}

    def look(self, last: bool = False) -> Progress:
        """The curves as they are now; at last, those of networks that were cut off as they were."""
        # Before the finished ones, so that one that finishes now is seen in one place at least.
        now = {
            e.name: Curve.of(e.rows)
            for e in journal.entries(self._folder)
            if self._left.get(e.name) != e.changed
        }
        done = []
        for file in journal.finished(self._folder):
            try:
                changed = file.stat().st_mtime_ns
            except FileNotFoundError:
                continue  # to be trained anew
            if file.stem not in self._read or self._read[file.stem][0] != changed:
                rows = read_json(file, "a unit of a run")["history"]
                self._read[file.stem] = changed, Curve.of(rows)
            done.append(file.stem)
        if last:
            now = self._under_way | now
        self._under_way = {name: curve for name, curve in now.items() if name not in done}
        return Progress(
            [self._read[name][1] for name in done],
            [curve for curve in self._under_way.values() if len(curve.epoch)],
            self._networks() or len(done) + len(self._under_way),
        )

    def _networks(self) -> int | None:
        """How many there will be, where the record of a run says so."""
        file = self._folder / "run.json"
        if self._total is None and file.is_file():
            run = read_json(file, "a run")
            try:
                places = Plan(**run["plan"]).places()
                self._total = len(list(places)) * len(run["config"]["views"])
            except (KeyError, TypeError):
                raise InputError(
                    f"{file}: not the record of a run; choose another folder"
                ) from None
        return self._total


def _in_notebook() -> bool:
    """Whether there is a kernel, whose front end can show a picture and replace it."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None
