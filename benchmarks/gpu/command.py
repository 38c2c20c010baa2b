"""Whole runs of `stvsr upscale` on the GPU, decoding and encoding included, each in a process of its own."""

import tempfile
from pathlib import Path
from typing import NamedTuple

from stvsr.engine.contract.bundle import find_bundle

from ..media import make_clip
from ..whole_run import upscale_report
from .bench import Bench

# Busy times of the stages, which overlap, and what the inference stage spends before it runs at full speed.
_SHARES = ("decode_seconds", "inference_seconds", "encode_seconds", "opening_seconds", "first_run_seconds")
_GOAL_FPS = 30.0  # output frames per second, of the first case


class Case(NamedTuple):
    """A clip and how it is upscaled."""

    width: int
    height: int
    scale: int
    frames: int


CASES = (Case(1920, 1080, 2, 150), Case(640, 360, 4, 300))
_DRY_CASES = (Case(64, 48, 4, 3),)
_CASE_S = 40.0
_ENCODER = ("-e", "preset=veryfast")  # x264's default preset takes 100 ms for a frame of 3840x2160 on 16 cores


def measure(bench: Bench, model: str) -> None:
    """Record the speed of a model on each clip that it can enlarge so, and the busy time of each stage."""
    device = "cpu" if bench.dry_run else "cuda:0"
    space = find_bundle(model).manifest.space
    with tempfile.TemporaryDirectory() as folder:
        for case in _DRY_CASES if bench.dry_run else CASES:
            if not space.serves(case.height, case.scale * case.height):
                continue
            name = f"{case.width}x{case.height} to {case.scale * case.width}x{case.scale * case.height}"
            clip = make_clip(Path(folder) / f"{case.width}.mp4", case.width, case.height, case.frames)
            for precision in ("fp32",) if bench.dry_run else ("auto", "fp32"):
                fields = {"part": "command", "network": model, "case": name, "precision": precision}
                with bench.guarded(_CASE_S, **fields):
                    options = ["-m", model, "-s", str(case.scale), "--device", device, "--precision", precision]
                    options += _ENCODER
                    report = upscale_report(clip, Path(folder) / "out.mp4", *options)
                    figures = {key: round(report[key], 3) for key in ("seconds", "fps", *_SHARES)}
                    figures |= {key: report[key] for key in ("backend", "frames_in", "frames_out", "fingerprint")}
                    if case == CASES[0]:
                        figures["goal"] = "met" if report["fps"] >= _GOAL_FPS else f"{_GOAL_FPS:g} frames/s missed"
                    bench.record(**fields, **figures, used=report["precision"])
