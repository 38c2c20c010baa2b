"""Clips on disk: find them, decode them frame by frame, or decode them once into a memory-mapped cache.

A clip is a video file, or a folder that directly contains PNG images, in the natural order of their names.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
from numpy.typing import NDArray

from ..engine.contract.atomic import atomic_path
from ..engine.contract.cpus import codec_threads
from ..engine.contract.errors import MediaError
from ..engine.contract.video_file import open_arguments
from .resize import downscale

Made = TypeVar("Made")

_DIGITS = re.compile(r"(\d+)")
CLIP_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")


def find_clips(*paths: Path | str) -> list[Path]:
    """Return the given clips and all clips in the given folders and their sub-folders, in a stable order.

    Files and sub-folders whose names begin with a dot are left out: other programs' own, and unfinished parts.
    Raises MediaError if a path does not exist, or if a folder contains no clip.
    """
    clips: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            entries = [path, *(p for p in path.rglob("*") if not _is_hidden(p.relative_to(path)))]
            inside = [p for p in entries if (_images(p) if p.is_dir() else p.suffix.lower() in CLIP_SUFFIXES)]
            if not inside:
                raise MediaError(
                    f"The folder {path} contains no clip ({', '.join(CLIP_SUFFIXES)}, or PNG images): name another one."
                )
            clips += sorted(inside)
        elif path.exists():
            clips.append(path)
        else:
            raise MediaError(f"The clip {path} does not exist: name a clip or a folder of clips.")
    return clips


def read_clip(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a clip's first video stream, or of its images, as (H, W, 3) RGB, 0 to 255.

    Raises MediaError if the clip cannot be read or decoded, or if its frames change their size.
    """
    shape: tuple[int, ...] | None = None
    try:
        for file in _images(path) if path.is_dir() else [path]:
            for rgb in _read_file(file):
                if shape not in (None, rgb.shape):
                    raise MediaError(f"The frames of {path} change their size: re-encode the clip to one size.")
                shape = rgb.shape
                yield rgb
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror or error
        raise MediaError(
            f"The clip {path} cannot be decoded ({reason}): copy it again, or take it out of the clips."
        ) from error


def _is_hidden(path: Path) -> bool:
    """Return whether a name in a relative path begins with a dot."""
    return any(part.startswith(".") for part in path.parts)


def _images(folder: Path) -> list[Path]:
    """Return the PNG images of a folder, frame9 before frame10."""
    images = (file for file in folder.iterdir() if file.suffix.lower() == ".png" and not file.name.startswith("."))
    return sorted(images, key=lambda file: [int(s) if s.isdigit() else s.lower() for s in _DIGITS.split(file.name)])


def _read_file(path: Path) -> Iterator[NDArray[np.uint8]]:
    image = "png_pipe" if path.suffix.lower() == ".png" else None  # FFmpeg takes `%d` in a name for a pattern otherwise
    with av.open(**open_arguments(path, image)) as container:
        if not container.streams.video:
            raise MediaError(f"The clip {path} has no video stream: take it out of the clips, or name another one.")
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "AUTO", codec_threads()
        for frame in container.decode(video=0):
            # One thread: with more, FFmpeg's scaler now and then writes wrong samples where its slices meet.
            yield frame.to_ndarray(format="rgb24", threads=1).astype(np.uint8, copy=False)


def _shrunk(frame: NDArray[np.uint8], lines: int | None) -> NDArray[np.uint8]:
    """Return a frame of at most `lines` rows, with its aspect ratio."""
    height, width = frame.shape[:2]
    if lines is None or height <= lines:
        return frame
    return downscale(frame[None] / np.float32(255), (lines, round(width * lines / height)))[0]


def cache_file(path: Path, cache: Path, suffix: str, lines: int | None = None) -> Path:
    """Return the file in the folder `cache` for a clip in its present state, of at most `lines` rows.

    Raises MediaError if the clip cannot be read.
    """
    try:
        status = [file.stat() for file in (_images(path) if path.is_dir() else [path])]
    except OSError as error:
        raise MediaError(f"The clip {path} cannot be read ({error.strerror}): name another one.") from error
    stamp = ":".join([str(path.resolve()), *(f"{s.st_size}:{s.st_mtime_ns}" for s in status)])
    stamp += f":{lines}" if lines else ""
    return cache / f"{path.stem}-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}{suffix}"


def cached_clip(path: Path, cache: Path, lines: int | None = None) -> NDArray[np.uint8]:
    """Return a whole clip, (N, H, W, 3) RGB, 0 to 255, memory-mapped from a file in the folder `cache`.

    The first call decodes the clip into that file; frames of more rows than `lines` are made smaller, antialiased.
    Raises MediaError as `read_clip` does, and if the clip has no frame.
    """
    target = cache_file(path, cache, ".npy", lines)
    if not target.exists():
        frames = [_shrunk(frame, lines) for frame in read_clip(path)]
        if not frames:
            raise MediaError(f"The clip {path} has no frame: take it out of the clips.")
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as partial:
            np.save(partial, np.stack(frames))
    mapped: NDArray[np.uint8] = np.load(target, mmap_mode="r")
    return mapped


def cached_clips(
    paths: Sequence[Path], cache: Path, lines: int | None = None, workers: int = 1
) -> list[NDArray[np.uint8]]:
    """Return whole clips as `cached_clip` does; `workers` processes decode those that the cache lacks."""
    return of_each_clip(cached_clip, ".npy", paths, cache, lines, workers)


def of_each_clip(
    make: Callable[[Path, Path, int | None], Made],
    suffix: str,
    paths: Sequence[Path],
    cache: Path,
    lines: int | None,
    workers: int,
) -> list[Made]:
    """Return `make(path, cache, lines)` of each clip; `workers` processes call it where the cache lacks the file."""
    missing = [path for path in paths if not cache_file(path, cache, suffix, lines).exists()]
    if len(missing) > 1 and workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            list(pool.map(partial(_make, make, cache=cache, lines=lines), missing))
    return [make(path, cache, lines) for path in paths]


def _make(make: Callable[[Path, Path, int | None], Any], path: Path, *, cache: Path, lines: int | None) -> None:
    make(path, cache, lines)  # the result would be copied between processes
