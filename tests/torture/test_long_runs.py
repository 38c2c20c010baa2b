"""Long runs, and many runs in one process, gain no memory, descriptor or thread.

STVSR_LONG_FRAMES=20000 gives the number of frames of the smallest clip, STVSR_LONG_LARGE=2000 that of 640x360 with the
shipped network.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture.clips import write_clip, write_shared

pytestmark = pytest.mark.long

PROGRAM = Path(__file__).with_name("program.py")


def run_check(name: str, folder: Path, **environment: str) -> str:
    shared, out = write_shared(folder / "shared"), folder / "out"
    out.mkdir()
    words = [sys.executable, str(PROGRAM), name, str(shared / "toy"), str(shared), str(out)]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_run(tmp_path: Path) -> None:
    count = int(os.environ.get("STVSR_LONG_FRAMES", "3000"))
    clip = write_clip(tmp_path / "clip.mp4", options={"preset": "ultrafast"}, count=count)
    print(run_check("long", tmp_path, STVSR_LONG=str(clip)))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_shipped_network(tmp_path: Path) -> None:
    count = int(os.environ.get("STVSR_LONG_LARGE", "40"))
    clip = write_clip(tmp_path / "clip.mp4", options={"preset": "ultrafast"}, size=(640, 360), count=count)
    print(run_check("long", tmp_path, STVSR_LONG=str(clip), STVSR_MODEL="fourier-s"))


@pytest.mark.slow
def test_a_hundred_runs_in_one_process_gain_nothing(tmp_path: Path) -> None:
    print(run_check("hundred", tmp_path))
