"""Payloads of messages between two processes: small ones in the message, large ones in memory that both have open.

On Linux that takes a fifth of the processor time of a pipe for a frame of 1920x1080. The memory has no name, so that
nothing is left of it when a process dies. Elsewhere every payload is in its message.
"""

import os
from collections.abc import Iterator
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import NamedTuple

from ..contract.closing import Closing

INLINE_BYTES = 1 << 16
UNDER_WAY = 2  # frames of a stream in each direction that the receiver has not taken yet


class Shared(NamedTuple):
    """A payload in shared memory."""

    slot: int
    length: int
    is_new: bool  # its file descriptor follows the message


class PayloadWriter(Closing):
    """Packs the payloads of one sender, of which at most `slots` are under way."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._files: dict[int, int] = {}
        self._next = 0

    def pack(self, payload: bytes) -> "bytes | Shared":
        """Return the payload, or a reference to the memory that it is in."""
        if len(payload) <= INLINE_BYTES or not hasattr(os, "memfd_create"):
            return payload
        slot, self._next = self._next, (self._next + 1) % self._slots
        is_new = slot not in self._files
        try:
            if is_new:
                self._files[slot] = os.memfd_create("stvsr-frame")
            written = 0
            while written < len(payload):
                written += os.pwrite(self._files[slot], memoryview(payload)[written:], written)
        except OSError:  # there is no memory or file descriptor for it
            if slot in self._files:
                os.close(self._files.pop(slot))
            return payload
        return Shared(slot, len(payload), is_new)

    def send_file(self, connection: Connection, packed: "bytes | Shared") -> None:
        """Send what follows the message with this payload."""
        if isinstance(packed, Shared) and packed.is_new:
            reduction.send_handle(connection, self._files[packed.slot], 0)

    def close(self) -> None:
        """Close the memory, which the reader keeps as long as it needs it."""
        while self._files:
            os.close(self._files.popitem()[1])


class PayloadReader(Closing):
    """Unpacks the payloads of one sender, each directly after its message."""

    def __init__(self) -> None:
        self._files: dict[int, int] = {}

    def unpack(self, connection: Connection, packed: "bytes | Shared") -> bytes:
        """Return a copy of the payload."""
        if not isinstance(packed, Shared):
            return packed
        if packed.is_new:
            self._replace(packed.slot, reduction.recv_handle(connection))
        return b"".join(self._parts(self._files[packed.slot], packed.length))

    def close(self) -> None:
        """Close the memory."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _replace(self, slot: int, file: int) -> None:
        if slot in self._files:
            os.close(self._files[slot])
        self._files[slot] = file

    def _parts(self, file: int, length: int) -> Iterator[bytes]:
        position = 0
        while position < length:
            part = os.pread(file, length - position, position)
            if not part:
                raise EOFError("the payload is shorter than its message states")
            position += len(part)
            yield part


def discard(connection: Connection, packed: "bytes | Shared") -> None:
    """Take what follows a message whose payload nobody reads."""
    if isinstance(packed, Shared) and packed.is_new:
        os.close(reduction.recv_handle(connection))
