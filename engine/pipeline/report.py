"""Progress and report of a run."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Progress:
    """Progress of a run."""

    frames_in: int  # input frames whose outputs are all computed
    frames_out: int  # frames written
    total_in: int | None  # None: the container does not state it
    seconds: float
    cuts: Sequence[Fraction] = ()  # timestamps of the first frames of new scenes that were found so far


@dataclass(frozen=True)
class Report:
    """Result of a run: files, frames, times and warnings."""

    input: str
    output: str
    bundle: str  # its name; both names of a chain, with a + between
    fingerprint: str  # the sha256 of the bundle's manifest
    device: str  # "cpu", "cuda:N" or the address of a server
    backend: str  # "ort", "tensorrt" or "remote"
    precision: str  # "fp32", "tf32" or "fp16"; several of a chain, with a + between
    preset: str  # "fast", "balanced" or "best"
    frames_in: int
    frames_out: int
    repeated_frames: int  # of the input, which repeat another frame and were interpolated over
    still_frames: int  # of the input, which repeat a picture that stands still for longer
    size_in: tuple[int, int]  # (width, height)
    size_out: tuple[int, int]
    rate_out: str  # frames per second, as a fraction
    cuts_s: tuple[float, ...]  # timestamps of the first frames of new scenes
    duration_s: float  # of the video
    seconds: float  # running time
    decode_seconds: float  # busy times of the three stages, which overlap
    inference_seconds: float
    encode_seconds: float
    opening_seconds: float  # until the networks were open: sessions, graphs made for the sizes, engines built or loaded
    first_run_seconds: float  # of the first run of each session: kernels compiled, CUDA graphs captured
    fps: float  # output frames per second of running time
    peak_memory_bytes: int | None  # of the process so far; None: the system does not state it
    adaptation: tuple[dict[str, Any], ...]  # a record for each scene, or one for all; empty without adaptation
    repairs: tuple[dict[str, Any], ...]  # spans of the input that were damaged; see engine/media/damage.py
    warnings: tuple[str, ...]  # what the output does not keep, what differs from the request, untrained weights

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a dictionary for JSON."""
        return asdict(self)


def peak_memory_bytes() -> int | None:
    """Return the peak resident memory of this process so far, or None if the system does not state it."""
    try:  # getrusage would include the parent's peak from before this program was loaded
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kibibytes on Linux
