"""HDR metadata: the mastering display (SMPTE ST 2086) and the content light level (CTA-861.3) of a video."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.sidedata.sidedata import Type as SideDataType

from .side_data import side_data
from .tags import HLG, PQ, ColorTags

_Point = tuple[Fraction, Fraction]  # x and y of CIE 1931
_DYNAMIC = {
    SideDataType.DYNAMIC_HDR_PLUS: "HDR10+",
    SideDataType.DYNAMIC_HDR_VIVID: "HDR Vivid",
    SideDataType.DOVI_RPU_BUFFER: "Dolby Vision",
    SideDataType.DOVI_METADATA: "Dolby Vision",
}


@dataclass(frozen=True)
class HdrMetadata:
    """The HDR metadata of a video's first frame."""

    primaries: tuple[_Point, _Point, _Point, _Point] | None  # of the mastering display: red, green, blue, white
    luminance: tuple[Fraction, Fraction] | None  # of the mastering display: least and greatest, cd/m2
    content_light: tuple[int, int] | None  # greatest of a pixel, and greatest average of a frame, cd/m2
    dynamic: tuple[str, ...] = ()  # kinds of metadata that change from frame to frame

    def as_dict(self) -> dict[str, Any]:
        """Return the facts for printing and JSON."""
        facts: dict[str, Any] = {}
        if self.primaries is not None:
            names = ("red", "green", "blue", "white")
            facts |= {name: [float(x), float(y)] for name, (x, y) in zip(names, self.primaries, strict=True)}
        if self.luminance is not None:
            facts |= {"min_luminance": float(self.luminance[0]), "max_luminance": float(self.luminance[1])}
        if self.content_light is not None:
            facts |= {"max_content": self.content_light[0], "max_average": self.content_light[1]}
        return facts | ({"dynamic": list(self.dynamic)} if self.dynamic else {})


def read_hdr(frame: av.VideoFrame) -> HdrMetadata | None:
    """Return the HDR metadata of a decoded frame, or None if it has none."""
    data = side_data(frame)
    primaries, luminance = _mastering_display(data.get(SideDataType.MASTERING_DISPLAY_METADATA))
    light = data.get(SideDataType.CONTENT_LIGHT_LEVEL)
    content_light = None if light is None else struct.unpack("=II", bytes(light)[:8])
    dynamic = tuple(dict.fromkeys(name for kind, name in _DYNAMIC.items() if data.get(kind) is not None))
    if primaries is None and luminance is None and content_light is None and not dynamic:
        return None
    return HdrMetadata(primaries, luminance, content_light, dynamic)


def hdr_options(codec: str, hdr: HdrMetadata | None, options: Mapping[str, str]) -> dict[str, str]:
    """Return an encoder's options with those that carry the static metadata, if the encoder can."""
    options = dict(options)
    notation = _NOTATIONS.get(codec)
    if hdr is None or notation is None:
        return options
    parts = []
    if hdr.primaries is not None and hdr.luminance is not None:
        parts.append(f"{notation.display}={notation.mastering_display(hdr.primaries, hdr.luminance)}")
    if hdr.content_light is not None:
        parts.append("{}={},{}".format(notation.light, *hdr.content_light))
    if parts:
        options[notation.option] = ":".join([*parts, *notation.others, *filter(None, [options.get(notation.option)])])
    return options


def hdr_warnings(codec: str, tags: ColorTags, hdr: HdrMetadata | None) -> list[str]:
    """Return sentences on the metadata that an output of an encoder loses, and on the coding of its frames."""
    warnings = []
    if tags.transfer in (PQ, HLG):
        name = "PQ" if tags.transfer == PQ else "HLG"
        warnings.append(
            f"The video is HDR with the {name} transfer: its frames are processed in that coding, and not in the gamma"
            " coding that the networks were trained on."
        )
    if hdr is None:
        return warnings
    is_complete = hdr.primaries is not None and hdr.luminance is not None
    if (hdr.primaries or hdr.luminance) and not (is_complete and codec in _NOTATIONS):
        reason = "they are incomplete" if codec in _NOTATIONS else f"{codec} does not take them, as libx265 does"
        warnings.append(f"The metadata of the mastering display were left out: {reason}.")
    if hdr.content_light and codec not in _NOTATIONS:
        warnings.append(f"The content light level was left out: {codec} does not take it, as libx265 does.")
    warnings += [f"The {kind} metadata were left out: they belong to the frames of the input." for kind in hdr.dynamic]
    return warnings


def _mastering_display(data: Any) -> tuple[tuple[_Point, _Point, _Point, _Point] | None, _Point | None]:
    """Return the primaries and the luminance of an AVMasteringDisplayMetadata, each None if it is not set."""
    if data is None:
        return None, None
    *numbers, has_primaries, has_luminance = struct.unpack("=22i", bytes(data)[:88])
    values = [Fraction(n, d) if d else Fraction(0) for n, d in zip(numbers[::2], numbers[1::2], strict=True)]
    red, green, blue, white = ((values[i], values[i + 1]) for i in range(0, 8, 2))
    return (red, green, blue, white) if has_primaries else None, (values[8], values[9]) if has_luminance else None


@dataclass(frozen=True)
class _Notation:
    """The parameters in which an encoder takes the metadata."""

    option: str  # FFmpeg's option that holds them
    display: str
    light: str
    chromaticity: int | None  # units for 1; None: decimal numbers
    luminance: int | None  # units for 1 cd/m2
    others: tuple[str, ...] = ()

    def mastering_display(self, primaries: tuple[_Point, _Point, _Point, _Point], luminance: _Point) -> str:
        """Return the value of the parameter `display`."""
        red, green, blue, white = (
            "({},{})".format(*(_number(value, self.chromaticity) for value in point)) for point in primaries
        )
        least, most = (_number(value, self.luminance) for value in luminance)
        return f"G{green}B{blue}R{red}WP{white}L({most},{least})"


def _number(value: Fraction, units: int | None) -> str:
    return f"{float(value):.6f}" if units is None else str(round(value * units))


_NOTATIONS = {
    # With repeated headers players find the metadata wherever they begin to read.
    "libx265": _Notation("x265-params", "master-display", "max-cll", 50000, 10000, ("hdr10=1", "repeat-headers=1")),
    "libx264": _Notation("x264-params", "mastering-display", "cll", 50000, 10000),
    "libsvtav1": _Notation("svtav1-params", "mastering-display", "content-light", None, None),
}
