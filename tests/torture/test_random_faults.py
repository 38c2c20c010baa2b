"""Faults at random moments of a run: the folder then holds the whole output, or nothing but what was there.

STVSR_FAULTS is the number of runs, STVSR_TORTURE_SEED the first seed.
"""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.media import packets_of
from tests.torture.clips import write_clip, write_shared

pytestmark = pytest.mark.long

SEED = int(os.environ.get("STVSR_TORTURE_SEED", "1"))
RUNS = int(os.environ.get("STVSR_FAULTS", "30"))
FRAMES = 60
LONGEST_S = 3.0  # until the fault; a run takes about one and a half


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_shared(tmp_path_factory.mktemp("faults"))
    write_clip(folder / "clip.mp4", size=(64, 48), count=FRAMES)
    return folder


class Faulted:
    """A run in a folder of its own, which a fault meets."""

    def __init__(self, folder: Path, shared: Path, resume: bool) -> None:
        self.folder, self.out = folder, folder / "out"
        self.out.mkdir()
        (self.out / "precious.txt").write_text("mine")
        words = ["upscale", shared / "clip.mp4", "-o", self.out / "out.mp4", "-m", shared / "toy", "-s", "2"]
        words += ["--threads", "1", *(["--resume"] if resume else [])]
        self.command = [sys.executable, "-m", "stvsr", *map(str, words)]
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        stderr = open(self.folder / "stderr", "wb")  # noqa: SIM115 - of the process
        return subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True)

    def signal(self, number: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)
        time.sleep(0.3)
        self.signal(signal.SIGCONT)

    def limit_files(self) -> None:
        """Let no file grow any more, as on a full disk."""
        if self.process.poll() is None:
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (2000, 2000))

    def remove_folder(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)

    def lock_folder(self) -> None:
        self.out.chmod(0o555)

    def remove_unfinished(self) -> None:
        for path in self.out.iterdir():
            if ".part" in path.name:
                path.unlink(missing_ok=True)


FAULTS: dict[str, Callable[[Faulted], object]] = {
    "kill": lambda run: run.signal(signal.SIGKILL),
    "terminate": lambda run: run.signal(signal.SIGTERM),
    "interrupt": lambda run: run.signal(signal.SIGINT),
    "hang up": lambda run: run.signal(signal.SIGHUP),
    "pause": Faulted.pause,
    "limit the size of files": Faulted.limit_files,
    "remove the folder": Faulted.remove_folder,
    "lock the folder": Faulted.lock_folder,
    "remove the unfinished file": Faulted.remove_unfinished,
}


def check(run: Faulted, fault: str) -> bool:
    """Check what a run has left; return whether the output is there."""
    text = (run.folder / "stderr").read_text()
    assert "Traceback" not in text, text
    if fault == "remove the folder" and not (run.out / "precious.txt").exists():
        shutil.rmtree(run.out, ignore_errors=True)  # an output that was finished later is in a folder of nobody
        return False
    assert (run.out / "precious.txt").read_text() == "mine"
    done = (run.out / "out.mp4").exists()
    if done:
        assert len(packets_of(run.out / "out.mp4", "video")[0]) == 2 * FRAMES
    if run.process.returncode not in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP):
        others = {path.name for path in run.out.iterdir()} - {"precious.txt", "out.mp4", ".out.mp4.stvsr"}
        assert not others, (others, text)
        assert done == (run.process.returncode == 0), text
    return done


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEED, SEED + RUNS))
def test_a_fault_leaves_the_whole_output_or_nothing(seed: int, tmp_path: Path, shared: Path) -> None:
    rng = random.Random(seed)
    fault, resume = rng.choice(sorted(FAULTS)), rng.random() < 0.3
    run = Faulted(tmp_path, shared, resume)
    time.sleep(rng.uniform(0.0, LONGEST_S))
    FAULTS[fault](run)
    run.process.wait(120)
    run.out.chmod(0o755) if run.out.exists() else None
    if check(run, fault) or not run.out.exists():
        return
    run.process = run.start()  # the next run in the folder ends well, and sweeps what is left
    assert run.process.wait(120) == 0
    assert check(run, "nothing")
    assert {path.name for path in run.out.iterdir()} == {"precious.txt", "out.mp4"}
