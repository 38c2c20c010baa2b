"""VideoINR: an implicit function of space and time over the features of two frames.

The encoder is that of Zooming Slow-Mo. The decoder answers for one time and any target size: one implicit function
gives features at every target pixel, one gives the flows to where they were at two moments, and one reads colours
from what is found there.

Chen et al., "VideoINR: Learning Video Implicit Neural Representation for Continuous Space-Time Super-Resolution".
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
_EDGE = 1 - 1e-6  # official warping stays inside of this, where the frame is -1 to 1
_TIE_BIAS = 1e-3  # input pixels; more than float32 errs by, so that ties go to the lower pixel at every size
_WHOLE = 1e-2  # target pixels; a size this near to a whole number is one


@dataclass(frozen=True)
class VideoINRConfig(SlowMoConfig):
    """The size of a VideoINR and which of the official habits it keeps; the defaults are those of the official test."""

    # Officially, pixels without motion are read from a place up to half a pixel further out, and all around the frame
    # is black. False reads them from their own place, and repeats the frame's edge.
    official_sampling: bool = True
    # Frames are enlarged so many times before the decoder reads them: 4 in the official test, 1 in official training.
    frame_upsample: int = 4


@dataclass(frozen=True)
class TargetAxis:
    """Rows or columns to be decoded; they may be a part of a whole target."""

    position: Tensor  # (N,) in input pixels
    index: Tensor  # (N,) in target pixels
    size: Tensor  # () rows or columns of the whole target


def target_axis(position: Tensor, n_in: int) -> TargetAxis:
    """Two positions or more, (N,), over n_in input pixels."""
    spacing = (position[-1] - position[0]) / (position.shape[0] - 1)
    return TargetAxis(position, (position + 0.5) / spacing - 0.5, n_in / spacing)


class VideoINR(SlowMoNetwork):
    """Two frames at times 0 and 1 -> a frame of any size at any time.

    Of the layers that it shares with Zooming Slow-Mo, it has no use for those that enlarge.
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
        """frames: (B, 2, 3, H, W) in [0, 1]; time: (B,). Returns (B, 3, *size), not clamped."""
        height, width = frames.shape[-2:]
        y = target_coordinates(height, size[0], frames.device)
        x = target_coordinates(width, size[1], frames.device)
        return self.decode(*self.encode(frames), time=time, y=y, x=x)

    def encode(self, frames: Tensor) -> tuple[Tensor]:
        """(B, 2, 3, H, W) in [0, 1] -> (B, 3 * nf + 6, H, W): features at times 0, 1/2 and 1, and the frames."""
        return (torch.cat((self.moments(frames).flatten(1, 2), frames.flatten(1, 2)), dim=1),)

    def decode(self, features: Tensor, time: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """One time per batch item, at every crossing of rows y and columns x.

        features: (B, 3 * nf + 6, H, W); time: (B,); y: (Hout,), x: (Wout,): target pixel centres in input pixels, two
        or more and evenly spaced. Returns (B, 3, Hout, Wout), not clamped.
        """
        encoded, frames = self.split(features)
        moment = time.to(features.dtype).view(-1, 1, 1, 1)
        rows, columns = target_axis(y, features.shape[2]), target_axis(x, features.shape[3])
        target = self.target_features(features, moment, rows, columns)
        flows = self.target_flows(target, encoded, frames, moment, rows, columns)
        return self._colours(target, flows, encoded, frames, moment, rows, columns)

    def split(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded features, (B, 3 * nf, H, W), and enlarged frames, (B, 6, f * H, f * W)."""
        frames, factor = features[:, -_FRAME_CHANNELS:], self.config.frame_upsample
        if factor > 1:
            frames = F.interpolate(frames, scale_factor=factor, mode="bilinear", align_corners=False)
        return features[:, :-_FRAME_CHANNELS], frames

    def nearest_position(self, axis: TargetAxis, n_in: int) -> Tensor:
        """Positions whose nearest input pixels are wanted, with a rule for those halfway between two. (N,) -> (N,)."""
        if not self.config.official_sampling:
            return axis.position - _TIE_BIAS
        # The official pick hangs on how float32 rounds, so the official steps are taken one by one.
        whole = axis.size.round()
        size = torch.where((axis.size - whole).abs() < _WHOLE, whole, axis.size)
        pixel = 1 / size
        grid = (pixel - 1) + 2 * pixel * axis.index.round()
        return ((grid + 1) * n_in - 1) / 2

    def target_features(self, features: Tensor, moment: Tensor, rows: TargetAxis, columns: TargetAxis) -> Tensor:
        """Features at every target pixel, from the nearest input pixel and the way to it. -> (B, nf, Hout, Wout)."""
        siren, channels = self.feat_imnet, features.shape[1]
        y, x = self.nearest_position(rows, features.shape[2]), self.nearest_position(columns, features.shape[3])
        # Twice the distance: the unit is half an input pixel.
        way_y = 2 * (rows.position - nearest_index(y, features.shape[2])).to(features.dtype)
        way_x = 2 * (columns.position - nearest_index(x, features.shape[3])).to(features.dtype)
        mixed = sample_nearest(siren.mix(features, 0), y, x)
        mixed = mixed + (siren.mix(way_y[None, None, :, None], channels) + siren.mix(moment, channels + 2))
        return siren.finish(mixed + siren.mix(way_x[None, None, None, :], channels + 1))

    def target_flows(
        self, target: Tensor, encoded: Tensor, frames: Tensor, moment: Tensor, rows: TargetAxis, columns: TargetAxis
    ) -> Tensor:
        """Two flows (dx, dy, dx, dy) in target pixels. -> (B, 4, Hout, Wout)."""
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
        """Colours from all that both flows lead to. -> (B, 3, Hout, Wout)."""
        siren, border = self.encode_imnet, self._border
        on_target, on_encoded = 0, 2 * target.shape[1]
        on_frames = on_encoded + 2 * encoded.shape[1]
        mixed = siren.mix(moment, on_frames + 2 * _FRAME_CHANNELS)
        for side in (0, 1):
            # Places in pixels of the whole target, (B, Hout, Wout), and from there in input pixels.
            x = self._moved(columns.index, columns.size, flows[:, 2 * side])
            y = self._moved(rows.index[:, None], rows.size, flows[:, 2 * side + 1])
            x_in = (x + 0.5) * (encoded.shape[3] / columns.size) - 0.5
            y_in = (y + 0.5) * (encoded.shape[2] / rows.size) - 0.5

            found = sample(target, x - columns.index[0], y - rows.index[0], "clamp")
            if self.config.official_sampling:
                # Black begins where the whole target ends; a part of it just repeats its edge.
                found = found * (_inside(x, columns.size) * _inside(y, rows.size)).to(found.dtype)[:, None]
            mixed = mixed + siren.mix(found, on_target + side * target.shape[1])
            here = siren.mix(encoded, on_encoded + side * encoded.shape[1])
            mixed = mixed + sample(here, x_in, y_in, border)
            y_frames, x_frames = self._on_frames(y_in, x_in)
            found = sample(frames, x_frames, y_frames, border)
            mixed = mixed + siren.mix(found, on_frames + side * _FRAME_CHANNELS)
        return siren.finish(mixed)

    @property
    def _border(self) -> Border:
        return "zeros" if self.config.official_sampling else "clamp"

    def _on_frames(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Positions in input pixels -> in pixels of the enlarged frames."""
        factor = self.config.frame_upsample
        return (y + 0.5) * factor - 0.5, (x + 0.5) * factor - 0.5

    def _moved(self, index: Tensor, size: Tensor, flow: Tensor) -> Tensor:
        """Where a flow leads to, all in target pixels. (N,) or (N, 1), (), (B, Hout, Wout) -> (B, Hout, Wout)."""
        place = index + flow.to(index.dtype)
        if not self.config.official_sampling:
            return place
        # From a grid whose corners are pixel centres to one whose corners are pixel corners.
        grid = 2 * place / (size - 1) - 1
        return ((grid.clamp(-_EDGE, _EDGE) + 1) * size - 1) / 2


def _inside(place: Tensor, size: Tensor) -> Tensor:
    """Share, 0 to 1, of a bilinear reading that is inside of [0, size)."""
    return F.relu(1 - F.relu(-place) - F.relu(place - (size - 1)))
