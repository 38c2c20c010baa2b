"""What adaptation gains on real clips whose truth is known: ``python -m benchmarks.adaptation PART OUT --val CLIPS``.

Each trial is a line of OUT/adaptation.jsonl as soon as it is measured, with the settings, the weights' sha256 and how
long they were trained, the machine and the versions. A trial whose line is there is not measured again, so that a run
that was stopped goes on. ``table OUT`` writes the tables of README.md from the lines, and the curve of ``meta`` as a
picture.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from .bars import COMPACT, KERNELS, meta_lines
from .chart import chart
from .gate import TRIALS, gate
from .meta import STEPS, curves, meta
from .reweight import reweight
from .spatial import CASES, distilled, distilled_time, self_supervised
from .table import write_table
from .temporal import zero_shot
from .trials import Figures, Lines, read_lines

PARTS: dict[str, Callable[[Lines, argparse.Namespace], None]] = {
    "self-supervised": self_supervised,
    "distilled": distilled,
    "distilled-time": distilled_time,
    "meta": meta,
    "zero-shot": zero_shot,
    "reweight": reweight,
    "gate": gate,
}
TIMINGS = ("distilled-time", "reweight")  # parts that measure seconds alone
README = Path(__file__).parents[1] / "README.md"


def draw_curves(lines: Sequence[Figures], folder: Path) -> list[Path]:
    """Pictures of Y-PSNR over steps from each start, one for each way to know the blur that was measured."""
    made = []
    for kind in KERNELS:
        if found := curves(meta_lines(lines, kind)):
            made.append(folder / f"adaptation_meta_{kind}.svg")
            made[-1].write_text(chart(found, f"adavsr-s on clips of unknown blur, {kind}"))
    return made


def main(words: Sequence[str] | None = None) -> None:
    words = sys.argv[1:] if words is None else words
    options = _parser().parse_args(words)
    if options.part == "table":
        write_table(read_lines(options.out), options.readme)
        draw_curves(read_lines(options.out), options.out)
        return
    if options.part != "reweight" and options.val is None:
        sys.exit(f"{options.part} needs clips: name a folder of them with --val.")
    if options.part in TIMINGS and options.untimed:
        sys.exit(f"{options.part} measures seconds alone: leave out --untimed.")
    if options.threads:
        torch.set_num_threads(options.threads)
    options.cache = options.cache or options.runs / "cache"
    options.curve = sorted(set(options.curve))
    lines = Lines(options.out, " ".join(["python -m benchmarks.adaptation", *words]), options.untimed)
    for name, measure in PARTS.items():
        if options.part == name or (options.part == "all" and not (name in TIMINGS and options.untimed)):
            measure(lines, options)
    draw_curves(lines.all, options.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "all", "table"])
    parser.add_argument("out", type=Path, help="folder of adaptation.jsonl and of pictures")
    add = parser.add_argument
    add("--val", type=Path, help="folder of clips that no network was trained on")
    add("--runs", type=Path, default=Path("runs"), help="folder of `stvsr train`'s runs: edvr-s/weights.pt and so on")
    add("--cache", type=Path, help="folder of decoded clips; RUNS/cache unless named")
    add("--clips", type=int, help="so many of the clips")
    add("--threads", type=int, help="of PyTorch and ONNX Runtime")
    add("--untimed", action="store_true", help="the machine has other work to do: leave out how long things took")
    add("--seed", type=int, default=0)
    add("--frames", type=int, default=16, help="of each clip's middle")
    add("--size", type=_size, default=[192, 320], help="HxW of what is cut out of it, as 192x320")
    group = parser.add_argument_group("self-supervised, distilled")
    group.add_argument("--networks", type=_names, default=list(COMPACT), help="names, with commas")
    group.add_argument("--cases", type=_names, default=list(CASES), help=f"of {','.join(CASES)}")
    group.add_argument("--student", default="edvr-s")
    group.add_argument("--teacher", default="edvr-m", help="a folder of --runs of that name")
    group.add_argument("--large", default="edvr-l", help="the teacher whose time is measured, untrained")
    group.add_argument("--steps", type=int, default=50)
    group.add_argument("--rate", type=float, default=1e-4)
    group.add_argument("--batch", type=int, default=4)
    group.add_argument("--patch", type=int, default=32)
    group = parser.add_argument_group("meta")
    group.add_argument("--curve", type=lambda text: list(map(int, text.split(","))), default=list(STEPS))
    group.add_argument("--kernel", choices=KERNELS, default=KERNELS[0])
    group.add_argument("--tasks", type=int, default=1, help="unknown blurs of each clip")
    group.add_argument("--meta-frames", type=int, default=13, help="4n + 1")
    group.add_argument("--side", type=int, default=256, help="of the middle of each clip")
    group = parser.add_argument_group("zero-shot")
    group.add_argument("--temporal", default="dtsr-s")
    group.add_argument("--zero-frames", type=int, default=32)
    group.add_argument("--zero-steps", type=int, default=1000)
    group.add_argument("--coarse", type=int, help="frames are so many times smaller; by motion unless told")
    group = parser.add_argument_group("reweight")
    group.add_argument("--reweighted", default="edvr-m", help="a network of about three million weights")
    group.add_argument("--timings", type=int, default=5)
    group = parser.add_argument_group("gate")
    group.add_argument("--gated", type=_names, default=["edvr-s"])
    group.add_argument("--trials", type=int, default=len(TRIALS), help="so many of the trials")
    group = parser.add_argument_group("table")
    group.add_argument("--readme", type=Path, default=README, help="whose markers the tables go between")
    return parser


def _names(text: str) -> list[str]:
    return text.split(",")


def _size(text: str) -> list[int]:
    height, width = map(int, text.split("x"))
    return [height, width]


if __name__ == "__main__":
    main()
