"""Internal learning from a plain and from a meta-trained start: Y-PSNR over steps, on clips of unknown blur.

Each clip gets tasks of its own, drawn as meta-training draws them: an anisotropic kernel, and alternate or averaged
frames. The blur is estimated from whole frames of the clip, once, or given. The same seed and number of steps give the
same weights, so that each number of steps is a run of its own.
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
from stvsr.training.clips import cached_clip, find_clips
from stvsr.training.meta import SCALE, random_task, sample_of
from stvsr.training.meta_trainer import middle_of, video_psnr
from stvsr.training.networks.cascade import AdaVSR
from torch import Tensor

from .trials import Figures, Lines, Trained, told_kernel, trained

STEPS = (0, 1, 2, 5, 10, 20, 50, 100)
FILES: Mapping[str, Mapping[str, str]] = {  # of a start's modules, below RUNS/adavsr
    "plain": {"temporal": "temporal/weights.pt", "spatial": "spatial/weights.pt"},
    "meta-trained": {"temporal": "meta/temporal.pt", "spatial": "meta/spatial.pt"},
}


@dataclass(frozen=True)
class Run:
    """From which weights, and how, a network learns."""

    start: str
    optimizer: Literal["sgd", "adam"]
    rate: float


RUNS = tuple(Run(start, *how) for start in FILES for how in (("sgd", INNER_RATE), ("adam", 3e-4)))


def meta(lines: Lines, options: argparse.Namespace) -> None:
    """A line for each start, clip, task and number of steps."""
    for start, files in FILES.items():
        parts: dict[str, Trained] = {}
        for part, file in files.items():
            path = options.runs / "adavsr" / file
            if (found := trained(f"adavsr-{part}-s", path)) is None:
                lines.missing("meta", f"adavsr-{part}-s, {start}", path)
            else:
                parts[part] = found
        if len(parts) == len(files):
            for clip in find_clips(options.val)[: options.clips]:
                for task in range(options.tasks):
                    _curves(lines, start, parts, clip, task, options)


def _curves(
    lines: Lines, start: str, parts: Mapping[str, Trained], clip: Path, task: int, options: argparse.Namespace
) -> None:
    network: Any = AdaVSR(parts["temporal"].network, parts["spatial"].network).eval()  # type: ignore[arg-type]

    @cache
    def problem() -> tuple[Tensor, Tensor, Tensor, Figures]:
        drawn = random_task(np.random.default_rng([options.seed, task, *clip.stem.encode()]))
        frames = cached_clip(clip, options.cache)
        kernel, told = drawn.kernel, {"averaged": drawn.averaged, **told_kernel("true", drawn.kernel)}
        if options.kernel == "estimated":
            whole = middle_of(frames, options.meta_frames, max(frames.shape[1:3]))
            kernel = estimate_kernel(sample_of(whole, drawn).test.slow_small[0], SCALE)
            told |= told_kernel("estimated", kernel)
        large = middle_of(frames, options.meta_frames, options.side)
        return sample_of(large, drawn).test.slow_small[0], large[0], kernel, told

    def measure(run: Run, steps: int) -> Figures:
        seen, truth, kernel, told = problem()
        learnt, seconds = network, 0.0
        if steps:
            method = InternalLearning(kernel, run.rate, run.optimizer)
            adapted = method.adapt(network, seen, Budget(steps=steps), options.seed)
            learnt, seconds = copy.deepcopy(network), adapted.record.seconds
            learnt.load_state_dict(adapted.weights)
        figures = {"psnr_y_db": round(video_psnr(learnt, seen, truth), 4), "seconds": round(seconds, 2)}
        return {**figures, **told, "trained": {name: found.told for name, found in parts.items()}}

    for run in (run for run in RUNS if run.start == start):
        for steps in options.curve:
            trial = {
                "start": start,
                "optimizer": run.optimizer,
                "rate": run.rate,
                "weights": {name: found.sha256 for name, found in parts.items()},
                "clip": clip.stem,
                "task": task,
                "kernel": options.kernel,
                "steps": steps,
                **{name: vars(options)[name] for name in ("meta_frames", "side", "seed")},
            }
            lines.once("meta", trial, partial(measure, run, steps))


def curves(lines: Sequence[Figures]) -> dict[str, dict[int, float]]:
    """Mean Y-PSNR in dB at each number of steps, of each way to learn: lines of one kind of kernel."""
    found: dict[str, dict[int, list[float]]] = {}
    for line in lines:
        if "psnr_y_db" not in line:
            continue
        trial = line["trial"]
        name = f"{trial['start']}, {'SGD' if trial['optimizer'] == 'sgd' else 'Adam'} {trial['rate']:g}"
        found.setdefault(name, {}).setdefault(trial["steps"], []).append(line["psnr_y_db"])
    return {name: {steps: float(np.mean(dbs)) for steps, dbs in sorted(at.items())} for name, at in found.items()}
