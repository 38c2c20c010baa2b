"""What a stream's tags say of its colours, and how its YUV is to be read."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..contract.errors import MediaError

# Code points of ITU-T H.273, which FFmpeg uses too.
RGB, BT709, UNSPECIFIED, BT470BG, SMPTE170M, BT2020_NCL = 0, 1, 2, 5, 6, 9
LIMITED_RANGE, FULL_RANGE = 1, 2  # of FFmpeg's AVColorRange; 0 says nothing

# Matrix -> (Kr, Kb)
LUMA_WEIGHTS = {
    BT709: (0.2126, 0.0722),
    4: (0.30, 0.11),  # FCC
    BT470BG: (0.299, 0.114),
    SMPTE170M: (0.299, 0.114),
    7: (0.212, 0.087),  # SMPTE 240M
    BT2020_NCL: (0.2627, 0.0593),
}
_MATRICES = {
    RGB: "RGB",
    BT709: "BT.709",
    4: "FCC",
    BT470BG: "BT.601",
    SMPTE170M: "BT.601",
    7: "SMPTE 240M",
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
_TRANSFERS = {1: "BT.709", 6: "BT.601", 8: "linear", 13: "sRGB", 14: "BT.2020", 15: "BT.2020", 16: "PQ", 18: "HLG"}
_RANGES = {LIMITED_RANGE: "limited", FULL_RANGE: "full"}
_HD_LINES = 720  # untagged pictures below it are BT.601, as is the custom


@dataclass(frozen=True)
class ColorTags:
    """What a stream says of its colours, as code points of ITU-T H.273; the range as FFmpeg counts (0, 1, 2)."""

    matrix: int = UNSPECIFIED
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    range: int = 0

    def names(self) -> dict[str, str]:
        """Return every tag by its common name."""
        return {
            "matrix": _name(_MATRICES, self.matrix),
            "primaries": _name(_PRIMARIES, self.primaries),
            "transfer": _name(_TRANSFERS, self.transfer),
            "range": _RANGES.get(self.range, "untagged"),
        }


@dataclass(frozen=True)
class Coding:
    """How RGB is coded as YUV."""

    matrix: int
    full_range: bool


def coding_of(tags: ColorTags, height: int, pix_fmt: str) -> Coding:
    """Return what the tags mean for pictures of that height and pixel format; untagged ones get the custom."""
    full_range = pix_fmt.startswith("yuvj") or tags.range == FULL_RANGE
    matrix = tags.matrix
    if matrix in (UNSPECIFIED, 3, RGB):  # 3 is reserved; RGB says nothing of YUV
        matrix = SMPTE170M if height < _HD_LINES else BT709
    if matrix not in LUMA_WEIGHTS:
        name = _name(_MATRICES, matrix)
        raise MediaError(f"The colour matrix {name} is not supported: convert the video to BT.709 or BT.2020 first.")
    return Coding(matrix, full_range)


def _name(names: Mapping[int, str], code: int) -> str:
    return "untagged" if code == UNSPECIFIED else names.get(code, f"number {code}")
