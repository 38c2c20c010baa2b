"""Estimation of a clip's compression: from the stream's quantisers, from its bits, and from blocks in the picture.

The unit is the constant rate factor (CRF) at which x264 would have lost as much. The quantisers of an H.264 stream give
it directly. Another stream has as many bits as x264 spends on the same frames at some CRF, once they are weighed by the
efficiency of the codec. Where neither is known, or an older compression shows through, the jumps of brightness at the
borders of blocks are larger than elsewhere; filters within the codecs hide them up to CRF 33 or so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...engine.contract.coding import StreamCoding
from ..compression import compressed_bits
from ..resize import to_uint8
from .sampling import grey_levels, middle, spread_frames

_ABOVE_CRF = 5.0  # of x264's mean quantiser above its CRF; 3.6 to 5.9 were measured
_BY_QUANTISER, _BY_BITS, _BY_BLOCKS = 0.95, 0.7, 0.6  # confidence
_CRFS = (12, 25, 38)
_LOSSLESS_CRF = 0  # of streams with more bits than at the lowest of these
_FRAMES = 16  # neighbours that are encoded
# Bits of other codecs over those of H.264 for the same quality, roughly.
_EFFICIENCY = {"hevc": 0.7, "vp9": 0.7, "av1": 0.55, "vvc": 0.5, "mpeg4": 1.4, "mpeg2video": 2.0, "mpeg1video": 2.2}
_MIDDLE_PX = 512  # side of what is looked at, of large frames
_BLOCK_PX = 8
_BLOCKS_FRAMES = 8
_BLOCKINESS = 0.12  # from which the picture has blocks; up to 0.05 was measured without compression
_BLOCKS_CRF = 36.0
_MOST_JUMP = 8.0  # grey levels; larger jumps are edges of things
_LOST, _LOST_CRF, _LOST_DOUBLES = 4.5, 35.0, 8.0  # grey levels that are lost at a CRF, and CRFs to double them


@dataclass(frozen=True)
class CompressionEstimate:
    """The CRF of x264 that loses as much as the clip's compression, 0 without any, and the confidence in it, 0 to 1.

    `evidence` is "quantisers", "bits", "blocks" or "none". `blockiness` is the excess of the jumps at the borders of
    blocks, over the mean jump.
    """

    crf: float
    confidence: float
    evidence: str
    blockiness: float

    def record(self) -> dict[str, Any]:
        """Return the estimate as JSON values."""
        return {
            "crf": round(self.crf, 1),
            "confidence": round(self.confidence, 3),
            "evidence": self.evidence,
            "blockiness": round(self.blockiness, 3),
        }


def estimate_compression(scenes: Sequence[Tensor], coding: StreamCoding | None = None) -> CompressionEstimate:
    """Estimate the compression of a clip from frames (N, 3, h, w) in [0, 1] of each scene, and from its stream."""
    blocks = min(blockiness(frames) for frames in scenes)
    if coding is not None and coding.quantiser is not None:
        found = CompressionEstimate(max(0.0, coding.quantiser - _ABOVE_CRF), _BY_QUANTISER, "quantisers", blocks)
    elif coding is not None and coding.codec in _EFFICIENCY:
        found = CompressionEstimate(_crf_by_bits(max(scenes, key=len), coding), _BY_BITS, "bits", blocks)
    else:
        found = CompressionEstimate(0.0, 0.0, "none", blocks)
    if blocks > _BLOCKINESS and found.crf < _BLOCKS_CRF:
        return CompressionEstimate(_BLOCKS_CRF, _BY_BLOCKS, "blocks", blocks)
    return found


def lost_levels(crf: float) -> float:
    """Return the standard deviation of what x264 takes away from luma at a CRF, in grey levels."""
    return float(_LOST * 2 ** ((crf - _LOST_CRF) / _LOST_DOUBLES))


def blockiness(frames: Tensor) -> float:
    """Return how much larger jumps of brightness are at the borders of 8x8 blocks, over the mean jump; 0 without any.

    `frames` is (N, 3, h, w) in [0, 1]. The smaller of both directions counts, as a fence has a period in one only.
    """
    levels = grey_levels(middle(spread_frames(frames, _BLOCKS_FRAMES), _MIDDLE_PX, _BLOCK_PX))
    if min(levels.shape[1:]) < 4 * _BLOCK_PX:
        return 0.0
    return min(_excess(levels), _excess(levels.transpose(0, 2, 1)))


def _excess(levels: NDArray[np.float32]) -> float:
    steps = np.abs(np.diff(levels, axis=2))
    jumps = np.clip(steps[:, :, 1:-1] - (steps[:, :, :-2] + steps[:, :, 2:]) / 2, -_MOST_JUMP, _MOST_JUMP)
    profile = jumps.mean((0, 1))
    border = (np.arange(len(profile)) + 2) % _BLOCK_PX  # 0 between two blocks, 4 between blocks of 4x4
    excess = profile[border == 0].mean() - profile[(border != 0) & (border != _BLOCK_PX // 2)].mean()
    return float(excess / max(float(steps.mean()), 1e-3))


def _crf_by_bits(frames: Tensor, coding: StreamCoding) -> float:
    """Return the CRF at which x264 spends as many bits on neighbouring frames as the stream did."""
    pictures = [to_uint8(frame.permute(1, 2, 0).cpu().numpy()) for frame in middle(frames[:_FRAMES], _MIDDLE_PX)]
    pixels = len(pictures) * pictures[0].shape[0] * pictures[0].shape[1]
    spent = np.log([max(1, compressed_bits(pictures, crf)) / pixels for crf in _CRFS])
    wanted = np.log(max(coding.bits_per_pixel, 1e-6) / _EFFICIENCY[coding.codec])
    if wanted > spent[0]:
        return float(_LOSSLESS_CRF)
    return float(np.interp(-wanted, -spent, _CRFS))
