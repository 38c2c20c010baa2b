"""Temporal super-resolution from coarse to fine in space, with back-projection, in bounded memory.

Motion is smaller in smaller frames. The network doubles the rate of a small video, and back-projection enlarges the
result step by step, by two in each direction. Each further doubling works on frames twice as large, as the motion
between neighbouring frames has halved.

Zuckerman et al., "Across Scales & Across Dimensions: Temporal Super-Resolution using Deep Internal Learning", 2020,
section 4.2 and figure 8.

`stvsr.engine.pipeline.back_projection` does the same in NumPy for inference, which must not import PyTorch;
`tests/engine/pipeline/test_back_projection.py` compares the two.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from ...engine.contract.manifest import DoubledWindow
from ...engine.contract.resize import coarse_size
from ..data import Flow
from ..networks.base import Network
from .video_resize import back_project, back_project_time, resize_space

FACTORS = (2, 4, 8)
_BEST_MOTION_PX = 3.0  # motion from frame to frame, in pixels, that such a network learns best
_FLOW = "farneback"
_MAX_COARSE = 8
_MIN_SIDE_PX = 32  # smallest side of frames that are still worth learning from
_MEASURED_PAIRS = 6  # pairs of frames whose motion is measured


def upscale_time(
    network: Network, frames: Iterable[Tensor], factor: int, chunk: int = 8, tile_px: int = 160
) -> Iterator[Tensor]:
    """Multiply the frame rate of one scene: yield `factor` frames for each input frame.

    Frames are (3, h, w) in [0, 1], inputs and results alike. `network` doubles a sequence; the first doubling is of
    frames 1 / `network.window.coarse` as high and wide. The mean of `factor` neighbouring results is the input frame,
    except where results are clamped. At most `chunk` input frames and a few around them are buffered, and the network
    runs on tiles of `tile_px` with their halo, so that neither changes a result. A scene of one frame stays still.
    Raises ValueError for a factor other than 2, 4 or 8.
    """
    if factor not in FACTORS:
        raise ValueError(f"the frame rate can be multiplied 2, 4 or 8 times, not {factor}")
    assert isinstance(network.window, DoubledWindow), "only networks that double a sequence are supported"
    overlap = network.window.overlap
    # A doubling spoils `overlap` frames at a cut end, and the frames of later doublings are shorter each time.
    context = math.ceil(sum(overlap / 2**level for level in range(factor.bit_length() - 1)))
    for inputs, first, end in _chunks(frames, chunk, context):
        outputs = _upscale(network, torch.stack(inputs), factor, tile_px)
        yield from outputs[first * factor : end * factor].clamp(0, 1)


def _chunks(frames: Iterable[Tensor], chunk: int, context: int) -> Iterator[tuple[list[Tensor], int, int]]:
    """Yield chunks of neighbouring frames with their context, and the range (first, end) of those to upscale."""
    buffer: list[Tensor] = []
    first = 0  # index in the buffer of the first frame that is not upscaled yet
    for frame in frames:
        buffer.append(frame)
        if len(buffer) == first + chunk + context:
            yield buffer, first, first + chunk
            unused = max(0, first + chunk - context)
            buffer, first = buffer[unused:], first + chunk - unused
    if len(buffer) == 1:
        yield buffer * 2, 0, 1  # the network takes two frames at least
    elif len(buffer) > first:
        yield buffer, first, len(buffer)


@torch.no_grad()
def _upscale(network: Network, video: Tensor, factor: int, tile_px: int) -> Tensor:
    """(T, 3, h, w) -> (factor * T, 3, h, w), not clamped."""
    assert isinstance(network.window, DoubledWindow)
    coarse = network.window.coarse or 1
    while factor > 1:
        faster = double_rate(network, resize_space(video, coarse_size(video.shape[-2:], coarse)), tile_px).clamp(0, 1)
        if coarse == 1:
            faster = back_project_time(faster, video)
        for level in reversed(range(coarse.bit_length() - 1)):
            faster = back_project(faster, resize_space(video, coarse_size(video.shape[-2:], 2**level)))
        video, factor, coarse = faster, factor // 2, max(1, coarse // 2)
    return video


def coarse_by_motion(frames: Tensor, flow: Flow) -> int:
    """Return how many times smaller the frames of a scene should be made, by the length of their motion: 1, 2, 4 or 8.

    `frames` is (N, 3, h, w) in [0, 1]. `flow` measures the motion from one frame to the next, of a few pairs that are
    evenly spaced over the scene.
    """
    pictures = (frames.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    pairs = len(pictures) - 1
    indices = np.unique(np.linspace(0, pairs - 1, min(_MEASURED_PAIRS, pairs)).round().astype(int))
    flows = [flow(pictures[index], pictures[index + 1], _FLOW) for index in indices]
    lengths = [np.hypot(dx, dy).mean() for dx, dy in flows]
    level = round(math.log2(max(1.0, float(np.mean(lengths)) / _BEST_MOTION_PX))) if lengths else 0
    max_level = max(1, min(frames.shape[-2:]) // _MIN_SIDE_PX).bit_length() - 1
    return 2 ** min(level, max_level, _MAX_COARSE.bit_length() - 1)


def double_rate(network: Network, video: Tensor, tile_px: int) -> Tensor:
    """Run the network on a video tile by tile: (T, 3, h, w) -> (2T, 3, h, w), not clamped."""
    height, width = video.shape[-2:]
    halo = network.halo_px
    assert halo is not None, "only networks that can be tiled are supported"
    output = video.new_empty(2 * len(video), *video.shape[1:])
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            y, x = max(0, top - halo), max(0, left - halo)
            tile = network(video[None, ..., y : top + tile_px + halo, x : left + tile_px + halo])[0]
            core = tile[..., top - y : top - y + tile_px, left - x : left - x + tile_px]
            output[..., top : top + core.shape[-2], left : left + core.shape[-1]] = core
    return output
