"""A cross-validation on a Dask cluster: the numbers of a local run, whatever dies meanwhile."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from labkit.errors import InputError
from labkit.evaluation import crossval
from labkit.io import read_json
from labkit.training import machines
from labkit.training.config import TrainingConfig
from labkit.training.machines import connect, run
from tests.evaluation.test_crossval import finished, start, wait

distributed = pytest.importorskip(
    "distributed", reason='no Dask here: pip install "labkit[cluster]"'
)
CONFIG = TrainingConfig.brief(epochs=5, views=(0, 4, 8), precision="fp32", batch_size=16)
RUN = {"folds": 3, "device": "cpu", "progress": False}


class LocalCluster:
    """A Dask scheduler and workers as processes of their own on loopback; logs in `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.workers = folder, []
        file = folder / "scheduler.json"
        self.scheduler = self._start("scheduler", "--port", "0", "--scheduler-file", file)
        self.address = None

        def is_there() -> bool:
            with contextlib.suppress(OSError, json.JSONDecodeError):
                self.address = json.loads(file.read_text())["address"]
            return self.address is not None

        wait(is_there, self.scheduler)

    def add_worker(self, *options: str) -> subprocess.Popen:
        """Start one more; without a nanny, which would start a killed one again."""
        local = ("--no-nanny", "--local-directory", self.folder)
        options = options or ("--nthreads", "1")
        self.workers.append(self._start("worker", self.address, *local, *options))
        return self.workers[-1]

    def wait_for(self, workers: int) -> None:
        """Until the scheduler knows so many workers, neither more nor fewer."""
        with distributed.Client(self.address, set_as_default=False) as client:
            wait(lambda: len(client.nthreads()) == workers)

    def _start(self, *arguments: object) -> subprocess.Popen:
        with (self.folder / f"{arguments[0]}_{len(self.workers)}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *map(str, arguments), "--host", "127.0.0.1",
                 "--no-dashboard"],
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip


@contextlib.contextmanager
def local_cluster(folder: Path, workers: int = 2):
    """A cluster with so many workers of one thread each; all are killed at the end."""
    cluster = LocalCluster(folder)
    try:
        for _ in range(workers):
            cluster.add_worker()
        cluster.wait_for(workers)
        yield cluster
    finally:
        for process in (cluster.scheduler, *cluster.workers):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def local(discs, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "local"
    return out, crossval.run(discs, CONFIG, out, jobs=1, **RUN)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with local_cluster(tmp_path_factory.mktemp("dask")) as started:
        yield started


def _same_networks(out, other):
    """Whether every network learnt the same, epoch by epoch, to the last bit."""
    names = {file.name for file in finished(out)}
    assert names == {file.name for file in finished(other)}
    for name in names:
        one, two = (read_json(folder / "units" / name, "a network") for folder in (out, other))
        assert {**one, "seconds": 0} == {**two, "seconds": 0}, name


def test_a_worker_killed_midway_costs_nothing_but_time(discs, local, cluster, tmp_path):
    local_out, expected = local
    out = tmp_path / "run"
    killed_at = []

    def kill() -> None:
        # Both are training, one of them for the second time or more.
        wait(lambda: len(finished(out)) >= 2 and len(list(out.glob("live/*"))) == 2)
        cluster.workers[0].kill()
        killed_at.append(len(finished(out)))

    killer = threading.Thread(target=kill)
    killer.start()
    predictions = crossval.run(discs, CONFIG, out, scheduler=cluster.address, **RUN)
    killer.join()
    cluster.add_worker()
    cluster.wait_for(2)
    assert 2 <= killed_at[0] < 9
    pd.testing.assert_frame_equal(predictions, expected, check_exact=True)
    _same_networks(out, local_out)
    assert not list(out.rglob(".seen-*"))
    assert read_json(out / "run.json", "a run")["hardware"]["workers"] == 2


def test_ctrl_c_leaves_the_cluster_usable_and_the_same_command_goes_on(
    discs, local, cluster, tmp_path
):
    local_out, expected = local
    out = tmp_path / "run"
    process = start(CONFIG, discs.folder, "--scheduler", cluster.address, "--out", out)
    wait(lambda: len(finished(out)) >= 1, process)
    os.killpg(process.pid, signal.SIGINT)
    announced, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said, said
    assert re.search(r"stopped; \d of 9 networks are done and kept in .*; the same command", said)
    assert re.search(r"9 networks to train, by 2 workers; at most .* \(timed on one", announced)
    predictions = crossval.run(discs, CONFIG, out, scheduler=cluster.address, **RUN)
    pd.testing.assert_frame_equal(predictions, expected, check_exact=True)
    _same_networks(out, local_out)


def test_results_come_in_as_they_finish_and_errors_are_raised_here(cluster):
    with connect(cluster.address) as there:
        # Not the order at the end: a short task may have been queued behind the long one.
        assert next(run(_sleep, [(3.0,), (0.0,), (0.01,), (0.02,)], 1, there)) < 3.0
        with pytest.raises(ZeroDivisionError):
            list(run(divmod, [(1, 0)], 1, there))


def test_folders_that_are_not_shared_are_noticed(cluster, tmp_path, monkeypatch):
    file, out = tmp_path / "cohort.json", tmp_path / "run"
    file.write_text("{}")
    out.mkdir()
    with connect(cluster.address) as there:
        there.check_folders([file], out)
        assert not list(out.iterdir())
        with monkeypatch.context() as patch:
            # As a worker's machine would have it that holds other files by these names, ...
            patch.setattr(machines, "sha256", lambda file: "another")
            with pytest.raises(InputError, match=r"worker tcp://.*cohort\.json is not there as"):
                there.check_folders([file], out)
        # ... and a machine that writes into a folder of its own.
        monkeypatch.setattr(machines, "_see", lambda sums, out: ".seen-elsewhere")
        with pytest.raises(InputError, match="what worker tcp://.* writes there is not seen here"):
            there.check_folders([file], out)


def test_workers_with_other_versions_or_without_the_device_are_refused(cluster, monkeypatch):
    with connect(cluster.address) as there:
        hardware, on_gpu = there.hardware("cpu", "fp32")
        assert hardware["device"].endswith("fp32") and not on_gpu
        with pytest.raises(InputError, match=r"worker tcp://.*: .*labkit trains on cpu or cuda"):
            there.hardware("mps", "fp32")
        monkeypatch.setattr(machines, "__version__", "9.9")
        with pytest.raises(InputError, match=r"worker tcp://.*: labkit is .* there and 9\.9 here"):
            there.hardware("cpu", "fp32")


@pytest.mark.parametrize(
    ("address", "reason"),
    [("node7", "missing port"), ("127.0.0.1:1", ""), ("tcp://nowhere.invalid:1", "")],
)
def test_no_scheduler_there(address, reason):
    with pytest.raises(InputError, match=f"no scheduler at {address} .*{reason}.*dask scheduler"), \
            connect(address):  # fmt: skip
        pass


def test_what_excludes_a_scheduler_is_said(discs, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="leave it out"):
        crossval.run(discs, CONFIG, tmp_path / "r", jobs=2, scheduler="tcp://127.0.0.1:1")
    assert not (tmp_path / "r").exists()
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r'pip install "labkit\[cluster\]"'), connect("a:1"):
        pass


def test_a_cluster_that_cannot_work_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(machines, "_SECONDS_FOR_A_WORKER", 0.1)
    # One death is enough to give a task up, rather than Dask's four.
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")

    def told(words, function=None, *tasks):
        with pytest.raises(InputError, match=words), connect(lame.address) as there:
            list(run(function, tasks, 1, there))

    with local_cluster(tmp_path / "dask", workers=0) as lame:
        told("has no workers; start some with `dask worker")
        monkeypatch.setattr(machines, "_SECONDS_FOR_A_WORKER", 60)
        two_at_once = lame.add_worker("--nthreads", "2")
        told("runs 2 tasks at once .*--nthreads 1")
        two_at_once.kill()
        lame.wait_for(0)
        lame.add_worker()
        told("1 workers died at the same task", _die, ())
        lame.wait_for(0)
        lame.add_worker()
        lame.wait_for(1)
        threading.Timer(2.0, lame.scheduler.kill).start()
        told(r"the scheduler at .* is gone", _sleep, (30,))


def _sleep(seconds):
    time.sleep(seconds)
    return seconds


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_lost_network_on_a_cluster_is_named(discs, cluster, tmp_path):
    wild = TrainingConfig.brief(learning_rate=1e30, views=(0,), batch_size=4)
    with pytest.raises(FloatingPointError, match=r"2 of 2 networks were lost: .* batch 2 of"):
        crossval.run(discs, wild, tmp_path / "r", scheduler=cluster.address, **{**RUN, "folds": 2})
