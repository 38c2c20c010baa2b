"""The work of the process that reads videos of clients (`checks.py`). The server does not import this module."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..contract.bundle import Bundle, find_bundles, named_bundles
from ..contract.errors import BundleError, MediaError, RequestError
from ..media.encoder import choose_encoding
from ..media.fragments import (
    JoinedPart,
    Part,
    SegmentPart,
    codec_string,
    decode_frame,
    start_of_part,
    write_fragments,
)
from ..media.png import encode_png
from ..media.reader import tagged_rgb
from ..media.segment_file import SegmentFile
from ..pipeline.plan import plan_passes
from ..pipeline.request import UpscaleRequest
from ..pipeline.run import open_input
from .checks import VideoLimits
from .parts import FragmentOptions, PartSource, StoredPart

_SCALES = (1, 1.5, 2, 3, 4, 6, 8)
_FACTORS = (1, 2, 3, 4, 8)


def check_request(request: UpscaleRequest, limits: VideoLimits) -> None:
    """Raise MediaError for an input that cannot be read, and RequestError for what this server does not compute."""
    request.check()
    with open_input(request) as reader:
        info = reader.info
    if info.width * info.height > limits.pixels:
        raise RequestError(
            f"The video has frames of {info.width}x{info.height} pixels, and this server takes"
            f" {limits.pixels} pixels: make it smaller."
        )
    frames = info.frames or (None if info.duration is None else round(info.duration * info.rate))
    if frames is not None and frames > limits.frames:
        raise RequestError(f"The video has {frames} frames, and this server takes {limits.frames}: cut it into parts.")
    plan = request.plan(find_bundles(request.model), info)
    choose_encoding(
        plan.destination.suffix, plan.size, info, codec=request.codec, crf=request.crf, pix_fmt=request.pix_fmt
    )


def input_still(request: UpscaleRequest, low: Fraction, high: Fraction, seek: bool) -> bytes:
    """Return the first frame of a request's video from `low` up to `high` seconds. Raises MediaError if there is none.

    `seek` is that of `FrameReader.between`.
    """
    with open_input(request) as reader:
        for frame in reader.between(low, high, seek=seek):
            return _png(frame.rgb)
    raise MediaError("The video has no frame at this time: choose another.")


def output_still(part: PartSource, tick: int) -> bytes:
    """Return the frame of a part that is shown at a tick. Raises MediaError if the part or the frame is not there."""
    with _opened(part) as opened:
        return _png(tagged_rgb(decode_frame(opened, tick)))


def write_part(part: PartSource, path: Path, options: FragmentOptions) -> tuple[bytes, str]:
    """Write a part as fragments of MP4 into a new file.

    Returns what all parts have in common, which a player reads before any of them, and the name of the codec by
    RFC 6381. Raises MediaError if the part is not there, or cannot be written.
    """
    with _opened(part) as opened, tempfile.TemporaryFile(dir=path.parent) as written, path.open("wb") as file:
        write_fragments(opened, written, **options._asdict())
        start = start_of_part(written)
        written.seek(0)
        beginning = written.read(start)
        shutil.copyfileobj(written, file)
        return beginning, codec_string(beginning)


def list_models() -> list[dict[str, Any]]:
    """Return what clients see of each model that has a name; of one that cannot be used, its name and the "error"."""
    facts = []
    for name, folder in named_bundles().items():
        try:
            facts.append(_facts(name, Bundle.load(folder)))
        except BundleError as error:
            facts.append({"name": name, "error": str(error)})
    return facts


@contextmanager
def _opened(part: PartSource) -> Iterator[Part]:
    """Open a part. Raises MediaError if it is not there, also for errors in the block."""
    source = SegmentPart(SegmentFile(part.path, part.ticks)) if isinstance(part, StoredPart) else JoinedPart(*part)
    try:
        with source.open() as opened:
            yield opened
    except (OSError, ValueError) as error:
        raise MediaError("The part of the video is not there: choose another.") from error


def _facts(name: str, bundle: Bundle) -> dict[str, Any]:
    """Return what clients see of a model; of scales and time factors, those of the usual ones that it makes."""
    made = [(scale, factor) for scale in _SCALES for factor in _FACTORS if _makes(bundle, scale, factor)]
    manifest = bundle.manifest
    return {
        "name": name,
        "space": str(manifest.space),
        "time": str(manifest.time),
        "scales": sorted({scale for scale, _ in made}),
        "time_factors": sorted({factor for _, factor in made}),
        "licence": manifest.licence,
    }


def _makes(bundle: Bundle, scale: float, factor: int) -> bool:
    side, target = 240, round(240 * scale)
    try:
        return bool(plan_passes((bundle,), (side, side), (target, target), factor))
    except RequestError:
        return False


def _png(rgb: np.ndarray) -> bytes:
    """Return a PNG image of a frame, (3, H, W) in [0, 1]."""
    return encode_png(np.rint(rgb.transpose(1, 2, 0) * 255).clip(0, 255).astype(np.uint8))
