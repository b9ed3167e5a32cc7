"""Files: written so that a killed run leaves the old one or the new one, never half of either;
tables and lists from anywhere, read as they are written, or refused by line and column.

And what processes share that work beside each other: the cores and the memory of the job.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import math
import os
import platform
import re
import shutil
import tempfile
import unicodedata
import urllib.request
import uuid
import warnings
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from filelock import FileLock, Timeout
from joblib.externals.loky.process_executor import TerminatedWorkerError
from pandas.api.types import union_categoricals

from labkit import paths
from labkit.errors import InputError

# What this process is filling; what else bears its number is of an earlier one, as in a container
# that was started again.
_filling = set[Path]()
_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def available_cores() -> int:
    """Count the cores that this process may use, which may be fewer than the machine has.

    The least of what its affinity, the quotas of its control groups (containers, systemd, SLURM)
    and its scheduler leave it; of a quota of two and a half cores, three.
    """
    counts = [os.cpu_count() or 1, *paths.scheduled_cores()]
    if hasattr(os, "sched_getaffinity"):  # Linux
        counts.append(len(os.sched_getaffinity(0)))
    for group in _cgroups("cpu", "cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"):
        said = [word for words in group.values() for word in words]
        if len(said) == 2 and all(word.isdecimal() and int(word) for word in said):
            counts.append(math.ceil(int(said[0]) / int(said[1])))
    return max(1, min(counts))


def memory() -> tuple[int, int]:
    """Return the bytes of memory that this process may use in all, and that are free now.

    Those of the machine, or of the smallest of its control groups; what a group holds of files is
    free, since the system drops it when memory is wanted.
    """
    machine = psutil.virtual_memory()
    total, free = machine.total, machine.available
    limits = ("memory.max", "memory.high", "memory.limit_in_bytes")
    uses = ("memory.current", "memory.usage_in_bytes")
    for group in _cgroups("memory", *limits, *uses, "memory.stat"):
        limit = min(
            (int(w) for n in limits for w in group[n] if w.isdecimal()), default=machine.total
        )
        if limit < machine.total:
            held = sum(int(w) for name in uses for w in group[name])
            words = group["memory.stat"]
            stat = dict(zip(words[::2], words[1::2], strict=False))
            files = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
            total, free = min(total, limit), min(free, max(0, limit - max(0, held - files)))
    return total, free


def _cgroups(controller: str, *names: str) -> Iterator[dict[str, list[str]]]:
    """The words of some files of this process's control groups (version 1 or 2), to the top."""
    with suppress(OSError):
        for line in _OWN_CGROUPS.read_text().splitlines():
            _, own, place = line.split(":", 2)
            if own and controller not in own.split(","):
                continue
            top = next(t for n in (own, controller, "") if (t := _CGROUPS / n).is_dir())
            # In a container it may have the name that the machine gave it, and lie at the top.
            group = top / place.lstrip("/")
            for folder in {group, *group.parents, top}:
                if folder.is_relative_to(top):
                    files = {name: folder / name for name in names}
                    yield {
                        n: f.read_text().split() if f.is_file() else [] for n, f in files.items()
                    }


def jobs_by_memory(bytes_each: float) -> int:
    """Return one process a core, as far as there is that much memory free for each; at least 1."""
    return max(1, min(available_cores(), int(memory()[1] // bytes_each)))


@contextmanager
def told_if_killed(jobs: int, cure: str = "the same command with fewer --jobs goes on") -> Iterator:
    """Make one line of joblib's page on a process that was killed, and of one without memory.

    A process that takes more memory than there is seldom gets to say so: the system ends it.
    `jobs` processes work in the `with` block; `cure` helps where there are several.
    """
    try:
        yield
    except TerminatedWorkerError:
        raise InputError(
            f"one of {jobs} processes was killed, for want of memory most likely; {cure}"
        ) from None
    except MemoryError:
        what = cure if jobs > 1 else "take a machine with more"
        raise InputError(f"there is too little memory for --jobs {jobs}; {what}") from None


@contextmanager
def in_turn(folder: Path, wait: bool = True) -> Iterator[None]:
    """Run the `with` block while no other process runs one for the same folder.

    The others wait, and say so (InputError without `wait`); whoever gets its turn has to look
    whether there is anything left to do. The operating system holds the lock, so that a killed
    process leaves none behind; what stays is an empty file, .NAME.lock beside the folder.
    """
    _make_parent(folder)
    target, busy = folder.resolve(), f"{folder}: another process is making it"
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise InputError(f"{busy}; wait until it is done") from None
        print(f"{busy}; waiting until it is done", flush=True)
        lock.acquire(poll_interval=0.5)
    try:
        yield
    finally:
        lock.release()


def require_own_folder(
    folder: Path, manifest: str, what: str, belongs: Callable[[str, Any], bool]
) -> None:
    """Refuse a place where a new folder would destroy anything but an older one of its kind.

    Args:
        folder: what shall be made or replaced.
        manifest: name of the JSON file that marks such a folder; `what` names one in words.
        belongs: tells of another file's name, given the manifest's content (None when it cannot be
            read), whether it is part of such a folder.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a new folder for {what}")
    others = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    if manifest in others:
        about = None
        with suppress(InputError):
            about = read_json(folder / manifest, what)
        others = [n for n in others if n != manifest and not belongs(n, about)]
    if others:
        raise InputError(
            f"{folder}: holds {others[0]}, which is no part of {what}; name a new folder"
        )


def require_room(folder: Path, needs_bytes: int) -> None:
    """Refuse a disk with less room than a folder that shall be made there needs."""
    free = shutil.disk_usage(folder.resolve().parent).free
    if free < needs_bytes:
        raise InputError(
            f"{folder}: needs {needs_bytes / 1e6:.0f} MB, {free / 1e6:.0f} MB are free; make "
            "room, or name a folder on another disk"
        )


def require_place(folder: Path, check: Callable[[Path], object], needs_bytes: int = 0) -> None:
    """Refuse what `whole_folder` would refuse, before the work begins."""
    check(folder)
    _make_parent(folder)
    clear_after_kill(folder)
    require_room(folder, needs_bytes)


@contextmanager
def whole_folder(
    folder: Path, check: Callable[[Path], object], needs_bytes: int = 0
) -> Iterator[Path]:
    """Give a hidden folder to fill, which takes the place of `folder` when the block ends well.

    An error or a kill leaves whatever stood there as it was; what a kill leaves beside it is
    cleared by the next call. `check`, called twice, raises when something stands there that must
    not be replaced; a disk with less room than `needs_bytes` is refused.
    """
    require_place(folder, check, needs_bytes)
    with _hidden(folder) as partial:
        partial.mkdir()
        yield partial
        check(folder)
        replace_folder(partial, folder)


def replace_folder(made: Path, folder: Path) -> None:
    """Put a finished folder of the same disk in its place, and remove what stood there."""
    target, aside = folder.resolve(), _beside(folder, f"{os.getpid()}-replaced")
    while made.exists():
        with suppress(FileNotFoundError):
            target.rename(aside)
        try:
            made.rename(target)
        except OSError as error:  # another process has put its own there since
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        shutil.rmtree(aside, ignore_errors=True)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place.

    What a kill leaves of it is cleared by the next call for the same path.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_after_kill(path)
    with _hidden(path) as temporary:
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)


@contextmanager
def _hidden(path: Path) -> Iterator[Path]:
    """Give a hidden name beside a path, of which nothing is left when the block ends."""
    name = _beside(path, f"{os.getpid()}-{uuid.uuid4().hex[:8]}{path.suffix}")
    _filling.add(name)
    try:
        yield name
    finally:
        _remove(name)
        _filling.discard(name)


def clear_after_kill(path: Path) -> None:
    """Remove what killed runs left beside a file or folder; put back what they had moved aside."""
    target, prefix = path.resolve(), _beside(path, "").name
    for left in target.parent.iterdir():
        pid, _, kind = left.name.removeprefix(prefix).partition("-")
        if not left.name.startswith(prefix) or not pid.isdigit():
            continue
        if left in _filling if int(pid) == os.getpid() else psutil.pid_exists(int(pid)):
            continue
        with suppress(FileNotFoundError):  # another process clears up, too
            if kind == "replaced" and not target.exists():
                left.rename(target)
        _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _beside(path: Path, whose: str) -> Path:
    target = path.resolve()
    return target.with_name(f".{target.name}.partial-{platform.node()}-{whose}")


def _make_parent(folder: Path) -> None:
    parent = folder.resolve().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise InputError(f"{folder}: cannot be written there ({error.strerror}); name a folder on "
                         "another disk, or of your own") from None  # fmt: skip


def write_json(path: Path, values: Any) -> None:
    """Write plain values as JSON, atomically."""
    text = json.dumps(values, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, atomically."""
    write_atomically(path, lambda p: table.to_csv(p, index=False))


def read_json(path: Path, what: str) -> Any:
    """Read JSON; an InputError says that `what` is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {path.parent} is not {what}") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InputError(f"{path}: not readable as JSON; {what} is damaged, make it again"
                         ) from None  # fmt: skip


def sha256(path: Path, on_bytes: Callable[[int], object] | None = None) -> str:
    """Compute a file's checksum, as hexadecimal text; `on_bytes` is told how many were read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            if on_bytes is not None:
                on_bytes(len(block))
    return digest.hexdigest()


def fetch(url: str, checksum: str, place: Path) -> Path:
    """Return a public file, fetched once into `place`; an InputError for one of another SHA-256."""
    there = place.is_file()
    try:
        with place.open("rb") if there else urllib.request.urlopen(url, timeout=20) as source:
            content = source.read()
    except (OSError, HTTPException) as error:
        raise InputError(f"{url}: {error}; fetch it yourself, to {place}") from None
    if hashlib.sha256(content).hexdigest() != checksum:
        raise InputError(f"{place if there else url}: not the file of {url} that is meant; "
                         "remove it, or fetch it elsewhere")  # fmt: skip
    if not there:
        write_atomically(place, lambda p: p.write_bytes(content))
    return place


# --- tables and lists from anywhere ---------------------------------------------------------------

_OTHER_KINDS = {
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"PK\x03\x04": "a zip archive or a workbook; unpack it, or save the sheet as CSV",
}
_SPELLINGS = {"seriesinstanceuid": "seriesuid", "patient": "patientid", "patients": "patientid"}
# Python's `float` takes more: 1_000, and the digits of every script.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_BY_A_SPREADSHEET = re.compile(r"\d([.,]\d+)?[eE]\+\d+|\d[.,]\d+[eE]\d\d")
# What the parser takes for a number, for a field's end, or for one field of several lines.
_SUSPICIOUS = (b"true", b"false", b"\0", b'"')
# From 3.1 on pandas always reads numbers exactly, and warns of being told to.
_TOLD_TO = tuple(int(part) for part in pd.__version__.split(".")[:2]) < (3, 1)
_ROWS_AT_ONCE = 100_000


def read_csv(
    path: str | os.PathLike[str], text: Sequence[str], numbers: Mapping[str, range | None],
    what: str, *, may_lack: Collection[str] = (), only: tuple[str, str] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Read a table of ids and numbers: ids as they are written, whatever they look like.

    UTF-8 and UTF-16, any line ends, commas, semicolons or tabs (with these also decimal commas),
    quotes, blanks around fields, blank lines and other cases in the header are taken; columns that
    are not asked for are left out. Numbers are rounded as Python's own `float` rounds them.

    Args:
        path: the file; `what` names its kind in words.
        text: columns of ids, which every line needs.
        numbers: column -> the whole numbers that it may hold, or None for any finite number.
        may_lack: those of `numbers` that may be empty (and are not whole).
        only: a column of `text` and a value: read these rows alone, so that of millions no more
            than they and a part of the file are ever held.

    Returns:
        The columns of `text` (categories in alphabetical order) and `numbers` (int64, float64).

    Raises:
        InputError: with line and column, what cannot be read, or not without a doubt.
    """
    path, needed = Path(path), [*text, *numbers]
    separator, header = _first_line(path, needed)
    if missing := [name for name in needed if name not in header]:
        raise InputError(f"{path}: the header {_short(','.join(header)) or 'is empty and'} lacks "
                         f"{', '.join(missing)}; {what} needs {','.join(needed)}")  # fmt: skip
    if doubled := [name for name in needed if header.count(name) > 1]:
        raise InputError(f"{path}: two columns are named {doubled[0]}; leave one out")
    # Columns that nobody reads are numbered.
    header = [name if name in needed else f"{i}: {name}" for i, name in enumerate(header)]
    decimal = "."
    if separator != ",":
        at = [header.index(name) for name in numbers]
        below = (fields for line, fields in _lines(path, separator) if line > 1)
        found = any("," in "".join(fields[i : i + 1]) for fields in below for i in at)
        decimal = "," if found else "."

    def require_sound() -> None:
        below = _lines(path, separator)
        next(below)
        for line, fields in below:
            if why := _fault(fields, header, text, numbers, may_lack, decimal, what):
                raise InputError(f"{path}, line {line}: {why}")

    with path.open("rb") as file:  # UTF-16 is full of zero bytes
        blocks = iter(lambda: b"".join(file.readlines(1 << 20)).lower(), b"")
        if any(sign in block for block in blocks for sign in _SUSPICIOUS):
            require_sound()
    kinds: dict[Hashable, Any] = dict.fromkeys(header, object)
    kinds |= dict.fromkeys(numbers, "float64")
    lack = np.isin(list(numbers), list(may_lack))
    ids: dict[str, list[pd.Categorical]] = {name: [] for name in text}
    spellings: dict[str, set[str]] = {name: set() for name in text}
    values: list[pd.DataFrame] = []
    try:
        with (
            warnings.catch_warnings(),
            pd.read_csv(
                path, encoding=_encoding(path), sep=separator, decimal=decimal, header=0,
                names=header, index_col=False, dtype=kinds, keep_default_na=False,
                na_values={name: [""] for name in numbers}, chunksize=_ROWS_AT_ONCE,
                float_precision="round_trip" if _TOLD_TO else None,
            ) as parts,
        ):  # fmt: skip
            warnings.simplefilter("error", pd.errors.ParserWarning)  # fields beyond the header
            for part in parts:
                some = part[list(numbers)].to_numpy()
                sound = (np.isfinite(some) | (np.isnan(some) & lack)).all(axis=1)
                for column, allowed in zip(some.T, numbers.values(), strict=True):
                    sound &= True if allowed is None else _is_whole(column, allowed)
                own = {}
                for name in text:
                    codes, raw = pd.factorize(part[name])
                    spellings[name].update(raw)
                    again, names = pd.factorize(np.array([n.strip() for n in raw], dtype=object))
                    stripped: Any = again[codes]
                    own[name] = pd.Categorical.from_codes(stripped, pd.Index(names))
                    sound &= np.asarray(own[name] != "")
                if not sound.all():
                    require_sound()  # what passes are lines of blanks, which lack everything
                keep = sound if only is None else sound & np.asarray(own[only[0]] == only[1])
                for name, column in own.items():
                    ids[name].append(
                        column if keep.all() else column[keep].remove_unused_categories()
                    )
                values.append(part.loc[keep, list(numbers)])
    except InputError:
        raise
    except (ValueError, OSError, pd.errors.ParserWarning) as error:
        require_sound()
        why = " ".join(str(error).split())
        raise InputError(f"{path}: not readable as CSV ({why}); write {what} again") from None
    for name, raw in spellings.items():
        require_ids(raw, name, str(path))
    table = pd.DataFrame({
        name: union_categoricals(own, sort_categories=True) for name, own in ids.items()
    })  # fmt: skip
    for name, allowed in numbers.items():
        column = np.concatenate([part[name].to_numpy() for part in values])
        table[name] = column if allowed is None else column.astype(np.int64)
    return table


def read_list(path: str | os.PathLike[str], column: str, what: str) -> list[str]:
    """Read a list of names: one a line, or the column of that name of a table with a header.

    Raises:
        InputError: no name, several on a line and no header that tells which is meant, or a first
            line that looks like a header of another name.
    """
    path = Path(path)
    separator, header = _first_line(path, [column])
    lines, at = list(_lines(path, separator)), 0
    if column in header:
        lines, at = lines[1:], header.index(column)
    for line, fields in lines:
        if column not in header and (any(fields[1:]) or set(fields[0].strip()) & set(";\t")):
            raise InputError(f"{path}, line {line}: more than one {what}, and no header that says "
                             f"which column is {column}; give one a line")  # fmt: skip
    names = [fields[at].strip() if at < len(fields) else "" for _, fields in lines]
    if not names or not all(names):
        raise InputError(f"{path}: names no {what}, or has lines without one; give one a line")
    told = [any(c.isdigit() for c in name) for name in names]
    if column not in header and len(names) > 1 and not told[0] and all(told[1:]):
        raise InputError(f"{path}: begins with {names[0]!r}, which looks like a header; write "
                         f"{column} there, or leave it out")  # fmt: skip
    require_ids(names, column, str(path))
    return names


def require_ids(names: Iterable[str], column: str, where: str) -> None:
    """Refuse ids that a spreadsheet made numbers of, and two spellings of one patient."""
    seen: dict[str, str] = {}
    for name in names:
        if not name.strip().isprintable():
            raise InputError(f"{where}: {column} {name!r} holds a character that no id has; the "
                             "file is damaged, or in another encoding than UTF-8")  # fmt: skip
        if _BY_A_SPREADSHEET.fullmatch(name.strip()):
            raise InputError(f"{where}: {column} {name} is a number that a spreadsheet made of an "
                             "id; write the table again, and open it as text")  # fmt: skip
        if _key(column) == "patientid":
            plain = unicodedata.normalize("NFKC", name)
            plain = "".join(c for c in plain if unicodedata.category(c) != "Cf").casefold()
            other = seen.setdefault(re.sub(r"[\s_\-\u2010-\u2015]+", "-", plain.strip()), name)
            if other != name:
                raise InputError(f"{where}: patients {min(other, name)!r} and {max(other, name)!r} "
                                 "are most likely one; write the same id for both")  # fmt: skip


def _key(name: str) -> str:
    """A column's name without cases, blanks and underscores, in one of its known spellings."""
    key = re.sub(r"[\s_-]+", "", name).casefold()
    return _SPELLINGS.get(key, key)


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _lines(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of every line that is not blank; of several in quotes, the first's."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the CSV file")
    if not path.is_file():
        there = "is no plain file; write it to one" if path.exists() else "no such file"
        raise InputError(f"{path}: {there}")
    with path.open("rb") as binary:
        begin = binary.read(4)
    for magic, what in _OTHER_KINDS.items():
        if begin.startswith(magic):
            raise InputError(f"{path}: {what}")
    try:
        with path.open(encoding=_encoding(path), newline="") as file:
            rows, before = csv.reader(file, delimiter=separator), 0
            for fields in rows:
                if any(field.strip() for field in fields):
                    yield before + 1, fields
                before = rows.line_num
    except (UnicodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error}); save it as CSV") from None


def _first_line(path: Path, needed: Sequence[str]) -> tuple[str, list[str]]:
    """What separates fields, and those of the first line, the needed columns by these names."""
    known, found = {_key(name): name for name in needed}, {}
    for separator in ",;\t":
        _, fields = next(_lines(path, separator), (0, []))
        found[separator] = [known.get(_key(field), field.strip()) for field in fields]
    separator = max(found, key=lambda s: len(set(needed) & set(found[s])))
    return separator, found[separator]


def _fault(
    fields: list[str], header: list[str], text: Sequence[str],
    numbers: Mapping[str, range | None], may_lack: Collection[str], decimal: str, what: str,
) -> str | None:  # fmt: skip
    """What is wrong with a line, and what to do; None when it is sound."""
    while len(fields) > len(header) and not fields[-1].strip():
        fields.pop()  # a comma at a line's end
    if any("\n" in field or "\r" in field for field in fields):
        return "a quote is opened there and not closed on that line; close it, or leave it out"
    if len(fields) != len(header):
        return (f"{len(fields)} fields under a header of {len(header)}; {what} needs "
                f"{','.join([*text, *numbers])} on every line")  # fmt: skip
    if any("\0" in field for field in fields):
        return f"holds a zero byte, which is no text; write {what} again"
    row = {name: field.strip() for name, field in zip(header, fields, strict=True)}
    for name in text:
        if not row[name]:
            return f"no {name}; give one on every line"
    for name, allowed in numbers.items():
        number = row[name].replace(decimal, ".")
        if not number and name in may_lack:
            continue
        if _NUMBER.fullmatch(number) is None or not math.isfinite(float(number)):
            return f"{name} is {_short(row[name]) or 'empty'}; give a finite number"
        if allowed is not None and not _is_whole(float(number), allowed):
            least = f"from {allowed[0]}" + (f" to {allowed[-1]}" if len(allowed) < 1000 else " on")
            return f"{name} is {_short(row[name])}; give a whole number {least}"
    return None


def _is_whole(numbers: Any, allowed: range) -> Any:
    return (numbers >= allowed[0]) & (numbers <= allowed[-1]) & (numbers == np.rint(numbers))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."
