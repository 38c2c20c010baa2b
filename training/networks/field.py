"""A Fourier field: the colours inside every input pixel as a sum of sinusoids, linear in its coefficients.

The frequencies are learned once and shared by all pixels and videos; a network computes two coefficients for each. The
idea is that of Becker et al., "Continuous Space-Time Video Super-Resolution with 3D Fourier Fields", ICLR 2026, here in
space alone. Because

    a sin(w p + f) = u sin(w p) + v cos(w p)

colours are a matrix product of the coefficients (u, v) and a matrix that depends only on the place p inside the pixel.
A target of an integer factor repeats the same phases in every input pixel, so one product and a rearrangement render
it.
Each sinusoid is damped as by a Gaussian point spread whose width is proportional to the spacing of the target pixels:
a coarse target shows no detail that would alias.
"""

import math

import torch
from torch import Tensor, nn

from .ops import nearest_index, spacing

HIGHEST_FREQUENCY = 2.0  # initially, in periods for each input pixel: the Nyquist frequency at x4


class FourierField(nn.Module):
    """Renders coefficients at the input's size as colours of any size.

    `terms`: the number N of frequencies. Coefficients are `(B, 2N, H, W)`: those of the sines, then of the cosines.
    """

    def __init__(self, terms: int) -> None:
        super().__init__()
        radius = HIGHEST_FREQUENCY * torch.rand(terms).sqrt()
        angle = math.pi * torch.rand(terms)
        # Rows and columns of (y, x), in radians for each input pixel.
        self.frequency = nn.Parameter(2 * math.pi * radius * torch.stack([angle.sin(), angle.cos()]))  # (2, N)
        self.colour = nn.Parameter(torch.randn(3, terms) * (0.3 / math.sqrt(terms)))
        self.spread = nn.Parameter(torch.tensor(0.3))  # standard deviation of the point spread, in target pixels

    def at_phases(self, coefficients: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Render the same phases of every input pixel, for integer scale factors.

        `y`: `(R,)`, `x`: `(C,)`, distances from the pixel's centre in input pixels, that divide the pixel evenly.
        Returns `(B, 3, R, C, H, W)`, for `interleave_phases`.
        """
        rows, columns = y.shape[0], x.shape[0]
        phase = (y[:, None] * self.frequency[0])[:, None] + x[:, None] * self.frequency[1]  # (R, C, N)
        damped = self.colour * self._damping(1 / rows, 1 / columns)
        matrix = torch.cat([damped[:, None, None] * phase.sin(), damped[:, None, None] * phase.cos()], -1)
        values = matrix.flatten(0, 2) @ coefficients.flatten(2)  # (B, 3 * R * C, H * W)
        return values.view(-1, 3, rows, columns, *coefficients.shape[2:])

    def at(self, coefficients: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Render the crossings of the rows `y` and the columns `x`.

        `y`: `(Hout,)`, `x`: `(Wout,)`, in input pixels, evenly spaced. Returns `(B, 3, Hout, Wout)`.
        """
        row, column = (nearest_index(p, n) for p, n in zip((y, x), coefficients.shape[-2:], strict=True))
        # The sine and the cosine of a + b, where a belongs to the row and b to the column: rows first, then columns.
        a = (self.frequency[0, :, None] * (y - row))[:, :, None]  # (N, Hout, 1)
        b = (self.frequency[1, :, None] * (x - column))[:, None]  # (N, 1, Wout)
        u, v = coefficients.index_select(2, row).chunk(2, 1)
        u, v = u * a.cos() - v * a.sin(), u * a.sin() + v * a.cos()
        waves = u.index_select(3, column) * b.sin() + v.index_select(3, column) * b.cos()  # (B, N, Hout, Wout)
        damped = self.colour * self._damping(spacing(y), spacing(x))
        return (damped @ waves.flatten(2)).unflatten(2, waves.shape[2:])

    def _damping(self, cell_y: Tensor | float, cell_x: Tensor | float) -> Tensor:
        """Return the factor of each sinusoid, `(N,)`, for target pixels at these distances in input pixels."""
        squared = (self.frequency[0] * cell_y).square() + (self.frequency[1] * cell_x).square()
        return torch.exp(-0.5 * self.spread.square() * squared)
