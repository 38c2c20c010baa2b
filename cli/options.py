"""Options that commands share, as records (`records.py`)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from ..engine.contract.errors import RequestError
from ..engine.pipeline.inference import Preset
from .records import refuse_without
from .terminal import read_pairs

if TYPE_CHECKING:
    from ..engine.backends.options import Backend

DEFAULT_MODEL = "fourier-s"

# Options of several records or commands.
ScaleOption = Annotated[
    str | None,
    typer.Option("-s", "--scale", help="Spatial factor (4, 1.33, 4/3).", show_default="4, or the bundle's own"),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(help="CPU threads of ONNX Runtime.", min=1, show_default="one for each CPU that may be used"),
]
PresetOption = Annotated[
    Preset,
    typer.Option(help="fast; balanced or best: the mean of 2 or 4 runs on mirrored frames, in as many times the time."),
]
InputFpsOption = Annotated[
    str | None,
    typer.Option(help="Frames per second, for a folder of images.", show_default="none; a folder needs it"),
]

ConfigOption = Annotated[
    list[str] | None,
    typer.Option(
        "-c", metavar="KEY=VALUE", help="A value of the network's configuration; repeatable.", show_default="none"
    ),
]


@dataclass(frozen=True)
class BackendOptions:
    """Backend, device, precision and threads of a network."""

    panel: ClassVar = "Backend"

    backend: Annotated[
        str,
        typer.Option(
            help="What computes the graphs: auto (the fastest here), ort (ONNX Runtime), tensorrt, remote (a server)."
        ),
    ] = "auto"
    device: Annotated[
        str,
        typer.Option(help="auto, cpu, cuda:N for a GPU by its number, or several that share the work: cuda:0,cuda:1."),
    ] = "auto"
    precision: Annotated[
        str, typer.Option(help="On a GPU: fp32, tf32, fp16, or auto: the fastest that changes no visible step.")
    ] = "auto"
    library: Annotated[
        str | None,
        typer.Option(help="With the tensorrt backend: tensorrt or tensorrt-rtx.", show_default="the installed one"),
    ] = None
    threads: ThreadsOption = None
    waiting: Annotated[
        str | None,
        typer.Option(
            help="How ONNX Runtime's threads wait for each other: sleep, or spin, a busy loop.",
            show_default="sleep",
        ),
    ] = None
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="With the remote backend: the inference server, as http://HOST:PORT or grpc://HOST:PORT.",
            show_default="none",
        ),
    ] = None
    remote_timeout: Annotated[
        float | None,
        typer.Option(help="With the remote backend: seconds to wait for one answer.", show_default="60"),
    ] = None

    time_limit: Annotated[
        float | None,
        typer.Option(
            help="Seconds that one run of a graph in ONNX Runtime may take, for bundles that are not trusted.",
            show_default="no limit",
        ),
    ] = None

    def record(self) -> "Backend":
        """Return the engine's record. Raises BackendError for options that contradict each other."""
        from ..engine.backends.options import Backend

        return Backend(
            kind=self.backend,  # type: ignore[arg-type]  # validated by Backend
            device=self.device,
            precision=self.precision,  # type: ignore[arg-type]
            library=self.library,  # type: ignore[arg-type]
            threads=self.threads,
            waiting=self.waiting,  # type: ignore[arg-type]
            time_limit_s=self.time_limit,
            url=self.url,
            timeout_s=self.remote_timeout,
        )


@dataclass(frozen=True)
class FrameOptions:
    """Size and rate of the output, and the bundle that computes it."""

    panel: ClassVar = "Size, rate and network"

    scale: ScaleOption = None
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Target size in pixels, instead of a factor: 1280x720, 1920x-1 (height by the proportions), or 1080p.",
            show_default="by --scale",
        ),
    ] = None
    factor: Annotated[
        str | None,
        typer.Option(
            "-t", "--factor", help="Output frames per input frame (2, 2.5).", show_default="2, or the bundle's own"
        ),
    ] = None
    fps: Annotated[
        str | None,
        typer.Option(
            help="Target frames per second (60, 59.94, 60000/1001), instead of a factor.", show_default="by --factor"
        ),
    ] = None
    model: Annotated[
        str, typer.Option("-m", "--model", help="A bundle's name or folder, or a chain TEMPORAL+SPATIAL.")
    ] = DEFAULT_MODEL
    flow: Annotated[
        str | None,
        typer.Option(help="Optical flow for networks that take it: farneback or dis.", show_default="the bundle's own"),
    ] = None
    tile: Annotated[
        int | None,
        typer.Option(
            help="Side of a tile in input pixels, halo included; 0: whole frames.", show_default="by the frame's size"
        ),
    ] = None
    preset: PresetOption = "fast"
    scene_threshold: Annotated[
        float | None,
        typer.Option(help="From 0 (no scene cuts) to 1; a lower threshold finds more cuts.", show_default="0.38"),
    ] = None
    input_fps: InputFpsOption = None

    def values(self) -> dict[str, Any]:
        """Return the fields of an UpscaleRequest that were given. Raises RequestError for text that is not valid."""
        from ..engine.pipeline.quantities import read_factor, read_rate, read_scale, read_size

        if self.size is not None:
            read_size(self.size)  # raises; the size may depend on the video
        given: dict[str, Any] = {
            "scale": None if self.scale is None else read_scale(self.scale),
            "size": self.size,
            "time_factor": None if self.factor is None else read_factor(self.factor),
            "fps": None if self.fps is None else read_rate(self.fps),
            "model": self.model,
            "flow": self.flow,
            "tile": self.tile,
            "preset": self.preset,
            "scene_threshold": self.scene_threshold,
            "input_fps": None if self.input_fps is None else read_rate(self.input_fps),
        }
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class PartOptions:
    """The part of the input that is upscaled, and slow motion."""

    panel: ClassVar = "Part and slow motion"

    start: Annotated[
        str | None,
        typer.Option(
            help="Take frames from this time on, in seconds or as 1:02 or 1:02:03.5; sound is cut alike.",
            show_default="the beginning",
        ),
    ] = None
    end: Annotated[
        str | None,
        typer.Option(help="Take frames up to this time, in seconds or as 1:30.", show_default="the end"),
    ] = None
    frame_count: Annotated[
        int | None,
        typer.Option("--frames", help="Take at most so many input frames.", min=1, show_default="all"),
    ] = None
    slowmo: Annotated[
        str | None,
        typer.Option(
            help="Slow motion: so many times longer, with more frames at the same frame rate, and without sound.",
            show_default="1",
        ),
    ] = None

    def values(self) -> dict[str, Any]:
        """Return the fields of an UpscaleRequest that were given. Raises RequestError for text that is not valid."""
        from ..engine.pipeline.quantities import read_factor, read_seconds

        given: dict[str, Any] = {
            "start": None if self.start is None else read_seconds(self.start),
            "end": None if self.end is None else read_seconds(self.end),
            "frames": self.frame_count,
            "slowmo": None if self.slowmo is None else read_factor(self.slowmo, "slow motion"),
        }
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class SourceOptions:
    """Options of reading the input: fields, damage, decoding units and repeated frames."""

    panel: ClassVar = "Reading"

    deinterlace: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="Interlaced video: auto (found by its flags and its picture), off, bwdif, yadif, w3fdif, estdif, or"
            " ivtc (telecined film).",
        ),
    ] = "auto"
    field_rate: Annotated[
        str, typer.Option(help="Deinterlaced frames: double (one for each field) or single (one for each frame).")
    ] = "double"
    on_damage: Annotated[
        str,
        typer.Option(help="Damaged frames: stop with an error, repeat the frame before, or skip them; times are kept."),
    ] = "stop"
    hwaccel: Annotated[
        str,
        typer.Option(
            help="Decoding by an NVIDIA GPU: none, auto, or cuda (with a warning where the CPU decodes). Frames are the"
            " same, but not all damage is found."
        ),
    ] = "none"
    dedup: Annotated[
        bool,
        typer.Option(
            "--dedup", help="Interpolate over repeated frames (animation, telecine, screens); times are kept."
        ),
    ] = False

    def values(self) -> dict[str, Any]:
        """Return the fields of an UpscaleRequest."""
        return {
            "deinterlace": self.deinterlace,
            "field_rate": self.field_rate,
            "on_damage": self.on_damage,
            "hwaccel": self.hwaccel,
            "dedup": self.dedup,
        }


@dataclass(frozen=True)
class EncoderOptions:
    """Encoder and pixel format of the output."""

    panel: ClassVar = "Encoder"

    codec: Annotated[
        str | None,
        typer.Option(help="Encoder: libx264, libx265, libvpx-vp9, ...", show_default="by the output's suffix"),
    ] = None
    crf: Annotated[
        int | None, typer.Option(help="Quality of the encoder; lower is better.", show_default="the encoder's own")
    ] = None
    encoder_option: Annotated[
        list[str] | None,
        typer.Option("-e", metavar="KEY=VALUE", help="An option of the encoder; repeatable.", show_default="none"),
    ] = None
    pix_fmt: Annotated[
        str | None,
        typer.Option("--pix-fmt", help="Pixel format: yuv420p10le, ...", show_default="no less than the input's"),
    ] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False

    def values(self) -> dict[str, Any]:
        """Return the fields of an UpscaleRequest. Raises RequestError for text that is not valid."""
        return {
            "codec": self.codec,
            "crf": self.crf,
            "encoder_options": read_pairs(self.encoder_option or []),
            "pix_fmt": self.pix_fmt,
            "overwrite": self.overwrite,
        }


@dataclass(frozen=True)
class WorkerOptions:
    """The workers of a command, on this machine or on those of a Ray cluster."""

    panel: ClassVar = "Workers"

    workers: Annotated[
        int | None,
        typer.Option(help="Workers, which compute at the same time.", min=1, show_default="one for each GPU, else one"),
    ] = None
    executor: Annotated[
        str, typer.Option(help="Where the workers are: local (processes here) or ray (a Ray cluster).")
    ] = "local"
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Head node of the Ray cluster: HOST:PORT, or auto for the one on this machine.",
            show_default="RAY_ADDRESS, else a Ray of its own",
        ),
    ] = None

    def check(self) -> None:
        """Raise RequestError for options that contradict each other."""
        if self.executor not in ("local", "ray"):
            raise RequestError(f"Unknown executor '{self.executor}': use local or ray.")
        if self.executor == "local":
            refuse_without("--executor ray", {"--ray-address": self.ray_address})


def request_fields(
    backend: BackendOptions, encoder: EncoderOptions, reading: SourceOptions, frames: FrameOptions, part: PartOptions
) -> dict[str, Any]:
    """Return the fields of an UpscaleRequest that records of options give.

    Raises RequestError and BackendError for options that are not valid.
    """
    return {
        "backend": backend.record(),
        **encoder.values(),
        **reading.values(),
        **frames.values(),
        **part.values(),
    }
