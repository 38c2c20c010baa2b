"""The page: one file that holds the videos, their scores and the program that shows them."""

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..contract.errors import RequestError
from ..contract.further_metrics import FurtherMetric, Meters
from ..contract.metrics import FIGURES
from ..contract.resize import resized
from .document import check_page, fill, read, write_page
from .media_data import ClipEncoder, encode_below
from .scores import Score, chart

MOST_FRAMES = 300  # of a page
_POLICY = "default-src 'none'; img-src data:; media-src blob:; script-src {script}; style-src {style}"
_CLIP_BYTES = 9 << 20  # of all videos together; base64 makes a third more of them
_PROFILE_PX = 8 << 20  # pixels of the temporal profiles of a video
_PROFILE_HEIGHT = 16000  # of all profiles of a video, one below the other; WebP ends at 16383
_PROFILE_LINES = 64
_PROFILE_BYTES = 3 << 20  # of the profiles of all videos together
_PROFILE_QUALITIES = (80, 50, 20)
_CLIP_SIDE, _PICTURE_SIDE = 1920, 3840  # pixels of the longer side; larger frames are made smaller
_PICTURE_BYTES = 12 << 20  # of all pictures together
_PICTURE_QUALITIES = (None, 95, 80, 50)


@dataclass(frozen=True)
class Side:
    """A video or picture on the page: its name, and a line about it."""

    name: str
    detail: str = ""


@dataclass
class _Layer:
    """A video on the page while its frames arrive."""

    side: Side
    encoder: ClipEncoder | None = None
    lines: list[np.ndarray] = field(default_factory=list)  # of each frame, (K, W, 3) uint8


class ComparisonPage:
    """Collects frames of two or three videos, and writes the page.

    sides: the videos; scores are against the last of three, which is the truth, or of one against the other.
    rate: frames a second at which the page plays.
    frames: how many frames will come at most; more than `MOST_FRAMES` are too many.
    pixel_aspect: width of a pixel by its height.
    metrics: what is measured besides PSNR and SSIM.
    """

    def __init__(
        self,
        sides: Sequence[Side],
        rate: Fraction,
        frames: int,
        title: str,
        pixel_aspect: Fraction = Fraction(1),
        metrics: Sequence[FurtherMetric] = (),
    ) -> None:
        if not 2 <= len(sides) <= 3:
            raise RequestError(f"A page compares two videos, or two with the truth, and not {len(sides)}.")
        self._layers = [_Layer(side) for side in sides]
        self.rate = Fraction(rate).limit_denominator(1001)
        self._expected, self._title, self._pixel_aspect = max(1, min(frames, MOST_FRAMES)), title, pixel_aspect
        *others, last = sides
        self.scores = [Score(side.name, last.name, Meters(metrics)) for side in others]
        self._metrics = tuple(metrics)
        self._times: list[float] = []
        self._first: list[np.ndarray] = []  # the first frames, until it is known that there are more
        self._size = self._shown = (0, 0)  # (height, width) of the frames, and on the page

    @property
    def is_full(self) -> bool:
        """Return whether no more frames are taken."""
        return len(self._times) >= self._expected

    def add(self, time: Fraction, frames: Sequence[np.ndarray]) -> None:
        """Add a frame of each video, (H, W, 3) uint8 RGB of one size, at a time in seconds."""
        if self.is_full:
            raise RequestError(f"A page holds at most {self._expected} frames: compare a shorter part.")
        for score, frame in zip(self.scores, frames, strict=False):
            score.add(frame, frames[-1])
        self._times.append(float(time))
        if len(self._times) == 1:
            self._first, self._size = list(frames), frames[0].shape[:2]
            return
        if len(self._times) == 2:
            self._begin_clips()
            self._write(self._first)
            self._first = []
        self._write(frames)

    def write(self, path: Path, *, overwrite: bool = False) -> int:
        """Write the page, and return its size in bytes.

        It ends the metrics. Raises RequestError for a file that exists, unless `overwrite` is set.
        """
        check_page(path, overwrite)
        if not self._times:
            raise RequestError("There are no frames to compare: choose another part.")
        for score in self.scores:
            score.finish()
        return write_page(path, self._content(), overwrite=overwrite)

    def means(self) -> list[dict[str, Any]]:
        """Return the mean scores, one dictionary for each comparison; those of further metrics once it is written."""
        return [score.means() for score in self.scores]

    def _begin_clips(self) -> None:
        self._shown = _fitted(self._size, _CLIP_SIDE)
        height, width = self._shown = (self._shown[0] // 2 * 2, self._shown[1] // 2 * 2)  # as the encoders want it
        lines = min(
            _PROFILE_LINES,
            height,
            _PROFILE_HEIGHT // self._expected,
            max(1, _PROFILE_PX // (self._expected * width)),
        )
        self._lines = [int((number + 0.5) * height / lines) for number in range(lines)]
        for layer in self._layers:
            most = _CLIP_BYTES // len(self._layers)
            layer.encoder = ClipEncoder(self._shown, self.rate, self._expected, most)

    def _write(self, frames: Sequence[np.ndarray]) -> None:
        for layer, frame in zip(self._layers, frames, strict=True):
            shown = _scaled(frame, _fitted(self._size, _CLIP_SIDE))[: self._shown[0], : self._shown[1]]
            assert layer.encoder is not None
            layer.encoder.write(np.ascontiguousarray(shown))
            layer.lines.append(shown[self._lines])

    def _content(self) -> str:
        is_picture = len(self._times) == 1
        layers = self._pictures() if is_picture else self._clips()
        data = {
            "kind": "picture" if is_picture else "video",
            "size": self._shown[::-1],
            "aspect": float(self._pixel_aspect) * self._shown[1] / self._shown[0],
            "rate": float(self.rate),
            "times": self._times,
            "lines": [] if is_picture else self._lines,
            "layers": layers,
        }
        parts = {
            "title": html.escape(self._title),
            "facts": self._facts(),
            "metrics": "".join(f'<th scope="col">{metric.figure.title}</th>' for metric in self._metrics),
            "scores": self._table(),
            "charts": "" if is_picture else self._charts(),
            "data": json.dumps(data).replace("<", "\\u003c"),
        }
        return fill(read("compare.html"), parts, ["base.css", "compare.css"], _POLICY, "compare.js")

    def _pictures(self) -> list[dict[str, Any]]:
        self._shown = _fitted(self._size, _PICTURE_SIDE)
        layers = []
        for layer, frame in zip(self._layers, self._first, strict=True):
            shown = _scaled(frame, self._shown)
            kind, content = encode_below(shown, _PICTURE_BYTES // len(self._layers), _PICTURE_QUALITIES)
            layers.append({"name": layer.side.name, "type": kind, "data": _base64(content)})
        return layers

    def _clips(self) -> list[dict[str, Any]]:
        layers = []
        for layer in self._layers:
            assert layer.encoder is not None
            content = layer.encoder.finish()
            profiles = np.stack(layer.lines, axis=1)  # (K, N, W, 3)
            most = _PROFILE_BYTES // len(self._layers)
            kind, sheet = encode_below(profiles.reshape(-1, *profiles.shape[2:]), most, _PROFILE_QUALITIES)
            layers.append(
                {
                    "name": layer.side.name,
                    "type": layer.encoder.kind,
                    "data": _base64(content),
                    "profiles": f"data:{kind};base64,{_base64(sheet)}",
                }
            )
        return layers

    def _facts(self) -> str:
        height, width = self._size
        lines = [f"{_named(layer.side.name)} {html.escape(layer.side.detail)}" for layer in self._layers]
        count = len(self._times)
        scaled = "" if self._shown == self._size else f", shown at {self._shown[1]} × {self._shown[0]}"
        many = "one picture" if count == 1 else f"{count} frames, {float(self.rate):.5g} a second"
        lines.append(f"Compared at {width} × {height}{scaled}: {many}.")
        return "".join(f"<p>{line}</p>" for line in lines)

    def _table(self) -> str:
        rows = []
        for means in self.means():
            level, similarity = means["psnr_y_db"], means["ssim_y"]
            cells = [
                "equal frames" if level is None else f"{level:.2f} dB",
                "frames too small" if similarity is None else f"{similarity:.4f}",
                *(f"{means[metric.name]:.{metric.figure.digits}f}" for metric in self._metrics),
            ]
            label = f"{_named(means['name'])} against {_named(means['against'])}"
            rows.append(f'<tr><th scope="row">{label}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        return "".join(rows)

    def _charts(self) -> str:
        found = []
        for title, digits, values in (
            ("PSNR in dB", 1, [(score.name, score.psnr_db) for score in self.scores]),
            ("SSIM", 3, [(score.name, score.ssim) for score in self.scores if score.ssim]),
            *(
                (FIGURES[name].title, FIGURES[name].digits - 1, [(s.name, s.further[name]) for s in self.scores])
                for name in self.scores[0].further
            ),
        ):
            if drawn := chart(title, self._times, values, digits):
                keys = "".join(
                    f'<span class="key key-{number}">{html.escape(name)}</span>'
                    for number, (name, _) in enumerate(values)
                )
                found.append(f"<figure><figcaption>{title} {keys}</figcaption>{drawn}</figure>")
        return "".join(found)


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return a size, (height, width), made smaller so that its longer side is at most `side`."""
    share = min(1.0, side / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def _scaled(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:  # (H, W, 3) uint8 -> (h, w, 3) uint8
    if frame.shape[:2] == size:
        return frame
    small = resized(frame.transpose(2, 0, 1), size)
    return np.ascontiguousarray(np.clip(np.rint(small), 0, 255).astype(np.uint8).transpose(1, 2, 0))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _named(name: str) -> str:
    return f"<b>{html.escape(name)}</b>"
