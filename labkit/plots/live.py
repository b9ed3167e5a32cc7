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

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image

from labkit.errors import InputError
from labkit.evaluation.crossval import Plan
from labkit.io import read_json
from labkit.plots import style
from labkit.plots.views import PANELS
from labkit.training import progress

_LARGEST_SHARE = 0.03  # of the time, spent on drawing


class Run:
    """A folder in which networks are trained, and their learning curves.

    Curves are tables with columns epoch and `PANELS`, NaN where there is nothing.
    """

    def __init__(self, folder: Path, new: bool = False) -> None:
        self.folder, self.total = folder, 0
        self.finished, self.under_way = list[pd.DataFrame](), list[pd.DataFrame]()
        self._read: dict[str, tuple[int, pd.DataFrame]] = {}
        self._begun: dict[str, pd.DataFrame] = {}
        # A killed run leaves files behind: what does not change is not under way.
        self._left = {} if new else {e.name: e.changed for e in progress.entries(folder)}

    def look(self, last: bool = False) -> Run:
        """Read the curves as they are; at last, also those of networks that were cut off.

        Raises:
            OSError, InputError: they cannot be read, or the folder holds no run.
        """
        # Before the finished ones, so that one that finishes now is seen in one place at least.
        begun = dict(self._begun) if last else {}
        for entry in progress.entries(self.folder):
            if self._left.get(entry.name) != entry.changed:
                begun[entry.name] = _curve(entry.rows)
        done = {}
        for file in progress.finished(self.folder):
            with suppress(FileNotFoundError):  # to be trained anew
                changed = file.stat().st_mtime_ns
                if self._read.get(file.stem, (0,))[0] != changed:
                    rows = read_json(file, "a unit of a run")["history"]
                    self._read[file.stem] = changed, _curve(rows)
                done[file.stem] = self._read[file.stem][1]
        begun = {name: curve for name, curve in begun.items() if name not in done}
        total, record = len(done) + len(begun), self.folder / "run.json"
        if record.is_file():
            run = read_json(record, "a run")
            try:
                total = len(Plan(**run["plan"]).networks(run["config"]["views"]))
            except (KeyError, TypeError):
                raise InputError(
                    f"{record}: not the record of a run; choose another folder"
                ) from None
        self.total, self._begun, self.finished = total, begun, list(done.values())
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
        figure = Figure(figsize=(8.4, 5.7), layout="none")  # type: ignore[arg-type]
        FigureCanvasAgg(figure)
        figure.subplots_adjust(0.065, 0.085, 0.985, 0.84, wspace=0.16, hspace=0.42)
        for title, ax in zip(PANELS.values(), figure.subplots(2, 2).flat, strict=True):
            style.titles(ax, title, simulated and ax is figure.axes[1])
            ax.set_xlabel("epoch")
            # Half of a redraw is text: few ticks, in places that need not be found anew.
            ax.set_title(title, y=1.0)
            ax.xaxis.set_label_coords(0.5, -0.15)
            ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
            ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
            for axis in (ax.xaxis, ax.yaxis):
                axis.get_major_ticks(12)  # made now, while the style holds
        figure.suptitle("", x=0.065, y=0.985, ha="left")
    return figure


def draw(figure: Figure, runs: Mapping[str, Run], last: bool = False) -> tuple[bytes, str]:
    """Draw the curves of one run ({"": ...}), or of several by name, of which one has some.

    Returns:
        A PNG and its alternative text; `last` says in both that nothing is to follow.
    """
    shown = {name: run for name, run in runs.items() if run.finished or run.under_way}
    curves = [c for run in shown.values() for c in (*run.finished, *run.under_way)]
    # Of several runs each has its colour; of one, its parts have.
    own = style.method_colours([name or "MT" for name in runs])
    colours = {n: (own[n],) * 3 if n else (style.GREY, style.PURPLE, own["MT"]) for n in shown}
    for panel, ax in zip(PANELS, figure.axes, strict=True):
        for artist in (*ax.lines, *ax.collections):
            artist.remove()
        for name, run in shown.items():
            _draw_run(ax, run, panel, *colours[name])
        values = pd.concat([c[panel] for c in curves]).dropna()
        ax.set_visible(len(values) > 0)
        if len(values):
            end = max(1.0, *(c["epoch"].iloc[-1] for c in curves))
            low, high = values.min(), values.max()
            margin = max(0.05 * (high - low), 0.05 - (high - low) / 2)
            ax.set(xlim=(-0.02 * end, 1.02 * end), ylim=(low - margin, high + margin))
    legend = {name: own[name] for name in shown if name}
    if "" in shown and len(shown[""].finished) > 1:
        legend = {"finished": style.GREY, "their mean": own["MT"]}
    if "" in shown and shown[""].under_way and len(curves) > 1:
        legend["under way"] = style.PURPLE
    for old in figure.legends:
        old.remove()
    lines = [
        Line2D([], [], color=colour, label=name, lw=0.8 if name == "finished" else 1.8,
               marker="o" if name == "under way" else "", ms=4)
        for name, colour in legend.items()
    ]  # fmt: skip
    if lines:  # above the panels: no corner of them is free of curves for sure
        figure.legend(handles=lines, loc="upper left", bbox_to_anchor=(0.055, 0.955),
                      ncols=len(lines), fontsize=9, frameon=False, borderaxespad=0)  # fmt: skip
    said = "; ".join(f"{n}: " * bool(n) + run.in_words(last) for n, run in shown.items())
    title = said
    if "" not in shown and all(run.total == 1 for run in shown.values()):
        # Of single networks a word says as much as a count.
        done = [name for name, run in shown.items() if run.finished]
        begun = [name for name in shown if name not in done]
        words = {"trained": done, "stopped" if last else "under way": begun}
        title = "; ".join(f"{word}: {', '.join(names)}" for word, names in words.items() if names)
    figure.texts[0].set_text(title)
    figure.canvas.draw()
    image = io.BytesIO()
    drawn = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")  # type: ignore
    drawn.save(image, format="png", compress_level=6 if last else 1)
    aucs = [c["val_auc"].iloc[-1] for c in curves]
    last_auc = f"Last validation AUC of each network: {min(aucs):.3f} to {max(aucs):.3f}."
    return image.getvalue(), f"Learning curves by epoch of {said}. {last_auc}"


def _draw_run(ax: Axes, run: Run, panel: str, thin: str, head: str, mean: str) -> None:
    columns = ["epoch", panel]
    faint = 0.6 if len(run.finished) < 30 else 0.3
    for curves, colour, lw, z, alpha in (
        (run.finished, thin, 0.6, 2, faint), (run.under_way, head, 1.0, 4, None)
    ):  # fmt: skip
        segments = [c[columns].to_numpy() for c in curves]
        lines = LineCollection(segments, colors=colour, linewidths=lw, zorder=z, alpha=alpha)
        ax.add_collection(lines, autolim=False)
    # The mean up to the epoch that all reach: further on it would be the mean of others.
    common = pd.concat(run.finished, axis=1, join="inner") if run.finished else _curve([])
    ax.plot(common.index, common[[panel]].mean(axis=1), color=mean, lw=1.8, marker="", zorder=3)
    ends = np.array([c[columns].iloc[-1] for c in run.under_way]).reshape(-1, 2)
    ax.plot(*ends.T, color=head, ls="", marker="o", ms=5.5, mec="white", mew=0.8, zorder=5)


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
        simulated: say that the images were simulated.
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
        watched = {name: Run(Path(folder)) for name, folder in named.items()}
        figure, stop = empty_figure(simulated), threading.Event()
        shown: Any = None
        drawn: object = None

        def look(last: bool = False) -> None:
            for folder in (fits, *sorted(fits.iterdir())):
                name = "" if folder == fits else folder.name
                if (folder / "live").is_dir() and name not in watched:
                    watched[name] = Run(folder, new=True)
            for run in watched.values():
                run.look(last)

        def redraw(last: bool = False) -> None:
            nonlocal shown, drawn
            state = (
                last,
                [
                    (name, run.total, *map(id, run.finished), *map(len, run.under_way))
                    for name, run in watched.items()
                ],
            )
            if state == drawn or not any(r.finished or r.under_way for r in watched.values()):
                return
            drawn = state
            image, alt = draw(figure, watched, last)
            picture = {"image/png": image, "text/plain": alt}
            options = {"metadata": {"image/png": {"alt": alt}}, "raw": True}
            if shown is None:
                from IPython.display import display

                shown = display(picture, display_id=True, **options)
            else:
                shown.update(picture, **options)

        def watch() -> None:
            last_time, pause = 0.0, 0.0
            while not stop.wait(every_s):
                # A file system may have a bad moment; if it is more, the last look tells of it.
                with suppress(OSError, InputError):
                    start = time.thread_time()
                    look()
                    if time.monotonic() - last_time >= pause:
                        redraw()
                        last_time = time.monotonic()
                        pause = (time.thread_time() - start) / _LARGEST_SHARE

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
