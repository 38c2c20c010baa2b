"""Short clips made of photographs, for more scenes in training: a window that moves over each one, and zooms.

`python -m stvsr.training.photo_clips PHOTOS OUT` writes folders of PNG images, which `stvsr train --data OUT` reads.
Windows with much detail are preferred. They shrink the photograph, so that its noise and compression are hidden.
"""

import argparse
import math
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from ..engine.contract.atomic import new_folder
from ..engine.contract.errors import MediaError, RequestError, StvsrError
from ..engine.contract.resize import cubic_matrix
from .resize import to_uint8

SIZE = (360, 640)  # of a window's frames, in pixels
_SHRINK = (1.3, 0.85)  # the least, and the most as a share of what the photograph has room for
_MOST_PX = 16.0  # of motion from frame to frame
_MOST_ZOOM = 0.015  # from frame to frame
_TRIES = 400  # of places for a window
_COARSE = 4  # pixels of the photograph to one of the map of detail
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".jxl", ".avif")

Box = tuple[float, float, float, float]  # top, left, bottom, right in pixels of the photograph


def moving_windows(shape: tuple[int, int], shrink: float, count: int, random: np.random.Generator) -> list[Box] | None:
    """Return a random moving, zooming window over a photograph of (height, width), one box for each of `count` frames.

    `shrink` is the size of a box in the middle of the motion over that of its frame. None if it leaves the photograph.
    """
    height, width = shape
    speed, angle = random.uniform(1, _MOST_PX) * shrink, random.uniform(0, 2 * np.pi)
    zoom = 1 + random.uniform(-_MOST_ZOOM, _MOST_ZOOM)
    y, x = random.uniform(0, height), random.uniform(0, width)
    boxes = []
    for time in np.arange(count) - (count - 1) / 2:
        centre = y + time * speed * np.sin(angle), x + time * speed * np.cos(angle)
        half = [side * shrink * zoom**time / 2 for side in SIZE]
        boxes.append((centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1]))
    inside = all(top >= 0 and left >= 0 and bottom <= height and right <= width for top, left, bottom, right in boxes)
    return boxes if inside else None


def render(photograph: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """Return a frame of SIZE from a box of a photograph (H, W, 3), by antialiased bicubic resizing."""
    seen, matrices = [], []
    for axis, (low, high) in enumerate(zip(box[:2], box[2:], strict=True)):
        step = (high - low) / SIZE[axis]
        first, last = max(0, int(low - 3 * step)), min(photograph.shape[axis], int(high + 3 * step) + 1)
        centres = low + (np.arange(SIZE[axis]) + 0.5) * step - 0.5 - first
        seen.append(slice(first, last))
        matrices.append(cubic_matrix(last - first, centres, 1 / step).astype(np.float32))
    image = photograph[seen[0], seen[1]] / np.float32(255)
    return to_uint8(np.einsum("yh,hwc,xw->yxc", matrices[0], image, matrices[1], optimize=True))


def clips_of(
    photograph: NDArray[np.uint8], windows: int, frames: int, random: np.random.Generator
) -> Iterator[list[NDArray[np.uint8]]]:
    """Yield a clip for each of `windows` windows: none for a photograph that is too small."""
    shape = photograph.shape[:2]
    most = min(side / wanted for side, wanted in zip(shape, SIZE, strict=True)) * _SHRINK[1]
    if most < _SHRINK[0]:
        return
    grey = cv2.resize(photograph, (shape[1] // _COARSE, shape[0] // _COARSE), interpolation=cv2.INTER_AREA).mean(2)
    detail = np.abs(np.diff(grey, axis=1))[:-1] + np.abs(np.diff(grey, axis=0))[:, :-1]
    for shrink in np.geomspace(_SHRINK[0], most, windows + 2)[1:-1]:
        found: list[tuple[float, list[Box]]] = []
        for _ in range(_TRIES):
            if (boxes := moving_windows((shape[0], shape[1]), shrink, frames, random)) is not None:
                top, left, bottom, right = (round(value / _COARSE) for value in boxes[frames // 2])
                found.append((detail[top:bottom, left:right].mean() * random.uniform(0.6, 1), boxes))
        if found:
            _, boxes = max(found, key=lambda pair: pair[0])
            yield [render(photograph, box) for box in boxes]


def read_photograph(path: Path) -> NDArray[np.uint8]:
    """Return a photograph, (H, W, 3) RGB. Raises MediaError if it cannot be decoded."""
    try:
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
            return next(container.decode(video=0)).to_ndarray(format="rgb24", threads=1).astype(np.uint8, copy=False)
    except (av.FFmpegError, IndexError, StopIteration) as error:
        raise MediaError(f"The photograph {path} cannot be decoded ({error}): take it out, or convert it.") from error


def write_clips(photographs: Path, out: Path, windows: int = 3, frames: int = 5, overwrite: bool = False) -> int:
    """Write `windows` clips of `frames` frames of each photograph of a folder, and return their number.

    A clip is a folder of PNG images, named after its photograph; of photographs with the same name, in several
    sub-folders or formats, by their paths. The windows of a photograph depend on its name alone, so that more
    photographs do not change the clips of others. Raises RequestError for fewer than one window or two frames, and
    MediaError for a photograph that cannot be decoded, if there is none, and if all are too small; then `out` stays as
    it was.
    """
    if windows < 1 or frames < 2:
        raise RequestError(f"{windows} windows of {frames} frames are no clips: give at least 1 of 2.")
    paths = sorted(path for path in photographs.rglob("*") if path.suffix.lower() in _SUFFIXES and path.name[0] != ".")
    if not paths:
        raise MediaError(f"The folder {photographs} has no photograph ({', '.join(_SUFFIXES)}): name another one.")
    stems = Counter(path.stem for path in paths)
    written = 0
    with new_folder(out, "clips of photographs", overwrite, may_replace=_has_clips) as folder:
        for path in paths:
            name = path.stem if stems[path.stem] == 1 else "_".join(path.relative_to(photographs).parts)
            random = np.random.default_rng(zlib.crc32(path.stem.encode()))
            for number, clip in enumerate(clips_of(read_photograph(path), windows, frames, random)):
                target = folder / f"{name}-{number}"
                target.mkdir()
                for index, frame in enumerate(clip):
                    (target / f"{index:03d}.png").write_bytes(_png(frame))
                written += 1
        if not written:
            least = "x".join(str(math.ceil(side * _SHRINK[0] / _SHRINK[1])) for side in reversed(SIZE))
            raise MediaError(
                f"No photograph of {photographs} is clearly larger than {least} pixels: choose larger ones."
            )
    return written


def _png(frame: NDArray[np.uint8]) -> bytes:
    """Return a frame (H, W, 3) RGB as a PNG file."""
    _, encoded = cv2.imencode(".png", frame[:, :, ::-1])
    return encoded.tobytes()


def _has_clips(folder: Path) -> bool:
    return any(folder.glob("*-0/000.png"))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m stvsr.training.photo_clips", description=__doc__)
    parser.add_argument("photographs", type=Path, help="folder of photographs, with its sub-folders")
    parser.add_argument("out", type=Path, help="new folder of the clips")
    parser.add_argument("--windows", type=int, default=3, help="clips of each photograph")
    parser.add_argument("--frames", type=int, default=5, help="frames of each clip")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier folder of clips")
    arguments = parser.parse_args()
    try:
        written = write_clips(**vars(arguments))
    except StvsrError as error:
        sys.exit(f"Error: {error}")
    print(f"{written} clips were written to {arguments.out}.")


if __name__ == "__main__":
    main()
