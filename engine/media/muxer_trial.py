"""Find out what a muxer refuses before any frame is computed: a throw-away file is written with the same stream."""

import io
from collections.abc import Callable

import av
from av.container import OutputContainer

from .transfers import Transfer


def refusal(format: str, make: Callable[[OutputContainer], Transfer], attachment: bytes = b"") -> str | None:
    """Return the reason why a format, by FFmpeg's name of it, does not take a stream; None if it does.

    `make` adds the stream to an output. Some muxers find what they do not take only when they write the header, a
    packet or, like MP4, the index at the end; others drop a stream without an error. So the header, the first packets
    and the trailer are written to memory, and the result must have the stream, or the bytes of the `attachment`.
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
    if (count and not _has_stream(file)) or attachment not in file.getvalue():
        return "the stream is lost in it"
    return None


def _has_stream(file: io.BytesIO) -> bool:
    file.seek(0)
    try:
        with av.open(file) as container:
            return len(container.streams) > 0
    except av.error.FFmpegError:
        return False
