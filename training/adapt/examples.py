"""Training examples of temporal super-resolution, cut from the space-time volume of the clip itself.

A cube cut from the clip, shrunk in space and slowed down in time, is a target; exposed for twice as long it is the
input. Within dimensions, the time axis of the cube is the clip's. Across dimensions, it is the clip's x or y axis:
frames are sharper along these than along time, and a moving object drawn over time looks as it does across a frame.

Zuckerman et al., "Across Scales & Across Dimensions: Temporal Super-Resolution using Deep Internal Learning", 2020,
section 3; the scales and the cubes of 16 are those of the official code.

A video exposed for twice as long moves twice as far from frame to frame, and one made half as large moves half as far.
Examples at scales around 1/2 therefore move as the clip itself does, and `Sources` has only these by default.
`OFFICIAL` has all of them and takes longer to learn from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...engine.contract.errors import AdaptationError
from .video_resize import expose, scale_space

SCALES = tuple(round(0.9**k, 2) for k in range(14))  # 1 to 0.25
_STRIDE = 2  # samples between the positions at which a cube may begin
_MIN_CUBE = 8
_FLAT = 1e-4  # mean gradient magnitude, of a range of 1 per sample, below which there is nothing to learn from
_LUMA = (0.299, 0.587, 0.114)  # BT.601


@dataclass(frozen=True)
class Sources:
    """Options that say from where in a clip cubes are cut.

    `side`: samples along each axis of a cube, fewer if the clip is smaller. `scales`: spatial scales, 1 or less.
    `within`: factors by which the clip is slowed down along time; `across`: factors along x or y in place of time.
    `across_share`: share of cubes across dimensions, 0 to 1.
    """

    side: int = 16
    scales: tuple[float, ...] = SCALES[3:9]
    within: tuple[int, ...] = (1,)
    across: tuple[int, ...] = (1,)
    across_share: float = 0.3


OFFICIAL = Sources(scales=SCALES, within=(1, 2, 3, 4, 5), across=(1, 2), across_share=0.5)


def gradient_magnitude(video: Tensor) -> Tensor:
    """Return the length of the gradient over time, rows and columns, by central differences.

    (T, 3, H, W) -> (T, H, W). The gradient is of BT.601 luma in [0, 1], per sample of each axis.
    """
    intensity = torch.einsum("tchw,c->thw", video, video.new_tensor(_LUMA))
    return torch.stack(torch.gradient(intensity)).square().sum(0).sqrt()


def apply_symmetry(cubes: Tensor, symmetry: int) -> Tensor:
    """Apply one of the 16 symmetries that keep time apart: (..., T, C, S, S) -> the same shape.

    The lowest two bits of `symmetry` count turns of the frames by 90 degrees, bit 4 mirrors them and bit 8 reverses
    time.
    """
    cubes = torch.rot90(cubes, symmetry & 3, (-2, -1))
    if symmetry & 4:
        cubes = cubes.flip(-1)
    return cubes.flip(-4) if symmetry & 8 else cubes


class Volume:
    """A clip read as a video with any of its axes as time, slowed down along that axis, from which cubes are cut.

    Positions are drawn in proportion to the mean gradient of the cube that begins there.
    """

    def __init__(self, video: Tensor, axis: int, slower: int, side: int) -> None:
        self._video, self._axis, self._slower, self._side = video, axis, slower, side
        slow = expose(video, slower, axis) if slower > 1 else video
        # (T, C, H, W) -> (time, H, W); the time of the cube is the axis that was slowed down
        magnitude = gradient_magnitude(slow)[None, None]
        means = F.avg_pool3d(magnitude, side, stride=_STRIDE)[0, 0].double()
        self._grid = means.shape
        self._cumulative = means.flatten().cumsum(0)
        self.mean_gradient = float(means.mean())

    @property
    def probability(self) -> Tensor:
        """The probability of each position at which a cube may begin, (positions in time, in y, in x)."""
        steps = torch.diff(self._cumulative, prepend=self._cumulative.new_zeros(1))
        return (steps / self._cumulative[-1]).view(self._grid)

    def draw(self, generator: torch.Generator) -> tuple[int, int, int]:
        """Draw the position of a cube by its probability: (frame, row, column) of the slower video."""
        level = torch.rand((), generator=generator, dtype=torch.float64) * self._cumulative[-1]
        index = min(int(torch.searchsorted(self._cumulative, level, right=True)), self._cumulative.numel() - 1)
        _, rows, columns = self._grid
        t, rest = divmod(index, rows * columns)
        y, x = divmod(rest, columns)
        return t * _STRIDE, y * _STRIDE, x * _STRIDE

    def cube(self, position: tuple[int, int, int]) -> Tensor:
        """Cut the cube that begins at a position, its time axis first: (S, C, S, S)."""
        cut = self._video
        for dim, start in zip((0, 2, 3), position, strict=True):
            factor = self._slower if dim == self._axis else 1
            cut = cut.narrow(dim, start * factor, self._side * factor)
        return expose(cut, self._slower, self._axis).transpose(0, self._axis)


class Examples:
    """Draws examples from a clip, (T, 3, H, W) in [0, 1].

    Raises AdaptationError if the clip is too short, too small, or flat.
    """

    def __init__(self, clip: Tensor, sources: Sources = Sources()) -> None:
        small = [clip if scale == 1 else scale_space(clip, scale).clamp(0, 1) for scale in sources.scales]
        frames, _, height, width = max(small, key=torch.numel).shape
        self.side = min(sources.side, frames, height, width) // 2 * 2
        if self.side < _MIN_CUBE:
            raise AdaptationError(
                f"Zero-shot learning needs at least {_MIN_CUBE} frames of {_MIN_CUBE}x{_MIN_CUBE} pixels, and the scene"
                f" has {frames} frames of {width}x{height} after shrinking: adapt to a longer or larger scene."
            )
        self._within = self._volumes(small, sources.within, (0,))
        self._across = self._volumes(small, sources.across, (2, 3))
        self._across_share = sources.across_share
        if not self._within and not self._across:
            raise AdaptationError("Nothing changes in the scene, so there is nothing to learn: adapt to another scene.")

    def _volumes(self, videos: Sequence[Tensor], factors: Sequence[int], axes: Sequence[int]) -> list[Volume]:
        """Return the volumes that are large enough for a cube and not flat."""
        volumes = []
        for video in videos:
            for axis in axes:
                for factor in factors:
                    lengths = [video.shape[dim] // (factor if dim == axis else 1) for dim in (0, 2, 3)]
                    if min(lengths) >= self.side:
                        volumes.append(Volume(video, axis, factor, self.side))
        return [volume for volume in volumes if volume.mean_gradient > _FLAT]

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw inputs, (B, S / 2, 3, S, S), and their targets, (B, S, 3, S, S)."""
        targets = torch.stack([self._target(generator) for _ in range(batch)])
        return expose(targets, 2, 1), targets

    def _target(self, generator: torch.Generator) -> Tensor:
        share = torch.rand((), generator=generator).item()
        volumes = self._across if share < self._across_share and self._across else self._within or self._across
        volume = volumes[int(torch.randint(len(volumes), (), generator=generator))]
        cube = volume.cube(volume.draw(generator))
        return apply_symmetry(cube, int(torch.randint(16, (), generator=generator)))
