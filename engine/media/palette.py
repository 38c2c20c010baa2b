"""Colors of GIF: a palette of 256 colors for each frame, and dithering."""

from collections.abc import Iterator
from fractions import Fraction

import av

_INPUT = "bgra"  # the only pixel format that FFmpeg's palette filters take


class Palette:
    """A palette for every frame of its own, so that memory does not grow with the length of the video."""

    def __init__(self, size: tuple[int, int], time_base: Fraction, alpha: bool) -> None:
        self._graph = av.filter.Graph()
        self._source = self._graph.add_buffer(
            width=size[0], height=size[1], format=av.VideoFormat(_INPUT), time_base=time_base
        )
        split = self._graph.add("split")
        generate = self._graph.add("palettegen", f"stats_mode=single:reserve_transparent={int(alpha)}")
        use = self._graph.add("paletteuse", "new=1:dither=sierra2_4a:alpha_threshold=128")
        self._sink = self._graph.add("buffersink")
        self._source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(generate, 1, 0)
        generate.link_to(use, 0, 1)
        use.link_to(self._sink)
        self._graph.configure()

    def apply(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """Take the next frame, and yield those that are ready, in the format pal8."""
        ready = frame.reformat(format=_INPUT, threads=1)
        ready.pts, ready.time_base = frame.pts, frame.time_base
        self._source.push(ready)
        yield from self._ready()

    def finish(self) -> Iterator[av.VideoFrame]:
        """Yield the frames that remain."""
        self._source.push(None)
        yield from self._ready()

    def _ready(self) -> Iterator[av.VideoFrame]:
        while True:
            try:
                frame = self._sink.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            assert isinstance(frame, av.VideoFrame)
            yield frame
