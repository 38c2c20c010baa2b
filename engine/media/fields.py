"""The way in which the frames of a video become progressive: by the request, the flags of the video and its picture."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

from ..contract.errors import MediaError
from .deinterlace import LEAST_PX, Timed, deinterlacer
from .interlacing import CombWatch, Interlacing, judge
from .options import ReadOptions
from .probe import VideoInfo
from .telecine import CYCLE, PIX_FMTS, EvenTimes, InverseTelecine

DEFAULT_FILTER = "bwdif"
_FILM_RATES = (Fraction(24000, 1001), Fraction(24))


class Stage(Protocol):
    """Turns frames as they are stored into progressive ones."""

    radius: int  # frames before and after one that decide what is made of it

    def frames(self, timed: Iterable[Timed]) -> Iterator[Timed]:
        """Yield the progressive frames."""


@dataclass(frozen=True)
class Fields:
    """The way from stored frames to progressive ones. `info` describes the frames after it."""

    info: VideoInfo
    stage: Stage | None = None
    notes: tuple[str, ...] = ()
    watch: CombWatch | None = None

    @property
    def radius(self) -> int:
        """Frames before and after one that decide what is made of it."""
        return 0 if self.stage is None else self.stage.radius

    @property
    def warnings(self) -> list[str]:
        """Sentences on what is done, and on frames that seem to be interlaced all the same."""
        return [*self.notes, *(self.watch.warnings if self.watch else [])]

    def frames(self, timed: Iterable[Timed]) -> Iterator[Timed]:
        """Yield the progressive frames of stored ones."""
        if self.stage is not None:
            return self.stage.frames(timed)
        return iter(timed) if self.watch is None else self.watch.frames(timed)


def choose_fields(info: VideoInfo, options: ReadOptions) -> Fields:
    """Choose how frames become progressive. Raises MediaError if the video cannot be read."""
    if options.deinterlace == "off":
        woven = "The video is interlaced, and its fields stay woven: --deinterlace auto makes progressive frames."
        return Fields(info, notes=(woven,) if info.interlaced else ())
    if min(info.width, info.height) < LEAST_PX:
        return Fields(info)
    if Path(info.path).is_file():
        found = judge(info.path)
    else:  # a pipe, which can be read once
        found = Interlacing("interlaced" if info.interlaced else "progressive", info.interlaced)
    method = options.deinterlace
    if method == "auto":
        if found.kind == "progressive" and found.film_rate is not None:
            return _even_film(info, found.film_rate)
        if found.kind == "progressive":
            note = (
                "The video is flagged as interlaced, but its picture is progressive: it was not deinterlaced, as it is"
                f" by --deinterlace {DEFAULT_FILTER}."
            )
            return Fields(info, notes=(note,) if found.flagged else (), watch=CombWatch())
        method = "ivtc" if found.kind == "telecined" and info.pix_fmt in PIX_FMTS else DEFAULT_FILTER
    by = "flags" if found.flagged else "picture"
    if method == "ivtc":
        if info.pix_fmt not in PIX_FMTS:
            raise MediaError(
                f"The frames of film are put together again in {', '.join(PIX_FMTS)}, and {info.path} is"
                f" {info.pix_fmt}: choose another --deinterlace, such as {DEFAULT_FILTER}."
            )
        return _film(info, found, by)
    double = options.field_rate == "double"
    only_flagged = options.deinterlace == "auto" and found.only_flagged
    stage = deinterlacer(method, double=double, first_field=found.first_field, only_flagged=only_flagged)
    fields = Fields(replace(info, interlaced=False, stored_rate=info.rate), stage)
    if double:
        count = None if info.frames is None or only_flagged else 2 * info.frames
        variable = None if only_flagged else info.variable_rate
        changed: dict[str, Any] = {
            "rate": 2 * info.rate,
            "time_base": info.time_base / 2,
            "frames": count,
            "variable_rate": variable,
        }
        fields = replace(fields, info=replace(fields.info, **changed))
    if options.deinterlace != "auto":
        return fields
    each = "field" if double else "frame"
    note = (
        f"The video is interlaced, by its {by}: {method} made a progressive frame of each {each}, {_rate(fields.info)}."
    )
    if found.kind == "telecined":
        note = f"The video is telecined film, whose frames are not put together again in {info.pix_fmt}. {note}"
    return replace(fields, notes=(note,))


def _film(info: VideoInfo, found: Interlacing, by: str) -> Fields:
    """Return the way from telecined frames to those of the film."""
    stage = InverseTelecine(found.first_field, info.start, 1 / info.rate)
    share = Fraction(CYCLE - 1, CYCLE)
    frames = None if info.frames is None else round(info.frames * share)
    film = replace(
        info,
        interlaced=False,
        rate=info.rate * share,
        stored_rate=info.rate,
        time_base=info.time_base / (CYCLE - 1),
        frames=frames,
    )
    note = (
        f"The video is telecined film, by its picture: the frames of the film were put together again, {_rate(film)}."
    )
    return Fields(film, stage, (note,) if found.kind == "telecined" else ())


def _even_film(info: VideoInfo, film_rate: float) -> Fields:
    """Return the way from film frames that last 3 and 2 fields by turns to those that last equally long.

    `film_rate` is the rate that was measured; the file may state that of the film, or that of the video.
    """
    rates = (info.rate, info.rate * Fraction(CYCLE - 1, CYCLE), *_FILM_RATES)
    rate = min(rates, key=lambda rate: abs(rate - film_rate))
    film = replace(info, rate=rate, stored_rate=info.rate, time_base=info.time_base / 2, variable_rate=None)
    note = f"The video is telecined film, by its flags: the frames of the film are shown evenly, {_rate(film)}."
    return Fields(film, EvenTimes(), (note,))


def _rate(info: VideoInfo) -> str:
    return f"{round(float(info.rate), 3):g} frames a second"
