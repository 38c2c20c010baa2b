"""Speed and memory, as JSON lines: ``python -m benchmarks.measure throughput|large|profile``.

throughput   160x90 to 640x360, x2 in time, through the whole pipeline: frames a second and peak memory
large        1920x1080 to 7680x4320: peak memory and seconds a frame
profile      where the time of one pair of frames goes, by operator of the graphs
"""

import argparse
import collections
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .record import RESULTS, make_clip, record, timed


def _upscale(clip: Path, *options: str) -> dict[str, Any]:
    """The report of one run of the command line, in a process of its own so that its peak memory is its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "stvsr", "upscale", str(clip), "-o", f"{folder}/out.mp4", "--json", *options]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


_KEPT = (
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
    with tempfile.TemporaryDirectory() as folder:
        clip = make_clip(Path(folder) / "clip.mp4", 160, 90, 48)
        reports = [_upscale(clip, "--threads", str(arguments.threads)) for _ in range(arguments.runs)]
    middle = sorted(reports, key=lambda r: r["fps"])[len(reports) // 2]
    record(
        "throughput",
        arguments.out,
        command,
        **{key: middle[key] for key in _KEPT},
        fps_of_runs=[round(r["fps"], 2) for r in reports],
        peak_memory_mb=round(max(r["peak_memory_bytes"] for r in reports) / 1e6),
    )


def large(arguments: argparse.Namespace, command: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clip = make_clip(Path(folder) / "clip.mp4", 1920, 1080, arguments.frames)
        report = _upscale(clip, "--threads", str(arguments.threads))
    record(
        "large",
        arguments.out,
        command,
        **{key: report[key] for key in _KEPT},
        seconds_per_frame_out=round(report["seconds"] / report["frames_out"], 2),
        peak_memory_mb=round(report["peak_memory_bytes"] / 1e6),
    )


def profile(arguments: argparse.Namespace, command: str) -> None:
    import onnxruntime
    from stvsr.engine.contract.bundle import find_bundle
    from stvsr.engine.pipeline.upscaler import positions

    bundle = find_bundle("videoinr-s")
    size = bundle.manifest.size
    h, w, scale = 90, 160, 4
    frames = size.pad(np.random.default_rng(0).random((1, 2, 3, h, w), np.float32))
    feeds: dict[str, Any] = {"frames": frames}
    at = {"time": np.array([0.5], np.float32)}
    at |= {k: positions(range(n * scale), n, n * scale, 0) for k, n in (("y", h), ("x", w))}
    figures = {}
    for role in ("encoder", "decoder"):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = arguments.threads
        options.enable_mem_pattern = False
        path, cpu = str(bundle.path(role)), ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(path, options, providers=cpu)
        run = lambda session=session, feeds=feeds: session.run(None, feeds)  # noqa: E731
        seconds = timed(run, arguments.runs)
        with tempfile.TemporaryDirectory() as folder:
            options.enable_profiling, options.profile_file_prefix = True, f"{folder}/profile"
            profiled = onnxruntime.InferenceSession(path, options, providers=cpu)
            for _ in range(arguments.runs):
                outputs = profiled.run(None, feeds)
            events = json.loads(Path(profiled.end_profiling()).read_text())
        by_operator: collections.Counter[str] = collections.Counter()
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                by_operator[event["args"]["op_name"]] += event["dur"]
        figures[role] = {
            "milliseconds": round(1e3 * statistics.median(seconds), 1),
            "milliseconds_by_operator": {k: round(v / 1e3 / arguments.runs, 2) for k, v in by_operator.most_common(12)},
        }
        feeds = dict(zip([o.name for o in session.get_outputs()], outputs, strict=True)) | at
    record("profile", arguments.out, command, bundle=bundle.manifest.name, fingerprint=bundle.fingerprint, **figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=["throughput", "large", "profile"])
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON lines")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of the networks")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--frames", type=int, default=3, help="frames of the large clip")
    arguments = parser.parse_args()
    command = " ".join(["python -m benchmarks.measure", *sys.argv[1:]])
    {"throughput": throughput, "large": large, "profile": profile}[arguments.benchmark](arguments, command)


if __name__ == "__main__":
    main()
