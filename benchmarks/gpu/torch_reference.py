"""What kernels are compared with in PyTorch: grids to sample by, and compositions where no one operator does it."""

from itertools import product
from typing import Any

import numpy as np
from stvsr.training.networks import ops

from .bench import Bench


def flow_grid(bench: Bench, flow: Any) -> Any:
    """Pixel flows (1, 2, H, W) -> the grid that `grid_sample` wants where corners are not aligned."""
    height, width = flow.shape[-2:]
    x = bench.torch.arange(width, device=flow.device) + flow[:, 0]
    y = bench.torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    return bench.torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), -1)


class YuvInTorch:
    """A picture of random codes, limited range: `planes` are NumPy's, luma and alternating chroma."""

    def __init__(self, bench: Bench, size: tuple[int, int], pix_fmt: str, luma_weights: tuple[float, float]) -> None:
        torch = self._torch = bench.torch
        bits, shift, kind = {"nv12": (8, 0, np.uint8), "p010le": (10, 6, np.uint16)}[pix_fmt]
        random, (height, width) = np.random.default_rng(0), size
        shapes = (size, ((height + 1) // 2, 2 * ((width + 1) // 2)))
        codes = [random.integers(0, 1 << bits, shape).astype(kind) for shape in shapes]
        self.planes = [plane << shift for plane in codes]
        # PyTorch's 16-bit integers have a sign; operators on those without are few.
        self._stored = [
            torch.from_numpy(plane.view(np.int16) if kind is np.uint16 else plane).to(bench.device)
            for plane in self.planes
        ]
        self._shift, self._bits = shift, bits
        kr, kb = luma_weights
        luma = torch.tensor([kr, 1 - kr - kb, kb])
        rows = [
            luma,
            (torch.tensor([0.0, 0, 1]) - luma) / (2 - 2 * kb),
            (torch.tensor([1.0, 0, 0]) - luma) / (2 - 2 * kr),
        ]
        self._matrix = torch.stack(rows).to(bench.device)
        self._inverse = torch.linalg.inv(torch.stack(rows).double()).float().to(bench.device)
        step = 1 << (bits - 8)
        self._scale = torch.tensor([219.0 * step, 224 * step, 224 * step], device=bench.device)[:, None, None]
        self._offset = torch.tensor([16.0 * step, 128 * step, 128 * step], device=bench.device)[:, None, None]
        self._y = torch.arange(height, device=bench.device) / 2 - 0.25
        self._x = torch.arange(width, device=bench.device) / 2
        self._blur = (torch.tensor([[1.0, 2, 1], [1, 2, 1]]) / 8).to(bench.device)[None, None]

    def to_rgb(self, dtype: Any) -> Any:
        """-> (3, H, W) in [0, 1]."""
        luma, chroma = ((plane.int() & 0xFFFF) >> self._shift for plane in self._stored)
        colours = chroma.float().unflatten(1, (-1, 2)).permute(2, 0, 1)
        colours = ops.sample_bilinear(colours[None], self._y, self._x, "clamp")[0]
        codes = self._torch.cat((luma.float()[None], colours))
        return (
            ((self._inverse @ ((codes - self._offset) / self._scale).flatten(1)).view_as(codes)).clamp(0, 1).to(dtype)
        )

    def from_rgb(self, rgb: Any) -> tuple[Any, Any]:
        """(3, H, W) -> codes as they are stored."""
        torch, functional = self._torch, self._torch.nn.functional
        clipped = rgb.float().clamp(0, 1)
        values = (self._matrix @ clipped.flatten(1)).view_as(clipped)
        height, width = values.shape[1:]
        even = functional.pad(values[1:, None], (1, width % 2, 0, height % 2), mode="replicate")
        chroma = functional.conv2d(even, self._blur, stride=2)[:, 0]
        most, kind = (1 << self._bits) - 1, self._stored[0].dtype
        made = []
        for part, rows in ((values[:1], slice(0, 1)), (chroma, slice(1, 3))):
            codes = (part * self._scale[rows] + self._offset[rows]).round().clamp(0, most).int() << self._shift
            made.append(codes.to(kind))
        return made[0][0], torch.stack(tuple(made[1]), -1).flatten(1)


class BlendInTorch:
    """Two by two tiles of a picture, which overlap, and their weights made beforehand."""

    def __init__(self, bench: Bench, size: tuple[int, int], overlap: int, dtype: str) -> None:
        torch, self.size, self.overlap = bench.torch, size, overlap
        height, width = (n // 2 + overlap // 2 for n in size)
        self.places = list(product((0, size[0] - height), (0, size[1] - width)))
        self.tiles = [bench.normal(3, height, width, dtype=dtype) for _ in self.places]
        self._canvas = torch.zeros(4, *size, device=bench.device)
        ramps = []
        for n in (height, width):
            centre = torch.arange(n, device=bench.device) + 0.5
            ramps.append((centre / overlap).clamp(max=1) * ((n - centre) / overlap).clamp(max=1))
        self._weight = ramps[0][:, None] * ramps[1]
        self._dtype = self.tiles[0].dtype

    def add(self) -> None:
        """Add every tile to the canvas."""
        for tile, (top, left) in zip(self.tiles, self.places, strict=True):
            part = self._canvas[:, top : top + tile.shape[1], left : left + tile.shape[2]]
            part[:3] += tile * self._weight
            part[3] += self._weight

    def normalised(self) -> Any:
        """-> (3, H, W)."""
        return (self._canvas[:3] / self._canvas[3].clamp(min=1e-20)).to(self._dtype)
