"""Bidirectional deformable ConvLSTM: each step aligns the state with the current frame before it updates the state.

Xiang et al., "Zooming Slow-Mo: Fast and Accurate One-Stage Space-Time Video Super-Resolution", CVPR 2020, section 3.2.
"""

import torch
from torch import Tensor, nn

from .alignment import EasyPCD
from .blocks import conv3x3, over_frames


class ConvLSTMCell(nn.Module):
    """The gates of one step."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(2 * channels, 4 * channels)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next hidden and cell state. All tensors are `(B, C, H, W)`."""
        i, f, o, g = self.conv(torch.cat((x, hidden), dim=1)).chunk(4, dim=1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(cell), cell


class DeformableConvLSTM(nn.Module):
    """A deformable ConvLSTM that reads frames in one direction."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.cell_list = nn.ModuleList([ConvLSTMCell(channels)])
        self.pcd_h = EasyPCD(channels, groups)
        self.pcd_c = EasyPCD(channels, groups)

    def forward(self, frames: list[Tensor]) -> list[Tensor]:
        """Return the hidden state after each frame. All tensors are `(B, C, H, W)`."""
        hidden = cell = torch.zeros_like(frames[0])
        out = []
        for frame in frames:
            hidden, cell = self.cell_list[0](frame, self.pcd_h(frame, hidden), self.pcd_c(frame, cell))
            out.append(hidden)
        return out


class BidirectionalDeformableConvLSTM(nn.Module):
    """A deformable ConvLSTM that reads frames in both directions with the same weights and fuses both states."""

    def __init__(self, channels: int = 64, groups: int = 8) -> None:
        super().__init__()
        self.forward_net = DeformableConvLSTM(channels, groups)
        self.conv_1x1 = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """`(B, T, C, H, W)` -> `(B, T, C, H, W)`"""
        onward = frames.unbind(1)
        # Both directions run as one batch, because neither depends on the other.
        states = self.forward_net([torch.cat(ends) for ends in zip(onward, onward[::-1], strict=True)])
        halves = [state.unflatten(0, (2, -1)) for state in states]
        pairs = [torch.cat((a[0], b[1]), dim=1) for a, b in zip(halves, halves[::-1], strict=True)]
        return over_frames(self.conv_1x1, torch.stack(pairs, dim=1))
