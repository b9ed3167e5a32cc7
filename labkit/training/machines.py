"""Where networks are trained: device and precision, processes, machines of a Dask cluster.

On a CPU two networks on one core each train faster than one after the other on both cores. Workers
of a cluster read the cohort and write the run themselves, in folders that all machines share.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import platform
import signal
import socket
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import threadpoolctl
import torch
from joblib import Parallel, delayed
from torch import Tensor, nn

from labkit import __version__
from labkit.errors import InputError
from labkit.io import available_cores, memory, sha256, told_if_killed

_SECONDS_TO_CONNECT = _SECONDS_FOR_A_WORKER = 20
_TALKATIVE = ("distributed", "distributed.client", "distributed.core", "distributed.comm",
              "distributed.utils", "tornado.application")  # fmt: skip


def describe_hardware() -> dict[str, Any]:
    """Describe what a result is measured on: processor, threads, GPU, versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "labkit": __version__,
    }


def now() -> str:
    """Return the time in UTC, as results note it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def provenance() -> dict[str, Any]:
    """Return when and on what a result was measured, for its JSON file."""
    return {"date": now(), "hardware": describe_hardware()}


def duration(seconds: float) -> str:
    """Write a time in words, to the precision that an estimate has.

    >>> duration(50), duration(500), duration(50_000)
    ('50 s', '8 min', '13.9 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class Device:
    """A device with the precision and layout that are fastest on it."""

    torch_device: torch.device
    bf16: bool  # whether convolutions and matrix products run in bfloat16 (autocast)
    tf32: bool = False  # whether a GPU rounds float32 factors to 10 bits of mantissa

    @classmethod
    def choose(cls, name: str = "auto", precision: str = "auto") -> Device:
        """Return the device of this name ("auto", "cpu", "cuda", "cuda:1") at this precision.

        InputError when it is not there, or lacks the precision.
        """
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(name)
        except RuntimeError:
            raise InputError(f"no device is called {name!r}; try auto, cpu or cuda") from None
        if device.type not in ("cpu", "cuda"):
            raise InputError(f"{name}: labkit trains on cpu or cuda")
        if device.type == "cuda" and not torch.cuda.is_available():
            raise InputError(f"{name}: no CUDA device here; use --device cpu")
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise InputError(f"{name}: there are {torch.cuda.device_count()} CUDA devices")
        if precision == "tf32" and device.type != "cuda":
            raise InputError("precision tf32 is a GPU's; on a CPU use auto, fp32 or bf16")
        bf16 = precision == "bf16" or (precision == "auto" and has_bf16(device))
        return cls(device, bf16, precision == "tf32")

    @property
    def description(self) -> str:
        """In words, for a log: what it is and at which precision it works."""
        precision = "bf16" if self.bf16 else "tf32" if self.tf32 else "fp32"
        if self.torch_device.type == "cuda":
            return f"{torch.cuda.get_device_name(self.torch_device)}, {precision}"
        return f"CPU, {available_cores()} cores, {precision}"

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to the device, in channels-last layout."""
        network = network.to(self.torch_device)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def tensor(self, array: Tensor) -> Tensor:
        """Return the tensor on the device."""
        return array.to(self.torch_device, non_blocking=True)

    def autocast(self) -> torch.autocast:
        """Return a context in which convolutions run at the device's precision."""
        return torch.autocast(self.torch_device.type, torch.bfloat16, enabled=self.bf16)

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Make float32 be float32, also on a GPU, whose convolutions round to TF32."""
        before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = self.tf32
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before

    @contextlib.contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Take torch's random numbers from `seed`, and restore them afterwards."""
        devices = [self.torch_device] if self.torch_device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield


def has_bf16(device: torch.device) -> bool:
    """Tell whether the hardware multiplies matrices in bfloat16 faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def default_jobs(device: Device) -> int:
    """Count the networks to train at once: one on a GPU; on a CPU one a core, as memory allows."""
    if device.torch_device.type == "cuda":
        return 1
    cores = min(psutil.cpu_count(logical=False) or 1024, available_cores())
    return max(1, min(cores, memory()[1] // 2**30))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread of the CPU, so that sums are taken in one order on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpoolctl.threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def run(
    function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], jobs: int,
    cluster: Cluster | None = None,
) -> Iterator[Any]:  # fmt: skip
    """Yield what a function returns for each task's arguments, as tasks finish, in any order.

    They run in so many processes (`jobs`), or on all workers of a cluster (see `connect`);
    InputError when one is killed.
    """
    if cluster is not None:
        yield from cluster.results(function, tasks)
        return
    with warnings.catch_warnings():
        # Workers kept from lighter work look to joblib as if they leaked memory once they load
        # torch; it replaces them, which is harmless and no news to the reader.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given")
        parallel = Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")
        with told_if_killed(jobs):
            with _without_ctrl_c():
                results = parallel(delayed(function)(*task) for task in tasks)
            yield from results


@contextlib.contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C interrupt at the end only; processes begun meanwhile leave it to this one."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # The first process begins this one, too, and up to Python 3.11 that lets Ctrl-C through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True)
class Cluster:
    """Dask workers that are there, and train one network at a time."""

    address: str  # of the scheduler
    workers: tuple[str, ...]  # their addresses
    client: Any  # `distributed.Client`

    def hardware(self, device: str, precision: str) -> tuple[dict[str, Any], bool]:
        """Describe the workers, and tell whether they train on GPUs.

        InputError when one lacks the device or has another version of labkit or torch, two share a
        GPU, or some would compute in another way, so that results depended on who trained what.
        """
        found, here = self._on_each(_worker_hardware, device, precision), describe_hardware()
        first, owner = next(iter(found)), dict[str, str]()
        description, way, _ = found[first]
        for worker, (there, its_way, gpu) in found.items():
            for package in ("labkit", "torch"):
                ours, theirs = (of[package].split("+")[0] for of in (here, there))
                if ours != theirs:
                    raise InputError(f"worker {worker}: {package} is {theirs} there and {ours} "
                                     "here; install the same everywhere")  # fmt: skip
            if its_way != way:
                raise InputError(f"workers differ: {first} has {description['device']}, {worker} "
                                 f"has {there['device']}; give --device and --precision that all "
                                 "have, or leave some out")  # fmt: skip
            if gpu is not None and owner.setdefault(gpu, worker) != worker:
                raise InputError(f"workers {owner[gpu]} and {worker} share a GPU; give each its "
                                 "own by CUDA_VISIBLE_DEVICES (SLURM does with --gres=gpu:1 a job)"
                                 )  # fmt: skip
        return {**description, "workers": len(found)}, way[0] == "cuda"

    def check_folders(self, inputs: Iterable[Path], out: Path) -> None:
        """Raise InputError unless workers read the same `inputs` as this machine, and share `out`.

        Each leaves a mark there, which is looked for in the folder's list, since a network file
        system may have kept an older answer on a single file.
        """
        marks = self._on_each(_see, {str(file): sha256(file) for file in inputs}, str(out))
        for worker, mark in marks.items():
            seen = mark in [file.name for file in out.iterdir()]
            (out / mark).unlink(missing_ok=True)
            if not seen:
                raise InputError(f"{out}: what worker {worker} writes there is not seen here; "
                                 "--out must lie on a file system that all machines share"
                                 )  # fmt: skip

    def once(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function returns on one of the workers."""
        return self.client.submit(function, *arguments, pure=False).result()

    def results(self, function: Callable[..., Any], tasks: Iterable[Any]) -> Iterator[Any]:
        """Yield what a function returns for each task's arguments, as workers finish.

        A task whose worker dies is given to another one. Workers that join later get tasks, too.
        Raises InputError when workers die again and again on one task, or the scheduler is gone.
        """
        from distributed import KilledWorker, as_completed
        from distributed.comm import CommClosedError

        try:
            futures = [self.client.submit(function, *task, pure=False) for task in tasks]
            for future in as_completed(futures, loop=self.client.loop):
                yield future.result()
        except KilledWorker as error:
            raise InputError(f"{error.allowed_failures + 1} workers died at the same task, the "
                             f"last one {error.last_worker.address}: look at its log (memory or "
                             "time limit?); the same command goes on") from None  # fmt: skip
        except (CancelledError, CommClosedError):
            raise InputError(f"the scheduler at {self.address} is gone; start it and its workers "
                             "again, the same command goes on") from None  # fmt: skip

    def _on_each(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Return what a function returns on each worker; the first one that fails is named."""
        found = self.client.run(function, *arguments, workers=list(self.workers), on_error="return")
        for worker, value in found.items():
            if isinstance(value, BaseException):
                kind = "" if isinstance(value, InputError) else f"{type(value).__name__}: "
                raise InputError(f"worker {worker}: {kind}{' '.join(str(value).split())}")
        return dict(found)


@contextlib.contextmanager
def connect(address: str) -> Iterator[Cluster]:
    """Connect to the cluster of the scheduler at an address such as tcp://node7:8786.

    InputError when Dask is not installed, there is no scheduler, it has no workers, or one of these
    has more than one thread.
    """
    try:
        from distributed import Client
        from distributed.comm import get_address_host_port
    except ImportError:
        raise InputError('a scheduler needs Dask: pip install "labkit[cluster]"') from None
    with contextlib.ExitStack() as stack:
        for name in _TALKATIVE:  # its messages on lost connections; errors here take one line
            log = logging.getLogger(name)
            stack.callback(log.setLevel, log.level)
            log.setLevel(logging.CRITICAL + 1)
        try:
            # By hand first: a Client that reaches nobody keeps trying for a minute.
            socket.create_connection(get_address_host_port(address), _SECONDS_TO_CONNECT).close()
            client = Client(address, timeout=_SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"no scheduler at {address} ({reason}); give the address that `dask "
                             "scheduler` prints, such as tcp://node7:8786") from None  # fmt: skip
        stack.callback(client.close, timeout=5)
        with contextlib.suppress(TimeoutError):
            client.wait_for_workers(1, timeout=_SECONDS_FOR_A_WORKER)
        threads = client.nthreads()
        if not threads:
            raise InputError(f"the scheduler at {address} has no workers; start some with `dask "
                             f"worker {address} --nthreads 1`, or wait until their jobs run"
                             )  # fmt: skip
        for worker, count in threads.items():
            if count > 1:  # torch's threads and random numbers belong to the process
                raise InputError(f"worker {worker} runs {count} tasks at once in one process; "
                                 "start workers with --nthreads 1 (in dask-jobqueue: cores=1)"
                                 )  # fmt: skip
        yield Cluster(address, tuple(threads), client)


def _worker_hardware(device: str, precision: str) -> tuple[dict[str, Any], Any, str | None]:
    """Describe a worker for the record, tell how it computes, and by which GPU."""
    chosen = Device.choose(device, precision)
    place = chosen.torch_device
    gpu = str(torch.cuda.get_device_properties(place).uuid) if place.type == "cuda" else None
    described = {**describe_hardware(), "device": chosen.description}
    return described, (place.type, chosen.bf16), gpu


def _see(sums: dict[str, str], out: str) -> str:
    """Look for files with these sums, and leave a mark in a folder; its name is returned."""
    for name, there in sums.items():
        if not Path(name).is_file() or sha256(Path(name)) != there:
            raise InputError(f"{name} is not there as it is where labkit was started; the cohort "
                             "and --out must lie on a file system that all machines share"
                             )  # fmt: skip
    mark = Path(out) / f".seen-{uuid.uuid4().hex}"
    mark.touch()
    return mark.name
