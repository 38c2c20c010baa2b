"""Destinations: the kind of output that a name stands for: a video file, an animation, image files, or a pipe."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..contract.errors import MediaError
from .image_files import Pattern, read_pattern
from .pipes import is_pipe

# Containers of video with other streams, which store timestamps, rotation and color tags.
CONTAINERS = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
# Files of pictures alone.
ANIMATIONS = (".gif", ".apng", ".avif")
IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
# By the name of the option: the suffix that stands for the format in this package, and FFmpeg's name of it.
PIPE_FORMATS = {
    "matroska": (".mkv", "matroska"),
    "mpegts": (".ts", "mpegts"),
    "y4m": (".y4m", "yuv4mpegpipe"),
    "rawvideo": (".raw", "rawvideo"),
}
GIF_RATE = 50  # frames per second, above which browsers slow a GIF down
PICTURES_ALONE = (*ANIMATIONS, ".y4m", ".raw")
_IN_FOLDERS = "%06d.png"  # the names of images in a folder

Kind = Literal["video", "animation", "image", "images", "pipe"]


@dataclass(frozen=True)
class Destination:
    """An output: its kind, its path, and the suffix that decides how it is encoded.

    The path of `images` is a pattern such as out/%06d.png, in a folder that is created if the output is a folder.
    """

    name: str  # as it was given
    kind: Kind
    path: Path
    suffix: str  # in lower case
    muxer: str | None = None  # FFmpeg's name of a pipe's format

    @property
    def pattern(self) -> Pattern:
        """The names of image files."""
        pattern = read_pattern(self.path)
        assert pattern is not None
        return pattern

    @property
    def is_segmented(self) -> bool:
        """Return whether the output can be joined of segments."""
        return self.kind == "video"

    def existing(self) -> Path | None:
        """Return the output, or the first of its images, if it is there."""
        if self.kind == "images":
            return next(iter(self.pattern.files().values()), None)
        return self.path if self.kind != "pipe" and self.path.exists() else None


def read_destination(output: str | Path, pipe_format: str | None = None) -> Destination:
    """Return what the name of an output stands for.

    A folder, which exists or ends in a slash, gets numbered PNG images. `pipe_format` is a key of `PIPE_FORMATS`, for a
    pipe alone. Raises MediaError for a name of no known kind.
    """
    path = Path(output)
    if is_pipe(output):
        name = pipe_format or next(iter(PIPE_FORMATS))
        if name not in PIPE_FORMATS:
            raise MediaError(f"'{name}' is no format for a pipe: choose {', '.join(PIPE_FORMATS)}.")
        suffix, muxer = PIPE_FORMATS[name]
        return Destination(str(output), "pipe", path, suffix, muxer)
    if pipe_format is not None:
        raise MediaError(f"A format is chosen for a pipe, and that of {path} by its name: leave the format out.")
    if path.is_dir() or str(output).endswith(("/", "\\")):
        return Destination(str(output), "images", path / _IN_FOLDERS, ".png")
    suffix = path.suffix.lower()
    if suffix in IMAGES:
        return Destination(str(output), "image" if read_pattern(path) is None else "images", path, suffix)
    if suffix in ANIMATIONS:
        return Destination(str(output), "animation", path, suffix)
    if suffix in CONTAINERS:
        return Destination(str(output), "video", path, suffix)
    raise MediaError(
        f"{path} must end in one of {', '.join((*CONTAINERS, *ANIMATIONS, *IMAGES))}, or in / for a folder of images:"
        " choose one of these."
    )
