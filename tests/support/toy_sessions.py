"""Sessions that compute toy networks of `network_bundle`, without graphs."""

from pathlib import Path
from typing import Any

import numpy as np


def enlarge(frames: np.ndarray, factor: int) -> np.ndarray:
    return frames.repeat(factor, -1).repeat(factor, -2)


def compute(kind: str, space: int, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Compute a toy network: frames between input frames are blends of them, and pixels are repeated."""
    frames = inputs["frames"]
    if kind == "sliding":
        return enlarge(frames[:, frames.shape[1] // 2, None], space)
    if kind == "doubled":  # the frames a quarter of a frame before and after each, where it has neighbours
        before = np.concatenate((frames[:, :1], frames[:, :-1]), 1)
        after = np.concatenate((frames[:, 1:], frames[:, -1:]), 1)
        pair = np.stack((0.75 * frames + 0.25 * before, 0.75 * frames + 0.25 * after), 2)
        return enlarge(pair.reshape(1, -1, *frames.shape[2:]), space)
    time = float(inputs["time"][0]) if "time" in inputs else 0.5
    output = np.empty((1, 2 * frames.shape[1] - 1, *frames.shape[2:]), np.float32)
    output[:, ::2], output[:, 1::2] = frames, (1 - time) * frames[:, :-1] + time * frames[:, 1:]
    return enlarge(output, space)


class ToySession:
    """A session of a bundle of `network_bundle`; it keeps the inputs of every run."""

    device = "cpu"
    runs: list[dict[str, np.ndarray]]

    def __init__(self, path: Path, *_: Any, **__: Any) -> None:
        self.kind, space = path.parent.name.split("-x")
        self.space = int(space)

    def __enter__(self) -> "ToySession":
        return self

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None: ...

    def run(self, inputs: dict[str, np.ndarray], *, keep: bool = False) -> dict[str, np.ndarray]:
        self.runs.append(inputs)
        return {"upscaled": compute(self.kind, self.space, inputs)}
