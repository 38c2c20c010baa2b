"""Quantities as people write them: frame rates, factors, times and sizes."""

import math
import re
from fractions import Fraction

from ..contract.errors import RequestError
from .limits import check_factor, check_rate, check_scale

Number = Fraction | float | str  # a quantity as it is given: 2, 2.5, "2.5" or "5/2"
Size = tuple[int, int] | str  # (width, height) in pixels, of which one may be -1; or "1920x-1", or "1080p"

_MOST_SECONDS = 10**7
_MOST_SIDE = 1 << 16  # pixels
_SIMPLE = 1000  # the largest denominator of a factor in time

_DECIMAL = re.compile(r"\d*\.(\d+)")
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)s?")
_SIZE = re.compile(r"(-1|-2|\d{1,9})\s*[xX×:]\s*(-1|-2|\d{1,9})")
_LINES = re.compile(r"(\d{2,5})[pP]")
_NAMED_LINES = {"4k": 2160, "8k": 4320}


def read_rate(value: Number) -> Fraction:
    """Return frames per second, a number or a fraction.

    The decimals by which the rates of NTSC are known, such as 23.976, 29.97 and 59.94, mean 24000/1001 and its kind.
    Raises RequestError for other text, and for a rate that is not above 0 or is beyond the limits.
    """
    rate = _number(value, "a frame rate", "60, 59.94 or 60000/1001")
    if rate <= 0:
        raise RequestError(f"'{value}' is not a frame rate: it must be above 0.")
    check_rate(rate)
    decimals = _DECIMAL.fullmatch(_text(value))
    return _ntsc(rate, len(decimals[1])) if decimals else rate


def read_factor(value: Number, name: str = "time factor") -> Fraction:
    """Return a factor of frames in time, from 1 on. Raises RequestError for anything else."""
    factor = _number(value, f"a {name}", "2, 2.5 or 5/2")
    check_factor(factor, name)
    return factor.limit_denominator(_SIMPLE)


def read_scale(value: Number) -> float:
    """Return a factor in space. Raises RequestError for one that is not above 0, or is beyond the limit."""
    scale = value if isinstance(value, float) else _number(value, "a scale", "4, 1.33 or 4/3")
    check_scale(scale)
    return float(scale)


def read_seconds(value: Number) -> Fraction:
    """Return a time in seconds, which text gives as 90, 1:30 or 1:02:03.5. Raises RequestError for anything else."""
    if isinstance(value, str) and (clock := _CLOCK.fullmatch(value.strip())):
        hours, minutes, seconds = clock.groups()
        time = int(hours or 0) * 3600 + int(minutes or 0) * 60 + Fraction(seconds)
    else:
        time = _number(value, "a time", "90, 1:30 or 1:02:03.5")
    if not 0 <= time <= _MOST_SECONDS:
        raise RequestError(f"'{value}' is not a time: it must be from 0 to {_MOST_SECONDS} seconds.")
    return time


def read_size(value: Size) -> tuple[int, int] | int:
    """Return a size in pixels: width and height, one of which may be -1, or the lines of 1080p and its kind.

    Raises RequestError for anything else.
    """
    if isinstance(value, str):
        text = value.strip().lower()
        if lines := _LINES.fullmatch(text):
            return _checked_side(int(lines[1]), value)
        if text in _NAMED_LINES:
            return _NAMED_LINES[text]
        sides = _SIZE.fullmatch(text)
        if sides is None:
            raise RequestError(
                f"'{value}' is not a size: write width and height in pixels, as in 1280x720, 1920x-1 or 1080p."
            )
        width, height = int(sides[1]), int(sides[2])
    else:
        width, height = value
    text = f"{width}x{height}"
    if max(width, height) < 0:
        raise RequestError(f"'{text}' is not a size: give the width, the height, or both.")
    width, height = (side if side in (-1, -2) else _checked_side(side, text) for side in (width, height))
    return width, height


def target_size(size: Size, width: int, height: int) -> tuple[int, int]:
    """Return the size that frames of `width` and `height` pixels get.

    A side of -1 follows from the other one, by the proportions of the frame; -2 gives an even number. 1080p is the
    largest size within 1920x1080, or within 1080x1920 for upright frames.
    """
    wanted = read_size(size)
    if isinstance(wanted, int):
        long, short = -(-wanted * 16 // 9), wanted
        box = (long, short) if width >= height else (short, long)
        scale = min(Fraction(box[0], width), Fraction(box[1], height))
        return _even(width * scale, box[0]), _even(height * scale, box[1])
    target_width, target_height = wanted
    if target_width < 0:
        exact = Fraction(width * target_height, height)
        return (_even(exact) if target_width == -2 else max(1, round(exact))), target_height
    if target_height < 0:
        exact = Fraction(height * target_width, width)
        return target_width, (_even(exact) if target_height == -2 else max(1, round(exact)))
    return wanted


def _number(value: Number, kind: str, examples: str) -> Fraction:
    if isinstance(value, Fraction | int):
        return Fraction(value)
    try:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
        text = _text(value)
        if len(text) > 40 or re.search(r"[eE][+-]?\d{3,}", text):  # 1e999999999 would take all memory
            raise ValueError
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise RequestError(f"'{value}' is not {kind}: write a number or a fraction, as in {examples}.") from None


def _text(value: Number) -> str:
    return repr(float(value)) if isinstance(value, float) else str(value).strip()


def _ntsc(rate: Fraction, decimals: int) -> Fraction:
    """Return the rate of NTSC that a number with some decimals stands for, rounded or cut off, or else the number."""
    nominal = math.ceil(rate)
    exact = Fraction(nominal * 1000, 1001)
    step = Fraction(1, 10**decimals)
    is_known = decimals >= 2 and (nominal % 12 == 0 or nominal % 15 == 0)
    return exact if is_known and -step / 2 <= exact - rate < step else rate


def _checked_side(side: int, size: str) -> int:
    if not 1 <= side <= _MOST_SIDE:
        raise RequestError(f"'{size}' is not a size: width and height must be from 1 to {_MOST_SIDE} pixels.")
    return side


def _even(exact: Fraction, most: int | None = None) -> int:
    """Return the nearest even number, at least 2."""
    even = max(2, 2 * round(exact / 2))
    return even if most is None or even <= most else even - 2
