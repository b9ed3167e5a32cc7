"""Learning curves that grow in a notebook while networks are trained, and stay as one figure.

A thread of the notebook's kernel reads what the networks' processes note (`training.progress`) and
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
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from labkit.errors import InputError
from labkit.evaluation.crossval import Plan
from labkit.io import read_json
from labkit.plots import style
from labkit.plots.style import Look
from labkit.plots.views import PANELS, draw_networks
from labkit.training import progress

_LARGEST_SHARE = 0.03  # of the time, spent on drawing
_HEAD = Look(marker="o", markevery=[-1], ms=5.5, mec="white", zorder=4)


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
        # Before the finished ones, so that one that finishes now is seen in one place at least.
        begun = dict(self._begun) if last else {}
        for entry in progress.entries(self.folder):
            if self._left.get(entry.name) != entry.changed:
                begun[entry.name] = _curve(entry.rows)
        units = {file.stem: file for file in progress.finished(self.folder)}
        done = [_curve(read_json(f, "a unit of a run")["history"]) for f in units.values()]
        begun = {name: curve for name, curve in begun.items() if name not in units}
        total, record = len(done) + len(begun), self.folder / "run.json"
        if record.is_file():
            run = read_json(record, "a run")
            try:
                total = len(Plan(**run["plan"]).networks(run["config"]["views"]))
            except (KeyError, TypeError):
                text = f"{record}: not the record of a run; choose another folder"
                raise InputError(text) from None
        self.total, self._begun, self.finished = total, begun, done
        self.under_way = [curve for curve in begun.values() if len(curve)]
        return self

    def in_words(self, last: bool = False) -> str:
        """Tell such as "3 of 18 networks, 2 under way"; `last` when nothing is to follow."""
        stopped = ", stopped" if last and len(self.finished) < self.total else ""
        text = f"{len(self.finished)} of {self.total} network{'s' * (self.total > 1)}{stopped}"
        if not self.under_way:
            return text
        return f"{text}{' with' if stopped else ','} {len(self.under_way)} under way"


def _curve(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["epoch", *PANELS], dtype=float)


def empty_figure(simulated: bool = False) -> Figure:
    """Lay out losses and validation AUC by epoch.

    To be called in the main thread, since it takes the house style, matplotlib's global state.
    """
    with style.house_style():
        figure, axes = style.subplots(2, 2, (8.4, 5.7))
        FigureCanvasAgg(figure)
        for title, ax in zip(PANELS.values(), axes.flat, strict=True):
            style.titles(ax, title, simulated and ax is axes[0, 1])
            ax.set_xlabel("epoch")
            ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
            ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
            for axis in (ax.xaxis, ax.yaxis):
                axis.get_major_ticks(12)  # made now, while the style holds
        figure.suptitle("", x=0.01, ha="left")
    return figure


def draw(figure: Figure, runs: Mapping[str, Run], last: bool = False) -> tuple[bytes, str]:
    """Draw the curves of one run ({"": ...}), or of several by name, of which one has some.

    Returns a PNG and its alternative text; `last` says in both that nothing is to follow.
    """
    shown = {name: run for name, run in runs.items() if run.finished or run.under_way}
    curves = [c for run in shown.values() for c in (*run.finished, *run.under_way)]
    # Of several runs each has its colour; of one, its parts have.
    colours = style.method_colours([name or "MT" for name in runs])
    for panel, ax in zip(PANELS, figure.axes, strict=True):
        for line in list(ax.lines):
            line.remove()
        for name, run in shown.items():
            mean = colours[name or "MT"]
            draw_networks(ax, run.finished, panel, mean, mean if name else style.GREY)
            head = mean if name else style.PURPLE
            for curve in run.under_way:
                ax.plot(curve["epoch"], curve[panel], color=head, lw=1, **_HEAD)
        ax.set_visible(any(c[panel].notna().any() for c in curves))
        ax.relim()
        ax.autoscale()
    legend = {name: colours[name] for name in shown if name}
    if "" in shown and len(curves) > 1:
        legend = {"finished": style.GREY, "their mean": colours["MT"], "under way": style.PURPLE}
    for old in list(figure.legends):
        old.remove()
    if legend:  # below the panels: no corner of them is free of curves for sure
        lines = [Line2D([], [], color=colour, lw=1.8) for colour in legend.values()]
        place = figure.legend(lines, list(legend), loc="outside lower center", ncols=len(lines))
        place.set(frame_on=False)
    said = "; ".join(f"{n}: " * bool(n) + run.in_words(last) for n, run in shown.items())
    figure.texts[0].set_text(said)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=figure.dpi, facecolor="white")
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

        watched = {name: Run(Path(folder)) for name, folder in named.items()}
        figure, stop = empty_figure(simulated), threading.Event()
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
            image, alt = draw(figure, watched, last)
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
