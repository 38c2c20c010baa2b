"""The settings of a training run."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ..engine.contract.cpus import cpu_threads
from ..engine.contract.errors import BackendError, RequestError
from .clips import cached_clip, cached_clips, find_clips
from .data import Sampling

# float32; float32 with products in TF32, on GPUs that have it; bfloat16 where autocast considers it safe.
Precision = Literal["fp32", "tf32", "bf16"]


@dataclass(frozen=True)
class Schedule:
    """Numbers of steps, learning rates and the random seed.

    From step `stage_two_at` on, a network of any spatial scale trains at uniform scales, x1 to x4, in half of the
    steps, and at x4 in the others. Raises RequestError for a learning rate or an `anneal` without sense.
    """

    steps: int = 40_000
    stage_two_at: int = 32_000
    learning_rate: float = 1e-3
    final_rate: float = 1e-6
    anneal: float = 1.0  # share of the steps, at the end, in which the rate falls
    warmup: int = 200  # steps
    auxiliary_weight: float = 0.5  # of a network's auxiliary loss at step 0; halved every quarter of the steps
    ema: float = 0.999  # decay of the exponential moving average of the weights
    validate_every: int = 1000  # steps; validation happens only at a checkpoint
    checkpoint_every: int = 500  # steps
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise RequestError(f"The learning rate is {self.learning_rate:g}: give a number above 0.")
        if not 0 <= self.anneal <= 1:
            raise RequestError(f"The learning rate falls in a share of {self.anneal:g} of the steps: give 0 to 1.")

    def rate(self, step: int) -> float:
        """Return the learning rate at a step: a linear warm-up, a constant, then a cosine down to `final_rate`."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        start = max(self.warmup, round(self.steps * (1 - self.anneal)))
        done = max(0.0, (step - start) / max(1, self.steps - start))
        return self.final_rate + (self.learning_rate - self.final_rate) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


@dataclass(frozen=True)
class TrainingRun:
    """Everything that a training run needs to know: its clips, its folder, its schedule and its device."""

    data: Path | tuple[Path, ...]  # clips, or folders of clips
    folder: Path  # of the run: checkpoints, weights and log
    validation: Path | None = None  # a clip or a folder of clips to validate on
    cache: Path | None = None  # folder of decoded clips; None: `cache` in the run's folder
    lines: int | None = None  # clips of more rows are made smaller
    schedule: Schedule = field(default_factory=Schedule)
    sampling: Sampling = field(default_factory=Sampling)
    device: str = "cpu"  # of PyTorch: cpu or cuda:0
    workers: int = 0  # processes that draw batches ahead; 0: the training process draws them
    device_data: bool | None = None  # keep clips and motion in the device's memory; None: on a GPU
    precision: Precision = "tf32"

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise RequestError(f"Unknown precision '{self.precision}': use fp32, tf32 or bf16.")

    @property
    def cache_folder(self) -> Path:
        """The folder of decoded clips."""
        return self.cache or self.folder / "cache"

    @property
    def is_started(self) -> bool:
        """Return whether the folder has a state to resume from."""
        return (self.folder / "last.pt").exists()

    def clip_files(self) -> list[Path]:
        """Return the clips to train on. Raises MediaError as `find_clips` does."""
        return find_clips(*(self.data if isinstance(self.data, tuple) else (self.data,)))

    def clips(self) -> list[NDArray[np.uint8]]:
        """Return the frames of the clips to train on, each (N, H, W, 3), decoding those that the cache lacks."""
        return cached_clips(self.clip_files(), self.cache_folder, self.lines, cpu_threads())

    def validation_clips(self) -> list[NDArray[np.uint8]]:
        """Return the frames of the clips to validate on, each (N, H, W, 3)."""
        return [cached_clip(path, self.cache_folder) for path in find_clips(self.validation)] if self.validation else []


def find_device(name: str) -> str:
    """Return the device of that name; "auto" is the first CUDA device if PyTorch can use it, else the CPU.

    Raises BackendError if PyTorch cannot use the device.
    """
    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    check_device(name)
    return name


def check_device(device: str) -> None:
    """Raise BackendError unless PyTorch can use the device."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0].rstrip(".")
        raise BackendError(f"PyTorch cannot use the device '{device}' ({reason}): train on cpu or cuda:0.") from error
