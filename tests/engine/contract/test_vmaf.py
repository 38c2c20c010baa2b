"""VMAF by the ffmpeg that is on the PATH: the real one where it has libvmaf, and sentences where it has not."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from stvsr.engine.contract.errors import MediaError, RequestError
from stvsr.engine.contract.vmaf import Vmaf, find_program

from tests.support.comparison import pictures


def put_on_path(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str | None) -> None:
    """Make a shell script the only ffmpeg."""
    if script is not None:
        program = folder / "ffmpeg"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    try:
        find_program()
    except RequestError:
        imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="no ffmpeg with libvmaf (imageio-ffmpeg has one)")
        (tmp_path / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
        monkeypatch.setenv("PATH", str(tmp_path))
        find_program()


@pytest.mark.usefixtures("real")
def test_vmaf_falls_with_the_picture() -> None:
    (frame,) = pictures(1, (135, 241))  # odd sizes, too
    smooth = (frame.astype(np.uint16) + np.roll(frame, 1, 0) + np.roll(frame, 1, 1)) // 3
    same, worse = Vmaf(), Vmaf()
    for _ in range(3):
        same.add(frame, frame)
        worse.add(smooth.astype(np.uint8), frame)
    equal, lower = same.finish(), worse.finish()
    assert len(equal) == len(lower) == 3
    assert min(equal) > 90
    assert max(lower) < min(equal) - 10
    assert Vmaf().finish() == []


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "ffmpeg, which is not on the PATH"),
        ("echo ' ... vmafmotion  V->V'", "built without libvmaf"),
        ("exit 1", "built"),
    ],
)
def test_without_libvmaf_there_is_no_vmaf(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str | None, message: str
) -> None:
    put_on_path(monkeypatch, tmp_path, script)
    with pytest.raises(RequestError, match=message):
        Vmaf()


@pytest.mark.parametrize("size", [(8, 8), (1080, 1920)])
def test_what_ffmpeg_says_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: tuple[int, int]) -> None:
    listing = "[ $2 = -filters ] && echo ' ... libvmaf  VV->V  Calculate' && exit"
    put_on_path(monkeypatch, tmp_path, f"{listing}\necho 'no such model' >&2; exit 3")
    vmaf, frame = Vmaf(), np.zeros((*size, 3), np.uint8)

    def measure() -> None:
        for _ in range(3):  # large frames fill the pipe of a program that has ended
            vmaf.add(frame, frame)
        vmaf.finish()

    with pytest.raises(MediaError, match=r"cannot compute VMAF \(no such model\)"):
        measure()
    assert shutil.which("ffmpeg") == str(tmp_path / "ffmpeg")
