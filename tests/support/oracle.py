"""Outputs and weights of the official networks, the references that the networks here are compared with."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.paths import ORACLES, SHARED
from tests.support.procedural import procedural_weights

LARGE_ORACLES = SHARED / "oracles"  # next to a checkout that has them


class Oracle:
    """The inputs and outputs of one official network, and its state dict.

    `record`: the oracle's JSON; `arrays`: inputs and outputs by name; `weights`: the official state dict, stored in the
    file or else generated from the names and shapes in the record.
    """

    def __init__(self, folder: Path, name: str, gain: float, offset_gain: float) -> None:
        self.name = name
        self.record: dict[str, Any] = {}
        if (folder / f"{name}.json").is_file():
            self.record = json.loads((folder / f"{name}.json").read_text())
        with np.load(folder / f"{name}.npz") as arrays:
            self.arrays = {key: value for key, value in arrays.items() if not key.startswith("sd/")}
            stored = {key[3:]: torch.from_numpy(value) for key, value in arrays.items() if key.startswith("sd/")}
        shapes = {key: tuple(entry["shape"]) for key, entry in self.record.get("keys", {}).items()}
        self.weights: dict[str, Tensor] = stored or procedural_weights(shapes, gain, offset_gain)

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])


def read_oracle(name: str, gain: float = 1.0, offset_gain: float = 16.0) -> Oracle:
    """Read an oracle of this repository, or a large one next to the checkout. Raises FileNotFoundError if absent."""
    for folder in (ORACLES, LARGE_ORACLES):
        if (folder / f"{name}.npz").is_file():
            return Oracle(folder, name, gain, offset_gain)
    raise FileNotFoundError(f"the oracle {name} is too large for this repository and is not next to the checkout")


def load_oracle(name: str, gain: float = 1.0, offset_gain: float = 16.0) -> Oracle:
    """Read an oracle as `read_oracle` does, or skip the test if the oracle is absent."""
    try:
        return read_oracle(name, gain, offset_gain)
    except FileNotFoundError as absent:
        pytest.skip(str(absent))
