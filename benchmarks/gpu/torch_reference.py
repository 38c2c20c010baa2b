"""PyTorch code that kernels are compared with: sampling grids, and a composition where no single operator exists."""

from typing import Any

import torch
from stvsr.training.networks.motion import blend_pair, warp_pair

from .bench import Bench


def flow_grid(bench: Bench, flow: Any) -> Any:
    """Return the grid with which `grid_sample(align_corners=False)` warps by a flow in pixels.

    (1, 2, H, W) -> (1, H, W, 2)
    """
    height, width = flow.shape[-2:]
    x = bench.torch.arange(width, device=flow.device) + flow[:, 0]
    y = bench.torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    return bench.torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), -1)


def fusion_inputs(features: Any, motion: Any, time: Any) -> tuple[Any, Any]:
    """Return the inputs of Fourier-S's fusion and the blend of both frames, as `FourierS` computes them.

    (B, 2F + 6, H, W), (B, 5, H, W), (B,) -> (B, 2F + 16, H, W), (B, 3, H, W)
    """
    count, t = (features.shape[1] - 6) // 2, time.to(features.dtype).view(-1, 1, 1, 1)
    first, second = (
        torch.cat([features[:, i * count : (i + 1) * count], features[:, 2 * count + 3 * i :][:, :3]], 1)
        for i in range(2)
    )
    motion = motion.to(features.dtype)
    first, second = warp_pair(first, second, motion, t)
    base = blend_pair(first[:, count:], second[:, count:], motion, t)
    visible, times = torch.sigmoid(motion[:, 4:]), torch.cat([t, 1 - t], 1).expand(-1, -1, *base.shape[2:])
    return torch.cat([first, second, base - 0.5, 0.1 * motion[:, :4], visible, times], 1), base


class RgbToYuv:
    """Conversion of RGB to nv12 or p010le, limited range, in PyTorch operators.

    luma_weights: Kr and Kb, the weights of red and blue in luma.
    """

    def __init__(self, bench: Bench, pix_fmt: str, luma_weights: tuple[float, float]) -> None:
        torch = self._torch = bench.torch
        # PyTorch has few operators for unsigned 16-bit integers: the signed ones have the same bits.
        self._bits, self._shift, self._dtype = {"nv12": (8, 0, torch.uint8), "p010le": (10, 6, torch.int16)}[pix_fmt]
        kr, kb = luma_weights
        luma = torch.tensor([kr, 1 - kr - kb, kb])
        blue = (torch.tensor([0.0, 0, 1]) - luma) / (2 - 2 * kb)
        red = (torch.tensor([1.0, 0, 0]) - luma) / (2 - 2 * kr)
        self._matrix = torch.stack([luma, blue, red]).to(bench.device)
        step = 1 << (self._bits - 8)
        self._scale = torch.tensor([219.0 * step, 224 * step, 224 * step], device=bench.device)[:, None, None]
        self._offset = torch.tensor([16.0 * step, 128 * step, 128 * step], device=bench.device)[:, None, None]
        self._blur = (torch.tensor([[1.0, 2, 1], [1, 2, 1]]) / 8).to(bench.device)[None, None]

    def __call__(self, rgb: Any) -> tuple[Any, Any]:
        """Convert (3, H, W) in [0, 1] to luma (H, W) and interleaved chroma (h, 2 * w), h and w half of H and W."""
        torch, functional = self._torch, self._torch.nn.functional
        clipped = rgb.float().clamp(0, 1)
        values = (self._matrix @ clipped.flatten(1)).view_as(clipped)
        height, width = values.shape[1:]
        even = functional.pad(values[1:, None], (1, width % 2, 0, height % 2), mode="replicate")
        chroma = functional.conv2d(even, self._blur, stride=2)[:, 0]
        most = (1 << self._bits) - 1
        stored = []
        for part, rows in ((values[:1], slice(0, 1)), (chroma, slice(1, 3))):
            codes = (part * self._scale[rows] + self._offset[rows]).round().clamp(0, most).int() << self._shift
            stored.append(codes.to(self._dtype))
        return stored[0][0], torch.stack(tuple(stored[1]), -1).flatten(1)
