"""Small, compressed versions of training clips, made once and kept on disk: inputs as users' videos are.

A version is a whole clip made four times smaller and sent through x264 or x265 at a random constant rate factor, so
that its P and B frames are real. Half of the versions are blurred and noisy before that, as by a lens and a sensor.
Inputs that are `gap` frames apart are neighbours in a video of a lower rate: every gap has versions of its own, in
which each of the `gap` interleaved videos is compressed by itself.
"""

import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from ..engine.contract.atomic import atomic_path
from .clips import cache_file, cached_clip
from .compression import Codec, compress
from .resize import downscale

SCALE = 4
CRFS = (18, 38)  # from visually lossless to coarse
_X264_SHARE = 0.7  # of versions; the others are x265
_DEGRADED_SHARE = 0.5  # of versions; these have blur and noise of up to:
_MOST_BLUR_PX = 0.8  # standard deviation in pixels of the small frames
_MOST_NOISE = 4.0  # standard deviation in grey levels


@dataclass(frozen=True)
class Degradation:
    """The changes that a small clip goes through before it is an input."""

    crf: int
    codec: Codec
    blur_px: float = 0.0  # standard deviation of a Gaussian blur, in pixels of the small frames
    noise: float = 0.0  # standard deviation of white noise, in grey levels
    seed: int = 0  # of the noise


class CompressedClips:
    """The compressed versions of clips, by the clip's number in `paths`, the gap and the version's number.

    `lines` as in `cached_clip`.
    """

    def __init__(self, paths: Sequence[Path], cache: Path, versions: int = 3, lines: int | None = None) -> None:
        self.paths, self.cache, self.versions, self.lines = list(paths), cache, versions, lines

    def frames(self, clip: int, gap: int, version: int) -> NDArray[np.uint8]:
        """Return a version, (N, H // 4, W // 4, 3), memory-mapped; the first call makes it.

        Frame i of it is frame i of the clip.
        """

        def make() -> NDArray[np.uint8]:
            return compressed_version(self._small(clip), gap, degradation(self.paths[clip].stem, gap, version))

        return self._stored(clip, f"-gap{gap}-degraded-{version}", make)

    def _small(self, clip: int) -> NDArray[np.uint8]:
        """Return a clip made small, before compression."""
        return self._stored(clip, "", lambda: small_clip(cached_clip(self.paths[clip], self.cache, self.lines)))

    def _stored(self, clip: int, suffix: str, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        target = cache_file(self.paths[clip], self.cache, f".x{SCALE}{suffix}.npy", self.lines)
        if not target.exists():
            frames = make()
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(target) as partial:
                np.save(partial, frames)
        mapped: NDArray[np.uint8] = np.load(target, mmap_mode="r")
        return mapped

    def prepare(self, gaps: Sequence[int], workers: int) -> None:
        """Make all versions of all clips for these gaps, `workers` clips at once."""
        keys = [[(clip, gap, v) for gap in gaps for v in range(self.versions)] for clip in range(len(self.paths))]
        if workers > 1:
            with ProcessPoolExecutor(workers) as pool:
                list(pool.map(self._make, keys))
        else:
            list(map(self._make, keys))

    def _make(self, keys: list[tuple[int, int, int]]) -> None:
        for key in keys:
            self.frames(*key)


def degradation(name: str, gap: int, version: int) -> Degradation:
    """Return the degradation of a version; it depends only on the arguments."""
    key = zlib.crc32(name.encode()), gap, version
    random = np.random.default_rng(key)
    x264, x265 = get_args(Codec)
    crf, codec = int(random.integers(CRFS[0], CRFS[1] + 1)), x264 if random.random() < _X264_SHARE else x265
    if random.random() >= _DEGRADED_SHARE:
        return Degradation(crf, codec)
    blur_px, noise = random.uniform(0, _MOST_BLUR_PX), random.uniform(0, _MOST_NOISE)
    return Degradation(crf, codec, blur_px, noise, seed=int(random.integers(1 << 30)))


def small_clip(clip: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Make a clip four times smaller. (N, H, W, 3) -> (N, H // 4, W // 4, 3)"""
    height, width = (side // SCALE for side in clip.shape[1:3])
    frames = (frame[: height * SCALE, : width * SCALE] / np.float32(255) for frame in clip)
    return np.stack([downscale(frame[None], (height, width))[0] for frame in frames])


def compressed_version(small: NDArray[np.uint8], gap: int, settings: Degradation) -> NDArray[np.uint8]:
    """Degrade a small clip, (N, h, w, 3), and compress each of its `gap` interleaved videos."""
    random = np.random.default_rng(settings.seed)
    before = np.stack([_blurred_and_noisy(frame, settings, random) for frame in small])
    result = np.empty_like(small)
    for phase in range(min(gap, len(small))):
        result[phase::gap] = np.stack(list(compress(before[phase::gap], settings.crf, settings.codec)))
    return result


def _blurred_and_noisy(
    frame: NDArray[np.uint8], settings: Degradation, random: np.random.Generator
) -> NDArray[np.uint8]:
    values = frame.astype(np.float32)
    if settings.blur_px > 0:
        blurred = cv2.GaussianBlur(values, (0, 0), settings.blur_px, borderType=cv2.BORDER_REPLICATE)
        values = np.asarray(blurred, np.float32)
    values += np.float32(settings.noise) * random.standard_normal(values.shape, np.float32)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
