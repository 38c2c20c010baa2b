"""Score bundles on clips, by preset and strength of compression: `python -m benchmarks.quality CLIPS --bundles NAME`.

Every second frame is made `--scale` times smaller; with a CRF, the small frames also pass through x264. Each bundle,
preset and CRF is one JSON line in `results/quality.jsonl`, with the scores of every clip. The table of
benchmarks/README.md is written from the lines (`--table` alone writes it).
"""

import argparse
from itertools import product
from pathlib import Path
from typing import Any

from stvsr.engine.pipeline.inference import PRESETS, Inference

from .command_line import add_out, given_command, new_parser
from .record import README, RESULTS, read_lines, record, write_between

BEGIN, END = "<!-- quality: python -m benchmarks.quality CLIPS -->", "<!-- /quality -->"
CRFS = ("none", "23", "30", "35")


def measure(arguments: argparse.Namespace, command: str) -> None:
    """Record the scores of each bundle at each CRF."""
    from stvsr import Backend
    from stvsr.cli.judging import Used, upscale_clip
    from stvsr.engine.contract.bundle import find_bundles
    from stvsr.engine.pipeline.plan import default_factor
    from stvsr.training.clips import find_clips
    from stvsr.training.evaluation import Protocol, evaluate

    backend = Backend(device=arguments.device, threads=arguments.threads)
    clips = find_clips(*arguments.clips)
    for name in arguments.bundles:
        bundles = find_bundles(name)
        for preset, crf in product(arguments.presets, arguments.crf):
            protocol = Protocol(
                scale=arguments.scale, factor=default_factor(bundles), crf=None if crf == "none" else int(crf)
            )
            used = Used()
            scores = evaluate(clips, upscale_clip(bundles, backend, Inference(preset=preset), used), protocol)
            record(
                "quality",
                arguments.out,
                command,
                bundle=name,
                preset=preset,
                graphs_sha256={b.manifest.name: {g.role: g.sha256 for g in b.manifest.graphs} for b in bundles},
                **{**used.facts(), **scores},
            )


def table(folder: Path) -> str:
    """Return the table of the latest line of each bundle, preset, scale and CRF, in dB."""
    latest: dict[tuple[str, int, int, int], dict[str, Any]] = {}
    for line in read_lines("quality", folder):
        protocol = line["protocol"]
        crf = -1 if protocol["crf"] is None else protocol["crf"]
        preset = PRESETS.index(line.get("preset", "fast"))  # the first lines were before there were presets
        latest[line["bundle"], preset, protocol["scale"], crf] = line
    rows = [
        "| bundle | preset | scale | CRF | clips | at input times | bicubic | gain | between | bicubic, blended | gain"
        " |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (bundle, preset, scale, crf), line in sorted(latest.items()):
        cells = [f"`{bundle}`", PRESETS[preset], f"x{scale}", "none" if crf < 0 else str(crf), str(len(line["clips"]))]
        for when in ("at", "between"):
            mean = line["mean"].get(when)
            if mean is None:
                cells += ["", "", ""]
                continue
            ours, bicubic = (mean[method]["psnr_y_db"] for method in ("stvsr", "bicubic+blend"))
            cells += [f"**{ours:.2f}**", f"{bicubic:.2f}", f"{ours - bicubic:+.2f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    """Read the command line, measure, and write the table."""
    parser = new_parser("quality", __doc__)
    parser.add_argument("clips", nargs="*", type=Path, help="clips, folders of images, or folders of both")
    parser.add_argument("--bundles", nargs="+", default=["fourier-s"], help="names, folders or chains (fourier-s)")
    parser.add_argument("--presets", nargs="+", default=["fast"], help=f"{' '.join(PRESETS)} (fast)")
    parser.add_argument("--scale", type=int, default=4, help="spatial factor (4)")
    parser.add_argument("--crf", nargs="+", default=list(CRFS), help=f"constant rate factors ({' '.join(CRFS)})")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N (auto)")
    parser.add_argument("--threads", type=int, help="CPU threads (all)")
    add_out(parser)
    parser.add_argument("--table", action="store_true", help="write only the table, from existing lines")
    arguments = parser.parse_args()
    if not arguments.table:
        if not arguments.clips:
            parser.error("name the clips to score")
        measure(arguments, given_command("quality"))
    if arguments.out == RESULTS or arguments.table:
        write_between(README, BEGIN, END, table(arguments.out))


if __name__ == "__main__":
    main()
