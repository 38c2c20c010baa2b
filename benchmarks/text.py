"""Measure frames between two of moving text: `python -m benchmarks.text`.

A page of text moves upwards by 2 to 16 pixels of the small input between two inputs, four times smaller than the page,
and the frame half-way is upscaled x4. Each bundle and motion is one JSON line in `results/text.jsonl`, and the table of
benchmarks/README.md shows the last of each (`--table` alone writes it).
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from stvsr import Backend, Upscaler
from stvsr.engine.contract.metrics import luma, psnr
from stvsr.engine.contract.picture import FULL_SCALE
from stvsr.training.resize import downscale, imresize

from .command_line import add_out, given_command, new_parser
from .record import publish, read_lines, record

BEGIN, END = "<!-- text: python -m benchmarks.text -->", "<!-- /text -->"
SCALE, SIZE = 4, (384, 640)  # and the rows and columns of a target
MOTIONS = (2, 4, 8, 16)  # pixels of the input between two inputs
_PAPER, _INK = (30, 20, 20), (235, 235, 235)
_ROW_PX, _SPACE_PX = 44, 20
_WORDS = (
    "upscale",
    "video",
    "in",
    "space",
    "and",
    "time",
    "larger",
    "frames",
    "of",
    "them",
    "a",
    "network",
    "looks",
    "at",
)


def page(height: int, width: int) -> np.ndarray:
    """Return rows of random words, (height, width, 3) uint8."""
    random = np.random.default_rng(0)
    picture = np.full((height, width, 3), _PAPER, np.uint8)
    for y in range(_ROW_PX, height, _ROW_PX):
        x = _SPACE_PX
        while x < width:
            word = _WORDS[random.integers(len(_WORDS))]
            cv2.putText(picture, word, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 1.0, _INK, 2, cv2.LINE_AA)
            x += cv2.getTextSize(word, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 2)[0][0] + _SPACE_PX
    return picture


def scenes() -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield motions, their two inputs (2, 3, h, w) float32 in [0, 1], and the truth between them (H, W, 3) uint8."""
    height, width = SIZE
    text = page(height + SCALE * MOTIONS[-1], width)
    for motion in MOTIONS:
        first, truth, second = (text[step * motion * SCALE // 2 :][:height] for step in range(3))
        small = downscale(np.stack([first, second]) / np.float32(255), (height // SCALE, width // SCALE))
        yield motion, small.transpose(0, 3, 1, 2) / np.float32(255), truth


def measure(name: str, folder: Path) -> None:
    """Record the Y-PSNR of a bundle's frames between, and that of bicubic resizing of both inputs' mean."""
    with Upscaler(name, Backend(device="cpu")) as upscaler:
        for motion, inputs, truth in scenes():
            (frame,) = upscaler.between(inputs[0], inputs[1], [Fraction(1, 2)], SIZE)
            made = frame.transpose(1, 2, 0).astype(np.float64) * 255 / FULL_SCALE
            blended = 255 * imresize(inputs.mean(0).transpose(1, 2, 0), SIZE).clip(0, 1)
            record(
                "text",
                folder,
                given_command("text"),
                bundle=name,
                graphs_sha256={graph.role: graph.sha256 for graph in upscaler.bundle.manifest.graphs},
                motion_px=motion,
                psnr_y_db=round(psnr(luma(made), luma(truth)), 2),
                blended_db=round(psnr(luma(blended), luma(truth)), 2),
            )


def table(folder: Path) -> str:
    """Return the table of the last measurement of every bundle and motion."""
    lines = read_lines("text", folder)
    last = {(line["bundle"], line["motion_px"]): line for line in lines}
    bundles = list(dict.fromkeys(bundle for bundle, _ in last))
    rows = [
        f"| motion, pixels of the input | {' | '.join(f'`{bundle}`' for bundle in bundles)} | bicubic, blended |",
        f"|---|{'---|' * (len(bundles) + 1)}",
    ]
    for motion in MOTIONS:
        measured = [last[bundle, motion] for bundle in bundles]
        cells = [f"{line['psnr_y_db']:.2f}" for line in measured]
        rows.append(f"| {motion} | {' | '.join(cells)} | {measured[0]['blended_db']:.2f} |")
    return "\n".join(rows)


def main() -> None:
    """Run the command line."""
    parser = new_parser("text", __doc__)
    parser.add_argument("--bundles", nargs="+", default=["fourier-s", "videoinr-s"], help="of any time")
    parser.add_argument("--table", action="store_true", help="only write the table")
    add_out(parser)
    arguments = parser.parse_args()
    for name in [] if arguments.table else arguments.bundles:
        measure(name, arguments.out)
    publish(table(arguments.out), arguments.out, BEGIN, END)


if __name__ == "__main__":
    main()
