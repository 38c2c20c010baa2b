"""The request: one video to upscale, and its options."""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from ..backends.options import Backend
from ..contract.bundle import Bundle
from ..contract.errors import MediaError, RequestError
from ..contract.manifest import ContinuousTime
from ..media.damage import OnDamage
from ..media.destination import GIF_RATE, IMAGES, Destination, read_destination
from ..media.image_files import is_images, stem_of
from ..media.options import Part, ReadOptions
from ..media.pipes import is_pipe
from .inference import Inference, Preset
from .limits import DEFAULT_THRESHOLD, check_encoder_options, storable_rate
from .plan import Plan, check_flow, default_factor, default_scale, plan_passes
from .quantities import Number, Size, read_factor, read_rate, read_scale, read_seconds, read_size, target_size
from .timeline import Timeline, common_time_base

if TYPE_CHECKING:  # the server creates requests without PyAV and NumPy
    from ..media.probe import VideoInfo

DEFAULT_MODEL = "fourier-s"


@dataclass(frozen=True, kw_only=True)
class UpscaleRequest:
    """One video to upscale, and how. Every option has a default.

    Rates, factors, times and sizes are numbers, or text as on the command line: "59.94", "5/2", "1:02.5", "1080p".
    """

    input: str | Path  # a video, a folder or a pattern of images, an image, or - for the standard input
    # A video, GIF, APNG or AVIF file, images (out/ or out_%05d.png), or - for the standard output; None: beside the
    # input, named by scale and frame rate.
    output: str | Path | None = None
    format: str | None = None  # of a pipe: matroska (None), mpegts, y4m or rawvideo
    scale: Number | None = None  # excludes `size`; without both x4, or the bundle's own
    size: Size | None = None  # (width, height) in pixels; a side of -1 follows from the other
    time_factor: Number | None = None  # excludes `fps`; without both x2, or the bundle's own
    fps: Number | None = None  # output frames per second
    start: Number | None = None  # seconds from the beginning, from which frames are taken
    end: Number | None = None  # seconds from the beginning, up to which frames are taken
    frames: int | None = None  # input frames at most
    slowmo: Number | None = None  # how many times longer the video takes, at its own frame rate; without sound
    model: str | Path = DEFAULT_MODEL  # a bundle's name or folder; two with a + between make a chain
    flow: str | None = None  # method of optical flow, for a bundle that takes it; None: the bundle's own
    backend: Backend = field(default_factory=Backend)
    tile: int | None = None  # side in input pixels; 0: whole frames; None: by the frame's size
    preset: Preset = "fast"  # or "balanced", "best": the mean of two and four mirrored runs of the network
    scene_threshold: float | None = DEFAULT_THRESHOLD  # 0 to 1; 0 or None: no cuts
    deinterlace: str = "auto"  # or "off", "ivtc", or one of FFmpeg's filters: bwdif, yadif, w3fdif, estdif
    field_rate: str = "double"  # of deinterlaced frames: one for each field; "single": one for each frame
    on_damage: OnDamage = "stop"  # or "repeat" the frame before a damaged one, or "skip" it
    hwaccel: str = "none"  # decoding by a GPU's unit: "auto", or "cuda", which warns where the CPU decodes
    dedup: bool = False  # interpolate over repeated frames
    codec: str | None = None  # FFmpeg's encoder; None: by the container
    crf: int | None = None  # the encoder's quality
    encoder_options: dict[str, str] | None = None
    pix_fmt: str | None = None  # None: no less than the input's
    overwrite: bool = False
    input_fps: Number | None = None  # frame rate of a folder or a pattern of images

    @property
    def read_options(self) -> ReadOptions:
        """Options of reading the input. Raises RequestError for an unknown value."""
        return ReadOptions(self.deinterlace, self.field_rate, self.on_damage, self.hwaccel)

    @property
    def inference(self) -> Inference:
        """Settings of the network's runs. Raises RequestError for an unknown preset."""
        return Inference(self.tile, self.flow, self.preset)

    @property
    def part(self) -> Part | None:
        """The part of the input that is read, and how slowly it is shown; None: all of it, as it is."""
        if self.start is None and self.end is None and self.frames is None and self.slowmo is None:
            return None
        return Part(
            None if self.start is None else read_seconds(self.start),
            None if self.end is None else read_seconds(self.end),
            self.frames,
            Fraction(1) if self.slowmo is None else read_factor(self.slowmo, "slow motion"),
        )

    @property
    def input_rate(self) -> Fraction | None:
        """The frame rate of images, in frames per second."""
        return None if self.input_fps is None else read_rate(self.input_fps)

    @property
    def is_resumable(self) -> bool:
        """Return whether a run can be stopped and go on: of a file or images that becomes a video file."""
        return not is_pipe(self.input) and (self.output is None or self._destination(self.output).is_segmented)

    def check(self) -> None:
        """Raise RequestError for options that contradict each other or the input, before a file is opened."""
        if self.scale is not None and self.size is not None:
            raise RequestError("Choose either a scale or a size, not both.")
        if self.scale is not None:
            read_scale(self.scale)
        if self.size is not None:
            read_size(self.size)
        check_encoder_options(self.encoder_options or {})
        if self.scene_threshold is not None and not 0 <= self.scene_threshold <= 1:
            raise RequestError(f"The scene threshold is {self.scene_threshold:g}: give a number from 0 (no cuts) to 1.")
        if self.time_factor is not None and self.fps is not None:
            raise RequestError("Choose either a time factor or a frame rate, not both.")
        if self.input_rate is not None and (is_pipe(self.input) or (Path(self.input).is_file() and not self._is_image)):
            raise RequestError(
                f"--input-fps is for images, and {self.input} is a video with its own timestamps: leave it out."
            )
        self.read_options  # noqa: B018 - it checks the values
        self.inference  # noqa: B018
        self._check_part()
        self._timeline(Fraction(1))
        if self.output is not None:
            self._check_output(self._destination(self.output))
        elif is_pipe(self.input):
            raise RequestError("A pipe has no name for the output to be derived from: name an output by -o.")
        elif self.format is not None:
            raise RequestError("--format is for a pipe: add -o -, or leave it out.")

    def plan(self, bundles: tuple[Bundle, ...], info: "VideoInfo") -> Plan:
        """Plan the run on a video, or a part of it. Raises RequestError if the bundles do not support it."""
        check_flow(bundles, self.flow)
        destination = None if self.output is None else self._destination(self.output)
        if self._is_one_image(destination):
            timeline = Timeline(factor=1)  # it has no time
        else:
            timeline = self._timeline(self._default_factor(bundles, info.rate, destination))
        scale = default_scale(bundles) if self.scale is None else read_scale(self.scale)
        if self.size is None:
            size = round(info.width * scale), round(info.height * scale)
        else:
            size = target_size(self.size, info.width, info.height)
        if self.dedup and not any(isinstance(bundle.manifest.time, ContinuousTime) for bundle in bundles):
            names = "+".join(bundle.manifest.name for bundle in bundles)
            raise RequestError(
                f"Repeated frames are interpolated over at any time, and '{names}' does not make frames at any time:"
                f" choose another bundle such as {DEFAULT_MODEL}, or leave out --dedup."
            )
        factor = None
        # Over repeated frames the outputs are at other times than the factor's.
        if timeline.factor is not None and timeline.factor.denominator == 1 and not self.dedup:
            factor = int(timeline.factor)
        passes = plan_passes(bundles, (info.height, info.width), (size[1], size[0]), factor)
        if timeline.factor is not None:
            rate, time_base = info.rate * timeline.factor, info.time_base / timeline.factor.numerator
        else:
            assert timeline.fps is not None
            rate, time_base = timeline.fps, common_time_base(info.time_base, 1 / timeline.fps)
        output = self.output if self.output is not None else self._default_output(size, scale, rate)
        destination = self._destination(output)
        self._check_output(destination)
        return Plan(destination, size, storable_rate(rate), time_base, timeline, passes)

    @property
    def _is_image(self) -> bool:
        return Path(self.input).is_file() and is_images(self.input)

    def _is_one_image(self, destination: Destination | None) -> bool:
        """Return whether the output is a single image."""
        return self._is_image if destination is None else destination.kind == "image"

    def _check_part(self) -> None:
        part = self.part
        if self.frames is not None and self.frames < 1:
            raise RequestError(f"The number of frames is {self.frames}: give a whole number from 1 on.")
        if part is not None and part.end is not None and part.end <= (part.start or 0):
            end, start = float(part.end), float(part.start or 0)
            raise RequestError(f"The end {end:g} is not after the start {start:g}: give a later end.")

    def _timeline(self, default: Fraction) -> Timeline:
        if self.fps is not None:
            return Timeline(fps=read_rate(self.fps))
        return Timeline(factor=default if self.time_factor is None else read_factor(self.time_factor))

    def _default_factor(self, bundles: tuple[Bundle, ...], rate: Fraction, destination: Destination | None) -> Fraction:
        """Return the time factor without a choice: that of slow motion, or the bundle's own."""
        if self.slowmo is not None:
            return read_factor(self.slowmo, "slow motion")
        factor = default_factor(bundles)
        is_too_fast = destination is not None and destination.suffix == ".gif" and rate * factor > GIF_RATE
        return Fraction(1 if is_too_fast else factor)

    def _destination(self, output: str | Path) -> Destination:
        try:
            return read_destination(output, self.format)
        except MediaError as error:
            raise RequestError(str(error)) from error

    def _check_output(self, destination: Destination) -> None:
        path = destination.path
        if destination.kind == "pipe":
            return
        if path.exists() and not is_pipe(self.input) and Path(self.input).exists() and path.samefile(self.input):
            raise RequestError(f"{path} is the input itself: choose another output.")
        if destination.kind == "image" and not self._is_image and self.frames != 1:
            raise RequestError(
                f"{path} is one image, and the input has several frames: write {path.stem}_%05d{path.suffix} or a"
                " folder, or choose one frame by --start and --frames 1."
            )
        if not self.overwrite and (existing := destination.existing()) is not None:
            raise RequestError(f"{existing} exists already: choose another output, or pass --overwrite.")

    def _default_output(self, size: tuple[int, int], scale: float, rate: Fraction) -> Path:
        """Return a name beside the input that states what was made, and that no other input beside it gets."""
        source = Path(self.input)
        parts = [self._stem(), f"{size[0]}x{size[1]}" if self.size else f"x{scale:g}"]
        if self.start is not None:
            parts.append(f"from{float(read_seconds(self.start)):g}s")
        if self.end is not None:
            parts.append(f"to{float(read_seconds(self.end)):g}s")
        if self.frames is not None:
            parts.append(f"{self.frames}frames")
        if self.slowmo is not None:
            parts.append(f"slow{float(read_factor(self.slowmo)):g}")
        if self._is_image:
            suffix = source.suffix.lower() if source.suffix.lower() in IMAGES else ".png"
            return source.absolute().with_name("_".join(parts) + suffix)
        parts.append(f"{round(float(rate), 3):g}fps")
        return source.absolute().with_name("_".join(parts) + ".mp4")

    def _stem(self) -> str:
        """Return the name of the input without its suffix, unless another file beside it has the same."""
        source = Path(self.input)
        if is_images(source) and not self._is_image:
            stem, kind = stem_of(source), "images"
        else:
            stem, kind = source.stem, source.suffix[1:].lower()
        others = (file for file in source.absolute().parent.iterdir() if file.name != source.name)
        is_shared = any((file.name if file.is_dir() else file.stem).lower() == stem.lower() for file in others)
        return f"{stem}_{kind}" if is_shared and kind != "mp4" else stem
