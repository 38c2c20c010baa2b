"""Settings of a network's runs: its tiles, its optical flow, and the preset, of speed or of quality."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from ..contract.errors import RequestError

Preset = Literal["fast", "balanced", "best"]
PRESETS: tuple[Preset, ...] = get_args(Preset)


class Mirroring(NamedTuple):
    """The axes along which frames are reversed."""

    rows: bool
    columns: bool


# The mirrorings in which a network sees each window. Turned frames have other sizes, and gain little more.
MIRRORINGS: dict[Preset, tuple[Mirroring, ...]] = {
    "fast": (Mirroring(False, False),),
    "balanced": (Mirroring(False, False), Mirroring(True, True)),
    "best": tuple(Mirroring(rows, columns) for rows in (False, True) for columns in (False, True)),
}


@dataclass(frozen=True)
class Inference:
    """The settings of an upscaler that its frames depend on, beside the bundle and the backend; see `Upscaler`.

    Raises RequestError for an unknown preset.
    """

    tile: int | None = None
    flow: str | None = None
    preset: Preset = "fast"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise RequestError(f"Unknown preset '{self.preset}': use {', '.join(PRESETS[:-1])} or {PRESETS[-1]}.")

    @property
    def mirrorings(self) -> tuple[Mirroring, ...]:
        """The mirrorings of the preset."""
        return MIRRORINGS[self.preset]
