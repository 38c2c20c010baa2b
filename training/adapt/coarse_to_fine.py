"""Temporal super-resolution from coarse to fine in space, with back-projection, in bounded memory.

Made small, motion is small too. The network doubles the rate of a small video, and back-projection enlarges that step
by step, by two in each direction. Each further doubling sees frames twice as large, as motion between them is half.

Zuckerman et al., "Across Scales & Across Dimensions: Temporal Super-Resolution using Deep Internal Learning", 2020,
section 4.2 and figure 8.
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
_KNOWN_PX = 3.0  # motion from frame to frame, in pixels, that a network of this kind learns best
_FLOW = "farneback"
_MOST_COARSE = 8
_LEAST_PX = 32  # sides of frames that are still worth learning from
_MEASURED = 6  # pairs of frames whose motion is measured


def upscale_time(
    network: Network, frames: Iterable[Tensor], factor: int, chunk: int = 8, tile_px: int = 160
) -> Iterator[Tensor]:
    """Frames of one scene, each (3, h, w) in [0, 1] -> ``factor`` times as many, of the same size and range.

    The first doubling is of frames 1 / ``network.window.coarse`` as high and wide. Means of ``factor`` neighbouring
    results are the input again, but for clamping. At most ``chunk`` input frames and a few around them are held, and
    the network sees tiles of ``tile_px`` and what their edges depend on, so that neither changes a result. A scene of
    one frame stands still. Raises ``ValueError`` for a factor other than 2, 4 or 8.
    """
    if factor not in FACTORS:
        raise ValueError(f"the rate grows 2, 4 or 8 times, not {factor}")
    assert isinstance(network.window, DoubledWindow), "a network that doubles a sequence"
    overlap = network.window.overlap
    # A doubling spoils `overlap` frames at a cut end, and those of later doublings are ever shorter.
    context = math.ceil(sum(overlap / 2**level for level in range(factor.bit_length() - 1)))
    for piece, first, last in _pieces(frames, chunk, context):
        made = _upscaled(network, torch.stack(piece), factor, tile_px)
        yield from made[first * factor : last * factor].clamp(0, 1)


def _pieces(frames: Iterable[Tensor], chunk: int, context: int) -> Iterator[tuple[list[Tensor], int, int]]:
    """Neighbouring frames, and which of them are to be made: from the first to before the last."""
    held: list[Tensor] = []
    made = 0  # of those held
    for frame in frames:
        held.append(frame)
        if len(held) == made + chunk + context:
            yield held, made, made + chunk
            spent = max(0, made + chunk - context)
            held, made = held[spent:], made + chunk - spent
    if len(held) == 1:
        held = held * 2  # the network sees two at least
        yield held, 0, 1
    elif len(held) > made:
        yield held, made, len(held)


@torch.no_grad()
def _upscaled(network: Network, video: Tensor, factor: int, tile_px: int) -> Tensor:
    """(T, 3, h, w) -> (factor * T, 3, h, w), not clamped."""
    assert isinstance(network.window, DoubledWindow)
    coarse = network.window.coarse or 1
    while factor > 1:
        made = doubled(network, resize_space(video, coarse_size(video.shape[-2:], coarse)), tile_px).clamp(0, 1)
        if coarse == 1:
            made = back_project_time(made, video)
        for smaller in reversed(range(coarse.bit_length() - 1)):
            made = back_project(made, resize_space(video, coarse_size(video.shape[-2:], 2**smaller)))
        video, factor, coarse = made, factor // 2, max(1, coarse // 2)
    return video


def coarse_by_motion(frames: Tensor, flow: Flow) -> int:
    """How many times smaller frames (N, 3, h, w) in [0, 1] are to be made, by how far they move: 1, 2, 4 or 8.

    ``flow`` measures that, from one frame to the next, at a few places of the scene.
    """
    pictures = (frames.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    pairs = len(pictures) - 1
    chosen = np.unique(np.linspace(0, pairs - 1, min(_MEASURED, pairs)).round().astype(int))
    flows = [flow(pictures[number], pictures[number + 1], _FLOW) for number in chosen]
    lengths = [np.hypot(dx, dy).mean() for dx, dy in flows]
    wanted = round(math.log2(max(1.0, float(np.mean(lengths)) / _KNOWN_PX))) if lengths else 0
    room = max(1, min(frames.shape[-2:]) // _LEAST_PX).bit_length() - 1
    return 2 ** min(wanted, room, _MOST_COARSE.bit_length() - 1)


def doubled(network: Network, video: Tensor, tile_px: int) -> Tensor:
    """What the network makes of a video, tile by tile. (T, 3, h, w) -> (2T, 3, h, w), not clamped"""
    height, width = video.shape[-2:]
    halo = network.halo_px
    assert halo is not None, "a network that can be tiled"
    out = video.new_empty(2 * len(video), *video.shape[1:])
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            y, x = max(0, top - halo), max(0, left - halo)
            tile = network(video[None, ..., y : top + tile_px + halo, x : left + tile_px + halo])[0]
            inner = tile[..., top - y : top - y + tile_px, left - x : left - x + tile_px]
            out[..., top : top + inner.shape[-2], left : left + inner.shape[-1]] = inner
    return out
