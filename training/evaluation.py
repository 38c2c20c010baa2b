"""Judges an upscaler on clips: PSNR and SSIM on luma, at input times and between, beside bicubic."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .clips import read_clip
from .metrics import luma, psnr, ssim
from .resize import imresize, to_uint8

# (first (3, h, w), second (3, h, w) in [0, 1], times in [0, 1), (H, W)) -> frames (3, H, W) in [0, 1]
UpscalePair = Callable[
    [NDArray[np.float32], NDArray[np.float32], Sequence[float], tuple[int, int]], Iterable[NDArray[np.floating]]
]
METHODS = ("stvsr", "bicubic+blend", "bicubic+repeat")


@dataclass
class Score:
    """Sums of one method's figures over frames."""

    psnr_db: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)

    def add(self, actual: NDArray[np.floating], truth: NDArray[np.uint8]) -> None:
        """Judges one frame, (H, W, 3) in [0, 1], after rounding it to 8 bits."""
        a, b = luma(to_uint8(actual)), luma(truth)
        self.psnr_db.append(psnr(a, b))
        self.ssim.append(ssim(a, b))

    def means(self) -> dict[str, float | int]:
        """Means over the frames seen."""
        return {
            "psnr_y_db": round(float(np.mean(self.psnr_db)), 4),
            "ssim_y": round(float(np.mean(self.ssim)), 5),
            "frames": len(self.psnr_db),
        }


@dataclass(frozen=True)
class Protocol:
    """How a clip is made small: every ``factor``-th frame, antialiased bicubic by ``scale``, rounded to 8 bits."""

    scale: int = 4
    factor: int = 2


def evaluate_clip(
    clip: Path, upscale: UpscalePair, protocol: Protocol, on_frame: Callable[[], None] | None = None
) -> dict[str, dict[str, dict[str, float | int]]]:
    """Scores of one clip: ``{"at" | "between": {method: means}}``; raises ``ValueError`` for too short a clip."""
    scores = {when: {method: Score() for method in METHODS} for when in ("at", "between")}
    truths: list[NDArray[np.uint8]] = []
    small: list[NDArray[np.float64]] = []
    for frame in read_clip(clip):
        height, width = (n - n % protocol.scale for n in frame.shape[:2])
        truths.append(frame[:height, :width])
        if (len(truths) - 1) % protocol.factor == 0:
            size = (height // protocol.scale, width // protocol.scale)
            small.append(to_uint8(imresize(truths[-1] / 255.0, size)) / 255.0)
        if len(truths) == protocol.factor + 1:
            _judge(truths, small, upscale, protocol, scores)
            truths, small = truths[-1:], small[-1:]
            if on_frame:
                on_frame()
    if not scores["at"]["stvsr"].psnr_db:
        raise ValueError(f"{clip} has fewer than {protocol.factor + 1} frames: too short to be judged at this factor")
    return {when: {m: s.means() for m, s in methods.items() if s.psnr_db} for when, methods in scores.items()}


def _judge(
    truths: Sequence[NDArray[np.uint8]],
    small: Sequence[NDArray[np.float64]],
    upscale: UpscalePair,
    protocol: Protocol,
    scores: dict[str, dict[str, Score]],
) -> None:
    """Judges all frames from one input frame on and before the next."""
    size = (truths[0].shape[0], truths[0].shape[1])
    times = [j / protocol.factor for j in range(protocol.factor)]
    first, second = (imresize(frame, size) for frame in small)
    chw = [np.ascontiguousarray(frame.transpose(2, 0, 1), dtype=np.float32) for frame in small]
    for time, truth, frame in zip(times, truths, upscale(chw[0], chw[1], times, size), strict=False):
        when = scores["between" if time else "at"]
        when["stvsr"].add(np.moveaxis(frame, 0, -1), truth)
        when["bicubic+blend"].add((1 - time) * first + time * second, truth)
        when["bicubic+repeat"].add(first, truth)


def evaluate(
    clips: Sequence[Path],
    upscale: UpscalePair,
    protocol: Protocol,
    on_clip: Callable[[Path], None] | None = None,
    on_frame: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Scores of every clip and their mean over clips, each clip weighing the same, and the gain over bicubic+blend."""
    per_clip = {}
    for clip in clips:
        if on_clip:
            on_clip(clip)
        per_clip[clip.stem] = evaluate_clip(clip, upscale, protocol, on_frame)
    mean = {
        when: {
            method: {
                figure: round(float(np.mean([c[when][method][figure] for c in per_clip.values()])), 5)
                for figure in ("psnr_y_db", "ssim_y")
            }
            for method in METHODS
        }
        for when in ("at", "between")
        if all(c[when] for c in per_clip.values())
    }
    gain = {w: round(m["stvsr"]["psnr_y_db"] - m["bicubic+blend"]["psnr_y_db"], 4) for w, m in mean.items()}
    return {"protocol": asdict(protocol), "clips": per_clip, "mean": mean, "gain_db": gain}
