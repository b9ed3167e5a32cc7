"""What all benchmarks have in common: a command that writes JSON, and how time is taken."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import multiprocessing
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, SimpleNamespace
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import jinja2
import pandas as pd
import psutil

from labkit.errors import InputError
from labkit.io import read_json, write_atomically, write_json
from labkit.training.machines import provenance


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
        kind = next((k for k in (int, Path, str) if k in (hint, *get_args(hint))), None)
        how: dict[str, Any] = {} if required else {"default": of.default}
        if name == "progress":
            parser.add_argument("--quiet", dest=name, action="store_false", help="no progress bar")
            continue
        if hint is bool:
            how["action"] = "store_true"
        elif get_origin(hint) is Literal:
            how["choices"] = get_args(hint)
        elif kind is None:
            continue
        else:
            how["type"] = _count if kind is int and name != "seed" else kind
            how |= {"nargs": "+"} if get_origin(hint) in (list, tuple) else {}
        if required and of.kind is not of.KEYWORD_ONLY:
            parser.add_argument(name, **how)
        else:
            text = f"default: {of.default}" if of.default and not required else None
            option = f"--{name.replace('_', '-')}"
            parser.add_argument(option, help=text, required=required, **how)
    if hints.get("return") is not NoneType:
        parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.set_defaults(measure=measure, out=None)


def command(
    measures: Callable[..., Any] | Sequence[Callable[..., Any]], doc: str | None,
    arguments: Sequence[str] | None = None, say: Callable[[Any], str] | None = None,
    part: str | None = None,
) -> int:  # fmt: skip
    """Run a benchmark, or one of several by its name, as a command; return its exit status.

    A function's arguments are the options: those without a default are given by their place, those
    after a * by their name; whole numbers are 1 or more but for a seed; `progress` is switched off
    by --quiet. What it returns is printed (as `say` puts it) and written to --out with what was
    measured (the first line of `doc`), when and on what, as that `part` of what is there; what it
    yields is written each time. The status is 0, or 2 for bad input, of which one line says what is
    wrong.
    """
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=kind)
    if callable(measures):
        _options(parser, measures)
    else:
        several = parser.add_subparsers(required=True)
        for one in measures:
            text = (one.__doc__ or "").split("\n")[0]
            _options(several.add_parser(one.__name__, help=text, description=text), one)
    options = vars(parser.parse_args(arguments))
    out, measure = options.pop("out"), options.pop("measure")
    try:
        returned = measure(**options)
        for found in returned if isinstance(returned, Iterator) else filter(None, [returned]):
            about = {} if "about" in found else {"what": (doc or "").split("\n")[0]}
            values = {**about, **provenance(), **found}
            print(say(values) if say else summary(values))
            if out:
                there = read_json(out, "a result") if part and out.is_file() else {}
                write_json(out, {**there, part: values} if part else values)
                print(f"wrote {out}")
    except InputError as error:
        print(f"{measure.__module__}: {error}", file=sys.stderr)
        return 2
    return 0


def summary(values: Mapping[str, Any]) -> str:
    """Write a line for every value of a result that is no table.

    >>> print(summary({"scan": {"seconds": 1.5}, "counts": [1, 2]}))
    counts: [1, 2]
    scan, seconds: 1.5
    """
    flat = pd.json_normalize([values], sep=", ").astype(object).iloc[0]
    long = flat.map(lambda value: isinstance(value, list) and len(value) > 12)
    return "\n".join(f"{name}: {value}" for name, value in flat[~long].items())


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
    rounds = [{k: timed(way) for k, way in ways.items()} for _ in range(repeats + warm_up)]
    return {name: [times[name] for times in rounds[warm_up:]] for name in ways}


def fresh(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process: nothing is cached, and its memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def peak_gb() -> float:
    """Return the most memory that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e9 if sys.platform == "darwin" else 1e6), 2)


@contextlib.contextmanager
def watched() -> Iterator[SimpleNamespace]:
    """Take `clock_s`, `cpu_s` and `peak_gb` of this process and those it starts, in a `with`."""
    found, done, here = SimpleNamespace(peak_gb=0.0), threading.Event(), psutil.Process()
    cpu: dict[int, float] = {}

    def sample() -> None:
        held = 0
        for process in [here, *here.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):  # it may have ended meanwhile
                held += process.memory_info().rss
                cpu[process.pid] = sum(process.cpu_times()[:2])
        found.peak_gb = max(found.peak_gb, round(held / 1e9, 2))

    def watch() -> None:
        while not done.wait(0.05):
            sample()

    sample()
    before, start = sum(cpu.values()), time.perf_counter()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
        sample()
    found.clock_s, found.cpu_s = time.perf_counter() - start, sum(cpu.values()) - before


def in_words(of: Mapping[str, float], digits: int = 3, sign: str = "") -> str:
    """Write a value with its interval; sign "+" writes the signs of a difference.

    >>> in_words({"value": 0.9, "low": 0.85, "high": 0.94}, 2)
    '0.90 (0.85 to 0.94)'
    >>> in_words({"value": 0.01, "low": -0.002, "high": 0.022}, sign="+")
    '+0.010 (-0.002 to +0.022)'
    """
    value, low, high = (f"{of[k]:{sign}.{digits}f}" for k in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def fill(page: str, **values: Any) -> str:
    """Fill in a page of `benchmarks/pages`; an InputError if it lacks a value."""
    files = jinja2.FileSystemLoader(Path(__file__).with_name("pages"))
    how = {"trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
    try:
        return (
            jinja2.Environment(loader=files, **how)
            .get_template(f"{page}.md.jinja")
            .render(values, words=in_words)
        )
    except jinja2.UndefinedError as error:
        raise InputError(f"the measured values lack something: {error}; measure again") from None


def put_between(file: Path, block: str, begin: str, end: str) -> None:
    """Put a block, marks and all, in the place of what stands between the marks of a page."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if text.count(begin) != 1 or text.count(end) != 1:
        raise InputError(f"{file}: needs the lines {begin!r} and {end!r}, once each")
    page = text.partition(begin)[0] + block + text.partition(end)[2]
    write_atomically(file, lambda p: p.write_text(page, encoding="utf-8"))
