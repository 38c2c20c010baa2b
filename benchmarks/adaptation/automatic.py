"""Adaptation that decides by itself, as `stvsr adapt` without options, on clips of known degradation and known truth.

Each trial writes the small frames of a clip to a video file, without loss or by x264, and takes the way of the commands
from there: reading, analysis, decision, learning, verdict. Both sides, plain and adapted, are restored in one run and
compared with the truth. The true gain of weights that were not kept is measured too, so that the share of the possible
gain that the gate lets pass is known.

A network that makes frames at any time is given every second frame of a clip, and the frames between, which nothing was
learned from, are compared too.
"""

import argparse
import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from stvsr.engine.contract.bundle import Bundle, find_bundle
from stvsr.engine.media.stream_coding import measure_coding
from stvsr.engine.pipeline.flow import picture_flow
from stvsr.engine.pipeline.request import UpscaleRequest
from stvsr.engine.pipeline.scene_frames import read_scenes
from stvsr.export.adapter import BundleAdapter, Options, default_budget
from stvsr.export.scene_learner import longest_scene
from stvsr.training.adapt.blur import gaussian_kernel
from stvsr.training.adapt.degradation import Degradation
from stvsr.training.adapt.protocol import Budget
from stvsr.training.adapt.restore import pad_frames, restored_frames
from stvsr.training.adapt.selfsupervised import SelfSupervised
from stvsr.training.clips import find_clips
from stvsr.training.inference import run_network
from stvsr.training.networks.base import Network
from torch import Tensor

from .trials import (
    FACTOR,
    WHOLE,
    Figures,
    Lines,
    middle_crop,
    psnr_y_db,
    round_to_8_bits,
    scores,
    to_pictures,
    to_planes,
)

PART = "automatic"
_RATE = 24  # frames per second of the files
_EVEN = 2 * FACTOR  # multiple of the sides of true frames: those of the small ones are even, for 4:2:0


@dataclass(frozen=True)
class Input:
    """The way from true frames to the input of a trial; `crf` is that of the file."""

    degradation: Degradation = field(default_factory=Degradation)
    crf: int | None = None


INPUTS = {
    "bicubic": Input(),
    "blur-2.6x2.6": Input(Degradation(gaussian_kernel((2.6, 2.6), 0.0))),
    "blur-2.4x1.2": Input(Degradation(gaussian_kernel((2.4, 1.2), 0.6))),
    "blur-3.0x1.5": Input(Degradation(gaussian_kernel((3.0, 1.5), -1.0))),
    "noise-3": Input(Degradation(noise=3.0)),
    "noise-5": Input(Degradation(noise=5.0)),
    "crf-23": Input(crf=23),
    "crf-28": Input(crf=28),
    "crf-32": Input(crf=32),
    "crf-35": Input(crf=35),
}


def automatic(lines: Lines, options: argparse.Namespace) -> None:
    """Measure a line for each clip and input."""
    bundle = find_bundle(options.bundle)
    budget = Budget(options.adapt_steps) if options.adapt_steps else default_budget(SelfSupervised.name)
    for clip, subject in subjects(bundle, options):
        trial = {
            **subject,
            "size": options.auto_size or "whole",
            "steps": options.adapt_steps or "default",
            "degradation": options.degradation,
            "seed": options.seed,
        }
        lines.measure_once(PART, trial, partial(_measure, bundle, clip, INPUTS[trial["input"]], budget, options))


def subjects(bundle: Bundle, options: argparse.Namespace) -> Iterator[tuple[Path, Figures]]:
    """Yield each clip with each input of it that a bundle adapts to, as the beginning of a trial."""
    for clip in find_clips(options.val)[: options.clips]:
        for name in options.inputs:
            yield (
                clip,
                {
                    "network": bundle.manifest.name,
                    "bundle": bundle.fingerprint,
                    "clip": clip.stem,
                    "input": name,
                    "frames": options.frames,
                },
            )


def _measure(bundle: Bundle, clip: Path, made: Input, budget: Budget, options: argparse.Namespace) -> Figures:
    step = 2 if bundle.manifest.window.kind == "pair" else 1
    frames = step * (options.frames - 1) + 1
    true = cut_to_even(middle_crop(clip, options.cache, frames, options.auto_size or WHOLE))
    small = round_to_8_bits(made.degradation.degrader(options.seed)(to_planes(true[::step]), FACTOR))
    with tempfile.TemporaryDirectory() as folder:
        path = write_video(to_pictures(small), Path(folder) / "clip.mkv", made.crf)
        request = UpscaleRequest(input=path, scene_threshold=0.0)
        scene, sampled = longest_scene(read_scenes(request))
        adapter = BundleAdapter([bundle], Options(budget, degradation=options.degradation, seed=options.seed))
        decision = adapter.decide(sampled, measure_coding(path))
        _, verdict = adapter.adapt(scene, Path(folder) / "bundle", decision=decision)
    inputs = torch.from_numpy(scene)
    before = restored_scores(adapter.network, inputs, true)
    learned = before
    if verdict.adapted is not None:
        network = copy.deepcopy(adapter.network)
        network.load_state_dict(verdict.adapted.weights)
        learned = restored_scores(network, inputs, true)
    gain = learned["psnr_y_db"] - before["psnr_y_db"]
    between = {}
    if (db := learned.get("between_psnr_y_db")) is not None:
        between["between_gain_db"] = round(db - before["between_psnr_y_db"] if verdict.kept else 0.0, 4)
    record = verdict.record()
    if isinstance(blur := record.get("analysis", {}).get("blur"), dict):
        del blur["kernel"]  # long, and given by its widths and angle
    return {
        "record": record,
        "before": before,
        "learned": learned,
        "after": learned if verdict.kept else before,
        "learned_gain_db": round(gain, 4),
        "gain_db": round(gain if verdict.kept else 0.0, 4),
        **between,
        "seconds": round(verdict.seconds, 2),
        "analysis_seconds": None if decision is None or not decision.analysis else decision.analysis.seconds,
    }


def restored_scores(network: Network, frames: Tensor, true: NDArray[np.uint8]) -> Figures:
    """Return the scores of a network on a scene, (N, 3, h, w) in [0, 1], against its truth, (N, H, W, 3).

    If the truth has 2N - 1 frames, the network makes those between as well.
    """
    step = 1 if len(true) == len(frames) else 2
    figures = scores(to_pictures(restored_frames(network, frames, range(len(frames)), picture_flow)), true[::step])
    if step == 2:
        figures["between_psnr_y_db"] = psnr_y_db(to_pictures(frames_between(network, frames)), true[1::2])
    return figures


@torch.no_grad()
def frames_between(network: Network, frames: Tensor) -> Iterator[Tensor]:
    """Yield the frame in the middle of each gap of a scene, (N, 3, h, w) in [0, 1]: (3, H, W), by a pair's network."""
    h, w = (FACTOR * n for n in frames.shape[-2:])
    padded = pad_frames(network, frames)
    size = [FACTOR * n for n in padded.shape[-2:]]
    for first in range(len(frames) - 1):
        output = run_network(network, [padded[None, first : first + 2], torch.tensor([[0.5]])], size)
        yield output[0, 0, :, :h, :w].clamp(0, 1)


def write_video(pictures: NDArray[np.uint8], path: Path, crf: int | None) -> Path:
    """Write pictures, (N, h, w, 3), to a video file: by x264 at a constant rate factor, or without any loss if None."""
    with av.open(str(path), "w") as container:
        codec, settings = ("ffv1", {}) if crf is None else ("libx264", {"crf": str(crf), "preset": "medium"})
        stream: Any = container.add_stream(codec, rate=_RATE, options=settings)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "bgr0" if crf is None else "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def cut_to_even(true: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut true frames, (N, H, W, 3), to sides at which small frames are even."""
    h, w = (n // _EVEN * _EVEN for n in true.shape[1:3])
    return true[:, :h, :w]


@dataclass(frozen=True)
class Row:
    """A row of goals: inputs of a kind, and the mean gain and the gain of any clip that they must reach, in dB."""

    name: str
    inputs: Callable[[str], bool]
    mean_db: float | None
    least_db: float


ROWS = (
    Row("bicubic", lambda name: name == "bicubic", None, -0.01),
    Row("unknown blur", lambda name: name.startswith("blur"), 0.8, 0.0),
    Row("x264, CRF 28 and 35", lambda name: name in ("crf-28", "crf-35"), 0.2, -0.02),
    Row("noise, sigma 5", lambda name: name == "noise-5", 0.3, 0.0),
    Row("all inputs", lambda name: True, None, -0.02),
)


def automatic_rows(lines: Sequence[Figures]) -> list[str]:
    """Return the table of the part, from its measured lines."""
    measured = {str(line["trial"]): line for line in lines if line["part"] == PART and "gain_db" in line}
    if not measured:
        return []
    rows = [
        "| automatic: network, input | trials | learned, kept | gain, mean (bar), dB | lowest (bar), dB |"
        " frames between: mean, lowest, dB | of the possible gain | tOF, px | seconds, most |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for network in dict.fromkeys(line["trial"]["network"] for line in measured.values()):
        own = [line for line in measured.values() if line["trial"]["network"] == network]
        for row in ROWS:
            if chosen := [line for line in own if row.inputs(line["trial"]["input"])]:
                rows.append(_row(network, row, chosen))
    return rows


def _row(network: str, row: Row, lines: Sequence[Figures]) -> str:
    gains = [line["gain_db"] for line in lines]
    between = [line["between_gain_db"] for line in lines if "between_gain_db" in line]
    between_cell = f"{np.mean(between):+.3f}, {min(between):+.3f}" if between else ""
    possible = sum(max(0.0, line["learned_gain_db"]) for line in lines)
    share = f"{sum(max(0.0, gain) for gain in gains) / possible:.0%}" if possible else "none"
    learned = sum("steps" in line["record"] for line in lines)
    kept = sum(line["record"]["kept"] for line in lines)
    bar = "" if row.mean_db is None else f" ({row.mean_db:+.2f})"
    tof = np.mean([line["after"]["tof_px"] - line["before"]["tof_px"] for line in lines])
    timed = [line["seconds"] + (line.get("analysis_seconds") or 0) for line in lines if "seconds" in line]
    seconds = f"{max(timed):.0f}" if timed else ""
    return (
        f"| {network}, {row.name} | {len(lines)} | {learned}, {kept} | {np.mean(gains):+.3f}{bar} |"
        f" {min(gains):+.3f} ({row.least_db:+.2f}) | {between_cell} | {share} | {tof:+.3f} | {seconds} |"
    )
