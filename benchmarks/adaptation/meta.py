"""Internal learning from a plain and from a meta-trained start: Y-PSNR over steps, on clips of unknown blur.

Each clip has its own tasks, drawn as in meta-training: an anisotropic kernel, and alternate or averaged frames. The
blur is estimated once from whole frames of the clip, or given. The same seed and number of steps give the same weights,
so each number of steps is a separate run.
"""

import argparse
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from stvsr.training.adapt.blur_estimation import estimate_kernel
from stvsr.training.adapt.internal import INNER_RATE, InternalLearning
from stvsr.training.adapt.protocol import Budget
from stvsr.training.adapt.pseudo import blurring
from stvsr.training.clips import cached_clip, find_clips
from stvsr.training.meta import SCALE, make_sample, random_task
from stvsr.training.meta_trainer import crop_center, video_psnr
from stvsr.training.networks.cascade import AdaVSR
from torch import Tensor

from .trials import Figures, Lines, Trained, kernel_figures, load_trained

STEPS = (0, 1, 2, 5, 10, 20, 50, 100)
FILES: Mapping[str, Mapping[str, str]] = {  # weights of each start, below RUNS/adavsr
    "plain": {"temporal": "temporal/weights.pt", "spatial": "spatial/weights.pt"},
    "meta-trained": {"temporal": "meta/temporal.pt", "spatial": "meta/spatial.pt"},
}


@dataclass(frozen=True)
class Run:
    """The weights that a run starts from, and its optimizer."""

    start: str
    optimizer: Literal["sgd", "adam"]
    rate: float


RUNS = tuple(Run(start, *optimizer) for start in FILES for optimizer in (("sgd", INNER_RATE), ("adam", 3e-4)))


def meta(lines: Lines, options: argparse.Namespace) -> None:
    """Measure a line for each start, clip, task and number of steps."""
    for start, files in FILES.items():
        parts: dict[str, Trained] = {}
        for part, file in files.items():
            path = options.runs / "adavsr" / file
            if (trained := load_trained(f"adavsr-{part}-s", path)) is None:
                lines.record_missing("meta", f"adavsr-{part}-s, {start}", path)
            else:
                parts[part] = trained
        if len(parts) == len(files):
            for clip in find_clips(options.val)[: options.clips]:
                for task in range(options.tasks):
                    _measure_curves(lines, start, parts, clip, task, options)


def _measure_curves(
    lines: Lines, start: str, parts: Mapping[str, Trained], clip: Path, task: int, options: argparse.Namespace
) -> None:
    network: Any = AdaVSR(parts["temporal"].network, parts["spatial"].network).eval()  # type: ignore[arg-type]

    @cache
    def problem() -> tuple[Tensor, Tensor, Tensor, Figures]:
        drawn = random_task(np.random.default_rng([options.seed, task, *clip.stem.encode()]))
        frames = cached_clip(clip, options.cache)
        kernel, figures = drawn.kernel, {"averaged": drawn.averaged, **kernel_figures("true", drawn.kernel)}
        if options.kernel == "estimated":
            whole = crop_center(frames, options.meta_frames, max(frames.shape[1:3]))
            kernel = estimate_kernel(make_sample(whole, drawn).test.slow_small[0], SCALE)
            figures |= kernel_figures("estimated", kernel)
        large = crop_center(frames, options.meta_frames, options.side)
        return make_sample(large, drawn).test.slow_small[0], large[0], kernel, figures

    def measure(run: Run, steps: int) -> Figures:
        inputs, truth, kernel, task_figures = problem()
        learned, seconds = network, 0.0
        if steps:
            method = InternalLearning(blurring(kernel), run.rate, run.optimizer)
            adapted = method.adapt(network, inputs, Budget(steps=steps), options.seed)
            learned, seconds = copy.deepcopy(network), adapted.record.seconds
            learned.load_state_dict(adapted.weights)
        figures = {"psnr_y_db": round(video_psnr(learned, inputs, truth), 4), "seconds": round(seconds, 2)}
        training = {name: trained.training for name, trained in parts.items()}
        return {**figures, **task_figures, "trained": training}

    for run in (run for run in RUNS if run.start == start):
        for steps in options.curve:
            trial = {
                "start": start,
                "optimizer": run.optimizer,
                "rate": run.rate,
                "weights": {name: trained.sha256 for name, trained in parts.items()},
                "clip": clip.stem,
                "task": task,
                "kernel": options.kernel,
                "steps": steps,
                **{name: vars(options)[name] for name in ("meta_frames", "side", "seed")},
            }
            lines.measure_once("meta", trial, partial(measure, run, steps))


def curves(lines: Sequence[Figures]) -> dict[str, dict[int, float]]:
    """Return the mean Y-PSNR in dB of each run at each number of steps, from lines of one kind of kernel."""
    values: dict[str, dict[int, list[float]]] = {}
    for line in lines:
        if "psnr_y_db" not in line:
            continue
        trial = line["trial"]
        name = f"{trial['start']}, {'SGD' if trial['optimizer'] == 'sgd' else 'Adam'} {trial['rate']:g}"
        values.setdefault(name, {}).setdefault(trial["steps"], []).append(line["psnr_y_db"])
    return {
        name: {steps: float(np.mean(decibels)) for steps, decibels in sorted(curve.items())}
        for name, curve in values.items()
    }
