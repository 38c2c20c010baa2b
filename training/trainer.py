"""The training loop: one network, a folder of clips, two stages, and checkpoints from which a run resumes."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..engine.contract.cpus import cpu_threads
from ..engine.contract.errors import RequestError
from ..engine.contract.interrupts import Interrupted, deferred
from .captured import CapturedStep
from .checkpoints import read_run
from .compressed_clips import CompressedClips
from .data import Batch, ClipSampler, Flow, Sampling
from .device_data import DeviceClips, DeviceSampler
from .inference import run_network
from .loading import BatchLoader, GpuBatchLoader, Sampler
from .motion_cache import prepare_motion
from .motion_samples import MixedSampler, MotionSampler
from .networks.base import Network
from .networks.losses import LossTerms, charbonnier
from .optimizer import MuonAdam
from .run import TrainingRun, check_device
from .saving import save
from .validation import long_enough, score_network, window_length

STAGE_TWO_SCALES, STAGE_TWO_AT_X4 = (1.0, 4.0), 0.5
MOTION_COST = 3  # input pixels of a batch that trains motion alone, for each of another batch: they take as long
MOTION_GAPS = ((2, 0.3), (3, 0.2), (4, 0.5))  # distances in frames between the inputs of such a batch


class Speed(NamedTuple):
    """The speed of training between two checkpoints."""

    steps_per_second: float
    data_share: float  # share of the time spent waiting for batches, 0 to 1


class Trainer:
    """Trains a network, and resumes where the last checkpoint in the run's folder ends. A signal saves one.

    The folder gets `last.pt` (the state to resume from), `weights.pt` (the averaged weights) and `log.jsonl`.

    `config` is the network's configuration as a dictionary; it is stored with the weights. `flow` computes the optical
    flow of networks that take it. `penalties` are further losses of the output and the truth, (B, M, 3, H, W), each
    with its weight. A network with auxiliary losses computes its loss itself, as `Network` describes; the network of a
    pair also gets the teacher's motion.

    Raises RequestError if the folder contains a run of another configuration, CheckpointError if its checkpoint cannot
    be read, BackendError if PyTorch cannot use the device, and ValueError for a network with optical flow without
    `flow`.
    """

    draws_on_device = True  # whether its batches can be drawn on a GPU

    def __init__(
        self,
        network: Network,
        config: dict[str, Any],
        run: TrainingRun,
        flow: Flow | None = None,
        penalties: Sequence[tuple[nn.Module, float]] = (),
    ) -> None:
        if network.flows and flow is None:
            raise ValueError(f"{type(network).__name__} takes optical flow, and no flow function was given")
        check_device(run.device)
        # PyTorch has the channels-last layout only for weights of up to four axes.
        flat = all(parameter.ndim < 5 for parameter in network.parameters())
        layout = torch.channels_last if flat else torch.preserve_format
        self.network = network.to(run.device, memory_format=layout)  # type: ignore[call-overload]
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.config, self.run, self.flow = config, run, flow
        self.penalties = [(penalty.to(run.device), weight) for penalty, weight in penalties]
        self.step = 0
        # Networks that take flows draw on the CPU, where flows are computed.
        wanted = run.device != "cpu" if run.device_data is None else run.device_data
        self._on_device = wanted and self.draws_on_device and not network.flows
        self._stored: DeviceClips | None = None
        self.speed: Speed | None = None  # since the last checkpoint but one
        self.optimizer = MuonAdam(self.network)
        self._alone = threading.Lock()  # held by a thread that uses the GPU while this one trains
        on_gpu = torch.device(run.device).type == "cuda"
        self._captured = CapturedStep(self._update, run.device, self._alone) if on_gpu else None
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = run.precision != "fp32"
        run.folder.mkdir(parents=True, exist_ok=True)
        if run.is_started:
            self._resume()

    def fit(self, on_step: Callable[[int, float], None] | None = None) -> dict[str, float]:
        """Train to the end of the schedule and return the scores of the last validation.

        `on_step` is called after every step with its number and its loss. Raises MediaError if clips are missing or
        damaged, and RequestError if they are too short or too small.
        """
        validation = self._validation_clips()  # they are few: a wrong one is found before all others are decoded
        clips = self.run.clips()
        scores: dict[str, float] = {}
        self.network.train()
        while self.step < self.run.schedule.steps:
            sampler = self._sampler(clips)
            try:
                scores = self._fit_stage(sampler, self._stage_end(), validation, on_step) or scores
            except Interrupted:  # between two steps
                self._save()
                raise
        return scores

    def _stage_end(self) -> int:
        """Return the step at which the current stage ends."""
        schedule = self.run.schedule
        return schedule.stage_two_at if self.step < schedule.stage_two_at <= schedule.steps else schedule.steps

    def _fit_stage(
        self,
        sampler: Sampler,
        stop: int,
        validation: list[NDArray[np.uint8]],
        on_step: Callable[[int, float], None] | None,
    ) -> dict[str, float]:
        """Train up to a step, write checkpoints and the log, and return the scores of the last validation."""
        schedule = self.run.schedule
        scores: dict[str, float] = {}
        loader = self._loader(sampler, stop)
        losses: list[float] = []
        started, waited = time.monotonic(), 0.0
        for batch in loader:
            with deferred():
                losses.append(self._train_step(batch))
                self.step += 1
            if on_step:
                on_step(self.step, losses[-1])
            finished = self.step == schedule.steps
            if self.step % schedule.checkpoint_every == 0 or finished:
                seconds = time.monotonic() - started
                self.speed = Speed(len(losses) / seconds, (loader.seconds - waited) / seconds)
                if validation and (self.step % schedule.validate_every == 0 or finished):
                    scores = self.validate(validation)
                self._save()
                record = {
                    "step": self.step,
                    "loss": round(float(np.mean(losses)), 6),
                    "rate": schedule.rate(self.step),
                    "steps_per_second": round(self.speed.steps_per_second, 4),
                    "data_share": round(self.speed.data_share, 4),
                    **scores,
                }
                with (self.run.folder / "log.jsonl").open("a") as log:
                    log.write(json.dumps(record) + "\n")
                losses, started, waited = [], time.monotonic(), loader.seconds
        return scores

    def validate(self, clips: list[NDArray[np.uint8]]) -> dict[str, float]:
        """Return the scores of the averaged weights on clips, as `score_network` does."""
        trained = {k: v.clone() for k, v in self.network.state_dict().items()}
        try:
            self.network.load_state_dict(self.average)
            self.network.eval()
            return score_network(self.network, clips, flow=self.flow, device=self.run.device)
        finally:
            self.network.load_state_dict(trained)
            self.network.train()

    def _validation_clips(self) -> list[NDArray[np.uint8]]:
        clips = self.run.validation_clips()
        if clips and not long_enough(clips, self.network):
            raise RequestError(
                f"No clip of {self.run.validation} has the {window_length(self.network)} frames that validation needs:"
                " choose longer clips."
            )
        return clips

    def _sampler(self, clips: list[NDArray[np.uint8]]) -> Sampler:
        """Return the sampler of the current stage; on a GPU, one that keeps the clips in its memory."""
        run, sampling = self.run, self.run.sampling
        if self.step >= run.schedule.stage_two_at:
            sampling = replace(sampling, scales=STAGE_TWO_SCALES, at_x4=STAGE_TWO_AT_X4)
        stored = self._device_clips(clips) if self._on_device else None
        common = self._sampler_of(clips, sampling, stored)
        if not (sampling.motion_patch and hasattr(self.network, "motion_loss")):
            return common
        batch = max(1, MOTION_COST * sampling.batch * sampling.patch**2 // sampling.motion_patch**2)
        least = min(min(clip.shape[1:3]) for clip in clips)
        largest_scale = max(1.0, min(4.0, least / sampling.motion_patch))
        wide = replace(
            sampling,
            patch=sampling.motion_patch,
            batch=batch,
            scales=(1.0, largest_scale),
            at_x4=0.0,
            gaps=MOTION_GAPS,
            compressed=0.0,
        )
        motion = MotionSampler(self._sampler_of(clips, wide, stored), run.schedule.seed, sampling.motion_patch)
        return MixedSampler(common, motion)

    def _device_clips(self, clips: list[NDArray[np.uint8]]) -> DeviceClips:
        """Copy clips and, for the network of a pair, their motion to the device; the first stage does it."""
        if self._stored is None:
            run, motion = self.run, None
            if self.network.window.kind == "pair":
                motion = prepare_motion(run.clip_files(), run.cache_folder, cpu_threads(), run.lines)
            self._stored = DeviceClips(clips, run.device, motion)
        return self._stored

    def _sampler_of(
        self, clips: list[NDArray[np.uint8]], sampling: Sampling, stored: DeviceClips | None
    ) -> ClipSampler | DeviceSampler:
        run, processes = self.run, cpu_threads()
        compressed = None
        if sampling.compressed:
            compressed = CompressedClips(run.clip_files(), run.cache_folder, lines=run.lines)
        sampler = ClipSampler(clips, self.network, sampling, run.schedule.seed, self.flow, compressed)
        if compressed is not None:
            compressed.prepare(sampler.input_gaps(), processes)
        return sampler if stored is None else DeviceSampler(sampler, stored)

    @property
    def auxiliary_weight(self) -> float:
        """The weight of a network's auxiliary loss at the current step."""
        schedule = self.run.schedule
        return schedule.auxiliary_weight * 0.5 ** (4 * self.step / schedule.steps)

    def _loader(self, sampler: Sampler, stop: int) -> BatchLoader | GpuBatchLoader:
        """Return the loader of the batches up to a step."""
        if self._captured and self._on_device:
            return GpuBatchLoader(sampler, self.step, stop, self.run.device, self._alone)
        return BatchLoader(sampler, self.step, stop, 0 if self._on_device else self.run.workers)

    def _train_step(self, batch: Batch) -> float:
        """Take a step and return its loss."""
        schedule = self.run.schedule
        rate = schedule.rate(self.step)
        decay = min(schedule.ema, (self.step + 1) / (self.step + 10))  # lower at first, to forget the initial weights
        if self._captured:
            return self._captured(batch.to(self.run.device), [rate, self.auxiliary_weight, 1 - decay])
        return float(self._update(batch, torch.tensor([rate, self.auxiliary_weight, 1 - decay])))

    def _update(self, batch: Batch, numbers: Tensor) -> Tensor:
        """Update the weights and their average, and return the loss, `()`.

        `numbers` are the learning rate, the weight of auxiliary losses, and the share of new weights in the average.
        """
        rate, auxiliary, new_share = numbers.unbind()
        device = torch.device(self.run.device).type
        with torch.autocast(device, torch.bfloat16, enabled=self.run.precision == "bf16"):
            loss = self._loss(batch, auxiliary)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step(rate)
        with torch.no_grad():
            for key, value in self.network.state_dict().items():
                average = self.average[key]
                average.lerp_(value, new_share) if value.is_floating_point() else average.copy_(value)
        return loss.detach()

    def _loss(self, batch: Batch, auxiliary: Tensor) -> Tensor:
        """Return the loss of a batch; `auxiliary`, `()`, is the weight of a network's auxiliary loss."""
        net: Any = self.network
        inputs, truth = batch.inputs, batch.truth
        if hasattr(net, "loss"):
            motion = [] if batch.motion is None else [batch.motion]
            if batch.motion_only:
                return net.motion_loss(*inputs, truth, *motion)
            terms: LossTerms = net.loss(*inputs, truth, *motion)
            loss, output = terms.reconstruction + auxiliary * terms.auxiliary, terms.output
        else:
            output = run_network(net, inputs, truth.shape[-2:])
            loss = charbonnier(output, truth)
        return loss + sum(weight * penalty(output, truth) for penalty, weight in self.penalties)

    def _save(self) -> None:
        state = {
            "config": self.config,
            "schedule": asdict(self.run.schedule),
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        record = {"step": self.step, "compressed": self.run.sampling.compressed}
        weights = {"config": self.config, **record, "state_dict": self.average}
        for name, content in (("last.pt", state), ("weights.pt", weights)):
            save(content, self.run.folder / name)

    def _resume(self) -> None:
        state = read_run(self.run.folder, self.config, self.run.device)
        self.network.load_state_dict(state["network"])
        self.average = {k: v.clone() for k, v in state["average"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
