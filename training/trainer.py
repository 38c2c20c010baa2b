"""The training loop: one network, a folder of clips, two stages, checkpoints that resume."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .clips import cached_clip, find_clips
from .data import Batch, ClipSampler, Sampling
from .losses import charbonnier
from .metrics import luma, psnr
from .ops import target_coordinates
from .resize import imresize, to_uint8


@dataclass(frozen=True)
class Schedule:
    """Steps and rates. Stage one trains at a fixed x4; stage two, from ``stage_two_at`` on, at uniform scales."""

    steps: int = 40_000
    stage_two_at: int = 32_000
    learning_rate: float = 1e-3
    final_rate: float = 1e-6
    warmup: int = 200
    auxiliary_weight: float = 0.5  # of what a network judges beside its output; halved every quarter of the steps
    ema: float = 0.999
    validate_every: int = 1000
    checkpoint_every: int = 500
    seed: int = 0

    def rate(self, step: int) -> float:
        """The learning rate at a step: linear warm-up, then a cosine to ``final_rate``."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.final_rate + (self.learning_rate - self.final_rate) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


STAGE_TWO_SCALES = (1.0, 4.0)


class Trainer:
    """Trains ``network`` and keeps ``last.pt`` (to resume), ``weights.pt`` (the averaged weights) and ``log.jsonl``.

    Raises ``ValueError`` when the folder holds a run of another configuration.
    """

    def __init__(
        self,
        network: nn.Module,
        config: dict[str, Any],
        schedule: Schedule,
        sampling: Sampling,
        run: Path,
        device: str = "cpu",
    ) -> None:
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.config, self.schedule, self.sampling = config, schedule, sampling
        self.run, self.device = run, device
        self.step = 0
        self.optimizer = torch.optim.Adam(self.network.parameters(), schedule.learning_rate, betas=(0.9, 0.99))
        run.mkdir(parents=True, exist_ok=True)
        if (run / "last.pt").exists():
            self._resume()

    def fit(
        self,
        data: Path,
        validation: Path | None = None,
        cache: Path | None = None,
        on_step: Callable[[int, float], None] | None = None,
    ) -> dict[str, float]:
        """Trains to the schedule's end, from where the checkpoint stands; returns the last validation's scores."""
        cache = cache or self.run / "cache"
        clips = [cached_clip(path, cache) for path in find_clips(data)]
        truth = [cached_clip(path, cache) for path in find_clips(validation)] if validation else []
        scores: dict[str, float] = {}
        sampler = self._sampler(clips)
        losses: list[float] = []
        started = time.monotonic()
        while self.step < self.schedule.steps:
            if self.step == self.schedule.stage_two_at:
                sampler = self._sampler(clips)
            losses.append(self._train_step(sampler.batch()))
            self.step += 1
            if on_step:
                on_step(self.step, losses[-1])
            finished = self.step == self.schedule.steps
            if self.step % self.schedule.checkpoint_every == 0 or finished:
                if truth and (self.step % self.schedule.validate_every == 0 or finished):
                    scores = self.validate(truth)
                self._save()
                record = {
                    "step": self.step,
                    "loss": round(float(np.mean(losses)), 6),
                    "rate": self.schedule.rate(self.step),
                    "seconds_per_step": round((time.monotonic() - started) / len(losses), 4),
                    **scores,
                }
                with (self.run / "log.jsonl").open("a") as log:
                    log.write(json.dumps(record) + "\n")
                losses, started = [], time.monotonic()
        return scores

    def _sampler(self, clips: list[NDArray[np.uint8]]) -> ClipSampler:
        stage_two = self.step >= self.schedule.stage_two_at
        sampling = replace(self.sampling, scales=STAGE_TWO_SCALES) if stage_two else self.sampling
        return ClipSampler(clips, sampling, seed=self.schedule.seed * 1_000_003 + self.step)

    def _train_step(self, batch: Batch) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(self.step)
        loss = self._loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        decay = min(self.schedule.ema, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for key, value in self.network.state_dict().items():
                self.average[key].lerp_(value, 1 - decay)
        return float(loss.detach())

    def _loss(self, batch: Batch) -> Tensor:
        net: Any = self.network
        frames, time, truth = (x.to(self.device) for x in (batch.frames, batch.time, batch.truth))
        if hasattr(net, "loss"):  # it judges more than its output
            reconstruction, auxiliary = net.loss(frames, time, truth, batch.motion.to(self.device))
            weight = self.schedule.auxiliary_weight * 0.5 ** (4 * self.step / self.schedule.steps)
            return reconstruction + weight * auxiliary
        features = net.encode(frames)
        y, x = (target_coordinates(frames.shape[-1], n, frames.device) for n in truth.shape[-2:])
        made = [net.decode(*features, time=time[:, k], y=y, x=x) for k in range(time.shape[1])]
        return charbonnier(torch.stack(made, 1), truth)

    @torch.no_grad()
    def validate(self, clips: list[NDArray[np.uint8]], scale: int = 4, windows: int = 4) -> dict[str, float]:
        """Mean Y-PSNR in dB at input times and half-way between, of the averaged weights, over a few windows a clip."""
        net: Any = self.network
        trained = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        results: dict[float, list[float]] = {0.0: [], 0.5: []}
        for clip in clips:
            for start in np.linspace(0, len(clip) - 3, windows).astype(int):
                truth = clip[start : start + 3].astype(np.float64)
                size = (truth.shape[1] // scale, truth.shape[2] // scale)
                pair = np.stack([to_uint8(imresize(truth[k] / 255, size)) for k in (0, 2)])
                frames = torch.from_numpy(pair).permute(0, 3, 1, 2)[None].float().to(self.device) / 255
                m = net.size_multiple
                padded = nn.functional.pad(frames[0], (0, -size[1] % m, 0, -size[0] % m), mode="replicate")[None]
                features = net.encode(padded)
                y = target_coordinates(size[0], truth.shape[1]).to(self.device)
                x = target_coordinates(size[1], truth.shape[2]).to(self.device)
                for moment, expected in ((0.0, truth[0]), (0.5, truth[1])):
                    t = torch.full((1,), moment, device=self.device)
                    frame = net.decode(*features, time=t, y=y, x=x)[0].permute(1, 2, 0).double().cpu().numpy()
                    results[moment].append(psnr(luma(to_uint8(frame)), luma(expected)))
        self.network.load_state_dict(trained)
        return {
            "psnr_at": round(float(np.mean(results[0.0])), 4),
            "psnr_between": round(float(np.mean(results[0.5])), 4),
        }

    def _save(self) -> None:
        state = {
            "config": self.config,
            "schedule": asdict(self.schedule),
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        weights = {"config": self.config, "step": self.step, "state_dict": self.average}
        for name, content in (("last.pt", state), ("weights.pt", weights)):
            partial = self.run / f"{name}.part"
            torch.save(content, partial)
            partial.replace(self.run / name)

    def _resume(self) -> None:
        state = torch.load(self.run / "last.pt", map_location=self.device, weights_only=True)
        if state["config"] != self.config:
            raise ValueError(f"{self.run} holds a run of another configuration; name another folder or remove it")
        self.network.load_state_dict(state["network"])
        self.average = {k: v.clone() for k, v in state["average"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
