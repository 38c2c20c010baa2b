"""The request: one video to upscale, and its options."""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from ..backends.options import Backend
from ..contract.bundle import Bundle
from ..contract.errors import RequestError
from ..contract.manifest import ContinuousTime
from ..media.damage import OnDamage
from ..media.options import ReadOptions
from .limits import check_limits, storable_rate
from .plan import Plan, check_flow, default_factor, default_scale, plan_passes
from .scenes import DEFAULT_THRESHOLD
from .timeline import Timeline, common_time_base

DEFAULT_MODEL = "fourier-s"


@dataclass(frozen=True, kw_only=True)
class UpscaleRequest:
    """One video to upscale, and how. Every option has a default."""

    input: str | Path  # a video, or a folder of images
    output: str | Path | None = None  # None: beside the input, named by scale and frame rate
    scale: float | None = None  # excludes `size`; without both x4, or the bundle's own
    size: tuple[int, int] | None = None  # (width, height) in pixels
    time_factor: int | None = None  # excludes `fps`; without both x2, or the bundle's own
    fps: Fraction | None = None  # output frames per second
    model: str | Path = DEFAULT_MODEL  # a bundle's name or folder; two with a + between make a chain
    flow: str | None = None  # method of optical flow, for a bundle that takes it; None: the bundle's own
    backend: Backend = field(default_factory=Backend)
    tile: int | None = None  # side in input pixels; 0: whole frames; None: by the frame's size
    scene_threshold: float | None = DEFAULT_THRESHOLD  # 0 to 1; 0 or None: no cuts
    deinterlace: str = "auto"  # or "off", "ivtc", or one of FFmpeg's filters: bwdif, yadif, w3fdif, estdif
    field_rate: str = "double"  # of deinterlaced frames: one for each field; "single": one for each frame
    on_damage: OnDamage = "stop"  # or "repeat" the frame before a damaged one, or "skip" it
    dedup: bool = False  # interpolate over repeated frames
    codec: str | None = None  # FFmpeg's encoder; None: by the container
    crf: int | None = None  # the encoder's quality
    encoder_options: dict[str, str] | None = None
    pix_fmt: str | None = None  # None: by the input's bit depth
    overwrite: bool = False
    input_fps: Fraction | None = None  # frame rate of a folder of images

    @property
    def read_options(self) -> ReadOptions:
        """Options of reading the input. Raises RequestError for an unknown value."""
        return ReadOptions(self.deinterlace, self.field_rate, self.on_damage)

    def check(self) -> None:
        """Raise RequestError for options that contradict each other or the input, before a file is opened."""
        if self.scale is not None and self.size is not None:
            raise RequestError("Choose either a scale or a size, not both.")
        check_limits(self)
        if self.scene_threshold is not None and not 0 <= self.scene_threshold <= 1:
            raise RequestError(f"The scene threshold is {self.scene_threshold:g}: give a number from 0 (no cuts) to 1.")
        if self.time_factor is not None and self.fps is not None:
            raise RequestError("Choose either a time factor or a frame rate, not both.")
        if self.input_fps is not None and Path(self.input).is_file():
            raise RequestError(
                f"--input-fps is for a folder of images, and {self.input} is a video with its own timestamps: leave it"
                " out."
            )
        self.read_options  # noqa: B018 - it checks the values
        self._timeline(default=1)
        if self.output is not None:
            self._check_output(Path(self.output))

    def plan(
        self, bundles: tuple[Bundle, ...], *, width: int, height: int, rate: Fraction, time_base: Fraction
    ) -> Plan:
        """Plan the run on a video of this size, frame rate (per second) and time base (seconds).

        Raises RequestError if the bundles do not support it.
        """
        check_flow(bundles, self.flow)
        timeline = self._timeline(default_factor(bundles))
        scale = default_scale(bundles) if self.scale is None else self.scale
        size = self.size or (round(width * scale), round(height * scale))
        if self.dedup and not any(isinstance(bundle.manifest.time, ContinuousTime) for bundle in bundles):
            names = "+".join(bundle.manifest.name for bundle in bundles)
            raise RequestError(
                f"Repeated frames are interpolated over at any time, and '{names}' does not make frames at any time:"
                f" choose another bundle such as {DEFAULT_MODEL}, or leave out --dedup."
            )
        # Over repeated frames the outputs are at other times than the factor's.
        passes = plan_passes(bundles, (height, width), (size[1], size[0]), None if self.dedup else timeline.factor)
        if timeline.factor is not None:
            rate, time_base = rate * timeline.factor, time_base / timeline.factor
        else:
            assert timeline.fps is not None
            rate, time_base = timeline.fps, common_time_base(time_base, 1 / timeline.fps)
        output = Path(self.output) if self.output is not None else self._default_output(size, scale, rate)
        self._check_output(output)
        return Plan(output, size, storable_rate(rate), time_base, timeline, passes)

    def _timeline(self, default: int) -> Timeline:
        if self.fps is not None:
            return Timeline(fps=self.fps)
        return Timeline(factor=default if self.time_factor is None else self.time_factor)

    def _check_output(self, output: Path) -> None:
        if output.exists() and output.samefile(self.input):
            raise RequestError(f"{output} is the input itself: choose another output.")
        if output.exists() and not self.overwrite:
            raise RequestError(f"{output} exists already: choose another output, or pass --overwrite.")

    def _default_output(self, size: tuple[int, int], scale: float, rate: Fraction) -> Path:
        source = Path(self.input)
        stem = source.name if source.is_dir() else source.stem
        space = f"{size[0]}x{size[1]}" if self.size else f"x{scale:g}"
        return source.absolute().parent / f"{stem}_{space}_{round(float(rate), 2):g}fps.mp4"
