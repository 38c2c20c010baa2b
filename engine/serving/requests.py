"""The requests of clients: JSON options become an `UpscaleRequest`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..contract.bundle import named_bundles
from ..contract.errors import RequestError
from ..pipeline.adaptation import DEFAULT_SECONDS, AdaptSettings
from ..pipeline.inference import Preset
from ..pipeline.quantities import read_factor
from ..pipeline.request import DEFAULT_MODEL, UpscaleRequest

# Patterns have ASCII classes: counted \w and \d take megabytes each, for the letters and digits of all scripts.
MODEL = Field(pattern=r"^[^+/\\]+(\+[^+/\\]+)?$", max_length=200)  # a bundle's name, or two with a + between
_NUMBER = Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,9})?(/[0-9]{1,6})?$")  # or a fraction
_TIME = Field(pattern=r"^[0-9:.]{1,20}$")  # seconds, or 1:02:03.5
_MOST_TIMES = 64  # output frames for each input frame
_ADAPT = {"adapt", "adapt_per", "adapt_steps", "adapt_seconds", "adapt_seed"}
_NOT_OF_REQUESTS = {"width", "height", "container", "priority", "webhook", *_ADAPT}
_Options = TypeVar("_Options", bound=BaseModel)


class JobOptions(BaseModel):
    """The options of a job, as clients give them."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)

    scale: Annotated[float, Field(gt=0, le=64)] | None = None
    width: Annotated[int, Field(ge=1, le=32768)] | None = None  # of the output, with `height`
    height: Annotated[int, Field(ge=1, le=32768)] | None = None
    size: Annotated[str, Field(pattern=r"^[A-Za-z0-9:\-]{2,20}$")] | None = None  # 1280x720, 1920x-1 or 1080p
    time_factor: Annotated[str, _NUMBER] | None = None
    fps: Annotated[str, _NUMBER] | None = None  # of the output
    start: Annotated[str, _TIME] | None = None  # of the part of the input that is upscaled
    end: Annotated[str, _TIME] | None = None
    frames: Annotated[int, Field(ge=1)] | None = None  # input frames at most
    slowmo: Annotated[str, _NUMBER] | None = None  # how many times longer the output takes
    model: Annotated[str, MODEL] = DEFAULT_MODEL
    codec: Annotated[str, Field(pattern=r"^[A-Za-z0-9_\-]{1,40}$")] | None = None
    crf: Annotated[int, Field(ge=0, le=63)] | None = None
    container: Literal["mp4", "mov", "mkv", "webm"] = "mp4"
    scene_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    deinterlace: Literal["auto", "off", "bwdif", "yadif", "w3fdif", "estdif", "ivtc"] | None = None
    field_rate: Literal["double", "single"] | None = None
    on_damage: Literal["stop", "repeat", "skip"] | None = None
    dedup: bool | None = None
    tile: Annotated[int, Field(ge=0, le=32768)] | None = None
    preset: Annotated[
        Preset, Field(description="balanced and best: the mean of two and four mirrored runs of the network.")
    ] = "fast"
    adapt: Annotated[
        bool, Field(description="Adapt the network to each scene of the video first, where the server allows it.")
    ] = False
    adapt_per: Annotated[Literal["scene"], Field(description="What has weights of its own.")] = "scene"
    adapt_steps: Annotated[int, Field(ge=1, le=10_000, description="Steps to learn a scene at most.")] | None = None
    adapt_seconds: (
        Annotated[float, Field(gt=0, description="Seconds to learn a scene at most, within the server's limit.")] | None
    ) = None
    adapt_seed: Annotated[int, Field(ge=0, lt=1 << 31, description="The seed of what is learned.")] = 0
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
        raise RequestError(wrong_value(".".join(str(part) for part in first["loc"]), first)) from error


def check_model(model: str) -> None:
    """Raise RequestError for a model that has no name on this server."""
    names = named_bundles()
    for name in model.split("+"):
        if name not in names:
            raise RequestError(f"There is no model '{name}' here: use one of {', '.join(names)}.")


def make_request(options: JobOptions, source: str | Path, output: str | Path) -> UpscaleRequest:
    """Return the request of a job. Raises RequestError for a model that has no name on this server."""
    check_model(options.model)
    if (options.width is None) != (options.height is None) or (options.width and options.size):
        raise RequestError("A size has a width and a height: give both, or a scale.")
    given = options.model_dump(exclude=_NOT_OF_REQUESTS, exclude_none=True)
    if options.width is not None:
        given["size"] = (options.width, options.height)
    for option, name in (("time_factor", "time factor"), ("slowmo", "slow motion")):
        if option in given and read_factor(given[option], name) > _MOST_TIMES:
            raise RequestError(f"The {name} is {given[option]}: at most {_MOST_TIMES} frames are made of one here.")
    # A result may be there already: of a worker that ended after it wrote it.
    return UpscaleRequest(input=source, output=output, overwrite=True, **given)


def limited_adaptation(options: JobOptions, most_seconds: float | None) -> JobOptions:
    """Return options whose adaptation, if they ask for one, ends within a server's limit.

    A scene may be learned for at most `most_seconds`; without them the server adapts none. Raises RequestError for what
    it does not allow, and for options of an adaptation that was not asked for.
    """
    if not options.adapt:
        for name in sorted(_ADAPT):
            if getattr(options, name) != JobOptions.model_fields[name].default:
                raise RequestError(f"The option {name} has no effect without adapt: add adapt=true, or leave it out.")
        return options
    if most_seconds is None:
        raise RequestError("This server adapts no networks to videos: leave out adapt.")
    if options.adapt_seconds is not None and options.adapt_seconds > most_seconds:
        raise RequestError(f"This server learns a scene for at most {most_seconds:g} s: lower adapt_seconds.")
    if options.adapt_seconds is None and (options.adapt_steps is not None or most_seconds < DEFAULT_SECONDS):
        return options.model_copy(update={"adapt_seconds": most_seconds})
    return options


def adapt_settings(options: JobOptions) -> AdaptSettings | None:
    """Return the settings of a job's adaptation; None: the network is used as it is."""
    if not options.adapt:
        return None
    return AdaptSettings(
        per=options.adapt_per, steps=options.adapt_steps, seconds=options.adapt_seconds, seed=options.adapt_seed
    )


def without_paths(sentence: str, words: Mapping[str, str]) -> str:
    """Return a sentence with words in the place of paths of this machine, which are replaced in their order."""
    for path, word in words.items():
        sentence = sentence.replace(path, word)
    return sentence[:1].upper() + sentence[1:]


def wrong_value(name: str, error: Mapping[str, Any]) -> str:
    """Return the sentence of an error of Pydantic in a value that a client gave by a name."""
    message = error["msg"][:1].lower() + error["msg"][1:]
    return f"{name or 'the options'}: {message}. Change it, or leave it out."
