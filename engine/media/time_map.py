"""The map from the clock of a source to that of an output which shows a part of it, or shows it slowly."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from av.packet import Packet

_EARLY_S = Fraction(1, 1000)  # a packet may begin so much before the part, as timestamps are rounded


@dataclass(frozen=True)
class TimeMap:
    """Moves and stretches times: `origin` seconds on the source's clock become `start` seconds in the output."""

    origin: Fraction
    start: Fraction
    slowness: Fraction = Fraction(1)  # seconds of the output for each second of the source
    until: Fraction | None = None  # seconds on the source's clock at which the part ends, about; None: at its end
    seekable: bool = False  # whether the clock of the file does not change before the part, so that it can be sought

    def shown(self, time: Fraction) -> Fraction:
        """Return the time in the output, in seconds, of a time on the source's clock."""
        return self.start + (time - self.origin) * self.slowness

    def original(self, time: Fraction) -> Fraction:
        """Return the time on the source's clock, in seconds, of a time in the output."""
        return self.origin + (time - self.start) / self.slowness

    def move(self, packet: Packet) -> bool:
        """Give a packet of the source its times in the output; return false for one that ends before the part.

        Text that is shown when the part begins is shown from there on. Pictures have no time.
        """
        if packet.stream.type == "video" or (packet.pts is None and packet.dts is None):
            return True  # without a time it is the empty packet at the end of a stream
        time_base = packet.time_base
        begin = (packet.pts if packet.pts is not None else packet.dts or 0) * time_base
        late = Fraction(0)
        if begin < self.origin - _EARLY_S:
            end = begin + (packet.duration or 0) * time_base
            if packet.stream.type != "subtitle" or end <= self.origin:
                return False
            late = self.origin - begin
        if packet.duration:
            packet.duration = round((packet.duration * time_base - late) * self.slowness / time_base)
        for name in ("pts", "dts"):
            ticks = getattr(packet, name)
            if ticks is not None:
                setattr(packet, name, round(self.shown(ticks * time_base + late) / time_base))
        return True

    def chapters(self, chapters: list[Any]) -> list[Any]:
        """Return those of a file's chapters that the part shows, with their times in the output."""
        return [moved for chapter in chapters if (moved := self._chapter(chapter)) is not None]

    def _chapter(self, chapter: Mapping[str, Any]) -> dict[str, Any] | None:
        time_base = chapter["time_base"]
        begin = max(self.origin, chapter["start"] * time_base)
        end = chapter["end"] * time_base if self.until is None else min(self.until, chapter["end"] * time_base)
        if begin >= end:
            return None
        ticks = {"start": round(self.shown(begin) / time_base), "end": round(self.shown(end) / time_base)}
        return {**chapter, **ticks}
