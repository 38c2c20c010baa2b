"""Frames of a client: their bytes, their options in an address, and live streams."""

import json
import threading
from collections.abc import Generator, Iterable, Mapping
from itertools import chain
from typing import Any
from urllib.parse import urlencode

import numpy as np

from ..contract.errors import RequestError, ServerError
from ..contract.picture import as_frame, to_uint16
from .client_socket import Socket, SocketClosed, open_socket
from .connection import Connection
from .frame_coding import decode_frame
from .frame_formats import FormatName, FrameFormat


def query_of(options: Mapping[str, Any]) -> dict[str, str]:
    """Return options as the server reads them in an address; those that are None are left out."""
    values = {}
    for name, value in options.items():
        if value is None:
            continue
        if name == "size" and not isinstance(value, str):
            values[name] = "{}x{}".format(*value)
        elif name == "times" and not isinstance(value, str):
            values[name] = ",".join(str(time) for time in value)
        else:
            values[name] = str(value)
    return values


def encode_frames(frames: list[np.ndarray]) -> tuple[FrameFormat, bytes]:
    """Return the format and the bytes of frames (3, h, w). Raises RequestError for none, and for different sizes."""
    if not frames:
        raise RequestError("There are no frames: give one or more.")
    frame_format = format_of(frames[0])
    return frame_format, b"".join(encode_frame(frame, frame_format) for frame in frames)


def format_of(frame: np.ndarray) -> FrameFormat:
    """Return the format in which a frame (3, h, w) is sent: raw, with 8 bits for uint8 and 16 for other types."""
    if frame.ndim != 3 or frame.shape[0] != 3:
        as_frame(frame)  # raises the error
    return FrameFormat("rgb24" if frame.dtype == np.uint8 else "rgb48le", frame.shape[2], frame.shape[1])


def encode_frame(frame: np.ndarray, frame_format: FrameFormat) -> bytes:
    """Return the bytes of a frame. Raises RequestError for one of another format or range."""
    if format_of(frame) != frame_format:
        raise RequestError("The frames have different sizes or types: give frames of one size and type.")
    if frame.dtype not in (np.uint8, np.uint16):
        frame = to_uint16(as_frame(frame), 0.0, 1.0)
    return frame.transpose(1, 2, 0).astype(f"<u{frame.itemsize}").tobytes()


def decode_frames(data: bytes, name: FormatName, size: tuple[int, int]) -> list[np.ndarray]:
    """Return the frames in some bytes, each (3, H, W) of a size (width, height)."""
    frame_format = FrameFormat(name, *size)
    return [decode_frame(frame, frame_format)[0] for frame in frame_format.split(data)]


def stream_frames(
    connection: Connection, frames: Iterable[np.ndarray], options: Mapping[str, Any]
) -> Generator[np.ndarray]:
    """Send frames through a WebSocket, and yield those that come back."""
    source = iter(frames)
    first = next(source, None)
    if first is None:
        return
    frame_format = format_of(first)
    params = urlencode({**frame_format.query, **query_of(options)})
    with open_socket(connection, f"/v1/stream?{params}") as socket:
        sender = _Sender(socket, chain([first], source), frame_format)
        sender.start()
        size, done = (0, 0), False
        try:
            while True:
                message = socket.receive()
                if isinstance(message, bytes):
                    yield from decode_frames(message, frame_format.name, size)
                    continue
                facts = json.loads(message)
                if facts["type"] == "opened":
                    size = facts["width"], facts["height"]
                elif facts["type"] == "done":
                    done = True
                    return
                else:
                    problem = facts["problem"]
                    raise ServerError(problem["detail"], problem["status"], problem["title"])
        except SocketClosed as error:
            if sender.error is not None:
                raise sender.error from None
            raise ServerError(f"{connection.url} has closed the stream ({error}): open it again.") from error
        finally:
            if not done:
                socket.abort()


class _Sender(threading.Thread):
    """Sends frames until they end or the socket closes; an error of theirs closes it."""

    def __init__(self, socket: Socket, frames: Iterable[np.ndarray], frame_format: FrameFormat) -> None:
        super().__init__(name="stvsr-send", daemon=True)
        self._socket, self._frames, self._format = socket, frames, frame_format
        self.error: BaseException | None = None

    def run(self) -> None:
        """Send the frames."""
        try:
            for frame in self._frames:
                self._socket.send(encode_frame(frame, self._format))
            self._socket.send(json.dumps({"type": "end"}))
        except SocketClosed:
            return
        except BaseException as error:
            self.error = error
            self._socket.abort()
