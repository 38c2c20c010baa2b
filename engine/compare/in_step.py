"""Frames of several videos or pictures at the same times and of the same size."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from ..contract.errors import RequestError
from ..contract.resize import resized
from ..media.alpha import AlphaReader
from ..media.frame import Frame, FrameReader
from ..media.orientation import turn_upright, upright_info
from ..media.probe import VideoInfo

_ROUNDING_S = Fraction(1, 500)  # by which containers round timestamps


def largest(readers: Sequence[FrameReader]) -> VideoInfo:
    """Return the description of the video with the largest frames, upright."""
    return max((upright_info(reader.info) for reader in readers), key=lambda info: info.width * info.height)


def fastest(readers: Sequence[FrameReader]) -> FrameReader:
    """Return the reader with the most frames, at whose times the others are shown."""
    return max(readers, key=lambda reader: (_count(reader), reader.info.rate))


def frames_in_step(readers: Sequence[FrameReader]) -> Iterator[tuple[Fraction, list[np.ndarray]]]:
    """Yield (time in seconds, a frame of each reader), frames as (H, W, 3) uint8 RGB of the size of the largest.

    The times are those of the reader with the most frames; another shows the frame that is on at that time. It ends
    where the shortest video does; a picture lasts. Raises MediaError for a file that cannot be decoded, and
    RequestError if one of the videos has no frame.
    """
    info, driver = largest(readers), fastest(readers)
    streams = [_Shown(reader, (info.height, info.width)) for reader in readers]
    leading = streams[list(readers).index(driver)]
    while leading.advance():
        time = leading.start
        if not all(stream is leading or stream.show(time) for stream in streams):
            return
        yield time, [stream.picture for stream in streams]


class _Shown:
    """The frame of a reader that is shown."""

    def __init__(self, reader: FrameReader, size: tuple[int, int]) -> None:
        self._path, self._matrix, self._size = reader.path, reader.info.display_matrix, size
        self._frames = iter(AlphaReader(reader, keep=False))
        self._next = next(self._frames, None)
        if self._next is None:
            raise RequestError(f"{reader.path} has no frames: compare other files.")
        self._first = self._next.pts  # the beginnings are compared, whatever the clocks
        self._is_still = _count(reader) == 1
        self.start = self._end = Fraction(0)
        self._frame: Frame | None = None
        self._picture: np.ndarray | None = None

    @property
    def picture(self) -> np.ndarray:
        """The frame that is shown, (H, W, 3) uint8."""
        if self._picture is None:
            assert self._frame is not None
            rgb = self._frame.rgb
            if self._matrix is not None:
                rgb = turn_upright(rgb, self._matrix)
            scaled = np.rint(np.clip(resized(rgb, self._size), 0, 1) * 255)
            self._picture = np.ascontiguousarray(scaled.astype(np.uint8).transpose(1, 2, 0))
        return self._picture

    def advance(self) -> bool:
        """Show the next frame, if there is one."""
        if self._next is None:
            return False
        self._frame, self._picture = self._next, None
        self.start = self._frame.pts - self._first
        self._end = self.start + self._frame.duration
        self._next = next(self._frames, None)
        return True

    def show(self, time: Fraction) -> bool:
        """Show the frame of a time, and return whether there is one."""
        if self._frame is None:
            self.advance()
        while self._next is not None and self._next.pts - self._first <= time + _ROUNDING_S:
            self.advance()
        return self._is_still or self._next is not None or time < self._end


def _count(reader: FrameReader) -> int:
    info = reader.info
    return info.frames or (0 if info.duration is None else int(info.duration * info.rate))
