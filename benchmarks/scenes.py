"""Measure the detector of scene cuts on clips, as they are and darkened: `python -m benchmarks.scenes FOLDER`.

Cuts are put between clips. Neighbouring frames of one clip, at its rate and at half of it, and fades, dissolves and
flashes that are made of it, have no cut. Every frame is multiplied by 1, 0.25, 0.12 and 0.06, and rounded to 8 bits.
Each run is one JSON line in `results/scenes.jsonl`, and the table of benchmarks/README.md shows all of them (`--table`
alone writes it).
"""

import itertools
import statistics
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from stvsr.engine.pipeline.scenes import CutDetector

from .command_line import add_out, new_parser
from .record import publish, read_lines, record

BEGIN, END = "<!-- scenes: python -m benchmarks.scenes FOLDER -->", "<!-- /scenes -->"
FACTORS = (1.0, 0.25, 0.12, 0.06)
SIZE = (640, 360)  # of the frames that are compared, which is that of most clips
_SUFFIXES = {".mp4", ".mkv", ".mov", ".webm"}
_WHITE = 255.0

Clips = dict[str, list[np.ndarray]]  # frames (3, h, w) uint8 by the clip's name


def read_clips(folder: Path, most_frames: int) -> Clips:
    """Return the first frames of every clip in a folder and its sub-folders."""
    clips: Clips = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES):
        with av.open(str(path)) as container:
            clips[path.stem] = [
                np.ascontiguousarray(frame.reformat(*SIZE, format="rgb24", threads=1).to_ndarray().transpose(2, 0, 1))
                for frame in itertools.islice(container.decode(video=0), most_frames)
            ]
    return clips


def rounded(frame: np.ndarray) -> np.ndarray:
    """Return a frame of levels, (3, h, w) in [0, 255], as the detector takes it: rounded to 8 bits, in [0, 1]."""
    return np.clip(np.rint(frame), 0, _WHITE).astype(np.float32) / np.float32(_WHITE)


def cuts(frames: Iterable[np.ndarray]) -> int:
    """Return how many frames of a sequence are called cuts."""
    detector = CutDetector()
    return sum(detector.is_cut(rounded(frame)) for frame in frames)


def sequences(clip: list[np.ndarray], other: list[np.ndarray], factor: float) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield sequences without a cut, and their kind, that are made of one clip, or dissolve it into another."""
    frames = [frame * np.float32(factor) for frame in clip[:25]]
    others = [frame * np.float32(factor) for frame in other[:25]]
    for length in (12, 24):
        shares = [step / length for step in range(length + 1)]
        moving = list(zip(itertools.chain(frames, itertools.repeat(frames[-1])), shares, strict=False))
        to_black = [frame * np.float32(1 - share) for frame, share in moving]
        yield f"fade to black in {length}", to_black
        yield f"fade from black in {length}", to_black[::-1]
        yield (
            f"fade to white in {length}",
            [frame * (1 - share) + np.float32(_WHITE * share) for frame, share in moving],
        )
        pairs = zip(moving, itertools.chain(others, itertools.repeat(others[-1])), strict=False)
        yield f"dissolve in {length}", [one * (1 - share) + two * np.float32(share) for (one, share), two in pairs]
    flashes = {
        "flash: twice the light": lambda frame: np.minimum(frame * 2, _WHITE * factor),
        "flash: 60 % of white is added": lambda frame: np.minimum(frame + 0.6 * _WHITE * factor, _WHITE * factor),
    }
    for name, lit in flashes.items():
        yield name, [lit(frame) if number in (3, 4) else frame for number, frame in enumerate(frames[:8])]


def measure(clips: Clips, most_pairs: int, most_sequences: int) -> dict[str, Any]:
    """Return [wrong, all] of each situation and factor, and the milliseconds of a frame."""
    counts: dict[str, dict[str, list[int]]] = {}

    def count(situation: str, factor: float, wrong: int, of: int = 1) -> None:
        entry = counts.setdefault(situation, {}).setdefault(f"{factor:g}", [0, 0])
        entry[0] += wrong
        entry[1] += of

    names = list(clips)
    pairs = [(a, b) for a, b in itertools.permutations(names, 2) if not _of_one_series(a, b)]
    order = np.random.default_rng(0).permutation(len(pairs))[:most_pairs]
    for factor in FACTORS:
        for first, second in (pairs[index] for index in order):
            count("cut: missed", factor, 1 - cuts([clips[first][-1] * factor, clips[second][0] * factor]))
        for stride in (1, 2):
            for frames in clips.values():
                moving = [frame * np.float32(factor) for frame in frames[::stride]]
                count(
                    f"motion, every {'frame' if stride == 1 else 'second frame'}", factor, cuts(moving), len(moving) - 1
                )
        step = max(1, len(names) // most_sequences)
        for number in range(0, len(names), step):
            others = clips[names[(number + len(names) // 2) % len(names)]]
            for kind, frames in sequences(clips[names[number]], others, factor):
                count(kind, factor, cuts(frames) > 0)
    return {"wrong_of_all": counts, "milliseconds": {"640x360": _cost(clips, 1), "1920x1080": _cost(clips, 3)}}


def _of_one_series(first: str, second: str) -> bool:
    """Return whether two clips may show the same scene: their names agree up to the last hyphen."""
    return "-" in first and first.rpartition("-")[0] == second.rpartition("-")[0]


def _cost(clips: Clips, enlarged: int) -> float:
    """Return the median milliseconds of processor time that the detector takes for a frame."""
    frames = [frame.repeat(enlarged, 1).repeat(enlarged, 2) for frame in next(iter(clips.values()))[:24]]
    detector, seconds = CutDetector(), []
    for frame in map(rounded, frames):
        start = time.process_time()
        detector.is_cut(frame)
        seconds.append(time.process_time() - start)
    return round(1e3 * statistics.median(seconds[1:]), 2)


def table(folder: Path) -> str:
    """Return the table of all runs: the wrong ones of all, by factor, with the runs of a cell separated by an arrow."""
    lines = read_lines("scenes", folder)
    rows = [
        f"| of | {' | '.join(f'x{factor:g}' for factor in FACTORS)} |",
        f"|---|{'---|' * len(FACTORS)}",
    ]
    for situation, by_factor in lines[-1]["wrong_of_all"].items():
        total = max(of for _, of in by_factor.values())
        cells = []
        for factor in by_factor:
            runs = [line["wrong_of_all"].get(situation, {}).get(factor, ["-"])[0] for line in lines]
            cells.append(" → ".join(map(str, runs)))
        rows.append(f"| {situation} ({total}) | {' | '.join(cells)} |")
    for size in lines[-1]["milliseconds"]:
        rows.append(f"| ms a frame of {size} | {' → '.join(str(line['milliseconds'][size]) for line in lines)} | | | |")
    return "\n".join(rows)


def main() -> None:
    """Run the command line."""
    parser = new_parser("scenes", __doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="folder of clips without cuts")
    add_out(parser)
    parser.add_argument("--note", default="", help="the detector's version, kept with the line")
    parser.add_argument("--frames", type=int, default=48, help="frames of each clip")
    parser.add_argument("--pairs", type=int, default=600, help="cuts between clips")
    parser.add_argument(
        "--sequences", type=int, default=25, help="clips of which fades, dissolves and flashes are made"
    )
    parser.add_argument("--table", action="store_true", help="only write the table")
    arguments = parser.parse_args()
    if not arguments.table:
        clips = read_clips(arguments.folder, arguments.frames) if arguments.folder else {}
        if len(clips) < 2:
            parser.error("name a folder with two clips or more")
        figures = measure(clips, arguments.pairs, arguments.sequences)
        record(
            "scenes",
            arguments.out,
            "python -m benchmarks.scenes FOLDER",
            note=arguments.note,
            clips=len(clips),
            **figures,
        )
    publish(table(arguments.out), arguments.out, BEGIN, END)


if __name__ == "__main__":
    main()
