"""A Dask scheduler and workers as processes of their own on loopback."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class LocalCluster:
    """A scheduler and its workers.

    Args:
        address: of the scheduler.
        folder: for what they write.
        scheduler: its process.
        workers: their processes; their log files are `folder`/worker_0.log and so on.
    """

    address: str
    folder: Path
    scheduler: subprocess.Popen
    workers: list[subprocess.Popen] = field(default_factory=list)

    def add_worker(self, *options: str) -> subprocess.Popen:
        """Start one more; without a nanny, which would start a killed one again."""
        command = ["worker", self.address, "--no-nanny", "--no-dashboard", "--host", "127.0.0.1",
                   "--local-directory", str(self.folder)]  # fmt: skip
        options = options or ("--nthreads", "1")
        process = _start([*command, *options], self.folder / f"worker_{len(self.workers)}.log")
        self.workers.append(process)
        return process

    def wait_for(self, workers: int) -> None:
        """Until the scheduler knows so many workers, neither more nor fewer."""
        from distributed import Client

        deadline = time.monotonic() + 60
        with Client(self.address, set_as_default=False) as client:
            while len(client.nthreads()) != workers:
                assert time.monotonic() < deadline, f"not {workers} workers after a minute"
                time.sleep(0.05)


@contextlib.contextmanager
def local_cluster(folder: Path, workers: int = 2) -> Iterator[LocalCluster]:
    """A scheduler on a free port, and workers of one thread each; all are killed at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "scheduler.json"
    scheduler = _start(
        ["scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard",
         "--scheduler-file", str(file)],
        folder / "scheduler.log",
    )  # fmt: skip
    cluster = None
    try:
        deadline = time.monotonic() + 60
        while cluster is None:
            assert scheduler.poll() is None, (folder / "scheduler.log").read_text()
            assert time.monotonic() < deadline, "no scheduler after a minute"
            time.sleep(0.05)
            with contextlib.suppress(OSError, json.JSONDecodeError):
                cluster = LocalCluster(json.loads(file.read_text())["address"], folder, scheduler)
        for _ in range(workers):
            cluster.add_worker()
        cluster.wait_for(workers)
        yield cluster
    finally:
        for process in [scheduler, *(cluster.workers if cluster else [])]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _start(arguments: list[str], log: Path) -> subprocess.Popen:
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments],
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
