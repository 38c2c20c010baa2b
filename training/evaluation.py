"""Judge an upscaler on clips: PSNR and SSIM on luma, at input times and between them, beside bicubic resizing."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.contract.errors import RequestError, StvsrError
from ..engine.contract.further_metrics import FurtherMetric, Meters
from ..engine.contract.metrics import SSIM_PX, luma, psnr, ssim
from .clips import read_clip
from .compression import compress
from .intervals import mean_interval
from .resize import imresize, to_uint8

# (small frames (3, h, w) in [0, 1], factor in time, (H, W)) -> `factor` frames (3, H, W) in [0, 1] for each of them
UpscaleClip = Callable[[Iterable[NDArray[np.float32]], int, tuple[int, int]], Iterable[NDArray[np.floating]]]
# (frame index, the methods' frames and the truth, each (H, W, 3) in 0 to 255), after every judged frame
OnFrames = Callable[[int, Sequence[NDArray[np.uint8]]], None]
METHODS = ("stvsr", "bicubic+blend", "bicubic+repeat")
_DIGITS = {"psnr_y_db": 4}  # of an interval, and of others 5
Clips = dict[str, dict[str, dict[str, dict[str, Any]]]]  # clip -> "at" or "between" -> method -> figures


@dataclass
class Score:
    """The figures of one method for all frames of a clip."""

    psnr_db: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    further: dict[str, list[float]] = field(default_factory=dict)  # of metrics that are known at the end of the clip

    def add(self, actual: NDArray[np.uint8], truth: NDArray[np.uint8]) -> None:
        """Compare one frame, (H, W, 3) in 0 to 255, with the truth."""
        a, b = luma(actual), luma(truth)
        self.psnr_db.append(psnr(a, b))
        self.ssim.append(ssim(a, b))

    def means(self) -> dict[str, float | int]:
        """Return the means over all frames, and the number of frames."""
        return {
            "psnr_y_db": round(float(np.mean(self.psnr_db)), 4),
            "ssim_y": round(float(np.mean(self.ssim)), 5),
            **{name: round(float(np.mean(values)), 5) for name, values in self.further.items()},
            "frames": len(self.psnr_db),
        }


@dataclass(frozen=True)
class Protocol:
    """The degradation of a clip: every `factor`-th frame, antialiased bicubic by `scale`, rounded to 8 bits.

    With `exposure`, a small frame is the mean of `factor` frames, as a slower camera records them. With `crf`, small
    frames then pass through x264 at this constant rate factor. Bicubic resizing gets the same small frames.
    """

    scale: int = 4
    factor: int = 2
    exposure: bool = False
    crf: int | None = None


def evaluate(
    clips: Sequence[Path],
    upscale: UpscaleClip,
    protocol: Protocol,
    on_clip: Callable[[Path], None] | None = None,
    on_frame: Callable[[], None] | None = None,
    on_frames: OnFrames | None = None,
    metrics: Sequence[FurtherMetric] = (),
) -> dict[str, Any]:
    """Return the scores of every clip, their mean in which all clips weigh the same, and the gain over bicubic+blend.

    Means and gains have intervals of 95 % over clips, [low, high], which are None for one clip (`mean_interval`).
    A clip that is damaged, too short or too small does not end the list: its error is under `errors`, by the clip's
    name. Clips with the same file name are named by their paths. `on_clip` is called before every clip, and after every
    judged frame `on_frame`, and `on_frames` with its pictures. Raises the error of the first clip (MediaError,
    RequestError) if no clip can be judged.
    """
    per_clip: Clips = {}
    errors: dict[str, StvsrError] = {}
    stems = Counter(clip.stem for clip in clips)
    for clip in clips:
        if on_clip:
            on_clip(clip)
        name = clip.stem if stems[clip.stem] == 1 else str(clip)
        try:
            per_clip[name] = evaluate_clip(clip, upscale, protocol, on_frame, on_frames, metrics)
        except StvsrError as error:
            errors[name] = error
    if errors and not per_clip:
        raise next(iter(errors.values()))
    figures = ("psnr_y_db", "ssim_y", *(metric.name for metric in metrics))
    judged = [when for when in ("at", "between") if all(c[when] for c in per_clip.values())]
    mean = {
        when: {
            method: {
                figure: round(float(np.mean([c[when][method][figure] for c in per_clip.values()])), 5)
                for figure in figures
            }
            for method in METHODS
        }
        for when in judged
    }
    intervals = {
        when: {
            method: {
                figure: _interval([c[when][method][figure] for c in per_clip.values()], figure) for figure in figures
            }
            for method in METHODS
        }
        for when in judged
    }
    gain = {w: round(m["stvsr"]["psnr_y_db"] - m["bicubic+blend"]["psnr_y_db"], 4) for w, m in mean.items()}
    gains = {
        when: [c[when]["stvsr"]["psnr_y_db"] - c[when]["bicubic+blend"]["psnr_y_db"] for c in per_clip.values()]
        for when in judged
    }
    return {
        "protocol": asdict(protocol),
        "clips": per_clip,
        "mean": mean,
        "interval_95": intervals,
        "gain_db": gain,
        "gain_interval_95_db": {when: _interval(values, "psnr_y_db") for when, values in gains.items()},
        "errors": {name: str(error) for name, error in errors.items()},
    }


def differences(clips: Clips, first: Clips) -> dict[str, dict[str, Any]]:
    """Return how the scores of one upscaler differ from those of the first, over the clips that both were judged on.

    The differences are paired, clip by clip, so that what makes a clip hard cancels:
    `{"at" | "between": {"clips": count, "psnr_y_db": {"mean": mean, "interval_95": [low, high] or None}, ...}}`.
    """
    found: dict[str, dict[str, Any]] = {}
    for when in ("at", "between"):
        pairs = [(clips[n][when], first[n][when]) for n in clips if n in first and clips[n][when] and first[n][when]]
        if not pairs:
            continue
        found[when] = {"clips": len(pairs)}
        for figure in (name for name in pairs[0][0]["stvsr"] if name != "frames"):
            values = [one["stvsr"][figure] - other["stvsr"][figure] for one, other in pairs]
            mean = round(float(np.mean(values)), _DIGITS.get(figure, 5))
            found[when][figure] = {"mean": mean, "interval_95": _interval(values, figure)}
    return found


def _interval(values: Sequence[float], figure: str) -> list[float] | None:
    interval = mean_interval(values)
    return None if interval is None else [round(end, _DIGITS.get(figure, 5)) for end in interval]


def evaluate_clip(
    clip: Path,
    upscale: UpscaleClip,
    protocol: Protocol,
    on_frame: Callable[[], None] | None = None,
    on_frames: OnFrames | None = None,
    metrics: Sequence[FurtherMetric] = (),
) -> dict[str, dict[str, dict[str, float | int]]]:
    """Return the scores of one clip: `{"at" | "between": {method: means}}`. Raises as `evaluate` does."""
    meters = {method: Meters(metrics) for method in METHODS}  # of all frames in order, which VMAF needs
    kinds: list[str] = []  # "at" or "between", of each judged frame
    scores = {when: {method: Score() for method in METHODS} for when in ("at", "between")}
    degraded = _DegradedClip(clip, protocol)
    if degraded.size is not None:
        if min(degraded.size) < SSIM_PX:
            raise RequestError(
                f"The frames of {clip} have fewer than {SSIM_PX} pixels each way after the clip is cropped to a"
                f" multiple of the scale {protocol.scale}: evaluate larger clips, or choose a smaller scale."
            )
        for index, frame in enumerate(upscale(degraded.small_frames(), protocol.factor, degraded.size)):
            truth, bicubic = degraded.references(index)
            if truth is None:
                continue
            kinds.append("between" if index % protocol.factor or protocol.exposure else "at")
            when = scores[kinds[-1]]
            outputs = [to_uint8(output) for output in (np.moveaxis(frame, 0, -1), *bicubic)]
            for method, output in zip(METHODS, outputs, strict=True):
                when[method].add(output, truth)
                meters[method].add(output, truth)
            if on_frames:
                on_frames(index, [*outputs, truth])
            if on_frame:
                on_frame()
    for method, meter in meters.items():
        for name, values in meter.finish().items():
            for kind, value in zip(kinds, values, strict=True):
                scores[kind][method].further.setdefault(name, []).append(value)
    required = "between" if protocol.factor > 1 else "at"
    if not scores[required]["stvsr"].psnr_db:
        raise RequestError(
            f"The clip {clip} has fewer than {protocol.factor + 1} frames, too short to be judged at a time factor of"
            f" {protocol.factor}: evaluate longer clips, or choose a smaller factor."
        )
    return {when: {m: s.means() for m, s in methods.items() if s.psnr_db} for when, methods in scores.items()}


class _DegradedClip:
    """A clip that is degraded while it is decoded; it buffers the frames that are still to be judged."""

    def __init__(self, clip: Path, protocol: Protocol) -> None:
        self.protocol = protocol
        self._frames = read_clip(clip)
        self._first = next(self._frames, None)
        self.size: tuple[int, int] | None = None  # (H, W) of the truth, a multiple of the scale; None: no frames
        if self._first is not None:
            height, width = (n - n % protocol.scale for n in self._first.shape[:2])
            self.size = (height, width)
        self._truths: dict[int, NDArray[np.uint8]] = {}  # frame index -> frame
        self._enlarged: dict[int, NDArray[np.floating]] = {}  # small frame index -> its bicubic enlargement
        self._count: int | None = None  # small frames, once the clip has ended

    def small_frames(self) -> Iterator[NDArray[np.float32]]:
        """Yield the degraded frames, (3, h, w) in [0, 1]."""
        assert self.size is not None
        frames = self._shrunken_frames()
        if self.protocol.crf is not None:
            frames = compress(frames, self.protocol.crf)
        for count, small in enumerate(frames):
            self._enlarged[count] = imresize(small / 255.0, self.size)
            yield np.ascontiguousarray(small.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)

    def _shrunken_frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames made small, (h, w, 3), before compression; buffer the truths."""
        assert self._first is not None
        assert self.size is not None
        factor, scale = self.protocol.factor, self.protocol.scale
        height, width = self.size
        count = 0
        group: list[NDArray[np.uint8]] = []
        for index, frame in enumerate(chain([self._first], self._frames)):
            self._truths[index] = frame[:height, :width]
            group.append(self._truths[index])
            if self.protocol.exposure:
                if len(group) < factor:
                    continue
                large = np.mean(group, 0) / 255
            elif index % factor == 0:
                large = group[-1] / 255
            else:
                continue
            group = []
            count += 1
            yield to_uint8(imresize(large, (height // scale, width // scale)))
        self._count = count

    def references(self, index: int) -> tuple[NDArray[np.uint8] | None, tuple[NDArray[np.floating], ...]]:
        """Return the truth of an output frame, (H, W, 3), and the frames of the two bicubic methods in [0, 1].

        The truth is None after the last small frame, where there is nothing to interpolate to.
        """
        factor, exposure = self.protocol.factor, self.protocol.exposure
        if self._count is not None and not exposure and index > (self._count - 1) * factor:
            return None, ()
        truth = self._truths.pop(index)
        position = (index + 0.5) / factor - 0.5 if exposure else index / factor  # in small frames
        newest = max(self._enlarged)
        low = min(max(int(np.floor(position)), 0), newest)
        high = min(low + 1, newest)
        share = min(max(position - low, 0.0), 1.0)
        blended = (1 - share) * self._enlarged[low] + share * self._enlarged[high]
        repeated = self._enlarged[min(index // factor, newest)]
        for old in [key for key in self._enlarged if key < low]:
            del self._enlarged[old]
        return truth, (blended, repeated)
