"""The times of frames in files that store none: the packets of AVI have a number in the order of decoding alone."""

from heapq import heappop, heappush

import av
from av.packet import Packet
from av.video.stream import VideoStream


def is_reordered(stream: VideoStream) -> bool:
    """Return whether a file without times has frames that are decoded before others and shown after them.

    Then the time of a frame follows from all those before it.
    """
    return stream.container.format.name == "avi" and bool(stream.codec_context.has_b_frames)


class DecodingOrder:
    """The times of the frames of such a file, which the decoder returns in the order in which they are shown."""

    def __init__(self) -> None:
        self._numbers: list[int] = []  # a heap of the times that no frame has yet
        self._decoding: set[int] = set()  # numbers of packets whose frames have not come yet

    def add(self, packet: Packet) -> None:
        """Add a packet, whose timestamp becomes its number."""
        packet.pts = packet.dts
        if packet.size and packet.pts is not None:
            heappush(self._numbers, packet.pts)
            self._decoding.add(packet.pts)

    def drop(self, packet: Packet) -> None:
        """Forget a packet that cannot be decoded."""
        if packet.pts in self._decoding:
            self._decoding.remove(packet.pts)
            self._numbers = sorted({*self._numbers} - {packet.pts})

    def set_time(self, frame: av.VideoFrame) -> None:
        """Set the timestamp of the next frame that the decoder returns."""
        if frame.pts is None or frame.pts not in self._decoding:
            return
        self._decoding.discard(frame.pts)
        if frame.key_frame:  # no frame that is decoded before it is shown after it: those were lost
            lost = {number for number in self._decoding if number < frame.pts}
            self._decoding -= lost
            for _ in lost:
                heappop(self._numbers)
        frame.pts = heappop(self._numbers)
