"""The README's picture: crops at a time between two inputs, as input, bicubic with blending, stvsr and truth.

``python -m benchmarks.picture BUNDLE OUT.png CLIP:FRAME:X:Y ...`` (X, Y: the crop's left and top in the truth)
"""

import sys
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from stvsr.engine.contract.picture import to_float
from stvsr.engine.pipeline.upscaler import Upscaler
from stvsr.training.clips import read_clip
from stvsr.training.resize import imresize, to_uint8

SCALE, CROP_PX, GAP_PX = 4, 160, 6


def row(upscaler: Upscaler, clip: str, frame: int, left: int, top: int) -> np.ndarray:
    """Four crops side by side, (CROP_PX, 4 * CROP_PX + gaps, 3)."""
    first, truth, second = islice(read_clip(Path(clip)), frame - 1, frame + 2)
    size = (truth.shape[0], truth.shape[1])
    small = [to_uint8(imresize(f / 255.0, (size[0] // SCALE, size[1] // SCALE))) / 255.0 for f in (first, second)]
    planar = [np.ascontiguousarray(f.transpose(2, 0, 1), dtype=np.float32) for f in small]
    (made,) = upscaler.frames(planar[0], planar[1], [0.5], size)
    blended = sum(imresize(f, size) for f in small) / 2
    images = (
        np.kron(small[0], np.ones((SCALE, SCALE, 1))),
        blended,
        to_float(made.transpose(1, 2, 0)),
        truth / 255.0,
    )
    window = (slice(top, top + CROP_PX), slice(left, left + CROP_PX))
    gap = np.ones((CROP_PX, GAP_PX, 3))
    crops = [part for image in images for part in (image[window], gap)][:-1]
    return to_uint8(np.concatenate(crops, 1))


def main() -> None:
    bundle, out, *places = sys.argv[1:]
    rows = []
    with Upscaler(bundle) as upscaler:
        for place in places:
            clip, frame, left, top = place.rsplit(":", 3)
            rows.append(row(upscaler, clip, int(frame), int(left), int(top)))
    gap = np.full((GAP_PX, rows[0].shape[1], 3), 255, np.uint8)
    picture = np.concatenate([part for r in rows for part in (r, gap)][:-1])
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width, encoder.pix_fmt = *picture.shape[:2], "rgb24"
    encoder.time_base = Fraction(1)
    packets = [*encoder.encode(av.VideoFrame.from_ndarray(picture, "rgb24")), *encoder.encode(None)]
    Path(out).write_bytes(b"".join(bytes(packet) for packet in packets))


if __name__ == "__main__":
    main()
