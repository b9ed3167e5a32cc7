"""Many small networks: a process and a core for each, on this machine or on many.

Two networks on one core each train faster than the two one after the other on both cores: a step
is short, and cores that share one wait for each other many times in it (and the longer, the busier
the machine is otherwise).
"""

from __future__ import annotations

import contextlib
import os
import signal
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import psutil
import torch
from joblib import Parallel

from labkit._killed import told_if_killed
from labkit.training.device import Device

if TYPE_CHECKING:
    from labkit.training.cluster import Cluster

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
