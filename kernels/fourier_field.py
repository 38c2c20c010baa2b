"""The last step of Fourier-S in one launch: a Fourier field over cubic interpolation, for any target size.

The network computes, for every input pixel, the coefficients of a field and the base, a blend of both warped frames.
At integer factors the colours of a target are a product of the coefficients and of weights that are the same for every
input pixel (`phases`); elsewhere each target pixel adds up its sinusoids (`at`). Nothing but the frame is written.

The field is that of `stvsr.training.networks.field`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import launcher

TERMS = 32  # of the shipped network
_THREADS, _TILE = 128, (32, 8)  # of the kernels: see fourier_field.cu
MOST_COLUMNS = 8  # target columns for each input pixel

# The engine renders in float32; half precision is measured at x4.
VARIANTS: tuple[launcher.Defines, ...] = tuple(
    (("DTYPE", dtype), ("TERMS", str(TERMS)), ("COLUMNS", str(columns)))
    for dtype, columns in (*(("float", columns) for columns in range(1, MOST_COLUMNS + 1)), ("half", 4))
)


@dataclass(frozen=True)
class Field:
    """The weights of a field with N frequencies, as float64 on the host."""

    frequency: np.ndarray  # (2, N): of rows and columns, in radians for each input pixel
    colour: np.ndarray  # (3, N)
    spread: float  # of a target pixel, in target pixels

    def damped(self, cell_y: float, cell_x: float) -> np.ndarray:  # (3, N)
        """Return the colours for target pixels at these distances, in input pixels."""
        squared = (self.frequency[0] * cell_y) ** 2 + (self.frequency[1] * cell_x) ** 2
        return self.colour * np.exp(-0.5 * self.spread**2 * squared)


@dataclass(frozen=True)
class PhaseTable:
    """The weights of the target pixels of one input pixel, the same for all; float32."""

    weights: Any  # (3, R, 2N, C): of the coefficients
    row_taps: Any  # (R, 5): of the base
    column_taps: Any  # (C, 5)

    def to(self, asarray: Callable[[np.ndarray], Any]) -> "PhaseTable":
        """Return a copy with converted arrays: `table.to(cupy.asarray)` is on the GPU."""
        return replace(self, **{name: asarray(getattr(self, name)) for name in ("weights", "row_taps", "column_taps")})


def phase_table(field: Field, y: np.ndarray, x: np.ndarray) -> PhaseTable:
    """Return the table of the target pixels at distances y (R,) and x (C,) from the centre of an input pixel.

    The distances divide the pixel evenly. Raises ValueError for more than 8 columns.
    """
    rows, columns = len(y), len(x)
    if not 1 <= columns <= MOST_COLUMNS:
        raise ValueError(f"{columns} target columns for each input pixel are not supported; use up to {MOST_COLUMNS}")
    y, x = y.astype(np.float64), x.astype(np.float64)
    angle = (y[:, None] * field.frequency[0])[:, None] + x[:, None] * field.frequency[1]  # (R, C, N)
    damped = field.damped(1 / rows, 1 / columns)[:, None, None]
    weights = np.concatenate([damped * np.sin(angle), damped * np.cos(angle)], -1)  # (3, R, C, 2N)
    arrays = weights.swapaxes(2, 3), _cubic_taps(y), _cubic_taps(x)
    return PhaseTable(*(np.ascontiguousarray(array, np.float32) for array in arrays))


def _cubic_taps(at: np.ndarray) -> np.ndarray:  # (N,) -> (N, 5)
    """Return the weights of pixels -2 to 2 at distances from the centre of pixel 0 (Keys 1981, a = -1/2)."""
    d = np.abs(at[:, None] - np.arange(-2, 3))
    near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def render_phases(coefficients: Any, base: Any, table: PhaseTable) -> Any:
    """Render a frame at integer scale factors.

    coefficients: (B, 2N, H, W), base: (B, 3, H, W), of one dtype. All arrays are on one device. Returns
    (B, 3, R * H, C * W) float32, not clamped. Raises ValueError for other shapes.
    """
    batch, terms, height, width = _check(coefficients, base)
    rows, columns = table.row_taps.shape[0], table.column_taps.shape[0]
    if table.weights.shape != (3, rows, 2 * terms, columns):
        raise ValueError(f"a table of shape {table.weights.shape} does not fit {2 * terms} coefficients")
    frame = launcher.empty(coefficients, (batch, 3, rows * height, columns * width), np.float32)
    if frame.size:
        launcher.launch(
            "fourier_field",
            _defines(coefficients, terms, columns),
            "field_at_phases",
            launcher.Launch((-(-height * width // _THREADS), batch, 1), (_THREADS, 1, 1)),
            *(coefficients, base, table.weights, table.row_taps, table.column_taps, frame),
            *(np.int32(value) for value in (rows, height, width)),
        )
    return frame


def render_at(coefficients: Any, base: Any, frequency: Any, colours: Any, y: Any, x: Any) -> Any:
    """Render the crossings of the rows y (Hout,) and the columns x (Wout,), in input pixels.

    coefficients: (B, 2N, H, W), base: (B, 3, H, W), of one dtype; frequency: (2, N) and colours: (3, N), those of
    `Field` and `Field.damped`; float32 but for the first two. All arrays are on one device. Returns (B, 3, Hout, Wout)
    float32, not clamped. Raises ValueError for other shapes.
    """
    batch, terms, height, width = _check(coefficients, base)
    if frequency.shape != (2, terms) or colours.shape != (3, terms):
        raise ValueError(f"weights of shapes {frequency.shape} and {colours.shape} do not fit {terms} frequencies")
    target_height, target_width = y.shape[0], x.shape[0]
    frame = launcher.empty(coefficients, (batch, 3, target_height, target_width), np.float32)
    if frame.size:
        grid = -(-target_width // _TILE[0]), -(-target_height // _TILE[1]), batch
        launcher.launch(
            "fourier_field",
            _defines(coefficients, terms, 1),
            "field_at",
            launcher.Launch(grid, (*_TILE, 1)),
            *(coefficients, base, frequency, colours, y, x, frame),
            *(np.int32(value) for value in (height, width, target_height, target_width)),
        )
    return frame


def _check(coefficients: Any, base: Any) -> tuple[int, int, int, int]:
    """Return the batch, the number of frequencies, and the height and width. Raises ValueError."""
    batch, count, height, width = coefficients.shape
    if count % 2 or base.shape != (batch, 3, height, width) or base.dtype != coefficients.dtype:
        raise ValueError(
            f"coefficients of shape {coefficients.shape} and {coefficients.dtype} do not fit a base of shape"
            f" {base.shape} and {base.dtype}; pass (B, 2N, H, W) and (B, 3, H, W) of one dtype"
        )
    return batch, count // 2, height, width


def _defines(coefficients: Any, terms: int, columns: int) -> launcher.Defines:
    return (launcher.dtype_define(coefficients.dtype), ("TERMS", str(terms)), ("COLUMNS", str(columns)))
