"""Judges an upscaler on clips: PSNR and SSIM on luma, at input times and between, beside bicubic."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .clips import read_clip
from .metrics import luma, psnr, ssim
from .resize import imresize, to_uint8

# (small frames (3, h, w) in [0, 1], factor in time, (H, W)) -> for each of them ``factor`` frames (3, H, W) in [0, 1]
UpscaleClip = Callable[[Iterable[NDArray[np.float32]], int, tuple[int, int]], Iterable[NDArray[np.floating]]]
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
    """How a clip is made small: every ``factor``-th frame, antialiased bicubic by ``scale``, rounded to 8 bits.

    With ``exposure`` a small frame is the mean of ``factor`` frames, as a slower camera sees them.
    """

    scale: int = 4
    factor: int = 2
    exposure: bool = False


def evaluate_clip(
    clip: Path, upscale: UpscaleClip, protocol: Protocol, on_frame: Callable[[], None] | None = None
) -> dict[str, dict[str, dict[str, float | int]]]:
    """Scores of one clip: ``{"at" | "between": {method: means}}``; raises ``ValueError`` for too short a clip."""
    scores = {when: {method: Score() for method in METHODS} for when in ("at", "between")}
    degraded = _Degraded(clip, protocol)
    if degraded.size is not None:
        for number, frame in enumerate(upscale(degraded.small_frames(), protocol.factor, degraded.size)):
            truth, simple = degraded.judge(number)
            if truth is None:
                continue
            when = scores["between" if number % protocol.factor or protocol.exposure else "at"]
            for method, made in zip(METHODS, (np.moveaxis(frame, 0, -1), *simple), strict=True):
                when[method].add(made, truth)
            if on_frame:
                on_frame()
    wanted = "between" if protocol.factor > 1 else "at"
    if not scores[wanted]["stvsr"].psnr_db:
        raise ValueError(f"{clip} has fewer than {protocol.factor + 1} frames: too short to be judged at this factor")
    return {when: {m: s.means() for m, s in methods.items() if s.psnr_db} for when, methods in scores.items()}


class _Degraded:
    """A clip made small as it streams by, and what is known of the frames that are still to be judged."""

    def __init__(self, clip: Path, protocol: Protocol) -> None:
        self.protocol = protocol
        self._frames = read_clip(clip)
        self._first = next(self._frames, None)
        self.size: tuple[int, int] | None = None  # (H, W) of the truth: whole small pixels
        if self._first is not None:
            height, width = (n - n % protocol.scale for n in self._first.shape[:2])
            self.size = (height, width)
        self._truths: dict[int, NDArray[np.uint8]] = {}
        self._enlarged: dict[int, NDArray[np.floating]] = {}
        self._count: int | None = None  # of small frames, once the clip has ended

    def small_frames(self) -> Iterator[NDArray[np.float32]]:
        """(3, h, w) in [0, 1]"""
        assert self._first is not None
        assert self.size is not None
        factor, scale = self.protocol.factor, self.protocol.scale
        height, width = self.size
        made = 0
        group: list[NDArray[np.uint8]] = []
        for number, frame in enumerate(chain([self._first], self._frames)):
            self._truths[number] = frame[:height, :width]
            group.append(self._truths[number])
            if self.protocol.exposure:
                if len(group) < factor:
                    continue
                shown = np.mean(group, 0) / 255
            elif number % factor == 0:
                shown = group[-1] / 255
            else:
                continue
            group = []
            small = to_uint8(imresize(shown, (height // scale, width // scale))) / 255.0
            self._enlarged[made] = imresize(small, self.size)
            made += 1
            yield np.ascontiguousarray(small.transpose(2, 0, 1), dtype=np.float32)
        self._count = made

    def judge(self, number: int) -> tuple[NDArray[np.uint8] | None, tuple[NDArray[np.floating], ...]]:
        """The truth of one frame, (H, W, 3), and what bicubic makes of it; no truth where there is nothing after it."""
        factor, exposure = self.protocol.factor, self.protocol.exposure
        if self._count is not None and not exposure and number > (self._count - 1) * factor:
            return None, ()
        truth = self._truths.pop(number)
        place = (number + 0.5) / factor - 0.5 if exposure else number / factor
        newest = max(self._enlarged)
        low = min(max(int(np.floor(place)), 0), newest)
        high = min(low + 1, newest)
        share = min(max(place - low, 0.0), 1.0)
        blended = (1 - share) * self._enlarged[low] + share * self._enlarged[high]
        repeated = self._enlarged[min(number // factor, newest)]
        for old in [key for key in self._enlarged if key < low]:
            del self._enlarged[old]
        return truth, (blended, repeated)


def evaluate(
    clips: Sequence[Path],
    upscale: UpscaleClip,
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
