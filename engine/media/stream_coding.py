"""Measures how a video was compressed: the bits of its packets, and the quantisers that the decoder states."""

from pathlib import Path

import av
from av.sidedata.sidedata import Type as SideDataType

from ..contract.coding import StreamCoding
from .image_files import is_images
from .opening import open_video
from .pipes import is_pipe
from .side_data import side_data

_FRAMES = 48  # from the beginning, that are measured at most
_STATED = ("h264",)  # codecs whose quantisers are on the scale of H.264


def measure_coding(path: str | Path) -> StreamCoding | None:
    """Return the compression of a video file by its first frames; None for images, pipes and what cannot be decoded."""
    if is_pipe(path) or is_images(path):
        return None
    container, stream = open_video(path)
    context = stream.codec_context
    if context.name in _STATED:
        context.options = {**context.options, "export_side_data": "venc_params"}
    bits = frames = 0
    quantisers: list[float] = []
    with container:
        try:
            for packet in container.demux(stream):
                bits += 8 * packet.size
                for frame in packet.decode():
                    frames += 1
                    if (quantiser := _quantiser(frame)) is not None:
                        quantisers.append(quantiser)
                if frames >= _FRAMES:
                    break
        except av.error.FFmpegError:
            pass  # reading the video names the damage
    if not frames or not (pixels := stream.width * stream.height):
        return None
    mean = sum(quantisers) / len(quantisers) if quantisers and context.name in _STATED else None
    return StreamCoding(context.name, bits / frames / pixels, mean)


def _quantiser(frame: av.VideoFrame) -> float | None:
    """Return the mean quantiser of a frame, or None if the decoder does not state it."""
    data = side_data(frame).get(SideDataType.VIDEO_ENC_PARAMS)
    if data is None:
        return None
    return float(data.qp_map().mean()) if data.nb_blocks else float(data.qp)
