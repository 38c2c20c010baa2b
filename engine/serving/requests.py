"""The requests of clients: JSON options become an `UpscaleRequest`, and are checked before a job is stored."""

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..contract.bundle import find_bundles, named_bundles
from ..contract.errors import RequestError
from ..media.encoder import choose_encoding
from ..media.reader import open_reader
from ..pipeline.request import DEFAULT_MODEL, UpscaleRequest
from .settings import Settings

_RATE = r"^\d{1,6}(\.\d{1,9})?(/\d{1,6})?$"


class JobOptions(BaseModel):
    """The options of a job, as clients give them."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)

    scale: Annotated[float, Field(gt=0, le=64)] | None = None
    width: Annotated[int, Field(ge=1, le=32768)] | None = None  # of the output, with `height`
    height: Annotated[int, Field(ge=1, le=32768)] | None = None
    time_factor: Annotated[int, Field(ge=1, le=64)] | None = None
    fps: Annotated[str, Field(pattern=_RATE)] | None = None  # of the output: a number or a fraction
    model: Annotated[str, Field(pattern=r"^[\w\-.]+(\+[\w\-.]+)?$", max_length=200)] = DEFAULT_MODEL
    codec: Annotated[str, Field(pattern=r"^[\w\-]{1,40}$")] | None = None
    crf: Annotated[int, Field(ge=0, le=63)] | None = None
    container: Literal["mp4", "mov", "mkv", "webm"] = "mp4"
    scene_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    tile: Annotated[int, Field(ge=0, le=32768)] | None = None
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    webhook: Annotated[str, Field(max_length=2000)] | None = None  # an address that learns when the job has ended


def read_options(values: Any) -> JobOptions:
    """Return the options in JSON values or in the query of an address. Raises RequestError for any that is wrong."""
    try:
        return JobOptions.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "the options"
        problem = first["msg"][:1].lower() + first["msg"][1:]
        raise RequestError(f"{name}: {problem}. Change it, or leave it out.") from error


def make_request(options: JobOptions, source: Path, output: Path) -> UpscaleRequest:
    """Return the request of a job. Raises RequestError for a model that has no name on this server."""
    names = named_bundles()
    for name in options.model.split("+"):
        if name not in names:
            raise RequestError(f"There is no model '{name}' here: use one of {', '.join(names)}.")
    if (options.width is None) != (options.height is None):
        raise RequestError("A size has a width and a height: give both, or a scale.")
    fields: dict[str, Any] = {
        "scale": options.scale,
        "size": None if options.width is None else (options.width, options.height),
        "time_factor": options.time_factor,
        "fps": None if options.fps is None else _rate(options.fps),
        "model": options.model,
        "codec": options.codec,
        "crf": options.crf,
        "scene_threshold": options.scene_threshold,
        "tile": options.tile,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    return UpscaleRequest(input=source, output=output, **given)


def check_request(request: UpscaleRequest, settings: Settings) -> None:
    """Raise MediaError for an input that cannot be read, and RequestError for what this server does not compute."""
    request.check()
    with open_reader(request.input) as reader:
        info = reader.info
    if info.width * info.height > settings.most_pixels:
        raise RequestError(
            f"The video has frames of {info.width}x{info.height} pixels, and this server takes"
            f" {settings.most_pixels} pixels: make it smaller."
        )
    frames = info.frames or (None if info.duration is None else round(info.duration * info.rate))
    if frames is not None and frames > settings.most_frames:
        raise RequestError(
            f"The video has {frames} frames, and this server takes {settings.most_frames}: cut it into parts."
        )
    plan = request.plan(
        find_bundles(request.model), width=info.width, height=info.height, rate=info.rate, time_base=info.time_base
    )
    choose_encoding(
        plan.output.suffix, plan.size, info.bit_depth, codec=request.codec, crf=request.crf, pix_fmt=request.pix_fmt
    )


def _rate(text: str) -> Fraction:
    try:
        return Fraction(text) if "/" not in text else Fraction(*(Fraction(part) for part in text.split("/")))
    except ZeroDivisionError:
        raise RequestError(f"fps: '{text}' divides by zero. Give a number or a fraction, as in 60000/1001.") from None
