"""Temporal super-resolution from coarse to fine in space, with back-projection, in bounded memory.

Made small, motion is small too. The network doubles the rate of a small video, back-projection makes that twice as
large in each direction, which brings motion back to what the network knows, and so on.

Zuckerman et al., "Across Scales & Across Dimensions: Temporal Super-Resolution using Deep Internal Learning", 2020,
section 4.2 and figure 8.
"""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ..network import Network
from .video_resize import back_project, back_project_time, resize_space

FACTORS = (2, 4, 8)


def upscale_time(
    network: Network,
    frames: Iterable[Tensor],
    factor: int,
    coarse: int = 1,
    chunk: int = 8,
    tile_px: int = 160,
) -> Iterator[Tensor]:
    """Frames of one scene, each (3, h, w) in [0, 1] -> ``factor`` times as many, of the same size and range.

    The first doubling is of frames 1 / ``coarse`` as high and wide. Means of ``factor`` neighbouring results are the
    input again, but for clamping. At most ``chunk`` input frames and a few around them are held, and the network sees
    tiles of ``tile_px`` and what their edges depend on, so that neither changes a result. A scene of one frame stands
    still. Raises ``ValueError`` for a factor other than 2, 4 or 8, or a ``coarse`` that is no power of two.
    """
    if factor not in FACTORS:
        raise ValueError(f"the rate grows 2, 4 or 8 times, not {factor}")
    if coarse < 1 or coarse & (coarse - 1):
        raise ValueError(f"frames are made 1, 2, 4, ... times smaller, not {coarse}")
    overlap = network.window.overlap
    assert overlap is not None, "a network that doubles a sequence"
    # A doubling spoils `overlap` frames at a cut end, and those of later doublings are ever shorter.
    context = math.ceil(sum(overlap / 2**level for level in range(factor.bit_length() - 1)))
    for piece, first, last in _pieces(frames, chunk, context):
        made = _upscaled(network, torch.stack(piece), factor, coarse, tile_px)
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
def _upscaled(network: Network, frames: Tensor, factor: int, coarse: int, tile_px: int) -> Tensor:
    """(T, 3, h, w) -> (factor * T, 3, h, w), not clamped."""

    def seen() -> Tensor:
        return resize_space(frames, coarse_size(frames, coarse))

    video, rate = seen(), 1
    while rate < factor:
        video, rate = doubled(network, video, tile_px), 2 * rate
        if coarse == 1:
            video = back_project_time(video, frames)
        while coarse > 1:
            coarse //= 2
            video = back_project(video, seen())
            if rate < factor:
                break
    return video


def coarse_size(frames: Tensor, coarse: int) -> tuple[int, int]:
    """(height, width) of frames made ``coarse`` times smaller, rounded up, but two pixels at least."""
    height, width = (max(2, math.ceil(side / coarse)) for side in frames.shape[-2:])
    return height, width


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
