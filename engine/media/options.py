"""Options of reading a video: fields and damage."""

from dataclasses import dataclass
from typing import Literal

from ..contract.errors import RequestError
from .damage import ON_DAMAGE, OnDamage
from .deinterlace import FILTERS

FieldRate = Literal["double", "single"]
DEINTERLACE = ("auto", "off", *FILTERS, "ivtc")
FIELD_RATES: tuple[FieldRate, ...] = ("double", "single")


@dataclass(frozen=True)
class ReadOptions:
    """Options of reading a video. Raises RequestError for an unknown value.

    deinterlace: "auto" (interlaced and telecined video is found, and made progressive), "off", one of FFmpeg's
    deinterlacers, or "ivtc" (telecine is undone). field_rate: one frame for each field, or for each frame.
    on_damage: "stop" with an error, "repeat" the frame before a damaged one, or "skip" damaged frames.
    """

    deinterlace: str = "off"
    field_rate: str = "double"
    on_damage: OnDamage = "stop"

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("--deinterlace", self.deinterlace, DEINTERLACE),
            ("--field-rate", self.field_rate, FIELD_RATES),
            ("--on-damage", self.on_damage, ON_DAMAGE),
        ):
            if value not in allowed:
                raise RequestError(f"{name} is '{value}': choose one of {', '.join(allowed)}.")
