"""The number of threads follows the affinity of the process, and the quotas of the control groups that it is in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from stvsr.cli.terminal import training_extra
from stvsr.engine.backends.onnxruntime import OrtSession
from stvsr.engine.contract import cpus
from stvsr.engine.contract.cpus import codec_threads, cpu_quota, cpu_threads
from stvsr.engine.media.encoder import within_quota
from stvsr.engine.media.reader import open_reader

from tests.support.media import SAMPLE
from tests.support.toy import write_toy

UNIFIED = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
ONE_MOUNT = "33 32 0:30 {root} /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct"
CPUSET = "34 32 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the root of a machine of 64 CPUs without control groups."""
    (tmp_path / "proc/self").mkdir(parents=True)
    monkeypatch.setattr(cpus, "_ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    return tmp_path


def describe(root: Path, groups: str, *mounts: str, files: dict[str, str]) -> None:
    """Write what the system says about the groups of a process, and their files."""
    (root / "proc/self/cgroup").write_text(groups)
    (root / "proc/self/mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda rw\n" + "\n".join(mounts) + "\n")
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_without_control_groups_the_affinity_counts(machine: Path) -> None:
    assert (cpu_quota(), cpu_threads(), codec_threads()) == (None, 64, 0)


@pytest.mark.parametrize(
    ("quota", "threads"),
    [("200000 100000", 2), ("max 100000", 64), ("150000 100000", 2), ("120000 100000", 1), ("10000 100000", 1)],
)
def test_a_container_of_version_2_states_its_quota(machine: Path, quota: str, threads: int) -> None:
    describe(machine, "0::/\n", UNIFIED, files={"cpu.max": quota + "\n"})
    assert cpu_threads() == threads
    assert codec_threads() == (threads if threads < 64 else 0)


def test_the_smallest_quota_of_the_groups_above_counts(machine: Path) -> None:
    files = {
        "user.slice/cpu.max": "300000 100000",
        "user.slice/a b.scope/cpu.max": "max 100000",
        "other/cpu.max": "1 1",
    }
    describe(machine, "0::/user.slice/a b.scope\n", UNIFIED, files=files)
    assert cpu_quota() == 3


@pytest.mark.parametrize(
    ("root", "path", "folder"),
    [
        ("/", "/docker/123", "docker/123"),
        ("/docker/123", "/docker/123", "."),  # a container whose own group is mounted as the root
        ("/", "/../..", "."),  # a group outside of what the process sees
        ("/docker", "/elsewhere", "."),
    ],
)
def test_version_1_states_the_quota_of_the_group_of_processor_time(
    machine: Path, root: str, path: str, folder: str
) -> None:
    files = {
        f"cpu,cpuacct/{folder}/cpu.cfs_quota_us": "400000\n",
        f"cpu,cpuacct/{folder}/cpu.cfs_period_us": "100000\n",
    }
    describe(machine, f"4:cpuset:/\n3:cpu,cpuacct:{path}\n0::/\n", CPUSET, ONE_MOUNT.format(root=root), files=files)
    assert cpu_threads() == 4
    (machine / "sys/fs/cgroup/cpu,cpuacct" / folder / "cpu.cfs_quota_us").write_text("-1\n")
    assert cpu_quota() is None


@pytest.mark.parametrize("content", ["", "many", "0 0", "200000", "-5 100000"])
def test_files_that_make_no_sense_are_no_quota(machine: Path, content: str) -> None:
    describe(machine, "0::/\n", UNIFIED, "short", files={"cpu.max": content})
    assert cpu_quota() is None


def test_networks_and_codecs_start_no_more_threads(machine: Path) -> None:
    describe(machine, "0::/\n", UNIFIED, files={"cpu.max": "200000 100000"})
    with OrtSession(write_toy(machine / "toy") / "encoder.onnx") as session:
        options = session._session.get_session_options()
    assert options.intra_op_num_threads == 2
    assert within_quota("libx264", {"crf": "16"}) == {"threads": "2", "crf": "16"}
    assert within_quota("libx264", {"threads": "8"}) == {"threads": "8"}
    assert within_quota("libx265", {"x265-params": "log-level=error"}) == {"x265-params": "pools=2:log-level=error"}
    with open_reader(SAMPLE) as reader:
        next(iter(reader))
        assert reader._container.streams.video[0].codec_context.thread_count == 2  # type: ignore[attr-defined]


def test_pytorch_starts_no_more_threads(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    describe(machine, "0::/\n", UNIFIED, files={"cpu.max": "200000 100000"})
    with training_extra():
        assert os.environ["OMP_NUM_THREADS"] == "5", "the user's number stays"
    del os.environ["OMP_NUM_THREADS"]
    with training_extra():
        assert os.environ["OMP_NUM_THREADS"] == "2"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_bound_to_one_cpu_has_one_thread() -> None:
    bind = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    count = f"{bind}; from stvsr.engine.contract.cpus import cpu_threads; print(cpu_threads())"
    assert subprocess.check_output([sys.executable, "-c", count], text=True) == "1\n"
