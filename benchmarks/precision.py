"""Measure what TF32 and float16 change in frames, and in their quality: `python -m benchmarks.precision CLIPS`.

No GPU is needed: graphs round what a GPU rounds (`export/precision.py`). Pairs of each clip, made four times smaller,
are upscaled x4 half-way between their times, and so are pairs of noise in blocks of 8 pixels that moves by 6, whose
motion cannot be told. Each bundle and content is one JSON line in `results/precision.jsonl`, and the table of
benchmarks/README.md shows the last of each (`--table` alone writes it).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from stvsr import Bundle
from stvsr.engine.contract.bundle import find_bundle
from stvsr.engine.contract.metrics import luma, psnr
from stvsr.export.parity import Example, pair_examples
from stvsr.export.precision import run_models, with_fp16, with_tf32
from stvsr.training.clips import find_clips, read_clip
from stvsr.training.resize import downscale

from .command_line import add_out, given_command, new_parser
from .record import publish, read_lines, record

BEGIN, END = "<!-- precision: python -m benchmarks.precision CLIPS -->", "<!-- /precision -->"

SCALE = 4
NOISE_PX = (384, 640)  # rows and columns of a target of noise
BLOCK_PX, STEP_PX = 32, 12  # of the target: a side of a block, and the motion from frame to frame

Triple = np.ndarray  # three neighbouring frames, (3, H, W, 3) uint8: the middle one is the truth


def clip_triples(path: Path, count: int, multiple: int) -> Iterator[Triple]:
    """Yield triples spread over a clip, cut to sizes that are multiples of SCALE times `multiple`."""
    clip = np.stack(list(read_clip(path)))
    h, w = (n // (SCALE * multiple) * SCALE * multiple for n in clip.shape[1:3])
    for start in np.linspace(0, len(clip) - 3, count).astype(int):
        yield clip[start : start + 3, :h, :w]


def noise_triples(count: int) -> Iterator[Triple]:
    """Yield triples of noise in blocks that moves to the left."""
    for seed in range(count):
        h, w = NOISE_PX
        colors = np.random.default_rng(seed).integers(0, 256, (h // BLOCK_PX, w // BLOCK_PX + 2, 3))
        picture = colors.astype(np.uint8).repeat(BLOCK_PX, 0).repeat(BLOCK_PX, 1)
        yield np.stack([picture[:, n * STEP_PX :][:, :w] for n in range(3)])


def differences(bundle: Bundle, triples: Iterator[Triple]) -> dict[str, dict[str, float]]:
    """Return, for each precision, differences from float32 in steps of 8 bits, and the mean change of the Y-PSNR."""
    models = {graph.role: onnx.load(bundle.path(graph.role)) for graph in bundle.manifest.graphs}
    rounded = {
        "tf32": {role: with_tf32(model) for role, model in models.items()},
        "fp16": {role: with_fp16(model) for role, model in models.items()},
    }
    truths: list[np.ndarray] = []
    examples: list[Example] = []
    for triple in triples:
        truths.append(triple[1])
        h, w = triple.shape[1] // SCALE, triple.shape[2] // SCALE
        small = downscale(triple[::2] / np.float32(255), (h, w)).astype(np.float32).transpose(0, 3, 1, 2) / 255
        inputs = {"frames": torch.from_numpy(small)[None], "time": torch.tensor([0.5])}
        examples += pair_examples(inputs, {"decoder"}, SCALE, (SCALE, SCALE))
    exact = run_models(models, examples)
    scores = _scores(exact, truths)
    changes: dict[str, dict[str, float]] = {}
    for precision, graphs in rounded.items():
        frames = run_models(graphs, examples)
        steps = [255 * np.abs(frame - other) for frame, other in zip(frames, exact, strict=True)]
        changes[precision] = {
            "p999_steps": round(max(float(np.quantile(step, 0.999)) for step in steps), 3),
            "largest_steps": round(max(float(step.max()) for step in steps), 2),
            "psnr_change_db": round(float(np.mean(np.subtract(_scores(frames, truths), scores))), 4),
        }
    return changes


def _scores(frames: list[np.ndarray], truths: list[np.ndarray]) -> list[float]:
    """Return the Y-PSNR of frames (1, 3, H, W)."""
    pictures = (frame[0].clip(0, 1).transpose(1, 2, 0) * 255 for frame in frames)
    return [psnr(luma(made), luma(truth)) for made, truth in zip(pictures, truths, strict=True)]


def table(folder: Path) -> str:
    """Return the table of the last measurement of every bundle and content."""
    lines = read_lines("precision", folder)
    last = {(line["bundle"], line["content"]): line for line in lines}
    columns = [(bundle, precision) for bundle in dict.fromkeys(b for b, _ in last) for precision in ("tf32", "fp16")]
    rows = [
        f"| steps of 8 bits, dB | {' | '.join(f'`{bundle}`, {precision}' for bundle, precision in columns)} |",
        f"|---|{'---|' * len(columns)}",
    ]
    for content in dict.fromkeys(content for _, content in last):
        measured = [last[bundle, content]["changes"][precision] for bundle, precision in columns]
        cells = [f"{figures['p999_steps']:.2f}, {figures['psnr_change_db']:+.3f}" for figures in measured]
        rows.append(f"| {content} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    """Run the command line."""
    parser = new_parser("precision", __doc__)
    parser.add_argument("clips", type=Path, nargs="?", help="folder of clips")
    parser.add_argument("--bundles", nargs="+", default=["fourier-s", "videoinr-s"], help="of a pair of frames")
    parser.add_argument("--pairs", type=int, default=3, help="of each clip, and of noise")
    add_out(parser)
    parser.add_argument("--table", action="store_true", help="only write the table")
    arguments = parser.parse_args()
    if not arguments.clips and not arguments.table:
        parser.error("name a folder of clips")
    for name in [] if arguments.table else arguments.bundles:
        bundle = find_bundle(name)
        contents = {
            path.stem: clip_triples(path, arguments.pairs, bundle.manifest.size.multiple_of)
            for path in find_clips(arguments.clips)
        }
        for content, triples in {**contents, "noise in blocks": noise_triples(arguments.pairs)}.items():
            record(
                "precision",
                arguments.out,
                given_command("precision"),
                bundle=name,
                graphs_sha256={graph.role: graph.sha256 for graph in bundle.manifest.graphs},
                content=content,
                pairs=arguments.pairs,
                changes=differences(bundle, triples),
            )
    publish(table(arguments.out), arguments.out, BEGIN, END)


if __name__ == "__main__":
    main()
