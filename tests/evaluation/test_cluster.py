"""A cross-validation on a Dask cluster: the numbers of a local run, whatever dies meanwhile."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest
from joblib import delayed

from labkit.errors import InputError
from labkit.evaluation import crossval
from labkit.io import read_json
from labkit.training import machines as cluster_module
from labkit.training.config import TrainingConfig
from labkit.training.machines import connect, side_by_side
from tests.dask_cluster import local_cluster

pytest.importorskip("distributed", reason='no Dask here: pip install "labkit[cluster]"')

CONFIG = TrainingConfig.brief(epochs=5, views=(0, 4, 8), precision="fp32", batch_size=16)
RUN = {"folds": 3, "device": "cpu", "progress": False}
NETWORKS = 9


@pytest.fixture(scope="module")
def local(discs, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "local"
    return out, crossval.run(discs, CONFIG, out, jobs=1, **RUN)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with local_cluster(tmp_path_factory.mktemp("dask"), workers=2) as started:
        yield started


def _finished(out):
    return {f.name for f in out.glob("units/repeat*.json")}


def _wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.01)


def _same_networks(out, other):
    """Whether every network learnt the same, epoch by epoch, to the last bit."""
    for file in _finished(out) | _finished(other):
        one, two = (read_json(folder / "units" / file, "a unit") for folder in (out, other))
        for values in (one, two):
            del values["seconds"]
        assert one == two, file


def test_a_worker_killed_midway_costs_nothing_but_time(discs, local, cluster, tmp_path):
    local_out, expected = local
    out = tmp_path / "run"
    killed_at = []

    def kill() -> None:
        # Both are training, one of them for the second time or more.
        _wait_for(lambda: len(_finished(out)) >= 2 and len(list(out.glob("live/*"))) == 2)
        cluster.workers[0].kill()
        killed_at.append(len(_finished(out)))

    killer = threading.Thread(target=kill)
    killer.start()
    predictions = crossval.run(discs, CONFIG, out, scheduler=cluster.address, **RUN)
    killer.join()
    cluster.add_worker()
    cluster.wait_for(2)
    assert 2 <= killed_at[0] < NETWORKS
    pd.testing.assert_frame_equal(predictions, expected, check_exact=True)
    _same_networks(out, local_out)
    assert not list(out.rglob(".seen-*"))
    assert read_json(out / "run.json", "a run")["hardware"]["workers"] == 2


def test_ctrl_c_leaves_the_cluster_usable_and_the_same_command_goes_on(
    discs, local, cluster, tmp_path
):
    local_out, expected = local
    out = tmp_path / "run"
    script = (
        "import sys\n"
        "from labkit import cli\n"
        "from tests.evaluation.test_cluster import CONFIG\n"
        "cli._config = lambda *_: CONFIG\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    options = ["--folds", "3", "--device", "cpu", "--scheduler", cluster.address]
    process = subprocess.Popen(
        [sys.executable, "-c", script, "crossval", discs.folder, *options, "--out", out],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    _wait_for(lambda: len(_finished(out)) >= 1 or process.poll() is not None)
    os.killpg(process.pid, signal.SIGINT)
    announced, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said, said
    assert re.search(r"stopped; \d of 9 networks are done and kept in .*; the same command", said)
    assert re.search(r"9 networks to train, by 2 workers; at most .* \(timed on one", announced)
    predictions = crossval.run(discs, CONFIG, out, scheduler=cluster.address, **RUN)
    pd.testing.assert_frame_equal(predictions, expected, check_exact=True)
    _same_networks(out, local_out)


def test_a_lost_network_on_a_cluster_is_named(discs, cluster, tmp_path):
    wild = TrainingConfig.brief(learning_rate=1e30, views=(0,), batch_size=4)
    with pytest.raises(FloatingPointError, match=r"2 of 2 networks were lost: .* batch 2 of"):
        crossval.run(discs, wild, tmp_path / "r", scheduler=cluster.address, **{**RUN, "folds": 2})


def test_results_come_in_as_they_finish(cluster):
    with connect(cluster.address) as there:
        tasks = [delayed(_sleep)(s) for s in (3.0, 0.0, 0.01, 0.02)]
        # Not the order at the end: a short task may have been queued behind the long one.
        assert next(side_by_side(tasks, 1, there)) < 3.0


def test_what_a_task_raises_is_raised_here(cluster):
    with connect(cluster.address) as there, pytest.raises(ZeroDivisionError):
        list(side_by_side([delayed(divmod)(1, 0)], 1, there))


def test_folders_that_are_not_shared_are_noticed(cluster, tmp_path, monkeypatch):
    file, out = tmp_path / "cohort.json", tmp_path / "run"
    file.write_text("{}")
    out.mkdir()
    with connect(cluster.address) as there:
        there.check_folders([file], out)
        assert not list(out.iterdir())
        with monkeypatch.context() as patch:
            # As a worker's machine would have it that holds other files by these names, ...
            patch.setattr(cluster_module, "_sum", lambda file: "another")
            with pytest.raises(InputError, match=r"worker tcp://.*cohort\.json is not there as"):
                there.check_folders([file], out)
        # ... and a machine that writes into a folder of its own.
        monkeypatch.setattr(cluster_module, "_see", lambda sums, out: ".seen-elsewhere")
        with pytest.raises(InputError, match="what worker tcp://.* writes there is not seen here"):
            there.check_folders([file], out)


def test_workers_with_other_versions_are_refused(cluster, monkeypatch):
    monkeypatch.setattr(cluster_module, "__version__", "9.9")
    with (
        pytest.raises(InputError, match=r"worker tcp://.*: labkit is .* there and 9\.9 here"),
        connect(cluster.address),
    ):
        pass


def test_a_device_that_workers_lack_is_refused(cluster):
    with connect(cluster.address) as there:
        hardware, on_gpu = there.hardware("cpu", "fp32")
        assert hardware["device"].endswith("fp32") and not on_gpu
        with pytest.raises(InputError, match=r"worker tcp://.*: .*labkit trains on cpu or cuda"):
            there.hardware("mps", "fp32")


def test_jobs_and_a_scheduler_exclude_each_other(discs, tmp_path):
    with pytest.raises(InputError, match="leave it out"):
        crossval.run(discs, CONFIG, tmp_path / "r", jobs=2, scheduler="tcp://127.0.0.1:1")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("address", "reason"),
    [("node7", "missing port"), ("127.0.0.1:1", ""), ("tcp://nowhere.invalid:1", "")],
)
def test_no_scheduler_there(address, reason):
    with pytest.raises(InputError, match=f"no scheduler at {address} .*{reason}.*dask scheduler"), \
            connect(address):  # fmt: skip
        pass


def test_without_dask_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r'pip install "labkit\[cluster\]"'), connect("a:1"):
        pass


def test_a_cluster_that_cannot_work_says_why(discs, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "_SECONDS_FOR_A_WORKER", 0.1)
    # One death is enough to give a task up, rather than Dask's four.
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")
    with local_cluster(tmp_path / "dask", workers=0) as lame:
        with pytest.raises(InputError, match="has no workers; start some with `dask worker"), \
                connect(lame.address):  # fmt: skip
            pass
        monkeypatch.setattr(cluster_module, "_SECONDS_FOR_A_WORKER", 60)
        two_at_once = lame.add_worker("--nthreads", "2")
        with pytest.raises(InputError, match="runs 2 tasks at once .*--nthreads 1"), \
                connect(lame.address):  # fmt: skip
            pass
        two_at_once.kill()
        lame.wait_for(0)
        lame.add_worker()
        with pytest.raises(InputError, match="1 workers died at the same task"), \
                connect(lame.address) as there:  # fmt: skip
            list(side_by_side([delayed(_die)()], 1, there))
        lame.wait_for(0)
        lame.add_worker()
        with connect(lame.address) as there, \
                pytest.raises(InputError, match=r"the scheduler at .* is gone"):  # fmt: skip
            list(side_by_side(_tasks_that_end_it(lame), 1, there))


def _tasks_that_end_it(lame):
    threading.Timer(0.5, lame.scheduler.kill).start()
    yield delayed(_sleep)(30)


def _sleep(seconds):
    time.sleep(seconds)
    return seconds


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def test_tasks_in_one_process_take_turns(monkeypatch):
    at_once, most = [], []

    def train_units(name):
        at_once.append(name)
        time.sleep(0.02)
        most.append(len(at_once))
        at_once.remove(name)
        yield name

    monkeypatch.setattr(crossval, "train_units", train_units)
    threads = [threading.Thread(target=crossval.all_trained, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]
