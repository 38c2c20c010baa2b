"""Color tags of a stream (ITU-T H.273) and the YUV coding that they stand for."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..contract.errors import MediaError

# Matrix code points of ITU-T H.273; FFmpeg uses the same numbers.
RGB, BT709, UNSPECIFIED, RESERVED, FCC, BT470BG, SMPTE170M, SMPTE240M, BT2020_NCL = 0, 1, 2, 3, 4, 5, 6, 7, 9
PQ, HLG = 16, 18  # transfer code points
LIMITED_RANGE, FULL_RANGE = 1, 2  # FFmpeg's AVColorRange; 0 is unspecified

# Matrix -> (Kr, Kb)
LUMA_WEIGHTS = {
    BT709: (0.2126, 0.0722),
    FCC: (0.30, 0.11),
    BT470BG: (0.299, 0.114),
    SMPTE170M: (0.299, 0.114),
    SMPTE240M: (0.212, 0.087),
    BT2020_NCL: (0.2627, 0.0593),
}
_MATRICES = {
    RGB: "RGB",
    BT709: "BT.709",
    FCC: "FCC",
    BT470BG: "BT.601",
    SMPTE170M: "BT.601",
    SMPTE240M: "SMPTE 240M",
    8: "YCgCo",
    BT2020_NCL: "BT.2020",
    10: "BT.2020 constant luminance",
    14: "ICtCp",
}
_PRIMARIES = {
    1: "BT.709",
    5: "BT.601 (625 lines)",
    6: "BT.601 (525 lines)",
    9: "BT.2020",
    11: "DCI-P3",
    12: "Display P3",
}
_TRANSFERS = {1: "BT.709", 6: "BT.601", 8: "linear", 13: "sRGB", 14: "BT.2020", 15: "BT.2020", PQ: "PQ", HLG: "HLG"}
_RANGES = {LIMITED_RANGE: "limited", FULL_RANGE: "full"}
_HD_LINES = 720  # by convention an untagged frame with fewer lines is BT.601


@dataclass(frozen=True)
class ColorTags:
    """The color tags of a stream: code points of ITU-T H.273, and the range as FFmpeg's AVColorRange (0, 1 or 2)."""

    matrix: int = UNSPECIFIED
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    range: int = 0

    def names(self) -> dict[str, str]:
        """Return the common name of every tag."""
        return {
            "matrix": _name(_MATRICES, self.matrix),
            "primaries": _name(_PRIMARIES, self.primaries),
            "transfer": _name(_TRANSFERS, self.transfer),
            "range": _RANGES.get(self.range, "untagged"),
        }


@dataclass(frozen=True)
class Coding:
    """The conversion between RGB and YUV: a matrix, which is a key of `LUMA_WEIGHTS`, and a range."""

    matrix: int
    full_range: bool


def coding_of(tags: ColorTags, height: int, pix_fmt: str) -> Coding:
    """Return the coding of frames with these tags, a height in px and a pixel format.

    Without a matrix tag the convention decides: BT.601 below 720 lines, BT.709 from there. Raises MediaError if the
    matrix is not supported.
    """
    full_range = pix_fmt.startswith("yuvj") or tags.range == FULL_RANGE
    matrix = tags.matrix
    if matrix in (UNSPECIFIED, RESERVED, RGB):  # none of them defines a YUV matrix
        matrix = SMPTE170M if height < _HD_LINES else BT709
    if matrix not in LUMA_WEIGHTS:
        name = _name(_MATRICES, matrix)
        raise MediaError(f"The color matrix {name} is not supported: convert the video to BT.709 or BT.2020 first.")
    return Coding(matrix, full_range)


def _name(names: Mapping[int, str], code: int) -> str:
    return "untagged" if code == UNSPECIFIED else names.get(code, f"number {code}")
