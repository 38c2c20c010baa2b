"""Options of reading a video: its part, fields, damage and decoding units."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from ..contract.errors import RequestError
from .damage import ON_DAMAGE, OnDamage

FieldRate = Literal["double", "single"]
# Filters that take interlaced frames, and their names of the double and of the single rate.
FILTERS = {
    "bwdif": ("send_field", "send_frame"),
    "yadif": ("send_field", "send_frame"),
    "w3fdif": ("field", "frame"),
    "estdif": ("field", "frame"),
}
DEINTERLACE = ("auto", "off", *FILTERS, "ivtc")
HWACCELS = ("none", "auto", "cuda")
FIELD_RATES: tuple[FieldRate, ...] = ("double", "single")


@dataclass(frozen=True)
class Part:
    """The frames of a video from `start` up to and without `end`, in seconds from the beginning of its first stream."""

    start: Fraction | None = None
    end: Fraction | None = None
    frames: int | None = None  # at most so many
    slowness: Fraction = Fraction(1)  # how many times longer every frame is shown


@dataclass(frozen=True)
class ReadOptions:
    """Options of reading a video. Raises RequestError for an unknown value.

    deinterlace: "auto" (interlaced and telecined video is found, and made progressive), "off", one of FFmpeg's
    deinterlacers, or "ivtc" (telecine is undone). field_rate: one frame for each field, or for each frame.
    on_damage: "stop" with an error, "repeat" the frame before a damaged one, or "skip" damaged frames.
    hwaccel: "none": the CPU decodes; "auto": an NVIDIA GPU's unit, where there is one that serves the video; "cuda":
    the same, with a warning where the CPU decodes. A unit does not find all damage that the CPU's decoders find.
    """

    deinterlace: str = "off"
    field_rate: str = "double"
    on_damage: OnDamage = "stop"
    hwaccel: str = "none"

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("--deinterlace", self.deinterlace, DEINTERLACE),
            ("--field-rate", self.field_rate, FIELD_RATES),
            ("--on-damage", self.on_damage, ON_DAMAGE),
            ("--hwaccel", self.hwaccel, HWACCELS),
        ):
            if value not in allowed:
                raise RequestError(f"{name} is '{value}': choose one of {', '.join(allowed)}.")
        if self.hwaccel == "cuda" and self.on_damage != "stop":
            raise RequestError(
                f"--on-damage {self.on_damage} needs the CPU's decoders, which find damage: leave out --hwaccel cuda."
            )
