"""VMAF, by the program `ffmpeg` of this machine, if it was built with libvmaf."""

import json
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .cpus import cpu_threads
from .errors import MediaError, RequestError

_REMEDY = "put an ffmpeg with libvmaf on the PATH, or leave out vmaf"
_TRIAL_S = 60


class Vmaf:
    """Measures frames by VMAF's default model, which expects a video of 1080 rows on a large screen: 0 to 100.

    Frames go to FFmpeg through a pipe, one above the other, and become BT.709 video. Raises RequestError if FFmpeg
    lacks libvmaf, MediaError if it fails.
    """

    def __init__(self) -> None:
        self._program = find_program()
        self._folder = tempfile.TemporaryDirectory(prefix="stvsr-vmaf-")  # deleted with this object
        self._process: subprocess.Popen[bytes] | None = None

    def add(self, actual: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
        """Take a frame of each video, (H, W, 3) RGB."""
        if self._process is None:
            self._process = self._start(actual.shape[1], actual.shape[0])
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(actual.tobytes() + expected.tobytes())
        except OSError as error:
            raise self._failed() from error

    def finish(self) -> list[float]:
        """Return the VMAF of every frame, and delete what FFmpeg has written."""
        if self._process is None:
            return []
        with self._folder:
            try:
                self._process.communicate()
                frames = json.loads(self._path("vmaf.json").read_bytes())["frames"]
                return [float(frame["metrics"]["vmaf"]) for frame in frames]
            except (OSError, ValueError, KeyError) as error:
                raise self._failed() from error

    def _start(self, width: int, height: int) -> "subprocess.Popen[bytes]":
        video = "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"
        graph = (
            f"split[x][y];[x]crop={width}:{height}:0:0,{video}[a];[y]crop={width}:{height}:0:{height},{video}[b];"
            f"[a][b]libvmaf=n_threads={cpu_threads()}:log_fmt=json:log_path=vmaf.json"
        )
        words = f"-hide_banner -loglevel error -f rawvideo -pix_fmt rgb24 -s {width}x{2 * height} -i pipe:0".split()
        with self._path("errors.txt").open("wb") as errors:
            return subprocess.Popen(
                [self._program, *words, "-filter_complex", graph, "-f", "null", "-"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd=self._folder.name,  # so that the name of the log needs no escapes
            )

    def _failed(self) -> MediaError:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        lines = self._path("errors.txt").read_text(errors="replace").split("\n")
        reason = next((line.strip() for line in lines if line.strip()), f"it ended with {self._process.returncode}")
        return MediaError(f"{self._program} cannot compute VMAF ({reason}): {_REMEDY}.")

    def _path(self, name: str) -> Path:
        return Path(self._folder.name, name)


def find_program() -> str:
    """Return the path of an ffmpeg with libvmaf. Raises RequestError if there is none on the PATH."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise RequestError(f"VMAF is computed by the program ffmpeg, which is not on the PATH: {_REMEDY}.")
    if not _has_vmaf(program):
        raise RequestError(f"{program} was built without libvmaf, which computes VMAF: {_REMEDY}.")
    return program


@cache
def _has_vmaf(program: str) -> bool:
    try:
        done = subprocess.run(
            [program, "-hide_banner", "-filters"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TRIAL_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return re.search(r"^\s*\S+\s+libvmaf\s", done.stdout, re.MULTILINE) is not None
