"""Pages of comparisons, read back, and pictures for them."""

import io
import json
import re
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.support.media import pan, write_png


def pictures(count: int, shape: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Return frames (h, w, 3) uint8 of an image that moves."""
    return [np.ascontiguousarray(np.rint(255 * f).astype(np.uint8).transpose(1, 2, 0)) for f in pan(count, shape)]


def write_picture(path: Path, rgb: np.ndarray) -> Path:
    write_png(path, av.VideoFrame.from_ndarray(rgb, format="rgb24"))
    return path


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def decoded(content: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(content), "r") as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
