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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from labkit.errors import InputError
from labkit.evaluation.crossval import Plan
from labkit.io import read_json
from labkit.plots import style
from labkit.plots.roc import method_colours, titles
from labkit.training import progress

# Learning curves of networks, some finished and some under way, drawn again and again cheaply.
#
# `training.learning_curves` draws finished histories once, and takes its time. This figure is made
# once; each redraw only changes its lines, which is what makes one a second affordable.


PANELS = {
    "train_cls": "classification loss, training", "val_cls": "classification loss, validation",
    "val_auc": "AUC, validation", "train_img": "reconstruction loss, training",
}  # fmt: skip

_FINISHED, _MEAN, _UNDER_WAY = "finished", "their mean", "under way"
_MANY = 30
_TICKS = 12  # more than an axis ever gets here


@dataclass(frozen=True, eq=False)
class Curve:
    """The history of one network.

    Args:
        epoch: (epochs,)
        values: (epochs,) for each of `PANELS`; NaN where there is none, as an ST-CNN's train_img.
    """

    epoch: NDArray[np.float64]
    values: dict[str, NDArray[np.float64]]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Curve:
        """From rows as `loop.train_view` makes them."""
        rows = list(rows)
        return cls(
            np.array([row["epoch"] for row in rows], dtype=float),
            {p: np.array([row.get(p) for row in rows], dtype=float) for p in PANELS},
        )


@dataclass(frozen=True)
class Progress:
    """How far the networks of one run have come.

    Args:
        finished: their curves.
        under_way: curves of those that have at least one epoch.
        total: how many networks there will be.
    """

    finished: Sequence[Curve]
    under_way: Sequence[Curve]
    total: int

    @property
    def curves(self) -> list[Curve]:
        """Of all networks begun."""
        return [*self.finished, *self.under_way]

    def in_words(self, last: bool = False) -> str:
        """Such as "3 of 18 networks, 2 under way"; `last` when nothing is to follow.

        >>> Progress([], [], 18).in_words()
        '0 of 18 networks'
        """
        text = f"{len(self.finished)} of {self.total} network{'s' * (self.total > 1)}"
        more = f"{len(self.under_way)} under way" if self.under_way else ""
        if last and len(self.finished) < self.total:
            return f"{text}, stopped" + (f" with {more}" if more else "")
        return f"{text}, {more}" if more else text


class Growing:
    """A figure of losses and validation AUC by epoch.

    To be made in the main thread, since it takes the house style, which is matplotlib's global
    state; `draw` touches none and may be called from another thread.

    Args:
        simulated: say that the images were simulated.
    """

    def __init__(self, simulated: bool = False) -> None:
        with style.house_style():
            self._figure = Figure(
                figsize=(8.4, 5.7),
                layout="none",  # type: ignore[arg-type]
            )
            self._canvas = FigureCanvasAgg(self._figure)
            self._figure.subplots_adjust(0.065, 0.085, 0.985, 0.84, wspace=0.16, hspace=0.42)
            axes = self._figure.subplots(2, 2).ravel()
            self._axes: dict[str, Axes] = dict(zip(PANELS, axes, strict=True))
            for panel, ax in self._axes.items():
                titles(ax, PANELS[panel], simulated and ax is axes[1])
                ax.set_xlabel("epoch")
                # Places that need not be found anew each time: a third of the time of a redraw.
                ax.set_title(PANELS[panel], y=1.0)
                ax.xaxis.set_label_coords(0.5, -0.15)
                # Half of a redraw is text: few ticks.
                ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
                ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
                for axis in (ax.xaxis, ax.yaxis):
                    axis.get_major_ticks(_TICKS)  # made now, while the style holds
            self._title = self._figure.suptitle("", x=0.065, y=0.985, ha="left")
        self._lines: dict[tuple[str, str], _Lines] = {}
        self._explained: list[str] = []

    def draw(self, progress: Mapping[str, Progress], image: IO[bytes], last: bool = False) -> str:
        """Draw the state of one run ({"": ...}), or of several by name, as PNG.

        Args:
            progress: at least one has a curve.
            image: is written to.
            last: whether nothing is to follow.

        Returns:
            Alternative text.
        """
        shown = {name: p for name, p in progress.items() if p.curves}
        named = list(progress) != [""]
        colours = method_colours([name or "MT" for name in progress])
        for panel, ax in self._axes.items():
            for name, of in shown.items():
                if (panel, name) not in self._lines:
                    colour = colours[name or "MT"]
                    self._lines[panel, name] = (
                        _Lines(ax, colour, colour, colour)
                        if named
                        else _Lines(ax, style.GREY, style.PURPLE, colour)
                    )
                self._lines[panel, name].set(of, panel)
            _fit_limits(ax, [c for of in shown.values() for c in of.curves], panel)
        self._explain(
            {n: colours[n] for n in shown} if named else _parts_of(shown[""], colours["MT"])
        )
        parts = [f"{n}: {p.in_words(last)}" if n else p.in_words(last) for n, p in shown.items()]
        self._title.set_text(_title(shown, parts, last) if named else "; ".join(parts))
        self._canvas.draw()
        drawn = Image.fromarray(np.asarray(self._canvas.buffer_rgba())).convert("RGB")
        drawn.save(image, format="png", compress_level=6 if last else 1)
        return style.alt_text(style.describe(self._figure, _in_words(shown, parts)))

    def _explain(self, colours: Mapping[str, str]) -> None:
        """Keep the legend up to date."""
        if list(colours) == self._explained:
            return
        self._explained = list(colours)
        lines = [
            Line2D([], [], color=colour, label=name, lw=0.8 if name == _FINISHED else 1.8,
                   marker="o" if name == _UNDER_WAY else "", ms=4)
            for name, colour in colours.items()
        ]  # fmt: skip
        for old in self._figure.legends:
            old.remove()
        if lines:  # above the panels: no corner of them is free of curves for sure
            self._figure.legend(
                handles=lines, loc="upper left", bbox_to_anchor=(0.055, 0.955), ncols=len(lines),
                fontsize=9, frameon=False, borderaxespad=0,
            )  # fmt: skip


class _Lines:
    """The lines of one run in one panel."""

    def __init__(self, ax: Axes, finished: str, under_way: str, mean: str) -> None:
        self._finished = LineCollection([], colors=finished, linewidths=0.6, zorder=2)
        self._under_way = LineCollection([], colors=under_way, linewidths=1.0, zorder=4)
        for lines in (self._finished, self._under_way):
            ax.add_collection(lines, autolim=False)
        (self._mean,) = ax.plot([], [], color=mean, lw=1.8, marker="", zorder=3)
        (self._heads,) = ax.plot([], [], color=under_way, ls="", marker="o", ms=5.5, mec="white",
                                 mew=0.8, zorder=5)  # fmt: skip

    def set(self, progress: Progress, panel: str) -> None:
        """Show these curves."""
        for lines, curves in (
            (self._finished, progress.finished),
            (self._under_way, progress.under_way),
        ):
            lines.set_segments([np.column_stack([c.epoch, c.values[panel]]) for c in curves])
        self._finished.set_alpha(0.6 if len(progress.finished) < _MANY else 0.3)
        heads = [(c.epoch[-1], c.values[panel][-1]) for c in progress.under_way]
        self._heads.set_data(*np.array(heads).reshape(-1, 2).T)
        self._mean.set_data(*_mean(progress.finished, panel))


def _parts_of(progress: Progress, colour: str) -> dict[str, str]:
    """What a figure of one run shows, and in which colour; one line explains itself."""
    if len(progress.curves) < 2:
        return {}
    parts = {_FINISHED: style.GREY, _MEAN: colour} if len(progress.finished) > 1 else {}
    return parts | ({_UNDER_WAY: style.PURPLE} if progress.under_way else {})


def _title(shown: Mapping[str, Progress], parts: Sequence[str], last: bool) -> str:
    """How far several runs have come; of single networks a word says as much as a count."""
    if any(of.total > 1 for of in shown.values()):
        return "; ".join(parts)
    done = [name for name, of in shown.items() if of.finished]
    begun = [name for name in shown if name not in done]
    words = {"trained": done, "stopped" if last else "under way": begun}
    return "; ".join(f"{word}: {', '.join(names)}" for word, names in words.items() if names)


def _mean(curves: Sequence[Curve], panel: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Up to the epoch that all reach: further on it would be the mean of others."""
    epochs = min((len(c.epoch) for c in curves), default=0)
    if epochs == 0:
        return np.empty(0), np.empty(0)
    return curves[0].epoch[:epochs], np.mean([c.values[panel][:epochs] for c in curves], axis=0)


def _fit_limits(ax: Axes, curves: Sequence[Curve], panel: str) -> None:
    values = np.concatenate([c.values[panel] for c in curves])
    values = values[np.isfinite(values)]
    ax.set_visible(len(values) > 0)
    if len(values) == 0:
        return
    last = max(c.epoch[-1] for c in curves)
    low, high = float(values.min()), float(values.max())
    margin = max(0.05 * (high - low), 0.05 - (high - low) / 2)
    ax.set_xlim(-0.02 * max(last, 1), 1.02 * max(last, 1))
    ax.set_ylim(low - margin, high + margin)


def _in_words(shown: Mapping[str, Progress], parts: Sequence[str]) -> str:
    last = [c.values["val_auc"][-1] for of in shown.values() for c in of.curves]
    return (
        f"Learning curves by epoch of {'; '.join(parts)}. Last validation AUC of each network: "
        f"{min(last):.3f} to {max(last):.3f}."
    )


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
            if progress.begun(folder) and name not in self._sources:
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
        left = [] if new else progress.entries(folder)
        self._left = {entry.name: entry.changed for entry in left}

    def look(self, last: bool = False) -> Progress:
        """The curves as they are now; at last, those of networks that were cut off as they were."""
        # Before the finished ones, so that one that finishes now is seen in one place at least.
        now = {
            e.name: Curve.of(e.rows)
            for e in progress.entries(self._folder)
            if self._left.get(e.name) != e.changed
        }
        done = []
        for file in progress.finished(self._folder):
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
