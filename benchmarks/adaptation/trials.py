"""Trials of all parts: JSON lines that are measured once, trained networks, degraded clips and scores."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stvsr import AdaptationError
from stvsr.engine.contract.metrics import luma, psnr
from stvsr.engine.pipeline.flow import picture_flow
from stvsr.training.adapt.blur import kernel_moments
from stvsr.training.adapt.pseudo import Degrade
from stvsr.training.checkpoints import load_weights
from stvsr.training.clips import cached_clip
from stvsr.training.networks.base import Network
from stvsr.training.networks.registry import find_network
from stvsr.training.resize import to_uint8
from torch import Tensor

from ..record import record

NAME = "adaptation"  # of the file of lines
FACTOR = 4
WHOLE = (1 << 16, 1 << 16)  # a size that no frame exceeds
_MAX_DB = 100.0  # PSNR of identical frames
_FLOW = "farneback"

Figures = dict[str, Any]


class Lines:
    """The lines of `FOLDER/adaptation.jsonl`; a trial with a line of the same settings is not measured again.

    With `untimed`, for a machine that has other work, lines have no seconds; a timed run measures such trials again.
    """

    def __init__(self, folder: Path, command: str, untimed: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._command, self._untimed = folder, command, untimed
        self.all: list[Figures] = read_lines(folder)
        self._measured = {
            _key(line["part"], line["trial"])
            for line in self.all
            if "missing" not in line and (untimed or not line.get("untimed"))
        }
        self._recorded = {_key(line["part"], line["trial"]) for line in self.all}

    def measure_once(self, part: str, trial: Mapping[str, Any], measure: Callable[[], Figures]) -> None:
        """Measure a trial and append its line, unless it was measured; a failed adaptation is a line with its error."""
        if (key := _key(part, trial)) in self._measured:
            return
        try:
            figures = measure()
        except AdaptationError as error:
            figures = {"failed": str(error)}
        if self._untimed:
            figures = {"untimed": True} | {k: v for k, v in figures.items() if not k.endswith("seconds")}
        self._append(part, trial, {"threads": torch.get_num_threads(), **figures})
        self._measured.add(key)

    def record_missing(self, part: str, network: str, path: Path) -> None:
        """Append, once, a line that says which weights of a network are missing."""
        trial = {"network": network}
        if _key(part, trial) not in self._recorded:
            self._append(part, trial, {"missing": f"{path.parent.name}/{path.name}"})
            self._recorded.add(_key(part, trial))

    def _append(self, part: str, trial: Mapping[str, Any], figures: Figures) -> None:
        record(NAME, self.folder, self._command, show=False, part=part, trial=dict(trial), **figures)
        self.all.append({"part": part, "trial": dict(trial), **figures})
        print(json.dumps({"part": part, **trial, **figures}), flush=True)


def read_lines(folder: Path) -> list[Figures]:
    """Return all lines of a folder, in the order in which they were measured."""
    path = folder / f"{NAME}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _key(part: str, trial: Mapping[str, Any]) -> str:
    return part + json.dumps(trial, sort_keys=True)


@dataclass(frozen=True)
class Trained:
    """A network with the weights of a training run, their sha256, and the facts of their training."""

    network: Network
    sha256: str
    training: Figures


def load_trained(name: str, path: Path) -> Trained | None:
    """Return a registered network with the weights that `stvsr train` wrote to a file, or None if it does not exist."""
    if not path.is_file():
        return None
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    network, training = load_weights(find_network(name), path)
    training.pop("checkpoint", None)
    if "meta" not in training and (last := path.with_name("last.pt")).is_file():
        training["schedule"] = torch.load(last, map_location="cpu", weights_only=True, mmap=True).get("schedule")
    return Trained(network.eval(), sha256, training)


def middle_crop(path: Path, cache: Path, frames: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the middle of a clip, at most `frames` frames of at most `size` (H, W): (N, H, W, 3).

    Both sides are multiples of 4 pixels.
    """
    clip = cached_clip(path, cache)
    lengths = (frames, *(min(n, m) // FACTOR * FACTOR for n, m in zip(clip.shape[1:3], size, strict=True)))
    cut = (
        slice(max(0, n - m) // 2, max(0, n - m) // 2 + m)
        for n, m in zip(clip.shape, map(min, clip.shape, lengths), strict=False)
    )
    return np.array(clip[tuple(cut)])


def to_planes(pictures: NDArray[np.uint8]) -> Tensor:
    """Return 8-bit pictures, (N, H, W, 3), as frames, (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


def round_to_8_bits(frames: Tensor) -> Tensor:
    """Round frames in [0, 1] to the values that an 8-bit file can hold."""
    return (frames.clamp(0, 1) * 255).round() / 255


def degraded(true: NDArray[np.uint8], degrade: Degrade) -> Tensor:
    """Shrink true pictures to the input of a network: (N, H, W, 3) -> (N, 3, H / 4, W / 4) in [0, 1], of 8 bits."""
    return round_to_8_bits(degrade(to_planes(true), FACTOR))


def to_pictures(frames: Iterable[Tensor]) -> NDArray[np.uint8]:
    """Return frames, (3, H, W) in [0, 1], as 8-bit pictures, (N, H, W, 3)."""
    return np.stack([to_uint8(frame.permute(1, 2, 0).cpu().numpy()) for frame in frames])


def kernel_figures(name: str, kernel: Tensor) -> Figures:
    """Return, for a line, the widths of a blur in large pixels, and the angle of the wider axis from x to y."""
    widths, angle = kernel_moments(kernel)
    return {f"{name}_widths_px": [round(width, 3) for width in widths], f"{name}_angle": round(angle, 3)}


def scores(actual: NDArray[np.uint8], true: NDArray[np.uint8]) -> Figures:
    """Return the mean Y-PSNR in dB and tOF in pixels of all frames, (N, H, W, 3).

    tOF (Chu et al., TecoGAN, 2020) compares the optical flows (Farnebäck's) from each frame to the next with those of
    the truth: the mean over pixels of the absolute differences of dx and dy, added.
    """
    flows = [np.stack([picture_flow(a, b, _FLOW) for a, b in pairwise(v)]) for v in (actual, true)]
    return {
        "psnr_y_db": psnr_y_db(actual, true),
        "tof_px": round(float(np.abs(flows[0] - flows[1]).sum(1).mean()), 5),
    }


def psnr_y_db(actual: NDArray[np.uint8], true: NDArray[np.uint8]) -> float:
    """Return the mean Y-PSNR in dB of all frames, (N, H, W, 3)."""
    decibels = [min(_MAX_DB, psnr(luma(a), luma(b))) for a, b in zip(actual, true, strict=True)]
    return round(float(np.mean(decibels)), 4)


def motion_px(true: NDArray[np.uint8]) -> float:
    """Return the mean length of the optical flow from each frame to the next, in pixels."""
    flows = np.stack([picture_flow(a, b, _FLOW) for a, b in pairwise(true)])
    return float(np.sqrt((flows**2).sum(1)).mean())
