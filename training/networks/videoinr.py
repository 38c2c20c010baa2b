"""VideoINR: an implicit function of space and time over the features of two frames.

The encoder is that of Zooming Slow-Mo. The decoder renders one time at any target size with three implicit functions
(section 3): the first computes features at every target pixel (SpatialINR), the second computes the flows from the
target pixel to its positions at two other times (TemporalINR), and the third computes the colour from the features
sampled at those positions.

Chen et al., "VideoINR: Learning Video Implicit Neural Representation for Continuous Space-Time Super-Resolution", CVPR
2022.

Two frames `(B, 2, 3, H, W)` and a time in [0, 1] become one frame `(B, 3, Hout, Wout)`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...engine.contract.manifest import ContinuousSpace, ContinuousTime, PairWindow
from .ops import Border, nearest_index, sample, sample_bilinear, sample_nearest, target_coordinates
from .siren import Siren
from .zsm import SlowMoConfig, SlowMoNetwork

_FRAME_CHANNELS = 6  # two RGB frames
_EDGE = 1 - 1e-6  # to which official warping clamps positions, in a frame that spans -1 to 1
_TIE_BIAS = 1e-3  # input pixels, above float32's rounding error: ties go to the lower pixel at every size
_WHOLE_TOLERANCE = 1e-2  # target pixels: a size this close to a whole number is rounded to it


@dataclass(frozen=True)
class VideoINRConfig(SlowMoConfig):
    """The size of a VideoINR and switches for quirks of the official code.

    The defaults are those of the official test.
    """

    # True reads pixels without motion from positions up to half a pixel further out, and black outside the frame, as
    # the official code does. False reads them from their own positions and repeats the edges of frames.
    official_sampling: bool = True
    # By how much frames are enlarged before the decoder reads them: 4 in the official test, 1 in official training.
    frame_upsample: int = 4


@dataclass(frozen=True)
class TargetAxis:
    """The rows or the columns to decode, which may be part of a larger target."""

    position: Tensor  # (N,), in input pixels
    index: Tensor  # (N,), in target pixels
    size: Tensor  # (), rows or columns of the whole target


def target_axis(position: Tensor, n_in: int) -> TargetAxis:
    """Derive the whole target from two or more evenly spaced positions, `(N,)`, over `n_in` input pixels."""
    spacing = (position[-1] - position[0]) / (position.shape[0] - 1)
    return TargetAxis(position, (position + 0.5) / spacing - 0.5, n_in / spacing)


class VideoINR(SlowMoNetwork):
    """Two frames at times 0 and 1 become a frame of any size at any time.

    Of the layers shared with Zooming Slow-Mo it does not use those that enlarge; official checkpoints contain them.
    """

    feature_names: tuple[str, ...] = ("features",)
    window = PairWindow()
    space = ContinuousSpace(minimum=1.0, maximum=8.0)
    time = ContinuousTime()

    def __init__(self, config: VideoINRConfig | None = None) -> None:
        super().__init__(config or VideoINRConfig())
        nf = self.config.nf
        encoded = 3 * nf
        self.feat_imnet = Siren(encoded + _FRAME_CHANNELS + 3, (64, 64, 256), nf)
        self.flow_imnet = Siren(nf + encoded + _FRAME_CHANNELS + 1, (64, 64, 256), 4)
        self.encode_imnet = Siren(2 * (nf + encoded + _FRAME_CHANNELS) + 1, (64, 64, 256, 256), 3)

    def forward(self, frames: Tensor, time: Tensor, size: tuple[int, int]) -> Tensor:
        """Render the frame at `time`.

        `frames`: `(B, 2, 3, H, W)` in [0, 1]; `time`: `(B,)` from 0 to 1; `size`: height and width of the target.
        Returns `(B, 3, *size)`, not clamped.
        """
        height, width = frames.shape[-2:]
        y = target_coordinates(height, size[0], frames.device)
        x = target_coordinates(width, size[1], frames.device)
        return self.decode(*self.encode(frames), time=time, y=y, x=x)

    def encode(self, frames: Tensor) -> tuple[Tensor]:
        """Encode the frames: features at times 0, 1/2 and 1, and the frames themselves.

        `(B, 2, 3, H, W)` in [0, 1] -> `(B, 3 * nf + 6, H, W)`
        """
        return (torch.cat((self.moments(frames).flatten(1, 2), frames.flatten(1, 2)), dim=1),)

    def decode(self, features: Tensor, time: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Render one time of each batch item at every crossing of the rows `y` and the columns `x`.

        `features`: `(B, 3 * nf + 6, H, W)`; `time`: `(B,)` from 0 to 1; `y`: `(Hout,)`, `x`: `(Wout,)`: centres of the
        target pixels in input pixels, two or more and evenly spaced. Returns `(B, 3, Hout, Wout)`, not clamped.
        """
        encoded, frames = self.split(features)
        moment = time.to(features.dtype).view(-1, 1, 1, 1)
        rows, columns = target_axis(y, features.shape[2]), target_axis(x, features.shape[3])
        target = self.target_features(features, moment, rows, columns)
        flows = self.target_flows(target, encoded, frames, moment, rows, columns)
        return self._colours(target, flows, encoded, frames, moment, rows, columns)

    def split(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Split the output of `encode` into encoded features and enlarged frames.

        `(B, 3 * nf + 6, H, W)` -> `(B, 3 * nf, H, W)`, `(B, 6, f * H, f * W)` with f = `frame_upsample`
        """
        frames, factor = features[:, -_FRAME_CHANNELS:], self.config.frame_upsample
        if factor > 1:
            frames = F.interpolate(frames, scale_factor=factor, mode="bilinear", align_corners=False)
        return features[:, :-_FRAME_CHANNELS], frames

    def nearest_position(self, axis: TargetAxis, n_in: int) -> Tensor:
        """Return positions to round to the nearest input pixel, with a rule for ties. `(N,)` -> `(N,)`"""
        if not self.config.official_sampling:
            return axis.position - _TIE_BIAS
        # The official choice depends on float32 rounding, so this repeats the official steps one by one.
        whole = axis.size.round()
        size = torch.where((axis.size - whole).abs() < _WHOLE_TOLERANCE, whole, axis.size)
        pixel = 1 / size
        grid = (pixel - 1) + 2 * pixel * axis.index.round()
        return ((grid + 1) * n_in - 1) / 2

    def target_features(self, features: Tensor, moment: Tensor, rows: TargetAxis, columns: TargetAxis) -> Tensor:
        """Compute features at every target pixel from the nearest input pixel and the offset from it.

        `features`: `(B, 3 * nf + 6, H, W)`; `moment`: `(B, 1, 1, 1)`. Returns `(B, nf, Hout, Wout)`.
        """
        siren, channels = self.feat_imnet, features.shape[1]
        y, x = self.nearest_position(rows, features.shape[2]), self.nearest_position(columns, features.shape[3])
        # The unit of the offset is half an input pixel, hence the factor 2.
        offset_y = 2 * (rows.position - nearest_index(y, features.shape[2])).to(features.dtype)
        offset_x = 2 * (columns.position - nearest_index(x, features.shape[3])).to(features.dtype)
        mixed = sample_nearest(siren.mix(features, 0), y, x)
        mixed = mixed + (siren.mix(offset_y[None, None, :, None], channels) + siren.mix(moment, channels + 2))
        return siren.finish(mixed + siren.mix(offset_x[None, None, None, :], channels + 1))

    def target_flows(
        self, target: Tensor, encoded: Tensor, frames: Tensor, moment: Tensor, rows: TargetAxis, columns: TargetAxis
    ) -> Tensor:
        """Compute two flows (dx, dy, dx, dy) in target pixels.

        `target`: the result of `target_features`; `encoded`, `frames`: that of `split`. Returns `(B, 4, Hout, Wout)`.
        """
        siren, y, x, border = self.flow_imnet, rows.position, columns.position, self._border
        start = target.shape[1]
        mixed = siren.mix(target, 0)
        mixed = mixed + sample_bilinear(siren.mix(encoded, start), y, x, border)
        start += encoded.shape[1]
        mixed = mixed + siren.mix(sample_bilinear(frames, *self._on_frames(y, x), border), start)
        return siren.finish(mixed + siren.mix(moment, start + _FRAME_CHANNELS))

    def _colours(
        self,
        target: Tensor,
        flows: Tensor,
        encoded: Tensor,
        frames: Tensor,
        moment: Tensor,
        rows: TargetAxis,
        columns: TargetAxis,
    ) -> Tensor:
        """Compute colours from all features and frames, sampled where both flows lead. -> `(B, 3, Hout, Wout)`"""
        siren, border = self.encode_imnet, self._border
        on_target, on_encoded = 0, 2 * target.shape[1]
        on_frames = on_encoded + 2 * encoded.shape[1]
        mixed = siren.mix(moment, on_frames + 2 * _FRAME_CHANNELS)
        for side in (0, 1):
            # Positions in pixels of the whole target, (B, Hout, Wout), then in input pixels.
            x = self._displaced(columns.index, columns.size, flows[:, 2 * side])
            y = self._displaced(rows.index[:, None], rows.size, flows[:, 2 * side + 1])
            x_in = (x + 0.5) * (encoded.shape[3] / columns.size) - 0.5
            y_in = (y + 0.5) * (encoded.shape[2] / rows.size) - 0.5

            sampled = sample(target, x - columns.index[0], y - rows.index[0], "clamp")
            if self.config.official_sampling:
                # Black starts at the edges of the whole target; at the edges of a part the pixels are repeated.
                sampled = sampled * (_inside(x, columns.size) * _inside(y, rows.size)).to(sampled.dtype)[:, None]
            mixed = mixed + siren.mix(sampled, on_target + side * target.shape[1])
            encoded_share = siren.mix(encoded, on_encoded + side * encoded.shape[1])
            mixed = mixed + sample(encoded_share, x_in, y_in, border)
            y_frames, x_frames = self._on_frames(y_in, x_in)
            sampled = sample(frames, x_frames, y_frames, border)
            mixed = mixed + siren.mix(sampled, on_frames + side * _FRAME_CHANNELS)
        return siren.finish(mixed)

    @property
    def _border(self) -> Border:
        return "zeros" if self.config.official_sampling else "clamp"

    def _on_frames(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Convert positions from input pixels to pixels of the enlarged frames."""
        factor = self.config.frame_upsample
        return (y + 0.5) * factor - 0.5, (x + 0.5) * factor - 0.5

    def _displaced(self, index: Tensor, size: Tensor, flow: Tensor) -> Tensor:
        """Return the positions to which a flow leads, all in target pixels.

        `index`: `(N,)` or `(N, 1)`; `size`: `()`; `flow`: `(B, Hout, Wout)`. Returns `(B, Hout, Wout)`.
        """
        position = index + flow.to(index.dtype)
        if not self.config.official_sampling:
            return position
        # The official code computes the grid with aligned corners and samples it without.
        grid = 2 * position / (size - 1) - 1
        return ((grid.clamp(-_EDGE, _EDGE) + 1) * size - 1) / 2


def _inside(position: Tensor, size: Tensor) -> Tensor:
    """Return the share, 0 to 1, of a bilinear sample that lies inside [0, size)."""
    return F.relu(1 - F.relu(-position) - F.relu(position - (size - 1)))
