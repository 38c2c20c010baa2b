"""Clips on disk: found, decoded frame by frame, or decoded once to a memory-mapped cache."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from .saving import appearing

CLIP_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")


def find_clips(*places: Path | str) -> list[Path]:
    """Every clip named, or lying below a named folder, in a stable order; raises ``FileNotFoundError`` for none."""
    clips: list[Path] = []
    for place in map(Path, places):
        found = sorted(p for p in place.rglob("*") if p.suffix.lower() in CLIP_SUFFIXES) if place.is_dir() else [place]
        if not found or not found[0].exists():
            raise FileNotFoundError(f"no clip ({', '.join(CLIP_SUFFIXES)}) at {place}")
        clips += found
    return clips


def read_clip(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Frames of a clip's first video stream as (H, W, 3) RGB in 0..255."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            # On one thread: those of FFmpeg's scaler now and then leave wrong samples where their parts meet.
            yield frame.to_ndarray(format="rgb24", threads=1).astype(np.uint8, copy=False)


def cached_clip(path: Path, cache: Path) -> NDArray[np.uint8]:
    """The whole clip, (N, H, W, 3) RGB in 0..255, memory-mapped from ``cache``, where it is decoded to on first use."""
    stamp = f"{path.resolve()}:{path.stat().st_size}:{path.stat().st_mtime_ns}"
    target = cache / f"{path.stem}-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}.npy"
    if not target.exists():
        with appearing(target) as partial:
            np.save(partial, np.stack(list(read_clip(path))))
    frames: NDArray[np.uint8] = np.load(target, mmap_mode="r")
    return frames
