"""What is asked of the pipeline, and the plan that a video and a bundle make of it before any work is done."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..contract.bundle import Bundle
from ..contract.errors import RequestError
from ..contract.manifest import Library, Precision
from .chain import Leg, default_factor, default_scale, plan_route
from .flow import METHODS
from .scenes import DEFAULT_THRESHOLD
from .timeline import Timeline, common_time_base

DEFAULT_MODEL = "videoinr-s"


@dataclass(frozen=True, kw_only=True)
class UpscaleRequest:
    """One video to upscale, and how; what is left out takes its default."""

    input: str | Path
    output: str | Path | None = None  # beside the input, named by what was done
    scale: float | None = None  # or `size`; without both x4, or what the bundle can
    size: tuple[int, int] | None = None  # (width, height) in pixels
    time_factor: int | None = None  # or `fps`; without both x2, or what the bundle can
    fps: Fraction | None = None
    model: str | Path = DEFAULT_MODEL  # a bundle's name or folder; two of them with a + between make a chain
    flow: str | None = None  # the method of optical flow for a bundle that takes it, instead of its own
    backend: str = "ort"
    device: str = "auto"
    precision: Precision = "fp32"  # of engines
    library: Library | None = None  # of engines; None: the one that is installed
    tile: int | None = None  # the side in input pixels; 0: whole frames; None: as the frame's size asks
    scene_threshold: float | None = DEFAULT_THRESHOLD  # 0 or None: no cuts
    codec: str | None = None
    crf: int | None = None
    encoder_options: dict[str, str] | None = None
    pix_fmt: str | None = None
    overwrite: bool = False
    input_fps: Fraction | None = None  # of a folder of images
    threads: int | None = None

    def check(self) -> None:
        """Refuse what contradicts itself, and an output that is there, before a file is opened."""
        if self.scale is not None and self.size is not None:
            raise RequestError("Choose one of a scale and a size.")
        if self.scale is not None and not self.scale > 0:
            raise RequestError(f"The scale {self.scale} is not above 0.")
        if self.scene_threshold is not None and not 0 <= self.scene_threshold <= 1:
            raise RequestError(f"The scene threshold {self.scene_threshold} is not between 0 (no cuts) and 1.")
        if self.time_factor is not None and self.fps is not None:
            raise RequestError("Choose one of a time factor and a frame rate.")
        if self.flow is not None and self.flow not in METHODS:
            raise RequestError(f"There is no optical flow '{self.flow}': choose one of {', '.join(METHODS)}.")
        self._timeline(default=1)
        if self.output is not None:
            self._check_output(Path(self.output))

    def _timeline(self, default: int) -> Timeline:
        """Return a timeline that makes the frames asked for."""
        if self.fps is not None:
            return Timeline(fps=self.fps)
        return Timeline(factor=default if self.time_factor is None else self.time_factor)

    def _check_output(self, output: Path) -> None:
        if output.exists() and output.samefile(self.input):
            raise RequestError(f"{output} is the input itself: choose another output.")
        if output.exists() and not self.overwrite:
            raise RequestError(f"{output} is there already: choose another output, or allow it to be overwritten.")

    def plan(
        self, bundles: tuple[Bundle, ...], *, width: int, height: int, rate: Fraction, time_base: Fraction
    ) -> "Plan":
        """Return what will be made of such a video, or refuse what the bundles do not do."""
        timeline = self._timeline(default_factor(bundles))
        scale = default_scale(bundles) if self.scale is None else self.scale
        size = self.size or (round(width * scale), round(height * scale))
        legs = plan_route(bundles, (height, width), (size[1], size[0]), timeline.factor)
        if timeline.factor is not None:
            rate, time_base = rate * timeline.factor, time_base / timeline.factor
        else:
            assert timeline.fps is not None
            rate, time_base = timeline.fps, common_time_base(time_base, 1 / timeline.fps)
        output = Path(self.output) if self.output is not None else self._default_output(size, scale, rate)
        self._check_output(output)
        return Plan(output, size, rate, time_base, timeline, legs)

    def _default_output(self, size: tuple[int, int], scale: float, rate: Fraction) -> Path:
        source = Path(self.input)
        stem = source.name if source.is_dir() else source.stem
        space = f"{size[0]}x{size[1]}" if self.size else f"x{scale:g}"
        return source.absolute().parent / f"{stem}_{space}_{round(float(rate), 2):g}fps.mp4"


@dataclass(frozen=True)
class Plan:
    """What will be written."""

    output: Path
    size: tuple[int, int]  # (width, height)
    rate: Fraction  # nominal frames per second
    time_base: Fraction  # seconds; every timestamp is a multiple
    timeline: Timeline
    legs: tuple[Leg, ...]


def writer_options(request: UpscaleRequest) -> dict[str, Any]:
    """Return the request's options that are the writer's."""
    return {
        "codec": request.codec,
        "crf": request.crf,
        "encoder_options": request.encoder_options,
        "pix_fmt": request.pix_fmt,
        "overwrite": request.overwrite,
    }
