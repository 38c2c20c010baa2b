"""Train Ada-VSR: both modules on their own, then both together by meta-transfer learning.

Gupta et al., "Ada-VSR", ACM Multimedia 2021, algorithm 1. `train_adavsr` runs all of it in one folder, and each part
resumes where it was stopped: `spatial/` and `temporal/` are the runs of large-scale training, and `meta/` is the run
that starts from both.
"""

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..engine.contract.errors import RequestError
from ..engine.contract.interrupts import Interrupted, deferred
from ..engine.contract.manifest import FixedFactors, RunWindow
from ..engine.contract.metrics import luma, psnr
from .adapt.internal import INNER_RATE, InternalLearning
from .adapt.protocol import Budget
from .adapt.pseudo import blurring
from .checkpoints import load_weights, random_weights, read_run
from .data import ClipSampler, Sampling
from .large_scale import Clips, ModuleTrainer
from .meta import make_sample, meta_gradient, random_task
from .networks.base import Network
from .networks.cascade import AdaVSR, weights_of
from .networks.registry import NetworkEntry
from .resize import to_uint8
from .run import TrainingRun, check_device
from .saving import save

PARTS = ("spatial", "temporal")
OnTrain = Callable[[str, int, float], None]  # called with the part that trains, its step and its loss


@dataclass(frozen=True)
class MetaSchedule:
    """Numbers of steps, rates and sizes of meta-training; rates and inner steps are the paper's.

    Raises RequestError for a value that is below its least one.
    """

    steps: int = 2000
    tasks: int = 1  # in a step
    patch: int = 10  # side of the smallest video of a sample, in pixels; the side of the largest is 16 times as long
    frames: int = 3  # of the smallest video; the largest has 4 * frames - 3
    inner_steps: int = 10
    inner_rate: float = INNER_RATE
    rate: float = 1e-4
    first_order: bool = False  # ignores the gradients of the inner gradients
    across: bool = False  # tests the adapted weights on another task (see `training.meta`)
    validate_every: int = 200  # steps; validation happens only at a checkpoint
    checkpoint_every: int = 50  # steps
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"steps": 1, "tasks": 1, "patch": 1, "frames": 2, "inner_steps": 1}
        least |= {"validate_every": 1, "checkpoint_every": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise RequestError(
                    f"The field '{name}' of meta-training is {getattr(self, name)}: give at least {value}."
                )
        for name in ("inner_rate", "rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise RequestError(f"The field '{name}' of meta-training is {getattr(self, name):g}: give more than 0.")


class MetaTrainer:
    """Meta-trains both modules, and resumes where the last checkpoint in its folder ends. A signal saves one.

    The folder gets `last.pt` (the state to resume from), `log.jsonl`, and the weights to export, `spatial.pt` and
    `temporal.pt`.

    Raises RequestError if the folder contains a run of another configuration or schedule, CheckpointError if its
    checkpoint cannot be read, and BackendError if PyTorch cannot use the device.
    """

    def __init__(self, network: AdaVSR, schedule: MetaSchedule, folder: Path, device: str = "cpu") -> None:
        check_device(device)
        self.network, self.schedule, self.folder, self.device = network.to(device), schedule, folder, device
        self.optimizer = torch.optim.Adam(self.network.parameters(), schedule.rate)
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "last.pt").exists():
            self._resume()

    def fit(
        self, clips: Clips, validation: Clips, on_step: Callable[[int, float], None] | None = None
    ) -> dict[str, float]:
        """Train to the end of the schedule on clips (N, H, W, 3), and return the scores of the last validation.

        `on_step` is called after every step with its number and its loss. Raises RequestError if no clip is large and
        long enough, or if a validation clip is not.
        """
        for clip in validation:
            crop_center(clip)  # refuses a clip that is too small before the first step
        try:
            return self._fit(clips, validation, on_step)
        except Interrupted:  # between two steps
            self._save()
            raise

    def _fit(self, clips: Clips, validation: Clips, on_step: Callable[[int, float], None] | None) -> dict[str, float]:
        s = self.schedule
        sampling = Sampling(patch=16 * s.patch, batch=s.tasks, gaps=((2, 1.0),))
        sampler = ClipSampler(clips, _WholeRun(2 * s.frames - 1), sampling, s.seed)
        scores: dict[str, float] = {}
        losses: list[float] = []
        started = time.monotonic()
        while self.step < s.steps:
            with deferred():
                losses.append(self._train_step(sampler.batch(self.step).truth))
                self.step += 1
            if on_step:
                on_step(self.step, losses[-1])
            finished = self.step == s.steps
            if self.step % s.checkpoint_every == 0 or finished:
                if validation and (self.step % s.validate_every == 0 or finished):
                    scores = self.validate(validation)
                self._save()
                record = {
                    "step": self.step,
                    "loss": round(float(np.mean(losses)), 6),
                    "seconds_per_step": round((time.monotonic() - started) / len(losses), 3),
                    **scores,
                }
                with (self.folder / "log.jsonl").open("a") as log:
                    log.write(json.dumps(record) + "\n")
                losses, started = [], time.monotonic()
        return scores

    def _train_step(self, videos: Tensor) -> float:
        """Take one step on videos (tasks, T, 3, H, W) in [0, 1], and return the loss. Each video gets its own task."""
        s = self.schedule
        random = np.random.default_rng((s.seed, self.step, 1))
        samples = []
        for video in videos.to(self.device)[:, None]:
            task, other = random_task(random), random_task(random)
            samples.append(make_sample(video, task, other if s.across else None))
        parameters = dict(self.network.named_parameters())
        weights = {name: value.detach() for name, value in parameters.items()}
        gradients, loss = meta_gradient(self.network, weights, samples, s.inner_rate, s.inner_steps, s.first_order)
        for name, parameter in parameters.items():
            parameter.grad = gradients[name]
        nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        self.optimizer.step()
        return loss

    def validate(self, clips: Clips) -> dict[str, float]:
        """Return the mean Y-PSNR, in dB, before and after internal learning on the centre of each clip.

        Internal learning gets the true blur kernel.
        """
        scores: dict[str, list[float]] = {"psnr_before": [], "psnr_adapted": []}
        random = np.random.default_rng(self.schedule.seed)
        for clip in clips:
            large, task = crop_center(clip).to(self.device), random_task(random)
            video = make_sample(large, task).test.slow_small[0]
            method = InternalLearning(blurring(task.kernel), self.schedule.inner_rate)
            result = method.adapt(self.network, video, Budget(steps=self.schedule.inner_steps), self.schedule.seed)
            adapted = copy.deepcopy(self.network)
            adapted.load_state_dict(result.weights)
            for name, network in (("psnr_before", self.network), ("psnr_adapted", adapted)):
                scores[name].append(video_psnr(network, video, large[0]))
        return {name: round(float(np.mean(values)), 4) for name, values in scores.items()}

    def _save(self) -> None:
        contents: dict[str, dict[str, Any]] = {
            "last": {
                "config": self._config(),
                "step": self.step,
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            }
        }
        for part in PARTS:
            module: Any = getattr(self.network, part)
            contents[part] = {
                "config": asdict(module.config),
                "step": self.step,
                "meta": asdict(self.schedule),
                "state_dict": weights_of(part, self.network.state_dict()),
            }
        for name, content in contents.items():
            save(content, self.folder / f"{name}.pt")

    def _config(self) -> dict[str, Any]:
        """Return what a resumed run must agree with: everything except its length and how often it saves."""
        free = ("steps", "validate_every", "checkpoint_every")
        fixed = {name: value for name, value in asdict(self.schedule).items() if name not in free}
        return {"temporal": asdict(self.network.config[0]), "spatial": asdict(self.network.config[1]), "meta": fixed}

    def _resume(self) -> None:
        state = read_run(self.folder, self._config(), self.device)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def train_adavsr(
    temporal: NetworkEntry,
    spatial: NetworkEntry,
    run: TrainingRun,
    meta: MetaSchedule,
    on_step: OnTrain | None = None,
) -> dict[str, dict[str, float]]:
    """Run algorithm 1: train both modules by `run`, then meta-train both; return the last scores of each part.

    Parts that had no steps left have no scores. The weights to export are `meta/temporal.pt` and `meta/spatial.pt` in
    the run's folder; those before meta-training are `temporal/weights.pt` and `spatial/weights.pt`. Raises as
    `Trainer`, `Trainer.fit` and `MetaTrainer` do.
    """
    entries = {"temporal": temporal, "spatial": spatial}
    scores: dict[str, dict[str, float]] = {}
    modules: dict[str, Any] = {}
    for part in PARTS:
        entry, part_run = entries[part], replace(run, folder=run.folder / part, cache=run.cache_folder)
        module, _ = random_weights(entry, run.schedule.seed)
        trainer = ModuleTrainer(module, asdict(entry.config), part_run)
        if trainer.step < run.schedule.steps:
            scores[part] = trainer.fit(None if on_step is None else partial(on_step, part))
        modules[part] = load_weights(entry, part_run.folder / "weights.pt")[0]
    clips = run.clips()
    validation = run.validation_clips()
    network = AdaVSR(modules["temporal"], modules["spatial"])
    meta_trainer = MetaTrainer(network, meta, run.folder / "meta", run.device)
    if meta_trainer.step < meta.steps:
        scores["meta"] = meta_trainer.fit(clips, validation, None if on_step is None else partial(on_step, "meta"))
    return scores


def crop_center(clip: NDArray[np.uint8], frames: int = 13, side: int = 256) -> Tensor:
    """Cut out the centre of a clip, up to `frames` and `side`. (N, H, W, 3) -> (1, 4n + 1, 3, 16m, 16k) in [0, 1]

    Raises RequestError for a clip of fewer than 9 frames, or with a side below 32 pixels.
    """
    limits = (frames, side, side)
    t, h, w = (
        (min(n, m) - first) // unit
        for n, m, unit, first in zip(clip.shape, limits, (4, 16, 16), (1, 0, 0), strict=False)
    )
    if t < 2 or min(h, w) < 2:
        raise RequestError(
            f"A clip of {len(clip)} frames of {clip.shape[2]}x{clip.shape[1]} pixels is too small to validate on:"
            " choose clips of at least 9 frames of 32x32 pixels."
        )
    shape = (4 * t + 1, 16 * h, 16 * w)
    center = tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(clip.shape, shape, strict=False))
    return torch.from_numpy(clip[center].copy()).permute(0, 3, 1, 2)[None].float() / 255


@torch.no_grad()
def video_psnr(network: AdaVSR, video: Tensor, truth: Tensor) -> float:
    """Return the mean Y-PSNR, in dB, of the network's output, rounded to 8 bits.

    `video` is (N, 3, h, w) and `truth` (2N - 1, 3, 4h, 4w), both in [0, 1].
    """
    output, true = (x.permute(0, 2, 3, 1).double().cpu().numpy() for x in (network(video[None])[0], truth))
    return float(np.mean([psnr(luma(to_uint8(a)), luma(to_uint8(b))) for a, b in zip(output, true, strict=True)]))


class _WholeRun(Network):
    """A stand-in network that makes a sampler draw all 2N - 1 neighbouring frames of a run as the truth."""

    space = FixedFactors(factors=(1,))
    time = FixedFactors(factors=(2,))

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.window = RunWindow(frames=frames)
