"""Interrupt the commands that write, and see whether anything is lost: counts by command, as JSON.

    python -m benchmarks.interrupt --out results/reliability.json
    python -m benchmarks.interrupt --only simulated crossval --kills 2 --quiet

Five commands work on inputs so small that each computes for less than a second, and are

- killed (SIGKILL, the whole process group) at moments drawn from the time that they take, a quarter
  of them once more while they go on; and before each single change of a file that they make;
- given a disk with too little room for all, for half, for the last file of what they write, every
  second time without their look at the room, as if another program filled the disk meanwhile;
- given a folder that cannot be written; and begun twice, at drawn moments, for one folder.

In every second case another result, of other settings, stands in the place. What can be read after
each has to be whole, the other result or the new one; where there was one, one of them has to be
there; who does not die ends well or in one line with status 2; and the same command, run again,
has to leave the bytes of an unbroken run, and nothing beside them. Only times in JSON files are
left out of this comparison. All else is `wrong`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from benchmarks.common import command
from benchmarks.fuzz import make_run
from benchmarks.speed.extraction import write_image
from labkit.annotations import lidc
from labkit.cli import main
from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation.predictions import read_predictions
from labkit.imaging.volume import Volume
from labkit.simulate.scan import scan_of
from labkit.simulate.scene import scene_of
from labkit.simulate.write_dicom import write_scan
from labkit.training.machines import one_thread
from labkit.training.nine_views import load

LEFT_OUT = ("started", "seconds", "training_seconds")
_HANGS_S, _PAGE, _KILLED = 300, 4096, -signal.SIGKILL
_FORK: Any = multiprocessing.get_context("fork")
Process = Any  # of it
_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate")
Ended = tuple[int, str]  # a command's exit status, and what it said
Cases = Iterator[tuple[bool, list[Ended]]]  # was another result there; how the disturbed ended


class Work(NamedTuple):
    """A command on small inputs."""

    arguments: list[str]  # but for --out
    other: list[str]  # more of them, for another result that it may replace; none where it may not
    read: Callable[[Path], Any]  # what is read of its result, which refuses what is not whole


def contents(folder: Path) -> dict[str, Any]:
    """Return what a folder holds: each file's JSON without times, or its checksum."""

    def plain(file: Path) -> Any:
        if file.suffix != ".json":
            return hashlib.sha256(file.read_bytes()).hexdigest()
        return {k: v for k, v in json.loads(file.read_bytes()).items() if k not in LEFT_OUT}

    return {str(f.relative_to(folder)): plain(f) for f in folder.rglob("*") if f.is_file()}


def read_cohort(folder: Path) -> dict[str, Any]:
    """Read a cohort, every byte of it."""
    Cohort.open(folder).verify()
    return contents(folder)


def of_lidc(folder: Path, scans: int = 2) -> Work:
    """Write some slices of simulated scans, around a nodule of each."""
    for nodule in lidc.nodules().drop_duplicates("patient_id")[:scans].itertuples():
        scan = scan_of(str(nodule.series_uid))
        first = scan.first_z_mm + scan.slice_spacing_mm * round(
            (nodule.center_z_mm - scan.first_z_mm) / scan.slice_spacing_mm - 5
        )
        part = scene_of(replace(scan, first_z_mm=first, slices=10), 0)
        write_scan(part, folder / "dicom" / str(nodule.patient_id), progress=False)
    return Work(["build", "lidc", str(folder / "dicom")], ["--allow-gaps"], read_cohort)


def of_luna16(folder: Path) -> Work:
    """Write three volumes of lung with a ball in each, and candidates on it and beside it."""
    rng, rows, shape, corner = np.random.default_rng(0), [], (24, 80, 80), (-40.0, -40.0, -12.0)
    ball = np.linalg.norm(np.stack(np.indices(shape), -1)[..., ::-1] + corner, axis=-1) < 5
    for number in range(3):
        voxels = np.where(ball, 40, -850) + rng.normal(0, 30, shape)
        file = folder / "scans" / f"subset{number}" / f"1.2.3.4.{number}.mhd"
        file.parent.mkdir(parents=True)
        write_image(file, Volume(voxels.astype(np.int16), (1, 1, 1), corner))
        for point in ([0, 0, 0], *rng.uniform(-10, 10, (5, 3))):
            rows.append((file.stem, *point, int(np.linalg.norm(point) < 5)))
    table = pd.DataFrame(rows, columns=["seriesuid", "coordX", "coordY", "coordZ", "class"])
    table.to_csv(folder / "candidates.csv", index=False)
    nodules = table.groupby("seriesuid").head(1).drop(columns="class").assign(diameter_mm=10)
    nodules.to_csv(folder / "annotations.csv", index=False)
    given = [f"--{name}={folder / name}.csv" for name in ("candidates", "annotations")]
    other = [f"--excluded={folder / 'annotations.csv'}"]
    work = ["build", "luna16", str(folder / "scans"), *given, "--jobs=1"]
    return Work(work, other, read_cohort)


def of_training(name: str, more: list[str], other: list[str], read: Any, folder: Path) -> Work:
    """Write a cohort of noise, for one view of it."""
    make_run("cohort", folder)
    always = ["--model=st", "--epochs=2", "--device=cpu", "--views=0"]
    return Work([name, str(folder / "cohort"), *always, *more], other, read)


COMMANDS: dict[str, Callable[[Path], Work]] = {
    "build lidc": of_lidc,
    "build luna16": of_luna16,
    "build simulated": lambda _: Work(
        ["build", "simulated", "--nodules=2", "--jobs=1"], ["--seed=1"], read_cohort
    ),
    "crossval": partial(of_training, "crossval", ["--folds=2", "--jobs=1"], [],
                        lambda out: read_predictions(out).to_csv()),
    "train": partial(of_training, "train", [], ["--seed=1"],
                     lambda out: load(out, "cpu") and contents(out)),
}  # fmt: skip


class Place:
    """A folder in which a command is disturbed; another result, and an unbroken one of it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder, self.here, self.seconds = folder, folder / "place", [0.0]
        self.out, inputs = self.here / "result", folder / "input"
        inputs.mkdir(parents=True)
        self.work = COMMANDS[name](inputs)
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
            # What it keeps in memory, all the others find there.
            main([*self.work.arguments, f"--out={folder / 'first'}"])
        self.read: dict[bool, Any] = {}  # what is read of the other result, and of its own
        for other in (True, False, False)[not self.work.other :]:
            self.clear()
            status, said = self.run(more=self.work.other * other)
            if status:
                raise InputError(f"{name}: does not run undisturbed: {said}")
            self.read[other] = self.work.read(self.out)
            if other:
                shutil.copytree(self.out, folder / "other")
        self.unbroken = contents(self.out)
        self.bytes = sum(f.stat().st_size for f in self.out.rglob("*"))

    def clear(self, other: bool = False) -> bool:
        """Begin with an empty place, or with the other result in it where it may be; tell which."""
        shutil.rmtree(self.here, ignore_errors=True)  # but for a disk that is mounted there
        self.here.mkdir(exist_ok=True)
        if other and self.work.other:
            shutil.copytree(self.folder / "other", self.out)
        return bool(other and self.work.other)

    def begin(self, more: Sequence[str] = (), dies_at: int = 0, looks: bool = True) -> Process:
        """Begin the command in a process group of its own.

        It is forked, which saves the seconds of importing. `dies_at`: the change of a file before
        which it kills itself, from 1; without `looks` it takes any disk for large enough.
        """
        tqdm.monitor_interval = 0  # no thread beside, whose locks a fork would copy
        process = _FORK.Process(target=self._command, args=(more, dies_at, looks))
        process.start()
        with contextlib.suppress(OSError):  # it was faster
            os.setpgid(process.pid, process.pid)
        return process

    def _command(self, more: Sequence[str], dies_at: int, looks: bool) -> None:
        os.setpgid(0, 0)
        tqdm.set_lock(threading.RLock())  # ours is shared, and held for good by who dies in it
        said = os.open(self.folder / f"{os.getpid()}.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(os.dup2(said, 1), 2)
        if not looks:
            usage = shutil.disk_usage("/")._replace(free=1 << 60)
            shutil.disk_usage = lambda path: usage
        changes = itertools.count(1)

        def see(event: str, about: tuple[Any, ...]) -> None:
            writes = event == "open" and isinstance(about[2], int) and about[2] & 3
            ours = (writes or event in _CHANGES) and str(about[0]).startswith(str(self.here))
            if ours and next(changes) == dies_at:
                os.killpg(0, signal.SIGKILL)

        sys.addaudithook(see)
        sys.exit(main([*self.work.arguments, f"--out={self.out}", *more]))

    def end(self, process: Process, seconds: float = _HANGS_S) -> Ended:
        """Wait for a command, and kill its group after some seconds."""
        process.join(seconds)
        with contextlib.suppress(ProcessLookupError):  # also the workers of one that has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
        said = self.folder / f"{process.pid}.txt"  # not there of one that died at once
        return process.exitcode, said.read_text() if said.is_file() else ""

    def run(self, **how: Any) -> Ended:
        """Run the command to its end, and note how long that takes."""
        begun = time.monotonic()
        ended = self.end(self.begin(**how))
        self.seconds.append(time.monotonic() - begun)
        return ended

    def moment(self, rng: np.random.Generator) -> float:
        """Draw a moment of the time that the command takes, as busy as the machine is now."""
        return float(rng.uniform(0, statistics.median(self.seconds[-9:])))

    def judge(self, other: bool, ended: list[Ended]) -> str:
        """Say what is wrong with what disturbed commands left, and with how the next goes on."""
        for status, said in ended:
            line = status == 2 and "labkit: " in (said.splitlines() or [""])[-1]
            if not (line or status in (0, _KILLED)) or "Traceback" in said:
                return f"ended with {status}: {said[-400:]}"
        try:
            found = self.work.read(self.out)
        except InputError:
            found, aside = None, self.here.glob(".result.partial-*-replaced")
            if other and contents(self.folder / "other") not in map(contents, aside):
                return "what was there is lost"
        if found != self.read[False] and any(status == 0 for status, _ in ended):
            return "says that it is done, and is not"
        if found is not None and found not in [self.read[of] for of in {other, False}]:
            return "what is not whole is read"
        status, said = self.run()
        if status:
            return f"does not go on: {said[-400:]}"
        now = contents(self.out)
        if now != self.unbroken:
            changed = [n for n in now | self.unbroken if now.get(n) != self.unbroken.get(n)]
            return f"goes on to another result: {changed}"
        left = {p.name for p in self.here.iterdir()} - {"result", ".result.lock"}
        return f"leaves {min(left)}" if left else ""


def killed(place: Place, count: int, rng: np.random.Generator) -> Cases:
    """Kill it at drawn moments; those after its end are drawn again."""
    number = 0
    while number < count:
        other, twice = place.clear(bool(number % 2)), rng.random() < 0.25
        ended = [place.end(place.begin(), place.moment(rng)) for _ in range(1 + twice)]
        if ended[0][0] == _KILLED:
            number += 1
            yield other, ended


def killed_at_each_change(place: Place, *_: Any) -> Cases:
    """Kill it before its first change of a file, before its second, and so on to the last."""
    for number in itertools.count(1):
        other = place.clear(True)
        ended = place.end(place.begin(dies_at=number))
        if ended[0] != _KILLED:
            return
        yield other, [ended]


@contextlib.contextmanager
def own_disk(place: Place, other: bool) -> Iterator[bool]:
    """Put a disk of memory in the place, and tell whether the other result lies on it."""
    size = f"size={4 * place.bytes + (1 << 20)}"
    try:
        mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(place.here)]
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        raise InputError("only root on Linux can mount a small disk; try unshare -rm") from None
    try:
        yield place.clear(other)
    finally:
        subprocess.run(["umount", str(place.here)], check=True)


def disk_full(place: Place, *_: Any) -> Cases:
    """Leave so much room that it ends at once, early, late, or well."""
    need = place.bytes
    for free in (0, _PAGE, 4 * _PAGE, need // 3, need * 2 // 3, need - 2 * _PAGE, need, 2 * need):
        for looks in (True, False):
            with own_disk(place, not looks) as other:
                ballast = place.here / "ballast"
                ballast.write_bytes(bytes(max(0, shutil.disk_usage(place.here).free - free)))
                ended = place.end(place.begin(looks=looks))
                ballast.unlink()
                yield other, [ended]


def read_only(place: Place, *_: Any) -> Cases:
    """Let nothing be written, beside the other result and without it."""
    for there in (False, True):
        with own_disk(place, there) as other:
            change = ["mount", "-o", "remount,ro", str(place.here)]
            subprocess.run(change, check=True)
            ended = place.end(place.begin())
            subprocess.run([*change[:2], "remount,rw", change[-1]], check=True)
            yield other, [ended]


def two_at_once(place: Place, count: int, rng: np.random.Generator) -> Cases:
    """Begin it once more while it is at work."""
    for number in range(-(-count // 5)):
        other, first = place.clear(bool(number % 2)), place.begin()
        time.sleep(place.moment(rng))
        yield other, [place.end(process) for process in (first, place.begin())]


DISTURBANCES = (killed, killed_at_each_change, disk_full, read_only, two_at_once)


def measure(
    *, only: tuple[str, ...] = tuple(COMMANDS), kills: int = 50, seed: int = 0,
    progress: bool = True,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Disturb each command in each way, and yield the counts so far."""
    counts: dict[str, dict[str, Any]] = {}
    record = {"seed": seed, "not_compared": LEFT_OUT, "commands": counts}
    for name in only:
        with tempfile.TemporaryDirectory() as folder, one_thread():
            place = Place(name, Path(folder) / "x")
            counts[name] = {}
            for disturb in DISTURBANCES:
                what = disturb.__name__.replace("_", " ")
                said, refused = list[str](), 0
                cases = disturb(place, kills, np.random.default_rng((seed, *what.encode())))
                for other, ended in tqdm(cases, f"{name}, {what}", disable=not progress):
                    refused += any(status == 2 for status, _ in ended)
                    said.append(place.judge(other, ended))
                wrong = [[number, why] for number, why in enumerate(said) if why]
                counts[name][what] = {"tried": len(said), "refused": refused,
                                      "wrong": len(wrong), "wrong_ones": wrong}  # fmt: skip
                yield record


if __name__ == "__main__":
    sys.exit(command(measure, __doc__, part="interruptions"))
