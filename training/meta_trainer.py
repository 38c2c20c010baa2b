"""Trains Ada-VSR: both modules by themselves, then both together by meta-transfer learning.

Gupta et al., "Ada-VSR", ACM Multimedia 2021, algorithm 1. `train_adavsr` does all of it in one folder, of which each
part goes on where it was stopped: `spatial/` and `temporal/` hold runs of large-scale training, `meta/` the run that
starts from both.
"""

import copy
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..engine.contract.manifest import FixedFactors, RunWindow
from .adapt.internal import INNER_RATE, InternalLearning
from .adapt.protocol import Budget
from .checkpoints import load_weights
from .clips import cached_clip, find_clips
from .data import Sampling
from .large_scale import Clips, ModuleTrainer, StepSampler
from .meta import meta_gradient, random_task, sample_of
from .metrics import luma, psnr
from .networks.base import Network
from .networks.cascade import AdaVSR, weights_of
from .networks.registry import NetworkEntry
from .resize import to_uint8
from .saving import save
from .trainer import Schedule

PARTS = ("spatial", "temporal")
OnTrain = Callable[[str, int, float], None]  # told the part that is trained, its step and its loss


@dataclass(frozen=True)
class MetaSchedule:
    """Steps, rates and sizes of meta-training; rates and inner steps are the paper's.

    ``patch``: side of the smallest video of a sample in pixels, of which the largest has 16 times as many. ``frames``:
    of the smallest; the largest has 4 * frames - 3. ``across``: judge by another task (see `stvsr.training.meta`).
    """

    steps: int = 2000
    tasks: int = 1
    patch: int = 10
    frames: int = 3
    inner_steps: int = 10
    inner_rate: float = INNER_RATE
    rate: float = 1e-4
    first_order: bool = False
    across: bool = False
    validate_every: int = 200
    checkpoint_every: int = 50
    seed: int = 0


class MetaTrainer:
    """Meta-trains both modules; keeps ``last.pt``, ``log.jsonl``, and ``spatial.pt`` and ``temporal.pt`` to export.

    Raises ``ValueError`` when the folder holds a run of another configuration or schedule.
    """

    def __init__(self, network: AdaVSR, schedule: MetaSchedule, run: Path, device: str = "cpu") -> None:
        self.network, self.schedule, self.run, self.device = network.to(device), schedule, run, device
        self.optimizer = torch.optim.Adam(self.network.parameters(), schedule.rate)
        self.step = 0
        run.mkdir(parents=True, exist_ok=True)
        if (run / "last.pt").exists():
            self._resume()

    def fit(
        self, clips: Clips, validation: Clips, on_step: Callable[[int, float], None] | None = None
    ) -> dict[str, float]:
        """Train to the schedule's end on clips (N, H, W, 3); returns the last validation's scores."""
        s = self.schedule
        size = 16 * s.patch
        sampler = StepSampler(
            clips,
            _Videos(2 * s.frames - 1),
            Sampling(patch=size, batch=s.tasks, gaps=((2, 1.0),)),
            s.seed,
            self.step,
        )
        scores: dict[str, float] = {}
        losses: list[float] = []
        began = time.monotonic()
        while self.step < s.steps:
            losses.append(self._train_step(sampler.batch().truth))
            self.step += 1
            if on_step:
                on_step(self.step, losses[-1])
            finished = self.step == s.steps
            if self.step % s.checkpoint_every == 0 or finished:
                if validation and (self.step % s.validate_every == 0 or finished):
                    scores = self.validate(validation)
                self._save()
                told = {"step": self.step, "loss": round(float(np.mean(losses)), 6)}
                seconds = round((time.monotonic() - began) / len(losses), 3)
                with (self.run / "log.jsonl").open("a") as log:
                    log.write(json.dumps({**told, "seconds_per_step": seconds, **scores}) + "\n")
                losses, began = [], time.monotonic()
        return scores

    def _train_step(self, videos: Tensor) -> float:
        """videos: (tasks, T, 3, H, W) in [0, 1], each of which gets a task of its own, or two."""
        s = self.schedule
        random = np.random.default_rng((s.seed, self.step, 1))
        samples = []
        for video in videos.to(self.device)[:, None]:
            task, other = random_task(random), random_task(random)
            samples.append(sample_of(video, task, other if s.across else None))
        parameters = dict(self.network.named_parameters())
        weights = {name: value.detach() for name, value in parameters.items()}
        slopes, loss = meta_gradient(self.network, weights, samples, s.inner_rate, s.inner_steps, s.first_order)
        for name, parameter in parameters.items():
            parameter.grad = slopes[name]
        nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        self.optimizer.step()
        return loss

    def validate(self, clips: Clips) -> dict[str, float]:
        """Mean Y-PSNR in dB before and after internal learning with the true kernel, on the middle of each clip."""
        scores: dict[str, list[float]] = {"psnr_before": [], "psnr_adapted": []}
        random = np.random.default_rng(self.schedule.seed)
        for clip in clips:
            large, task = middle_of(clip).to(self.device), random_task(random)
            seen = sample_of(large, task).test.slow_small[0]
            method = InternalLearning(task.kernel, self.schedule.inner_rate)
            adapted = method.adapt(self.network, seen, Budget(steps=self.schedule.inner_steps), self.schedule.seed)
            learnt = copy.deepcopy(self.network)
            learnt.load_state_dict(adapted.weights)
            for when, network in (("psnr_before", self.network), ("psnr_adapted", learnt)):
                scores[when].append(video_psnr(network, seen, large[0]))
        return {when: round(float(np.mean(values)), 4) for when, values in scores.items()}

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
            save(content, self.run / f"{name}.pt")

    def _config(self) -> dict[str, Any]:
        """What a run that goes on must agree with: all but how long it is and how often it is looked at."""
        looks = ("steps", "validate_every", "checkpoint_every")
        fixed = {name: value for name, value in asdict(self.schedule).items() if name not in looks}
        return {"temporal": asdict(self.network.config[0]), "spatial": asdict(self.network.config[1]), "meta": fixed}

    def _resume(self) -> None:
        state = torch.load(self.run / "last.pt", map_location=self.device, weights_only=True)
        if state["config"] != self._config():
            raise ValueError(f"{self.run} holds a run of another configuration; name another folder or remove it")
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def middle_of(clip: NDArray[np.uint8], frames: int = 13, side: int = 256) -> Tensor:
    """The middle of a clip, as far as it reaches: (N, H, W, 3) -> (1, 4n + 1, 3, 16m, 16k) in [0, 1].

    Raises ``ValueError`` for a clip of fewer than 9 frames or of sides below 32 pixels.
    """
    wanted = (frames, side, side)
    units = (
        (min(n, m) - first) // unit
        for n, m, unit, first in zip(clip.shape, wanted, (4, 16, 16), (1, 0, 0), strict=False)
    )
    t, h, w = units
    if t < 2 or min(h, w) < 2:
        raise ValueError(f"a clip of {len(clip)} frames of {clip.shape[2]}x{clip.shape[1]} is too small to be judged")
    shape = (4 * t + 1, 16 * h, 16 * w)
    cut = tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(clip.shape, shape, strict=False))
    return torch.from_numpy(clip[cut].copy()).permute(0, 3, 1, 2)[None].float() / 255


@torch.no_grad()
def video_psnr(network: AdaVSR, seen: Tensor, truth: Tensor) -> float:
    """Mean Y-PSNR in dB of what a network makes, as 8 bits. (N, 3, h, w), (2N - 1, 3, 4h, 4w) in [0, 1]"""
    made, true = (x.permute(0, 2, 3, 1).double().cpu().numpy() for x in (network(seen[None])[0], truth))
    return float(np.mean([psnr(luma(to_uint8(a)), luma(to_uint8(b))) for a, b in zip(made, true, strict=True)]))


class _Videos(Network):
    """Stands for a network when a sampler is to draw videos of neighbouring frames: 2N - 1 of them are the truth."""

    space = FixedFactors(factors=(1,))
    time = FixedFactors(factors=(2,))

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.window = RunWindow(frames=frames)


def train_adavsr(
    temporal: NetworkEntry,
    spatial: NetworkEntry,
    large_scale: Schedule,
    meta: MetaSchedule,
    sampling: Sampling,
    data: Path,
    run: Path,
    validation: Path | None = None,
    cache: Path | None = None,
    device: str = "cpu",
    on_step: OnTrain | None = None,
) -> dict[str, dict[str, float]]:
    """All of algorithm 1 on folders of clips; returns the last scores of each part, of parts that had steps to go.

    Weights to export: ``run/meta/temporal.pt`` and ``run/meta/spatial.pt``; those before meta-training are
    ``run/temporal/weights.pt`` and ``run/spatial/weights.pt``. Raises ``FileNotFoundError`` where there are no clips,
    and ``ValueError`` where they are too small or too short, or the folder holds another run.
    """
    cache = cache or run / "cache"
    entries = {"temporal": temporal, "spatial": spatial}
    scores: dict[str, dict[str, float]] = {}
    modules: dict[str, Any] = {}
    for part in PARTS:
        entry = entries[part]
        torch.manual_seed(large_scale.seed)
        trainer = ModuleTrainer(
            entry.build(entry.config), asdict(entry.config), large_scale, sampling, run / part, device
        )
        if trainer.step < large_scale.steps:
            told = None if on_step is None else partial(on_step, part)
            scores[part] = trainer.fit(data, validation, cache, told)
        modules[part] = load_weights(entry, run / part / "weights.pt")[0]
    clips = [cached_clip(path, cache) for path in find_clips(data)]
    judged = [cached_clip(path, cache) for path in find_clips(validation)] if validation else []
    last = MetaTrainer(AdaVSR(modules["temporal"], modules["spatial"]), meta, run / "meta", device)
    if last.step < meta.steps:
        scores["meta"] = last.fit(clips, judged, None if on_step is None else partial(on_step, "meta"))
    return scores
