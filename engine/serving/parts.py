"""Parts of the video of a job, as the server names them to the process that reads them."""

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple


class StoredPart(NamedTuple):
    """A finished segment: its file, and the ticks of its packets in the order of decoding."""

    path: Path
    ticks: tuple[int, ...]


class ResultPart(NamedTuple):
    """A part of the result; see `JoinedPart` in engine/media/fragments.py."""

    path: Path
    start: int
    low: int
    high: int
    time_base: Fraction


PartSource = StoredPart | ResultPart


class FragmentOptions(NamedTuple):
    """The options of `write_fragments` in engine/media/fragments.py."""

    time_base: Fraction
    end: int
    delay: int
    number: int
