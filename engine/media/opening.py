"""Open a video file or a pipe, and find its main video stream."""

from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from ..contract.cpus import codec_threads
from ..contract.errors import MediaError
from ..contract.shortage import is_memory_short
from ..contract.video_file import open_arguments
from .image_files import absent_file
from .image_kinds import HEAD_BYTES, is_animated_webp
from .pipes import input_name, is_pipe, pipe_view
from .structure import check_structure

_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails  # covers, and pictures of chapters


def open_video(path: str | Path) -> tuple[InputContainer, VideoStream]:
    """Open a video file and return its container and its main video stream; the caller closes the container.

    The main stream is the largest of those that are marked as default, or else of all. Raises MediaError if the file
    cannot be read, or if it has no video stream or no decoder for it, and MemoryError if there is too little memory.
    """
    path = Path(path)
    try:
        container = _open_piped(path) if is_pipe(path) else _open_file(path)
    except MediaError as error:
        if error.__cause__ is not None and is_memory_short():  # libraries call a want of memory by other names
            raise MemoryError from error
        raise
    try:
        if not is_pipe(path):
            check_structure(path, container.format.name)
        return container, _main_stream(container, path)
    except BaseException:
        container.close()
        raise


def _open_file(path: Path) -> InputContainer:
    if not path.exists():
        raise absent_file(path)
    if path.is_dir():
        raise MediaError(f"{path} is a folder: choose a video file, or a folder of images with a frame rate.")
    head = b""
    try:
        if path.stat().st_size == 0:
            raise MediaError(f"{path} is empty: copy or download it again.")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        return av.open(**open_arguments(path))
    except av.error.ArgumentError as error:
        if is_animated_webp(head):
            raise MediaError(f"{path} is an animated WebP, which FFmpeg does not decode: convert it to GIF.") from error
        raise MediaError(
            f"{path} is not in a format that is read; playlists and lists of other files are never opened. Convert it"
            " to MP4 or Matroska."
        ) from error
    except PermissionError:
        raise MediaError(f"{path} cannot be read: change its permissions.") from None
    except (av.error.FFmpegError, OSError) as error:
        if head[4:8] == b"ftyp":
            raise MediaError(
                f"{path} is cut short or damaged (its index cannot be read): copy or record it again."
            ) from error
        raise MediaError(f"{path} is not a readable video ({reason_of(error)}): choose another file.") from error


def _open_piped(path: Path) -> InputContainer:
    """Open what comes through a pipe, from its first byte."""
    try:
        return av.open(**{**open_arguments(path), "file": pipe_view(path)})
    except av.error.FFmpegError as error:
        raise not_piped(path, reason_of(error)) from error


def not_piped(path: str | Path, reason: str) -> MediaError:
    """Return the error for a pipe that holds no video that can be read."""
    return MediaError(
        f"{input_name(path)} is not a video that can be read through a pipe ({reason}): send MPEG-TS, Matroska, y4m or"
        " fragmented MP4, or save it to a file first."
    )


def is_picture(stream: Stream) -> bool:
    """Return whether a stream of video is a cover or another single picture, and no film."""
    return bool(stream.disposition & _PICTURES)


def _main_stream(container: InputContainer, path: Path) -> VideoStream:
    candidates = [stream for stream in container.streams.video if not is_picture(stream)]
    if not candidates:
        raise MediaError(f"{path} has no video stream: choose another file.")
    defaults = [stream for stream in candidates if stream.disposition & Disposition.default]
    stream = max(defaults or candidates, key=_pixels)
    if stream.codec_context is None:
        raise MediaError(
            f"FFmpeg has no decoder for the video stream of {path}: convert it to H.264 or another common codec."
        )
    stream.codec_context.thread_count = codec_threads()
    return stream


def _pixels(stream: VideoStream) -> int:
    return 0 if stream.codec_context is None else stream.codec_context.width * stream.codec_context.height


def reason_of(error: BaseException) -> str:
    """Return what FFmpeg or the system says about an error."""
    return getattr(error, "strerror", None) or str(error)
