"""Measure speed and memory, as JSON lines: `python -m benchmarks.measure throughput|large|profile`.

throughput   160x90 to 640x360, x2 in time, through the whole pipeline: frames per second and peak memory
large        1920x1080 to 7680x4320, x2 in time: peak memory and seconds per output frame
profile      time of one pair of frames, by operator of the graphs
"""

import argparse
import collections
import json
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .media import make_clip
from .record import RESULTS, record, timed
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
    """Record the milliseconds of the encoder and of the decoder, in all and by operator."""
    import onnxruntime
    from stvsr.engine.contract.bundle import find_bundle
    from stvsr.engine.pipeline.request import DEFAULT_MODEL
    from stvsr.engine.pipeline.runners import decoder_inputs

    bundle = find_bundle(DEFAULT_MODEL)
    size = bundle.manifest.size
    h, w, scale = 90, 160, 4
    frames = size.pad(np.random.default_rng(0).random((1, 2, 3, h, w), np.float32))
    inputs: dict[str, Any] = {"frames": frames}
    decoder, axes = decoder_inputs(bundle.manifest, (h, w), (scale * h, scale * w))
    target = {"time": np.array([0.5], np.float32), **axes}
    figures: dict[str, Any] = {}
    for role in ("encoder", decoder):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = arguments.threads
        options.enable_mem_pattern = False
        path, cpu = str(bundle.path(role)), ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(path, options, providers=cpu)
        seconds = timed(partial(session.run, None, inputs), arguments.runs)
        with tempfile.TemporaryDirectory() as folder:
            options.enable_profiling, options.profile_file_prefix = True, f"{folder}/profile"
            profiled = onnxruntime.InferenceSession(path, options, providers=cpu)
            for _ in range(arguments.runs):
                outputs = profiled.run(None, inputs)
            events = json.loads(Path(profiled.end_profiling()).read_text())
        by_operator: collections.Counter[str] = collections.Counter()
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                by_operator[event["args"]["op_name"]] += event["dur"]
        figures[role] = {
            "milliseconds": round(1e3 * statistics.median(seconds), 1),
            "milliseconds_by_operator": {k: round(v / 1e3 / arguments.runs, 2) for k, v in by_operator.most_common(12)},
        }
        inputs = dict(zip([o.name for o in session.get_outputs()], outputs, strict=True)) | target
    record("profile", arguments.out, command, bundle=bundle.manifest.name, fingerprint=bundle.fingerprint, **figures)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.measure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("benchmark", choices=["throughput", "large", "profile"])
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON lines")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of the networks")
    parser.add_argument("--runs", type=int, default=5, help="repetitions of throughput and profile")
    parser.add_argument("--frames", type=int, default=3, help="frames of the large clip")
    arguments = parser.parse_args()
    command = " ".join(["python -m benchmarks.measure", *sys.argv[1:]])
    {"throughput": throughput, "large": large, "profile": profile}[arguments.benchmark](arguments, command)


if __name__ == "__main__":
    main()
