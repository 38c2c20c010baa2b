"""Scores of a network while it trains: Y-PSNR on a few windows of each validation clip."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from ..engine.contract.manifest import ContinuousTime, FixedFactors
from ..engine.contract.metrics import luma, psnr
from .data import Flow, input_frames, network_inputs, target_frames, truth_offsets
from .inference import run_network
from .networks.base import Network
from .resize import downscale, to_uint8

_MAX_DB = 100.0  # the score of a frame that equals the truth, so that means stay finite


def window_length(network: Network) -> int:
    """Return the number of neighbouring true frames in a validation window."""
    return len(truth_offsets(network.window, 2, 1))


def long_enough(clips: list[NDArray[np.uint8]], network: Network) -> list[NDArray[np.uint8]]:
    """Return the clips that have at least one validation window."""
    return [clip for clip in clips if len(clip) >= window_length(network)]


@torch.no_grad()
def score_network(
    network: Network,
    clips: list[NDArray[np.uint8]],
    *,
    flow: Flow | None = None,
    device: str = "cpu",
    scale: int = 4,
    windows: int = 4,
) -> dict[str, float]:
    """Return the mean Y-PSNR of a network, in dB, over `windows` windows of each clip (N, H, W, 3).

    `psnr_at` is the score of frames at input times; `psnr_between` that of frames between, half-way if the network
    takes any time. `scale` is for a network that takes any scale. Clips shorter than a window are left out.
    """
    scores: dict[str, list[float]] = {}
    length = window_length(network)
    for clip in long_enough(clips, network):
        for start in np.linspace(0, len(clip) - length, windows).astype(int):
            for name, value in _score_window(network, clip[start : start + length], flow, device, scale):
                scores.setdefault(name, []).append(value)
    return {name: round(float(np.mean(values)), 4) for name, values in scores.items()}


def _score_window(
    network: Network, truth: NDArray[np.uint8], flow: Flow | None, device: str, scale: int
) -> Iterator[tuple[str, float]]:
    """Yield the name of the score and the Y-PSNR of each output frame of one window of true frames."""
    scale = network.space.factors[0] if isinstance(network.space, FixedFactors) else scale
    h, w = truth.shape[1] // scale, truth.shape[2] // scale
    truth = truth[:, : h * scale, : w * scale]
    edge = ((0, 0), (0, -h % network.size.multiple_of), (0, -w % network.size.multiple_of), (0, 0))
    small = np.pad(downscale(input_frames(network.window, truth / 255), (h, w)), edge, mode="edge")
    frames, flows = network_inputs(network, small, flow)
    inputs = [frames, *flows]
    if isinstance(network.time, ContinuousTime):
        inputs.append(torch.tensor((0.0, 0.5) if network.window.kind == "pair" else 0.5))
    size = (small.shape[1] * scale, small.shape[2] * scale)
    outputs = run_network(network, [x[None].to(device) for x in inputs], size)[0, ..., : h * scale, : w * scale]
    pictures = outputs.permute(0, 2, 3, 1).double().cpu().numpy()
    # A pair has no output at the time of its second input, which is the first input of the next pair.
    for index, (picture, target) in enumerate(zip(pictures, target_frames(network.window, truth), strict=False)):
        between = network.window.kind == "doubled" or index % 2 == 1
        value = psnr(luma(to_uint8(picture)), luma(target))
        yield "psnr_between" if between else "psnr_at", min(value, _MAX_DB)
