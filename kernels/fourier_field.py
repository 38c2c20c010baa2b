"""The last step of Fourier-S in one launch: a Fourier field over cubic interpolation, for any target size.

The network computes, for every input pixel, the coefficients of a field and the base, a blend of both warped frames.
At integer factors the colours of a target are a product of the coefficients and of weights that are the same for every
input pixel (`phases`); elsewhere each target pixel adds up its sinusoids (`at`). Nothing but the frame is written, or
the picture that is made of it: RGB in 16 bits, or the planes of YUV 4:2:0.

The field is that of `stvsr.training.networks.field`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from . import launcher, variants
from .color import Yuv420

TERMS = 32  # of the shipped network
_TILE = (32, 8)  # threads of a block of `field_at`
_WARP = 32
MOST_COLUMNS = 8  # target columns for each input pixel


class Variant(NamedTuple):
    """The parameters of `field_at_phases` in fourier_field.cu."""

    threads: int  # of a block
    blocks: int  # of a multiprocessor at once, at least


# The first one is used unless another is known to be faster on the card.
PHASES_VARIANTS = (Variant(128, 3), Variant(128, 2), Variant(64, 6), Variant(256, 1))


class Target(NamedTuple):
    """The output of the kernels: RGB as it is (float32), RGB in 16 bits, or the codes of YUV 4:2:0."""

    yuv: int
    sample_bytes: int

    def defines(self, dtype: Any, terms: int, columns: int, variant: Variant) -> launcher.Defines:
        """Return the defines of the kernels."""
        numbers = {"TERMS": terms, "COLUMNS": columns, "YUV": self.yuv, "SAMPLE_BYTES": self.sample_bytes}
        numbers |= {name.upper(): value for name, value in variant._asdict().items()}
        return (launcher.dtype_define(dtype), *((name, str(value)) for name, value in numbers.items()))


_FRAME, _RGB, _CODES = Target(0, 0), Target(0, 2), (Target(1, 1), Target(1, 2))


def _listed() -> tuple[launcher.Defines, ...]:
    every, even = range(1, MOST_COLUMNS + 1), range(2, MOST_COLUMNS + 1, 2)
    of_columns = [(target, columns) for target in (_FRAME, _RGB) for columns in every]
    of_columns += [(target, columns) for target in _CODES for columns in even]
    first, *others = PHASES_VARIANTS
    # The engine renders in float32; half precision and the other variants are measured at x4.
    listed = [target.defines(np.float32, TERMS, columns, first) for target, columns in of_columns]
    listed += [target.defines(np.float16, TERMS, 4, first) for target in (_FRAME, _CODES[0])]
    for variant in others:
        listed += [target.defines(np.float32, TERMS, 4, variant) for target in (_FRAME, _CODES[0])]
        listed += [target.defines(np.float16, TERMS, 4, variant) for target in (_FRAME, _CODES[0])]
    return tuple(listed)


VARIANTS = _listed()


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

    @property
    def factors(self) -> tuple[int, int]:
        """Target rows and columns for each input pixel, (R, C)."""
        return self.row_taps.shape[0], self.column_taps.shape[0]

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


class Picture(NamedTuple):
    """Rendered pictures."""

    planes: tuple[Any, ...]  # one plane of RGB (B, 3, H, W) uint16, or those of `Yuv420.planes`
    finite: Any  # (B,) uint8: 0 for a picture with values that are not finite numbers


def render_phases(coefficients: Any, base: Any, table: PhaseTable, variant: Variant | None = None) -> Any:
    """Render a frame at integer scale factors.

    coefficients: (B, 2N, H, W), base: (B, 3, H, W), of one dtype. All arrays are on one device. variant: by default
    that of the card. Returns (B, 3, R * H, C * W) float32, not clamped. Raises ValueError for other shapes.
    """
    batch, _, height, width = _check(coefficients, base)
    rows, columns = table.factors
    frame = launcher.empty(coefficients, (batch, 3, rows * height, columns * width), np.float32)
    _launch_phases(coefficients, base, table, _FRAME, variant, frame.shape[2:], (frame, *_sizes(frame)))
    return frame


def picture_of_phases(
    coefficients: Any,
    base: Any,
    table: PhaseTable,
    size: tuple[int, int],
    coding: Yuv420 | None,
    variant: Variant | None = None,
) -> Picture:
    """Render pictures at integer scale factors; they begin with the frame's first row and column.

    size: (height, width) of the pictures, multiples of the factors. coding: the format of YUV 4:2:0, which takes even
    factors, or None for RGB in 16 bits, of which 65535 is white. Values are clipped to [0, 1], and NaN is black; the
    planes are those that `color.from_rgb` makes of the frame, but for codes that lie half-way between two. The others
    are as for `render_phases`. Raises ValueError for other shapes, sizes and factors, and for an unknown pixel format.
    """
    batch, _, height, width = _check(coefficients, base)
    factors = table.factors
    fits = all(m % n == 0 and m <= n * k for m, n, k in zip(size, factors, (height, width), strict=True))
    if not fits or (coding and (factors[0] % 2 or factors[1] % 2)):
        raise ValueError(
            f"pictures of {size} cannot be made of {(height, width)} pixels by the factors {factors}; use multiples of"
            " the factors, and even factors for YUV, or picture_at"
        )
    picture, target, arguments = _empty_picture(coefficients, batch, size, coding)
    _launch_phases(coefficients, base, table, target, variant, size, arguments)
    return picture


def render_at(coefficients: Any, base: Any, frequency: Any, colours: Any, y: Any, x: Any) -> Any:
    """Render the crossings of the rows y (Hout,) and the columns x (Wout,), in input pixels.

    coefficients: (B, 2N, H, W), base: (B, 3, H, W), of one dtype; frequency: (2, N) and colours: (3, N), those of
    `Field` and `Field.damped`; float32 but for the first two. All arrays are on one device. Returns (B, 3, Hout, Wout)
    float32, not clamped. Raises ValueError for other shapes.
    """
    frame = launcher.empty(coefficients, (coefficients.shape[0], 3, y.shape[0], x.shape[0]), np.float32)
    _launch_at(coefficients, base, frequency, colours, y, x, _FRAME, (frame, *_sizes(frame)))
    return frame


def picture_at(
    coefficients: Any, base: Any, frequency: Any, colours: Any, y: Any, x: Any, coding: Yuv420 | None
) -> Picture:
    """Render pictures of the crossings of the rows y and the columns x.

    coding: as for `picture_of_phases`, with any factors; the others are as for `render_at`. With YUV, y and x are those
    of whole pictures: chroma samples repeat the edges. Raises ValueError for other shapes and for an unknown pixel
    format.
    """
    size = y.shape[0], x.shape[0]
    picture, target, arguments = _empty_picture(coefficients, coefficients.shape[0], size, coding)
    _launch_at(coefficients, base, frequency, colours, y, x, target, arguments)
    return picture


def variant_key(dtype: Any, picture: bool) -> str:
    """Return the key of `field_at_phases` in the table of variants."""
    return f"fourier_field {np.dtype(dtype)}, {'picture' if picture else 'frame'}"


def phases_launch(batch: int, pixels: int, table_bytes: int, target: Target, variant: Variant) -> launcher.Launch:
    """Return the launch parameters of `field_at_phases` for so many input pixels, and weights of so many bytes."""
    warps = -(-pixels // (_WARP - target.yuv))
    blocks = -(-warps * _WARP // variant.threads)
    return launcher.Launch((blocks, batch, 1), (variant.threads, 1, 1), table_bytes)


def _launch_phases(
    coefficients: Any,
    base: Any,
    table: PhaseTable,
    target: Target,
    variant: Variant | None,
    size: tuple[int, int],
    arguments: tuple[Any, ...],
) -> None:
    batch, terms, height, width = _check(coefficients, base)
    rows, columns = table.factors
    if table.weights.shape != (3, rows, 2 * terms, columns):
        raise ValueError(f"a table of shape {table.weights.shape} does not fit {2 * terms} coefficients")
    if not batch * size[0] * size[1]:
        return
    key = variant_key(coefficients.dtype, target != _FRAME)
    variant = variant or variants.choose(key, PHASES_VARIANTS, launcher.card_of(coefficients))
    launcher.launch(
        "fourier_field",
        target.defines(coefficients.dtype, terms, columns, variant),
        "field_at_phases",
        phases_launch(batch, height * width, table.weights.nbytes, target, variant),
        *(coefficients, base, table.weights, table.row_taps, table.column_taps),
        *(np.int32(value) for value in (rows, height, width)),
        *arguments,
    )


def _launch_at(
    coefficients: Any,
    base: Any,
    frequency: Any,
    colours: Any,
    y: Any,
    x: Any,
    target: Target,
    arguments: tuple[Any, ...],
) -> None:
    batch, terms, height, width = _check(coefficients, base)
    if frequency.shape != (2, terms) or colours.shape != (3, terms):
        raise ValueError(f"weights of shapes {frequency.shape} and {colours.shape} do not fit {terms} frequencies")
    target_height, target_width = y.shape[0], x.shape[0]
    if not batch * target_height * target_width:
        return
    # With YUV a block has two columns less, and two rows for each of its threads: see fourier_field.cu.
    tile = _TILE[0] - 2 * target.yuv, _TILE[1] * (1 + target.yuv)
    launcher.launch(
        "fourier_field",
        target.defines(coefficients.dtype, terms, 1 + target.yuv, PHASES_VARIANTS[0]),
        "field_at",
        launcher.Launch((-(-target_width // tile[0]), -(-target_height // tile[1]), batch), (*_TILE, 1)),
        *(coefficients, base, frequency, colours, y, x),
        *(np.int32(value) for value in (height, width)),
        *arguments,
    )


def _empty_picture(
    like: Any, batch: int, size: tuple[int, int], coding: Yuv420 | None
) -> tuple[Picture, Target, tuple[Any, ...]]:
    """Return pictures to be rendered, their kind, and the kernel's arguments for them."""
    finite = launcher.empty(like, (batch,), np.uint8)
    finite.fill(1)
    if coding is None:
        frame = launcher.empty(like, (batch, 3, *size), np.uint16)
        return Picture((frame,), finite), _RGB, (frame, *_sizes(frame), finite)
    planes = coding.planes(like, size, (batch,))
    return Picture(planes, finite), Target(1, planes[0].dtype.itemsize), (*coding.arguments(planes), finite)


def _sizes(frame: Any) -> tuple[np.int32, np.int32]:
    return np.int32(frame.shape[2]), np.int32(frame.shape[3])


def _check(coefficients: Any, base: Any) -> tuple[int, int, int, int]:
    """Return the batch, the number of frequencies, and the height and width. Raises ValueError."""
    batch, count, height, width = coefficients.shape
    if count % 2 or base.shape != (batch, 3, height, width) or base.dtype != coefficients.dtype:
        raise ValueError(
            f"coefficients of shape {coefficients.shape} and {coefficients.dtype} do not fit a base of shape"
            f" {base.shape} and {base.dtype}; pass (B, 2N, H, W) and (B, 3, H, W) of one dtype"
        )
    return batch, count // 2, height, width
