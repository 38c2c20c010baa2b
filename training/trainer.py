"""The training loop: one network, a folder of clips, two stages, checkpoints that resume."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..engine.contract.manifest import ContinuousTime, FixedFactors
from .clips import cached_clip, find_clips
from .data import Batch, ClipSampler, Flow, Sampling, network_inputs, seen_frames, shrunk, true_places, wanted_frames
from .metrics import luma, psnr
from .networks.base import Network
from .networks.losses import Judged, charbonnier
from .networks.ops import target_coordinates
from .resize import to_uint8
from .saving import save


@dataclass(frozen=True)
class Schedule:
    """Steps and rates. From ``stage_two_at`` on, a network of any spatial scale trains at uniform ones, not at x4."""

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
_MOST_DB = 100.0  # what a frame counts that is given back unchanged, so that means stay finite


class Trainer:
    """Trains ``network`` and keeps ``last.pt`` (to resume), ``weights.pt`` (the averaged weights) and ``log.jsonl``.

    A network may judge more than its output: its ``loss(*inputs, truth)``, which of a pair is given the teacher's
    motion too, then returns it as `Judged`. ``penalties`` are further losses, of the output and the truth as
    (B, M, 3, H, W), each with its weight.

    Raises ``ValueError`` when the folder holds a run of another configuration, or the network takes optical flow and
    there is no ``flow``.
    """

    def __init__(
        self,
        network: Network,
        config: dict[str, Any],
        schedule: Schedule,
        sampling: Sampling,
        run: Path,
        device: str = "cpu",
        flow: Flow | None = None,
        penalties: Sequence[tuple[nn.Module, float]] = (),
    ) -> None:
        if network.flows and flow is None:
            raise ValueError(f"{type(network).__name__} takes optical flow, and nothing was given that computes it")
        flat = all(parameter.ndim < 5 for parameter in network.parameters())  # PyTorch has the layout for these alone
        layout = torch.channels_last if flat else torch.preserve_format
        self.network = network.to(device, memory_format=layout)  # type: ignore[call-overload]
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.config, self.schedule, self.sampling = config, schedule, sampling
        self.run, self.device, self.flow = run, device, flow
        self.penalties = [(penalty.to(device), weight) for penalty, weight in penalties]
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
        if truth and not self._judged(truth):
            raise ValueError(f"no clip of {validation} has the {self._length} frames that validation needs")
        scores: dict[str, float] = {}
        sampler = self._sampler(clips)
        self.network.train()
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
        return ClipSampler(clips, self.network, sampling, self.schedule.seed * 1_000_003 + self.step, self.flow)

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
                average = self.average[key]
                average.lerp_(value, 1 - decay) if value.is_floating_point() else average.copy_(value)
        return float(loss.detach())

    def _loss(self, batch: Batch) -> Tensor:
        net: Any = self.network
        inputs, truth = [x.to(self.device) for x in batch.inputs], batch.truth.to(self.device)
        if hasattr(net, "loss"):  # it judges more than its output
            told = [] if batch.motion is None else [batch.motion.to(self.device)]
            judged: Judged = net.loss(*inputs, truth, *told)
            weight = self.schedule.auxiliary_weight * 0.5 ** (4 * self.step / self.schedule.steps)
            loss, made = judged.reconstruction + weight * judged.auxiliary, judged.made
        else:
            made = made_frames(net, inputs, truth.shape[-2:])
            loss = charbonnier(made, truth)
        return loss + sum(weight * penalty(made, truth) for penalty, weight in self.penalties)

    @torch.no_grad()
    def validate(self, clips: list[NDArray[np.uint8]], scale: int = 4, windows: int = 4) -> dict[str, float]:
        """Mean Y-PSNR in dB of the averaged weights, over a few windows a clip; those too short are left out.

        ``psnr_at`` is that at input times, ``psnr_between`` that of frames that are made between, half-way where times
        are free. ``scale`` is for a network that takes any.
        """
        trained = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        self.network.eval()
        results: dict[str, list[float]] = {}
        for clip in self._judged(clips):
            for start in np.linspace(0, len(clip) - self._length, windows).astype(int):
                for when, value in self._judge(clip[start : start + self._length], scale):
                    results.setdefault(when, []).append(value)
        self.network.load_state_dict(trained)
        self.network.train()
        return {when: round(float(np.mean(values)), 4) for when, values in results.items()}

    @property
    def _length(self) -> int:
        """How many neighbouring frames a window of validation has."""
        return len(true_places(self.network.window, 2, 1))

    def _judged(self, clips: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """Clips that are long enough to be judged."""
        return [clip for clip in clips if len(clip) >= self._length]

    def _judge(self, true: NDArray[np.uint8], scale: int) -> Iterator[tuple[str, float]]:
        """Y-PSNR of each frame that the network makes of a window's true frames, and when that frame is."""
        net = self.network
        scale = net.space.factors[0] if isinstance(net.space, FixedFactors) else scale
        h, w = true.shape[1] // scale, true.shape[2] // scale
        true = true[:, : h * scale, : w * scale]
        edge = ((0, 0), (0, -h % net.size.multiple_of), (0, -w % net.size.multiple_of), (0, 0))
        small = np.pad(shrunk(seen_frames(net.window, true / 255), (h, w)), edge, mode="edge")
        frames, flows = network_inputs(net, small, self.flow)
        inputs = [frames, *flows]
        if isinstance(net.time, ContinuousTime):
            inputs.append(torch.tensor((0.0, 0.5) if net.window.kind == "pair" else 0.5))
        size = (small.shape[1] * scale, small.shape[2] * scale)
        made = made_frames(net, [x[None].to(self.device) for x in inputs], size)[0, ..., : h * scale, : w * scale]
        pictures = made.permute(0, 2, 3, 1).double().cpu().numpy()
        # Of a pair, that at the time of the second input is not made: it is the next one's first.
        for k, (frame, truth) in enumerate(zip(pictures, wanted_frames(net.window, true), strict=False)):
            between = net.window.kind == "doubled" or k % 2 == 1
            value = psnr(luma(to_uint8(frame)), luma(truth))
            yield "psnr_between" if between else "psnr_at", min(value, _MOST_DB)

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
            save(content, self.run / name)

    def _resume(self) -> None:
        state = torch.load(self.run / "last.pt", map_location=self.device, weights_only=True)
        if state["config"] != self.config:
            raise ValueError(f"{self.run} holds a run of another configuration; name another folder or remove it")
        self.network.load_state_dict(state["network"])
        self.average = {k: v.clone() for k, v in state["average"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def made_frames(network: Network, inputs: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """What a network makes of its inputs; of a pair, frames of ``size`` at all of its times. -> (B, M, 3, H, W)"""
    if network.window.kind != "pair":
        return network(*inputs)
    net: Any = network
    frames, time = inputs
    features = net.encode(frames)
    y, x = (target_coordinates(n, m, frames.device) for n, m in zip(frames.shape[-2:], size, strict=True))
    made = [net.decode(*features, time=time[:, k], y=y, x=x) for k in range(time.shape[1])]
    return torch.stack(made, 1)
