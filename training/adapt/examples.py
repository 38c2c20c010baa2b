"""Internal examples of temporal super-resolution: what a clip's own space-time volume says of finer time.

A cube cut from the clip, made smaller in space and slower in time, is the truth; exposed twice as long it is what the
network sees. Within its dimensions, the cube's time is the clip's. Across dimensions, it is the clip's x or y: frames
are sharper along these than along time, and a moving thing drawn over time looks as it does across a frame.

Zuckerman et al., "Across Scales & Across Dimensions: Temporal Super-Resolution using Deep Internal Learning", 2020,
section 3; the scales and the cubes of 16 are those of the official code.

A video exposed twice as long moves twice as far a frame, and made half as large, half as far: examples at scales about
1/2 move as the clip itself does, and `Sources` has these alone. `OFFICIAL` has all, and learns longer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...engine.contract.errors import AdaptationError
from .video_resize import expose, scale_space

SCALES = tuple(round(0.9**k, 2) for k in range(14))  # 1 to 0.25
_STRIDE = 2  # samples between places where a cube may begin
_SMALLEST_CUBE = 8
_FLAT = 1e-4  # mean gradient magnitude, of a range of 1 a sample, below which there is nothing to learn from
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Sources:
    """Where cubes come from.

    ``side``: samples along each axis of a cube, fewer where the clip is smaller. ``scales``: of space, 1 or less.
    ``within``: how many times slower the clip is made, along time; ``across``: the same along x or y in the place of
    time. ``across_share``: of the cubes, 0 to 1.
    """

    side: int = 16
    scales: tuple[float, ...] = SCALES[3:9]
    within: tuple[int, ...] = (1,)
    across: tuple[int, ...] = (1,)
    across_share: float = 0.3


OFFICIAL = Sources(scales=SCALES, within=(1, 2, 3, 4, 5), across=(1, 2), across_share=0.5)


def gradient_magnitude(video: Tensor) -> Tensor:
    """Length of the intensity's gradient over time, rows and columns, by central differences. (T, 3, H, W) -> (T, H, W)

    Intensity is BT.601 luma in [0, 1], and a step is one sample along each axis.
    """
    intensity = torch.einsum("tchw,c->thw", video, video.new_tensor(_LUMA))
    return torch.stack(torch.gradient(intensity)).square().sum(0).sqrt()


def turned(cubes: Tensor, symmetry: int) -> Tensor:
    """One of the 16 symmetries that keep time apart. (..., T, C, S, S) -> the same shape

    Bits 1 and 2 of ``symmetry`` turn frames by 90 degrees as often as they say, bit 4 mirrors them, 8 reverses time.
    """
    cubes = torch.rot90(cubes, symmetry & 3, (-2, -1))
    if symmetry & 4:
        cubes = cubes.flip(-1)
    return cubes.flip(-4) if symmetry & 8 else cubes


class Volume:
    """One way to read a clip as a video: made smaller, with any of its axes as time, and slower along that.

    ``probability`` has an entry for each place where a cube may begin, in proportion to the cube's mean gradient.
    """

    def __init__(self, video: Tensor, axis: int, slower: int, side: int) -> None:
        self._video, self._axis, self._slower, self._side = video, axis, slower, side
        slow = expose(video, slower, axis) if slower > 1 else video
        # (T, C, H, W) -> (time, H, W); the cube's time is the axis that was made slower
        magnitude = gradient_magnitude(slow)[None, None]
        means = F.avg_pool3d(magnitude, side, stride=_STRIDE)[0, 0].double()
        self._places = means.shape
        self._cumulative = means.flatten().cumsum(0)
        self.mean_gradient = float(means.mean())

    @property
    def probability(self) -> Tensor:
        """Of each place, (places in time, in y, in x)."""
        steps = torch.diff(self._cumulative, prepend=self._cumulative.new_zeros(1))
        return (steps / self._cumulative[-1]).view(self._places)

    def place(self, generator: torch.Generator) -> tuple[int, int, int]:
        """Where a cube begins, by its probability: (frame, row, column) of the slower video."""
        at = torch.rand((), generator=generator, dtype=torch.float64) * self._cumulative[-1]
        index = min(int(torch.searchsorted(self._cumulative, at, right=True)), self._cumulative.numel() - 1)
        _, rows, columns = self._places
        t, rest = divmod(index, rows * columns)
        y, x = divmod(rest, columns)
        return t * _STRIDE, y * _STRIDE, x * _STRIDE

    def cube(self, place: tuple[int, int, int]) -> Tensor:
        """The cube that begins there, its time first. -> (S, C, S, S)"""
        cut = self._video
        for dim, start in zip((0, 2, 3), place, strict=True):
            longer = self._slower if dim == self._axis else 1
            cut = cut.narrow(dim, start * longer, self._side * longer)
        return expose(cut, self._slower, self._axis).transpose(0, self._axis)


class Examples:
    """Draws examples from a clip, (T, 3, H, W) in [0, 1].

    Raises `AdaptationError` when the clip is too short, too small, or flat.
    """

    def __init__(self, clip: Tensor, sources: Sources = Sources()) -> None:
        small = [clip if scale == 1 else scale_space(clip, scale).clamp(0, 1) for scale in sources.scales]
        frames, _, height, width = max(small, key=torch.numel).shape
        self.side = min(sources.side, frames, height, width) // 2 * 2
        if self.side < _SMALLEST_CUBE:
            raise AdaptationError(
                f"examples need {_SMALLEST_CUBE} frames of {_SMALLEST_CUBE}x{_SMALLEST_CUBE} pixels at least, and the"
                f" scene made small has {frames} of {width}x{height}: adapt to a longer or larger one"
            )
        self._within = self._volumes(small, sources.within, (0,))
        self._across = self._volumes(small, sources.across, (2, 3))
        self._across_share = sources.across_share
        if not self._within and not self._across:
            raise AdaptationError("the scene shows nothing that changes: there is nothing to learn from it")

    def _volumes(self, videos: Sequence[Tensor], slower: Sequence[int], axes: Sequence[int]) -> list[Volume]:
        """Those in which a cube has room and something to see."""
        volumes = []
        for video in videos:
            for axis in axes:
                for factor in slower:
                    length = [video.shape[dim] // (factor if dim == axis else 1) for dim in (0, 2, 3)]
                    if min(length) >= self.side:
                        volumes.append(Volume(video, axis, factor, self.side))
        return [volume for volume in volumes if volume.mean_gradient > _FLAT]

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What the network sees, and the truth. -> (B, S / 2, 3, S, S), (B, S, 3, S, S)"""
        truth = torch.stack([self._one(generator) for _ in range(batch)])
        return expose(truth, 2, 1), truth

    def _one(self, generator: torch.Generator) -> Tensor:
        share = torch.rand((), generator=generator).item()
        volumes = self._across if share < self._across_share and self._across else self._within or self._across
        volume = volumes[int(torch.randint(len(volumes), (), generator=generator))]
        cube = volume.cube(volume.place(generator))
        return turned(cube, int(torch.randint(16, (), generator=generator)))
