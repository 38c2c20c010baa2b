"""What the parts of `adaptation.py` share: lines that are measured once, clips and what is shown of them, scores."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from stvsr.engine.contract.errors import AdaptationError
from stvsr.engine.pipeline.flow import picture_flow
from stvsr.training.adapt.blur import kernel_moments
from stvsr.training.adapt.pseudo import Degrade
from stvsr.training.checkpoints import load_weights
from stvsr.training.clips import cached_clip
from stvsr.training.metrics import luma, psnr
from stvsr.training.networks.base import Network
from stvsr.training.networks.registry import find_network
from stvsr.training.resize import to_uint8
from torch import Tensor

from ..record import record

NAME = "adaptation"  # of the file of lines
FACTOR = 4
WHOLE = (1 << 16, 1 << 16)  # a size that no frame exceeds
_MOST_DB = 100.0  # of frames that are given back unchanged
_FLOW = "farneback"

Figures = dict[str, Any]


class Lines:
    """The lines of ``FOLDER/adaptation.jsonl``; a trial that has one, of the same settings, is not measured again.

    Lines that are ``untimed``, as the machine has other work, are without seconds; a timed run measures them anew.
    """

    def __init__(self, folder: Path, command: str, untimed: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._command, self._untimed = folder, command, untimed
        self.all: list[Figures] = read_lines(folder)
        self._done = {
            _key(line["part"], line["trial"])
            for line in self.all
            if "missing" not in line and (untimed or not line.get("untimed"))
        }
        self._told = {_key(line["part"], line["trial"]) for line in self.all}

    def once(self, part: str, trial: Mapping[str, Any], measure: Callable[[], Figures]) -> None:
        """Measure a trial, unless that was done, and append its line; what cannot adapt is a line that says why."""
        if (key := _key(part, trial)) in self._done:
            return
        try:
            figures = measure()
        except AdaptationError as error:
            figures = {"failed": str(error)}
        if self._untimed:
            figures = {"untimed": True} | {k: v for k, v in figures.items() if not k.endswith("seconds")}
        self._append(part, trial, {"threads": torch.get_num_threads(), **figures})
        self._done.add(key)

    def missing(self, part: str, network: str, path: Path) -> None:
        """Say, once, that there are no weights of a network."""
        trial = {"network": network}
        if _key(part, trial) not in self._told:
            self._append(part, trial, {"missing": f"{path.parent.name}/{path.name}"})
            self._told.add(_key(part, trial))

    def _append(self, part: str, trial: Mapping[str, Any], figures: Figures) -> None:
        record(NAME, self.folder, self._command, show=False, part=part, trial=dict(trial), **figures)
        self.all.append({"part": part, "trial": dict(trial), **figures})
        print(json.dumps({"part": part, **trial, **figures}), flush=True)


def read_lines(folder: Path) -> list[Figures]:
    """Every line of a folder, in the order in which they were measured."""
    path = folder / f"{NAME}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _key(part: str, trial: Mapping[str, Any]) -> str:
    return part + json.dumps(trial, sort_keys=True)


@dataclass(frozen=True)
class Trained:
    """A network with the weights of a run, their sha256, and what the run's files say of their training."""

    network: Network
    sha256: str
    told: Figures


def trained(name: str, path: Path) -> Trained | None:
    """A network of the list with the weights of a file that `stvsr train` wrote, or None where there is none."""
    if not path.is_file():
        return None
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    network, told = load_weights(find_network(name), path)
    told.pop("checkpoint", None)
    if "meta" not in told and (last := path.with_name("last.pt")).is_file():
        told["schedule"] = torch.load(last, map_location="cpu", weights_only=True, mmap=True).get("schedule")
    return Trained(network.eval(), sha256, told)


def middle(path: Path, cache: Path, frames: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """So many frames of a clip's middle, cut to ``size`` (H, W) around it: (N, H, W, 3), fewer where it has fewer.

    Both sides are whole multiples of 4 pixels.
    """
    clip = cached_clip(path, cache)
    wanted = (frames, *(min(n, m) // FACTOR * FACTOR for n, m in zip(clip.shape[1:3], size, strict=True)))
    cut = (
        slice(max(0, n - m) // 2, max(0, n - m) // 2 + m)
        for n, m in zip(clip.shape, map(min, clip.shape, wanted), strict=False)
    )
    return np.array(clip[tuple(cut)])


def planes(pictures: NDArray[np.uint8]) -> Tensor:
    """(N, H, W, 3) of 8 bits -> (N, 3, H, W) in [0, 1]"""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


def eight_bits(frames: Tensor) -> Tensor:
    """Rounded to what a file holds, in [0, 1]."""
    return (frames.clamp(0, 1) * 255).round() / 255


def shown(true: NDArray[np.uint8], degrade: Degrade) -> Tensor:
    """What a network is given of true frames, (N, H, W, 3) -> (N, 3, H / 4, W / 4) in [0, 1], of 8 bits."""
    return eight_bits(degrade(planes(true), FACTOR))


def pictures_of(frames: Iterable[Tensor]) -> NDArray[np.uint8]:
    """Frames (3, H, W) in [0, 1] as a file has them, (N, H, W, 3)."""
    return np.stack([to_uint8(frame.permute(1, 2, 0).cpu().numpy()) for frame in frames])


def told_kernel(name: str, kernel: Tensor) -> Figures:
    """A blur's widths, in large pixels, and the angle of the first of them from x to y, for a line."""
    widths, angle = kernel_moments(kernel)
    return {f"{name}_widths_px": [round(width, 3) for width in widths], f"{name}_angle": round(angle, 3)}


def scores(made: NDArray[np.uint8], true: NDArray[np.uint8]) -> Figures:
    """Mean Y-PSNR in dB, and tOF in pixels, of all frames, (N, H, W, 3).

    tOF (Chu et al., TecoGAN, 2020) compares the optical flows (Farnebäck's) from each frame to the next with those of
    the truth: the mean over pixels of the absolute differences of dx and dy, added.
    """
    found = [min(_MOST_DB, psnr(luma(a), luma(b))) for a, b in zip(made, true, strict=True)]
    flows = [np.stack([picture_flow(a, b, _FLOW) for a, b in pairwise(v)]) for v in (made, true)]
    return {
        "psnr_y_db": round(float(np.mean(found)), 4),
        "tof_px": round(float(np.abs(flows[0] - flows[1]).sum(1).mean()), 5),
    }


def motion_px(true: NDArray[np.uint8]) -> float:
    """Mean length of the optical flow from each frame to the next."""
    flows = np.stack([picture_flow(a, b, _FLOW) for a, b in pairwise(true)])
    return float(np.sqrt((flows**2).sum(1)).mean())


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """A picture, (H, W, 3), as a file."""
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width, encoder.pix_fmt = *picture.shape[:2], "rgb24"  # type: ignore[attr-defined]
    encoder.time_base = Fraction(1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
    path.write_bytes(b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)]))
