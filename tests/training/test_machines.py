"""A job takes the cores and the memory that it was given, not those of the machine."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from labkit import io, paths
from labkit.training import machines
from labkit.training.machines import Device, default_jobs

GIB = 2**30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """64 cores of which all are free, 256 GiB of which 200 are; call it to make control groups."""
    for name in paths._CORES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(machines.psutil, "cpu_count", lambda logical=True: 64)
    there = SimpleNamespace(total=256 * GIB, available=200 * GIB)
    monkeypatch.setattr(io.psutil, "virtual_memory", lambda: there)
    monkeypatch.setattr(io, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(io, "_OWN_CGROUPS", tmp_path / "own")

    def groups(own, files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            file = tmp_path / "cgroup" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    return groups


def jobs():
    return default_jobs(Device.choose("cpu", "fp32"))


def test_without_limits_it_is_the_machine(machine):
    assert (io.available_cores(), io.memory(), jobs()) == (64, (256 * GIB, 200 * GIB), 64)
    machine("0::/\n", {"cpu.max": "max 100000", "memory.max": "max"})
    assert (io.available_cores(), io.memory()) == (64, (256 * GIB, 200 * GIB))


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "400000 100000"}, 4),
        ("0::/\n", {"cpu.max": "250000 100000"}, 3),
        ("0::/\n", {"cpu.max": "10000 100000"}, 1),
        # The job's own group has no quota, the one around it has.
        ("0::/slurm/job_7/step\n", {"slurm/job_7/cpu.max": "800000 100000",
                                    "slurm/job_7/step/cpu.max": "max 100000"}, 8),
        ("4:cpu,cpuacct:/docker/1f\n0::/\n", {"cpu/cpu.cfs_quota_us": "200000",
                                              "cpu/cpu.cfs_period_us": "100000"}, 2),
        ("4:cpu:/jobs/7\n", {"cpu/jobs/7/cpu.cfs_quota_us": "600000\n",
                             "cpu/jobs/7/cpu.cfs_period_us": "100000\n",
                             "cpu/cpu.cfs_quota_us": "-1\n"}, 6),
        ("4:memory:/jobs/7\n", {"cpu/cpu.cfs_quota_us": "100000"}, 64),
    ],
)  # fmt: skip
def test_quotas_of_control_groups_count(machine, own, files, cores):
    machine(own, files)
    assert io.available_cores() == jobs() == cores


@pytest.mark.parametrize(
    ("name", "value", "cores"),
    [("SLURM_CPUS_PER_TASK", "3", 3), ("SLURM_CPUS_ON_NODE", "16", 16), ("NSLOTS", "5", 5),
     ("SLURM_JOB_CPUS_PER_NODE", "16(x2)", 16),
     ("SLURM_CPUS_PER_TASK", "", 64), ("NCPUS", "many", 64), ("NCPUS", "128", 64)],
)  # fmt: skip
def test_a_scheduler_is_believed(machine, monkeypatch, name, value, cores):
    monkeypatch.setenv(name, value)
    assert io.available_cores() == jobs() == cores


@pytest.mark.parametrize(
    ("own", "files", "total", "free"),
    [
        ("0::/\n", {"memory.max": str(8 * GIB), "memory.current": str(3 * GIB),
                    "memory.stat": f"anon 1\ninactive_file {GIB}\nslab 5"}, 8, 6),
        ("0::/job/step\n", {"job/memory.max": str(4 * GIB), "job/memory.current": "0",
                            "job/step/memory.max": "max"}, 4, 4),
        ("0::/\n", {"memory.max": str(8 * GIB), "memory.high": str(6 * GIB)}, 6, 6),
        ("9:memory:/docker/1f\n", {"memory/memory.limit_in_bytes": str(16 * GIB),
                                   "memory/memory.usage_in_bytes": str(15 * GIB),
                                   "memory/memory.stat": f"total_inactive_file {2 * GIB}"},
         16, 3),
        ("9:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, 256, 200),
    ],
)  # fmt: skip
def test_memory_is_that_of_the_smallest_group(machine, own, files, total, free):
    machine(own, files)
    assert io.memory() == (total * GIB, free * GIB)
    assert jobs() == min(64, free)
    assert io.jobs_by_memory(2 * GIB) == min(64, free // 2)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux")
def test_a_process_bound_to_one_core_takes_one():
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from labkit.training.machines import Device, default_jobs\n"
        "chosen = Device.choose('cpu', 'fp32')\n"
        "assert default_jobs(chosen) == 1 and 'CPU, 1 cores' in chosen.description\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is no signal there")
def test_ctrl_c_is_for_the_process_that_was_started_and_not_for_its_workers():
    script = (
        "import signal; from labkit.training import machines\n"
        "blocked = lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [])\n"
        "print(*machines.run(blocked, [(), ()], 2))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout.count("SIGINT") == 2, run
