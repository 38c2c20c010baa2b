"""Measure speed and memory, as JSON lines: `python -m benchmarks.measure throughput|large|profile`.

throughput   160x90 to 640x360, x2 in time, through the whole pipeline: frames per second and peak memory
large        1920x1080 to 7680x4320, x2 in time: peak memory and seconds per output frame
profile      milliseconds of each graph of a frame between two of 160x90, to 640x360, in all and by operator
"""

import argparse
import collections
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from .command_line import add_out, add_threads, given_command, new_parser
from .media import make_clip
from .record import record
from .whole_run import upscale_report


def _upscale(clip: Path, *options: str) -> dict[str, Any]:
    """Upscale a clip into a file that is deleted, and return the report."""
    with tempfile.TemporaryDirectory() as folder:
        return upscale_report(clip, Path(folder) / "out.mp4", *options)


_REPORT_KEYS = (
    "bundle",
    "fingerprint",
    "device",
    "size_in",
    "size_out",
    "frames_in",
    "frames_out",
    "seconds",
    "decode_seconds",
    "inference_seconds",
    "encode_seconds",
    "fps",
)


def throughput(arguments: argparse.Namespace, command: str) -> None:
    """Record the frames per second of the median run, and the peak memory of all runs."""
    with tempfile.TemporaryDirectory() as folder:
        clip = make_clip(Path(folder) / "clip.mp4", 160, 90, 48)
        reports = [_upscale(clip, "--threads", str(arguments.threads)) for _ in range(arguments.runs)]
    median = sorted(reports, key=lambda r: r["fps"])[len(reports) // 2]
    record(
        "throughput",
        arguments.out,
        command,
        **{key: median[key] for key in _REPORT_KEYS},
        fps_of_runs=[round(r["fps"], 2) for r in reports],
        peak_memory_mb=round(max(r["peak_memory_bytes"] for r in reports) / 1e6),
    )


def large(arguments: argparse.Namespace, command: str) -> None:
    """Record the peak memory and the seconds per output frame of one run."""
    with tempfile.TemporaryDirectory() as folder:
        clip = make_clip(Path(folder) / "clip.mp4", 1920, 1080, arguments.frames)
        report = _upscale(clip, "--threads", str(arguments.threads))
    record(
        "large",
        arguments.out,
        command,
        **{key: report[key] for key in _REPORT_KEYS},
        seconds_per_frame_out=round(report["seconds"] / report["frames_out"], 2),
        peak_memory_mb=round(report["peak_memory_bytes"] / 1e6),
    )


def profile(arguments: argparse.Namespace, command: str) -> None:
    """Record the milliseconds of each graph of a frame, in all and by operator."""
    from stvsr.engine.contract.bundle import find_bundle
    from stvsr.engine.pipeline.request import DEFAULT_MODEL

    from .pair_sessions import PairSessions

    bundle = find_bundle(DEFAULT_MODEL)
    pair = PairSessions(bundle, arguments.threads)
    pair.run()  # for warm-up
    seconds = [pair.run() for _ in range(arguments.runs)]
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        profiled = PairSessions(bundle, arguments.threads, profiles=Path(folder))
        for _ in range(arguments.runs):
            profiled.run()
        for role, session in profiled.sessions.items():
            by_operator: collections.Counter[str] = collections.Counter()
            for event in json.loads(Path(session.end_profiling()).read_text()):
                if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                    by_operator[event["args"]["op_name"]] += event["dur"]
            figures[role] = {
                "milliseconds": round(1e3 * statistics.median(run[role] for run in seconds), 1),
                "milliseconds_by_operator": {
                    name: round(us / 1e3 / arguments.runs, 2) for name, us in by_operator.most_common(12)
                },
            }
    record("profile", arguments.out, command, bundle=bundle.manifest.name, fingerprint=bundle.fingerprint, **figures)


def main() -> None:
    """Run the command line."""
    parser = new_parser("measure", __doc__)
    parser.add_argument("benchmark", choices=["throughput", "large", "profile"])
    add_out(parser)
    add_threads(parser)
    parser.add_argument("--runs", type=int, default=5, help="repetitions of throughput and profile")
    parser.add_argument("--frames", type=int, default=3, help="frames of the large clip")
    arguments = parser.parse_args()
    run = {"throughput": throughput, "large": large, "profile": profile}[arguments.benchmark]
    run(arguments, given_command("measure"))


if __name__ == "__main__":
    main()
