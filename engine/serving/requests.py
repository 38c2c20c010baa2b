"""The requests of clients: JSON options become an `UpscaleRequest`."""

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..contract.bundle import named_bundles
from ..contract.errors import RequestError
from ..pipeline.request import DEFAULT_MODEL, UpscaleRequest

MODEL = Field(pattern=r"^[\w\-.]+(\+[\w\-.]+)?$", max_length=200)  # a bundle's name, or two with a + between
_RATE = r"^\d{1,6}(\.\d{1,9})?(/\d{1,6})?$"
_Options = TypeVar("_Options", bound=BaseModel)


class JobOptions(BaseModel):
    """The options of a job, as clients give them."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)

    scale: Annotated[float, Field(gt=0, le=64)] | None = None
    width: Annotated[int, Field(ge=1, le=32768)] | None = None  # of the output, with `height`
    height: Annotated[int, Field(ge=1, le=32768)] | None = None
    time_factor: Annotated[int, Field(ge=1, le=64)] | None = None
    fps: Annotated[str, Field(pattern=_RATE)] | None = None  # of the output: a number or a fraction
    model: Annotated[str, MODEL] = DEFAULT_MODEL
    codec: Annotated[str, Field(pattern=r"^[\w\-]{1,40}$")] | None = None
    crf: Annotated[int, Field(ge=0, le=63)] | None = None
    container: Literal["mp4", "mov", "mkv", "webm"] = "mp4"
    scene_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    deinterlace: Literal["auto", "off", "bwdif", "yadif", "w3fdif", "estdif", "ivtc"] | None = None
    field_rate: Literal["double", "single"] | None = None
    on_damage: Literal["stop", "repeat", "skip"] | None = None
    dedup: bool | None = None
    tile: Annotated[int, Field(ge=0, le=32768)] | None = None
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    webhook: Annotated[str, Field(max_length=2000)] | None = None  # an address that learns when the job has ended


def read_options(values: Any) -> JobOptions:
    """Return the options in JSON values or in the query of an address. Raises RequestError for any that is wrong."""
    return validated(JobOptions, values)


def validated(kind: type[_Options], values: Any) -> _Options:
    """Return options of some kind, by their names. Raises RequestError, which names the first that is wrong."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "the options"
        problem = first["msg"][:1].lower() + first["msg"][1:]
        raise RequestError(f"{name}: {problem}. Change it, or leave it out.") from error


def check_model(model: str) -> None:
    """Raise RequestError for a model that has no name on this server."""
    names = named_bundles()
    for name in model.split("+"):
        if name not in names:
            raise RequestError(f"There is no model '{name}' here: use one of {', '.join(names)}.")


def make_request(options: JobOptions, source: str | Path, output: str | Path) -> UpscaleRequest:
    """Return the request of a job. Raises RequestError for a model that has no name on this server."""
    check_model(options.model)
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
        "deinterlace": options.deinterlace,
        "field_rate": options.field_rate,
        "on_damage": options.on_damage,
        "dedup": options.dedup,
        "tile": options.tile,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    # A result may be there already: of a worker that ended after it wrote it.
    return UpscaleRequest(input=source, output=output, overwrite=True, **given)


def _rate(text: str) -> Fraction:
    try:
        return Fraction(text) if "/" not in text else Fraction(*(Fraction(part) for part in text.split("/")))
    except ZeroDivisionError:
        raise RequestError(f"fps: '{text}' divides by zero. Give a number or a fraction, as in 60000/1001.") from None
