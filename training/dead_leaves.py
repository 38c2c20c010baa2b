"""Synthetic clips: leaves with sharp outlines and regular textures that move and cover each other.

Camera clips have few straight edges, letters and fine patterns, of which a network for enlarging must have seen many.
The sizes of the leaves follow the power law of natural pictures (the dead leaves model: Lee, Mumford and Huang, 2001;
for training networks: Achddou, Gousseau and Ladjal, 2021). Each leaf lies at a depth: the camera's movement shifts near
ones more, and each has a small movement of its own.
"""

import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from ..engine.contract.atomic import atomic_path

SIZE = (640, 360)  # of a clip: width, height
FRAMES = 14  # in a clip
_VERSION = 1  # of the clips; to be raised when they change
_OVERSAMPLED = 2  # rendered at so many times the size, and averaged
_LEAVES = 1500  # in a clip, so that they cover its frames
_LEAST_PX, _MOST_PX = 8.0, 160.0  # radius of a leaf
_SHIFT_PX, _TURN, _ZOOM = 14.0, 0.008, 0.008  # of the camera, per frame, at most
_OWN_SHIFT_PX, _OWN_TURN = 2.0, 0.03  # of a leaf, per frame, at most
_WORDS = "ABCDEFGHIKLMNOPRSTUVXYZ0123456789abcdefghknorstuvxyz"

Floats = NDArray[np.float32]


def synthetic_clips(folder: Path, count: int, workers: int = 1) -> list[Path]:
    """Return `count` clips in a folder, lossless and always the same, making those that are missing."""
    paths = [folder / f"leaves{_VERSION}_{number:03}.mkv" for number in range(count)]
    missing = [(path, number) for number, path in enumerate(paths) if not path.exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(workers) as pool:
            list(pool.map(_write_clip, *zip(*missing, strict=True)))
    return paths


def render_clip(seed: int, frames: int = FRAMES, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Return the frames of a clip of `size` (width, height), (N, H, W, 3) RGB."""
    random = np.random.default_rng((0x1EAF, seed))
    camera = _Camera.draw(random, size)
    leaves = sorted((_Leaf.draw(random, size) for _ in range(_LEAVES)), key=lambda leaf: leaf.depth)
    ground = _color(random)
    clip = []
    for number in range(frames):
        time = number - (frames - 1) / 2
        picture = np.empty((size[1] * _OVERSAMPLED, size[0] * _OVERSAMPLED, 3), np.float32)
        picture[:] = ground
        for leaf in leaves:
            leaf.paint(picture, camera, time)
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        clip.append(np.clip(np.rint(small), 0, 255).astype(np.uint8))
    return np.stack(clip)


def _write_clip(path: Path, seed: int) -> None:
    clip = render_clip(seed, FRAMES, SIZE)
    with atomic_path(path) as partial, av.open(str(partial), "w", format="matroska") as target:
        stream = target.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = SIZE[0], SIZE[1], "bgr0"
        for number, frame in enumerate(clip):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0", threads=1)
            picture.pts, picture.time_base = number, Fraction(1, 24)
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))


@dataclass(frozen=True)
class _Camera:
    """The movement per frame of what the camera sees at depth 1, about the centre of the frame."""

    size: tuple[int, int]  # width, height in pixels
    shift: Floats  # (2,): x, y in pixels
    turn: float  # radians
    zoom: float  # logarithm of a factor

    @classmethod
    def draw(cls, random: np.random.Generator, size: tuple[int, int]) -> "_Camera":
        shift = random.uniform(-1, 1, 2).astype(np.float32) ** 3 * _SHIFT_PX
        turn, zoom = random.uniform(-1, 1, 2) ** 3 * (_TURN, _ZOOM)
        return cls(size, shift, float(turn), float(zoom))

    def transform(self, depth: float, time: float) -> Floats:
        """Return the matrix (2, 3) from positions at time 0 to those in the frame at a time, in pixels."""
        angle, factor = self.turn * time, math.exp(self.zoom * depth * time)
        centre = np.array(self.size, np.float32) / 2
        linear = factor * _rotation(angle)
        return np.column_stack([linear, centre - linear @ centre + depth * time * self.shift])


@dataclass(frozen=True)
class _Leaf:
    """A leaf at time 0: its outline, its texture and its own movement."""

    depth: float  # 0.3 (far) to 1.5
    centre: Floats  # (2,): x, y in pixels
    outlines: tuple[Floats, ...]  # each (N, 2), from the centre, in pixels
    angle: float  # of the texture
    colors: Floats  # (2, 3) RGB
    texture: str
    period_px: float
    shift: Floats  # (2,) pixels per frame
    turn: float  # radians per frame

    @classmethod
    def draw(cls, random: np.random.Generator, size: tuple[int, int]) -> "_Leaf":
        # Of the density r ** -3, by the inverse of its distribution.
        least, most = _LEAST_PX**-2, _MOST_PX**-2
        radius = float((least - random.random() * (least - most)) ** -0.5)
        kind = random.choice(["polygon", "ellipse", "strip", "letters"], p=[0.35, 0.2, 0.3, 0.15])
        return cls(
            depth=float(random.uniform(0.3, 1.5)),
            centre=(random.uniform(-0.2, 1.2, 2) * size).astype(np.float32),
            outlines=_outlines(str(kind), radius, random),
            angle=float(random.uniform(0, math.pi)),
            colors=np.stack([_color(random), _color(random)]),
            texture=str(random.choice(["flat", "gradient", "stripes", "checks"], p=[0.45, 0.25, 0.2, 0.1])),
            period_px=float(random.uniform(3, 24)),
            shift=(random.uniform(-1, 1, 2) ** 3 * _OWN_SHIFT_PX).astype(np.float32),
            turn=float(random.uniform(-1, 1) ** 5 * _OWN_TURN),
        )

    def paint(self, picture: Floats, camera: _Camera, time: float) -> None:
        """Paint the leaf at a time into an oversampled picture."""
        matrix = camera.transform(self.depth, time)
        linear = matrix[:, :2] @ _rotation(self.turn * time)
        centre = matrix[:, :2] @ (self.centre + time * self.shift) + matrix[:, 2]
        outlines = [(outline @ linear.T + centre) * _OVERSAMPLED for outline in self.outlines]
        corners = np.concatenate(outlines)
        left, top = np.maximum(np.floor(corners.min(0)).astype(int), 0)
        right, bottom = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, picture.shape[1::-1])
        if left >= right or top >= bottom:
            return
        mask = np.zeros((bottom - top, right - left), np.uint8)
        points = [np.rint((outline - (left, top)) * 16).astype(np.int32) for outline in outlines]
        cv2.fillPoly(mask, points, 255, shift=4)  # crossing outlines leave holes, as letters have them
        x = (np.arange(left, right, dtype=np.float32)[None] + 0.5) / _OVERSAMPLED - centre[0]
        y = (np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5) / _OVERSAMPLED - centre[1]
        inverse = _rotation(-self.angle) @ np.linalg.inv(linear).astype(np.float32)
        share = self._share(inverse[0, 0] * x + inverse[0, 1] * y, inverse[1, 0] * x + inverse[1, 1] * y)
        area, inside = picture[top:bottom, left:right], mask > 0
        first, second = self.colors
        area[inside] = first if share is None else first + share[inside][:, None] * (second - first)

    def _share(self, u: Floats, v: Floats) -> Floats | None:
        """Return the share of the second colour at positions of the texture, in pixels; None: there is none."""
        frequency = np.float32(2 * math.pi / self.period_px)
        match self.texture:
            case "gradient":
                return np.clip(0.5 + u / (8 * self.period_px), 0, 1)
            case "stripes":
                return 0.5 + 0.5 * np.sin(frequency * u)
            case "checks":
                return ((np.sin(frequency * u) > 0) ^ (np.sin(frequency * v) > 0)).astype(np.float32)
        return None


def _rotation(angle: float) -> Floats:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]], np.float32)


def _color(random: np.random.Generator) -> Floats:
    """Draw a colour, (3,) RGB from 0 to 255: any lightness, and mostly little saturation."""
    lightness = random.uniform(10, 245)
    return np.clip(lightness + random.normal(0, 20, 3), 0, 255).astype(np.float32)


def _outlines(kind: str, radius: float, random: np.random.Generator) -> tuple[Floats, ...]:
    """Draw the outlines of a leaf, about its centre."""
    turned = _rotation(float(random.uniform(0, math.pi)))
    if kind == "letters":
        return _letters(radius, turned, random)
    if kind == "strip":  # as poles, wires and kerbs
        half = (radius * random.uniform(2, 6), max(0.5, radius * random.uniform(0.03, 0.3)))
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
    else:
        count = 40 if kind == "ellipse" else int(random.integers(3, 8))
        angles = np.sort(random.uniform(0, 2 * math.pi, count)) if kind == "polygon" else np.linspace(0, 6.28, count)
        radii = radius * (random.uniform(0.6, 1.2, count) if kind == "polygon" else np.ones(count))
        corners = np.stack([np.cos(angles), random.uniform(0.4, 1) * np.sin(angles)], 1) * radii[:, None]
    return ((corners @ turned.T).astype(np.float32),)


def _letters(radius: float, turned: Floats, random: np.random.Generator) -> tuple[Floats, ...]:
    """Draw a word, and return the outlines of its letters and of the holes in them."""
    word = "".join(random.choice(list(_WORDS), int(random.integers(2, 9))))
    font = int(random.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX]))
    weight = int(random.integers(3, 9))
    (width, height), below = cv2.getTextSize(word, font, 2.0, weight)
    mask = np.zeros((height + below + 20, width + 20), np.uint8)
    cv2.putText(mask, word, (10, height + 10), font, 2.0, 255, weight, cv2.LINE_8)
    found, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_TC89_KCOS)
    centre = np.array(mask.shape[::-1]) / 2
    scale = 2 * radius / height
    return tuple(((c[:, 0] - centre) * scale @ turned.T).astype(np.float32) for c in found if len(c) > 2)
