"""Bidirectional deformable ConvLSTM: each step first aligns the state to the frame it meets."""

import torch
from torch import Tensor, nn

from .alignment import EasyPCD
from .blocks import conv3x3


class ConvLSTMCell(nn.Module):
    """The gates of one step."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(2 * channels, 4 * channels)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """All (B, C, H, W); returns the next hidden and cell state."""
        i, f, o, g = self.conv(torch.cat((x, hidden), dim=1)).chunk(4, dim=1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(cell), cell


class DeformableConvLSTM(nn.Module):
    """Reads frames in one direction."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.cell_list = nn.ModuleList([ConvLSTMCell(channels)])
        self.pcd_h = EasyPCD(channels, groups)
        self.pcd_c = EasyPCD(channels, groups)

    def forward(self, frames: list[Tensor]) -> list[Tensor]:
        """Frames of (B, C, H, W) -> the hidden state at each, (B, C, H, W)."""
        hidden = cell = torch.zeros_like(frames[0])
        out = []
        for frame in frames:
            hidden, cell = self.cell_list[0](frame, self.pcd_h(frame, hidden), self.pcd_c(frame, cell))
            out.append(hidden)
        return out


class BidirectionalDeformableConvLSTM(nn.Module):
    """Reads frames both ways with the same weights, and fuses the two readings of each."""

    def __init__(self, channels: int = 64, groups: int = 8) -> None:
        super().__init__()
        self.forward_net = DeformableConvLSTM(channels, groups)
        self.conv_1x1 = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, frames: list[Tensor]) -> list[Tensor]:
        """Frames of (B, C, H, W) -> as many of (B, C, H, W)."""
        onward = self.forward_net(frames)
        backward = self.forward_net(frames[::-1])[::-1]
        return [self.conv_1x1(torch.cat(pair, dim=1)) for pair in zip(onward, backward, strict=True)]
