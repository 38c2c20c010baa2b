"""Find out what a muxer refuses before any frame is computed: a throw-away file is written with the same stream."""

import io
from collections.abc import Callable
from typing import Any

import av
from av.container import OutputContainer

from .probe import codec_name
from .transfers import Transfer


def refusal(format: str, make: Callable[[OutputContainer], Transfer], source: Any) -> str | None:
    """Return the reason why a format, by FFmpeg's name of it, does not take a stream of a source; None if it does.

    `make` adds the stream to an output. Some muxers find what they do not take only when they write the header, a
    packet or, like MP4, the index at the end; others drop a stream without an error. So the header, the first packets
    and the trailer are written to memory, and the stream must be in the result.
    """
    file = io.BytesIO()
    count = 0
    try:
        with av.open(file, "w", format=format) as output:
            transfer = make(output)
            output.start_encoding()
            for packet in transfer.sample():
                output.mux_one(packet)
                count += 1
    except (ValueError, av.error.FFmpegError) as error:
        return getattr(error, "strerror", None) or str(error)
    if source.type == "attachment":
        return None if source.data in file.getvalue() else "its data are lost"
    return None if not count or _is_in(file, source) else "it is lost in the file"


def _is_in(file: io.BytesIO, source: Any) -> bool:
    """Return whether a file has a stream, and if the source's has data its kind of data."""
    file.seek(0)
    try:
        with av.open(file) as container:
            names = [codec_name(stream) for stream in container.streams]
    except av.error.FFmpegError:
        return False
    return codec_name(source) in names if source.type == "data" else bool(names)
