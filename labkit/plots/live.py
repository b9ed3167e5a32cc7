"""Learning curves that grow in a notebook while networks are trained, and stay as one figure.

A thread of the notebook's kernel reads what the networks' processes note (`training.progress`) and
what finished networks leave, and draws the figure anew in its place. It uses no pyplot, whose state
belongs to the main thread, and a thirtieth of one core at most.
"""

from __future__ import annotations

import contextvars
import io
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd

from labkit.errors import InputError
from labkit.evaluation.crossval import Plan
from labkit.io import read_json
from labkit.plots.views import PANELS, draw_curves
from labkit.training import progress

_LARGEST_SHARE = 0.03  # of the time, spent on drawing


class Run:
    """A folder in which networks are trained, and their learning curves."""

    def __init__(self, folder: Path, new: bool = False) -> None:
        self.folder, self.total = folder, 0
        self.finished, self.under_way = list[pd.DataFrame](), list[pd.DataFrame]()
        self._begun: dict[str, pd.DataFrame] = {}
        # A killed run leaves files behind: what does not change is not under way.
        self._left = {} if new else {e.name: e.changed for e in progress.entries(folder)}

    def look(self, last: bool = False) -> Run:
        """Read the curves as they are; at last, also those of networks that were cut off.

        An OSError or InputError if they cannot be read, or the folder holds no run.
        """
        columns, begun = ["epoch", *PANELS], dict(self._begun) if last else {}
        # Before the finished ones, so that one that finishes now is seen in one place at least.
        for entry in progress.entries(self.folder):
            if self._left.get(entry.name) != entry.changed:
                begun[entry.name] = pd.DataFrame(list(entry.rows), columns=columns, dtype=float)
        units = {file.stem: file for file in progress.finished(self.folder)}
        done = [read_json(file, "a unit of a run")["history"] for file in units.values()]
        self._begun = {name: curve for name, curve in begun.items() if name not in units}
        self.total, record = len(done) + len(self._begun), self.folder / "run.json"
        if record.is_file():
            run = read_json(record, "a run")
            try:
                self.total = len(Plan(**run["plan"]).networks(run["config"]["views"]))
            except (KeyError, TypeError):
                text = f"{record}: not the record of a run; choose another folder"
                raise InputError(text) from None
        self.finished = [pd.DataFrame(rows, columns=columns, dtype=float) for rows in done]
        self.under_way = [curve for curve in self._begun.values() if len(curve)]
        return self

    def in_words(self, last: bool = False) -> str:
        """Tell such as "3 of 18 networks, 2 under way"; `last` when nothing is to follow."""
        stopped = last and len(self.finished) < self.total
        text = f"{len(self.finished)} of {self.total} network{'s' * (self.total > 1)}"
        if not self.under_way:
            return text + ", stopped" * stopped
        return f"{text}, {'stopped with ' * stopped}{len(self.under_way)} under way"


def draw(runs: Mapping[str, Run], simulated: bool, last: bool = False) -> tuple[bytes, str]:
    """Draw the curves of one run ({"": ...}), or of several by name, of which one has some.

    Returns a PNG and its alternative text; `last` says in both that nothing is to follow.
    """
    shown = {name: run for name, run in runs.items() if run.finished or run.under_way}
    finished = {n or "finished": run.finished for n, run in shown.items() if run.finished}
    under_way = {n or "under way": run.under_way for n, run in shown.items() if run.under_way}
    figure = draw_curves(finished, under_way, simulated)
    said = "; ".join(f"{n}: " * bool(n) + run.in_words(last) for n, run in shown.items())
    figure.suptitle(said.replace("; ", "\n"), x=0.01, ha="left")
    figure.savefig(image := io.BytesIO(), format="png")
    curves = [c for run in shown.values() for c in (*run.finished, *run.under_way)]
    aucs = [c["val_auc"].iloc[-1] for c in curves]
    last_auc = f"Last validation AUC of each network: {min(aucs):.3f} to {max(aucs):.3f}."
    return image.getvalue(), f"Learning curves by epoch of {said}. {last_auc}"


@contextmanager
def curves(
    runs: str | Path | Mapping[str, str | Path] | None = None, *,
    simulated: bool = False, every_s: float = 1.0,
) -> Iterator[Path]:  # fmt: skip
    """Show learning curves while the block trains; leave one figure, also when it is stopped.

    In a notebook:

        with live.curves(out):
            crossval.run(cohort, config, out)

        with live.curves() as folder:
            model = fit(cohort, rows, config, live=folder)

    Elsewhere it shows nothing, and the block runs as if it were not there. Another notebook may
    watch a run that is under way: `with live.curves(out): time.sleep(600)`.

    Args:
        runs: folder of a run (there need not be one yet), or several by name, such as
            {"ST-CNN": ..., "MT-CNN": ...}, which are set beside each other.
        every_s: seconds between redraws, or more where drawing takes long.

    Yields:
        A folder to give to `fit` as `live`, whose networks are shown, too. Several fits are set
        beside each other if each has a folder of its own in it, named for what it is.
    """
    named = {"": runs} if isinstance(runs, str | Path) else dict(runs or {})
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    with tempfile.TemporaryDirectory(prefix="labkit_", ignore_cleanup_errors=True) as name:
        fits = Path(name)
        if getattr(shell, "kernel", None) is None:  # no front end that could replace a picture
            yield fits
            return
        from IPython.display import display

        watched, stop = {n: Run(Path(folder)) for n, folder in named.items()}, threading.Event()
        drawn: object = None

        def look(last: bool = False) -> None:
            for folder in (fits, *sorted(fits.iterdir())):
                if (folder / "live").is_dir():
                    name = "" if folder == fits else folder.name
                    watched.setdefault(name, Run(folder, new=True))
            for run in watched.values():
                run.look(last)

        def redraw(last: bool = False) -> None:
            nonlocal drawn
            runs = watched.values()
            state = last, [(r.total, len(r.finished), *map(len, r.under_way)) for r in runs]
            if state == drawn or not any(r.finished or r.under_way for r in runs):
                return
            image, alt = draw(watched, simulated, last)
            picture, words = {"image/png": image, "text/plain": alt}, {"image/png": {"alt": alt}}
            place = {"display_id": str(fits), "update": drawn is not None}
            display(picture, metadata=words, raw=True, **place)
            drawn = state

        def watch() -> None:
            pause, due = every_s, 0.0
            while not stop.wait(pause):
                # A file system may have a bad moment; if it is more, the last look tells of it.
                with suppress(OSError, InputError):
                    start = time.thread_time()
                    look()
                    pause = max(every_s, (time.thread_time() - start) / _LARGEST_SHARE)
                    if time.monotonic() >= due:
                        redraw()
                        cost = time.thread_time() - start
                        due = time.monotonic() + cost / _LARGEST_SHARE

        # In this cell's context, so that what the thread shows belongs to the cell.
        run_here = contextvars.copy_context().run
        thread = threading.Thread(target=run_here, args=(watch,), name="live curves", daemon=True)
        thread.start()
        try:
            yield fits
        finally:
            stop.set()
            thread.join()
            try:
                look(last=True)
            except (OSError, InputError) as error:
                warnings.warn(f"the learning curves are not the last: {error}", stacklevel=3)
            redraw(last=True)
