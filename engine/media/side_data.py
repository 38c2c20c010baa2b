"""The data beside a decoded frame, such as its orientation and its HDR metadata."""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import av
from av.filter import Graph

_UNKNOWN = re.compile(r"(\d+) is not a valid")  # a kind that FFmpeg has and PyAV has not, such as EXIF


def side_data(frame: av.VideoFrame) -> Mapping[Any, Any]:
    """Return the data beside a frame by their kind, without those kinds that PyAV does not know."""
    while True:
        try:
            data: Mapping[Any, Any] = frame.side_data
        except ValueError as error:
            if (unknown := _UNKNOWN.search(str(error))) is None:
                raise
            frame = _without(frame, int(unknown[1]))
        else:
            return data


def _without(frame: av.VideoFrame, kind: int) -> av.VideoFrame:
    """Return a frame without its data of one kind."""
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
    graph.link_nodes(source, graph.add("sidedata", f"mode=delete:type={kind}"), graph.add("buffersink")).configure()
    graph.push(frame)
    result = graph.pull()
    assert isinstance(result, av.VideoFrame)
    return result
