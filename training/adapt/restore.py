"""Restoration of a clip by a network in PyTorch, frame by frame: adaptation learns from it and is judged by it."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...engine.contract.errors import AdaptationError
from ...engine.contract.manifest import ContinuousTime, FixedFactors, SlidingWindow
from ...engine.contract.windows import window_numbers
from ..data import Flow
from ..inference import run_network
from ..networks.base import Network
from ..resize import to_uint8

# (a scene (N, 3, h, w) in [0, 1], indices of frames) -> the restored frame of each index, (3, H, W) in [0, 1]
Restore = Callable[[Tensor, Sequence[int]], Iterable[Tensor]]

FREE_SCALE = 4  # the scale at which a network of any scale is adapted


def enlarges(network: Network) -> bool:
    """Return whether a network enlarges frames."""
    return not isinstance(network.space, FixedFactors) or network.space.factors[0] > 1


def upscale_factor(network: Network) -> int:
    """Return the spatial scale at which a network is adapted; raises AdaptationError if it does not enlarge frames."""
    scale = network.space.factors[0] if isinstance(network.space, FixedFactors) else FREE_SCALE
    if not enlarges(network):
        raise AdaptationError(
            f"{type(network).__name__} does not enlarge frames, so its results cannot be its targets: adapt a network"
            " that enlarges, or choose another method."
        )
    return scale


def window_inputs(network: Network, frames: Tensor, flow: Flow | None, time: Tensor | None = None) -> list[Tensor]:
    """Return all inputs of a network, with a batch of 1, for the frames of one window, (N, 3, h, w) in [0, 1].

    `time` is for a network of continuous time: (K,) for a pair, () otherwise. Raises AdaptationError if the network
    takes optical flow and `flow` is None.
    """
    inputs = [frames[None]]
    if network.flows:
        if flow is None:
            raise AdaptationError(f"{type(network).__name__} takes optical flow: pass a function that computes it.")
        pictures = [to_uint8(frame) for frame in frames.permute(0, 2, 3, 1).cpu().numpy()]
        for spec in network.flows:
            flows = np.stack([flow(pictures[a], pictures[b], spec.method) for a, b in spec.pairs])
            inputs.append(torch.from_numpy(flows)[None].to(frames))
    if isinstance(network.time, ContinuousTime):
        assert time is not None
        inputs.append(time[None].to(frames))
    return inputs


@torch.no_grad()
def restored_frames(
    network: Network, frames: Tensor, indices: Sequence[int], flow: Flow | None = None
) -> Iterator[Tensor]:
    """Restore some frames of a scene, (N, 3, h, w) in [0, 1]: yield (3, s * h, s * w) in [0, 1] for each index.

    The windows are those of the engine: a frame is in the middle of its sliding window; runs and pairs give several
    frames, and each run is computed once if the indices ascend.
    """
    scale = upscale_factor(network)
    h, w = frames.shape[-2:]
    outputs: dict[int, Tensor] = {}
    for index in indices:
        if index not in outputs:
            outputs = _restore_window(network, frames, index, flow, scale)
        yield outputs[index][:, : scale * h, : scale * w].clamp(0, 1).to(frames)


def _restore_window(network: Network, frames: Tensor, index: int, flow: Flow | None, scale: int) -> dict[int, Tensor]:
    """Run the window that restores a frame; return its frames by their indices, (3, H, W) with padding."""
    window, count = network.window, len(frames)
    time: Tensor | None = None
    if isinstance(window, SlidingWindow):
        inputs, outputs = window_numbers(window, index, count - 1), {index: 0}
    else:
        first = _run_start(index, window.frames, count)
        inputs = [min(first + k, count - 1) for k in range(window.frames)]
        outputs = {
            first + k: 2 * k
            for k in range(window.frames)
            if first + k < count and _run_start(first + k, window.frames, count) == first
        }
        time = torch.tensor(0.5)
        if window.kind == "pair":
            time = torch.tensor([float(index != first)])
            outputs = {index: 0}
    padded = pad_frames(network, frames[inputs]).to(next(network.parameters()))
    size = [scale * n for n in padded.shape[-2:]]
    results = run_network(network, window_inputs(network, padded, flow, time), size)[0]
    return {frame: results[position] for frame, position in outputs.items()}


def _run_start(index: int, length: int, count: int) -> int:
    """Return the first frame of the run that restores a frame; runs share one frame, and the last one reaches back."""
    return max(0, min(index - index % (length - 1), count - length))


def pad_frames(network: Network, frames: Tensor) -> Tensor:
    """Repeat the last row and column until the network takes the frames: (N, 3, h, w) -> (N, 3, h', w')."""
    rows, columns = (network.size.padded(n) - n for n in frames.shape[-2:])
    return F.pad(frames, (0, columns, 0, rows), mode="replicate") if rows or columns else frames


def restorer(network: Network, flow: Flow | None = None) -> Restore:
    """Return a `Restore` that runs the network as it is."""

    def restore(frames: Tensor, indices: Sequence[int]) -> Iterator[Tensor]:
        return restored_frames(network, frames, indices, flow)

    return restore


def to_picture(frame: Tensor) -> NDArray[np.uint8]:
    """Return a frame, (3, H, W) in [0, 1], as an 8-bit picture, (H, W, 3)."""
    return to_uint8(frame.permute(1, 2, 0).cpu().numpy())
