"""What all benchmarks have in common: a command that writes JSON, and how time is taken."""

from __future__ import annotations

import argparse
import inspect
import multiprocessing
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import psutil

from labkit.errors import InputError
from labkit.io import read_json, write_atomically, write_json


def _count(text: str) -> int:
    """Read a number of 1 or more."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _options(parser: argparse.ArgumentParser, measure: Callable[..., Any]) -> None:
    """Make a function's arguments those of a command, and add --out for what it returns."""
    hints = get_type_hints(measure)
    for name, of in inspect.signature(measure).parameters.items():
        hint, required = hints[name], of.default is of.empty
        kinds = [kind for kind in (int, Path, str) if kind in (hint, *get_args(hint))]
        options: dict[str, Any] = {} if required else {"default": of.default}
        if name == "progress":
            parser.add_argument("--quiet", dest=name, action="store_false", help="no progress bar")
            continue
        if hint is bool:
            options["action"] = "store_true"
        elif get_origin(hint) is Literal:
            options["choices"] = get_args(hint)
        elif kinds:
            options["type"] = _count if kinds[0] is int and name != "seed" else kinds[0]
            options |= {"nargs": "+"} if get_origin(hint) in (list, tuple) else {}
        else:
            continue
        if required and of.kind is not of.KEYWORD_ONLY:
            parser.add_argument(name, **options)
            continue
        text = f"default: {of.default}" if not required and of.default else None
        parser.add_argument(f"--{name.replace('_', '-')}", help=text, required=required, **options)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.set_defaults(measure=measure)


def command(
    measures: Callable[..., Any] | Sequence[Callable[..., Any]], doc: str | None,
    arguments: Sequence[str] | None = None, say: Callable[[Any], str] | None = None,
    part: str | None = None,
) -> int:  # fmt: skip
    """Run a benchmark, or one of several by its name, as a command; return its exit status.

    A function's arguments are the options: those without a default are given by their place, those
    after a * by their name; whole numbers are 1 or more but for a seed; `progress` is switched off
    by --quiet. What it returns is printed (as `say` puts it) and written to --out, as that `part`
    of what is there; what it yields is written each time. The status is 0, or 2 for bad input, of
    which one line says what is wrong.
    """
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=kind)
    if callable(measures):
        _options(parser, measures)
    else:
        several = parser.add_subparsers(required=True)
        for one in measures:
            _options(several.add_parser(one.__name__), one)
    options = vars(parser.parse_args(arguments))
    out, measure = options.pop("out"), options.pop("measure")
    try:
        returned = measure(**options)
        for values in returned if isinstance(returned, Iterator) else [returned]:
            if out and part:
                there = read_json(out, "a result") if out.is_file() else {}
                write_json(out, there | {part: values})
            elif out:
                write_json(out, values)
        print(say(values) if say else "\n".join(summary(values)))
        if out:
            print(f"wrote {out}")
    except InputError as error:
        print(f"{measure.__module__}: {error}", file=sys.stderr)
        return 2
    return 0


def summary(values: Any, name: str = "") -> Iterator[str]:
    """Yield a line for every value of a result that is no table.

    >>> list(summary({"scan": {"seconds": 1.5}, "counts": [1, 2]}))
    ['scan, seconds: 1.5', 'counts: [1, 2]']
    """
    if isinstance(values, dict):
        for key, value in values.items():
            yield from summary(value, f"{name}, {key}" if name else str(key))
    elif not isinstance(values, list) or len(values) < 13:
        yield f"{name}: {values}"


class Timed(NamedTuple):
    """Seconds by the clock and of this process's computing, and the work's result."""

    clock_s: float
    cpu_s: float
    result: Any


def timed(work: Callable[[], Any]) -> Timed:
    """Do some work and take its time."""
    clock, cpu = time.perf_counter(), time.process_time()
    result = work()
    return Timed(time.perf_counter() - clock, time.process_time() - cpu, result)


def in_turn(
    ways: Mapping[str, Callable[[], Any]], repeats: int, warm_up: bool = True
) -> dict[str, list[Timed]]:
    """Time several ways one after the other, round by round; the first round warms up."""
    found: dict[str, list[Timed]] = {name: [] for name in ways}
    for number in range(repeats + warm_up):
        for name, way in ways.items():
            taken = timed(way)
            if number >= warm_up:
                found[name].append(taken)
    return found


def fresh(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process: nothing is cached, and its memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def peak_gb() -> float:
    """Return the most memory that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e9 if sys.platform == "darwin" else 1e6), 2)


class Watch:
    """Sample time and memory of this process and those it starts, inside a `with` block."""

    def __enter__(self) -> Watch:
        self.peak_bytes, self._stop = 0, threading.Event()
        self._cpu: dict[int, float] = {}
        self._sample()
        self._before = dict(self._cpu)
        self._start = time.perf_counter()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()
        self.clock_s = time.perf_counter() - self._start
        self.cpu_s = sum(s - self._before.get(pid, 0.0) for pid, s in self._cpu.items())

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self._sample()

    def _sample(self) -> None:
        held, here = 0, psutil.Process()
        for process in [here, *here.children(recursive=True)]:
            try:
                held += process.memory_info().rss
                times = process.cpu_times()
                self._cpu[process.pid] = times.user + times.system
            except psutil.Error:
                continue  # it has ended meanwhile
        self.peak_bytes = max(self.peak_bytes, held)


def in_words(of: Mapping[str, float], digits: int = 3, sign: str = "") -> str:
    """Write a value with its interval; sign "+" writes the signs of a difference.

    >>> in_words({"value": 0.9, "low": 0.85, "high": 0.94}, 2)
    '0.90 (0.85 to 0.94)'
    >>> in_words({"value": 0.01, "low": -0.002, "high": 0.022}, sign="+")
    '+0.010 (-0.002 to +0.022)'
    """
    value, low, high = (f"{of[k]:{sign}.{digits}f}" for k in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def put_between(file: Path, block: str, begin: str, end: str) -> None:
    """Put a block, marks and all, in the place of what stands between the marks of a page."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if text.count(begin) != 1 or text.count(end) != 1:
        raise InputError(f"{file}: needs the lines {begin!r} and {end!r}, once each")
    page = text.partition(begin)[0] + block + text.partition(end)[2]
    write_atomically(file, lambda p: p.write_text(page, encoding="utf-8"))
