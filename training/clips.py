"""Clips on disk: find them, decode them frame by frame, or decode them once into a memory-mapped cache."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from ..engine.contract.errors import MediaError
from .saving import atomic_path

CLIP_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")


def find_clips(*paths: Path | str) -> list[Path]:
    """Return the given clips and all clips below the given folders, in a stable order.

    Raises MediaError if a path does not exist, or if a folder contains no clip.
    """
    clips: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in CLIP_SUFFIXES)
            if not inside:
                raise MediaError(f"The folder {path} contains no clip ({', '.join(CLIP_SUFFIXES)}): name another one.")
            clips += inside
        elif path.exists():
            clips.append(path)
        else:
            raise MediaError(f"The clip {path} does not exist: name a clip or a folder of clips.")
    return clips


def read_clip(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a clip's first video stream as (H, W, 3) RGB, 0 to 255.

    Raises MediaError if the clip cannot be read or decoded, or if its frames change their size.
    """
    shape: tuple[int, ...] | None = None
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MediaError(f"The clip {path} has no video stream: take it out of the clips, or name another one.")
            container.streams.video[0].thread_type = "AUTO"
            for frame in container.decode(video=0):
                # One thread: with more, FFmpeg's scaler now and then writes wrong samples where its slices meet.
                rgb = frame.to_ndarray(format="rgb24", threads=1).astype(np.uint8, copy=False)
                if shape not in (None, rgb.shape):
                    raise MediaError(f"The frames of {path} change their size: re-encode the clip to one size.")
                shape = rgb.shape
                yield rgb
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror or error
        raise MediaError(
            f"The clip {path} cannot be decoded ({reason}): copy it again, or take it out of the clips."
        ) from error


def cached_clip(path: Path, cache: Path) -> NDArray[np.uint8]:
    """Return a whole clip, (N, H, W, 3) RGB, 0 to 255, memory-mapped from a file in the folder `cache`.

    The first call decodes the clip into that file. Raises MediaError as `read_clip` does, and if the clip has no frame.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise MediaError(f"The clip {path} cannot be read ({error.strerror}): name another one.") from error
    stamp = f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}"
    target = cache / f"{path.stem}-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}.npy"
    if not target.exists():
        frames = list(read_clip(path))
        if not frames:
            raise MediaError(f"The clip {path} has no frame: take it out of the clips.")
        with atomic_path(target) as partial:
            np.save(partial, np.stack(frames))
    mapped: NDArray[np.uint8] = np.load(target, mmap_mode="r")
    return mapped
