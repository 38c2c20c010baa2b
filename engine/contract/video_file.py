"""The way in which the package opens video and image files: as local files, in formats that name no other files."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

# FFmpeg's names. Playlists, lists of files and session descriptions are missing on purpose: they make FFmpeg open what
# they name, on this machine or another.
_FORMATS = (
    "mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "mpegvideo", "m4v", "flv", "ogg", "mxf", "mxf_opatom",
    "nut", "asf", "gif", "apng", "ivf", "h264", "hevc", "obu", "av1", "yuv4mpegpipe", "rm", "dv", "wtv", "mjpeg", "vc1",
    "live_flv", "dirac", "cavsvideo", "r3d", "gxf", "swf", "nsv", "roq", "smk", "bink", "thp",
)  # fmt: skip
# Bytes of metadata that are no UTF-8 are replaced. From PyAV 19 on they are kept, as halves of characters.
METADATA_ARGUMENTS: dict[str, Any] = {"metadata_errors": "replace"} if int(version("av").partition(".")[0]) < 19 else {}


def open_arguments(path: str | Path, format: str | None = None) -> dict[str, Any]:
    """Return the arguments with which `av.open` reads a path as a local file, whatever its name looks like.

    The names of protocols (`12:30.mp4`, `concat:a|b`), of devices and of options have no meaning, and a file that is a
    playlist is refused with `av.error.ArgumentError`, whatever its suffix is. With a `format`, by FFmpeg's name of it,
    the file is read in no other one.
    """
    formats = _FORMATS if format is None else (format,)
    options = {"format_whitelist": ",".join(formats), "protocol_whitelist": "file"}
    return {"file": f"file:{path}", "format": format, "options": options, **METADATA_ARGUMENTS}
