"""A want of memory is told as such, also where a library calls it damage."""

import errno
import subprocess
import sys
from pathlib import Path

import av
import pytest
from stvsr import Backend, UpscaleRequest, upscale
from stvsr.engine.contract.errors import MediaError
from stvsr.engine.contract.shortage import is_memory_short
from stvsr.engine.media.opening import open_video
from stvsr.engine.media.probe import probe

from tests.support.paths import SAMPLE

_FREED = """
import resource
from pathlib import Path
from stvsr.engine.contract.shortage import is_memory_short, was_memory_short

assert not was_memory_short(), "without a limit"
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (512 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
assert not was_memory_short()
held = []
try:
    while True:
        held.append(bytearray(8 << 20))
except MemoryError:
    held.clear()
assert not is_memory_short()
assert was_memory_short()
"""

_LIMITED = """
import resource
from pathlib import Path
from stvsr.engine.contract.shortage import is_memory_short

assert not is_memory_short()
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (32 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
assert is_memory_short()
"""


def test_a_file_that_is_not_read_for_want_of_memory_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\x00\x00\x00\x10ftypisom" + bytes(100))
    with pytest.raises(MediaError, match="its index cannot be read"):
        open_video(path)
    monkeypatch.setattr("stvsr.engine.media.opening.is_memory_short", lambda: True)
    with pytest.raises(MemoryError):
        open_video(path)
    with pytest.raises(MediaError, match="does not exist"):
        open_video(tmp_path / "none.mp4")


def test_threads_of_a_decoder_that_cannot_start_are_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    class Decoder:
        def decode(self, packet: object) -> None:
            raise av.error.BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("stvsr.engine.media.probe.decoder_of", lambda *arguments: (Decoder(), None))
    with pytest.raises(MediaError, match=r"cannot be decoded\. No more threads can be started"):
        probe(SAMPLE)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are those of Linux")
def test_memory_is_short_where_64_mib_cannot_be_had() -> None:
    assert not is_memory_short()
    done = subprocess.run([sys.executable, "-c", _LIMITED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are those of Linux")
def test_memory_was_short_after_all_of_it_was_used_and_freed() -> None:
    done = subprocess.run([sys.executable, "-c", _FREED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_run_does_not_begin_where_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy and codecs may crash for want of memory, and then leave a part of the output."""
    monkeypatch.setattr("stvsr.engine.pipeline.run.is_memory_short", lambda: True)
    request = UpscaleRequest(input=SAMPLE, output=tmp_path / "out.mp4", model="edvr-s", backend=Backend(device="cpu"))
    with pytest.raises(MemoryError):
        upscale(request)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are those of Linux")
@pytest.mark.parametrize("mb", [220, 300, 400, 500, 550])
def test_a_run_that_lacks_memory_says_so(mb: int, tmp_path: Path) -> None:
    """Whatever it was that could not be had: a library, a decoder's frames, an encoder, or the network's memory."""
    words = [sys.executable, "-m", "stvsr", "upscale", str(SAMPLE), "-m", "edvr-s", "--frames", "3", "-o", "out.mp4"]
    limited = ["bash", "-c", f'ulimit -v {mb * 1000}; exec "$@"', "limited", *words]
    done = subprocess.run(limited, capture_output=True, text=True, cwd=tmp_path)
    if done.returncode:
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "memory" in done.stderr.lower() or "thread" in done.stderr.lower()
    assert (tmp_path / "out.mp4").exists() == (done.returncode == 0)
