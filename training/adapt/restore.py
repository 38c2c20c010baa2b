"""A clip restored by a network in PyTorch, one frame after another: what adaptation learns from and is judged by."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...engine.contract.errors import AdaptationError
from ...engine.contract.manifest import ContinuousTime, FixedFactors, SlidingWindow
from ...engine.contract.windows import window_numbers
from ..data import Flow
from ..networks.base import Network
from ..resize import to_uint8
from ..trainer import made_frames

# (a scene (N, 3, h, w) in [0, 1], places in it) -> of each place its frame restored, (3, H, W) in [0, 1]
Restore = Callable[[Tensor, Sequence[int]], Iterable[Tensor]]

FREE_SCALE = 4  # of a network that takes any


def enlargement(network: Network) -> int:
    """How much larger a network makes frames; ``AdaptationError`` if it does not."""
    scale = network.space.factors[0] if isinstance(network.space, FixedFactors) else FREE_SCALE
    if scale == 1:
        raise AdaptationError(
            f"{type(network).__name__} makes no frame larger, so its results hold no targets to learn from: adapt a"
            " network that enlarges, or take another method."
        )
    return scale


def window_inputs(network: Network, frames: Tensor, flow: Flow | None, time: Tensor | None = None) -> list[Tensor]:
    """What a network takes, of batch 1, from the frames of one window, (N, 3, h, w) in [0, 1].

    ``time`` is for a network whose time is free: (K,) of a pair, () else. Raises ``AdaptationError`` for a network that
    takes optical flow where there is no ``flow``.
    """
    inputs = [frames[None]]
    if network.flows:
        if flow is None:
            raise AdaptationError(f"{type(network).__name__} takes optical flow: give what computes it.")
        pictures = [to_uint8(frame) for frame in frames.permute(0, 2, 3, 1).cpu().numpy()]
        for wanted in network.flows:
            found = np.stack([flow(pictures[a], pictures[b], wanted.method) for a, b in wanted.pairs])
            inputs.append(torch.from_numpy(found)[None].to(frames))
    if isinstance(network.time, ContinuousTime):
        assert time is not None
        inputs.append(time[None].to(frames))
    return inputs


@torch.no_grad()
def restored_frames(
    network: Network, frames: Tensor, places: Sequence[int], flow: Flow | None = None
) -> Iterator[Tensor]:
    """A scene's frames (N, 3, h, w) in [0, 1] at some places, each restored: (3, s * h, s * w) in [0, 1].

    A frame stands in its window as the engine feeds it: alone in the middle of a sliding one; of a run or a pair, which
    give several frames, each run is computed once.
    """
    scale = enlargement(network)
    h, w = frames.shape[-2:]
    made: dict[int, Tensor] = {}
    for place in places:
        if place not in made:
            made = _window(network, frames, place, flow, scale)
        yield made[place][:, : scale * h, : scale * w].clamp(0, 1).to(frames)


def _window(network: Network, frames: Tensor, place: int, flow: Flow | None, scale: int) -> dict[int, Tensor]:
    """Run one window that holds a place: place -> (3, H, W), padding included."""
    window, count = network.window, len(frames)
    time: Tensor | None = None
    if isinstance(window, SlidingWindow):
        seen, results = window_numbers(window, place, count - 1), {place: 0}
    else:
        first = _run_start(place, window.frames, count)
        seen = [min(first + k, count - 1) for k in range(window.frames)]
        times = {first + k: 2 * k for k in range(window.frames)}
        results = {p: index for p, index in times.items() if p < count and _run_start(p, window.frames, count) == first}
        time = torch.tensor(0.5)
        if window.kind == "pair":
            time = torch.tensor([float(place != first)])
            results = {place: 0}
    shown = pad_frames(network, frames[seen]).to(next(network.parameters()))
    size = [scale * n for n in shown.shape[-2:]]
    out = made_frames(network, window_inputs(network, shown, flow, time), size)[0]
    return {at: out[index] for at, index in results.items()}


def _run_start(place: int, length: int, count: int) -> int:
    """Where the run starts of which a place is restored: each shares a frame with the next, the last reaches back."""
    return max(0, min(place - place % (length - 1), count - length))


def pad_frames(network: Network, frames: Tensor) -> Tensor:  # (N, 3, h, w) -> (N, 3, h', w')
    """Repeat the last row and column until the network takes the frames."""
    rows, columns = (network.size.padded(n) - n for n in frames.shape[-2:])
    return F.pad(frames, (0, columns, 0, rows), mode="replicate") if rows or columns else frames


def restoring(network: Network, flow: Flow | None = None) -> Restore:
    """The network, as it is, as what restores a clip."""

    def restore(frames: Tensor, places: Sequence[int]) -> Iterator[Tensor]:
        return restored_frames(network, frames, places, flow)

    return restore


def picture(frame: Tensor) -> Any:
    """(3, H, W) in [0, 1] -> (H, W, 3) of 8 bits."""
    return to_uint8(frame.permute(1, 2, 0).cpu().numpy())
