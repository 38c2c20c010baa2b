"""The record of a benchmark: cases, their figures, and the file that keeps them.

Every figure is absent (None) until it is measured, so that a case that ends early keeps those that it has.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..contract.errors import RequestError
from ..contract.manifest import Library

FORMAT = 1
MOST_BYTES = 64 << 20  # of a saved run


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class Case(_Record):
    """A combination that is measured."""

    bundle: str  # its name, or that of its folder; both names of a chain, with a + between
    backend: Literal["ort", "tensorrt", "remote"]
    library: Library | None = None  # of engines
    title: str  # of the library, or of the server
    device: str  # "cpu", "cuda:N" or several of them with commas, or "server"
    precision: str  # "fp32", "tf32" or "fp16"; of a server "its own"
    threads: int | None = None  # CPU threads of ONNX Runtime
    size_in: tuple[int, int]  # (width, height)
    size_out: tuple[int, int]
    factor: int = Field(ge=1)  # output frames for each input frame
    batch: int = Field(default=1, ge=1)  # windows of different streams that are computed at once
    concurrency: int = Field(default=1, ge=1)  # streams at the same time

    def __str__(self) -> str:
        """Return the case in a line."""
        several = f", {self.concurrency} streams" if self.concurrency > 1 else ""
        several += f", batch {self.batch}" if self.batch > 1 else ""
        return f"{self.bundle}, {self.title} on {self.device}, {self.precision}, {self.sizes}{several}"

    @property
    def sizes(self) -> str:
        """The sizes and the time factor as text."""
        (w, h), (big_w, big_h) = self.size_in, self.size_out
        return f"{w}x{h} to {big_w}x{big_h}, x{self.factor} in time"


class Percentiles(_Record):
    """Percentiles of some values, by the nearest rank: of fewer than 100 the 99th is the largest."""

    p50: float
    p95: float
    p99: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float], digits: int = 3) -> "Percentiles":
        """Return the percentiles of one value or more."""
        ordered = sorted(values)
        ranks = {f"p{share}": ordered[math.ceil(share / 100 * len(ordered)) - 1] for share in (50, 95, 99)}
        return cls(**{name: round(value, digits) for name, value in ranks.items()}, count=len(ordered))


class Figures(_Record):
    """Figures of a case. Frames are output frames."""

    open_seconds: float | None = None  # import of the library, loading of the graphs
    first_frame_seconds: float | None = None  # from the first input to the first output, in a process that is new
    warm_up_seconds: float | None = None  # before the figures below, the first frame included
    warm_up_frames: int | None = None
    fps: float | None = None  # of the network: frames in memory to frames in memory, all streams together
    frames: int | None = None  # that `fps` was measured with
    joules_per_frame: float | None = None  # of the GPU, at rest included; None: it does not count its energy
    request_ms: Percentiles | None = None  # one window of frames in memory to its outputs in memory
    frames_per_request: int | None = None
    whole_fps: float | None = None  # of a run from file to file, with open graphs
    whole_frames: int | None = None
    stages_ms: dict[str, float] | None = None  # busy milliseconds of each frame, one stage after another
    peak_memory_bytes: int | None = None  # of the process
    device_memory_bytes: int | None = None  # of the GPU, above what was in use before
    warnings: tuple[str, ...] = ()


class Result(_Record):
    """A case, the figures that it has, and why others are missing."""

    case: Case
    figures: Figures = Figures()
    problem: str | None = None


class Unavailable(_Record):
    """A backend on a device that cannot compute here, and the reason."""

    title: str
    device: str
    reason: str


class BundleFacts(_Record):
    """The weights of a bundle."""

    fingerprint: str  # the sha256 of its manifest without engines; both of a chain, with a + between
    graphs_sha256: dict[str, dict[str, str]]  # of each graph, by the names of bundle and graph


class Run(_Record):
    """A benchmark: where and with what it ran, and its results."""

    benchmark: Literal["stvsr"] = "stvsr"
    format: Literal[1] = 1
    date: str
    hardware: dict[str, Any]
    versions: dict[str, str]
    bundles: dict[str, BundleFacts]
    clip: str  # "synthetic", or the name of the file
    seconds_each: float  # the length of each measurement
    results: tuple[Result, ...]
    unavailable: tuple[Unavailable, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the run as a dictionary for JSON."""
        return self.model_dump(mode="json")


def read_run(path: Path) -> Run:
    """Return a saved run. Raises RequestError for a file that is none."""
    try:
        if not path.is_file():
            raise RequestError(f"There is no saved run {path}: name a file that 'stvsr benchmark -o run.json' wrote.")
        if path.stat().st_size > MOST_BYTES:
            raise RequestError(f"{path} is larger than {MOST_BYTES >> 20} MiB, and no saved run: name another file.")
        return Run.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RequestError(f"The saved run {path} cannot be read ({error.strerror}): name another file.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise RequestError(
            f"{path} is no saved run of this version ({where}: {first['msg']}): name a file that"
            " 'stvsr benchmark -o run.json' wrote."
        ) from error
