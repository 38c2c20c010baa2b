"""Measure the gains of adaptation on clips with known truth: `python -m benchmarks.adaptation PART OUT --val CLIPS`.

Each trial is a line of OUT/adaptation.jsonl as soon as it is measured, with the settings, the weights' sha256 and how
long they were trained, the machine and the versions. A trial that has a line is not measured again, so that a stopped
run is resumed. `table OUT` writes the tables of this folder's README.md from the lines, and the curves of `meta` as
pictures.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ..command_line import new_parser
from .automatic import INPUTS, automatic
from .chart import chart
from .gate import TRIALS, gate
from .goals import COMPACT, KERNELS, meta_lines
from .meta import STEPS, curves, meta
from .picture import picture
from .reweight import reweight
from .selection import RATES, selection
from .spatial import CASES, distilled, distilled_time, self_supervised
from .table import write_table
from .temporal import zero_shot
from .trials import Figures, Lines, read_lines

PARTS: dict[str, Callable[[Lines, argparse.Namespace], None]] = {
    "automatic": automatic,
    "self-supervised": self_supervised,
    "distilled": distilled,
    "distilled-time": distilled_time,
    "meta": meta,
    "zero-shot": zero_shot,
    "reweight": reweight,
    "gate": gate,
    "selection": selection,
}
TIMINGS = ("distilled-time", "reweight")  # parts that measure only seconds
README = Path(__file__).parent / "README.md"


def draw_curves(lines: Sequence[Figures], folder: Path) -> list[Path]:
    """Draw Y-PSNR over steps for each start, in one picture for estimated blurs and one for given blurs."""
    paths = []
    for kind in KERNELS:
        if measured := curves(meta_lines(lines, kind)):
            paths.append(folder / f"adaptation_meta_{kind}.svg")
            paths[-1].write_text(chart(measured, f"adavsr-s on clips of unknown blur, {kind}"))
    return paths


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    argv = sys.argv[1:] if argv is None else argv
    options = _parser().parse_args(argv)
    if options.part == "table":
        write_table(read_lines(options.out), options.readme)
        draw_curves(read_lines(options.out), options.out)
        return
    if options.part != "reweight" and options.val is None:
        sys.exit(f"{options.part} needs clips: name a folder of them with --val.")
    if options.part in TIMINGS and options.untimed:
        sys.exit(f"{options.part} measures only seconds: leave out --untimed.")
    if options.threads:
        torch.set_num_threads(options.threads)
    options.cache = options.cache or options.runs / "cache"
    options.curve = sorted(set(options.curve))
    lines = Lines(options.out, " ".join(["python -m benchmarks.adaptation", *argv]), options.untimed)
    if options.part == "picture":
        picture(lines, options)
        return
    for name, measure in PARTS.items():
        if options.part == name or (options.part == "all" and not (name in TIMINGS and options.untimed)):
            measure(lines, options)
    draw_curves(lines.all, options.out)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("adaptation", __doc__)
    parser.add_argument("part", choices=[*PARTS, "all", "picture", "table"])
    parser.add_argument("out", type=Path, help="folder of adaptation.jsonl and of pictures")
    add = parser.add_argument
    add("--val", type=Path, help="folder of clips that no network was trained on")
    add("--runs", type=Path, default=Path("runs"), help="folder of the runs of `stvsr train`: edvr-s/weights.pt, ...")
    add("--cache", type=Path, help="folder of decoded clips (default: RUNS/cache)")
    add("--clips", type=int, help="number of clips (default: all)")
    add("--threads", type=int, help="threads of PyTorch and ONNX Runtime")
    add("--untimed", action="store_true", help="leave out all seconds, as the machine has other work")
    add("--seed", type=int, default=0)
    add("--frames", type=int, default=16, help="frames from the middle of each clip")
    add("--size", type=_size, default=[192, 320], help="HxW of the crop from the middle, as 192x320")
    group = parser.add_argument_group("automatic, selection, picture")
    group.add_argument("--bundle", default="edvr-s", help="a bundle's name or folder; it needs no run")
    group.add_argument("--inputs", type=_names, default=list(INPUTS), help=f"some of {','.join(INPUTS)}")
    group.add_argument("--auto-size", type=_size, help="HxW of the crop from the middle (default: whole frames)")
    group.add_argument("--adapt-steps", type=int, help="steps of each adaptation (default: as the commands)")
    group.add_argument("--degradation", default="auto", help="auto, plain, or parts, as of the commands")
    group.add_argument("--rates", type=_rates, default={}, help=f"NAME=RATE of selection, of {','.join(RATES)}")
    group = parser.add_argument_group("self-supervised, distilled")
    group.add_argument("--networks", type=_names, default=list(COMPACT), help="names, separated by commas")
    group.add_argument("--cases", type=_names, default=list(CASES), help=f"some of {','.join(CASES)}")
    group.add_argument("--student", default="edvr-s")
    group.add_argument("--teacher", default="edvr-m", help="name of a folder in RUNS")
    group.add_argument("--large", default="edvr-l", help="the untrained teacher of distilled-time")
    group.add_argument("--steps", type=int, default=50)
    group.add_argument("--rate", type=float, default=1e-4)
    group.add_argument("--batch", type=int, default=4)
    group.add_argument("--patch", type=int, default=32)
    group = parser.add_argument_group("meta")
    group.add_argument("--curve", type=_numbers, default=list(STEPS), help="numbers of steps, separated by commas")
    group.add_argument("--kernel", choices=KERNELS, default=KERNELS[0], help="how the blur is known")
    group.add_argument("--tasks", type=int, default=1, help="unknown blurs for each clip")
    group.add_argument("--meta-frames", type=int, default=13, help="frames of each clip, 4n + 1")
    group.add_argument("--side", type=int, default=256, help="side of the crop from the middle of each clip")
    group = parser.add_argument_group("zero-shot")
    group.add_argument("--temporal", default="dtsr-s")
    group.add_argument("--zero-frames", type=int, default=32)
    group.add_argument("--zero-steps", type=int, default=1000)
    group.add_argument("--coarse", type=int, help="how many times smaller frames are made (default: by their motion)")
    group = parser.add_argument_group("reweight")
    group.add_argument("--reweighted", default="edvr-m", help="a network of about three million weights")
    group.add_argument("--timings", type=int, default=5, help="repetitions of each timing")
    group = parser.add_argument_group("gate")
    group.add_argument("--gated", type=_names, default=["edvr-s"], help="names, separated by commas")
    group.add_argument("--trials", type=int, default=len(TRIALS), help="number of trials")
    group = parser.add_argument_group("table")
    group.add_argument("--readme", type=Path, default=README, help="file with the markers of the tables")
    return parser


def _names(text: str) -> list[str]:
    return text.split(",")


def _rates(text: str) -> dict[str, float]:
    pairs = (pair.split("=") for pair in text.split(","))
    return {name: float(rate) for name, rate in pairs}


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _size(text: str) -> list[int]:
    height, width = map(int, text.split("x"))
    return [height, width]


if __name__ == "__main__":
    main()
