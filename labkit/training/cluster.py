"""Networks on many machines: a Dask cluster whose workers train them, one at a time each.

Workers read the cohort and write the run themselves, in folders that all machines share; what
travels is which nodules to train on. What is checked here before anything is sent would else be
noticed after hours, or in the results.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import logging
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel

from labkit import __version__
from labkit.errors import InputError
from labkit.training.device import Device
from labkit.training.hardware import describe_hardware

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
