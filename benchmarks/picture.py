"""Draw the README's picture: `python -m benchmarks.picture BUNDLE OUT.png CLIP:FRAME:X:Y ...`.

Each row shows the same crop at a time between two inputs: the first input, bicubic resizing with blending, stvsr, and
the truth. FRAME is the number of the frame between the inputs; X and Y are the left and the top of the crop in the
truth. With `--crf`, the inputs, which are every second frame of the clip up to there, pass through x264.
"""

import sys
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from stvsr import Upscaler
from stvsr.engine.contract.picture import to_float
from stvsr.training.clips import read_clip
from stvsr.training.compression import compress
from stvsr.training.resize import imresize, to_uint8

from .command_line import new_parser
from .media import write_png

SCALE, CROP_PX, GAP_PX = 4, 160, 6


class Crop(NamedTuple):
    """The clip, the frame and the left top corner of a row."""

    clip: Path
    frame: int
    left: int
    top: int


def row(upscaler: Upscaler, crop: Crop, crf: int | None) -> NDArray[np.uint8]:
    """Return four crops side by side, (CROP_PX, 4 * CROP_PX + gaps, 3)."""
    frames = list(islice(read_clip(crop.clip), crop.frame + 2))
    if not 0 < crop.frame < len(frames) - 1:
        sys.exit(f"{crop.clip} has no frame {crop.frame} between two others: choose another FRAME.")
    truth, inputs = frames[-2], frames[(crop.frame - 1) % 2 :: 2]
    size = (truth.shape[0], truth.shape[1])
    if crop.top + CROP_PX > size[0] or crop.left + CROP_PX > size[1]:
        sys.exit(f"A crop of {CROP_PX} pixels exceeds {crop.clip} of {size[1]}x{size[0]} pixels: choose other X and Y.")
    if crf is None:
        inputs = inputs[-2:]
    shrunk = [to_uint8(imresize(frame / 255.0, (size[0] // SCALE, size[1] // SCALE))) for frame in inputs]
    small = [frame / 255.0 for frame in (shrunk if crf is None else list(compress(shrunk, crf)))[-2:]]
    planar = [np.ascontiguousarray(f.transpose(2, 0, 1), dtype=np.float32) for f in small]
    (upscaled,) = upscaler.between(planar[0], planar[1], [0.5], size)
    images = (
        np.kron(small[0], np.ones((SCALE, SCALE, 1))),
        (imresize(small[0], size) + imresize(small[1], size)) / 2,
        to_float(upscaled.transpose(1, 2, 0)),
        truth / 255.0,
    )
    window = (slice(crop.top, crop.top + CROP_PX), slice(crop.left, crop.left + CROP_PX))
    gap = np.ones((CROP_PX, GAP_PX, 3))
    parts = [part for image in images for part in (image[window], gap)][:-1]
    return to_uint8(np.concatenate(parts, 1))


def main() -> None:
    """Run the command line."""
    parser = new_parser("picture", __doc__)
    parser.add_argument("bundle", help="name or folder of a bundle")
    parser.add_argument("out", type=Path, help="PNG file")
    parser.add_argument("crops", nargs="+", type=_crop, metavar="CLIP:FRAME:X:Y")
    parser.add_argument("--crf", type=int, choices=range(52), metavar="0-51", help="rate factor of x264 (none)")
    arguments = parser.parse_args()
    with Upscaler(arguments.bundle) as upscaler:
        rows = [row(upscaler, crop, arguments.crf) for crop in arguments.crops]
    gap = np.full((GAP_PX, rows[0].shape[1], 3), 255, np.uint8)
    write_png(arguments.out, np.concatenate([part for r in rows for part in (r, gap)][:-1]))


def _crop(text: str) -> Crop:
    clip, frame, left, top = text.rsplit(":", 3)
    return Crop(Path(clip), int(frame), int(left), int(top))


if __name__ == "__main__":
    main()
