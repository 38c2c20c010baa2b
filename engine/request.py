"""What is asked of the pipeline, and the plan that a video and a bundle make of it before any work is done."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from .bundle import Bundle
from .errors import RequestError
from .manifest import FixedFactors
from .scenes import DEFAULT_THRESHOLD
from .timeline import Timeline, common_time_base
from .upscaler import check_size

DEFAULT_MODEL = "videoinr-s"
DEFAULT_SCALE = 4
DEFAULT_TIME_FACTOR = 2


@dataclass(frozen=True, kw_only=True)
class UpscaleRequest:
    """One video to upscale, and how; what is left out takes its default."""

    input: str | Path
    output: str | Path | None = None  # beside the input, named by what was done
    scale: float | None = None  # or `size`; x4 without both
    size: tuple[int, int] | None = None  # (width, height) in pixels
    time_factor: int | None = None  # or `fps`; x2 without both
    fps: Fraction | None = None
    model: str | Path = DEFAULT_MODEL
    backend: str = "ort"
    device: str = "auto"
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
        self.timeline()
        if self.output is not None:
            self._check_output(Path(self.output))

    def timeline(self) -> Timeline:
        """Return a timeline that makes the frames asked for."""
        if self.fps is not None:
            return Timeline(fps=self.fps)
        return Timeline(factor=DEFAULT_TIME_FACTOR if self.time_factor is None else self.time_factor)

    def _check_output(self, output: Path) -> None:
        if output.exists() and output.samefile(self.input):
            raise RequestError(f"{output} is the input itself: choose another output.")
        if output.exists() and not self.overwrite:
            raise RequestError(f"{output} is there already: choose another output, or allow it to be overwritten.")

    def plan(self, bundle: Bundle, *, width: int, height: int, rate: Fraction, time_base: Fraction) -> "Plan":
        """Return what will be made of such a video, or refuse what the bundle does not do."""
        timeline = self.timeline()
        kind = bundle.manifest.time
        if isinstance(kind, FixedFactors) and timeline.factor not in (1, *kind.factors):
            raise RequestError(
                f"Bundle '{bundle.manifest.name}' multiplies the frame rate by {kind} alone:"
                " choose such a time factor, or another bundle."
            )
        scale = DEFAULT_SCALE if self.scale is None else self.scale
        size = self.size or (round(width * scale), round(height * scale))
        check_size(bundle, (height, width), (size[1], size[0]))
        if timeline.factor is not None:
            rate, time_base = rate * timeline.factor, time_base / timeline.factor
        else:
            assert timeline.fps is not None
            rate, time_base = timeline.fps, common_time_base(time_base, 1 / timeline.fps)
        output = Path(self.output) if self.output is not None else self._default_output(size, scale, rate)
        self._check_output(output)
        return Plan(output, size, rate, time_base, timeline)

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


def writer_options(request: UpscaleRequest) -> dict[str, Any]:
    """Return the request's options that are the writer's."""
    return {
        "codec": request.codec,
        "crf": request.crf,
        "encoder_options": request.encoder_options,
        "pix_fmt": request.pix_fmt,
        "overwrite": request.overwrite,
    }
