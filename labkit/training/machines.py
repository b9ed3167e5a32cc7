"""Where and how the arithmetic is done: device, precision and memory layout."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import logging
import os
import platform
import signal
import socket
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch
from joblib import Parallel
from torch import Tensor, nn

from labkit import __version__
from labkit.errors import InputError
from labkit.io import told_if_killed

if TYPE_CHECKING:
    pass

# What a result was measured on, and times in words.


def describe_hardware() -> dict[str, Any]:
    """What a result was measured on: processor, threads, GPU, versions."""
    info: dict[str, Any] = {
        "processor": _processor_name(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "labkit": __version__,
    }
    return info


def now() -> str:
    """The time in UTC, as results note it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def provenance() -> dict[str, Any]:
    """When and on what a result was measured: `date` and `hardware`, for its JSON file."""
    return {"date": now(), "hardware": describe_hardware()}


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def duration(seconds: float) -> str:
    """A time in words, to the precision that an estimate has.

    >>> duration(50), duration(500), duration(50_000)
    ('50 s', '8 min', '13.9 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class Device:
    """A device with the precision and layout that are fastest on it.

    Args:
        torch_device: where tensors live.
        bf16: whether convolutions and matrix products run in bfloat16 (autocast).
        tf32: whether a GPU rounds the factors of float32 products to 10 bits of mantissa.
    """

    torch_device: torch.device
    bf16: bool
    tf32: bool = False

    @classmethod
    def choose(cls, name: str = "auto", precision: str = "auto") -> Device:
        """The device of this name ("auto", "cpu", "cuda", "cuda:1") at this precision.

        Raises:
            InputError: a device that is not there, or bf16 on hardware without it.
        """
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(name)
        except RuntimeError:
            raise InputError(f"no device is called {name!r}; try auto, cpu or cuda") from None
        if device.type not in ("cpu", "cuda"):
            raise InputError(f"{name}: labkit trains on cpu or cuda")
        if device.type == "cuda":
            if not torch.cuda.is_available():
                raise InputError(f"{name}: no CUDA device here; use --device cpu")
            if device.index is not None and device.index >= torch.cuda.device_count():
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
        return f"CPU, {os.cpu_count()} cores, {precision}"

    def place(self, network: nn.Module) -> nn.Module:
        """The network on the device, in channels-last layout."""
        network = network.to(self.torch_device)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def autocast(self) -> torch.autocast:
        """Context in which convolutions run at the device's precision."""
        return torch.autocast(self.torch_device.type, torch.bfloat16, enabled=self.bf16)

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Context in which float32 is float32, also on a GPU, whose convolutions round to TF32."""
        before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = self.tf32
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before

    @contextlib.contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Context in which torch's random numbers come from `seed`; restores them afterwards."""
        devices = [self.torch_device] if self.torch_device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield

    def tensor(self, array: Tensor) -> Tensor:
        """The tensor on the device."""
        return array.to(self.torch_device, non_blocking=True)


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies matrices in bfloat16 faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


# Networks on many machines: a Dask cluster whose workers train them, one at a time each.
#
# Workers read the cohort and write the run themselves, in folders that all machines share; what
# travels is which nodules to train on. What is checked here before anything is sent would else be
# noticed after hours, or in the results.


_SECONDS_TO_CONNECT = 20
_SECONDS_FOR_A_WORKER = 20
_TALKATIVE = ("distributed", "distributed.client", "distributed.core", "distributed.comm",
              "distributed.utils", "tornado.application")  # fmt: skip


@dataclass(frozen=True)
class Cluster:
    """Workers that are there, are of this version, and train one network at a time.

    Args:
        address: of the scheduler.
        workers: their addresses.
        client: `distributed.Client`.
    """

    address: str
    workers: tuple[str, ...]
    client: Any

    def hardware(self, device: str, precision: str) -> tuple[dict[str, Any], bool]:
        """What the workers are, and whether they train on GPUs.

        Args:
            device: "auto", "cpu" or "cuda", as each worker has it.
            precision: as in `TrainingConfig`.

        Raises:
            InputError: a worker lacks the device, two share a GPU, or some would compute in
                another way than others, so that results depended on who trained what.
        """
        found = self._on_each(_worker_hardware, device, precision)
        first, *others = found
        for worker in others:
            for what in ("kind", "bf16"):
                if found[worker][what] != found[first][what]:
                    raise InputError(
                        f"workers differ: {first} has {found[first]['device']}, {worker} has "
                        f"{found[worker]['device']}; give --device and --precision that all have, "
                        "or leave some out"
                    )
        owner: dict[str, str] = {}
        for worker, values in found.items():
            gpu = values.pop("gpu_id")
            if gpu is not None and owner.setdefault(gpu, worker) != worker:
                raise InputError(
                    f"workers {owner[gpu]} and {worker} share a GPU; give each its own by "
                    "CUDA_VISIBLE_DEVICES (SLURM does with --gres=gpu:1 a job)"
                )
        values = dict(found[first])
        on_gpu = values.pop("kind") == "cuda"
        del values["bf16"]
        return {**values, "workers": len(found)}, on_gpu

    def check_folders(self, inputs: Iterable[Path], out: Path) -> None:
        """Make sure that workers and this machine see the same files.

        Args:
            inputs: small files that all workers read.
            out: folder that they write into.

        Raises:
            InputError: they do not share a file system there.
        """
        sums = {str(file): _sum(file) for file in inputs}
        marks = self._on_each(_see, sums, str(out))
        try:
            for worker, mark in marks.items():
                # Listed, since a network file system may have kept an older list of the folder.
                if mark not in [file.name for file in out.iterdir()]:
                    raise InputError(
                        f"{out}: what worker {worker} writes there is not seen here; --out must "
                        "lie on a file system that all machines share"
                    )
        finally:
            for mark in marks.values():
                (out / mark).unlink(missing_ok=True)

    def once(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function returns on one of the workers."""
        return self.client.submit(function, *arguments, pure=False).result()

    def results(self, tasks: Iterable[Any]) -> Iterator[Any]:
        """Results of joblib's delayed calls as they come in, in any order.

        A task whose worker dies is given to another one. Workers that join later get tasks, too.

        Raises:
            InputError: workers died again and again on one task, or the scheduler is gone.
        """
        from distributed import KilledWorker
        from distributed.comm import CommClosedError

        parallel = Parallel(
            backend=_backend(self.client), n_jobs=-1, batch_size=1, pre_dispatch="all",
            return_as="generator_unordered",
        )  # fmt: skip
        try:
            yield from parallel(tasks)
        except KilledWorker as error:
            raise InputError(
                f"{error.allowed_failures + 1} workers died at the same task, the last one "
                f"{error.last_worker.address}: look at its log (memory or time limit?); the same "
                "command goes on"
            ) from None
        except (CancelledError, CommClosedError):
            raise InputError(
                f"the scheduler at {self.address} is gone; start it and its workers again, the "
                "same command goes on"
            ) from None

    def _on_each(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """What a function returns on each worker; the first one that fails is named."""
        found = self.client.run(function, *arguments, workers=list(self.workers), on_error="return")
        for worker, value in found.items():
            if isinstance(value, InputError):
                raise InputError(f"worker {worker}: {value}")
            if isinstance(value, BaseException):
                reason = " ".join(str(value).split())
                raise InputError(f"worker {worker}: {type(value).__name__}: {reason}")
        return dict(found)


@contextlib.contextmanager
def connect(address: str) -> Iterator[Cluster]:
    """The cluster of the scheduler at an address such as tcp://node7:8786.

    Raises:
        InputError: Dask is not installed, there is no scheduler, it has no workers, or these have
            another version of labkit or torch, or more than one thread.
    """
    try:
        from distributed import Client
        from distributed.comm import get_address_host_port
    except ImportError:
        raise InputError('a scheduler needs Dask: pip install "labkit[cluster]"') from None
    with _quiet(), contextlib.ExitStack() as stack:
        try:
            # By hand first: a Client that reaches nobody keeps trying for a minute.
            socket.create_connection(
                get_address_host_port(address), timeout=_SECONDS_TO_CONNECT
            ).close()
            client = Client(address, timeout=_SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"no scheduler at {address} ({_first_line(error)}); give the address that "
                "`dask scheduler` prints, such as tcp://node7:8786"
            ) from None
        stack.callback(client.close, timeout=5)
        cluster = Cluster(address, _workers(client, address), client)
        _check_versions(cluster)
        yield cluster


def _workers(client: Any, address: str) -> tuple[str, ...]:
    with contextlib.suppress(TimeoutError):
        client.wait_for_workers(1, timeout=_SECONDS_FOR_A_WORKER)
    threads = client.nthreads()
    if not threads:
        raise InputError(
            f"the scheduler at {address} has no workers; start some with "
            f"`dask worker {address} --nthreads 1`, or wait until their jobs run"
        )
    for worker, count in threads.items():
        if count > 1:
            # torch's threads and random numbers belong to the process, not to one network in it.
            raise InputError(
                f"worker {worker} runs {count} tasks at once in one process; start workers with "
                "--nthreads 1 (in dask-jobqueue: cores=1)"
            )
    return tuple(threads)


def _check_versions(cluster: Cluster) -> None:
    def versions() -> dict[str, str]:
        # Defined here, so that it travels whole to workers that have no labkit.
        from importlib.metadata import PackageNotFoundError, version

        found = {}
        for package in ("labkit", "torch"):
            try:
                found[package] = version(package).split("+")[0]
            except PackageNotFoundError:
                found[package] = "missing"
        return found

    here = {"labkit": __version__, "torch": importlib.metadata.version("torch").split("+")[0]}
    for worker, there in cluster._on_each(versions).items():
        for package, version in here.items():
            if there[package] != version:
                raise InputError(
                    f"worker {worker}: {package} is {there[package]} there and {version} here; "
                    "install the same everywhere"
                )


def _worker_hardware(device: str, precision: str) -> dict[str, Any]:
    chosen = Device.choose(device, precision)
    on_gpu = chosen.torch_device.type == "cuda"
    return {
        **describe_hardware(),
        "device": chosen.description,
        "kind": chosen.torch_device.type,
        "bf16": chosen.bf16,
        "gpu_id": str(torch.cuda.get_device_properties(chosen.torch_device).uuid)
        if on_gpu
        else None,
    }


def _see(sums: dict[str, str], out: str) -> str:
    """Look for files with these sums, and leave a mark in a folder; its name is returned."""
    for name, there in sums.items():
        file = Path(name)
        if not file.is_file() or _sum(file) != there:
            raise InputError(
                f"{name} is not there as it is where labkit was started; the cohort and --out must "
                "lie on a file system that all machines share"
            )
    mark = Path(out) / f".seen-{uuid.uuid4().hex}"
    mark.touch()
    return mark.name


def _sum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _backend(client: Any) -> Any:
    """joblib's Dask backend, but for two of its ways.

    It waits for ever for a task that Dask gave up, and runs everything here, where labkit was
    started, if there is one worker only.
    """
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(2, super().effective_n_jobs(n_jobs))

        def submit(self, func: Any, callback: Any = None) -> Any:
            def report(done: Any) -> None:
                if done.exception() is not None:
                    callback(done.exception())

            future = super().submit(func, callback)
            future.add_done_callback(report)
            return future

        def retrieve_result_callback(self, out: Any) -> Any:
            if isinstance(out, BaseException):
                raise out
            return super().retrieve_result_callback(out)

    return Backend(client=client)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Dask's own messages on lost connections, kept away: errors here say it in one line."""
    before = {name: logging.getLogger(name).level for name in _TALKATIVE}
    for name in before:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# Many small networks: a process and a core for each, on this machine or on many.
#
# Two networks on one core each train faster than the two one after the other on both cores: a step
# is short, and cores that share one wait for each other many times in it (and the longer, the
# busier
# the machine is otherwise).


_MEMORY_EACH = 2**30


def default_jobs(device: Device) -> int:
    """Networks to train at once: one on a GPU; on a CPU one a core, as far as memory goes."""
    if device.torch_device.type == "cuda":
        return 1
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    cores = min(cores, os.cpu_count() or 1)
    return max(1, min(cores, psutil.virtual_memory().available // _MEMORY_EACH))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Context in which torch uses one thread on the CPU.

    Sums are then taken in one order, so that a network's numbers do not depend on how many are
    trained beside it, nor on how many cores there are.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def side_by_side(tasks: Iterable[Any], jobs: int, cluster: Cluster | None = None) -> Iterator[Any]:
    """Results of joblib's delayed calls as they come in, in any order.

    Args:
        tasks: `joblib.delayed` calls.
        jobs: processes on this machine; a cluster takes all its workers instead.
        cluster: where to run them, rather than here (see `cluster.connect`).
    """
    if cluster is not None:
        yield from cluster.results(tasks)
        return
    with warnings.catch_warnings():
        # Workers kept from lighter work look to joblib as if they leaked memory once they load
        # torch; it replaces them, which is harmless and no news to the reader.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given")
        parallel = Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")
        with told_if_killed(jobs):
            with _ctrl_c_later():
                results = parallel(tasks)
            yield from results


@contextlib.contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Context that Ctrl-C interrupts at its end only, and processes begun in it never.

    A terminal sends Ctrl-C to workers, too. They are to be stopped by this process, rather than
    each with a traceback of its own.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
