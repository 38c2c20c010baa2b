"""Damage of an input that is repaired instead of ending the reading, and the record of what was repaired."""

from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any, Literal

OnDamage = Literal["stop", "repeat", "skip"]
Action = Literal["repeated", "left out", "missing"]
ON_DAMAGE: tuple[OnDamage, ...] = ("stop", "repeat", "skip")

_MOST_SENTENCES = 8


@dataclass(frozen=True)
class Repair:
    """A span of an input that was damaged, and what stands for it in the output."""

    stream: str  # "video", or such as "audio stream 1 (aac)"
    start_s: float  # times are those of the input, from the beginning of its earliest stream on
    end_s: float
    lost: int  # frames of the video, or packets of another stream
    action: Action
    reason: str
    traces_until_s: float | None = None  # up to which frames refer to damaged ones, and may show it

    @property
    def sentence(self) -> str:
        """The repair in words."""
        unit = "frame" if self.stream == "video" else "packet"
        units = f"{self.lost} {unit}{'s' * (self.lost != 1)}"
        span = f"of the {self.stream} from {self.start_s:.3f} to {self.end_s:.3f} s"
        verb = "was" if self.lost == 1 else "were"
        result = {
            "repeated": f"{units} {span} {verb} damaged, and the frame before was repeated",
            "left out": f"{units} {span} {verb} damaged, and left out",
            "missing": f"The end {span} is missing",
        }[self.action]
        traces = ""
        if self.traces_until_s is not None:
            traces = f" Frames up to {self.traces_until_s:.3f} s refer to damaged ones, and may show traces of it."
        return f"{result} ({self.reason}).{traces}"

    def as_dict(self) -> dict[str, Any]:
        """Return the repair as a dictionary for JSON."""
        return asdict(self)


class RepairLog:
    """Collects repairs, and makes one of neighbouring ones."""

    def __init__(self) -> None:
        self.repairs: list[Repair] = []

    def add(
        self,
        stream: str,
        start: Fraction,
        end: Fraction,
        action: Action,
        reason: str,
        lost: int = 1,
    ) -> None:
        """Add a repair from `start` to `end`, in seconds."""
        last = next((one for one in reversed(self.repairs) if one.stream == stream), None)
        length = float(end - start)
        if last is not None and last.action == action and float(start) <= last.end_s + length / 2:
            merged = replace(last, end_s=max(last.end_s, float(end)), lost=last.lost + lost)
            self.repairs[self.repairs.index(last)] = merged
            return
        self.repairs.append(Repair(stream, float(start), float(end), lost, action, reason))

    def trace(self, until: Fraction) -> None:
        """State that the frames of the video up to a time refer to those that were damaged last."""
        number = next(n for n in reversed(range(len(self.repairs))) if self.repairs[n].stream == "video")
        self.repairs[number] = replace(self.repairs[number], traces_until_s=float(until))


def repair_sentences(repairs: list[Repair]) -> list[str]:
    """Return the repairs in words, and of many only the first."""
    sentences = [one.sentence for one in repairs[:_MOST_SENTENCES]]
    if len(repairs) > _MOST_SENTENCES:
        sentences.append(f"{len(repairs) - _MOST_SENTENCES} more spans were damaged, which the JSON report lists.")
    return sentences
